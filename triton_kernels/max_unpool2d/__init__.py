"""Values back to the places they were pooled from."""
