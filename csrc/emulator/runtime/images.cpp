#include "images.h"

#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace cnnkernels::emulator::runtime {

namespace {

// A driver's own variable: machine code is passed over.
bool without_machine_code() {
  const char* text = std::getenv("CUDA_FORCE_PTX_JIT");
  return text != nullptr && std::string(text) == "1";
}

// Parsed once, shared by kernels, GPUs and launches; nothing is ever unloaded. Whoever reads the archive
// holds no lock: reading lets go of Python's, and a thread that then waits here would hold that one.
struct Loader {
  std::mutex mutex;
  Archive archive;
  std::vector<Image> images;
  std::map<std::string, std::vector<const Image*>> sources;
  std::map<std::string, std::string> source_of;  // of a kernel
  std::map<std::string, std::shared_ptr<const Program>> programs;
  std::map<std::pair<std::string, int>, Kernel> kernels;

  void read_index() {
    {
      const std::lock_guard lock(mutex);
      if (!images.empty()) return;
    }
    std::vector<Image> read = archive.index();
    const std::lock_guard lock(mutex);
    if (!images.empty()) return;
    images = std::move(read);
    for (const Image& image : images) {
      sources[image.source].push_back(&image);
      for (const auto& [kernel, usage] : image.kernels) source_of.emplace(kernel, image.source);
    }
  }

  std::shared_ptr<const Program> program(const std::string& file) {
    {
      const std::lock_guard lock(mutex);
      if (const auto found = programs.find(file); found != programs.end()) return found->second;
    }
    std::shared_ptr<const Program> parsed = parse(archive.text(file), file);
    const std::lock_guard lock(mutex);
    return programs.emplace(file, std::move(parsed)).first->second;
  }
};

const Entry& entry_of(const Program& program, const std::string& name) {
  for (const Entry& entry : entries(program))
    if (entry.name == name) return entry;
  throw std::invalid_argument("the text has no kernel " + name);
}

Loader& loader() {
  static Loader& only = *new Loader;  // launches may come till the process ends
  return only;
}

}  // namespace

Code code_named(const std::string& name) {
  Code code;
  const std::size_t digits = name.find('_') + 1;
  code.machine = name.starts_with("sm_");
  code.alone = name.ends_with('a');
  code.architecture = std::stoi(name.substr(digits));
  return code;
}

Choice choose(const std::vector<const Image*>& of_a_source, int architecture, bool without_machine_code) {
  Choice best;
  for (const Image* image : of_a_source) {
    for (const Code& code : image->codes) {
      const bool runs = code.alone ? code.architecture == architecture
                        : code.machine
                            ? code.architecture / 10 == architecture / 10 && code.architecture <= architecture
                            : code.architecture <= architecture;
      if (!runs || (code.machine && without_machine_code)) continue;
      const auto rank = [](const Code& c) { return std::tuple(c.machine, c.architecture, c.alone); };
      if (best.image == nullptr || rank(best.code) < rank(code)) best = {image, code};
    }
  }
  return best;
}

void set_archive(Archive archive) { loader().archive = std::move(archive); }

void substitute(const std::string& name, const std::string& text) {
  Loader& l = loader();
  std::shared_ptr<const Program> other = text.empty() ? nullptr : parse(text, "substituted.ptx");
  const std::lock_guard lock(l.mutex);
  for (auto& [key, kernel] : l.kernels) {
    if (key.first != name) continue;
    if (kernel.own == nullptr) kernel.own = kernel.program;
    kernel.program = other ? other : kernel.own;
    kernel.entry = &entry_of(*kernel.program, name);
  }
}

const Kernel* load(const std::string& name, int architecture, Missing& missing) {
  Loader& l = loader();
  missing = Missing::nothing;
  {
    const std::lock_guard lock(l.mutex);
    if (const auto found = l.kernels.find({name, architecture}); found != l.kernels.end())
      return &found->second;
  }
  l.read_index();  // from here on it stays as it is
  const auto source = l.source_of.find(name);
  if (source == l.source_of.end()) return missing = Missing::kernel, nullptr;
  const auto [image, code] = choose(l.sources.at(source->second), architecture, without_machine_code());
  if (image == nullptr) return missing = Missing::image, nullptr;
  const auto usage = image->kernels.find(name);
  if (usage == image->kernels.end()) return missing = Missing::kernel, nullptr;

  Kernel kernel;
  kernel.code = code;
  kernel.ptx_architecture = code_named(image->file.substr(image->file.rfind('/') + 1)).architecture;
  kernel.program = l.program(image->file);
  kernel.entry = &entry_of(*kernel.program, name);
  const std::map<int, Usage>& known = usage->second;
  if (code.machine)
    kernel.usage = known.at(code.architecture);
  else if (!known.empty())
    kernel.usage.shared_bytes = known.begin()->second.shared_bytes;  // of one text the same for every GPU
  else
    kernel.usage.shared_bytes = static_cast<int>(kernel.entry->static_shared_bytes);
  const std::lock_guard lock(l.mutex);
  return &l.kernels.emplace(std::pair(name, architecture), kernel).first->second;
}

}  // namespace cnnkernels::emulator::runtime
