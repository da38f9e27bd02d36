"""Fine-tuning a pretrained model of transformers: ``--model hf:FOLDER``."""

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
from torchlasso.integrations.pretrained import build_network, image_preparation, read_pretrained
from torchlasso.runs.finished import open_run
from torchlasso.runs.folder import RunFolder

transformers = pytest.importorskip("transformers")
image = pytest.importorskip("PIL.Image")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers")]

CLASSES = ("cat", "dog")
LABELS = {"id2label": {0: "dog", 1: "cat"}, "label2id": {"dog": 0, "cat": 1}}  # not in our order
VIT = {"image_size": 8, "patch_size": 4, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
VIT |= {"intermediate_size": 64}
SIZES = {"hidden_sizes": [4, 6], "depths": [1, 1]}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", VIT),
    "resnet": ("ResNet", {"embedding_size": 4, "layer_type": "basic", **SIZES}),
    "convnext": ("ConvNext", {"patch_size": 2, "num_stages": 2, **SIZES}),
}
PROCESSOR = {"do_resize": True, "size": {"height": 8, "width": 8}, "do_rescale": True, "rescale_factor": 1 / 255}
PROCESSOR |= {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.2]}


def save(folder: Path, kind: str = "vit", processor: Any = PROCESSOR, **options: Any) -> Path:
    """Save a small model with random weights as a pretrained one."""
    name, sizes = KINDS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**sizes, **LABELS, **options})
    model = getattr(transformers, f"{name}ForImageClassification")(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape) / 5)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained model; to be copied, not written to."""
    return save(tmp_path_factory.mktemp("pretrained") / "vit")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two classes, brighter above or below, of 10×12 pixels."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for label in CLASSES:
        (folder / label).mkdir()
        for i in range(40):
            pixels = rng.integers(0, 120, size=(10, 12, 3), dtype=np.uint8)
            pixels[:5] += 100 * (label == "cat")
            image.fromarray(pixels).save(folder / label / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def fine_tuned(vit: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run at half of the FLOPs; to be copied, not written to."""
    from tests.support.command_line import succeed

    run = tmp_path_factory.mktemp("fine-tuned") / "run"
    words = ["--model", f"hf:{vit}", "--data", images, "--flops", "0.5", "--epochs", "8", "--batch-size", "16"]
    succeed("train", *words, "--out", run)
    succeed("compact", run)
    return run


def theirs(folder: Path, x: torch.Tensor) -> torch.Tensor:
    model = transformers.AutoModelForImageClassification.from_pretrained(folder)
    with torch.no_grad():
        return model(pixel_values=x).logits


X = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_theirs_with_the_classes_in_our_order(tmp_path: Path, kind: str) -> None:
    found = read_pretrained(f"hf:{save(tmp_path / kind, kind)}")
    network = build_network(found, CLASSES).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(X), theirs(tmp_path / kind, X)[:, [1, 0]])
        assert network(X).std() > 0.01
    assert network.network.config.id2label == dict(enumerate(CLASSES))


@pytest.mark.parametrize(
    ("options", "classes", "is_kept"),
    [
        ({}, ("a", "b", "c"), False),
        ({}, ("horse", "sheep"), False),
        ({"id2label": {0: "LABEL_0", 1: "LABEL_1"}}, ("horse", "sheep"), True),
    ],
)
def test_a_head_for_other_classes_is_new(tmp_path: Path, options: Any, classes: tuple[str, ...], is_kept: bool) -> None:
    found = read_pretrained(f"hf:{save(tmp_path / 'vit', **options)}")
    torch.manual_seed(1)
    network = build_network(found, classes)
    torch.manual_seed(1)
    again = build_network(found, classes)
    was = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "vit").state_dict()
    for name, w in network.network.state_dict().items():
        assert torch.equal(w, again.network.state_dict()[name])
        assert (w.shape == was[name].shape and torch.equal(w, was[name])) == (is_kept or "classifier" not in name), name


def test_a_model_without_a_head_gets_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.ViTModel(transformers.ViTConfig(**VIT), add_pooling_layer=False)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    network = build_network(read_pretrained(f"hf:{tmp_path}"), CLASSES)
    assert torch.equal(network.network.vit.layernorm.weight, model.layernorm.weight)
    assert network.network.classifier.weight.any()


@pytest.mark.parametrize(
    ("change", "size", "crops", "pixel"),
    [
        ({}, (8, 8), False, (1 - 0.5) / 0.5),
        ({"size": 8}, (8, 8), False, (1 - 0.5) / 0.5),
        ({"size": {"shortest_edge": 8}}, (8, 8), True, (1 - 0.5) / 0.5),
        ({"size": {"shortest_edge": 9}, "do_center_crop": True, "crop_size": 7}, (7, 7), True, (1 - 0.5) / 0.5),
        ({"do_resize": False}, None, False, (1 - 0.5) / 0.5),
        ({"do_normalize": False}, (8, 8), False, 1.0),
        ({"do_rescale": False}, (8, 8), False, (255 - 0.5) / 0.5),
        ({"rescale_factor": 2 / 255}, (8, 8), False, (2 - 0.5) / 0.5),
    ],
)
def test_the_processor_is_honoured(
    tmp_path: Path, vit: Path, change: Any, size: Any, crops: bool, pixel: float
) -> None:
    """``pixel``: a byte of 255 in the first channel, as the processor hands it to the network."""
    folder = Path(shutil.copytree(vit, tmp_path / "vit"))
    (folder / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, **change}))
    found = image_preparation(read_pretrained(f"hf:{folder}"))
    assert (found.size, found.crops) == (size, crops)
    assert (1 - found.mean[0]) / found.std[0] == pytest.approx(pixel)


def test_a_run_meets_the_budget_and_transformers_reads_it(cli: Any, fine_tuned: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(fine_tuned, tmp_path / "run"))
    options = json.loads((run / "config.json").read_text())["options"]
    assert (options["size"], options["resize"], options["over"]) == ("8x8", "stretch", "units")
    summary = cli.summary(run)
    assert summary["target_met"]
    assert summary["error"] < 0.3
    full, small = (open_run(str(run), compact=compact).model.eval() for compact in (False, True))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in full.parameters())
    ended = cli("export", run, "--format", "transformers")
    assert f"AutoModelForImageClassification.from_pretrained('{run / 'transformers'}')" in ended.out
    with torch.no_grad():
        torch.testing.assert_close(theirs(run / "transformers", X), full(X))
    ended = cli("export", run, "--compact", "--format", "transformers")
    names = {"AutoConfig": transformers.AutoConfig, "torchlasso": torchlasso}
    names["AutoModelForImageClassification"] = transformers.AutoModelForImageClassification
    exec(ended.out.partition("Read it with: ")[2].replace("\n", ""), names)  # the line that the screen shows
    with torch.no_grad():
        torch.testing.assert_close(names["model"].eval()(pixel_values=X).logits, small(X))
    processor = (run / "transformers-compact" / "preprocessor_config.json").read_text()
    assert json.loads(processor) == PROCESSOR


def test_what_was_read_is_said(cli: Any, fine_tuned: Path) -> None:
    notes = " ".join(cli.summary(fine_tuned)["data"]["notes"])
    assert "Pixels have the mean 0.5, 0.4, 0.3 and the deviation 0.5, 0.25, 0.2 of the pretrained model." in notes
    assert "The head for the same 2 classes is kept." in notes
    page = (fine_tuned / "report.html").read_text()
    assert "Pixels have the mean" in page
    assert "id2label" not in page


def test_a_finished_run_does_not_need_the_pretrained_model(cli: Any, images: Path, vit: Path, tmp_path: Path) -> None:
    folder, run = Path(shutil.copytree(vit, tmp_path / "vit")), tmp_path / "run"
    words = ("--model", f"hf:{folder}", "--data", images, "--epochs", "1", "--out", run)
    assert cli("train", *words).code == 0
    shutil.rmtree(folder)
    assert cli("predict", run, "--data", images / "cat" / "0.png").code == 0
    assert cli("report", run, "--html").code == 0
    assert cli("compact", run).code == 0


def test_an_interrupted_run_resumes(
    cli: Any, images: Path, vit: Path, tmp_path: Path, stop: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "vit"))
    words = ("--model", f"hf:{folder}", "--data", images, "--epochs", "2", "--compare", "dense")
    assert cli("train", *words, "--out", tmp_path / "whole").code == 0
    stop(RunFolder, "write_metrics", "before", 2)
    assert cli("train", *words, "--out", tmp_path / "run").code == 130
    monkeypatch.undo()
    weights = folder / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + b"\x01")
    cli.assert_refused(cli.resume(tmp_path / "run"), str(folder), "has changed since the run began")
    weights.write_bytes(kept)
    assert cli.resume(tmp_path / "run").code == 0
    for name in ("model.safetensors", "dense/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def edit(name: str, **entries: Any) -> Callable[[Path], object]:
    """Change entries of a JSON file."""

    def change(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))

    return change


def only_pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
DAMAGE: list[tuple[Callable[[Path], object], tuple[str, ...]]] = [
    (lambda folder: (folder / CONFIG).unlink(), ("has no config.json", "save_pretrained")),
    (lambda folder: (folder / CONFIG).write_text("{"), ("config.json is damaged",)),
    (lambda folder: (folder / CONFIG).write_text("[]"), ("config.json is damaged", "not an object")),
    (edit(CONFIG, model_type=None), ("config.json has no model_type",)),
    (edit(CONFIG, model_type="nonsense"), ("model_type 'nonsense' is not one",)),
    (edit(CONFIG, model_type="bert"), ("'bert' cannot classify images",)),
    (edit(CONFIG, hidden_size=12), ("weights do not fit its config.json",)),
    (edit(CONFIG, hidden_size="wide"), ("config.json cannot be used",)),
    (edit(CONFIG, auto_map={"AutoConfig": "evil.Config"}), ("code of its own", "never runs")),
    (lambda folder: (folder / PREPROCESSOR).unlink(), ("has neither preprocessor_config.json", "nor tokenizer.json")),
    (lambda folder: (folder / PREPROCESSOR).write_text("no JSON"), ("preprocessor_config.json is damaged",)),
    (edit(PREPROCESSOR, image_mean=["x"] * 3), ("image_mean is 'x', which is not a number",)),
    (edit(PREPROCESSOR, image_std=[0, 1, 1]), ("image_std must be above 0",)),
    (edit(PREPROCESSOR, image_mean=[0.5, 0.5]), ("image_mean has 2 values for 3 channels",)),
    (edit(PREPROCESSOR, size={"longest_edge": 8}), ("its size", "is not known")),
    (only_pickled, ("pickled weights only (pytorch_model.bin)", "save_pretrained")),
    (lambda folder: (folder / "model.safetensors").unlink(), ("has no weights", "model.safetensors is missing")),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"\x08"), ("cannot be read",)),
]


@pytest.mark.parametrize(("change", "names"), DAMAGE)
def test_a_damaged_folder_is_refused(
    cli: Any, images: Path, vit: Path, tmp_path: Path, change: Callable[[Path], object], names: tuple[str, ...]
) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "vit"))
    change(folder)
    ended = cli("train", "--model", f"hf:{folder}", "--data", images, "--out", tmp_path / "run")
    cli.assert_refused(ended, *names)
    assert not (tmp_path / "run").exists()


def test_unfit_data_are_refused(
    cli: Any, vit: Path, images: Path, classes: Path, amounts: Path, tmp_path: Path
) -> None:
    y = np.arange(30) % 2
    rng = np.random.default_rng(0)
    files = {
        "small": rng.integers(0, 255, size=(30, 3, 4, 4), dtype=np.uint8),
        "pairs": rng.integers(0, 255, size=(30, 2, 8, 8), dtype=np.uint8),
        "floats": rng.normal(size=(30, 3, 8, 8)).astype(np.float32),
    }
    for name, x in files.items():
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
    expected = {
        classes: ("classifies images", "shape (5,)"),
        tmp_path / "small.npz": ("images of 3×4×4", "4*4", "8*8"),
        tmp_path / "pairs.npz": ("images of 3 channels", "have 2"),
        tmp_path / "floats.npz": ("pixels from 0 to 1",),
    }
    for data, names in expected.items():
        ended = cli("train", "--model", f"hf:{vit}", "--data", data, "--out", tmp_path / "run")
        cli.assert_refused(ended, *names)
        assert not (tmp_path / "run").exists()


def test_a_name_that_is_no_folder_is_asked_for_on_the_hub(
    cli: Any, images: Path, vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked = []

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append(name)
        if name != "somebody/vit":
            raise OSError("no such model\nat all")
        assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in allow_patterns)
        return str(vit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    ended = cli("train", "--model", "hf:nobody/vit", "--data", images, "--out", tmp_path / "run")
    cli.assert_refused(ended, "nobody/vit is not a folder", "no such model")
    words = ("--data", images, "--epochs", "1", "--out", tmp_path / "run")
    assert cli("train", "--model", "hf:somebody/vit", *words).code == 0
    assert asked == ["nobody/vit", "somebody/vit"]
    cli.assert_refused(cli("train", "--model", "hf:", *words, "--overwrite"), "must name a folder")


def test_only_pretrained_models_become_folders(cli: Any, classes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli.train(classes, run, "--epochs", "1").code == 0
    cli.assert_refused(
        cli("export", run, "--format", "transformers"), "--format transformers is for the runs of --model hf:"
    )
    assert not (run / "transformers").exists()
