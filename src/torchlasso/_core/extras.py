"""Optional dependencies, imported where they are used; an error says how to install a missing one."""

from __future__ import annotations

import importlib
from typing import Any

from torchlasso._core.text import first_line


def require(module: str, extra: str, purpose: str) -> Any:
    """Import an optional dependency, or name the extra of torchlasso that installs it.

    Raises:
        ValueError: it is not installed, or importing it fails, as under a file of the user's that has the name of a
            package.

    >>> require("nowhere.at_all", "data", "reading tea leaves")
    Traceback (most recent call last):
    ValueError: reading tea leaves needs nowhere: pip install 'torchlasso[data]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name in (package, module):
            raise ValueError(f"{purpose} needs {package}: pip install 'torchlasso[{extra}]'") from error
        raise ValueError(f"{purpose} needs {package}, whose import fails: {first_line(error)}") from error
