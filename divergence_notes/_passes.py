"""Passing a network without leaving a trace, and the gradients that arrive: at each layer, or of each row alone.

Parameters, buffers, attributes and generators are put back after each pass. What the gradients are good for is
`linearization`; whether the rows see each other, without which they are none of single rows, is asked by `_rowwise`.
"""

import itertools
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad, vmap

from divergence_notes import _checks, networks
from divergence_notes._layers import Dense, Formed, Geometry, Layer, Shared
from divergence_notes.linearization import ByLayer, ByRow, Linearization, _own_precision

ALONE = "net must treat each row on its own, the same each time"
LOOK = "look for what runs over the batch, a mean, a norm, an attention or a recurrence along axis 0"


def trainable(net: nn.Module) -> dict[str, nn.Parameter]:
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


def chosen(name: str, outputs: torch.Tensor | int | None, out: torch.Tensor, n: int) -> torch.Tensor:
    """Return the output that each of n rows is about, shape (n,), given what the network made of some rows."""
    shape = tuple(out.shape[1:])
    if len(shape) != 1:
        raise ValueError(f"net must map (n, d) to (n, n_outputs), its rows come out in shape {shape}")
    if outputs is None:
        if shape[0] != 1:
            raise ValueError(f"{name} must say which of the {shape[0]} outputs of net is meant")
        return torch.zeros(n, dtype=torch.int64, device=out.device)
    if isinstance(outputs, torch.Tensor):
        given = outputs.cpu().numpy()
    else:
        given = np.full(n, _checks.integer(name, outputs))
    return torch.from_numpy(_checks.indices(name, given, high=shape[0], shape=(n,))).to(out.device)


def picked(out: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return the chosen output of each row, shape (n,)."""
    return out.gather(1, chosen[:, None])[:, 0]


@contextmanager
def undisturbed(net: nn.Module) -> Iterator[None]:
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


@contextmanager
def put_back(net: nn.Module) -> Iterator[None]:
    """Lend copies of the buffers to every module, and give back buffers and attributes as they were."""
    kept, lent = [], {}
    for module in net.modules():
        if isinstance(module, torch.jit.ScriptModule):  # it keeps its buffers where Python cannot replace them
            kept.append((module, module.training, [(b, b.detach().clone()) for b in module.buffers(recurse=False)]))
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
            if isinstance(attributes, bool):
                module.training = attributes
                for buffer, before in parts:
                    buffer.copy_(before)
                continue
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for part, before in parts:
                part.clear()
                part.update(before)


def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return what the network, as it stands now, makes of a copy of some inputs."""
    with put_back(net):
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


def gradients(
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


def flat(slope: torch.Tensor | None, p: torch.Tensor) -> torch.Tensor:
    if slope is None:
        return torch.zeros_like(p).reshape(-1)
    return (slope.to_dense() if slope.is_sparse else slope).reshape(-1)


def fails(net: nn.Module, row: int, company: str, error: Exception) -> str:
    return f"{ALONE}: row {row} {company} raises {type(error).__name__}: {error}; {LOOK}{call_eval(net)}"


def call_eval(net: nn.Module) -> str:
    return ", and call net.eval()" if any(module.training for module in net.modules()) else ""


def refuse_long_rows(trainable: dict[str, nn.Parameter], n: int) -> None:
    """Raise where all gradients of n rows would need more than 2 GB."""
    itemsize = max(p.element_size() for p in trainable.values())
    _checks.memory("the gradients of all rows", n, sum(p.numel() for p in trainable.values()), itemsize=itemsize)


_Seen = tuple[nn.Module, torch.Tensor, int, GradientEdge | None]
"""A layer that ran, its input, how often that had been overwritten by then, and where its output stands in the graph;
None where no gradient passes."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def layers(net: nn.Module) -> list[nn.Module]:
    """Return the modules that own parameters that move, where all of them can be watched; else none.

    They are layers: they hold no other modules, no one else watches them, and no one has compiled them.
    """
    modules = list(net.modules())
    if any(type(module).__name__ == "OptimizedModule" for module in modules):
        return []
    owners = [module for module in modules if any(p.requires_grad for p in module.parameters(recurse=False))]
    fine = all(
        not module._modules and not _watched(module) and not isinstance(module, torch.jit.ScriptModule)
        for module in owners
    )
    return owners if fine and (net not in owners or type(net) is nn.Linear) else []


def _watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def run(
    net: nn.Module, owners: list[nn.Module], x: torch.Tensor, during: AbstractContextManager | None = None
) -> tuple[torch.Tensor, list[_Seen]]:
    """Return the output of the network, and what each layer saw and gave, in the order they ran."""
    met: list[_Seen] = []

    def remember(module: nn.Module, given: tuple, named: dict, out: object) -> None:
        a, *more = [*given, *named.values()]
        if more or not isinstance(a, torch.Tensor) or not isinstance(out, torch.Tensor):
            met.append((module, x.new_empty(0), 0, None))  # no layer of which anything is known
            return
        # the edge, not the tensor: a rectifier in place will overwrite the tensor
        edge = get_gradient_edge(out) if out.requires_grad else None
        met.append((module, a.detach(), a._version, edge))  # returns nothing, else it would replace the output

    hooks = [module.register_forward_hook(remember, with_kwargs=True) for module in owners]
    try:
        with nullcontext() if during is None else during:
            return forward(net, x), met
    finally:
        for hook in hooks:
            hook.remove()


def linearized(
    net: nn.Module,
    trainable: dict[str, nn.Parameter],
    owners: list[nn.Module],
    x: torch.Tensor,
    chosen: torch.Tensor,
    out: torch.Tensor,
    met: list[_Seen],
    *,
    again: bool = False,
) -> Linearization:
    """Return the network to first order, given what a pass forward left behind; `again` if that is needed again."""
    values = picked(out, chosen)
    parameters = list(trainable.values())
    found = _layers(owners, trainable, met, values, again) if owners else None
    if found is None:
        return ByRow(values.detach(), parameters, out.detach(), row_gradients(net, trainable, x, chosen))
    return ByLayer(values.detach(), parameters, out.detach(), found)


def _layers(
    owners: list[nn.Module],
    trainable: dict[str, nn.Parameter],
    met: list[_Seen],
    values: torch.Tensor,
    again: bool,
) -> list[Layer] | None:
    """Return what each layer saw and owes, or None where the rules of layers do not say it all."""
    owned = [p for module in owners for p in module.parameters() if p.requires_grad]
    once = len(owned) == len({id(p) for p in owned}) and len(met) == len({module for module, *_ in met})
    if not once or {id(p) for p in owned} != {id(p) for p in trainable.values()}:
        return None
    if any(p.dtype != values.dtype for p in owned):  # layers of two precisions have no common product
        return None
    if any(not _of_rows(module, a, len(values)) or a._version != version for module, a, version, _ in met):
        return None
    reached, uses = _graph(values)
    seen = [each for each in met if each[3] is not None and each[3].node in reached]
    expected = Counter(id(p) for module, *_ in seen for p in module.parameters() if p.requires_grad)
    if uses != expected:  # a weight is used by hand as well, or instead
        return None
    upstream = torch.ones_like(values)  # rows do not see each other: the gradient of the sum has one row for each
    slopes = gradients(values, [edge for *_, edge in seen], upstream, again=again) if seen else []
    found = [_layer(module, a, b) for (module, a, *_), b in zip(seen, slopes, strict=True)]
    return None if None in found else found


def _of_rows(module: nn.Module, a: torch.Tensor, n: int) -> bool:
    """Return whether an input of a layer has a row for each row of the network, as far as its shape says it."""
    if a.ndim < 2 or len(a) != n:
        return False
    if type(module) is nn.Linear:
        return n not in a.shape[1:-1]  # tokens, then rows: which of them are which?
    return type(module) not in CONVOLUTIONS or a.ndim == 2 + len(module.kernel_size)


def _layer(module: nn.Module, a: torch.Tensor, b: torch.Tensor) -> Layer | None:
    """Return a layer with what it saw and owes, or None where its gradients cannot be taken a row at a time."""
    if type(module) is nn.Linear and a.ndim == 2:
        return Dense(module, a, b)
    if type(module) is nn.Linear:
        return Shared(module, a.flatten(1, -2).transpose(1, 2), b.flatten(1, -2).transpose(1, 2), Geometry())
    if type(module) in CONVOLUTIONS:
        return Shared(module, a, b, Geometry.of(module))
    if b.ndim < 2 or len(b) != len(a):
        return None
    moving = {name: p for name, p in module.named_parameters() if p.requires_grad}
    refuse_long_rows(moving, len(a))
    held = {name: p.detach() for name, p in moving.items()}

    def owed(p: dict, row: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        return (functional_call(module, p, row.clone()[None])[0] * slope).sum()

    try:
        with put_back(module), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what has no rule for a batch is slow, and says so
            slopes = vmap(grad(owed), in_dims=(None, 0, 0))(held, a, b)
    except Exception:  # no rule for a batch of these operations
        return None
    return Formed(module, [(p, slopes[name].reshape(len(a), -1)) for name, p in moving.items()])


_RELU, _TANH = torch.ops.aten.threshold_backward.grad_input, torch.ops.aten.tanh_backward.grad_input

_SLOPES = {
    nn.ReLU: lambda z, a, b: _RELU(b, a, 0, grad_input=b),
    nn.Tanh: lambda z, a, b: _TANH(b, a, grad_input=b),
    networks.Sine: lambda z, a, b: b.mul_(z.cos()),
}
"""What each activation a = f(z) makes of a gradient b at a: the gradient at z, as autograd has it, over b."""

_OVER = {nn.ReLU: torch.relu_, nn.Tanh: torch.tanh_}
"""Activations that may overwrite what they are given: their slope needs only what they return."""


def chain(net: nn.Module) -> list[nn.Module]:
    """Return the linear layers and activations that a network applies one after another, or nothing.

    Where it is nothing else, and no one watches a part of it or has changed its forward pass, each row is on its own:
    that needs no check. Nor do the parameters: those that move are real numbers on one device, and there is one.
    """
    found = [] if nn.modules.module._has_any_global_hook() else _links(net)
    owned = [p for module in found for p in module._parameters.values() if p is not None]  # activations have none
    if len({id(p) for p in owned}) != len(owned):
        return []
    for p in owned:
        if type(p) is not nn.Parameter or p._backward_hooks or p.is_complex() or p.is_meta:
            return []
    return found if len({p.device for p in owned if p.requires_grad}) == 1 else []


def _links(net: nn.Module) -> list[nn.Module]:
    """Return what stands in a stack, and in the stacks in it, or nothing where something else stands there too."""
    if type(net) not in (nn.Sequential, networks.MLP) or net._parameters or not _itself(net):
        return []
    found: list[nn.Module] = []
    for module in net._modules.values():
        kind = type(module)
        if kind is nn.Sequential:
            inner = _links(module)
            if not inner:
                return []
            found += inner
        elif kind is nn.Linear or (kind in _SLOPES and not module._parameters):
            if not _itself(module) or module._modules or module.__dict__.get("inplace"):
                return []
            found.append(module)
        else:
            return []
    return found


def _itself(module: nn.Module) -> bool:
    """Return whether a module does what its class says, and nothing besides."""
    backward = module._backward_hooks or module._backward_pre_hooks
    return not (_watched(module) or backward or "forward" in module.__dict__ or "__call__" in module.__dict__)


def plainly(
    steps: list[nn.Module],
    x: torch.Tensor,
    name: str,
    outputs: torch.Tensor | int | None,
    during: AbstractContextManager | None = None,
) -> ByLayer:
    """Return what `linearized` does for a `chain` of modules, by the chain rule and without autograd."""
    # Tensors of the inference mode could not be used where gradients flow; to leave a mode that is off takes time too.
    leave = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
    with leave, torch.no_grad(), _own_precision(x.device):
        seen = [x.clone()]
        with nullcontext() if during is None else during:
            for k, step in enumerate(steps):
                if during is not None:  # a call looks for hooks, and only what is entered here can have set any
                    seen.append(step(seen[-1]))
                elif k and type(step) in _OVER and type(steps[k - 1]) is nn.Linear:  # nobody else has its output
                    seen.append(_OVER[type(step)](seen[-1]))
                else:
                    seen.append(step.forward(seen[-1]))
        out = seen[-1]
        if outputs is None and out.shape[1] == 1:  # nothing to choose
            values, b = out.squeeze(1), torch.ones_like(out)
        else:
            which = chosen(name, outputs, out, len(x))
            values, b = picked(out, which), torch.zeros_like(out).scatter_(1, which[:, None], 1.0)
        found: list[Layer] = []
        owned = [[p for p in step._parameters.values() if p is not None and p.requires_grad] for step in steps]
        first = next(k for k, moving in enumerate(owned) if moving)
        for k in range(len(steps) - 1, first - 1, -1):
            step = steps[k]
            if type(step) is not nn.Linear:
                b = _SLOPES[type(step)](seen[k], seen[k + 1], b)
                continue
            if owned[k]:
                found.append(Dense(step, seen[k], b))
            if k > first:
                b = b @ step.weight
        return ByLayer(values, list(itertools.chain.from_iterable(owned)), out, found[::-1])


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


def row_gradients(
    net: nn.Module, trainable: dict[str, nn.Parameter], x: torch.Tensor, chosen: torch.Tensor
) -> torch.Tensor:
    """Return the gradient of each row passed alone, shape (n, n_parameters)."""
    parameters = list(trainable.values())
    refuse_long_rows(trainable, len(x))

    def value(p: dict, row: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return functional_call(net, p, row.clone()[None])[0].gather(0, output[None])[0]

    if not len(x):
        return torch.cat([torch.zeros_like(p).reshape(-1) for p in parameters])[None][:0]
    if not any(type(module).__name__ == "OptimizedModule" for module in net.modules()):
        held = {name: p.detach() for name, p in trainable.items()}
        try:
            with put_back(net), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what has no rule for a batch is slow, and says so
                slopes = vmap(grad(value), in_dims=(None, 0, 0))(held, x.detach(), chosen)
            return torch.cat([slopes[name].reshape(len(x), -1) for name in held], dim=1)
        except Exception:  # no rule for a batch of these operations: what is wrong with the network, the rows will say
            pass
    rows = []
    for k in range(len(x)):
        try:
            out = forward(net, x[k : k + 1])
        except Exception as error:  # a network may raise anything
            raise ValueError(fails(net, k, "alone", error)) from error
        slopes = gradients(picked(out, chosen[k : k + 1])[0], parameters)
        rows.append(torch.cat([flat(slope, p) for slope, p in zip(slopes, parameters, strict=True)]))
    return torch.stack(rows)
