"""Max-pooling with the winners' places."""
