// One block at work on one OS thread: its CUDA threads, who of them may run, and what the others wait for.
// Blocks of a cluster share the OS thread (cluster.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "deliveries.h"
#include "fault.h"
#include "fiber.h"
#include "schedule.h"
#include "shared_memory.h"
#include "state.h"

namespace cnnkernels::interpreter {

struct Barrier {
  unsigned expected = 0;  // 0: all that are alive
  unsigned arrived = 0;
  unsigned generation = 0;
  unsigned votes = 0;        // of __syncthreads_count and its like
  unsigned results[2] = {};  // votes of the last two generations: nobody can be two behind
  Site site{};
  std::uint32_t waiting[kMostWarps] = {};
};

// Lanes of a warp that wait for each other.
struct Meeting {
  std::uint32_t mask = 0, arrived = 0;
  const char* what = "";
  Site site{};
};

// Threads of a warpgroup that wait for each other.
struct GroupMeeting {
  unsigned arrived = 0;
  const char* what = "";
  Site site{};
};

struct Statistics {
  std::uint64_t blocks = 0, switches = 0, barriers = 0, meetings = 0;
  std::vector<std::pair<const char*, std::uint64_t>> counts;  // those of count()
};

class Cluster;

struct Work {
  dim3 grid, block, cluster;
  std::size_t shared_bytes = 0;
  const FunctionRef<void()>* kernel = nullptr;
  Schedule schedule;
};

class Block : public BlockView {
 public:
  explicit Block(Cluster& cluster);

  // Makes it the block at `at` of the launch, with all its threads about to begin; `seed` is of what is
  // random in it.
  void begin(const Work& work, uint3 at, unsigned rank, std::uint64_t seed);
  // After its last thread: copies on their way arrive, red zones are looked at.
  void check_end();
  void end(bool failed);
  // The next thread that can run; null: none can.
  Thread* next_runnable() { return order == Order::random ? next_at_random() : next_in_order(); }
  Thread& next();

  // Called by the running CUDA thread, `self`. suspend(): it is marked as unable to run, others go on, it
  // returns when it was made runnable and its turn came. pass(): it stays runnable, but others may go first.
  void suspend(Thread& self);
  void pass(Thread& self);
  // In the random order, lets chance decide whether others go first.
  void maybe_preempt(Thread& self) {
    if (order == Order::random && (random.next() & 3) == 0) pass(self);
  }
  void wake(std::uint32_t warp, std::uint32_t lanes) { runnable_[warp] |= lanes; }
  void sleep(const Thread& t) { runnable_[t.warp] &= ~(1u << t.lane); }
  std::uint32_t alive(std::uint32_t warp) const { return alive_[warp]; }
  unsigned threads_alive() const { return threads_alive_; }
  Thread& thread(std::uint32_t warp, std::uint32_t lane) { return threads_[warp * kWarpSize + lane]; }
  void condition_wait(const FunctionRef<bool()>& ready, const FunctionRef<std::string()>& describe,
                      Site site);
  void release(Barrier& barrier);
  std::string waits() const;  // what the threads wait for, one line each kind
  Site first_wait() const;    // of the first thread that is alive
  std::string describe(const Crash& crash) const;
  void check_overrun(Site site, const Thread* thread);

  Cluster& cluster;
  Order order = Order::ordered;
  Random random;
  SharedMemory shared;
  Deliveries deliveries;
  Statistics statistics;
  Barrier barriers[kBarriers];
  std::vector<Meeting> meetings[kMostWarps];
  GroupMeeting group_meetings[kMostWarps / 4];
  void* brought[kMostThreads] = {};  // by each thread to the meeting it waits in

 private:
  static void thread_main();
  void finish_thread(Thread& t);
  Thread* next_in_order();
  Thread* next_at_random();
  Thread* runnable_in(std::uint32_t warp);
  Thread* poll(std::uint32_t warp);
  bool poll_one(Thread& t);

  std::uint32_t runnable_[kMostWarps] = {}, polling_[kMostWarps] = {}, alive_[kMostWarps] = {};
  unsigned warps_ = 0, threads_alive_ = 0;
  std::uint32_t turn_warp_ = 0;               // whose turn it is, or was last
  std::uint32_t turn_lane_[kMostWarps] = {};  // the same within each warp
  unsigned turns_in_warp_ = 0;
  const Work* work_ = nullptr;
  Stacks stacks_;
#if defined(CNN_TSAN)
  RaceThreads race_threads_;
#endif
  std::unique_ptr<Thread[]> threads_;
  std::unique_ptr<Fiber[]> fibers_;
};

// The crash of the CUDA thread that ran on this OS thread; its host looks here after every return.
extern constinit thread_local Crash crash;
// Where the signal handler continues: the host's stack of the block that runs here.
extern constinit thread_local Fiber* signal_host;

}  // namespace cnnkernels::interpreter
