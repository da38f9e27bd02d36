"""Judge a model by its outputs; scikit-learn and scipy are imported when there is something to judge."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchlasso.runs.quality.measures import CLASSES, MEASURES, NUMBERS, SURVIVAL
from torchlasso.runs.quality.record import Quality, Score, TargetScore
from torchlasso.training.losses import LOSSES, Loss

NO_FIGURES = "More figures, with intervals, need scikit-learn: pip install 'torchlasso[sklearn]'."
TINIEST = 1e-12  # the least probability of a constant answer


@dataclass(frozen=True)
class Judge:
    """The computation of all figures of an experiment.

    Attributes:
        classes: the names of the classes, () for regression.
        constant: the constant answer: the shares of the classes, or the means of the targets, in the training rows;
            () if they are not known.
        are_logits: whether the softmax of the outputs are probabilities, as with cross-entropy.
        targets: the names of several targets of a regression; () for numbers in their place.
        is_survival: whether targets are times and events.
        units: outputs, or targets as the model predicts them ↦ the same in the units of the data.
    """

    classes: tuple[str, ...]
    constant: tuple[float, ...] = ()
    are_logits: bool = True
    targets: tuple[str, ...] = ()
    units: Callable[[Tensor], Tensor] = torch.clone
    is_survival: bool = False

    @classmethod
    def fit(
        cls,
        classes: Sequence[str],
        loss: Loss,
        y: Tensor,
        *,
        targets: Sequence[str] = (),
        units: Callable[[Tensor], Tensor] = torch.clone,
    ) -> Judge:
        """Make the judge of an experiment with these training targets, (n,) or (n, targets)."""
        if classes:
            constant = torch.bincount(y, minlength=len(classes)).double() / len(y)
        else:
            constant = units(y).double().reshape(len(y), -1).mean(dim=0)
        if loss is LOSSES["cox"]:
            return cls((), is_survival=True)
        likely = loss is LOSSES["cross-entropy"]
        return cls(tuple(classes), tuple(constant.tolist()), likely, tuple(targets), units)

    @staticmethod
    def is_possible() -> bool:
        """Return True if scikit-learn is installed."""
        return importlib.util.find_spec("sklearn") is not None

    @property
    def measures(self) -> list[str]:
        """The keys of the measures that suit the targets and the loss."""
        of = CLASSES if self.classes else SURVIVAL if self.is_survival else NUMBERS
        return [key for key, each in MEASURES.items() if each.of == of and (self.are_logits or not each.probabilities)]

    def judge(self, outputs: Tensor, y: Tensor, groups: Tensor | None = None) -> Quality:
        """Compute all figures.

        Args:
            outputs: of the model, (n, classes) or (n, targets).
            y: class indices, (n,), or targets, (n, targets).
            groups: the number of the group of each row, (n,), if rows of a group are alike; intervals are then by
                leaving out groups.

        Raises:
            FloatingPointError: an output is infinite or NaN.
        """
        if bad := int((~outputs.isfinite()).any(dim=1).sum()):
            raise FloatingPointError(f"the outputs are infinite or NaN for {bad:,} of {len(y):,} rows")
        if self.is_survival:
            from torchlasso.runs.quality.survival import concordance

            return Quality(len(y), {"concordance": concordance(outputs, y)}, ())
        found = self._of_classes(outputs, y) if self.classes else self._of_numbers(outputs, y)
        return found if groups is None else replace(found, scores=self._by_groups(found.scores, outputs, y, groups))

    def _by_groups(self, scores: dict[str, Score], outputs: Tensor, y: Tensor, groups: Tensor) -> dict[str, Score]:
        """Return figures with intervals by leaving out groups of rows."""
        from torchlasso.runs.quality.jackknife import intervals_without

        def values(mask: Any) -> dict[str, float | None]:
            some = torch.from_numpy(mask).to(y.device)
            return self.values([*scores], outputs[some], y[some])

        whole = {key: score.value for key, score in scores.items()}
        limits = intervals_without(values, groups.cpu().numpy(), whole)
        return {
            key: replace(score, low=low, high=high)
            for key, score in scores.items()
            for low, high in [limits.get(key, (None, None))]
        }

    def value(self, key: str, outputs: Tensor, y: Tensor) -> float | None:
        """Compute the value of one measure, by its key; None where it is not defined."""
        if self.is_survival:
            from torchlasso.runs.quality.survival import concordance

            return concordance(outputs, y).value
        return self.values([key], outputs, y)[key]

    def values(self, keys: Sequence[str], outputs: Tensor, y: Tensor) -> dict[str, float | None]:
        """Compute the values of some measures of classes or numbers; None where one is not defined."""
        if self.classes:
            from torchlasso.runs.quality.classes import scores_of

            scores = scores_of(outputs, y, keys, sampled=False)
        else:
            from torchlasso.runs.quality.numbers import means_of, scores_by_target

            scores = means_of(scores_by_target(self.units(outputs), self.units(y), keys))
        return {key: score.value for key, score in scores.items()}

    def _of_classes(self, outputs: Tensor, y: Tensor) -> Quality:
        from torchlasso.runs.quality.classes import MOST, by_class, confusion_of, scores_of

        scores = scores_of(outputs, y, self.measures)
        if self.constant:
            answer = torch.tensor(self.constant, dtype=torch.float64).clamp_min(TINIEST).log()
            others = [key for key in self.measures if key != "auc"]
            constants = scores_of(answer.expand(len(y), -1), y.cpu(), others, sampled=False)
            # every pair of rows is a tie for a constant answer
            scores = _beside(scores, {**constants, "auc": Score(None if scores["auc"].value is None else 0.5)})
        table = confusion_of(y.cpu().numpy(), outputs.argmax(dim=1).cpu().numpy(), len(self.classes))
        confusion = tuple(tuple(map(int, row)) for row in table) if len(self.classes) <= MOST else ()
        return Quality(len(y), scores, self.constant, by_class(table, self.classes), confusion)

    def _of_numbers(self, outputs: Tensor, y: Tensor) -> Quality:
        from torchlasso.runs.quality.numbers import means_of, scores_by_target

        outputs, y = self.units(outputs), self.units(y)
        targets = scores_by_target(outputs, y, self.measures, self.targets)
        scores = means_of(targets)
        if self.constant:
            answer = torch.tensor(self.constant, dtype=torch.float64).expand(len(y), -1)
            constants = scores_by_target(answer, y, self.measures)
            scores = _beside(scores, means_of(constants))
            targets = tuple(
                TargetScore(one.name, _beside(one.scores, other.scores))
                for one, other in zip(targets, constants, strict=True)
            )
        return Quality(len(y), scores, self.constant, targets=targets if len(targets) > 1 else ())


def names_of_targets(label: str | None, outputs: int) -> tuple[str, ...]:
    """Return the names of several targets from the option ``--label``; () if it has no name for each.

    >>> names_of_targets("height,width", 2), names_of_targets(None, 2)
    (('height', 'width'), ())
    """
    names = tuple((label or "").split(","))
    return names if len(names) == outputs else ()


def _beside(scores: dict[str, Score], constants: dict[str, Score]) -> dict[str, Score]:
    return {key: replace(score, constant=constants[key].value) for key, score in scores.items()}
