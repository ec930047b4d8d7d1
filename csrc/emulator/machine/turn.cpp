#include "emulator/machine/turn.h"

#include <algorithm>

#include "emulator/machine/barriers.h"
#include "emulator/machine/call.h"
#include "emulator/machine/hooks.h"
#include "emulator/machine/special_registers.h"
#include "emulator/machine/state.h"

namespace cnnkernels::emulator {

namespace {

constexpr std::uint32_t kNowhere = ~std::uint32_t{0};
constexpr std::uint32_t kLongestApart =
    2000;  // instructions of a group before others of its warp have their turn
constexpr std::size_t kDeepestCall = 64;

// kMeasures: the cluster's meter is told of all that is executed. Without, nothing of it is compiled.
template <bool kMeasures>
class Turn {
 public:
  Turn(Warp& warp, int quantum)
      : warp_(warp), code_(warp.cluster->state.kernel.code.data()), quantum_(quantum) {}

  bool run() {
    warp_.stalled = 0;
    while (count_ < quantum_ && !yields_) {
      const Mask ready = warp_.live & ~warp_.blocked & ~warp_.stalled;
      if (!ready) break;
      choose(ready);
      const int before = count_;
      run_group();
      // Who stalled before may go on now; who stalled in this group waits for others.
      if (count_ != before) warp_.stalled &= group_;
      if (!alone_ && (warp_.apart += count_ - before) > kLongestApart) {
        warp_.apart = 0;
        warp_.passed |= group_;
      }
    }
    warp_.executed += count_;
    return count_ > 0 && !yields_;
  }

 private:
  // The lanes to run: those at the lowest instruction. They stop where they may meet others.
  void choose(Mask ready) {
    if (!(ready & ~warp_.passed)) warp_.passed = 0;
    at_ = kNowhere;
    for_each_lane(ready & ~warp_.passed, [&](int lane) { at_ = std::min(at_, warp_.pc[lane]); });
    group_ = 0;
    for_each_lane(ready, [&](int lane) { group_ |= Mask{warp_.pc[lane] == at_} << lane; });
    warp_.passed &= ~group_;
    alone_ = group_ == warp_.live;
    meets_ = kNowhere;
    if (alone_) return;
    for_each_lane(warp_.live & ~group_, [&](int lane) {
      if (warp_.pc[lane] > at_) meets_ = std::min(meets_, warp_.pc[lane]);
    });
  }

  void save(Mask lanes, std::uint32_t at) {
    for_each_lane(lanes, [&](int lane) { warp_.pc[lane] = at; });
  }

  void run_group() {
    const int start = count_;
    while (true) {
      if (count_ >= quantum_ || (at_ >= meets_ && count_ > start)) return save(group_, at_);
      const Instruction& instruction = code_[at_];
      Mask lanes = group_;
      if (instruction.guard != kNone) {
        const Mask guard = warp_.predicate(instruction.guard);
        lanes &= instruction.guard_negated ? ~guard : guard;
      }
      ++count_;
      warp_.position = at_;
      if (!lanes) {
        if constexpr (kMeasures) meter().executed(warp_, at_, group_, lanes);
        ++at_;
        continue;
      }
      warp_.threads_executed += __builtin_popcount(lanes);
      if (instruction.control == Control::plain)
        measure(instruction, lanes), instruction.execute(warp_, instruction, lanes), ++at_;
      else if (instruction.control <= Control::warp ? !wait(instruction, lanes) : !jump(instruction, lanes))
        return;
    }
  }

  // Those that may have to wait. False where the group ends here.
  bool wait(const Instruction& instruction, Mask lanes) {
    if (instruction.control == Control::members) {
      const Mask members = warp_.lanes(instruction.members)[__builtin_ctz(lanes)];
      if (lanes & ~members)
        fault_of_lane(__builtin_ctz(lanes & ~members), "a lane that is not in the member mask %#x", members);
      if (members & warp_.live & ~lanes) return stall();
    } else if (instruction.control == Control::warp && lanes != warp_.live) {
      if (group_ == warp_.live)
        fault_of_lane(__builtin_ctz(warp_.live & ~lanes),
                      "only the lanes %#x of the warp execute it, by its guard", lanes);
      return stall();
    }
    warp_.outcome = Outcome::done;
    if constexpr (kMeasures)
      if (instruction.measure) instruction.measure(warp_, instruction, lanes);
    instruction.execute(warp_, instruction, lanes);
    if (warp_.outcome == Outcome::again) return stall();
    if constexpr (kMeasures) {
      if (warp_.outcome == Outcome::spins)
        meter().spun(warp_, at_, group_);
      else
        meter().executed(warp_, at_, group_, lanes);
    }
    if (warp_.outcome == Outcome::spins) {
      warp_.passed |= group_;
      yields_ = true;
      save(group_, at_ + 1);
      return false;
    }
    ++at_;
    if (!(warp_.blocked & group_)) return true;
    save(group_, at_);
    return false;
  }

  void measure(const Instruction& instruction, Mask lanes) {
    if constexpr (kMeasures) {
      meter().executed(warp_, at_, group_, lanes);
      if (instruction.measure) instruction.measure(warp_, instruction, lanes);
    }
  }

  Meter& meter() { return *warp_.cluster->meter; }

  bool stall() {
    save(group_, at_);
    warp_.stalled |= group_;
    --count_;
    return false;
  }

  bool jump(const Instruction& instruction, Mask lanes) {
    if constexpr (kMeasures) meter().executed(warp_, at_, group_, lanes);
    const Mask rest = group_ & ~lanes;
    switch (instruction.control) {
      case Control::branch:
        if (!rest && alone_) {
          at_ = instruction.target;
          return true;
        }
        save(lanes, instruction.target);
        break;
      case Control::indexed_branch:
        indexed_branch(instruction, lanes);
        break;
      case Control::call:
        call(instruction, lanes);
        break;
      case Control::function_return:
        function_return(lanes);
        break;
      default:
        end(lanes);
        break;
    }
    save(rest, at_ + 1);
    return false;
  }

  void indexed_branch(const Instruction& instruction, Mask lanes) {
    const auto& table = warp_.cluster->state.kernel.tables[instruction.target];
    for_each_lane(lanes, [&](int lane) {
      const std::uint32_t index = warp_.lanes(instruction.source[0])[lane];
      if (index >= table.size()) fault_of_lane(lane, "target %u of %zu", index, table.size());
      warp_.pc[lane] = table[index];
    });
  }

  void copy(const std::vector<Call::Copy>& copies, int lane) {
    std::byte* local = warp_.local(lane);
    for (const Call::Copy& copy : copies) std::memcpy(local + copy.to, local + copy.from, copy.bytes);
  }

  void call(const Instruction& instruction, Mask lanes) {
    const auto& call = static_cast<const Call&>(*instruction.details);
    for_each_lane(lanes, [&](int lane) {
      if (warp_.returns[lane].size() == kDeepestCall) fault_of_lane(lane, "%zu calls deep", kDeepestCall);
      copy(call.arguments, lane);
      warp_.returns[lane].push_back(at_);
      warp_.pc[lane] = instruction.target;
    });
  }

  void function_return(Mask lanes) {
    Mask ending = 0;
    for_each_lane(lanes, [&](int lane) {
      if (warp_.returns[lane].empty()) {
        ending |= Mask{1} << lane;
        return;
      }
      const std::uint32_t site = warp_.returns[lane].back();
      warp_.returns[lane].pop_back();
      copy(static_cast<const Call&>(*code_[site].details).results, lane);
      warp_.pc[lane] = site + 1;
    });
    if (ending) end(ending);
  }

  void end(Mask lanes) {
    finish_lanes(warp_, lanes);
    warp_.live &= ~lanes;
    ++warp_.cluster->events;
    look_at_barriers(warp_);
  }

  Warp& warp_;
  const Instruction* code_;
  int quantum_;
  int count_ = 0;        // instructions that did not stall
  bool yields_ = false;  // a group found that what it waits for is not there
  Mask group_ = 0;
  bool alone_ = false;  // the group is all that lives
  std::uint32_t at_ = 0;
  std::uint32_t meets_ = kNowhere;
};

}  // namespace

bool take_turn(Warp& warp, int quantum) {
  if (warp.cluster->state.kernel.reads_clock) set_clocks(warp);
  return warp.cluster->meter ? Turn<true>(warp, quantum).run() : Turn<false>(warp, quantum).run();
}

}  // namespace cnnkernels::emulator
