"""The features of a model's inputs as blocks: the weights that read each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchlasso._core.arguments import check_inputs, check_model, check_whole, shown
from torchlasso._core.running import ExampleInputs
from torchlasso.graph.features import find_features
from torchlasso.graph.operators import rule_of
from torchlasso.graph.tracing import trace
from torchlasso.penalties import check_strength
from torchlasso.penalties.joint import Joint

Groups = Sequence[Sequence[int]] | Mapping[str, Sequence[int]]


class Inputs(Joint):
    """The features of a model's inputs: one block for each feature, with all weights that read it.

    The block of a feature contains the slices of all weights that multiply it: the columns of each linear layer that
    reads it, the input channel of a convolution, the columns of a recurrent layer, the row of an embedding, and scales
    that multiply it before. If a block is zero, its feature cannot change the outputs, to the bit.

    With ``L1``, the penalty is λ Σ_j √|j| ‖w_j‖₂ with |j| the number of weights in block j: the group lasso of Yuan and
    Lin (2006) on features. Behind a rectifier, the next layer could grow while these weights shrink, and the penalty
    would fall for nothing. So :func:`torchlasso.param_groups` gives all other weights that no rule matches a weight
    decay tied to λ: with μ = λ·(the mean of √|j|), the objective is

        f(w) + λ Σ_j √|j| ‖w_j‖₂ + μ/2 Σ ‖v‖₂²

    with v the other weights. ``Rule("*", None)`` after the rule of the features turns it off.

    Features lie along dimension 1 of a table; of images and sequences they are the finest parts that have weights of
    their own (pixels if a flattened image is read by a linear layer, channels if a convolution reads it). If one
    embedding looks up several elements of a tensor, its features are the rows, such as words. The features of several
    tensors are numbered one tensor after the other, rows last.

    Args:
        model: any model that ``torch.export`` can export.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments; dimension 0 is the batch.
        groups: features that are kept or removed together, such as the one-hot columns of a category: lists of their
            numbers, or a mapping from names to lists. All other features have a block each.
        weights: a factor on λ for each feature, in the place of √|j|; the same within a group.
        keep: the features that are not penalised: numbers, or names of groups. They may be used in any way.

    Attributes:
        features: the number of features.
        blocks: the features of each block, in increasing order of their first; features that are kept or that nothing
            reads have none.
        block_names: the name of each block: that of its group, or its first feature's number.
        kept: the features that are not penalised.

    Raises:
        ValueError: the model cannot be exported; a feature reaches the outputs by a way that no weights of its own
            close, such as a normalisation over all features; the message names the operator. Groups overlap or are
            not features.

    Examples:
        >>> import torchlasso as tl
        >>> net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> inputs = tl.Inputs(net, torch.randn(2, 5), groups={"colour": [1, 2, 3]}, keep=[0])
        >>> inputs.block_names, inputs.blocks
        (('colour', '4'), ((1, 2, 3), (4,)))
        >>> net[0].weight.data[:, 1:4] = 0.0
        >>> inputs.live(net)
        tensor([ True, False, False, False,  True])
    """

    carry: ClassVar[bool] = False
    noun: ClassVar[str] = "features"
    features: int
    blocks: tuple[tuple[int, ...], ...]
    block_names: tuple[str, ...]
    kept: tuple[int, ...]
    _order: tuple[tuple[int, ...], ...]

    def __init__(
        self,
        model: nn.Module,
        example_inputs: ExampleInputs,
        groups: Groups | None = None,
        weights: Sequence[float] | Tensor | None = None,
        keep: Sequence[int | str] = (),
    ) -> None:
        check_model("Inputs: model", model)
        check_inputs("Inputs: example_inputs", example_inputs)
        named = _named(groups)
        kept = _kept(keep, named)
        traced = trace(model, example_inputs, lambda target: rule_of(target) is not None)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        try:
            found = find_features(traced, trained, list(named.values()), kept)
        except ValueError as error:
            raise ValueError(
                f"Inputs: {error}; keep such features (keep=), or group those that are combined"
            ) from error
        features = len(found.block_of)
        for what, numbers in (("groups", [i for group in named.values() for i in group]), ("keep", kept)):
            if max(numbers, default=-1) >= features:
                raise ValueError(f"Inputs: {what} has feature {max(numbers)}, and the model has {features}, from 0 on")
        names = [name for name, _ in model.named_parameters() if name in {place[0] for place in found.places}]
        families = found.families(names) if names else []
        if not families:
            raise ValueError("Inputs: no trained weights read a feature that is not kept")
        members = found.members()
        order = torch.cat([own for own, _ in families]).tolist()  # the blocks in the order of the views
        factors = () if weights is None else _factors(weights, members, features, [own for own, _ in families])
        super().__init__(tuple(names), tuple(pieces for _, pieces in families), weights is None, factors)
        of_group = {min(group): name for name, group in named.items()} if isinstance(groups, Mapping) else {}
        read = sorted(order)
        known = {
            "features": features,
            "blocks": tuple(tuple(members[i]) for i in read),
            "block_names": tuple(of_group.get(members[i][0], str(members[i][0])) for i in read),
            "kept": tuple(sorted(kept)),
            "_order": tuple(tuple(members[i]) for i in order),
        }
        for name, value in known.items():
            object.__setattr__(self, name, value)

    @torch.no_grad()
    def balance(self, params: Sequence[Tensor]) -> float:
        each = self.as_view()
        pairs = zip(self.views(params), self.strengths(params, [1.0] * len(params)), strict=True)
        factors = [
            (each.weights(view) * strength * torch.ones(len(view), device=view.device)) for view, strength in pairs
        ]
        return float(torch.cat(factors).mean())

    @torch.no_grad()
    def live(self, model: nn.Module) -> Tensor:
        """Return a mask of the features, (features,): those with a weight other than zero, and those that are kept.

        Args:
            model: the model that the blocks were made for, or one with the same parameters.
        """
        tensors = dict(model.named_parameters())
        views = self.views([tensors[name] for name in self.names])
        alive = torch.cat([(view != 0).any(dim=1) for view in views]).tolist()
        found = [*self.kept, *(i for block, is_live in zip(self._order, alive, strict=True) if is_live for i in block)]
        mask = torch.zeros(self.features, dtype=torch.bool)
        mask[torch.tensor(found, dtype=torch.long)] = True
        return mask

    def __repr__(self) -> str:
        return f"Inputs({len(self.blocks)} blocks of {self.features} features)"


def _named(groups: Any) -> dict[str, list[int]]:
    """Return groups by name, or by number where they have no names."""
    if groups is None:
        return {}
    pairs = groups.items() if isinstance(groups, Mapping) else enumerate(groups) if _several(groups) else None
    if pairs is None:
        raise TypeError(
            f"Inputs: groups must be lists of numbers of features, or a mapping to them; got {shown(groups)}"
        )
    found, seen = dict[str, list[int]](), set[int]()
    for name, group in pairs:
        if not _several(group) or not len(group):
            raise ValueError(f"Inputs: group {name!r} must be a list of numbers of features; got {shown(group)}")
        for i in group:
            check_whole(f"Inputs: a feature of group {name!r}", i, 0)
        numbers = [int(i) for i in group]
        if twice := seen.intersection(numbers) or (set(numbers) if len(set(numbers)) < len(numbers) else set()):
            raise ValueError(f"Inputs: groups must not overlap; feature {min(twice)} is in two, or twice in one")
        seen.update(numbers)
        found[str(name)] = numbers
    return found


def _kept(keep: Any, named: Mapping[str, list[int]]) -> set[int]:
    if not _several(keep):
        raise TypeError(f"Inputs: keep must be a list of numbers of features or names of groups; got {shown(keep)}")
    found = set[int]()
    for each in keep:
        if isinstance(each, str):
            if each not in named:
                raise ValueError(f"Inputs: keep has {each!r}, which is not the name of a group; {shown(list(named))}")
            found.update(named[each])
        else:
            check_whole("Inputs: a feature of keep", each, 0)
            found.add(int(each))
    for name, group in named.items():
        if found.intersection(group) and not found.issuperset(group):
            raise ValueError(f"Inputs: keep has a part of group {name!r}; keep all of it, or nothing")
    return found


def _several(value: Any) -> bool:
    return isinstance(value, Sequence | Set | Tensor) and not isinstance(value, str)


def _factors(weights: Any, members: list[list[int]], features: int, families: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the factor on λ of each block, family after family, given that of each feature."""
    if not _several(weights) or len(weights) != features:
        expected = f"a number for each of the {features} features"
        got = f"{len(weights)} numbers" if _several(weights) else shown(weights)
        raise ValueError(f"Inputs: weights must be {expected}; got {got}")
    every = torch.as_tensor(weights, dtype=torch.float64)
    check_strength(every, "Inputs: weights")
    for group in members:
        if bool((every[group] != every[group[0]]).any()):
            raise ValueError(f"Inputs: weights must be equal within a group; features {group[:6]} have different ones")
    first = torch.tensor([group[0] for group in members])
    return tuple(every[first[own]] for own in families)
