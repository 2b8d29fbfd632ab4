"""The assignment and the exercises of chapter 4: what the tests of every assignment do not see."""

import itertools
from dataclasses import replace

import marking
import numpy as np
import pytest
import questions.contraction as made
from grader import draws

from divergence_notes import contraction, grading, updates
from divergence_notes.grading import contraction as practice
from tests.coursework.assignments import source_of

SEEDS = ["one", "two"]


@pytest.fixture(autouse=True, scope="module")
def loaded():
    """Register the graded questions."""
    marking.load()


def check(exercise, answer, seed="one", **given):
    """Judge an answer to a graded question."""
    return grading.check(exercise.name, answer, seed=seed, given=given or None)


class TestUnusualAnswersOfContraction:
    @pytest.mark.parametrize("form", [float, np.float32, lambda value: np.array(value)])
    def test_wary_modulus_row_by_row_in_python(self, form):
        def answer(mdp, kernel, weights, alpha, wariness):
            rows = []
            for i in range(mdp.n_pairs):
                total = 0.0
                for s in range(mdp.n_states):
                    pairs = [s * mdp.n_actions + a for a in range(mdp.n_actions)]
                    flow = sum(
                        alpha * mdp.gamma * kernel[i, j] * weights[j] * mdp.transitions[j, s]
                        for j in range(mdp.n_pairs)
                    )
                    still = [float(i == j) - alpha * kernel[i, j] * weights[j] for j in pairs]
                    options = []
                    for top, low in itertools.permutations(range(mdp.n_actions), 2):
                        entries = list(still)
                        entries[top] += (1 - wariness) * flow
                        entries[low] += wariness * flow
                        options.append(sum(map(abs, entries)))
                    total += max(options)
                rows.append(total)
            return form(max(rows))

        assert check(made.WARY, answer).passed

    def test_wary_modulus_is_reached_by_two_tables_and_not_passed(self):
        """The row formula that answers are compared with, against the update itself."""
        rng = np.random.default_rng(0)
        for mdp, kernel, weights, alpha, wariness in made.WARY.sample(seed="one")[:4]:

            def move(Q, mdp=mdp, wariness=wariness, flow=alpha * kernel * weights):
                ahead = (1 - wariness) * Q.max(axis=1) + wariness * Q.min(axis=1)
                return Q + (flow @ (mdp.R.ravel() + mdp.gamma * mdp.transitions @ ahead - Q.ravel())).reshape(Q.shape)

            limit, best = made.WARY.right(mdp, kernel, weights, alpha, wariness), 0.0
            for _ in range(2000):
                Q = 10 * rng.standard_normal(mdp.R.shape)
                step = 1e-3 * rng.choice([-1, 1], size=Q.shape)
                best = max(best, np.abs(move(Q + step) - move(Q)).max() / 1e-3)
            assert best == pytest.approx(limit, rel=1e-6)

    def test_to_be_wary_never_raises_the_modulus(self):
        """So whoever lets one action be best and worst at once finds the modulus of the maximum, which is larger."""
        for mdp, kernel, weights, alpha, wariness in made.WARY.sample(seed="one"):
            update = updates.KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=alpha)
            greedy = contraction.exact_modulus(update)
            assert made.WARY.right(mdp, kernel, weights, alpha, wariness) <= greedy + 1e-12

    def test_stopping_with_lists_and_in_place_on_a_copy(self):
        def answer(mdp, kernel, weights, alpha, accuracy):
            update = updates.KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=alpha)
            rate = float(np.abs(update.jacobians()).sum(2).max())
            if rate >= 1:
                return [0][0]
            table, seen = np.zeros(mdp.R.shape), []
            while not seen or rate * seen[-1] > accuracy * (1 - rate):
                before = table.copy()
                table += update(before) - before
                seen.append(np.abs(table - before).max())
            return np.int64(len(seen))

        assert check(made.STOP, answer).passed and check(made.STOP, lambda *args: float(answer(*args))).passed

    def test_predictions_may_be_rounded(self):
        given = grading.own_numbers(..., marking.draw_parameters("contraction", "one"))
        for exercise in (made.UNKNOWN, made.KNOWN):
            value = exercise.right(given["gamma"], given["share"])
            assert all(
                check(exercise, v, **given).passed for v in (float(f"{value:.4g}"), np.float32(value), np.array(value))
            )

    @pytest.mark.parametrize("seed", SEEDS)
    def test_games_of_other_makes(self, seed):
        def lists_and_chances(kernel, weights, alpha, gamma):
            calm, wild = made.GAMES.right(kernel, weights, alpha, gamma)
            return [(0.999 * calm + 0.001 / 3).tolist(), (0.999 * wild + 0.001 / 3).tolist()]

        def single(*args):
            return made.GAMES.right(*args).astype(np.float32)

        assert check(made.GAMES, lists_and_chances, seed).passed and check(made.GAMES, single, seed).passed

    def test_a_test_that_draws_and_returns_false(self):
        def answer(implementation):
            rng = np.random.default_rng(0)
            for _ in range(1000):
                kernel = rng.integers(-2, 3, size=(3, 3)) + np.diag(rng.choice([-8, 4, 6, 8], size=3))
                weights, alpha = rng.permutation([0.5, 0.25, 0.25]), rng.choice([0.25, 0.5, 1])
                pull = np.abs(kernel) @ weights
                own = np.diag(kernel) * weights
                fine = (1.5 * (pull - abs(own)) < 0.5 * own).all() and (alpha * own <= 1).all()
                if bool(implementation(kernel, weights, alpha, 0.5)) != bool(fine):
                    return False
            return True

        assert check(made.BUG, answer).passed


class TestGames:
    @pytest.mark.parametrize("seed", range(4))
    def test_no_ring_will_do_for_every_kernel(self, seed):
        """In each instance one of them contracts, and of the first two it is not the same one, whatever the class."""
        rng = made.GAMES.generator(seed)
        for args in made.GAMES.sample(seed=seed):
            assert made._modulus(made.RINGS[draws.side(rng)], *args) < 0.99
        for ring in made.RINGS:
            result = check(made.GAMES, lambda *args, ring=ring: (np.eye(3), ring), seed)
            assert (result.passed, result.diagnosis) == (False, "ring")

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("first", [0, 1])
    def test_nor_both_in_turn(self, seed, first):
        """As a function can hand them in that counts its calls."""
        calls = itertools.count(first)
        result = check(made.GAMES, lambda *args: (np.eye(3), made.RINGS[next(calls) % 2]), seed)
        assert (result.passed, result.diagnosis) == (False, "ring")

    def test_the_order_is_that_of_the_seed(self):
        orders = set()
        for seed in range(20):
            rng = made.GAMES.generator(seed)
            orders.add(tuple(draws.side(rng) for _ in range(10)))
            rng = made.GAMES.generator(seed)
            assert tuple(draws.side(rng) for _ in range(10)) in orders
        assert len(orders) > 15 and all({*order[:2]} == {0, 1} for order in orders)

    def test_a_game_that_is_searched_for_passes(self):
        """Where a ring does expand it is as good as any other game."""

        def searched(kernel, weights, alpha, gamma):
            games = [np.eye(3)[list(ends)] for ends in itertools.product(range(3), repeat=3)]
            games = sorted(games, key=lambda game: not any(np.array_equal(game, ring) for ring in made.RINGS))
            inner = np.eye(3) - alpha * kernel * weights
            sizes = [np.abs(inner + gamma * alpha * kernel * weights @ game).sum(axis=1).max() for game in games]
            return np.eye(3), next(game for game, size in zip(games, sizes, strict=True) if size > 1.001)

        assert all(check(made.GAMES, searched, seed).passed for seed in SEEDS)

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda *args: "no", "must be real numbers, and is text"),
            (lambda *args: [[["1", "0", "0"]] * 3] * 2, "must be real numbers, and is text"),
            (lambda *args: [[1], [1, 2]], "must be numbers of shape (2, 3, 3)"),
            (lambda *args: np.eye(3), "has shape"),
            (lambda *args: np.full((2, 3, 3), np.nan), "must be finite"),
            (lambda *args: np.array([np.eye(3), 2 * np.eye(3)]), "must be chances"),
            (lambda *args: np.array([made._worst(*args)] * 2), "in your first game the modulus is 1."),
            (lambda *args: np.array([np.eye(3), np.eye(3)[[1, 0, 2]]]), "in your second game the modulus is 0."),
        ],
    )
    def test_other_answers_are_told_what_is_wrong(self, answer, words):
        result = check(made.GAMES, answer)
        assert not result.passed and words in result.message

    @pytest.mark.parametrize("seed", SEEDS)
    def test_the_worst_game_reaches_the_bound_where_a_row_has_both_signs(self, seed):
        for kernel, weights, alpha, gamma in made.GAMES.sample(seed=seed):
            off = kernel - np.diag(np.diag(kernel))
            both = (off > 0).any(axis=1) & (off < 0).any(axis=1)
            beta = 1 - alpha * contraction.row_dominance(kernel, weights, gamma=gamma)[both].min()
            assert (
                made._modulus(made._worst(kernel, weights, alpha, gamma), kernel, weights, alpha, gamma) >= beta - 1e-9
            )


class TestBug:
    def test_the_right_one_agrees_with_the_package(self):
        rng = np.random.default_rng(1)
        verdicts = set()
        for _ in range(300):
            kernel, weights = np.diag(rng.uniform(-1, 9, 2)) + rng.normal(0, 0.3, (2, 2)), rng.dirichlet([5.0, 5.0])
            margins = contraction.row_dominance(kernel, weights, gamma=0.5)
            said = bool(margins.min() > 0 and (0.4 * np.diag(kernel) * weights).max() <= 1)
            assert made.certificate(kernel, weights, 0.4, 0.5) == said
            verdicts.add(said)
        assert verdicts == {True, False}

    def test_a_lazy_test_earns_a_part(self):
        def lazy(implementation):
            assert not implementation(np.array([[3.0, 1.0], [1.0, 3.0]]), np.array([0.5, 0.5]), 0.25, 0.5)

        result = check(made.BUG, lazy)
        assert 0 < result.share < 0.5 and "columns" in result.survivors


def test_no_game_diverges_between_the_two_couplings():
    """What makes C and not B the answer: at no coupling below 1, in no game, is an eigenvalue outside the circle."""
    for seed in SEEDS:
        drawn = marking.draw_parameters("contraction", seed)
        gamma, share = drawn["gamma"], drawn["share"]
        middle = (made.UNKNOWN.right(gamma, share) + made.KNOWN.right(gamma, share)) / 2
        kernel, weights = np.array([[1, middle], [middle, 1]]), np.array([share, 1 - share])
        assert contraction.row_sum_bound(kernel, weights, alpha=1, gamma=gamma) > 1
        for a, b in itertools.product(np.linspace(0, 1, 6), repeat=2):
            loop = np.eye(2) - gamma * np.array([[a, 1 - a], [b, 1 - b]])
            assert np.abs(np.linalg.eigvals(np.eye(2) - kernel * weights @ loop)).max() < 1


class TestPracticeOfContraction:
    def test_an_edge_of_another_make(self):
        wide = (np.diag([1, 2, 0]).tolist(), (0.5, 0.5, 0))
        assert grading.check("ex-contraction-boundary", wide).passed

    @pytest.mark.parametrize("answer", [3, (1, 2), (np.eye(2), [1.0]), ([], []), (np.eye(2), [2.0, -1.0]), "no"])
    def test_answers_that_are_no_example_are_told_so(self, answer):
        for name in ("ex-contraction-boundary", "ex-contraction-overshoot"):
            result = grading.check(name, answer)
            assert not result.passed and "your" in result.message

    def test_a_repair_from_the_cast(self):
        long = practice._changed(50.0)
        short = replace(long, update=replace(long.update, alpha=0.5))
        assert grading.check("ex-contraction-overshoot", [long, short]).passed


class TestWhatACertificateDoesNotSay:
    """The count is that of the student's own run, by the package there, and all at once here."""

    @pytest.fixture
    def cells(self):
        """Return what the notebook defines, with the numbers of one student."""
        sources = {cell.id: cell.source for cell in source_of("contraction").cells}
        space = {}
        exec(sources["parameters"], space)
        exec(sources["setup"], space)
        exec(sources["long-run"].partition("\n\nif RUN_IT")[0], space)
        return space | {"answer": sources["long-answer"]}

    @pytest.mark.parametrize(("gamma", "run"), [(0.55, 1), (0.9, 3)])
    def test_the_loop_that_students_run_is_what_is_computed_here(self, cells, gamma, run):
        cells["count"].__globals__["MINE"] = {"gamma": gamma, "run": run}
        said, here = cells["count"](60), made.fates(gamma, run, 60)
        for certified, fates in said.items():
            for end in ("came home", "ran off", "on its way"):
                sizes = sorted(modulus for fate, modulus in fates if fate == end)
                assert sizes == pytest.approx(sorted(here[certified, end]), rel=1e-9)
        assert sum(map(len, said.values())) == 60 and len(said[False]) > 40

    def test_what_is_certified_comes_home_and_most_of_the_rest_does_too(self):
        found = {key: len(sizes) for key, sizes in made.fates(0.7, 2, 2000).items()}
        assert found[True, "came home"] > 50 and found[True, "ran off"] == found[True, "on its way"] == 0
        assert found[False, "came home"] > 10 * found[False, "ran off"] > 300
        sizes = made.fates(0.7, 2, 2000)
        assert sizes[False, "came home"].max() > sizes[False, "ran off"].min()

    @pytest.mark.parametrize(("off", "passed"), [(0, True), (5, True), (-6, False), (6, False)])
    def test_a_few_on_the_edge_may_differ_elsewhere(self, off, passed):
        right = made.LONG.right(0.7, 2)
        assert grading.check(made.LONG.name, right + off, given={"gamma": 0.7, "run": 2}).passed is passed

    def test_another_run_or_discount_gives_another_number(self):
        right = [made.LONG.right(*own) for own in ((0.7, 2), (0.7, 3), (0.71, 2))]
        assert min(abs(right[0] - other) for other in right[1:]) > 5

    @pytest.mark.parametrize("value", ["many", [1.0, 2.0], None])
    def test_what_is_no_number(self, value):
        assert not grading.check(made.LONG.name, value, given={"gamma": 0.7, "run": 2}).passed
