"""The form of a step: the part of it that follows the update of torch's optimizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from torchlasso.optim.buckets import Bucket
from torchlasso.optim.fused.updates import Update
from torchlasso.optim.metric import Metric
from torchlasso.optim.unseen import State
from torchlasso.penalties import Penalty
from torchlasso.penalties.blocks import Strength
from torchlasso.penalties.reweighting import Reweighting
from torchlasso.selection import Group

Weights = Tensor | Reweighting


@dataclass(frozen=True)
class Updated:
    """The parameters of a group after the update of torch's optimizer.

    Attributes:
        group: of the optimizer.
        penalty: of the group.
        length_of: the index of a parameter ↦ the length of its update (:meth:`Form.length`); None where it had none.
        before: copies of parameters as they were before the update, in a form that needs them.
        states: of the optimizer.
        weights: the factors on λ of the blocks of some parameters; in the latent form also the function of them.
    """

    group: Group
    penalty: Penalty
    length_of: Callable[[int], Strength | None]
    before: Mapping[Tensor, Tensor]
    states: dict[Tensor, dict[str, Any]]
    weights: Mapping[Tensor, Any]

    def sets(self) -> Iterator[tuple[Sequence[int], Sequence[Tensor]]]:
        """Yield the indices and the parameters of each set that no block reaches beyond."""
        params, over = self.group["params"], self.penalty.over
        yield from zip(over.together(range(len(params))), over.together(params), strict=True)


class Form(ABC):
    """The part of a step that follows the update of torch's optimizer. It has no state of its own.

    Attributes:
        keeps_before: whether :meth:`finish_` needs the weights as they were before the update.
        enters: whether :meth:`updating` does anything.
    """

    keeps_before: ClassVar[bool] = True
    enters: ClassVar[bool] = False

    def length(self, metric: Metric, options: Group, state: State, gain: float) -> Strength:
        """Return the length of an update, by which λ is multiplied."""
        return 0.0

    def updating(self, updated: Updated) -> AbstractContextManager[None]:
        """Return the context of the optimizer's update, in which it may see other weights and other gradients."""
        return nullcontext()

    @abstractmethod
    def finish_(self, updated: Updated) -> None:
        """Finish the step of a group, in place."""

    @abstractmethod
    def fused(
        self,
        bucket: Bucket,
        update: Update,
        metric: Metric,
        states: Mapping[Tensor, State],
        weights: Sequence[Weights | None],
    ) -> tuple[Bucket, Update] | None:
        """Return the bucket and the update that make a kernel do the whole step; None where none can.

        Args:
            bucket: of parameters.
            update: of torch's optimizer.
            metric: of the optimizer.
            states: of the optimizer.
            weights: the factors on λ of the blocks of each member.
        """

    def launched_(self, group: Group, bucket: Bucket, states: Mapping[Tensor, dict[str, Any]]) -> None:  # noqa: B027
        """Keep what the kernel of a bucket did not write: for most forms nothing."""
