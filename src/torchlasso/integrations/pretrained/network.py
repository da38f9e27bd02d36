"""The network of a pretrained model for other classes, as a plain module from inputs to logits."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from torchlasso._core.extras import require
from torchlasso._core.text import first_line
from torchlasso.integrations.pretrained.folder import PREFIX, Pretrained

IMAGES, TEXTS = "AutoModelForImageClassification", "AutoModelForSequenceClassification"
POOLER = ".pooler."  # the part of a body that many models are saved without
DEFAULT_LABEL = "LABEL_{}"


class PretrainedNetwork(nn.Module):
    """A network of transformers that takes inputs by position and returns the logits.

    Args:
        network: a classifier of transformers.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def named(self, x: Tensor) -> dict[str, Tensor]:
        """Return the inputs by the names that transformers has for them."""
        return {"pixel_values": x}

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits, (n, classes), of images, (n, channels, height, width), or of texts, (n, tokens)."""
        logits: Tensor = self.network(**self.named(x)).logits
        return logits


class PretrainedTextNetwork(PretrainedNetwork):
    """A network of transformers for texts: rows of numbers of tokens, padded with 0.

    Args:
        network: a classifier of transformers.
        shift: how much larger the numbers of the tokens are here than in the network, whose padding may not be 0.
    """

    def __init__(self, network: nn.Module, shift: int = 0) -> None:
        super().__init__(network)
        config: Any = network.config
        self.shift, self.padding = shift, int(config.pad_token_id or 0)

    def named(self, x: Tensor) -> dict[str, Tensor]:
        """Return the inputs by the names that transformers has for them."""
        is_there = x != 0
        return {"input_ids": torch.where(is_there, x - self.shift, self.padding), "attention_mask": is_there.long()}


def build_network(
    model: Pretrained, classes: Sequence[str], *, weights: bool = True, shift: int = 0
) -> PretrainedNetwork:
    """Build the network of a pretrained model, with a head for these classes.

    The head is kept where the model has the same classes, whose order may differ, or as many without names. Otherwise
    it is new, with random weights.

    Args:
        model: the pretrained model.
        classes: the names of the classes, in the order of the logits.
        weights: whether to read its weights; without, all are random.
        shift: of the numbers of tokens, see :class:`PretrainedTextNetwork`.

    Raises:
        ValueError: the architecture is not known, or not a classifier; the weights do not fit it, or have changed.
    """
    theirs = require("transformers", "transformers", f"--model {PREFIX}{model.folder}")
    auto, config = getattr(theirs, class_of(model)), _config(model, classes)

    def wrapped(network: nn.Module) -> PretrainedNetwork:
        return PretrainedTextNetwork(network, shift) if model.reads_texts else PretrainedNetwork(network)

    with _quiet():
        if not weights:
            return wrapped(_built(auto, config, model))
        model.need_weights()
        head = _head(auto, config, model)
        try:
            network, found = auto.from_pretrained(
                model.folder,
                config=config,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
        except Exception as error:  # of any kind: it is the code of the architecture
            raise ValueError(f"{model.folder} cannot be read: {first_line(error)}") from error
    body = f"{network.base_model_prefix}."
    new = {*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])} - head
    lacking = {name for name in new if name.startswith(body) and POOLER not in name}
    if lacking:
        raise ValueError(f"{model.folder}: its weights do not fit its config.json; missing is {min(lacking)}")
    state = network.state_dict()
    is_new = any(state[name].shape[0] != len(_labels(model)) or name in found["missing_keys"] for name in head)
    order = _order(model, classes)
    with torch.no_grad():
        for name in () if is_new else head:
            if order is None:  # a head for as many other classes
                _reset(config, state[name])
            else:
                state[name].copy_(state[name][order].clone())
    return wrapped(network)


def class_of(model: Pretrained) -> str:
    """Return the class of transformers that builds a model from its configuration."""
    return TEXTS if model.reads_texts else IMAGES


def head_note(model: Pretrained, classes: Sequence[str]) -> str:
    """Say what becomes of the head of a pretrained model with these classes."""
    had = len(_labels(model))
    if not model.has_head:
        return f"The head for {len(classes)} classes is new."
    if had != len(classes):
        return f"The head for {had} classes is replaced by a new one for {len(classes)}."
    if _order(model, classes) is None:
        return f"The head is new, since its {had} classes have other names."
    return f"The head for the same {had} classes is kept."


def _config(model: Pretrained, classes: Sequence[str]) -> Any:
    theirs = require("transformers", "transformers", f"--model {PREFIX}{model.folder}")
    entries = {key: value for key, value in model.settings.items() if key != "num_labels"}
    entries["id2label"] = dict(enumerate(classes))
    entries["label2id"] = {name: index for index, name in enumerate(classes)}
    kind = entries.pop("model_type")
    if kind not in theirs.CONFIG_MAPPING:
        raise ValueError(f"{model.folder}: its model_type {kind!r} is not one of this version of transformers")
    try:
        return theirs.AutoConfig.for_model(kind, **entries)
    except Exception as error:  # of any kind: it is the code of the architecture
        raise ValueError(f"{model.folder}: its config.json cannot be used: {first_line(error)}") from error


def _built(auto: Any, config: Any, model: Pretrained) -> nn.Module:
    try:
        network: nn.Module = auto.from_config(config, trust_remote_code=False)
    except Exception as error:  # of any kind: it is the code of the architecture
        kind = f"{model.settings['model_type']!r}"
        raise ValueError(
            f"{model.folder}: {kind} cannot classify {'texts' if model.reads_texts else 'images'}: {first_line(error)}"
        ) from error
    return network


def _head(auto: Any, config: Any, model: Pretrained) -> set[str]:
    """Return the names of the tensors whose size follows the number of classes."""
    larger = type(config).from_dict({**config.to_dict(), "id2label": dict(enumerate("x" * (config.num_labels + 1)))})
    with torch.device("meta"):
        one, other = (_built(auto, each, model).state_dict() for each in (config, larger))
    return {name for name, w in one.items() if w.shape != other[name].shape}


def _labels(model: Pretrained) -> list[str]:
    """Return the names of the classes of the pretrained model."""
    labels = model.settings.get("id2label")
    if not isinstance(labels, dict):
        return [DEFAULT_LABEL.format(i) for i in range(int(model.settings.get("num_labels", 2)))]
    return [str(labels[key]) for key in sorted(labels, key=int)]


def _order(model: Pretrained, classes: Sequence[str]) -> list[int] | None:
    """Return the class of the pretrained model for each class; None where they are others."""
    labels = _labels(model)
    if sorted(labels) == sorted(classes):
        return [labels.index(name) for name in classes]
    is_nameless = labels == [DEFAULT_LABEL.format(i) for i in range(len(classes))]
    return list(range(len(classes))) if is_nameless else None


def _reset(config: Any, w: Tensor) -> None:
    """Draw new weights for a tensor of the head."""
    if w.dim() > 1:
        w.normal_(std=getattr(config, "initializer_range", 0.02))
    else:
        w.zero_()


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the messages and the bars of transformers, whose content the caller says itself."""
    from transformers.utils import logging as theirs

    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.CRITICAL)
    theirs.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()  # type: ignore[no-untyped-call]
