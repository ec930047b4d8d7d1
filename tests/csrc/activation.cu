#include "common/activation.h"

#include "common/launch.h"
#include "registry.h"

namespace cnnkernels {

template <class T>
CNN_KERNEL(64, 1)
activate_all(Activation which, T slope, const T* x, T* value, T* derivative, int count) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= count) return;
  value[i] = activate(which, x[i], slope);
  derivative[i] = activate_derivative(which, x[i], slope);
}

// which, slope in 1024ths, x, value, derivative, count (at most 64), is it double?
CNN_TEST(activation) {
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const auto slope = static_cast<T>(static_cast<double>(arguments.number(1)) / 1024);
    launch(activate_all<T>, Launch{dim3(1), dim3(64), 0, arguments.stream},
           static_cast<Activation>(arguments.number(0)), slope, arguments.pointer<const T>(2),
           arguments.pointer<T>(3), arguments.pointer<T>(4), static_cast<int>(arguments.number(5)));
  };
  arguments.number(6) != 0 ? run(double{}) : run(float{});
}

}  // namespace cnnkernels
