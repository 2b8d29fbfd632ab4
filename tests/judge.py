"""Does what the package certifies hold exactly? Small updates of every awkward kind, judged in rational arithmetic.

`python -m tests.judge 20000` judges that many, and says how often each certificate was given and which were false.
The suite judges a hundred.
"""

import itertools
import sys
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np

from divergence_notes import bellman, contraction, norms, updates
from divergence_notes.mdp import FiniteMDP
from divergence_notes.updates import KernelUpdate
from tests import oracles
from tests import oracles_exact as exact
from tests.strategies import make_update

KINDS = ("ordinary", "singular", "nearly singular", "defective", "badly scaled", "another form")
SHARES = (2, 1, 1, 1, 1, 2)  # a quarter ordinary, singular, defective or badly scaled, and one not made of a kernel
FORMS = ("any", "table", "shares", "frozen", "preconditioned", "policy", "chances", "residual")
SIZES = ((1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (2, 2), (4, 1))
ORDER = tuple(kind for kind, share in zip(KINDS, SHARES, strict=True) for _ in range(share))


def process(rng, size, gamma):
    """Draw a process: rows that are dense, deterministic, end the episode, or miss 1 by next to nothing."""
    n_states, n_actions = size
    shape = (n_states, n_actions, n_states)
    P = rng.dirichlet(np.full(n_states, 0.7), size=shape[:2])
    sort = rng.integers(5)
    if sort == 1:
        P = np.eye(n_states)[rng.integers(n_states, size=shape[:2])]
    elif sort == 2:
        P = P * rng.choice([0.0, 0.5, 1.0], size=(*shape[:2], 1))
    elif sort == 3:
        P = np.round(P, 8)
        P = P / np.maximum(1, P.sum(axis=2, keepdims=True))
    elif sort == 4:
        P = np.eye(n_states)[rng.integers(n_states, size=shape[:2])] * rng.choice(
            [0.0, 0.25, 1.0], size=(*shape[:2], 1)
        )
    return FiniteMDP(P, rng.integers(-3, 4, size=shape[:2]).astype(float), gamma)


def shares(rng, n):
    """Draw a distribution: of powers of two, so that it is exact, or any."""
    if rng.random() < 0.5:
        parts = [1.0]
        while len(parts) < n:
            half = parts.pop(0) / 2
            parts += [half, half]
        return np.array(parts)
    rho = rng.dirichlet(np.ones(n))
    return rho / rho.sum()


def unimodular(rng, n):
    """Draw an integer matrix of determinant 1, and its inverse, which is one too."""
    S, back = np.eye(n), np.eye(n)
    for _ in range(2 * n):
        i, j = rng.choice(n, size=2, replace=False) if n > 1 else (0, 0)
        if i != j:
            c = float(rng.integers(-1, 2))
            S[i] += c * S[j]
            back[:, j] -= c * back[:, i]
    return S, back


def near_one(rng):
    """Draw an eigenvalue at, next to, or away from 1, as an exact number."""
    return float(rng.choice([0.5, 0.75, 0.9375, 1 - 2.0**-20, 1 - 2.0**-40, 1.0, 1 + 2.0**-40, -0.875, -1.0, 1.125]))


def another_form(rng):
    """Draw an update with a matrix that is no alpha K D, or with a policy of its own, of the parts of another kind."""
    while True:
        parts = instance(KINDS[rng.integers(len(KINDS) - 1)], rng)
        try:
            return make_update(FORMS[rng.integers(len(FORMS))], parts, rng)
        except ValueError:  # the powers of a frozen target overflow
            continue


def instance(kind, rng):
    """Draw an update of a kind."""
    if kind == "another form":
        return another_form(rng)
    size = SIZES[rng.integers(len(SIZES))]
    n = size[0] * size[1]
    gamma = float(rng.choice([0.0, 0.5, 0.75, 0.9, 0.99]))
    alpha, rho = float(rng.choice([1.0, 0.5, 0.1])), shares(rng, n)
    phi = rng.standard_normal((n, n)) if rng.random() < 0.5 else rng.integers(-3, 4, size=(n, n)).astype(float)
    K = phi @ phi.T
    if kind == "ordinary":
        sort = rng.integers(4)
        if sort == 0:
            K = phi
        elif sort == 1:
            K = np.diag(1 + rng.random(n)) + 0.1 * rng.standard_normal((n, n))
        elif sort == 2:
            K = np.eye(n) * rng.integers(1, 4)
    elif kind in ("singular", "nearly singular"):
        sort = rng.integers(4)
        d = int(rng.integers(0, n)) if n > 1 else 0
        phi = rng.integers(-3, 4, size=(n, n)).astype(float)
        if sort == 0:  # fewer features than pairs
            K = phi[:, :d] @ phi[:, :d].T
        elif sort == 1:  # any matrix, one row a sum of two others
            K = phi
            K[-1] = K[0] + K[n // 2] if n > 1 else 0.0
        elif sort == 2:  # a pair that no data shows
            K, rho = phi @ phi.T + n * np.eye(n), rho.copy()
            rho[rng.integers(n)] = 0.0
            if n > 1 and rho.sum() > 0:
                rho = np.ldexp(np.round(np.ldexp(rho / rho.sum(), 20)), -20)
                rho[rho.argmax()] += 1 - rho.sum()
            else:
                K, rho = np.zeros((n, n)), np.eye(n)[0]
        else:  # dominant but for one row that is zero
            K = np.eye(n) * 4.0
            K[rng.integers(n)] = 0.0
        if kind == "nearly singular":
            eps = 2.0 ** -float(rng.integers(20, 60))
            if sort == 2 and rho.min() == 0 and n > 1:
                rho[rho.argmin()] = eps
                rho[rho.argmax()] -= eps
            else:
                K = K + eps * (np.eye(n) if rng.random() < 0.5 else rng.standard_normal((n, n)))
            if rng.random() < 0.3:  # of low rank but for rounding
                wide = rng.standard_normal((n, max(1, n - 1)))
                K = wide @ wide.T
    elif kind == "defective":
        S, back = unimodular(rng, n)
        block = near_one(rng) * np.eye(n) + np.diag(
            rng.choice([0.0, 1.0, 0.25, 8.0], size=max(n - 1, 0), p=[0.1, 0.5, 0.2, 0.2]), 1
        )
        J = S @ block @ back
        gamma, alpha, rho = (0.0 if rng.random() < 0.6 else 0.5), 1.0, rho if rng.random() < 0.2 else np.full(n, 1 / n)
        if gamma == 0:
            K = (np.eye(n) - J) / rho
        else:  # of one policy, exactly where the numbers are powers of two
            mdp = process(rng, size, gamma)
            P = mdp.pair_transitions(np.zeros(size[0], dtype=int))
            K = (np.eye(n) - J) @ np.linalg.inv(np.eye(n) - gamma * P) / rho
            return KernelUpdate(mdp, kernel=K, weights=rho, alpha=alpha)
    else:  # badly scaled
        powers = 2.0 ** rng.integers(-40, 41, size=n)
        base = rng.choice([0, 1, 2])
        if base == 0:
            K = np.triu(phi) if rng.random() < 0.5 else phi
        elif base == 1:  # nilpotent but for the diagonal
            K = np.eye(n) + np.triu(rng.integers(-2, 3, size=(n, n)), 1)
        K = K * powers[:, None] / powers
        if rng.random() < 0.3:
            K = K * 2.0 ** float(rng.integers(-30, 31))
        if rng.random() < 0.3 and n > 1:
            rho = 2.0 ** -rng.integers(1, 40, size=n).astype(float)
            rho[rng.integers(n)] += 1 - rho.sum()
            rho = np.abs(rho) / np.abs(rho).sum()
    update = KernelUpdate(process(rng, size, gamma), kernel=K, weights=rho, alpha=alpha)
    if rng.random() < 0.3:  # a step size at the very end of the interval
        end = contraction.max_step_size(update)
        if 0 < end < np.inf:
            update = replace(update, alpha=float(end * (1 + rng.integers(-4, 5) * 2.0**-52)))
    elif rng.random() < 0.3 and np.abs(K @ rho).max() > 0:
        longest = 2.0 / np.abs(K @ np.diag(rho)).max()
        update = replace(update, alpha=float(longest * rng.choice([0.1, 0.5, 1.0])))
    return update


class Record:
    """The certificates that were given for an update, and the names of those that are false."""

    def __init__(self):
        self.claims, self.false = Counter(), []

    def say(self, name, certified, holds):
        self.claims[name] += bool(certified)
        if not holds:
            self.false.append(name)


def judge(update):
    """Return the certificates that were given for an update, and the names of those that are false."""
    record = Record()
    singular = exact.rank(exact.moved(update)) < update.mdp.n_pairs
    judge_norms(update, singular, record.say)
    if isinstance(update, KernelUpdate):
        judge_kernel(update, singular, record.say)
    return record.claims, record.false


def judge_norms(update, singular, say):
    """Judge what is said of any matrix, towards T* or one policy."""
    n, one = update.mdp.n_pairs, Fraction(1)
    J, G = exact.jacobians(update), exact.drifts(update)
    modulus = max(sum(abs(x) for x in row) for each in J for row in each)
    found = contraction.exact_modulus(update)
    say("exact_modulus", found < 1, Fraction(found) >= modulus and not (singular and found < 1))
    witness = contraction.modulus_witness(update)
    apart = [
        Fraction(float(x)) - Fraction(float(y)) for x, y in zip(witness.Q1.ravel(), witness.Q2.ravel(), strict=True)
    ]
    policy = next(k for k, each in enumerate(oracles.targets_of(update)) if np.array_equal(each, witness.policy))
    reached = abs(exact.apply(J[policy], apart)[witness.row]) * 4
    near = Fraction(1, 10**9) * max(one, modulus)
    say("modulus_witness", True, max(map(abs, apart)) == Fraction(1, 4) and modulus - near <= reached <= modulus)
    found = contraction.max_scale(update)
    dominant = all(2 * each[i][i] > sum(map(abs, each[i])) for each in G for i in range(n))
    longest = max(sum(map(abs, row)) for each in G for row in each)
    if found > 0:
        say("max_scale", True, dominant and Fraction(found) * longest <= 2 and not singular)
    # weights
    value, w = norms.weighted_modulus(update)
    weights = exact.exact(w)
    holds = min(weights) > 0 and all(exact.norm(each, weights) <= Fraction(value) for each in J)
    say("weighted_modulus", value < 1, holds and not (singular and value < 1))
    lowest = Fraction(value) - max(one, Fraction(value)) / 100
    if lowest > 0 and all(exact.dominates(lowest, M) for M in exact.selections(J, weights)):
        say("weighted_modulus is not the best", False, False)
    # products
    depth = 3 if len(J) < 3 else 2
    lower, upper = norms.joint_spectral_radius(update, depth=depth)
    products = {length: exact.words(J, length) for length in range(1, depth + 1)}
    shorter = any(
        max(exact.norm(word, weights) for word in group) <= Fraction(upper) ** length
        for length, group in products.items()
    )
    say("upper", upper < 1, shorter and lower <= upper and not (singular and upper < 1))
    grows = lower == 0 or any(
        not exact.radius_below(word, Fraction(lower) ** length) for length, group in products.items() for word in group
    )
    say("lower", lower >= 1, grows)
    found = norms.some_norm(update, products=200)
    if found is True:
        holds = not singular
        if holds and len(J) == 1:
            holds = exact.radius_below(J[0], one)  # powers that get short late would take long in fractions
        elif holds and value >= 1:
            root = norms._ellipse(update.jacobians(), w)
            holds = exact.splits_into_shorter(J, root, 200) is True
        say("some_norm: True", True, holds)
    elif found is False:
        near = one - Fraction(1, 10**9)
        say("some_norm: False", True, not (shorter and Fraction(upper) < near) and Fraction(value) > near)
        seen = singular or any(
            not exact.radius_below(x, one - Fraction(1, 10**11)) for g in products.values() for x in g
        )
        say("some_norm: False, seen in products of three", seen, True)
    else:
        say("some_norm: None", True, True)
        say("some_norm of a singular matrix", False, not singular)


def judge_kernel(update, singular, say):
    """Judge what is said of the kernel, whatever the process, and in units of the step size."""
    kernel, rho, n = update.kernel, update.weights, update.mdp.n_pairs
    gamma, KD = Fraction(update.mdp.gamma), exact.pulled(update.kernel, update.weights)
    step = exact.moved(update)
    beta = max(sum(abs((i == j) - x) + gamma * abs(x) for j, x in enumerate(row)) for i, row in enumerate(step))
    found = contraction.row_sum_bound(kernel, rho, alpha=update.alpha, gamma=update.mdp.gamma)
    say("row_sum_bound", found < 1, Fraction(found) >= beta and not (singular and found < 1))
    own, others = [KD[i][i] for i in range(n)], [sum(abs(x) for j, x in enumerate(KD[i]) if j != i) for i in range(n)]
    margins = [(1 - gamma) * x - (1 + gamma) * y for x, y in zip(own, others, strict=True)]
    found = contraction.row_dominance(kernel, rho, gamma=update.mdp.gamma)
    holds = all(Fraction(float(f)) <= m for f, m in zip(found, margins, strict=True))
    say("row_dominance", found.min() > 0, holds and not (singular and found.min() > 0))
    found = contraction.discount_limit(kernel, rho)
    limit = min((x - y) / (abs(x) + y) if abs(x) + y else Fraction(0) for x, y in zip(own, others, strict=True))
    say("discount_limit", found > 0, Fraction(found) <= max(limit, 0) and not (singular and found > 0))
    if any(any(row) for row in KD):
        found = contraction.step_size_limit(kernel, rho, gamma=update.mdp.gamma)
        pull = max(sum(abs(x) for x in row) for row in KD)
        say("step_size_limit", True, Fraction(found) * (1 + gamma) * pull <= 2)
    found = contraction.max_step_size(update)
    if found > 0:
        G = exact.drifts(replace(update, alpha=1))
        dominant = all(2 * each[i][i] > sum(map(abs, each[i])) for each in G for i in range(n))
        longest = max(sum(map(abs, row)) for each in G for row in each)
        say("max_step_size", True, dominant and Fraction(found) * longest <= 2 and not singular)
    # the batch
    batch = np.arange(max(1, n - 1))
    block = [[Fraction(float(kernel[i][j])) for j in batch] for i in batch]
    try:
        found = updates.loop_gain(kernel, batch=batch, gamma=update.mdp.gamma)
    except ValueError:
        found = None
    if found is not None and np.isfinite(found):
        if exact.rank(block) < len(batch):
            say("loop_gain of a singular block", False, False)
        else:
            rows = [exact.solve(exact.transpose(block), [Fraction(float(kernel[o][j])) for j in batch])
                    for o in range(len(batch), n)]  # fmt: skip
            gain = max((gamma * sum(map(abs, row)) for row in rows), default=Fraction(0))
            say("loop_gain", found < 1, Fraction(found) >= gain)
    if (kernel == np.transpose(kernel)).all() and min(rho) > 0:
        try:
            found = contraction.overshoot_limit(kernel, rho)
        except ValueError:
            found = None
        if found is not None:  # 2 / limit - the largest eigenvalue of K D is at least 0
            K, bound = exact.exact(kernel), 2 / Fraction(found) * (1 + Fraction(1, 10**30))
            holds = exact.positive_definite(K) and exact.positive_definite(
                [[bound * (i == j) / Fraction(float(rho[i])) - K[i][j] for j in range(n)] for i in range(n)]
            )
            say("overshoot_limit", True, holds)


def judge_planning(rng):
    """Judge the error bounds of both solvers, where rows nearly sum to 1 and the discount is nearly 1."""
    size = SIZES[rng.integers(len(SIZES))]
    gamma = float(rng.choice([0.0, 0.5, 0.9, 0.99, 0.999, 1 - 2.0**-20, 1 - 1e-9, 1 - 2.0**-52]))
    mdp = process(rng, size, gamma)
    short = 10.0 ** -float(rng.integers(8, 17))
    P = np.array(mdp.P) * (1 + short * rng.choice([-1.0, 0.0, 0.5], size=(*size, 1)))
    mdp = FiniteMDP(P, mdp.R * rng.choice([1.0, 1e-3, 1 / 3]), gamma)
    best, false, claims = exact.best_table(mdp), [], Counter()
    for name, found in (
        ("value_iteration", bellman.value_iteration(mdp, tol=float(rng.choice([1e-3, 1e-6, 1e-9])), max_iter=200)),
        ("policy_iteration", bellman.policy_iteration(mdp)),
    ):
        worst = max(abs(Fraction(float(x)) - y) for row, truth in zip(found.Q, best, strict=True)
                    for x, y in zip(row, truth, strict=True))  # fmt: skip
        claims[f"{name}: {found.status}"] += 1
        if np.isfinite(found.error_bound) and Fraction(float(found.error_bound)) < worst:
            false.append(name)
    return claims, false


def run(count, *, seed=0, report=None, until_false=False):
    """Judge many, and return the certificates by kind and the false ones with what they were given for."""
    rng, claims, wrong = np.random.default_rng(seed), {kind: Counter() for kind in (*KINDS, "planning")}, []
    kinds = itertools.cycle(ORDER)
    for k in range(count):
        kind = next(kinds)
        update = instance(kind, rng)
        found, false = judge(update)
        planned, lies = judge_planning(rng)
        claims[kind] += found + Counter(instances=1)
        claims["planning"] += planned + Counter(instances=1)
        wrong += [(kind, name, update) for name in false] + [("planning", name, k) for name in lies]
        if until_false and wrong:
            break
        if report and (k + 1) % report == 0:
            print(k + 1, "judged,", len(wrong), "false", flush=True)
    return claims, wrong


if __name__ == "__main__":
    total, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    claims, wrong = run(total, seed=seed, report=max(1, total // 20))
    for kind, counts in claims.items():
        print(f"{kind}: {counts.pop('instances', 0)} instances")
        for name, number in sorted(counts.items()):
            print(f"    {name:50} {number}")
    print(len(wrong), "false certificates", Counter(name for _, name, _ in wrong))
    for kind, name, found in wrong[:10]:
        print(kind, name, found)
