"""The neural tangent kernel, against explicit loops of backpropagation."""

import re

import numpy as np
import pytest
import torch

from divergence_notes import networks, ntk
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
