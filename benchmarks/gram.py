"""Gram matrices of the neural tangent kernel: ours and the peers'.

python -m benchmarks.gram time N
python -m benchmarks.gram memory N METHOD
"""

import copy
import importlib.util
import itertools
import json
import sys
from functools import partial

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from benchmarks import measure
from divergence_notes import ntk

OURS = "divergence_notes"
JACOBIAN = "torch.func"
WIDTHS = (23, 256, 256, 1)
INNER = 23 + 256 + 256 + 256 + 256
"""Inner dimensions of the five products A A^T and B B^T; the sixth, of the last layer's B, has only ones."""


def network(widths=WIDTHS):
    """Return a tanh network and nothing random about it."""
    torch.manual_seed(0)
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def inputs(n):
    """Return n inputs."""
    return torch.randn(n, WIDTHS[0], generator=torch.Generator().manual_seed(1))


def ours(net, x):
    """Return our Gram matrix."""
    return ntk.gram(net, x)


def jacobian(net, x):
    """Return J J^T with J from vmap(grad), as tutorials and textbooks do it."""
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    slopes = vmap(grad(lambda p, row: functional_call(net, p, row[None])[0, 0]), in_dims=(None, 0))(parameters, x)
    J = torch.cat([slope.reshape(len(x), -1) for slope in slopes.values()], dim=1)
    return J @ J.T


def nngeometry(net, x):
    """Return nngeometry's, all inputs in one batch that is handed over whole."""
    from nngeometry.gram import GramMatrix
    from torch.utils.data import DataLoader, TensorDataset

    class Whole(TensorDataset):
        def __getitems__(self, indices):
            return self.tensors

    batch = DataLoader(Whole(x.detach()), batch_size=len(x), collate_fn=lambda tensors: tensors)
    return GramMatrix(net, batch).to_torch()[0, :, 0, :].detach()


def asdl(net, x):
    """Return asdl's, by its own layer-wise product."""
    from asdl.kernel import empirical_class_wise_hadamard_ntk

    return empirical_class_wise_hadamard_ntk(net, x)[:, :, 0].detach()


def tangents(net):
    """Return neural-tangents' structured derivatives, compiled, as a function of the network and its inputs."""
    import jax
    import neural_tangents
    import numpy as np

    layers = [module for module in net if isinstance(module, nn.Linear)]
    parameters = [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in layers]

    def apply(parameters, x):
        for weight, bias in parameters[:-1]:
            x = jax.numpy.tanh(x @ weight + bias)
        return x @ parameters[-1][0] + parameters[-1][1]

    kernel = jax.jit(
        neural_tangents.empirical_ntk_fn(
            apply,
            trace_axes=(-1,),
            vmap_axes=0,
            implementation=neural_tangents.NtkImplementation.STRUCTURED_DERIVATIVES,
        )
    )
    parameters = jax.device_put(parameters)
    return lambda _, x: torch.from_numpy(np.array(kernel(x.numpy(), None, parameters)))


def methods(net):
    """Return what this environment can run."""
    if importlib.util.find_spec("neural_tangents"):
        return {OURS: ours, "neural-tangents": tangents(net)}
    peers = {"nngeometry": nngeometry, "asdl": asdl}
    return {OURS: ours, JACOBIAN: jacobian} | {k: f for k, f in peers.items() if importlib.util.find_spec(k)}


def repeats(name, n):
    """Return how often a method is timed."""
    return {64: 21, 256: 11, 1024: 5}.get(n, 3) if name == JACOBIAN else {64: 41, 256: 31, 1024: 15}.get(n, 9)


def timed(n):
    """Return the rows of all methods and of the limit at one size."""
    net, x = network(), inputs(n)
    found = {name: partial(f, copy.deepcopy(net), x) for name, f in methods(net).items()}
    for name, f in methods(net).items():
        f(copy.deepcopy(net), inputs(8))
        if name == "neural-tangents":
            found[name]()  # a compilation for each size
    a = torch.randn(2048, 2048, generator=torch.Generator().manual_seed(2))
    found["product"] = lambda: a @ a.T
    a @ a.T
    seconds, first = measure.in_turns(found, {name: repeats(name, n) for name in found})
    product = seconds.pop("product")
    K = first[OURS]
    rows = [
        measure.row("gram", name, f"n = {n}", each, difference=float((first[name] - K).abs().max() / K.abs().max()))
        for name, each in seconds.items()
    ]
    # Half of the entries and the diagonal, two operations for each inner dimension, at the measured speed.
    share = n * (n + 1) * INNER / (2 * 2048**3)
    return [*rows, measure.row("gram", "limit", f"n = {n}", [share * each for each in product])]


def memory(n, name):
    """Return the peak memory of one method, in a process of its own."""
    net = network()
    f = methods(net)[name]
    f(copy.deepcopy(net), inputs(8))
    x = inputs(n)
    return [{"what": "gram", "method": name, "case": f"n = {n}", "mb": measure.peak_mb(lambda: f(net, x))}]


if __name__ == "__main__":
    measure.one_thread()
    torch.set_num_threads(1)
    what, n, *name = sys.argv[1:]
    print(json.dumps(memory(int(n), *name) if what == "memory" else timed(int(n))))
