"""The path of an estimator: the values of λ at which each feature is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from torchlasso._core.arguments import check_whole
from torchlasso.figures._style import BLUE, SOFT, axes_or_new, dress, module, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class EntryPoint(Protocol):
    """A point of a path: λ, and a mask of the features that are read, (features,)."""

    @property
    def lam(self) -> float:
        """λ."""

    @property
    def live(self) -> Any:
        """The mask."""


def entries(
    path: Sequence[EntryPoint],
    ax: Axes | None = None,
    *,
    names: Sequence[str] = (),
    most: int = 30,
    title: str = "",
) -> Axes:
    """Draw for each feature the values of λ at which it is read, the one that stays longest first.

    Args:
        path: such as ``SparseClassifier.path_``: points with ``lam``, above 0, and ``live``.
        ax: the axes to draw in; without them, new ones.
        names: the names of the features.
        most: the most features to draw.
        title: the title of the figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the path has fewer than two points, or reads no feature; a λ is not above 0; there are other names.

    Examples:
        >>> import torchlasso as tl
        >>> from torchlasso.estimators import SparseRegressor
        >>> x = np.random.default_rng(0).normal(size=(100, 3))
        >>> model = SparseRegressor(lam=0.01, hidden=()).fit(x, x[:, 1] - 3 * x[:, 2])
        >>> axes = tl.figures.entries(model.path_, names=("age", "dose", "weight"), most=2)
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['weight', 'dose']
    """
    check_whole("entries: most", most)
    lams = np.array([point.lam for point in path], dtype=float)
    if len(lams) < 2 or not (lams > 0).all():
        raise ValueError(f"entries: path must have two points at least, with λ above 0; got λ = {lams.tolist()}")
    live = np.stack([np.asarray(point.live, dtype=bool) for point in path])  # (points, features)
    if names and len(names) != live.shape[1]:
        raise ValueError(f"entries: names must have a name for each of the {live.shape[1]} features; got {len(names)}")
    last = np.where(live, lams[:, None], 0.0).max(axis=0)
    order = [i for i in np.argsort(-last, kind="stable").tolist() if last[i] > 0][:most]
    if not order:
        raise ValueError("entries: no feature is read: there is nothing to draw")
    axes = axes_or_new(ax, (7, 1.4 + 0.28 * len(order)))
    axes.vlines(lams, -0.5, len(order) - 0.5, color=SOFT, alpha=0.25, linewidth=0.8)
    for place, i in enumerate(order):
        own = lams[live[:, i]]
        axes.plot([own.min(), own.max()], [place, place], color=BLUE, linewidth=2)
        axes.plot(own, [place] * len(own), color=BLUE, marker="o", markersize=4, linestyle="none")
    axes.set_xscale("log")
    ticker = module("matplotlib.ticker")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_yticks(range(len(order)), [plain(names[i]) if names else f"feature {i}" for i in order])
    axes.set_ylim(len(order) - 0.5, -0.5)
    dress(axes, x="λ", title=title, grid="x")
    return axes  # type: ignore[no-any-return]
