"""The test for a gap between the validation and the test rows that chance does not explain."""

from __future__ import annotations

import numpy as np
from scipy import stats
from torch import Tensor


def chance_of_gap(outputs: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> float:
    """Return the probability of such a difference between two samples of rows from one population.

    For classes, Fisher's exact test compares the two shares of wrong rows. For regression, the test of Mann and Whitney
    compares the absolute errors, which are relative to their mean for each of several targets.

    Args:
        outputs, targets: of the validation rows and of the test rows.
    """
    if not targets[0].is_floating_point():
        wrong = [int((out.argmax(dim=1) != y).sum()) for out, y in zip(outputs, targets, strict=True)]
        table = [[count, len(y) - count] for count, y in zip(wrong, targets, strict=True)]
        return float(stats.fisher_exact(table).pvalue)
    errors = [
        (out - y).abs().double().cpu().numpy().reshape(len(y), -1) for out, y in zip(outputs, targets, strict=True)
    ]
    scale = np.concatenate(errors).mean(axis=0)
    one, other = ((each / np.where(scale > 0, scale, 1)).mean(axis=1) for each in errors)
    return float(stats.mannwhitneyu(one, other).pvalue)
