"""The options of the commands that run many trainings. They change no result, and a resumed run can have others."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from torchlasso.engine import ENGINES, JOBLIB, Engine
from torchlasso.runs.declared import Option


@dataclass(frozen=True)
class EngineOptions:
    """The options of an engine."""

    engine: Annotated[
        str, Option(f"Engine of many trainings: {', '.join(ENGINES)}; joblib has processes here, ray also a cluster.")
    ] = JOBLIB
    jobs: Annotated[int | None, Option("Trainings at once; if not given, as many as there are cores.")] = None
    threads: Annotated[int, Option("Threads of each of these trainings.")] = 1

    def __post_init__(self) -> None:
        _ = self.started_for(1)  # raises an error if there is no such engine
        for name in ("jobs", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1; got {value}")

    def check_jobs(self, trainings: int) -> None:
        """Raise an error if several jobs were asked for and there is one training only."""
        if trainings == 1 and (self.jobs or 1) > 1:
            raise ValueError(
                f"--jobs {self.jobs} has nothing to share: each point starts from the one before; "
                "give --folds or --start cold, or leave --jobs out"
            )

    def started_for(self, trainings: int) -> Engine:
        """Return the engine for so many trainings: with no more jobs than these."""
        most = (os.cpu_count() or 1) if self.jobs is None else self.jobs
        return Engine(self.engine, max(1, min(most, trainings)), max(1, self.threads))
