// The Python face of norm.h, as cnnkernels/native/norm.py calls it.
#include <array>
#include <utility>

#include <pybind11/stl.h>

#include "../common/bind.h"
#include "norm.h"

namespace cnnkernels::norm {
namespace {

using Sizes = std::array<std::int64_t, 3>;
using Given = std::pair<Pointer, int>;  // an address, 0 for none, and a type

Shape shape_of(const Sizes& sizes) { return {sizes[0], sizes[1], sizes[2]}; }
Numbers numbers_of(const Given& given) { return {pointer(given.first), given.second}; }

// mean, var, weight, bias; then eps, activation and its slope.
Normalization normalization_of(const std::array<Given, 4>& given, double eps, int activation, double slope) {
  return {numbers_of(given[0]),
          numbers_of(given[1]),
          numbers_of(given[2]),
          numbers_of(given[3]),
          eps,
          slope,
          activation};
}

}  // namespace

void bind(py::module_& m) {
  m.def(
      "batch_norm_workspace",
      [](int dtype, const Sizes& sizes) { return workspace(dtype_of(dtype), shape_of(sizes)); },
      py::arg("dtype"), py::arg("sizes"));
  m.def(
      "batch_norm_statistics",
      [](Pointer input, Pointer mean, Pointer var, Pointer workspace, int dtype, const Sizes& sizes,
         const Given& running_mean, const Given& running_var, double momentum, Pointer stream) {
        statistics(dtype_of(dtype), shape_of(sizes), pointer(input), pointer(mean), pointer(var),
                   numbers_of(running_mean), numbers_of(running_var), momentum, pointer(workspace), stream);
      },
      py::arg("input"), py::arg("mean"), py::arg("var"), py::arg("workspace"), py::arg("dtype"),
      py::arg("sizes"), py::arg("running_mean"), py::arg("running_var"), py::arg("momentum"),
      py::arg("stream"));
  m.def(
      "batch_norm_normalize",
      [](Pointer input, Pointer residual, Pointer output, int dtype, const Sizes& sizes,
         const std::array<Given, 4>& numbers, double eps, int activation, double slope, Pointer stream) {
        normalize(dtype_of(dtype), shape_of(sizes), normalization_of(numbers, eps, activation, slope),
                  pointer(input), pointer(residual), pointer(output), stream);
      },
      py::arg("input"), py::arg("residual"), py::arg("output"), py::arg("dtype"), py::arg("sizes"),
      py::arg("numbers"), py::arg("eps"), py::arg("activation"), py::arg("slope"), py::arg("stream"));
  m.def(
      "batch_norm_backward",
      [](Pointer grad_output, Pointer input, Pointer residual, Pointer output, Pointer grad_input,
         Pointer grad_residual, Pointer workspace, int dtype, const Sizes& sizes,
         const std::array<Given, 4>& numbers, double eps, int activation, double slope, bool training,
         const Given& grad_weight, const Given& grad_bias, Pointer stream) {
        backward(
            dtype_of(dtype), shape_of(sizes), normalization_of(numbers, eps, activation, slope), training,
            {pointer(grad_output), pointer(input), pointer(residual), pointer(output), pointer(grad_input),
             pointer(grad_residual), numbers_of(grad_weight), numbers_of(grad_bias)},
            pointer(workspace), stream);
      },
      py::arg("grad_output"), py::arg("input"), py::arg("residual"), py::arg("output"), py::arg("grad_input"),
      py::arg("grad_residual"), py::arg("workspace"), py::arg("dtype"), py::arg("sizes"), py::arg("numbers"),
      py::arg("eps"), py::arg("activation"), py::arg("slope"), py::arg("training"), py::arg("grad_weight"),
      py::arg("grad_bias"), py::arg("stream"));
  m.def(
      "batch_norm_sums",
      [](Pointer a, Pointer b, Pointer center, Pointer result, Pointer workspace, int dtype,
         const Sizes& sizes, Pointer stream) {
        sums(dtype_of(dtype), shape_of(sizes), pointer(a), pointer(b), pointer(center), pointer(result),
             pointer(workspace), stream);
      },
      py::arg("a"), py::arg("b"), py::arg("center"), py::arg("sums"), py::arg("workspace"), py::arg("dtype"),
      py::arg("sizes"), py::arg("stream"));
  m.def(
      "batch_norm_combine",
      [](Pointer x, Pointer a, Pointer b, Pointer result, Pointer gamma, Pointer center, Pointer delta,
         Pointer alpha, Pointer beta, int dtype, const Sizes& sizes, Pointer stream) {
        combine(dtype_of(dtype), shape_of(sizes),
                {pointer(gamma), pointer(center), pointer(delta), pointer(alpha), pointer(beta)}, pointer(x),
                pointer(a), pointer(b), pointer(result), stream);
      },
      py::arg("x"), py::arg("a"), py::arg("b"), py::arg("result"), py::arg("gamma"), py::arg("center"),
      py::arg("delta"), py::arg("alpha"), py::arg("beta"), py::arg("dtype"), py::arg("sizes"),
      py::arg("stream"));
}

}  // namespace cnnkernels::norm
