// The Python face of int8_pool/int8_pool.h, as cnnkernels/native/int8_pool.py calls it.
#include "../common/bind.h"
#include "int8_pool.h"

namespace cnnkernels::int8_pool {

void bind(py::module_& m) {
  const auto limit = [] { return py::arg("largest_index") = kLargestIndex; };
  m.def(
      "int8_max_pool",
      [](Pointer input, Pointer output, int dtype, const PoolGeometry& geometry, Pointer stream,
         std::int64_t largest_index) {
        int8_max_pool(dtype_of(dtype), geometry, pointer(input), pointer(output), stream, largest_index);
      },
      py::arg("input"), py::arg("output"), py::arg("dtype"), py::arg("geometry"), py::arg("stream"), limit());
  m.def(
      "int8_avg_pool",
      [](Pointer input, Pointer output, int dtype, const PoolGeometry& geometry, int zero_point,
         bool count_include_pad, int divisor_override, Pointer stream, std::int64_t largest_index) {
        int8_avg_pool(dtype_of(dtype), geometry, zero_point, count_include_pad, divisor_override,
                      pointer(input), pointer(output), stream, largest_index);
      },
      py::arg("input"), py::arg("output"), py::arg("dtype"), py::arg("geometry"), py::arg("zero_point"),
      py::arg("count_include_pad"), py::arg("divisor_override"), py::arg("stream"), limit());
}

}  // namespace cnnkernels::int8_pool
