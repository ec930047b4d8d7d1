// The blocks of a cluster at work, side by side on one OS thread; without clusters, a block alone.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "block.h"

namespace cnnkernels::interpreter {

class Cluster {
 public:
  // Runs cluster number `linear` of the launch on the calling OS thread. The fault, if there was one.
  std::optional<KernelFault> run(const Work& work, std::uint64_t linear);
  // What its blocks counted since the last call.
  std::vector<Statistics> take_statistics();

  unsigned size() const { return size_; }
  Block& block(unsigned rank) { return *blocks_[rank]; }
  unsigned threads_alive() const;

  // For the block whose turn it is or was: a thread of it or, now and then and where it has none, of another
  // one. Null: none of the cluster can run.
  Thread* next_runnable(Block& now);
  // Delivers a copy of some block, `now` first. False: there are none on their way.
  bool deliver_one(Block& now);
  [[noreturn]] void deadlock();

  // The barrier of all its threads.
  void arrive(Thread& self, Site site);
  void wait(Thread& self, Site site);

  std::optional<KernelFault> failure;
  Fiber host;  // the OS thread's own stack

 private:
  void begin(const Work& work, std::uint64_t linear);
  bool complete();

  std::vector<std::unique_ptr<Block>> blocks_;  // as many as a launch had at most
  unsigned size_ = 0;
  unsigned turns_ = 0;  // of one block at a stretch
  unsigned arrived_ = 0;
  std::uint64_t phase_ = 0;
};

}  // namespace cnnkernels::interpreter
