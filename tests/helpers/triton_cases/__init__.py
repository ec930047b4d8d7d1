"""Kernels in Triton and Gluon, compiled to PTX in a process of their own, for tests/emulator to run."""
