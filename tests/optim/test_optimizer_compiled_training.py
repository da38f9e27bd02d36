"""A whole training step under torch.compile: forward, backward and the optimizer's step in one compiled function."""

import pytest
import torch
from torch._dynamo.utils import counters
from torch.optim import lr_scheduler as schedulers

from tests.support.implementations import build_as, wide
from tests.support.optimizers import batch, flat

pytestmark = pytest.mark.slow

# torch.compile meets these while it traces, in torch's own code
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]
STEPS = 12  # more than the eight times that a function is compiled before torch gives up


def trained(implementation: str, case: str, backend: str | None, steps: int = STEPS) -> tuple[torch.Tensor, list[int]]:
    """The weights, and how many graphs had been compiled after each step."""
    torch._dynamo.reset()
    counters.clear()
    model = wide()
    optimizer = build_as(implementation, case, model)
    scheduler = schedulers.CosineAnnealingLR(optimizer, STEPS)

    def step(x, y):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    if backend is not None:
        step = torch.compile(step, backend=backend)
    graphs = []
    for i in range(steps):
        step(*(t.double() for t in batch(i)))
        scheduler.step()
        graphs.append(counters["stats"]["unique_graphs"])
    return flat(model), graphs


def assert_same_training(compiled: torch.Tensor, plain: torch.Tensor) -> None:
    # torch's own Adam takes its correction of bias in float32 when it is compiled
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
    assert torch.equal(compiled == 0, plain == 0)
    assert (plain == 0).any()


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["one by one", "fused"])
@pytest.mark.parametrize("case", ["SGD momentum", "AdamW"])
def test_a_compiled_training_step_leads_to_the_same_weights(case, implementation):
    (compiled, graphs), (plain, _) = trained(implementation, case, "eager"), trained(implementation, case, None)
    assert_same_training(compiled, plain)
    assert 0 < graphs[4] == graphs[-1], "the falling rate makes nothing be compiled again"


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_training_step_compiled_with_its_backward_pass_leads_to_the_same_weights(backend):
    (compiled, graphs), (plain, _) = (trained("fused", "SGD momentum", to, steps=3) for to in (backend, None))
    assert_same_training(compiled, plain)
    assert graphs[0] > 0
