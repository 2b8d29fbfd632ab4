"""The graded questions of chapter 5: their numbers, their right answers, and the mistakes that are foreseen.

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

OWN = ("pairs", "often", "spill", "start", "run")
"""The numbers that are drawn for each student."""


def parameters(rng):
    """Draw the numbers of an edition."""
    return {
        "gamma": round(float(rng.uniform(0.9, 0.97)), 3),
        "pairs": int(rng.integers(40, 160)),
        "often": int(rng.integers(4, 20)),
        "spill": round(float(rng.uniform(0.3, 0.8)), 2),
        "start": round(float(rng.uniform(2, 9)), 1),
        "ceiling": round(float(rng.uniform(0.52, 0.6)), 2),
        "run": int(rng.integers(1, 1_000_000)),
    }


# --- the best division of the data


def _off(kernel):
    return np.abs(kernel) * (1 - np.eye(len(kernel)))


def _own(kernel):
    return np.diag(kernel)[:, None]


def _leading(matrix, solver=np.linalg.eig):
    values, vectors = solver(matrix)
    found = np.abs(vectors[:, np.argmax(values.real)].real)
    return found / found.sum()


def _skewed_kernel(rng):
    n = int(rng.integers(3, 6))
    kernel = rng.uniform(0.2, 1.5, (n, n)) * rng.choice([-1.0, 1.0], (n, n))
    kernel[0, 1] = -abs(kernel[0, 1])  # one that is negative and one that is not: no mistake stays hidden
    kernel[1, 0] = abs(kernel[1, 0])
    np.fill_diagonal(kernel, rng.uniform(0.5, 6, n))
    return (kernel,)


def _one_correction(kernel):
    ratio = (_off(kernel) / _own(kernel)).sum(axis=1)
    return ratio / ratio.sum()


def _unit_length(kernel):
    found = _leading(_off(kernel) / _own(kernel))
    return found / np.linalg.norm(found)


SHARES = Function(
    "heuristics-best-shares",
    lambda kernel: _leading(_off(kernel) / _own(kernel)),
    (
        Mistake(
            "columns",
            "You balance columns: a row holds what moves its pair, a column what the pair moves",
            lambda kernel: _leading((_off(kernel) / _own(kernel)).T),
        ),
        Mistake(
            "wrong-diagonal",
            "You divide by the diagonal entry of the pair that pulls, and not of the pair that is pulled",
            lambda kernel: _leading(_off(kernel) / _own(kernel).T),
        ),
        Mistake(
            "no-diagonal",
            "You balance the pull of the others alone; a pair with a large entry of its own can stand more of it",
            lambda kernel: _leading(_off(kernel)),
        ),
        Mistake(
            "own-among-the-others",
            "You count a pair's own pull among that of the others",
            lambda kernel: _leading(np.abs(kernel)),
        ),
        Mistake(
            "no-absolute-value",
            "Pulls of opposite signs cancel in your rows; the condition adds their sizes",
            lambda kernel: _leading(np.sign(kernel) * _off(kernel) / _own(kernel)),
        ),
        Mistake(
            "one-correction",
            "You give each pair a share in proportion to its row ratio at equal shares; new shares make new ratios",
            _one_correction,
        ),
        Mistake("unit-length", "Your shares have squares that sum to 1; they should sum to 1 themselves", _unit_length),
        Mistake(
            "symmetric-solver",
            "You use a solver for symmetric matrices; divided by its diagonal a kernel is none",
            lambda kernel: _leading(_off(kernel) / _own(kernel), np.linalg.eigh),
        ),
    ),
    draw=_skewed_kernel,
    rtol=1e-5,
)


# --- the first value that cannot be true


def _earned(r_max, gamma, left):
    return r_max * (1 - gamma**left) / (1 - gamma)


def _first(wrong, *, by_pair=False):
    found = np.argwhere(wrong.T) if by_pair else np.argwhere(wrong)
    if not len(found):
        return [-1, -1]
    return [int(k) for k in (found[0][::-1] if by_pair else found[0])]


def _where_largest(values, r_max, gamma, left):
    excess = np.abs(values) / _earned(r_max, gamma, left)
    return [int(k) for k in np.unravel_index(excess.argmax(), excess.shape)] if excess.max() > 1 else [-1, -1]


def _log_of_a_run(rng):
    records, pairs = int(rng.integers(4, 8)), int(rng.integers(3, 7))
    left = rng.choice([1.0, 2.0, 3.0, 6.0, np.inf], pairs)
    gamma, r_max = float(rng.uniform(0.5, 0.95)), float(rng.uniform(0.5, 3))
    top = float(rng.choice([0.95, 2.0, 8.0], p=[0.1, 0.5, 0.4]))
    height = np.sort(rng.uniform(0.05, top, (records, pairs)), axis=0)
    height += 0.01 * (np.abs(height - 1) < 0.005)  # nothing within rounding of its bound
    sign = rng.choice([-1.0, 1.0], (1, pairs)) * rng.choice([1.0, 1.0, -1.0], (records, 1))
    return sign * height * _earned(r_max, gamma, left), r_max, gamma, left


FIRST = Function(
    "heuristics-first-false",
    lambda values, r_max, gamma, left: _first(np.abs(values) > _earned(r_max, gamma, left)),
    (
        Mistake(
            "no-end",
            "You allow every pair the rewards of a game that never ends",
            lambda values, r_max, gamma, left: _first(np.abs(values) > r_max / (1 - gamma)),
        ),
        Mistake(
            "one-too-many",
            "You count one reward too many",
            lambda values, r_max, gamma, left: _first(np.abs(values) > _earned(r_max, gamma, left + 1)),
        ),
        Mistake(
            "one-too-few",
            "You count one reward too few: the step itself is paid",
            lambda values, r_max, gamma, left: _first(np.abs(values) > _earned(r_max, gamma, left - 1)),
        ),
        Mistake(
            "no-discount",
            "You add the rewards up without discounting them",
            lambda values, r_max, gamma, left: _first(np.abs(values) > r_max * left),
        ),
        Mistake(
            "one-reward",
            "You compare a value with one reward; it is a sum of many",
            lambda values, r_max, gamma, left: _first(np.abs(values) > r_max),
        ),
        Mistake(
            "no-absolute-value",
            "A value far below zero is as false as one far above",
            lambda values, r_max, gamma, left: _first(values > _earned(r_max, gamma, left)),
        ),
        Mistake(
            "largest",
            "That is where the bound is exceeded by the largest factor, and not where it is exceeded first",
            _where_largest,
        ),
        Mistake(
            "pair-first",
            "You go through the pairs and then through the records: another pair may have been false before",
            lambda values, r_max, gamma, left: _first(np.abs(values) > _earned(r_max, gamma, left), by_pair=True),
        ),
    ),
    draw=_log_of_a_run,
    instances=30,
)


# --- predictions


def _overlap(gamma, weight):
    return (1 - gamma) / (1 + gamma) / weight


ENTRY = Value(
    "heuristics-largest-entry",
    lambda gamma, pairs, often: _overlap(gamma, pairs - 2 + often),
    (
        Mistake(
            "equal-shares",
            "That would be right if all pairs were sampled equally often",
            lambda gamma, pairs, often: _overlap(gamma, pairs - 1),
        ),
        Mistake(
            "easy-row",
            "That is what the row of the favourite allows; every row must hold, and the others are harder",
            lambda gamma, pairs, often: _overlap(gamma, (pairs - 1) / often),
        ),
        Mistake(
            "counts-itself",
            "You count the pair among those that pull on it",
            lambda gamma, pairs, often: _overlap(gamma, pairs - 1 + often),
        ),
        Mistake(
            "no-one-plus-gamma",
            "What the others pull acts twice, by their own values and by their targets: 1 + gamma is missing",
            lambda gamma, pairs, often: (1 - gamma) / (pairs - 2 + often),
        ),
        Mistake(
            "divided-by-n",
            "You divide by the number of pairs once more; that is a row ratio, and not an entry",
            lambda gamma, pairs, often: _overlap(gamma, pairs * (pairs - 2 + often)),
        ),
    ),
    draw=lambda rng, **given: (given["gamma"], given["pairs"], given["often"]),
    rtol=1e-3,
)


def _sampled(gamma, spill, start):
    return (1 + gamma * start) / (1 - gamma * spill)


UNSEEN = Value(
    "heuristics-unseen-value",
    lambda gamma, spill, start: start + spill * _sampled(gamma, spill, start),
    (
        Mistake(
            "truth",
            "That is what the pair is worth; without data nothing tells the update so",
            lambda gamma, spill, start: 1 / (1 - gamma),
        ),
        Mistake(
            "frozen",
            "That holds for a table; here the pair is dragged along by the one that is sampled",
            lambda gamma, spill, start: start,
        ),
        Mistake(
            "start-forgotten",
            "That is where it ends when both values start at zero: this update never forgets its start",
            lambda gamma, spill, start: spill * _sampled(gamma, spill, 0),
        ),
        Mistake(
            "the-sampled-one",
            "That is the value of the pair that is sampled",
            lambda gamma, spill, start: _sampled(gamma, spill, start),
        ),
        Mistake(
            "move-for-value",
            "That is how far the value moves; it did not start at zero",
            lambda gamma, spill, start: spill * _sampled(gamma, spill, start),
        ),
        Mistake(
            "one-way",
            "You let the sampled pair chase the value that the other had at first; the target moves along with it",
            lambda gamma, spill, start: start + spill * (1 + gamma * start),
        ),
    ),
    draw=lambda rng, **given: (given["gamma"], given["spill"], given["start"]),
    rtol=1e-3,
)

TWINS = Choice(
    "heuristics-twins",
    "B",
    (
        Mistake(
            "data-hurts",
            "The shares of the pairs are what they were, so the update is what it was, entry by entry",
            "A",
        ),
        Mistake(
            "singular",
            "The large matrix is singular, but only for tables that give one pair two different values",
            "C",
        ),
        Mistake("step-size", "Row dominance does not mention the step size", "D"),
    ),
)


# --- a kernel to build


def _three_pairs(apart, towards, own=1.0):
    return np.array([[1, apart, towards], [apart, 1, towards], [towards, towards, own]], dtype=float)


def falls_into_two(gamma):
    """Return the process of the question: three states, one action, all of them lead to the last one."""
    return FiniteMDP(np.tile([[[0.0, 0.0, 1.0]]], (3, 1, 1)), np.zeros((3, 1)), gamma)


def _runs_off(value, gamma, ceiling):
    kernel = numbers_of(value, (3, 3))
    if np.abs(np.diag(kernel) - 1).max() > 1e-6:
        return "diagonal"
    if np.abs(kernel - kernel.T).max() > 1e-6:
        return "not-symmetric"
    if np.abs(kernel - np.diag(np.diag(kernel))).max() > ceiling + 1e-6:
        return "entry-too-large"
    if np.linalg.eigvalsh(kernel).min() < -1e-6:
        return "no-kernel"
    update = updates.KernelUpdate(falls_into_two(gamma), kernel=kernel, weights=[0.5, 0.5, 0.0], alpha=0.1)
    slope = update.jacobian(np.zeros(3, dtype=int))
    return "settles" if np.abs(np.linalg.eigvals(slope)).max() < 1 + 1e-6 else None


KERNEL = Value(
    "heuristics-small-entries",
    lambda gamma, ceiling: _three_pairs(-0.35, 0.5),
    (
        Mistake(
            "settles",
            "With your kernel short steps do not run off: no eigenvalue of the update is larger than 1 in size",
            lambda gamma, ceiling: _three_pairs(0.3, 0.5),
        ),
        Mistake(
            "no-kernel",
            "Your matrix has a negative eigenvalue, and no network has such a kernel",
            lambda gamma, ceiling: _three_pairs(-ceiling, ceiling),
        ),
        Mistake(
            "entry-too-large",
            "An entry off the diagonal is larger than the ceiling allows",
            lambda gamma, ceiling: _three_pairs(0, 0.7),
        ),
        Mistake(
            "diagonal",
            "An entry of the diagonal is not 1",
            lambda gamma, ceiling: _three_pairs(0, 0.7, own=4.0),
        ),
        Mistake(
            "not-symmetric",
            "Your matrix is not symmetric: a network moves i by training j as far as j by training i",
            lambda gamma, ceiling: _three_pairs(-0.35, 0.5) * [[1, 1, 0], [1, 1, 0], [1, 1, 1]],
        ),
    ),
    draw=lambda rng, **given: (given["gamma"], given["ceiling"]),
    judge=_runs_off,
)


# --- find the bug


def _pulls(kernel, weights):
    kernel, weights = np.asarray(kernel, dtype=float), np.asarray(weights, dtype=float)
    itself = np.diag(kernel) * weights
    return itself, np.abs(kernel) @ weights - itself


def _worst(own, others):
    return float((others[own > 0] / own[own > 0]).max())


def _certified(own, others, gamma):
    return float(((1 + gamma) * others < (1 - gamma) * own).all())


def _alarm(q, r_max, gamma):
    return float(np.abs(q).max() > r_max / (1 - gamma))


def _assembled(pulls):
    def made(kernel, weights, q, r_max, gamma):
        own, others = pulls(np.asarray(kernel, dtype=float), np.asarray(weights, dtype=float))
        return [_worst(own, others), _certified(own, others, gamma), _alarm(q, r_max, gamma)]

    return made


dashboard = _assembled(_pulls)


def _replaced(position, change):
    def made(kernel, weights, q, r_max, gamma):
        three = dashboard(kernel, weights, q, r_max, gamma)
        three[position] = float(change(*_pulls(kernel, weights), np.asarray(q, dtype=float), r_max, gamma))
        return three

    return made


def _mean_ratio(own, others, q, r_max, gamma):
    return (others[own > 0] / own[own > 0]).mean()


BUG = FindTheBug(
    "heuristics-find-the-bug",
    dashboard,
    (
        Mistake("columns", "adds up columns where it should add up rows", _assembled(lambda K, rho: _pulls(K.T, rho))),
        Mistake(
            "own-among-the-others",
            "counts a pair's own pull among that of the others",
            _assembled(lambda K, rho: (_pulls(K, rho)[0], np.abs(K) @ rho)),
        ),
        Mistake(
            "no-absolute-value",
            "lets entries of opposite signs cancel",
            _assembled(lambda K, rho: (np.diag(K) * rho, K @ rho - np.diag(K) * rho)),
        ),
        Mistake(
            "wrong-diagonal",
            "divides an entry by the diagonal entry of its column",
            _assembled(lambda K, rho: _pulls(K / np.diag(K), rho)),
        ),
        Mistake(
            "no-shares",
            "takes all pairs for sampled equally often",
            _assembled(lambda K, rho: _pulls(K, np.full(len(K), 1 / len(K)))),
        ),
        Mistake(
            "own-share-forgotten",
            "counts the shares of the others, but not that of the pair itself",
            _assembled(lambda K, rho: (np.diag(K) * (rho > 0), _pulls(K, rho)[1])),
        ),
        Mistake(
            "mean-row", "reports the mean over the rows where it should report the worst", _replaced(0, _mean_ratio)
        ),
        Mistake(
            "skips-the-unsampled",
            "certifies although a pair has no data",
            _replaced(1, lambda own, others, q, r_max, gamma: _certified(own[own > 0], others[own > 0], gamma)),
        ),
        Mistake(
            "not-strict",
            "certifies at equality, where the bound is 1 and not below",
            _replaced(1, lambda own, others, q, r_max, gamma: ((1 + gamma) * others <= (1 - gamma) * own).all()),
        ),
        Mistake(
            "no-one-plus-gamma",
            "certifies without the factor 1 + gamma",
            _replaced(1, lambda own, others, q, r_max, gamma: (others < (1 - gamma) * own).all()),
        ),
        Mistake(
            "alarm-without-gamma",
            "sounds the alarm at the largest reward, and not at the largest sum of rewards",
            _replaced(2, lambda own, others, q, r_max, gamma: np.abs(q).max() > r_max),
        ),
        Mistake(
            "alarm-above-only",
            "is silent about values far below zero",
            _replaced(2, lambda own, others, q, r_max, gamma: q.max() > r_max / (1 - gamma)),
        ),
    ),
)


# --- hardly any data


@functools.lru_cache(maxsize=32)
def near(gamma, spill, run, chance=1e-4, alpha=0.1):
    """Return the step at which the loop in the notebook ends, from 1.

    Between two draws of state 2 its updates are a geometric series: the TD error of state 1 shrinks by one factor.
    """
    rng, goal, shrink = np.random.default_rng(run), 0.9 / (1 - gamma), 1 - alpha * (1 - gamma * spill)
    first, second, block = 0.0, 0.0, 0
    while True:
        begin = block + 1
        draws = begin + np.flatnonzero(rng.random(100_000) < chance)
        block += 100_000
        for draw in (*draws.tolist(), block + 1):
            error = 1 + gamma * second - first
            path = second + alpha * spill * error * (1 - shrink ** np.arange(draw - begin + 1)) / (1 - shrink)
            found = begin - 1 + np.flatnonzero(path > goal)
            if len(found[found > 100_000]):
                return int(found[found > 100_000][0])
            first, second = first + (path[-1] - second) / spill, float(path[-1])
            begin = draw + 1
            if draw <= block:
                error = 1 + gamma * second - second
                first, second = first + alpha * spill * error, second + alpha * error
                if second > goal and draw > 100_000:
                    return draw


def spoken(numbers):
    """Return what an oral check may ask about the run of question 7, and what is right."""
    own = numbers["gamma"], numbers["spill"], numbers["run"]
    read = "; ".join(f"chance {chance:.0e}: near the truth at step {near(*own, chance)}" for chance in (1e-3, 1e-4))
    return [
        (
            "Read me your lines. What would a fourth one show, with a chance of a millionth?",
            f"{read}. The fourth: about {100 * near(*own):.1g} steps, a mean squared TD error that is smaller again, "
            "and a value after 100,000 steps that has not moved since the first hundred.",
        ),
    ]


def _late(value, gamma, spill, run):
    right, other = near(gamma, spill, run), near(gamma, spill, run, 1e-3)
    known = [(None, right), ("other-chance", other), ("extrapolated", 10 * other)]
    # where it comes near slowly, another machine may be a few steps off
    return runs.nearest(value, known, within=100, otherwise="not-yours")


LONG = Value(
    "heuristics-hardly-any-data",
    near,
    (
        Mistake("other-chance", "That is from the line of another chance", lambda *own: near(*own, 1e-3)),
        Mistake(
            "extrapolated",
            "That is ten times what the first line says. It is about right, and the question is what your run shows",
            lambda *own: 10 * near(*own, 1e-3),
        ),
        Mistake(
            "not-yours",
            "That is not what your run shows. Run the cell with your own name in it, and read the second line",
            lambda gamma, spill, run: near(gamma, spill, run + 1),
        ),
    ),
    judge=_late,
    draw=lambda rng, **given: (given["gamma"], given["spill"], given["run"]),
)


def _accept(kernel, weights, q, r_max, gamma):
    weights = border.numbers("weights", weights, None)
    kernel = border.numbers("kernel", kernel, len(weights), len(weights))
    if not (np.diag(kernel) > 0).all():
        raise ValueError("the diagonal of kernel must be positive")
    if not ((weights >= 0).all() and weights.any()):
        raise ValueError("weights must not be negative, and one must be positive")
    q = border.numbers("q", q, None)
    gamma = border.number("gamma", gamma, 0, 1)
    return kernel, weights, q, border.number("r_max", r_max), gamma


BUG = border.bordered(BUG, _accept)

EXERCISES = (SHARES, FIRST, ENTRY, UNSEEN, TWINS, KERNEL, BUG, LONG)
"""The exercises of the chapter on reading the conditions."""
