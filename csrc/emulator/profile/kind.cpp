#include "emulator/profile/kind.h"

#include <algorithm>
#include <utility>

namespace cnnkernels::emulator {

namespace {

bool has(std::string_view opcode, std::string_view word) {
  return opcode.find(word) != std::string_view::npos;
}

std::string_view first_word(std::string_view opcode) { return opcode.substr(0, opcode.find('.')); }

template <std::size_t size>
bool is_one_of(std::string_view word, const std::array<std::string_view, size>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

constexpr std::array<std::string_view, 6> kBranches{"bra", "brx", "call", "ret", "exit", "trap"};
constexpr std::array<std::string_view, 6> kLanesWords{"shfl",  "vote",       "match",
                                                      "redux", "activemask", "elect"};
constexpr std::array<std::string_view, 5> kMoves{"mov", "cvta", "isspacep", "mapa", "getctarank"};
constexpr std::array<std::string_view, 6> kWaits{"bar",   "barrier", "mbarrier",
                                                 "fence", "membar",  "griddepcontrol"};

bool is_wait(std::string_view opcode) {
  return is_one_of(first_word(opcode), kWaits) || has(opcode, "wait_group") || has(opcode, "wait_all") ||
         has(opcode, "commit_group") || opcode.starts_with("wgmma.fence") ||
         opcode.starts_with("cp.async.mbarrier");
}

bool is_float(std::string_view opcode) {
  constexpr std::array<std::string_view, 6> kTypes{".f16", ".bf16", ".f32", ".f64", ".tf32", ".approx"};
  return std::any_of(kTypes.begin(), kTypes.end(), [&](std::string_view type) { return has(opcode, type); });
}

Kind kind_of_access(std::string_view opcode) {
  if (has(opcode, ".async")) return Kind::copy;
  if (has(opcode, ".shared")) return Kind::shared;
  if (has(opcode, ".global") || has(opcode, ".const")) return Kind::global;
  if (has(opcode, ".local")) return Kind::local;
  return has(opcode, ".param") ? Kind::parameter : Kind::generic;
}

}  // namespace

Kind kind_of(std::string_view opcode) {
  const std::string_view word = first_word(opcode);
  if (is_one_of(word, kBranches)) return Kind::branch;
  if (opcode.starts_with("wgmma.mma") || word == "mma") return Kind::tensor;
  if (word == "ldmatrix" || word == "stmatrix" || word == "movmatrix") return Kind::matrix;
  if (is_wait(opcode)) return Kind::wait;
  if (word == "cp" || word == "prefetch" || word == "tensormap") return Kind::copy;
  if (word == "ld" || word == "st" || word == "ldu") return kind_of_access(opcode);
  if (word == "atom" || word == "red") return has(opcode, ".async") ? Kind::copy : Kind::atomic;
  if (is_one_of(word, kLanesWords)) return Kind::lanes;
  if (is_one_of(word, kMoves)) return Kind::move;
  if (word == "setp" || word == "set" || word == "selp" || word == "slct") return Kind::compare;
  if (word == "cvt") return Kind::conversion;
  return is_float(opcode) ? Kind::floating : Kind::integer;
}

int issue_slots(std::string_view opcode) {
  constexpr int kDivision = 20, kFloatDivision = 10;
  const std::string_view word = first_word(opcode);
  const Kind kind = kind_of(opcode);
  if (kind == Kind::move || opcode.starts_with("ld.param") || word == "setmaxnreg") return 0;
  if (opcode == "cvt.u32.u64" || opcode == "cvt.u64.u32") return 0;  // a half of a pair of registers
  const bool wide = has(opcode, "64") && !has(opcode, "f64");
  if (word == "div" || word == "rem") {
    if (is_float(opcode)) return kFloatDivision;
    return wide ? 4 * kDivision : kDivision;
  }
  if ((word == "rcp" || word == "sqrt") && !has(opcode, "approx")) return kFloatDivision;
  if ((kind == Kind::integer || kind == Kind::compare) && wide) return word == "mul" || word == "mad" ? 4 : 2;
  return 1;
}

}  // namespace cnnkernels::emulator
