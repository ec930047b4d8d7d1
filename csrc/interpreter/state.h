// The state of a running CUDA thread, as far as kernels and models see it. block.h has the rest.
#pragma once

#include <cstdint>

#include "api.h"
#include "dim3.h"

namespace cnnkernels::interpreter {

inline constexpr unsigned kWarpSize = 32, kMostWarps = 32, kMostThreads = 1024, kBarriers = 16;

class Block;
struct Fiber;

// Objects of one type that live as long as the block: one a thread, or one for all.
struct Slot {
  void* objects = nullptr;
  void (*destroy)(void* objects) = nullptr;
};
inline constexpr unsigned kMostSlots = 32;
unsigned new_slot();
template <class T>
inline const unsigned thread_slot = new_slot();
template <class T>
inline const unsigned block_slot = new_slot();

// What all threads of a block share and may read.
struct BlockView {
  uint3 index{};
  dim3 block_dim, grid_dim;
  unsigned threads = 0;
  unsigned cluster_rank = 0, cluster_size = 1;
  Slot slots[kMostSlots];
};

// What a thread that cannot go on waits for; kept for the deadlock report and for comparing call sites.
struct Wait {
  enum class Kind : std::uint8_t { nothing, barrier, meeting, condition };
  Kind kind = Kind::nothing;
  const char* what = "";     // of a barrier or a meeting
  std::uint32_t number = 0;  // the barrier's id, the meeting's mask
  Site site{};
  const FunctionRef<bool()>* ready = nullptr;  // of a condition
  const FunctionRef<std::string()>* describe = nullptr;
};

struct Thread {
  uint3 index{};
  BlockView* view = nullptr;
  Block* block = nullptr;
  Fiber* fiber = nullptr;
  std::uint32_t linear = 0, warp = 0, lane = 0;
  bool in_cluster_barrier = false;  // has it arrived there and not waited yet?
  std::uint64_t cluster_phase = 0;  // of that barrier, when it arrived
  Wait wait;
};

// The closure is the kernel with its arguments; returns when the whole grid has run. Throws KernelFault.
void run(dim3 grid, dim3 block, dim3 cluster, std::size_t shared_bytes, FunctionRef<void()> kernel);

// The CUDA thread that runs on this OS thread; null outside kernels. A fiber never moves to another OS
// thread.
extern constinit thread_local Thread* current;

inline unsigned lane_id() { return current->lane; }
inline unsigned warp_id() { return current->warp; }

template <class T>
T& thread_state() {
  BlockView& view = *current->view;
  Slot& slot = view.slots[thread_slot<T>];
  if (slot.objects == nullptr) {
    slot = {new T[view.threads](), [](void* objects) { delete[] static_cast<T*>(objects); }};
  }
  return static_cast<T*>(slot.objects)[current->linear];
}

// Of the block with this rank in the running thread's cluster.
BlockView& block_view(unsigned rank);

template <class T>
T& block_state_in(BlockView& view) {
  Slot& slot = view.slots[block_slot<T>];
  if (slot.objects == nullptr) {
    slot = {new T(), [](void* object) { delete static_cast<T*>(object); }};
  }
  return *static_cast<T*>(slot.objects);
}
template <class T>
T& block_state() {
  return block_state_in<T>(*current->view);
}
template <class T>
T& block_state(unsigned rank) {
  return block_state_in<T>(block_view(rank));
}

}  // namespace cnnkernels::interpreter
