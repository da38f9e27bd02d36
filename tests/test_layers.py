"""Imports: nothing but torch below the upper layers, and no function that shadows a module."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

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
OPTIONAL = ("sklearn", "datasets", "PIL", "pyarrow", "matplotlib", "typer", "rich", "pandas", "kornia")


@pytest.mark.parametrize("name", LOWER)
def test_the_lower_layers_import_only_torch(name: str) -> None:
    folder = Path(torchlasso.__file__).parent
    files = [*(folder / name).rglob("*.py"), *folder.glob(f"{name}.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    imported = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    imported += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    assert imported
    assert {each.partition(".")[0] for each in imported} <= {"torch", "torchlasso"} | sys.stdlib_module_names


@pytest.mark.slow
def test_importing_torchlasso_loads_no_optional_dependency() -> None:
    shown = f"print([name for name in {OPTIONAL} if name in sys.modules])"
    command = f"import sys, torchlasso; torchlasso.figures.frontier; {shown}"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.slow
def test_only_select_needs_scikit_learn(tmp_path: Path) -> None:
    missing = (*(set(OPTIONAL) - {"typer", "rich"}), "scipy", "joblib")
    (tmp_path / "table.csv").write_text("a,label\n1,0\n2,1\n", encoding="utf-8")
    words = ["select", "--data", "table.csv", "--label", "label", "--out", "nowhere"]
    blocked = f"sys.modules.update(dict.fromkeys({missing}))"
    command = f"import sys; {blocked}; from torchlasso.cli.main import main; sys.argv[1:] = {words}; main()"
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=100
    )
    assert done.returncode == 2
    assert "selecting features needs sklearn: pip install 'torchlasso[sklearn]'" in done.stderr.replace("\n", " ")
    assert not (tmp_path / "nowhere").exists()


def test_no_function_shadows_a_module() -> None:
    modules = [found.name for found in pkgutil.walk_packages(torchlasso.__path__, "torchlasso.")]
    names = [name.rpartition(".") for name in modules if not name.endswith("__main__")]
    found = {f"{parent}.{leaf}": getattr(importlib.import_module(parent), leaf, None) for parent, _, leaf in names}
    shadowed = [name for name, value in found.items() if value is not None and not isinstance(value, types.ModuleType)]
    assert not shadowed
