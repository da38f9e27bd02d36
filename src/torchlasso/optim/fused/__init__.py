"""Fused steps: an optimizer's update and the prox in one pass over memory."""
