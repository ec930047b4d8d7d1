// Products that are complete only when somebody waits for them (Mode::late): operands are read as late as may
// be, and until then accumulators are tokens.
#include <algorithm>

#include "emulator/tensor_cores/wgmma.h"

namespace cnnkernels::emulator {
namespace {

// A quiet NaN with 22 bits that tell token and lane.
constexpr std::uint32_t kTokenBits = 0xffc00000, kTokens = 1 << 17;

std::uint32_t token_word(std::uint32_t token, int lane) {
  return kTokenBits | (token * kLanes + static_cast<std::uint32_t>(lane));
}

// The accumulator that a register stands for, or null.
std::shared_ptr<Accumulator> in_flight(const WarpProducts& products, const std::uint32_t* lanes) {
  if ((lanes[0] & kTokenBits) != kTokenBits) return nullptr;
  const std::uint32_t token = (lanes[0] & ~kTokenBits) / kLanes;
  const auto found = products.tokens.find(token);
  if (found == products.tokens.end()) return nullptr;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (lanes[lane] != token_word(token, lane)) return nullptr;
  }
  return found->second;
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

void check_a_registers(Warp& warp, const Product& product) {
  for (std::size_t i = 0; i < product.a_registers.size(); ++i) {
    const auto& before = product.a_registers[i];
    if (std::equal(before.begin(), before.end(), warp.lanes(product.details->a[i]))) continue;
    fault("a register of A of the wgmma in line %d was written before a wait for it", product.line);
  }
}

}  // namespace

void begin(Warp& warp, Product product) {
  WarpProducts& products = *warp.products;
  for (const Slot slot : product.details->d) {
    std::uint32_t* lanes = warp.lanes(slot);
    auto accumulator = std::make_shared<Accumulator>();
    accumulator->before = in_flight(products, lanes);
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

void publish(Warp& warp, std::uint32_t groups) {
  WarpProducts& products = *warp.products;
  std::vector<std::uint32_t> done;
  for (; !products.in_flight.empty() && products.in_flight.front().group < groups;
       products.in_flight.pop_front()) {
    const Product& product = products.in_flight.front();
    check_a_registers(warp, product);
    done.insert(done.end(), product.tokens.begin(), product.tokens.end());
  }
  if (done.empty()) return;
  const auto slots = static_cast<Slot>(warp.cluster->state.kernel.image.size() / kLanes);
  for (Slot slot = 0; slot < slots; ++slot) {
    std::uint32_t* lanes = warp.lanes(slot);
    const auto accumulator = in_flight(products, lanes);
    if (!accumulator || accumulator->before != nullptr) continue;
    const std::uint32_t token = (lanes[0] & ~kTokenBits) / kLanes;
    if (std::ranges::find(done, token) == done.end()) continue;
    std::copy(accumulator->value.begin(), accumulator->value.end(), lanes);
  }
  for (const std::uint32_t token : done) products.tokens.erase(token);
}

}  // namespace cnnkernels::emulator
