"""Attacks on the claims of chapter 2: on its summary, line by line."""

import itertools
from dataclasses import replace

import numpy as np
import torch

from divergence_notes import bellman, dynamics, examples, features, networks, ntk
from divergence_notes.mdp import FiniteMDP
from divergence_notes.updates import Update
from tests import oracles
from tests.attacks import attack, processes, radius, size


def test_cells_grow_with_the_power_of_the_numbers():
    """Counted one by one: d numbers of k values each make k to the d cells."""

    def counted(case):
        d, k = case
        return sum(1 for _ in itertools.product(range(k), repeat=d))

    attack(
        list(itertools.product(range(1, 6), range(2, 5))),
        lambda case: counted(case) == case[1] ** case[0],
        {
            "with their product": lambda case: counted(case) == case[0] * case[1],
            "with the power of the values": lambda case: counted(case) == case[0] ** case[1],
        },
    )


def linear_cases(count):
    """Return linear Q-functions with one trained pair, its target and its reward."""
    rng, cases = np.random.default_rng(1), []
    for mdp in processes(count, seed=1, gammas=(0.5, 0.9)):
        phi = rng.standard_normal((mdp.n_pairs, int(rng.integers(1, 5))))
        if rng.random() < 0.3:
            phi = np.eye(mdp.n_pairs)
        theta, j = rng.standard_normal(phi.shape[1]), int(rng.integers(mdp.n_pairs))
        q = phi @ theta
        target = bellman.optimality_backup(mdp.unflatten(q), mdp).ravel()[j]
        moved = phi @ (theta + 0.1 * (target - q[j]) * phi[j]) - q  # the step itself, written out
        cases.append({"phi": phi, "j": j, "q": q, "target": target, "reward": mdp.R.ravel()[j], "moved": moved})
    return cases


def test_training_one_pair_moves_the_others():
    """By alpha K_ij delta_j; a table moves no other, and that is no law of linear features."""

    def moves(by):
        return lambda case: np.allclose(case["moved"], 0.1 * by(case["phi"] @ case["phi"].T, case), atol=1e-12)

    def error(case):
        return case["target"] - case["q"][case["j"]]

    attack(
        linear_cases(80),
        moves(lambda K, case: K[:, case["j"]] * error(case)),
        {
            "by the row ends' own errors": moves(lambda K, case: K[:, case["j"]] * case["q"]),
            "all alike": moves(lambda K, case: K[case["j"], case["j"]] * error(case) * np.ones(len(K))),
            "no other at all": moves(
                lambda K, case: np.where(np.arange(len(K)) == case["j"], np.diag(K), 0) * error(case)
            ),
        },
    )


def grid_network(seed):
    """Return the kernel of a network of the chapter on the grid of 64 states."""
    grid = np.stack(np.divmod(np.arange(64), 8), axis=1) / 3.5 - 1
    generator = torch.Generator().manual_seed(seed)
    net = networks.MLP([2, 32, 1], activation="relu", generator=generator, dtype=torch.float64)
    return ntk.gram(net, torch.tensor(grid)).numpy()


def test_other_networks_on_the_grid():
    """With 20 seeds every value moves, as in the chapter; that 27 outrun the trained one is of one seed."""
    trained = 27

    def outrun(seed):
        K = grid_network(seed)
        return int((K[:, trained] > K[trained, trained] * (1 + 1e-9)).sum())

    attack(
        range(20),
        lambda seed: (grid_network(seed)[:, trained] != 0).all(),
        {"27 outrun it in every network": lambda seed: outrun(seed) == 27},
    )


def test_the_target_decides_the_direction():
    """The trained value moves with the sign of target minus value, not of reward minus value."""

    def goes(direction):
        return lambda case: np.sign(case["moved"][case["j"]]) == np.sign(direction(case))

    attack(
        linear_cases(80),
        goes(lambda case: case["target"] - case["q"][case["j"]]),
        {
            "the reward decides": goes(lambda case: case["reward"] - case["q"][case["j"]]),
            "the target decides": goes(lambda case: case["target"]),
        },
    )


def evaluations(count):
    """Return updates of one policy: process with one action, features, weights; one weight, or two."""
    rng = np.random.default_rng(2)
    cases = []
    for mdp in processes(count, seed=2, kinds=("dense", "deterministic"), gammas=(0.5, 0.9, 0.97), max_actions=1):
        phi = rng.standard_normal((mdp.n_pairs, int(rng.integers(1, 3))))
        rho = rng.dirichlet(np.ones(mdp.n_pairs))
        if np.linalg.matrix_rank(phi) == phi.shape[1]:
            cases.append((phi, rho, mdp.gamma * oracles.chain_of_one_action(mdp)))
    pair = examples.full_data_divergence().update  # its first action's values, as two states that lead to the first
    cases.append((np.linalg.cholesky(pair.kernel), pair.weights, 0.9 * np.tile([1.0, 0.0], (2, 1))))
    return cases


def gain(case):
    """Return the loop gain: how far the best fit to the targets goes, next to what the targets were made of."""
    phi, rho, P = case
    return radius(np.linalg.solve(phi.T @ (rho[:, None] * phi), phi.T @ (rho[:, None] * (P @ phi))))


def grows(case):
    """Say whether short steps leave all bounds: the drift of the weights has an eigenvalue to the right of 0."""
    phi, rho, P = case
    return np.linalg.eigvals(phi.T @ (rho[:, None] * (P @ phi - phi))).real.max() > 1e-9


def test_growth_and_loop_gain():
    """One weight, no reward: growth needs a loop gain above 1. Two do not keep to it: the pair diverges at 0.9."""
    cases = evaluations(400)
    pair = cases[-1]
    assert np.isclose(gain(pair), 0.9) and grows(pair)
    attack(
        cases,
        lambda case: case[0].shape[1] > 1 or gain(case) > 1 or not grows(case),
        {
            "growth needs a loop gain above 1": lambda case: gain(case) > 1 or not grows(case),
            "with one weight nothing grows": lambda case: case[0].shape[1] > 1 or not grows(case),
            "a loop gain above 1 is enough": lambda case: gain(case) <= 1 or grows(case),
        },
    )


def test_one_weight_at_a_gain_of_one():
    """w to 2w, its first state, gamma = 1/2: without a reward it stays; with one every step adds the same."""

    def runs_off(case):
        gain, reward = case
        mdp = FiniteMDP(np.tile([0.0, 1.0], (2, 1))[:, None], np.full((2, 1), reward), gain / 2)
        step = replace(examples.w_to_2w().update, mdp=mdp)
        return dynamics.iterate(step, [[1.0], [2.0]], max_iter=20_000, bound=500).status == "diverged"

    attack(
        itertools.product((0.9, 0.98, 1.0, 1.1), (0.0, 1.0)),
        lambda case: case[0] > 1 or case == (1.0, 1.0) or not runs_off(case),
        {
            "divergence needs a loop gain above 1": lambda case: case[0] > 1 or not runs_off(case),
            "at 1 it diverges in any case": lambda case: case[0] < 1 or runs_off(case),
        },
    )


def test_five_examples_and_no_more():
    """In five examples only all three legs diverge; all three are not sufficient: from above the pair comes home."""

    def fate(legs, example, start=None):
        on = dict(zip(("approximation", "bootstrapping", "off_policy"), legs, strict=True))
        operator = examples.triad_operator(example.update, **on)
        start = example.Q0 if start is None else start
        return dynamics.iterate(operator, start, max_iter=700 if all(legs) else 150, bound=1e6, tol=1e-6)

    cast = [
        examples.w_to_2w(),
        examples.w_to_2w(weights=(0.5, 0.5)),
        examples.baird_star(),
        examples.baird_control(),
        examples.full_data_divergence(),
    ]
    cases = [(legs, example) for legs in itertools.product((False, True), repeat=3) for example in cast]
    runs = {id(case): fate(*case).status == "diverged" for case in cases}
    attack(
        cases,
        lambda case: runs[id(case)] == all(case[0]),
        {"two legs are enough": lambda case: runs[id(case)] == (sum(case[0]) >= 2)},
    )
    home = fate((True, True, True), examples.full_data_divergence(), np.array([[0.0, 1.0]]))
    assert home.status != "diverged" and home.sizes[-1] < 0.5  # so all three together are not sufficient


def test_the_pair_diverges_all_the_same():
    """Every table can be had, every pair is sampled, and steps from 0.1 to 1e-4 of the largest one diverge."""
    pair = examples.full_data_divergence().update
    assert np.linalg.matrix_rank(pair.kernel) == 2 and (pair.weights > 0).all()
    J = oracles.jacobians(replace(pair, alpha=1))[0] - np.eye(2)
    values, vectors = np.linalg.eig(J)
    ray = vectors[:, values.real.argmax()].real
    ray = ray / ray[0]
    assert ray[0] > ray[1]  # the first action is greedy along it, so the ray is mapped into itself

    def stretched(alpha, start):
        return size(replace(pair, alpha=alpha)(start)) / size(start)

    def far(Q):
        return dynamics.iterate(pair, Q, max_iter=700, bound=1e6).sizes[-1] > 1

    attack(
        [10.0**-k for k in range(6)],
        lambda alpha: stretched(alpha, ray[None]) > 1 + 0.01 * alpha,
        {
            "short steps save it": lambda alpha: alpha > 1e-3 or stretched(alpha, ray[None]) <= 1,
            "from every start": lambda alpha: alpha != 0.1 or far(np.array([[0.0, 1.0]])),
            "from every start below the diagonal": lambda alpha: alpha != 0.1 or far(np.array([[1.0, 0.95]])),
        },
    )


def keeps(*, inside=True, short=True):
    """Return the claim that 60 updates of a table keep within the bound."""

    def claim(case):
        mdp, rho, alpha, Q = case
        bound = bellman.reward_bound(mdp)
        if (inside and size(Q) > bound) or (short and (alpha * rho > 1).any()):
            return True
        step = Update.shares(mdp, weights=rho, alpha=alpha)
        for _ in range(60):
            Q = step(Q)
        return size(Q) <= bound * (1 + 1e-9) + 1e-12

    return claim


def test_a_table_keeps_the_bound():
    """If it starts within it and alpha rho_i is at most 1; without either word it need not."""
    rng, cases = np.random.default_rng(3), []
    for mdp in processes(200, seed=3, gammas=(0.5, 0.9)):
        rho, bound = rng.dirichlet(np.ones(mdp.n_pairs)), bellman.reward_bound(mdp)
        cases.append((mdp, rho, rng.uniform(0.1, 3) / rho.max(), rng.uniform(-1, 1, mdp.R.shape) * 1.5 * bound))
    attack(cases, keeps(), {"from every start": keeps(inside=False), "with every step": keeps(short=False)})


class Corridor:
    """The corridor of the chapter and its network, written out: gradients by hand, no torch but for the first draw."""

    CELL, ACTION = np.divmod(np.arange(12), 2)
    INPUTS = np.stack([(CELL + 1) / 2, 2.0 * ACTION - 1], axis=1)
    NEXT = np.where(ACTION == 0, np.maximum(CELL - 1, 0), (CELL + 1) % 6)
    REWARD = np.where((CELL == 5) & (ACTION == 1), 1.0, 0.0)
    CAREFUL = np.append(np.full(10, 0.1), [0.0, 0.0])
    BOUND = 20

    def __init__(self, seed, activation="relu"):
        generator = torch.Generator().manual_seed(seed)
        net = networks.MLP([2, 32, 1], activation=activation, generator=generator, dtype=torch.float64)
        self.theta = torch.nn.utils.parameters_to_vector(net.parameters()).detach().numpy().copy()
        self.act, self.slope = {
            "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
            "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
        }[activation]

    def look(self):
        """Return the values of the twelve pairs, and their gradients."""
        W, b, w, c = np.split(self.theta, [64, 96, 128])
        z = self.INPUTS @ W.reshape(32, 2).T + b
        back = self.slope(z) * w
        inner = (back[:, :, None] * self.INPUTS[:, None, :]).reshape(12, 64)
        return self.act(z) @ w + c, np.hstack([inner, back, self.act(z), np.ones((12, 1))])

    def run(self, *, most, step=np.inf, fraction=np.inf, targets=None, shares=None, bound=BOUND):
        """Train for `most` = alpha times steps; return the largest value, and alpha times the largest eigenvalue.

        Each step is `step`, or shorter where alpha times that eigenvalue would pass `fraction`.
        """
        shares, passed, largest, scaled = self.CAREFUL if shares is None else shares, 0.0, 0.0, 0.0
        while passed < most:
            q, slopes = self.look()
            largest = max(largest, np.abs(q).max())
            weighted = np.sqrt(shares)[:, None] * slopes
            mode = np.linalg.norm(weighted @ weighted.T, 2) if fraction < np.inf or largest > bound else 1.0
            alpha = min(step, fraction / mode)
            scaled = alpha * mode
            if largest > bound:
                break
            best = self.REWARD + 0.95 * q.reshape(6, 2).max(axis=1)[self.NEXT] if targets is None else targets
            self.theta += alpha * slopes.T @ (shares * (best - q))
            passed += alpha
        return largest, scaled


LONG = 0.02 * 1500  # alpha times the steps of the chapter, whatever alpha is


def own_visits():
    """Return how often each pair is visited by the policy that goes right but takes a random action one time in ten."""
    pi = np.where(Corridor.ACTION == 1, 0.95, 0.05)
    cells = np.full(6, 1 / 6)
    for _ in range(2000):
        cells = np.bincount(Corridor.NEXT, weights=cells[Corridor.CELL] * pi, minlength=6)
    return cells[Corridor.CELL] * pi


def true_values():
    """Return what each pair is worth when one goes right ever after."""
    q = np.zeros(12)
    for _ in range(600):
        q = Corridor.REWARD + 0.95 * q.reshape(6, 2).max(axis=1)[Corridor.NEXT]
    return q


def test_a_network_leaves_the_bound_on_data_without_reward():
    """Other seeds: some leave it, some do not, far below the limit of fixed targets; a table stays."""
    assert (Corridor.CAREFUL * Corridor.REWARD == 0).all()  # no reward in the data

    def fate(seed, step):
        return Corridor(seed).run(most=LONG, step=step)

    fates = {(seed, step): fate(seed, step) for seed in range(100, 108) for step in (0.05, 0.02)}

    def left(case):
        return fates[case][0] > Corridor.BOUND

    def table(seed):
        q = np.random.default_rng(seed).uniform(-1, 1, 12)
        for _ in range(1500):
            best = Corridor.REWARD + 0.95 * q.reshape(6, 2).max(axis=1)[Corridor.NEXT]
            q = q + 0.02 * Corridor.CAREFUL * (best - q)
        return size(q) > Corridor.BOUND

    attack(
        fates,
        lambda case: not table(case[0]) and (case[1] > 0.02 or not left(case) or fates[case][1] < 1),
        {
            "no network either": lambda case: not left(case),
            "every network does": left,
            "only a step that is too long leaves": lambda case: not left(case) or fates[case][1] > 2,
            "a step of 0.05 is still short enough there": lambda case: not left(case) or fates[case][1] < 2,
        },
    )


def test_seven_of_eight_networks_leave_the_bound_in_the_corridor():
    """As many at a fifth of the step, in the same alpha times steps; with short steps a million; the controls stay."""
    assert [Corridor(seed).run(most=LONG, step=0.004)[0] > 20 for seed in range(8)] == [True] * 6 + [False, True]
    fates = []
    for legs, setting in {
        "all": {},
        "no bootstrapping": {"targets": true_values()},
        "best policy's visits": {"shares": own_visits()},
        "tanh": {"activation": "tanh"},
    }.items():
        net = {"activation": setting.pop("activation", "relu")}
        for seed in range(8):
            far = Corridor(seed, **net).run(most=LONG, fraction=0.5, step=0.02, bound=1e6, **setting)
            fates.append((legs, seed, far[0]))
    assert max(far for legs, _, far in fates if legs in ("no bootstrapping", "best policy's visits")) < 5.1
    attack(
        fates,
        lambda case: (case[2] > 1e6) == (case[0] == "all" and case[1] != 6) and not 20 < case[2] <= 1e6,
        {
            "all eight": lambda case: (case[2] > 1e6) == (case[0] == "all"),
            "it stops beyond the bound": lambda case: case[2] < 1e6,
            "with tanh units as well": lambda case: case[0] != "tanh" or case[2] > 20,
        },
    )


def test_the_fate_goes_with_the_share_of_the_last_cell():
    """Off-policy shares that hold it often are as safe as visits; the visits without it are not, nor is a little."""
    cut = own_visits()
    cut[10:] = 0
    shares = {"careful": Corridor.CAREFUL, "all twelve": np.full(12, 1 / 12), "visits": own_visits()}
    shares["cut"] = cut / cut.sum()
    shares["rare"] = 0.99 * Corridor.CAREFUL + 0.005 * (np.arange(12) >= 10)
    left = {
        (name, seed): Corridor(seed).run(most=LONG, step=0.02, shares=rho)[0] > Corridor.BOUND
        for name, rho in shares.items()
        for seed in range(8)
    }
    assert [sum(left[name, seed] for seed in range(8)) for name in ("cut", "rare")] == [6, 8]
    attack(
        left,
        lambda case: not left[case] or shares[case[0]][10:].sum() < 0.1,
        {
            "only a cell without any data is at risk": lambda case: not left[case] or not shares[case[0]][10:].any(),
            "only data of another policy is at risk": lambda case: not left[case] or case[0] == "careful",
            "data of another policy is at risk": lambda case: case[0] != "all twelve" or left[case],
        },
    )


def test_one_hot_features_have_the_identity_as_kernel():
    for n in (1, 3, 7):
        assert np.array_equal(features.kernel(features.one_hot(n)), np.eye(n))
