// Products that are complete only when somebody waits for them (Mode::late): operands are read as late as may
// be, and until then accumulators are tokens.
#include <algorithm>
#include <optional>

#include "emulator/tensor_cores/wgmma.h"

namespace cnnkernels::emulator {
namespace {

// A token is a word a lane, each a NaN in f32 and two NaNs in f16. Of the upper halves, lanes 0 to 2 spell
// the token, of the lower ones lanes 0 and 1; the others repeat a hash of it. So each half is known by
// itself: kernels unpack accumulators of f16 before they wait.
constexpr std::uint32_t kTokens = 1 << 18;
constexpr std::uint32_t kUpperMark = 0xffc0, kLowerMark = 0xfe00;

std::uint32_t hash(std::uint32_t token, int lane) {
  const std::uint32_t mixed = (token * kLanes + static_cast<std::uint32_t>(lane)) * 0x9e3779b1u;
  return mixed ^ mixed >> 15;
}

std::uint16_t upper_half(std::uint32_t token, int lane) {
  const std::uint32_t payload = lane < 3 ? token >> (6 * lane) : hash(token, lane) >> 9;
  return static_cast<std::uint16_t>(kUpperMark | (payload & 0x3f));
}

std::uint16_t lower_half(std::uint32_t token, int lane) {
  const std::uint32_t payload = lane < 2 ? token >> (9 * lane) : hash(token, lane);
  return static_cast<std::uint16_t>(kLowerMark | (payload & 0x1ff));
}

std::uint32_t token_word(std::uint32_t token, int lane) {
  return std::uint32_t{upper_half(token, lane)} << 16 | lower_half(token, lane);
}

// Lane l of a register, if it holds words or halves of a token.
template <class Word>
bool is_token(const Word* lanes, std::uint32_t token, Word (*spelled)(std::uint32_t, int)) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (lanes[lane] != spelled(token, lane)) return false;
  }
  return true;
}

std::uint32_t token_of_upper(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  return (a & 0x3f) | (b & 0x3f) << 6 | (c & 0x3f) << 12;
}
std::uint32_t token_of_lower(std::uint32_t a, std::uint32_t b) { return (a & 0x1ff) | (b & 0x1ff) << 9; }

std::optional<std::uint32_t> token_in(const std::uint32_t* lanes) {
  if ((lanes[0] >> 16 & kUpperMark) != kUpperMark) return std::nullopt;
  const std::uint32_t token = token_of_upper(lanes[0] >> 16, lanes[1] >> 16, lanes[2] >> 16);
  if (!is_token(lanes, token, token_word)) return std::nullopt;
  return token;
}

// The accumulator that a register stands for, or null.
std::shared_ptr<Accumulator> in_flight(const WarpProducts& products, const std::uint32_t* lanes) {
  const auto token = token_in(lanes);
  if (!token) return nullptr;
  const auto found = products.tokens.find(*token);
  return found == products.tokens.end() ? nullptr : found->second;
}

void compute_in_flight(Warp& warp, Product& product) {
  std::vector<Register> registers;
  for (const auto& accumulator : product.accumulators) {
    if (accumulator->before) accumulator->value = accumulator->before->value;
    accumulator->before = nullptr;
    registers.push_back(accumulator->value.data());
  }
  compute(warp, product, registers, registers);
  product.computed = true;
}

using Done = std::unordered_map<std::uint32_t, std::shared_ptr<Accumulator>>;

// Puts results where a register holds a token that is done, or half of one.
void replace(std::uint32_t* lanes, const Done& done) {
  const auto value_of = [&](std::uint32_t token) -> const std::array<std::uint32_t, kLanes>* {
    const auto found = done.find(token);
    return found == done.end() ? nullptr : &found->second->value;
  };
  if (const auto token = token_in(lanes)) {
    if (const auto* value = value_of(*token)) std::ranges::copy(*value, lanes);
    return;
  }
  auto* halves = reinterpret_cast<std::uint16_t*>(lanes);
  if ((halves[0] & kLowerMark) != kLowerMark) return;
  const std::uint32_t upper = token_of_upper(halves[0], halves[1], halves[2]);
  if (const auto* value = value_of(upper); value != nullptr && is_token(halves, upper, upper_half)) {
    for (int lane = 0; lane < kLanes; ++lane) halves[lane] = static_cast<std::uint16_t>((*value)[lane] >> 16);
    return;
  }
  const std::uint32_t lower = token_of_lower(halves[0], halves[1]);
  if (const auto* value = value_of(lower); value != nullptr && is_token(halves, lower, lower_half)) {
    for (int lane = 0; lane < kLanes; ++lane) halves[lane] = static_cast<std::uint16_t>((*value)[lane]);
  }
}

}  // namespace

void begin(Warp& warp, Product product) {
  WarpProducts& products = *warp.products;
  for (const Slot slot : product.details->d) {
    std::uint32_t* lanes = warp.lanes(slot);
    auto accumulator = std::make_shared<Accumulator>();
    accumulator->before = in_flight(products, lanes);
    if (accumulator->before == nullptr && !products.fenced) {
      fault("wgmma on accumulators that may have been written since the last wgmma.fence");
    }
    std::copy(lanes, lanes + kLanes, accumulator->value.begin());
    const std::uint32_t token = products.next_token++ % kTokens;
    products.tokens[token] = accumulator;
    product.tokens.push_back(token);
    product.accumulators.push_back(std::move(accumulator));
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = token_word(token, lane);
  }
  products.in_flight.push_back(std::move(product));
}

void complete(Warp& warp, std::uint32_t groups) {
  const int first = warp.index & ~3;
  const int last = std::min(first + 4, static_cast<int>(warp.block->warps.size()));
  for (int i = first; i < last; ++i) {
    Warp& each = warp.block->warps[i];
    for (Product& product : each.products->in_flight) {
      if (product.group < groups && !product.computed) compute_in_flight(each, product);
    }
  }
}

bool publish(Warp& warp, std::uint32_t groups) {
  WarpProducts& products = *warp.products;
  Done done;
  for (; !products.in_flight.empty() && products.in_flight.front().group < groups;
       products.in_flight.pop_front()) {
    const Product& product = products.in_flight.front();
    for (std::size_t i = 0; i < product.tokens.size(); ++i) {
      done[product.tokens[i]] = product.accumulators[i];
      products.tokens.erase(product.tokens[i]);
    }
  }
  if (done.empty()) return false;
  const auto slots = static_cast<Slot>(warp.cluster->state.kernel.image.size() / kLanes);
  for (Slot slot = 0; slot < slots; ++slot) replace(warp.lanes(slot), done);
  return true;
}

}  // namespace cnnkernels::emulator
