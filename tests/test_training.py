"""The walk against an environment that counts, the loop against an agent that records."""

import doctest
import importlib
import logging
import re
import threading
from typing import get_args

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from divergence_notes import training


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


class TestTransitions:
    """Episodes one after another; a time limit starts a new one and is not recorded as an end."""

    @pytest.mark.parametrize(("over", "length"), [(3, 3), (None, 5), (5, 5)])
    def test_walk(self, over, length):
        env = gymnasium.make("DivergenceNotesCounter-v0", over=over)
        steps = zip(range(12), training.transitions(env, lambda obs: int(10 * obs[0] + obs[1]), seed=0), strict=False)
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
            walk = training.transitions(env, lambda obs: env.action_space.sample(), seed=seed)
            return [(step.action, step.reward) for _, step in zip(range(12), walk, strict=False)]

        one, same, other = walk(1), walk(1), walk(2)
        assert one == same
        assert all(a != b for a, b in zip(one, other, strict=True))
        assert len(set(one)) == 12  # a new episode does not replay the old one


class TestEvaluate:
    """The undiscounted return of whole episodes, fixed by the seed."""

    def test_returns(self):
        found = training.evaluate(
            "DivergenceNotesCounter-v0", lambda obs: int(10 * obs[0] + obs[1]), episodes=3, seed=0
        )
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, [10.0, 60.0, 110.0])  # 5 steps each: the time limit ends an episode

    def test_seed(self):
        one, same, other = (
            training.evaluate("DivergenceNotesDice-v0", lambda obs: 0, episodes=4, seed=s) for s in (1, 1, 2)
        )
        np.testing.assert_array_equal(one, same)
        assert not np.isin(one, other).any()
        assert len(set(one.tolist())) == 4

    def test_refuses(self):
        with refuses(ValueError, "episodes must be in [1, inf), got 0"):
            training.evaluate("DivergenceNotesCounter-v0", lambda obs: 0, episodes=0, seed=0)


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
    return training.learn(agent, env_id, **SETTINGS | changes)


class TestLearn:
    """Random at first, then explore and update; evaluate without exploring; a metric that explodes ends the run."""

    def test_schedule(self):
        agent = Recorder()
        run = learn(agent)
        assert run.agent is agent
        assert run.ending == "finished"
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
    def test_divergence_is_an_ending(self, bad, diverges):
        agent = Recorder(lambda k: bad if k == 4 else {"loss": 1.0, "max_q": 1.0})
        run = learn(agent)
        assert run.ending == ("diverged" if diverges else "finished")
        assert len(agent.batches) == (4 if diverges else 10)
        if diverges:
            assert run.curve["step"].tolist() == [15, 21]
            assert run.curve["return"].isna().tolist() == [False, True]

    def test_bound(self):
        assert learn(Recorder(lambda k: {"max_q": float(k)}), bound=5).ending == "diverged"
        assert learn(Recorder(lambda k: {"max_q": float(k)}), bound=10).ending == "finished"

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
        assert run.ending == "diverged"
        assert run.curve["loss"].tolist() == [1.5, 3.0]
        assert run.curve["max_q"].tolist() == [1.0, np.inf]

    def test_seeds(self):
        """The same for everybody with the same generator, and two different ones."""
        one, same, other = (training.seeds(np.random.default_rng(s)) for s in (1, 1, 2))
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
        assert learn(agent, env_id).ending == "finished"
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
    """What is no reward and no observation ends a run with an ending and a reason, not with an exception."""

    @pytest.mark.parametrize("kind", ODD)
    @pytest.mark.parametrize("at", [1, 7, 23])
    def test_while_it_walks(self, kind, at):
        settings, words = ODD[kind]
        run = learn(Recorder(), spoilt(f"{kind} {at}", at=at, **settings), eval_every=100)
        assert (run.ending, run.reason) == ("faulty", f"step {at}: {words}")
        assert run.ending in get_args(training.Ending)
        assert np.isnan(run.curve["return"].iloc[-1]) and run.curve["step"].iloc[-1] == at

    def test_at_the_very_first_look(self):
        run = learn(Recorder(), spoilt("first", at=0, first=np.zeros(5)))
        assert (run.ending, run.reason) == ("faulty", "step 1: the observation must have shape (2,), got (5,)")

    def test_while_it_is_evaluated(self):
        """The run's own walk has seen nothing odd by then: the evaluation is longer."""
        run = learn(Recorder(), spoilt("evaluated", at=12, reward=np.nan), eval_every=10, eval_episodes=3)
        assert (run.ending, run.reason) == ("faulty", "step 10: the reward must be finite, got nan")

    def test_what_was_learned_is_kept(self):
        agent = Recorder()
        run = learn(agent, spoilt("late", at=30, reward=None), eval_every=10, eval_episodes=1)
        assert run.agent is agent and run.ending == "faulty"
        assert run.curve["step"].tolist() == [10, 20, 30]
        assert run.curve["return"].notna().tolist() == [True, True, False]

    @pytest.mark.parametrize("kind", ODD)
    def test_alone_it_is_an_error(self, kind):
        settings, words = ODD[kind]
        with refuses(training.Fault, words):
            training.evaluate(spoilt(f"alone {kind}", at=3, **settings), lambda obs: 0, episodes=1, seed=0)
        assert issubclass(training.Fault, ValueError)

    @pytest.mark.parametrize("reward", [1, True, np.float64(2), np.float32(0.5), np.int64(3), np.array(0.25)])
    def test_numbers_of_every_kind_are_heard(self, reward):
        run = learn(Recorder(), spoilt(f"fine {type(reward).__name__}", at=7, reward=reward))
        assert (run.ending, run.reason) == ("finished", "")

    def test_the_agents_of_the_project(self):
        """Both of them, and a fault of the agent itself still is an error."""
        from divergence_notes import dqn, preqn

        env_id = spoilt("agents", at=60, reward=np.nan)
        small = {"warmup": 20, "batch_size": 8}
        runs = [
            dqn.train(env_id, config=dqn.DQNConfig(**small), steps=100, seed=0, eval_every=50, eval_episodes=1),
            preqn.train(env_id, config=preqn.PreQNConfig(**small), steps=100, seed=0, eval_every=50, eval_episodes=1),
        ]
        assert [run.ending for run in runs] == ["faulty", "faulty"]

        class Broken(Recorder):
            def act(self, obs, *, explore=False):
                raise ValueError("my own")

        with pytest.raises(ValueError, match="my own"):
            learn(Broken(), spoilt("sound", at=0))


class Closing(Counter):
    """Says whether it was closed."""

    open = True

    def close(self):
        self.open = False


class TestEnvironments:
    """A name, an object, or a function that makes one: the same run."""

    @pytest.mark.parametrize("env_id", ["DivergenceNotesDice-v0", "CartPole-v1"])
    def test_three_ways_to_give_one(self, env_id):
        """The same batches, and the same returns, to the last bit."""

        class Zero(Recorder):
            def act(self, obs, *, explore=False):
                return 0

        given = [env_id, gymnasium.make(env_id), lambda: gymnasium.make(env_id)]
        agents = [Zero() for _ in given]
        curves = [learn(agent, env).curve for agent, env in zip(agents, given, strict=True)]
        for agent, curve in zip(agents[1:], curves[1:], strict=True):
            pd.testing.assert_frame_equal(curve, curves[0], check_exact=True)
            for one, other in zip(agents[0].batches, agent.batches, strict=True):
                assert torch.equal(one.next_obs, other.next_obs)
        returns = [training.evaluate(env, lambda obs: 0, episodes=3, seed=1).tolist() for env in given]
        assert returns[0] == returns[1] == returns[2]
        assert all(training.spaces(env) == training.spaces(env_id) for env in given)

    def test_an_object_is_learned_in_and_evaluated_in_copies(self):
        """Its episodes go on where an evaluation stands between, and it is left open."""
        env = gymnasium.wrappers.TimeLimit(Closing(), 5)
        agent = Recorder()
        run = learn(agent, env, eval_every=7)  # in the middle of an episode of five
        assert agent.explored == [(float(episode), float(t)) for episode in range(2, 8) for t in range(5)]
        assert run.curve["return"].tolist() == [35.0] * 6
        assert (env.unwrapped.episode, env.unwrapped.t, env.unwrapped.open) == (7, 5, True)
        before = agent.explored[:]
        training.evaluate(env, agent.act, episodes=2, seed=0)
        assert env.unwrapped.episode == 7 and agent.explored == before

    def test_what_it_made_itself_is_closed(self):
        made = []

        class Listed(Closing):
            def __init__(self):
                super().__init__(over=5)
                made.append(self)

        learn(Recorder(), Listed)  # a class is a function that makes one
        assert len(made) == 1 + 1 + 3 and not any(env.open for env in made)  # to learn in; a look; the evaluations
        training.spaces(Listed)
        assert len(made) == 6 and not made[-1].open

    def test_a_wrapper_sees_what_the_agent_does(self):
        env = gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make("DivergenceNotesCounter-v0"))
        learn(Recorder(), env)
        assert env.episode_count == 8

    def test_the_agents_of_the_project(self):
        """Both learn in an object; an environment that is not registered has no other way in."""
        from divergence_notes import dqn, preqn

        small = {"warmup": 20, "batch_size": 8}
        for module, config in ((dqn, dqn.DQNConfig(**small)), (preqn, preqn.PreQNConfig(**small))):
            env = Counter(over=5, actions=Discrete(2))
            run = module.train(env, config=config, steps=40, seed=0, eval_every=20, eval_episodes=1)
            assert run.ending == "finished" and isinstance(run.agent, training.Agent)
            assert env.episode == 7

    def test_refuses_what_is_none(self):
        with refuses(TypeError, "env must be a name, an environment, or a function that makes one, got 3"):
            training.maker.__wrapped__(3)
        with refuses(TypeError, "env must make a gymnasium.Env, it makes 3"):
            learn(Recorder(), lambda: 3)

    def test_refuses_the_same_one_again(self):
        env = gymnasium.make("DivergenceNotesCounter-v0")
        words = f"env must make a new environment at each call, it gives the same one again: {env}"
        agent = Recorder()
        with refuses(ValueError, words):
            learn(agent, lambda: env)
        assert not agent.explored and not agent.greedy

    def test_refuses_one_that_cannot_be_copied(self):
        class Locked(Counter):
            def __deepcopy__(self, memo):
                raise OSError("it holds a window")

        words = "env must be one that can be copied, or a function that makes one: it holds a window"
        with refuses(TypeError, words):
            learn(Recorder(), Locked(over=5))
        assert learn(Recorder(), lambda: Locked(over=5)).ending == "finished"

    def test_refuses_what_is_no_agent(self):
        class Idle:
            def act(self, obs, *, explore=False):
                return 0

        idle = Idle()
        assert not isinstance(idle, training.Agent) and isinstance(Recorder(), training.Agent)
        with refuses(TypeError, f"agent must have act(obs, *, explore=False) and update(batch), got {idle!r}"):
            training.learn.__wrapped__(idle, "DivergenceNotesCounter-v0", **SETTINGS)


class Broken(Exception):
    """Something of the user's raises it."""


class Breaking(Counter):
    """Raises at one step, counted over all episodes."""

    def __init__(self, at, error=Broken):
        super().__init__(over=5)
        self.at, self.error, self.steps = at, error, 0

    def step(self, action):
        self.steps += 1
        if self.steps == self.at:
            raise self.error("out of order")
        return super().step(action)


class TestCallback:
    """Told of each step, after its update and its evaluation; it may end the run, and changes nothing else."""

    def test_moments(self):
        told, agent = [], Recorder()
        run = learn(agent, callback=told.append)
        assert [moment.step for moment in told] == list(range(1, 41))
        assert all(moment.agent is agent for moment in told)
        assert [moment.over for moment in told] == [k % 5 == 0 for k in range(1, 41)]  # cut by the limit
        assert [moment.step for moment in told if moment.metrics] == list(range(12, 41, 3))
        assert [moment.row["step"] for moment in told if moment.row] == run.curve["step"].tolist()
        assert told[11].metrics == {"loss": 1.0, "max_q": -1.0}
        assert all(tuple(moment.transition.next_obs)[1] == (moment.step - 1) % 5 + 1 for moment in told)
        assert len(told[-1].memory) == 40

    def test_the_run_is_the_same(self):
        """Whatever is done to what it is told, by several of them."""

        def spoil(moment):
            moment.metrics.clear()
            if moment.row:
                moment.row["return"] = 0.0

        agents = Recorder(), Recorder()
        runs = [learn(agents[0]), learn(agents[1], callback=[spoil, spoil])]
        pd.testing.assert_frame_equal(runs[0].curve, runs[1].curve, check_exact=True)
        for one, other in zip(agents[0].batches, agents[1].batches, strict=True):
            assert torch.equal(one.next_obs, other.next_obs)

    @pytest.mark.parametrize(("at", "steps", "returns"), [(20, [15, 20], [35, None]), (15, [15], [35])])
    def test_stops(self, at, steps, returns):
        """A row without a return, unless the step has one."""

        def enough(moment):
            return moment.step < at

        run = learn(Recorder(), callback=enough)
        assert run.ending == "stopped" and run.reason.startswith(f"step {at}: <function TestCallback.test_stops")
        assert run.curve["step"].tolist() == steps
        assert run.curve["return"].isna().tolist() == [one is None for one in returns]

    @pytest.mark.parametrize("answer", [None, True, 0, "", np.nan])
    def test_only_false_stops(self, answer):
        assert learn(Recorder(), callback=lambda moment: answer).ending == "finished"

    def test_divergence_is_told(self):
        """And is the ending, even where a callback would stop at the same step."""
        told = []

        def stop(moment):
            told.append(moment)
            return moment.metrics.get("max_q") != np.inf

        run = learn(Recorder(lambda k: {"max_q": np.inf if k == 3 else 1.0}), callback=stop)
        assert run.ending == "diverged" and told[-1].metrics == {"max_q": np.inf}

    def test_refuses_what_is_none(self):
        with refuses(TypeError, "callback must be a function, or several, got 3"):
            training.learn.__wrapped__(Recorder(), "DivergenceNotesCounter-v0", **SETTINGS, callback=[print, 3])


class TestWhateverHappens:
    """An exception passes as it is and brings what was measured until then; the table on the disk is whole."""

    @pytest.mark.parametrize("error", [Broken, KeyboardInterrupt, SystemExit, MemoryError])
    @pytest.mark.parametrize("at", [1, 23])
    def test_an_environment_that_raises(self, error, at, tmp_path):
        agent, file = Recorder(), tmp_path / "curve.csv"
        with pytest.raises(error, match="out of order") as broken:
            learn(agent, Breaking(at, error), log=file)
        run = broken.value.run
        assert run.agent is agent and run.ending == "stopped"
        assert run.reason == f"step {at}: {error.__name__}: out of order"
        assert run.curve["step"].tolist() == ([15, 23] if at == 23 else [1])
        assert run.curve["return"].isna().tolist() == ([False, True] if at == 23 else [True])
        pd.testing.assert_frame_equal(pd.read_csv(file), run.curve, check_dtype=False)
        assert any("run.curve" in note for note in broken.value.__notes__)

    @pytest.mark.parametrize("who", ["agent", "callback", "evaluation"])
    def test_somebody_else(self, who, tmp_path):
        def explode(*given):
            raise Broken(who)

        agent = Recorder(explode) if who == "agent" else Recorder()
        more = {"callback": explode} if who == "callback" else {}
        more = {"others": {"other": explode}} if who == "evaluation" else more
        with pytest.raises(Broken) as broken:
            learn(agent, log=tmp_path / "curve.csv", **more)
        at = {"agent": 12, "callback": 1, "evaluation": 15}[who]
        assert broken.value.run.curve["step"].tolist() == [at]
        assert pd.read_csv(tmp_path / "curve.csv")["step"].tolist() == [at]

    def test_the_environment_is_closed_if_it_was_made_here(self):
        made = []

        class Listed(Breaking, Closing):
            def __init__(self):
                super().__init__(3)
                made.append(self)

        with pytest.raises(Broken):
            learn(Recorder(), Listed)
        assert made and not any(env.open for env in made)

    @pytest.mark.parametrize("kind", ["finished", "diverged", "faulty", "stopped"])
    def test_the_table_of_each_ending(self, kind, tmp_path):
        metrics = (lambda k: {"max_q": np.inf if k == 6 else 1.0}) if kind == "diverged" else (lambda k: {"max_q": 1.0})
        env = Spoilt(at=27, reward=None) if kind == "faulty" else Counter(over=5)
        told = []
        settings = {"log": tmp_path / "curve.csv", "callback": lambda moment: kind != "stopped" or moment.step < 33}
        settings["others"] = {
            "look": lambda agent, obs: told.append(pd.read_csv(settings["log"])["step"].tolist()) or 1
        }
        run = learn(Recorder(metrics), env, **settings)
        assert run.ending == kind
        assert told[0] == [] and len(told[-1]) == run.curve["return"].notna().sum() - 1
        pd.testing.assert_frame_equal(pd.read_csv(settings["log"]), run.curve, check_dtype=False)

    def test_a_place_that_cannot_be_written_is_said_before_the_first_step(self, tmp_path):
        (tmp_path / "file").write_text("no folder")
        agent = Recorder()
        with pytest.raises(OSError):
            learn(agent, log=tmp_path / "file" / "curve.csv")
        assert not agent.explored


class TestHazards:
    """What somebody's environment does that none of ours would."""

    def test_one_array_for_all_observations(self):
        """It writes the next observation into the array that it gave for the last one, and clips actions in place."""

        class Reusing(Counter):
            seen = np.zeros(2, dtype=np.float32)

            def step(self, action):
                action *= 0
                return super().step(action)

            def _see(self):
                self.seen[:] = [self.episode, self.t]
                return self.seen

        class Half(Recorder):
            def act(self, obs, *, explore=False):
                super().act(obs, explore=explore)
                return np.array([0.5], dtype=np.float32)

        agent = Half()
        training.learn(agent, lambda: Reusing(over=5, actions=Box(-1, 1, (1,))), **SETTINGS | {"batch_size": 200})
        last = agent.batches[-1]
        torch.testing.assert_close(last.next_obs - last.obs, torch.tensor([[0.0, 1.0]]).expand(200, 2))
        assert (last.action != 0).all()

    @pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.int16])
    def test_observations_of_other_kinds(self, dtype):
        """Vectors of bytes and of doubles are learned from; a list is an observation as well."""
        from divergence_notes import dqn, preqn

        class Bytes(Counter):
            observation_space = Box(0, 100, shape=(2,), dtype=dtype)

            def _see(self):
                seen = np.array([self.episode % 100, self.t], dtype=dtype)
                return seen.tolist() if self.t % 2 else seen

        small = {"warmup": 20, "batch_size": 8}
        for module, config in ((dqn, dqn.DQNConfig(**small)), (preqn, preqn.PreQNConfig(**small))):
            env = Bytes(over=5, actions=Discrete(2))
            run = module.train(env, config=config, steps=40, seed=0, eval_every=20, eval_episodes=1)
            assert run.ending == "finished" and run.curve["max_q"].iloc[-1] > 0

    def test_episodes_of_one_step(self):
        """Cut after one step, or over: both are heard, and each step begins anew."""
        for over in (1, None):
            agent = Recorder()
            env = gymnasium.wrappers.TimeLimit(Counter(over=over), 1)
            run = learn(agent, env)
            assert run.curve["return"].tolist() == [7.0] * 3
            assert agent.batches[-1].terminated.all() == (over == 1)
            assert (agent.batches[-1].next_obs[:, 1] == 1).all()

    @pytest.mark.parametrize("way", ["wrapper", "itself"])
    def test_one_environment_in_new_wrappers(self, way):
        """An evaluation would break off the episode that is being learned from; and it stays open."""
        env = gymnasium.wrappers.TimeLimit(Closing(), 5)
        wrap = gymnasium.wrappers.RecordEpisodeStatistics if way == "wrapper" else lambda env: env
        agent = Recorder()
        with pytest.raises(ValueError, match=r"^env must make a new environment at each call, it gives the same one"):
            learn(agent, lambda: wrap(env))
        assert not agent.explored and env.unwrapped.open

    @pytest.mark.parametrize("kind", ["Observation", "Reward"])
    @pytest.mark.parametrize("given", ["object", "function"])
    def test_a_scale_that_moves(self, kind, given):
        """Under another wrapper as well."""

        def make():
            inside = getattr(gymnasium.wrappers, f"Normalize{kind}")(gymnasium.make("DivergenceNotesCounter-v0"))
            return gymnasium.wrappers.RecordEpisodeStatistics(inside)

        agent = Recorder()
        with pytest.raises(ValueError, match=f"^env must give the same numbers .*, Normalize{kind} learns its scale"):
            learn(agent, make() if given == "object" else make)
        assert not agent.explored
        fixed = getattr(gymnasium.wrappers, f"Transform{kind}")
        settings = {"func": lambda x: x / 2} | ({"observation_space": None} if kind == "Observation" else {})
        assert learn(agent, fixed(Counter(over=5), **settings)).ending == "finished"

    def test_an_evaluation_without_an_end_is_said(self, monkeypatch, caplog):
        monkeypatch.setattr(training, "LONG", 30)
        with caplog.at_level(logging.WARNING, logger="divergence_notes.training"):
            training.evaluate(lambda: Counter(over=29), lambda obs: 0, episodes=3, seed=0)
            assert not caplog.records
            training.evaluate(lambda: Counter(over=300), lambda obs: 0, episodes=1, seed=0)
        assert [record.message for record in caplog.records] == [
            "an evaluation has been in one episode for 30 steps: does it end? gymnasium.wrappers.TimeLimit cuts it"
        ]

    def test_two_runs_at_once(self):
        """In two threads, each as if it were alone, bit by bit."""
        from divergence_notes import dqn, preqn

        def started(k, found):
            module, config = (dqn, dqn.DQNConfig) if k else (preqn, preqn.PreQNConfig)
            settings = {"config": config(warmup=20, batch_size=16, hidden=(16,)), "steps": 150, "seed": k}
            found[k] = module.train("CartPole-v1", **settings, eval_every=50, eval_episodes=1)

        alone, together = {}, {}
        for k in range(2):
            started(k, alone)
        threads = [threading.Thread(target=started, args=(k, together)) for k in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for k in range(2):
            pd.testing.assert_frame_equal(alone[k].curve, together[k].curve, check_exact=True)
            for a, b in zip(alone[k].agent.net.parameters(), together[k].agent.net.parameters(), strict=True):
                assert torch.equal(a, b)

    @pytest.mark.parametrize(
        ("env", "error", "message"),
        [
            ("Blackjack-v1", TypeError, r"observation_space must be a Box, got Tuple\(.*FlattenObservation"),
            ("FrozenLake-v1", TypeError, r"observation_space must be a Box, got Discrete\(.*FlattenObservation"),
            ("CarRacing", ValueError, r"observation_space must have shape \(any,\), got \(96, 96, 3\).*Flatten"),
            ("Dict", TypeError, r"observation_space must be a Box, got Dict\(.*FlattenObservation"),
            ("MultiDiscrete", TypeError, "action_space must be"),
        ],
    )
    def test_a_sentence_before_the_first_step(self, env, error, message):
        from divergence_notes import dqn, preqn

        class Odd(Counter):
            def step(self, action):
                raise AssertionError("a step was made")

        if env in ("CarRacing", "Dict", "MultiDiscrete"):
            made = Odd(over=5)
            if env == "MultiDiscrete":
                made.action_space = gymnasium.spaces.MultiDiscrete([2, 3])
            else:
                image = Box(0, 255, (96, 96, 3), np.uint8)
                made.observation_space = image if env == "CarRacing" else gymnasium.spaces.Dict({"image": image})
            env = made
        for module, config in ((dqn, dqn.DQNConfig()), (preqn, preqn.PreQNConfig())):
            with pytest.raises(error, match=f"^{message}"):
                module.train(env, config=config, steps=10, seed=0)

    @pytest.mark.parametrize("seed", [None, -1, 1.5])
    def test_a_seed_that_is_none(self, seed):
        with pytest.raises((TypeError, ValueError), match=r"^seed must be"):
            training.learn.__wrapped__(Recorder(), "DivergenceNotesCounter-v0", **SETTINGS | {"seed": seed})


@pytest.mark.parametrize("name", ["preqn", "dqn"])
def test_the_examples_run(name, tmp_path, monkeypatch):
    """As they stand in the docstrings of `train`."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"divergence_notes.{name}")
    (example,) = [one for one in doctest.DocTestFinder().find(module) if one.examples]
    assert example.name == f"divergence_notes.{name}.train" and len(example.examples) >= 9
    assert doctest.DocTestRunner().run(example).failed == 0
