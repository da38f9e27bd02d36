"""The example of a pipeline: few features of a table, with about the accuracy of all."""

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "sklearn_pipeline.py"


@pytest.mark.slow
def test_it_keeps_few_features_with_nearly_the_accuracy_of_all(capsys):
    names, accuracy, every = runpy.run_path(str(EXAMPLE))["main"]()
    assert len(names) in (2, 4, 8, 14)
    assert all(name.split()[0] in ("mean", "worst") or name.endswith("error") for name in names)
    assert accuracy > every - 0.03
    assert f"{len(names)} features are kept" in capsys.readouterr().out
