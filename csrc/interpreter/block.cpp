#include "block.h"

#include <algorithm>

#include "cluster.h"

namespace cnnkernels::interpreter {

constinit thread_local Thread* current = nullptr;
constinit thread_local Crash crash{};
constinit thread_local Fiber* signal_host = nullptr;

unsigned new_slot() {
  static unsigned slots = 0;
  if (slots == kMostSlots)
    throw std::length_error("too many types in thread_state and block_state: raise kMostSlots");
  return slots++;
}

Block::Block(Cluster& cluster)
    : cluster(cluster), threads_(new Thread[kMostThreads]), fibers_(new Fiber[kMostThreads]) {
  for (unsigned i = 0; i < kMostThreads; ++i) {
    Thread& t = threads_[i];
    t.view = this;
    t.block = this;
    t.fiber = &fibers_[i];
    t.linear = i;
    t.warp = i / kWarpSize;
    t.lane = i % kWarpSize;
    fibers_[i].colour = i % kWarpSize * 128;
  }
}

void Block::begin(const Work& work, uint3 at, unsigned rank, std::uint64_t seed) {
  grid_dim = work.grid;
  block_dim = work.block;
  index = at;
  cluster_rank = rank;
  cluster_size = work.cluster.x * work.cluster.y * work.cluster.z;
  threads = block_dim.x * block_dim.y * block_dim.z;
  warps_ = (threads + kWarpSize - 1) / kWarpSize;
  threads_alive_ = threads;
  work_ = &work;
  order = work.schedule.order;
  random.state = seed;
  random.next();
  deliveries.begin_block(work.schedule.delivery);
  shared.begin_block(work.shared_bytes, work.schedule.most_shared_bytes);
  std::fill(std::begin(barriers), std::end(barriers), Barrier{});
  for (GroupMeeting& m : group_meetings) m = {};
  for (unsigned w = 0; w < kMostWarps; ++w) {
    const unsigned lanes = w < warps_ ? std::min(threads - w * kWarpSize, kWarpSize) : 0;
    alive_[w] = lanes == kWarpSize ? ~0u : (1u << lanes) - 1;
    runnable_[w] = alive_[w];
    polling_[w] = 0;
    turn_lane_[w] = order == Order::reversed ? 0 : kWarpSize - 1;
    meetings[w].clear();
  }
  turn_warp_ = order == Order::reversed ? 0 : warps_ - 1;
  turns_in_warp_ = ~0u - 1;  // the first turn is the first (or last) warp's
#if defined(CNN_TSAN)
  race_threads_.next_block();
#endif
  uint3 place{0, 0, 0};
  for (unsigned i = 0; i < threads; ++i) {
    threads_[i].index = place;
    threads_[i].in_cluster_barrier = false;
    threads_[i].wait.kind = Wait::Kind::nothing;
    if (++place.x == block_dim.x) {
      place.x = 0;
      if (++place.y == block_dim.y) {
        place.y = 0;
        ++place.z;
      }
    }
    Fiber& fiber = fibers_[i];
    if (fiber.stack == nullptr) fiber.stack = stacks_.at(i);
    stacks_.renew(i);
    prepare(fiber, &Block::thread_main);
#if defined(CNN_TSAN)
    race_threads_.give(fiber, i, "block " + text(index) + " thread " + text(threads_[i].index));
#endif
  }
}

void Block::check_end() {
  deliveries.run_all();
  check_overrun({}, nullptr);
}

void Block::end([[maybe_unused]] bool failed) {
  const Unchecked unchecked;
  deliveries.begin_block(deliveries.policy());
  for (Slot& slot : slots) {
    if (slot.objects != nullptr) slot.destroy(slot.objects);
    slot = {};
  }
  shared.end_block();
  ++statistics.blocks;
#if defined(CNN_TSAN)
  if (failed) race_threads_.forget();
#endif
}

// What a fiber runs. Other fibers' locals are abandoned after a fault: kernels keep only trivially
// destructible ones.
void Block::thread_main() {
  Thread& self = *current;
  Block& block = *self.block;
  std::optional<KernelFault>& failure = block.cluster.failure;
  entered(*self.fiber);
  happens_after(block.work_);
  const auto guarded = [&](auto&& step) {
    try {
      step();
    } catch (const KernelFault& e) {
      failure = e;
    } catch (const std::exception& e) {
      failure.emplace(std::string("C++ exception in a kernel: ") + e.what(), nullptr, 0, block, &self);
    } catch (...) {
      failure.emplace("C++ exception in a kernel", nullptr, 0, block, &self);
    }
    current = &self;  // a fault in another thread's name leaves that one there
  };
  guarded([&] { (*block.work_->kernel)(); });
  Thread* next = nullptr;
  if (!failure) {
    guarded([&] {
      block.finish_thread(self);
      if (block.cluster.threads_alive() == 0) return;
      next = &block.next();
    });
  }
  Fiber* to = &block.cluster.host;
  if (next != nullptr) {
    current = next;
    to = next->fiber;
  }
  leave_fiber(*self.fiber, *to);
}

void Block::finish_thread(Thread& t) {
  happens_before(work_->kernel);  // the launch is over when all its threads are
  if (t.in_cluster_barrier) {
    throw KernelFault("the thread ended between cluster_arrive and cluster_wait", nullptr, 0, *this, &t);
  }
  const std::uint32_t bit = 1u << t.lane;
  alive_[t.warp] &= ~bit;
  --threads_alive_;
  sleep(t);
  for (const Meeting& m : meetings[t.warp]) {
    if ((m.mask & bit) == 0) continue;
    throw KernelFault(
        std::string(m.what) + ": lane " + std::to_string(t.lane) + " is in the mask and has exited",
        m.site.file_name(), m.site.line(), *this, &t);
  }
  for (Barrier& barrier : barriers) {
    if (barrier.expected == 0 && barrier.arrived != 0 && barrier.arrived == threads_alive_) {
      check_overrun(barrier.site, nullptr);
      release(barrier);
    }
  }
}

void Block::check_overrun(Site site, const Thread* thread) {
  if (const auto message = shared.overrun()) {
    throw KernelFault(*message + (site.line() != 0 ? ", before this barrier" : ""), site.file_name(),
                      site.line(), *this, thread);
  }
}

std::string Block::describe(const Crash& crash) const {
  if (stacks_.guards(current->linear, crash.address)) {
    return "stack overflow: the locals of a CUDA thread exceed " + std::to_string(kStackBytes / 1024) + " KB";
  }
  std::string message = interpreter::describe(crash);
  const Wait& wait = current->wait;
  if (wait.kind != Wait::Kind::nothing) message += "; the thread's last wait was at " + text(wait.site);
  return message;
}

void count(const char* name, std::uint64_t amount) {
  auto& counts = current->block->statistics.counts;
  for (auto& [known, total] : counts) {
    if (known == name) {
      total += amount;
      return;
    }
  }
  counts.emplace_back(name, amount);
}

}  // namespace cnnkernels::interpreter
