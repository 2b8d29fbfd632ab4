"""One update of a PreQN beside one of TD3, what ours is made of, and three ways to solve with its kernel."""

import copy
import itertools
import json
import statistics
from functools import partial

import gymnasium
import numpy as np
import torch
from stable_baselines3 import TD3

from benchmarks import measure
from divergence_notes import ntk, preqn, replay, training
from divergence_notes.studies.protocol import mujoco_in_the_log

OURS, PEER = "divergence_notes", "stable-baselines3, TD3"
ENV = "HalfCheetah-v5"
WIDTHS = ((256, 256), (400, 300))
TRANSITIONS = 3_000
"""Random steps in each replay buffer."""
BLOCK = 10
"""Updates that are timed together: TD3 moves its policy at every second one, ours keeps a copy at every tenth."""
REPEATS = 31


class Agents:
    """Ours and theirs with the same widths and as many random transitions, ready to learn."""

    def __init__(self, hidden, transitions=TRANSITIONS, batch_size=256):
        self.batch_size = batch_size
        with mujoco_in_the_log(), gymnasium.make(ENV) as env:
            spaces = env.observation_space, env.action_space
            self.ours = {
                name: preqn.PreQN(
                    *spaces,
                    preqn.PreQNConfig(
                        hidden=hidden,
                        policy_hidden=hidden,
                        activation=activation,
                        batch_size=batch_size,
                        policy_every=policy_every,
                    ),
                )
                for name, activation, policy_every in (
                    ("relu", "relu", 1),
                    ("sin", "sin", 1),
                    ("relu, slow policy", "relu", 2),
                    ("sin, slow policy", "sin", 2),
                )
            }
            self.buffer = replay.ReplayBuffer(*spaces, capacity=transitions)
            walk = training.transitions(env, lambda obs: env.action_space.sample(), seed=0)
            for transition in itertools.islice(walk, transitions):
                self.buffer.add(*transition)
            self.theirs = TD3(
                "MlpPolicy",
                env,
                seed=0,
                learning_starts=transitions,
                buffer_size=transitions,
                policy_kwargs={"net_arch": list(hidden)},
                device="cpu",
            )
            self.theirs.learn(transitions)  # random steps only
        self.rng = np.random.default_rng(0)
        self.trials = {name: [] for name in self.ours}

    def draw(self):
        """Return a minibatch for ours, with what it only watches."""
        config = self.ours["relu"].config
        return self.buffer.sample(config.batch_size + config.held_out, rng=self.rng)

    def update_ours(self, name, times=1):
        """Update ours, and raise if it diverged: going back to a good state is no update."""
        for _ in range(times):
            said = self.ours[name].update(self.draw())
            if "accepted" not in said:
                raise RuntimeError(f"ours diverged: {said}")
            self.trials[name].append(1 + said["backtracks"])

    def update_theirs(self, times=1):
        """Update theirs, one gradient step a call, as after each step of an environment."""
        for _ in range(times):
            self.theirs.train(gradient_steps=1, batch_size=self.batch_size)


@torch.no_grad()
def targets(agent, batch):
    """Return what the values of a minibatch should be."""
    ahead = torch.cat([batch.next_obs, torch.tanh(agent.policy(batch.next_obs))], dim=1)
    return batch.reward + agent.config.gamma * ~batch.terminated * agent.net(ahead)[:, 0]


def linear(agent, batch):
    """Return the inputs of Q for a minibatch, Q to first order there, and the TD errors of what is learned from."""
    x = torch.cat([batch.obs, batch.action], dim=1)  # the actions are in [-1, 1] as they are
    line = ntk.linearize(agent.net, x, check=False)
    return x, line, (targets(agent, batch) - line.values)[: agent.config.batch_size]


LABELS = {
    "relu": "{}",
    "sin": "{}, sine",
    "relu, slow policy": "{}, policy every second",
    "sin, slow policy": "{}, sine, policy every second",
}
"""What each of our agents is called in the table, after the widths."""


def updates(agents, case, repeats):
    """Return the rows of one update, drawing its minibatch included; TD3 has rectifiers beside the sine too."""
    found = {name: partial(agents.update_ours, name, BLOCK) for name in agents.ours}
    found[PEER] = lambda: agents.update_theirs(BLOCK)
    for f in found.values():
        f()
    agents.trials = {name: [] for name in agents.trials}
    seconds, _ = measure.in_turns(found, dict.fromkeys(found, repeats))
    seconds = {name: [each / BLOCK for each in laps] for name, laps in seconds.items()}
    rows = []
    for name, label in LABELS.items():
        trials = statistics.mean(agents.trials[name])
        rows += [
            measure.row("update", OURS, label.format(case), seconds[name], trials=trials),
            measure.row("update", PEER, label.format(case), seconds[PEER]),
        ]
    return rows


def parts(agents, case, repeats):
    """Return the rows of what an update with rectifiers is made of, each part alone on the same minibatch."""
    agent, batch = agents.ours["relu"], agents.draw()
    config, n = agent.config, agents.batch_size
    search = {name: getattr(config, name) for name in ("alpha", "eta", "shrink", "max_backtracks")}
    x, line, delta = linear(agent, batch)
    head = line.head(n)
    K = head.gram(tile=preqn.TILE)
    z = preqn.solve(K, delta, solver=config.solver, jitter=config.jitter)
    slopes = head.pull_back(z)
    moved = [copy.deepcopy(agent.net) for _ in range(1 + repeats)]  # a line search moves its network
    found = {
        "replay.sample": agents.draw,
        "ntk.linearize": lambda: ntk.linearize(agent.net, x, check=False),
        "targets": lambda: targets(agent, batch),
        "gram": lambda: head.gram(tile=preqn.TILE),
        "preqn.solve": lambda: preqn.solve(K, delta, solver=config.solver, jitter=config.jitter),
        "pull_back": lambda: head.pull_back(z),
        "preqn.line_search": lambda: preqn.line_search(moved.pop(), x, line.values, delta, slopes, **search),
        "policy": lambda: agent._climb(batch.obs[:n]),
    }
    for f in found.values():
        f()
    seconds, first = measure.in_turns(found, dict.fromkeys(found, repeats))
    trials = {"preqn.line_search": {"trials": 1 + first["preqn.line_search"].backtracks}}
    return [
        measure.row("part of an update", name, case, laps, **trials.get(name, {})) for name, laps in seconds.items()
    ]


def gelsd(K, delta):
    """Return the minimum-norm solution by LAPACK's driver for it, in float64."""
    return torch.linalg.lstsq(K.double(), delta.double()[:, None], driver="gelsd").solution[:, 0]


def solvers(agents, case, repeats):
    """Return the rows of K z = delta on one minibatch, drawn with replacement."""
    agent = agents.ours["relu"]
    _, line, delta = linear(agent, agents.draw())
    K = line.head(agents.batch_size).gram(tile=preqn.TILE)
    jitter = agent.config.jitter
    found = {
        OURS: lambda: preqn.solve(K, delta, solver="cholesky", jitter=jitter),
        "minimum norm, eigh": lambda: preqn.solve(K, delta, solver="minimum-norm", jitter=0),
        "torch.linalg.lstsq, gelsd": lambda: gelsd(K, delta),
    }
    for f in found.values():
        f()
    seconds, first = measure.in_turns(found, dict.fromkeys(found, repeats))
    return [
        measure.row("solve", name, case, laps, residual=residual(K, first[name], delta))
        for name, laps in seconds.items()
    ]


def residual(K, z, delta):
    """Return |K z - delta| / |delta|, in float64."""
    gap = K.double() @ z.double() - delta.double()
    return float(gap.norm() / delta.double().norm())


def measured(agents, case, repeats):
    """Return all rows at one width."""
    return updates(agents, case, repeats) + parts(agents, case, repeats) + solvers(agents, case, repeats)


if __name__ == "__main__":
    measure.one_thread()
    torch.set_num_threads(1)
    print(json.dumps([row for k in WIDTHS for row in measured(Agents(k), "-".join(map(str, k)), REPEATS)]))
