"""A small network and its real semi-gradient step, against explicit matrices and finite differences."""

import copy
import re

import numpy as np
import pytest
import torch

from divergence_notes import networks

ACTIVATIONS = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh, "sin": np.sin}


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def build(sizes=(3, 5, 4, 1), activation="tanh", seed=0, dtype=torch.float64):
    return networks.MLP(list(sizes), activation=activation, generator=generator(seed), dtype=dtype)


def inputs(n=6, d=3, seed=1, dtype=torch.float64):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64).to(dtype)


def flat_parameters(net):
    """Return a copy of all parameters of a network as one vector."""
    return torch.cat([p.detach().clone().ravel() for p in net.parameters()])


def with_parameters(net, theta):
    """Return a copy of a network with its parameters read from one vector."""
    out, at = copy.deepcopy(net), 0
    with torch.no_grad():
        for parameter in out.parameters():
            parameter.copy_(theta[at : at + parameter.numel()].reshape(parameter.shape))
            at += parameter.numel()
    return out


def normed():
    """Return a network with a batch norm that is training."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)).double()


def kept(net):
    return {name: part.clone() for name, part in net.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one | other)


class TestMLP:
    """Affine layers with an activation between them, and none after the last."""

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("sizes", [(3, 1), (3, 5, 1), (3, 5, 4, 2)])
    def test_against_matrices(self, activation, sizes):
        net, x = build(sizes, activation), inputs()
        layers = [module for module in net if isinstance(module, torch.nn.Linear)]
        assert len(layers) == len(sizes) - 1
        out = x.numpy()
        for k, layer in enumerate(layers):
            assert layer.weight.shape == (sizes[k + 1], sizes[k])
            out = out @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
            if k + 1 < len(layers):
                out = ACTIVATIONS[activation](out)
        np.testing.assert_allclose(net(x).detach().numpy(), out, atol=1e-14)

    def test_the_generator_decides(self):
        state = torch.random.get_rng_state()
        one, same, other = (flat_parameters(build(seed=seed)) for seed in (3, 3, 4))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
        assert torch.equal(torch.random.get_rng_state(), state)  # the global generator is untouched

    def test_the_generator_moves_on(self):
        g = generator()
        one, other = (networks.MLP([2, 3, 1], activation="relu", generator=g) for _ in range(2))
        assert not torch.equal(flat_parameters(one), flat_parameters(other))

    def test_scale(self):
        """Uniform within 1 / sqrt(fan in), weights and biases: the spread is that bound over sqrt(3)."""
        net = build((100, 400, 1), dtype=torch.float64)
        for layer, fan_in in ((net[0], 100), (net[2], 400)):
            for parameter in (layer.weight, layer.bias):
                assert parameter.abs().max() <= fan_in**-0.5
            assert layer.weight.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.1)
            assert abs(layer.weight.mean().item()) < 0.1 * fan_in**-0.5

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_dtype(self, dtype):
        net = build(dtype=dtype)
        assert {p.dtype for p in net.parameters()} == {dtype}
        assert all(p.requires_grad for p in net.parameters())

    def test_float32_is_the_default(self):
        net = networks.MLP([2, 1], activation="sin", generator=generator())
        assert net[0].weight.dtype == torch.float32

    @pytest.mark.parametrize(
        ("sizes", "activation", "message"),
        [
            ([3], "relu", "sizes must name an input and an output width, got [3]"),
            ([3, 0, 1], "relu", "sizes[1] must be in [1, inf), got 0"),
            ([3, 1], "gelu", "activation must be one of 'relu', 'tanh', 'sin', got 'gelu'"),
        ],
    )
    def test_refuses(self, sizes, activation, message):
        with refuses(ValueError, message):
            networks.MLP(sizes, activation=activation, generator=generator())


class TestGlorot:
    """Every linear layer within its bound, and no biases."""

    def test_with_biases_and_without(self):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(3, 20, bias=False), torch.nn.Tanh(), torch.nn.Linear(20, 1))
        assert networks.glorot_(net, generator=generator()) is net
        for layer, fans in ((net[0], 23), (net[2], 21)):
            assert 0.8 * (6 / fans) ** 0.5 < layer.weight.abs().max() <= (6 / fans) ** 0.5
        assert net[0].bias is None and not net[2].bias.any()


class TestValues:
    """The scalar outputs as a float64 numpy vector."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_values(self, dtype):
        net, x = build(dtype=dtype), inputs(dtype=dtype)
        found = networks.values(net, x)
        assert found.shape == (6,)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, net(x).detach().double().numpy()[:, 0])

    @pytest.mark.parametrize("width", [2, 3])
    def test_refuses_more_outputs(self, width):
        with refuses(ValueError, f"net must map (n, d) to (n, 1), it maps (6, 3) to (6, {width})"):
            networks.values(build((3, width)), inputs())


class TestSemiGradientStep:
    """One plain step down 1/2 sum_i rho_i (y_i - Q_i)^2 with the targets held fixed; the input net stays as it is."""

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_against_finite_differences(self, activation, rng):
        net, x = build((3, 4, 1), activation), inputs()
        target, rho, alpha = rng.standard_normal(6), rng.dirichlet(np.ones(6)), 0.3
        theta = flat_parameters(net)

        def loss(parameters):
            q = networks.values(with_parameters(net, parameters), x)
            return 0.5 * sum(rho[i] * (target[i] - q[i]) ** 2 for i in range(6))

        slope = [(loss(theta + 1e-6 * e) - loss(theta - 1e-6 * e)) / 2e-6 for e in torch.eye(len(theta)).double()]
        stepped = networks.semi_gradient_step(net, x, target, weights=rho, alpha=alpha)
        np.testing.assert_allclose(flat_parameters(stepped), theta.numpy() - alpha * np.array(slope), atol=1e-8)
        assert torch.equal(flat_parameters(net), theta)
        assert all(p.grad is None for p in net.parameters())

    def test_a_linear_net_moves_by_its_kernel(self, rng):
        net, x = build((3, 1)), inputs()
        target, rho = rng.standard_normal(6), rng.dirichlet(np.ones(6))
        before = networks.values(net, x)
        after = networks.values(networks.semi_gradient_step(net, x, target, weights=rho, alpha=0.7), x)
        phi = np.hstack([x.numpy(), np.ones((6, 1))])  # the bias is a feature that is always 1
        np.testing.assert_allclose(after - before, 0.7 * phi @ phi.T @ (rho * (target - before)), atol=1e-13)

    def test_the_target_is_frozen(self, rng):
        """Targets out of the net's own values give the semi-gradient, not the gradient of the Bellman error."""
        net, x = build(), inputs()
        target = 0.9 * networks.values(net, x)[::-1].copy()
        one = networks.semi_gradient_step(net, x, target, weights=np.full(6, 1 / 6), alpha=0.1)
        same = networks.semi_gradient_step(net, x, target.tolist(), weights=[1 / 6] * 6, alpha=0.1)
        assert torch.equal(flat_parameters(one), flat_parameters(same))
        loss = 0.5 / 6 * ((0.9 * net(x)[:, 0].flip(0) - net(x)[:, 0]) ** 2).sum()
        full = torch.cat([g.ravel() for g in torch.autograd.grad(loss, list(net.parameters()))])
        assert not torch.allclose(flat_parameters(one), flat_parameters(net) - 0.1 * full)

    def test_a_pair_without_weight_pulls_nothing(self):
        net, x = build(), inputs()
        target = networks.values(net, x)
        target[2] += 100.0
        rho = np.array([0.2, 0.2, 0.0, 0.2, 0.2, 0.2])
        stepped = networks.semi_gradient_step(net, x, target, weights=rho, alpha=0.1)
        np.testing.assert_allclose(flat_parameters(stepped), flat_parameters(net), atol=1e-14)

    def test_takes_what_may_not_be_written(self):
        """As the arrays of an update: torch would warn of one that it shares."""
        torch.set_warn_always(True)
        try:
            target, rho = np.ones(6), np.full(6, 1 / 6)
            stepped = networks.semi_gradient_step(build(), inputs(), target, weights=rho, alpha=0.1)
            target.setflags(write=False)
            rho.setflags(write=False)
            same = networks.semi_gradient_step(build(), inputs(), target, weights=rho, alpha=0.1)
        finally:
            torch.set_warn_always(False)
        assert torch.equal(flat_parameters(stepped), flat_parameters(same))

    def test_a_batch_norm_stays(self):
        """What it keeps of a batch changes in the copy, and there as in any pass."""
        net, x, there = normed(), inputs(), {"weights": np.full(6, 1 / 6), "alpha": 0.1}
        before, passed = kept(net), copy.deepcopy(net)
        passed(x)
        stepped = networks.semi_gradient_step(net, x, np.ones(6), **there)
        assert same(kept(net), before)
        assert torch.equal(stepped[1].running_mean, passed[1].running_mean)
        networks.train(net, x, lambda q: 0 * q, **there, steps=2)
        assert same(kept(net), before)

    def test_frozen_parameters_stay(self):
        net, x = build(), inputs()
        net[0].weight.requires_grad_(False)
        stepped = networks.semi_gradient_step(net, x, np.ones(6), weights=np.full(6, 1 / 6), alpha=0.1)
        assert torch.equal(stepped[0].weight, net[0].weight)
        assert not torch.equal(stepped[0].bias, net[0].bias)

    def test_float32(self, tolerance):
        nets = [build(dtype=dtype) for dtype in (torch.float32, torch.float64)]
        with torch.no_grad():
            for low, high in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
                low.copy_(high)
        stepped = [
            networks.semi_gradient_step(net, inputs(dtype=dtype), np.ones(6), weights=np.full(6, 1 / 6), alpha=0.1)
            for net, dtype in zip(nets, (torch.float32, torch.float64), strict=True)
        ]
        assert stepped[0][0].weight.dtype == torch.float32
        np.testing.assert_allclose(flat_parameters(stepped[0]), flat_parameters(stepped[1]), **tolerance(np.float32(0)))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"target": np.zeros(5)}, "target must have shape (6,), got (5,)"),
            ({"target": np.full(6, np.nan)}, "target must be finite: target[0] is nan"),
            ({"weights": np.full(5, 0.2)}, "weights must have shape (6,), got (5,)"),
            ({"weights": np.full(6, 0.2)}, "weights must be a distribution: its entries sum to 1.2, not to 1"),
            ({"alpha": 0}, "alpha must be in (0, inf), got 0"),
        ],
    )
    def test_refuses(self, changes, message):
        there = {"target": np.zeros(6), "weights": np.full(6, 1 / 6), "alpha": 0.1} | changes
        with refuses(ValueError, message):
            networks.semi_gradient_step(build(), inputs(), there.pop("target"), **there)
        with refuses(ValueError, "net must map (n, d) to (n, 1), it maps (6, 3) to (6, 2)"):
            networks.semi_gradient_step(build((3, 2)), inputs(), np.zeros(6), weights=np.full(6, 1 / 6), alpha=1)


class TestTrainANetwork:
    """Repeated semi-gradient steps, each towards a backup of the values before it."""

    def test_against_single_steps(self):
        net, x, rho = build(), inputs(), np.full(6, 1 / 6)
        theta = flat_parameters(net)

        def backup(q):
            return 1 + 0.5 * q[::-1]

        final, run = networks.train(net, x, backup, weights=rho, alpha=0.2, steps=5)
        assert run.status == "undecided"
        assert run.errors is None
        assert run.values.shape == (6, 6)
        for k in range(5):
            before = networks.values(net, x)
            np.testing.assert_array_equal(run.values[k], before)
            net = networks.semi_gradient_step(net, x, backup(before).copy(), weights=rho, alpha=0.2)
        np.testing.assert_array_equal(run.values[5], networks.values(net, x))
        assert torch.equal(flat_parameters(final), flat_parameters(net))
        assert torch.equal(flat_parameters(build()), theta)

    def test_regression_learns(self):
        target = np.array([1.0, -1, 1, -1, 1, -1])
        net, run = networks.train(
            build((3, 20, 1)), inputs(), lambda q: target, weights=np.full(6, 1 / 6), alpha=0.5, steps=300
        )
        assert np.abs(run.values[-1] - target).max() < np.abs(run.values[0] - target).max() / 2
        np.testing.assert_array_equal(networks.values(net, inputs()), run.values[-1])

    def test_divergence_is_a_status(self):
        """A backup with gain above one: the run ends at the first value beyond the bound, the net before it is kept."""
        net, run = networks.train(
            build((3, 1)), inputs(), lambda q: 3 * q + 1, weights=np.full(6, 1 / 6), alpha=0.5, steps=1000, bound=50
        )
        assert run.status == "diverged"
        assert len(run.values) < 1000
        assert run.sizes[-2] <= 50 < run.sizes[-1]
        np.testing.assert_array_equal(networks.values(net, inputs()), run.values[-2])

    def test_not_a_number_is_divergence(self):
        _, run = networks.train(
            build((3, 1)), inputs(), lambda q: q + 1e300, weights=np.full(6, 1 / 6), alpha=1e200, steps=5
        )
        assert run.status == "diverged"
        assert len(run.values) == 2

    def test_a_backup_may_work_in_place(self):
        def inplace(q):
            q *= 0.9
            q += 1
            return q

        there = {"weights": np.full(6, 1 / 6), "alpha": 0.1, "steps": 3}
        run = networks.train(build(), inputs(), inplace, **there)[1]
        want = networks.train(build(), inputs(), lambda q: 0.9 * q + 1, **there)[1]
        np.testing.assert_array_equal(run.values, want.values)
        np.testing.assert_array_equal(run.values[0], networks.values(build(), inputs()))

    def test_the_first_step_beyond_the_bound(self):
        net = build()
        found, run = networks.train(
            net, inputs(), lambda q: q + 1e9, weights=np.full(6, 1 / 6), alpha=1, steps=5, bound=1
        )
        assert run.status == "diverged" and len(run.values) == 2
        assert torch.equal(flat_parameters(found), flat_parameters(net))

    @pytest.mark.parametrize("bound", [-1, 0, np.nan, np.inf])
    def test_refuses_a_bound(self, bound):
        there = {"weights": np.full(6, 1 / 6), "alpha": 0.1, "steps": 1}
        with refuses(ValueError, f"bound must be in (0, inf), got {bound}"):
            networks.train(build(), inputs(), lambda q: 1 / 0, **there, bound=bound)

    def test_refuses(self):
        with refuses(ValueError, "steps must be in [1, inf), got 0"):
            networks.train(build(), inputs(), lambda q: q, weights=np.full(6, 1 / 6), alpha=0.1, steps=0)
        with refuses(ValueError, "target must have shape (6,), got (2,)"):
            networks.train(build(), inputs(), lambda q: q[:2], weights=np.full(6, 1 / 6), alpha=0.1, steps=1)


class TestMoved:
    """A copy, every moving parameter by alpha times its slope."""

    def test_by_hand(self):
        net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        net[0].bias.requires_grad_(False)
        before = [p.detach().clone() for p in net.parameters()]
        slopes = [torch.full_like(p, k + 1.0) for k, p in enumerate(net.parameters()) if p.requires_grad]
        after = list(networks.moved(net, slopes, alpha=-0.5).parameters())
        for k, (new, old) in enumerate(zip(after, before, strict=True)):
            slope = 0.0 if k == 1 else k + 1.0
            torch.testing.assert_close(new, old - 0.5 * slope)
        assert all(torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True)), "left as it was"

    @pytest.mark.parametrize(
        "shapes",
        [[(1, 2)], [(1, 2), (1,), (1,)], [(1,), (1,)], [(2, 1), (1,)]],
        ids=["few", "many", "broadcast", "turned"],
    )
    def test_refuses_slopes_that_do_not_fit(self, shapes):
        with refuses(ValueError, f"slopes must have the shapes [(1, 2), (1,)] of the parameters, got {shapes}"):
            networks.moved(torch.nn.Linear(2, 1), [torch.zeros(shape) for shape in shapes], alpha=1)
