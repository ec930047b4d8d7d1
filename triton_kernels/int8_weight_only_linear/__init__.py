"""Floating rows by an INT8 weight."""
