"""Quick exports in the tests of graphs."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _quick_exports(operators_listed_once: None) -> None:
    pass
