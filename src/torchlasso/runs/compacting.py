"""The model of a run without the units that have no effect and the words that it does not read, and what that saves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from torchlasso._core.memory import need_memory
from torchlasso._core.specs import parse_spec
from torchlasso._core.text import first_line
from torchlasso.compaction import compacted
from torchlasso.compaction.apply import Compaction
from torchlasso.compaction.report import CompactionReport, Totals
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.model_blocks import UNITS
from torchlasso.runs.words import with_words, without_unread_words

BATCH = 64  # rows for which `multiple_of="auto"` measures
TOLERANCE = 0.01  # of the full model's cost, as for the targets of budgets
NAMES = 3  # at most so many families of units are named


@dataclass(frozen=True)
class Smaller:
    """A model of a run that became smaller.

    Attributes:
        model: without the units that have no effect.
        report: on the units.
        cut: the removed units.
        words: the numbers of the words that stay, with the padding; None if all do, or if the run has no texts.
    """

    model: nn.Module
    report: CompactionReport
    cut: Compaction
    words: Tensor | None


def without_dead_parts(
    model: nn.Module, experiment: Experiment, multiple_of: int | Literal["auto"] = 1, batch: int = BATCH
) -> Smaller:
    """Return a copy of a run's model that computes the same outputs with what has an effect.

    Args:
        model: the trained model.
        experiment: of the run.
        multiple_of: as for :func:`torchlasso.compact`.
        batch: rows of the batches for which ``multiple_of="auto"`` measures.

    Raises:
        ValueError: the model cannot be exported, or a copy computes other outputs.
    """
    found = without_unread_words(model, experiment)
    read, words = (model, None) if found is None else found
    example = experiment.example if words is None else with_words(experiment, words).example
    if multiple_of == "auto":
        need_memory(example.nbytes * batch, f"a batch of {batch:,} rows")
        example = example[torch.arange(batch, device=example.device) % len(example)]
    small, report, cut = compacted(read, example, multiple_of)
    if words is not None:
        report = replace(report, before=Totals.of(model, experiment.example))
    return Smaller(small, report, cut, words)


def shortfall(model: nn.Module, experiment: Experiment) -> str:
    """Compare what compaction leaves of a trained model with the budget of its run.

    A budget counts the units that compaction can remove, if the constants that dead units leave behind can be folded.

    Returns:
        A sentence that says what is left, and which units stay and why; empty if the budget is met, or without one.
    """
    options = experiment.options
    wanted, what = (options.flops, "FLOPs") if options.flops is not None else (options.bytes, "bytes")
    if wanted is None:
        return ""
    try:
        smaller = without_dead_parts(model, experiment)
    except ValueError as error:
        return f"The model cannot be compacted, so that its dead channels save nothing: {first_line(error)}."
    full = experiment.build_model(weights=False)
    if options.flops is not None:
        costs = Totals.of(full, experiment.example).flops, smaller.report.after.flops
        before, after = (cost / len(experiment.example) for cost in costs)  # of one row, as the option counts
    else:
        before, after = _bytes(full), _bytes(smaller.model)
    share = wanted if wanted < 1 else wanted / before
    if after / before <= share + TOLERANCE:
        return ""
    stay = [f"{family.name}: {family.why[0]}" for family in smaller.report.families if family.why]
    more = f"; and {len(stay) - NAMES} more" if len(stay) > NAMES else ""
    why = f" Units that stay: {'; '.join(stay[:NAMES])}{more}." if stay else ""
    if parse_spec(options.over or "")[0] != UNITS:
        why += (
            " Dead units with a bias or a shift are constants, which often have to stay; --over units makes both zero."
        )
    return f"Compaction leaves {after / before:.1%} of the {what} instead of {share:.1%}.{why}"


def _bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())
