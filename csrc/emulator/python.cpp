// The module cnnkernels._emulator: PTX text and addresses in, a Fault as an exception out.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "emulator/fault.h"
#include "emulator/launch.h"
#include "emulator/profile/python.h"
#include "emulator/ptx/program.h"

namespace cnnkernels::emulator {

namespace py = pybind11;

void bind_models(py::module_& module);  // bind_models.cpp

namespace {

using Triple = std::array<std::uint32_t, 3>;

Extent extent(const Triple& triple) { return {triple[0], triple[1], triple[2]}; }

Mode mode(bool random, std::uint64_t seed, bool late, bool starve, bool warps_meet, bool races, int threads,
          const std::vector<std::pair<std::uintptr_t, std::size_t>>& memory, bool reversed, bool unasked) {
  Mode mode;
  mode.order = random ? Order::random : reversed ? Order::reversed : Order::ordered;
  mode.seed = seed;
  mode.late = late;
  mode.unasked = unasked;
  mode.starve = starve;
  mode.warps_meet = warps_meet;
  mode.races = races;
  mode.threads = threads;
  for (const auto& [begin, bytes] : memory) mode.memory.push_back({begin, bytes});
  return mode;
}

Launch launch_of(const std::string& entry, const Triple& grid, const Triple& block, const Triple& cluster,
                 std::uint32_t shared_bytes, const py::bytes& parameters) {
  const std::string_view bytes = parameters;
  Launch launch{entry, extent(grid), extent(block), extent(cluster), shared_bytes, {}};
  launch.parameters.resize(bytes.size());
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(launch.parameters.data()));
  return launch;
}

Counts run_bytes(const Program& program, const std::string& entry, const Triple& grid, const Triple& block,
                 const Triple& cluster, std::uint32_t shared_bytes, const py::bytes& parameters,
                 const Mode& mode) {
  const Launch launch = launch_of(entry, grid, block, cluster, shared_bytes, parameters);
  const py::gil_scoped_release release;
  return run(program, launch, mode);
}

py::dict profile_bytes(const Program& program, const std::string& entry, const Triple& grid,
                       const Triple& block, const Triple& cluster, std::uint32_t shared_bytes,
                       const py::bytes& parameters, const Mode& mode, std::uint64_t blocks) {
  const Launch launch = launch_of(entry, grid, block, cluster, shared_bytes, parameters);
  Profile found;
  {
    const py::gil_scoped_release release;
    found = profile(program, launch, mode, blocks);
  }
  return as_dict(found);
}

}  // namespace

PYBIND11_MODULE(_emulator, module) {
  module.doc() = "Runs PTX on the host.";
  py::register_exception<Fault>(module, "EmulatorFault", PyExc_RuntimeError);

  py::class_<Parameter>(module, "Parameter")
      .def_readonly("name", &Parameter::name)
      .def_readonly("offset", &Parameter::offset)
      .def_readonly("bytes", &Parameter::bytes)
      .def_readonly("align", &Parameter::align);
  py::class_<Entry>(module, "Entry")
      .def_readonly("name", &Entry::name)
      .def_readonly("parameters", &Entry::parameters)
      .def_readonly("static_shared_bytes", &Entry::static_shared_bytes)
      .def_readonly("most_threads", &Entry::most_threads);
  py::class_<Counts>(module, "Counts")
      .def_readonly("warp_instructions", &Counts::warp_instructions)
      .def_readonly("thread_instructions", &Counts::thread_instructions);
  py::class_<Mode>(module, "Mode")
      .def(py::init(&mode), py::kw_only(), py::arg("random") = false, py::arg("seed") = 0,
           py::arg("late") = true, py::arg("starve") = false, py::arg("warps_meet") = true,
           py::arg("races") = true, py::arg("threads") = 0,
           py::arg("memory") = std::vector<std::pair<std::uintptr_t, std::size_t>>(),
           py::arg("reversed") = false, py::arg("unasked") = false);
  py::class_<Program, std::shared_ptr<Program>>(module, "Program");

  module.def(
      "parse",
      [](std::string_view text, std::string_view name) {
        const py::gil_scoped_release release;
        return std::const_pointer_cast<Program>(parse(text, name));
      },
      py::arg("text"), py::arg("name") = "kernel.ptx");
  module.def("entries", [](const Program& program) { return entries(program); });
  module.def("run", &run_bytes, py::arg("program"), py::arg("entry"), py::kw_only(), py::arg("grid"),
             py::arg("block"), py::arg("cluster") = Triple{1, 1, 1}, py::arg("shared_bytes") = 0,
             py::arg("parameters"), py::arg("mode") = Mode());
  module.def("profile", &profile_bytes, py::arg("program"), py::arg("entry"), py::kw_only(), py::arg("grid"),
             py::arg("block"), py::arg("cluster") = Triple{1, 1, 1}, py::arg("shared_bytes") = 0,
             py::arg("parameters"), py::arg("mode") = Mode(), py::arg("blocks") = 0,
             "Runs a sample of so many of the launch's blocks, 0: all, and returns what was executed.");
  bind_models(module);
}

}  // namespace cnnkernels::emulator
