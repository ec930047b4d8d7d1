// The matrix product that a convolution is, C[row][column] = sum over depth of A[row][depth] B[column][depth], and the
// tiles in which a kernel makes it. A and B are never stored: an index is read as digits, the fastest first, and they
// say where in the image, which lies in memory as H W C, the element is (csrc/conv/gemm.h).
"use strict";

const TILE = 4;

function digits(index, ...sizes) {
  return sizes.map((size) => {
    const digit = index % size;
    index = (index - digit) / size;
    return digit;
  });
}

function gemmSizes(problem) {
  return {
    rows: outputRows(problem) * outputColumns(problem),
    columns: problem.K,
    depth: problem.C * problem.S * problem.R,
  };
}

function pixelOfRow(problem, row) {
  const [q, p] = digits(row, outputColumns(problem), outputRows(problem));
  return { p, q };
}

function tapOfDepth(problem, depth) {
  const [c, s, r] = digits(depth, problem.C, problem.S, problem.R);
  return { r, s, c };
}

// Where A's element lies: on the image, and how many elements from the image's first; null outside of it.
function placeInImage(problem, row, depth) {
  const { p, q } = pixelOfRow(problem, row), { r, s, c } = tapOfDepth(problem, depth);
  const h = imageRow(problem, p, r), v = imageRow(problem, q, s);
  return { c, h, v, offset: inside(problem, h, v) ? (h * problem.W + v) * problem.C + c : null };
}

function elementOfA(problem, { x }, row, depth) {
  const { c, h, v, offset } = placeInImage(problem, row, depth);
  return offset === null ? 0 : x[c][h][v];
}

function elementOfB(problem, { w }, column, depth) {
  const { r, s, c } = tapOfDepth(problem, depth);
  return w[column][c][r][s];
}

// C's element after the first `depth` of the sum.
function elementOfC(problem, given, row, column, depth) {
  let total = 0;
  for (let d = 0; d < depth; ++d)
    total += elementOfA(problem, given, row, d) * elementOfB(problem, given, column, d);
  return total;
}
