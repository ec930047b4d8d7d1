// Sizes of a convolution and of a pool, in the letters of docs/conv.md, and who may be asked for.
"use strict";

const LIMITS = {
  C: [1, 3], K: [1, 3], H: [1, 12], W: [1, 12], R: [1, 7], S: [1, 7],
  stride: [1, 4], padding: [0, 6], dilation: [1, 3], seed: [0, 9999],
};

// How many positions a window of `taps` has along an axis.
function outputSize(size, taps, stride, padding, dilation) {
  return Math.floor((size + 2 * padding - dilation * (taps - 1) - 1) / stride) + 1;
}

function outputRows(problem) {
  return outputSize(problem.H, problem.R, problem.stride, problem.padding, problem.dilation);
}

function outputColumns(problem) {
  return outputSize(problem.W, problem.S, problem.stride, problem.padding, problem.dilation);
}

// Why a convolution of these sizes cannot be stepped through; empty where it can.
function refusal(problem) {
  for (const [name, [least, most]] of Object.entries(LIMITS)) {
    const value = problem[name];
    if (!Number.isInteger(value) || value < least || value > most)
      return `${name} must be a whole number from ${least} to ${most}, but got ${value}`;
  }
  return filterFits(problem);
}

function filterFits(problem) {
  for (const [size, taps] of [["H", "R"], ["W", "S"]]) {
    const padded = problem[size] + 2 * problem.padding;
    const reach = problem.dilation * (problem[taps] - 1) + 1;
    if (reach > padded) return `a filter that reaches over ${reach} does not fit into ${padded}: ${size} with padding`;
  }
  return "";
}

// The same of a pool, whose padding must leave every window a pixel.
function poolRefusal(problem) {
  const sizes = refusal(problem);
  if (sizes) return sizes;
  for (const taps of ["R", "S"])
    if (2 * problem.padding > problem[taps])
      return `a pool's padding must be at most half of ${taps} = ${problem[taps]}, but got ${problem.padding}`;
  if (!everyWindowHasAPixel(problem)) return "a window has no pixel: its taps all lie outside of the image";
  return "";
}

// A dilated window may step over a small image.
function everyWindowHasAPixel(problem) {
  const { H, W, R, S } = problem;
  const meets = (size, taps, place) =>
    Array.from({ length: taps }, (_, tap) => imageRow(problem, place, tap)).some((at) => at >= 0 && at < size);
  const all = (size, taps, places) =>
    Array.from({ length: places }, (_, place) => meets(size, taps, place)).every((met) => met);
  return all(H, R, outputRows(problem)) && all(W, S, outputColumns(problem));
}

// Where tap r lies on the image, if the window is at row p; outside of it there are zeros. Columns alike.
function imageRow(problem, p, r) {
  return p * problem.stride - problem.padding + r * problem.dilation;
}

function inside(problem, h, v) {
  return h >= 0 && h < problem.H && v >= 0 && v < problem.W;
}
