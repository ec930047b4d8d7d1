// A convolution and its two gradients. Each element is a sum of terms: two numbers that are multiplied, and where they lie.
"use strict";

// y[k][p][q]: each tap with the pixel under it, zeros outside of the image too.
function outputTerms(problem, { x, w }, k, p, q) {
  const terms = [];
  for (let c = 0; c < problem.C; ++c)
    for (let r = 0; r < problem.R; ++r)
      for (let s = 0; s < problem.S; ++s) {
        const h = imageRow(problem, p, r), v = imageRow(problem, q, s);
        const pixel = inside(problem, h, v) ? x[c][h][v] : 0;
        terms.push({ c, r, s, h, v, factors: [pixel, w[k][c][r][s]] });
      }
  return terms;
}

// dx[c][h][v]: it went into y[k][p][q] by tap (r, s) where p stride = h + padding - r dilation, if a window is there.
function inputGradientTerms(problem, { w, dy }, c, h, v) {
  const { K, R, S, stride, padding, dilation } = problem;
  const P = outputRows(problem), Q = outputColumns(problem);
  const terms = [];
  for (let k = 0; k < K; ++k)
    for (let r = 0; r < R; ++r)
      for (let s = 0; s < S; ++s) {
        const p = (h + padding - r * dilation) / stride, q = (v + padding - s * dilation) / stride;
        if (Number.isInteger(p) && Number.isInteger(q) && p >= 0 && p < P && q >= 0 && q < Q)
          terms.push({ k, r, s, p, q, factors: [dy[k][p][q], w[k][c][r][s]] });
      }
  return terms;
}

// dw[k][c][r][s]: over all windows, what lay under the tap.
function filterGradientTerms(problem, { x, dy }, k, c, r, s) {
  const terms = [];
  for (let p = 0; p < outputRows(problem); ++p)
    for (let q = 0; q < outputColumns(problem); ++q) {
      const h = imageRow(problem, p, r), v = imageRow(problem, q, s);
      if (inside(problem, h, v)) terms.push({ p, q, h, v, factors: [dy[k][p][q], x[c][h][v]] });
    }
  return terms;
}

function sum(terms) {
  return terms.reduce((total, { factors: [a, b] }) => total + a * b, 0);
}

function output(problem, given) {
  const sizes = [problem.K, outputRows(problem), outputColumns(problem)];
  return tensor(sizes, (k, p, q) => sum(outputTerms(problem, given, k, p, q)));
}

function inputGradient(problem, given) {
  return tensor([problem.C, problem.H, problem.W], (c, h, v) => sum(inputGradientTerms(problem, given, c, h, v)));
}

function filterGradient(problem, given) {
  const sizes = [problem.K, problem.C, problem.R, problem.S];
  return tensor(sizes, (k, c, r, s) => sum(filterGradientTerms(problem, given, k, c, r, s)));
}
