// int8_weight_only_linear's Python face: pointers as integers, sizes and strides.
#include <pybind11/stl.h>

#include "../common/bind.h"
#include "int8_weight_only_linear.h"

namespace cnnkernels::int8_weight_only_linear {

void bind(py::module_& m) {
  using Sizes = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
  m.attr("int8_weight_only_linear_rows") = kMostRows;
  m.def(
      "int8_weight_only_linear",
      [](Pointer input, Pointer weight, Pointer output, int dtype, const Sizes& sizes, const Sizes& strides,
         const int8::Epilogue& epilogue, Pointer stream) {
        const auto& [rows, columns, depth] = sizes;
        const auto& [row_stride, depth_stride, weight_stride] = strides;
        forward({pointer(input), row_stride, depth_stride, pointer(weight), weight_stride, rows, columns,
                 depth, dtype_of(dtype)},
                epilogue, pointer(output), stream);
      },
      "input [m, k] by weight [n, k], m up to int8_weight_only_linear_rows.", py::arg("input"),
      py::arg("weight"), py::arg("output"), py::arg("dtype"), py::arg("sizes"), py::arg("strides"),
      py::arg("epilogue"), py::arg("stream"));
}

}  // namespace cnnkernels::int8_weight_only_linear
