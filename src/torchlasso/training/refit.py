"""Refits: the nonzero weights are trained on without a penalty, and zeros stay zeros (the relaxed lasso)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


def freeze_zeros(optimizer: Optimizer, params: Iterable[Tensor]) -> RemovableHandle:
    """Keep every weight of ``params`` that is zero now exactly zero under a new ``optimizer``.

    L1 shrinks the weights that it keeps. Training on with frozen zeros and λ = 0 removes this bias (Meinshausen 2007,
    the relaxed lasso). Before each step, the gradients of the zeros are set to zero, so that the optimizer's moments of
    them stay zero as well. A refit may overfit: compare the result with the model before it on validation data.

    Args:
        optimizer: any optimizer that does not move a weight without any nonzero gradient so far; torch's do not.
        params: parameters of the optimizer, plain or sharded.

    Returns:
        A handle; its method ``remove`` ends the freeze.

    Raises:
        ValueError: the optimizer has made steps already, whose moments would move the zeros.

    Examples:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([0.0, 0.5]))
        >>> optimizer = torch.optim.Adam([w], lr=0.1)
        >>> handle = freeze_zeros(optimizer, [w])
        >>> ((w - 1) ** 2).sum().backward()
        >>> optimizer.step()
        >>> w.data
        tensor([0.0000, 0.6000])
    """
    # some optimizers, such as Adagrad, have a state before their first step
    if any(float(state.get("step", 1)) for state in optimizer.state.values()):
        raise ValueError("the optimizer has made steps already, and its moments would move the zeros: make a new one")
    supports = [(p, p.detach() != 0) for p in params]

    def mask() -> None:
        for p, support in supports:
            if p.grad is not None:
                p.grad.mul_(support)

    def before(_: Optimizer, args: Any, kwargs: Any) -> Any:
        mask()
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            return None

        def masked() -> Any:  # gradients are new tensors in each step
            loss = closure()
            mask()
            return loss

        return args[:1], {**kwargs, "closure": masked}

    return optimizer.register_step_pre_hook(before)
