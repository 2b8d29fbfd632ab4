"""What an update of Q does to the TD errors outside its minibatch, and the best that it could do there.

A cosine between a change and the errors outside says little by itself: it is low where an update moves the others
wrongly, and low where nothing in a minibatch tells what the errors elsewhere are. So the same quantity is measured for
the update, for the best of many guesses, and for a guess that knows nothing.

Measured, decided before the runs. At some updates of a run, with a minibatch B of n transitions, and m <= 512 others
out of the memory, none of which is in B and none of which is there twice: the fall of the squared TD error outside, in
units of that error before, ``1 - |delta - c|^2 / |delta|^2`` for a change c of the values there. 1 is all of it, 0
nothing, below 0 the errors grow. Targets are held fixed, but for one column. To first order a step is a number a times
a direction d, and its fall is ``2 a along - a^2 size`` with ``along = d . delta / |delta|^2`` and
``size = |d|^2 / |delta|^2``: positive for a short step if `along` is, and negative again from ``2 along / size`` on. At
the best length it is the squared cosine, the column `best` (0 where `along` is not positive).

Ways, one row for each at each moment:

- ``update``: what the agent did, d = J (theta' - theta), a = 1; ``inside``: the same on the minibatch.
- ``jitter-...``: d = W delta_B with W = K_OB (K_BB + jitter kappa I)^-1, the step that undoes the kernel of the agent's
  own network, for seven jitters; a is what PreQN's line search accepts from 0.1 on, on a copy of the network.
- ``nearest``: the mean error of the nearest 1 to 32 or all transitions of the batch, the best of seven numbers of them;
  ``smooth``: kernel ridge regression with Gaussians of four widths and five jitters, the best of the twenty.
- ``ceiling``: the best of all these 34 guesses. Each is chosen with hindsight, by `best` on the very errors outside. No
  guess that was not tried can be excluded; so this is the most that we could find, not the most that there is.
- ``ceiling-4n``: the ceiling of four times as many transitions in place of B, none of them among the others. Where it
  is higher, the errors outside are no noise: a minibatch is too small to tell them.

Column `errors`: ``own``; ``signs``, the null: each error of the batch times a sign by a coin, so that it knows nothing;
``shuffled``: the errors of the batch dealt out anew, so that it knows their mean and nothing else. Means over eight
draws each; a ceiling is chosen anew for each draw, so that its null shows what hindsight alone finds.

Columns `first`, `finite` and `moved`, where there is a network after the step: the fall to first order; with the real
change of the values; and with the targets computed anew by the networks after the step, the policy as before.

Agents, named with their environment. ``pendulum-preqn-sin``, ``-tanh``, ``-relu``: PreQN as in the study `swing_up`,
with its seeds; measuring leaves their runs as they are. ``pendulum-plain``: the same network of sines with plain steps
of size 0.001, which does not learn the task. ``pendulum-ddpg``: of stable-baselines3, as there; Q is its critic, with
targets from its target networks. ``cheetah-preqn-sin``, ``cheetah-ddpg``: HalfCheetah-v5 as in the study `ablation`.
A run has 3,000 updates; that, and three seeds, is what keeps the study at a quarter of an hour of one core. Moments:
after 100, 300, 1,000 and 3,000 updates, each the mean over that update and the tenth, twentieth and thirtieth before
it. The others are, for our agents, what the 64 updates before drew only to watch, and the four times as many are out of
the minibatches before; for DDPG both are drawn from its memory. `td_error` is the root mean square of the errors
outside, `return` that of the next evaluation.
"""

import copy
import dataclasses
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg

from divergence_notes._extras import needs

with needs("studies"):
    import torch
    from stable_baselines3 import DDPG
    from torch import nn

    from divergence_notes import ntk, preqn, replay, training
    from divergence_notes.studies import ablation, alignment, protocol

if TYPE_CHECKING:
    import pandas

PLAIN = {"solver": "none", "eta": -1, "alpha": 0.001}
CASES = {
    "pendulum-preqn-sin": ("Pendulum-v1", {"activation": "sin"}),
    "pendulum-preqn-tanh": ("Pendulum-v1", {"activation": "tanh"}),
    "pendulum-preqn-relu": ("Pendulum-v1", {"activation": "relu"}),
    "pendulum-plain": ("Pendulum-v1", PLAIN),
    "pendulum-ddpg": ("Pendulum-v1", None),
    "cheetah-preqn-sin": ("HalfCheetah-v5", {"activation": "sin"}),
    "cheetah-ddpg": ("HalfCheetah-v5", None),
}
"""The environment of each agent, and what it changes in the settings; None is DDPG."""
PARAMETERS = {"seed": tuple(range(3)), "agent": tuple(CASES)}
SECONDS = 33
FLOAT_FORMAT = "%.5g"
UPDATES = (100, 300, 1_000, 3_000)
BEFORE = (30, 20, 10, 0)
"""Each moment is the mean over these many updates before it."""
ALPHA, ETA = 0.1, 0.97
JITTERS = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
NEIGHBOURS = (1, 2, 4, 8, 16, 32)
WIDTHS, RIDGES = (0.25, 0.5, 1.0, 2.0), (1e-6, 1e-4, 1e-2, 1e-1, 1.0)
OTHERS, TIMES, DRAWS = 512, 4, 8
WATCHED = 64
"""Updates whose held out transitions are the others of our agents."""


def run(*, seed: int, agent: str, updates: Iterable[int] = UPDATES) -> "pandas.DataFrame":
    """Train one agent and return what its updates do.

    Parameters
    ----------
    seed : int
        Of everything random.
    agent : str
        As the module's docstring says.
    updates : iterable of int
        The moments, if not as in the study; the run ends with the last.

    Returns
    -------
    DataFrame
        Columns `updates`, `way`, `errors`, `along`, `size`, `best`, `a`, `first`, `finite`, `moved`, `others` (m),
        `td_error` and `return`.
    """
    environment, changes = CASES[agent]
    config, shared = ablation.BASES[environment]
    updates = sorted(updates)
    due = {update - before for update in updates for before in BEFORE if update > before}
    evaluation = {key: shared[key] for key in ("eval_every", "eval_episodes")} | {"seed": seed}
    if changes is None:
        watch = Baseline(due=due, warmup=config.warmup, seed=seed)
        curve = protocol.baseline_curve(
            DDPG,
            environment,
            steps=config.warmup + updates[-1],
            hidden=config.hidden,
            warmup=config.warmup,
            batch_size=config.batch_size,
            noise=config.noise,
            callbacks=(watch,),
            replay_buffer_class=alignment.RememberingBuffer,
            **evaluation,
        )
        rows = watch.rows
    else:
        config = dataclasses.replace(config, **changes, seed=seed)
        with protocol.mujoco_in_the_log():
            ours = Watched(*training.spaces(environment), config, due=due)
        sizes = {"warmup": config.warmup, "batch_size": config.batch_size + config.held_out}
        sizes |= {"capacity": config.capacity, "update_every": config.update_every, "bound": config.bound}
        steps = config.warmup + updates[-1] - 1  # the last random step has the first update
        with protocol.mujoco_in_the_log():
            curve = training.learn(ours, environment, steps=steps, **sizes, **evaluation).curve
        rows = ours.rows
    import pandas

    found = pandas.DataFrame(rows)
    found["updates"] = [next(update for update in updates if update >= each) for each in found["updates"]]
    table = found.groupby(["updates", "way", "errors"], as_index=False, sort=False).mean()
    table["step"] = table["updates"] + config.warmup - (changes is not None)
    return pandas.merge_asof(table, curve[["step", "return"]], on="step", direction="forward").drop(columns="step")


def fall(error: np.ndarray, change: np.ndarray) -> float:
    """Return by what part the squared error falls if the values change and their targets do not.

    Parameters
    ----------
    error, change : ndarray of shape (m,)
        TD errors before, not all 0, and changes of the values.

    Returns
    -------
    float
        At most 1; negative where the errors grow.
    """
    return float(1 - np.square(error - change).sum() / np.square(error).sum())


def score(error: np.ndarray, direction: np.ndarray) -> dict[str, np.number | np.ndarray]:
    """Return what the fall is made of, to first order, for one direction or for many.

    Parameters
    ----------
    error : ndarray of shape (m,)
        TD errors, not all 0.
    direction : ndarray of shape (m,) or (m, k)
        Changes of the values for a whole step.

    Returns
    -------
    dict
        along, size, best : of the shape () or (k,), as the module's docstring says. A step of length a lets the squared
        error fall by ``2 a along - a^2 size``, at the best length by ``best``.
    """
    whole = np.square(error).sum()
    along, size = error @ direction / whole, np.square(direction).sum(axis=0) / whole
    best = np.divide(np.maximum(along, 0) ** 2, size, out=np.zeros_like(size), where=size > 0)
    return {"along": along, "size": size, "best": best[()]}


def guesses(kernel: np.ndarray, x: np.ndarray, errors: np.ndarray) -> dict[str, np.ndarray]:
    """Return many guesses of the errors at other transitions from the errors of some.

    Parameters
    ----------
    kernel : ndarray of shape (n + m, n)
        Of the network, between all inputs and the first n.
    x : ndarray of shape (n + m, d)
        Inputs: the n known, then the m others.
    errors : ndarray of shape (n, k)
        The known errors, k versions of them. Each guess is linear in them.

    Returns
    -------
    dict
        An array of shape (m, k) for each way.
    """
    from scipy.spatial.distance import cdist

    n = len(errors)
    own, across = kernel[:n], kernel[n:]
    kappa, eye, found = np.diag(own).mean(), np.eye(n), {}
    for jitter in JITTERS:
        found[f"jitter-{jitter:g}"] = across @ scipy.linalg.solve(own + jitter * kappa * eye, errors, assume_a="pos")
    spread = x[:n].std(axis=0)
    x = x / np.where(spread > 0, spread, 1)
    far, near = cdist(x[n:], x[:n]), cdist(x[:n], x[:n])
    order = np.argsort(far, axis=1, kind="stable")
    for k in (*(k for k in NEIGHBOURS if k < n), n):
        found[f"nearest-{k}"] = errors[order[:, :k]].mean(axis=1)
    for width in WIDTHS:
        scale = width * np.median(near[near > 0])
        bumps, there = (np.exp(-np.square(distance / scale) / 2) for distance in (near, far))
        for ridge in RIDGES:
            found[f"smooth-{width:g}-{ridge:g}"] = there @ scipy.linalg.solve(
                bumps + ridge * eye, errors, assume_a="pos"
            )
    return found


def judged(kernel: np.ndarray, x: np.ndarray, error: np.ndarray, *, n: int, rng: np.random.Generator) -> list[dict]:
    """Return the scores of all guesses, of the best of them, and of the same from errors that know nothing.

    Parameters
    ----------
    kernel, x
        As in `guesses`.
    error : ndarray of shape (n + m,)
        TD errors: the n known, then the m others.
    n : int
        How many are known.
    rng : numpy.random.Generator
        Of the signs and of the shuffling.

    Returns
    -------
    list of dict
        way, errors, and the entries of `score`; for each jitter and for the ceiling also "signs" and "shuffled".
    """
    known, others = error[:n], error[n:]
    _, first, again = np.unique(x[:n], axis=0, return_index=True, return_inverse=True)
    signs = known[:, None] * rng.choice([-1.0, 1.0], size=(len(first), DRAWS))[again]
    shuffled = rng.permuted(np.tile(known[first][:, None], DRAWS), axis=0)[again]  # a transition drawn twice has one
    found = guesses(kernel, x, np.column_stack([known, signs, shuffled]))
    names = list(found)
    scores = [score(others, each) for each in found.values()]
    table = {key: np.stack([each[key] for each in scores]) for key in ("along", "size", "best")}  # (34, 1 + 2 DRAWS)
    columns = {"own": slice(0, 1), "signs": slice(1, 1 + DRAWS), "shuffled": slice(1 + DRAWS, None)}
    groups = {name: [name] for name in names if name.startswith("jitter")}
    groups |= {kind: [name for name in names if name.startswith(kind)] for kind in ("nearest", "smooth")}
    groups["ceiling"] = names
    rows = []
    for way, members in groups.items():
        inside = {key: each[[names.index(name) for name in members]] for key, each in table.items()}
        chosen = inside["best"].argmax(axis=0)[None]
        picked = {key: np.take_along_axis(each, chosen, axis=0)[0] for key, each in inside.items()}
        for errors, which in columns.items():
            if errors == "own" or way == "ceiling" or way.startswith("jitter"):
                rows.append({"way": way, "errors": errors} | {key: v[which].mean() for key, v in picked.items()})
    return rows


def measure(
    net: nn.Module,
    after: nn.Module,
    x: torch.Tensor,
    error: np.ndarray,
    moved: np.ndarray,
    *,
    sizes: tuple[int, int],
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Return what an update did outside its batch, and what else could have been done.

    Parameters
    ----------
    net, after : torch.nn.Module
        Q before and after the update, with one output, in float64; left as they are.
    x : tensor of shape (n + m + l, d)
        The batch, the others, and more transitions.
    error, moved : ndarray of shape (n + m + l,)
        TD errors before the update, and after it with the targets after it.
    sizes : tuple of int
        n and m.
    rng : numpy.random.Generator
        As in `judged`.

    Returns
    -------
    list of dict
        The rows of a moment, without its number.
    """
    n, m = sizes
    batch, others = slice(0, n), slice(n, n + m)
    kernel = ntk.gram(net, x).numpy()
    shift = [(q - p).detach() for p, q in zip(net.parameters(), after.parameters(), strict=True)]
    linear = along_parameters(net, x[: n + m], shift)
    with torch.no_grad():
        values = net(x)[:, 0]
        change = (after(x)[:, 0] - values).numpy()
    rows = []
    for way, where in (("update", others), ("inside", batch)):
        told, was = score(error[where], linear[where]), error[where]
        told |= {"a": 1.0, "first": 2 * told["along"] - told["size"]}
        told |= {"finite": fall(was, change[where]), "moved": fall(was, was - moved[where])}
        rows.append({"way": way, "errors": "own"} | told)
    known = judged(kernel[: n + m, :n], x[: n + m].numpy(), error[: n + m], n=n, rng=rng)
    seen = ntk.linearize(net, x[:n])
    wanted = torch.as_tensor(error[:n])
    for row in known:
        if row["errors"] == "own" and row["way"].startswith("jitter"):
            way = preqn.direction(seen, wanted, jitter=float(row["way"].partition("-")[2]))
            trial, search = copy.deepcopy(net), {"eta": ETA, "shrink": 0.5, "max_backtracks": 10}
            step = preqn.line_search(trial, x[: n + m], values[: n + m], wanted, way.slopes, alpha=ALPHA, **search)
            row |= {"a": step.alpha, "first": 2 * step.alpha * row["along"] - step.alpha**2 * row["size"]}
            row |= {"finite": fall(error[others], step.change.numpy()[others])}
    order = np.r_[0:n, n + m : len(x), n : n + m]
    more = judged(kernel[order][:, order[:-m]], x.numpy()[order], error[order], n=len(x) - m, rng=rng)
    rows += known + [row | {"way": "ceiling-4n"} for row in more if row["way"] == "ceiling"]
    size = float(np.sqrt(np.square(error[others]).mean()))
    return [row | {"others": m, "td_error": size} for row in rows]


def along_parameters(net: nn.Module, x: torch.Tensor, shift: list[torch.Tensor]) -> np.ndarray:
    """Return J times a shift of the parameters, without J: what the values do to first order.

    Parameters
    ----------
    net : torch.nn.Module
        With one output.
    x : tensor of shape (k, d)
        Inputs.
    shift : list of tensors
        One for each parameter.

    Returns
    -------
    ndarray of shape (k,)
        In the precision of the network.
    """
    weights = torch.zeros(len(x), dtype=x.dtype, requires_grad=True)
    pulled = torch.autograd.grad(net(x)[:, 0] @ weights, list(net.parameters()), create_graph=True)  # J^T w
    inner = torch.stack([(slope * part).sum() for slope, part in zip(pulled, shift, strict=True)]).sum()
    return torch.autograd.grad(inner, weights)[0].numpy()


def distinct(x: torch.Tensor, *taken: torch.Tensor, most: int) -> list[int]:
    """Return which rows to keep so that each is there once and none is in what is taken.

    Parameters
    ----------
    x : tensor of shape (k, d)
        The rows.
    *taken : tensors of shape (any, d)
        Rows that may not be kept.
    most : int
        Keep the first so many.

    Returns
    -------
    list of int
        Their places, in order.
    """
    seen, kept = {row.tobytes() for each in taken for row in each.numpy()}, []
    for place, row in enumerate(x.numpy()):
        if row.tobytes() not in seen:
            seen.add(row.tobytes())
            kept.append(place)
    return kept[:most]


class Watched(preqn.PreQN):
    """A PreQN that measures some of its updates, and is else as it was.

    Parameters
    ----------
    observation_space, action_space, config
        As of `PreQN`.
    due : set of int
        The updates to measure, the first is 1.
    """

    def __init__(self, observation_space: Any, action_space: Any, config: preqn.PreQNConfig, *, due: set[int]):
        super().__init__(observation_space, action_space, config)
        self.due, self.rows = due, []
        self._seen: deque[replay.Batch] = deque(maxlen=WATCHED)
        self._draws = np.random.default_rng(config.seed)

    def update(self, batch: replay.Batch) -> dict[str, float]:
        """Take one step as a PreQN does, and measure it if it is due.

        Parameters
        ----------
        batch : Batch
            As of `PreQN`.

        Returns
        -------
        dict
            As of `PreQN`.
        """
        count = self.updates + 1
        before = copy.deepcopy((self.net, self.policy)) if count in self.due else None
        found = super().update(batch)
        if before is not None:
            self._measure(count, batch, *before)
        self._seen.append(batch)
        return found

    @torch.no_grad()
    def _measure(self, count: int, batch: replay.Batch, net: nn.Module, policy: nn.Module) -> None:
        n, last = self.config.batch_size, list(self._seen)[::-1]
        mine = _part(batch, slice(0, n))
        watched = _joined([_part(each, slice(n, None)) for each in (batch, *last)])
        drawn = _joined([_part(each, slice(0, n)) for each in last[: 3 * TIMES]])
        (x, _), (y, _), (z, _) = (self._pairs(each) for each in (mine, watched, drawn))
        others = distinct(y, x, most=OTHERS)
        more = distinct(z, x, y, most=(TIMES - 1) * n)
        whole = _joined([mine, _part(watched, others), _part(drawn, more)])
        inputs = torch.cat([x, y[others], z[more]]).double()
        errors = []
        for each in (net, self.net):
            behind = copy.deepcopy(each)
            target = whole.reward + self.config.gamma * ~whole.terminated * self._best(whole.next_obs, behind, policy)
            errors.append((target - each(inputs.float())[:, 0]).double().numpy())
        pair = copy.deepcopy(net).double(), copy.deepcopy(self.net).double()
        with torch.enable_grad():
            rows = measure(*pair, inputs, *errors, sizes=(n, len(others)), rng=self._draws)
        self.rows += [{"updates": count} | row for row in rows]


class Baseline(alignment.Alignments):
    """Measure some updates of the critic of a DDPG.

    Parameters
    ----------
    due : set of int
        The updates to measure, the first is 1.
    warmup : int
        Random steps before the first.
    seed : int
        Of the other transitions: the run's own random numbers are left alone.
    """

    def __init__(self, *, due: set[int], warmup: int, seed: int):
        super().__init__(every=1, seed=seed)
        self.due, self.warmup = due, warmup

    def _on_rollout_end(self) -> None:
        """Keep the networks as the update will find them."""
        is_due = self.num_timesteps - self.warmup in self.due
        self._before = copy.deepcopy(self.model.policy) if is_due else None

    @torch.no_grad()
    def _finish(self) -> None:
        if self._before is None:
            return
        buffer, before, n = self.model.replay_buffer, self._before, self.model.batch_size
        self._before = None
        pool = buffer._get_samples(self.rng.permutation(buffer.size())[: OTHERS + 2 * TIMES * n])
        x, y = (torch.cat([each.observations, each.actions], dim=1) for each in (buffer.last, pool))
        free = distinct(y, x, most=len(y))
        others = free[: min(OTHERS, len(free) // 2)]
        more = free[len(others) :][: (TIMES - 1) * n]
        kept = torch.tensor(others + more)
        whole = {
            name: torch.cat([getattr(buffer.last, name), getattr(pool, name)[kept]])
            for name in ("rewards", "dones", "next_observations")
        }
        inputs, ahead_of = torch.cat([x, y[kept]]).float(), whole["next_observations"].float()
        action = before.actor_target(ahead_of)
        critics, errors = [], []
        for policy in (before, self.model.policy):
            (ahead,) = policy.critic_target(ahead_of, action)
            critic = copy.deepcopy(policy.critic.qf0)
            target = whole["rewards"] + (1 - whole["dones"]) * self.model.gamma * ahead
            errors.append((target - critic(inputs))[:, 0].double().numpy())
            critics.append(critic.double())
        with torch.enable_grad():
            rows = measure(*critics, inputs.double(), *errors, sizes=(n, len(others)), rng=self.rng)
        self.rows += [{"updates": self.num_timesteps - self.warmup} | row for row in rows]


def _part(batch: replay.Batch, rows: slice | list[int]) -> replay.Batch:
    return replay.Batch(**{each.name: getattr(batch, each.name)[rows] for each in dataclasses.fields(batch)})


def _joined(batches: list[replay.Batch]) -> replay.Batch:
    names = [each.name for each in dataclasses.fields(replay.Batch)]
    return replay.Batch(**{name: torch.cat([getattr(batch, name) for batch in batches]) for name in names})
