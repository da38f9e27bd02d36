"""Small stand-ins for mlflow and wandb: the part of their documented interface that is used, and no other call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


class ServerError(Exception):
    """An error of a tracker's own kind."""


@dataclass
class Metric:
    key: str
    value: float
    timestamp: int
    step: int

    def __post_init__(self) -> None:
        assert isinstance(self.value, float)
        assert isinstance(self.timestamp, int)


@dataclass
class Param:
    key: str
    value: str


@dataclass
class ServedRun:
    """A run on a server."""

    name: str
    experiment: str = ""
    status: str = "RUNNING"
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[Metric] = field(default_factory=list)
    summary: dict[str, float] = field(default_factory=dict)
    step: int = 0

    def steps(self, key: str) -> list[int]:
        return [metric.step for metric in self.metrics if metric.key == key]


@dataclass
class Server:
    """Runs by their number; ``broken`` makes every call fail from then on."""

    runs: dict[str, ServedRun] = field(default_factory=dict)
    experiments: list[str] = field(default_factory=list)
    broken: bool = False

    def reached(self) -> Server:
        if self.broken:
            raise ServerError("no connection\nto the server")
        return self

    def named(self, name: str) -> ServedRun:
        [found] = [run for run in self.runs.values() if run.name == name]
        return found


def mlflow_with(server: Server) -> dict[str, ModuleType]:
    """Return the modules of an mlflow that talks to a server."""

    class MlflowClient:
        def get_experiment_by_name(self, name: str) -> Any:
            found = [i for i, known in enumerate(server.reached().experiments) if known == name]
            return _named(experiment_id=str(found[0])) if found else None

        def create_experiment(self, name: str) -> str:
            server.reached().experiments.append(name)
            return str(len(server.experiments) - 1)

        def create_run(self, experiment_id: str, *, run_name: str) -> Any:
            identity = f"run-{len(server.reached().runs)}"
            server.runs[identity] = ServedRun(run_name, experiment=experiment_id)
            return _named(info=_named(run_id=identity))

        def update_run(self, run_id: str, status: str) -> None:
            server.reached().runs[run_id].status = status

        def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
            return [metric for metric in server.reached().runs[run_id].metrics if metric.key == key]

        def log_batch(self, run_id: str, metrics: Sequence[Metric] = (), params: Sequence[Param] = ()) -> None:
            run = server.reached().runs[run_id]
            assert len(params) <= 100
            for param in params:
                assert run.params.setdefault(param.key, param.value) == param.value, "a parameter cannot change"
            run.metrics.extend(metrics)

        def set_terminated(self, run_id: str, status: str) -> None:
            assert status in ("FINISHED", "FAILED", "KILLED")
            server.reached().runs[run_id].status = status

    mlflow, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    vars(mlflow).update(MlflowClient=MlflowClient, entities=entities)
    vars(entities).update(Metric=Metric, Param=Param)
    return {"mlflow": mlflow, "mlflow.entities": entities}


def wandb_with(server: Server) -> dict[str, ModuleType]:
    """Return the module of a wandb that talks to a server."""

    class Run:
        def __init__(self, run: ServedRun) -> None:
            self._run, self.step, self.summary = run, run.step, run.summary

        def log(self, data: dict[str, float], *, step: int) -> None:
            server.reached()
            assert step >= self.step, "steps of a run only rise"
            self.step, self._run.step = step, step + 1
            self._run.metrics.extend(Metric(key, float(value), 0, step) for key, value in data.items())

        def finish(self, *, exit_code: int) -> None:
            self._run.status = "FAILED" if exit_code else "FINISHED"

    def init(
        *, project: str, name: str, id: str, resume: str, config: dict[str, str], reinit: str, settings: Any
    ) -> Run:
        assert (resume, reinit, settings) == ("allow", "create_new", "off")
        run = server.reached().runs.setdefault(id, ServedRun(name, experiment=project))
        run.params.update(config)
        return Run(run)

    wandb = ModuleType("wandb")
    vars(wandb).update(init=init, Settings=lambda *, console: console)
    return {"wandb": wandb}


def _named(**values: Any) -> Any:
    return type("Record", (), values)()
