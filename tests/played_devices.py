"""Played by `test_devices` in a process of its own: everything lands where the network is, on a card that is not there.

Torch's fake tensors have devices, and no numbers. The device is one that torch lets Python make up, once a process.
"""

from contextlib import contextmanager

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN as Baseline
from stable_baselines3 import TD3
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from divergence_notes import _passes, dqn, monitor, networks, ntk, preqn, replay

_setup_privateuseone_for_python_backend("card")
torch.card.get_amp_supported_dtype = lambda: [torch.float16]
CARD = torch.device("card", 0)
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer")  # torch, of copies of fake tensors
SPACES = {
    "discrete": (gymnasium.spaces.Box(-1, 1, (3,)), gymnasium.spaces.Discrete(4)),
    "continuous": (gymnasium.spaces.Box(-1, 1, (3,)), gymnasium.spaces.Box(-1, 1, (2,))),
}


class Answering(TorchDispatchMode):
    """A card that answers every question for a number, a truth or a count with nothing to see."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            return {torch.bool: False, torch.int64: 0}.get(args[0].dtype, 1.0)
        if func is torch.ops.aten.equal.default:
            return False
        if func in (torch.ops.aten.nonzero.default,):
            return torch.empty(0, args[0].ndim, dtype=torch.int64, device=args[0].device)
        return func(*args, **(kwargs or {}))


def carried(net, change, recurse=True):
    """Move a network whose parameters are fake; torch would swap them, and cannot."""
    for module in net.modules():
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = nn.Parameter(change(p.detach()), p.requires_grad)
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = change(b)
    return net


@contextmanager
def played():
    """Play a card: its tensors are fake, what it is asked is answered, and numpy gets zeros of the right shape."""
    with FakeTensorMode(allow_non_fake_inputs=True), Answering(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeTensor, "numpy", lambda t: np.zeros(tuple(t.shape), dtype=int), raising=False)
        patch.setattr(FakeTensor, "tolist", lambda t: np.zeros(tuple(t.shape), dtype=int).tolist(), raising=False)
        patch.setattr(nn.Module, "_apply", carried)
        yield


@pytest.fixture
def card():
    with played():
        yield


def everything(found):
    """Return all tensors in a result."""
    if isinstance(found, torch.Tensor):
        return [found]
    if isinstance(found, (list, tuple)):
        return [t for part in found for t in everything(part)]
    if hasattr(found, "__dict__"):
        return [t for part in vars(found).values() for t in everything(part)]
    return []


NETS = {
    "layers": lambda: nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)),
    "in place": lambda: nn.Sequential(nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Linear(8, 4)),
    "sine": lambda: nn.Sequential(nn.Linear(3, 8), networks.Sine(), nn.Linear(8, 4)),
    "layer norm": lambda: nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 4)),
    "group norm": lambda: nn.Sequential(nn.Linear(3, 8), nn.GroupNorm(2, 8), nn.Linear(8, 4)),
    "frozen": lambda: nn.Sequential(nn.Linear(3, 8).requires_grad_(False), nn.ReLU(), nn.Linear(8, 4)),
}
nets = pytest.mark.parametrize("name", NETS)


class TestTheCard:
    """What the tests below stand on: a card that mixes nothing."""

    def test_two_devices_do_not_mix(self, card):
        with pytest.raises(RuntimeError, match="device"):
            torch.empty(8, 3, device=CARD).gather(1, torch.zeros(8, 1, dtype=torch.int64))

    def test_it_has_no_numbers_to_look_at(self, card):
        assert torch.empty(3, device=CARD).cpu().device.type == "cpu"
        assert isinstance(torch.empty(3, device=CARD), FakeTensor)


@nets
@pytest.mark.parametrize("n", [5, 30])
class TestKernels:
    """`gram`, `linearize`, `per_sample_gradients` and `hessian`, checks and all."""

    @pytest.fixture
    def case(self, name, n, card):
        return NETS[name]().to(CARD), torch.randn(n, 3, device=CARD)

    def test_gram(self, case, n):
        net, x = case
        assert ntk.gram(net, x, outputs=1).device == CARD
        assert ntk.gram(net, x, torch.randn(4, 3, device=CARD), outputs=2, tile=3).shape == (n, 4)

    def test_linearize(self, case, n):
        net, x = case
        linear = ntk.linearize(net, x, outputs=0)
        found = everything([linear.values, linear.gram(), linear.pull_back(torch.ones(n, device=CARD))])
        found += everything(linear.head(1).gram())
        assert {t.device for t in found} == {CARD} and len(found) >= 5

    def test_per_sample_gradients(self, case, n):
        net, x = case
        J = ntk.per_sample_gradients(net, x, outputs=3)
        assert J.device == CARD and J.shape == (n, sum(p.numel() for p in net.parameters() if p.requires_grad))

    def test_direction(self, case, n):
        net, x = case
        linear = ntk.linearize(net, x, outputs=0)
        for solver in preqn.SOLVERS:
            way = preqn.direction(linear, torch.ones(n, device=CARD), solver=solver)
            assert {t.device for t in everything([way.slopes, way.z])} == {CARD}


@pytest.mark.parametrize("name", ["layers", "sine", "layer norm"])
def test_hessian(name, card):
    net = NETS[name]().to(CARD)
    p = sum(p.numel() for p in net.parameters())
    with pytest.MonkeyPatch.context() as patch:
        # torch keeps the number of a tensor with one entry, and would move it to a card that is not there
        patch.setattr(
            _passes, "chosen", lambda name, outputs, out, n: torch.zeros(n, dtype=torch.int64, device=out.device)
        )
        H = ntk.hessian(net, torch.randn(3, device=CARD), outputs=1)
    assert H.device == CARD and H.shape == (p, p)


def batch(kind, n, device="cpu"):
    action = torch.zeros(n, dtype=torch.int64) if kind == "discrete" else torch.zeros(n, 2)
    made = replay.Batch(torch.zeros(n, 3), action, torch.zeros(n), torch.zeros(n, 3), torch.zeros(n, dtype=torch.bool))
    return made.to(device)


def optimizer(agent):
    return [t for state in agent._optimizer.state.values() for t in state.values() if torch.is_tensor(t) and t.ndim]


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("given", ["cpu", CARD])
@pytest.mark.parametrize(
    "changes",
    [{}, {"solver": "none", "optimizer": "adam", "eta": -1, "target_rate": 0.5}, {"initialisation": "glorot"}],
    ids=["as it is", "controls", "glorot"],
)
def test_preqn(kind, given, changes, card):
    """Networks, what is remembered, and each update, of a batch from anywhere; actions come back."""
    config = preqn.PreQNConfig(hidden=(8,), held_out=2, **changes)
    agent = preqn.PreQN(*SPACES[kind], config, device=CARD)
    for _ in range(2):  # the first is looked at more closely, and takes another way
        agent.update(batch(kind, 9, given))
    agent.load_state_dict(agent.state_dict())
    held = [each for part in agent._parts().values() for each in preqn._tensors(part)]
    found = [*agent.net.parameters(), *held, *(each for kept in agent._good[1].values() for each in kept)]
    assert {t.device for t in found if t.ndim} == {CARD}
    assert isinstance(agent.act(np.zeros((5, 3))), np.ndarray)
    assert np.ndim(agent.act(np.zeros(3), explore=True)) == (kind == "continuous")


@pytest.mark.parametrize("given", ["cpu", CARD])
@pytest.mark.parametrize("target_every", [1, None])
def test_dqn(given, target_every, card):
    agent = dqn.DQN(*SPACES["discrete"], dqn.DQNConfig(hidden=(8,), target_every=target_every), device=CARD)
    agent.update(batch("discrete", 9, given))
    found = [*agent.net.parameters(), *agent.target.parameters(), *optimizer(agent)]
    assert {t.device for t in found} == {CARD}
    assert agent.act(np.zeros((5, 3))).shape == (5,)
    assert isinstance(agent.act(np.zeros(3), explore=True), int)


@pytest.mark.parametrize("kind", ["dqn", "td3"])
@pytest.mark.parametrize("given", ["cpu", CARD])
def test_monitor(kind, given):
    """A fixed batch is brought to the model, and all numbers of a record are had on its device."""
    algorithm, env = {"dqn": (Baseline, "CartPole-v1"), "td3": (TD3, "Pendulum-v1")}[kind]
    model = algorithm("MlpPolicy", env, device="cpu", policy_kwargs={"net_arch": [8]}, buffer_size=100)
    d = model.observation_space.shape[0]
    with played():
        fresh = type(model.policy)(
            model.observation_space, model.action_space, model.lr_schedule, **model.policy_kwargs
        ).to(CARD)
        model.policy, model.device = fresh, CARD
        model._create_aliases()
        action = torch.zeros(6, 1, dtype=torch.int64) if kind == "dqn" else torch.zeros(6, 1)
        parts = [torch.zeros(6, d), action, torch.zeros(6, d), torch.zeros(6, 1), torch.zeros(6, 1)]
        samples = monitor.ReplayBufferSamples(*(part.to(given) for part in parts))
        callback = monitor.DivergenceCallback(batch=samples, r_max=1.0)
        callback.init_callback(model)
        moved = callback._batch()
        assert {t.device for t in everything(list(moved))} == {CARD}
        callback._record()
    (record,) = callback.history.to_dict("records")
    assert record["reason"] == "" and np.isfinite([record[name] for name in ("certified", "td_error", "max_q")]).all()
