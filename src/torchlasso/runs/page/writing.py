"""``report.html`` of a run: one self-contained file that fetches nothing."""

from __future__ import annotations

from torch import nn

from torchlasso._core.files import write_text
from torchlasso.distributed.processes import by_first
from torchlasso.html import document
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.page.benched import benched_section
from torchlasso.runs.page.certificate import certificate_section, stability_section
from torchlasso.runs.page.configuration import configuration_section
from torchlasso.runs.page.frontiers import frontier_section
from torchlasso.runs.page.histograms import histograms_section
from torchlasso.runs.page.layers import filters_section, layers_section
from torchlasso.runs.page.points import SLIDER
from torchlasso.runs.page.reading import reading_section
from torchlasso.runs.page.shown import Shown
from torchlasso.runs.page.training import training_section
from torchlasso.runs.page.won import won_section
from torchlasso.runs.summary import Summary

SECTIONS = (
    won_section,
    frontier_section,
    training_section,
    layers_section,
    filters_section,
    reading_section,
    histograms_section,
    stability_section,
    certificate_section,
    benched_section,
    configuration_section,
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
