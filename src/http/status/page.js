"use strict";
// Asks /readyz and /metrics every two seconds, and keeps five minutes.
const KEPT = 150;
const REPLICA = "fallback_replica_";
const REQUESTS = "http_requests_total";
const samples = [];
const $ = (id) => document.getElementById(id);
const create = (name, ...children) => {
  const element = document.createElement(name);
  element.append(...children);
  return element;
};

const number = (value) => (value >= 100 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(2)));
const bytes = (value) => {
  const unit = Math.min(3, Math.floor(Math.log2(value || 1) / 10));
  return `${number(value / 1024 ** unit)} ${["B", "KiB", "MiB", "GiB"][unit]}`;
};
const time = (seconds) =>
  seconds < 1 ? `${number(seconds * 1000)} ms` : seconds < 120 ? `${number(seconds)} s` : `${number(seconds / 60)} min`;

// The series of a scrape, as [name, labels, value].
const parse = (text) => [...text.matchAll(/^records_(\w+)(?:\{(.*)\})? (\S+)$/gm)].map(([, name, labels, value]) => [
  name,
  Object.fromEntries([...(labels ?? "").matchAll(/(\w+)="((?:\\.|[^"\\])*)"/g)].map((label) => label.slice(1))),
  Number(value),
]);
// The sum of a metric, undefined without it.
const sum = (sample, metric, test = () => true) =>
  sample.series.filter(([name, labels]) => name === metric && test(labels)).reduce((total, [, , value]) => (total ?? 0) + value, undefined);
const state = (sample, metric) =>
  sample.series.find(([name, , value]) => name === metric && value === 1)?.[1].state.replace("_", " ");
// The growth of a counter in `count` samples up to `at`, and the seconds between them.
const growth = (at, count, metric, test) => {
  const from = samples[Math.max(0, at - count)], to = samples[at];
  return [Math.max(0, (sum(to, metric, test) ?? 0) - (sum(from, metric, test) ?? 0)), (to.at - from.at) / 1000];
};
const rate = (metric, test) => (at) => {
  const [count, seconds] = growth(at, 5, metric, test);
  return seconds ? count / seconds : 0;
};
const isApi = ({ route }) => route?.startsWith("/api/");
// As the alerts count: without what clients cause.
const isError = (labels) => isApi(labels) && labels.status >= "500" && labels.status !== "504";
// Interpolates in a bucket, like Prometheus.
const quantile = (q) => (at) => {
  const metric = "http_request_duration_seconds_bucket";
  const bounds = [...new Set(samples[at].series.filter(([name]) => name === metric).map(([, { le }]) => le))];
  const counts = bounds.map((le) => growth(at, 15, metric, (labels) => isApi(labels) && labels.le === le)[0]);
  const rank = q * counts.at(-1);
  if (!rank) return 0;
  const index = counts.findIndex((count) => count >= rank);
  const low = Number(bounds[index - 1] ?? 0), below = counts[index - 1] ?? 0;
  const high = bounds[index] === "+Inf" ? low : Number(bounds[index]);
  return low + ((high - low) * (rank - below)) / (counts[index] - below);
};

const CHARTS = [
  ["Requests a second", number, ["requests", rate(REQUESTS, isApi)]],
  ["Errors a second", number, ["responses", rate(REQUESTS, isError)], ["calls to the store", rate("store_failures_total")]],
  ["Time until a response", time, ["median", quantile(0.5)], ["99 of 100", quantile(0.99)]],
];
const svg = (name, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  return element;
};
const chart = ([title, format, ...lines]) => {
  const drawn = lines.map(([, value]) => samples.map((_, at) => value(at)));
  const top = Math.max(...drawn.flat());
  const texts = lines.map(([name], line) => `${name}: ${format(drawn[line].at(-1))}, `);
  const most = `at most ${format(top)}`;
  const picture = svg("svg", { viewBox: `0 0 ${KEPT} 100`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${texts.join("")}${most}` });
  for (const line of drawn) {
    const points = line.map((value, at) => `${KEPT - line.length + at},${98 - (96 * value) / (top || 1)}`);
    picture.append(svg("polyline", { points: points.join(" ") }));
  }
  return create("figure", create("figcaption", title), picture, create("p", ...texts.map((text) => create("span", text)), most));
};

// Name, metric, format (a state has none), and metric of the limit.
const FACTS = {
  Store: [
    ["Circuit breaker", "circuit_breaker_state"],
    ["Health check", "store_health_check_duration_seconds", time],
    ["Connections in use", "store_connections_in_use", number, "store_connections_open"],
    ["Failed calls", "store_failures_total", number],
  ],
  Replica: [
    ["State", REPLICA + "sync_state"],
    ["Age", REPLICA + "age_seconds", time],
    ["Records", REPLICA + "records", number],
    ["Size", REPLICA + "size_bytes", bytes, REPLICA + "size_limit_bytes"],
    ["Answers", REPLICA + "answers_total", number],
  ],
  Process: [
    ["Requests in progress", "http_requests_in_flight", number],
    ["Connections", "http_connections_open", number, "http_connections_limit"],
    ["Memory", "process_resident_memory_bytes", bytes, "process_memory_limit_bytes"],
    ["Memory for responses", "http_response_memory_bytes", bytes, "http_response_memory_limit_bytes"],
  ],
};
const facts = (now, [title, rows]) => {
  const shown = rows.flatMap(([name, metric, format, limit]) => {
    const value = format ? sum(now, metric) : state(now, metric);
    if (value === undefined) return [];
    const text = (format ? format(value) : value) + (limit ? ` of ${format(sum(now, limit) ?? 0)}` : "");
    return [create("dt", name), create("dd", text)];
  });
  return shown.length ? create("section", create("h2", title), create("dl", ...shown)) : "";
};

// Reasons to act, with the thresholds of the alerts.
const findings = (now, at) => {
  const nears = (metric, limit) => sum(now, metric) >= 0.9 * sum(now, limit);
  const count = (metric, test, samples = KEPT) => growth(at, samples, metric, test)[0];
  const age = sum(now, REPLICA + "age_seconds");
  const failed = count(REQUESTS, isError), rejected = count("http_requests_rejected_total", ({ reason }) => reason !== "rate_limit");
  return [
    count("store_failures_total", undefined, 30) && "Calls to the store failed in the last minute.",
    failed && `${number(failed)} of ${number(count(REQUESTS, isApi))} requests failed.`,
    rejected && `${number(rejected)} requests exceeded a limit.`,
    sum(now, REPLICA + "usable") === 0 && "There is no usable replica.",
    age > 300 && `The replica is ${time(age)} old.`,
    nears(REPLICA + "size_bytes", REPLICA + "size_limit_bytes") && "The replica nears its size limit.",
    nears("process_resident_memory_bytes", "process_memory_limit_bytes") && "The memory nears its limit.",
  ];
};
const judge = (kind, text, reasons) => {
  const items = reasons.map((reason) => create("li", reason));
  const { innerHTML } = create("p", create("h2", text), create("ul", ...items));
  // Screen readers read what changes.
  if ($("verdict").innerHTML !== innerHTML) Object.assign($("verdict"), { innerHTML, className: kind });
};

const ask = async () => {
  try {
    const options = { signal: AbortSignal.timeout(10000) };
    const ready = await fetch("readyz", options);
    const { status, detail } = await ready.json();
    const metrics = await (await fetch("metrics", options)).text();
    const now = { at: performance.now(), series: parse(metrics) };
    samples.push(now);
    if (samples.length > KEPT) samples.shift();
    const reasons = [detail, ...findings(now, samples.length - 1)].filter(Boolean);
    if (!ready.ok) judge("bad", "Not ready", reasons);
    else if (reasons.length || status !== "ready") judge("warn", "Ready, with a warning", reasons);
    else judge("good", "Ready", []);
    const version = now.series.find(([name]) => name === "build_info")[1].version;
    $("title").textContent = `records ${version}, ${new Date().toLocaleTimeString("en-GB")}`;
    $("facts").replaceChildren(...Object.entries(FACTS).map((group) => facts(now, group)));
    $("charts").replaceChildren(...CHARTS.map(chart));
  } catch (error) {
    judge("bad", "No answer", [error.message]);
  }
  setTimeout(ask, 2000);
};
ask();
fetch("status/settings").then((answer) => answer.text()).then((text) => $("settings").append(text));
