"""Small versions of well-known architectures, with all of their structure and few channels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support import convolutional  # noqa: F401 (it registers its own)
from tests.support.architecture_parts import ARCHITECTURES, Example, architecture, images
from torchlasso import models

__all__ = ["ARCHITECTURES"]

# Without convolutions


class MixerBlock(nn.Module):
    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.over_tokens = nn.Sequential(nn.Linear(tokens, 10), nn.GELU(), nn.Linear(10, tokens))
        self.over_channels = nn.Sequential(nn.Linear(channels, 14), nn.GELU(), nn.Linear(14, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.over_tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return x + self.over_channels(self.norms[1](x))


class Mixer(nn.Module):
    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, 4, 4)
        self.blocks = nn.Sequential(MixerBlock(16, channels), MixerBlock(16, channels))
        self.norm, self.head = nn.LayerNorm(channels), nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.patches(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(dim=1))


@architecture("mlp-mixer")
def mlp_mixer() -> Example:
    return Mixer(), images(16)


class TextLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(20, 6), nn.LSTM(6, 8, batch_first=True)
        self.mlp, self.head = nn.Linear(8, 9), nn.Linear(9, 2)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(F.relu(self.mlp(self.lstm(self.embedding(words))[0][:, -1])))


@architecture("lstm")
def lstm() -> Example:
    return TextLSTM(), torch.randint(0, 20, (2, 7))


class TiedAutoencoder(nn.Module):
    """An autoencoder with one weight for encoding and decoding."""

    def __init__(self) -> None:
        super().__init__()
        self.outer, self.inner = nn.Linear(12, 9), nn.Linear(9, 6)
        self.shifts = nn.ParameterList([torch.zeros(9), torch.zeros(12)])

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.inner(torch.tanh(self.outer(x))))
        y = torch.tanh(F.linear(y, self.inner.weight.t(), self.shifts[0]))
        return F.linear(y, self.outer.weight.t(), self.shifts[1])


@architecture("tied-weights")
def tied_weights() -> Example:
    return TiedAutoencoder(), torch.randn(3, 12)


class FactorizedText(nn.Module):
    """An embedding that is also the output layer, with a narrower space between it and the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.into, self.out = nn.Embedding(20, 6), nn.Linear(6, 9), nn.Linear(9, 6)
        self.head = nn.Linear(6, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.out(F.gelu(self.into(self.embedding(words)))))


@architecture("tied-embedding")
def tied_embedding() -> Example:
    return FactorizedText(), torch.randint(0, 20, (2, 7))


# The library's own


def zoo(name: str) -> Example:
    if models.reads_texts(name):
        return models.build(name, (12, 20), 5, dim=8), torch.randint(0, 20, (2, 7))
    return models.build(name, (1, 28, 28), 10), images(28, 1)


for _name in models.names():
    architecture(f"zoo-{_name}")(partial(zoo, _name))


# From transformers, with random weights


def from_transformers(model: str, config: dict[str, Any], inputs: Callable[[], dict[str, Any]]) -> Example:
    with warnings.catch_warnings():  # its own modules, and those that it imports
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers", reason="transformers is not installed")
        cls = getattr(transformers, model)
        return cls(cls.config_class(**config)), inputs()


def words() -> dict[str, Any]:
    return {"input_ids": torch.randint(0, 50, (2, 7))}


def words_without_cache() -> dict[str, Any]:
    return words() | {"use_cache": False}


def pixels() -> dict[str, Any]:
    return {"pixel_values": images(8)}


SIZES = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 40}
# in two of them modules of a class are at several places; a trace takes as long as it has operators
TWO_LAYERS = {"num_hidden_layers": 2}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
TOKENS = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0}

FROM_TRANSFORMERS: dict[str, tuple[str, dict[str, Any], Callable[[], dict[str, Any]]]] = {
    "vit": ("ViTModel", {**SIZES, "image_size": 8, "patch_size": 4}, pixels),
    "bert": ("BertModel", {**SIZES, "vocab_size": 50, "max_position_embeddings": 16}, words),
    "gpt2": (
        "GPT2LMHeadModel",
        {**TOKENS, **NO_DROPOUT, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 16},
        words_without_cache,
    ),
    "llama": ("LlamaForCausalLM", {**SIZES, **TWO_LAYERS, **TOKENS, "num_key_value_heads": 2}, words_without_cache),
    "llama-longer-heads": (
        "LlamaForCausalLM",
        {**SIZES, **TOKENS, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 8},
        words_without_cache,
    ),
}
for _name, _how in FROM_TRANSFORMERS.items():
    architecture(_name)(partial(from_transformers, *_how))
