"""Embeddings of the categories of a table, in front of any model of tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from torchlasso._core.arguments import check_whole
from torchlasso.models.parts import LARGEST

WIDEST = 600  # numbers of an embedding
START = 0.01  # the deviation at the start, as in fastai: small, so that a category does not win by its size alone


def embedding_size(rows: int) -> int:
    """Return the numbers of an embedding of a column with so many rows: min(600, 1.6 · rows^0.56), rounded.

    Source: ``emb_sz_rule`` of fastai (Howard and Gugger 2020), found by trials on tables.

    >>> [embedding_size(rows) for rows in (3, 10, 1000)]
    [3, 6, 77]
    """
    return min(WIDEST, round(1.6 * math.exp(0.56 * math.log(rows))))


class EmbeddedCategories(nn.Module):
    """A model of tables of which some columns hold numbers of categories.

    A row of a table is (columns,). Each column of ``rows`` holds whole numbers, from 0 on: rows of an embedding. The
    model gets the other columns, and then the embeddings, side by side. The first row of each embedding, for all values
    without a row of their own, starts as 0, the mean of the others.

    Args:
        columns: of a row.
        rows: the rows of the embedding of each column of categories, by its place.
        build: (number of inputs) ↦ the model behind the embeddings.
    """

    numbers: Tensor

    def __init__(self, columns: int, rows: Mapping[int, int], build: Callable[[int], nn.Module]) -> None:
        super().__init__()
        for count in rows.values():
            check_whole("the rows of an embedding", count, most=LARGEST)
        numbers = [place for place in range(columns) if place not in rows]
        self.places = tuple(rows)
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.int64), persistent=False)
        embeddings = [nn.Embedding(count, embedding_size(count)) for count in rows.values()]
        with torch.no_grad():
            for embedding in embeddings:
                nn.init.trunc_normal_(embedding.weight, std=START)
                embedding.weight[0] = 0.0
        self.embeddings = nn.ModuleList(embeddings)
        self.network = build(len(numbers) + sum(embedding_size(count) for count in rows.values()))

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, self.numbers]] if len(self.numbers) else []  # (batch, numbers)
        for place, embedding in zip(self.places, cast("Iterable[nn.Embedding]", self.embeddings), strict=True):
            codes = x[:, place].long().clamp(0, embedding.num_embeddings - 1)
            parts.append(embedding(codes))  # (batch, numbers of the embedding)
        out: Tensor = self.network(torch.cat(parts, dim=1))
        return out
