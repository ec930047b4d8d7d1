// adaptive_avg_pool2d to one pixel: a sum of whole planes, in two levels.
//
// Several lanes of a warp take pixels of a plane in turn and add what they have in a tree. A large plane is
// cut into parts, whose sums lie in a workspace, and the same kernel adds those. How many lanes and how many
// parts are functions of the layer alone, so the order of a sum is.
#include "averages.h"
#include "gradients.cuh"
#include "sum.cuh"

namespace cnnkernels::pool {
namespace {

constexpr std::int64_t kPixelsOfLane = 128;  // at most, of a part

// How planes [images, pixels, channels] are summed.
struct Plan {
  int lanes_log2;             // that share a part of a plane; 32 / lanes channels are beside each other
  std::int64_t parts, slice;  // pixels of a part

  Plan(std::int64_t pixels, std::int64_t groups, int bytes_of_group) {
    lanes_log2 = 5;
    // The channels beside each other fill two sectors of memory, if there are so many.
    for (int beside = 1; beside < groups && beside * bytes_of_group < 64 && lanes_log2 > 0; beside *= 2)
      --lanes_log2;
    while (lanes_log2 > 0 && pixels < std::int64_t(4) << lanes_log2) --lanes_log2;
    parts = ceil_div(pixels, kPixelsOfLane << lanes_log2);
    slice = ceil_div(pixels, parts);
  }
};

// Sites are [images, parts, 1, channels]; lanes beside each other have sites beside each other.
template <class In, class Out, class Sites>
CNN_KERNEL(kSiteThreads, 4)
global_avg_pool_kernel(const Sites sites, int lanes_log2, std::int64_t pixels, std::int64_t slice,
                       const Accumulator<In> divisor, const In* __restrict__ input,
                       Out* __restrict__ output) {
  constexpr int V = Sites::kLanes;
  const auto lane = static_cast<Index>(threadIdx.x % 32);
  const auto warp = static_cast<Index>(blockIdx.x * (kSiteThreads / 32) + threadIdx.x / 32);
  const Index beside = 32 >> lanes_log2, own = lane >> (5 - lanes_log2);
  const Index i = warp * beside + lane % beside;
  const bool exists = i < sites.count;
  const Site at = sites[exists ? i : 0];

  const std::int64_t begin = at.row * slice + own, left = pixels - begin, room = slice - own;
  const std::int64_t some = left < room ? left : room;
  const Index count = some <= 0 ? 0 : static_cast<Index>((some - 1) >> lanes_log2) + 1;
  const In* first = input + (at.image * pixels + begin) * sites.channels + at.channel;
  const std::int64_t step = std::int64_t(sites.channels) << lanes_log2;
  const auto element = [&](Index, Index k) { return load<V>(first + k * step); };
  auto sum = reduce_window<0>({0, count, 0, 1}, 0, 0, 1, element, Sum<In, V, 4>());
  for (int distance = beside; distance < 32; distance *= 2) sum.combine_lanes(distance);
  if (own != 0 || !exists) return;
  sum.divide(divisor);
  store(output + sites.offset(at), rounded<Out, V>(sum.total));
}

// Sums over the divisor: of [images, pixels, channels] in `plan.parts` parts.
template <int V, class In, class Out>
void start(std::int64_t images, std::int64_t pixels, std::int64_t channels, const Plan& plan,
           std::int64_t divisor, const In* input, Out* output, std::uintptr_t stream,
           std::int64_t largest_index) {
  const std::int64_t groups = channels / V;
  const auto slice = [&](std::int64_t first, std::int64_t n, std::int64_t row, std::int64_t some, bool) {
    const auto sites = sites_of<Lanes::channels, V, std::int64_t>(n, row, some, plan.parts, 1, channels);
    launch(&global_avg_pool_kernel<In, Out, std::decay_t<decltype(sites)>>,
           launch_over(std::int64_t(sites.count) << plan.lanes_log2, stream), sites, plan.lanes_log2, pixels,
           plan.slice, static_cast<Accumulator<In>>(divisor), input + first * pixels * channels,
           output + first * plan.parts * channels);
  };
  for_each_slice(images, plan.parts, plan.parts * groups, groups, largest_index, slice);
}

// A whole batch: N * C images of one channel for NCHW.
struct Planes {
  std::int64_t images, pixels, channels;

  Planes(const PoolGeometry& geometry, Layout layout) {
    const PoolGeometry& g = of_planes(geometry);
    const bool nhwc = layout == Layout::nhwc;
    images = nhwc ? g.n : g.n * g.c;
    channels = nhwc ? g.c : 1;
    pixels = g.h * g.w;
    if (channels > INT32_MAX) throw_invalid_argument("adaptive_avg_pool2d: more than 2^31 - 1 channels");
  }

  template <class T>
  Plan plan() const {
    const int together = channels % kVectorLanes<T> == 0 ? kVectorLanes<T> : 1;
    return {pixels, channels / together, together * int(sizeof(T))};
  }
};

}  // namespace

std::int64_t adaptive_avg_pool_workspace(DType dtype, const PoolGeometry& geometry, Layout layout) {
  if (geometry.p != 1 || geometry.q != 1) return 0;
  const Planes planes(geometry, layout);
  return dispatch_floating(dtype, [&](auto t) -> std::int64_t {
    using T = decltype(t);
    const Plan plan = planes.plan<T>();
    return plan.parts == 1 ? 0 : planes.images * plan.parts * planes.channels * sizeof(Accumulator<T>);
  });
}

void global_avg_pool_forward(DType dtype, const PoolGeometry& geometry, Layout layout, const void* input,
                             void* output, void* workspace, std::uintptr_t stream,
                             std::int64_t largest_index) {
  const Planes planes(geometry, layout);
  const auto [images, pixels, channels] = planes;
  dispatch_floating(dtype, [&](auto t) {
    using T = decltype(t);
    constexpr int V = kVectorLanes<T>;
    const Plan plan = planes.plan<T>();
    const auto* x = static_cast<const T*>(input);
    const auto sum = [&](std::int64_t divisor, auto* y) {
      const auto addresses = reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(y);
      if (channels % V == 0 && addresses % 16 == 0)
        return start<V>(images, pixels, channels, plan, divisor, x, y, stream, largest_index);
      start<1>(images, pixels, channels, plan, divisor, x, y, stream, largest_index);
    };
    auto* y = static_cast<T*>(output);
    if (plan.parts == 1) return sum(pixels, y);
    auto* sums = static_cast<Accumulator<T>*>(workspace);
    sum(1, sums);
    Plan rest(plan.parts, channels, sizeof(Accumulator<T>));
    rest.parts = 1, rest.slice = plan.parts;
    start<1>(images, plan.parts, channels, rest, pixels, sums, y, stream, largest_index);
  });
}

}  // namespace cnnkernels::pool
