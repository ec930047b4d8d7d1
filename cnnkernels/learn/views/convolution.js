// Views of a convolution and of its gradients: a step for each element of the result.
"use strict";

const convolutionView = {
  name: "Convolution",
  about: "The filter lies on the image, what lies on each other is multiplied, and the products are added up.",
  refusal,
  steps: (problem) => problem.K * outputRows(problem) * outputColumns(problem),
  show(problem, given, step) {
    const Q = outputColumns(problem), P = outputRows(problem);
    const [q, p, k] = digits(step, Q, P, problem.K);
    const terms = outputTerms(problem, given, k, p, q);
    const seen = new Set(terms.map(({ h, v }) => `${h} ${v}`));
    const y = output(problem, given);
    return {
      sentences: [sentenceOf(`y[${k}, ${p}, ${q}]`, terms)],
      grids: [
        ...given.x.map((image, c) => paddedGrid(`x[${c}], padded`, problem, image, (h, v) => seen.has(`${h} ${v}`))),
        ...given.w[k].map((slice, c) => grid(`w[${k}, ${c}]`, slice, () => "seen")),
        ...y.map((plane, n) => resultGrid(`y[${n}]`, plane, (i, j) => (n * P + i) * Q + j, step)),
      ],
    };
  },
};

const inputGradientView = {
  name: "Gradient of the input",
  about: "Who gave with a weight gets back with it: a pixel collects dy of every window it lay in, times the tap it met.",
  refusal,
  steps: (problem) => problem.C * problem.H * problem.W,
  show(problem, given, step) {
    const { C, H, W } = problem;
    const [v, h, c] = digits(step, W, H, C);
    const terms = inputGradientTerms(problem, given, c, h, v);
    const outputs = new Set(terms.map(({ k, p, q }) => `${k} ${p} ${q}`));
    const taps = new Set(terms.map(({ r, s }) => `${r} ${s}`));
    const dx = inputGradient(problem, given);
    return {
      sentences: [sentenceOf(`dx[${c}, ${h}, ${v}]`, terms)],
      grids: [
        ...given.dy.map((plane, k) => grid(`dy[${k}]`, plane, (p, q) => (outputs.has(`${k} ${p} ${q}`) ? "seen" : ""))),
        ...given.w.map((filter, k) =>
          grid(`w[${k}, ${c}]`, filter[c], (r, s) => (taps.has(`${r} ${s}`) ? "seen" : ""))),
        ...dx.map((plane, n) => resultGrid(`dx[${n}]`, plane, (i, j) => (n * H + i) * W + j, step)),
      ],
    };
  },
};

const filterGradientView = {
  name: "Gradient of the filter",
  about: "A tap's gradient sums, over all windows, what lay under the tap times the window's dy.",
  refusal,
  steps: (problem) => problem.K * problem.C * problem.R * problem.S,
  show(problem, given, step) {
    const { C, K, R, S } = problem;
    const [s, r, c, k] = digits(step, S, R, C, K);
    const terms = filterGradientTerms(problem, given, k, c, r, s);
    const pixels = new Set(terms.map(({ h, v }) => `${h} ${v}`));
    const outputs = new Set(terms.map(({ p, q }) => `${p} ${q}`));
    const dw = filterGradient(problem, given);
    return {
      sentences: [sentenceOf(`dw[${k}, ${c}, ${r}, ${s}]`, terms)],
      grids: [
        paddedGrid(`x[${c}], padded`, problem, given.x[c], (h, v) => pixels.has(`${h} ${v}`)),
        grid(`dy[${k}]`, given.dy[k], (p, q) => (outputs.has(`${p} ${q}`) ? "seen" : "")),
        ...dw.flatMap((filter, m) => filter.map((slice, n) =>
          resultGrid(`dw[${m}, ${n}]`, slice, (i, j) => ((m * C + n) * R + i) * S + j, step))),
      ],
    };
  },
};
