#include "machine.h"

#include <stdexcept>

namespace cnnkernels {

Machine machine_like(const std::string& device, int architecture, int processors) {
  for (const Machine& known : kMachines)
    if (device.find(known.device) != std::string::npos && known.processors == processors) return known;
  Machine found = kMachines[0];
  for (const Machine& known : kMachines)
    if (known.architecture <= architecture && known.architecture >= found.architecture) found = known;
  const double more = static_cast<double>(processors) / found.processors;
  for (double* rate :
       {&found.tensor16, &found.tensor_tf32, &found.fma32, &found.fma64, &found.memory, &found.l2})
    *rate *= more;
  found.architecture = architecture;
  found.processors = processors;
  return found;
}

const Machine& machine_named(const std::string& name) {
  std::string names;
  for (const Machine& known : kMachines) {
    if (name == known.name) return known;
    names += std::string(names.empty() ? "" : ", ") + known.name;
  }
  throw std::invalid_argument("no GPU is called '" + name + "' here, only " + names);
}

}  // namespace cnnkernels
