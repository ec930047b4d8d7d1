// conv2d's Python face: pointers as integers, the geometry, an optional plan.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "selection.h"

namespace py = pybind11;

namespace cnnkernels::conv2d {

namespace {

using conv2d::Plan;

conv2d::Problem problem(int dtype, int layout, bool tf32, const Conv2dGeometry& geometry) {
  return {geometry, static_cast<Layout>(layout), static_cast<DType>(dtype), tf32};
}

template <class T = void>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// Rows and columns; a 2 where two tiles alternate, 1 and the blocks of a cluster where there is one, so that
// no two tiles of an engine have one name.
py::tuple shape_of(const conv2d::Tile& tile) {
  if (tile.cluster > 1) return py::make_tuple(tile.rows, tile.columns, 1, tile.cluster);
  if (tile.ping_pong) return py::make_tuple(tile.rows, tile.columns, 2);
  return py::make_tuple(tile.rows, tile.columns);
}

void bind_plan(py::module_& m) {
  py::enum_<conv2d::Loader>(m, "Conv2dLoader", py::module_local())
      .value("along_depth", conv2d::Loader::along_depth)
      .value("along_side", conv2d::Loader::along_side)
      .value("elements", conv2d::Loader::elements);
  py::enum_<conv2d::Engine>(m, "Conv2dEngine", py::module_local())
      .value("fma", conv2d::Engine::fma)
      .value("mma", conv2d::Engine::mma)
      .value("wgmma", conv2d::Engine::wgmma)
      .value("grouped", conv2d::Engine::grouped);
  py::enum_<conv2d::Direction>(m, "Conv2dDirection", py::module_local())
      .value("forward", conv2d::Direction::forward)
      .value("backward_input", conv2d::Direction::backward_input)
      .value("backward_weight", conv2d::Direction::backward_weight);
  py::enum_<conv2d::Packing>(m, "Conv2dPacking", py::module_local())
      .value("none", conv2d::Packing::none)
      .value("channels", conv2d::Packing::channels)
      .value("rows", conv2d::Packing::rows);
  py::class_<Plan>(m, "Conv2dPlan", py::module_local())
      .def(py::init<>())
      .def_readwrite("engine", &Plan::engine)
      .def_readwrite("tile", &Plan::tile)
      .def_readwrite("a", &Plan::a)
      .def_readwrite("b", &Plan::b)
      .def_readwrite("splits", &Plan::splits)
      .def_readwrite("blocks", &Plan::blocks)
      .def_readwrite("packing", &Plan::packing)
      .def_readwrite("images", &Plan::images)
      .def_readwrite("binding", &Plan::binding)
      .def("__eq__", &Plan::operator==)
      .def_property_readonly("tile_shape", [](const Plan& plan) { return shape_of(conv2d::tile_of(plan)); })
      .def("__repr__", &conv2d::describe);
  m.attr("conv2d_tiles") = conv2d::kTileCount;
  m.attr("conv2d_hopper_tiles") = conv2d::kHopperTileCount;
  const auto shapes = [](const auto& tiles) {
    py::list found;
    for (const conv2d::Tile& tile : tiles) found.append(shape_of(tile));
    return found;
  };
  py::dict by_engine;
  by_engine["fma"] = shapes(conv2d::kTiles);
  by_engine["mma"] = shapes(conv2d::kTiles);
  by_engine["wgmma"] = shapes(conv2d::kHopperTiles);
  by_engine["grouped"] = shapes(conv2d::kGroupedTiles);
  m.attr("conv2d_tile_shapes") = by_engine;
}

void bind_selection(py::module_& m) {
  using conv2d::Candidate, conv2d::Cost, conv2d::Explanation;
  py::class_<Machine>(m, "Machine", py::module_local())
      .def_readonly("name", &Machine::name)
      .def_readonly("device", &Machine::device)
      .def_readonly("architecture", &Machine::architecture)
      .def_readonly("processors", &Machine::processors)
      .def_readonly("tensor16", &Machine::tensor16)
      .def_readonly("tensor_tf32", &Machine::tensor_tf32)
      .def_readonly("fma32", &Machine::fma32)
      .def_readonly("fma64", &Machine::fma64)
      .def_readonly("memory", &Machine::memory)
      .def_readwrite("wgmma", &Machine::wgmma)
      .def_property_readonly("why_not_wgmma", &why_not_wgmma)
      .def_property_readonly("block_bytes", &Machine::block_bytes);
  m.attr("reached_of_peak") = kReachedOfPeak;
  m.attr("reached_of_memory") = kReachedOfMemory;
  m.def("machines", [] { return std::vector<Machine>(std::begin(kMachines), std::end(kMachines)); });
  m.def("machine_named", &machine_named, py::arg("name"));
  m.def(
      "this_machine", [] { return Machine(this_machine()); },
      "The current device, with what the driver loads on it; what the interpreter stands for.");
  m.def("machine_like", &machine_like,
        "A GPU by its driver's name, 10 times its compute capability, its SMs.", py::arg("device"),
        py::arg("architecture"), py::arg("processors"));

  py::class_<Cost>(m, "Conv2dCost", py::module_local())
      .def_readonly("tiles", &Cost::tiles)
      .def_readonly("waves", &Cost::waves)
      .def_readonly("useful", &Cost::useful)
      .def_readonly("arithmetic", &Cost::arithmetic)
      .def_readonly("operands", &Cost::operands)
      .def_readonly("filling", &Cost::filling)
      .def_readonly("writing", &Cost::writing)
      .def_readonly("memory", &Cost::memory)
      .def_readonly("seconds", &Cost::seconds);
  py::class_<Candidate>(m, "Conv2dCandidate", py::module_local())
      .def_readonly("plan", &Candidate::plan)
      .def_readonly("why_not", &Candidate::why_not)
      .def_readonly("cost", &Candidate::cost);
  py::class_<conv2d::Part>(m, "Conv2dPart", py::module_local())
      .def_readonly("rows", &conv2d::Part::rows)
      .def_readonly("columns", &conv2d::Part::columns)
      .def_readonly("depth", &conv2d::Part::depth)
      .def_readonly("groups", &conv2d::Part::groups)
      .def_readonly("a", &conv2d::Part::a)
      .def_readonly("b", &conv2d::Part::b)
      .def_property_readonly("candidates",
                             [](const conv2d::Part& part) {
                               const auto& all = part.selection.candidates;
                               return std::vector<Candidate>(all.begin(), all.begin() + part.selection.count);
                             })
      .def_property_readonly("chosen", [](const conv2d::Part& part) { return part.selection.chosen; });
  py::class_<Explanation>(m, "Conv2dExplanation", py::module_local())
      .def_readonly("packing", &Explanation::packing)
      .def_readonly("why_packed", &Explanation::why_packed)
      .def_readonly("judged_none", &Explanation::judged_none)
      .def_readonly("judged_channels", &Explanation::judged_channels)
      .def_readonly("judged_rows", &Explanation::judged_rows)
      .def_readonly("copy_bytes", &Explanation::copy_bytes)
      .def_readonly("copy_seconds", &Explanation::copy_seconds)
      .def_readonly("copy_launches", &Explanation::copy_launches)
      .def_readonly("parts", &Explanation::parts)
      .def_readonly("grouped", &Explanation::grouped)
      .def_readonly("why_not_grouped", &Explanation::why_not_grouped)
      .def_readonly("chosen_grouped", &Explanation::chosen_grouped)
      .def_readonly("wgmma", &Explanation::wgmma)
      .def_readonly("why_not_wgmma", &Explanation::why_not_wgmma)
      .def_readonly("chosen_wgmma", &Explanation::chosen_wgmma)
      .def_readonly("tuned", &Explanation::tuned);
  m.def(
      "conv2d_explain",
      [](conv2d::Direction direction, int dtype, int layout, bool tf32, const Conv2dGeometry& geometry,
         const Machine& machine, const Plan* tuned) {
        return conv2d::explain(direction, problem(dtype, layout, tf32, geometry), machine, tuned);
      },
      "What the selection would do on a machine.", py::arg("direction"), py::arg("dtype"), py::arg("layout"),
      py::arg("tf32"), py::arg("geometry"), py::arg("machine"),
      py::arg("tuned") = static_cast<const Plan*>(nullptr));
}

}  // namespace

void bind(py::module_& m) {
  bind_plan(m);
  bind_selection(m);
  const py::arg_v plan = py::arg("plan") = static_cast<const Plan*>(nullptr);

  m.def(
      "conv2d_forward",
      [](std::uintptr_t input, std::uintptr_t weight, std::uintptr_t bias, std::uintptr_t output, int dtype,
         int layout, bool tf32, const Conv2dGeometry& geometry, std::uintptr_t stream, const Plan* plan,
         std::uintptr_t scale, std::uintptr_t shift, std::uintptr_t residual, int activation, double slope,
         std::uintptr_t workspace) {
        conv2d::forward(problem(dtype, layout, tf32, geometry), pointer(input), pointer(weight),
                        {.bias = pointer(bias),
                         .scale = pointer(scale),
                         .shift = pointer(shift),
                         .residual = pointer(residual),
                         .activation = static_cast<Activation>(activation),
                         .slope = slope},
                        pointer(output), pointer(workspace), stream, plan);
      },
      py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("output"), py::arg("dtype"),
      py::arg("layout"), py::arg("tf32"), py::arg("geometry"), py::arg("stream"), plan, py::arg("scale") = 0,
      py::arg("shift") = 0, py::arg("residual") = 0, py::arg("activation") = 0, py::arg("slope") = 0.0,
      py::arg("workspace") = 0);

  m.def(
      "conv2d_backward_input",
      [](std::uintptr_t grad_output, std::uintptr_t weight, std::uintptr_t grad_input, int dtype, int layout,
         bool tf32, const Conv2dGeometry& geometry, std::uintptr_t stream, const Plan* plan,
         std::uintptr_t workspace) {
        conv2d::backward_input(problem(dtype, layout, tf32, geometry), pointer(grad_output), pointer(weight),
                               pointer(grad_input), pointer(workspace), stream, plan);
      },
      py::arg("grad_output"), py::arg("weight"), py::arg("grad_input"), py::arg("dtype"), py::arg("layout"),
      py::arg("tf32"), py::arg("geometry"), py::arg("stream"), plan, py::arg("workspace") = 0);

  m.def(
      "conv2d_backward_weight",
      [](std::uintptr_t grad_output, std::uintptr_t input, std::uintptr_t grad_weight,
         std::uintptr_t workspace, int dtype, int layout, bool tf32, const Conv2dGeometry& geometry,
         std::uintptr_t stream, const Plan* plan) {
        conv2d::backward_weight(problem(dtype, layout, tf32, geometry), pointer(grad_output), pointer(input),
                                pointer(grad_weight), pointer(workspace), stream, plan);
      },
      py::arg("grad_output"), py::arg("input"), py::arg("grad_weight"), py::arg("workspace"),
      py::arg("dtype"), py::arg("layout"), py::arg("tf32"), py::arg("geometry"), py::arg("stream"), plan);

  m.def(
      "conv2d_workspace",
      [](conv2d::Direction direction, int dtype, int layout, bool tf32, const Conv2dGeometry& geometry,
         const Plan* plan, std::uintptr_t first, std::uintptr_t second, std::uintptr_t result,
         std::uintptr_t residual) {
        return conv2d::workspace_bytes(direction, problem(dtype, layout, tf32, geometry),
                                       {pointer(first), pointer(second), pointer(result), pointer(residual)},
                                       plan);
      },
      "Bytes that a launcher needs; of addresses it matters whether they are aligned, 0 counts as aligned.",
      py::arg("direction"), py::arg("dtype"), py::arg("layout"), py::arg("tf32"), py::arg("geometry"), plan,
      py::arg("first") = 0, py::arg("second") = 0, py::arg("result") = 0, py::arg("residual") = 0);

  m.def(
      "conv2d_backward_bias",
      [](std::uintptr_t grad_output, std::uintptr_t grad_bias, std::uintptr_t workspace, int dtype,
         int layout, const Conv2dGeometry& geometry, std::uintptr_t stream) {
        conv2d::backward_bias(problem(dtype, layout, false, geometry), pointer(grad_output),
                              pointer(grad_bias), pointer(workspace), stream);
      },
      py::arg("grad_output"), py::arg("grad_bias"), py::arg("workspace"), py::arg("dtype"), py::arg("layout"),
      py::arg("geometry"), py::arg("stream"));

  m.def(
      "conv2d_backward_bias_workspace",
      [](int dtype, int layout, const Conv2dGeometry& geometry) {
        return conv2d::backward_bias_workspace(problem(dtype, layout, false, geometry));
      },
      py::arg("dtype"), py::arg("layout"), py::arg("geometry"));

  m.def(
      "conv2d_why_copy_border",
      [](conv2d::Direction direction, int dtype, int layout, bool tf32, const Conv2dGeometry& geometry,
         std::uintptr_t first, std::uintptr_t second, const Machine* machine) {
        return conv2d::why_copy_border(direction, problem(dtype, layout, tf32, geometry),
                                       machine != nullptr ? *machine : this_machine(), pointer(first),
                                       pointer(second));
      },
      "Why a border is copied before the launch; empty where it is read through the index.",
      py::arg("direction"), py::arg("dtype"), py::arg("layout"), py::arg("tf32"), py::arg("geometry"),
      py::arg("first") = 0, py::arg("second") = 0, py::arg("machine") = static_cast<const Machine*>(nullptr));

  m.def(
      "conv2d_plans",
      [](conv2d::Direction direction, int dtype, int layout, bool tf32, const Conv2dGeometry& geometry) {
        return conv2d::plans(direction, problem(dtype, layout, tf32, geometry));
      },
      "What the launchers would do here: one plan, or one for each phase of backward_input.",
      py::arg("direction"), py::arg("dtype"), py::arg("layout"), py::arg("tf32"), py::arg("geometry"));
}

}  // namespace cnnkernels::conv2d
