// __syncwarp, shuffles and votes.
#pragma once

#include <bit>
#include <type_traits>

#include "api.h"

namespace cnnkernels::interpreter {

template <class T>
concept Shuffled = std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8);

inline void check_width(int width, const char* what, Site site) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) {
    fault(site,
          std::string(what) + ": the width must be a power of two up to 32, got " + std::to_string(width));
  }
}

// Every lane brings a value and gets the one of lane source(lane), which lies in its own segment.
template <Shuffled T, class Source>
T shuffle(unsigned mask, T value, Source source, const char* what, Site site) {
  struct Carried {
    T value, result;
    unsigned source;
  } mine{value, value, source(lane_id())};
  if ((mask >> mine.source & 1u) == 0) {
    fault(site,
          std::string(what) + ": reads lane " + std::to_string(mine.source) + ", which is not in the mask");
  }
  warp_meet(
      mask, &mine,
      [](void* const lanes[32]) {
        for (int i = 0; i < 32; ++i) {
          if (lanes[i] == nullptr) continue;
          auto& to = *static_cast<Carried*>(lanes[i]);
          to.result = static_cast<const Carried*>(lanes[to.source])->value;
        }
      },
      what, site);
  return mine.result;
}

struct Vote {
  bool predicate;
  unsigned ballot;
};

inline unsigned vote(unsigned mask, bool predicate, const char* what, Site site) {
  Vote mine{predicate, 0};
  warp_meet(
      mask, &mine,
      [](void* const lanes[32]) {
        unsigned ballot = 0;
        for (int i = 0; i < 32; ++i) {
          if (lanes[i] != nullptr && static_cast<const Vote*>(lanes[i])->predicate) ballot |= 1u << i;
        }
        for (int i = 0; i < 32; ++i) {
          if (lanes[i] != nullptr) static_cast<Vote*>(lanes[i])->ballot = ballot;
        }
      },
      what, site);
  return mine.ballot;
}

void sync_warp(unsigned mask, Site site);

}  // namespace cnnkernels::interpreter

inline void __syncwarp(unsigned mask = 0xffffffffu,
                       cnnkernels::interpreter::Site site = cnnkernels::interpreter::Site::current()) {
  cnnkernels::interpreter::sync_warp(mask, site);
}

#define CNN_WARP_SITE cnnkernels::interpreter::Site site = cnnkernels::interpreter::Site::current()

// The value of lane `source` of the calling lane's segment of `width` lanes.
template <cnnkernels::interpreter::Shuffled T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CNN_WARP_SITE) {
  cnnkernels::interpreter::check_width(width, "__shfl_sync", site);
  const auto w = static_cast<unsigned>(width);
  return cnnkernels::interpreter::shuffle(
      mask, value,
      [=](unsigned lane) { return (lane & ~(w - 1)) | (static_cast<unsigned>(source) & (w - 1)); },
      "__shfl_sync", site);
}
// A source outside the segment gives the lane its own value.
template <cnnkernels::interpreter::Shuffled T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CNN_WARP_SITE) {
  cnnkernels::interpreter::check_width(width, "__shfl_up_sync", site);
  const auto w = static_cast<unsigned>(width);
  return cnnkernels::interpreter::shuffle(
      mask, value, [=](unsigned lane) { return (lane & (w - 1)) >= delta ? lane - delta : lane; },
      "__shfl_up_sync", site);
}
template <cnnkernels::interpreter::Shuffled T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CNN_WARP_SITE) {
  cnnkernels::interpreter::check_width(width, "__shfl_down_sync", site);
  const auto w = static_cast<unsigned>(width);
  return cnnkernels::interpreter::shuffle(
      mask, value, [=](unsigned lane) { return delta < w - (lane & (w - 1)) ? lane + delta : lane; },
      "__shfl_down_sync", site);
}
// May read from an earlier segment, not from a later one.
template <cnnkernels::interpreter::Shuffled T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, CNN_WARP_SITE) {
  cnnkernels::interpreter::check_width(width, "__shfl_xor_sync", site);
  const auto w = static_cast<unsigned>(width);
  return cnnkernels::interpreter::shuffle(
      mask, value,
      [=](unsigned lane) {
        const unsigned source = lane ^ static_cast<unsigned>(lane_mask);
        return source <= (lane | (w - 1)) ? source : lane;
      },
      "__shfl_xor_sync", site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CNN_WARP_SITE) {
  return cnnkernels::interpreter::vote(mask, predicate != 0, "__ballot_sync", site);
}
inline int __any_sync(unsigned mask, int predicate, CNN_WARP_SITE) {
  return cnnkernels::interpreter::vote(mask, predicate != 0, "__any_sync", site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CNN_WARP_SITE) {
  return cnnkernels::interpreter::vote(mask, predicate == 0, "__all_sync", site) == 0;
}

#undef CNN_WARP_SITE
