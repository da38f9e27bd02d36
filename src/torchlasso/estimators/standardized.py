"""Models of columns and targets that are scaled to mean 0 and variance 1 on the training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from torchlasso.estimators.losses import Targets
from torchlasso.estimators.models import Fitted, LinearModel, ModelPath
from torchlasso.estimators.points import Numbers, PathPoint

DIGITS = 30  # binary ones of scales


@dataclass(frozen=True)
class ColumnScales:
    """The means and the standard deviations of columns.

    Attributes:
        centre: the means, (features,).
        spread: the standard deviations, (features,); 1 for a constant column.
    """

    centre: Numbers
    spread: Numbers

    @classmethod
    def of(cls, x: Numbers, weights: Numbers) -> ColumnScales:
        """Return those of rows with weights, (n,): a row of weight 2 is as two rows.

        Examples:
            >>> ColumnScales.of(np.array([[1.0, 5.0], [3.0, 5.0]]), np.ones(2))
            ColumnScales(centre=array([2., 5.]), spread=array([1., 1.]))
        """
        shares = weights / weights.sum()
        centre = shares @ x
        spread = _spreads(x - centre, shares)
        small = spread <= 1e-10 * np.abs(centre)  # of constant columns, only the rounding is left
        centre, spread = _rounded(centre, np.where(small, 1.0, spread))
        return cls(centre.astype(x.dtype), spread.astype(x.dtype))

    def scaled(self, x: Numbers) -> Numbers:
        """Return rows with scaled columns."""
        return np.asarray((x - self.centre) / self.spread)


@dataclass(frozen=True)
class TargetScale:
    """The means of numeric targets, and one standard deviation for all of them, so that errors keep their weights.

    Attributes:
        centre: the means, (targets,).
        spread: the root of the mean variance; 0 for constant targets.
    """

    centre: Numbers
    spread: float

    @classmethod
    def of(cls, targets: Targets) -> TargetScale:
        """Return that of rows with weights.

        Examples:
            >>> from torchlasso.estimators.losses import SQUARED
            >>> TargetScale.of(Targets(torch.tensor([[200.0], [204.0]]), torch.ones(2), 1, SQUARED))
            TargetScale(centre=array([202.]), spread=2.0)
        """
        y, weights = targets.y.double().numpy(), targets.weights.double().numpy()
        shares = weights / weights.sum()
        centre = np.where((y == y[0]).all(axis=0), y[0], shares @ y)  # a constant without its rounding
        spreads = _spreads(y - centre, shares)
        spread = _spreads(spreads[:, None], np.full(len(spreads), 1 / len(spreads)))
        if spread[0]:
            centre, spread = _rounded(centre, spread)
        return cls(centre, float(spread[0]))

    @property
    def unit(self) -> float:
        """The number of the targets that is 1 after scaling."""
        return self.spread or 1.0

    def scaled(self, targets: Targets) -> Targets:
        """Return targets with mean 0 and variance 1."""
        y = (targets.y - torch.from_numpy(self.centre)) / self.unit
        return replace(targets, y=y.to(targets.y.dtype))

    def outputs(self, scaled: Numbers) -> Numbers:
        """Return outputs for scaled targets as those for the targets as they are."""
        return np.asarray(self.centre + self.spread * scaled)


@dataclass(frozen=True)
class StandardizedModel:
    """A model of scaled columns or targets that takes and gives both as they are."""

    inside: Fitted
    columns: ColumnScales | None
    targets: TargetScale | None

    @property
    def linear(self) -> LinearModel | None:
        """The same model as a matrix, if it is linear."""
        inner = self.inside.model.linear
        if inner is None:
            return None
        coef, intercept = inner
        if self.targets is not None:
            coef, intercept = self.targets.spread * coef, self.targets.outputs(intercept)
        if self.columns is not None:
            coef = coef / self.columns.spread[:, None]
            intercept = intercept - self.columns.centre @ coef
        return LinearModel(coef, intercept)

    def outputs(self, x: Numbers) -> Numbers:
        """Return the outputs for rows, (n, outputs)."""
        found = self.inside.model.outputs(x if self.columns is None else self.columns.scaled(x))
        return found if self.targets is None else self.targets.outputs(found)


@dataclass(frozen=True)
class StandardizedPath:
    """The path of models of scaled columns or targets, as models of both as they are.

    λ is for what is scaled; losses are for the targets as they are.

    Args:
        path: the models of what is scaled.
        columns: the scales of the columns, or None.
        targets: that of the targets, or None.
    """

    path: ModelPath
    columns: ColumnScales | None
    targets: TargetScale | None

    def at(self, lam: float) -> Fitted:
        """Return the model for one λ."""
        return self._outside(self.path.at(lam))

    def with_features(self, count: int, lam: float) -> Fitted:
        """Return a model that reads so many features."""
        return self._outside(self.path.with_features(count, lam))

    def along(self, lams: Sequence[float]) -> list[Fitted]:
        """Return the models for rising λ."""
        return [self._outside(each) for each in self.path.along(lams)]

    def relaxed(self, found: Fitted) -> Fitted:
        """Return a model trained on from another one, without the penalty."""
        return self._outside(self.path.relaxed(self._inside(found)))

    def rising(self, first: Fitted, points: int) -> list[PathPoint]:
        """Return points for rising λ."""
        return [self._outside_point(point) for point in self.path.rising(self._inside(first), points)]

    def null_lam(self, level: float, seed: int) -> float:
        """Return the λ of pure noise."""
        return self.path.null_lam(level, seed)

    def grid(self, number: int) -> list[float]:
        """Return rising values of λ."""
        return self.path.grid(number)

    def _outside_point(self, point: PathPoint) -> PathPoint:
        unit = 1.0 if self.targets is None else self.targets.unit
        return replace(point, loss=point.loss * unit * unit)

    def _outside(self, found: Fitted) -> Fitted:
        model = StandardizedModel(found, self.columns, self.targets)
        return Fitted(self._outside_point(found.point), model, found.ended_early)

    @staticmethod
    def _inside(found: Fitted) -> Fitted:
        inside: Fitted = found.model.inside  # type: ignore[attr-defined]  # it is of this path
        return inside


def _spreads(away: Numbers, shares: Numbers) -> Numbers:
    """Return the root mean square of columns, (n, k) ↦ (k,), also of numbers whose squares are too large or small."""
    largest = np.abs(away).max(axis=0)
    scaled = away / np.where(largest > 0, largest, 1.0)
    return np.asarray(largest * np.sqrt(shares @ np.square(scaled)))


def _rounded(centre: Numbers, spread: Numbers) -> tuple[Numbers, Numbers]:
    """Round scales to some nine digits, so that a row of weight 2 gives those of two rows to the bit.

    A sum with weights and one with rows twice differ in the last digits, which the training of a network would enlarge.
    """
    mantissa, exponent = np.frexp(spread)
    spread = np.ldexp(np.round(mantissa * 2.0**DIGITS) / 2.0**DIGITS, exponent)
    return np.round(centre / spread * 2.0**DIGITS) / 2.0**DIGITS * spread, spread
