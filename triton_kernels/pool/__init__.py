"""Max-pooling with the winners' places, and values back to the places they were pooled from."""
