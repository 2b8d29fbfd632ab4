"""How does PreQN compare with its nearest relatives on simulated robots in the first 100,000 steps.

The protocol of the study `mujoco`, with the controls that it lacks and five seeds, 3 to 7; that study has 0 to 2. There
will be no more. HalfCheetah-v5, Hopper-v5 and Swimmer-v5; the first 10,000 steps are random, then one update of 100
transitions after each. Every 5,000 steps five episodes without noise, the same initial states for all agents with the
same seed. All networks have two hidden layers of 256 units. Adam moves all policies. All but SAC explore with noise of
standard deviation 0.1. Two of ours were chosen on robots of this study: ``preqn-glorot`` by the study `dials`, and tanh
after the study `ablation`. The rest we did not tune on these tasks. The defaults of the baselines come from papers
about tasks like these, with another size of minibatch.

- ``preqn``: our PreQN (`mujoco.CONFIG`) with sines in Q; ``preqn-tanh``: the same with tanh in Q; ``preqn-glorot``: the
  same as ``preqn`` with the first weights that won the study `dials`.
- ``adam``: as ``preqn``, but Adam with step size 1e-3 takes the mean semi-gradient, in place of the inverse of the
  kernel and the line search. Still one Q and no target network.
- ``ddpg``, ``td3``, ``sac``: of stable-baselines3 with their own defaults but for the sizes and the random steps above.

In what DDPG differs from ``adam``: (1) its targets come from copies of Q and of the policy that go 0.005 of the way
after each update; (2) its Q has rectifiers. From ``preqn`` it differs in that Adam takes the place of the inverse and
of the line search as well. TD3 differs from DDPG in (3) a second critic, and the smaller of the two values in the
target; (4) noise on the action in the target, of standard deviation 0.2 and cut at 0.5; (5) a step of the policy, and
of the copies, at every second update only. SAC has two critics and copies of them, a policy that is random, an entropy
in its objective, its own way to explore, and Adam with step size 3e-4.

What else is unequal: ours end as diverged when a value passes 1e6, the baselines when an action is no number. The
random actions of DDPG and TD3 at the start have the noise of later ones, ours and those of SAC have none. Equal seeds
mean equal evaluations, and for our agents but ``preqn-glorot`` equal first weights; the baselines draw their own. A run
of ours that was interrupted goes on bit for bit. A baseline's does not, and its results say that it was `resumed`; none
of those that are kept does.

What is measured, decided before any of these runs was read:

- *The score of a run* is its mean return over the last ten evaluations, that is the second half of a run. A run that
  did not finish counts as the worst evaluation of any run on its robot, at any step (`protocol.late_returns`). The unit
  on each robot is the mean score of TD3 in the study `mujoco`.
- *Compared* are the pairs of `COMPARED`, by `comparison.compared`, on the three robots together and on each alone
  (`judged`). There are three verdicts, of ``preqn`` beside ``adam``, ``ddpg`` and ``td3`` on the three together
  (`PRIMARY`); all else describes. An interquartile mean over three robots can leave out most runs of one, so ``ahead``
  or ``behind`` is a verdict if the mean without trimming says the same, and not else. Neither keeps one robot from
  outweighing two: what TD3 earns is a small unit on the swimmer. So each robot stands beside each verdict.
- *What could be seen* follows from the largest spread of any agent of the study `mujoco` on each robot, three seeds; of
  a verdict it is the larger of what the interquartile mean and the mean find.
- ``preqn-tanh`` and ``preqn-glorot`` have no counterpart under Adam. What they earn is not put down to the inverse.

One row for each evaluation: `step`, `return`, `ending`, and for our agents the metrics of the updates since the row
before, as `preqn.PreQN.update` names them. A run that diverged ends with a row without a return.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from divergence_notes._extras import needs

with needs("studies"):
    from divergence_notes.studies import comparison, dials, mujoco, protocol, swing_up

if TYPE_CHECKING:
    import pandas

CHANGES = {
    "preqn": {},
    "preqn-tanh": {"activation": "tanh"},
    "preqn-glorot": dials.VARIANTS["glorot"],
    "adam": swing_up.NO_INVERSE | {"optimizer": "adam", "alpha": 1e-3},
}
"""What our agents change in `mujoco.CONFIG`."""
PARAMETERS = {
    "seed": tuple(range(3, 8)),
    "environment": ("HalfCheetah-v5", "Hopper-v5", "Swimmer-v5"),
    "agent": (*CHANGES, *swing_up.BASELINES),
}
PRIMARY = (("preqn", "adam"), ("preqn", "ddpg"), ("preqn", "td3"))
"""The pairs of agents that the study is for."""
COMPARED = (
    *PRIMARY,
    ("preqn-tanh", "preqn"),
    ("preqn-glorot", "preqn"),
    ("adam", "ddpg"),
    *((agent, "td3") for agent in ("preqn-tanh", "preqn-glorot", "adam", "ddpg", "sac")),
)
"""Which agents are compared with which."""
SECONDS = {"preqn": 520, "preqn-tanh": 560, "preqn-glorot": 520, "adam": 540, "ddpg": 560, "td3": 560, "sac": 880}
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


def scores(runs: "pandas.DataFrame", *, pilot: "pandas.DataFrame") -> dict[str, list[np.ndarray]]:
    """Return the scores of each agent of which every run is there, in units of the pilot.

    Parameters
    ----------
    runs : DataFrame
        Results of this study.
    pilot : DataFrame
        Results of the study `mujoco`.

    Returns
    -------
    dict
        From the name of an agent to an array for each robot, in the order of `PARAMETERS`. 1 is the mean score of TD3
        in the pilot.
    """
    late, unit = _late(runs).unstack("agent"), _unit(pilot)
    grid = {"index": PARAMETERS["environment"], "columns": list(PARAMETERS["seed"])}
    found = {agent: late[agent].unstack("seed").reindex(**grid) for agent in PARAMETERS["agent"] if agent in late}
    whole = {agent: list(table.to_numpy()) for agent, table in found.items() if table.notna().all(axis=None)}
    return {agent: comparison.normalised(tasks, by=unit) for agent, tasks in whole.items()}


def judged(
    runs: "pandas.DataFrame", *, pilot: "pandas.DataFrame", rng: np.random.Generator, trim: float | int = 0.25
) -> "pandas.DataFrame":
    """Return what the protocol says of the pairs of `COMPARED`.

    Parameters
    ----------
    runs, pilot : DataFrame
        As for `scores`.
    rng, trim
        As for `comparison.compared`.

    Returns
    -------
    DataFrame
        As `comparison.compared`, in units of the pilot, indexed by where, ``"together"`` and then each robot, and by
        the two agents. `verdict` is None but for the pairs of `PRIMARY` together, where it is that of `agreed`. In the
        rows of all robots together `mean`, `mean_low` and `mean_high` are the difference of the means without trimming,
        and `smallest` is the larger of what the two find. Pairs of which runs are missing are left out.
    """
    import pandas

    found, spread = scores(runs, pilot=pilot), spreads(pilot)
    pairs = [pair for pair in COMPARED if found.keys() >= {*pair}]
    together = comparison.compared(found, pairs, spreads=spread, rng=rng, trim=trim)
    means = comparison.compared(found, pairs, spreads=spread, rng=rng, trim=0)
    together[["mean", "mean_low", "mean_high"]] = means[["difference", "low", "high"]]
    together["smallest"] = np.maximum(together["smallest"], means["smallest"])
    said = zip(together["verdict"], means["verdict"], strict=True)
    together["verdict"] = [agreed(*both) if pair in PRIMARY else None for pair, both in zip(pairs, said, strict=True)]
    tables = {"together": together}
    for k, robot in enumerate(PARAMETERS["environment"]):
        alone = {agent: tasks[k] for agent, tasks in found.items()}
        tables[robot] = comparison.compared(alone, pairs, spreads=spread[k], rng=rng, trim=trim).assign(verdict=None)
    index = [(where, *pair) for where in tables for pair in pairs]
    return pandas.concat(tables).set_axis(pandas.MultiIndex.from_tuples(index, names=["where", "first", "second"]))


def agreed(middle: comparison.Verdict, mean: comparison.Verdict) -> comparison.Verdict:
    """Return the verdict of the interquartile mean, if that of the mean is the same, else ``level``.

    Parameters
    ----------
    middle, mean : Verdict
        Of the interquartile mean, which here is that of 9 of 15 runs, and of the mean.

    Returns
    -------
    Verdict
        Within the larger of the two.
    """
    word = middle.word if middle.word == mean.word else "level"
    return comparison.Verdict(word, max(middle.within, mean.within))


def spreads(pilot: "pandas.DataFrame") -> np.ndarray:
    """Return the largest spread of the scores of any agent of the pilot, on each robot.

    Parameters
    ----------
    pilot : DataFrame
        As for `scores`.

    Returns
    -------
    ndarray of shape (3,)
        Standard deviations, in the order of `PARAMETERS` and the units of `scores`.
    """
    largest = _late(pilot).groupby(["environment", "agent"]).std().groupby("environment").max()
    each = [largest[[robot]].to_numpy() for robot in PARAMETERS["environment"]]
    return np.concatenate(comparison.normalised(each, by=_unit(pilot)))


def _late(runs: "pandas.DataFrame") -> "pandas.Series":
    """Return what each run earned in its second half, by environment, agent and seed."""
    return protocol.late_returns(runs, after=STEPS // 2, by="agent")


def _unit(pilot: "pandas.DataFrame") -> list[np.ndarray]:
    """Return the returns of TD3 in the pilot, whose mean is the unit, on each robot."""
    late = _late(pilot)
    return [late[robot, "td3"].to_numpy() for robot in PARAMETERS["environment"]]
