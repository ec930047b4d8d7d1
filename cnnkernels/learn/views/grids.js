// What a view shows, as plain objects: grids of cells { text, mark }, and sentences. page.js draws them; a test reads them.
//
// A mark is "seen" (takes part in the step), "now" (is being computed), "outside" (a zero around the image), or "".
"use strict";

function cell(value, mark = "") {
  return { text: value === null ? "" : String(value), mark };
}

// A grid of a matrix, marked by a function of row and column. Labels default to numbers from `first` on.
function grid(title, matrix, markOf = () => "", { first = 0, rowLabels, columnLabels } = {}) {
  const width = matrix.length ? matrix[0].length : 0;
  return {
    title,
    rowLabels: rowLabels || matrix.map((_, i) => String(i + first)),
    columnLabels: columnLabels || Array.from({ length: width }, (_, i) => String(i + first)),
    rows: matrix.map((row, i) => row.map((value, j) => cell(value, markOf(i + first, j + first)))),
  };
}

// The image with its border of zeros; rows and columns are numbered as the image's, so the border's are negative.
function paddedGrid(title, problem, image, isSeen) {
  const { H, W, padding } = problem;
  const matrix = tensor([H + 2 * padding, W + 2 * padding], (i, j) => {
    const h = i - padding, v = j - padding;
    return inside(problem, h, v) ? image[h][v] : 0;
  });
  const markOf = (h, v) => (isSeen(h, v) ? "seen " : "") + (inside(problem, h, v) ? "" : "outside");
  return grid(title, matrix, (h, v) => markOf(h, v).trim(), { first: -padding });
}

// Results up to a step: what comes later is blank. `place` is an element's number in the order of the steps.
function resultGrid(title, matrix, place, step) {
  const shown = matrix.map((row, i) => row.map((value, j) => (place(i, j) <= step ? value : null)));
  return grid(title, shown, (i, j) => (place(i, j) === step ? "now" : ""));
}

function signed(number) {
  return number < 0 ? `(${number})` : String(number);
}

// "name = 1·2 + 3·(-1) = -1"; a sum of nothing is 0.
function sentenceOf(name, terms) {
  const products = terms.map(({ factors: [a, b] }) => `${signed(a)}·${signed(b)}`);
  return products.length ? `${name} = ${products.join(" + ")} = ${sum(terms)}` : `${name} = 0: nothing reaches it`;
}
