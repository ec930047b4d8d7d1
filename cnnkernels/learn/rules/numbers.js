// Small whole numbers to compute with, the same for one seed, and arrays of them.
"use strict";

// Numbers from -3 to 4, by a linear congruence whose products stay exact.
function generator(seed) {
  let state = (seed * 7919 + 104729) % 65537;
  return () => {
    state = (state * 75 + 74) % 65537;
    return (state >> 3) % 8 - 3;
  };
}

// An array of so many dimensions, made by `value`, called in the order of memory with the element's indices.
function tensor(sizes, value, ...indices) {
  if (sizes.length === 0) return value(...indices);
  const [size, ...rest] = sizes;
  return Array.from({ length: size }, (_, i) => tensor(rest, value, ...indices, i));
}

// Image x [C][H][W], filter w [K][C][R][S], the loss's derivative by the convolution's output dy [K][P][Q], and by the
// output of a pool of channel 0, dpool [P][Q].
function numbers(problem) {
  const { C, K, H, W, R, S, seed } = problem;
  const next = generator(seed);
  const P = outputRows(problem), Q = outputColumns(problem);
  return {
    x: tensor([C, H, W], next),
    w: tensor([K, C, R, S], next),
    dy: tensor([K, P, Q], next),
    dpool: tensor([P, Q], next),
  };
}
