"""Compare the outputs of two models in the precision that they have, in evaluation."""

from __future__ import annotations

from torch import Tensor, nn

from torchlasso._core.running import ExampleInputs, run_once, tensors_in
from torchlasso.compaction.verify import difference

TOLERANCE = 1e-5  # relative to the largest element


def outputs_or_none(model: nn.Module, inputs: ExampleInputs) -> list[Tensor] | None:
    """Run a model; None if it fails, as one that refuses random inputs."""
    try:
        return tensors_in(run_once(model, inputs))
    except Exception:  # of any kind: it is the model's own code
        return None


def same_outputs(wanted: list[Tensor], model: nn.Module, inputs: ExampleInputs) -> bool:
    """Return True if a model runs and has these outputs, up to ``TOLERANCE``."""
    try:
        return difference(wanted, tensors_in(run_once(model, inputs))) <= TOLERANCE
    except Exception:  # of any kind: it is the model's own code
        return False
