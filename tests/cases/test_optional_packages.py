"""Optional packages that are missing, or whose import fails for another reason, which the error has to show."""

import sys

import pytest

from torchlasso._core.extras import require


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("import shading.helper", "No module named 'shading.helper'; 'shading' is not a package"),
        ("from shading import helper", "cannot import name 'helper' from 'shading'"),
    ],
)
def test_a_file_with_the_name_of_a_package_does_not_pass_for_a_missing_package(folder, line, reason):
    (folder / "shading.py").write_text("")
    (folder / "reader_of_shading.py").write_text(line)
    with pytest.raises(ValueError, match=f"^ONNX needs reader_of_shading, whose import fails: {reason}") as refusal:
        require("reader_of_shading", "onnx", "ONNX")
    assert isinstance(refusal.value.__cause__, ImportError)
    assert "pip install" not in str(refusal.value)


def test_a_missing_package_comes_with_the_command_that_installs_it():
    with pytest.raises(ValueError, match=r"^ONNX needs nowhere: pip install 'torchlasso\[onnx\]'$"):
        require("nowhere.at_all", "onnx", "ONNX")
