"""The features of a model's inputs: the finest parts of them that have weights of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

import torch
from torch import Tensor, fx

from torchlasso.graph.carried import ParameterDim, Reading, UnreadableError, follow
from torchlasso.graph.tracing import Trace
from torchlasso.penalties.joint import Piece

FeatureDims = (
    tuple[int, ...] | None
)  # the dimensions of a tensor along which its features lie; None: the rows it looks up


@dataclass(frozen=True)
class Features:
    """The features of a model's inputs, their blocks, and the slices of weights that read them.

    Attributes:
        block_of: the block of each feature, (features,); -1 for features that are kept.
        places: the block of each slice of a parameter along a dimension, -1 for none.
    """

    block_of: Tensor
    places: dict[ParameterDim, Tensor]

    def members(self) -> list[list[int]]:
        """Return the features of each block."""
        found: list[list[int]] = [[] for _ in range(int(self.block_of.max()) + 1 if len(self.block_of) else 0)]
        for feature, block in enumerate(self.block_of.tolist()):
            if block >= 0:
                found[block].append(feature)
        return found

    def families(self, names: Sequence[str]) -> list[tuple[Tensor, tuple[Piece, ...]]]:
        """Return families of blocks with as many slices in each parameter: the blocks, and their pieces.

        Args:
            names: the names of the parameters in :attr:`places`; pieces have the numbers.
        """
        blocks = len(self.members())
        counts = torch.stack([torch.bincount(place[place >= 0], minlength=blocks) for place in self.places.values()], 1)
        sizes, kinds = torch.unique(counts, dim=0, return_inverse=True)
        slices = [place.argsort(stable=True)[int((place < 0).sum()) :] for place in self.places.values()]
        starts = counts.cumsum(0) - counts  # (blocks, places)
        families = []
        for kind, size in enumerate(sizes.tolist()):
            if any(size):
                own = (kinds == kind).nonzero()[:, 0]
                pieces = tuple(
                    Piece(names.index(name), dim, slices[k][starts[own, k][:, None] + torch.arange(size[k])])
                    for k, (name, dim) in enumerate(self.places)
                    if size[k]
                )
                families.append((own, pieces))
        return families


def find_features(
    trace: Trace, trained: Collection[str], groups: Sequence[Sequence[int]], kept: Collection[int]
) -> Features:
    """Find the features of the inputs of a model, and the weights that read them.

    Args:
        trace: the operators of the model.
        trained: the names of the parameters that training changes.
        groups: features that share a block.
        kept: features that have none, and may be used in any way.

    Raises:
        ValueError: a feature reaches the outputs by a way that no weights of its own close.
    """
    given = [node for node in trace.tensors if node not in trace.names and node not in trace.fixed]
    choices = {node: _layouts(trace.tensors[node]) for node in given if isinstance(trace.tensors[node], Tensor)}
    worst: UnreadableError | None = None
    while all(choices.values()):
        layouts = {node: layouts[0] for node, layouts in choices.items()}
        attempt = _Numbering(trace, layouts, groups, kept)
        try:
            return attempt.features(follow(trace, trained, attempt.codes, attempt.words, attempt.name_of))
        except UnreadableError as error:
            worst = error if worst is None or error.step >= worst.step else worst
            choices[attempt.tensor_of(error.code)].pop(0)
    raise ValueError(str(worst) if worst is not None else "the model has no tensor among its inputs") from worst


def _layouts(tensor: Tensor) -> list[FeatureDims]:
    """Return the ways in which features may lie in a tensor, the finest first."""
    dims = range(1, tensor.dim())
    found: list[FeatureDims] = [some for n in range(1, len(dims) + 1) for some in combinations(dims, n)] or [()]
    found.sort(key=lambda some: -prod(tensor.shape[dim] for dim in some or ()))
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    return [*found, None] if whole else found


class _Numbering:
    """The features under certain layouts of the inputs.

    Attributes:
        codes: for each tensor, the code of each element: the number of its feature's block, from 1 on.
        words: the codes of tensors whose features are the rows that they look up; these codes follow the others.
    """

    def __init__(
        self,
        trace: Trace,
        layouts: Mapping[fx.Node, FeatureDims],
        groups: Sequence[Sequence[int]],
        kept: Collection[int],
    ) -> None:
        self.groups, self.kept = groups, kept
        shapes = {node: trace.tensors[node].shape for node in layouts}
        sizes = {node: prod(shapes[node][d] for d in dims) for node, dims in layouts.items() if dims is not None}
        self.dense = sum(sizes.values())
        self.blocks = _blocks(self.dense, groups, kept)
        self.codes: dict[fx.Node, Tensor] = {}
        start = 0
        for node, size in sizes.items():
            dims, shape = layouts[node] or (), shapes[node]
            some = self.blocks[start : start + size] + 1
            self.codes[node] = some.reshape([n if d in dims else 1 for d, n in enumerate(shape)]).expand(shape)
            start += size
        self.first = int(self.blocks.max()) + 2 if self.dense else 1
        looked_up = [node for node, dims in layouts.items() if dims is None]
        self.words = {self.first + i: node for i, node in enumerate(looked_up)}
        self.codes.update({node: torch.full(shapes[node], code) for code, node in self.words.items()})

    def tensor_of(self, code: int) -> fx.Node:
        """Return a tensor with this code."""
        return next(node for node, codes in self.codes.items() if bool((codes == code).any()))

    def name_of(self, code: int) -> str:
        """Return the name of the features with this code."""
        if code in self.words:
            return f"the indices {self.words[code].name}"
        return "feature " + str(int((self.blocks == code - 1).nonzero()[0]))

    def features(self, reading: Reading) -> Features:
        """Return the features, given the slices that read them."""
        total, starts = self.dense, {}
        for code in self.words:
            rows = {len(table) for table in reading.tables.get(code, {}).values()}
            if len(rows) > 1:
                raise UnreadableError(f"tables of {sorted(rows)} rows are looked up by {self.name_of(code)}", code, 0)
            starts[code] = total
            total += max(rows, default=0)
        blocks = _blocks(total, self.groups, self.kept)
        places = {place: codes - 1 for place, codes in reading.codes.items()}
        for code, tables in reading.tables.items():
            for name, table in tables.items():
                places[name, 0] = blocks[starts[code] : starts[code] + len(table)]
        return Features(blocks, places)


def _blocks(features: int, groups: Sequence[Sequence[int]], kept: Collection[int]) -> Tensor:
    """Return the block of each feature, numbered by its first one; -1 for features that are kept."""
    leader = torch.arange(features)
    for group in groups:
        own = torch.tensor([i for i in group if i < features], dtype=torch.long)
        if len(own):
            leader[own] = own.min()
    leader[torch.tensor([i for i in kept if i < features], dtype=torch.long)] = -1
    leaders, numbers = torch.unique(leader, return_inverse=True)
    blocks: Tensor = numbers - int((leaders < 0).sum())
    return blocks
