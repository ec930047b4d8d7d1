"""INT8 convolution."""
