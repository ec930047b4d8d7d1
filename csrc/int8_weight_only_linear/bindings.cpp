// int8_weight_only_linear's Python face: pointers as integers, sizes and strides.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "int8_weight_only_linear.h"

namespace py = pybind11;

namespace cnnkernels::int8_weight_only_linear {

void bind(py::module_& m) {
  using Sizes = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
  m.attr("int8_weight_only_linear_rows") = kMostRows;
  m.def(
      "int8_weight_only_linear",
      [](std::uintptr_t input, std::uintptr_t weight, std::uintptr_t output, int dtype, const Sizes& sizes,
         const Sizes& strides, const int8::Epilogue& epilogue, std::uintptr_t stream) {
        const auto& [rows, columns, depth] = sizes;
        const auto& [row_stride, depth_stride, weight_stride] = strides;
        forward({reinterpret_cast<const void*>(input), row_stride, depth_stride,
                 reinterpret_cast<const void*>(weight), weight_stride, rows, columns, depth,
                 static_cast<DType>(dtype)},
                epilogue, reinterpret_cast<void*>(output), stream);
      },
      "input [m, k] by weight [n, k], m up to int8_weight_only_linear_rows.", py::arg("input"),
      py::arg("weight"), py::arg("output"), py::arg("dtype"), py::arg("sizes"), py::arg("strides"),
      py::arg("epilogue"), py::arg("stream"));
}

}  // namespace cnnkernels::int8_weight_only_linear
