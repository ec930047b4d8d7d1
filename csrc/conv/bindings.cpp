// conv2d's Python face: pointers as integers, the geometry, an optional plan.
#include <pybind11/stl.h>

#include "../common/bind.h"
#include "describe.h"
#include "selection.h"

namespace cnnkernels::conv {

namespace {

conv::Problem problem(int dtype, int layout, bool tf32, const ConvGeometry& geometry) {
  return {of_planes(geometry), layout_of(layout), dtype_of(dtype), tf32};
}

Epilogue epilogue(Pointer bias, Pointer scale, Pointer shift, Pointer residual, int activation,
                  double slope) {
  return {.bias = pointer(bias),
          .scale = pointer(scale),
          .shift = pointer(shift),
          .residual = pointer(residual),
          .activation = static_cast<Activation>(activation),
          .slope = slope};
}

// Rows and columns; a 2 where two tiles alternate, 1 and the blocks of a cluster where there is one, so that
// no two tiles of an engine have one name.
py::tuple shape_of(const Tile& tile) {
  if (tile.cluster > 1) return py::make_tuple(tile.rows, tile.columns, 1, tile.cluster);
  if (tile.ping_pong) return py::make_tuple(tile.rows, tile.columns, 2);
  return py::make_tuple(tile.rows, tile.columns);
}

void bind_plan(py::module_& m) {
  py::enum_<Loader>(m, "ConvLoader", py::module_local())
      .value("along_depth", Loader::along_depth)
      .value("along_side", Loader::along_side)
      .value("elements", Loader::elements);
  py::enum_<Engine>(m, "ConvEngine", py::module_local())
      .value("fma", Engine::fma)
      .value("mma", Engine::mma)
      .value("wgmma", Engine::wgmma)
      .value("grouped", Engine::grouped);
  py::enum_<Direction>(m, "ConvDirection", py::module_local())
      .value("forward", Direction::forward)
      .value("backward_input", Direction::backward_input)
      .value("backward_weight", Direction::backward_weight);
  py::enum_<Packing>(m, "ConvPacking", py::module_local())
      .value("none", Packing::none)
      .value("channels", Packing::channels)
      .value("rows", Packing::rows);
  py::class_<Plan>(m, "ConvPlan", py::module_local())
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
      .def_property_readonly("tile_shape", [](const Plan& plan) { return shape_of(tile_of(plan)); })
      .def("__repr__", &describe);
  m.attr("conv_tiles") = kTileCount;
  m.attr("conv_sm90_tiles") = kSm90TileCount;
  const auto shapes = [](const auto& tiles) {
    py::list found;
    for (const Tile& tile : tiles) found.append(shape_of(tile));
    return found;
  };
  py::dict by_engine;
  by_engine["fma"] = shapes(kTiles);
  by_engine["mma"] = shapes(kTiles);
  by_engine["wgmma"] = shapes(kSm90Tiles);
  by_engine["grouped"] = shapes(kGroupedTiles);
  m.attr("conv_tile_shapes") = by_engine;
}

void bind_selection(py::module_& m) {
  py::class_<Gpu>(m, "Gpu", py::module_local())
      .def_readonly("name", &Gpu::name)
      .def_readonly("device", &Gpu::device)
      .def_readonly("architecture", &Gpu::architecture)
      .def_readonly("processors", &Gpu::processors)
      .def_readonly("clock", &Gpu::clock)
      .def_readonly("tensor16", &Gpu::tensor16)
      .def_readonly("tensor_tf32", &Gpu::tensor_tf32)
      .def_readonly("fma32", &Gpu::fma32)
      .def_readonly("fma64", &Gpu::fma64)
      .def_readonly("mma_share", &Gpu::mma_share)
      .def_readonly("memory", &Gpu::memory)
      .def_readonly("l2", &Gpu::l2)
      .def_readwrite("wgmma", &Gpu::wgmma)
      .def_property_readonly("why_not_wgmma", &why_not_wgmma)
      .def_property_readonly("block_bytes", &Gpu::block_bytes);
  m.attr("reached_of_peak") = kReachedOfPeak;
  m.attr("reached_of_memory") = kReachedOfMemory;
  m.def("gpus", [] { return std::vector<Gpu>(std::begin(kGpus), std::end(kGpus)); });
  m.def("gpu_named", [](const std::string& name) { return gpu_named(name.c_str()); }, py::arg("name"));
  m.def(
      "this_gpu", [] { return Gpu(this_gpu()); },
      "The current device, with what the driver loads on it; what the interpreter stands for.");
  m.def(
      "gpu_like",
      [](const std::string& device, int architecture, int processors) {
        return gpu_like(device.c_str(), architecture, processors);
      },
      "A GPU by its driver's name, 10 times its compute capability, its SMs.", py::arg("device"),
      py::arg("architecture"), py::arg("processors"));

  py::class_<Cost>(m, "ConvCost", py::module_local())
      .def_readonly("tiles", &Cost::tiles)
      .def_readonly("waves", &Cost::waves)
      .def_readonly("useful", &Cost::useful)
      .def_readonly("arithmetic", &Cost::arithmetic)
      .def_readonly("operands", &Cost::operands)
      .def_readonly("limit", &Cost::limit)
      .def_readonly("filling", &Cost::filling)
      .def_readonly("writing", &Cost::writing)
      .def_readonly("memory", &Cost::memory)
      .def_readonly("seconds", &Cost::seconds);
  py::class_<Candidate>(m, "ConvCandidate", py::module_local())
      .def_readonly("plan", &Candidate::plan)
      .def_readonly("why_not", &Candidate::why_not)
      .def_readonly("cost", &Candidate::cost);
  py::class_<Part>(m, "ConvPart", py::module_local())
      .def_readonly("rows", &Part::rows)
      .def_readonly("columns", &Part::columns)
      .def_readonly("depth", &Part::depth)
      .def_readonly("groups", &Part::groups)
      .def_readonly("a", &Part::a)
      .def_readonly("b", &Part::b)
      .def_property_readonly("candidates",
                             [](const Part& part) {
                               const auto& all = part.selection.candidates;
                               return std::vector<Candidate>(all.begin(), all.begin() + part.selection.count);
                             })
      .def_property_readonly("chosen", [](const Part& part) { return part.selection.chosen; });
  py::class_<Explanation>(m, "ConvExplanation", py::module_local())
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
      "conv_explain",
      [](Direction direction, int dtype, int layout, bool tf32, const ConvGeometry& geometry, const Gpu& gpu,
         const Plan* tuned) {
        return explain(direction, problem(dtype, layout, tf32, geometry), gpu, tuned);
      },
      "What the selection would do on a GPU.", py::arg("direction"), py::arg("dtype"), py::arg("layout"),
      py::arg("tf32"), py::arg("geometry"), py::arg("gpu"),
      py::arg("tuned") = static_cast<const Plan*>(nullptr));
}

}  // namespace

void bind(py::module_& m) {
  bind_plan(m);
  bind_selection(m);
  const py::arg_v plan = py::arg("plan") = static_cast<const Plan*>(nullptr);

  m.def(
      "conv_forward",
      [](Pointer input, Pointer weight, Pointer bias, Pointer output, int dtype, int layout, bool tf32,
         const ConvGeometry& geometry, Pointer stream, const Plan* plan, Pointer scale, Pointer shift,
         Pointer residual, int activation, double slope, Pointer workspace) {
        forward(problem(dtype, layout, tf32, geometry), pointer(input), pointer(weight),
                epilogue(bias, scale, shift, residual, activation, slope), pointer(output),
                pointer(workspace), stream, plan);
      },
      py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("output"), py::arg("dtype"),
      py::arg("layout"), py::arg("tf32"), py::arg("geometry"), py::arg("stream"), plan, py::arg("scale") = 0,
      py::arg("shift") = 0, py::arg("residual") = 0, py::arg("activation") = 0, py::arg("slope") = 0.0,
      py::arg("workspace") = 0);

  m.def(
      "conv_backward_input",
      [](Pointer grad_output, Pointer weight, Pointer grad_input, int dtype, int layout, bool tf32,
         const ConvGeometry& geometry, Pointer stream, const Plan* plan, Pointer workspace, Pointer bias,
         Pointer scale, Pointer shift, Pointer residual, int activation, double slope) {
        backward_input(problem(dtype, layout, tf32, geometry), pointer(grad_output), pointer(weight),
                       epilogue(bias, scale, shift, residual, activation, slope), pointer(grad_input),
                       pointer(workspace), stream, plan);
      },
      py::arg("grad_output"), py::arg("weight"), py::arg("grad_input"), py::arg("dtype"), py::arg("layout"),
      py::arg("tf32"), py::arg("geometry"), py::arg("stream"), plan, py::arg("workspace") = 0,
      py::arg("bias") = 0, py::arg("scale") = 0, py::arg("shift") = 0, py::arg("residual") = 0,
      py::arg("activation") = 0, py::arg("slope") = 0.0);

  m.def(
      "conv_backward_weight",
      [](Pointer grad_output, Pointer input, Pointer grad_weight, Pointer workspace, int dtype, int layout,
         bool tf32, const ConvGeometry& geometry, Pointer stream, const Plan* plan) {
        backward_weight(problem(dtype, layout, tf32, geometry), pointer(grad_output), pointer(input),
                        pointer(grad_weight), pointer(workspace), stream, plan);
      },
      py::arg("grad_output"), py::arg("input"), py::arg("grad_weight"), py::arg("workspace"),
      py::arg("dtype"), py::arg("layout"), py::arg("tf32"), py::arg("geometry"), py::arg("stream"), plan);

  m.def(
      "conv_workspace",
      [](Direction direction, int dtype, int layout, bool tf32, const ConvGeometry& geometry,
         const Plan* plan, Pointer first, Pointer second, Pointer result, Pointer residual) {
        return workspace_bytes(direction, problem(dtype, layout, tf32, geometry),
                               {pointer(first), pointer(second), pointer(result), pointer(residual)}, plan);
      },
      "Bytes that a launcher needs; of addresses it matters whether they are aligned, 0 counts as aligned.",
      py::arg("direction"), py::arg("dtype"), py::arg("layout"), py::arg("tf32"), py::arg("geometry"), plan,
      py::arg("first") = 0, py::arg("second") = 0, py::arg("result") = 0, py::arg("residual") = 0);

  m.def(
      "conv_backward_bias",
      [](Pointer grad_output, Pointer grad_bias, Pointer workspace, int dtype, int layout,
         const ConvGeometry& geometry, Pointer stream) {
        backward_bias(problem(dtype, layout, false, geometry), pointer(grad_output), pointer(grad_bias),
                      pointer(workspace), stream);
      },
      py::arg("grad_output"), py::arg("grad_bias"), py::arg("workspace"), py::arg("dtype"), py::arg("layout"),
      py::arg("geometry"), py::arg("stream"));

  m.def(
      "conv_backward_bias_workspace",
      [](int dtype, int layout, const ConvGeometry& geometry) {
        return backward_bias_workspace(problem(dtype, layout, false, geometry));
      },
      py::arg("dtype"), py::arg("layout"), py::arg("geometry"));

  m.def(
      "conv_why_copy_border",
      [](Direction direction, int dtype, int layout, bool tf32, const ConvGeometry& geometry, Pointer first,
         Pointer second, const Gpu* gpu) {
        return why_copy_border(direction, problem(dtype, layout, tf32, geometry),
                               gpu != nullptr ? *gpu : this_gpu(), pointer(first), pointer(second));
      },
      "Why a border is copied before the launch; empty where it is read through the index.",
      py::arg("direction"), py::arg("dtype"), py::arg("layout"), py::arg("tf32"), py::arg("geometry"),
      py::arg("first") = 0, py::arg("second") = 0, py::arg("gpu") = static_cast<const Gpu*>(nullptr));

  m.def(
      "conv_plans",
      [](Direction direction, int dtype, int layout, bool tf32, const ConvGeometry& geometry) {
        return plans(direction, problem(dtype, layout, tf32, geometry));
      },
      "What the launchers would do here: one plan, or one for each phase of backward_input.",
      py::arg("direction"), py::arg("dtype"), py::arg("layout"), py::arg("tf32"), py::arg("geometry"));
}

}  // namespace cnnkernels::conv
