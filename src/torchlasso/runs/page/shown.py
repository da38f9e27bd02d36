"""The content of a run's page, read from its folder and computed when a section needs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from torchlasso.diagnostics.record import SparsityReport
from torchlasso.diagnostics.report import report
from torchlasso.figures._style import can_draw
from torchlasso.graph import UnitMap, find_units
from torchlasso.path import Point, choose, pooled
from torchlasso.penalties import L1
from torchlasso.runs import choices
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.options import DENSE
from torchlasso.runs.summary import Summary
from torchlasso.selection import Group

EXAMPLES = 2  # rows on which a model's operators are read


@dataclass(frozen=True)
class Shown:
    """A finished run, with everything that its page shows.

    Attributes:
        folder, experiment: of the run.
        model: the trained model, which may be smaller by now.
        summary: the results.
    """

    folder: RunFolder
    experiment: Experiment
    model: nn.Module
    summary: Summary

    @property
    def measure(self) -> str:
        """The measure of a model's quality."""
        return "loss" if self.summary.error is None else "error"

    def quality(self, value: float) -> str:
        """Format a loss, or an error in per cent."""
        return f"{value:.4f}" if self.summary.error is None else f"{100 * value:.2f} %"

    @cached_property
    def record(self) -> SparsityReport:
        """The report on the trained model."""
        return self.reported(self.model)

    def reported(self, model: nn.Module) -> SparsityReport:
        """Make the report on a model of this run, with FLOPs for one row if the model runs on random rows."""
        groups = self.marked(model)
        try:
            return report(model, groups, self.experiment.example[:1])
        except ValueError:
            return report(model, groups)

    def marked(self, model: nn.Module) -> list[Group]:
        """Return a group of the parameters of a model of this run that have a penalty."""
        chosen = [p for name, p in model.named_parameters() if name in self._penalised]
        return [{"params": chosen, "penalty": L1(), "lam": 0.0}]

    @cached_property
    def _penalised(self) -> frozenset[str]:
        """The names of the parameters that have a penalty."""
        if (names := self.summary.penalised_names) is not None:
            choices.parse_penalty(self.experiment.options.penalty, None)  # an unknown one is an error here, too
            return frozenset(names)
        groups = self.experiment.marked(self.model)  # to find units again takes seconds
        chosen = {p for group in groups if group["penalty"] is not None for p in group["params"]}
        return frozenset(name for name, p in self.model.named_parameters() if p in chosen)

    @cached_property
    def start(self) -> nn.Module:
        """The model before training."""
        pretrained = self.experiment.options.pretrained
        return self.experiment.build_model(weights=pretrained is None or pretrained.is_there)

    @cached_property
    def full(self) -> SparsityReport:
        """The report on the full model before training."""
        return self.reported(self.start)

    @cached_property
    def before(self) -> tuple[str, dict[str, Tensor]]:
        """The weights to compare with: the dense model's if there is one, else the random start."""
        if self.path is not None:
            return "dense", self.folder.read_weights(0)
        dense = self.folder.part(DENSE)
        if self.summary.dense is not None and dense.model.exists():
            return "dense", dense.read_model()[0]
        return "random start", self.start.state_dict()

    @cached_property
    def units(self) -> UnitMap | str:
        """The units of the trained model, or the reason why they are not known."""
        try:
            return find_units(self.model, self.experiment.example[:EXAMPLES])
        except ValueError as error:
            return str(error)

    @cached_property
    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """The metrics of the run, of its refit and of its comparisons, by name; empty for a path."""
        if self.path is not None:
            return {}
        found = {"torchlasso": self.folder.read_metrics()}
        if not found["torchlasso"]:
            raise ValueError(f"{self.folder.metrics} is missing or empty; it should have a line for every epoch")
        done = len(found["torchlasso"])
        for name in ("refit", "dense", "loss-term"):
            lines = self.folder.part(name).read_metrics()
            if lines:
                found[name] = [{**line, "epoch": line["epoch"] + done * (name == "refit")} for line in lines]
        return found

    @cached_property
    def path(self) -> list[Point] | None:
        """The points of a path, with the figures by which they were chosen."""
        options = self.experiment.options.path
        if options is None:
            return None
        points = self.folder.read_points()
        if not points:
            raise ValueError(f"{self.folder.points} is missing or empty; it should have a line for every point")
        folds = [self.folder.read_points(k) for k in range(options.folds or 0)]
        if not folds:
            return points
        return pooled(points, folds, folds_are_alike=not self.experiment.inputs.is_survival)

    @cached_property
    def chosen(self) -> Point:
        """The point of a path that became the run's model."""
        options = self.experiment.options.path
        if options is None or self.path is None:
            raise ValueError(f"{self.folder.path} holds no path")
        return choose(self.path, options.choose, options.tolerance)

    def models(self) -> Iterator[tuple[Point, nn.Module]]:
        """Yield the points of a path and the model of each; the model is the same object every time."""
        model = self.experiment.build_model(weights=False)
        for point in self.path or ():
            try:
                model.load_state_dict(self.folder.read_weights(point.index))
            except RuntimeError as error:
                raise ValueError(f"{self.folder.weights} is damaged: point {point.index} does not fit") from error
            yield point, model.eval()

    @cached_property
    def drawable(self) -> bool:
        """True if figures can be drawn."""
        return can_draw()


def weights_by_name(model: nn.Module, record: SparsityReport) -> dict[str, Tensor]:
    """Return the weights of the layers of a report, by name."""
    held = dict(model.named_parameters())
    return {layer.name: held[layer.name].detach() for layer in record.layers}


def support_of(model: nn.Module, record: SparsityReport) -> Tensor:
    """Return a mask of the penalised weights that are not zero."""
    held = weights_by_name(model, record)
    return torch.cat([held[layer.name].flatten() != 0 for layer in record.layers if layer.penalised])
