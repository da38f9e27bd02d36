"""The options of texts: their tokenizer, their length, their vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

WORDS = "words"
MAX_LENGTH, VOCABULARY = 512, 30_000
LARGEST = 2**31 - 1  # numbers of words are stored in 32 bits


@dataclass(frozen=True)
class TextOptions:
    """The conversion of texts to numbers.

    Attributes:
        tokenizer: ``words``, or a file ``tokenizer.json`` of Hugging Face tokenizers, or the folder that has it.
        max_length: the most words, or tokens, of a text; later ones are not read.
        vocabulary: the most words of the vocabulary, the most frequent ones; of no effect on a tokenizer from a file.

    Raises:
        ValueError: a number is not possible, or there is no such file.
    """

    tokenizer: str = WORDS
    max_length: int = MAX_LENGTH
    vocabulary: int = VOCABULARY

    def __post_init__(self) -> None:
        for name in ("max_length", "vocabulary"):
            value = getattr(self, name)
            if not 1 <= value <= LARGEST:
                raise ValueError(f"{name} must be from 1 to 2^31 − 1; got {value}")

    @property
    def file(self) -> Path | None:
        """The file of the tokenizer; None for one of words that is made from the training rows.

        Raises:
            FileNotFoundError: there is no such file.
        """
        if self.tokenizer == WORDS:
            return None
        path = Path(self.tokenizer)
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such tokenizer; give {WORDS}, or a file tokenizer.json")
        return path
