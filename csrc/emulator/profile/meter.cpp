#include "emulator/profile/meter.h"

#include <algorithm>

#include "emulator/machine/state.h"

namespace cnnkernels::emulator {

void Counted::add(const Counted& other) {
  warps += other.warps;
  threads += other.threads;
  shared_requests += other.shared_requests;
  least_wavefronts += other.least_wavefronts;
  wavefronts += other.wavefronts;
  streamed_wavefronts += other.streamed_wavefronts;
  global_requests += other.global_requests;
  sectors += other.sectors;
  wanted_bytes += other.wanted_bytes;
  l2_sectors += other.l2_sectors;
  bulk_read += other.bulk_read;
  bulk_written += other.bulk_written;
  bulk_filled += other.bulk_filled;
  multiply_adds += other.multiply_adds;
}

Meter::Meter(std::size_t instructions, std::size_t warps, std::size_t blocks)
    : counted_(instructions), spins_(warps), l1_(blocks) {}

Counted& Meter::row(const Warp& warp) { return counted_[warp.position]; }

void Meter::count(std::uint32_t at, std::uint32_t threads) {
  ++counted_[at].warps;
  counted_[at].threads += threads;
}

// It was no way back: what was executed counts.
void Meter::leave(Spin& spin) {
  for (const Spin::Step& step : spin.since) count(step.at, step.threads);
  spin.since.clear();
  spin.at = kNowhere;
}

void Meter::executed(const Warp& warp, std::uint32_t at, Mask group, Mask lanes) {
  const auto threads = static_cast<std::uint32_t>(__builtin_popcount(lanes));
  Spin& spin = spins_[warp.cluster_index];
  if (spin.at == kNowhere || (group & ~spin.lanes)) return count(at, threads);
  if (at == spin.at) {
    spin.since.clear();
    spin.at = kNowhere;
  } else if (spin.since.size() < kLongestWayBack) {
    return spin.since.push_back({at, threads});
  } else {
    leave(spin);
  }
  count(at, threads);
}

void Meter::spun(const Warp& warp, std::uint32_t at, Mask group) {
  Spin& spin = spins_[warp.cluster_index];
  if (spin.at == at) spin.since.clear();
  leave(spin);
  spin.at = at;
  spin.lanes = group;
}

void Meter::shared_access(const Warp& warp, const std::uint64_t (&addresses)[kLanes], Mask lanes,
                          std::uint32_t bytes, bool atomic) {
  if (!lanes) return;
  const Wavefronts found = wavefronts_of(addresses, lanes, bytes, atomic);
  ++row(warp).shared_requests;
  row(warp).least_wavefronts += found.least;
  row(warp).wavefronts += found.taken;
}

void Meter::shared_stream(const Warp& warp, std::uint64_t bytes) {
  row(warp).streamed_wavefronts += (bytes + kWavefrontBytes - 1) / kWavefrontBytes;
}

// Returns the request's sectors.
std::uint64_t Meter::request(const Warp& warp, const std::uint64_t (&addresses)[kLanes], Mask lanes,
                             std::uint32_t bytes, Footprint& footprint) {
  std::uint64_t found[kLanes];  // a lane's bytes are aligned: they lie in one sector
  std::size_t count = 0;
  for_each_lane(lanes, [&](int lane) {
    footprint.add(addresses[lane], bytes);
    found[count++] = addresses[lane] / kSectorBytes;
  });
  std::sort(found, found + count);
  Counted& row = this->row(warp);
  ++row.global_requests;
  const auto sectors = static_cast<std::uint64_t>(std::unique(found, found + count) - found);
  row.sectors += sectors;
  row.wanted_bytes += distinct_bytes(addresses, lanes, bytes);
  return sectors;
}

void Meter::global_read(const Warp& warp, const std::uint64_t (&addresses)[kLanes], Mask lanes,
                        std::uint32_t bytes, Way way) {
  if (!lanes) return;
  std::uint64_t fetched = request(warp, addresses, lanes, bytes, read_);
  if (way == Way::l1) {
    fetched = 0;
    for_each_lane(lanes, [&](int lane) { fetched += l1_[warp.block->rank].add(addresses[lane], bytes); });
  }
  row(warp).l2_sectors += fetched;
}

void Meter::global_write(const Warp& warp, const std::uint64_t (&addresses)[kLanes], Mask lanes,
                         std::uint32_t bytes, bool atomic) {
  if (!lanes) return;
  row(warp).l2_sectors += request(warp, addresses, lanes, bytes, written_);
  if (atomic) for_each_lane(lanes, [&](int lane) { read_.add(addresses[lane], bytes); });
}

void Meter::bulk_read(const Warp& warp, std::uint64_t address, std::uint64_t bytes) {
  read_.add(address, bytes);
  row(warp).bulk_read += bytes;
  row(warp).l2_sectors += sectors_of(address, bytes);
}

void Meter::bulk_written(const Warp& warp, std::uint64_t address, std::uint64_t bytes) {
  written_.add(address, bytes);
  row(warp).bulk_written += bytes;
  row(warp).l2_sectors += sectors_of(address, bytes);
}

void Meter::bulk_filled(const Warp& warp, std::uint64_t bytes) { row(warp).bulk_filled += bytes; }

void Meter::multiplied(const Warp& warp, std::uint64_t multiply_adds) {
  row(warp).multiply_adds += multiply_adds;
}

void Meter::finish() {
  for (Spin& spin : spins_) leave(spin);
}

}  // namespace cnnkernels::emulator
