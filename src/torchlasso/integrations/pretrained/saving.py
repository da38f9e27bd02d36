"""The folder of a fine-tuned model, which transformers reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from torchlasso._core.files import write_json, write_text
from torchlasso.integrations.pretrained.folder import CONFIG, PROCESSOR, TOKENIZER, TOKENIZER_CONFIG, Pretrained
from torchlasso.integrations.pretrained.network import class_of

PLAIN, OWN = "model.safetensors", "torchlasso.safetensors"
FILES = (CONFIG, PROCESSOR, TOKENIZER, TOKENIZER_CONFIG, PLAIN, OWN)


def save_network(
    network: nn.Module,
    model: Pretrained,
    folder: Path,
    *,
    is_described: bool,
    write: Callable[[Path], None],
) -> str:
    """Write the folder of a network: its configuration, the preparation of its inputs, and its weights.

    Args:
        network: of transformers.
        model: the pretrained model that it was.
        folder: is made if necessary.
        is_described: whether its configuration describes its sizes, so that ``from_pretrained`` reads the folder. If
            not, the weights have a name of their own, so that nothing reads them as those of another model.
        write: writes the weights to a file.

    Returns:
        The line of Python that reads the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = json.loads(network.config.to_json_string(use_diff=False))  # type: ignore[operator, union-attr]
    config["architectures"] = [type(network).__name__]
    write_json(folder / CONFIG, config)
    write_text(folder / (TOKENIZER_CONFIG if model.reads_texts else PROCESSOR), model.processor)
    if model.tokenizer is not None:
        write_text(folder / TOKENIZER, model.tokenizer)
    file, other = (PLAIN, OWN) if is_described else (OWN, PLAIN)
    (folder / other).unlink(missing_ok=True)
    write(folder / file)
    if is_described:
        return f"model = {class_of(model)}.from_pretrained({str(folder)!r})"
    full = f"{class_of(model)}.from_config(AutoConfig.from_pretrained({str(folder)!r}))"
    return f"model = {full}; torchlasso.load({str(folder / OWN)!r}, into=model)"
