"""Does an update of Q move values towards their targets: on its minibatch, and on transitions outside of it.

For each update, the cosine of the angle between the change of the values and the TD errors before it, once on the
minibatch that the update saw and once on as many other transitions, drawn from the replay buffer for this only (with
replacement: while the buffer is small, some of them are in the minibatch too, which flatters the second number). 1: the
values move in proportion to their errors; 0: at a right angle; below 0: away from their targets.

- ``preqn-sin``, ``preqn-relu``: PreQN as in the studies `swing_up` and `mujoco`;
- ``td3``, ``ddpg``: of stable-baselines3, as there. Q is the first critic; the TD errors are those of the targets that
  the algorithm computes, with its target networks, without the noise that smooths TD3's.

Pendulum-v1, 10,000 steps, the first 1,000 random; HalfCheetah-v5, 25,000 steps, the first 5,000 random. For PreQN every
update is measured, for the baselines one in 20. One row for every tenth part of a run after the random steps: `step`
at its end, `on` and `off`, the mean cosines of the updates since the row before, and `return`.
"""

import copy
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from divergence_notes import diagnostics
from divergence_notes._extras import needs

with needs("studies"):
    import torch
    from stable_baselines3 import DDPG, TD3
    from stable_baselines3.common.buffers import ReplayBuffer
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.type_aliases import ReplayBufferSamples

    from divergence_notes.studies import ablation, protocol

if TYPE_CHECKING:
    import pandas

PARAMETERS = {
    "seed": tuple(range(3)),
    "environment": ("Pendulum-v1", "HalfCheetah-v5"),
    "agent": ("preqn-sin", "preqn-relu", "td3", "ddpg"),
}
SECONDS = 90
FLOAT_FORMAT = "%.7g"
EVERY = 20
"""Environment steps from one measured update of a baseline to the next."""


def run(*, seed: int, environment: str, agent: str, steps: int | None = None) -> "pandas.DataFrame":
    """Train one agent and return its cosines.

    Parameters
    ----------
    seed : int
        Of everything random.
    environment, agent : str
        As the module's docstring says.
    steps : int, optional
        Environment steps, if not as in the study.

    Returns
    -------
    DataFrame
        Columns `step`, `on`, `off`, `return`.
    """
    config, shared = ablation.BASES[environment]
    steps = shared["steps"] if steps is None else steps
    shared = {"seed": seed, "steps": steps, "eval_every": steps // 10, "eval_episodes": 5}
    kind, _, activation = agent.partition("-")
    if kind == "preqn":
        config = dataclasses.replace(config, activation=activation, held_out=config.batch_size)
        curve = protocol.preqn_curve(environment, config, **shared)
        curve = curve.rename(columns={"alignment": "on", "off_alignment": "off"})
        return curve[curve["step"] > config.warmup].reindex(columns=["step", "on", "off", "return"])
    watch = Alignments(every=EVERY, seed=seed)
    sizes = {"hidden": config.hidden, "warmup": config.warmup, "batch_size": config.batch_size}
    curve = protocol.baseline_curve(
        {"td3": TD3, "ddpg": DDPG}[agent],
        environment,
        noise=config.noise,
        callbacks=(watch,),
        replay_buffer_class=RememberingBuffer,
        **sizes,
        **shared,
    )
    import pandas

    found = pandas.DataFrame(watch.rows)
    found["step"] = np.ceil(found["step"] / shared["eval_every"]) * shared["eval_every"]
    means = found.groupby("step", as_index=False)[["on", "off"]].mean().astype({"step": int})
    return means.merge(curve[["step", "return"]], on="step")


class RememberingBuffer(ReplayBuffer):
    """A replay buffer that still knows the minibatch that it gave last."""

    last: ReplayBufferSamples
    """The minibatch."""

    def sample(self, *arguments, **keywords) -> ReplayBufferSamples:
        """Draw a minibatch as always, and remember it.

        Parameters
        ----------
        *arguments, **keywords
            As those of the class that this one is made from.

        Returns
        -------
        ReplayBufferSamples
            The minibatch, which is also in ``last``.
        """
        self.last = super().sample(*arguments, **keywords)
        return self.last


class Alignments(BaseCallback):
    """Measure what some updates of the first critic of a TD3 or DDPG do, on their minibatch and off it.

    Parameters
    ----------
    every : int
        Environment steps from one measured update to the next.
    seed : int
        Of the transitions off the minibatch: the run's own random numbers are left alone.

    Notes
    -----
    Made for one update after each environment step, and a `RememberingBuffer`.
    """

    def __init__(self, *, every: int, seed: int):
        super().__init__()
        self.every, self.rng = every, np.random.default_rng(seed)
        self.rows: list[dict[str, float]] = []
        self._before = None

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        """Keep the networks as the update will find them."""
        trains = self.num_timesteps > self.model.learning_starts
        self._before = copy.deepcopy(self.model.policy) if trains and self.num_timesteps % self.every == 0 else None

    def _on_rollout_start(self) -> None:
        self._finish()

    def _on_training_end(self) -> None:
        self._finish()

    def _finish(self) -> None:
        if self._before is None:
            return
        buffer, before = self.model.replay_buffer, self._before
        self._before = None
        others = buffer._get_samples(self.rng.integers(buffer.size(), size=len(buffer.last.rewards)))
        cosines = {"on": self._cosine(before, buffer.last), "off": self._cosine(before, others)}
        self.rows.append({"step": self.num_timesteps} | cosines)

    @torch.no_grad()
    def _cosine(self, before: torch.nn.Module, batch: ReplayBufferSamples) -> float:
        action = before.actor_target(batch.next_observations)
        after = torch.cat(before.critic_target(batch.next_observations, action), dim=1).min(dim=1, keepdim=True).values
        q = before.critic.q1_forward(batch.observations, batch.actions)  # (n, 1)
        error = batch.rewards + (1 - batch.dones) * self.model.gamma * after - q
        change = self.model.critic.q1_forward(batch.observations, batch.actions) - q
        return diagnostics.alignment(change[:, 0].double().numpy(), error[:, 0].double().numpy())
