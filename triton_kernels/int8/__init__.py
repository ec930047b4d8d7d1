"""What integer kernels share: the epilogue of their sums, and copies that tensor cores read at full speed."""
