"""Kinds of networks that are unlike each other, each with a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import kinds_of_images as images
import kinds_of_sequences as sequences
import kinds_of_tables as tables
import tasks
from torch import nn


class Kind(NamedTuple):
    """A network, which is made anew from torch's generator, and its task."""

    model: Callable[[], nn.Module]
    task: Callable[[], tasks.Task]


KINDS = {
    "mlp": Kind(tables.mlp, tasks.table),
    "mlp-scaled": Kind(tables.Scaled, tasks.table),
    "mlp-large-first": Kind(tables.large_first, tasks.table),
    "mixture-of-experts": Kind(tables.Experts, tasks.table),
    "lora": Kind(tables.lora, tasks.table),
    "rbf-network": Kind(tables.RadialBasis, tasks.table),
    "autoencoder": Kind(tables.autoencoder, tasks.reconstruction),
    "factorisation-machine": Kind(tables.FactorizationMachine, tasks.interactions),
    "matrix-factorisation": Kind(tables.MatrixFactorization, tasks.ratings),
    "fourier-features": Kind(tables.Fourier, tasks.waves),
    "locally-connected": Kind(images.LocallyConnected, tasks.images),
    "depthwise-separable": Kind(images.separable, tasks.images),
    "densenet": Kind(images.densenet, tasks.images),
    "resnet-zero-last": Kind(images.zero_residual, tasks.images),
    "fixup": Kind(images.fixup, tasks.images),
    "convnext": Kind(images.convnext, tasks.images),
    "film": Kind(images.Modulated, tasks.images),
    "u-net": Kind(images.UNet, tasks.denoising),
    "mlp-mixer": Kind(sequences.Mixer, tasks.images),
    "vit": Kind(sequences.VisionTransformer, tasks.images),
    "ft-transformer": Kind(sequences.FeatureTokens, tasks.table),
    "perceiver": Kind(sequences.Perceiver, tasks.pixels),
    "graph-attention": Kind(sequences.GraphAttention, tasks.loudest),
    "gru": Kind(sequences.gru, tasks.rows),
    "bidirectional-lstm": Kind(sequences.bilstm, tasks.rows),
    "tcn-weight-norm": Kind(sequences.TemporalConvolutions, tasks.signal),
    "embedding-bag": Kind(sequences.embedding_bag, tasks.texts),
    "language-model-tied": Kind(lambda: sequences.LanguageModel(True), tasks.next_tokens),
    "language-model-untied": Kind(lambda: sequences.LanguageModel(False), tasks.next_tokens),
    "encoder-decoder": Kind(sequences.Reverser, tasks.reversal),
}
