"""The sparsity report: a frozen record, with views as text, as a dictionary and as a page."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torchlasso._core.files import write_text
from torchlasso._core.readable import aligned, byte_size, percent, short
from torchlasso.html import Bar, document, table

TAG = re.compile(r"(\\*)(\[[a-z#/@][^[]*?])")  # parts of a layer's name that rich would read as markup
HEAD = ("layer", "shape", "weights", "zeros", "live units", "live inputs", "size")


@dataclass(frozen=True)
class LayerReport:
    """The zeros of one weight tensor.

    Attributes:
        name: the name of the parameter.
        kind: the class of its layer.
        shape: the shape of the tensor.
        weights, zeros: the number of weights, and the number that is exactly zero.
        units, live_units: the number of output units (neurons, filters), and the number with a nonzero incoming weight.
        inputs, live_inputs: the number of input units, and the number read by a nonzero weight.
        bytes: the size of the tensor, including zeros.
        penalised: whether it has a penalty.
        live_weights: the number of weights between a live unit and a live input, including zeros: the size without the
            other units and inputs.
        flops: the operations of one run on the example inputs, two for each multiplication and addition; None without
            example inputs.
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
        """The share of zeros."""
        return self.zeros / self.weights

    @property
    def live_flops(self) -> float | None:
        """The FLOPs of the live units and live inputs only."""
        return None if self.flops is None else self.flops * self.live_weights / self.weights


@dataclass(frozen=True)
class SparsityReport:
    """The zeros of a model: a row for every weight tensor, and totals.

    Attributes:
        layers: the weight tensors, in the model's order.
        parameters: the number of all parameters, including biases and normalisation.
        bytes: the size of all parameters.
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
        """The share of zeros among the penalised weights."""
        return self.zeros / self.penalised if self.penalised else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Convert to numbers, strings and lists."""
        totals = {
            key: getattr(self, key) for key in ("sparsity", "zeros", "nonzero", "penalised", "parameters", "bytes")
        }
        layers = [{**asdict(layer), "shape": list(layer.shape), "sparsity": layer.sparsity} for layer in self.layers]
        return {**totals, "layers": layers}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __rich__(self) -> str:
        """Format the table with rich's markup, for ``rich.print``."""
        head, *rows, rule, total = (TAG.sub(r"\1\1\\\2", line) for line in self._lines())
        return "\n".join([f"[bold]{head}[/bold]", *rows, f"[dim]{rule}[/dim]", f"[bold]{total}[/bold]"])

    def to_html(self, path: str | Path, title: str = "Sparsity report", above: str | None = None) -> None:
        """Draw the report as one self-contained page.

        Args:
            path: the file to write.
            title: the heading of the page.
            above: HTML above the table, instead of the sentence with the totals.
        """
        if above is None:
            zeros = f"{percent(self.sparsity)} of {self.penalised:,} penalised weights are exactly zero"
            above = f"<p>{zeros}; {self.nonzero:,} remain.</p>"
        write_text(path, document(title, f"{above}<section><h2>Layers</h2>{self.html_table()}</section>"))

    def html_table(self) -> str:
        """Format the layers as an HTML table with bars, and with the FLOPs if they are known."""
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
