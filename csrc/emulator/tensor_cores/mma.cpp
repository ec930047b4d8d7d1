// mma.sync: a warp's product from registers to registers.
#include <algorithm>
#include <cmath>

#include "emulator/tensor_cores/families.h"
#include "emulator/tensor_cores/fragments.h"

namespace cnnkernels::emulator {
namespace {

struct MmaDetails : Details {
  std::vector<Slot> a, b, c, d;
  Shape shape;
  Type type_a = Type::none, type_b = Type::none;
  bool saturate = false;
};

const MmaDetails& details_of(const Instruction& instruction) {
  return static_cast<const MmaDetails&>(*instruction.details);
}

std::vector<Register> registers_of(Warp& warp, const std::vector<Slot>& slots) {
  std::vector<Register> registers;
  for (const Slot slot : slots) registers.push_back(warp.lanes(slot));
  return registers;
}

void execute(Warp& warp, const Instruction& instruction, Mask) {
  const MmaDetails& details = details_of(instruction);
  static thread_local Operands operands;
  operands.columns = details.shape.n;
  operands.depth = details.shape.k;
  gather_a(warp, details.a, details.type_a, details.shape.m, false, operands);
  gather_b(warp, details.b, details.type_b, operands);
  const auto c = registers_of(warp, details.c), d = registers_of(warp, details.d);
  if (instruction.type == Type::s32) {
    std::int32_t sums[8][kRows];
    multiply_integers(operands, sums);
    return add_s32(sums, c, d, details.saturate);
  }
  double sums[8][kRows];
  multiply(operands, sums);
  if (instruction.type == Type::f16) {
    add_f16(sums, c, d);
  } else {
    add_f32(sums, c, d);
  }
}

// Each step rounded, as fma does: PTX says so of this type alone.
void execute_f64(Warp& warp, const Instruction& instruction, Mask) {
  const MmaDetails& details = details_of(instruction);
  const auto [rows, columns, depth] = details.shape;
  double a[kRows][kRows], b[8][kRows], d[kRows][8];
  for (std::size_t i = 0; i < details.a.size(); ++i) {
    const double* lanes = warp.lanes<double>(details.a[i]);
    const int index = static_cast<int>(i);
    for (int lane = 0; lane < kLanes; ++lane) {
      a[row_of_a(lane, index, rows)][depth_of_a(lane, index, rows, 1, 0)] = lanes[lane];
    }
  }
  for (std::size_t i = 0; i < details.b.size(); ++i) {
    const double* lanes = warp.lanes<double>(details.b[i]);
    for (int lane = 0; lane < kLanes; ++lane) {
      b[column_of_b(lane)][depth_of_b(lane, static_cast<int>(i), 1, 0)] = lanes[lane];
    }
  }
  const auto for_each_sum = [&](const std::vector<Slot>& slots, auto function) {
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const int index = static_cast<int>(i);
      double* lanes = warp.lanes<double>(slots[i]);
      for (int lane = 0; lane < kLanes; ++lane) {
        function(lanes[lane], d[row_of_d(lane, index)][column_of_d(lane, index)]);
      }
    }
  };
  for_each_sum(details.c, [](double value, double& sum) { sum = value; });
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < columns; ++column) {
      for (int k = 0; k < depth; ++k) d[row][column] = std::fma(a[row][k], b[column][k], d[row][column]);
    }
  }
  for_each_sum(details.d, [](double& value, double sum) { value = sum; });
}

void measure_mma(Warp& warp, const Instruction& instruction, Mask) {
  const auto [rows, columns, depth] = details_of(instruction).shape;
  warp.cluster->meter->multiplied(warp, std::uint64_t(rows) * columns * depth);
}

std::vector<Slot> sources(Decoder& decoder, const Statement& statement, std::size_t index, Type type) {
  std::vector<Slot> slots;
  for (const Operand& element : elements_of(statement.operands[index])) {
    slots.push_back(decoder.source(statement, element, type));
  }
  return slots;
}

void check(const Statement& statement, const MmaDetails& details, Type d) {
  const Shape& shape = details.shape;
  const int register_bits = d == Type::f64 ? 64 : 32;
  const auto expect = [&](const std::vector<Slot>& slots, int elements, int bits, const char* what) {
    if (static_cast<int>(slots.size()) * kLanes * register_bits != elements * bits) refuse(statement, what);
  };
  if (element_bits(details.type_a) == 0 || element_bits(details.type_b) == 0)
    refuse(statement, "element type");
  if ((shape.m != 8 && shape.m != kRows) || shape.n != 8 || shape.k > kMostDepth) refuse(statement, "shape");
  if (shape.m == 8 && element_bits(details.type_a) == 16) refuse(statement, "Volta's layout is not known");
  expect(details.a, shape.m * shape.k, element_bits(details.type_a), "registers of A");
  expect(details.b, shape.n * shape.k, element_bits(details.type_b), "registers of B");
  expect(details.c, shape.m * shape.n, d == Type::f16 ? 16 : register_bits, "registers of C");
  expect(details.d, shape.m * shape.n, d == Type::f16 ? 16 : register_bits, "registers of D");
}

}  // namespace

std::span<const Operand> elements_of(const Operand& operand) {
  if (operand.is(Operand::Kind::vector)) return operand.elements;
  return {&operand, 1};
}

Shape shape_of(const Statement& statement, std::size_t& index) {
  for (index = 1; index < statement.words.size(); ++index) {
    Shape shape;
    const std::string word(statement.words[index]);
    if (std::sscanf(word.c_str(), "m%dn%dk%d", &shape.m, &shape.n, &shape.k) == 3) return shape;
  }
  refuse(statement, "a shape is expected");
}

bool decode_mma(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  if (statement.word(0) != "mma") return false;
  const bool sparse = std::ranges::any_of(statement.words, [](auto word) { return word.starts_with("sp"); });
  if (sparse) refuse(statement, "sparse operands are not known");
  if (!statement.has("row") || !statement.has("col"))
    refuse(statement, "A by rows and B by columns are expected");
  std::size_t index = 0;
  auto details = std::make_unique<MmaDetails>();
  details->shape = shape_of(statement, index);
  const std::vector<Type> types = statement.types();
  if (types.size() < 3) refuse(statement, "types of D, A and B are expected");
  instruction.type = types[0];
  details->type_a = types[1];
  details->type_b = types[2];
  details->saturate = statement.has("satfinite");
  const Type wide = instruction.type == Type::f64 ? Type::f64 : Type::b32;
  for (const Operand& element : elements_of(statement.operands[0])) {
    details->d.push_back(decoder.destination(statement, element, wide));
  }
  details->a = sources(decoder, statement, 1, wide);
  details->b = sources(decoder, statement, 2, wide);
  details->c = sources(decoder, statement, 3, wide);
  check(statement, *details, instruction.type);
  instruction.details = &decoder.keep(std::move(details));
  instruction.control = Control::warp;
  instruction.execute = instruction.type == Type::f64 ? execute_f64 : execute;
  instruction.measure = measure_mma;
  return true;
}

}  // namespace cnnkernels::emulator
