#include "emulator/asynchronous/deliveries.h"

#include <cstring>
#include <utility>

#include "emulator/asynchronous/mbarrier.h"
#include "emulator/machine/hooks.h"

namespace cnnkernels::emulator {
namespace {

constexpr std::uint32_t kAllGroups = ~std::uint32_t{0};

void land_at(Cluster& cluster, std::size_t index) {
  auto& pending = cluster.deliveries->pending;
  const auto delivery = std::move(pending[index]);
  pending.erase(pending.begin() + static_cast<std::ptrdiff_t>(index));
  if (delivery.destination->ended()) {
    fault("a copy arrives in block %d of the cluster, which has ended", delivery.destination->rank);
  }
  delivery.land();
}

// The lanes' first arrivals at the mbarrier that follow cp.asyncs arrive, and so do those before them.
void arrive_after_copies(WarpCopies& own, const Block& block, std::uint32_t mbarrier) {
  Mask lanes = 0;
  for (const auto& copy : own.copies) {
    if (copy.bytes == 0 && copy.block == &block && copy.offset == mbarrier) lanes |= Mask{1} << copy.lane;
  }
  std::erase_if(own.copies, [&](const WarpCopies::Copy& copy) {
    const Mask lane = Mask{1} << copy.lane;
    if ((lanes & lane) == 0) return false;
    if (copy.bytes == 0 && copy.block == &block && copy.offset == mbarrier) lanes &= ~lane;
    land(copy);
    return true;
  });
}

}  // namespace

void deliver(Block& destination, Block& block, std::uint32_t mbarrier, std::function<void()> land) {
  ++block.cluster->events;
  if (!block.cluster->mode().late) return land();
  block.cluster->deliveries->pending.push_back({&destination, &block, mbarrier, std::move(land)});
}

void deliver_for(Block& block, std::uint32_t mbarrier) {
  Cluster& cluster = *block.cluster;
  std::vector<std::size_t> wanted;
  const auto& pending = cluster.deliveries->pending;
  for (std::size_t i = 0; i < pending.size(); ++i) {
    if (pending[i].block == &block && pending[i].mbarrier == mbarrier) wanted.push_back(i);
  }
  if (!wanted.empty()) {
    return land_at(cluster, wanted[cluster.random.below(static_cast<std::uint32_t>(wanted.size()))]);
  }
  for (Warp& warp : block.warps) arrive_after_copies(*warp.copies, block, mbarrier);
}

void start_bulk(Warp& warp, int lane, std::function<void()> read, std::function<void()> write) {
  ++warp.cluster->events;
  if (!warp.cluster->mode().late) {
    read();
    return write();
  }
  warp.copies->bulks.push_back(
      {lane, warp.copies->bulk_groups.open_group(lane), std::move(read), std::move(write)});
}

void land(const WarpCopies::Copy& copy) {
  if (copy.bytes == 0) return arrive(*copy.block, copy.offset, 1);
  std::byte* to = copy.block->shared.at(copy.offset);
  if (copy.read_bytes != 0) std::memcpy(to, copy.source, copy.read_bytes);
  std::memset(to + copy.read_bytes, 0, copy.bytes - copy.read_bytes);
  copy.block->shared.mark_written(copy.offset, copy.bytes);
}

void complete_copies(Warp& warp, int lane, std::uint32_t groups) {
  auto& copies = warp.copies->copies;
  std::erase_if(copies, [&](const WarpCopies::Copy& copy) {
    if (copy.lane != lane || copy.group >= groups) return false;
    land(copy);
    return true;
  });
}

void complete_bulks(Warp& warp, int lane, std::uint32_t groups, bool read_only) {
  auto& bulks = warp.copies->bulks;
  std::erase_if(bulks, [&](WarpCopies::Bulk& bulk) {
    if (bulk.lane != lane || bulk.group >= groups) return false;
    if (bulk.read) std::exchange(bulk.read, nullptr)();
    if (read_only) return false;
    bulk.write();
    return true;
  });
}

bool deliver_one(Cluster& cluster) {
  auto& pending = cluster.deliveries->pending;
  if (!pending.empty()) {
    land_at(cluster, cluster.random.below(static_cast<std::uint32_t>(pending.size())));
    return true;
  }
  for (Block& block : cluster.blocks) {
    for (Warp& warp : block.warps) {
      if (warp.copies->copies.empty()) continue;
      complete_copies(warp, warp.copies->copies.front().lane, kAllGroups);
      return true;
    }
  }
  return false;
}

void deliver_some(Cluster& cluster) {
  Random& random = cluster.random;
  const auto& pending = cluster.deliveries->pending;
  if (!pending.empty() && random.below(2))
    land_at(cluster, random.below(static_cast<std::uint32_t>(pending.size())));
  for (Block& block : cluster.blocks) {
    for (Warp& warp : block.warps) {
      const auto& copies = warp.copies->copies;
      if (!copies.empty() && random.below(4) == 0) {  // a lane's first group
        const auto& first = copies[random.below(static_cast<std::uint32_t>(copies.size()))];
        const auto its = std::find_if(copies.begin(), copies.end(),
                                      [&](const WarpCopies::Copy& copy) { return copy.lane == first.lane; });
        complete_copies(warp, its->lane, its->group + 1);
      }
      const auto& bulks = warp.copies->bulks;
      if (!bulks.empty() && random.below(4) == 0)
        complete_bulks(warp, bulks.front().lane, bulks.front().group + 1, random.below(2) != 0);
    }
  }
}

void finish_lanes(Warp& warp, Mask lanes) {
  for_each_lane(lanes, [&](int lane) {
    complete_copies(warp, lane, kAllGroups);
    for (const auto& bulk : warp.copies->bulks) {
      if (bulk.lane == lane && bulk.read) {
        fault_of_lane(lane,
                      "the thread ends before its bulk copies have read shared memory (wait_group.read)");
      }
    }
    complete_bulks(warp, lane, kAllGroups, false);
  });
  Races* races = warp.cluster->races.get();
  if (races == nullptr || lanes != warp.live) return;
  races->end_warp(warp.cluster_index, warp.block->rank);
  for (const Warp& other : warp.block->warps) {
    if (other.index != warp.index && other.live != 0) return;
  }
  races->end_block(warp.block->rank);
}

void finish_cluster(Cluster& cluster) {
  for (const auto& delivery : cluster.deliveries->pending) {
    fault("block %d of the cluster ended without having waited for a copy into its shared memory",
          delivery.destination->rank);
  }
  for (Block& block : cluster.blocks) {
    for (const auto& [offset, barrier] : block.mbarriers->at) {
      if (barrier.bytes == 0) continue;
      fault("at the end the mbarrier at %#x of block %d is %d bytes from what it was told to expect", offset,
            block.rank, barrier.bytes);
    }
  }
}

}  // namespace cnnkernels::emulator
