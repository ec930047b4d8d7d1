// Which instructions may read a register that nothing has written: a look along all ways through the code.
// Only these, and what writes such registers, are watched while they run.
#include <algorithm>
#include <cstdint>

#include "emulator/ptx/kernel_builder.h"

namespace cnnkernels::emulator {

namespace {

class Bits {
 public:
  explicit Bits(std::size_t count = 0, bool value = false)
      : words_((count + 63) / 64, value ? ~std::uint64_t{0} : 0) {}
  bool get(std::size_t bit) const { return words_[bit / 64] >> bit % 64 & 1; }
  void set(std::size_t bit, bool value) {
    const std::uint64_t mask = std::uint64_t{1} << bit % 64;
    words_[bit / 64] = value ? words_[bit / 64] | mask : words_[bit / 64] & ~mask;
  }
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

class Assignments {
 public:
  Assignments(Kernel& kernel, const std::vector<Decoder::Uses>& uses)
      : kernel_(kernel), uses_(uses), registers_(kernel.image.size() / kLanes) {}

  void run(const std::vector<int>& starts, const Scopes& scopes) {
    find_blocks(starts);
    std::vector<int> work;
    for (const int start : starts) {
      before_[start] = Bits(registers_ + kernel_.predicates, true);
      work.push_back(start);
    }
    while (!work.empty()) {
      const int block = work.back();
      work.pop_back();
      Bits unassigned = before_[block];
      const int end = walk(block, [&](int at) { step(at, unassigned); });
      for (const int next : successors(end)) {
        const bool first = !reached_[next];
        reached_[next] = true;
        if (before_[next].add(unassigned) || first) work.push_back(next);
      }
    }
    watch(scopes);
  }

 private:
  std::size_t bit(Slot use) const { return use >= 0 ? use : registers_ + ~use; }

  const Instruction& at(int place) const { return kernel_.code[place]; }

  bool is_copy(int place) const {
    const Decoder::Uses& uses = uses_[place];
    return kernel_.opcodes[place].substr(0, 4) == "mov." && uses.reads.size() == 1 && uses.writes.size() == 1;
  }

  static bool ends_block(const Instruction& instruction) {
    return instruction.control >= Control::branch && instruction.control != Control::call;
  }

  void find_blocks(const std::vector<int>& starts) {
    leader_.assign(kernel_.code.size() + 1, false);
    for (const int start : starts) leader_[start] = true;
    for (std::size_t i = 0; i < kernel_.code.size(); ++i) {
      if (!ends_block(kernel_.code[i])) continue;
      leader_[i + 1] = true;
      if (kernel_.code[i].control == Control::branch) leader_[kernel_.code[i].target] = true;
    }
    for (const auto& table : kernel_.tables)
      for (const int target : table) leader_[target] = true;
    before_.resize(kernel_.code.size());
    for (std::size_t i = 0; i < kernel_.code.size(); ++i)
      if (leader_[i]) before_[i] = Bits(registers_ + kernel_.predicates);
    reached_ = leader_;
    std::fill(reached_.begin(), reached_.end(), false);
    for (const int start : starts) reached_[start] = true;
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
    const Instruction& instruction = at(last);
    std::vector<int> next;
    if (instruction.control == Control::branch) next.push_back(instruction.target);
    if (instruction.control == Control::indexed_branch) next = kernel_.tables[instruction.target];
    const bool falls = !ends_block(instruction) || instruction.guard != kNone;
    if (falls && last + 1 < static_cast<int>(kernel_.code.size())) next.push_back(last + 1);
    return next;
  }

  void step(int place, Bits& unassigned) const {
    const Decoder::Uses& uses = uses_[place];
    const bool value = is_copy(place) && unassigned.get(bit(uses.reads[0]));
    if (at(place).guard != kNone) return;
    for (const Slot use : uses.writes) unassigned.set(bit(use), value);
  }

  template <class Visit>
  void for_each_doubtful_read(Visit&& visit) const {
    for (std::size_t block = 0; block < kernel_.code.size(); ++block) {
      if (!leader_[block] || !reached_[block]) continue;
      Bits unassigned = before_[block];
      walk(static_cast<int>(block), [&](int place) {
        for (const Slot use : uses_[place].reads)
          if (unassigned.get(bit(use))) visit(place, use);
        step(place, unassigned);
      });
    }
  }

  void watch(const Scopes& scopes) {
    Bits doubtful(registers_ + kernel_.predicates);
    for_each_doubtful_read([&](int place, Slot use) {
      doubtful.set(bit(use), true);
      const bool predicate = use < 0;
      kernel_.watches[place].reads.emplace_back(use, scopes.name_of(predicate ? ~use : use, predicate));
    });
    for (std::size_t i = 0; i < kernel_.code.size(); ++i)
      for (const Slot use : uses_[i].writes)
        if (doubtful.get(bit(use))) kernel_.watches[static_cast<int>(i)].writes.push_back(use);
    for (auto& [place, watch] : kernel_.watches) {
      watch.copies = is_copy(place);
      kernel_.code[place].watch = &watch;
    }
  }

  Kernel& kernel_;
  const std::vector<Decoder::Uses>& uses_;
  std::size_t registers_;
  std::vector<bool> leader_, reached_;
  std::vector<Bits> before_;  // what may be unassigned before a block; of other places empty
};

}  // namespace

void watch_unassigned(Kernel& kernel, const std::vector<Decoder::Uses>& uses, const std::vector<int>& starts,
                      const Scopes& scopes) {
  Assignments(kernel, uses).run(starts, scopes);
}

}  // namespace cnnkernels::emulator
