// Max-pool of channel 0: first a step for each window, then one for each pixel that gets its gradient back.
"use strict";

const poolView = {
  name: "Max-pool and its routing",
  about: "Forward, a window keeps its largest pixel, and one byte that says which that was. Backward, every pixel asks " +
    "its windows whether it won, and adds up the gradients of those that say so.",
  refusal: poolRefusal,
  windows: (problem) => outputRows(problem) * outputColumns(problem),
  steps: (problem) => poolView.windows(problem) + problem.H * problem.W,
  show: (problem, given, step) => (step < poolView.windows(problem)
    ? poolForward(problem, given, step)
    : poolBackward(problem, given, step - poolView.windows(problem))),
};

function poolForward(problem, { x: [image] }, step) {
  const Q = outputColumns(problem), P = outputRows(problem);
  const [q, p] = digits(step, Q, P);
  const { value, place, h, v } = winner(problem, image, p, q);
  const window = new Set();
  for (let r = 0; r < problem.R; ++r)
    for (let s = 0; s < problem.S; ++s) window.add(`${imageRow(problem, p, r)} ${imageRow(problem, q, s)}`);
  const results = tensor([P, Q], (i, j) => winner(problem, image, i, j));
  const number = (i, j) => i * Q + j;
  return {
    sentences: [`Window (${p}, ${q}): pixel (${h}, ${v}) wins with ${value}; its place is ${place}`],
    grids: [
      paddedGrid("x[0], padded: what is outside never wins", problem, image, (i, j) => window.has(`${i} ${j}`)),
      resultGrid("y", results.map((row) => row.map((won) => won.value)), number, step),
      resultGrid("place of the winner, r·S + s", results.map((row) => row.map((won) => won.place)), number, step),
    ],
  };
}

function poolBackward(problem, { x: [image], dpool }, step) {
  const { H, W } = problem;
  const [v, h] = digits(step, W, H);
  const asked = windowsOf(problem, image, h, v);
  const won = new Set(asked.filter((one) => one.won).map(({ p, q }) => `${p} ${q}`));
  const places = dpool.map((row, p) => row.map((_, q) => winner(problem, image, p, q).place));
  const dx = tensor([H, W], (i, j) => routed(problem, image, dpool, i, j));
  const answers = asked.map(({ p, q, place, won: yes }) =>
    `Window (${p}, ${q}) sees it at place ${place}: ${yes ? `adds ${dpool[p][q]}` : `place ${places[p][q]} won`}`);
  return {
    sentences: [`dx[${h}, ${v}] = ${dx[h][v]}`, ...answers],
    grids: [
      grid("dy", dpool, (p, q) => (won.has(`${p} ${q}`) ? "seen" : "")),
      grid("place of the winner, r·S + s", places, (p, q) => (won.has(`${p} ${q}`) ? "seen" : "")),
      resultGrid("dx", dx, (i, j) => i * W + j, step),
    ],
  };
}
