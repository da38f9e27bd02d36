"""Dates as numbers and categories."""

from __future__ import annotations

import numpy as np

from torchlasso.data.frame import Array, Category

START = np.datetime64("2000-01-01", "us")  # days from here keep some minutes in 32 bits
DAY = np.timedelta64(1, "D")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
HOURS = tuple(f"{hour:02}" for hour in range(24))


def date_parts(dates: Array) -> tuple[Array, dict[str, Category]]:
    """Return days since 2000 of dates, and their month, weekday and hour.

    Args:
        dates: ``datetime64``, (n,); a gap is NaT.

    Returns:
        The days, float64 (n,), a gap being NaN; and the categories.

    >>> days, parts = date_parts(np.array(["2000-01-03", "NaT"], dtype="datetime64[us]"))
    >>> days.tolist(), parts["weekday"].values[parts["weekday"].codes[0]]
    ([2.0, nan], 'Mon')
    """
    dates = dates.astype("datetime64[us]")
    is_gap = np.isnat(dates)
    days = np.where(is_gap, np.nan, (dates - START) / DAY)
    month = dates.astype("datetime64[M]").astype(np.int64) % 12
    weekday = (dates.astype("datetime64[D]").astype(np.int64) + 3) % 7  # 1970 began on a Thursday
    hour = (dates - dates.astype("datetime64[D]")).astype(np.int64) // 3_600_000_000
    parts = (("month", month, MONTHS), ("weekday", weekday, WEEKDAYS), ("hour", hour, HOURS))
    return days, {name: Category(np.where(is_gap, -1, codes).astype(np.int32), values) for name, codes, values in parts}
