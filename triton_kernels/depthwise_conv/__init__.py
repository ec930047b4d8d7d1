"""Convolution with a group for each channel."""
