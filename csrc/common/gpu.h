// What selection has to know of a GPU. Rates are the data sheets' (dense, boost clock); nothing here is
// measured.
#pragma once

#include <cstdint>

#include "shared_limits.h"

namespace cnnkernels {

struct Gpu {
  const char* name;    // as the command line calls it
  const char* device;  // a part of the driver's name for it
  int architecture;    // 90: compute capability 9.0
  int processors;
  double clock;                  // Hz
  double tensor16, tensor_tf32;  // FLOP/s of tensor cores, fp16 and bf16, tf32
  double fma32, fma64;           // FLOP/s of multiply-adds outside of them
  double mma_share;  // of the tensor cores' rate, assumed of mma.sync; on Hopper wgmma has the rest
  double memory;     // bytes/s
  double l2;         // bytes/s that all SMs together read of L2; rough
  std::int64_t shared_bytes = 0;  // of one SM
  bool wgmma = true;              // was code of sm_90a loaded? (common/sm90_probe.h)

  // Of shared memory, what one block may have. A plan that asks for more is never chosen, and refused where
  // it is dictated.
  constexpr std::int64_t block_bytes() const { return shared_bytes - kReservedShared; }
};

// Shares of the data sheet's rates that are assumed to be within reach of a kernel, on every GPU: no run of
// this project's measured them.
inline constexpr double kReachedOfPeak = 0.8, kReachedOfMemory = 0.9;

inline constexpr Gpu kGpus[] = {
    {"a100", "A100", 80, 108, 1.41e9, 312e12, 156e12, 19.5e12, 9.7e12, 0.9, 2.04e12, 4.5e12, 164 << 10},
    {"rtx3090", "RTX 3090", 86, 82, 1.70e9, 71e12, 35.6e12, 35.6e12, 0.56e12, 0.9, 0.936e12, 2.0e12,
     100 << 10},
    {"rtx4090", "RTX 4090", 89, 128, 2.52e9, 165e12, 82.6e12, 82.6e12, 1.29e12, 0.9, 1.01e12, 5.0e12,
     100 << 10},
    {"h100", "H100", 90, 132, 1.83e9, 989e12, 495e12, 67e12, 34e12, 0.62, 3.35e12, 5.5e12, 228 << 10},
    {"h200", "H200", 90, 132, 1.83e9, 989e12, 495e12, 67e12, 34e12, 0.62, 4.80e12, 5.5e12, 228 << 10},
    {"rtx5090", "RTX 5090", 120, 170, 2.41e9, 210e12, 105e12, 105e12, 1.64e12, 0.9, 1.79e12, 6.0e12,
     100 << 10},
};

// Why kernels that use wgmma are not chosen there; null where they are. The only place that decides it.
const char* why_not_wgmma(const Gpu& gpu);
// The same of a plan that came from outside: the interpreter runs it whatever GPU it stands for.
const char* cannot_run_wgmma(const Gpu& gpu);

// A GPU by what its driver says: the one of that name, else the newest that is not newer, with this one's
// SMs.
Gpu gpu_like(const char* device, int architecture, int processors);

// By the name in kGpus; std::invalid_argument, with all names, for any other.
const Gpu& gpu_named(const char* name);

// The current device. The interpreter stands for an A100, or for what it is told to.
const Gpu& this_gpu();
inline constexpr int kMostDevices = 64;
int this_device();               // its number, below kMostDevices; 0 in the interpreter
bool is_interpreter();           // which runs every kernel, whatever GPU it stands for
void stand_for(const Gpu& gpu);  // std::logic_error where launches go to a GPU

}  // namespace cnnkernels
