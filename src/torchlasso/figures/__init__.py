"""Figures, drawn by matplotlib."""

from torchlasso.figures.frontier import Series, draw_frontier

__all__ = ["Series", "draw_frontier"]
