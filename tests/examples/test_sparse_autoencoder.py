"""The example of a sparse autoencoder: as many active units as it says, and none that is dead, at two scales."""

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "sparse_autoencoder.py"


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_it_ends_with_the_wanted_number_of_active_units(scale, capsys):
    main = runpy.run_path(str(EXAMPLE))["main"]
    activity = main(scale)
    assert activity.l0 == pytest.approx(8, rel=0.1)  # of one batch
    assert activity.dead <= 0.05 * activity.units
    assert "step 800: loss" in capsys.readouterr().out
