"""Attacks on the claims of chapter 4: on its summary, line by line, and on sentences that were once false."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from divergence_notes import bellman, contraction, dynamics, examples, features, updates, verdicts
from divergence_notes.mdp import FiniteMDP
from divergence_notes.updates import KernelUpdate
from tests import oracles, strategies
from tests.attacks import attack, kernel_updates, processes, radius, size

SMALL = {"max_states": 3, "max_actions": 2}


def modulus(case):
    """Return the largest row sum over all pieces: the modulus by brute force."""
    return float(oracles.lipschitz(case))


def comes_home(case, *, steps=250):
    """Say whether runs from several starts end at the optimal table."""
    star, rng = oracles.best_table(case.mdp), np.random.default_rng(0)
    starts = [np.zeros_like(star), *(10 * rng.standard_normal((3, *star.shape)))]
    runs = [dynamics.iterate(case, Q, max_iter=steps, tol=1e-12, bound=1e9) for Q in starts]
    return all(np.allclose(run.values[-1], star, atol=1e-6) for run in runs)


class TestOneFactorBelowOne:
    """A contraction brings all pairs of tables closer, by one factor below 1. Then there is one limit, and it is Q*."""

    def test_the_limit(self):
        attack(
            kernel_updates(80, gammas=(0, 0.3, 0.5), **SMALL),
            lambda case: modulus(case) > 0.9 or comes_home(case),
            {
                "a factor of at most 1": lambda case: modulus(case) > 1 + 1e-12 or comes_home(case),
                "two tables that come closer": lambda case: not closer(case) or comes_home(case),
            },
        )

    def test_one_factor_for_all(self):
        """On the line: sqrt(1 + x^2) brings every two points closer, by no one factor, and has no limit."""
        x, y = 0.0, 3.0
        for _ in range(1000):
            moved = np.hypot(1, x), np.hypot(1, y)
            assert abs(moved[0] - moved[1]) < abs(x - y)
            x, y = moved
        assert x > 30


def closer(case):
    """Say whether two random tables come closer in one step."""
    Q1, Q2 = np.random.default_rng(1).standard_normal((2, *case.mdp.R.shape))
    return size(case(Q1) - case(Q2)) < size(Q1 - Q2)


def stretches(case):
    """Return how far one update stretches the distance of tables: of random ones, and of two close by each policy."""
    mdp, rng = case.mdp, np.random.default_rng(2)
    pairs = [rng.standard_normal((2, *mdp.R.shape)) for _ in range(10)]
    for policy, J in zip(oracles.policies(mdp), oracles.jacobians(case), strict=True):
        base = np.eye(mdp.n_actions)[policy]
        row = J[np.abs(J).sum(axis=1).argmax()]
        worst = np.where(row >= 0, 1.0, -1.0).reshape(base.shape)
        pairs.append((base + worst / 4, base))
    return [size(case(Q1) - case(Q2)) / size(Q1 - Q2) for Q1, Q2 in pairs]


class TestEachPiece:
    """It contracts in the sup norm exactly if each piece maps the unit square into a smaller one."""

    def test_the_stretch_is_that_of_the_worst_piece(self):
        def largest(number):
            return lambda case: np.isclose(max(stretches(case)), number(case), rtol=1e-9, atol=1e-9)

        attack(
            kernel_updates(150, **SMALL),
            largest(contraction.exact_modulus),
            {
                "the piece of one policy": largest(lambda case: np.abs(case.jacobians()[0]).sum(axis=1).max()),
                "the largest eigenvalue of a piece": largest(lambda case: max(map(radius, case.jacobians()))),
                "the bound that does not look at P": largest(
                    lambda case: contraction.row_sum_bound(
                        case.kernel, case.weights, alpha=case.alpha, gamma=case.mdp.gamma
                    )
                ),
            },
        )


def margins(case, *, column=True, sizes=True):
    """Return the margins of row dominance, or of a version of it with another share or without absolute values."""
    kernel, weights, gamma = case.kernel, case.weights, case.mdp.gamma
    shares = weights[None, :] if column else weights[:, None]
    pull = (np.abs(kernel) if sizes else kernel) * shares
    own = np.diag(kernel) * weights
    return (1 - gamma) * own - (1 + gamma) * (pull.sum(axis=1) - np.diag(pull))


def dominant_updates(count):
    """Return updates near the border of row dominance, in processes that were not asked: also those to one state."""
    rng = np.random.default_rng(11)
    drawn = []
    for _ in range(count):
        n, gamma = int(rng.integers(2, 4)), float(rng.choice([0.1, 0.5, 0.9]))
        weights = rng.dirichlet(np.ones(n)) if rng.random() < 0.8 else np.eye(n)[0]
        kernel = rng.standard_normal((n, n)) * rng.choice([0, 0.02, 0.3])
        np.fill_diagonal(kernel, rng.uniform(0.5, 1.5, n))
        P = np.eye(n)[rng.integers(n, size=n) if rng.random() < 0.5 else np.full(n, rng.integers(n))]
        own = (np.diag(kernel) * weights).max()
        alpha = float(rng.choice([0.5, 1, 3])) / own
        mdp = FiniteMDP(P[:, None], np.zeros((n, 1)), gamma)
        drawn.append(KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=alpha))
    return drawn


def certifies(*, strict=True, step_matters=True, **version):
    """Return the claim that a version of row dominance makes the update contract."""

    def claim(case):
        found = margins(case, **version)
        holds = (found > 1e-12).all() if strict else (found >= 0).all()
        short = (case.alpha * np.diag(case.kernel) * case.weights <= 1).all()
        return not (holds and (short or not step_matters)) or modulus(case) < 1

    return claim


class TestDominanceCertifies:
    """Row dominance: strict, with rho_j, with absolute values, and with a step that is not too long."""

    def test_each_word_is_needed(self):
        attack(
            dominant_updates(3000),
            certifies(),
            {
                "not strict": certifies(strict=False),
                "with rho_i": certifies(column=False),
                "without absolute values": certifies(sizes=False),
                "with any step": certifies(step_matters=False),
            },
        )

    def test_what_remains_if_you_may_not_look(self):
        """Where it fails, with no negative entry and a short step, some process is no contraction: all to one state."""

        def worst(case):
            n, gamma = len(case.weights), case.mdp.gamma
            all_to = [FiniteMDP(np.tile(row, (n, 1))[:, None], np.zeros((n, 1)), gamma) for row in np.eye(n)]
            return max(modulus(replace(case, mdp=mdp)) for mdp in all_to)

        def margins_hold(case):
            return (margins(case) > 0).all()

        def sharp(case):
            return margins_hold(case) or worst(case) >= 1 - 1e-12

        cases = []
        for case in dominant_updates(300):
            alpha = 0.9 / (np.diag(case.kernel) * case.weights).max()
            cases.append(replace(case, kernel=np.abs(case.kernel), alpha=alpha))
        signed = [replace(case, kernel=np.where(np.eye(case.mdp.n_pairs), 1, -1) * case.kernel) for case in cases]
        attack(
            cases,
            sharp,
            {"so is every process": lambda case: margins_hold(case) or modulus(case) >= 1 - 1e-12},
        )
        assert not all(map(sharp, signed))  # with negative entries the bound may be above what any process does

    def test_199(self):
        """At 0.99 a coupling of 1/199 of the own pull is the border: the condition holds below, and not above."""
        mdp = FiniteMDP(np.zeros((2, 1, 2)), np.zeros((2, 1)), 0.99)
        for factor, holds in ((0.999, True), (1.001, False)):
            kernel = np.array([[1.0, factor / 199], [factor / 199, 1.0]])
            assert (margins(KernelUpdate(mdp, kernel=kernel, weights=np.full(2, 0.5), alpha=1)) > 0).all() == holds


def some_of_which_contract(count):
    """Return weakly coupled updates, of which some contract at some step, and others of all kinds."""
    rng, near = np.random.default_rng(6), []
    for mdp in processes(count, seed=6, gammas=(0.3, 0.6), **SMALL):
        kernel = np.diag(1 + rng.random(mdp.n_pairs))
        kernel += rng.choice([0.01, 0.05]) * rng.standard_normal(kernel.shape)
        weights = rng.dirichlet(np.full(mdp.n_pairs, 9.0))
        near.append(KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=1.0))
    pair = examples.full_data_divergence().update  # mirrored and weakly coupled: its first policy alone has steps
    near += [replace(pair, kernel=[[1.0, 0.0], [0.2, 1.0]], weights=pair.weights[::-1])]
    return [*near, *kernel_updates(count, seed=6, **SMALL)]


class TestLargestStep:
    """Some step contracts exactly if each row of each G_pi is dominated by its diagonal; then those below 2 / |G|."""

    @staticmethod
    def rows(case):
        """Return I - J_pi at step size 1 for each policy: G_pi, by brute force."""
        return [np.eye(case.mdp.n_pairs) - J for J in oracles.jacobians(replace(case, alpha=1.0))]

    def dominated(self, case, *, pieces=None):
        return all(
            2 * G[i, i] > np.abs(G[i]).sum() + 1e-9 for G in self.rows(case)[:pieces] for i in range(case.mdp.n_pairs)
        )

    def end(self, case):
        return 2 / max(np.abs(G).sum(axis=1).max() for G in self.rows(case))

    def contracts(self, case, alpha):
        return modulus(replace(case, alpha=float(alpha))) < 1

    def test_some_step(self):
        steps = np.geomspace(1e-3, 1e2, 40)

        def exists(case):
            longest = self.end(case)
            return any(self.contracts(case, alpha) for alpha in (*steps, 0.5 * longest, 0.99 * longest))

        attack(
            some_of_which_contract(60),
            lambda case: exists(case) == self.dominated(case),
            {
                "a short step is always enough": exists,
                "the look at one policy": lambda case: exists(case) == self.dominated(case, pieces=1),
                "the diagonal of the kernel": lambda case: exists(case) == bool((np.diag(case.kernel) > 0).all()),
            },
        )

    def test_which_steps(self):
        cases = some_of_which_contract(60)
        inside = [case for case in cases if self.dominated(case)]
        assert 10 < len(inside) < len(cases) - 10

        def parts(end):
            return lambda case: self.contracts(case, 0.999 * end(case)) and not self.contracts(case, 1.001 * end(case))

        attack(
            inside,
            parts(self.end),
            {
                "half of it": parts(lambda case: self.end(case) / 2),
                "where alpha K_ii rho_i is 1": parts(lambda case: 1 / (np.diag(case.kernel) * case.weights).max()),
                "the rows of the kernel": parts(lambda case: 2 / (np.abs(case.kernel) @ case.weights).max()),
            },
        )


CAST = [
    examples.row_dominant,
    examples.sup_norm_only,
    examples.weighted_norm_only,
    examples.some_norm_only,
    examples.closed_orbit,
    examples.full_data_divergence,
]


class TestFailingSaysNothing:
    """What fails the condition, or every certificate, may converge, circle or diverge."""

    @staticmethod
    def seen(example):
        """Return what happens, and the crudest certificate that covers it."""
        run = dynamics.iterate(example.update, example.Q0, max_iter=4000, bound=1e6)
        return {"status": run.status, "certificate": verdicts.verdicts(example.update).certified_by}

    def test_cast(self):
        attack(
            [self.seen(make()) for make in CAST],
            lambda seen: seen["certificate"] is None or seen["status"] == "converged",
            {
                "what fails the condition diverges": lambda seen: (
                    seen["certificate"] == "row_sum_bound" or seen["status"] == "diverged"
                ),
                "what no norm certifies diverges": lambda seen: (
                    seen["certificate"] is not None or seen["status"] == "diverged"
                ),
                "what fails the condition does not converge": lambda seen: (
                    seen["certificate"] == "row_sum_bound" or seen["status"] != "converged"
                ),
                "the exact modulus settles it": lambda seen: (
                    seen["certificate"] in ("row_sum_bound", "exact_modulus", None)
                ),
                "a weighted norm settles it": lambda seen: seen["certificate"] != "joint_spectral_radius",
            },
        )


class TestNoNormNoVerdict:
    """What no norm certifies may come home all the same, from every start that was tried."""

    def test_it_comes_home(self):
        """The orbit without its reward, from ten random starts; with its reward it does not."""
        orbit = examples.closed_orbit().update
        assert verdicts.verdicts(orbit).certified_by is None
        starts = np.random.default_rng(8).standard_normal((10, 1, 2))

        def home(update):
            return all(dynamics.iterate(update, Q, max_iter=3000).status == "converged" for Q in starts)

        assert home(replace(orbit, mdp=replace(orbit.mdp, R=0 * orbit.mdp.R)))
        assert not home(orbit)


class TestEquality:
    """With equality in row dominance the bound is 1, and certifies nothing; the update may contract all the same."""

    def test_equality(self):
        loops = replace(examples.sup_norm_only().update.mdp, gamma=0.5)
        to_first = replace(loops, P=np.tile([1.0, 0.0], (2, 1))[:, None])
        cases = [
            KernelUpdate(mdp, kernel=[[3.0, 1.0], [1.0, 3.0]], weights=[0.5, 0.5], alpha=0.5)
            for mdp in (loops, to_first)
        ]
        for case in cases:
            assert (margins(case) == 0).all()
        attack(
            cases,
            lambda case: np.isclose(
                contraction.row_sum_bound(case.kernel, case.weights, alpha=0.5, gamma=0.5), 1, rtol=0, atol=1e-12
            ),
            {
                "with equality nothing contracts": lambda case: modulus(case) >= 1,
                "with equality it contracts": lambda case: modulus(case) < 1,
            },
        )

    def test_in_one_row(self):
        """Then the bound is at least 1, whatever the other rows and the step; it need not be 1."""
        rng, cases = np.random.default_rng(12), []
        for _ in range(300):
            n, gamma = int(rng.integers(2, 4)), float(rng.choice([0, 0.3, 0.9]))
            kernel, weights = rng.standard_normal((n, n)), rng.dirichlet(np.ones(n))
            np.fill_diagonal(kernel, 1.0)
            kernel[0, 0] = 0
            kernel[0, 0] = (1 + gamma) * (np.abs(kernel[0]) * weights).sum() / ((1 - gamma) * weights[0])
            cases.append((kernel, weights, rng.uniform(0.1, 2) / (kernel[0, 0] * weights[0]), gamma))

        def bound(case):
            kernel, weights, alpha, gamma = case
            return contraction.row_sum_bound(kernel, weights, alpha=alpha, gamma=gamma)

        attack(cases, lambda case: bound(case) >= 1 - 1e-9, {"it is 1": lambda case: bound(case) <= 1 + 1e-9})


def features_updates(count):
    """Return updates of few parameters beside their features; on-policy evaluation among them."""
    rng = np.random.default_rng(5)
    cases = []
    for mdp in processes(count, seed=5, kinds=("dense", "deterministic"), gammas=(0.3, 0.4, 0.9), max_actions=1):
        phi = rng.standard_normal((mdp.n_pairs, int(rng.integers(1, mdp.n_pairs + 1))))
        weights = strategies.make_weights(("uniform", "random", "zeros")[rng.integers(3)], mdp.n_pairs, rng)
        if np.linalg.matrix_rank(phi.T @ (weights[:, None] * phi)) == phi.shape[1]:
            cases.append((KernelUpdate(mdp, kernel=features.kernel(phi), weights=weights, alpha=0.1), phi))
    w_to_2w = examples.w_to_2w(0.4)
    return [*cases, (replace(w_to_2w.update, alpha=0.5), w_to_2w.features)]


def on_parameters(case):
    """Return the matrix that acts on theta, for a process with one action."""
    update, phi = case
    P = oracles.chain_of_one_action(update.mdp)
    drift = phi.T @ np.diag(update.weights) @ (np.eye(len(P)) - update.mdp.gamma * P) @ phi
    return np.eye(phi.shape[1]) - update.alpha * drift


def has_one(case):
    """Say whether every piece has the eigenvalue 1."""
    return all(np.abs(np.linalg.eigvals(J) - 1).min() < 1e-6 for J in case.jacobians())


class TestSingularUpdates:
    """K D singular: no contraction on all tables, in any norm. On the tables that the features make it may be one."""

    def test_on_all_tables(self):
        def singular(case):
            return np.linalg.matrix_rank(case.kernel * case.weights) < case.mdp.n_pairs

        attack(
            kernel_updates(300, kernels=("gram", "singular", "dominant"), **SMALL),
            lambda case: not singular(case) or has_one(case),
            {
                "every update has the eigenvalue 1": has_one,
                "and then none comes closer": lambda case: not singular(case) or not closer(case),
            },
        )

    def test_two_tables_that_never_come_closer(self):
        """Each has two fixed points, so in no metric whatever is it a contraction."""

        def two_fixed_points(case):
            direction = np.linalg.svd(case.kernel * case.weights)[2][-1].reshape(case.mdp.R.shape)
            found = []
            for wish in (0 * direction, direction):  # the table with T*Q - Q = wish: a fixed point if K D wish = 0
                shifted = FiniteMDP(case.mdp.P, case.mdp.R - wish, case.mdp.gamma)
                found.append(bellman.policy_iteration(shifted).Q)
            return size(found[0] - found[1]) > 1e-6 and all(np.allclose(case(Q), Q, atol=1e-8) for Q in found)

        attack(
            kernel_updates(60, kernels=("singular",), kinds=("dense", "deterministic"), **SMALL),
            lambda case: case.mdp.n_pairs < 2 or two_fixed_points(case),
            {"the optimum alone": lambda case: case.mdp.n_pairs < 2 or not two_fixed_points(case)},
        )

    def test_on_the_tables_of_the_features(self):
        """The old sentence, "never a contraction", read where the iterates live, is refuted by w to 2w at 0.4."""
        attack(
            features_updates(200),
            lambda case: len(case[1]) == case[1].shape[1] or has_one(case[0]),
            {
                "never a contraction on range(Phi)": lambda case: radius(on_parameters(case)) >= 1,
                "always a contraction on range(Phi)": lambda case: radius(on_parameters(case)) < 1,
            },
        )


def rests(case):
    """Return the fixed points in theta of one parameter with two actions in state 2: r + 2 gamma |theta| = theta."""
    reward, gamma = case
    points = [reward / (1 - s * 2 * gamma) for s in (1, -1) if abs(1 - s * 2 * gamma) > 1e-12]
    return {round(p, 9) for p in points if abs(reward + 2 * gamma * abs(p) - p) < 1e-9}


def test_where_it_can_rest():
    """At a table that is not Q*, at one of several, or nowhere."""
    cases = list(itertools.product((-1.0, 0.0, 1.0), (0.3, 0.9)))
    phi = np.array([[1.0], [1.0], [2.0], [-2.0]])
    for reward, gamma in cases:
        P = np.zeros((2, 2, 2))
        P[0, :, 1] = 1
        mdp = FiniteMDP(P, np.array([[reward, reward], [0.0, 0.0]]), gamma)
        found = updates.linear_fixed_points(phi, mdp, weights=[0.5, 0.5, 0, 0])
        assert {round(float(theta), 9) + 0.0 for theta in np.ravel(found)} == {p + 0.0 for p in rests((reward, gamma))}
    attack(
        cases,
        lambda case: len(rests(case)) in (0, 1, 2),
        {
            "there is one": lambda case: len(rests(case)) >= 1,
            "there is at most one": lambda case: len(rests(case)) <= 1,
            "it is Q*": lambda case: all(2 * abs(p) == 0 for p in rests(case)),
        },
    )


def test_one_piece_is_parted_at_one():
    """One policy: below 1 its largest eigenvalue brings every start to one table, above 1 it does not; at 1 either."""

    rng = np.random.default_rng(13)
    cases = [rng.standard_normal((2, 2)) for _ in range(200)] + [np.eye(2), -np.eye(2), np.array([[1.0, 1], [0, 1]])]
    cases = [J for J in cases if not 0.97 < radius(J) < 1.03 or radius(J) == 1]

    def home(J):
        return size(np.linalg.matrix_power(J, 300) @ np.array([1.0, -0.3])) < 1e-2

    def bounded(J):
        return size(np.linalg.matrix_power(J, 300) @ np.array([1.0, -0.3])) < 30

    attack(
        cases,
        lambda J: radius(J) == 1 or home(J) == (radius(J) < 1),
        {
            "at 1 it stays bounded": lambda J: radius(J) != 1 or bounded(J),
            "at 1 it diverges": lambda J: radius(J) != 1 or not bounded(J),
        },
    )


def affine(matrix, centre):
    """Return an affine map with a fixed point."""
    return lambda x: centre + matrix @ (x - centre)


class TestInTurn:
    """Updates that take turns converge together in one common norm; if their fixed points differ, tables stay near."""

    def test_one_common_norm(self):
        """Pairs of stable maps with one fixed point, in turn: those that shrink in one norm converge."""
        rng = np.random.default_rng(3)
        cases = [rng.standard_normal((2, 2, 2)) * rng.uniform(0.3, 1) for _ in range(300)]
        cases = [case for case in cases if max(map(radius, case)) < 0.95]

        def converges(case):
            return radius(case[0] @ case[1]) < 1

        def in_the_sup_norm(case):
            return max(np.abs(A).sum(axis=1).max() for A in case) < 1

        attack(
            cases,
            lambda case: not in_the_sup_norm(case) or converges(case),
            {"each in a norm of its own": converges, "none without the sup norm": in_the_sup_norm},
        )

    def test_updates_of_one_game(self):
        """The same with two updates of the book: each comes home alone, and in turn they run off."""
        first, second = examples.switching_divergence()
        Q = first.Q0
        for _ in range(2000):
            Q = second.update(first.update(Q))
            if size(Q) > 1e6:
                break
        assert size(Q) > 1e6
        for each in (first, second):
            assert dynamics.iterate(each.update, each.Q0, max_iter=20_000).status == "converged"

    @pytest.mark.parametrize("beta", [0.5, 0.9])
    def test_near(self, beta):
        """In the limit within (1 + beta) eps / (1 - beta) of a table that is within eps of all fixed points."""
        rng, far = np.random.default_rng(4), 50.0

        def path(signs):
            """Return what follows from far away, with the fixed points at +-1 and 0 between them."""
            x = [np.full(2, far)]
            for sign in signs:
                x.append(affine(-beta * np.eye(2), sign * np.ones(2))(x[-1]))
            return np.array(x)

        def strays(signs):
            return size(path(signs)[-100:])

        runs = [rng.choice([-1.0, 1.0], size=400) for _ in range(50)] + [np.tile([1.0, -1.0], 200)]
        limit = (1 + beta) / (1 - beta)
        attack(
            runs,
            lambda signs: strays(signs) <= limit + 1e-9,
            {
                "within the spread": lambda signs: strays(signs) <= 1,
                "within a little less": lambda signs: strays(signs) <= 0.99 * limit,
                "of each fixed point": lambda signs: size(path(signs)[-100:] + 1) <= limit,
                "at every step": lambda signs: size(path(signs)) <= limit,
            },
        )


class TestBatchesInTurn:
    """A batch that misses a pair has a modulus of at least 1 in every norm; so no product of such moduli goes to 0."""

    def test_the_product(self):
        """Three batches of one game each, measured in a random norm x -> |S x|."""
        rng = np.random.default_rng(1990)
        cases = []
        for k, update in enumerate(kernel_updates(400, kernels=("gram", "dominant"), alphas=(0.05, 0.3), **SMALL)):
            n = update.mdp.n_pairs
            shares = rng.dirichlet(np.ones(n), size=3)
            if k % 2 and n > 1:
                shares[range(3), rng.integers(n, size=3)] = 0
                shares /= shares.sum(axis=1, keepdims=True)
            elif k % 2:
                continue
            batches = [replace(update, weights=rho) for rho in shares]
            scale = np.eye(n) + (k % 4 > 1) * rng.standard_normal((n, n)) / 2
            cases.append((batches, scale))

        def misses(case):
            return all((batch.weights == 0).any() for batch in case[0])

        def product(case):
            batches, S = case
            moduli = [
                max(np.abs(S @ batch.jacobian(pi) @ np.linalg.inv(S)).sum(axis=1).max() for pi in batch.policies())
                for batch in batches
            ]
            return np.prod(moduli)

        attack(
            cases,
            lambda case: not misses(case) or product(case) >= 1 - 1e-9,
            {
                "the product is below 1, whatever the batches miss": lambda case: not misses(case) or product(case) < 1,
                "the product is at least 1 for all batches": lambda case: product(case) >= 1,
            },
        )

    @pytest.mark.parametrize(("coupling", "alone", "round_"), [(0.0, 1.0, 0.9), (0.5, 1.05, 0.9525)])
    def test_a_round_may_contract(self, coupling, alone, round_):
        """Two loops at 0.9, a batch of one pair and then one of the other; the same batch twice does not contract."""
        calm = replace(examples.sup_norm_only().update, kernel=[[1, coupling], [coupling, 1]], alpha=1)
        J = [replace(calm, weights=shares).jacobian([0, 0]) for shares in ([1, 0], [0, 1])]
        norms = [np.abs(piece).sum(axis=1).max() for piece in J]
        assert norms == pytest.approx([alone, alone])
        for first, second in (J, J[::-1]):
            assert np.abs(second @ first).sum(axis=1).max() == pytest.approx(round_)
            assert np.abs(second @ second).sum(axis=1).max() >= 1

    def test_on_the_line_of_the_features(self):
        """There a batch that misses a pair may contract: w to 2w at 0.4, the first state alone."""
        line = examples.w_to_2w(0.4).update
        assert (line.weights == 0).any()
        x = np.array([[1.0], [2.0]])
        assert np.allclose(line(x), 0.98 * x)


class TestSignOfTheCoupling:
    """ex-contraction-last-norm: the sup norm sees all negative couplings that are safe, of the positive ones 1/19."""

    COUPLINGS = np.concatenate([np.linspace(-1.2, 1.2, 97), [-1 / 19 - 1e-6, 1 / 19 - 1e-6, 1 / 19 + 1e-6]])

    def test_what_each_sees(self):
        def at(c):
            K, J = np.array([[1, c], [c, 1]]), replace(examples.row_dominant().update, kernel=[[1, c], [c, 1]])
            bound = contraction.row_sum_bound(K, J.weights, alpha=J.alpha, gamma=J.mdp.gamma)
            return modulus(J), bound, radius(J.jacobian([0, 0]))

        def sees(c, *, lowest=-1.0, highest=1 / 19):
            return (at(c)[0] < 1 - 1e-9) == (lowest < c < highest)

        cases = [c for c in self.COUPLINGS if abs(abs(c) - 1) > 1e-9]
        attack(
            cases,
            sees,
            {
                "a nineteenth on both sides": lambda c: sees(c, lowest=-1 / 19),
                "all on both sides": lambda c: sees(c, highest=1.0),
            },
        )
        for c in cases:
            sup, bound, largest = at(c)
            assert (largest < 1) == (abs(c) < 1)
            assert (bound < 1) == (abs(c) < 1 / 19)
            assert c >= 0 or abs(c) > 1 or sup == pytest.approx(0.95 + 0.05 * abs(c))


class TestSteadyGuidance:
    """thm-tracking: 199 times takes a step to the other side of its fixed point; steps towards theirs stay within 1."""

    def test_one_per_cent_of_the_way(self):
        rng = np.random.default_rng(0)

        def farthest(factor, points):
            x, found = 0.0, 0.0
            for point in points:
                x = point + factor * (x - point)
                found = max(found, abs(x))
            return found

        cases = [rng.choice([-1.0, 1.0], size=3000), np.tile([1.0, -1.0], 1500), np.ones(3000)]
        attack(
            cases,
            lambda points: farthest(0.99, points) <= 1 + 1e-12,
            {"whatever the side": lambda points: farthest(-0.99, points) <= 1},
        )
        assert farthest(-0.99, cases[1]) == pytest.approx(199, rel=1e-6)


class TestCalmInThePlane:
    """No corner of the calm leaves its box, whatever the slider says; the bound grows to 1.85 times the width."""

    def test_the_slider(self):
        calm = examples.sup_norm_only().update

        def at(coupling):
            update = replace(calm, kernel=[[1, coupling], [coupling, 1]])
            pulled = np.abs(update.alpha * update.kernel * update.weights)  # all entries below 1
            own = np.diag(pulled)
            bound = (1 - (1 - 0.9) * own + (1 + 0.9) * (pulled.sum(axis=1) - own)).max()
            return modulus(update), bound

        couplings = [0.05 * k for k in range(-19, 20)]
        attack(
            couplings,
            lambda c: at(c)[0] < 1 and at(c)[1] < 1.855,
            {
                "the dotted square is the exact modulus": lambda c: np.isclose(*at(c)),
                "the dotted square stays below 1.8 times the width": lambda c: at(c)[1] < 1.8,
            },
        )
        assert at(couplings[-1])[1] == pytest.approx(1.8525)
        assert at(1.2)[0] > 1  # "for no coupling whatever": beyond 1, where K is the kernel of nothing
