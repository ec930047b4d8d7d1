// The models' part of the Python module: tensor maps, and models that are wrong on purpose.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>

#include "emulator/tensor_map.h"
#include "emulator/wrong_model.h"

namespace py = pybind11;

namespace cnnkernels::emulator {
namespace {

template <class Number, std::size_t size>
void copy_into(Number (&to)[size], const std::vector<std::int64_t>& from) {
  if (from.size() > size) throw std::invalid_argument("a tensor map has at most five dimensions");
  for (std::size_t i = 0; i < from.size(); ++i) to[i] = static_cast<Number>(from[i]);
}

using Numbers = std::vector<std::int64_t>;

py::bytes encoded(const TensorMap& map) {
  std::array<std::byte, kTensorMapBytes> bytes;
  encode(map, bytes);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TensorMap common(int type, std::uint64_t address, const Numbers& sizes, const Numbers& strides, int swizzle,
                 bool nan_fill) {
  TensorMap map;
  map.type = static_cast<MapType>(type);
  map.address = address;
  map.rank = static_cast<std::uint8_t>(sizes.size());
  copy_into(map.sizes, sizes);
  for (std::size_t i = 0; i < strides.size() && i + 1 < kMostDimensions; ++i) {
    map.strides[i + 1] = static_cast<std::uint64_t>(strides[i]);
  }
  map.swizzle_bytes = static_cast<std::uint8_t>(swizzle);
  map.nan_fill = nan_fill;
  return map;
}

}  // namespace

void bind_models(py::module_& m) {
  m.def("set_wrong_model", &set_wrong_model, py::arg("name"),
        "Makes a model of the hardware wrong on purpose, in the whole process; '' makes all right.");
  m.def("wrong_models", &wrong_models);
  m.def(
      "tiled_map",
      [](int type, std::uint64_t address, const Numbers& sizes, const Numbers& strides, const Numbers& box,
         const Numbers& element_strides, int swizzle, bool nan_fill) {
        TensorMap map = common(type, address, sizes, strides, swizzle, nan_fill);
        copy_into(map.box, box);
        copy_into(map.element_strides, element_strides);
        return encoded(map);
      },
      py::arg("type"), py::arg("address"), py::arg("sizes"), py::arg("strides"), py::arg("box"),
      py::kw_only(), py::arg("element_strides") = Numbers(), py::arg("swizzle") = 0,
      py::arg("nan_fill") = false,
      "The 128 bytes of a tiled tensor map; innermost dimension first, strides in bytes of all dimensions "
      "but it.");
  m.def(
      "im2col_map",
      [](int type, std::uint64_t address, const Numbers& sizes, const Numbers& strides, const Numbers& lower,
         const Numbers& upper, int channels, int pixels, const Numbers& element_strides, int swizzle,
         bool nan_fill) {
        TensorMap map = common(type, address, sizes, strides, swizzle, nan_fill);
        map.im2col = true;
        copy_into(map.lower, lower);
        copy_into(map.upper, upper);
        map.channels = static_cast<std::uint32_t>(channels);
        map.pixels = static_cast<std::uint32_t>(pixels);
        copy_into(map.element_strides, element_strides);
        return encoded(map);
      },
      py::arg("type"), py::arg("address"), py::arg("sizes"), py::arg("strides"), py::arg("lower"),
      py::arg("upper"), py::arg("channels"), py::arg("pixels"), py::kw_only(),
      py::arg("element_strides") = Numbers(), py::arg("swizzle") = 0, py::arg("nan_fill") = false,
      "The same of a tensor map for im2col.");
}

}  // namespace cnnkernels::emulator
