"""Proximal optimizers: a torch optimizer whose every step ends in the prox of the penalty, so that zeros are exact."""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.optim import Optimizer

from torchlasso._core.arguments import check_kind, shown
from torchlasso.distributed.sharding import any_sharded
from torchlasso.optim.buckets import Cohort, cohorts_of, keep_gains
from torchlasso.optim.fused import device, updates
from torchlasso.optim.fused.cpu import Launch, launches_of
from torchlasso.optim.fused.program import is_elementwise
from torchlasso.optim.metrics import Metric, registry
from torchlasso.penalties import L1, Penalty, check_strength
from torchlasso.penalties.base import Strength
from torchlasso.penalties.joint import Joint
from torchlasso.penalties.parts import factors, joint_blocks, over_rows, prox_together_
from torchlasso.selection import Group

# With fused=None, so many weights or more are stepped by kernels. Measured in docs/results: below, what a step gains
# by them does not make up for the seconds that they take at the first.
MANY = 1_000_000


class Proximal(Optimizer):
    """Mixin over a torch optimizer: its update, then w ← prox_{τλΩ}(w) with τ from the unit-gradient rule.

    Each parameter group has ``lam``, a plain number that schedulers of λ may write as those of the rate write
    ``lr``; its penalty is kept in the list ``penalties``, parallel to ``param_groups``. Groups come from
    :func:`torchlasso.param_groups`, or get ``penalty`` and ``lam`` from the arguments of the same name. What else
    multiplies λ is ``lam_scales`` in each group, a number for each parameter, and ``weights``, which has for some
    parameters a tensor with a weight for every block; both are for controllers to write (:mod:`torchlasso.control`).

    With ``averaging`` the optimizer averages gradients over a window that grows as the learning rate falls,
    1 − β_t = (1 − β)·(lr_t/lr_peak)², lr_peak the largest rate so far, while the update under a constant gradient stays
    as long as it is: without it the noise of mini-batches revives zeros however small the rate (Xiao 2010; Lee and
    Wright 2012 on why proximal stochastic gradients do not identify the support). An optimizer that averages no
    gradients has nothing to lengthen.

    With ``fused=True`` :class:`ProxSGD`, :class:`ProxAdam` and :class:`ProxAdamW` do update and prox in one pass over
    memory, with kernels that torch's compiler makes at the first step (seconds, once on a machine); what cannot be a
    part of them (an odd memory layout, a prox over columns) is done as without it, and where there is no compiler a
    warning says so, once. ``fused=None`` does so on a CPU from a million weights on, where it pays. On other devices
    ``fused=True`` also computes all numbers of the step there, so that the host waits for nothing, and with
    ``capturable=True`` it can be captured in a graph.

    Raises:
        ValueError: no group has a penalty; λ is negative or not finite; the penalty has no sound prox in the
            optimizer's metric, or does not suit a parameter's shape.
    """

    base: ClassVar[type[Optimizer]]
    metric: ClassVar[Metric]
    penalties: list[Penalty | None]
    weights: dict[Tensor, Tensor]
    names: dict[Tensor, str]

    def __init__(
        self,
        params: Any,
        *args: Any,
        penalty: Penalty | None = None,
        lam: float = 0.0,
        averaging: bool = True,
        **kwargs: Any,
    ) -> None:
        self.penalties = []
        self.weights = {}
        self.names = {}
        self._given: Group = {"penalty": penalty, "lam": lam, "averaging": averaging}
        super().__init__(params, *args, **kwargs)
        # A fused base would skip its update after an overflow by itself, unseen by the prox: the scaler has to.
        self._step_supports_amp_scaling = False
        if not any(self.penalties):
            raise ValueError(
                f"{type(self).__name__}: no parameter group has a penalty; build the groups with "
                "torchlasso.param_groups(model, torchlasso.L1(), lam=...), or give penalty= and lam="
            )

    def add_param_group(self, param_group: Group) -> None:
        """Add a group, with its own ``penalty`` and ``lam`` if it has these."""
        group = {**self._given, **param_group}
        penalty, names = group.pop("penalty"), group.pop("names", None)
        lam = group.pop("lam") if penalty is not None else 0.0
        check_strength(lam)
        super().add_param_group(group)
        group = self.param_groups[-1]
        zeros = [0.0] * len(group["params"])
        group.update(lam=float(lam), lr_peak=0.0, gains=zeros, plain_gains=list(zeros))
        group["lam_scales"] = [1.0] * len(zeros)
        self.penalties.append(penalty)
        try:
            self._check_group(group, penalty)
        except (TypeError, ValueError):
            del self.param_groups[-1], self.penalties[-1]
            raise
        names = group.get("param_names", names)
        if names is not None:
            self.names.update(zip(group["params"], names, strict=True))

    def name_of(self, p: Tensor) -> str:
        """Return what a parameter is called in messages: its name, or its shape where its group came without names."""
        return self.names.get(p, f"a parameter of shape {tuple(p.shape)}")

    def _check_group(self, group: Group, penalty: Penalty | None) -> None:
        if group.get("differentiable"):
            raise ValueError("differentiable=True is not possible: a prox is not differentiable at its threshold")
        if group.get("fused") and self.base not in updates.registry() and any(p.is_meta for p in group["params"]):
            raise ValueError(
                f"fused=True: {self.base.__name__} has no fused step on the meta device; leave it out, or give the "
                "optimizer parameters on the CPU or a GPU"
            )
        check_kind("averaging", group["averaging"], bool, "True or False")
        if penalty is None:
            return
        if not isinstance(penalty, Penalty):
            raise TypeError(f"penalty must be a Penalty such as torchlasso.L1(); got {shown(penalty)}")
        if any(p.is_complex() for p in group["params"]):
            raise TypeError("complex parameters cannot be penalised: a zero would have to hold for both parts")
        shapes = [torch.empty_like(p, device="meta") for p in group["params"]]
        over = joint_blocks(penalty)
        if over is not None:
            if any_sharded(group["params"]):
                raise ValueError("blocks over several parameters need whole ones, and these are sharded")
            penalty, shapes = over_rows(penalty, over), over.gather(shapes)
        for w in shapes:
            penalty.prox(w, 1.0, w if self.metric.diagonal else 1.0)  # shapes only: raises what a step would raise

    def penalised_groups(self) -> list[Group]:
        """The groups that have a penalty, as :func:`torchlasso.param_groups` gives them, and what multiplies λ."""
        return [
            {
                "params": group["params"],
                "penalty": penalty,
                "lam": group["lam"],
                "weights": self._factors(group, penalty),
            }
            for group, penalty in zip(self.param_groups, self.penalties, strict=True)
            if penalty is not None
        ]

    def _factors(self, group: Group, penalty: Penalty) -> list[Strength]:
        """Return the factor on λ for each parameter, or for each family of joint blocks."""
        params, scales, over = group["params"], group["lam_scales"], joint_blocks(penalty)
        if over is not None:
            return factors(over, params, scales, self.weights.get(params[0]))
        return [scale * self.weights.get(p, 1.0) for p, scale in zip(params, scales, strict=True)]

    @_disable_dynamo  # torch.compile leaves the step as it is, which has kernels of its own
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update and its prox. ``closure`` is evaluated first, at the sparse weights, with gradients enabled."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        on_device = self._advance_on_devices()
        cohorts = cohorts_of(self.param_groups, self.penalties, self.metric, self.state, on_device)
        launches, rest = self._divided(cohorts)
        for cohort in rest:
            if cohort.penalty is not None:
                for p in cohort.options["params"]:
                    self.metric.guard(cohort.options, self.state.get(p, {}))
        if rest:
            with self._groups_replaced([cohort.options for cohort in rest]):
                _unhooked(self.base.step)(self)
        with torch.no_grad():
            for launch in launches:
                launch()
        done = [*rest, *(launch.cohort for launch in launches if not launch.shrinks)]
        for index, (group, penalty) in enumerate(zip(self.param_groups, self.penalties, strict=True)):
            own = [cohort for cohort in done if cohort.group == index]
            over = joint_blocks(penalty)
            if penalty is not None and over is not None:
                self._shrink_together(group, penalty, over, own)
            else:
                for cohort in own:
                    self._shrink(cohort)
        keep_gains(self.param_groups, cohorts)
        return loss

    def _advance_on_devices(self) -> list[int]:
        """Do the steps of the groups that are stepped on their device as a whole; which these are."""
        update_of = updates.registry().get(self.base)
        if update_of is None:
            return []
        found = []
        for index, (group, penalty) in enumerate(zip(self.param_groups, self.penalties, strict=True)):
            if device.is_for(group, penalty, self._is_weighted(group)):
                device.advance(group, penalty, self.metric, update_of(group), self.state)
                found.append(index)
        return found

    @torch.no_grad()
    def _divided(self, cohorts: list[Cohort]) -> tuple[list[Launch], list[Cohort]]:
        """The fused steps, and what is left to torch's own step and a prox after it."""
        update_of = updates.registry().get(self.base)
        if update_of is None:
            return [], cohorts
        # where there is no penalty, or none that can be fused, λ = 0 makes nothing of another one
        spare: Penalty = next((penalty for penalty in self.penalties if is_elementwise(penalty)), L1())
        launches: list[Launch] = []
        rest: list[Cohort] = []
        for cohort in cohorts:
            if not self._is_fused(cohort):
                rest.append(cohort)
                continue
            weights = [self.weights.get(p) for p in cohort.options["params"]]
            ready, others = launches_of(cohort, update_of(cohort.options), spare, self.state, weights)
            launches += ready
            rest += others
        return launches, rest

    def _is_weighted(self, group: Group) -> bool:
        return any(p in self.weights for p in group["params"])

    def _is_fused(self, cohort: Cohort) -> bool:
        fused, foreach = cohort.options["fused"], cohort.options["foreach"]
        if fused is not None or foreach is not None:
            return bool(fused)
        return sum(sum(map(Tensor.numel, group["params"])) for group in self.param_groups) >= MANY

    @torch.no_grad()
    def _shrink(self, cohort: Cohort) -> None:
        if cohort.penalty is None:
            return
        options, prox = cohort.options, cohort.penalty.prox
        for p in options["params"]:
            lam = options["lam"] * self.weights[p] if p in self.weights else options["lam"]
            p.copy_(prox(p, lam, self.metric.step_size(options, self.state.get(p, {}), cohort.gain)))

    @torch.no_grad()
    def _shrink_together(self, group: Group, penalty: Penalty, over: Joint, cohorts: list[Cohort]) -> None:
        """The prox of blocks that reach over all parameters of a group; one that has no gradient stays as it is."""
        if not cohorts or not group["lam"]:
            return
        found: dict[Tensor, float | Tensor] = {
            p: self.metric.step_size(cohort.options, self.state.get(p, {}), cohort.gain)
            for cohort in cohorts
            for p in cohort.options["params"]
        }
        params = group["params"]
        steps = [found.get(p, 0.0) for p in params]
        prox_together_(
            penalty, over, params, steps, [group["lam"] * factor for factor in self._factors(group, penalty)]
        )

    @contextmanager
    def _groups_replaced(self, groups: list[Group]) -> Iterator[None]:
        kept, self.param_groups = self.param_groups, groups
        try:
            yield
        finally:
            self.param_groups = kept

    def __repr__(self) -> str:
        groups = zip(self.param_groups, self.penalties, strict=True)
        shown = [{**group, "penalty": penalty} for group, penalty in groups]
        for group in shown:
            del group["gains"], group["plain_gains"], group["lam_scales"]  # a number for each parameter
        with self._groups_replaced(shown):
            return super().__repr__()

    def __getstate__(self) -> dict[str, Any]:
        own = {"penalties": self.penalties, "weights": self.weights, "names": self.names, "_given": self._given}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # torch calls this on load_state_dict too: what the plain optimizer's file lacks is taken from here
        for new, old in zip(state["param_groups"], self.__dict__.get("param_groups", []), strict=False):
            for key in ("lam", "lam_scales", "averaging", "lr_peak"):
                new.setdefault(key, old[key])
            if "gains" not in new:
                states = [state["state"].get(p) for p in new["params"]]
                new["gains"] = [self.metric.first_gain(new, s) if s else 0.0 for s in states]
                new["plain_gains"] = list(new["gains"])
        super().__setstate__(state)

    def __reduce__(self) -> Any:
        cls = type(self)
        if _CLASSES.get((self.base, self.metric)) is not cls:
            return copyreg.__newobj__, (cls,), self.__getstate__()  # type: ignore[attr-defined]
        # a class made by proximal() has no importable name: it is made again
        return _restore, (self.base, self.metric), self.__getstate__()


def _restore(base: type[Optimizer], metric: Metric) -> Proximal:
    cls = proximal(base, metric)
    return cls.__new__(cls)


def _unhooked(step: Callable[..., Any]) -> Callable[..., Any]:
    """The optimizer's step without the wrapper that runs hooks: they run once, around the whole proximal step."""
    return step.__wrapped__ if getattr(step, "hooked", False) else step  # type: ignore[attr-defined]


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
    metric = registry()[torch.optim.SGD]


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
    metric = registry()[torch.optim.Adam]


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
    metric = registry()[torch.optim.AdamW]


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
    metric = metric or registry().get(base)
    if metric is None:
        known = ", ".join(sorted(cls.__name__ for cls in registry()))
        raise ValueError(
            f"{base.__name__}: its metric is not known, so neither is the right threshold. Known are {known}. For "
            f"another optimizer give proximal({base.__name__}, metric=...), a torchlasso.optim.Metric whose step_size "
            "says how far the optimizer's update moves a coordinate under a constant unit gradient"
        )
    if (base, metric) in _CLASSES:
        return _CLASSES[base, metric]
    doc = f"``{base.__module__}.{base.__name__}``, then the prox in its metric; see :class:`Proximal`."
    cls = type(f"Prox{base.__name__}", (Proximal, base), {"base": base, "metric": metric, "__doc__": doc})
    return _CLASSES.setdefault((base, metric), cls)


# One class for each pair, so that the classes of two optimizers can be compared and a pickled one is found again.
_CLASSES: dict[tuple[type[Optimizer], Metric], type[Proximal]] = {
    (cls.base, cls.metric): cls for cls in (ProxSGD, ProxAdam, ProxAdamW)
}
