"""What is known of operators, family by family; importing this package registers all of it."""

from torchlasso.graph.rules import contractions, norms, opaque, pointwise, shapes

__all__ = ["contractions", "norms", "opaque", "pointwise", "shapes"]
