// Which bytes of shared memory plain stores have written without a fence towards the asynchronous units
// since.
#include <string>
#include <vector>

#include "api.h"
#include "block.h"

namespace cnnkernels::interpreter {
namespace {

constexpr std::size_t kGranule = 8;  // bytes; what threads of one warp write side by side
constexpr std::size_t kGranules = (kMostSharedBytes + 4096) / kGranule;

// By granule: 1 + the thread that wrote it last and has not made its fence.
struct Unfenced {
  std::vector<std::uint16_t> writer = std::vector<std::uint16_t>(kGranules);
  std::size_t count = 0;
};

struct OwnWrites {
  std::vector<std::uint32_t> granules;
};

}  // namespace

void generic_write(const void* pointer, std::size_t bytes) {
  if (!is_shared(pointer, bytes)) return;
  auto& all = block_state<Unfenced>();
  auto& own = thread_state<OwnWrites>().granules;
  const auto mine = static_cast<std::uint16_t>(current->linear + 1);
  const std::size_t first = shared_address(pointer) / kGranule;
  for (std::size_t i = first; i * kGranule < shared_address(pointer) + bytes; ++i) {
    if (all.writer[i] == mine) continue;
    all.count += all.writer[i] == 0;
    all.writer[i] = mine;
    own.push_back(static_cast<std::uint32_t>(i));
  }
}

void fence_generic_writes() {
  auto& all = block_state<Unfenced>();
  auto& own = thread_state<OwnWrites>().granules;
  for (const std::uint32_t i : own) {
    if (all.writer[i] != current->linear + 1) continue;
    all.writer[i] = 0;
    --all.count;
  }
  own.clear();
}

void check_fenced(const void* pointer, std::size_t bytes, const char* what, Site site) {
  const auto& all = block_state<Unfenced>();
  if (all.count == 0) return;
  const std::size_t first = shared_address(pointer) / kGranule;
  for (std::size_t i = first; i * kGranule < shared_address(pointer) + bytes; ++i) {
    if (all.writer[i] == 0) continue;
    fault(site, std::string(what) + " reads what thread " + std::to_string(all.writer[i] - 1) +
                    " wrote without a fence_proxy_async() since");
  }
}

}  // namespace cnnkernels::interpreter
