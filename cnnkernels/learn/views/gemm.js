// The implicit GEMM: a step for each tile of A, which a block of threads would load and multiply.
"use strict";

const gemmView = {
  name: "Implicit GEMM",
  about: `A convolution is a matrix product, made in tiles, here of ${TILE} rows by ${TILE} of the sum. Nothing stores ` +
    "A: where its elements lie in the image's memory is computed when they are loaded.",
  refusal,
  tilesOfDepth: (problem) => Math.ceil(gemmSizes(problem).depth / TILE),
  steps: (problem) => Math.ceil(gemmSizes(problem).rows / TILE) * gemmView.tilesOfDepth(problem),
  show(problem, given, step) {
    const { rows, columns, depth } = gemmSizes(problem);
    const [depthTile, rowTile] = digits(step, gemmView.tilesOfDepth(problem), rows);
    const inRows = (row) => Math.floor(row / TILE) === rowTile;
    const inDepth = (d) => Math.floor(d / TILE) === depthTile;
    const pixel = (row) => { const { p, q } = pixelOfRow(problem, row); return `${row}: p ${p}, q ${q}`; };
    const tap = (d) => { const { r, s, c } = tapOfDepth(problem, d); return `${d}: r ${r}, s ${s}, c ${c}`; };
    const rowLabels = tensor([rows], pixel), depthLabels = tensor([depth], tap);
    const filters = tensor([columns], (k) => `k ${k}`);
    const outside = (row, d) => (placeInImage(problem, row, d).offset === null ? "outside" : "");
    const markOfA = (row, d) => `${inRows(row) && inDepth(d) ? "seen" : ""} ${outside(row, d)}`.trim();
    const offset = (row, d) => { const at = placeInImage(problem, row, d).offset; return at === null ? "-" : at; };
    const summed = Math.min((depthTile + 1) * TILE, depth);
    const upTo = (row) => (Math.floor(row / TILE) < rowTile ? depth : summed);
    const partial = (row, k) => (row < (rowTile + 1) * TILE ? elementOfC(problem, given, row, k, upTo(row)) : null);
    const last = Math.min((rowTile + 1) * TILE, rows) - 1;
    return {
      sentences: [
        `Rows ${rowTile * TILE} to ${last}, ${summed} of ${depth} products summed: C += A·B of the marked tiles`,
      ],
      grids: [
        grid("A: windows of x", tensor([rows, depth], (row, d) => elementOfA(problem, given, row, d)), markOfA,
          { rowLabels, columnLabels: depthLabels }),
        grid("where A's elements lie in x, in H W C order", tensor([rows, depth], offset), markOfA,
          { rowLabels, columnLabels: depthLabels }),
        grid("B: the filters", tensor([columns, depth], (k, d) => elementOfB(problem, given, k, d)),
          (k, d) => (inDepth(d) ? "seen" : ""), { rowLabels: filters, columnLabels: depthLabels }),
        grid("C: y, as far as it is summed", tensor([rows, columns], partial), (row) => (inRows(row) ? "now" : ""),
          { rowLabels, columnLabels: filters }),
      ],
    };
  },
};
