"""``Heads()`` without a number finds it, with the dimension, where it can be known; elsewhere it is asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import torchlasso as tl


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(12, 3, 16, batch_first=True)


def other_widths() -> nn.Module:
    return nn.Sequential(nn.MultiheadAttention(12, 3, kdim=7, vdim=9))


def of_transformers(name: str, config: str, **options: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    return getattr(transformers, name)(getattr(transformers, config)(**options))  # type: ignore[no-any-return]


SMALL = {"vocab_size": 20, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 16}
LLAMA = {**SMALL, "hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2}
# a model, the pattern of a rule, and for each parameter that it matches its heads, their dimension and the parts
CASES: dict[str, Any] = {
    "encoder": (
        encoder,
        "self_attn.*",
        {"self_attn.in_proj_weight": (3, 0, 3), "self_attn.out_proj.weight": (3, 1, 1)},
    ),
    "other widths": (
        other_widths,
        "*",
        {**{f"0.{name}_proj_weight": (3, 0, 1) for name in "qkv"}, "0.out_proj.weight": (3, 1, 1)},
    ),
    "BERT": (
        lambda: of_transformers("BertModel", "BertConfig", **SMALL),
        "*.self.*",
        {f"encoder.layer.0.attention.self.{name}.weight": (3, 0, 1) for name in ("query", "key", "value")},
    ),
    "GPT-2": (
        lambda: of_transformers("GPT2Model", "GPT2Config", vocab_size=20, n_embd=12, n_layer=1, n_head=3),
        "*.attn.*",
        {"h.0.attn.c_attn.weight": (3, 1, 3), "h.0.attn.c_proj.weight": (3, 0, 1)},
    ),
    "Llama": (
        lambda: of_transformers("LlamaModel", "LlamaConfig", **LLAMA),
        "*.self_attn.*",
        {
            f"layers.0.self_attn.{name}_proj.weight": found
            for name, found in {"q": (4, 0, 1), "k": (2, 0, 1), "v": (2, 0, 1), "o": (4, 1, 1)}.items()
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_heads_are_found(case: str) -> None:
    make, where, wanted = CASES[case]
    groups = tl.param_groups(make(), tl.Rule(where, tl.L1(over=tl.Heads())), lam=0.1)
    found = {
        name: (group["penalty"].over.n, group["penalty"].over.dim, group["penalty"].over.parts)
        for group in groups
        if group["penalty"]
        for name in group["names"]
    }
    assert found == wanted


def test_the_blocks_are_those_of_the_number_that_is_given() -> None:
    model = encoder()
    rules = {
        "found": [tl.Rule("self_attn.*", tl.L1(over=tl.Heads()))],
        "given": [
            tl.Rule("*.in_proj_weight", tl.L1(over=tl.Heads(n=3))),
            tl.Rule("*.out_proj.weight", tl.L1(over=tl.Heads(n=3, dim=1))),
        ],
    }
    values = {name: tl.penalty(tl.param_groups(model, each, lam=0.1)) for name, each in rules.items()}
    assert values["found"] == values["given"]
    optimizer = tl.ProxSGD(tl.param_groups(model, rules["found"], lam=1e3), lr=0.1)
    model(torch.randn(2, 5, 12)).sum().backward()
    optimizer.step()
    assert not model.self_attn.in_proj_weight.any()  # type: ignore[union-attr]


def test_where_it_cannot_be_known_it_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"the number of heads of linear1\.weight is not known.*as in Heads\(n=8\)"):
        tl.param_groups(encoder(), tl.L1(over=tl.Heads()), lam=0.1)
    groups: list[Any] = [{"params": [nn.Parameter(torch.ones(6, 4))], "penalty": tl.L1(over=tl.Heads()), "lam": 0.1}]
    with pytest.raises(ValueError, match=r"Heads: give n, the number of heads, or let torchlasso.param_groups find it"):
        tl.ProxSGD(groups, lr=0.1)


@pytest.mark.slow
def test_queries_keys_and_values_in_an_unknown_order_are_refused() -> None:
    """Eight heads of queries and two of keys and values would divide into three parts of four as well."""
    options = {"hidden_size": 16, "num_attention_heads": 8, "num_key_value_heads": 2, "pad_token_id": 0}
    model = of_transformers("Phi3Model", "Phi3Config", **{**SMALL, **options})
    rule = tl.Rule("*qkv_proj*", tl.L1(over=tl.Heads()))
    for call in (lambda: tl.attention_heads(model), lambda: tl.param_groups(model, rule, lam=0.1)):
        with pytest.raises(ValueError, match=r"Phi3Attention\.qkv_proj holds 8 heads of queries and fewer"):
            call()
