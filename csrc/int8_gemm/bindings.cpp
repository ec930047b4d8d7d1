// int8_gemm's Python face: pointers as integers, sizes, strides, an optional plan.
#include <pybind11/operators.h>
#include <pybind11/stl.h>

#include "describe.h"
#include "../common/bind.h"
#include "int8_gemm.h"

namespace cnnkernels::int8_gemm {

namespace {

// m, n, k; then of a and of b: pointer, row stride, column stride.
using Sizes = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
using Place = std::tuple<Pointer, std::int64_t, std::int64_t>;

Problem problem(const Sizes& sizes, const Place& a, const Place& b, bool unsigned_a) {
  const auto matrix = [](const Place& place) {
    const auto& [data, row_stride, column_stride] = place;
    return Matrix{pointer(data), row_stride, column_stride};
  };
  const auto& [m, n, k] = sizes;
  return {m, n, k, matrix(a), matrix(b), unsigned_a};
}

}  // namespace

void bind(py::module_& m) {
  py::enum_<Kernel>(m, "Int8GemmKernel", py::module_local())
      .value("tiles", Kernel::tiles)
      .value("stream_weights", Kernel::stream_weights);
  py::class_<Plan>(m, "Int8GemmPlan", py::module_local())
      .def(py::init<>())
      .def_readwrite("kernel", &Plan::kernel)
      .def_readwrite("tiles", &Plan::tiles)
      .def_readwrite("pack_a", &Plan::pack_a)
      .def_readwrite("pack_b", &Plan::pack_b)
      .def_readwrite("stream_columns", &Plan::stream_columns)
      .def_readwrite("warps", &Plan::warps)
      .def(py::self == py::self)
      .def("__repr__", [](const Plan& plan) { return describe(plan); });
  const py::arg_v plan = py::arg("plan") = static_cast<const Plan*>(nullptr);

  m.def(
      "int8_gemm",
      [](const Sizes& sizes, const Place& a, const Place& b, bool unsigned_a, const int8::Epilogue& epilogue,
         Pointer output, Pointer workspace, Pointer stream, const Plan* plan) {
        forward(problem(sizes, a, b, unsigned_a), epilogue, pointer(output), pointer(workspace), stream,
                plan);
      },
      py::arg("sizes"), py::arg("a"), py::arg("b"), py::arg("unsigned_a"), py::arg("epilogue"),
      py::arg("output"), py::arg("workspace"), py::arg("stream"), plan);
  m.def(
      "int8_gemm_workspace",
      [](const Sizes& sizes, const Place& a, const Place& b, bool unsigned_a, const int8::Epilogue& epilogue,
         const Plan* plan) { return workspace(problem(sizes, a, b, unsigned_a), epilogue, plan); },
      py::arg("sizes"), py::arg("a"), py::arg("b"), py::arg("unsigned_a"), py::arg("epilogue"), plan);
  m.def(
      "int8_gemm_plan",
      [](const Sizes& sizes, const Place& a, const Place& b, bool unsigned_a, const Gpu& gpu) {
        return select(problem(sizes, a, b, unsigned_a), gpu);
      },
      "What the selection would do on a GPU.", py::arg("sizes"), py::arg("a"), py::arg("b"),
      py::arg("unsigned_a"), py::arg("gpu"));
  m.def(
      "int8_gemm_candidates",
      [](const Sizes& sizes, const Place& a, const Place& b, bool unsigned_a, const Gpu& gpu) {
        std::vector<std::tuple<Plan, std::string, double>> all;
        for (const auto& c : candidates(problem(sizes, a, b, unsigned_a), gpu))
          all.emplace_back(c.plan, c.why_not == nullptr ? "" : c.why_not, c.seconds);
        return all;
      },
      "Every candidate: its plan, why it cannot serve (or nothing), the model's seconds.", py::arg("sizes"),
      py::arg("a"), py::arg("b"), py::arg("unsigned_a"), py::arg("gpu"));
}

}  // namespace cnnkernels::int8_gemm
