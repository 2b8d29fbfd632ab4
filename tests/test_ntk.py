"""The neural tangent kernel against explicit loops of backpropagation, and what the key equation leaves out."""

import re

import numpy as np
import pytest
import torch

from divergence_notes import networks, ntk, updates
from tests.test_networks import ACTIVATIONS, build, flat_parameters, inputs


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def jacobian_by_loops(net, x):
    """Return the gradient of each output, one backward pass at a time."""
    rows = []
    for k in range(len(x)):
        slopes = torch.autograd.grad(net(x[k : k + 1])[0, 0], list(net.parameters()))
        rows.append(np.concatenate([slope.numpy().ravel() for slope in slopes]))
    return np.array(rows)


class Wobble(torch.nn.Module):
    """A module that is no stack of layers: theta enters twice."""

    def __init__(self):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.tensor([0.5, -1.5, 2.0], dtype=torch.float64))

    def forward(self, x):
        return torch.sin(x @ self.theta)[:, None] * self.theta[0]


class TestPerSampleGradients:
    """Row i is the gradient of output i, parameters in the order of net.parameters()."""

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("sizes", [(3, 1), (3, 5, 1), (3, 5, 4, 1)])
    def test_against_loops(self, activation, sizes):
        net, x = build(sizes, activation), inputs()
        theta = flat_parameters(net)
        found = ntk.per_sample_gradients(net, x)
        assert found.shape == (6, len(theta))
        np.testing.assert_allclose(found, jacobian_by_loops(net, x), atol=1e-13)
        assert torch.equal(flat_parameters(net), theta)
        assert all(p.grad is None for p in net.parameters())

    def test_any_module(self):
        np.testing.assert_allclose(ntk.per_sample_gradients(Wobble(), inputs()), jacobian_by_loops(Wobble(), inputs()))

    def test_a_linear_net_has_its_inputs(self):
        x = inputs()
        found = ntk.per_sample_gradients(build((3, 1)), x)
        np.testing.assert_allclose(found, torch.cat([x, torch.ones(6, 1)], dim=1))

    def test_float32(self, tolerance):
        found = ntk.per_sample_gradients(build(dtype=torch.float32), inputs(dtype=torch.float32))
        assert found.dtype == torch.float32

    def test_refuses_an_open_choice_of_outputs(self):
        with refuses(ValueError, "outputs must say which of the 2 outputs of net is meant"):
            ntk.per_sample_gradients(build((3, 2)), inputs())
        with refuses(ValueError, "outputs must say which of the 2 outputs of net is meant"):
            ntk.gram(build((3, 2)), inputs())


class TestGram:
    """K(x, y) = J(x) J(y)^T: symmetric and positive semi-definite for y = x, rectangular else."""

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_against_loops(self, activation):
        net, x, y = build(activation=activation), inputs(), inputs(n=4, seed=9)
        J, H = jacobian_by_loops(net, x), jacobian_by_loops(net, y)
        square, wide = ntk.gram(net, x), ntk.gram(net, x, y)
        assert wide.shape == (6, 4)
        for i in range(6):
            for j in range(6):
                assert square[i, j].item() == pytest.approx(sum(J[i] * J[j]))
            for j in range(4):
                assert wide[i, j].item() == pytest.approx(sum(J[i] * H[j]))
        np.testing.assert_allclose(square, square.T, atol=1e-14)
        assert np.linalg.eigvalsh(square.numpy()).min() > -1e-10
        np.testing.assert_allclose(ntk.gram(net, y, x), wide.T, atol=1e-13)

    def test_rank_is_bounded_by_the_parameters(self):
        assert np.linalg.matrix_rank(ntk.gram(build((3, 1)), inputs()).numpy()) == 4

    def test_any_module(self):
        J = jacobian_by_loops(Wobble(), inputs())
        np.testing.assert_allclose(ntk.gram(Wobble(), inputs()), J @ J.T)

    def test_it_is_the_leading_order_of_a_real_step(self):
        net, x, rho, alpha = build(), inputs(), np.full(6, 1 / 6), 1e-5
        before, target = networks.values(net, x), np.arange(6.0)
        after = networks.values(networks.semi_gradient_step(net, x, target, weights=rho, alpha=alpha), x)
        K = ntk.gram(net, x).numpy()
        np.testing.assert_allclose(after - before, alpha * K @ (rho * (target - before)), rtol=1e-3)

    def test_no_graph_is_left(self):
        assert not ntk.gram(build(), inputs()).requires_grad


def one_step(activation, sizes=(3, 5, 1), seed=0):
    """Return a network, inputs, targets and weights, all random."""
    generator = torch.Generator().manual_seed(seed)
    net = networks.MLP(sizes, activation=activation, generator=generator, dtype=torch.float64)
    x = torch.rand(7, sizes[0], generator=generator, dtype=torch.float64)
    rng = np.random.default_rng(seed)
    return net, x, rng.standard_normal(7), rng.dirichlet(np.ones(7))


class TestSecondDerivatives:
    """Second derivatives in the parameters, against finite differences of the gradient."""

    @pytest.mark.parametrize("activation", ["relu", "tanh", "sin"])
    @pytest.mark.parametrize("sizes", [(3, 5, 1), (3, 4, 4, 1)])
    def test_finite_differences(self, activation, sizes):
        net, x, _, _ = one_step(activation, sizes)
        H = ntk.hessian(net, x[0]).numpy()
        theta = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
        step, columns = 1e-5, []
        for k in range(len(theta)):
            ends = []
            for sign in (1, -1):
                moved = theta.clone()
                moved[k] += sign * step
                torch.nn.utils.vector_to_parameters(moved, net.parameters())
                ends.append(ntk.per_sample_gradients(net, x[:1])[0].numpy())
            columns.append((ends[0] - ends[1]) / (2 * step))
        np.testing.assert_allclose(H, np.array(columns), atol=1e-8)
        np.testing.assert_allclose(H, H.T, atol=1e-12)

    def test_relu_blocks(self):
        """Within a layer nothing, between layers something: the network is a product of its layers."""
        net, x, _, _ = one_step("relu")
        H = ntk.hessian(net, x[0]).numpy()
        first, second = slice(0, 20), slice(20, 26)
        assert np.abs(H[first, first]).max() == 0
        assert np.abs(H[second, second]).max() == 0
        assert np.abs(H[first, second]).max() > 0.1


class Values(torch.nn.Module):
    """One parameter t, which starts at 0: the value of input 0 is t, that of input 1 a given function of t."""

    def __init__(self, bent):
        super().__init__()
        self.t, self.bent = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)), bent

    def forward(self, x):
        return torch.where(x == 0, self.t, self.bent(self.t))


def oscillating(t):
    """Return t^2 sin(ln |t|), 0 at 0; its gradient 2 t sin(ln |t|) + t cos(ln |t|) turns at a rate of 6 at most."""
    away = torch.where(t == 0, 1.0, t)
    return torch.where(t == 0, 0.0, away**2 * torch.sin(torch.log(away.abs())))


class TestOrderOfTheRemainder:
    """eq-second-order leaves O(alpha^3) if the Hessian is Lipschitz. A Lipschitz gradient gives a bound and no rate."""

    @staticmethod
    def missed(bent, h):
        """Return what a step of length h at input 0 does to the value of input 1 beyond the prediction."""
        x, one = torch.tensor([[0.0], [1.0]], dtype=torch.float64), np.array([1.0, 0.0])
        trained, other = ntk.remainder(Values(bent), x, one, weights=one, alpha=float(h))
        assert abs(trained) < 1e-15
        return other

    @pytest.mark.parametrize("h", [1e-2, 1e-3, 1e-4])
    def test_a_hessian_that_is_merely_continuous(self, h):
        """|t|^(5/2) has the second derivative 15/4 |t|^(1/2), 0 at 0: the formula gives 0, and h^(5/2) is missed."""
        assert self.missed(lambda t: t.abs() ** 2.5, h) == pytest.approx(h**2.5)
        assert h**2.5 > 9 * h**3

    def test_a_smooth_value_misses_its_third_order(self):
        assert self.missed(lambda t: t**3, 1e-2) == pytest.approx(1e-6)

    def test_half_the_step_need_not_leave_a_quarter(self):
        """t^2 sin(ln t): at most h^2 is missed, and half the step leaves next to nothing of it or more than half."""
        steps = np.exp(-np.linspace(5, 5 + 2 * np.pi, 40))
        full, half = (np.array([self.missed(oscillating, h) for h in hs]) for hs in (steps, steps / 2))
        assert (np.abs(full) <= steps**2).all()
        assert np.abs(half / full).max() > 0.5
        assert np.abs(half / full).min() < 0.05


class TestRemainder:
    """eq-taylor: real change minus alpha K D delta."""

    @pytest.mark.parametrize("activation", ["relu", "tanh", "sin"])
    def test_against_the_kernel(self, activation):
        net, x, target, weights = one_step(activation)
        before = networks.values(net, x)
        after = networks.values(networks.semi_gradient_step(net, x, target, weights=weights, alpha=0.3), x)
        predicted = updates.predicted_change(ntk.gram(net, x).numpy(), weights, target - before, alpha=0.3)
        found = ntk.remainder(net, x, target, weights=weights, alpha=0.3)
        np.testing.assert_allclose(found, after - before - predicted, atol=1e-14)
        assert np.abs(found).max() > 1e-4

    def test_linear_is_exact(self):
        net, x, target, weights = one_step("tanh", sizes=(3, 1))
        assert np.abs(ntk.remainder(net, x, target, weights=weights, alpha=2.0)).max() < 1e-14

    @pytest.mark.parametrize("activation", ["relu", "tanh", "sin"])
    def test_half_the_step_a_quarter_of_the_remainder(self, activation):
        net, x, target, weights = one_step(activation)
        whole, half = (ntk.remainder(net, x, target, weights=weights, alpha=a) for a in (2e-4, 1e-4))
        np.testing.assert_allclose(whole, 4 * half, rtol=1e-3, atol=1e-14)

    def test_bad_weights(self):
        net, x, target, _ = one_step("relu")
        message = "weights must be a distribution: its entries sum to 7, not to 1"
        with pytest.raises(ValueError, match=re.escape(message)):
            ntk.remainder(net, x, target, weights=np.ones(7), alpha=0.1)


class TestKeyEquation:
    """thm-key-equation and eq-second-order: how large the remainder can be, and what it is to second order."""

    @pytest.mark.parametrize("activation", ["tanh", "sin"])
    @pytest.mark.parametrize("alpha", [0.01, 0.3])
    def test_bound(self, activation, alpha):
        """With M the largest curvature met on the way, |r| <= M/2 |step|^2, and with a hundredth of M not."""
        net, x, target, weights = one_step(activation)
        end = networks.semi_gradient_step(net, x, target, weights=weights, alpha=alpha)
        ends = [torch.nn.utils.parameters_to_vector(each.parameters()).detach() for each in (net, end)]
        length, M = float((ends[1] - ends[0]).norm()), 0.0
        along = networks.MLP((3, 5, 1), activation=activation, generator=torch.Generator(), dtype=torch.float64)
        for t in np.linspace(0, 1, 11):
            torch.nn.utils.vector_to_parameters(torch.lerp(*ends, float(t)), along.parameters())
            M = max(M, *(float(torch.linalg.matrix_norm(ntk.hessian(along, row), 2)) for row in x))
        largest = np.abs(ntk.remainder(net, x, target, weights=weights, alpha=alpha)).max()
        assert M / 200 * length**2 < largest <= 1.01 * M / 2 * length**2

    @pytest.mark.parametrize("activation", ["relu", "tanh", "sin"])
    def test_second_order(self, activation):
        net, x, target, weights = one_step(activation)
        step = ntk.per_sample_gradients(net, x).numpy().T @ (weights * (target - networks.values(net, x)))
        forms = np.array([step @ ntk.hessian(net, row).numpy() @ step for row in x])
        gaps = [
            np.abs(ntk.remainder(net, x, target, weights=weights, alpha=a) - a**2 / 2 * forms).max()
            for a in (2e-3, 1e-3)
        ]
        if activation == "relu":  # a polynomial of degree two along the step, while no unit switches
            assert max(gaps) < 1e-15
        else:
            assert gaps[0] == pytest.approx(8 * gaps[1], rel=0.05)
