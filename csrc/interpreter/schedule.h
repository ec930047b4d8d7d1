// How a launch is run: order of threads, delivery of asynchronous work, seed, number of OS threads, read from
// the environment once and changed from Python by _interpreter.set_schedule; and what a launch may ask for.
#pragma once

#include <cstdint>
#include <string>

#include "api.h"

namespace cnnkernels::interpreter {

inline constexpr std::size_t kMostSharedBytes = 227 * 1024;  // an sm_90 block's, the most of any GPU

enum class Order : std::uint8_t { ordered, reversed, random };

struct Schedule {
  Order order = Order::ordered;
  Delivery delivery = Delivery::late;
  std::uint64_t seed = 0;
  unsigned os_threads = 1;
  std::size_t most_shared_bytes = kMostSharedBytes;  // of a block, static and dynamic
};

// A copy of the settings. Throws std::invalid_argument, every time, where an environment variable makes no
// sense.
Schedule schedule();
// Empty strings and a negative seed leave a setting as it is. 0 OS threads: as many as cores, at most 16.
void set_schedule(const std::string& order, std::int64_t seed, const std::string& delivery);
void set_os_threads(unsigned count);
// Of the GPU that is stood for; at most kMostSharedBytes.
void set_most_shared_bytes(std::size_t bytes);
std::string name(Order order);
std::string name(Delivery delivery);

// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
struct Random {
  std::uint64_t state = 0;
  std::uint64_t next() {
    std::uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // Uniform in [0, n), for n < 2^32 (the bias of 2^-32 does not matter here).
  unsigned below(unsigned n) { return static_cast<unsigned>(((next() >> 32) * n) >> 32); }
};

}  // namespace cnnkernels::interpreter
