"""What each algorithm is asked, beside what its own library computes: targets, values, kernels, renewed targets."""

import importlib

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch
from stable_baselines3 import DDPG, DQN, SAC, TD3
from stable_baselines3.common.callbacks import CallbackList, EvalCallback, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from divergence_notes import _passes, adapters, diagnosis, monitor, probe, returns
from divergence_notes.monitor import DivergenceCallback
from divergence_notes.sb3_preqn import PreconditionedTD3

SMALL = {"net_arch": [16, 16]}
HOMES = {"QRDQN": "sb3_contrib.qrdqn.qrdqn", "TQC": "sb3_contrib.tqc.tqc", "CrossQ": "sb3_contrib.crossq.crossq"}
DISCRETE = ("DQN", "QRDQN")
ALGORITHMS = ("DQN", "QRDQN", "DDPG", "TD3", "SAC", "TQC", "CrossQ")


def algorithm(name):
    if name in HOMES:
        return getattr(pytest.importorskip("sb3_contrib", reason="its algorithms are watched where it is there"), name)
    return {"DQN": DQN, "DDPG": DDPG, "TD3": TD3, "SAC": SAC}[name]


def made(name, env=None, policy="MlpPolicy", **settings):
    few = {"n_quantiles": 5} if name in ("QRDQN", "TQC") else {}
    given = {"seed": 0, "learning_starts": 50, "buffer_size": 1000, "batch_size": 32, "device": "cpu"}
    given |= {"policy_kwargs": SMALL | few} | settings
    env = env or ("CartPole-v1" if name in DISCRETE else "Pendulum-v1")
    return algorithm(name)(policy, env, **given)


def gather(model, n):
    """Return transitions from the buffer of a model that has trained a little."""
    model.learn(80)
    state = np.random.get_state()  # noqa: NPY002
    batch = model.replay_buffer.sample(n)
    np.random.set_state(state)  # noqa: NPY002
    return batch


class Losses:
    """What the library's own loss was given in one update: values and targets of the pairs, the first critic's."""

    def __init__(self, monkeypatch, name):
        self.seen = []
        if name in ("QRDQN", "TQC"):
            monkeypatch.setattr(
                importlib.import_module(HOMES[name]), "quantile_huber_loss", self.watched(self.quantiles)
            )
        else:
            loss = "smooth_l1_loss" if name == "DQN" else "mse_loss"
            monkeypatch.setattr(torch.nn.functional, loss, self.watched(lambda q, target: (q, target)))

    def quantiles(self, q, target):
        q = q[:, 0] if q.ndim == 3 else q  # (n, n_critics, n_quantiles)
        target = target[:, 0] if target.ndim == 3 else target
        return q.mean(dim=1), target.mean(dim=1)

    def watched(self, read):
        def loss(q, target, **given):
            self.seen.append([part.detach().clone().ravel() for part in read(q, target)])
            return ((q.reshape(len(q), -1).mean(1) - target.reshape(len(q), -1).mean(1)) ** 2).mean()

        return loss


class TestTargets:
    """TD errors are target minus value as the library's own update forms them, to rounding."""

    @pytest.mark.parametrize("n_steps", [1, 3])
    @pytest.mark.parametrize("name", ALGORITHMS)
    def test_against_the_update_itself(self, name, n_steps, monkeypatch):
        quiet = {"target_policy_noise": 0.0} if name == "TD3" else {}
        model = made(name, gamma=0.9, n_steps=n_steps, **quiet)
        if name == "DDPG":
            model.target_policy_noise = 0.0
        batch = gather(model, 24)
        if hasattr(model, "ent_coef"):  # each draw is the same, wherever it comes in the order
            draw = model.actor.action_log_prob

            def drawn(observations):
                torch.manual_seed(7)
                return draw(observations)

            monkeypatch.setattr(model.actor, "action_log_prob", drawn)
        with probe.undisturbed((model.policy,)), torch.no_grad():
            found, bonus = adapters.asked(model).errors(batch)
        assert (bonus is not None) == hasattr(model, "ent_coef")
        losses = Losses(monkeypatch, name)
        monkeypatch.setattr(model.replay_buffer, "sample", lambda *given, **named: batch)
        model.train(gradient_steps=1, batch_size=24)
        q, target = losses.seen[0]
        assert target.std() > 0.01
        torch.testing.assert_close(found, target - q, rtol=1e-4, atol=1e-5)

    def test_the_bonus_is_what_entropy_is_paid(self):
        model = made("SAC", ent_coef=0.3)
        batch = gather(model, 12)
        torch.manual_seed(5)
        bonus = adapters.asked(model).errors(batch)[1]
        torch.manual_seed(5)
        torch.testing.assert_close(bonus, -0.3 * model.actor.action_log_prob(batch.next_observations)[1])

    def test_no_policy_has_more_entropy_than_its_ceiling(self):
        """The uniform distribution has it: log 2 for each action on [-1, 1], which the widest Gaussian comes near."""
        model = made("SAC", ent_coef=0.5)
        ceiling = adapters.asked(model).ceiling()
        assert ceiling == pytest.approx(0.5 * np.log(2))
        dist, means = model.actor.action_dist, []
        for spread in np.linspace(-2, 1, 25):
            torch.manual_seed(0)
            _, log_probability = dist.log_prob_from_params(torch.zeros(100_000, 1), torch.full((100_000, 1), spread))
            means.append(-0.5 * float(log_probability.double().mean()))
        assert 0.95 * ceiling < max(means) <= ceiling + 1e-3
        assert min(means) < 0


class TestKernels:
    """The kernel is that of the values, from one gradient a row."""

    @pytest.mark.parametrize("name", ALGORITHMS)
    def test_against_autograd(self, name):
        model = made(name)
        batch = gather(model, 7)
        found = probe.Probe.of(adapters.asked(model), gamma=0.9).kernel
        rows = []
        with probe.undisturbed((model.policy,)):
            K = found(batch)
            for k in range(7):
                obs, action = batch.observations[k, None], batch.actions[k, None]
                if name == "DQN":
                    value, net = model.q_net(obs)[0, int(action)], model.q_net
                elif name == "QRDQN":
                    value, net = model.quantile_net(obs)[0, :, int(action)].mean(), model.quantile_net
                elif name == "TQC":
                    value, net = model.critic(obs, action)[0, 0].mean(), model.critic.q_networks[0]
                else:
                    value, net = model.critic(obs, action)[0][0, 0], model.critic.q_networks[0]
                slopes = torch.autograd.grad(value, list(net.parameters()))
                rows.append(torch.cat([slope.ravel() for slope in slopes]).double())
        J = torch.stack(rows).numpy()
        np.testing.assert_allclose(K, J @ J.T, rtol=2e-3, atol=1e-4 * np.abs(K).max())

    @pytest.mark.parametrize("name", ALGORITHMS)
    def test_the_jacobian_is_not_formed(self, name, monkeypatch):
        """Each is made of layers that are known, CrossQ's with the statistics that it keeps included."""
        monkeypatch.setattr(_passes, "row_gradients", lambda *_: pytest.fail("formed the Jacobian"))
        model = made(name)
        model.learn(60)
        batch = model.replay_buffer.sample(9)
        with probe.undisturbed(adapters.asked(model).modules):
            K = probe.Probe.of(adapters.asked(model), gamma=0.9).kernel(batch)
        assert np.linalg.eigvalsh(K).min() > -1e-4 * K.max() and K.diagonal().min() > 0


class TestRenewals:
    """How often the target network was renewed is what the library did: counted, call by call."""

    @pytest.mark.parametrize("settings", [{}, {"gradient_steps": 3}, {"gradient_steps": -1, "train_freq": 4}])
    @pytest.mark.parametrize("interval", [1, 2])
    @pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "CrossQ"])
    def test_against_the_calls(self, name, interval, settings, monkeypatch):
        every = {} if name in ("DDPG", "TD3") else {"target_update_interval": interval * (1 + (name in DISCRETE))}
        env = make_vec_env("CartPole-v1" if name in DISCRETE else "Pendulum-v1", n_envs=2, seed=0)
        model = made(name, env, tau=0.1, **every, **settings)
        if name == "TD3":
            model.policy_delay = interval
        asked, calls = adapters.asked(model), []
        home = importlib.import_module(type(model).__module__ if name != "DDPG" else "stable_baselines3.td3.td3")
        renew = home.polyak_update

        def counted(params, targets, tau):
            params = list(params)
            calls.extend(p is next(asked.net.parameters()) for p in params[:1])
            renew(params, targets, tau)

        monkeypatch.setattr(home, "polyak_update", counted)
        model.learn(82)
        assert sum(calls) > 3
        assert asked.renewals() == (sum(calls), 0.1)

    def test_without_a_target_network(self):
        model = made("CrossQ")
        model.learn(80)
        assert adapters.asked(model).renewals() == (model._n_updates, 1.0) != (0, 1.0)


class Goals(gym.Env):
    """A point is to come to a goal in the plane; -1 in each step, 0 at the goal."""

    def __init__(self, discrete=False):
        plane = gym.spaces.Box(-2, 2, (2,))
        self.observation_space = gym.spaces.Dict({"observation": plane, "achieved_goal": plane, "desired_goal": plane})
        self.action_space = gym.spaces.Discrete(4) if discrete else gym.spaces.Box(-1, 1, (2,))

    def observe(self):
        here = self.place.astype(np.float32)
        return {"observation": here, "achieved_goal": here.copy(), "desired_goal": self.goal.astype(np.float32)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.goal, self.t = np.zeros(2), self.np_random.uniform(-1, 1, 2), 0
        return self.observe(), {}

    def compute_reward(self, achieved, desired, info):
        return (np.linalg.norm(achieved - desired, axis=-1) < 0.2).astype(np.float32) - 1

    def step(self, action):
        step = (
            [(1, 0), (-1, 0), (0, 1), (0, -1)][action] if isinstance(self.action_space, gym.spaces.Discrete) else action
        )
        self.place, self.t = np.clip(self.place + 0.2 * np.asarray(step), -2, 2), self.t + 1
        seen = self.observe()
        return seen, float(self.compute_reward(seen["achieved_goal"], self.goal, {})), False, self.t >= 12, {}


class Pictures(gym.Env):
    """Noise for images, a reward of noise, ends by chance."""

    def __init__(self, discrete=False, size=36):
        self.observation_space = gym.spaces.Box(0, 255, (1, size, size), np.uint8)
        self.action_space = gym.spaces.Discrete(3) if discrete else gym.spaces.Box(-1, 1, (1,))

    def observe(self):
        return self.np_random.integers(0, 256, self.observation_space.shape, dtype=np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observe(), {}

    def step(self, action):
        return self.observe(), float(self.np_random.normal()), bool(self.np_random.random() < 0.1), False, {}


class Mixed(Goals):
    """Numbers, an image and a count, all in one observation."""

    def __init__(self, discrete=False):
        super().__init__(discrete)
        parts = {"plane": gym.spaces.Box(-2, 2, (2,)), "count": gym.spaces.Discrete(13)}
        self.observation_space = gym.spaces.Dict(parts | {"image": gym.spaces.Box(0, 255, (1, 36, 36), np.uint8)})

    def observe(self):
        image = np.full((1, 36, 36), 20 * self.t, np.uint8)
        return {"plane": self.place.astype(np.float32), "count": self.t, "image": image}

    def compute_reward(self, achieved, desired, info):
        return -1.0

    def step(self, action):
        self.t += 1
        return self.observe(), -1.0, self.t >= 12, False, {}


def her(name, **settings):
    buffer = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"n_sampled_goal": 3}}
    return made(name, Goals(name in DISCRETE), "MultiInputPolicy", **buffer, **settings)


def normalised(name, **settings):
    env = "CartPole-v1" if name in DISCRETE else "Pendulum-v1"
    return made(name, VecNormalize(make_vec_env(env, n_envs=3, seed=0)), gradient_steps=2, **settings)


WAYS = {
    "plain": made,
    "three environments, normalised": normalised,
    "n-step": lambda name: made(name, n_steps=3),
    "relabelled goals": her,
    "dictionaries": lambda name: made(name, Goals(name in DISCRETE), "MultiInputPolicy"),
    "images": lambda name: made(name, Pictures(name in DISCRETE), "CnnPolicy", learning_starts=30),
    "an image, a count and numbers": lambda name: made(name, Mixed(name in DISCRETE), "MultiInputPolicy"),
    "whole episodes": lambda name: made(name, train_freq=(1, "episode"), gradient_steps=2),
    "noise by state": lambda name: made(name, use_sde=True),
    "a given temperature": lambda name: made(name, ent_coef=0.1),
}
SOFT = ("SAC", "TQC", "CrossQ")
READS_NUMBERS_ALONE = ("relabelled goals", "dictionaries", "images", "an image, a count and numbers")
"""CrossQ takes neither dictionaries nor images: it has one policy."""
BY_DAY = [(name, way) for name in ALGORITHMS for way in ("plain", "three environments, normalised", "relabelled goals")]
BY_DAY += [("DQN", "images"), ("SAC", "images"), ("TD3", "an image, a count and numbers"), ("TQC", "noise by state")]
RUNS = [
    pytest.param(name, way, marks=() if (name, way) in BY_DAY else pytest.mark.nightly, id=f"{name}, {way}")
    for name in ALGORITHMS
    for way in WAYS
    if not (way in ("noise by state", "a given temperature") and name not in SOFT)
    and not (name == "CrossQ" and way in READS_NUMBERS_ALONE)
]


def ending(model):
    """Return all that a run leaves behind, as tensors and arrays."""
    observations = model.replay_buffer.observations
    parts = observations if isinstance(observations, dict) else {"observations": observations}
    optimizers = [model.policy.optimizer] if hasattr(model, "q_net") or hasattr(model, "quantile_net") else []
    optimizers = optimizers or [model.actor.optimizer, model.critic.optimizer]
    found = {f"policy {k}": v for k, v in model.policy.state_dict().items()}
    found |= {f"gradient {k}": p.grad for k, p in model.policy.named_parameters()}
    for k, optimizer in enumerate(optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            found |= {f"optimizer {k} {number} {name}": value for name, value in state.items()}
    if getattr(model, "log_ent_coef", None) is not None:
        found["temperature"] = model.log_ent_coef.detach()
    found |= {f"buffer {k}": torch.from_numpy(v) for k, v in parts.items()}
    found |= {"rewards": torch.from_numpy(model.replay_buffer.rewards), "torch": torch.get_rng_state()}
    found["timeouts"] = torch.from_numpy(model.replay_buffer.timeouts)
    found["numpy"] = torch.from_numpy(np.random.get_state()[1].astype(np.int64))  # noqa: NPY002
    found["modes"] = torch.tensor([module.training for module in model.policy.modules()])
    return found


class TestTrainedAsAlone:
    """Each algorithm, in each way of using it, is trained with the callback as without it, to the last bit."""

    @pytest.mark.parametrize(("name", "way"), RUNS)
    def test_bit_for_bit(self, name, way):
        ends = []
        steps = {"whole episodes": 450, "images": 60, "an image, a count and numbers": 80}.get(way, 110)
        for watched in (True, False):
            model = WAYS[way](name)
            callback = monitor.watch(model, every=20, batch_size=8) if watched else None
            model.learn(steps, callback=callback)
            if watched:
                history = callback.history
                assert len(history) >= 2 and (history["reason"] == "").all(), history["reason"].tolist()
                numbers = ["row_ratio", "max_q", "td_error", "gradient_norm", "weight_norm", "dormant", "alignment"]
                assert np.isfinite(history[numbers].astype(float)).all().all()
                assert np.isfinite(history[["value_churn", "action_churn"]].iloc[1:].astype(float)).all().all()
                assert (history["status"] == "undecided").all()
            ends.append(ending(model))
        assert set(ends[0]) == set(ends[1])
        for part, value in ends[1].items():
            same = ends[0][part] is value is None or torch.equal(ends[0][part], value)
            assert same, part


class TestRelabelled:
    """Where goals are made up afterwards, the rewards that this earns are possible ones."""

    def test_a_reward_that_was_never_paid(self):
        model, callback = her("DDPG", gamma=0.9), DivergenceCallback(every=50)
        model.learn(60, callback=callback)
        buffer = model.replay_buffer
        buffer.rewards[: buffer.size()] = -1  # no goal was reached
        callback._restart()
        assert returns.bounds(*callback._known(), gamma=0.9) == pytest.approx((-10, 0))

    def test_the_same_without_relabelling(self):
        model = made("DDPG", Goals(), "MultiInputPolicy", gamma=0.9)
        callback = DivergenceCallback(every=50)
        model.learn(60, callback=callback)
        model.replay_buffer.rewards[:60] = -1
        callback._restart()
        assert returns.bounds(*callback._known(), gamma=0.9) == pytest.approx((-10, -1))


class TestEvents:
    """Inside of a callback that calls others at events there is a record at each event once training has begun."""

    def test_every_so_many_steps(self):
        model, watched = made("SAC"), DivergenceCallback()
        model.learn(150, callback=EveryNTimesteps(30, watched))
        history = watched.history
        assert history["step"].tolist() == [60, 90, 120, 150]
        assert np.isfinite(history["alignment"][:-1].astype(float)).all() and np.isnan(history["alignment"].iloc[-1])

    def test_in_a_list_in_a_list(self):
        model, watched = made("DQN"), DivergenceCallback(every=7)
        model.learn(150, callback=CallbackList([EveryNTimesteps(30, CallbackList([CallbackList([watched])]))]))
        assert watched.history["step"].tolist() == [60, 90, 120, 150]

    @pytest.mark.parametrize("way", ["callback_after_eval", "callback_on_new_best"])
    def test_evaluation(self, way):
        model, watched = made("DQN", learning_starts=30), DivergenceCallback()
        evaluating = EvalCallback(made("DQN").get_env(), n_eval_episodes=1, eval_freq=40, verbose=0, **{way: watched})
        model.learn(130, callback=evaluating)
        steps = watched.history["step"].tolist()
        assert steps[0] == 40  # the first is the best so far
        assert way != "callback_after_eval" or steps == [40, 80, 120]
        assert (watched.history["reason"] == "").all()

    def test_the_logger_has_it_at_once(self, tmp_path):
        model, watched = made("DQN"), DivergenceCallback()
        model.set_logger(configure(str(tmp_path), ["csv"]))
        model.learn(100, callback=EveryNTimesteps(30, watched))
        model.logger.close()
        rows = pd.read_csv(tmp_path / "progress.csv").dropna(subset=["divergence/max_q"])
        assert rows["time/total_timesteps"].tolist() == watched.history["step"].tolist() == [60, 90]

    def test_changes_nothing(self):
        ends = []
        for watched in (True, False):
            model = made("SAC")
            model.learn(150, callback=EveryNTimesteps(30, DivergenceCallback()) if watched else None)
            ends.append(ending(model))
        for part, value in ends[1].items():
            assert ends[0][part] is value is None or torch.equal(ends[0][part], value), part


class TestEntropy:
    """What entropy is paid belongs to what can be earned: a sound soft run is not accused, a wild one is."""

    def test_more_than_rewards_can_pay(self):
        """Nothing is paid but for entropy: values of it are possible, more than it can pay are not."""
        model = made("SAC", Pictureless(), gamma=0.9, ent_coef=1.0)
        callback = DivergenceCallback(every=40, batch_size=64)
        model.learn(140, callback=callback)
        history = callback.history
        assert history["possible_high"].tolist() == pytest.approx([0.9 * np.log(2) / 0.1] * len(history))
        assert not history["alarm"].any()
        assert (history["bonus"] > 0).all()
        with torch.no_grad():
            model.critic.q_networks[0][-1].bias += 5
        callback._record()
        assert callback.history["verdict"].iloc[-1] == "too fast"  # 0.9 log 2 / (1 - 0.9) is 6.2, but not yet
        with torch.no_grad():
            model.critic.q_networks[0][-1].bias += 10
        callback._record()
        assert callback.history["verdict"].iloc[-1] == "impossible"


class Pictureless(gym.Env):
    """Pays nothing, for ever; episodes are cut."""

    def __init__(self):
        self.observation_space, self.action_space = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action):
        self.t += 1
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), 0.0, False, self.t >= 20, {}


class TestSettings:
    """What is told of a model beside its log."""

    @pytest.mark.parametrize("name", ALGORITHMS)
    def test_of_each_algorithm(self, name):
        model = made(name, learning_rate=2e-3, gamma=0.95, train_freq=4, gradient_steps=2, batch_size=16)
        told = adapters.settings(model)
        assert set(told) <= set(diagnosis.SETTINGS)
        assert told["algorithm"] == name and told["gamma"] == 0.95 and told["learning_rate"] == pytest.approx(2e-3)
        assert told["optimizer"] == "Adam" and told["updates_per_step"] == 0.5 and told["batch_size"] == 16
        assert told["time_limit"] == (500 if name in DISCRETE else 200)
        assert told.get("actor_moves_critic", False) is False and told["offline"] is False

    @pytest.mark.parametrize("name", ALGORITHMS)
    def test_what_inherits_is_judged_like_its_parent(self, name):
        """What the rules ask is supplied with the model, and no rule knows a name."""
        parent = made(name)
        child = type("Mine", (type(parent),), {})("MlpPolicy", parent.get_env(), device="cpu")
        traits = ("actor", "own_targets", "own_steps", "two_modes")
        told = [[adapters.settings(model)[trait] for trait in traits] for model in (parent, child)]
        assert told[0] == told[1] == [name not in DISCRETE, name == "CrossQ", False, name == "CrossQ"]

    def test_of_a_line_search(self):
        told = adapters.settings(PreconditionedTD3("MlpPolicy", "Pendulum-v1", device="cpu"))
        assert told["own_targets"] and told["own_steps"] and not told["two_modes"]

    def test_weight_decay(self):
        decay = {"optimizer_class": torch.optim.AdamW, "optimizer_kwargs": {"weight_decay": 7.0}}
        assert adapters.settings(made("SAC", policy_kwargs=decay))["weight_decay"] == 7
        assert adapters.settings(made("SAC"))["weight_decay"] == 0

    def test_an_actor_that_moves_the_critic(self):
        model = made("TD3")
        model.actor.optimizer.add_param_group({"params": list(model.critic.parameters())})
        assert adapters.settings(model)["actor_moves_critic"] is True
        assert (
            adapters.settings(made("TD3", policy_kwargs={"share_features_extractor": True}))["actor_moves_critic"]
            is False
        )

    def test_limits_that_are_taken_for_ends(self):
        told = {
            handled: adapters.settings(made("DQN", replay_buffer_kwargs={"handle_timeout_termination": handled}))
            for handled in (True, False)
        }
        assert not told[True]["time_limits_are_ends"] and told[False]["time_limits_are_ends"]

    def test_the_callback_keeps_them(self):
        model = made("DQN")
        callback = DivergenceCallback(every=30)
        assert callback.settings == {}
        model.learn(80, callback=callback)
        assert callback.settings == adapters.settings(model)
        assert callback.history["updates"].tolist() == [0, 2, 10][: len(callback.history)]
