// The interpreter's own face in Python: faults, settings, statistics and guarded memory. Part of _interpreter
// and of the module of its tests, each of which has an interpreter of its own.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "fault.h"
#include "guard_pages.h"
#include "launch.h"
#include "schedule.h"

namespace py = pybind11;

namespace cnnkernels {
namespace {

using interpreter::KernelFault;

PyObject* fault_type = nullptr;  // lives as long as the process

py::tuple as_tuple(uint3 i) { return py::make_tuple(i.x, i.y, i.z); }

void raise(const KernelFault& e) {
  const py::object error = py::reinterpret_borrow<py::object>(fault_type)(e.what());
  const py::object none = py::none();
  error.attr("file") = e.file.empty() ? none : py::object(py::str(e.file));
  error.attr("line") = e.line == 0 ? none : py::object(py::int_(e.line));
  error.attr("block") = as_tuple(e.block);
  error.attr("thread") = e.has_thread ? py::object(as_tuple(e.thread)) : none;
  error.attr("warp") = e.has_thread ? py::object(py::int_(e.warp)) : none;
  error.attr("lane") = e.has_thread ? py::object(py::int_(e.lane)) : none;
  PyErr_SetObject(fault_type, error.ptr());
}

// Other Python threads run while a kernel does, whether or not the caller has let go of the lock.
void* release_lock() { return PyGILState_Check() != 0 ? PyEval_SaveThread() : nullptr; }
void take_lock(void* state) {
  if (state != nullptr) PyEval_RestoreThread(static_cast<PyThreadState*>(state));
}

}  // namespace

void bind_interpreter(py::module_& m) {
  const std::string module_name = py::str(m.attr("__name__"));
  fault_type = PyErr_NewExceptionWithDoc(
      (module_name + ".KernelFault").c_str(),
      "What a kernel did wrong in the interpreter. Attributes: file, line (None where not known), block, "
      "thread\n"
      "(indices as (x, y, z)), warp and lane (None for a fault of the block as a whole).",
      PyExc_RuntimeError, nullptr);
  if (fault_type == nullptr) throw py::error_already_set();
  m.add_object("KernelFault", py::reinterpret_borrow<py::object>(fault_type));
  py::register_local_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const KernelFault& e) {
      raise(e);
    }
  });
  interpreter::set_launch_hooks({release_lock, take_lock});

  m.def("set_schedule", &interpreter::set_schedule, py::arg("order") = "", py::arg("seed") = -1,
        py::arg("delivery") = "",
        "Sets the order of CUDA threads ('ordered', 'reversed', 'random'), the seed of what is random, and "
        "when\n"
        "asynchronous work is done ('early', 'late', 'random'), for all launches to come.");
  m.def("schedule", [] {
    const interpreter::Schedule s = interpreter::schedule();
    py::dict d;
    d["order"] = interpreter::name(s.order);
    d["seed"] = s.seed;
    d["delivery"] = interpreter::name(s.delivery);
    d["threads"] = s.os_threads;
    d["most_shared_bytes"] = s.most_shared_bytes;
    return d;
  });
  m.def("set_threads", &interpreter::set_os_threads, py::arg("count"),
        "Sets the number of OS threads blocks are spread over; 0: the number of cores, at most 16.");
  m.def("set_most_shared_bytes", &interpreter::set_most_shared_bytes, py::arg("nbytes"),
        "Sets what a block may have of shared memory, static and dynamic.");
  m.def("statistics", &interpreter::statistics,
        "Counts of all launches since reset_statistics(): blocks, switches, barriers, meetings, and the "
        "models' own.");
  m.def("reset_statistics", &interpreter::reset_statistics);
  m.def(
      "set_recording",
      [](bool on) {
        py::list all;
        for (const interpreter::Launched& l : interpreter::set_recording(on)) {
          const auto axes = [](dim3 d) { return py::make_tuple(d.x, d.y, d.z); };
          all.append(py::make_tuple(axes(l.grid), axes(l.block), axes(l.cluster), l.shared_bytes));
        }
        return all;
      },
      py::arg("on"),
      "While on, launches are noted after their extents were checked, and nothing runs. Returns those noted "
      "so far: grid, block, cluster, bytes of shared memory.");
  m.def(
      "guarded_alloc",
      [](std::size_t bytes, bool after) {
        return reinterpret_cast<std::uintptr_t>(interpreter::guarded_alloc(bytes, after));
      },
      py::arg("nbytes"), py::arg("after"),
      "The address of memory flush against an inaccessible page: after its last byte, or before its first.");
  m.def(
      "guarded_free",
      [](std::uintptr_t pointer) { interpreter::guarded_free(reinterpret_cast<void*>(pointer)); },
      py::arg("pointer"));
}

}  // namespace cnnkernels
