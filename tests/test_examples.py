"""The cast of the book: each example meets its stated fate by its own operator; the theory behind it is recomputed."""

import functools
import itertools
import re
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divergence_notes import dynamics, examples, updates
from divergence_notes.mdp import FiniteMDP
from tests import oracles
from tests.strategies import generators

EXAMPLES = {
    "self_loop": examples.self_loop,
    "row_dominant": examples.row_dominant,
    "sup_norm_only": examples.sup_norm_only,
    "weighted_norm_only": examples.weighted_norm_only,
    "some_norm_only": examples.some_norm_only,
    "closed_orbit": examples.closed_orbit,
    "unstable_product_converges": examples.unstable_product_converges,
    "low_gain_divergence": examples.low_gain_divergence,
    "stable_pieces_divergence": examples.stable_pieces_divergence,
    "switching_divergence, first": lambda: examples.switching_divergence()[0],
    "switching_divergence, second": lambda: examples.switching_divergence()[1],
    "w_to_2w_full_rank": examples.w_to_2w_full_rank,
    "w_to_2w_full_rank, low gamma": lambda: examples.w_to_2w_full_rank(0.4),
    "w_to_2w_full_rank, both trained": lambda: examples.w_to_2w_full_rank(0.5, [0.5, 0.5]),
    "full_data_divergence": examples.full_data_divergence,
    "w_to_2w": examples.w_to_2w,
    "w_to_2w, low gamma": lambda: examples.w_to_2w(0.3),
    "w_to_2w, both trained": lambda: examples.w_to_2w(0.9, [0.5, 0.5]),
    "w_to_2w, both trained, low gamma": lambda: examples.w_to_2w(0.7, [0.5, 0.5]),
    "baird_star": examples.baird_star,
    "baird_star, low gamma": lambda: examples.baird_star(0.6),
    "baird_control": examples.baird_control,
    "no_fixed_point": examples.no_fixed_point,
}


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def gradient_field(update, policy):
    """Return G = K D (I - gamma P_pi) from the update's own numbers, by loops."""
    mdp = update.mdp
    return update.kernel @ np.diag(update.weights) @ (np.eye(mdp.n_pairs) - mdp.gamma * oracles.chain(mdp, policy))


def jacobian(update, policy):
    """Return I - alpha G of one policy."""
    return np.eye(update.mdp.n_pairs) - update.alpha * gradient_field(update, policy)


def radius(update, policy):
    return np.abs(np.linalg.eigvals(jacobian(update, policy))).max()


class TestEachExample:
    """From its start, the update of each example meets the fate that it states."""

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_fate(self, name):
        example = EXAMPLES[name]()
        run = dynamics.iterate(example.update, example.Q0, max_iter=800, bound=1e4, tol=1e-4)
        assert run.status == example.status
        if run.status == "undecided":
            assert run.sizes.max() < 10
            assert run.steps[-200:].max() > 0.05

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_parts_fit_together(self, name):
        example = EXAMPLES[name]()
        update = example.update
        assert example.Q0.shape == update.mdp.R.shape
        assert update.weights.shape == (update.mdp.n_pairs,)
        assert update.weights.sum() == pytest.approx(1)
        assert example.status in dynamics.STATUSES
        assert example.name
        assert example.source
        if name != "stable_pieces_divergence":
            np.testing.assert_array_equal(update.kernel, update.kernel.T)
        if example.features is not None:
            np.testing.assert_allclose(update.kernel, example.features @ example.features.T)
            residual = np.linalg.lstsq(example.features, example.Q0.ravel(), rcond=None)[0]
            np.testing.assert_allclose(example.features @ residual, example.Q0.ravel(), atol=1e-9)
        assert np.abs(example.Q0 - example.target).max() >= 0.5 - 1e-12  # it starts away from the answer
        expected = oracles.kernel_update(update, example.Q0)
        np.testing.assert_allclose(update(example.Q0), expected, atol=1e-10)

    @pytest.mark.parametrize("name", ["self_loop", "closed_orbit", "full_data_divergence", "w_to_2w", "no_fixed_point"])
    def test_target_is_the_optimal_table(self, name):
        example = EXAMPLES[name]()
        np.testing.assert_allclose(example.target, oracles.best_table(example.update.mdp), atol=1e-9)

    @pytest.mark.parametrize(
        "name",
        [
            "self_loop",
            "row_dominant",
            "sup_norm_only",
            "weighted_norm_only",
            "some_norm_only",
            "unstable_product_converges",
            "stable_pieces_divergence",
        ],
    )
    def test_the_quiet_ones_are_stable_by_their_eigenvalues(self, name):
        update = EXAMPLES[name]().update
        assert max(radius(update, policy) for policy in oracles.policies(update.mdp)) < 1


DISCOUNTS = [*np.arange(40) / 40, 0.879, 0.8796, 0.8798, 0.88, 0.8823, 0.8824]
BOTH_STATES = [(1, 0), (0.9, 0.1), (0.5, 0.5), (0.2, 0.8), (0, 1)]
WITH_A_DISCOUNT = {
    "self_loop": examples.self_loop,
    "fitted_w_to_2w": examples.fitted_w_to_2w,
    "baird_star": examples.baird_star,
    **{f"w_to_2w, {rho}": functools.partial(examples.w_to_2w, weights=rho) for rho in BOTH_STATES},
    **{f"w_to_2w_full_rank, {rho}": functools.partial(examples.w_to_2w_full_rank, weights=rho) for rho in BOTH_STATES},
}


@pytest.mark.parametrize("name", WITH_A_DISCOUNT)
class TestEveryDiscount:
    """What is stated is the fate at the step size of the example, on both sides of every threshold, and at w to 2w's.

    Each has one action: a million steps are one power of its Jacobian.
    """

    def test_fate(self, name):
        for gamma in DISCOUNTS:
            example = WITH_A_DISCOUNT[name](gamma)
            start = (example.Q0 - example.target).ravel()
            with np.errstate(over="ignore", invalid="ignore"):
                end = np.linalg.matrix_power(jacobian(example.update, [0] * len(start)), 2**20) @ start
            growth = np.abs(end).max() / np.abs(start).max()
            far = not growth < 1e3  # or not a number
            assert far or growth < 1 + 1e-6, gamma
            assert example.status == ("diverged" if far else "converged"), gamma


class TestCalm:
    """It starts where the fast and the slow direction mix, so that the path bends."""

    def test_start(self):
        example = examples.sup_norm_only()
        kernel = example.update.kernel
        fast, slow = kernel @ [1, 1], kernel @ [1, -1]  # the symmetric and the antisymmetric direction
        assert fast[0] > slow[0] > 0
        assert example.Q0[0, 0] > 0 > example.Q0[1, 0]
        assert example.Q0.sum() > 0.5


class TestQuietLoop:
    """The third pair has no data, the gain through it is below 1, and the plain update diverges at every step size."""

    def test_the_kernel_is_positive_definite_and_the_gain_is_below_one(self):
        update = examples.low_gain_divergence().update
        assert np.linalg.eigvalsh(update.kernel).min() > 0.27
        inside, outside = update.kernel[:2, :2], update.kernel[2, :2]
        W = np.linalg.inv(inside) @ outside  # symmetric: the row of the third pair
        np.testing.assert_allclose(W, [0.99, 0], atol=1e-12)
        assert 0.9 * np.abs(W).sum() == pytest.approx(0.891)

    def test_along_the_line_both_eigenvalues_point_outwards(self):
        """Q moves by -alpha G Q; what is conserved leaves two directions, and each grows for every alpha > 0."""
        G = gradient_field(examples.low_gain_divergence().update, [0, 0, 0])
        rates = sorted(np.linalg.eigvals(G).real)
        np.testing.assert_allclose(rates, [-0.7191, -0.0667, 0], atol=1e-4)
        np.testing.assert_allclose(np.linalg.eigvals(G).imag, 0, atol=1e-9)

    def test_without_the_spill_both_point_inwards(self):
        update = examples.low_gain_divergence().update
        apart = update.kernel * [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
        G = apart @ np.diag(update.weights) @ (np.eye(3) - 0.9 * oracles.chain(update.mdp, np.zeros(3, dtype=int)))
        assert sorted(np.linalg.eigvals(G).real)[1] > 0.09  # the one 0 belongs to the pair without data


class TestOrbit:
    """One state, two actions: the optimum is the only fixed point, it repels, and nothing escapes."""

    def test_the_optimum_repels(self):
        example = examples.closed_orbit()
        np.testing.assert_allclose(example.target, [[2.0, 1.0]])
        np.testing.assert_allclose(example.update(example.target), example.target, atol=1e-12)
        eigenvalues = np.linalg.eigvals(jacobian(example.update, [0]))
        np.testing.assert_allclose(
            sorted(eigenvalues, key=lambda z: z.imag), [1.01875 - 0.2030j, 1.01875 + 0.2030j], atol=1e-4
        )
        assert np.abs(eigenvalues).max() == pytest.approx(1.0388, abs=1e-4)
        assert radius(example.update, [1]) == pytest.approx(0.9451, abs=1e-4)

    def test_it_stays_away_and_stays_bounded(self):
        run = dynamics.iterate(
            examples.closed_orbit().update, examples.closed_orbit().Q0, max_iter=900, target=[[2.0, 1.0]]
        )
        assert 0.1 < run.errors[500:].min() < run.errors[500:].max() < 3.3

    def test_another_reward_another_fate(self):
        orbit = examples.closed_orbit()
        swapped = replace(orbit, update=replace(orbit.update, mdp=replace(orbit.update.mdp, R=[[0.0, 1.0]])))
        assert dynamics.iterate(swapped.update, swapped.Q0, max_iter=1000, tol=1e-6).status == "converged"
        np.testing.assert_allclose(swapped.target, [[1.0, 2.0]])


class TestPair:
    """One state, two actions, positive definite K, every pair sampled: it diverges from one side at every step size."""

    def test_eigenvalues(self):
        update = examples.full_data_divergence().update
        assert np.linalg.eigvalsh(update.kernel).min() > 0
        assert update.weights.min() > 0
        np.testing.assert_allclose(
            np.sort(np.linalg.eigvals(gradient_field(update, [0]))), [-0.762, -0.0577], atol=1e-3
        )
        assert radius(update, [0]) == pytest.approx(1.0762, abs=1e-4)
        assert radius(update, [1]) == pytest.approx(0.9969, abs=1e-4)

    def test_the_trace_decides(self):
        """g (K11 rho1 + K12 rho2) > K11 rho1 + K22 rho2 is a negative trace; the determinant is positive."""
        update = examples.full_data_divergence().update
        K, rho, G = update.kernel, update.weights, gradient_field(update, [0])
        assert 0.9 * (K[0, 0] * rho[0] + K[0, 1] * rho[1]) > K[0, 0] * rho[0] + K[1, 1] * rho[1]
        assert np.trace(G) < 0 < np.linalg.det(G)

    @pytest.mark.parametrize("alpha", [1e-2, 0.1, 1.0])
    def test_every_step_size(self, alpha):
        pair = examples.full_data_divergence()
        step = replace(pair.update, alpha=alpha)
        run = dynamics.iterate(step, pair.Q0, max_iter=int(9 / alpha) + 30, bound=1e3)
        assert run.status == "diverged"

    def test_the_unstable_direction_keeps_its_greedy_action(self):
        values, vectors = np.linalg.eig(gradient_field(examples.full_data_divergence().update, [0]))
        ray = vectors[:, values.argmin()]
        ray = ray / ray[0]
        assert ray[0] > ray[1] == pytest.approx(0.429, abs=1e-3)

    def test_the_other_side_runs_home(self):
        run = dynamics.iterate(
            examples.full_data_divergence().update, [[0.0, 1.0]], max_iter=700, target=[[0.0, 0.0]], tol=0
        )
        assert run.errors[-1] < 0.2 < run.errors[0]
        assert run.errors[-1] / run.errors[-2] == pytest.approx(0.9969, abs=1e-4)


class TestWTo2W:
    """Values w and 2w: the weight is multiplied by 1 + alpha (rho_1 (2g - 1) + rho_2 (4g - 4)) at every step."""

    @given(rng=generators(), gamma=st.sampled_from([0, 0.3, 0.6, 0.9, 0.99]))
    @settings(max_examples=25)
    def test_drift(self, rng, gamma):
        rho = rng.dirichlet([1, 1])
        example = examples.w_to_2w(gamma, rho)
        update = example.update
        factor = 1 + update.alpha * (rho[0] * (2 * gamma - 1) + rho[1] * (4 * gamma - 4))
        np.testing.assert_allclose(update(example.Q0), factor * example.Q0)
        assert example.status == ("diverged" if factor > 1 else "converged")
        assert example.Q0.ravel().tolist() == [1.0, 2.0]
        moving = np.linalg.eigvals(jacobian(update, [0, 0]))
        np.testing.assert_allclose(sorted(moving.real), sorted([1.0, factor]), atol=1e-12)

    @pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
    @pytest.mark.parametrize(("side", "status"), [(-0.05, "converged"), (0.05, "diverged")])
    def test_the_threshold_parts_the_fates(self, share, side, status):
        weights = (1 - share, share)
        example = examples.w_to_2w(examples.w_to_2w_threshold(weights) + side, weights)
        assert example.status == status
        assert dynamics.iterate(example.update, example.Q0, max_iter=20_000).status == status

    @given(share=st.floats(0, 1))
    @settings(max_examples=25)
    def test_threshold(self, share):
        rho = [1 - share, share]
        edge = examples.w_to_2w_threshold(rho)
        assert 0.5 <= edge <= 1
        for gamma, status in ((edge - 1e-3, "converged"), (edge + 1e-3, "diverged")):
            if gamma < 1:
                assert examples.w_to_2w(gamma, rho).status == status

    def test_known_thresholds(self):
        assert examples.w_to_2w_threshold([1, 0]) == 0.5
        assert examples.w_to_2w_threshold([0.5, 0.5]) == pytest.approx(5 / 6)
        assert examples.w_to_2w_threshold([0, 1]) == 1

    def test_refuses(self):
        for function in (lambda w: examples.w_to_2w(0.9, w), examples.w_to_2w_threshold):
            with refuses(ValueError, "weights must be a distribution: its entries sum to 1.5, not to 1"):
                function([1.0, 0.5])
            with refuses(ValueError, "weights must have shape (2,), got (3,)"):
                function([1.0, 0.0, 0.0])
        with refuses(ValueError, "gamma must be in [0, 1), got 1"):
            examples.w_to_2w(1)


class TestLever:
    """A weight of its own for the second state makes K positive definite; the drift eigenvalue 2 gamma - 1 stays.

    The pair that is trained lifts the other by W = 2, gamma of which comes back: it diverges above gamma = 1/2, and
    rests at 1/2.
    """

    def test_kernel(self):
        assert examples.w_to_2w_full_rank().update.kernel.tolist() == [[1.0, 2.0], [2.0, 5.0]]
        assert np.linalg.eigvalsh(examples.w_to_2w_full_rank().update.kernel).min() > 0

    @pytest.mark.parametrize("gamma", [0.3, 0.9])
    def test_drift(self, gamma):
        drift = np.sort(np.linalg.eigvals(-gradient_field(examples.w_to_2w_full_rank(gamma).update, [0, 0])).real)
        np.testing.assert_allclose(drift, sorted([2 * gamma - 1, 0.0]), atol=1e-12)

    def test_starts_like_w_to_2w(self):
        assert examples.w_to_2w_full_rank().Q0.tolist() == examples.w_to_2w().Q0.tolist()

    @pytest.mark.parametrize(("gamma", "fate"), [(0.46, "converged"), (0.54, "diverged")])
    def test_threshold(self, gamma, fate):
        example = examples.w_to_2w_full_rank(gamma)
        assert example.status == fate
        assert dynamics.iterate(example.update, example.Q0, max_iter=4000).status == fate

    def test_at_the_threshold_it_rests(self):
        """There the Jacobian has the double eigenvalue 1 without two eigenvectors, which no computed one is near."""
        example = examples.w_to_2w_full_rank(0.5)
        np.testing.assert_array_equal(example.update(example.Q0), example.Q0)
        assert example.status == "converged" == examples.w_to_2w(0.5).status

    @pytest.mark.parametrize("name", ["w_to_2w", "w_to_2w_full_rank"])
    def test_just_above_the_threshold_it_diverges(self, name):
        """The factor is 1 + 0.1 (2 gamma - 1), however near to 1."""
        near = [getattr(examples, name)(0.5 + beyond).status for beyond in (-1e-9, 1e-9)]
        assert near == ["converged", "diverged"]

    @given(rng=generators(), gamma=st.sampled_from([0, 0.3, 0.6, 0.9, 0.99]))
    @settings(max_examples=25)
    def test_the_determinant_decides(self, rng, gamma):
        example = examples.w_to_2w_full_rank(gamma, rng.dirichlet([1, 1]))
        area = np.linalg.det(jacobian(example.update, [0, 0]))
        assert (radius(example.update, [0, 0]) > 1 + 1e-12) == (area > 1)
        assert example.status == ("diverged" if area > 1 else "converged")

    def test_a_unique_fixed_point_does_not_help(self):
        example = examples.w_to_2w_full_rank(0.95, [0.9, 0.1])
        update = example.update
        assert np.linalg.matrix_rank(update.kernel * update.weights) == 2
        assert dynamics.iterate(update, example.Q0, max_iter=3000).status == example.status == "diverged"


class TestBairdStar:
    """Seven states that lead to the seventh, eight weights: short steps diverge above gamma = 15/17.

    Its own step size of 0.1 diverges above 256/291, a little lower.
    """

    def test_features(self):
        K = examples.baird_star().update.kernel
        np.testing.assert_array_equal(K[:6, :6], 1 + 4 * np.eye(6))
        np.testing.assert_array_equal(K[6, :6], 2)
        assert K[6, 6] == 5
        assert np.linalg.eigvalsh(K).min() > 0

    @pytest.mark.parametrize(("gamma", "grows"), [(15 / 17 - 1e-3, False), (15 / 17 + 1e-3, True), (0.99, True)])
    def test_threshold(self, gamma, grows):
        example = examples.baird_star(gamma)
        drift = np.linalg.eigvals(-gradient_field(example.update, [0] * 7)).real.max()
        assert (drift > 0) == grows

    @pytest.mark.parametrize("alpha", [1e-3, 0.1, 0.5])
    def test_threshold_of_a_step_size(self, alpha):
        """The determinant on outer value and centre, 1 + a (17 g - 15) / 7 + a^2 26 (1 - g) / 49, passes 1."""
        edge = (105 - 26 * alpha) / (119 - 26 * alpha)
        for gamma, grows in ((edge - 1e-5, False), (edge + 1e-5, True)):
            update = replace(examples.baird_star(gamma).update, alpha=alpha)
            assert (radius(update, [0] * 7) > 1) == grows
        assert edge < 15 / 17

    @pytest.mark.parametrize(
        ("gamma", "fate"),
        [(256 / 291 - 1e-6, "converged"), (256 / 291 + 1e-6, "diverged"), (0.88, "diverged"), (0.99, "diverged")],
    )
    def test_fate(self, gamma, fate):
        example = examples.baird_star(gamma)
        assert example.update.alpha == 0.1
        assert example.status == fate
        assert (radius(example.update, [0] * 7) > 1) == (fate == "diverged")

    def test_growth_rate(self):
        drift = np.linalg.eigvals(-gradient_field(examples.baird_star(0.99).update, [0] * 7)).real.max()
        assert drift == pytest.approx(0.23925, abs=1e-5)

    def test_the_symmetric_reduction(self):
        """Outer value x and centre y obey x' = -10 x + (12 g - 2) y, y' = -12 x + (17 g - 5) y, over 7."""
        g, tied = 0.99, np.array([1.0] * 6 + [0.0])
        field = -gradient_field(examples.baird_star(g).update, [0] * 7)
        by_hand = np.array([[-10, 12 * g - 2], [-12, 17 * g - 5]]) / 7
        np.testing.assert_allclose([(field @ tied)[0], (field @ tied)[6]], by_hand[:, 0])
        np.testing.assert_allclose([field[0, 6], field[6, 6]], by_hand[:, 1])


class TestBairdControl:
    """The star with a choice: only the solid rows fail the paper's condition."""

    def test_data(self):
        example = examples.baird_control()
        update = example.update
        assert update.mdp.R.shape == (7, 2)
        np.testing.assert_allclose(update.weights[0::2], 1 / 49)
        np.testing.assert_allclose(update.weights[1::2], 6 / 49)
        P = oracles.dense(update.mdp)
        np.testing.assert_array_equal(P[:, 0], np.tile(np.eye(7)[6], (7, 1)))
        np.testing.assert_allclose(P[:, 1], np.tile([1 / 6] * 6 + [0], (7, 1)))
        assert example.Q0.tolist() == [[3.0, 1.0]] * 6 + [[12.0, 1.0]]
        assert examples.baird_star().Q0.ravel().tolist() == [3.0] * 6 + [12.0]  # every weight 1, the seventh 10
        star = examples.baird_star().update.kernel
        np.testing.assert_array_equal(update.kernel[0::2, 0::2], star)
        np.testing.assert_array_equal(update.kernel[1::2, 1::2], np.eye(7))
        assert not update.kernel[0::2, 1::2].any()

    def test_solid_everywhere_is_unstable(self):
        assert radius(examples.baird_control().update, [0] * 7) > 1 > radius(examples.baird_control().update, [1] * 7)


class TestNoFixedPoint:
    """theta = r + 2 gamma |theta| has no solution for r = 1, gamma = 0.9: divergence from every start."""

    @pytest.mark.parametrize("theta", [-50.0, -1.0, 0.0, 3.0])
    def test_every_start(self, theta):
        example = examples.no_fixed_point()
        update = example.update
        start = (example.features * theta).reshape(2, 2)
        assert dynamics.iterate(update, start, max_iter=500, bound=1e6).status == "diverged"
        moved = update(start).ravel()[0] - theta
        assert moved == pytest.approx(update.alpha * (1 + 1.8 * abs(theta) - theta))
        assert moved > 0


class TestSwitching:
    """Two batches in turn: each converges alone, to the same table, and the turns diverge."""

    def test_both_sides(self):
        first, second = examples.switching_divergence()
        np.testing.assert_allclose(first.target, second.target)
        J = [jacobian(e.update, [0] * e.update.mdp.n_states) for e in (first, second)]
        assert np.abs(np.linalg.eigvals(J[0])).max() == pytest.approx(0.713, abs=1e-3)
        assert np.abs(np.linalg.eigvals(J[1])).max() == pytest.approx(0.636, abs=1e-3)
        assert np.abs(np.linalg.eigvals(J[0] @ J[1])).max() == pytest.approx(2.338, abs=1e-3)
        for e in (first, second):
            run = dynamics.iterate(e.update, e.Q0, max_iter=3000, target=e.target)
            assert run.status == "converged" and run.errors[-1] < 1e-8
        turns = dynamics.iterate(lambda Q: second.update(first.update(Q)), first.Q0, max_iter=200)
        assert turns.status == "diverged"


class TestPatient:
    """Every policy stable, products of two are not, and the greedy iteration converges all the same."""

    def test_products(self):
        update = examples.unstable_product_converges().update
        J = [jacobian(update, [a]) for a in (0, 1)]
        assert sorted(np.abs(np.linalg.eigvals(x)).max() for x in J) == pytest.approx([0.7919, 0.9649], abs=1e-4)
        assert np.abs(np.linalg.eigvals(J[0] @ J[1])).max() ** 0.5 == pytest.approx(1.0896, abs=1e-4)


def exact_pieces(update):
    """Return both pieces of one state with two actions, in fractions of the very floats stored."""
    mdp = update.mdp
    return pieces_of(update.kernel, shares=update.weights, go_on=mdp.P[0, :, 0], gamma=mdp.gamma, alpha=update.alpha)


def pieces_of(kernel, *, shares, go_on, gamma, alpha):
    """Return I - alpha K D (I - gamma P_pi) for one state with two actions, in fractions."""
    M = [[Fraction(k) * Fraction(w) for k, w in zip(row, shares, strict=True)] for row in kernel]
    go_on, gamma, alpha = [Fraction(chance) for chance in go_on], Fraction(gamma), Fraction(alpha)
    pieces = []
    for greedy in (0, 1):
        G = [[(j == k) - gamma * go_on[j] * (k == greedy) for k in (0, 1)] for j in (0, 1)]
        pieces.append([[(i == k) - alpha * (M[i][0] * G[0][k] + M[i][1] * G[1][k]) for k in (0, 1)] for i in (0, 1)])
    return pieces


def exact_step(pieces, table):
    """Return a greedy update of a table (x, y), and which action was greedy."""
    greedy = int(table[1] > table[0])
    return [row[0] * table[0] + row[1] * table[1] for row in pieces[greedy]], greedy


class TestSwing:
    """Every linear piece is stable, and the greedy update diverges; proved in fractions, without an eigenvalue."""

    def test_each_piece_is_stable(self):
        """Both roots of z^2 - tr z + det lie inside the unit circle exactly if |det| < 1 and |tr| < 1 + det."""
        for (a, b), (c, d) in exact_pieces(examples.stable_pieces_divergence().update):
            det = a * d - b * c
            assert abs(det) < 1 and abs(a + d) < 1 + det

    def test_a_cone_grows(self):
        """What holds at both edges of the cone holds inside: the greedy actions and the images are linear there."""
        pieces, low, high = exact_pieces(examples.stable_pieces_divergence().update), Fraction(4, 5), Fraction(17, 20)
        for slope in (low, high):
            table, word = [Fraction(1), slope], []
            for _ in range(3):
                gap = table[0] - table[1]
                table, greedy = exact_step(pieces, table)
                word.append(greedy)
                assert gap != 0
            assert word == [0, 0, 1]
            assert table[0] > Fraction(11, 10) and low < table[1] / table[0] < high

    def test_the_update_is_that_of_the_pieces(self):
        update, table = examples.stable_pieces_divergence().update, [Fraction(1), Fraction(4, 5)]
        Q = np.array([[1.0, 0.8]])
        for _ in range(30):
            table, _ = exact_step(exact_pieces(update), table)
            Q = update(Q)
            np.testing.assert_allclose(Q[0], [float(entry) for entry in table], rtol=1e-9)

    def test_it_is_not_only_the_cone(self):
        """None of 64 directions runs home; each piece alone brings all of them home."""
        update = examples.stable_pieces_divergence().update
        J = [jacobian(update, [action]) for action in (0, 1)]
        for turn in np.arange(64) * np.pi / 32:
            start = np.array([np.cos(turn), np.sin(turn)])
            greedy = dynamics.iterate(lambda x: J[int(x[1] > x[0])] @ x, start, max_iter=5000, bound=1e6)
            assert greedy.status == "diverged"
            for piece in J:
                assert dynamics.iterate(lambda x, J=piece: J @ x, start, max_iter=5000).status == "converged"

    def test_the_kernel_is_not_symmetric(self):
        kernel = examples.stable_pieces_divergence().update.kernel
        assert not np.allclose(kernel, kernel.T)
        assert np.linalg.eigvalsh(kernel + kernel.T).min() > 0


SYMMETRIC = {
    "kernel": [[Fraction(336, 100), Fraction(7, 2)], [Fraction(7, 2), Fraction(70)]],
    "shares": [Fraction(39, 40), Fraction(1, 40)],
    "go_on": [Fraction(4, 5), Fraction(1)],
    "gamma": Fraction(3, 5),
}
SHORT = Fraction(51, 100)  # a step with which thm-two-actions holds


def symmetric_swing(alpha=1.0):
    kernel, shares, go_on = (np.array(SYMMETRIC[name], dtype=float) for name in ("kernel", "shares", "go_on"))
    mdp = FiniteMDP(go_on.reshape(1, 2, 1), np.zeros((1, 2)), float(SYMMETRIC["gamma"]))
    return updates.KernelUpdate(mdp, kernel=kernel, weights=shares, alpha=float(alpha))


def is_stable(piece):
    """Say whether both roots of z^2 - tr z + det lie inside the unit circle."""
    (a, b), (c, d) = piece
    det = a * d - b * c
    return abs(det) < 1 and abs(a + d) < 1 + det


def is_short(piece):
    """Say whether no root of z^2 - tr z + det is real and at or below 0."""
    (a, b), (c, d) = piece
    det = a * d - b * c
    return (a + d) ** 2 < 4 * det or (det > 0 and a + d > 0)


def wedge_grows(pieces, *, low, high):
    """Say whether the actions 1, 1, 2 map the tables (x, y) with low x <= y <= high x into themselves and stretch them.

    Between the edges all is linear as long as both have the same greedy action, which ties would leave open.
    """
    for slope in (low, high):
        table, word = [Fraction(1), slope], []
        for _ in range(3):
            if table[0] == table[1]:
                return False
            table, greedy = exact_step(pieces, table)
            word.append(greedy)
        if word != [0, 0, 1] or table[0] <= 1 or not low <= table[1] / table[0] <= high:
            return False
    return True


class TestSymmetricSwing:
    """A symmetric positive definite kernel, both pieces stable, and it diverges: the step of thm-two-actions is needed.

    Proved in fractions, with the numbers of the page.
    """

    WEDGE: ClassVar = {"low": Fraction(95, 100), "high": Fraction(98, 100)}

    def test_the_kernel_is_symmetric_and_positive_definite(self):
        (a, b), (c, d) = SYMMETRIC["kernel"]
        assert b == c and a > 0 and a * d - b * c > 0
        assert sum(SYMMETRIC["shares"]) == 1 and min(SYMMETRIC["shares"]) > 0

    @pytest.mark.parametrize("alpha", [Fraction(1), SHORT])
    def test_each_piece_is_stable(self, alpha):
        assert all(map(is_stable, pieces_of(**SYMMETRIC, alpha=alpha)))

    def test_only_the_long_step_breaks_the_condition(self):
        assert [is_short(piece) for piece in pieces_of(**SYMMETRIC, alpha=1)] == [False, True]
        assert all(map(is_short, pieces_of(**SYMMETRIC, alpha=SHORT)))

    def test_a_wedge_grows(self):
        pieces = pieces_of(**SYMMETRIC, alpha=1)
        assert wedge_grows(pieces, **self.WEDGE)
        for slope in self.WEDGE.values():
            table = [Fraction(1), slope]
            for _ in range(3):
                table, _ = exact_step(pieces, table)
            assert table[0] > Fraction(11, 10) and Fraction(96, 100) < table[1] / table[0] < Fraction(97, 100)

    @pytest.mark.parametrize(
        "kernel",
        [((3.36, 3.5), (3.5, 60)), ((3.36, 2.5), (2.5, 70)), ((3.0, 3.5), (3.5, 70)), ((3.36, -3.5), (-3.5, 70))],
    )
    def test_the_proof_fails_for_another_kernel(self, kernel):
        assert not wedge_grows(pieces_of(**SYMMETRIC | {"kernel": kernel}, alpha=1), **self.WEDGE)

    def test_the_proof_fails_for_the_short_step(self):
        assert not wedge_grows(pieces_of(**SYMMETRIC, alpha=SHORT), **self.WEDGE)

    @pytest.mark.parametrize("slope", [0.95, 0.965, 0.98])
    def test_fates(self, slope):
        """Off with the long step; home with the short one, and under each action alone."""
        start = [[1.0, slope]]
        update = symmetric_swing()
        assert dynamics.iterate(update, start, max_iter=3000).status == "diverged"
        assert dynamics.iterate(symmetric_swing(SHORT), start, max_iter=3000).status == "converged"
        for action in (0, 1):
            J = jacobian(update, [action])
            assert dynamics.iterate(lambda x, J=J: J @ x, np.ravel(start), max_iter=3000).status == "converged"

    def test_the_update_is_that_of_the_pieces(self):
        pieces, table, Q = pieces_of(**SYMMETRIC, alpha=1), [Fraction(1), Fraction(95, 100)], np.array([[1.0, 0.95]])
        for _ in range(30):
            (table, _), Q = exact_step(pieces, table), symmetric_swing()(Q)
            np.testing.assert_allclose(Q[0], [float(entry) for entry in table], rtol=1e-9)


class TestStablePieces:
    """Among updates whose pieces are all stable some diverge. No larger game with a short step was found to.

    The second half is no proof, and hardly evidence: that the search finds what is known to diverge is all it shows.
    """

    def test_kernels_of_any_kind(self):
        pieces = stable_pieces(240_000, rng=np.random.default_rng(0))
        assert len(pieces) > 29_000
        assert run_off(pieces) > 0

    def test_the_search_finds_the_swings(self):
        for swing in (examples.stable_pieces_divergence().update, symmetric_swing()):
            J = [jacobian(swing, [action]) for action in (0, 1)]
            assert run_off(np.array([J])) == 1
            calm = [jacobian(replace(swing, alpha=0.1), [action]) for action in (0, 1)]
            assert run_off(np.array([calm])) == 0

    @pytest.mark.parametrize(("states", "actions"), [(1, 3), (2, 2)])
    def test_larger_games_with_short_steps(self, states, actions, rng):
        M, flows = short_and_stable(1500, states=states, actions=actions, rng=rng)
        assert len(M) > 1000
        assert runs_off(M, flows, states=states, rng=rng) == 0

    def test_its_control(self, rng):
        """Both swings in a game of two states, the second of which ends it and learns by itself."""
        for swing in (examples.stable_pieces_divergence().update, symmetric_swing()):
            M, flows = np.eye(4) / 2, np.zeros((4, 2))
            M[:2, :2] = swing.alpha * swing.kernel * swing.weights
            flows[:2, 0] = swing.mdp.gamma * swing.mdp.P[0, :, 0]
            assert runs_off(M[None], flows[None], states=2, rng=rng) == 1
            assert runs_off(M[None] / 10, flows[None], states=2, rng=rng) == 0


def short_and_stable(draws, *, states, actions, rng):
    """Draw symmetric kernels and short steps; return alpha K D and gamma P of those in which every piece is stable.

    No piece has a real eigenvalue at or below 0. ``flows[k, i, s]`` is gamma times the chance of pair i to lead to s.
    """
    n = states * actions
    flows = rng.dirichlet(np.ones(states + 1), (draws, n))[..., :states] * rng.uniform(0.1, 0.99, (draws, 1, 1))
    factor, shares = rng.standard_normal((draws, n, n)), rng.dirichlet(np.ones(n), draws)
    M = factor @ factor.transpose(0, 2, 1) * shares[:, None, :]
    values = []
    for chosen in itertools.product(range(actions), repeat=states):
        greedy = np.zeros((states, n))
        greedy[range(states), np.arange(states) * actions + chosen] = 1
        values.append(np.linalg.eigvals(M @ (np.eye(n) - flows @ greedy)))
    values = np.concatenate(values, axis=1)
    alpha = rng.uniform(0.1, 0.999, draws) / np.abs(values).max(axis=1)
    kept = (np.abs(1 - alpha[:, None] * values) < 1).all(axis=1)
    return (alpha[:, None, None] * M)[kept], flows[kept]


def runs_off(M, flows, *, states, rng, starts=8, max_iter=1500):
    """Count the updates without rewards that make a table of size 1 a million times as large."""
    tables = rng.standard_normal((len(M), starts, M.shape[1]))
    tables /= np.abs(tables).max(axis=2, keepdims=True)
    M, flows = M.transpose(0, 2, 1), flows.transpose(0, 2, 1)
    found = 0
    for _ in range(max_iter):
        largest = tables.reshape(len(tables), starts, states, tables.shape[2] // states).max(axis=3)
        tables = tables + (largest @ flows - tables) @ M
        size = np.abs(tables).max(axis=(1, 2))
        found += int((size > 1e6).sum())
        going = (size > 1e-3) & (size <= 1e6)
        tables, M, flows = tables[going], M[going], flows[going]
    return found


def stable_pieces(draws, *, rng):
    """Draw updates on one state with two actions; return both Jacobians of those in which both are stable."""
    gamma, go_on = rng.uniform(0.1, 0.99, (draws, 1, 1)), rng.random((draws, 2))
    M = rng.standard_normal((draws, 2, 2)) * np.exp(rng.uniform(-1.5, 1.5, (draws, 1, 1)))  # alpha K D
    J = np.empty((draws, 2, 2, 2))
    for action in (0, 1):
        chain = np.zeros((draws, 2, 2))
        chain[:, :, action] = go_on
        J[:, action] = np.eye(2) - M @ (np.eye(2) - gamma * chain)
    trace, det = J[..., 0, 0] + J[..., 1, 1], J[..., 0, 0] * J[..., 1, 1] - J[..., 0, 1] * J[..., 1, 0]
    return J[((np.abs(det) < 1) & (np.abs(trace) < 1 + det)).all(axis=1)]


def run_off(pieces, *, starts=8, max_iter=1500):
    """Count the updates that make a table of length 1 a million times as large."""
    turn = np.arange(starts) * 2 * np.pi / starts + 0.1
    tables = np.broadcast_to(np.stack([np.cos(turn), np.sin(turn)], axis=1), (len(pieces), starts, 2))
    first, second = pieces[:, 0].transpose(0, 2, 1), pieces[:, 1].transpose(0, 2, 1)
    found = 0
    for _ in range(max_iter):
        tables = np.where((tables[..., 1] > tables[..., 0])[..., None], tables @ second, tables @ first)
        size = np.abs(tables).max(axis=(1, 2))
        found += int((size > 1e6).sum())
        going = (size > 1e-3) & (size <= 1e6)
        tables, first, second = tables[going], first[going], second[going]
    return found


class TestFittedWTo2W:
    """A step so long that it fits both backups at once, by least squares: it diverges above gamma = 5/6."""

    PROJECTION = np.outer([1, 2], [1, 2]) / 5

    @pytest.mark.parametrize(("gamma", "fate"), [(0.8, "converged"), (0.9, "diverged")])
    def test_least_squares(self, gamma, fate):
        example = examples.fitted_w_to_2w(gamma)
        update = example.update
        assert example.status == fate
        np.testing.assert_allclose(update.alpha * update.kernel * update.weights, self.PROJECTION)
        Q = update(example.Q0)
        np.testing.assert_allclose(Q, updates.fitted_update(example.Q0, update.mdp, fit=self.PROJECTION))
        np.testing.assert_allclose(Q / example.Q0, 6 * gamma / 5)
        assert dynamics.iterate(update, example.Q0, max_iter=2000).status == fate


class TestRandomUpdate:
    """A positive semi-definite kernel, no reward, and a step size at which no pair overshoots its own target."""

    def test_is_what_it_says(self, rng):
        for _ in range(20):
            drawn = examples.random_update(3, 2, gamma=0.9, coupling=0.3, rng=rng)
            update = drawn.update
            assert np.diag(update.kernel) == pytest.approx(np.ones(6))
            assert np.linalg.eigvalsh(update.kernel).min() >= 0.7 - 1e-12
            assert (update.alpha * np.diag(update.kernel) * update.weights).max() == pytest.approx(1)
            assert not update.mdp.R.any() and not drawn.target.any()


class TestCover:
    """Three portraits: one where every path comes home, one where none settles, one where the side decides."""

    @pytest.fixture
    def portraits(self, monkeypatch):
        short = functools.partial(dynamics.portrait, max_iter=80)
        monkeypatch.setattr(dynamics, "portrait", short)
        return examples.cover()

    def test_fates(self, portraits):
        assert [example.name for example, _ in portraits] == ["the calm", "the orbit", "the pair"]
        ends = [[path.sizes[-1] / path.sizes[0] for path in portrait.paths] for _, portrait in portraits]
        assert max(ends[0]) < 0.3
        assert 0.1 < min(ends[1]) < max(ends[1]) < 5
        assert {path.status for path in portraits[1][1].paths} == {"undecided"}
        assert min(ends[2]) < 1 < 50 < max(ends[2])  # from one side of the diagonal home, from the other off

    def test_starts_lie_on_both_sides_and_in_the_picture(self, portraits):
        for _, portrait in portraits:
            starts = np.array([path.values[0].ravel() for path in portrait.paths])
            assert portrait.x[0] <= starts.min() <= starts.max() <= portrait.x[-1]
        pair = np.array([path.values[0].ravel() for path in portraits[2][1].paths])
        assert (pair[:, 0] > pair[:, 1]).any()
        assert (pair[:, 0] < pair[:, 1]).any()
        quadrants = {tuple(np.sign(path.values[0].ravel())) for path in portraits[0][1].paths}
        assert len(quadrants) == 4  # the calm is approached from every side

    def test_fields(self, portraits):
        for example, portrait in portraits:
            point = np.array([portrait.x[3], portrait.y[20]]).reshape(example.Q0.shape)
            np.testing.assert_allclose(portrait.field[20, 3], (example.update(point) - point).ravel())


LEGS = list(itertools.product((False, True), repeat=3))
SWITCHES = ("approximation", "bootstrapping", "off_policy")
ALL_ON = dict.fromkeys(SWITCHES, True)
TRIAD = {
    "w_to_2w": examples.w_to_2w,
    "baird_star": examples.baird_star,
    "baird_control": examples.baird_control,
    "full_data_divergence": examples.full_data_divergence,
}


def on_policy(mdp, policy, epsilon):
    """Return the long-run share of every pair by following the chain for a long time."""
    P, (n_states, n_actions) = oracles.dense(mdp), mdp.R.shape
    pi = np.full((n_states, n_actions), epsilon / n_actions)
    pi[np.arange(n_states), policy] += 1 - epsilon
    states, total = np.full(n_states, 1 / n_states), np.zeros(n_states)
    for step in range(400):
        states = np.einsum("s,sa,sat->t", states, pi, P)
        total += states if step >= 200 else 0
    return ((total / total.sum())[:, None] * pi).ravel()


class TestTriad:
    """Each leg of the triad switches one part of the update; only all three together diverge on these four examples."""

    @pytest.mark.parametrize("name", TRIAD)
    @pytest.mark.parametrize("legs", LEGS)
    def test_fate(self, name, legs):
        example = TRIAD[name]()
        operator = examples.triad_operator(example.update, **dict(zip(SWITCHES, legs, strict=True)))
        run = dynamics.iterate(operator, example.Q0, max_iter=700 if all(legs) else 120, bound=1e6)
        assert (run.status == "diverged") == all(legs)
        if not all(legs):
            assert run.sizes[-1] <= run.sizes[:30].max()

    @pytest.mark.parametrize("name", TRIAD)
    @pytest.mark.parametrize("legs", LEGS)
    @settings(max_examples=3)
    @given(rng=generators())
    def test_one_step_against_loops(self, name, legs, rng):
        update = TRIAD[name]().update
        mdp, (approximation, bootstrapping, off_policy) = update.mdp, legs
        operator = examples.triad_operator(update, epsilon=0.3, **dict(zip(SWITCHES, legs, strict=True)))
        Q = rng.standard_normal(mdp.R.shape)
        target = oracles.backup(Q, mdp) if bootstrapping else np.zeros(Q.shape)  # no reward: the truth is 0
        K = update.kernel if approximation else np.eye(Q.size)
        rho = update.weights if off_policy else on_policy(mdp, Q.argmax(axis=1), 0.3)
        expected = Q.ravel() + update.alpha * K @ (rho * (target - Q).ravel())
        np.testing.assert_allclose(operator(Q).ravel(), expected, atol=1e-9)

    @pytest.mark.parametrize("name", ["w_to_2w", "baird_star"])
    @pytest.mark.parametrize("legs", LEGS)
    def test_prediction_by_eigenvalues(self, name, legs):
        """One action: the update is affine, and its eigenvalues on the tables it can reach decide."""
        update = TRIAD[name]().update
        mdp, (approximation, bootstrapping, off_policy) = update.mdp, legs
        n = mdp.n_pairs
        K = update.kernel if approximation else np.eye(n)
        rho = update.weights if off_policy else on_policy(mdp, [0] * n, 0.1)
        loop = np.eye(n) - mdp.gamma * bootstrapping * oracles.chain(mdp, np.zeros(n, int))
        J = np.eye(n) - update.alpha * K @ np.diag(rho) @ loop
        assert (np.abs(np.linalg.eigvals(J)).max() > 1 + 1e-9) == all(legs)

    def test_all_three_is_the_update_itself(self, rng):
        update = examples.baird_control().update
        Q = rng.standard_normal((7, 2))
        np.testing.assert_allclose(examples.triad_operator(update, **ALL_ON)(Q), update(Q), rtol=1e-13, atol=1e-12)

    def test_on_policy_weights_follow_the_greedy_action(self):
        """The visits are computed once for each greedy policy; the cache must not mix two of them up."""
        update = examples.full_data_divergence().update
        operator = examples.triad_operator(update, **dict.fromkeys(SWITCHES, False))
        first, second = np.array([[1.0, 0.5]]), np.array([[0.5, 1.0]])
        for Q, rho in ((first, [0.95, 0.05]), (second, [0.05, 0.95]), (first, [0.95, 0.05])):
            np.testing.assert_allclose(operator(Q), Q - update.alpha * np.array([rho]) * Q, rtol=1e-12)

    def test_the_truth_is_the_target_without_bootstrapping(self):
        switches = {"approximation": False, "bootstrapping": False, "off_policy": True}
        operator = examples.triad_operator(examples.self_loop().update, **switches)
        assert operator(np.zeros((1, 1)))[0, 0] == pytest.approx(0.5 * 10)

    def test_having_all_three_is_not_enough(self):
        """The orbit and the calm side of the pair have all three legs and do not diverge."""
        pair, orbit = examples.full_data_divergence(), examples.closed_orbit()
        operator = examples.triad_operator(pair.update, **ALL_ON)
        assert dynamics.iterate(operator, [[0.0, 1.0]], max_iter=700, tol=1e-3).status == "converged"
        operator = examples.triad_operator(orbit.update, **ALL_ON)
        assert dynamics.iterate(operator, orbit.Q0, max_iter=300).status == "undecided"

    def test_refuses_a_process_that_ends(self):
        operator = examples.triad_operator(examples.no_fixed_point().update, **ALL_ON | {"off_policy": False})
        with refuses(ValueError, "mdp must never end: P[1, 0] sums to 0, not to 1"):
            operator(np.zeros((2, 2)))

    @pytest.mark.parametrize("epsilon", [0, 1.5, -0.1])
    def test_refuses_epsilon(self, epsilon):
        with refuses(ValueError, f"epsilon must be in (0, 1], got {epsilon}"):
            examples.triad_operator(examples.full_data_divergence().update, epsilon=epsilon, **ALL_ON)
