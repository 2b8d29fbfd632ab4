"""What chapter 2 asked of the package: the threshold of w to 2w, and three ways to draw."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from divergence_notes import counterexamples, dynamics, plotting


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
        assert counterexamples.w_to_2w_threshold(weights) == pytest.approx(value, rel=1e-14)

    @pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
    @pytest.mark.parametrize(("side", "status"), [(-0.05, "converged"), (0.05, "diverged")])
    def test_parts_the_fates(self, share, side, status):
        weights = (1 - share, share)
        gamma = counterexamples.w_to_2w_threshold(weights) + side
        example = counterexamples.w_to_2w(gamma, weights=weights)
        assert example.status == status
        assert dynamics.iterate(example.operator, example.Q0, max_iter=20_000).status == status

    def test_needs_a_distribution(self):
        with pytest.raises(ValueError, match="weights"):
            counterexamples.w_to_2w_threshold((0.5, 0.6))


class TestTriadWithAnyLegMissing:
    """What each switch means, on the example with a choice."""

    def test_all_legs_are_the_example_itself(self, rng):
        example = counterexamples.baird_control()
        Q = rng.standard_normal(example.Q0.shape)
        operator = counterexamples.triad_operator(example, approximation=True, bootstrapping=True, off_policy=True)
        np.testing.assert_allclose(operator(Q), example.operator(Q), rtol=1e-13)

    def test_on_policy_weights_follow_the_greedy_action(self):
        """The visits are computed once for each greedy policy; the cache must not mix two of them up."""
        example = counterexamples.pair()
        operator = counterexamples.triad_operator(example, approximation=False, bootstrapping=False, off_policy=False)
        first, second = np.array([[1.0, 0.5]]), np.array([[0.5, 1.0]])
        for Q, rho in ((first, [0.95, 0.05]), (second, [0.05, 0.95]), (first, [0.95, 0.05])):
            np.testing.assert_allclose(operator(Q), Q - example.alpha * np.array([rho]) * Q, rtol=1e-12)


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
