"""The numbers of the words of some texts, and counts of them."""

from __future__ import annotations

from dataclasses import dataclass

from torchlasso._core.readable import percent
from torchlasso.data.frame import Array


@dataclass(frozen=True)
class Tokens:
    """The numbers of the words of some texts.

    Attributes:
        values: of all texts, one after the other, int32.
        read: how many of them are of each text, (n,), int64.
        known: how many of these are words of the vocabulary, (n,), int64.
        written: the words of each text before it was cut, (n,), int64.
    """

    values: Array
    read: Array
    known: Array
    written: Array


@dataclass(frozen=True)
class TokenCounts:
    """Counts of the words of all texts.

    Attributes:
        texts: their number.
        read: the words that are read.
        known: those of them that are in the vocabulary.
        cut: the texts that have more words than are read.
        most: the most words of a text.
        unread: the texts without a word of the vocabulary.
    """

    texts: int = 0
    read: int = 0
    known: int = 0
    cut: int = 0
    most: int = 0
    unread: int = 0

    @classmethod
    def of(cls, read: Array, known: Array, written: Array) -> TokenCounts:
        """Count the words of some texts; the arguments are as in :class:`Tokens`."""
        return cls(
            len(read),
            int(read.sum()),
            int(known.sum()),
            int((written > read).sum()),
            int(written.max(initial=0)),
            int((known == 0).sum()),
        )

    def __add__(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(
            self.texts + other.texts,
            self.read + other.read,
            self.known + other.known,
            self.cut + other.cut,
            max(self.most, other.most),
            self.unread + other.unread,
        )

    def notes(self, longest: int, noun: str, *, of_words: bool) -> list[str]:
        """Say what is not read.

        Args:
            longest: the most words that are read of a text.
            noun: the name of the words.
            of_words: whether 0 stands for words that are not in the vocabulary.
        """
        found = list[str]()
        if self.cut:
            which = "1 text has" if self.cut == 1 else f"{self.cut:,} texts have"
            found.append(f"{which} more than {longest:,} {noun}, at most {self.most:,}; the rest is not read")
        if of_words and self.known < self.read:
            share = percent(1 - self.known / self.read)
            found.append(f"{share} of the words are not in the vocabulary, and are not read")
        if self.unread:
            what = "1 text has" if self.unread == 1 else f"{self.unread:,} texts have"
            found.append(f"{what} no word of the vocabulary; the prediction is that for an empty text")
        return found
