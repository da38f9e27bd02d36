"""Columns of a table that look like something else: the identity of rows, or numbers and dates that are text."""

from __future__ import annotations

import re

import numpy as np

from torchlasso.data.records import Part
from torchlasso.data.text_columns import DECIMAL

IDENTITY = re.compile(r"(?i:(^|[^a-z])id$)|[a-z]I[Dd]$")  # such as id, user_id or MouseID, but not fluid
STEM = re.compile(r"^[^_/ ]+(?=[_/ ])")  # of an identity such as 309_1
# such as $1,250.00, 1.250,00 €, 1 250, 12,5, 49% or 80 kg
MARKED = re.compile(r"[-+]?[$€£¥]? ?[-+]?[0-9]+(?:[., '][0-9]{3})*(?:[.,][0-9]+)? ?(?P<unit>[$€£¥%]|[A-Za-z]{1,4})?")
MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
DATED = re.compile(
    r"(?i)(?:[0-9]{4}([./-])[0-9]{1,2}\1[0-9]{1,2}"  # 2000/12/31
    r"|[0-9]{1,2}([./-])[0-9]{1,2}\2(?:[0-9]{4}|[0-9]{2})"  # 31.12.2000 or 12/31/00
    rf"|[0-9]{{1,2}}\.? {MONTH},? [0-9]{{4}}|{MONTH} [0-9]{{1,2}},? [0-9]{{4}})"  # 31 December 2000 or Dec 31, 2000
    r"(?:,?[ T][0-9]{1,2}:[0-9]{2}.*)?"  # 12:30
)
MOST = 0.9  # the share of the values that look so
COMPARED = 1000  # values of a column, at most


def suspicions(train: Part) -> list[str]:
    """Name columns of the training rows that look like something else, and what to do then."""
    return [*_of_identity(train), *_of_text(train)] if train.is_table else []


def _of_text(train: Part) -> list[str]:
    """Name columns of text that hold numbers or dates as people write them."""
    found = []
    for name, column in train.columns.categories.items():
        values = [value.strip() for value in column.values[:COMPARED]]
        units = [match["unit"] or "" for value in values if (match := MARKED.fullmatch(value))]
        dates = sum(DATED.fullmatch(value) is not None for value in values)
        # codes such as 1A and 2B have a letter, too, but not all the same
        are_numbers = len({*units} - {""}) <= 1 and not all(map(DECIMAL.search, values))
        for what, count, plain in (("dates", dates, "2000-12-31"), ("numbers", are_numbers * len(units), "1250.5")):
            if values and count >= MOST * len(values):
                shown = next(value for value in values if not DECIMAL.search(value))
                found.append(f"{name!r} holds {what} such as {shown!r}, and is read as text; write them as {plain}.")
                break
    return found


def _of_identity(train: Part) -> list[str]:
    """Name columns that look like the identity of rows, or of what several rows are of."""
    if train.groups is not None or train.times is not None:
        return []
    frame, found = train.columns, list[str]()
    for name in filter(IDENTITY.search, frame.names):
        column = frame.category(name)
        counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.values))
        values = [column.values[i] for i in np.flatnonzero(counts).tolist()]
        stems = {match[0] for value in values if (match := STEM.match(value))}
        divided = "rows of one are in several parts, unless"
        if 1 < len(values) <= len(frame) / 2:
            found.append(f"{name!r} looks like an identity: {divided} group={name!r} is given.")
        elif 1 < len(stems) <= len(frame) / 2:
            found.append(
                f"{name!r} looks like an identity and a number: {divided} group='{name}:{STEM.pattern}' is given."
            )
        elif len(values) == len(frame) and name not in frame.categories:
            found.append(f"{name!r} is different in each row; if it says nothing, leave it out with ignore=.")
    return found
