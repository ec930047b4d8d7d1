#include "ldmatrix.h"

#include <algorithm>
#include <cstring>

namespace cnnkernels::model {
namespace {

constexpr int kRowBytes = 16, kRows = 8;

struct Move {
  unsigned char* row;
  std::uint32_t* registers;
  int count;
  bool transposed, store;
};

const Move& lane(void* const lanes[32], int i) { return *static_cast<const Move*>(lanes[i]); }

// Trips shared memory needs for eight rows: the most different rows in one group of banks. Lanes that name
// the same row share its trip.
int trips(void* const lanes[32], int matrix) {
  std::uintptr_t seen[kRows][kRows];
  int rows[kRows] = {};
  for (int r = 0; r < kRows; ++r) {
    const auto row = reinterpret_cast<std::uintptr_t>(lane(lanes, kRows * matrix + r).row);
    const int group = interpreter::shared_address(reinterpret_cast<const void*>(row)) / kRowBytes % kRows;
    if (std::find(seen[group], seen[group] + rows[group], row) == seen[group] + rows[group]) {
      seen[group][rows[group]++] = row;
    }
  }
  return *std::max_element(rows, rows + kRows);
}

void meet(void* const lanes[32]) {
  const Move& first = lane(lanes, 0);
  for (int m = 0; m < first.count; ++m) {
    interpreter::count("ldmatrix trips", trips(lanes, m));
    interpreter::count("ldmatrix trips needed", 1);
    for (int l = 0; l < 32; ++l) {
      const int g = l / 4, c = l % 4;
      std::uint32_t& word = lane(lanes, l).registers[m];
      for (int half = 0; half < 2; ++half) {
        const int row = first.transposed ? 2 * c + half : g, element = first.transposed ? g : 2 * c + half;
        unsigned char* at = lane(lanes, kRows * m + row).row + 2 * element;
        auto* part = reinterpret_cast<unsigned char*>(&word) + 2 * half;
        if (first.store)
          std::memcpy(at, part, 2);
        else
          std::memcpy(part, at, 2);
      }
    }
  }
}

void move(Move mine, const char* what, interpreter::Site site) {
  if (int(interpreter::lane_id()) < kRows * mine.count) {
    interpreter::check_shared(mine.row, kRowBytes, kRowBytes, what, site);
    if (mine.store)
      interpreter::touch_write(mine.row, kRowBytes);
    else
      interpreter::touch_read(mine.row, kRowBytes);
  }
  interpreter::warp_meet(0xffffffffu, &mine, [](void* const* lanes) { meet(lanes); }, what, site);
}

}  // namespace

void ldmatrix(std::uint32_t* to, int count, bool transposed, const void* row, interpreter::Site site) {
  move({static_cast<unsigned char*>(const_cast<void*>(row)), to, count, transposed, false}, "ldmatrix", site);
}

void stmatrix(void* row, const std::uint32_t* from, int count, bool transposed, interpreter::Site site) {
  move({static_cast<unsigned char*>(row), const_cast<std::uint32_t*>(from), count, transposed, true},
       "stmatrix", site);
}

}  // namespace cnnkernels::model
