#include "emulator/machine/special_registers.h"

#include <string_view>

#include "emulator/fault.h"
#include "emulator/machine/state.h"
#include "emulator/memory/address.h"

namespace cnnkernels::emulator {

namespace {

constexpr std::uint32_t kSms = 132;

std::uint32_t axis(std::string_view name, std::uint32_t x, std::uint32_t y, std::uint32_t z) {
  switch (name.back()) {
    case 'x':
      return x;
    case 'y':
      return y;
    case 'z':
      return z;
    default:
      return 0;  // .w
  }
}

std::uint32_t axis(std::string_view name, const Extent& extent) {
  return axis(name, extent.x, extent.y, extent.z);
}

std::uint32_t value_of(const Warp& warp, int lane, std::string_view name) {
  const Launch& launch = warp.cluster->state.launch;
  const Block& block = *warp.block;
  const Extent &threads = launch.block, &cluster = launch.cluster, &grid = launch.grid;
  const std::string_view base = name.substr(0, name.find('.'));
  const std::uint32_t thread = warp.index * kLanes + lane;
  const Mask bit = Mask{1} << lane;
  if (base == "%tid")
    return axis(name, thread % threads.x, thread / threads.x % threads.y, thread / threads.x / threads.y);
  if (base == "%ntid") return axis(name, threads);
  if (base == "%ctaid") return axis(name, block.index[0], block.index[1], block.index[2]);
  if (base == "%nctaid") return axis(name, grid);
  if (base == "%laneid") return lane;
  if (base == "%warpid") return warp.index;
  if (base == "%nwarpid") return warp.cluster->state.warps_per_block;
  if (base == "%clusterid")
    return axis(name, warp.cluster->index[0], warp.cluster->index[1], warp.cluster->index[2]);
  if (base == "%nclusterid") return axis(name, grid.x / cluster.x, grid.y / cluster.y, grid.z / cluster.z);
  if (base == "%cluster_ctaid")
    return axis(name, block.index[0] % cluster.x, block.index[1] % cluster.y, block.index[2] % cluster.z);
  if (base == "%cluster_nctaid") return axis(name, cluster);
  if (base == "%cluster_ctarank") return block.rank;
  if (base == "%cluster_nctarank") return static_cast<std::uint32_t>(cluster.count());
  if (base == "%is_explicit_cluster") return cluster.count() > 1;
  if (base == "%lanemask_eq") return bit;
  if (base == "%lanemask_lt") return bit - 1;
  if (base == "%lanemask_le") return bit | (bit - 1);
  if (base == "%lanemask_gt") return ~(bit | (bit - 1));
  if (base == "%lanemask_ge") return ~(bit - 1);
  if (base == "%dynamic_smem_size") return launch.shared_bytes;
  if (base == "%total_smem_size" || base == "%aggr_smem_size") return block.shared.end();
  if (base == "%smid") return (block.index[0] + grid.x * (block.index[1] + grid.y * block.index[2])) % kSms;
  if (base == "%nsmid") return kSms;
  return 0;  // clocks; the grid's number
}

void set(Warp& warp, Slot slot, int lane, bool wide, std::uint64_t value) {
  if (wide)
    warp.lanes<std::uint64_t>(slot)[lane] = value;
  else
    warp.lanes<std::uint32_t>(slot)[lane] = static_cast<std::uint32_t>(value);
}

}  // namespace

void set_special_registers(Warp& warp) {
  const Kernel& kernel = warp.cluster->state.kernel;
  for (const Kernel::Special& special : kernel.specials)
    for (int lane = 0; lane < kLanes; ++lane)
      set(warp, special.slot, lane, special.wide, value_of(warp, lane, special.name));
  for (const Kernel::SharedAddress& address : kernel.shared_addresses) {
    const std::uint32_t offset = address.offset + (address.dynamic ? kernel.dynamic_shared : 0);
    for (int lane = 0; lane < kLanes; ++lane)
      set(warp, address.slot, lane, address.wide, offset | std::uint32_t(warp.block->rank) << kRankShift);
  }
}

void set_clocks(Warp& warp) {
  for (const Kernel::Special& special : warp.cluster->state.kernel.specials)
    if (special.name.find("clock") != std::string::npos || special.name.find("timer") != std::string::npos)
      for (int lane = 0; lane < kLanes; ++lane) set(warp, special.slot, lane, special.wide, warp.executed);
}

}  // namespace cnnkernels::emulator
