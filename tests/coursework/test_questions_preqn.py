"""The assignment and the exercises on PreQN: what is built is judged, and right answers pass in any form."""

import course
import marking
import nbformat
import numpy as np
import pytest
import questions.preqn as asked

from divergence_notes import bellman, dynamics, examples, grading, updates
from divergence_notes.grading import preqn_later
from tests.coursework.assignments import source_of

marking.load()
GIVEN = {"gamma": 0.9, "gap": 0.5, "jitter": 0.1}


def right_table_change(K, batch, delta, alpha):
    """Go by features: those of the kernel, and least squares."""
    sizes, V = np.linalg.eigh(K)
    phi = V[:, sizes > 1e-9 * sizes[-1]] * np.sqrt(sizes[sizes > 1e-9 * sizes[-1]])
    return (phi @ np.linalg.lstsq(phi[batch], alpha * delta, rcond=1e-6)[0]).tolist()


def descended_table_change(K, batch, delta, alpha):
    """Go by conjugate gradients on the batch, in loops."""
    block = np.array([[K[i, j] for j in batch] for i in batch])
    z, r = np.zeros(len(batch)), block @ (alpha * delta)
    p = r.copy()
    for _ in range(200):  # on the normal equations, so that an impossible wish does no harm
        square = block @ (block @ p)
        if p @ square < 1e-26 * (1 + r @ r):
            break
        step = (r @ r) / (p @ square)
        z, new = z + step * p, r - step * square
        p, r = new + (new @ new) / (r @ r) * p, new
    return np.sum([K[:, j] * z[k] for k, j in enumerate(batch)], axis=0)


def recursive_search(theta, X, step, delta, alpha, tol, cap):
    """Call itself with half the step."""
    there = theta + alpha * step
    change = [np.sin(row @ there) - np.sin(row @ theta) for row in X]
    off = sum((c - alpha * d) ** 2 for c, d in zip(change, delta, strict=True))
    if off <= (tol * alpha) ** 2 * sum(d * d for d in delta):
        return there.astype(np.float32)
    return recursive_search(theta, X, step, delta, alpha / 2, tol, cap - 1) if cap else list(theta)


def in_place_search(theta, X, step, delta, alpha, tol, cap):
    """Walk a copy there and back."""
    here, before = theta.copy(), np.sin(X @ theta)
    while cap >= 0:
        here += alpha * step
        change = np.sin(X @ here) - before
        if np.linalg.norm(change / alpha - delta) <= tol * np.linalg.norm(delta):
            return here
        here -= alpha * step
        alpha, cap = alpha / 2, cap - 1
    return theta


class TestPreQNInOtherWords:
    @pytest.mark.parametrize(
        ("name", "answer"),
        [
            ("preqn-table-change", right_table_change),
            ("preqn-table-change", lambda K, b, d, a: a * K[:, b] @ (np.linalg.pinv(K[np.ix_(b, b)], rcond=1e-9) @ d)),
            ("preqn-table-change", lambda *args: np.float32(asked.CHANGE.right(*args))),
            ("preqn-table-change", descended_table_change),
            ("preqn-line-search", recursive_search),
            ("preqn-line-search", in_place_search),
        ],
    )
    @pytest.mark.parametrize("seed", ["one", "two"])
    def test_pass(self, name, answer, seed):
        assert grading.check(name, answer, seed=seed).passed

    @pytest.mark.parametrize(
        "kernel",
        [
            [[2, -2, 1], [-2, 4, 4], [1, 4, 17]],
            np.float32([[1, -1, 1], [-1, 5, 5], [1, 5, 19]]) * 1e-3,
            ((11, -2, 9), (-2, 2, 2), (9, 2, 19)),
        ],
    )
    @pytest.mark.parametrize("gamma", [0.86, 0.9, 0.95])
    def test_kernels_pass(self, kernel, gamma):
        assert grading.check("preqn-build-turns", kernel, given=GIVEN | {"gamma": gamma}).passed

    @pytest.mark.parametrize("gamma", [0.86, 0.9, 0.95])
    def test_what_runs_off_too_slowly_is_not_said_to_settle(self, gamma):
        """Its values are beyond a million, but not after 300 rounds; what settles goes where the equation leads."""
        for kernel, said in ((asked._hardly_grows(gamma), "too-slow"), (np.eye(3), "settles")):
            result = grading.check("preqn-build-turns", kernel, given={"gamma": gamma})
            assert (result.passed, result.diagnosis) == (False, said)
            turn, at_zero = asked._round(kernel, gamma)
            Q = np.zeros(3)
            for _ in range(5000):
                Q = turn @ Q + at_zero
            assert bool(np.abs(Q).max() > 1e6) is (said == "too-slow")
            assert said == "too-slow" or np.allclose(Q, 1 / (1 - gamma))
        slow = [[2.59, -1.48, 0.31], [-1.48, 2.95, 1.48], [0.31, 1.48, 1.82]]
        assert grading.check("preqn-build-turns", slow, given={"gamma": 0.9}).diagnosis == "too-slow"

    def test_a_kernel_that_was_searched_for_passes(self):
        rng = np.random.default_rng(0)
        trials = [rows @ rows.T for rows in rng.integers(-3, 4, size=(60, 3, 3)).astype(float)]
        found = [K for K in trials if asked.judge_turns(K, 0.9) is None]
        assert 0 < len(found) < 20

    @pytest.mark.parametrize("answer", [([1] * 8 + [0], [0, 0, 1]), (np.repeat([0, 1], [1, 9]), (0, 0, 0, 0, 1))])
    def test_schedules_pass(self, answer):
        assert grading.check("ex-preqn-schedule", answer).passed

    @pytest.mark.parametrize(
        ("ones", "twos", "mends"),
        [
            *[(1, 5, False), (1, 6, True), (2, 11, False), (2, 12, True), (3, 16, False), (3, 17, True)],
            *[(4, 22, False), (4, 23, True), (4, 39, True), (4, 40, False)],
            *[(5, 20, False), (5, 28, False), (5, 60, False), (6, 48, False)],
        ],
    )
    def test_schedules_are_judged_as_a_run_ends(self, ones, twos, mends):
        """Six 2s mend a single 1; after four 1s both too few and too many fail, after five any number does."""
        first = second = 0.0
        for _ in range(3000):
            for _ in range(ones):  # state 1 takes its target and drags state 2 by 2
                error = 1 + 0.9 * second - first
                first, second = first + error, second + 2 * error
            for _ in range(twos):  # state 2 takes its own and drags state 1 by 2 / 5
                error = 1 + 0.9 * second - second
                first, second = first + 0.4 * error, second + error
            if abs(second) > 1e6:
                break
        assert (abs(first - 10) + abs(second - 10) < 1e-3) is mends
        assert grading.check("ex-preqn-schedule", ([0] * ones + [1] * twos, [0, 0, 0, 1])).passed is mends

    @pytest.mark.parametrize("answer", [1.11, np.float32(1 / 0.9), 10 / 9])
    def test_couplings_pass(self, answer):
        assert grading.check("ex-preqn-coupling", answer).passed


class TestJudgedOfPreQN:
    @pytest.mark.parametrize(
        ("period", "alpha", "settles"), [(6, 0.1, False), (7, 0.1, True), (4, 0.2, True), (3, 0.2, False)]
    )
    def test_a_period_is_that_of_the_package(self, period, alpha, settles):
        pair = examples.full_data_divergence()
        pull = alpha * pair.update.kernel * pair.update.weights

        def one_period(Q):
            targets, live = bellman.optimality_backup(Q, pair.update.mdp).ravel(), Q.ravel()
            for _ in range(period):
                live = live + pull @ (targets - live)
            return live.reshape(Q.shape)

        run = dynamics.iterate(one_period, pair.Q0, max_iter=9999, tol=1e-6, bound=1e60)
        assert (run.status == "converged") is settles is preqn_later._converges(period, alpha)

    @pytest.mark.parametrize(
        ("name", "answer", "words"),
        [
            ("preqn-build-turns", "kernel", "must be real numbers, and is text"),
            ("preqn-build-turns", [["2", "-2", "1"], ["-2", "4", "4"], ["1", "4", "17"]], "and is text"),
            ("preqn-build-turns", [[1, 0, 1 / 0.9], [0, 1, 0], [1 / 0.9, 0, 3]], "batch {1} is 1,"),
            ("preqn-build-turns", [[1, 0, 0], [0, 1, 1 / 0.9], [0, 1 / 0.9, 3]], "batch {2} is 1,"),
            ("preqn-build-turns", np.eye(2), "must have shape"),
            ("preqn-build-turns", np.full((3, 3), np.nan), "must be finite"),
            ("ex-preqn-schedule", [0, 1, 1], "two schedules"),
            ("ex-preqn-schedule", ([0, 2], [0, 1]), "states 0 and 1"),
            ("ex-preqn-patience", 8, "two whole numbers"),
            ("ex-preqn-patience", [8.5, 4], "two whole numbers"),
            ("ex-preqn-patience", [7, 3], "still runs off with a period of 3"),
        ],
    )
    def test_forms_are_named(self, name, answer, words):
        result = grading.check(name, answer, given=GIVEN if name == "preqn-build-turns" else None)
        assert not result.passed and words in result.message


def compares_with_the_old_wish(theta, X, step, delta, alpha, tol, cap):
    """Halve the step and not the promise."""
    for k in range(cap + 1):
        there = theta + alpha / 2**k * step
        off = np.sin(X @ there) - np.sin(X @ theta) - alpha * delta
        if np.linalg.norm(off) <= tol * alpha * np.linalg.norm(delta):
            return there
    return theta.copy()


@pytest.mark.parametrize("seed", ["one", "two"])
def test_a_search_that_halves_the_step_alone_is_recognised(seed):
    assert grading.check("preqn-line-search", compares_with_the_old_wish, seed=seed).diagnosis == "never-shrinks"


class TestFindTheBugOfPreQN:
    @pytest.fixture
    def solved(self):
        notebook = nbformat.read(course.SOURCE / "preqn" / "preqn.ipynb", as_version=4)
        space = {"np": np}
        exec(next(cell.source for cell in notebook.cells if cell.id == "bug-answer"), space)
        return space["test"]

    def test_the_solution_exposes_all(self, solved):
        assert grading.check("preqn-find-the-bug", solved).share == 1

    def test_a_batch_without_ends_does_not(self):
        """A planted fault in the test: where nothing ends, three of the wrong ones are right."""

        def lazy(implementation):
            rng = np.random.default_rng(0)
            batch = {"phi": rng.standard_normal((3, 5)), "reward": np.ones(3), "phi_next": np.ones((3, 2, 5))}
            batch |= {"terminated": np.zeros(3, dtype=bool), "truncated": np.zeros(3, dtype=bool)}
            args = np.ones(5), batch, 0.9, 0.5, 0.1
            assert np.allclose(implementation(*args), asked.sampled_step(*args))

        survivors = grading.check("preqn-find-the-bug", lazy).survivors
        assert set(survivors) == {"never-ends", "cut-is-end", "ends-swapped", "mean-action", "first-action"}


def test_half_a_step_is_really_taken():
    """Every outcome of a search is among the instances: at once, after cuts, at the last trial, and never."""
    kept = [args for args in asked.SEARCH.sample(seed="any")]
    sizes = [np.linalg.norm(asked.SEARCH.right(*args) - args[0]) / np.linalg.norm(args[2]) / args[4] for args in kept]
    cuts = [round(-np.log2(size)) if size else None for size in sizes]
    assert None in cuts and 0 in cuts and any(c == args[6] for c, args in zip(cuts, kept, strict=True) if c)


class TestHowLargeABatch:
    """The mean is that of the student's own schedules; neither small batches nor the whole table run off."""

    def test_the_loop_that_students_run_is_what_is_computed_here(self):
        cell = next(cell.source for cell in source_of("preqn").cells if cell.id == "long-run")
        space = {"np": np, "MINE": {"run": 5}}
        exec(cell.partition("\n\nif RUN_IT")[0], space)
        for size in (6, 7):
            assert tuple(space["lengths"](size, 5)) == asked.lengths(5, size, 5)

    @pytest.mark.parametrize("run", [3, 17])
    def test_one_state_and_all_of_them_settle_and_six_do_not(self, run):
        off = {size: np.count_nonzero(asked.lengths(run, size, 10, 1000)) for size in (1, 6, 7, 8)}
        assert off == {1: 0, 6: 10, 7: 10, 8: 0}

    def test_the_spill_grows_with_the_batch(self):
        kernel = np.exp(-((np.arange(8)[:, None] - np.arange(8)) ** 2) / (2 * 1.3**2))
        gains = [updates.loop_gain(kernel, batch=list(range(1, 1 + size)), gamma=0.95) for size in (1, 2, 6)]
        assert gains[0] < 1 < gains[2] and gains == sorted(gains)

    def test_only_the_own_mean_is_right(self):
        right = asked.LONG.right(17)
        for off, passed in ((0, True), (0.01, True), (0.05, False)):
            assert grading.check(asked.LONG.name, right + off, given={"run": 17}).passed is passed
        assert abs(right - asked.LONG.right(18)) > 0.05

    @pytest.mark.parametrize("value", ["late", [1.0, 2.0], None])
    def test_what_is_no_number(self, value):
        assert not grading.check(asked.LONG.name, value, given={"run": 17}).passed
