// The page: reads what is asked for, draws what a view shows of a step.
"use strict";

const START = { C: 1, K: 1, H: 5, W: 5, R: 3, S: 3, stride: 1, padding: 1, dilation: 1, seed: 1 };
const LABELS = {
  C: "channels C", K: "filters K", H: "rows H", W: "columns W", R: "filter rows R", S: "filter columns S",
  stride: "stride", padding: "padding", dilation: "dilation", seed: "numbers, no.", span: "bytes of a row",
};
const element = (id) => document.getElementById(id);

let view = VIEWS[0];
let step = 0;

function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function buildForm() {
  VIEWS.forEach((one, i) => {
    const choice = make("input", { type: "radio", name: "view", value: i });
    choice.checked = i === 0;
    element("views").append(make("label", {}, choice, " " + one.name));
  });
  for (const [name, value] of Object.entries(START)) {
    const [min, max] = LIMITS[name];
    const field = make("input", { type: "number", id: name, min, max, value });
    element("sizes").append(make("label", {}, LABELS[name] + " ", field));
  }
  const spans = make("select", { id: "span" }, ...SPANS.map((span) => make("option", { value: span }, String(span))));
  element("sizes").append(make("label", {}, LABELS.span + " ", spans));
}

function readProblem() {
  const fields = [...element("sizes").querySelectorAll("input, select")];
  return Object.fromEntries(fields.map((field) => [field.id, field.value === "" ? NaN : Number(field.value)]));
}

function drawGrid({ title, columnLabels, rowLabels, rows }) {
  const heads = columnLabels.map((label) => make("th", { scope: "col" }, label));
  const body = rows.map((row, i) => {
    const cells = row.map(({ text, mark }) => {
      const made = make("td", mark ? { class: mark } : {}, text);
      if (mark.includes("now")) made.setAttribute("aria-current", "step");
      return made;
    });
    return make("tr", {}, make("th", { scope: "row" }, rowLabels[i]), ...cells);
  });
  const table = make("table", {}, make("caption", {}, title),
    make("thead", {}, make("tr", {}, make("td", { class: "corner" }), ...heads)), make("tbody", {}, ...body));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, table);
}

function draw() {
  const problem = readProblem();
  const usesSpan = view === swizzleView;
  for (const field of element("sizes").querySelectorAll("input, select"))
    field.closest("label").hidden = (field.id === "span") !== usesSpan;
  const refused = view.refusal(problem);
  element("refusal").textContent = refused;
  element("shown").hidden = refused !== "";
  if (refused) return;

  const steps = view.steps(problem);
  step = Math.max(0, Math.min(step, steps - 1));
  const { sentences, grids } = view.show(problem, usesSpan ? null : numbers(problem), step);
  element("name").textContent = view.name;
  element("about").textContent = view.about;
  element("step").max = steps;
  element("step").value = step + 1;
  element("count").textContent = `${step + 1} of ${steps}`;
  element("first").disabled = element("back").disabled = step === 0;
  element("last").disabled = element("next").disabled = step === steps - 1;
  element("sentences").replaceChildren(...sentences.map((sentence) => make("p", {}, sentence)));
  element("grids").replaceChildren(...grids.map(drawGrid));
}

function goTo(wanted) {
  step = wanted;
  draw();
}

buildForm();
element("form").addEventListener("submit", (event) => event.preventDefault());
element("form").addEventListener("input", () => {
  view = VIEWS[Number(element("form").elements.view.value)];
  goTo(0);
});
element("step").addEventListener("input", () => goTo(Number(element("step").value) - 1));
element("first").addEventListener("click", () => goTo(0));
element("back").addEventListener("click", () => goTo(step - 1));
element("next").addEventListener("click", () => goTo(step + 1));
element("last").addEventListener("click", () => goTo(Infinity));
draw();
