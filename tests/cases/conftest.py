"""Files and models that the tests of several kinds of cases start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from tests.support.compacted import compacted
from tests.support.pt2 import good_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file for a compacted model."""
    return tmp_path / "small.safetensors"


@pytest.fixture(scope="session")
def small() -> nn.Module:
    """A compacted model of 6 inputs, 4 of 8 neurons and 2 outputs; not to be changed, since tests share it."""
    return compacted("linear")[1]


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``.pt2`` file that our own export wrote."""
    return good_file(tmp_path_factory.mktemp("good"))
