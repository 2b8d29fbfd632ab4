"""Which setting lets PreQN earn more on robots: first weights, cadence of the policy, step, solver, or minibatch.

HalfCheetah-v5 and Swimmer-v5 as in the study `robots`, 50,000 steps, evaluated every 2,500. The seeds are 100 to 102,
which no comparison uses: what is chosen here is looked at again there. Each variant turns one dial of ``as-there``,
which is the ``preqn`` of that study, with sines in Q:

- ``glorot``: the first weights of Q and of the policy uniform within ``sqrt(6 / (fan_in + fan_out))``, no biases;
- ``small-policy``: the first weights of the policy's last layer a hundredth, so that actions begin near the middle;
- ``policy-every-2``: a step of the policy at every second update only, as in TD3;
- ``alpha-1``: the line search begins at 1 and has work to do; it begins at 0.1 else, where it is nearly always idle;
- ``jitter-1e-06``, ``jitter-0.01``: what is added to the diagonal of the kernel, in units of its mean, 1e-4 else;
- ``batch-256``: minibatches of 256 transitions, as many as a layer has units, 100 else.

What is measured, decided before the runs: the mean return over the second half of a run. A setting wins if its mean is
the highest on both robots, and above ``as-there`` in at least five of the six pairs of runs with the same robot and
seed. `winner` is this rule. A run that diverged counts as in the study `robots` (`protocol.late_returns`). A setting
that wins is taken to the three robots of that study with its seeds, as one more agent, and described beside the others:
it was chosen on two of the robots, and nobody looked for better settings of the other agents.

Columns as in the study `robots`.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from divergence_notes import _checks
from divergence_notes._checks import ArrayLike
from divergence_notes._extras import needs

with needs("studies"):
    from divergence_notes.studies import mujoco, protocol

if TYPE_CHECKING:
    import pandas

VARIANTS = {
    "as-there": {},
    "glorot": {"initialisation": "glorot"},
    "small-policy": {"policy_scale": 0.01},
    "policy-every-2": {"policy_every": 2},
    "alpha-1": {"alpha": 1},
    "jitter-1e-06": {"jitter": 1e-6},
    "jitter-0.01": {"jitter": 1e-2},
    "batch-256": {"batch_size": 256},
}
PARAMETERS = {
    "seed": (100, 101, 102),
    "environment": ("HalfCheetah-v5", "Swimmer-v5"),
    "variant": tuple(VARIANTS),
}
SECONDS = {variant: 500 if variant == "batch-256" else 240 for variant in VARIANTS}
FLOAT_FORMAT = "%.7g"
STEPS = 50_000
EVALUATION = {"eval_every": 2_500, "eval_episodes": 5}
ABOVE = 5
"""In how many pairs of runs with the same robot and seed a variant that wins is above ``as-there``."""


def winner(scores: ArrayLike) -> np.ndarray:
    """Return which variant wins a table of scores.

    Parameters
    ----------
    scores : ndarray of shape (..., n_robots, n_seeds, n_variants)
        One score for each run, larger is better; ``as-there`` is the first variant.

    Returns
    -------
    ndarray of shape (...)
        The index of the variant whose mean over seeds is the highest on every robot, if it is above ``as-there`` in at
        least `ABOVE` pairs of runs, else 0: none wins.

    Raises
    ------
    ValueError
        If an axis is missing, or a score is not finite.
    """
    scores = _checks.array("scores", scores)
    if scores.ndim < 3:
        raise ValueError(f"scores must have axes for robots, seeds and variants, got shape {scores.shape}")
    best = scores.mean(axis=-2).argmax(axis=-1)
    first = best[..., 0]
    chosen = np.take_along_axis(scores, first[..., None, None, None], axis=-1)[..., 0]
    wins = (best == first[..., None]).all(axis=-1) & ((chosen > scores[..., 0]).sum(axis=(-2, -1)) >= ABOVE)
    return np.where(wins, first, 0)


def run(
    *, seed: int, environment: str, variant: str, steps: int = STEPS, checkpoint: Path | None = None
) -> "pandas.DataFrame":
    """Train one variant and return its curve.

    Parameters
    ----------
    seed : int
        Of everything random.
    environment, variant : str
        As the module's docstring says.
    steps : int
        Environment steps.
    checkpoint : path, optional
        As in `training.learn`.

    Returns
    -------
    DataFrame
        A row for each evaluation.
    """
    shared = EVALUATION | {"steps": steps, "seed": seed, "checkpoint": checkpoint}
    return protocol.preqn_curve(environment, dataclasses.replace(mujoco.CONFIG, **VARIANTS[variant]), **shared)
