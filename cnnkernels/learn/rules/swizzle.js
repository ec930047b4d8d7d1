// Where the 16-byte chunks of a tile lie in shared memory (csrc/ptx/swizzle.h). The tile's rows are `span` bytes, one
// after the other from an address at which the pattern begins.
"use strict";

const SPANS = [128, 64, 32];
const CHUNK = 16;
const LINE = 128;  // bytes that all 32 banks serve in one turn

// The chunk's number within the span is exchanged for its exclusive or with the number of its line of 128 bytes.
function swizzled(address, span) {
  const mask = span / CHUNK - 1;
  return address ^ (((address >> 7) & mask) << 4);
}

function addressOf(row, chunk, span) {
  return row * span + chunk * CHUNK;
}

// The four banks that a chunk lies in, by the number of the first divided by 4.
function bankGroup(address) {
  return Math.floor(address / CHUNK) % (LINE / CHUNK);
}

// How many turns shared memory takes to give eight lanes a chunk each: as many as the fullest banks hold.
function turns(addresses) {
  const held = addresses.map(bankGroup);
  return Math.max(...held.map((group) => held.filter((other) => other === group).length));
}
