// Every primitive knows the line that called it, so that a fault of its model can name it. In the interpreter
// CNN_SITE is a last, defaulted parameter; under nvcc it is nothing.
#pragma once

#include "../common/device.h"

#if defined(CNN_INTERPRETER)
#include "../interpreter/api.h"
#endif

#ifndef CNN_SITE
#if defined(CNN_INTERPRETER)
#define CNN_SITE , ::cnnkernels::interpreter::Site site = ::cnnkernels::interpreter::Site::current()
#define CNN_SITE_ONLY ::cnnkernels::interpreter::Site site = ::cnnkernels::interpreter::Site::current()
#else
#define CNN_SITE
#define CNN_SITE_ONLY
#endif
#endif

// Code that only Hopper runs stands under #if CNN_SM90A: it is part of the sm_90a binary and of the
// interpreter, and left out of the others that the same source is compiled into. Kernels say left_out()
// there.
#if defined(CNN_INTERPRETER) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define CNN_SM90A 1
#else
#define CNN_SM90A 0
#endif

namespace cnnkernels {

#if !defined(CNN_INTERPRETER)
// The 32-bit address PTX wants for shared memory.
CNN_DEVICE std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// In place of a body that was left out: a launch of it fails, rather than return what memory held.
CNN_DEVICE void left_out() { __trap(); }
#endif

}  // namespace cnnkernels
