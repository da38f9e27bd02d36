"""The projections of attention into and out of heads, in models of torch and transformers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

# The names of the number of heads, in a module or in its ``config``.
COUNTS = ("num_attention_heads", "num_heads", "n_heads", "n_head")
SHARED = ("num_key_value_heads", "num_kv_heads")  # of the keys and values
# The names of the projections into heads: three modules, or one that holds all of them one after the other.
SEPARATE = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("q_lin", "k_lin", "v_lin"), ("q", "k", "v"))
TOGETHER = ("c_attn", "qkv", "qkv_proj")
OUT = ("out_proj", "o_proj", "c_proj", "out_lin", "o")  # those out of the heads


class Projection(NamedTuple):
    """A parameter of a projection into heads or out of them.

    Attributes:
        parameter: the parameter.
        dim: its dimension of heads.
        parts: the number of projections that it holds one after the other.
        heads: their number of heads.
        shared: the number of groups of heads that share keys and values; the same where none do.
    """

    parameter: Tensor
    dim: int
    parts: int
    heads: int
    shared: int


def projections(module: nn.Module) -> Iterator[Projection]:
    """Yield the parameters of the projections into the heads of an attention; none for any other module."""
    if isinstance(module, nn.MultiheadAttention):
        own: list[Any] = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
        joint = module.in_proj_weight is not None
        for p, parts in [(module.in_proj_weight, 3)] if joint else [(p, 1) for p in own]:
            yield Projection(p, 0, parts, module.num_heads, module.num_heads)
        if module.in_proj_bias is not None:
            yield Projection(module.in_proj_bias, 0, 3, module.num_heads, module.num_heads)
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
            shared = max(1, key[0].shape[key[1]] * heads // query[0].shape[query[1]])  # heads that have their own keys
            for name, own_heads in zip(trio, (heads, shared, shared), strict=True):
                yield from _of(children[name], 1, own_heads, shared)
            return
    for name in TOGETHER:
        if name in children:
            fewer = _count(module, SHARED)
            if fewer not in (None, heads) or getattr(module, "multi_query", False):
                raise ValueError(
                    f"{type(module).__name__}.{name} holds {heads} heads of queries and fewer of keys and values, in "
                    "an order that is not known: use torchlasso.Units(model, example_inputs), which finds heads in the "
                    "graph"
                )
            yield from _of(children[name], 3, heads, heads)
            return


def output_projections(module: nn.Module) -> Iterator[Projection]:
    """Yield the weights of the projections out of the heads of an attention, as far as they have a known name."""
    heads = next((each.heads for each in projections(module)), None)
    for name, layer in module.named_children():
        found = _weight(layer)
        if heads is not None and name in OUT and found is not None:
            weight, dim = found
            yield Projection(weight, 1 - dim, 1, heads, heads)


def _count(module: nn.Module, names: tuple[str, ...] = COUNTS) -> int | None:
    """Return the number of heads that a module or its config has; None if it has none."""
    for owner in (module, getattr(module, "config", None)):
        for name in names:
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


def _of(layer: nn.Module, parts: int, heads: int, shared: int) -> Iterator[Projection]:
    found = _weight(layer)
    if found is not None:
        yield Projection(*found, parts, heads, shared)
    bias = getattr(layer, "bias", None)
    if isinstance(bias, Tensor):
        yield Projection(bias, 0, parts, heads, shared)
