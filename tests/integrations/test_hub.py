"""Models in folders like those of the Hugging Face Hub: sparse, compacted, with a card, without any code."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchlasso as tl

pytest.importorskip("huggingface_hub")

from huggingface_hub import HfApi, ModelCard

from torchlasso.integrations.hub import SparseHubMixin

X = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module, SparseHubMixin):
    def __init__(self, width: int = 64, outputs: int = 2):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, x):
        return self.body(x)


def sparse(**options) -> Net:
    net = Net(**options)
    with torch.no_grad():
        net.body[0].weight[10:] = 0
        net.body[0].bias[10:] = 0
        net.body[2].weight[:, 10:] = 0
    return net


@pytest.mark.parametrize("compacted", [False, True])
def test_a_model_comes_back_from_a_folder(compacted, tmp_path):
    net = sparse(width=48, outputs=3)
    saved = tl.compact(net, X) if compacted else net
    saved.save_pretrained(tmp_path)
    found = Net.from_pretrained(tmp_path)
    assert found.body[0].out_features == (10 if compacted else 48)
    assert not found.training
    assert torch.equal(found(X), saved.eval()(X))
    assert json.loads((tmp_path / "config.json").read_text()) == {"outputs": 3, "width": 48}
    found.save_pretrained(tmp_path / "again")
    again, first = ((folder / "torchlasso.safetensors").read_bytes() for folder in (tmp_path / "again", tmp_path))
    assert again == first


class Words(nn.Module, SparseHubMixin):
    """Looked up words, of which the third number is not used."""

    def __init__(self, width: int = 8):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.layer = nn.Embedding(9, width, padding_idx=0), nn.Linear(width, 3)
        with torch.no_grad():
            self.words.weight[:, 2] = 0

    def forward(self, x):
        return self.layer(self.words(x).mean(1))


@pytest.mark.parametrize("compacted", [False, True])
def test_embeddings_come_back_from_a_folder(compacted, tmp_path):
    net, x = Words(), torch.randint(9, (5, 4))
    saved = tl.compact(net, x) if compacted else net
    saved.save_pretrained(tmp_path)
    found = Words.from_pretrained(tmp_path)
    assert found.words.embedding_dim == (7 if compacted else 8)
    assert found.words.padding_idx == 0
    assert torch.equal(found(x), saved.eval()(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_of_another_precision_comes_back_in_it(dtype, tmp_path):
    net = sparse().to(dtype)
    net.save_pretrained(tmp_path)
    found = Net.from_pretrained(tmp_path)
    assert {p.dtype for p in found.parameters()} == {dtype}
    assert all(map(torch.equal, found.parameters(), net.parameters()))


def test_the_card_says_what_was_measured(tmp_path):
    (tmp_path / "drawn.png").write_bytes(b"a picture")
    measured = {"test error": 0.0182, "a|b": "two\nlines"}
    tl.compact(sparse(), X).save_pretrained(
        tmp_path / "net", model_card_kwargs={"measured": measured, "frontier": tmp_path / "drawn.png"}
    )
    assert (tmp_path / "net" / "frontier.png").read_bytes() == b"a picture"
    card = ModelCard.load(tmp_path / "net" / "README.md")
    assert card.data.library_name == "torchlasso"
    assert "sparse" in card.data.tags
    for line in (
        "| parameters | 112 |",
        "| parameters before units were removed | 706 |",
        "| weights that are zero | 0 of 100 |",
        "| test error | 0.0182 |",
        r"| a\|b | two lines |",
        "![Error over the share of weights that are left](frontier.png)",
    ):
        assert f"\n{line}\n" in card.text, line


def test_zeros_take_no_space(tmp_path):
    net = Net(width=5000)
    with torch.no_grad():
        net.body[0].weight[:, 1:] = 0
    net.save_pretrained(tmp_path)
    assert "| weights that are zero | 35,000 of 50,000 |" in (tmp_path / "README.md").read_text()
    dense = sum(w.nbytes for w in net.state_dict().values())
    assert (tmp_path / "torchlasso.safetensors").stat().st_size < 0.55 * dense


def test_pushing_sends_the_same_folder(monkeypatch, tmp_path):
    sent = {}

    def upload(self, repo_id, folder_path, **options):
        sent.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()})

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **options: type("Repo", (), {"repo_id": repo_id}))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    net = sparse()
    net.save_pretrained(tmp_path, model_card_kwargs={"measured": {"error": 1}})
    net.push_to_hub("somebody/net", model_card_kwargs={"measured": {"error": 1}})
    assert sent == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the folder ran')",))


def test_no_code_of_a_folder_runs(tmp_path):
    sparse().save_pretrained(tmp_path)
    (tmp_path / "torchlasso.safetensors").rename(tmp_path / "hidden")
    for name in ("pytorch_model.bin", "model.pt", "torchlasso.bin"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "modeling.py").write_text("raise SystemExit('code of the folder ran')")
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "modeling.Net"}, "width": 64}')
    ignored = pytest.warns(UserWarning, match="unknown argument 'auto_map'")
    with ignored, pytest.raises(FileNotFoundError, match=r"torchlasso\.safetensors"):
        Net.from_pretrained(tmp_path)
    (tmp_path / "torchlasso.safetensors").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "config.json").write_text('{"width": 64}')
    with pytest.raises(ValueError, match=r"torchlasso\.safetensors"):
        Net.from_pretrained(tmp_path)


def test_without_the_hub_a_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "torchlasso.integrations.hub")
    with pytest.raises(ValueError, match=r"needs huggingface_hub: pip install 'torchlasso\[hub\]'$"):
        importlib.import_module("torchlasso.integrations.hub")


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(TypeError, match=r"^save_pretrained: measured must have a number or a text for each name; got"):
        sparse().save_pretrained(tmp_path / "net", model_card_kwargs={"measured": [1]})
    with pytest.raises(FileNotFoundError, match="nowhere"):
        sparse().save_pretrained(tmp_path / "net", model_card_kwargs={"frontier": tmp_path / "nowhere.png"})
    with pytest.raises(ValueError, match=r"^unknown key of model_card_kwargs.*'measures'"):
        sparse().save_pretrained(tmp_path / "net", model_card_kwargs={"measures": {"error": 1}})
    assert not (tmp_path / "net").exists()
    sparse(width=32).save_pretrained(tmp_path / "net")
    with pytest.raises(ValueError, match=r"does not fit the model: 'body\.0\.weight' is float32 of shape \(32, 8\)"):
        Net.from_pretrained(tmp_path / "net", width=48)


def test_the_arguments_of_the_mixin_of_the_hub_are_taken(tmp_path):
    net = sparse(width=32)
    net.save_pretrained(tmp_path)
    found = Net.from_pretrained(tmp_path, map_location="meta", strict=True)
    assert {p.device.type for p in found.parameters()} == {"meta"}
    assert torch.equal(Net.from_pretrained(tmp_path, map_location="cpu", strict=True)(X), net.eval()(X))


class Choosing(Net):
    def __init__(self, width: int = 64, act: type[nn.Module] = nn.ReLU):
        super().__init__(width)
        self.body[1] = act()


@pytest.mark.parametrize("compacted", [False, True])
def test_arguments_that_json_cannot_hold_are_named(compacted, tmp_path):
    net = Choosing(8, act=nn.GELU)
    saved = tl.compact(net, X) if compacted else net
    with pytest.warns(
        UserWarning, match=r"^save_pretrained: config\.json leaves out act, which JSON cannot hold; load"
    ):
        saved.save_pretrained(tmp_path)
    assert torch.equal(Choosing.from_pretrained(tmp_path, act=nn.GELU)(X), saved.eval()(X))
    Choosing(8).save_pretrained(tmp_path)  # nothing is left out, so no warning, which would be an error here
