#include "../cp_async.cuh"

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../../interpreter/deliveries.h"

namespace cnnkernels::model {
namespace {

struct Copy {
  void* shared;
  const void* global;  // nullptr: zeros
  int bytes;
};

// Copies that arrive together: a group, or a part of one that an mbarrier waits for.
struct Batch {
  std::vector<Copy> copies;
  std::uint64_t ticket = 0;  // 0: arrives when it is waited for
  bool ends_group = false;

  void arrive() {
    for (const Copy& copy : copies) {
      if (copy.global)
        std::memcpy(copy.shared, copy.global, copy.bytes);
      else
        std::memset(copy.shared, 0, copy.bytes);
    }
    copies.clear();
  }
  void may_arrive_by_itself() {
    if (ticket == 0) ticket = interpreter::deliver_later([this] { arrive(); });
  }
  void finish() {
    if (ticket != 0)
      interpreter::finish(std::exchange(ticket, 0));
    else
      arrive();
  }
};

// Of one CUDA thread.
struct Queue {
  std::unique_ptr<Batch> open = std::make_unique<Batch>();
  std::vector<std::unique_ptr<Batch>> issued;  // oldest first
  std::vector<std::unique_ptr<Batch>> spare;   // arrived, kept for their storage
  int groups = 0;                              // that end in `issued`

  void issue(bool ends_group) {
    open->ends_group = ends_group;
    groups += ends_group;
    // the latest moment is the wait: the policy need not be asked
    if (interpreter::delivery() != interpreter::Delivery::late) open->may_arrive_by_itself();
    issued.push_back(std::move(open));
    if (spare.empty()) {
      open = std::make_unique<Batch>();
    } else {
      open = std::move(spare.back());
      spare.pop_back();
    }
  }

  void finish_oldest() {
    issued.front()->finish();
    groups -= issued.front()->ends_group;
    spare.push_back(std::move(issued.front()));
    issued.erase(issued.begin());
  }
};

}  // namespace

void cp_async(int bytes, void* shared, const void* global, bool valid, interpreter::Site site) {
  interpreter::check_shared(shared, bytes, bytes, "cp_async's destination", site);
  if (reinterpret_cast<std::uintptr_t>(global) % bytes != 0) {
    interpreter::fault(site, "cp_async's source is not aligned to " + std::to_string(bytes) + " bytes");
  }
  static_cast<void>(
      *static_cast<const volatile char*>(global));  // must be readable even where nothing is read
  interpreter::touch_write(shared, bytes);
  if (valid) interpreter::touch_read(global, bytes);
  interpreter::poison(shared, bytes);
  interpreter::thread_state<Queue>().open->copies.push_back({shared, valid ? global : nullptr, bytes});
}

void cp_async_commit(interpreter::Site) { interpreter::thread_state<Queue>().issue(true); }

void cp_async_wait(int groups_left, interpreter::Site) {
  auto& queue = interpreter::thread_state<Queue>();
  while (queue.groups > groups_left) queue.finish_oldest();
}

void cp_async_arrive(Mbarrier* barrier, interpreter::Site site) {
  auto& queue = interpreter::thread_state<Queue>();
  if (!queue.open->copies.empty()) queue.issue(false);
  std::vector<std::uint64_t> before;
  for (const auto& batch : queue.issued) {
    batch->may_arrive_by_itself();
    before.push_back(batch->ticket);
  }
  mbarrier_check(barrier, "cp_async_arrive", site);
  interpreter::happens_before(barrier);
  interpreter::deliver_later([=] {
    for (const std::uint64_t ticket : before) interpreter::finish(ticket);
    model::mbarrier_arrive(barrier, site);
  });
}

}  // namespace cnnkernels::model
