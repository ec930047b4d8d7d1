#include "emulator/tensor_cores/fragments.h"

#include "emulator/wrong_model.h"

namespace cnnkernels::emulator {
namespace {

// Calls use(part, bits) for the elements of a register of a lane.
template <class Use>
void for_each_element(Type type, std::uint32_t word, Use use) {
  const int bits = element_bits(type);
  for (int part = 0; part < 32 / bits; ++part) use(part, word >> (part * bits));
}

template <class Add>
void add(std::span<const Register> read, std::span<const Register> write, Add add) {
  for (std::size_t index = 0; index < write.size(); ++index) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const std::uint32_t before = read.empty() ? 0 : read[index][lane];
      write[index][lane] = add(lane, static_cast<int>(index), before);
    }
  }
}

int layout_index(int index) {  // of D in 32 bits
  if (!is_wrong(WrongModel::accumulator_pairs_swapped)) return index;
  return (index & ~3) | (index & 1) << 1 | (index >> 1 & 1);
}

}  // namespace

void gather_a(Warp& warp, std::span<const Slot> registers, Type type, int rows, bool negated,
              Operands& operands) {
  const int elements = 32 / element_bits(type);
  for (std::size_t i = 0; i < registers.size(); ++i) {
    const int index = static_cast<int>(i);
    const std::uint32_t* words = warp.lanes(registers[i]);
    for (int lane = 0; lane < kLanes; ++lane) {
      for_each_element(type, words[lane], [&](int part, std::uint32_t bits) {
        const float value = element_value(type, bits);
        operands.a[depth_of_a(lane, index, rows, elements, part)][row_of_a(lane, index, rows)] =
            negated ? -value : value;
      });
    }
  }
}

void gather_b(Warp& warp, std::span<const Slot> registers, Type type, Operands& operands) {
  const int elements = 32 / element_bits(type);
  for (std::size_t i = 0; i < registers.size(); ++i) {
    const std::uint32_t* words = warp.lanes(registers[i]);
    for (int lane = 0; lane < kLanes; ++lane) {
      for_each_element(type, words[lane], [&](int part, std::uint32_t bits) {
        operands.b[column_of_b(lane)][depth_of_b(lane, static_cast<int>(i), elements, part)] =
            element_value(type, bits);
      });
    }
  }
}

void add_f32(const double (*sums)[kRows], std::span<const Register> read, std::span<const Register> write) {
  add(read, write, [&](int lane, int index, std::uint32_t before) {
    const int at = layout_index(index);
    return added_f32(sums[column_of_d(lane, at)][row_of_d(lane, at)], before);
  });
}

void add_f16(const double (*sums)[kRows], std::span<const Register> read, std::span<const Register> write) {
  add(read, write, [&](int lane, int index, std::uint32_t before) {
    const int row = row_of_pair(lane, index), column = column_of_pair(lane, index);
    return added_f16x2(sums[column][row], sums[column + 1][row], before);
  });
}

void add_s32(const std::int32_t (*sums)[kRows], std::span<const Register> read,
             std::span<const Register> write, bool saturate) {
  add(read, write, [&](int lane, int index, std::uint32_t before) {
    const int at = layout_index(index);
    return added_s32(sums[column_of_d(lane, at)][row_of_d(lane, at)], before, saturate);
  });
}

}  // namespace cnnkernels::emulator
