"""Texts as numbers: by words of the training rows, or by a tokenizer of Hugging Face from a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from torchlasso._core.extras import require
from torchlasso._core.readable import percent
from torchlasso._core.text import first_line
from torchlasso.data.frame import Array
from torchlasso.data.text_options import TextOptions
from torchlasso.data.texts import Texts
from torchlasso.training.token_rows import TokenRows

EXTRA = "text"
PAD = "[PAD]"  # padding, and all words that are not in the vocabulary
RARE = 2  # a word of the vocabulary occurs at least so often in the training rows
MOST_GAPS = 1000  # numbers without a token
AT_ONCE = 4096  # texts that are tokenised at once
T = TypeVar("T")


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

    >>> texts = Texts(np.array(["A cat, a dog.", "a cat"], dtype=object))
    >>> encoding = TextEncoding.fit(texts, TextOptions(max_length=5))
    >>> encoding.vocabulary, encoding(texts)[:]
    (('[PAD]', 'a', 'cat'), tensor([[1, 2, 0, 1, 0],
            [1, 2, 0, 0, 0]]))
    """

    tokenizer: str
    longest: int
    columns: tuple[str, ...] = ()

    @classmethod
    def fit(cls, texts: Texts, options: TextOptions) -> TextEncoding:
        """Learn the words of training texts, or read a tokenizer from its file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: no word occurs twice, or the file is not a tokenizer.
        """
        if options.file is not None:
            return cls(padded_by_zero(_read(str(options.file)), str(options.file)), options.max_length, texts.columns)
        made = _trained(texts.values, options.vocabulary)
        found = cls(made, options.max_length, texts.columns)
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
        """The words, or tokens, in the order of their numbers."""
        names = {number: name for name, number in _loaded(self.tokenizer).get_vocab(True).items()}
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
        """Return the numbers of the words of texts.

        Raises:
            ValueError: the tokenizer fails, or returns numbers beyond its vocabulary.
        """
        return self._encoded(texts.values)[0]

    def _encoded(self, values: Array) -> tuple[TokenRows, Array]:
        """Return the numbers of the words, and the number of words of each text before it was cut."""
        tokenizer = _loaded(self.tokenizer)
        parts, ends, lengths = list[Array](), list[int](), list[int]()
        total = 0
        _guarded("the tokenizer", partial(tokenizer.enable_truncation, self.longest))
        for start in range(0, len(values), AT_ONCE):
            texts = values[start : start + AT_ONCE].tolist()
            for found in _guarded("the tokenizer", partial(tokenizer.encode_batch, texts)):
                ids = found.ids
                parts.append(np.array(ids, dtype=np.int32))
                total += len(ids)
                ends.append(total)
                more = (len(each.ids) - sum(each.special_tokens_mask) for each in found.overflowing)
                lengths.append(len(ids) + sum(more))
        joined = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
        if len(joined) and not 0 <= joined.min() <= joined.max() < self.words:
            raise ValueError(
                f"the tokenizer gives the number {joined.max()}, and its vocabulary has {self.words:,} tokens"
            )
        rows = TokenRows(torch.from_numpy(joined), torch.tensor(ends, dtype=torch.int64), self.longest)
        return rows, np.array(lengths, dtype=np.int64)

    def numbers_of(self, texts: Sequence[str]) -> list[int]:
        """Return the first number of each text, 0 for one without words."""
        values = np.empty(len(texts), dtype=object)
        values[:] = texts
        rows = self(Texts(values))
        first = rows.values[rows.starts.clamp_max(max(0, len(rows.values) - 1))] if len(rows.values) else rows.starts
        return torch.where(rows.lengths > 0, first, 0).tolist()

    @property
    def padded(self) -> str:
        """The tokenizer for use elsewhere, in JSON: it cuts texts that are too long, and pads a batch of texts."""
        content = json.loads(self.tokenizer)
        cut = {"direction": "Right", "max_length": self.longest, "strategy": "LongestFirst", "stride": 0}
        pad = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
        content["truncation"] = cut
        content["padding"] = {**pad, "pad_type_id": 0, "pad_token": self.vocabulary[0]}
        return json.dumps(content, ensure_ascii=False, indent=1)

    def described(self, texts: Texts) -> tuple[TokenRows, list[str]]:
        """Return the numbers of the words of texts, and say what is not read of them."""
        rows, lengths = self._encoded(texts.values)
        found = list[str]()
        cut = int((lengths > self.longest).sum())
        if cut:
            which = "1 text has" if cut == 1 else f"{cut:,} texts have"
            found.append(
                f"{which} more than {self.longest:,} {self.noun}, at most {lengths.max():,}; the rest is not read"
            )
        unread = _unread(rows)
        if self.is_of_words and len(rows.values):
            share = float((rows.values == 0).float().mean())
            if share:
                found.append(f"{percent(share)} of the words are not in the vocabulary, and are not read")
        if unread:
            what = "1 text has" if unread == 1 else f"{unread:,} texts have"
            found.append(f"{what} no word of the vocabulary; the prediction is that for an empty text")
        return rows, found

    @property
    def noun(self) -> str:
        """The name of what a number stands for, in the plural."""
        return "words" if self.is_of_words else "tokens"

    def with_words(self, kept: Tensor) -> TextEncoding:
        """Return the encoding with some words only, numbered anew in their order.

        Args:
            kept: the numbers of the words that stay, increasing, from 0 on.

        Raises:
            ValueError: the numbers do not stand for words, see :attr:`is_of_words`, or there are no such words.

        >>> texts = Texts(np.array(["a cat", "a cat"], dtype=object))
        >>> TextEncoding.fit(texts, TextOptions()).with_words(torch.tensor([0, 2])).vocabulary
        ('[PAD]', 'cat')
        """
        numbers = kept.tolist()
        if not self.is_of_words:
            raise ValueError("the tokens of this tokenizer cannot be left out: it joins them to others")
        if not numbers or numbers[0] != 0 or sorted(set(numbers)) != numbers or numbers[-1] >= self.words:
            raise ValueError(f"the words that stay must be increasing numbers from 0 to {self.words - 1:,}")
        content = json.loads(self.tokenizer)
        content["model"]["vocab"] = {self.vocabulary[number]: place for place, number in enumerate(numbers)}
        return replace(self, tokenizer=json.dumps(content, ensure_ascii=False))


def _unread(rows: TokenRows) -> int:
    """Return the number of rows without any word."""
    read = torch.zeros(len(rows) + 1, dtype=torch.int64)
    which = torch.arange(len(rows)).repeat_interleave(rows.lengths)
    read.index_add_(0, which, (rows.values != 0).long())
    return int((read[:-1] == 0).sum())


def _trained(values: Array, most: int) -> str:
    """Make a tokenizer of the words of texts, as JSON."""
    tokenizers = require("tokenizers", EXTRA, "reading texts")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token=PAD))
    made.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.NFC(), tokenizers.normalizers.BertNormalizer(strip_accents=False)]
    )
    parts = tokenizers.pre_tokenizers
    made.pre_tokenizer = parts.Sequence([parts.Whitespace(), parts.Punctuation()])
    trainer = tokenizers.trainers.WordLevelTrainer(
        vocab_size=most + 1, min_frequency=RARE, special_tokens=[PAD], show_progress=False
    )
    made.train_from_iterator((str(value) for value in values), trainer)
    content = json.loads(made.to_str())
    content["added_tokens"] = []  # else the text "[PAD]" would be padding
    return json.dumps(content, ensure_ascii=False)


def _guarded(what: str, function: Callable[[], T]) -> T:
    """Call a function of the tokenizers; its errors become one line.

    Raises:
        ValueError: it fails.
    """
    try:
        return function()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic of the library's Rust code is not an Exception
        raise ValueError(f"{what} cannot be used: {first_line(error)}") from error


@lru_cache(maxsize=4)
def _loaded(tokenizer: str) -> Any:
    """Return the tokenizer of a JSON text, without padding."""
    tokenizers = require("tokenizers", EXTRA, "reading texts")
    found = _guarded("the tokenizer", partial(tokenizers.Tokenizer.from_str, tokenizer))
    found.no_padding()
    return found


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf8") as file:  # noqa: PTH123
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a tokenizer: it is not text in UTF-8") from error


def content_of(tokenizer: str, origin: str) -> dict[str, Any]:
    """Parse the JSON of a tokenizer.

    Raises:
        ValueError: it is not such JSON.
    """
    try:
        content = json.loads(tokenizer)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{origin}: not a tokenizer in JSON ({first_line(error)})") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError(f"{origin}: not a tokenizer of Hugging Face: it has no model")
    return content


def padded_by_zero(tokenizer: str, origin: str) -> str:
    """Return a tokenizer whose number 0 is padding: all numbers move up by one unless it is already.

    Args:
        tokenizer: in the JSON of Hugging Face tokenizers.
        origin: its name in messages.

    Raises:
        ValueError: it is damaged.
    """
    content = content_of(tokenizer, origin)
    try:
        before = _loaded(tokenizer)
        names = {number: name for name, number in before.get_vocab(True).items()}
        if names.get(0, "").strip("[]<>|").lower() == "pad":
            return tokenizer
        name = PAD
        while name in names.values():
            name = f"[{name}]"
        _move_up_(content, name)
        moved = json.dumps(content, ensure_ascii=False)
        after = _loaded(moved)
        sample = "".join(list(names.values())[:100]) + " The quick brown fox."
        found, moved_up = (_guarded("it", partial(each.encode, sample)).ids for each in (before, after))
        if moved_up != [number + 1 for number in found]:
            raise ValueError("its numbers cannot be moved up by one for the padding")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{origin}: not a tokenizer that can be used ({first_line(error)})") from error
    return moved


def _move_up_(content: dict[str, Any], pad: str) -> None:
    """Move all numbers of a tokenizer up by one, and put a token for the padding at 0."""
    model = content["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {pad: 0, **{name: number + 1 for name, number in model["vocab"].items()}}
    else:  # tokens with their log probabilities, in order
        model["vocab"] = [[pad, 0.0], *model["vocab"]]
        if model.get("unk_id") is not None:
            model["unk_id"] += 1
    for token in content.get("added_tokens") or ():
        token["id"] += 1
    _move_special_up_(content.get("post_processor"))
    content["padding"] = None


def _move_special_up_(part: Any) -> None:
    if isinstance(part, list):
        for each in part:
            _move_special_up_(each)
    elif isinstance(part, dict):
        for name, value in part.items():
            if name == "ids" and isinstance(value, list):
                part[name] = [number + 1 for number in value]
            elif name in ("sep", "cls") and isinstance(value, list):
                part[name] = [value[0], value[1] + 1]
            else:
                _move_special_up_(value)
