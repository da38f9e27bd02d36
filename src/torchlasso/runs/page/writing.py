"""``report.html`` of a run: one self-contained file that fetches nothing."""

from __future__ import annotations

from torch import nn

from torchlasso._core.files import write_text
from torchlasso.distributed.processes import by_first
from torchlasso.html import document
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.page.points import SLIDER
from torchlasso.runs.page.reading import names_read
from torchlasso.runs.page.sections import sections
from torchlasso.runs.page.shown import Shown
from torchlasso.runs.summary import Summary


@by_first
def write_page(folder: RunFolder, experiment: Experiment, model: nn.Module, summary: Summary) -> tuple[str, ...] | None:
    """Write the page of a run.

    Returns:
        The names of the features that are read, strongest first, if the page shows them: to find them again would take
        seconds.

    Raises:
        ValueError: a file of the run is damaged.
    """
    run = Shown(folder, experiment, model, summary)
    body = "".join(section(run) for section in sections().values())
    script = SLIDER if run.path is not None else ""
    write_text(folder.report, document(f"Run {folder.path.resolve().name}", body, script))
    names = names_read(run) if "units" in vars(run) else None
    return None if names is None else tuple(names)
