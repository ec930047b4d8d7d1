"""GPUs made of software: what compilers made of kernels runs on the CPU, as PTX (csrc/emulator)."""
