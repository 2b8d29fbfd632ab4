"""Does a PreQN that has learned the pendulum unlearn it later.

In earlier trials single runs with tanh in Q had fallen back at about 10,000 steps, where they ended. Here such runs are
twice as long and evaluated twice as often, so that a fall can be told from a dip. Pendulum-v1, 20,000 steps, tanh, else
as in the study `pendulum`.

- ``alpha-0.1``, ``alpha-0.3``: the first step size;
- ``slow-policy``: alpha 0.1, and a tenth of the policy's step size, 1e-4.

Every 250 steps five episodes without noise. Columns as in the study `pendulum`; `td_error` and `off_alignment` tell
whether a bad evaluation goes with a change of Q.
"""

import dataclasses

import pandas as pd

from divergence_notes.studies import pendulum, protocol

VARIANTS = {
    "alpha-0.1": {"alpha": 0.1},
    "alpha-0.3": {"alpha": 0.3},
    "slow-policy": {"policy_learning_rate": 1e-4},
}
PARAMETERS = {"seed": tuple(range(3)), "variant": tuple(VARIANTS)}
SECONDS = 110
FLOAT_FORMAT = "%.7g"
STEPS = 20_000


def run(*, seed: int, variant: str, steps: int = STEPS) -> pd.DataFrame:
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
    config = dataclasses.replace(pendulum.CONFIG, activation="tanh", **VARIANTS[variant])
    evaluation = {"eval_every": 250, "eval_episodes": 5}
    return protocol.preqn_curve(pendulum.ENVIRONMENT, config, steps=steps, seed=seed, **evaluation)
