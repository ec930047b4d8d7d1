#include "emulator/profile/footprint.h"

#include <algorithm>

namespace cnnkernels::emulator {

Footprint::Page& Footprint::page(std::uint64_t number) {
  if (number != last_number_) {
    last_ = &pages_[number];  // its address stays when others are added
    last_number_ = number;
  }
  return *last_;
}

std::uint32_t Footprint::add(std::uint64_t address, std::uint64_t bytes) {
  if (bytes == 0) return 0;
  std::uint32_t fresh = 0;
  const std::uint64_t last = (address + bytes - 1) / kSectorBytes;
  for (std::uint64_t sector = address / kSectorBytes; sector <= last; ++sector) {
    auto bit = page(sector / kPageSectors)[sector % kPageSectors];
    fresh += !bit;
    bit = true;
  }
  return fresh;
}

void Footprint::add(const Footprint& other) {
  for (const auto& [number, sectors] : other.pages_) page(number) |= sectors;
}

std::uint64_t Footprint::sectors(std::uint64_t begin, std::uint64_t end) const {
  const std::uint64_t first = begin / kSectorBytes, beyond = (end + kSectorBytes - 1) / kSectorBytes;
  std::uint64_t count = 0;
  for (const auto& [number, sectors] : pages_) {
    const std::uint64_t start = number * kPageSectors;
    const std::uint64_t from = std::max(start, first), to = std::min(start + kPageSectors, beyond);
    if (from == start && to == start + kPageSectors) {
      count += sectors.count();
    } else {
      for (std::uint64_t sector = from; sector < to; ++sector) count += sectors[sector - start];
    }
  }
  return count;
}

}  // namespace cnnkernels::emulator
