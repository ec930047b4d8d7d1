#include "emulator/machine/call.h"

#include <string>

#include "emulator/machine/state.h"
#include "emulator/memory/address.h"

namespace cnnkernels::emulator {

namespace {

constexpr std::size_t kLongestText = 400;

template <class T>
T argument(Warp& warp, const Call& call, int lane, std::size_t index) {
  T value{};
  std::memcpy(&value, warp.local(lane) + call.arguments.at(index).from, sizeof value);
  return value;
}

std::string text_at(Warp& warp, int lane, std::uint64_t address) {
  std::string text;
  while (text.size() < kLongestText) {
    const auto c =
        static_cast<char>(*place(warp, lane, Space::generic, address + text.size(), 1, Access::read));
    if (!c) break;
    text += c;
  }
  return text;
}

}  // namespace

// __assertfail(message, file, line, function, size of a character)
void fail_assertion(Warp& warp, const Instruction& instruction, Mask lanes) {
  const auto& call = static_cast<const Call&>(*instruction.details);
  const int lane = __builtin_ctz(lanes);
  const std::string message = text_at(warp, lane, argument<std::uint64_t>(warp, call, lane, 0));
  const std::string file = text_at(warp, lane, argument<std::uint64_t>(warp, call, lane, 1));
  fault_of_lane(lane, "assertion failed: %s (%s:%u)", message.c_str(), file.c_str(),
                argument<std::uint32_t>(warp, call, lane, 2));
}

}  // namespace cnnkernels::emulator
