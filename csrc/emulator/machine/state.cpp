#include "emulator/machine/state.h"

#include "emulator/asynchronous/state.h"
#include "emulator/machine/special_registers.h"
#include "emulator/ptx/declarations.h"
#include "emulator/tensor_cores/state.h"

namespace cnnkernels::emulator {

namespace {

constexpr std::size_t kRegisterAlign = 64;

// An OS thread runs one cluster after another: their warps take over the memory of registers.
struct Pool {
  std::size_t bytes = 0;
  std::vector<std::unique_ptr<std::byte[]>> free;
};
thread_local Pool pool;

std::unique_ptr<std::byte[]> take_memory(std::size_t bytes) {
  if (pool.bytes != bytes) {
    pool.free.clear();
    pool.bytes = bytes;
  }
  if (pool.free.empty()) return std::unique_ptr<std::byte[]>(new std::byte[bytes]);
  std::unique_ptr<std::byte[]> memory = std::move(pool.free.back());
  pool.free.pop_back();
  return memory;
}

std::size_t register_bytes(const Kernel& kernel) {
  return kernel.image.size() * sizeof(std::uint32_t) + kRegisterAlign;
}

}  // namespace

Warp::Warp(Block& block, int index)
    : block(&block),
      cluster(block.cluster),
      index(index),
      cluster_index(static_cast<int>(block.rank * cluster->state.warps_per_block) + index),
      copies(std::make_unique<WarpCopies>()),
      products(std::make_unique<WarpProducts>()) {
  const Kernel& kernel = cluster->state.kernel;
  memory_ = take_memory(register_bytes(kernel));
  const auto address = reinterpret_cast<std::uintptr_t>(memory_.get());
  registers_ = reinterpret_cast<std::uint32_t*>(aligned(address, kRegisterAlign));
  std::memcpy(registers_, kernel.image.data(), kernel.image.size() * sizeof(std::uint32_t));
  predicates_ = kernel.predicate_image;
  local_.assign(kernel.local_bytes * kLanes, std::byte{0xc1});
  const std::uint64_t threads = cluster->state.launch.block.count() - std::uint64_t(index) * kLanes;
  live = threads >= kLanes ? kAllLanes : (Mask{1} << threads) - 1;
  set_special_registers(*this);
}

Warp::~Warp() {
  if (memory_ && pool.bytes == register_bytes(cluster->state.kernel)) pool.free.push_back(std::move(memory_));
}

Warp::Warp(Warp&&) noexcept = default;

std::byte* Warp::local(int lane) { return local_.data() + lane * local_bytes(); }

std::size_t Warp::local_bytes() const { return cluster->state.kernel.local_bytes; }

void SharedMemory::resize(std::uint32_t end) {
  bytes_.resize(end);
  written_.assign(end, 0);
  forget(0, end);
}

void SharedMemory::forget(std::uint32_t offset, std::uint32_t bytes) {
  for (std::uint32_t i = offset; i < offset + bytes; ++i)
    bytes_[i] = static_cast<std::byte>(Kernel::kPoison >> 8 * (i % 4));
  std::memset(&written_[offset], 0, bytes);
}

Block::Block(Cluster& cluster, int rank)
    : cluster(&cluster), rank(rank), mbarriers(std::make_unique<BlockBarriers>()) {
  const Launch& launch = cluster.state.launch;
  const Extent& size = launch.cluster;
  index[0] = cluster.index[0] * size.x + rank % size.x;
  index[1] = cluster.index[1] * size.y + rank / size.x % size.y;
  index[2] = cluster.index[2] * size.z + rank / size.x / size.y;
  shared.resize(cluster.state.shared_end());
  warps.reserve(cluster.state.warps_per_block);
}

Block::~Block() = default;
Block::Block(Block&&) noexcept = default;

bool Block::ended() const {
  for (const Warp& warp : warps)
    if (warp.live) return false;
  return true;
}

}  // namespace cnnkernels::emulator
