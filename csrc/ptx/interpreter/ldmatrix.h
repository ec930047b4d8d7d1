// The CPU's ldmatrix and stmatrix. Besides moving the bytes they count bank conflicts: shared memory serves 8
// rows of 16 bytes in one go only if they fall into 8 different groups of 4 banks.
#pragma once

#include <cstdint>

#include "../../interpreter/api.h"

namespace cnnkernels::model {

void ldmatrix(std::uint32_t* to, int count, bool transposed, const void* row, interpreter::Site site);
void stmatrix(void* row, const std::uint32_t* from, int count, bool transposed, interpreter::Site site);

}  // namespace cnnkernels::model
