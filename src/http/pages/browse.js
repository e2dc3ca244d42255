// Browses the records by the API that everybody has. What is shown is text, never markup: records are not ours.
"use strict";

const API = "/api/v1/records";
const get = (id) => document.getElementById(id);
const form = get("ask");
let asked = 0;

function addFilter(path = "", operator = "eq", value = "") {
  const item = get("filter").content.cloneNode(true).firstElementChild;
  const part = (name) => item.querySelector(`[data-part=${name}]`);
  part("path").value = path;
  part("operator").value = operator;
  part("value").value = value;
  part("remove").addEventListener("click", () => {
    item.remove();
    get("add").focus();
  });
  get("filters").append(item);
  return part("path");
}

// The form as the query of a request.
function query() {
  const parameters = new URLSearchParams();
  for (const item of get("filters").children) {
    const part = (name) => item.querySelector(`[data-part=${name}]`).value;
    parameters.append(`${part("path")}.${part("operator")}`, part("value"));
  }
  for (const name of ["sort", "fields", "limit"]) {
    const value = form.elements[name].value.trim();
    if (value) parameters.append(name, value);
  }
  return parameters.toString();
}

// The query of an address into the form.
function fill(text) {
  get("filters").replaceChildren();
  form.reset();
  for (const [name, value] of new URLSearchParams(text)) {
    const dot = name.lastIndexOf(".");
    if (["sort", "fields", "limit"].includes(name)) form.elements[name].value = value;
    else if (dot > 0) addFilter(name.slice(0, dot), name.slice(dot + 1), value);
  }
}

function say(text, isError = false) {
  get("status").textContent = text;
  get("status").classList.toggle("error", isError);
}

// A number with more digits than JavaScript keeps must not change under the reader's eyes: the text is indented as it is.
function pretty(json) {
  let out = "";
  let depth = 0;
  let inText = false;
  for (let at = 0; at < json.length; at++) {
    const c = json[at];
    if (inText) {
      out += c;
      if (c === "\\") out += json[++at];
      else if (c === '"') inText = false;
    } else if (c === '"') {
      inText = true;
      out += c;
    } else if (c === "{" || c === "[") {
      const empty = json[at + 1] === "}" || json[at + 1] === "]";
      out += empty ? c + json[++at] : `${c}\n${"  ".repeat(++depth)}`;
    } else if (c === "}" || c === "]") out += `\n${"  ".repeat(--depth)}${c}`;
    else if (c === ",") out += `,\n${"  ".repeat(depth)}`;
    else out += c === ":" ? ": " : c;
  }
  return out;
}

// The id as its address has it. It comes first, but where a record was stored otherwise; as a number, see above.
function idOf(line) {
  const digits = /^\{"_id":(-?[0-9.eE+-]+)[,}]/.exec(line)?.[1];
  if (digits) return digits;
  const id = JSON.parse(line)._id;
  return typeof id === "object" ? JSON.stringify(id) : String(id);
}

function show(line) {
  const item = document.createElement("li");
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  const name = document.createElement("span");
  const preview = document.createElement("span");
  const text = document.createElement("pre");
  name.className = "id";
  name.textContent = idOf(line);
  preview.className = "preview";
  preview.textContent = line.length > 300 ? `${line.slice(0, 300)}…` : line;
  text.tabIndex = 0;
  summary.append(name, preview);
  details.append(summary, text);
  details.addEventListener("toggle", () => {
    if (details.open && !text.textContent) text.textContent = pretty(line);
  });
  item.append(details);
  return item;
}

async function load(url, focus) {
  const mine = ++asked;
  say("Loading…");
  get("address").textContent = `GET ${url}`;
  try {
    const answer = await fetch(url, { headers: { Accept: "application/x-ndjson, application/problem+json;q=0.5" } });
    const body = await answer.text();
    if (mine !== asked) return;
    if (!answer.ok) {
      get("records").replaceChildren();
      get("next").hidden = true;
      const problem = answer.headers.get("content-type") === "application/problem+json" ? JSON.parse(body) : {};
      say(problem.detail ?? `The server answered ${answer.status}.`, true);
      return;
    }
    const lines = body.split("\n").filter(Boolean);
    get("records").replaceChildren(...lines.map(show));
    const next = /<([^>]*)>; rel="next"/.exec(answer.headers.get("link") ?? "")?.[1];
    get("next").hidden = !next;
    get("next").dataset.url = next ?? "";
    get("first").hidden = !url.includes("after=");
    say(lines.length === 0 ? "No record." : `${lines.length} ${lines.length === 1 ? "record" : "records"}${next ? ", and more" : ""}.`);
    if (focus) get("records").focus();
  } catch (error) {
    if (mine === asked) say(`The server cannot be reached: ${error.message}`, true);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = query();
  history.pushState(null, "", `?${text}`);
  load(`${API}?${text}`, false);
});
get("add").addEventListener("click", () => addFilter().focus());
get("first").addEventListener("click", () => form.requestSubmit());
get("next").addEventListener("click", () => {
  const url = get("next").dataset.url;
  history.pushState(null, "", url.slice(url.indexOf("?")));
  load(url, true);
});

function begin() {
  const text = location.search.slice(1);
  fill(text);
  load(`${API}?${text || query()}`, false);
}
addEventListener("popstate", begin);
begin();
