// How much dynamic shared memory kernels were allowed: the most that any launch asked for, of each kernel and
// device.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <utility>

namespace cnnkernels {

// A limit is never lowered: another thread may be about to launch the same kernel with more.
class RaisedLimits {
 public:
  // Calls raise() where a kernel may not have so many bytes on a device yet; if it throws, nothing is noted.
  template <class Raise>
  void allow(const void* kernel, int device, std::size_t bytes, Raise&& raise) {
    const std::lock_guard lock(mutex_);
    std::size_t& most = most_[{device, kernel}];
    if (bytes <= most) return;
    raise();
    most = bytes;
  }

 private:
  std::mutex mutex_;
  std::map<std::pair<int, const void*>, std::size_t> most_;
};

}  // namespace cnnkernels
