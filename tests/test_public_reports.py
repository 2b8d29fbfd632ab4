"""Reports of people whose values went wrong, in public trackers, rebuilt in small: what is seen, named and remedied.

Symptom and set-up are those of the report, the code is ours. Where the run is one of the study `bestiary` its committed
log is asked, and the study's own tests do it again.
"""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import TQC
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.logger import configure
from torch import nn

from divergence_notes import diagnosis, monitor, studies
from divergence_notes.probe import Probe
from divergence_notes.studies import bestiary

REBUILT = {
    "facebookresearch/ReAgent#189: offline DQN on CartPole, the loss grows": (
        "tuning",
        "loop-offline",
        "loop-offline-wide",
    ),
    "takuseno/d3rlpy#387: offline DQN, the loss rises for ever": ("judged", "loop-offline", "loop-offline-wide"),
    "takuseno/d3rlpy#255: inputs of 1e5": ("tuning", "discrete-inputs", "discrete-normalised"),
    "tensorflow/agents#316: DQN with a discount of 1": ("tuning", "loop-no-discount", "loop"),
    "ray-project/ray#65125: the optimiser of the actor moves the critic": ("tuning", "pairs-shared-optimiser", "pairs"),
}
"""Reports that are runs of the bestiary: the half, the broken run, and the run with the remedy."""


@pytest.mark.parametrize("report", REBUILT)
def test_seen_named_and_remedied(report):
    half, broken, remedied = REBUILT[report]
    logs = studies.load("bestiary")
    log = {name: logs[(logs["half"] == half) & (logs["name"] == name)] for name in (broken, remedied)}
    found = bestiary.of(log[broken])
    assert found[0].name == bestiary.FAULTS[broken]
    assert bestiary.of(log[remedied]) == []


class Faulty(gym.Wrapper):
    """An environment whose reward or observation is not a number once."""

    def __init__(self, where):
        super().__init__(gym.make("Pendulum-v1"))
        self.where, self.count = where, 0

    def step(self, action):
        obs, reward, over, cut, told = self.env.step(action)
        self.count += 1
        if self.count == 130:
            obs, reward = (np.full_like(obs, np.nan), reward) if self.where == "observations" else (obs, np.nan)
        return obs, reward, over, cut, told


@pytest.mark.parametrize("algorithm", [SAC, TQC])
@pytest.mark.parametrize("where", ["rewards", "observations"])
def test_nan(algorithm, where):
    """DLR-RM/rl-baselines3-zoo#427: the run dies of it, within a step or two; the log has said where it came from."""
    made = {"seed": 0, "learning_starts": 50, "policy_kwargs": {"net_arch": [8]}, "device": "cpu"}
    model = algorithm("MlpPolicy", Faulty(where), **made)
    callback = monitor.watch(model, every=1000)
    try:
        model.learn(200, callback=callback)
    except ValueError as error:  # of torch, about the parameters of a normal distribution
        assert "constraint Real()" in str(error)
    found = diagnosis.diagnose(callback.history, callback.settings)
    assert found[0].name == "not-finite" and where in found[0].seen and "environment" in found[0].remedy
    assert callback.history["step"].tolist()[1] == 130


def batch(rng):
    parts = {
        name: torch.from_numpy(rng.normal(size=(32, 3)).astype(np.float32))
        for name in ("observations", "next_observations")
    }
    return parts | {
        "actions": torch.from_numpy(rng.integers(2, size=32)),
        "rewards": torch.ones(32),
        "dones": torch.zeros(32),
    }


def probed(net, rng):
    target = copy.deepcopy(net)
    watching = Probe(
        net, lambda b: b["rewards"] + 0.9 * target(b["next_observations"]).max(dim=1).values, gamma=0.9, others=[target]
    )
    return watching, watching(batch(rng), step=0)


def test_a_norm_that_keeps_no_statistics(rng):
    """pytorch/functorch#867: there is no Jacobian of one row, and the values mix the batch. Both are said."""
    watching, record = probed(
        nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.ReLU(), nn.Linear(8, 2)), rng
    )
    assert np.isnan(record["row_ratio"]) and "the kernel: ValueError: " in record["reason"]
    assert diagnosis.diagnose(watching.records)[0].name == "mixed-batch"


class Twice(nn.Module):
    """One layer, passed twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.shared, self.head = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.shared(torch.tanh(self.shared(torch.tanh(self.first(x)))))))


def test_a_layer_that_is_passed_twice(rng):
    """tfjgeorge/nngeometry#94: the kernel is that of the gradients, row by row."""
    net = Twice()
    watching, record = probed(net, rng)
    assert np.isfinite(record["row_ratio"]) and record["reason"] == ""
    kept = batch(np.random.default_rng(5))
    rows = []
    for k in range(6):
        net.zero_grad()
        net(kept["observations"][k, None])[0, kept["actions"][k]].backward()
        rows.append(torch.cat([p.grad.ravel() for p in net.parameters()]).double())
    J = torch.stack(rows).numpy()
    few = {name: part[:6] for name, part in kept.items()}
    np.testing.assert_allclose(watching.kernel(few), J @ J.T, rtol=1e-4)


def test_values_in_the_logger():
    """DLR-RM/stable-baselines3#1948: how to log Q values. One line does, and they stand beside what was earned."""
    model = DQN("MlpPolicy", "CartPole-v1", seed=0, learning_starts=50, policy_kwargs={"net_arch": [8]}, device="cpu")
    logger, seen = configure(None, []), []
    model.set_logger(logger)
    record = logger.record
    logger.record = lambda key, *given, **more: (seen.append(key), record(key, *given, **more))
    model.learn(120, callback=monitor.watch(model, every=50))
    assert {f"divergence/{name}" for name in ("max_q", "start_q", "start_return", "overestimation")} <= set(seen)


def test_losses_without_end_in_sac():
    """thu-ml/tianshou#332: SAC with losses up to 1e19. Here the target is a copy at each update."""
    env = gym.wrappers.TransformReward(gym.make("Pendulum-v1"), lambda reward: 17 + float(reward))
    made = {
        "seed": 0,
        "learning_starts": 100,
        "batch_size": 64,
        "policy_kwargs": {"net_arch": [32, 32]},
        "device": "cpu",
    }
    found = {}
    for tau in (1.0, 0.005):
        model = SAC("MlpPolicy", env, tau=tau, learning_rate=3e-3, **made)
        callback = monitor.watch(model, every=25, batch_size=64)
        model.learn(600, callback=callback)
        found[tau] = diagnosis.diagnose(callback.history, callback.settings), callback.history
    assert found[1.0][0][0].name == "no-target-network" and found[0.005][0] == []
