"""The neural tangent kernel of a network: how much a step at one input moves the value at another.

Each function here takes a network and inputs, and answers or refuses with a sentence. How gradients are held is
`linearization`; the kernel of a linear Q-function is `features.kernel`; what a kernel means is judged by `contraction`.
"""

from contextlib import AbstractContextManager

import numpy as np

from divergence_notes import _checks
from divergence_notes._checks import ArrayLike
from divergence_notes._extras import needs

with needs("neural"):
    import torch
    from torch import nn

    from divergence_notes import _passes, _rowwise, networks
    from divergence_notes.linearization import ByLayer, ByRow, Linearization, products


def per_sample_gradients(net: nn.Module, x: torch.Tensor, *, outputs: torch.Tensor | int | None = None) -> torch.Tensor:
    """Return the Jacobian of a network in its parameters, one row for each input.

    Parameters
    ----------
    net : torch.nn.Module
        Maps (n, d) to (n, n_outputs), each row on its own.
    x : tensor of shape (n, d)
        Inputs, on the device of the network.
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
        What `gram` refuses; if the result would need more than 2 GB.

    Notes
    -----
    Label ``eq-kernel``. For teaching, and to check `gram`: n * n_parameters numbers. Where ``torch.func`` cannot look
    into a module, each row has a backward pass of its own: slower, the same result.
    """
    trainable = _passes.trainable(net)
    _passes.refuse_long_rows(trainable, len(x))
    with _passes.undisturbed(net):
        _rowwise.refuse_training_modules(net)
        out = _passes.forward(net, x)
        chosen = _passes.chosen("outputs", outputs, out, len(x))
        J = _passes.row_gradients(net, trainable, x, chosen)
        found = ByRow(_passes.picked(out, chosen).detach(), list(trainable.values()), out.detach(), J)
        _rowwise.judge(net, x, chosen, out.detach(), found)
        return J


def gram(
    net: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor | None = None,
    *,
    outputs: torch.Tensor | int | None = None,
    y_outputs: torch.Tensor | int | None = None,
    tile: int = 384,
) -> torch.Tensor:
    """Return the kernel K(x, y) = J(x) J(y)^T, without forming J where the network is made of layers that are known.

    Parameters
    ----------
    net : torch.nn.Module
        Maps (n, d) to (n, n_outputs), each row on its own. It stays as it is: parameters, buffers, attributes, modes.
    x : tensor of shape (n, d)
        Inputs of the rows, on the device of the network, where the kernel is too.
    y : tensor of shape (m, d), optional
        Inputs of the columns; `x` by default, and then the kernel is symmetric to the last bit.
    outputs, y_outputs : int, or int tensor of shape (n,) and (m,), optional
        Which output a row, or a column, is about: one for all, or one for each, such as the action taken. May be left
        out where there is only one; `y_outputs` also where `outputs` is one for all.
    tile : int
        Rows and columns that are worked on at a time, fewer where a convolution would form too much.

    Returns
    -------
    tensor of shape (n, m)
        Inner products of gradients in the parameters that require one: no mean, no scaling, no trace over outputs.
        Entries that are not finite are passed on.

    Raises
    ------
    ValueError
        If `outputs` is missing where there are more than one, or does not fit; if every parameter is frozen, complex,
        not initialised, or on the meta device; if no gradient arrives at the output; if rows see each other, as in a
        batch norm that is training, or the values change from call to call, as with a dropout; if a layer does
        something with its weights that no rule foresees; if more than 2 GB would be needed.

    Notes
    -----
    Label ``eq-kernel``. A weight between an input a and a pre-activation z has the gradient b a^T, where b is the
    gradient at z, so that a linear layer adds ``(a_i . a_j + 1) (b_i . b_j)``. A convolution, and a linear layer
    on each token of a row, uses one weight at several places: with the patches P of a row, (fan_in, places), and the
    gradients b, (fan_out, places), its gradient is b P^T. That is formed for a few entries of the kernel at a time, 16
    MiB in single precision, or the inner products are summed over pairs of places, whichever takes fewer
    multiplications.

    Of other layers, such as a norm or a transposed convolution, the gradients in their own parameters are formed. A
    parameter that is used twice, or outside of its layer, a layer with a hook, one that torch cannot take a row at a
    time, and numbers of two precisions leave everything to `per_sample_gradients`: slower, the same result.

    Linear layers and rectifiers, tanh or sines one after another, in a ``torch.nn.Sequential`` or a `networks.MLP`,
    treat each row on its own by definition. Of any other network a few rows are passed once more, in other company and
    alone, and all in another order. Values that differ, and gradients of the few that do not add up to those of
    autograd, are an error and not a wrong kernel, to 3 square roots of the precision of the network: that of its
    parameters or of its outputs, whichever is coarser. Where fewer than two of these rows answer to their inputs,
    agreement says little: then rows nearby are asked too.
    """
    tile = _checks.integer("tile", tile, low=1)
    if y_outputs is None and not isinstance(outputs, torch.Tensor):
        y_outputs = outputs
    _checks.memory("the kernel", len(x), len(x if y is None else y), itemsize=x.element_size())
    rows = linearize(net, x, outputs=outputs)
    columns = rows if y is None else _linearize(net, y, "y_outputs", y_outputs, check=True)
    return products(rows, columns, tile=tile)


def linearize(
    net: nn.Module,
    x: torch.Tensor,
    *,
    outputs: torch.Tensor | int | None = None,
    check: bool = True,
    during: AbstractContextManager | None = None,
) -> Linearization:
    """Return values, kernel and gradient steps of a network at some inputs, from one pass forward and one backward.

    Parameters
    ----------
    net, x, outputs
        As in `gram`.
    check : bool
        Whether to look for what `gram` refuses. Leave it out only where the same network has passed: a training loop
        checks its first batch.
    during : context manager, optional
        Entered for the pass of all rows and left before the checks: what it watches, such as `plasticity.observe`,
        sees one pass.

    Returns
    -------
    Linearization
        Holds what each layer saw and owes; J itself only where a parameter is used otherwise than by its own layer.

    Raises
    ------
    ValueError
        As `gram`.

    Notes
    -----
    Label ``eq-kernel``.
    """
    return _linearize(net, x, "outputs", outputs, check=check, during=during)


def linearize_each(net: nn.Module, x: torch.Tensor, *, check: bool = True) -> list[Linearization]:
    """Return what `linearize` does for every output of a network, an ensemble for example, from one pass forward.

    Parameters
    ----------
    net, x, check
        As in `linearize`.

    Returns
    -------
    list of Linearization
        One for each output, in their order. What the layers saw is held once for all of them.

    Raises
    ------
    ValueError
        As `gram`.

    Notes
    -----
    Label ``eq-kernel``. Each output has a backward pass of its own. Layers at which nothing of it arrives, those of the
    other members of an ensemble, are left out of its kernel.
    """
    trainable, owners = _passes.trainable(net), _passes.layers(net)
    check = check and not (x.ndim == 2 and _passes.chain(net))
    with _passes.undisturbed(net):
        if check:
            _rowwise.refuse_training_modules(net)
        out, met = _passes.run(net, owners, x)
        _passes.chosen("outputs", 0, out, len(x))  # says what is wrong with their shape
        found = []
        for k in range(out.shape[1]):
            chosen, again = torch.full((len(x),), k, device=out.device), k + 1 < out.shape[1]
            line = _passes.linearized(net, trainable, owners, x, chosen, out, met, again=again)
            if check:
                _rowwise.judge(net, x, chosen, out.detach(), line, whole=k == 0)
            found.append(line.reached() if isinstance(line, ByLayer) else line)
        return found


def _linearize(
    net: nn.Module,
    x: torch.Tensor,
    name: str,
    outputs: torch.Tensor | int | None,
    *,
    check: bool,
    during: AbstractContextManager | None = None,
) -> Linearization:
    steps = _passes.chain(net) if x.ndim == 2 else []
    owners = steps or _passes.layers(net)
    width = sum(m.in_features + m.out_features for m in owners if type(m) is nn.Linear)
    _checks.memory("inputs and slopes of the layers", len(x), width, itemsize=x.element_size())
    if steps:  # nothing to check
        return _passes.plainly(steps, x, name, outputs, during)
    trainable = _passes.trainable(net)
    with _passes.undisturbed(net):
        if check:
            _rowwise.refuse_training_modules(net)
        out, met = _passes.run(net, owners, x, during)
        chosen = _passes.chosen(name, outputs, out, len(x))
        found = _passes.linearized(net, trainable, owners, x, chosen, out, met)
        if check:
            _rowwise.judge(net, x, chosen, out.detach(), found)
        return found


def hessian(net: nn.Module, x: torch.Tensor, *, outputs: int | None = None) -> torch.Tensor:
    """Return the second derivatives of an output of a network in its parameters, at one input.

    Parameters
    ----------
    net : torch.nn.Module
        Maps (n, d) to (n, n_outputs), each row on its own.
    x : tensor of shape (d,)
        The input, on the device of the network.
    outputs : int, optional
        Which output is meant. May be left out where there is only one.

    Returns
    -------
    tensor of shape (n_parameters, n_parameters)
        Parameters in the order of ``net.parameters()``, those left out that do not require a gradient: as the columns
        of `per_sample_gradients`.

    Raises
    ------
    ValueError
        What `gram` refuses at one row; if a parameter has a hook; if the result would need more than 2 GB.

    Notes
    -----
    Label ``eq-second-order``.
    """
    trainable = _passes.trainable(net)
    parameters = list(trainable.values())
    size = sum(p.numel() for p in parameters)
    _checks.memory("the second derivatives", size, size, itemsize=parameters[0].element_size())
    if any(p._backward_hooks for p in parameters):  # it is called for both derivatives, and nothing shows it
        raise ValueError(_rowwise.HOOKED)
    with _passes.undisturbed(net):
        _rowwise.refuse_training_modules(net)
        row = x[None].detach()
        out = _passes.forward(net, row).detach()
        chosen = _passes.chosen("outputs", outputs, out, 1)
        again, complaint = _rowwise.same_values(
            net, row, out, chosen.new_zeros(1), row, _rowwise.tolerance(net, out) * out.abs()
        )
        if complaint:
            raise ValueError(complaint)
        (value,) = _passes.picked(again, chosen)
        slopes = torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True)
        rows = []
        for slope in torch.cat([_passes.flat(slope, p) for slope, p in zip(slopes, parameters, strict=True)]):
            second = (
                _passes.gradients(slope, parameters, again=True) if slope.requires_grad else [None] * len(parameters)
            )
            rows.append(torch.cat([_passes.flat(each, p) for each, p in zip(second, parameters, strict=True)]))
    H = torch.stack(rows)
    skew = (H - H.T).abs().max()
    if (
        skew > _rowwise.tolerance(net, H) * H.abs().max()
    ):  # the fused weight norm of some releases of torch is such a one
        raise ValueError(
            f"net must have second derivatives, those of torch differ by {skew:.3g} from their transpose: "
            "one of its operations has none that are right, write it out by hand"
        )
    return H


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
