"""Attention heads as blocks: the rows of their queries, keys and values, in models of torch and transformers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from torchlasso._core.arguments import check_model
from torchlasso.penalties.joint import Joint, Piece

# The names of the number of heads, in a module or in its ``config``.
COUNTS = ("num_attention_heads", "num_heads", "n_heads", "n_head")
# The names of the projections into heads: three modules, or one that holds all of them one after the other.
SEPARATE = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("q_lin", "k_lin", "v_lin"), ("q", "k", "v"))
TOGETHER = ("c_attn", "qkv", "qkv_proj")


def attention_heads(model: nn.Module, *, weighted: bool = True) -> Joint:
    """Return blocks of attention heads: the rows of the query, key and value weights of each, with their biases.

    Where a block is zero, the values of the head are zero, and it adds nothing to the outputs. The number of heads is
    that of the module (``nn.MultiheadAttention``) or of its attribute or ``config`` in models of transformers. Heads
    that share their keys and values, as in Llama, are one block. It needs no example inputs; for models with other
    names, :class:`torchlasso.Units` finds heads in the graph of operators.

    Args:
        model: with attention.
        weighted: see :class:`torchlasso.Rows`.

    Raises:
        ValueError: there is no attention of a known form, or its weights do not divide into the heads.

    Examples:
        >>> import torchlasso as tl
        >>> model = nn.TransformerEncoderLayer(d_model=12, nhead=3)
        >>> heads = attention_heads(model)
        >>> heads.names
        ('self_attn.in_proj_weight', 'self_attn.in_proj_bias')
        >>> [len(view) for view in heads.views([dict(model.named_parameters())[name] for name in heads.names])]
        [3]
    """
    check_model("attention_heads: model", model)
    known: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    names: list[str] = []
    families: list[tuple[Piece, ...]] = []
    for path, module in model.named_modules():
        found = list(_projections(module))
        if not found:
            continue
        pieces = []
        for p, dim, parts, heads in found:
            if p not in known or known[p] in names:  # shared by another module, which has it
                continue
            if p.shape[dim] % (parts * heads):
                raise ValueError(
                    f"attention_heads: dimension {dim} of {known[p]}, {tuple(p.shape)}, does not divide into "
                    f"{parts} × {heads} heads"
                )
            rows = torch.arange(p.shape[dim]).reshape(parts, heads, -1).transpose(0, 1).reshape(heads, -1)
            pieces.append(Piece(len(names), dim, rows))
            names.append(known[p])
        if len({len(piece.indices) for piece in pieces}) > 1:
            raise ValueError(f"attention_heads: the projections of {path} have different numbers of heads")
        if pieces:
            families.append(tuple(pieces))
    if not families:
        raise ValueError(
            "attention_heads: the model has no nn.MultiheadAttention, and no attention with the names of transformers "
            "(q_proj, query, c_attn, …): use torchlasso.Units(model, example_inputs), which finds heads in the graph"
        )
    return Joint(tuple(names), tuple(families), weighted)


def _projections(module: nn.Module) -> Iterator[tuple[Tensor, int, int, int]]:
    """Yield the parameters of projections into heads: each with its dimension of heads, its parts, and their number."""
    if isinstance(module, nn.MultiheadAttention):
        own: list[Any] = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
        joint = module.in_proj_weight is not None
        for p, parts in [(module.in_proj_weight, 3)] if joint else [(p, 1) for p in own]:
            yield p, 0, parts, module.num_heads
        if module.in_proj_bias is not None:
            yield module.in_proj_bias, 0, 3, module.num_heads
        return
    heads = _count(module)
    children = dict(module.named_children())
    if heads is None:
        return
    for trio in SEPARATE:
        if all(name in children for name in trio):
            query, key, _ = (_weight(children[name]) for name in trio)
            if query is None or key is None:
                return
            shared = key[0].shape[key[1]] * heads // query[0].shape[query[1]]  # heads that have their own keys
            for name in trio:
                yield from _of(children[name], 1, max(1, shared))
            return
    for name in TOGETHER:
        if name in children:
            yield from _of(children[name], 3, heads)
            return


def _count(module: nn.Module) -> int | None:
    """Return the number of heads that a module or its config has; None if it has none."""
    for owner in (module, getattr(module, "config", None)):
        for name in COUNTS:
            value = getattr(owner, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def _weight(layer: nn.Module) -> tuple[Tensor, int] | None:
    """Return the weight of a layer, and the dimension of its outputs: the second in the Conv1D of transformers."""
    weight = getattr(layer, "weight", None)
    return (
        (weight, 0 if isinstance(layer, nn.Linear) else 1) if isinstance(weight, Tensor) and weight.dim() == 2 else None
    )


def _of(layer: nn.Module, parts: int, heads: int) -> Iterator[tuple[Tensor, int, int, int]]:
    found = _weight(layer)
    if found is not None:
        yield (*found, parts, heads)
    bias = getattr(layer, "bias", None)
    if isinstance(bias, Tensor):
        yield bias, 0, parts, heads
