"""The neural tangent kernel of a network: how much a step at one input moves the value at another."""

from dataclasses import dataclass

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
    with torch.no_grad():
        chosen = _chosen("outputs", outputs, net(x[:1]), len(x))

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
    if y_outputs is None and not isinstance(outputs, torch.Tensor):
        y_outputs = outputs
    rows = linearize(net, x, outputs=outputs)
    if y is None:
        return rows.gram(tile=tile)
    return _products(rows, _linearize(net, y, "y_outputs", y_outputs, check=True), tile)


@dataclass(frozen=True, eq=False)
class Linearization:
    """A network at some inputs, to first order in its parameters: values, kernel, and the steps that gradients make."""

    values: torch.Tensor
    """The chosen output at each input, shape (n,); no gradient flows into it."""
    _parameters: list[nn.Parameter]
    _layers: "list[_Layer] | None"
    _jacobian: torch.Tensor | None

    def head(self, n: int) -> "Linearization":
        """Return the linearization at the first n inputs; nothing is computed again.

        Parameters
        ----------
        n : int
            How many.

        Returns
        -------
        Linearization
            A view of this one.
        """
        layers = self._layers and [_Layer(layer.module, layer.a[:n], layer.b[:n]) for layer in self._layers]
        jacobian = None if self._jacobian is None else self._jacobian[:n]
        return Linearization(self.values[:n], self._parameters, layers, jacobian)

    def gram(self, *, tile: int = 384) -> torch.Tensor:
        """Return the kernel J J^T of the inputs.

        Parameters
        ----------
        tile : int
            As in the function `gram` of this module.

        Returns
        -------
        tensor of shape (n, n)
            Symmetric to the last bit.
        """
        return _products(self, self, tile)

    def pull_back(self, weights: torch.Tensor) -> list[torch.Tensor]:
        """Return J^T w: the gradients of the values, weighted and summed.

        Parameters
        ----------
        weights : tensor of shape (n,)
            One weight for each input.

        Returns
        -------
        list of tensors
            One for each parameter that requires a gradient, in its shape and in the order of ``net.parameters()``.
        """
        if self._layers is None:
            flat = self._jacobian.T @ weights
            sizes = [p.numel() for p in self._parameters]
            return [part.view_as(p) for part, p in zip(flat.split(sizes), self._parameters, strict=True)]
        found = {id(p): slope for layer in self._layers for p, slope in layer.pull_back(weights)}
        return [found[id(p)] if id(p) in found else torch.zeros_like(p) for p in self._parameters]


def linearize(
    net: nn.Module, x: torch.Tensor, *, outputs: torch.Tensor | int | None = None, check: bool = True
) -> Linearization:
    """Return values, kernel and gradient steps of a network at some inputs, from one pass forward and one backward.

    Parameters
    ----------
    net, x, outputs
        As in `gram`.
    check : bool
        Whether to look for what `gram` refuses. Leave it out only where the same network has passed: a training loop
        checks its first batch.

    Returns
    -------
    Linearization
        Holds what each linear layer saw and owes, n * (fan_in + fan_out) numbers; J itself only for other modules.

    Raises
    ------
    ValueError
        As `gram`.

    Notes
    -----
    Label ``eq-kernel``.
    """
    return _linearize(net, x, "outputs", outputs, check=check)


def _linearize(
    net: nn.Module, x: torch.Tensor, name: str, outputs: torch.Tensor | int | None, *, check: bool
) -> Linearization:
    if check:
        _refuse_training_modules(net)
    linear = {module: where for where, module in net.named_modules() if type(module) is nn.Linear}
    trainable = _trainable(net)
    out, met = _run(net, linear, x)
    chosen = _chosen(name, outputs, out, len(x))
    with torch.enable_grad():
        values = out.gather(1, chosen[:, None])[:, 0]
    layers = _layers(linear, trainable, met, values, check=check)
    values, parameters = values.detach(), list(trainable.values())
    if layers is None:
        return Linearization(values, parameters, None, per_sample_gradients(net, x, outputs=chosen))
    if check:
        _compare_with_one_row(net, x, chosen, values, layers)
    return Linearization(values, parameters, layers, None)


def _products(rows: Linearization, columns: Linearization, tile: int) -> torch.Tensor:
    """Return all inner products of the gradients of the rows with those of the columns."""
    if rows._layers is None or columns._layers is None:
        return rows._jacobian @ columns._jacobian.T
    symmetric = rows is columns
    K = rows.values.new_empty(len(rows.values), len(columns.values))
    for i in range(0, K.shape[0], tile):
        for j in range(i if symmetric else 0, K.shape[1], tile):
            block = _block(rows._layers, columns._layers, slice(i, i + tile), slice(j, j + tile))
            if symmetric and i == j:
                block = block.triu() + block.triu(1).T
            K[i : i + tile, j : j + tile] = block
            if symmetric and i != j:
                K[j : j + tile, i : i + tile] = block.T
    return K


@dataclass(frozen=True, eq=False)
class _Layer:
    """What a linear layer saw and what it owes."""

    module: nn.Linear
    a: torch.Tensor
    """Inputs, shape (n, fan_in)."""
    b: torch.Tensor
    """Gradients at the outputs, shape (n, fan_out)."""

    @property
    def weight_moves(self) -> bool:
        return self.module.weight.requires_grad

    @property
    def bias_moves(self) -> bool:
        return self.module.bias is not None and self.module.bias.requires_grad

    def products(self, other: "_Layer", i: slice, j: slice) -> torch.Tensor:
        """Return the inner products of the gradients of some rows with those of some rows of another."""
        outer = self.b[i] @ other.b[j].T
        if not self.weight_moves:
            return outer
        inner = self.a[i] @ other.a[j].T
        return (inner.add_(1) if self.bias_moves else inner).mul_(outer)

    def pull_back(self, weights: torch.Tensor) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Return the weighted sum of the gradients of each parameter of the layer that moves."""
        scaled = self.b * weights[:, None]  # (n, fan_out)
        parts = [(self.module.weight, scaled.T @ self.a)] if self.weight_moves else []
        return [*parts, (self.module.bias, scaled.sum(dim=0))] if self.bias_moves else parts


def _block(rows: list[_Layer], columns: list[_Layer], i: slice, j: slice) -> torch.Tensor:
    """Return the rows `i` and columns `j` of the kernel, summed over layers."""
    first, *rest = zip(rows, columns, strict=True)
    total = first[0].products(first[1], i, j)
    for row, column in rest:
        total += row.products(column, i, j)
    return total


def _trainable(net: nn.Module) -> dict[str, nn.Parameter]:
    found = {name: p for name, p in net.named_parameters() if p.requires_grad}
    if not found:
        raise ValueError("net must have a parameter that requires a gradient: no step moves this one")
    return found


def _chosen(name: str, outputs: torch.Tensor | int | None, out: torch.Tensor, n: int) -> torch.Tensor:
    """Return the output that each of n rows is about, shape (n,), given what the network made of some rows."""
    shape = tuple(out.shape[1:])
    if len(shape) != 1:
        raise ValueError(f"net must map (n, d) to (n, n_outputs), its rows come out in shape {shape}")
    if outputs is None:
        if shape[0] != 1:
            raise ValueError(f"{name} must say which of the {shape[0]} outputs of net is meant")
        outputs = 0
    if not isinstance(outputs, torch.Tensor):
        outputs = torch.full((n,), _checks.integer(name, outputs))
    return torch.as_tensor(_checks.indices(name, outputs.cpu().numpy(), high=shape[0], shape=(n,)))


_ALONE = "net must treat each row on its own"
_MIXING = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


def _refuse_training_modules(net: nn.Module) -> None:
    for name, module in net.named_modules():
        if isinstance(module, _MIXING) and module.training:
            raise ValueError(
                f"{_ALONE}, the same each time: {name!r} ({type(module).__name__}) is training, call net.eval()"
            )


def _layers(
    linear: dict[nn.Linear, str],
    trainable: dict[str, nn.Parameter],
    met: "list[_Seen]",
    values: torch.Tensor,
    *,
    check: bool,
) -> list[_Layer] | None:
    """Return what each linear layer saw and owes, or None where parameters live in other modules."""
    owned = {
        f"{where}.{kind}".lstrip("."): p
        for module, where in linear.items()
        for kind, p in (("weight", module.weight), ("bias", module.bias))
        if p is not None and p.requires_grad
    }
    if {id(p) for p in owned.values()} != {id(p) for p in trainable.values()} or any(a.ndim != 2 for _, a, _, _ in met):
        return None
    ran = [module for module, *_ in met]
    if any(p.requires_grad for module in set(linear) - set(ran) for p in module.parameters()):
        return None
    met = [seen for seen in met if any(p.requires_grad for p in seen[0].parameters())]
    if check:
        _refuse_double_use(linear, owned, ran, met)
    upstream = torch.ones_like(values)  # rows do not see each other: the gradient of the sum has one row for each
    slopes = torch.autograd.grad(values, [z for _, _, z, _ in met], upstream, materialize_grads=True)
    return [_Layer(module, a, b) for (module, a, _, _), b in zip(met, slopes, strict=True)]


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
