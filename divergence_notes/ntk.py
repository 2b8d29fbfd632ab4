"""The neural tangent kernel of a network: how much a step at one input moves the value at another."""

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap

from divergence_notes import _checks, networks
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


def gram(net: nn.Module, x: torch.Tensor, y: torch.Tensor | None = None, *, tile: int = 512) -> torch.Tensor:
    """Return the kernel K(x, y) = J(x) J(y)^T, without forming J where the network is made of linear layers.

    Parameters
    ----------
    net : torch.nn.Module
        Maps (n, d) to (n, 1), each row on its own.
    x : tensor of shape (n, d)
        Inputs of the rows.
    y : tensor of shape (m, d), optional
        Inputs of the columns; `x` by default, and then the kernel is symmetric to the last bit.
    tile : int
        Rows and columns that are worked on at a time.

    Returns
    -------
    tensor of shape (n, m)
        Inner products of parameter gradients: no mean, no scaling, no trace over outputs.

    Raises
    ------
    ValueError
        If the network has more than one output, or a batch norm that is training: then its rows see each other.

    Notes
    -----
    Label ``eq-kernel``. A weight between an input a and a pre-activation z has the gradient b a^T, where b is the
    gradient at z, so that a linear layer adds ``(a_i . a_j + 1) (b_i . b_j)``. Where a parameter lives elsewhere, is
    shared, or is used twice, and where an output is overwritten in place, J is formed: slower, the same result.
    """
    tile = _checks.integer("tile", tile, low=1)
    for name, module in net.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise ValueError(
                f"net must treat each row on its own: the batch norm {name!r} is training, call net.eval()"
            )
    rows = _layers(net, x)
    columns = rows if y is None else _layers(net, y)
    if rows is None or columns is None:
        J = per_sample_gradients(net, x)
        return J @ (J if y is None else per_sample_gradients(net, y)).T
    K = x.new_empty(len(x), len(x if y is None else y))
    for i in range(0, K.shape[0], tile):
        for j in range(i if y is None else 0, K.shape[1], tile):
            block = _block(rows, columns, slice(i, i + tile), slice(j, j + tile))
            if y is None and i == j:
                block = block.triu() + block.triu(1).T
            K[i : i + tile, j : j + tile] = block
            if y is None:
                K[j : j + tile, i : i + tile] = block.T
    return K


_Layer = tuple[torch.Tensor, torch.Tensor, bool]
"""Inputs (n, fan_in) of a linear layer, gradients (n, fan_out) at its outputs, and whether it has a bias."""


def _block(rows: list[_Layer], columns: list[_Layer], i: slice, j: slice) -> torch.Tensor:
    """Return the rows `i` and columns `j` of the kernel, summed over layers."""
    return sum(
        (a[i] @ c[j].T + float(bias)) * (b[i] @ d[j].T) for (a, b, bias), (c, d, _) in zip(rows, columns, strict=True)
    )


def _layers(net: nn.Module, x: torch.Tensor) -> list[_Layer] | None:
    """Return what each linear layer saw and what it owes, or None where linear layers are not all there is."""
    linear = [module for module in net.modules() if type(module) is nn.Linear]
    owned = [id(p) for module in linear for p in module.parameters()]
    if len(set(owned)) != len(owned) or set(owned) != {id(p) for p in net.parameters()}:
        return None
    met: list[tuple[nn.Linear, torch.Tensor, torch.Tensor, int]] = []

    def remember(module: nn.Linear, given: tuple, out: torch.Tensor) -> None:
        met.append((module, given[0].detach(), out, out._version))  # returns nothing, else it would replace the output

    hooks = [module.register_forward_hook(remember) for module in linear]
    try:
        with torch.enable_grad():
            out = net(x)
    finally:
        for hook in hooks:
            hook.remove()
    if out.ndim != 2 or out.shape[1] != 1:
        raise ValueError(f"net must have one output, it has {out.shape[-1]}")
    plain = all(a.ndim == 2 and z.requires_grad and z._version == version for _, a, z, version in met)
    if len(met) != len(linear) or not plain or len({id(module) for module, *_ in met}) != len(linear):
        return None
    slopes = torch.autograd.grad(out.sum(), [z for _, _, z, _ in met])
    return [(a, b, module.bias is not None) for (module, a, _, _), b in zip(met, slopes, strict=True)]


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
