"""``compact``: remove the units of a model that have no effect on its outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, overload

import torch
from torch import nn

from torchlasso._core.arguments import check_model
from torchlasso._core.running import ExampleInputs
from torchlasso._core.wrappers import uncompiled
from torchlasso.compaction.apply import Compaction
from torchlasso.compaction.config import update_config_
from torchlasso.compaction.low_rank import factor_
from torchlasso.compaction.pipeline import find_compaction
from torchlasso.compaction.report import CompactionReport, FamilyReport, Totals


@overload
def compact(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    multiple_of: int | Literal["auto"] = 1,
    low_rank: bool = False,
    return_report: Literal[False] = False,
) -> nn.Module: ...
@overload
def compact(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    multiple_of: int | Literal["auto"] = 1,
    low_rank: bool = False,
    return_report: Literal[True],
) -> tuple[nn.Module, CompactionReport]: ...
@torch.inference_mode(mode=False)  # whose tensors cannot be trained, nor followed by gradients
def compact(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    multiple_of: int | Literal["auto"] = 1,
    low_rank: bool = False,
    return_report: bool = False,
) -> nn.Module | tuple[nn.Module, CompactionReport]:
    """Return a smaller model with the same outputs: without the units that have no effect on them.

    A unit (a channel, a neuron, a head) has no effect if it has the same value for all inputs, because all its incoming
    weights are zero, or if nothing reads it, because all its outgoing weights are zero. A constant value is added to
    the biases of the layers that read it; if that cannot be exact, the unit stays.

    Args:
        model: any model that ``torch.export`` can export; it is not changed. Of a compiled model, the original is used.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments. A small batch is enough. Give all
            arguments that the model will be called with: a missing argument counts as never given.
        multiple_of: the number of units in each family stays a multiple of this, which some hardware prefers. With
            ``"auto"``, the layers of each family are timed with the exact number and with the next multiples of 8, 16
            and 32, on this machine, with its present number of threads and the rows of ``example_inputs``; units
            without effect stay where that is faster by at least 7 %. Give a batch as large as the model will run on.
        low_rank: also replace linear layers and convolutions of low rank, as :class:`~torchlasso.SingularValues` makes
            them, by two layers each, where these have fewer weights. Such a layer has other names in the
            ``state_dict``, ``NAME.0.weight`` and ``NAME.1.weight``, and the outputs are the same to 1e-5. Each layer
            takes a singular value decomposition: minutes for thousands of rows and columns.
        return_report: also return a report of the removed units, and of the reasons why others stay.

    Returns:
        A model of the same classes, with the same names in its ``state_dict``, and the report if requested. If it has a
        ``config`` of transformers, the config is updated, where a config can describe the smaller model. To use the
        model in another process, write it with :func:`torchlasso.save`, and read it with :func:`torchlasso.load` into a
        model of the full size. Before the model is returned, both models run side by side in float64: on the example
        inputs, on random inputs, and on inputs of other sizes if the model accepts them (batch, length, resolution), in
        evaluation and in training (without dropout). The report names the parts of the model that the example inputs
        did not exercise, and the comparisons that were not possible.

    Raises:
        ValueError: the model cannot be exported, a copy of it computes other outputs, or ``multiple_of`` is below 1.

    Examples:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> _ = nn.init.zeros_(net[0].weight[:5])  # five neurons that read nothing
        >>> small = compact(net, torch.randn(3, 4))
        >>> small
        Sequential(
          (0): Linear(in_features=4, out_features=3, bias=True)
          (1): ReLU()
          (2): Linear(in_features=3, out_features=2, bias=True)
        )
    """
    small, config, compaction = _small(model, example_inputs, multiple_of)
    ranks, whole = factor_(small, example_inputs) if low_rank else ([], [])
    if not return_report:
        return small
    before, after = (Totals.of(each, example_inputs) for each in (uncompiled(model), small))
    return small, replace(report_of(compaction, before, after, config), factored=tuple(ranks), whole=tuple(whole))


@torch.inference_mode(mode=False)
def compacted(
    model: nn.Module, example_inputs: ExampleInputs, multiple_of: int | Literal["auto"] = 1
) -> tuple[nn.Module, CompactionReport, Compaction]:
    """Return a smaller model with the same outputs, the report, and the compaction that makes it."""
    small, config, compaction = _small(model, example_inputs, multiple_of)
    before, after = (Totals.of(each, example_inputs) for each in (uncompiled(model), small))
    return small, report_of(compaction, before, after, config), compaction


def _small(
    model: nn.Module, example_inputs: ExampleInputs, multiple_of: int | Literal["auto"]
) -> tuple[nn.Module, str, Compaction]:
    """Return a smaller model, the change of its config in words, and the compaction."""
    check_model("compact: model", model)
    model = uncompiled(model)
    compaction = find_compaction(model, example_inputs, multiple_of)
    small = compaction.applied_to_copy(model)
    return small, update_config_(small, example_inputs), compaction


def report_of(compaction: Compaction, before: Totals, after: Totals, config: str) -> CompactionReport:
    """Return the report of a compaction."""
    gone, stays = compaction.removal.gone, compaction.removal.stays
    families = []
    for family in compaction.units.families:
        if family.pins and (family.size == 1 or all(place != 0 for _, place in family.places)):
            continue  # such as the places of a kernel, or inputs: of no interest in a report
        left = int((~gone[family.axis]).sum()) if family.axis in gone else family.size
        why = (*family.pins, *stays.get(family.axis, ()))
        families.append(FamilyReport(family.name, family.size, left, why))
    return CompactionReport(
        tuple(families), dict(compaction.units.structure.unknown), before, after, config, compaction.checked
    )
