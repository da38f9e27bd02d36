"""The warnings of a run, above everything else on its page."""

from __future__ import annotations

from torchlasso.html import paragraph
from torchlasso.runs.page.sections import section_at
from torchlasso.runs.page.shown import Shown


@section_at(5)
def warnings_section(run: Shown) -> str:
    """Show the signs that a training has failed."""
    return "".join(paragraph(sentence, "warning") for sentence in run.summary.warnings)
