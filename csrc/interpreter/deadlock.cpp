// The report of a cluster in which nothing can go on.
#include <map>

#include "cluster.h"

namespace cnnkernels::interpreter {
namespace {

std::string named(const Wait& wait) {
  switch (wait.kind) {
    case Wait::Kind::barrier:
      return wait.number == 0 ? wait.what
                              : std::string(wait.what) + " of barrier " + std::to_string(wait.number);
    case Wait::Kind::meeting:
      return wait.number == 0 ? wait.what : std::string(wait.what) + " with mask " + hex_of_mask(wait.number);
    case Wait::Kind::condition:
      return (*wait.describe)();
    case Wait::Kind::nothing:
      break;
  }
  return "nothing";
}

// "0-31, 40, 64-127" of ascending numbers, added one at a time.
struct Ranges {
  std::string text;
  unsigned first = 0, last = 0;
  bool any = false;

  void add(unsigned i) {
    if (any && i == last + 1) {
      last = i;
      return;
    }
    flush();
    first = last = i;
    any = true;
  }
  void flush() {
    if (!any) return;
    if (!text.empty()) text += ", ";
    text += std::to_string(first);
    if (last != first) text += "-" + std::to_string(last);
  }
};

}  // namespace

std::string Block::waits() const {
  std::map<std::string, Ranges> groups;
  unsigned finished = 0;
  for (unsigned i = 0; i < threads; ++i) {
    const Thread& t = threads_[i];
    if ((alive_[t.warp] >> t.lane & 1u) == 0) {
      ++finished;
    } else if (runnable_[t.warp] >> t.lane & 1u) {
      groups["nothing: can run"].add(i);
    } else {
      groups[named(t.wait) + " at " + text(t.wait.site)].add(i);
    }
  }
  std::string report;
  for (auto& [what, ranges] : groups) {
    ranges.flush();
    report += "\n  " + what + ": threads " + ranges.text;
  }
  if (finished != 0) report += "\n  finished: " + std::to_string(finished) + " threads";
  return report;
}

Site Block::first_wait() const {
  for (unsigned i = 0; i < threads; ++i) {
    const Thread& t = threads_[i];
    if ((alive_[t.warp] >> t.lane & 1u) != 0) return t.wait.site;
  }
  return {};
}

void Cluster::deadlock() {
  // The place is that of the first thread that waits; all are in the message.
  const Block* first = nullptr;
  std::string waits;
  for (unsigned rank = 0; rank < size_; ++rank) {
    const Block& block = *blocks_[rank];
    if (first == nullptr && block.threads_alive() != 0) first = &block;
    if (size_ > 1) waits += "\n block " + text(block.index);
    waits += block.waits();
  }
  const Site site = first->first_wait();
  throw KernelFault(std::string("deadlock: no thread of the ") + (size_ > 1 ? "cluster" : "block") +
                        " can go on. They wait for" + waits + "\n ",
                    site.file_name(), site.line(), *first, nullptr);
}

}  // namespace cnnkernels::interpreter
