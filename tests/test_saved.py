"""What is in a file of an agent is data: code that a stranger put there does not run, and nonsense is a sentence."""

import copy
import dataclasses
import os
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from divergence_notes import _saved, dqn, preqn, training

OBS = Box(-1, 1, shape=(3,))
SMALL = {"hidden": (8,), "seed": 1}
AGENTS = {
    "dqn": lambda: dqn.DQN(OBS, Discrete(4), dqn.DQNConfig(**SMALL)),
    "preqn": lambda: preqn.PreQN(OBS, Box(-1, 1, shape=(2,)), preqn.PreQNConfig(**SMALL)),
}
each_agent = pytest.mark.parametrize("kind", AGENTS)


class Bomb:
    """A pickle with this in it makes a folder as soon as it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@each_agent
class TestFilesOfStrangers:
    """Refused in a sentence, that does not advise to run what is in them."""

    @pytest.mark.parametrize("how", ["torch", "pickle"])
    def test_code_is_not_run(self, kind, how, tmp_path):
        agent, file, trace = AGENTS[kind](), tmp_path / "agent", tmp_path / "trace"
        agent.save(file)
        state = torch.load(file, weights_only=True) | {"updates": Bomb(trace)}
        if how == "torch":
            torch.save(state, file)
        else:
            file.write_bytes(pickle.dumps(state))
        with pytest.raises(
            ValueError, match=r"^path must be a file that .*\.save. wrote, .*nothing in it was run"
        ) as no:
            type(agent).load(file)
        assert not trace.exists()
        assert "weights_only=False" not in str(no.value) and no.value.__cause__ is None
        if how == "torch":
            torch.load(file, weights_only=False)
        else:
            pickle.loads(file.read_bytes())
        assert trace.exists(), "the plant does what it is there for"

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda s: s.pop("net"), "has no 'net'"),
            (lambda s: s["config"].update(hidden=(9,)), r"have widths \[8\], its settings say \[9\]"),
            (lambda s: s["config"].update(hidden=(10**9,)), "have widths"),
            (lambda s: s["config"].update(gamma=2.0), r"gamma must be in \[0, 1\), got 2.0"),
            (lambda s: s["config"].update(secret=1), "secret"),
            (lambda s: s.update(spaces=["", ""]), "does not fit together"),
            (lambda s: s.update(rng={}), "does not fit together"),
            (lambda s: s["net"].pop("0.bias"), "0.bias"),
        ],
    )
    def test_nonsense(self, kind, change, said, tmp_path):
        agent, file = AGENTS[kind](), tmp_path / "agent"
        agent.save(file)
        state = torch.load(file, weights_only=True)
        change(state)
        torch.save(state, file)
        with pytest.raises(ValueError, match=f"^path must be a file that .* wrote, .*({said})"):
            type(agent).load(file)

    def test_of_the_other_agent(self, kind, tmp_path):
        (other,) = set(AGENTS) - {kind}
        AGENTS[other]().save(tmp_path / "agent")
        with pytest.raises(ValueError, match=r"^path must be"):
            type(AGENTS[kind]()).load(tmp_path / "agent")

    @pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04."])
    def test_of_another_kind(self, kind, content, tmp_path):
        (tmp_path / "agent").write_bytes(content)
        with pytest.raises(ValueError, match=r"^path must be a file that"):
            type(AGENTS[kind]()).load(tmp_path / "agent")
        with pytest.raises(FileNotFoundError):
            type(AGENTS[kind]()).load(tmp_path / "nothing")

    def test_a_kill_while_it_is_saved(self, kind, tmp_path, monkeypatch):
        """The old file stays whole."""
        agent, file = AGENTS[kind](), tmp_path / "agent"
        agent.save(file)
        before = file.read_bytes()
        monkeypatch.setattr(_saved.torch, "save", lambda state, file: file.write(b"half") and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            agent.save(file)
        assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


NUMBERS = {
    "preqn": {
        "hidden": (np.int64(8),),
        "policy_hidden": np.array([8]),
        "alpha": np.float64(0.25),
        "gamma": np.float32(0.5),
        "noise": np.array(0.5),
        "jitter": Fraction(1, 2),
        "batch_size": np.int32(7),
        "solver": np.str_("none"),
    },
    "dqn": {
        "hidden": [np.int64(8)],
        "gamma": np.float32(0.5),
        "learning_rate": np.float64(0.25),
        "epsilon": np.array(0.5),
        "batch_size": np.int32(7),
        "loss": np.str_("squared"),
    },
}
"""Settings in other kinds of numbers than Python's own, as a sweep over arrays makes them."""


def unhooked(config, **changes):
    """Return other settings, checked without the hook of the tests, which would refuse them by their types."""
    other = copy.copy(config)
    vars(other).update(changes)
    other.__post_init__()
    return other


@each_agent
class TestSettingsOfOtherKinds:
    """Settings are kept in Python's own numbers and text, which a file can hold; those stay what they are."""

    def test_are_read_back(self, kind, tmp_path):
        agent = AGENTS[kind]()
        config = unhooked(agent.config, **NUMBERS[kind])
        for name, value in vars(config).items():
            for each in value if isinstance(value, tuple) else [value]:
                assert type(each) in (int, float, str), name
        assert config.hidden == (8,) and config.gamma == 0.5 and config.batch_size == 7
        agent = type(agent)(*agent._spaces, config)
        agent.save(tmp_path / "agent")
        twin = type(agent).load(tmp_path / "agent")
        assert twin.config == config
        assert np.array_equal(twin.act(np.ones(3)), agent.act(np.ones(3)))

    def test_whole_numbers_stay_whole(self, kind):
        """As they are printed, and as older files have them."""
        config = dataclasses.replace(AGENTS[kind]().config, gamma=0)
        assert type(config.gamma) is int and type(config.seed) is int

    def test_a_state_with_a_list_of_widths(self, kind):
        """As agents with `hidden=[8]` wrote it before."""
        agent, twin = AGENTS[kind](), AGENTS[kind]()
        state = agent.state_dict()
        twin.load_state_dict(state | {"config": state["config"] | {"hidden": [8]}})
        assert np.array_equal(twin.act(np.ones(3)), agent.act(np.ones(3)))
        with pytest.raises(ValueError, match=r"^state must have hidden \(8,\), it has \[9\]$"):
            twin.load_state_dict(state | {"config": state["config"] | {"hidden": [9]}})


@each_agent
def test_a_device_that_is_not_there(kind, tmp_path):
    agent = AGENTS[kind]()
    agent.save(tmp_path / "agent")
    absent = "cuda:7"
    for make in (
        lambda: type(agent)(*agent._spaces, agent.config, device=absent),
        lambda: type(agent).load(tmp_path / "agent", device=absent),
        lambda: type(agent)(*agent._spaces, agent.config, device="gpu"),
    ):
        with pytest.raises(ValueError, match=r"^device must be one that is here, such as 'cpu', got '(cuda:7|gpu)': "):
            make()


@each_agent
class TestPredict:
    """As stable-baselines3 asks: an array for a batch, an array for one, the state as it came, and no trace."""

    OBSERVED = np.random.default_rng(0).uniform(-1, 1, (5, 3))

    def test_against_act(self, kind):
        agent = AGENTS[kind]()
        actions, state = agent.predict(self.OBSERVED, state="kept", episode_start=np.ones(5, bool))
        assert isinstance(actions, np.ndarray) and state == "kept"
        np.testing.assert_array_equal(actions, agent.act(self.OBSERVED))
        for obs, action in zip(self.OBSERVED, actions, strict=True):
            one, nothing = agent.predict(obs)
            assert isinstance(one, np.ndarray) and one.shape == action.shape and nothing is None
            assert agent._spaces[1].contains(one.astype(agent._spaces[1].dtype))
            np.testing.assert_allclose(one, action, rtol=1e-5, atol=1e-6)  # rounding is another in a batch

    def test_noise(self, kind):
        agent = AGENTS[kind]()
        before = agent.state_dict()
        still = {agent.predict(self.OBSERVED, deterministic=True)[0].tobytes() for _ in range(5)}
        assert len(still) == 1 and agent.state_dict()["rng"] == before["rng"]
        noisy = {agent.predict(self.OBSERVED, deterministic=False)[0].tobytes() for _ in range(5)}
        assert len(noisy) > 1
        assert agent.state_dict().get("explored") == before.get("explored")

    @pytest.mark.parametrize("given", [{"a": 1}, "here", None, [[1, 2], [3]], np.zeros(4)])
    def test_refuses(self, kind, given):
        with pytest.raises((TypeError, ValueError), match=r"^obs must (be an array of|have) shape \(3,\) or \(n, 3\)"):
            AGENTS[kind]().predict(given)


class TestStates:
    """Of a DQN; those of a PreQN are in its own file."""

    @pytest.mark.parametrize("target_every", [None, 3])
    def test_goes_on(self, target_every, tmp_path):
        """Saved and loaded, to the last bit; the targets of a copy that is a few updates old as well."""
        from tests.test_dqn import draw, make, parameters

        agent = make(target_every=target_every, epsilon_steps=40)
        for k in range(7):
            agent.update(draw(seed=k))
            agent.act(np.ones(3), explore=True)
        agent.save(tmp_path / "agent")
        twin = dqn.DQN.load(tmp_path / "agent")
        assert (twin.target is twin.net) == (target_every is None) and twin.config == agent.config
        for k in range(7, 14):
            assert agent.update(draw(seed=k)) == twin.update(draw(seed=k))
            assert [agent.act(np.ones(3), explore=True) for _ in range(9)] == [
                twin.act(np.ones(3), explore=True) for _ in range(9)
            ]
        assert torch.equal(parameters(agent.net), parameters(twin.net))
        assert torch.equal(parameters(agent.target), parameters(twin.target))
        assert not torch.equal(parameters(agent.net), parameters(dqn.DQN.load(tmp_path / "agent").net))

    def test_of_other_settings(self):
        from tests.test_dqn import make

        with pytest.raises(ValueError, match=r"^state must have gamma 0\.[0-9]+, it has 0\.5"):
            make().load_state_dict(make(gamma=0.5).state_dict())

    def test_what_no_file_can_hold(self, tmp_path):
        """Said before the first step, and not when a run of hours is to go on."""

        class Numpy:
            def act(self, obs, *, explore=False):
                raise AssertionError("a step was made")

            def update(self, batch):
                return {}

            def state_dict(self):
                return {"weights": np.zeros(3)}

            def load_state_dict(self, state):
                pass

        settings = {"steps": 9, "seed": 0, "warmup": 1, "batch_size": 2, "capacity": 9, "eval_every": 9}
        with pytest.raises(TypeError, match=r"^agent\.state_dict\(\) must hold tensors, numbers and text"):
            training.learn(Numpy(), "CartPole-v1", eval_episodes=1, checkpoint=tmp_path / "run", **settings)
