"""``report.html`` of a run: what was won, how training went, and what is zero in each layer."""

from __future__ import annotations

from html import escape

from torchlasso.cli.run_folder import RunFolder
from torchlasso.cli.summary import Summary, side_by_side
from torchlasso.distributed import by_first
from torchlasso.page import line_chart, table
from torchlasso.report import SparsityReport


@by_first
def write_page(folder: RunFolder, record: SparsityReport, summary: Summary) -> None:
    """Write the page of a run."""
    above = f"<p><strong>{escape(summary.verdict)}</strong></p>"
    above += table(("", *summary.runs), side_by_side(summary.runs))
    above += _path_of(folder) if folder.points.exists() else _training_of(folder)
    record.to_html(folder.report, title=f"Run {folder.path.name}", above=above)


def _training_of(folder: RunFolder) -> str:
    epochs = folder.read_metrics()
    if not epochs:
        raise ValueError(f"{folder.metrics} is missing or empty; it should have a line for every epoch")
    zeros, losses = [100 * line["sparsity"] for line in epochs], [line["loss"] for line in epochs]
    switched = [100 * line["switched"] for line in epochs]
    charts = line_chart("Exact zeros by epoch", zeros, 0, 100, " %")
    charts += line_chart("Weights that went from or to zero, by epoch", switched, 0, max(*switched, 1e-3), " %")
    return "<h2>Training</h2>" + charts + line_chart("Training loss by epoch", losses, 0, max(losses))


def _path_of(folder: RunFolder) -> str:
    svg = folder.frontiers[1]
    drawing = svg.read_text(encoding="utf-8") if svg.exists() else ""
    return f"<h2>Path</h2><figure>{drawing[max(0, drawing.find('<svg')) :]}</figure>"
