"""PreQN against explicit Jacobians in float64, its way back from divergence bit by bit, and that it learns."""

import ast
import copy
import dataclasses
import re
from pathlib import Path

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

import divergence_notes
from divergence_notes import diagnostics, networks, ntk, preqn, replay, training

FLATTEN = ": gymnasium.wrappers.FlattenObservation makes vectors of most observations"
OBS = Box(-np.inf, np.inf, shape=(3,))
LOW, HIGH = np.float32([-1, 0]), np.float32([3, 10])
SPACES = {"continuous": Box(LOW, HIGH), "discrete": Discrete(4)}
both_kinds = pytest.mark.parametrize("kind", SPACES)


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def config(**changes):
    small = {"hidden": (64,), "policy_hidden": (8,), "activation": "tanh", "gamma": 0.9, "held_out": 4, "seed": 1}
    return preqn.PreQNConfig(**small | {"jitter": 1e-3} | changes)


def make(kind, **changes):
    return preqn.PreQN(OBS, SPACES[kind], config(**changes))


def draw(kind, seed=0, n=16):
    """Return a batch; every third transition terminated."""
    g = torch.Generator().manual_seed(seed)
    low, high = torch.from_numpy(LOW), torch.from_numpy(HIGH)
    return replay.Batch(
        torch.randn(n, 3, generator=g),
        torch.randint(4, (n,), generator=g)
        if kind == "discrete"
        else low + (high - low) * torch.rand(n, 2, generator=g),
        torch.randn(n, generator=g),
        torch.randn(n, 3, generator=g),
        torch.arange(n) % 3 == 0,
    )


def parameters(net):
    return torch.cat([p.detach().clone().ravel() for p in net.parameters()])


def jacobian(net, x, outputs=None):
    """Return the gradient of each value, one backward pass at a time."""
    rows = []
    for k, row in enumerate(x):
        value = net(row[None])[0, 0 if outputs is None else int(outputs[k])]
        rows.append(torch.cat([slope.ravel() for slope in torch.autograd.grad(value, list(net.parameters()))]))
    return torch.stack(rows)


def flat(slopes):
    return torch.cat([slope.ravel() for slope in slopes])


def case(activation, n=32, d=6, duplicate=False):
    """Return a network in float64, Gaussian inputs, and what their values should change by."""
    g = torch.Generator().manual_seed(3)
    net = networks.MLP((d, 64, 64, 1), activation=activation, generator=g, dtype=torch.float64)
    x, delta = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((n, d), (n,)))
    if duplicate:
        x[-1] = x[0]
    return net, x, delta


def moved(net, slopes, alpha):
    """Return a copy of the network, a step along the slopes away."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        for p, slope in zip(other.parameters(), slopes, strict=True):
            p += alpha * slope
    return other


def kernel(rank, n=8, seed=0):
    """Return a kernel of that rank, with a length of 1 and not of n, and a right-hand side."""
    rng = np.random.default_rng(seed)
    J = rng.standard_normal((n, rank))
    if rank == n:
        J += 3 * np.eye(n)
    return torch.from_numpy(J @ J.T), torch.from_numpy(rng.standard_normal(n))


class TestSolve:
    """eq-preqn-solve: K z = delta, as nearly as the solver can."""

    @pytest.mark.parametrize("solver", ["cholesky", "minimum-norm"])
    def test_nonsingular(self, solver):
        K, delta = kernel(8)
        want = np.linalg.solve(K.numpy(), delta.numpy())
        z = preqn.solve(K, delta, solver=solver, jitter=0)
        np.testing.assert_allclose(z.numpy(), want, rtol=1e-8, atol=1e-10)

    @pytest.mark.parametrize("rank", [1, 3, 7, 8])
    def test_minimum_norm_is_the_pseudoinverse(self, rank):
        K, delta = kernel(rank)
        z = preqn.solve(K, delta, solver="minimum-norm", jitter=0).numpy()
        np.testing.assert_allclose(z, np.linalg.pinv(K.numpy(), rcond=1e-10) @ delta.numpy(), atol=1e-8)
        np.testing.assert_allclose(z, np.linalg.lstsq(K.numpy(), delta.numpy(), rcond=1e-10)[0], atol=1e-8)

    def test_minimum_norm_is_the_shortest(self):
        """Whatever is added from the kernel's null space leaves K z as it is, and makes z longer."""
        K, delta = kernel(5)
        z = preqn.solve(K, delta, solver="minimum-norm", jitter=0)
        null = torch.linalg.svd(K).Vh[5:]  # (3, 8)
        for direction in torch.cat([null, -null]):
            assert (K @ direction).norm() < 1e-12
            assert (z + 0.1 * direction).norm() > z.norm() + 1e-3

    def test_duplicate_rows(self):
        """The same transition twice, with two targets: their mean is asked for, half of the weight each."""
        rng = np.random.default_rng(1)
        J = rng.standard_normal((8, 20))
        J[-1] = J[0]
        K, delta = torch.from_numpy(J @ J.T), torch.from_numpy(rng.standard_normal(8))
        mean = delta.clone()
        mean[[0, -1]] = delta[[0, -1]].mean()
        z = preqn.solve(K, delta, solver="minimum-norm", jitter=0)
        torch.testing.assert_close(K @ z, mean, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(z[0], z[-1], rtol=1e-9, atol=1e-9)
        single = np.linalg.solve(K[:-1, :-1].numpy(), mean[:-1].numpy())
        np.testing.assert_allclose(z[:-1].numpy() + np.eye(7)[0] * z[-1].item(), single, atol=1e-8)

    def test_eigenvalues_count_as_rounding_by_the_precision_of_the_kernel(self):
        """1e-7 of the largest is noise in float32, and none in float64."""
        Q = torch.linalg.qr(torch.from_numpy(np.random.default_rng(2).standard_normal((4, 4)))).Q
        K = Q @ torch.diag(torch.tensor([1, 0.5, 0.1, 1e-7], dtype=torch.float64)) @ Q.T
        K = (K + K.T) / 2
        delta = torch.ones(4, dtype=torch.float64)
        fine = preqn.solve(K, delta, solver="minimum-norm", jitter=0)
        coarse = preqn.solve(K.float(), delta.float(), solver="minimum-norm", jitter=0)
        np.testing.assert_allclose((K @ fine).numpy(), 1, rtol=1e-6)
        assert coarse.dtype == torch.float32
        want = np.linalg.pinv(K.numpy(), rcond=1e-3) @ delta.numpy()
        np.testing.assert_allclose(coarse.numpy(), want, rtol=1e-4, atol=1e-4)
        assert fine.norm() > 1e3 * coarse.norm()

    @pytest.mark.parametrize("jitter", [1e-4, 1e-2, 3])
    def test_jitter_is_in_units_of_the_mean_diagonal(self, jitter):
        K, delta = kernel(8)
        ridged = 7 * K.numpy() + jitter * 7 * np.trace(K.numpy()) / 8 * np.eye(8)
        z = preqn.solve(7 * K, delta, solver="cholesky", jitter=jitter)
        np.testing.assert_allclose(z.numpy(), np.linalg.solve(ridged, delta.numpy()), rtol=1e-8, atol=1e-10)

    @pytest.mark.parametrize("rank", [6, 8])
    def test_jitter_trades_residual_for_length(self, rank):
        """More of it: a shorter z that leaves more undone, monotonically."""
        K, delta = kernel(rank)
        zs = [preqn.solve(K, delta, solver="cholesky", jitter=jitter) for jitter in 10.0 ** np.arange(-6, 3)]
        residuals, lengths = [(K @ z - delta).norm().item() for z in zs], [z.norm().item() for z in zs]
        assert (np.diff(residuals) > 0).all() and (np.diff(lengths) < 0).all()
        assert lengths[0] > 10 * lengths[-1]

    def test_cholesky_gives_way(self):
        """An indefinite matrix has no Cholesky factor: then what is positive is used, and nothing raises."""
        K, delta = kernel(8)
        eigenvalues, V = np.linalg.eigh(K.numpy())
        eigenvalues[:2] = [-0.5, -0.1]
        indefinite = torch.from_numpy((V * eigenvalues) @ V.T)
        with pytest.raises(np.linalg.LinAlgError):
            np.linalg.cholesky(indefinite.numpy())
        z = preqn.solve(indefinite, delta, solver="cholesky", jitter=1e-6)
        want = V[:, 2:] @ ((V[:, 2:].T @ delta.numpy()) / eigenvalues[2:])
        np.testing.assert_allclose(z.numpy(), want, rtol=1e-8, atol=1e-10)

    def test_a_kernel_of_zeros_moves_nothing(self):
        for solver in ("cholesky", "minimum-norm"):
            z = preqn.solve(torch.zeros(3, 3), torch.ones(3), solver=solver, jitter=1e-4)
            assert torch.equal(z, torch.zeros(3))

    @pytest.mark.parametrize("solver", ["cholesky", "minimum-norm"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("where", ["diagonal", "corner", "everywhere", "delta"])
    def test_what_is_not_finite_is_passed_on(self, solver, dtype, bad, where):
        K, delta = kernel(8)[0].to(dtype), kernel(8)[1].to(dtype)
        if where == "delta":
            delta[3] = bad
        else:
            rows = {"diagonal": ([2], [2]), "corner": ([0, 7], [7, 0]), "everywhere": (slice(None),)}[where]
            K[rows] = bad
        z = preqn.solve(K, delta, solver=solver, jitter=1e-4)
        assert z.shape == (8,) and z.dtype == dtype
        assert not torch.isfinite(z).all()

    def test_none_leaves_the_kernel_alone(self):
        K, delta = kernel(8)
        z = preqn.solve(K, delta, solver="none", jitter=1e-4)
        np.testing.assert_array_equal(z.numpy(), delta.numpy() / 8)

    def test_the_arguments_stay_as_they_are(self):
        K, delta = kernel(6)
        kept = K.clone(), delta.clone()
        for solver in preqn.SOLVERS:
            preqn.solve(K, delta, solver=solver, jitter=0.1)
        assert torch.equal(K, kept[0]) and torch.equal(delta, kept[1])

    @pytest.mark.parametrize("bad", ["kernel", "delta"])
    def test_none_does_not_look_at_the_kernel(self, bad):
        K, delta = kernel(8)
        (K if bad == "kernel" else delta)[0] = torch.nan
        assert bool(torch.isfinite(preqn.solve(K, delta, solver="none", jitter=0)).all()) == (bad == "kernel")

    def test_refuses(self):
        with refuses(ValueError, "solver must be one of 'cholesky', 'minimum-norm', 'none', got 'lstsq'"):
            preqn.solve(*kernel(8), solver="lstsq", jitter=0)
        for solver in preqn.SOLVERS:
            for jitter in (-0.5, np.nan, np.inf):
                with refuses(ValueError, f"jitter must be in [0, inf), got {jitter}"):
                    preqn.solve(*kernel(8), solver=solver, jitter=jitter)


def careless(source):
    """Return the lines of calls of torch's `lstsq` that do not name a driver."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] == "lstsq"
        and ast.unparse(node.func).partition(".")[0] not in ("np", "numpy", "scipy")
        and "driver" not in [keyword.arg for keyword in node.keywords]
    ]


class TestLeastSquaresOfTorch:
    """Its default driver is wrong on singular kernels in some releases: nothing calls it without naming another."""

    def test_nowhere(self):
        files = sorted(Path(divergence_notes.__file__).parent.rglob("*.py"))
        assert "preqn.py" in [file.name for file in files]
        assert {file.name: careless(file.read_text()) for file in files if careless(file.read_text())} == {}

    @pytest.mark.parametrize(
        ("source", "lines"),
        [
            ("x\ntorch.linalg.lstsq(A, b)", [2]),
            ("lstsq(A, b).solution", [1]),
            ("torch.linalg.lstsq(A, b, driver='gelsd')", []),
            ("np.linalg.lstsq(A, b)", []),
        ],
    )
    def test_the_search_finds(self, source, lines):
        assert careless(source) == lines


ACTIVATIONS = ("relu", "tanh", "sin")
SMOOTH = ("tanh", "sin")
ALPHAS = 10.0 ** np.linspace(-3, -1, 9)


class TestStep:
    """eq-preqn-step: to first order, every value of the batch changes by alpha times its TD error."""

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("alpha", [0.1, 1.0])
    def test_the_batch_does_what_it_was_asked_to(self, activation, alpha):
        net, x, delta = case(activation)
        way = preqn.direction(ntk.linearize(net, x), delta, solver="minimum-norm")
        change = alpha * jacobian(net, x) @ flat(way.slopes)
        torch.testing.assert_close(change, alpha * delta, rtol=1e-6, atol=1e-6)
        assert way.residual < 1e-6

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_a_transition_drawn_twice(self, activation):
        """With two targets: delta is projected on the range of K, which puts their mean in the place of both."""
        net, x, delta = case(activation, duplicate=True)
        J = jacobian(net, x)
        way = preqn.direction(ntk.linearize(net, x), delta, solver="minimum-norm")
        mean = delta.clone()
        mean[[0, -1]] = delta[[0, -1]].mean()
        U, s, _ = np.linalg.svd(J.numpy(), full_matrices=False)
        U = U[:, s > 1e-9 * s[0]]
        assert U.shape == (32, 31)
        np.testing.assert_allclose(U @ (U.T @ delta.numpy()), mean.numpy(), atol=1e-8)
        torch.testing.assert_close(J @ flat(way.slopes), mean, rtol=1e-6, atol=1e-6)
        assert abs(delta[0] - delta[-1]) > 0.1  # not vacuous
        assert way.residual == pytest.approx(((mean - delta).norm() / delta.norm()).item(), rel=1e-6)

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_no_shorter_step_does_it(self, activation):
        net, x, delta = case(activation)
        way = preqn.direction(ntk.linearize(net, x), delta, solver="minimum-norm")
        shortest = np.linalg.lstsq(jacobian(net, x).numpy(), delta.numpy(), rcond=None)[0]
        np.testing.assert_allclose(flat(way.slopes).numpy(), shortest, atol=1e-6)
        assert way.length == pytest.approx(np.linalg.norm(shortest), rel=1e-6)

    @pytest.mark.parametrize("solver", preqn.SOLVERS)
    def test_every_solver_pulls_its_weights_back(self, solver):
        net, x, delta = case("tanh")
        J = jacobian(net, x)
        way = preqn.direction(ntk.linearize(net, x), delta, solver=solver, jitter=1e-2)
        torch.testing.assert_close(flat(way.slopes), J.T @ way.z, rtol=1e-9, atol=1e-9)
        left = J @ (J.T @ way.z) - delta
        assert way.residual == pytest.approx((left.norm() / delta.norm()).item(), rel=1e-7, abs=1e-7)
        assert [slope.shape for slope in way.slopes] == [p.shape for p in net.parameters()]

    def test_more_rows_than_a_tile(self):
        net, x, delta = case("relu", n=preqn.TILE + 30)
        way = preqn.direction(ntk.linearize(net, x), delta, solver="cholesky", jitter=1e-3)
        K = (jacobian(net, x) @ jacobian(net, x).T).numpy()
        want = np.linalg.solve(K + 1e-3 * np.trace(K) / len(K) * np.eye(len(K)), delta.numpy())
        np.testing.assert_allclose(way.z.numpy(), want, rtol=1e-6, atol=1e-9)

    def test_nothing_asked_nothing_left(self):
        net, x, delta = case("tanh")
        way = preqn.direction(ntk.linearize(net, x), 0 * delta)
        assert way.residual == 0.0 and way.length == 0.0

    @pytest.mark.parametrize("activation", SMOOTH)
    def test_second_order(self, activation):
        """|Q' - Q - alpha delta| / |delta| falls like alpha^2."""
        net, x, delta = case(activation)
        way = preqn.direction(ntk.linearize(net, x), delta, solver="minimum-norm")
        left = []
        for alpha in ALPHAS:
            change = networks.values(moved(net, way.slopes, alpha), x) - networks.values(net, x)
            left.append(np.linalg.norm(change - alpha * delta.numpy()) / delta.norm().item())
        assert 1.9 < np.polyfit(np.log(ALPHAS), np.log(left), 1)[0] < 2.1

    @pytest.mark.parametrize("fault", [0.99, "none"])
    def test_a_step_of_another_length_is_of_first_order(self, fault):
        """Negative control: one percent too short, or not preconditioned."""
        net, x, delta = case("tanh")
        solver, factor = ("none", 1.0) if fault == "none" else ("minimum-norm", fault)
        way = preqn.direction(ntk.linearize(net, x), delta, solver=solver)
        alphas, left = ALPHAS / 100, []
        for alpha in alphas:
            change = networks.values(moved(net, way.slopes, factor * alpha), x) - networks.values(net, x)
            left.append(np.linalg.norm(change - alpha * delta.numpy()))
        assert np.polyfit(np.log(alphas), np.log(left), 1)[0] < 1.5

    @pytest.mark.parametrize("activation", SMOOTH)
    def test_off_the_batch(self, activation):
        """Q'_o - Q_o = alpha K_oB K_BB^-1 delta, up to second order."""
        net, x, delta = case(activation)
        other = torch.randn(20, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        J, H = jacobian(net, x).numpy(), jacobian(net, other).numpy()
        spill = (H @ J.T) @ np.linalg.solve(J @ J.T, delta.numpy())
        way = preqn.direction(ntk.linearize(net, x), delta, solver="minimum-norm")
        left = []
        for alpha in ALPHAS:
            change = networks.values(moved(net, way.slopes, alpha), other) - networks.values(net, other)
            left.append(np.linalg.norm(change - alpha * spill))
        assert np.linalg.norm(spill) > 0.1
        assert 1.9 < np.polyfit(np.log(ALPHAS), np.log(left), 1)[0] < 2.1

    def test_the_chosen_outputs(self):
        g = torch.Generator().manual_seed(0)
        net = networks.MLP((3, 32, 4), activation="sin", generator=g, dtype=torch.float64)
        x, delta = torch.randn(10, 3, generator=g).double(), torch.randn(10, generator=g).double()
        outputs = torch.arange(10) % 4
        way = preqn.direction(ntk.linearize(net, x, outputs=outputs), delta, solver="minimum-norm")
        torch.testing.assert_close(jacobian(net, x, outputs) @ flat(way.slopes), delta, rtol=1e-6, atol=1e-6)


class Recorded(nn.Module):
    """A network that notes the parameters of each call."""

    def __init__(self, net):
        super().__init__()
        self.net, self.seen = net, []

    def forward(self, x):
        self.seen.append(parameters(self.net))
        return self.net(x)


SEARCH = {"alpha": 8.0, "eta": 0.97, "shrink": 0.5, "max_backtracks": 12}


def search(activation="sin", *, scale=1.0, n=20, watched=None, **changes):
    """Return a recorded network, its parameters before, the slopes, and what the line search did to it."""
    net, x, delta = case(activation, n=n)
    slopes = [scale * s for s in preqn.direction(ntk.linearize(net, x), delta, solver="minimum-norm").slopes]
    x = x if watched is None else torch.cat([x, watched])
    values = net(x).detach()[:, 0]
    recorded, before = Recorded(net), parameters(net)
    step = preqn.line_search(recorded, x, values, delta, slopes, **SEARCH | changes)
    return recorded, before, flat(slopes), step


def looped_search(activation, *, scale=1.0, n=20, alpha, eta, shrink, max_backtracks):
    """Return size, backtracks and cosine by trying copies, one after another."""
    net, x, delta = case(activation, n=n)
    slopes = preqn.direction(ntk.linearize(net, x), delta, solver="minimum-norm").slopes
    size, before = alpha, networks.values(net, x)
    for k in range(max_backtracks + 1):
        change = networks.values(moved(net, slopes, scale * size), x) - before
        cosine = diagnostics.alignment(change, delta.numpy())
        if cosine >= eta:
            return size, k, cosine, change
        size *= shrink
    return 0.0, max_backtracks, cosine, np.zeros(n)


class TestLineSearch:
    """eq-preqn-accept: the first alpha, alpha shrink, alpha shrink^2, ... whose change makes the cosine eta."""

    def test_accepts_the_first(self):
        recorded, before, slopes, step = search(alpha=2.0**-8)
        assert (step.alpha, step.backtracks) == (2.0**-8, 0)
        assert step.alignment > 0.97 and len(recorded.seen) == 1
        assert torch.equal(parameters(recorded.net), before + 2.0**-8 * slopes)

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("eta", [-0.5, 0.5, 0.9, 0.97, 0.999, 1.0])
    @pytest.mark.parametrize("shrink", [0.5, 0.7])
    def test_against_a_loop(self, activation, eta, shrink):
        changes = SEARCH | {"eta": eta, "shrink": shrink}
        recorded, _, _, step = search(activation, **changes)
        size, backtracks, cosine, change = looped_search(activation, **changes)
        assert (step.alpha, step.backtracks) == (pytest.approx(size, rel=1e-12), backtracks)
        assert step.alignment == pytest.approx(cosine, abs=1e-9)
        np.testing.assert_allclose(step.change.numpy(), change, rtol=1e-6, atol=1e-9)
        assert len(recorded.seen) == backtracks + 1

    def test_backtracks_geometrically(self):
        """Each trial starts from the origin, to the last bit: powers of two make both sides exact."""
        recorded, before, slopes, step = search()
        assert step.backtracks >= 3  # not vacuous
        for k, seen in enumerate(recorded.seen):
            assert torch.equal(seen, before + 8.0 * 0.5**k * slopes)
        assert step.alpha == 8.0 * 0.5**step.backtracks
        assert torch.equal(parameters(recorded.net), before + step.alpha * slopes)

    @pytest.mark.parametrize("max_backtracks", [0, 1, 5])
    def test_restores_to_the_last_bit(self, max_backtracks):
        """Downhill: no size makes the cosine positive."""
        recorded, before, _, step = search(scale=-1.0, alpha=0.1, max_backtracks=max_backtracks)
        assert len(recorded.seen) == max_backtracks + 1
        assert torch.equal(parameters(recorded.net), before)
        assert (step.alpha, step.backtracks) == (0.0, max_backtracks)
        assert step.alignment < -0.5
        assert torch.equal(step.change, torch.zeros(20, dtype=torch.float64))

    def test_any_finite_step(self):
        """eta = -1, uphill or down."""
        for scale in (1.0, -1.0, 1e3):
            recorded, before, slopes, step = search(scale=scale, eta=-1)
            assert (step.alpha, step.backtracks) == (8.0, 0)
            assert torch.equal(parameters(recorded.net), before + 8.0 * slopes)

    @pytest.mark.parametrize("eta", [0.97, -1])
    @pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e308])
    def test_no_step_that_is_not_finite(self, eta, bad):
        """Values of nan, from slopes of nan or through a sum that overflows."""
        recorded, before, _, step = search("relu", scale=bad, eta=eta, max_backtracks=2)
        assert torch.equal(parameters(recorded.net), before)
        assert step.alpha == 0.0 and np.isnan(step.alignment)
        assert torch.equal(step.change, torch.zeros(20, dtype=torch.float64))

    def test_what_is_watched_is_not_judged(self):
        """More rows change nothing of the step; their change is told."""
        plain = search()
        watched = 5 * torch.randn(30, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        recorded, _, _, step = search(watched=watched)
        assert (step.alpha, step.backtracks) == (plain[3].alpha, plain[3].backtracks)
        assert step.alignment == pytest.approx(plain[3].alignment, abs=1e-12)
        assert torch.equal(parameters(recorded.net), parameters(plain[0].net))
        net, x, delta = case("sin", n=20)
        x = torch.cat([x, watched])
        want = networks.values(recorded.net, x) - networks.values(net, x)
        np.testing.assert_allclose(step.change.numpy(), want, atol=1e-12)
        both = torch.cat([delta, torch.zeros(30, dtype=torch.float64)]).numpy()
        assert diagnostics.alignment(want, both) < 0.9 < step.alignment  # judged together, it would have been rejected

    @pytest.mark.parametrize(("eta", "size"), [(0.97, 0.0), (1e-9, 0.0), (0.0, 8.0), (-1, 8.0)])
    def test_no_td_error_has_no_direction(self, eta, size):
        net, x, delta = case("tanh", n=5)
        before, values = parameters(net), net(x).detach()[:, 0]
        slopes = [torch.ones_like(p) for p in net.parameters()]
        step = preqn.line_search(net, x, values, 0 * delta, slopes, **SEARCH | {"eta": eta})
        assert (step.alpha, step.alignment) == (size, 0.0)
        assert torch.equal(parameters(net), before + size)

    def test_no_change_has_no_direction(self):
        _, _, _, step = search(scale=0.0)
        assert (step.alpha, step.alignment) == (0.0, 0.0)

    def test_tiny_and_huge_changes_have_a_direction(self):
        """In float32: squares of 1e-30 vanish, squares of 1e30 overflow."""
        for size in (1e-30, 1e30):
            net = networks.MLP((1, 1), activation="relu", generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                net[0].weight.zero_()
                net[0].bias.zero_()
            delta = torch.full((3,), size)
            slopes = [torch.zeros(1, 1), torch.full((1,), size)]
            step = preqn.line_search(net, torch.ones(3, 1), torch.zeros(3), delta, slopes, **SEARCH | {"alpha": 0.5})
            assert step.alpha == 0.5 and step.alignment == pytest.approx(1)

    @pytest.mark.parametrize("outputs", [2, torch.tensor([0, 1, 3, 2, 3])])
    def test_the_chosen_outputs(self, outputs):
        g = torch.Generator().manual_seed(0)
        net = networks.MLP((3, 8, 4), activation="sin", generator=g)
        x, delta = torch.randn(5, 3, generator=g), torch.randn(5, generator=g)
        linear = ntk.linearize(net, x, outputs=outputs)
        way, old = preqn.direction(linear, delta), net(x).detach()
        step = preqn.line_search(net, x, linear.values, delta, way.slopes, outputs=outputs, **SEARCH | {"alpha": 0.01})
        chosen = [outputs] * 5 if isinstance(outputs, int) else outputs.tolist()
        want = [(net(x)[k, j] - old[k, j]).item() for k, j in enumerate(chosen)]
        assert step.alpha > 0
        np.testing.assert_allclose(step.change.numpy(), want, atol=1e-6)

    @pytest.mark.parametrize(
        ("outputs", "message"),
        [
            (None, "outputs must say which of the 4 outputs of net is meant"),
            (4, "outputs must hold indices in [0, 3]: outputs[0] is 4"),
            (-1, "outputs must hold indices in [0, 3]: outputs[0] is -1"),
            (torch.tensor([0, 1, 3, 2]), "outputs must have shape (5,), got (4,)"),
        ],
    )
    def test_refuses_outputs_as_a_kernel_does(self, outputs, message):
        net = networks.MLP((3, 8, 4), activation="sin", generator=torch.Generator().manual_seed(0))
        before, x = parameters(net), torch.ones(5, 3)
        slopes = [torch.ones_like(p) for p in net.parameters()]
        with refuses(ValueError, message):
            ntk.gram(net, x, outputs=outputs)
        with refuses(ValueError, message):
            preqn.line_search(net, x, net(x)[:, 0], torch.ones(5), slopes, outputs=outputs, **SEARCH)
        assert torch.equal(parameters(net), before)

    def test_restores_where_the_network_raises(self):
        net, x, delta = case("tanh", n=5)
        before, slopes = parameters(net), [torch.ones_like(p) for p in net.parameters()]
        with pytest.raises(RuntimeError):
            preqn.line_search(net, x[:, 1:], delta, delta, slopes, **SEARCH)
        assert torch.equal(parameters(net), before)

    def test_frozen_parameters_stay(self):
        net, x, delta = case("tanh", n=5)
        net[0].weight.requires_grad_(False)
        frozen, linear = net[0].weight.clone(), ntk.linearize(net, x)
        way = preqn.direction(linear, delta)
        assert preqn.line_search(net, x, linear.values, delta, way.slopes, **SEARCH | {"alpha": 0.01}).alpha > 0
        assert torch.equal(net[0].weight, frozen)


class Plain:
    """The update of an agent in float64: one transition after another, explicit Jacobians, numpy; faults on request."""

    def __init__(self, agent, *, fault=None):
        self.config, self.fault = agent.config, fault
        self.net, self.policy = copy.deepcopy(agent.net).double(), None
        if agent.policy is not None:
            self.policy = copy.deepcopy(agent.policy).double()
            self.adam = torch.optim.Adam(self.policy.parameters(), lr=self.config.policy_learning_rate)
        self.adam_q = torch.optim.Adam(self.net.parameters(), lr=self.config.alpha)
        self.behind, self.updates = copy.deepcopy([self.net, self.policy]), 0

    def pair(self, obs, action):
        """Return the input of Q at an observation and an action in its own units."""
        if self.policy is None:
            return obs
        unit = [2 * (a - low) / (high - low) - 1 for a, low, high in zip(action.tolist(), LOW, HIGH, strict=True)]
        unit = action.tolist() if self.fault == "unit" else unit
        return torch.cat([obs.double(), torch.tensor(unit).double()])

    def best(self, obs, behind=False):
        """Return the value of the policy's action, by the networks or by those behind them."""
        obs = obs.double()
        net, policy = self.behind if behind and self.config.target_rate < 1 else (self.net, self.policy)
        if self.policy is None:
            values = net(obs[None])[0]
            return values.mean() if self.fault == "mean" else values.max()
        policy = self.policy if self.fault == "policy ahead" else policy
        mu = policy(obs[None])[0]
        return net(torch.cat([obs, mu if self.fault == "tanh" else mu.tanh()])[None])[0, 0]

    def follow(self):
        for behind, ahead in zip(self.behind, (self.net, self.policy), strict=True):
            if ahead is not None:
                x, y = parameters(behind), parameters(ahead)
                nn.utils.vector_to_parameters(x + self.config.target_rate * (y - x), behind.parameters())

    def climb(self, obs):
        self.adam.zero_grad()
        values = torch.stack([self.best(row) for row in obs])
        loss = -(values.sum() if self.fault == "sum" else values.mean())
        (-loss if self.fault == "down" else loss).backward()
        self.adam.step()

    def update(self, batch):
        """Return the metrics."""
        config, m = self.config, len(batch.reward)
        n = watched = m - config.held_out
        if self.fault == "held out":
            n = m
        delta, x = [], torch.stack([self.pair(batch.obs[k], batch.action[k]).double() for k in range(m)])
        outputs = batch.action.tolist() if self.policy is None else [0] * m
        for k in range(m):
            follows = not batch.terminated[k] or self.fault == "ends"
            see = batch.obs[k] if self.fault == "obs" else batch.next_obs[k]
            target = batch.reward[k].item() + (
                config.gamma * self.best(see, self.fault != "ahead").item() if follows else 0.0
            )
            delta.append(target - self.net(x[k : k + 1])[0, outputs[k]].item())
        delta = np.array(delta)
        values = np.array([self.net(x[k : k + 1])[0, outputs[k]].item() for k in range(m)])
        if self.fault == "policy first" and self.policy is not None:
            self.climb(batch.obs[:n])
        J = jacobian(self.net, x[:n], outputs).numpy()
        K = J @ J.T
        z = np.linalg.solve(K + config.jitter * np.trace(K) / n * np.eye(n), delta[:n])
        if (config.solver == "none") != (self.fault == "kernel"):
            z = delta[:n] / n
        origin = parameters(self.net)
        for tried in range(config.max_backtracks + 1):
            size = config.alpha * config.shrink**tried
            if config.optimizer == "none" or self.fault == "plain":
                nn.utils.vector_to_parameters(origin + size * torch.from_numpy(J.T @ z), self.net.parameters())
            else:
                self.net.zero_grad()
                rows = range(len(delta[:n]))
                errors = [self.net(x[k : k + 1])[0, outputs[k]] - delta[k] - values[k] for k in rows]
                (torch.stack(errors).square().mean() / 2).backward()
                self.adam_q.step()
            change = np.array([self.net(x[k : k + 1])[0, outputs[k]].item() for k in range(m)]) - values
            cosine = diagnostics.alignment(change[:n], delta[:n])
            if cosine >= config.eta:
                break
        else:
            nn.utils.vector_to_parameters(origin, self.net.parameters())
            size, change = 0.0, 0 * change
        self.updates += 1
        due = self.updates % config.policy_every == 0 or self.fault == "every"
        if self.policy is not None and self.fault != "policy first" and due:
            self.climb(batch.obs[:n])
        self.follow()
        rms = [np.sqrt(np.mean(a**2)) for a in (delta[:n], change[watched:], change[:n])]
        return {
            "alignment": cosine,
            "accepted": size,
            "backtracks": tried,
            "residual": np.linalg.norm(K @ z - delta[:n]) / np.linalg.norm(delta[:n]),
            "td_error": rms[0],
            "off_alignment": diagnostics.alignment(change[watched:], delta[watched:]) if size else 0.0,
            "off_change": rms[1] / rms[2] if size else 0.0,
            "max_q": max(np.abs(values).max(), np.abs(values + change).max()),
        }

    def differs(self, agent):
        """Return the largest difference between the parameters of the two."""
        pairs = [(self.net, agent.net)] + ([] if self.policy is None else [(self.policy, agent.policy)])
        return max((parameters(a) - parameters(b).double()).abs().max().item() for a, b in pairs)


FAULTS = {
    "continuous": ["ends", "obs", "unit", "tanh", "kernel", "policy first", "down", "held out"],
    "discrete": ["ends", "obs", "mean", "kernel", "held out"],
}
CONTROLS = {
    "adam": {"solver": "none", "optimizer": "adam", "eta": -1, "alpha": 0.01},
    "target": {"solver": "none", "eta": -1, "alpha": 0.1, "target_rate": 0.2, "policy_learning_rate": 0.02},
    "every": {"policy_every": 2, "policy_learning_rate": 0.02},
}
CONTROL_FAULTS = [
    ("continuous", "adam", "plain"),
    ("discrete", "adam", "plain"),
    ("continuous", "target", "ahead"),
    ("continuous", "target", "policy ahead"),
    ("discrete", "target", "ahead"),
    ("continuous", "every", "every"),
]


class TestUpdateOfPreQN:
    """One update: a preconditioned step of Q along the TD errors, then a step of Adam that raises Q at the policy."""

    # steps that are accepted at once, that are cut, and that are rejected
    SETTINGS = ({"alpha": 0.02}, {"alpha": 4.0}, {"eta": 1.0, "max_backtracks": 2})

    @both_kinds
    @pytest.mark.parametrize("changes", SETTINGS, ids=["at once", "cut", "rejected"])
    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_against_a_loop(self, kind, changes, activation):
        agent = make(kind, activation=activation, policy_activation="tanh", **changes)
        plain, found, start = Plain(agent), [], parameters(agent.net)
        for k in range(4):
            found.append(agent.update(draw(kind, seed=k)))
            want = plain.update(draw(kind, seed=k))
            assert found[-1] == pytest.approx(want, rel=2e-3, abs=2e-4)
            assert plain.differs(agent) < 1e-4
        if kind == "continuous":  # Adam's step hides the scale of a slope, its moments do not
            for p, q in zip(agent.policy.parameters(), plain.policy.parameters(), strict=True):
                found_moment, moment = agent._optimizer.state[p]["exp_avg"].double(), plain.adam.state[q]["exp_avg"]
                torch.testing.assert_close(found_moment, moment, rtol=1e-2, atol=1e-5)
                assert moment.abs().max() > 1e-4
        assert agent.updates == 4
        assert all(isinstance(x, float) for x in found[0].values())
        cut, accepted = max(m["backtracks"] for m in found), [m["accepted"] for m in found]
        if changes.get("alpha") == 0.02:
            assert cut == 0 and accepted == [0.02] * 4
        elif "eta" in changes:
            assert cut == 2 and not any(accepted)
            assert torch.equal(start, parameters(agent.net))
        else:
            assert cut > 0 and all(accepted)

    @pytest.mark.parametrize(("kind", "fault"), [(kind, fault) for kind in FAULTS for fault in FAULTS[kind]])
    def test_faults_are_caught(self, kind, fault):
        agent = make(kind, policy_activation="tanh")
        plain = Plain(agent, fault=fault)
        for k in range(4):
            agent.update(draw(kind, seed=k))
            plain.update(draw(kind, seed=k))
        assert plain.differs(agent) > 1e-3

    @both_kinds
    @pytest.mark.parametrize("control", CONTROLS)
    @pytest.mark.parametrize("activation", ["relu", "sin"])
    def test_controls_against_a_loop(self, kind, control, activation):
        agent = make(kind, activation=activation, policy_activation="tanh", **CONTROLS[control])
        plain = Plain(agent)
        for k in range(5):
            found, want = agent.update(draw(kind, seed=k)), plain.update(draw(kind, seed=k))
            assert found == pytest.approx(want, rel=2e-3, abs=2e-4)
            assert plain.differs(agent) < 1e-4

    @pytest.mark.parametrize(("kind", "control", "fault"), CONTROL_FAULTS)
    def test_faults_of_controls_are_caught(self, kind, control, fault):
        agent = make(kind, policy_activation="tanh", **CONTROLS[control])
        plain = Plain(agent, fault=fault)
        for k in range(5):
            agent.update(draw(kind, seed=k))
            plain.update(draw(kind, seed=k))
        assert plain.differs(agent) > 1e-3

    def test_at_rate_one_there_is_no_target_network(self):
        agent = make("continuous")
        assert agent._target == (agent.net, agent.policy)
        assert set(agent._parts()) == {"net", "policy", "optimizer"}

    def test_first_weights(self):
        """Glorot's bound and no biases; the policy's last layer, and it alone, in units of what was drawn."""
        plain, glorot, small = (
            make("continuous"),
            make("continuous", initialisation="glorot"),
            make("continuous", policy_scale=0.01),
        )
        for net in (glorot.net, glorot.policy):
            for layer in list(net)[::2]:
                bound = (6 / sum(layer.weight.shape)) ** 0.5
                assert 0.7 * bound < layer.weight.abs().max() <= bound
                assert not layer.bias.any()
        assert torch.equal(parameters(plain.net), parameters(small.net))
        assert torch.equal(parameters(plain.policy[0]), parameters(small.policy[0]))
        torch.testing.assert_close(parameters(small.policy[-1]), 0.01 * parameters(plain.policy[-1]))

    @both_kinds
    @pytest.mark.parametrize("ends", [True, False])
    def test_td_error(self, kind, ends):
        """Where the process ended the reward is all; where a time limit cut it, `terminated` is False: it goes on."""
        agent, batch = make(kind), draw(kind)
        batch = dataclasses.replace(batch, terminated=torch.full((16,), ends))
        plain, errors = Plain(agent), []
        for k in range(12):
            follows = 0.0 if ends else 0.9 * plain.best(batch.next_obs[k]).item()
            output = int(batch.action[k]) if kind == "discrete" else 0
            value = plain.net(plain.pair(batch.obs[k], batch.action[k]).double()[None])[0, output].item()
            errors.append(batch.reward[k].item() + follows - value)
        want = np.sqrt(np.mean(np.square(errors)))
        assert agent.update(batch)["td_error"] == pytest.approx(want, rel=1e-5)

    @both_kinds
    def test_what_is_held_out_is_only_watched(self, kind):
        """Other rows, or the same in another order, in the place of the last ones: the same agent to the last bit."""
        agents, metrics = [make(kind) for _ in range(3)], []
        for k in range(3):
            batch, other = draw(kind, seed=k), draw(kind, seed=99)
            rows = {name: getattr(batch, name) for name in ("obs", "action", "reward", "next_obs", "terminated")}
            order = torch.tensor([*range(12), 14, 15, 13, 12])
            shuffled = replay.Batch(**{name: row[order] for name, row in rows.items()})
            replaced = replay.Batch(
                **{name: torch.cat([row[:12], getattr(other, name)[12:]]) for name, row in rows.items()}
            )
            metrics = [agent.update(b) for agent, b in zip(agents, (batch, shuffled, replaced), strict=True)]
        assert all(state_equal(state(agent), state(agents[0])) for agent in agents[1:])
        watched = ("off_alignment", "off_change", "max_q")
        for name in metrics[0].keys() - set(watched):
            assert metrics[0][name] == metrics[1][name] == metrics[2][name]
        for name in watched[:2]:
            assert metrics[0][name] == pytest.approx(metrics[1][name], rel=1e-4)
            assert metrics[0][name] != pytest.approx(metrics[2][name], rel=1e-2)

    @both_kinds
    def test_the_batch_is_only_read(self, kind):
        agent, batch = make(kind), draw(kind)
        kept = copy.deepcopy(batch)
        agent.update(batch)
        assert all(torch.equal(getattr(batch, f.name), getattr(kept, f.name)) for f in dataclasses.fields(batch))

    @both_kinds
    def test_too_short(self, kind):
        with refuses(ValueError, "batch must be longer than held_out = 4, got 4"):
            make(kind).update(draw(kind, n=4))
        assert make(kind).update(draw(kind, n=5))["accepted"] >= 0

    def test_the_policy_climbs(self):
        """With Q held still, by rejecting every step, the mean of Q at its actions goes up."""
        agent = make("continuous", eta=1, max_backtracks=0, policy_learning_rate=0.01)
        batch, means, q = draw("continuous"), [], parameters(agent.net)
        for _ in range(30):
            means.append(torch.stack([Plain(agent).best(row) for row in batch.obs[:12]]).mean().item())
            assert agent.update(batch)["accepted"] == 0
        assert torch.equal(parameters(agent.net), q)
        assert means[-1] > means[0] + 0.05
        assert (np.diff(means) > 0).mean() > 0.9


BOXES = [(-2.3, 1.1), (1 / 3, 2 / 3), (-0.05, 0.35), (-0.1, 0.3), (0.2, 1.7), (-1.9, 0.6)]
"""Ranges whose middle or half no number of single precision is."""


class TestActOfPreQN:
    """The policy's action in the box, or the best one; while exploring with noise in units of half a range."""

    def test_continuous(self, rng):
        """Both ends of a range that is not symmetric."""
        agent = make("continuous")
        with torch.no_grad():
            for p in agent.policy.parameters():
                p *= 3
        seen = []
        for obs in 3 * rng.standard_normal((50, 3)):
            mu = agent.policy(torch.tensor(obs, dtype=torch.float32)[None])[0].detach().double().numpy()
            want = [low + (high - low) * (np.tanh(m) + 1) / 2 for low, high, m in zip(LOW, HIGH, mu, strict=True)]
            found = agent.act(obs)
            assert isinstance(found, np.ndarray) and found.dtype == np.float32
            np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
            seen.append(found)
        assert SPACES["continuous"].contains(seen[0])
        assert (np.ptp(seen, axis=0) > 0.4 * (HIGH - LOW)).all()

    def test_discrete(self, rng):
        agent = make("discrete")
        for obs in rng.standard_normal((20, 3)):
            q = agent.net(torch.tensor(obs, dtype=torch.float32)).tolist()
            found = agent.act(obs)
            assert isinstance(found, int)
            assert q[found] == max(q)

    def test_noise(self):
        agent = make("continuous", noise=0.05)
        mean = agent.act(np.ones(3))
        noise = np.array([(agent.act(np.ones(3), explore=True) - mean) / ((HIGH - LOW) / 2) for _ in range(4000)])
        np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.004)
        np.testing.assert_allclose(noise.std(axis=0), 0.05, rtol=0.05)
        assert abs(np.corrcoef(noise.T)[0, 1]) < 0.06
        assert abs(np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1]) < 0.06

    def test_noise_is_clipped(self):
        agent = make("continuous", noise=50)
        actions = np.array([agent.act(np.ones(3), explore=True) for _ in range(500)])
        assert (actions >= LOW).all() and (actions <= HIGH).all()
        for end in (LOW, HIGH):
            np.testing.assert_allclose((actions == end).mean(axis=0), 0.5, atol=0.1)

    @pytest.mark.parametrize("ends", BOXES)
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_rounding_leaves_no_action_outside(self, ends, dtype):
        space = Box(*(np.full(2, end, dtype=dtype) for end in ends), dtype=dtype)
        agent = preqn.PreQN(OBS, space, config(noise=1000.0))
        actions = np.array([agent.act(np.ones(3), explore=True) for _ in range(40)])
        assert all(space.contains(action) for action in actions)
        np.testing.assert_allclose([actions.min(), actions.max()], ends, rtol=1e-6)
        for bias, end in zip((-50.0, 50.0), ends, strict=True):
            with torch.no_grad():
                agent.policy[-1].bias.fill_(bias)
            action = agent.act(np.ones(3))
            assert space.contains(action)
            np.testing.assert_allclose(action, end, rtol=1e-6)

    @pytest.mark.parametrize("end", [1, 2])
    def test_ends_that_are_opposite_cost_no_bit(self, end, rng):
        agent = preqn.PreQN(OBS, Box(-end, end, shape=(2,)), config(noise=0.7))
        obs, twin = 3 * rng.standard_normal((50, 3)), np.random.default_rng(agent.config.seed)
        with torch.no_grad():
            want = torch.tanh(agent.policy(torch.tensor(obs, dtype=torch.float32)))
        noise = torch.from_numpy(twin.standard_normal((50, 2), dtype=np.float32))
        assert np.array_equal(agent.act(obs), end * want.numpy())
        assert np.array_equal(agent.act(obs, explore=True), end * (want + 0.7 * noise).clamp(-1, 1).numpy())

    def test_a_random_choice(self):
        """Among 4 actions the best one is taken by chance too: 1 - 3/4 epsilon of the time."""
        agent = make("discrete", noise=0.4)
        best = agent.act(np.ones(3))
        actions = np.array([agent.act(np.ones(3), explore=True) for _ in range(4000)])
        assert (actions == best).mean() == pytest.approx(0.7, abs=0.03)
        others = np.bincount(actions[actions != best], minlength=4) / (actions != best).sum()
        np.testing.assert_allclose(np.delete(others, best), 1 / 3, atol=0.05)

    @both_kinds
    def test_without_noise_exploring_is_nothing(self, kind, rng):
        agent = make(kind, noise=0)
        for obs in rng.standard_normal((20, 3)):
            assert np.array_equal(agent.act(obs, explore=True), agent.act(obs))

    @both_kinds
    def test_acting_greedily_moves_no_generator(self, kind):
        agents = [make(kind, noise=0.5) for _ in range(2)]
        for _ in range(5):
            assert np.array_equal(agents[0].act(np.ones(3)), agents[1].act(np.ones(3)))
            agents[0].act(np.ones(3))
        runs = [[agent.act(np.ones(3), explore=True) for _ in range(50)] for agent in agents]
        assert np.array_equal(*runs)

    @both_kinds
    def test_seed(self, kind):
        one, same, other = make(kind, noise=0.5), make(kind, noise=0.5), make(kind, noise=0.5, seed=2)
        runs = [[a.act(np.ones(3), explore=True) for _ in range(50)] for a in (one, same, other)]
        assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])
        assert torch.equal(parameters(one.net), parameters(same.net))
        assert not torch.equal(parameters(one.net), parameters(other.net))
        if kind == "continuous":
            assert torch.equal(parameters(one.policy), parameters(same.policy))
            assert not torch.equal(parameters(one.policy), parameters(other.policy))

    def test_a_box_in_double_precision(self):
        """Actions come and go in float32 all the same."""
        agent = preqn.PreQN(OBS, Box(LOW.astype(float), HIGH.astype(float), dtype=np.float64), config())
        assert agent.act(np.ones(3)).dtype == np.float32
        assert agent.update(draw("continuous")) == make("continuous").update(draw("continuous"))


def state(agent):
    """Return copies of all that an update changes."""
    tensors = [parameters(net) for net in (agent.net, agent.policy) if net is not None]
    if agent.config.target_rate < 1:
        tensors += [parameters(net) for net in agent._target if net is not None]
    for optimizer in (getattr(agent, "_optimizer", None), agent._adam):
        moments = {} if optimizer is None else optimizer.state_dict()["state"]
        tensors += [moments[k][name].clone() for k in moments for name in ("step", "exp_avg", "exp_avg_sq")]
    return agent.updates, tensors


def state_equal(a, b):
    return a[0] == b[0] and len(a[1]) == len(b[1]) and all(torch.equal(x, y) for x, y in zip(a[1], b[1], strict=True))


def ruin(kind, reward):
    """Return a batch with one reward out of all bounds."""
    batch = draw(kind, seed=7)
    batch.reward[3] = reward
    return batch


REWARDS = [1e30, -1e37, torch.inf, -torch.inf, torch.nan]


def taught(kind, updates, **changes):
    """Return an agent after so many updates, and its states before each of them and at the end."""
    agent = make(kind, **changes)
    states = [state(agent)]
    for k in range(updates):
        assert agent.update(draw(kind, seed=k))["max_q"] <= agent.config.bound
        states.append(state(agent))
    return agent, states


class TestDivergence:
    """Values out of bounds are a result: the agent is in its last good state, to the last bit, and `max_q` tells."""

    @both_kinds
    @pytest.mark.parametrize("updates", [0, 1, 9, 10, 13, 25])
    @pytest.mark.parametrize("eta", [0.97, -1])
    @pytest.mark.parametrize("reward", REWARDS)
    def test_goes_back(self, kind, updates, eta, reward):
        agent, states = taught(kind, updates, eta=eta)
        metrics = agent.update(ruin(kind, reward))
        assert metrics.keys() == {"max_q"} and metrics["max_q"] > agent.config.bound
        good = max(updates - 1, 0) // preqn.REMEMBER_EVERY * preqn.REMEMBER_EVERY  # the last that was looked at
        assert state_equal(state(agent), states[good])
        assert updates == good or not state_equal(states[updates], states[good])  # not vacuous

    @both_kinds
    @pytest.mark.parametrize("updates", [1, 2, 13])
    @pytest.mark.parametrize("control", CONTROLS)
    def test_controls_go_back(self, kind, updates, control):
        """Their moments and the networks behind too, where one optimiser has moments and the other none as well."""
        agent, states = taught(kind, updates, **CONTROLS[control] | {"policy_every": 3})
        agent.update(ruin(kind, torch.inf))
        assert state_equal(state(agent), states[updates // 10 * 10])
        for k in range(updates // 10 * 10, updates):
            agent.update(draw(kind, seed=k))
            assert state_equal(state(agent), states[k + 1])

    @both_kinds
    @pytest.mark.parametrize("updates", [3, 13])
    def test_goes_on_from_there(self, kind, updates):
        """What it learns afterwards is what it learned the first time; and it can go back again."""
        agent, states = taught(kind, updates)
        good = updates // 10 * 10
        for _ in range(2):
            agent.update(ruin(kind, torch.inf))
            assert state_equal(state(agent), states[good])
            for k in range(good, updates):
                agent.update(draw(kind, seed=k))
                assert state_equal(state(agent), states[k + 1])

    @both_kinds
    def test_a_step_beyond_the_bound_is_taken_back(self, kind):
        """The values before it are fine, and those after it are not."""
        agent, states = taught(kind, 12, eta=-1, bound=20)
        batch = draw(kind, seed=50)
        batch = dataclasses.replace(batch, reward=torch.full_like(batch.reward, 15.0))
        agent.config = dataclasses.replace(agent.config, alpha=1e3)
        assert agent.update(batch)["max_q"] > 20
        assert state_equal(state(agent), states[10])

    @both_kinds
    def test_values_beyond_the_bound(self, kind):
        """Whoever made them: parameters of a thousand, of infinity, of nan."""
        for wild in (1e9, torch.inf, torch.nan):
            agent, states = taught(kind, 11)
            with torch.no_grad():
                agent.net[-1].bias.fill_(wild)
            assert agent.update(draw(kind))["max_q"] > 1e6
            assert state_equal(state(agent), states[10])

    @both_kinds
    def test_nothing_out_of_bounds_is_remembered(self, kind):
        """At a multiple of `REMEMBER_EVERY` the state is looked at before it is kept."""
        agent, states = taught(kind, 20)
        with torch.no_grad():
            agent.net[0].weight.fill_(torch.nan)
        agent.update(draw(kind))
        assert state_equal(state(agent), states[10])

    @both_kinds
    def test_nan_where_it_is_only_watched(self, kind):
        """A held-out row beyond all bounds ends the run too."""
        agent, states = taught(kind, 12)
        batch = draw(kind)
        batch.obs[-1] = torch.nan
        assert agent.update(batch)["max_q"] == np.inf
        assert state_equal(state(agent), states[10])

    @both_kinds
    @pytest.mark.parametrize("updates", [3, 13])
    def test_a_deep_copy_goes_back_on_its_own(self, kind, updates):
        agent, states = taught(kind, updates)
        twin = copy.deepcopy(agent)
        assert state_equal(state(twin), states[-1])
        twin.update(ruin(kind, torch.inf))
        assert state_equal(state(agent), states[-1])
        assert state_equal(state(twin), states[updates // 10 * 10])
        for k in range(updates, 22):
            agent.update(draw(kind, seed=k))
        kept = state(twin)
        agent.update(ruin(kind, torch.inf))
        assert agent.updates == 20
        assert state_equal(state(twin), kept)

    @both_kinds
    def test_a_deep_copy_remembers_on_its_own(self, kind):
        agent, _ = taught(kind, 13)
        twin = copy.deepcopy(agent)
        for k in range(13, 20):
            twin.update(draw(kind, seed=k))
        want = state(twin)
        for k in range(20, 24):
            twin.update(draw(kind, seed=k))
        twin.update(ruin(kind, torch.inf))
        assert state_equal(state(twin), want)


class Rich(gymnasium.Env):
    """A walk that pays what is expected for a while, and then far too much."""

    observation_space = OBS

    def __init__(self, kind, after):
        self.action_space, self.after, self.taken = SPACES[kind], after, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observe(), {}

    def observe(self):
        return self.np_random.standard_normal(3).astype(np.float32)

    def step(self, action):
        self.taken += 1
        return self.observe(), 1e30 if self.taken > self.after else 1.0, False, False, {}


for kind in SPACES:
    for after in (5, 45):
        gymnasium.register(
            f"DivergenceNotesRich{kind.capitalize()}{after}-v0",
            entry_point=Rich,
            kwargs={"kind": kind, "after": after},
            max_episode_steps=5,
        )


class TestDivergenceOfARun:
    """An ending, and a last row without a return; never an exception, and an agent of numbers."""

    @both_kinds
    @pytest.mark.parametrize("eta", [0.97, -1])
    @pytest.mark.parametrize("after", [5, 45])
    def test_ending(self, kind, eta, after):
        settings = config(eta=eta, warmup=20, batch_size=16)
        env_id = f"DivergenceNotesRich{kind.capitalize()}{after}-v0"
        run = preqn.train(env_id, config=settings, steps=200, seed=0, eval_every=10, eval_episodes=1)
        assert run.ending == "diverged"
        last = run.curve.iloc[-1]
        assert np.isnan(last["return"]) and last["max_q"] > 1e6
        assert last["step"] < 120
        if after == 45:
            assert last["step"] > 45 and run.curve["return"].iloc[:-1].notna().all()
            assert run.agent.updates > 0
        assert run.agent.updates % 10 == 0
        assert all(torch.isfinite(x).all() for x in state(run.agent)[1])
        assert SPACES[kind].contains(run.agent.act(np.zeros(3)))

    @both_kinds
    def test_by_its_own_steps(self, kind):
        """Without preconditioning or a line search, a step size that throws the values beyond a million."""
        settings = config(solver="none", eta=-1, alpha=100.0, activation="relu", warmup=50, batch_size=16)
        env_id = {"continuous": "Pendulum-v1", "discrete": "CartPole-v1"}[kind]
        run = preqn.train(env_id, config=settings, steps=500, seed=0, eval_every=1_000)
        assert run.ending == "diverged"
        assert run.curve["step"].iloc[-1] < 500
        assert all(torch.isfinite(x).all() for x in state(run.agent)[1])


class TestSave:
    """An agent that was saved and loaded goes on like one that was not, to the last bit."""

    @both_kinds
    @pytest.mark.parametrize("updates", [0, 1, 7, 10])
    def test_goes_on(self, kind, updates, tmp_path):
        agent, _ = taught(kind, updates, noise=0.5)
        for _ in range(5):
            agent.act(np.ones(3), explore=True)
        agent.save(tmp_path / "agent.pt")
        twin = preqn.PreQN.load(tmp_path / "agent.pt")
        assert twin.config == agent.config
        assert state_equal(state(twin), state(agent))
        for k in range(20):
            metrics = [a.update(draw(kind, seed=100 + k)) for a in (agent, twin)]
            assert metrics[0] == metrics[1]
            actions = [a.act(np.full(3, k), explore=True) for a in (agent, twin)]
            assert np.array_equal(*actions) and type(actions[0]) is type(actions[1])
        assert state_equal(state(twin), state(agent))
        assert not state_equal(state(twin), state(preqn.PreQN.load(tmp_path / "agent.pt")))

    @both_kinds
    @pytest.mark.parametrize("control", CONTROLS)
    def test_controls_go_on(self, kind, control, tmp_path):
        agent, _ = taught(kind, 7, **CONTROLS[control])
        agent.save(tmp_path / "agent.pt")
        twin = preqn.PreQN.load(tmp_path / "agent.pt")
        for k in range(20):
            assert agent.update(draw(kind, seed=100 + k)) == twin.update(draw(kind, seed=100 + k))
        assert state_equal(state(twin), state(agent))

    @both_kinds
    @pytest.mark.parametrize("updates", [0, 7, 13])
    def test_a_state_goes_back_as_well(self, kind, updates):
        """Unlike a file, it knows the state that the agent would go back to."""
        agent, states = taught(kind, updates)
        twin = make(kind)
        twin.load_state_dict(copy.deepcopy(agent.state_dict()))
        for each in (agent, twin):
            each.update(ruin(kind, torch.inf))
        assert state_equal(state(twin), state(agent)) and state_equal(state(agent), states[updates // 10 * 10])

    def test_a_state_of_other_settings(self):
        with refuses(ValueError, "state must have alpha 0.1, it has 0.2"):
            make("discrete").load_state_dict(make("discrete", alpha=0.2).state_dict())

    @both_kinds
    @pytest.mark.parametrize("updates", [0, 7, 10])
    def test_goes_back_to_what_was_loaded(self, kind, updates, tmp_path):
        agent, states = taught(kind, updates)
        agent.save(str(tmp_path / "agent.pt"))
        twin = preqn.PreQN.load(str(tmp_path / "agent.pt"))
        twin.update(ruin(kind, torch.inf))
        assert state_equal(state(twin), states[-1])

    @both_kinds
    def test_the_file_is_data(self, kind, tmp_path, monkeypatch):
        """No code in it runs: torch reads it with `weights_only`, and so does `load`."""
        agent, _ = taught(kind, 3)
        agent.save(tmp_path / "agent.pt")
        assert torch.load(tmp_path / "agent.pt", weights_only=True)["updates"] == 3
        asked, honest = [], torch.load
        monkeypatch.setattr(torch, "load", lambda *given, **named: asked.append(named) or honest(*given, **named))
        preqn.PreQN.load(tmp_path / "agent.pt")
        assert asked == [{"weights_only": True, "map_location": "cpu"}]

    @both_kinds
    def test_settings_and_spaces(self, kind, tmp_path):
        """All of them other than by default; a range keeps its ends."""
        changes = {"hidden": (5, 6), "policy_hidden": (7,), "solver": "none", "bound": 10.5, "noise": 0, "shrink": 0.25}
        agent = make(kind, **changes)
        agent.save(tmp_path / "agent.pt")
        twin = preqn.PreQN.load(tmp_path / "agent.pt")
        assert twin.config == config(**changes)
        assert twin._spaces == (OBS, SPACES[kind])

    @pytest.mark.parametrize("ends", BOXES)
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_acts_in_the_same_range(self, ends, dtype, tmp_path):
        space = Box(*(np.full(2, end, dtype=dtype) for end in ends), dtype=dtype)
        agent = preqn.PreQN(OBS, space, config())
        agent.save(tmp_path / "agent")
        twin = preqn.PreQN.load(tmp_path / "agent")
        obs = np.random.default_rng(0).standard_normal((200, 3))
        assert np.array_equal(twin.act(obs), agent.act(obs))
        assert np.array_equal(twin._spaces[1].low, space.low) and np.array_equal(twin._spaces[1].high, space.high)


@pytest.fixture(scope="module")
def pendulum():
    """Return a run with nothing set."""
    settings = preqn.PreQNConfig()
    return preqn.train("Pendulum-v1", config=settings, steps=2_600, seed=0, eval_every=650, eval_episodes=3)


class TestTrainPreQN:
    """From an environment's name to an agent, a curve and an ending."""

    @pytest.mark.nightly
    def test_pendulum(self, pendulum):
        """With nothing set. -200 is a pendulum that is up after one swing; a random policy earns about -1200."""
        assert pendulum.ending == "finished"
        assert pendulum.curve["step"].tolist() == [650, 1_300, 1_950, 2_600]
        assert pendulum.curve["return"].iloc[0] < -800
        assert pendulum.curve["return"].max() >= -200
        assert pendulum.agent.updates == 1_601

    @pytest.mark.nightly
    def test_the_same_again(self, pendulum):
        """Half of that run, bit by bit."""
        settings = preqn.PreQNConfig(seed=7)  # gives way
        half = preqn.train("Pendulum-v1", config=settings, steps=1_300, seed=0, eval_every=650, eval_episodes=3)
        assert half.curve.equals(pendulum.curve.iloc[:2])
        assert half.agent.updates == 301
        assert half.curve.iloc[1].notna().all()

    @pytest.mark.nightly
    def test_pendulum_without_preconditioning(self):
        """Control: the mean semi-gradient, and no line search."""
        settings = preqn.PreQNConfig(solver="none", eta=-1, alpha=0.01)
        run = preqn.train("Pendulum-v1", config=settings, steps=2_000, seed=0, eval_every=500, eval_episodes=3)
        assert run.curve["return"].max() < -800

    def test_cartpole(self):
        """A random policy balances for about 22 steps."""
        settings = preqn.PreQNConfig()
        run = preqn.train("CartPole-v1", config=settings, steps=2_500, seed=0, eval_every=500, eval_episodes=3)
        assert run.ending == "finished"
        assert run.curve["return"].iloc[0] < 30
        assert run.curve["return"].iloc[2:].mean() > 50

    @pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1"])
    def test_seed(self, env_id):
        """Same seed, same weights and curve, bit by bit; another seed, others; no global generator moves."""
        np_state, torch_state = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002

        def train(seed):
            settings = config(warmup=50, batch_size=32)
            return preqn.train(env_id, config=settings, steps=120, seed=seed, eval_every=60, eval_episodes=1)

        one, same, other = train(3), train(3), train(4)
        assert one.curve.equals(same.curve)
        assert state_equal(state(one.agent), state(same.agent))
        assert not state_equal(state(one.agent), state(other.agent))
        assert one.agent.config == config(warmup=50, batch_size=32, seed=3)
        assert np.array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002
        assert torch.equal(torch.random.get_rng_state(), torch_state)

    def test_settings_arrive(self, monkeypatch):
        """Everything that `training.learn` is told."""
        agent = preqn.PreQN(*training.spaces("CartPole-v1"), config())
        told, run = {}, training.Run(agent, pd.DataFrame(), "finished")
        monkeypatch.setattr(training, "learn", lambda _, env, **named: told.update(named, env=env) or run)
        settings = config(batch_size=7, held_out=3, capacity=99, warmup=8, update_every=5, bound=77.0)
        asked = {
            "steps": 11,
            "seed": 2,
            "eval_every": 6,
            "eval_episodes": 9,
            "keep": "best",
            "others": {"still": lambda agent, obs: 0},
            "checkpoint": "there",
            "callback": print,
            "log": "here",
        }
        assert preqn.train("CartPole-v1", config=settings, **asked) is run
        assert told == {
            "env": "CartPole-v1",
            "steps": 11,
            "seed": 2,
            "warmup": 8,
            "batch_size": 10,
            "capacity": 99,
            "update_every": 5,
            "eval_every": 6,
            "eval_episodes": 9,
            "keep": "best",
            "others": asked["others"],
            "bound": 77.0,
            "progress": False,
            "checkpoint": "there",
            "callback": print,
            "log": "here",
        }


class TestPreQNRefuses:
    """What makes no sense is refused before any work."""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"hidden": (64, 0)}, "hidden[1] must be in [1, inf), got 0"),
            ({"policy_hidden": (-1,)}, "policy_hidden[0] must be in [1, inf), got -1"),
            ({"activation": "gelu"}, "activation must be one of 'relu', 'tanh', 'sin', got 'gelu'"),
            ({"policy_activation": "elu"}, "policy_activation must be one of 'relu', 'tanh', 'sin', got 'elu'"),
            ({"gamma": 1}, "gamma must be in [0, 1), got 1"),
            ({"gamma": -0.1}, "gamma must be in [0, 1), got -0.1"),
            ({"solver": "lu"}, "solver must be one of 'cholesky', 'minimum-norm', 'none', got 'lu'"),
            ({"jitter": -1e-9}, "jitter must be in [0, inf), got -1e-09"),
            ({"alpha": 0.0}, "alpha must be in (0, inf), got 0.0"),
            ({"eta": 1.01}, "eta must be in [-1, 1], got 1.01"),
            ({"eta": -1.01}, "eta must be in [-1, 1], got -1.01"),
            ({"eta": np.nan}, "eta must be in [-1, 1], got nan"),
            ({"shrink": 0}, "shrink must be in (0, 1), got 0"),
            ({"shrink": 1}, "shrink must be in (0, 1), got 1"),
            ({"max_backtracks": -1}, "max_backtracks must be in [0, inf), got -1"),
            ({"policy_learning_rate": 0}, "policy_learning_rate must be in (0, inf), got 0"),
            ({"noise": -0.1}, "noise must be in [0, inf), got -0.1"),
            ({"batch_size": 0}, "batch_size must be in [1, inf), got 0"),
            ({"held_out": 0}, "held_out must be in [1, inf), got 0"),
            ({"capacity": 0}, "capacity must be in [1, inf), got 0"),
            ({"warmup": 0}, "warmup must be in [1, 1e+06], got 0"),
            ({"warmup": 11, "capacity": 10}, "warmup must be in [1, 10], got 11"),
            ({"update_every": 0}, "update_every must be in [1, inf), got 0"),
            ({"policy_every": 0}, "policy_every must be in [1, inf), got 0"),
            ({"optimizer": "sgd"}, "optimizer must be one of 'none', 'adam', got 'sgd'"),
            (
                {"optimizer": "adam", "solver": "none"},
                "optimizer 'adam' needs solver 'none' and eta -1: its steps follow no direction, "
                "got solver 'none' and eta 0.97",
            ),
            (
                {"optimizer": "adam", "eta": -1},
                "optimizer 'adam' needs solver 'none' and eta -1: its steps follow no direction, "
                "got solver 'cholesky' and eta -1",
            ),
            ({"target_rate": 0}, "target_rate must be in (0, 1], got 0"),
            ({"target_rate": 1.1}, "target_rate must be in (0, 1], got 1.1"),
            ({"initialisation": "he"}, "initialisation must be one of 'pytorch', 'glorot', got 'he'"),
            ({"policy_scale": -1}, "policy_scale must be in [0, inf), got -1"),
            ({"bound": 0}, "bound must be in (0, inf), got 0"),
            ({"bound": np.inf}, "bound must be in (0, inf), got inf"),
            ({"seed": -1}, "seed must be in [0, inf), got -1"),
        ],
    )
    def test_settings(self, changes, message):
        with refuses(ValueError, message):
            preqn.PreQNConfig(**changes)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"alpha": "1e-1"}, "alpha must be a number, got '1e-1'"),
            ({"gamma": "0.9"}, "gamma must be a number, got '0.9'"),
            ({"bound": "1e6"}, "bound must be a number, got '1e6'"),
            ({"batch_size": "8"}, "batch_size must be an integer, got '8'"),
            ({"hidden": 64}, "hidden must be a sequence of integers, got 64"),
            ({"policy_hidden": None}, "policy_hidden must be a sequence of integers, got None"),
            ({"hidden": "64"}, "hidden[0] must be an integer, got '6'"),
        ],
    )
    def test_text_is_no_number(self, changes, message):
        """A file of settings may hold it: 1e-1 is text in YAML."""
        settings = preqn.PreQNConfig()
        vars(settings).update(changes)  # past the hook of the tests, which knows the types
        with refuses(TypeError, message):
            settings.__post_init__()

    @pytest.mark.parametrize(
        "changes", [{"eta": -1}, {"eta": 1}, {"gamma": 0}, {"jitter": 0}, {"max_backtracks": 0}, {"noise": 0}]
    )
    def test_the_ends_are_in(self, changes):
        assert dataclasses.asdict(preqn.PreQNConfig(**changes)).items() >= changes.items()

    def test_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            config().gamma = 0.5

    @pytest.mark.parametrize(
        ("obs", "actions", "error", "message"),
        [
            (Discrete(3), Discrete(2), TypeError, "observation_space must be a Box, got Discrete(3)" + FLATTEN),
            (
                Box(-1, 1, shape=(2, 2)),
                Discrete(2),
                ValueError,
                "observation_space must have shape (any,), got (2, 2)" + FLATTEN,
            ),
            (OBS, Box(-1, 1, shape=(1, 2)), ValueError, "action_space must have shape (any,), got (1, 2)"),
            (OBS, Discrete(3, start=2), ValueError, "action_space must start at 0, got Discrete(3, start=2)"),
            (OBS, gymnasium.spaces.MultiBinary(2), TypeError, "action_space must be a Box, got MultiBinary(2)"),
            (
                OBS,
                Box(np.float32([0, -np.inf]), np.float32([1, 1])),
                ValueError,
                "action_space must be finite: action_space[0, 1] is -inf",
            ),
            (
                OBS,
                Box(np.float32([0, 3]), np.float32([1, 3])),
                ValueError,
                "action_space must have low < high, got low[1] = 3 and high[1] = 3",
            ),
            (
                OBS,
                Box(np.array([0, 1 + 1e-12]), np.array([1, 1 + 2e-12]), dtype=np.float64),  # none in float32
                ValueError,
                "action_space must have low < high, got low[1] = 1 and high[1] = 1",
            ),
            (
                OBS,
                Box(0, 5, shape=(2,), dtype=np.int64),
                TypeError,
                "action_space must hold floating-point numbers, got Box(0, 5, (2,), int64)",
            ),
        ],
    )
    def test_spaces(self, obs, actions, error, message):
        with refuses(error, message):
            preqn.PreQN(obs, actions, config())


class TestPreQNSeesBatches:
    """As a vector environment gives them: a batch of actions, each that of its own row; other shapes are refused."""

    OBSERVED = np.random.default_rng(3).standard_normal((7, 3))

    @both_kinds
    def test_each_row_as_alone(self, kind):
        agent = make(kind)
        actions = agent.act(self.OBSERVED)
        assert isinstance(actions, np.ndarray) and len(actions) == 7
        for action, obs in zip(actions, self.OBSERVED, strict=True):
            np.testing.assert_allclose(action, agent.act(obs), rtol=1e-6)
            assert SPACES[kind].contains(action)
        if kind == "discrete":
            assert (
                len(set(actions.tolist())) > 1
                or agent.net(torch.tensor(self.OBSERVED).float()).argmax(1).unique().numel() == 1
            )

    @both_kinds
    @pytest.mark.parametrize("n", [1, 2, 7])
    def test_exploring(self, kind, n):
        """Each row has noise of its own, and every action exists."""
        agent = make(kind, noise=0.5)
        seen = [agent.act(np.repeat(self.OBSERVED[:1], n, axis=0), explore=True) for _ in range(200)]
        for actions in seen:
            assert len(actions) == n and all(SPACES[kind].contains(action) for action in actions)
        if n > 1:
            differ = [np.ptp(actions, axis=0).any() for actions in seen]
            assert np.mean(differ) > (0.3 if kind == "discrete" else 0.99)
        if kind == "discrete":
            best = agent.act(self.OBSERVED[0])
            share = np.mean([np.asarray(actions) == best for actions in seen])
            assert share == pytest.approx(0.5 + 0.5 / 4, abs=0.12)

    @both_kinds
    def test_one_observation_uses_the_generator_as_ever(self, kind):
        """A batch of one is a batch; one vector is one action."""
        agent = make(kind)
        one, row = agent.act(self.OBSERVED[0]), agent.act(self.OBSERVED[:1])
        assert np.ndim(row) == np.ndim(one) + 1
        np.testing.assert_allclose(row[0], one)

    @both_kinds
    @pytest.mark.parametrize("shape", [(4,), (2,), (0,), (), (5, 2), (3, 1), (2, 2, 3)])
    @pytest.mark.parametrize("explore", [False, True])
    def test_refuses(self, kind, shape, explore):
        with refuses(ValueError, f"obs must have shape (3,) or (n, 3), got {shape}"):
            make(kind).act(np.zeros(shape), explore=explore)
