// What kind of work an instruction is, and how many of a GPU's issue slots PTX's stands for.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace cnnkernels::emulator {

enum class Kind : std::uint8_t {
  integer,
  floating,
  conversion,
  move,
  compare,
  branch,
  lanes,   // shuffles, votes
  tensor,  // products of tensor cores
  matrix,  // ldmatrix, stmatrix
  shared,  // loads and stores
  global,
  local,
  parameter,
  generic,
  atomic,
  copy,  // started here, done by others
  wait,  // barriers, mbarriers, fences and waits for copies and products
};
inline constexpr std::array kKindNames = {"integer",   "float",   "conversion", "move",   "compare", "branch",
                                          "lanes",     "tensor",  "matrix",     "shared", "global",  "local",
                                          "parameter", "generic", "atomic",     "copy",   "wait"};
inline constexpr std::size_t kKinds = kKindNames.size();

Kind kind_of(std::string_view opcode);

// An estimate, as ptxas has the last word: moves and parameters become operands of others, additions and
// comparisons of 64 bits take two, a division many.
int issue_slots(std::string_view opcode);

}  // namespace cnnkernels::emulator
