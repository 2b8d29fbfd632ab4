"""The corrections: the ledger is complete, and every claim that is not simply right has its demonstration here.

One class for each statement. Its name holds the numbers of the claims, its docstring says what is true, and its tests
show both sides: the notes' version fails, the true one holds.
"""

import copy
import itertools
import re
from dataclasses import replace

import ledger
import numpy as np
import pytest
import torch

from divergence_notes import bellman, contraction, dynamics, examples, features, networks, norms, ntk, updates
from divergence_notes.mdp import FiniteMDP, from_gymnasium, random_mdp, stationary_distribution
from divergence_notes.updates import KernelUpdate, Update
from tests import oracles, pages, strategies
from tests.pages import ROOT
from tools import corrections


def radius(matrix):
    """Return the spectral radius."""
    return np.abs(np.linalg.eigvals(matrix)).max()


def process(successors, R=None, *, gamma):
    """Return a process with one action, where state s leads to `successors[s]`, or ends for None."""
    P = np.zeros((len(successors), 1, len(successors)))
    for s, t in enumerate(successors):
        if t is not None:
            P[s, 0, t] = 1.0
    return FiniteMDP(P, np.zeros((len(successors), 1)) if R is None else np.reshape(R, (-1, 1)), gamma)


def coupled(k):
    """Return the kernel [[1, k], [k, 1]]."""
    return np.array([[1.0, k], [k, 1.0]])


def linear(matrix):
    """Return the map Q -> matrix Q on vectors."""
    return lambda Q: matrix @ Q


def fate(operator, start, *, max_iter=20_000):
    """Return what becomes of an iteration."""
    return dynamics.iterate(operator, start, max_iter=max_iter, tol=1e-6, bound=1e6).status


def network(activation, *, seed=0, sizes=(3, 5, 1)):
    """Return a small network with inputs, targets and weights."""
    generator = torch.Generator().manual_seed(seed)
    net = networks.MLP(sizes, activation=activation, generator=generator, dtype=torch.float64)
    x = torch.rand(6, sizes[0], generator=generator, dtype=torch.float64)
    rng = np.random.default_rng(seed)
    return net, {"x": x, "target": 3 * rng.standard_normal(6), "weights": rng.dirichlet(np.ones(6))}


def runaway():
    """Return the pair, a table that its update stretches along itself, and by how much per unit of step size."""
    update = examples.full_data_divergence().update
    values, vectors = np.linalg.eig((update.jacobian([0]) - np.eye(2)) / update.alpha)
    ray = vectors[:, values.argmax()]
    ray = ray / ray[0]
    assert ray[0] > ray[1]  # action 1 is greedy
    return update, ray[None, :], values.max()


class Product(torch.nn.Module):
    """One input x, two parameters, the value x w1 w2."""

    def __init__(self, first, second):
        super().__init__()
        self.first = torch.nn.Parameter(torch.tensor(first, dtype=torch.float64))
        self.second = torch.nn.Parameter(torch.tensor(second, dtype=torch.float64))

    def forward(self, x):
        return x * self.first * self.second


class Powers(torch.nn.Module):
    """One parameter t, which starts at 0; the value of an input p is t to the power p."""

    def __init__(self):
        super().__init__()
        self.t = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x):
        return self.t**x


# ---------------------------------------------------------------- The ledger itself

ENTRIES = ledger.load(corrections.SOURCE)
TESTS = ledger.tests_in()


def labels():
    """Return every label that a page of the book defines, the generated one aside."""
    return {label for path in pages.PAGES if path != corrections.PAGE for label in pages.labels(path)}


def spoiled(claim, **changes):
    """Return the entries with one of them changed, or, with a field None, without that field."""
    entries = copy.deepcopy(ENTRIES)
    for entry in entries:
        if entry["id"] == claim:
            entry.update(changes)
            for field in [field for field, value in changes.items() if value is None]:
                del entry[field]
    return entries


def faults(entries, *, tests=TESTS):
    """Return the faults of entries, labels aside."""
    known = {name for entry in entries for name in entry.get("shown_by", []) if not ledger.is_test(name)}
    return corrections.faults(entries, tests=tests, labels=known)


class TestLedgerOfCorrections:
    """Every claim has an entry, every verdict that needs a demonstration names a test that exists, and every label is
    defined in the book."""

    def test_no_faults(self):
        found = corrections.faults(ENTRIES, tests=TESTS, labels=labels())
        assert not found, "\n".join(found)

    def test_page_is_what_the_generator_makes(self):
        made = corrections.page(ENTRIES)
        assert made == corrections.PAGE.read_text(encoding="utf-8"), "run: python tools/corrections.py"

    def test_each_claim_has_one_anchor_and_says_its_verdict(self):
        made = corrections.page(ENTRIES)
        for entry in ENTRIES:
            assert made.count(f"(corr-{entry['id'].lower()})=\n**{entry['id']}** ") == 1
        for verdict, (colour, _) in corrections.VERDICTS.items():
            wanted = sum(entry["verdict"] == verdict for entry in ENTRIES)
            assert wanted > 0
            assert made.count(f"{{bdg-{colour}}}`{verdict}`") == wanted + 1  # and once in the table
            assert f"{{bdg-{colour}}}`{verdict}` | {wanted} |" in made

    @pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["id"])
    def test_text(self, entry):
        for field in ("claim", "truth"):
            text = entry[field]
            assert text == text.strip() and len(text) > 3 and text.count("$") % 2 == 0 and "\n" not in text
            assert text.endswith((".", "?", ")"))
        assert 1 <= len(re.findall(r"[.?](?=\s|$)", entry["truth"])) <= 4


class TestFaultsOfCorrections:
    """What is checked is caught when it is broken."""

    def test_renamed_class(self):
        file = ROOT / "tests" / "notebooks" / "test_corrections.py"
        text = file.read_text(encoding="utf-8")
        name = "TestC11C14RewardInsideTheExpectation"
        renamed = text.replace(f"class {name}:", f"class {name}s:")
        assert renamed != text
        others = {test for test in TESTS if not test.startswith("tests/notebooks/test_corrections.py::")}
        assert faults(ENTRIES, tests=others | ledger.tests_of("notebooks/test_corrections.py", text)) == []
        found = faults(ENTRIES, tests=others | ledger.tests_of("notebooks/test_corrections.py", renamed))
        assert f"C11: no test tests/notebooks/test_corrections.py::{name}" in found
        assert f"C11: {name}s is not named" in found

    def test_renamed_function(self):
        source = "class TestC1X:\n    def test_a(self): ...\n"
        reference = "tests/notebooks/test_corrections.py::TestC1X::test_a"
        entries = spoiled("C1", shown_by=[reference, "tests/notebooks/test_corrections.py::TestC1X"])
        extra = ledger.tests_of("notebooks/test_corrections.py", source)
        assert faults(entries, tests=TESTS | extra) == []
        extra = ledger.tests_of("notebooks/test_corrections.py", source.replace("test_a", "test_b"))
        assert faults(entries, tests=TESTS | extra) == [f"C1: no test {reference}"]

    def test_a_class_without_a_test_is_none(self):
        assert ledger.tests_of("test_x.py", "class TestC1X:\n    def check(self): ...\n") == set()
        assert ledger.tests_of("test_x.py", "def test_y(): ...\n") == {"tests/test_x.py::test_y"}

    @pytest.mark.parametrize(
        ("entries", "message"),
        [
            (ENTRIES[:20] + ENTRIES[21:], "C21: no entry"),
            ([*ENTRIES, ENTRIES[-1] | {"id": "C99"}], "C99: no such claim"),
            ([*ENTRIES, ENTRIES[-1]], "C98: listed twice"),
            ([ENTRIES[1], ENTRIES[0], *ENTRIES[2:]], "the entries are not in order"),
            (spoiled("C11", verdict="false"), "C11: verdict 'false'"),
            (spoiled("C2", about="taste"), "C2: about 'taste'"),
            (spoiled("C11", shown_by=["ch-bellman"]), "C11: wrong, and no test shows it"),
            (spoiled("C25", shown_by=None), "C25: right if, and no test shows it"),
            (spoiled("C2", about=None), "C2: right if, and no test shows it"),
            (spoiled("C3", truth=None), "C3: fields ['truth']"),
            (spoiled("C68", shown_by=["tests/test_x.py::TestY"]), "C68: no test tests/test_x.py::TestY"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )  # fmt: skip
    def test_entry(self, entries, message):
        assert message in faults(entries)

    def test_label(self):
        entries = spoiled("C3", shown_by=["eq-nowhere"])
        assert "C3: no label eq-nowhere" in corrections.faults(entries, tests=TESTS, labels=labels())

    def test_claims_in_a_name(self):
        assert corrections.claims_in("TestC11C14RewardInside") == ["C11", "C14"]
        assert corrections.claims_in("TestC42aOnlyTheProduct") == ["C42a"]
        assert corrections.claims_in("TestC81WhichWay") == ["C81"]
        assert corrections.claims_in("TestC28AnOverestimate") == ["C28"]


# ---------------------------------------------------------------- Introduction


class TestC8StateAndOpponent:
    """One table of action values is enough if the state can be observed and the opponent keeps its way of playing. If
    states look alike, none is best in all of them where they need different actions."""

    def test_two_states_that_look_alike(self):
        P = np.zeros((2, 2, 2))
        mdp = FiniteMDP(P, np.eye(2), 0.9)  # each state pays for its own action, then ends
        assert bellman.policy_iteration(mdp).Q.max(axis=1).mean() == 1
        blind = [bellman.policy_value(mdp, np.array([a, a]))[:, a].mean() for a in range(2)]
        assert blind == [0.5, 0.5]

    def test_two_states_that_look_alike_and_need_the_same_action(self):
        """One is worth 1, the other 2, both by action 1: the table of the means is best in both."""
        mdp = FiniteMDP(np.zeros((2, 2, 2)), np.array([[1.0, 0.0], [2.0, 0.0]]), 0.9)
        best = bellman.policy_iteration(mdp).Q
        blind = best.mean(axis=0)
        np.testing.assert_array_equal(blind, [1.5, 0])
        np.testing.assert_array_equal(best[:, blind.argmax()], best.max(axis=1))

    def test_an_opponent_that_changes_changes_the_best_action(self):
        def against(left):  # the opponent goes left with this chance; you win 1 by guessing right
            return FiniteMDP(np.zeros((1, 2, 1)), np.array([[left, 1 - left]]), 0.9)

        assert bellman.policy_iteration(against(0.7)).policy[0] == 0
        assert bellman.policy_iteration(against(0.3)).policy[0] == 1


# ---------------------------------------------------------------- The Bellman equation


class TestC9C10ValuesNeedAPolicyAndADiscount:
    """An action value is defined once it is said how rewards are discounted and who acts afterwards."""

    def test_two_policies_two_values(self, rng):
        mdp = random_mdp(4, 2, gamma=0.9, branching=3, rng=rng)
        first, second = (bellman.policy_value(mdp, np.full(4, a)) for a in range(2))
        best = bellman.policy_iteration(mdp).Q
        assert np.abs(first - second).max() > 0.1
        assert (best >= np.maximum(first, second) - 1e-12).all()

    def test_undiscounted_rewards_of_an_endless_process_have_no_sum(self):
        sums = np.cumsum(np.ones(1000))
        assert sums[-1] == 1000 and np.diff(sums).min() == 1
        assert examples.self_loop(0.9).target[0, 0] == pytest.approx(10)

    def test_a_policy_can_be_found_without_any_action_value(self, rng):
        """A search over policies by their returns alone finds the best one."""
        mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
        chain = [oracles.chain(mdp, p) for p in oracles.policies(mdp)]
        scores = []
        for policy, P in zip(oracles.policies(mdp), chain, strict=True):
            start, discounted = np.zeros(6), np.zeros(6)
            start[policy[0]] = 1.0
            for t in range(400):
                discounted += 0.9**t * start
                start = start @ P
            scores.append(discounted @ mdp.R.ravel())
        assert max(scores) == pytest.approx(bellman.policy_iteration(mdp).Q[0].max())


class TestC11C14RewardInsideTheExpectation:
    """Q*(s, a) = E[R + gamma max Q*(s', a')]: the reward depends on the random next state, so it is averaged too."""

    def test_a_coin_pays_zero_or_ten(self):
        rewards, chances = np.array([0.0, 10.0]), np.array([0.5, 0.5])
        mdp = FiniteMDP(np.zeros((1, 1, 1)), [[chances @ rewards]], 0.9)  # both outcomes end the episode
        assert bellman.policy_iteration(mdp).Q[0, 0] == 5
        assert all(reward + 0.9 * 0.0 != 5 for reward in rewards)  # the equation of the notes, for either next state

    def test_on_a_slippery_lake(self):
        gymnasium = pytest.importorskip("gymnasium")
        model = gymnasium.make("FrozenLake-v1").unwrapped.P
        best = bellman.policy_iteration(from_gymnasium(gymnasium.make("FrozenLake-v1"), 0.9)).Q
        V = best.max(axis=1)
        differ = 0
        for s, a in itertools.product(range(16), range(4)):
            outcomes = [(p, r, 0.0 if over else 0.9 * V[t]) for p, t, r, over in model[s][a]]
            future = sum(p * later for p, _, later in outcomes)
            assert best[s, a] == pytest.approx(sum(p * (r + later) for p, r, later in outcomes))
            differ += any(abs(r + future - best[s, a]) > 0.1 for _, r, _ in outcomes)
        assert differ > 0


class TestC12ARecursionNotATelescope:
    """A return obeys a one-step recursion. What telescopes is the sum of the discounted TD errors, if each target holds
    the value of the move that comes next."""

    def test_recursion(self, rng):
        rewards = rng.standard_normal(20)
        returns = bellman.discounted_returns(rewards, gamma=0.9)
        np.testing.assert_allclose(returns[:-1], rewards[:-1] + 0.9 * returns[1:])

    def test_td_errors_telescope_to_the_return_minus_the_guess(self, rng):
        rewards, guess = rng.standard_normal(20), np.append(rng.standard_normal(20), 0.0)
        errors = rewards + 0.9 * guess[1:] - guess[:-1]
        total = (0.9 ** np.arange(20)) @ errors
        assert total == pytest.approx(bellman.discounted_returns(rewards, gamma=0.9)[0] - guess[0])
        consecutive = np.abs(np.diff(rewards)).sum()  # nothing cancels in the sum of rewards itself
        assert consecutive > 1

    @pytest.mark.parametrize("moves", ["greedy", "any"])
    def test_with_the_maximum_they_telescope_only_while_the_moves_are_greedy(self, rng, moves):
        rewards, Q = rng.standard_normal(20), rng.standard_normal((20, 3))
        played = Q.argmax(axis=1) if moves == "greedy" else rng.integers(3, size=20)
        guess, best = Q[np.arange(20), played], Q.max(axis=1)
        want = bellman.discounted_returns(rewards, gamma=0.9)[0] - guess[0]

        def total(later):
            return (0.9 ** np.arange(20)) @ (rewards + 0.9 * np.append(later[1:], 0.0) - guess)

        assert total(guess) == pytest.approx(want)  # Sarsa
        assert np.isclose(total(best), want) == (moves == "greedy")
        assert total(best) >= total(guess) - 1e-12

    def test_a_move_that_is_not_greedy(self):
        """Two steps without a reward: the first target counts 5, the second move is worth 0."""
        errors = [0 + 0.9 * max(5.0, 0.0) - 0, 0.0 - 0]
        assert errors[0] + 0.9 * errors[1] == pytest.approx(4.5)
        assert bellman.discounted_returns([0.0, 0.0], gamma=0.9)[0] - 0 == 0

    def test_the_max_is_taken_again_in_every_state(self):
        """With max the recursion needs the principle of optimality: a plan fixed in advance is worth less."""
        P = np.zeros((3, 2, 3))
        P[0, :, 1:] = 0.5  # a coin decides where you land
        mdp = FiniteMDP(P, np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 0.9)
        assert bellman.policy_iteration(mdp).Q[0, 0] == pytest.approx(0.9)
        plans = [0.9 * 0.5 * (mdp.R[1, later] + mdp.R[2, later]) for later in range(2)]
        assert max(plans) == pytest.approx(0.45)


class TestC13WaitingForTheEnd:
    """Waiting for the end is one way, Monte Carlo, for tasks that end. A backup values a move at once."""

    def test_monte_carlo_on_an_episode(self):
        mdp = process([1, 2, None], [1.0, 2.0, 4.0], gamma=0.5)
        played = bellman.discounted_returns([1.0, 2.0, 4.0], gamma=0.5)
        np.testing.assert_allclose(bellman.policy_value(mdp, np.zeros(3, dtype=int))[:, 0], played)

    def test_a_task_without_end_has_values_all_the_same(self):
        update = examples.self_loop(0.9).update
        sweep = dynamics.iterate(lambda Q: bellman.optimality_backup(Q, update.mdp), [[0.0]], max_iter=400)
        assert sweep.status == "converged"
        assert sweep.values[-1, 0, 0] == pytest.approx(1 / (1 - 0.9))


# ---------------------------------------------------------------- Function approximation and the deadly triad


class TestC15ATableNeedsFinitelyManyRows:
    """A table is exact for finitely many states and actions; over a continuum it is itself an approximation."""

    @pytest.mark.parametrize("bins", [4, 8, 16])
    def test_bins_leave_an_error(self, bins):
        states = np.linspace(0, 1, 64 * bins, endpoint=False)
        phi = features.aggregation(np.floor(states * bins).astype(int))
        fitted = phi @ np.linalg.lstsq(phi, states, rcond=None)[0]  # the values are the states themselves
        assert np.abs(fitted - states).max() == pytest.approx(0.5 / bins, rel=0.05)

    def test_one_row_for_each_state_is_exact(self, rng):
        values = rng.standard_normal(12)
        np.testing.assert_array_equal(features.one_hot(12) @ values, values)


class TestC16SweepsConvergeBelowGammaOne:
    """Sweeping the table converges if gamma < 1, or if every way of playing ends; backward induction is one sweep per
    step that is left."""

    def test_gamma_one_on_a_loop_grows_for_ever(self):
        table = oracles.table_iteration({0: {0: [(1.0, 0, 1.0, False)]}}, 1.0, sweeps=1000)
        assert table[0, 0] == 1000
        with pytest.raises(ValueError, match=re.escape("gamma must be in [0, 1), got 1")):
            examples.self_loop(1)

    def test_gamma_below_one_converges(self):
        solution = bellman.value_iteration(examples.self_loop(0.9).update.mdp, tol=1e-9)
        assert solution.status == "converged"
        assert solution.Q[0, 0] == pytest.approx(10)

    def test_gamma_one_is_fine_when_play_ends(self):
        game = {s: {0: [(1.0, s + 1, 1.0, s == 4)]} for s in range(5)} | {5: {0: [(1.0, 5, 0.0, True)]}}
        assert oracles.table_iteration(game, 1.0, sweeps=5)[0, 0] == 5  # five steps left, five sweeps


class TestC18RepresentingIsNotConverging:
    """The pair: a positive definite kernel, all of it sampled, every table representable, and divergence from some
    starts for every small step size. A network comes near a continuous function where it is bounded."""

    def test_every_table_is_representable(self):
        example = examples.full_data_divergence()
        update = example.update
        phi = np.linalg.cholesky(update.kernel)
        np.testing.assert_allclose(features.kernel(phi), update.kernel)
        assert np.linalg.matrix_rank(phi) == update.mdp.n_pairs
        np.testing.assert_allclose(update(example.target), example.target)  # the optimum is a fixed point
        assert fate(update, example.Q0) == "diverged"
        assert fate(update, [[0.0, 1.0]]) == "converged"  # from some starts, and not from others

    @pytest.mark.parametrize("alpha", [1e-1, 1e-3, 1e-6])
    def test_a_ray_on_which_every_step_size_diverges(self, alpha):
        """An eigenvector in the region where action 1 is greedy is stretched in each step, so it never leaves."""
        update, ray, growth = runaway()
        step = replace(update, alpha=alpha)
        np.testing.assert_allclose(step(ray), (1 + alpha * growth) * ray, rtol=1e-12)
        assert growth > 0.5

    def test_a_table_on_the_same_data_converges(self):
        update = examples.full_data_divergence().update
        step = replace(update, kernel=np.eye(2), alpha=1)
        assert fate(step, [[1.0, 0.0]]) == "converged"

    def test_a_finite_table_can_be_matched_exactly_a_jump_only_nearly(self):
        generator = torch.Generator().manual_seed(0)
        net = networks.MLP((1, 32, 1), activation="relu", generator=generator, dtype=torch.float64)
        x = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
        hidden = net[1](net[0](x)).detach().numpy()
        assert np.linalg.matrix_rank(np.hstack([hidden, np.ones((6, 1))])) == 6  # last layer alone hits six values
        near = net(torch.tensor([[-1e-9], [1e-9]], dtype=torch.float64)).detach().numpy().ravel()
        jump = np.array([0.0, 1.0])
        assert np.abs(near - jump).max() > 0.49  # a continuous function is half a jump off

    @pytest.mark.parametrize("activation", ["relu", "tanh"])
    def test_bounded_is_not_enough_the_set_must_be_closed(self, activation):
        """On (0, 1] a network is bounded, and 1 / x is not."""
        net, _ = network(activation, sizes=(1, 32, 1))
        x = torch.logspace(-8, 0, 200, dtype=torch.float64)[:, None]
        largest = float(net(x).detach().abs().max())
        assert largest < 10
        assert float((1 / x - net(x).detach()).abs().max()) > 1e7

    def test_some_functions_are_hit_everywhere(self):
        """|x| is the sum of two rectified units."""
        net = networks.MLP((1, 2, 1), activation="relu", generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            for parameter, value in zip(net.parameters(), ([[1], [-1]], [0, 0], [[1, 1]], [0]), strict=True):
                parameter.copy_(torch.tensor(value))
        x = torch.linspace(-5, 5, 1001)[:, None]
        assert torch.equal(net(x), x.abs())


class TestC20C31AllThreeLegsAreNotEnough:
    """Function approximation, bootstrapping and off-policy data together can diverge; they do not have to."""

    def test_with_all_three_either_fate(self):
        for gamma, weights, want in [
            (0.9, [1.0, 0.0], "diverged"),
            (0.4, [1.0, 0.0], "converged"),
            (0.7, [0.5, 0.5], "converged"),
        ]:
            example = examples.w_to_2w(gamma, weights)
            assert example.update.kernel[0, 1] != 0  # approximation
            assert example.update.mdp.P.sum() == 2  # bootstrapping: no step ends
            visits = stationary_distribution(example.update.mdp, np.zeros(2, dtype=int))
            np.testing.assert_allclose(visits, [0, 1], atol=1e-12)
            assert np.abs(visits - weights).max() >= 0.5  # off-policy
            assert fate(example.update, example.Q0) == want == example.status

    def test_the_same_features_on_policy(self):
        """Trained where the process itself goes, w -> 2w converges even at gamma = 0.9."""
        assert fate(examples.w_to_2w(0.9, [0.0, 1.0]).update, [[1.0], [2.0]]) == "converged"


class TestC21CompareTheTargetNotTheReward:
    """A value goes down when the target, reward plus discounted next value, is below it, whatever the reward is."""

    def test_a_reward_below_the_value_can_push_it_up(self):
        mdp = process([1, 1], [0.0, 0.2], gamma=0.9)
        Q = np.array([[1.0], [2.0]])
        moved = Update.table(mdp, alpha=0.5)(Q)
        assert mdp.R[0, 0] < Q[0, 0]
        assert mdp.R[0, 0] + 0.9 * 2 > Q[0, 0]
        assert moved[0, 0] == pytest.approx(1.4)


class TestC22OnlyParametersWithAGradientMove:
    """A step can move only the parameters whose gradient at some sampled pair is not zero, and need not move them."""

    def test_table(self):
        mdp = process([0, 1, 2], [1.0, 1.0, 1.0], gamma=0.5)
        moved = updates.linear_step(np.zeros(3), features.one_hot(3), mdp, weights=[0, 1, 0], alpha=0.5)
        np.testing.assert_array_equal(moved, [0, 0.5, 0])

    def test_dead_unit(self):
        net, given = network("relu")
        with torch.no_grad():
            net[0].bias[2] = -10.0  # below zero on every input
        stepped = networks.semi_gradient_step(net, alpha=0.1, **given)
        change = (stepped[0].weight - net[0].weight).detach().numpy()
        assert np.abs(change[2]).max() == 0
        assert np.abs(np.delete(change, 2, axis=0)).max() > 0

    def test_two_errors_that_cancel(self):
        """One parameter, which both pairs use: one value is too low by 1, the other too high by 1."""
        mdp = process([None, None], [1.0, -1.0], gamma=0.5)
        moved = updates.linear_step([0.0], np.ones((2, 1)), mdp, weights=[0.5, 0.5], alpha=0.5)
        np.testing.assert_array_equal(moved, [0])


class TestC24AStepMovesThePairsThatShareAKernelEntry:
    """A step at one pair of a linear Q, with a TD error other than 0, changes exactly the pairs whose kernel entry with
    it is not zero; for a network that holds to first order only."""

    def test_table_moves_one_network_moves_all(self):
        mdp = process([0, 1, 2], [1.0, 1.0, 1.0], gamma=0.5)
        for kernel in (np.eye(3), np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]), np.full((3, 3), 0.5) + np.eye(3)):
            moved = KernelUpdate(mdp, kernel=kernel, weights=[1, 0, 0], alpha=0.1)(np.zeros((3, 1)))
            np.testing.assert_array_equal(moved[:, 0] != 0, kernel[:, 0] != 0)
            right = np.full((3, 1), 2.0)  # no TD error
            np.testing.assert_array_equal(KernelUpdate(mdp, kernel=kernel, weights=[1, 0, 0], alpha=0.1)(right), right)

    def test_a_pair_with_a_zero_entry_moves_to_second_order(self):
        """Values t and t^2 at t = 0: the entry is 0, and a step h of the first value moves the second by h^2."""
        net, x = Powers(), torch.tensor([[1.0], [2.0]], dtype=torch.float64)
        np.testing.assert_array_equal(ntk.gram(net, x).numpy(), [[1, 0], [0, 0]])
        for h in (0.1, 0.01):
            after = networks.semi_gradient_step(net, x, np.array([1.0, 0.0]), weights=np.array([1.0, 0.0]), alpha=h)
            np.testing.assert_allclose(networks.values(after, x), [h, h**2], rtol=1e-12)


class TestC25WithoutBootstrapping:
    """With gamma = 0 the update converges for every start if and only if the step size is below 2 / lambda_max(K D)."""

    @pytest.mark.parametrize(("factor", "want"), [(1.95, "converged"), (2.05, "diverged")])
    def test_threshold(self, rng, factor, want):
        mdp = FiniteMDP(np.zeros((3, 1, 3)), rng.standard_normal((3, 1)), 0)
        kernel, weights = strategies.make_kernel("gram", 3, rng), rng.dirichlet(np.full(3, 5.0))
        top = np.linalg.eigvals(kernel * weights).real.max()
        step = KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=factor / top)
        assert fate(step, rng.standard_normal((3, 1))) == want


class TestC26TheTargetIsDiscounted:
    """The target is R + gamma max Q; without gamma it grows for ever on a loop."""

    def test_loop(self):
        update = examples.self_loop(0.9).update
        assert dynamics.iterate(update, [[0.0]], max_iter=1000).values[-1, 0, 0] == pytest.approx(10)
        plain = dynamics.iterate(lambda Q: Q + 0.5 * (1 + Q - Q), [[0.0]], max_iter=2000)
        assert plain.status == "undecided"
        assert plain.values[-1, 0, 0] == 1000


class TestC27C28AnOverestimateFlowsThroughTheMax:
    """The next value is an estimate; an error in it moves the target only if it moves the max, and then gamma of it."""

    def test_below_the_max_nothing_above_it_gamma_times(self):
        P = np.zeros((2, 2, 2))
        P[0, :, 1] = 1.0
        mdp = FiniteMDP(P, np.zeros((2, 2)), 0.9)
        truth = bellman.optimality_backup([[0, 0], [0, 10]], mdp)
        np.testing.assert_array_equal(bellman.optimality_backup([[0, 0], [5, 10]], mdp), truth)
        raised = bellman.optimality_backup([[0, 0], [0, 14]], mdp)
        np.testing.assert_allclose(raised[0] - truth[0], 0.9 * 4)

    @pytest.mark.parametrize(("values", "excess"), [((1, 1), 0.05), ((1, 0), 0)])
    def test_errors_of_mean_zero_raise_the_mean_of_the_maximum_where_they_can_change_it(self, values, excess):
        """Errors of 0.1 up or down, all four cases alike: too high on average if the values are near each other."""
        largest = [max(np.add(values, errors)) for errors in itertools.product((-0.1, 0.1), repeat=2)]
        assert np.mean(largest) - max(values) == pytest.approx(excess)


class TestC29ErrorsShrinkInATable:
    """In a table an error shrinks by 1 - alpha (1 - gamma) a step. With one parameter divergence by short steps needs a
    loop with a gain above 1, or of 1 and a reward; with two it does not."""

    def test_an_error_of_a_hundred(self):
        update = examples.self_loop(0.9).update
        run = dynamics.iterate(update, [[110.0]], max_iter=100, target=[[10.0]])
        np.testing.assert_allclose(run.errors, 100 * 0.95 ** np.arange(101), rtol=1e-9)

    def test_a_loop_with_gain_above_one_grows(self):
        run = dynamics.iterate(examples.w_to_2w(0.9).update, [[1.0], [2.0]], max_iter=100)
        np.testing.assert_allclose(run.sizes, 2 * 1.08 ** np.arange(101))  # 1 + alpha (2 gamma - 1)

    def test_one_parameter_grows_exactly_if_its_gain_exceeds_one(self, rng):
        """The gain of a single weight is what the best fit to its own targets makes of 1: random features and games."""
        grew = []
        for _ in range(200):
            mdp = process(rng.integers(4, size=4), gamma=rng.uniform(0.8, 0.99))
            phi, rho = rng.lognormal(size=(4, 1)), rng.dirichlet(np.ones(4))
            targets = bellman.optimality_backup(phi, mdp)[:, 0]
            gain = (rho * phi[:, 0]) @ targets / (rho @ phi[:, 0] ** 2)
            moved = updates.linear_step([1.0], phi, mdp, weights=rho, alpha=1e-3)[0]
            assert (moved > 1) == (gain > 1)
            grew.append(gain > 1)
        assert 20 < sum(grew) < 180  # both happen

    @pytest.mark.parametrize(("reward", "want"), [(1.0, [1, 2, 11, 101]), (0.0, [1, 1, 1, 1])])
    def test_a_gain_of_exactly_one_and_a_reward(self, reward, want):
        """w to 2w, the first state only, gamma 1/2: each step of 0.1 adds a tenth of the reward, without end."""
        update = examples.w_to_2w(0.5, weights=(1, 0)).update
        step = replace(update, mdp=replace(update.mdp, R=np.array([[reward], [0.0]])))
        assert updates.loop_gain(step.kernel, batch=[0], gamma=0.5) == pytest.approx(1)
        values = dynamics.iterate(step, [[1.0], [2.0]], max_iter=1000, tol=0).values[:, 0, 0]
        for k, value in zip((0, 10, 100, 1000), want, strict=True):
            assert values[min(k, len(values) - 1)] == pytest.approx(value)

    def test_one_parameter_grows_by_long_steps_with_a_gain_below_one(self):
        example = examples.w_to_2w(0.8, (0.5, 0.5))  # gain 0.96, drift -0.1
        for alpha, want in [(19.0, "converged"), (21.0, "diverged")]:
            step = replace(example.update, alpha=alpha)
            assert fate(step, example.Q0) == want

    def test_two_parameters_grow_with_a_gain_below_one(self):
        """The pair can fit every target: the best fit to its targets is the targets, gamma times the largest value."""
        update, ray, rate = runaway()
        fitted = bellman.optimality_backup(ray, update.mdp)
        assert np.linalg.matrix_rank(update.kernel) == 2  # two parameters for two values: the fit is exact
        assert np.abs(fitted).max() == pytest.approx(0.9 * np.abs(ray).max())
        assert updates.loop_gain(update.kernel, batch=[0, 1], gamma=0.9) == 0  # nothing is left out of the batch
        assert rate > 0
        for alpha in (0.1, 0.01, 0.001):
            assert fate(replace(update, alpha=alpha), ray, max_iter=100_000) == "diverged"


class TestC30DivergenceIsUnboundedGrowth:
    """Divergence means unbounded iterates: values may rise for ever and converge, or stay bounded and never settle."""

    def test_rising_for_ever_and_converging(self):
        run = dynamics.iterate(lambda Q: 1 + 0.9 * Q, [0.0], max_iter=150, tol=0)
        assert (np.diff(run.values[:, 0]) > 0).all()
        np.testing.assert_allclose(run.values[:, 0], 10 * (1 - 0.9 ** np.arange(151)))

    def test_neither_growing_nor_settling(self):
        run = dynamics.iterate(lambda Q: -Q, [1.0], max_iter=100)
        assert run.status == "undecided"
        np.testing.assert_array_equal(run.sizes, 1)


# ---------------------------------------------------------------- The key equation


class TestC32C91FailingASufficientConditionProvesNothing:
    """The row condition is sufficient. R2, R3, R4 and R5 without reward fail it in a row, and converge."""

    @pytest.mark.parametrize("name", ["sup_norm_only", "weighted_norm_only", "some_norm_only"])
    def test_fails_and_converges(self, name):
        update = getattr(examples, name)().update
        margins = contraction.row_dominance(update.kernel, update.weights, gamma=update.mdp.gamma)
        assert margins.min() < 0
        assert fate(update, [[1.0], [-0.3]]) == "converged"

    def test_fails_with_an_unstable_piece_and_converges(self):
        orbit = examples.closed_orbit().update
        still = replace(orbit, mdp=replace(orbit.mdp, R=np.zeros((1, 2))))
        assert contraction.row_dominance(still.kernel, still.weights, gamma=0.5).min() < 0
        assert radius(still.jacobian([0])) > 1.03
        angles = np.linspace(0, 2 * np.pi, 5000)
        Q = np.stack([np.cos(angles), np.sin(angles)])  # one start in each direction
        once = still([Q[:, 7].tolist()])
        for step in range(60):
            Q = Q + still.kernel * still.weights @ (0.5 * Q.max(axis=0) - Q)
            if step == 0:
                np.testing.assert_allclose(Q[:, 7], once[0])
        assert np.hypot(*Q).max() < 0.25  # and the update commutes with positive factors: from then on it shrinks

    def test_passing_it_does_settle_the_matter(self):
        example = examples.row_dominant()
        update = example.update
        assert contraction.row_dominance(update.kernel, update.weights, gamma=0.9).min() > 0
        assert fate(update, example.Q0) == "converged"


class TestC33TheRemainderIsQuadraticAwayFromKinks:
    """The remainder is O(|theta' - theta|^2) where the gradient of Q is Lipschitz along the step; at a kink only O."""

    @pytest.mark.parametrize("activation", ["tanh", "relu"])
    def test_slope_two(self, activation):
        net, given = network(activation)
        left = [np.abs(ntk.remainder(net, alpha=alpha, **given)).max() for alpha in (4e-4, 2e-4, 1e-4)]
        slopes = np.diff(np.log2(left)) * -1
        np.testing.assert_allclose(slopes, 2, atol=0.02)

    def test_slope_one_on_a_kink(self):
        """Q = relu(u . x), u at right angles to the first input: the second input pushes the first over its kink."""
        net = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False, dtype=torch.float64), torch.nn.ReLU())
        with torch.no_grad():
            net[0].weight[:] = torch.tensor([0.0, 1.0])
        x = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
        given = {"x": x, "target": np.array([0.0, 3.0]), "weights": np.array([0.5, 0.5])}
        for alpha in (0.1, 0.01, 0.001):
            left = ntk.remainder(net, alpha=alpha, **given)
            np.testing.assert_allclose(left, [alpha * 0.5 * 2, 0], atol=1e-15)  # proportional to the step


class TestC34ThePairsThatAreNeverVisited:
    """The vector holds all pairs; those that no data shows move as well."""

    def test_an_unvisited_pair_moves(self):
        example = examples.w_to_2w(0.9)
        assert example.update.weights[1] == 0
        assert example.update(example.Q0)[1, 0] > example.Q0[1, 0]


class TestC35C64TheKernelIsAnInnerProduct:
    """K_ij is the inner product of the two gradients: one number for each two pairs."""

    def test_inner_not_outer(self):
        net, given = network("tanh")
        J = ntk.per_sample_gradients(net, given["x"]).numpy()
        K = ntk.gram(net, given["x"]).numpy()
        assert K[0, 1] == pytest.approx(J[0].T @ J[1])
        assert np.outer(J[0], J[1]).shape == (J.shape[1], J.shape[1])
        assert K.shape == (6, 6)

    def test_two_pairs_not_one(self):
        phi = np.array([[1.0, 0.0], [1.0, 2.0]])
        K = features.kernel(phi)
        assert K[0, 1] == K[1, 0] == 1  # depends on both
        assert K[1, 1] == 5


class TestC37TheWeightsAreTheSamplingFrequencies:
    """D holds the distribution that the step averages over: the batch's frequencies, which need not be the buffer's."""

    def test_a_batch_counts_its_own_pairs(self, rng):
        mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
        phi, theta = rng.standard_normal((6, 4)), rng.standard_normal(4)
        batch = np.array([0, 0, 3, 5])  # pair 0 twice
        q = phi @ theta
        target = mdp.flatten(bellman.optimality_backup(mdp.unflatten(q), mdp))
        mean = theta + 0.1 * np.mean([(target[i] - q[i]) * phi[i] for i in batch], axis=0)
        drawn = np.bincount(batch, minlength=6) / 4
        np.testing.assert_allclose(updates.linear_step(theta, phi, mdp, weights=drawn, alpha=0.1), mean)
        buffer = np.full(6, 1 / 6)  # the proportions of the whole buffer
        assert np.abs(updates.linear_step(theta, phi, mdp, weights=buffer, alpha=0.1) - mean).max() > 1e-3


class TestC38C40TheBackupIsAnAverageOfSamples:
    """T* averages the sampled targets, each with its own max, over next states; an end adds no next value."""

    def test_average_of_targets(self, rng):
        mdp = random_mdp(4, 2, gamma=0.9, branching=2, rng=rng)
        Q = rng.standard_normal((4, 2))
        nexts = rng.choice(4, size=50, p=mdp.P[1, 0])
        targets = mdp.R[1, 0] + 0.9 * Q[nexts].max(axis=1)
        P = mdp.P.copy()
        P[1, 0] = np.bincount(nexts, minlength=4) / 50  # the process that the data shows
        empirical = bellman.optimality_backup(Q, FiniteMDP(P, mdp.R, 0.9))[1, 0]
        assert targets.mean() == pytest.approx(empirical)
        assert np.ptp(targets) > 0.01  # one sample is not the backup

    def test_max_before_the_average(self):
        P = np.zeros((3, 2, 3))
        P[0, :, 1:] = 0.5
        mdp = FiniteMDP(P, np.zeros((3, 2)), 0.9)
        Q = np.array([[0.0, 0], [1, 0], [0, 1]])
        assert bellman.optimality_backup(Q, mdp)[0, 0] == pytest.approx(0.9)
        assert 0.9 * Q[1:].mean(axis=0).max() == pytest.approx(0.45)

    def test_bootstrapping_through_the_end(self):
        ends = process([None], [1.0], gamma=0.9)
        assert bellman.policy_iteration(ends).Q[0, 0] == 1
        assert examples.self_loop(0.9).target[0, 0] == pytest.approx(10)  # what an ignored end would give


class TestC39TheBackupIsNotAnEstimateOfQ:
    """T* Q is the backup of Q; it equals Q only at the fixed point."""

    def test_equal_only_at_the_optimum(self, rng):
        mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
        best = bellman.policy_iteration(mdp).Q
        np.testing.assert_allclose(bellman.optimality_backup(best, mdp), best)
        for _ in range(20):
            Q = best + rng.standard_normal((3, 2))
            assert np.abs(bellman.optimality_backup(Q, mdp) - Q).max() >= (1 - 0.9) * np.abs(Q - best).max() - 1e-12
            assert np.abs(bellman.optimality_backup(Q, mdp) - Q).max() > 1e-3


class TestC41TheStepLengthIsNotTheNonlinearPart:
    """g is the length of the step. The non-linear part is the remainder, of order g^2, and 0 for a linear Q."""

    def test_a_long_step_with_no_remainder(self):
        net, given = network("tanh", sizes=(3, 1))
        stepped = networks.semi_gradient_step(net, alpha=2.0, **given)
        moved = [(b - a).detach().numpy() for a, b in zip(net.parameters(), stepped.parameters(), strict=True)]
        assert np.sqrt(sum((m**2).sum() for m in moved)) > 0.5
        assert np.abs(ntk.remainder(net, alpha=2.0, **given)).max() < 1e-14

    def test_a_short_step_with_one(self):
        net, given = network("tanh")
        assert np.abs(ntk.remainder(net, alpha=0.1, **given)).max() > 1e-6


class TestC42aOnlyTheProductOfStepAndKernelMatters:
    """A large K means nothing by itself: (c K, alpha / c) is the same update."""

    def test_same_update(self, rng):
        mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
        Q, kernel, weights = rng.standard_normal((3, 2)), strategies.make_kernel("gram", 6, rng), np.full(6, 1 / 6)
        want = KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=0.1)(Q)
        large = KernelUpdate(mdp, kernel=1000 * kernel, weights=weights, alpha=0.1 / 1000)(Q)
        np.testing.assert_allclose(large, want, rtol=1e-12)


class TestC42bTheDataAreNeverTooLargeOnlyUnbalanced:
    """D has trace 1. What hurts is imbalance: the pair of the book diverges on one mixture and converges on another."""

    def test_same_trace_two_fates(self):
        example = examples.full_data_divergence()
        for weights, want in [([0.2, 0.8], "diverged"), ([0.8, 0.2], "converged"), ([0.02, 0.98], "diverged")]:
            assert sum(weights) == pytest.approx(1)
            step = replace(example.update, weights=weights, alpha=0.05)
            assert fate(step, example.Q0) == want

    def test_criterion(self):
        """On one state with two self-loops, action 1 greedy: unstable iff gamma (K11 r1 + K12 r2) > K11 r1 + K22 r2."""
        example, unstable = examples.full_data_divergence(), []
        for first in np.linspace(0.01, 0.99, 50):
            weights = np.array([first, 1 - first])
            G = example.update.kernel * weights @ (np.eye(2) - 0.9 * np.array([[1, 0], [1, 0]]))
            says = 0.9 * (example.update.kernel[0] @ weights) > np.diag(example.update.kernel) @ weights
            assert (np.linalg.eigvals(G).real.min() < 0) == says
            unstable.append(bool(says))
        assert 0 < sum(unstable) < 50


class TestC42cTheSizeOfTheBackupCancels:
    """Rewards drop out of U Q1 - U Q2, and scaling Q and R together scales the whole run. Where no certificate holds,
    rewards can matter through the greedy policy."""

    def test_rewards_cancel(self, rng):
        mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
        update = KernelUpdate(mdp, kernel=strategies.make_kernel("gram", 6, rng), weights=np.full(6, 1 / 6), alpha=0.3)
        huge = FiniteMDP(mdp.P, 1e3 * rng.standard_normal((3, 2)), 0.9)
        first, second = rng.standard_normal((2, 3, 2))
        differences = [each(first) - each(second) for each in (update, replace(update, mdp=huge))]
        np.testing.assert_allclose(*differences, atol=1e-9)
        scaled = FiniteMDP(mdp.P, 7 * mdp.R, 0.9)
        np.testing.assert_allclose(replace(update, mdp=scaled)(7 * first), 7 * update(first))

    def test_outside_every_certificate_they_choose_the_fate(self):
        update = examples.closed_orbit().update
        for R, want in [([[0.0, 0.0]], "converged"), ([[0.0, 1.0]], "converged"), ([[1.0, 0.0]], "undecided")]:
            mdp = FiniteMDP(update.mdp.P, R, 0.5)
            assert fate(replace(update, mdp=mdp), [[2.5, 1.0]], max_iter=2000) == want


class TestC42dALinearQHasNoRemainderAtAnyStep:
    """A large step by itself breaks nothing in the equation: for a linear Q it is exact at every length."""

    @pytest.mark.parametrize("alpha", [0.1, 10.0, 1e6])
    def test_exact(self, rng, alpha):
        mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
        phi, theta, weights = rng.standard_normal((6, 4)), rng.standard_normal(4), rng.dirichlet(np.ones(6))
        Q = mdp.unflatten(phi @ theta)
        want = KernelUpdate(mdp, kernel=features.kernel(phi), weights=weights, alpha=alpha)(Q)
        got = phi @ updates.linear_step(theta, phi, mdp, weights=weights, alpha=alpha)
        np.testing.assert_allclose(got, mdp.flatten(want), rtol=1e-9)


class TestC42eSmallIsNotSafe:
    """Making everything small only slows the pair down: it diverges all the same."""

    @pytest.mark.parametrize("scale", [1e-3, 1e-6])
    def test_any_scale(self, scale):
        """The same ray is stretched by any small multiple of the kernel, and at any small size of the table."""
        update, ray, growth = runaway()
        step = replace(update, kernel=scale * update.kernel, alpha=0.1)
        np.testing.assert_allclose(step(scale * ray), (1 + 0.1 * scale * growth) * scale * ray, rtol=1e-12)


class TestC43NotConvergingIsNotDiverging:
    """The orbit neither converges nor diverges: it circles its unstable optimum at a bounded distance."""

    def test_orbit(self):
        example = examples.closed_orbit()
        run = dynamics.iterate(example.update, example.Q0, max_iter=1500, target=example.target)
        assert run.status == "undecided"
        tail = run.errors[500:]
        assert 0.1 < tail.min() and tail.max() < 4
        J = example.update.jacobian([0])
        assert radius(J) > 1  # the optimum pushes away


# ---------------------------------------------------------------- Derivation


class TestC44NotEveryFunctionIsItsTaylorSeries:
    """Only analytic functions equal their series. First order with a remainder is all that is needed."""

    def test_a_smooth_function_whose_series_is_zero(self):
        def f(x):
            return np.where(x == 0, 0.0, np.exp(-1 / np.where(x == 0, 1.0, x) ** 2))

        h = np.array([0.1, 0.05])
        for order in range(1, 6):  # f(h) / h^order -> 0 for every order: each derivative at 0 is 0
            assert np.abs(f(h) / h**order).max() < 1e-30
        assert f(np.array(0.5)) == pytest.approx(np.exp(-4))

    def test_first_order_is_enough(self):
        def f(x):
            return np.sin(x)

        for h in (1e-1, 1e-2, 1e-3):
            assert abs(f(1 + h) - f(1) - np.cos(1) * h) <= h**2 / 2


class TestC45TheGradientMustBeLipschitz:
    """The remainder is O(h^2) if the gradient is Lipschitz near the segment; one derivative alone is not enough."""

    def test_three_halves(self):
        h = np.array([1e-2, 1e-4, 1e-6])
        left = np.abs(h) ** 1.5  # f(h) - f(0) - f'(0) h for f = |x|^1.5, which has a derivative everywhere
        assert (left / h**2 > 1).all() and np.diff(left / h**2).min() > 0  # grows without bound as h shrinks

    def test_lipschitz_gradient(self):
        h = np.array([1e-2, -1e-2, 1e-4, -1e-4])
        left = h * np.abs(h) / 2  # f = x|x| / 2: no second derivative at 0, but a Lipschitz first one
        assert (np.abs(left) <= h**2 / 2 + 1e-18).all()


class TestC46TheStepIsASemiGradient:
    """Back-propagation gives the gradient; the step descends half the mean squared error with the target held fixed."""

    def setup_method(self):
        rng = np.random.default_rng(3)
        self.mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
        self.phi, self.theta, self.rho = rng.standard_normal((6, 4)), rng.standard_normal(4), rng.dirichlet(np.ones(6))

    def slope(self, frozen):
        def target(theta):
            Q = self.mdp.unflatten(self.phi @ theta)
            return self.mdp.flatten(bellman.optimality_backup(Q, self.mdp))

        def loss(theta):
            y = target(self.theta if frozen else theta)
            return 0.5 * self.rho @ (y - self.phi @ theta) ** 2

        h = 1e-6 * np.eye(4)
        return np.array([(loss(self.theta + e) - loss(self.theta - e)) / 2e-6 for e in h])

    def test_frozen_target(self):
        step = updates.linear_step(self.theta, self.phi, self.mdp, weights=self.rho, alpha=0.1) - self.theta
        np.testing.assert_allclose(step, -0.1 * self.slope(frozen=True), atol=1e-8)
        assert np.abs(step + 0.1 * self.slope(frozen=False)).max() > 1e-3  # the full gradient is another step

    def test_without_the_half_the_step_doubles(self):
        step = updates.linear_step(self.theta, self.phi, self.mdp, weights=self.rho, alpha=0.2) - self.theta
        np.testing.assert_allclose(step, -0.1 * 2 * self.slope(frozen=True), atol=1e-8)


class TestC47C62TheMatrixFormIsExactForALinearQ:
    """Feature by feature or as K D: the same numbers; for a linear Q nothing is left over."""

    def test_loops_against_matrices(self, rng):
        for _ in range(20):
            mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
            phi, theta, rho = rng.standard_normal((6, 4)), rng.standard_normal(4), rng.dirichlet(np.ones(6))
            Q = mdp.unflatten(phi @ theta)
            error = mdp.flatten(oracles.backup(Q, mdp) - Q)
            mean = sum(rho[i] * error[i] * phi[i] for i in range(6))  # the expectation, one pair at a time
            want = mdp.flatten(Q) + 0.3 * phi @ mean
            got = KernelUpdate(mdp, kernel=features.kernel(phi), weights=rho, alpha=0.3)(Q)
            np.testing.assert_allclose(mdp.flatten(got), want, atol=1e-12)


# ---------------------------------------------------------------- Contraction maps


class TestC48C53ValuesDoNotFixTheStep:
    """Two parameters can give the same Q and take different steps. U is a map on tables if K is a function of Q, as it
    is when K is constant."""

    def test_same_value_other_kernel(self):
        x = torch.ones(1, 1, dtype=torch.float64)
        nets = [Product(1.0, 1.0), Product(2.0, 0.5)]
        assert [networks.values(net, x)[0] for net in nets] == [1, 1]
        assert [ntk.gram(net, x).item() for net in nets] == [2, 4.25]
        steps = [networks.semi_gradient_step(net, x, [2.0], weights=[1.0], alpha=0.01) for net in nets]
        after = [networks.values(net, x)[0] for net in steps]
        assert after[1] - 1 == pytest.approx(4.25 / 2 * (after[0] - 1), rel=0.05)

    def test_linear_the_kernel_is_constant(self, rng):
        """More parameters than pairs: many parameters for one Q, and one step in values."""
        mdp = random_mdp(2, 2, gamma=0.9, branching=2, rng=rng)
        phi, rho, theta = rng.standard_normal((4, 6)), np.full(4, 0.25), rng.standard_normal(6)
        hidden = np.linalg.svd(phi)[2][-1]  # a direction that no value sees
        moved = [phi @ updates.linear_step(t, phi, mdp, weights=rho, alpha=0.1) for t in (theta, theta + 3 * hidden)]
        np.testing.assert_allclose(*moved)


class TestC49WhatBanachAsksFor:
    """A contraction converges if the space is complete, the map sends it to itself, and the same map acts each time."""

    def test_incomplete(self):
        """x / 2 maps (0, 1] into itself with beta = 1/2; its only fixed point is the missing 0."""
        run = dynamics.iterate(lambda x: x / 2, [1.0], max_iter=60, tol=0)
        assert (run.values > 0).all() and run.values[-1, 0] == 2.0**-60

    def test_not_into_itself(self):
        """x / 2 + 1 on [0, 1]: the first step leaves."""
        assert dynamics.iterate(lambda x: x / 2 + 1, [0.5], max_iter=1, tol=0).values[-1, 0] > 1

    def test_two_maps_in_turn(self):
        """x / 2 and x / 2 + 1/2, each with beta = 1/2, in turn: the two numbers 1/3 and 2/3 for ever."""
        x, seen = 0.0, []
        for k in range(100):
            x = x / 2 + 0.5 * (k % 2)
            seen.append(x)
        assert seen[-2:] == [pytest.approx(1 / 3), pytest.approx(2 / 3)]

    def test_on_all_tables_with_one_map(self, rng):
        example = examples.row_dominant()
        assert contraction.exact_modulus(example.update) < 1
        ends = [
            dynamics.iterate(example.update, rng.standard_normal((2, 1)), max_iter=5000, tol=1e-7) for _ in range(2)
        ]
        for run in ends:
            np.testing.assert_allclose(run.values[-1], example.target, atol=1e-4)


class TestC50ContractionMeansBelowOneForAllPairs:
    """beta must be below 1, and the inequality must hold for every two points."""

    @pytest.mark.parametrize("operator", [lambda x: x + 1, lambda x: -x])
    def test_beta_one_is_not_enough(self, operator):
        for first, second in [(0.0, 1.0), (-3.0, 2.5)]:
            assert abs(operator(first) - operator(second)) == abs(first - second)
        assert fate(operator, [1.0], max_iter=1000) == "undecided"

    def test_one_pair_is_not_enough(self):
        """x^2 brings 0 and 1/4 closer, and sends 2 to infinity."""
        assert 0.25**2 - 0**2 < 0.25 - 0
        assert 2**2 - 1**2 > 2 - 1
        assert fate(lambda x: x**2, [2.0]) == "diverged"

    def test_below_one_converges(self):
        assert dynamics.iterate(lambda x: 0.9 * x + 1, [5.0], max_iter=1000).values[-1, 0] == pytest.approx(10)


class TestC52C65TheNormDecidesWhatIsCertified:
    """Convergence does not depend on the norm, contraction does."""

    def test_weighted_only(self):
        """R3 stretches the square and fits a rectangle."""
        update = examples.weighted_norm_only().update
        J = update.jacobian([0, 0])
        assert contraction.exact_modulus(update) > 1
        best, w = norms.weighted_modulus(update)
        assert best < 1
        assert (w > 0).all() and (np.abs(J) @ w <= best * w * (1 + 1e-9)).all()  # anyone can check the weights

    def test_some_norm_only(self):
        """R4 fits no rectangle (the spectral radius of |J| exceeds 1) but a skewed shape."""
        example = examples.some_norm_only()
        update = example.update
        J = update.jacobian([0, 0])
        assert contraction.exact_modulus(update) > 1
        assert norms.weighted_modulus(update)[0] > 1
        assert radius(np.abs(J)) > 1  # why: no weights do better than this
        assert norms.joint_spectral_radius(update, depth=40)[1] < 1
        _, V = np.linalg.eig(J)
        assert np.abs(np.linalg.inv(V) @ J @ V).sum(axis=1).max() == pytest.approx(radius(J)) and radius(J) < 1
        assert fate(update, example.Q0) == "converged"

    def test_a_sequence_needs_one_norm(self):
        """Each shrinks its own rectangle by 3/4; in turn they grow more than fourfold."""
        A = np.array([[0.5, 2.0], [0.0, 0.5]])
        for J, w in [(A, np.array([8.0, 1.0])), (A.T, np.array([1.0, 8.0]))]:
            assert (np.abs(J) @ w / w).max() == pytest.approx(0.75)
        assert radius(A @ A.T) == pytest.approx((4.5 + np.sqrt(4.5**2 - 4 * 0.0625)) / 2)  # trace 4.5, determinant 1/16
        assert radius(A @ A.T) > 4


class TestC54C55DistancesShrinkAndNeedNotReachZero:
    """A contraction brings two points closer with each step, at a rate, until they meet; they need not ever meet."""

    def test_halving(self):
        first, second = (dynamics.iterate(lambda x: x / 2, [x], max_iter=50, tol=0).values for x in (1.0, 3.0))
        np.testing.assert_array_equal(np.abs(first - second)[:, 0], 2.0 * 0.5 ** np.arange(51))

    def test_tables(self, rng):
        update = examples.row_dominant().update
        L = contraction.exact_modulus(update)
        first, second = rng.standard_normal((2, 2, 1))
        for _ in range(20):
            before = np.abs(first - second).max()
            first, second = update(first), update(second)
            assert 0 < np.abs(first - second).max() <= L * before * (1 + 1e-12)

    def test_a_constant_map_makes_them_one_at_once(self):
        first, second = (dynamics.iterate(lambda x: 0 * x + 7, [x], max_iter=2, tol=0).values for x in (1.0, 3.0))
        np.testing.assert_array_equal(np.abs(first - second)[:2, 0], [2, 0])  # and no closer after that


class TestC56MeetingIsNotStanding:
    """Two sequences can meet and move on together. What stands still is the unique fixed point, at distance at most
    beta^k times the distance at the start."""

    def test_meet_and_move_on(self):
        def U(x):
            return np.abs(x) / 2 + 1

        grid = np.linspace(-5, 5, 101)
        gaps = np.abs(np.subtract.outer(U(grid), U(grid)))
        assert (gaps <= 0.5 * np.abs(np.subtract.outer(grid, grid)) + 1e-12).all()  # a contraction
        assert U(1.0) == U(-1.0) == 1.5  # they meet
        assert U(1.5) == 1.75  # and go on
        run = dynamics.iterate(U, [-1.0], max_iter=100, target=[2.0])
        assert run.status == "converged"
        assert (run.errors <= 3 * 0.5 ** np.arange(len(run.errors)) + 1e-12).all()


class TestC57TheLimitIsAFixedPointOfTheUpdate:
    """The limit, if there is one, is a fixed point of U. If K D is nonsingular it is the optimal table; there need not
    be a limit from every start."""

    @pytest.mark.parametrize("start", [(1.0, 0.0), (2.0, 2.0), (6.0, 10.0)])
    def test_a_pair_without_data_keeps_its_start(self, start):
        mdp = process([1, 1], [1.0, 1.0], gamma=0.5)
        step = KernelUpdate(mdp, kernel=np.eye(2), weights=[1, 0], alpha=0.5)
        end = dynamics.iterate(step, np.reshape(start, (2, 1)), max_iter=500).values[-1, :, 0]
        np.testing.assert_allclose(end, [1 + 0.5 * start[1], start[1]], atol=1e-8)

    def test_nonsingular_the_fixed_point_is_the_optimum(self, rng):
        for _ in range(20):
            mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
            kernel, weights = strategies.make_kernel("gram", 6, rng), rng.dirichlet(np.ones(6))
            best = bellman.policy_iteration(mdp).Q
            step = KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=0.3)
            np.testing.assert_allclose(step(best), best, atol=1e-9)
            Q = best + rng.standard_normal((3, 2))
            assert np.abs(step(Q) - Q).max() > 1e-9  # any other table moves

    def test_nonsingular_and_no_limit_from_some_starts(self):
        example = examples.full_data_divergence()
        update = example.update
        assert np.linalg.matrix_rank(update.kernel * update.weights) == 2
        assert fate(update, [[1.0, 0.0]]) == "diverged"
        home = dynamics.iterate(update, [[-1.0, 1.0]], max_iter=20_000)
        assert home.status == "converged"
        np.testing.assert_allclose(home.values[-1], example.target, atol=1e-5)


class TestC58C90FewerParametersThanPairs:
    """With fewer parameters than pairs most tables cannot be had, and there may be one fixed point, none or two. But
    then the strict row condition fails: it needs as many parameters as pairs."""

    def test_out_of_reach(self):
        phi, Q = np.array([[1.0], [2.0]]), np.array([1.0, 0.0])
        left = Q - phi @ np.linalg.lstsq(phi, Q, rcond=None)[0]
        assert np.abs(left).max() > 0.3

    def test_the_strict_condition_forces_full_rank(self, rng):
        met = 0
        for _ in range(300):
            n = int(rng.integers(2, 6))
            phi = np.eye(n) + 0.15 * rng.standard_normal((n, n))
            K, rho = features.kernel(phi), rng.dirichlet(np.full(n, 20.0))
            if contraction.row_dominance(K, rho, gamma=0.5).min() > 0:
                met += 1
                assert np.linalg.matrix_rank(phi) == n
            thin = phi[:, : n - 1]
            assert contraction.row_dominance(features.kernel(thin), rho, gamma=0.0).min() < 1e-12
        assert met > 10

    @pytest.mark.parametrize(("reward", "solutions"), [(1.0, []), (-1.0, [-1 / 2.8, 1 / 0.8])])
    def test_none_or_two(self, reward, solutions):
        """One weight t, trained where t <- t + a (r + gamma 2 |t| - t): solve r + 1.8 |t| = t."""
        example = examples.no_fixed_point()
        update = example.update
        mdp = FiniteMDP(update.mdp.P, reward * (update.mdp.R != 0), 0.9)

        def drift(t):
            step = updates.linear_step([t], example.features, mdp, weights=update.weights, alpha=0.5)
            return float((step[0] - t) / 0.5)

        for t in solutions:
            assert drift(t) == pytest.approx(0, abs=1e-12)
        found = updates.linear_fixed_points(example.features, mdp, weights=update.weights)
        np.testing.assert_allclose(found[:, 0], solutions)
        grid = np.linspace(-5, 5, 600)  # no point of it is a solution
        changes = np.count_nonzero(np.diff(np.sign([drift(t) for t in grid])))
        assert changes == len(solutions)
        if not solutions:
            for start in (-3.0, 0.0, 3.0):
                assert fate(update, mdp.unflatten(example.features[:, 0] * start)) == "diverged"


class TestC59TheCriticalValueIsOneItself:
    """beta = 1 is already no contraction, and beta is an upper bound: beta > 1 proves nothing."""

    def test_calm(self):
        update = examples.sup_norm_only().update
        assert contraction.row_sum_bound(update.kernel, update.weights, alpha=update.alpha, gamma=0.9) > 1
        assert contraction.exact_modulus(update) < 1

    def test_equality_is_no_contraction(self):
        bound = contraction.row_sum_bound(np.eye(2), [1, 0], alpha=0.5, gamma=0.9)
        assert bound == pytest.approx(1) and bound >= 1
        step = KernelUpdate(process([1, 1], gamma=0.9), kernel=np.eye(2), weights=[1, 0], alpha=0.5)
        np.testing.assert_array_equal(step([[0.0], [1.0]])[1], [1.0])  # a value that never moves


# ---------------------------------------------------------------- U as a map


class TestC60ReluIsNotLinearInItsParameters:
    """A ReLU network has no second derivative in its input; in its parameters it has one, between its layers."""

    def test_input_and_parameters(self):
        net, given = network("relu")
        x = given["x"][0]
        flat = torch.autograd.functional.hessian(lambda row: net(row[None])[0, 0], x)
        assert flat.abs().max() == 0
        H = ntk.hessian(net, x).numpy()
        assert np.abs(np.diag(H)).max() == 0  # the diagonal alone would mislead
        assert np.linalg.norm(H) > 0.5

    def test_the_remainder_is_half_the_hessian(self):
        net, given = network("relu")
        before = networks.values(net, given["x"])
        J = ntk.per_sample_gradients(net, given["x"]).numpy()
        v = J.T @ (given["weights"] * (given["target"] - before))
        alpha = 1e-3
        left = ntk.remainder(net, alpha=alpha, **given)
        want = [alpha**2 / 2 * v @ ntk.hessian(net, row).numpy() @ v for row in given["x"]]
        np.testing.assert_allclose(left, want, rtol=1e-2, atol=1e-12)
        assert np.abs(want).max() > 1e-10


class TestC63TheLinearKernel:
    """K = Phi Phi^T does not depend on theta, is positive semi-definite, and has rank at most the number of weights."""

    def test_rank_and_sign(self, rng):
        for n_features in (1, 3, 8):
            K = features.kernel(rng.standard_normal((6, n_features)))
            assert np.linalg.matrix_rank(K) == min(6, n_features)
            assert np.linalg.eigvalsh(K).min() > -1e-12


def difference_by_rows(mdp, kernel, rho, alpha, first, second, *, index):
    """Return U Q1 - U Q2 as the sum over j, with rho_i or rho_j on the first K, from plain loops."""
    x = (first - second).ravel()
    y = (oracles.backup(first, mdp) - oracles.backup(second, mdp)).ravel()
    out = np.zeros(len(x))
    for i, j in itertools.product(range(len(x)), repeat=2):
        weight = rho[i] if index == "i" else rho[j]
        out[i] += ((i == j) - alpha * kernel[i][j] * weight) * x[j] + alpha * kernel[i][j] * rho[j] * y[j]
    return out


class TestC66C67C68TheWeightCarriesTheColumnIndex:
    """[U Q1 - U Q2]_i = sum_j (delta_ij - a K_ij rho_j) [Q1 - Q2]_j + a K_ij rho_j [T*Q1 - T*Q2]_j: not rho_i."""

    def test_closed_form(self):
        kernel, rho = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([0.25, 0.75])
        mdp = process([0, 1], gamma=0)
        first, second = np.array([[0.0], [1.0]]), np.zeros((2, 1))
        step = KernelUpdate(mdp, kernel=kernel, weights=rho, alpha=1)
        assert (step(first) - step(second))[0, 0] == -0.75
        given = (mdp, kernel, rho, 1, first, second)
        assert difference_by_rows(*given, index="j")[0] == -0.75
        assert difference_by_rows(*given, index="i")[0] == -0.25

    def test_random(self, rng):
        wrong = 0
        for _ in range(50):
            mdp = random_mdp(2, 2, gamma=0.9, branching=2, rng=rng)
            kernel, rho = strategies.make_kernel("gram", 4, rng), rng.dirichlet(np.ones(4))
            first, second = rng.standard_normal((2, 2, 2))
            step = KernelUpdate(mdp, kernel=kernel, weights=rho, alpha=0.5)
            want = (step(first) - step(second)).ravel()
            given = (mdp, kernel, rho, 0.5, first, second)
            np.testing.assert_allclose(difference_by_rows(*given, index="j"), want, atol=1e-12)
            wrong += np.abs(difference_by_rows(*given, index="i") - want).max() > 1e-6
        assert wrong == 50


class TestC69TheSameSampleForBothTables:
    """Rewards and next states cancel if both tables are updated with the same sample."""

    def test_other_samples_do_not_cancel(self):
        heads, tails = process([None], [1.0], gamma=0.9), process([None], [0.0], gamma=0.9)
        Q = np.array([[0.3]])
        assert Update.table(heads, alpha=0.5)(Q) != Update.table(tails, alpha=0.5)(Q)
        first, second = np.array([[0.3]]), np.array([[5.0]])
        gaps = [(Update.table(m, alpha=0.5)(first) - Update.table(m, alpha=0.5)(second)).item()
                for m in (heads, tails)]  # fmt: skip
        assert gaps[0] == pytest.approx(gaps[1])


class TestC70C71C72AbsoluteValuesAtEveryStep:
    """|T*Q1 - T*Q2| <= gamma |Q1 - Q2| in the sup norm. The signed chain of the notes breaks at its last sign, and,
    where an episode can end, one line earlier."""

    def test_last_sign(self):
        mdp = process([0], gamma=0.9)
        first, second = np.zeros((1, 1)), np.ones((1, 1))
        signed = bellman.optimality_backup(first, mdp) - bellman.optimality_backup(second, mdp)
        assert signed.max() == 0.9 * (first - second).max() == -0.9
        assert 0.9 * np.abs(first - second).max() == 0.9  # not equal, only larger

    def test_an_end(self):
        mdp = process([None], gamma=0.9)
        first, second = np.zeros((1, 1)), np.ones((1, 1))
        signed = (bellman.optimality_backup(first, mdp) - bellman.optimality_backup(second, mdp)).max()
        assert signed == 0
        assert not signed <= 0.9 * (first - second).max()
        assert signed <= 0.9 * np.abs(first - second).max()

    @pytest.mark.parametrize("kind", ["dense", "terminating", "deterministic", "ties"])
    def test_with_absolute_values(self, rng, kind):
        for _ in range(100):
            mdp = strategies.make_mdp(kind, 4, 3, 0.9, rng)
            first, second = rng.standard_normal((2, 4, 3))
            gap = oracles.backup(first, mdp) - oracles.backup(second, mdp)
            assert np.abs(gap).max() <= 0.9 * np.abs(first - second).max() + 1e-12
            # one sample: the first two lines of the chain, with the same next state on both sides
            assert (first.max(axis=1) - second.max(axis=1)).max() <= (first - second).max() + 1e-12

    def test_tight(self, rng):
        mdp = random_mdp(4, 2, gamma=0.9, branching=3, rng=rng)
        Q = rng.standard_normal((4, 2))
        gap = bellman.optimality_backup(Q + 2, mdp) - bellman.optimality_backup(Q, mdp)
        np.testing.assert_allclose(gap, 0.9 * 2)


class TestC74TheAbsoluteValueOnItsOwnFactor:
    """[U Q1 - U Q2]_i <= sum_j (delta_ij - a K_ij rho_j) [Q1 - Q2]_j + a gamma |K_ij| rho_j |Q1 - Q2|: the sign stays
    on the first factor, the absolute value belongs to the second."""

    def sides(self, mdp, kernel, rho, alpha, first, second):
        """Return the left side, the notes' right side (with rho_j, to be kind), and the true right side."""
        step = KernelUpdate(mdp, kernel=kernel, weights=rho, alpha=alpha)
        left = (step(first) - step(second)).ravel()
        x, size, eye, M = (first - second).ravel(), np.abs(first - second).max(), np.eye(len(rho)), alpha * kernel * rho
        notes = (eye - np.abs(M)) @ x + mdp.gamma * size * M.sum(axis=1)
        true = (eye - M) @ x + mdp.gamma * size * np.abs(M).sum(axis=1)
        return left, notes, true

    def test_closed_form(self):
        mdp = process([0, 0], gamma=0.9)
        left, notes, true = self.sides(
            mdp, coupled(-0.5), np.full(2, 0.5), 1, np.array([[-1.0], [1.0]]), np.zeros((2, 1))
        )
        assert left[0] == pytest.approx(-0.475)
        assert notes[0] == pytest.approx(-0.525)
        assert not left[0] <= notes[0]
        assert left[0] <= true[0]

    def test_random(self, rng):
        broken = 0
        for _ in range(400):
            mdp = random_mdp(2, 1, gamma=0.9, branching=1, rng=rng)
            kernel, rho = strategies.make_kernel("gram", 2, rng), rng.dirichlet(np.ones(2))
            left, notes, true = self.sides(mdp, kernel, rho, 0.5, *rng.standard_normal((2, 2, 1)))
            broken += bool((left > notes + 1e-9).any())
            assert (left <= true + 1e-12).all()
        assert 100 < broken < 400


def printed_bound(kernel, rho, *, alpha, gamma):
    """Return the modulus as the notes print it: rho_i in the first term."""
    rows = np.zeros(len(rho))
    for i, j in itertools.product(range(len(rho)), repeat=2):
        rows[i] += abs((i == j) - alpha * kernel[i][j] * rho[i]) + alpha * gamma * abs(kernel[i][j]) * rho[j]
    return rows.max()


class TestC75TheRowSumsNeedTheColumnWeights:
    """beta = max_i sum_j |delta_ij - a K_ij rho_j| + a gamma |K_ij| rho_j bounds the Lipschitz constant. With rho_i in
    its place it does not: it can certify a contraction that is none."""

    def test_not_a_bound(self):
        mdp, kernel, rho = process([0, 0], gamma=0.5), coupled(0.5), np.array([0.0, 1.0])
        L = contraction.exact_modulus(KernelUpdate(mdp, kernel=kernel, weights=rho, alpha=1))
        assert printed_bound(kernel, rho, alpha=1, gamma=0.5) == 1.25
        assert L == pytest.approx(1.75)
        assert contraction.row_sum_bound(kernel, rho, alpha=1, gamma=0.5) >= L - 1e-12

    def test_false_certificate(self):
        mdp, kernel, rho = process([0, 0], gamma=0.1), coupled(0.3), np.array([0.2, 0.8])
        assert printed_bound(kernel, rho, alpha=1, gamma=0.1) == pytest.approx(0.904)  # "a contraction"
        update = KernelUpdate(mdp, kernel=kernel, weights=rho, alpha=1)
        witness = contraction.modulus_witness(update)
        moved = [oracles.kernel_update(update, Q) for Q in (witness.Q1, witness.Q2)]
        apart = np.abs(moved[0] - moved[1]).max() / np.abs(witness.Q1 - witness.Q2).max()
        assert apart == pytest.approx(1.084)  # two tables that part
        assert contraction.exact_modulus(update) == pytest.approx(apart)

    def test_true_bound_on_random_cases(self, rng):
        fooled = 0
        for _ in range(200):
            mdp = random_mdp(3, 1, gamma=0.3, branching=1, rng=rng)
            kernel = strategies.make_kernel("dominant", 3, rng) + 0.2 * rng.random((3, 3))
            rho = rng.dirichlet(np.ones(3))
            L = contraction.exact_modulus(KernelUpdate(mdp, kernel=kernel, weights=rho, alpha=0.5))
            assert L <= contraction.row_sum_bound(kernel, rho, alpha=0.5, gamma=0.3) + 1e-12
            fooled += printed_bound(kernel, rho, alpha=0.5, gamma=0.3) < L - 1e-9
        assert fooled > 20


class TestC76SwapTheTablesForTheAbsoluteValue:
    """A signed bound on one difference bounds no norm. It holds for every two tables, so for the two swapped as
    well, and the two together bound the absolute value."""

    def test_one_sign_is_not_a_norm(self):
        gap = np.array([-3.0, 0.5])
        assert (gap <= 1).all()
        assert np.abs(gap).max() > 1

    def test_both_orders(self, rng):
        for _ in range(50):
            mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
            kernel, rho = strategies.make_kernel("gram", 6, rng), rng.dirichlet(np.ones(6))
            beta = contraction.row_sum_bound(kernel, rho, alpha=0.4, gamma=0.9)
            step = KernelUpdate(mdp, kernel=kernel, weights=rho, alpha=0.4)
            first, second = rng.standard_normal((2, 3, 2))
            gap, size = step(first) - step(second), np.abs(first - second).max()
            assert gap.max() <= beta * size + 1e-12  # one order
            assert (-gap).max() <= beta * size + 1e-12  # the other
            assert np.abs(gap).max() <= beta * size + 1e-12  # so the norm


class TestC77C80TheStepSizeCondition:
    """beta < 1 exactly if every row is dominant and a (1 + gamma) sum_j |K_ij| rho_j < 2 in every row. a K_ii rho_i
    <= 1 is enough for the second, and not needed."""

    def test_not_needed(self):
        kernel, rho = np.eye(2), np.full(2, 0.5)
        assert 2.2 * kernel[0, 0] * rho[0] > 1
        assert contraction.row_sum_bound(kernel, rho, alpha=2.2, gamma=0.5) == pytest.approx(0.65)

    def test_equivalence(self, rng):
        seen = {True: 0, False: 0}
        for _ in range(800):
            n = int(rng.integers(1, 5))
            kernel = np.diag(1 + rng.random(n)) + 0.1 * rng.standard_normal((n, n))
            rho, gamma, alpha = rng.dirichlet(np.full(n, 5.0)), rng.choice([0.0, 0.3, 0.6]), 4 * rng.random() + 1e-3
            contracts = contraction.row_sum_bound(kernel, rho, alpha=alpha, gamma=gamma) < 1
            dominant = contraction.row_dominance(kernel, rho, gamma=gamma).min() > 0
            short = (alpha * (1 + gamma) * np.abs(kernel) @ rho).max() < 2
            assert contracts == (dominant and short)
            if (alpha * np.diag(kernel) * rho).max() <= 1:
                assert contracts == dominant  # then the step needs no further condition
            seen[bool(contracts)] += 1
        assert min(seen.values()) > 100

    def test_without_the_modulus_the_sum_is_linear(self, rng):
        for _ in range(200):
            kernel, rho = strategies.make_kernel("gram", 3, rng), rng.dirichlet(np.ones(3))
            alpha = 1 / (np.diag(kernel) * rho).max()
            margins = contraction.row_dominance(kernel, rho, gamma=0.9)
            beta = contraction.row_sum_bound(kernel, rho, alpha=alpha, gamma=0.9)
            assert beta == pytest.approx((1 - alpha * margins).max())


class TestC81WhichWayTheArrowsPoint:
    """Sufficiency needs the arrow from the last line to the first. It holds with the step-size condition; without it
    only the printed direction is left, and that certifies nothing."""

    def test_printed_direction_holds_always(self, rng):
        for _ in range(500):
            kernel = np.diag(1 + rng.random(3)) + 0.1 * rng.standard_normal((3, 3))
            rho, alpha = rng.dirichlet(np.full(3, 5.0)), 6 * rng.random() + 1e-3
            if contraction.row_sum_bound(kernel, rho, alpha=alpha, gamma=0.5) <= 1:
                assert contraction.row_dominance(kernel, rho, gamma=0.5).min() >= -1e-12

    def test_needed_direction_fails_for_a_long_step(self):
        kernel, rho = np.eye(2), np.full(2, 0.5)
        assert contraction.row_dominance(kernel, rho, gamma=0.9).min() > 0  # the last line
        assert contraction.row_sum_bound(kernel, rho, alpha=10, gamma=0.9) > 1  # not the first
        assert contraction.row_sum_bound(kernel, rho, alpha=1, gamma=0.9) < 1


class TestC78C82C92TheInequalityIsStrict:
    """Every row must be dominant strictly. With <= a pair without data passes, and its value never moves.

    Equality alone decides nothing: the bound is 1, and the update may contract or not.
    """

    def test_equality_can_contract(self):
        """Two loops of their own, K = [[3, 1], [1, 3]]: both margins are 0, and the modulus is 0.75."""
        kernel, rho = np.array([[3.0, 1.0], [1.0, 3.0]]), np.full(2, 0.5)
        np.testing.assert_allclose(contraction.row_dominance(kernel, rho, gamma=0.5), 0, atol=1e-12)
        assert contraction.row_sum_bound(kernel, rho, alpha=0.5, gamma=0.5) == pytest.approx(1)
        mdp = process([0, 1], gamma=0.5)
        update = KernelUpdate(mdp, kernel=kernel, weights=rho, alpha=0.5)
        assert contraction.exact_modulus(update) == pytest.approx(0.75)
        assert oracles.lipschitz(update) == 0.75

    def test_zero_below_zero(self):
        rho = np.array([1.0, 0.0])
        np.testing.assert_allclose(contraction.row_dominance(np.eye(2), rho, gamma=0.9), [0.1, 0])  # 0 <= 0 "passes"
        assert contraction.row_sum_bound(np.eye(2), rho, alpha=0.5, gamma=0.9) == pytest.approx(1)
        mdp = process([1, 1], [1.0, 1.0], gamma=0.9)
        step = KernelUpdate(mdp, kernel=np.eye(2), weights=rho, alpha=0.5)
        assert contraction.exact_modulus(step) == pytest.approx(1)
        ends = [dynamics.iterate(step, [[0.0], [x]], max_iter=500).values[-1, :, 0] for x in (0.0, 1.0)]
        np.testing.assert_allclose(ends, [[1, 0], [1.9, 1]], atol=1e-8)  # two starts, two limits, neither is (10, 10)

    def test_equality_with_data_everywhere(self):
        """K12 = (1 - gamma) / (1 + gamma): no contraction in the sup norm, though here the iterates still converge."""
        kernel, rho = coupled(0.1 / 1.9), np.full(2, 0.5)
        mdp = process([0, 0], gamma=0.9)
        np.testing.assert_allclose(contraction.row_dominance(kernel, rho, gamma=0.9), 0, atol=1e-15)
        update = KernelUpdate(mdp, kernel=kernel, weights=rho, alpha=1)
        assert contraction.exact_modulus(update) == pytest.approx(1)
        assert radius(update.jacobian([0, 0])) < 0.95
        assert fate(update, [[1.0], [-1.0]]) == "converged"

    def test_a_little_less_is_a_contraction(self):
        kernel, rho = coupled(0.1 / 1.9 - 1e-6), np.full(2, 0.5)
        assert contraction.row_sum_bound(kernel, rho, alpha=1, gamma=0.9) < 1


class TestC83TheRatioIsLarge:
    """(1 + gamma) / (1 - gamma) is 199 at gamma = 0.99: off its diagonal a row may hold half a percent."""

    def test_199(self):
        assert 1.99 / 0.01 == pytest.approx(199)
        for k, sign in [(0.99 / 199, 1), (1.01 / 199, -1)]:
            margins = contraction.row_dominance(coupled(k), np.full(2, 0.5), gamma=0.99)
            assert (np.sign(margins) == sign).all()


# ---------------------------------------------------------------- Sequences of updates


class TestC85EachBelowOneIsNotEnough:
    """A sequence with a common fixed point converges if the product of the moduli, all in one norm, goes to 0. It may
    converge as well if it does not."""

    def test_the_product_stops_at_a_half(self):
        """Steps 1 / (k + 2)^2 towards 0: every one a contraction, and half of the error stays for ever."""
        mdp, Q, n = FiniteMDP(np.zeros((1, 1, 1)), [[0.0]], 0), np.ones((1, 1)), 1000
        for k in range(n):
            Q = Update.table(mdp, alpha=1 / (k + 2) ** 2)(Q)
        assert Q[0, 0] == pytest.approx((n + 2) / (2 * (n + 1)))  # the product telescopes
        assert Q[0, 0] > 0.5

    def test_bounded_away_from_one_converges(self, rng):
        mdp, Q = FiniteMDP(np.zeros((1, 1, 1)), [[0.0]], 0), np.ones((1, 1))
        for _ in range(200):
            Q = Update.table(mdp, alpha=0.1 + 0.8 * rng.random())(Q)
        assert Q[0, 0] < 0.9**200

    def test_a_product_that_stops_need_not_stop_the_sequence(self):
        """Two cells in turn: one is halved, the other hardly moves, so that the moduli are 1 - 1 / (k + 2)^2."""
        mdp, Q, product = FiniteMDP(np.zeros((2, 1, 2)), np.zeros((2, 1)), 0), np.ones((2, 1)), 1.0
        for k in range(200):
            parts = np.roll([0.5, 1 / (k + 2) ** 2], k)  # of its error that each cell loses
            update = Update.shares(mdp, weights=parts / parts.sum(), alpha=parts.sum())
            product *= contraction.exact_modulus(update)
            Q = update(Q)
        assert product > 0.5
        assert np.abs(Q).max() < 1e-20

    def test_no_common_norm(self):
        """Two mixtures of data, one kernel, one fixed point: each alone converges, in turn they diverge."""
        first, second = examples.switching_divergence()
        np.testing.assert_array_equal(first.update.kernel, second.update.kernel)
        np.testing.assert_array_equal(first.target, second.target)
        start = np.array([[1.0], [-1.0]])
        pieces = []
        for example in (first, second):
            assert fate(example.update, start) == "converged"
            pieces.append(example.update.jacobian([0, 0]))
            assert radius(pieces[-1]) < 0.8
        assert radius(pieces[0] @ pieces[1]) > 2
        assert fate(lambda Q: first.update(second.update(Q)), start) == "diverged"


class TestC86C87TheChainOfInequalities:
    """With Q_{i+1} = U_i Q_i and a common fixed point, the error after i steps is at most the product of the first i
    moduli times the error at the start."""

    def test_product(self, rng):
        mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
        best, Q, product = bellman.policy_iteration(mdp).Q, rng.standard_normal((3, 2)), 1.0
        start = np.abs(Q - best).max()
        for _ in range(50):
            rho = rng.dirichlet(np.full(6, 5.0))
            update = Update.shares(mdp, weights=rho, alpha=0.8)
            product *= contraction.exact_modulus(update)
            Q = update(Q)
            assert np.abs(Q - best).max() <= product * start + 1e-12
        assert product < 1


class TestC88AMinibatchThatMissesAPairNeverContracts:
    """The condition must be strict, with a step size, for each K and each rho. A minibatch that misses a pair fails it:
    the update it makes is a contraction in no norm."""

    def test_the_missing_row(self, rng):
        for _ in range(200):
            mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
            kernel, rho = strategies.make_kernel("gram", 6, rng), rng.dirichlet(np.ones(6))
            rho[2] = 0.0
            rho /= rho.sum()
            alpha = rng.random() + 0.01
            assert contraction.row_dominance(kernel, rho, gamma=0.9)[2] <= 0
            update = KernelUpdate(mdp, kernel=kernel, weights=rho, alpha=alpha)
            L = contraction.exact_modulus(update)
            assert L >= 1 + alpha * (1 - 0.9) * (np.abs(kernel[2]) @ rho) - 1e-12
            for policy in oracles.policies(mdp)[:3]:
                assert (
                    np.abs(np.linalg.eigvals(update.jacobian(policy)) - 1).min() < 1e-8
                )  # an eigenvalue 1: no norm helps

    def test_a_sweep_of_batches_contracts_in_a_table(self):
        """K = I: each batch of one pair has modulus 1, and one after the other they contract."""
        mdp, pieces = process([1, 0], gamma=0.9), []
        for batch in np.eye(2):
            update = Update.shares(mdp, weights=batch, alpha=0.5)
            assert contraction.exact_modulus(update) == pytest.approx(1)
            pieces.append(update.jacobian([0, 0]))
        assert np.abs(pieces[1] @ pieces[0]).sum(axis=1).max() == pytest.approx(0.95)


class TestC89OperatorsOfDifferentBatchesHaveDifferentFixedPoints:
    """All updates share the fixed point Q* if each K D is nonsingular and each backup is the true T*. Sampled next
    states break it, and so do too few parameters; and the point is a table, not a parameter."""

    def test_nonsingular_and_true_backup(self, rng):
        mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
        best = bellman.policy_iteration(mdp).Q
        for _ in range(10):
            step = KernelUpdate(
                mdp, kernel=strategies.make_kernel("gram", 6, rng), weights=rng.dirichlet(np.ones(6)), alpha=0.3
            )
            np.testing.assert_allclose(step(best), best, atol=1e-10)

    def test_sampled_outcomes(self, rng):
        """A fair coin pays 0 or 1: each sample has its own fixed point, 0 or 1, and Q* = 1/2 is neither. The iterates
        keep a variance of alpha / (2 - alpha) / 4."""
        outcomes = [process([None], [r], gamma=0.9) for r in (0.0, 1.0)]
        assert [bellman.policy_iteration(m).Q[0, 0] for m in outcomes] == [0, 1]
        np.testing.assert_allclose(Update.table(outcomes[1], alpha=0.3)([[0.5]]), 0.65)  # moves Q*
        Q, seen = 0.5, np.empty(200_000)
        for k, r in enumerate(rng.integers(2, size=len(seen))):
            Q += 0.3 * (r - Q)
            seen[k] = Q
        assert seen.var() == pytest.approx(0.3 / 1.7 / 4, rel=0.03)
        assert seen.min() < 0.02 and seen.max() > 0.98

    def test_too_few_parameters(self):
        """One weight for two states: where it settles depends on the batch, 1/3 or 1/12."""
        mdp, phi = process([1, 0], [1.0, 0.0], gamma=0.5), np.array([[1.0], [2.0]])
        for rho, want in [([0.5, 0.5], 1 / 3), ([0.2, 0.8], 1 / 12)]:
            run = dynamics.iterate(
                lambda t, rho=rho: updates.linear_step(t, phi, mdp, weights=rho, alpha=0.2), [0.0], max_iter=2000
            )
            assert run.values[-1, 0] == pytest.approx(want, abs=1e-7)


# ---------------------------------------------------------------- Heuristics


class TestC92C93TheStepSizeIsPartOfTheCondition:
    """Row dominance and a short enough step: both. A step with a K_ii rho_i >= 1 is no way to a contraction."""

    def test_dominant_rows_long_step(self):
        mdp, kernel, rho = process([1, 0], gamma=0.9), np.eye(2), np.full(2, 0.5)
        assert contraction.row_dominance(kernel, rho, gamma=0.9).min() > 0
        assert 10 * kernel[0, 0] * rho[0] >= 1  # what the notes ask for
        update = KernelUpdate(mdp, kernel=kernel, weights=rho, alpha=10)
        assert radius(update.jacobian([0, 0])) == pytest.approx(8.5)  # |1 - 5 (1 + 0.9)|
        assert fate(update, [[1.0], [-1.0]]) == "diverged"

    @pytest.mark.parametrize(("factor", "contracts"), [(0.99, True), (1.01, False)])
    def test_threshold(self, factor, contracts):
        kernel, rho = coupled(0.02), np.array([0.4, 0.6])
        limit = contraction.step_size_limit(kernel, rho, gamma=0.9)
        assert (contraction.row_sum_bound(kernel, rho, alpha=factor * limit, gamma=0.9) < 1) == contracts

    def test_short_step_alone_is_not_enough_either(self):
        example = examples.full_data_divergence()
        update = example.update
        assert (update.alpha * np.diag(update.kernel) * update.weights).max() < 1
        assert fate(update, example.Q0) == "diverged"


class TestC94OffDiagonalEntriesAreWeighedAndCompared:
    """What counts is sum_{j != i} |K_ij| rho_j against K_ii rho_i; and how the process is wired: large entries can be
    harmless."""

    def test_nearly_equal_rows_on_self_loops(self):
        mdp, kernel, rho = process([0, 1], gamma=0.99), coupled(0.99), np.full(2, 0.5)
        assert contraction.row_sum_bound(kernel, rho, alpha=1, gamma=0.99) > 1.9
        update = KernelUpdate(mdp, kernel=kernel, weights=rho, alpha=1)
        assert contraction.exact_modulus(update) == pytest.approx(0.99995)

    def test_the_same_kernel_other_weights(self):
        kernel = coupled(0.1)
        balanced, lopsided = np.full(2, 0.5), np.array([0.9, 0.1])
        assert contraction.row_dominance(kernel, balanced, gamma=0.5).min() > 0
        assert contraction.row_dominance(kernel, lopsided, gamma=0.5).min() < 0

    def test_scaling_the_kernel_changes_nothing(self):
        kernel, rho = coupled(0.1), np.array([0.9, 0.1])
        small, large = (contraction.row_dominance(c * kernel, rho, gamma=0.5) for c in (1, 100))
        np.testing.assert_array_equal(np.sign(small), np.sign(large))


class TestC95ATableSharesNothing:
    """Off-diagonal entries come from shared parameters; a table has none."""

    def test_table_and_groups(self):
        table, shared = features.kernel(features.one_hot(4)), features.kernel(features.aggregation([0, 0, 1, 1]))
        np.testing.assert_array_equal(table, np.eye(4))
        np.testing.assert_array_equal(shared - np.eye(4) != 0, [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])


class TestC96MissingData:
    """A pair without data: no contraction on the space of all tables, and a limit that depends on the start, if there
    is one. Divergence needs in addition that something spills over to the pair: with a loop gain of 1 or more if a
    single pair is sampled, by short steps; with more pairs a gain below 1 can be enough. A parameter can move only if
    its gradient at a sampled pair is not zero."""

    @pytest.mark.parametrize(("gamma", "want"), [(0.48, "converged"), (0.52, "diverged")])
    def test_gain_above_one(self, gamma, want):
        """K = [[1, 2], [2, 5]], only pair 1 sampled: whatever pair 1 moves, pair 2 moves twice."""
        kernel, rho = np.array([[1.0, 2.0], [2.0, 5.0]]), [1, 0]
        assert (updates.loop_gain(kernel, batch=[0], gamma=gamma) < 1) == (want == "converged")
        step = KernelUpdate(process([1, 1], gamma=gamma), kernel=kernel, weights=rho, alpha=0.5)
        assert fate(step, [[1.0], [0.0]]) == want

    def test_two_pairs_diverge_with_a_gain_below_one(self):
        """A positive definite kernel and a gain of 0.891; without the spill, or with the kernel undone, it settles."""
        example = examples.low_gain_divergence()
        update = example.update
        gain = updates.loop_gain(update.kernel, batch=[0, 1], gamma=update.mdp.gamma)
        assert gain == pytest.approx(0.891)
        for alpha in (0.1, 0.01, 0.001):
            assert fate(replace(update, alpha=alpha), example.Q0, max_iter=200_000) == "diverged"
        apart = update.kernel.copy()
        apart[2, :2] = apart[:2, 2] = 0
        assert fate(replace(update, kernel=apart), example.Q0) == "converged"
        undone = Update.preconditioned(update.mdp, kernel=update.kernel, batch=[0, 1], alpha=0.1)
        assert fate(undone, example.Q0) == "converged"

    def test_one_pair_diverges_by_short_steps_only_with_a_gain_above_one(self, rng):
        """With one pair in the data the plain step is the preconditioned one of size alpha K_jj."""
        seen = []
        for _ in range(60):
            mdp = random_mdp(3, 2, gamma=rng.uniform(0.3, 0.99), branching=2, rng=rng)
            length = rng.lognormal(size=6)  # features of different lengths, so that some spill more than they move
            kernel, weights, j = strategies.make_kernel("gram", 6, rng) * np.outer(length, length), np.zeros(6), 0
            weights[j], size = 1.0, rng.uniform(0.05, 1)
            step = KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=size / kernel[j, j])
            Q = rng.standard_normal((3, 2))
            same = Update.preconditioned(mdp, kernel=kernel, batch=[j], alpha=size)(Q)
            np.testing.assert_allclose(step(Q), same, atol=1e-9)
            quiet = updates.loop_gain(kernel, batch=[j], gamma=mdp.gamma) < 0.99
            seen.append(quiet)
            if quiet:
                assert fate(step, Q, max_iter=100_000) == "converged"
        assert 5 < sum(seen) < 55

    def test_few_parameters_may_have_one_limit(self):
        """w to 2w, the first state only, gamma 0.4: the second is never trained, and every w goes to 0."""
        example = examples.w_to_2w(0.4)
        assert example.update.weights[1] == 0
        for w in (-5.0, 0.1, 3.0):
            run = dynamics.iterate(example.update, w * example.features, max_iter=5000)
            assert run.status == "converged"
            np.testing.assert_allclose(run.values[-1], 0, atol=1e-5)

    def test_a_table_freezes(self):
        """Nothing spills over: the wild guess stays as it is, and nothing grows."""
        step = KernelUpdate(process([1, 1], gamma=0.9), kernel=np.eye(2), weights=[1, 0], alpha=0.5)
        run = dynamics.iterate(step, [[0.0], [100.0]], max_iter=500)
        assert run.status == "converged"
        np.testing.assert_allclose(run.values[-1, :, 0], [90, 100], atol=1e-6)

    def test_not_every_parameter_is_updated(self):
        mdp = process([0, 1], [1.0, 1.0], gamma=0.5)
        moved = updates.linear_step([0.0, 0.0], features.one_hot(2), mdp, weights=[1, 0], alpha=0.5)
        np.testing.assert_array_equal(moved, [0.5, 0])
        right = process([0, 1], [0.0, 1.0], gamma=0.5)  # no TD error at the sampled pair, and nothing moves
        still = updates.linear_step([0.0, 0.0], features.one_hot(2), right, weights=[1, 0], alpha=0.5)
        np.testing.assert_array_equal(still, [0, 0])


class TestC97OvershootNeedsNoBootstrapping:
    """A step that is too long overshoots with or without bootstrapping, which only moves the threshold, up or down."""

    @pytest.mark.parametrize(
        ("mdp", "limit"),
        [
            (process([None], gamma=0.9), 2.0),  # no next value at all
            (process([1, 0], gamma=0.9), 2 / 1.9),  # two states in turn: lower
            (process([0], gamma=0.9), 2 / 0.1),  # a loop: higher
        ],
        ids=["no bootstrap", "swap", "loop"],
    )
    def test_threshold(self, mdp, limit):
        start = np.array([[1.0], [-1.0]])[: mdp.n_states]
        for factor, want in [(0.99, "converged"), (1.01, "diverged")]:
            step = Update.table(mdp, alpha=factor * limit)
            assert fate(step, start) == want
