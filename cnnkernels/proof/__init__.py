"""Proving the kernels of a GPU: small exact problems of every family, in processes of their own."""
