"""The sparsity report: a frozen record, of which text, a dictionary and a page are views."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torchlasso._core.files import write_text
from torchlasso._core.readable import aligned, byte_size, percent, short
from torchlasso.html import Bar, document, table

TAG = re.compile(r"(\\*)(\[[a-z#/@][^[]*?])")  # what rich would take for markup in a layer's name
HEAD = ("layer", "shape", "weights", "zeros", "live units", "live inputs", "size")


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
                byte_size(layer.bytes),
            ]
            for layer in self.layers
        ]

    def _lines(self) -> list[str]:
        total = ["total", "", f"{self.penalised:,}", percent(self.sparsity), "", "", byte_size(self.bytes)]
        lines = aligned([HEAD, *self._cells(), total], left=2)
        return [*lines[:-1], "─" * max(map(len, lines)), lines[-1]]


def _flops_left(layer: LayerReport) -> str | Bar:
    if not layer.flops or layer.live_flops is None:
        return "–"
    text = f"{short(layer.live_flops).strip()} of {short(layer.flops).strip()}"
    return Bar(layer.live_flops / layer.flops, text)
