"""The quality of a survival model: Harrell's concordance index."""

from __future__ import annotations

from torch import Tensor

from torchlasso.estimators.concordance import concordance_index
from torchlasso.runs.quality.record import Score

CHANCE = 0.5  # the index of a constant answer


def concordance(outputs: Tensor, y: Tensor) -> Score:
    """Compute the concordance index of log risks with times and events.

    Args:
        outputs: log risks, (n, 1).
        y: the times or their ranks, and the events, (n, 2).
    """
    time, event = y.cpu().double().numpy().T
    risk = outputs[:, 0].detach().cpu().double().numpy()
    try:
        return Score(concordance_index(time, event > 0, risk), constant=CHANCE)
    except ValueError:  # no two rows can be compared
        return Score(None, constant=CHANCE)
