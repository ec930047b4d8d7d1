// A swizzled tile: a step for each chunk of a row, read by eight lanes from eight rows below each other.
"use strict";

const READERS = 8;

const swizzleView = {
  name: "Swizzled tile",
  about: "Eight lanes read the same 16-byte chunk of eight rows below each other. Where rows lie as they are, chunks " +
    "share banks and wait for each other; exchanged by an exclusive or with the line's number, they do not.",
  refusal: ({ span }) => (SPANS.includes(span) ? "" : `span must be one of ${SPANS.join(", ")}, but got ${span}`),
  steps: ({ span }) => span / CHUNK,
  show({ span }, given, step) {
    const chunks = span / CHUNK, lines = (READERS * span) / LINE;
    const name = (row, chunk) => `row ${row}, ${chunk}`;
    const tile = tensor([READERS, chunks], name);
    const memory = (where) => {
      const held = tensor([lines, LINE / CHUNK], () => "");
      const marks = tensor([lines, LINE / CHUNK], () => "");
      for (let row = 0; row < READERS; ++row)
        for (let chunk = 0; chunk < chunks; ++chunk) {
          const address = where(addressOf(row, chunk, span));
          held[address >> 7][bankGroup(address)] = name(row, chunk);
          if (chunk === step) marks[address >> 7][bankGroup(address)] = "seen";
        }
      return { held, marks };
    };
    const plain = memory((address) => address), exchanged = memory((address) => swizzled(address, span));
    const banks = tensor([LINE / CHUNK], (group) => `banks ${4 * group}-${4 * group + 3}`);
    const labels = { rowLabels: tensor([lines], (line) => `line ${line}`), columnLabels: banks };
    const read = tensor([READERS], (row) => addressOf(row, step, span));
    return {
      sentences: [
        `Chunk ${step} of rows 0 to ${READERS - 1}: ${turns(read)} turns as rows lie, ` +
          `${turns(read.map((address) => swizzled(address, span)))} swizzled`,
      ],
      grids: [
        grid(`the tile: rows of ${span} bytes`, tile, (row, chunk) => (chunk === step ? "seen" : "")),
        grid("shared memory without a swizzle", plain.held, (i, j) => plain.marks[i][j], labels),
        grid("shared memory, swizzled", exchanged.held, (i, j) => exchanged.marks[i][j], labels),
      ],
    };
  },
};
