"""The probe sees the live channels and the cost of the model, and leaves no trace."""

import itertools

import pytest
import torch
from torch import nn

import torchlasso as tl
from torchlasso.control.costs import Bytes, Flops, Latency, Parameters
from torchlasso.control.live_channels import Probe
from torchlasso.models.resnet_20 import BasicBlock


def weights(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.dim() > 1]


def probe_of(model: nn.Module, *inputs: torch.Tensor) -> Probe:
    return Probe(model, weights(model), inputs)


def lives(model: nn.Module, *inputs: torch.Tensor) -> dict[str, tuple[list[int], list[int]]]:
    """The live outputs and inputs of each layer, by its name."""
    probe = probe_of(model, *inputs)
    found = probe([p.detach() for p in weights(model)])
    return {
        site.name.removesuffix(".weight"): (_indices(live.outputs), _indices(live.inputs))
        for site, live in zip(probe.sites, found.layers, strict=True)
    }


def _indices(flags: torch.Tensor) -> list[int]:
    return flags.nonzero().flatten().tolist()


# --- what lives ---


def test_a_zero_row_and_an_unread_column_are_dead_at_both_ends():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[1] = 0.0  # its bias is not zero: a constant
        model[2].weight[:, 3] = 0.0  # nobody reads it
        model[4].weight[:, 0] = 0.0
    found = lives(model, torch.randn(16, 3))
    assert found == {"0": ([0, 2, 4], [0, 1, 2]), "2": ([1, 2, 3], [0, 2, 4]), "4": ([0, 1], [1, 2, 3])}


@pytest.mark.parametrize(
    "activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.Hardtanh(0, 1), nn.Hardswish()]
)
def test_a_unit_that_no_sample_wakes_lives_all_the_same(activation):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), activation, nn.Linear(4, 2))
    with torch.no_grad():
        model[0].bias[1] = -100.0
        model[0].weight[2] = 0.0  # this one is a constant
    assert lives(model, torch.randn(16, 3)) == {"0": ([0, 1, 3], [0, 1, 2]), "2": ([0, 1], [0, 1, 3])}


def test_channels_read_only_by_dead_channels_are_dead():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    with torch.no_grad():
        model[2].weight[1:, 0] = 0.0  # 0 of the first is read by 0 of the second alone,
        model[4].weight[:, 0] = 0.0  # which nobody reads
        model[0].weight[3] = 0.0  # a constant,
        model[2].weight[3, :3] = 0.0  # which is all that 3 of the second reads
    found = lives(model, torch.randn(16, 3))
    assert found["0"][0] == found["2"][1] == [1, 2]
    assert found["2"][0] == found["4"][1] == [1, 2]


@pytest.mark.parametrize("inplace", [False, True])
def test_a_filter_behind_whose_norm_is_a_constant_is_dead(inplace):
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 3)),
    )
    x = torch.randn(16, 2, 6, 6)
    model(x)  # statistics that are not the first ones
    with torch.no_grad():
        model[1].bias.fill_(0.5)  # so that the ReLU is active for all
        model[0].weight[1] = 0.0
        model[5].weight[:, 8:12] = 0.0  # all positions of channel 2
        model[5].weight[:, 12:15] = 0.0  # all but one of channel 3
    found = lives(model, x)
    assert found["0"] == ([0, 3, 4, 5], [0, 1])
    assert found["5"] == ([0, 1, 2], [0, 1, 2, 3, 15, *range(16, 24)])


def test_channels_tied_by_a_residual_connection_live_and_die_together():
    torch.manual_seed(0)
    stem, blocks = nn.Conv2d(2, 6, 3), [BasicBlock(6, 6, stride=1) for _ in range(2)]
    model = nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    with torch.no_grad():
        for block in blocks:
            block.bn2.bias.fill_(1.0)
        blocks[0].conv2.weight[0] = 0.0  # others write into the stream there
        for conv in (stem, blocks[0].conv2, blocks[1].conv2):
            conv.weight[4] = 0.0  # nobody does: a constant
        blocks[1].conv1.weight[2] = 0.0  # no part of the stream
    found = lives(model, torch.randn(16, 2, 7, 7))
    stream = [0, 1, 2, 3, 5]
    assert found["0"] == (stream, [0, 1])
    for name, inside in (("1", [*range(6)]), ("2", [0, 1, 3, 4, 5])):
        assert found[f"{name}.conv1"] == (inside, stream)
        assert found[f"{name}.conv2"] == (stream, inside)
    assert found["5"] == ([0, 1, 2], stream)


def test_a_factor_that_is_zero_takes_the_other_along():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.value, self.gate, self.out = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return {"logits": self.out(self.value(x) * self.gate(x).sigmoid())}

    torch.manual_seed(0)
    model = Gated()
    with torch.no_grad():
        model.value.weight[2], model.value.bias[2] = 0.0, 0.0
    found = lives(model, torch.randn(16, 3))
    assert found["value"][0] == found["gate"][0] == found["out"][1] == [0, 1, 3]


def test_the_given_weights_count_and_not_the_present_ones():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    given = [p.detach().clone() for p in weights(model)]
    given[0][1] = 0.0
    given[1][:, 4] = 0.0
    with torch.no_grad():  # what is zero now may be asked about, too
        model[0].weight[2] = 0.0
    found = probe_of(model, torch.randn(16, 3))(given)
    assert _indices(found.layers[0].outputs) == _indices(found.layers[1].inputs) == [0, 2, 3]


def test_layers_without_a_penalty_shrink_with_their_neighbours():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    probe = Probe(model, [model[0].weight], torch.randn(16, 3))
    alive = model[0].weight.detach().clone()
    alive[0] = 0.0
    assert [live.weights for live in probe([alive]).layers] == [0.75, 0.75]


class Texts(nn.Module):
    """Words and their places, added in place, and a layer for each."""

    def __init__(self):
        super().__init__()
        self.words, self.places, self.layer = nn.Embedding(9, 4), nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        y = self.words(x)
        y += self.places(torch.arange(x.shape[1]))
        return self.layer(y)


def test_channels_of_embeddings_that_do_not_vary_are_dead():
    torch.manual_seed(0)
    model = Texts()
    with torch.no_grad():
        model.words.weight[:, 1:3] = model.places.weight[:, 1] = 0.0
    assert lives(model, torch.randint(9, (16, 5))) == {"layer": ([0, 1, 2], [0, 2, 3])}


# --- costs ---


def cost(kind, model, *inputs, share=None):
    probe = probe_of(model, *inputs)
    found = kind.measured(probe)
    return found.dense if share is None else found.left(probe(share), probe.sites) / found.dense


@pytest.mark.parametrize(
    ("layer", "inputs", "flops"),
    [
        (nn.Linear(5, 7), (4, 5), 2 * 35),
        (nn.Linear(5, 7), (4, 3, 2, 5), 2 * 35 * 6),
        (nn.Conv2d(2, 3, 3, stride=2), (4, 2, 9, 7), 2 * 54 * 12),
        (nn.Conv1d(4, 6, 3, groups=2), (4, 4, 8), 2 * 36 * 6),
        (nn.ConvTranspose2d(2, 3, 3, stride=2), (4, 2, 5, 5), 2 * 54 * 25),
    ],
    ids=str,
)
def test_dense_costs_are_counted_by_hand(layer, inputs, flops):
    x = torch.randn(inputs)
    parameters = sum(p.numel() for p in layer.parameters())
    assert cost(Flops, layer, x) == flops
    assert cost(Parameters, layer, x) == parameters
    assert cost(Bytes, layer.double(), x.double()) == 8 * parameters


def test_norms_cost_parameters_and_a_module_that_runs_twice_costs_twice_the_flops():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.BatchNorm1d(4), nn.Tanh(), shared)
    assert cost(Flops, model, torch.randn(8, 4)) == 2 * 2 * 16
    assert cost(Parameters, model, torch.randn(8, 4)) == 20 + 8


@pytest.mark.parametrize("transposed", [False, True])
def test_grouped_convolutions_cost_their_remaining_groups(transposed):
    torch.manual_seed(0)
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    model = nn.Sequential(nn.Conv2d(1, 4, 1), kind(4, 8, 3, groups=2), nn.Flatten(), nn.Linear(8 * 16, 2))
    if transposed:
        model[3] = nn.Linear(8 * 64, 2)
    alive = [p.detach().clone() for p in weights(model)]
    alive[0][0] = 0.0  # input 0 of group 0
    alive[2].view(2, 8, -1)[:, :2] = 0.0  # outputs 0 and 1 of group 0
    live = probe_of(model, torch.randn(16, 1, 6, 6))(alive).layers[1]
    assert (_indices(live.inputs), _indices(live.outputs)) == ([1, 2, 3], [*range(2, 8)])
    assert live.weights == (1 * 2 + 2 * 4) / 16


def test_biases_count_with_their_outputs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    alive = [p.detach().clone() for p in weights(model)]
    alive[0][1] = 0.0
    assert cost(Parameters, model, torch.randn(16, 3), share=alive) == pytest.approx((9 + 3 + 6 + 2) / (12 + 4 + 8 + 2))


@pytest.mark.parametrize("share", [0.0, 1e-4, 1 / 64, 0.1, 0.25, 0.6, 1.0])
def test_latency_is_interpolated_by_the_share_of_weights(share):
    layer = Latency.restored({"layers": [_layer(seconds=[1.0, 2.0, 4.0, 10.0])], "fixed": 3.0}).layers[0]
    expected = {0.0: 0, 1e-4: 1, 1 / 64: 1, 0.1: 2 + 2 * (0.1 - 1 / 16) / (3 / 16), 0.25: 4, 0.6: 4 + 6 * 0.35 / 0.75}
    assert Latency((layer,)).of(layer, share, 1.0) == pytest.approx(expected.get(share, 10.0))


def _layer(**more):
    return {"weights": 1, "biases": 0, "size": 4, "flops": 1.0, **more}


# --- the model is left as it was ---


class Busy(nn.Module):
    """All that a forward pass could leave behind: buffers and inputs it writes, random numbers it takes."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.1)),
            nn.Linear(6 * 36, 3),
        )
        self.register_buffer("calls", torch.zeros(()))
        self.net[1].eval()  # frozen, as fine-tuning does

    def forward(self, x):
        self.calls += 1
        return self.net(x.mul_(0.5)) + 1e-3 * torch.rand(3)


def test_the_probe_leaves_no_trace(monkeypatch):
    # a clock by which what runs later takes longer: on a busy machine the times of so small a model are anything
    times = (tick**2 for tick in itertools.count())
    monkeypatch.setattr("torchlasso.control.costs.clock", lambda device: times.__next__)
    torch.manual_seed(0)
    model, x = Busy(), torch.randn(8, 2, 8, 8)
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=tl.Filters()), lam=0.1), lr=0.1)
    model(x).sum().backward()
    grads = [p.grad for p in model.parameters()]
    copies = [grad.clone() for grad in grads]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    sample = x.clone()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    control = tl.TargetBudget(optimizer, model, x, latency=0.9999, steps=10)
    assert control.left[0] > 0.5
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in model.modules()] == modes
    assert set(modes) == {False, True}
    assert all(p.grad is grad for p, grad in zip(model.parameters(), grads, strict=True))
    assert all(map(torch.equal, grads, copies))
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(x, sample)
    assert x.grad_fn is None
    assert not x.requires_grad


def test_a_pass_that_fails_leaves_no_trace_either():
    model = Busy().net
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=tl.Filters()), lam=0.1), lr=0.1)
    with pytest.raises(ValueError, match="failed"):
        tl.TargetBudget(optimizer, model, torch.randn(4, 5), flops=0.5, steps=10)
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert "lam_factors" not in optimizer.param_groups[0]
    assert optimizer.param_groups[0]["lam"] == 0.1


def test_it_works_where_gradients_are_off():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    x = torch.randn(16, 3)
    with torch.no_grad():
        assert lives(model, x)["0"] == ([*range(5)], [0, 1, 2])
