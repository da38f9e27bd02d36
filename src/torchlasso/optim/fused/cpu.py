"""The fused step: update and prox of many parameters, each in one pass over its memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from torchlasso.distributed.sharding import any_sharded
from torchlasso.optim.buckets import Cohort
from torchlasso.optim.fused.inductor import Kernel, kernel
from torchlasso.optim.fused.memory import Runs, in_rows, runs_of
from torchlasso.optim.fused.program import FusedStep, RowStep, Shape, is_elementwise, is_rowwise
from torchlasso.optim.fused.updates import Update
from torchlasso.penalties import Penalty
from torchlasso.penalties.blocks import Elements, Partition
from torchlasso.penalties.magnitudes import computed


@dataclass(frozen=True)
class Launch:
    """A fused step that is ready to be done.

    Attributes:
        cohort: whose step it is.
        update: of its optimizer.
        kernel: of the update, and of the prox if ``shrinks``.
        runs: the memory of its members.
        numbers: what the kernel is given, λ first.
        counters: the numbers of updates that the optimizer keeps, to be counted on.
        shrinks: whether the prox is done as well.
    """

    cohort: Cohort
    update: Update
    kernel: Kernel
    runs: Runs
    numbers: list[float]
    counters: list[Tensor]
    shrinks: bool

    def __call__(self) -> None:
        flags = self.kernel(self.runs, self.numbers)
        if self.counters:
            torch._foreach_add_(self.counters, 1)
        if flags is not None and not flags.all():
            self._shrink_others(flags)

    def _shrink_others(self, flags: Tensor) -> None:
        """The prox of the rows without a flag, by the search for the root."""
        penalty: Any = self.cohort.penalty
        runs = self.runs
        done = torch.split(flags, list(runs.sizes[0]))
        for some, width, factor, run in zip(
            done, runs.sizes[1], runs.factors, zip(*runs.columns, strict=True), strict=True
        ):
            if some.all():
                continue
            rows = (~some).nonzero()[:, 0]
            w, _, *buffers = (t.view(-1, width) for t in run)
            tau = self.update.step_size(tuple(computed(b[rows]) for b in buffers), self.numbers)
            z = computed(w[rows])
            w[rows] = penalty.prox_rows(z, self.numbers[0] * factor, tau).to(w.dtype)


def launches_of(
    cohort: Cohort,
    update: Update,
    spare: Penalty,
    states: dict[Tensor, dict[str, Any]],
    weights: list[Tensor | None],
) -> tuple[list[Launch], list[Cohort]]:
    """The fused step of a cohort, and what of it has none.

    Args:
        cohort: parameters with gradients.
        update: of their optimizer, with the options of the cohort.
        spare: an element-wise penalty, whose kernel serves with λ = 0 where the cohort's own penalty cannot be fused.
        states: of the optimizer; those of fused members are made where they are missing.
        weights: what λ of each member's blocks is multiplied by; None where it is not. Kernels take them for single
            weights, if all members have them.
    """
    params, names = cohort.options["params"], update.buffers
    found = list(map(states.get, params))
    mine = [state or update.start(p) for p, state in zip(params, found, strict=True)]
    weighing = Weighing.of(cohort.penalty, weights)
    given = [weights] if weighing is Weighing.FUSED else []
    columns = [params, cohort.grads, *given, *([state.get(name) for state in mine] for name in names)]
    alike, odd, foreign = runs_of(columns)
    launches: list[Launch] = []
    rest: list[Cohort] = []
    for part in _parts(cohort, update, spare, alike, weighing):
        numbers = [*part.numbers, *update.numbers(cohort.options, cohort.age + 1, cohort.before, cohort.gain)]
        compiled = kernel(part.step, part.runs, len(numbers))
        if compiled is None:
            rest.append(cohort.part(part.positions, **_unfused(foreach=True)))
            continue
        if names and not all(found):
            states.update({params[i]: mine[i] for i in part.positions})
        counters = [mine[i]["step"] for i in part.positions] if "step" in mine[0] else []
        own = cohort if len(part.positions) == len(params) else cohort.part(part.positions)
        launches.append(Launch(own, update, compiled, part.runs, numbers, counters, part.shrinks))
    if odd:
        rest.append(cohort.part(odd, **_unfused(foreach=False)))
    if foreign:
        rest.append(cohort.part(foreign))  # torch has an answer to those
    return launches, rest


class Weighing(Enum):
    """The weights of λ: none, taken by a kernel, or applied apart."""

    NONE = 0
    FUSED = 1
    APART = 2  # only the update is fused

    @classmethod
    def of(cls, penalty: Penalty | None, weights: list[Tensor | None]) -> Weighing:
        """For a cohort of this penalty."""
        if penalty is None or all(weight is None for weight in weights):
            return cls.NONE
        return cls.APART if None in weights or not is_elementwise(penalty) else cls.FUSED


@dataclass(frozen=True)
class _BucketPart:
    """Members of a cohort that one kernel does: λ and the penalty's own numbers come before those of the update."""

    positions: list[int]
    step: FusedStep
    numbers: list[float]
    runs: Runs
    shrinks: bool


def _parts(
    cohort: Cohort, update: Update, spare: Penalty, alike: Iterable[tuple[list[int], Runs]], weighing: Weighing
) -> Iterator[_BucketPart]:
    penalty, lam = cohort.penalty, float(cohort.options["lam"])
    whole = not any_sharded(cohort.options["params"])  # or the rows at hand may not be those of the penalty
    for positions, runs in alike:
        if whole and weighing is Weighing.NONE and is_rowwise(penalty, update) and isinstance(penalty.over, Partition):
            rowwise, positions, runs = in_rows(positions, runs, penalty.over)
            if rowwise is not None:
                shape, own = Shape.of(replace(penalty, over=Elements()))
                yield _BucketPart(rowwise[0], RowStep(update, shape), [lam, *own], rowwise[1], shrinks=True)
        if positions:
            fits = penalty is None or (is_elementwise(penalty) and weighing is not Weighing.APART)
            shape, own = Shape.of(penalty if penalty is not None and fits else spare)
            step = FusedStep(update, shape, weighted=weighing is Weighing.FUSED)
            yield _BucketPart(positions, step, [lam if penalty is not None and fits else 0.0, *own], runs, fits)


def _unfused(foreach: bool) -> dict[str, bool]:
    """Options for torch's own step in the place of the fused one."""
    return {"fused": False, "foreach": foreach, "capturable": False}
