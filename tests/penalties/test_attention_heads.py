"""Heads as blocks, by one rule: a head whose block is zero adds nothing, in torch's attention and in transformers'."""

import pytest
import torch
from torch import nn

import torchlasso as tl


def encoder():
    return (
        nn.TransformerEncoderLayer(12, 3, 16, batch_first=True),
        torch.randn(2, 5, 12),
        "self_attn.out_proj.weight",
        1,
    )


def other_widths():
    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(12, 3, kdim=7, vdim=9, batch_first=True)

        def forward(self, x):
            return self.attention(x, x[..., :7], x[..., :9], need_weights=False)[0]

    return Cross(), torch.randn(2, 5, 12), "attention.out_proj.weight", 1


def transformers_model(name: str, config: str, weight: str, dim: int = 1, **options):
    def make():
        import transformers

        model = getattr(transformers, name)(getattr(transformers, config)(**options))
        return model, torch.randint(0, 20, (2, 5)), weight, dim

    return make


SMALL = {"vocab_size": 20, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 16}
# name -> (function that makes model, inputs, name of the weight that reads the heads and its dimension, blocks)
CASES = {
    "encoder": (encoder, 3),
    "other widths": (other_widths, 3),
    "BERT": (
        transformers_model("BertModel", "BertConfig", "encoder.layer.0.attention.output.dense.weight", **SMALL),
        3,
    ),
    "GPT-2": (
        transformers_model(
            "GPT2Model", "GPT2Config", "h.0.attn.c_proj.weight", 0, vocab_size=20, n_embd=12, n_layer=1, n_head=3
        ),
        3,
    ),
    "Llama": (
        transformers_model(
            "LlamaModel",
            "LlamaConfig",
            "layers.0.self_attn.o_proj.weight",
            **{**SMALL, "hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2},
        ),
        2,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_head_whose_block_is_zero_adds_nothing(case):
    torch.manual_seed(0)
    make, blocks = CASES[case]
    model, x, name, dim = make()
    heads = tl.attention_heads(model)
    parameters = dict(model.named_parameters())
    params = [parameters[each] for each in heads.names]
    (view,) = heads.views(params)
    assert len(view) == blocks
    assert view.shape[1] * blocks == sum(p.numel() for p in params)  # all of queries, keys and values
    with torch.no_grad():
        for p in params:  # biases are zero at the start
            p.add_(0.1)
        (view,) = heads.views(params)
        view[1] = 0
        heads.put_(params, [view])
    out = model(x)
    (out if isinstance(out, torch.Tensor) else out.last_hidden_state).square().sum().backward()
    reads = parameters[name].grad.movedim(dim, 0).reshape(blocks, -1)  # what each block gives to the outputs
    assert not reads[1].any()
    assert all(reads[i].any() for i in range(blocks) if i != 1)


def test_training_kills_whole_heads():
    torch.manual_seed(0)
    model, x, *_ = encoder()
    model.eval()
    heads = tl.attention_heads(model)
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=heads), lam=1.0), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        model.train()
        model(x).square().mean().backward()
        optimizer.step()
    alive = heads.views([dict(model.named_parameters())[name] for name in heads.names])[0].any(dim=1)
    assert not alive.any()


def test_models_without_attention_are_refused():
    with pytest.raises(ValueError, match=r"no nn.MultiheadAttention.*torchlasso.Units"):
        tl.attention_heads(nn.Linear(2, 2))


def test_weights_that_do_not_divide_are_refused():
    class Odd(nn.Module):
        num_heads = 4

        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(6, 6) for _ in range(3))

    with pytest.raises(ValueError, match=r"dimension 0 of 0.q.weight, \(6, 6\), does not divide into 1 × 4 heads"):
        tl.attention_heads(nn.Sequential(Odd()))
