// How long a plan should take on a GPU: a model, for ranking plans and for seeing what bounds them. No
// constant in it was fitted to a measurement.
//
// An SM works on its share of the tiles in turns of as many blocks as it holds. In a turn, a stage takes the
// longest of: its multiplications, its instructions and its turns at shared memory (of every block), the
// copies of its operands out of L2, and, however few blocks there are, the memory's latency over the stages
// that are under way together. Before the first stage stands one latency with nothing to do (the pipeline
// fills), and after the last the tile is written. All turns together take no less than the whole
// convolution's tensors take from device memory.
#pragma once

#include "gemm.h"
#include "selection.h"

namespace cnnkernels::conv {

inline constexpr double kLatency = 0.7e-6;  // from a copy's start until its data are there
inline constexpr double kLaunch = 3e-6;     // a kernel's start
// Instructions that gathering one element takes a thread: the main loops of benchmarks/instructions.json,
// with and without, are 12 to 17 an element apart, in every tile and type.
inline constexpr int kGatherClocks = 14;
inline constexpr int kSharedBytesPerClock = 128, kLanesPerClock = 128;

// FLOP/s that an engine reaches at best.
inline double peak(Engine engine, const Element& element, const Gpu& gpu) {
  if (engine == Engine::fma) return element.dtype == DType::float64 ? gpu.fma64 : gpu.fma32;
  return gpu.mma_share * (element.bytes() == 4 ? gpu.tensor_tf32 : gpu.tensor16);
}

// The launch that adds the parts of a split reduction: it reads all and writes one.
inline double adding_seconds(double outputs, const Element& element, int splits, const Gpu& gpu) {
  if (splits == 1) return 0;
  return kLaunch +
         outputs * (splits * element.accumulator_bytes() + element.bytes()) / (kReachedOfMemory * gpu.memory);
}

// Of device memory: what is read once, and the result, or its partial sums where the reduction is split.
inline double memory_seconds(double read, double outputs, const Element& element, int splits,
                             const Gpu& gpu) {
  const double written = splits == 1 ? element.bytes() : splits * element.accumulator_bytes();
  return (read * element.bytes() + outputs * written) / (kReachedOfMemory * gpu.memory);
}

// cost.cpp
Cost cost(const Plan& plan, const Gemm& gemm, const Element& element, const Gpu& gpu);

}  // namespace cnnkernels::conv
