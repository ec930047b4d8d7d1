"""Operators on tensors that lie in memory in random orders: what `python tests/memory_orders.py` tries."""
