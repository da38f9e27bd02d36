"""Attention heads as blocks: the rows of their queries, keys and values, in models of torch and transformers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchlasso._core.arguments import check_model
from torchlasso.penalties.blocks.attention_layers import projections
from torchlasso.penalties.joint import Joint, Piece


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
        found = list(projections(module))
        if not found:
            continue
        pieces = []
        for p, dim, parts, _, heads in found:
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
