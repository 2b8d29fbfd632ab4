"""The target and the gradient of DQN against loops, its target network against copies, and that it learns."""

import copy
import dataclasses
import re

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from divergence_notes import dqn, replay, training

OBS, ACTIONS, GAMMA = Box(-10, 10, shape=(3,)), Discrete(4), 0.9


FLATTEN = ": gymnasium.wrappers.FlattenObservation makes vectors of most observations"


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def config(**changes):
    return dqn.DQNConfig(**{"hidden": (8,), "activation": "tanh", "gamma": GAMMA, "seed": 1} | changes)


def make(**changes):
    return dqn.DQN(OBS, ACTIONS, config(**changes))


def draw(n=12, seed=0):
    """Return a batch; every third transition terminated."""
    g = torch.Generator().manual_seed(seed)
    return replay.Batch(
        torch.randn(n, 3, generator=g),
        torch.randint(4, (n,), generator=g),
        torch.randn(n, generator=g),
        torch.randn(n, 3, generator=g),
        torch.arange(n) % 3 == 0,
    )


def parameters(net):
    return torch.cat([p.detach().clone().ravel() for p in net.parameters()])


def looped_target(net, batch, *, ends=True, starts=True, best=max, see="next_obs", gamma=GAMMA):
    """Return the targets, one transition after another; the switches plant faults."""
    out = []
    for k in range(len(batch.reward)):
        over = bool(batch.terminated[k])
        values = net(getattr(batch, see)[k : k + 1])[0].tolist()
        follows = (not over and starts) or (over and not ends)
        out.append(batch.reward[k].item() + (gamma * best(values) if follows else 0.0))
    return torch.tensor(out)


class TestTarget:
    """r + gamma max_a' Q(s', a'), and r alone after a transition that terminated; a time limit is no such thing."""

    def test_against_a_loop(self):
        agent, batch = make(), draw()
        torch.testing.assert_close(dqn.td_target(agent.net, batch, gamma=GAMMA), looped_target(agent.net, batch))

    @pytest.mark.parametrize(
        "fault",
        [
            {"ends": False},  # bootstraps through the terminal state
            {"starts": False},  # does not bootstrap where the episode went on, or a time limit cut it
            {"best": min},
            {"best": lambda values: sum(values) / 4},  # the max is missing
            {"best": lambda values: values[0]},
            {"see": "obs"},
            {"gamma": 1.0},
        ],
    )
    def test_faults_are_caught(self, fault):
        agent, batch = make(), draw()
        found = dqn.td_target(agent.net, batch, gamma=GAMMA)
        assert not torch.allclose(found, looped_target(agent.net, batch, **fault), atol=1e-3)

    def test_no_gradient(self):
        assert not dqn.td_target(make().net, draw(), gamma=GAMMA).requires_grad


LOSSES = {
    "squared": lambda error: 0.5 * error**2,
    "huber": lambda error: torch.where(error.abs() < 1, 0.5 * error**2, error.abs() - 0.5),
}


def looped_loss(agent, batch, loss, *, through=False, reduce=torch.mean, greedy=False):
    """Return the loss of a batch, one transition after another; the switches plant faults."""
    targets, out = looped_target(agent.target, batch), []
    for k in range(len(batch.reward)):
        target = targets[k]
        if through and not batch.terminated[k]:
            target = batch.reward[k] + GAMMA * agent.target(batch.next_obs[k : k + 1])[0].max()
        q = agent.net(batch.obs[k : k + 1])[0]
        out.append(LOSSES[loss](target - (q.max() if greedy else q[int(batch.action[k])])))
    return reduce(torch.stack(out))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("target_every", [None, 5])
class TestUpdateOfDQN:
    """One step of Adam down the mean loss of the values of the actions taken, the targets held fixed."""

    def test_against_a_loop(self, loss, target_every):
        agent, batch = make(loss=loss, target_every=target_every), draw()
        batch = dataclasses.replace(batch, reward=3 * batch.reward)  # both branches of Huber's loss
        q, before, want = agent.net(batch.obs), parameters(agent.net), looped_loss(agent, batch, loss)
        slope = torch.cat([g.ravel() for g in torch.autograd.grad(want, list(agent.net.parameters()))])
        metrics = agent.update(batch)
        assert metrics == pytest.approx({"loss": want.item(), "max_q": q.abs().max().item()}, rel=1e-5)
        found = torch.cat([p.grad.ravel() for p in agent.net.parameters()])
        torch.testing.assert_close(found, slope, rtol=1e-4, atol=1e-6)
        first = agent.config.learning_rate * slope / (slope.abs() + 1e-8)  # Adam's first step
        kept = slope.abs() > 1e-5
        torch.testing.assert_close((before - parameters(agent.net))[kept], first[kept], rtol=1e-2, atol=1e-7)

    def test_gradients_do_not_pile_up(self, loss, target_every):
        agent, batch = make(loss=loss, target_every=target_every), draw()
        agent.update(batch)
        want = looped_loss(agent, batch, loss)
        slope = torch.cat([g.ravel() for g in torch.autograd.grad(want, list(agent.net.parameters()))])
        agent.update(batch)
        torch.testing.assert_close(
            torch.cat([p.grad.ravel() for p in agent.net.parameters()]), slope, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "fault", [{"through": True}, {"reduce": torch.sum}, {"greedy": True}], ids=["through", "reduce", "greedy"]
)
def test_a_faulty_update_is_caught(loss, fault):
    """Gradient through the target; a sum for the mean; the best action for the one taken."""
    agent, batch = make(loss=loss, target_every=None), draw()
    wrong = looped_loss(agent, batch, loss, **fault)
    slope = torch.cat([g.ravel() for g in torch.autograd.grad(wrong, list(agent.net.parameters()))])
    agent.update(batch)
    found = torch.cat([p.grad.ravel() for p in agent.net.parameters()])
    assert (found - slope).abs().max() > 1e-2


class TestTargetNetwork:
    """A copy renewed after every `target_every` updates, or the learning network itself."""

    @pytest.mark.parametrize("every", [1, 3])
    def test_copies(self, every):
        agent, batch = make(target_every=every), draw()
        held = parameters(agent.target)
        assert torch.equal(held, parameters(agent.net))
        for k in range(1, 10):
            agent.update(batch)
            assert agent.updates == k
            if k % every == 0:
                held = parameters(agent.net)
            assert torch.equal(parameters(agent.target), held)
            assert torch.equal(parameters(agent.net), held) == (k % every == 0)

    def test_targets_come_from_it(self):
        agent, batch = make(target_every=100), draw()
        for _ in range(20):
            agent.update(batch)
        error = looped_target(agent.target, batch) - agent.net(batch.obs).gather(1, batch.action[:, None])[:, 0]
        own = looped_target(agent.net, batch) - agent.net(batch.obs).gather(1, batch.action[:, None])[:, 0]
        loss = agent.update(batch)["loss"]
        assert loss == pytest.approx(LOSSES["huber"](error).mean().item(), rel=1e-4)
        assert loss != pytest.approx(LOSSES["huber"](own).mean().item(), rel=1e-2)

    def test_none(self):
        agent = make(target_every=None)
        assert agent.target is agent.net
        for _ in range(3):
            agent.update(draw())
        assert agent.target is agent.net


class TestActOfDQN:
    """The best action; while exploring a random one with a chance that comes down in a straight line."""

    def test_greedy(self, rng):
        agent = make()
        for obs in rng.standard_normal((20, 3)):
            q = agent.net(torch.tensor(obs, dtype=torch.float32)).tolist()
            found = agent.act(obs)
            assert isinstance(found, int)
            assert q[found] == max(q)

    def test_explore(self):
        """Among 4 actions the best one is taken by chance too: 1 - 3/4 epsilon of the time."""
        agent = make(epsilon=0.2, epsilon_steps=4000)
        obs = np.ones(3)
        best = agent.act(obs)
        actions = np.array([agent.act(obs, explore=True) for _ in range(8000)])
        share = (actions == best).reshape(8, 1000).mean(axis=1)
        chance = np.array([0.9, 0.7, 0.5, 0.3, 0.2, 0.2, 0.2, 0.2])  # the mean over each thousand
        np.testing.assert_allclose(share, 1 - 0.75 * chance, atol=0.06)
        np.testing.assert_allclose(
            np.bincount(actions[actions != best], minlength=4).max() / (actions != best).sum(), 1 / 3, atol=0.05
        )

    def test_acting_greedily_moves_no_generator(self):
        agents = [make() for _ in range(2)]
        obs = np.ones(3)
        for _ in range(5):
            agents[0].act(obs)
        runs = [[agent.act(obs, explore=True) for _ in range(50)] for agent in agents]
        assert runs[0] == runs[1]


class Still(gymnasium.Env):
    """One state; every step pays 1; `over` says whether the process ends after each."""

    observation_space, action_space = Box(-1, 1, shape=(1,)), Discrete(2)

    def __init__(self, over=False):
        self.over = over

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, dtype=np.float32), {}

    def step(self, action):
        return np.ones(1, dtype=np.float32), 1.0, self.over, False, {}


gymnasium.register("DivergenceNotesStill-v0", entry_point=Still, max_episode_steps=1)
gymnasium.register("DivergenceNotesOver-v0", entry_point=Still, kwargs={"over": True}, max_episode_steps=1)


class TestTrainDQN:
    """From an environment's name to an agent, a curve and an ending."""

    @pytest.mark.parametrize(
        ("env_id", "value"), [("DivergenceNotesStill-v0", 2.0), ("DivergenceNotesOver-v0", 1.0)], ids=["cut", "over"]
    )
    def test_a_time_limit_is_no_end(self, env_id, value):
        """Each episode has one step. Cut by the limit, it is worth 1 / (1 - gamma); at an end, 1."""
        settings = config(gamma=0.5, target_every=10, learning_rate=0.01, warmup=10, batch_size=8, update_every=1)
        run = dqn.train(env_id, config=settings, steps=600, seed=0, eval_every=600, eval_episodes=1)
        q = run.agent.net(torch.ones(1, 1)).detach()
        torch.testing.assert_close(q, torch.full((1, 2), value), atol=0.05, rtol=0)

    def test_seed(self):
        """Same seed, same weights and curve, bit by bit; another seed, others; no global generator moves."""
        np_state, torch_state = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002

        def train(seed):
            settings = config(warmup=100, batch_size=16, epsilon_steps=200)
            return dqn.train("CartPole-v1", config=settings, steps=400, seed=seed, eval_every=200, eval_episodes=2)

        one, same, other = train(3), train(3), train(4)
        assert one.curve.equals(same.curve)
        assert torch.equal(parameters(one.agent.net), parameters(same.agent.net))
        assert not torch.equal(parameters(one.agent.net), parameters(other.agent.net))
        assert one.agent.config.seed == 3
        assert np.array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002
        assert torch.equal(torch.random.get_rng_state(), torch_state)

    def test_it_learns(self):
        """Four thousand steps of CartPole: a random policy balances for about 22 steps."""
        settings = dataclasses.replace(dqn.DQNConfig(), epsilon_steps=2_000, hidden=(64, 64), batch_size=64)
        run = dqn.train("CartPole-v1", config=settings, steps=4_000, seed=0, eval_every=2_000, eval_episodes=2)
        assert run.ending == "finished"
        assert run.curve["step"].tolist() == [2_000, 4_000]
        assert training.evaluate("CartPole-v1", run.agent.act, episodes=5, seed=1).mean() > 80

    def test_keep(self):
        """The best evaluated network by default; the last if asked for. The curve is the same."""
        settings = config(warmup=50, batch_size=16, epsilon_steps=100, learning_rate=0.02)
        runs = [
            dqn.train("CartPole-v1", config=settings, steps=300, seed=0, eval_every=25, eval_episodes=2, **keep)
            for keep in ({}, {"keep": "best"}, {"keep": "last"})
        ]
        assert runs[0].curve.equals(runs[1].curve) and runs[1].curve.equals(runs[2].curve)
        returns = runs[0].curve["return"].to_numpy()
        chosen = len(returns) - 1 - returns[::-1].argmax()  # the latest of the best
        assert 0 < chosen < len(returns) - 1
        made = [sum(t % 2 == 0 for t in range(50, step + 1)) for step in runs[0].curve["step"]]
        assert [run.agent.updates for run in runs] == [made[chosen], made[chosen], made[-1]]

    def test_acrobot(self):
        run = dqn.train("Acrobot-v1", config=config(warmup=200), steps=600, seed=0, eval_every=600, eval_episodes=1)
        assert run.ending == "finished"
        assert run.agent.n_actions == 3
        assert -500 <= run.curve["return"].item() < 0
        assert 0 < run.curve["max_q"].item() < 100

    def test_divergence_is_an_ending(self):
        """A step size that throws the values beyond a million."""
        settings = config(activation="relu", learning_rate=1e4, warmup=50, target_every=None, update_every=1)
        run = dqn.train("CartPole-v1", config=settings, steps=200, seed=0)
        assert run.ending == "diverged"
        assert run.curve["step"].iloc[-1] < 200
        assert np.isnan(run.curve["return"].iloc[-1])


class TestDQNRefuses:
    """What makes no sense is refused before any work."""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"hidden": (64, 0)}, "hidden[1] must be in [1, inf), got 0"),
            ({"activation": "gelu"}, "activation must be one of 'relu', 'tanh', 'sin', got 'gelu'"),
            ({"gamma": 1}, "gamma must be in [0, 1), got 1"),
            ({"learning_rate": 0.0}, "learning_rate must be in (0, inf), got 0.0"),
            ({"loss": "l1"}, "loss must be one of 'huber', 'squared', got 'l1'"),
            ({"target_every": 0}, "target_every must be in [1, inf), got 0"),
            ({"epsilon": 1.5}, "epsilon must be in [0, 1], got 1.5"),
            ({"epsilon_steps": 0}, "epsilon_steps must be in [1, inf), got 0"),
            ({"warmup": 11, "capacity": 10}, "warmup must be in [1, 10], got 11"),
            ({"batch_size": 0}, "batch_size must be in [1, inf), got 0"),
            ({"capacity": 0}, "capacity must be in [1, inf), got 0"),
            ({"update_every": 0}, "update_every must be in [1, inf), got 0"),
            ({"seed": -1}, "seed must be in [0, inf), got -1"),
        ],
    )
    def test_settings(self, changes, message):
        with refuses(ValueError, message):
            dqn.DQNConfig(**changes)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"learning_rate": "1e-3"}, "learning_rate must be a number, got '1e-3'"),
            ({"hidden": 64}, "hidden must be a sequence of integers, got 64"),
        ],
    )
    def test_text_is_no_number(self, changes, message):
        settings = dqn.DQNConfig()
        vars(settings).update(changes)  # past the hook of the tests, which knows the types
        with refuses(TypeError, message):
            settings.__post_init__()

    def test_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            config().gamma = 0.5

    @pytest.mark.parametrize(
        ("obs", "actions", "error", "message"),
        [
            (Discrete(3), ACTIONS, TypeError, "observation_space must be a Box, got Discrete(3)" + FLATTEN),
            (
                OBS,
                Box(-1, 1, shape=(2,)),
                TypeError,
                "action_space must be Discrete, got Box(-1.0, 1.0, (2,), float32)",
            ),
            (OBS, Discrete(3, start=2), ValueError, "action_space must start at 0, got Discrete(3, start=2)"),
        ],
    )
    def test_spaces(self, obs, actions, error, message):
        with refuses(error, message):
            dqn.DQN(obs, actions, config())


def test_a_deep_copy_learns_on_its_own():
    agent = make()
    twin = copy.deepcopy(agent)
    agent.update(draw())
    assert torch.equal(parameters(twin.net), parameters(make().net))


class TestDQNSeesBatches:
    """As a vector environment gives them: an array of actions, each that of its own row; other shapes are refused."""

    OBSERVED = np.random.default_rng(3).standard_normal((50, 3))

    def test_each_row_as_alone(self):
        agent = make()
        actions = agent.act(self.OBSERVED)
        assert actions.shape == (50,) and actions.dtype.kind == "i"
        assert actions.tolist() == [agent.act(obs) for obs in self.OBSERVED]
        assert len(set(actions.tolist())) > 1

    def test_exploring(self):
        """Each row counts as one exploring action, and chance comes down within a batch as it does one by one."""
        agents = [make(epsilon=0.0, epsilon_steps=100) for _ in range(2)]
        batch = np.repeat(self.OBSERVED[:1], 60, axis=0)
        actions = [agents[0].act(batch, explore=True) for _ in range(3)]
        assert all(ACTIONS.contains(action) for each in actions for action in each)
        best = agents[0].act(self.OBSERVED[0])
        assert len(set(actions[0].tolist())) == 4
        assert (actions[1][40:] == best).all() and (actions[2] == best).all()
        single = [agents[1].act(self.OBSERVED[0], explore=True) for _ in range(180)]
        assert np.concatenate(actions).tolist() == single

    @pytest.mark.parametrize("shape", [(4,), (2,), (0,), (), (5, 2), (3, 1), (2, 2, 3)])
    @pytest.mark.parametrize("explore", [False, True])
    def test_refuses(self, shape, explore):
        with refuses(ValueError, f"obs must have shape (3,) or (n, 3), got {shape}"):
            make().act(np.zeros(shape), explore=explore)
