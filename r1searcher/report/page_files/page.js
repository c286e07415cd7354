"use strict";
// Text of models and passages only ever becomes text nodes: no innerHTML, no attributes made of it.
const rows = JSON.parse(document.getElementById("data").textContent);
const list = document.getElementById("list");
const reading = document.getElementById("reading");
const filters = {
  right: (row) => row.verdict,
  searches: (row) => String(row.searches),
  stop: (row) => row.stop,
  group: (row) => row.group,
};

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

for (const [id, valueOf] of Object.entries(filters)) {
  const counts = new Map();
  for (const row of rows) counts.set(valueOf(row), (counts.get(valueOf(row)) ?? 0) + 1);
  const values = [...counts.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const select = document.getElementById(id);
  select.append(element("option", { value: "", textContent: `any (${rows.length})` }));
  for (const value of values) {
    select.append(element("option", { value, textContent: `${value} (${counts.get(value)})` }));
  }
  select.addEventListener("change", filter);
}
document.getElementById("words").addEventListener("input", filter);

const buttons = rows.map((row, index) => {
  const dot = element("span", { className: `dot ${row.verdict}` });
  const small = element("small", { textContent: `${row.searches} searches · ${row.stop} · F1 ${row.f1.toFixed(2)}` });
  const button = element("button", { type: "button" }, dot, row.question, document.createElement("br"), small);
  button.addEventListener("click", () => {
    show(index);
    reading.scrollIntoView();
  });
  list.append(element("li", {}, button));
  return button;
});

function filter() {
  const words = document.getElementById("words").value.toLowerCase();
  let shown = 0;
  rows.forEach((row, index) => {
    const fits =
      Object.entries(filters).every(([id, valueOf]) => {
        const wanted = document.getElementById(id).value;
        return wanted === "" || wanted === valueOf(row);
      }) && row.question.toLowerCase().includes(words);
    buttons[index].parentElement.hidden = !fits;
    shown += fits;
  });
  document.getElementById("count").textContent = `${shown} of ${rows.length} trajectories`;
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

function show(index) {
  const row = rows[index];
  for (const button of buttons) button.removeAttribute("aria-current");
  buttons[index].setAttribute("aria-current", "true");
  const facts = [
    `gold: ${row.gold_answers.join(" | ")}`,
    `answer: ${row.answer ?? "none"}`,
    `stopped: ${row.stop}`,
    ...Object.entries(row.measures).map(([name, value]) => `${name} ${value}`),
    ...Object.entries(row.parts).map(([name, value]) => `reward ${name} ${value}`),
    ...(row.broken.length ? [`format broken: ${row.broken.join(", ")}`] : []),
  ];
  reading.replaceChildren(
    element("h2", { textContent: row.question }),
    element("p", { className: "facts" }, ...facts.map((fact) => element("span", { textContent: fact }))),
    ...row.segments.map(([author, text, tokens]) => {
      const label = element("small", { textContent: tokens ? `${AUTHORS[author]}, ${tokens} tokens` : AUTHORS[author] });
      const body = author === "environment" ? marked(text, row.gold_answers) : [text];
      return element("div", { className: `segment ${author}` }, label, ...body);
    }),
  );
}

filter();
if (rows.length) show(0);
document.documentElement.dataset.ready = String(Math.round(performance.now()));
