// Whose turn it is. A CUDA thread runs until it has to wait; the next one is picked on its stack and switched
// to directly.
#include <bit>

#include "cluster.h"

namespace cnnkernels::interpreter {
namespace {

// After so many turns within one warp another one is looked at, so that a warp that spins cannot starve the
// rest.
constexpr unsigned kTurnsOfWarp = 4096;

}  // namespace

void Block::suspend(Thread& self) {
  Thread& to = next();
  if (&to == &self) return;
  current = &to;
  ++statistics.switches;
  switch_fiber(*self.fiber, *to.fiber);
}

void Block::pass(Thread& self) {
  turns_in_warp_ = kTurnsOfWarp;
  suspend(self);
}

Thread& Block::next() {
  if (!deliveries.empty() && deliveries.random() && (random.next() & 7) == 0) deliveries.run_random(random);
  for (;;) {
    if (Thread* t = cluster.size() == 1 ? next_runnable() : cluster.next_runnable(*this)) return *t;
    if (!cluster.deliver_one(*this)) cluster.deadlock();
  }
}

// The next lane of a warp in turn, if any can run.
Thread* Block::runnable_in(std::uint32_t warp) {
  const std::uint32_t lanes = runnable_[warp];
  if (lanes == 0) return nullptr;
  const std::uint32_t last = turn_lane_[warp];
  std::uint32_t lane;
  if (order == Order::reversed) {
    const std::uint32_t before = lanes & ((1u << last) - 1);
    lane = 31 - static_cast<std::uint32_t>(std::countl_zero(before != 0 ? before : lanes));
  } else {
    const std::uint32_t after = lanes & ~((2u << last) - 1);
    lane = static_cast<std::uint32_t>(std::countr_zero(after != 0 ? after : lanes));
  }
  turn_warp_ = warp;
  turn_lane_[warp] = lane;
  return &thread(warp, lane);
}

// A warp's lanes first: their stacks are in the cache.
Thread* Block::next_in_order() {
  if (++turns_in_warp_ < kTurnsOfWarp) {
    if (Thread* t = runnable_in(turn_warp_)) return t;
  }
  turns_in_warp_ = 0;
  std::uint32_t warp = turn_warp_;
  for (unsigned i = 0; i < warps_; ++i) {
    if (order == Order::reversed) {
      warp = (warp == 0 ? warps_ : warp) - 1;
    } else {
      warp = warp + 1 == warps_ ? 0 : warp + 1;
    }
    if (Thread* t = runnable_in(warp)) return t;
    if (polling_[warp] != 0) {
      if (Thread* t = poll(warp)) return t;
    }
  }
  return nullptr;
}

Thread* Block::next_at_random() {
  unsigned count = 0, polling = 0;
  for (unsigned w = 0; w < warps_; ++w) {
    count += static_cast<unsigned>(std::popcount(runnable_[w]));
    polling |= polling_[w];
  }
  if (polling != 0 && (count == 0 || (random.next() & 3) == 0)) {
    const unsigned first = random.below(warps_);
    for (unsigned i = 0; i < warps_; ++i) {
      const unsigned w = (first + i) % warps_;
      if (polling_[w] != 0) {
        if (Thread* t = poll(w)) return t;
      }
    }
  }
  if (count == 0) return nullptr;
  unsigned skip = random.below(count);
  for (unsigned w = 0;; ++w) {
    std::uint32_t lanes = runnable_[w];
    const auto here = static_cast<unsigned>(std::popcount(lanes));
    if (skip >= here) {
      skip -= here;
      continue;
    }
    for (; skip != 0; --skip) lanes &= lanes - 1;
    return &thread(w, static_cast<std::uint32_t>(std::countr_zero(lanes)));
  }
}

// Asks the conditions that lanes of a warp wait for; makes the first whose condition holds runnable.
Thread* Block::poll(std::uint32_t warp) {
  for (std::uint32_t lanes = polling_[warp]; lanes != 0; lanes &= lanes - 1) {
    Thread& t = thread(warp, static_cast<std::uint32_t>(std::countr_zero(lanes)));
    if (!poll_one(t)) continue;
    polling_[warp] &= ~(1u << t.lane);
    runnable_[warp] |= 1u << t.lane;
    turn_warp_ = warp;
    turn_lane_[warp] = t.lane;
    return &t;
  }
  return nullptr;
}

bool Block::poll_one(Thread& t) {
  Thread* const runs = current;
  current = &t;  // a fault is the waiting thread's
  const Unchecked unchecked;
  const bool ready = (*t.wait.ready)();
  current = runs;
  return ready;
}

void Block::condition_wait(const FunctionRef<bool()>& ready, const FunctionRef<std::string()>& describe,
                           Site site) {
  Thread& self = *current;
  self.wait = {Wait::Kind::condition, "", 0, site, &ready, &describe};
  maybe_preempt(self);
  if (poll_one(self)) return;
  sleep(self);
  polling_[self.warp] |= 1u << self.lane;
  suspend(self);
}

// The words of api.h.

void yield() { current->block->pass(*current); }
void wait_until(FunctionRef<bool()> ready, FunctionRef<std::string()> what, Site site) {
  current->block->condition_wait(ready, what, site);
}
bool random_order() { return current->block->order == Order::random; }
std::uint64_t random() { return current->block->random.next(); }

}  // namespace cnnkernels::interpreter
