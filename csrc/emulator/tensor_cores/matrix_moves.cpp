// ldmatrix, stmatrix and movmatrix: 8 x 8 matrices of 16 bits. Lane 8 m + r has the address of row r of
// matrix m; each lane holds elements 2 c and 2 c + 1 of row g (lane = 4 g + c), or, transposed, of column g.
#include <cstring>

#include "emulator/asynchronous/families.h"
#include "emulator/memory/address.h"
#include "emulator/profile/measure.h"
#include "emulator/tensor_cores/families.h"
#include "emulator/wrong_model.h"

namespace cnnkernels::emulator {
namespace {

enum Flags : std::uint32_t { kTransposed = 1 };
constexpr int kSide = 8;

struct Matrix {
  std::uint16_t at[kSide][kSide];

  void set(int lane, bool transposed, std::uint32_t word) {
    for (int half = 0; half < 2; ++half) {
      const int row = lane / 4, column = 2 * (lane & 3) + half;
      const auto value = static_cast<std::uint16_t>(word >> (16 * half));
      (transposed ? at[column][row] : at[row][column]) = value;
    }
  }
  std::uint32_t get(int lane, bool transposed) const {
    std::uint32_t word = 0;
    for (int half = 0; half < 2; ++half) {
      const int row = lane / 4, column = 2 * (lane & 3) + half;
      word |= std::uint32_t{transposed ? at[column][row] : at[row][column]} << (16 * half);
    }
    return word;
  }
};

std::byte* row_at(Warp& warp, const Instruction& instruction, int lane, Access access) {
  return place(warp, lane, instruction.space, address_at(warp, instruction, lane), sizeof Matrix{}.at[0],
               access);
}

void execute_load(Warp& warp, const Instruction& instruction, Mask) {
  const bool transposed =
      (instruction.flags & kTransposed) != 0 && !is_wrong(WrongModel::ldmatrix_never_transposes);
  Matrix matrices[4];
  for (int lane = 0; lane < kSide * instruction.list_size; ++lane) {
    std::memcpy(matrices[lane / kSide].at[lane % kSide], row_at(warp, instruction, lane, Access::read), 16);
  }
  for (int m = 0; m < instruction.list_size; ++m) {
    std::uint32_t* words = warp.lanes(instruction.list[m]);
    for (int lane = 0; lane < kLanes; ++lane) words[lane] = matrices[m].get(lane, transposed);
  }
}

void execute_store(Warp& warp, const Instruction& instruction, Mask) {
  const bool transposed =
      ((instruction.flags & kTransposed) != 0) != is_wrong(WrongModel::stmatrix_transposes_backwards);
  for (int m = 0; m < instruction.list_size; ++m) {
    Matrix matrix;
    const std::uint32_t* words = warp.lanes(instruction.list[m]);
    for (int lane = 0; lane < kLanes; ++lane) matrix.set(lane, transposed, words[lane]);
    for (int row = 0; row < kSide; ++row) {
      std::memcpy(row_at(warp, instruction, m * kSide + row, Access::write), matrix.at[row], 16);
    }
  }
}

void execute_move(Warp& warp, const Instruction& instruction, Mask) {
  Matrix matrix;
  const std::uint32_t* from = warp.lanes(instruction.source[0]);
  std::uint32_t* to = warp.lanes(instruction.destination);
  for (int lane = 0; lane < kLanes; ++lane) matrix.set(lane, false, from[lane]);
  for (int lane = 0; lane < kLanes; ++lane) to[lane] = matrix.get(lane, true);
}

}  // namespace

bool decode_matrix_move(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const std::string_view name = statement.word(0);
  const bool loads = name == "ldmatrix";
  if (!loads && name != "stmatrix" && name != "movmatrix") return false;
  if (!statement.has("m8n8") || !statement.has("b16"))
    refuse(statement, "8 x 8 matrices of 16 bits are expected");
  instruction.control = Control::warp;
  if (name == "movmatrix") {
    instruction.destination = decoder.destination(statement, 0, Type::b32);
    instruction.source[0] = decoder.source(statement, 1, Type::b32);
    instruction.execute = execute_move;
    return true;
  }
  const std::size_t count = statement.has("x4") ? 4 : statement.has("x2") ? 2 : 1;
  std::vector<Slot> slots;
  for (const Operand& element : elements_of(statement.operands[loads ? 0 : 1])) {
    slots.push_back(loads ? decoder.destination(statement, element, Type::b32)
                          : decoder.source(statement, element, Type::b32));
  }
  if (slots.size() != count) refuse(statement, "as many registers as matrices are expected");
  const auto kept = decoder.keep(std::move(slots));
  instruction.list = kept.data();
  instruction.list_size = static_cast<std::uint8_t>(count);
  instruction.space = statement.space();
  if (statement.has("trans")) instruction.flags |= kTransposed;
  decoder.address(statement, loads ? 1 : 0, instruction);
  instruction.execute = loads ? execute_load : execute_store;
  instruction.measure = measure_rows;
  return true;
}

}  // namespace cnnkernels::emulator
