"""The least that any λ leaves of the weights or blocks of some groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def count_layers(groups: Sequence[Mapping[str, Any]], sizes: Sequence[int], allow_empty: bool) -> int:
    """Count the parameters of groups that have to keep something; 0 if the model is not cut off without them.

    Args:
        groups: penalised, with their ``penalty``.
        sizes: the number of weights of each of their parameters, or of blocks of each set at its first one.
        allow_empty: whether a layer may lose all its weights.

    Examples:
        >>> import torchlasso as tl
        >>> count_layers([{"penalty": tl.L1()}], [50, 150], allow_empty=False)
        2
    """
    carry = not allow_empty and all(group["penalty"].over.carry for group in groups)
    return sum(map(bool, sizes)) if carry else 0


def count_spared(groups: Sequence[Mapping[str, Any]]) -> int:
    """Count the weights of groups that their penalties always spare, such as n of each m.

    Args:
        groups: penalised, with their ``penalty`` and ``params``.

    Examples:
        >>> import torchlasso as tl
        >>> count_spared([{"penalty": tl.L1(over=tl.FanIn(0.2)), "params": [torch.ones(3, 10), torch.ones(2, 3)]}])
        8
    """
    spared = 0
    for group in groups:
        over = group["penalty"].over
        if over.spares:
            spared += sum(int(over.spared(torch.ones(p.shape)).sum()) for p in group["params"])
    return spared


def names_of_sparing(groups: Sequence[Mapping[str, Any]]) -> str:
    """Return the blocks of groups of which some are always spared, as a text.

    Examples:
        >>> import torchlasso as tl
        >>> names_of_sparing([{"penalty": tl.L1(over=over)} for over in (tl.NM(2, 4), tl.Rows(), tl.NM(2, 4))])
        'NM(n=2, m=4, dim=1)'
    """
    return " and ".join(dict.fromkeys(str(g["penalty"].over) for g in groups if g["penalty"].over.spares))
