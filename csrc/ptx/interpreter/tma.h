// The CPU's TMA. A load goes to the blocks of the cluster that `blocks` has bits for, each at a moment of its
// own. It poisons its tile when it is issued and fills it at a moment of the delivery policy's choosing, then
// counts its bytes on the mbarrier. A store reads its tile and writes the tensor at two such moments, each as
// late as its wait allows.
#pragma once

#include "../../interpreter/api.h"

namespace cnnkernels {

struct Mbarrier;
struct TensorMap;

namespace model {

void tma_load_tile(void* shared, const TensorMap& map, Mbarrier* full, unsigned blocks, const int* corner,
                   int rank, interpreter::Site site);
void tma_load_im2col(void* shared, const TensorMap& map, Mbarrier* full, unsigned blocks, const int* start,
                     const int* tap, int rank, interpreter::Site site);
void tma_store_tile(const TensorMap& map, const void* shared, const int* corner, int rank,
                    interpreter::Site site);
void bulk_commit(interpreter::Site site);
void bulk_wait(int groups_left, bool written, interpreter::Site site);

}  // namespace model
}  // namespace cnnkernels
