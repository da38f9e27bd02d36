"""The proximal forms of torch's optimizers."""

from __future__ import annotations

import copyreg
from typing import Any

import torch
from torch.optim import Optimizer

from torchlasso._core.arguments import check_kind, shown
from torchlasso.optim.base import Proximal
from torchlasso.optim.metrics import Metric, known_metrics


class ProxSGD(Proximal, torch.optim.SGD):
    """Proximal gradient descent: ``torch.optim.SGD`` (momentum, dampening, Nesterov), then the prox.

    Arguments are those of ``torch.optim.SGD`` and of :class:`Proximal`. Every penalty is possible over every blocks.

    Examples:
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

    Arguments are those of ``torch.optim.Adam`` and of :class:`Proximal`.

    Examples:
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

    Arguments are those of ``torch.optim.AdamW`` and of :class:`Proximal`.

    Examples:
        >>> import torchlasso as tl
        >>> model = torch.nn.Linear(4, 2)
        >>> ProxAdamW([model.weight], lr=1e-3, penalty=tl.L1(), lam=1e-4).param_groups[0]["lam"]
        0.0001
    """

    base = torch.optim.AdamW
    metric = known_metrics()[torch.optim.AdamW]


def proximal(base: type[Optimizer], metric: Metric | None = None) -> type[Proximal]:
    """The proximal form of a torch optimizer class.

    Args:
        base: an optimizer class of ``torch.optim`` whose metric is known, or any other with ``metric``.
        metric: how far the update moves a coordinate under a constant unit gradient, for a class that is not known.

    Raises:
        ValueError: the metric of ``base`` is not known and none is given.

    Examples:
        >>> import torchlasso as tl
        >>> proximal(torch.optim.RAdam).__name__
        'ProxRAdam'
    """
    if not (isinstance(base, type) and issubclass(base, Optimizer)):
        raise TypeError(f"proximal: base must be a class of torch.optim, such as torch.optim.Adam; got {shown(base)}")
    if metric is not None:
        check_kind("proximal: metric", metric, Metric, "a torchlasso.optim.Metric, or None")
    metric = metric or known_metrics().get(base)
    if metric is None:
        known = ", ".join(sorted(cls.__name__ for cls in known_metrics()))
        raise ValueError(
            f"{base.__name__}: its metric is not known, so neither is the right threshold. Known are {known}. For "
            f"another optimizer give proximal({base.__name__}, metric=...), a torchlasso.optim.Metric whose step_size "
            "says how far the optimizer's update moves a coordinate under a constant unit gradient"
        )
    if (base, metric) in _CLASSES:
        return _CLASSES[base, metric]
    doc = f"``{base.__module__}.{base.__name__}``, then the prox in its metric; see :class:`Proximal`."
    own = {"base": base, "metric": metric, "__doc__": doc, "__reduce__": _reduce}
    cls = type(f"Prox{base.__name__}", (Proximal, base), own)
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
