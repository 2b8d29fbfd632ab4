"""The graded questions of chapter 1: their numbers, their right answers, and the mistakes that are foreseen.

The text of the questions is in `coursework/source`; the exercises for practice come with the package. Nothing that is
here may reach a student: not by the release, not by the site, not by the wheel.
"""

import functools
import math

import numpy as np
from grader import border, draws
from scipy.signal import lfilter

from divergence_notes import bellman
from divergence_notes.grading import Choice, FindTheBug, Function, Mistake, Value
from divergence_notes.grading.bellman import ending_mdp
from divergence_notes.grading.comparison import numbers_of

OWN = ("end", "factor", "run")
"""The numbers that are drawn for each student."""


RETURNS = '''def returns(rewards, ended, gamma, after):
    """Return the discounted sum of rewards from each step to the end of its episode."""
    found, total = [], after
    for reward, end in zip(reversed(rewards), reversed(ended)):
        if end:
            total = 0.0
        total = reward + gamma * total
        found.append(total)
    return found[::-1]
'''
"""The program of question 5, as it should be."""
EDGES = {
    "cut": (3, "    found, total = [], 0.0", [[1.0], [False], 0.5, 2.0]),
    "last": (5, "        if end and found:", [[1.0], [True], 0.5, 2.0]),
    "unpaid": (5, "        if end and reward:", [[0.0, 1.0], [True, False], 0.5, 2.0]),
}
"""Lines that make it wrong at an edge only: their numbers, what they say, and arguments with which it shows."""


def handed_out(edge):
    """Return the program with one of its lines made wrong."""
    number, wrong, _ = EDGES[edge]
    lines = RETURNS.splitlines()
    return "\n".join([*lines[: number - 1], wrong, *lines[number:]]) + "\n"


def parameters(rng):
    """Draw the numbers of an edition."""
    return {
        "gamma": round(float(rng.uniform(0.9, 0.98)), 3),
        "end": round(float(rng.uniform(0.1, 0.3)), 2),
        "factor": int(rng.integers(50, 500)),
        "run": int(rng.integers(1, 1_000_000)),
        "code": handed_out(list(EDGES)[rng.integers(len(EDGES))]),
    }


def _rows(mdp):
    return mdp.transitions.reshape(*mdp.R.shape, mdp.n_states)


def _whole(mdp):
    """Return the rows of a process that goes on in state 0 where it should end."""
    rows = _rows(mdp).copy()
    rows[:, :, 0] += 1 - rows.sum(axis=2)
    return rows


def _soft(Q, tau):
    top = Q.max(axis=1)
    return top + tau * np.log(np.exp((Q - top[:, None]) / tau).sum(axis=1))


def _boltzmann(Q, tau):
    chance = np.exp((Q - Q.max(axis=1, keepdims=True)) / tau)
    return (chance * Q).sum(axis=1) / chance.sum(axis=1)


TAUS = 0.002, 0.5, 1.5


def _with_tau(rng):
    """Draw a table, a process and a tau; where that is small, each state has another action as good as its best one.

    There the soft maximum is not the largest value, although tau is small; each tau comes up in every class.
    """
    tau, mdp = TAUS[draws.nth(rng) % len(TAUS)], ending_mdp(rng)
    Q = 3 * rng.standard_normal(mdp.R.shape)
    if tau < 0.01:
        first, second = np.argsort(Q, axis=1).T[[-1, -2]]
        at = range(mdp.n_states)
        Q[at, second] = Q[at, first] - tau * rng.choice([0, 1], size=mdp.n_states)
    return Q, mdp, tau


SOFT = Function(
    "bellman-soft-backup",
    lambda Q, mdp, tau: mdp.R + mdp.gamma * _rows(mdp) @ _soft(Q, tau),
    (
        Mistake(
            "through-the-end",
            "Your operator bootstraps after a step that ends the episode",
            lambda Q, mdp, tau: mdp.R + mdp.gamma * _whole(mdp) @ _soft(Q, tau),
        ),
        Mistake(
            "hard-maximum",
            "That is the hard maximum: tau plays no part in it",
            lambda Q, mdp, tau: bellman.optimality_backup(Q, mdp),
        ),
        Mistake(
            "no-gamma",
            "What comes after the step is not discounted",
            lambda Q, mdp, tau: mdp.R + _rows(mdp) @ _soft(Q, tau),
        ),
        Mistake(
            "mean-for-sum",
            "You average the exponentials where the text adds them up: tau log(number of actions) is missing",
            lambda Q, mdp, tau: mdp.R + mdp.gamma * _rows(mdp) @ (_soft(Q, tau) - tau * np.log(mdp.n_actions)),
        ),
        Mistake(
            "no-tau-in-front",
            "The factor tau in front of the logarithm is missing",
            lambda Q, mdp, tau: mdp.R + mdp.gamma * _rows(mdp) @ (_soft(Q, tau) / tau),
        ),
        Mistake(
            "boltzmann-average",
            "That is the average of Q under the softmax, and not the logarithm of a sum; it is no contraction",
            lambda Q, mdp, tau: mdp.R + mdp.gamma * _rows(mdp) @ _boltzmann(Q, tau),
        ),
    ),
    draw=_with_tau,
)


def _in_place(Q, mdp, *, rows=None, gamma=None, order=1):
    rows, gamma, new = _rows(mdp) if rows is None else rows, mdp.gamma if gamma is None else gamma, Q.copy()
    for s in range(mdp.n_states)[::order]:
        new[s] = mdp.R[s] + gamma * rows[s] @ new.max(axis=1)
    return new


def _with_table(rng):
    mdp = ending_mdp(rng)
    return 3 * rng.standard_normal(mdp.R.shape), mdp


SWEEP = Function(
    "bellman-in-place-sweep",
    _in_place,
    (
        Mistake(
            "old-values",
            "You use the old table throughout; a state should see the new rows of those before it",
            lambda Q, mdp: bellman.optimality_backup(Q, mdp),
        ),
        Mistake("backwards", "You go from the last state to the first", lambda Q, mdp: _in_place(Q, mdp, order=-1)),
        Mistake(
            "through-the-end",
            "Your sweep bootstraps after a step that ends the episode",
            lambda Q, mdp: _in_place(Q, mdp, rows=_whole(mdp)),
        ),
        Mistake("no-gamma", "What comes after the step is not discounted", lambda Q, mdp: _in_place(Q, mdp, gamma=1)),
    ),
    draw=_with_table,
)


def _sweeps(rate, factor):
    return math.ceil(math.log(factor) / -math.log(rate))


def _numbers(rng, **given):
    return given["gamma"], given["end"], given["factor"]


PATIENCE = Value(
    "bellman-sweeps-for-ever",
    lambda gamma, end, factor: _sweeps(gamma, factor),
    (
        Mistake(
            "one-too-few",
            "After that many sweeps the error is still a little too large: round up",
            lambda gamma, end, factor: _sweeps(gamma, factor) - 1,
        ),
        Mistake(
            "horizon",
            "That is the horizon 1 / (1 - gamma), which does not know how small the error is to be",
            lambda gamma, end, factor: round(1 / (1 - gamma)),
        ),
        Mistake(
            "with-the-end",
            "This game never ends: its only leak is the discount",
            lambda gamma, end, factor: _sweeps(gamma * (1 - end), factor),
        ),
    ),
    draw=_numbers,
)

ENDING = Value(
    "bellman-sweeps-with-an-end",
    lambda gamma, end, factor: _sweeps(gamma * (1 - end), factor),
    (
        Mistake(
            "without-the-end",
            "You forgot that what comes after a step counts only if the game goes on",
            lambda gamma, end, factor: _sweeps(gamma, factor),
        ),
        Mistake(
            "without-gamma",
            "You forgot the discount: both leaks act at every step",
            lambda gamma, end, factor: _sweeps(1 - end, factor),
        ),
        Mistake(
            "sum-of-leaks",
            "The two leaks multiply: gamma (1 - p), and not gamma - p",
            lambda gamma, end, factor: _sweeps(gamma - end, factor),
        ),
        Mistake(
            "chance-of-ending",
            "The game goes on with chance 1 - p, and not p",
            lambda gamma, end, factor: _sweeps(gamma * end, factor),
        ),
    ),
    draw=_numbers,
)

WHY = Choice(
    "bellman-why-unlucky",
    "B",
    (
        Mistake("noise", "There is no chance in a sweep: it computes expectations", "A"),
        Mistake("no-contraction", "The sweep contracts for every reward; rewards only move the fixed point", "C"),
        Mistake("greedy", "The greedy action may change from sweep to sweep, and the bound holds all the same", "D"),
    ),
)


def _edge(code):
    return next(EDGES[edge] for edge in EDGES if handed_out(edge) == code)


def _program(code):
    space = {}
    exec(code, space)  # a program of ours
    return space["returns"]


def _point_out(value, code):
    line, rewards, ended, gamma, after = value
    if not 0 < len(rewards) == len(ended) <= 1000:
        return "two-lengths"
    line, gamma, after = (float(numbers_of(number, ())) for number in (line, gamma, after))
    rewards, ended = (numbers_of(row, (len(rewards),)).tolist() for row in (rewards, ended))
    if not (0 <= gamma <= 1 and set(ended) <= {0.0, 1.0}):
        return "Gamma must be between 0 and 1, and each entry of `ended` True or False"
    given = rewards, [bool(end) for end in ended], gamma, after
    if np.allclose(_program(code)(*given), _program(RETURNS)(*given), rtol=1e-9, atol=1e-12):
        return "agrees"
    return None if line == _edge(code)[0] else "other-line"


WHERE = Value(
    "bellman-where-it-lies",
    lambda code: [_edge(code)[0], *_edge(code)[2]],
    (
        Mistake(
            "agrees",
            "With your arguments the program returns what it should",
            lambda code: [_edge(code)[0], [1.0, 2.0], [False, False], 0.9, 0.0],
        ),
        Mistake(
            "other-line",
            "Your arguments show that the program is wrong, and the line that you name is right",
            lambda code: [7, *_edge(code)[2]],
        ),
        Mistake(
            "two-lengths",
            "There must be one entry of `ended` for each reward, at least one and at most 1000",
            lambda code: [_edge(code)[0], [1.0, 2.0], [True], 0.9, 1.0],
        ),
    ),
    judge=_point_out,
    draw=lambda rng, **given: (given["code"],),
)


@functools.lru_cache(maxsize=8)
def farthest(gamma, end, run, alpha=0.01, steps=40_000_000):
    """Return the root mean square of Q in the run of question 6, its largest size, and the step of it, from 1.

    It is what the loop in the notebook computes, as a filter of the rewards.
    """
    rng, shrink = np.random.default_rng(run), 1 - alpha * (1 - gamma * (1 - end))
    memory, squares, size, when, part = [0.0], 0.0, 0.0, 0, 1_000_000
    for before in range(0, steps, part):
        values, memory = lfilter([alpha], [1, -shrink], 2.0 * rng.integers(0, 2, part) - 1, zi=memory)
        squares += float(values @ values)
        place = int(np.abs(values).argmax())
        if abs(values[place]) > size:
            size, when = float(abs(values[place])), before + place + 1
    return math.sqrt(squares / steps), size, when


def spoken(numbers):
    """Return what an oral check may ask about the run of question 6, and what is right."""
    lines = {alpha: farthest(*_of_the_run(None, **numbers), alpha) for alpha in (0.1, 0.01, 0.001)}
    read = "; ".join(f"alpha = {a}: {m:.4f}, {size:.4f} at step {when}" for a, (m, size, when) in lines.items())
    fourth = lines[0.001][0] / math.sqrt(10)
    return [
        (
            "Read me the three lines of your run. What would a fourth one show, with alpha = 0.0001?",
            f"{read}. The fourth: a root mean square of about {fourth:.4f}, if the run is long enough.",
        ),
    ]


def _of_the_run(rng, **given):
    return given["gamma"], given["end"], given["run"]


def _look(value, *run):
    value, (_, size, when) = float(numbers_of(value, ())), farthest(*run)
    if value == when:
        return None
    others = [farthest(*run, alpha)[2] for alpha in (0.1, 0.001)]
    if value in others:
        return "other-step-size"
    if value == when - 1:
        return "from-zero"
    if abs(value - size) < 1e-3:
        return "the-size"
    return "That is not the step of your run. Run the cell with your own name in the notebook, and read its second line"


LONG = Value(
    "bellman-long-run",
    lambda *run: farthest(*run)[2],
    (
        Mistake("from-zero", "Count the first step as 1", lambda *run: farthest(*run)[2] - 1),
        Mistake("other-step-size", "That is from a line of another step size", lambda *run: farthest(*run, 0.1)[2]),
        Mistake("the-size", "That is how large it was, and not when", lambda *run: round(farthest(*run)[1], 4)),
    ),
    judge=_look,
    draw=_of_the_run,
)


def cautious_backup(Q, mdp, epsilon):
    """Return the backup of a player who takes the best action, but a random one with chance epsilon."""
    return mdp.R + mdp.gamma * _rows(mdp) @ _cautious(Q, epsilon)


def _cautious(Q, epsilon):
    return (1 - epsilon) * Q.max(axis=1) + epsilon * Q.mean(axis=1)


def _unless_sure(mdp):
    """Return the rows of a process that goes on in state 0 where it should end for sure."""
    rows = _rows(mdp).copy()
    rows[:, :, 0] += rows.sum(axis=2) == 0
    return rows


def _outside(Q, mdp, epsilon):
    move = np.stack([_rows(mdp) @ Q[:, a] for a in range(mdp.n_actions)])
    return mdp.R + mdp.gamma * ((1 - epsilon) * move.max(axis=0) + epsilon * move.mean(axis=0))


BUG = FindTheBug(
    "bellman-find-the-bug",
    cautious_backup,
    (
        Mistake(
            "through-the-end",
            "bootstraps after a step that ends the episode",
            lambda Q, mdp, epsilon: mdp.R + mdp.gamma * _whole(mdp) @ _cautious(Q, epsilon),
        ),
        Mistake("no-gamma", "does not discount", lambda Q, mdp, epsilon: mdp.R + _rows(mdp) @ _cautious(Q, epsilon)),
        Mistake("maximum-outside", "takes the maximum outside the expectation over the next state", _outside),
        Mistake(
            "epsilon-swapped",
            "is random where it should be greedy",
            lambda Q, mdp, epsilon: cautious_backup(Q, mdp, 1 - epsilon),
        ),
        Mistake("greedy", "never takes a random action", lambda Q, mdp, epsilon: bellman.optimality_backup(Q, mdp)),
        Mistake(
            "reward-discounted",
            "discounts the reward of the step itself",
            lambda Q, mdp, epsilon: mdp.gamma * (mdp.R + _rows(mdp) @ _cautious(Q, epsilon)),
        ),
        Mistake(
            "sign",
            "subtracts what comes after the step",
            lambda Q, mdp, epsilon: 2 * mdp.R - cautious_backup(Q, mdp, epsilon),
        ),
        Mistake(
            "random-among-the-others",
            "takes its random action among the others only",
            lambda Q, mdp, epsilon: cautious_backup(Q, mdp, epsilon * mdp.n_actions / (mdp.n_actions - 1)),
        ),
        Mistake(
            "sure-end",
            "goes on where the episode ends for sure, and only there",
            lambda Q, mdp, epsilon: mdp.R + mdp.gamma * _unless_sure(mdp) @ _cautious(Q, epsilon),
        ),
        Mistake(
            "epsilon-one",
            "is greedy where it should always be random",
            lambda Q, mdp, epsilon: cautious_backup(Q, mdp, epsilon if epsilon < 1 else 0.0),
        ),
        Mistake(
            "best-from-zero",
            "looks for the best action from the value 0 on, and so takes 0 where all values are negative",
            lambda Q, mdp, epsilon: (
                mdp.R + mdp.gamma * _rows(mdp) @ (_cautious(Q, epsilon) + (1 - epsilon) * np.maximum(-Q.max(axis=1), 0))
            ),
        ),
        Mistake(
            "ties-once",
            "takes actions of the same value for one action when it averages",
            lambda Q, mdp, epsilon: (
                mdp.R
                + mdp.gamma
                * _rows(mdp)
                @ ((1 - epsilon) * Q.max(axis=1) + epsilon * np.array([np.unique(row).mean() for row in Q]))
            ),
        ),
    ),
)


def _accept(Q, mdp, epsilon):
    mdp = border.process("mdp", mdp)
    return border.numbers("Q", Q, *mdp.R.shape), mdp, border.number("epsilon", epsilon, 0, 1)


BUG = border.bordered(BUG, _accept)

EXERCISES = (SOFT, SWEEP, PATIENCE, ENDING, WHY, BUG, WHERE, LONG)
