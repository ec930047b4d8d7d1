// Products that are complete only when somebody waits for them (Mode::late): operands are read as late as may
// be, and until then accumulators are tokens.
#include <algorithm>
#include <utility>

#include "emulator/tensor_cores/wgmma.h"

namespace cnnkernels::emulator {
namespace {

// What a register holds while its product is in flight is a token, a NaN that no computation makes: kernels
// may copy it from register to register, as compilers do, and what reads it too early computes nonsense. It
// is a word a lane, each a NaN in f32 and two NaNs in f16. Of the upper halves, lanes 0 to 2 spell
// the token, of the lower ones lanes 0 and 1; the others repeat a hash of it. So each half is known by
// itself: kernels unpack accumulators of f16 before they wait.
constexpr std::uint32_t kTokens = 1 << 18;
constexpr std::uint32_t kUpperMark = 0xffc0, kLowerMark = 0xfe00;

Lanes spelled(std::uint32_t token) {
  Lanes words;
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
    const std::uint32_t mixed = (token * kLanes + lane) * 0x9e3779b1u;
    const std::uint32_t hash = mixed ^ mixed >> 15;
    words[lane] = (kUpperMark | (hash >> 9 & 0x3f)) << 16 | kLowerMark | (hash & 0x1ff);
  }
  for (std::uint32_t lane = 0; lane < 3; ++lane) {
    const std::uint32_t upper = token >> (6 * lane) & 0x3f, lower = token >> (9 * lane) & 0x1ff;
    words[lane] = (kUpperMark | upper) << 16 | (lane < 2 ? kLowerMark | lower : words[lane] & 0xffff);
  }
  return words;
}

std::uint32_t token_of_upper(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  return (a & 0x3f) | (b & 0x3f) << 6 | (c & 0x3f) << 12;
}
std::uint32_t token_of_lower(std::uint32_t a, std::uint32_t b) { return (a & 0x1ff) | (b & 0x1ff) << 9; }

// What the token stands for, or null where none of the warp's products has it.
const Lanes* value_of(const std::deque<Product>& products, std::uint32_t token) {
  for (const Product& product : products) {
    const std::uint32_t index = (token - product.first_token) % kTokens;
    if (index < product.values.size()) return &product.values[index];
  }
  return nullptr;
}

// The accumulator that a register stands for, or null.
const Lanes* accumulator_in(const std::deque<Product>& products, const std::uint32_t* lanes) {
  if ((lanes[0] >> 16 & kUpperMark) != kUpperMark) return nullptr;
  const std::uint32_t token = token_of_upper(lanes[0] >> 16, lanes[1] >> 16, lanes[2] >> 16);
  const Lanes* value = value_of(products, token);
  return value != nullptr && std::ranges::equal(spelled(token), std::span(lanes, kLanes)) ? value : nullptr;
}

// An earlier product is done: what begins with its values has them from now on.
void take_from(const Product& earlier, Product& product) {
  const Lanes *begin = earlier.values.data(), *end = begin + earlier.values.size();
  for (std::size_t i = 0; i < product.sources.size(); ++i) {
    const Lanes*& source = product.sources[i];
    if (source >= begin && source < end) product.values[i] = *std::exchange(source, nullptr);
  }
}

void compute_in_flight(Warp& warp, Product& product, OperandB& last) {
  std::vector<Register> registers;
  for (std::size_t i = 0; i < product.values.size(); ++i) {
    if (product.sources[i] != nullptr) product.values[i] = *std::exchange(product.sources[i], nullptr);
    registers.push_back(product.values[i].data());
  }
  compute(warp, product, registers, registers, last);
  product.computed = true;
}

// Puts results where a register holds a token that is done, or half of one.
void replace(std::uint32_t* lanes, const std::deque<Product>& done) {
  if (const Lanes* value = accumulator_in(done, lanes)) {
    std::ranges::copy(*value, lanes);
    return;
  }
  auto* halves = reinterpret_cast<std::uint16_t*>(lanes);
  if ((halves[0] & kLowerMark) != kLowerMark) return;
  // Halves of all lanes that are those of the token are replaced by those of its value.
  const auto replace_halves = [&](std::uint32_t token, int shift) {
    const Lanes* value = value_of(done, token);
    if (value == nullptr) return false;
    const Lanes words = spelled(token);
    const auto half = [shift](std::uint32_t word) { return static_cast<std::uint16_t>(word >> shift); };
    for (int lane = 0; lane < kLanes; ++lane)
      if (halves[lane] != half(words[lane])) return false;
    for (int lane = 0; lane < kLanes; ++lane) halves[lane] = half((*value)[lane]);
    return true;
  };
  if (!replace_halves(token_of_upper(halves[0], halves[1], halves[2]), 16))
    replace_halves(token_of_lower(halves[0], halves[1]), 0);
}

}  // namespace

void begin(Warp& warp, Product product) {
  WarpProducts& products = *warp.products;
  const std::vector<Slot>& slots = product.details->d;
  product.first_token = products.next_token;
  product.values.resize(slots.size());
  product.sources.resize(slots.size());
  for (std::size_t i = 0; i < slots.size(); ++i) {
    std::uint32_t* lanes = warp.lanes(slots[i]);
    product.sources[i] = accumulator_in(products.in_flight, lanes);
    if (product.sources[i] == nullptr) {
      if (!products.fenced)
        fault("wgmma on accumulators that may have been written since the last wgmma.fence");
      std::copy(lanes, lanes + kLanes, product.values[i].begin());
    }
    std::ranges::copy(spelled(products.next_token), lanes);
    products.next_token = (products.next_token + 1) % kTokens;
  }
  products.in_flight.push_back(std::move(product));
}

// The warps' n-th products are one, so that they read B together.
void complete(Warp& warp, std::uint32_t groups) {
  const int first = warp.index & ~3;
  const int end = std::min(first + 4, static_cast<int>(warp.block->warps.size()));
  OperandB last;
  bool more = true;
  for (std::size_t n = 0; more; ++n) {
    more = false;
    for (int i = first; i < end; ++i) {
      Warp& each = warp.block->warps[i];
      std::deque<Product>& in_flight = each.products->in_flight;
      if (n >= in_flight.size() || in_flight[n].group >= groups) continue;
      more = true;
      if (!in_flight[n].computed) compute_in_flight(each, in_flight[n], last);
    }
  }
}

bool publish(Warp& warp, std::uint32_t groups) {
  std::deque<Product>& in_flight = warp.products->in_flight;
  std::deque<Product> done;
  while (!in_flight.empty() && in_flight.front().group < groups) {
    done.push_back(std::move(in_flight.front()));
    in_flight.pop_front();
  }
  if (done.empty()) return false;
  for (Product& product : in_flight)
    for (const Product& earlier : done)
      take_from(earlier, product);  // a moved product's values stay in place
  for (const Slot slot : warp.cluster->state.kernel.accumulators) replace(warp.lanes(slot), done);
  return true;
}

}  // namespace cnnkernels::emulator
