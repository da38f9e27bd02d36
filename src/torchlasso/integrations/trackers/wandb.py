"""Weights & Biases: a run of the project of ``WANDB_PROJECT``."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence

from torchlasso._core.extras import require
from torchlasso.integrations.trackers.base import EpochFigures, Tracked, Tracker, register

PROJECT = "torchlasso"  # unless the environment names another one


@register("wandb")
class WeightsAndBiases(Tracker):
    """A run of Weights & Biases, which ``WANDB_MODE=offline`` keeps on the disk.

    A resumed training goes on with the same run, and adds the epochs that it lacks.
    """

    package = "wandb"

    def __init__(self, training: Tracked, epochs: Sequence[EpochFigures]) -> None:
        wandb = require(self.package, self.package, "--log wandb")
        self._identity = training.identity or secrets.token_hex(8)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=training.name,
            id=self._identity,
            resume="allow",
            config=dict(training.settings),
            reinit="create_new",  # a refit is tracked while the run itself is
            settings=wandb.Settings(console="off"),  # standard output may be JSON for a program
        )
        for number, figures in enumerate(epochs, start=1):
            if number >= self.run.step:  # the first step that is not recorded yet
                self.epoch(number, figures)

    @property
    def identity(self) -> str:
        """The number of the run on the server."""
        return self._identity

    def epoch(self, number: int, figures: EpochFigures) -> None:
        self.run.log(dict(figures), step=number)

    def result(self, number: int, figures: EpochFigures) -> None:
        self.run.summary.update(dict(figures))

    def close(self, *, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))
