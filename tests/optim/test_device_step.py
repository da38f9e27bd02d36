"""The step that runs completely on a device agrees with the reference, and the host never waits for the device."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import torchlasso as tl
from tests.support.implementations import assert_alike, by_reference, random_gradients
from tests.support.optimizers import CASES, cosine, network
from tests.support.pairwise import pairwise
from torchlasso.optim.fused import device

ADAMS = ["Adam", "Adam amsgrad", "AdamW"]
STEPS = 20


@pytest.fixture
def here(monkeypatch):
    """Let the CPU count as such a device, and do without a compiler."""
    monkeypatch.setattr(device, "_are_on_device", lambda params: True)
    monkeypatch.setattr(device, "_compiled", lambda step, shapes: step)


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in [(4, 5), (7,), (3, 2, 2)]]


def build(case: str, ws, penalty=None, **options) -> tl.Proximal:
    base, defaults = CASES[case]
    return tl.proximal(base)(ws, penalty=penalty or tl.L1(), **{"lam": 0.3, **defaults, **options})


def train(optimizer, ws, steps=range(STEPS)) -> torch.Tensor:
    scheduler = cosine(optimizer)
    for step in steps:
        random_gradients(ws, step)
        optimizer.step()
        scheduler.step()
    return torch.cat([w.detach().reshape(-1) for w in ws])


# with a λ for which some weights are zero and some are not
PENALTIES = {tl.L1(): 0.3, tl.MCP(gamma=3.0): 0.3, tl.L1(over=tl.Rows()): 1.5, tl.SparseGroup(over=tl.Rows()): 1.0}


@pairwise(case=ADAMS, penalty=PENALTIES, averaging=[True, False])
def test_the_weights_agree_with_the_reference(here, monkeypatch, case, penalty, averaging):
    ours, theirs = weights(), weights()
    options = {"lam": PENALTIES[penalty], "averaging": averaging}
    result = train(build(case, ours, penalty, fused=True, **options), ours)
    monkeypatch.undo()
    reference = train(by_reference(build(case, theirs, penalty, fused=False, **options)), theirs)
    assert_alike(result, reference)
    assert 0 < (reference == 0).sum() < len(reference)


@pytest.mark.parametrize("case", ["SGD momentum", "AdamW"])
def test_blocks_over_several_parameters_are_left_to_the_reference(here, monkeypatch, case):
    results = []
    for fused in (True, False):
        model = network().double()
        units = tl.Units(model, torch.randn(2, 6, dtype=torch.float64))
        optimizer = build(case, tl.param_groups(model, tl.L1(over=units), lam=1.0), fused=fused)
        results.append(train(optimizer, list(model.parameters())))
        monkeypatch.undo()
    assert_alike(*results)
    assert (results[1] == 0).any()


@pytest.mark.parametrize("case", ["SGD momentum", "SGD Nesterov", "SGD dampening", "SGD"])
def test_sgd_is_done_as_by_the_reference(here, monkeypatch, case):
    ours, theirs = weights(), weights()
    result = train(build(case, ours, fused=True), ours)
    monkeypatch.undo()
    assert_alike(result, train(by_reference(build(case, theirs, fused=False)), theirs))
    assert (result == 0).any()


@pytest.mark.parametrize("case", ["AdamW", "SGD momentum"])
def test_parameters_without_a_gradient_wait_and_groups_without_a_penalty_are_stepped(here, monkeypatch, case):
    results = []
    for fused in (True, False):
        ws = weights()
        optimizer = build(case, [{"params": ws[:2]}, {"params": ws[2:], "penalty": None}], fused=fused)
        for step in range(STEPS):
            random_gradients(ws, step)
            if step % 3 == 1 or step < 5:
                ws[1].grad = None
            for group in optimizer.param_groups:
                group["lr"] *= 0.9
            optimizer.step()
        results.append(torch.cat([w.detach().reshape(-1) for w in ws]))
        monkeypatch.undo()
    assert_alike(*results)


@pytest.mark.parametrize("case", ["AdamW", "SGD momentum"])
def test_it_resumes_from_a_file_and_exchanges_states_with_the_reference(here, monkeypatch, case):
    ws, twins, reference = weights(), weights(), weights()
    optimizer = build(case, ws, fused=True)
    train(optimizer, ws, range(7))
    other = build(case, twins, fused=True)
    with torch.no_grad():
        for w, twin in zip(ws, twins, strict=True):
            twin.copy_(w)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(train(optimizer, ws, range(7, 12)), train(other, twins, range(7, 12)))
    monkeypatch.undo()
    for group in optimizer.param_groups:
        group["fused"] = False
    result = train(optimizer, ws, range(12, STEPS))
    plain = by_reference(build(case, reference, fused=False))
    for steps in (range(7), range(7, 12)):
        train(plain, reference, steps)
    assert_alike(result, train(plain, reference, range(12, STEPS)))


@pytest.mark.parametrize("options", [{"fused": True}, {"fused": True, "capturable": True}, {"capturable": True}])
@pytest.mark.parametrize("case", ADAMS)
def test_the_host_does_not_wait_for_the_device(monkeypatch, case, options):
    # tensors on this device have no values: reading one raises
    monkeypatch.setattr(device, "_compiled", lambda step, shapes: step)
    ws = [nn.Parameter(torch.randn(s, device="meta")) for s in [(4, 5), (7,)]]
    optimizer = build(case, ws, **options)
    for step in range(3):
        if options.get("capturable"):
            optimizer.param_groups[0]["lr"] = torch.tensor(0.1, device="meta")
        for w in ws[step % 2 :]:
            w.grad = torch.randn(w.shape, device="meta")
        optimizer.step()
    with pytest.raises(RuntimeError, match="meta tensors"):
        ws[0].sum().item()
    assert optimizer.state[ws[0]]["step"].device.type == "meta"
    assert optimizer.param_groups[0]["gains"].device.type == "meta"


class Recorder(TorchDispatchMode):
    """Writes down every operation on tensors, as the capture of a graph does, for :meth:`replay`."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        self.operations.append((operation, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for operation, args, kwargs, result in self.operations:
            again = operation(*args, **kwargs)
            pairs = zip(result, again, strict=True) if isinstance(result, (list, tuple)) else [(result, again)]
            for old, new in pairs:
                if isinstance(old, torch.Tensor) and old is not new and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.mark.parametrize("case", ADAMS)
def test_a_captured_step_can_be_replayed_with_another_rate(here, monkeypatch, case):
    ours, theirs = weights(), weights()
    rates = [0.1 * 0.9**t for t in range(12)]
    lr = torch.tensor(0.1, dtype=torch.float64)
    optimizer = build(case, ours, lr=lr, fused=True, capturable=True)
    random_gradients(ours, 0)
    optimizer.step()  # makes the state
    recorder = Recorder()
    for step, rate in enumerate(rates[1:], start=1):
        lr.fill_(rate)
        for w, grad in zip(ours, _gradients(step), strict=True):
            w.grad.copy_(grad)
        if step == 1:
            with recorder:
                optimizer.step()
        else:
            with torch.no_grad():
                recorder.replay()
    monkeypatch.undo()
    plain = by_reference(build(case, theirs, fused=False))
    for step, rate in enumerate(rates):
        plain.param_groups[0]["lr"] = rate
        random_gradients(theirs, step)
        plain.step()
    for w, expected in zip(ours, theirs, strict=True):
        assert_alike(w.detach(), expected.detach())
    assert any((w == 0).any() for w in theirs)


def _gradients(step: int) -> list[torch.Tensor]:
    ws = weights()
    random_gradients(ws, step)
    return [w.grad for w in ws]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("case", ["AdamW", "SGD momentum"])
def test_compiled_it_is_the_same_and_changed_numbers_compile_nothing(monkeypatch, case):
    monkeypatch.setattr(device, "_are_on_device", lambda params: True)
    torch._dynamo.reset()
    device._compiled.cache_clear()
    ours, theirs = weights(), weights()
    optimizer = build(case, ours, fused=True)
    result = train(optimizer, ours, range(2))
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for group in optimizer.param_groups:
        group["lam"] = 0.2
    result = train(optimizer, ours, range(2, 8))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled
    monkeypatch.undo()
    plain = by_reference(build(case, theirs, fused=False))
    train(plain, theirs, range(2))
    plain.param_groups[0]["lam"] = 0.2
    assert_alike(result, train(plain, theirs, range(2, 8)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_any_number_of_steps_can_be_compiled(monkeypatch):
    """torch.compile refuses to compile a code object more than eight times."""
    monkeypatch.setattr(device, "_are_on_device", lambda params: True)
    compile_ = torch.compile  # the stages after the graph take long, and are not tested here
    monkeypatch.setattr(torch, "compile", lambda step, **_: compile_(step, fullgraph=True, backend="eager"))
    device._compiled.cache_clear()
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for size in range(1, 11):
        w = nn.Parameter(torch.ones(size))
        optimizer = build("SGD", [w], fused=True)
        random_gradients([w], size)
        optimizer.step()
        assert w.ne(1).all()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled + 10
    device._compiled.cache_clear()
