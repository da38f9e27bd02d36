"""``report.html`` of a run: one file with all there is to see of it, which fetches nothing."""

from __future__ import annotations

from torch import nn

from torchlasso.cli.experiment import Experiment
from torchlasso.cli.run_folder import RunFolder
from torchlasso.cli.sections.benched import benched
from torchlasso.cli.sections.certificate import certificate, stability
from torchlasso.cli.sections.configuration import configuration
from torchlasso.cli.sections.frontiers import frontier
from torchlasso.cli.sections.histograms import histograms
from torchlasso.cli.sections.layers import filters, layers
from torchlasso.cli.sections.points import SLIDER
from torchlasso.cli.sections.reading import reading
from torchlasso.cli.sections.shown import Shown
from torchlasso.cli.sections.training import training
from torchlasso.cli.sections.won import won
from torchlasso.cli.summary import Summary
from torchlasso.distributed import by_first
from torchlasso.files import write_text
from torchlasso.page import document

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
