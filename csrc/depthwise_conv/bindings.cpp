// depthwise_conv2d's Python face: pointers as integers, the geometry, an optional plan.
#include "../common/bind.h"
#include "depthwise_conv.h"
#include "describe.h"

namespace cnnkernels::depthwise_conv {

namespace {

depthwise_conv::Problem problem(int dtype, int layout, const ConvGeometry& geometry) {
  return {of_planes(geometry), layout_of(layout), dtype_of(dtype)};
}

void bind_plan(py::module_& m) {
  py::enum_<Direction>(m, "DepthwiseConvDirection", py::module_local())
      .value("forward", Direction::forward)
      .value("backward_input", Direction::backward_input)
      .value("backward_weight", Direction::backward_weight);
  py::class_<Plan>(m, "DepthwiseConvPlan", py::module_local())
      .def(py::init<>())
      .def_readwrite("vector", &Plan::vector)
      .def_readwrite("chunk", &Plan::chunk)
      .def_readwrite("slab", &Plan::slab)
      .def_readwrite("band", &Plan::band)
      .def_readwrite("lanes", &Plan::lanes)
      .def_readwrite("strips", &Plan::strips)
      .def_readwrite("lines", &Plan::lines)
      .def_readwrite("images", &Plan::images)
      .def_readwrite("tiles", &Plan::tiles)
      .def_readwrite("workers", &Plan::workers)
      .def_readwrite("splits", &Plan::splits)
      .def("__repr__", &describe);
}

}  // namespace

void bind(py::module_& m) {
  bind_plan(m);
  const py::arg_v plan = py::arg("plan") = static_cast<const Plan*>(nullptr);

  m.def(
      "depthwise_conv_forward",
      [](Pointer input, Pointer weight, Pointer bias, Pointer output, int dtype, int layout,
         const ConvGeometry& geometry, Pointer stream, const Plan* plan) {
        forward(problem(dtype, layout, geometry), pointer(input), pointer(weight), pointer(bias),
                pointer(output), stream, plan);
      },
      py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("output"), py::arg("dtype"),
      py::arg("layout"), py::arg("geometry"), py::arg("stream"), plan);

  m.def(
      "depthwise_conv_backward_input",
      [](Pointer grad_output, Pointer weight, Pointer grad_input, int dtype, int layout,
         const ConvGeometry& geometry, Pointer stream, const Plan* plan, Pointer bias) {
        backward_input(problem(dtype, layout, geometry), pointer(grad_output), pointer(weight), pointer(bias),
                       pointer(grad_input), stream, plan);
      },
      py::arg("grad_output"), py::arg("weight"), py::arg("grad_input"), py::arg("dtype"), py::arg("layout"),
      py::arg("geometry"), py::arg("stream"), plan, py::arg("bias") = 0);

  m.def(
      "depthwise_conv_backward_weight",
      [](Pointer grad_output, Pointer input, Pointer grad_weight, Pointer workspace, int dtype, int layout,
         const ConvGeometry& geometry, Pointer stream, const Plan* plan) {
        backward_weight(problem(dtype, layout, geometry), pointer(grad_output), pointer(input),
                        pointer(grad_weight), pointer(workspace), stream, plan);
      },
      py::arg("grad_output"), py::arg("input"), py::arg("grad_weight"), py::arg("workspace"),
      py::arg("dtype"), py::arg("layout"), py::arg("geometry"), py::arg("stream"), plan);

  m.def(
      "depthwise_conv_backward_weight_workspace",
      [](int dtype, int layout, const ConvGeometry& geometry, const Plan* plan) {
        return backward_weight_workspace(problem(dtype, layout, geometry), plan);
      },
      py::arg("dtype"), py::arg("layout"), py::arg("geometry"), plan);

  m.def(
      "depthwise_conv_plan",
      [](Direction direction, int dtype, int layout, const ConvGeometry& geometry) {
        return plan_of(direction, problem(dtype, layout, geometry));
      },
      "What the selection would do.", py::arg("direction"), py::arg("dtype"), py::arg("layout"),
      py::arg("geometry"));
}

}  // namespace cnnkernels::depthwise_conv
