// Max-pool of one channel: a window's winner, the place that remembers it, and how the gradient finds its way back.
"use strict";

// The largest pixel of window (p, q), the first of equals, and its place r * S + s: the byte that the kernels store.
function winner(problem, image, p, q) {
  let best = null;
  for (let r = 0; r < problem.R; ++r)
    for (let s = 0; s < problem.S; ++s) {
      const h = imageRow(problem, p, r), v = imageRow(problem, q, s);
      if (inside(problem, h, v) && (best === null || image[h][v] > best.value))
        best = { value: image[h][v], place: r * problem.S + s, h, v };
    }
  return best;
}

// The windows that pixel (h, v) lies in, each with the place it has there and whether it won.
function windowsOf(problem, image, h, v) {
  const found = [];
  for (let p = 0; p < outputRows(problem); ++p)
    for (let q = 0; q < outputColumns(problem); ++q) {
      const r = (h + problem.padding - p * problem.stride) / problem.dilation;
      const s = (v + problem.padding - q * problem.stride) / problem.dilation;
      if (!Number.isInteger(r) || !Number.isInteger(s) || r < 0 || r >= problem.R || s < 0 || s >= problem.S) continue;
      const place = r * problem.S + s;
      found.push({ p, q, place, won: winner(problem, image, p, q).place === place });
    }
  return found;
}

// What pixel (h, v) gets: the gradients of the windows that it won.
function routed(problem, image, dpool, h, v) {
  return windowsOf(problem, image, h, v).reduce((total, { p, q, won }) => total + (won ? dpool[p][q] : 0), 0);
}
