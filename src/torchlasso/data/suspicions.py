"""Columns of a table that look like the identity of rows, or of what several rows are of."""

from __future__ import annotations

import re

import numpy as np

from torchlasso.data.records import Part

IDENTITY = re.compile(r"(?i:(^|[^a-z])id$)|[a-z]I[Dd]$")  # such as id, user_id or MouseID, but not fluid
STEM = re.compile(r"^[^_/ ]+(?=[_/ ])")  # of an identity such as 309_1


def suspicions(train: Part) -> list[str]:
    """Name columns of the training rows that look like the identity of rows, or of what several rows are of."""
    if not train.is_table or train.groups is not None or train.times is not None:
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
