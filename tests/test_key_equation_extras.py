"""What chapter 3 adds to `ntk`: second derivatives of a network, and what the key equation leaves out."""

import re

import numpy as np
import pytest
import torch

from divergence_notes import networks, ntk, updates


def make(activation, sizes=(3, 5, 1), seed=0):
    """Return a network, inputs, targets and weights, all random."""
    generator = torch.Generator().manual_seed(seed)
    net = networks.MLP(sizes, activation=activation, generator=generator, dtype=torch.float64)
    x = torch.rand(7, sizes[0], generator=generator, dtype=torch.float64)
    rng = np.random.default_rng(seed)
    return net, x, rng.standard_normal(7), rng.dirichlet(np.ones(7))


class TestHessian:
    """Second derivatives in the parameters, against finite differences of the gradient."""

    @pytest.mark.parametrize("activation", ["relu", "tanh", "sin"])
    @pytest.mark.parametrize("sizes", [(3, 5, 1), (3, 4, 4, 1)])
    def test_finite_differences(self, activation, sizes):
        net, x, _, _ = make(activation, sizes)
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
        net, x, _, _ = make("relu")
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
        net, x, target, weights = make(activation)
        before = networks.values(net, x)
        after = networks.values(networks.semi_gradient_step(net, x, target, weights=weights, alpha=0.3), x)
        predicted = updates.predicted_change(ntk.gram(net, x).numpy(), weights, target - before, alpha=0.3)
        found = ntk.remainder(net, x, target, weights=weights, alpha=0.3)
        np.testing.assert_allclose(found, after - before - predicted, atol=1e-14)
        assert np.abs(found).max() > 1e-4

    def test_linear_is_exact(self):
        net, x, target, weights = make("tanh", sizes=(3, 1))
        assert np.abs(ntk.remainder(net, x, target, weights=weights, alpha=2.0)).max() < 1e-14

    @pytest.mark.parametrize("activation", ["relu", "tanh", "sin"])
    def test_half_the_step_a_quarter_of_the_remainder(self, activation):
        net, x, target, weights = make(activation)
        whole, half = (ntk.remainder(net, x, target, weights=weights, alpha=a) for a in (2e-4, 1e-4))
        np.testing.assert_allclose(whole, 4 * half, rtol=1e-3, atol=1e-14)

    def test_bad_weights(self):
        net, x, target, _ = make("relu")
        message = "weights must be a distribution: its entries sum to 7, not to 1"
        with pytest.raises(ValueError, match=re.escape(message)):
            ntk.remainder(net, x, target, weights=np.ones(7), alpha=0.1)


class TestKeyEquation:
    """thm-key-equation and eq-second-order: how large the remainder can be, and what it is to second order."""

    @pytest.mark.parametrize("activation", ["tanh", "sin"])
    @pytest.mark.parametrize("alpha", [0.01, 0.3])
    def test_bound(self, activation, alpha):
        """With M the largest curvature met on the way, |r| <= M/2 |step|^2, and with a hundredth of M not."""
        net, x, target, weights = make(activation)
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
        net, x, target, weights = make(activation)
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
