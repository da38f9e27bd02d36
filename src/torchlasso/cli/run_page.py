"""``report.html`` of a run: what was won, how training went, and what is zero in each layer."""

from __future__ import annotations

from typing import Any

from torchlasso.cli.run_folder import RunFolder
from torchlasso.cli.screen import verdict
from torchlasso.page import line_chart, table
from torchlasso.report import SparsityReport, percent


def write_page(folder: RunFolder, record: SparsityReport, summary: dict[str, Any]) -> None:
    """Write the page of a run."""
    runs = {"torchlasso": summary} | {key: summary[key] for key in ("dense", "loss_term") if key in summary}
    head = ("", *(name.replace("_", " ") for name in runs))
    rows = [
        ["test error", *(percent(s["error"]) if s["error"] is not None else "–" for s in runs.values())],
        ["test loss", *(f"{s['loss']:.4f}" for s in runs.values())],
        ["exact zeros", *(percent(s["sparsity"]) for s in runs.values())],
        ["weights left", *(f"{s['nonzero']:,} of {s['penalised']:,}" for s in runs.values())],
        ["training time", *(f"{s['seconds']:.1f} s" for s in runs.values())],
    ]
    epochs = folder.read_metrics()
    charts = [
        line_chart("Exact zeros by epoch", [100 * line["sparsity"] for line in epochs], 0, 100, " %"),
        line_chart("Training loss by epoch", losses := [line["loss"] for line in epochs], 0, max(losses)),
    ]
    above = f"<p><strong>{verdict(summary)}</strong></p>{table(head, rows)}<h2>Training</h2>{''.join(charts)}"
    record.to_html(folder.report, title=f"Run {folder.path.name}", above=above)
