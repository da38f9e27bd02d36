"""The report of an acceleration: a frozen record, of which text and a dictionary are views."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torchlasso._core.readable import aligned, percent


@dataclass(frozen=True)
class LayerAcceleration:
    """The way to run one layer.

    Attributes:
        name: the module's.
        kind: its class.
        shape: of its weight, (outputs, inputs, ...).
        sparsity: zeros over weights.
        execution: the way that was chosen.
        milliseconds: of all its calls in one run of the model, by the ways that were timed.
        why: why it is dense, if it is.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    sparsity: float
    execution: str
    milliseconds: dict[str, float]
    why: str


@dataclass(frozen=True)
class AccelerationReport:
    """The ways to run the layers of a model, and the gain.

    Attributes:
        layers: linear layers and convolutions, in the model's order.
        compaction: what became of taking units out first.
        before, after: milliseconds of one run of the model on the example inputs, as it was and as it is now.
    """

    layers: tuple[LayerAcceleration, ...]
    compaction: str
    before: float
    after: float

    @property
    def speedup(self) -> float:
        """The speed of the model relative to the dense one."""
        return self.before / self.after

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers, strings and lists."""
        return {"speedup": self.speedup, **asdict(self)}

    @property
    def verdict(self) -> str:
        """The gain, in one sentence."""
        times = f"{self.before:.3g} ms before and {self.after:.3g} ms after"
        return f"One run takes {times}: {self.speedup:.2f} times as fast."

    def __str__(self) -> str:
        ways = list(dict.fromkeys(way for layer in self.layers for way in layer.milliseconds))
        rows = [["layer", "shape", "runs as", "zeros", *(f"{way}, ms" for way in ways)]]
        for layer in self.layers:
            times = (f"{layer.milliseconds[way]:.3g}" if way in layer.milliseconds else "–" for way in ways)
            shape = "×".join(map(str, layer.shape))
            rows.append([layer.name, shape, layer.execution, percent(layer.sparsity), *times])
        lines = aligned(rows, left=3)
        width = max(map(len, lines))
        notes = ["", *(layer.why for layer in self.layers)]
        lines = [f"{line:{width}}  {note}".rstrip() for line, note in zip(lines, notes, strict=True)]
        return "\n".join([*lines, "", self.compaction, self.verdict])
