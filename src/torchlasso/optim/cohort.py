"""Cohorts: the parameters of one group that take the same step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torchlasso.optim.metrics import Group
from torchlasso.penalties import Penalty


@dataclass(frozen=True)
class Cohort:
    """Parameters of one group that are equally old, with what holds for them in one step.

    Attributes:
        group: the index of their group.
        members: their indices in it.
        penalty: theirs; None where it has no strength.
        options: the group as the base optimizer is to see it.
        age: how many updates they have had before the step.
        before: the gain of the averaging before the step.
        gain: after it; ``plain``: had its window never been lengthened.
    """

    group: int
    members: list[int]
    penalty: Penalty | None
    options: Group
    age: int
    before: float
    gain: float
    plain: float

    def part(self, positions: list[int], **options: Any) -> Cohort:
        """Those of the members, with some options changed."""
        params = [self.options["params"][i] for i in positions]
        members = [self.members[i] for i in positions]
        return replace(self, members=members, options={**self.options, **options, "params": params})
