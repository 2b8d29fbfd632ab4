"""The TD3 that takes steps of PreQN: beside the readable agent on one batch, and in what the library does with it."""

import copy
import pydoc
import re
import sys
import types

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from gymnasium.spaces import Box, Dict
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from divergence_notes import monitor, networks, preqn, replay
from divergence_notes.sb3_preqn import PreconditionedTD3
from tests import pages

OBS, ACTIONS = Box(-1, 1, shape=(3,)), Box(np.float32([-1, 0]), np.float32([3, 10]))


class Quiet(gymnasium.Env):
    """Has spaces, and is over after four steps, which pay what `pays` says."""

    observation_space, action_space, pays = OBS, ACTIONS, 1.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._see(), {}

    def step(self, action):
        self.t += 1
        return self._see(), self.pays, self.t == 4, False, {}

    def _see(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)


def model(env=None, **changes):
    given = {"seed": 0, "learning_starts": 30, "buffer_size": 500, "batch_size": 16, "device": "cpu"}
    given |= {"policy_kwargs": {"net_arch": [16, 16]}} | changes
    return PreconditionedTD3("MlpPolicy", env or Quiet(), **given)


def draw(n=10, seed=0):
    """Return the same transitions as the library has them, actions from -1 to 1, and as we have them."""
    g = torch.Generator().manual_seed(seed)
    obs, after = 3 * torch.randn(n, 3, generator=g), 3 * torch.randn(n, 3, generator=g)
    action, reward = 2 * torch.rand(n, 2, generator=g) - 1, torch.randn(n, generator=g)
    ends = torch.arange(n) % 3 == 0
    theirs = ReplayBufferSamples(obs, action, after, ends.float()[:, None], reward[:, None], None)
    low, high = torch.from_numpy(ACTIONS.low), torch.from_numpy(ACTIONS.high)
    return theirs, replay.Batch(obs, (low + high) / 2 + (high - low) / 2 * action, reward, after, ends)


def twins(critics=1, **changes):
    """Return a model and a readable agent with the parameters of its actor and of its last critic."""
    numbers = {"gamma": 0.9, "alpha": 0.2, "eta": 0.9, "jitter": 1e-3} | changes
    made = model(
        **{
            "policy_delay" if k == "policy_every" else "tau" if k == "target_rate" else k: v for k, v in numbers.items()
        },
        policy_kwargs={"net_arch": [64, 64], "n_critics": critics},
    )
    config = preqn.PreQNConfig(hidden=(64, 64), policy_hidden=(64, 64), policy_activation="sin", held_out=1, **numbers)
    agent = preqn.PreQN(OBS, ACTIONS, config)
    copied = [(agent.net, made.critic.q_networks[-1]), (agent.policy, made.actor.mu)]
    copied += [(agent._target[0], made.critic_target.q_networks[-1]), (agent._target[1], made.actor_target.mu)]
    with torch.no_grad():
        for ours, theirs in copied:
            for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
                p.copy_(q)
    return made, agent


def parameters(net):
    return torch.cat([p.detach().ravel().clone() for p in net.parameters()])


def feed(made, batches, monkeypatch):
    """Let a model train once on each of these batches."""
    made._logger = made._logger if hasattr(made, "_logger") else None
    made.set_logger(monitor_logger())
    waiting = list(batches)
    monkeypatch.setattr(made.replay_buffer, "sample", lambda n, env=None: waiting.pop(0))
    made.train(gradient_steps=len(batches), batch_size=1)
    assert not waiting or made.ending


def monitor_logger():
    from stable_baselines3.common.logger import Logger

    return Logger(folder=None, output_formats=[])


CHANGES = {
    "as it is": {},
    "a longer step": {"alpha": 1.0, "eta": 0.5},
    "backtracks": {"alpha": 1.0, "eta": 0.999, "shrink": 0.7},
    "minimum norm": {"solver": "minimum-norm"},
    "no inverse": {"solver": "none", "eta": -1},
    "targets behind": {"target_rate": 0.3},
    "a rare actor": {"policy_every": 2},
}


class TestBesideTheReadable:
    """The same parameters, the same batches: the same update, to rounding."""

    @pytest.mark.parametrize("kind", CHANGES)
    @pytest.mark.parametrize("updates", [1, 3])
    def test_same_update(self, kind, updates, monkeypatch):
        made, agent = twins(**CHANGES[kind])
        before = parameters(agent.net)
        pairs = [draw(seed=k) for k in range(updates)]
        metrics = [agent.update(watched_behind(ours)) for _, ours in pairs]
        feed(made, [theirs for theirs, _ in pairs], monkeypatch)
        assert (parameters(agent.net) - before).abs().max() > 1e-3
        for ours, theirs in [
            (agent.net, made.critic.q_networks[0]),
            (agent.policy, made.actor.mu),
            (agent._target[0], made.critic_target.q_networks[0]),
            (agent._target[1], made.actor_target.mu),
        ]:
            torch.testing.assert_close(parameters(ours), parameters(theirs), rtol=1e-3, atol=2e-5)
        logged = made.logger.name_to_value
        assert logged["train/accepted"] == pytest.approx(np.mean([one["accepted"] for one in metrics]), rel=1e-6)
        assert logged["train/td_error"] == pytest.approx(np.mean([one["td_error"] for one in metrics]), rel=1e-4)
        assert made._n_updates == updates

    @pytest.mark.parametrize(
        "fault", [{"alpha": 0.21}, {"gamma": 0.91}, {"solver": "none", "eta": -1}, {"jitter": 0.1}]
    )
    def test_another_setting_is_another_update(self, fault, monkeypatch):
        """Negative control: what the tolerance above can tell apart."""
        made, agent = twins()
        for name, value in fault.items():
            setattr(made, name, value)
        theirs, ours = draw()
        agent.update(watched_behind(ours))
        feed(made, [theirs], monkeypatch)
        assert not torch.allclose(parameters(agent.net), parameters(made.critic.q_networks[0]), rtol=1e-3, atol=2e-5)

    def test_two_critics(self, monkeypatch):
        """Each takes the step that the smaller one asks of it, by a kernel of its own; the actor climbs the first."""
        made, _ = twins(critics=2)
        theirs, _ = draw()
        start = copy.deepcopy(made.critic)
        with torch.no_grad():
            for q in made.critic_target.q_networks:
                q[-1].weight.mul_(6)  # so far apart that it matters which of them is meant
        both = torch.stack(
            [
                q(torch.cat([theirs.next_observations, made.actor_target(theirs.next_observations)], dim=1))[:, 0]
                for q in made.critic_target.q_networks
            ]
        ).detach()
        assert (both[0] < both[1]).any() and (both[0] > both[1]).any()
        target, wrong = (
            theirs.rewards[:, 0] + (1 - theirs.dones[:, 0]) * 0.9 * after
            for after in (both.min(dim=0).values, both.max(dim=0).values)
        )
        feed(made, [theirs], monkeypatch)
        x = torch.cat([theirs.observations, theirs.actions], dim=1)
        for before, after in zip(start.q_networks, made.critic.q_networks, strict=True):
            asked = target - before(x)[:, 0].detach()
            moved = (after(x) - before(x))[:, 0].detach()
            cosine = torch.nn.functional.cosine_similarity(moved, asked, dim=0)
            off = [(moved - 0.2 * (which - before(x)[:, 0].detach())).norm() for which in (target, wrong)]
            assert off[0] < 0.5 * off[1]
            assert cosine >= 0.9 and 0.15 < moved.norm() / asked.norm() < 0.25  # alpha = 0.2 of what was asked


def watched_behind(batch):
    """Return a batch with one more transition, which our agent only watches."""
    return replay.Batch(
        *(torch.cat([getattr(batch, k), getattr(batch, k)[:1]]) for k in ("obs", "action", "reward", "next_obs")),
        torch.cat([batch.terminated, batch.terminated[:1]]),
    )


class TestInTheLibrary:
    """Vector environments, noise, callbacks, files, normalisation, dictionaries: as any TD3."""

    def test_several_environments_noise_and_a_second_call(self):
        env = make_vec_env("Pendulum-v1", n_envs=3, seed=0, env_kwargs={"max_episode_steps": 20})
        made = model(env, action_noise=NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)), gradient_steps=2)
        made.learn(60)
        steps, updates = made.num_timesteps, made._n_updates
        assert steps == 60 and updates == 20
        made.learn(30, reset_num_timesteps=False)
        assert (made.num_timesteps, made._n_updates) == (90, 40) and made.ending is None
        mean, _ = evaluate_policy(made, env, n_eval_episodes=3)
        assert -500 < mean < 0

    def test_saved_and_loaded(self, tmp_path):
        """By the library's own save and load: settings, networks, the actor's optimiser; it learns on."""
        made = model(alpha=0.3, eta=0.5, policy_kwargs={"net_arch": [8], "activation_fn": torch.nn.Tanh})
        made.learn(50)
        made.save(tmp_path / "agent")
        found = PreconditionedTD3.load(tmp_path / "agent", env=Quiet(), device="cpu")
        assert (found.alpha, found.eta, found.ending, found.tau) == (0.3, 0.5, None, 1)
        assert torch.equal(parameters(found.policy), parameters(made.policy))
        obs = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32)
        np.testing.assert_array_equal(found.predict(obs)[0], made.predict(obs)[0])
        assert len(found.actor.optimizer.state) == len(made.actor.optimizer.state) > 0
        before = found._n_updates
        found.learn(40, reset_num_timesteps=False)
        assert found._n_updates > before

    def test_sines_and_one_critic_by_default(self):
        made = model(policy_kwargs=None)
        kinds = {type(part) for net in (made.critic, made.actor) for part in net.modules()}
        assert networks.Sine in kinds and torch.nn.ReLU not in kinds and len(made.critic.q_networks) == 1
        other = model(policy_kwargs={"net_arch": [8], "n_critics": 3, "activation_fn": torch.nn.ReLU})
        assert len(other.critic.q_networks) == 3 and torch.nn.ReLU in {type(part) for part in other.actor.modules()}

    def test_watched(self):
        """Bit by bit as without; with the values, errors and renewals of these networks."""
        runs = []
        for watched in (False, True):
            made = model(policy_delay=2)
            callback = monitor.watch(made, every=20) if watched else None
            made.learn(80, callback=callback)
            runs.append(parameters(made.policy))
        assert torch.equal(*runs)
        history = callback.history
        assert (history["reason"] == "").all() and len(history) >= 3 and not history["alarm"].any()
        from divergence_notes import adapters

        assert adapters.asked(made).renewals() == (made._n_updates, 1.0) and made._n_updates == 50
        batch = made.replay_buffer.sample(16)
        with torch.no_grad():
            wanted = made.critic_target(batch.next_observations, made.actor_target(batch.next_observations))[0]
            wanted = batch.rewards + (1 - batch.dones) * made.gamma * wanted
            errors = wanted - made.critic(batch.observations, batch.actions)[0]
        torch.testing.assert_close(adapters.asked(made).errors(batch)[0], errors[:, 0])

    def test_normalised(self):
        env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=2, seed=0))
        made = model(env)
        made.learn(60)
        assert made._n_updates > 0 and made.ending is None

    def test_a_dictionary_of_vectors(self):
        class Two(Quiet):
            observation_space = Dict({"a": Box(-1, 1, (2,)), "b": Box(-1, 1, (1,))})

            def _see(self):
                return {"a": super()._see()[:2], "b": super()._see()[:1]}

        made = PreconditionedTD3("MultiInputPolicy", Two(), learning_starts=20, seed=0, device="cpu", batch_size=8)
        made.learn(30)
        assert made._n_updates == 10

    def test_several_steps_in_a_target(self):
        made = model(n_steps=3)
        made.learn(50)
        assert made._n_updates > 0


class TestDivergenceInTheLibrary:
    """An attribute and an end, no exception; the networks stay as they were before that update."""

    @pytest.mark.parametrize("pays", [np.inf, 1e8])
    def test_ends(self, pays):
        class Rich(Quiet):
            def step(self, action):
                self.pays = pays if self.count > 60 else 1.0
                self.count += 1
                return super().step(action)

            count = 0

        made, seen = model(Rich()), []
        made.learn(500, callback=lambda given, _: seen.append(parameters(made.policy)) is None)
        assert made.ending == "diverged" and 61 < made.num_timesteps < 120
        assert torch.isfinite(parameters(made.policy)).all()
        assert torch.equal(parameters(made.policy), seen[-1])
        updates = made._n_updates
        made.learn(50, reset_num_timesteps=False)
        assert made._n_updates == updates

    @pytest.mark.parametrize("critics", [1, 2])
    def test_by_its_own_step(self, critics, monkeypatch):
        """Any finite step is accepted, and it is far too long: taken back, for all critics."""
        made, _ = twins(critics=critics, eta=-1, bound=50.0, alpha=0.2)
        made.alpha, made.solver = 1e4, "none"
        before = parameters(made.policy)
        feed(made, [draw()[0]], monkeypatch)
        assert made.ending == "diverged" and torch.equal(parameters(made.policy), before) and made._n_updates == 0


class TestPreconditionedRefuses:
    """Before the first step."""

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"alpha": 0}, ValueError, "alpha must be in (0, inf), got 0"),
            ({"eta": 2}, ValueError, "eta must be in [-1, 1], got 2"),
            ({"solver": "lstsq"}, ValueError, "solver must be one of"),
            ({"tau": 0}, ValueError, "tau must be in (0, 1], got 0"),
            ({"policy_delay": 0}, ValueError, "policy_delay must be in [1, inf), got 0"),
            ({"target_policy_noise": 0.2}, TypeError, "target_policy_noise is TD3's"),
        ],
    )
    def test_settings(self, changes, error, message):
        with pytest.raises(error) as no:
            model(**changes)
        assert str(no.value).startswith(message)

    def test_images(self):
        class Seen(Quiet):
            observation_space = Box(0, 255, (36, 36, 3), np.uint8)

        with pytest.raises(
            ValueError, match=r"^policy must have no parameters before the first layer, NatureCNN has \d"
        ):
            PreconditionedTD3("CnnPolicy", Seen(), buffer_size=10, device="cpu")

    def test_discrete_actions(self):
        with pytest.raises(AssertionError, match="supports"):
            model("CartPole-v1")


@pytest.mark.nightly
def test_it_learns():
    """Pendulum, upright after one swing; a random policy earns about -1200."""
    noise = NormalActionNoise(np.zeros(1), 0.1 * np.ones(1))
    settings = {"learning_starts": 1000, "batch_size": 256, "action_noise": noise, "buffer_size": 10_000}
    made = model("Pendulum-v1", policy_kwargs={"net_arch": [64, 64]}, **settings)
    made.learn(4_000)
    returns, _ = evaluate_policy(made, make_vec_env("Pendulum-v1", seed=1), 10, return_episode_rewards=True)
    assert pd.Series(returns).mean() > -400


class TestInTheZoo:
    """What the page gives to the RL Zoo, done as the zoo does it: names are looked up, and all goes in by keyword.

    The zoo itself is not asked; its command was tried by hand.
    """

    @pytest.fixture
    def blocks(self):
        """Return the script and the settings, as the page has them."""
        section = (pages.BOOK / "api_training.md").read_text(encoding="utf-8").partition("## sb3_preqn")[2]
        return [re.search(rf"```{kind}\n(.*?)```", section, re.DOTALL)[1] for kind in ("python", "yaml")]

    def test_its_settings_train(self, blocks, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        ((name, given),) = yaml.safe_load(blocks[1]).items()
        assert given.pop("n_timesteps") == 2000 and given.pop("noise_type") == "normal"
        noise = NormalActionNoise(np.zeros(1), given.pop("noise_std") * np.ones(1))
        ((where, settings),) = given.pop("callback")[0].items()
        callback = pydoc.locate(where)(**settings)
        given |= {"learning_starts": 150, "policy_kwargs": eval(given["policy_kwargs"])}  # as the zoo does
        env = make_vec_env(name, seed=0)
        made = PreconditionedTD3(
            env=env, action_noise=noise, tensorboard_log=None, seed=0, verbose=0, device="cpu", **given
        )
        made.learn(210, callback=callback, log_interval=4)
        assert callback.history["updates"].iloc[-1] >= 40 and (tmp_path / "report.html").is_file()
        made.save("agent")
        again = PreconditionedTD3.load("agent", env=env, device="cpu")
        assert again.ending is None and np.isfinite(evaluate_policy(again, env, n_eval_episodes=1)[0])

    def test_its_script_names_the_class(self, blocks, monkeypatch):
        """Run with a made-up zoo, which knows other algorithms and is asked to train."""
        zoo, known = types.ModuleType("rl_zoo3.train"), []
        zoo.ALGOS, zoo.train = {"td3": object}, lambda: known.extend(zoo.ALGOS.items())
        monkeypatch.setitem(sys.modules, "rl_zoo3", types.ModuleType("rl_zoo3"))
        monkeypatch.setitem(sys.modules, "rl_zoo3.train", zoo)
        exec(blocks[0], {})
        assert known == [("td3", object), ("preqn", PreconditionedTD3)]
