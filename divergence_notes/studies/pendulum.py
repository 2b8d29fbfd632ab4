"""Does undoing the kernel let one Q-network learn to swing up a pendulum, without a target network and without Adam.

Pendulum-v1, 10,000 steps, one update of 256 transitions after each but the first 1,000, which are random. Every 500
steps five episodes without noise, the same initial states for every agent with the same seed; random play earns about
-1200, a policy that swings up and balances about -150. All networks have two hidden layers of 64 units.

- ``preqn-relu``, ``preqn-tanh``, ``preqn-sin``: our PreQN (`CONFIG`), which differ in the activation of Q only.
- ``plain-0.0001`` to ``plain-0.1``: the same code with the mean semi-gradient step, of that step size, in place of the
  preconditioned one; without line search, which would reject nearly every one. The activation is the sine.
- ``td3``, ``sac``: of stable-baselines3 with their own defaults, target networks and Adam among them, but for widths,
  the random steps at the start, and for TD3 noise of standard deviation 0.1 while exploring, like ours.

The settings of PreQN were chosen in short trials on this very task; those of TD3 and SAC were not.

One row for each evaluation: `step`, `return`, `ending`, and for our agents the metrics of the updates since the row
before, as `preqn.PreQN.update` names them. A run that diverged ends with a row without a return.
"""

import dataclasses
from typing import TYPE_CHECKING

from divergence_notes._extras import needs

with needs("studies"):
    from stable_baselines3 import SAC, TD3

    from divergence_notes import preqn
    from divergence_notes.studies import protocol


if TYPE_CHECKING:
    import pandas

PARAMETERS = {
    "agent": (
        *(f"preqn-{activation}" for activation in ("relu", "tanh", "sin")),
        *(f"plain-{alpha}" for alpha in ("0.0001", "0.001", "0.01", "0.1")),
        "td3",
        "sac",
    ),
    "seed": tuple(range(5)),
}
SECONDS = 45
FLOAT_FORMAT = "%.7g"
ENVIRONMENT = "Pendulum-v1"
STEPS = 10_000
SHARED = {"eval_every": 500, "eval_episodes": 5}
CONFIG = preqn.PreQNConfig(
    hidden=(64, 64),
    activation="sin",
    policy_hidden=(64, 64),
    policy_activation="relu",
    gamma=0.99,
    solver="cholesky",
    jitter=1e-4,
    alpha=0.1,
    eta=0.97,
    shrink=0.5,
    max_backtracks=10,
    optimizer="none",
    target_rate=1,
    policy_learning_rate=1e-3,
    policy_every=1,
    initialisation="pytorch",
    policy_scale=1,
    noise=0.1,
    batch_size=256,
    held_out=16,
    warmup=1_000,
    update_every=1,
)
"""All settings, written out so that new defaults do not change the study."""


def run(*, agent: str, seed: int, steps: int = STEPS) -> "pandas.DataFrame":
    """Train one agent and return its curve.

    Parameters
    ----------
    agent : str
        As the module's docstring says.
    seed : int
        Of everything random.
    steps : int
        Environment steps.

    Returns
    -------
    DataFrame
        A row for each evaluation.
    """
    kind, _, detail = agent.partition("-")
    shared = SHARED | {"steps": steps, "seed": seed}
    if kind == "preqn":
        return protocol.preqn_curve(ENVIRONMENT, dataclasses.replace(CONFIG, activation=detail), **shared)
    if kind == "plain":
        plain = dataclasses.replace(CONFIG, solver="none", alpha=float(detail), eta=-1)
        return protocol.preqn_curve(ENVIRONMENT, plain, **shared)
    algorithm, noise = {"td3": (TD3, CONFIG.noise), "sac": (SAC, None)}[agent]
    return protocol.baseline_curve(
        algorithm, ENVIRONMENT, hidden=CONFIG.hidden, warmup=CONFIG.warmup, noise=noise, **shared
    )
