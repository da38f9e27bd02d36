"""Training curves, stability, layers, filters, inputs and histograms draw the given numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import torchlasso as tl
from torchlasso.estimators.points import PathPoint
from torchlasso.figures._filters import filter_pixels
from torchlasso.figures._inputs import pixel_map, pixels_on, ranked
from torchlasso.figures._pixels import ABOVE, BELOW, NONE

EPOCHS = {
    "torchlasso": [
        {"epoch": 1, "loss": 2.0, "sparsity": 0.1, "lam": 1e-4, "val_error": 0.5},
        {"epoch": 2, "loss": 0.5, "sparsity": 0.6, "lam": 1e-3, "val_error": 0.25},
        {"epoch": 3, "loss": 0.05, "sparsity": 0.9, "lam": 1e-2, "val_error": 0.125},
    ],
    "dense": [{"epoch": 1, "loss": 1.0, "sparsity": 0.0, "lam": 0.0}, {"epoch": 2, "loss": float("nan"), "lam": 0.0}],
    "loss-term": [{"epoch": 1, "loss": 1.5, "sparsity": 0.0, "lam": 1e-2}],
}

LIVE = {0.1: [True, True, True, False], 0.2: [True, False, True, False], 0.4: [False, False, True, False]}
POINTS = [PathPoint(lam, np.array(live), loss=1.0) for lam, live in LIVE.items()]
POINTS.append(PathPoint(0.8, np.zeros(4, dtype=bool), loss=2.0))


@pytest.fixture
def record() -> tl.SparsityReport:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight[0], model[2].weight[:, 0] = 0.0, 0.0
    return tl.report(model, example_inputs=torch.randn(1, 4))


DRAWN: dict[str, Callable[[Any], Any]] = {
    "frontier": lambda ax: tl.figures.frontier([tl.figures.Series("it", [1.0, 0.1], [0.1, 0.2])], ax),
    "training": lambda ax: tl.figures.training(EPOCHS, "loss", ax),
    "stability": lambda ax: tl.figures.stability([0.1, 0.0], ax),
    "entries": lambda ax: tl.figures.entries(POINTS, ax),
    "frequencies": lambda ax: tl.figures.frequencies([[0.5], [1.0]], [0.2, 0.1], [True], ax),
    "numbers": lambda ax: tl.figures.numbers([tl.figures.Series("it", [1, 5], [0.5, 0.9])], ax),
    "layers": lambda ax: tl.figures.layers(tl.report(nn.Linear(3, 2)), "weights", ax),
    "filters": lambda ax: tl.figures.filters(torch.ones(2, 1, 3, 3), ax),
    "inputs": lambda ax: tl.figures.inputs(torch.tensor([True, False]), ax),
    "pixels": lambda ax: tl.figures.inputs(torch.ones(1, 3, 3, dtype=torch.bool), ax),
    "weights": lambda ax: tl.figures.weights(torch.ones(3), torch.zeros(3), ax),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_given_axes_are_returned(draw: Callable[[Any], Any]) -> None:
    first, second = Figure().subplots(1, 2)
    assert draw(second) is second
    assert second.has_data()
    assert not first.has_data()
    own = draw(None)
    assert own.has_data()
    assert own.figure is not second.figure


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_without_matplotlib_it_says_what_to_install(
    draw: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"^drawing needs matplotlib: pip install 'torchlasso\[figures\]'$"):
        draw(None)


def lines_of(axes: Any) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def test_training_draws_a_line_for_each_run() -> None:
    axes = tl.figures.training(EPOCHS)
    assert lines_of(axes) == {
        "torchlasso": ([1, 2, 3], [2.0, 0.5, 0.05]),
        "dense": ([1], [1.0]),
        "loss-term": ([1], [1.5]),
    }
    assert axes.get_yscale() == "log"
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 3


def test_a_run_looks_the_same_in_every_figure_and_lam_is_drawn_where_there_is_a_penalty() -> None:
    looks = [
        {line.get_label(): line.get_color() for line in tl.figures.training(EPOCHS, what).lines}
        for what in ("loss", "sparsity", "lam", "val_error")
    ]
    assert [set(look) for look in looks] == [
        {"torchlasso", "dense", "loss-term"},
        {"torchlasso", "dense", "loss-term"},
        {"torchlasso", "loss-term"},
        {"torchlasso"},
    ]
    assert all(look[name] == looks[0][name] for look in looks for name in look)


def test_fractions_are_in_per_cent_from_none_on() -> None:
    axes = tl.figures.training(EPOCHS, "sparsity")
    assert lines_of(axes)["torchlasso"] == ([1, 2, 3], [10.0, 60.0, 90.0])
    assert axes.get_ylim()[0] == 0
    assert axes.yaxis.get_major_formatter()(50.0, None) == "50 %"


def test_training_along_something_else() -> None:
    axes = tl.figures.training({"path": [{"lam": 0.1, "loss": -1.0}, {"lam": 0.2, "loss": -0.5}]}, by="lam")
    assert lines_of(axes)["path"] == ([0.1, 0.2], [-1.0, -0.5])
    assert axes.get_xlabel() == "lam"


@pytest.mark.parametrize("runs", [{}, {"it": []}, {"it": [{"epoch": 1}]}, {"it": [{"epoch": 1, "loss": None}]}])
def test_no_training_to_draw(runs: Any) -> None:
    with pytest.raises(ValueError, match=r"^no run has 'loss' by 'epoch' to draw$"):
        tl.figures.training(runs)


def test_stability_reaches_from_all_to_none() -> None:
    axes = tl.figures.stability([1.0, 0.01, 1e-5, 0.0])
    (line,) = axes.lines
    assert list(line.get_ydata()) == pytest.approx([100.0, 1.0, 1e-3, 0.0])
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] >= 100
    with pytest.raises(ValueError, match="at least one epoch"):
        tl.figures.stability([])


def test_layers_are_bars_of_totals_and_remains(record: tl.SparsityReport) -> None:
    expected = {
        "weights": [(12, 8), (6, 4)],
        "units": [(3, 2), (2, 2)],
        "inputs": [(4, 4), (3, 2)],
        "bytes": [(48, 32), (24, 16)],
        "flops": [(24, 16), (12, 8)],
    }
    for what, parts in expected.items():
        axes = tl.figures.layers(record, what)
        whole, left = ([bar.get_width() for bar in container] for container in axes.containers)
        assert list(zip(whole, left, strict=True)) == parts, what
        assert [label.get_text() for label in axes.get_yticklabels()] == ["0.weight", "2.weight"]
    assert "8 of 12" in [text.get_text() for text in tl.figures.layers(record).texts]


def test_layers_without_the_requested_entries(record: tl.SparsityReport) -> None:
    with pytest.raises(ValueError, match="unknown part of layers 'flop'; did you mean 'flops'"):
        tl.figures.layers(record, "flop")
    with pytest.raises(ValueError, match="give report example_inputs"):
        tl.figures.layers(tl.report(nn.Linear(2, 2)), "flops")
    with pytest.raises(ValueError, match="no layers with weights"):
        tl.figures.layers(tl.report(nn.ReLU()))


def test_filters_are_shown_as_they_are_the_largest_first() -> None:
    w = torch.zeros(3, 1, 1, 2)
    w[0, 0, 0, 1], w[2, 0, 0] = 1.0, torch.tensor([-2.0, 0.0])
    pixels = filter_pixels(w)
    assert pixels.shape == (1, 5, 4)  # two filters of two pixels, and a gap
    colours = [tuple(pixel[:3]) for pixel in pixels[0].tolist()]
    assert colours == [BELOW, NONE, (0, 0, 0), NONE, ABOVE]
    largest, zero, gap, _, half = pixels[0, :, 3].tolist()
    assert 255 == largest > half > zero > gap == 0


def test_a_filter_of_many_channels_is_a_row_of_the_channels_read() -> None:
    w = torch.rand(5, 20, 3, 3) + 0.1
    w[:, 7] = 0
    w[1] = 0
    assert filter_pixels(w).shape == (4 * 4 - 1, 19 * 4 - 1, 4)
    assert filter_pixels(w, most=2).shape == (2 * 4 - 1, 19 * 4 - 1, 4)


def test_units_on_images_are_shown_as_images() -> None:
    w = torch.rand(3, 8)
    assert filter_pixels(w, shape=(1, 2, 4)).shape == (2, 3 * 5 - 1, 4)
    assert filter_pixels(torch.rand(3, 2, 5)).shape == (1, 3 * 2 * 6 - 1, 4)  # a convolution along one dimension


def test_filters_that_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="all filters are zero"):
        tl.figures.filters(torch.zeros(2, 1, 3, 3))
    with pytest.raises(ValueError, match=r"got \(2, 3\)"):
        tl.figures.filters(torch.ones(2, 3))


def test_features_are_ranked_and_named() -> None:
    read, strengths = torch.tensor([True, False, True, True]), torch.tensor([1.0, 0.0, 3.0, 2.0])
    axes = tl.figures.inputs(read, strengths=strengths, names="abcd")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c", "d", "a"]
    assert [bar.get_width() for bar in axes.containers[0]] == [3.0, 2.0, 1.0]
    assert ranked(read) == [("input 0", 1.0), ("input 2", 1.0), ("input 3", 1.0)]
    with pytest.raises(ValueError, match="no feature is read"):
        tl.figures.inputs(torch.zeros(3, dtype=torch.bool))


def test_pixels_that_are_not_read_are_dots() -> None:
    read = torch.ones(3, 4, 4, dtype=torch.bool)
    read[:, 1, 2] = False
    read[0, 0, 0] = False  # another channel is read there
    pixels = pixel_map(read)
    assert pixels.shape == (20, 20, 4)
    gone = pixels[5:10, 10:15]
    assert tuple(gone[2, 2].tolist()) == (*NONE, 255)
    assert int((gone[..., 3] > 0).sum()) == 1
    assert bool((pixels[:5, :5, 3] > 0).all())


def test_images_are_shown_where_they_are_read() -> None:
    images = torch.rand(7, 1, 20, 30)
    read = torch.ones(1, 20, 30, dtype=torch.bool)
    assert pixels_on(read, images).shape == (2 * 60 + 3, 5 * 90 + 4 * 3, 4)
    first = pixels_on(read, images[:1])
    expected = 255 * (images[0, 0] - images[0].min()) / (images[0].max() - images[0].min())
    assert torch.allclose(first[1::3, 1::3, 0].float(), expected, atol=1)
    coloured = pixels_on(torch.ones(3, 2, 2, dtype=torch.bool), torch.eye(3)[..., None, None].expand(3, 3, 2, 2))
    assert [tuple(coloured[0, 13 * k, :3].tolist()) for k in range(3)] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def test_large_images_are_shown_smaller() -> None:
    read = torch.zeros(1, 200, 100, dtype=torch.bool)
    read[0, 0, 0] = True
    pixels = pixels_on(read, torch.rand(2, 1, 200, 100))
    assert pixels.shape == (3 * 50, 2 * 3 * 25 + 3, 4)
    assert bool((pixels[:3, :3, 3] == 255).all())  # one of the pixels that are one here is read


def test_shapes_that_do_not_fit() -> None:
    read = torch.ones(1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"strengths must have the shape of read, \(1, 4, 4\)"):
        tl.figures.inputs(read, strengths=torch.ones(4, 4))
    with pytest.raises(ValueError, match=r"images must have the shape of read, \(1, 4, 4\)"):
        tl.figures.inputs(read, images=torch.ones(3, 4, 4))


def test_histograms_count_nonzero_weights() -> None:
    before = torch.tensor([-1.0, -0.5, 0.1, 0.1, 1.0])
    after = torch.tensor([0.0, -0.5, 0.0, 0.1, 0.0])
    axes = tl.figures.weights(before, after.reshape(5, 1), names=("dense", "now"))
    outline, area = axes.patches
    assert (sum(outline.get_data().values), sum(area.get_data().values)) == (5, 2)
    assert (outline.get_fill(), area.get_fill()) == (False, True)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["dense: 0.0 % zeros", "now: 60.0 % zeros"]
    with pytest.raises(ValueError, match="at least one weight"):
        tl.figures.weights(before, torch.zeros(0))


def test_stability_paths_have_the_names_of_the_selected_features_beside_them() -> None:
    shares = torch.tensor([[0.0, 0.2, 0.5], [0.1, 1.0, 1.0]])
    axes = tl.figures.frequencies(shares, [0.2, 0.1], [False, True, True], names=("a", "b", "$c"))
    assert [text.get_text() for text in axes.texts] == [r"\$c", "b"]  # the one that enters first on top
    drawn = {tuple(round(float(y)) for y in line.get_ydata()) for line in axes.lines}
    assert drawn == {(0, 10), (20, 100), (50, 100), (50, 50)}  # and the half
    assert axes.xaxis_inverted()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], []), r"shares must be \(points, features\), with points; got \(0,\)"),
        (([[0.1]], [0.1, 0.2], [True]), r"lams must have the shape \(1,\); got \(2,\)"),
        (([[0.1]], [0.1], [True, False]), r"selected must have the shape \(1,\); got \(2,\)"),
    ],
)
def test_stability_paths_whose_shapes_do_not_fit(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tl.figures.frequencies(*arguments)


def test_scores_over_numbers_of_features() -> None:
    line = tl.figures.Series("ours", [1, 10, 100], [0.5, 0.8, 0.9], [0.1, 0.05, 0.05])
    axes = tl.figures.numbers([line], every=0.85, chosen=(10, 0.8))
    drawn = {line.get_label(): [round(float(y)) for y in line.get_ydata()] for line in axes.lines}
    assert drawn == {"ours": [50, 80, 90], "all features": [85, 85], "chosen": [80]}
    assert axes.get_xscale() == "log"
    raw = tl.figures.numbers([line], measure="R²", percent=False)
    assert [float(y) for y in raw.lines[0].get_ydata()] == [0.5, 0.8, 0.9]


@pytest.mark.parametrize("left", [[], [0.0, 1.0]])
def test_numbers_of_features_are_above_zero(left: list[float]) -> None:
    with pytest.raises(ValueError, match="points, with numbers of features above 0"):
        tl.figures.numbers([tl.figures.Series("it", left, left)])


def test_entries_are_in_the_order_in_which_features_leave() -> None:
    axes = tl.figures.entries(POINTS, names=("a", "$b", "c", "d"))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c", "a", r"\$b"]
    spans = [tuple(line.get_xdata()) for line in axes.lines[::2]]
    assert spans == [(0.1, 0.4), (0.1, 0.2), (0.1, 0.1)]
    assert len(tl.figures.entries(POINTS, most=1).get_yticklabels()) == 1


@pytest.mark.parametrize(
    ("points", "names", "message"),
    [
        (slice(0, 1), (), "entries: path must have two points at least, with λ above 0"),
        (slice(3, 5), (), "entries: no feature is read"),
        (slice(0, 5), ("a",), "entries: names must have a name for each of the 4 features; got 1"),
    ],
)
def test_a_path_that_cannot_be_drawn(points: slice, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tl.figures.entries([*POINTS, PathPoint(0.9, np.zeros(4, dtype=bool), 1.0)][points], names=names)
