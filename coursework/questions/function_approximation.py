"""The graded questions of chapter 2: their numbers, their right answers, and the mistakes that are foreseen.

The text of the questions is in `coursework/source`; the exercises for practice come with the package. Nothing that is
here may reach a student: not by the release, not by the site, not by the wheel.
"""

import functools
import math

import numpy as np
from grader import border, runs

from divergence_notes import features, updates
from divergence_notes.grading import Choice, FindTheBug, Function, Mistake, Value, try_out
from divergence_notes.grading.bellman import ending_mdp
from divergence_notes.mdp import FiniteMDP

OWN = ("near", "far", "share", "end", "fold", "gamma", "second", "run")
"""The numbers that are drawn for each student."""


def parameters(rng):
    """Draw the numbers of an edition."""
    while True:
        near = round(float(rng.uniform(0.5, 1.5)), 2)
        given = {
            "near": near,
            "far": round(near * float(rng.uniform(1.8, 3)), 2),
            "share": round(float(rng.uniform(0.1, 0.4)), 2),
            "end": round(float(rng.uniform(0.05, 0.25)), 2),
            "fold": int(rng.integers(50, 500)),
        }
        critical = _critical(given["near"], given["far"], given["share"], given["end"])
        if 0.55 < critical < 0.9:
            break
    floor = round(float(rng.uniform(0.13, 0.21)), 2)
    _, _, safe = _worst(floor)
    return given | {
        "gamma": round(critical + float(rng.uniform(0.5, 0.8)) * (1 - critical), 3),
        "floor": floor,
        "gamma_5": round(safe + float(rng.uniform(0.3, 0.5)) * (1 - safe), 3),
        "second": round(float(rng.uniform(0.642, 0.65)), 4),
        "run": int(rng.integers(1, 1_000_000)),
    }


# ---- 2: the growth rate


def _pairs(mdp, policy, *, average=False, through=False):
    """Return the matrix from pair to pair, with the slips that people make."""
    rows = np.array(mdp.transitions, dtype=float)
    if through:
        rows[:, 0] += 1 - rows.sum(axis=1)
    acts = np.full(mdp.R.shape, 1 / mdp.n_actions) if average else np.eye(mdp.n_actions)[policy]
    return (rows[:, :, None] * acts).reshape(mdp.n_pairs, mdp.n_pairs)


def _slopes(phi, mdp, policy, weights, *, gamma=None, residual=False, **slips):
    gap = phi - (mdp.gamma if gamma is None else gamma) * _pairs(mdp, policy, **slips) @ phi
    return np.linalg.eigvals(-((gap if residual else phi) * weights[:, None]).T @ gap)


def _growth(*args, **slips):
    return _slopes(*args, **slips).real.max()


def _learner(rng):
    mdp = ending_mdp(rng)
    phi = rng.standard_normal((mdp.n_pairs, int(rng.integers(1, 4))))
    policy = rng.integers(mdp.n_actions, size=mdp.n_states)
    return phi, mdp, policy, rng.dirichlet(np.full(mdp.n_pairs, 0.7))


GROWTH = Function(
    "function-approximation-growth-rate",
    _growth,
    (
        Mistake(
            "through-the-end",
            "Your targets bootstrap after a step that ends the episode",
            lambda *given: _growth(*given, through=True),
        ),
        Mistake("no-gamma", "Your targets are not discounted", lambda *given: _growth(*given, gamma=1.0)),
        Mistake(
            "no-weights",
            "You count every pair alike: the weights play no part",
            lambda phi, mdp, policy, weights: _growth(phi, mdp, policy, np.full(mdp.n_pairs, 1 / mdp.n_pairs)),
        ),
        Mistake(
            "weights-of-one",
            "You add the pairs up with the weight 1 each",
            lambda phi, mdp, policy, weights: _growth(phi, mdp, policy, np.ones(mdp.n_pairs)),
        ),
        Mistake(
            "through-the-target",
            "Your gradient goes through the target too; that is another update, and it never grows",
            lambda *given: _growth(*given, residual=True),
        ),
        Mistake(
            "any-action",
            "You bootstrap from the average over the actions of the next state; the policy chooses one",
            lambda *given: _growth(*given, average=True),
        ),
        Mistake(
            "slowest",
            "That is the direction that shrinks fastest; the one that grows fastest decides",
            lambda *given: _slopes(*given).real.min(),
        ),
        Mistake(
            "modulus",
            "You take the modulus of an eigenvalue, which is never negative: nothing would ever shrink",
            lambda *given: np.abs(_slopes(*given)).max(),
        ),
    ),
    draw=_learner,
)


# ---- 3: the discount up to which every choice of features is safe


def _scaled(P, weights):
    by = weights**0.5
    return by[:, None] * P / by


def _largest(matrix):
    return np.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]


def _up_to_one(limit):
    return min(1.0, float(limit))


def _chain(rng):
    n = int(rng.integers(2, 6))
    P = rng.dirichlet(np.full(n, 0.5), size=n)
    if rng.random() < 0.2:  # data of the chain's own
        return P, np.linalg.matrix_power((np.eye(n) + P) / 2, 4000)[0]
    goes_on = rng.choice([0.6, 1.0, 1.0], size=n)
    return goes_on[:, None] * P, 0.9 * rng.dirichlet(np.ones(n)) + 0.1 / n


SAFE = Function(
    "function-approximation-safe-discount",
    lambda P, weights: _up_to_one(1 / _largest(_scaled(P, weights))),
    (
        Mistake(
            "one-table",
            "That is the limit for a table, which is always 1: you have to allow for every choice of features",
            lambda P, weights: 1.0,
        ),
        Mistake(
            "no-weights",
            "You left the weights out: they say which states pull, and how hard",
            lambda P, weights: _up_to_one(1 / _largest(P)),
        ),
        Mistake(
            "sufficient-only",
            "That is how far a norm of P lets you go, as in question 1: safe, but not the largest safe discount",
            lambda P, weights: _up_to_one(1 / np.linalg.norm(_scaled(P, weights), 2)),
        ),
        Mistake(
            "ratio-only",
            "That is 1 over the root of kappa, as in question 1: safe, but not the largest safe discount",
            lambda P, weights: _up_to_one(1 / math.sqrt((weights @ P / weights).max())),
        ),
        Mistake(
            "not-halved",
            "You add the matrix and its transpose and forget to halve the sum",
            lambda P, weights: _up_to_one(0.5 / _largest(_scaled(P, weights))),
        ),
        Mistake(
            "above-one",
            "A discount does not exceed 1: where every discount is safe, return 1",
            lambda P, weights: 1 / _largest(_scaled(P, weights)),
        ),
    ),
    draw=_chain,
    rtol=5e-4,
)


# ---- 4: the critical discount of two states, one of which may end


def _critical(near, far, share, end, *, loses=0.0):
    push = (1 - share) * (1 - loses) * near * far + share * (1 - end) * far**2
    return ((1 - share) * near**2 + share * far**2) / push


def _states(rng, **given):
    return given["near"], given["far"], given["share"], given["end"]


CRITICAL = Value(
    "function-approximation-critical-discount",
    _critical,
    (
        Mistake(
            "without-the-end",
            "You forgot that the second state bootstraps only when the game goes on",
            lambda near, far, share, end: _critical(near, far, share, 0.0),
        ),
        Mistake(
            "end-everywhere",
            "Only the second state may end; a step from the first always goes on",
            lambda near, far, share, end: _critical(near, far, share, end, loses=end),
        ),
        Mistake(
            "shares-swapped",
            "The share belongs to the second state",
            lambda near, far, share, end: _critical(near, far, 1 - share, end),
        ),
        Mistake(
            "equal-shares",
            "You train both states equally often",
            lambda near, far, share, end: _critical(near, far, 0.5, end),
        ),
        Mistake(
            "no-feature-in-front",
            "You add up the errors; each moves the weight in proportion to the feature of its state",
            lambda near, far, share, end: ((1 - share) * near + share * far) / (far - share * end * far),
        ),
    ),
    draw=_states,
    rtol=5e-4,
)


def _pull(near, far, share, end, gamma):
    return gamma * ((1 - share) * near * far + share * (1 - end) * far**2) - (1 - share) * near**2 - share * far**2


def _steps(rate, factor):
    return math.ceil(math.log(factor) / rate)


def _run(rng, **given):
    return _pull(*_states(rng, **given), given["gamma"]), given["fold"]


STEPS = Value(
    "function-approximation-updates-to-grow",
    lambda pull, factor: _steps(math.log1p(0.02 * pull), factor),
    (
        Mistake(
            "one-too-few",
            "After that many updates it is not quite there: round up",
            lambda pull, factor: _steps(math.log1p(0.02 * pull), factor) - 1,
        ),
        Mistake(
            "no-step-size",
            "The step size is missing",
            lambda pull, factor: _steps(math.log1p(pull), factor),
        ),
        Mistake(
            "not-compounded",
            "Growth feeds on itself: each update multiplies the weight, and does not add the same amount",
            lambda pull, factor: math.ceil((factor - 1) / (0.02 * pull)),
        ),
        Mistake(
            "digits",
            "That takes the logarithm to the base 10 on one side and the natural one on the other",
            lambda pull, factor: math.ceil(math.log10(factor) / math.log1p(0.02 * pull)),
        ),
    ),
    draw=_run,
)

REWARD = Choice(
    "function-approximation-with-a-reward",
    "C",
    (
        Mistake("signal", "A reward is a constant in the update; it does not touch the factor that grows", "A"),
        Mistake("upwards", "Below the one weight that solves its own equation, the same factor drives it down", "B"),
        Mistake("bounded", "The bound holds for true values; the weight does not know them", "D"),
    ),
)


# ---- 5: build a loop


def _loop(gamma):
    return FiniteMDP(np.roll(np.eye(3), 1, axis=1)[:, None, :], np.zeros((3, 1)), gamma)


def _worst(floor):
    """Return one feature a state, shares that respect the floor, and the discount above which they diverge."""
    P, found = _loop(0.5).transitions, []
    for shares in ([floor, floor, 1 - 2 * floor], [floor, (1 - floor) / 2, (1 - floor) / 2]):
        sides, axes = np.linalg.eigh((_scaled(P, np.array(shares)) + _scaled(P, np.array(shares)).T) / 2)
        found.append((np.abs(axes[:, -1]) / np.sqrt(shares), np.array(shares), float(1 / sides[-1])))
    return min(found, key=lambda one: one[2])


def _runs_off(column, shares, gamma):
    """Say whether the package's own update grows, for small steps and so for all."""
    size = np.linalg.norm(column)
    if size == 0:
        return False
    unit = features.kernel(column[:, None] / size)
    J = updates.KernelUpdate(_loop(gamma), kernel=unit, weights=shares, alpha=0.1).jacobian([0, 0, 0])
    return bool(np.abs(np.linalg.eigvals(J)).max() > 1 + 1e-9)


def _judge(value, gamma, floor):
    form = try_out(value, shape=(2, 3))
    if not form.passed:
        return form.message.rstrip(".")
    column, shares = np.array(value.tolist() if hasattr(value, "tolist") else value, dtype=float)
    if (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
        return "no-shares"
    if shares.min() < floor - 1e-6:
        return "starved"
    shares /= shares.sum()
    if _runs_off(column, shares, gamma):
        return None
    if np.ptp(shares) < 1e-3:
        return "on-policy"
    return "against-the-arrows" if _runs_off(column[::-1], shares[::-1], gamma) else "tame"


def _example(gamma, floor):
    column, shares, _ = _worst(floor)
    return np.stack([column, shares])


BUILD = Value(
    "function-approximation-build-a-loop",
    _example,
    (
        Mistake(
            "on-policy",
            "These shares are those of the loop's own data, and with them no features run off: that is question 1",
            lambda gamma, floor: np.array([[1.0, 2.0, 3.0], [1 / 3, 1 / 3, 1 / 3]]),
        ),
        Mistake(
            "starved",
            "A state gets less than the floor",
            lambda gamma, floor: _example(gamma, floor / 2),
        ),
        Mistake(
            "no-shares",
            "The second row must hold shares: none negative, and they add up to 1",
            lambda gamma, floor: np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]),
        ),
        Mistake(
            "against-the-arrows",
            "It converges; it would run off if the loop went the other way round",
            lambda gamma, floor: _example(gamma, floor)[:, ::-1],
        ),
        Mistake(
            "tame",
            "It converges: what the shares and the features feed back is less than what they pull home",
            lambda gamma, floor: np.stack([np.ones(3), _example(gamma, floor)[1]]),
        ),
    ),
    draw=lambda rng, **given: (given["gamma_5"], given["floor"]),
    judge=_judge,
)


# ---- 6: find the bug


def _parts(w, batch):
    w = np.asarray(w, dtype=float)
    data = {name: np.asarray(values, dtype=float) for name, values in batch.items()}
    return w, data, data["features"] @ w, data["next_features"] @ w, 1 - data["ended"]


def _greedy(data, after):
    return data["next_features"][np.arange(len(after)), after.argmax(axis=1)]


def _move(w, error, along, weight, alpha):
    return w + alpha * (weight * error) @ along / len(error)


def batch_step(w, batch, gamma, alpha):
    """Return the weights after one semi-gradient step of Q-learning on a weighted batch."""
    w, data, now, after, on = _parts(w, batch)
    error = data["reward"] + gamma * on * after.max(axis=1) - now
    return _move(w, error, data["features"], data["weight"], alpha)


def _with_next(pick):
    """Return a step whose targets take something else than the largest next value."""

    def step(w, batch, gamma, alpha):
        w, data, now, after, on = _parts(w, batch)
        error = data["reward"] + gamma * on * pick(after, data) - now
        return _move(w, error, data["features"], data["weight"], alpha)

    return step


def _taken(after, data):
    acts = data.get("next_action", np.zeros(len(after)))  # a test may leave out what a right step never reads
    return after[np.arange(len(after)), acts.astype(int)]


def _altered(**changes):
    """Return the right step on a batch of which some columns are replaced."""

    def step(w, batch, gamma, alpha):
        data = {name: np.asarray(values, dtype=float) for name, values in batch.items()}
        return batch_step(w, data | {name: change(data) for name, change in changes.items()}, gamma, alpha)

    return step


def _through_the_target(w, batch, gamma, alpha):
    w, data, now, after, on = _parts(w, batch)
    error = data["reward"] + gamma * on * after.max(axis=1) - now
    along = data["features"] - gamma * on[:, None] * _greedy(data, after)
    return _move(w, error, along, data["weight"], alpha)


def _along_the_next(w, batch, gamma, alpha):
    w, data, now, after, on = _parts(w, batch)
    error = data["reward"] + gamma * on * after.max(axis=1) - now
    return _move(w, error, _greedy(data, after), data["weight"], alpha)


def _weighted_target(w, batch, gamma, alpha):
    w, data, now, after, on = _parts(w, batch)
    error = data["weight"] * (data["reward"] + gamma * on * after.max(axis=1)) - now
    return _move(w, error, data["features"], np.ones(len(now)), alpha)


def _lost_reward(w, batch, gamma, alpha):
    w, data, now, after, on = _parts(w, batch)
    return _move(w, on * (data["reward"] + gamma * after.max(axis=1)) - now, data["features"], data["weight"], alpha)


def _one_by_one(w, batch, gamma, alpha):
    n = len(batch["reward"])
    for i in range(n):
        w = batch_step(w, {name: np.asarray(values)[i : i + 1] for name, values in batch.items()}, gamma, alpha / n)
    return w


BUG = FindTheBug(
    "function-approximation-find-the-bug",
    batch_step,
    (
        Mistake("through-the-target", "takes the gradient through the target as well", _through_the_target),
        Mistake("no-gamma", "does not discount", lambda w, batch, gamma, alpha: batch_step(w, batch, 1.0, alpha)),
        Mistake(
            "through-the-end",
            "bootstraps after a step that ended the episode",
            _altered(ended=lambda data: np.zeros(len(data["ended"]))),
        ),
        Mistake(
            "no-weight",
            "leaves the weights of the transitions out",
            _altered(weight=lambda data: np.ones(len(data["weight"]))),
        ),
        Mistake(
            "weight-of-another",
            "gives each transition the weight of the one after it",
            _altered(weight=lambda data: np.roll(data["weight"], -1)),
        ),
        Mistake("weighted-target", "weighs the target only, and not the whole error", _weighted_target),
        Mistake("along-the-next", "moves along the features of the next pair", _along_the_next),
        Mistake(
            "action-taken",
            "bootstraps from the action that was taken next, and not from the best one",
            _with_next(_taken),
        ),
        Mistake(
            "mean-for-maximum",
            "bootstraps from the mean over the actions",
            _with_next(lambda after, data: after.mean(axis=1)),
        ),
        Mistake(
            "largest-in-size",
            "bootstraps from the value that is largest in size, also when it is negative",
            _with_next(lambda after, data: after[np.arange(len(after)), np.abs(after).argmax(axis=1)]),
        ),
        Mistake("sign", "steps the wrong way", lambda w, batch, gamma, alpha: batch_step(w, batch, gamma, -alpha)),
        Mistake(
            "sum-for-mean",
            "adds the transitions up and does not average them",
            lambda w, batch, gamma, alpha: batch_step(w, batch, gamma, alpha * len(batch["reward"])),
        ),
        Mistake("lost-reward", "loses the reward of a step that ends the episode", _lost_reward),
        Mistake("one-by-one", "changes the weights within the batch: later targets see the new ones", _one_by_one),
    ),
)


# ---- 7: the average learner


@functools.lru_cache(maxsize=8)
def _draws(second, run, many=5000, steps=20_000):
    rng = np.random.default_rng(run)
    return np.array([np.count_nonzero(rng.random(steps) < second) for _ in range(many)])


def weights_at_the_end(second, run, alpha, many=5000, steps=20_000):
    """Return the logarithms of the weights that the loop in the notebook ends with."""
    seconds = _draws(second, run, many, steps)
    return (steps - seconds) * math.log(1 + 0.8 * alpha) + seconds * math.log(1 - 0.4 * alpha)


def _above(second, run, alpha=0.15):
    return int((weights_at_the_end(second, run, alpha) > 0).sum())


def spoken(numbers):
    """Return what an oral check may ask about the run of question 7, and what is right."""
    own = numbers["second"], numbers["run"]
    read = [
        f"alpha = {a}: {_above(*own, a)} above 1, median {np.exp(np.median(weights_at_the_end(*own, a))):.1e}"
        for a in (0.02, 0.15, 0.5)
    ]
    return [
        (
            "Read me your three lines. Some learners would have to be very large for the average to be right: why do "
            "you see none in the third line?",
            f"{'; '.join(read)}. They are too rare for 5000 learners: the average is carried by draws with far more "
            "first states than usual.",
        ),
    ]


def _counted(value, second, run):
    known = [(None, _above(second, run)), ("below", 5000 - _above(second, run))]
    known += [("other-step-size", _above(second, run, alpha)) for alpha in (0.02, 0.5)]
    return runs.nearest(value, known, within=0, otherwise="not-yours")


LONG = Value(
    "function-approximation-average-learner",
    _above,
    (
        Mistake("below", "That is how many ended below", lambda *own: 5000 - _above(*own)),
        Mistake("other-step-size", "That is from a line of another step size", lambda *own: _above(*own, 0.5)),
        Mistake(
            "not-yours",
            "That is not what your run shows. Run the cell with your own name in it, and read the second line",
            lambda second, run: _above(second, run + 1),
        ),
    ),
    judge=_counted,
    draw=lambda rng, **given: (given["second"], given["run"]),
)


def _accept(w, batch, gamma, alpha):
    names = ("features", "reward", "next_features", "ended", "weight")
    features, reward, following, ended, weight = border.columns("batch", batch, names)
    features = border.numbers("features", features, None, None)
    n, k = features.shape
    following = border.numbers("next_features", following, n, None, k)
    # Optional, since a right step does not read it; without it all look as if the first action had been taken.
    taken = border.numbers("next_action", batch.get("next_action", np.zeros(n)), n)
    if not np.isin(taken, np.arange(following.shape[1])).all():
        raise ValueError(f"next_action must hold whole numbers from 0 to {following.shape[1] - 1}")
    data = {"features": features, "reward": border.numbers("reward", reward, n), "next_features": following}
    data |= {"next_action": taken.astype(int), "ended": border.flags("ended", ended, n)}
    data |= {"weight": border.numbers("weight", weight, n)}
    gamma, alpha = border.number("gamma", gamma, 0, 1), border.number("alpha", alpha)
    return border.numbers("w", w, k), data, gamma, alpha


BUG = border.bordered(BUG, _accept)

EXERCISES = (GROWTH, SAFE, CRITICAL, STEPS, REWARD, BUILD, BUG, LONG)
