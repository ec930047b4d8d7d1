// The emulator's front door: PTX text in, a launch of one of its kernels run on the host's memory, a Fault
// where the kernel does what a GPU forbids. Host C++ alone; nothing of csrc/ptx/interpreter is known here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace cnnkernels::emulator {

struct Extent {
  std::uint32_t x = 1, y = 1, z = 1;
  std::uint64_t count() const { return std::uint64_t{x} * y * z; }
};

// Global memory is the host's: an address in a kernel is a pointer.
struct Range {
  std::uintptr_t begin = 0;
  std::size_t bytes = 0;
};

// Whose turn is next, of the warps of a cluster and of the clusters of a grid.
enum class Order { ordered, reversed, random };

struct Mode {
  Order order = Order::ordered;
  std::uint64_t seed = 0;  // of everything random, per cluster of blocks
  bool late = true;      // what is asynchronous appears only when somebody waits for it, and is poison before
  bool unasked = false;  // of what is late, copies may appear at random moments before
  bool starve = false;   // half of the warps run only when the others make no progress
  bool warps_meet = true;  // the four warps of a warpgroup meet at wgmma's fence, commit and wait
  bool races = true;  // accesses to shared memory are ordered by barriers, mbarriers and fences, or a Fault
  int threads = 0;    // OS threads that blocks are spread over; 0 is as many as cores
  std::vector<Range> memory;  // what the launch may touch; empty: anything
  std::vector<Range> guards;  // what it may not, whatever memory says
};

struct Parameter {
  std::string name;
  std::size_t offset = 0, bytes = 0, align = 1;
};

struct Entry {
  std::string name;  // mangled, as the PTX spells it
  std::vector<Parameter> parameters;
  std::size_t static_shared_bytes = 0;  // padded to where the dynamic memory begins
  std::uint32_t most_threads = 1024;    // .maxntid, .reqntid
};

class Program;  // a parsed module, shared by launches

// `name` is what faults call the text: a file's path. Throws Fault at what is no PTX or is not known, with
// its line.
std::shared_ptr<const Program> parse(std::string_view text, std::string_view name);
const std::vector<Entry>& entries(const Program& program);

struct Launch {
  std::string entry;
  Extent grid, block, cluster;
  std::uint32_t shared_bytes = 0;     // dynamic
  std::vector<std::byte> parameters;  // the bytes of all, at their offsets
};

// What was executed; summed over blocks.
struct Counts {
  std::uint64_t warp_instructions = 0, thread_instructions = 0;
};

Counts run(const Program& program, const Launch& launch, const Mode& mode);

}  // namespace cnnkernels::emulator
