"""Networks for sequences and sets in sizes that train in seconds: attention, recurrence, graphs and embeddings."""

from __future__ import annotations

import math

import tasks
import torch
from kinds_of_tables import layers
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


def encoder(width: int, depth: int = 1) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)


class VisionTransformer(nn.Module):
    """A vision transformer whose class token and positions start from N(0, 1) (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 17, width))
        self.encoder, self.norm, self.head = encoder(width, 2), nn.LayerNorm(width), nn.Linear(width, tasks.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).mT  # (rows, 16, width)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.positions
        return self.head(self.norm(self.encoder(tokens)[:, 0]))


class FeatureTokens(nn.Module):
    """A transformer for tables: a token for each column (Gorishniy et al. 2021)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.weight, self.shift = (nn.Parameter(torch.randn(64, width)) for _ in range(2))
        self.token = nn.Parameter(torch.randn(width))
        self.encoder, self.head = encoder(width), nn.Linear(width, tasks.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        columns = x[..., None] * self.weight + self.shift
        tokens = torch.cat([self.token.expand(len(x), 1, -1), columns], 1)
        return self.head(self.encoder(tokens)[:, 0])


class Perceiver(nn.Module):
    """Latents from N(0, 1) that attend to a set of pixels, and then to each other (Jaegle et al. 2021)."""

    def __init__(self, width: int = 32, count: int = 8) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(count, width))
        self.inputs = layers(3, width, width)
        self.read = nn.MultiheadAttention(width, 4, batch_first=True)
        self.encoder, self.norm, self.head = (
            encoder(width),
            nn.LayerNorm(width),
            nn.Linear(count * width, tasks.CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        pixels, latents = self.inputs(x), self.latents.expand(len(x), -1, -1)
        latents = latents + self.read(self.norm(latents), pixels, pixels, need_weights=False)[0]
        return self.head(self.encoder(latents).flatten(1))


class MixerBlock(nn.Module):
    """Perceptrons over the places and over the channels in turn (Tolstikhin et al. 2021)."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.over_places = layers(places, 32, places, act=nn.GELU)
        self.over_channels = nn.Sequential(nn.LayerNorm(width), layers(width, 64, width, act=nn.GELU))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.over_places(self.norm(x).mT).mT
        return x + self.over_channels(x)


class Mixer(nn.Module):
    """An MLP-mixer."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.blocks = nn.Sequential(*(MixerBlock(16, width) for _ in range(2)))
        self.head = nn.Linear(width, tasks.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patches(x).flatten(2).mT).mean(1))


class GraphAttention(nn.Module):
    """Attention of each node to itself and its neighbours (Veličković et al. 2018)."""

    def __init__(self, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.far = nn.Buffer(~tasks.neighbours())
        self.inputs, self.head = nn.Linear(1 + tasks.COLOURS, width), nn.Linear(width, tasks.COLOURS)
        self.values = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.scores = nn.ParameterList([torch.randn(width, 2) / math.sqrt(width) for _ in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.inputs(x).relu()
        for value, score in zip(self.values, self.scores, strict=True):
            inside = value(x)
            to, of = (inside @ score).unbind(2)  # (rows, nodes) each
            attention = F.leaky_relu(to[:, :, None] + of[:, None]).masked_fill(self.far, -math.inf).softmax(2)
            x = x + (attention @ inside).relu()
        return self.head(x)


class Recurrent(nn.Module):
    """A recurrent layer, and a linear layer on the mean of its outputs."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, tasks.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0].mean(1))


def gru() -> nn.Module:
    """Build a GRU."""
    return Recurrent(nn.GRU(8, 64, batch_first=True), 64)


def bilstm() -> nn.Module:
    """Build an LSTM in both directions."""
    return Recurrent(nn.LSTM(8, 32, batch_first=True, bidirectional=True), 64)


class TemporalConvolutions(nn.Module):
    """Dilated causal convolutions with weight normalisation (Bai, Kolter and Koltun 2018)."""

    def __init__(self, width: int = 24, depth: int = 5) -> None:
        super().__init__()
        made = [nn.Conv1d(width if layer else 1, width, 3, dilation=2**layer) for layer in range(depth)]
        self.convs = nn.ModuleList([weight_norm(conv) for conv in made])
        self.head = nn.Linear(width, tasks.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for layer, conv in enumerate(self.convs):
            inside = F.relu(conv(F.pad(x, (2 * 2**layer, 0))))
            x = x + inside if layer else inside
        return self.head(x[:, :, -1])


def embedding_bag(width: int = 16) -> nn.Sequential:
    """Build a classifier of the mean of embeddings from N(0, 1)."""
    return nn.Sequential(nn.EmbeddingBag(tasks.WORDS, width), layers(width, 32, 8))


class LanguageModel(nn.Module):
    """A GRU that predicts the next token, with one table for inputs and outputs, or with two."""

    def __init__(self, tied: bool, width: int = 48) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tasks.TOKENS, width)
        self.layer, self.head = nn.GRU(width, width, batch_first=True), nn.Linear(width, tasks.TOKENS, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
            nn.init.normal_(self.embedding.weight, std=0.05)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(x))[0])


class Reverser(nn.Module):
    """A transformer with an encoder and a decoder (Vaswani et al. 2017), whose queries are trained."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(tasks.TOKENS, width), nn.Embedding(8, width)
        self.queries = nn.Parameter(0.02 * torch.randn(8, width))
        self.encoder = encoder(width)
        self.decoder = nn.TransformerDecoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(width, tasks.TOKENS)

    def forward(self, x: Tensor) -> Tensor:
        read = self.encoder(self.embedding(x) + self.positions.weight)
        return self.head(self.decoder(self.queries.expand(len(x), -1, -1), read))
