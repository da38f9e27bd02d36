"""Figures, drawn by matplotlib, which is imported where one is drawn: axes in and out.

>>> import torchlasso as tl
>>> axes = tl.figures.stability([0.4, 0.1, 0.01])
>>> axes.figure.savefig("stability.png")  # doctest: +SKIP
"""

from torchlasso.figures.filters import filters
from torchlasso.figures.frontier import Series, frontier
from torchlasso.figures.inputs import inputs
from torchlasso.figures.layers import layers
from torchlasso.figures.stability import stability
from torchlasso.figures.style import save
from torchlasso.figures.training import training
from torchlasso.figures.weights import weights

__all__ = ["Series", "filters", "frontier", "inputs", "layers", "save", "stability", "training", "weights"]
