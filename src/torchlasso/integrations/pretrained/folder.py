"""The folder of a pretrained model: its configuration, its preparation of inputs, and its weights. No code is run."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchlasso._core.extras import require
from torchlasso._core.files import read_text
from torchlasso._core.text import first_line

PREFIX = "hf:"
CONFIG, PROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "*.safetensors"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
AT_ONCE = 1 << 22  # bytes


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model as a run keeps it: everything except its weights.

    Attributes:
        folder: the folder that has its weights.
        config: the text of its ``config.json``.
        processor: the text of its ``preprocessor_config.json``, or of ``tokenizer_config.json`` for texts.
        digest: the SHA-256 of its weights.
        tokenizer: the text of its ``tokenizer.json``; None for images.
    """

    folder: str
    config: str
    processor: str
    digest: str
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        for name in ("config", "processor"):
            _object(getattr(self, name), f"{name} of the pretrained model")
        if not isinstance(self.settings.get("model_type"), str):
            raise ValueError(f"{self.folder}: its {CONFIG} has no model_type")

    @property
    def settings(self) -> dict[str, Any]:
        """The entries of its configuration."""
        return _object(self.config, CONFIG)

    @property
    def reads_texts(self) -> bool:
        """True for a classifier of texts, False for one of images."""
        return self.tokenizer is not None

    @property
    def has_head(self) -> bool:
        """True if the model classifies already."""
        return any(str(name).endswith("Classification") for name in self.settings.get("architectures") or ())

    @property
    def is_there(self) -> bool:
        """True if the folder still has these weights."""
        found = _weights(Path(self.folder))
        return bool(found) and _digest(found) == self.digest

    def need_weights(self) -> None:
        """Raise ``ValueError`` if the folder does not have the same weights any more."""
        if not self.is_there:
            state = "has changed" if Path(self.folder).is_dir() else "is gone"
            raise ValueError(f"the pretrained model in {self.folder} {state} since the run began")


def read_pretrained(spec: str) -> Pretrained:
    """Read the folder that a text such as ``hf:FOLDER`` names, or download it if it is a name on the Hugging Face Hub.

    Raises:
        ValueError: there is no such folder; a file is missing or damaged; its weights are pickled; it needs code.
    """
    folder = _folder(spec.removeprefix(PREFIX))
    config = _read(folder, CONFIG)
    if "auto_map" in _object(config, str(folder / CONFIG)):
        raise ValueError(f"{folder / CONFIG} asks for code of its own (auto_map), which torchlasso never runs")
    weights = _weights(folder)
    if not weights:
        pickled = [file.name for pattern in PICKLED for file in folder.glob(pattern)]
        if pickled:
            raise ValueError(
                f"{folder} has pickled weights only ({pickled[0]}), which run code when they are read; load them where "
                "you trust them, and save them with save_pretrained, which writes model.safetensors"
            )
        raise ValueError(f"{folder} has no weights: model.safetensors is missing")
    if (folder / PROCESSOR).is_file():
        return Pretrained(str(folder), config, _read(folder, PROCESSOR), _digest(weights))
    if not (folder / TOKENIZER).is_file():
        raise ValueError(f"{folder} has neither {PROCESSOR}, for images, nor {TOKENIZER}, for texts")
    settings = _read(folder, TOKENIZER_CONFIG) if (folder / TOKENIZER_CONFIG).is_file() else "{}"
    return Pretrained(str(folder), config, settings, _digest(weights), _read(folder, TOKENIZER))


def _folder(name: str) -> Path:
    if not name:
        raise ValueError(f"--model {PREFIX}… must name a folder, or a model on the Hugging Face Hub")
    if Path(name).is_dir():
        return Path(name).resolve()  # a run may be resumed from elsewhere
    hub = require("huggingface_hub", "transformers", f"--model {PREFIX}{name}")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=["*.json", WEIGHTS]))
    except Exception as error:  # of any kind: no network, no such model, no permission
        raise ValueError(f"{name} is not a folder, and could not be had from the Hub: {first_line(error)}") from error


def _read(folder: Path, name: str) -> str:
    file = folder / name
    if not file.is_file():
        raise ValueError(f"{folder} has no {name}; a folder that save_pretrained wrote has one")
    text = read_text(file)
    _object(text, str(file))
    return text


def _object(text: str, origin: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{origin} is damaged: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{origin} is damaged: it is not an object")
    return found


def _weights(folder: Path) -> Sequence[Path]:
    return sorted(folder.glob(WEIGHTS))


def _digest(files: Sequence[Path]) -> str:
    return _digest_of(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@functools.lru_cache(maxsize=8)
def _digest_of(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Compute the digest of files; their sizes and times are there for the cache."""
    digest = hashlib.sha256()
    for file, _, _ in files:
        with file.open("rb") as opened:
            while part := opened.read(AT_ONCE):
                digest.update(part)
    return digest.hexdigest()
