"""The neural tangent kernel of a network: how much a step at one input moves the value at another."""

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap

from divergence_notes import networks
from divergence_notes._checks import ArrayLike


def per_sample_gradients(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the Jacobian of a scalar-output network in its parameters, one row for each input.

    Parameters
    ----------
    net : torch.nn.Module
        Maps (n, d) to (n, 1).
    x : tensor of shape (n, d)
        Inputs.

    Returns
    -------
    tensor of shape (n, n_parameters)
        Row `i` is the gradient of the i-th output, parameters in the order of ``net.parameters()``.

    Raises
    ------
    ValueError
        If the network has more than one output.

    Notes
    -----
    Label ``eq-kernel``.
    """
    with torch.no_grad():
        width = net(x[:1]).shape[-1]
    if width != 1:
        raise ValueError(f"net must have one output, it has {width}")
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    slopes = vmap(grad(lambda p, row: functional_call(net, p, row[None])[0, 0]), in_dims=(None, 0))(parameters, x)
    return torch.cat([slopes[name].reshape(len(x), -1) for name in parameters], dim=1)


def gram(net: nn.Module, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
    """Return the kernel K(x, y) = J(x) J(y)^T.

    Parameters
    ----------
    net : torch.nn.Module
        Maps (n, d) to (n, 1).
    x : tensor of shape (n, d)
        Inputs of the rows.
    y : tensor of shape (m, d), optional
        Inputs of the columns; `x` by default.

    Returns
    -------
    tensor of shape (n, m)
        Inner products of parameter gradients: no mean, no scaling, no trace over outputs.

    Raises
    ------
    ValueError
        If the network has more than one output.

    Notes
    -----
    Label ``eq-kernel``.
    """
    J = per_sample_gradients(net, x)
    return J @ (J if y is None else per_sample_gradients(net, y)).T


def hessian(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the second derivatives of a scalar-output network in its parameters, at one input.

    Parameters
    ----------
    net : torch.nn.Module
        Maps (n, d) to (n, 1).
    x : tensor of shape (d,)
        The input.

    Returns
    -------
    tensor of shape (n_parameters, n_parameters)
        Parameters in the order of ``net.parameters()``.

    Notes
    -----
    Label ``eq-second-order``.
    """
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    blocks = jacrev(grad(lambda p: functional_call(net, p, x[None])[0, 0]))(parameters)
    rows = [torch.cat([blocks[a][b].reshape(parameters[a].numel(), -1) for b in parameters], dim=1) for a in parameters]
    return torch.cat(rows)


def remainder(
    net: nn.Module, x: torch.Tensor, target: ArrayLike, *, weights: ArrayLike, alpha: float | int
) -> np.ndarray:
    """Return what the key equation leaves out: the real change of every value minus alpha K D delta.

    Parameters
    ----------
    net : torch.nn.Module
        Maps (n, d) to (n, 1), in float64.
    x : tensor of shape (n, d)
        One input for each pair.
    target : ndarray of shape (n,)
        Values that the semi-gradient step moves towards, held fixed.
    weights : ndarray of shape (n,)
        Sampling distribution rho over the pairs.
    alpha : float
        Step size, > 0.

    Returns
    -------
    ndarray of shape (n,)
        In units of Q; the kernel is never formed.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, or `alpha` is not positive.

    Notes
    -----
    Label ``eq-taylor``.
    """
    stepped = networks.semi_gradient_step(net, x, target, weights=weights, alpha=alpha)
    before = networks.values(net, x)
    J = per_sample_gradients(net, x).double().numpy()  # (n, p)
    leading = J @ (J.T @ (np.asarray(weights) * (np.asarray(target) - before)))
    return networks.values(stepped, x) - before - alpha * leading
