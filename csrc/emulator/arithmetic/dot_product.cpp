// dp4a and dp2a.
#include "emulator/arithmetic/lanes.h"
#include "emulator/ptx/families.h"

namespace cnnkernels::emulator {

namespace {

constexpr std::uint32_t kFirstSigned = 1, kSecondSigned = 2, kHigh = 4, kTwo = 8;

// The element of `bits` bits at `index`.
std::int32_t element(std::uint32_t word, int index, int bits, bool is_signed) {
  const std::uint32_t moved = word << (32 - bits * (index + 1));
  return is_signed ? std::int32_t(moved) >> (32 - bits) : std::int32_t(moved >> (32 - bits));
}

void execute(Warp& warp, const Instruction& instruction, Mask lanes) {
  const std::uint32_t *a = warp.lanes(instruction.source[0]), *b = warp.lanes(instruction.source[1]);
  const std::uint32_t* c = warp.lanes(instruction.source[2]);
  const std::uint32_t flags = instruction.flags;
  const int count = flags & kTwo ? 2 : 4, bits = 32 / count, first = flags & kHigh ? 2 : 0;
  std::uint32_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    std::uint32_t sum = c[lane];
    for (int i = 0; i < count; ++i)
      sum += static_cast<std::uint32_t>(element(a[lane], i, bits, flags & kFirstSigned) *
                                        element(b[lane], first + i, 8, flags & kSecondSigned));
    results[lane] = sum;
  }
  put(warp, instruction.destination, results, lanes);
}

}  // namespace

bool decode_dot_product(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  if (statement.words[0] != "dp4a" && statement.words[0] != "dp2a") return false;
  const std::vector<Type> types = statement.types();
  if (types.size() != 2) refuse(statement, "two types are needed");
  decode_operands(decoder, statement, instruction, 3, Type::b32);
  instruction.flags = (types[0] == Type::s32 ? kFirstSigned : 0) |
                      (types[1] == Type::s32 ? kSecondSigned : 0) | (statement.has("hi") ? kHigh : 0) |
                      (statement.words[0] == "dp2a" ? kTwo : 0);
  return finish(statement, instruction, execute);
}

}  // namespace cnnkernels::emulator
