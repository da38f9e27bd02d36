"""Reading and running a model takes little additional memory, with the same outputs as a copy in float64."""

import copy

import pytest
import torch
from torch import nn

from torchlasso.graph import find_units
from torchlasso.graph.precision import DOUBLE


class Tied(nn.Module):
    """An embedding that shares its weight with the last layer."""

    def __init__(self):
        super().__init__()
        self.embed, self.hidden, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.hidden(self.embed((x[:, :3].abs() * 2).long().clamp(max=6))).tanh())


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x[None], x[None], x[None])[0]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent = nn.LSTM(8, 3)

    def forward(self, x):
        return self.recurrent(x)[0]


class Cast(nn.Module):
    """A matrix that is read by its type, its device and its slices, without a layer."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 3))

    def forward(self, x):
        x = x.to(self.w.dtype)
        return torch.stack([x @ row for row in self.w.T]) + torch.finfo(self.w.dtype).eps + (1 / 3) * self.w[:3, :1]


MODELS = {
    "layers": lambda: nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.GELU(), nn.Linear(6, 2)),
    "convolutions": lambda: nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Conv1d(2, 5, 3), nn.PReLU(), nn.Conv1d(5, 1, 1)),
    "tied": Tied,
    "attention": Attention,
    "recurrent": Recurrent,
    "cast": Cast,
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 3)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_copy_that_shares_memory_agrees_with_a_copy_in_float64(name, dtype):
    torch.manual_seed(0)
    model = MODELS[name]().to(dtype).eval()
    x = torch.randn(5, 8, dtype=torch.float64)
    double = copy.deepcopy(model).double()
    with torch.no_grad(), DOUBLE.running():
        wanted, given = double(x), DOUBLE.copied(model)(x)
    assert given.dtype == torch.float64
    assert torch.equal(given, wanted)


def test_the_matrices_of_a_copy_are_in_the_memory_of_the_model():
    model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 8), nn.LayerNorm(8)).bfloat16()
    shared = DOUBLE.copied(model)
    for ours, theirs in zip(model.parameters(), shared.parameters(), strict=True):
        assert (ours.data_ptr() == theirs.data_ptr()) == (ours.dim() > 1)
        assert ours is not theirs


WRITES = {
    "in place": lambda w: w.mul_(2),
    "an index": lambda w: w.__setitem__(0, 1.0),
    "data": lambda w: w.data.mul_(2),
    "detached": lambda w: w.detach().add_(1),
    "other data": lambda w: setattr(w, "data", w + 1),
    "init": lambda w: nn.init.constant_(w, 3.0),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_forward_pass_that_writes_into_a_matrix_writes_into_its_own(name):
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            WRITES[name](self.layer.weight)
            return self.layer(x)

    torch.manual_seed(0)
    model, x = Writing().float(), torch.randn(2, 4, dtype=torch.float64)
    before, double = model.layer.weight.detach().clone(), copy.deepcopy(model).double()
    with torch.no_grad(), DOUBLE.running():
        assert torch.equal(DOUBLE.copied(model)(x), double(x))
    assert torch.equal(model.layer.weight, before)
    assert model.layer.weight.dtype == torch.float32


def storage(tensors):
    """Bytes of all memory behind tensors, each once."""
    kept = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(kept.values())


def test_the_records_of_a_model_take_less_memory_than_the_model():
    torch.manual_seed(0)
    layers = [layer for _ in range(6) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)).float().eval()
    units = find_units(model, torch.randn(1, 16, 8, 8))
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    known = [t for f in units.flows.values() for t in (f.kept, f.depends, f.matters)]
    beside = storage([t for t in known if t.untyped_storage().data_ptr() not in own])
    assert beside < 0.5 * storage(model.parameters())
    assert not any(f.depends.any() for node, f in units.flows.items() if node in units.structure.trace.names)


@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_an_embedding_in_a_higher_precision_reads_the_widened_table_and_does_not_write_into_the_model(max_norm):
    torch.manual_seed(0)
    table = nn.Embedding(7, 3, max_norm=max_norm)
    before, rows = table.weight.detach().clone(), torch.tensor([[0, 6], [2, 2]])
    expected = copy.deepcopy(table).double()(rows)
    copied = DOUBLE.copied(table)
    with torch.no_grad(), DOUBLE.running():
        found = copied(rows)
    assert found.dtype == torch.float64
    assert torch.equal(found, expected)
    assert torch.equal(table.weight, before)
