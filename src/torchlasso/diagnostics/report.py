"""The sparsity report: a frozen record of what is zero in a model; text, a dictionary and a page are views of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from torchlasso._core.arguments import check_inputs, check_model
from torchlasso._core.files import write_text
from torchlasso.control.live_channels import undisturbed
from torchlasso.distributed.sharding import plain_class, reshard, whole
from torchlasso.graph.tracing import Inputs, as_arguments, first_line
from torchlasso.html import Bar, document, table
from torchlasso.penalties.blocks import Blocks, Filters, InputChannels
from torchlasso.selection import Group, check_groups, named_parameters, weights_of


@dataclass(frozen=True)
class LayerReport:
    """One weight tensor.

    Attributes:
        name: the parameter's name.
        kind: the class of its layer.
        shape: its shape.
        weights, zeros: how many weights it has, and how many of them are exactly zero.
        units, live_units: output units (neurons, filters), and those with an incoming weight that is not zero.
        inputs, live_inputs: input units, and those that are read by a weight that is not zero.
        bytes: what it takes as it is stored, zeros included.
        penalised: whether it has a penalty.
        live_weights: weights between a live unit and a live input, zeros among them included: what it would have left
            without the others.
        flops: of one run on the example inputs, two for each multiplication and addition; None where none were given.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    weights: int
    zeros: int
    units: int
    live_units: int
    inputs: int
    live_inputs: int
    bytes: int
    penalised: bool
    live_weights: int
    flops: float | None = None

    @property
    def sparsity(self) -> float:
        """Zeros over weights."""
        return self.zeros / self.weights

    @property
    def live_flops(self) -> float | None:
        """The FLOPs between live units and live inputs."""
        return None if self.flops is None else self.flops * self.live_weights / self.weights


@dataclass(frozen=True)
class SparsityReport:
    """The zeros of a model: a row for every weight tensor, and totals.

    Attributes:
        layers: the weight tensors, in the model's order.
        parameters: all parameters of the model, biases and normalisation included.
        bytes: what they take as they are stored.
    """

    layers: tuple[LayerReport, ...]
    parameters: int
    bytes: int

    @property
    def penalised(self) -> int:
        """The number of weights with a penalty."""
        return sum(layer.weights for layer in self.layers if layer.penalised)

    @property
    def zeros(self) -> int:
        """The number of penalised weights that are exactly zero."""
        return sum(layer.zeros for layer in self.layers if layer.penalised)

    @property
    def nonzero(self) -> int:
        """The number of penalised weights that are not zero."""
        return self.penalised - self.zeros

    @property
    def sparsity(self) -> float:
        """Zeros over penalised weights."""
        return self.zeros / self.penalised if self.penalised else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers, strings and lists."""
        totals = {
            key: getattr(self, key) for key in ("sparsity", "zeros", "nonzero", "penalised", "parameters", "bytes")
        }
        layers = [{**asdict(layer), "shape": list(layer.shape), "sparsity": layer.sparsity} for layer in self.layers]
        return {**totals, "layers": layers}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __rich__(self) -> str:
        """The same table with rich's markup, for ``rich.print``."""
        head, *rows, rule, total = (TAG.sub(r"\1\1\\\2", line) for line in self._lines())
        return "\n".join([f"[bold]{head}[/bold]", *rows, f"[dim]{rule}[/dim]", f"[bold]{total}[/bold]"])

    def to_html(self, path: str | Path, title: str = "Sparsity report", above: str | None = None) -> None:
        """Draw the report as one self-contained page.

        Args:
            path: the file to write.
            title: the page's heading.
            above: HTML to put above the table, instead of the sentence with the totals.
        """
        if above is None:
            zeros = f"{percent(self.sparsity)} of {self.penalised:,} penalised weights are exactly zero"
            above = f"<p>{zeros}; {self.nonzero:,} remain.</p>"
        write_text(path, document(title, f"{above}<section><h2>Layers</h2>{self.html_table()}</section>"))

    def html_table(self) -> str:
        """The layers as a table in HTML, with bars; with the FLOPs, where they are known."""
        counted = any(layer.flops for layer in self.layers)
        rows: list[list[str | Bar]] = []
        for layer, cells in zip(self.layers, self._cells(), strict=True):
            zeros = Bar(layer.sparsity, cells[3]) if layer.penalised else "not penalised"
            units = Bar(layer.live_units / layer.units, cells[4])
            inputs = Bar(layer.live_inputs / layer.inputs, cells[5])
            rows.append([*cells[:3], zeros, units, inputs, cells[6], *([_flops_left(layer)] if counted else [])])
        return table((*HEAD, "live FLOPs") if counted else HEAD, rows)

    def _cells(self) -> list[list[str]]:
        return [
            [
                layer.name,
                "×".join(map(str, layer.shape)),
                f"{layer.weights:,}",
                percent(layer.sparsity) if layer.penalised else "–",
                f"{layer.live_units:,}/{layer.units:,}",
                f"{layer.live_inputs:,}/{layer.inputs:,}",
                size(layer.bytes),
            ]
            for layer in self.layers
        ]

    def _lines(self) -> list[str]:
        total = ["total", "", f"{self.penalised:,}", percent(self.sparsity), "", "", size(self.bytes)]
        lines = aligned([HEAD, *self._cells(), total], left=2)
        return [*lines[:-1], "─" * max(map(len, lines)), lines[-1]]


def aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Rows of cells as lines of text; so many columns are aligned at the left, the others at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = (
        [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    )
    return ["  ".join(row).rstrip() for row in cells]


TAG = re.compile(r"(\\*)(\[[a-z#/@][^[]*?])")  # what rich would take for markup in a layer's name
HEAD = ("layer", "shape", "weights", "zeros", "live units", "live inputs", "size")


def percent(fraction: float) -> str:
    """A fraction as a percentage; 100.0 % only for all.

    >>> percent(0.9271), percent(0.99999)
    ('92.7 %', '99.9 %')
    """
    return f"{math.floor(fraction * 1000) / 10 if fraction > 0.999 else 100 * fraction:.1f} %"


def size(count: int) -> str:
    """Bytes for people.

    >>> size(512), size(999_999), size(1_066_440)
    ('512 B', '1 MB', '1.07 MB')
    """
    return f"{short(count)}B"


def short(count: float) -> str:
    """A large number for people, with room for a unit after it.

    >>> short(512), short(999_999), short(1_066_440)
    ('512 ', '1 M', '1.07 M')
    """
    for unit, scale in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= 0.9995 * scale:  # what rounds to it
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} "


def _flops_left(layer: LayerReport) -> str | Bar:
    if not layer.flops or layer.live_flops is None:
        return "–"
    text = f"{short(layer.live_flops).strip()} of {short(layer.flops).strip()}"
    return Bar(layer.live_flops / layer.flops, text)


@torch.no_grad()
def report(
    model: nn.Module, groups: Iterable[Group] | None = None, example_inputs: Inputs | None = None
) -> SparsityReport:
    """Count the zeros of ``model``, layer by layer.

    Args:
        model: any module.
        groups: the groups it was trained with (of ``param_groups``, or ``optimizer.penalised_groups()``), which say
            what is penalised; without them every weight counts as penalised.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments, on which the model is run to
            count the FLOPs of its layers.

    Raises:
        ValueError: the model cannot be run on ``example_inputs``.

    A model that is sharded over several processes is counted as a whole, one weight after the other; every process has
    to make the call.

    Examples:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> _ = nn.init.zeros_(model[0].weight[0]), nn.init.ones_(model[2].weight)
        >>> print(report(model))
        layer     shape  weights   zeros  live units  live inputs  size
        0.weight  2×3          6  50.0 %         1/2          3/3  24 B
        2.weight  1×2          2   0.0 %         1/1          2/2   8 B
        ───────────────────────────────────────────────────────────────
        total                  8  37.5 %                           44 B
    """
    check_model("report: model", model)
    groups = None if groups is None else check_groups("report: groups", groups)
    if example_inputs is not None:
        check_inputs("report: example_inputs", example_inputs)
    reshard(model)  # so that its parameters are those of the groups
    parameters = list(named_parameters(model))
    weights = {p for _, _, p in weights_of(model)}
    chosen = (
        weights if groups is None else {p for group in groups if group["penalty"] is not None for p in group["params"]}
    )
    flops = {} if example_inputs is None else _flops(model, example_inputs)
    layers = [
        _layer(name, module, whole(p), p in chosen, flops.get(module))
        for name, module, p in parameters
        if (p in chosen or p in weights) and p.numel()
    ]
    everything = [p for _, _, p in parameters]
    return SparsityReport(
        tuple(layers), sum(p.numel() for p in everything), sum(p.numel() * p.element_size() for p in everything)
    )


def _layer(name: str, module: nn.Module, w: Tensor, penalised: bool, flops: float | None) -> LayerReport:
    shape, w = tuple(w.shape), w if w.dim() else w.reshape(1)
    units, live_units, made = _live(Filters().fit(module, name), w)
    inputs, live_inputs, read = 1, int(bool(w.any())), w.any().expand_as(w)
    if w.dim() > 1:
        inputs, live_inputs, read = _live(InputChannels().fit(module, name), w)
    if flops is not None:  # they are of the module's weights, each by its size, and not of its biases
        matrices = sum(p.numel() for p in module.parameters(recurse=False) if p.dim() > 1)
        flops = flops * w.numel() / matrices if w.dim() > 1 else 0.0
    return LayerReport(
        name=name,
        kind=plain_class(module).__name__,
        shape=shape,
        weights=w.numel(),
        zeros=int((w == 0).sum()),
        units=units,
        live_units=live_units,
        inputs=inputs,
        live_inputs=live_inputs,
        bytes=w.numel() * w.element_size(),
        penalised=penalised,
        live_weights=int((made & read).sum()),
        flops=flops,
    )


def _live(over: Blocks, w: Tensor) -> tuple[int, int, Tensor]:
    """Count units or inputs and those that live, and mark the weights of these."""
    rows, rebuild = over.rows(w)
    live = (rows != 0).any(dim=1, keepdim=True)
    return len(rows), int(live.sum()), rebuild(live.to(rows.dtype).expand_as(rows)) != 0


def _flops(model: nn.Module, example_inputs: Inputs) -> dict[nn.Module, float]:
    """Count the FLOPs of each module with its submodules, in one run in evaluation."""
    args, kwargs = as_arguments(example_inputs)
    counter, found = FlopCounterMode(display=False), dict.fromkeys(model.modules(), 0.0)

    def enter(module: nn.Module, _: Any) -> None:
        found[module] -= counter.get_total_flops()

    def leave(module: nn.Module, *_: Any) -> None:
        found[module] += counter.get_total_flops()

    handles = [module.register_forward_pre_hook(enter) for module in found]
    handles += [module.register_forward_hook(leave) for module in found]
    try:
        # the counter does not see what is fused on a CPU
        with undisturbed(model), counter, sdpa_kernel(SDPBackend.MATH):
            model(*args, **kwargs)
    except Exception as error:  # of a model of one's own, whatever it raises
        raise ValueError(f"the forward pass on example_inputs failed: {first_line(error)}") from error
    finally:
        for handle in handles:
            handle.remove()
    return found
