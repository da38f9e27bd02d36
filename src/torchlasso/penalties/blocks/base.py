"""Blocks: the magnitudes of tensors that a penalty acts on, and the registry of their kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from torchlasso._core.arguments import shown
from torchlasso._core.registry import Registry

Rebuild = Callable[[Tensor], Tensor]
Strength = float | Tensor
B = TypeVar("B", bound="type[Blocks]")
T = TypeVar("T")
_REGISTRY: Registry[str, type[Blocks]] = Registry("blocks")


def register(name: str) -> Callable[[B], B]:
    """Return a class decorator: the command line and the tests know the blocks under this name.

    Raises:
        ValueError: another kind of blocks has the name.
        TypeError: the decorated object is not a kind of blocks.
    """

    def decorate(cls: B) -> B:
        if not (isinstance(cls, type) and issubclass(cls, Blocks)):
            raise TypeError(f"register({name!r}) decorates a class that derives from Blocks; got {shown(cls)}")
        _REGISTRY.enter(name, cls)
        return cls

    return decorate


def registry() -> Mapping[str, type[Blocks]]:
    """Return all kinds of blocks by name.

    >>> registry()["rows"]
    <class 'torchlasso.penalties.blocks.partitions.Rows'>
    """
    return _REGISTRY


class Blocks(ABC):
    """The magnitudes of weight tensors that a penalty acts on.

    Most kinds divide each tensor by itself. *Joint* blocks reach over several tensors of one group. So every kind has
    *views*: tensors such that each block is inside one of them. For most kinds these are the tensors themselves; for
    joint blocks they are matrices with one block a row.
    """

    single: ClassVar[bool] = False  # whether a block is one coordinate, so that a per-coordinate step is one per block
    stable: ClassVar[bool] = False  # whether blocks stay the same, with fewer weights, if slices are removed
    spares: ClassVar[bool] = False  # whether spared() leaves some blocks without a penalty
    joint: ClassVar[bool] = False  # whether a block reaches over several tensors, all of one group
    symmetric: ClassVar[bool] = True  # whether w and −w have the same magnitudes
    of_weights: ClassVar[bool] = True  # whether a block is a set of weights, which are zero where its magnitude is
    carry: ClassVar[bool] = True  # whether a model is cut off if all blocks of a parameter are zero
    noun: ClassVar[str] = "blocks"  # the name of the blocks in messages, and of targets for their number

    @abstractmethod
    def decompose(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        """Return the magnitudes r of ``w``, and the function that puts new magnitudes in their place.

        Examples:
            >>> from torchlasso.penalties.blocks import Rows
            >>> r, rebuild = Rows().decompose(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
            >>> r
            tensor([5., 0.])
            >>> rebuild(torch.tensor([10.0, 1.0]))
            tensor([[6., 8.],
                    [0., 0.]])
        """

    @abstractmethod
    def distance(self, w: Tensor, grad: Tensor, dphi: Rebuild) -> Tensor:
        """Return dist(−grad, ∂Ω(w)) per block, for Ω = Σ φ(r) and ``dphi``: r ↦ φ′(r), φ′(0+) at r = 0."""

    @abstractmethod
    def rows(self, w: Tensor) -> tuple[Tensor, Rebuild]:
        """Return ``w`` as a matrix with one block a row, (n_blocks, size), and the function that puts one back."""

    def are_for(self, name: str, is_weight: bool) -> bool:
        """Return whether a penalty on these blocks applies to a parameter.

        Args:
            name: the name of the parameter.
            is_weight: whether it is a weight, or the rule of the penalty includes all other parameters as well.

        Examples:
            >>> from torchlasso.penalties.blocks import Rows
            >>> Rows().are_for("0.weight", is_weight=True), Rows().are_for("0.bias", is_weight=False)
            (True, False)
        """
        return is_weight

    def missing_from(self, names: Sequence[str]) -> list[str]:
        """Return the parameters that the blocks reach over and that a group does not have."""
        return []

    def together(self, tensors: Sequence[T]) -> list[Sequence[T]]:
        """Divide the tensors of a group, or values that go with them, into the sets that no block reaches beyond.

        Examples:
            >>> from torchlasso.penalties.blocks import Rows
            >>> Rows().together(["0.weight", "1.weight"])
            [['0.weight'], ['1.weight']]
        """
        return [[tensor] for tensor in tensors]

    def as_view(self) -> Blocks:
        """Return the blocks of each view by itself."""
        return self

    def views(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the views of the tensors of one or more sets; differentiable.

        Args:
            tensors: the parameters, or values for each of their elements, such as gradients.
        """
        return list(tensors)

    def put_(self, tensors: Sequence[Tensor], new: Sequence[Tensor]) -> None:
        """Write new views into the tensors; elements that belong to no block stay as they are."""
        for tensor, view in zip(tensors, new, strict=True):
            if view is not tensor:
                tensor.copy_(view)

    def steps(self, tensors: Sequence[Tensor], steps: Sequence[Strength | None]) -> list[Strength | None]:
        """Return the step of each view, a number or a tensor like it; None, as for a tensor, where it stays."""
        return list(steps)

    def owners(self, tensors: Sequence[Tensor]) -> list[int]:
        """Return, for each view of one set, the number of the tensor whose λ is that of its blocks."""
        return list(range(len(tensors)))

    def strengths(
        self, tensors: Sequence[Tensor], lams: Sequence[float], weights: Tensor | None = None
    ) -> list[Strength]:
        """Return λ of each view of one set: a number, or one for each of its blocks.

        Args:
            tensors: the parameters of the set.
            lams: λ of each.
            weights: a factor on λ for each block, view after view.
        """
        return [lam if weights is None or not lam else lam * weights for lam in lams]

    def sizes_in(self, tensors: Sequence[Tensor]) -> list[list[tuple[int, int | Tensor]]]:
        """Return, for each view, the tensors that its blocks reach over, and how many weights a block has in each.

        Args:
            tensors: of one or more sets.

        Returns:
            Pairs of the number of a tensor, and a number of weights or one for each block.

        Examples:
            >>> from torchlasso.penalties.blocks import Elements, Rows
            >>> Rows().sizes_in([torch.ones(6, 4), torch.ones(2, 3)])
            [[(0, 4)], [(1, 3)]]
        """
        return [[(i, self.rows(tensor)[0].shape[1])] for i, tensor in enumerate(tensors)]

    def sliced(
        self, before: Sequence[Tensor], after: Sequence[Tensor], stays: Callable[[int, int], Tensor | None]
    ) -> Blocks:
        """Return the blocks of tensors out of which slices were cut, each with the λ that it had.

        Args:
            before: tensors of the shapes that there were.
            after: the tensors that are left.
            stays: (tensor, dimension) ↦ the indices that stay; None where all do.
        """
        return self

    def of_any(self, mask: Tensor) -> Tensor:
        """Return a mask of the weights whose block has any that is in ``mask``.

        Examples:
            >>> from torchlasso.penalties.blocks import Rows
            >>> Rows().of_any(torch.tensor([[True, False], [False, False]]))
            tensor([[ True,  True],
                    [False, False]])
        """
        if not mask.numel():
            return mask
        rows, restore = self.rows(mask)
        return restore(rows.amax(dim=1, keepdim=True).expand_as(rows))

    def in_memory(self, w: Tensor) -> tuple[int, int] | None:
        """Return (n_blocks, size) if the blocks of a contiguous ``w`` lie in memory one after the other, as rows do.

        Examples:
            >>> from torchlasso.penalties.blocks import Chunks, Columns, Elements, Rows
            >>> w = torch.ones(6, 4, 3)
            >>> Rows().in_memory(w), Chunks(n=4).in_memory(w), Columns().in_memory(w)
            ((6, 12), (18, 4), None)
        """
        return None

    def pulls(self, grad: Tensor) -> Tensor:
        """Return how strongly a gradient pulls each block away from zero."""
        return self.decompose(grad)[0]

    def forbidden(self, w: Tensor) -> Tensor:
        """Mark the weights at which every penalty is infinite: bool, of the shape of the magnitudes."""
        return torch.zeros_like(w, dtype=torch.bool)

    def weights(self, w: Tensor) -> Tensor | float:
        """Return the factor on λ of each block: a number, or a tensor that broadcasts to the magnitudes."""
        return 1.0

    def balance(self, params: Sequence[Tensor]) -> float:
        """Return the weight decay, in units of λ, without which layers behind the blocks would undo the penalty.

        Where it is above 0, :func:`torchlasso.param_groups` gives it to the weights that no rule matches.

        Args:
            params: the parameters of a group.
        """
        return 0.0

    def spared(self, cost: Tensor) -> Tensor:
        """Mark the blocks that are not penalised, given the cost of each: a mask of the shape of the magnitudes."""
        return torch.zeros_like(cost, dtype=torch.bool)

    def fit(self, module: nn.Module, name: str) -> Blocks:
        """Return the same blocks for the layout in which ``module`` keeps its parameter ``name``."""
        return self

    def within(self, modules: Sequence[nn.Module], parameter: Tensor, name: str) -> Blocks:
        """Return the same blocks with what the modules around a parameter say about them.

        Args:
            modules: the module that has the parameter, and the one around it, if there is one.
            parameter: the parameter.
            name: its full name, for errors.
        """
        return self

    def whole_along(self, w: Tensor) -> tuple[int, ...]:
        """Return the dimensions of ``w`` along which every slice consists of whole blocks.

        Examples:
            >>> from torchlasso.penalties.blocks import Chunks, Columns, Elements, Rows
            >>> w = torch.ones(6, 4, 3)
            >>> Rows().whole_along(w), Elements().whole_along(w), Chunks(n=4).whole_along(w)
            ((0,), (0, 1, 2), (0,))
        """
        return ()


def end_to_end(views: Sequence[Tensor]) -> Tensor:
    """Return the values of the blocks of a set, view after view, given those of each view."""
    return views[0] if len(views) == 1 else torch.cat(list(views))


def need(blocks: Blocks, w: Tensor, dims: int) -> None:
    """Raise ``ValueError`` unless a tensor has weights and enough dimensions."""
    if w.dim() < dims or w.numel() == 0:
        raise ValueError(f"{blocks} needs a tensor with weights and at least {dims} dimensions; got {tuple(w.shape)}")


def need_whole(blocks: Blocks, least: int, **numbers: int) -> None:
    """Raise ``ValueError`` unless options are whole numbers that are large enough."""
    for name, value in numbers.items():
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{blocks}: {name} must be a whole number of at least {least}; got {value!r}")
