"""Processes that train together, and tensors that are sharded among them."""
