"""Columns of texts of a table on a disk, which are read some rows at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from torchlasso._core.extras import require
from torchlasso._core.memory import trim
from torchlasso.data.frame import Array
from torchlasso.data.stored.cache import kept_file, kept_record, key_of
from torchlasso.data.stored.columnar import Columnar
from torchlasso.data.stored.rows import row_numbers
from torchlasso.data.stored.tokens import StoredTokens, write_tokens
from torchlasso.data.texts import TextRows, Tokeniser, in_pieces
from torchlasso.data.texts_in_tables import hold_texts, joined_columns, named_as_texts
from torchlasso.data.tokens import TokenCounts

NUMBER, ROW = 4, 12  # bytes of the number of a word, and of what is kept of a row beside them
SHORTEST = 2  # bytes of a word and the space after it, at least


class StoredTexts(TextRows):
    """Texts of a table on a disk.

    Args:
        table: the table.
        columns: those of the texts, which are joined.
    """

    def __init__(self, table: Columnar, columns: tuple[str, ...]) -> None:
        self.table, self.columns = table, columns
        self.index: Array | None = None

    def __len__(self) -> int:
        return self.table.count if self.index is None else len(self.index)

    def rows(self, index: Array) -> StoredTexts:
        """Select rows by their numbers; nothing is read."""
        found = copy(self)
        found.index = row_numbers(index if self.index is None else self.index[index], self.table.count)
        return found

    def batches(self) -> Iterator[list[str]]:
        places, first = None if self.index is None else np.sort(self.index), 0
        for some in self._every():
            if places is None:
                yield from in_pieces(some)
            else:
                start, end = np.searchsorted(places, (first, first + len(some))).tolist()
                yield from in_pieces(some[place] for place in (places[start:end] - first).tolist())
            first += len(some)

    def empty(self) -> int:
        """Return the number of empty texts in the whole table."""

        def count() -> dict[str, int]:
            return {"empty": sum(not text for some in self._every() for text in some)}

        return int(kept_record(self._key("empty"), count, self.table.origin)["empty"])

    def learned(self, how: list[Any], learn: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        chosen = None if self.index is None else hashlib.sha256(np.sort(self.index).tobytes()).hexdigest()
        return kept_record(self._key("learned", chosen, *how), learn, self.table.origin)

    def tokenised(self, tokeniser: Tokeniser) -> tuple[StoredTokens, TokenCounts]:
        longest, count = tokeniser.longest, self.table.count
        some = (tokeniser.tokenise(texts) for texts in chain.from_iterable(map(in_pieces, self._every())))
        size = ROW * count + NUMBER * min(self.table.size // SHORTEST, longest * count)
        key = self._key("tokens", *tokeniser.state)
        path = kept_file(key, ".arrow", partial(write_tokens, some), size, self.table.origin)
        trim()
        whole = StoredTokens(path, count, longest)
        found = whole if self.index is None else whole.rows(self.index)
        return found, found.counts()

    def _every(self) -> Iterator[list[str]]:
        """Yield the texts of the whole table, some rows at a time."""
        pa = require("pyarrow", "data", "reading texts")
        for table in self.table.batches([*self.columns]):
            yield joined_columns(pa, table, self.columns)

    def _key(self, *what: Any) -> str:
        return key_of("texts", self.table.state, self.columns, *what)


def stored_text_columns(table: Columnar, names: Sequence[str]) -> tuple[str, ...]:
    """Return the column of texts among some, as :func:`~torchlasso.data.texts_in_tables.text_columns_in` does."""
    pa = require("pyarrow", "data", "reading texts")

    def look(name: str) -> dict[str, bool]:
        return {"texts": hold_texts(pa, (some.column(0) for some in table.batches([name])))}

    for name in named_as_texts(names):
        if kept_record(key_of("looks", table.state, name), partial(look, name), table.origin)["texts"]:
            return (name,)
    return ()
