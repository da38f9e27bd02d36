"""The report of an acceleration: a frozen record, with views as text and as a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torchlasso._core.readable import aligned, percent


@dataclass(frozen=True)
class LayerAcceleration:
    """The way to run one layer.

    Attributes:
        name: the name of the module.
        kind: the class of the module.
        shape: the shape of its weight, (outputs, inputs, ...).
        sparsity: the share of zeros.
        execution: the name of the chosen way.
        milliseconds: the time of all its calls in one run of the model, by the timed ways.
        why: the reason if it stays dense.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    sparsity: float
    execution: str
    milliseconds: dict[str, float]
    why: str


@dataclass(frozen=True)
class BackendTiming:
    """A way to run the whole model on batches of one size.

    Attributes:
        name: of the way; ``dense`` is the original, and ``layers`` has the chosen way for each layer.
        batch: rows per batch.
        milliseconds: the median time of a batch; None if it was not timed.
        speed: relative to the original, the median over rounds in which both ran; None if it was not timed.
        difference: of its outputs from the original's, as a share of their size (root mean squares).
        error: on the rows of the user's judge; None without one.
        chosen: whether it runs batches of this size.
        why: the reason if it was not timed.
    """

    name: str
    batch: int
    milliseconds: float | None
    speed: float | None
    difference: float | None
    error: float | None
    chosen: bool
    why: str


@dataclass(frozen=True)
class AccelerationReport:
    """The ways to run the layers of a model, and the gain.

    Attributes:
        layers: linear layers and convolutions, in the model's order; with several batch sizes, for the first of them.
        compaction: the outcome of the compaction.
        before, after: milliseconds of one run on the example inputs, or on batches of the first size, for the original
            and for the new model.
        backends: the ways to run the whole model, for each batch size; empty if only layers were tried.
    """

    layers: tuple[LayerAcceleration, ...]
    compaction: str
    before: float
    after: float
    backends: tuple[BackendTiming, ...] = ()

    @property
    def speedup(self) -> float:
        """The speed of the model relative to the dense one."""
        return self.before / self.after

    def to_dict(self) -> dict[str, Any]:
        """Convert to numbers, strings and lists."""
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
        lines = _noted(rows, 3, [layer.why for layer in self.layers])
        return "\n".join([*lines, "", *self._of_backends(), self.compaction, self.verdict])

    def _of_backends(self) -> list[str]:
        """The table of the ways to run the whole model; without them, no line."""
        if not self.backends:
            return []
        judged = any(each.error is not None for each in self.backends)
        rows = [["backend", "batch", "ms", "speed", "difference", *(["error"] if judged else [])]]
        for each in self.backends:
            cells = [
                each.name + " ←" * each.chosen,
                str(each.batch),
                "–" if each.milliseconds is None else f"{each.milliseconds:.3g}",
                "–" if each.speed is None else f"{each.speed:.2f}",
                "–" if each.difference is None else f"{each.difference:.1e}",
            ]
            rows.append([*cells, *(["–" if each.error is None else f"{each.error:.4g}"] if judged else [])])
        return [*_noted(rows, 1, [each.why for each in self.backends]), ""]


def _noted(rows: Sequence[Sequence[str]], left: int, notes: Sequence[str]) -> list[str]:
    """Format rows of cells as lines of text, the first as a heading, each of the others with a note."""
    lines = aligned(rows, left)
    width = max(map(len, lines))
    return [f"{line:{width}}  {note}".rstrip() for line, note in zip(lines, ["", *notes], strict=True)]
