"""The regularization path: from dense to sparse with warm starts, and the choice of a point."""

from torchlasso.path.choosing import RULES, choose, folds_of, pooled
from torchlasso.path.following import Recipe, collapsed, follow, train_alone
from torchlasso.path.grid import Grid
from torchlasso.path.jumps import remarks
from torchlasso.path.points import Point, badness

__all__ = [
    "RULES",
    "Grid",
    "Point",
    "Recipe",
    "badness",
    "choose",
    "collapsed",
    "folds_of",
    "follow",
    "pooled",
    "remarks",
    "train_alone",
]
