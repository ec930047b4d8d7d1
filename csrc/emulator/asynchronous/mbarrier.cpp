#include "emulator/asynchronous/mbarrier.h"

#include <cstring>

#include "emulator/wrong_model.h"

namespace cnnkernels::emulator {
namespace {

constexpr std::int64_t kMostBytes = (1 << 20) - 1;
constexpr std::uint64_t kMark = std::uint64_t{0x2d} << 58;

void store(Block& block, std::uint32_t offset, const Mbarrier& barrier) {
  const std::uint64_t word = state_word(barrier);
  std::memcpy(block.shared.at(offset), &word, sizeof word);
  block.shared.mark_written(offset, sizeof word);
}

void add_bytes(Mbarrier& barrier, std::uint32_t offset, std::int64_t bytes) {
  const std::int64_t sum = barrier.bytes + bytes;
  if (sum > kMostBytes || sum < -kMostBytes) {
    fault("mbarrier at %#x: %lld bytes are to come, more than it counts", offset,
          static_cast<long long>(sum));
  }
  barrier.bytes = static_cast<std::int32_t>(sum);
}

void step(Block& block, std::uint32_t offset, Mbarrier& barrier) {
  const bool all_bytes = barrier.bytes == 0 || is_wrong(WrongModel::barrier_ignores_bytes);
  if (barrier.pending == 0 && all_bytes) {
    ++barrier.phase;
    barrier.pending = barrier.expected;
    barrier.bytes = 0;
    barrier.complete = barrier.gathering;
  }
  store(block, offset, barrier);
  ++block.cluster->events;
}

}  // namespace

std::uint64_t state_word(const Mbarrier& barrier) {
  return kMark | std::uint64_t{barrier.phase & 0x3ffff} << 40 | std::uint64_t{barrier.expected} << 20 |
         barrier.pending;
}

std::uint32_t phase_of(std::uint64_t state) { return state >> 40 & 0x3ffff; }

Mbarrier& mbarrier_at(Block& block, std::uint32_t offset) {
  const auto found = block.mbarriers->at.find(offset);
  if (found == block.mbarriers->at.end()) {
    fault("no mbarrier was initialised at %#x of block %d", offset, block.rank);
  }
  std::uint64_t word;
  std::memcpy(&word, block.shared.at(offset), sizeof word);
  if (word != state_word(found->second)) {
    fault("the mbarrier at %#x of block %d was overwritten", offset, block.rank);
  }
  return found->second;
}

void initialise(Block& block, std::uint32_t offset, std::uint32_t arrivals) {
  if (arrivals < 1 || arrivals > kMostArrivals) fault("mbarrier.init with %u arrivals", arrivals);
  if (block.mbarriers->at.contains(offset)) {
    fault("mbarrier.init at %#x, where there is one that was not invalidated", offset);
  }
  Mbarrier& barrier = block.mbarriers->at[offset];
  barrier.expected = barrier.pending = arrivals;
  if (Races* races = block.cluster->races.get()) barrier.agent = races->new_mbarrier(block.rank, offset);
  store(block, offset, barrier);
  ++block.cluster->events;
}

void invalidate(Block& block, std::uint32_t offset) {
  mbarrier_at(block, offset);
  block.mbarriers->at.erase(offset);
}

void expect_bytes(Block& block, std::uint32_t offset, std::uint32_t bytes) {
  Mbarrier& barrier = mbarrier_at(block, offset);
  add_bytes(barrier, offset, bytes);
  step(block, offset, barrier);
}

void complete_bytes(Block& block, std::uint32_t offset, std::uint32_t bytes) {
  Mbarrier& barrier = mbarrier_at(block, offset);
  add_bytes(barrier, offset, -std::int64_t{bytes});
  step(block, offset, barrier);
}

void arrive(Block& block, std::uint32_t offset, std::uint32_t count, std::uint32_t expected_bytes) {
  Mbarrier& barrier = mbarrier_at(block, offset);
  add_bytes(barrier, offset, expected_bytes);
  if (count > barrier.pending) {
    fault("mbarrier at %#x of block %d: %u arrivals, and only %u were to come in this phase", offset,
          block.rank, count, barrier.pending);
  }
  barrier.pending -= count;
  step(block, offset, barrier);
}

void expect_arrival(Block& block, std::uint32_t offset) {
  Mbarrier& barrier = mbarrier_at(block, offset);
  if (barrier.pending == kMostArrivals)
    fault("mbarrier at %#x: more arrivals are to come than it counts", offset);
  ++barrier.pending;
  store(block, offset, barrier);
}

void drop(Block& block, std::uint32_t offset, std::uint32_t count) {
  Mbarrier& barrier = mbarrier_at(block, offset);
  if (count > barrier.expected) fault("mbarrier at %#x: more threads drop out than there were", offset);
  barrier.expected -= count;
  store(block, offset, barrier);
}

bool phase_complete(const Mbarrier& barrier, std::uint32_t parity) {
  if (is_wrong(WrongModel::barrier_never_waits)) return true;
  if (is_wrong(WrongModel::barrier_parity_inverted)) parity ^= 1;
  return (barrier.phase & 1) != (parity & 1);
}

}  // namespace cnnkernels::emulator
