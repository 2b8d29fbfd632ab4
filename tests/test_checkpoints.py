"""Runs that are killed and go on: to the last bit where the agent is ours, from the last checkpoint where it is not."""

import dataclasses
import os
import re
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import SAC, TD3

from divergence_notes import _files, dqn, preqn, training
from divergence_notes.studies import protocol

CONFIG = preqn.PreQNConfig(
    hidden=(16, 16), policy_hidden=(16,), batch_size=32, held_out=4, warmup=60, capacity=150, seed=3
)
"""More is remembered than fits, and the memory is overwritten."""
STEPS = 240


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Make every episode end after 50 steps, so that a run has several."""
    for name in ("Pendulum-v1", "CartPole-v1", "Swimmer-v5", "HalfCheetah-v5"):
        monkeypatch.setattr(gymnasium.spec(name), "max_episode_steps", 50)


class Killed(BaseException):
    """The process is gone."""


def killed(monkeypatch, moments):
    """Let a run be killed right after some of its checkpoints, counted over all starts; return the count."""
    write, written = _files.write, []

    def write_and_die(path, save):
        write(path, save)
        written.append(path)
        if len(written) in moments:
            raise Killed

    monkeypatch.setattr(_files, "write", write_and_die)
    return written


def learn(env_id, checkpoint=None, *, config=CONFIG, every=0, **changes):
    agent = preqn.PreQN(*training.spaces(env_id), config)
    settings = {"warmup": config.warmup, "batch_size": config.batch_size + config.held_out, "bound": config.bound}
    settings |= {"capacity": config.capacity, "update_every": config.update_every, "keep": "best", "steps": STEPS}
    settings |= {"eval_every": 45, "eval_episodes": 1, "seed": 3, "others": {"still": still}} | changes
    return training.learn(agent, env_id, checkpoint=checkpoint, checkpoint_every=every, **settings)


def still(agent, obs):
    """Act as the agent does, but always at the same place."""
    return agent.act(np.zeros_like(obs))


def unbroken(started):
    """Start again and again until a run comes to its end."""
    while True:
        try:
            return started()
        except Killed:
            continue


def everything(x):
    """Return what a state holds, flat."""
    if isinstance(x, dict):
        return [y for name in sorted(x, key=str) for y in everything(x[name])]
    if isinstance(x, (list, tuple)):
        return [y for each in x for y in everything(each)]
    return x.double().ravel().tolist() if isinstance(x, torch.Tensor) else [x]


KINDS = {
    "relu": ("Pendulum-v1", {"activation": "relu"}),
    "sin": ("Pendulum-v1", {}),
    "robot": ("Swimmer-v5", {}),
    "discrete": ("CartPole-v1", {}),
    "adam": ("Pendulum-v1", {"solver": "none", "optimizer": "adam", "eta": -1, "alpha": 1e-3}),
    "target": ("Pendulum-v1", {"target_rate": 0.1, "policy_every": 2}),
}


class TestOurs:
    """A run that was killed three times ends like one that never was, to the last bit."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_to_the_last_bit(self, kind, tmp_path, monkeypatch):
        """Killed while it still acts at random, in the middle of an episode, and where one just ended."""
        env_id, changes = KINDS[kind]
        config = dataclasses.replace(CONFIG, **changes)
        whole = learn(env_id, config=config)
        written, file = killed(monkeypatch, {17, 123, 150, 200}), tmp_path / "run.checkpoint"
        broken = unbroken(lambda: learn(env_id, file, config=config))
        assert len(written) == STEPS, "no step was made twice"
        assert broken.curve.equals(whole.curve) and broken.ending == whole.ending
        assert everything(broken.agent.state_dict()) == everything(whole.agent.state_dict())

    def test_at_most_so_long_is_lost(self, tmp_path, monkeypatch):
        """By a clock that goes on by 40 seconds at each look: never more than ten minutes from one to the next."""
        now, moments = [0.0], []

        def clock():
            now[0] += 40
            return now[0]

        monkeypatch.setattr(training.time, "monotonic", clock)
        monkeypatch.setattr(_files, "write", lambda path, save: moments.append(now[0]))
        learn("Pendulum-v1", tmp_path / "run.checkpoint", every=training.CHECKPOINT_EVERY)
        assert len(moments) > 10
        assert max(np.diff([0.0, *moments])) <= 600

    def test_a_kill_while_it_is_written(self, tmp_path, monkeypatch):
        """The old one stays whole."""
        file = tmp_path / "run.checkpoint"
        with monkeypatch.context() as patch:
            killed(patch, {100})
            with pytest.raises(Killed):
                learn("Pendulum-v1", file)
        before = file.read_bytes()
        monkeypatch.setattr(_files.os, "replace", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            learn("Pendulum-v1", file)
        assert file.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == [file.name]

    def test_the_file_is_data(self, tmp_path):
        learn("Pendulum-v1", tmp_path / "run.checkpoint")
        assert torch.load(tmp_path / "run.checkpoint", weights_only=True)["step"] == STEPS

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"seed": 4}, "checkpoint must have seed 4, "),
            ({"steps": 239}, "steps must be at least 240, so many "),
            ({"warmup": 61}, "checkpoint must have warmup 61, "),
            ({"config": dataclasses.replace(CONFIG, alpha=0.2)}, "state must have alpha 0.2, it has 0.1"),
        ],
    )
    def test_another_run(self, tmp_path, changes, message):
        learn("Pendulum-v1", tmp_path / "run.checkpoint")
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            learn("Pendulum-v1", tmp_path / "run.checkpoint", **changes)

    def test_an_environment_that_does_not_repeat_itself(self, tmp_path, monkeypatch):
        """Its noise comes from a generator of its own, which no checkpoint knows: better no run than another one."""

        class Noisy(gymnasium.ObservationWrapper):
            rng = np.random.default_rng(0)

            def observation(self, observation):
                return observation + self.rng.standard_normal(3).astype(np.float32)

        killed(monkeypatch, {75})

        def make():
            return Noisy(gymnasium.make("Pendulum-v1"))

        agent = preqn.PreQN(*training.spaces(make), CONFIG)
        settings = {"steps": STEPS, "seed": 0, "warmup": 60, "batch_size": 36, "capacity": 150, "eval_every": 500}
        settings |= {"eval_episodes": 1, "checkpoint": tmp_path / "run", "checkpoint_every": 0}
        with pytest.raises(Killed):
            training.learn(agent, make, **settings)
        with pytest.raises(ValueError, match="env must play an episode again"):
            training.learn(preqn.PreQN(*training.spaces(make), CONFIG), make, **settings)

    def test_an_agent_without_a_state(self, tmp_path):
        class Bare:
            def act(self, obs, *, explore=False):
                return np.zeros(1, np.float32)

            def update(self, batch):
                return {}

        settings = {"steps": 9, "seed": 0, "warmup": 2, "batch_size": 2, "capacity": 9, "eval_every": 9}
        with pytest.raises(TypeError, match="agent must have state_dict"):
            training.learn(Bare(), "Pendulum-v1", eval_episodes=1, checkpoint=tmp_path / "run", **settings)

    @pytest.mark.parametrize("ending", ["finished", "stopped"])
    def test_with_more_steps_it_goes_on(self, ending, tmp_path):
        """From its last step, to the last bit like one that was asked for all of them at once."""
        whole, file = learn("Pendulum-v1"), tmp_path / "run.checkpoint"
        never = {"every": 1e9}  # only at the end
        if ending == "finished":
            first = learn("Pendulum-v1", file, steps=135, **never)
        else:
            first = learn("Pendulum-v1", file, callback=lambda moment: moment.step < 140, **never)
        assert first.ending == ending and torch.load(file, weights_only=True)["step"] == (135, 140)[ending == "stopped"]
        again = learn("Pendulum-v1", file, steps=135 if ending == "finished" else 140, **never)
        assert again.curve["return"].tolist()[:3] == first.curve["return"].tolist()[:3], "nothing was left to do"
        made = []
        second = learn("Pendulum-v1", file, callback=lambda moment: made.append(moment.step), **never)
        assert made == list(range(136 if ending == "finished" else 141, STEPS + 1))
        if ending == "finished":  # 135 is one of the steps at which it is evaluated anyway
            assert second.curve.equals(whole.curve)
        assert everything(second.agent.state_dict()) == everything(whole.agent.state_dict())

    def test_an_exception_leaves_the_last_one(self, tmp_path):
        """It is whole, and the run goes on from it as if nothing had happened."""
        whole, file = learn("Pendulum-v1"), tmp_path / "run.checkpoint"

        def raises(moment):
            if moment.step == 150:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as stop:
            learn("Pendulum-v1", file, callback=raises)
        assert stop.value.run.curve["step"].tolist() == [45, 90, 135, 150]
        assert torch.load(file, weights_only=True)["step"] == 149
        assert learn("Pendulum-v1", file).curve.equals(whole.curve)

    def test_one_of_a_stranger(self, tmp_path):
        """Code in it does not run, and what is no checkpoint is said to be none."""
        file, trace = tmp_path / "run.checkpoint", tmp_path / "trace"

        class Bomb:
            def __reduce__(self):
                return os.mkdir, (str(trace),)

        learn("Pendulum-v1", file, steps=70)
        saved = torch.load(file, weights_only=True)
        for planted in (saved | {"best": Bomb()}, {"net": torch.zeros(3)}):
            torch.save(planted, file)
            with pytest.raises(ValueError, match=r"^checkpoint must be a file that `learn` wrote"):
                learn("Pendulum-v1", file)
        assert not trace.exists()


class TestRunsOfDQN:
    """As a PreQN: killed in between, to the last bit; with what was best so far, too."""

    @pytest.mark.parametrize("target_every", [None, 7])
    def test_to_the_last_bit(self, target_every, tmp_path, monkeypatch):
        small = {"hidden": (16,), "warmup": 60, "batch_size": 16, "capacity": 150, "epsilon_steps": 200}
        settings = {"config": dqn.DQNConfig(**small, target_every=target_every), "steps": STEPS, "seed": 3}
        settings |= {"eval_every": 45, "eval_episodes": 1}
        whole = dqn.train("CartPole-v1", **settings)
        written = killed(monkeypatch, {17, 123, 150, 200})
        monkeypatch.setattr(training, "learn", partial(training.learn, checkpoint_every=0))
        broken = unbroken(lambda: dqn.train("CartPole-v1", **settings, checkpoint=tmp_path / "run.checkpoint"))
        assert len(written) == STEPS, "no step was made twice"
        assert broken.curve.equals(whole.curve) and broken.ending == whole.ending
        assert everything(broken.agent.state_dict()) == everything(whole.agent.state_dict())


class TestBaselines:
    """An agent of stable-baselines3 goes on with what it had learned and remembered."""

    @pytest.mark.parametrize("algorithm", [TD3, SAC])
    def test_goes_on(self, algorithm, tmp_path, monkeypatch):
        seen, restore = [], protocol._Checkpoints.restore
        monkeypatch.setattr(protocol._Checkpoints, "restore", lambda *a: seen.append(restore(*a)) or seen[-1])
        monkeypatch.setattr(training, "CHECKPOINT_EVERY", 0)
        killed(monkeypatch, {125})
        file = tmp_path / "run.checkpoint"
        settings = {"steps": STEPS, "seed": 3, "hidden": (8, 8), "warmup": 60, "eval_every": 45, "eval_episodes": 1}

        def run():
            return protocol.baseline_curve(algorithm, "Pendulum-v1", checkpoint=file, **settings)

        with pytest.raises(Killed):
            run()
        saved = torch.load(file, weights_only=True)
        curve = run()
        (agent,) = seen
        assert curve["step"].tolist() == [45, 90, 135, 180, 225, 240] and curve["resumed"].all()
        assert curve["return"].tolist()[:2] == [row["return"] for row in saved["rows"]]
        assert (agent.num_timesteps, agent._n_updates) == (STEPS, STEPS - 60), "no step and no update twice"
        kept = saved["memory"]["observations"].numpy()
        assert len(kept) == 124
        np.testing.assert_array_equal(agent.replay_buffer.observations[:124], kept)
        assert agent.replay_buffer.size() == STEPS

    def test_all_that_it_learned_is_there(self, tmp_path, monkeypatch):
        """Networks, those behind them, moments and the temperature."""
        monkeypatch.setattr(training, "CHECKPOINT_EVERY", 0)
        file, models = tmp_path / "run.checkpoint", []
        save = SAC.save
        monkeypatch.setattr(SAC, "save", lambda self, path: models.append(self) or save(self, path))
        settings = {"steps": 100, "seed": 3, "hidden": (8, 8), "warmup": 60, "eval_every": 90, "eval_episodes": 1}
        assert "resumed" not in protocol.baseline_curve(SAC, "Pendulum-v1", checkpoint=file, **settings)
        watch = protocol._Evaluations("Pendulum-v1", steps=100, seed=3, every=90, episodes=1)
        found = protocol._Checkpoints(file, watch).restore(models[-1])
        # the file is written before the last step: the run that made it made one more
        other = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8, 8]})
        assert found._n_updates == models[-1]._n_updates - 1
        for name in ("actor.optimizer", "critic.optimizer", "ent_coef_optimizer", "policy"):
            mine, theirs, fresh = (everything(agent.get_parameters()[name]) for agent in (found, models[-1], other))
            assert len(mine) == len(theirs)
            assert mine != fresh
        assert 0 < (found.log_ent_coef - models[-1].log_ent_coef).detach().abs().item() < 1e-3
