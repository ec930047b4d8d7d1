// Which sectors of global memory something has touched.
#pragma once

#include <bitset>
#include <cstdint>
#include <unordered_map>

#include "emulator/profile/rules.h"

namespace cnnkernels::emulator {

class Footprint {
 public:
  // Returns how many of the sectors were not there before.
  std::uint32_t add(std::uint64_t address, std::uint64_t bytes);
  void add(const Footprint& other);
  // How many sectors begin in [begin, end), rounded to whole ones.
  std::uint64_t sectors(std::uint64_t begin, std::uint64_t end) const;

 private:
  static constexpr std::uint64_t kPageSectors = 2048;
  using Page = std::bitset<kPageSectors>;
  Page& page(std::uint64_t number);

  std::unordered_map<std::uint64_t, Page> pages_;
  std::uint64_t last_number_ = ~std::uint64_t{0};
  Page* last_ = nullptr;  // accesses come close together
};

}  // namespace cnnkernels::emulator
