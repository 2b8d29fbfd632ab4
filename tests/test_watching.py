"""A callback in runs of our own agents: the run as without it, and numbers that a second way of counting has."""

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from divergence_notes import diagnosis, dqn, monitor, ntk, preqn, probe, replay, training, watching

SMALL = {"hidden": (16,), "warmup": 60, "batch_size": 16, "seed": 2}
KINDS = {
    "preqn": ("Pendulum-v1", preqn, preqn.PreQNConfig(**SMALL, policy_hidden=(8,), held_out=4)),
    "preqn-target": ("Pendulum-v1", preqn, preqn.PreQNConfig(**SMALL, held_out=4, target_rate=0.1)),
    "preqn-discrete": ("CartPole-v1", preqn, preqn.PreQNConfig(**SMALL, held_out=4)),
    "dqn": ("CartPole-v1", dqn, dqn.DQNConfig(**SMALL, target_every=10)),
    "dqn-without": ("CartPole-v1", dqn, dqn.DQNConfig(**SMALL, target_every=None)),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def train(kind, **more):
    env_id, module, config = KINDS[kind]

    def make():
        return gymnasium.make(env_id, max_episode_steps=30)

    return module.train(make, config=config, steps=200, seed=2, eval_every=100, eval_episodes=1, **more)


def batch(agent, n=12):
    g = torch.Generator().manual_seed(0)
    observations, actions = agent._spaces
    d = observations.shape[0]
    if isinstance(actions, Discrete):
        action = torch.randint(int(actions.n), (n,), generator=g)
    else:
        low, high = torch.from_numpy(actions.low), torch.from_numpy(actions.high)
        action = low + (high - low) * torch.rand(n, *actions.shape, generator=g)
    obs, after = torch.randn(n, d, generator=g), torch.randn(n, d, generator=g)
    return replay.Batch(obs, action, torch.randn(n, generator=g), after, torch.arange(n) % 3 == 0)


@each_kind
class TestWatch:
    """Records at the steps that were asked for, in the words of the probe."""

    def test_the_run_is_the_same(self, kind):
        alone, watch = train(kind), watching.Watch(every=50, batch_size=24)
        watched = train(kind, callback=watch)
        pd.testing.assert_frame_equal(watched.curve, alone.curve, check_exact=True)
        for a, b in zip(alone.agent.net.parameters(), watched.agent.net.parameters(), strict=True):
            assert torch.equal(a, b)
        history = watch.history
        assert history.columns.tolist() == list(probe.COLUMNS)
        every = 2 if kind.startswith("dqn") else 1  # steps from one update to the next
        assert history["step"].tolist() == [60, 100, 150, 200] and 60 % every == 0
        assert (history["reason"] == "").all()
        assert history["alignment"].notna().tolist() == [True, True, True, False]
        for name in ("max_q", "row_ratio", "td_error", "start_q", "start_return", "earned_high", "possible_high"):
            assert np.isfinite(history[name]).all(), name
        assert history["value_churn"].iloc[1:].gt(0).all() and history["action_churn"].iloc[1:].notna().all()

    def test_by_monitor(self, kind):
        run = train(kind, callback=(watch := monitor.watch(train(kind).agent, every=70, seed=3)))
        assert isinstance(watch, watching.Watch) and watch.history["step"].tolist() == [70, 140]
        assert run.ending == "finished"

    def test_by_default_it_looks_early(self, kind):
        watch = watching.Watch(batch_size=24)
        train(kind, callback=watch)
        assert watch.history["step"].tolist() == [60, 86 if kind.startswith("dqn") else 85, 110, 160]
        assert set(watch.settings) <= set(diagnosis.SETTINGS)

    def test_what_an_agent_is_by_design_is_no_fault(self, kind):
        """PreQN has no target network, and a DQN without one is told so."""
        watch = watching.Watch(every=20, batch_size=24)
        train(kind, callback=watch)
        found = [finding.name for finding in diagnosis.diagnose(watch.history, watch.settings)]
        assert found == (["no-target-network"] if kind == "dqn-without" else [])
        if kind == "preqn":
            assert "no-target-network" in [f.name for f in diagnosis.diagnose(watch.history)]

    def test_targets_end_where_episodes_do(self, kind):
        agent = train(kind).agent
        assert watching.probe(agent)(watching.as_batch(batch(agent)), step=1)["after_ends"] == 0

    def test_values_errors_and_kernel(self, kind):
        """Beside the parts of the update itself."""
        agent = train(kind).agent
        given = batch(agent)
        found = watching.probe(agent)
        record = found(watching.as_batch(given), step=1)
        if isinstance(agent, dqn.DQN):
            q = agent.net(given.obs)
            taken, target = q.gather(1, given.action[:, None])[:, 0], dqn.td_target(agent.target, given, gamma=0.98)
            x, outputs = given.obs, given.action
        else:
            x, outputs = agent._pairs(given)
            q = agent.net(x)
            taken = q[:, 0] if outputs is None else q.gather(1, outputs[:, None])[:, 0]
            target = agent.targets(given)
        assert record["td_error"] == pytest.approx((target - taken).abs().mean().item(), rel=1e-5)
        assert record["max_q"] == pytest.approx(q.abs().max().item(), rel=1e-6)
        kernel = ntk.gram(agent.net, x, outputs=outputs)
        row_ratio = 1 - (kernel.diagonal().abs() / kernel.abs().sum(dim=1)).mean().item()
        np.testing.assert_allclose(found.kernel(watching.as_batch(given)), kernel.numpy(), rtol=1e-3, atol=1e-5)
        assert 0 < row_ratio < 1 and 0 < record["row_ratio"]

    def test_renewals(self, kind):
        agent = train(kind).agent
        count, share = watching.renewals(agent)
        want = {"preqn": (141, 1), "preqn-target": (141, 0.1), "preqn-discrete": (141, 1)}
        want |= {"dqn": (agent.updates // 10, 1), "dqn-without": (agent.updates, 1)}
        assert (count, share) == want[kind] and agent.updates > 10


class Paying(gymnasium.Env):
    """Pays 1 a step; an episode is over after 3 steps, or cut after them; shows the step."""

    observation_space, action_space = Box(-1, 10, shape=(1,)), Discrete(2)

    def __init__(self, cut=False):
        self.cut = cut

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        over = self.t == 3
        return np.full(1, self.t, np.float32), 1.0, over and not self.cut, over and self.cut, {}


class TestWhatWasEarned:
    """Returns of whole episodes, told from ends and from cuts."""

    @pytest.mark.parametrize("cut", [False, True])
    def test_returns(self, cut):
        watch = watching.Watch(every=50)
        config = preqn.PreQNConfig(hidden=(8,), warmup=30, batch_size=8, held_out=2, gamma=0.5)
        run = preqn.train(lambda: Paying(cut), config=config, steps=100, seed=0, eval_every=100, callback=watch)
        last = watch.history.iloc[-1]
        assert run.ending == "finished"
        assert last["start_return"] == pytest.approx(1 + 0.5 + 0.25)
        assert (last["earned_low"], last["earned_high"]) == pytest.approx((1, 1.75))
        assert last["possible_high"] == pytest.approx(2)
        value = run.agent.net(torch.zeros(1, 1)).detach()
        assert value.min() - 0.5 <= last["start_q"] <= value.max() + 0.5
        rest = 0.125 * 2 if cut else 0.0  # what may come after a cut
        assert last["overestimation"] == pytest.approx(last["start_q"] - 1.75 - rest, abs=1e-6)

    def test_no_part_of_an_episode(self, monkeypatch):
        """When the first steps are forgotten, what is left of their episode is none."""
        monkeypatch.setattr(watching, "_RECENT", 10)
        watch = watching.Watch(every=50)
        config = preqn.PreQNConfig(hidden=(8,), warmup=30, batch_size=8, held_out=2, gamma=0.5)
        preqn.train(Paying, config=config, steps=100, seed=0, eval_every=100, callback=watch)
        assert watch.history["start_return"].tolist() == pytest.approx([1.75] * len(watch.history))

    def test_a_run_that_goes_on(self, tmp_path):
        """From a checkpoint in the middle of an episode: it counts from the next one on."""
        config = preqn.PreQNConfig(hidden=(8,), warmup=30, batch_size=8, held_out=2, gamma=0.5)
        settings = {"config": config, "seed": 0, "eval_every": 200, "checkpoint": tmp_path / "run"}
        preqn.train(Paying, steps=40, **settings)  # one step into an episode
        watch = watching.Watch(every=10)
        preqn.train(Paying, steps=60, **settings, callback=watch)
        assert watch.history["step"].tolist() == [50, 60]
        assert watch.history["start_return"].tolist() == pytest.approx([1.75] * 2)


class TestWatchRefuses:
    """In a sentence, at the first step."""

    def test_an_agent_that_is_not_known(self):
        class Still:
            def act(self, obs, *, explore=False):
                return 0

            def update(self, batch):
                return {}

        settings = {"steps": 9, "seed": 0, "warmup": 1, "batch_size": 2, "capacity": 9, "eval_every": 9}
        with pytest.raises(TypeError, match=r"^agent must be a DQN or a PreQN, got Still: make a probe\.Probe by hand"):
            training.learn(Still(), Paying, eval_episodes=1, callback=watching.Watch(), **settings)

    @pytest.mark.parametrize("settings", [{"every": 0}, {"batch_size": 0}, {"seed": -1}])
    def test_numbers(self, settings):
        (name,) = settings
        with pytest.raises(ValueError, match=f"^{name} must be in"):
            watching.Watch(**settings)

    def test_settings_before_the_first_step(self):
        assert watching.Watch().settings == {}

    def test_a_history_before_the_first_step(self):
        assert watching.Watch().history.columns.tolist() == list(probe.COLUMNS)

    def test_divergence_is_seen(self):
        """A step size that throws values away; the last record says so, and the run ends as it does alone."""
        config = dqn.DQNConfig(learning_rate=1e3, warmup=20, batch_size=16, hidden=(16,), update_every=1)
        watch = watching.Watch(every=1)
        run = dqn.train("CartPole-v1", config=config, steps=60, seed=0, eval_every=100, callback=watch)
        assert run.ending == "diverged" and watch.history["alarm"].any()


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"report": "page.html"}, TypeError), ({"r_max": -1}, ValueError), ({"r_max": 1.0, "every": 9}, None)],
)
def test_what_a_probe_refuses_is_refused_before_the_first_step(settings, error):
    env_id, _, config = KINDS["dqn"]
    agent = dqn.DQN(*training.spaces(env_id), config)
    if error is None:
        assert monitor.watch(agent, **settings).every == 9
    else:
        with pytest.raises(error, match=next(iter(settings))):
            monitor.watch(agent, **settings)
