// The Python face of pool/pool.h, as cnnkernels/native/pool.py calls it.
#include <array>

#include <pybind11/stl.h>

#include "../common/bind.h"
#include "pool.h"

namespace cnnkernels::pool {
namespace {

UnpoolGeometry unpool_geometry(const std::array<std::int64_t, 6>& ncpqhw) {
  const auto [n, c, p, q, h, w] = ncpqhw;
  return {n, c, p, q, h, w};
}

}  // namespace

void bind(py::module_& m) {
  const auto limit = [] { return py::arg("largest_index") = kLargestIndex; };
  m.def(
      "max_pool_forward",
      [](Pointer input, Pointer output, Pointer argmax, int dtype, int places, int layout,
         const PoolGeometry& geometry, Pointer stream, std::int64_t largest_index) {
        max_pool_forward(dtype_of(dtype), dtype_of(places), geometry, layout_of(layout), pointer(input),
                         pointer(output), pointer(argmax), stream, largest_index);
      },
      py::arg("input"), py::arg("output"), py::arg("argmax"), py::arg("dtype"), py::arg("places"),
      py::arg("layout"), py::arg("geometry"), py::arg("stream"), limit());
  m.def(
      "max_pool_backward",
      [](Pointer grad_output, Pointer argmax, Pointer grad_input, int dtype, int places, int layout,
         const PoolGeometry& geometry, Pointer stream, std::int64_t largest_index) {
        max_pool_backward(dtype_of(dtype), dtype_of(places), geometry, layout_of(layout),
                          pointer(grad_output), pointer(argmax), pointer(grad_input), stream, largest_index);
      },
      py::arg("grad_output"), py::arg("argmax"), py::arg("grad_input"), py::arg("dtype"), py::arg("places"),
      py::arg("layout"), py::arg("geometry"), py::arg("stream"), limit());
  m.def(
      "max_pool_gather",
      [](Pointer input, Pointer argmax, Pointer output, int dtype, int places, int layout,
         const PoolGeometry& geometry, Pointer stream, std::int64_t largest_index) {
        max_pool_gather(dtype_of(dtype), dtype_of(places), geometry, layout_of(layout), pointer(input),
                        pointer(argmax), pointer(output), stream, largest_index);
      },
      py::arg("input"), py::arg("argmax"), py::arg("output"), py::arg("dtype"), py::arg("places"),
      py::arg("layout"), py::arg("geometry"), py::arg("stream"), limit());
  m.def(
      "max_pool_indices",
      [](Pointer argmax, Pointer indices, int places, int layout, const PoolGeometry& geometry,
         Pointer stream, std::int64_t largest_index) {
        max_pool_indices(dtype_of(places), geometry, layout_of(layout), pointer(argmax),
                         pointer<std::int64_t>(indices), stream, largest_index);
      },
      py::arg("argmax"), py::arg("indices"), py::arg("places"), py::arg("layout"), py::arg("geometry"),
      py::arg("stream"), limit());
  m.def(
      "max_unpool_forward",
      [](Pointer input, Pointer indices, Pointer winner, Pointer output, int dtype, int layout,
         const std::array<std::int64_t, 6>& ncpqhw, Pointer stream, std::int64_t largest_index) {
        max_unpool_forward(dtype_of(dtype), unpool_geometry(ncpqhw), layout_of(layout), pointer(input),
                           pointer<std::int64_t>(indices), pointer<std::int32_t>(winner), pointer(output),
                           stream, largest_index);
      },
      py::arg("input"), py::arg("indices"), py::arg("winner"), py::arg("output"), py::arg("dtype"),
      py::arg("layout"), py::arg("ncpqhw"), py::arg("stream"), limit());
  m.def(
      "max_unpool_backward",
      [](Pointer grad_output, Pointer indices, Pointer grad_input, int dtype, int layout,
         const std::array<std::int64_t, 6>& ncpqhw, Pointer stream, std::int64_t largest_index) {
        max_unpool_backward(dtype_of(dtype), unpool_geometry(ncpqhw), layout_of(layout), pointer(grad_output),
                            pointer<std::int64_t>(indices), pointer(grad_input), stream, largest_index);
      },
      py::arg("grad_output"), py::arg("indices"), py::arg("grad_input"), py::arg("dtype"), py::arg("layout"),
      py::arg("ncpqhw"), py::arg("stream"), limit());
}

}  // namespace cnnkernels::pool
