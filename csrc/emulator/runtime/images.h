// What nvcc made of each source, as csrc/ptx_archive.py wrote it down, and which of it a driver loads on a
// GPU.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../launch.h"

namespace cnnkernels::emulator::runtime {

struct Code {  // sm_90a, machine code, or compute_80, PTX that a driver compiles
  int architecture = 0;
  bool machine = false;
  bool alone = false;  // 90a: for 9.0 and no other
};
Code code_named(const std::string& name);

// As ptxas -v says; of PTX that a driver has yet to compile nobody knows.
struct Usage {
  int registers = 0;
  int shared_bytes = 0;  // static, and what pads it
};

struct Image {       // a text of PTX
  std::string file;  // in the archive
  std::string source;
  std::vector<Code> codes;                              // that became of it
  std::map<std::string, std::map<int, Usage>> kernels;  // of each name, by the machine code's architecture
};

// The choice of a driver among the codes of a source: machine code of the same major that is not newer, the
// newest; else the newest PTX that is not newer. Null where there is none of either.
struct Choice {
  const Image* image = nullptr;
  Code code;
};
Choice choose(const std::vector<const Image*>& of_a_source, int architecture, bool without_machine_code);

// A kernel as loaded on a GPU.
struct Kernel {
  std::shared_ptr<const Program> program, own;  // `own` where another was substituted
  const Entry* entry = nullptr;
  Code code;
  Usage usage;  // registers 0: not known
  int ptx_architecture = 0;
};

struct Archive {
  std::function<std::vector<Image>()> index;
  std::function<std::string(const std::string&)> text;
};
void set_archive(Archive archive);

enum class Missing { nothing, image, kernel };
// Null, and what is missing, where the build has no such kernel for the GPU.
const Kernel* load(const std::string& name, int architecture, Missing& missing);

// From now on a kernel that has been loaded is what another text of PTX has under its name; its own again
// where the text is empty. For tests of what a missing barrier does.
void substitute(const std::string& name, const std::string& text);

}  // namespace cnnkernels::emulator::runtime
