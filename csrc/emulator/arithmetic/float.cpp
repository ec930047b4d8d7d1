// Arithmetic of f32, f64, f16 and bf16, the latter two also in pairs. What PTX calls approximate is rounded
// from a double's result here: it is at least as good as a GPU's, and not its bits.
#include <cfenv>
#include <cmath>
#include <limits>

#include "emulator/arithmetic/halves.h"
#include "emulator/arithmetic/lanes.h"
#include "emulator/ptx/families.h"

namespace cnnkernels::emulator {

namespace {

constexpr std::uint32_t kFlush = 1, kSaturate = 2, kRelu = 4, kNan = 8, kXorSign = 16, kAbsolute = 32;

struct Half {};
struct Bfloat16 {};

// How a type is stored, and what its arithmetic is done in.
template <class T>
struct Traits;
template <>
struct Traits<float> {
  static constexpr float kSmallestNormal = 0x1p-126f;
  using Stored = float;
  using Value = float;
  static float load(float stored) { return stored; }
  static float store(float value) { return canonical(value); }
};
template <>
struct Traits<double> {
  using Stored = double;
  using Value = double;
  static double load(double stored) { return stored; }
  static double store(double value) { return value; }
};
template <>
struct Traits<Half> {
  static constexpr float kSmallestNormal = 0x1p-14f;
  using Stored = std::uint16_t;
  using Value = float;
  static float load(std::uint16_t stored) { return half_to_float(stored); }
  static std::uint16_t store(float value) { return to_half(value); }
  static std::uint16_t store(double value) {
    return static_cast<std::uint16_t>(encode(kF16, value, Rounding::nearest));
  }
};
template <>
struct Traits<Bfloat16> {
  static constexpr float kSmallestNormal = 0x1p-126f;
  using Stored = std::uint16_t;
  using Value = float;
  static float load(std::uint16_t stored) { return bfloat16_to_float(stored); }
  static std::uint16_t store(float value) { return to_bfloat16(value); }
  static std::uint16_t store(double value) {
    return static_cast<std::uint16_t>(encode(kBf16, value, Rounding::nearest));
  }
};

template <class T, class V>
V before(V value, std::uint32_t flags) {
  if constexpr (!std::is_same_v<T, double>)
    if (flags & kFlush)
      return std::fabs(value) < Traits<T>::kSmallestNormal ? std::copysign(V{0}, value) : value;
  return value;
}

template <class T, class V>
V after(V value, std::uint32_t flags) {
  if (flags & kSaturate) value = value > 0 ? (value < 1 ? value : V{1}) : V{0};  // a NaN is 0
  if (flags & kRelu) value = value < 0 ? V{0} : value;
  return before<T>(value, flags);
}

// f32's .rz, .rm and .rp, and f64's: the host's mode while one instruction runs.
class RoundingMode {
 public:
  explicit RoundingMode(std::int64_t mode) : before_(std::fegetround()) {
    std::fesetround(static_cast<int>(mode));
  }
  ~RoundingMode() { std::fesetround(before_); }
  RoundingMode(const RoundingMode&) = delete;

 private:
  int before_;
};

template <class T, int kArity, auto kOperation, bool kPairs, bool kPlain>
__attribute__((noinline)) void compute(Warp& warp, const Instruction& instruction, Mask lanes) {
  using Stored = typename Traits<T>::Stored;
  constexpr int kCount = kValues<Stored, kPairs>;
  const std::uint32_t flags = kPlain ? 0 : instruction.flags;
  const Stored* sources[3];
  for (int i = 0; i < kArity; ++i) sources[i] = warp.lanes<Stored>(instruction.source[i]);
  Stored results[kCount];
  for (int i = 0; i < kCount; ++i) {
    const auto a = before<T>(Traits<T>::load(sources[0][i]), flags);
    if constexpr (kArity == 1) {
      results[i] = Traits<T>::store(after<T>(kOperation(a, flags), flags));
    } else {
      const auto b = before<T>(Traits<T>::load(sources[1][i]), flags);
      if constexpr (kArity == 2) {
        results[i] = Traits<T>::store(after<T>(kOperation(a, b, flags), flags));
      } else {
        const auto c = before<T>(Traits<T>::load(sources[2][i]), flags);
        results[i] = Traits<T>::store(after<T>(kOperation(a, b, c, flags), flags));
      }
    }
  }
  put(warp, instruction.destination, results, lanes);
}

template <class T, int kArity, auto kOperation>
void compute_rounded(Warp& warp, const Instruction& instruction, Mask lanes) {
  const RoundingMode mode(instruction.immediate);
  compute<T, kArity, kOperation, false, false>(warp, instruction, lanes);
}

constexpr auto add = [](auto a, auto b, std::uint32_t) { return a + b; };
constexpr auto subtract = [](auto a, auto b, std::uint32_t) { return a - b; };
constexpr auto multiply = [](auto a, auto b, std::uint32_t) { return a * b; };
constexpr auto divide = [](auto a, auto b, std::uint32_t) { return a / b; };
constexpr auto multiply_add = [](auto a, auto b, auto c, std::uint32_t) { return std::fma(a, b, c); };
constexpr auto multiply_add_halves = [](float a, float b, float c, std::uint32_t) {
  return product_sum_to_odd(a, b, c);
};
constexpr auto extremum = [](auto a, auto b, std::uint32_t flags, bool larger) {
  using V = decltype(a);
  const bool negative = (flags & kXorSign) && std::signbit(a) != std::signbit(b);
  if (flags & (kXorSign | kAbsolute)) a = std::fabs(a), b = std::fabs(b);
  V result;
  if (std::isnan(a) || std::isnan(b))
    result = flags & kNan || (std::isnan(a) && std::isnan(b)) ? std::numeric_limits<V>::quiet_NaN()
             : std::isnan(a)                                  ? b
                                                              : a;
  else if (a == b)  // -0 is below +0
    result = std::signbit(a) == larger ? b : a;
  else
    result = (a < b) != larger ? a : b;
  return negative ? -result : result;
};
constexpr auto smaller = [](auto a, auto b, std::uint32_t flags) { return extremum(a, b, flags, false); };
constexpr auto larger = [](auto a, auto b, std::uint32_t flags) { return extremum(a, b, flags, true); };
constexpr auto smallest = [](auto a, auto b, auto c, std::uint32_t flags) {
  return smaller(smaller(a, b, flags), c, flags);
};
constexpr auto largest = [](auto a, auto b, auto c, std::uint32_t flags) {
  return larger(larger(a, b, flags), c, flags);
};
constexpr auto negate = [](auto a, std::uint32_t) { return -a; };
constexpr auto absolute = [](auto a, std::uint32_t) { return std::fabs(a); };
constexpr auto reciprocal = [](auto a, std::uint32_t) { return 1 / a; };
constexpr auto root = [](auto a, std::uint32_t) { return std::sqrt(a); };
constexpr auto reciprocal_root = [](auto a, std::uint32_t) { return decltype(a)(1 / std::sqrt(double(a))); };
constexpr auto power_of_2 = [](auto a, std::uint32_t) { return decltype(a)(std::exp2(double(a))); };
constexpr auto logarithm = [](auto a, std::uint32_t) { return decltype(a)(std::log2(double(a))); };
constexpr auto sine = [](auto a, std::uint32_t) { return decltype(a)(std::sin(double(a))); };
constexpr auto cosine = [](auto a, std::uint32_t) { return decltype(a)(std::cos(double(a))); };
constexpr auto hyperbolic_tangent = [](auto a, std::uint32_t) { return decltype(a)(std::tanh(double(a))); };

template <int kArity, auto kOperation>
Execute of_32_and_64(const Instruction& instruction, Type type) {
  const bool rounded = instruction.immediate != FE_TONEAREST;
  if (type == Type::f32) {
    if (rounded) return compute_rounded<float, kArity, kOperation>;
    return instruction.flags ? compute<float, kArity, kOperation, false, false>
                             : compute<float, kArity, kOperation, false, true>;
  }
  if (type != Type::f64) return nullptr;
  return rounded ? compute_rounded<double, kArity, kOperation>
                 : compute<double, kArity, kOperation, false, false>;
}

template <int kArity, auto kOperation>
Execute of_halves(Type type) {
  switch (type) {
    case Type::f16:
      return compute<Half, kArity, kOperation, false, false>;
    case Type::f16x2:
      return compute<Half, kArity, kOperation, true, false>;
    case Type::bf16:
      return compute<Bfloat16, kArity, kOperation, false, false>;
    case Type::bf16x2:
      return compute<Bfloat16, kArity, kOperation, true, false>;
    default:
      return nullptr;
  }
}

template <int kArity, auto kOperation>
Execute of_all(const Instruction& instruction, Type type) {
  const Execute execute = of_halves<kArity, kOperation>(type);
  return execute ? execute : of_32_and_64<kArity, kOperation>(instruction, type);
}

Execute min_or_max(const Statement& statement, const Instruction& instruction, Type type) {
  const bool min = statement.words[0] == "min";
  if (statement.operands.size() == 4) {  // f32's of Blackwell, too; harmless here
    if (type != Type::f32) return nullptr;
    return min ? of_32_and_64<3, smallest>(instruction, type) : of_32_and_64<3, largest>(instruction, type);
  }
  return min ? of_all<2, smaller>(instruction, type) : of_all<2, larger>(instruction, type);
}

// Signs are bits: a NaN keeps its own.
template <class T, bool kNegates, bool kPairs = false>
void change_sign(Warp& warp, const Instruction& instruction, Mask lanes) {
  constexpr T kSign = T{1} << (8 * sizeof(T) - 1);
  constexpr auto change = [](T value) { return static_cast<T>(kNegates ? value ^ kSign : value & ~kSign); };
  unary<T, T, change, kPairs>(warp, instruction, lanes);
}

template <bool kNegates>
Execute sign_change_of(Type type) {
  switch (type) {
    case Type::f32:
      return change_sign<std::uint32_t, kNegates>;
    case Type::f64:
      return change_sign<std::uint64_t, kNegates>;
    case Type::f16:
    case Type::bf16:
      return change_sign<std::uint16_t, kNegates>;
    case Type::f16x2:
    case Type::bf16x2:
      return change_sign<std::uint16_t, kNegates, true>;
    default:
      return nullptr;
  }
}

Execute execute_of(const Statement& statement, const Instruction& instruction, Type type) {
  const std::string_view word = statement.words[0];
  if (word == "add") return of_all<2, add>(instruction, type);
  if (word == "sub") return of_all<2, subtract>(instruction, type);
  if (word == "mul") return of_all<2, multiply>(instruction, type);
  if (word == "fma" || word == "mad") {
    const Execute halves = of_halves<3, multiply_add_halves>(type);
    return halves ? halves : of_32_and_64<3, multiply_add>(instruction, type);
  }
  if (word == "min" || word == "max") return min_or_max(statement, instruction, type);
  if (word == "div") return of_32_and_64<2, divide>(instruction, type);
  if (word == "rcp") return of_32_and_64<1, reciprocal>(instruction, type);
  if (word == "sqrt") return of_32_and_64<1, root>(instruction, type);
  if (word == "rsqrt") return of_32_and_64<1, reciprocal_root>(instruction, type);
  if (word == "neg")
    return instruction.flags ? of_32_and_64<1, negate>(instruction, type) : sign_change_of<true>(type);
  if (word == "abs")
    return instruction.flags ? of_32_and_64<1, absolute>(instruction, type) : sign_change_of<false>(type);
  if (type == Type::f64) return nullptr;
  if (word == "ex2") return of_all<1, power_of_2>(instruction, type);
  if (word == "tanh") return of_all<1, hyperbolic_tangent>(instruction, type);
  if (word == "lg2") return of_32_and_64<1, logarithm>(instruction, type);
  if (word == "sin") return of_32_and_64<1, sine>(instruction, type);
  if (word == "cos") return of_32_and_64<1, cosine>(instruction, type);
  return nullptr;
}

int arity(const Statement& statement) {
  const std::string_view word = statement.words[0];
  if (word == "fma" || word == "mad") return 3;
  if (word == "min" || word == "max") return static_cast<int>(statement.operands.size()) - 1;
  return word == "add" || word == "sub" || word == "mul" || word == "div" ? 2 : 1;
}

bool is_float_word(std::string_view word) {
  for (const std::string_view known : {"add", "sub", "mul", "fma", "mad", "div", "min", "max", "neg", "abs",
                                       "rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh"})
    if (word == known) return true;
  return false;
}

std::int64_t host_rounding(const Statement& statement) {
  if (statement.has("rz")) return FE_TOWARDZERO;
  if (statement.has("rm")) return FE_DOWNWARD;
  return statement.has("rp") ? FE_UPWARD : FE_TONEAREST;
}

}  // namespace

bool decode_float(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const std::vector<Type> types = statement.types();
  if (types.empty() || !is_float(types.back()) || !is_float_word(statement.words[0])) return false;
  if (types.size() > 1) refuse(statement, "mixed types are Blackwell's");
  const Type type = types[0];
  decode_operands(decoder, statement, instruction, arity(statement), type);
  instruction.immediate = host_rounding(statement);
  const auto flag = [&](const char* word, std::uint32_t bit) { return statement.has(word) ? bit : 0; };
  instruction.flags = flag("ftz", kFlush) | flag("sat", kSaturate) | flag("relu", kRelu) | flag("NaN", kNan) |
                      flag("xorsign", kXorSign) | flag("abs", kAbsolute);
  if (instruction.immediate != FE_TONEAREST && type != Type::f32 && type != Type::f64)
    refuse(statement, "this rounding is not known of halves");
  return finish(statement, instruction, execute_of(statement, instruction, type));
}

}  // namespace cnnkernels::emulator
