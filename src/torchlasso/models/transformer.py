"""A small transformer encoder for texts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchlasso._core.arguments import check_whole
from torchlasso.models.parts import LARGEST, check_dropout, text_sizes
from torchlasso.models.registry import register

DEEPEST = 100  # the most layers


class EncoderLayer(nn.Module):
    """Attention among the words of a text and two linear layers for each word, both added to the input.

    The linear layers before and behind the attention are separate, so that heads can be removed.
    """

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, feedforward), nn.Linear(feedforward, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, is_read: Tensor) -> Tensor:
        """Encode words, (batch, length, dim); ``is_read``: which of them others may see, (batch, 1, 1, length)."""
        y = self.norm1(x)
        query, key, value = (
            layer(y).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )  # (batch, heads, length, size)
        seen = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=is_read)
        x = x + self.dropout(self.out(seen.transpose(1, 2).flatten(2)))
        out: Tensor = x + self.dropout(self.fc2(torch.relu(self.fc1(self.norm2(x)))))
        return out


class Encoder(nn.Module):
    """Embedded words and places, encoder layers, and a linear layer on a place of its own in front of the text.

    A text is a row of numbers of words, (batch, length); the number 0 stands for padding and for words that are not
    read. Words whose embedding is zero are masked in the attention, as padding is.
    """

    def __init__(
        self, length: int, words: int, outputs: int, dim: int, heads: int, layers: int, feedforward: int, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, dim, padding_idx=0)
        self.places = nn.Parameter(0.02 * torch.randn(1 + length, dim))  # the first is that of the summary
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(EncoderLayer(dim, heads, feedforward, dropout) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        embedded = self.embedding(x)  # (batch, length, dim)
        is_read = nn.functional.pad((embedded != 0).any(dim=2), (1, 0), value=True)  # (batch, 1 + length)
        y = self.dropout(nn.functional.pad(embedded, (0, 0, 1, 0)) + self.places[: 1 + x.shape[1]])
        for layer in self.layers:
            y = layer(y, is_read[:, None, None])
        out: Tensor = self.head(self.norm(y[:, 0]))
        return out


@register("transformer", of_texts=True)
def transformer(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    dim: int = 128,
    heads: int = 4,
    layers: int = 2,
    feedforward: int = 256,
    dropout: float = 0.1,
) -> nn.Module:
    """Build a transformer encoder for texts: ``layers`` layers of ``heads`` heads, on embeddings of ``dim`` numbers.

    The inputs are texts, (length, words): rows of numbers below ``words``, at most ``length`` of them, padded with 0.
    Source: Vaswani et al., Attention is all you need, 2017, with the norms before each part (Xiong et al. 2020),
    learned places, and the outputs at a place in front of the text (Devlin et al. 2019).

    >>> model = transformer((50, 1000), 8)
    >>> model(torch.tensor([[4, 7, 0], [9, 9, 2]])).shape
    torch.Size([2, 8])
    """
    length, words = text_sizes("transformer", input_shape)
    for name, value in (("dim", dim), ("heads", heads), ("feedforward", feedforward)):
        check_whole(f"model 'transformer': {name}", value, most=LARGEST)
    check_whole("model 'transformer': layers", layers, most=DEEPEST)
    if dim % heads:
        raise ValueError(f"model 'transformer': dim must be a multiple of heads; got {dim} and {heads}")
    check_dropout("transformer", dropout)
    return Encoder(length, words, outputs, dim, heads, layers, feedforward, dropout)
