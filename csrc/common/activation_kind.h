// Which activation: its name alone, for plain C++. What each does is in activation.h.
#pragma once

namespace cnnkernels {

// The order is cnnkernels/activation.py's.
enum class Activation : int { none, relu, relu6, leaky_relu, silu, gelu, hardswish };

}  // namespace cnnkernels
