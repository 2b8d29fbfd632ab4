"""The neural tangent kernel of a network: how much a step at one input moves the value at another."""

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap

from divergence_notes import _checks, networks
from divergence_notes._checks import ArrayLike


def per_sample_gradients(net: nn.Module, x: torch.Tensor, *, outputs: torch.Tensor | int | None = None) -> torch.Tensor:
    """Return the Jacobian of a network in its parameters, one row for each input.

    Parameters
    ----------
    net : torch.nn.Module
        Maps (n, d) to (n, n_outputs).
    x : tensor of shape (n, d)
        Inputs.
    outputs : int, or int tensor of shape (n,), optional
        Which output each row is about: one for all, or one for each row, such as the action taken. May be left out
        where there is only one.

    Returns
    -------
    tensor of shape (n, n_parameters)
        Row `i` is the gradient of the i-th output, parameters in the order of ``net.parameters()``; those that do not
        require a gradient do not move in a step, and are left out.

    Raises
    ------
    ValueError
        If `outputs` is missing where the network has more than one, or does not fit; if every parameter is frozen.

    Notes
    -----
    Label ``eq-kernel``. For teaching, and to check `gram`: n * n_parameters numbers.
    """
    parameters = {name: p.detach() for name, p in _trainable(net).items()}
    chosen = _chosen("outputs", outputs, net, x)

    def value(p: dict, row: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return functional_call(net, p, row[None])[0].gather(0, output[None])[0]

    slopes = vmap(grad(value), in_dims=(None, 0, 0))(parameters, x, chosen)
    return torch.cat([slopes[name].reshape(len(x), -1) for name in parameters], dim=1)


def gram(
    net: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor | None = None,
    *,
    outputs: torch.Tensor | int | None = None,
    y_outputs: torch.Tensor | int | None = None,
    tile: int = 384,
) -> torch.Tensor:
    """Return the kernel K(x, y) = J(x) J(y)^T, without forming J where the network is made of linear layers.

    Parameters
    ----------
    net : torch.nn.Module
        Maps (n, d) to (n, n_outputs), each row on its own.
    x : tensor of shape (n, d)
        Inputs of the rows.
    y : tensor of shape (m, d), optional
        Inputs of the columns; `x` by default, and then the kernel is symmetric to the last bit.
    outputs, y_outputs : int, or int tensor of shape (n,) and (m,), optional
        Which output a row, or a column, is about: one for all, or one for each, such as the action taken. May be left
        out where there is only one; `y_outputs` also where `outputs` is one for all.
    tile : int
        Rows and columns that are worked on at a time.

    Returns
    -------
    tensor of shape (n, m)
        Inner products of gradients in the parameters that require one: no mean, no scaling, no trace over outputs.
        Entries that are not finite are passed on.

    Raises
    ------
    ValueError
        If `outputs` is missing where there are more than one, or does not fit; if every parameter is frozen; if a batch
        norm or a dropout is training, or rows see each other in another way; if a stack of linear layers uses a
        parameter twice, or overwrites the output of a layer in place.

    Notes
    -----
    Label ``eq-kernel``. A weight between an input a and a pre-activation z has the gradient b a^T, where b is the
    gradient at z, so that a linear layer adds ``(a_i . a_j + 1) (b_i . b_j)``. Any other module that holds a parameter,
    a convolution or a layer norm, is left to `per_sample_gradients`: slower, the same result. The first row is
    compared with a plain gradient of its own, so that what no rule foresees is an error and not a wrong kernel.
    """
    tile = _checks.integer("tile", tile, low=1)
    _refuse_training_modules(net)
    if y_outputs is None and not isinstance(outputs, torch.Tensor):
        y_outputs = outputs
    chosen = _chosen("outputs", outputs, net, x)
    y_chosen = chosen if y is None else _chosen("y_outputs", y_outputs, net, y)
    rows = _layers(net, x, chosen)
    columns = rows if y is None else _layers(net, y, y_chosen)
    if rows is None or columns is None:
        J = per_sample_gradients(net, x, outputs=chosen)
        return J @ (J if y is None else per_sample_gradients(net, y, outputs=y_chosen)).T
    K = x.new_empty(len(x), len(x if y is None else y))
    for i in range(0, K.shape[0], tile):
        for j in range(i if y is None else 0, K.shape[1], tile):
            block = _block(rows, columns, slice(i, i + tile), slice(j, j + tile))
            if y is None and i == j:
                block = block.triu() + block.triu(1).T
            K[i : i + tile, j : j + tile] = block
            if y is None and i != j:
                K[j : j + tile, i : i + tile] = block.T
    return K


_Layer = tuple[torch.Tensor, torch.Tensor | None]
"""Inputs (n, fan_in) of a linear layer, a 1 beside them for its bias, and gradients (n, fan_out) at its outputs.

A layer with one output has its gradients multiplied into its inputs, and None in their place.
"""


def _block(rows: list[_Layer], columns: list[_Layer], i: slice, j: slice) -> torch.Tensor:
    """Return the rows `i` and columns `j` of the kernel, summed over layers."""
    (a, _), (c, _) = rows[0], columns[0]
    total = a.new_zeros(len(a[i]), len(c[j]))
    for (a, b), (c, d) in zip(rows, columns, strict=True):
        if b is None:
            total.addmm_(a[i], c[j].T)
        else:
            total.addcmul_(a[i] @ c[j].T, b[i] @ d[j].T)
    return total


def _trainable(net: nn.Module) -> dict[str, nn.Parameter]:
    found = {name: p for name, p in net.named_parameters() if p.requires_grad}
    if not found:
        raise ValueError("net must have a parameter that requires a gradient: no step moves this one")
    return found


def _chosen(name: str, outputs: torch.Tensor | int | None, net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the output that each row is about, shape (n,)."""
    with torch.no_grad():
        shape = tuple(net(x[:1]).shape[1:])
    if len(shape) != 1:
        raise ValueError(f"net must map (n, d) to (n, n_outputs), its rows come out in shape {shape}")
    if outputs is None:
        if shape[0] != 1:
            raise ValueError(f"{name} must say which of the {shape[0]} outputs of net is meant")
        outputs = 0
    one_for_all = not isinstance(outputs, torch.Tensor)
    given = np.full(len(x), _checks.integer(name, outputs)) if one_for_all else outputs.cpu().numpy()
    return torch.as_tensor(_checks.indices(name, given, high=shape[0], shape=(len(x),)))


_ALONE = "net must treat each row on its own"
_MIXING = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


def _refuse_training_modules(net: nn.Module) -> None:
    for name, module in net.named_modules():
        if isinstance(module, _MIXING) and module.training:
            raise ValueError(
                f"{_ALONE}, the same each time: {name!r} ({type(module).__name__}) is training, call net.eval()"
            )


def _layers(net: nn.Module, x: torch.Tensor, chosen: torch.Tensor) -> list[_Layer] | None:
    """Return what each linear layer saw and what it owes, or None where parameters live in other modules."""
    linear = {module: where for where, module in net.named_modules() if type(module) is nn.Linear}
    trainable = {id(p) for p in _trainable(net).values()}
    owned = {
        f"{where}.{kind}".lstrip("."): p
        for module, where in linear.items()
        for kind, p in module.named_parameters()
        if kind in ("weight", "bias") and id(p) in trainable
    }
    if {id(p) for p in owned.values()} != trainable:
        return None
    out, met = _run(net, linear, x)
    if any(a.ndim != 2 for _, a, _, _ in met):
        return None
    ran = [module for module, *_ in met]
    if any(any(id(p) in trainable for p in module.parameters()) for module in set(linear) - set(ran)):
        return None
    met = [seen for seen in met if any(id(p) in trainable for p in seen[0].parameters())]
    _refuse_double_use(linear, owned, ran, met)
    values = out.gather(1, chosen[:, None])[:, 0]
    slopes = torch.autograd.grad(values.sum(), [z for _, _, z, _ in met], materialize_grads=True)
    layers = [_layer(module, a, b) for (module, a, _, _), b in zip(met, slopes, strict=True)]
    _compare_with_one_row(net, x, chosen, values, layers)
    return layers


_Seen = tuple[nn.Linear, torch.Tensor, torch.Tensor, int]
"""A linear layer that ran, its input, its output, and how often that had been overwritten by then."""


def _run(net: nn.Module, linear: dict[nn.Linear, str], x: torch.Tensor) -> tuple[torch.Tensor, list[_Seen]]:
    """Return the output of the network, and what each linear layer saw and gave, in the order they ran."""
    met: list[_Seen] = []

    def remember(module: nn.Linear, given: tuple, out: torch.Tensor) -> None:
        met.append((module, given[0].detach(), out, out._version))  # returns nothing, else it would replace the output

    hooks = [module.register_forward_hook(remember) for module in linear]
    try:
        with torch.enable_grad():
            return net(x), met
    finally:
        for hook in hooks:
            hook.remove()


def _refuse_double_use(
    linear: dict[nn.Linear, str], owned: dict[str, nn.Parameter], ran: list[nn.Linear], met: list[_Seen]
) -> None:
    instead = "J = per_sample_gradients(net, x) has it: J @ J.T"
    first: dict[int, str] = {}
    for where, p in owned.items():
        if id(p) in first:
            raise ValueError(f"net must use each parameter once: {first[id(p)]!r} and {where!r} are one; {instead}")
        first[id(p)] = where
    for module, where in linear.items():
        if ran.count(module) > 1:
            raise ValueError(f"net must use each layer once: {where!r} ran {ran.count(module)} times; {instead}")
    for module, _, z, version in met:
        if z._version != version:
            raise ValueError(
                f"net must not overwrite the output of a layer in place: that of {linear[module]!r} was; {instead}"
            )


def _layer(module: nn.Linear, a: torch.Tensor, b: torch.Tensor) -> _Layer:
    parts = [a] if module.weight.requires_grad else []
    if module.bias is not None and module.bias.requires_grad:
        parts.append(torch.ones_like(a[:, :1]))
    a = torch.cat(parts, dim=1)
    return (a * b, None) if b.shape[1] == 1 else (a, b)


def _compare_with_one_row(
    net: nn.Module, x: torch.Tensor, chosen: torch.Tensor, values: torch.Tensor, layers: list[_Layer]
) -> None:
    """Raise unless the diagonal of the kernel is, at the first row or at the last, what one row alone makes of it."""
    for row in sorted({0, len(x) - 1} & set(range(len(x)))):  # two, as one may sit on a kink of a rectifier
        one = slice(row, row + 1)
        with torch.enable_grad():
            value = net(x[one])[0, chosen[row]]
        alone = sum(
            (slope**2).sum()
            for slope in torch.autograd.grad(value, list(_trainable(net).values()), materialize_grads=True)
        )
        found = _block(layers, layers, one, one)[0, 0]
        slack = 10 * torch.finfo(x.dtype).eps ** 0.5
        close = (found - alone).abs() <= slack * alone and (values[row] - value).abs() <= slack * values.abs().max()
        if close or not torch.isfinite(alone + found):
            return
    if len(x):
        raise ValueError(
            f"{_ALONE} and use each parameter once, inside its layer: K[{row}, {row}] is {found:.6g}, and the gradient "
            f"of this row alone has the square {alone:.6g}"
        )


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
