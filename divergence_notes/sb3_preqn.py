"""PreQN as a TD3 of stable-baselines3, for its vector environments, callbacks, buffers and files.

Solver, direction and line search are those of `preqn`, whose agent is the one to read; here is only `train`. It is
watched by `monitor` as any TD3 is.
"""

import math
from collections.abc import Mapping
from typing import Any

from divergence_notes import _checks
from divergence_notes._extras import needs

with needs("monitor"):
    import numpy as np
    import torch
    from stable_baselines3 import TD3
    from stable_baselines3.common.type_aliases import GymEnv, RolloutReturn, Schedule
    from stable_baselines3.common.utils import polyak_update
    from stable_baselines3.td3.policies import TD3Policy

    from divergence_notes import networks, ntk, preqn
    from divergence_notes.training import Ending

_OF_TD3 = ("target_policy_noise", "target_noise_clip")
"""What TD3 has against values that are too large, and PreQN does without."""


class PreconditionedTD3(TD3):
    """The TD3 of stable-baselines3 with the update of PreQN: the kernel of each minibatch is undone.

    Parameters
    ----------
    policy : str or type
        "MlpPolicy", or "MultiInputPolicy" for a dictionary of vectors; what it makes of an observation before the
        first layer must have no parameters, so there are no images.
    env : gymnasium.Env, VecEnv or str
        With continuous actions.
    learning_rate : float or callable
        Of Adam on the actor. Nothing of it applies to the critic, which has no optimiser.
    alpha, eta, shrink, max_backtracks, solver, jitter, bound
        As in `preqn.PreQNConfig`, whose defaults they have.
    tau : float
        Share of the way to the critic and to the actor that the networks behind the targets go after each update, in
        (0, 1]. At 1 there is no target network.
    policy_delay : int
        Updates of the critic from one step of the actor to the next.
    policy_kwargs : dict, optional
        As of TD3. Two defaults are others: one critic, and sines in both networks (`networks.Sine`).
    **settings
        What else TD3 takes, but for noise on the actions of its targets: PreQN has none.

    Attributes
    ----------
    ending : str or None
        "diverged" once a value was not finite or beyond `bound`: the update in which that was seen was not made, no
        other is, and ``learn`` ends. None until then.

    Raises
    ------
    TypeError
        If a setting belongs to TD3 alone.
    ValueError
        If a number is out of range, or what comes before the first layer has parameters.

    Notes
    -----
    With one critic, `tau` 1, and the same numbers elsewhere, an update is that of `preqn.PreQN`, to rounding. With more
    of them, ``policy_kwargs={"n_critics": 2}``, each undoes the kernel of its own and has a line search of its own; all
    are drawn to the smallest of them, and the actor climbs the first, as in TD3. That is no longer the algorithm of the
    paper.

    An agent that was saved by ``save`` is read by the library's own ``load``, which runs code in the file: never load
    one from somebody else. `preqn.PreQN.load` reads its files as data.

    The logger has ``train/td_error``, root mean square; ``train/alignment`` of change and TD errors, and the
    ``train/accepted`` step size, 0 if rejected, of the first critic; and TD3's own.
    """

    target_update_interval = 1

    def __init__(
        self,
        policy: str | type[TD3Policy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-3,
        *,
        alpha: float | int = preqn.PreQNConfig.alpha,
        eta: float | int = preqn.PreQNConfig.eta,
        shrink: float | int = preqn.PreQNConfig.shrink,
        max_backtracks: int = preqn.PreQNConfig.max_backtracks,
        solver: str = preqn.PreQNConfig.solver,
        jitter: float | int = preqn.PreQNConfig.jitter,
        bound: float | int = preqn.PreQNConfig.bound,
        tau: float | int = 1,
        policy_delay: int = 1,
        policy_kwargs: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        for name in _OF_TD3:
            if name in settings:
                raise TypeError(f"{name} is TD3's: PreQN has no noise in its targets, leave it out")
        numbers = {"alpha": alpha, "eta": eta, "shrink": shrink, "max_backtracks": max_backtracks, "solver": solver}
        numbers |= {"jitter": jitter, "bound": bound}
        preqn.PreQNConfig(**numbers)  # raises what is raised
        _checks.scalar("tau", tau, low=0, high=1, low_open=True)
        _checks.integer("policy_delay", policy_delay, low=1)
        self.alpha, self.eta, self.shrink, self.max_backtracks = alpha, eta, shrink, max_backtracks
        self.solver, self.jitter, self.bound = solver, jitter, bound
        self.ending: Ending | None = None
        super().__init__(
            policy,
            env,
            learning_rate,
            tau=tau,
            policy_delay=policy_delay,
            target_policy_noise=0.0,
            policy_kwargs={"n_critics": 1, "activation_fn": networks.Sine} | dict(policy_kwargs or {}),
            **settings,
        )

    def _setup_model(self) -> None:
        super()._setup_model()
        before = self.critic.features_extractor
        count = sum(p.numel() for p in before.parameters())
        if count:
            raise ValueError(
                f"policy must have no parameters before the first layer, {type(before).__name__} has {count}: "
                "the kernel that is undone is that of the layers behind it"
            )
        self._checked = False

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Take preconditioned steps of each critic, and, at every so many of them, steps of the actor.

        Parameters
        ----------
        gradient_steps : int
            How many batches are drawn.
        batch_size : int
            Transitions in each.
        """
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.actor.optimizer)
        seen: dict[str, list[float]] = {"td_error": [], "alignment": [], "accepted": [], "actor_loss": []}
        for _ in range(gradient_steps):
            if self.ending is not None:
                break
            data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            steps = self._step(data)
            if steps is None:
                self.ending = "diverged"
                break
            self._n_updates += 1
            for name, value in steps.items():
                seen[name].append(value)
            if self._n_updates % self.policy_delay == 0:
                loss = -self.critic.q1_forward(data.observations, self.actor(data.observations)).mean()
                seen["actor_loss"].append(loss.item())
                self.actor.optimizer.zero_grad()
                loss.backward()
                if torch.isfinite(torch.nn.utils.get_total_norm([p.grad for p in self.actor.parameters()])):
                    self.actor.optimizer.step()
            polyak_update(self.critic.parameters(), self.critic_target.parameters(), self.tau)
            polyak_update(self.actor.parameters(), self.actor_target.parameters(), self.tau)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, values in seen.items():
            if values:
                self.logger.record(f"train/{name}", float(np.mean(values)))

    def _step(self, data: Any) -> dict[str, float] | None:
        """Move the critics; return what happened to the first, or None, and move none, where values leave the bound."""
        critic = self.critic
        with torch.no_grad():
            after = torch.cat(
                self.critic_target(data.next_observations, self.actor_target(data.next_observations)), dim=1
            )
            discounts = self.gamma if data.discounts is None else data.discounts
            target = data.rewards + (1 - data.dones) * discounts * after.min(dim=1, keepdim=True).values
            features = critic.extract_features(data.observations, critic.features_extractor)
            x = torch.cat([features, data.actions], dim=1)
        search = {name: getattr(self, name) for name in ("alpha", "eta", "shrink", "max_backtracks")}
        before = [p.detach().clone() for p in critic.parameters()]
        found: dict[str, float] = {}
        for net in critic.q_networks:
            linear = ntk.linearize(net, x, check=not self._checked)
            td_error = target[:, 0] - linear.values
            sizes = [float(linear.values.abs().max()), float(td_error.abs().max())]
            if all(size <= self.bound for size in sizes):
                way = preqn.direction(linear, td_error, solver=self.solver, jitter=self.jitter)
                step = preqn.line_search(net, x, linear.values, td_error, way.slopes, **search)
                sizes.append(float((linear.values + step.change).abs().max()))
            if not all(size <= self.bound for size in sizes):  # nor is nan
                with torch.no_grad():
                    for p, kept in zip(critic.parameters(), before, strict=True):
                        p.copy_(kept)
                return None
            found = found or {
                "td_error": math.sqrt(float(td_error.square().mean())),
                "alignment": step.alignment,
                "accepted": step.alpha,
            }
        self._checked = True
        return found

    def collect_rollouts(self, *given: Any, **named: Any) -> RolloutReturn:
        """Collect experience as TD3 does, and none once the run has diverged.

        Parameters
        ----------
        *given, **named
            As of TD3.

        Returns
        -------
        RolloutReturn
            With which ``learn`` goes on, or ends.
        """
        if self.ending is not None:
            return RolloutReturn(0, 0, continue_training=False)
        return super().collect_rollouts(*given, **named)
