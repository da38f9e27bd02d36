"""Proximal optimizers, and the metrics of the torch optimizers that they build on."""

from torchlasso.optim.base import ProxAdam, ProxAdamW, Proximal, ProxSGD, proximal
from torchlasso.optim.metrics import Metric, metric_of

__all__ = ["Metric", "ProxAdam", "ProxAdamW", "ProxSGD", "Proximal", "metric_of", "proximal"]
