"""``report.html`` of a run: one file with all there is to see of it, which fetches nothing."""

from __future__ import annotations

from torch import nn

from torchlasso._core.files import write_text
from torchlasso.distributed.processes import by_first
from torchlasso.html import document
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.page.benched import benched
from torchlasso.runs.page.certificate import certificate, stability
from torchlasso.runs.page.configuration import configuration
from torchlasso.runs.page.frontiers import frontier
from torchlasso.runs.page.histograms import histograms
from torchlasso.runs.page.layers import filters, layers
from torchlasso.runs.page.points import SLIDER
from torchlasso.runs.page.reading import reading
from torchlasso.runs.page.shown import Shown
from torchlasso.runs.page.training import training
from torchlasso.runs.page.won import won
from torchlasso.runs.summary import Summary

SECTIONS = (
    won,
    frontier,
    training,
    layers,
    filters,
    reading,
    histograms,
    stability,
    certificate,
    benched,
    configuration,
)


@by_first
def write_page(folder: RunFolder, experiment: Experiment, model: nn.Module, summary: Summary) -> None:
    """Write the page of a run.

    Raises:
        ValueError: a file of the run is damaged.
    """
    run = Shown(folder, experiment, model, summary)
    body = "".join(section(run) for section in SECTIONS)
    script = SLIDER if run.path is not None else ""
    write_text(folder.report, document(f"Run {folder.path.resolve().name}", body, script))
