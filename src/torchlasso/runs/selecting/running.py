"""A selection from beginning to end: its table is read, its features are selected, and its files written."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from torchlasso._core.files import write_json, write_text
from torchlasso._core.locks import held
from torchlasso.engine import Engine, WorkersDiedError
from torchlasso.kept_results import keep_results
from torchlasso.runs.selecting.candidates import Candidates, read_candidates
from torchlasso.runs.selecting.computing import Analysis, select_features
from torchlasso.runs.selecting.folder import FEATURES, PAGE, PARTS, RECORD, begin, end
from torchlasso.runs.selecting.options import SelectOptions
from torchlasso.runs.selecting.page import selection_page
from torchlasso.runs.selecting.record import Selection


def run_selection(
    options: SelectOptions, folder: Path, engine: Engine, say: Callable[[str], None], *, resume: bool = False
) -> Selection:
    """Select the features of a table, and write the record, a table of all features and the page into a folder.

    The results of trainings are kept in the folder as they fall, and a resumed selection repeats none of them.

    Args:
        options: the table, and the number of features or the rate of false ones.
        folder: made if it does not exist.
        engine: trains the models.
        say: prints a line about the next step.
        resume: whether to go on with the selection in the folder, which has these options.

    Raises:
        ValueError: the table cannot be used, or no λ leaves so many features.
        OSError: the processes died again and again, or a file cannot be written.
    """
    table = read_candidates(options)
    table.folds(options.folds, options.seed)  # an error comes before anything is written
    for line in table.card.lines():
        say(line)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / ".lock", f"{folder} is in use: another selection writes into it"):
        if not resume:
            begin(folder, options)
        try:
            with keep_results(folder / PARTS), engine.for_estimators():
                found = select_features(table, options, say)
        except WorkersDiedError as error:
            raise OSError(f"{error}; resume with: torchlasso select --resume --out {folder}") from error
        _write(folder, found, table, options)
        end(folder)
    return found.selection


def _write(path: Path, found: Analysis, table: Candidates, options: SelectOptions) -> None:
    """Write the files of a selection into a folder, the record last."""
    write_text(path / FEATURES, _features(found, table))
    title = f"Features of {Path(options.data).name}"
    write_text(path / PAGE, selection_page(found, table.names, options, title))
    write_json(path / RECORD, found.selection.to_dict())


def _features(found: Analysis, table: Candidates) -> str:
    """Return all columns of the table in order, as CSV: the chosen ones first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", "feature", "selected", "frequency", "q_value", "correlated"])
    chosen = found.selection.chosen
    for each in chosen:
        partners = "; ".join(f"{partner.name} ({partner.correlation:.2f})" for partner in each.partners)
        q_value = "" if each.q_value is None else f"{each.q_value:.6g}"
        writer.writerow([each.rank, each.name, 1, f"{each.frequency:.4f}", q_value, partners])
    shares, q_values = found.frequencies.each, found.frequencies.q_values
    left = np.flatnonzero(~found.support)
    for rank, i in enumerate(left[np.argsort(-shares[left], kind="stable")].tolist(), len(chosen) + 1):
        q_value = "" if q_values is None else f"{q_values[i]:.6g}"
        writer.writerow([rank, table.names[i], 0, f"{shares[i]:.4f}", q_value, ""])
    for name in table.constant:
        writer.writerow(["", name, 0, "", "", "constant"])
    for name, of in table.copies.items():
        writer.writerow(["", name, 0, "", "", f"a copy of {of}"])
    return text.getvalue()
