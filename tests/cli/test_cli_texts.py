"""The command line on texts: words are chosen, the others leave the model, and all commands take raw text."""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.support.command_line import succeed
from torchlasso.runs.finished import open_run
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.path_trainings import follow_fold
from torchlasso.runs.recipes import completed, nothing_given
from torchlasso.runs.rows import read_data_again
from torchlasso.runs.word_effects import word_effects
from torchlasso.runs.words import without_unread_words

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_registry")]

TOPICS = {"pump": "leaks drips pressure seal", "motor": "hums heat coil bearing", "door": "jams hinge lock creaks"}
FILLER = ("the of our new on with and it is was in for a since week please", "check again machine hall")
MODEL = ("--model", "text-cnn:dim=8,filters=4", "--batch-size", "16")
WORDS = 16  # of 32 that are to be read


def write_tickets(path: Path, rows: int) -> Path:
    """Write texts of three topics, each with three of four words of its topic."""
    rng = random.Random(0)
    with path.open("w", newline="", encoding="utf8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(rows):
            topic = list(TOPICS)[i % 3]
            words = rng.choices(" ".join(FILLER).split(), k=12) + rng.choices(TOPICS[topic].split(), k=3)
            rng.shuffle(words)
            writer.writerow([" ".join(words), topic])
    return path


@pytest.fixture(scope="module")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tickets(tmp_path_factory.mktemp("tickets") / "tickets.csv", 240)


@pytest.fixture(scope="module")
def run(tickets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that reads half of the words, compacted and exported."""
    out = tmp_path_factory.mktemp("runs") / "run"
    succeed("train", "--data", tickets, *MODEL, "--epochs", "12", "--features", str(WORDS), "--out", out, short=True)
    succeed("compact", out)
    for form in ("onnx", "pt2", "safetensors"):
        succeed("export", out, "--compact", "--format", form)
    return out


def predicted(cli: Any, model: Path, data: Path) -> np.ndarray:
    """Return the predictions and the probabilities of all classes."""
    ended = cli("predict", model, "--data", data, "--probabilities")
    assert ended.code == 0, ended.err
    return np.array([row[1:2] + row[3:] for row in list(csv.reader(ended.out.splitlines()))[1:]])


def test_a_target_for_words_has_its_own_recipe() -> None:
    given = {**nothing_given(), "model": "text-cnn:dim=8", "features": 0.05}
    assert {key: completed(given)[key] for key in ("recipe", "over", "lr", "form")} == {
        "recipe": "words",
        "over": "inputs",
        "lr": 1e-2,
        "form": "proximal",
    }
    assert completed({**given, "model": "mlp"})["recipe"] == "latent"
    assert completed({**given, "features": None, "sparsity": 0.9})["recipe"] == "latent"
    assert completed({**given, "model": "package.module:function"})["recipe"] == "latent"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["text-cnn:dim=16,filters=16", "transformer:dim=16,heads=2,layers=1"])
def test_units_of_a_model_of_texts_to_a_budget(cli: Any, tickets: Path, tmp_path: Path, model: str) -> None:
    options = ("--model", model, "--flops", "0.4", "--epochs", "15", "--batch-size", "32")
    assert cli.train(tickets, tmp_path / "run", *options).code == 0
    ended = cli("compact", tmp_path / "run")
    left = float(re.search(r"([0-9.]+) % of the FLOPs are left", ended.out)[1])
    assert 37.3 < left <= 40.05  # one of the 48 filters has up to 2.7 %
    assert cli.summary(tmp_path / "run")["error"] < 0.2


def test_words_are_chosen_and_listed(cli: Any, run: Path) -> None:
    summary = cli.summary(run)
    assert summary["error"] < 0.1
    assert summary["data"]["inputs"].startswith("texts of column 'text', of which 15 words are read on average")
    words = json.loads(cli("report", run, "--json").out)["features_read"]
    assert len(words) <= WORDS
    assert (summary["inputs"], summary["live_inputs"]) == (32, len(words))
    topical = {word for text in TOPICS.values() for word in text.split()}
    assert len(topical & set(words)) >= 10
    assert f"{len(words)} of 32 words are read: " in cli("report", run).out


@pytest.mark.usefixtures("whole_pages")
def test_the_page_lists_the_words_by_class(cli: Any, run: Path) -> None:
    assert cli("report", run, "--html").code == 0
    page = (run / "report.html").read_text(encoding="utf8")
    assert "Inputs that are read" not in page
    page = page.split("<h2>Words that are read</h2>")[1]
    for topic, words in TOPICS.items():
        line = page.split(f'<th scope="row">{topic}</th><td>')[1].split("</td>")[0]
        best = line.split(", ")[:3]
        assert set(best) <= set(words.split()), (topic, line)


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_the_compacted_model_gives_the_same_for_raw_text(cli: Any, run: Path, tickets: Path, form: str) -> None:
    ours, theirs = (predicted(cli, model, tickets) for model in (run, run / "export" / f"compact.{form}"))
    assert (ours[:, 0] == theirs[:, 0]).all()
    assert np.abs(ours[:, 1:].astype(float) - theirs[:, 1:].astype(float)).max() < 1e-5


def test_the_compacted_model_and_its_tokenizer_have_no_other_words(cli: Any, run: Path) -> None:
    words = set(json.loads(cli("report", run, "--json").out)["features_read"])
    small = open_run(str(run), compact=True)
    assert set(small.experiment.inputs.text.vocabulary) == {"[PAD]", *words}
    assert len(small.model.get_parameter("embedding.weight")) == 1 + len(words)
    tokenizer = json.loads((run / "export" / "compact.tokenizer.json").read_text(encoding="utf8"))
    assert set(tokenizer["model"]["vocab"]) == {"[PAD]", *words}
    assert load_file(run / "export" / "compact.safetensors")["embedding.weight"].shape[0] == 1 + len(words)


def test_the_exported_tokenizer_and_model_work_without_torchlasso(cli: Any, run: Path, tmp_path: Path) -> None:
    import onnxruntime
    import tokenizers

    texts = ["the pump leaks, drips and has no pressure", "hinge jams", "nothing that is known"]
    (tmp_path / "new.txt").write_text("\n".join(texts))
    tokenizer = tokenizers.Tokenizer.from_file(str(run / "export" / "compact.tokenizer.json"))
    session = onnxruntime.InferenceSession(run / "export" / "compact.onnx")
    assert [entry.shape for entry in session.get_inputs()] == [["batch", "length"]]
    numbers = np.array([found.ids for found in tokenizer.encode_batch(texts)])
    (outputs,) = session.run(None, {"input": numbers})
    likely = torch.from_numpy(outputs).softmax(dim=1).numpy()
    assert np.abs(predicted(cli, run, tmp_path / "new.txt")[:, 1:].astype(float) - likely).max() < 1e-5


def test_a_prediction_does_not_depend_on_the_other_rows(cli: Any, run: Path, tmp_path: Path) -> None:
    texts = ["the pump leaks", "hinge " * 700, "", "我爱 😀"]
    (tmp_path / "all.txt").write_text("\n".join(texts), encoding="utf8")
    together = predicted(cli, run, tmp_path / "all.txt")
    for i, text in enumerate(texts):
        (tmp_path / "one.txt").write_text(f"{text}\n", encoding="utf8")
        assert np.allclose(
            predicted(cli, run, tmp_path / "one.txt")[0, 1:].astype(float), together[i, 1:].astype(float)
        )
    ended = cli("predict", run, "--data", tmp_path / "all.txt")
    assert "1 text has more than 512 words, at most 700; the rest is not read" in " ".join(ended.err.split())
    assert "2 texts have no word of the vocabulary" in " ".join(ended.err.split())


def test_a_run_on_texts_resumes_to_the_bit(cli: Any, tickets: Path, tmp_path: Path, monkeypatch: Any) -> None:
    options = ("--data", tickets, *MODEL, "--epochs", "3", "--features", "50%", "--input-dropout", "0.1")
    assert cli("train", *options, "--out", tmp_path / "whole").code == 0
    write, count = RunFolder.write_checkpoint, iter(range(9))

    def stopped(self: RunFolder, state: dict[str, Any]) -> None:
        write(self, state)
        if next(count) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write_checkpoint", stopped)
        assert cli("train", *options, "--out", tmp_path / "part").code == 130
    assert cli("train", "--resume", "--out", tmp_path / "part").code == 0
    for name in ("model.safetensors", "words.safetensors", "config.json"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    write_tickets(tmp_path / "tickets.csv", 60)
    experiment = RunFolder(tmp_path / "part").read_experiment()
    changed = replace(experiment.options, data=str(tmp_path / "tickets.csv"))
    with pytest.raises(ValueError, match="has changed since the run began: its words, or its tokenizer, are others"):
        read_data_again(changed, experiment.inputs)


@pytest.mark.slow
def test_a_path_over_words_and_one_of_its_folds(cli: Any, tickets: Path, tmp_path: Path) -> None:
    steps = ("--epochs", "3", "--epochs-each", "2", "--points", "3", "--sparsest", "0.8")
    ended = cli("path", "--data", tickets, *MODEL, *steps, "--over", "inputs", "--out", tmp_path / "run")
    assert (ended.code, ended.err) == (0, "")
    assert len(json.loads(cli("report", tmp_path / "run", "--json").out)["features_read"]) <= 32
    experiment = RunFolder(tmp_path / "run").read_experiment()
    folded = replace(experiment.options, path=replace(experiment.options.path, folds=2))
    fold = RunFolder(tmp_path / "fold")
    with fold.locked():
        assert len(follow_fold(replace(experiment, options=folded), fold, 0)) == 3


@pytest.mark.slow
def test_a_transformer_loses_heads_and_words(cli: Any, tickets: Path, tmp_path: Path) -> None:
    model = "transformer:dim=8,heads=4,layers=1,feedforward=8"
    steps = ("--batch-size", "16", "--epochs", "3", "--lr", "0.02", "--max-length", "20")
    out = tmp_path / "run"
    ended = cli("train", "--data", tickets, "--model", model, *steps, "--over", "units", "--flops", "0.7", "--out", out)
    assert ended.code == 0
    with torch.no_grad():  # words, too
        weights = load_file(out / "model.safetensors")
        weights["embedding.weight"][10:] = 0.0
        save_file(weights, out / "model.safetensors", RunFolder(out).read_experiment() and {"format": "pt"})
    found = json.loads(cli("compact", out, "--json").out)
    assert found["words"] == {"before": 32, "after": 9}
    assert any(family["after"] < family["before"] for family in found["families"])
    assert cli("export", out, "--compact").code == 0
    ours, theirs = (predicted(cli, each, tickets)[:, 1:].astype(float) for each in (out, out / "export/compact.onnx"))
    assert np.abs(ours - theirs).max() < 1e-5


@pytest.mark.slow
def test_the_forms_of_a_model_of_texts_are_compared(cli: Any, run: Path) -> None:
    found = {each["name"]: each for each in json.loads(cli("bench", run, "--seconds", "0.2", "--json").out)["variants"]}
    assert {"dense", "penalised", "compact", "compact, onnx", "dense, bfloat16"} <= set(found)
    errors = {found[name]["error"] for name in ("penalised", "compact", "compact, onnx", "accelerated")}
    assert errors == {cli.summary(run)["error"]}
    assert found["compact"]["file_bytes"] < found["dense"]["file_bytes"]


REFUSED = [
    (["--model", "lenet-5"], ["lenet-5", "for texts, use 'text-cnn'"]),
    (["--model", "mlp"], ["mlp", "for texts, use 'text-cnn'"]),
    (["--augment", "crop"], ["the augmentation 'crop' needs images"]),
    (["--input-dropout", "1"], ["--input-dropout must be at least 0 and below 1"]),
    (["--text", "nope"], ["no column 'nope' for the text"]),
    (["--tokenizer", "nope.json"], ["nope.json: no such tokenizer"]),
    (["--max-length", "0"], ["--max-length must be from 1"]),
    (["--vocabulary", "0"], ["--vocabulary must be from 1"]),
    (["--features", "100%"], ["--features must be a whole number of at least 1, or a share; got 100%"]),
    (["--features", "33"], ["--features 33 leaves nothing to remove: there are 33"]),
]


@pytest.mark.parametrize(("more", "names"), REFUSED, ids=lambda each: " ".join(each))
def test_impossible_options(cli: Any, tickets: Path, tmp_path: Path, more: list[str], names: list[str]) -> None:
    cli.assert_refused(cli("train", "--data", tickets, *MODEL, *more, "--out", tmp_path / "run"), *names)
    assert not (tmp_path / "run").exists()


def test_rows_without_texts_are_refused_in_prediction(cli: Any, run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("words\nthe pump\n")
    cli.assert_refused(cli("predict", run, "--data", tmp_path / "a.csv"), "no column 'text' for the text")
    cli.assert_refused(cli("predict", run, "--data", "digits"), "its rows are not texts, which the model expects")


@pytest.mark.parametrize("words", ["[1, 2]", "[0, 99]", '["a"]', "[0]"])
def test_damaged_words_of_a_compacted_model(cli: Any, run: Path, tmp_path: Path, words: str) -> None:
    shutil.copytree(run, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    state, cuts = folder.read_compact()
    folder.write_compact(state, cuts, json.loads(words))
    ended = cli("export", tmp_path / "run", "--compact")
    cli.assert_refused(ended, "compact.safetensors")


@pytest.mark.parametrize(
    "tokenizer", ["", "{}", '{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "b"}}']
)
def test_a_damaged_tokenizer_in_a_run(cli: Any, run: Path, tmp_path: Path, tokenizer: str) -> None:
    shutil.copytree(run, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["inputs"]["text"]["tokenizer"] = tokenizer
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    cli.assert_refused(cli("report", tmp_path / "run"), "tokenizer")


class SumOfWords(nn.Module):
    """A linear model of the sum of embeddings, of which the first-order effects are exact."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(words, 4, padding_idx=0), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding(x).sum(dim=1))


def test_the_effects_of_words_are_those_of_leaving_them_out(run: Path) -> None:
    experiment = RunFolder(run).read_experiment()
    x = read_data_again(experiment.options, experiment.inputs).train[0]
    torch.manual_seed(0)
    model = SumOfWords(experiment.inputs.shape[1])
    with torch.no_grad():
        model.embedding.weight[20:] = 0.0
    found = word_effects(experiment, model, x)
    assert found is not None
    assert found.words.tolist() == list(range(1, 20))
    rows = x[:]
    with torch.no_grad():
        for i, word in enumerate(found.words.tolist()):
            there = (rows == word).any(dim=1)
            change = (model(rows) - model(torch.where(rows == word, 0, rows)))[there].mean(dim=0)
            assert int(found.texts[i]) == int(there.sum())
            assert torch.allclose(found.effects[:, i], change - change.mean(), atol=1e-4)
            assert torch.isclose(found.strengths[i], model.embedding.weight[word].norm())


def test_words_stay_where_the_padding_has_an_embedding(run: Path) -> None:
    experiment = RunFolder(run).read_experiment()
    model = SumOfWords(experiment.inputs.shape[1])
    with torch.no_grad():
        model.embedding.weight[20:] = 0.0
    small = without_unread_words(model, experiment)
    assert small is not None
    assert small[1].tolist() == list(range(20))
    with torch.no_grad():
        model.embedding.weight[0] = 1.0
    assert without_unread_words(model, experiment) is None


def test_the_pieces_of_a_tokenizer_leave_the_model_but_not_the_tokenizer(
    cli: Any, tickets: Path, tmp_path: Path
) -> None:
    import onnxruntime
    import tokenizers

    pieces = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    pieces.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>"], show_progress=False)
    pieces.train_from_iterator(tickets.read_text().splitlines(), trainer)
    pieces.save(str(tmp_path / "tokenizer.json"))
    out = tmp_path / "run"
    options = ("--tokenizer", tmp_path, "--epochs", "2", "--features", "30%", "--over", "inputs")
    assert cli("train", "--data", tickets, *MODEL, *options, "--out", out).code == 0
    found = json.loads(cli("compact", out, "--json").out)
    assert found["words"]["before"] == 60
    assert 1 < found["words"]["after"] <= 18
    assert cli("export", out, "--compact").code == 0
    small = open_run(str(out), compact=True)
    assert len(small.model.get_parameter("embedding.weight")) == 1 + found["words"]["after"]
    ours, theirs = (predicted(cli, each, tickets)[:, 1:].astype(float) for each in (out, out / "export/compact.onnx"))
    assert np.abs(ours - theirs).max() < 1e-5
    tokenizer = tokenizers.Tokenizer.from_file(str(out / "export" / "compact.tokenizer.json"))
    assert tokenizer.get_vocab_size() == 61  # with the padding
    session = onnxruntime.InferenceSession(out / "export" / "compact.onnx")
    with tickets.open(encoding="utf8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    (outputs,) = session.run(None, {"input": np.array([each.ids for each in tokenizer.encode_batch(texts)])})
    assert np.abs(torch.from_numpy(outputs).softmax(dim=1).numpy() - ours).max() < 1e-5
