"""A record of the monitor for the default policy on images: one look at a batch, in a run that has begun.

python -m benchmarks.record time
python -m benchmarks.record memory
"""

import json
import sys

import gymnasium
import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common import buffers

from benchmarks import measure
from divergence_notes import adapters, probe

OURS, ROWS = "divergence_notes", "the kernel by torch.func"
CASE = "CnnPolicy, 128 transitions"
N = 128
SIZE = (4, 84, 84)
REPEATS = 9


class Noise(gymnasium.Env):
    """The spaces of an Atari game in four frames; nothing is played."""

    action_space = gymnasium.spaces.Discrete(6)

    def __init__(self, size=SIZE):
        self.observation_space = gymnasium.spaces.Box(0, 255, size, np.uint8)


def model(size=SIZE):
    """Return a DQN with the default policy on images."""
    return DQN("CnnPolicy", Noise(size), buffer_size=1, learning_starts=0, seed=0, device="cpu")


def batch(learner, n=N):
    """Return transitions of noise, as its replay buffer gives them."""
    rng, size = np.random.default_rng(1), learner.observation_space.shape
    images = torch.from_numpy(rng.integers(0, 256, (2, n, *size), dtype=np.uint8)).float()
    actions = torch.from_numpy(rng.integers(0, 6, (n, 1)))
    rewards = torch.from_numpy(rng.standard_normal((n, 1))).float()
    return buffers.ReplayBufferSamples(images[0], actions, images[1], torch.zeros(n, 1), rewards)


def watching(learner):
    """Return a probe in it."""
    return probe.Probe.of(adapters.asked(learner), gamma=0.99, r_max=1.0)


def record(looking, given):
    """Make a record, and raise if something was not measured."""
    looking.record(len(looking.records), draw=lambda: given, known=looking.known, told=lambda: None)
    if looking.records[-1]["reason"]:
        raise RuntimeError(looking.records[-1]["reason"])


def by_rows(learner, given):
    """Return the kernel alone, J J^T with J from vmap(grad)."""
    net = learner.q_net
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def value(p, row, action):
        return torch.func.functional_call(net, p, row[None])[0].gather(0, action)[0]

    slopes = torch.func.vmap(torch.func.grad(value), in_dims=(None, 0, 0))(
        parameters, given.observations, given.actions
    )
    J = torch.cat([slope.reshape(len(given.actions), -1) for slope in slopes.values()], dim=1)
    return J @ J.T


def timed(size=SIZE, n=N, repeats=REPEATS):
    """Return the rows of time."""
    learner = model(size)
    given, looking = batch(learner, n), watching(learner)
    found = {OURS: lambda: record(looking, given), ROWS: lambda: by_rows(learner, given)}
    for f in found.values():
        f()
    seconds, _ = measure.in_turns(found, dict.fromkeys(found, repeats))
    K = torch.from_numpy(looking.kernel(given)).float()
    gap = float((K - by_rows(learner, given)).abs().max() / K.abs().max())
    more = {OURS: {}, ROWS: {"difference": gap}}
    return [measure.row("record", name, CASE, seconds[name], **more[name]) for name in found]


def memory(name, size=SIZE, n=N):
    """Return the peak memory of one method, in a process of its own."""
    learner = model(size)
    given, looking = batch(learner, n), watching(learner)
    small = buffers.ReplayBufferSamples(*(part[:4] for part in given[:5]))
    found = {OURS: lambda part: record(looking, part), ROWS: lambda part: by_rows(learner, part)}
    found[name](small)
    return [{"what": "record", "method": name, "case": CASE, "mb": measure.peak_mb(lambda: found[name](given))}]


if __name__ == "__main__":
    measure.one_thread()
    torch.set_num_threads(1)
    what, *name = sys.argv[1:]
    print(json.dumps(memory(*name) if what == "memory" else timed()))
