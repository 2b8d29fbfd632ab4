"""The monitor beside the real library: its numbers against loops, the run against one that nobody watches."""

import copy
import re

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch
from stable_baselines3 import DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger, configure
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from divergence_notes import adapters, diagnostics, monitor, probe, returns
from divergence_notes.monitor import DivergenceCallback

SMALL = {"net_arch": [16, 16]}
DIVERGENT = {"learning_rate": 1e-3, "train_freq": 1, "target_update_interval": 1}


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def dqn(env="CartPole-v1", policy="MlpPolicy", **settings):
    return DQN(policy, env, **{"seed": 0, "learning_starts": 50, "buffer_size": 1000, "device": "cpu"} | settings)


def continuous(algorithm, env="Pendulum-v1", **settings):
    given = {"seed": 0, "learning_starts": 50, "buffer_size": 1000, "batch_size": 32, "device": "cpu"}
    return algorithm("MlpPolicy", env, **given | {"policy_kwargs": dict(SMALL)} | settings)


def kernel(model, batch):
    return probe.Probe.of(adapters.asked(model), gamma=model.gamma).kernel(batch)


class Snapshots(BaseCallback):
    """Copies of the policy before and after each training phase that is recorded by another callback."""

    def __init__(self, watched):
        super().__init__()
        self.watched, self.before, self.after = watched, [], []

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        if len(self.watched.history) > len(self.before):
            self.before.append(copy.deepcopy(self.model.policy))

    def _on_rollout_start(self):
        if len(self.after) < len(self.before):
            self.after.append(copy.deepcopy(self.model.policy))

    _on_training_end = _on_rollout_start


def transitions(model, n, rng, discounts=None):
    """Return a batch with rewards, ends and actions of every kind."""
    shape = (n, *model.observation_space.shape)
    obs, after = (torch.tensor(rng.standard_normal(shape), dtype=torch.float32) for _ in range(2))
    if isinstance(model, DQN):
        actions = torch.tensor(rng.integers(model.action_space.n, size=(n, 1)))
    else:
        actions = torch.tensor(rng.uniform(-1, 1, size=(n, *model.action_space.shape)), dtype=torch.float32)
    ends = torch.tensor(rng.random((n, 1)) < 0.3, dtype=torch.float32)
    rewards = torch.tensor(rng.standard_normal((n, 1)), dtype=torch.float32)
    return ReplayBufferSamples(obs, actions, after, ends, rewards, discounts)


def by_loops(policy, batch, gamma):
    """Return kernel, values of the pairs, the largest value, and TD errors, a row at a time."""
    discrete = hasattr(policy, "q_net")
    parameters = list((policy.q_net if discrete else policy.critic.q_networks[0]).parameters())
    slopes, taken, largest, errors = [], [], 0.0, []
    for i in range(len(batch.rewards)):
        obs, after, action = batch.observations[i, None], batch.next_observations[i, None], batch.actions[i, None]
        if discrete:
            every = policy.q_net(obs)[0]
            value = every[int(action)]
            largest = max(largest, every.abs().max().item())
            best = policy.q_net_target(after).max()
        else:
            value = policy.critic(obs, action)[0][0, 0]
            largest = max(largest, abs(value.item()))
            best = min(q.item() for q in policy.critic_target(after, policy.actor_target(after)))
        factor = gamma if batch.discounts is None else float(batch.discounts[i])
        errors.append((batch.rewards[i] + (1 - batch.dones[i]) * factor * best - value).item())
        slopes.append(torch.cat([g.ravel() for g in torch.autograd.grad(value, parameters)]))
        taken.append(value.item())
    J = torch.stack(slopes).double().numpy()
    return J @ J.T, np.array(taken), largest, np.array(errors)


class TestKeptKernels:
    """The kernel of the same pairs at each record, as loops over them find it."""

    @pytest.mark.parametrize("kind", ["dqn", "td3"])
    def test_against_loops(self, kind, rng):
        model = dqn(learning_rate=1e-2) if kind == "dqn" else continuous(TD3, learning_rate=1e-2)
        batch = transitions(model, 7, rng)
        pairs = (batch.observations.double().numpy(), batch.actions.numpy().squeeze())
        callback = DivergenceCallback(every=40, batch_size=8, pairs=pairs)
        snapshots = Snapshots(callback)
        model.learn(150, callback=[callback, snapshots])
        assert len(callback.kernels) == len(callback.history) == len(snapshots.before) > 1
        for kernel, policy in zip(callback.kernels, snapshots.before, strict=True):
            np.testing.assert_allclose(kernel, by_loops(policy, batch, 0.9)[0], rtol=2e-4, atol=1e-5)
        assert np.abs(callback.kernels[-1] - callback.kernels[0]).max() > 1e-3

    def test_what_cannot_be_measured_is_nan(self, rng):
        callback = DivergenceCallback(every=40, batch_size=8, pairs=(rng.standard_normal((5, 3)), np.zeros(5, int)))
        model = dqn()  # its states have four numbers, and these have three
        model.learn(100, callback=callback)
        assert callback.kernels[0].shape == (5, 5) and np.isnan(callback.kernels[0]).all()
        assert "the kernel of the pairs" in callback.history.reason[0] and callback.history.row_ratio.notna().all()

    def test_none_are_kept_unasked(self):
        callback = DivergenceCallback(every=40, batch_size=8)
        dqn().learn(100, callback=callback)
        assert callback.kernels == []

    def test_what_is_refused(self):
        with refuses(ValueError, "pairs must be observations and actions, got 3 arrays"):
            DivergenceCallback(pairs=(np.zeros(3), np.zeros(3), np.zeros(3)))
        with refuses(ValueError, "pairs must hold as many observations as actions, got 3, 2"):
            DivergenceCallback(pairs=(np.zeros((3, 4)), np.zeros(2)))


class TestNumbers:
    """Every column is what loops over the batch find, with the networks of that very moment."""

    @pytest.mark.parametrize("kind", ["dqn", "dqn, n-step", "td3", "ddpg"])
    def test_against_loops(self, kind, rng):
        if kind.startswith("dqn"):
            model = dqn(learning_rate=1e-2, gamma=0.9, target_update_interval=70)
        else:
            model = continuous(TD3 if kind == "td3" else DDPG, learning_rate=1e-2, gamma=0.9)
        factors = torch.tensor(rng.random((9, 1)), dtype=torch.float32) if "step" in kind else None
        batch = transitions(model, 9, rng, factors)
        callback = DivergenceCallback(every=40, batch=batch, r_max=3.0)
        seen = Snapshots(callback)
        model.learn(200, callback=CallbackList([callback, seen]))
        history = callback.history
        assert list(history.columns) == monitor.COLUMNS
        assert len(history) == len(seen.before) == len(seen.after) == 5
        for k, row in history.iterrows():
            K, before, largest, error = by_loops(seen.before[k], batch, 0.9)
            after = by_loops(seen.after[k], batch, 0.9)[1]
            margins = diagnostics.row_margins(K, gamma=0.9)
            want = {
                "row_ratio": diagnostics.row_ratio(K).mean(),
                "margin": margins.min(),
                "certified": (margins > 0).mean(),
                "effective_rank": diagnostics.effective_rank(K),
                "max_q": largest,
                "bound": 30.0,
                "bound_ratio": largest / 30,
                "td_error": np.abs(error).mean(),
                "alignment": diagnostics.alignment(after - before, error),
            }
            assert row[list(want)].to_dict() == pytest.approx(want, rel=2e-3, abs=1e-5)
            last = history.iloc[max(0, k - 4) : k + 1]
            if k:
                slope = np.polyfit(last["step"].astype(float), np.log(last["max_q"].astype(float)), 1)[0]
                assert row["growth_rate"] == pytest.approx(slope)
        assert history["alignment"].nunique() == 5
        assert np.isnan(history["growth_rate"][0])

    def test_growth_looks_back_on_five_records(self):
        callback = DivergenceCallback(every=20)
        dqn().learn(250, callback=callback)
        last = callback.history.iloc[-5:]
        slope = np.polyfit(last["step"].astype(float), np.log(last["max_q"].astype(float)), 1)[0]
        assert callback.history["growth_rate"].iloc[-1] == pytest.approx(slope)

    def test_one_plain_step_goes_along_its_errors(self, rng):
        """One gradient step of the whole batch changes values by K delta / n to first order: alignment as predicted."""
        model = dqn(policy_kwargs={"optimizer_class": torch.optim.SGD}, learning_rate=1e-4, max_grad_norm=1e9)
        batch = transitions(model, 16, rng)._replace(rewards=torch.full((16, 1), 0.1))
        callback = DivergenceCallback(every=1000, batch=batch)
        model.learn(48)  # nothing is trained yet
        model.replay_buffer.sample = lambda *args, **kwargs: batch
        seen = Snapshots(callback)
        model.learn(60, callback=CallbackList([callback, seen]), reset_num_timesteps=False)
        K, _, _, error = by_loops(seen.before[0], batch, model.gamma)
        assert np.abs(error).max() < 1  # where Huber's loss is a square
        predicted = diagnostics.report(K, q=[1.0], td_error=error, gamma=0.9, r_max=1).loc["alignment", "value"]
        assert predicted > 0.1
        assert callback.history["alignment"][0] == pytest.approx(predicted, abs=5e-3)


WATCHED = {
    "dqn": lambda: dqn(learning_rate=1e-3),
    "dqn, 3 envs": lambda: dqn(make_vec_env("CartPole-v1", n_envs=3, seed=0), learning_rate=1e-3, gradient_steps=2),
    "dqn, dropout": lambda: dqn(policy_kwargs={"features_extractor_class": Dropping}),
    "dqn, n-step": lambda: dqn(n_steps=3),
    "dqn, batch norm": lambda: dqn(policy_kwargs={"features_extractor_class": Normed}, target_update_interval=30),
    "td3": lambda: continuous(TD3),
    "ddpg, normalised": lambda: continuous(DDPG, VecNormalize(make_vec_env("Pendulum-v1", n_envs=2, seed=0))),
}


class Dropping(BaseFeaturesExtractor):
    """Features that are learned, with noise while training."""

    def __init__(self, space):
        super().__init__(space, 8)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5))

    def forward(self, obs):
        return self.layers(obs)


class Normed(Dropping):
    """Features that are normalised over the batch."""

    def __init__(self, space):
        super().__init__(space)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh())


class TestChangesNothing:
    """The run with the callback is the run without it, to the last bit."""

    @pytest.mark.parametrize("kind", WATCHED)
    def test_bit_for_bit(self, kind):
        ends = []
        for watch in (True, False):
            model = WATCHED[kind]()
            callback = DivergenceCallback(every=20, batch_size=8) if watch else None
            model.learn(160, callback=callback)  # the last training phase is recorded: modes are those of training
            if watch:
                assert callback.history["step"].iloc[-1] == model.num_timesteps
                assert len(callback.history) >= 5
                assert np.isfinite(callback.history["alignment"].to_numpy(dtype=float)).all()
            ends.append(
                {
                    "state": model.policy.state_dict(),
                    "gradients": {name: p.grad for name, p in model.policy.named_parameters()},
                    "modes": [module.training for module in model.policy.modules()],
                    "rewards": model.replay_buffer.rewards,
                    "observations": model.replay_buffer.observations,
                    "numpy": np.random.get_state()[1:3],  # noqa: NPY002
                    "torch": torch.get_rng_state(),
                }
            )
        watched, alone = ends
        assert set(watched["state"]) == set(alone["state"])
        for part in ("state", "gradients"):
            for name, value in alone[part].items():
                same = watched[part][name] is value is None or torch.equal(watched[part][name], value)
                assert same, (part, name)
        assert watched["modes"] == alone["modes"]
        for name in ("rewards", "observations"):
            np.testing.assert_array_equal(watched[name], alone[name])
        np.testing.assert_array_equal(watched["numpy"][0], alone["numpy"][0])
        assert watched["numpy"][1] == alone["numpy"][1]
        assert torch.equal(watched["torch"], alone["torch"])

    def test_its_own_seed_decides_its_batches(self):
        model = WATCHED["dqn, 3 envs"]()
        model.learn(60)
        model.replay_buffer = Recording(model.replay_buffer)

        def watch(seed, other):
            callback = DivergenceCallback(batch_size=4, seed=seed)
            callback.init_callback(model)
            np.random.seed(other)  # noqa: NPY002
            callback._sample(4)
            return model.replay_buffer.rows.tolist(), model.replay_buffer.drawn.tolist()

        assert watch(1, 5) == watch(1, 6)
        assert all(one != other for one, other in zip(watch(1, 5), watch(2, 5), strict=True))


class Recording:
    """A buffer that remembers which rows were asked for, and what numpy would draw for them."""

    def __init__(self, buffer):
        self.buffer = buffer

    def __getattr__(self, name):
        return getattr(self.buffer, name)

    def sample(self, n, env=None):
        get, self.buffer._get_samples = self.buffer._get_samples, self._get_samples
        try:
            return self.buffer.sample(n, env=env)
        finally:
            self.buffer._get_samples = get

    def _get_samples(self, rows, env=None):
        self.rows, self.drawn = rows, np.random.randint(1000, size=5)  # noqa: NPY002
        return type(self.buffer)._get_samples(self.buffer, rows, env=env)


class TestLogger:
    """Every number stands in the library's own logger, at its own step, and is the number of the history."""

    def test_csv(self, tmp_path):
        model = dqn()
        model.set_logger(configure(str(tmp_path), ["csv"]))
        callback = DivergenceCallback(every=30)
        model.learn(150, callback=callback)
        model.logger.close()
        rows = pd.read_csv(tmp_path / "progress.csv").dropna(subset=["divergence/max_q"]).reset_index()
        history = callback.history
        assert rows["time/total_timesteps"].tolist() == history["step"].tolist() == [52, 60, 92, 120, 152]
        assert {name for name in rows if name.startswith("divergence/")} == {
            f"divergence/{name}" for name in ("verdict", *probe.NUMBERS)
        }
        assert rows["divergence/verdict"].tolist() == history["verdict"].tolist()
        for name in probe.NUMBERS:
            np.testing.assert_array_equal(rows[f"divergence/{name}"], history[name].astype(float))

    @pytest.mark.parametrize(("verbose", "lines"), [(0, 0), (1, 1)])
    def test_says_one_line_if_it_may(self, capsys, verbose, lines):
        dqn(learning_rate=1e-2).learn(120, callback=DivergenceCallback(every=10, r_max=1e-6, verbose=verbose))
        written = capsys.readouterr().out.splitlines()
        assert len(written) == lines
        said = r"step \d+: impossible, max\|Q\| [\d.]+, possible -0\.0001 to 0\.0001"
        assert all(re.fullmatch(said, line) for line in written)


class TestAlarm:
    """The alarm goes off while a run diverges, early, and stays silent in a sound one."""

    def test_a_run_that_diverges(self):
        """DQN whose target network follows at every step: overestimation feeds on itself."""
        callback = DivergenceCallback(every=25)
        dqn(seed=0, learning_starts=100, buffer_size=10_000, **DIVERGENT).learn(600, callback=callback)
        history = callback.history
        assert history["bound_ratio"].max() > 10
        tenfold = history["step"][history["bound_ratio"] > 10].min()
        first = history["step"][history["alarm"]].min()
        early = history["step"] < tenfold
        assert 150 < first < tenfold - 100
        assert (history["growth_rate"][early].dropna() > 0).all()
        assert (history["alignment"][(history["step"] < first)] < 0).any()  # values move away from their targets
        assert not history["alarm"][history["bound_ratio"] <= 1 / 0.9].any()
        assert history["alarm"][history["bound_ratio"] > 2].all()
        assert (history["alarm"] == (history["verdict"] == "impossible")).all()
        assert (history["overestimation"][history["alarm"]] > 20).all()

    def test_sound_runs(self):
        for model, steps in ((dqn(learning_starts=100), 600), (continuous(TD3), 200)):
            callback = DivergenceCallback(every=25)
            model.learn(steps, callback=callback)
            assert len(callback.history) > 5
            assert not callback.history["alarm"].any()
            assert set(callback.history["verdict"]) <= {"inherited", "earned"}
            assert (callback.history["status"] == "undecided").all()
            assert callback.history["bound_ratio"].max() < 0.2

    @pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
    def test_not_finite(self, poison):
        """The values themselves are lost, or (1e30) only what is computed from them."""

        class Poison(BaseCallback):
            def _on_step(self):
                return True

            def _on_rollout_end(self):
                if self.num_timesteps == 80:
                    with torch.no_grad():
                        self.model.q_net.q_net[2].weight.fill_(poison)

        callback = DivergenceCallback(every=20)
        dqn().learn(130, callback=CallbackList([Poison(), callback]))
        lost = callback.history["step"] >= 80
        assert callback.history["status"].tolist() == ["diverged" if bad else "undecided" for bad in lost]
        assert callback.history["alarm"].tolist() == lost.tolist()
        if not np.isfinite(poison):
            assert callback.history.loc[lost, ["row_ratio", "max_q", "td_error", "alignment"]].isna().all().all()
        assert np.isfinite(callback.history.loc[~lost, "alignment"].to_numpy(dtype=float)).all()

    def test_lost_before_the_phase(self):
        """The alarm does not wait for the training phase."""
        model, callback = dqn(), DivergenceCallback()
        model.learn(60, callback=callback)
        with torch.no_grad():
            model.q_net.q_net[0].bias.fill_(np.nan)
        callback._record()
        assert callback.history["alarm"].tolist() == [False, True]

    def test_lost_in_the_very_phase(self):
        """The record is finite until the training phase that follows it ruins the network."""
        model = dqn()
        train = model.train

        def ruin(*args, **kwargs):
            train(*args, **kwargs)
            with torch.no_grad():
                model.q_net.q_net[0].bias.fill_(np.inf)

        model.train = ruin
        callback = DivergenceCallback()
        model.learn(52, callback=callback)
        (row,) = callback.history.to_dict("records")
        assert np.isfinite(row["max_q"])
        assert (row["alarm"], row["status"]) == (True, "diverged")
        assert np.isnan(row["alignment"])


class Rewarding(gym.Env):
    """Rewards by a list, then -1, forever; episodes of 10 steps; observations are noise."""

    def __init__(self, rewards=(), space=None):
        self.observation_space = gym.spaces.Box(-1, 1, (4,)) if space is None else space
        self.action_space = gym.spaces.Discrete(3)
        self.rewards, self.t = list(rewards), 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        self.t += 1
        reward = self.rewards[self.t - 1] if self.t <= len(self.rewards) else -1.0
        return self.observation_space.sample(), reward, self.t % 10 == 0, False, {}


class TestBound:
    """r_max / (1 - gamma), with the largest absolute reward so far."""

    @pytest.mark.parametrize("extreme", [5.0, -5.0])
    def test_a_reward_that_left_the_buffer_counts(self, extreme):
        callback = DivergenceCallback(every=10)
        dqn(Rewarding([1.0, extreme]), buffer_size=60, gamma=0.9).learn(150, callback=callback)
        np.testing.assert_allclose(callback.history["bound"], 50)

    def test_so_does_one_that_came_and_went_between_two_records(self):
        callback = DivergenceCallback(every=200)
        dqn(Rewarding([1.0] * 80 + [5.0]), buffer_size=60, gamma=0.9).learn(402, callback=callback)
        assert callback.history["step"].tolist() == [52, 200, 400]
        np.testing.assert_allclose(callback.history["possible_high"], [10, 50, 50])

    def test_given(self):
        callback = DivergenceCallback(every=50, r_max=7)
        dqn(Rewarding([100.0]), gamma=0.5).learn(60, callback=callback)
        assert set(callback.history["bound"]) == {14.0}

    @pytest.mark.parametrize(("cut", "most"), [(1, 100.0), (0, 1.0)])
    def test_after_a_time_limit_more_can_be_earned(self, cut, most):
        """A reward of 1, once, with the last step of an episode: that it was cut there, or that it ended."""
        model, callback = dqn(), DivergenceCallback()
        model.learn(60, callback=callback)
        buffer = model.replay_buffer
        buffer.rewards[:], buffer.dones[:], buffer.timeouts[:] = 0, 0, 0
        buffer.rewards[5], buffer.dones[5], buffer.timeouts[5] = 1, 1, cut
        buffer.dones[30] = 1
        callback._restart()
        assert returns.bounds(*callback._known(), gamma=model.gamma) == pytest.approx((0, most))

    def test_none_before_the_first_reward(self):
        callback = DivergenceCallback(every=10)
        dqn(Rewarding([0.0] * 80)).learn(120, callback=callback)
        before = callback.history["step"] <= 80
        assert callback.history["bound"].isna().tolist() == before.tolist()
        assert callback.history.loc[before, "bound_ratio"].isna().all()
        assert not callback.history.loc[before, "alarm"].any()

    def test_on_the_scale_of_the_network(self):
        env = VecNormalize(make_vec_env(Rewarding, env_kwargs={"rewards": [4.0]}), gamma=0.9)
        callback = DivergenceCallback(every=1000)
        model = dqn(env, gamma=0.9)
        model.learn(52, callback=callback)
        assert callback.history["bound"][0] == pytest.approx(10 * 4 / np.sqrt(env.ret_rms.var + env.epsilon), rel=1e-6)


class Paying(gym.Env):
    """Pays by the time; an episode ends, or is cut, at times that are drawn; observations are noise."""

    def __init__(self, pay, ends=0.1, cuts=0.0, continuous=False):
        self.observation_space = gym.spaces.Box(-1, 1, (3,))
        self.action_space = gym.spaces.Box(-1, 1, (1,)) if continuous else gym.spaces.Discrete(3)
        self.pay, self.ends, self.cuts = pay, ends, cuts

    def observe(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observe(), {}

    def step(self, action):
        ended = bool(self.np_random.random() < self.ends)
        cut = not ended and bool(self.np_random.random() < self.cuts)
        return self.observe(), float(self.pay(self.np_random, ended)), ended, cut, {}


def paying(n_envs, *given, **named):
    return make_vec_env(lambda: Paying(*given, **named), n_envs=n_envs, seed=0)


def noise(rng, ended):
    return rng.normal()


def stored(buffer, env):
    """Return the steps of one environment in the order of time: where each is kept, its reward, whether it ended."""
    rows = [*range(buffer.pos, buffer.buffer_size), *range(buffer.pos)] if buffer.full else range(buffer.pos)
    return [(row, buffer.rewards[row, env], buffer.dones[row, env], buffer.timeouts[row, env]) for row in rows]


def earned_by_loops(model, most, last, scale):
    """Return the columns about what was earned, a step at a time."""
    buffer, gamma, sums, episodes, lengths = model.replay_buffer, model.gamma, [], [], []
    early, late = [], []
    for env in range(buffer.n_envs):
        steps = stored(buffer, env)
        first = not buffer.full
        for k, (_, reward, *_) in enumerate(steps):  # a tenth of them at either end, rounded up
            if k < len(steps) / 10:
                early.append(abs(scale(reward)))
            if len(steps) - 1 - k < len(steps) / 10:
                late.append(abs(scale(reward)))
        for k in range(len(steps)):
            total, factor, over, plain, length = 0.0, 1.0, 0, 0.0, 0
            for _, reward, done, timeout in steps[k:]:
                total, factor = total + factor * scale(reward), factor * gamma
                plain, length = plain + scale(reward), length + 1
                if done:
                    over = 2 if timeout else 1
                    break
            sums.append(total)
            if first and over:
                lengths.append((length, over == 1))
            if first and over and (over == 1 or most < np.inf):  # the rest of a cut episode has a bound
                episodes.append((k, env, steps[k][0], total, factor * most if over == 2 else 0.0, plain))
            first = bool(steps[k][2])
    episodes = sorted(episodes)[-last:]
    values = []
    for _, env, row, *_ in episodes:
        seen = model.replay_buffer._normalize_obs(buffer.observations[row, env][None], model.get_vec_normalize_env())
        observation = torch.as_tensor(seen, dtype=torch.float32)
        with torch.no_grad():
            if isinstance(model, DQN):
                values.append(model.q_net(observation)[0, int(buffer.actions[row, env, 0])].item())
            else:
                action = torch.as_tensor(buffer.actions[row, env])[None]
                values.append(model.critic(observation, action)[0].item())
    longest, ended = max(lengths)[0], [length for length, real in lengths if real]
    value, total, rest = (np.mean(x) for x in (values, [e[3] for e in episodes], [e[4] for e in episodes]))
    return {
        "earned_low": min(sums),
        "earned_high": max(sums),
        "start_q": value,
        "start_return": total,
        "overestimation": value - total - rest,
        "start_sum": np.mean([e[5] for e in episodes]),
        "episode_length": longest,
        "same_length": np.mean([length == longest for length in ended]) if len(ended) >= 3 else np.nan,
        "reward_change": np.median(late) / np.median(early),
    }


BUFFERS = {
    "one": (dqn, 1, {}),
    "one, it wraps round": (dqn, 1, {"buffer_size": 83}),
    "three": (dqn, 3, {"gradient_steps": 2}),
    "three, they wrap round": (dqn, 3, {"buffer_size": 130}),
    "time limits are taken for ends": (dqn, 2, {"replay_buffer_kwargs": {"handle_timeout_termination": False}}),
    "memory is saved": (
        dqn,
        1,
        {
            "buffer_size": 83,
            "optimize_memory_usage": True,
            "replay_buffer_kwargs": {"handle_timeout_termination": False},
        },
    ),
    "n-step": (dqn, 2, {"n_steps": 3}),
    "no discount": (dqn, 2, {"gamma": 1.0}),
    "td3": (lambda env, **settings: continuous(TD3, env, **settings), 2, {}),
    "normalised": (dqn, 2, {"gamma": 0.9}),
}


class TestEarned:
    """What was earned and the values at the starts of episodes are what loops over the stored steps find."""

    @pytest.mark.parametrize("kind", BUFFERS)
    def test_against_loops(self, kind):
        make, n_envs, settings = BUFFERS[kind]
        env = paying(n_envs, noise, cuts=0.1, continuous=kind == "td3")
        if kind == "normalised":
            env = VecNormalize(env, gamma=0.9)
        model = make(env, **{"gamma": 0.95} | settings)
        callback = DivergenceCallback(every=100)
        model.learn(260, callback=callback)
        buffer = model.replay_buffer
        assert buffer.full == ("wrap" in kind or kind == "memory is saved")
        assert (buffer.timeouts.sum() > 3) == buffer.handle_timeout_termination and buffer.dones.sum() > 10
        spread = np.sqrt(env.ret_rms.var + env.epsilon) if kind == "normalised" else 1.0
        for last in (4, 1000):
            callback.batch_size = last
            for most in (0.0, 7.0, np.inf):
                with probe.undisturbed((model.policy,)):
                    found = callback._probe.earned(callback._told(), (0.0, most))
                want = earned_by_loops(model, most, last, lambda reward: reward / spread)
                assert found == pytest.approx(want, rel=1e-4, abs=1e-5, nan_ok=True)

    def test_the_record_has_them(self):
        """The columns of the last record are those of the buffer and the network of that moment."""
        model = dqn(paying(2, noise, cuts=0.1), gamma=0.9)
        callback = DivergenceCallback(every=10)
        seen = []

        class Late(BaseCallback):
            def _on_step(self):
                return True

            def _on_rollout_end(self):
                if len(callback.history) > len(seen):
                    most = callback.history["possible_high"].iloc[-1]
                    seen.append(earned_by_loops(model, most, 128, float))

        model.learn(120, callback=CallbackList([callback, Late()]))
        assert len(seen) >= 5
        for (_, row), want in zip(callback.history.iterrows(), seen, strict=True):
            assert row[list(want)].to_dict() == pytest.approx(want, rel=1e-4, abs=1e-5, nan_ok=True)

    def test_no_episode_is_over(self):
        callback = DivergenceCallback(every=20)
        dqn(paying(1, lambda rng, ended: -1.0, ends=0.0), gamma=0.5).learn(100, callback=callback)
        history = callback.history
        assert history[["start_q", "start_return", "overestimation"]].isna().all().all()
        assert (history["reason"] == "").all()
        np.testing.assert_allclose(history["earned_low"], -2)
        np.testing.assert_allclose(history["earned_high"], -1)
        np.testing.assert_allclose(history[["possible_low", "possible_high"]], [[-2, -1]] * len(history))

    def test_only_the_latest_steps_are_summed(self, monkeypatch):
        monkeypatch.setattr(monitor, "_RECENT", 40)
        model = dqn(paying(2, noise, cuts=0.1), gamma=0.9)
        callback = DivergenceCallback(every=20)
        model.learn(200, callback=callback)
        buffer, sums = model.replay_buffer, []
        for env in range(2):
            steps = stored(buffer, env)[-20:]
            for k in range(20):
                until = next((j for j in range(k, 20) if steps[j][2]), 19)
                sums.append(sum(0.9 ** (j - k) * steps[j][1] for j in range(k, until + 1)))
        found = callback._probe.earned(callback._told(), (0.0, 10.0))
        assert [found["earned_low"], found["earned_high"]] == pytest.approx([min(sums), max(sums)], rel=1e-5)


KIN = {
    "at the goal, once": ({"ends": 0.1}, lambda rng, ended: ended, {}),
    "at the goal, once, small buffer": ({"ends": 0.1}, lambda rng, ended: ended, {"buffer_size": 60}),
    "never so far": ({"ends": 0.1}, lambda rng, ended: 0.0, {}),
    "never so far, nor any end": ({"ends": 0.0}, lambda rng, ended: 0.0, {}),
    "each step costs": ({"ends": 0.1}, lambda rng, ended: -1.0, {}),
    "each step costs, for ever": ({"ends": 0.0}, lambda rng, ended: -1.0, {}),
    "each step pays": ({"ends": 0.1}, lambda rng, ended: 1.0, {}),
    "each step pays, to a time limit": ({"ends": 0.0, "cuts": 0.1}, lambda rng, ended: 1.0, {}),
    "tiny": ({"ends": 0.0, "cuts": 0.1}, lambda rng, ended: -1e-3, {"gamma": 0.9}),
    "huge": ({"ends": 0.1}, lambda rng, ended: 1e4 * rng.normal(), {}),
    "no discount": ({"ends": 0.1}, lambda rng, ended: 1.0, {"gamma": 1.0}),
    "no discount, no end": ({"ends": 0.0}, lambda rng, ended: 1.0, {"gamma": 1.0}),
    "no discount, a cost": ({"ends": 0.1}, lambda rng, ended: -1.0, {"gamma": 1.0}),
    "no discount but for the last digit": ({"ends": 0.1}, lambda rng, ended: 1.0, {"gamma": 0.999}),
    "tiny, no discount but for the last digit": ({"ends": 0.1}, lambda rng, ended: -1e-5, {"gamma": 0.999}),
    "each step pays, for ever": ({"ends": 0.0}, lambda rng, ended: 1.0, {}),
    "costs only, of every size": ({"ends": 0.1}, lambda rng, ended: -abs(rng.normal()), {}),
    "n-step": ({"ends": 0.1}, lambda rng, ended: rng.normal(), {"n_steps": 3}),
    "time limits are taken for ends": (
        {"ends": 0.0, "cuts": 0.1},
        lambda rng, ended: -1.0,
        {"replay_buffer_kwargs": {"handle_timeout_termination": False}},
    ),
}


class Blow(BaseCallback):
    """Adds so much to each value that it is 99 times too large, from step 120 on; takes twice as much away at 140."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        with torch.no_grad():
            self.model.q_net.q_net[-1].bias += {120: 99 * self.most, 140: -198 * self.most}.get(self.num_timesteps, 0.0)


class TestFalseReadings:
    """Rare rewards or tiny ones, one-sided or huge: silent while all is well, and no longer silent when it is not."""

    @pytest.mark.parametrize("kind", KIN)
    def test_kin(self, kind):
        where, pay, settings = KIN[kind]
        once = kind.startswith(("at the goal", "never"))
        size = {
            "tiny": 1e-2,
            "tiny, no discount but for the last digit": 1e-2,
            "huge": 1e7,
        }  # what can be earned, or more
        size = size.get(kind, 1.0 if once else 2000.0 if "last digit" in kind else 200.0)
        callback = DivergenceCallback(every=20, batch_size=32)
        run = dqn(paying(1, pay, **where), target_update_interval=50, policy_kwargs=dict(SMALL), **settings)
        run.learn(150, callback=CallbackList([Blow(size), callback]))
        history = callback.history
        assert history["step"].tolist() == [52, 60, 80, 100, 120, 140]
        assert history["alarm"].tolist() == [False] * 4 + [True] * 2, history["verdict"].tolist()
        assert (history["reason"] == "").all()
        assert history["low_q"][4] > 0 > history["high_q"][5]

    def test_normalised(self):
        for scale in (1e-3, 1e3):
            env = VecNormalize(paying(2, lambda rng, ended, scale=scale: scale * rng.normal()))
            callback = DivergenceCallback(every=20)
            dqn(env, target_update_interval=50).learn(300, callback=callback)
            assert not callback.history["alarm"].any()

    def test_the_first_reward_comes_late(self):
        """Nothing is paid for 150 steps, and then 1 at each end: silent all along, the values being small before."""
        times = iter(range(10_000))
        late = paying(1, lambda rng, ended: float(ended and next(times) > 15), ends=0.1)
        callback = DivergenceCallback(every=20, batch_size=32)
        dqn(late, target_update_interval=50).learn(400, callback=callback)
        history = callback.history
        assert history["possible_high"].iloc[0] == 0 and history["possible_high"].iloc[-1] == 1
        assert not history["alarm"].any()

    def test_a_network_that_was_trained_before(self):
        """Its values may be those of rewards which this buffer has not seen: they are no cause for alarm."""
        model = dqn(paying(1, lambda rng, ended: 0.0), target_update_interval=50)
        with torch.no_grad():
            model.q_net.q_net[-1].bias += 80
            model.q_net_target.q_net[-1].bias += 80
        callback = DivergenceCallback(every=20)
        model.learn(200, callback=callback)
        assert callback.history["max_q"].max() > 70
        assert set(callback.history["verdict"]) == {"inherited"}


@pytest.mark.parametrize(("coefficient", "earned"), [(1e4, False), (0.1, True)])
def test_a_bonus_beyond_all_rewards_is_no_excuse(coefficient, earned):
    """Values that are made of what entropy is paid are none that an episode has earned."""
    model = continuous(SAC, ent_coef=coefficient, learning_rate=0.03, tau=0.5, learning_starts=50, seed=0)
    callback = DivergenceCallback(every=50)
    model.learn(200, callback=callback)
    words = callback.history["verdict"].tolist()
    assert words == ["inherited", *["earned" if earned else "unearned"] * 3]
    assert callback.history["max_q"].iloc[-1] > 300


class Walk(gym.Env):
    """A walk along a line that is paid once, with 1, at its right end; there the episode ends."""

    def __init__(self):
        self.observation_space = gym.spaces.Box(-2, 2, (2,))
        self.action_space = gym.spaces.Discrete(3)

    def observe(self):
        place = self.place / 20
        return np.array([place, np.sin(5 * place)], dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.t = 0.0, 0
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        self.place = float(np.clip(self.place + action - 1 + 0.3 * self.np_random.standard_normal(), -5, 20))
        there = self.place >= 20
        return self.observe(), float(there), there, self.t >= 100, {}


class TestRareReward:
    """Nothing was paid yet, and the values of one of two runs grow: the target network is all the difference."""

    def test_with_and_without_a_target_network(self):
        runs = {}
        for interval in (250, 1):
            callback = DivergenceCallback(every=20, batch_size=32)
            model = dqn(
                Walk(), learning_starts=200, gradient_steps=4, target_update_interval=interval, learning_rate=1e-3
            )
            model.learn(500, callback=callback)
            runs[interval] = callback.history
        assert not runs[250]["alarm"].any()
        wild = runs[1]
        assert wild["step"][wild["alarm"]].min() < 400
        assert 3 * runs[250]["max_q"].max() < wild["max_q"].max() < 100  # which a reward in each step would explain
        assert wild["overestimation"].max() > 1


class TestNoDiscount:
    """Without a discount nothing bounds what can be earned; that it takes renewals to earn it still tells."""

    def test_too_fast(self):
        callback = DivergenceCallback(every=50)
        given = {"learning_starts": 500, "batch_size": 64, "seed": 1, "exploration_fraction": 0.5}
        dqn(gamma=1.0, buffer_size=10_000, **given, **DIVERGENT).learn(1000, callback=callback)
        history = callback.history
        assert np.isinf(history["possible_high"]).all()
        assert history["alarm"].iloc[-1] and not history["alarm"].iloc[:4].any()
        assert (history["alarm"] == (history["verdict"] == "too fast")).all()
        # a step pays 1 and the target network was renewed at each: what a table can have is the number of steps
        late = history[history["alarm"]]
        assert (late["max_q"] > 1.5 * (late["step"] - 500)).all()


class TestWhen:
    """A record before the first training phase, then one after each multiple of `every`, and none without training."""

    def test_steps(self):
        callback = DivergenceCallback(every=30)
        model = dqn(make_vec_env("CartPole-v1", n_envs=2, seed=0), train_freq=5)
        model.learn(200, callback=callback)
        assert callback.history["step"].tolist() == [60, 90, 120, 150, 180]

    @pytest.mark.parametrize("settings", [{"gradient_steps": 0}, {"learning_starts": 500}])
    def test_without_training(self, settings):
        callback = DivergenceCallback(every=10)
        dqn(**settings).learn(100, callback=callback)
        assert callback.history.empty
        assert list(callback.history.columns) == monitor.COLUMNS

    def test_default(self):
        callback = DivergenceCallback()
        assert (callback.every, callback.batch_size, callback.r_max, callback.seed) == (None, 128, None, 0)

    def test_looks_early(self):
        """A run that dies within its first thousand steps is seen, and stays the run that it was."""
        curves = []
        for callback in (DivergenceCallback(), None):
            model = dqn(learning_rate=1e-2)
            model.learn(420, callback=callback)
            curves.append(model.policy.state_dict())
            if callback is not None:
                assert callback.history["step"].tolist() == [52, 80, 104, 152, 252]
        assert all(torch.equal(value, curves[1][name]) for name, value in curves[0].items())

    def test_learning_again(self):
        callback, model = DivergenceCallback(every=50), dqn()
        model.learn(100, callback=callback)
        model.learn(100, callback=callback, reset_num_timesteps=False)
        assert callback.history["step"].tolist() == [52, 100, 152, 200]
        model.learn(100, callback=callback)
        assert callback.history["step"].tolist() == [52, 100]

    def test_episodes(self):
        callback = DivergenceCallback(every=50)
        continuous(DDPG, train_freq=(1, "episode"), gradient_steps=3).learn(400, callback=callback)
        assert callback.history["step"].tolist() == [200, 400]
        assert np.isfinite(callback.history["alignment"].to_numpy(dtype=float)).all()


class TestBuffers:
    """Batches are drawn as the algorithm draws them."""

    def test_size(self):
        model, callback = dqn(Rewarding()), DivergenceCallback(every=50, batch_size=7)
        model.learn(60, callback=callback)
        assert len(callback._sample(7).rewards) == 7
        again = DivergenceCallback(every=50, batch_size=7)
        draw, drawn = again._sample, []
        again._sample = lambda n: drawn.append(draw(n)) or drawn[-1]
        model.learn(100, callback=again)
        assert len(drawn) == len(again.history) == 2  # the alignment is that of the record's own batch
        rows = Recording(model.replay_buffer)
        model.replay_buffer = rows
        callback._sample(2000)
        assert set(rows.rows) == set(range(rows.buffer.size()))

    def test_the_entry_without_a_successor_is_left_out(self):
        settings = {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}
        model, callback = dqn(Rewarding(), buffer_size=40, **settings), DivergenceCallback()
        model.learn(53, callback=callback)
        rows = Recording(model.replay_buffer)
        model.replay_buffer = rows
        callback._sample(2000)
        assert rows.buffer.full
        assert set(rows.rows) == set(range(40)) - {rows.buffer.pos}

    def test_n_step(self):
        model, callback = dqn(n_steps=3), DivergenceCallback(every=50)
        model.learn(60, callback=callback)
        assert isinstance(model.replay_buffer, NStepReplayBuffer)
        assert callback._sample(5).discounts is not None

    def test_observations_are_normalised(self):
        env = VecNormalize(make_vec_env("CartPole-v1", seed=0))
        model, callback = dqn(env), DivergenceCallback()
        model.learn(200, callback=callback)
        spread = callback._sample(500).observations.std(dim=0)
        assert (spread > 0.7).all()
        assert (model.replay_buffer.observations[:200, 0].std(axis=0) < 0.65).any()


class TestImages:
    """Features that are learned with the values are in the kernel."""

    SPACE = gym.spaces.Box(0, 255, (1, 36, 36), np.uint8)

    def test_kernel(self):
        model = dqn(Rewarding(space=self.SPACE), "CnnPolicy", learning_starts=10)
        callback = DivergenceCallback(every=20, batch_size=6)
        seen = Snapshots(callback)
        model.learn(12, callback=CallbackList([callback, seen]))
        batch = callback._sample(6)
        K = by_loops(model.policy, batch, 0.99)[0]
        model.policy.eval()
        np.testing.assert_allclose(kernel(model, batch), K, rtol=1e-3, atol=1e-3 * np.abs(K).max())
        of_two = ["growth_rate", "value_churn", "action_churn", "same_length"]  # records, or three episodes
        of_two += ["after_ends", "input_ratio"]  # targets of one's own, or inputs that are no images
        assert np.isfinite(callback.history[probe.NUMBERS].drop(columns=of_two).iloc[0].astype(float)).all()

    def test_learned_features_of_a_mlp(self, rng):
        model = WATCHED["dqn, dropout"]()
        model.policy.eval()
        batch = transitions(model, 5, rng)
        K = by_loops(model.policy, batch, 0.99)[0]
        np.testing.assert_allclose(kernel(model, batch), K, rtol=1e-4)

    @pytest.mark.parametrize("shared", [False, True])
    def test_a_critic_with_learned_features(self, shared, rng):
        """They are in its kernel where its loss trains them; where only the actor's does, they are inputs."""
        kinds = SMALL | {"features_extractor_class": Three, "share_features_extractor": shared}
        model = continuous(TD3, policy_kwargs=kinds)
        batch, critic = transitions(model, 5, rng), model.critic
        moved = [*critic.q_networks[0].parameters(), *([] if shared else critic.features_extractor.parameters())]
        rows = []
        for obs, action in zip(batch.observations, batch.actions, strict=True):
            value = critic.q_networks[0](torch.cat([critic.features_extractor(obs[None]), action[None]], dim=1))
            rows.append(torch.cat([slope.ravel() for slope in torch.autograd.grad(value[0, 0], moved)]))
        J = torch.stack(rows).double().numpy()
        np.testing.assert_allclose(kernel(model, batch), J @ J.T, rtol=1e-4)
        callback = DivergenceCallback(every=50)
        model.learn(60, callback=callback)
        assert callback.history["reason"].tolist() == [""]


class Three(Dropping):
    """Learned features of an observation of Pendulum."""

    def __init__(self, space):
        super().__init__(space)
        self.layers = nn.Linear(3, 8)


class TestMonitorRefuses:
    """What it cannot read is refused before the first step."""

    def test_other_algorithms(self):
        model = PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, device="cpu")
        said = (
            "model must be a DQN, QR-DQN, DDPG, TD3, SAC, TQC or CrossQ, got PPO: it learns no action values off-policy"
        )
        with refuses(TypeError, said):
            model.learn(10, callback=DivergenceCallback())
        assert model.num_timesteps == 0
        with refuses(TypeError, said):
            monitor.watch(model)

    def test_one_of_its_own(self):
        class Other(OffPolicyAlgorithm):
            """One that is off-policy, and of a kind that nobody knows."""

            policy_aliases = DQN.policy_aliases

            def _setup_model(self):
                pass

        model = Other("MlpPolicy", "CartPole-v1", 1e-3, supported_action_spaces=(gym.spaces.Discrete,))
        with refuses(TypeError, f"model must be a {adapters.NAMES}, got Other: it is none of them"):
            monitor.watch(model)

    def test_settings(self):
        for error, message, settings in [
            (ValueError, "every must be in [1, inf), got 0", {"every": 0}),
            (TypeError, "every must be an integer, got True", {"every": True}),
            (ValueError, "batch_size must be in [1, inf), got 0", {"batch_size": 0}),
            (ValueError, "r_max must be in (0, inf), got 0", {"r_max": 0}),
            (ValueError, "seed must be in [0, inf), got -1", {"seed": -1}),
            (TypeError, "batch must be a ReplayBufferSamples, got tuple", {"batch": (1, 2)}),
        ]:
            with refuses(error, message):
                DivergenceCallback(**settings)


class Coupled(BaseFeaturesExtractor):
    """Features that are centred over the batch, and a buffer that counts calls in every mode."""

    def __init__(self, space):
        super().__init__(space, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.layer = nn.Linear(4, 4)

    def forward(self, obs):
        self.calls += 1
        return self.layer(obs - obs.mean(0)) if len(obs) > 1 else self.layer(obs)


class Noisy(Coupled):
    """Features with noise, in every mode."""

    def forward(self, obs):
        self.calls = self.calls + 1
        return self.layer(obs) + torch.randn(4)


def in_place():
    return nn.ReLU(inplace=True)


PLAIN = {"gamma = 1", "rectifiers in place", "td3, gamma = 1, in place", "ddpg, in place", "3 envs, gamma = 1"}
HARD = {
    "gamma = 1": lambda: dqn(gamma=1.0),
    "3 envs, gamma = 1": lambda: dqn(make_vec_env("CartPole-v1", n_envs=3, seed=0), gamma=1.0),
    "rectifiers in place": lambda: dqn(policy_kwargs={"activation_fn": in_place}),
    "td3, gamma = 1, in place": lambda: continuous(TD3, gamma=1.0, policy_kwargs=SMALL | {"activation_fn": in_place}),
    "ddpg, in place": lambda: continuous(DDPG, policy_kwargs=SMALL | {"activation_fn": in_place}),
    "rows that see each other": lambda: dqn(policy_kwargs={"features_extractor_class": Coupled}),
    "noise": lambda: dqn(policy_kwargs={"features_extractor_class": Noisy}),
    "noise, n-step": lambda: dqn(n_steps=3, policy_kwargs={"features_extractor_class": Noisy}),
}


def ending(model):
    """Return what a run leaves behind."""
    return {
        "state": [value.clone() for value in model.policy.state_dict().values()],
        "rewards": torch.from_numpy(model.replay_buffer.rewards),
        "observations": torch.from_numpy(model.replay_buffer.observations),
        "generator": torch.get_rng_state(),
        "modes": torch.tensor([module.training for module in model.policy.modules()]),
    }


class TestPromise:
    """It never ends the run that it watches: what cannot be measured is nan, with a reason that is said once."""

    @pytest.mark.parametrize("kind", HARD)
    def test_the_run_goes_on(self, kind, caplog):
        ends, callback = [], DivergenceCallback(every=20, batch_size=8)
        for watch in (callback, None):
            model = HARD[kind]()
            model.learn(160, callback=watch)
            ends.append(ending(model))
        watched, alone = ends
        for name, value in alone.items():
            same = all(map(torch.equal, value, watched[name])) if name == "state" else torch.equal(value, watched[name])
            assert same, name
        history = callback.history
        assert len(history) >= 5 and (history["status"] == "undecided").all()
        assert np.isfinite(history[["max_q", "td_error"]].to_numpy(dtype=float)).all()
        measured = np.isfinite(history["row_ratio"].astype(float))
        if kind in PLAIN:
            assert measured.all() and (history["reason"] == "").all() and not caplog.records
        else:
            assert not measured.any() and not history["alarm"].any()
            assert history["reason"].str.match("the kernel: ValueError: net must treat each row on its own").all()
            said = [record.getMessage() for record in caplog.records]
            assert 1 <= len(said) == history["reason"].nunique()
            assert said[0].startswith(f"step {history['step'][0]}: not measured, the kernel: ValueError")

    def test_a_task_that_ends_has_no_bound(self):
        callback = DivergenceCallback(every=20)
        HARD["gamma = 1"]().learn(100, callback=callback)
        assert callback.history[["bound", "bound_ratio"]].isna().all().all()
        assert not callback.history["alarm"].any()
        assert (callback.history["margin"] <= 0).all()

    def test_rectifiers_in_place(self, rng):
        """The kernel is that of the same network with other rectifiers."""
        kernels = []
        for kind in (in_place, nn.ReLU):
            model = dqn(policy_kwargs={"activation_fn": kind})
            batch = transitions(model, 9, np.random.default_rng(0))
            kept = batch.observations.clone()
            kernels.append(kernel(model, batch))
            assert torch.equal(batch.observations, kept)
        np.testing.assert_array_equal(*kernels)

    def test_a_batch_is_not_overwritten(self, rng):
        class First(Dropping):
            def __init__(self, space):
                super().__init__(space)
                self.layers = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 8))

        model = dqn(policy_kwargs={"features_extractor_class": First})
        batch = transitions(model, 9, rng)
        kept = [batch.observations.clone(), batch.next_observations.clone()]
        model.learn(60, callback=DivergenceCallback(batch=batch))
        assert torch.equal(batch.observations, kept[0]) and torch.equal(batch.next_observations, kept[1])

    @pytest.mark.parametrize(
        ("where", "reason"),
        [
            ("summary", "the numbers: ZeroDivisionError: odd"),
            ("gram", "the kernel: ZeroDivisionError: odd"),
            ("alignment", "the alignment: ZeroDivisionError: odd"),
            ("growth_rate", "the record: ZeroDivisionError: odd"),
            ("buffer", "the batch: ZeroDivisionError: odd"),
            ("rewards", "the bound: AttributeError"),
            ("to_go", "what was earned: ZeroDivisionError: odd"),
            ("reach", "the verdict: ZeroDivisionError: odd"),
            ("deepcopy", "the network before training: ZeroDivisionError: odd"),
            ("logger", "the record: ZeroDivisionError: odd"),
            ("values", "the values: ZeroDivisionError: odd"),
        ],
    )
    def test_whatever_breaks(self, where, reason, monkeypatch, caplog):
        def odd(*given, **named):
            raise ZeroDivisionError("odd")

        model, callback = dqn(), DivergenceCallback(every=20)
        model.learn(40)
        if where == "gram":
            monkeypatch.setattr(probe.ntk, "linearize", odd)
        elif where == "values":
            monkeypatch.setattr(probe.Probe, "_values", odd)
        elif where in ("to_go", "reach"):
            monkeypatch.setattr(returns, where, odd)
        elif where == "deepcopy":
            monkeypatch.setattr(probe, "copy", type("Copy", (), {"deepcopy": odd}))
        elif where == "buffer":
            monkeypatch.setattr(model.replay_buffer, "_get_samples", odd)
        elif where == "logger":
            record = Logger.record

            def spoilt(logger, name, *given, **named):
                return odd() if "divergence" in name else record(logger, name, *given, **named)

            monkeypatch.setattr(Logger, "record", spoilt)
        elif where == "rewards":
            callback._known = lambda: model.replay_buffer.no_such_thing
        else:
            monkeypatch.setattr(diagnostics, where, odd)
        if where == "buffer":
            model.train = lambda *given, **named: None  # it reads the same buffer
        model.learn(100, callback=callback, reset_num_timesteps=False)
        history = callback.history
        assert len(history) >= 4
        first = history["reason"].str.startswith(reason)
        assert first.all() if where != "growth_rate" else first[1:].all()
        assert (history["status"] == "undecided").all() and not history["alarm"].any()
        assert len(caplog.records) == history["reason"][history["reason"] != ""].nunique() == 1
        lost = {
            "summary": "max_q",
            "gram": "row_ratio",
            "alignment": "alignment",
            "rewards": "bound",
            "to_go": "earned_high",
        }.get(where)
        assert where != "reach" or set(history["verdict"]) == {"unknown"}
        if lost:
            assert history[lost].isna().all()
        if where == "gram":
            assert np.isfinite(history[["max_q", "td_error", "alignment"]].to_numpy(dtype=float)).all()

    def test_a_batch_of_another_task(self, rng, caplog):
        batch = transitions(continuous(TD3), 5, rng)
        callback = DivergenceCallback(every=20, batch=batch)
        dqn().learn(100, callback=callback)
        assert callback.history["reason"].str.startswith("the values: ").all()
        assert callback.history["max_q"].isna().all()
        assert len(caplog.records) == 1

    @pytest.mark.parametrize("reward", [np.inf, np.nan])
    def test_rewards_that_are_none(self, reward, caplog):
        callback = DivergenceCallback(every=10)
        dqn(Rewarding([0.0] * 55 + [reward])).learn(100, callback=callback)
        later = callback.history["step"] > 60
        assert callback.history["reason"][later].str.contains("the bound: ValueError: the rewards must be finite").all()
        assert callback.history["bound"][later].isna().all()

    def test_a_kernel_that_is_too_large_takes_no_memory(self, monkeypatch):
        """What is refused for its size is not made after all, to hold nan."""
        shapes = []
        summary = probe.diagnostics.summary

        def seen(kernel, **given):
            shapes.append(np.shape(kernel))
            return summary(kernel, **given)

        monkeypatch.setattr(probe.diagnostics, "summary", seen)
        callback = DivergenceCallback(every=50, batch_size=100_000)
        dqn().learn(60, callback=callback)
        assert set(shapes) == {(1, 1)}
        assert callback.history["reason"].str.contains("more than 2 GB").all()
        numbers = callback.history[["max_q", "td_error", "alignment"]].to_numpy(dtype=float)
        assert len(numbers) and np.isfinite(numbers).all()

    def test_a_loud_user(self, recwarn):
        """Nothing is a warning, which a user may have turned into an error."""
        HARD["noise"]().learn(60, callback=DivergenceCallback(every=20))
        assert not [w for w in recwarn if "measured" in str(w.message)]

    def test_who_stops_the_run_does(self, monkeypatch):
        def stop(*given, **named):
            raise KeyboardInterrupt

        monkeypatch.setattr(probe.ntk, "linearize", stop)
        with pytest.raises(KeyboardInterrupt):
            dqn().learn(100, callback=DivergenceCallback())

    def test_a_new_run_says_it_again(self, caplog):
        callback, model = DivergenceCallback(every=20), HARD["rows that see each other"]()
        for _ in range(2):
            model.learn(60, callback=callback)
        assert len({record.getMessage() for record in caplog.records}) <= len(caplog.records)
        assert sum("step 52" in record.getMessage() for record in caplog.records) == 2
