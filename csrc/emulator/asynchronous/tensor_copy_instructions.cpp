// cp.async.bulk.tensor, cp.reduce.async.bulk.tensor: boxes of a tensor by its map.
#include <algorithm>

#include "emulator/asynchronous/deliveries.h"
#include "emulator/asynchronous/families.h"
#include "emulator/asynchronous/map_memory.h"
#include "emulator/asynchronous/signalled.h"
#include "emulator/asynchronous/tensor_copy.h"

namespace cnnkernels::emulator {
namespace {

constexpr std::uint32_t kTileAlignment = 128;

struct TensorCopyDetails : Details {
  Decoder::Base shared, map, mbarrier;
  std::vector<Slot> coordinates, offsets;
  Slot multicast = kNone;
  bool im2col = false;
  Space space = Space::cluster;
  AtomicOperation operation = AtomicOperation::none;
};

const TensorCopyDetails& details_of(const Instruction& instruction) {
  return static_cast<const TensorCopyDetails&>(*instruction.details);
}

TensorMap map_at(Warp& warp, const TensorCopyDetails& details, int lane) {
  const std::uint64_t address = address_at(warp, details.map, lane);
  const TensorMap map = decode(map_bytes(warp, lane, Space::generic, address, Access::read));
  if (details.coordinates.size() != map.rank) {
    fault_of_lane(lane, "%zu coordinates in a tensor of %d dimensions", details.coordinates.size(), map.rank);
  }
  if (details.im2col != map.im2col) {
    fault_of_lane(lane, "the instruction is %s, its tensor map is not", details.im2col ? "im2col" : "tiled");
  }
  return map;
}

BoxStart start_of(Warp& warp, const TensorCopyDetails& details, int lane) {
  BoxStart start;
  for (std::size_t d = 0; d < details.coordinates.size(); ++d) {
    start.at[d] = warp.lanes<std::int32_t>(details.coordinates[d])[lane];
  }
  for (std::size_t d = 0; d < details.offsets.size(); ++d) {
    start.offsets[d] = warp.lanes<std::uint16_t>(details.offsets[d])[lane];
  }
  return start;
}

SharedPlace tile_at(Warp& warp, const TensorCopyDetails& details, int lane) {
  return shared_place(warp, lane, details.space, address_at(warp, details.shared, lane), 16, kTileAlignment);
}

// Rows that fill the swizzle's span leave a box as one range.
template <class Function>
void for_each_range_of(const TensorMap& map, std::uint32_t tile, std::uint32_t bytes, Function function) {
  if (map.swizzle_bytes == 0 || bytes % kTileAlignment == 0) return function(tile, bytes);
  for_each_chunk(map, tile, bytes, [&](std::uint32_t, std::uint32_t place) { function(place, 16); });
}

void load(Warp& warp, const TensorCopyDetails& details, int lane, int line) {
  const TensorMap map = map_at(warp, details, lane);
  const BoxStart start = start_of(warp, details, lane);
  const SharedPlace tile = tile_at(warp, details, lane);
  const std::uint32_t bytes = box_bytes(map);
  SignalledCopy copy{
      .to = tile,
      .bytes = bytes,
      .counted = counted_bytes(map, start),
      .mbarrier = shared_place(warp, lane, details.space, address_at(warp, details.mbarrier, lane), 8, 8),
      .lane = lane,
      .line = line,
      .for_each_range = [&](auto function) { for_each_range_of(map, tile.offset, bytes, function); },
      .land = [&warp, lane, map, start,
               tile](Block& block) { load_box(warp, lane, map, start, block, tile.offset); },
  };
  if (details.multicast != kNone) {
    copy.multicast = warp.lanes<std::uint16_t>(details.multicast)[lane];
    if (copy.multicast == 0) fault_of_lane(lane, "multicast to no block at all");
  }
  emulator::start(warp, copy);
}

void execute_load(Warp& warp, const Instruction& instruction, Mask lanes) {
  for_each_lane(lanes, [&](int lane) { load(warp, details_of(instruction), lane, instruction.line); });
}

void store(Warp& warp, const TensorCopyDetails& details, int lane, int line) {
  const TensorMap map = map_at(warp, details, lane);
  const BoxStart start = start_of(warp, details, lane);
  const SharedPlace tile = tile_at(warp, details, lane);
  const std::uint32_t bytes = box_bytes(map);
  if (tile.offset + bytes > tile.block->shared.end()) {
    fault_of_lane(lane, "a box of %u bytes at %#x goes beyond shared memory", bytes, tile.offset);
  }
  const std::uint32_t time = warp.copies->bulk_groups.start();
  if (Races* races = warp.cluster->races.get()) {
    const Races::Started started{warp.cluster_index, races->bulk_of(warp.cluster_index), time};
    for_each_range_of(map, tile.offset, bytes, [&](std::uint32_t at, std::uint32_t count) {
      races->read_later(started, Races::Proxy::asynchronous, tile.block->rank, at, count, line);
    });
  }
  auto box = std::make_shared<std::vector<std::byte>>();
  start_bulk(
      warp, lane, [map, tile, box] { *box = read_box(map, *tile.block, tile.offset); },
      [&warp, lane, map, start, box, operation = details.operation] {
        store_box(warp, lane, map, start, *box, operation);
      });
}

void execute_store(Warp& warp, const Instruction& instruction, Mask lanes) {
  for_each_lane(lanes, [&](int lane) { store(warp, details_of(instruction), lane, instruction.line); });
}

// A box's rows in global memory, and all of it in shared memory of each block that it goes to.
void measure_box(Warp& warp, const TensorCopyDetails& details, int lane, bool loads) {
  const TensorMap map = map_at(warp, details, lane);
  Meter& meter = *warp.cluster->meter;
  BoxRows rows(map, start_of(warp, details, lane));
  const std::uint64_t element = map.strides[0];
  std::uint64_t inside = 0;
  for (std::uint32_t i = 0; i < rows.count(); ++i) {
    const BoxRow row = rows.next();
    const std::uint64_t bytes = (row.last - row.first) * element;
    if (bytes == 0) continue;
    inside += bytes;
    loads ? meter.bulk_read(warp, row.address, bytes) : meter.bulk_written(warp, row.address, bytes);
  }
  const std::uint64_t all = box_bytes(map);
  if (loads) meter.bulk_filled(warp, all - inside);
  const int blocks =
      details.multicast == kNone ? 1 : __builtin_popcount(warp.lanes<std::uint16_t>(details.multicast)[lane]);
  meter.shared_stream(warp, all * static_cast<std::uint64_t>(blocks));
}

void measure_load(Warp& warp, const Instruction& instruction, Mask lanes) {
  for_each_lane(lanes, [&](int lane) { measure_box(warp, details_of(instruction), lane, true); });
}

void measure_store(Warp& warp, const Instruction& instruction, Mask lanes) {
  for_each_lane(lanes, [&](int lane) { measure_box(warp, details_of(instruction), lane, false); });
}

// [map, {coordinates}]
void decode_box(Decoder& decoder, const Statement& statement, const Operand& operand,
                TensorCopyDetails& details) {
  details.map = decoder.address(statement, operand);
  if (operand.elements.size() != 2) refuse(statement, "a tensor map and coordinates are expected");
  for (const Operand& coordinate : operand.elements[1].elements) {
    details.coordinates.push_back(decoder.source(statement, coordinate, Type::b32));
  }
}

void decode_load(Decoder& decoder, const Statement& statement, TensorCopyDetails& details) {
  details.im2col = statement.has("im2col");
  details.space = statement.has("shared::cluster") ? Space::cluster : Space::shared;
  details.shared = decoder.address(statement, statement.operands[0]);
  decode_box(decoder, statement, statement.operands[1], details);
  details.mbarrier = decoder.address(statement, statement.operands[2]);
  std::size_t next = 3;
  if (details.im2col) {
    for (const Operand& offset : statement.operands[next++].elements) {
      details.offsets.push_back(decoder.source(statement, offset, Type::b16));
    }
    if (details.offsets.size() + 2 != details.coordinates.size())
      refuse(statement, "offsets and coordinates");
  }
  if (statement.has("multicast::cluster")) details.multicast = decoder.source(statement, next++, Type::b16);
}

void decode_store(Decoder& decoder, const Statement& statement, TensorCopyDetails& details) {
  details.im2col = statement.has("im2col_no_offs");
  details.space = Space::shared;
  decode_box(decoder, statement, statement.operands[0], details);
  details.shared = decoder.address(statement, statement.operands[1]);
  if (!statement.starts("cp.reduce")) return;
  for (const std::string_view word : statement.words) {
    const AtomicOperation operation = atomic_operation_named(word);
    if (operation != AtomicOperation::none) details.operation = operation;
  }
  if (details.operation == AtomicOperation::none) refuse(statement, "the reduction is not known");
}

void execute_nothing(Warp&, const Instruction&, Mask) {}

}  // namespace

bool decode_tensor_copy(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  if (statement.starts("cp.async.bulk.prefetch")) {  // into L2, which there is none of
    instruction.execute = execute_nothing;
    return true;
  }
  if (!statement.starts("cp.async.bulk.tensor") && !statement.starts("cp.reduce.async.bulk.tensor"))
    return false;
  const bool beyond_hopper = std::ranges::any_of(statement.words, [](std::string_view word) {
    return word == "im2col::w" || word == "im2col::w::128" || word.starts_with("tile::") ||
           word.starts_with("cta_group");
  });
  if (beyond_hopper) refuse(statement, "this is not on Hopper");
  auto details = std::make_unique<TensorCopyDetails>();
  if (statement.has("bulk_group")) {
    decode_store(decoder, statement, *details);
    instruction.execute = execute_store;
    instruction.measure = measure_store;
  } else {
    decode_load(decoder, statement, *details);
    instruction.execute = execute_load;
    instruction.measure = measure_load;
  }
  instruction.details = &decoder.keep(std::move(details));
  return true;
}

}  // namespace cnnkernels::emulator
