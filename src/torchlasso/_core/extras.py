"""Optional dependencies, imported where they are used; an error says how to install a missing one."""

from __future__ import annotations

import importlib
from typing import Any


def require(module: str, extra: str, purpose: str) -> Any:
    """Import an optional dependency, or name the extra of torchlasso that installs it.

    Raises:
        ValueError: it is not installed.

    >>> require("nowhere.at_all", "data", "reading tea leaves")
    Traceback (most recent call last):
    ValueError: reading tea leaves needs nowhere: pip install 'torchlasso[data]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise ValueError(f"{purpose} needs {package}: pip install 'torchlasso[{extra}]'") from error
