"""The coursework of chapter 3: unusual right answers, examples to be built, and the formulas against the package."""

import copy

import marking
import numpy as np
import pytest
import torch

from divergence_notes import grading, networks, ntk, updates
from divergence_notes.grading import find
from divergence_notes.grading.bellman import ending_mdp
from tests.coursework.assignments import source_of

marking.load()
import questions.key_equation as made  # noqa: E402

SEEDS = ("one", "two", "three")
HEADS, AFTER, AGAINST, KINK = made.HEADS.name, made.AFTER.name, made.AGAINST.name, "ex-key-equation-kink"


def unit(*weights):
    """Return the network of one ReLU unit with the weights w, b, v, c."""
    net = networks.MLP([1, 1, 1], activation="relu", generator=torch.Generator(), dtype=torch.float64)
    torch.nn.utils.vector_to_parameters(torch.tensor(weights, dtype=torch.float64), net.parameters())
    return net


def column(*inputs):
    """Return inputs of one number each."""
    return torch.tensor(inputs, dtype=torch.float64)[:, None]


def heads_by_autograd(states, W, b, V):
    """Differentiate each value by a program, and multiply the gradients."""
    weights = [torch.tensor(part, requires_grad=True) for part in (W, b, V, np.zeros(len(V)))]
    rows = []
    for s in torch.tensor(states):
        for value in weights[2] @ torch.tanh(weights[0] @ s + weights[1]) + weights[3]:
            rows.append(torch.cat([g.ravel() for g in torch.autograd.grad(value, weights, retain_graph=True)]))
    J = torch.stack(rows)
    return (J @ J.T).reshape(len(states), len(V), len(states), len(V))


def heads_by_loops(states, W, b, V):
    """Add up one number at a time, into nested lists."""
    n, m = len(states), len(V)
    h = [[float(np.tanh(W[k] @ s + b[k])) for k in range(len(b))] for s in states]
    out = np.zeros((n, m, n, m)).tolist()
    for s, a, t, u in np.ndindex(n, m, n, m):
        inner = 1 + sum(x * y for x, y in zip(states[s], states[t], strict=True))
        for k in range(len(b)):
            out[s][a][t][u] += inner * V[a, k] * V[u, k] * (1 - h[s][k] ** 2) * (1 - h[t][k] ** 2)
        if a == u:
            out[s][a][t][u] += 1 + sum(x * y for x, y in zip(h[s], h[t], strict=True))
    return out


def after_by_loops(J, q, pairs, rewards, next_pairs, ended, gamma, alpha):
    """Take the step on a table of changes, transition by transition."""
    new = [float(value) for value in q]
    for i in range(len(q)):
        for k, pair in enumerate(pairs):
            goal = rewards[k] if ended[k] else rewards[k] + gamma * q[next_pairs[k]]
            new[i] += alpha / len(pairs) * float(J[i] @ J[pair]) * (goal - q[pair])
    steps = zip(pairs, rewards, next_pairs, ended, strict=True)
    return [r + (0.0 if over else gamma * new[j]) - new[i] for i, r, j, over in steps]


def after_by_shares(J, q, pairs, rewards, next_pairs, ended, gamma, alpha):
    """Average the targets of each pair, and call the package."""
    often = np.bincount(pairs, minlength=len(q))
    goals = rewards + gamma * np.where(ended, 0, q[next_pairs])
    mean = np.bincount(pairs, weights=goals, minlength=len(q)) / np.maximum(often, 1)
    delta = np.where(often > 0, mean - q, 0)
    new = q.copy()
    new += updates.predicted_change(J @ J.T, often / len(pairs), delta, alpha=alpha)
    return rewards + gamma * ~ended * new[next_pairs] - new[pairs]


class TestUnusualAnswersOfKeyEquation:
    @pytest.mark.parametrize("answer", [heads_by_autograd, heads_by_loops])
    @pytest.mark.parametrize("form", [lambda v: v, np.float32], ids=["as it is", "single"])
    def test_heads(self, answer, form):
        assert grading.check(HEADS, lambda *network: form(answer(*network))).passed

    def test_heads_worked_out_in_single_precision(self):
        assert grading.check(HEADS, lambda *network: made._heads(*(part.astype(np.float32) for part in network))).passed

    @pytest.mark.parametrize("answer", [after_by_loops, after_by_shares])
    def test_errors_after(self, answer):
        assert grading.check(AFTER, answer).passed
        assert grading.check(AFTER, lambda *args: np.float32(answer(*args))).passed

    @pytest.mark.parametrize("seed", SEEDS)
    def test_values_typed_with_four_digits(self, seed):
        given = marking.draw_parameters("key_equation", seed)
        for exercise in (made.MISSED, made.BREAKS):
            right = exercise.right(*exercise.draw(None, **given))
            assert grading.check(exercise.name, float(f"{right:.4g}"), given=given).passed

    def test_a_test_that_returns_false_and_draws_at_random(self):
        def test(implementation):
            rng, right = np.random.default_rng(0), True
            for _ in range(20):
                mdp = ending_mdp(rng)
                n, shape = mdp.n_pairs, mdp.R.shape
                table, slow, K = (rng.standard_normal(size) for size in (shape, shape, (n, n)))
                args = table, slow, mdp, K, rng.dirichlet(np.ones(n)), 0.3, 0.2
                right &= np.allclose(implementation(*args), made.slow_step(*args))
            return right

        assert grading.check(made.BUG.name, test).passed

    def test_a_symmetric_kernel_lets_the_transposed_one_through(self):
        mdp = ending_mdp(np.random.default_rng(2))
        table = np.arange(mdp.n_pairs, dtype=float).reshape(mdp.R.shape)
        rho = np.arange(1, mdp.n_pairs + 1) / sum(range(mdp.n_pairs + 1))
        args = table, table**2, mdp, 1 + np.eye(mdp.n_pairs), rho, 0.3, 0.2
        result = grading.check(made.BUG.name, lambda step: np.allclose(step(*args), made.slow_step(*args)))
        assert result.survivors == ("transposed",)


class TestFormulas:
    """What is graded by a formula is what the package's real steps do."""

    @pytest.mark.parametrize("seed", SEEDS)
    def test_missed_and_breaks(self, seed):
        given = marking.draw_parameters("key_equation", seed)
        w, v, y, z, alpha = numbers = made.MISSED.draw(None, **given)
        net, inputs = unit(w, 0.0, v, 0.0), column(z, 1.0)
        step = {"target": np.array([0.0, y]), "weights": np.array([0.0, 1.0])}
        assert ntk.remainder(net, inputs, **step, alpha=alpha)[0] == pytest.approx(made._missed(*numbers))
        breaks = made._breaks(*numbers)
        assert alpha < breaks
        for part, on in ((0.999, True), (1.001, False)):
            stepped = networks.semi_gradient_step(net, inputs, **step, alpha=part * breaks)
            assert (float(stepped[0](inputs).detach()[0]) > 0) == on

    @pytest.mark.parametrize("n_steps", [5, 49])
    def test_pieces(self, n_steps):
        inputs, step = column(0.5, 0.0), {"target": np.array([0.0, 3.5]), "weights": np.array([0.0, 1.0])}
        whole = ntk.remainder(unit(-2.0, 1.0, 1.5, 0.0), inputs, **step, alpha=1e-3)[0]
        net, together = unit(-2.0, 1.0, 1.5, 0.0), 0.0
        for _ in range(n_steps):
            together += ntk.remainder(net, inputs, **step, alpha=1e-3 / n_steps)[0]
            net = networks.semi_gradient_step(net, inputs, **step, alpha=1e-3 / n_steps)
        assert whole / together == pytest.approx(n_steps, rel=0.02)

    @pytest.mark.parametrize("s", [0.7, 3.0])
    def test_the_same_function_has_another_kernel_and_the_same_remainder(self, s):
        """What question 1 asks to be proved, the formulas of its solution included."""
        net = networks.MLP(
            [2, 6, 1], activation="relu", generator=torch.Generator().manual_seed(2), dtype=torch.float64
        )
        x, other = torch.tensor(np.random.default_rng(0).standard_normal((5, 2))), copy.deepcopy(net)
        with torch.no_grad():
            for parameter, factor in zip(other.parameters(), (s, s, 1 / s, 1), strict=True):
                parameter *= factor
            z, v = net[0](x).numpy(), net[2].weight.numpy()[0]
        h, on = np.maximum(z, 0), z > 0
        A, B = h @ h.T, (x @ x.T + 1).numpy() * (v**2 * on @ on.T)
        assert np.allclose(networks.values(other, x), networks.values(net, x))
        assert np.allclose(ntk.gram(other, x).numpy(), s**2 * A + B / s**2 + 1)
        assert not np.allclose(ntk.gram(other, x).numpy(), ntk.gram(net, x).numpy(), rtol=0.01)
        step = {"target": np.arange(5.0), "weights": np.full(5, 0.2), "alpha": 1e-3}
        missed = [ntk.remainder(each, x, **step) for each in (net, other)]
        assert np.abs(missed[0]).min() > 1e-9 and np.allclose(*missed, rtol=1e-6, atol=0)


class TestExamplesToBuild:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_several_that_move_against_the_prediction_pass(self, seed):
        given = marking.draw_parameters("key_equation", seed)
        pace, times = given["pace"], given["times"]
        right = made._against(pace, times)
        mirrored = right * np.array([-1, 1, 1, 1, -1, -1, 1])
        others = (made._against(pace, times, x=3.0), made._against(pace, times, h=2.0, lift=-4.0, part=1.0))
        for answer in (right, list(right), np.float64(right)[None][0], mirrored, *others):
            assert grading.check(AGAINST, answer, given=given).passed

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("mistake", made.AGAINST.mistakes, ids=lambda mistake: mistake.name)
    def test_those_that_do_not_are_told_why(self, seed, mistake):
        given = marking.draw_parameters("key_equation", seed)
        result = grading.check(AGAINST, mistake.wrong(given["pace"], given["times"]), given=given)
        assert (result.passed, result.diagnosis) == (False, mistake.name)

    def test_the_same_input_twice_never_turns_round(self):
        given, rng, seen = marking.draw_parameters("key_equation", "one"), np.random.default_rng(1), set()
        for _ in range(60):
            w, b, v, c, x, y = 3 * rng.standard_normal(6)
            seen.add(grading.check(AGAINST, [w, b, v, c, x, x, y], given=given).diagnosis)
        assert "same-direction" in seen and not seen & {None, "too-little"}

    def test_texts_are_no_numbers_behind_the_border_either(self):
        right = made._against(0.05, 1.5)
        for form, passed in ((list, True), (lambda found: [str(number) for number in found], False)):
            result = grading.check("key-equation-against", form(right), given={"pace": 0.05, "times": 1.5})
            assert result.passed is passed and (passed or "is text" in result.message)

    @pytest.mark.parametrize("answer", [[1.0, 2.0], "seven", {"w": 1}, [[1], [1, 2]], [np.nan] * 7, lambda: 1])
    @pytest.mark.parametrize("name", [AGAINST, KINK])
    def test_anything_else_is_named(self, name, answer):
        given = marking.draw_parameters("key_equation", "one") if name == AGAINST else None
        result = grading.check(name, answer, given=given)
        assert not result.passed and not result.open and "must be seven" in result.message

    def test_huge_numbers_are_refused(self):
        given = marking.draw_parameters("key_equation", "one")
        assert "larger than 1000" in grading.check(AGAINST, [0, 1, 1, 1e6, 1, 1, 1e6], given=given).message

    @pytest.mark.parametrize(
        "answer",
        [
            find(KINK).right(),
            [3, -3, -0.5, 2, 1, 4, -9],
            (-1.0, 0.0, 1.0, 0.0, 0.0, -2.0, 5.0),
            np.float32([1, 0, 2, 0, 0, 1, 3]),
        ],
    )
    def test_several_kinks_pass(self, answer):
        assert grading.check(KINK, answer).passed


class TestPracticeOfKeyEquation:
    def test_the_gap_of_the_two_programs_is_a_quarter(self):
        """The number that is right is measured on a random game."""
        from divergence_notes.mdp import random_mdp

        rng = np.random.default_rng(5)
        mdp, phi, theta = random_mdp(3, 2, gamma=0.8, branching=2, rng=rng), rng.standard_normal((6, 3)), np.ones(3)
        gaps = []
        for alpha in (2e-3, 1e-3):
            single = theta
            for one in np.eye(6):
                single = updates.linear_step(single, phi, mdp, weights=one, alpha=alpha / 6)
            whole = updates.linear_step(theta, phi, mdp, weights=np.full(6, 1 / 6), alpha=alpha)
            gaps.append(np.abs(phi @ (single - whole)).max())
        assert gaps[0] / gaps[1] == pytest.approx(find("ex-key-equation-order").right(), rel=0.01)


def told(value):
    """Return what the check says of an answer to the question about the kernel of the start, for run 17."""
    return grading.check(made.LONG.name, value, given={"run": 17})


class TestKernelOfTheStart:
    """The number is that of the student's own run; on paper, or with another name, it cannot be had."""

    def test_the_loop_that_students_run_is_what_is_computed_here(self):
        cell = next(cell.source for cell in source_of("key_equation").cells if cell.id == "long-run")
        space = {"np": np, "MINE": {"run": 5}}
        exec(cell.partition("\n\nif RUN_IT")[0], space)
        for alpha in (0.1, 0.02):
            assert space["train"](alpha, 40) == pytest.approx(made.trained(5, alpha, 40), rel=1e-9)

    def test_what_is_missed_falls_with_the_step_and_how_far_off_the_promise_is_does_not(self):
        rows = [made.trained(17, alpha, 100) for alpha in (0.1, 0.02)]
        assert 4 < rows[0][2] / rows[1][2] < 7  # of steps five times as short
        off = [promised - learned for learned, promised, _ in rows]
        assert abs(off[0]) > 0.01 and off[1] == pytest.approx(off[0], rel=0.02)

    def test_four_places_are_enough_and_three_are_not(self):
        right = made.trained(17)[1] - made.trained(17)[0]
        assert told(round(right, 4)).passed and told(right + 2e-4).passed and not told(right + 4e-4).passed

    def test_another_run_gives_another_number(self):
        assert not told(made.LONG.right(18)).passed and made.LONG.right(18) != made.LONG.right(17)

    @pytest.mark.parametrize("value", ["much", [1.0, 2.0], None, float("nan")])
    def test_what_is_no_number(self, value):
        assert not told(value).passed
