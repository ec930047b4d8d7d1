// __syncthreads and its like, and the named barriers.
#include "barrier.h"

#include "block.h"

namespace cnnkernels::interpreter {
namespace {

unsigned needed(const Block& block, const Barrier& barrier) {
  return barrier.expected == 0 ? block.threads_alive() : barrier.expected;
}

// `wait`: does the calling thread wait for the others? `uniform`: must all arrive from one place in the
// source?
unsigned arrive(unsigned id, unsigned threads, const char* what, bool wait, bool uniform, bool vote,
                Site site) {
  Thread& self = *current;
  Block& block = *self.block;
  block.maybe_preempt(self);
  Barrier& barrier = block.barriers[id];
  if (barrier.arrived == 0) {
    barrier.expected = threads;
    barrier.site = site;
  } else if (barrier.expected != threads) {
    fault(site, std::string(what) + " of barrier " + std::to_string(id) + " for " + std::to_string(threads) +
                    " threads, but it was begun for " + std::to_string(barrier.expected) + " at " +
                    text(barrier.site));
  } else if (uniform && !same_place(barrier.site, site)) {
    fault(site, std::string("divergent barrier: this thread is in ") + what +
                    " here while others of its block wait at " + text(barrier.site));
  }
  if (const std::uint32_t lanes = barrier.waiting[self.warp]; lanes != 0 && !uniform) {
    const auto other = static_cast<std::uint32_t>(__builtin_ctz(lanes));
    if (const Site at = block.thread(self.warp, other).wait.site; !same_place(at, site)) {
      fault(site, std::string("divergent barrier: this thread is in ") + what +
                      " here while others of its warp wait at " + text(at));
    }
  }
  barrier.votes += vote;
  const unsigned parity = barrier.generation & 1u;
  happens_before(&barrier.results[parity]);
  if (++barrier.arrived > needed(block, barrier)) {
    fault(site, std::string(what) + ": more threads arrived at barrier " + std::to_string(id) + " than the " +
                    std::to_string(threads) + " it is for");
  }
  if (barrier.arrived == needed(block, barrier)) {
    if (id == 0) block.check_overrun(site, nullptr);
    block.release(barrier);
    if (block.order == Order::random) block.pass(self);
  } else if (wait) {
    barrier.waiting[self.warp] |= 1u << self.lane;
    self.wait = {Wait::Kind::barrier, what, id, site, nullptr, nullptr};
    block.sleep(self);
    block.suspend(self);
  }
  if (wait) happens_after(&barrier.results[parity]);
  return barrier.results[parity];
}

void check_named(unsigned id, unsigned threads, const char* what, Site site) {
  if (id >= kBarriers)
    fault(site, std::string(what) + ": barrier " + std::to_string(id) + " is not one of 0 to 15");
  if (threads % kWarpSize != 0) {
    fault(site, std::string(what) + ": the number of threads must be a multiple of 32, got " +
                    std::to_string(threads));
  }
}

}  // namespace

void Block::release(Barrier& barrier) {
  ++statistics.barriers;
  barrier.results[barrier.generation & 1u] = barrier.votes;
  ++barrier.generation;
  barrier.arrived = 0;
  barrier.votes = 0;
  for (unsigned w = 0; w * kWarpSize < threads; ++w) {
    wake(w, barrier.waiting[w]);
    barrier.waiting[w] = 0;
  }
}

void sync_threads(Site site) { arrive(0, 0, "__syncthreads", true, true, false, site); }
unsigned sync_threads_vote(bool predicate, const char* what, Site site) {
  return arrive(0, 0, what, true, true, predicate, site);
}

void bar_sync(unsigned id, unsigned threads, Site site) {
  check_named(id, threads, "bar_sync", site);
  arrive(id, threads, "bar_sync", true, false, false, site);
}

void bar_arrive(unsigned id, unsigned threads, Site site) {
  check_named(id, threads, "bar_arrive", site);
  if (threads == 0) fault(site, "bar_arrive needs the number of threads");
  arrive(id, threads, "bar_arrive", false, false, false, site);
}

}  // namespace cnnkernels::interpreter
