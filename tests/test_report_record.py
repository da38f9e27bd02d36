"""The sparsity report: its counts, and the agreement of its views."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

import torchlasso as tl
from torchlasso._core.readable import byte_size, percent
from torchlasso.diagnostics.record import LayerReport, SparsityReport
from torchlasso.diagnostics.report import report


def zeroed(w: torch.Tensor, *places: object) -> None:
    """Ones, with zeros in these places."""
    with torch.no_grad():
        w.fill_(1.0)
        for place in places:
            w[place] = 0.0


def test_units_of_a_network_with_transposed_convolutions_are_reported():
    up = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, stride=2), nn.ReLU())
    net, x = nn.Sequential(up, nn.Conv2d(4, 2, 1)), torch.randn(2, 3, 6, 6)
    groups = tl.param_groups(net, tl.L1(over=tl.Units(net, x)), lam=0.1)
    zeroed(up[2].weight, (slice(None), 1))
    zeroed(up[2].bias, 1)
    rows = {layer.name: (layer.units, layer.live_units) for layer in report(net, groups, x).layers}
    assert rows == {
        "0.0.weight": (8, 8),
        "0.0.bias": (8, 8),
        "0.2.weight": (4, 3),
        "0.2.bias": (4, 3),
        "1.weight": (2, 2),
    }


@pytest.fixture
def model() -> nn.Module:
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 4, 2),
            "grouped": nn.Conv2d(4, 6, 3, groups=2),
            "norm": nn.BatchNorm2d(4),
            "up": nn.ConvTranspose2d(4, 5, 2),
            "words": nn.Embedding(7, 3),
            "layer": nn.LayerNorm(3),
            "head": nn.Linear(3, 2),
        }
    )
    zeroed(model["conv"].weight, 0, (slice(None), 2))  # one filter, and one input channel
    zeroed(model["grouped"].weight, 5, (slice(0, 3), 1))  # a filter, and the second input of the first group
    zeroed(model["up"].weight, 1, (slice(None), slice(3, 5)))  # one input; two outputs
    zeroed(model["words"].weight, 0, 3)  # two words
    zeroed(model["head"].weight, (0, 0))
    return model


def by_name(record: SparsityReport) -> dict[str, LayerReport]:
    return {layer.name: layer for layer in record.layers}


def test_each_kind_of_layer_is_counted(model: nn.Module) -> None:
    layers = by_name(report(model))
    assert list(layers) == ["conv.weight", "grouped.weight", "up.weight", "words.weight", "head.weight"]
    found = {
        name.removesuffix(".weight"): (r.kind, r.weights, r.zeros, r.live_units, r.units, r.live_inputs, r.inputs)
        for name, r in layers.items()
    }
    assert found == {
        "conv": ("Conv2d", 48, 12 + 12, 3, 4, 2, 3),
        "grouped": ("Conv2d", 108, 18 + 27, 5, 6, 3, 4),
        "up": ("ConvTranspose2d", 80, 20 + 24, 3, 5, 3, 4),
        "words": ("Embedding", 21, 6, 5, 7, 3, 3),
        "head": ("Linear", 6, 1, 2, 2, 3, 3),
    }
    assert all(layer.bytes == 4 * layer.weights and layer.penalised for layer in layers.values())
    assert layers["conv.weight"].shape == (4, 3, 2, 2)
    assert layers["conv.weight"].sparsity == 0.5


def test_the_totals(model: nn.Module) -> None:
    record = report(model)
    everything = list(model.parameters())
    assert record.penalised == 48 + 108 + 80 + 21 + 6
    assert record.zeros == 24 + 45 + 44 + 6 + 1
    assert record.nonzero == record.penalised - record.zeros
    assert record.sparsity == record.zeros / record.penalised
    assert record.parameters == sum(p.numel() for p in everything)
    assert record.bytes == 4 * record.parameters
    assert report(model.double()).bytes == 8 * record.parameters
    assert report(model.half()).bytes == 2 * record.parameters


def test_the_groups_decide_the_penalised_weights(model: nn.Module) -> None:
    record = report(model, tl.param_groups(model, tl.Rule(nn.Conv2d, tl.L1()), lam=0.1))
    assert [layer.name for layer in record.layers if layer.penalised] == ["conv.weight", "grouped.weight"]
    assert (record.penalised, record.zeros) == (48 + 108, 24 + 45)
    assert len(record.layers) == 5  # all are shown
    assert "–" in str(record).splitlines()[3]


def test_the_groups_of_an_optimizer_serve_as_well(model: nn.Module) -> None:
    groups = tl.param_groups(model, tl.L1(), lam=0.1)
    assert report(model, tl.ProxAdam(groups, lr=0.1).penalised_groups()) == report(model, groups) == report(model)


def test_penalised_vectors_are_shown_too(model: nn.Module) -> None:
    rules = [tl.Rule("norm.weight", tl.L1(), everything=True), tl.Rule("head.*", tl.L1())]
    record = report(model, tl.param_groups(model, rules, lam=0.1))
    assert by_name(record)["norm.weight"].penalised
    assert record.penalised == 4 + 6
    with torch.no_grad():
        model["norm"].weight[1:3] = 0
    norm = by_name(report(model, tl.param_groups(model, rules, lam=0.1)))["norm.weight"]
    assert (norm.zeros, norm.units, norm.live_units) == (2, 4, 2)


def test_a_penalised_number_is_shown_too() -> None:
    model = nn.Linear(2, 2)
    model.register_parameter("scale", nn.Parameter(torch.tensor(0.0)))
    record = report(model, tl.param_groups(model, tl.Rule("*", tl.L1(), everything=True), lam=0.1))
    scale = by_name(record)["scale"]
    assert (scale.weights, scale.zeros, scale.shape) == (1, 1, ())


def test_shared_weights_count_once() -> None:
    model = nn.ModuleList([nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)])
    model[1].weight = model[0].weight
    record = report(model)
    assert [layer.name for layer in record.layers] == ["0.weight"]
    assert record.parameters == record.penalised == 12


def test_zeros_of_both_signs_count_and_small_weights_do_not() -> None:
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, -0.0, 1e-45, 1e-30]]))
    assert report(model).zeros == 2


@pytest.mark.parametrize(
    "model", [nn.Sequential(), nn.ReLU(), nn.BatchNorm1d(3), nn.Sequential(nn.LayerNorm(2), nn.ReLU())]
)
def test_nothing_to_penalise(model: nn.Module, tmp_path: Path) -> None:
    record = report(model)
    assert (record.layers, record.penalised, record.sparsity) == ((), 0, 0.0)
    assert record.parameters == sum(p.numel() for p in model.parameters())
    assert str(record).splitlines()[-1].startswith("total")
    assert record.to_dict()["layers"] == []
    record.to_html(tmp_path / "r.html")
    assert (tmp_path / "r.html").exists()


def test_no_group_has_a_penalty(model: nn.Module) -> None:
    record = report(model, [{"params": list(model.parameters()), "penalty": None, "lam": 0.0}])
    assert (record.penalised, record.zeros, record.sparsity) == (0, 0, 0.0)
    assert len(record.layers) == 5


def test_an_empty_weight_is_left_out() -> None:
    with pytest.warns(UserWarning, match="zero-element"):
        empty = nn.Linear(0, 3)
    assert report(nn.Sequential(empty, nn.Linear(3, 1))).penalised == 3


def test_the_dictionary_is_json(model: nn.Module) -> None:
    record = report(model)
    content = record.to_dict()
    assert json.loads(json.dumps(content)) == content
    for key in ("sparsity", "zeros", "nonzero", "penalised", "parameters", "bytes"):
        assert content[key] == getattr(record, key)
    fields = {field.name for field in dataclasses.fields(LayerReport)} | {"sparsity"}
    assert all(set(layer) == fields for layer in content["layers"])
    assert content["layers"][0]["shape"] == [4, 3, 2, 2]


def test_a_report_is_frozen(model: nn.Module) -> None:
    record = report(model)
    for thing, name in ((record, "parameters"), (record.layers[0], "zeros")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, name, 1)
    assert hash(record) == hash(report(model))


def test_the_flops_count_live_units_and_live_inputs(model: nn.Module) -> None:
    """Two for each weight and place: 8×8 pixels make 7×7 places of 2×2 filters, and 5×5 of 3×3 ones after these."""
    net = nn.Sequential(model["conv"], model["norm"], model["grouped"], nn.Flatten(), nn.Linear(150, 2))
    record = report(net, example_inputs=torch.randn(2, 3, 8, 8))
    convolution, grouped, linear = record.layers
    assert [layer.flops for layer in record.layers] == [2 * 2 * 49 * 48, 2 * 2 * 25 * 108, 2 * 2 * 300]
    assert convolution.live_weights == 3 * 2 * 4  # of 4 filters and 3 channels
    assert convolution.live_flops == convolution.flops * 24 / 48
    assert grouped.live_weights == (3 * 1 + 2 * 2) * 9  # the first group reads one channel, the second lacks a filter
    assert linear.live_flops == linear.flops
    assert report(net).layers[0].flops is report(net).layers[0].live_flops is None
    assert not net[0]._forward_hooks
    assert net.training


def test_the_flops_are_shared_out_among_the_weights_of_a_module() -> None:
    first, second = report(Bilinears(), example_inputs=torch.ones(1, 3)).layers
    assert (first.flops, second.flops) == (2 * 12, 2 * 6)


class Bilinears(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3, 2))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x @ self.first, x @ self.second


def test_penalised_biases_have_none_of_the_flops() -> None:
    net = nn.Linear(3, 2)
    groups = tl.param_groups(net, tl.Rule("*", tl.L1(), everything=True), lam=0.1)
    found = {layer.name: layer.flops for layer in report(net, groups, torch.ones(1, 3)).layers}
    assert found == {"weight": 12, "bias": 0}


def test_a_model_that_cannot_run_has_no_flops() -> None:
    net = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"^the forward pass on example_inputs failed: mat1 and mat2"):
        report(net, example_inputs=torch.ones(1, 4))
    assert not net._forward_hooks


def test_the_page_shows_the_flops_where_they_are_known(tmp_path: Path) -> None:
    net = nn.Linear(3, 2, bias=False)
    zeroed(net.weight, 0)
    page = page_of(report(net, example_inputs=torch.ones(1, 3)), tmp_path / "r.html")
    assert page.cells[-1] == "6 of 12"
    assert "FLOPs" not in page_of(report(net), tmp_path / "r.html").text


def test_a_report_leaves_the_model_alone(model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_the_table(model: nn.Module) -> None:
    record = report(model)
    head, *rows, rule, total = str(record).splitlines()
    assert head.split() == ["layer", "shape", "weights", "zeros", "live", "units", "live", "inputs", "size"]
    assert rows[0].split() == ["conv.weight", "4×3×2×2", "48", "50.0", "%", "3/4", "2/3", "192", "B"]
    assert len(rows) == 5
    assert set(rule) == {"─"}
    zeros, size = f"{100 * record.sparsity:.1f}", byte_size(record.bytes)[:-3]
    assert total.split() == ["total", "263", zeros, "%", size, "kB"]
    assert len({line.index("%") for line in (*rows, total)}) == 1  # aligned


def shown(record: SparsityReport) -> str:
    console = Console(file=io.StringIO(), width=200, highlight=False)
    console.print(record)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_rich_shows_the_same_table(model: nn.Module) -> None:
    record = report(model)
    assert shown(record).rstrip("\n") == str(record)


@pytest.mark.parametrize("name", ["[red]", "a[/b]", "x[0]", "back\\[red]slash"])
def test_rich_shows_names_as_they_are(name: str) -> None:
    record = report(nn.ModuleDict({name: nn.Linear(2, 2)}))
    assert shown(record).rstrip("\n") == str(record)


class Page(HTMLParser):
    """Collects the text of cells, and whether every tag is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag != "meta":
            self.open.append(tag)
        if tag == "td" or ("scope", "row") in attrs:
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "tbody" in self.open and data.strip():
            self.cells[-1] += data


def page_of(record: SparsityReport, path: Path, **more: str) -> Page:
    record.to_html(path, **more)
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


def test_the_page(model: nn.Module, tmp_path: Path) -> None:
    record = report(model)
    page = page_of(record, tmp_path / "r.html", title="Mine & yours")
    rows = [page.cells[7 * i : 7 * i + 7] for i in range(5)]
    assert rows[0] == ["conv.weight", "4×3×2×2", "48", "50.0 %", "3/4", "2/3", "192 B"]
    assert [row[0] for row in rows] == [layer.name for layer in record.layers]
    assert "Mine & yours" in page.text
    assert f"{record.nonzero:,} remain" in page.text
    assert "more" in page_of(record, tmp_path / "r.html", above="<p>more</p>").text


def test_the_page_escapes_names(tmp_path: Path) -> None:
    name = "<script>alert('x')</script>&amp;"
    page = page_of(report(nn.ModuleDict({name: nn.Linear(2, 2)})), tmp_path / "r.html", title="<b>")
    assert page.cells[0] == f"{name}.weight"
    assert not page.tags & {"script", "b"}


def test_every_view_rounds_alike(tmp_path: Path) -> None:
    """100 % of the weights are zero only where all are, on the page too."""
    model = nn.Linear(100, 100, bias=False)
    zeroed(model.weight, slice(None))
    with torch.no_grad():
        model.weight[0, 0] = 1.0
    record = report(model)
    assert "99.9 %" in str(record)
    assert page_of(record, tmp_path / "r.html").cells[3] == "99.9 %"


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (0.0, "0.0 %"),
        (0.5, "50.0 %"),
        (0.12345, "12.3 %"),
        (0.9271, "92.7 %"),
        (0.9989, "99.9 %"),
        (0.9994, "99.9 %"),
        (0.9996, "99.9 %"),
        (0.99999999, "99.9 %"),
        (1.0, "100.0 %"),
    ],
)
def test_percent(fraction: float, expected: str) -> None:
    assert percent(fraction) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1 kB"),
        (1_234, "1.23 kB"),
        (123_456, "123 kB"),
        (1_000_000, "1 MB"),
        (2_500_000_000, "2.5 GB"),
    ],
)
def test_size(count: int, expected: str) -> None:
    assert byte_size(count) == expected


@pytest.mark.parametrize("count", [999_400, 999_500, 999_999, 999_999_999, 10**12, 7 * 10**13])
def test_sizes_are_never_written_with_powers(count: int) -> None:
    """999,999 bytes are 1 MB or 1000 kB, and not 1e+03 kB."""
    number, unit = byte_size(count).split()
    assert "e" not in number
    scale = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}[unit]
    assert float(number.replace(",", "")) * scale == pytest.approx(count, rel=0.005)
