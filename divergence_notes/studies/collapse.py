"""Does a PreQN that has learned the pendulum unlearn it later, and if so, is it Q or the policy that fails.

In earlier trials single runs with tanh in Q had fallen back at about 10,000 steps, where they ended. Here such runs are
twice as long and evaluated twice as often, so that a fall can be told from a dip. Pendulum-v1, 20,000 steps, tanh, else
as in the study `swing_up`.

- ``alpha-0.1``, ``alpha-0.3``: the first step size;
- ``slow-policy``: alpha 0.1, and a tenth of the policy's step size, 1e-4.

Every 250 steps two policies play five episodes each from the same initial states: the agent's, in the column `return`,
and the one that asks Q alone, in `greedy`: at each step it takes the best of 41 torques. If the first fails and the
second does not, Q knows what to do and the policy does not do it. Other columns as in the study `swing_up`.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from divergence_notes._extras import needs

with needs("studies"):
    import torch

    from divergence_notes import preqn
    from divergence_notes.studies import protocol, swing_up


if TYPE_CHECKING:
    import pandas

VARIANTS = {
    "alpha-0.1": {"alpha": 0.1},
    "alpha-0.3": {"alpha": 0.3},
    "slow-policy": {"policy_learning_rate": 1e-4},
}
PARAMETERS = {"seed": tuple(range(3)), "variant": tuple(VARIANTS)}
SECONDS = 110
FLOAT_FORMAT = "%.7g"
STEPS = 20_000


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
    config = dataclasses.replace(swing_up.CONFIG, activation="tanh", **VARIANTS[variant])
    evaluation = {"eval_every": 250, "eval_episodes": 5, "others": {"greedy": greedy_action}}
    return protocol.preqn_curve(swing_up.ENVIRONMENT, config, steps=steps, seed=seed, **evaluation)


@torch.no_grad()
def greedy_action(agent: preqn.PreQN, obs: np.ndarray) -> np.ndarray:
    """Return the torque, of 41 that are evenly spaced, to which Q gives the largest value.

    Parameters
    ----------
    agent : PreQN
        With Q and a policy for the swing_up.
    obs : ndarray of shape (3,)
        An observation of the swing_up.

    Returns
    -------
    ndarray of shape (1,)
        The torque.
    """
    torques = torch.linspace(-1.0, 1.0, 41)[:, None]  # in units of the largest
    seen = torch.as_tensor(obs, dtype=torch.float32).expand(len(torques), -1)
    best = agent.net(torch.cat([seen, torques], dim=1))[:, 0].argmax()
    return 2.0 * torques[best].numpy()
