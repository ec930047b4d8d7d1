"""Integer arithmetic that layers, kernels and tests agree on: the epilogue of a sum, and its reference."""
