// How kernels run in the emulator, as the environment says till somebody says otherwise: the interpreter's
// variables, with the words that the emulator knows.
#pragma once

#include <string>

#include "../launch.h"

namespace cnnkernels::emulator::runtime {

// Of launches to come. std::invalid_argument, every time, where an environment variable makes no sense.
Mode mode();
void set_mode(const Mode& mode);

Order order_named(const std::string& word, const std::string& what);  // ordered, random
bool late_named(const std::string& word, const std::string& what);    // late, early
std::string name(Order order);
std::string name_of_delivery(bool late);

}  // namespace cnnkernels::emulator::runtime
