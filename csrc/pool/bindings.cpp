// The Python face of pool/pool.h, as cnnkernels/native/pool.py calls it.
#include <array>

#include <pybind11/stl.h>

#include "../common/bind.h"
#include "avg_pool.h"
#include "pool.h"

namespace cnnkernels::pool {
namespace {

UnpoolGeometry unpool_geometry(const std::array<std::int64_t, 6>& ncpqhw) {
  const auto [n, c, p, q, h, w] = ncpqhw;
  return {n, c, p, q, h, w};
}

auto limit() { return py::arg("largest_index") = kLargestIndex; }

void bind_averages(py::module_& m) {
  const auto avg_pool = [&](const char* name, auto* function) {
    m.def(
        name,
        [function](Pointer from, Pointer to, int dtype, int layout, const PoolGeometry& geometry,
                   bool count_include_pad, std::int64_t divisor_override, Pointer stream,
                   std::int64_t largest_index) {
          function(dtype_of(dtype), geometry, layout_of(layout), count_include_pad, divisor_override,
                   pointer(from), pointer(to), stream, largest_index);
        },
        py::arg("from"), py::arg("to"), py::arg("dtype"), py::arg("layout"), py::arg("geometry"),
        py::arg("count_include_pad"), py::arg("divisor_override"), py::arg("stream"), limit());
  };
  avg_pool("avg_pool_forward", &avg_pool_forward);
  avg_pool("avg_pool_backward", &avg_pool_backward);
  m.def(
      "adaptive_avg_pool_workspace",
      [](int dtype, int layout, const PoolGeometry& geometry) {
        return adaptive_avg_pool_workspace(dtype_of(dtype), geometry, layout_of(layout));
      },
      py::arg("dtype"), py::arg("layout"), py::arg("geometry"));
  m.def(
      "adaptive_avg_pool_forward",
      [](Pointer input, Pointer output, Pointer workspace, int dtype, int layout,
         const PoolGeometry& geometry, Pointer stream, std::int64_t largest_index) {
        adaptive_avg_pool_forward(dtype_of(dtype), geometry, layout_of(layout), pointer(input),
                                  pointer(output), pointer(workspace), stream, largest_index);
      },
      py::arg("input"), py::arg("output"), py::arg("workspace"), py::arg("dtype"), py::arg("layout"),
      py::arg("geometry"), py::arg("stream"), limit());
  m.def(
      "adaptive_avg_pool_backward",
      [](Pointer grad_output, Pointer grad_input, int dtype, int layout, const PoolGeometry& geometry,
         Pointer stream, std::int64_t largest_index) {
        adaptive_avg_pool_backward(dtype_of(dtype), geometry, layout_of(layout), pointer(grad_output),
                                   pointer(grad_input), stream, largest_index);
      },
      py::arg("grad_output"), py::arg("grad_input"), py::arg("dtype"), py::arg("layout"), py::arg("geometry"),
      py::arg("stream"), limit());
}

}  // namespace

void bind(py::module_& m) {
  bind_averages(m);
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
