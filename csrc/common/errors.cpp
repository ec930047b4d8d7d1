#include "errors.h"

#include <stdexcept>

namespace cnnkernels {

void throw_invalid_argument(const char* why) { throw std::invalid_argument(why); }

}  // namespace cnnkernels
