"""Fine-tuning a pretrained classifier of texts: ``--model hf:FOLDER`` with a tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torchlasso
from tests.support.command_line import succeed
from torchlasso.runs.finished import open_run

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers")]

WORDS = [*(f"good{i}" for i in range(5)), *(f"bad{i}" for i in range(5)), *(f"word{i}" for i in range(10))]
SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
# the class of transformers, and its special tokens in the order of their numbers
KINDS = {
    "bert": ("Bert", ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]),
    "roberta": ("Roberta", ["[CLS]", "[PAD]", "[SEP]", "[UNK]"]),
}


def save(folder: Path, kind: str) -> Path:
    """Save a small model with random weights, and its tokenizer, as a pretrained one."""
    name, special = KINDS[kind]
    numbers = {word: number for number, word in enumerate([*special, *WORDS])}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(numbers, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(special)
    ends = [(token, numbers[token]) for token in ("[CLS]", "[SEP]")]
    made.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    labels = {"id2label": {0: "pos", 1: "neg"}, "label2id": {"pos": 0, "neg": 1}}
    places = 16 + (2 if kind == "roberta" else 0)
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=len(numbers), pad_token_id=numbers["[PAD]"], max_position_embeddings=places, **SIZES, **labels
    )
    model = getattr(transformers, f"{name}ForSequenceClassification")(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape) / 5)
    model.save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 16}')
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of texts with good and bad words."""
    rng, lines = np.random.default_rng(0), ["text,label"]
    for i in range(150):
        kind = ("good", "bad")[i % 2]
        words = [f"word{k}" for k in rng.integers(0, 10, size=rng.integers(1, 8))]
        words.insert(int(rng.integers(0, len(words) + 1)), f"{kind}{rng.integers(0, 5)}")
        lines.append(f"{' '.join(words)},{('pos', 'neg')[i % 2]}")
    file = tmp_path_factory.mktemp("texts") / "texts.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="module")
def fine_tuned(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a target for the FLOPs, and the model that it started from; to be copied, not written to."""
    folder = tmp_path_factory.mktemp("roberta")
    words = ["--data", texts, "--flops", "0.7", "--epochs", "3", "--batch-size", "16"]
    succeed("train", "--model", f"hf:{save(folder / 'model', 'roberta')}", *words, "--out", folder / "run", short=True)
    succeed("compact", folder / "run")
    return folder


def test_a_run_of_texts_goes_back_to_transformers(cli: Any, fine_tuned: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(fine_tuned / "run", tmp_path / "run"))
    summary = cli.summary(run)
    assert "The head for the same 2 classes is kept." in summary["data"]["notes"]
    assert json.loads((run / "config.json").read_text())["options"]["max_length"] == 16
    finished = open_run(str(run), compact=True)
    made = tokenizers.Tokenizer.from_file(str(fine_tuned / "model" / "tokenizer.json"))
    made.enable_padding(pad_id=made.token_to_id("[PAD]"), pad_token="[PAD]")
    theirs = made.encode_batch(["good1 word2", "word1 bad3 word3 word4"])
    inputs = {"input_ids": torch.tensor([each.ids for each in theirs])}
    inputs["attention_mask"] = torch.tensor([each.attention_mask for each in theirs])
    shift = int(made.token_to_id("[PAD]") != 0)
    ours = torch.where(inputs["attention_mask"] > 0, inputs["input_ids"] + shift, 0)
    ended = cli("export", run, "--compact", "--format", "transformers")
    names: dict[str, Any] = {"AutoConfig": transformers.AutoConfig, "torchlasso": torchlasso}
    names["AutoModelForSequenceClassification"] = transformers.AutoModelForSequenceClassification
    line = next(line for line in ended.out.splitlines() if "Read it with: " in line)
    exec(line.partition("Read it with: ")[2], names)  # the line that the screen shows
    with torch.no_grad():
        found = names["model"].eval()(**inputs).logits
        torch.testing.assert_close(found, finished.model.eval()(ours))
        assert found.std() > 0.01
    folder = run / "transformers-compact"
    assert (folder / "tokenizer.json").read_text() == (fine_tuned / "model" / "tokenizer.json").read_text()
    assert cli("predict", run, "--data", tmp_path / "none.csv").code == 2


def test_texts_are_predicted_without_the_pretrained_model(
    cli: Any, fine_tuned: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(fine_tuned / "run", tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    config = run / "config.json"
    config.write_text(config.read_text().replace(str(fine_tuned), str(tmp_path / "gone")))
    assert cli("report", run, "--html").code == 0
    ended = cli("predict", run, "--data", texts)
    assert (ended.code, ended.out.count("\n")) == (0, 151)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_from_texts(cli: Any, texts: Path, tmp_path: Path, kind: str) -> None:
    folder, run = save(tmp_path / "model", kind), tmp_path / "run"
    options = ("--lam", "0", "--lr", "0.01", "--epochs", "30", "--batch-size", "16")
    assert cli("train", "--model", f"hf:{folder}", "--data", texts, *options, "--out", run).code == 0
    assert cli.summary(run)["error"] < 0.1


DAMAGE: list[tuple[Callable[[Path], object], tuple[str, ...], tuple[str, ...]]] = [
    (
        lambda folder: (folder / "tokenizer.json").unlink(),
        (),
        ("has neither preprocessor_config.json", "nor tokenizer.json"),
    ),
    (lambda folder: (folder / "tokenizer.json").write_text("{"), (), ("tokenizer.json is damaged",)),
    (lambda folder: (folder / "tokenizer.json").write_text("{}"), (), ("tokenizer.json", "it has no model")),
    (lambda folder: (folder / "tokenizer_config.json").write_text("x"), (), ("tokenizer_config.json is damaged",)),
    (lambda folder: None, ("--tokenizer", "words.json"), ("--tokenizer does not go with --model hf:",)),
    (lambda folder: None, ("--max-length", "99"), ("--max-length 99 is more than the 16 tokens",)),
]


@pytest.mark.parametrize(("change", "options", "names"), DAMAGE)
def test_what_does_not_fit_is_refused(
    cli: Any, texts: Path, tmp_path: Path, change: Callable[[Path], object], options: Any, names: tuple[str, ...]
) -> None:
    folder = save(tmp_path / "model", "bert")
    change(folder)
    ended = cli("train", "--model", f"hf:{folder}", "--data", texts, "--out", tmp_path / "run", *options)
    cli.assert_refused(ended, *names)
    assert not (tmp_path / "run").exists()


def test_rows_without_texts_are_refused(cli: Any, amounts: Path, classes: Path, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "bert")
    for data, name in ((classes, "has none (--text names"), (amounts, "the labels of")):
        ended = cli("train", "--model", f"hf:{folder}", "--data", data, "--out", tmp_path / "run")
        cli.assert_refused(ended, name)
