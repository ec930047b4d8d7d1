#include "emulator/asynchronous/signalled.h"

#include "emulator/asynchronous/deliveries.h"
#include "emulator/asynchronous/mbarrier.h"
#include "emulator/wrong_model.h"

namespace cnnkernels::emulator {
namespace {

void start_one(Warp& warp, const SignalledCopy& copy, Block& block, Block& signalled) {
  const std::uint32_t offset = copy.mbarrier.offset;
  if (block.ended())
    fault_of_lane(copy.lane, "a copy to block %d of the cluster, which has ended", block.rank);
  const Mbarrier& barrier = mbarrier_at(signalled, offset);
  if (Races* races = warp.cluster->races.get()) {
    races->expect_written(warp.cluster_index, signalled.rank, offset, 8, copy.line);
    const Races::Started started{warp.cluster_index, barrier.agent, barrier.phase + 1};
    copy.for_each_range([&](std::uint32_t at, std::uint32_t bytes) {
      races->write_later(started, block.rank, at, bytes, copy.line);
    });
    if (&block != warp.block) races->touch_remotely(barrier.agent, barrier.phase + 1, block.rank, copy.line);
  }
  if (warp.cluster->mode().late) {
    copy.for_each_range([&](std::uint32_t at, std::uint32_t bytes) { block.shared.forget(at, bytes); });
  }
  deliver(block, signalled, offset,
          [land = copy.land, to = &block, by = &signalled, offset, counted = copy.counted] {
            land(*to);
            complete_bytes(*by, offset, counted);
          });
}

}  // namespace

void start(Warp& warp, const SignalledCopy& copy) {
  if (copy.to.offset + copy.bytes > copy.to.block->shared.end()) {
    fault_of_lane(copy.lane, "a copy of %u bytes to %#x goes beyond shared memory, which ends at %#x",
                  copy.bytes, copy.to.offset, copy.to.block->shared.end());
  }
  if (copy.multicast == 0) {
    if (copy.to.block != copy.mbarrier.block) {
      fault_of_lane(copy.lane, "a copy signals an mbarrier of another block than it writes to");
    }
    return start_one(warp, copy, *copy.to.block, *copy.mbarrier.block);
  }
  auto& blocks = warp.cluster->blocks;
  for (std::uint32_t rank = 0; rank < 16; ++rank) {
    if ((copy.multicast >> rank & 1) == 0) continue;
    if (rank >= blocks.size())
      fault_of_lane(copy.lane, "multicast to block %u of a cluster of %zu", rank, blocks.size());
    const bool to_issuer = is_wrong(WrongModel::multicast_signals_issuer);
    start_one(warp, copy, blocks[rank], to_issuer ? *warp.block : blocks[rank]);
    if (is_wrong(WrongModel::multicast_to_first_only)) break;
  }
}

}  // namespace cnnkernels::emulator
