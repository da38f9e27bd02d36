"""Named models, built to fit the data. A new one is one file here: importing this package finds it."""

from torchlasso.models.registry import build, names, register
from torchlasso.names import import_modules

__all__ = ["build", "names", "register"]

import_modules(__name__, __path__)
