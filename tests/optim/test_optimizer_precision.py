"""Parameters of low and high precision, alone and in one group: exact zeros, no NaN, the support of float32."""

import functools

import torch
from torch import nn

import torchlasso as tl
from tests.support.implementations import (
    ALL,
    EACH,
    FEW,
    FEW_NAMES,
    IMPLEMENTATIONS,
    NAMES,
    assert_alike,
    build_as,
    options_of,
    random_gradients,
    run,
)
from tests.support.optimizers import CASES, cosine, flat, network
from tests.support.pairwise import pairwise

LOW = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PRECISIONS = {**LOW, "float32": torch.float32, "float64": torch.float64}


def safe(case: str, dtype: torch.dtype) -> dict[str, float]:
    # the squares of small gradients are zero in float16, as is torch's usual ε: 0/0
    return {"eps": 1e-3} if dtype == torch.float16 and "Adam" in case else {}


def trained(implementation: str, case: str, dtype: torch.dtype, **options) -> tuple[nn.Module, tl.Proximal]:
    model = network().to(dtype)
    optimizer = build_as(implementation, case, model, **options)
    run(model, optimizer, range(40))
    return model, optimizer


@functools.cache
def in_float32(case: str, eps: float | None) -> torch.Tensor:
    return flat(trained("one by one", case, torch.float32, **({} if eps is None else {"eps": eps}))[0])


@pairwise(case=NAMES, implementation=IMPLEMENTATIONS, precision=PRECISIONS)
def test_zeros_are_exact_and_close_to_float32(case, implementation, precision):
    dtype = PRECISIONS[precision]
    options = safe(case, dtype)
    model, optimizer = trained(implementation, case, dtype, **options)
    weights, reference = flat(model), in_float32(case, options.get("eps"))
    assert weights.dtype == dtype
    assert weights.isfinite().all()
    for state in optimizer.state.values():
        tensors = [value for name, value in state.items() if isinstance(value, torch.Tensor) and name != "step"]
        assert all(value.isfinite().all() for value in tensors)
    zeros = int((reference == 0).sum())
    assert 0 < zeros < len(reference)
    different = int(((weights == 0) != (reference == 0)).sum())
    assert different <= (0.25 * zeros if precision in LOW else 0)
    tolerance = 0.1 if precision in LOW else 1e-4
    torch.testing.assert_close(weights.float(), reference, rtol=tolerance, atol=tolerance)


@pairwise(case=NAMES, implementation=IMPLEMENTATIONS, precision=PRECISIONS)
def test_a_strong_penalty_makes_all_weights_zero_and_keeps_them(case, implementation, precision):
    dtype = PRECISIONS[precision]
    model = network().to(dtype)
    optimizer = build_as(implementation, case, model, lam=100.0, **safe(case, dtype))
    run(model, optimizer, range(5))
    assert not model[0].weight.any()
    assert not torch.signbit(model[0].weight).any(), "no −0.0"
    assert model[2].bias.all(), "not penalised"
    run(model, optimizer, range(5, 10))
    assert not model[0].weight.any()
    assert flat(model).isfinite().all()


@EACH
@ALL
def test_a_weight_of_nan_stays_one(case, implementation):
    # a NaN that became a zero would hide that training has failed
    w = nn.Parameter(torch.tensor([1.0, float("nan"), 0.01]))
    optimizer = tl.proximal(CASES[case][0])([w], penalty=tl.L1(), lam=0.1, **options_of(case, implementation))
    random_gradients([w], 0)
    optimizer.step()
    assert w.isnan().tolist() == [False, True, False]


@pairwise(case=NAMES, implementation=IMPLEMENTATIONS, precision=PRECISIONS)
def test_the_state_has_the_form_of_the_plain_optimizer_s_state(case, implementation, precision):
    base = CASES[case][0]
    forms = []
    for make in (lambda params, **o: base(params, **o), lambda params, **o: tl.proximal(base)(params, **o)):
        w = nn.Parameter(torch.ones(3, 2, dtype=PRECISIONS[precision]))
        penalty = {} if not forms else {"penalty": tl.L1(), "lam": 0.1}
        optimizer = make([w], **penalty, **options_of(case, implementation))
        for seed in range(3):
            random_gradients([w], seed)
            optimizer.step()
        state = optimizer.state_dict()["state"].get(0, {})
        forms.append({name: (value.dtype, value.shape, value.stride()) for name, value in state.items()})
    assert forms[0] == forms[1]


@EACH
@FEW
def test_parameters_of_different_precision_in_one_group_are_as_they_are_alone(case, implementation):
    precisions = [torch.float32, torch.float64, torch.bfloat16, torch.float32]
    base, options = CASES[case][0], options_of(case, implementation)

    def train(dtypes) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        ws = [nn.Parameter(torch.randn(40, generator=generator, dtype=torch.float64).to(d)) for d in precisions]
        chosen = [w for w, dtype in zip(ws, precisions, strict=True) if dtype in dtypes]
        optimizer = tl.proximal(base)(chosen, penalty=tl.L1(), lam=0.5, **options)
        scheduler = cosine(optimizer)
        for seed in range(20):
            random_gradients(ws, seed)
            optimizer.step()
            scheduler.step()
        return [w.detach() for w in chosen]

    together = train(set(precisions))
    assert [w.dtype for w in together] == precisions
    alone = {dtype: train({dtype}) for dtype in set(precisions)}
    for w in together:
        expected = alone[w.dtype].pop(0)
        torch.testing.assert_close(w, expected)
        assert torch.equal(w == 0, expected == 0)
    assert any((w == 0).any() for w in together)


@pairwise(case=FEW_NAMES, implementation=IMPLEMENTATIONS, default=[torch.float32, torch.float64])
def test_the_default_precision_is_nothing_to_a_step(case, implementation, default):
    results = []
    for dtype in (torch.float32, default):
        model = network().double()
        optimizer = build_as(implementation, case, model)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            for seed in range(10):
                random_gradients(model.parameters(), seed)
                optimizer.step()
        finally:
            torch.set_default_dtype(before)
        results.append(flat(model))
    assert_alike(*results)


def test_the_implementations_are_different_ones():
    optimizers = {name: build_as(name, "Adam", network()) for name in IMPLEMENTATIONS}
    flags = {name: (o.param_groups[0]["foreach"], o.param_groups[0]["fused"]) for name, o in optimizers.items()}
    assert flags == {"one by one": (False, False), "foreach": (True, None), "fused": (None, True)}
