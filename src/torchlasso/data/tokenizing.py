"""Texts as numbers: by words of the training rows, or by a tokenizer of Hugging Face from a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchlasso.data.frame import Array
from torchlasso.data.text_options import TextOptions
from torchlasso.data.texts import TextRows, Texts, as_array
from torchlasso.data.tokenizers_json import (
    RARE,
    content_of,
    guarded,
    library_version,
    loaded_tokenizer,
    padded_by_zero,
    read_tokenizer,
    trained_words,
)
from torchlasso.data.tokens import TokenCounts, Tokens
from torchlasso.training.token_rows import TokenRows

MOST_GAPS = 1000  # numbers without a token


@dataclass(frozen=True)
class TextEncoding:
    """The numbers that the words of texts become, as learned from the training rows.

    By words: text is in lower case, words and marks between spaces are separate, and each Chinese character is a word.
    The vocabulary has the words that occur at least twice in the training rows. The number 0 is padding, and stands for
    all other words, which are thus not read.

    Attributes:
        tokenizer: in the JSON of Hugging Face tokenizers; its number 0 is padding.
        longest: the most words, or tokens, of a text; later ones are not read.
        columns: the columns of a table that hold the texts.
        kept: the numbers of the tokenizer that are read, increasing from 0 on, where it needs others too to divide a
            text, as one of pieces does; they are numbered anew, and others become 0. () if its numbers stay.
        typical: the words of a training text that are read, on average; 0 if that is not known.

    >>> texts = Texts(np.array(["A cat, a dog.", "a cat"], dtype=object))
    >>> encoding = TextEncoding.fit(texts, TextOptions(max_length=5))
    >>> encoding.vocabulary, encoding(texts)[:]
    (('[PAD]', 'a', 'cat'), tensor([[1, 2, 0, 1, 0],
            [1, 2, 0, 0, 0]]))
    """

    tokenizer: str
    longest: int
    columns: tuple[str, ...] = ()
    kept: tuple[int, ...] = ()
    typical: int = field(default=0, metadata={"newer": True})  # records of earlier versions do not have it

    @classmethod
    def fit(cls, texts: TextRows, options: TextOptions) -> TextEncoding:
        """Learn the words of training texts, or read a tokenizer from its file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: no word occurs twice, or the file is not a tokenizer.
        """
        if options.file is not None:
            return cls(
                padded_by_zero(read_tokenizer(str(options.file)), str(options.file)), options.max_length, texts.columns
            )
        how = ["words", options.vocabulary, library_version()]
        made = texts.learned(how, lambda: {"tokenizer": trained_words(texts, options.vocabulary)})
        found = cls(made["tokenizer"], options.max_length, texts.columns)
        if found.words < 2:
            raise ValueError(f"no word occurs at least {RARE} times in the training texts, so nothing can be learned")
        return found

    @property
    def is_of_words(self) -> bool:
        """True if each number is one word, whatever stands beside it, so that words can be left out."""
        return bool(self._content["model"].get("type") == "WordLevel")

    @cached_property
    def _content(self) -> dict[str, Any]:
        return content_of(self.tokenizer, "the tokenizer")

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The words, or tokens, that are read, in the order of their numbers."""
        every = self._every
        if self.kept and not (self.kept[0] == 0 and max(self.kept) < len(every) and _is_increasing(self.kept)):
            raise ValueError(f"the numbers that are read must increase from 0 to at most {len(every) - 1:,}")
        return tuple(every[number] for number in self.kept) if self.kept else every

    @property
    def renumbered(self) -> Tensor:
        """The new number of each number of the tokenizer, 0 for those that are not read, int32 (tokens,)."""
        found = torch.zeros(len(self._every), dtype=torch.int32)
        found[torch.tensor(self.kept, dtype=torch.long)] = torch.arange(len(self.kept), dtype=torch.int32)
        return found

    @cached_property
    def _every(self) -> tuple[str, ...]:
        """The tokens of the tokenizer in the order of their numbers."""
        names = {number: name for name, number in loaded_tokenizer(self.tokenizer).get_vocab(True).items()}
        if max(names, default=0) > MOST_GAPS + 2 * len(names):  # of a file from somebody else
            raise ValueError(f"the tokenizer has {len(names):,} tokens, and the number {max(names):,} among theirs")
        return tuple(names.get(number, "") for number in range(max(names, default=0) + 1))

    @property
    def words(self) -> int:
        """The number of words of the vocabulary, with the padding."""
        return len(self.vocabulary)

    @property
    def shape(self) -> tuple[int, int]:
        """(length, words): the most words of a text, and the number of words of the vocabulary."""
        return self.longest, self.words

    def __call__(self, texts: Texts) -> TokenRows:
        """Return the numbers of the words of texts in memory.

        Raises:
            ValueError: the tokenizer fails, or returns numbers beyond its vocabulary.
        """
        return texts.tokenised(self)[0]

    @property
    def state(self) -> list[Any]:
        """All that the numbers of words depend on, for keys of the cache."""
        return [library_version(), self.tokenizer, self.longest, self.kept]

    def tokenise(self, texts: list[str]) -> Tokens:
        """Return the numbers of the words of some texts, which are tokenised at once.

        Raises:
            ValueError: the tokenizer fails, or returns numbers beyond its vocabulary.
        """
        tokenizer = loaded_tokenizer(self.tokenizer)
        guarded("the tokenizer", partial(tokenizer.enable_truncation, self.longest))
        numbers, read, written = list[Array](), list[int](), list[int]()
        for found in guarded("the tokenizer", partial(tokenizer.encode_batch_fast, texts)):
            ids = found.ids
            numbers.append(np.array(ids, dtype=np.int32))
            more = (len(each.ids) - sum(each.special_tokens_mask) for each in found.overflowing)
            read.append(len(ids))
            written.append(len(ids) + sum(more))
        values = np.concatenate(numbers) if numbers else np.zeros(0, dtype=np.int32)
        if len(values) and not 0 <= values.min() <= values.max() < len(self._every):
            raise ValueError(
                f"the tokenizer gives the number {values.max()}, and its vocabulary has {len(self._every):,} tokens"
            )
        if self.kept:
            values = self.renumbered.numpy()[values]
        of = np.repeat(np.arange(len(texts)), read)
        known = np.bincount(of[values != 0], minlength=len(texts))
        return Tokens(values, np.array(read, dtype=np.int64), known, np.array(written, dtype=np.int64))

    def notes(self, counts: TokenCounts) -> list[str]:
        """Say what is not read of texts."""
        return counts.notes(self.longest, self.noun, of_words=self.is_of_words)

    def numbers_of(self, texts: Sequence[str]) -> list[int]:
        """Return the first number of each text, 0 for one without words."""
        rows = self(Texts(as_array([*texts])))
        first = rows.values[rows.starts.clamp_max(max(0, len(rows.values) - 1))] if len(rows.values) else rows.starts
        return torch.where(rows.lengths > 0, first, 0).tolist()

    @property
    def padded(self) -> str:
        """The tokenizer for use elsewhere, in JSON: it cuts texts that are too long, and pads a batch of texts."""
        content = json.loads(self.tokenizer)
        cut = {"direction": "Right", "max_length": self.longest, "strategy": "LongestFirst", "stride": 0}
        pad = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
        content["truncation"] = cut
        content["padding"] = {**pad, "pad_type_id": 0, "pad_token": self._every[0]}
        return json.dumps(content, ensure_ascii=False, indent=1)

    @property
    def noun(self) -> str:
        """The name of what a number stands for, in the plural."""
        return "words" if self.is_of_words else "tokens"

    def with_words(self, kept: Tensor) -> TextEncoding:
        """Return the encoding with some words only, numbered anew in their order.

        Args:
            kept: the numbers of the words that stay, increasing, from 0 on.

        Raises:
            ValueError: there are no such words.

        >>> texts = Texts(np.array(["a cat", "a cat"], dtype=object))
        >>> TextEncoding.fit(texts, TextOptions()).with_words(torch.tensor([0, 2])).vocabulary
        ('[PAD]', 'cat')
        """
        numbers = kept.tolist()
        if not numbers or numbers[0] != 0 or numbers[-1] >= self.words or not _is_increasing(numbers):
            raise ValueError(f"the words that stay must be increasing numbers from 0 to {self.words - 1:,}")
        if not self.is_of_words:
            return replace(self, kept=tuple(self.kept[i] for i in numbers) if self.kept else tuple(numbers))
        content = json.loads(self.tokenizer)
        content["model"]["vocab"] = {self.vocabulary[number]: place for place, number in enumerate(numbers)}
        return replace(self, tokenizer=json.dumps(content, ensure_ascii=False))


def _is_increasing(numbers: Sequence[int]) -> bool:
    return all(one < other for one, other in pairwise(numbers))
