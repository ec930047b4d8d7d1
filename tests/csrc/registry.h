// Test kernels by name. A file of tests/csrc registers its launchers by itself; Python calls them as
// run("name", 1, 2, pointer, ...). The files are compiled by nvcc and by the host compiler alike.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace cnnkernels::tests {

class Arguments {
 public:
  Arguments(std::vector<std::int64_t> values, std::uintptr_t stream)
      : stream(stream), values_(std::move(values)) {}
  std::int64_t number(std::size_t i) const { return values_.at(i); }
  template <class T>
  T* pointer(std::size_t i) const {
    return reinterpret_cast<T*>(values_.at(i));
  }
  std::size_t count() const { return values_.size(); }
  const std::uintptr_t stream;

 private:
  std::vector<std::int64_t> values_;
};

using Launcher = void (*)(const Arguments&);

struct Registration {
  const char* name;
  Launcher launcher;
  const Registration* next;
  Registration(const char* name, Launcher launcher) : name(name), launcher(launcher), next(first()) {
    first() = this;
  }
  static const Registration*& first() {
    static const Registration* registrations = nullptr;
    return registrations;
  }
};

}  // namespace cnnkernels::tests

// CNN_TEST(name) { launch(kernel, Launch{..., arguments.stream}, arguments.pointer<float>(0), ...); }
#define CNN_TEST(name)                                                             \
  static void name(const ::cnnkernels::tests::Arguments& arguments);               \
  static const ::cnnkernels::tests::Registration name##_registration(#name, name); \
  static void name([[maybe_unused]] const ::cnnkernels::tests::Arguments& arguments)
