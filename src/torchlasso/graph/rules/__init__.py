"""Rules of operators, family by family; importing this package registers all of them."""

from torchlasso.graph.rules import along, contractions, norms, opaque, picks, pointwise, recurrent, shapes, spatial

__all__ = ["along", "contractions", "norms", "opaque", "picks", "pointwise", "recurrent", "shapes", "spatial"]
