// Addresses from one space to another, and what only hints at how memory will be used.
#include <cstring>

#include "emulator/memory/address.h"
#include "emulator/ptx/decoder.h"
#include "emulator/ptx/families.h"
#include "emulator/wrong_model.h"

namespace cnnkernels::emulator {

namespace {

std::uint64_t window_of_space(const Statement& statement) {
  switch (statement.space()) {
    case Space::shared:
    case Space::cluster:
      return kSharedWindow;
    case Space::local:
      return kLocalWindow;
    case Space::param:
      return kParamWindow;
    case Space::global:
    case Space::constant:
      return 0;
    default:
      refuse(statement, "a state space is needed");
  }
}

// cvta of 4 and 8 bytes: flags say whether away from the generic space.
template <class Register>
void convert_address(Warp& warp, const Instruction& instruction, Mask lanes) {
  const auto window = static_cast<Register>(instruction.immediate);
  for_each_lane(lanes, [&](int lane) {
    const Register address = warp.lanes<Register>(instruction.source[0])[lane];
    warp.lanes<Register>(instruction.destination)[lane] =
        instruction.flags ? address - window : address + window;
  });
}

void is_in_space(Warp& warp, const Instruction& instruction, Mask lanes) {
  Mask inside = 0;
  for_each_lane(lanes, [&](int lane) {
    const std::uint64_t address = warp.lanes<std::uint64_t>(instruction.source[0])[lane];
    inside |= Mask{window_of(address) == static_cast<std::uint64_t>(instruction.immediate)} << lane;
  });
  warp.set_predicate(instruction.destination, inside, lanes);
}

// The same place in another block of the cluster.
template <class Register>
void map_address(Warp& warp, const Instruction& instruction, Mask lanes) {
  for_each_lane(lanes, [&](int lane) {
    const Register address = warp.lanes<Register>(instruction.source[0])[lane];
    const Register rank = is_wrong(WrongModel::mapa_is_identity)
                              ? static_cast<Register>(warp.block->rank)
                              : warp.lanes<std::uint32_t>(instruction.source[1])[lane];
    if (rank >= warp.cluster->blocks.size())
      fault_of_lane(lane, "block %u of the cluster, which has %zu", unsigned(rank),
                    warp.cluster->blocks.size());
    if (instruction.space == Space::generic && window_of(address) != kSharedWindow)
      fault_of_lane(lane, "generic address %#llx is not in shared memory", (unsigned long long)address);
    constexpr Register kRanks = Register{0xffffffffu} & ~Register{kOffsetMask};
    warp.lanes<Register>(instruction.destination)[lane] = (address & ~kRanks) | rank << kRankShift;
  });
}

template <class Register>
void rank_of_address(Warp& warp, const Instruction& instruction, Mask lanes) {
  for_each_lane(lanes, [&](int lane) {
    const auto address = static_cast<std::uint32_t>(warp.lanes<Register>(instruction.source[0])[lane]);
    warp.lanes<std::uint32_t>(instruction.destination)[lane] = address >> kRankShift;
  });
}

void nothing(Warp&, const Instruction&, Mask) {}

// A turn for others.
void let_others_go(Warp& warp, const Instruction&, Mask) { warp.outcome = Outcome::spins; }

bool decode_hint(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const std::string_view word = statement.words[0];
  instruction.execute = nothing;
  if (word == "nanosleep") {
    instruction.control = Control::waits;
    instruction.execute = let_others_go;
  } else if (word == "createpolicy") {  // a policy is a number that nobody looks at
    instruction.destination = decoder.destination(statement, 0, Type::b64);
    instruction.execute = [](Warp& warp, const Instruction& instruction, Mask lanes) {
      for_each_lane(lanes, [&](int lane) { warp.lanes<std::uint64_t>(instruction.destination)[lane] = 0; });
    };
  } else {
    return word == "prefetch" || word == "prefetchu" || word == "discard" || word == "applypriority" ||
           word == "griddepcontrol" || word == "pmevent";
  }
  return true;
}

}  // namespace

bool decode_address(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const std::string_view word = statement.words[0];
  if (word == "cvta") {
    const Type type = statement.type();
    instruction.immediate = static_cast<std::int64_t>(window_of_space(statement));
    instruction.flags = statement.has("to");
    instruction.destination = decoder.destination(statement, 0, type);
    instruction.source[0] = decoder.source(statement, 1, type);
    if (bytes_of(type) != 8) refuse(statement, "addresses of 8 bytes alone are known");
    instruction.execute = convert_address<std::uint64_t>;
    return true;
  }
  if (word == "isspacep") {
    instruction.immediate = static_cast<std::int64_t>(window_of_space(statement));
    instruction.destination = decoder.predicate_destination(statement, statement.operands.at(0));
    instruction.source[0] = decoder.source(statement, 1, Type::b64);
    instruction.execute = is_in_space;
    return true;
  }
  if (word == "mapa" || word == "getctarank") {
    const bool maps = word == "mapa";
    const Type type = statement.type();
    instruction.space = statement.space();
    instruction.destination = decoder.destination(statement, 0, maps ? type : Type::u32);
    instruction.source[0] = decoder.source(statement, 1, type);
    if (maps) instruction.source[1] = decoder.source(statement, 2, Type::u32);
    const bool wide = bytes_of(type) == 8;
    if (maps)
      instruction.execute = wide ? map_address<std::uint64_t> : map_address<std::uint32_t>;
    else
      instruction.execute = wide ? rank_of_address<std::uint64_t> : rank_of_address<std::uint32_t>;
    return true;
  }
  return decode_hint(decoder, statement, instruction);
}

}  // namespace cnnkernels::emulator
