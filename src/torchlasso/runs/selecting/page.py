"""``report.html`` of a selection: one self-contained file that fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from torchlasso._core.readable import percent
from torchlasso.figures import Series, frequencies, numbers
from torchlasso.figures._embedding import embedded, page_axes
from torchlasso.figures._style import can_draw
from torchlasso.html import Bar, beside, document, figure, paragraph, section, table, tiles
from torchlasso.runs.page.data import described
from torchlasso.runs.page.reading import joined_names
from torchlasso.runs.selecting.computing import Analysis
from torchlasso.runs.selecting.options import SelectOptions
from torchlasso.runs.selecting.record import CurvePoint, Selection

NAMED = 50  # the most names of columns that were left out
ROWS = 12  # the most rows of the table of scores
MOST = 200  # features with a row in the table; features.csv has all
DRAWN = 60  # lines of features that were not chosen in the picture of the halves


def selection_page(found: Analysis, names: Sequence[str], options: SelectOptions, title: str) -> str:
    """Make the page of a selection.

    Args:
        found: the selection.
        names: the names of its candidates.
        options: its options.
        title: of the page.
    """
    result = found.selection
    parts = (
        _headline(result),
        _features(result),
        _partners(result),
        _accuracy(result),
        _stability(found, names, options),
        _left_out(result),
        *([described(result.data)] if result.data else []),
        _configuration(result, options),
    )
    return document(title, "".join(parts))


def _headline(result: Selection) -> str:
    entries = [
        ("features", f"{len(result.chosen):,}", f"of {result.columns:,}"),
        *([(result.measure, _score(result, result.at), "with these many, in other folds")] if result.at else []),
        ("all features", _score(result, result.everything), result.every),
        *([("L1", _score(result, result.l1_at), f"as many features by {result.peer}")] if result.l1_at else []),
        ("one standard error", f"{result.one_se.features:,.0f}", "features are enough by this rule"),
    ]
    return paragraph(result.verdict, "lead") + tiles(entries)


def _score(result: Selection, point: CurvePoint) -> str:
    return percent(point.score) if result.measure == "accuracy" else f"{point.score:.3f}"


def _features(result: Selection) -> str:
    if not result.chosen:
        return section("Features in order", paragraph("No feature is selected."))
    with_q = result.chosen[0].q_value is not None
    rows: list[list[str | Bar]] = []
    for each in result.chosen[:MOST]:
        q = [f"{each.q_value:.3g}"] if with_q else []
        rows.append([f"{each.rank}. {each.name}", _share(each.frequency), *q, f"{each.lam:.3g}"])
    head = ("feature", "halves that select it", *(["q-value"] if with_q else []), "λ")
    notes = [
        f"The frequency is the share of {result.halves} random halves of the rows in which the feature is selected. "
        "λ is the largest at which a model of all rows reads it: features with a large λ leave last."
    ]
    if with_q:
        notes.append("The q-value is the least rate of false features at which it is selected.")
    more = len(result.chosen) - MOST
    parts = [paragraph(" ".join(notes), "note"), table(head, rows, "The selected features")]
    parts += [paragraph(f"{more:,} more are in features.csv.", "note")] if more > 0 else []
    if result.others:
        listed = ", ".join(f"{name} ({percent(share)})" for name, share in result.others)
        parts.append(paragraph(f"Not selected, but by some halves: {listed}."))
    return section("Features in order", *parts)


def _share(fraction: float) -> Bar:
    return Bar(fraction, f"{100 * fraction:.0f} %")


def _partners(result: Selection) -> str:
    with_some = [each for each in result.chosen if each.partners]
    if not result.chosen:
        return ""
    if not with_some:
        return section(
            "Nearly the same", paragraph("No column that is left out correlates above 0.9 with a chosen one.")
        )
    rows = [
        [each.name, ", ".join(f"{partner.name} ({partner.correlation:.2f})" for partner in each.partners)]
        for each in with_some[:MOST]
    ]
    text = (
        "Columns that are left out, but whose correlation with a selected one is above 0.9. They could have been "
        "selected in its place."
    )
    head = ("selected", "left out, with the correlation")
    return section("Nearly the same", paragraph(text), table(head, rows, "Redundant columns", words=True))


def _accuracy(result: Selection) -> str:
    is_share = result.measure == "accuracy"
    series = [_series("torchlasso", result.curve), _series(result.peer, result.l1)]
    chosen = None if result.at is None else (result.at.features, result.at.score)
    drawing, lines = "", [each for each in series if each.left]
    if lines and can_draw():
        axes = numbers(
            lines,
            page_axes(),
            measure=result.measure,
            percent=is_share,
            every=result.everything.score,
            chosen=chosen,
        )
        best = max(result.curve, key=lambda point: point.score)
        label = (
            f"{result.measure} over the number of features: at best {result.shown(best)} with {best.features:.1f}, "
            f"with all features {result.shown(result.everything)}"
        )
        caption = (
            "Lines: models fitted again, without the penalty, on the features that each λ selects; bands: one standard "
            "error over the folds. Circle: exactly as many features as are selected. The headline has this number for "
            f"{result.peer}, too: its features with the largest weights."
        )
        drawing = figure(embedded(axes, "accuracy", label), caption)
    every = -(-len(result.curve) // ROWS)
    rows = [[f"{point.features:.1f}", result.shown(point)] for point in result.curve[::every]]
    kept = "" if result.groups is None else f" All rows of one of the {result.groups:,} groups are in the same fold."
    text = (
        f"Mean {result.measure} on the rows of {result.folds} folds that the models were not trained on.{kept} Each "
        "fold selects anew, so the numbers are means. The columns are scaled by the training rows."
    )
    return section(
        f"{result.measure.capitalize()} over the number of features",
        paragraph(text),
        beside(drawing, table(("features", result.measure), rows, "Scores of the path")),
    )


def _series(name: str, points: Sequence[CurvePoint]) -> Series:
    return Series(name, [p.features for p in points], [p.score for p in points], [p.spread for p in points])


def _stability(found: Analysis, names: Sequence[str], options: SelectOptions) -> str:
    if not can_draw():
        return ""
    shares = found.frequencies.shares
    order = (-shares.max(axis=0) - 2 * found.support).argsort(kind="stable")[: int(found.support.sum()) + DRAWN]
    axes = frequencies(
        shares[:, order],
        found.frequencies.lams.copy(),
        found.support[order],
        page_axes(),
        names=[_short(names[i]) for i in order],
        x="sensitivity" if options.hidden else "λ",
    )
    chosen = found.selection.chosen
    often = ", ".join(f"{each.name} {100 * each.frequency:.0f} %" for each in chosen[:5])
    label = f"Share of the halves of the rows that select each feature, over λ. {often or 'No feature is selected'}"
    caption = (
        "Each line is a feature: the share of the halves whose network is at least so sensitive to it."
        if options.hidden
        else "Each line is a feature: the share of the halves whose model reads it, as λ falls from left to right."
    )
    return section("How often each feature is selected", figure(embedded(axes, "halves", label), caption))


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _left_out(result: Selection) -> str:
    parts = []
    if result.constant:
        parts.append(paragraph(f"Constant columns, never selected: {joined_names(list(result.constant), NAMED)}."))
    if result.copies:
        pairs = [f"{name} (of {of})" for name, of in result.copies.items()]
        parts.append(paragraph(f"Copies of other columns, left out: {joined_names(pairs, NAMED)}."))
    return section("Columns left out before", *parts)


def _configuration(result: Selection, options: SelectOptions) -> str:
    rows = [[field.name, text] for field in fields(options) if (text := _text(getattr(options, field.name)))]
    rows += [["rows", f"{result.rows:,}"], ["time", f"{result.seconds:.0f} s"]]
    return section("Configuration", table(("", ""), rows, "Options of the selection", words=True))


def _text(value: Any) -> str:
    return "" if value is None or value == () else ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
