"""How does PreQN compare with its nearest relatives on simulated robots in the first 100,000 steps.

The protocol of the study `mujoco`, with the controls that it lacks and five seeds: HalfCheetah-v5, Hopper-v5 and
Swimmer-v5; the first 10,000 steps are random, then one update of 100 transitions after each. Every 5,000 steps five
episodes without noise, the same initial states for all agents with the same seed. All networks have two hidden layers
of 256 units. All but SAC explore with noise of standard deviation 0.1. None was tuned on these tasks.

- ``preqn``: our PreQN (`mujoco.CONFIG`) with sines in Q; ``preqn-tanh``: the same with tanh in Q.
- ``adam``: as ``preqn``, but Adam with step size 1e-3 takes the mean semi-gradient, in place of the inverse of the
  kernel and the line search. Still one Q and no target network.
- ``ddpg``, ``td3``, ``sac``: of stable-baselines3 with their own defaults but for the sizes and the random steps above.

In what DDPG differs from ``adam``: (1) its targets come from copies of Q and of the policy that go 0.005 of the way
after each update; (2) its Q has rectifiers. From ``preqn`` it differs in that Adam takes the place of the inverse as
well. TD3 differs from DDPG in (3) a second critic, and the smaller of the two values in the target; (4) noise on the
action in the target, of standard deviation 0.2 and cut at 0.5; (5) a step of the policy, and of the copies, at every
second update only. SAC has two critics and copies of them, a policy that is random, an entropy in its objective, its
own way to explore, and Adam with step size 3e-4.

What is measured, decided before the runs: the mean return over the last ten evaluations, that is the second half of a
run, in units of TD3's mean on that robot. Decided before those returns were read: which agents are compared
(`COMPARED`), by `comparison.compared` over the three robots together and on each alone; that a run that diverged counts
as the worst evaluation of any run on its robot; and that the spread that says what could be seen is the largest of any
agent of the study `mujoco` on each robot, three seeds, in the same units.

One row for each evaluation: `step`, `return`, `ending`, and for our agents the metrics of the updates since the row
before, as `preqn.PreQN.update` names them. A run that diverged ends with a row without a return.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from divergence_notes._extras import needs

with needs("studies"):
    from divergence_notes.studies import mujoco, protocol, swing_up

if TYPE_CHECKING:
    import pandas

CHANGES = {
    "preqn": {},
    "preqn-tanh": {"activation": "tanh"},
    "adam": swing_up.NO_INVERSE | {"optimizer": "adam", "alpha": 1e-3},
}
"""What our agents change in `mujoco.CONFIG`."""
PARAMETERS = {
    "seed": tuple(range(5)),
    "environment": ("HalfCheetah-v5", "Hopper-v5", "Swimmer-v5"),
    "agent": (*CHANGES, *swing_up.BASELINES),
}
COMPARED = (
    ("preqn", "adam"),
    ("preqn-tanh", "preqn"),
    ("preqn", "ddpg"),
    ("adam", "ddpg"),
    *((agent, "td3") for agent in ("preqn", "preqn-tanh", "adam", "ddpg", "sac")),
)
"""Which agents are compared with which."""
SECONDS = {"preqn": 520, "preqn-tanh": 560, "adam": 540, "ddpg": 560, "td3": 560, "sac": 880}
FLOAT_FORMAT = "%.7g"
STEPS = 100_000


def run(
    *, seed: int, environment: str, agent: str, steps: int = STEPS, checkpoint: Path | None = None
) -> "pandas.DataFrame":
    """Train one agent and return its curve.

    Parameters
    ----------
    seed : int
        Of everything random.
    environment, agent : str
        As the module's docstring says.
    steps : int
        Environment steps.
    checkpoint : path, optional
        As in `training.learn`, and for the baselines as in `protocol.baseline_curve`.

    Returns
    -------
    DataFrame
        A row for each evaluation.
    """
    shared = mujoco.SHARED | {"steps": steps, "seed": seed, "checkpoint": checkpoint}
    config = mujoco.CONFIG
    if agent in swing_up.BASELINES:
        algorithm, noise = swing_up.BASELINES[agent]
        sizes = {"hidden": config.hidden, "warmup": config.warmup, "batch_size": config.batch_size, "noise": noise}
        return protocol.baseline_curve(algorithm, environment, **sizes, **shared)
    return protocol.preqn_curve(environment, dataclasses.replace(config, **CHANGES[agent]), **shared)
