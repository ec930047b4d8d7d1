// INT8 products on the kernel for Hopper (gemm/sm90/kernel.cuh): TMA brings windows of an image and filters,
// wgmma multiplies s8 or u8 by s8. Tile and span are template parameters; windows or matrix, signs, parts of
// the reduction and the epilogue are data.
#include "sm90_store.cuh"
#include "../gemm/sm90/kernel.cuh"
#include "../gemm/sm90/maps.h"
#include "../common/gpu.h"

namespace cnnkernels::int8 {

namespace sm90 {

namespace {

template <int kTile, int kSpan>
struct Config : Shape<std::int8_t, kSm90Tiles[kTile], Major::k, Major::k, kSpan> {
  static constexpr bool kInParts = true;
  using Arguments = sm90::Arguments;
};

template <class C>
CNN_KERNEL(gemm::sm90::kThreads, 1)  // int8 has a kThreads of its own
int8_product(const __grid_constant__ Arguments a) {
#if CNN_SM90A
  CNN_DYNAMIC_SHARED(memory);
  CNN_SHARED(Ring<C::kStages>, rings, [1]);
  run<C, WindowLoads<C>, Store<C>>(a, memory, rings[0]);
#else
  left_out();
#endif
}

Arguments arguments(const Product& product, const Boxes& boxes, const Plan& plan, int span) {
  const ConvGeometry& g = boxes.geometry;
  const Sm90Tile& tile = kSm90Tiles[plan.tile];
  const std::int64_t channels = g.c / g.groups, taps = g.r * g.s;
  Arguments a;
  set_geometry(a, g);
  a.windows[0] =
      input_map({MapElement::uint8, boxes.a, g.n, g.h, g.w, g.c, boxes.pixel_bytes}, g, span, tile.rows);
  a.other = filter_map(MapElement::uint8, g, boxes.b, boxes.filter_bytes, span, tile.columns / tile.cluster,
                       swizzle_of(span));
  a.phase[0].row_tiles = row_tiles(a.phase[0].pixels, tile);
  a.columns = static_cast<int>(g.k / g.groups);
  a.chunks = static_cast<int>(ceil_div(channels, span));
  a.steps = static_cast<int>(stages_of(taps, channels, span));
  a.steps_per_part = static_cast<int>(ceil_div(a.steps, plan.splits));
  number_tiles(a, tile, g.groups * plan.splits, a.columns);
  a.unsigned_a = product.unsigned_a;
  a.row_elements = g.k;
  if (boxes.window_sums != nullptr) {
    a.zero_point = product.epilogue.zero_point_a.value;
    a.inside = {boxes.window_sums,
                g.k,
                static_cast<std::int32_t>(g.h),
                static_cast<std::int32_t>(g.w),
                FastDivide(g.dilation_h),
                FastDivide(g.dilation_w)};
  }
  return a;
}

template <int kSpan>
void launch_span(const Arguments& a, const Plan& plan, std::uintptr_t stream) {
  const auto one = [&]<int kTile>(std::integral_constant<int, kTile>) {
    if constexpr (kSm90Tiles[kTile].short_runs || kSpan == kRowBytes) {  // why_not()
      using C = Config<kTile, kSpan>;
      if (plan.tile == kTile) launch_blocks<C>(int8_product<C>, a, plan.blocks, stream);
    }
  };
  const auto with = [&]<int... kTile>(std::integer_sequence<int, kTile...>) {
    (one(std::integral_constant<int, kTile>{}), ...);
  };
  with(std::make_integer_sequence<int, kSm90TileCount>{});
}

}  // namespace

}  // namespace sm90

void launch_sm90(const Product& product, const Boxes& boxes, const Plan& plan, void* workspace,
                 std::uintptr_t stream) {
  const ConvGeometry& g = boxes.geometry;
  const int span = gemm::sm90::span_for(g.c / g.groups, g.r * g.s, g.groups > 1);
  sm90::Arguments a = sm90::arguments(product, boxes, plan, span);
  Product finished = product;
  if (boxes.window_sums != nullptr) finished.epilogue.sums_b = nullptr;  // that zero point is taken care of
  a.in_parts = plan.splits > 1;
  if (a.in_parts) {
    a.epilogue.out_dtype = DType::int32;
    a.output = workspace;
    a.part_elements = product.rows() * product.columns();
  } else {
    a.epilogue = finished.epilogue;
    a.output = product.output;
  }
  a.vectors = whole_runs(a.epilogue, a.output, a.columns);
  switch (span) {
    case 32:
      sm90::launch_span<32>(a, plan, stream);
      break;
    case 64:
      sm90::launch_span<64>(a, plan, stream);
      break;
    default:
      sm90::launch_span<128>(a, plan, stream);
  }
  if (a.in_parts) launch_finish_parts(finished, workspace, plan.splits, stream);
}

}  // namespace cnnkernels::int8
