#include "deliveries.h"

#include <algorithm>

#include "cluster.h"

namespace cnnkernels::interpreter {

std::uint64_t Deliveries::add(std::function<void()> action) {
  if (policy_ == Delivery::early) {
    const Unchecked unchecked;
    action();
    return 0;
  }
  pending_.push_back({++last_ticket_, current, std::move(action)});
  return last_ticket_;
}

void Deliveries::run_one(std::size_t i) {
  const Item item = std::move(pending_[i]);
  pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(i));
  Thread* const runs = current;
  current = item.issuer;  // a fault is the issuer's
  const Unchecked unchecked;
  item.action();
  current = runs;
}

void Deliveries::finish(std::uint64_t ticket) {
  const auto found =
      std::lower_bound(pending_.begin(), pending_.end(), ticket,
                       [](const Item& item, std::uint64_t sought) { return item.ticket < sought; });
  if (found == pending_.end() || found->ticket != ticket) return;
  run_one(static_cast<std::size_t>(found - pending_.begin()));
}

// The words of api.h.

Delivery delivery() { return current->block->deliveries.policy(); }
std::uint64_t deliver_later(std::function<void()> action) {
  return current->block->deliveries.add(std::move(action));
}
bool thread_ended() { return (current->block->alive(current->warp) >> current->lane & 1u) == 0; }
bool block_ended(unsigned rank) { return current->block->cluster.block(rank).threads_alive() == 0; }
void finish(std::uint64_t ticket) { current->block->deliveries.finish(ticket); }

}  // namespace cnnkernels::interpreter
