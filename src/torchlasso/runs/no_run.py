"""The reason why a folder holds no run, or none that is finished: a sweep, or a trial of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchlasso._core.files import read_json
from torchlasso.runs.files import SWEEP, TRIALS


def why_no_run(path: Path, missing: str) -> str:
    """Say why there is no run, and what to give instead.

    Args:
        path: the folder.
        missing: the name of the file that it lacks.
    """
    if (path / SWEEP).is_file():
        chosen = _record(path).get("chosen")
        if isinstance(chosen, int):
            return f"{path} holds a sweep: give the folder of a trial, as {path / TRIALS / f'{chosen:04}'}, its choice"
        return f"{path} holds a sweep that is not finished; go on with: torchlasso sweep --resume --out {path}"
    sweep = path.parent.parent
    if path.parent.name == TRIALS and path.name.isdecimal() and (sweep / SWEEP).is_file():
        trials = _record(sweep).get("trials")
        found = [each for each in trials if isinstance(each, dict)] if isinstance(trials, list) else []
        state = next((each.get("state") for each in found if each.get("number") == int(path.name)), None)
        if state == "pruned":
            return f"{path} holds a pruned trial, without a model; a sweep with --keep-all trains all to their ends"
        if state == "failed":
            return f"{path} holds a failed trial, without a model; {sweep / SWEEP} has the reason"
        if state in ("waiting", "paused"):
            return f"{path} holds a trial that is not finished; go on with: torchlasso sweep --resume --out {sweep}"
    return f"{path} holds no {'run' if missing == 'config.json' else 'finished run'}: it has no {missing}"


def _record(sweep: Path) -> dict[str, Any]:
    found = read_json(sweep / SWEEP)
    return found if isinstance(found, dict) else {}
