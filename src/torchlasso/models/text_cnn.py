"""The convolutional network for sentences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchlasso._core.arguments import check_whole
from torchlasso.models.parts import LARGEST, check_dropout, text_sizes
from torchlasso.models.registry import register

WIDTHS = (3, 4, 5)  # words that a filter sees, as in the paper
START = 0.25  # embeddings start between −0.25 and 0.25, as in the paper


class TextCNN(nn.Module):
    """Embedded words, filters over 3, 4 and 5 of them, the maximum of each filter over the text, and a linear layer.

    A text is a row of numbers of words, (batch, length); the number 0 stands for padding and for words that are not
    read, and has the embedding 0. Texts are padded with zeros by the width of each filter on both sides, so that every
    filter sees some padding: the outputs for a text do not depend on the length to which its batch is padded.
    """

    def __init__(self, words: int, outputs: int, dim: int, filters: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, dim, padding_idx=0)
        with torch.no_grad():
            self.embedding.weight[1:].uniform_(-START, START)
        self.convolutions = nn.ModuleList(nn.Conv1d(dim, filters, width, padding=width) for width in WIDTHS)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(filters * len(WIDTHS), outputs)

    def forward(self, x: Tensor) -> Tensor:
        embedded = self.embedding(x).transpose(1, 2)  # (batch, dim, length)
        found = [torch.relu(convolution(embedded)).amax(dim=2) for convolution in self.convolutions]
        out: Tensor = self.head(self.dropout(torch.cat(found, dim=1)))
        return out


@register("text-cnn", of_texts=True)
def text_cnn(
    input_shape: tuple[int, ...], outputs: int, *, dim: int = 128, filters: int = 100, dropout: float = 0.5
) -> nn.Module:
    """Build a network for texts: embeddings, ``filters`` filters of each of the widths 3, 4 and 5, and their maxima.

    The inputs are texts, (length, words): rows of numbers below ``words``, padded with 0. Source: Kim, Convolutional
    neural networks for sentence classification, 2014, in the version that learns its embeddings (CNN-rand; of 128
    numbers by default, where the paper has 300).

    >>> model = text_cnn((50, 1000), 8)
    >>> model(torch.tensor([[4, 7, 0], [9, 9, 2]])).shape
    torch.Size([2, 8])
    """
    _, words = text_sizes("text-cnn", input_shape)
    for name, value in (("dim", dim), ("filters", filters)):
        check_whole(f"model 'text-cnn': {name}", value, most=LARGEST)
    check_dropout("text-cnn", dropout)
    return TextCNN(words, outputs, dim, filters, dropout)
