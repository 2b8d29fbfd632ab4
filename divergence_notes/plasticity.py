"""What a network can still learn with: units that sleep, the rank of its features, and how far its answers move.

The numbers take arrays, of a run of anybody; `observe` gathers them from a pass that is made anyway. The kernel, which
says what a step does to other values, is judged by `diagnostics`; who asks for all this while a run trains is `probe`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from divergence_notes import _checks
from divergence_notes._checks import ArrayLike
from divergence_notes._extras import needs

with needs("neural"):
    import torch
    from torch import nn

TAU = 0.025
"""Score, in units of the mean of its layer, up to which a unit counts as dormant."""


def dormant(activity: ArrayLike, *, tau: float | int = TAU) -> np.ndarray:
    """Return which units of a layer are dormant: active far less than the others of their layer.

    Parameters
    ----------
    activity : ndarray of shape (n_units,)
        The mean absolute activation of each unit over a sample of inputs, >= 0.
    tau : float
        Threshold of the score, >= 0; with 0 only the units that are zero at every input count.

    Returns
    -------
    ndarray of shape (n_units,), bool
        Whether the score, ``activity`` over its mean over the layer, is at most `tau`. Where nothing in the layer is
        active all its units are dormant.

    Raises
    ------
    ValueError
        If an activity is negative or not finite, or `tau` is negative.

    Notes
    -----
    The rule of Sokar, Agarwal, Castro and Evci, "The dormant neuron phenomenon in deep reinforcement learning",
    arXiv:2302.12902. It is about a sample: a unit may be active at an input that is not in it.
    """
    activity = _checks.array("activity", activity, ndim=1)
    _checks.non_negative("activity", activity)
    tau = _checks.scalar("tau", tau, low=0)
    largest = activity.max(initial=0.0)
    if largest == 0:
        return np.ones(len(activity), dtype=bool)
    activity = activity / largest  # the mean of large numbers overflows
    return activity <= tau * activity.mean()


def feature_rank(features: ArrayLike, *, share: float | int = 0.99) -> int:
    """Return how many directions of the features carry nearly all of them.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        What the last layer of weights receives, for n inputs.
    share : float
        Part of the sum of all singular values that these directions must have, in (0, 1].

    Returns
    -------
    int
        The smallest k for which the k largest singular values have `share` of the sum of all of them; between 1 and
        the smaller one of n and d, and 0 where every feature is zero.

    Raises
    ------
    ValueError
        If a feature is not finite, or `share` is out of range.

    Notes
    -----
    The srank of Kumar, Agarwal, Ghosh and Levine, "Implicit under-parameterization inhibits data-efficient deep
    reinforcement learning", arXiv:2010.14498, with ``share = 1 - delta``. It can be no larger than the sample. Singular
    values below 1e-7 of the largest count as zero.
    """
    features = _checks.array("features", features, ndim=2)
    share = _checks.scalar("share", share, low=0, high=1, low_open=True)
    largest = np.abs(features).max(initial=0.0)
    if largest == 0:
        return 0
    features = features / largest
    product = features @ features.T if len(features) < features.shape[1] else features.T @ features
    squares = np.linalg.eigvalsh(product)[::-1]  # several times quicker than singular values
    sizes = np.cumsum(np.sqrt(np.where(squares > 1e-14 * squares[0], squares, 0.0)))
    return int(np.searchsorted(sizes, share * sizes[-1] * (1 - 1e-12)) + 1)


def churn(before: ArrayLike, after: ArrayLike) -> float:
    """Return how far answers to the same questions have moved.

    Parameters
    ----------
    before, after : ndarray of shape (n,) or (n, d)
        Values of n pairs, or actions in n states: integers of shape (n,) for actions that are chosen among a few.

    Returns
    -------
    float
        For integers the share of those that differ, in [0, 1]; else the mean length of a change, >= 0, in the unit of
        the answers.

    Raises
    ------
    ValueError
        If the shapes disagree, nothing was asked, or an answer is not finite.
    """
    before, after = np.asarray(before), np.asarray(after)
    if not before.size:
        raise ValueError("before must hold at least one answer")
    _checks.array("after", np.zeros(after.shape), shape=before.shape)
    if before.dtype.kind in "iu" and after.dtype.kind in "iu":
        return float((before != after).mean())
    change = _checks.array("after", after) - _checks.array("before", before)
    return float(np.linalg.norm(change.reshape(len(change), -1), axis=1).mean())


@dataclass(eq=False)
class Observed:
    """What the hidden layers of a network did in one pass."""

    activity: list[tuple[str, np.ndarray]] = field(default_factory=list)
    """Name of each layer in the order in which they ran, and the mean absolute activation of its units, (n_units,)."""
    features: np.ndarray | None = None
    """What the last layer of weights received, shape (n, d)."""
    inputs: float | None = None
    """The largest absolute number that the first layer of weights received."""
    columns: np.ndarray | None = None
    """The same for each of its inputs, shape (d,), where that layer is linear."""

    def layers(self, *, tau: float | int = TAU) -> list[tuple[str, int, int]]:
        """Return the name of each layer, the number of its units, and how many of them are dormant.

        Parameters
        ----------
        tau : float
            As in `dormant`.

        Returns
        -------
        list of tuple
            Layers that are not finite are left out.
        """
        return [
            (name, len(units), int(dormant(units, tau=tau).sum()))
            for name, units in self.activity
            if np.isfinite(units).all()
        ]


_WEIGHTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SHARES = (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin)
"""These put out shares of 1, or logarithms of shares: what has next to nothing of it is not asleep."""


@contextmanager
def observe(net: nn.Module) -> Iterator[Observed]:
    """Watch the hidden units of a network during a pass that is made inside of the block.

    Parameters
    ----------
    net : torch.nn.Module
        Any network. It stays as it is; nothing is watched in one that was compiled or scripted.

    Yields
    ------
    Observed
        Filled when the block ends.

    Notes
    -----
    A unit is what a module of ``torch.nn.modules.activation`` puts out, a number or, of images, a channel; the shares
    of a softmax are none. Where the network has no such module, as with ``torch.nn.functional.relu``, it is what a
    layer of weights, linear or a convolution, receives from within the network: from the second one that runs. The
    features are what the last linear layer receives. A layer that runs more than once counts as it last ran.
    """
    found, after, between, last, hooks = Observed(), {}, {}, {}, []

    def activated(name: str) -> object:
        def hook(module: nn.Module, given: tuple, out: object) -> None:
            if isinstance(out, torch.Tensor) and out.ndim > 1:
                after[name] = None if isinstance(module, _SHARES) else _activity(out)

        return hook

    def weighed(name: str) -> object:
        def hook(module: nn.Module, given: tuple) -> None:
            if given and isinstance(given[0], torch.Tensor) and given[0].ndim > 1:
                between[name] = _activity(given[0])
                if "inputs" not in last:
                    last["inputs"] = float(given[0].detach().abs().max())
                    if isinstance(module, nn.Linear):
                        flat = given[0].detach().abs().reshape(-1, given[0].shape[-1])
                        last["columns"] = flat.amax(dim=0).cpu().double().numpy()
                if isinstance(module, nn.Linear):
                    last["features"] = given[0].detach().reshape(-1, given[0].shape[-1]).cpu().double().numpy().copy()

        return hook

    modules = dict(net.named_modules())
    opaque = (torch.jit.ScriptModule,)
    if not any(isinstance(m, opaque) or type(m).__name__ == "OptimizedModule" for m in modules.values()):
        for name, module in modules.items():
            if type(module).__module__ == nn.modules.activation.__name__ and not any(module.children()):
                hooks.append(module.register_forward_hook(activated(name)))
            elif isinstance(module, _WEIGHTS):
                hooks.append(module.register_forward_pre_hook(weighed(name)))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
        units = [(name, activity) for name, activity in after.items() if activity is not None]
        found.activity = units if after else list(between.items())[1:]
        found.features, found.inputs = last.get("features"), last.get("inputs")
        found.columns = last.get("columns")


def _activity(values: torch.Tensor) -> np.ndarray:
    """Return the mean absolute value of each unit, or of each channel of images."""
    size = values.detach().abs()
    size = size if size.dtype == torch.float64 else size.float()
    others = [axis for axis in range(size.ndim) if axis != (1 if size.ndim > 2 else size.ndim - 1)]
    return size.mean(dim=others).cpu().double().numpy()
