"""Where nothing can be compiled, one warning says so, and the fused step is torch's own and a prox after it."""

import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._inductor import config

import torchlasso as tl
from tests.support.implementations import random_gradients
from torchlasso.optim.fused import inductor, rows

# a compiler that is there and yet compiles nothing, as where its headers are missing
BROKEN = """#!/bin/sh
for a in "$@"; do case "$a" in --version|-v|-dump*|-print*|--help*) echo "g++ 13.0.0"; exit 0;; esac; done
echo "fatal error: omp.h: No such file or directory" >&2
exit 1
"""


def missing(folder: Path) -> Path:
    return folder / "none"


def broken(folder: Path) -> Path:
    compiler = folder / "c++"
    compiler.write_text(BROKEN)
    compiler.chmod(0o755)
    return compiler


@pytest.fixture(params=[missing, broken], ids=lambda make: make.__name__)
def compiler(request, tmp_path, monkeypatch):
    """A process that has compiled nothing yet, on a machine without a compiler that works."""
    if request.param is broken and sys.platform == "win32":
        pytest.skip("a shell script stands for the compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(inductor, "_kernel", inductor.or_none(inductor.Kernel))
    monkeypatch.setattr(rows, "_row_kernel", inductor.or_none(rows.RowKernel))
    monkeypatch.setattr(inductor, "_SEEN", set())
    with config.patch({"cpp.cxx": (None, str(request.param(tmp_path)))}):
        yield


def trained(**options: bool) -> torch.Tensor:
    """Two kernels: of single weights, and of rows in another precision."""
    dtypes = torch.float64, torch.float32
    ws = [nn.Parameter(torch.linspace(-1, 1, 24, dtype=dtype).view(6, 4)) for dtype in dtypes]
    groups = [{"params": [w], "penalty": tl.L1(over=o)} for w, o in zip(ws, (tl.Elements(), tl.Rows()), strict=True)]
    optimizer = tl.ProxSGD(groups, lr=0.1, lam=0.4, **options)
    for step in range(10):
        random_gradients(ws, step)
        optimizer.step()
    return torch.cat([w.detach().double() for w in ws])


@pytest.mark.slow
def test_one_warning_for_all_kernels(compiler):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        weights = trained(fused=True)
    about = [str(one.message) for one in seen if "without its fused step" in str(one.message)]
    assert len(about) == 1
    assert about[0].startswith("torchlasso goes on without its fused step")
    assert torch.equal(weights, trained(foreach=True))
    assert 0 < (weights == 0).sum() < weights.numel()
