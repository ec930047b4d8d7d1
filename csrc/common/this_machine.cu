// The GPU a launch goes to, looked up once a device.
#include "launch.h"
#include "machine.h"

#include <mutex>

namespace cnnkernels {

#if defined(CNN_INTERPRETER)

namespace {
Machine machine = kMachines[0];
}  // namespace

const Machine& this_machine() { return machine; }
void stand_for(const Machine& other) { machine = other; }

#else

const Machine& this_machine() {
  constexpr int kMostDevices = 64;
  static Machine machines[kMostDevices];
  static std::once_flag looked_up[kMostDevices];
  int device = 0;
  check(cudaGetDevice(&device), "finding the current device");
  if (device >= kMostDevices) throw std::runtime_error("a device beyond the 64th");
  std::call_once(looked_up[device], [device] {
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, device), "reading a device's properties");
    machines[device] = machine_like(properties.name, 10 * properties.major + properties.minor,
                                    properties.multiProcessorCount);
  });
  return machines[device];
}

#endif

}  // namespace cnnkernels
