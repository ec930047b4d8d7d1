#include "emulator/races.h"

#include <algorithm>
#include <cstring>

#include "emulator/fault.h"

namespace cnnkernels::emulator {
namespace {

void join(std::vector<std::uint32_t>& into, const std::vector<std::uint32_t>& from) {
  if (into.size() < from.size()) into.resize(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

void raise(std::vector<std::uint32_t>& clock, std::size_t agent, std::uint32_t time) {
  if (clock.size() <= agent) clock.resize(agent + 1);
  clock[agent] = std::max(clock[agent], time);
}

std::uint32_t entry(const std::vector<std::uint32_t>& clock, std::size_t agent) {
  return agent < clock.size() ? clock[agent] : 0;
}

// Calls function(index of a cell, its offset, which of its bytes) for the 4-byte cells of a range.
template <class Function>
void for_each_cell(std::uint32_t offset, std::uint32_t bytes, Function function) {
  for (std::uint32_t at = offset, end = offset + bytes; at < end;) {
    const std::uint32_t next = std::min((at | 3) + 1, end);
    const auto mask = static_cast<std::uint8_t>(((1u << (next - at)) - 1) << (at & 3));
    function(at / 4, at & ~3u, mask);
    at = next;
  }
}

}  // namespace

Races::Races(int warps, int blocks, std::uint32_t shared_end)
    : warps_(warps),
      clocks_(warps),
      met_(warps),
      at_fence_(warps),
      cells_(blocks),
      atomics_(blocks),
      remote_(blocks),
      ends_(blocks) {
  for (auto& cells : cells_) cells.resize(shared_end / 4 + 1);
  for (int warp = 0; warp < warps; ++warp) raise(clocks_[warp].known, warp, 1);
}

Races::Access Races::by_warp(int warp, int line) const {
  Access access;
  access.agent = static_cast<Agent>(warp);
  access.time = clocks_[warp].known[warp];
  access.line = line;
  return access;
}

bool Races::knows(int warp, const Access& access) const {
  return entry(clocks_[warp].known, access.agent) >= access.time;
}

// Whether what was written may be read, by the generic proxy or by the asynchronous one.
bool Races::sees(int warp, const Access& access, Proxy proxy) const {
  if (proxy == Proxy::generic || !is_generic(access.agent)) return true;
  return entry(clocks_[warp].fenced, access.agent) >= access.time;
}

bool Races::same_warp(const Access& before, const Access& now) const {
  return before.agent == now.agent && now.agent < warps_ && before.time >= met_[now.agent];
}

// One of the two is a write. Lanes of one instruction are taken for ordered, as are those of several turns of
// a loop.
void Races::check_lanes(int block, std::uint32_t offset, const Access& before, bool wrote,
                        const Access& now) const {
  if (!same_warp(before, now) || before.lane == now.lane || before.line == now.line) return;
  fault(
      "race on shared memory %#x of block %d: lane %d of warp %d %s it (line %d), another lane had %s it "
      "(line "
      "%d), and no bar.warp.sync is between them",
      offset, block, now.lane, now.agent, wrote ? "reads" : "writes", now.line, wrote ? "written" : "read",
      before.line);
}

void Races::add_read(Cell& cell, const Access& read) {
  const auto replace = [&](Access& old) {
    const bool others = same_warp(old, read) && old.lane != read.lane;
    old = read;
    if (others) old.lane = kLanes;
  };
  if (cell.read.agent == kNobody) {
    cell.read = read;
    return;
  }
  if (cell.read.agent == read.agent && cell.read.bytes == read.bytes) return replace(cell.read);
  if (cell.read.agent != kMany) {
    std::uint32_t index = static_cast<std::uint32_t>(many_.size());
    if (free_.empty()) {
      many_.emplace_back();
    } else {
      index = free_.back();
      free_.pop_back();
    }
    many_[index].assign(1, cell.read);
    cell.read.agent = kMany;
    cell.read.time = index;
  }
  auto& reads = many_[cell.read.time];
  for (Access& old : reads) {
    if (old.agent == read.agent && old.bytes == read.bytes) return replace(old);
  }
  reads.push_back(read);
}

void Races::forget_reads(Cell& cell) {
  if (cell.read.agent == kMany) free_.push_back(cell.read.time);
  cell.read = {};
}

void Races::do_read(int warp, Access now, Proxy proxy, int block, std::uint32_t offset, std::uint32_t bytes) {
  for_each_cell(offset, bytes, [&](std::uint32_t index, std::uint32_t at, std::uint8_t mask) {
    Cell& cell = cells_[block][index];
    const bool written = (cell.write.bytes & mask) != 0;
    if (written && cell.write.lane != kLanes) check_lanes(block, at, cell.write, true, now);
    if (cell.read.agent == now.agent && cell.read.time == now.time && (mask & ~cell.read.bytes) == 0) {
      if (cell.read.lane != now.lane) cell.read.lane = kLanes;
      return;
    }
    now.bytes = mask;
    if (written && !(cell.write.agent == now.agent && cell.write.time == now.time)) {
      if (!knows(warp, cell.write)) race(block, at, cell.write, true, now, false);
      if (!sees(warp, cell.write, proxy)) unfenced(block, at, cell.write, now);
    }
    add_read(cell, now);
  });
}

void Races::do_write(int warp, Access now, int block, std::uint32_t offset, std::uint32_t bytes,
                     const std::byte* memory) {
  for_each_cell(offset, bytes, [&](std::uint32_t index, std::uint32_t at, std::uint8_t mask) {
    Cell& cell = cells_[block][index];
    now.bytes = mask;
    const bool again = cell.write.agent == now.agent && cell.write.time == now.time;
    if (!again && (cell.write.bytes & mask) != 0 && !knows(warp, cell.write)) {
      if (memory == nullptr) race(block, at, cell.write, true, now, true);
      Suspect suspect{memory + at - offset, 0, at, block, cell.write, now};
      std::memcpy(&suspect.value, suspect.memory, 4);
      suspects_.push_back(suspect);
    }
    const auto check = [&](const Access& read) {
      if ((read.bytes & mask) == 0) return;
      if (!knows(warp, read)) race(block, at, read, false, now, true);
      check_lanes(block, at, read, false, now);
    };
    if (cell.read.agent == kMany) {
      for (const Access& read : many_[cell.read.time]) check(read);
    } else if (cell.read.agent != kNobody) {
      check(cell.read);
    }
    forget_reads(cell);
    const Access before = cell.write;
    cell.write = now;
    if (!again) return;
    cell.write.bytes |= before.bytes;
    if (before.lane != now.lane) cell.write.lane = kLanes;
  });
}

// What the suspects' instruction wrote is there by now.
void Races::judge(int warp, int line) {
  if (suspects_.empty() || (suspects_[0].now.agent == warp && suspects_[0].now.line == line)) return;
  for (const Suspect& suspect : suspects_) {
    if (std::memcmp(suspect.memory, &suspect.value, 4) == 0) continue;
    race(suspect.block, suspect.offset, suspect.before, true, suspect.now, true);
  }
  suspects_.clear();
}

void Races::read(int warp, int block, std::uint32_t offset, std::uint32_t bytes, int line, int lane) {
  judge(warp, line);
  Access now = by_warp(warp, line);
  now.lane = static_cast<std::uint8_t>(lane);
  do_read(warp, now, Proxy::generic, block, offset, bytes);
}

void Races::write(int warp, int block, std::uint32_t offset, std::uint32_t bytes, int line, int lane,
                  const std::byte* memory) {
  judge(warp, line);
  Access now = by_warp(warp, line);
  now.lane = static_cast<std::uint8_t>(lane);
  do_write(warp, now, block, offset, bytes, memory);
}

// Atomics of one location order each other, and what comes before one is known to who comes after.
void Races::atomic(int warp, int block, std::uint32_t offset, std::uint32_t bytes, int line, int lane) {
  Clock& clock = atomics_[block][offset];
  acquire(warp, clock);
  write(warp, block, offset, bytes, line, lane);
  release(warp, clock);
}

void Races::expect_written(int warp, int block, std::uint32_t offset, std::uint32_t bytes, int line) {
  const Access now = by_warp(warp, line);
  for_each_cell(offset, bytes, [&](std::uint32_t index, std::uint32_t at, std::uint8_t) {
    const Cell& cell = cells_[block][index];
    if (!knows(warp, cell.write)) race(block, at, cell.write, true, now, false);
  });
}

void Races::release(int warp, Clock& clock) {
  judge(kNobody, 0);
  Clock& mine = clocks_[warp];
  join(clock.known, mine.known);
  join(clock.fenced, mine.fenced);
  meet(warp);  // what comes now is not known to who acquires that
}

void Races::meet(int warp) { met_[warp] = ++clocks_[warp].known[warp]; }

void Races::fence(int warp) {
  at_fence_[warp] = clocks_[warp];
  ++clocks_[warp].known[warp];
}

void Races::release_relaxed(int warp, Clock& clock) {
  join(clock.known, at_fence_[warp].known);
  join(clock.fenced, at_fence_[warp].fenced);
}

void Races::acquire(int warp, const Clock& clock) {
  join(clocks_[warp].known, clock.known);
  join(clocks_[warp].fenced, clock.fenced);
  meet(warp);
}

void Races::proxy_fence(int warp) {
  Clock& mine = clocks_[warp];
  join(mine.fenced, mine.known);
  ++mine.known[warp];  // what it writes from now on has seen no fence
}

void Races::read_later(Started started, Proxy proxy, int block, std::uint32_t offset, std::uint32_t bytes,
                       int line) {
  judge(kNobody, 0);
  do_read(started.warp, {.time = started.time, .line = line, .agent = started.agent}, proxy, block, offset,
          bytes);
}

void Races::write_later(Started started, int block, std::uint32_t offset, std::uint32_t bytes, int line) {
  judge(kNobody, 0);
  do_write(started.warp, {.time = started.time, .line = line, .agent = started.agent}, block, offset, bytes);
}

void Races::waited(int warp, Agent agent, std::uint32_t time) { know(clocks_[warp], agent, time); }

void Races::know(Clock& clock, Agent agent, std::uint32_t time) { raise(clock.known, agent, time); }

Races::Agent Races::new_mbarrier(int block, std::uint32_t offset) {
  mbarriers_.push_back({block, offset});
  return static_cast<Agent>(4 * warps_ + mbarriers_.size() - 1);
}

void Races::touch_remotely(int warp, int block, int line) {
  touch_remotely(static_cast<Agent>(warp), clocks_[warp].known[warp], block, line);
}

void Races::touch_remotely(Agent agent, std::uint32_t time, int block, int line) {
  remote_[block][agent] = {time, line};
}

void Races::end_warp(int warp, int block) {
  judge(kNobody, 0);
  join(ends_[block].known, clocks_[warp].known);
}

void Races::end_block(int block) {
  for (const auto& [agent, remote] : remote_[block]) {
    if (entry(ends_[block].known, agent) >= remote.time) continue;
    fault(
        "block %d of the cluster ends, and nothing says that what %s did to its shared memory in line %d "
        "came before",
        block, who(agent).c_str(), remote.line);
  }
}

std::string Races::who(Agent agent) const {
  const int kind = agent / warps_, index = agent % warps_;
  switch (kind) {
    case 0:
      return formatted("warp %d", index);
    case 1:
      return formatted("a cp.async of warp %d", index);
    case 2:
      return formatted("a bulk copy of warp %d", index);
    case 3:
      return formatted("a wgmma of warps %d to %d", index, index + 3);
    default:
      break;
  }
  const Mbarrier& mbarrier = mbarriers_[agent - 4 * warps_];
  return formatted("a copy that signals the mbarrier at %#x of block %d", mbarrier.offset, mbarrier.block);
}

void Races::race(int block, std::uint32_t offset, const Access& before, bool wrote, const Access& now,
                 bool writes) const {
  fault(
      "race on shared memory %#x of block %d: %s %s it (line %d), %s had %s it (line %d), and nothing orders "
      "them",
      offset, block, who(now.agent).c_str(), writes ? "writes" : "reads", now.line, who(before.agent).c_str(),
      wrote ? "written" : "read", before.line);
}

void Races::unfenced(int block, std::uint32_t offset, const Access& before, const Access& now) const {
  fault(
      "shared memory %#x of block %d: %s reads it (line %d) through the asynchronous proxy, and there is no "
      "fence.proxy.async since %s wrote it (line %d)",
      offset, block, who(now.agent).c_str(), now.line, who(before.agent).c_str(), before.line);
}

}  // namespace cnnkernels::emulator
