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

// Trips shared memory needs for eight rows: the most different rows in one group of banks.
// Lanes that name the same row share its trip.
int trips(void* const lanes[32], int matrix) {
  const unsigned char* rows[kRows];
  unsigned groups = 0;
  for (int r = 0; r < kRows; ++r) {
    rows[r] = lane(lanes, kRows * matrix + r).row;
    groups |= 1u << interpreter::shared_address(rows[r]) / kRowBytes % kRows;
  }
  if (groups == (1u << kRows) - 1) return 1;
  std::sort(rows, rows + kRows);
  int taken[kRows] = {};
  for (auto row = rows, end = std::unique(rows, rows + kRows); row != end; ++row) {
    ++taken[interpreter::shared_address(*row) / kRowBytes % kRows];
  }
  return *std::max_element(taken, taken + kRows);
}

// Lane 4 * g + c holds words [g][c] of a matrix [8][4], or halves [2 * c][g] and [2
// * c + 1][g] of it as [8][8].
void load(void* const lanes[32], int m, bool transposed) {
  std::uint16_t halves[kRows][8];
  for (int r = 0; r < kRows; ++r) std::memcpy(halves[r], lane(lanes, kRows * m + r).row, kRowBytes);
  for (int l = 0; l < 32; ++l) {
    const int g = l / 4, c = l % 4;
    std::uint32_t& word = lane(lanes, l).registers[m];
    if (transposed)
      word = halves[2 * c][g] | std::uint32_t(halves[2 * c + 1][g]) << 16;
    else
      std::memcpy(&word, &halves[g][2 * c], 4);
  }
}

void store(void* const lanes[32], int m, bool transposed) {
  std::uint16_t halves[kRows][8];
  for (int l = 0; l < 32; ++l) {
    const int g = l / 4, c = l % 4;
    for (int half = 0; half < 2; ++half) {
      const auto value = static_cast<std::uint16_t>(lane(lanes, l).registers[m] >> 16 * half);
      (transposed ? halves[2 * c + half][g] : halves[g][2 * c + half]) = value;
    }
  }
  for (int r = 0; r < kRows; ++r) std::memcpy(lane(lanes, kRows * m + r).row, halves[r], kRowBytes);
}

void meet(void* const lanes[32]) {
  const Move& first = lane(lanes, 0);
  int taken = 0;
  for (int m = 0; m < first.count; ++m) {
    taken += trips(lanes, m);
    if (first.store)
      store(lanes, m, first.transposed);
    else
      load(lanes, m, first.transposed);
  }
  interpreter::count("ldmatrix trips", taken);
  interpreter::count("ldmatrix trips needed", first.count);
}

void move(Move& mine, const char* what, interpreter::Site site) {
  if (int(interpreter::lane_id()) < kRows * mine.count) {
    interpreter::check_shared(mine.row, kRowBytes, kRowBytes, what, site);
    if (mine.store) {
      interpreter::touch_write(mine.row, kRowBytes);
      interpreter::generic_write(mine.row, kRowBytes);
    } else {
      interpreter::touch_read(mine.row, kRowBytes);
    }
  }
  interpreter::warp_meet(0xffffffffu, &mine, [](void* const* lanes) { meet(lanes); }, what, site);
}

}  // namespace

void ldmatrix(std::uint32_t* to, int count, bool transposed, const void* row, interpreter::Site site) {
  Move mine{static_cast<unsigned char*>(const_cast<void*>(row)), to, count, transposed, false};
  move(mine, "ldmatrix", site);
}

void stmatrix(void* row, const std::uint32_t* from, int count, bool transposed, interpreter::Site site) {
  Move mine{static_cast<unsigned char*>(row), const_cast<std::uint32_t*>(from), count, transposed, true};
  move(mine, "stmatrix", site);
}

}  // namespace cnnkernels::model
