"""Tables of figures of quality, as cells of text."""

from __future__ import annotations

from collections.abc import Mapping

from torchlasso.runs.quality.measures import MEASURES, Measure
from torchlasso.runs.quality.record import Quality, Score


def figures_of(judged: Quality, name: str, others: Mapping[str, Quality | None]) -> list[list[str]]:
    """Make a table of all figures: the headings, then a row for each measure.

    Args:
        judged: the rows whose figures have intervals.
        name: the heading of their column.
        others: the figures on other rows, or of other models, by the headings of their columns; None is left out.
    """
    beside = {head: part for head, part in others.items() if part is not None}
    head = ["", name, "95 % interval", *beside, *(["constant answer"] if judged.constant else [])]
    rows = []
    for key, score in judged.scores.items():
        measure = MEASURES[key]
        more = [measure.shown(part.scores[key].value if key in part.scores else None) for part in beside.values()]
        constant = [measure.shown(score.constant)] if judged.constant else []
        rows.append([measure.title, measure.shown(score.value), interval(measure, score), *more, *constant])
    return [head, *rows]


def interval(measure: Measure, score: Score) -> str:
    """Format the interval of a figure; a dash if there is none.

    >>> interval(MEASURES["error"], Score(0.048, 0.041, 0.0563))
    '4.1 to 5.6 %'
    """
    if score.low is None or score.high is None:
        return "–"
    low, high = measure.shown(score.low), measure.shown(score.high)
    return f"{low.removesuffix(' %')} to {high}"
