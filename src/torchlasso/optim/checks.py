"""The checks of a parameter group of a proximal optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from torchlasso._core.arguments import check_kind, shown
from torchlasso.optim.buckets import DECAY_SCALES
from torchlasso.optim.forms import check_form
from torchlasso.optim.fused import updates
from torchlasso.optim.metric import Metric
from torchlasso.penalties import Penalty, Separable, check_strength
from torchlasso.selection import Group

FEW = 10_000  # numbers of a view


def check_group(group: Group, penalty: Penalty | None, base: type[Optimizer], metric: Metric) -> None:
    """Raise an error if a group cannot be stepped: by its options, its parameters, or its penalty in this metric."""
    if group.get("differentiable"):
        raise ValueError("differentiable=True is not possible: a prox is not differentiable at its threshold")
    if group.get("fused") and base not in updates.fused_updates() and any(p.is_meta for p in group["params"]):
        raise ValueError(
            f"fused=True: {base.__name__} has no fused step on the meta device; leave it out, or give the "
            "optimizer parameters on the CPU or a GPU"
        )
    if DECAY_SCALES in group:
        _check_decay(group, base)
    check_kind("averaging", group["averaging"], bool, "True or False")
    check_kind("form", group["form"], str, "'proximal', 'latent' or 'normal-map'")
    if penalty is None:
        return
    if not isinstance(penalty, Penalty):
        raise TypeError(f"penalty must be a Penalty such as torchlasso.L1(); got {shown(penalty)}")
    if any(p.is_complex() for p in group["params"]):
        _check_complex(group, penalty, base, metric)
    check_form(group, penalty, metric)
    metric.check_options(group)
    each = penalty.as_view()
    is_here = all(p.is_cpu for p in group["params"])
    for view in penalty.over.views([torch.empty_like(p, device="meta") for p in group["params"]]):
        # Shapes are enough to raise what a step would raise, but a few numbers are computed faster than their shapes.
        device = "cpu" if is_here and view.numel() <= FEW else "meta"
        w = torch.ones(view.shape, dtype=view.dtype, device=device)  # plain, also where the parameter is sharded
        each.prox(w, 1.0, w if metric.diagonal and group["form"] == "proximal" else 1.0)


def _check_decay(group: Group, base: type[Optimizer]) -> None:
    """Raise ``ValueError`` unless a group has a weight decay, and the share of each parameter."""
    scales = group[DECAY_SCALES]
    if "weight_decay" not in group:
        raise ValueError(f"{DECAY_SCALES}: {base.__name__} has no weight decay")
    if not isinstance(scales, list) or len(scales) != len(group["params"]):
        raise ValueError(f"{DECAY_SCALES} must be a list of a number for each parameter; got {shown(scales)}")
    for scale in scales:
        check_strength(scale, DECAY_SCALES)


def _check_complex(group: Group, penalty: Penalty, base: type[Optimizer], metric: Metric) -> None:
    """Raise ``TypeError`` unless complex parameters can have the optimizer, and the penalty, one of magnitudes."""
    if not metric.takes_complex:
        raise TypeError(
            f"{base.__name__} does not support complex parameters: use one that does, such as torch.optim.Adam, or "
            "penalise real parameters"
        )
    if not isinstance(penalty, Separable) or penalty.over.spares or not penalty.over.symmetric:
        raise TypeError(f"complex parameters cannot have the penalty {penalty}: use L1, over any blocks but nm")
    if group["form"] == "latent":
        raise TypeError("complex parameters have no form='latent': leave it out, or give form='normal-map'")
    if group.get("fused"):
        raise TypeError("complex parameters cannot have fused=True: leave it out")


# The averages of transformers' Adafactor lack a dimension of their parameter.
FACTORS = ("exp_avg_sq_row", "exp_avg_sq_col")


def check_state(name: str, p: Tensor, state: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if a tensor in the state of a plain optimizer does not fit its parameter.

    It has the same shape, or size 1 in a dimension.
    """
    for key, value in state.items():
        if not isinstance(value, Tensor) or not value.dim() or key in FACTORS:
            continue
        if value.dim() != p.dim() or any(a not in (1, b) for a, b in zip(value.shape, p.shape, strict=True)):
            raise ValueError(
                f"load_plain_state_dict: {key} of {name} has the shape {tuple(value.shape)}, and the parameter "
                f"{tuple(p.shape)}; params must have the order of the plain optimizer"
            )


def check_loaded(groups: Sequence[Group], before: Sequence[Group], defaults: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if groups whose options were loaded lack some, or ask for another form than before."""
    for new, old in zip(groups, before, strict=True):
        if missing := [name for name in defaults if name in old and name not in new]:
            raise ValueError(
                f"load_state_dict: the state is that of another optimizer, whose groups have no {', '.join(missing)}"
            )
        if new["form"] != old["form"]:
            raise ValueError(
                f"load_state_dict: the state is that of form='{new['form']}', and this optimizer has "
                f"form='{old['form']}'; give the optimizer the same one"
            )


def check_order(name: str, p: Tensor, state: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if no tensor in the state of a parameter fits it, which then is that of another one."""
    shapes = [value.shape for value in state.values() if isinstance(value, Tensor) and value.dim()]
    if shapes and not any(_fits(shape, p) for shape in shapes):
        raise ValueError(
            f"load_state_dict: {name} has the shape {tuple(p.shape)}, and its state {tuple(shapes[0])}; make the "
            "optimizer with the same parameters, groups and order as the one that was saved"
        )


def _fits(shape: torch.Size, p: Tensor) -> bool:
    """Return True for the shape of the parameter, also with sizes of 1 or without its last dimension, or flattened."""
    alike = len(shape) == p.dim() and all(a in (1, b) for a, b in zip(shape, p.shape, strict=True))
    return alike or shape in (p.shape[:-1], p.shape[:-2] + p.shape[-1:]) or shape.numel() == p.numel()
