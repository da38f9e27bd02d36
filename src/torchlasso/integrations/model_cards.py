"""Model cards of sparse and compacted models: the figures that are counted, and what was measured."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from torch import nn

from torchlasso._core.arguments import is_number, shown
from torchlasso._core.readable import byte_size, percent
from torchlasso.compaction.resizing import Resizing
from torchlasso.diagnostics.report import report

PICTURE = "frontier.png"
TEMPLATE = """---
{{ card_data }}
---

# {{ name }}

{{ summary }}

| | |
|---|---|
{% for what, value in rows %}| {{ what }} | {{ value }} |
{% endfor %}
{% if picture %}
![Error over the share of weights that are left]({{ picture }})
{% endif %}
## Loading it

{{ loading }}
"""


def take_picture(frontier: str | Path | None, folder: Path) -> None:
    """Copy the picture of the frontier, if there is one, into the folder of a model.

    Raises:
        FileNotFoundError: there is no such picture.
    """
    if frontier is not None:
        if not Path(frontier).is_file():
            raise FileNotFoundError(f"save_pretrained: there is no picture {str(frontier)!r} of the frontier")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(frontier, folder / PICTURE)


def check_measured(measured: Any, name: str) -> None:
    """Raise ``TypeError`` unless the measurements are numbers or texts by name, or None."""
    is_named = isinstance(measured, Mapping) and all(
        isinstance(what, str) and (isinstance(value, str) or is_number(value)) for what, value in measured.items()
    )
    if measured is not None and not is_named:
        raise TypeError(f"{name}: measured must have a number or a text for each name; got {shown(measured)}")


def card_fields(
    model: nn.Module, loading: str, measured: Mapping[str, Any] | None, frontier: str | Path | None
) -> dict[str, Any]:
    """Return the values for the template of a card.

    Args:
        model: the model.
        loading: the section on how to load it.
        measured: name ↦ number or text.
        frontier: the picture of the frontier, if there is one.
    """
    return {
        "name": type(model).__name__,
        "summary": _summary(model),
        "rows": [*_sizes(model), *((_cell(name), _cell(value)) for name, value in (measured or {}).items())],
        "picture": PICTURE if frontier is not None else None,
        "loading": loading,
    }


def _sizes(model: nn.Module) -> list[tuple[str, str]]:
    """Return the rows of the card that are counted."""
    counted, cut = report(model), Resizing.of(model).tensors
    parameters = dict(model.named_parameters())
    full = sum(prod(cut.get(name, p.shape)) for name, p in parameters.items())
    weights = sum(layer.weights for layer in counted.layers)
    zeros = sum(layer.zeros for layer in counted.layers)
    rows = [("parameters", f"{counted.parameters:,}"), ("weights that are zero", f"{zeros:,} of {weights:,}")]
    if full > counted.parameters:
        rows.append(("parameters before units were removed", f"{full:,}"))
    return [*rows, ("size in memory", byte_size(counted.bytes))]


def _summary(model: nn.Module) -> str:
    """Return the first sentence of the card."""
    counted = report(model)
    zeros = percent(
        sum(layer.zeros for layer in counted.layers) / max(1, sum(layer.weights for layer in counted.layers))
    )
    smaller = ", and units without effect were removed" if Resizing.of(model).tensors else ""
    return f"A sparse model, trained with torchlasso: {zeros} of its weights are exactly zero{smaller}."


def _cell(value: Any) -> str:
    """Return a value for a table of Markdown."""
    text = f"{value:.6g}" if is_number(value) else str(value)
    return " ".join(text.split()).replace("|", "\\|")
