#include "emulator/profile/rules.h"

#include <algorithm>
#include <array>

namespace cnnkernels::emulator {

namespace {

// Turns that the busiest bank takes for lanes [begin, end).
std::uint32_t busiest_bank(const std::uint64_t (&addresses)[kLanes], Mask lanes, std::uint32_t words,
                           bool atomic) {
  std::array<std::uint64_t, kLanes * 4> wanted;
  std::size_t count = 0;
  for_each_lane(lanes, [&](int lane) {
    for (std::uint32_t word = 0; word < words; ++word) wanted[count++] = addresses[lane] / kBankBytes + word;
  });
  const auto begin = wanted.begin();
  auto end = begin + count;
  std::sort(begin, end);
  if (!atomic) end = std::unique(begin, end);
  std::array<std::uint32_t, kBanks> turns{};
  for (auto word = begin; word != end; ++word) ++turns[*word % kBanks];
  return *std::max_element(turns.begin(), turns.end());
}

}  // namespace

Wavefronts wavefronts_of(const std::uint64_t (&addresses)[kLanes], Mask lanes, std::uint32_t bytes,
                         bool atomic) {
  const std::uint32_t words = std::max(bytes / kBankBytes, 1u);
  const int part = kLanes / static_cast<int>(words);
  Wavefronts found;
  for (int first = 0; first < kLanes; first += part) {
    const Mask here = lanes & (kAllLanes >> (kLanes - part) << first);
    if (!here) continue;
    ++found.least;
    found.taken += busiest_bank(addresses, here, words, atomic);
  }
  return found;
}

std::uint32_t distinct_bytes(const std::uint64_t (&addresses)[kLanes], Mask lanes, std::uint32_t bytes) {
  std::array<std::uint64_t, kLanes> starts;
  std::size_t count = 0;
  for_each_lane(lanes, [&](int lane) { starts[count++] = addresses[lane]; });
  std::sort(starts.begin(), starts.begin() + count);
  std::uint64_t end = 0;
  std::uint32_t distinct = 0;
  for (std::size_t i = 0; i < count; ++i) {
    distinct +=
        static_cast<std::uint32_t>(starts[i] + bytes - std::max(starts[i], std::min(end, starts[i] + bytes)));
    end = starts[i] + bytes;
  }
  return distinct;
}

}  // namespace cnnkernels::emulator
