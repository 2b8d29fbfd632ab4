"""Which parts of PreQN matter: the activation of Q, the line search, the jitter of the solver, the step size.

Each variant changes one setting of the default, whose Q has sines. Pendulum-v1 as in the study `swing_up`, 10,000
steps; HalfCheetah-v5 as in the study `mujoco` but with 5,000 random steps and 25,000 in all.

- ``default``; ``relu``, ``tanh``: the activation of Q;
- ``no-line-search``: the first step size is accepted, whatever it does;
- ``jitter-1e-06``, ``jitter-0.01``: instead of 1e-4, in units of the mean diagonal of the kernel;
- ``minimum-norm``: no jitter, the shortest least-squares solution on the eigenvalues above the rounding of float32;
- ``alpha-0.03``, ``alpha-1``: the first step size, instead of 0.1.

Columns as in the study `swing_up`.
"""

import dataclasses
from typing import TYPE_CHECKING

from divergence_notes._extras import needs

with needs("studies"):
    from divergence_notes.studies import mujoco, protocol, swing_up


if TYPE_CHECKING:
    import pandas

VARIANTS = {
    "default": {},
    "relu": {"activation": "relu"},
    "tanh": {"activation": "tanh"},
    "no-line-search": {"eta": -1},
    "jitter-1e-06": {"jitter": 1e-6},
    "jitter-0.01": {"jitter": 1e-2},
    "minimum-norm": {"solver": "minimum-norm"},
    "alpha-0.03": {"alpha": 0.03},
    "alpha-1": {"alpha": 1},
}
PARAMETERS = {
    "seed": tuple(range(3)),
    "environment": ("Pendulum-v1", "HalfCheetah-v5"),
    "variant": tuple(VARIANTS),
}
SECONDS = 100
FLOAT_FORMAT = "%.7g"
BASES = {
    "Pendulum-v1": (swing_up.CONFIG, {"steps": 10_000} | swing_up.SHARED),
    "HalfCheetah-v5": (
        dataclasses.replace(mujoco.CONFIG, warmup=5_000),
        {"steps": 25_000, "eval_every": 2_500, "eval_episodes": 5},
    ),
}
"""The settings that a variant changes, and the length of its runs."""


def run(*, seed: int, environment: str, variant: str, steps: int | None = None) -> "pandas.DataFrame":
    """Train one variant and return its curve.

    Parameters
    ----------
    seed : int
        Of everything random.
    environment, variant : str
        As the module's docstring says.
    steps : int, optional
        Environment steps, if not as in the study.

    Returns
    -------
    DataFrame
        A row for each evaluation.
    """
    config, shared = BASES[environment]
    shared = shared | {"seed": seed} | ({} if steps is None else {"steps": steps})
    return protocol.preqn_curve(environment, dataclasses.replace(config, **VARIANTS[variant]), **shared)
