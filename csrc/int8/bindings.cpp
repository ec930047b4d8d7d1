// The Python face of what INT8 operators share: their epilogue and the plan of an implicit GEMM.
#include <pybind11/operators.h>
#include <pybind11/stl.h>

#include "../common/bind.h"
#include "epilogue.h"
#include "describe.h"

namespace cnnkernels::int8 {

namespace {

// A number known on the host, or the address of one (step 0) or many (step 1).
template <class T>
int8::Number<T> number(const std::tuple<T, Pointer, std::int64_t>& given) {
  const auto& [value, address, step] = given;
  return {.value = value, .data = pointer<const T>(address), .step = step};
}

}  // namespace

void bind(py::module_& m) {
  using Real = std::tuple<float, Pointer, std::int64_t>;
  using Integer = std::tuple<std::int32_t, Pointer, std::int64_t>;
  py::class_<Epilogue>(m, "Int8Epilogue", py::module_local())
      .def(py::init([](int out_dtype, const Real& scale_a, const Real& scale_b, const Integer& zero_point_a,
                       const Integer& zero_point_b, Pointer sums_b, Pointer bias, Pointer residual,
                       int residual_dtype, float residual_scale, std::int32_t residual_zero_point,
                       int activation, float slope, const Real& out_scale, std::int32_t out_zero_point) {
             Epilogue e;
             e.out_dtype = dtype_of(out_dtype);
             e.scale_a = number(scale_a);
             e.scale_b = number(scale_b);
             e.zero_point_a = number(zero_point_a);
             e.zero_point_b = number(zero_point_b);
             e.sums_b = pointer<std::int32_t>(sums_b);
             e.bias = pointer<float>(bias);
             e.residual = pointer<void>(residual);
             e.residual_dtype = dtype_of(residual_dtype);
             e.residual_scale = residual_scale;
             e.residual_zero_point = residual_zero_point;
             e.activation = static_cast<Activation>(activation);
             e.slope = slope;
             e.out_scale = number(out_scale);
             e.out_zero_point = out_zero_point;
             return e;
           }),
           py::arg("out_dtype"), py::arg("scale_a"), py::arg("scale_b"), py::arg("zero_point_a"),
           py::arg("zero_point_b"), py::arg("sums_b"), py::arg("bias"), py::arg("residual"),
           py::arg("residual_dtype"), py::arg("residual_scale"), py::arg("residual_zero_point"),
           py::arg("activation"), py::arg("slope"), py::arg("out_scale"), py::arg("out_zero_point"));

  py::class_<Plan>(m, "Int8Plan", py::module_local())
      .def(py::init<bool, int, int, bool, int>(), py::arg("vectors"), py::arg("tile"), py::arg("splits") = 1,
           py::arg("wgmma") = false, py::arg("blocks") = 0)
      .def_readwrite("vectors", &Plan::vectors)
      .def_readwrite("tile", &Plan::tile)
      .def_readwrite("splits", &Plan::splits)
      .def_readwrite("wgmma", &Plan::wgmma)
      .def_readwrite("blocks", &Plan::blocks)
      .def(py::self == py::self)
      .def("__repr__", [](const Plan& plan) { return describe(plan); });
  std::vector<std::pair<int, int>> tiles;
  for (const Tile& tile : kTiles) tiles.emplace_back(tile.rows, tile.columns);
  m.attr("int8_tiles") = tiles;
  std::vector<std::tuple<int, int, bool, int, bool>> of_sm90;
  for (const Sm90Tile& t : kSm90Tiles)
    of_sm90.emplace_back(t.rows, t.columns, t.ping_pong, t.cluster, t.short_runs);
  m.attr("int8_sm90_tiles") = of_sm90;  // rows, columns, ping-pong, cluster, short runs
}

}  // namespace cnnkernels::int8
