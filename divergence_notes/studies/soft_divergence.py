"""Do the values of a small DQN stay within what rewards can add up to, with a target network and without.

After van Hasselt et al., "Deep reinforcement learning and the deadly triad", 2018, who call it *soft divergence* when
values leave that bound though they do not go to infinity. In CartPole-v1 every step pays 1, so no policy is worth more
than 1 / (1 - gamma) = 100 from anywhere.

Both arms are the same agent (`CONFIG`): two hidden layers of 64 rectified units, Adam with step size 0.001 on half the
squared TD error, one update of 32 transitions after each environment step, epsilon from 1 to 0.05 over 5,000 steps
after 1,000 random ones, no clipping of any kind. One arm bootstraps from the learning network itself, the other from a
copy renewed every 100 updates; one renewed every 500 is too slow for values to reach 100, true or not, in 20,000 steps.
Time limits are bootstrapped through, so the bound holds for every target that a correct table would give.

One row for every 500 steps: `step`; `max_q`, the largest absolute value of any action in any batch since the row before
(missing before the first update); `return`, the mean over 5 greedy episodes, the same initial states each time. A run
whose values pass a million, or are not finite, stops there.
"""

import dataclasses
from typing import TYPE_CHECKING

from divergence_notes._extras import needs

with needs("studies"):
    from divergence_notes import dqn


if TYPE_CHECKING:
    import pandas

PARAMETERS = {"target_network": (False, True), "seed": tuple(range(5))}
"""Every combination is one run."""
SECONDS = 25
"""CPU seconds of one run."""
FLOAT_FORMAT = "%.7g"
"""Digits of the results: those of float32."""
STEPS = 20_000
"""Environment steps of one run."""
TARGET_EVERY = 100
"""Updates from one copy to the next in the arm with a target network."""
CONFIG = dqn.DQNConfig(
    hidden=(64, 64),
    activation="relu",
    gamma=0.99,
    learning_rate=1e-3,
    loss="squared",
    target_every=TARGET_EVERY,
    epsilon=0.05,
    epsilon_steps=5_000,
    warmup=1_000,
    batch_size=32,
    capacity=50_000,
    update_every=1,
)
"""All settings, written out so that new defaults do not change the study."""
BOUND = 1 / (1 - CONFIG.gamma)
"""The largest true value of any policy."""


def run(*, target_network: bool, seed: int) -> "pandas.DataFrame":
    """Train one agent and return its curve.

    Parameters
    ----------
    target_network : bool
        Whether the targets are read from a copy that stands still for `TARGET_EVERY` updates.
    seed : int
        Of everything random.

    Returns
    -------
    DataFrame
        Columns `step`, `max_q`, `return`.
    """
    config = dataclasses.replace(CONFIG, target_every=TARGET_EVERY if target_network else None)
    trained = dqn.train(
        "CartPole-v1", config=config, steps=STEPS, seed=seed, eval_every=500, eval_episodes=5, keep="last"
    )
    return trained.curve[["step", "max_q", "return"]]
