// A parsed module.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "emulator/launch.h"
#include "emulator/ptx/declarations.h"
#include "emulator/ptx/kernel.h"
#include "emulator/ptx/statement.h"

namespace cnnkernels::emulator {

// .entry or .func, as its header says.
struct Function {
  std::string_view name;
  bool entry = false, defined = false;
  std::vector<Variable> parameters, results;
  std::uint32_t most_threads = 1024;
  std::size_t body = 0;  // the token after its {
  int line = 0;
};

class Program {
 public:
  Program(std::string_view text, std::string_view name);

  std::string text, name;  // all views point into the text
  std::string target;      // sm_90a
  std::vector<Token> tokens;
  std::unordered_map<std::string_view, Function> functions;
  // Of the module: shared ones are every kernel's own that names them, the others lie in `memory`.
  std::unordered_map<std::string_view, Variable> variables;
  std::unordered_map<std::string_view, std::size_t> places;
  std::unique_ptr<std::byte[]> memory;  // from `base` on, which is aligned
  std::byte* base = nullptr;
  std::size_t memory_bytes = 0;
  std::vector<std::string> files;  // of .file, by number
  std::vector<Entry> entries;
  std::unordered_map<std::string, std::unique_ptr<Kernel>> kernels;  // by entry

 private:
  void scan();
  void scan_function(class Cursor& cursor, bool entry);
  void scan_variables(class Cursor& cursor, Space space);
  void place_variables();
  std::vector<std::string_view> entry_names_;  // in the order of the text
};

// Builds the code of an entry and of the functions that it calls.
std::unique_ptr<Kernel> build_kernel(const Program& program, const Function& entry);

}  // namespace cnnkernels::emulator
