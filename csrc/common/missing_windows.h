// The gradient of a convolution's input at pixels that miss a window. Kernels multiply the zeros around the
// error by the taps that lead there, which changes no sum while taps are finite; an infinite or NaN one makes
// NaN of it. PyTorch's operator adds what windows that exist give, and nothing else. So once a kernel,
// whichever it was, has written the gradient, the sums at the image's border are looked at, and those that
// are NaN are made anew, product by product.
#pragma once

#include "epilogue.h"
#include "geometry.h"

namespace cnnkernels {

enum class DType : int;  // types.h

// Tensors as in a convolution's backward_input; the epilogue is what a transposed convolution makes of the
// sums. One launch, none where every pixel has all of its windows.
void leave_out_missing_windows(const ConvGeometry& geometry, Layout layout, DType dtype,
                               const void* grad_output, const void* weight, const Epilogue& epilogue,
                               void* grad_input, std::uintptr_t stream);

}  // namespace cnnkernels
