"""The exercises of the second part of the chapter on reading the conditions: those on a run.

They are for practice: their solutions are on the page. Graded questions are in `coursework/questions`, outside of the
package; how an answer is judged is in `kinds`.
"""

import numpy as np

from divergence_notes.grading.exercise import Mistake
from divergence_notes.grading.kinds import Choice, Function, Value
from divergence_notes.grading.running import Fault

_K = np.array([[5.0, 4.0], [4.0, 5.0]])


def _two_numbers(c, n, *, counted=None, others=None, log=np.log):
    few, own = (1 + (n - 1) * c) / n, (1 - c) / n
    counted, others = n - 1 if counted is None else counted, n - 1 if others is None else others
    return [others * c / n, np.exp(-counted * own * log(own) - few * log(few))]


def _largest(c, n):
    return 1 / max((1 + (n - 1) * c) / n, (1 - c) / n)


def _record(*, whole=True, total=False, log=np.log, exponential=True, lengths=True, trained=0):
    """Return row ratio, effective rank and two alignments of the two pairs of the exercise for the pencil."""
    J, delta = np.array([[3.0, 1.0], [1.0, 3.0]]), np.array([1.0, -3.0])
    K = J @ J.T
    p = np.linalg.eigvalsh(K) / np.trace(K)
    entropy = -(p @ log(p))
    steps = [K @ delta, K[:, trained] * np.sign(delta[trained])]
    sizes = [np.linalg.norm(step) * np.linalg.norm(delta) if lengths else 1.0 for step in steps]
    return [
        (K[0, 1] + (K[0, 0] if total else 0)) / K[0, 0] / (2 if whole else 1),
        np.exp(entropy) if exponential else entropy,
        *(step @ delta / size for step, size in zip(steps, sizes, strict=True)),
    ]


def _judge_shares(answer):
    """Judge the least share of a pair at which no errors have a negative alignment, and errors that do below it."""
    try:
        low, *errors = (float(number) for number in answer)
    except (TypeError, ValueError) as error:
        raise Fault("must be three numbers: the share, and your two errors") from error
    if len(errors) != 2 or not np.isfinite([low, *errors]).all():
        raise Fault("must be three numbers: the share, and your two errors")
    for name, value in (("other-end", 0.8), ("product", 0.16), ("equal", 0.5), ("share-of-the-rank", 0.1)):
        if abs(low - value) < 1e-4:
            return name
    if abs(low - 0.2) > 1e-4:
        return f"your share is {low:.6g}: write down the quadratic form, and see when it takes a negative value"
    moved = _K @ (np.array([low / 2, 1 - low / 2]) * errors)
    return None if moved @ errors < 0 else "not-against"


EXERCISES = (
    Choice(
        "ex-heuristics-watch-prediction",
        "DOWN",
        (
            Mistake(
                "tells-apart",
                "So it would be if the network learned to move every pair by itself, as a table does; it "
                "falls, from 4.0 to 1.5",
                "UP",
            ),
            Mistake(
                "frozen",
                "So it would be if the kernel kept still; it goes from 4.0 to 1.5 here. In the calm run it falls "
                "too, and stops near 3",
                "STAYS",
            ),
        ),
        insight="At first it falls as fast in the calm run, but there it stops near 3. The rest is in part the "
        "network, and in part that these pairs are alike.",
        phrases={
            "UP": ("it rises", "rises", "up", "higher", "larger", "it goes up", "it increases", "towards 100"),
            "STAYS": ("it stays the same", "stays", "it stays", "the same", "no change", "about 4", "4"),
            "DOWN": ("it falls", "falls", "it falls towards 1", "down", "lower", "smaller", "towards 1", "1"),
        },
    ),
    Function(
        "ex-heuristics-two-numbers",
        _two_numbers,
        (
            Mistake(
                "others-for-all",
                "Your row ratio is the average over the others; it divides by all the pairs",
                lambda c, n: [c, _two_numbers(c, n)[1]],
            ),
            Mistake(
                "with-the-diagonal",
                "Your row ratio counts the diagonal entry too",
                lambda c, n: [(1 + (n - 1) * c) / n, _two_numbers(c, n)[1]],
            ),
            Mistake(
                "sum-for-average",
                "Your row ratio is the sum over the others, without the division by the number of pairs",
                lambda c, n: [(n - 1) * c, _two_numbers(c, n)[1]],
            ),
            Mistake(
                "counted-once",
                "The eigenvalue 1 - c is there n - 1 times, and not once",
                lambda c, n: _two_numbers(c, n, counted=1),
            ),
            Mistake(
                "another-logarithm",
                "Your entropy has the logarithm to base 2, and your exponential the base e",
                lambda c, n: _two_numbers(c, n, log=np.log2),
            ),
            Mistake(
                "no-exponential",
                "That is the entropy; the effective rank is its exponential",
                lambda c, n: [_two_numbers(c, n)[0], np.log(_two_numbers(c, n)[1])],
            ),
            Mistake(
                "largest-share",
                "That is one over the largest share; the effective rank asks about all of them",
                lambda c, n: [_two_numbers(c, n)[0], _largest(c, n)],
            ),
        ),
        draw=lambda rng: (float(rng.uniform(0.05, 0.95)), int(rng.integers(3, 200))),
        insight="The row ratio notices a little overlap at once, the effective rank starts flat; neither is a "
        "certificate.",
    ),
    Value(
        "ex-heuristics-record",
        _record,
        (
            Mistake(
                "sum-for-average",
                "Your row ratio is the leakage over the own entry, without the division by the number of pairs",
                lambda: _record(whole=False),
            ),
            Mistake("own-counted", "Your row ratio counts the own entry too", lambda: _record(total=True)),
            Mistake(
                "no-exponential",
                "Your second number is the entropy; the effective rank is its exponential",
                lambda: _record(exponential=False),
            ),
            Mistake(
                "another-logarithm",
                "Your entropy has the logarithm to base 2, and your exponential the base e",
                lambda: _record(log=np.log2),
            ),
            Mistake(
                "no-lengths",
                "Your last two are products; divide each by both lengths",
                lambda: _record(lengths=False),
            ),
            Mistake(
                "the-other-pair",
                "Your last number is that of a step that trains pair 2 alone",
                lambda: _record(trained=1),
            ),
        ),
        rtol=4e-3,  # three digits are enough
        hint="First K, then its eigenvalues, along (1, 1) and (1, -1), and then the two changes.",
        insight="The step for both has an alignment of 0.8; the one for pair 1 alone has a negative one, and does what "
        "its pair asks for.",
    ),
    Value(
        "ex-heuristics-against",
        lambda: [0.2, 4, -1],
        (
            Mistake(
                "other-end", "That is the upper end: the other pair then has the small share", lambda: [0.8, 4, -1]
            ),
            Mistake(
                "product",
                "That is what the product of the two shares must reach; solve for the share",
                lambda: [0.16, 4, -1],
            ),
            Mistake(
                "equal",
                "With equal shares no alignment is negative, and with a little less for pair 1 none is either",
                lambda: [0.5, 4, -1],
            ),
            Mistake(
                "share-of-the-rank",
                "That is the share of the smaller eigenvalue; the shares here are those of the data",
                lambda: [0.1, 4, -1],
            ),
            Mistake(
                "not-against",
                "Your share is right. With half of it for pair 1 your errors have no negative alignment",
                lambda: [0.2, 1, -1],
            ),
        ),
        judge=_judge_shares,
        insight="A step can go against the errors as a whole when the pairs that are measured are trained unequally.",
    ),
)
