"""Imports: nothing but torch below the upper layers, and no function that shadows a module."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import types

import grimp
import pytest

import torchlasso

# The layers that import torch and the standard library, nothing else.
LOWER = (
    "_core",
    "distributed",
    "html",
    "penalties",
    "selection",
    "optim",
    "graph",
    "control",
    "diagnostics",
    "training",
    "compaction",
)
OPTIONAL = ("sklearn", "datasets", "PIL", "pyarrow", "matplotlib", "typer", "rich", "pandas")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("torchlasso", include_external_packages=True, cache_dir=None)


@pytest.mark.parametrize("name", LOWER)
def test_the_lower_layers_import_only_torch(graph: grimp.ImportGraph, name: str) -> None:
    package = f"torchlasso.{name}"
    imported = {
        other.partition(".")[0]
        for module in graph.modules
        if module == package or module.startswith(package + ".")
        for other in graph.find_modules_directly_imported_by(module)
    }
    assert imported <= {"torch", "torchlasso"} | sys.stdlib_module_names


def test_importing_torchlasso_loads_no_optional_dependency() -> None:
    command = f"import sys, torchlasso; print([name for name in {OPTIONAL} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_no_function_shadows_a_module() -> None:
    modules = [found.name for found in pkgutil.walk_packages(torchlasso.__path__, "torchlasso.")]
    names = [name.rpartition(".") for name in modules if not name.endswith("__main__")]
    found = {f"{parent}.{leaf}": getattr(importlib.import_module(parent), leaf, None) for parent, _, leaf in names}
    shadowed = [name for name, value in found.items() if value is not None and not isinstance(value, types.ModuleType)]
    assert not shadowed
