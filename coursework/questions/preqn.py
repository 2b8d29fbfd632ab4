"""The graded questions of chapter 6: their numbers, their right answers, and the mistakes that are foreseen.

The text of the questions is in `coursework/source`; the exercises for practice come with the package. Nothing that is
here may reach a student: not by the release, not by the site, not by the wheel.
"""

import functools

import numpy as np
from grader import border, runs

from divergence_notes import updates
from divergence_notes.grading import Choice, FindTheBug, Function, Mistake, Value
from divergence_notes.grading.comparison import numbers_of
from divergence_notes.mdp import FiniteMDP

OWN = ("gap", "jitter", "run")
"""The numbers that are drawn for each student."""


def parameters(rng):
    """Draw the numbers of an edition."""
    return {
        "gamma": round(float(rng.uniform(0.86, 0.95)), 3),
        "gap": round(float(rng.uniform(0.3, 0.8)), 2),
        "jitter": round(float(rng.uniform(0.03, 0.2)), 3),
        "run": int(rng.integers(1, 1_000_000)),
    }


def _inverse(block):
    values, vectors = np.linalg.eigh(block)
    kept = values > 1e-9 * values[-1]
    return (vectors[:, kept] / values[kept]) @ vectors[:, kept].T


def _shortest(K, batch, delta, alpha):
    return alpha * K[:, batch] @ (_inverse(K[np.ix_(batch, batch)]) @ delta)


def _merged(K, batch, delta, alpha, merge):
    pairs = np.unique(batch)
    return _shortest(K, pairs, np.array([merge(delta[batch == pair]) for pair in pairs]), alpha)


def _only_inside(K, batch, delta, alpha):
    moved, change = np.zeros(len(K)), _shortest(K, batch, delta, alpha)
    moved[batch] = change[batch]
    return moved


def _drawn_batch(rng):
    """Draw a kernel and a batch in which pairs come up twice, every other time with too few features for it."""
    while True:
        n = int(rng.integers(5, 8))
        inside = rng.permutation(n)[: int(rng.integers(3, n))]
        rank = len(inside) - 1 if rng.random() < 0.5 else n
        phi = rng.standard_normal((n, rank))
        batch = rng.permutation(np.concatenate([inside, inside[: int(rng.integers(1, 3))]]))
        K = phi @ phi.T
        sizes = np.linalg.eigvalsh(K[np.ix_(batch, batch)]) / np.trace(K)
        if not ((sizes > 1e-13) & (sizes < 1e-3)).any():
            return K, batch, rng.standard_normal(len(batch)), float(rng.uniform(0.2, 1.0))


CHANGE = Function(
    "preqn-table-change",
    _shortest,
    (
        Mistake(
            "multiplies",
            "You multiply by the kernel of the batch where you should solve with it: that is the plain step",
            lambda K, batch, delta, alpha: alpha * K[:, batch] @ delta,
        ),
        Mistake(
            "mean",
            "You divide by the size of the batch; the step is a sum over the batch, and alpha = 1 asks for everything",
            lambda K, batch, delta, alpha: _shortest(K, batch, delta, alpha) / len(batch),
        ),
        Mistake(
            "last-one",
            "Of a pair that was drawn twice you serve the last error only",
            lambda K, batch, delta, alpha: _merged(K, batch, delta, alpha, lambda errors: errors[-1]),
        ),
        Mistake(
            "sum",
            "You add up the errors of a pair that was drawn twice, and it can move only once",
            lambda K, batch, delta, alpha: _merged(K, batch, delta, alpha, np.sum),
        ),
        Mistake(
            "one-vote",
            "You give a pair that was drawn twice one vote; where not every wish can be granted it has two",
            lambda K, batch, delta, alpha: _merged(K, batch, delta, alpha, np.mean),
        ),
        Mistake(
            "inside-only", "You leave the pairs outside the batch where they are; they are dragged along", _only_inside
        ),
        Mistake(
            "no-alpha",
            "The step size plays no part in your change",
            lambda K, batch, delta, alpha: _shortest(K, batch, delta, 1.0),
        ),
    ),
    draw=_drawn_batch,
)


def _off(theta, X, step, delta, size):
    """Return how far the change at a step size is from what the step size promises, and both as vectors."""
    change = np.sin(X @ (theta + size * step)) - np.sin(X @ theta)
    return float(np.linalg.norm(change - size * delta)), change


def _search(theta, X, step, delta, alpha, tol, cap, *, refuses=None, at_the_end=None, tries=None):
    """Shrink until the promise is kept; what a mistake does otherwise comes by keyword."""
    norm = np.linalg.norm(delta)
    refuses = refuses or (lambda size, off, change: off > tol * size * norm)
    for halvings in range(cap + 1 if tries is None else tries):
        size = alpha / 2**halvings
        if not refuses(size, *_off(theta, X, step, delta, size)):
            return theta + size * step
    return theta.copy() if at_the_end is None else theta + at_the_end * step


def _never_shrinks(theta, X, step, delta, alpha, tol, cap):
    return _search(theta, X, step, delta, alpha, tol, 0)


def _cosine(theta, X, step, delta, alpha, tol, cap):
    def refuses(size, off, change):
        return change @ delta < (1 - tol) * np.linalg.norm(change) * np.linalg.norm(delta)

    return _search(theta, X, step, delta, alpha, tol, cap, refuses=refuses)


def _no_scale(theta, X, step, delta, alpha, tol, cap):
    return _search(theta, X, step, delta, alpha, tol, cap, refuses=lambda size, off, change: off > tol)


def _drawn_search(rng):
    """Draw a step that is accepted at once, after some cuts, at the last one allowed, or one too late."""
    while True:
        b, d = int(rng.integers(2, 5)), int(rng.integers(6, 9))
        X, theta, delta = rng.standard_normal((b, d)), rng.standard_normal(d), rng.standard_normal(b)
        step = np.linalg.pinv(X * np.cos(X @ theta)[:, None]) @ delta
        alpha, norm = float(rng.uniform(0.7, 1.4)), np.linalg.norm(delta)
        share = [_off(theta, X, step, delta, alpha / 2**k)[0] / (alpha / 2**k * norm) for k in range(6)]
        first, room = int(rng.integers(0, 5)), int(rng.integers(-1, 3))
        before = min(share[:first], default=2 * share[0])
        tol = float(np.sqrt(share[first] * before))
        misses = [np.linalg.norm(_off(theta, X, step, delta, alpha / 2**k)[1] - alpha * delta) for k in range(1, 8)]
        apart = min(misses) > 1.1 * tol * alpha * norm  # who halves the step and not the promise never succeeds
        if apart and share[first] < 0.7 * before and share[first] < 0.5 and first + room >= 1:
            return theta, X, step, delta, alpha, tol, first + room


SEARCH = Function(
    "preqn-line-search",
    _search,
    (
        Mistake(
            "one-too-few",
            "You stop one trial too early: the full step and then `cap` halvings make cap + 1 trials",
            lambda *args: _search(*args, tries=args[-1]),
        ),
        Mistake(
            "one-too-many",
            "You try once more than allowed: after `cap` halvings the step is rejected",
            lambda *args: _search(*args, tries=args[-1] + 2),
        ),
        Mistake(
            "takes-the-last",
            "After the last halving you take the step although it failed; a rejected step leaves theta where it was",
            lambda *args: _search(*args, at_the_end=args[4] / 2 ** args[6]),
        ),
        Mistake(
            "never-shrinks",
            "After a failure your search never succeeds: each trial has half the size, and promises half",
            _never_shrinks,
        ),
        Mistake(
            "takes-the-first",
            "You take the full step whatever the test says; measure the new values themselves, not their first order",
            lambda theta, X, step, delta, alpha, tol, cap: theta + alpha * step,
        ),
        Mistake("no-scale", "Your test is an absolute one: tol is a share of what the trial promises", _no_scale),
        Mistake("cosine", "Your test looks at the direction of the change and not at its size", _cosine),
    ),
    draw=_drawn_search,
    instances=50,
)


def _line(rng, **given):
    return given["gamma"], given["gap"], given["jitter"]


DISTANCE = Value(
    "preqn-critical-distance",
    lambda gamma, gap, jitter: gap / (2 * gamma),
    (
        Mistake(
            "no-gamma",
            "There the spill alone adds up to 1; the way back through the target counts gamma times",
            lambda gamma, gap, jitter: gap / 2,
        ),
        Mistake(
            "gamma-upside-down",
            "Closer in than the trained states nothing grows: you multiplied by gamma where you should divide",
            lambda gamma, gap, jitter: gap * gamma / 2,
        ),
        Mistake(
            "whole-gap",
            "The trained states are gap / 2 from the middle, not gap",
            lambda gamma, gap, jitter: gap / gamma,
        ),
        Mistake(
            "one-neighbour",
            "An outer state is dragged by both trained states, and the far one pulls with a negative weight",
            lambda gamma, gap, jitter: gap * (1 / gamma - 0.5),
        ),
    ),
    draw=_line,
    rtol=5e-4,
)


def _left(jitter, mu, kappa):
    return jitter * kappa / (mu + jitter * kappa)


UNSOLVED = Value(
    "preqn-jitter-leaves",
    lambda gamma, gap, jitter: _left(jitter, gap**2 / 2, 1 + gap**2 / 4),
    (
        Mistake(
            "served",
            "That is the share that the batch gets, and not what is left unsolved",
            lambda gamma, gap, jitter: 1 - _left(jitter, gap**2 / 2, 1 + gap**2 / 4),
        ),
        Mistake(
            "common-error",
            "That is what is left of an error that both states share; this one has opposite signs",
            lambda gamma, gap, jitter: _left(jitter, 2.0, 1 + gap**2 / 4),
        ),
        Mistake(
            "no-scale",
            "The jitter comes in units of the mean diagonal of the kernel of the batch",
            lambda gamma, gap, jitter: _left(jitter, gap**2 / 2, 1.0),
        ),
        Mistake(
            "diagonal",
            "You divide by the diagonal of the kernel; along an eigenvector its eigenvalue counts",
            lambda gamma, gap, jitter: _left(jitter, 1 + gap**2 / 4, 1 + gap**2 / 4),
        ),
    ),
    draw=_line,
    rtol=5e-4,
)

WHY = Choice(
    "preqn-jitter-and-distance",
    "B",
    (
        Mistake(
            "calmer", "The outer states move less, and so do the inner ones that they are to be compared with", "A"
        ),
        Mistake("weaker", "What the batch does not get now it gets in the next steps; nothing is lost by waiting", "C"),
        Mistake("cured", "Each step is shorter, and there are as many of them as you like: growth is growth", "D"),
    ),
)

STATES = 3
BATCHES = ([0], [1], [2])


def _all_to_the_third(gamma):
    rows = np.zeros((STATES, 1, STATES))
    rows[:, :, STATES - 1] = 1
    return FiniteMDP(rows, np.ones((STATES, 1)), gamma)


def _round(K, gamma):
    """Return what a round of batches does to the values, as a matrix and a vector: with one action it is affine."""
    mdp = _all_to_the_third(gamma)
    in_turn = [updates.Update.preconditioned(mdp, kernel=K, batch=batch, alpha=1) for batch in BATCHES]

    def round_of(Q):
        for update in in_turn:
            Q = update(Q)
        return Q[:, 0]

    at_zero = round_of(np.zeros((STATES, 1)))
    return np.stack([round_of(unit[:, None]) - at_zero for unit in np.eye(STATES)], axis=1), at_zero


def _growth(K, gamma):
    """Return the factor by which values grow in a round, in the long run."""
    return np.abs(np.linalg.eigvals(_round(K, gamma)[0])).max()


def _hardly_grows(gamma):
    """Return a kernel that is too slow: off the diagonal so much of a good one that values grow by 1% in a round."""
    good = np.array([[2.0, -2, 1], [-2, 4, 4], [1, 4, 17]])
    own = np.diag(np.diag(good))
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _growth(own + middle * (good - own), gamma) < 1.01 else (low, middle)
    return own + high * (good - own)


def judge_turns(kernel, gamma):
    """Say what keeps a kernel from running off in turns although each batch alone settles."""
    K = numbers_of(kernel, (STATES, STATES))
    if not np.allclose(K, K.T, rtol=0, atol=1e-6 * np.abs(K).max()):
        return "not-symmetric"
    sizes = np.linalg.eigvalsh(K)
    if sizes[0] <= 1e-9 * abs(sizes[-1]):
        return "singular"
    for batch in BATCHES:
        gain = updates.loop_gain(K, batch=batch, gamma=gamma)
        if gain >= 1:
            called = f"{{{batch[0] + 1}}}"  # as in the question
            return "loud" if gain > 1 + 1e-9 else f"the loop gain of the batch {called} is 1, and has to be below"
    turn, at_zero = _round(K, gamma)
    Q = np.zeros(STATES)
    for _ in range(300):
        Q = turn @ Q + at_zero
        if np.linalg.norm(Q) > 1e6:
            return None
    return "settles" if _growth(K, gamma) < 1 - 1e-9 else "too-slow"


TURNS = Value(
    "preqn-build-turns",
    lambda gamma: np.array([[2.0, -2, 1], [-2, 4, 4], [1, 4, 17]]),
    (
        Mistake(
            "not-symmetric",
            "Your matrix is not symmetric, so it is no kernel of gradients",
            lambda gamma: np.array([[2.0, -2, 1], [-1, 4, 4], [1, 4, 17]]),
        ),
        Mistake(
            "singular",
            "Your matrix has an eigenvalue that is not positive: no kernel, or one that confuses the states",
            lambda gamma: np.array([[1.0, 1, 1], [1, 1, 1], [1, 1, 1]]),
        ),
        Mistake(
            "loud",
            "One of your batches has a loop gain above 1: alone it may run off already, without any turns",
            lambda gamma: np.array([[1.0, 2, 4], [2, 5, 9], [4, 9, 30]]),
        ),
        Mistake(
            "settles",
            "Every batch settles alone, and in turn they settle too: after 300 rounds no value is beyond a million",
            lambda gamma: np.eye(3),
        ),
        Mistake(
            "too-slow",
            "Every batch settles alone, and in turn they run off too slowly, if at all: after 300 rounds no value is "
            "beyond a million",
            _hardly_grows,
        ),
    ),
    draw=lambda rng, **given: (given["gamma"],),
    judge=judge_turns,
)


def sampled_step(theta, batch, gamma, alpha, jitter):
    """Return the parameters after one preconditioned step on sampled transitions, for a linear Q."""
    return theta + alpha * _way(theta, batch, gamma, jitter)


def _errors(theta, batch, gamma, ends=None, best=None):
    ends = batch["terminated"] if ends is None else ends
    following = batch["phi_next"] @ theta
    following = following.max(axis=1) if best is None else best(following)
    return batch["reward"] + gamma * np.where(ends, 0.0, following) - batch["phi"] @ theta


def _pull(phi, delta, jitter, *, rows=None, ridge=None):
    K = phi @ phi.T
    ridge = jitter * np.trace(K) / len(K) if ridge is None else ridge
    return (phi if rows is None else rows).T @ np.linalg.solve(K + ridge * np.eye(len(K)), delta)


def _way(theta, batch, gamma, jitter, **errors):
    return _pull(batch["phi"], _errors(theta, batch, gamma, **errors), jitter)


def _bent(**errors):
    return lambda theta, batch, gamma, alpha, jitter: theta + alpha * _way(theta, batch, gamma, jitter, **errors)


def _cut(theta, batch, gamma, alpha, jitter):
    ends = np.asarray(batch["terminated"]) | np.asarray(batch["truncated"])
    return theta + alpha * _way(theta, batch, gamma, jitter, ends=ends)


def _never_ends(theta, batch, gamma, alpha, jitter):
    ends = np.zeros(len(batch["reward"]), dtype=bool)
    return theta + alpha * _way(theta, batch, gamma, jitter, ends=ends)


def _swapped(theta, batch, gamma, alpha, jitter):
    return theta + alpha * _way(theta, batch, gamma, jitter, ends=batch["truncated"])


def _full_gradient(theta, batch, gamma, alpha, jitter):
    best = (batch["phi_next"] @ theta).argmax(axis=1)
    chosen = batch["phi_next"][np.arange(len(best)), best] * (1.0 - np.asarray(batch["terminated"]))[:, None]
    return theta + alpha * _pull(batch["phi"] - gamma * chosen, _errors(theta, batch, gamma), jitter)


def _moved_target(theta, batch, gamma, alpha, jitter):
    first = sampled_step(theta, batch, gamma, alpha, jitter)
    late = _errors(first, batch, gamma) + batch["phi"] @ (first - theta)
    return theta + alpha * _pull(batch["phi"], late, jitter)


def _mean_step(theta, batch, gamma, alpha, jitter):
    return theta + alpha / len(batch["reward"]) * _way(theta, batch, gamma, jitter)


def _multiplied(theta, batch, gamma, alpha, jitter):
    K = batch["phi"] @ batch["phi"].T
    return theta + alpha * batch["phi"].T @ (K @ _errors(theta, batch, gamma))


def _plain(theta, batch, gamma, alpha, jitter):
    return theta + alpha * batch["phi"].T @ _errors(theta, batch, gamma) / len(batch["reward"])


def _bare_jitter(theta, batch, gamma, alpha, jitter):
    return theta + alpha * _pull(batch["phi"], _errors(theta, batch, gamma), jitter, ridge=jitter)


def _no_jitter(theta, batch, gamma, alpha, jitter):
    return theta + alpha * np.linalg.pinv(batch["phi"], rcond=1e-9) @ _errors(theta, batch, gamma)


BUG = FindTheBug(
    "preqn-find-the-bug",
    sampled_step,
    (
        Mistake("never-ends", "bootstraps through a terminal state", _never_ends),
        Mistake("cut-is-end", "treats a transition that a time limit cut as one that ended", _cut),
        Mistake(
            "ends-swapped", "drops the future where a time limit cut, and keeps it where the episode ended", _swapped
        ),
        Mistake("multiplies", "multiplies by the kernel where it should solve", _multiplied),
        Mistake("plain", "takes the plain mean step, which leaves the kernel alone", _plain),
        Mistake("mean", "divides the step by the size of the batch", _mean_step),
        Mistake("full-gradient", "sends a gradient through the target", _full_gradient),
        Mistake("moved-target", "takes its targets from the parameters after the step", _moved_target),
        Mistake("bare-jitter", "adds the jitter without the mean diagonal", _bare_jitter),
        Mistake("no-jitter", "leaves the jitter out", _no_jitter),
        Mistake("mean-action", "takes the mean over the next actions", _bent(best=lambda values: values.mean(axis=1))),
        Mistake("first-action", "bootstraps from the first action always", _bent(best=lambda values: values[:, 0])),
    ),
)


@functools.lru_cache(maxsize=32)
def lengths(run, size, many=200, limit=1000):
    """Return after how many steps each schedule of question 7 runs off, or 0 where it does not."""
    rng = np.random.default_rng(run)
    places = np.arange(8) + rng.uniform(-0.3, 0.3, size=8)
    kernel, leads_to = np.exp(-((places[:, None] - places) ** 2) / (2 * 1.3**2)), rng.permutation(8)
    rng, found = np.random.default_rng([run, size]), []
    for _ in range(many):
        Q, step = np.ones(8), 0
        while step < limit and np.abs(Q).max() <= 1e6:
            batch = rng.choice(8, size=size, replace=False)
            wish = 0.95 * Q[leads_to[batch]] - Q[batch]
            Q = Q + kernel[:, batch] @ np.linalg.solve(kernel[np.ix_(batch, batch)], wish)
            step += 1
        found.append(step if np.abs(Q).max() > 1e6 else 0)
    return tuple(found)


def _mean_length(run, size=6):
    off = [steps for steps in lengths(run, size) if steps]
    return round(sum(off) / max(len(off), 1), 2)


def spoken(numbers):
    """Return what an oral check may ask about the run of question 7, and what is right."""
    run = numbers["run"]
    read = "; ".join(
        f"batches of {size}: {np.count_nonzero(lengths(run, size))} of 200, after {_mean_length(run, size):.2f} steps"
        for size in (5, 6, 7)
    )
    return [
        (
            "Read me your lines for batches of 5, 6 and 7. Why does the line for 8 say something else?",
            f"{read}. With 8 nothing is left out: the step is that of a table.",
        ),
    ]


def _averaged(value, run):
    found = float(numbers_of(value, ()))
    known = [(None, _mean_length(run)), *(("other-size", _mean_length(run, size)) for size in (5, 7))]
    other = "count" if found == np.count_nonzero(lengths(run, 6)) else "not-yours"
    # a step or two of 200 schedules, and rounding
    return runs.nearest(found, known, within=0.021, otherwise=other)


LONG = Value(
    "preqn-batches-of-six",
    _mean_length,
    (
        Mistake("other-size", "That is from the line of another size", lambda run: _mean_length(run, 7)),
        Mistake("count", "That is how many ran off, and not when", lambda run: np.count_nonzero(lengths(run, 6))),
        Mistake(
            "not-yours",
            "That is not what your run shows. Run the cell with your own name in it, and read the sixth line",
            lambda run: _mean_length(run + 1),
        ),
    ),
    judge=_averaged,
    draw=lambda rng, **given: (given["run"],),
)


def _accept(theta, batch, gamma, alpha, jitter):
    phi, reward, following, ended = border.columns("batch", batch, ("phi", "reward", "phi_next", "terminated"))
    phi = border.numbers("phi", phi, None, None)
    b, d = phi.shape
    data = {"phi": phi, "reward": border.numbers("reward", reward, b)}
    data |= {"phi_next": border.numbers("phi_next", following, b, None, d)}
    data |= {"terminated": border.flags("terminated", ended, b).astype(bool)}
    # Optional, since a right step does not read it.
    data |= {"truncated": border.flags("truncated", batch.get("truncated", np.zeros(b)), b).astype(bool)}
    gamma, alpha = border.number("gamma", gamma, 0, 1), border.number("alpha", alpha)
    return border.numbers("theta", theta, d), data, gamma, alpha, border.number("jitter", jitter, 0)


BUG = border.bordered(BUG, _accept)

EXERCISES = (CHANGE, SEARCH, DISTANCE, UNSOLVED, WHY, TURNS, BUG, LONG)
