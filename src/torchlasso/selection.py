"""Selection: rules that assign penalties and their strengths to parameters."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchlasso._core.arguments import check_kind, check_model, shown
from torchlasso._core.parametrized import ComputedWeight, computed_from
from torchlasso.idle_penalties import note_term, watch
from torchlasso.penalties import Penalty, check_strength
from torchlasso.weights import is_weight, named_parameters

Group = dict[str, Any]
Predicate = Callable[[str, nn.Module, nn.Parameter], bool]


@dataclass(frozen=True)
class Rule:
    """A penalty and its relative strength for the parameters that match.

    Args:
        where: a name pattern such as ``"features.*"`` (matched against the parameter's full name as ``fnmatch``
            does), a module type or a tuple of them, or a function (name, module, parameter) ↦ bool.
        penalty: the penalty, or ``None`` for no penalty.
        scale: the factor on λ for these parameters.
        everything: whether to match biases and the parameters of normalisation layers, too.

    Examples:
        >>> import torchlasso as tl
        >>> net = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> rules = [tl.Rule("0.*", tl.L1(over=tl.Columns()), scale=0.5), tl.Rule("*", tl.L1())]
        >>> [(g["penalty"], g["lam"]) for g in tl.param_groups(net, rules, lam=1e-3) if g["penalty"]]
        [(L1(over=Columns(weighted=True)), 0.0005), (L1(over=Elements()), 0.001)]
    """

    where: str | type[nn.Module] | tuple[type[nn.Module], ...] | Predicate
    penalty: Penalty | None
    scale: float = 1.0
    everything: bool = False

    def __post_init__(self) -> None:
        check_strength(self.scale, "scale")
        if self.penalty is not None:
            check_kind("Rule: penalty", self.penalty, Penalty, "a Penalty such as torchlasso.L1(), or None")
        kinds = self.where if isinstance(self.where, tuple) else (self.where,)
        modules = [isinstance(kind, type) and issubclass(kind, nn.Module) for kind in kinds]
        plain = isinstance(self.where, str) or (callable(self.where) and not isinstance(self.where, type))
        if not (plain or (modules and all(modules))):
            raise TypeError(
                "Rule: where must be a name pattern, a module type, a tuple of these, or a function; "
                f"got {shown(self.where)}"
            )
        if not isinstance(self.everything, bool):
            raise TypeError(f"Rule: everything must be True or False; got {shown(self.everything)}")

    def matches(self, name: str, module: nn.Module, parameter: nn.Parameter) -> bool:
        """Return whether the rule matches this parameter of this module."""
        penalisable = self.everything or is_weight(name, module, parameter)
        if not (penalisable if self.penalty is None else self.penalty.over.are_for(name, penalisable)):
            return False
        if isinstance(self.where, str):
            return fnmatch.fnmatchcase(name, self.where)
        if isinstance(self.where, type | tuple):
            return isinstance(module, self.where)
        return self.where(name, module, parameter)


GroupKey = tuple[int, Penalty | None]  # the index of the matching rule, and its penalty fitted to the layer
_UNPENALISED: GroupKey = (-1, None)

# The keys of a group whose λ a weight decay of other weights is tied to, for their ratio, and of these weights.
RATIO, LATER = "decay_ratio", "decays"
# The key of a group with parameters that start large by their kind, tables of embeddings and the magnitudes of a weight
# normalisation: for each parameter, whether it is one.
LARGE = "large"
# The key of a group for the factors on λ of its parameters, ``lam_scales``, without a protection that lowers them.
FULL_SCALES = "full_scales"
# The key of a group for the sizes of its weights at the start, by which θ of a reweighting is multiplied.
SIZES = "sizes"


def param_groups(model: nn.Module, penalty: Penalty | Rule | Sequence[Rule], *, lam: float) -> list[Group]:
    """Return the parameters of ``model`` as groups for a proximal optimizer, or a torch optimizer with :func:`penalty`.

    Args:
        model: any module; shared parameters count once.
        penalty: a penalty for all weights (but not for biases and normalisation layers), or rules. The first rule that
            matches a parameter applies; parameters without a matching rule are not penalised. If a weight is computed
            from other parameters, as by ``weight_norm``, those parameters are penalised that make it zero by being
            zero: the magnitude, which counts as one weight for each row, but not the direction.
        lam: λ ≥ 0, the strength; the objective is mean loss + λ·penalty.

    Returns:
        Groups ``{"params", "names", "penalty", "lam"}``, the penalised ones first, then one with ``penalty`` None. A
        penalised group with weights of ``nn.Embedding`` or magnitudes of a ``weight_norm``, which start larger than
        layers do, has ``large``, too: for each parameter whether it is one.
        Under :class:`torchlasso.Inputs`, one more: all other weights that no rule matches, with a ``weight_decay`` tied
        to λ, without which they would grow and undo the penalty.

    Raises:
        ValueError: no parameter is penalised, or a rule has no effect because earlier rules match first.
        TypeError: ``model`` or ``penalty`` has the wrong type.

    Warns:
        UserWarning: a computed weight is left out because no parameter makes it zero, as under ``spectral_norm``.

    Examples:
        >>> import torchlasso as tl
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
        >>> [(g["penalty"], len(g["params"])) for g in param_groups(model, tl.L1(), lam=1e-4)]
        [(L1(over=Elements()), 2), (None, 4)]
    """
    check_model("param_groups: model", model)
    check_strength(lam)
    rules = _rules(penalty)
    watch()
    taken = [0] * len(rules)
    groups: dict[GroupKey, Group] = {}
    computed, left_out = computed_from(model), _LeftOut()
    parents = {child: module for module in model.modules() for child in module.children()}
    others: list[tuple[str, nn.Parameter]] = []  # the weights that no rule matches
    large: set[nn.Parameter] = set()
    for name, module, parameter in named_parameters(model):
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(f"{name} has no shape yet: run the model once on an input before param_groups")
        key, strength = _UNPENALISED, 0.0
        for index, rule in enumerate(rules):
            if rule.matches(name, module, parameter):
                taken[index] += 1
                if rule.penalty is None or left_out.is_for(rule.penalty, parameter, computed.get(parameter)):
                    break
                located = rule.penalty.within((module, parents.get(module, module)), parameter, name)
                key = (index, located.fit(module, name.rpartition(".")[2]))
                strength = lam * rule.scale
                break
        else:
            if is_weight(name, module, parameter) and (
                parameter not in computed or parameter in computed[parameter].penalisable
            ):
                others.append((name, parameter))
        group = groups.setdefault(key, {"params": [], "names": [], "penalty": key[1], "lam": strength})
        group["params"].append(parameter)
        group["names"].append(name)
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) or _is_magnitude(parameter, computed.get(parameter)):
            large.add(parameter)
    for group in groups.values():
        if group["penalty"] is not None and not large.isdisjoint(group["params"]):
            group[LARGE] = [p in large for p in group["params"]]
    _complain_of_idle_rules(model, rules, taken)
    for group in groups.values():
        over = None if group["penalty"] is None else group["penalty"].over
        if over is not None and (missing := over.missing_from(group["names"])):
            raise ValueError(
                f"{over} needs all of its parameters in one group, and {', '.join(missing[:6])} "
                f"{'is' if len(missing) == 1 else 'are'} not in it: put its rule before the others, and let it match "
                "all of them"
            )
    if not any(group["penalty"] for group in groups.values()):
        raise ValueError(
            f"nothing is penalised: {left_out or 'the model has no weight that a rule with a penalty matches'}"
        )
    left_out.warn()
    return _balanced(sorted(groups.values(), key=lambda group: group["penalty"] is None), others)


def _is_magnitude(parameter: nn.Parameter, weight: ComputedWeight | None) -> bool:
    """Return whether a parameter has one number for each row, or for all, of a weight that is computed from it."""
    along_rows = parameter.numel() == max(parameter.shape, default=1)
    return along_rows and weight is not None and parameter in weight.penalisable


def _balanced(groups: list[Group], others: list[tuple[str, nn.Parameter]]) -> list[Group]:
    """Give a weight decay to the weights that would otherwise undo the penalty of a group."""
    for group in groups:
        ratio = group["penalty"].over.balance(group["params"]) if group["penalty"] else 0.0
        if not ratio or not others:
            continue
        names, params = map(list, zip(*others, strict=True))
        later = {"params": params, "names": names, "penalty": None, "lam": 0.0, LATER: True}
        group[RATIO] = ratio
        kept = [each for each in groups if each["penalty"] is not None]
        rest = [
            (p, name) for g in groups if g["penalty"] is None for p, name in zip(g["params"], g["names"], strict=True)
        ]
        rest = [(p, name) for p, name in rest if name not in names]
        last = {"params": [p for p, _ in rest], "names": [name for _, name in rest], "penalty": None, "lam": 0.0}
        groups = [*kept, later, *([last] if rest else [])]
        balance(group, groups)
        break
    return groups


def balance(group: Group, groups: Iterable[Group]) -> None:
    """Set the weight decay that is tied to λ of a group, for its present λ, in the others of an optimizer.

    The latent form has none: its λ is relative to the size of the gradients, which does not change with their scale.
    """
    ratio = group.get(RATIO, 0.0) if group.get("form") != "latent" else 0.0
    for other in groups if RATIO in group else ():
        if LATER in other:
            other["weight_decay"] = ratio * group["lam"]


def full_scales(group: Group) -> list[float]:
    """Return the factors on λ of the parameters of a group without protection."""
    return list(group.get(FULL_SCALES) or [1.0] * len(group["params"]))


class _LeftOut:
    """The computed weights that a rule matches, though none of their parameters can be penalised."""

    def __init__(self) -> None:
        self.weights: dict[str, bool] = {}  # by name: whether one of its parameters is penalised

    def is_for(self, penalty: Penalty, parameter: nn.Parameter, weight: ComputedWeight | None) -> bool:
        """Record a parameter that a rule with a penalty matches, and return whether it cannot be penalised."""
        if weight is None:
            return False
        sound = parameter in (weight.together if penalty.over.joint else weight.penalisable)
        self.weights[weight.name] = self.weights.get(weight.name, False) or sound
        return not sound

    def __str__(self) -> str:
        names = [name for name, penalised in self.weights.items() if not penalised]
        shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
        return f"no parameter that {shown} is computed from makes it zero by being zero" if names else ""

    def __bool__(self) -> bool:
        return bool(str(self))

    def warn(self) -> None:
        if self:
            warnings.warn(f"param_groups leaves weights out: {self}", stacklevel=3)


def _rules(penalty: Any) -> list[Rule]:
    if isinstance(penalty, Penalty):
        return [Rule("*", penalty)]
    if isinstance(penalty, Rule):
        return [penalty]
    if isinstance(penalty, Sequence) and penalty and all(isinstance(rule, Rule) for rule in penalty):
        return list(penalty)
    raise TypeError(
        "param_groups: penalty must be a Penalty such as torchlasso.L1(), a Rule or a list of Rules; "
        f"got {shown(penalty)}"
    )


def _complain_of_idle_rules(model: nn.Module, rules: list[Rule], taken: list[int]) -> None:
    for rule, count in zip(rules, taken, strict=True):
        if count:
            continue
        parameters = list(named_parameters(model))
        if any(rule.matches(*parameter) for parameter in parameters):
            why = "earlier rules take all that it matches; put it before them"
        elif any(Rule(rule.where, None, everything=True).matches(*parameter) for parameter in parameters):
            why = "it matches only biases or normalisation layers; give everything=True to penalise these"
        else:
            names = ", ".join(name for name, _, _ in parameters[:6]) or "none"
            why = f"it matches no parameter; there are {names}{', …' if len(parameters) > 6 else ''}"
        raise ValueError(f"rule for {rule.where!r} has no effect: {why}")


def penalty(groups: Iterable[Group]) -> Tensor:
    """Return the plain loss term Σ λΩ(w) of the textbooks, differentiable: ``loss + penalty(groups)``.

    With this term alone no weight becomes exactly zero; use a proximal optimizer for that. For sharded parameters, the
    result is the penalty of the whole model on every process, and every process has to call this function.

    Args:
        groups: as :func:`param_groups` returns them.

    Examples:
        >>> import torchlasso as tl
        >>> w = nn.Parameter(torch.tensor([[1.0, -2.0]]))
        >>> penalty([{"params": [w], "penalty": tl.L1(), "lam": 0.5}])
        tensor(1.5000, grad_fn=<SumBackward0>)
    """
    groups = check_groups("penalty: groups", groups)
    terms = [rule.value(w, lam) for w, rule, lam in penalised(groups)]
    if not terms:
        raise ValueError("penalty: groups must contain a group with a penalty")
    for group in groups:
        note_term(group["params"])
    return torch.stack(terms).sum()


def check_groups(name: str, groups: Any) -> list[Group]:
    """Check groups, and return them as a list.

    Raises:
        TypeError: they are not groups made by :func:`param_groups`.
    """
    found = list(groups) if isinstance(groups, Iterable) and not isinstance(groups, str | Tensor | dict) else None
    if found is None or not all(isinstance(group, dict) and "params" in group for group in found):
        raise TypeError(
            f"{name} must come from torchlasso.param_groups(...) or optimizer.penalised_groups(); got {shown(groups)}"
        )
    if not all("penalty" in group for group in found):
        raise TypeError(
            f"{name}: a group has no 'penalty'; use the groups of torchlasso.param_groups(...) or, with a proximal "
            "optimizer, optimizer.penalised_groups()"
        )
    return found


def penalised(
    groups: Iterable[Group], read: Callable[[nn.Parameter], Tensor] = lambda parameter: parameter
) -> Iterator[tuple[Tensor, Penalty, Any]]:
    """Yield the views of all penalised parameters, each with its penalty and its λ: a number, or one per block.

    For most kinds of blocks the views are the parameters themselves (:class:`~torchlasso.penalties.blocks.Blocks`).

    Args:
        groups: as :func:`param_groups` returns them.
        read:  parameter ↦ the tensor to take in its place, such as its gradient.
    """
    for group in groups:
        params, penalty = group["params"], group["penalty"]
        if penalty is None or not params:
            continue
        tensors = penalty.over.views(list(map(read, params)))
        weights = group.get("weights") or penalty.over.strengths(params, [1.0] * len(params))
        for tensor, weight in zip(tensors, weights, strict=True):
            yield tensor, penalty.as_view(), group["lam"] * weight
