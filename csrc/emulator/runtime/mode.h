// How kernels run in the emulator, as the environment says till somebody says otherwise: by the interpreter's
// variables and their words.
#pragma once

#include <string>

#include "../launch.h"

namespace cnnkernels::emulator::runtime {

// Of launches to come. std::invalid_argument, every time, where an environment variable makes no sense.
Mode mode();
void set_mode(const Mode& mode);

Order order_named(const std::string& word, const std::string& what);
std::string name(Order order);
// late, random or early: Mode's late and unasked.
void set_delivery(Mode& mode, const std::string& word, const std::string& what);
std::string name_of_delivery(const Mode& mode);

}  // namespace cnnkernels::emulator::runtime
