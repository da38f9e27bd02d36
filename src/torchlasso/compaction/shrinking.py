"""Make a model smaller while it trains, in place."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from torchlasso._core.arguments import check_kind, check_model, check_sequence
from torchlasso._core.running import Inputs
from torchlasso.compaction.api import report_of
from torchlasso.compaction.config import update_config_
from torchlasso.compaction.cutting import Cut
from torchlasso.compaction.optimizer_state import carry_, check_blocks
from torchlasso.compaction.pipeline import find_cut
from torchlasso.compaction.report import CompactionReport, Totals
from torchlasso.control import LambdaController
from torchlasso.distributed import processes


def shrink_(
    model: nn.Module,
    optimizer: Optimizer,
    example_inputs: Inputs,
    *,
    controllers: Iterable[LambdaController] = (),
    multiple_of: int = 1,
) -> CompactionReport:
    """Take out of a model in training what makes no difference to its outputs, in place, between two steps.

    As :func:`torchlasso.compact` does it. The parameters stay the objects that they are, with less in them; what the
    optimizer keeps for each weight (momentum, second moments), blocks of penalties over several parameters and what
    controllers keep go along. The outputs are the same at once, and so is every later step where what goes has no part
    in it: it has none if the weights that make a unit and those that read it are zero, and under a penalty on single
    weights also if the unit is zero and has no gradient, as behind a ReLU. Otherwise the steps differ: a row, filter or
    unit that reads what goes has a smaller norm afterwards and is shrunk faster, a constant that was added to a bias is
    learnt by the bias alone, and a unit that could have woken, as behind a tanh, cannot. What is gone does not come
    back. For :class:`~torchlasso.TargetSparsity` it counts as zeros, for :class:`~torchlasso.TargetBudget` as saved.

    Where processes train together all of them have to make the call, with the same example inputs. A wrapper such as
    ``DistributedDataParallel`` holds on to the parameters: take its ``module``, delete the wrapper, shrink, and wrap
    the model again.

    Args:
        model: in training.
        optimizer: of the model: any of torch's, proximal or not.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments. A small batch is enough.
        controllers: those of the optimizer's λ.
        multiple_of: see :func:`torchlasso.compact`.

    Returns:
        What went, and what stayed and why.

    Raises:
        ValueError: see :func:`torchlasso.compact`; or the blocks of a penalty, such as chunks, would be others in a
            smaller model.
        RuntimeError: something holds on to the parameters; or the processes do not agree on what can go.

    Examples:
        >>> import torchlasso as tl
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))
        >>> x = torch.randn(200, 4)
        >>> optimizer = tl.ProxAdam(tl.param_groups(net, tl.L1(over=tl.Units(net, x[:2])), lam=1e-2), lr=0.01)
        >>> for step in range(400):
        ...     optimizer.zero_grad()
        ...     (net(x)[:, 0] - x[:, 0].abs()).square().mean().backward()
        ...     optimizer.step()
        ...     if step % 100 == 99:
        ...         report = shrink_(net, optimizer, x[:2])
        >>> net[0].out_features < 10  # of 64: two units make |x₀|
        True
    """
    controllers = [controllers] if isinstance(controllers, LambdaController) else list(controllers)
    check_model("shrink_: model", model)
    check_kind("shrink_: optimizer", optimizer, Optimizer, "the optimizer of the model")
    check_sequence("shrink_: controllers", controllers, LambdaController, "controllers of λ, such as torchlasso.Warmup")
    check_blocks(optimizer)
    cut = find_cut(model, example_inputs, multiple_of)
    check_agreement(cut)
    before = Totals.of(model, example_inputs)
    carry_(cut, model, optimizer, controllers)
    config = update_config_(model, example_inputs)
    return report_of(cut, before, Totals.of(model, example_inputs), config)


def check_agreement(cut: Cut) -> None:
    """Raise on all processes unless they found the same."""
    masks = [mask.clone() for mask in cut.removal.gone.values()]
    first = [mask.clone() for mask in masks]
    processes.take_from_first_(first)
    different = sum(not torch.equal(a, b) for a, b in zip(masks, first, strict=True))
    if processes.total(float(different)) > 0:
        raise RuntimeError(
            "shrink_: the processes do not agree on what can go; give all of them the same example inputs"
        )
