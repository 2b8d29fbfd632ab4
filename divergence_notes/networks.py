"""A small network and its real semi-gradient step, the thing that the key equation approximates.

Values of all pairs go in and out as arrays of numpy, the parameters stay in torch. What the step is to first order is
`ntk` and `updates`; a whole agent, with a memory and an optimiser, is `dqn` or `preqn`.
"""

import copy
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from divergence_notes import _checks
from divergence_notes._checks import ArrayLike
from divergence_notes._extras import needs
from divergence_notes.dynamics import Status, Trajectory

with needs("neural"):
    import torch
    from torch import nn


class Sine(nn.Module):
    """The sine, entry by entry."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return sin(x).

        Parameters
        ----------
        x : tensor
            Of any shape.

        Returns
        -------
        tensor
            Of the same shape.
        """
        return torch.sin(x)


ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sin": Sine}


class MLP(nn.Sequential):
    """A fully connected network with a linear last layer.

    Parameters
    ----------
    sizes : sequence of int
        Width of the input, of each hidden layer, and of the output; at least two.
    activation : {"relu", "tanh", "sin"}
        Between the layers.
    generator : torch.Generator
        Draws every weight and bias, uniformly within ``1 / sqrt(fan_in)`` of zero; the global generator is left alone.
    dtype : torch.dtype
        Of the parameters; float64 for analysis.

    Raises
    ------
    ValueError
        If there are fewer than two sizes, a size is not positive, or the activation is unknown.
    """

    def __init__(
        self, sizes: Sequence[int], *, activation: str, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ):
        activation = _checks.choice("activation", activation, tuple(ACTIVATIONS))
        widths = _checks.integers("sizes", sizes, low=1)
        if len(widths) < 2:
            raise ValueError(f"sizes must name an input and an output width, got {list(widths)}")
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(widths):
            layers += [_linear(fan_in, fan_out, generator, dtype), ACTIVATIONS[activation]()]
        super().__init__(*layers[:-1])


def _linear(fan_in: int, fan_out: int, generator: torch.Generator, dtype: torch.dtype) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, fan_in, fan_out, dtype=dtype)
    bound = fan_in**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def glorot_(net: nn.Module, *, generator: torch.Generator) -> nn.Module:
    """Draw the weights again, uniformly within ``sqrt(6 / (fan_in + fan_out))`` of zero, set the biases to zero.

    Parameters
    ----------
    net : torch.nn.Module
        Changed in place: every linear layer in it.
    generator : torch.Generator
        The global generator is left alone.

    Returns
    -------
    torch.nn.Module
        The same network.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return net


def place(device: torch.device | str) -> torch.device:
    """Return a device, if there is one of that name here.

    Parameters
    ----------
    device : torch.device or str
        As torch names it: "cpu", "cuda", "cuda:1", "mps".

    Returns
    -------
    torch.device
        On which a tensor can be made.

    Raises
    ------
    ValueError
        If there is none.
    """
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"device must be one that is here, such as 'cpu', got {str(device)!r}: {why}") from error
    return found


def values(net: nn.Module, x: torch.Tensor) -> np.ndarray:
    """Return the scalar outputs of a network as a numpy vector.

    Parameters
    ----------
    net : torch.nn.Module
        With one output.
    x : tensor of shape (n, d)
        Inputs, one to a row.

    Returns
    -------
    ndarray of shape (n,)
        In float64; no gradient is kept.
    """
    with torch.no_grad():
        return _scalar_outputs(net, x).double().numpy()


def _scalar_outputs(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    out = net(x)  # (n, 1)
    if out.ndim != 2 or out.shape[1] != 1:
        raise ValueError(f"net must map (n, d) to (n, 1), it maps {tuple(x.shape)} to {tuple(out.shape)}")
    return out[:, 0]


def semi_gradient_step(
    net: nn.Module, x: torch.Tensor, target: ArrayLike, *, weights: ArrayLike, alpha: float | int
) -> nn.Module:
    """Return a copy of the network after one semi-gradient step towards fixed targets.

    Parameters
    ----------
    net : torch.nn.Module
        Maps (n, d) to (n, 1); left as it is.
    x : tensor of shape (n, d)
        One input for each pair.
    target : ndarray of shape (n,)
        Values to move towards, held fixed.
    weights : ndarray of shape (n,)
        Sampling distribution rho over the pairs.
    alpha : float
        Step size, > 0.

    Returns
    -------
    torch.nn.Module
        One plain gradient step on ``1/2 sum_i rho_i (target_i - Q_i)^2``.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, or `alpha` is not positive.

    Notes
    -----
    Label ``eq-semi-gradient``.
    """
    # copies: those of an update may not be written, and torch warns where it would share one
    weights = torch.tensor(_checks.distribution("weights", weights, size=len(x)), dtype=x.dtype)
    target = torch.tensor(_checks.array("target", target, shape=(len(x),)), dtype=x.dtype)
    alpha = _checks.scalar("alpha", alpha, low=0, low_open=True)
    out = copy.deepcopy(net)  # before the pass, in which a batch norm changes
    loss = 0.5 * (weights * (target - _scalar_outputs(out, x)) ** 2).sum()
    slopes = torch.autograd.grad(loss, [p for p in out.parameters() if p.requires_grad])
    return _move(out, slopes, alpha=-alpha)


def moved(net: nn.Module, slopes: Sequence[torch.Tensor], *, alpha: float | int) -> nn.Module:
    """Return a copy of a network, its parameters moved along a direction.

    Parameters
    ----------
    net : torch.nn.Module
        Left as it is.
    slopes : sequence of tensors
        One for each parameter that requires a gradient, in its shape and in the order of ``net.parameters()``.
    alpha : float
        How far to go, in units of `slopes`; of either sign.

    Returns
    -------
    torch.nn.Module
        With ``parameter + alpha * slope`` for each parameter.

    Raises
    ------
    ValueError
        If there are more or fewer slopes than parameters, or one has another shape.
    """
    return _move(copy.deepcopy(net), slopes, alpha=alpha)


def _move(net: nn.Module, slopes: Sequence[torch.Tensor], *, alpha: float | int) -> nn.Module:
    parameters = [p for p in net.parameters() if p.requires_grad]
    want, found = ([tuple(each.shape) for each in tensors] for tensors in (parameters, slopes))
    if found != want:
        raise ValueError(f"slopes must have the shapes {want} of the parameters, got {found}")
    with torch.no_grad():
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter += alpha * slope
    return net


def train(
    net: nn.Module,
    x: torch.Tensor,
    backup: Callable[[np.ndarray], np.ndarray],
    *,
    weights: ArrayLike,
    alpha: float | int,
    steps: int,
    bound: float | int = 1e6,
) -> tuple[nn.Module, Trajectory]:
    """Take semi-gradient steps, each towards a backup of the network's own values.

    Parameters
    ----------
    net : torch.nn.Module
        Maps (n, d) to (n, 1); left as it is.
    x : tensor of shape (n, d)
        One input for each pair.
    backup : callable
        Maps the values of all pairs, a numpy vector of shape (n,), to their targets.
    weights : ndarray of shape (n,)
        Sampling distribution rho over the pairs.
    alpha : float
        Step size, > 0.
    steps : int
        How many steps to take at most.
    bound : float
        A value beyond this, or not finite, after a step ends the run as diverged; > 0.

    Returns
    -------
    net : torch.nn.Module
        The network after the last step that left its values bounded; a copy of `net` if there was none.
    trajectory : Trajectory
        Values of all pairs before each step and after the last, shape (k + 1, n); "diverged" or "undecided".

    Raises
    ------
    ValueError
        If an argument is out of range or a shape disagrees.
    """
    steps = _checks.integer("steps", steps, low=1)
    bound = _checks.scalar("bound", bound, low=0, low_open=True)
    net = copy.deepcopy(net)  # a batch norm changes in every pass
    recorded = [values(net, x)]
    status: Status = "undecided"
    for _ in range(steps):
        stepped = semi_gradient_step(net, x, backup(recorded[-1].copy()), weights=weights, alpha=alpha)
        recorded.append(values(stepped, x))
        if not np.abs(recorded[-1]).max() <= bound:
            status = "diverged"
            break
        net = stepped
    return net, Trajectory(np.stack(recorded), None, status)
