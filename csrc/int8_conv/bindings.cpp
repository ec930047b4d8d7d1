// int8_conv's Python face: pointers as integers, the geometry, an optional plan.
#include <pybind11/operators.h>
#include <pybind11/pybind11.h>

#include "int8_conv.h"

namespace py = pybind11;

namespace cnnkernels::int8_conv {

void bind(py::module_& m) {
  using int8_conv::Plan;
  py::enum_<int8_conv::Kernel>(m, "Int8ConvKernel", py::module_local())
      .value("tiles", int8_conv::Kernel::tiles)
      .value("depthwise", int8_conv::Kernel::depthwise)
      .value("grouped", int8_conv::Kernel::grouped);
  py::class_<Plan>(m, "Int8ConvPlan", py::module_local())
      .def(py::init<>())
      .def_readwrite("kernel", &Plan::kernel)
      .def_readwrite("tiles", &Plan::tiles)
      .def(py::self == py::self)
      .def("__repr__", [](const Plan& plan) { return int8_conv::describe(plan); });
  const py::arg_v plan = py::arg("plan") = static_cast<const Plan*>(nullptr);

  m.def(
      "int8_conv",
      [](std::uintptr_t input, std::uintptr_t weight, std::uintptr_t output, std::uintptr_t workspace,
         const ConvGeometry& geometry, bool unsigned_input, const int8::Epilogue& epilogue,
         std::uintptr_t stream, const Plan* plan) {
        int8_conv::forward({of_planes(geometry), unsigned_input}, reinterpret_cast<const void*>(input),
                           reinterpret_cast<const void*>(weight), epilogue, reinterpret_cast<void*>(output),
                           reinterpret_cast<void*>(workspace), stream, plan);
      },
      py::arg("input"), py::arg("weight"), py::arg("output"), py::arg("workspace"), py::arg("geometry"),
      py::arg("unsigned_input"), py::arg("epilogue"), py::arg("stream"), plan);
  m.def(
      "int8_conv_workspace",
      [](const ConvGeometry& geometry, bool unsigned_input, const int8::Epilogue& epilogue, bool aligned,
         const Plan* plan) {
        return int8_conv::workspace({of_planes(geometry), unsigned_input}, epilogue, aligned, plan);
      },
      py::arg("geometry"), py::arg("unsigned_input"), py::arg("epilogue"), py::arg("aligned"), plan);
  m.def(
      "int8_conv_plan",
      [](const ConvGeometry& geometry, bool unsigned_input, bool aligned, const Gpu& gpu) {
        return int8_conv::select({of_planes(geometry), unsigned_input}, aligned, gpu);
      },
      "What the selection would do on a GPU.", py::arg("geometry"), py::arg("unsigned_input"),
      py::arg("aligned"), py::arg("gpu"));
}

}  // namespace cnnkernels::int8_conv
