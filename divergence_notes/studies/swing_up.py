"""Is it undoing the kernel, or another step, or a target network, that lets one Q-network swing up a pendulum.

Pendulum-v1, 10,000 steps, one update of 256 transitions after each but the first 1,000, which are random. Every 500
steps five episodes without noise, the same initial states for every agent with the same seed; random play earns about
-1200, a policy that swings up and balances about -150. All networks have two hidden layers of 64 units. Our agents
share one code and one network of sines, and differ in what is named here and in nothing else. Where nothing else is
said it concerns Q; the policy of each is moved by Adam, with step size 1e-3.

- ``preqn-relu``, ``preqn-tanh``, ``preqn-sin``: PreQN (`CONFIG`), which differ in the activation of Q.
- ``adam-relu``, ``adam-tanh``, ``adam-sin``: no inverse of the kernel, no line search; Adam with step size 1e-3 takes
  the mean semi-gradient. One Q, no target network. Adam changes the conditioning and the length of a step at once.
- ``preqn-sins``, ``adam-sins``: as ``preqn-sin`` and ``adam-sin``, and the policy has sines too, where all others of
  ours have rectifiers. Added after four trials of ``adam-sin``, on the seeds 0 and 1: with sines in the policy both
  came to -200, with rectifiers neither did.
- ``plain-0.0001`` to ``plain-0.1``: the mean semi-gradient step of that size, without Adam and without line search.
- ``plain-sins``: steps of 0.001, and sines in the policy as well. Added last of all, for a reader who asked whether
  plain steps fail or the policy with rectifiers does.
- ``target-0.0001`` to ``target-0.1``: the same, and targets come from copies of Q and of the policy that go 0.005 of
  the way after each update, as those of DDPG do.
- ``ddpg``, ``td3``, ``sac``: of stable-baselines3 with their own defaults but for widths, the random steps at the
  start, and for DDPG and TD3 noise of standard deviation 0.1 while exploring, like ours. Their Q has rectifiers.

What is measured, decided before the runs, but for the seeds 0 to 4 of PreQN, TD3 and SAC, which are older: the step of
the first evaluation of at least -200, and the share of the later evaluations below -200. The settings of PreQN were
chosen in short trials on this very task, those of the others were not. Which agents are compared (`COMPARED`), and that
the step decides, was written down when the runs were known, and the last two pairs before those of ``plain-sins``,
which came last. In the first seven pairs and the last two one part is replaced, of which Adam in the place of the
inverse and its line search is the largest; DDPG differs from ``adam-relu`` in the copies and in its code. The spread
that says how large a difference ten seeds can find is that of these older runs (`PILOT`). They are among those that are
judged, and none of them is under Adam.

One row for each evaluation: `step`, `return`, `ending`, and for our agents the metrics of the updates since the row
before, as `preqn.PreQN.update` names them. A run that diverged ends with a row without a return.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divergence_notes._extras import needs

with needs("studies"):
    from stable_baselines3 import DDPG, SAC, TD3

    from divergence_notes import preqn
    from divergence_notes.studies import protocol

if TYPE_CHECKING:
    import pandas

ACTIVATIONS = ("relu", "tanh", "sin")
STEP_SIZES = ("0.0001", "0.001", "0.01", "0.1")
ENVIRONMENT = "Pendulum-v1"
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
# the algorithm and its noise
BASELINES = {"ddpg": (DDPG, CONFIG.noise), "td3": (TD3, CONFIG.noise), "sac": (SAC, None)}
PARAMETERS = {
    "seed": tuple(range(10)),
    "agent": (
        *(f"{kind}-{activation}" for kind in ("preqn", "adam") for activation in ACTIVATIONS),
        "preqn-sins",
        "adam-sins",
        "plain-sins",
        *(f"{kind}-{alpha}" for kind in ("plain", "target") for alpha in STEP_SIZES),
        *BASELINES,
    ),
}
SECONDS = 45
FLOAT_FORMAT = "%.7g"
STEPS = 10_000
NO_INVERSE = {"solver": "none", "eta": -1, "alpha": 1e-3}
KINDS: dict[str, dict[str, Any]] = {
    "preqn": {},
    "adam": NO_INVERSE | {"optimizer": "adam"},
    "plain": NO_INVERSE,
    "target": NO_INVERSE | {"target_rate": 0.005},
}
"""What the agents of a kind have otherwise than `CONFIG`."""
LEVEL = -200
"""What an agent has to earn, on average over an evaluation, to have arrived."""
NEVER = STEPS + SHARED["eval_every"]
"""What a run counts that never did: the first evaluation that it did not have."""
COMPARED = (
    *((f"preqn-{kind}", f"adam-{kind}") for kind in (*ACTIVATIONS, "sins")),
    ("preqn-sins", "preqn-sin"),
    ("adam-sins", "adam-sin"),
    ("target-0.001", "plain-0.001"),
    ("ddpg", "adam-relu"),
    *(("preqn-sin", baseline) for baseline in BASELINES),
    ("adam-sins", "ddpg"),
    ("ddpg", "td3"),
    ("plain-sins", "plain-0.001"),
    ("adam-sins", "plain-sins"),
)
"""Which agents are compared with which."""
PILOT = {"agents": (*(f"preqn-{activation}" for activation in ACTIVATIONS), "td3", "sac"), "seeds": tuple(range(5))}
"""Whose spread says what could be seen: the largest of any of these agents, over these seeds."""


def run(*, seed: int, agent: str, steps: int = STEPS, checkpoint: Path | None = None) -> "pandas.DataFrame":
    """Train one agent and return its curve.

    Parameters
    ----------
    seed : int
        Of everything random.
    agent : str
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
    shared = SHARED | {"steps": steps, "seed": seed, "checkpoint": checkpoint}
    if agent in BASELINES:
        algorithm, noise = BASELINES[agent]
        sizes = {"hidden": CONFIG.hidden, "warmup": CONFIG.warmup, "noise": noise}
        return protocol.baseline_curve(algorithm, ENVIRONMENT, **sizes, **shared)
    kind, _, detail = agent.partition("-")
    if detail == "sins":
        named: dict[str, Any] = {"policy_activation": "sin"}
    else:
        named = {"activation": detail} if detail in ACTIVATIONS else {"alpha": float(detail)}
    changes = KINDS[kind] | named
    return protocol.preqn_curve(ENVIRONMENT, dataclasses.replace(CONFIG, **changes), **shared)
