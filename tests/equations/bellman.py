"""The equations of chapter 1, as printed: loops and sums, nothing of the package."""

import itertools
from types import SimpleNamespace

import numpy as np

from tests.equations import Equation

LONG = 2000  # sweeps after which gamma ** k is nothing


def package():
    """Import the package where it is used, so that the shape hook is in place."""
    from divergence_notes import bellman, dynamics, mdp

    return bellman, dynamics, mdp


def process(rng, *, ends, n_states=3, n_actions=2):
    """Return P, R and gamma of a random game, in which every step may end it or none."""
    P = rng.dirichlet(np.ones(n_states), size=(n_states, n_actions))
    if ends:
        P = P * rng.uniform(0, 1, size=(n_states, n_actions, 1))
        P[0, 0] = 0
    return {"P": P, "R": rng.standard_normal((n_states, n_actions)), "gamma": float(rng.uniform(0.3, 0.9))}


def processes(rng):
    """Return some games that end and some that do not."""
    return [process(rng, ends=ends) for ends in (False, True, False, True)]


def model(P, R, gamma):
    """Return the package's form of a game."""
    return package()[2].FiniteMDP(P, R, gamma)


def pairs(R):
    """Return all pairs of a state and an action."""
    return itertools.product(*map(range, np.shape(R)))


def table(R, cell):
    """Return the table whose entry at (s, a) is cell(s, a)."""
    out = np.zeros(np.shape(R))
    for s, a in pairs(R):
        out[s, a] = cell(s, a)
    return out


def settle(sweep, R, k=LONG):
    """Return what is left after many sweeps from zero."""
    Q = np.zeros(np.shape(R))
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(k):
            Q = np.clip(sweep(Q), -1e6, 1e6)  # a wrong sweep may grow
    return Q


def norm(table):
    """Return the largest absolute entry."""
    return np.max(np.abs(table))


# Returns -------------------------------------------------------------------------------------------


def return_sum(rewards, gamma, *, first=0, weight=lambda gamma, k: gamma**k):
    """Sum the discounted rewards from each step on."""
    T = len(rewards)
    return np.array([sum(weight(gamma, k) * rewards[t + k] for k in range(first, T - t)) for t in range(T)])


def return_recursion(rewards, gamma, *, step=lambda reward, gamma, rest: reward + gamma * rest, last=0.0):
    """Build the returns from the last step to the first."""
    G = [last]
    for reward in reversed(rewards):
        G.insert(0, step(reward, gamma, G[0]))
    return np.array(G[:-1])


def episodes(rng):
    """Return some episodes."""
    return [{"rewards": rng.standard_normal(n).tolist(), "gamma": float(rng.uniform(0, 1))} for n in (1, 2, 7)]


def discounted_returns(rewards, gamma):
    """Ask the package."""
    return package()[0].discounted_returns(rewards, gamma=gamma)


RETURNS = {"package": discounted_returns, "cases": episodes}
RIDE = ({"rewards": [-1.0, -1.0, 20.0], "gamma": 0.5}, np.array([3.5, 9.0, 20.0]))

# Operators -----------------------------------------------------------------------------------------


def with_table(rng, *, policy=False):
    """Return games, each with a table, and with a random policy if asked."""
    found = [case | {"Q": rng.standard_normal(case["R"].shape)} for case in processes(rng)]
    return [case | {"pi": rng.dirichlet(np.ones(2), size=3)} for case in found] if policy else found


def optimality(P, R, gamma, Q, *, best=np.max):
    """T* Q, cell by cell."""
    S = range(len(P))
    return table(R, lambda s, a: R[s, a] + gamma * sum(P[s, a, s2] * best(Q[s2]) for s2 in S))


def expectation(P, R, gamma, Q, pi):
    """T_pi Q, cell by cell."""
    S, A = map(range, np.shape(R))
    return table(
        R, lambda s, a: R[s, a] + gamma * sum(P[s, a, s2] * sum(pi[s2, a2] * Q[s2, a2] for a2 in A) for s2 in S)
    )


def through_the_end(P):
    """Return P with the missing chance put on state 0, as if nothing ended."""
    P = np.array(P)
    P[:, :, 0] += 1 - P.sum(axis=2)
    return P


def pair_matrix(P, pi):
    """Return P_pi, from pair to pair."""
    S, A = pi.shape
    rows = list(itertools.product(range(S), range(A)))
    return np.array([[P[s, a, s2] * pi[s2, a2] for s2, a2 in rows] for s, a in rows])


def series(P, R, gamma, pi, *, terms=LONG):
    """Return the expected discounted rewards of each pair, added up step by step."""
    chain, expected, total = pair_matrix(P, pi), np.ravel(R), np.zeros(np.size(R))
    for k in range(terms):
        total = total + gamma**k * expected
        expected = chain @ expected
    return total.reshape(np.shape(R))


def solve(R, matrix):
    """Return matrix^-1 r as a table."""
    return np.linalg.solve(matrix, np.ravel(R)).reshape(np.shape(R))


def policy_value(P, R, gamma, pi):
    """Ask the package."""
    return package()[0].policy_value(model(P, R, gamma), pi)


def with_policy(rng):
    """Return games, each with a random policy."""
    return [case | {"pi": rng.dirichlet(np.ones(2), size=3)} for case in processes(rng)]


# One state that returns to itself with chance 1/2, reward 1, gamma 1/2: worth 1 / (1 - 1/4).
SINGLE = {"P": np.array([[[0.5]]]), "R": np.array([[1.0]]), "gamma": 0.5}
SINGLE_WORTH = np.array([[4 / 3]])
STAY = {"pi": np.array([[1.0]])}


def over_policies(P, R, gamma, *, choose=np.maximum):
    """Go through every deterministic policy, and keep the best value of each cell."""
    n_states, n_actions = np.shape(R)
    best = None
    for chosen in itertools.product(range(n_actions), repeat=n_states):
        pi = np.eye(n_actions)[list(chosen)]
        Q = solve(R, np.eye(np.size(R)) - gamma * pair_matrix(P, pi))
        best = Q if best is None else choose(best, Q)
    return best


def policy_iteration(P, R, gamma):
    """Ask the package."""
    return package()[0].policy_iteration(model(P, R, gamma)).Q


# The Bellman equation over outcomes: chance, next state, reward, whether the game ends -------------


def outcomes(rng):
    """Return games given by what can happen in each cell, with a reward for each outcome."""

    def row():
        chance, where = rng.dirichlet(np.ones(3)), rng.integers(3, size=3)
        reward, over = rng.standard_normal(3), rng.random(3) < 0.4
        return [(float(p), int(s), float(r), bool(e)) for p, s, r, e in zip(chance, where, reward, over, strict=True)]

    return [
        {"happens": {s: {a: row() for a in range(2)} for s in range(3)}, "gamma": float(rng.uniform(0.3, 0.9))}
        for _ in range(4)
    ]


def bellman_equation(happens, gamma, *, cell):
    """Return the table that solves the equation with the given right side."""
    shape = np.zeros((len(happens), len(happens[0])))
    return settle(lambda Q: table(shape, lambda s, a: cell(happens[s][a], gamma, Q)), shape)


def right_side(seen, gamma, Q, *, best=np.max, discount=True, ends=True, first_reward=False):
    """E[R + gamma C max Q(S', a')]."""
    rest = [p * (0 if over and ends else (gamma if discount else 1) * best(Q[s2])) for p, s2, _, over in seen]
    now = [seen[0][2]] if first_reward else [p * r for p, _, r, _ in seen]
    return sum(now) + sum(rest)


def max_outside(seen, gamma, Q):
    """E[R] + gamma max over a' of E[C Q(S', a')]."""
    rows = sum(p * (0 if over else 1) * Q[s2] for p, s2, _, over in seen)
    return sum(p * r for p, _, r, _ in seen) + gamma * np.max(rows)


def variant(cell, **how):
    """Return the solution of the Bellman equation with another right side."""
    return lambda happens, gamma: bellman_equation(
        happens, gamma, cell=lambda seen, g, Q: cell(seen, g, Q, **how) if how else cell(seen, g, Q)
    )


def solved(happens, gamma):
    """Ask the package."""
    bellman, _, mdp = package()
    return bellman.policy_iteration(mdp.from_gymnasium(SimpleNamespace(P=happens), gamma)).Q


COIN = {0: {0: [(0.5, 0, 0.0, True), (0.5, 0, 10.0, True)]}}

# Contraction ---------------------------------------------------------------------------------------


def two_tables(rng):
    """Return games that never end, each with a table and an amount by which to shift it."""
    found = [process(rng, ends=False) for _ in range(3)]
    return [case | {"Q": rng.standard_normal((3, 2)), "shift": float(rng.uniform(0.5, 2))} for case in found]


def shrinks(P, R, gamma, Q, shift):
    """Ask the package how far apart a table and its shifted copy are after a sweep, and whether it ever was more."""
    bellman = package()[0]
    rng = np.random.default_rng(1)
    before, after = [], []
    for game in (model(P, R, gamma), model(0.5 * P, R, gamma)):  # the second one ends
        others = rng.standard_normal((20, *np.shape(R)))
        after += [norm(bellman.optimality_backup(Q, game) - bellman.optimality_backup(X, game)) for X in others]
        before += [norm(Q - X) for X in others]
    game = model(P, R, gamma)
    tight = norm(bellman.optimality_backup(Q + shift, game) - bellman.optimality_backup(Q, game))
    return tight, bool(np.all(np.array(after) <= gamma * np.array(before) + 1e-12))


def decay(P, R, gamma, Q, shift):
    """Ask the package for the errors of twelve sweeps from a shifted optimum, and whether any run broke the bound."""
    bellman, dynamics, _ = package()
    game = model(P, R, gamma)
    star = bellman.policy_iteration(game).Q

    def errors(start):
        return dynamics.iterate(
            lambda X: bellman.optimality_backup(X, game), start, max_iter=12, target=star, tol=0
        ).errors

    other = errors(Q)
    return errors(star + shift), bool(np.all(other <= gamma ** np.arange(len(other)) * other[0] + 1e-12))


def halving(gamma):
    """Count the sweeps of the package until the error of the loop has halved."""
    bellman, dynamics, mdp = package()
    game = mdp.FiniteMDP([[[1.0]]], [[1.0]], gamma)
    worth = bellman.policy_value(game, np.array([0]))
    run = dynamics.iterate(lambda Q: bellman.optimality_backup(Q, game), [[0.0]], max_iter=5000, target=worth, tol=0)
    return int(np.argmax(run.errors <= run.errors[0] / 2))


# Stopping with a guarantee -------------------------------------------------------------------------


def state_sweeps(P, R, gamma, k):
    """Return the guess V after k - 1 sweeps from zero, and the backed-up table."""
    V = np.zeros(len(P))
    for sweep in range(k):
        Q = table(R, lambda s, a, V=V: R[s, a] + gamma * sum(P[s, a, s2] * V[s2] for s2 in range(len(P))))
        if sweep < k - 1:
            V = Q.max(axis=1)
    return V, Q


def changes(P, V, Q, *, count_the_end=True):
    """Return the smallest and the largest change of a sweep; the end is a state with change 0."""
    d = list(Q.max(axis=1) - V)
    if count_the_end and np.min(np.sum(P, axis=2)) < 1 - 1e-8:
        d.append(0.0)
    return min(d), max(d)


def some_sweeps(rng):
    """Return games and a number of sweeps."""
    return [case | {"k": k} for case in processes(rng) for k in (1, 3, 8)]


def span_bounds(P, R, gamma, k, *, scale=lambda gamma: 1 / (1 - gamma), count_the_end=True):
    """Put the bounds on V* into the Bellman equation, and return the middle and half the largest width."""
    V, Q = state_sweeps(P, R, gamma, k)
    low, high = (V + d * scale(gamma) for d in changes(P, V, Q, count_the_end=count_the_end))
    tables = [
        table(R, lambda s, a, U=U: R[s, a] + gamma * sum(P[s, a, s2] * U[s2] for s2 in range(len(P))))
        for U in (low, high)
    ]
    return (tables[0] + tables[1]) / 2, gamma * np.max(high - low) / 2


def span_midpoint(P, R, gamma, k, *, mass=lambda P: np.sum(P, axis=2), half=2, factor=lambda gamma: gamma):
    """Return Q plus what the page subtracts inside the bars, and the right side."""
    V, Q = state_sweeps(P, R, gamma, k)
    low, high = changes(P, V, Q)
    middle = Q + factor(gamma) * mass(P) * (high + low) / (2 * (1 - gamma))
    return middle, factor(gamma) * (high - low) / (half * (1 - gamma))


def value_iteration(P, R, gamma, k):
    """Ask the package to stop after k sweeps, and check that its promise is kept."""
    bellman, _, _ = package()
    game = model(P, R, gamma)
    answer = bellman.value_iteration(game, tol=1e-300, max_iter=k)
    assert norm(answer.Q - bellman.policy_iteration(game).Q) <= answer.error_bound + 1e-12
    return answer.Q, answer.error_bound


# One state, two steps from the end: reward 1, ends with chance 1/2, gamma 1/2. First sweep: d = 1, the end has 0.
SPAN = (SINGLE | {"k": 1}, (np.array([[1.0 + 0.5 * 0.5 * 1.0]]), 0.5))

# Q-learning ----------------------------------------------------------------------------------------


class Walk:
    """A small environment in which chance alone decides, and which writes down what it did."""

    def __init__(self, seed):
        self.rng, self.seen, self.state = np.random.default_rng(seed), [], 0
        self.observation_space, self.action_space = SimpleNamespace(n=3), SimpleNamespace(n=2)

    def reset(self, *, seed=None):
        self.state = int(self.rng.integers(3))
        return self.state, {}

    def step(self, action):
        before, self.state = self.state, int(self.rng.integers(3))
        reward, end = float(self.rng.standard_normal()), self.rng.random()
        self.seen.append((before, action, reward, self.state, end < 0.2))
        return self.state, reward, end < 0.2, end > 0.9, {}


def learn(seed, gamma, alpha, power, seen=None):
    """Let the package learn on a walk; `seen` is for the page, which gets what happened."""
    return package()[0].q_learning(
        Walk(seed),
        gamma=gamma,
        steps=60,
        step_size=alpha,
        power=power,
        epsilon=0.5,
        rng=np.random.default_rng(seed),
    )[-1]


def walks(rng):
    """Return walks, with every step that was taken on them."""
    found = []
    for power in (0.0, 0.7, 1.0):
        case = {"seed": int(rng.integers(1000)), "gamma": 0.8, "alpha": 0.6, "power": power}
        walk = Walk(case["seed"])
        settings = {"gamma": 0.8, "steps": 60, "step_size": 0.6, "power": power, "epsilon": 0.5}
        package()[0].q_learning(walk, rng=np.random.default_rng(case["seed"]), **settings)
        found.append(case | {"seen": walk.seen})
    return found


def q_learning(seed, gamma, alpha, power, seen, *, best=np.max, bootstrap=lambda end: 0 if end else 1, sign=1, old=1):
    """Q <- Q + alpha (R + gamma C max Q(S', a') - Q), step by step."""
    Q, visits = np.zeros((3, 2)), np.zeros((3, 2))
    for s, a, reward, s2, end in seen:
        visits[s, a] += 1
        step = alpha / visits[s, a] ** power
        Q[s, a] = Q[s, a] + sign * step * (reward + gamma * bootstrap(end) * best(Q[s2]) - old * Q[s, a])
    return Q


def first_step():
    """Return a walk with alpha = 1 and gamma = 0: on paper, each cell holds its last reward."""
    walk = Walk(3)
    settings = {"gamma": 0.0, "steps": 60, "step_size": 1.0, "power": 0.0, "epsilon": 0.5}
    package()[0].q_learning(walk, rng=np.random.default_rng(3), **settings)
    last = np.zeros((3, 2))
    for s, a, reward, _, _ in walk.seen:
        last[s, a] = reward
    return {"seed": 3, "gamma": 0.0, "alpha": 1.0, "power": 0.0, "seen": walk.seen}, last


EQUATIONS = {
    "eq-return": Equation(
        printed=return_sum,
        closed=RIDE,
        wrong={
            "no discount": lambda rewards, gamma: return_sum(rewards, gamma, weight=lambda g, k: 1),
            "the first reward is discounted": lambda rewards, gamma: return_sum(
                rewards, gamma, weight=lambda g, k: g ** (k + 1)
            ),
            "the first reward is left out": lambda rewards, gamma: return_sum(rewards, gamma, first=1),
        },
        **RETURNS,
    ),
    "eq-return-recursion": Equation(
        printed=return_recursion,
        closed=RIDE,
        wrong={
            "gamma missing": lambda rewards, gamma: return_recursion(rewards, gamma, step=lambda r, g, G: r + G),
            "gamma on the reward": lambda rewards, gamma: return_recursion(
                rewards, gamma, step=lambda r, g, G: g * r + G
            ),
            "sign": lambda rewards, gamma: return_recursion(rewards, gamma, step=lambda r, g, G: r - g * G),
            "something after the end": lambda rewards, gamma: return_recursion(rewards, gamma, last=1.0),
        },
        **RETURNS,
    ),
    "eq-q-policy": Equation(
        printed=series,
        package=policy_value,
        cases=with_policy,
        closed=(SINGLE | STAY, SINGLE_WORTH),
        wrong={
            "no discount": lambda P, R, gamma, pi: series(P, R, 1.0, pi, terms=50),
            "first action by the policy": lambda P, R, gamma, pi: np.broadcast_to(
                (pi * series(P, R, gamma, pi)).sum(axis=1, keepdims=True), np.shape(R)
            ),
            "nothing ends": lambda P, R, gamma, pi: series(through_the_end(P), R, gamma, pi),
        },
    ),
    "eq-expectation-operator": Equation(
        printed=expectation,
        package=lambda P, R, gamma, Q, pi: package()[0].expectation_backup(Q, model(P, R, gamma), pi),
        cases=lambda rng: with_table(rng, policy=True),
        closed=(SINGLE | STAY | {"Q": np.array([[2.0]])}, np.array([[1.5]])),
        wrong={
            "gamma missing": lambda P, R, gamma, Q, pi: expectation(P, R, 1.0, Q, pi),
            "sign": lambda P, R, gamma, Q, pi: expectation(P, R, -gamma, Q, pi),
            "maximum for the policy": lambda P, R, gamma, Q, pi: optimality(P, R, gamma, Q),
            "policy of the wrong state": lambda P, R, gamma, Q, pi: table(
                R, lambda s, a: R[s, a] + gamma * sum(P[s, a, s2] * (pi[s] @ Q[s2]) for s2 in range(len(P)))
            ),
            "nothing ends": lambda P, R, gamma, Q, pi: expectation(through_the_end(P), R, gamma, Q, pi),
        },
    ),
    "eq-policy-value": Equation(
        printed=lambda P, R, gamma, pi: solve(R, np.eye(np.size(R)) - gamma * pair_matrix(P, pi)),
        package=policy_value,
        cases=with_policy,
        closed=(SINGLE | STAY, SINGLE_WORTH),
        wrong={
            "sign": lambda P, R, gamma, pi: solve(R, np.eye(np.size(R)) + gamma * pair_matrix(P, pi)),
            "gamma on the reward": lambda P, R, gamma, pi: (
                gamma * solve(R, np.eye(np.size(R)) - gamma * pair_matrix(P, pi))
            ),
            "transposed": lambda P, R, gamma, pi: solve(R, np.eye(np.size(R)) - gamma * pair_matrix(P, pi).T),
            "no inverse": lambda P, R, gamma, pi: (
                (np.eye(np.size(R)) - gamma * pair_matrix(P, pi)) @ np.ravel(R)
            ).reshape(np.shape(R)),
            "gamma squared": lambda P, R, gamma, pi: solve(R, np.eye(np.size(R)) - gamma**2 * pair_matrix(P, pi)),
        },
    ),
    "eq-q-optimal": Equation(
        printed=over_policies,
        package=policy_iteration,
        cases=processes,
        closed=(SINGLE, SINGLE_WORTH),
        wrong={
            "the worst policy": lambda P, R, gamma: over_policies(P, R, gamma, choose=np.minimum),
            "the first policy": lambda P, R, gamma: over_policies(P, R, gamma, choose=lambda kept, new: kept),
            "the policy at random": lambda P, R, gamma: (
                series(P, R, gamma, np.full((3, 2), 0.5)) if np.shape(R) == (3, 2) else SINGLE_WORTH
            ),
        },
    ),
    "eq-bellman-optimality": Equation(
        printed=variant(right_side),
        package=solved,
        cases=outcomes,
        closed=({"happens": COIN, "gamma": 0.9}, np.array([[5.0]])),
        wrong={
            "reward outside the expectation": variant(right_side, first_reward=True),
            "maximum outside the expectation": variant(max_outside),
            "something after the end": variant(right_side, ends=False),
            "gamma missing": variant(right_side, discount=False),
            "minimum": variant(right_side, best=np.min),
            "mean": variant(right_side, best=np.mean),
        },
    ),
    "eq-optimality-operator": Equation(
        printed=optimality,
        package=lambda P, R, gamma, Q: package()[0].optimality_backup(Q, model(P, R, gamma)),
        cases=with_table,
        closed=(SINGLE | {"Q": np.array([[2.0]])}, np.array([[1.5]])),
        wrong={
            "gamma missing": lambda P, R, gamma, Q: optimality(P, R, 1.0, Q),
            "gamma on the reward": lambda P, R, gamma, Q: gamma * optimality(P, R, 1.0, Q),
            "sign": lambda P, R, gamma, Q: optimality(P, R, -gamma, Q),
            "maximum outside the sum": lambda P, R, gamma, Q: table(
                R, lambda s, a: R[s, a] + gamma * max(P[s, a] @ Q[:, b] for b in range(np.shape(Q)[1]))
            ),
            "mean for the maximum": lambda P, R, gamma, Q: optimality(P, R, gamma, Q, best=np.mean),
            "value of the same state": lambda P, R, gamma, Q: table(R, lambda s, a: R[s, a] + gamma * np.max(Q[s])),
            "nothing ends": lambda P, R, gamma, Q: optimality(through_the_end(P), R, gamma, Q),
        },
    ),
    "eq-contraction-gamma": Equation(
        printed=lambda P, R, gamma, Q, shift: (gamma * norm((Q + shift) - Q), True),
        package=shrinks,
        cases=two_tables,
        closed=(
            {"P": np.array([[[1.0]]]), "R": np.array([[1.0]]), "gamma": 0.5, "Q": np.array([[0.0]]), "shift": 2.0},
            (1.0, True),
        ),
        wrong={
            "no factor": lambda P, R, gamma, Q, shift: (norm((Q + shift) - Q), True),
            "gamma squared": lambda P, R, gamma, Q, shift: (gamma**2 * norm((Q + shift) - Q), True),
            "1 - gamma": lambda P, R, gamma, Q, shift: ((1 - gamma) * norm((Q + shift) - Q), True),
            "turned round": lambda P, R, gamma, Q, shift: (gamma * norm((Q + shift) - Q), False),
        },
    ),
    "eq-error-decay": Equation(
        printed=lambda P, R, gamma, Q, shift: (gamma ** np.arange(13) * shift, True),
        package=decay,
        cases=two_tables,
        closed=(
            {"P": np.array([[[1.0]]]), "R": np.array([[1.0]]), "gamma": 0.5, "Q": np.array([[0.0]]), "shift": 2.0},
            (2.0 ** -np.arange(-1.0, 12.0), True),
        ),
        wrong={
            "one sweep late": lambda P, R, gamma, Q, shift: (gamma ** np.maximum(np.arange(13) - 1, 0) * shift, True),
            "one sweep early": lambda P, R, gamma, Q, shift: (gamma ** (np.arange(13) + 1) * shift, True),
            "k gamma": lambda P, R, gamma, Q, shift: (np.arange(13) * gamma * shift, True),
            "turned round": lambda P, R, gamma, Q, shift: (gamma ** np.arange(13) * shift, False),
        },
    ),
    "eq-halving": Equation(
        printed=lambda gamma: int(np.ceil(np.log(2) / np.log(1 / gamma))),
        package=halving,
        cases=lambda rng: [{"gamma": float(g)} for g in (0.3, 0.6, 0.9, 0.97, 0.99, 0.999)],
        closed=({"gamma": 2**-0.1 + 1e-9}, 11),
        wrong={
            "one over": lambda gamma: int(np.ceil(1 / (1 - gamma))),
            "a tenth": lambda gamma: int(np.ceil(np.log(10) / np.log(1 / gamma))),
            "for small 1 - gamma only": lambda gamma: int(np.ceil(np.log(2) / (1 - gamma))),
            "sign": lambda gamma: int(np.ceil(np.log(2) / np.log(gamma))),
        },
    ),
    "eq-reward-bound": Equation(
        printed=lambda P, R, gamma: (max(abs(r) for r in np.ravel(R)) / (1 - gamma), True),
        package=lambda P, R, gamma: (
            package()[0].reward_bound(model(P, R, gamma)),
            bool(norm(policy_iteration(P, R, gamma)) <= package()[0].reward_bound(model(P, R, gamma)) + 1e-12),
        ),
        cases=processes,
        closed=({"P": np.array([[[1.0]]]), "R": np.array([[-2.0]]), "gamma": 0.75}, (8.0, True)),
        wrong={
            "no absolute value": lambda P, R, gamma: (np.max(R) / (1 - gamma), True),
            "1 + gamma": lambda P, R, gamma: (np.max(np.abs(R)) / (1 + gamma), True),
            "gamma on top": lambda P, R, gamma: (gamma * np.max(np.abs(R)) / (1 - gamma), True),
            "mean reward": lambda P, R, gamma: (np.mean(np.abs(R)) / (1 - gamma) + 1e-3, True),
            "turned round": lambda P, R, gamma: (np.max(np.abs(R)) / (1 - gamma), False),
        },
    ),
    "eq-span-bounds": Equation(
        printed=span_bounds,
        package=value_iteration,
        cases=some_sweeps,
        closed=SPAN,
        wrong={
            "no 1 / (1 - gamma)": lambda P, R, gamma, k: span_bounds(P, R, gamma, k, scale=lambda g: 1),
            "gamma on top": lambda P, R, gamma, k: span_bounds(P, R, gamma, k, scale=lambda g: g / (1 - g)),
            "1 + gamma": lambda P, R, gamma, k: span_bounds(P, R, gamma, k, scale=lambda g: 1 / (1 + g)),
            "sign": lambda P, R, gamma, k: span_bounds(P, R, gamma, k, scale=lambda g: -1 / (1 - g)),
            "the end is not counted": lambda P, R, gamma, k: span_bounds(P, R, gamma, k, count_the_end=False),
        },
    ),
    "eq-span-midpoint": Equation(
        printed=span_midpoint,
        package=value_iteration,
        cases=some_sweeps,
        closed=SPAN,
        wrong={
            "nothing ends": lambda P, R, gamma, k: span_midpoint(P, R, gamma, k, mass=lambda P: 1.0),
            "whole width": lambda P, R, gamma, k: span_midpoint(P, R, gamma, k, half=1),
            "gamma missing": lambda P, R, gamma, k: span_midpoint(P, R, gamma, k, factor=lambda g: 1.0),
            "sign": lambda P, R, gamma, k: span_midpoint(P, R, gamma, k, mass=lambda P: -np.sum(P, axis=2)),
        },
    ),
    "eq-q-learning": Equation(
        printed=q_learning,
        package=learn,
        cases=walks,
        closed=first_step(),
        wrong={
            "sign": lambda **case: q_learning(**case, sign=-1),
            "something after the end": lambda **case: q_learning(**case, bootstrap=lambda end: 1),
            "gamma missing": lambda **case: q_learning(**case | {"gamma": 1.0}),
            "nothing bootstrapped": lambda **case: q_learning(**case, bootstrap=lambda end: 0),
            "mean for the maximum": lambda **case: q_learning(**case, best=np.mean),
            "estimate not subtracted": lambda **case: q_learning(**case, old=0),
            "constant step size": lambda **case: q_learning(**case | {"power": 0.0}),
        },
    ),
}

DEFINITIONS: set[str] = set()
