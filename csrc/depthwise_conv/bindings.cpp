// depthwise_conv2d's Python face: pointers as integers, the geometry, an optional plan.
#include <pybind11/pybind11.h>

#include "depthwise_conv.h"
#include "describe.h"

namespace py = pybind11;

namespace cnnkernels::depthwise_conv {

namespace {

using depthwise_conv::Plan;

depthwise_conv::Problem problem(int dtype, int layout, const ConvGeometry& geometry) {
  return {of_planes(geometry), static_cast<Layout>(layout), static_cast<DType>(dtype)};
}

template <class T = void>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

void bind_plan(py::module_& m) {
  py::enum_<depthwise_conv::Direction>(m, "DepthwiseConvDirection", py::module_local())
      .value("forward", depthwise_conv::Direction::forward)
      .value("backward_input", depthwise_conv::Direction::backward_input)
      .value("backward_weight", depthwise_conv::Direction::backward_weight);
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
      .def("__repr__", &depthwise_conv::describe);
}

}  // namespace

void bind(py::module_& m) {
  bind_plan(m);
  const py::arg_v plan = py::arg("plan") = static_cast<const Plan*>(nullptr);

  m.def(
      "depthwise_conv_forward",
      [](std::uintptr_t input, std::uintptr_t weight, std::uintptr_t bias, std::uintptr_t output, int dtype,
         int layout, const ConvGeometry& geometry, std::uintptr_t stream, const Plan* plan) {
        depthwise_conv::forward(problem(dtype, layout, geometry), pointer(input), pointer(weight),
                                pointer(bias), pointer(output), stream, plan);
      },
      py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("output"), py::arg("dtype"),
      py::arg("layout"), py::arg("geometry"), py::arg("stream"), plan);

  m.def(
      "depthwise_conv_backward_input",
      [](std::uintptr_t grad_output, std::uintptr_t weight, std::uintptr_t grad_input, int dtype, int layout,
         const ConvGeometry& geometry, std::uintptr_t stream, const Plan* plan) {
        depthwise_conv::backward_input(problem(dtype, layout, geometry), pointer(grad_output),
                                       pointer(weight), pointer(grad_input), stream, plan);
      },
      py::arg("grad_output"), py::arg("weight"), py::arg("grad_input"), py::arg("dtype"), py::arg("layout"),
      py::arg("geometry"), py::arg("stream"), plan);

  m.def(
      "depthwise_conv_backward_weight",
      [](std::uintptr_t grad_output, std::uintptr_t input, std::uintptr_t grad_weight,
         std::uintptr_t workspace, int dtype, int layout, const ConvGeometry& geometry, std::uintptr_t stream,
         const Plan* plan) {
        depthwise_conv::backward_weight(problem(dtype, layout, geometry), pointer(grad_output),
                                        pointer(input), pointer(grad_weight), pointer(workspace), stream,
                                        plan);
      },
      py::arg("grad_output"), py::arg("input"), py::arg("grad_weight"), py::arg("workspace"),
      py::arg("dtype"), py::arg("layout"), py::arg("geometry"), py::arg("stream"), plan);

  m.def(
      "depthwise_conv_backward_weight_workspace",
      [](int dtype, int layout, const ConvGeometry& geometry, const Plan* plan) {
        return depthwise_conv::backward_weight_workspace(problem(dtype, layout, geometry), plan);
      },
      py::arg("dtype"), py::arg("layout"), py::arg("geometry"), plan);

  m.def(
      "depthwise_conv_plan",
      [](depthwise_conv::Direction direction, int dtype, int layout, const ConvGeometry& geometry) {
        return depthwise_conv::plan_of(direction, problem(dtype, layout, geometry));
      },
      "What the selection would do.", py::arg("direction"), py::arg("dtype"), py::arg("layout"),
      py::arg("geometry"));
}

}  // namespace cnnkernels::depthwise_conv
