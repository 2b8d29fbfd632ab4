"""The exercises of the chapter on the Bellman equation."""

import numpy as np

from divergence_notes import bellman
from divergence_notes.grading.core import Exercise, Mistake
from divergence_notes.mdp import FiniteMDP, random_mdp


def ending_mdp(rng: np.random.Generator) -> FiniteMDP:
    """Return a small random process in which some steps end the episode, some may, and some cannot."""
    n_states, n_actions = int(rng.integers(2, 6)), int(rng.integers(2, 4))
    whole = random_mdp(n_states, n_actions, gamma=float(rng.uniform(0.3, 0.95)), branching=n_states, rng=rng)
    goes_on = rng.choice([0.0, 0.4, 1.0], size=(n_states, n_actions))
    goes_on[:2, 0] = 0.0, 1.0  # one that ends for sure and one that cannot: no mistake stays hidden
    return FiniteMDP(whole.P * goes_on[:, :, None], whole.R, whole.gamma)


def _rise(c, mdp):
    zero = np.zeros(mdp.R.shape)
    return bellman.optimality_backup(zero + c, mdp) - bellman.optimality_backup(zero, mdp)


EXERCISES = (
    Exercise(
        "ex-bellman-prediction",
        "choice",
        "C",
        (
            Mistake("gamma-half", "That would be right if each step counted half as much as the one before it", "A"),
            Mistake("gamma-nine", "That would be right at gamma = 0.9; here it is 0.99", "B"),
            Mistake("gamma-three-nines", "That would be right at gamma = 0.999; here it is 0.99", "D"),
        ),
    ),
    Exercise(
        "ex-bellman-shift",
        "function",
        _rise,
        (
            Mistake(
                "through-the-end",
                "Your rise goes through the end of the game: where a step may end it, less comes after it",
                lambda c, mdp: np.full(mdp.R.shape, mdp.gamma * c),
            ),
            Mistake(
                "no-gamma",
                "Your rise is not discounted: what comes after the step counts gamma times",
                lambda c, mdp: mdp.continuation.reshape(mdp.R.shape) * c,
            ),
            Mistake(
                "shifts-itself",
                "Your rise is c itself: that is how much Q rises, and not its backup",
                lambda c, mdp: np.full(mdp.R.shape, float(c)),
            ),
            Mistake(
                "no-difference",
                "That is the backup of the shifted table, and not how far it is above the backup of the table",
                lambda c, mdp: mdp.R + _rise(c, mdp),
            ),
        ),
        draw=lambda rng: (float(rng.uniform(0.5, 3)), ending_mdp(rng)),
    ),
    Exercise(
        "ex-bellman-loss",
        "function",
        lambda epsilon, gamma: 2 * epsilon * gamma / (1 - gamma),
        (
            Mistake(
                "one-side",
                "The table may be too high for your action and too low for the best one: the error counts twice",
                lambda epsilon, gamma: epsilon * gamma / (1 - gamma),
            ),
            Mistake(
                "no-gamma",
                "The first reward is paid whatever the table says; the loss begins one step later",
                lambda epsilon, gamma: 2 * epsilon / (1 - gamma),
            ),
            Mistake(
                "one-step",
                "That is the loss of one wrong choice; you may choose wrongly at every step",
                lambda epsilon, gamma: 2 * epsilon * gamma,
            ),
        ),
        draw=lambda rng: (float(rng.uniform(0.01, 1)), float(rng.uniform(0.1, 0.99))),
    ),
)
