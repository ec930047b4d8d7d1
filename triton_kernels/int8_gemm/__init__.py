"""INT8 matrix product."""
