"""``torchlasso report``: the zeros of a finished run, and the features of a table that it reads."""

from __future__ import annotations

from typing import Annotated

import typer

from torchlasso._core import files
from torchlasso.cli import options, screen
from torchlasso.diagnostics.report import report as sparsity_report
from torchlasso.runs.finished import open_run
from torchlasso.runs.page.reading import joined_names, names_read
from torchlasso.runs.page.shown import Shown
from torchlasso.runs.page.writing import write_page


def report(
    run: Annotated[str, typer.Argument(help="Folder of a finished run.")],
    html: Annotated[bool, typer.Option("--html", help="Write report.html into the folder and print its path.")] = False,
    allow_code: options.AllowCode = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show the zeros of a run, layer by layer.

    Example: torchlasso report runs/a
    """
    folder, experiment, model, _ = open_run(run, options.allowed(by=allow_code))
    summary = folder.read_summary()
    if html:
        write_page(folder, experiment, model, summary)
        screen.say(f"{folder.report}")
        return
    shown = Shown(folder, experiment, model, summary)
    record = sparsity_report(model, shown.marked(model))
    names = names_read(shown) if summary.features_read is None else list(summary.features_read)
    if as_json:
        print(files.as_json({**summary.to_dict(), "features_read": names, "report": record.to_dict()}), end="")
    else:
        screen.console.print(record, markup=True, soft_wrap=True)
        screen.say(f"\n{summary.verdict}")
        if names is not None:
            text = experiment.inputs.text
            total = f"{experiment.inputs.shape[0]:,} features" if text is None else f"{text.words - 1:,} {text.noun}"
            screen.say(f"{len(names):,} of {total} are read: {joined_names(names) or 'none'}.")
        if far := summary.stationarity:
            screen.say(
                f"Distance from a stationary point, in units of λ: at most {far.max:.2g}, on average {far.mean:.2g}."
            )
        if epochs := folder.read_metrics():
            share = 100 * epochs[-1]["switched"]
            screen.say(f"In the last epoch, {share:.2g} % of the penalised weights became zero or nonzero.")
