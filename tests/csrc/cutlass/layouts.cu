// Layouts of operands that CUTLASS's builders do not choose, with its own products, copies and descriptors.
#include "gemm.h"

namespace cnnkernels::tests {
namespace {

using namespace cute;
using Half = cutlass::half_t;
using Tile = Shape<_64, _64, _64>;
using One = Shape<_1, _1, _1>;

template <GMMA::Major major>
using Stride = cutlass::detail::TagToStrideA_t<std::conditional_t<major == GMMA::Major::K, Rows, Columns>>;

// The atoms of `Atom` along K first, so that those along M or N are as far from each other as all of K.
template <class Atom>
using KFirst = decltype(tile_to_shape(Atom{}, Shape<_64, _64>{}, Step<_2, _1>{}));

template <class Product, GMMA::Major major_a, class LayoutA, GMMA::Major major_b, class LayoutB>
using GemmOf = Gemm<
    cutlass::gemm::collective::CollectiveMma<
        cutlass::gemm::MainloopSm90TmaGmmaWarpSpecialized<3, One, cutlass::gemm::KernelTmaWarpSpecialized>,
        Tile, Half, Stride<major_a>, Half, Stride<major_b>, decltype(make_tiled_mma(Product{})),
        SM90_TMA_LOAD, LayoutA, void, identity, SM90_TMA_LOAD, LayoutB, void, identity>,
    GemmEpilogue<float, float, Tile, One, cutlass::epilogue::NoSmemWarpSpecialized>>;

constexpr auto K = GMMA::Major::K, MN = GMMA::Major::MN;
constexpr auto Plus = GMMA::ScaleIn::One, Minus = GMMA::ScaleIn::Neg;

}  // namespace

CNN_TEST(gemm_k_major_unswizzled) {
  GemmOf<SM90::GMMA::MMA_64x64x16_F32F16F16_SS<K, K, Plus, Plus>, K, GMMA::Layout_K_INTER_Atom<Half>, K,
         GMMA::Layout_K_INTER_Atom<Half>>::run(arguments);
}
// And A negated.
CNN_TEST(gemm_mn_major_unswizzled) {
  GemmOf<SM90::GMMA::MMA_64x64x16_F32F16F16_SS<MN, MN, Minus, Plus>, MN, GMMA::Layout_MN_INTER_Atom<Half>, MN,
         GMMA::Layout_MN_INTER_Atom<Half>>::run(arguments);
}
CNN_TEST(gemm_rows_apart) {
  GemmOf<SM90::GMMA::MMA_64x64x16_F32F16F16_SS<K, K, Plus, Plus>, K, KFirst<GMMA::Layout_K_SW64_Atom<Half>>,
         K, KFirst<GMMA::Layout_K_SW32_Atom<Half>>>::run(arguments);
}

}  // namespace cnnkernels::tests
