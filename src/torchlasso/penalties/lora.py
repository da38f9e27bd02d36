"""The ranks of LoRA's factors as blocks: low-rank updates that need fewer ranks."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from torchlasso._core.arguments import check_model
from torchlasso.penalties.joint import Joint, Piece

# W + B·A as peft names it: A (rank, in, …) and B (out, rank, …)
_FACTOR = re.compile(r"(?P<layer>.*)\.lora_(?P<kind>embedding_)?A\.(?P<adapter>[^.]+)(?P<weight>\.weight)?$")


def lora_ranks(model: nn.Module, *, weighted: bool = True) -> Joint:
    """Return blocks of LoRA's factors, as the package peft names them: column k of B with row k of A, for each layer.

    The update B·A of a layer is a sum of r products of a column and a row. L1 over these blocks makes both parts of a
    product zero, so that the ranks that are left differ from layer to layer. All factors have to be trained by one
    optimizer, in one group, as :func:`torchlasso.param_groups` makes it.

    Args:
        model: with adapters of peft, or others that name their factors ``lora_A`` and ``lora_B``.
        weighted: see :class:`torchlasso.Rows`.

    Raises:
        ValueError: the model has no such factors, or a pair of them does not fit.

    Examples:
        >>> import torchlasso as tl
        >>> class Adapted(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.base = nn.Linear(6, 5).requires_grad_(False)
        ...         self.lora_A = nn.ModuleDict({"default": nn.Linear(6, 3, bias=False)})
        ...         self.lora_B = nn.ModuleDict({"default": nn.Linear(3, 5, bias=False)})
        >>> model = nn.Sequential(Adapted())
        >>> blocks = lora_ranks(model)
        >>> blocks.names
        ('0.lora_A.default.weight', '0.lora_B.default.weight')
        >>> optimizer = tl.ProxAdamW(tl.param_groups(model, tl.L1(over=blocks), lam=1e-3), lr=1e-3)

    Source: Hu et al. 2022 (LoRA).
    """
    check_model("lora_ranks: model", model)
    parameters: dict[str, Any] = dict(model.named_parameters())
    names: list[str] = []
    families: list[tuple[Piece, ...]] = []
    for name, a in parameters.items():
        found = _FACTOR.match(name)
        if found is None or not a.requires_grad:
            continue
        other = name.replace("lora_embedding_A", "lora_embedding_B").replace("lora_A", "lora_B")
        b = parameters.get(other)
        if b is None or b.dim() < 2 or b.shape[1] != a.shape[0]:
            shape = "is missing" if b is None else f"has the shape {tuple(b.shape)}"
            raise ValueError(f"lora_ranks: {name} has the shape {tuple(a.shape)}, and {other} {shape}")
        each = torch.arange(a.shape[0])[:, None]
        families.append((Piece(len(names), 0, each), Piece(len(names) + 1, 1, each)))
        names += [name, other]
    if not names:
        raise ValueError(
            "lora_ranks: the model has no trained factors that are named lora_A and lora_B: make them with "
            "peft.get_peft_model(model, peft.LoraConfig(...))"
        )
    return Joint(tuple(names), tuple(families), weighted)
