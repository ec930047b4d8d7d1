// cp.async.bulk and cp.reduce.async.bulk of a run of bytes, and the groups of all bulk copies out of shared
// memory.
#include <cstring>

#include "emulator/asynchronous/deliveries.h"
#include "emulator/asynchronous/families.h"
#include "emulator/asynchronous/signalled.h"
#include "emulator/memory/address.h"
#include "emulator/memory/atomic.h"
#include "emulator/wrong_model.h"

namespace cnnkernels::emulator {
namespace {

struct BulkDetails : Details {
  Decoder::Base destination, source, mbarrier;
  Slot bytes = kNone, multicast = kNone;
  bool from_shared = false;
  Space space = Space::cluster;
  AtomicOperation operation = AtomicOperation::none;
};

const BulkDetails& details_of(const Instruction& instruction) {
  return static_cast<const BulkDetails&>(*instruction.details);
}

std::uint32_t bytes_of_copy(Warp& warp, const BulkDetails& details, int lane) {
  const std::uint32_t bytes = warp.lanes(details.bytes)[lane];
  if (bytes % 16 != 0 || bytes == 0) fault_of_lane(lane, "a bulk copy of %u bytes, no multiple of 16", bytes);
  return bytes;
}

void load(Warp& warp, const BulkDetails& details, int lane, int line) {
  const std::uint32_t bytes = bytes_of_copy(warp, details, lane);
  const std::uint64_t from = address_at(warp, details.source, lane);
  const SharedPlace to =
      shared_place(warp, lane, details.space, address_at(warp, details.destination, lane), bytes, 16);
  const SharedPlace mbarrier =
      shared_place(warp, lane, details.space, address_at(warp, details.mbarrier, lane), 8, 8);
  const std::byte* source;
  if (details.from_shared) {
    const SharedPlace place = shared_place(warp, lane, Space::shared, from, bytes, 16);
    source = place.bytes();
    if (Races* races = warp.cluster->races.get()) {
      const auto& barrier = mbarrier.block->mbarriers->at[mbarrier.offset];
      races->read_later({warp.cluster_index, barrier.agent, barrier.phase + 1}, Races::Proxy::asynchronous,
                        place.block->rank, place.offset, bytes, line);
    }
  } else {
    if (from % 16 != 0) fault_of_lane(lane, "the source of a bulk copy is not aligned to 16 bytes");
    source = global_place(warp, lane, from, bytes);
  }
  SignalledCopy copy{
      .to = to,
      .bytes = bytes,
      .counted = bytes,
      .mbarrier = mbarrier,
      .lane = lane,
      .line = line,
      .for_each_range = [&](auto function) { function(to.offset, bytes); },
      .land =
          [source, bytes, offset = to.offset](Block& block) {
            std::memcpy(block.shared.at(offset), source, bytes);
            block.shared.mark_written(offset, bytes);
          },
  };
  if (details.multicast != kNone) {
    copy.multicast = warp.lanes<std::uint16_t>(details.multicast)[lane];
    if (copy.multicast == 0) fault_of_lane(lane, "multicast to no block at all");
  }
  start(warp, copy);
}

void execute_load(Warp& warp, const Instruction& instruction, Mask lanes) {
  for_each_lane(lanes, [&](int lane) { load(warp, details_of(instruction), lane, instruction.line); });
}

void measure_load(Warp& warp, const Instruction& instruction, Mask lanes) {
  const BulkDetails& details = details_of(instruction);
  Meter& meter = *warp.cluster->meter;
  for_each_lane(lanes, [&](int lane) {
    const std::uint32_t bytes = warp.lanes(details.bytes)[lane];
    const std::uint32_t blocks = details.multicast == kNone
                                     ? 1
                                     : __builtin_popcount(warp.lanes<std::uint16_t>(details.multicast)[lane]);
    if (details.from_shared)
      meter.shared_stream(warp, bytes);
    else
      meter.bulk_read(warp, address_at(warp, details.source, lane), bytes);
    meter.shared_stream(warp, std::uint64_t{bytes} * blocks);
  });
}

void measure_store(Warp& warp, const Instruction& instruction, Mask lanes) {
  const BulkDetails& details = details_of(instruction);
  for_each_lane(lanes, [&](int lane) {
    const std::uint32_t bytes = warp.lanes(details.bytes)[lane];
    warp.cluster->meter->shared_stream(warp, bytes);
    warp.cluster->meter->bulk_written(warp, address_at(warp, details.destination, lane), bytes);
  });
}

void write_global(std::byte* to, const std::vector<std::byte>& from, AtomicOperation operation, Type type) {
  if (is_wrong(WrongModel::store_dropped)) return;
  if (operation == AtomicOperation::none) {
    std::memcpy(to, from.data(), from.size());
    return;
  }
  const std::size_t element = bytes_of(type);
  for (std::size_t at = 0; at < from.size(); at += element) {
    std::uint64_t value = 0;
    std::memcpy(&value, from.data() + at, element);
    atomic_on_memory(to + at, operation, type, value);
  }
}

void store(Warp& warp, const Instruction& instruction, int lane) {
  const BulkDetails& details = details_of(instruction);
  const std::uint32_t bytes = bytes_of_copy(warp, details, lane);
  const SharedPlace from =
      shared_place(warp, lane, Space::shared, address_at(warp, details.source, lane), bytes, 16);
  const std::uint64_t address = address_at(warp, details.destination, lane);
  if (address % 16 != 0) fault_of_lane(lane, "the destination of a bulk copy is not aligned to 16 bytes");
  std::byte* to = global_place(warp, lane, address, bytes);
  const std::uint32_t time = warp.copies->bulk_groups.start();
  if (Races* races = warp.cluster->races.get()) {
    races->read_later({warp.cluster_index, races->bulk_of(warp.cluster_index), time},
                      Races::Proxy::asynchronous, from.block->rank, from.offset, bytes, instruction.line);
  }
  auto data = std::make_shared<std::vector<std::byte>>();
  start_bulk(
      warp, lane, [data, from, bytes] { data->assign(from.bytes(), from.bytes() + bytes); },
      [data, to, operation = details.operation, type = instruction.type] {
        write_global(to, *data, operation, type);
      });
}

void execute_store(Warp& warp, const Instruction& instruction, Mask lanes) {
  for_each_lane(lanes, [&](int lane) { store(warp, instruction, lane); });
}

void execute_commit(Warp& warp, const Instruction&, Mask lanes) {
  for_each_lane(lanes, [&](int lane) { warp.copies->bulk_groups.commit(lane); });
}

enum Flags : std::uint32_t { kReadOnly = 1 };

void execute_wait(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Groups& groups = warp.copies->bulk_groups;
  for_each_lane(lanes, [&](int lane) {
    const std::uint32_t complete = groups.waited(lane, static_cast<std::uint32_t>(instruction.immediate));
    complete_bulks(warp, lane, complete, (instruction.flags & kReadOnly) != 0);
    if (Races* races = warp.cluster->races.get()) {
      races->waited(warp.cluster_index, races->bulk_of(warp.cluster_index), groups.stamp(complete));
    }
  });
}

void decode_operands(Decoder& decoder, const Statement& statement, BulkDetails& details) {
  details.destination = decoder.address(statement, statement.operands[0]);
  details.source = decoder.address(statement, statement.operands[1]);
  details.bytes = decoder.source(statement, 2, Type::b32);
}

}  // namespace

bool decode_bulk_copy(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  if (statement.starts("cp.async.bulk.commit_group")) {
    instruction.execute = execute_commit;
    return true;
  }
  if (statement.starts("cp.async.bulk.wait_group")) {
    instruction.immediate = decoder.number(statement, 0);
    if (statement.has("read")) instruction.flags |= kReadOnly;
    instruction.execute = execute_wait;
    return true;
  }
  const bool reduces = statement.starts("cp.reduce.async.bulk.");
  if (!statement.starts("cp.async.bulk.") && !reduces) return false;
  if (statement.has("cp_mask")) refuse(statement, "this is not on Hopper");
  auto details = std::make_unique<BulkDetails>();
  decode_operands(decoder, statement, *details);
  if (reduces) {
    if (!statement.has("bulk_group")) refuse(statement, "reductions into shared memory are not known");
    for (const std::string_view word : statement.words) {
      const AtomicOperation operation = atomic_operation_named(word);
      if (operation != AtomicOperation::none) details->operation = operation;
    }
    instruction.type = statement.type();
  }
  if (statement.has("bulk_group")) {
    instruction.execute = execute_store;
    instruction.measure = measure_store;
  } else {
    details->space = statement.has("shared::cluster") ? Space::cluster : Space::shared;
    details->from_shared = !statement.has("global");
    details->mbarrier = decoder.address(statement, statement.operands[3]);
    if (statement.has("multicast::cluster")) details->multicast = decoder.source(statement, 4, Type::b16);
    instruction.execute = execute_load;
    instruction.measure = measure_load;
  }
  instruction.details = &decoder.keep(std::move(details));
  return true;
}

}  // namespace cnnkernels::emulator
