"""Convolution: forward and both gradients as implicit GEMMs, direct kernels for groups of few channels."""
