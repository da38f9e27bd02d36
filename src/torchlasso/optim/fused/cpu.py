"""The fused step: update and prox of many parameters, each in one pass over its memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from torchlasso.distributed.sharding import any_sharded
from torchlasso.optim.buckets import Bucket
from torchlasso.optim.fused.inductor import Kernel, kernel
from torchlasso.optim.fused.memory import FlatViews, flat_views_of, row_views_of
from torchlasso.optim.fused.program import FusedStep, RowStep, Template, is_elementwise, is_rowwise
from torchlasso.optim.fused.rows import RowKernel, row_kernel
from torchlasso.optim.fused.updates import Update
from torchlasso.penalties import Penalty
from torchlasso.penalties.blocks import Elements, Partition
from torchlasso.penalties.magnitudes import computed, divide, scaled_norms


@dataclass(frozen=True)
class Launch:
    """A fused step that is ready to be done.

    Attributes:
        bucket: the parameters.
        update: of their optimizer.
        kernel: of the update, and of the prox if ``has_prox``.
        views: the memory of the parameters.
        numbers: the kernel's arguments besides memory, λ first.
        counters: the numbers of updates in the optimizer's state, to be incremented.
        has_prox: whether the kernel does the prox as well.
    """

    bucket: Bucket
    update: Update
    kernel: Kernel | RowKernel
    views: FlatViews
    numbers: list[float]
    counters: list[Tensor]
    has_prox: bool

    def __call__(self) -> None:
        """Do the step."""
        solved = self.kernel(self.views, self.numbers)
        if self.counters:
            torch._foreach_add_(self.counters, 1)
        if solved is not None and not solved.all():
            self._solve_others(solved)

    def _solve_others(self, solved: Tensor) -> None:
        """Do the prox of the rows that the kernel has not solved, with a search for the root where there is one."""
        penalty: Any = self.bucket.penalty
        heights, widths = self.views.sizes
        done = torch.split(solved, list(heights))
        columns = zip(*self.views.columns, strict=True)
        for flags, width, factor, tensors in zip(done, widths, self.views.factors, columns, strict=True):
            if flags.all():
                continue
            rows = (~flags).nonzero()[:, 0]
            w, _, *buffers = (t.view(-1, width) for t in tensors)
            tau = self.update.step_size(tuple(computed(b[rows]) for b in buffers), self.numbers)
            z, lam = computed(w[rows]), self.numbers[0] * factor
            if self.update.diagonal:
                u = penalty.prox_rows(z, lam, tau)
            else:
                r = scaled_norms(z)
                u = z * divide(penalty.prox_phi(r, lam, tau), r)[:, None]
            w[rows] = u.to(w.dtype)


def launches_of(
    bucket: Bucket,
    update: Update,
    stand_in: Penalty,
    states: dict[Tensor, dict[str, Any]],
    weights: list[Tensor | None],
) -> tuple[list[Launch], list[Bucket]]:
    """Return the fused steps of a bucket, and the parts of it that fall back to torch's step and a prox after it.

    Args:
        bucket: parameters with gradients.
        update: of their optimizer, with the options of the bucket.
        stand_in: an element-wise penalty, whose kernel serves with λ = 0 where the bucket's own cannot be fused.
        states: of the optimizer; those of fused members are made where they are missing.
        weights: the weights of each member's blocks, which multiply λ; None where it has none. Kernels take them for
            single weights, if all members have them.
    """
    params, names = bucket.options["params"], update.buffers
    known = list(map(states.get, params))
    mine = [state or update.start(p) for p, state in zip(params, known, strict=True)]
    weighing = Weighing.of(bucket.penalty, weights)
    given = [weights] if weighing is Weighing.FUSED else []
    columns = [params, bucket.grads, *given, *([state.get(name) for state in mine] for name in names)]
    flat, one_by_one, foreign = flat_views_of(columns)
    launches: list[Launch] = []
    fallback: list[Bucket] = []
    for part in _parts(bucket, update, stand_in, flat, weighing):
        if update.whole and not part.has_prox:
            fallback.append(bucket.part(part.positions, **_unfused(foreach=True)))
            continue
        options = bucket.options
        own = update.numbers(options, options["lam"], bucket.age + 1, bucket.before, bucket.gain)
        numbers = [*part.numbers, *own]
        make = row_kernel if isinstance(part.step, RowStep) else kernel
        compiled: Kernel | RowKernel | None = make(part.step, part.views, len(numbers))
        if compiled is None:
            fallback.append(bucket.part(part.positions, **_unfused(foreach=True)))
            continue
        if names and not all(known):
            states.update({params[i]: mine[i] for i in part.positions})
        counters = [mine[i]["step"] for i in part.positions] if "step" in mine[0] else []
        members = bucket if len(part.positions) == len(params) else bucket.part(part.positions)
        launches.append(Launch(members, update, compiled, part.views, numbers, counters, part.has_prox))
    if one_by_one:
        fallback.append(bucket.part(one_by_one, **_unfused(foreach=False)))
    if foreign:
        fallback.append(bucket.part(foreign))  # torch has an answer to those
    return launches, fallback


class Weighing(Enum):
    """The weights of blocks, which multiply λ: none, taken by a kernel, or applied after it."""

    NONE = 0
    FUSED = 1
    APART = 2  # only the update is fused

    @classmethod
    def of(cls, penalty: Penalty | None, weights: list[Tensor | None]) -> Weighing:
        """Return the one for a bucket of this penalty."""
        if penalty is None or all(weight is None for weight in weights):
            return cls.NONE
        return cls.APART if None in weights or not is_elementwise(penalty) else cls.FUSED


@dataclass(frozen=True)
class _BucketPart:
    """Members of a bucket that one kernel does: λ and the penalty's own numbers come before those of the update."""

    positions: list[int]
    step: FusedStep
    numbers: list[float]
    views: FlatViews
    has_prox: bool


def _parts(
    bucket: Bucket, update: Update, stand_in: Penalty, flat: Iterable[tuple[list[int], FlatViews]], weighing: Weighing
) -> Iterator[_BucketPart]:
    penalty, lam = bucket.penalty, float(bucket.lam)
    whole = not any_sharded(bucket.options["params"])  # else the rows in memory may not be those of the penalty
    for positions, views in flat:
        if whole and weighing is Weighing.NONE and is_rowwise(penalty, update) and isinstance(penalty.over, Partition):
            rowwise, positions, views = row_views_of(positions, views, penalty.over)
            if rowwise is not None:
                template, own = Template.of(replace(penalty, over=Elements()))
                yield _BucketPart(rowwise[0], RowStep(update, template), [lam, *own], rowwise[1], has_prox=True)
        if positions:
            fits = penalty is None or (is_elementwise(penalty) and weighing is not Weighing.APART)
            template, own = Template.of(penalty if penalty is not None and fits else stand_in)
            step = FusedStep(update, template, weighted=weighing is Weighing.FUSED)
            yield _BucketPart(positions, step, [lam if penalty is not None and fits else 0.0, *own], views, fits)


def _unfused(foreach: bool) -> dict[str, bool]:
    """Return the options for torch's own step in the place of the fused one."""
    return {"fused": False, "foreach": foreach, "capturable": False}
