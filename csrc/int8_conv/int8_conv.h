// int8_conv's launchers in plain C++: pointers, sizes and a stream come in; shapes were checked by the
// caller.
//
// output[n, k, p, q] = epilogue(sum over c, r, s of (x[n, c, p stride_h - pad_h + r dilation_h, ...] -
// zero_point_a) w[k, c, r, s]), where x counts as zero_point_a outside of the image. Activations are NHWC,
// filters KRSC. Rows of the epilogue (int8/epilogue.h) are pixels, columns filters.
#pragma once

#include <cstddef>

#include "../int8/epilogue.h"
#include "select.h"

namespace cnnkernels::int8_conv {

// `plan` null: select.h decides. A plan that cannot serve is refused with std::invalid_argument. zero_point_a
// is a number known on the host and zero_point_b is none. Every element of the output is written exactly
// once.
void forward(const Problem& problem, const void* input, const void* weight, const int8::Epilogue& epilogue,
             void* output, void* workspace, std::uintptr_t stream, const Plan* plan = nullptr);

// Bytes of device memory it needs: filters' sums, where a zero point asks for them and the epilogue does not
// bring them, and partial sums of at most 64 MB. `aligned`: input and weight lie at multiples of 16 bytes.
std::size_t workspace(const Problem& problem, const int8::Epilogue& epilogue, bool aligned,
                      const Plan* plan = nullptr);

// The kernel for one channel a group (depthwise.cu).
void launch_depthwise(const Problem& problem, const void* input, const void* weight,
                      const int8::Epilogue& epilogue, void* output, std::uintptr_t stream);

// The kernel for 4, 8 or 16 channels a group (grouped.cu).
void launch_grouped(const Problem& problem, const void* input, const void* weight,
                    const int8::Epilogue& epilogue, void* output, std::uintptr_t stream);

}  // namespace cnnkernels::int8_conv
