// Asynchronous work of a block that has been issued and not yet done.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "schedule.h"
#include "state.h"

namespace cnnkernels::interpreter {

std::uint64_t deliver_later(std::function<void()> action);  // returns a ticket

class Deliveries {
 public:
  void begin_block(Delivery policy) {
    policy_ = policy;
    pending_.clear();
  }
  Delivery policy() const { return policy_; }
  bool empty() const { return pending_.empty(); }
  bool random() const { return policy_ == Delivery::random; }

  std::uint64_t add(std::function<void()> action);
  void finish(std::uint64_t ticket);
  void run_one(std::size_t i);  // the i-th oldest, in the name of the thread that issued it
  void run_random(Random& random) { run_one(random.below(static_cast<unsigned>(pending_.size()))); }
  void run_all() {
    while (!pending_.empty()) run_one(0);
  }

 private:
  struct Item {
    std::uint64_t ticket;
    Thread* issuer;
    std::function<void()> action;
  };
  Delivery policy_ = Delivery::late;
  std::uint64_t last_ticket_ = 0;
  std::vector<Item> pending_;  // oldest first
};

}  // namespace cnnkernels::interpreter
