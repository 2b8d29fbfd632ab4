"""What each algorithm of stable-baselines3 and sb3-contrib is asked for a record: values, TD errors, the kernel meant.

One function for each family makes a `probe.Asked`. When they are asked, and how a batch is drawn, says `monitor`; for a
loop of one's own `probe` takes the functions from its owner.
"""

import math
import sys
from typing import Any

from divergence_notes._extras import needs

with needs("monitor"):
    import torch
    from stable_baselines3 import DQN, SAC, TD3
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
    from torch import nn

    from divergence_notes import _passes
    from divergence_notes.probe import Asked

NAMES = "DQN, QR-DQN, DDPG, TD3, SAC, TQC or CrossQ"
"""The algorithms that are known, and with them what inherits from them."""


def asked(model: Any) -> Asked:
    """Return what a model is asked for a record.

    Parameters
    ----------
    model : OffPolicyAlgorithm
        One of `NAMES`; DDPG is a TD3. What inherits from one of them counts as it.

    Returns
    -------
    Asked
        Of the networks that the model has now; what they hold is looked up at each record.

    Raises
    ------
    TypeError
        If the algorithm is another one, or learns no values off-policy.

    Notes
    -----
    DQN: values of all actions, the maximum of the target network, the kernel of the actions taken. QR-DQN: the same
    with the means of the quantiles; so its TD errors are those of the means, of which its loss is not made.

    TD3 and DDPG: values and kernel of the first critic, the smaller one of the target critics at the action of the
    target actor, without the noise that smooths it. SAC: the same at an action that is drawn from the actor, and the
    entropy term. TQC: the mean of the quantiles of the first critic; the mean of those quantiles of all target critics
    that are not dropped, and the entropy term. A learned extractor of features belongs to the kernel where the
    critic's loss trains it, and not where it is shared with the actor.

    CrossQ has no target network: its TD errors are those of the pass in which pairs and the pairs after them are
    normalised together, with copies of the statistics. Its values and its kernel are those of the evaluation mode,
    with the running statistics: only there is a pair a pair of its own. Without a target network its values may
    overshoot early and come back: in three sound runs on Pendulum-v1, with networks of 64-64 units, they left what
    can be earned between updates 300 and 700, in either mode, and not again up to update 1400. There the alarm is
    right about the values; that the run is lost it does not say.
    """
    if isinstance(model, DQN):
        return _discrete(model, "q_net", lambda net, observations: net(observations))
    if isinstance(model, _contrib("QRDQN")):
        return _discrete(model, "quantile_net", lambda net, observations: net(observations).mean(dim=1))
    if isinstance(model, TD3):
        return _continuous(model, _td3_errors, _td3_renewals)
    if isinstance(model, SAC):
        return _continuous(model, _sac_errors, _sac_renewals)
    if isinstance(model, _contrib("TQC")):
        return _continuous(model, _tqc_errors, _sac_renewals)
    if isinstance(model, _contrib("CrossQ")):
        return _continuous(model, _crossq_errors, lambda model: (model._n_updates, 1.0))
    why = "it is none of them" if isinstance(model, OffPolicyAlgorithm) else "it learns no action values off-policy"
    raise TypeError(f"model must be a {NAMES}, got {type(model).__name__}: {why}")


def settings(model: Any) -> dict[str, Any]:
    """Return the settings of a model that `diagnosis.diagnose` knows how to read.

    Parameters
    ----------
    model : OffPolicyAlgorithm
        One of `NAMES`.

    Returns
    -------
    dict
        Some keys of `diagnosis.SETTINGS`, each with a text, a number or a truth value; what cannot be found out is
        left out.
    """
    buffer, frequency = model.replay_buffer, model.train_freq
    optimizer = getattr(model.policy, "optimizer", None) or model.critic.optimizer
    own_steps = hasattr(model, "max_backtracks")  # only `sb3_preqn` has a line search
    found = {
        "algorithm": type(model).__name__,
        "gamma": float(model.gamma),
        "learning_rate": float(optimizer.param_groups[0]["lr"]),
        "optimizer": type(optimizer).__name__,
        "batch_size": int(model.batch_size),
        "tau": float(model.tau),
        "offline": False,
        "weight_decay": float(optimizer.param_groups[0].get("weight_decay", 0.0)),
        "actor": hasattr(model, "actor"),
        "own_targets": own_steps or isinstance(model, _contrib("CrossQ")),
        "own_steps": own_steps,
        "two_modes": isinstance(model, _contrib("CrossQ")),
    }
    if not isinstance(frequency, int) and frequency.unit.value == "step":
        made = frequency.frequency * model.n_envs
        found["updates_per_step"] = model.gradient_steps / made if model.gradient_steps > 0 else 1.0
    if buffer is not None:
        found["time_limits_are_ends"] = not getattr(buffer, "handle_timeout_termination", True)
    limits = [_limit(model, name) for name in ("spec", "_max_episode_steps")]
    if any(limits):
        found["time_limit"] = next(filter(None, limits))
    if hasattr(model, "critic"):
        shared = {id(p) for p in model.critic.parameters()}
        moved = {id(p) for group in model.actor.optimizer.param_groups for p in group["params"]}
        own = {id(p) for p in model.critic.features_extractor.parameters()}
        found["actor_moves_critic"] = bool(shared & moved - own)
    return found


def _limit(model: Any, name: str) -> int | None:
    """Return after how many steps the environment is cut off, as one of its attributes says it."""
    try:
        (told, *_) = model.get_env().get_attr(name)
    except Exception:  # whatever an environment of somebody else's may do
        return None
    limit = told if isinstance(told, int) else getattr(told, "max_episode_steps", None)
    return int(limit) if limit else None


def _contrib(name: str) -> type | tuple:
    """Return a class of sb3-contrib if whoever made the model has imported it."""
    return getattr(sys.modules.get("sb3_contrib"), name, ())


def _discrete(model: Any, name: str, values: Any) -> Asked:
    net, target = getattr(model, name), getattr(model, f"{name}_target")

    def errors(batch: Any) -> tuple[torch.Tensor, None]:
        q = values(net, _clone(batch.observations))
        taken = q.gather(1, batch.actions.long())
        after = values(target, batch.next_observations).max(dim=1, keepdim=True).values
        return (batch.rewards + _discount(model, batch) * after - taken)[:, 0], None

    def renewals() -> tuple[int, float]:
        interval = max(model.target_update_interval // model.n_envs, 1)
        return _counted(model.num_timesteps // model.n_envs // interval, model)

    return Asked(
        net=net,
        values=values,
        errors=errors,
        learner=[net],
        discrete=True,
        modules=(model.policy,),
        renewals=renewals,
        updates=lambda: model._n_updates,
    )


def _continuous(model: Any, errors: Any, renewals: Any) -> Asked:
    critic, soft = model.critic, hasattr(model, "ent_coef")
    learns = [] if critic.share_features_extractor else [critic.features_extractor]

    def policy(observations: Any) -> torch.Tensor:
        return model.actor(observations, deterministic=True) if soft else model.actor(observations)

    def ceiling() -> float:  # no policy on [-1, 1]^d has more entropy than the uniform one
        return _temperature(model) * math.prod(model.action_space.shape) * math.log(2) if soft else 0.0

    return Asked(
        net=critic,
        values=_first,
        errors=lambda batch: errors(model, batch),
        learner=[critic.q_networks[0], *learns],
        discrete=False,
        policy=policy,
        modules=(model.policy,),
        ceiling=ceiling,
        renewals=lambda: renewals(model),
        updates=lambda: model._n_updates,
    )


def _first(critic: nn.Module, observations: Any, actions: torch.Tensor) -> torch.Tensor:
    """Return the values of pairs that the first critic has, (n, 1): the mean, where it has quantiles."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and not critic.share_features_extractor):
        features = critic.extract_features(observations, critic.features_extractor)
    return critic.q_networks[0](torch.cat([features, actions], dim=1)).mean(dim=1, keepdim=True)


def _clone(part: Any) -> Any:
    return {name: each.clone() for name, each in part.items()} if isinstance(part, dict) else part.clone()


def _discount(model: Any, batch: Any) -> torch.Tensor:
    return (1 - batch.dones) * (model.gamma if batch.discounts is None else batch.discounts)  # (n, 1)


def _temperature(model: Any) -> float:
    """Return the weight that entropy has."""
    learned = model.ent_coef_optimizer is not None and model.log_ent_coef is not None
    return float(model.log_ent_coef.detach().exp()) if learned else float(model.ent_coef_tensor)


def _drawn(model: Any, observations: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return actions that the actor draws, and what their entropy is paid, (n, 1)."""
    actions, log_probability = model.actor.action_log_prob(observations)
    return actions, -_temperature(model) * log_probability.reshape(-1, 1)


def _td3_errors(model: Any, batch: Any) -> tuple[torch.Tensor, None]:
    taken = _first(model.critic, _clone(batch.observations), batch.actions)
    action = model.actor_target(_clone(batch.next_observations))
    both = torch.cat(model.critic_target(batch.next_observations, action), dim=1)
    after = both.min(dim=1, keepdim=True).values
    return (batch.rewards + _discount(model, batch) * after - taken)[:, 0], None


def _sac_errors(model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    taken = _first(model.critic, _clone(batch.observations), batch.actions)
    action, bonus = _drawn(model, _clone(batch.next_observations))
    both = torch.cat(model.critic_target(batch.next_observations, action), dim=1)
    after = both.min(dim=1, keepdim=True).values + bonus
    return (batch.rewards + _discount(model, batch) * after - taken)[:, 0], bonus[:, 0]


def _tqc_errors(model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    taken = _first(model.critic, _clone(batch.observations), batch.actions)
    action, bonus = _drawn(model, _clone(batch.next_observations))
    critic = model.critic
    kept = critic.quantiles_total - model.top_quantiles_to_drop_per_net * critic.n_critics
    quantiles = model.critic_target(batch.next_observations, action).flatten(1).sort(dim=1).values[:, :kept]
    after = quantiles.mean(dim=1, keepdim=True) + bonus
    return (batch.rewards + _discount(model, batch) * after - taken)[:, 0], bonus[:, 0]


def _crossq_errors(model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    critic, n = model.critic, len(batch.rewards)
    action, bonus = _drawn(model, _clone(batch.next_observations))
    with _passes.put_back(critic):  # the statistics that this pass moves are copies
        critic.set_bn_training_mode(True)
        observations = torch.cat([batch.observations, batch.next_observations], dim=0)
        every = torch.cat(critic(observations, torch.cat([batch.actions, action], dim=0)), dim=1)
    after = every[n:].min(dim=1, keepdim=True).values + bonus
    return (batch.rewards + _discount(model, batch) * after - every[:n, :1])[:, 0], bonus[:, 0]


def _counted(renewals: int, model: Any) -> tuple[int, float]:
    return (renewals, float(model.tau)) if model.tau else (0, 1.0)


def _td3_renewals(model: Any) -> tuple[int, float]:
    # only `sb3_preqn` has an interval of its own: there targets follow each update, and in TD3 each of the actor's
    return _counted(model._n_updates // getattr(model, "target_update_interval", model.policy_delay), model)


def _sac_renewals(model: Any) -> tuple[int, float]:
    """Each training phase renews at its first update, and then at every so many: the count begins anew with it."""
    phase = model.gradient_steps
    if phase < 0:  # as many as steps were made since; of whole episodes nobody knows how many that will have been
        phase = model.train_freq.frequency * model.n_envs if model.train_freq.unit.value == "step" else 1
    share = math.ceil(phase / model.target_update_interval) / phase if phase > 0 else 1.0
    return _counted(math.ceil(model._n_updates * share), model)
