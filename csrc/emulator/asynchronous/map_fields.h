// A tensor map that a kernel is still putting together (tensormap.replace), and when one is whole.
#pragma once

#include <cstddef>
#include <span>

#include "emulator/tensor_map.h"

namespace cnnkernels::emulator {

int element_bytes(MapType type);

// Of 128 zeros, a map without a field; Throws Fault where the bytes are neither that nor a map.
TensorMap decode_unfinished(std::span<const std::byte, kTensorMapBytes> bytes);

const char* why_unusable(const TensorMap& map);  // null where nothing is

}  // namespace cnnkernels::emulator
