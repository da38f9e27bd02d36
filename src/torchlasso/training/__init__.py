"""Training over tensors in memory, refits on the support, and distillation."""
