#include "../sync.cuh"

#include <algorithm>
#include <string>

namespace cnnkernels::model {
namespace {

constexpr int kRegisters = 65536, kMostOfThread = 256, kWarpgroup = 128, kMostWarpgroups = 8;

// Registers a thread of each warpgroup holds, and how many a warpgroup's threads could take more.
struct RegisterFile {
  int held[kMostWarpgroups];
  int pool = 0;

  RegisterFile() {
    const int threads = blockDim.x * blockDim.y * blockDim.z;
    std::fill_n(held, kMostWarpgroups, std::min(kRegisters / threads, kMostOfThread) / 8 * 8);
  }
};

}  // namespace

bool elect_one(interpreter::Site site) {
  interpreter::warp_meet(0xffffffffu, nullptr, [](void* const*) {}, "elect_one", site);
  // the hardware does not say which lane it elects: a kernel must not count on the first
  return interpreter::lane_id() == (interpreter::random_order() ? 19 : 0);
}

void change_registers(int count, bool increase, interpreter::Site site) {
  const char* what = increase ? "increase_registers" : "decrease_registers";
  interpreter::warpgroup_meet(nullptr, [](void* const*) {}, what, site);
  const int warpgroup = interpreter::warp_id() / 4;
  const bool first = interpreter::warp_id() % 4 == 0 && interpreter::lane_id() == 0;
  auto& file = interpreter::block_state<RegisterFile>();
  const int held = file.held[warpgroup];
  if (first && (increase ? count < held : count > held)) {
    interpreter::fault(site, std::string(what) + "<" + std::to_string(count) + ">: the warpgroup holds " +
                                 std::to_string(held) + " registers a thread");
  }
  if (first && increase) {
    interpreter::wait_until(
        [&] { return file.pool >= count - held; },
        "increase_registers<" + std::to_string(count) + ">: other warpgroups must give some first", site);
  }
  if (first) {
    file.pool += held - count;
    file.held[warpgroup] = count;
  }
  interpreter::warpgroup_meet(nullptr, [](void* const*) {}, what, site);
}

}  // namespace cnnkernels::model
