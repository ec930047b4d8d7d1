// The Python face of int8_pool/int8_pool.h, as cnnkernels/native/int8_pool.py calls it.
#include <pybind11/pybind11.h>

#include "int8_pool.h"

namespace py = pybind11;

namespace cnnkernels::int8_pool {

void bind(py::module_& m) {
  using Pointer = std::uintptr_t;
  const auto limit = [] { return py::arg("most_sites") = kMostSites; };
  m.def(
      "int8_max_pool",
      [](Pointer input, Pointer output, int dtype, const PoolGeometry& geometry, Pointer stream,
         std::int64_t most_sites) {
        int8_max_pool(static_cast<DType>(dtype), geometry, reinterpret_cast<const void*>(input),
                      reinterpret_cast<void*>(output), stream, most_sites);
      },
      py::arg("input"), py::arg("output"), py::arg("dtype"), py::arg("geometry"), py::arg("stream"), limit());
  m.def(
      "int8_avg_pool",
      [](Pointer input, Pointer output, int dtype, const PoolGeometry& geometry, int zero_point,
         bool count_include_pad, int divisor_override, Pointer stream, std::int64_t most_sites) {
        int8_avg_pool(static_cast<DType>(dtype), geometry, zero_point, count_include_pad, divisor_override,
                      reinterpret_cast<const void*>(input), reinterpret_cast<void*>(output), stream,
                      most_sites);
      },
      py::arg("input"), py::arg("output"), py::arg("dtype"), py::arg("geometry"), py::arg("zero_point"),
      py::arg("count_include_pad"), py::arg("divisor_override"), py::arg("stream"), limit());
}

}  // namespace cnnkernels::int8_pool
