"""The studies of control: equal conditions for every agent, what the variants change, and what was committed."""

import copy
import dataclasses
import inspect
import itertools
import logging
import math

import gymnasium
import mujoco
import numpy as np
import pandas as pd
import pytest
import torch
from stable_baselines3 import DDPG, SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise

from divergence_notes import preqn, replay, studies, training
from divergence_notes.studies import (
    ablation,
    alignment,
    collapse,
    comparison,
    dials,
    protocol,
    robots_long,
    runner,
    swimmers,
    swing_up,
)
from divergence_notes.studies import mujoco as robots
from divergence_notes.studies import robots as relatives

PENDULUM, CART = "Pendulum-v1", "InvertedPendulum-v5"
SEED, WARMUP, HIDDEN = 3, 40, (8, 8)
EVALUATION = {"eval_every": 30, "eval_episodes": 2}
METRICS = ["alignment", "accepted", "backtracks", "residual", "td_error", "off_alignment", "off_change", "max_q"]
SMALL = preqn.PreQNConfig(hidden=HIDDEN, policy_hidden=HIDDEN, batch_size=12, held_out=4, warmup=WARMUP, capacity=500)
OURS = ("preqn", "plain", "adam", "target")
"""How the names of our agents begin."""
BASELINES = {"td3": (TD3, 0.1), "ddpg": (DDPG, 0.1), "sac": (SAC, None)}
"""The algorithm and its noise."""


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Make every episode end after 20 steps."""
    for name in (PENDULUM, CART, "HalfCheetah-v5", "Hopper-v5", "Swimmer-v5"):
        monkeypatch.setattr(gymnasium.spec(name), "max_episode_steps", 20)


class Keep(BaseCallback):
    """Keep the agent for a test."""

    def _on_step(self):
        return True


def baseline(name, *callbacks, steps=100, **changes):
    """Train a small baseline; return its curve and its agent."""
    algorithm, noise = BASELINES[name]
    keep = Keep()
    settings = {"env_id": PENDULUM, "seed": SEED, "hidden": HIDDEN, "warmup": WARMUP, "noise": noise}
    settings |= EVALUATION | {"steps": steps, "batch_size": 16} | changes
    curve = protocol.baseline_curve(algorithm, callbacks=(keep, *callbacks), **settings)
    return curve, keep.model


def alone(name, *, steps=100):
    """Train the same agent with nothing but stable-baselines3."""
    algorithm, noise = BASELINES[name]
    env = gymnasium.make(PENDULUM)
    noise = None if noise is None else NormalActionNoise(np.zeros(1), noise * np.ones(1))
    settings = {"seed": SEED, "learning_starts": WARMUP, "action_noise": noise, "batch_size": 16, "device": "cpu"}
    return algorithm("MlpPolicy", env, policy_kwargs={"net_arch": [8, 8]}, **settings).learn(steps)


def state(agent):
    """Return every number that an agent of stable-baselines3 learned or remembers, in one vector."""
    optimizers = [agent.actor.optimizer, agent.critic.optimizer]
    moments = [x for optimizer in optimizers for s in optimizer.state.values() for x in s.values()]
    buffer = agent.replay_buffer
    kept = [torch.as_tensor(x[: buffer.pos]) for x in (buffer.observations, buffer.actions, buffer.rewards)]
    parts = [*agent.policy.state_dict().values(), *moments, *kept]
    return torch.cat([part.double().ravel() for part in parts])


class TestBaseline:
    """The algorithm is the one of stable-baselines3: its code, its defaults, its training."""

    @pytest.mark.parametrize("name", BASELINES)
    def test_bit_for_bit_as_without_the_protocol(self, name):
        """Evaluations leave no trace in the training."""
        curve, agent = baseline(name)
        assert len(curve) == 4
        assert torch.equal(state(agent), state(alone(name)))

    @pytest.mark.parametrize("name", BASELINES)
    def test_its_class_and_its_defaults(self, name):
        algorithm, noise = BASELINES[name]
        keep = Keep()
        given = {"seed": SEED, "steps": 2, "hidden": HIDDEN, "warmup": WARMUP, "noise": noise}
        protocol.baseline_curve(algorithm, PENDULUM, callbacks=(keep,), **given, **EVALUATION)
        agent = keep.model
        plain = algorithm("MlpPolicy", PENDULUM, policy_kwargs={"net_arch": [8, 8]})
        assert type(agent) is algorithm
        assert type(agent.replay_buffer) is ReplayBuffer
        set_here = {"self", "policy", "env", "learning_starts", "action_noise", "policy_kwargs", "seed", "device"}
        names = {name for name in inspect.signature(algorithm).parameters if hasattr(plain, name)} - set_here
        assert {"learning_rate", "tau", "gamma", "train_freq", "gradient_steps", "batch_size", "buffer_size"} <= names
        for name in names:
            mine, default = getattr(agent, name), getattr(plain, name)
            assert mine == default, name
        assert repr(agent.policy) == repr(plain.policy), "layers, widths, activations and the number of critics"
        for mine, default in ((agent.actor, plain.actor), (agent.critic, plain.critic)):
            assert type(mine.optimizer) is type(default.optimizer)
            assert mine.optimizer.defaults == default.optimizer.defaults

    def test_settings_reach_it(self):
        _, agent = baseline("td3", steps=2, hidden=(5, 4, 3), tau=0.25, noise=0.3, warmup=2)
        assert (agent.tau, agent.batch_size, agent.learning_starts, agent.seed) == (0.25, 16, 2, SEED)
        assert [layer.out_features for layer in agent.actor.mu if hasattr(layer, "out_features")] == [5, 4, 3, 1]
        assert [layer.out_features for layer in agent.critic.qf0 if hasattr(layer, "out_features")] == [5, 4, 3, 1]

    def test_the_noise_has_the_size_asked_for(self):
        """In units of half the range; an actor of zeros leaves nothing but the noise."""

        class Still(BaseCallback):
            def _on_training_start(self):
                with torch.no_grad():
                    for p in self.model.actor.parameters():
                        p.zero_()

            def _on_step(self):
                return True

        _, agent = baseline("td3", Still(), steps=3000, warmup=0, noise=0.2, eval_every=9999, gradient_steps=0)
        played = agent.replay_buffer.actions[:3000, 0, 0]
        assert played.std() == pytest.approx(0.2, rel=0.05)
        assert abs(played.mean()) < 0.02

    @pytest.mark.parametrize("name", BASELINES)
    def test_warmup(self, name):
        """So many actions do not depend on the networks, and fill the range; then updates begin, one a step."""
        _, agent = baseline(name)
        _, other = baseline(name, hidden=(30,))
        first, second = (each.replay_buffer.actions[:100, 0, 0] for each in (agent, other))
        np.testing.assert_array_equal(first[:WARMUP], second[:WARMUP])
        assert (first[WARMUP:] != second[WARMUP:]).mean() > 0.5, "the actor decides"
        assert 0.4 < first[:WARMUP].std() < 0.8
        assert agent._n_updates == 100 - WARMUP

    def test_the_seed_decides(self):
        first, _ = baseline("sac")
        torch.manual_seed(17)
        np.random.seed(17)  # noqa: NPY002
        pd.testing.assert_frame_equal(first, baseline("sac")[0], check_exact=True)
        other, _ = baseline("sac", seed=SEED + 1)
        assert (first["return"] != other["return"]).all()


class Shadow(BaseCallback):
    """Play the evaluations once more, by hand."""

    def __init__(self, *, every, episodes):
        super().__init__()
        self.every, self.episodes, self.rows = every, episodes, []
        self.seed = int(np.random.default_rng(SEED).integers(2**31, size=2)[1])

    def _on_step(self):
        step = self.model.num_timesteps
        if step in range(self.every, 10_000, self.every):
            env = gymnasium.make(PENDULUM)
            returns = []
            for k in range(self.episodes):
                obs = env.reset(seed=self.seed)[0] if k == 0 else env.reset()[0]
                total, over = 0.0, False
                while not over:
                    obs, reward, terminated, truncated, _ = env.step(self.model.predict(obs, deterministic=True)[0])
                    total += reward
                    over = terminated or truncated
                returns.append(total)
            self.rows.append([step, sum(returns) / self.episodes])
        return True


def starts(monkeypatch, train):
    """Return the first observation of each episode of each evaluation: shape (evaluations, episodes, d)."""
    found, evaluate = [], training.evaluate

    def spy(env_id, act, **keywords):
        seen = []

        def look(obs):
            seen.append(obs.copy())
            return act(obs)

        returns = evaluate(env_id, look, **keywords)
        found.append(seen[::20])
        return returns

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", spy)
        train()
    return np.array(found)


class TestEvaluations:
    """At the right steps, without noise, the same initial states for all with the same seed."""

    @pytest.mark.parametrize("name", BASELINES)
    def test_against_a_second_evaluation_by_hand(self, name):
        shadow = Shadow(every=30, episodes=3)
        curve, _ = baseline(name, shadow, eval_episodes=3, steps=90)
        assert list(curve.columns) == ["step", "return", "ending"]
        assert curve["step"].tolist() == [30, 60, 90]
        assert curve["ending"].tolist() == ["finished"] * 3
        assert curve[["step", "return"]].to_numpy().tolist() == shadow.rows
        assert curve["return"].nunique() == 3, "the agent learned something"

    @pytest.mark.parametrize("steps, found", [(60, [30, 60]), (70, [30, 60, 70]), (5, [5])])
    def test_after_the_last_step_too(self, steps, found):
        assert baseline("td3", steps=steps)[0]["step"].tolist() == found

    def test_ours_are_two_updates_ahead(self, monkeypatch):
        """At the evaluation of the same step: those of stable-baselines3 begin a step later, and are asked first."""
        made, found, keep, update = [], [], Keep(), preqn.PreQN.update
        counted = {"ours": lambda: len(made), "theirs": lambda: keep.model._n_updates}

        def evaluate(*args, episodes, **more):
            found.append(counted[whose]())
            return np.zeros(episodes)

        monkeypatch.setattr(preqn.PreQN, "update", lambda *args: made.append(1) or update(*args))
        monkeypatch.setattr(training, "evaluate", evaluate)
        whose = "ours"
        preqn.train(PENDULUM, config=SMALL, steps=90, seed=SEED, **EVALUATION)
        whose = "theirs"
        baseline("td3", keep, steps=90)
        assert found == [0, 60 - WARMUP + 1, 90 - WARMUP + 1, 0, 60 - WARMUP - 1, 90 - WARMUP - 1]

    def test_same_initial_states_for_all(self, monkeypatch):
        def ours(seed=SEED):
            preqn.train(PENDULUM, config=SMALL, steps=60, seed=seed, **EVALUATION)

        found = [starts(monkeypatch, ours)]
        found += [starts(monkeypatch, lambda name=name: baseline(name, steps=60)) for name in BASELINES]
        assert found[0].shape == (2, 2, 3)
        for other in found[1:]:
            np.testing.assert_array_equal(other, found[0])
        np.testing.assert_array_equal(found[0][0], found[0][1], "each time the same")
        assert np.abs(found[0][0, 0] - found[0][0, 1]).max() > 0.01, "each episode another"
        other = starts(monkeypatch, lambda: baseline("td3", steps=60, seed=SEED + 1))
        assert np.abs(other - found[0]).max() > 0.01
        np.testing.assert_array_equal(other, starts(monkeypatch, lambda: ours(SEED + 1)))


class Break(BaseCallback):
    """Make a weight of the policy no number, or fail, at a step."""

    def __init__(self, at, error=None):
        super().__init__()
        self.at, self.error = at, error

    def _on_step(self):
        if self.num_timesteps == self.at and self.error:
            raise self.error
        if self.num_timesteps == self.at:
            with torch.no_grad():
                next(self.model.actor.parameters()).fill_(torch.nan)
        return True


class TestBaselinesThatDiverge:
    """One whose actions are no numbers ends there, as one of ours does; whatever else goes wrong is an error."""

    @pytest.mark.parametrize("name", BASELINES)
    def test_it_ends(self, name):
        curve, _ = baseline(name, Break(70), warmup=50)
        assert curve["step"].tolist()[:2] == [30, 60] and len(curve) == 3
        assert 70 <= curve["step"].iloc[-1] <= 72
        assert curve["return"].isna().tolist() == [False, False, True]
        assert set(curve["ending"]) == {"diverged"}

    def test_another_error_is_one(self):
        with pytest.raises(ValueError, match="something else"):
            baseline("sac", Break(70, ValueError("something else")))


class TestLateReturns:
    """The mean of the evaluations after a step; a run that diverged is worth the worst of any run."""

    def runs(self):
        """Return three agents with two seeds on two robots, whose returns say who they are."""
        rows = [
            {"environment": robot, "agent": agent, "seed": seed, "step": step, "ending": "finished"}
            | {"return": 1000.0 * (robot == "b") + 100 * "xyz".index(agent) + 10 * seed + step / 10}
            for robot, agent, seed, step in itertools.product("ab", "xyz", (0, 1), (10, 20, 30, 40))
        ]
        return pd.DataFrame(rows)

    def test_means(self):
        found = protocol.late_returns(self.runs(), after=20, by="agent")
        assert found.index.names == ["environment", "agent", "seed"] and len(found) == 12
        assert found["a", "x", 0] == 3.5 and found["b", "z", 1] == 1213.5

    @pytest.mark.parametrize("last", [15, 25, 35])
    def test_diverged(self, last):
        """Before the late evaluations or among them: what it earned before it diverged does not count."""
        runs = self.runs()
        gone = (runs.environment == "b") & (runs.agent == "z") & (runs.seed == 0)
        cut = runs[gone & (runs.step < last)]
        end = cut.iloc[-1:].assign(step=last, **{"return": np.nan})
        broken = pd.concat([runs[~gone], pd.concat([cut, end]).assign(ending="diverged")])
        found = protocol.late_returns(broken, after=20, by="agent")
        assert found["b", "z", 0] == 1001.0 == runs[runs.environment == "b"]["return"].min()
        rest = protocol.late_returns(runs, after=20, by="agent").drop(("b", "z", 0))
        pd.testing.assert_series_equal(found.drop(("b", "z", 0)), rest)

    @pytest.mark.parametrize("ending", ["diverged", "faulty"])
    def test_the_worst_may_be_its_own(self, ending):
        """And whatever kept a run from finishing, it counts so."""
        runs = self.runs()
        gone = (runs.environment == "b") & (runs.agent == "z") & (runs.seed == 0)
        runs.loc[gone, "ending"] = ending
        runs.loc[gone & (runs.step == 10), "return"] = -60.0
        assert protocol.late_returns(runs, after=20, by="agent")["b", "z", 0] == -60

    def test_of_a_committed_study(self):
        """As the appendix prints them by another road."""
        runs = studies.load("mujoco")
        found = protocol.late_returns(runs, after=80_000, by="agent")
        late = runs[runs.step > 80_000].groupby(["environment", "agent", "seed"])["return"].mean()
        pd.testing.assert_series_equal(found, late)


class TestAsBefore:
    """An evaluation beside the one before it, in one run."""

    def test_by_hand(self):
        returns = pd.Series([1.0, 1.0, 1.0005, 1.0025, np.nan, 1.0025, 1.0025], index=range(5, 40, 5))
        assert protocol.as_before(returns).tolist() == [False, True, True, False, False, False, True]
        assert protocol.as_before(returns).index.equals(returns.index)

    def test_up_and_down(self):
        assert not protocol.as_before(pd.Series([3.0, 1.0, 3.0])).any()


class TestPreQN:
    """Our agent's curve is what training returns, with the ending beside it."""

    def test_curve(self):
        curve = protocol.preqn_curve(PENDULUM, SMALL, steps=90, seed=SEED, **EVALUATION)
        run = preqn.train(PENDULUM, config=SMALL, steps=90, seed=SEED, **EVALUATION)
        pd.testing.assert_frame_equal(curve.drop(columns="ending"), run.curve, check_exact=True)
        assert list(curve.columns) == ["step", "return", *METRICS, "ending"]
        assert curve["step"].tolist() == [30, 60, 90]
        assert set(curve["ending"]) == {"finished"}
        assert curve["return"].notna().all()
        assert curve[METRICS].isna().all(axis=1).tolist() == [True, False, False], "no updates while warming up"
        assert curve[METRICS].iloc[1:].notna().all(axis=None)

    def test_diverged(self):
        config = dataclasses.replace(SMALL, bound=0.7, alpha=1, eta=-1, solver="none")
        curve = protocol.preqn_curve(PENDULUM, config, steps=200, seed=SEED, **EVALUATION)
        assert set(curve["ending"]) == {"diverged"}
        assert curve["return"].isna().tolist() == [False] * (len(curve) - 1) + [True]
        assert WARMUP <= curve["step"].iloc[-1] < 200
        assert curve["max_q"].iloc[-1] > 0.7


class TestLog:
    """MuJoCo's warnings go to the log and to no file."""

    def unstable(self):
        model = mujoco.MjModel.from_xml_string(
            "<mujoco><worldbody><body><freejoint/><geom size='1'/></body></worldbody></mujoco>"
        )
        data = mujoco.MjData(model)
        data.qpos[:3] = np.nan
        mujoco.mj_step(model, data)

    def test_no_file(self, tmp_path, monkeypatch, caplog):
        monkeypatch.chdir(tmp_path)
        with protocol.mujoco_in_the_log():
            self.unstable()
        assert not list(tmp_path.iterdir())
        assert [(r.name, r.levelno) for r in caplog.records] == [("mujoco", logging.WARNING)]
        assert "unstable" in caplog.text

    def test_what_is_deprecated_is_said_quietly(self, caplog):
        with caplog.at_level(logging.DEBUG), protocol.mujoco_in_the_log():
            mujoco.get_mju_user_warning()("this is deprecated")
        assert [r.levelno for r in caplog.records] == [logging.DEBUG]

    def test_the_handler_before_returns(self):
        def mine(message):
            raise AssertionError(message)

        before = mujoco.get_mju_user_warning()
        try:
            mujoco.set_mju_user_warning(mine)
            with pytest.raises(KeyError), protocol.mujoco_in_the_log():
                assert mujoco.get_mju_user_warning() is not mine
                raise KeyError
            assert mujoco.get_mju_user_warning() is mine
        finally:
            mujoco.set_mju_user_warning(before)

    def test_training_leaves_no_file(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        protocol.preqn_curve("HalfCheetah-v5", SMALL, steps=2, seed=0, **EVALUATION)
        baseline("td3", env_id="HalfCheetah-v5", steps=2, eval_every=1)
        assert not list(tmp_path.iterdir())


def forward(weights, name, x):
    """Run one row through a network of stable-baselines3, in double precision."""
    for k in itertools.count(0, 2):
        x = weights[f"{name}.{k}.weight"].double().numpy() @ x + weights[f"{name}.{k}.bias"].double().numpy()
        if f"{name}.{k + 2}.weight" not in weights:
            return x
        x = np.maximum(x, 0)


def cosine_by_hand(before, after, rows, *, n_critics, gamma):
    """Return the cosine between change and TD errors, row by row."""
    product = changes = errors = 0.0
    for obs, action, reward, next_obs, done in rows:
        next_action = np.tanh(forward(before, "actor_target.mu", next_obs))
        pair = np.concatenate([next_obs, next_action])
        targets = [forward(before, f"critic_target.qf{i}", pair)[0] for i in range(n_critics)]
        here = np.concatenate([obs, action])
        q, new = (forward(weights, "critic.qf0", here)[0] for weights in (before, after))
        error = (reward if done else reward + gamma * min(targets)) - q
        product += (new - q) * error
        changes += (new - q) ** 2
        errors += error**2
    return product / math.sqrt(changes * errors)


FIERCE = {"env_id": CART, "tau": 0.5, "learning_rate": 0.03, "gamma": 0.9, "warmup": 21, "eval_every": 1000}
"""Targets that move far in one update, and episodes that end."""


class TestAlignments:
    """What the callback says of an update is what the update did, and it does not meddle."""

    @pytest.mark.parametrize("name, n_critics", [("td3", 2), ("ddpg", 1)])
    def test_against_loops(self, name, n_critics, monkeypatch):
        algorithm, noise = BASELINES[name]
        updates, drawn, sample = {}, [], ReplayBuffer.sample

        def spy(*arguments, **keywords):
            drawn.append(sample(*arguments, **keywords))
            return drawn[-1]

        class Recorded(algorithm):
            def train(self, gradient_steps, batch_size):
                before = copy.deepcopy(self.policy.state_dict())
                super().train(gradient_steps=gradient_steps, batch_size=batch_size)
                updates[self.num_timesteps] = before, copy.deepcopy(self.policy.state_dict()), drawn[-1]

        monkeypatch.setattr(ReplayBuffer, "sample", spy)
        monkeypatch.setitem(BASELINES, name, (Recorded, noise))
        watch = alignment.Alignments(every=3, seed=11)
        _, agent = baseline(name, watch, steps=60, replay_buffer_class=alignment.RememberingBuffer, **FIERCE)
        assert sorted(updates) == list(range(22, 61))
        measured = list(range(24, 61, 3))
        assert [row["step"] for row in watch.rows] == measured, "the first has no update, the last is not forgotten"

        rng, buffer = np.random.default_rng(11), agent.replay_buffer
        spread = []
        for step, row in zip(measured, watch.rows, strict=True):
            before, after, batch = updates[step]
            k = rng.integers(step, size=16)
            others = [buffer.observations, buffer.actions, buffer.rewards, buffer.next_observations, buffer.dones]
            others = [x[k, 0] for x in others]
            others[4] = others[4] * (1 - buffer.timeouts[k, 0])
            batch = [batch.observations, batch.actions, batch.rewards[:, 0], batch.next_observations, batch.dones[:, 0]]
            settings = {"n_critics": n_critics, "gamma": 0.9}
            on = cosine_by_hand(before, after, zip(*(x.numpy() for x in batch), strict=True), **settings)
            off = cosine_by_hand(before, after, zip(*others, strict=True), **settings)
            assert row["on"] == pytest.approx(on, abs=1e-4)
            assert row["off"] == pytest.approx(off, abs=1e-4)
            spread.append([on, off])
        spread = np.array(spread)
        assert np.abs(spread[:, 0] - spread[:, 1]).max() > 0.01, "on and off are not the same"
        assert spread.std(axis=0).min() > 0.01
        assert buffer.dones[:60].sum() - buffer.timeouts[:60].sum() > 2, "some episodes terminate"

    @pytest.mark.parametrize("name", ["td3", "ddpg"])
    def test_the_run_is_left_alone(self, name):
        watch = alignment.Alignments(every=3, seed=11)
        curve, agent = baseline(name, watch, replay_buffer_class=alignment.RememberingBuffer)
        assert len(watch.rows) == 20
        plain, other = baseline(name)
        assert torch.equal(state(agent), state(other))
        pd.testing.assert_frame_equal(curve, plain, check_exact=True)

    def test_the_seed_draws_what_is_off(self):
        rows = []
        for seed in (1, 1, 2):
            watch = alignment.Alignments(every=3, seed=seed)
            baseline("td3", watch, steps=60, replay_buffer_class=alignment.RememberingBuffer)
            rows.append(pd.DataFrame(watch.rows))
        pd.testing.assert_frame_equal(rows[0], rows[1], check_exact=True)
        pd.testing.assert_series_equal(rows[0]["on"], rows[2]["on"], check_exact=True)
        assert (rows[0]["off"] != rows[2]["off"]).all()


@pytest.fixture
def small(monkeypatch):
    """Make the runs of every study small."""
    monkeypatch.setattr(swing_up, "CONFIG", SMALL)
    monkeypatch.setattr(swing_up, "SHARED", EVALUATION)
    monkeypatch.setattr(robots, "CONFIG", SMALL)
    monkeypatch.setattr(robots, "SHARED", EVALUATION)
    bases = {name: (SMALL, {"steps": 100} | EVALUATION) for name in ablation.BASES}
    monkeypatch.setattr(ablation, "BASES", bases)
    monkeypatch.setattr(alignment, "EVERY", 3)


@pytest.fixture
def asked(monkeypatch):
    """Return a list of what a study asks the protocol to do, in place of doing it."""
    calls = []

    def baseline_curve(algorithm, env_id, **keywords):
        calls.append(keywords | {"algorithm": algorithm, "env_id": env_id})
        return pd.DataFrame({"step": [1]})

    def preqn_curve(env_id, config, **keywords):
        calls.append(keywords | {"config": config, "env_id": env_id})
        return pd.DataFrame({"step": [1], "alignment": [0.5], "off_alignment": [0.5], "return": [1.0]})

    monkeypatch.setattr(protocol, "baseline_curve", baseline_curve)
    monkeypatch.setattr(protocol, "preqn_curve", preqn_curve)
    return calls


def columns(agent):
    """Return the columns of an agent of the first two studies."""
    ours = agent.startswith(OURS)
    return ["step", "return", *METRICS, "ending"] if ours else ["step", "return", "ending"]


FULL = {
    "hidden": (64, 64),
    "activation": "sin",
    "policy_hidden": (64, 64),
    "policy_activation": "relu",
    "gamma": 0.99,
    "solver": "cholesky",
    "jitter": 1e-4,
    "alpha": 0.1,
    "eta": 0.97,
    "shrink": 0.5,
    "max_backtracks": 10,
    "optimizer": "none",
    "target_rate": 1,
    "policy_learning_rate": 1e-3,
    "policy_every": 1,
    "initialisation": "pytorch",
    "policy_scale": 1,
    "noise": 0.1,
    "batch_size": 256,
    "held_out": 16,
    "capacity": 1_000_000,
    "warmup": 1_000,
    "update_every": 1,
    "bound": 1e6,
    "seed": 0,
}
"""What a PreQN is on the pendulum."""
LARGE = FULL | {"hidden": (256, 256), "policy_hidden": (256, 256), "batch_size": 100, "warmup": 10_000}
"""What it is on robots."""
SWING = {"steps": 10_000, "seed": 2, "eval_every": 500, "eval_episodes": 5, "env_id": PENDULUM}
ROBOTS = {"steps": 100_000, "seed": 2, "eval_every": 5_000, "eval_episodes": 5}
"""How they are trained there."""


class TestRobots:
    """PreQN and TD3, of the same sizes."""

    @pytest.mark.parametrize("environment", robots.PARAMETERS["environment"])
    @pytest.mark.parametrize("agent", robots.PARAMETERS["agent"])
    def test_runs(self, environment, agent, small):
        found = robots.run(environment=environment, agent=agent, seed=1, steps=60)
        assert list(found.columns) == columns(agent)
        assert found["step"].tolist() == [30, 60]
        assert set(found["ending"]) == {"finished"}

    @pytest.mark.parametrize("environment", ["HalfCheetah-v5", "Hopper-v5", "Swimmer-v5"])
    def test_settings(self, environment, asked):
        for agent in ("preqn", "preqn-tanh", "td3"):
            robots.run(environment=environment, agent=agent, seed=2)
        *both, theirs = asked
        assert [dataclasses.asdict(ours.pop("config")) for ours in both] == [LARGE, LARGE | {"activation": "tanh"}]
        assert both == 2 * [ROBOTS | {"env_id": environment}]
        sizes = {"hidden": (256, 256), "warmup": 10_000, "batch_size": 100, "noise": 0.1}
        assert theirs == ROBOTS | sizes | {"algorithm": TD3, "env_id": environment}


NO_INVERSE = {"solver": "none", "eta": -1}


class TestSwingUp:
    """Twenty agents, one control for each thing that PreQN does."""

    @pytest.mark.parametrize("agent", swing_up.PARAMETERS["agent"])
    def test_runs(self, agent, small):
        found = swing_up.run(agent=agent, seed=1, steps=60)
        assert list(found.columns) == columns(agent)
        assert found["step"].tolist() == [30, 60]
        assert set(found["ending"]) == {"finished"}

    @pytest.mark.parametrize(
        "agent, changes",
        [
            ("preqn-relu", {"activation": "relu"}),
            ("preqn-sin", {}),
            ("adam-relu", NO_INVERSE | {"optimizer": "adam", "alpha": 0.001, "activation": "relu"}),
            ("adam-tanh", NO_INVERSE | {"optimizer": "adam", "alpha": 0.001, "activation": "tanh"}),
            ("adam-sin", NO_INVERSE | {"optimizer": "adam", "alpha": 0.001}),
            ("preqn-sins", {"policy_activation": "sin"}),
            ("adam-sins", NO_INVERSE | {"optimizer": "adam", "alpha": 0.001, "policy_activation": "sin"}),
            ("plain-sins", NO_INVERSE | {"alpha": 0.001, "policy_activation": "sin"}),
            ("plain-0.0001", NO_INVERSE | {"alpha": 0.0001}),
            ("plain-0.1", NO_INVERSE | {"alpha": 0.1}),
            ("target-0.0001", NO_INVERSE | {"alpha": 0.0001, "target_rate": 0.005}),
            ("target-0.1", NO_INVERSE | {"alpha": 0.1, "target_rate": 0.005}),
        ],
    )
    def test_ours(self, agent, changes, asked, tmp_path):
        swing_up.run(agent=agent, seed=2, checkpoint=tmp_path)
        (call,) = asked
        assert dataclasses.asdict(call.pop("config")) == FULL | changes
        assert call == SWING | {"checkpoint": tmp_path}

    @pytest.mark.parametrize("agent, algorithm, noise", [("ddpg", DDPG, 0.1), ("td3", TD3, 0.1), ("sac", SAC, None)])
    def test_baselines(self, agent, algorithm, noise, asked, tmp_path):
        swing_up.run(agent=agent, seed=2, checkpoint=tmp_path)
        given = {"algorithm": algorithm, "noise": noise, "hidden": (64, 64), "warmup": 1_000, "checkpoint": tmp_path}
        assert asked == [SWING | given]

    def test_the_grid(self):
        assert swing_up.PARAMETERS["seed"] == tuple(range(10))
        assert len(set(swing_up.PARAMETERS["agent"])) == 20

    def test_what_is_compared(self):
        """Agents of the grid, each pair once."""
        known = set(swing_up.PARAMETERS["agent"])
        assert {agent for pair in swing_up.COMPARED for agent in pair} <= known
        assert len({frozenset(pair) for pair in swing_up.COMPARED}) == len(swing_up.COMPARED) == 15
        assert set(swing_up.PILOT["agents"]) < known
        assert set(swing_up.PILOT["seeds"]) < set(swing_up.PARAMETERS["seed"])
        assert swing_up.NEVER == 10_500

    def test_one_thing(self, asked):
        """What the config of the one has otherwise than the other."""
        apart = []
        for pair in (*swing_up.COMPARED[:7], *swing_up.COMPARED[-2:]):
            for agent in pair:
                swing_up.run(agent=agent, seed=0)
            ours, theirs = (dataclasses.asdict(call["config"]) for call in asked[-2:])
            apart.append({key for key in ours if ours[key] != theirs[key]})
        rest = 2 * [{"policy_activation"}] + [{"target_rate"}, {"policy_activation"}, {"optimizer"}]
        assert apart == 4 * [{"solver", "eta", "optimizer", "alpha"}] + rest

    def test_the_plain_step_is_the_mean_semi_gradient(self):
        """The step that the agent takes, against autograd on the squared TD error with fixed targets."""
        config = dataclasses.replace(SMALL, solver="none", alpha=0.01, eta=-1, gamma=0.9)
        box = gymnasium.spaces.Box(-1, 1, (3,), np.float32), gymnasium.spaces.Box(-2, 2, (1,), np.float32)
        agent = preqn.PreQN(*box, config)
        g = torch.Generator().manual_seed(0)
        obs, next_obs = torch.randn(16, 3, generator=g), torch.randn(16, 3, generator=g)
        action, reward = 4 * torch.rand(16, 1, generator=g) - 2, torch.randn(16, generator=g)
        done = torch.arange(16) % 5 == 0
        net = copy.deepcopy(agent.net)
        with torch.no_grad():
            after = net(torch.cat([next_obs, torch.tanh(agent.policy(next_obs))], dim=1))[:, 0]
        error = reward + 0.9 * torch.where(done, 0, after) - net(torch.cat([obs, action / 2], dim=1))[:, 0]
        (error[:12].square().mean() / 2).backward()
        agent.update(replay.Batch(obs, action, reward, next_obs, done))
        for p, q in zip(net.parameters(), agent.net.parameters(), strict=True):
            torch.testing.assert_close(q, p - 0.01 * p.grad)


class TestRelatives:
    """PreQN, the same without the inverse, and three baselines, of the same sizes."""

    @pytest.mark.parametrize("agent", relatives.PARAMETERS["agent"])
    def test_runs(self, agent, small, tmp_path):
        found = relatives.run(environment="Hopper-v5", agent=agent, seed=1, steps=60, checkpoint=tmp_path / "run")
        assert list(found.columns) == columns(agent)
        assert found["step"].tolist() == [30, 60]

    def test_settings(self, asked):
        for agent in relatives.PARAMETERS["agent"]:
            relatives.run(environment="Swimmer-v5", agent=agent, seed=2)
        ours, theirs = asked[:4], asked[4:]
        adam = NO_INVERSE | {"optimizer": "adam", "alpha": 0.001}
        changes = [{}, {"activation": "tanh"}, {"initialisation": "glorot"}, adam]
        assert [dataclasses.asdict(call.pop("config")) for call in ours] == [LARGE | each for each in changes]
        rest = ROBOTS | {"env_id": "Swimmer-v5", "checkpoint": None}
        assert ours == 4 * [rest]
        sizes = {"hidden": (256, 256), "warmup": 10_000, "batch_size": 100}
        known = [(DDPG, 0.1), (TD3, 0.1), (SAC, None)]
        assert theirs == [rest | sizes | {"algorithm": each, "noise": noise} for each, noise in known]

    def test_equal_seeds_mean_equal_first_weights(self):
        """Of our agents, but for the one that draws them otherwise."""
        first = {}
        for agent, changes in relatives.CHANGES.items():
            config = dataclasses.replace(SMALL, **changes)
            trained = preqn.train(PENDULUM, config=config, steps=5, seed=SEED, **EVALUATION).agent
            parts = [part for part in vars(trained).values() if isinstance(part, torch.nn.Module)]
            first[agent] = torch.cat([p.detach().ravel() for part in parts for p in part.parameters()])
        alike = {agent for agent, weights in first.items() if torch.equal(weights, first["preqn"])}
        assert alike == set(relatives.CHANGES) - {"preqn-glorot"} and len(first["preqn"]) > 100

    def test_noise_on_the_random_actions_of_the_baselines(self):
        """stable-baselines3 adds it there, too, so that some are at the ends of the range."""
        noisy, plain = (baseline("td3", steps=30, noise=noise)[1].replay_buffer.actions[:30] for noise in (0.5, None))
        assert (np.abs(noisy) == 1).any() and not (np.abs(plain) == 1).any()

    def test_what_is_compared(self):
        assert {agent for pair in relatives.COMPARED for agent in pair} == set(relatives.PARAMETERS["agent"])
        assert len({frozenset(pair) for pair in relatives.COMPARED}) == len(relatives.COMPARED) == 11
        assert relatives.COMPARED[:3] == (("preqn", "adam"), ("preqn", "ddpg"), ("preqn", "td3")) == relatives.PRIMARY

    def test_its_seeds_are_not_those_of_its_pilot(self):
        assert len(relatives.PARAMETERS["seed"]) == 5
        assert not set(relatives.PARAMETERS["seed"]) & set(robots.PARAMETERS["seed"])

    def test_what_it_says_of_the_baselines(self):
        """What the protocol names as their differences is how stable-baselines3 makes them."""
        ddpg, td3 = (each("MlpPolicy", PENDULUM) for each in (DDPG, TD3))
        assert ddpg.tau == td3.tau == 0.005
        assert (len(ddpg.critic.q_networks), len(td3.critic.q_networks)) == (1, 2)
        assert (ddpg.policy_delay, td3.policy_delay) == (1, 2)
        assert ddpg.target_noise_clip == 0
        assert (td3.target_policy_noise, td3.target_noise_clip) == (0.2, 0.5)
        assert SAC("MlpPolicy", PENDULUM).learning_rate == 3e-4
        for agent in (ddpg, td3):
            assert isinstance(agent.critic.qf0[1], torch.nn.ReLU) and agent.actor.optimizer.defaults["lr"] == 1e-3


class TestJudged:
    """What the protocol of the robots says of their scores, by made-up runs whose late returns are planted."""

    ROBOTS = relatives.PARAMETERS["environment"]
    UNIT = (2000.0, 500.0, 30.0)
    SPREADS = (0.2, 0.4, 0.3)
    LEVEL = (1.0, 1.0, 1.0)

    @pytest.fixture(autouse=True)
    def smallest(self, monkeypatch):
        """Return what could be seen on all robots, by the share that is left out; really it takes seconds."""
        seen = {0.25: 0.5, 0: 0.9}

        def smallest(spreads, *, runs, rng, trim):
            assert runs == (5, 5)
            if np.size(spreads) == 1:
                return 10 * float(spreads)
            np.testing.assert_allclose(spreads, self.SPREADS)
            return seen[trim]

        monkeypatch.setattr(comparison, "smallest_difference", smallest)
        return seen

    def runs(self, scores, *, seeds=range(3, 8), gaps=(-0.1, -0.05, 0, 0.05, 0.1), spreads=(1, 1, 1)):
        """Return runs that earn these scores on average, three for each agent; little at first, more and more late."""
        rows = []
        for (agent, means), k, (seed, gap) in itertools.product(
            scores.items(), range(3), zip(seeds, gaps, strict=True)
        ):
            score = self.UNIT[k] * (means[k] + gap * spreads[k])
            run = {"environment": self.ROBOTS[k], "agent": agent, "seed": seed, "ending": "finished"}
            shares = {50_000: 0, 55_000: 0.5, 80_000: 0.7, 100_000: 1.8}
            rows += [run | {"step": step, "return": score * share} for step, share in shares.items()]
        return pd.DataFrame(rows)

    @pytest.fixture
    def pilot(self):
        """Return three seeds; TD3 earns the unit on average, not by the median, and no agent is noisiest everywhere."""
        three = {"seeds": range(3), "gaps": np.array([-1, -1, 2]) / math.sqrt(3)}
        some = {"td3": (self.LEVEL, (0.1, 0.4, 0.1)), "preqn": ((5.0, 5.0, 5.0), (0.2, 0.1, 0.3))}
        return pd.concat([self.runs({name: means}, **three, spreads=each) for name, (means, each) in some.items()])

    def judged(self, scores, pilot):
        return relatives.judged(self.runs(scores), pilot=pilot, rng=np.random.default_rng(0))

    def test_scores(self, pilot):
        """1 is what TD3 earns in the pilot; another seed than those of the study is none of its runs."""
        more = self.runs({"adam": (9.0, 9.0, 9.0)}, seeds=range(5))[lambda runs: runs.seed < 3]
        runs = pd.concat([more, self.runs({"adam": (1.0, 2.0, 3.0)})])
        found = relatives.scores(runs, pilot=pilot)
        assert found.keys() == {"adam"}
        np.testing.assert_allclose(found["adam"], [k + 0.05 * np.arange(-2, 3) for k in (1, 2, 3)])

    def test_spreads(self, pilot):
        np.testing.assert_allclose(relatives.spreads(pilot), self.SPREADS)

    @pytest.mark.parametrize("seed", [3, 7])
    def test_an_agent_that_lacks_a_run_is_left_out(self, pilot, seed):
        runs = self.runs(dict.fromkeys(("preqn", "td3", "adam"), self.LEVEL))
        short = runs[(runs.agent != "td3") | (runs.seed != seed) | (runs.environment != "Hopper-v5")]
        assert relatives.scores(short, pilot=pilot).keys() == {"preqn", "adam"}
        table = relatives.judged(short, pilot=pilot, rng=np.random.default_rng(0))
        assert set(table.index.droplevel("where")) == {("preqn", "adam")}

    def test_a_row_for_each_pair_and_place(self, pilot):
        """And a verdict for three of them."""
        table = self.judged(dict.fromkeys(relatives.PARAMETERS["agent"], self.LEVEL), pilot)
        places = ("together", *self.ROBOTS)
        assert list(table.index) == [(where, *pair) for where in places for pair in relatives.COMPARED]
        said = table.verdict.dropna()
        assert list(said.index) == [("together", "preqn", other) for other in ("adam", "ddpg", "td3")]
        assert [each.word for each in said] == ["level"] * 3

    def test_ahead_and_behind(self, pilot):
        scores = {"preqn": self.LEVEL, "adam": (1.5, 1.5, 1.5), "ddpg": (0.5, 0.5, 0.5), "td3": self.LEVEL}
        table = self.judged(scores, pilot).loc["together"]
        assert [said.word for said in table.verdict.dropna()] == ["behind", "ahead", "level"]
        row = table.loc["adam", "td3"]
        assert row.difference == pytest.approx(0.5) and row["mean"] == pytest.approx(0.5)
        assert 0.4 < row.mean_low < 0.5 < row.mean_high < 0.6 and row.verdict is None

    def test_a_robot_that_the_middle_leaves_out(self, pilot):
        """A little better on two, far worse on the third: the interquartile mean alone would say ahead."""
        scores = {"preqn": (1.5, 1.5, 0.1), "td3": self.LEVEL}
        found = relatives.scores(self.runs(scores), pilot=pilot)
        rng = np.random.default_rng(0)
        middle = comparison.compared(found, [("preqn", "td3")], spreads=self.SPREADS, rng=rng)
        assert middle.verdict.iloc[0].word == "ahead"
        row = self.judged(scores, pilot).loc["together", "preqn", "td3"]
        assert row.verdict.word == "level" and row.difference > 0.15 and abs(row["mean"]) < 0.05

    def test_one_robot_can_outweigh_two(self, pilot):
        """The rule is no cure for that: ahead together, and on two of three below."""
        table = self.judged({"preqn": (0.8, 0.8, 2.2), "td3": self.LEVEL}, pilot)
        assert table.verdict.iloc[0].word == "ahead"
        assert (np.sign(table.difference) == [1, -1, -1, 1]).all() and (table.high[1:3] < 0).all()

    def test_alone_it_is_what_the_comparison_says(self, pilot):
        scores = {"preqn": (1.1, 0.9, 2.0), "td3": self.LEVEL}
        found = relatives.scores(self.runs(scores), pilot=pilot)
        table = self.judged(scores, pilot)
        for k, robot in enumerate(self.ROBOTS):
            gap = comparison.difference(found["preqn"][k], found["td3"][k], rng=np.random.default_rng(1))
            row = table.loc[robot, "preqn", "td3"]
            assert row.difference == gap.value and (row.low, row.high) == pytest.approx(gap[1:], abs=0.03)
            assert row.runs == (5, 5) and np.isnan(row["mean"])

    @pytest.mark.parametrize("larger", [0, 0.25])
    def test_what_could_be_seen(self, pilot, smallest, larger):
        """On all robots the larger of two, since both must say it; on one with the spread of that robot."""
        smallest |= {0: 0.5, 0.25: 0.5, larger: 0.9}
        table = self.judged({"preqn": self.LEVEL, "td3": self.LEVEL}, pilot)
        assert table.smallest.tolist() == pytest.approx([0.9, 2, 4, 3]) and table.verdict.iloc[0].within == 0.9

    def test_a_run_that_diverged_counts_as_the_worst(self, pilot):
        runs = self.runs({"preqn": self.LEVEL, "td3": self.LEVEL})
        gone = (runs.agent == "preqn") & (runs.seed == 4) & (runs.environment == "Swimmer-v5")
        runs.loc[gone, "ending"] = "diverged"
        runs.loc[gone & (runs.step == 100_000), "return"] = np.nan
        early = (runs.agent == "td3") & (runs.environment == "Swimmer-v5") & (runs.step == 50_000)
        runs.loc[early & (runs.seed == 3), "return"] = -12.0
        assert relatives.scores(runs, pilot=pilot)["preqn"][2][1] == pytest.approx(-12 / 30)

    @pytest.mark.parametrize(
        "middle, mean, word",
        [
            ("ahead", "ahead", "ahead"),
            ("behind", "behind", "behind"),
            ("ahead", "level", "level"),
            ("level", "ahead", "level"),
            ("ahead", "behind", "level"),
        ],
    )
    def test_agreed(self, middle, mean, word):
        for first, second in ((2.0, 3.0), (3.0, 2.0)):
            found = relatives.agreed(comparison.Verdict(middle, first), comparison.Verdict(mean, second))
            assert found == (word, 3.0)


class TestLongerRuns:
    """The runs of the relatives, three times as long."""

    def test_settings(self, asked):
        """Each run asks for what the shorter one asks for, and for more steps."""
        for agent in robots_long.PARAMETERS["agent"]:
            relatives.run(environment="Hopper-v5", agent=agent, seed=2)
            robots_long.run(environment="Hopper-v5", agent=agent, seed=2)
        for shorter, longer in zip(asked[::2], asked[1::2], strict=True):
            assert longer == shorter | {"steps": 300_000} and shorter["steps"] == 100_000

    def test_it_goes_on_where_the_shorter_ends(self, small):
        """How long a run is changes nothing of its beginning."""
        for agent in robots_long.PARAMETERS["agent"]:
            shorter, longer = (
                study.run(environment="Hopper-v5", agent=agent, seed=1, steps=steps)
                for study, steps in ((relatives, 60), (robots_long, 120))
            )
            pd.testing.assert_frame_equal(longer.iloc[: len(shorter)], shorter, check_exact=True)

    def test_the_price(self):
        """It is what so many steps of the shorter runs cost."""
        assert robots_long.SECONDS == {agent: 3 * relatives.SECONDS[agent] for agent in ("preqn", "ddpg", "td3")}


class TestDials:
    """One dial at a time, on seeds that no comparison uses."""

    def test_settings(self, asked):
        changes = {
            "as-there": {},
            "glorot": {"initialisation": "glorot"},
            "small-policy": {"policy_scale": 0.01},
            "policy-every-2": {"policy_every": 2},
            "alpha-1": {"alpha": 1},
            "jitter-1e-06": {"jitter": 0.000001},
            "jitter-0.01": {"jitter": 0.01},
            "batch-256": {"batch_size": 256},
        }
        assert set(changes) == set(dials.PARAMETERS["variant"])
        for variant, change in changes.items():
            dials.run(environment="Swimmer-v5", variant=variant, seed=100)
            call = asked.pop()
            assert dataclasses.asdict(call.pop("config")) == LARGE | change
            every = {"steps": 50_000, "eval_every": 2_500, "eval_episodes": 5, "seed": 100}
            assert call == every | {"env_id": "Swimmer-v5", "checkpoint": None}

    def test_its_seeds_are_its_own(self):
        grids = [study.PARAMETERS["seed"] for study in (relatives, robots, swing_up)]
        assert not set(dials.PARAMETERS["seed"]) & {seed for seeds in grids for seed in seeds}

    @pytest.mark.parametrize(
        ("second", "third", "wins"),
        [
            ([[3, 3, 3], [3, 3, 3]], [[2, 2, 2], [2, 2, 2]], 1),
            ([[3, 3, 3], [3, 3, 0]], [[2, 2, 2], [1, 1, 1]], 1),  # five of six pairs
            ([[3, 3, 0], [3, 3, 0]], [[1, 1, 1], [1, 1, 1]], 0),  # four, and the highest mean on both robots
            ([[3, 3, 3], [3, 3, 3]], [[2, 2, 2], [4, 4, 4]], 0),  # all six, and not the highest on one robot
            ([[0, 0, 0], [0, 0, 0]], [[0, 0, 9], [2, 2, 2]], 0),  # the third has the highest means, by one run
            ([[0, 0, 0], [0, 0, 0]], [[1, 2, 2], [2, 2, 2]], 2),  # a tie is not above, and five are enough
            ([[0, 0, 0], [0, 0, 0]], [[1, 2, 2], [2, 2, 1]], 0),
            ([[0, 0, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]], 0),
        ],
    )
    def test_the_rule(self, second, third, wins):
        scores = np.stack([np.ones((2, 3)), second, third], axis=-1)
        assert dials.winner(scores) == wins
        assert dials.winner(np.stack([scores, scores - 7])).tolist() == [wins, wins]

    def test_the_rule_spelled_out(self):
        """The same for many tables at once as by its words, for one after the other; all three outcomes are met."""
        tables = np.random.default_rng(0).normal([0.0, 0.6, 0.9], size=(400, 2, 3, 3))
        said = []
        for cheetah, swimmer in tables:
            leaders = {max(range(3), key=lambda k, robot=robot: sum(robot[:, k])) for robot in (cheetah, swimmer)}
            leader = leaders.pop()
            above = sum(run[leader] > run[0] for robot in (cheetah, swimmer) for run in robot)
            said.append(leader if not leaders and above >= 5 else 0)
        assert dials.winner(tables).tolist() == said and set(said) == {0, 1, 2}

    def test_what_the_rule_refuses(self):
        with pytest.raises(ValueError, match=r"scores must have axes .* got shape \(3, 8\)"):
            dials.winner(np.zeros((3, 8)))
        with pytest.raises(ValueError, match="scores"):
            dials.winner(np.full((2, 3, 8), np.nan))


CHANGES = {
    "default": {},
    "relu": {"activation": "relu"},
    "tanh": {"activation": "tanh"},
    "no-line-search": {"eta": -1},
    "jitter-1e-06": {"jitter": 0.000001},
    "jitter-0.01": {"jitter": 0.01},
    "minimum-norm": {"solver": "minimum-norm"},
    "alpha-0.03": {"alpha": 0.03},
    "alpha-1": {"alpha": 1},
}


class TestAblation:
    """Each variant changes one setting."""

    def test_all_are_here(self):
        assert set(CHANGES) == set(ablation.PARAMETERS["variant"])

    @pytest.mark.parametrize("variant", CHANGES)
    def test_settings(self, variant, asked):
        for environment in ablation.PARAMETERS["environment"]:
            ablation.run(seed=2, environment=environment, variant=variant)
        swing, cheetah = asked
        assert dataclasses.asdict(swing.pop("config")) == FULL | CHANGES[variant]
        assert swing == SWING
        assert dataclasses.asdict(cheetah.pop("config")) == LARGE | {"warmup": 5_000} | CHANGES[variant]
        evaluated = {"steps": 25_000, "seed": 2, "eval_every": 2_500, "eval_episodes": 5}
        assert cheetah == evaluated | {"env_id": "HalfCheetah-v5"}

    @pytest.mark.parametrize("variant", ablation.PARAMETERS["variant"])
    def test_runs(self, variant, small):
        found = ablation.run(seed=1, environment=PENDULUM, variant=variant, steps=60)
        assert list(found.columns) == ["step", "return", *METRICS, "ending"]
        assert found["step"].tolist() == [30, 60]

    def test_runs_on_robots(self, small):
        """The length is the study's own if none is asked for."""
        found = ablation.run(seed=1, environment="HalfCheetah-v5", variant="default")
        assert found["step"].tolist() == [30, 60, 90, 100]

    def test_variants_differ_in_what_they_do(self, small):
        """None is the default under another name."""
        runs = [ablation.run(seed=1, environment=PENDULUM, variant=name, steps=60) for name in CHANGES]
        last = [tuple(run[METRICS].iloc[-1]) for run in runs]
        assert len(set(last)) == len(CHANGES)


class TestCollapse:
    """The run of the pendulum, but longer, with Q asked beside the policy."""

    @pytest.mark.nightly
    def test_q_is_asked_at_the_same_states(self, small):
        """The column `return` is that of plain training; `greedy` is found again by hand at the end of the run."""
        config = dataclasses.replace(SMALL, activation="tanh", alpha=0.3)
        plain = preqn.train(PENDULUM, config=config, steps=500, seed=1, eval_every=250, eval_episodes=5)
        found = collapse.run(seed=1, variant="alpha-0.3", steps=500)
        pd.testing.assert_frame_equal(found.drop(columns=["greedy", "ending"]), plain.curve, check_exact=True)
        assert list(found.columns) == ["step", "return", "greedy", *METRICS, "ending"]

        def by_hand(obs):
            values = []
            for k in range(41):
                torque = -1 + k / 20
                row = torch.tensor([[*obs.tolist(), torque]])
                values.append((plain.agent.net(row).item(), torque))
            return np.array([2 * max(values)[1]], dtype=np.float32)

        seed = training.seeds(np.random.default_rng(1))[1]
        expected = training.evaluate(PENDULUM, by_hand, episodes=5, seed=seed).mean()
        assert found["greedy"].iloc[-1] == pytest.approx(expected, rel=0.01)
        assert found["greedy"].iloc[-1] != found["return"].iloc[-1]

    def test_settings(self):
        changes = {"alpha-0.1": {}, "alpha-0.3": {"alpha": 0.3}, "slow-policy": {"policy_learning_rate": 1e-4}}
        assert set(collapse.VARIANTS) == set(collapse.PARAMETERS["variant"])
        for name, settings in collapse.VARIANTS.items():
            config = dataclasses.replace(swing_up.CONFIG, activation="tanh", **settings)
            assert dataclasses.asdict(config) == FULL | {"activation": "tanh"} | changes[name]
        assert collapse.STEPS == 20_000


class TestSaturation:
    """The swimmer of the robots' study, shorter, and the slope of its policy's tanh."""

    def test_runs(self, small, monkeypatch):
        monkeypatch.setattr(swimmers, "EVALUATION", EVALUATION)
        before = swimmers.run(seed=1, variant="as-before", steps=60)
        assert list(before.columns) == ["step", "return", *METRICS, "ending", "slope"]
        again = robots.run(environment="Swimmer-v5", agent="preqn", seed=1, steps=60)
        pd.testing.assert_frame_equal(before.drop(columns="slope"), again, check_exact=True)
        for variant in ("slow-policy", "tanh"):
            assert (swimmers.run(seed=1, variant=variant, steps=60)["return"] != before["return"]).iloc[-1]

    def test_settings(self):
        assert set(swimmers.VARIANTS) == set(swimmers.PARAMETERS["variant"])
        changes = {"as-before": {}, "slow-policy": {"policy_learning_rate": 1e-4}, "tanh": {"activation": "tanh"}}
        assert swimmers.VARIANTS == changes
        assert dataclasses.asdict(robots.CONFIG) == LARGE
        assert swimmers.STEPS == 40_000

    @pytest.mark.parametrize("push", [0.0, 1.0, 30.0])
    def test_slope_against_autograd(self, push):
        """The derivative of each action by what the policy computes, over the same episode by hand."""
        agent = preqn.train("Swimmer-v5", config=SMALL, steps=2, seed=0, **EVALUATION).agent
        with torch.no_grad():
            list(agent.policy.parameters())[-1].add_(push)
        env = gymnasium.make("Swimmer-v5")
        obs, over, slopes = env.reset(seed=4)[0], False, []
        while not over:
            computed = agent.policy(torch.as_tensor(obs, dtype=torch.float32)[None])[0].detach().requires_grad_()
            action = torch.tanh(computed)
            slopes.append(torch.autograd.grad(action.sum(), computed)[0].mean().item())
            obs, _, terminated, truncated, _ = env.step(action.detach().numpy())
            over = terminated or truncated
        assert swimmers.mean_slope(agent, seed=4) == pytest.approx(np.mean(slopes), abs=1e-6)
        assert len(slopes) == 20
        assert (np.mean(slopes) == 0) == (push == 30)


class TestAlignmentStudy:
    """One row for every tenth part, the mean of the updates in it."""

    @pytest.mark.parametrize("environment", alignment.PARAMETERS["environment"])
    @pytest.mark.parametrize("agent", alignment.PARAMETERS["agent"])
    def test_runs(self, environment, agent, small):
        found = alignment.run(seed=1, environment=environment, agent=agent, steps=100)
        assert list(found.columns) == ["step", "on", "off", "return"]
        assert found["step"].tolist() == list(range(50, 101, 10))
        assert found.notna().all(axis=None)
        assert found[["on", "off"]].abs().max(axis=None) <= 1

    @pytest.mark.parametrize("activation", ["sin", "relu"])
    def test_ours_are_the_metrics_of_the_curve(self, activation, small):
        found = alignment.run(seed=1, environment=PENDULUM, agent=f"preqn-{activation}", steps=100)
        config = dataclasses.replace(SMALL, activation=activation, held_out=12)
        curve = protocol.preqn_curve(PENDULUM, config, steps=100, seed=1, eval_every=10, eval_episodes=5)
        curve = curve[curve["step"] > WARMUP]
        for mine, theirs in {"step": "step", "on": "alignment", "off": "off_alignment", "return": "return"}.items():
            assert found[mine].tolist() == curve[theirs].tolist()

    @pytest.mark.parametrize("name", ["td3", "ddpg"])
    def test_rows_are_means(self, name, small, monkeypatch):
        watches, create = [], alignment.Alignments

        def spy(**keywords):
            watches.append(create(**keywords))
            return watches[-1]

        monkeypatch.setattr(alignment, "Alignments", spy)
        found = alignment.run(seed=SEED, environment=PENDULUM, agent=name, steps=100)
        (watch,) = watches
        assert [row["step"] for row in watch.rows] == list(range(42, 101, 3))
        for row in found.itertuples():
            inside = [each for each in watch.rows if row.step - 10 < each["step"] <= row.step]
            assert len(inside) in (3, 4)
            assert row.on == pytest.approx(sum(each["on"] for each in inside) / len(inside))
            assert row.off == pytest.approx(sum(each["off"] for each in inside) / len(inside))
        curve, _ = baseline(name, batch_size=12, eval_every=10, eval_episodes=5)
        assert found["return"].tolist() == curve["return"].tolist()[4:]
        again = create(every=3, seed=SEED)
        baseline(name, again, batch_size=12, replay_buffer_class=alignment.RememberingBuffer)
        assert again.rows == watch.rows

    @pytest.mark.parametrize(
        "environment, base, steps", [(PENDULUM, FULL, 10_000), ("HalfCheetah-v5", LARGE | {"warmup": 5_000}, 25_000)]
    )
    def test_settings(self, environment, base, steps, asked):
        evaluated = {"steps": steps, "seed": 2, "eval_every": steps // 10, "eval_episodes": 5, "env_id": environment}
        for activation in ("sin", "relu"):
            alignment.run(seed=2, environment=environment, agent=f"preqn-{activation}")
            call = asked.pop()
            config = dataclasses.asdict(call.pop("config"))
            assert config == base | {"activation": activation, "held_out": base["batch_size"]}
            assert call == evaluated
        for agent, algorithm in (("td3", TD3), ("ddpg", DDPG)):
            with pytest.raises(KeyError):  # nothing was measured in place of the run
                alignment.run(seed=2, environment=environment, agent=agent)
            call = asked.pop()
            (watch,) = call.pop("callbacks")
            assert watch.every == 20
            sizes = {"hidden": base["hidden"], "warmup": base["warmup"], "batch_size": base["batch_size"], "noise": 0.1}
            rest = {"algorithm": algorithm, "replay_buffer_class": alignment.RememberingBuffer}
            assert call == evaluated | sizes | rest


STUDIES = {
    study.__name__.rpartition(".")[2]: study
    for study in (robots, ablation, alignment, collapse, swimmers, swing_up, relatives, robots_long, dials)
}
LENGTHS = {PENDULUM: (500, 10_000), "HalfCheetah-v5": (2_500, 25_000)}
"""Steps from one row to the next, and in all, of the ablation."""
SPACING = {
    "mujoco": (5_000, 100_000),
    "collapse": (250, 20_000),
    "swimmers": (2_500, 40_000),
    "swing_up": (500, 10_000),
    "robots": (5_000, 100_000),
    "robots_long": (5_000, 300_000),
    "dials": (2_500, 50_000),
}
"""The same of studies whose runs are all alike."""


def spacing(name, parameters):
    """Return the steps from one row to the next, and in all, of a run of a study."""
    if name in SPACING:
        return SPACING[name]
    every, steps = LENGTHS[parameters["environment"]]
    return (every, steps) if name == "ablation" else (steps // 10, steps)


class TestCommittedRuns:
    """Each run of a grid that is there is what its name says, and whole."""

    def there(self, name):
        """Return the parameters and the table of each run that is there."""
        study = STUDIES[name]
        paths = [
            (parameters, runner.result_path(study, parameters, studies.RESULTS)) for parameters in runner.grid(study)
        ]
        return [(p, pd.read_csv(path, keep_default_na=False, na_values=[""])) for p, path in paths if path.exists()]

    def test_the_studies_are_known(self):
        assert set(STUDIES) <= set(runner.names())
        for name, study in STUDIES.items():
            assert runner.find(name) is study

    def test_some_are_there(self):
        assert self.there("swing_up")

    @pytest.mark.parametrize("name", STUDIES)
    def test_parameters(self, name):
        for parameters, table in self.there(name):
            assert list(table.columns[: len(parameters)]) == list(parameters)
            for key, value in parameters.items():
                assert set(table[key].astype(str)) == {str(value)}

    @pytest.mark.parametrize("name", STUDIES)
    def test_steps(self, name):
        for parameters, table in self.there(name):
            every, steps = spacing(name, parameters)
            found, diverged = table["step"].tolist(), table["return"].isna()
            assert all(a < b for a, b in itertools.pairwise(found))
            assert not diverged.iloc[:-1].any(), "only the last row can lack a return"
            regular = found[:-1] if diverged.iloc[-1] else found
            assert regular == list(range(regular[0], regular[-1] + 1, every)) if regular else True
            assert found[-1] <= steps if diverged.iloc[-1] else found[-1] == steps
            if "ending" in table:
                assert set(table["ending"]) == {"diverged" if diverged.iloc[-1] else "finished"}
                assert found[0] <= every

    @pytest.mark.parametrize("name", STUDIES)
    def test_numbers(self, name):
        for parameters, table in self.there(name):
            ours = parameters.get("agent", "preqn").startswith(OURS)
            if name == "alignment":
                want = ["step", "on", "off", "return"]
            else:
                asked = ["greedy"] if name == "collapse" else []
                last = ["slope"] if name == "swimmers" else []
                want = ["step", "return", *asked, *(METRICS if ours else []), "ending", *last]
            assert list(table.columns[len(parameters) :]) == want
            cosines = table[[key for key in ("alignment", "off_alignment", "on", "off") if key in table]]
            assert (cosines.abs().fillna(0) <= 1 + 1e-6).all(axis=None)
