#include "cp_async.h"

#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace cnnkernels::model {
namespace {

struct Copy {
  void* shared;
  const void* global;  // nullptr: zeros
  int bytes;
};

struct Group {
  std::vector<Copy> copies;
  std::uint64_t ticket = 0;

  void arrive() const {
    for (const Copy& copy : copies) {
      if (copy.global)
        std::memcpy(copy.shared, copy.global, copy.bytes);
      else
        std::memset(copy.shared, 0, copy.bytes);
    }
  }
};

// Of one CUDA thread.
struct Queue {
  std::unique_ptr<Group> open = std::make_unique<Group>();
  std::deque<std::unique_ptr<Group>> committed;  // oldest first
  std::vector<std::unique_ptr<Group>> spare;     // retired, kept for their storage
};

}  // namespace

void cp_async(int bytes, void* shared, const void* global, bool valid, interpreter::Site site) {
  interpreter::check_shared(shared, bytes, bytes, "cp_async's destination", site);
  if (reinterpret_cast<std::uintptr_t>(global) % bytes != 0) {
    interpreter::fault(site, "cp_async's source is not aligned to " + std::to_string(bytes) + " bytes");
  }
  static_cast<void>(
      *static_cast<const volatile char*>(global));  // must be readable even where nothing is read
  interpreter::poison(shared, bytes);
  interpreter::thread_state<Queue>().open->copies.push_back({shared, valid ? global : nullptr, bytes});
}

void cp_async_commit(interpreter::Site) {
  auto& queue = interpreter::thread_state<Queue>();
  Group* group = queue.open.get();
  queue.committed.push_back(std::move(queue.open));
  if (queue.spare.empty()) {
    queue.open = std::make_unique<Group>();
  } else {
    queue.open = std::move(queue.spare.back());
    queue.spare.pop_back();
  }
  group->ticket = interpreter::deliver_later([group] { group->arrive(); });
}

void cp_async_wait(int groups_left, interpreter::Site) {
  auto& queue = interpreter::thread_state<Queue>();
  while (queue.committed.size() > std::size_t(groups_left)) {
    interpreter::finish(queue.committed.front()->ticket);
    queue.committed.front()->copies.clear();
    queue.spare.push_back(std::move(queue.committed.front()));
    queue.committed.pop_front();
  }
}

}  // namespace cnnkernels::model
