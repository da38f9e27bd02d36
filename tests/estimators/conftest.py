"""Settings of the tests of estimators."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let networks be trained for a few epochs only, which they say, to save time; one file tests that they say it."""
    short = pytest.mark.filterwarnings("ignore:the training of the network ended too early")
    for item in items:
        if item.path.is_relative_to(HERE) and item.path.name != "test_convergence.py":
            item.add_marker(short)
