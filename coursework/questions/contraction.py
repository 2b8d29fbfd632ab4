"""The graded questions of chapter 4: their numbers, their right answers, and the mistakes that are foreseen.

The text of the questions is in `coursework/source`; the exercises for practice come with the package. Nothing that is
here may reach a student: not by the release, not by the site, not by the wheel.
"""

import functools
import itertools

import numpy as np
from grader import border, draws, runs

from divergence_notes import bellman, contraction, updates
from divergence_notes.grading import Choice, FindTheBug, Function, Mistake, Value
from divergence_notes.grading.comparison import numbers_of
from divergence_notes.mdp import FiniteMDP, random_mdp

OWN = ("gamma", "share", "run")
"""The numbers that are drawn for each student."""


def parameters(rng):
    """Draw the numbers of an edition."""
    return {
        "gamma": round(float(rng.uniform(0.55, 0.9)), 2),
        "share": round(float(rng.uniform(0.2, 0.4)), 2),
        "run": int(rng.integers(1, 1_000_000)),
    }


def _small_game(rng, gamma):
    """Return a process with so few policies that one can try them all; one pair ends for sure, and some may."""
    n_states, n_actions = [(2, 2), (2, 3), (3, 2)][rng.integers(3)]
    whole = random_mdp(n_states, n_actions, gamma=gamma, branching=n_states, rng=rng)
    goes_on = rng.choice([0.5, 1.0], size=(n_states, n_actions))
    goes_on[[0, 1], [0, 0]] = 0.0, 1.0
    return FiniteMDP(whole.P * goes_on[:, :, None], whole.R, gamma)


def _endless(mdp):
    """Return a process that goes on in state 0 where it should end."""
    moves = mdp.P.copy()
    moves[:, :, 0] += 1 - moves.sum(axis=2)
    return FiniteMDP(moves, mdp.R, mdp.gamma)


# --- the modulus of a wary update


def _with_wariness(rng):
    mdp = _small_game(rng, float(rng.uniform(0.3, 0.95)))
    n = mdp.n_pairs
    half = rng.standard_normal((n, n))
    kernel = np.eye(n) + 0.3 * half @ half.T / n
    return mdp, kernel, rng.dirichlet(np.full(n, 3.0)), float(rng.uniform(0.5, 2.0)), float(rng.uniform(0.15, 0.85))


def _wary(mdp, kernel, weights, alpha, wariness):
    """Return the modulus row by row: each row chooses a best and a worst action of each next state on its own."""
    flow = alpha * np.asarray(kernel) * weights
    still = (np.eye(mdp.n_pairs) - flow).reshape(mdp.n_pairs, mdp.n_states, mdp.n_actions)
    into = mdp.gamma * (flow @ mdp.transitions)[:, :, None]
    best = np.abs(still + (1 - wariness) * into) - np.abs(still)
    worst = np.abs(still + wariness * into) - np.abs(still)
    gain = best[:, :, :, None] + worst[:, :, None, :]
    gain[:, :, range(mdp.n_actions), range(mdp.n_actions)] = -np.inf
    return float((np.abs(still).sum(axis=(1, 2)) + gain.max(axis=(2, 3)).sum(axis=1)).max())


def _pieces(mdp, kernel, weights, alpha, wariness):
    """Return the matrix of every linear piece of the wary update."""
    choices = itertools.product(itertools.permutations(range(mdp.n_actions), 2), repeat=mdp.n_states)
    made = []
    for choice in choices:
        goes = np.zeros((mdp.n_states, mdp.n_actions))
        for s, (top, bottom) in enumerate(choice):
            goes[s, top], goes[s, bottom] = 1 - wariness, wariness
        chain = (mdp.transitions[:, :, None] * goes).reshape(mdp.n_pairs, mdp.n_pairs)
        made.append(np.eye(mdp.n_pairs) - alpha * (kernel * weights) @ (np.eye(mdp.n_pairs) - mdp.gamma * chain))
    return np.array(made)


def _exact_modulus(mdp, kernel, weights, alpha):
    """Return the exact modulus of the kernel update with the numbers of an instance."""
    return contraction.exact_modulus(updates.KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=alpha))


def _mixed_up(mdp, kernel, weights, alpha, wariness):
    """Return what comes out with the share of the row's pair in the place of that of the column's."""
    return _wary(mdp, np.asarray(kernel) * weights[:, None] / weights, weights, alpha, wariness)


WARY = Function(
    "contraction-wary-modulus",
    _wary,
    (
        Mistake(
            "one-action",
            "You let one action be the best and the worst of a state at once, as if the wariness were 0",
            lambda mdp, kernel, weights, alpha, wariness: _exact_modulus(mdp, kernel, weights, alpha),
        ),
        Mistake(
            "eigenvalues",
            "That is the largest eigenvalue of a piece; the sup norm can stretch by more",
            lambda *args: np.abs(np.linalg.eigvals(_pieces(*args))).max(),
        ),
        Mistake(
            "columns",
            "You add up columns, which measures the sum of all differences; the sup norm asks for rows",
            lambda *args: np.abs(_pieces(*args)).sum(axis=1).max(),
        ),
        Mistake(
            "no-absolute-values",
            "You add up the entries of a row with their signs, so that they cancel",
            lambda *args: _pieces(*args).sum(axis=2).max(),
        ),
        Mistake(
            "euclidean",
            "That is how far a piece can stretch the Euclidean norm",
            lambda *args: np.linalg.norm(_pieces(*args), ord=2, axis=(1, 2)).max(),
        ),
        Mistake("share-of-the-row", "You weigh a pull with the share of the pair that is pulled", _mixed_up),
        Mistake(
            "through-the-end",
            "You let a step that ends the episode lead on",
            lambda mdp, *rest: _wary(_endless(mdp), *rest),
        ),
        Mistake(
            "row-sum-bound",
            "That is a bound that never looks at the transitions, and not the modulus",
            lambda mdp, kernel, weights, alpha, wariness: contraction.row_sum_bound(
                kernel, weights, alpha=alpha, gamma=mdp.gamma
            ),
        ),
    ),
    draw=_with_wariness,
)


# --- when to stop


def _with_accuracy(rng):
    easy, harder, hopeless = (0.06, 0.3, 0.9), (0.12, 0.3, 0.9), (1.5, 1.02, 9.0)
    coupling, lowest, highest = [easy, harder, hopeless, harder][rng.integers(4)]
    while True:
        mdp = _small_game(rng, float(rng.uniform(0.3, 0.7)))
        n = mdp.n_pairs
        leak = np.triu(rng.uniform(-coupling, coupling, size=(n, n)), 1)
        numbers = (
            np.eye(n) + leak + leak.T,
            rng.dirichlet(np.full(n, 60.0)),
            round(float(rng.uniform(0.5, 0.8)) * n, 2),
        )
        if lowest < _exact_modulus(mdp, *numbers) < highest:
            return mdp, *numbers, float(10 ** rng.uniform(-3, -0.5))


def _stop(mdp, kernel, weights, alpha, accuracy, *, rate=None, error, silent=True):
    """Return after how many updates the bound `error(L, k, last, first, Q)` is small enough, 0 if there is no bound."""
    L = _exact_modulus(mdp, kernel, weights, alpha) if rate is None else rate
    if silent and L >= 1:
        return 0
    flow, Q, first = alpha * np.asarray(kernel) * weights, np.zeros(mdp.n_pairs), None
    for k in range(1, 3000):
        backed_up = mdp.R.ravel() + mdp.gamma * mdp.transitions @ Q.reshape(mdp.R.shape).max(axis=1)
        last = flow @ (backed_up - Q)
        Q = Q + last
        size = np.abs(last).max()
        first = size if first is None else first
        if error(L, k, size, first, Q) <= accuracy:
            return k
    return 3000


def _proved(L, k, last, first, Q):
    return L / (1 - L) * last


def _by_row_sums(mdp, kernel, weights, alpha, accuracy):
    rate = contraction.row_sum_bound(kernel, weights, alpha=alpha, gamma=mdp.gamma)
    return _stop(mdp, kernel, weights, alpha, accuracy, rate=rate, error=_proved)


def _by_the_truth(mdp, *rest):
    target = bellman.policy_iteration(mdp).Q.ravel()
    return _stop(mdp, *rest, error=lambda L, k, last, first, Q: np.abs(Q - target).max())


STOP = Function(
    "contraction-when-to-stop",
    lambda *args: _stop(*args, error=_proved),
    (
        Mistake(
            "short-step",
            "You stop at a short step; a slow update takes short steps while it is far away",
            lambda *args: _stop(*args, error=lambda L, k, last, first, Q: last),
        ),
        Mistake(
            "one-update-old",
            "Your bound is for the table before the last update; the newest one is closer by a factor L",
            lambda *args: _stop(*args, error=lambda L, k, last, first, Q: last / (1 - L)),
        ),
        Mistake(
            "first-step-only",
            "Your bound uses the first step and the rate; the last step knows more",
            lambda *args: _stop(*args, error=lambda L, k, last, first, Q: L**k / (1 - L) * first),
        ),
        Mistake(
            "row-sum-bound",
            "Your rate is the bound that never looks at the transitions; the modulus is smaller",
            _by_row_sums,
        ),
        Mistake(
            "compares-with-the-answer",
            "You measure the distance to the optimal table, which one does not know while one looks for it",
            _by_the_truth,
        ),
        Mistake(
            "one-too-few",
            "You are one short: the update after which you stop counts too",
            lambda *args: max(_stop(*args, error=_proved) - 1, 0),
        ),
        Mistake(
            "no-silence",
            "With a modulus of 1 or more nothing is proved, and you say something all the same",
            lambda *args: _stop(*args, error=_proved, silent=False),
        ),
    ),
    draw=_with_accuracy,
    instances=30,
)


# --- the critical coupling


def _gamma_and_share(rng, **given):
    return given["gamma"], given["share"]


UNKNOWN = Value(
    "contraction-critical-coupling",
    lambda gamma, share: (1 - gamma) / (1 + gamma) * share / (1 - share),
    (
        Mistake(
            "share-of-the-row",
            "A pull is weighed with the share of the pair that it comes from, so the shares do not cancel",
            lambda gamma, share: (1 - gamma) / (1 + gamma),
        ),
        Mistake(
            "the-easier-row",
            "That is where the row of the frequent pair fails; every row has to hold",
            lambda gamma, share: (1 - gamma) / (1 + gamma) * (1 - share) / share,
        ),
        Mistake(
            "no-discount",
            "The diagonal must win by a wide margin, which depends on gamma",
            lambda gamma, share: share / (1 - share),
        ),
        Mistake(
            "half-of-the-factor",
            "The pulls from elsewhere count 1 + gamma times: once in the table and once in its backup",
            lambda gamma, share: (1 - gamma) * share / (1 - share),
        ),
    ),
    draw=_gamma_and_share,
    rtol=5e-4,
)

KNOWN = Value(
    "contraction-critical-coupling-known-game",
    lambda gamma, share: share / (1 - share),
    (
        Mistake(
            "as-if-unknown",
            "That is what one can promise without looking at the game; here you may look",
            lambda gamma, share: (1 - gamma) / (1 + gamma) * share / (1 - share),
        ),
        Mistake(
            "equal-shares",
            "That would be right for equal shares",
            lambda gamma, share: 1.0,
        ),
        Mistake(
            "the-easier-row",
            "That is where the row of the frequent pair fails; the largest row decides",
            lambda gamma, share: (1 - share) / share,
        ),
        Mistake(
            "gamma-once",
            "If each pair leads to itself, the factor 1 - gamma stands before the whole kernel and cancels",
            lambda gamma, share: (1 - gamma) * share / (1 - share),
        ),
    ),
    draw=_gamma_and_share,
    rtol=5e-4,
)

BEYOND = Choice(
    "contraction-beyond-the-condition",
    "C",
    (
        Mistake("silence-is-no-threat", "The game in which each pair leads to itself still contracts", "A"),
        Mistake("apart-is-not-away", "Two tables that move apart once may come closer in the next update", "B"),
        Mistake(
            "nothing-is-too-little", "The bound is reached in some game, since no entry of this row is negative", "D"
        ),
    ),
)


# --- two games for one kernel


def _modulus(moves, kernel, weights, alpha, gamma):
    """Return the exact modulus in the game with one action a state and these transitions."""
    n = len(kernel)
    mdp = FiniteMDP(np.reshape(moves, (n, 1, n)), np.zeros((n, 1)), gamma)
    return _exact_modulus(mdp, kernel, weights, alpha)


def _to(state):
    moves = np.zeros((3, 3))
    moves[:, state] = 1.0
    return moves


def _worst(kernel, weights, alpha, gamma):
    """Return the worst of the games in which every pair leads to one pair for sure."""
    every = (np.eye(3)[list(ends)] for ends in itertools.product(range(3), repeat=3))
    return max(every, key=lambda moves: _modulus(moves, kernel, weights, alpha, gamma))


RINGS = np.eye(3)[[1, 2, 0]], np.eye(3)[[2, 0, 1]]


def _one_kernel(rng):
    # With most kernels one of the rings is among the games that expand: so in some the one must contract, in some the
    # other, and in an order that nobody knows who counts the calls.
    easy = [RINGS[draws.side(rng)], np.eye(3), *(_to(state) for state in range(3))]
    while True:
        gamma = round(float(rng.uniform(0.4, 0.65)), 2)
        a, b, c = rng.uniform(0.02, 0.25), -rng.uniform(0.25, 0.55), rng.uniform(0.02, 0.1) * rng.choice([-1, 1])
        order = rng.permutation(3)
        kernel = np.array([[1, a, b], [a, 1, c], [b, c, 1]]).round(3)[np.ix_(order, order)]
        weights = rng.dirichlet(np.full(3, 80.0)).round(3)
        weights[2] = 1 - weights[0] - weights[1]
        args = kernel, weights, round(float(rng.uniform(0.8, 2.0)), 2), gamma
        if all(_modulus(moves, *args) < 0.99 for moves in easy) and _modulus(_worst(*args), *args) > 1.02:
            return args


def _judge_games(value, kernel, weights, alpha, gamma):
    games = numbers_of(value, (2, 3, 3))
    if games.min() < -1e-7 or games.sum(axis=2).max() > 1 + 1e-6:
        return "the rows of both arrays must be chances: none negative, and a row adds up to 1"
    if games.sum(axis=2).min() < 1 - 1e-6:
        return "ends"
    games = np.clip(games, 0, None)
    games /= games.sum(axis=2, keepdims=True)
    calm, wild = (_modulus(moves, kernel, weights, alpha, gamma) for moves in games)
    if calm > 1 > wild:
        return "swapped"
    if calm >= 1 - 1e-9:
        return f"in your first game the modulus is {calm:.6g}, and it must be below 1"
    if wild > 1 + 1e-9:
        return None
    if np.allclose(games[1], games[1][0]):
        return "one-target"
    if np.allclose(games[0], games[1]):
        return "same-game"
    if any(np.allclose(games[1], ring) for ring in RINGS):
        return "ring"
    return f"in your second game the modulus is {wild:.6g}, and it must be above 1"


GAMES = Function(
    "contraction-two-games",
    lambda *args: np.array([np.eye(3), _worst(*args)]),
    (
        Mistake(
            "one-target",
            "In your second game all pairs lead to one place. That is the worst for a row without negative pulls; a "
            "negative one makes it better",
            lambda kernel, weights, alpha, gamma: np.array(
                [np.eye(3), _to(int(contraction.row_dominance(kernel, weights, gamma=gamma).argmin()))]
            ),
        ),
        Mistake(
            "ring",
            "Your second game is a ring, in which each pair leads to the next one. Whether that expands depends on the "
            "signs in the kernel, and with these it contracts",
            lambda *args: np.array([np.eye(3), RINGS[0]]),
        ),
        Mistake(
            "swapped",
            "Your games are in the wrong order: the first is the one that contracts",
            lambda *args: np.array([_worst(*args), np.eye(3)]),
        ),
        Mistake(
            "ends",
            "A step of your games may end the episode; every row must add up to 1",
            lambda *args: np.array([np.zeros((3, 3)), _worst(*args)]),
        ),
        Mistake(
            "same-game",
            "Your two games are one and the same; the kernel is the same in both, the transitions must not be",
            lambda *args: np.array([np.eye(3), np.eye(3)]),
        ),
    ),
    draw=_one_kernel,
    instances=10,
    judge=_judge_games,
)


# --- the certificate with a bug


def certificate(kernel, weights, alpha, gamma):
    """Return whether the paper's condition certifies the update: strict dominance of every row, and no long step."""
    return _certificate(kernel, weights, alpha, gamma)


def _certificate(kernel, weights, alpha, gamma, *, sums=None, own=None, wins=np.less, fits=np.less_equal, which=np.all):
    kernel, weights = np.asarray(kernel, dtype=float), np.asarray(weights, dtype=float)
    off = kernel - np.diag(np.diag(kernel))
    others = np.abs(off) @ weights if sums is None else sums(off, weights)
    diagonal = np.diag(kernel) * weights if own is None else own(kernel, weights)
    dominant = which(wins((1 + gamma) * others, (1 - gamma) * diagonal))
    return bool(dominant and np.all(fits(alpha * np.diag(kernel) * weights, 1)))


def _variant(**change):
    return lambda kernel, weights, alpha, gamma: _certificate(kernel, weights, alpha, gamma, **change)


BUG = FindTheBug(
    "contraction-find-the-bug",
    certificate,
    (
        Mistake(
            "share-of-the-row",
            "weighs the pulls on a pair with the share of that pair",
            _variant(sums=lambda off, weights: np.abs(off).sum(axis=1) * weights),
        ),
        Mistake(
            "no-absolute-values", "lets a negative pull count in your favour", _variant(sums=lambda off, w: off @ w)
        ),
        Mistake(
            "absolute-value-outside",
            "takes the absolute value of the sum, so that pulls of different sign cancel",
            _variant(sums=lambda off, w: np.abs(off @ w)),
        ),
        Mistake("not-strict", "certifies a row in which both sides are equal", _variant(wins=np.less_equal)),
        Mistake(
            "factors-swapped",
            "multiplies the own pull with 1 + gamma and the others with 1 - gamma",
            lambda kernel, weights, alpha, gamma: _certificate(kernel, weights, alpha, -gamma),
        ),
        Mistake(
            "discount-forgotten",
            "asks only that the own pull be larger than the others",
            lambda kernel, weights, alpha, gamma: _certificate(kernel, weights, alpha, 0.0),
        ),
        Mistake(
            "diagonal-among-the-others",
            "counts the own pull among the others",
            lambda kernel, weights, alpha, gamma: _certificate(
                kernel, weights, alpha, gamma, sums=lambda off, w: np.abs(kernel) @ w
            ),
        ),
        Mistake("step-forgotten", "certifies a step of any length", _variant(fits=lambda x, one: True)),
        Mistake("step-strict", "refuses the longest step that the theorem allows", _variant(fits=np.less)),
        Mistake(
            "step-without-the-share",
            "forgets the share in the condition on the step",
            lambda kernel, weights, alpha, gamma: (
                _certificate(kernel, weights, alpha, gamma) and bool(np.all(alpha * np.diag(kernel) <= 1))
            ),
        ),
        Mistake(
            "columns",
            "adds up columns in the place of rows",
            _variant(sums=lambda off, weights: np.abs(off).T @ weights),
        ),
        Mistake("one-row-is-enough", "is content if one row holds", _variant(which=np.any)),
        Mistake(
            "size-of-the-diagonal",
            "takes the absolute value of the own pull too",
            _variant(own=lambda kernel, weights: np.abs(np.diag(kernel)) * weights),
        ),
    ),
)


# --- what a certificate does not say


@functools.lru_cache(maxsize=8)
def fates(gamma, run, many=10_000):
    """Return the moduli of updates that are drawn as in the notebook, by whether they certify, and by their fates."""
    rng, drawn = np.random.default_rng(run), []
    for _ in range(many):
        features, mix = rng.standard_normal((6, 2)), rng.uniform()
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        kernel = mix * features @ features.T + (1 - mix) * np.eye(6)
        drawn.append((kernel, rng.integers(3, size=6), rng.uniform(-1, 1, size=6)))
    pulls, leads, paid = (np.array(part) for part in zip(*drawn, strict=True))
    pulls, leads = 0.5 * pulls, np.eye(3)[leads]
    sizes, tables, left = _moduli(pulls, leads, gamma), np.zeros((many, 6)), np.arange(many)
    ends = np.full(many, "on its way")
    for step in range(2001):
        errors = paid + gamma * (leads @ tables.reshape(-1, 3, 2).max(axis=2)[:, :, None])[:, :, 0] - tables
        if step % 20 == 0:
            gone, home = np.abs(tables).max(axis=1) > 1e6, np.abs(errors).max(axis=1) < 1e-6
            ends[left[home]], ends[left[gone]] = "came home", "ran off"
            kept = ~gone & ~home
            pulls, leads, paid, tables, left, errors = (x[kept] for x in (pulls, leads, paid, tables, left, errors))
        tables = tables + (pulls @ errors[:, :, None])[:, :, 0]
    found = {}
    for certified in (True, False):
        for end in ("came home", "ran off", "on its way"):
            found[certified, end] = sizes[(ends == end) & ((sizes < 1) == certified)]
    return found


def _moduli(pulls, leads, gamma):
    """Return the exact moduli: in each row the best action of each next state is chosen on its own."""
    still = (np.eye(6) - pulls).reshape(-1, 6, 3, 2)
    into = gamma * (pulls @ leads)[:, :, :, None]
    gain = (np.abs(still + into) - np.abs(still)).max(axis=3)
    return (np.abs(still).sum(axis=(2, 3)) + gain.sum(axis=2)).max(axis=1)


def spoken(numbers):
    """Return what an oral check may ask about the run of question 7, and what is right."""
    found = fates(numbers["gamma"], numbers["run"])
    lines = [
        f"{'below 1' if certified else '1 or more'}, {end}: {len(sizes)}"
        + (f", {min(sizes):.3f} to {max(sizes):.3f}" if len(sizes) else "")
        for (certified, end), sizes in found.items()
    ]
    return [
        (
            "Read me your lines. What would have to stand there for the modulus to decide who runs off?",
            f"{'; '.join(lines)}. Nobody with a modulus of 1 or more would have come home.",
        ),
    ]


def _counted(value, gamma, run):
    found = {key: len(sizes) for key, sizes in fates(gamma, run).items()}
    known = [
        (None, found[False, "came home"]),
        ("ran-off", found[False, "ran off"]),
        ("uncertified", sum(found[False, end] for end in ("came home", "ran off", "on its way"))),
        ("everybody", found[False, "came home"] + found[True, "came home"]),
    ]
    other = "That is not what your run shows. Run the cell with your own name in the notebook, and read its lines again"
    # one that is just below the mark here may be just above it elsewhere
    return runs.nearest(value, known, within=5, otherwise=other)


def _home(gamma, run, *certified):
    return sum(len(fates(gamma, run)[one, "came home"]) for one in certified)


LONG = Value(
    "contraction-uncertified-and-home",
    lambda gamma, run: _home(gamma, run, False),
    (
        Mistake("everybody", "You count those with a modulus below 1 too", lambda *own: _home(*own, True, False)),
        Mistake(
            "ran-off",
            "That is how many ran off, and not how many came home",
            lambda *own: len(fates(*own)[False, "ran off"]),
        ),
        Mistake(
            "uncertified",
            "That is how many there are; not all of them came home",
            lambda *own: sum(len(sizes) for (certified, _), sizes in fates(*own).items() if not certified),
        ),
    ),
    judge=_counted,
    draw=lambda rng, **given: (given["gamma"], given["run"]),
)


def _accept(kernel, weights, alpha, gamma):
    weights = border.numbers("weights", weights, None)
    kernel = border.numbers("kernel", kernel, len(weights), len(weights))
    return kernel, weights, border.number("alpha", alpha), border.number("gamma", gamma, 0, 1)


BUG = border.bordered(BUG, _accept)

EXERCISES = (WARY, STOP, UNKNOWN, KNOWN, BEYOND, GAMES, BUG, LONG)
