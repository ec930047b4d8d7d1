// Runs a grid: its blocks are handed out to a pool of OS threads, one block (or cluster) at a time each.
#include "launch.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "cluster.h"

namespace cnnkernels::interpreter {
namespace {

LaunchHooks hooks;
bool recording = false;
std::vector<Launched> recorded;

std::string joined(const char* problem, dim3 grid, dim3 block) {
  return std::string("launching a kernel: ") + problem + ", got grid " + text(grid) + " and block " +
         text(block);
}

void check_extents(dim3 grid, dim3 block, dim3 cluster, std::size_t shared_bytes,
                   std::size_t most_shared_bytes) {
  const std::uint64_t threads = std::uint64_t(block.x) * block.y * block.z;
  if (threads == 0 || threads > kMostThreads || block.z > 64) {
    throw std::runtime_error(
        joined("a block has 1 to 1024 threads, at most 64 of them along z", grid, block));
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    throw std::runtime_error(joined("a grid has 1 to 2147483647 x 65535 x 65535 blocks", grid, block));
  }
  constexpr std::uint64_t kMostOfCluster = 8;  // what every GPU that has clusters can run
  const std::uint64_t blocks = std::uint64_t(cluster.x) * cluster.y * cluster.z;
  if (blocks == 0 || blocks > kMostOfCluster) {
    throw std::runtime_error("launching a kernel: a cluster has 1 to 8 blocks, got " + text(cluster));
  }
  if (grid.x % cluster.x != 0 || grid.y % cluster.y != 0 || grid.z % cluster.z != 0) {
    throw std::runtime_error("launching a kernel: the grid " + text(grid) +
                             " is no multiple of the cluster " + text(cluster));
  }
  if (shared_bytes > most_shared_bytes) {
    throw std::runtime_error("launching a kernel: " + std::to_string(shared_bytes) +
                             " bytes of dynamic shared memory, " + std::to_string(most_shared_bytes) +
                             " are the most");
  }
}

// The order in which blocks (clusters, where there are some) are begun: a permutation that needs no memory.
class BlockOrder {
 public:
  BlockOrder(const Schedule& schedule, std::uint64_t blocks) : order_(schedule.order), blocks_(blocks) {
    if (order_ != Order::random) return;
    Random random{schedule.seed};
    first_ = random.next() % blocks;
    do {
      step_ = random.next() % blocks;
    } while (std::gcd(step_, blocks) != 1);
  }
  std::uint64_t at(std::uint64_t position) const {
    switch (order_) {
      case Order::ordered:
        return position;
      case Order::reversed:
        return blocks_ - 1 - position;
      case Order::random:
        break;
    }
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>((Wide(position) * step_ + first_) % blocks_);
  }

 private:
  Order order_;
  std::uint64_t blocks_, first_ = 0, step_ = 1;
};

// Clusters of blocks with their stacks and shared memory, kept between launches.
class ClusterPool {
 public:
  std::unique_ptr<Cluster> take() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        auto cluster = std::move(free_.back());
        free_.pop_back();
        return cluster;
      }
    }
    return std::make_unique<Cluster>();
  }
  void give(std::unique_ptr<Cluster> cluster) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(cluster));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Cluster>> free_;
};

class Totals {
 public:
  void add(const Statistics& s) {
    const std::lock_guard lock(mutex_);
    map_["blocks"] += s.blocks;
    map_["switches"] += s.switches;
    map_["barriers"] += s.barriers;
    map_["meetings"] += s.meetings;
    for (const auto& [name, amount] : s.counts) map_[name] += amount;
  }
  std::map<std::string, std::uint64_t> get() {
    const std::lock_guard lock(mutex_);
    return map_;
  }
  void reset() {
    const std::lock_guard lock(mutex_);
    map_.clear();
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::uint64_t> map_;
};

class Grid {
 public:
  Grid(const Work& work, std::uint64_t clusters)
      : work_(work), order_(work.schedule, clusters), end_(clusters) {}

  // Runs clusters until there are no more. Called by every OS thread that takes part; throws nothing.
  void take_part(ClusterPool& pool, Totals& totals) {
    std::uint64_t position = 0;
    try {
      catch_signals();
      std::unique_ptr<Cluster> cluster = pool.take();
      while ((position = next_.fetch_add(1, std::memory_order_relaxed)) <
             end_.load(std::memory_order_relaxed)) {
        if (auto failure = cluster->run(work_, order_.at(position)))
          fail(position, std::make_exception_ptr(*failure));
      }
      for (const Statistics& statistics : cluster->take_statistics()) totals.add(statistics);
      pool.give(std::move(cluster));
    } catch (...) {
      fail(position, std::current_exception());
    }
  }

  std::exception_ptr failure() const { return failure_; }

 private:
  // Those before the failed one have all been begun and will end: the first failure in order is the one
  // reported, whatever the number of OS threads.
  void fail(std::uint64_t position, std::exception_ptr failure) {
    const std::lock_guard lock(mutex_);
    if (failure_ && position > failed_at_) return;
    failure_ = std::move(failure);
    failed_at_ = position;
    end_.store(position, std::memory_order_relaxed);
  }

  const Work& work_;
  BlockOrder order_;
  std::atomic<std::uint64_t> next_ = 0, end_;
  std::mutex mutex_;
  std::exception_ptr failure_;
  std::uint64_t failed_at_ = 0;
};

// The OS threads that help. One launch at a time has them; a launch that finds them taken runs alone.
class Machine {
 public:
  void run(const Work& work, std::uint64_t clusters) {
    Grid grid(work, clusters);
    const bool helped =
        work.schedule.os_threads > 1 && clusters > 1 && call_helpers(grid, work.schedule.os_threads - 1);
    grid.take_part(pool_, totals);
    if (helped) dismiss_helpers();
    if (grid.failure()) std::rethrow_exception(grid.failure());
  }

  Totals totals;

 private:
  bool call_helpers(Grid& grid, unsigned count) {
    {
      const std::lock_guard lock(mutex_);
      if (grid_ != nullptr) return false;
      for (; helpers_ < count; ++helpers_) std::thread(&Machine::help, this).detach();
      grid_ = &grid;
      places_ = count;
    }
    called_.notify_all();
    return true;
  }

  void dismiss_helpers() {
    std::unique_lock lock(mutex_);
    places_ = 0;
    done_.wait(lock, [&] { return active_ == 0; });
    grid_ = nullptr;
  }

  void help() {
    std::unique_lock lock(mutex_);
    for (;;) {
      called_.wait(lock, [&] { return places_ != 0; });
      --places_;
      ++active_;
      Grid& grid = *grid_;
      lock.unlock();
      grid.take_part(pool_, totals);
      lock.lock();
      if (--active_ == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable called_, done_;
  Grid* grid_ = nullptr;
  unsigned helpers_ = 0, places_ = 0, active_ = 0;
  ClusterPool pool_;
};

// Never destroyed: helpers may be waiting in it when the process ends.
Machine* the_machine = nullptr;

Machine& machine() {
  static std::once_flag once;
  std::call_once(once, [] {
    the_machine = new Machine;
    // A forked child has no helpers, and what they were at is lost: it begins with a new machine.
    pthread_atfork(nullptr, nullptr, [] { the_machine = new Machine; });
  });
  return *the_machine;
}

}  // namespace

void run(dim3 grid, dim3 block, dim3 cluster, std::size_t shared_bytes, FunctionRef<void()> kernel) {
  const Work work{grid, block, cluster, shared_bytes, &kernel, schedule()};
  check_extents(grid, block, cluster, shared_bytes, work.schedule.most_shared_bytes);
  if (recording) return recorded.push_back({grid, block, cluster, shared_bytes});
  if (current != nullptr) fault({}, "a kernel launched a kernel");
  void* const token = hooks.before != nullptr ? hooks.before() : nullptr;
  struct After {
    void* token;
    ~After() {
      if (hooks.after != nullptr) hooks.after(token);
    }
  } after{token};
  happens_before(&work);
  machine().run(work, std::uint64_t(grid.x / cluster.x) * (grid.y / cluster.y) * (grid.z / cluster.z));
  happens_after(&kernel);
}

std::vector<Launched> set_recording(bool on) {
  recording = on;
  return std::exchange(recorded, {});
}
void set_launch_hooks(LaunchHooks replacement) { hooks = replacement; }
std::map<std::string, std::uint64_t> statistics() { return machine().totals.get(); }
void reset_statistics() { machine().totals.reset(); }

}  // namespace cnnkernels::interpreter
