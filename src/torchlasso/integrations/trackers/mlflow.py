"""MLflow: a run on the tracking server of ``MLFLOW_TRACKING_URI``."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from torchlasso._core.extras import require
from torchlasso.integrations.trackers.base import EpochFigures, Tracked, Tracker, register

EXPERIMENT = "torchlasso"  # unless the environment names another one
LONGEST = 500  # characters of a parameter that every server takes
MOST = 100  # parameters in a request


@register("mlflow")
class MLflow(Tracker):
    """A run of MLflow, in the experiment of ``MLFLOW_EXPERIMENT_ID`` or ``MLFLOW_EXPERIMENT_NAME``.

    A resumed training goes on with the same run, and adds the epochs that it lacks.
    """

    package = "mlflow"

    def __init__(self, training: Tracked, epochs: Sequence[EpochFigures]) -> None:
        self.mlflow = require(self.package, self.package, "--log mlflow")
        self.client = self.mlflow.MlflowClient()
        known = 0
        if training.identity is None:
            self._identity = self._created(training)
        else:
            self._identity = training.identity
            self.client.update_run(self._identity, status="RUNNING")
            history = self.client.get_metric_history(self._identity, "loss")
            known = max((metric.step for metric in history), default=0)
        for number, figures in enumerate(epochs, start=1):
            if number > known:
                self.epoch(number, figures)

    @property
    def identity(self) -> str:
        """The number of the run on the server."""
        return self._identity

    def epoch(self, number: int, figures: EpochFigures) -> None:
        now = int(1000 * time.time())
        metrics = [self.mlflow.entities.Metric(name, float(value), now, number) for name, value in figures.items()]
        self.client.log_batch(self._identity, metrics=metrics)

    def result(self, number: int, figures: EpochFigures) -> None:
        self.epoch(number, figures)

    def close(self, *, failed: bool) -> None:
        self.client.set_terminated(self._identity, status="FAILED" if failed else "FINISHED")

    def _created(self, training: Tracked) -> str:
        run = self.client.create_run(_experiment(self.client, os.environ), run_name=training.name)
        identity: str = run.info.run_id
        params = [self.mlflow.entities.Param(name, value[:LONGEST]) for name, value in training.settings.items()]
        for start in range(0, len(params), MOST):
            self.client.log_batch(identity, params=params[start : start + MOST])
        return identity


def _experiment(client: Any, environment: Mapping[str, str]) -> str:
    """Return the number of the experiment of new runs; create the experiment if there is none of its name."""
    if identity := environment.get("MLFLOW_EXPERIMENT_ID"):
        return identity
    name = environment.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)
