"""The targets of models of survival: events and times."""

from __future__ import annotations

from typing import Any

import numpy as np

from torchlasso.estimators.points import Numbers


def is_structured(y: Any) -> bool:
    """Return True for an array with named fields, as scikit-survival has them for an event and a time."""
    return getattr(getattr(y, "dtype", None), "names", None) is not None


def events_and_times(y: Any) -> tuple[Numbers, Numbers]:
    """Return whether each row had an event, (n,), and the times, (n,).

    Args:
        y: a structured array of an event and a time, (n,); two columns, (n, 2); or the times of events only, (n,).

    Raises:
        ValueError: it has another form, an event that is neither 0 nor 1, or a time that is negative or not finite.

    Examples:
        >>> events_and_times([[1, 2.5], [0, 4.0]])
        (array([ True, False]), array([2.5, 4. ]))
    """
    if y is None:
        raise ValueError("a model of survival requires y to be passed, but the target y is None")
    values = np.asarray(y)
    if values.dtype.names is not None:
        if len(values.dtype.names) != 2 or values.ndim != 1:
            raise ValueError(f"y must have two fields, the event and the time; got {values.dtype.names}")
        events, times = (values[name] for name in values.dtype.names)
    elif values.ndim == 2 and values.shape[1] == 2:
        events, times = values[:, 0], values[:, 1]
    elif values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1):
        times = values.reshape(-1)
        events = np.ones(len(times), dtype=bool)
    else:
        raise ValueError(f"y must have the shape (n, 2), an event and a time for each row; got {values.shape}")
    try:
        times, events = times.astype(np.float64), events.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"y must be numbers, an event and a time for each row: {error}") from error
    if not np.isin(events, (0.0, 1.0)).all():
        wrong = events[~np.isin(events, (0.0, 1.0))][0]
        raise ValueError(f"the events of y must be 0 or 1, in its first column; got {wrong:g}")
    if not (np.isfinite(times).all() and (times >= 0).all()):
        wrong = times[~(np.isfinite(times) & (times >= 0))][0]
        raise ValueError(f"the times of y must be finite and at least 0, in its second column; got {wrong:g}")
    return events.astype(bool), times
