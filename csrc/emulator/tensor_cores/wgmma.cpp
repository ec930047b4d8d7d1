// wgmma.mma_async, fence, commit_group, wait_group; setmaxnreg.
//
// A product is one operation of the warpgroup: a wait waits until all four warps have issued it, and when one
// warp has waited, it is complete for all. With Mode::warps_meet they also meet at fence, commit and wait, as
// the hardware may but need not do: without, a warp runs ahead of the others.
#include "emulator/tensor_cores/wgmma.h"

#include <algorithm>

#include "emulator/wrong_model.h"

namespace cnnkernels::emulator {
namespace {

std::span<Warp> warpgroup(Warp& warp) {
  const std::size_t first = warp.index & ~3;
  if (warp.block->warps.size() < first + 4) fault("wgmma by warps that are no whole warpgroup");
  return std::span(warp.block->warps).subspan(first, 4);
}

// Whether all four warps are here; to be tried again otherwise.
bool meet(Warp& warp) {
  if (!warp.cluster->mode().warps_meet) return true;
  WarpProducts& mine = *warp.products;
  if (!mine.meeting) {
    mine.meeting = true;
    ++mine.meetings;
    ++warp.cluster->events;
  }
  for (const Warp& other : warpgroup(warp)) {
    if (other.products->meetings >= mine.meetings) continue;
    warp.outcome = Outcome::again;
    return false;
  }
  mine.meeting = false;
  return true;
}

std::uint64_t uniform_descriptor(Warp& warp, Slot slot) {
  const std::uint64_t* lanes = warp.lanes<std::uint64_t>(slot);
  for (int lane = 1; lane < kLanes; ++lane) {
    if (lanes[lane] != lanes[0])
      fault_of_lane(lane, "the lanes of the warp have different matrix descriptors");
  }
  return lanes[0];
}

void execute_product(Warp& warp, const Instruction& instruction, Mask) {
  const auto& details = static_cast<const WgmmaDetails&>(*instruction.details);
  WarpProducts& products = *warp.products;
  warpgroup(warp);
  Product product{.details = &details, .group = products.groups, .line = instruction.line};
  if (details.a.empty()) product.a = uniform_descriptor(warp, details.descriptor_a);
  product.b = uniform_descriptor(warp, details.descriptor_b);
  product.adds = (warp.predicate_source(instruction, 0) & 1) != 0 || is_wrong(WrongModel::scale_d_ignored);
  for (const Slot slot : details.a) {
    auto& kept = product.a_registers.emplace_back();
    std::copy(warp.lanes(slot), warp.lanes(slot) + kLanes, kept.begin());
  }
  note_reads(warp, product);
  ++products.issued;
  ++warp.cluster->events;
  if (warp.cluster->mode().late) return begin(warp, std::move(product));
  std::vector<Register> registers;
  for (const Slot slot : details.d) registers.push_back(warp.lanes(slot));
  OperandB none;
  compute(warp, product, registers, registers, none);
}

// A warp's quarter: 16 rows of A, and of B, which all four read together, a fourth.
void measure_wgmma(Warp& warp, const Instruction& instruction, Mask) {
  constexpr std::uint64_t kWarps = 4, kDepthBytes = 32;
  const auto& details = static_cast<const WgmmaDetails&>(*instruction.details);
  const std::uint64_t columns = details.shape.n, depth = details.shape.k;
  warp.cluster->meter->multiplied(warp, kRows * columns * depth);
  const std::uint64_t bytes = ((details.a.empty() ? kWarps * kRows : 0) + columns) * kDepthBytes;
  if (warp.index % kWarps == 0) warp.cluster->meter->shared_stream(warp, bytes);
}

void execute_fence(Warp& warp, const Instruction&, Mask) {
  if (meet(warp)) warp.products->fenced = true;
}

void execute_commit(Warp& warp, const Instruction&, Mask) {
  if (!meet(warp)) return;
  ++warp.products->groups;
  warp.products->issued_by.push_back(warp.products->issued);
}

void execute_wait(Warp& warp, const Instruction& instruction, Mask) {
  if (!meet(warp)) return;
  WarpProducts& products = *warp.products;
  const auto left = static_cast<std::uint32_t>(instruction.immediate);
  if (products.groups <= left) return;
  const std::uint32_t groups = products.groups - left;
  const std::uint32_t issued = products.issued_by[groups - 1];
  for (const Warp& other : warpgroup(warp)) {
    if (other.products->issued >= issued || is_wrong(WrongModel::wait_is_early)) continue;
    warp.outcome = Outcome::again;
    return;
  }
  if (Races* races = warp.cluster->races.get()) {
    races->waited(warp.cluster_index, races->products_of(warp.cluster_index - warp.index % 4), groups);
  }
  if (!warp.cluster->mode().late) return;
  complete(warp, groups);
  if (publish(warp, groups)) products.fenced = false;
}

void execute_nothing(Warp&, const Instruction&, Mask) {}

void decode_factors(Decoder& decoder, const Statement& statement, WgmmaDetails& details) {
  const auto factor = [&](std::size_t index) {
    const std::int64_t value = decoder.number(statement, index);
    if (value != 1 && value != -1) refuse(statement, "operands are scaled by 1 or -1");
    return value < 0;
  };
  std::size_t next = 4;
  details.negates_a = factor(next++);
  details.negates_b = factor(next++);
  if (element_bits(details.type_a) != 16) return;
  if (details.a.empty()) details.mn_major_a = decoder.number(statement, next++) != 0;
  details.mn_major_b = decoder.number(statement, next) != 0;
}

void check(const Statement& statement, const WgmmaDetails& details) {
  const Shape& shape = details.shape;
  const bool fits = shape.m == 64 && shape.n >= 8 && shape.n <= kMostColumns && shape.n % 8 == 0 &&
                    shape.k * element_bits(details.type_a) == 256;
  if (!fits || element_bits(details.type_a) != element_bits(details.type_b)) refuse(statement, "shape");
  const std::size_t registers = shape.n / (details.type_d == Type::f16 ? 4 : 2);
  if (details.d.size() != registers) refuse(statement, "registers of D");
  if (!details.a.empty() && details.a.size() != 4) refuse(statement, "registers of A");
}

void decode_product(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  if (statement.has("sp")) refuse(statement, "sparse operands are not known");
  auto details = std::make_unique<WgmmaDetails>();
  std::size_t index = 0;
  details->shape = shape_of(statement, index);
  const std::vector<Type> types = statement.types();
  if (types.size() != 3) refuse(statement, "types of D, A and B are expected");
  details->type_d = types[0];
  details->type_a = types[1];
  details->type_b = types[2];
  details->saturates = statement.has("satfinite");
  for (const Operand& element : statement.operands[0].elements) {
    details->d.push_back(decoder.accumulator(statement, element, Type::b32));
  }
  const Operand& a = statement.operands[1];
  if (a.is(Operand::Kind::vector)) {
    for (const Operand& element : a.elements)
      details->a.push_back(decoder.source(statement, element, Type::b32));
  } else {
    details->descriptor_a = decoder.source(statement, a, Type::b64);
  }
  details->descriptor_b = decoder.source(statement, 2, Type::b64);
  instruction.source[0] = decoder.predicate(statement, statement.operands[3]);
  if (statement.operands[3].negated) instruction.negated |= 1;
  if (statement.operands.size() > 4) decode_factors(decoder, statement, *details);
  check(statement, *details);
  instruction.details = &decoder.keep(std::move(details));
  instruction.execute = execute_product;
  instruction.measure = measure_wgmma;
}

}  // namespace

bool decode_wgmma(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  if (statement.word(0) == "setmaxnreg") {
    instruction.control = Control::warp;
    instruction.execute = execute_nothing;
    return true;
  }
  if (statement.word(0) != "wgmma") return false;
  const std::string_view verb = statement.word(1);
  instruction.control = Control::warp;
  if (verb == "mma_async") {
    decode_product(decoder, statement, instruction);
  } else if (verb == "fence") {
    instruction.execute = execute_fence;
  } else if (verb == "commit_group") {
    instruction.execute = execute_commit;
  } else if (verb == "wait_group") {
    instruction.immediate = decoder.number(statement, 0);
    instruction.execute = execute_wait;
  } else {
    return false;
  }
  return true;
}

bool decode_tensor_cores(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  for (const auto decode : {decode_mma, decode_matrix_move, decode_wgmma}) {
    if (decode(decoder, statement, instruction)) return true;
  }
  return false;
}

}  // namespace cnnkernels::emulator
