"""The parts of data of texts as numbers of their words, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

from torchlasso.data.dividing import SplitData
from torchlasso.data.stored.tokens import StoredTokens
from torchlasso.data.text_options import TextOptions
from torchlasso.data.texts import TextRows
from torchlasso.data.tokenizers_json import RARE
from torchlasso.data.tokenizing import TextEncoding
from torchlasso.data.tokens import TokenCounts
from torchlasso.training.token_rows import TokenRows

SAMPLE = 1000  # texts whose words are looked at
SPACELESS = 15  # letters of a word, on average; of text that is written with spaces, they are about 5


def tokenised(
    divided: SplitData, train: TextRows, options: TextOptions
) -> tuple[dict[str, TokenRows | StoredTokens], TextEncoding, list[str], str]:
    """Return the parts as numbers of words, the encoding that the training texts ask for, notes, and a description.

    Raises:
        ValueError: a part has no texts, or the tokenizer cannot be used.
    """
    writing = _of_the_writing(train.first(SAMPLE)) if options.file is None else []
    try:
        encoding = TextEncoding.fit(train, options)
    except ValueError as error:
        advice = "".join(f". {note}" for note in writing)
        where = "" if options.file is not None else f"{divided.train.origin}: "
        raise ValueError(f"{where}{error}{advice}") from error
    rows, notes, description = dict[str, TokenRows | StoredTokens](), list(writing), ""
    for name, split in divided.parts.items():
        if not isinstance(split.rows.x, TextRows):
            raise ValueError(f"{split.origin}: its rows are not texts, as those of the training part are")
        rows[name], counts = split.rows.x.tokenised(encoding)
        notes += [f"In the {name} part, {each}." for each in encoding.notes(counts)]
        if not description:  # of the first part, for training
            description = _described(encoding, counts)
            encoding = replace(encoding, typical=max(1, round(counts.read / counts.texts)))
    return rows, encoding, notes, description


def _described(encoding: TextEncoding, counts: TokenCounts) -> str:
    """Describe texts in words: their columns, their lengths and their vocabulary."""
    where = f" of column {' and '.join(map(repr, encoding.columns))}" if encoding.columns else ""
    long = f" of which {counts.read / counts.texts:.0f} {encoding.noun} are read on average,"
    which = f" that occur at least {RARE} times in training" if encoding.is_of_words else ""
    return f"texts{where},{long} and a vocabulary of {encoding.words - 1:,} {encoding.noun}{which}"


def _of_the_writing(texts: list[str]) -> list[str]:
    """Say what words are of text that is written without spaces."""
    words = [word for text in texts for word in text.split()]
    letters = "".join(words)
    chinese = sum("\u3400" <= letter <= "\u9fff" for letter in letters)
    if not letters:
        return []
    if 4 * chinese > len(letters):
        return ["Chinese characters are read one by one, each as a word; for longer words, give tokenizer=."]
    if len(letters) > SPACELESS * len(words):
        return [
            f"Words have {len(letters) / len(words):.0f} letters on average: if they are not divided by spaces, give a "
            "tokenizer of the language, tokenizer=FILE."
        ]
    return []
