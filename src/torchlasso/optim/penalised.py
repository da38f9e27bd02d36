"""Parameter groups with penalties: their options, the factors on their λ, and the state that is saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from torchlasso.optim.buckets import DECAY_SCALES
from torchlasso.optim.checks import check_group, check_loaded, check_order, check_state
from torchlasso.optim.latent_form import LATENT, THRESHOLD, factors_of
from torchlasso.optim.metric import Metric
from torchlasso.optim.normal_form import OFFSET
from torchlasso.penalties import Penalty, check_strength
from torchlasso.penalties.blocks import Strength
from torchlasso.penalties.reweighting import Reweighting
from torchlasso.selection import FULL_SCALES, LARGE, LATER, SIZES, Group, balance

# The options of a group that are not those of torch's optimizer, besides the gains of its averaging.
OWN = ("lam", "lam_scales", "averaging", "lr_peak", "form", "held", "cut", "thresholds", "reaches", "reach_peak")


class PenalisedOptimizer(Optimizer):
    """The parameter groups of a proximal optimizer, each with its penalty.

    Attributes:
        base: the torch optimizer.
        metric: the metric of its updates.
        penalties: the penalty of each group, None for groups without one.
        weights: the factors on λ of the blocks of some parameters.
        names: the names of the parameters whose groups came with names.
    """

    base: ClassVar[type[Optimizer]]
    metric: ClassVar[Metric]
    penalties: list[Penalty | None]
    weights: dict[Tensor, Tensor | Reweighting]
    names: dict[Tensor, str]

    def __init__(
        self,
        params: Any,
        *args: Any,
        penalty: Penalty | None = None,
        lam: float = 0.0,
        averaging: bool = True,
        form: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.penalties = []
        self.weights = {}
        self.names = {}
        self._seen: dict[Tensor, Any] = {}  # of the present step
        self._versions: dict[Tensor, int] = {}  # of parameters with latent weights, after the last step
        self._given: Group = {"penalty": penalty, "lam": lam, "averaging": averaging, "form": form or self.metric.form}
        super().__init__(params, *args, **kwargs)
        # A fused base would skip its update after an overflow without telling the prox: the scaler has to.
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
        if LATER in group and "weight_decay" not in self.defaults:
            raise ValueError(
                f"{self.base.__name__} has no weight decay, which the groups ask for: see torchlasso.Inputs"
            )
        super().add_param_group(group)
        group = self.param_groups[-1]
        zeros = [0.0] * len(group["params"])
        group.update(lam=float(lam), lr_peak=0.0, gains=zeros, plain_gains=list(zeros), thresholds=list(zeros))
        group.update(lam_scales=[1.0] * len(zeros), held=False, cut=1.0, reaches=list(zeros), reach_peak=0.0)
        for each in self.param_groups:
            balance(each, self.param_groups)
        self.penalties.append(penalty)
        try:
            check_group(group, penalty, self.base, self.metric)
        except (TypeError, ValueError):
            del self.param_groups[-1], self.penalties[-1]
            raise
        names = group.get("param_names", names)
        if names is not None:
            self.names.update(zip(group["params"], names, strict=True))

    def hold(self, held: bool = True) -> None:
        """Keep the zeros of all penalised groups as they are from now on, while the rest moves freely; or no longer.

        A held step forgets the latent weights: after a hold they start anew, at the weights.

        Raises:
            ValueError: see :meth:`check_hold`.
        """
        if held:
            self.check_hold()
        for group, penalty in zip(self.param_groups, self.penalties, strict=True):
            group["held"] = held and penalty is not None

    def accept_written(self) -> None:
        """Leave latent weights as they are at the next step: the caller changed weights and latent weights alike."""
        self._versions = {}

    def check_hold(self) -> None:
        """Raise ``ValueError`` if zeros cannot be held: those of singular values, and those of averaged weights."""
        if self.metric.averages_weights:
            raise ValueError(f"{self.base.__name__} averages weights over its steps, so their zeros cannot be held")
        for penalty in self.penalties:
            if penalty is not None and not penalty.over.of_weights:
                raise ValueError(f"the zeros of {penalty} are not weights, so they cannot be held")

    def name_of(self, p: Tensor) -> str:
        """Return the name of a parameter in messages, or its shape if its group came without names."""
        return self.names.get(p, f"a parameter of shape {tuple(p.shape)}")

    def penalised_groups(self) -> list[Group]:
        """Return the groups with a penalty, as :func:`torchlasso.param_groups` does, and the factors on their λ.

        ``held`` says whether their zeros are held, so that λ has no part in a step.

        In the latent form they also have ``scales``, the sizes in which λ is a threshold on each parameter's gradient.
        """
        return [
            {
                "params": group["params"],
                "penalty": penalty,
                "lam": group["lam"],
                "held": group["held"],
                "weights": self._factors(group, penalty),
                **self._scales(group),
            }
            for group, penalty in zip(self.param_groups, self.penalties, strict=True)
            if penalty is not None
        ]

    def _scales(self, group: Group) -> Group:
        """Return the metric of each parameter of a group in the latent form, as far as it has one."""
        if group["form"] != "latent":
            return {}
        states = [self.state.get(p) for p in group["params"]]
        return {"scales": [self.metric.scale(group, state) if state else None for state in states]}

    def _factors(self, group: Group, penalty: Penalty) -> list[Strength]:
        """Return the factor on λ for each view of the blocks."""
        together = penalty.over.together
        found: list[Strength] = []
        for params, scales in zip(together(group["params"]), together(group["lam_scales"]), strict=True):
            weights = self.weights.get(params[0])
            if isinstance(weights, Reweighting):
                weights = factors_of(weights, penalty.over, params)
            found += penalty.over.strengths(params, scales, weights)
        return found

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
            for name in ("gains", "plain_gains", "lam_scales", "thresholds", "reaches"):
                del group[name]  # a number for each parameter
            for name in (DECAY_SCALES, FULL_SCALES, SIZES, LARGE):
                group.pop(name, None)
        with self._groups_replaced(shown):
            return super().__repr__()

    def load_plain_state_dict(self, state_dict: Mapping[str, Any], params: nn.Module | Iterable[Tensor]) -> None:
        """Load the state of a plain torch optimizer that had other groups: a dense training goes on with a penalty.

        Averages, ages and other state of each parameter are taken over. Rates and other options stay those that the
        groups have here, so give the present rate to the optimizer or its scheduler.

        Args:
            state_dict: of the plain optimizer, such as an ``AdamW`` for :class:`torchlasso.ProxAdamW`.
            params: the parameters in the order in which it was given them: a model, if it was given
                ``model.parameters()``, or the parameters of its groups one after the other.

        Raises:
            ValueError: it had another number of parameters, or parameters of other shapes.

        Examples:
            >>> import torch, torchlasso as tl
            >>> model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
            >>> plain = torch.optim.AdamW(model.parameters(), lr=0.01)
            >>> model(torch.ones(2, 3)).sum().backward()
            >>> plain.step()
            >>> optimizer = tl.ProxAdamW(tl.param_groups(model, tl.L1(), lam=1e-3), lr=0.01)
            >>> optimizer.load_plain_state_dict(plain.state_dict(), model)
            >>> [int(optimizer.state[p]["step"]) for p in model.parameters()]
            [1, 1, 1, 1]
        """
        self.load_state_dict(self.regrouped(state_dict, params))

    def regrouped(self, state_dict: Mapping[str, Any], params: nn.Module | Iterable[Tensor]) -> dict[str, Any]:
        """Return the state of a plain optimizer in the groups of this one; see :meth:`load_plain_state_dict`."""
        given = list(params.parameters() if isinstance(params, nn.Module) else params)
        order = [i for group in state_dict["param_groups"] for i in group["params"]]
        own = [p for group in self.param_groups for p in group["params"]]
        if len(order) != len(given) or set(given) != set(own):
            raise ValueError(
                f"load_plain_state_dict: the state is that of {len(order)} parameters, params has {len(given)} and "
                f"this optimizer {len(own)}; give those of the plain optimizer in its order, here the same ones"
            )
        states = {p: state_dict["state"].get(i, {}) for i, p in zip(order, given, strict=True)}
        for p, state in states.items():
            check_state(self.name_of(p), p, state)
        new = self.state_dict()
        for group in new["param_groups"]:
            del group["gains"], group["plain_gains"]  # they follow from the state
        new["state"] = {i: states[p] for i, p in enumerate(own) if states[p]}
        return new

    def set_penalty(self, group: int, penalty: Penalty | None, lam: float = 0.0) -> None:
        """Give a group another penalty, its first, or none, in the middle of training.

        The state of the optimizer stays; latent weights and factors on λ begin anew. A controller of the group goes on
        from the new λ.

        Args:
            group: the index of the group in ``param_groups``.
            penalty: the penalty, or None.
            lam: λ.

        Raises:
            ValueError: λ is negative or not finite, or the penalty does not suit the group.

        Examples:
            >>> import torch, torchlasso as tl
            >>> first, second = torch.nn.Linear(3, 4), torch.nn.Linear(4, 1)
            >>> groups = [{"params": first.weight, "penalty": tl.L1(), "lam": 0.1}]
            >>> optimizer = tl.ProxSGD([*groups, {"params": second.weight, "penalty": None}], lr=0.1)
            >>> optimizer.set_penalty(1, tl.L1(over=tl.Rows()), lam=0.01)
            >>> optimizer.penalties
            [L1(over=Elements()), L1(over=Rows(weighted=True))]
        """
        check_strength(lam)
        options = self.param_groups[group]
        new = {**options, "lam": float(lam) if penalty is not None else 0.0}
        if penalty is not None and penalty.over.joint:
            raise ValueError(f"set_penalty: {penalty} needs groups made with torchlasso.param_groups")
        check_group(new, penalty, self.base, self.metric)
        if "initial_lam" in options:  # a controller multiplies it
            options["initial_lam"] = new["lam"]
            new["lam"] *= prod(options.get("lam_factors", []))
        options.update(lam=new["lam"], held=options["held"] and penalty is not None)
        options["thresholds"] = [0.0] * len(options["params"])
        for p in options["params"]:
            self.weights.pop(p, None)
            for name in (LATENT, THRESHOLD, OFFSET):
                self.state.get(p, {}).pop(name, None)
        self.penalties[group] = penalty

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of this class, or of the plain optimizer with the same groups.

        Raises:
            ValueError: the groups are other ones, or in another order; the state is that of another form, or of an
                optimizer with other options. Then nothing is loaded.
        """
        own, groups = [p for group in self.param_groups for p in group["params"]], self.param_groups
        present = {"state": self.state, "param_groups": groups}
        super().load_state_dict(state_dict)
        self.accept_written()  # the weights may be loaded before or after
        try:
            check_loaded(self.param_groups, groups, self.defaults)
            for p in own:
                check_order(self.name_of(p), p, self.state.get(p, {}))
        except ValueError:
            self.__dict__.update(present)
            raise
        kept = (i for group in state_dict["param_groups"] for i in group["params"])
        for i, p in zip(kept, [p for group in self.param_groups for p in group["params"]], strict=True):
            threshold = state_dict["state"].get(i, {}).get(THRESHOLD)
            if threshold is not None:  # torch would round it to the precision of the parameter
                self.state[p][THRESHOLD] = threshold.detach().clone().to(p.device)

    def __getstate__(self) -> dict[str, Any]:
        own = {
            "penalties": self.penalties,
            "weights": self.weights,
            "names": self.names,
            "_given": self._given,
            "_seen": {},
            "_versions": {},
        }
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # torch also calls this in load_state_dict: options that a file of the plain optimizer lacks are kept
        for new, old in zip(state["param_groups"], self.__dict__.get("param_groups", []), strict=False):
            for key in OWN:
                new.setdefault(key, old[key])
            if DECAY_SCALES in old:
                new.setdefault(DECAY_SCALES, old[DECAY_SCALES])
            if "gains" not in new:
                states = [state["state"].get(p) for p in new["params"]]
                new["gains"] = [self.metric.first_gain(new, s) if s else 0.0 for s in states]
                new["plain_gains"] = list(new["gains"])
        super().__setstate__(state)
        self.__dict__.setdefault("_versions", {})  # of a copy from an earlier version
