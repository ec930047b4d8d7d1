// The larger and the smaller of two numbers, NaN where either is one: std::max and a comparison would take a
// second instruction to keep it, fmaxf drops it.
#pragma once

#include "../common/device.h"

namespace cnnkernels {

#if defined(__CUDA_ARCH__)

CNN_DEVICE float at_least(float x, float least) {
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(least));
  return y;
}
CNN_DEVICE float at_most(float x, float most) {
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(most));
  return y;
}

#endif

// Of doubles, which have no such instruction, and the model.
template <class T>
CNN_DEVICE T at_least(T x, T least) {
  return x < least ? least : x;
}
template <class T>
CNN_DEVICE T at_most(T x, T most) {
  return x > most ? most : x;
}

}  // namespace cnnkernels
