// The phases of the gradient of the input: a step for each.
"use strict";

const phasesView = {
  name: "Phases of a strided gradient",
  about: "With a stride, most taps of the filter cannot have met a given pixel. Which could depends on the pixel's row " +
    "and column modulo the stride: all pixels of a phase take the same taps, as a convolution of stride 1 does.",
  refusal,
  steps: (problem) => phases(problem).length,
  show(problem, given, step) {
    const { C, H, W, stride } = problem;
    const all = phases(problem), { rows, columns } = all[step];
    const numberOf = (h, v) => all.findIndex((one) =>
      one.rows.first === h % stride && one.columns.first === v % stride);
    const isTap = (axis, tap) => {
      const place = (tap - axis.firstTap) / axis.tapStep;
      return Number.isInteger(place) && place >= 0 && place < axis.taps;
    };
    const dx = (c, h, v) => {
      const phase = numberOf(h, v);
      if (phase > step) return null;
      return sum(phaseTerms(problem, given, all[phase], c, Math.floor(h / stride), Math.floor(v / stride)));
    };
    return {
      sentences: [
        `Phase ${step + 1} of ${all.length}: ${axisSentence("rows", "r", "p", rows, stride)}`,
        axisSentence("columns", "s", "q", columns, stride),
        sentenceOf(`Its first: dx[0, ${rows.first}, ${columns.first}]`,
          phaseTerms(problem, given, all[step], 0, 0, 0)),
      ],
      grids: [
        ...given.w.map((filter, k) => grid(`w[${k}, 0]: the taps of the phase`, filter[0],
          (r, s) => (isTap(rows, r) && isTap(columns, s) ? "seen" : ""))),
        ...given.dy.map((plane, k) => grid(`dy[${k}]`, plane)),
        ...tensor([C], (c) => grid(`dx[${c}]`, tensor([H, W], (h, v) => dx(c, h, v)),
          (h, v) => (numberOf(h, v) === step ? "now" : ""))),
      ],
    };
  },
};

// "rows 0, 2, 4 take r = 1; pixel i of them meets p = i + 0".
function axisSentence(what, tap, place, { first, pixels, firstTap, tapStep, taps, origin, step }, stride) {
  const members = tensor([pixels], (i) => first + i * stride).join(", ");
  if (taps === 0) return `${what} ${members} take no ${tap}: zeros are stored`;
  const taken = tensor([taps], (j) => firstTap + j * tapStep).join(", ");
  const move = taps > 1 ? ` - ${-step}·j for the j-th` : "";
  return `${what} ${members} take ${tap} = ${taken}; the i-th of them meets ${place} = i + ${signed(origin)}${move}`;
}
