"""The record of a quality: what a file of a run cannot say."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from torchlasso.runs.quality import Judge, Quality
from torchlasso.runs.records import parse_record
from torchlasso.runs.summary import Kept
from torchlasso.training.losses import LOSSES


def made() -> Quality:
    y = torch.arange(30) % 3
    return Judge.fit("abc", LOSSES["cross-entropy"], y).judge(torch.nn.functional.one_hot(y).float(), y)


def as_read(value: Any) -> Any:
    """As JSON would give it back."""
    if isinstance(value, dict):
        return {key: as_read(each) for key, each in value.items()}
    return [as_read(each) for each in value] if isinstance(value, tuple | list) else value


def test_a_quality_is_read_as_it_was_written() -> None:
    assert parse_record(Quality, as_read(asdict(made())), "summary.json") == made()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"confusion": ((1, 2), (3, 4))}, "the confusion matrix does not fit 3 classes"),
        ({"confusion": ((1, 2, 3), (3, 4), (1, 2, 3))}, "the confusion matrix does not fit 3 classes"),
        ({"constant": (0.5, 0.5)}, "the constant answer has 2 values for 3 classes"),
        ({"scores": {"errors": made().scores["error"]}}, "there is no figure 'errors'"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        replace(made(), **change)


def test_a_kept_epoch_has_a_known_figure() -> None:
    with pytest.raises(ValueError, match="unknown figure 'errors'; did you mean 'error'"):
        Kept(1, 1, "errors", 0.5, stopped_early=False)
