"""The outcomes of the scenarios that several processes run together."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.cluster import PATIENCE, Cluster, Key, run_all


def of_clusters(items: list[pytest.Item]) -> Iterator[tuple[Cluster, pytest.Function]]:
    """Yield the tests of scenarios, with the clusters that run them."""
    for item in items:
        cluster = getattr(getattr(item, "module", None), "CLUSTER", None)
        if isinstance(item, pytest.Function) and isinstance(cluster, Cluster):
            yield cluster, item


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the first test of a cluster wait for all scenarios."""
    for _, item in of_clusters(items):
        item.add_marker(pytest.mark.timeout(PATIENCE + 60))


def selected(session: pytest.Session, processes: int) -> list[Key]:
    """Return the scenarios of the tests that were selected, by file and name."""
    return [
        (str(item.path), item.callspec.params["name"])
        for cluster, item in of_clusters(session.items)
        if cluster.processes == processes
    ]


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict]:
    """The errors of all scenarios for a number of processes, run when they are first asked for.

    The workers of a parallel run of the tests share them: the first one runs all, and the others read.
    """
    shared = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        shared = shared.parent
    known: dict[int, dict[Key, str]] = {}

    def for_processes(processes: int) -> dict[Key, str]:
        if processes not in known:
            folder = shared / f"scenarios-{processes}"
            file = folder / "outcomes.json"
            with FileLock(shared / f"scenarios-{processes}.lock"):
                if not file.exists():
                    done = run_all(selected(request.session, processes), processes, folder)
                    file.write_text(json.dumps(done), "utf-8")
                known[processes] = {(path, name): wrong for path, name, wrong in json.loads(file.read_text("utf-8"))}
        return known[processes]

    return for_processes


@pytest.fixture
def check(request: pytest.FixtureRequest, outcomes: Callable[[int], dict]) -> Callable[[str], None]:
    """Fail with the error of a scenario of the test's file, from any process."""
    path: Path = request.path

    def fail(name: str) -> None:
        wrong = outcomes(request.module.CLUSTER.processes)[str(path), name]
        assert not wrong, wrong

    return fail
