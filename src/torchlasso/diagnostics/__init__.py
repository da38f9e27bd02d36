"""The zeros of a model, layer by layer, and its distance from a stationary point."""
