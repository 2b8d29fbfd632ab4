"""What the studies of control share: one protocol of training and evaluation for our agents and for their baselines.

A baseline is an algorithm of stable-baselines3 with its own code and defaults. It gets the same widths, the same random
steps at the start, and the same evaluations as ours: every so many steps, a few episodes without noise in an
environment of its own, from the same initial states every time and for every agent with the same seed.
stable-baselines3 evaluates before the update of a step and ours after it, and its first update comes one step later, so
that ours are two updates ahead.
"""

import contextlib
import io
import logging
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from divergence_notes import _files
from divergence_notes._extras import needs

with needs("studies"):
    import gymnasium
    import mujoco
    import torch
    from stable_baselines3.common.buffers import ReplayBuffer
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.noise import NormalActionNoise
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

    from divergence_notes import preqn, training


if TYPE_CHECKING:
    import pandas

ALIKE = 1e-3
"""Returns that are less than this apart are taken for the same."""


@contextlib.contextmanager
def mujoco_in_the_log() -> Iterator[None]:
    """Keep MuJoCo from writing a file of its own; that a model file is old-fashioned is nobody's concern here.

    Yields
    ------
    None
        While it lasts, MuJoCo's warnings go to the log.
    """

    def warn(message: str) -> None:
        logging.getLogger("mujoco").log(logging.DEBUG if "is deprecated" in message else logging.WARNING, message)

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(warn)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def preqn_curve(
    env_id: str, config: preqn.PreQNConfig, *, steps: int, seed: int, eval_every: int, eval_episodes: int, **more: Any
) -> "pandas.DataFrame":
    """Train a PreQN and return its curve.

    Parameters
    ----------
    env_id : str
        Name of a registered environment.
    config : PreQNConfig
        The settings.
    steps, seed, eval_every, eval_episodes
        As in `training.learn`.
    **more
        What else `preqn.train` takes.

    Returns
    -------
    DataFrame
        The curve, and the ``ending`` of the run in a last column.
    """
    evaluation = {"eval_every": eval_every, "eval_episodes": eval_episodes}
    with mujoco_in_the_log():
        run = preqn.train(env_id, config=config, steps=steps, seed=seed, **evaluation, **more)
    return run.curve.assign(ending=run.ending)


def baseline_curve(
    algorithm: type[OffPolicyAlgorithm],
    env_id: str,
    *,
    steps: int,
    seed: int,
    hidden: tuple[int, ...],
    warmup: int,
    eval_every: int,
    eval_episodes: int,
    noise: float | None = None,
    callbacks: tuple[BaseCallback, ...] = (),
    checkpoint: Path | None = None,
    **settings: Any,
) -> "pandas.DataFrame":
    """Train an algorithm of stable-baselines3 and return its curve.

    Parameters
    ----------
    algorithm : type
        TD3, DDPG, SAC, or another one with a replay buffer.
    env_id : str
        Name of a registered environment with continuous actions.
    steps, seed
        As in `training.learn`.
    hidden : tuple of int
        Widths of the hidden layers of all its networks.
    warmup : int
        Random steps before the first update.
    eval_every, eval_episodes
        As in `training.learn`.
    noise : float, optional
        Standard deviation of Gaussian noise on exploring actions, in units of half their range; none by default.
    callbacks : tuple of BaseCallback
        What else should watch.
    checkpoint : path, optional
        A file for the run at a moment, written every `training.CHECKPOINT_EVERY` seconds. Where it is there already,
        the run goes on from it: with the networks, optimisers, memory and counts that it had, but in a new episode and
        with other random numbers, so not as if it had never stopped. Part of it is a file of stable-baselines3, in
        which code can run: never take one from somebody else.
    **settings
        Anything else that the algorithm takes.

    Returns
    -------
    DataFrame
        Columns `step`, `return`, and `ending`: "finished", or "diverged" for a run with an action that is not finite.
        That one ends there, with a row without a return. A run that went on from a file has a column `resumed` besides.
    """
    with mujoco_in_the_log(), gymnasium.make(env_id) as env:
        shape = env.action_space.shape
        agent = algorithm(
            "MlpPolicy",
            env,
            seed=seed,
            learning_starts=warmup,
            policy_kwargs={"net_arch": list(hidden)},
            action_noise=None if noise is None else NormalActionNoise(np.zeros(shape), np.full(shape, noise)),
            device="cpu",
            **settings,
        )
        watch = _Evaluations(env_id, steps=steps, seed=seed, every=eval_every, episodes=eval_episodes)
        watching: list[BaseCallback] = [watch, *callbacks]
        resumed = False
        if checkpoint is not None:
            keeper = _Checkpoints(checkpoint, watch)
            watching.append(keeper)
            if resumed := checkpoint.exists():
                agent = keeper.restore(agent)
        try:
            agent.learn(steps - agent.num_timesteps, callback=watching, reset_num_timesteps=False)
        except ValueError:  # so a policy that is random refuses to draw from what is no distribution
            if all(p.isfinite().all() for p in agent.policy.parameters()):
                raise
            watch.diverged()
    import pandas

    return pandas.DataFrame(watch.rows).assign(ending=watch.ending, **({"resumed": True} if resumed else {}))


def late_returns(runs: "pandas.DataFrame", *, after: int, by: str) -> "pandas.Series":
    """Return what each run earned late in training.

    Parameters
    ----------
    runs : DataFrame
        Of a study: columns `environment`, `seed`, `step`, `return`, `ending`, and the one named `by`.
    after : int
        The evaluations after this step count.
    by : str
        The column that tells agents or variants apart.

    Returns
    -------
    Series
        Indexed by environment, `by` and seed: the mean return. A run that did not finish counts as the worst evaluation
        of any run in its environment, at any step, its own among them.
    """
    names = ["environment", by, "seed"]
    endings = runs.groupby(names)["ending"].last()
    means = runs[runs["step"] > after].groupby(names)["return"].mean().reindex(endings.index)
    worst = runs.groupby("environment")["return"].min().reindex(endings.index.get_level_values("environment"))
    return means.where(endings == "finished", worst.to_numpy())


def as_before(returns: "pandas.Series") -> "pandas.Series":
    """Return which evaluations of a run are as the one before.

    Parameters
    ----------
    returns : Series
        Of one run, in the order of its steps.

    Returns
    -------
    Series of bool
        Whether the return differs from the one before by less than `ALIKE`. The first one has none before it.
    """
    return returns.diff().abs() < ALIKE


class _Evaluations(BaseCallback):
    """Play episodes without noise every so many steps, and after the last one."""

    def __init__(self, env_id: str, *, steps: int, seed: int, every: int, episodes: int):
        super().__init__()
        self.env_id, self.steps, self.every, self.episodes = env_id, steps, every, episodes
        self.eval_seed = training.seeds(np.random.default_rng(seed))[1]
        self.rows: list[dict[str, float]] = []
        self.ending = "finished"

    def diverged(self) -> None:
        """End the run with a row without a return."""
        self.rows.append({"step": self.num_timesteps, "return": float("nan")})
        self.ending = "diverged"

    def _act(self, obs: np.ndarray) -> np.ndarray:
        return self.model.predict(obs, deterministic=True)[0]

    def _on_step(self) -> bool:
        if not np.isfinite(self.locals["actions"]).all():
            self.diverged()
            return False
        if self.num_timesteps % self.every == 0 or self.num_timesteps == self.steps:
            returns = training.evaluate(self.env_id, self._act, episodes=self.episodes, seed=self.eval_seed)
            self.rows.append({"step": self.num_timesteps, "return": float(returns.mean())})
        return True


class _Checkpoints(BaseCallback):
    """Write the agent, its memory and its evaluations to a file every so many seconds."""

    def __init__(self, path: Path, watch: _Evaluations):
        super().__init__()
        self.path, self.watch, self.written = path, watch, time.monotonic()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        """Write between two steps, when the transition of the last is remembered and its update is made."""
        if time.monotonic() - self.written >= training.CHECKPOINT_EVERY:
            model, buffer = io.BytesIO(), self.model.replay_buffer
            self.model.save(model)
            held = {name: torch.from_numpy(part[: buffer.size()].copy()) for name, part in _arrays(buffer).items()}
            whole = {"model": torch.frombuffer(bytearray(model.getvalue()), dtype=torch.uint8), "memory": held}
            _files.write(self.path, partial(torch.save, whole | {"rows": self.watch.rows, "pos": buffer.pos}))
            self.written = time.monotonic()

    def restore(self, agent: OffPolicyAlgorithm) -> OffPolicyAlgorithm:
        """Return the agent of the file, with the environment and the settings of the one given."""
        saved = torch.load(self.path, weights_only=True)
        found = type(agent).load(io.BytesIO(saved["model"].numpy().tobytes()), env=agent.env, device="cpu")
        found.set_random_seed((found.seed + found.num_timesteps) % 2**32)  # not those of the beginning once more
        buffer = found.replay_buffer
        for name, part in _arrays(buffer).items():
            part[: len(saved["memory"][name])] = saved["memory"][name].numpy()
        buffer.pos, buffer.full = saved["pos"], len(saved["memory"]["rewards"]) == buffer.buffer_size
        self.watch.rows = saved["rows"]
        return found


def _arrays(buffer: ReplayBuffer) -> dict[str, np.ndarray]:
    """Return what a replay buffer keeps of each transition."""
    names = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
    return {name: getattr(buffer, name) for name in names}
