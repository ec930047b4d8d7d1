#include "emulator/machine/barriers.h"

#include "emulator/machine/state.h"
#include "emulator/ptx/decoder.h"
#include "emulator/ptx/families.h"

namespace cnnkernels::emulator {

namespace {

enum class BarrierKind : std::uint8_t { sync, arrive, count, all, any };

constexpr int kBarriers = 16;

// Barriers count whole warps.
std::uint32_t threads_alive(const Block& block) {
  std::uint32_t threads = 0;
  for (const Warp& warp : block.warps) threads += warp.live ? kLanes : 0;
  return threads;
}

BarrierKind kind_of(const Instruction& instruction) { return static_cast<BarrierKind>(instruction.flags); }

void give_result(const NamedBarrier& barrier, const NamedBarrier::Waiter& waiter) {
  const Instruction& instruction = *waiter.instruction;
  Warp& warp = *waiter.warp;
  switch (kind_of(instruction)) {
    case BarrierKind::count:
      for_each_lane(waiter.lanes,
                    [&](int lane) { warp.lanes(instruction.destination)[lane] = barrier.votes; });
      break;
    case BarrierKind::all:
      warp.set_predicate(instruction.destination, barrier.all ? kAllLanes : 0, waiter.lanes);
      break;
    case BarrierKind::any:
      warp.set_predicate(instruction.destination, barrier.any ? kAllLanes : 0, waiter.lanes);
      break;
    default:
      break;
  }
}

void release(Block& block, NamedBarrier& barrier) {
  Races* races = block.cluster->races.get();
  for (const NamedBarrier::Waiter& waiter : barrier.waiters) {
    waiter.warp->blocked &= ~waiter.lanes;
    if (races) races->acquire(waiter.warp->cluster_index, barrier.clock);
    give_result(barrier, waiter);
  }
  barrier = NamedBarrier();
  ++block.cluster->events;
}

void release_if_complete(Block& block, NamedBarrier& barrier) {
  const std::uint32_t expected = barrier.expected ? barrier.expected : threads_alive(block);
  if (barrier.arrived >= expected) release(block, barrier);
}

// All live lanes of the warp have come to the barrier.
void arrive(Warp& warp, const Instruction& instruction, int id, Mask lanes) {
  Block& block = *warp.block;
  NamedBarrier& barrier = block.barriers[id];
  const int lane = __builtin_ctz(lanes);
  const std::uint32_t count = instruction.source[1] == kNone ? 0 : warp.lanes(instruction.source[1])[lane];
  if (count % kLanes) fault_of_lane(lane, "%u threads at barrier %d: no multiple of a warp", count, id);
  if (barrier.arrived && barrier.expected != count)
    fault_of_lane(lane, "barrier %d is for %u threads here and for %u where others wait", id, count,
                  barrier.expected);
  barrier.expected = count;
  barrier.arrived += kLanes;
  if (count && barrier.arrived > count)
    fault_of_lane(lane, "%u threads have come to barrier %d, which is for %u", barrier.arrived, id, count);
  if (kind_of(instruction) >= BarrierKind::count) {
    const Mask votes = warp.predicate_source(instruction, 2) & lanes;
    barrier.votes += __builtin_popcount(votes);
    barrier.all &= votes == lanes;
    barrier.any |= votes != 0;
  }
  if (Races* races = block.cluster->races.get()) races->release(warp.cluster_index, barrier.clock);
  release_if_complete(block, barrier);
}

void execute_barrier(Warp& warp, const Instruction& instruction, Mask lanes) {
  const int lane = __builtin_ctz(lanes);
  const std::uint32_t id = warp.lanes(instruction.source[0])[lane];
  for_each_lane(lanes, [&](int other) {
    if (warp.lanes(instruction.source[0])[other] != id)
      fault_of_lane(other, "lanes of a warp name different barriers");
  });
  if (id >= kBarriers) fault_of_lane(lane, "barrier %u of %d", id, kBarriers);
  warp.at_barrier[id] |= lanes;
  if (kind_of(instruction) != BarrierKind::arrive) {
    warp.blocked |= lanes;
    warp.block->barriers[id].waiters.push_back({&warp, lanes, &instruction});
  }
  if ((warp.at_barrier[id] & warp.live) != warp.live) return;
  const Mask all = warp.at_barrier[id];
  warp.at_barrier[id] = 0;
  arrive(warp, instruction, id, all & warp.live);
}

bool decode_block_barrier(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const std::size_t verb = statement.word(1) == "cta" ? 2 : 1;
  const std::string_view word = statement.word(verb);
  const auto& operands = statement.operands;
  std::size_t next = 0;
  instruction.execute = execute_barrier;
  instruction.control =
      statement.words[0] == "bar" || statement.has("aligned") ? Control::warp : Control::waits;
  BarrierKind kind = BarrierKind::sync;
  if (word == "arrive") {
    kind = BarrierKind::arrive;
  } else if (word == "red") {
    const std::string_view operation = statement.word(verb + 1);
    kind = operation == "popc"  ? BarrierKind::count
           : operation == "and" ? BarrierKind::all
                                : BarrierKind::any;
    if (operands.size() < 3) refuse(statement, "an operand is missing");
    instruction.destination = kind == BarrierKind::count
                                  ? decoder.destination(statement, next++, Type::u32)
                                  : decoder.predicate_destination(statement, operands[next++]);
    instruction.source[2] = decoder.predicate(statement, operands.back());
    instruction.negated = operands.back().negated << 2;
  } else if (word != "sync") {
    return false;
  }
  instruction.flags = static_cast<std::uint32_t>(kind);
  instruction.source[0] = decoder.source(statement, next++, Type::u32);
  const std::size_t last = operands.size() - (kind >= BarrierKind::count);
  if (next < last) instruction.source[1] = decoder.source(statement, next, Type::u32);
  return true;
}

void complete_cluster_barrier(Cluster& cluster) {
  for (const Block& block : cluster.blocks)
    for (const Warp& warp : block.warps)
      if (warp.live & ~warp.at_cluster_barrier) return;
  for (Block& block : cluster.blocks)
    for (Warp& warp : block.warps) warp.at_cluster_barrier = 0;
  cluster.completed = std::move(cluster.arrived);
  cluster.arrived = Clock();
  ++cluster.phase;
  ++cluster.events;
}

void arrive_at_cluster(Warp& warp, const Instruction& instruction, Mask lanes) {
  Cluster& cluster = *warp.cluster;
  if (const Mask twice = warp.at_cluster_barrier & lanes)
    fault_of_lane(__builtin_ctz(twice), "arrives at the cluster's barrier twice in one phase");
  warp.at_cluster_barrier |= lanes;
  for_each_lane(lanes, [&](int lane) { warp.cluster_phase[lane] = cluster.phase + 1; });
  if (cluster.races && instruction.flags) cluster.races->release_relaxed(warp.cluster_index, cluster.arrived);
  if (cluster.races && !instruction.flags) cluster.races->release(warp.cluster_index, cluster.arrived);
  complete_cluster_barrier(cluster);
}

void wait_for_cluster(Warp& warp, const Instruction&, Mask lanes) {
  Cluster& cluster = *warp.cluster;
  for_each_lane(lanes, [&](int lane) {
    if (warp.cluster_phase[lane] > cluster.phase) warp.outcome = Outcome::again;
  });
  if (warp.outcome == Outcome::done && cluster.races)
    cluster.races->acquire(warp.cluster_index, cluster.completed);
}

void execute_warp_barrier(Warp& warp, const Instruction&, Mask) {
  if (Races* races = warp.cluster->races.get()) races->meet(warp.cluster_index);
}

}  // namespace

void look_at_barriers(Warp& warp) {
  Block& block = *warp.block;
  for (Mask& lanes : warp.at_barrier) lanes &= warp.live;
  for (NamedBarrier& barrier : block.barriers)
    if (!barrier.waiters.empty()) release_if_complete(block, barrier);
  bool waiting = false;
  for (const Block& other : warp.cluster->blocks)
    for (const Warp& each : other.warps) waiting |= (each.live & each.at_cluster_barrier) != 0;
  if (waiting) complete_cluster_barrier(*warp.cluster);
}

bool decode_barrier(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  if (statement.words[0] != "bar" && statement.words[0] != "barrier") return false;
  if (statement.word(1) == "warp") {
    instruction.control = Control::members;
    instruction.members = decoder.source(statement, 0, Type::u32);
    instruction.execute = execute_warp_barrier;
    return true;
  }
  if (statement.word(1) != "cluster") return decode_block_barrier(decoder, statement, instruction);
  instruction.control = statement.has("aligned") ? Control::warp : Control::waits;
  instruction.flags = statement.has("relaxed");
  instruction.execute = statement.word(2) == "arrive" ? arrive_at_cluster : wait_for_cluster;
  return statement.word(2) == "arrive" || statement.word(2) == "wait";
}

}  // namespace cnnkernels::emulator
