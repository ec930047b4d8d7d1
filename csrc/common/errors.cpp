#include "errors.h"

#include <stdexcept>
#include <string>

namespace cnnkernels {

void throw_invalid_argument(const char* why) { throw std::invalid_argument(why); }
void throw_invalid_argument(const char* who, const char* why) {
  throw std::invalid_argument(std::string(who) + ": " + why);
}

}  // namespace cnnkernels
