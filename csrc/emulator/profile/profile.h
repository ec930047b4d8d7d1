// A profile: what a launch's instructions did, counted on a sample of its blocks.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "emulator/launch.h"
#include "emulator/profile/meter.h"

namespace cnnkernels::emulator {

struct Kernel;

// Of a range of global memory, in sectors of 32 bytes that were touched.
struct Touched {
  Range range;
  std::uint64_t read = 0, written = 0;  // by all clusters of the sample together
};

struct Profile {
  std::uint64_t clusters = 0, sampled = 0;  // of the launch, and those that ran
  struct Row {
    std::string opcode;
    int line = 0;  // of the PTX
    std::string source_file;
    int source_line = 0;
    const char* kind = "";
    int issue_slots = 1;
    Counted counted;
  };
  std::vector<Row> rows;  // of instructions that were executed
  std::vector<Touched> touched;
};

// Which clusters of `count` a sample of at most `wanted` has: the first, the last, and such between them as
// lie at equal distances. 0: all.
std::vector<std::uint64_t> sample(std::uint64_t count, std::uint64_t wanted);

// Adds up what the clusters of a launch have counted; from several OS threads.
class Tally {
 public:
  void add(const Meter& meter);
  Profile profile(const Kernel& kernel, const std::vector<Range>& memory) const;

 private:
  std::mutex mutex_;
  std::vector<Counted> counted_;
  Footprint read_, written_;
};

// Runs clusters of the launch that have `blocks` blocks together, 0: all. What others compute is missing from
// memory.
Profile profile(const Program& program, const Launch& launch, const Mode& mode, std::uint64_t blocks);

}  // namespace cnnkernels::emulator
