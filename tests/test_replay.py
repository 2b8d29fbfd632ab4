"""The buffer against a list, the walk against an environment that counts, the loop against an agent that records."""

import re
from collections import deque

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from divergence_notes import replay

OBS = Box(-10, 10, shape=(2,))
BOTH = pytest.mark.parametrize("actions", [Discrete(3), Box(-1, 1, shape=(2,))], ids=["discrete", "box"])


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


class Counter(gymnasium.Env):
    """Shows how many episodes and steps there were; pays the action; ends after `over` steps, or never."""

    observation_space = Box(-np.inf, np.inf, shape=(2,))

    def __init__(self, over=None, actions=None):
        self.over, self.action_space, self.episode = over, actions or Discrete(1000), -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._see(), {}

    def step(self, action):
        self.t += 1
        return self._see(), float(np.sum(action)), self.t == self.over, False, {}

    def _see(self):
        return np.array([self.episode, self.t], dtype=np.float32)


class Dice(Counter):
    """Pays a random number and shows one."""

    def step(self, action):
        self.t += 1
        return self.np_random.standard_normal(2).astype(np.float32), float(self.np_random.random()), False, False, {}


gymnasium.register("DivergenceNotesCounter-v0", entry_point=Counter, max_episode_steps=5)
gymnasium.register("DivergenceNotesDice-v0", entry_point=Dice, max_episode_steps=5)


def fill(buffer, n, start=0):
    """Add transitions numbered `start`, `start` + 1, ..., each with its number all over it."""
    for k in range(start, start + n):
        action = k % 3 if buffer._n_actions else np.array([k / 1000, -k / 1000])
        buffer.add(np.array([k, k + 0.25]), action, k + 0.5, np.array([k + 1, k + 1.25]), k % 2 == 0)


class TestBuffer:
    """The latest `capacity` transitions, uniformly, with replacement, as copies."""

    @BOTH
    def test_a_row_is_a_transition(self, actions, rng):
        buffer = replay.ReplayBuffer(OBS, actions, capacity=20)
        fill(buffer, 10)
        batch = buffer.sample(64, rng=rng)
        assert batch.obs.shape == batch.next_obs.shape == (64, 2)
        assert batch.reward.shape == batch.terminated.shape == (64,)
        assert {batch.obs.dtype, batch.next_obs.dtype, batch.reward.dtype} == {torch.float32}
        assert batch.terminated.dtype == torch.bool
        k = batch.obs[:, 0]
        torch.testing.assert_close(batch.obs[:, 1], k + 0.25)
        torch.testing.assert_close(batch.next_obs, torch.stack([k + 1, k + 1.25], dim=1))
        torch.testing.assert_close(batch.reward, k + 0.5)
        assert torch.equal(batch.terminated, k % 2 == 0)
        if isinstance(actions, Discrete):
            assert batch.action.dtype == torch.int64
            assert torch.equal(batch.action, (k % 3).long())
        else:
            assert batch.action.dtype == torch.float32
            torch.testing.assert_close(batch.action, torch.stack([k / 1000, -k / 1000], dim=1))

    @BOTH
    @pytest.mark.parametrize("capacity", [1, 3, 7])
    def test_the_newest_takes_the_place_of_the_oldest(self, actions, capacity, rng):
        buffer, kept = replay.ReplayBuffer(OBS, actions, capacity=capacity), deque(maxlen=capacity)
        assert len(buffer) == 0
        for k in range(3 * capacity + 2):
            fill(buffer, 1, start=k)
            kept.append(k)
            assert len(buffer) == len(kept)
            assert set(buffer.sample(50 * capacity, rng=rng).obs[:, 0].tolist()) == set(kept)

    def test_uniform(self, rng):
        """Chi-squared over a buffer that is not yet full; rows never written are never drawn, the newest is."""
        buffer = replay.ReplayBuffer(OBS, Discrete(3), capacity=1000)
        fill(buffer, 10, start=5)

        def statistic(drawn):
            counts = np.bincount(drawn.long().numpy(), minlength=15)[5:]
            return ((counts - 2000) ** 2 / 2000).sum() if counts.sum() == 20_000 else np.inf

        drawn = buffer.sample(20_000, rng=rng).obs[:, 0]
        limit = 27.9  # 9 degrees of freedom: one in a thousand
        assert statistic(drawn) < limit
        for wrong in (rng.integers(1000, size=20_000), rng.integers(9, size=20_000)):  # of all rows; without the newest
            rows = torch.from_numpy(np.concatenate([np.arange(5, 15), np.zeros(990)])[wrong])
            assert statistic(rows) > limit

    def test_with_replacement(self, rng):
        buffer = replay.ReplayBuffer(OBS, Discrete(3), capacity=4)
        fill(buffer, 2)
        assert len(buffer.sample(100, rng=rng).reward) == 100

    def test_the_generator_decides(self):
        buffer = replay.ReplayBuffer(OBS, Discrete(3), capacity=50)
        fill(buffer, 50)
        one, same, other = (buffer.sample(20, rng=np.random.default_rng(seed)).obs for seed in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)

    def test_copies(self, rng):
        """Neither the arrays that went in nor the batch that came out share memory with the buffer."""
        buffer, seen = replay.ReplayBuffer(OBS, Box(-1, 1, shape=(2,)), capacity=1), np.ones(2, dtype=np.float32)
        buffer.add(seen, seen, 1.0, seen, False)
        seen[:] = 7
        batch = buffer.sample(2, rng=rng)
        fill(buffer, 1, start=9)
        for tensor in (batch.obs, batch.action, batch.reward, batch.next_obs):
            assert torch.equal(tensor, torch.ones_like(tensor))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"obs": np.zeros(3)}, "obs must have shape (2,), got (3,)"),
            ({"obs": np.array([0, np.nan])}, "obs must be finite: obs[1] is nan"),
            ({"next_obs": np.zeros((1, 2))}, "next_obs must have shape (2,), got (1, 2)"),
            ({"reward": np.inf}, "reward must be finite, got inf"),
            ({"action": 3}, "action must be in [0, 2], got 3"),
            ({"action": -1}, "action must be in [0, 2], got -1"),
        ],
    )
    def test_refuses_a_transition(self, changes, message):
        buffer = replay.ReplayBuffer(OBS, Discrete(3), capacity=4)
        there = {"obs": np.zeros(2), "action": 0, "reward": 0.0, "next_obs": np.zeros(2), "terminated": False}
        with refuses(ValueError, message):
            buffer.add(**there | changes)
        assert len(buffer) == 0

    def test_refuses_an_action_of_the_wrong_shape(self):
        buffer = replay.ReplayBuffer(OBS, Box(-1, 1, shape=(2,)), capacity=4)
        with refuses(ValueError, "action must have shape (2,), got (1,)"):
            buffer.add(np.zeros(2), np.zeros(1), 0.0, np.zeros(2), False)

    @pytest.mark.parametrize(
        ("obs", "actions", "capacity", "error", "message"),
        [
            (Discrete(4), Discrete(3), 5, TypeError, "observation_space must be a Box, got Discrete(4)"),
            (
                Box(0, 1, shape=(3, 3)),
                Discrete(3),
                5,
                ValueError,
                "observation_space must have shape (any,), got (3, 3)",
            ),
            (OBS, Discrete(3, start=1), 5, ValueError, "action_space must start at 0, got Discrete(3, start=1)"),
            (OBS, Dict({"a": Discrete(3)}), 5, TypeError, "action_space must be a Box, got Dict('a': Discrete(3))"),
            (OBS, Discrete(3), 0, ValueError, "capacity must be in [1, inf), got 0"),
        ],
    )
    def test_refuses_a_space(self, obs, actions, capacity, error, message):
        with refuses(error, message):
            replay.ReplayBuffer(obs, actions, capacity=capacity)

    def test_refuses_to_sample(self, rng):
        buffer = replay.ReplayBuffer(OBS, Discrete(3), capacity=4)
        with refuses(ValueError, "the buffer is empty: add a transition before you sample"):
            buffer.sample(1, rng=rng)
        fill(buffer, 1)
        with refuses(ValueError, "batch_size must be in [1, inf), got 0"):
            buffer.sample(0, rng=rng)


class TestTransitions:
    """Episodes one after another; a time limit starts a new one and is not recorded as an end."""

    @pytest.mark.parametrize(("over", "length"), [(3, 3), (None, 5), (5, 5)])
    def test_walk(self, over, length):
        env = gymnasium.make("DivergenceNotesCounter-v0", over=over)
        steps = zip(range(12), replay.transitions(env, lambda obs: int(10 * obs[0] + obs[1]), seed=0), strict=False)
        for k, (obs, action, reward, next_obs, terminated) in steps:
            episode, t = divmod(k, length)
            assert obs.tolist() == [episode, t]
            assert next_obs.tolist() == [episode, t + 1]  # the last one of the old episode, not the first of the new
            assert action == reward == 10 * episode + t
            assert terminated == (t + 1 == over)  # a process that ends on the last step allowed has ended

    def test_seed(self):
        """The environment and its action space follow the seed, episode after episode."""

        def walk(seed):
            env = gymnasium.make("DivergenceNotesDice-v0")
            walk = replay.transitions(env, lambda obs: env.action_space.sample(), seed=seed)
            return [(step.action, step.reward) for _, step in zip(range(12), walk, strict=False)]

        one, same, other = walk(1), walk(1), walk(2)
        assert one == same
        assert all(a != b for a, b in zip(one, other, strict=True))
        assert len(set(one)) == 12  # a new episode does not replay the old one


class TestEvaluate:
    """The undiscounted return of whole episodes, fixed by the seed."""

    def test_returns(self):
        found = replay.evaluate("DivergenceNotesCounter-v0", lambda obs: int(10 * obs[0] + obs[1]), episodes=3, seed=0)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, [10.0, 60.0, 110.0])  # 5 steps each: the time limit ends an episode

    def test_seed(self):
        one, same, other = (
            replay.evaluate("DivergenceNotesDice-v0", lambda obs: 0, episodes=4, seed=s) for s in (1, 1, 2)
        )
        np.testing.assert_array_equal(one, same)
        assert not np.isin(one, other).any()
        assert len(set(one.tolist())) == 4

    def test_refuses(self):
        with refuses(ValueError, "episodes must be in [1, inf), got 0"):
            replay.evaluate("DivergenceNotesCounter-v0", lambda obs: 0, episodes=0, seed=0)


class Recorder:
    """An agent that acts 7 and keeps what it is given; its metrics come from a function of the update's number."""

    def __init__(self, metrics=lambda k: {"loss": float(k), "max_q": float(-k)}):
        self.metrics, self.batches, self.explored, self.greedy = metrics, [], [], 0

    def act(self, obs, *, explore=False):
        if explore:
            self.explored.append(tuple(obs.tolist()))
        self.greedy += not explore
        return 7

    def update(self, batch):
        self.batches.append(batch)
        return self.metrics(len(self.batches))


SETTINGS = {
    "steps": 40,
    "seed": 0,
    "warmup": 10,
    "batch_size": 16,
    "capacity": 100,
    "update_every": 3,
    "eval_every": 15,
    "eval_episodes": 2,
}


def learn(agent, env_id="DivergenceNotesCounter-v0", **changes):
    return replay.learn(agent, env_id, **SETTINGS | changes)


class TestLearn:
    """Random at first, then explore and update; evaluate without exploring; a metric that explodes ends the run."""

    def test_schedule(self):
        agent = Recorder()
        run = learn(agent)
        assert run.agent is agent
        assert run.status == "finished"
        assert len(agent.explored) == 40 - 10
        assert agent.explored[0] == (2.0, 0.0)  # the eleventh step, in episodes of five
        assert len(agent.batches) == len([t for t in range(10, 41) if t % 3 == 0])
        assert agent.greedy == 3 * 2 * 5
        assert run.curve["step"].tolist() == [15, 30, 40]
        assert run.curve["return"].tolist() == [35.0] * 3
        # updates 1, 2 | 3 to 7 | 8 to 10: the mean of what is not called max_
        assert run.curve["loss"].tolist() == [1.5, 5.0, 9.0]
        assert run.curve["max_q"].tolist() == [-1.0, -3.0, -8.0]

    def test_the_batch_holds_what_happened(self):
        agent = Recorder()
        learn(agent, update_every=1, steps=100, batch_size=200)
        last = agent.batches[-1]
        assert len(last.reward) == 200
        torch.testing.assert_close(last.next_obs - last.obs, torch.tensor([[0.0, 1.0]]).expand(200, 2))
        torch.testing.assert_close(last.reward, last.action.float())
        late = last.obs[:, 0] >= 2  # after the random steps, in episodes of five
        assert (last.action[late] == 7).all()
        assert not (last.action[~late] == 7).all()
        assert not last.terminated.any()  # every episode was cut by the time limit, none ended

    def test_before_the_first_update_metrics_are_missing(self):
        run = learn(Recorder(), warmup=20)
        assert run.curve["loss"].isna().tolist() == [True, False, False]
        assert run.curve["return"].notna().all()

    @pytest.mark.parametrize(
        ("bad", "diverges"),
        [
            ({"loss": 1.0, "max_q": 1e7}, True),
            ({"loss": 1.0, "max_q": -1e7}, True),
            ({"loss": np.nan, "max_q": 1.0}, True),
            ({"loss": np.inf, "max_q": 1.0}, True),
            ({"loss": 1.0, "max_q": np.nan}, True),
            ({"loss": 1e7, "max_q": 1e6}, False),  # a squared error is not a value
        ],
    )
    def test_divergence_is_a_status(self, bad, diverges):
        agent = Recorder(lambda k: bad if k == 4 else {"loss": 1.0, "max_q": 1.0})
        run = learn(agent)
        assert run.status == ("diverged" if diverges else "finished")
        assert len(agent.batches) == (4 if diverges else 10)
        if diverges:
            assert run.curve["step"].tolist() == [15, 21]
            assert run.curve["return"].isna().tolist() == [False, True]

    def test_bound(self):
        assert learn(Recorder(lambda k: {"max_q": float(k)}), bound=5).status == "diverged"
        assert learn(Recorder(lambda k: {"max_q": float(k)}), bound=10).status == "finished"

    def test_other_policies_beside(self):
        """From the same initial states as the agent, without a trace in anything else."""
        agent = Recorder()
        run = learn(agent, others={"nines": lambda agent, obs: 9})
        assert list(run.curve.columns) == ["step", "return", "nines", "loss", "max_q"]
        assert run.curve["nines"].tolist() == [45.0] * 3
        dice = "DivergenceNotesDice-v0"
        run, alone = (
            learn(Recorder(), dice, others={"sevens": lambda agent, obs: agent.act(obs)}),
            learn(Recorder(), dice),
        )
        assert run.curve["sevens"].tolist() == run.curve["return"].tolist()
        pd.testing.assert_frame_equal(run.curve[list(alone.curve.columns)], alone.curve, check_exact=True)

    def test_an_update_that_diverged_may_know_fewer_metrics(self):
        run = learn(Recorder(lambda k: {"max_q": np.inf} if k == 4 else {"loss": float(k), "max_q": 1.0}))
        assert run.status == "diverged"
        assert run.curve["loss"].tolist() == [1.5, 3.0]
        assert run.curve["max_q"].tolist() == [1.0, np.inf]

    def test_seeds(self):
        """The same for everybody with the same generator, and two different ones."""
        one, same, other = (replay.seeds(np.random.default_rng(s)) for s in (1, 1, 2))
        assert one == same != other
        assert one[0] != one[1]

    def test_keep(self):
        """The best is a copy from the evaluation with the highest mean, the latest of equals; the last is the agent."""

        class Moody(Recorder):
            def act(self, obs, *, explore=False):
                return [3, 9, 9, 4][len(self.batches) // 2] if not explore else 0

        settings = {"update_every": 1, "warmup": 10, "eval_every": 2, "steps": 16}  # 1, 3, 5, 7 updates at 10, 12, ...
        last, best = Moody(), Moody()
        assert learn(last, **settings).agent is last
        run = learn(best, **settings, keep="best")
        assert run.curve["return"].tolist() == [15.0] * 5 + [45.0] * 2 + [20.0]
        assert len(run.agent.batches) == 5
        assert len(best.batches) == 7

    @pytest.mark.parametrize("env_id", ["DivergenceNotesDice-v0", "CartPole-v1"])
    def test_seed(self, env_id):
        """Same seed, same batches and returns; another seed, others; no global generator moves."""

        class Zero(Recorder):
            def act(self, obs, *, explore=False):
                return 0

        np_state, torch_state = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
        agents = [Zero() for _ in range(3)]
        curves = [learn(agent, env_id, seed=seed).curve for agent, seed in zip(agents, (4, 4, 5), strict=True)]
        assert curves[0].equals(curves[1])
        for one, same, other in zip(*(agent.batches for agent in agents), strict=True):
            for name in ("obs", "action", "reward", "next_obs", "terminated"):
                assert torch.equal(getattr(one, name), getattr(same, name))
            assert not torch.equal(one.obs, other.obs)
        assert np.array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002
        assert torch.equal(torch.random.get_rng_state(), torch_state)

    def test_the_same_episodes_at_each_evaluation(self):
        run = learn(Recorder(), "DivergenceNotesDice-v0")
        assert run.curve["return"].nunique() == 1

    def test_box_actions(self):
        class Half(Recorder):
            def act(self, obs, *, explore=False):
                return np.array([0.5, -0.5], dtype=np.float32)

        agent, space = Half(), Box(-1, 1, shape=(2,))
        env_id = "DivergenceNotesBoxCounter-v0"
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=Counter, kwargs={"actions": space}, max_episode_steps=5)
        assert learn(agent, env_id).status == "finished"
        assert agent.batches[-1].action.shape == (16, 2)

    def test_progress(self, capsys):
        learn(Recorder(), progress=True)
        assert "40/40" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"steps": 0}, "steps must be in [1, inf), got 0"),
            ({"capacity": 0}, "capacity must be in [1, inf), got 0"),
            ({"warmup": 101}, "warmup must be in [1, 100], got 101"),
            ({"batch_size": 0}, "batch_size must be in [1, inf), got 0"),
            ({"update_every": 0}, "update_every must be in [1, inf), got 0"),
            ({"eval_every": 0}, "eval_every must be in [1, inf), got 0"),
            ({"eval_episodes": 0}, "eval_episodes must be in [1, inf), got 0"),
            ({"keep": "first"}, "keep must be one of 'last', 'best', got 'first'"),
            ({"bound": 0}, "bound must be in (0, inf), got 0"),
        ],
    )
    def test_refuses(self, changes, message):
        with refuses(ValueError, message):
            learn(Recorder(), **changes)


class Spoilt(gymnasium.Env):
    """Gives something odd at one step, counted over all episodes; episodes of 5 steps."""

    observation_space, action_space = Box(-1, 1, shape=(2,)), Discrete(10)

    def __init__(self, at, reward=1.0, obs=None, first=None):
        self.at, self.reward, self.obs, self.first, self.t = at, reward, obs, first, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return (np.zeros(2, dtype=np.float32) if self.first is None else self.first), {}

    def step(self, action):
        self.t += 1
        odd = self.t == self.at
        obs = self.obs if odd and self.obs is not None else np.zeros(2, dtype=np.float32)
        return obs, self.reward if odd else 1.0, self.t % 5 == 0, False, {}


ODD = {
    "nan": ({"reward": np.nan}, "the reward must be finite, got nan"),
    "infinite": ({"reward": -np.inf}, "the reward must be finite, got -inf"),
    "none": ({"reward": None}, "the reward must be a number, got None"),
    "text": ({"reward": "much"}, "the reward must be a number, got 'much'"),
    "an array": ({"reward": np.array([1.0])}, "the reward must be a number, got array([1.])"),
    "a list": ({"reward": [1.0, 2.0]}, "the reward must be a number, got [1.0, 2.0]"),
    "an observation of nan": (
        {"obs": np.array([0, np.nan])},
        "the observation must be finite: the observation[1] is nan",
    ),
    "a longer observation": ({"obs": np.zeros(3)}, "the observation must have shape (2,), got (3,)"),
    "too large": ({"reward": -1e308}, "the reward must fit into float32, got -1e+308"),
    "a whole number too large": ({"reward": 10**400}, "the reward must be finite, got inf"),
    "an observation too large": (
        {"obs": np.array([0, -1e300])},
        "the observation must fit into float32, it has 1e+300",
    ),
    "no observation": ({"obs": "here"}, "the observation must be an array of real numbers, got str"),
}


def spoilt(name, **settings):
    env_id = f"DivergenceNotesSpoilt-{name.replace(' ', '-')}-v0"
    if env_id not in gymnasium.registry:
        gymnasium.register(env_id, entry_point=Spoilt, kwargs=settings, disable_env_checker=True, order_enforce=False)
    return env_id


class TestFaultyEnvironment:
    """What is no reward and no observation ends a run with a status and a reason, not with an exception."""

    @pytest.mark.parametrize("kind", ODD)
    @pytest.mark.parametrize("at", [1, 7, 23])
    def test_while_it_walks(self, kind, at):
        settings, words = ODD[kind]
        run = learn(Recorder(), spoilt(f"{kind} {at}", at=at, **settings), eval_every=100)
        assert (run.status, run.reason) == ("faulty", f"step {at}: {words}")
        assert run.status in replay.STATUSES
        assert np.isnan(run.curve["return"].iloc[-1]) and run.curve["step"].iloc[-1] == at

    def test_at_the_very_first_look(self):
        run = learn(Recorder(), spoilt("first", at=0, first=np.zeros(5)))
        assert (run.status, run.reason) == ("faulty", "step 1: the observation must have shape (2,), got (5,)")

    def test_while_it_is_evaluated(self):
        """The run's own walk has seen nothing odd by then: the evaluation is longer."""
        run = learn(Recorder(), spoilt("evaluated", at=12, reward=np.nan), eval_every=10, eval_episodes=3)
        assert (run.status, run.reason) == ("faulty", "step 10: the reward must be finite, got nan")

    def test_what_was_learned_is_kept(self):
        agent = Recorder()
        run = learn(agent, spoilt("late", at=30, reward=None), eval_every=10, eval_episodes=1)
        assert run.agent is agent and run.status == "faulty"
        assert run.curve["step"].tolist() == [10, 20, 30]
        assert run.curve["return"].notna().tolist() == [True, True, False]

    @pytest.mark.parametrize("kind", ODD)
    def test_alone_it_is_an_error(self, kind):
        settings, words = ODD[kind]
        with refuses(replay.Fault, words):
            replay.evaluate(spoilt(f"alone {kind}", at=3, **settings), lambda obs: 0, episodes=1, seed=0)
        assert issubclass(replay.Fault, ValueError)

    @pytest.mark.parametrize("reward", [1, True, np.float64(2), np.float32(0.5), np.int64(3), np.array(0.25)])
    def test_numbers_of_every_kind_are_heard(self, reward):
        run = learn(Recorder(), spoilt(f"fine {type(reward).__name__}", at=7, reward=reward))
        assert (run.status, run.reason) == ("finished", "")

    def test_the_agents_of_the_project(self):
        """Both of them, and a fault of the agent itself still is an error."""
        from divergence_notes import dqn, preqn

        env_id = spoilt("agents", at=60, reward=np.nan)
        small = {"warmup": 20, "batch_size": 8}
        runs = [
            dqn.train(env_id, config=dqn.DQNConfig(**small), steps=100, seed=0, eval_every=50, eval_episodes=1),
            preqn.train(env_id, config=preqn.PreQNConfig(**small), steps=100, seed=0, eval_every=50, eval_episodes=1),
        ]
        assert [run.status for run in runs] == ["faulty", "faulty"]

        class Broken(Recorder):
            def act(self, obs, *, explore=False):
                raise ValueError("my own")

        with pytest.raises(ValueError, match="my own"):
            learn(Broken(), spoilt("sound", at=0))
