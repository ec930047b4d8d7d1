// int8_conv's Python face: pointers as integers, the geometry, an optional plan.
#include <pybind11/operators.h>

#include "describe.h"
#include "../common/bind.h"
#include "int8_conv.h"

namespace cnnkernels::int8_conv {

void bind(py::module_& m) {
  py::enum_<Kernel>(m, "Int8ConvKernel", py::module_local())
      .value("tiles", Kernel::tiles)
      .value("depthwise", Kernel::depthwise)
      .value("grouped", Kernel::grouped);
  py::class_<Plan>(m, "Int8ConvPlan", py::module_local())
      .def(py::init<>())
      .def_readwrite("kernel", &Plan::kernel)
      .def_readwrite("tiles", &Plan::tiles)
      .def(py::self == py::self)
      .def("__repr__", [](const Plan& plan) { return describe(plan); });
  const py::arg_v plan = py::arg("plan") = static_cast<const Plan*>(nullptr);

  m.def(
      "int8_conv",
      [](Pointer input, Pointer weight, Pointer output, Pointer workspace, const ConvGeometry& geometry,
         bool unsigned_input, const int8::Epilogue& epilogue, Pointer stream, const Plan* plan) {
        forward({of_planes(geometry), unsigned_input}, pointer(input), pointer(weight), epilogue,
                pointer(output), pointer(workspace), stream, plan);
      },
      py::arg("input"), py::arg("weight"), py::arg("output"), py::arg("workspace"), py::arg("geometry"),
      py::arg("unsigned_input"), py::arg("epilogue"), py::arg("stream"), plan);
  m.def(
      "int8_conv_workspace",
      [](const ConvGeometry& geometry, bool unsigned_input, const int8::Epilogue& epilogue, bool aligned,
         const Plan* plan) {
        return workspace({of_planes(geometry), unsigned_input}, epilogue, aligned, plan);
      },
      py::arg("geometry"), py::arg("unsigned_input"), py::arg("epilogue"), py::arg("aligned"), plan);
  m.def(
      "int8_conv_plan",
      [](const ConvGeometry& geometry, bool unsigned_input, bool aligned, const Gpu& gpu) {
        return select({of_planes(geometry), unsigned_input}, aligned, gpu);
      },
      "What the selection would do on a GPU.", py::arg("geometry"), py::arg("unsigned_input"),
      py::arg("aligned"), py::arg("gpu"));
}

}  // namespace cnnkernels::int8_conv
