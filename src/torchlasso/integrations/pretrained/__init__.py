"""Pretrained models of transformers: their folder, their network, and the folder of a fine-tuned one."""

from torchlasso.integrations.pretrained.folder import PREFIX, Pretrained, read_pretrained
from torchlasso.integrations.pretrained.images import ImagePreparation, image_preparation
from torchlasso.integrations.pretrained.network import (
    PretrainedNetwork,
    PretrainedTextNetwork,
    build_network,
    head_note,
)
from torchlasso.integrations.pretrained.saving import save_network

__all__ = [
    "PREFIX",
    "ImagePreparation",
    "Pretrained",
    "PretrainedNetwork",
    "PretrainedTextNetwork",
    "build_network",
    "head_note",
    "image_preparation",
    "read_pretrained",
    "save_network",
]
