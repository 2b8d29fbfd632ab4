"""The questions of chapter 5: right answers written in other ways, kernels that are built, and half a test."""

import importlib

import marking
import numpy as np
import pytest

from divergence_notes import contraction, dynamics, grading, updates
from divergence_notes.mdp import FiniteMDP
from tests.coursework.assignments import source_of

SEEDS = ("one", "two", "three")


@pytest.fixture(autouse=True)
def registered():
    marking.load()


def made():
    """Return the module of the questions."""
    return importlib.import_module("questions.heuristics")


def by_hand(kernel):
    """Sum up shares until they stand still, in plain Python."""
    n, shares = len(kernel), [1.0 / len(kernel)] * len(kernel)
    for _ in range(400):
        pulls = [
            sum(abs(float(kernel[i][j])) * shares[j] for j in range(n) if j != i) / float(kernel[i][i])
            for i in range(n)
        ]
        shares = [pull / sum(pulls) for pull in pulls]
    return shares


def with_the_diagonal(kernel):
    """Divide a copy in place, keep the ones on the diagonal: the same eigenvectors."""
    kernel = np.abs(kernel.copy())
    kernel /= kernel.diagonal()[:, None].copy()
    return np.linalg.matrix_power(kernel / kernel.sum(), 256).sum(axis=1) / (
        np.linalg.matrix_power(kernel / kernel.sum(), 256).sum()
    )


def in_single_precision(kernel):
    """Return the right shares as float32."""
    return np.asarray(by_hand(kernel), dtype=np.float32)


def in_torch(kernel):
    """Power iteration by torch."""
    import torch

    kernel = torch.tensor(kernel, dtype=torch.float64).abs()
    relative = kernel / kernel.diagonal()[:, None]
    shares = torch.ones(len(kernel), dtype=torch.float64)
    for _ in range(200):
        shares = relative @ shares
        shares = shares / shares.sum()
    return shares


class TestBestShares:
    @pytest.mark.parametrize("answer", [by_hand, with_the_diagonal, in_single_precision, in_torch])
    @pytest.mark.parametrize("seed", SEEDS)
    def test_other_ways_to_write_it_pass(self, answer, seed):
        assert grading.check("heuristics-best-shares", answer, seed=seed).passed

    @pytest.mark.parametrize("seed", SEEDS)
    def test_no_shares_are_certified_further(self, seed):
        exercise, rng = made().SHARES, np.random.default_rng(1)
        for (kernel,) in exercise.sample(seed=seed)[:5]:
            kernel = kernel + 4 * np.diag(np.diag(kernel))  # so that there is something to certify
            best = contraction.discount_limit(kernel, exercise.right(kernel))
            others = [contraction.discount_limit(kernel, rho) for rho in rng.dirichlet(np.ones(len(kernel)), 300)]
            assert 0 < best and max(others) <= best + 1e-12


def rewards_one_by_one(values, r_max, gamma, left):
    """Add up rewards instead of a closed form."""
    bounds = []
    for steps in left:
        count = 3000 if steps == float("inf") else int(steps)
        bounds.append(sum(r_max * gamma**t for t in range(count)))
    for t in range(len(values)):
        for i in range(len(bounds)):
            if not -bounds[i] <= values[t][i] <= bounds[i]:
                return np.array([t, i], dtype=np.float32)
    return -np.ones(2)


def by_flat_number(values, r_max, gamma, left):
    """Find the first by its number in the flat array."""
    wrong = (abs(values) > (1 - np.power(gamma, left)) * r_max / (1 - gamma)).ravel()
    return divmod(int(wrong.argmax()), values.shape[1]) if wrong.any() else (-1, -1)


class TestFirstFalse:
    @pytest.mark.parametrize("answer", [rewards_one_by_one, by_flat_number])
    @pytest.mark.parametrize("seed", SEEDS)
    def test_other_ways_to_write_it_pass(self, answer, seed):
        assert grading.check("heuristics-first-false", answer, seed=seed).passed

    @pytest.mark.parametrize("seed", range(8))
    def test_mistakes_are_told_apart_on_every_seed(self, seed):
        for mistake in (*made().FIRST.mistakes, *made().SHARES.mistakes):
            name = "heuristics-first-false" if mistake in made().FIRST.mistakes else "heuristics-best-shares"
            result = grading.check(name, mistake.wrong, seed=seed)
            assert (result.passed, result.diagnosis) == (False, mistake.name)
            assert "where" in result.message and "is right" in result.message  # the first offender


class TestPredictions:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_they_are_what_the_package_finds(self, seed):
        given = marking.draw_parameters("heuristics", seed)
        gamma, n = given["gamma"], given["pairs"]
        rho = np.array([given["often"]] + [1] * (n - 1)) / (n - 1 + given["often"])
        entry = made().ENTRY.right(gamma, n, given["often"])
        for factor, holds in ((0.999, True), (1.001, False)):
            kernel = np.full((n, n), factor * entry) + (1 - factor * entry) * np.eye(n)
            assert (contraction.row_dominance(kernel, rho, gamma=gamma).min() > 0) == holds
        leads_on = FiniteMDP(np.array([[[0.0, 1.0]], [[0.0, 1.0]]]), np.ones((2, 1)), gamma)
        kernel = np.array([[1, given["spill"]], [given["spill"], 1]])
        Q = np.array([[0.0], [given["start"]]])
        update = updates.KernelUpdate(leads_on, kernel=kernel, weights=[1, 0], alpha=1)
        for _ in range(200):
            Q = update(Q)
        assert np.isclose(Q[1, 0], made().UNSEEN.right(gamma, given["spill"], given["start"]))
        result = grading.check("heuristics-unseen-value", np.float32(Q[1, 0]), given=given)
        assert result.passed and not grading.check("heuristics-unseen-value", 1.01 * Q[1, 0], given=given).passed

    def test_copies_do_not_change_an_update(self):
        """What the right letter says: the kernel of the doubled buffer makes the same steps."""
        kernel, rng = np.array([[1.0, 0.01], [0.01, 2.0]]), np.random.default_rng(0)
        once, error = contraction.row_dominance(kernel, [0.5, 0.5], gamma=0.9), rng.standard_normal(2)
        doubled = np.kron(np.ones((2, 2)), kernel)
        assert (once > 0).all() and (contraction.row_dominance(doubled, np.full(4, 0.25), gamma=0).max() < 0)
        assert np.allclose(doubled @ (0.25 * np.tile(error, 2)), np.tile(kernel @ (0.5 * error), 2))


GIVEN = {"gamma": 0.93, "ceiling": 0.55}


class TestSmallEntries:
    @pytest.mark.parametrize(
        "kernel",
        [
            [[1, -0.4, 0.5], [-0.4, 1, 0.5], [0.5, 0.5, 1]],
            np.array([[1, -0.4, 0.5], [-0.4, 1, 0.45], [0.5, 0.45, 1]], dtype=np.float32),
            np.array([[1, -0.5, 0.45], [-0.5, 1, 0.45], [0.45, 0.45, 1]]),
        ],
    )
    def test_what_runs_off_passes_and_does_run_off(self, kernel):
        assert grading.check("heuristics-small-entries", kernel, given=GIVEN).passed
        game = made().falls_into_two(GIVEN["gamma"])
        update = updates.KernelUpdate(game, kernel=kernel, weights=[0.5, 0.5, 0], alpha=0.1)
        assert dynamics.iterate(update, [[0.1], [0.2], [1.0]], max_iter=20_000, bound=1e3).status == "diverged"

    @pytest.mark.parametrize("seed", SEEDS)
    def test_ours_passes_in_every_class(self, seed):
        given = marking.draw_parameters("heuristics", seed)
        assert grading.check("heuristics-small-entries", made().KERNEL.right(0, 0), given=given).passed

    @pytest.mark.parametrize("answer", ["kernel", {"a": 1}, np.eye(2), [[1, 2], [3]], np.full((3, 3), np.nan), 1j])
    def test_what_is_no_kernel_is_said(self, answer):
        result = grading.check("heuristics-small-entries", answer, given=GIVEN)
        assert not result.passed and result.message.startswith("Your answer must")

    @pytest.mark.parametrize(
        ("kernel", "words"),
        [
            ([[1, np.nan, 0], [np.nan, 1, 0], [0, 0, 1]], "must be finite: row 0, column 1: nan"),
            ([[1, 0, np.inf], [0, 1, 0], [np.inf, 0, 1]], "must be finite: row 0, column 2: inf"),
            (np.eye(2), "must have shape (3, 3), and has shape (2, 2)"),
            ([["1", "-.35", ".5"], ["-.35", "1", ".5"], [".5", ".5", "1"]], "must be real numbers, and is text"),
        ],
    )
    def test_what_is_wrong_with_its_form_is_what_is_said(self, kernel, words):
        result = grading.check("heuristics-small-entries", kernel, given=GIVEN)
        assert not result.passed and words in result.message

    def test_one_pair_with_data_is_not_enough(self):
        """With ones on the diagonal the spill of a single pair is at most 1, so the colleague is right about that."""
        for towards in (0.3, -0.55, 0.999):
            kernel = np.array([[1, towards], [towards, 1]])
            assert updates.loop_gain(kernel, batch=[0], gamma=0.97) < 1


class TestInstrument:
    def one_case(self, implementation):
        found = implementation(np.array([[2.0, 1.0], [0.5, 1.0]]), np.array([0.5, 0.5]), np.array([1.0]), 1.0, 0.5)
        return abs(found[0] - 0.5) < 1e-9 and found[1:] == [0, 0]

    def in_the_wrong_order(self, implementation):
        assert implementation(np.eye(2), np.array([0.5, 0.5]), np.array([1.0]), 1.0, 0.5) == [1, 0, 0]

    def test_half_a_test_earns_a_part(self):
        result = grading.check("heuristics-find-the-bug", self.one_case)
        assert 0 < result.share < 0.7 and result.survivors

    def test_a_false_alarm_earns_nothing(self):
        assert grading.check("heuristics-find-the-bug", self.in_the_wrong_order).diagnosis == "rejects-the-right-one"

    def test_it_agrees_with_the_package(self):
        rng = np.random.default_rng(3)
        for _ in range(20):
            n = int(rng.integers(2, 5))
            kernel, gamma = 0.1 * rng.standard_normal((n, n)) + np.eye(n), float(rng.uniform(0, 0.9))
            rho, q = rng.dirichlet(np.ones(n)), 3 * rng.standard_normal(4)
            worst, certified, alarm = made().dashboard(kernel, rho, q, 1.0, gamma)
            assert certified == (contraction.row_dominance(kernel, rho, gamma=gamma).min() > 0)
            assert alarm == (grading_bound(q, gamma) > 1)
            assert certified == (worst < (1 - gamma) / (1 + gamma))


def grading_bound(q, gamma):
    """Return how far values are above what can be earned, by the package."""
    from divergence_notes.diagnostics import bound_ratio

    return bound_ratio(q, r_max=1, gamma=gamma)


class TestPracticeOfHeuristics:
    def test_a_build_is_judged(self):
        exercise = grading.exercises()["ex-heuristics-build"]
        for answer in ((0.97, [0.8, 0.2], [0.05, 0.95]), [0.95, np.array([0.9, 0.1]), (0.2, 0.8)]):
            assert grading.check(exercise.name, answer).passed
        for answer in (0.9, (1.0, [0.9, 0.1], [0.1, 0.9]), (0.9, [0.9, 0.2], [0.1, 0.9]), ("a", [1], [2])):
            result = grading.check(exercise.name, answer)
            assert not result.passed and result.diagnosis is None and len(result.message) > 20

    def test_overlap_may_be_rounded(self):
        assert grading.check("ex-heuristics-overlap", (5.025e-6, 1 / 199 / 999)).passed


class TestHardlyAnyData:
    """The step is that of the student's own draws; here it is found by a geometric series between two rare ones."""

    @pytest.fixture
    def run(self):
        """Return what the notebook defines for its run."""
        cell = next(cell.source for cell in source_of("heuristics").cells if cell.id == "long-run")
        space = {"np": np, "gamma": 0.9, "MINE": {"spill": 0.6, "run": 5}}
        exec(cell.partition("\n\nif RUN_IT")[0], space)
        return space

    @pytest.mark.parametrize("chance", [1e-3, 3e-4])
    def test_the_loop_that_students_run_is_what_is_computed_here(self, run, chance):
        assert run["train"](chance)[2] == made().near(0.9, 0.6, 5, chance) > 100_000

    def test_the_smaller_the_error_on_the_data_the_worse_the_value(self, run):
        (loss, value, step), (smaller, worse, later) = run["train"](1e-3), run["train"](1e-4)
        assert smaller < 0.8 * loss and worse < 0.8 * value < 8 and later > 5 * step

    def test_only_the_own_step_is_right(self):
        given = {"gamma": 0.95, "spill": 0.6, "run": 17}
        right = made().LONG.right(*given.values())
        for off, passed in ((0, True), (100, True), (-150, False), (150, False)):
            assert grading.check(made().LONG.name, right + off, given=given).passed is passed
        assert min(abs(right - made().near(*own)) for own in ((0.95, 0.6, 18), (0.95, 0.61, 17))) > 1000

    @pytest.mark.parametrize("value", ["late", [1.0, 2.0], None])
    def test_what_is_no_number(self, value):
        assert not grading.check(made().LONG.name, value, given={"gamma": 0.95, "spill": 0.6, "run": 17}).passed
