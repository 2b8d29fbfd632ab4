"""The kernel study: its data, its networks, its measures, the intervals, and what was committed."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from divergence_notes import networks, ntk, studies
from divergence_notes.studies import kernels

WIDTHS = {"HalfCheetah-v5": (17, 6), "Ant-v5": (27, 8), "Walker2d-v5": (17, 6)}
"""Of the observation and the action."""

TINY = {
    "environment": "Walker2d-v5",
    "initialisation": "glorot",
    "seed": 2,
    "n_pairs": 12,
    "hidden": ((5, 5), (4,)),
}


@pytest.fixture(params=["HalfCheetah-v5", "Ant-v5", "Walker2d-v5"])
def drawn(request):
    """Return the name of an environment and 60 pairs of it."""
    return request.param, kernels.pairs(request.param, n_pairs=60, seed=3)


class TestPairs:
    """Consecutive steps of a policy whose every action lies in a corner."""

    def test_shape(self, drawn):
        name, x = drawn
        assert x.shape == (60, sum(WIDTHS[name]))

    def test_every_action_is_on_the_rails_and_both_rails_are_used(self, drawn):
        name, x = drawn
        actions = x[:, WIDTHS[name][0] :]
        assert set(np.unique(actions)) == {-1.0, 1.0}
        assert np.all(np.abs(actions.mean(axis=0)) < 0.6)
        assert len(np.unique(actions, axis=0)) > 30, "the coordinates are drawn one by one"

    def test_the_observation_is_the_one_the_action_was_taken_in(self):
        kinds = [kernels.pairs("Walker2d-v5", n_pairs=n, seed=3) for n in (1, 40)]
        np.testing.assert_array_equal(kinds[0], kinds[1][:1])
        resting = kinds[0][0, 8:17]  # velocities at a reset are small noise
        assert np.abs(resting).max() < 0.01 < np.abs(kinds[1][1, 8:17]).max()

    def test_an_episode_that_ends_is_followed_by_another(self):
        x = kernels.pairs("Walker2d-v5", n_pairs=200, seed=0)
        fresh = np.abs(x[:, 8:17]).max(axis=1) < 0.01
        assert fresh.sum() > 3

    def test_inputs_are_raw(self, drawn):
        assert np.abs(drawn[1]).max() > 1.5

    def test_the_seed_decides(self, drawn):
        name, x = drawn
        np.testing.assert_array_equal(x, kernels.pairs(name, n_pairs=60, seed=3))
        other = kernels.pairs(name, n_pairs=60, seed=4)
        assert np.abs(x - other).max() > 1
        assert np.abs(x[0, : WIDTHS[name][0]] - other[0, : WIDTHS[name][0]]).max() > 1e-3, "the first state too"

    def test_mujoco_leaves_no_file(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        kernels.pairs("HalfCheetah-v5", n_pairs=1, seed=0)
        assert not list(tmp_path.iterdir())


def linear(net):
    """Return the linear layers of a network."""
    return [layer for layer in net.modules() if isinstance(layer, nn.Linear)]


class TestInitialisation:
    """Both schemes are uniform within their bounds, and fill them."""

    SIZES = (23, 64, 32, 1)

    def net(self, initialisation, activation="relu", seed=0):
        return kernels.network(self.SIZES, activation=activation, initialisation=initialisation, seed=seed)

    def test_glorot(self):
        for layer in linear(self.net("glorot")):
            bound = (6 / sum(layer.weight.shape)) ** 0.5
            assert 0.85 * bound < layer.weight.abs().max() <= bound
            assert torch.all(layer.bias == 0)

    def test_pytorch(self):
        for layer in linear(self.net("pytorch")):
            bound = layer.in_features**-0.5
            assert 0.85 * bound < layer.weight.abs().max() <= bound
            assert 0 < layer.bias.abs().max() <= bound

    def test_the_bounds_differ(self):
        glorot, pytorch = (linear(self.net(name)) for name in ("glorot", "pytorch"))
        for a, b in zip(glorot, pytorch, strict=True):
            assert abs((a.weight.abs().max() / b.weight.abs().max()).log().item()) > 0.1

    @pytest.mark.parametrize("initialisation", kernels.PARAMETERS["initialisation"])
    def test_weights_follow_the_seed_alone(self, initialisation):
        nets = [self.net(initialisation, activation=activation) for activation in kernels.ACTIVATIONS]
        for a, b in itertools.pairwise(nets):
            assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
        other = self.net(initialisation, seed=1)
        assert not torch.equal(linear(nets[0])[0].weight, linear(other)[0].weight)

    def test_the_global_generator_is_left_alone(self):
        before = torch.get_rng_state()
        networks.glorot_(self.net("pytorch"), generator=torch.Generator().manual_seed(1))
        assert torch.equal(before, torch.get_rng_state())

    def test_unknown_scheme(self):
        with pytest.raises(ValueError, match=re.escape("initialisation must be one of 'pytorch', 'glorot', got 'he'")):
            self.net("he")

    @pytest.mark.parametrize("activation", kernels.ACTIVATIONS)
    def test_no_diagonal_is_below_one(self, activation):
        net = self.net("glorot", activation)
        with torch.no_grad():
            linear(net)[0].bias -= 100  # relu: every unit is dead
        own = ntk.gram(net, torch.randn(9, 23, dtype=torch.float64)).diagonal()
        assert own.min() >= 1
        if activation == "relu":
            assert torch.equal(own, torch.ones(9, dtype=torch.float64))


class TestMeasure:
    """Against plain loops, and at the border of the paper's condition."""

    def test_loops(self, rng):
        J = rng.standard_normal((7, 20))
        K = J @ J.T
        ratios, off = [], []
        for i in range(7):
            others = [abs(K[i, j]) for j in range(7) if j != i]
            ratios.append(sum(others) / 7 / K[i, i])
            off += others
        found = kernels.measure(K, gamma=0.9)
        assert found["row_ratio"] == pytest.approx(sum(ratios) / 7)
        assert found["largest_row_ratio"] == pytest.approx(sorted(ratios)[-1])
        assert found["diagonal"] == pytest.approx(sum(K[i, i] for i in range(7)) / 7)
        assert found["off_diagonal"] == pytest.approx(sum(off) / 42)
        assert found["shortfall"] == pytest.approx(7 * min(ratios) * 19)

    @pytest.mark.parametrize("factor, share", [(0.99, 1.0), (1.01, 0.0)])
    def test_both_sides_of_row_dominance(self, factor, share):
        n = 5
        K = np.full((n, n), -factor / 199 / (n - 1))
        np.fill_diagonal(K, 1)
        found = kernels.measure(K)
        assert found["dominant"] == share
        assert found["shortfall"] == pytest.approx(factor)

    def test_the_best_row_speaks_for_the_shortfall(self):
        K = np.array([[1.0, 0.0, 0.001], [0.0, 1.0, 0.5], [0.001, 0.5, 1.0]])
        found = kernels.measure(K)
        assert found["shortfall"] == pytest.approx(0.199)
        assert found["dominant"] == pytest.approx(1 / 3)


class TestRun:
    """One row for each network; the arguments decide everything."""

    def test_same_seed_same_numbers(self):
        first = kernels.run(**TINY)
        torch.manual_seed(17)
        np.random.seed(17)  # noqa: NPY002
        pd.testing.assert_frame_equal(first, kernels.run(**TINY), check_exact=True)
        other = kernels.run(**TINY | {"seed": 3})
        assert (first["row_ratio"] != other["row_ratio"]).all()

    def test_rows(self):
        found = kernels.run(**TINY)
        assert list(found.columns) == ["activation", "depth", "width", *kernels.MEASURES]
        want = set(itertools.product(kernels.ACTIVATIONS, [(2, 5), (1, 4)]))
        assert {(row.activation, (row.depth, row.width)) for row in found.itertuples()} == want
        assert len(found) == len(want)

    def test_against_explicit_gradients(self):
        x = torch.as_tensor(kernels.pairs("Walker2d-v5", n_pairs=12, seed=2))
        net = kernels.network([23, 4, 1], activation="sin", initialisation="glorot", seed=2)
        rows = []
        for row in x:
            slopes = torch.autograd.grad(net(row[None])[0, 0], list(net.parameters()))
            rows.append(torch.cat([slope.ravel() for slope in slopes]))
        want = kernels.measure((torch.stack(rows) @ torch.stack(rows).T).numpy())
        found = kernels.run(**TINY).query("activation == 'sin' and width == 4").iloc[0]
        assert dict(found[kernels.MEASURES]) == pytest.approx(want)


class TestSummaryOfTheKernels:
    """Mean over seeds and a t interval, cell by cell."""

    def data(self, values, **other):
        cell = {"environment": "E", "initialisation": "glorot", "activation": "sin", "depth": 2, "width": 64} | other
        rows = [cell | dict.fromkeys(kernels.MEASURES, value) | {"seed": k} for k, value in enumerate(values)]
        return pd.DataFrame(rows)

    def test_a_cell_by_hand(self):
        """Of 1, 2, 3: mean 2, standard error 1 / sqrt 3, and t(0.975; 2) = 4.302653 from a table."""
        found = kernels.summary(self.data([1.0, 2.0, 3.0]))
        assert list(found["measure"]) == kernels.MEASURES
        assert found["mean"].tolist() == [2.0] * len(kernels.MEASURES)
        assert (found["high"] - 2).tolist() == pytest.approx([4.302653 / 3**0.5] * len(kernels.MEASURES), rel=1e-6)
        assert (2 - found["low"]).tolist() == pytest.approx([4.302653 / 3**0.5] * len(kernels.MEASURES), rel=1e-6)
        assert found["n"].tolist() == [3] * len(kernels.MEASURES)

    def test_cells_are_kept_apart(self):
        found = kernels.summary(pd.concat([self.data([1.0, 2.0]), self.data([5.0, 6.0], width=32)]))
        assert set(zip(found["width"], found["mean"], strict=True)) == {(64, 1.5), (32, 5.5)}

    def test_the_interval_covers_as_often_as_it_says(self, rng):
        draws = rng.standard_normal((2000, 4))
        data = pd.concat([self.data(row, width=k) for k, row in enumerate(draws)])
        found = kernels.summary(data, level=0.8).query("measure == 'row_ratio'")
        covered = ((found["low"] < 0) & (found["high"] > 0)).mean()
        assert covered == pytest.approx(0.8, abs=0.04)

    def test_one_seed_is_refused(self):
        with pytest.raises(ValueError, match="at least two seeds"):
            kernels.summary(self.data([1.0]))

    def test_a_seed_twice_is_refused(self):
        with pytest.raises(ValueError, match="each seed of a network once"):
            kernels.summary(pd.concat([self.data([1.0, 2.0])] * 2))

    def test_a_level_of_one_is_refused(self):
        with pytest.raises(ValueError, match="level must be in"):
            kernels.summary(self.data([1.0, 2.0]), level=1)


class TestTrends:
    """Slopes of the binary logarithm, a seed at a time."""

    def data(self, power, layer):
        rows = []
        for activation, layers, seed in itertools.product(kernels.ACTIVATIONS, kernels.HIDDEN, range(3)):
            depth, width = len(layers), layers[0]
            value = (1 + seed) * width ** (power + 0.1 * (seed - 1)) * 2.0 ** (layer * depth)
            cell = {"environment": "E", "initialisation": "glorot", "activation": activation, "depth": depth}
            rows.append(cell | {"width": width, "seed": seed} | dict.fromkeys(kernels.MEASURES, value))
        return pd.DataFrame(rows).sample(frac=1, random_state=0)  # in no order

    def test_a_power_law(self):
        """Slopes 0.4, 0.5 and 0.6 in three seeds: 0.5, give or take 4.302653 * 0.1 / sqrt 3."""
        found = kernels.trends(self.data(0.5, -1.5))
        assert len(found) == 3 * 2 * len(kernels.POSITIVE)
        assert set(found["n"]) == {3}
        width, depth = (found.query(f"axis == '{axis}'") for axis in ("width", "depth"))
        np.testing.assert_allclose(width["mean"], 0.5)
        np.testing.assert_allclose(width["high"] - width["mean"], 0.4302653 / 3**0.5, rtol=1e-6)
        np.testing.assert_allclose(depth[["mean", "low", "high"]], -1.5)

    def test_a_seed_twice_is_refused(self):
        with pytest.raises(ValueError, match="each seed of a network once"):
            kernels.trends(pd.concat([self.data(1, 1)] * 2))


class TestCompare:
    """Factors between activations, in pairs of the same seed."""

    def data(self, relu, sin):
        rows = [
            {"environment": "E", "initialisation": "glorot", "activation": name, "depth": 2, "width": 64, "seed": seed}
            | dict.fromkeys(kernels.MEASURES, value)
            for name, values in (("relu", relu), ("sin", sin))
            for seed, value in enumerate(values)
        ]
        return pd.DataFrame(rows).sample(frac=1, random_state=0)  # in no order

    def test_pairs_of_equal_factor_leave_no_doubt(self):
        found = kernels.compare(self.data([3.0, 30.0, 300.0], [1.0, 10.0, 100.0]), "relu", "sin")
        assert found["measure"].tolist() == kernels.POSITIVE
        np.testing.assert_allclose(found[["mean", "low", "high"]], 3)

    def test_geometric_mean(self):
        """Factors 1, 2 and 4: the mean is 2, and the interval a factor 2^(4.302653 / sqrt 3) on both sides."""
        found = kernels.compare(self.data([1.0, 2.0, 4.0], [1.0, 1.0, 1.0]), "sin", "relu")
        np.testing.assert_allclose(found["mean"], 0.5)
        np.testing.assert_allclose(found["high"] / 0.5, 2 ** (4.302653 / 3**0.5), rtol=1e-6)
        np.testing.assert_allclose(0.5 / found["low"], 2 ** (4.302653 / 3**0.5), rtol=1e-6)

    def test_unknown_activation(self):
        with pytest.raises(ValueError, match="activation must be one of 'relu', 'tanh', 'sin', got 'cos'"):
            kernels.compare(self.data([1.0, 2.0], [1.0, 2.0]), "relu", "cos")


class TestOrdersOfNetworks:
    """Rank correlations: by hand, in one heap and apart, and of what has nothing to do with each other."""

    def test_by_hand(self):
        """Of 1 2 3 4 and 2 1 4 3: 1 - 6 (1 + 1 + 1 + 1) / (4 * 15) = 0.6; and of 1 2 3 4 and 4 3 2 1: -1."""
        rows = [{"seed": 0, "a": a, "b": b} for a, b in zip((1, 2, 3, 4), (20, 10, 40, 30), strict=True)]
        rows += [{"seed": 1, "a": a, "b": -(a**3)} for a in (1, 2, 3, 4)]
        found = kernels.agreement(pd.DataFrame(rows), "a", "b")
        assert list(found.columns) == ["mean", "low", "high", "n"] and found["n"].tolist() == [2]
        assert found["mean"].tolist() == pytest.approx([-0.2])
        assert found["high"].tolist() == pytest.approx([-0.2 + 12.7062047 * 0.8], rel=1e-6)  # t(0.975; 1) from a table

    def test_ties_as_scipy_has_them(self, rng):
        data = pd.DataFrame(
            {"seed": np.repeat([0, 1], 30), "a": rng.integers(5, size=60), "b": rng.integers(5, size=60)}
        )
        want = [stats.spearmanr(some.a, some.b).statistic for _, some in data.groupby("seed")]
        assert kernels.agreement(data, "a", "b")["mean"].tolist() == pytest.approx([np.mean(want)])

    def test_the_heap_can_have_the_other_sign(self, rng):
        """Simpson's paradox, planted: within each kind b falls with a, and the kinds stand the other way."""
        data = pd.DataFrame(itertools.product("xyz", range(4), range(8)), columns=["kind", "seed", "a"])
        shift = data.kind.map({"x": 0, "y": 20, "z": 40})
        data = data.assign(b=shift - data.a + rng.normal(0, 0.1, len(data)), a=data.a + shift)
        assert kernels.agreement(data, "a", "b")["low"].item() > 0.7
        apart = kernels.agreement(data, "a", "b", within=["kind"])
        assert apart["kind"].tolist() == list("xyz") and apart["high"].max() < -0.9

    def test_over_settings_or_over_seeds(self, rng):
        """A dial that moves both, and seeds that part them: the order of the settings is not that of the seeds."""
        data = pd.DataFrame(itertools.product(range(6), range(6)), columns=["scale", "seed"])
        data = data.assign(a=10 * data.scale + data.seed, b=10 * data.scale - data.seed)
        assert kernels.agreement(data, "a", "b")["mean"].item() == pytest.approx(1)
        assert kernels.agreement(data, "a", "b", over=["scale"])["mean"].item() == pytest.approx(-1)

    def test_chance_is_covered(self, rng):
        """Of quantities without a relation the interval holds 0 as often as it says."""
        data = pd.DataFrame(itertools.product(range(400), range(10), range(8)), columns=["kind", "seed", "setting"])
        data = data.assign(a=rng.random(len(data)), b=rng.random(len(data)))
        found = kernels.agreement(data, "a", "b", within=["kind"], level=0.9)
        assert ((found.low < 0) & (found.high > 0)).mean() == pytest.approx(0.9, abs=0.04)

    def test_what_does_not_vary_has_no_order(self):
        data = pd.DataFrame(itertools.product(range(3), range(4)), columns=["seed", "a"])
        data = data.assign(b=np.where(data.seed == 0, 7, data.a))
        found = kernels.agreement(data, "a", "b")
        assert found["n"].item() == 2 and found["mean"].item() == pytest.approx(1)
        with pytest.raises(ValueError, match="at least two correlations"):
            kernels.agreement(data[data.seed < 2], "a", "b")


class TestCommittedKernels:
    """book/results/kernels holds the whole grid, once, and what the code computes."""

    def test_complete(self):
        data = studies.load("kernels")
        assert not data.duplicated([*kernels.CELL, "seed"]).any()
        runs = set(data[list(kernels.PARAMETERS)].drop_duplicates().itertuples(index=False, name=None))
        assert runs == set(itertools.product(*kernels.PARAMETERS.values()))
        assert len(data) == len(runs) * len(kernels.ACTIVATIONS) * len(kernels.HIDDEN)
        assert not data.isna().any(axis=None)

    def test_reproduced(self):
        """One network of one run, at full size; rounding differs between processors, trajectories follow it."""
        found = kernels.run(environment="Walker2d-v5", initialisation="pytorch", seed=0, hidden=((64,),))
        data = studies.load("kernels").query("seed == 0 and depth == 1 and width == 64")
        kept = data.query("environment == 'Walker2d-v5' and initialisation == 'pytorch'")
        assert kept["activation"].tolist() == found["activation"].tolist()
        np.testing.assert_allclose(kept[kernels.MEASURES], found[kernels.MEASURES], rtol=0.05)

    def test_the_largest_is_no_less_than_the_mean(self):
        data = studies.load("kernels")
        assert (data["largest_row_ratio"] >= data["row_ratio"]).all()
        assert (data["shortfall"] / 199 / 1000 <= data["row_ratio"] * (1 + 1e-6)).all()
