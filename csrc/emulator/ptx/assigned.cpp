// Which instructions read a register that nothing can have written, by a look along all ways through the
// code: to execute one is a Fault. A register that is written on other ways than the one taken holds poison,
// a NaN: compilers let lanes compute with what they will not use. They also move and permute bytes of
// nothing, so mov and prmt may.
#include <cstdint>
#include <string>

#include "emulator/fault.h"
#include "emulator/ptx/kernel_builder.h"

namespace cnnkernels::emulator {

namespace {

class Bits {
 public:
  explicit Bits(std::size_t count = 0) : words_((count + 63) / 64) {}
  bool get(std::size_t bit) const { return words_[bit / 64] >> bit % 64 & 1; }
  void set(std::size_t bit) { words_[bit / 64] |= std::uint64_t{1} << bit % 64; }
  // True where that changed something.
  bool add(const Bits& other) {
    bool changed = false;
    for (std::size_t i = 0; i < words_.size(); ++i) {
      changed |= (other.words_[i] & ~words_[i]) != 0;
      words_[i] |= other.words_[i];
    }
    return changed;
  }

 private:
  std::vector<std::uint64_t> words_;
};

struct UnassignedRead : Details {
  std::string name;
};

void fail(Warp&, const Instruction& instruction, Mask lanes) {
  fault_of_lane(__builtin_ctz(lanes), "reads %s, which nothing has written",
                static_cast<const UnassignedRead&>(*instruction.details).name.c_str());
}

// Reads of what no way from the function's start has written.
class Assignments {
 public:
  Assignments(Kernel& kernel, const std::vector<Decoder::Uses>& uses)
      : kernel_(kernel), uses_(uses), registers_(kernel.image.size() / kLanes) {}

  void run(const std::vector<int>& starts, const Scopes& scopes) {
    find_blocks(starts);
    std::vector<int> work = starts;
    while (!work.empty()) {
      const int block = work.back();
      work.pop_back();
      Bits assigned = before_[block];
      const int end = walk(block, [&](int place) { write(place, assigned); });
      for (const int next : successors(end)) {
        const bool first = !reached_[next];
        reached_[next] = true;
        if (before_[next].add(assigned) || first) work.push_back(next);
      }
    }
    for (std::size_t block = 0; block < kernel_.code.size(); ++block) {
      if (!leader_[block] || !reached_[block]) continue;
      Bits assigned = before_[block];
      walk(static_cast<int>(block), [&](int place) {
        for (const Slot use : uses_[place].reads)
          if (!assigned.get(bit(use)) && !may_read_nothing(place)) forbid(place, use, scopes);
        write(place, assigned);
      });
    }
  }

 private:
  std::size_t bit(Slot use) const { return use >= 0 ? use : registers_ + ~use; }

  bool may_read_nothing(int place) const {
    const std::string_view opcode = kernel_.opcodes[place];
    return opcode.substr(0, 4) == "mov." || opcode.substr(0, 5) == "prmt.";
  }

  static bool ends_block(const Instruction& instruction) {
    return instruction.control >= Control::branch && instruction.control != Control::call;
  }

  void find_blocks(const std::vector<int>& starts) {
    leader_.assign(kernel_.code.size() + 1, false);
    reached_ = leader_;
    for (const int start : starts) leader_[start] = reached_[start] = true;
    for (std::size_t i = 0; i < kernel_.code.size(); ++i) {
      if (!ends_block(kernel_.code[i])) continue;
      leader_[i + 1] = true;
      if (kernel_.code[i].control == Control::branch) leader_[kernel_.code[i].target] = true;
    }
    leader_.back() = true;
    for (const auto& table : kernel_.tables)
      for (const int target : table) leader_[target] = true;
    before_.resize(kernel_.code.size());
    for (std::size_t i = 0; i < kernel_.code.size(); ++i)
      if (leader_[i]) before_[i] = Bits(registers_ + kernel_.predicates);
  }

  // All instructions of a block; its last is returned.
  template <class Visit>
  int walk(int block, Visit&& visit) const {
    for (int place = block;; ++place) {
      visit(place);
      if (leader_[place + 1]) return place;
    }
  }

  std::vector<int> successors(int last) const {
    const Instruction& instruction = kernel_.code[last];
    std::vector<int> next;
    if (instruction.control == Control::branch) next.push_back(instruction.target);
    if (instruction.control == Control::indexed_branch) next = kernel_.tables[instruction.target];
    const bool falls = !ends_block(instruction) || instruction.guard != kNone;
    if (falls && last + 1 < static_cast<int>(kernel_.code.size())) next.push_back(last + 1);
    return next;
  }

  void write(int place, Bits& assigned) const {
    for (const Slot use : uses_[place].writes) assigned.set(bit(use));
  }

  void forbid(int place, Slot use, const Scopes& scopes) {
    auto details = std::make_unique<UnassignedRead>();
    const bool predicate = use < 0;
    details->name = scopes.name_of(predicate ? ~use : use, predicate);
    Instruction& instruction = kernel_.code[place];
    instruction.control = Control::plain;
    instruction.details = details.get();
    instruction.execute = fail;
    if (predicate && ~use == instruction.guard) instruction.guard = kNone;
    kernel_.details.push_back(std::move(details));
  }

  Kernel& kernel_;
  const std::vector<Decoder::Uses>& uses_;
  std::size_t registers_;
  std::vector<bool> leader_, reached_;
  std::vector<Bits> before_;  // what may be assigned before a block; of other places empty
};

}  // namespace

void forbid_unassigned_reads(Kernel& kernel, const std::vector<Decoder::Uses>& uses,
                             const std::vector<int>& starts, const Scopes& scopes) {
  Assignments(kernel, uses).run(starts, scopes);
}

}  // namespace cnnkernels::emulator
