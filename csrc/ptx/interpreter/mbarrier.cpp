#include "../mbarrier.cuh"

#include <string>
#include <unordered_map>

namespace cnnkernels::model {
namespace {

using interpreter::fault;

constexpr unsigned kMostArrivals = (1u << 20) - 1;
constexpr std::int64_t kMostBytes = (1 << 20) - 1;

// What a live barrier's memory holds, so that data written over it is noticed.
constexpr std::uint64_t kAlive = 0x6d62'6172'7269'6572;

struct State {
  std::uint32_t arrivals;  // that complete a phase
  std::uint32_t missing;   // arrivals of the current phase
  std::int64_t bytes = 0;  // of the current phase that are still to come; negative: that came before expected
  std::uint32_t phase = 0;
  bool seen = true;  // has a wait seen the phase before complete?
  bool fenced = false;
  unsigned initialised_by;
};

using States = std::unordered_map<Mbarrier*, State>;

unsigned this_thread() { return 32 * interpreter::warp_id() + interpreter::lane_id(); }

std::string name(Mbarrier* barrier) {
  return "the mbarrier at shared address " + std::to_string(interpreter::shared_address(barrier));
}

std::string describe(Mbarrier* barrier, const State& state) {
  return name(barrier) + " (phase " + std::to_string(state.phase) + ": " + std::to_string(state.missing) +
         " of " + std::to_string(state.arrivals) + " arrivals and " + std::to_string(state.bytes) +
         " bytes missing)";
}

// Of the block with this rank in the cluster.
State& find_in(unsigned rank, Mbarrier* barrier, const char* what, Site site) {
  auto& states = interpreter::block_state<States>(rank);
  const auto found = states.find(barrier);
  if (found == states.end()) {
    fault(site, std::string(what) + ": " + name(barrier) +
                    " is used before mbarrier_init (or before a barrier after it)");
  }
  if (barrier->state != kAlive)
    fault(site, std::string(what) + ": " + name(barrier) + " was overwritten with other data");
  return found->second;
}

State& find(Mbarrier* barrier, const char* what, Site site) {
  interpreter::check_shared(barrier, sizeof(Mbarrier), alignof(Mbarrier), what, site);
  return find_in(interpreter::cluster_rank(), barrier, what, site);
}

void complete_if_done(State& state) {
  if (state.missing != 0 || state.bytes != 0) return;
  ++state.phase;
  state.missing = state.arrivals;
  state.seen = false;
}

// All arrivals are in and more bytes came than they announced: nobody can make up for that.
void check_bytes(Mbarrier* barrier, const State& state, Site site) {
  if (state.missing == 0 && state.bytes < 0) {
    fault(site, "more bytes were copied than mbarrier_arrive_expect_bytes announced to " +
                    describe(barrier, state));
  }
}

void arrive(Mbarrier* barrier, State& state, Site site) {
  if (state.missing == 0) fault(site, "one arrival too many on " + describe(barrier, state));
  if (!state.seen) {
    fault(site,
          "an arrival on " + describe(barrier, state) + ", but no wait has seen the phase before complete");
  }
  interpreter::happens_before(barrier);
  --state.missing;
  check_bytes(barrier, state, site);
  complete_if_done(state);
}

bool over(const State& state, unsigned parity) { return (state.phase & 1) != parity; }

void see(State& state, unsigned parity) {
  if (state.phase > 0 && ((state.phase - 1) & 1) == parity) state.seen = true;
}

void check_parity(unsigned parity, Site site) {
  if (parity > 1) fault(site, "an mbarrier's parity is 0 or 1, not " + std::to_string(parity));
}

}  // namespace

void mbarrier_init(Mbarrier* barrier, unsigned arrivals, Site site) {
  interpreter::check_shared(barrier, sizeof(Mbarrier), alignof(Mbarrier), "mbarrier_init", site);
  if (arrivals < 1 || arrivals > kMostArrivals) {
    fault(site, "mbarrier_init: " + std::to_string(arrivals) + " arrivals are not in 1..2^20-1");
  }
  State state{.arrivals = arrivals, .missing = arrivals, .initialised_by = this_thread()};
  if (!interpreter::block_state<States>().emplace(barrier, state).second) {
    fault(site, "mbarrier_init: " + name(barrier) + " is alive already; call mbarrier_invalidate first");
  }
  barrier->state = kAlive;
}

void mbarrier_init_fence(Site) {
  for (auto& [barrier, state] : interpreter::block_state<States>()) {
    if (state.initialised_by == this_thread()) state.fenced = true;
  }
}

void mbarrier_invalidate(Mbarrier* barrier, Site site) {
  find(barrier, "mbarrier_invalidate", site);
  interpreter::block_state<States>().erase(barrier);
  interpreter::poison(barrier, sizeof(Mbarrier));
}

void mbarrier_arrive(Mbarrier* barrier, Site site) {
  arrive(barrier, find(barrier, "mbarrier_arrive", site), site);
}

void mbarrier_arrive_cluster(Mbarrier* barrier, unsigned rank, Site site) {
  const char* what = "mbarrier_arrive_cluster";
  interpreter::check_shared(barrier, sizeof(Mbarrier), alignof(Mbarrier), what, site);
  auto* there = static_cast<Mbarrier*>(interpreter::peer_pointer(barrier, rank, what, site));
  arrive(there, find_in(rank, there, what, site), site);
}

void mbarrier_expect_bytes(Mbarrier* barrier, unsigned bytes, Site site) {
  State& state = find(barrier, "mbarrier_expect_bytes", site);
  state.bytes += bytes;
  if (state.bytes > kMostBytes)
    fault(site, "more than 2^20 - 1 bytes are expected by " + describe(barrier, state));
}

void mbarrier_check(Mbarrier* barrier, const char* what, Site site) { find(barrier, what, site); }

std::uint32_t mbarrier_phase_for_copy(Mbarrier* barrier, unsigned rank, Site site) {
  const State& state = find_in(rank, barrier, "an asynchronous copy", site);
  if (!state.fenced) {
    fault(site, "no mbarrier_init_fence made " + name(barrier) + " visible to TMA after its mbarrier_init");
  }
  interpreter::happens_before(barrier);
  return state.phase;
}

void mbarrier_complete_bytes(Mbarrier* barrier, unsigned rank, unsigned bytes, std::uint32_t phase,
                             Site site) {
  State& state = find_in(rank, barrier, "an asynchronous copy", site);
  if (state.phase != phase) {
    fault(site, "the bytes of a copy of phase " + std::to_string(phase) + " came when that phase was over: " +
                    describe(barrier, state) + " was told to expect too few");
  }
  state.bytes -= bytes;
  check_bytes(barrier, state, site);
  complete_if_done(state);
}

bool mbarrier_test(Mbarrier* barrier, unsigned parity, Site site) {
  check_parity(parity, site);
  State& state = find(barrier, "mbarrier_test", site);
  if (!over(state, parity)) {
    interpreter::yield();  // a kernel may spin on it
    return false;
  }
  see(state, parity);
  interpreter::happens_after(barrier);
  return true;
}

void mbarrier_wait(Mbarrier* barrier, unsigned parity, Site site) {
  check_parity(parity, site);
  State& state = find(barrier, "mbarrier_wait", site);
  if (!over(state, parity)) {
    interpreter::wait_until(
        [&] { return over(state, parity); },
        [&] { return "parity " + std::to_string(parity) + " of " + describe(barrier, state); }, site);
  }
  see(state, parity);
  interpreter::happens_after(barrier);
}

}  // namespace cnnkernels::model
