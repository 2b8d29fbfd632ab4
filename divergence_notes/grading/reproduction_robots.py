"""The predictions of the second part of the appendix, on studies on robots.

How an answer is judged is in `kinds`.
"""

from divergence_notes.grading.exercise import Mistake
from divergence_notes.grading.kinds import Choice

EXERCISES = (
    Choice(
        "ex-reproduction-prediction",
        "B",
        (
            Mistake("run-off", "The largest value in a batch stays below 100 to the end", "A"),
            Mistake(
                "line-search",
                "It lets nearly every step pass at full length: less than one halving in a thousand updates",
                "C",
            ),
            Mistake(
                "off-target",
                "The change of a batch points along its TD errors to the end: the cosine stays above 0.999",
                "D",
            ),
        ),
        insight="Each torque sits at an end of its range, where no gradient of Q reaches the policy. That no value "
        "runs off does not say that an agent is well.",
        phrases={
            "A": ("Q, whose values have run off", "the values", "divergence", "they run off"),
            "B": ("the policy", "policy", "the actor", "the gradient of the policy"),
            "C": ("the line search, which refuses all steps", "the line search", "line search"),
            "D": ("Q, which no longer follows its targets", "Q", "the targets", "the TD errors"),
        },
    ),
    Choice(
        "ex-reproduction-ablation-prediction",
        "A",
        (
            Mistake(
                "jitter",
                "A hundred times more costs return with every seed. With two of three seeds the runs without a line "
                "search are the same to the last digit",
                "B",
            ),
            Mistake(
                "step-size",
                "A third of it costs about 750 on average. Without a line search the mean moves by less than 50",
                "C",
            ),
            Mistake(
                "activation",
                "It moves the mean furthest: with rectifiers two runs of three have learned nothing yet, and the worst "
                "run with tanh is above the best with sines",
                "D",
            ),
        ),
        insight="With two of three seeds the line search never cuts a step here, and the runs without it are the same "
        "to the last digit.",
        phrases={
            "A": ("no line search", "the line search", "line search"),
            "B": ("another jitter", "the jitter", "jitter"),
            "C": ("another step size", "the step size", "step size", "alpha"),
            "D": ("another activation", "the activation", "activation", "relu", "tanh"),
        },
    ),
    Choice(
        "ex-reproduction-robots-prediction",
        "level",
        (
            Mistake(
                "the-middle-alone",
                "By the interquartile mean it is ahead, with an interval that just leaves out 0. That of the plain "
                "mean holds 0, and a verdict needs both",
                "ahead",
            ),
            Mistake(
                "the-hopper-alone",
                "On the hopper each run of Adam earns more. On the cheetah each run of PreQN does",
                "behind",
            ),
        ),
        insight="A mean over robots can be level where each robot is not: on the cheetah each run of PreQN earns more "
        "than each under Adam, on the hopper less.",
        phrases={
            "ahead": ("PreQN is ahead", "ahead", "PreQN"),
            "level": ("the two are level", "level", "no difference is found", "neither"),
            "behind": ("PreQN is behind", "behind", "Adam"),
        },
    ),
)
