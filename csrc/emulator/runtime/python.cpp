// The face in Python of the runtime without a device: which GPU it is, how kernels run, what was launched,
// and the calls of CUDA that no operator makes in a wrong way. Part of _emulated and of the module of its
// tests, each with a runtime of its own.
#include <array>
#include <optional>
#include <string>
#include <vector>

#include <cuda.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../fault.h"
#include "../profile/python.h"
#include "device.h"
#include "driver.h"
#include "guarded.h"
#include "images.h"
#include "launch.h"
#include "mode.h"

namespace py = pybind11;

namespace cnnkernels {
namespace {

namespace runtime = emulator::runtime;

// The archive that the build put beside the module, opened when the first kernel is looked for.
py::object archive(const py::object& module) {
  const py::object path = py::module_::import("pathlib").attr("Path")(module.attr("__file__"));
  const py::str stem = module.attr("__name__").attr("rpartition")(".").cast<py::tuple>()[2];
  return py::module_::import("zipfile").attr("ZipFile")(
      path.attr("with_name")(py::str("{}.zip").format(stem)));
}

std::vector<runtime::Image> read_index(const py::object& files) {
  std::vector<runtime::Image> images;
  for (const py::handle item : py::module_::import("json").attr("loads")(files.attr("read")("index.json"))) {
    runtime::Image image;
    image.file = py::cast<std::string>(item["file"]);
    image.source = image.file.substr(0, image.file.rfind('/'));
    for (const py::handle code : item["codes"])
      image.codes.push_back(runtime::code_named(py::cast<std::string>(code)));
    for (const auto& [name, codes] : py::cast<py::dict>(item["kernels"])) {
      auto& usage = image.kernels[py::cast<std::string>(name)];
      for (const auto& [code, numbers] : py::cast<py::dict>(codes)) {
        const auto [registers, shared_bytes] = py::cast<std::array<int, 2>>(numbers);
        usage[runtime::code_named(py::cast<std::string>(code)).architecture] = {registers, shared_bytes};
      }
    }
    images.push_back(std::move(image));
  }
  return images;
}

void bind_mode(py::module_& m) {
  m.def(
      "set_schedule",
      [](const std::string& order, std::int64_t seed, const std::string& delivery, std::optional<bool> starve,
         std::optional<bool> warps_meet, std::optional<bool> races) {
        emulator::Mode next = runtime::mode();
        if (!order.empty()) next.order = runtime::order_named(order, "order");
        if (seed >= 0) next.seed = static_cast<std::uint64_t>(seed);
        if (!delivery.empty()) runtime::set_delivery(next, delivery, "delivery");
        next.starve = starve.value_or(next.starve);
        next.warps_meet = warps_meet.value_or(next.warps_meet);
        next.races = races.value_or(next.races);
        runtime::set_mode(next);
      },
      py::arg("order") = "", py::arg("seed") = -1, py::arg("delivery") = "", py::kw_only(),
      py::arg("starve") = py::none(), py::arg("warps_meet") = py::none(), py::arg("races") = py::none(),
      "Sets the order of warps and blocks ('ordered', 'reversed', 'random'), the seed of what is random, "
      "when\n"
      "asynchronous work appears ('late', 'random', 'early'), and what csrc/emulator/launch.h says of a "
      "Mode,\n"
      "for all launches to come.");
  m.def("schedule", [] {
    const emulator::Mode mode = runtime::mode();
    py::dict d;
    d["order"] = runtime::name(mode.order);
    d["seed"] = mode.seed;
    d["delivery"] = runtime::name_of_delivery(mode);
    d["starve"] = mode.starve;
    d["warps_meet"] = mode.warps_meet;
    d["races"] = mode.races;
    d["threads"] = mode.threads;
    return d;
  });
  m.def(
      "set_threads",
      [](int count) {
        emulator::Mode next = runtime::mode();
        next.threads = count;
        runtime::set_mode(next);
      },
      py::arg("count"), "Sets the number of OS threads blocks are spread over; 0: the number of cores.");
}

py::tuple axes(const emulator::Extent& e) { return py::make_tuple(e.x, e.y, e.z); }
dim3 extent(const std::array<unsigned, 3>& e) { return dim3(e[0], e[1], e[2]); }

// A launch reads as many as the kernel has, wherever they are.
void check_parameters(const void* host, const std::vector<std::string>& given) {
  const std::vector<std::size_t> sizes = runtime::parameter_sizes(host);
  bool right = given.size() == sizes.size();
  for (std::size_t i = 0; right && i < sizes.size(); ++i) right = given[i].size() == sizes[i];
  if (right) return;
  std::string list;
  for (const std::size_t size : sizes) list += " " + std::to_string(size);
  throw std::invalid_argument("the kernel has parameters of these bytes:" + (list.empty() ? " none" : list));
}

const void* kernel_named(const std::string& name) {
  const void* host = runtime::host_of(name);
  if (host == nullptr) throw std::invalid_argument("no kernel is named '" + name + "'");
  return host;
}

// A status of CUDA's with its text, as a caller that checks it would print it.
py::tuple answer(cudaError_t status) {
  runtime::take_last_error();
  return py::make_tuple(static_cast<int>(status), runtime::text_of(status));
}

void bind_calls(py::module_& m) {
  m.def("kernels", &runtime::registered, "The mangled names of all kernels.");
  m.def(
      "launch",
      [](const std::string& kernel, const std::array<unsigned, 3>& grid, const std::array<unsigned, 3>& block,
         std::size_t shared_bytes, const std::optional<std::array<unsigned, 3>>& cluster,
         std::uintptr_t stream, const std::vector<py::bytes>& parameters) {
        std::vector<std::string> values(parameters.begin(), parameters.end());
        const void* host = kernel_named(kernel);
        check_parameters(host, values);
        std::vector<void*> addresses;
        for (std::string& value : values) addresses.push_back(value.data());
        cudaLaunchAttribute attribute{};
        cudaLaunchConfig_t how{};
        how.gridDim = extent(grid);
        how.blockDim = extent(block);
        how.dynamicSmemBytes = shared_bytes;
        how.stream = reinterpret_cast<cudaStream_t>(stream);
        if (cluster) {
          attribute.id = cudaLaunchAttributeClusterDimension;
          attribute.val.clusterDim = {(*cluster)[0], (*cluster)[1], (*cluster)[2]};
          how.attrs = &attribute;
          how.numAttrs = 1;
        }
        return answer(cudaLaunchKernelExC(&how, host, addresses.data()));
      },
      py::arg("kernel"), py::arg("grid"), py::arg("block"), py::arg("shared_bytes") = 0,
      py::arg("cluster") = py::none(), py::arg("stream") = 0,
      py::arg("parameters") = std::vector<py::bytes>(),
      "cudaLaunchKernelExC of a kernel by name, with a parameter's bytes each: its status and text.");
  m.def(
      "set_attribute",
      [](const std::string& kernel, int attribute, int value) {
        return answer(
            cudaFuncSetAttribute(kernel_named(kernel), static_cast<cudaFuncAttribute>(attribute), value));
      },
      py::arg("kernel"), py::arg("attribute"), py::arg("value"));
  m.def(
      "attributes",
      [](const std::string& kernel) {
        cudaFuncAttributes found{};
        const cudaError_t status = cudaFuncGetAttributes(&found, kernel_named(kernel));
        if (status != cudaSuccess) throw std::runtime_error(runtime::text_of(status));
        py::dict d;
        d["registers"] = found.numRegs;
        d["shared_bytes"] = found.sharedSizeBytes;
        d["most_threads"] = found.maxThreadsPerBlock;
        d["most_dynamic_bytes"] = found.maxDynamicSharedSizeBytes;
        d["machine_code"] = found.binaryVersion;
        d["ptx"] = found.ptxVersion;
        return d;
      },
      py::arg("kernel"));
  m.def(
      "driver_entry_point",
      [](const std::string& name, unsigned version) {
        void* function = nullptr;
        cudaDriverEntryPointQueryResult result{};
        const cudaError_t status =
            cudaGetDriverEntryPointByVersion(name.c_str(), &function, version, cudaEnableDefault, &result);
        return py::make_tuple(answer(status), static_cast<int>(result), function != nullptr);
      },
      py::arg("name"), py::arg("version"), "The status and text, CUDA's result, and whether there is one.");
}

// Room for a map, which may begin where none may.
struct MapRoom {
  alignas(64) std::byte bytes[sizeof(CUtensorMap) + 64]{};

  CUtensorMap* at(std::size_t offset) {
    if (offset > 64) throw std::invalid_argument("map_offset is beyond 64");
    return reinterpret_cast<CUtensorMap*>(bytes + offset);
  }
  py::tuple answer(CUresult status) const {
    return py::make_tuple(static_cast<int>(status), runtime::why_no_map(),
                          py::bytes(reinterpret_cast<const char*>(bytes), sizeof(CUtensorMap)));
  }
};

// The driver's encoders, with arguments that csrc/ptx/tensor_map.h would not let through.
void bind_maps(py::module_& m) {
  using Sizes = std::vector<cuuint64_t>;
  using Steps = std::vector<cuuint32_t>;
  m.def(
      "encode_tiled",
      [](int type, unsigned rank, std::uintptr_t address, const Sizes& sizes, const Sizes& strides,
         const Steps& box, const Steps& steps, int interleave, int swizzle, int promotion, int fill,
         std::size_t map_offset) {
        const auto encode = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(
            runtime::entry_point("cuTensorMapEncodeTiled")->function);
        MapRoom room;
        return room.answer(encode(
            room.at(map_offset), static_cast<CUtensorMapDataType>(type), rank,
            reinterpret_cast<void*>(address), sizes.data(), strides.data(), box.data(), steps.data(),
            static_cast<CUtensorMapInterleave>(interleave), static_cast<CUtensorMapSwizzle>(swizzle),
            static_cast<CUtensorMapL2promotion>(promotion), static_cast<CUtensorMapFloatOOBfill>(fill)));
      },
      py::arg("type"), py::arg("rank"), py::arg("address"), py::arg("sizes"), py::arg("strides"),
      py::arg("box"), py::arg("steps"), py::arg("interleave") = 0, py::arg("swizzle") = 0,
      py::arg("promotion") = 0, py::arg("fill") = 0, py::arg("map_offset") = 0,
      "The driver's status, why it is none of success, and the map's 128 bytes.");
  m.def(
      "encode_im2col",
      [](int type, unsigned rank, std::uintptr_t address, const Sizes& sizes, const Sizes& strides,
         const std::vector<int>& lower, const std::vector<int>& upper, unsigned channels, unsigned pixels,
         const Steps& steps, int interleave, int swizzle, int promotion, int fill, std::size_t map_offset) {
        const auto encode = reinterpret_cast<decltype(&cuTensorMapEncodeIm2col)>(
            runtime::entry_point("cuTensorMapEncodeIm2col")->function);
        MapRoom room;
        return room.answer(
            encode(room.at(map_offset), static_cast<CUtensorMapDataType>(type), rank,
                   reinterpret_cast<void*>(address), sizes.data(), strides.data(), lower.data(), upper.data(),
                   channels, pixels, steps.data(), static_cast<CUtensorMapInterleave>(interleave),
                   static_cast<CUtensorMapSwizzle>(swizzle), static_cast<CUtensorMapL2promotion>(promotion),
                   static_cast<CUtensorMapFloatOOBfill>(fill)));
      },
      py::arg("type"), py::arg("rank"), py::arg("address"), py::arg("sizes"), py::arg("strides"),
      py::arg("lower"), py::arg("upper"), py::arg("channels"), py::arg("pixels"), py::arg("steps"),
      py::arg("interleave") = 0, py::arg("swizzle") = 0, py::arg("promotion") = 0, py::arg("fill") = 0,
      py::arg("map_offset") = 0);
}

}  // namespace

void bind_emulated(py::module_& m) {
  py::register_local_exception<emulator::Fault>(m, "KernelFault", PyExc_RuntimeError).doc() =
      "What a kernel did that a GPU forbids, or the emulator does not know.";

  runtime::set_around([](const std::function<void()>& run) {
    const py::gil_scoped_release others;
    run();
  });
  const py::weakref module(m);  // a module is never unloaded, but it may be looked up under its name no more
  static py::object& files = *new py::object;
  runtime::set_archive({
      [module] {
        const py::gil_scoped_acquire lock;
        files = archive(module());
        return read_index(files);
      },
      [](const std::string& file) {
        const py::gil_scoped_acquire lock;
        return py::cast<std::string>(files.attr("read")(file));
      },
  });

  m.def(
      "stand_for",
      [](const py::object& gpu) {
        const bool named = py::isinstance<py::str>(gpu);
        runtime::stand_for(py::cast<std::string>(named ? gpu : py::object(gpu.attr("name"))));
      },
      py::arg("gpu"), "Makes a GPU current, by its name or as `gpu_named` gives it.");
  m.def("standing_for", [] { return runtime::gpu(runtime::current_device()).name; });
  m.def("reset_device", &runtime::reset_device,
        "Forgets a kernel's fault, after which a GPU would serve no more.");
  bind_mode(m);
  m.def(
      "set_memory",
      [](const std::vector<std::pair<std::uintptr_t, std::size_t>>& ranges) {
        std::vector<emulator::Range> all;
        for (const auto& [begin, bytes] : ranges) all.push_back({begin, bytes});
        runtime::set_memory(std::move(all));
      },
      py::arg("ranges"),
      "Addresses and bytes that this thread's launches may touch, till the next call; none: anything.");
  m.def(
      "set_recording",
      [](bool on) {
        py::list all;
        for (const runtime::Launched& l : runtime::set_recording(on)) {
          const py::bytes parameters(reinterpret_cast<const char*>(l.parameters.data()), l.parameters.size());
          all.append(py::make_tuple(axes(l.grid), axes(l.block), axes(l.cluster), l.shared_bytes, l.kernel,
                                    parameters));
        }
        return all;
      },
      py::arg("on"),
      "While on, launches that the GPU would accept are noted, and nothing runs. Returns those noted so far: "
      "grid, block, cluster, bytes of dynamic shared memory, kernel, bytes of parameters.");
  m.def(
      "set_profiling",
      [](const std::optional<std::uint64_t>& blocks) {
        py::list all;
        for (const runtime::Profiled& one : runtime::set_profiling(blocks)) {
          py::dict d = emulator::as_dict(one.profile);
          d["kernel"] = one.launched.kernel;
          d["grid"] = axes(one.launched.grid);
          d["block"] = axes(one.launched.block);
          d["cluster"] = axes(one.launched.cluster);
          d["shared_bytes"] = one.launched.shared_bytes;
          d["registers"] = one.registers;
          all.append(d);
        }
        return all;
      },
      py::arg("blocks"),
      "From now on so many blocks of each launch run, 0: all, and are counted; None: all run, and nothing "
      "is "
      "counted. Returns the counts of launches so far.");
  m.def("statistics", [] {
    const runtime::Totals totals = runtime::totals();
    py::dict d;
    d["launches"] = totals.launches;
    d["warp_instructions"] = totals.counts.warp_instructions;
    d["thread_instructions"] = totals.counts.thread_instructions;
    return d;
  });
  m.def("kernels_run", &runtime::kernels_run,
        "The kernels that ran to their end since the last call, and the architecture of the PTX that each "
        "was of.");
  m.def("substitute", &runtime::substitute, py::arg("kernel"), py::arg("text"),
        "From now on a kernel that has run is what this PTX has under its name, its own again where it is "
        "empty.");
  m.def("guarded_alloc", &runtime::guarded_alloc, py::arg("nbytes"), py::arg("after"),
        "The address of memory with a page behind its last byte, or before its first, that no launch may "
        "touch.");
  m.def("guarded_free", &runtime::guarded_free, py::arg("pointer"));
  py::module_ cuda =
      m.def_submodule("cuda", "CUDA's own calls, as the runtime without a device answers them.");
  cuda.def("why_no_map", &runtime::why_no_map,
           "Why the driver refused the last tensor map of this thread; empty where it did not.");
  bind_calls(cuda);
  bind_maps(cuda);
}

}  // namespace cnnkernels
