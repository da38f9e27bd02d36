"""Folders of models of transformers that became smaller."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchlasso._core.arguments import shown
from torchlasso._core.extras import require
from torchlasso._core.running import ExampleInputs
from torchlasso.compaction.config import UNTRUE, update_config_
from torchlasso.integrations.model_cards import TEMPLATE, card_fields, check_measured, take_picture
from torchlasso.integrations.pretrained.saving import OWN, PLAIN
from torchlasso.storage import save

try:
    from huggingface_hub import ModelCard, ModelCardData
    from transformers import PreTrainedModel
except ModuleNotFoundError:
    require("transformers", "transformers", "torchlasso.integrations.transformers")
    raise

CARD = "README.md"


def save_small(
    model: PreTrainedModel,
    folder: str | Path,
    example_inputs: ExampleInputs,
    *,
    measured: Mapping[str, Any] | None = None,
    frontier: str | Path | None = None,
    **parts: Any,
) -> str:
    """Write the folder of a model of transformers that was made smaller, and return the line of Python that reads it.

    If a configuration can describe the sizes, ``from_pretrained`` reads the folder. Otherwise layers have different
    widths, the weights are in ``torchlasso.safetensors``, and the line loads them with :func:`torchlasso.load`. A model
    card, ``README.md``, has the line, the sizes, and the measurements; an existing one stays. The folder is ready for
    ``huggingface_hub.upload_folder``.

    Args:
        model: the model, as :func:`torchlasso.compact` returns it.
        folder: is made if necessary.
        example_inputs: see :func:`torchlasso.compact`.
        measured: for the card: name ↦ number or text, such as ``{"test error": "1.8 %"}``.
        frontier: for the card: the file of a picture of the frontier, a PNG.
        parts: anything else with ``save_pretrained`` for the folder, such as ``tokenizer=tokenizer``.

    Raises:
        TypeError: the model is not one of transformers; the measurements are not numbers or texts by name.
        FileNotFoundError: there is no such picture.
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"save_small: model must be a PreTrainedModel of transformers; got {shown(model)}")
    check_measured(measured, "save_small")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    take_picture(frontier, folder)
    is_described = update_config_(model, example_inputs) != UNTRUE
    (folder / (OWN if is_described else PLAIN)).unlink(missing_ok=True)
    for part in parts.values():
        part.save_pretrained(folder)
    line = _line(model, str(folder), is_described)
    if is_described:
        model.save_pretrained(folder)
    else:
        model.config.save_pretrained(folder)
        save(model, folder / OWN)
    if not (folder / CARD).exists():
        data = ModelCardData(library_name="transformers", tags=["sparse", "torchlasso"])
        loading = f"```python\n{_line(model, 'FOLDER', is_described)}\n```"
        fields = card_fields(model, loading, measured, frontier)
        ModelCard.from_template(data, template_str=TEMPLATE, **fields).save(folder / CARD)
    return line


def _line(model: PreTrainedModel, folder: str, is_described: bool) -> str:
    """Return the line of Python that reads a folder."""
    name = type(model).__name__
    if is_described:
        return f"model = {name}.from_pretrained({folder!r})"
    built = f"{name}(AutoConfig.from_pretrained({folder!r}))"
    return f"model = {built}; torchlasso.load({str(Path(folder, OWN))!r}, into=model)"
