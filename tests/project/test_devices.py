"""Everything lands where the network is: played with fake tensors, and with real ones between CPU and meta device."""

import os
import re
import subprocess
import sys

import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from divergence_notes import ntk, preqn, replay
from tests.pages import ROOT

NETS = {
    "layers": lambda: nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)),
    "layer norm": lambda: nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 4)),
}
SPACES = {
    "discrete": (Box(-1, 1, (3,)), Discrete(4)),
    "continuous": (Box(-1, 1, (3,)), Box(-1, 1, (2,))),
}


def batch(kind, n):
    g = torch.Generator().manual_seed(0)
    action = torch.arange(n) % 4 if kind == "discrete" else torch.rand(n, 2, generator=g)
    obs, after = torch.rand(n, 3, generator=g), torch.rand(n, 3, generator=g)
    return replay.Batch(obs, action, torch.ones(n), after, torch.zeros(n, dtype=torch.bool))


def test_played():
    """In a process of its own, as a made-up device stays for good."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/played_devices.py"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) >= 60


class TestWithoutACard:
    """The same with real numbers: from device to device on the CPU, and a device that has none."""

    @pytest.mark.parametrize("kind", SPACES)
    def test_saved_and_loaded(self, kind, tmp_path):
        agent = preqn.PreQN(*SPACES[kind], preqn.PreQNConfig(hidden=(8,), held_out=2))
        agent.update(batch(kind, 9))
        agent.save(tmp_path / "agent")
        other = preqn.PreQN.load(tmp_path / "agent", device="cpu")
        assert all(torch.equal(a, b) for a, b in zip(agent.net.parameters(), other.net.parameters(), strict=True))

    @pytest.mark.parametrize("kind", SPACES)
    def test_the_device_is_no_setting(self, kind, tmp_path):
        """The same weights at the start on every device, and none written into the file."""
        agent = preqn.PreQN(*SPACES[kind], preqn.PreQNConfig(), device=torch.device("cpu"))
        agent.save(tmp_path / "agent")
        assert "device" not in torch.load(tmp_path / "agent", weights_only=True)["config"]

    @pytest.mark.parametrize("name", NETS)
    def test_the_meta_device_is_refused(self, name):
        net, x = NETS[name]().to("meta"), torch.zeros(5, 3, device="meta")
        for look in (ntk.gram, ntk.per_sample_gradients, ntk.linearize):
            with pytest.raises(ValueError, match=r"^net must hold numbers, '.*' is on the meta device"):
                look(net, x, outputs=0)
        with pytest.raises(ValueError, match=r"^net must hold numbers"):
            ntk.hessian(net, x[0], outputs=0)

    def test_two_devices_are_refused(self):
        net = NETS["layers"]()
        net[2].to("meta")
        with pytest.raises(ValueError, match=r"^net must be on one device, '2.weight' is on meta and others on cpu"):
            ntk.gram(net, torch.zeros(5, 3), outputs=0)
