"""How far are the kernels of fresh networks from a table's? The kernel study of arXiv:1903.08894, done again.

For each environment, initialisation scheme and seed, 1000 state-action pairs are drawn and the kernel of networks of
several activations, widths and depths is measured on them. The choices that the numbers depend on:

- Pairs: consecutive steps of a "rails-random" policy. We read that as: each coordinate of each action is one end of
  its range or the other, with equal chance. An episode that ends is followed by a new one.
- Inputs: observation and action side by side, raw, as the environment gives them; Ant-v5 without its contact forces,
  which leaves the classical 27 dimensions.
- Networks: two hidden layers of 32, 64, 128 or 256 units, and one to four hidden layers of 64; relu, tanh or sin.
- Initialisation: "pytorch", weights and biases uniform within ``1 / sqrt(fan_in)``, or "glorot", weights uniform within
  ``sqrt(6 / (fan_in + fan_out))`` and no biases.
- The seed draws the pairs and the weights, so that an interval over seeds covers both. Networks that differ in their
  activation only have the same weights.
- Arithmetic: float64.

The bias of the output moves every value by 1, so that no entry of the diagonal is below 1 and every row ratio is
defined.
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from divergence_notes import _checks, contraction, diagnostics
from divergence_notes._extras import needs

with needs("studies"):
    import gymnasium as gym
    import torch

    from divergence_notes import networks, ntk
    from divergence_notes.studies import protocol

if TYPE_CHECKING:
    import pandas

PARAMETERS = {
    "environment": ("HalfCheetah-v5", "Ant-v5", "Walker2d-v5"),
    "initialisation": ("pytorch", "glorot"),
    "seed": tuple(range(10)),
}
SECONDS = 3.0
FLOAT_FORMAT = "%.7g"

ACTIVATIONS = ("relu", "tanh", "sin")
HIDDEN = ((32, 32), (64, 64), (128, 128), (256, 256), (64,), (64, 64, 64), (64, 64, 64, 64))
N_PAIRS = 1000
GAMMA = 0.99
OPTIONS = {"Ant-v5": {"include_cfrc_ext_in_observation": False}}

CELL = ["environment", "initialisation", "activation", "depth", "width"]
MEASURES = ["row_ratio", "largest_row_ratio", "diagonal", "off_diagonal", "dominant", "shortfall"]
POSITIVE = [name for name in MEASURES if name != "dominant"]


def pairs(environment: str, *, n_pairs: int, seed: int) -> np.ndarray:
    """Return state-action pairs of a policy whose every action lies in a corner of the action space.

    Parameters
    ----------
    environment : str
        A name that gymnasium knows, with bounded continuous actions.
    n_pairs : int
        How many consecutive steps to take.
    seed : int
        Of the first state and of the actions.

    Returns
    -------
    ndarray of shape (n_pairs, n_observations + n_action_coordinates)
        Each row an observation and the action taken there.
    """
    n_pairs = _checks.integer("n_pairs", n_pairs, low=1)
    rng, rows = np.random.default_rng(seed), []
    with protocol.mujoco_in_the_log(), gym.make(environment, **OPTIONS.get(environment, {})) as env:
        rails = np.stack([env.action_space.low, env.action_space.high])  # (2, a)
        coordinates = np.arange(rails.shape[1])
        obs, _ = env.reset(seed=seed)
        for _ in range(n_pairs):
            action = rails[rng.integers(2, size=len(coordinates)), coordinates]
            rows.append(np.concatenate([obs, action]))
            obs, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                obs, _ = env.reset()
    return np.stack(rows)


def network(sizes: Sequence[int], *, activation: str, initialisation: str, seed: int) -> networks.MLP:
    """Return a fresh network in float64.

    Parameters
    ----------
    sizes : sequence of int
        Width of the input, of each hidden layer, and of the output.
    activation : {"relu", "tanh", "sin"}
        Between the layers.
    initialisation : {"pytorch", "glorot"}
        As the module's docstring says.
    seed : int
        The same seed and sizes give the same weights, whatever the activation.

    Returns
    -------
    MLP
        With weights drawn as asked.
    """
    _checks.choice("initialisation", initialisation, PARAMETERS["initialisation"])
    generator = torch.Generator().manual_seed(seed)
    net = networks.MLP(sizes, activation=activation, generator=generator, dtype=torch.float64)
    return networks.glorot_(net, generator=generator.manual_seed(seed)) if initialisation == "glorot" else net


def measure(kernel: np.ndarray, *, gamma: float | int = GAMMA) -> dict[str, float]:
    """Return how far a kernel is from a table's, and from the paper's condition under uniform sampling.

    Parameters
    ----------
    kernel : ndarray of shape (n, n)
        With a positive diagonal.
    gamma : float
        Discount factor in [0, 1).

    Returns
    -------
    dict
        row_ratio
            Mean over rows.
        largest_row_ratio
            Of the worst row, of which row dominance and the theorem on the worst process speak.
        diagonal
            Mean of the diagonal.
        off_diagonal
            Mean size of the other entries.
        dominant
            Share of rows that satisfy row dominance, ``(1 + gamma) sum_{j != i} |K_ij| < (1 - gamma) K_ii``.
        shortfall
            By what factor the best row misses it: the least ``n R_i (1 + gamma) / (1 - gamma)``; below 1 it holds.
    """
    ratio, n = diagnostics.row_ratio(kernel), len(kernel)
    own = np.diag(kernel)
    return {
        "row_ratio": float(ratio.mean()),
        "largest_row_ratio": float(ratio.max()),
        "diagonal": float(own.mean()),
        "off_diagonal": float((np.abs(kernel).sum() - own.sum()) / max(n * (n - 1), 1)),
        "dominant": float((contraction.row_dominance(kernel, np.full(n, 1 / n), gamma=gamma) > 0).mean()),
        "shortfall": float(n * ratio.min() * (1 + gamma) / (1 - gamma)),
    }


def run(
    *,
    environment: str,
    initialisation: str,
    seed: int,
    n_pairs: int = N_PAIRS,
    hidden: Sequence[Sequence[int]] = HIDDEN,
) -> "pandas.DataFrame":
    """Measure the kernel of every network on the same pairs.

    Parameters
    ----------
    environment, initialisation, seed
        As in ``PARAMETERS``.
    n_pairs : int
        The size of the kernels.
    hidden : sequence of sequences of int
        The hidden layers of each network; each is built with each activation.

    Returns
    -------
    DataFrame
        A row for each network: activation, depth (hidden layers), width (units in each), and the entries of `measure`.
    """
    x = torch.as_tensor(pairs(environment, n_pairs=n_pairs, seed=seed))
    rows = []
    for activation, layers in itertools.product(ACTIVATIONS, hidden):
        sizes = [x.shape[1], *layers, 1]
        net = network(sizes, activation=activation, initialisation=initialisation, seed=seed)
        found = measure(ntk.gram(net, x).numpy())
        rows.append({"activation": activation, "depth": len(layers), "width": layers[0]} | found)
    import pandas

    return pandas.DataFrame(rows)


def summary(data: "pandas.DataFrame", *, level: float | int = 0.95) -> "pandas.DataFrame":
    """Return the mean over seeds of each measure of each network, with a t interval.

    Parameters
    ----------
    data : DataFrame
        What ``studies.load("kernels")`` returns; at least two seeds of each network.
    level : float
        Of the interval, in (0, 1).

    Returns
    -------
    DataFrame
        A row for each cell of environment, initialisation, activation, depth and width, and each measure:
        mean, low, high, and n, the number of seeds.

    Raises
    ------
    ValueError
        If a network has fewer than two seeds, or the same seed twice, or `level` is out of range.
    """
    _once(data)
    long = data.melt([*CELL, "seed"], MEASURES, var_name="measure")
    return _intervals(long, [*CELL, "measure"], level)


def trends(data: "pandas.DataFrame", *, level: float | int = 0.95) -> "pandas.DataFrame":
    """Return by how many powers of two each measure grows with every doubling of the width and with every layer.

    Parameters
    ----------
    data : DataFrame
        What ``studies.load("kernels")`` returns.
    level : float
        Of the interval, in (0, 1).

    Returns
    -------
    DataFrame
        A row for each environment, initialisation, activation, axis and measure (without the share of dominant rows,
        which may be 0): mean, low, high and n. Each seed gives the least-squares slope of the binary logarithm,
        along "width" in its doublings, with two hidden layers, or along "depth" in layers of 64 units.

    Raises
    ------
    ValueError
        As `summary`.
    """
    _once(data)
    keys, rows = [*CELL[:3], "axis", "measure"], []
    for axis, sweep in (("width", data[data["depth"] == 2]), ("depth", data[data["width"] == 64])):
        for cell, group in sweep.groupby([*CELL[:3], "seed"], sort=False):
            place = np.log2(group["width"]) if axis == "width" else group["depth"]
            slopes = np.polyfit(place, np.log2(group[POSITIVE]), 1)[0]
            rows += [(*cell[:3], axis, name, slope) for name, slope in zip(POSITIVE, slopes, strict=True)]
    import pandas

    return _intervals(pandas.DataFrame(rows, columns=[*keys, "value"]), keys, level)


def compare(data: "pandas.DataFrame", first: str, second: str, *, level: float | int = 0.95) -> "pandas.DataFrame":
    """Return how many times larger each measure is with one activation than with another, in pairs of equal weights.

    Parameters
    ----------
    data : DataFrame
        What ``studies.load("kernels")`` returns.
    first, second : {"relu", "tanh", "sin"}
        The factor is the first over the second.
    level : float
        Of the interval, in (0, 1).

    Returns
    -------
    DataFrame
        A row for each environment, initialisation, depth, width and measure (without the share of dominant rows):
        the geometric mean of the factor over seeds as mean, its t interval in logarithms as low and high, and n.

    Raises
    ------
    ValueError
        As `summary`, or if an activation is unknown.
    """
    first, second = (_checks.choice("activation", name, ACTIVATIONS) for name in (first, second))
    _once(data)
    keys = [key for key in CELL if key != "activation"]
    one, other = (data[data["activation"] == name].set_index([*keys, "seed"])[POSITIVE] for name in (first, second))
    long = np.log(one / other).reset_index().melt([*keys, "seed"], var_name="measure")
    table = _intervals(long, [*keys, "measure"], level)
    return table.assign(**{name: np.exp(table[name]) for name in ("mean", "low", "high")})


def agreement(
    data: "pandas.DataFrame",
    first: str,
    second: str,
    *,
    within: Sequence[str] = (),
    over: Sequence[str] = ("seed",),
    level: float | int = 0.95,
) -> "pandas.DataFrame":
    """Return how far two quantities put networks into the same order: Spearman's rank correlation, with a t interval.

    Networks of several kinds in one heap can have another order than those of each kind. So what counts as a kind is
    said by the caller, and what the interval is about as well.

    Parameters
    ----------
    data : DataFrame
        A row for each network.
    first, second : str
        Two columns.
    within : sequence of str
        Columns: each of their combinations has a correlation of its own. Without any, all networks are one heap.
    over : sequence of str
        Columns: a correlation is taken in each of their combinations, and the mean and the interval are over these.
        "seed" asks for the order of settings, the columns of a setting for that of the seeds in it.
    level : float
        Of the interval, in (0, 1).

    Returns
    -------
    DataFrame
        The columns `within`, then mean, low, high, and n, the number of correlations. One in which a quantity is the
        same for all networks is not defined, and left out.

    Raises
    ------
    ValueError
        If fewer than two correlations are left somewhere, or `level` is out of range.
    """
    keys, rows = list(within), []
    import pandas

    for cell, group in data.groupby([*keys, *over], sort=False):
        ranks = group[[first, second]].rank()
        if ranks.nunique().min() > 1:
            rows.append((*cell[: len(keys)], np.corrcoef(ranks.T)[0, 1]))
    heap = [] if keys else ["heap"]
    long = pandas.DataFrame(rows, columns=[*keys, "value"]).assign(**dict.fromkeys(heap, 0))
    if len(long) < 2 or long.groupby(keys or heap)["value"].count().min() < 2:
        raise ValueError("data must leave at least two correlations for each mean: an interval needs them")
    return _intervals(long, keys or heap, level).drop(columns=heap)


def _once(data: "pandas.DataFrame") -> None:
    if data.duplicated([*CELL, "seed"]).any():
        raise ValueError("data must hold each seed of a network once")


def _intervals(long: "pandas.DataFrame", keys: list[str], level: float | int) -> "pandas.DataFrame":
    """Return mean, low, high and n of the column "value", over the seeds of each group."""
    level = _checks.scalar("level", level, low=0, high=1, low_open=True, high_open=True)
    table = long.groupby(keys, sort=False)["value"].agg(["mean", "sem", "count"]).reset_index()
    if table["count"].min() < 2:
        raise ValueError("data must hold at least two seeds of each network: an interval needs them")
    from scipy.special import stdtrit  # the quantile of Student's t, without the second that scipy.stats takes

    half = stdtrit(table["count"] - 1, (1 + level) / 2) * table["sem"]
    table = table.rename(columns={"count": "n"}).assign(low=table["mean"] - half, high=table["mean"] + half)
    return table[[*keys, "mean", "low", "high", "n"]]
