// The face of the test kernels: _interpreter_tests, _cuda_tests, _emulated_tests and _emulated_cutlass_tests,
// compiled once as csrc/bindings.cpp is.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../../csrc/common/raised_limits.h"
#include "registry.h"

namespace py = pybind11;

namespace cnnkernels {

[[gnu::weak]] void bind_interpreter(py::module_& m);  // null where csrc/interpreter is not
[[gnu::weak]] void bind_emulated(py::module_& m);     // null where csrc/emulator/runtime is not
namespace emulator {
[[gnu::weak]] void bind_models(py::module_& m);  // the same
}

namespace tests {
namespace {

void bind_module(py::module_& m) {
  if (bind_interpreter != nullptr) bind_interpreter(m);
  if (bind_emulated != nullptr) bind_emulated(m);
  if (emulator::bind_models != nullptr) emulator::bind_models(m);
  m.def(
      "run",
      [](const std::string& name, const py::args& values, std::uintptr_t stream) {
        std::vector<std::int64_t> numbers;
        for (const py::handle v : values) numbers.push_back(py::cast<std::int64_t>(v));
        for (const Registration* r = Registration::first(); r != nullptr; r = r->next) {
          if (name == r->name) return r->launcher(Arguments(std::move(numbers), stream));
        }
        throw std::invalid_argument("no test kernel is named '" + name + "'");
      },
      py::arg("name"), py::kw_only(), py::arg("stream") = 0);
  py::class_<RaisedLimits>(m, "RaisedLimits", py::module_local())
      .def(py::init<>())
      .def("allow", [](RaisedLimits& limits, std::uintptr_t kernel, int device, std::size_t bytes,
                       const py::function& raise) {
        limits.allow(reinterpret_cast<const void*>(kernel), device, bytes, [&] { raise(); });
      });
  m.def("names", [] {
    std::vector<std::string> all;
    for (const Registration* r = Registration::first(); r != nullptr; r = r->next) all.emplace_back(r->name);
    return all;
  });
}

}  // namespace
}  // namespace tests
}  // namespace cnnkernels

PYBIND11_MODULE(_cuda_tests, m) { cnnkernels::tests::bind_module(m); }
PYBIND11_MODULE(_emulated_cutlass_tests, m) { cnnkernels::tests::bind_module(m); }
PYBIND11_MODULE(_emulated_tests, m) { cnnkernels::tests::bind_module(m); }
PYBIND11_MODULE(_interpreter_tests, m) { cnnkernels::tests::bind_module(m); }
