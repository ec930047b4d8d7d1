// A cluster's warps take turns until all have ended.
#include <algorithm>
#include <map>
#include <utility>

#include "emulator/asynchronous/state.h"
#include "emulator/machine/hooks.h"
#include "emulator/machine/state.h"
#include "emulator/machine/turn.h"
#include "emulator/ptx/program.h"

namespace cnnkernels::emulator {

namespace {

constexpr int kQuantum = 200;            // instructions of a turn, on average
constexpr std::uint32_t kMostVain = 64;  // turns in which every warp only waits, before that is for ever
constexpr std::uint64_t kMostWithoutEvent = 400'000'000;  // instructions
constexpr std::uint32_t kChangesStarved = 64;             // one round in so many
constexpr std::uint32_t kChangesUnasked = 4;              // one turn in so many

std::string thread_of(const Warp& warp, int lane) {
  const Extent& size = warp.cluster->state.launch.block;
  const std::uint32_t thread = warp.index * kLanes + lane;
  return formatted("thread (%u,%u,%u)", thread % size.x, thread / size.x % size.y, thread / size.x / size.y);
}

std::string place_of(const Kernel& kernel, std::uint32_t at) {
  const SourcePlace& place = kernel.places[at];
  std::string text = formatted("%s:%d", kernel.program->name.c_str(), kernel.code[at].line);
  if (place.file >= 0 && static_cast<std::size_t>(place.file) < kernel.program->files.size())
    text += formatted(" (%s:%d)", kernel.program->files[place.file].c_str(), place.line);
  return text;
}

// Where it happened, below what happened.
std::string located(const Fault& fault, const Warp& warp) {
  const Kernel& kernel = warp.cluster->state.kernel;
  const std::uint32_t* block = warp.block->index;
  std::string text =
      formatted("%s\n  in %s\n  at %s: %s\n  block (%u,%u,%u), warp %d", fault.what(),
                kernel.entry.name.c_str(), place_of(kernel, warp.position).c_str(),
                std::string(kernel.opcodes[warp.position]).c_str(), block[0], block[1], block[2], warp.index);
  if (fault.lane >= 0) text += ", " + thread_of(warp, fault.lane);
  return text;
}

}  // namespace

Cluster::Cluster(const LaunchState& state, std::uint64_t number)
    : state(state),
      random(state.mode.seed * 0x100000001b3u + number),
      deliveries(std::make_unique<ClusterDeliveries>()) {
  const Extent &grid = state.launch.grid, &size = state.launch.cluster;
  const std::uint32_t across = grid.x / size.x, down = grid.y / size.y;
  index[0] = static_cast<std::uint32_t>(number % across);
  index[1] = static_cast<std::uint32_t>(number / across % down);
  index[2] = static_cast<std::uint32_t>(number / across / down);
  const int count = static_cast<int>(size.count());
  if (state.mode.races)
    races = std::make_unique<Races>(count * state.warps_per_block, count, state.shared_end());
  if (state.measures)
    meter = std::make_unique<Meter>(state.kernel.code.size(), count * state.warps_per_block, count);
  blocks.reserve(count);
  for (int rank = 0; rank < count; ++rank) {
    Block& block = blocks.emplace_back(*this, rank);
    for (std::uint32_t warp = 0; warp < state.warps_per_block; ++warp) block.warps.emplace_back(block, warp);
    for (Warp& warp : block.warps) warps_.push_back(&warp);
  }
  if (state.mode.order == Order::reversed) std::reverse(warps_.begin(), warps_.end());
  starves_.assign(warps_.size(), false);
}

Cluster::~Cluster() = default;

void Cluster::take_turn(Warp& warp) {
  const bool random_turns = mode().order == Order::random;
  running = &warp;
  const std::uint64_t before = events;
  const bool went = emulator::take_turn(warp, random_turns ? 1 + random.below(2 * kQuantum) : kQuantum);
  if (events != before)
    for (Warp* each : warps_) each->vain = 0;
  warp.vain = went ? 0 : warp.vain + 1;
}

void Cluster::round(bool starved) {
  for (std::size_t i = 0; i < warps_.size(); ++i) {
    if (warps_[i]->live && starves_[i] == starved) take_turn(*warps_[i]);
    if (mode().unasked && random.below(kChangesUnasked) == 0) deliver_some(*this);
  }
}

bool Cluster::stuck() const {
  bool any = false;
  for (const Warp* warp : warps_) {
    if (warp->live && warp->vain < kMostVain) return false;
    any |= warp->live != 0;
  }
  return any;
}

// Lanes that have come apart, and of which some wait where all have to be, are the reason more often than
// not.
std::string Cluster::why_stuck() const {
  for (const Warp* warp : warps_) {
    bool apart = false, meets = false;
    for_each_lane(warp->live, [&](int lane) {
      const Control control = state.kernel.code[warp->pc[lane]].control;
      meets |= control == Control::warp || control == Control::members;
      apart |= warp->pc[lane] != warp->pc[__builtin_ctz(warp->live)];
    });
    if (apart && meets) return "lanes of a warp wait in different places for each other";
  }
  return "deadlock: every warp waits for what nobody does";
}

// Where every warp is: of a deadlock.
std::string Cluster::standing() const {
  std::string text;
  for (const Warp* warp : warps_) {
    if (!warp->live) continue;
    std::map<std::pair<std::uint32_t, bool>, Mask> places;
    for_each_lane(warp->live, [&](int lane) {
      const bool blocked = warp->blocked >> lane & 1;
      places[{warp->pc[lane] - blocked, blocked}] |= Mask{1} << lane;  // a barrier was passed already
    });
    const std::uint32_t* block = warp->block->index;
    text += formatted("\n  block (%u,%u,%u), warp %d:", block[0], block[1], block[2], warp->index);
    for (const auto& [place, lanes] : places) {
      text += places.size() > 1 ? formatted(" lanes %#x at ", lanes) : std::string(" at ");
      text += place_of(state.kernel, place.first) + ": " + std::string(state.kernel.opcodes[place.first]);
    }
  }
  return text;
}

Counts Cluster::run() {
  std::uint64_t last_event = events, since = 0;
  const auto alive = [](const Warp* warp) { return warp->live != 0; };
  try {
    while (std::any_of(warps_.begin(), warps_.end(), alive)) {
      if (mode().order == Order::random)
        for (std::size_t i = warps_.size(); i > 1; --i)
          std::swap(warps_[i - 1], warps_[random.below(static_cast<std::uint32_t>(i))]);
      if (mode().starve && random.below(kChangesStarved) == 0)
        for (std::size_t i = 0; i < warps_.size(); ++i) starves_[i] = random.below(2);
      const std::uint64_t before = events;
      round(false);
      if (mode().starve && events == before) round(true);
      since = events == last_event ? since + kQuantum * warps_.size() : 0;
      last_event = events;
      if (since > kMostWithoutEvent)
        fault("no thread got anything done for %llu instructions", (unsigned long long)since);
      if (!stuck()) continue;
      if (!deliver_one(*this)) throw Fault(why_stuck() + standing());
      for (Warp* warp : warps_) warp->vain = 0;
    }
    finish_cluster(*this);
    if (meter) meter->finish();
  } catch (const Fault& fault) {
    throw Fault(running ? located(fault, *running) : fault.what(), fault.lane);
  }
  Counts counts;
  for (const Warp* warp : warps_) {
    counts.warp_instructions += warp->executed;
    counts.thread_instructions += warp->threads_executed;
  }
  return counts;
}

}  // namespace cnnkernels::emulator
