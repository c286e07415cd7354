"use strict";
// Text of models and passages only ever becomes text nodes: no innerHTML, no attributes made of it.
const list = document.getElementById("list");
const reading = document.getElementById("reading");
const packed = document.getElementById("data");
const filters = {
  right: (row) => [row.verdict],
  searches: (row) => [String(row.searches)],
  stop: (row) => [row.stop],
  broken: (row) => (row.broken.length ? row.broken : ["right"]),
  group: (row) => [row.group],
};
let rows = [];
let fitting = []; // indexes of the rows that pass the filters
let buttons = new Map(); // of those listed, by index
let shown = -1;
let side = false;
const AT_ONCE = 500;

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

function reader(kind, most) {
  // Blocks are read when they are needed; the last ones are kept.
  const blocks = document.querySelectorAll(`script.${kind}`);
  const read = new Map();
  return (number) => {
    if (!read.has(number)) {
      if (read.size >= most) read.delete(read.keys().next().value);
      read.set(number, unpack(blocks[number].textContent));
    }
    return read.get(number);
  };
}

const chunk = reader("chunk", 16);
const shared = reader("shared", 256);
const inChunk = Number(packed.dataset.chunk);
const inShared = Number(packed.dataset.shared);

async function segments(index) {
  const { lines, rows: inside } = await chunk(Math.floor(index / inChunk));
  const line = async (number) =>
    number >= 0 ? lines[number] : (await shared(Math.floor((-1 - number) / inShared)))[(-1 - number) % inShared];
  const text = async (numbers) => (await Promise.all(numbers.map(line))).join("");
  return Promise.all(
    inside[index % inChunk].map(async ([author, numbers, tokens]) => [author, await text(numbers), tokens]),
  );
}

function choices() {
  for (const [id, valuesOf] of Object.entries(filters)) {
    const counts = new Map();
    for (const row of rows) for (const value of valuesOf(row)) counts.set(value, (counts.get(value) ?? 0) + 1);
    const values = [...counts.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const select = document.getElementById(id);
    select.append(element("option", { value: "", textContent: `any (${rows.length})` }));
    for (const value of values) {
      select.append(element("option", { value, textContent: `${value} (${counts.get(value)})` }));
    }
    select.addEventListener("change", filter);
  }
  document.getElementById("words").addEventListener("input", filter);
}

function summary(row) {
  const earned = row.earned === null ? "" : `reward ${row.earned} · `;
  return `${earned}${row.searches} searches · ${row.stop} · F1 ${row.f1.toFixed(2)}`;
}

function entry(index) {
  const row = rows[index];
  const dot = element("span", { className: `dot ${row.verdict}` });
  const small = element("small", { textContent: summary(row) });
  const button = element("button", { type: "button" }, dot, row.question, document.createElement("br"), small);
  if (index === shown) button.setAttribute("aria-current", "true");
  button.addEventListener("click", () => {
    show(index);
    reading.scrollIntoView();
  });
  buttons.set(index, button);
  return element("li", {}, button);
}

function listMore() {
  // Thousands of entries at once would take the browser seconds.
  list.querySelector("li.more")?.remove();
  const next = fitting.slice(buttons.size, buttons.size + AT_ONCE);
  list.append(...next.map(entry));
  const left = fitting.length - buttons.size;
  if (!left) return;
  const button = element("button", { type: "button", textContent: `${left} more` });
  button.addEventListener("click", listMore);
  list.append(element("li", { className: "more" }, button));
}

function filter() {
  const words = document.getElementById("words").value.toLowerCase();
  const wanted = Object.keys(filters)
    .map((id) => [id, document.getElementById(id).value])
    .filter(([, value]) => value !== "");
  fitting = [...rows.keys()].filter(
    (index) =>
      wanted.every(([id, value]) => filters[id](rows[index]).includes(value)) &&
      rows[index].question.toLowerCase().includes(words),
  );
  buttons = new Map();
  list.replaceChildren();
  listMore();
  document.getElementById("count").textContent = `${fitting.length} of ${rows.length} trajectories`;
}

function marked(text, gold_answers) {
  // Gold answers stand out, whatever their case; the text between stays as it is.
  const wanted = gold_answers.filter((gold) => gold.trim());
  if (!wanted.length) return [text];
  const escaped = wanted.map((gold) => gold.trim().replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return text
    .split(new RegExp(`(${escaped.join("|")})`, "iu"))
    .map((piece, index) => (index % 2 ? element("mark", { textContent: piece }) : piece));
}

const AUTHORS = {
  prompt: "prompt: not trained",
  model: "the model wrote: trained",
  environment: "found by the search: not trained",
};

function facts(row) {
  const said = [
    ...(row.earned === null ? [] : [`reward ${row.earned}`]),
    `gold: ${row.gold_answers.join(" | ")}`,
    `answer: ${row.answer ?? "none"}`,
    `stopped: ${row.stop}`,
    ...Object.entries(row.measures).map(([name, value]) => `${name} ${value}`),
    ...Object.entries(row.parts).map(([name, value]) => `reward ${name} ${value}`),
    ...(row.broken.length ? [`format broken: ${row.broken.join(", ")}`] : []),
  ];
  return element("p", { className: "facts" }, ...said.map((fact) => element("span", { textContent: fact })));
}

function written(row, parts) {
  return parts.map(([author, text, tokens]) => {
    const label = element("small", { textContent: tokens ? `${AUTHORS[author]}, ${tokens} tokens` : AUTHORS[author] });
    const body = author === "environment" ? marked(text, row.gold_answers) : [text];
    return element("div", { className: `segment ${author}` }, label, ...body);
  });
}

function samples(row, index) {
  // The samples of this question, the highest reward (or F1) first: why did one earn more than another?
  const worth = (other) => rows[other].earned ?? rows[other].f1;
  const alike = [...rows.keys()].filter((other) => rows[other].samples === row.samples);
  const group = alike.sort((a, b) => worth(b) - worth(a));
  const pieces = group.map((other) => {
    const dot = element("span", { className: `dot ${rows[other].verdict}` });
    const button = element("button", { type: "button" }, dot, String(worth(other)));
    if (other === index) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => show(other));
    return button;
  });
  const box = element("input", { type: "checkbox", id: "side", checked: side });
  box.addEventListener("change", () => {
    side = box.checked;
    show(index);
  });
  const label = element("label", {}, box, " side by side");
  const line = element("div", { className: "samples" }, `${group.length} samples:`, ...pieces, label);
  return [group, group.length > 1 ? [line] : []];
}

async function show(index) {
  const row = rows[index];
  buttons.get(shown)?.removeAttribute("aria-current");
  buttons.get(index)?.setAttribute("aria-current", "true");
  shown = index;
  const [group, line] = samples(row, index);
  const several = side && group.length > 1;
  const body = several
    ? [element("div", { className: "columns" }, ...(await Promise.all(group.map(column))))]
    : [facts(row), ...written(row, await segments(index))];
  if (shown !== index) return; // another one was chosen while this one was read
  reading.classList.toggle("wide", several);
  reading.replaceChildren(element("h2", { textContent: row.question }), ...line, ...body);
  reading.dataset.row = String(index);
}

async function column(index) {
  const parts = (await segments(index)).filter(([author]) => author !== "prompt");
  const group = element("small", { textContent: rows[index].group });
  return element("section", {}, group, facts(rows[index]), ...written(rows[index], parts));
}

async function start() {
  rows = await unpack(packed.textContent);
  choices();
  filter();
  if (rows.length) await show(0);
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

start();
