"""``torchlasso select``: the features of a table that matter, in order."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from torchlasso._core import files
from torchlasso._core.extras import require
from torchlasso.cli import options, screen
from torchlasso.runs.declared import SELECT
from torchlasso.runs.page.reading import joined_names
from torchlasso.runs.selecting.folder import FEATURES, PAGE, RECORD, check_folder
from torchlasso.runs.selecting.options import SelectOptions
from torchlasso.runs.selecting.record import Selection

SHOWN, NAMED = 50, 10  # features on the screen, and names of columns that were left out


@options.takes(SelectOptions)
def select(
    out: Annotated[str, typer.Option(help="Folder of the selection.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the selection in the folder.")] = False,
    as_json: options.AsJson = False,
    **values: Any,
) -> None:
    """Select the features of a table that matter, with how sure each of them is and what accuracy they keep.

    Example: torchlasso select --data patients.csv --label ill --fdr 0.1 --group person --out selected
    """
    given = options.parsed(SelectOptions, SELECT, values)
    if given["data"] is None:
        raise ValueError("--data is missing")
    if not out:
        raise ValueError("--out must name a folder; got an empty text")
    chosen, folder = SelectOptions(**given), Path(out)
    check_folder(folder, overwrite)
    require("sklearn", "sklearn", "selecting features")
    # not before: the other commands do without scikit-learn, and start a second sooner
    from torchlasso.runs.selecting.running import run_selection

    with screen.aside(as_json):
        selection = run_selection(chosen, folder, screen.say)
        _show(selection)
        screen.say(f"{folder}: {FEATURES}, {RECORD}, {PAGE}")
    if as_json:
        print(files.as_json(selection.to_dict()), end="")


def _show(result: Selection) -> None:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    with_q = any(each.q_value is not None for each in result.chosen)
    for head in ("", "feature", "halves", *(["q-value"] if with_q else []), "nearly the same, left out"):
        shown.add_column(head, justify="left" if head in ("feature", "nearly the same, left out") else "right")
    for each in result.chosen[:SHOWN]:
        partners = ", ".join(f"{partner.name} ({partner.correlation:.2f})" for partner in each.partners[:3])
        q_value = [f"{each.q_value:.3g}"] if with_q else []
        shown.add_row(f"{each.rank}", each.name, f"{100 * each.frequency:.0f} %", *q_value, partners)
    screen.console.print()
    screen.console.print(shown)
    if len(result.chosen) > SHOWN:
        screen.say(f"and {len(result.chosen) - SHOWN:,} more, in {FEATURES}")
    for names, what in ((result.constant, "constant"), (result.copies, "copies of others")):
        if names:
            screen.say(f"\nLeft out, since they are {what}: {joined_names(list(names), NAMED)}.")
    screen.say(f"\n{result.verdict}")
