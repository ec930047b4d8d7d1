// The rule of packing.h, what it costs and how much memory it takes.
#include "packing.h"

#include "../../common/giving_way.h"
#include "../grouped/grouped.h"
#include "../sm90/select.h"

namespace cnnkernels::conv {

namespace {

// The batch and the GPUs that the rule is made for.
constexpr std::int64_t kJudgedBatch = 32;
const Gpu& judge_for(const Gpu& gpu) {
  static const Gpu &hopper = gpu_named("h200"), &others = gpu_named("a100");
  return why_not_wgmma(gpu) == nullptr ? hopper : others;
}

// Of narrower groups most of a packed run would be padding.
constexpr std::int64_t kNarrowestGroup = 8;

// From this depth on Hopper's kernel and a copy of its result go before mma.sync, which stores anywhere. The
// copy reads and writes 2 bytes more an output each: 4 at 4.3 TB/s, 0.93 ps (assumed: common/gpu.h). Out of
// L2, at 5.5 TB/s, a product takes 1/32 byte in mma.sync's 128 x 128 tile and 1/64 in a cluster's 128 x
// 256: 2.8 fs less.
constexpr std::int64_t kUnpackingDepth = 320;

constexpr std::int64_t kBytes = 2;  // of an element

bool two_bytes(const Problem& problem) {
  return problem.dtype == DType::float16 || problem.dtype == DType::bfloat16;
}

// Elements of one image of the input and of the output, and of the filter.
struct Elements {
  std::int64_t x, y, w;
  explicit Elements(const ConvGeometry& g)
      : x(g.c * g.h * g.w), y(g.k * g.p * g.q), w(g.k * (g.c / g.groups) * g.r * g.s) {}
  // Of an operand or the result: of one image, or of all.
  std::int64_t first(Direction d) const { return d == Direction::forward ? x : y; }
  std::int64_t second(Direction d) const { return d == Direction::backward_weight ? x : w; }
  std::int64_t result(Direction d) const {
    return d == Direction::forward ? y : d == Direction::backward_input ? x : w;
  }
};

bool unaligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % kVectorBytes != 0; }

// Which operands are not yet what packing makes of them.
void set_copies(Direction direction, const Problem& problem, const Tensors& tensors, Packed& packed) {
  const ConvGeometry &g = problem.geometry, &q = packed.problem.geometry;
  const bool all = problem.layout == Layout::nchw;
  const bool x = all || g.c != q.c || packed.how == Packing::rows, y = all || g.k != q.k;
  packed.first = unaligned(tensors.first) || (direction == Direction::forward ? x : y);
  packed.second = unaligned(tensors.second) || x || (direction != Direction::backward_weight && y);
}

// Do tensors aligned to 16 bytes have to be gathered?
bool gathers(Direction direction, const Problem& problem) {
  const ConvGeometry& g = problem.geometry;
  if (problem.layout == Layout::nhwc && g.c / g.groups % kPackedChunk == 0 &&
      g.k / g.groups % kPackedChunk == 0)
    return false;
  const Element element = element_of(problem);
  for (const Gemm& gemm : gemms(direction, problem)) {
    if (gemm.rows() * gemm.columns() * gemm.depth() == 0) continue;
    if (loader_for(gemm.a, element) == Loader::elements || loader_for(gemm.b, element) == Loader::elements)
      return true;
  }
  return false;
}

double seconds(Direction direction, const Problem& problem, const std::vector<Gemm>& gemms, const Gpu& gpu) {
  double sum = 0;
  for (const Gemm& gemm : gemms) {
    const Selection found = select(direction, gemm, element_of(problem), gpu, splits_for(direction, problem));
    sum += found.candidates[found.chosen].cost.seconds;
  }
  return sum;
}

ResultBy result_by(Direction direction, const Problem& problem, const Packed& packed, const Plan* asked,
                   const Gpu& gpu) {
  const ConvGeometry &g = problem.geometry, &q = packed.problem.geometry;
  const bool whole = Elements(g).result(direction) == Elements(q).result(direction);
  if (whole && problem.layout == Layout::nhwc) return ResultBy::in_place;
  if (direction == Direction::backward_weight) return ResultBy::unpacked;
  if (asked != nullptr) return asked->engine == Engine::mma ? ResultBy::strided : ResultBy::unpacked;
  const std::int64_t depth = sm90::channels(direction, g).of_sum * g.r * g.s;
  Problem alone = packed.problem;  // a batch of too many pixels is cut into slices
  alone.geometry.n = 1;
  const bool pays = depth >= kUnpackingDepth && !sm90::why_not(direction, alone, gpu);
  return pays ? ResultBy::unpacked : ResultBy::strided;
}

// Columns of C in all groups: one number each of an epilogue's vectors.
std::int64_t columns(Direction direction, const ConvGeometry& g) {
  return direction == Direction::backward_input ? g.c : g.k;
}

std::int64_t whole_lines(std::int64_t elements) { return ceil_div(elements * kBytes, 256) * 256; }

// Where the copies of `images` images lie.
void lay_out(Direction direction, std::int64_t images, Packed& packed) {
  const Elements e(packed.problem.geometry);
  const bool sums_images = direction == Direction::backward_weight;
  std::int64_t end = 0;
  const auto room = [&](bool copied, std::int64_t elements) {
    const std::int64_t begin = end;
    if (copied) end += whole_lines(elements);
    return begin;
  };
  const bool unpacked = packed.result == ResultBy::unpacked;
  packed.images = images;
  packed.slices = static_cast<int>(ceil_div(packed.problem.geometry.n, images));
  packed.at_first = room(packed.first, images * e.first(direction));
  packed.at_second = room(packed.second, (sums_images ? images : 1) * e.second(direction));
  packed.at_result = room(unpacked, (sums_images ? 1 : images) * e.result(direction));
  packed.at_residual = room(packed.residual && unpacked, images * e.result(direction));
  packed.at_vectors = room(unpacked && !sums_images, 3 * columns(direction, packed.problem.geometry));
  packed.end = end;
}

// As many images a slice as the workspace limit allows; false: not one.
bool slice(Direction direction, const Problem& problem, Packed& packed) {
  const auto bytes = [&](std::int64_t images) {
    lay_out(direction, images, packed);
    return packed.end;
  };
  const std::int64_t n = problem.geometry.n, one = bytes(1);
  if (one > kWorkspaceLimit) return false;
  if (bytes(n) <= kWorkspaceLimit) return true;
  std::int64_t images = std::min(n, (kWorkspaceLimit - one) / std::max<std::int64_t>(1, bytes(2) - one) + 1);
  while (bytes(images) > kWorkspaceLimit) --images;  // copies begin at whole lines
  return true;
}

// Were every tensor copied, would one image fit? So the answer depends on the layer alone.
bool one_image_fits(Direction direction, const Problem& problem, Packing how) {
  Packed worst;
  worst.how = how;
  worst.problem = packed_problem(problem, how);
  worst.result = ResultBy::unpacked;
  worst.residual = direction != Direction::backward_weight;
  lay_out(direction, 1, worst);
  return worst.end <= kWorkspaceLimit;
}

}  // namespace

Problem packed_problem(const Problem& problem, Packing how) {
  Problem packed = problem;
  packed.layout = Layout::nhwc;
  ConvGeometry& g = packed.geometry;
  std::int64_t channels = g.c / g.groups;
  if (how == Packing::rows) {
    channels *= g.s;
    g.w = g.q;
    g.s = g.stride_w = g.dilation_w = 1;
    g.pad_w = 0;
  }
  g.c = g.groups * whole_chunks(channels);
  g.k = g.groups * whole_chunks(g.k / g.groups);
  return packed;
}

const char* why_not(Direction direction, const Problem& problem, Packing how) {
  const ConvGeometry& g = problem.geometry;
  if (how == Packing::none) return nullptr;
  if (g.padding_mode != PaddingMode::zeros) return "what is packed is padded with zeros alone";
  if (!two_bytes(problem)) return "only 16-bit types are packed: others are gathered by cp.async";
  if (how == Packing::rows && direction == Direction::backward_input)
    return "rows of overlapping windows are read, not written";
  if (how == Packing::rows && g.groups > 1) return "rows are packed of one group";
  if (!one_image_fits(direction, problem, how)) return "one image's copies pass the workspace limit";
  return nullptr;
}

PackingCost packing_cost(Direction direction, const Problem& problem, const Gpu& gpu) {
  PackingCost cost;
  if (gave_way(Yielding::conv_packed, static_cast<int>(direction), problem.dtype)) return cost;
  const ConvGeometry& g = problem.geometry;
  if (!two_bytes(problem) || g.padding_mode != PaddingMode::zeros || !gathers(direction, problem))
    return cost;
  if (g.groups > 1 && std::min(g.c, g.k) / g.groups < kNarrowestGroup) return cost;
  if (grouped::plan_for(direction, problem, nullptr)) return cost;  // it gathers nothing, and goes first
  const Gpu& judge = judge_for(gpu);
  Problem judged = problem;
  judged.geometry.n = kJudgedBatch;
  const auto of = [&](Packing how) {
    if (why_not(direction, problem, how) != nullptr) return 0.0;
    Packed packed;
    packed.how = how;
    packed.problem = packed_problem(judged, how);
    set_copies(direction, judged, {}, packed);
    packed.result = result_by(direction, judged, packed, nullptr, judge);
    const double copies = copy_cost(direction, judged, packed, judge).seconds;
    if (packed.result != ResultBy::strided && !sm90::why_not(direction, packed.problem, judge)) {
      const auto all = sm90::candidates(direction, packed.problem, judge);
      return copies + all[cheapest(all)].cost.seconds;
    }
    return copies + seconds(direction, packed.problem, packed_gemms(direction, judged, packed), judge);
  };
  cost.none = seconds(direction, judged, gemms(direction, judged), judge);
  cost.channels = of(Packing::channels);
  if (g.c / g.groups < kPackedChunk && g.s > 1) cost.rows = of(Packing::rows);
  double least = cost.none;
  for (const auto& [how, taken] : {std::pair(Packing::channels, cost.channels), {Packing::rows, cost.rows}}) {
    if (taken == 0 || taken >= least) continue;
    cost.how = how;
    least = taken;
  }
  return cost;
}

std::optional<Packed> packed_for(Direction direction, const Problem& problem, const Plan* asked,
                                 const Tensors& tensors, const Gpu& gpu) {
  const bool binding = asked != nullptr && asked->binding;
  if (!binding && gave_way(Yielding::conv_packed, static_cast<int>(direction), problem.dtype))
    return std::nullopt;
  Packed packed;
  packed.how = asked != nullptr ? asked->packing : packing_cost(direction, problem, gpu).how;
  if (packed.how == Packing::none) {
    if (binding || !two_bytes(problem) || !(unaligned(tensors.first) || unaligned(tensors.second)) ||
        gathers(direction, problem))
      return std::nullopt;
    packed.how = Packing::channels;  // of aligned tensors the same sums are made as they lie
    const ConvGeometry& g = problem.geometry;
    if (std::min(g.c, g.k) / g.groups < kNarrowestGroup) return std::nullopt;
  }
  if (const char* why = why_not(direction, problem, packed.how)) {
    if (binding)
      throw std::invalid_argument("conv2d: the plan '" + describe(*asked) + "' cannot serve: " + why);
    return std::nullopt;
  }
  packed.problem = packed_problem(problem, packed.how);
  set_copies(direction, problem, tensors, packed);
  packed.residual = tensors.residual != nullptr;
  packed.result = result_by(direction, problem, packed, asked, gpu);
  if (!slice(direction, problem, packed)) return std::nullopt;
  if (asked != nullptr && asked->images > 0 && asked->images < packed.images)
    lay_out(direction, asked->images, packed);
  if (packed.slices > 1 && direction == Direction::backward_weight) {
    const std::int64_t affordable = kWorkspaceLimit / (packed.slices * Elements(packed.problem.geometry).w *
                                                       element_of(problem).accumulator_bytes());
    if (affordable == 0) return std::nullopt;
    const Problem part = slice_of(packed.problem, packed, 0);
    packed.splits = static_cast<int>(
        std::min<std::int64_t>(asked != nullptr ? asked->splits : splits_for(direction, part), affordable));
  }
  return packed;
}

Copy pack_input(const Problem& part, Packing how, const void* from, void* to) {
  const ConvGeometry& g = part.geometry;
  const Row row = how == Packing::rows ? Row{g.q, g.s, g.stride_w, g.pad_w, g.dilation_w} : Row{g.w};
  return pack_image(part.layout, g.n, g.groups, g.c / g.groups, g.h, g.w, row, from, to);
}

Copy pack_output(const Problem& part, const void* from, void* to) {
  const ConvGeometry& g = part.geometry;
  return pack_image(part.layout, g.n, g.groups, g.k / g.groups, g.p, g.q, Row{g.q}, from, to);
}

Copy pack_weight(const Problem& problem, Packing how, const void* from, void* to) {
  const ConvGeometry& g = problem.geometry;
  return pack_filter(problem.layout, g.groups, g.k / g.groups, g.c / g.groups, g.r, g.s, how == Packing::rows,
                     from, to);
}

Epilogue pack_epilogue(Direction direction, const Problem& part, const Packed& packed, Epilogue epilogue,
                       bool first_slice, void* workspace, Copies& copies) {
  const std::int64_t groups = part.geometry.groups, plain = columns(direction, part.geometry);
  const std::int64_t bytes = kBytes * columns(direction, packed.problem.geometry);
  const auto vector = [&](const void*& all, int number) {
    if (all == nullptr) return;
    void* place = ahead(workspace, packed.at_vectors + number * bytes);
    if (first_slice)
      copies.add(pack_image(Layout::nhwc, 1, groups, plain / groups, 1, 1, Row{1}, all, place));
    all = place;
  };
  vector(epilogue.bias, 0);
  vector(epilogue.scale, 1);
  vector(epilogue.shift, 2);
  if (epilogue.residual != nullptr) {
    void* place = ahead(workspace, packed.at_residual);
    copies.add(direction == Direction::backward_input
                   ? pack_input(part, Packing::channels, epilogue.residual, place)
                   : pack_output(part, epilogue.residual, place));
    epilogue.residual = place;
  }
  return epilogue;
}

void check_workspace(const void* workspace) {
  if (workspace == nullptr)
    throw std::invalid_argument("conv2d: tensors are packed here, and need a workspace");
  if (unaligned(workspace)) throw std::invalid_argument("conv2d: the workspace is not aligned to 16 bytes");
}

std::vector<Gemm> packed_gemms(Direction direction, const Problem& problem, const Packed& packed) {
  std::vector<Gemm> found = gemms(direction, packed.problem);
  if (packed.result == ResultBy::strided) {
    const std::vector<Gemm> plain = gemms(direction, problem);
    for (std::size_t i = 0; i < found.size(); ++i) found[i].c = plain[i].c;
  }
  return found;
}

CopyCost copy_cost(Direction direction, const Problem& problem, const Packed& packed, const Gpu& gpu) {
  const Elements plain(problem.geometry), copy(packed.problem.geometry);
  const double n = static_cast<double>(problem.geometry.n), images = direction == Direction::backward_weight;
  const auto both = [](std::int64_t a, std::int64_t b) { return static_cast<double>(a + b); };
  CopyCost cost;
  double elements = 0;
  if (packed.first) elements += n * both(plain.first(direction), copy.first(direction));
  if (packed.second) elements += (images ? n : 1) * both(plain.second(direction), copy.second(direction));
  const bool unpacked = packed.result == ResultBy::unpacked;
  if (unpacked) elements += (images ? 1 : n) * both(plain.result(direction), copy.result(direction));
  if (unpacked && packed.residual) elements += n * both(plain.result(direction), copy.result(direction));
  cost.bytes = kBytes * elements;
  cost.launches = packed.slices + (!unpacked ? 0 : images ? 1 : packed.slices);
  cost.seconds = cost.bytes / (kReachedOfMemory * gpu.memory) + cost.launches * kLaunch;
  return cost;
}

std::size_t workspace_bytes(Direction direction, const Problem& problem, const Tensors& tensors,
                            const Plan* plan) {
  const bool parts = direction == Direction::backward_weight;
  const auto packed = packed_for(direction, problem, plan, tensors, this_gpu());
  if (!packed) return parts ? bytes_of_parts(problem, plan) : 0;
  std::int64_t bytes = packed->end;
  if (packed->slices > 1 && parts) {
    bytes += packed->slices * packed->splits * Elements(packed->problem.geometry).w *
             element_of(problem).accumulator_bytes();
  } else if (parts) {
    const auto inside = plan_inside(plan);
    bytes += static_cast<std::int64_t>(bytes_of_parts(packed->problem, inside ? &*inside : nullptr));
  }
  return static_cast<std::size_t>(bytes);
}

}  // namespace cnnkernels::conv
