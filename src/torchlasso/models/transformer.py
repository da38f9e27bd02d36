"""A small transformer encoder for texts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchlasso._core.arguments import check_whole
from torchlasso.models.parts import LARGEST, check_dropout, text_sizes
from torchlasso.models.registry import register

DEEPEST = 100  # the most layers


class Transformer(nn.Module):
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
        layer = nn.TransformerEncoderLayer(dim, heads, feedforward, dropout, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.head = nn.Linear(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        embedded = self.embedding(x)  # (batch, length, dim)
        is_unread = nn.functional.pad((embedded == 0).all(dim=2), (1, 0))  # (batch, 1 + length)
        rows = nn.functional.pad(embedded, (0, 0, 1, 0)) + self.places[: 1 + x.shape[1]]
        encoded = self.encoder(self.dropout(rows), src_key_padding_mask=is_unread)
        out: Tensor = self.head(encoded[:, 0])
        return out


@register("transformer")
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
    return Transformer(length, words, outputs, dim, heads, layers, feedforward, dropout)
