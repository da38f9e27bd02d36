"""Figures drawn with matplotlib, which is imported only when a figure is drawn. They take and return axes.

>>> import torchlasso as tl
>>> axes = tl.figures.stability([0.4, 0.1, 0.01])
>>> axes.figure.savefig("stability.png")  # doctest: +SKIP
"""

from torchlasso.figures._entries import entries
from torchlasso.figures._filters import filters
from torchlasso.figures._frequencies import frequencies
from torchlasso.figures._frontier import Series, frontier
from torchlasso.figures._inputs import inputs
from torchlasso.figures._layers import layers
from torchlasso.figures._numbers import numbers
from torchlasso.figures._stability import stability
from torchlasso.figures._style import save
from torchlasso.figures._training import training
from torchlasso.figures._weights import weights

__all__ = [
    "Series",
    "entries",
    "filters",
    "frequencies",
    "frontier",
    "inputs",
    "layers",
    "numbers",
    "save",
    "stability",
    "training",
    "weights",
]
