// mbarrier.*
#include "emulator/asynchronous/deliveries.h"
#include "emulator/asynchronous/families.h"
#include "emulator/asynchronous/mbarrier.h"
#include "emulator/memory/address.h"
#include "emulator/wrong_model.h"

namespace cnnkernels::emulator {
namespace {

enum Flags : std::uint32_t {
  kDrops = 1,
  kExpects = 2,
  kCounts = 4,
  kNoComplete = 8,
  kParity = 16,
  kState = 32,
  kRelaxed = 64
};

SharedPlace barrier_place(Warp& warp, const Instruction& instruction, int lane) {
  const std::uint64_t address = address_at(warp, instruction, lane);
  const SharedPlace place = shared_place(warp, lane, instruction.space, address, 8, 8);
  if (Races* races = warp.cluster->races.get();
      races != nullptr && place.block->mbarriers->at.contains(place.offset)) {
    races->expect_written(warp.cluster_index, place.block->rank, place.offset, 8, instruction.line);
    if (place.block != warp.block)
      races->touch_remotely(warp.cluster_index, place.block->rank, instruction.line);
  }
  return place;
}

SharedPlace own_barrier_place(Warp& warp, const Instruction& instruction, int lane) {
  const SharedPlace place = barrier_place(warp, instruction, lane);
  if (place.block != warp.block) fault_of_lane(lane, "the mbarrier is one of another block");
  return place;
}

std::uint32_t operand(Warp& warp, const Instruction& instruction, int lane) {
  return warp.lanes(instruction.source[1])[lane];
}

void note_write(Warp& warp, const SharedPlace& place, int line) {
  Races* races = warp.cluster->races.get();
  if (races != nullptr) races->write(warp.cluster_index, place.block->rank, place.offset, 8, line);
}

void execute_init(Warp& warp, const Instruction& instruction, Mask lanes) {
  for_each_lane(lanes, [&](int lane) {
    const SharedPlace place =
        shared_place(warp, lane, instruction.space, address_at(warp, instruction, lane), 8, 8);
    if (place.block != warp.block) fault_of_lane(lane, "mbarrier.init of another block's shared memory");
    note_write(warp, place, instruction.line);
    initialise(*place.block, place.offset, operand(warp, instruction, lane));
  });
}

void execute_inval(Warp& warp, const Instruction& instruction, Mask lanes) {
  for_each_lane(lanes, [&](int lane) {
    const SharedPlace place = own_barrier_place(warp, instruction, lane);
    invalidate(*place.block, place.offset);
    note_write(warp, place, instruction.line);
  });
}

void execute_expect(Warp& warp, const Instruction& instruction, Mask lanes) {
  for_each_lane(lanes, [&](int lane) {
    const SharedPlace place = barrier_place(warp, instruction, lane);
    expect_bytes(*place.block, place.offset, operand(warp, instruction, lane));
  });
}

void execute_complete(Warp& warp, const Instruction& instruction, Mask lanes) {
  for_each_lane(lanes, [&](int lane) {
    const SharedPlace place = barrier_place(warp, instruction, lane);
    complete_bytes(*place.block, place.offset, operand(warp, instruction, lane));
  });
}

void execute_arrive(Warp& warp, const Instruction& instruction, Mask lanes) {
  for_each_lane(lanes, [&](int lane) {
    const SharedPlace place = barrier_place(warp, instruction, lane);
    Mbarrier& barrier = mbarrier_at(*place.block, place.offset);
    const std::uint64_t before = state_word(barrier);
    const bool expects = (instruction.flags & kExpects) != 0;
    std::uint32_t count = (instruction.flags & kCounts) != 0 ? operand(warp, instruction, lane) : 1;
    if (expects && is_wrong(WrongModel::expect_never_arrives)) count = 0;
    if ((instruction.flags & kDrops) != 0) drop(*place.block, place.offset, count);
    if ((instruction.flags & kNoComplete) != 0 && count >= barrier.pending) {
      fault_of_lane(lane, "an arrival that says .noComplete completes the phase");
    }
    if (Races* races = warp.cluster->races.get()) {
      const bool relaxed = (instruction.flags & kRelaxed) != 0;
      relaxed ? races->release_relaxed(warp.cluster_index, barrier.gathering)
              : races->release(warp.cluster_index, barrier.gathering);
    }
    arrive(*place.block, place.offset, count, expects ? operand(warp, instruction, lane) : 0);
    if ((instruction.flags & kState) != 0) {
      warp.lanes<std::uint64_t>(instruction.destination)[lane] = before;
    }
  });
}

void execute_wait(Warp& warp, const Instruction& instruction, Mask lanes) {
  Mask complete = 0;
  Races* races = warp.cluster->races.get();
  for_each_lane(lanes, [&](int lane) {
    const SharedPlace place = own_barrier_place(warp, instruction, lane);
    const std::uint32_t parity = (instruction.flags & kParity) != 0
                                     ? operand(warp, instruction, lane)
                                     : phase_of(warp.lanes<std::uint64_t>(instruction.source[1])[lane]);
    const Mbarrier& barrier = mbarrier_at(*place.block, place.offset);
    if (!phase_complete(barrier, parity)) {
      if (warp.cluster->mode().late) deliver_for(*place.block, place.offset);
      return;
    }
    complete |= Mask{1} << lane;
    if (races == nullptr) return;
    races->acquire(warp.cluster_index, barrier.complete);
    races->waited(warp.cluster_index, barrier.agent, barrier.phase);
  });
  warp.set_predicate(instruction.destination, complete, lanes);
  if (complete != lanes) warp.outcome = Outcome::spins;
}

void execute_pending_count(Warp& warp, const Instruction& instruction, Mask lanes) {
  for_each_lane(lanes, [&](int lane) {
    const std::uint64_t state = warp.lanes<std::uint64_t>(instruction.source[1])[lane];
    warp.lanes(instruction.destination)[lane] = state & kMostArrivals;
  });
}

void decode_arrive(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const auto& operands = statement.operands;
  std::size_t next = 0;
  if (!operands[0].is(Operand::Kind::address)) {
    if (!operands[0].is(Operand::Kind::sink)) {
      instruction.destination = decoder.destination(statement, 0, Type::b64);
      instruction.flags |= kState;
    }
    next = 1;
  }
  decoder.address(statement, next++, instruction);
  if (statement.has("expect_tx")) instruction.flags |= kExpects;
  if (statement.has("relaxed")) instruction.flags |= kRelaxed;
  if (statement.has("noComplete")) instruction.flags |= kNoComplete;
  if (statement.word(1) == "arrive_drop") instruction.flags |= kDrops;
  if (operands.size() > next) {
    instruction.source[1] = decoder.source(statement, next, Type::b32);
    if (!statement.has("expect_tx")) instruction.flags |= kCounts;
  }
  instruction.execute = execute_arrive;
}

void decode_wait(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const bool parity = statement.has("parity");
  if (parity) instruction.flags |= kParity;
  instruction.destination = decoder.predicate_destination(statement, statement.operands[0]);
  decoder.address(statement, 1, instruction);
  instruction.source[1] = decoder.source(statement, 2, parity ? Type::b32 : Type::b64);
  instruction.control = Control::waits;
  instruction.execute = execute_wait;
}

}  // namespace

bool decode_mbarrier(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  if (statement.word(0) != "mbarrier") return false;
  const std::string_view verb = statement.word(1);
  instruction.space = statement.space();
  if (verb == "arrive" || verb == "arrive_drop") {
    decode_arrive(decoder, statement, instruction);
  } else if (verb == "test_wait" || verb == "try_wait") {
    decode_wait(decoder, statement, instruction);
  } else if (verb == "pending_count") {
    instruction.destination = decoder.destination(statement, 0, Type::b32);
    instruction.source[1] = decoder.source(statement, 1, Type::b64);
    instruction.execute = execute_pending_count;
  } else {
    decoder.address(statement, 0, instruction);
    if (verb != "inval") instruction.source[1] = decoder.source(statement, 1, Type::b32);
    if (verb == "init") {
      instruction.execute = execute_init;
    } else if (verb == "inval") {
      instruction.execute = execute_inval;
    } else if (verb == "expect_tx") {
      instruction.execute = execute_expect;
    } else if (verb == "complete_tx") {
      instruction.execute = execute_complete;
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace cnnkernels::emulator
