"""Rows of texts as they were read, and the interface of those that stay on a disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np
import torch

from torchlasso.data.frame import Array
from torchlasso.data.messages import listed
from torchlasso.data.stored.tokens import StoredTokens
from torchlasso.data.tokens import TokenCounts, Tokens
from torchlasso.training.token_rows import TokenRows

AT_ONCE, LETTERS = 4096, 1 << 20  # texts, and letters in them, that are tokenised at once


class Tokeniser(Protocol):
    """The conversion of texts to numbers of words."""

    @property
    def longest(self) -> int:
        """The most numbers of a text."""

    @property
    def state(self) -> list[Any]:
        """All that the numbers of words depend on, for keys of the cache."""

    def tokenise(self, texts: list[str], /) -> Tokens:
        """Return the numbers of the words of some texts."""


class TextRows(ABC):
    """Rows of texts.

    Attributes:
        columns: the columns that they are of; () if they have none, as in a file of lines.
    """

    columns: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def rows(self, index: Array) -> TextRows:
        """Select rows by their numbers."""

    @abstractmethod
    def batches(self) -> Iterator[list[str]]:
        """Yield all texts, some at a time, in the order in which they are stored."""

    @abstractmethod
    def learned(self, how: list[Any], learn: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what is learned from the texts, which rows on a disk learn once; ``how`` is part of its key."""

    @abstractmethod
    def tokenised(self, tokeniser: Tokeniser) -> tuple[TokenRows | StoredTokens, TokenCounts]:
        """Return the numbers of the words, and counts of them."""

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self.batches())

    def first(self, count: int) -> list[str]:
        """Return the first texts."""
        return list(islice(self, count))


@dataclass(frozen=True)
class Texts(TextRows):
    """Texts in memory.

    Attributes:
        values: the texts, (n,), of Python strings.
        columns: the columns that they are of; () if they have none, as in a file of lines.

    >>> texts = Texts(np.array(["a cat", "two dogs"], dtype=object), ("text",))
    >>> len(texts), texts.rows(np.array([1])).values.tolist()
    (2, ['two dogs'])
    """

    values: Array
    columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, index: Array) -> Texts:
        return Texts(self.values[index], self.columns)

    def batches(self) -> Iterator[list[str]]:
        return in_pieces(self.values)

    def learned(self, how: list[Any], learn: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return learn()

    def tokenised(self, tokeniser: Tokeniser) -> tuple[TokenRows, TokenCounts]:
        values, lengths = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int64)]
        counts = TokenCounts()
        for some in self.batches():
            found = tokeniser.tokenise(some)
            values.append(found.values)
            lengths.append(found.read)
            counts += TokenCounts.of(found.read, found.known, found.written)
        ends = torch.from_numpy(np.concatenate(lengths)).cumsum(0)
        return TokenRows(torch.from_numpy(np.concatenate(values)), ends, tokeniser.longest), counts


def in_pieces(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield texts, as many at a time as are tokenised at once.

    >>> [len(some) for some in in_pieces(["a" * LETTERS, "b", "c"])]
    [1, 2]
    """
    held, letters = list[str](), 0
    for text in texts:
        held.append(text)
        letters += len(text)
        if len(held) == AT_ONCE or letters >= LETTERS:
            yield held
            held, letters = [], 0
    if held:
        yield held


def join_texts(parts: Sequence[TextRows], origins: Sequence[str]) -> Texts:
    """Join the rows of several files in memory.

    Raises:
        ValueError: a file has other columns of texts than the first one.
    """
    first = parts[0]
    for part, origin in zip(parts, origins, strict=True):
        if part.columns != first.columns:
            raise ValueError(f"{origin}: its texts are of {_named(part)}, in {origins[0]} of {_named(first)}")
    return Texts(as_array([text for part in parts for text in part]), first.columns)


def as_array(texts: list[str]) -> Array:
    """Return texts as an array of Python strings."""
    values = np.empty(len(texts), dtype=object)
    values[:] = texts
    return values


def _named(texts: TextRows) -> str:
    return f"column {listed(texts.columns)}" if texts.columns else "a file of lines"
