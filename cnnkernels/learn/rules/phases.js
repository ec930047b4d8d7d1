// The phases of a strided gradient: which taps a pixel met depends on its row modulo the stride alone, so pixels fall
// into stride phases an axis, and each is a convolution of stride 1 with some of the taps (csrc/conv/phases.h).
"use strict";

function greatestCommonDivisor(a, b) {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

// One axis of a phase: pixels first, first + stride, ... take taps firstTap, firstTap + tapStep, ..., and pixel i meets
// tap j at output origin + i + j * step.
function phaseAxis(first, size, taps, stride, padding, dilation) {
  const common = greatestCommonDivisor(dilation, stride);
  const pixels = Math.floor((size - first + stride - 1) / stride);
  const axis = { first, pixels, firstTap: 0, tapStep: stride / common, taps: 0, origin: 0, step: -dilation / common };
  for (let r = 0; r < Math.min(axis.tapStep, taps); ++r) {
    const reach = first + padding - r * dilation;
    if (reach % stride !== 0) continue;
    axis.firstTap = r;
    axis.taps = Math.floor((taps - 1 - r) / axis.tapStep) + 1;
    axis.origin = reach / stride;
    break;
  }
  return axis;
}

// All phases, rows by columns; an axis shorter than the stride has fewer.
function phases(problem) {
  const { H, W, R, S, stride, padding, dilation } = problem;
  const found = [];
  for (let a = 0; a < Math.min(stride, H); ++a)
    for (let b = 0; b < Math.min(stride, W); ++b)
      found.push({
        rows: phaseAxis(a, H, R, stride, padding, dilation),
        columns: phaseAxis(b, W, S, stride, padding, dilation),
      });
  return found;
}

// The terms of a phase's pixel (i, j) of channel c, outputs outside of y left out.
function phaseTerms(problem, { w, dy }, { rows, columns }, c, i, j) {
  const P = outputRows(problem), Q = outputColumns(problem);
  const terms = [];
  for (let k = 0; k < problem.K; ++k)
    for (let m = 0; m < rows.taps; ++m)
      for (let n = 0; n < columns.taps; ++n) {
        const r = rows.firstTap + m * rows.tapStep, s = columns.firstTap + n * columns.tapStep;
        const p = rows.origin + i + m * rows.step, q = columns.origin + j + n * columns.step;
        if (p >= 0 && p < P && q >= 0 && q < Q) terms.push({ k, r, s, p, q, factors: [dy[k][p][q], w[k][c][r][s]] });
      }
  return terms;
}
