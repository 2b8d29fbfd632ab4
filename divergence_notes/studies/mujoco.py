"""How does PreQN compare with TD3 on simulated robots in the first 100,000 steps.

HalfCheetah-v5, Hopper-v5 and Swimmer-v5; the first 10,000 steps are random, then one update after each. Every 5,000
steps five episodes without noise, the same initial states for all agents with the same seed. All networks have two
hidden layers of 256 units, minibatches have 100 transitions, as in Spinning Up.

- ``preqn``: our PreQN (`CONFIG`) with sines in Q; ``preqn-tanh``: the same with tanh in Q.
- ``td3``: of stable-baselines3 with its own defaults but for the sizes and the random steps above; all explore with
  noise of standard deviation 0.1.

None was tuned on these tasks. One row for each evaluation: `step`, `return`, `ending`, and for PreQN the metrics of
the updates since the row before, as `preqn.PreQN.update` names them.
"""

import dataclasses
from typing import TYPE_CHECKING

from divergence_notes._extras import needs

with needs("studies"):
    from stable_baselines3 import TD3

    from divergence_notes.studies import protocol, swing_up


if TYPE_CHECKING:
    import pandas

PARAMETERS = {
    "seed": tuple(range(3)),
    "environment": ("HalfCheetah-v5", "Hopper-v5", "Swimmer-v5"),
    "agent": ("preqn", "preqn-tanh", "td3"),
}
SECONDS = 700
FLOAT_FORMAT = "%.7g"
STEPS = 100_000
SHARED = {"eval_every": 5_000, "eval_episodes": 5}
CONFIG = dataclasses.replace(
    swing_up.CONFIG, hidden=(256, 256), policy_hidden=(256, 256), batch_size=100, warmup=10_000
)
"""As on the pendulum but for sizes and warm-up."""
ACTIVATIONS = {"preqn": CONFIG.activation, "preqn-tanh": "tanh"}
"""Of Q, for each of our agents."""


def run(*, seed: int, environment: str, agent: str, steps: int = STEPS) -> "pandas.DataFrame":
    """Train one agent and return its curve.

    Parameters
    ----------
    seed : int
        Of everything random.
    environment, agent : str
        As the module's docstring says.
    steps : int
        Environment steps.

    Returns
    -------
    DataFrame
        A row for each evaluation.
    """
    shared = SHARED | {"steps": steps, "seed": seed}
    if agent in ACTIVATIONS:
        config = dataclasses.replace(CONFIG, activation=ACTIVATIONS[agent])
        return protocol.preqn_curve(environment, config, **shared)
    sizes = {"hidden": CONFIG.hidden, "warmup": CONFIG.warmup, "batch_size": CONFIG.batch_size}
    return protocol.baseline_curve(TD3, environment, noise=CONFIG.noise, **sizes, **shared)
