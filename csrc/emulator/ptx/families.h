// The families of instructions, each decoded in the room that executes it.
#pragma once

namespace cnnkernels::emulator {

class Decoder;
struct Statement;
struct Instruction;

using Decode = bool (*)(Decoder&, const Statement&, Instruction&);

// arithmetic/
bool decode_integer(Decoder&, const Statement&, Instruction&);
bool decode_bits(Decoder&, const Statement&, Instruction&);
bool decode_dot_product(Decoder&, const Statement&, Instruction&);
bool decode_float(Decoder&, const Statement&, Instruction&);
bool decode_compare(Decoder&, const Statement&, Instruction&);
bool decode_move(Decoder&, const Statement&, Instruction&);
bool decode_convert(Decoder&, const Statement&, Instruction&);
bool decode_lanes(Decoder&, const Statement&, Instruction&);
// memory/
bool decode_load_store(Decoder&, const Statement&, Instruction&);
bool decode_atomic(Decoder&, const Statement&, Instruction&);
bool decode_address(Decoder&, const Statement&, Instruction&);
// machine/
bool decode_barrier(Decoder&, const Statement&, Instruction&);
// asynchronous/: mbarrier, cp.async, cp.async.bulk, cp.reduce.async.bulk, st.async, red.async, tensormap,
// fence, membar
bool decode_asynchronous(Decoder&, const Statement&, Instruction&);
// tensor_cores/: mma, wgmma, ldmatrix, stmatrix, movmatrix, setmaxnreg
bool decode_tensor_cores(Decoder&, const Statement&, Instruction&);

}  // namespace cnnkernels::emulator
