"""Attacks on the claims of chapter 6: on its summary, line by line."""

import itertools
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from divergence_notes import diagnostics, dynamics, examples, networks, ntk, preqn, remedies, replay, training, updates
from divergence_notes.mdp import FiniteMDP
from divergence_notes.updates import KernelUpdate, Update
from tests import oracles, strategies
from tests.attacks import attack, processes, size


def backup(Q, mdp):
    """Return the optimality backup, by one product."""
    return mdp.R + mdp.gamma * mdp.P @ Q.max(axis=1)


def undone(case, Q, *, batch=None):
    """Return the step that undoes the kernel on a batch, written out with a solve of its own."""
    mdp, K, B = case["mdp"], case["kernel"], case["batch"] if batch is None else batch
    delta = (backup(Q, mdp) - Q).ravel()
    return Q + case["alpha"] * (K[:, B] @ np.linalg.solve(K[np.ix_(B, B)], delta[B])).reshape(Q.shape)


KINDS = ("dense", "terminating", "deterministic", "ties")


def batches(count, *, seed=31):
    """Return processes with a kernel of rows of different lengths, and a batch of some of their pairs."""
    rng, cases = np.random.default_rng(seed), []
    for mdp in processes(count, seed=seed, kinds=KINDS, gammas=(0.3, 0.6, 0.9), max_states=3, max_actions=2):
        n = mdp.n_pairs
        phi = rng.standard_normal((n, n + 2)) * rng.lognormal(sigma=0.7, size=(n, 1))
        batch = np.sort(rng.permutation(n)[: rng.integers(1, n + 1)])
        Q = rng.standard_normal(mdp.R.shape)
        cases.append({"mdp": mdp, "phi": phi, "kernel": phi @ phi.T, "batch": batch, "alpha": 0.8, "Q": Q})
    return cases


def test_the_shortest_step():
    """It gives the batch what was asked, and no other solution is shorter; the plain step asks for other things."""

    def steps(case):
        wish = case["alpha"] * (backup(case["Q"], case["mdp"]) - case["Q"]).ravel()[case["batch"]]
        rows = case["phi"][case["batch"]]
        return wish, rows, rows.T @ np.linalg.solve(rows @ rows.T, wish)

    def shortest(make):
        def claim(case):
            wish, rows, _ = steps(case)
            found = make(case, wish, rows)
            if not np.allclose(rows @ found, wish, atol=1e-8):
                return False
            free = np.linalg.svd(rows)[2][len(rows) :]  # what can be added without a change on the batch
            return all(np.linalg.norm(found + 0.1 * v) >= np.linalg.norm(found) for v in np.vstack([free, -free]))

        return claim

    def of_the_package(case, wish, rows):
        theta = np.linalg.lstsq(case["phi"], case["Q"].ravel(), rcond=None)[0]
        step = updates.minimum_norm_step(theta, case["phi"], case["mdp"], batch=case["batch"], alpha=case["alpha"])
        return step - theta

    attack(
        batches(60),
        shortest(of_the_package),
        {
            "the plain step": shortest(lambda case, wish, rows: rows.T @ wish),
            "any solution": shortest(lambda case, wish, rows: steps(case)[2] + np.linalg.svd(rows)[2][-1]),
        },
    )


def test_inside_and_outside():
    """Inside the batch the kernel is gone, outside the pairs move by the spill; W the other way round is another."""

    def moves(outside):
        def claim(case):
            B, K = case["batch"], case["kernel"]
            o = np.setdiff1d(np.arange(len(K)), B)
            step = Update.preconditioned(case["mdp"], kernel=K, batch=B, alpha=case["alpha"])
            moved = (step(case["Q"]) - case["Q"]).ravel()
            asked = case["alpha"] * (backup(case["Q"], case["mdp"]) - case["Q"]).ravel()
            inside = np.allclose(moved[B], asked[B], atol=1e-7)
            return inside and np.allclose(moved[o], outside(K, B, o, asked), atol=1e-7)

        return claim

    attack(
        batches(80),
        moves(lambda K, B, o, asked: K[np.ix_(o, B)] @ np.linalg.solve(K[np.ix_(B, B)], asked[B])),
        {
            "outside nothing moves": moves(lambda K, B, o, asked: 0 * asked[o]),
            "outside by the kernel": moves(lambda K, B, o, asked: K[np.ix_(o, B)] @ asked[B]),
            "outside as they should": moves(lambda K, B, o, asked: asked[o]),
        },
    )


def run(case, *, batch=None, steps=600, Q=None):
    """Return where the undone update goes."""
    start = case["Q"] if Q is None else Q
    return dynamics.iterate(lambda table: undone(case, table, batch=batch), start, max_iter=steps, bound=1e8, tol=1e-11)


def test_the_whole_table_as_batch():
    """It converges to Q* for every nonsingular kernel by steps up to 1; not by longer ones, nor with one left out."""

    def home(*, alpha=1.0, batch=lambda n: np.arange(n)):
        def claim(case):
            n = case["mdp"].n_pairs
            seen = run(case | {"alpha": alpha}, batch=batch(n), steps=400)
            return np.allclose(seen.values[-1], oracles.best_table(case["mdp"]), atol=1e-5)

        return claim

    cases = batches(40)
    unsymmetric = [
        case | {"kernel": strategies.make_kernel("unsymmetric", case["mdp"].n_pairs, np.random.default_rng(i))}
        for i, case in enumerate(cases)
    ]
    attack(
        [case for case in [*cases, *unsymmetric] if np.linalg.cond(case["kernel"]) < 1e4],
        home(),
        {"by any step": home(alpha=2.5), "with one left out": home(batch=lambda n: np.arange(max(1, n - 1)))},
    )


def gain(case):
    """Return the loop gain of the batch."""
    B, K = case["batch"], case["kernel"]
    o = np.setdiff1d(np.arange(len(K)), B)
    W = np.linalg.solve(K[np.ix_(B, B)], K[np.ix_(B, o)]).T
    return case["mdp"].gamma * np.abs(W).sum(axis=1).max() if len(o) else 0.0


class TestFixedBatch:
    """A fixed batch settles if its loop gain is below 1, at a table that depends on the start; above it may diverge."""

    def test_settles(self):
        cases = batches(150)
        seen = {id(case): run(case) for case in cases}

        def settles(case):
            return seen[id(case)].status != "diverged" and seen[id(case)].steps[-1] < 1e-3

        def optimal(case):
            return np.allclose(seen[id(case)].values[-1], oracles.best_table(case["mdp"]), atol=1e-3)

        attack(
            cases,
            lambda case: gain(case) >= 0.95 or settles(case),
            {
                "above 1 too": settles,
                "above 1 it diverges": lambda case: gain(case) <= 1 or seen[id(case)].status == "diverged",
                "at the optimal table": lambda case: gain(case) >= 0.95 or optimal(case),
            },
        )

    def test_where_depends_on_the_start(self):
        leads_on = FiniteMDP(np.tile([0.0, 1.0], (2, 1))[:, None], np.ones((2, 1)), 0.4)
        case = {"mdp": leads_on, "kernel": np.array([[1.0, 2.0], [2.0, 5.0]]), "batch": [0], "alpha": 1.0}
        ends = [run(case, Q=np.array([[0.0], [q]])).values[-1] for q in (0.0, 5.0)]
        assert size(ends[0] - ends[1]) > 1

    def test_rows_of_the_spill(self):
        """The gain is the largest sum over a row, |W| and not W."""
        K = np.array([[2.0, 0, 1.0], [0, 1.0, -0.9], [1.0, -0.9, 3]])
        assert updates.loop_gain(K, batch=[0, 1], gamma=0.5) == pytest.approx(0.5 * 1.4)


class TestNotAlwaysCured:
    """A batch that leaves out the wrong pair, turns and random draws, and a batch whose features are dependent."""

    def test_the_wrong_pair(self):
        pair = examples.full_data_divergence()
        case = {"mdp": pair.update.mdp, "kernel": pair.update.kernel, "alpha": 0.1, "Q": pair.Q0}
        fates = {name: run(case, batch=list(name), steps=3000).status for name in ((0, 1), (0,), (1,))}
        assert fates == {(0, 1): "converged", (0,): "converged", (1,): "diverged"}

    def test_turns(self):
        """Batch 1, then batch 2, at gamma 0.6: cured; at 0.9 not; with nothing to spill, at 0.9 as well."""

        def status(gamma, coupling):
            mdp = FiniteMDP(np.tile([0.0, 1.0], (2, 1))[:, None], np.ones((2, 1)), gamma)
            case = {"mdp": mdp, "kernel": np.array([[1.0, coupling], [coupling, 5.0]]), "alpha": 1.0}

            def both(Q):
                return undone(case, undone(case, Q, batch=[0]), batch=[1])

            return dynamics.iterate(both, np.zeros((2, 1)), max_iter=1500, bound=1e6).status

        attack(
            [(0.6, 2.0), (0.9, 0.0), (0.9, 2.0)],
            lambda case: (status(*case) == "diverged") == (case == (0.9, 2.0)),
            {
                "turns cure it": lambda case: status(*case) == "converged",
                "turns never do": lambda case: status(*case) == "diverged",
            },
        )

    def test_random_draws(self):
        """Two of three states at a time: the mean step grows at gamma 0.5 and not at 0.1, nor without spill."""
        rows = np.array([[3, 1, -1], [-3, -3, -2], [2, 2, 1]])

        def drift(gamma, kernel):
            M = np.zeros((3, 3))
            for batch in ([0, 1], [0, 2], [1, 2]):
                M[:, batch] += kernel[:, batch] @ np.linalg.inv(kernel[np.ix_(batch, batch)]) / 3
            return np.linalg.eigvals(M @ (gamma * np.tile([1.0, 0, 0], (3, 1)) - np.eye(3))).real.max()

        spilling = rows @ rows.T
        assert drift(0.5, spilling) > 0 > drift(0.1, spilling)
        assert drift(0.99, np.diag(np.diag(spilling)).astype(float)) < 0

    def test_dependent_features(self):
        """w to 2w, both states in the batch: least squares diverges above 5/6 and converges below."""
        for gamma, fate in ((0.82, "converged"), (0.85, "diverged")):
            w = examples.w_to_2w(gamma)
            fit = {"features": w.features, "mdp": w.update.mdp, "batch": [0, 1], "alpha": 1.0}
            found = dynamics.iterate(
                lambda theta, fit=fit: updates.minimum_norm_step(theta, **fit), [1.0], max_iter=3000
            )
            assert found.status == fate


def fresh(seed, activation="tanh", inputs=4):
    """Return a network of the kind that the chapter trains."""
    generator = torch.Generator().manual_seed(seed)
    return networks.MLP([inputs, 64, 64, 1], activation=activation, generator=generator, dtype=torch.float64)


def test_in_a_network_it_holds_to_first_order():
    """What a Gaussian batch misses falls by a hundred when the step falls by ten; for the plain step by ten."""

    def missed(direction):
        def claim(case):
            activation, seed = case
            net, rng = fresh(seed, activation), np.random.default_rng(seed)
            x, delta = torch.tensor(rng.standard_normal((16, 4))), torch.tensor(rng.standard_normal(16))
            J, before = ntk.per_sample_gradients(net, x), net(x).detach()[:, 0]
            left = []
            for alpha in (1e-3, 1e-4):
                end = fresh(seed, activation)
                theta = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
                torch.nn.utils.vector_to_parameters(theta + alpha * J.T @ direction(J, delta), end.parameters())
                left.append(float((end(x).detach()[:, 0] - before - alpha * delta).abs().max()))
            return 60 < left[0] / left[1] < 150

        return claim

    attack(
        list(itertools.product(("tanh", "sin"), range(4))),
        missed(lambda J, delta: torch.linalg.solve(J @ J.T, delta)),
        {"so it does for the plain step": missed(lambda J, delta: delta / len(delta))},
    )


@pytest.fixture(scope="module")
def minibatches():
    """Return three minibatches of a pendulum that is played at random: inputs and rewards."""
    drawn = []
    for seed in range(3):
        env = gymnasium.make("Pendulum-v1")
        env.action_space.seed(seed)
        buffer = replay.ReplayBuffer(env.observation_space, env.action_space, capacity=1500)
        walk = training.transitions(env, lambda obs, env=env: env.action_space.sample(), seed=seed)
        for _ in range(1500):
            buffer.add(*next(walk))
        batch = buffer.sample(128, rng=np.random.default_rng(seed))
        drawn.append((torch.cat([batch.obs, batch.action / 2], dim=1).double(), batch.reward.double()))
    return drawn


class TestMinibatch:
    """A minibatch of the pendulum is nearly singular, and the jitter trades a part of the wish for a shorter step."""

    def test_nearly_singular(self, minibatches):
        """Three seeds: more than 15 % of the eigenvalues lie below 1e-6 of the mean; with Gaussian inputs fewer."""
        cases = [(x, seed) for seed, (x, _) in enumerate(minibatches)]

        def small(x, seed):
            eigenvalues = torch.linalg.eigvalsh(ntk.gram(fresh(seed), x))
            return float((eigenvalues < 1e-6 * eigenvalues.mean()).double().mean())

        def gaussian(x, seed):
            return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

        attack(
            cases,
            lambda case: small(*case) > 0.15,
            {"every batch is": lambda case: small(gaussian(*case), case[1]) > 0.15},
        )

    def test_the_trade(self, minibatches):
        """More jitter: more is left unsolved and the step is shorter, each time; it is no free lunch either way."""

        def rows(case):
            x, reward, seed = case
            net = fresh(seed)
            delta = reward - net(x).detach()[:, 0]
            ways = [
                preqn.direction(ntk.linearize(net, x), delta, solver="cholesky", jitter=jitter)
                for jitter in (1e-8, 1e-6, 1e-4, 1e-2)
            ]
            return np.array([(way.residual, way.length) for way in ways])

        attack(
            [(*each, seed) for seed, each in enumerate(minibatches)],
            lambda case: (np.diff(rows(case), axis=0) * [1, -1] > 0).all(),
            {
                "nothing is left unsolved": lambda case: rows(case)[-1, 0] < 1e-3,
                "the step is as long": lambda case: rows(case)[-1, 1] > 0.5 * rows(case)[0, 1],
            },
        )


def test_the_line_search_looks_at_the_batch():
    """The star with six of seven states in the batch: its cosine there is 1 at every step, and the values run off."""
    star = examples.baird_star()
    case = {"mdp": star.update.mdp, "kernel": star.update.kernel, "alpha": 1.0, "Q": star.Q0}

    def cosines(batch, steps):
        Q, seen = star.Q0, []
        for _ in range(steps):
            delta, new = (backup(Q, star.update.mdp) - Q).ravel(), undone(case, Q, batch=batch)
            moved = (new - Q).ravel()
            seen.append([diagnostics.alignment(moved[batch], delta[batch]), diagnostics.alignment(moved, delta)])
            Q = new
        return np.array(seen), size(Q)

    seen, end = cosines(np.arange(6), 120)
    assert (seen[:, 0] > 1 - 1e-9).all() and end > 1e3 * size(star.Q0)
    assert seen[:, 1].min() < 0.99  # on all pairs the cosine would have told
    seen, end = cosines(np.arange(7), 40)
    assert (seen > 1 - 1e-9).all() and end < size(star.Q0)  # the whole table: the same cosine, and it comes home


def outside(case):
    """Return the cosine outside a batch of what a step does with the errors there, by the sign of the spill."""
    W, noise, seed = case
    rng = np.random.default_rng(seed)
    inside = rng.standard_normal((50, 20))
    errors = rng.standard_normal((50, 20)) if noise else W * inside  # outside: noise, or what the batch tells
    moved = np.sign(W) * inside if noise else np.abs(W) * inside
    return np.mean([diagnostics.alignment(a, b) for a, b in zip(moved, errors, strict=True)])


def test_a_low_cosine_outside_has_two_readings():
    """It is low where a batch moves the others wrongly, and low where the errors outside are noise."""
    cases = [(W, noise, seed) for W in (-1.0, 1.0) for noise in (False, True) for seed in range(5)]
    attack(
        cases,
        lambda case: (outside(case) < 0.3) == (case[1] or case[0] < 0),
        {
            "it is low only where the spill is wrong": lambda case: outside(case) > 0.3 or case[0] < 0,
            "it is low only where there is noise": lambda case: outside(case) > 0.3 or case[1],
        },
    )


def waited(update, Q, inner):
    """Return the table after `inner` updates towards a backup that stands still, by a power of a matrix."""
    left = np.linalg.matrix_power(np.eye(Q.size) - update.alpha * update.kernel * update.weights, inner)
    return Q + ((np.eye(Q.size) - left) @ (backup(Q, update.mdp) - Q).ravel()).reshape(Q.shape)


class TestStandingTarget:
    """A copy that stands still for long undoes the kernel: linear Q, short steps, a batch that can be fitted."""

    def test_the_power_is_the_update_of_the_package(self):
        for case, update in self.cases()[:8]:
            found = update.frozen_target(7)(case["Q"])
            np.testing.assert_allclose(waited(update, case["Q"], 7), found, atol=1e-8)

    @staticmethod
    def cases():
        """Return cases, each with an update on its batch by the step 1 / lambda_max(K D)."""
        rng, cases = np.random.default_rng(33), []
        for case in batches(60, seed=33):
            mdp, kernel, weights = case["mdp"], case["kernel"], np.zeros(case["mdp"].n_pairs)
            weights[case["batch"]] = rng.dirichlet(5 * np.ones(len(case["batch"])))
            alpha = 1 / np.linalg.eigvals(kernel * weights).real.max()
            cases.append((case, KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=alpha)))
        return [(case, update) for case, update in cases if np.linalg.cond(update.kernel) < 200]

    @staticmethod
    def waits(*, length=1.0, inner=10**7, fit=True):
        def claim(pair):
            case, update = pair
            kernel = update.kernel if fit else np.outer(case["phi"][:, 0], case["phi"][:, 0])
            found = waited(replace(update, kernel=kernel, alpha=length * update.alpha), case["Q"], inner)
            return np.allclose(found, undone(case | {"alpha": 1.0}, case["Q"]), atol=1e-6)

        return claim

    def test_many_steps(self):
        attack(
            self.cases(),
            self.waits(),
            {
                "however short the wait": self.waits(inner=2),
                "by steps of any length": self.waits(length=2.5, inner=100),
                "with one parameter": self.waits(fit=False),
            },
        )

    def test_the_same_blind_spot(self):
        """The pair with its second action only runs off for each period; with both, long enough a wait cures it."""
        pair = examples.full_data_divergence()

        def fate(update, inner):
            return dynamics.iterate(
                lambda Q: waited(update, Q, inner), pair.Q0, max_iter=3000, bound=1e6, tol=1e-8
            ).status

        second_only = replace(pair.update, weights=[0.0, 1.0])
        attack(
            [1, 2, 5, 20, 100],
            lambda inner: fate(second_only, inner) == "diverged",
            {
                "with both actions too": lambda inner: fate(pair.update, inner) == "diverged",
                "with both actions never": lambda inner: fate(pair.update, inner) == "converged",
            },
        )


class TestPatientTarget:
    """What a small rest after one period promises: convergence in every process, and no less than that."""

    @staticmethod
    def cases():
        """Return updates with a copy, some that wait long enough and some that do not."""
        rng, found = np.random.default_rng(35), []
        for mdp in processes(60, seed=35, kinds=KINDS, gammas=(0.3, 0.6, 0.9), max_states=3, max_actions=2):
            phi = np.eye(mdp.n_pairs) + 0.4 * rng.standard_normal((mdp.n_pairs, mdp.n_pairs))
            kernel, weights = phi @ phi.T, rng.dirichlet(5 * np.ones(mdp.n_pairs))
            alpha = 1 / np.linalg.eigvals(kernel * weights).real.max()
            update = KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=alpha)
            found += [(update, inner) for inner in (1, 4, 30, 300)]
        pair = examples.full_data_divergence().update
        swapped = replace(pair, kernel=[[1.0, 2.5], [2.5, 9.0]], weights=[0.8, 0.2])
        return [*found, *((update, inner) for update in (pair, swapped) for inner in (1, 5, 20, 60, 160))]

    @staticmethod
    def rest(update, inner):
        return np.linalg.matrix_power(np.eye(update.mdp.n_pairs) - update.matrix, inner)

    def promises(self, enough):
        """Say of a case: if enough has happened, no two tables of a search are parted, and Q* stays where it is."""

        def claim(case):
            update, inner = case
            E, gamma = self.rest(update, inner), update.mdp.gamma
            if not enough(E, gamma):
                return True
            worst = max(
                np.abs(E + gamma * (np.eye(len(E)) - E) @ update.mdp.pair_transitions(policy)).sum(axis=1).max()
                for policy in update.mdp.policies()
            )
            return worst < 1 + 1e-12

        return claim

    def test_a_small_rest_is_enough(self):
        attack(
            self.cases(),
            self.promises(lambda E, gamma: np.abs(E).sum(axis=1).max() < (1 - gamma) / (1 + gamma)),
            {
                "every entry below 1": self.promises(lambda E, gamma: size(E) < 1),
                "in the spectral radius": self.promises(lambda E, gamma: np.abs(np.linalg.eigvals(E)).max() < 0.9),
                "below 1": self.promises(lambda E, gamma: np.abs(E).sum(axis=1).max() < 1),
            },
        )

    def test_the_factor_bounds(self):
        attack(
            self.cases(),
            self.promises(
                lambda E, gamma: np.abs(E).sum(axis=1).max() + gamma * np.abs(np.eye(len(E)) - E).sum(axis=1).max() < 1
            ),
            {"the rest alone": self.promises(lambda E, gamma: np.abs(E).sum(axis=1).max() < 1)},
        )

    def test_a_wait_makes_it_small(self):
        """For a symmetric positive definite kernel with data everywhere; without, no wait does."""

        def small(weights=None, length=1.0):
            def claim(case):
                update, _ = case
                given = update.weights if weights is None else weights(update.weights)
                changed = replace(update, weights=given, alpha=length * update.alpha)
                with np.errstate(over="ignore", invalid="ignore"):
                    return bool(size(self.rest(changed, 2**22)) < 1e-3)

            return claim

        definite = [c for c in self.cases() if np.linalg.cond(c[0].kernel) < 1e4 and c[0].mdp.n_pairs > 1]
        attack(
            definite,
            small(),
            {
                "with a pair left out": small(lambda rho: np.append(rho[:-1], 0) / rho[:-1].sum()),
                "by steps of any length": small(length=2.5),
            },
        )

    def test_it_can_converge_long_before(self):
        pair = examples.full_data_divergence()
        waiting = [pair.update.frozen_target(inner) for inner in (7, 8)]
        ends = [dynamics.iterate(update, pair.Q0, max_iter=5000).status for update in waiting]
        promised = self.promises(lambda E, gamma: True)
        assert ends == ["diverged", "converged"]
        assert not promised((pair.update, 155)) and promised((pair.update, 156))


class TestRemediesOnOneWeight:
    """w to 2w with state 1 in the data: three rules settle, TDC by short steps, and two do not, by steps up to 1."""

    CASES = tuple(itertools.product((0.05, 0.3, 1.0), (1, 4, 50)))

    @staticmethod
    def growth(case):
        """Return the factors of one step: residual gradient, pull of 1, target network, PreQN, and TDC by a run."""
        alpha, period = case
        left = (1 - alpha) ** period
        x = np.array([1.0, 0.0])
        for _ in range(20_000 if alpha <= 0.3 else 0):  # by longer steps TDC overshoots
            w, h = x
            x = np.array([w + alpha * (0.8 * w - 1.8 * h), h + alpha * (0.8 * w - h)])
        return [1 - 0.64 * alpha, 1 + alpha * (0.8 - 1), left + 1.8 * (1 - left), 1 + 0.8 * alpha, size(x)]

    def test_three_settle_and_two_do_not(self):
        attack(
            self.CASES,
            lambda case: (
                max(self.growth(case)[:2]) < 1 < min(self.growth(case)[2:4])
                and (case[0] > 0.3 or self.growth(case)[4] < 1e-3)
            ),
            {
                "a long wait settles": lambda case: case[1] < 50 or self.growth(case)[2] < 1,
                "a short step settles": lambda case: case[0] > 0.1 or self.growth(case)[3] < 1,
                "TDC does not": lambda case: self.growth(case)[4] > 1,
            },
        )

    def test_they_are_those_of_the_package(self):
        w = examples.w_to_2w()
        for case in self.CASES:
            alpha, period = case
            how = {"policy": [0, 0], "weights": [1, 0], "alpha": alpha, "period": period, "pull": 1, "pace": alpha}
            found = remedies.rules(w.features, w.update.mdp, **how)
            names = ("residual gradient", "regularised", "target network", "PreQN")
            np.testing.assert_allclose([found[name].growth for name in names], np.abs(self.growth(case)[:4]))
            assert (found["TDC"].growth < 1) == (alpha <= 0.3)


def test_the_step_of_this_file_is_that_of_the_package():
    for case in batches(20):
        found = Update.preconditioned(case["mdp"], kernel=case["kernel"], batch=case["batch"], alpha=case["alpha"])
        np.testing.assert_allclose(undone(case, case["Q"]), found(case["Q"]), atol=1e-8)
