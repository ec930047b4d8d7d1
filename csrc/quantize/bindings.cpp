// The Python face of quantize.h, as cnnkernels/native/quantize.py calls it.
#include <array>

#include <pybind11/stl.h>

#include "../common/bind.h"
#include "quantize.h"

namespace cnnkernels::quantize {
namespace {

using Extents = std::array<std::int64_t, 3>;

Grouped grouped(const Extents& extents) { return {extents[0], extents[1], extents[2]}; }

}  // namespace

void bind(py::module_& m) {
  const auto limit = [] { return py::arg("largest_index") = kLargestIndex; };
  const auto bind = [&](const char* name, auto* function) {
    m.def(
        name,
        [function](Pointer input, Pointer output, Pointer scales, Pointer zero_points, float scale,
                   int zero_point, int from, int to, const Extents& shape, Pointer stream,
                   std::int64_t largest_index) {
          const Quantization by{scale, zero_point, pointer<const float>(scales),
                                pointer<const std::int32_t>(zero_points)};
          function(dtype_of(from), dtype_of(to), grouped(shape), pointer(input), pointer(output), by, stream,
                   largest_index);
        },
        py::arg("input"), py::arg("output"), py::arg("scales"), py::arg("zero_points"), py::arg("scale"),
        py::arg("zero_point"), py::arg("from_dtype"), py::arg("to_dtype"), py::arg("shape"),
        py::arg("stream"), limit());
  };
  bind("quantize", &quantize);
  bind("dequantize", &dequantize);
  m.def(
      "quantize_dynamic_workspace",
      [](const Extents& shape) { return quantize_dynamic_workspace(grouped(shape)); }, py::arg("shape"));
  m.def(
      "quantize_dynamic",
      [](Pointer input, Pointer output, Pointer scales, Pointer workspace, int from, const Extents& shape,
         Pointer stream, std::int64_t largest_index) {
        quantize_dynamic(dtype_of(from), grouped(shape), pointer(input), pointer(output),
                         pointer<float>(scales), pointer(workspace), stream, largest_index);
      },
      py::arg("input"), py::arg("output"), py::arg("scales"), py::arg("workspace"), py::arg("from_dtype"),
      py::arg("shape"), py::arg("stream"), limit());
}

}  // namespace cnnkernels::quantize
