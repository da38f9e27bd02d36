"""The headline of a page: a sentence and four numbers."""

from __future__ import annotations

from collections.abc import Sequence

from torchlasso._core.readable import percent, short
from torchlasso.diagnostics.record import SparsityReport
from torchlasso.html import paragraph, tiles
from torchlasso.runs.page.sections import section_at
from torchlasso.runs.page.shown import Shown

Tile = tuple[str, str, str]


@section_at(10)
def won_section(run: Shown) -> str:
    """Show the head of a page."""
    options = run.experiment.options
    what = f"{options.model} on {options.data}{', from dense to sparse' if run.path is not None else ''}"
    missing = (
        "" if run.drawable else "Figures need matplotlib, which is not installed: pip install 'torchlasso[figures]'."
    )
    return "".join(
        [
            paragraph(what, "note"),
            paragraph(run.summary.verdict, "lead"),
            tiles(_numbers(run)),
            paragraph(missing, "note") if missing else "",
        ]
    )


def _numbers(run: Shown) -> Sequence[Tile]:
    summary = run.summary
    value = summary.loss if summary.error is None else summary.error
    dense = _dense(run)
    beside = "" if dense is None else f"dense: {run.quality(dense)}"
    return (
        (f"test {run.measure}", run.quality(value), beside),
        ("exact zeros", percent(summary.sparsity), "of the weights with a penalty"),
        ("weights left", f"{summary.nonzero:,}", f"of {summary.penalised:,}"),
        flops_left(run.record, run.full) or ("live units", f"{summary.live_units:,}", f"of {summary.units:,}"),
    )


def _dense(run: Shown) -> float | None:
    if run.path is not None and run.path[0].test is not None:
        found = run.path[0].test
        return found.loss if found.error is None else found.error
    dense = run.summary.dense
    return None if dense is None else dense.loss if dense.error is None else dense.error


def flops_left(record: SparsityReport, full: SparsityReport) -> Tile | None:
    """Return the FLOPs of live units and inputs relative to the full model's, or None if they are not known."""
    before = sum(layer.flops or 0 for layer in full.layers)
    known = [layer.live_flops for layer in record.layers if layer.live_flops is not None]
    if not before or not known:
        return None
    left = sum(known)
    return "live FLOPs", percent(left / before), f"{short(left).strip()} of {short(before).strip()} for a row"
