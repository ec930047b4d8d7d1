// A launch: its clusters, spread over OS threads.
#include <algorithm>
#include <atomic>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>

#include "emulator/fault.h"
#include "emulator/machine/state.h"
#include "emulator/profile/profile.h"
#include "emulator/ptx/program.h"

namespace cnnkernels::emulator {

namespace {

constexpr std::uint32_t kMostShared = 227 * 1024;  // of Hopper; the others have less
constexpr std::uint64_t kMostBlocksOfCluster = 16;

const Kernel& kernel_named(const Program& program, const std::string& name) {
  const auto found = program.kernels.find(name);
  if (found == program.kernels.end()) fault("%s has no kernel %s", program.name.c_str(), name.c_str());
  return *found->second;
}

void check(const Kernel& kernel, const Launch& launch) {
  const char* name = kernel.entry.name.c_str();
  const auto check_extent = [&](const char* what, const Extent& extent) {
    if (extent.count() == 0) fault("%s: a %s of (%u,%u,%u)", name, what, extent.x, extent.y, extent.z);
  };
  check_extent("grid", launch.grid);
  check_extent("block", launch.block);
  check_extent("cluster", launch.cluster);
  const Extent &grid = launch.grid, &cluster = launch.cluster;
  if (grid.x % cluster.x || grid.y % cluster.y || grid.z % cluster.z ||
      cluster.count() > kMostBlocksOfCluster)
    fault("%s: a grid of (%u,%u,%u) in clusters of (%u,%u,%u)", name, grid.x, grid.y, grid.z, cluster.x,
          cluster.y, cluster.z);
  if (launch.block.count() > kernel.entry.most_threads)
    fault("%s: %llu threads a block, the kernel allows %u", name, (unsigned long long)launch.block.count(),
          kernel.entry.most_threads);
  const std::uint64_t shared =
      std::uint64_t{kernel.dynamic_shared} - SharedMemory::kStart + launch.shared_bytes;
  if (shared > kMostShared)
    fault("%s: %llu bytes of shared memory a block, there are %u", name, (unsigned long long)shared,
          kMostShared);
  const auto& parameters = kernel.entry.parameters;
  const std::size_t bytes = parameters.empty() ? 0 : parameters.back().offset + parameters.back().bytes;
  if (launch.parameters.size() < bytes)
    fault("%s: %zu bytes of parameters, the kernel reads %zu", name, launch.parameters.size(), bytes);
}

std::vector<Range> touchable(const Program& program, const Mode& mode) {
  std::vector<Range> ranges;
  if (mode.memory.empty()) return ranges;
  ranges = mode.memory;
  if (program.memory_bytes)
    ranges.push_back({reinterpret_cast<std::uintptr_t>(program.base), program.memory_bytes});
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  std::vector<Range> merged;
  for (const Range& range : ranges) {
    if (range.bytes == 0) continue;
    if (!merged.empty() && range.begin <= merged.back().begin + merged.back().bytes) {
      const std::uintptr_t end =
          std::max(merged.back().begin + merged.back().bytes, range.begin + range.bytes);
      merged.back().bytes = end - merged.back().begin;
    } else {
      merged.push_back(range);
    }
  }
  if (merged.empty()) merged.push_back({});  // not "anything", but nothing
  return merged;
}

// Clusters are taken in the mode's order: all of them, or those that are listed, in theirs. Of several faults
// that of the first one taken is thrown, as if there was one thread.
class Workers {
 public:
  Workers(const LaunchState& state, std::uint64_t clusters) : state_(state), clusters_(clusters) {
    if (state.mode.order != Order::random) return;
    listed_.resize(clusters);
    std::iota(listed_.begin(), listed_.end(), 0);
    Random random(state.mode.seed);
    for (std::size_t i = clusters; i > 1; --i)
      std::swap(listed_[i - 1], listed_[random.below(static_cast<std::uint32_t>(i))]);
  }
  Workers(const LaunchState& state, std::vector<std::uint64_t> chosen, Tally& tally)
      : state_(state), clusters_(chosen.size()), listed_(std::move(chosen)), tally_(&tally) {}

  Counts run() {
    const int wanted = state_.mode.threads;
    const unsigned cores = wanted > 0 ? wanted : std::max(1u, std::thread::hardware_concurrency());
    const auto threads = static_cast<unsigned>(std::min<std::uint64_t>(cores, clusters_));
    std::vector<std::thread> others;
    for (unsigned i = 1; i < threads; ++i) others.emplace_back([this] { work(); });
    work();
    for (std::thread& other : others) other.join();
    if (fault_) throw *fault_;
    return counts_;
  }

 private:
  std::uint64_t cluster_at(std::uint64_t turn) const {
    if (!listed_.empty()) return listed_[turn];
    return state_.mode.order == Order::reversed ? clusters_ - 1 - turn : turn;
  }

  void work() {
    Counts counts;
    for (std::uint64_t number; (number = next_.fetch_add(1)) < clusters_;) {
      try {
        Cluster cluster(state_, cluster_at(number));
        const Counts more = cluster.run();
        if (tally_) tally_->add(*cluster.meter);
        counts.warp_instructions += more.warp_instructions;
        counts.thread_instructions += more.thread_instructions;
      } catch (const Fault& fault) {
        next_ = clusters_;
        const std::lock_guard lock(mutex_);
        if (!fault_ || number < faulty_) fault_ = fault, faulty_ = number;
      }
    }
    const std::lock_guard lock(mutex_);
    counts_.warp_instructions += counts.warp_instructions;
    counts_.thread_instructions += counts.thread_instructions;
  }

  const LaunchState& state_;
  std::uint64_t clusters_;
  std::vector<std::uint64_t> listed_;  // empty: all, from the first or from the last
  Tally* tally_ = nullptr;
  std::atomic<std::uint64_t> next_{0};
  std::mutex mutex_;
  std::optional<Fault> fault_;
  std::uint64_t faulty_ = 0;
  Counts counts_;
};

LaunchState state_of(const Program& program, const Launch& launch, const Mode& mode, bool measures) {
  const Kernel& kernel = kernel_named(program, launch.entry);
  check(kernel, launch);
  const auto warps = static_cast<std::uint32_t>((launch.block.count() + kLanes - 1) / kLanes);
  return {kernel, launch, mode, measures, touchable(program, mode), warps};
}

std::uint64_t clusters_of(const Launch& launch) { return launch.grid.count() / launch.cluster.count(); }

}  // namespace

Counts run(const Program& program, const Launch& launch, const Mode& mode) {
  const LaunchState state = state_of(program, launch, mode, false);
  return Workers(state, clusters_of(launch)).run();
}

Profile profile(const Program& program, const Launch& launch, const Mode& mode, std::uint64_t blocks) {
  const LaunchState state = state_of(program, launch, mode, true);
  const std::uint64_t all = clusters_of(launch);
  Tally tally;
  const std::uint64_t of_cluster = launch.cluster.count();
  std::vector<std::uint64_t> chosen = sample(all, (blocks + of_cluster - 1) / of_cluster);
  const std::uint64_t sampled = chosen.size();
  Workers(state, std::move(chosen), tally).run();
  Profile profile = tally.profile(state.kernel, mode.memory);
  profile.clusters = all;
  profile.sampled = sampled;
  return profile;
}

}  // namespace cnnkernels::emulator
