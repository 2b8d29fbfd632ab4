"""The exercises of the second part of the chapter on reading the conditions: those on a run.

They are for practice: their solutions are on the page. Graded questions are in `coursework/questions`, outside of the
package; how an answer is judged is in `kinds`.
"""

import numpy as np

from divergence_notes.grading.exercise import Mistake
from divergence_notes.grading.kinds import Choice, Function


def _two_numbers(c, n, *, counted=None, others=None, log=np.log):
    few, own = (1 + (n - 1) * c) / n, (1 - c) / n
    counted, others = n - 1 if counted is None else counted, n - 1 if others is None else others
    return [others * c / n, np.exp(-counted * own * log(own) - few * log(few))]


def _largest(c, n):
    return 1 / max((1 + (n - 1) * c) / n, (1 - c) / n)


EXERCISES = (
    Choice(
        "ex-heuristics-watch-prediction",
        "DOWN",
        (
            Mistake(
                "tells-apart",
                "So it would be if the network learned to move every pair by itself, as a table does; it loses "
                "directions: from 3.9 to 1.6",
                "UP",
            ),
            Mistake(
                "frozen",
                "So it would be if the kernel kept still; it goes from 3.9 to 1.6 here, while in the calm run it "
                "stays near 3",
                "STAYS",
            ),
        ),
        insight="In the end the kernel of the sampled pairs has hardly more than one direction left. Part of that is "
        "the network, and part that these pairs are alike.",
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
)
