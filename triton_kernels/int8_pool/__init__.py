"""INT8 pooling."""
