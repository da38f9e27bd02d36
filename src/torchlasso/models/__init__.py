"""Named models, built to fit the data. A new one is one file here: importing this package finds it."""

import importlib
import pkgutil

from torchlasso.models.registry import build, names, register

__all__ = ["build", "names", "register"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
