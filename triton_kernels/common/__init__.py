"""What kernels of several operators are written with: types, indices, tiles, activations, partial sums."""
