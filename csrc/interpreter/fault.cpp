#include "fault.h"

#include <dlfcn.h>
#include <signal.h>
#include <ucontext.h>

#include <cstdio>
#include <cstring>
#include <mutex>

#include "block.h"
#include "guard_pages.h"

namespace cnnkernels::interpreter {
namespace {

std::string where(const std::string& message, const char* file, unsigned line, const BlockView& block,
                  const Thread* thread) {
  std::string all = file != nullptr && line != 0 ? std::string(file) + ":" + std::to_string(line) + ": " : "";
  all += message + " [block " + text(block.index);
  if (thread != nullptr) {
    all += ", thread " + text(thread->index) + ", warp " + std::to_string(thread->warp) + ", lane " +
           std::to_string(thread->lane);
  }
  return all + "]";
}

std::string hex(std::uintptr_t value) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "0x%zx", static_cast<std::size_t>(value));
  return digits;
}

}  // namespace

std::string text(uint3 i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}
std::string text(dim3 e) { return text(uint3{e.x, e.y, e.z}); }
std::string text(Site site) { return std::string(site.file_name()) + ":" + std::to_string(site.line()); }

std::string hex_of_mask(std::uint32_t mask) {
  char digits[16];
  std::snprintf(digits, sizeof digits, "0x%08x", mask);
  return digits;
}

bool same_place(Site a, Site b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

KernelFault::KernelFault(const std::string& message, const char* file, unsigned line, const BlockView& block,
                         const Thread* thread)
    : std::runtime_error(where(message, file, line, block, thread)),
      file(file == nullptr || line == 0 ? "" : file),
      line(line),
      block(block.index),
      has_thread(thread != nullptr) {
  if (thread != nullptr) {
    this->thread = thread->index;
    warp = thread->warp;
    lane = thread->lane;
  }
}

void fault(Site site, const std::string& message) {
  throw KernelFault(message, site.file_name(), site.line(), *current->view, current);
}

namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE};
struct sigaction previous[64];

void on_signal(int signal, siginfo_t* info, void* context) {
  if (current != nullptr && signal_host != nullptr) {
    Fiber& host = *signal_host;
    signal_host = nullptr;
    std::uintptr_t program_counter = 0;
#if defined(__x86_64__)
    program_counter =
        static_cast<std::uintptr_t>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
    program_counter = static_cast<ucontext_t*>(context)->uc_mcontext.pc;
#endif
    crash = {signal, reinterpret_cast<std::uintptr_t>(info->si_addr), program_counter};
    switch_from_signal(context, host);
    return;
  }
  const struct sigaction& before = previous[signal];
  if ((before.sa_flags & SA_SIGINFO) != 0) {
    before.sa_sigaction(signal, info, context);
  } else if (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN) {
    sigaction(signal, &before, nullptr);  // the instruction runs again and ends the process
  } else {
    before.sa_handler(signal);
  }
}

// A stack overflow leaves no stack for the handler: each OS thread needs another one.
struct SignalStack {
  static constexpr std::size_t kBytes = 64 * 1024;
  std::unique_ptr<char[]> memory;

  SignalStack() {
    stack_t now{};
    sigaltstack(nullptr, &now);
    if ((now.ss_flags & SS_DISABLE) == 0) return;  // faulthandler or a sanitizer made one
    memory.reset(new char[kBytes]);
    stack_t mine{};
    mine.ss_sp = memory.get();
    mine.ss_size = kBytes;
    sigaltstack(&mine, nullptr);
  }
  ~SignalStack() {
    if (!memory) return;
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    sigaltstack(&none, nullptr);
  }
};

}  // namespace

void catch_signals() {
  thread_local const SignalStack stack;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  for (const int signal : kSignals) {
    struct sigaction now{};
    sigaction(signal, nullptr, &now);
    if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == on_signal) continue;
    // Python's faulthandler, say, may have come later than the last launch.
    previous[signal] = now;
    struct sigaction ours{};
    ours.sa_sigaction = on_signal;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigemptyset(&ours.sa_mask);
    sigaction(signal, &ours, nullptr);
  }
}

std::string describe(const Crash& crash) {
  std::string message;
  if (crash.signal == SIGFPE) {
    message = "integer division by zero";
  } else {
    message = crash.address == 0 ? "invalid access (null or a non-canonical address)"
                                 : "invalid access to address " + hex(crash.address);
    if (const std::string near = near_guarded(crash.address); !near.empty()) message += ", " + near;
  }
  Dl_info module{};
  if (dladdr(reinterpret_cast<void*>(crash.program_counter), &module) != 0 && module.dli_fname != nullptr) {
    const char* slash = std::strrchr(module.dli_fname, '/');
    message += "; for the line: addr2line -ie " +
               std::string(slash == nullptr ? module.dli_fname : slash + 1) + " " +
               hex(crash.program_counter - reinterpret_cast<std::uintptr_t>(module.dli_fbase));
  }
  return message;
}

}  // namespace cnnkernels::interpreter
