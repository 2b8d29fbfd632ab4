"""The assignment of chapter 2: its right answers agree with the package, and answers that are not unique are judged."""

import marking
import numpy as np
import pytest
import questions.function_approximation as asked
import torch

from divergence_notes import features, grading, updates
from divergence_notes.mdp import FiniteMDP
from tests.coursework.assignments import source_of

SEEDS = ["spring", "autumn", 3]


@pytest.fixture(autouse=True)
def loaded():
    marking.load()


def given_by(seed):
    """Return the numbers of a class."""
    return marking.draw_parameters("function_approximation", seed)


class TestRightAnswers:
    def test_growth_rate_is_that_of_the_kernel_update(self):
        for phi, mdp, policy, weights in asked.GROWTH.sample():
            size = 1e-3 / np.linalg.norm(phi) ** 2
            update = updates.KernelUpdate(mdp, kernel=features.kernel(phi), weights=weights, alpha=size)
            J = update.jacobian(mdp.policy_matrix(policy))
            rate = (np.linalg.eigvals(J) - 1).real / size
            moving = rate[np.abs(rate) > 1e-6]  # the others belong to tables that the features cannot make
            assert moving.max() == pytest.approx(asked.GROWTH.right(phi, mdp, policy, weights), rel=1e-4, abs=1e-6)

    def test_below_the_safe_discount_no_features_grow_and_above_it_some_do(self):
        rng, tight = np.random.default_rng(0), 0
        for P, weights in asked.SAFE.sample():
            limit = asked.SAFE.right(P, weights)
            for n_features in (1, 1, 2, 3):
                phi = rng.standard_normal((len(P), n_features))
                assert self.rate(P, weights, phi, limit - 1e-6) < 1e-12  # 0 where features depend on each other
            if limit < 1 - 1e-9:  # on-policy it is 1, up to rounding, and there is no discount above it
                matrix = weights[:, None] * P
                axes = np.linalg.eigh((matrix + matrix.T) / 2 / np.sqrt(np.outer(weights, weights)))[1]
                worst = (axes[:, -1] / np.sqrt(weights))[:, None]
                assert self.rate(P, weights, worst, limit + 1e-6) > 0
                tight += 1
        assert tight >= 5

    @staticmethod
    def rate(P, weights, phi, gamma):
        mdp = FiniteMDP(P[:, None, :], np.zeros((len(P), 1)), min(gamma, 1 - 1e-12))
        return asked.GROWTH.right(phi, mdp, np.zeros(len(P), dtype=int), weights)

    def test_both_predictions_come_true(self):
        given = given_by("spring")
        P = np.zeros((2, 1, 2))
        P[0, 0, 1], P[1, 0, 1] = 1, 1 - given["end"]
        phi, weights = np.array([[given["near"]], [given["far"]]]), np.array([1 - given["share"], given["share"]])
        for gamma, grows in (
            (asked.CRITICAL.right(*asked.CRITICAL.draw(None, **given)) + d, d > 0) for d in (-0.01, 0.01)
        ):
            once = updates.linear_step([1.0], phi, FiniteMDP(P, np.zeros((2, 1)), gamma), weights=weights, alpha=0.02)
            assert (once[0] > 1) == grows
        w, n = np.ones(1), asked.STEPS.right(*asked.STEPS.draw(None, **given))
        sizes = [
            w := updates.linear_step(
                w, phi, FiniteMDP(P, np.zeros((2, 1)), given["gamma"]), weights=weights, alpha=0.02
            )
            for _ in range(n)
        ]
        assert sizes[-2][0] < given["fold"] <= sizes[-1][0]

    def test_a_right_step_is_that_of_the_package_when_all_weigh_the_same(self):
        rng = np.random.default_rng(1)
        P, theta, phi = np.eye(3)[rng.integers(3, size=(3, 2))], rng.standard_normal(4), rng.standard_normal((6, 4))
        P[1, 1] = 0
        mdp = FiniteMDP(P, rng.standard_normal((3, 2)), 0.8)
        batch = {"features": phi, "reward": mdp.R.ravel(), "ended": 1 - mdp.continuation, "weight": np.ones(6)}
        batch["next_features"] = phi.reshape(3, 2, 4)[mdp.transitions.argmax(axis=1)]
        once = updates.linear_step(theta, phi, mdp, weights=np.full(6, 1 / 6), alpha=0.3)
        assert np.allclose(asked.batch_step(theta, batch, 0.8, 0.3), once)


class TestUnusualAnswersOfFunctionApproximation:
    def test_a_growth_rate_out_of_loops_lists_and_torch(self):
        def loops(phi, mdp, policy, weights):
            n, k = phi.shape
            A = [[0.0] * k for _ in range(k)]
            for i in range(n):
                for x in range(k):
                    for y in range(k):
                        later = sum(
                            mdp.transitions[i, s] * phi[s * mdp.n_actions + policy[s], y] for s in range(mdp.n_states)
                        )
                        A[y][x] += (
                            weights[i] * phi[i, x] * (mdp.gamma * later - phi[i, y])
                        )  # transposed: same eigenvalues
            return max(z.real for z in np.linalg.eigvals(A))

        def in_torch(*args):
            return torch.tensor(loops(*args))

        assert grading.check(asked.GROWTH.name, loops).passed and grading.check(asked.GROWTH.name, in_torch).passed

    def test_a_safe_discount_by_bisection_and_in_single_precision(self):
        def bisection(P, weights):
            low, high, D = 0.0, 1.0, np.diag(weights)
            for _ in range(30):
                middle = (low + high) / 2
                M = D @ (np.eye(len(P)) - middle * P)
                low, high = (middle, high) if np.linalg.eigvalsh(M + M.T).min() > 0 else (low, middle)
            return high

        def single(P, weights):
            return np.float32(asked.SAFE.right(P, weights))

        assert grading.check(asked.SAFE.name, bisection).passed and grading.check(asked.SAFE.name, single).passed

    @pytest.mark.parametrize("seed", [75, *range(6)])
    def test_a_safe_discount_needs_four_significant_digits_and_no_more(self, seed):
        def rounded(P, weights):
            return round(asked.SAFE.right(P, weights), 4)

        def stopped(P, weights):
            right, width = asked.SAFE.right(P, weights), 1e-4
            return (np.floor(right / width) + 0.5) * width

        assert grading.check(asked.SAFE.name, rounded, seed=seed).passed
        assert grading.check(asked.SAFE.name, stopped, seed=seed).passed
        assert not grading.check(asked.SAFE.name, lambda *args: round(rounded(*args), 2), seed=seed).passed

    def test_a_test_by_hand_with_lists_misses_what_its_pairs_cannot_show(self):
        def test(step):
            batch = {"features": [[1.0, 0.0], [0.0, 2.0]], "reward": [1.0, -1.0], "ended": [0, 1], "weight": [0.5, 2.0]}
            batch["next_features"] = [[[0.0, 1.0], [0.0, 3.0]], [[1.0, 1.0], [2.0, 0.0]]]
            one = np.allclose(step([1.0, 1.0], batch, 0.5, 1.0), [1.375, -5.0])
            return one and np.allclose(step([1.0, -1.0], batch, 0.5, 1.0), [0.875, 1.0])

        result = grading.check(asked.BUG.name, test)
        assert result.survivors == ("one-by-one",)  # for these two pairs share no feature
        assert result.share == pytest.approx(1 - 1 / len(asked.BUG.mistakes))


class TestJudgedOfFunctionApproximation:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_rings_that_run_off_pass_however_they_are_written(self, seed):
        given = given_by(seed)
        value = asked.BUILD.right(given["gamma_5"], given["floor"])
        turned = np.roll(value, 1, axis=1)
        forms = (
            value,
            value.tolist(),
            -7 * value * [[1], [-1 / 7]],
            turned,
            tuple(map(tuple, turned)),
            torch.tensor(value),
        )
        assert all(grading.check(asked.BUILD.name, form, given=given).passed for form in forms)
        rough = np.round(value, 2)
        rough[1, rough[1].argmax()] += 1 - rough[1].sum()
        assert grading.check(asked.BUILD.name, rough, given=given).passed

    @pytest.mark.parametrize("form", [np.float32, lambda value: torch.tensor(value, dtype=torch.float32)])
    @pytest.mark.parametrize("floor", [round(0.13 + 0.01 * k, 2) for k in range(9)])
    def test_single_precision_is_enough(self, floor, form):
        """The floor may be met in single precision; a share that is below it by a thousandth is below it."""
        column, shares, safe = asked._worst(floor)
        given = {"gamma_5": safe + 0.4 * (1 - safe), "floor": floor}
        assert grading.check(asked.BUILD.name, form(np.stack([column, shares])), given=given).passed
        starved = np.stack([column, shares + np.array([-0.001, 0, 0.001])])
        assert grading.check(asked.BUILD.name, form(starved), given=given).diagnosis == "starved"

    @pytest.mark.parametrize("value", ["text", [1, 2], [[1, 2, 3], [0.5, 0.5]], np.full((2, 3), np.nan)])
    def test_other_forms_are_refused_in_words(self, value):
        result = grading.check(asked.BUILD.name, value, given=given_by("spring"))
        assert not result.passed and "must" in result.message

    def test_every_class_can_build_one(self):
        for seed in range(40):
            given = given_by(seed)
            assert grading.check(
                asked.BUILD.name, asked.BUILD.right(given["gamma_5"], given["floor"]), given=given
            ).passed
            least = given["floor"]
            assert asked._worst(least)[1].tolist() == [least, least, 1 - 2 * least]  # the form of the solution

    @pytest.mark.parametrize("value", ["c", [1, 2, 3], [2.2, 1.0], [2.2, -0.1], {"c": 1}])
    def test_two_numbers_are_two_numbers(self, value):
        assert "two numbers" in grading.check("ex-function-approximation-build", value).message

    def test_others_than_ours_pass(self):
        assert grading.check("ex-function-approximation-build", [2.2, 0.832]).passed
        assert grading.check("ex-function-approximation-silent", [[1, 0, 0], [0, 3, 0], [2, -1, 5]]).passed
        assert "three rows" in grading.check("ex-function-approximation-silent", [[1, 0]]).message


class TestAverageLearner:
    """The count is that of the student's own draws, and the average says the opposite."""

    def told(self, value):
        return grading.check(asked.LONG.name, value, given={"second": 0.646, "run": 17})

    @pytest.mark.parametrize("alpha", [0.02, 0.15, 0.5])
    def test_the_loop_that_students_run_is_what_is_computed_here(self, alpha):
        cell = next(cell.source for cell in source_of("function_approximation").cells if cell.id == "long-run")
        space = {"np": np, "MINE": {"second": 0.646, "run": 17}}
        exec(cell.partition("\n\nif RUN_IT")[0], space)
        ends = space["learners"](alpha, 20, 1000)
        assert np.log(ends) == pytest.approx(asked.weights_at_the_end(0.646, 17, alpha, 20, 1000), abs=1e-9)

    @pytest.mark.parametrize("second", [0.642, 0.65])
    def test_short_steps_run_off_and_long_ones_come_home_although_the_average_grows(self, second):
        assert (1 - second) * 0.8 - second * 0.4 > 0
        short, middle, long = (asked._above(second, 3, alpha) for alpha in (0.02, 0.15, 0.5))
        assert short > 4990 and 500 < middle < 4800 and long == 0

    def test_only_the_own_count_is_right(self):
        right = asked.LONG.right(0.646, 17)
        assert self.told(right).passed and not self.told(right + 1).passed
        assert right not in {asked.LONG.right(0.646, 18), asked.LONG.right(0.647, 17)}

    @pytest.mark.parametrize("value", ["many", [1.0, 2.0], None])
    def test_what_is_no_number(self, value):
        assert not self.told(value).passed
