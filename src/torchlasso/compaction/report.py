"""The report of a compaction: a frozen record, of which text and a dictionary are views."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from torchlasso._core.copying import without_graph
from torchlasso._core.flops import counted_flops
from torchlasso._core.readable import aligned, byte_size, percent
from torchlasso._core.running import ExampleInputs, run_once
from torchlasso._core.wrappers import uncompiled


@dataclass(frozen=True)
class Totals:
    """The size and the cost of a model.

    Attributes:
        parameters: the number of learnt numbers.
        bytes: the size of its parameters and buffers in their own precision.
        flops: the FLOPs of one run on the example inputs: two for each multiplication and addition of matrix products,
            convolutions and attentions.
    """

    parameters: int
    bytes: int
    flops: int

    @classmethod
    def of(cls, model: nn.Module, example_inputs: ExampleInputs) -> Totals:
        """Measure a model with one run in evaluation mode."""
        without_gradients = {id(p): _without_gradient(p) for p in model.parameters()}
        still = copy.deepcopy(uncompiled(model), without_graph(model) | without_gradients)
        with counted_flops() as counter:
            run_once(still, tree_map(_without_gradient, example_inputs))
        tensors = [*model.parameters(), *model.buffers()]
        return cls(
            sum(p.numel() for p in model.parameters()),
            sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            counter.get_total_flops(),
        )


def _without_gradient(value: Any) -> Any:
    """Return a tensor in the same memory that needs no gradient, since the counter would look for its graph."""
    if isinstance(value, nn.Parameter):
        return nn.Parameter(value.detach(), requires_grad=False)
    return value.detach() if isinstance(value, Tensor) else value


@dataclass(frozen=True)
class Checked:
    """The comparison of the two models, and the parts that the example inputs did not exercise.

    Attributes:
        left_out: optional arguments of the forward pass that the example did not give; they count as never given.
        unread: parameters that no operator read on the example, or modules with only such parameters; they stay.
        other_sizes: True if the models were also compared at another batch size, length or resolution; False if the
            model accepts no other.
        training: why the models were not compared in training, such as a missing target; empty if they were.
        random: True if outputs in training depend on random numbers that cannot be the same for both models; only the
            other outputs were compared then.
        single: why the comparison ran in float32 and not in float64; empty if it ran in float64.
    """

    left_out: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    other_sizes: bool = False
    training: str = ""
    random: bool = False
    single: str = ""

    def __str__(self) -> str:
        lines = []
        if self.left_out:
            lines.append(f"missing arguments, which count as never given: {', '.join(self.left_out)}")
        if self.unread:
            lines.append(f"parameters that no operator read on these inputs, so they stay: {', '.join(self.unread)}")
        if not self.other_sizes:
            lines.append("compared at the sizes of the example only: the model accepts no other sizes")
        if self.training:
            lines.append(f"not compared in training: {self.training}")
        if self.random:
            lines.append("not compared in training: outputs that depend on random numbers")
        if self.single:
            lines.append(f"compared in float32: {self.single}")
        return "\n".join(lines)


@dataclass(frozen=True)
class FamilyReport:
    """A family of units.

    Attributes:
        name: the name of the first parameter that they have slices in, and the dimension.
        before, after: the number of units.
        why: the reasons why units without effect stay, or why no unit can be removed; empty if there are none.
    """

    name: str
    before: int
    after: int
    why: tuple[str, ...]


@dataclass(frozen=True)
class FactoredLayer:
    """A layer that became two.

    Attributes:
        name: its path in the model.
        rank: the number of outputs of the first layer.
        before, after: the number of its weights, without the bias.
    """

    name: str
    rank: int
    before: int
    after: int

    def __str__(self) -> str:
        return f"{self.name} became two layers, of rank {self.rank}: {self.after:,} of {self.before:,} weights are left"


@dataclass(frozen=True)
class CompactionReport:
    """The removed units, and the reasons why others stayed.

    Attributes:
        families: the families of units, in the model's order; of families that cannot become smaller, only those that
            a layer computes.
        unknown: unknown operators, whose dimensions all stay, and the number of times that each occurs.
        before, after: the size and the cost of both models.
        config: the changes of the model's config, or why it cannot describe the smaller model; empty if nothing was
            removed, or if the model has no config like the models of transformers.
        checked: the comparison of the two models, and the parts that the example inputs did not exercise.
        factored: the layers of low rank that became two.
        whole: the names of layers of low rank that stay, since the model did not run with two in the place of one, such
            as one that reads the weight itself, or its outputs changed.
    """

    families: tuple[FamilyReport, ...]
    unknown: dict[str, int]
    before: Totals
    after: Totals
    config: str = ""
    checked: Checked = Checked()
    factored: tuple[FactoredLayer, ...] = ()
    whole: tuple[str, ...] = ()

    @property
    def removed(self) -> int:
        """The number of removed units."""
        return sum(family.before - family.after for family in self.families)

    @property
    def verdict(self) -> str:
        """The gain, in one sentence."""
        units = sum(family.before for family in self.families if family.after < family.before)
        if not self.removed and not self.factored:
            return "No unit can be removed."
        shares = [
            f"{percent(getattr(self.after, key) / getattr(self.before, key))} of the {name}"
            for key, name in (("parameters", "parameters"), ("flops", "FLOPs"))
            if getattr(self.before, key)
        ]
        done = [f"{self.removed:,} of {units:,} units were removed"] if self.removed else []
        done += [f"{count} layer{'s' * (count != 1)} became two"] if (count := len(self.factored)) else []
        return f"{' and '.join(done)}: {' and '.join(shares)} are left."

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, strings and lists."""
        return {"removed": self.removed, **asdict(self)}

    def __str__(self) -> str:
        rows = [[f.name, f"{f.after:,}/{f.before:,}", "; ".join(f.why)] for f in self.families]
        lines = aligned([("units of", "left", ""), *([a, b, c] for a, b, c in rows)], left=3) if rows else []
        totals = [("", "before", "after", "left")]
        for name, show in (("parameters", "{:,}".format), ("size", byte_size), ("FLOPs", "{:,}".format)):
            key = {"size": "bytes", "FLOPs": "flops"}.get(name, name)
            before, after = getattr(self.before, key), getattr(self.after, key)
            totals.append((name, show(before), show(after), percent(after / before) if before else "–"))
        unknown = [f"not understood: {name} ({times}×)" for name, times in self.unknown.items()]
        config = [self.config] if self.config else []
        why = "has a low rank and stays: the model does not run with two layers there, or its outputs change"
        ranks = [*map(str, self.factored), *(f"{name} {why}" for name in self.whole)]
        notes = ["", *str(self.checked).splitlines()] if str(self.checked) else []
        return "\n".join([*lines, *ranks, *unknown, *config, "", *aligned(totals, left=1), *notes])
