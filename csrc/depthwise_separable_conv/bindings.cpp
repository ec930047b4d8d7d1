// depthwise_separable_conv2d's Python face: pointers as integers, the geometry, an optional plan.
#include "../common/bind.h"
#include "../common/gpu.h"
#include "depthwise_separable_conv.h"
#include "describe.h"

namespace cnnkernels::depthwise_separable_conv {

namespace {

void bind_plan(py::module_& m) {
  py::enum_<Reader>(m, "DepthwiseSeparableReader", py::module_local())
      .value("rows_of_three", Reader::rows_of_three)
      .value("vectors", Reader::vectors)
      .value("elements", Reader::elements);
  py::class_<Plan>(m, "DepthwiseSeparablePlan", py::module_local())
      .def(py::init<>())
      .def_readwrite("tile", &Plan::tile)
      .def_readwrite("reader", &Plan::reader)
      .def_readwrite("keeps", &Plan::keeps)
      .def_readwrite("wgmma", &Plan::wgmma)
      .def_readwrite("patch_columns", &Plan::patch_columns)
      .def_property_readonly(
          "tile_shape",
          [](const Plan& plan) { return std::pair(kTiles[plan.tile].rows, kTiles[plan.tile].columns); })
      .def("__repr__", &describe);
  m.attr("depthwise_separable_conv_tiles") = kTileCount;
}

void bind_backward(py::module_& m) {
  py::class_<BackwardPlan>(m, "DepthwiseSeparableBackwardPlan", py::module_local())
      .def(py::init<>())
      .def_readwrite("reader", &BackwardPlan::reader)
      .def_readwrite("parts", &BackwardPlan::parts);
  const py::arg_v plan = py::arg("plan") = static_cast<const BackwardPlan*>(nullptr);

  m.def(
      "depthwise_separable_conv_backward",
      [](Pointer grad_output, Pointer input, Pointer depthwise_weight, Pointer pointwise_weight,
         Pointer depthwise_bias, Pointer intermediate, Pointer grad_intermediate, Pointer grad_pointwise,
         Pointer workspace, int dtype, int layout, const ConvGeometry& geometry, std::int64_t filters,
         int activation, double negative_slope, Pointer stream, const BackwardPlan* plan) {
        Problem problem{of_planes(geometry), filters, layout_of(layout), dtype_of(dtype), false};
        problem.depthwise_activation = static_cast<Activation>(activation);
        problem.slope = negative_slope;
        const BackwardTensors tensors{
            pointer(grad_output),       pointer(input),          pointer(depthwise_weight),
            pointer(pointwise_weight),  pointer(depthwise_bias), pointer(intermediate),
            pointer(grad_intermediate), pointer(grad_pointwise), pointer(workspace)};
        backward(problem, tensors, stream, plan);
      },
      py::arg("grad_output"), py::arg("input"), py::arg("depthwise_weight"), py::arg("pointwise_weight"),
      py::arg("depthwise_bias"), py::arg("intermediate"), py::arg("grad_intermediate"),
      py::arg("grad_pointwise"), py::arg("workspace"), py::arg("dtype"), py::arg("layout"),
      py::arg("geometry"), py::arg("filters"), py::arg("activation"), py::arg("negative_slope"),
      py::arg("stream"), plan);

  m.def(
      "depthwise_separable_conv_backward_workspace",
      [](int dtype, int layout, const ConvGeometry& geometry, std::int64_t filters,
         const BackwardPlan* plan) {
        const Problem problem{of_planes(geometry), filters, layout_of(layout), dtype_of(dtype), false};
        return backward_workspace(problem, plan);
      },
      py::arg("dtype"), py::arg("layout"), py::arg("geometry"), py::arg("filters"), plan);

  m.def(
      "depthwise_separable_conv_fuses_backward",
      [](int dtype, std::int64_t filters, bool tf32) {
        return fuses_backward({ConvGeometry{}, filters, Layout::nhwc, dtype_of(dtype), tf32});
      },
      "Does the fused backward pay?", py::arg("dtype"), py::arg("filters"), py::arg("tf32"));
}

}  // namespace

void bind(py::module_& m) {
  bind_plan(m);
  bind_backward(m);
  const py::arg_v plan = py::arg("plan") = static_cast<const Plan*>(nullptr);

  m.def(
      "depthwise_separable_conv_forward",
      [](Pointer input, Pointer depthwise_weight, Pointer pointwise_weight, Pointer depthwise_bias,
         Pointer pointwise_bias, Pointer output, Pointer intermediate, int dtype, int layout, bool tf32,
         const ConvGeometry& geometry, std::int64_t filters, int depthwise_activation,
         int pointwise_activation, double negative_slope, Pointer stream, const Plan* plan) {
        const Problem problem{of_planes(geometry),
                              filters,
                              layout_of(layout),
                              dtype_of(dtype),
                              tf32,
                              static_cast<Activation>(depthwise_activation),
                              static_cast<Activation>(pointwise_activation),
                              negative_slope};
        const Tensors tensors{pointer(input),          pointer(depthwise_weight), pointer(pointwise_weight),
                              pointer(depthwise_bias), pointer(pointwise_bias),   pointer(output),
                              pointer(intermediate)};
        forward(problem, tensors, stream, plan);
      },
      py::arg("input"), py::arg("depthwise_weight"), py::arg("pointwise_weight"), py::arg("depthwise_bias"),
      py::arg("pointwise_bias"), py::arg("output"), py::arg("intermediate"), py::arg("dtype"),
      py::arg("layout"), py::arg("tf32"), py::arg("geometry"), py::arg("filters"),
      py::arg("depthwise_activation"), py::arg("pointwise_activation"), py::arg("negative_slope"),
      py::arg("stream"), plan);

  m.def(
      "depthwise_separable_conv_intermediate",
      [](Pointer input, Pointer weight, Pointer bias, Pointer intermediate_, int dtype, int layout,
         const ConvGeometry& geometry, Pointer stream, const Plan* plan) {
        const Problem problem{of_planes(geometry), 1, layout_of(layout), dtype_of(dtype), false};
        Tensors tensors;
        tensors.input = pointer(input);
        tensors.depthwise_weight = pointer(weight);
        tensors.depthwise_bias = pointer(bias);
        tensors.intermediate = pointer(intermediate_);
        intermediate(problem, tensors, stream, plan);
      },
      py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("intermediate"), py::arg("dtype"),
      py::arg("layout"), py::arg("geometry"), py::arg("stream"), plan);

  m.def(
      "depthwise_separable_conv_plan",
      [](int dtype, int layout, bool tf32, const ConvGeometry& geometry, std::int64_t filters,
         const Gpu* gpu) {
        const Problem problem{of_planes(geometry), filters, layout_of(layout), dtype_of(dtype), tf32};
        return plan_for(problem, gpu != nullptr ? *gpu : this_gpu());
      },
      "What the selection would do on a GPU, or on the one at hand.", py::arg("dtype"), py::arg("layout"),
      py::arg("tf32"), py::arg("geometry"), py::arg("filters"),
      py::arg("gpu") = static_cast<const Gpu*>(nullptr));
}

}  // namespace cnnkernels::depthwise_separable_conv
