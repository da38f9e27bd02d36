"""The models that an estimator trains, and the path on which it found them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from torchlasso.estimators.points import Numbers, PathPoint
from torchlasso.training.evaluation import outputs_of


class TableModel(Protocol):
    """A trained model of the rows of a table."""

    @property
    def linear(self) -> LinearModel | None:
        """The same model as a matrix, if it is linear."""

    def outputs(self, x: Numbers) -> Numbers:
        """Return the outputs for rows, (n, outputs)."""


class LinearModel(NamedTuple):
    """The model x·B + b: a matrix, (features, outputs), and a constant for each output."""

    coef: Numbers
    intercept: Numbers

    @property
    def linear(self) -> LinearModel:
        """The model itself."""
        return self

    def outputs(self, x: Numbers) -> Numbers:
        """Return the outputs for rows, (n, outputs)."""
        return np.asarray(x @ self.coef + self.intercept)


@dataclass(frozen=True)
class NetworkModel:
    """A network in evaluation mode.

    Attributes:
        network: the network.
        columns: the numbers of the features that it sees, or None for all.
    """

    network: nn.Module
    columns: Numbers | None = None
    linear: ClassVar[None] = None

    def seen(self, x: Numbers) -> Numbers:
        """Return the columns that the network sees."""
        return x if self.columns is None else x[:, self.columns]

    def outputs(self, x: Numbers) -> Numbers:
        """Return the outputs for rows, (n, outputs)."""
        dtype = next(self.network.parameters()).dtype
        return outputs_of(self.network, torch.from_numpy(np.array(self.seen(x))).to(dtype)).numpy()


class Fitted(NamedTuple):
    """A model and its point on the path.

    Attributes:
        point: the point.
        model: the model.
        ended_early: the number of steps and the sign that they were too few; an empty string if there is none.
    """

    point: PathPoint
    model: TableModel
    ended_early: str = ""


class ModelPath(Protocol):
    """The models of one table for any λ."""

    def at(self, lam: float) -> Fitted:
        """Return the model for one λ."""

    def with_features(self, count: int, lam: float) -> Fitted:
        """Return a model that reads so many features; a search for λ that needs a first value begins at ``lam``."""

    def along(self, lams: Sequence[float]) -> list[Fitted]:
        """Return the models for rising λ, each from the one before or after it.

        The list ends early at a model that reads no feature except those that are kept.
        """

    def relaxed(self, found: Fitted) -> Fitted:
        """Return a model trained on from another one, without the penalty, on the features that this one reads."""

    def rising(self, first: Fitted, points: int) -> list[PathPoint]:
        """Return at most so many points for rising λ, from a model to one that reads no feature."""

    def null_lam(self, level: float, seed: int) -> float:
        """Return the λ at which no feature is read with this probability, if none of them says anything."""

    def grid(self, number: int) -> list[float]:
        """Return so many rising values of λ, from a model of nearly all features to one of few or none."""
