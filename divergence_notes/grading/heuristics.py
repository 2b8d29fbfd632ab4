"""The exercises of the chapter on reading the conditions.

They are for practice: their solutions are on the page. Graded questions are in `coursework/questions`, outside of the
package; how an answer is judged is in `kinds`.
"""

import numpy as np

from divergence_notes import updates
from divergence_notes.grading.exercise import Mistake
from divergence_notes.grading.kinds import Choice, Value
from divergence_notes.mdp import FiniteMDP


def _rows(*, others=0, power=1, total=False, mean=True, ratio=False, swap=False):
    """Return the row ratios of three pairs, and the discounts up to which row dominance holds for the last two."""
    J = np.array([[1.0, 0.0], [2.0, 1.0], [0.0, 2.0]])
    K = J @ J.T
    own = np.diag(K)
    leaks = (K.sum(axis=1) - (0 if total else own)) / own**power
    ratios = leaks / (3 - others) if mean else leaks
    asked = (ratios if ratio else leaks)[1:]
    parts = [ratios, (1 - asked) / (1 + asked)]
    return np.concatenate(parts[::-1] if swap else parts)


def _allowed(gamma, n):
    """Return the largest row ratio, and the largest entry next to the diagonal, of n pairs that are all alike."""
    pull = (1 - gamma) / (1 + gamma)
    return [pull / n, pull / (n - 1)]


def _diverges_then_cured(answer):
    """Judge a discount and two divisions of the data for the kernel of the exercise, by the package's own Jacobian."""
    try:
        gamma, *divisions = answer
        gamma, (before, after) = float(gamma), (np.asarray(rho, dtype=float) for rho in divisions)
    except (TypeError, ValueError):
        return "your answer must be a discount and two divisions of the data: (gamma, [a, b], [c, d])"
    if not 0 <= gamma < 1:
        return f"gamma must lie in [0, 1), and is {gamma:.6g}"
    for name, rho in (("first", before), ("second", after)):
        if rho.shape != (2,) or not np.isfinite(rho).all() or abs(rho.sum() - 1) > 1e-6:
            return f"the {name} division must be two shares that sum to 1, and is {rho.tolist()}"
    if min(before.min(), after.min()) <= 0:
        return "no-data"
    before, after = before / before.sum(), after / after.sum()
    if not _settles(gamma, after):
        return "upside-down" if _settles(gamma, before) else "not-cured"
    if _settles(gamma, before):
        return "settles" if gamma > 0.5 else "no-division"
    return None


def _settles(gamma, rho):
    """Say whether short steps settle: whether both eigenvalues of ``K D (I - gamma P)`` have positive real parts.

    Their product, the determinant, is rho_1 rho_2 (1 - gamma) and positive, so their sum, the trace, says it.
    """
    leads_on = FiniteMDP(np.array([[[0.0, 1.0]], [[0.0, 1.0]]]), np.ones((2, 1)), gamma)
    update = updates.KernelUpdate(leads_on, kernel=[[1.0, 2.0], [2.0, 5.0]], weights=rho, alpha=1)
    slope = update.jacobian(np.zeros(2, dtype=int))
    return bool(np.trace(np.eye(2) - slope) > 0)


EXERCISES = (
    Choice(
        "ex-heuristics-prediction",
        "B",
        (
            Mistake(
                "wider",
                "Wider lowers it: for each activation all eight networks of width 128 lie below all eight of width 8",
                "A",
            ),
            Mistake("activation", "That lowers it, at every setting and for every initialisation", "C"),
            Mistake(
                "scale",
                "Larger inputs lower it, and over the range that is drawn they do so more than width or depth",
                "D",
            ),
        ),
        insight="Each added layer raises it, for every one of eight initialisations, with PyTorch's weights; in five "
        "layers of relu a step at one pair moves nearly all others as far.",
        phrases={
            "A": ("wider layers", "wider", "width", "1", "make both hidden layers wider"),
            "B": ("more layers", "deeper", "depth", "2", "add hidden layers", "more hidden layers"),
            "C": ("tanh or sin for relu", "activation", "tanh", "sin", "3", "replace relu by tanh or sin"),
            "D": ("larger inputs", "inputs", "scale", "4", "multiply the inputs by 2"),
        },
    ),
    Choice(
        "ex-heuristics-robots-prediction",
        "UP",
        (
            Mistake(
                "as-on-the-cart",
                "So it was on the cart and its pole, whose inputs were standardised; on each of the three robots, with "
                "raw inputs, wider relu networks have larger ones",
                "DOWN",
            ),
            Mistake(
                "level",
                "So it is for tanh on two of the robots; for relu the interval of the slope lies above 0 on all three",
                "STAYS",
            ),
        ),
        insight="On each of the three robots they rise, and there the inputs are raw. With the states standardised and "
        "PyTorch's weights they fall there too.",
        phrases={
            "UP": ("they rise", "rise", "up", "larger", "they go up", "they increase", "higher"),
            "DOWN": ("they fall", "fall", "down", "smaller", "they go down", "they decrease", "lower"),
            "STAYS": ("they stay level", "level", "they stay", "stays", "no change", "flat"),
        },
    ),
    Choice(
        "ex-heuristics-margins-prediction",
        "C",
        (
            Mistake("holds", "In no row of any of the 336 networks does the condition hold", "A"),
            Mistake(
                "not-counted",
                "That counts the others as one: the row ratio is their average, and the condition asks for the sum "
                "over a hundred pairs",
                "B",
            ),
            Mistake("median", "So it is in the median row; in the best one it is less", "D"),
        ),
        insight="A row ratio of 0.02 looks small, but times a hundred pairs and times 199 it is 400, and more for more "
        "pairs.",
        phrases={
            "A": ("there the condition holds", "it holds", "not at all", "0", "1", "none"),
            "B": ("about 4 times", "4", "four", "four times"),
            "C": ("about 400 times", "400", "four hundred", "four hundred times"),
            "D": ("about 13 000 times", "13 000", "thirteen thousand", "thirteen thousand times"),
        },
    ),
    Choice(
        "ex-heuristics-rank-prediction",
        "C",
        (
            Mistake(
                "smallest-ratio",
                "sin has the smallest row ratios, and of the three it is stable up to the smallest discount",
                "A",
            ),
            Mistake("in-between", "tanh lies between the two, in its row ratios and in its discounts", "B"),
        ),
        insight="relu has the largest row ratios here and stays stable up to the largest discount: the condition "
        "makes no promise for any of these networks, and the row ratio does not rank their fates.",
        phrases={
            "A": ("sin", "sine", "the smallest row ratios"),
            "B": ("tanh", "the middle one"),
            "C": ("relu", "the largest row ratios", "rectifiers"),
        },
    ),
    Value(
        "ex-heuristics-by-hand",
        _rows,
        (
            Mistake(
                "mean-of-the-others",
                "You divided by the number of the other pairs; the row ratio divides by the number of all",
                lambda: _rows(others=1),
            ),
            Mistake(
                "sum-of-the-others",
                "Your first numbers are sums over the others: divide them by the number of pairs",
                lambda: _rows(mean=False),
            ),
            Mistake(
                "not-relative",
                "You left the own entry out: what leaks in counts in units of it",
                lambda: _rows(power=0),
            ),
            Mistake(
                "own-counted",
                "The own entry is no leakage: leave it out of the sum",
                lambda: _rows(total=True),
            ),
            Mistake(
                "ratio-for-sum",
                "In the discount all the others count together: take the sum, and not the row ratio",
                lambda: _rows(ratio=True),
            ),
            Mistake(
                "exchanged",
                "You have the discounts before the ratios",
                lambda: _rows(swap=True),
            ),
        ),
        rtol=3e-3,  # three digits on paper are enough
        hint="First write K, then for each row its own entry and the sum of the others.",
        insight="What counts is the leakage next to the own entry: a row that gets more may be the safer one.",
    ),
    Value(
        "ex-heuristics-overlap",
        lambda: _allowed(0.99, 1000),
        (
            Mistake(
                "not-divided",
                "That is the pull of all the others together; the row ratio is their average, over all the pairs",
                lambda: [1 / 199, 1 / 199 / 999],
            ),
            Mistake(
                "each-of-them",
                "That is what the others may pull together; the entry is what one of them may have of it",
                lambda: [1 / 199 / 1000, 1 / 199],
            ),
            Mistake(
                "divided-twice",
                "The row ratio has been divided by the number of pairs; the entry itself has not",
                lambda: [1 / 199 / 1000, 1 / 199 / 1000 / 999],
            ),
            Mistake(
                "others-for-all",
                "Your row ratio divides by the number of the others, and it is an average over all; "
                "or it has too few digits: give four",
                lambda: [1 / 199 / 999, 1 / 199 / 999],
            ),
            Mistake(
                "all-for-others",
                "Your entry divides by the number of all the pairs, but a pair is none of its own others; "
                "or it has too few digits: give four",
                lambda: [1 / 199 / 1000, 1 / 199 / 1000],
            ),
            Mistake("exchanged", "First the row ratio, then the entry", lambda: [1 / 199 / 999, 1 / 199 / 1000]),
            Mistake(
                "no-one-plus-gamma",
                "What the others pull acts by their values and by their targets: 1 + gamma is missing",
                lambda: [0.01 / 1000, 0.01 / 999],
            ),
        ),
        rtol=2e-4,  # tells N from N - 1; four digits are enough
        hint="Write the condition down for a row of N equal shares. The row ratio averages over how many, and "
        "how many others are there?",
        insight="At gamma = 0.99 the others together may pull with one part in 199: five in a million for each "
        "of them.",
    ),
    Value(
        "ex-heuristics-build",
        lambda: (0.95, [0.9, 0.1], [0.1, 0.9]),
        (
            Mistake(
                "settles",
                "Your first division settles: the first state has too few data, or gamma looks too little ahead",
                lambda: (0.6, [0.5, 0.5], [0.1, 0.9]),
            ),
            Mistake(
                "no-division",
                "At this gamma every division settles: it looks too little ahead",
                lambda: (0.4, [0.9, 0.1], [0.1, 0.9]),
            ),
            Mistake("not-cured", "Your second division diverges as well", lambda: (0.95, [0.9, 0.1], [0.8, 0.2])),
            Mistake(
                "upside-down",
                "Your two divisions are the wrong way round: the first settles, the second diverges",
                lambda: (0.95, [0.1, 0.9], [0.9, 0.1]),
            ),
            Mistake(
                "no-data",
                "You leave a state without data; here both are to be sampled",
                lambda: (0.95, [1.0, 0.0], [0.1, 0.9]),
            ),
        ),
        judge=_diverges_then_cured,
        insight="The same kernel and the same discount: the division of the data alone cures it.",
    ),
    Choice(
        "ex-heuristics-raw",
        "UP",
        (
            Mistake(
                "down",
                "Smaller inputs look more alike to the network, and pairs that look alike move together",
                "DOWN",
            ),
            Mistake(
                "stays",
                "The inputs change their scale, and that dial moved the mean row ratio more than width or depth did",
                "STAYS",
            ),
        ),
        insight="Raw inputs are small and look alike to the network, and what looks alike moves together.",
        phrases={
            "UP": ("it goes up", "goes up", "higher", "larger", "bigger", "it rises", "increases", "increase"),
            "DOWN": ("it goes down", "goes down", "lower", "smaller", "it falls", "decreases", "decrease"),
            "STAYS": ("it stays", "the same", "stays the same", "no change", "unchanged"),
        },
    ),
    Choice(
        "ex-heuristics-tension-prediction",
        "C",
        (
            Mistake(
                "narrow",
                "So it is at a width of 0.3, and there the unseen states are as good as unknown: the error is 0.99 of "
                "that of the blind guess",
                "A",
            ),
            Mistake("on-the-way", "So it is at a width of 0.4, and there the error is still 0.84", "B"),
        ),
        insight="The spill is the generalisation: what teaches the unseen pairs is what couples the taught ones.",
        phrases={
            "A": ("0.9 or more", "0.9", "above 0.9", "more than 0.9", ">0.9", "nearly 1"),
            "B": ("about 0.5", "0.5", "a half", "one half", "0.46"),
            "C": ("none, not even 0", "0", "none", "no discount", "not even 0", "zero"),
        },
    ),
)
