// A callable passed by reference: two words, never allocates. The callable must outlive the call it is passed
// to.
#pragma once

#include <type_traits>
#include <utility>

namespace cnnkernels::interpreter {

template <class Signature>
class FunctionRef;

template <class R, class... A>
class FunctionRef<R(A...)> {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef> && std::is_invocable_r_v<R, F&, A...>)
  FunctionRef(F&& callable)  // NOLINT: implicit on purpose, a lambda is written where one is expected
      : object_(const_cast<void*>(static_cast<const void*>(&callable))),
        call_([](void* object, A... arguments) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<A>(arguments)...);
        }) {}

  R operator()(A... arguments) const { return call_(object_, std::forward<A>(arguments)...); }

 private:
  void* object_;
  R (*call_)(void*, A...);
};

}  // namespace cnnkernels::interpreter
