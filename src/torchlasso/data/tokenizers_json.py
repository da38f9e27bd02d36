"""Tokenizers in the JSON of Hugging Face tokenizers: trained on words, or read from files, with 0 as their padding."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from torchlasso._core.extras import require
from torchlasso._core.text import first_line

EXTRA = "text"
PAD = "[PAD]"  # padding, and all words that are not in the vocabulary
RARE = 2  # a word of the vocabulary occurs at least so often in the training rows
T = TypeVar("T")


def trained_words(values: Iterable[str], most: int) -> str:
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


def library_version() -> str:
    """Return the version of the tokenizers, which others may tell words apart in another way."""
    return str(require("tokenizers", EXTRA, "reading texts").__version__)


def guarded(what: str, function: Callable[[], T]) -> T:
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
def loaded_tokenizer(tokenizer: str) -> Any:
    """Return the tokenizer of a JSON text, without padding."""
    tokenizers = require("tokenizers", EXTRA, "reading texts")
    found = guarded("the tokenizer", partial(tokenizers.Tokenizer.from_str, tokenizer))
    found.no_padding()
    return found


def read_tokenizer(path: str) -> str:
    """Read the JSON of a tokenizer.

    Raises:
        ValueError: it is not text.
    """
    try:
        return Path(path).read_text(encoding="utf8")
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
        before = loaded_tokenizer(tokenizer)
        names = {number: name for name, number in before.get_vocab(True).items()}
        if names.get(0, "").strip("[]<>|").lower() == "pad":
            return tokenizer
        name = PAD
        while name in names.values():
            name = f"[{name}]"
        _move_up_(content, name)
        moved = json.dumps(content, ensure_ascii=False)
        after = loaded_tokenizer(moved)
        sample = "".join(list(names.values())[:100]) + " The quick brown fox."
        found, moved_up = (guarded("it", partial(each.encode, sample)).ids for each in (before, after))
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
