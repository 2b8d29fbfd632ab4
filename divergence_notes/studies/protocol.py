"""What the studies of control share: one protocol of training and evaluation for our agents and for their baselines.

A baseline is an algorithm of stable-baselines3 with its own code and defaults. It gets the same widths, the same random
steps at the start, and the same evaluations as ours: every so many steps, a few episodes without noise in an
environment of its own, from the same initial states every time and for every agent with the same seed.
stable-baselines3 evaluates before the update of a step and ours after it, so that ours is one update ahead.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from divergence_notes._extras import needs

with needs("studies"):
    import gymnasium
    import mujoco
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.noise import NormalActionNoise
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

    from divergence_notes import preqn, training


if TYPE_CHECKING:
    import pandas


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
    **settings
        Anything else that the algorithm takes.

    Returns
    -------
    DataFrame
        Columns `step`, `return`, and `ending`, which is "finished".
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
        agent.learn(steps, callback=[watch, *callbacks])
    import pandas

    return pandas.DataFrame(watch.rows).assign(ending="finished")


class _Evaluations(BaseCallback):
    """Play episodes without noise every so many steps, and after the last one."""

    def __init__(self, env_id: str, *, steps: int, seed: int, every: int, episodes: int):
        super().__init__()
        self.env_id, self.steps, self.every, self.episodes = env_id, steps, every, episodes
        self.eval_seed = training.seeds(np.random.default_rng(seed))[1]
        self.rows: list[dict[str, float]] = []

    def _act(self, obs: np.ndarray) -> np.ndarray:
        return self.model.predict(obs, deterministic=True)[0]

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every == 0 or self.num_timesteps == self.steps:
            returns = training.evaluate(self.env_id, self._act, episodes=self.episodes, seed=self.eval_seed)
            self.rows.append({"step": self.num_timesteps, "return": returns.mean()})
        return True
