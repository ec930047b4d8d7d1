"""Floating values into INT8 and back."""
