// Warp-wide and warpgroup-wide operations: all that take part meet, the last to arrive does the work for all.
#include <algorithm>
#include <bit>

#include "block.h"
#include "shuffle.h"

namespace cnnkernels::interpreter {
namespace {

[[noreturn]] void fault_outside(std::uint32_t mask, const char* what, Site site) {
  fault(site, std::string(what) + ": the calling lane is not in its own mask " + hex_of_mask(mask));
}

[[noreturn]] void fault_exited(std::uint32_t mask, std::uint32_t gone, const char* what, Site site) {
  fault(site, std::string(what) + ": the mask " + hex_of_mask(mask) + " names lanes " + hex_of_mask(gone) +
                  " that have exited or do not exist");
}

// Both would wait for each other for ever.
[[noreturn]] void fault_divergent(std::uint32_t mask, const char* what, Site site, const Meeting& other) {
  fault(site, std::string(what) + " with mask " + hex_of_mask(mask) + ": lanes " +
                  hex_of_mask(other.arrived) + " of the mask are in another operation, " + other.what +
                  " with mask " + hex_of_mask(other.mask) + " at " + text(other.site));
}

}  // namespace

void warp_meet(unsigned mask, void* mine, FunctionRef<void(void* const lane_values[32])> body,
               const char* what, Site site) {
  Thread& self = *current;
  Block& block = *self.block;
  const std::uint32_t bit = 1u << self.lane;
  block.maybe_preempt(self);
  if ((mask & bit) == 0) fault_outside(mask, what, site);
  if (const std::uint32_t gone = mask & ~block.alive(self.warp); gone != 0)
    fault_exited(mask, gone, what, site);

  auto& open = block.meetings[self.warp];
  Meeting* meeting = nullptr;
  for (Meeting& m : open) {
    if (m.mask == mask && same_place(m.site, site)) {
      meeting = &m;
    } else if ((m.arrived & mask) != 0 && (m.mask & bit) != 0) {
      fault_divergent(mask, what, site, m);
    }
  }
  if (meeting == nullptr) meeting = &open.emplace_back(Meeting{mask, 0, what, site});
  meeting->arrived |= bit;
  void** const values = block.brought + self.warp * kWarpSize;
  values[self.lane] = mine;
  if (meeting->arrived != mask) {
    self.wait = {Wait::Kind::meeting, what, mask, site, nullptr, nullptr};
    block.sleep(self);
    block.suspend(self);
    return;
  }

  *meeting = open.back();
  open.pop_back();
  ++block.statistics.meetings;
  if (mask == ~0u) {
    const Unchecked unchecked;
    body(values);
  } else {
    void* some[kWarpSize];
    for (unsigned i = 0; i < kWarpSize; ++i) some[i] = (mask >> i & 1u) != 0 ? values[i] : nullptr;
    const Unchecked unchecked;
    body(some);
  }
  block.wake(self.warp, mask);
  if (block.order == Order::random) block.pass(self);
}

void sync_warp(unsigned mask, Site site) {
  // Unlike shuffles and votes it orders memory among those that take part.
  void* const* const place =
      current->block->brought + current->warp * kWarpSize + std::countr_zero(mask | 1u << 31);
  happens_before(place);
  warp_meet(mask, nullptr, [](void* const*) {}, "__syncwarp", site);
  happens_after(place);
}

void warpgroup_meet(void* mine, FunctionRef<void(void* const thread_values[128])> body, const char* what,
                    Site site) {
  constexpr unsigned kWarps = 4, kThreads = kWarps * kWarpSize;
  Thread& self = *current;
  Block& block = *self.block;
  block.maybe_preempt(self);
  const unsigned group = self.warp / kWarps;
  unsigned alive = 0;
  for (unsigned w = 0; w < kWarps; ++w) {
    alive += static_cast<unsigned>(std::popcount(block.alive(group * kWarps + w)));
  }
  if (alive != kThreads) {
    fault(site, std::string(what) + " needs all 128 threads of the warpgroup, " + std::to_string(alive) +
                    " are alive");
  }
  GroupMeeting& meeting = block.group_meetings[group];
  if (meeting.arrived == 0) {
    meeting = {0, what, site};
  } else if (!same_place(meeting.site, site)) {
    fault(site, std::string(what) + ": other threads of the warpgroup are in another operation, " +
                    meeting.what + " at " + text(meeting.site));
  }
  void** const values = block.brought + group * kThreads;
  values[self.linear % kThreads] = mine;
  if (++meeting.arrived != kThreads) {
    self.wait = {Wait::Kind::meeting, what, 0, site, nullptr, nullptr};
    block.sleep(self);
    block.suspend(self);
    return;
  }
  meeting.arrived = 0;
  ++block.statistics.meetings;
  {
    const Unchecked unchecked;
    body(values);
  }
  for (unsigned w = 0; w < kWarps; ++w) block.wake(group * kWarps + w, ~0u);
  if (block.order == Order::random) block.pass(self);
}

}  // namespace cnnkernels::interpreter
