#include "cluster.h"

#include <string>
#include <utility>

namespace cnnkernels::interpreter {
namespace {

// After so many turns of one block another one is looked at, so that a block that spins cannot starve the
// rest.
constexpr unsigned kTurnsOfBlock = 1 << 16;

}  // namespace

void Cluster::begin(const Work& work, std::uint64_t linear) {
  const dim3 grid = work.grid, extent = work.cluster;
  const std::uint64_t across = grid.x / extent.x, down = grid.y / extent.y;
  const uint3 first{static_cast<unsigned>(linear % across) * extent.x,
                    static_cast<unsigned>(linear / across % down) * extent.y,
                    static_cast<unsigned>(linear / across / down) * extent.z};
  size_ = extent.x * extent.y * extent.z;
  while (blocks_.size() < size_) blocks_.push_back(std::make_unique<Block>(*this));
  turns_ = 0;
  arrived_ = 0;
  phase_ = 0;
  for (unsigned rank = 0; rank < size_; ++rank) {
    const uint3 at{first.x + rank % extent.x, first.y + rank / extent.x % extent.y,
                   first.z + rank / extent.x / extent.y};
    const std::uint64_t seed = work.schedule.seed * 0x9e3779b97f4a7c15u + linear * size_ + rank;
    blocks_[rank]->begin(work, at, rank, seed);
  }
}

std::optional<KernelFault> Cluster::run(const Work& work, std::uint64_t linear) {
  failure.reset();
  try {
    begin(work, linear);
    adopt(host);
    current = &block(work.schedule.order == Order::reversed ? size_ - 1 : 0).next();
    signal_host = &host;
    switch_fiber(host, *current->fiber);
    signal_host = nullptr;
    if (crash.signal != 0) {
      arrived_from_signal(host);
      failure.emplace(current->block->describe(crash), nullptr, 0, *current->view, current);
      crash = {};
    }
    for (unsigned rank = 0; rank < size_ && !failure; ++rank) block(rank).check_end();
  } catch (const KernelFault& e) {
    failure = e;
  }
  current = nullptr;
  for (unsigned rank = 0; rank < size_; ++rank) block(rank).end(failure.has_value());
  return std::exchange(failure, std::nullopt);
}

std::vector<Statistics> Cluster::take_statistics() {
  std::vector<Statistics> all;
  for (const auto& block : blocks_) all.push_back(std::exchange(block->statistics, {}));
  return all;
}

unsigned Cluster::threads_alive() const {
  unsigned alive = 0;
  for (unsigned rank = 0; rank < size_; ++rank) alive += blocks_[rank]->threads_alive();
  return alive;
}

Thread* Cluster::next_runnable(Block& now) {
  unsigned rank = now.cluster_rank;
  if (now.order == Order::random) {
    if ((now.random.next() & 7) == 0) rank = now.random.below(size_);
  } else if (++turns_ == kTurnsOfBlock) {
    ++rank;
  }
  for (unsigned i = 0; i < size_; ++i) {
    Block& one = block((rank + i) % size_);
    if (Thread* t = one.next_runnable()) {
      if (&one != &now) turns_ = 0;
      return t;
    }
  }
  return nullptr;
}

bool Cluster::deliver_one(Block& now) {
  for (unsigned i = 0; i < size_; ++i) {
    Deliveries& deliveries = block((now.cluster_rank + i) % size_).deliveries;
    if (deliveries.empty()) continue;
    if (deliveries.random()) {
      deliveries.run_random(now.random);
    } else {
      deliveries.run_one(0);
    }
    return true;
  }
  return false;
}

void Cluster::arrive(Thread& self, Site site) {
  warp_meet(self.block->alive(self.warp), nullptr, [](void* const*) {}, "cluster_arrive", site);
  if (self.in_cluster_barrier)
    fault(site, "cluster_arrive: the thread arrived before and has not called cluster_wait since");
  self.in_cluster_barrier = true;
  self.cluster_phase = phase_;
  happens_before(this);
  ++arrived_;
}

// Threads that have ended are not waited for: looked at anew whenever one waits.
bool Cluster::complete() {
  if (arrived_ == 0 || arrived_ < threads_alive()) return false;
  arrived_ = 0;
  ++phase_;
  return true;
}

void Cluster::wait(Thread& self, Site site) {
  if (!self.in_cluster_barrier) fault(site, "cluster_wait: the thread did not call cluster_arrive before");
  wait_until([&] { return phase_ > self.cluster_phase || complete(); }, "cluster_wait", site);
  self.in_cluster_barrier = false;
  happens_after(this);
}

// The words of api.h and state.h.

unsigned cluster_rank() { return current->view->cluster_rank; }
unsigned cluster_size() { return current->view->cluster_size; }
BlockView& block_view(unsigned rank) { return current->block->cluster.block(rank); }

void* peer_pointer(const void* shared, unsigned rank, const char* what, Site site) {
  Cluster& cluster = current->block->cluster;
  if (rank >= cluster.size()) {
    fault(site, std::string(what) + ": block " + std::to_string(rank) + " is not one of the cluster's " +
                    std::to_string(cluster.size()));
  }
  Block& peer = cluster.block(rank);
  if (peer.threads_alive() == 0) {
    fault(site, std::string(what) + ": block " + text(peer.index) + " of the cluster has ended");
  }
  return peer.shared.pointer_to(current->block->shared.address_of(shared));
}

void cluster_arrive(Site site) { current->block->cluster.arrive(*current, site); }
void cluster_wait(Site site) { current->block->cluster.wait(*current, site); }

}  // namespace cnnkernels::interpreter
