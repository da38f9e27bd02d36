"""The documentation: every block of code on every page runs, every public name is there, and the site builds."""

from __future__ import annotations

import ast
import importlib
import inspect
import operator
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import joblib
import pytest

import torchlasso
from tests.support.pages import short_pages
from tests.support.selecting import few_points
from torchlasso.cli.main import main
from torchlasso.optim import Proximal
from torchlasso.penalties import MCP

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(kind, code) for kind, code in BLOCK.findall(page.read_text(encoding="utf-8"))]


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages write where a reader would: into the current folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.timeout(240)
# Lightning's own code asks torch in a way that is deprecated, and it advises workers for a few rows in memory
@pytest.mark.filterwarnings("ignore:`isinstance:FutureWarning")
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
# transformers asks for pinned memory without a GPU, too
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
@pytest.mark.usefixtures("empty_folder", "one_registry")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_every_block_of_code_runs_in_the_order_of_the_page(
    page: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    space: dict[str, object] = {"__name__": page.stem}
    few_points(monkeypatch)
    for kind, code in blocks(page):
        if kind == "python":
            with joblib.parallel_config("sequential"):  # in processes, everything would be imported again
                exec(compile(code, page.name, "exec", dont_inherit=True), space)
            continue
        for line in code.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line, comments=True) or ["torchlasso", "--help"]
            assert program == "torchlasso"
            with joblib.parallel_config("sequential"), short_pages(), pytest.raises(SystemExit) as ended:
                main(arguments)
            assert ended.value.code == 0, f"{line}: {capsys.readouterr().err}"


def test_blocks_of_other_kinds_are_no_code() -> None:
    kinds = {kind for page in PAGES for kind in re.findall(r"^```(\w*)\n", page.read_text(), flags=re.MULTILINE)}
    assert kinds <= {"python", "sh", "py", "text", "json", ""}


def test_the_class_that_the_page_on_penalties_shows_is_the_one_of_the_package() -> None:
    shown = re.findall(r"```py\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), flags=re.DOTALL)
    assert [text.strip() for text in shown] == [inspect.getsource(MCP).strip()]


def test_the_step_that_the_page_on_mathematics_shows_is_the_reference() -> None:
    shown = re.findall(r"```py\n(.*?)```", (ROOT / "docs" / "mathematics.md").read_text(), flags=re.DOTALL)
    assert [text.strip() for text in shown] == [textwrap.dedent(inspect.getsource(Proximal._reference_step)).strip()]


def public_names() -> dict[str, list[str]]:
    """Return the names in ``__all__`` of the package and of its subpackages, except those that only make pages."""
    packages = [found.name for found in pkgutil.iter_modules(torchlasso.__path__) if found.ispkg]
    modules = {
        name: importlib.import_module(f"torchlasso.{name}") for name in packages if name not in ("_core", "html")
    }
    return {"": torchlasso.__all__} | {name: getattr(module, "__all__", []) for name, module in modules.items()}


def test_every_public_name_of_every_package_is_in_the_api() -> None:
    public = public_names()  # first, since it imports packages that torchlasso does not import by itself
    listed = re.findall(r"^::: torchlasso\.([\w.]+)$", "\n".join(map(Path.read_text, PAGES)), flags=re.MULTILINE)
    shown = {id(pkgutil.resolve_name(f"torchlasso.{path}")) for path in listed}  # it imports modules of optional parts
    missing = [
        f"{package}.{name}"
        for package, names in public.items()
        for name in names
        if callable(found := operator.attrgetter(f"{package}.{name}".strip("."))(torchlasso)) and id(found) not in shown
    ]
    assert not missing


def test_the_page_of_commands_is_the_one_that_the_commands_give() -> None:
    reference = runpy.run_path(str(ROOT / "docs" / "make_commands.py"))["reference"]
    assert reference() == (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def test_every_page_is_in_the_navigation() -> None:
    named = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert sorted(named) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in PAGES)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "api" / "penalties" / "index.html").read_text(encoding="utf-8")
    assert "minimax concave" in page
    remote = re.findall(r'(?:src|href)="(https?://[^"]+)"', page)
    assert not [link for link in remote if not link.startswith("https://squidfunk.github.io")]  # "made with"


@cache
def sources() -> dict[Path, ast.Module]:
    """Return the syntax trees of all files of the package."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "src").rglob("*.py"))}


def test_docstrings_name_things_instead_of_asking() -> None:
    dialect = ("What", "Which", "How", "Whether", "Where", "When", "Who", "Those", "That")
    found = []
    for path, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                first = (ast.get_docstring(node) or "-").split()[0].strip(",.:")
                found += [f"{path.name}: {getattr(node, 'name', 'module')}"] if first in dialect else []
    assert not found  # a function's begins with a verb, a class's with a noun


def test_no_two_classes_share_a_name() -> None:
    """Type aliases count as classes; names of one letter are type variables."""
    places: dict[str, set[str]] = {}
    for path, tree in sources().items():
        names = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        aliases = (node.targets[0] for node in tree.body if isinstance(node, ast.Assign))
        names += [target.id for target in aliases if isinstance(target, ast.Name) and not target.id.isupper()]
        for name in names:
            bare = name.lstrip("_")
            if bare[:1].isupper() and len(bare) > 1:
                places.setdefault(bare, set()).add(path.relative_to(ROOT).as_posix())
    assert {name: sorted(files) for name, files in places.items() if len(files) > 1} == {}


def test_no_two_functions_share_a_name() -> None:
    """A public name of a package is called through it, such as ``figures.save``; a command is a call."""
    public = {name for names in public_names().values() for name in names} | {"register"}  # one for each registry
    places: dict[str, set[str]] = {}
    for path, tree in sources().items():
        if path.parent.name != "cli":
            for node in tree.body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, set()).add(path.relative_to(ROOT).as_posix())
    shared = {name: sorted(files) for name, files in places.items() if len(files) > 1}
    assert {name: files for name, files in shared.items() if name not in public} == {}
