"""Buckets: the parameters of one group that take the same step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from torchlasso.optim.averaging import averaged, peak_of, share_of
from torchlasso.optim.metric import Metric
from torchlasso.optim.unseen import State, age_of
from torchlasso.penalties import Penalty, check_strength
from torchlasso.selection import Group

DECAY_SCALES = "decay_scales"  # the key of a group whose parameters have other shares of its weight decay: one for each


@dataclass(frozen=True)
class Bucket:
    """Parameters of one group that have had as many updates, with what holds for them in one step.

    Attributes:
        group: the index of their group.
        members: their indices in it.
        grads: their gradients.
        penalty: theirs; None where λ is zero and has no part in the form of the step.
        lam: λ of their group times their scale.
        options: the options of the group in this step, ``params`` being the members.
        age: how many updates they have had before the step.
        before: the gain of the averaging before the step.
        gain: after it.
        plain: after it had the window never been lengthened.
        threshold: that of their latent weights, before the step.
    """

    group: int
    members: list[int]
    grads: list[Tensor]
    penalty: Penalty | None
    lam: float
    options: Group
    age: int
    before: float
    gain: float
    plain: float
    threshold: float

    def part(self, positions: list[int], **options: Any) -> Bucket:
        """Return the bucket of some of the members, with some options changed."""
        params = [self.options["params"][i] for i in positions]
        members, grads = [self.members[i] for i in positions], [self.grads[i] for i in positions]
        return replace(self, members=members, grads=grads, options={**self.options, **options, "params": params})


def buckets_of(
    groups: Sequence[Group],
    penalties: Sequence[Penalty | None],
    metric: Metric,
    states: Mapping[Tensor, State],
    left_out: Collection[int] = (),
) -> list[Bucket]:
    """Return the buckets of all parameters that have a gradient, and keep the largest rate of each group up to date."""
    buckets = []
    for index, (group, penalty) in enumerate(zip(groups, penalties, strict=True)):
        if index in left_out:
            continue
        check_strength(group["lam"])  # a scheduler of λ may have gone below zero
        if isinstance(group["gains"], Tensor):  # they were kept on a device until now
            group.update({name: group[name].tolist() for name in ("gains", "plain_gains")})
            group["lr_peak"] = group["lr_peak"].item()
        params, gains, plain_gains = group["params"], group["gains"], group["plain_gains"]
        grads = [p.grad for p in params]
        members = [i for i, grad in enumerate(grads) if grad is not None]
        if not members:
            continue
        plainly = {name: _plain(value) for name, value in group.items() if name != "params"}
        plain_form = plainly["form"] == "proximal" and not plainly["held"]
        ours = penalty if plainly["lam"] or not plain_form else None
        group["lr_peak"] = peak_of(group["lr_peak"], float(group["lr"]))
        share = share_of(float(group["lr"]), group["lr_peak"])
        ages = [age_of(states.get(params[i], {})) for i in members] if metric.aged else [0] * len(members)
        alike: dict[tuple[int, float, float, float, float, float], list[int]] = {}
        decays = group.get(DECAY_SCALES) or [1.0] * len(params)
        each = (gains, plain_gains, group["lam_scales"], group["thresholds"], decays)
        columns = ([values[i] for i in members] for values in each)
        keys = list(zip(ages, *columns, strict=True))
        if len(set(keys)) == 1:
            alike = {keys[0]: members}
        else:
            for key, i in zip(keys, members, strict=True):
                alike.setdefault(key, []).append(i)
        for (age, before, plain, scale, threshold, decay), some in alike.items():
            step = averaged(metric, decayed(plainly, decay), share, age, before, plain)
            step.options["params"] = [params[i] for i in some]
            own, lam = [grads[i] for i in some], plainly["lam"] * scale
            numbers = (age, before, step.gain, step.plain, threshold)
            buckets.append(Bucket(index, some, own, ours, lam, step.options, *numbers))
    return buckets


def decayed(options: Group, scale: float) -> Group:
    """Return the options of a group for a parameter with another share of its weight decay."""
    return options if scale == 1 else {**options, "weight_decay": options["weight_decay"] * scale}


def _plain(value: Any) -> Any:
    """Return a number in the place of a tensor that holds one."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def store_gains(groups: Sequence[Group], buckets: Iterable[Bucket]) -> None:
    """Write the gains after the step into the groups."""
    for bucket in buckets:
        group = groups[bucket.group]
        for name, gain in (("gains", bucket.gain), ("plain_gains", bucket.plain)):
            if len(bucket.members) == len(group["params"]):
                group[name] = [gain] * len(bucket.members)
                continue
            for i in bucket.members:
                group[name][i] = gain
