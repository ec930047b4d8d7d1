// Happens-before in shared memory, by vector clocks. Two accesses to a byte of which one writes must be
// ordered by a barrier, an mbarrier, a wait for what is asynchronous, or because one warp does both; else a
// Fault names both lines, in whatever order they happened to run.
//
// The unit is the warp. Of what its lanes do to one place, a read and a write in different instructions must
// have a bar.warp.sync, or another barrier, between them; more is not asked of lanes. Beside each warp, what
// it starts and does not wait for has a clock of its own: its cp.asyncs and its bulk copies out of shared
// memory count in groups, a warpgroup's wgmmas too, and copies into shared memory count in phases of the
// mbarrier that they signal. To know a clock is to have waited for it.
//
// What the asynchronous proxy (wgmma, TMA) reads of the generic proxy's must have seen a fence.proxy.async on
// the way from writer to reader, by either or by a third: PTX's memory model asks for no more, and compilers
// put it at either.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace cnnkernels::emulator {

// What somebody has waited for: an entry for each agent. `fenced` is what of it has seen a proxy fence as
// well.
struct Clock {
  std::vector<std::uint32_t> known, fenced;
};

class Races {
 public:
  using Agent = std::uint16_t;
  static constexpr std::uint8_t kLanes = 0xff;  // several, or nobody asks which

  Races(int warps, int blocks,
        std::uint32_t shared_end);  // of the cluster; a block's shared memory ends there

  // Accesses by a warp itself.
  void read(int warp, int block, std::uint32_t offset, std::uint32_t bytes, int line, int lane);
  // `memory` is where the bytes lie, not yet written: warps may write the same value to a place in any order,
  // as compilers make them do with what every warp has computed.
  void write(int warp, int block, std::uint32_t offset, std::uint32_t bytes, int line, int lane = kLanes,
             const std::byte* memory = nullptr);
  void atomic(int warp, int block, std::uint32_t offset, std::uint32_t bytes, int line, int lane);
  // That `offset` was initialised (an mbarrier), by a write that comes before.
  void expect_written(int warp, int block, std::uint32_t offset, std::uint32_t bytes, int line);

  // Barriers and whatever else orders warps.
  void release(int warp, Clock& clock);
  // An arrival that says .relaxed publishes what a fence came after, and no more.
  void fence(int warp);
  void release_relaxed(int warp, Clock& clock);
  void acquire(int warp, const Clock& clock);
  void meet(int warp);  // its lanes: bar.warp.sync, and whatever else orders it
  void proxy_fence(int warp);

  // Started by a warp and not waited for yet: of `agent`, done when a warp knows `time` of it.
  struct Started {
    int warp;
    Agent agent;
    std::uint32_t time;
  };
  enum class Proxy : std::uint8_t { generic, asynchronous };
  void read_later(Started started, Proxy proxy, int block, std::uint32_t offset, std::uint32_t bytes,
                  int line);
  void write_later(Started started, int block, std::uint32_t offset, std::uint32_t bytes, int line);
  void waited(int warp, Agent agent, std::uint32_t time);
  static void know(Clock& clock, Agent agent, std::uint32_t time);

  Agent copies_of(int warp) const { return static_cast<Agent>(warps_ + warp); }
  Agent bulk_of(int warp) const { return static_cast<Agent>(2 * warps_ + warp); }
  Agent products_of(int first_warp) const {
    return static_cast<Agent>(3 * warps_ + first_warp);
  }  // of a warpgroup
  Agent new_mbarrier(int block, std::uint32_t offset);

  // Shared memory is gone when its block ends: what others did there must come before.
  void touch_remotely(int warp, int block, int line);
  void touch_remotely(Agent agent, std::uint32_t time, int block, int line);
  void end_warp(int warp, int block);
  void end_block(int block);

 private:
  static constexpr Agent kNobody = 0xffff, kMany = 0xfffe;
  struct Access {
    std::uint32_t time = 0;  // of kMany: the index of a list of reads
    std::int32_t line = 0;
    Agent agent = kNobody;
    std::uint8_t bytes = 0;  // of the four, a bit each
    std::uint8_t lane = kLanes;
  };
  struct Cell {
    Access write, read;
  };
  // A write over another's that is a race unless it writes what is there.
  struct Suspect {
    const std::byte* memory;
    std::uint32_t value, offset;
    int block;
    Access before, now;
  };
  struct Remote {
    std::uint32_t time;
    std::int32_t line;
  };

  bool knows(int warp, const Access& access) const;
  bool sees(int warp, const Access& access, Proxy proxy) const;
  void add_read(Cell& cell, const Access& read);
  void forget_reads(Cell& cell);
  [[noreturn]] void race(int block, std::uint32_t offset, const Access& before, bool wrote, const Access& now,
                         bool writes) const;
  [[noreturn]] void unfenced(int block, std::uint32_t offset, const Access& before, const Access& now) const;
  void do_read(int warp, Access now, Proxy proxy, int block, std::uint32_t offset, std::uint32_t bytes);
  void do_write(int warp, Access now, int block, std::uint32_t offset, std::uint32_t bytes,
                const std::byte* memory = nullptr);
  void judge(int warp, int line);  // suspects of another instruction
  Access by_warp(int warp, int line) const;
  bool same_warp(const Access& before, const Access& now) const;  // whose lanes have not met since
  void check_lanes(int block, std::uint32_t offset, const Access& before, bool wrote,
                   const Access& now) const;
  bool is_generic(Agent agent) const { return agent < 2 * warps_; }  // a warp or its cp.asyncs

  int warps_;
  std::vector<Clock> clocks_;              // of warps
  std::vector<std::uint32_t> met_;         // of warps: their time when their lanes last met
  std::vector<Clock> at_fence_;            // the same when they last passed a fence
  std::vector<std::vector<Cell>> cells_;   // of blocks, one for 4 bytes
  std::vector<std::vector<Access>> many_;  // reads of a cell by several agents
  std::vector<Suspect> suspects_;          // of one instruction of a warp
  std::vector<std::uint32_t> free_;        // of those
  struct Mbarrier {
    int block;
    std::uint32_t offset;
  };
  std::vector<Mbarrier> mbarriers_;
  std::vector<std::unordered_map<std::uint32_t, Clock>> atomics_;  // of blocks, by offset
  std::vector<std::unordered_map<Agent, Remote>> remote_;          // of blocks
  std::vector<Clock> ends_;                                        // of blocks
  std::string who(Agent agent) const;
};

}  // namespace cnnkernels::emulator
