"""A callback that looks into the values of one of our own agents while `training` lets it learn.

What a record is, says `probe`; when it is made, and of which transitions, is here. What it costs the run is time: its
draws are its own. For an algorithm of stable-baselines3 there is `monitor`.
"""

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from divergence_notes import _checks
from divergence_notes._extras import needs

with needs("preqn"):
    import torch

    from divergence_notes import dqn, preqn, replay
    from divergence_notes.probe import Probe, due
    from divergence_notes.training import Agent, Moment

if TYPE_CHECKING:
    import pandas

_RECENT = 50_000
"""Steps, the latest ones, whose returns are summed up at a record."""


def probe(agent: Agent, **settings: Any) -> Probe:
    """Return a probe in the values of an agent.

    Parameters
    ----------
    agent : DQN or PreQN
        It, or what inherits from it.
    **settings
        What else `probe.Probe` takes: ``r_max``, ``pairs``.

    Returns
    -------
    Probe
        With no record yet. Its batches have the names that `as_batch` gives.

    Raises
    ------
    TypeError
        If the agent is none of these: then make a `probe.Probe` by hand.
    """
    if isinstance(agent, dqn.DQN):
        others = () if agent.target is agent.net else (agent.target,)

        def bootstrapped(batch: Any) -> torch.Tensor:
            return dqn.td_target(agent.target, _ours(batch), gamma=agent.config.gamma)

        return Probe(agent.net, bootstrapped, gamma=agent.config.gamma, others=others, **settings)
    if isinstance(agent, preqn.PreQN):
        given: dict[str, Any] = {"gamma": agent.config.gamma}
        if agent.policy is not None:
            given["values"] = lambda net, obs, action: net(agent.inputs(obs, action))
            given["policy"] = lambda obs: torch.tanh(agent.policy(obs))
        return Probe(agent.net, lambda batch: agent.targets(_ours(batch)), **given, **settings)
    raise TypeError(f"agent must be a DQN or a PreQN, got {type(agent).__name__}: make a probe.Probe by hand")


def renewals(agent: Agent) -> tuple[int, float]:
    """Return how often the networks behind the targets were renewed so far, and the share replaced each time.

    Parameters
    ----------
    agent : DQN or PreQN
        The agent.

    Returns
    -------
    count : int
        The number of updates where there is no target network.
    share : float
        From 0 to 1.
    """
    if isinstance(agent, dqn.DQN):
        return agent.updates // (agent.config.target_every or 1), 1.0
    return agent.updates, float(agent.config.target_rate)


def as_batch(batch: replay.Batch) -> dict[str, torch.Tensor]:
    """Return a batch by the names that a probe asks for.

    Parameters
    ----------
    batch : Batch
        As the memory draws it.

    Returns
    -------
    dict of str to tensor
        On the same device.
    """
    return {
        "observations": batch.obs,
        "actions": batch.action,
        "next_observations": batch.next_obs,
        "rewards": batch.reward,
        "dones": batch.terminated,
    }


def _ours(batch: dict[str, torch.Tensor]) -> replay.Batch:
    names = ("observations", "actions", "rewards", "next_observations", "dones")
    return replay.Batch(*(batch[name] for name in names))


class Watch:
    """A callback of `training.learn` that makes a record of the agent's values every so many steps.

    Parameters
    ----------
    every : int, optional
        Steps from one record to the next. The first is made at the first update after so many; by default at the first
        update of all, and the others as `probe.due` says: close together at first, and later every 1000 steps.
    batch_size : int
        Transitions that are drawn from the memory for each.
    seed : int
        For these draws: the callback has a generator of its own, and the run goes as without it, to the last bit.
    **settings
        As of `probe`.

    Notes
    -----
    A record is made after the update of its step, and its ``alignment`` is about the next one. ``earned_low``,
    ``earned_high`` and what is said about the starts of episodes are of the latest 50 000 steps that this callback was
    told of, from the first whole episode on. A run that goes on from a checkpoint begins a new history here.
    """

    def __init__(self, *, every: int | None = None, batch_size: int = 128, seed: int = 0, **settings: Any) -> None:
        self.every = None if every is None else _checks.integer("every", every, low=1)
        self.batch_size = _checks.integer("batch_size", batch_size, low=1)
        self._rng = np.random.default_rng(_checks.integer("seed", seed, low=0))
        self._settings = settings
        self._told: deque[tuple] = deque(maxlen=_RECENT)
        self._agent: Agent | None = None
        self._began = True
        self.probe: Probe | None = None
        """What makes the records; None before the first step."""

    def __call__(self, moment: Moment) -> None:
        """Take a step into account, and make a record where one is due.

        Parameters
        ----------
        moment : Moment
            As `training.learn` tells of it.

        Raises
        ------
        TypeError
            At the first step, if the agent is one that `probe` refuses.
        """
        if self.probe is None or moment.agent is not self._agent:
            self.probe, self._agent = probe(moment.agent, **self._settings), moment.agent
            self._told.clear()
            self._began, self._due, self._first = moment.step == 1, moment.step - 1 + (self.every or 0), None
            if not moment.metrics:
                self.probe.keep()  # what it makes of things before it has learned anything is no cause for alarm
        if self._began:
            obs, action, reward, _, terminated = moment.transition
            self._told.append((obs, action, reward, terminated, moment.over))
        self._began = self._began or moment.over  # what is left of an episode is none
        if not moment.metrics:
            return
        self.probe.after()
        if moment.step >= self._due:
            self._first = moment.step if self._first is None else self._first
            self._due = due(moment.step, first=self._first, every=self.every)
            self._look(moment)

    def _look(self, moment: Moment) -> None:
        with self.probe.unharmed("what was earned"):
            self._say_what_was_earned()
        batch = moment.memory.sample(self.batch_size, rng=self._rng)
        where = next(moment.agent.net.parameters()).device
        count, share = renewals(moment.agent)
        self.probe(as_batch(batch.to(where)), step=moment.step, renewals=count, share=share)

    def _say_what_was_earned(self) -> None:
        steps = list(self._told)
        if len(steps) == _RECENT:  # the first of them may be in the middle of an episode
            over = [step[-1] for step in steps]
            steps = steps[over.index(True) + 1 :] if True in over else []
        if steps:
            obs, action, reward, terminated, over = (np.array(part) for part in zip(*steps, strict=True))
            self.probe.saw(reward, terminated, over & ~terminated, observations=obs, actions=action)

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of the agent that `diagnosis.diagnose` knows how to read; none before the first step."""
        if self._agent is None:
            return {}
        config, ours = self._agent.config, isinstance(self._agent, preqn.PreQN)
        found = {
            "algorithm": type(self._agent).__name__,
            "gamma": float(config.gamma),
            "batch_size": config.batch_size,
            "updates_per_step": 1 / config.update_every,
            "offline": False,
            "actor": ours and self._agent.policy is not None,
            "actor_moves_critic": False,
            "own_targets": ours,
            "own_steps": ours,
            "two_modes": False,
        }
        return found if ours else found | {"learning_rate": float(config.learning_rate), "optimizer": "Adam"}

    @property
    def history(self) -> "pandas.DataFrame":
        """Return one row for each record so far, with the columns of `probe.COLUMNS`."""
        if self.probe is None:
            import pandas

            from divergence_notes.probe import COLUMNS

            return pandas.DataFrame([], columns=list(COLUMNS))
        return self.probe.history
