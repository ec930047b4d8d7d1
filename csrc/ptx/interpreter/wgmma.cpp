#include "wgmma.h"

#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "../swizzle.h"

namespace cnnkernels::model {
namespace {

using interpreter::fault;
using interpreter::Site;

constexpr int kRows = 64, kThreads = 128, kMostWarpgroups = 8, kChunk = 16;
constexpr std::uint32_t kAddressMask = 0x3ffff;  // a descriptor sees 18 bits of an address

using Row = std::uint32_t[kRowWords];  // of an operand: 32 bytes of k

// Accumulators in flight: their true values, while the threads' own are poison.
struct Accumulators {
  OperandFormat format;
  int columns;
  int in_flight = 0;
  void* d[kThreads];
  std::vector<std::uint32_t> values;  // [row][column], float or int32

  // Calls body(the thread's element, the matrix's element) for all of them.
  template <class Body>
  void each(Body body) {
    for (int t = 0; t < kThreads; ++t) {
      auto* own = static_cast<std::uint32_t*>(d[t]);
      for (int v = 0; v < columns / 2; ++v) {
        const int row = 16 * (t / 32) + t % 32 / 4 + 8 * (v / 2 % 2);
        const int column = 8 * (v / 4) + 2 * (t % 4) + v % 2;
        body(own[v], values[row * columns + column]);
      }
    }
  }
};

struct Instruction {
  Wgmma what;
  Site site;
  Accumulators* accumulators;
  std::vector<std::uint32_t> a;  // A's rows, if they came from registers
  bool done = false;
};

struct Warpgroup {
  bool fenced = false;  // since accumulators were last given back to the threads
  std::vector<std::unique_ptr<Accumulators>> accumulators;
  std::vector<Instruction> open;
  std::deque<std::vector<Instruction>> committed;
};

struct Warpgroups {
  Warpgroup of[kMostWarpgroups];
};

Warpgroup& warpgroup() { return interpreter::block_state<Warpgroups>().of[interpreter::warp_id() / 4]; }

struct Descriptor {
  std::uint32_t start, leading, stride;
  Swizzle swizzle;
};

Descriptor decode(std::uint64_t bits, Site site) {
  if (bits >> 49 & 7) fault(site, "wgmma: a descriptor has a base offset, which this model does not know");
  if ((bits & ~0xc000'3fff'3fff'3fffULL) != 0) fault(site, "wgmma: a descriptor has reserved bits set");
  const auto field = [&](int from) { return std::uint32_t(bits >> from & 0x3fff) << 4; };
  return {field(0), field(16), field(32), static_cast<Swizzle>((4 - (bits >> 62)) & 3)};
}

const void* chunk_at(std::uint32_t address, const Descriptor& from, Site site) {
  const void* chunk = interpreter::shared_pointer(swizzled(address & kAddressMask, from.swizzle));
  interpreter::check_shared(chunk, kChunk, kChunk, "wgmma's operand", site);
  interpreter::check_fenced(chunk, kChunk, "wgmma", site);
  return chunk;
}

// Rows of k, dense in shared memory.
void read_k_major(Row* rows, int count, const Descriptor& from, Site site) {
  const bool plain = from.swizzle == Swizzle::none;
  const std::uint32_t row_pitch = swizzle_span(from.swizzle), next_chunk = plain ? from.leading : kChunk;
  for (int r = 0; r < count; ++r) {
    for (int half = 0; half < 2; ++half) {
      const std::uint32_t address = from.start + r % 8 * row_pitch + r / 8 * from.stride + half * next_chunk;
      std::memcpy(&rows[r][4 * half], chunk_at(address, from, site), kChunk);
    }
  }
}

// Columns of k: eight 16-bit elements of neighbouring rows, dense in shared memory.
void read_mn_major(Row* rows, int count, const Descriptor& from, Site site) {
  constexpr int kAtOnce = 8, kDepth = 16;
  const bool plain = from.swizzle == Swizzle::none;
  const std::uint32_t k_pitch = swizzle_span(from.swizzle), span_rows = k_pitch / 2;
  const std::uint32_t next_span = plain ? from.stride : from.leading,
                      next_k = plain ? from.leading : from.stride;
  for (int k = 0; k < kDepth; ++k) {
    for (int r = 0; r < count; r += kAtOnce) {
      const std::uint32_t address =
          from.start + r % span_rows * 2 + r / span_rows * next_span + k % 8 * k_pitch + k / 8 * next_k;
      const auto* chunk = static_cast<const unsigned char*>(chunk_at(address, from, site));
      for (int i = 0; i < kAtOnce; ++i)
        std::memcpy(reinterpret_cast<char*>(rows[r + i]) + 2 * k, chunk + 2 * i, 2);
    }
  }
}

void execute(Instruction& instruction) {
  if (instruction.done) return;
  instruction.done = true;
  thread_local Row a[kRows], b[256];
  const Wgmma& what = instruction.what;
  const auto read = [&](Row* rows, int count, std::uint64_t descriptor, bool mn_major) {
    const Descriptor from = decode(descriptor, instruction.site);
    if (mn_major)
      read_mn_major(rows, count, from, instruction.site);
    else
      read_k_major(rows, count, from, instruction.site);
  };
  if (what.a_registers != nullptr)
    std::memcpy(a, instruction.a.data(), sizeof a);
  else
    read(a, kRows, what.a, what.a_mn_major);
  read(b, what.columns, what.b, what.b_mn_major);

  const float* sums = multiply(what.format, a, kRows, b, what.columns);
  std::uint32_t* values = instruction.accumulators->values.data();
  for (int i = 0; i < kRows * what.columns; ++i) {
    if (what.format == OperandFormat::int8 || what.format == OperandFormat::uint8) {
      values[i] = (what.accumulate ? values[i] : 0) + std::uint32_t(std::int32_t(sums[i]));
    } else {
      values[i] =
          std::bit_cast<std::uint32_t>((what.accumulate ? std::bit_cast<float>(values[i]) : 0.0f) + sums[i]);
    }
  }
}

// Fragments of A, one warp's 16 rows after the other's, as rows.
std::vector<std::uint32_t> gather_a(const Wgmma* const* threads) {
  std::vector<std::uint32_t> words(kRows * kRowWords);
  for (int t = 0; t < kThreads; ++t) {
    for (int r = 0; r < 4; ++r) {
      const int row = 16 * (t / 32) + t % 32 / 4 + 8 * (r % 2), word = t % 4 + 4 * (r / 2);
      words[row * kRowWords + word] = threads[t]->a_registers[r];
    }
  }
  return words;
}

Accumulators* find_accumulators(Warpgroup& group, const Wgmma* const* threads, Site site) {
  const Wgmma& first = *threads[0];
  for (auto& flying : group.accumulators) {
    if (flying->d[0] != first.d) continue;
    if (flying->columns != first.columns || flying->format != first.format) {
      fault(site,
            "wgmma: its accumulators are in flight in another shape; only a wait and a fence may change it");
    }
    return flying.get();
  }
  if (!group.fenced) {
    fault(site, "wgmma: no wgmma_fence since the threads could last read or write its accumulators");
  }
  auto flying = std::make_unique<Accumulators>();
  flying->format = first.format;
  flying->columns = first.columns;
  flying->values.resize(kRows * first.columns);
  for (int t = 0; t < kThreads; ++t) flying->d[t] = threads[t]->d;
  flying->each([](std::uint32_t& own, std::uint32_t& value) { value = own; });
  for (int t = 0; t < kThreads; ++t) interpreter::poison(flying->d[t], first.columns / 2 * 4);
  return group.accumulators.emplace_back(std::move(flying)).get();
}

void check_same(const Wgmma* const* threads, Site site) {
  const auto key = [](const Wgmma& w) {
    return std::tuple(w.format, w.columns, w.a_mn_major, w.b_mn_major, w.accumulate, w.a_registers == nullptr,
                      w.a, w.b);
  };
  for (int t = 1; t < kThreads; ++t) {
    if (key(*threads[t]) != key(*threads[0])) {
      fault(site, "wgmma: threads 0 and " + std::to_string(t) +
                      " of the warpgroup give different descriptors or flags");
    }
  }
}

bool read_at_issue() {
  switch (interpreter::delivery()) {
    case interpreter::Delivery::early:
      return true;
    case interpreter::Delivery::late:
      return false;
    default:
      return interpreter::random() % 2 == 0;
  }
}

void issue(Warpgroup& group, const Wgmma* const* threads, Site site) {
  check_same(threads, site);
  const Wgmma& first = *threads[0];
  Instruction instruction{first, site, find_accumulators(group, threads, site), {}};
  if (first.a_registers != nullptr) instruction.a = gather_a(threads);
  ++instruction.accumulators->in_flight;
  group.open.push_back(std::move(instruction));
  if (read_at_issue()) {  // in order: those before it accumulate first
    for (auto& earlier : group.committed) {
      for (Instruction& one : earlier) execute(one);
    }
    for (Instruction& one : group.open) execute(one);
  }
}

void retire(Warpgroup& group, std::vector<Instruction>& instructions) {
  for (Instruction& instruction : instructions) {
    execute(instruction);
    if (--instruction.accumulators->in_flight > 0) continue;
    instruction.accumulators->each([](std::uint32_t& own, std::uint32_t& value) { own = value; });
    std::erase_if(group.accumulators, [&](auto& flying) { return flying.get() == instruction.accumulators; });
    group.fenced = false;
  }
}

}  // namespace

void check_descriptor(const void* start, std::uint32_t leading_bytes, std::uint32_t stride_bytes, Site site) {
  interpreter::check_shared(start, kChunk, kChunk, "wgmma_descriptor's start", site);
  for (const std::uint32_t bytes : {leading_bytes, stride_bytes}) {
    if (bytes % 16 != 0 || bytes > kAddressMask) {
      fault(site,
            "wgmma_descriptor: an offset of " + std::to_string(bytes) + " is no multiple of 16 below 2^18");
    }
  }
}

void wgmma(const Wgmma& mine, Site site) {
  Warpgroup& group = warpgroup();
  const auto body = [&](void* const* threads) {
    issue(group, reinterpret_cast<const Wgmma* const*>(threads), site);
  };
  interpreter::warpgroup_meet(const_cast<Wgmma*>(&mine), body, "wgmma", site);
}

void wgmma_fence(Site site) {
  Warpgroup& group = warpgroup();
  interpreter::warpgroup_meet(nullptr, [&](void* const*) { group.fenced = true; }, "wgmma_fence", site);
}

void wgmma_commit(Site site) {
  Warpgroup& group = warpgroup();
  const auto body = [&](void* const*) {
    group.committed.push_back(std::move(group.open));
    group.open.clear();
  };
  interpreter::warpgroup_meet(nullptr, body, "wgmma_commit", site);
}

void wgmma_wait(int groups_left, Site site) {
  Warpgroup& group = warpgroup();
  const auto body = [&](void* const*) {
    while (group.committed.size() > std::size_t(groups_left)) {
      retire(group, group.committed.front());
      group.committed.pop_front();
    }
  };
  interpreter::warpgroup_meet(nullptr, body, "wgmma_wait", site);
}

}  // namespace cnnkernels::model
