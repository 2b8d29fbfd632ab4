"""What chapter 2 asked of the package: the threshold of w to 2w, the bound of a table, and three ways to draw."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divergence_notes import bellman, dynamics, examples, plotting, updates
from divergence_notes.mdp import random_mdp


@pytest.fixture
def ax():
    """Return axes that are closed again."""
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


class TestThreshold:
    """Above the critical discount w to 2w diverges, below it converges; only both states trained equally gives 5/6."""

    @pytest.mark.parametrize(("weights", "value"), [((1, 0), 1 / 2), ((0.5, 0.5), 5 / 6), ((0, 1), 1.0)])
    def test_on_paper(self, weights, value):
        assert examples.w_to_2w_threshold(weights) == pytest.approx(value, rel=1e-14)

    @pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
    @pytest.mark.parametrize(("side", "status"), [(-0.05, "converged"), (0.05, "diverged")])
    def test_parts_the_fates(self, share, side, status):
        weights = (1 - share, share)
        gamma = examples.w_to_2w_threshold(weights) + side
        example = examples.w_to_2w(gamma, weights=weights)
        assert example.status == status
        assert dynamics.iterate(example.update, example.Q0, max_iter=20_000).status == status

    def test_needs_a_distribution(self):
        with pytest.raises(ValueError, match="weights"):
            examples.w_to_2w_threshold((0.5, 0.6))


class TestTableBound:
    """thm-table-bound: a table inside the bound stays inside if alpha rho_i <= 1. One that starts outside does not."""

    @given(seed=st.integers(0, 10_000), part=st.floats(0.05, 1))
    def test_inside_stays_inside(self, seed, part):
        rng = np.random.default_rng(seed)
        mdp, rho = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng), rng.dirichlet(np.ones(6))
        bound = np.abs(mdp.R).max() / (1 - 0.9)
        Q = rng.choice([-bound, bound], size=(3, 2))
        after = Update.shares(mdp, weights=rho, alpha=part / rho.max())(Q)
        assert np.abs(after).max() <= bound * (1 + 1e-12)

    def test_outside_it_may_stay_outside_for_long(self):
        update = examples.self_loop(0.9).update
        run = dynamics.iterate(update, [[110.0]], max_iter=20)
        assert run.sizes.min() > 10  # the bound

    def test_a_longer_step_leaves(self):
        update = examples.self_loop(0.9).update
        assert abs(Update.shares(update.mdp, weights=[1.0], alpha=11.0)([[-10.0]])[0, 0]) > 10


class TestOverEstimates:
    """A new over-estimate in every target adds up to gamma b / (1 - gamma) in a table, and to no more."""

    def test_on_the_loop(self):
        mdp = replace(examples.self_loop(0.9).update.mdp, R=np.zeros((1, 1)))
        run = dynamics.iterate(
            lambda Q: Q + 0.5 * (bellman.optimality_backup(Q + 1.54, mdp) - Q), [[0.0]], max_iter=2000
        )
        assert run.status == "converged"
        assert run.values[-1, 0, 0] == pytest.approx(0.9 * 1.54 / 0.1, abs=1e-4)
        assert (np.diff(run.sizes) >= 0).all()


class TestTriadWithAnyLegMissing:
    """What each switch means, on the example with a choice."""

    def test_all_legs_are_the_example_itself(self, rng):
        example = examples.baird_control()
        Q = rng.standard_normal(example.Q0.shape)
        operator = examples.triad_operator(example, approximation=True, bootstrapping=True, off_policy=True)
        np.testing.assert_allclose(operator(Q), example.update(Q), rtol=1e-13)

    def test_on_policy_weights_follow_the_greedy_action(self):
        """The visits are computed once for each greedy policy; the cache must not mix two of them up."""
        example = examples.full_data_divergence()
        operator = examples.triad_operator(example, approximation=False, bootstrapping=False, off_policy=False)
        first, second = np.array([[1.0, 0.5]]), np.array([[0.5, 1.0]])
        for Q, rho in ((first, [0.95, 0.05]), (second, [0.05, 0.95]), (first, [0.95, 0.05])):
            np.testing.assert_allclose(operator(Q), Q - example.update.alpha * np.array([rho]) * Q, rtol=1e-12)


class TestDrawings:
    """What is drawn is what was given."""

    def test_response(self, ax):
        change = np.arange(6.0).reshape(2, 3) - 1
        plotting.plot_response(change, trained=(1, 2), ax=ax, limit=5, colorbar=True)
        np.testing.assert_array_equal(ax.images[0].get_array(), change)
        assert ax.images[0].get_clim() == (-5, 5)
        np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[2, 1]])  # x is the column
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("column", "row")

    def test_diagram(self, ax):
        plotting.plot_diagram([[0, 0], [2, 0]], ["a", "b"], [(0, 1), (1, 1)], dashed=[(1, 0)], ax=ax)
        np.testing.assert_array_equal([circle.center for circle in ax.patches], [(0, 0), (2, 0)])
        assert [text.get_text() for text in ax.texts] == ["a", "b", "", "", ""]
        tip, tail = ax.texts[2].xy, ax.texts[2].xyann
        np.testing.assert_allclose([*tail, *tip], [0.34, 0, 1.66, 0])  # from rim to rim

    def test_diagram_wants_a_place_for_each_label(self, ax):
        with pytest.raises(ValueError, match="places"):
            plotting.plot_diagram([[0, 0]], ["a", "b"], [], ax=ax)

    def test_boundary(self, ax):
        x = np.linspace(0, 1, 7)
        plotting.plot_boundary(x, x**2, below="converged", above="diverged", ax=ax, low=-1, high=2)
        np.testing.assert_array_equal(ax.lines[0].get_xydata(), np.stack([x, x**2], axis=1))
        heights = {text.get_text(): text.get_position()[1] for text in ax.texts}
        assert heights["converged"] < x[2] ** 2 < heights["diverged"]
        assert ax.get_ylim() == (-1, 2)
