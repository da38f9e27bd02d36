"""Weights of classes in the loss of training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class WeightedCrossEntropy:
    """The cross-entropy in which each row has the weight of its class: the mean of weight·loss over the rows.

    The weights are not divided by their sum over a batch, as torch's ``weight`` does: so each row has the same weight
    in every batch, and the parts of several processes add up to the loss of the whole batch.

    Attributes:
        weights: of the classes, (classes,).
        label_smoothing: the share of each label that is spread evenly over all classes.

    Examples:
        >>> loss = WeightedCrossEntropy(WeightedCrossEntropy.balanced(torch.tensor([0, 0, 0, 1]), 2))
        >>> [round(weight, 4) for weight in loss.weights.tolist()]
        [0.6667, 2.0]
    """

    weights: Tensor
    label_smoothing: float = 0.0

    @staticmethod
    def balanced(y: Tensor, classes: int) -> Tensor:
        """Return weights under which all classes of ``y`` weigh the same: n/(k·n_c), as in scikit-learn.

        Args:
            y: the class indices of the n training rows, n_c of them of class c, and of k classes.
            classes: the number of all classes; one without rows has the weight 0.
        """
        rows = torch.bincount(y, minlength=classes)
        return torch.where(rows > 0, len(y) / (int(rows.count_nonzero()) * rows.clamp_min(1)), 0.0).float()

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the weighted loss of each row, (n,)."""
        losses = nn.functional.cross_entropy(outputs, y, reduction="none", label_smoothing=self.label_smoothing)
        return self.weights[y] * losses

    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.losses(outputs, y).mean()
