"""Folders of models of transformers that became smaller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchlasso._core.arguments import shown
from torchlasso._core.extras import require
from torchlasso._core.running import ExampleInputs
from torchlasso.compaction.config import UNTRUE, update_config_
from torchlasso.integrations.pretrained.saving import OWN, PLAIN
from torchlasso.storage import save

try:
    from transformers import PreTrainedModel
except ModuleNotFoundError:
    require("transformers", "transformers", "torchlasso.integrations.transformers")
    raise


def save_small(model: PreTrainedModel, folder: str | Path, example_inputs: ExampleInputs, **parts: Any) -> str:
    """Write the folder of a model of transformers that was made smaller, and return the line of Python that reads it.

    If a configuration can describe the sizes, ``from_pretrained`` reads the folder. Otherwise layers have different
    widths, the weights are in ``torchlasso.safetensors``, and the line loads them with :func:`torchlasso.load`.

    Args:
        model: the model, as :func:`torchlasso.compact` returns it.
        folder: is made if necessary.
        example_inputs: see :func:`torchlasso.compact`.
        parts: anything else with ``save_pretrained`` for the folder, such as ``tokenizer=tokenizer``.

    Raises:
        TypeError: the model is not one of transformers.
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"save_small: model must be a PreTrainedModel of transformers; got {shown(model)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    is_described = update_config_(model, example_inputs) != UNTRUE
    (folder / (OWN if is_described else PLAIN)).unlink(missing_ok=True)
    for part in parts.values():
        part.save_pretrained(folder)
    name = type(model).__name__
    if is_described:
        model.save_pretrained(folder)
        return f"model = {name}.from_pretrained({str(folder)!r})"
    model.config.save_pretrained(folder)
    save(model, folder / OWN)
    built = f"{name}(AutoConfig.from_pretrained({str(folder)!r}))"
    return f"model = {built}; torchlasso.load({str(folder / OWN)!r}, into=model)"
