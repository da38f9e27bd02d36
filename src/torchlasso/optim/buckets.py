"""Cohorts: the parameters of one group that take the same step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from torchlasso.optim.metrics import Metric, State, age_of
from torchlasso.penalties import Penalty, check_strength
from torchlasso.selection import Group

# The averaging window grows with this power of lr_peak / lr. Measured in docs/results: with 1 the support goes on
# changing to the end, with 3 the last epochs move too slowly to reach as low an objective.
POWER = 2
# The window is lengthened at most this much as the learning rate falls to zero.
SMALLEST_SHARE = 1e-8


@dataclass(frozen=True)
class Cohort:
    """Parameters of one group that are equally old, with what holds for them in one step.

    Attributes:
        group: the index of their group.
        members: their indices in it.
        grads: their gradients.
        penalty: theirs; None where it has no strength.
        options: the group as the base optimizer is to see it, ``lam`` being theirs.
        age: how many updates they have had before the step.
        before: the gain of the averaging before the step.
        gain: after it; ``plain``: had its window never been lengthened.
    """

    group: int
    members: list[int]
    grads: list[Tensor]
    penalty: Penalty | None
    options: Group
    age: int
    before: float
    gain: float
    plain: float

    def part(self, positions: list[int], **options: Any) -> Cohort:
        """Return the bucket of some of the members, with some options changed."""
        params = [self.options["params"][i] for i in positions]
        members, grads = [self.members[i] for i in positions], [self.grads[i] for i in positions]
        return replace(self, members=members, grads=grads, options={**self.options, **options, "params": params})


def cohorts_of(
    groups: Sequence[Group],
    penalties: Sequence[Penalty | None],
    metric: Metric,
    states: Mapping[Tensor, State],
    left_out: Collection[int] = (),
) -> list[Cohort]:
    """The cohorts of all parameters that have a gradient; the largest rate of each group is brought up to date."""
    cohorts = []
    for index, (group, penalty) in enumerate(zip(groups, penalties, strict=True)):
        if index in left_out:
            continue
        check_strength(group["lam"])  # whoever steers λ may have gone below zero
        if isinstance(group["gains"], Tensor):  # they were kept on a device until now
            group.update({name: group[name].tolist() for name in ("gains", "plain_gains")})
            group["lr_peak"] = group["lr_peak"].item()
        params, gains, plain_gains = group["params"], group["gains"], group["plain_gains"]
        grads = [p.grad for p in params]
        members = [i for i, grad in enumerate(grads) if grad is not None]
        if not members:
            continue
        share = _share(group)
        ages = [age_of(states.get(params[i], {})) for i in members] if metric.aged else [0] * len(members)
        alike: dict[tuple[int, float, float, float], list[int]] = {}
        columns = ([values[i] for i in members] for values in (gains, plain_gains, group["lam_scales"]))
        keys = list(zip(ages, *columns, strict=True))
        if len(set(keys)) == 1:
            alike = {keys[0]: members}
        else:
            for key, i in zip(keys, members, strict=True):
                alike.setdefault(key, []).append(i)
        plainly = {name: _plain(value) for name, value in group.items() if name != "params"}
        for (age, before, plain, scale), some in alike.items():
            options = {**plainly, "params": [params[i] for i in some]}
            options["plain_lam"] = options["lam"]  # a scale is of a block, and may change when the model shrinks
            options["lam"] *= scale
            plain = metric.gain(options, plain)
            if group["averaging"] and metric.averaging(options):
                options.update(metric.with_averaging(options, share, age, before, plain))
            gain = metric.gain(options, before)
            own = penalty if options["lam"] else None
            cohorts.append(Cohort(index, some, [grads[i] for i in some], own, options, age, before, gain, plain))
    return cohorts


def _plain(value: Any) -> Any:
    """Numbers instead of tensors."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def _share(group: Group) -> float:
    """(1 − β_t)/(1 − β): how much the averaging window is to be lengthened in this step."""
    lr = float(group["lr"])
    group["lr_peak"] = max(group["lr_peak"], lr)
    return max((lr / group["lr_peak"]) ** POWER, SMALLEST_SHARE) if group["lr_peak"] else 1.0


def keep_gains(groups: Sequence[Group], cohorts: Iterable[Cohort]) -> None:
    """Write the gains after the step into the groups."""
    for cohort in cohorts:
        group = groups[cohort.group]
        for name, gain in (("gains", cohort.gain), ("plain_gains", cohort.plain)):
            if len(cohort.members) == len(group["params"]):
                group[name] = [gain] * len(cohort.members)
                continue
            for i in cohort.members:
                group[name][i] = gain
