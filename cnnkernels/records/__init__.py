"""What was measured on a GPU, and kept."""
