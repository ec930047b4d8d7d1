// The machine that the runtime without a device pretends to be: it has a GPU of each name in common/gpu.h,
// one of which is current. Its errors are CUDA's, with what was asked and what is allowed behind CUDA's own
// text.
#pragma once

#include <string>

#include <cuda_runtime_api.h>

#include "../../common/gpu.h"

namespace cnnkernels::emulator::runtime {

// What GPUs of a compute capability hold, of the programming guide's table of technical specifications.
struct Capability {
  int architecture;
  int threads, blocks;                    // of an SM
  int portable_cluster, largest_cluster;  // blocks; 0: there are no clusters
};
const Capability& capability(int architecture);

// The same for all of them.
inline constexpr unsigned kWarp = 32;
inline constexpr unsigned kBlockThreads = 1024;
inline constexpr unsigned kBlockExtent[] = {1024, 1024, 64};
inline constexpr unsigned kGridExtent[] = {0x7fffffff, 65535, 65535};
inline constexpr unsigned kRegisters = 64 << 10;  // of an SM, and of a block
inline constexpr int kSharedWithoutAsking = 48 << 10;

int device_count();
const Gpu& gpu(int device);
int current_device();
cudaError_t make_current(int device);
void stand_for(const std::string& name);  // std::invalid_argument where there is none of that name

// Contexts are a thread's: the driver's functions want one, which some of the runtime's functions make.
void make_context();
bool has_context();

// Notes an error of this thread, and why, and returns it.
cudaError_t fail(cudaError_t status, const std::string& why);
cudaError_t last_error();
cudaError_t take_last_error();
const char* text_of(cudaError_t status);

// A kernel's fault leaves a GPU's context unusable: everything after it fails alike, till the process ends
// or, here, somebody resets the device.
cudaError_t broken();
void break_device(cudaError_t status, const std::string& why);
void reset_device();

}  // namespace cnnkernels::emulator::runtime
