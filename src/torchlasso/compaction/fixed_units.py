"""Families of units that compaction cannot make smaller, found before training by an experiment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_leaves, tree_map

from torchlasso._core.copying import copied
from torchlasso._core.parametrized import computed_from
from torchlasso._core.running import ExampleInputs, run_once
from torchlasso.compaction.pipeline import find_compaction
from torchlasso.compaction.removal import Removal
from torchlasso.graph import UnitMap
from torchlasso.graph.axes import Axis

# The shares of units that are removed in the experiment, in turns: after training, families of equal size differ, too,
# and code that uses one number for several of them works with none of theirs.
SHARES = (1 / 2, 3 / 8, 5 / 8)


def fixed_units(model: nn.Module, example_inputs: ExampleInputs, units: UnitMap) -> dict[Axis, str]:
    """Return the axes of families that stay whole although the graph of operators lets units go, each with a reason.

    In a copy of the model, about half of the units of each family become zero, in all weights, biases and running
    means, and compaction is tried. A family that loses none of them is fixed, as where code of the model needs its
    size. A family whose units have an effect although they are zero is not known to be fixed, nor is any if the outputs
    are no longer finite.

    Args:
        model: it is not changed.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments.
        units: the units of the model.

    Raises:
        ValueError: the copy cannot be compacted.

    Examples:
        >>> from torchlasso.graph import find_units
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        ...
        ...     def forward(self, x):
        ...         return self.c(self.b(self.a(x).relu()).view(len(x), 4, 2).relu().flatten(1))
        >>> net, x = Net(), torch.randn(4, 3)
        >>> units = find_units(net, x)
        >>> fixed = fixed_units(net, x, units)
        >>> [family.name for family in units.families if family.axis in fixed]
        ['b.weight:0.1', 'b.weight:0.2']
    """
    going = {}
    for number, family in enumerate(units.removable):
        going[family.axis] = torch.arange(family.size) < round(SHARES[number % len(SHARES)] * family.size)
    thinned = _without(model, units, Removal(going))
    outputs = tree_leaves(run_once(thinned, tree_map(_copy, example_inputs)))
    if not all(bool(x.isfinite().all()) for x in outputs if isinstance(x, Tensor)):
        return {}  # such as weights that are divided by their norms, which training may not make zero either
    removal = find_compaction(thinned, example_inputs, units=units.now(thinned)).removal
    return {axis: why[0] for axis, why in removal.stays.items() if not removal.gone[axis].any()}


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value  # which the model may change in place


@torch.no_grad()
def _without(model: nn.Module, units: UnitMap, removal: Removal) -> nn.Module:
    """Return a copy of a model in which the units of a removal are zero; it shares the weights of the other units."""
    means = {id(module.running_mean) for module in model.modules() if isinstance(module, _NormBase)}
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    computed = computed_from(model)
    new: dict[int, Tensor] = {id(p): p for p in model.parameters()}
    for name, dims in units.structure.parameters.items():
        old = tensors[name]
        learned = isinstance(old, nn.Parameter) and old.is_floating_point()
        if old in computed and old not in computed[old].together:  # such as a direction, which is 0/0 at zero
            continue
        if (learned or id(old) in means) and any(map(removal.touches, dims)):
            zeroed = old.detach().masked_fill(removal.removed_elements(dims).to(old.device), 0.0)
            new[id(old)] = nn.Parameter(zeroed, old.requires_grad) if learned else zeroed
    return copied(model, dict(new))
