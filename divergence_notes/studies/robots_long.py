"""How do PreQN, DDPG and TD3 go on from 100,000 to 300,000 steps.

The protocol of the study `robots`, three times as long, on HalfCheetah-v5 and Hopper-v5 with the first three of its
seeds, so that the first third of a run is one of that study and no other. What is measured, decided before the runs:
the mean return over the last twenty evaluations, that is the last third of a run. Three seeds carry no interval and no
verdict (`comparison.FEWEST`): each run is shown.

Columns as in the study `robots`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from divergence_notes._extras import needs

with needs("studies"):
    from divergence_notes.studies import robots

if TYPE_CHECKING:
    import pandas

PARAMETERS = {
    "seed": robots.PARAMETERS["seed"][:3],
    "environment": ("HalfCheetah-v5", "Hopper-v5"),
    "agent": ("preqn", "ddpg", "td3"),
}
FLOAT_FORMAT = robots.FLOAT_FORMAT
STEPS = 300_000
SECONDS = {agent: robots.SECONDS[agent] * STEPS // robots.STEPS for agent in PARAMETERS["agent"]}


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
        As in `robots.run`.

    Returns
    -------
    DataFrame
        A row for each evaluation.
    """
    return robots.run(seed=seed, environment=environment, agent=agent, steps=steps, checkpoint=checkpoint)
