"""A step on parameters without values, with which models are laid out, makes a state without values."""

import pytest
import torch
from torch import nn

import torchlasso as tl

OPTIMIZERS = [tl.ProxSGD, tl.ProxAdam, tl.ProxAdamW, tl.proximal(torch.optim.Adagrad)]


def laid_out(make, penalty, **options):
    w = nn.Parameter(torch.empty(4, 6, device="meta"))
    optimizer = make([w], lr=0.1, penalty=penalty, lam=0.1, **options)
    for _ in range(2):
        w.grad = torch.empty(4, 6, device="meta")
        optimizer.step()
    return w, optimizer


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("penalty", [tl.L1(), tl.L1(over=tl.Rows()), tl.LogSum()], ids=str)
@pytest.mark.parametrize("options", [{"foreach": True}, {"foreach": False}, {"fused": True}], ids=str)
def test_a_step_creates_the_state_or_names_the_unsupported_device(make, penalty, options):
    if options == {"fused": True} and make.base is torch.optim.Adagrad:
        with pytest.raises(ValueError, match=r"^fused=True: Adagrad has no fused step on the meta device"):
            laid_out(make, penalty, **options)
        return
    w, optimizer = laid_out(make, penalty, **options)
    assert w.is_meta
    buffers = [t for t in optimizer.state[w].values() if isinstance(t, torch.Tensor) and t.dim()]
    assert all(t.is_meta and t.shape == w.shape for t in buffers)
    assert len(buffers) == {torch.optim.SGD: 0, torch.optim.Adagrad: 1}.get(make.base, 2)
