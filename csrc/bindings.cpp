// The Python face of the native modules. Pointers, sizes and a stream come in as plain numbers; shapes were
// checked and memory allocated by the caller. Compiled once for all, which takes a third: each module has all
// initializers, and Python calls the one of its name.
#include <pybind11/pybind11.h>

#include "common/activation_kind.h"
#include "common/cuda_versions.h"
#include "common/geometry.h"
#include "common/giving_way.h"
#include "common/gpu.h"
#include "common/types.h"

namespace py = pybind11;

namespace cnnkernels {

// One per operator, in csrc/<operator>/bindings.cpp; int8 is what the INT8 operators share (csrc/int8).
// clang-format off
namespace conv { void bind(py::module_& m); }
namespace depthwise_conv { void bind(py::module_& m); }
namespace depthwise_separable_conv { void bind(py::module_& m); }
namespace int8 { void bind(py::module_& m); }
namespace int8_conv { void bind(py::module_& m); }
namespace int8_gemm { void bind(py::module_& m); }
namespace int8_pool { void bind(py::module_& m); }
namespace int8_weight_only_linear { void bind(py::module_& m); }
namespace norm { void bind(py::module_& m); }
namespace pool { void bind(py::module_& m); }
namespace quantize { void bind(py::module_& m); }
// clang-format on
[[gnu::weak]] void bind_interpreter(py::module_& m);  // null where csrc/interpreter is not
[[gnu::weak]] void bind_emulated(py::module_& m);     // null where csrc/emulator/runtime is not

namespace {

template <class G, std::size_t... I>
auto constructor(std::index_sequence<I...>) {
  return py::init([](decltype((void)I, std::int64_t{})... fields) { return G{fields...}; });
}

template <std::size_t... I>
auto with_padding_mode(std::index_sequence<I...>) {
  return py::init([](decltype((void)I, std::int64_t{})... fields, int mode) {
    return ConvGeometry{fields..., static_cast<PaddingMode>(mode)};
  });
}

void bind_geometry(py::module_& m) {
  py::class_<ConvGeometry>(m, "ConvGeometry", py::module_local())
      .def(constructor<ConvGeometry>(std::make_index_sequence<22>{}))
      .def(with_padding_mode(std::make_index_sequence<22>{}));
  py::class_<PoolGeometry>(m, "PoolGeometry", py::module_local())
      .def(constructor<PoolGeometry>(std::make_index_sequence<20>{}));
}

// What Python counts too (cnnkernels/dtypes.py, geometry.py, activation.py), for tests/house to compare.
void bind_numbers(py::module_& m) {
  const auto named = [](std::initializer_list<const char*> names, auto... values) {
    py::dict found;
    auto name = names.begin();
    ((found[*name++] = static_cast<int>(values)), ...);
    return found;
  };
  py::dict numbers;
  numbers["DType"] =
      named({"float64", "float32", "float16", "bfloat16", "int8", "uint8", "uint16", "int32", "int64"},
            DType::float64, DType::float32, DType::float16, DType::bfloat16, DType::int8, DType::uint8,
            DType::uint16, DType::int32, DType::int64);
  numbers["Layout"] = named({"nchw", "nhwc"}, Layout::nchw, Layout::nhwc);
  numbers["PaddingMode"] = named({"zeros", "reflect", "replicate", "circular"}, PaddingMode::zeros,
                                 PaddingMode::reflect, PaddingMode::replicate, PaddingMode::circular);
  numbers["Activation"] = named({"none", "relu", "relu6", "leaky_relu", "silu", "gelu", "hardswish"},
                                Activation::none, Activation::relu, Activation::relu6, Activation::leaky_relu,
                                Activation::silu, Activation::gelu, Activation::hardswish);
  m.attr("numbers") = numbers;
}

// Of architectures, sm_90a is machine code and compute_80 is PTX.
void bind_module(py::module_& m, const char* built_for) {
  m.doc() = "Native kernels of cnnkernels: launchers that take pointers, geometry and a stream.";
  m.attr("built_for") = built_for;
  m.def(
      "cuda_versions",
      [] {
        const CudaVersions found = cuda_versions();
        return py::make_tuple(found.runtime, found.driver);
      },
      "Of the CUDA the kernels were built with, and the newest the driver serves: 12040 is 12.4, 0 none.");
  m.def("oldest_driver", &oldest_driver, "The release of the driver that a CUDA needs.", py::arg("runtime"));
  m.def(
      "why_not_driver", [](int runtime, int driver) { return why_not_driver({runtime, driver}); },
      "Why a driver cannot serve a CUDA; empty where it can.", py::arg("runtime"), py::arg("driver"));
  m.def(
      "give_way",
      [](const std::string& word, const std::string& direction, const std::string& engine, int dtype,
         int device,
         bool gives) { give_way(word, direction, engine, static_cast<DType>(dtype), device, gives); },
      "Has selection pass an engine over on a GPU, as it failed its proof there, or no longer.",
      py::arg("word"), py::arg("direction"), py::arg("engine"), py::arg("dtype"), py::arg("device") = 0,
      py::arg("gives") = true);
  bind_geometry(m);
  bind_numbers(m);
  conv::bind(m);
  depthwise_conv::bind(m);
  depthwise_separable_conv::bind(m);
  int8::bind(m);
  int8_conv::bind(m);
  int8_gemm::bind(m);
  int8_pool::bind(m);
  int8_weight_only_linear::bind(m);
  norm::bind(m);
  pool::bind(m);
  quantize::bind(m);
  if (bind_emulated != nullptr) bind_emulated(m);
  if (bind_interpreter == nullptr) return;
  m.def("stand_for", &stand_for,
        "Has the interpreter select as that GPU would, and refuse launches that it could not run.",
        py::arg("gpu"));
  stand_for(this_gpu());
  bind_interpreter(m);
}

}  // namespace
}  // namespace cnnkernels

PYBIND11_MODULE(_cuda, m) { cnnkernels::bind_module(m, CNN_BUILT_FOR_CUDA); }
PYBIND11_MODULE(_emulated, m) { cnnkernels::bind_module(m, CNN_BUILT_FOR_CUDA); }
PYBIND11_MODULE(_interpreter, m) { cnnkernels::bind_module(m, CNN_BUILT_FOR_INTERPRETER); }
