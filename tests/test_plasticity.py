"""Numbers of plasticity: against loops and other routes, on both sides of each threshold."""

import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from divergence_notes import plasticity
from tests.strategies import generators


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


class TestDormant:
    """A unit is dormant if its mean absolute activation is at most tau times the mean of its layer."""

    @given(rng=generators(), tau=st.sampled_from([0.0, 0.025, 0.1, 1.0]))
    def test_against_the_rule_spelled_out(self, rng, tau):
        h = rng.exponential(size=9) ** 4 * (rng.random(9) < 0.8)
        total = sum(h)
        want = [bool(unit <= tau * total / 9) for unit in h]
        assert plasticity.dormant(h, tau=tau).tolist() == want

    @pytest.mark.parametrize(("small", "sleeps"), [(0.0, True), (0.0249, True), (0.0251, False)])
    def test_both_sides_of_the_threshold(self, small, sleeps):
        rest = (4 - small) / 3  # so that the mean of the layer is 1
        assert plasticity.dormant([small, rest, rest, rest]).tolist() == [sleeps, False, False, False]

    def test_a_layer_that_is_dead(self):
        assert plasticity.dormant(np.zeros(3)).all()

    @pytest.mark.parametrize("scale", [1e-300, 1e300])
    def test_units_are_of_no_matter(self, scale):
        assert plasticity.dormant(np.array([0.01, 1.0, 1.0, 1.0]) * scale).tolist() == [True, False, False, False]

    def test_refuses(self):
        with refuses(ValueError, "activity must be non-negative: activity[1] is -1"):
            plasticity.dormant([1.0, -1.0])
        with refuses(ValueError, "tau must be in [0, inf), got -1"):
            plasticity.dormant([1.0], tau=-1)


class TestFeatureRank:
    """The fewest directions that carry 99 of 100 parts of the singular values."""

    @pytest.mark.parametrize(
        ("sizes", "rank"), [([1, 1, 1, 1], 4), ([1, 0, 0, 0], 1), ([99, 1, 0, 0], 1), ([98, 2, 0, 0], 2)]
    )
    def test_known_singular_values(self, sizes, rank, rng):
        u, v = (np.linalg.qr(rng.normal(size=(n, 4)))[0] for n in (12, 7))
        assert plasticity.feature_rank(u * np.array(sizes, dtype=float) @ v.T) == rank

    @given(rng=generators(), share=st.sampled_from([0.5, 0.9, 0.99]))
    def test_by_the_singular_values(self, rng, share):
        features = rng.normal(size=(10, 6)) * 2.0 ** -np.arange(6)
        sizes = np.linalg.svd(features, compute_uv=False)
        want = next(k for k in range(1, 7) if sizes[:k].sum() >= share * sizes.sum())
        assert plasticity.feature_rank(features, share=share) == want
        assert plasticity.feature_rank(features.T * 1e200, share=share) == want

    def test_nothing(self):
        assert plasticity.feature_rank(np.zeros((3, 2))) == 0

    def test_refuses(self):
        with refuses(ValueError, "share must be in (0, 1], got 0"):
            plasticity.feature_rank(np.ones((2, 2)), share=0)
        with refuses(ValueError, "features must be finite: features[0, 1] is nan"):
            plasticity.feature_rank([[1.0, np.nan]])


class TestChurn:
    """The share of actions that are others, or the mean length of a change."""

    def test_on_paper(self):
        assert plasticity.churn(np.array([0, 1, 2, 2]), np.array([0, 2, 2, 1])) == 0.5
        assert plasticity.churn([1.0, -2.0], [1.5, -1.0]) == 0.75
        assert plasticity.churn([[0.0, 0.0], [1.0, 1.0]], [[3.0, 4.0], [1.0, 1.0]]) == 2.5

    @given(rng=generators())
    def test_is_a_distance(self, rng):
        one, two, three = rng.normal(size=(3, 5, 2))
        assert plasticity.churn(one, one) == 0
        assert plasticity.churn(one, two) == pytest.approx(plasticity.churn(two, one))
        assert plasticity.churn(one, three) <= plasticity.churn(one, two) + plasticity.churn(two, three) + 1e-12

    def test_refuses(self):
        with refuses(ValueError, "before must hold at least one answer"):
            plasticity.churn([], [])
        with refuses(ValueError, "after must have shape (2,), got (3,)"):
            plasticity.churn([1.0, 2.0], [1.0, 2.0, 3.0])


class ByFunctions(nn.Module):
    """Rectified by a function and not by a module, as many scripts have it."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(3, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.three(torch.relu(self.two(torch.relu(self.one(x)))))


def by_modules(inplace=False):
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(inplace), nn.Linear(6, 5), nn.ReLU(inplace), nn.Linear(5, 2))


class TestObserve:
    """What is seen in a pass is what the layers are, run one by one."""

    @pytest.mark.parametrize("kind", ["modules", "in place", "functions"])
    def test_layer_by_layer(self, kind):
        torch.manual_seed(0)
        net = ByFunctions() if kind == "functions" else by_modules(kind == "in place")
        x = torch.randn(11, 3)
        one, two = [module for module in net.modules() if isinstance(module, nn.Linear)][:2]
        first = one(x).clamp(min=0)
        second = two(first).clamp(min=0)
        with torch.no_grad(), plasticity.observe(net) as seen:
            net(x.clone())
        for (_, found), want in zip(seen.activity, (first, second), strict=True):
            np.testing.assert_allclose(found, want.abs().mean(dim=0).detach().numpy(), rtol=1e-6)
        np.testing.assert_allclose(seen.features, second.detach().numpy(), rtol=1e-6)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())

    def test_a_unit_that_sleeps_is_found_behind_a_norm(self):
        """What the next layer receives is never small there; the unit itself is."""
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 1)).eval()
        with torch.no_grad():
            net[0].weight[2], net[0].bias[2], net[2].bias[2] = 0.0, -1.0, 3.0
        with torch.no_grad(), plasticity.observe(net) as seen:
            net(torch.randn(50, 3))
        ((name, units),) = seen.activity
        assert name == "1" and plasticity.dormant(units).tolist() == [False, False, True, False, False, False]
        assert seen.layers() == [("1", 6, 1)]

    @pytest.mark.parametrize("kind", [nn.Softmax, nn.LogSoftmax, nn.Softmin])
    def test_shares_are_no_units(self, kind):
        """An action that a policy hardly takes, and an atom of a distribution without chance, are not asleep."""
        net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 5), kind(dim=1))
        with torch.no_grad():
            net[2].bias[:] = torch.tensor([0.0, 0.0, 0.0, 0.0, 30.0])
        with torch.no_grad(), plasticity.observe(net) as seen:
            net(torch.randn(50, 3))
        assert seen.layers() == [("1", 6, 0)]
        inside = nn.Sequential(net[2], kind(dim=1), nn.Linear(5, 1))
        with torch.no_grad(), plasticity.observe(inside) as seen:
            inside(torch.randn(50, 6))
        assert seen.layers() == [] and seen.features.shape == (50, 5)

    def test_a_channel_of_images_is_a_unit(self):
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 2))
        x = torch.randn(5, 1, 5, 5)
        with torch.no_grad(), plasticity.observe(net) as seen:
            net(x)
        want = net[0](x).clamp(min=0).detach().numpy()
        ((_, units),) = seen.activity
        np.testing.assert_allclose(units, [want[:, c].mean() for c in range(4)], rtol=1e-5)
        assert seen.features.shape == (5, 36)

    def test_what_is_not_finite_is_left_out(self):
        net = by_modules()
        with torch.no_grad():
            net[2].bias[0] = np.inf
        with torch.no_grad(), plasticity.observe(net) as seen:
            net(torch.randn(5, 3))
        assert [name for name, *_ in seen.layers()] == ["1"]

    def test_nothing_is_watched_in_what_was_scripted(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch would have it compiled
            net = torch.jit.trace(by_modules(), torch.randn(2, 3))
        with torch.no_grad(), plasticity.observe(net) as seen:
            net(torch.randn(5, 3))
        assert seen.activity == [] and seen.features is None

    def test_hooks_are_gone_after_an_error(self):
        net = by_modules()
        with pytest.raises(RuntimeError), plasticity.observe(net):
            net(torch.randn(5, 4))
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
