"""Named models whose sizes come from the data. A new model is one file here; importing this package registers it."""

from torchlasso._core.specs import import_modules
from torchlasso.models.registry import build, names, reads_texts, register

__all__ = ["build", "names", "reads_texts", "register"]

import_modules(__name__, __path__)
