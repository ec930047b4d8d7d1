"""Networks that tests convert."""
