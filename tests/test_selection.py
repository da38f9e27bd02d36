"""The parameters that are penalised by default and by rules, and the plain loss term."""

import math

import pytest
import torch
from torch import nn

import torchlasso as tl


class Kernel(nn.Module):
    """A custom layer: its weight has no usual name."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(3, 4))
        self.gain = nn.Parameter(torch.ones(4))
        self.bias_table = nn.Parameter(torch.ones(4, 4))
        self.scale = nn.Parameter(torch.tensor(1.0))


class Zoo(nn.Module):
    """One of everything, with the embedding's weight shared by the decoder."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.PReLU(), nn.Conv2d(4, 4, 3, groups=2))
        self.embedding = nn.Embedding(10, 6)
        self.lstm = nn.LSTM(6, 5, bidirectional=True)
        self.attention = nn.MultiheadAttention(6, 2, add_bias_kv=True)
        self.norms = nn.ModuleList([nn.LayerNorm((3, 6)), nn.GroupNorm(2, 4), nn.RMSNorm((2, 6)), nn.InstanceNorm1d(3)])
        self.custom = Kernel()
        self.bilinear = nn.Bilinear(2, 3, 4)
        self.decoder = nn.Linear(6, 10)
        self.decoder.weight = self.embedding.weight


WEIGHTS = [
    "features.0.weight",
    "features.3.weight",
    "embedding.weight",
    "lstm.weight_ih_l0",
    "lstm.weight_hh_l0",
    "lstm.weight_ih_l0_reverse",
    "lstm.weight_hh_l0_reverse",
    "attention.in_proj_weight",
    "attention.out_proj.weight",
    "custom.kernel",
    "bilinear.weight",
]


def names(model: nn.Module, params) -> list[str]:
    by_parameter = {p: name for name, p in model.named_parameters()}
    return [by_parameter[p] for p in params]


def chosen(model: nn.Module, *args, lam: float = 0.1) -> dict[str, tuple]:
    """Name of each penalised parameter -> its penalty and λ."""
    found = {}
    for group in tl.param_groups(model, *args, lam=lam):
        if group["penalty"] is not None:
            for name in names(model, group["params"]):
                assert name not in found
                found[name] = (group["penalty"], group["lam"])
    return found


# --- the chosen parameters ---


def test_by_default_all_weights_are_penalised_and_nothing_else():
    assert chosen(Zoo(), tl.L1()) == dict.fromkeys(WEIGHTS, (tl.L1(), 0.1))


def test_every_parameter_is_in_one_group_once():
    model = Zoo()
    groups = tl.param_groups(
        model, [tl.Rule("lstm.*", None), tl.Rule("features.*", tl.MCP()), tl.Rule("*", tl.L1())], lam=1
    )
    params = [p for group in groups for p in group["params"]]
    assert len(params) == len(set(params))
    assert set(params) == set(model.parameters())
    assert [group["penalty"] for group in groups] == [tl.MCP(), tl.L1(), None]
    assert [group["lam"] for group in groups] == [1, 1, 0.0]


def test_tied_weights_have_their_first_name_and_module():
    model = Zoo()
    rules = [tl.Rule(nn.Linear, tl.MCP()), tl.Rule(nn.Embedding, tl.L1())]
    found = chosen(model, rules)
    assert found["embedding.weight"] == (tl.L1(), 0.1)
    assert [name for name, (penalty, _) in found.items() if penalty == tl.MCP()] == ["attention.out_proj.weight"]
    with pytest.raises(ValueError, match=r"rule for 'decoder.weight' has no effect: it matches no parameter"):
        tl.param_groups(model, [tl.Rule("decoder.weight", tl.L1())], lam=0.1)


def test_a_module_that_is_used_twice_counts_once():
    layer = nn.Linear(3, 3)
    (group, rest) = tl.param_groups(nn.Sequential(layer, nn.ReLU(), layer), tl.L1(), lam=0.1)
    assert group["params"] == [layer.weight]
    assert rest["params"] == [layer.bias]


def test_a_module_itself_can_be_the_model():
    model = nn.Linear(3, 2)
    assert list(chosen(model, tl.L1())) == ["weight"]
    assert list(chosen(model, tl.Rule("weight", tl.L1()))) == ["weight"]


RULES = {
    "name": ("lstm.weight_ih_*", ["lstm.weight_ih_l0", "lstm.weight_ih_l0_reverse"]),
    "full name": ("custom.kernel", ["custom.kernel"]),
    "everything by name": ("*", WEIGHTS),
    "type": (nn.Conv2d, ["features.0.weight", "features.3.weight"]),
    "base type": (nn.RNNBase, WEIGHTS[3:7]),
    "types": ((nn.Conv2d, Kernel), ["features.0.weight", "features.3.weight", "custom.kernel"]),
    "predicate": (
        lambda name, module, p: p.shape[0] == 4,
        ["features.0.weight", "features.3.weight", "bilinear.weight"],
    ),
    "predicate on the module": (lambda name, module, p: getattr(module, "groups", 1) == 2, ["features.3.weight"]),
    "predicate on the name": (lambda name, module, p: name.startswith("att"), WEIGHTS[7:9]),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_chooses(rule):
    where, expected = RULES[rule]
    assert chosen(Zoo(), tl.Rule(where, tl.MCP())) == dict.fromkeys(expected, (tl.MCP(), 0.1))


def test_names_are_matched_with_their_case():
    with pytest.raises(ValueError, match=r"rule for 'CUSTOM\.\*' has no effect"):
        tl.param_groups(Zoo(), tl.Rule("CUSTOM.*", tl.L1()), lam=0.1)


def test_the_first_rule_that_matches_holds():
    rules = [
        tl.Rule("features.0.*", tl.MCP(), scale=2.0),
        tl.Rule("attention.*", None),
        tl.Rule(nn.Conv2d, tl.SCAD(), scale=0.5),
        tl.Rule("*", tl.L1()),
    ]
    expected = dict.fromkeys(WEIGHTS, (tl.L1(), 0.25))
    expected["features.0.weight"] = (tl.MCP(), 0.5)
    expected["features.3.weight"] = (tl.SCAD(), 0.125)
    del expected["attention.in_proj_weight"], expected["attention.out_proj.weight"]
    assert chosen(Zoo(), rules, lam=0.25) == expected


def test_rules_with_the_same_penalty_keep_their_own_strengths():
    rules = [tl.Rule("0.*", tl.L1(), scale=2.0), tl.Rule("1.*", tl.L1(), scale=3.0), tl.Rule("2.*", tl.L1(), scale=0.0)]
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    found = chosen(model, rules, lam=0.5)
    assert found == {"0.weight": (tl.L1(), 1.0), "1.weight": (tl.L1(), 1.5), "2.weight": (tl.L1(), 0.0)}


def test_parameters_without_a_rule_are_not_penalised():
    assert list(chosen(Zoo(), tl.Rule(nn.LSTM, tl.L1()))) == WEIGHTS[3:7]


def test_a_strength_of_zero_keeps_the_penalty():
    found = chosen(nn.Linear(2, 2), tl.L1(), lam=0.0)
    assert found == {"weight": (tl.L1(), 0.0)}


def test_everything_also_matches_biases_and_normalisations():
    rules = [
        tl.Rule(nn.BatchNorm2d, tl.L1(), everything=True),
        tl.Rule("*.bias", tl.MCP(), everything=True),
        tl.Rule(nn.PReLU, tl.SCAD(), everything=True),
    ]
    found = chosen(Zoo(), rules)
    assert found["features.1.weight"] == found["features.1.bias"] == (tl.L1(), 0.1)
    assert found["features.0.bias"] == found["decoder.bias"] == (tl.MCP(), 0.1)
    assert found["features.2.weight"] == (tl.SCAD(), 0.1)
    assert not set(WEIGHTS) & set(found)
    model = Zoo()
    assert len(chosen(model, tl.Rule("*", tl.L1(), everything=True))) == len(list(model.parameters()))


# --- refusals ---

TWO = {"a": lambda: nn.Linear(2, 2), "norm": lambda: nn.BatchNorm1d(2)}


def two() -> nn.Module:
    return nn.ModuleDict({name: make() for name, make in TWO.items()})


IDLE = {
    "no such name": (
        [tl.Rule("b.*", tl.L1())],
        r"rule for 'b\.\*' has no effect: .*no parameter; there are a\.weight, a\.bi",
    ),
    "no such type": (
        [tl.Rule(nn.Conv2d, tl.L1())],
        r"Conv2d.* has no effect: it matches no parameter; there are a\.weight",
    ),
    "biases only": ([tl.Rule("*.bias", tl.L1())], r"'\*\.bias' has no effect: .*only biases.*give everything=True"),
    "norms only": (
        [tl.Rule(nn.BatchNorm1d, tl.L1())],
        r"has no effect: it matches only biases or norm.*everything=True",
    ),
    "shadowed": (
        [tl.Rule("*", tl.L1()), tl.Rule("a.*", tl.MCP())],
        r"'a\.\*' has no effect: earlier rules take.*before",
    ),
    "shadowed by none": ([tl.Rule("a.*", None), tl.Rule(nn.Linear, tl.L1())], "has no effect: earlier rules take"),
}


@pytest.mark.parametrize("case", IDLE)
def test_a_rule_without_effect_is_refused_with_the_reason(case):
    rules, message = IDLE[case]
    with pytest.raises(ValueError, match=message):
        tl.param_groups(two(), rules, lam=0.1)


def test_a_long_list_of_names_is_cut():
    with pytest.raises(ValueError, match=r"there are features\.0\.weight, .*, …$"):
        tl.param_groups(Zoo(), tl.Rule("nowhere", tl.L1()), lam=0.1)


@pytest.mark.parametrize(
    ("model", "penalty"),
    [(nn.BatchNorm1d(3), tl.L1()), (nn.Linear(2, 2), tl.Rule("*", None)), (nn.ReLU(), tl.L1())],
    ids=["norm", "rule with none", "no parameters"],
)
def test_nothing_penalised_is_refused(model, penalty):
    with pytest.raises(ValueError, match=r"nothing is penalised|has no effect"):
        tl.param_groups(model, penalty, lam=0.1)


def test_rules_that_all_say_none_are_refused():
    with pytest.raises(ValueError, match="nothing is penalised: the model has no weight that a rule with a penalty"):
        tl.param_groups(two(), [tl.Rule("*", None)], lam=0.1)


def test_a_layer_without_shape_is_refused_until_it_has_one():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"0\.weight has no shape yet: run the model once"):
        tl.param_groups(model, tl.L1(), lam=0.1)
    model(torch.ones(1, 5))
    assert list(chosen(model, tl.L1())) == ["0.weight"]


@pytest.mark.parametrize("lam", [-1e-9, math.nan, math.inf, "0.1", None, True], ids=repr)
def test_an_invalid_strength_is_refused(lam):
    with pytest.raises(ValueError, match="lam must be a finite number of at least 0; got"):
        tl.param_groups(two(), tl.L1(), lam=lam)
    with pytest.raises(ValueError, match="scale must be a finite number of at least 0; got"):
        tl.Rule("*", tl.L1(), scale=lam)


@pytest.mark.parametrize("penalty", ["l1", tl.L1, [], [tl.L1()], None, [tl.Rule("*", tl.L1()), tl.L1()]], ids=repr)
def test_other_objects_than_penalties_and_rules_are_refused(penalty):
    with pytest.raises(TypeError, match=r"penalty must be a Penalty such as .*, a Rule or a list of Rules; got"):
        tl.param_groups(two(), penalty, lam=0.1)


@pytest.mark.parametrize("penalty", ["l1", tl.L1, 0.1], ids=repr)
def test_a_rule_with_another_object_than_a_penalty_is_refused(penalty):
    with pytest.raises(TypeError, match=r"penalty must be a Penalty such as torchlasso\.L1.* or None; got"):
        tl.Rule("*", penalty)


# --- penalties are fitted to their layers ---


def test_filters_are_fitted_to_a_transposed_convolution_with_groups():
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.Conv2d(6, 4, 3, groups=2), nn.Linear(4, 2))
    found = chosen(model, tl.L1(over=tl.Filters()))
    assert found == {
        "0.weight": (tl.L1(over=tl.Filters(transposed=True, groups=2)), 0.1),
        "1.weight": (tl.L1(over=tl.Filters(groups=2)), 0.1),
        "2.weight": (tl.L1(over=tl.Filters()), 0.1),
    }
    layer, fitted = model[0], found["0.weight"][0]
    with torch.no_grad():  # output channel 4 is the second of the second group, which reads inputs 2 and 3
        layer.weight[2:, 1] = 0.0
        output = layer(torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0)))
    assert fitted.support(layer.weight).tolist() == [True, True, True, True, False, True]
    assert torch.equal(output[0, 4], layer.bias[4].expand_as(output[0, 4]))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("layer", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_a_bias_of_a_transposed_convolution_has_a_number_for_each_filter(layer: type[nn.Module], groups: int):
    model = layer(4, 6, 3, groups=groups)
    found = tl.param_groups(model, tl.Rule("*", tl.L1(over=tl.Filters()), everything=True), lam=0.1)
    optimizer = tl.ProxSGD(found, lr=1.0)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([0.05, -0.05, 1.0, 0.0, 0.2, -0.2]))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert (model.bias == 0).tolist() == [True, True, False, True, False, False]
    torch.testing.assert_close(model.bias[2], torch.tensor(0.9))
    (_, bias) = tl.report(model, optimizer.penalised_groups()).layers
    assert (bias.name, bias.units, bias.live_units) == ("bias", 6, 3)


def test_heads_are_fitted_to_the_joint_projection():
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(6, 2)})
    found = chosen(model, tl.L1(over=tl.Heads(n=2)))
    assert found["attention.in_proj_weight"][0] == tl.L1(over=tl.Heads(n=2, parts=3))
    assert found["attention.out_proj.weight"][0] == tl.L1(over=tl.Heads(n=2))


def test_sparse_groups_are_fitted_too():
    found = chosen(nn.ConvTranspose1d(4, 6, 3), tl.SparseGroup(l1_ratio=0.3))
    assert found["weight"][0] == tl.SparseGroup(over=tl.Filters(transposed=True), l1_ratio=0.3)


# --- the plain loss term ---


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def test_the_penalty_is_the_sum_of_the_textbook():
    model = small()
    groups = tl.param_groups(
        model, [tl.Rule("0.*", tl.L1()), tl.Rule("2.*", tl.L1(over=tl.Rows()), scale=3.0)], lam=0.5
    )
    first, second = model[0].weight, model[2].weight
    expected = 0.5 * first.abs().sum() + 1.5 * sum(math.sqrt(5) * row.norm() for row in second)
    torch.testing.assert_close(tl.penalty(groups), expected)
    by_penalty = sum(g["penalty"].value(p, g["lam"]) for g in groups if g["penalty"] for p in g["params"])
    torch.testing.assert_close(tl.penalty(groups), by_penalty)


def test_the_penalty_is_differentiable():
    model = small()
    groups = tl.param_groups(model, [tl.Rule("0.*", tl.L1()), tl.Rule("2.*", tl.ElasticNet(l1_ratio=0.5))], lam=0.5)
    tl.penalty(groups).backward()
    first, second = model[0].weight, model[2].weight
    torch.testing.assert_close(first.grad, 0.5 * first.detach().sign())
    torch.testing.assert_close(second.grad, 0.25 * second.detach().sign() + 0.25 * second.detach())
    assert model[0].bias.grad is None


def test_the_penalty_counts_tied_weights_once():
    model = Zoo()
    expected = 2.0 * sum(dict(model.named_parameters())[name].abs().sum() for name in WEIGHTS)
    torch.testing.assert_close(tl.penalty(tl.param_groups(model, tl.L1(), lam=2.0)), expected)


def test_the_groups_work_in_a_plain_optimizer_with_the_loss_term():
    model, reference = small(), small()
    groups = tl.param_groups(model, tl.L1(), lam=0.1)
    optimizer = torch.optim.Adam(groups, lr=0.01)
    plain = torch.optim.Adam(reference.parameters(), lr=0.01)
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    for _ in range(10):
        optimizer.zero_grad()
        (model(x).square().mean() + tl.penalty(optimizer.param_groups)).backward()
        optimizer.step()
        plain.zero_grad()
        l1 = 0.1 * (reference[0].weight.abs().sum() + reference[2].weight.abs().sum())
        (reference(x).square().mean() + l1).backward()
        plain.step()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_groups_of_a_proximal_optimizer_give_the_same_penalty():
    model = Zoo()
    groups = tl.param_groups(model, [tl.Rule("features.*", tl.MCP(), scale=2.0), tl.Rule("*", tl.L1())], lam=0.3)
    optimizer = tl.ProxAdam(groups, lr=0.1)
    torch.testing.assert_close(tl.penalty(optimizer.penalised_groups()), tl.penalty(groups))
    optimizer.param_groups[1]["lam"] = 0.0
    expected = sum(tl.MCP().value(p, 0.6) for p in (model.features[0].weight, model.features[3].weight))
    torch.testing.assert_close(tl.penalty(optimizer.penalised_groups()), expected)


def test_the_groups_are_not_changed_by_the_optimizer():
    groups = tl.param_groups(small(), tl.L1(), lam=0.3)
    before = [dict(group) for group in groups]
    tl.ProxAdam(groups, lr=0.1)
    assert [set(group) for group in groups] == [set(group) for group in before]
    assert [group["penalty"] for group in groups] == [tl.L1(), None]
    assert [group["lam"] for group in groups] == [0.3, 0.0]


def test_under_inputs_all_other_weights_get_a_weight_decay_that_follows_lam():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    inputs = tl.Inputs(model, torch.randn(2, 4))
    groups = tl.param_groups(model, tl.L1(over=inputs), lam=0.1)
    assert [group["names"] for group in groups[:2]] == [["0.weight"], ["2.weight", "4.weight"]]
    assert [group.get("weight_decay") for group in groups] == [None, pytest.approx(0.3), None]  # λ times √9
    optimizer = tl.ProxAdam(groups, lr=0.01)
    warmup = tl.Warmup(optimizer, steps=10)
    for done in range(1, 5):
        warmup.step()
        assert optimizer.param_groups[1]["weight_decay"] == pytest.approx(0.3 * done / 10)
    assert tl.ProxAdam(groups, lr=0.01, form="latent").param_groups[1]["weight_decay"] == 0.0
    plain = tl.param_groups(model, [tl.Rule("*", tl.L1(over=inputs)), tl.Rule("*", None)], lam=0.1)
    assert not any("weight_decay" in group for group in plain)


@pytest.mark.slow
def test_the_decay_bounds_what_rectifiers_let_slip():
    torch.manual_seed(0)
    x = torch.randn(200, 6)
    y = x[:, :1].relu()

    def norms(decay: bool) -> tuple[float, float]:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
        rules = [tl.Rule("*", tl.L1(over=tl.Inputs(model, x[:2]))), *([] if decay else [tl.Rule("*", None)])]
        optimizer = tl.ProxAdam(tl.param_groups(model, rules, lam=0.02), lr=0.05)
        for _ in range(400):
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
        return float(model[0].weight.detach().norm()), float(model[2].weight.detach().norm())

    (first, later), (slipped, grown) = norms(decay=True), norms(decay=False)
    assert slipped < 0.5 * first
    assert grown > 2 * later
