"""Why do some swimmers stop learning: is it the tanh of the policy, and what helps, a slower one or another Q.

In the study `mujoco` two of three PreQN on Swimmer-v5 return the same number for ten evaluations and more. An action is
the tanh of what the policy computes. The gradient of Q reaches the policy through the slope of that tanh, 1 minus the
square of the action: at the ends of the range it is 0, and the policy stays where it is. Swimmer-v5 and all settings as
in that study, 40,000 steps, evaluated every 2,500.

- ``as-before``: the same runs again, shorter;
- ``slow-policy``: a tenth of the policy's step size, 1e-4;
- ``tanh``: tanh in Q in place of sines.

Columns as in the study `mujoco`, and `slope`: the mean slope of the tanh in an episode that the agent at the end plays.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from divergence_notes._extras import needs

with needs("studies"):
    from divergence_notes import preqn, training
    from divergence_notes.studies import mujoco, protocol


if TYPE_CHECKING:
    import pandas

ENVIRONMENT = "Swimmer-v5"
VARIANTS = {"as-before": {}, "slow-policy": {"policy_learning_rate": 1e-4}, "tanh": {"activation": "tanh"}}
PARAMETERS = {"seed": tuple(range(3)), "variant": tuple(VARIANTS)}
SECONDS = 300
FLOAT_FORMAT = "%.7g"
STEPS = 40_000
EVALUATION = {"eval_every": 2_500, "eval_episodes": 5}


def run(*, seed: int, variant: str, steps: int = STEPS) -> "pandas.DataFrame":
    """Train one variant and return its curve.

    Parameters
    ----------
    seed : int
        Of everything random.
    variant : str
        As the module's docstring says.
    steps : int
        Environment steps.

    Returns
    -------
    DataFrame
        A row for each evaluation.
    """
    config = dataclasses.replace(mujoco.CONFIG, **VARIANTS[variant])
    with protocol.mujoco_in_the_log():
        run = preqn.train(ENVIRONMENT, config=config, steps=steps, seed=seed, **EVALUATION)
        return run.curve.assign(ending=run.ending, slope=mean_slope(run.agent, seed=seed))


def mean_slope(agent: preqn.PreQN, *, seed: int) -> float:
    """Return the mean slope of the tanh at the end of a policy, over an episode without noise.

    Parameters
    ----------
    agent : PreQN
        With a policy for the swimmer, whose actions lie between -1 and 1.
    seed : int
        Of the environment.

    Returns
    -------
    float
        Between 0, where no gradient passes, and 1.
    """
    actions = []

    def act(obs: np.ndarray) -> np.ndarray:
        actions.append(agent.act(obs))
        return actions[-1]

    training.evaluate(ENVIRONMENT, act, episodes=1, seed=seed)
    return float(1 - np.square(actions, dtype=np.float64).mean())
