#include "../tma.cuh"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../../interpreter/deliveries.h"
#include "../swizzle.h"

namespace cnnkernels::model {
namespace {

using interpreter::fault;
using interpreter::Site;

constexpr int kChunk = 16;

std::string list(const int* values, int count) {
  std::string text = "{";
  for (int i = 0; i < count; ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + "}";
}

// The address of element {0, at[1], ..} of a tensor; nullptr where a coordinate lies outside.
template <class Box>
unsigned char* row_address(const Box& t, const std::int64_t* at) {
  auto* row = static_cast<unsigned char*>(const_cast<void*>(t.address));
  for (int i = 1; i < t.rank; ++i) {
    if (at[i] < 0 || at[i] >= t.size[i]) return nullptr;
    row += at[i] * t.stride[i];
  }
  return row;
}

// visit(row) for every row of the box, in the order they have in shared memory.
template <class Visit>
void each_row(const TileBox& t, const int* corner, Visit visit) {
  std::int64_t at[5];
  std::copy_n(corner, t.rank, at);
  while (true) {
    visit(row_address(t, at));
    int i = 1;
    for (; i < t.rank; ++i) {  // the next row: an odometer, dimension 1 fastest
      at[i] += t.step[i];
      if (at[i] < corner[i] + t.box[i]) break;
      at[i] = corner[i];
    }
    if (i >= t.rank) return;
  }
}

// Pixel after pixel: the place walks along W, H, (D,) N within the box of places;
// the tap is added when it is read.
template <class Visit>
void each_row(const Im2colBox& t, const int* start, const int* tap, Visit visit) {
  const int spatial = t.rank - 2;
  std::int64_t place[5], at[5];
  std::copy_n(start, t.rank, place);
  for (int pixel = 0; pixel < t.pixels; ++pixel) {
    std::copy_n(place, t.rank, at);
    for (int i = 0; i < spatial; ++i) at[1 + i] += tap[i];
    visit(row_address(t, at));
    int i = 0;
    for (; i < spatial; ++i) {
      place[1 + i] += t.step[1 + i];
      if (place[1 + i] <= t.size[1 + i] - 1 + t.upper[i]) break;
      place[1 + i] = t.lower[i];
    }
    if (i == spatial) ++place[t.rank - 1];
  }
}

// To nearest even. What the hardware makes of a NaN is not documented: it stays one.
void round_to_tf32(unsigned char* chunk) {
  for (int i = 0; i < kChunk; i += 4) {
    std::uint32_t bits;
    std::memcpy(&bits, chunk + i, 4);
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude < 0x7f800000u)
      bits += 0xfffu + (bits >> 13 & 1);
    else if (magnitude > 0x7f800000u)
      bits |= 0x00400000u;
    bits &= 0xffffe000u;
    std::memcpy(chunk + i, &bits, 4);
  }
}

// Where the shared side of a copy lies, chunk after chunk.
struct Tile {
  unsigned char* start;
  std::uint32_t address;
  Swizzle swizzle;

  unsigned char* chunk(int offset) const {
    return start + (std::int64_t(swizzled(address + offset, swizzle)) - address);
  }
};

// Elements of the chunk that begins at element `first` of a row which lie inside the tensor: [begin, end).
template <class Box>
std::pair<int, int> inside(const Box& t, std::int64_t first) {
  const int elements = kChunk / element_bytes(t.element);
  const auto begin = std::clamp<std::int64_t>(-first, 0, elements);
  const auto end = std::clamp<std::int64_t>(t.size[0] - first, begin, elements);
  return {int(begin), int(end)};
}

template <class Box>
void load_row(const Box& t, const Tile& tile, int offset, int row_elements, std::int64_t first,
              const unsigned char* row) {
  const int bytes = element_bytes(t.element);
  for (int done = 0; done < row_elements * bytes; done += kChunk, first += kChunk / bytes) {
    unsigned char chunk[kChunk] = {};
    const auto [begin, end] = inside(t, first);
    if (row != nullptr && begin < end) {
      std::memcpy(chunk + begin * bytes, row + (first + begin) * bytes, (end - begin) * bytes);
    }
    if (t.element == MapElement::tf32) round_to_tf32(chunk);
    std::memcpy(tile.chunk(offset + done), chunk, kChunk);
  }
}

void store_row(const TileBox& t, const unsigned char* values, std::int64_t first, unsigned char* row) {
  const int bytes = element_bytes(t.element);
  const auto begin = std::clamp<std::int64_t>(-first, 0, t.box[0]);
  const auto end = std::clamp<std::int64_t>(t.size[0] - first, begin, t.box[0]);
  if (row != nullptr)
    std::memcpy(row + (first + begin) * bytes, values + begin * bytes, (end - begin) * bytes);
}

Tile check_tile(const void* shared, int bytes, int row_bytes, Swizzle swizzle, const char* what, Site site) {
  // a swizzle moves chunks within 128 bytes: also those of a row shorter than its span
  const int reach = row_bytes % 128 == 0 || swizzle == Swizzle::none ? bytes : (bytes + 127) / 128 * 128;
  interpreter::check_shared(shared, reach, 128, what, site);
  return {static_cast<unsigned char*>(const_cast<void*>(shared)), interpreter::shared_address(shared),
          swizzle};
}

void poison_tile(const Tile& tile, int bytes) {
  for (int offset = 0; offset < bytes; offset += kChunk) interpreter::poison(tile.chunk(offset), kChunk);
}

// Rows land at once and together, when the policy says so; then their bytes count.
template <class Box, class EachRow>
void load(void* shared, const Box& box, int row_elements, int first, Mbarrier* full, unsigned blocks,
          EachRow each, Site site) {
  const int row_bytes = row_elements * element_bytes(box.element), bytes = copied_bytes(box);
  const Tile here = check_tile(shared, bytes, row_bytes, box.swizzle, "tma_load's tile", site);
  mbarrier_check(full, "an asynchronous copy", site);
  if (blocks == 0) fault(site, "tma_load: the mask names no block of the cluster");
  for (unsigned rank = 0; blocks >> rank != 0; ++rank) {
    if ((blocks >> rank & 1) == 0) continue;
    const auto there = [&](void* pointer) {
      return interpreter::peer_pointer(pointer, rank, "tma_load", site);
    };
    const Tile tile{static_cast<unsigned char*>(there(here.start)), here.address, here.swizzle};
    auto* barrier = static_cast<Mbarrier*>(there(full));
    interpreter::touch_write(tile.start, bytes);
    const std::uint32_t phase = mbarrier_phase_for_copy(barrier, rank, site);
    poison_tile(tile, bytes);
    interpreter::deliver_later([=] {
      if (interpreter::block_ended(rank))
        fault(site, "the block ended while a tma_load was on its way: nothing waited for it");
      int offset = 0;
      each([&](const unsigned char* row) {
        load_row(box, tile, offset, row_elements, first, row);
        offset += row_bytes;
      });
      mbarrier_complete_bytes(barrier, rank, bytes, phase, site);
    });
  }
}

void check_kind(const TensorMap& map, bool im2col, int rank, const char* what, Site site) {
  if (map.im2col != im2col) {
    fault(site,
          std::string(what) + ": the tensor map is one of " + (map.im2col ? "an im2col column" : "a box"));
  }
  const int has = im2col ? map.column.rank : map.tile.rank;
  if (has != rank) {
    fault(site, std::string(what) + ": " + std::to_string(rank) + " coordinates for a tensor map of rank " +
                    std::to_string(has));
  }
}

void check_place(const Im2colBox& t, const int* start, const int* tap, Site site) {
  const int most = t.rank == 3 ? 65535 : t.rank == 4 ? 255 : 31;
  for (int i = 0; i < t.rank - 2; ++i) {
    if (tap[i] < 0 || tap[i] > most) {
      fault(site, "tma_load: the tap " + list(tap, t.rank - 2) + " is not in 0.." + std::to_string(most));
    }
    const std::int64_t place = start[1 + i];
    if (place < t.lower[i] || place > t.size[1 + i] - 1 + t.upper[i] ||
        (place - t.lower[i]) % t.step[1 + i] != 0) {
      fault(site, "tma_load: the column's start " + list(start, t.rank) +
                      " is no place of a pixel: dimension " + std::to_string(1 + i) + " goes from " +
                      std::to_string(t.lower[i]) + " to " + std::to_string(t.size[1 + i] - 1 + t.upper[i]) +
                      " by " + std::to_string(t.step[1 + i]));
    }
  }
}

template <int N>
struct Coordinates {
  int at[N] = {};
  Coordinates(const int* from, int count) { std::copy_n(from, count, at); }
};

// A store under way: its tile has been read when `reads` is done, the tensor written when `writes` is.
struct Store {
  std::uint64_t reads = 0, writes = 0;
  std::vector<unsigned char> values;
};

// The stores of a CUDA thread: those of the open group, and one list a committed group.
struct BulkGroups {
  using Group = std::vector<std::shared_ptr<Store>>;
  Group open;
  std::vector<Group> committed;

  // Waits for all but the youngest `left` groups.
  void wait(std::size_t left, bool written) {
    for (std::size_t i = 0; i + left < committed.size(); ++i) {
      for (const auto& store : committed[i]) {
        interpreter::finish(store->reads);
        if (written) interpreter::finish(store->writes);
      }
    }
    if (written && committed.size() > left) committed.erase(committed.begin(), committed.end() - left);
  }
};

}  // namespace

void tma_load_tile(void* shared, const TensorMap& map, Mbarrier* full, unsigned blocks, const int* corner,
                   int rank, Site site) {
  check_kind(map, false, rank, "tma_load", site);
  const TileBox& box = map.tile;
  const Coordinates<5> from(corner, rank);
  load(
      shared, box, box.box[0], corner[0], full, blocks, [=](auto visit) { each_row(box, from.at, visit); },
      site);
}

void tma_load_im2col(void* shared, const TensorMap& map, Mbarrier* full, unsigned blocks, const int* start,
                     const int* tap, int rank, Site site) {
  check_kind(map, true, rank, "tma_load of a column", site);
  const Im2colBox& box = map.column;
  check_place(box, start, tap, site);
  const Coordinates<5> from(start, rank);
  const Coordinates<3> shift(tap, rank - 2);
  load(
      shared, box, box.channels, start[0], full, blocks,
      [=](auto visit) { each_row(box, from.at, shift.at, visit); }, site);
}

void tma_store_tile(const TensorMap& map, const void* shared, const int* corner, int rank, Site site) {
  check_kind(map, false, rank, "tma_store", site);
  const TileBox& box = map.tile;
  const int row_bytes = box.box[0] * element_bytes(box.element), bytes = copied_bytes(box);
  const Tile tile = check_tile(shared, bytes, row_bytes, box.swizzle, "tma_store's tile", site);
  interpreter::touch_read(shared, bytes);
  interpreter::check_fenced(shared, bytes, "tma_store", site);
  const Coordinates<5> to(corner, rank);
  const auto store = std::make_shared<Store>();
  interpreter::thread_state<BulkGroups>().open.push_back(store);
  const auto write = [=] {
    const unsigned char* values = store->values.data();
    each_row(box, to.at, [&](unsigned char* row) {
      store_row(box, values, to.at[0], row);
      values += row_bytes;
    });
  };
  store->reads = interpreter::deliver_later([=] {
    if (interpreter::thread_ended()) {
      fault(site,
            "the thread that made a tma_store ended before its tile was read: bulk_wait_read is missing");
    }
    store->values.resize(bytes);
    for (int offset = 0; offset < bytes; offset += kChunk) {
      std::memcpy(store->values.data() + offset, tile.chunk(offset), kChunk);
    }
    store->writes = interpreter::deliver_later(write);
  });
}

void bulk_commit(Site) {
  auto& groups = interpreter::thread_state<BulkGroups>();
  groups.committed.push_back(std::move(groups.open));
  groups.open.clear();
}

void bulk_wait(int groups_left, bool written, Site) {
  interpreter::thread_state<BulkGroups>().wait(groups_left, written);
}

}  // namespace cnnkernels::model
