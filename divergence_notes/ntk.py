"""The neural tangent kernel of a network: how much a step at one input moves the value at another."""

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad, vmap

from divergence_notes import _checks, networks
from divergence_notes._checks import ArrayLike


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
    trainable = _trainable(net)
    _refuse_long_rows(trainable, len(x))
    with _undisturbed(net):
        _refuse_training_modules(net)
        out = _forward(net, x)
        chosen = _chosen("outputs", outputs, out, len(x))
        J = _jacobian(net, trainable, x, chosen)
        linear = Linearization(_values(out, chosen).detach(), list(trainable.values()), None, J)
        _judge(net, x, chosen, out.detach(), linear)
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
    """Return the kernel K(x, y) = J(x) J(y)^T, without forming J where the network is made of linear layers.

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
        Rows and columns that are worked on at a time.

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
    gradient at z, so that a linear layer adds ``(a_i . a_j + 1) (b_i . b_j)``. Any other module that holds a parameter,
    a convolution or a layer norm, and a parameter that is used twice, is left to `per_sample_gradients`: slower, the
    same result.

    A few rows are passed once more, in other company and alone, and all in another order. Values that differ, and
    gradients of the few that do not add up to those of autograd, are an error and not a wrong kernel, to 3 square roots
    of the precision of the network.
    Where fewer than two of these rows answer to their inputs, agreement says little: then rows nearby are asked too.
    """
    tile = _checks.integer("tile", tile, low=1)
    if y_outputs is None and not isinstance(outputs, torch.Tensor):
        y_outputs = outputs
    _checks.memory("the kernel", len(x), len(x if y is None else y), itemsize=x.element_size())
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
        return self._at(slice(n))

    def _at(self, rows: slice | torch.Tensor) -> "Linearization":
        """Return the linearization at some of the inputs."""
        layers = (
            None
            if self._layers is None
            else [_Layer(layer.module, layer.a[rows], layer.b[rows]) for layer in self._layers]
        )
        jacobian = None if self._jacobian is None else self._jacobian[rows]
        return Linearization(self.values[rows], self._parameters, layers, jacobian)

    def _lengths(self) -> torch.Tensor:
        """Return the Euclidean length of each gradient, shape (n,)."""
        if self._layers is None:
            return torch.linalg.vector_norm(self._jacobian.to(_wide(self._jacobian)), dim=1)
        return sum((layer.squares() for layer in self._layers), torch.zeros_like(self.values)).sqrt()

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
        _checks.memory("the kernel", len(self.values), len(self.values), itemsize=self.values.element_size())
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
    trainable = _trainable(net)
    with _undisturbed(net):
        if check:
            _refuse_training_modules(net)
        linear = _linear_layers(net)
        _checks.memory("inputs and slopes of the layers", len(x), sum(map(_width, linear)), itemsize=x.element_size())
        out, met = _run(net, linear, x)
        chosen = _chosen(name, outputs, out, len(x))
        found = _linearized(net, trainable, linear, x, chosen, out, met)
        if check:
            _judge(net, x, chosen, out.detach(), found)
        return found


def _linearized(
    net: nn.Module,
    trainable: dict[str, nn.Parameter],
    linear: dict[nn.Linear, str],
    x: torch.Tensor,
    chosen: torch.Tensor,
    out: torch.Tensor,
    met: "list[_Seen]",
) -> Linearization:
    """Return the network to first order, given what a pass forward left behind."""
    values = _values(out, chosen)
    layers = _layers(linear, trainable, met, values)
    jacobian = _jacobian(net, trainable, x, chosen) if layers is None else None
    return Linearization(values.detach(), list(trainable.values()), layers, jacobian)


def _products(rows: Linearization, columns: Linearization, tile: int) -> torch.Tensor:
    """Return all inner products of the gradients of the rows with those of the columns."""
    symmetric = rows is columns
    n, m = len(rows.values), len(columns.values)
    with _own_precision(rows.values.device):
        if not _same_layers(rows, columns):
            K = _whole(rows) @ _whole(columns).T
            return K.triu() + K.triu(1).T if symmetric else K
        K = rows.values.new_empty(n, m)
        for i in range(0, n, tile):
            for j in range(i if symmetric else 0, m, tile):
                block = _block(rows._layers, columns._layers, slice(i, i + tile), slice(j, j + tile))
                if symmetric and i == j:
                    block = block.triu() + block.triu(1).T
                K[i : i + tile, j : j + tile] = block
                if symmetric and i != j:
                    K[j : j + tile, i : i + tile] = block.T
        return K


def _same_layers(rows: Linearization, columns: Linearization) -> bool:
    """Return whether layer stands beside layer; a network may take another way with other inputs."""
    if not rows._layers or not columns._layers:
        return False
    return [layer.module for layer in rows._layers] == [layer.module for layer in columns._layers]


def _whole(linear: Linearization) -> torch.Tensor:
    """Return the Jacobian, shape (n, n_parameters)."""
    if linear._layers is None:
        return linear._jacobian
    n, sizes = len(linear.values), [p.numel() for p in linear._parameters]
    _checks.memory("the gradients of all rows", n, sum(sizes), itemsize=linear.values.element_size())
    found = {id(p): slopes for layer in linear._layers for p, slopes in layer.slopes()}
    parts = [
        found[id(p)] if id(p) in found else linear.values.new_zeros(n, size)
        for p, size in zip(linear._parameters, sizes, strict=True)
    ]
    return torch.cat(parts, dim=1)


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

    def squares(self) -> torch.Tensor:
        """Return the squared length of the gradient of each row, shape (n,)."""
        outer = self.b.to(_wide(self.b)).square().sum(dim=1)
        if not self.weight_moves:
            return outer
        return (self.a.to(_wide(self.a)).square().sum(dim=1) + self.bias_moves) * outer

    def slopes(self) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Return the gradients of each row in each parameter of the layer that moves, shape (n, size)."""
        outer = (self.b[:, :, None] * self.a[:, None, :]).flatten(1) if self.weight_moves else None
        parts = [(self.module.weight, outer)] if self.weight_moves else []
        return [*parts, (self.module.bias, self.b)] if self.bias_moves else parts

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


def _refuse_long_rows(trainable: dict[str, nn.Parameter], n: int) -> None:
    """Raise where all gradients of n rows would need more than 2 GB."""
    itemsize = max(p.element_size() for p in trainable.values())
    _checks.memory("the gradients of all rows", n, sum(p.numel() for p in trainable.values()), itemsize=itemsize)


def _trainable(net: nn.Module) -> dict[str, nn.Parameter]:
    found = {name: p for name, p in net.named_parameters() if p.requires_grad}
    if not found:
        raise ValueError("net must have a parameter that requires a gradient: no step moves this one")
    where = next(iter(found.values())).device
    for name, p in found.items():
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise ValueError(f"net must know its sizes: {name!r} is not initialised, call net once")
        if p.is_complex():
            raise ValueError(f"net must have real parameters, {name!r} is {p.dtype}: hold its two parts as two")
        if p.device != where:
            raise ValueError(f"net must be on one device, {name!r} is on {p.device} and others on {where}: move it")
        if p.is_meta:
            raise ValueError(f"net must hold numbers, {name!r} is on the meta device: call net.to_empty and load it")
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
    if isinstance(outputs, torch.Tensor):
        given = outputs.cpu().numpy()
    else:
        given = np.full(n, _checks.integer(name, outputs))
    return torch.from_numpy(_checks.indices(name, given, high=shape[0], shape=(n,))).to(out.device)


def _values(out: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return the chosen output of each row, shape (n,)."""
    return out.gather(1, chosen[:, None])[:, 0]


@contextmanager
def _undisturbed(net: nn.Module) -> Iterator[None]:
    """Let gradients flow whatever the caller switched off, in the precision of the network, and put generators back."""
    device = next(net.parameters()).device
    module = torch.get_device_module(device.type) if device.type in ("cuda", "xpu") else None
    drawn = torch.get_rng_state()
    with_module = module is not None and module.is_available()
    drawn_there = module.get_rng_state(device) if with_module else None
    try:
        with torch.inference_mode(False), torch.enable_grad(), _own_precision(device):
            yield
    finally:
        torch.set_rng_state(drawn)
        if with_module:
            module.set_rng_state(drawn_there, device)


def _own_precision(device: torch.device) -> AbstractContextManager:
    """Switch the caller's autocast off, where the device has one."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


@contextmanager
def _put_back(net: nn.Module) -> Iterator[None]:
    """Lend copies of the buffers to every module, and give back buffers and attributes as they were."""
    kept, lent = [], {}
    for module in net.modules():
        if isinstance(module, torch.jit.ScriptModule):  # it keeps its buffers where Python cannot replace them
            kept.append((module, None, [(b, b.detach().clone()) for b in module.buffers(recurse=False)]))
            continue
        parts = [module._parameters, module._buffers, module._modules]
        kept.append((module, dict(module.__dict__), [(part, dict(part)) for part in parts]))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = lent.setdefault(id(buffer), buffer.detach().clone())
    try:
        yield
    finally:
        for module, attributes, parts in kept:
            if attributes is None:
                for buffer, before in parts:
                    buffer.copy_(before)
                continue
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for part, before in parts:
                part.clear()
                part.update(before)


def _forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return what the network, as it stands now, makes of a copy of some inputs."""
    with _put_back(net):
        out = net(x.clone())
    if not isinstance(out, torch.Tensor):
        raise ValueError(f"net must return one tensor, it returns a {type(out).__name__}: wrap it, and pick one")
    if out.ndim < 1 or len(out) != len(x):
        raise ValueError(
            f"net must map (n, d) to (n, n_outputs), it maps {tuple(x.shape)} to {tuple(out.shape)}: "
            "keep the axis of the rows, also where it has one row"
        )
    if not out.dtype.is_floating_point:
        raise ValueError(f"net must have real outputs, they are {out.dtype}")
    if not out.requires_grad:
        raise ValueError("net must let gradients through, none arrives at its output: look for no_grad and detach")
    return out


def _gradients(
    value: torch.Tensor,
    inputs: list[torch.Tensor] | list[GradientEdge],
    upstream: torch.Tensor | None = None,
    *,
    again: bool = False,
) -> list[torch.Tensor | None]:
    """Return gradients of a value, None where nothing of it arrives; `again` where more will be asked of its graph."""
    try:
        return list(torch.autograd.grad(value, inputs, upstream, retain_graph=again, allow_unused=True))
    except RuntimeError as error:  # overwritten in place, or a checkpoint of the old kind: autograd says which
        raise ValueError(f"net must let autograd through: {str(error).splitlines()[0]}") from error


_Seen = tuple[nn.Linear, torch.Tensor, int, GradientEdge | None]
"""A linear layer that ran, its input, how often that had been overwritten by then, and where its output stands in the
graph; None where no gradient passes."""


def _linear_layers(net: nn.Module) -> dict[nn.Linear, str]:
    """Return the layers that can be watched, with their names: those that no one else watches or has compiled."""
    modules = dict(net.named_modules())
    if any(type(module).__name__ == "OptimizedModule" for module in modules.values()):
        return {}
    return {
        module: where
        for where, module in modules.items()
        if type(module) is nn.Linear and not module._forward_hooks and not module._forward_pre_hooks
    }


def _width(layer: nn.Linear) -> int:
    return layer.in_features + layer.out_features


def _run(net: nn.Module, linear: dict[nn.Linear, str], x: torch.Tensor) -> tuple[torch.Tensor, list[_Seen]]:
    """Return the output of the network, and what each linear layer saw and gave, in the order they ran."""
    met: list[_Seen] = []

    def remember(module: nn.Linear, given: tuple, named: dict, out: torch.Tensor) -> None:
        a = given[0] if given else named["input"]
        # the edge, not the tensor: a rectifier in place will overwrite the tensor
        edge = get_gradient_edge(out) if out.requires_grad else None
        met.append((module, a.detach(), a._version, edge))  # returns nothing, else it would replace the output

    hooks = [module.register_forward_hook(remember, with_kwargs=True) for module in linear]
    try:
        return _forward(net, x), met
    finally:
        for hook in hooks:
            hook.remove()


def _layers(
    linear: dict[nn.Linear, str], trainable: dict[str, nn.Parameter], met: list[_Seen], values: torch.Tensor
) -> "list[_Layer] | None":
    """Return what each linear layer saw and owes, or None where the rule of a linear layer does not say it all."""
    owned = [p for module in linear for p in module.parameters() if p.requires_grad]
    once = len(owned) == len({id(p) for p in owned}) and len(met) == len({module for module, *_ in met})
    if not once or {id(p) for p in owned} != {id(p) for p in trainable.values()}:
        return None
    if any(a.ndim != 2 or len(a) != len(values) or a._version != version for _, a, version, _ in met):
        return None
    reached, uses = _graph(values)
    seen = [each for each in met if each[3] is not None and each[3].node in reached]
    expected = Counter(id(p) for module, *_ in seen for p in module.parameters() if p.requires_grad)
    if uses != expected:  # a weight is used by hand as well, or instead
        return None
    seen = [each for each in seen if any(p.requires_grad for p in each[0].parameters())]
    upstream = torch.ones_like(values)  # rows do not see each other: the gradient of the sum has one row for each
    slopes = _gradients(values, [edge for *_, edge in seen], upstream) if seen else []
    return [_Layer(module, a, b) for (module, a, *_), b in zip(seen, slopes, strict=True)]


def _graph(values: torch.Tensor) -> tuple[set, Counter]:
    """Return the nodes that gradients of the values pass, and how often each parameter stands at an end of them."""
    reached, waiting, uses = set(), [values.grad_fn], Counter()
    while waiting:
        node = waiting.pop()
        if node in reached:
            continue
        reached.add(node)
        for other, _ in node.next_functions:
            if other is None:
                continue
            if hasattr(other, "variable"):
                uses[id(other.variable)] += 1
            else:
                waiting.append(other)
    return reached, uses


def _jacobian(
    net: nn.Module, trainable: dict[str, nn.Parameter], x: torch.Tensor, chosen: torch.Tensor
) -> torch.Tensor:
    """Return the gradient of each row passed alone, shape (n, n_parameters)."""
    parameters = list(trainable.values())
    _refuse_long_rows(trainable, len(x))

    def value(p: dict, row: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return functional_call(net, p, row.clone()[None])[0].gather(0, output[None])[0]

    if not len(x):
        return torch.cat([torch.zeros_like(p).reshape(-1) for p in parameters])[None][:0]
    if not any(type(module).__name__ == "OptimizedModule" for module in net.modules()):
        held = {name: p.detach() for name, p in trainable.items()}
        try:
            with _put_back(net), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what has no rule for a batch is slow, and says so
                slopes = vmap(grad(value), in_dims=(None, 0, 0))(held, x.detach(), chosen)
            return torch.cat([slopes[name].reshape(len(x), -1) for name in held], dim=1)
        except Exception:  # no rule for a batch of these operations: what is wrong with the network, the rows will say
            pass
    rows = []
    for k in range(len(x)):
        try:
            out = _forward(net, x[k : k + 1])
        except Exception as error:  # a network may raise anything
            raise ValueError(_fails(net, k, "alone", error)) from error
        slopes = _gradients(_values(out, chosen[k : k + 1])[0], parameters)
        rows.append(torch.cat([_flat(slope, p) for slope, p in zip(slopes, parameters, strict=True)]))
    return torch.stack(rows)


def _flat(slope: torch.Tensor | None, p: torch.Tensor) -> torch.Tensor:
    if slope is None:
        return torch.zeros_like(p).reshape(-1)
    return (slope.to_dense() if slope.is_sparse else slope).reshape(-1)


_ALONE = "net must treat each row on its own, the same each time"
_LOOK = "look for what runs over the batch, a mean, a norm, an attention or a recurrence along axis 0"
_HOOKED = "net must have gradients that no hook of a parameter changes: remove the hook, clip what the optimizer sees"
_FEW = 8
"""Rows that are passed once more."""


def _refuse_training_modules(net: nn.Module) -> None:
    for name, module in net.named_modules():
        dropping = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if module.training and (dropping or norm):
            raise ValueError(f"{_ALONE}: {name!r} ({type(module).__name__}) is training, call net.eval()")
        if norm and module.running_mean is None:
            raise ValueError(f"{_ALONE}: {name!r} ({type(module).__name__}) keeps no statistics, it takes the batch's")


def _wide(t: torch.Tensor) -> torch.dtype:
    """Return a precision in which squares of many entries can be added."""
    return torch.promote_types(t.dtype, torch.float32)


def _slack(dtype: torch.dtype) -> float:
    return min(3 * torch.finfo(dtype).eps ** 0.5, 0.1)


def _judge(net: nn.Module, x: torch.Tensor, chosen: torch.Tensor, out: torch.Tensor, found: Linearization) -> None:
    """Raise unless values and gradients are those of each row alone, as far as a few rows can say."""
    n = len(x)
    if not n:
        return
    every = torch.arange(n, device=out.device)
    few = every if found._layers is None else every[:: -(-n // _FEW)]
    few, every = few.flip(0), every.flip(0)  # in another order, so that no row stays the first or the last
    complaint, live, sure = _compare(net, x, chosen, out, found, few)
    if complaint and not sure and len(few) < n:
        # a rectifier at its kink may have switched; all together switch as before
        complaint, live, sure = _compare(net, x, chosen, out, found, every)
        sure = True
    if not complaint and len(few) < n:  # what some rows only do to each other shows in the values of all
        other = torch.cat([every[::2], every[1::2]])
        slack = _slack(out.dtype) * torch.nan_to_num(out, posinf=0.0, neginf=0.0).abs().max()
        complaint = _same_values(net, x, out, other, x[other], slack)[1]
        sure = True
    little = live < 2 or n < 4
    elsewhere = _nearby(net, x, chosen, found) if little or (complaint and not sure) else None
    if complaint and not sure:
        complaint = elsewhere  # a row alone switched a rectifier at its kink, unless it is the same at other rows
    if complaint or elsewhere:
        raise ValueError(complaint or elsewhere)


def _nearby(net: nn.Module, x: torch.Tensor, chosen: torch.Tensor, found: Linearization) -> str | None:
    """Return what is wrong at some other rows near the first ones, or None."""
    rows = torch.arange(max(6, len(x) if found._layers is None else 6), device=x.device) % len(x)
    other = x[rows].clone()
    if x.dtype.is_floating_point:
        other = torch.nan_to_num(other, posinf=0.0, neginf=0.0)
        pattern = torch.arange(other.numel(), device=x.device).reshape(other.shape)
        size = other.abs().max().clamp(min=1e-3)
        other += 0.3 * size * torch.cos(2.4 * (pattern + 1)).to(x.dtype)
    try:
        trainable, linear = _trainable(net), _linear_layers(net) if found._layers is not None else {}
        out, met = _run(net, linear, other)
        again = _linearized(net, trainable, linear, other, chosen[rows], out, met)
        return _compare(net, other, chosen[rows], out.detach(), again, torch.arange(len(rows), device=x.device))[0]
    except (ValueError, RuntimeError, IndexError):  # the network is not made for such rows
        return None


def _compare(
    net: nn.Module,
    x: torch.Tensor,
    chosen: torch.Tensor,
    out: torch.Tensor,
    found: Linearization,
    rows: torch.Tensor,
) -> tuple[str | None, int, bool]:
    """Return what is wrong at some rows, how many of them answer to their inputs, and whether a kink is no excuse."""
    part = found._at(rows)
    lengths = part._lengths()
    fine = lengths.isfinite() & out[rows].isfinite().all(dim=1)
    if not fine.all():  # what is not finite is no evidence
        if not fine.any():
            return None, 0, True
        rows, part, lengths = rows[fine], part._at(fine), lengths[fine]
    given = x[rows].detach()
    if given.dtype.is_floating_point:
        given.requires_grad_()
    slack = _slack(out.dtype) * out[rows].abs().max()
    again, complaint = _same_values(net, x, out, rows, given, slack)
    for k in [] if len(rows) < len(x) else rows[:3].tolist():
        one = torch.arange(k, k + 1, device=x.device)
        complaint = complaint or _same_values(net, x, out, one, x[one], slack)[1]
    if complaint:
        return complaint, len(rows), True
    parameters = found._parameters
    k = torch.arange(len(rows), device=out.device)
    signs = (1 - 2 * (k % 2)) * (1 + (0.618 * k) % 1)  # all different, as rows that see each other might cancel
    smallest = torch.where(lengths > 0, lengths, torch.inf).min()
    unit = torch.where(lengths > 0, lengths, torch.where(smallest.isfinite(), smallest, 1.0))
    weights = (signs / unit).to(out.dtype)
    asked = [*parameters, given] if given.requires_grad else parameters
    slopes = _gradients(_values(again, chosen[rows]), asked, weights)
    answers = slopes.pop() if given.requires_grad else None
    live = len(rows)
    if given.requires_grad:
        live = 0 if answers is None else int((answers.reshape(len(rows), -1) != 0).any(dim=1).sum())
    if torch.equal(given, given[:1].expand_as(given)):  # rows that are the same see nothing new in each other
        live = 0
    missed = [
        (_flat(slope, p) - mine.reshape(-1)).to(_wide(p))
        for slope, p, mine in zip(slopes, parameters, part.pull_back(weights), strict=True)
    ]
    missed = nn.utils.get_total_norm(missed) / torch.linalg.vector_norm(weights.to(_wide(weights)) * unit)
    if missed.isfinite() and missed > _slack(out.dtype):
        return _of_gradients(net, found, float(missed)), live, False
    return None, live, True


def _same_values(
    net: nn.Module,
    x: torch.Tensor,
    out: torch.Tensor,
    rows: torch.Tensor,
    given: torch.Tensor,
    slack: torch.Tensor,
) -> tuple[torch.Tensor, str | None]:
    """Return what the network makes of some rows in other company, and how that differs from the whole batch."""
    company = "alone" if len(rows) == 1 else f"among {len(rows)} of them"
    try:
        again = _forward(net, given)
    except Exception as error:  # a network may raise anything
        return out[rows], _fails(net, int(rows[0]), company, error)
    wrong = ((again.detach() - out[rows]).abs() > slack).nonzero()
    if not len(wrong):
        return again, None
    i, j = wrong[0].tolist()
    row, drawn = int(rows[i]), torch.get_rng_state()
    repeated = _forward(net, x).detach()
    if not torch.equal(drawn, torch.get_rng_state()) or ((repeated - out).abs() > slack).any():
        return again, (
            f"{_ALONE}: row {row} has the value {out[row, j]:.6g} and, asked again, {again[i, j]:.6g}; "
            f"the network draws random numbers or counts its calls{_eval(net)}"
        )
    return again, (
        f"{_ALONE}: row {row} has the value {out[row, j]:.6g} among {len(x)} rows and {again[i, j]:.6g} {company}; "
        f"{_LOOK}{_eval(net)}"
    )


def _fails(net: nn.Module, row: int, company: str, error: Exception) -> str:
    return f"{_ALONE}: row {row} {company} raises {type(error).__name__}: {error}; {_LOOK}{_eval(net)}"


def _eval(net: nn.Module) -> str:
    return ", and call net.eval()" if any(module.training for module in net.modules()) else ""


def _of_gradients(net: nn.Module, found: Linearization, missed: float) -> str:
    if any(p._backward_hooks for p in found._parameters):
        return f"{_HOOKED}; the gradients are off by {missed:.2g} of a row's length"
    if found._layers is not None:
        return (
            f"{_ALONE}, and use each weight as its layer does: the gradients of the layers do not add up to that of "
            f"the network, by {missed:.2g} of a row's length; J = per_sample_gradients(net, x) may have it: J @ J.T"
        )
    return (
        f"{_ALONE}: the gradients of the rows alone do not add up to that of the batch, by {missed:.2g} of a row's "
        f"length; {_LOOK}{_eval(net)}"
    )


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
    trainable = _trainable(net)
    parameters = list(trainable.values())
    size = sum(p.numel() for p in parameters)
    _checks.memory("the second derivatives", size, size, itemsize=parameters[0].element_size())
    if any(p._backward_hooks for p in parameters):  # it is called for both derivatives, and nothing shows it
        raise ValueError(_HOOKED)
    with _undisturbed(net):
        _refuse_training_modules(net)
        row = x[None].detach()
        out = _forward(net, row).detach()
        chosen = _chosen("outputs", outputs, out, 1)
        again, complaint = _same_values(net, row, out, chosen.new_zeros(1), row, _slack(out.dtype) * out.abs())
        if complaint:
            raise ValueError(complaint)
        (value,) = _values(again, chosen)
        slopes = torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True)
        rows = []
        for slope in torch.cat([_flat(slope, p) for slope, p in zip(slopes, parameters, strict=True)]):
            second = _gradients(slope, parameters, again=True) if slope.requires_grad else [None] * len(parameters)
            rows.append(torch.cat([_flat(each, p) for each, p in zip(second, parameters, strict=True)]))
    H = torch.stack(rows)
    skew = (H - H.T).abs().max()
    if skew > _slack(H.dtype) * H.abs().max():  # the fused weight norm of some releases of torch is such a one
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
