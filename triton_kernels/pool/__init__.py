"""Max-pooling with the winners' places, values back to the places they were pooled from, and averages."""
