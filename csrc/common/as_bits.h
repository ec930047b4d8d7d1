// A number as its bits, for structs that kernels take (launch.h): of floating members the compiler cannot say
// whether a struct has padding.
#pragma once

#include <cstring>
#include <type_traits>

#include "device.h"

namespace cnnkernels {

template <class T>
class AsBits {
  using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  static_assert(sizeof(T) == sizeof(Bits));

 public:
  AsBits() = default;
  CNN_HOST_DEVICE AsBits(T value) { memcpy(&bits_, &value, sizeof(value)); }
  CNN_HOST_DEVICE operator T() const {
    T value;
    memcpy(&value, &bits_, sizeof(value));
    return value;
  }

 private:
  Bits bits_ = 0;
};

}  // namespace cnnkernels
