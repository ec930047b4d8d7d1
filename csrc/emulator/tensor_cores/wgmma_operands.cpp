// What a warp's share of a wgmma reads, and its sums.
#include <algorithm>
#include <utility>

#include "emulator/tensor_cores/descriptor.h"
#include "emulator/tensor_cores/wgmma.h"
#include "emulator/wrong_model.h"

namespace cnnkernels::emulator {
namespace {

// Calls use(first row, first k, address of 16 bytes) for rows [begin, begin + rows) of an operand.
template <class Use>
void for_each_operand_chunk(const MatrixDescriptor& descriptor, Type type, bool mn_major, int begin, int rows,
                            int depth, Use use) {
  if (mn_major) {  // of 16-bit types alone
    for (int eight = 0; eight < rows / 8; ++eight) {
      for (int k = 0; k < depth; ++k) use(eight * 8, k, descriptor.chunk_mn_major(begin / 8 + eight, k));
    }
    return;
  }
  const int elements = 128 / element_bits(type);
  for (int row = 0; row < rows; ++row) {
    for (int i = 0; i < 2; ++i) use(row, i * elements, descriptor.chunk(begin + row, i));
  }
}

std::byte* chunk_at(Block& block, std::uint32_t address) {
  if (address < SharedMemory::kStart || address + 16 > block.shared.end()) {
    fault("a wgmma reads shared memory at %#x, which lies outside [%#x, %#x)", address, SharedMemory::kStart,
          block.shared.end());
  }
  return block.shared.at(address);
}

int first_row(const Warp& warp) {
  const int position = warp.index % 4;
  const bool swaps = is_wrong(WrongModel::warps_rows_swapped) && (position == 1 || position == 2);
  return kRows * (swaps ? 3 - position : position);
}

// Calls use(row, k, values, how many) for what a descriptor names: elements of a row from a k on, or of
// several rows from a row on at one k, where it is `mn_major`.
template <class Use>
void read_operand(Block& block, std::uint64_t bits, Type type, bool mn_major, int begin, int rows, int depth,
                  bool negated, Use use) {
  const bool negates = negated && !is_wrong(WrongModel::negation_ignored);
  const MatrixDescriptor descriptor = MatrixDescriptor::decode(bits);
  for_each_operand_chunk(descriptor, type, mn_major, begin, rows, depth,
                         [&](int row, int k, std::uint32_t address) {
                           float values[16];
                           const int count = chunk_values(type, chunk_at(block, address), values);
                           for (int i = 0; negates && i < count; ++i) values[i] = -values[i];
                           use(row, k, values, count);
                         });
}

void read_a(Warp& warp, const WgmmaDetails& details, std::uint64_t bits, Operands& operands) {
  read_operand(*warp.block, bits, details.type_a, details.mn_major_a, first_row(warp), kRows, details.shape.k,
               details.negates_a, [&](int row, int k, const float* values, int count) {
                 if (details.mn_major_a) {
                   std::copy_n(values, count, &operands.a[k][row]);
                 } else {
                   for (int i = 0; i < count; ++i) operands.a[k + i][row] = values[i];
                 }
               });
}

void read_b(Warp& warp, const WgmmaDetails& details, std::uint64_t bits, Operands& operands) {
  read_operand(*warp.block, bits, details.type_b, details.mn_major_b, 0, details.shape.n, details.shape.k,
               details.negates_b, [&](int column, int k, const float* values, int count) {
                 if (details.mn_major_b) {
                   for (int i = 0; i < count; ++i) operands.b[column + i][k] = values[i];
                 } else {
                   std::copy_n(values, count, &operands.b[column][k]);
                 }
               });
}

// Of A from registers as they were when the product began.
void read_fragments(const WgmmaDetails& details, const Product& product, Operands& operands) {
  const bool negates = details.negates_a && !is_wrong(WrongModel::negation_ignored);
  const int elements = 32 / element_bits(details.type_a);
  for (std::size_t i = 0; i < product.a_registers.size(); ++i) {
    const int index = static_cast<int>(i);
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int part = 0; part < elements; ++part) {
        const std::uint32_t bits = product.a_registers[i][lane] >> (part * element_bits(details.type_a));
        const float value = element_value(details.type_a, bits);
        operands.a[depth_of_a(lane, index, kRows, elements, part)][row_of_a(lane, index, kRows)] =
            negates ? -value : value;
      }
    }
  }
}

}  // namespace

void compute(Warp& warp, const Product& product, std::span<const Register> read,
             std::span<const Register> write, OperandB& last) {
  const WgmmaDetails& details = *product.details;
  static thread_local Operands operands;
  operands.columns = details.shape.n;
  operands.depth = details.shape.k;
  if (details.a.empty()) {
    read_a(warp, details, product.a, operands);
  } else {
    read_fragments(details, product, operands);
  }
  if (last.details != &details || last.descriptor != product.b) read_b(warp, details, product.b, operands);
  last = {&details, product.b};
  const std::span<const Register> added = product.adds ? read : std::span<const Register>();
  if (details.type_d == Type::s32) {
    static thread_local std::int32_t sums[kMostColumns][kRows];
    multiply_integers(operands, sums);
    return add_s32(sums, added, write, details.saturates);
  }
  static thread_local double sums[kMostColumns][kRows];
  multiply(operands, sums);
  if (details.type_d == Type::f16) {
    add_f16(sums, added, write);
  } else {
    add_f32(sums, added, write);
  }
}

void note_reads(Warp& warp, const Product& product) {
  Races* races = warp.cluster->races.get();
  if (races == nullptr) return;
  const WgmmaDetails& details = *product.details;
  const Races::Started started{warp.cluster_index, races->products_of(warp.cluster_index - warp.index % 4),
                               product.group + 1};
  const auto note = [&](std::uint64_t bits, Type type, bool mn_major, int begin, int rows) {
    const MatrixDescriptor descriptor = MatrixDescriptor::decode(bits);
    for_each_operand_chunk(
        descriptor, type, mn_major, begin, rows, details.shape.k, [&](int, int, std::uint32_t address) {
          chunk_at(*warp.block, address);
          races->read_later(started, Races::Proxy::asynchronous, warp.block->rank, address, 16, product.line);
        });
  };
  if (details.a.empty()) note(product.a, details.type_a, details.mn_major_a, first_row(warp), kRows);
  note(product.b, details.type_b, details.mn_major_b, 0, details.shape.n);
}

}  // namespace cnnkernels::emulator
