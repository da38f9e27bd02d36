"""Every proximal optimizer against the solvers of scikit-learn and skglm: same objective, same support, exact zeros."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression

import torchlasso as tl
from torchlasso.optim.metrics import known_metrics

pytestmark = pytest.mark.slow

SGD, Adam = torch.optim.SGD, torch.optim.Adam
# name -> (torch optimizer, options, learning rate for lasso-like problems with unit-scale curvature)
CASES = {
    "SGD": (SGD, {}, 1.0),
    "SGD momentum": (SGD, {"momentum": 0.9}, 0.3),
    "SGD dampening": (SGD, {"momentum": 0.8, "dampening": 0.5}, 0.6),
    "SGD Nesterov": (SGD, {"momentum": 0.9, "nesterov": True}, 0.3),
    "Adam": (Adam, {}, 0.03),
    "Adam amsgrad": (Adam, {"amsgrad": True}, 0.03),
    "AdamW": (torch.optim.AdamW, {"weight_decay": 0.0}, 0.03),
    "AdamW amsgrad": (torch.optim.AdamW, {"weight_decay": 0.0, "amsgrad": True}, 0.03),
    "NAdam": (torch.optim.NAdam, {}, 0.03),
    "RAdam": (torch.optim.RAdam, {}, 0.03),
    "Adagrad": (torch.optim.Adagrad, {}, 0.3),
    "Adafactor": (torch.optim.Adafactor, {}, 0.3),
    "RMSprop": (torch.optim.RMSprop, {}, 0.03),
    "RMSprop centred": (torch.optim.RMSprop, {"centered": True}, 0.01),
    "RMSprop momentum": (torch.optim.RMSprop, {"momentum": 0.8}, 0.01),
    "Adamax": (torch.optim.Adamax, {}, 0.03),
}
STEPS = 2500  # at most
# of λ: how far from stationary weights may be that training is stopped at
STATIONARY = {torch.float64: 1e-6, torch.float32: 1e-4}
CHECK_EVERY = 50  # steps


def design(n: int, p: int, seed: int) -> np.ndarray:
    """Correlated columns whose scales differ by a factor of up to ten."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p)) + 0.7 * rng.standard_normal((n, 1))
    return x * 10 ** rng.uniform(-0.5, 0.5, p)


class Problem:
    """A convex problem: loss and gradient in closed form, and its penalty, with the reference solution."""

    def __init__(self, n: int, p: int, seed: int = 0):
        rng = np.random.default_rng(seed + 1)
        self.x = design(n, p, seed)
        truth = np.where(rng.random(p) < 0.2, rng.standard_normal(p), 0.0)
        self.signal = self.x @ truth + 0.5 * rng.standard_normal(n)

    def tensors(self, dtype):
        return torch.from_numpy(self.x).to(dtype), torch.from_numpy(self.y).to(dtype)

    def objective(self, w) -> float:
        w = torch.as_tensor(w, dtype=torch.float64)
        x, y = self.tensors(torch.float64)
        return (self.loss(x @ w.reshape(-1), y) + self.penalty.value(w, self.lam)).item()

    def distance(self, w: torch.nn.Parameter) -> float:
        """Return the distance of weights from a stationary point, in units of λ."""
        return (self.penalty.subdiff_distance(w.detach(), w.grad, float(self.lam)).max() / self.lam).item()


class LeastSquares(Problem):
    def __init__(self, n, p, seed=0):
        super().__init__(n, p, seed)
        self.y = self.signal

    curvature = 1.0

    def loss(self, z, y):
        return (z - y).square().mean() / 2

    def residual(self, z, y):
        return z - y


class LassoProblem(LeastSquares):
    penalty = tl.L1()

    def __init__(self, *args):
        super().__init__(*args)
        self.lam = 0.2 * np.abs(self.x.T @ self.y).max() / len(self.y)
        self.solution = Lasso(self.lam, fit_intercept=False, tol=1e-14, max_iter=10**6).fit(self.x, self.y).coef_


class ElasticNetProblem(LeastSquares):
    penalty = tl.ElasticNet(l1_ratio=0.6)

    def __init__(self, *args):
        super().__init__(*args)
        self.lam = 0.2 * np.abs(self.x.T @ self.y).max() / len(self.y)
        model = ElasticNet(self.lam, l1_ratio=0.6, fit_intercept=False, tol=1e-14, max_iter=10**6)
        self.solution = model.fit(self.x, self.y).coef_


class LogisticProblem(Problem):
    penalty = tl.L1()
    curvature = 0.25

    def __init__(self, *args):
        super().__init__(*args)
        self.y = (self.signal > 0).astype(float)
        self.lam = 0.15 * np.abs(self.x.T @ (self.y - 0.5)).max() / len(self.y)
        model = LogisticRegression(
            l1_ratio=1, solver="saga", C=1 / (self.lam * len(self.y)), fit_intercept=False, tol=1e-13, max_iter=10**6
        )
        self.solution = model.fit(self.x, self.y).coef_[0]

    def loss(self, z, y):
        return torch.nn.functional.binary_cross_entropy_with_logits(z, y)

    def residual(self, z, y):
        return z.sigmoid() - y


class GroupLassoProblem(LeastSquares):
    penalty = tl.L1(over=tl.Chunks(n=4))

    def __init__(self, *args):
        import numba

        numba.config.DISABLE_JIT = True  # to compile the solver takes 20 seconds, and to run it as it is a tenth of one
        from skglm import GeneralizedLinearEstimator
        from skglm.datafits import QuadraticGroup
        from skglm.penalties import WeightedGroupL2
        from skglm.solvers import GroupBCD
        from skglm.utils.data import grp_converter

        super().__init__(*args)
        p = self.x.shape[1]
        self.lam = 0.1 * np.abs(self.x.T @ self.y).max() / len(self.y)
        indices, offsets = grp_converter(4, p)
        model = GeneralizedLinearEstimator(
            QuadraticGroup(offsets, indices),
            WeightedGroupL2(self.lam, np.full(p // 4, 2.0), offsets, indices),  # 2 = √4
            GroupBCD(tol=1e-13, max_iter=10_000, fit_intercept=False),
        )
        self.solution = model.fit(self.x, self.y).coef_


PROBLEMS = {
    "lasso tall": lambda: LassoProblem(120, 40),
    "lasso wide": lambda: LassoProblem(60, 90),
    "elastic net": lambda: ElasticNetProblem(80, 60),
    "logistic": lambda: LogisticProblem(120, 40),
    "group lasso": lambda: GroupLassoProblem(120, 40),
}
_SOLVED: dict[str, Problem] = {}


def solved(name: str) -> Problem:
    if name not in _SOLVED:
        _SOLVED[name] = PROBLEMS[name]()
    return _SOLVED[name]


def train(
    problem: Problem, case: str, dtype: torch.dtype, *, averaging: bool = True, steps: int = STEPS
) -> torch.Tensor:
    base, options, lr = CASES[case]
    x, y = problem.tensors(dtype)
    if base is SGD:  # the stable rate of gradient descent; the others scale themselves
        lr /= problem.curvature * np.linalg.norm(problem.x, 2) ** 2 / len(problem.y)
    w = torch.nn.Parameter(torch.zeros(x.shape[1], dtype=dtype))
    optimizer = tl.proximal(base)(
        [w], lr=lr, penalty=problem.penalty, lam=float(problem.lam), averaging=averaging, **options
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=lr * 1e-4)
    w.grad = torch.zeros_like(w)
    for step in range(steps):
        with torch.no_grad():
            torch.mv(x.T, problem.residual(x @ w, y) / len(y), out=w.grad)
        if step % CHECK_EVERY == 0 and problem.distance(w) <= STATIONARY[dtype]:
            break
        optimizer.step()
        scheduler.step()
    return w.detach()


def test_every_known_optimizer_is_tested():
    assert {base for base, _, _ in CASES.values()} == set(known_metrics())


# Every optimizer solves a problem over single weights and one over groups. The others differ in the loss and in the
# prox, which no optimizer touches: there, and in float32, one optimizer for each kind of step length is enough.
EVERY_OPTIMIZER = ("lasso tall", "group lasso")
KINDS = ("SGD momentum", "Adam", "Adagrad", "RMSprop centred")  # a rate, and three ways to scale it
RUNS = [(case, name, torch.float64) for name in PROBLEMS for case in (CASES if name in EVERY_OPTIMIZER else KINDS)]
RUNS += [(case, "lasso tall", torch.float32) for case in KINDS]


@pytest.mark.parametrize(("case", "problem_name", "dtype"), RUNS, ids=str)
def test_reaches_the_solution_of_the_reference_solver(case, problem_name, dtype):
    problem = solved(problem_name)
    w = train(problem, case, dtype)
    ours, theirs = problem.objective(w), problem.objective(problem.solution)
    assert ours - theirs <= (1e-9 if dtype == torch.float64 else 1e-5) * theirs, "objective"
    reference = torch.from_numpy(problem.solution)
    wrong = ((w != 0) != (reference.abs() > 1e-9 * reference.abs().max())).sum().item()
    assert wrong == 0, "support"
    assert 0 < (w == 0).sum() < len(w)
