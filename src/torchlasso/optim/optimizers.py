"""The proximal forms of torch's optimizers."""

from __future__ import annotations

import copyreg
from typing import Any

import torch
from torch.optim import Optimizer

from torchlasso._core.arguments import check_kind, shown
from torchlasso.optim.base import Proximal
from torchlasso.optim.metric import Metric
from torchlasso.optim.metrics import known_metrics
from torchlasso.optim.modes import WithModes
from torchlasso.optim.packages import metric_for, names_of_metrics


class ProxSGD(Proximal, torch.optim.SGD):
    """Proximal gradient descent: ``torch.optim.SGD`` (momentum, dampening, Nesterov), then the prox.

    With gradient g, momentum μ, dampening d, and G the momentum buffer of gradients that are all 1, a step is

        g ← g + weight_decay·w
        b ← μ·b + (1 − d)·g             the first time b ← g
        G ← μ·G + (1 − d)               the first time G ← 1
        z = w − lr·b                    with Nesterov w − lr·(g + μ·b)
        τ = lr·G                        with Nesterov lr·(1 + μ·G)
        w ← argmin_u  ½‖u − z‖² + τ·λ·Ω(u)

    Without momentum b = g and G = 1. While the rate is below its peak, ``averaging`` replaces μ by μ_t with
    1 − μ_t = (1 − μ)·(lr/lr_peak)², and lr by a rate for which τ is what it would be with μ.

    Arguments are those of ``torch.optim.SGD`` and of :class:`Proximal`. Every penalty is possible over every blocks.

    Examples:
        A least-squares fit pulls w to (1, 0.2); with λ = 0.4 the solution is the soft threshold of it:

        >>> import torchlasso as tl
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 0.1]))
        >>> optimizer = ProxSGD([w], lr=0.5, penalty=tl.L1(), lam=0.4)
        >>> for _ in range(50):
        ...     optimizer.zero_grad()
        ...     ((w - torch.tensor([1.0, 0.2])) ** 2 / 2).sum().backward()
        ...     optimizer.step()
        >>> w.data
        tensor([0.6000, 0.0000])
    """

    base = torch.optim.SGD
    metric = known_metrics()[torch.optim.SGD]


class ProxAdam(Proximal, torch.optim.Adam):
    """``torch.optim.Adam``, then the prox in Adam's own metric: the zeros of the true solution, at any rate.

    With gradient g in step t, G the first average of gradients that are all 1, and d the metric, a step is

        g ← g + weight_decay·w
        m ← β₁·m + (1 − β₁)·g
        v ← β₂·v + (1 − β₂)·g²
        G ← β₁·G + (1 − β₁)
        d = √(v / (1 − β₂ᵗ)) + ε        with amsgrad the largest v so far
        z = w − lr·(m / G) / d
        w ← argmin_u  ½·Σ d_i·(u_i − z_i)² + lr·λ·Ω(u)

    So τ_i = lr/d_i, and for single weights under L1 w_i = sign(z_i)·max(|z_i| − λ·lr/d_i, 0). While the rate is below
    its peak, ``averaging`` replaces β₁ by β_t with 1 − β_t = (1 − β₁)·(lr/lr_peak)². For a weight that has had no
    gradient, the root in d is at least λ·(1 + 100/t), as v says nothing about it.

    Arguments are those of ``torch.optim.Adam`` and of :class:`Proximal`.

    Examples:
        A least-squares fit pulls w to (1, 0.2); with λ = 0.4 the solution is the soft threshold of it:

        >>> import torchlasso as tl
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 0.1]))
        >>> optimizer = ProxAdam([w], lr=0.1, penalty=tl.L1(), lam=0.4)
        >>> for _ in range(400):
        ...     optimizer.zero_grad()
        ...     ((w - torch.tensor([1.0, 0.2])) ** 2 / 2).sum().backward()
        ...     optimizer.step()
        >>> w.data
        tensor([0.6000, 0.0000])
    """

    base = torch.optim.Adam
    metric = known_metrics()[torch.optim.Adam]


class ProxAdamW(Proximal, torch.optim.AdamW):
    """``torch.optim.AdamW``, then the prox in its metric. The decoupled decay comes first and does not enter τ.

    A step is

        w ← (1 − lr·weight_decay)·w

    and then that of :class:`ProxAdam` without ``weight_decay``.

    Arguments are those of ``torch.optim.AdamW`` and of :class:`Proximal`.

    Examples:
        Of 20 features only the fourth and the eighth matter:

        >>> import torchlasso as tl
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(200, 20)
        >>> y = 2 * x[:, 3:4] - x[:, 7:8] + 0.1 * torch.randn(200, 1)
        >>> model = torch.nn.Linear(20, 1)
        >>> optimizer = ProxAdamW(tl.param_groups(model, tl.L1(), lam=0.1), lr=0.05, weight_decay=1e-3)
        >>> for _ in range(300):
        ...     optimizer.zero_grad()
        ...     torch.nn.functional.mse_loss(model(x), y).backward()
        ...     optimizer.step()
        >>> model.weight.detach().nonzero()[:, 1]
        tensor([3, 7])
    """

    base = torch.optim.AdamW
    metric = known_metrics()[torch.optim.AdamW]


def proximal(base: type[Optimizer], metric: Metric | None = None) -> type[Proximal]:
    """Return the proximal form of a torch optimizer class: its update, then the prox with its τ.

    With t the number of updates, v̂ the average of squared gradients corrected for its bias, and G the average (or the
    momentum buffer) of gradients that are all 1, the τ of the known optimizers are

        SGD                τ = lr·G                          with Nesterov lr·(1 + μ·G)
        Adam, AdamW        τ = lr / (√v̂ + ε)                 with amsgrad the largest v so far
        NAdam              τ = lr·c / (√v̂ + ε)               c = (1 − μ_t)/(1 − Πμ) + μ_(t+1)·G/(1 − Πμ·μ_(t+1))
        RAdam              τ = lr·r / (√v̂ + ε/√(1 − β₂ᵗ))    r its rectification; τ = lr in the first steps
        Adagrad            τ = lr_t / (√Σg² + ε)             lr_t = lr / (1 + (t − 1)·lr_decay)
        RMSprop            τ = lr·G / (√v + ε)               centred: √(v − ḡ²) instead of √v
        Adamax             τ = lr / u                        u its infinity norm
        Adafactor          τ = α / (c·√v)                    α = max(ε₂, RMS(w))·lr_t, c = max(1, RMS(g/√v)/d)

    and the step is w ← argmin_u ½·Σ (u_i − z_i)²/τ_i + λ·Ω(u), z the weights after the optimizer's own update.

    Rprop, Muon, Lion (``lion_pytorch``), the schedule-free optimizers (``schedulefree``) and Adam of 8 and 4 bits
    (``torchao``) have none; their form is the normal map, see :class:`Proximal`. A schedule-free one has the methods
    ``train`` and ``eval`` of its base: save and evaluate the model after ``optimizer.eval()``. Until
    ``optimizer.train()``, its state has a copy of the weights of the training too, so that this changes no later step.

    Args:
        base: an optimizer class of ``torch.optim`` whose metric is known, or any other with ``metric``.
        metric: how far the update moves a coordinate under a constant unit gradient, for a class that is not known.

    Raises:
        ValueError: the metric of ``base`` is not known and none is given.

    Examples:
        >>> import torchlasso as tl
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 0.1]))
        >>> optimizer = proximal(torch.optim.RAdam)([w], lr=0.1, penalty=tl.L1(), lam=0.4)
        >>> for _ in range(400):
        ...     optimizer.zero_grad()
        ...     ((w - torch.tensor([1.0, 0.2])) ** 2 / 2).sum().backward()
        ...     optimizer.step()
        >>> w.data
        tensor([0.6000, 0.0000])
    """
    if not (isinstance(base, type) and issubclass(base, Optimizer)):
        raise TypeError(f"proximal: base must be a class of torch.optim, such as torch.optim.Adam; got {shown(base)}")
    if metric is not None:
        check_kind("proximal: metric", metric, Metric, "a torchlasso.optim.Metric, or None")
    metric = metric or metric_for(base)
    if metric is None:
        known = ", ".join(names_of_metrics())
        raise ValueError(
            f"{base.__name__}: its metric is not known, so neither is the right threshold. Known are {known}. For "
            f"another optimizer give proximal({base.__name__}, metric=...), a torchlasso.optim.Metric whose step_size "
            "says how far the optimizer's update moves a coordinate under a constant unit gradient, or "
            "torchlasso.optim.NoMetric(), with which it needs no metric"
        )
    if (base, metric) in _CLASSES:
        return _CLASSES[base, metric]
    doc = f"``{base.__module__}.{base.__name__}``, then the prox in its metric; see :class:`Proximal`."
    own = {"base": base, "metric": metric, "__doc__": doc, "__reduce__": _reduce}
    mixin = WithModes if metric.averages_weights else Proximal
    cls = type(f"Prox{base.__name__}", (mixin, base), own)
    return _CLASSES.setdefault((base, metric), cls)


# One class for each pair, so that the classes of two optimizers can be compared and a pickled one is found again.
_CLASSES: dict[tuple[type[Optimizer], Metric], type[Proximal]] = {
    (cls.base, cls.metric): cls for cls in (ProxSGD, ProxAdam, ProxAdamW)
}


def _reduce(optimizer: Proximal) -> Any:
    """Return how a pickle makes the optimizer again: its class has no name that could be imported."""
    cls = type(optimizer)
    if _CLASSES.get((cls.base, cls.metric)) is not cls:  # derived from such a class
        return copyreg.__newobj__, (cls,), optimizer.__getstate__()  # type: ignore[attr-defined]
    return _restore, (cls.base, cls.metric), optimizer.__getstate__()


def _restore(base: type[Optimizer], metric: Metric) -> Proximal:
    cls = proximal(base, metric)
    return cls.__new__(cls)
