#include "emulator/profile/profile.h"

#include <algorithm>

#include "emulator/profile/kind.h"
#include "emulator/ptx/program.h"

namespace cnnkernels::emulator {

std::vector<std::uint64_t> sample(std::uint64_t count, std::uint64_t wanted) {
  if (wanted == 0 || wanted > count) wanted = count;
  std::vector<std::uint64_t> chosen(wanted);
  for (std::uint64_t i = 0; i < wanted; ++i) chosen[i] = wanted == 1 ? 0 : i * (count - 1) / (wanted - 1);
  return chosen;
}

void Tally::add(const Meter& meter) {
  const std::lock_guard lock(mutex_);
  counted_.resize(meter.counted().size());
  for (std::size_t i = 0; i < counted_.size(); ++i) counted_[i].add(meter.counted()[i]);
  read_.add(meter.read());
  written_.add(meter.written());
}

Profile Tally::profile(const Kernel& kernel, const std::vector<Range>& memory) const {
  Profile profile;
  for (std::size_t i = 0; i < counted_.size(); ++i) {
    if (counted_[i].warps == 0) continue;
    Profile::Row row;
    row.opcode = kernel.opcodes[i];
    row.line = kernel.code[i].line;
    row.kind = kKindNames[static_cast<std::size_t>(kind_of(kernel.opcodes[i]))];
    row.issue_slots = issue_slots(kernel.opcodes[i]);
    row.counted = counted_[i];
    const SourcePlace& place = kernel.places[i];
    if (place.file >= 0 && static_cast<std::size_t>(place.file) < kernel.program->files.size()) {
      row.source_file = kernel.program->files[place.file];
      row.source_line = place.line;
    }
    profile.rows.push_back(std::move(row));
  }
  for (const Range& range : memory) {
    const std::uintptr_t end = range.begin + range.bytes;
    profile.touched.push_back({range, read_.sectors(range.begin, end), written_.sectors(range.begin, end)});
  }
  return profile;
}

}  // namespace cnnkernels::emulator
