// Browses the records through the public API. Every value is shown as text, never as markup, because records are untrusted.
"use strict";

const API = "api/v1/records";
const DEFAULT_COLUMNS = 8;
const MAX_DEPTH = 3;
const DATE = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;
// While a replica answers, the page asks again this often.
const RECHECK_MS = 5000;
// The longest time without a frame while many records are read and drawn.
const SLICE_MS = 20;

const get = (id) => document.getElementById(id);
const form = get("query");
let latest = 0;
let drawing = 0;
let view = { rows: [], cells: [], next: "", search: null };
// The number of records that match some filters.
let total = { filters: null, text: "" };
let recheck;
// The row that was chosen, since several ids may have one text. A link from elsewhere names no row.
let opened = -1;

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// Runs for each item, with pauses for the browser to draw and to react. Stops once `isCurrent` is false.
async function inSlices(items, isCurrent, run) {
  let begin = performance.now();
  for (const [index, item] of items.entries()) {
    if (performance.now() - begin > SLICE_MS) {
      await new Promise((resolve) => setTimeout(resolve));
      begin = performance.now();
    }
    if (!isCurrent()) return;
    run(item, index);
  }
}

// Parses JSON and keeps what JSON.parse loses: the digits of a number, the order of numeric names, repeated names.
function parse(json) {
  let at = 0;
  const token = /\s*(?:([{}[\],:])|(")|(-?\d[\d.eE+-]*)|(true|false|null))\s*/y;
  let kind;
  function read() {
    token.lastIndex = at;
    kind = token.exec(json);
    if (!kind) throw new SyntaxError("The response is not JSON.");
    at = token.lastIndex;
    if (kind[2]) readString(kind.index + kind[0].indexOf('"'));
  }
  // A pattern for all of a long string would take more memory than a browser has for one.
  function readString(begin) {
    let end = begin;
    let backslashes;
    do {
      end = json.indexOf('"', end + 1);
      if (end < 0) throw new SyntaxError("The response is not JSON.");
      for (backslashes = 0; json[end - 1 - backslashes] === "\\"; ) backslashes += 1;
    } while (backslashes % 2);
    kind[2] = json.slice(begin, end + 1);
    at = end + 1;
  }
  function value() {
    const [, mark, text, number, word] = kind;
    if (text) return { type: "string", value: JSON.parse(text) };
    if (number) return { type: "number", value: number };
    if (word) return { type: word === "null" ? "null" : "boolean", value: word };
    const isObject = mark === "{";
    const entries = [];
    for (read(); kind[1] !== "}" && kind[1] !== "]"; ) {
      let name = String(entries.length);
      if (isObject) {
        name = JSON.parse(kind[2]);
        read();
        read();
      }
      entries.push([name, value()]);
      read();
      if (kind[1] === ",") read();
    }
    return { type: isObject ? "object" : "array", value: entries };
  }
  read();
  return value();
}

function toJson(node, indent = "", step = "") {
  if (node.type === "string") return JSON.stringify(node.value);
  if (node.type !== "object" && node.type !== "array") return node.value;
  const [open, close] = node.type === "object" ? "{}" : "[]";
  if (!node.value.length) return open + close;
  const inner = indent + step;
  const newline = step ? "\n" : "";
  const parts = node.value.map(([name, child]) => {
    const label = node.type === "object" ? `${JSON.stringify(name)}:${step && " "}` : "";
    return `${newline}${step && inner}${label}${toJson(child, inner, step)}`;
  });
  return `${open}${parts.join(",")}${newline}${step && indent}${close}`;
}

const escapeName = (name) => name.replace(/[\\.]/g, "\\$&");
// `path` is null at the top. A field may have an empty name.
const joinPath = (path, name) => (path === null ? escapeName(name) : `${path}.${escapeName(name)}`);
const escapeList = (path) => path.replaceAll(",", "\\,");
// A path in the parameter `fields`, where a minus and an asterisk would have a meaning.
const fieldName = (path) => escapeList(path).replace(/^-/, "\\-").replace(/(^|\.)\*(?=\.|$)/g, "$1\\*");
const splitList = (text) => text.split(/(?<!\\),/).map((path) => path.replaceAll("\\,", ","));
// A text in double quotes is a string and nothing else, so a text that begins with one must be quoted itself.
const operand = (node) => (node.type === "string" && node.value.startsWith('"') ? JSON.stringify(node.value) : String(node.value));
const isScalar = (node) => node.type !== "object" && node.type !== "array";
const child = (node, name) => node.value.find(([other]) => other === name)?.[1];

function idText(record) {
  const id = child(record, "_id");
  if (!id) return "";
  return isScalar(id) ? String(id.value) : toJson(id);
}

// The paths of a record's fields, down to MAX_DEPTH documents.
function* paths(node, path = null, depth = 1) {
  for (const [name, value] of node.value) {
    const here = joinPath(path, name);
    if (value.type === "object" && value.value.length && depth < MAX_DEPTH) yield* paths(value, here, depth + 1);
    else yield [here, value];
  }
}

// --- The query, the form and the URL ------------------------------------------------------------------------------------

// Adds a row to the form, with the values of its parts.
function addRow(template, values) {
  const item = get(template).content.cloneNode(true).firstElementChild;
  for (const name in values) item.querySelector(`[data-part=${name}]`).value = values[name];
  item.querySelector("[data-part=remove]").addEventListener("click", () => {
    item.remove();
    get("add-filter").focus();
  });
  get("filters").append(item);
  return item;
}
const addFilter = (path = "", operator = "eq", value = "") => addRow("filter", { path, operator, value });
// The API has parentheses around alternatives.
const addAlternatives = (value = "") => addRow("alternatives", { or: value.replace(/^\((.*)\)$/s, "$1") });

// The API's query from the form.
function formQuery() {
  const parameters = new URLSearchParams();
  for (const item of get("filters").children) {
    const part = (name) => item.querySelector(`[data-part=${name}]`)?.value;
    if (part("or") === undefined) parameters.append(`${part("path")}.${part("operator")}`, part("value"));
    else parameters.append("or", `(${part("or")})`);
  }
  for (const name of ["sort", "fields", "limit"]) {
    const value = form.elements[name].value.trim();
    if (value) parameters.append(name, value);
  }
  return parameters;
}

function fillForm(parameters) {
  get("filters").replaceChildren();
  form.reset();
  for (const [name, value] of parameters) {
    const dot = name.lastIndexOf(".");
    if (["sort", "fields", "limit"].includes(name)) form.elements[name].value = value;
    else if (name === "or") addAlternatives(value);
    else if (dot > 0) addFilter(name.slice(0, dot), name.slice(dot + 1), value);
  }
}

// `columns` belongs to the page; all other parameters are the API's.
function pageQuery() {
  const parameters = new URLSearchParams(location.search);
  const columns = parameters.get("columns");
  parameters.delete("columns");
  return { parameters, columns: columns === null ? null : splitList(columns) };
}

function navigate(parameters, columns, focus) {
  const query = new URLSearchParams(parameters);
  if (columns) query.set("columns", columns.map(escapeList).join(","));
  history.pushState(null, "", `?${query}`);
  load(focus);
}

// --- The table ----------------------------------------------------------------------------------------------------------

function say(text, kind = "") {
  get("status").textContent = text;
  get("status").className = kind;
}

// All columns of the page, the most frequent ones first; `_id` is always the first.
function allColumns() {
  const counts = new Map();
  for (const cells of view.cells) {
    for (const path of cells.keys()) counts.set(path, (counts.get(path) ?? 0) + 1);
  }
  counts.set("_id", Infinity);
  return [...counts].sort((a, b) => b[1] - a[1]).map(([path]) => path);
}

function cell(node) {
  const td = make("td");
  if (!node) {
    td.className = "missing";
    td.append(make("span", { title: "The record has no such field." }, "missing"));
  } else if (node.type === "null") td.append(make("span", { className: "null" }, "null"));
  else if (node.type === "number") {
    td.className = "number";
    td.textContent = node.value;
  } else if (node.type === "string" && DATE.test(node.value)) td.append(date(node.value));
  else {
    const text = isScalar(node) ? node.value : toJson(node);
    td.textContent = text.length > 120 ? `${text.slice(0, 120)}…` : text;
    if (text.length > 40) td.title = text.slice(0, 2000);
  }
  return td;
}

function date(text) {
  const time = new Date(text);
  const shown = isNaN(time) ? text : time.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
  return make("time", { dateTime: text, title: text }, shown);
}

function heading(path, sort) {
  const [field, descending] = sort.startsWith("-") ? [sort.slice(1), true] : [sort, false];
  const isSorted = field === escapeList(path);
  const th = make("th", { scope: "col" });
  if (isSorted) th.ariaSort = descending ? "descending" : "ascending";
  const next = !isSorted ? escapeList(path) : descending ? "" : `-${escapeList(path)}`;
  const sortButton = make("button", { type: "button", className: "sort", title: "Sort" }, path);
  sortButton.addEventListener("click", () => {
    form.elements.sort.value = next;
    form.requestSubmit();
  });
  const filterButton = make("button", { type: "button", className: "filter", title: "Filter", ariaLabel: `Filter by ${path}` }, "⌕");
  const isText = view.cells.find((cells) => cells.get(path)?.type === "string" && !DATE.test(cells.get(path).value));
  if (view.cells.find((cells) => cells.has(path))?.get(path).type === "number") th.className = "number";
  const operator = isText ? "starts" : "eq";
  filterButton.addEventListener("click", () => addFilter(path, operator).querySelector("[data-part=value]").focus());
  th.append(sortButton, filterButton);
  return th;
}

async function showTable() {
  const mine = ++drawing;
  const { parameters, columns: chosen } = pageQuery();
  const records = view.rows;
  const all = allColumns();
  const columns = chosen ?? all.slice(0, DEFAULT_COLUMNS);
  const table = get("results").querySelector("table");
  table.hidden = !records.length;
  table.tHead.replaceChildren(make("tr", {}, ...columns.map((path) => heading(path, parameters.get("sort") ?? ""))));
  const list = [...new Set([...columns, ...all])].map((path) => {
    const box = make("input", { type: "checkbox", checked: columns.includes(path), value: path });
    return make("label", {}, box, path);
  });
  get("column-list").replaceChildren(...list);

  const body = table.tBodies[0];
  body.replaceChildren();
  await inSlices(records, () => mine === drawing, (record, index) => {
    const row = make("tr");
    row.dataset.index = index;
    for (const path of columns) {
      const td = cell(view.cells[index].get(path));
      td.dataset.path = path;
      if (path === "_id") {
        const link = make("a", { href: `#record=${encodeURIComponent(idText(record))}`, className: "id" });
        link.append(...td.childNodes);
        link.addEventListener("click", () => (opened = index));
        td.append(link);
      }
      row.append(td);
    }
    body.append(row);
  });
}

get("column-list").addEventListener("change", () => {
  const boxes = [...get("column-list").querySelectorAll("input:checked")];
  const query = pageQuery().parameters;
  query.set("columns", boxes.map((box) => escapeList(box.value)).join(","));
  history.replaceState(null, "", `?${query}`);
  showTable();
});

// A click on a value offers it as a filter.
get("results").addEventListener("click", (event) => {
  const td = event.target.closest("td");
  if (!td || event.target.closest("a, button") || String(getSelection())) return;
  const { path } = td.dataset;
  const node = view.cells[td.parentElement.dataset.index].get(path);
  const item = !node ? addFilter(path, "exists", "false") : isScalar(node) ? addFilter(path, "eq", operand(node)) : addFilter(path, "exists", "true");
  item.querySelector("[data-part=operator]").focus();
});

// --- Loading ------------------------------------------------------------------------------------------------------------

async function problemOf(response) {
  const isProblem = response.headers.get("content-type")?.startsWith("application/problem+json");
  const problem = isProblem ? JSON.parse(await response.text()) : {};
  const id = problem.request_id ? ` (request ${problem.request_id})` : "";
  return `${problem.detail ?? `The server answered with status ${response.status}.`}${response.status >= 500 ? id : ""}`;
}

const nextOf = (response) => /<([^>]*)>; rel="next"/.exec(response.headers.get("link") ?? "")?.[1] ?? "";

// Says if the store or the replica answered, and asks again while it is the replica.
function showSource(response) {
  const isReplica = response.headers.has("cache-status");
  const age = Number(response.headers.get("age") ?? 0);
  const seconds = age < 60 ? `${age} s` : age < 3600 ? `${Math.round(age / 60)} min` : `${Math.round(age / 3600)} h`;
  get("source").textContent = isReplica ? `Answered by the replica, ${seconds} old` : "Answered by the store";
  get("source").classList.toggle("replica", isReplica);
  const isStale = isReplica && age > 10;
  get("banner").hidden = !isStale;
  if (isStale) get("banner").textContent = `The database is away. The replica answers; it was last known to be current ${seconds} ago.`;
  clearTimeout(recheck);
  if (isReplica) recheck = setTimeout(checkSource, RECHECK_MS);
}

async function checkSource() {
  try {
    const response = await request(`${API}?limit=1`, "application/json", { method: "HEAD", cache: "no-store" });
    if (response.ok) return showSource(response);
  } catch {
    // The next check reports the result.
  }
  recheck = setTimeout(checkSource, RECHECK_MS);
}

// --- API keys -----------------------------------------------------------------------------------------------------------

// The key is kept for this tab only.
const apiKey = () => sessionStorage.getItem("api-key");

async function request(url, accept, options = {}) {
  const headers = { Accept: accept, ...options.headers };
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  const response = await fetch(url, { ...options, headers });
  // The key is missing, wrong, or has another scope.
  if (response.headers.has("www-authenticate")) {
    sessionStorage.removeItem("api-key");
    if (!get("key").open) get("key").showModal();
  }
  return response;
}

get("key").addEventListener("close", () => {
  const key = get("key-value").value.trim();
  get("key-value").value = "";
  if (!key) return;
  sessionStorage.setItem("api-key", key);
  load();
});

// The parameters without those of one page.
function filtersOf(parameters) {
  const filters = new URLSearchParams(parameters);
  for (const name of ["after", "after_id", "limit", "sort", "fields"]) filters.delete(name);
  return filters;
}

// Shows how many records match in all. Asked for apart, since counting may take longer than a page.
async function showTotal(parameters) {
  const filters = String(filtersOf(parameters));
  if (filters !== total.filters) {
    total = { filters, text: "" };
    get("total").textContent = "";
    const options = { method: "HEAD", headers: { Prefer: "count=estimated" } };
    const response = await request(`${API}?${filters}&limit=1`, "application/json", options).catch(() => null);
    if (filters !== total.filters) return;
    const count = response?.headers.get("records-count");
    const about = response?.headers.get("preference-applied") === "count=exact" ? "" : "About ";
    if (count) total.text = `${about}${Number(count).toLocaleString()} in all`;
    else total.filters = null;
  }
  get("total").textContent = total.text;
}

const quoteShell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

async function load(focus = false) {
  const mine = ++latest;
  const { search } = location;
  const { parameters } = pageQuery();
  if (!parameters.has("limit")) parameters.set("limit", form.elements.limit.value);
  const url = `${API}?${parameters}`;
  const absolute = new URL(url, document.baseURI).href;
  const authorization = apiKey() ? '-H "Authorization: Bearer $API_KEY" ' : "";
  get("curl").textContent = `curl ${authorization}${quoteShell(absolute)}`;
  get("results").ariaBusy = "true";
  say("Loading…");
  let error;
  try {
    const response = await request(url, "application/x-ndjson, application/problem+json;q=0.5");
    if (!response.ok) error = await problemOf(response);
    else {
      const lines = (await response.text()).split("\n").filter(Boolean);
      const [rows, cells] = [[], []];
      await inSlices(lines, () => mine === latest, (line) => {
        rows.push(parse(line));
        cells.push(new Map(paths(rows.at(-1))));
      });
      if (mine !== latest) return;
      view = { rows, cells, next: nextOf(response), search };
      showSource(response);
    }
  } catch (failure) {
    error = `The server cannot be reached: ${failure.message}`;
  }
  if (mine !== latest) return;
  if (error) view = { rows: [], cells: [], next: "", search };
  const count = view.rows.length;
  await showTable();
  if (mine !== latest) return;
  get("results").ariaBusy = "false";
  get("first").hidden = !parameters.has("after");
  get("next").hidden = !view.next;
  get("next").dataset.url = view.next;
  get("columns").hidden = get("download").hidden = !count;
  if (error) get("total").textContent = "";
  else showTotal(parameters);
  if (error) say(error, "error");
  else if (count) say(`${count} ${count === 1 ? "record" : "records"}${view.next ? ", and more" : ""}.`);
  else say(parameters.has("after") ? "No more records." : get("filters").children.length ? "No record matches the filters." : "The collection is empty.", "empty");
  if (focus) get("results").focus();
  showRecord();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  navigate(formQuery(), pageQuery().columns, false);
});
get("add-filter").addEventListener("click", () => addFilter().querySelector("input").focus());
get("add-alternatives").addEventListener("click", () => addAlternatives().querySelector("input").focus());
get("first").addEventListener("click", () => form.requestSubmit());
get("next").addEventListener("click", () => {
  const next = new URL(view.next, document.baseURI).searchParams;
  navigate(next, pageQuery().columns, true);
});

// --- Downloads and the clipboard ----------------------------------------------------------------------------------------

// The records as CSV, by the service: of the page, or of all pages one after the other.
async function csv(all) {
  const { parameters } = pageQuery();
  const columns = [...get("column-list").querySelectorAll("input:checked")].map((box) => fieldName(box.value));
  parameters.set("fields", columns.join(","));
  if (all) parameters.delete("after");
  if (all) parameters.set("limit", form.elements.limit.max);
  else if (!parameters.has("limit")) parameters.set("limit", form.elements.limit.value);
  const parts = [];
  for (let query = `?${parameters}`, header = "present"; query; header = "absent") {
    const response = await request(API + query, `text/csv; header=${header}, application/problem+json;q=0.5`);
    if (!response.ok) throw new Error(await problemOf(response));
    parts.push(await response.text());
    const next = all && nextOf(response);
    query = next && new URL(next, document.baseURI).search;
    if (all) say(`${parts.length} ${parts.length === 1 ? "page" : "pages"} downloaded…`);
  }
  return parts;
}

const FORMATS = {
  json: { type: "application/json", parts: () => [`[${view.rows.map((row) => toJson(row)).join(",\n")}]\n`] },
  ndjson: { type: "application/x-ndjson", parts: () => view.rows.map((row) => `${toJson(row)}\n`) },
  csv: { type: "text/csv", parts: csv },
};

get("download").addEventListener("click", async (event) => {
  const { format, all } = event.target.dataset;
  if (!format) return;
  const { type, parts } = FORMATS[format];
  const before = get("status").textContent;
  try {
    const link = make("a", { href: URL.createObjectURL(new Blob(await parts(all), { type })), download: `records.${format}` });
    link.click();
    URL.revokeObjectURL(link.href);
    say(before);
  } catch (failure) {
    say(failure.message, "error");
  }
});

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.dataset.copied = "✓";
  } catch {
    button.dataset.copied = "not possible here";
  }
  setTimeout(() => delete button.dataset.copied, 1500);
}
get("copy-curl").addEventListener("click", () => copy(get("copy-curl"), get("curl").textContent));

// --- One record ---------------------------------------------------------------------------------------------------------

function tree(node, path, name) {
  const label = make("span", { className: "name" }, name);
  const buttons = make("span", { className: "actions" });
  const button = (text, title, run) => {
    const element = make("button", { type: "button", title, ariaLabel: `${title}: ${path}` }, text);
    element.addEventListener("click", (event) => {
      event.preventDefault();
      run(element);
    });
    buttons.append(element);
  };
  button("path", "Copy the path", (element) => copy(element, path));
  button("value", "Copy the value", (element) => copy(element, node.type === "string" ? node.value : toJson(node, "", "  ")));
  if (isScalar(node)) {
    button("filter", "Filter by this value", () => {
      get("record").close();
      addFilter(path, "eq", operand(node));
      form.requestSubmit();
    });
    const shown = node.type === "string" && DATE.test(node.value) ? date(node.value) : toJson(node);
    return make("div", { className: "leaf" }, label, make("span", { className: `value ${node.type}` }, shown), buttons);
  }
  const size = `${node.value.length} ${node.type === "array" ? "items" : "fields"}`;
  const summary = make("summary", {}, label, make("span", { className: "size" }, size));
  const details = make("details", { open: node.value.length <= 20 }, summary);
  // A large array is rendered when it is opened.
  const fill = () => {
    if (details.open && details.childElementCount === 1) {
      details.append(...node.value.map(([key, value]) => tree(value, joinPath(path, key), key)));
    }
  };
  details.addEventListener("toggle", fill);
  fill();
  // Buttons inside a summary would be interactive elements inside another one.
  return make("div", { className: "branch" }, buttons, details);
}

function openRecord(record) {
  get("record-title").textContent = idText(record);
  get("tree").replaceChildren(...record.value.map(([name, value]) => tree(value, escapeName(name), name)));
  get("record-status").textContent = "";
  const index = chosenRow() ? opened : view.rows.findIndex((row) => idText(row) === idText(record));
  const step = (button, to) => {
    get(button).disabled = index < 0 || !view.rows[to];
    get(button).onclick = () => {
      opened = to;
      history.replaceState(null, "", `#record=${encodeURIComponent(idText(view.rows[to]))}`);
      showRecord();
    };
  };
  step("previous", index - 1);
  step("following", index + 1);
  get("copy-json").onclick = () => copy(get("copy-json"), toJson(record, "", "  "));
}

// The row that was chosen, as long as the fragment of the URL names it.
function chosenRow() {
  const row = view.rows[opened];
  return row && location.hash === `#record=${encodeURIComponent(idText(row))}` ? row : null;
}

// True for a row that the API finds by its id: neither by the text of another row's, nor by one that has no address.
function hasAddress(row) {
  const id = child(row, "_id");
  const text = idText(row);
  const isUnique = view.rows.filter((other) => idText(other) === text).length === 1;
  return isUnique && ["string", "number", "boolean"].includes(id?.type) && !["", ".", ".."].includes(text);
}

// Opens the record that the fragment of the URL names: whole, even if the list has only some of its fields.
async function showRecord() {
  const id = /^#record=(.*)$/.exec(location.hash)?.[1];
  const dialog = get("record");
  if (id === undefined) return dialog.close();
  get("record-title").textContent = decodeURIComponent(id);
  if (!dialog.open) dialog.showModal();
  const row = chosenRow();
  if (row && !hasAddress(row)) return openRecord(row);
  get("record-status").textContent = "Loading…";
  try {
    const response = await request(`${API}/${id}`, "application/json, application/problem+json;q=0.5");
    if (location.hash !== `#record=${id}`) return;
    if (response.status === 200) return openRecord(parse(await response.text()));
    get("tree").replaceChildren();
    get("record-status").textContent = response.status === 204 ? "There is no such record." : await problemOf(response);
  } catch (failure) {
    get("record-status").textContent = `The server cannot be reached: ${failure.message}`;
  }
}

get("record").addEventListener("close", () => {
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
});
get("close").addEventListener("click", () => get("record").close());
get("record").addEventListener("keydown", (event) => {
  if (event.target.closest("input")) return;
  if (event.key === "ArrowLeft") get("previous").click();
  if (event.key === "ArrowRight") get("following").click();
});
addEventListener("hashchange", showRecord);

function begin() {
  fillForm(pageQuery().parameters);
  load();
}
addEventListener("popstate", () => {
  if (location.search !== view.search) begin();
});
begin();
