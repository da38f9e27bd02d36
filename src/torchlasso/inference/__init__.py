"""Faster inference with models that have zeros."""

from torchlasso.inference.accelerating import accelerate
from torchlasso.inference.record import AccelerationReport, BackendTiming, LayerAcceleration

__all__ = ["AccelerationReport", "BackendTiming", "LayerAcceleration", "accelerate"]
