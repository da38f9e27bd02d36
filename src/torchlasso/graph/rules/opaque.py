"""Operators that are not followed: all of their dimensions are pinned."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchlasso.graph.operators import Call, OperatorRule, Reach, Shaped, all_pinned, pin_all, rule


@rule("masked_select", "nonzero", "where.default", "masked_scatter", "take", "put")
class Pick(OperatorRule):
    """Operators that pick elements by position: no dimension can shrink, and any element may depend on any other."""

    before, after = "{} picks from it", "made by {}"  # the reasons to pin the dimensions of inputs and results

    def shape(self, call: Call[Shaped]) -> Any:
        for tensor in call.tensors:
            pin_all(tensor.dims, self.before.format(call.name))
        values = call.value if call.several else (call.value,)
        shapes = (value.shape if isinstance(value, Tensor) else () for value in values)
        out = tuple(all_pinned(shape, self.after.format(call.name)) for shape in shapes)
        return out if call.several else out[0]

    def reach(self, call: Call[Reach]) -> Any:
        whole = sum((tensor.depends.sum() for tensor in call.tensors), torch.zeros(()))
        values = call.value if call.several else (call.value,)
        out = tuple(whole.expand(value.shape if isinstance(value, Tensor) else ()) for value in values)
        return out if call.several else out[0]


class Unknown(Pick):
    """Unknown operators, about which nothing is assumed."""

    before = after = "{} is not understood"


class Varying(Pick):
    """Operators with a number as an argument, such as the end of a slice, that depends on the inputs."""

    before = after = "an argument of {} depends on the inputs"


UNKNOWN, VARYING = Unknown(), Varying()
