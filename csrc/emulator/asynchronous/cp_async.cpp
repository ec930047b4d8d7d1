// cp.async: a thread's own copies of 4 to 16 bytes, which land when it waits for their group.
#include "emulator/asynchronous/deliveries.h"
#include "emulator/asynchronous/families.h"
#include "emulator/asynchronous/mbarrier.h"
#include "emulator/memory/address.h"

namespace cnnkernels::emulator {
namespace {

struct CopyDetails : Details {
  Decoder::Base source;
};
enum Flags : std::uint32_t { kReadsLess = 1, kIgnores = 2, kPending = 4, kPastL1 = 8 };

Races::Started started(Warp& warp) {
  return {warp.cluster_index, warp.cluster->races->copies_of(warp.cluster_index),
          warp.copies->copy_groups.started()};
}

void execute_copy(Warp& warp, const Instruction& instruction, Mask lanes) {
  const auto& details = static_cast<const CopyDetails&>(*instruction.details);
  const auto bytes = static_cast<std::uint32_t>(instruction.immediate);
  const Mask ignored = (instruction.flags & kIgnores) != 0 ? warp.predicate_source(instruction, 2) : 0;
  warp.copies->copy_groups.start();
  for_each_lane(lanes, [&](int lane) {
    const SharedPlace to =
        shared_place(warp, lane, Space::shared, address_at(warp, instruction, lane), bytes, bytes);
    WarpCopies::Copy copy{.lane = lane,
                          .group = warp.copies->copy_groups.open_group(lane),
                          .block = to.block,
                          .offset = to.offset,
                          .bytes = bytes,
                          .read_bytes = bytes};
    if ((instruction.flags & kReadsLess) != 0) copy.read_bytes = warp.lanes(instruction.source[1])[lane];
    if ((ignored >> lane & 1) != 0) copy.read_bytes = 0;
    if (copy.read_bytes > bytes) fault_of_lane(lane, "cp.async of %u bytes reads %u", bytes, copy.read_bytes);
    const std::uint64_t from = address_at(warp, details.source, lane);
    if (from % bytes != 0) fault_of_lane(lane, "cp.async: the source is not aligned to its %u bytes", bytes);
    if (copy.read_bytes != 0) copy.source = global_place(warp, lane, from, copy.read_bytes);
    if (Races* races = warp.cluster->races.get()) {
      races->write_later(started(warp), to.block->rank, to.offset, bytes, instruction.line);
    }
    if (!warp.cluster->mode().late) return land(copy);
    to.block->shared.forget(to.offset, bytes);
    warp.copies->copies.push_back(copy);
  });
}

void measure(Warp& warp, const Instruction& instruction, Mask lanes) {
  const auto& details = static_cast<const CopyDetails&>(*instruction.details);
  const auto bytes = static_cast<std::uint32_t>(instruction.immediate);
  const Mask ignored = (instruction.flags & kIgnores) != 0 ? warp.predicate_source(instruction, 2) : 0;
  std::uint64_t from[kLanes]{}, to[kLanes]{};
  Mask reading = 0;
  for_each_lane(lanes, [&](int lane) {
    from[lane] = address_at(warp, details.source, lane);
    to[lane] = address_at(warp, instruction, lane);
    const bool reads = (instruction.flags & kReadsLess) == 0 || warp.lanes(instruction.source[1])[lane] != 0;
    reading |= Mask{reads} << lane;
  });
  const Way way = (instruction.flags & kPastL1) != 0 ? Way::l2 : Way::l1;
  warp.cluster->meter->global_read(warp, from, reading & ~ignored, bytes, way);
  warp.cluster->meter->shared_access(warp, to, lanes, bytes);
}

void execute_commit(Warp& warp, const Instruction&, Mask lanes) {
  for_each_lane(lanes, [&](int lane) { warp.copies->copy_groups.commit(lane); });
}

void execute_wait(Warp& warp, const Instruction& instruction, Mask lanes) {
  Groups& groups = warp.copies->copy_groups;
  for_each_lane(lanes, [&](int lane) {
    if (instruction.immediate < 0) groups.commit(lane);  // wait_all: of what was not committed, too
    const auto left = static_cast<std::uint32_t>(instruction.immediate < 0 ? 0 : instruction.immediate);
    const std::uint32_t complete = groups.waited(lane, left);
    complete_copies(warp, lane, complete);
    if (Races* races = warp.cluster->races.get()) {
      races->waited(warp.cluster_index, races->copies_of(warp.cluster_index), groups.stamp(complete));
    }
  });
}

void execute_arrive(Warp& warp, const Instruction& instruction, Mask lanes) {
  for_each_lane(lanes, [&](int lane) {
    const SharedPlace place =
        shared_place(warp, lane, instruction.space, address_at(warp, instruction, lane), 8, 8);
    Mbarrier& barrier = mbarrier_at(*place.block, place.offset);
    if ((instruction.flags & kPending) != 0) expect_arrival(*place.block, place.offset);
    if (Races* races = warp.cluster->races.get()) {
      races->release(warp.cluster_index, barrier.gathering);
      const Races::Started copies = started(warp);
      Races::know(barrier.gathering, copies.agent, copies.time);
    }
    const WarpCopies::Copy arrival{.lane = lane,
                                   .group = warp.copies->copy_groups.open_group(lane),
                                   .block = place.block,
                                   .offset = place.offset};
    if (!warp.cluster->mode().late) return land(arrival);
    warp.copies->copies.push_back(arrival);
  });
}

void decode_copy(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  auto details = std::make_unique<CopyDetails>();
  decoder.address(statement, 0, instruction);
  details->source = decoder.address(statement, statement.operands[1]);
  instruction.immediate = decoder.number(statement, 2);
  const std::size_t hint = statement.has("L2::cache_hint") ? 1 : 0;
  if (statement.operands.size() > 3 + hint) {
    const Operand& last = statement.operands[3];
    if (last.is(Operand::Kind::predicate)) {
      instruction.flags |= kIgnores;
      instruction.source[2] = decoder.predicate(statement, last);
      if (last.negated) instruction.negated |= 4;
    } else {
      instruction.flags |= kReadsLess;
      instruction.source[1] = decoder.source(statement, 3, Type::b32);
    }
  }
  instruction.details = &decoder.keep(std::move(details));
  instruction.execute = execute_copy;
  instruction.measure = measure;
  if (statement.has("cg")) instruction.flags |= kPastL1;
}

}  // namespace

bool decode_cp_async(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  if (statement.starts("cp.async.ca") || statement.starts("cp.async.cg")) {
    decode_copy(decoder, statement, instruction);
  } else if (statement.starts("cp.async.commit_group")) {
    instruction.execute = execute_commit;
  } else if (statement.starts("cp.async.wait_group")) {
    instruction.immediate = decoder.number(statement, 0);
    instruction.execute = execute_wait;
  } else if (statement.starts("cp.async.wait_all")) {
    instruction.immediate = -1;
    instruction.execute = execute_wait;
  } else if (statement.starts("cp.async.mbarrier.arrive")) {
    instruction.space = statement.space();
    if (!statement.has("noinc")) instruction.flags |= kPending;
    decoder.address(statement, 0, instruction);
    instruction.execute = execute_arrive;
  } else {
    return false;
  }
  return true;
}

}  // namespace cnnkernels::emulator
