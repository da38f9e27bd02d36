"""The config of a model of transformers says how large it is after compaction, or the report says that it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from tests.support.implementations import same
from torchlasso.compaction.config import UNTRUE, update_config_
from torchlasso.compaction.resizing import recording_sizes, replace_value_

transformers = pytest.importorskip("transformers")

WORDS = {"input_ids": torch.arange(3, 10)[None]}
PAIR = {"input_ids": torch.arange(3, 10)[None], "decoder_input_ids": torch.arange(3, 8)[None]}
PIXELS = {"pixel_values": torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))}


@dataclass(frozen=True)
class Kind:
    """A class of transformers, with the options of its config, its inputs, and the number of its hidden units."""

    name: str
    options: dict[str, Any]
    inputs: dict[str, Tensor]
    number: str = "intermediate_size"
    width: int = 40

    @property
    def cls(self) -> Any:
        return getattr(transformers, self.name)

    def build(self) -> Any:
        torch.manual_seed(0)
        model = self.cls(self.cls.config_class(**self.options)).eval()
        with torch.no_grad():
            for w in model.parameters():
                w.copy_(torch.randn(w.shape) / 5)
        return model


SIZES = {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 4, "vocab_size": 50}
MLP = SIZES | {"intermediate_size": 40}
UNCACHED = {"use_cache": False}
DISTILBERT = {"n_layers": 2, "dim": 24, "n_heads": 4, "vocab_size": 50, "hidden_dim": 40}
GPT2 = {"n_layer": 2, "n_embd": 24, "n_head": 4, "vocab_size": 50, "eos_token_id": 1, "bos_token_id": 1}
OPT = {"ffn_dim": 40, "word_embed_proj_dim": 24}
T5 = {"num_layers": 2, "d_model": 24, "d_kv": 7, "num_heads": 4, "d_ff": 40, "vocab_size": 50}
KINDS = {
    "bert": Kind("BertForSequenceClassification", MLP, WORDS),
    "roberta": Kind("RobertaModel", MLP, WORDS),
    "distilbert": Kind("DistilBertModel", DISTILBERT, WORDS, "hidden_dim"),
    "gpt2": Kind("GPT2LMHeadModel", GPT2 | UNCACHED, WORDS, "n_inner", 96),
    "opt": Kind("OPTForCausalLM", SIZES | OPT | UNCACHED, WORDS, "ffn_dim"),
    "llama": Kind("LlamaForCausalLM", MLP | UNCACHED, WORDS),
    "vit": Kind("ViTModel", MLP | {"image_size": 8, "patch_size": 4}, PIXELS),
    "t5": Kind("T5ForConditionalGeneration", T5 | UNCACHED, PAIR, "d_ff"),
}


def shrunk(model: nn.Module, width: int, left: list[int]) -> nn.Module:
    """Remove hidden units of this width by hand, and keep this number of them in each layer."""
    with recording_sizes(model), torch.no_grad():
        for name, w in model.named_parameters():
            if width in w.shape:
                place = w.shape.index(width)
                layer = next(int(part) for part in name.split(".") if part.isdecimal())
                n = left[min(layer, len(left) - 1)]
                replace_value_(w, w.narrow(place, 0, n))
                module = model.get_submodule(name.rpartition(".")[0])
                for key in ("in_features", "out_features", "nf", "nx"):
                    if vars(module).get(key) == width:
                        setattr(module, key, n)
    return model


def outputs(model: nn.Module, inputs: Any) -> Tensor:
    with torch.no_grad():
        return model(**inputs)[0]


@pytest.mark.parametrize("name", KINDS)
def test_a_config_is_made_true_and_builds_the_smaller_model(name: str, tmp_path: Path):
    made = KINDS[name]
    small = shrunk(made.build(), made.width, [20])
    config, expected = small.config, outputs(small, made.inputs)
    said = update_config_(small, made.inputs)
    assert said == f"config.{made.number}: {getattr(config, made.number)} -> 20"
    assert getattr(small.config, made.number) == 20
    assert getattr(config, made.number) != 20  # others may be built from it
    small.save_pretrained(tmp_path / "saved")
    again = made.cls.from_pretrained(tmp_path / "saved").eval()
    assert same(again.state_dict(), small.state_dict())
    torch.testing.assert_close(outputs(again, made.inputs), expected)  # to rounding: it depends on where weights lie
    tl.save(small, tmp_path / "small.safetensors")
    other = made.build()
    tl.load(tmp_path / "small.safetensors", into=other)
    assert torch.equal(outputs(other, made.inputs), expected)
    assert getattr(other.config, made.number) == 20
    assert all(getattr(m.config, made.number) == 20 for m in other.modules() if hasattr(m, "config"))


@pytest.mark.parametrize("name", KINDS)
def test_layers_of_different_sizes_are_reported_as_beyond_a_config(name: str, tmp_path: Path):
    made = KINDS[name]
    small = shrunk(made.build(), made.width, [20, 12])
    before, expected = small.config.to_dict(), outputs(small, made.inputs)
    assert update_config_(small, made.inputs) == UNTRUE
    assert small.config.to_dict() == before
    tl.save(small, tmp_path / "small.safetensors")
    other = made.cls(type(small.config).from_dict(before)).eval()  # the one line that the documentation gives
    tl.load(tmp_path / "small.safetensors", into=other)
    assert torch.equal(outputs(other, made.inputs), expected)


def without_heads(model: nn.Module, ends: tuple[str, ...], out: str, size: int) -> nn.Module:
    """Zeros in place of the first two heads, of this size, in the layers with these ends of their names."""
    with torch.no_grad():
        for name, w in model.named_parameters():
            if name.removesuffix(".weight").removesuffix(".bias").endswith(ends):
                w[: 2 * size] = 0
            elif name.endswith(f"{out}.weight"):
                w[:, : 2 * size] = 0
    return model


LLAMA = MLP | UNCACHED | {"num_hidden_layers": 1, "head_dim": 8}
HEADS = {
    "t5": (Kind("T5EncoderModel", T5 | {"num_layers": 1}, WORDS), (".q", ".k", ".v"), ".o", 7),
    "llama": (Kind("LlamaForCausalLM", LLAMA, WORDS), ("q_proj", "k_proj", "v_proj"), "o_proj", 8),
    "bert": (
        Kind("BertModel", MLP | {"num_hidden_layers": 1}, WORDS),
        ("query", "key", "value"), "attention.output.dense", 6,
    ),
}  # fmt: skip
SAID = {
    "t5": "config.num_heads: 4 -> 2",
    "llama": "config.num_attention_heads: 4 -> 2; config.num_key_value_heads: 4 -> 2",
    "bert": UNTRUE,
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_are_removed_from_a_config_with_a_separate_head_size(name: str, tmp_path: Path):
    made, ends, out, size = HEADS[name]
    full = without_heads(made.build(), ends, out, size)
    small, report = tl.compact(full, made.inputs, return_report=True)
    assert report.config == report.to_dict()["config"] == SAID[name]
    assert report.config in str(report).splitlines()
    assert report.removed
    tl.save(small, tmp_path / "small.safetensors")
    other = made.build()
    tl.load(tmp_path / "small.safetensors", into=other)
    expected = outputs(small, made.inputs)
    assert torch.allclose(outputs(full, made.inputs), expected, atol=1e-4)
    assert torch.equal(outputs(other, made.inputs), expected)
    small.save_pretrained(tmp_path / "saved")
    if name != "bert":
        assert torch.equal(outputs(made.cls.from_pretrained(tmp_path / "saved").eval(), made.inputs), expected)
