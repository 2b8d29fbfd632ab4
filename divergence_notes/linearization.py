"""A network at some inputs, to first order in its parameters, and the two ways to hold its gradients.

Layer by layer, of a linear layer or a convolution what it saw and what it owes, or row by row, as they are. Here they
are only multiplied: `_passes` runs the network and gathers them, and `_rowwise` asks whether its rows see each other.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from divergence_notes import _checks
from divergence_notes._extras import needs

with needs("neural"):
    import torch
    from torch import nn

    from divergence_notes._layers import EVERY, Layer, wide


@dataclass(frozen=True, eq=False)
class Linearization:
    """A network at some inputs, to first order in its parameters: values, kernel, and the steps that gradients make.

    Made by `ntk.linearize`: a `ByLayer` where the network is made of layers that are known, else a `ByRow`.
    """

    values: torch.Tensor
    """The chosen output at each input, shape (n,); no gradient flows into it."""
    parameters: list[nn.Parameter]
    """Those that require a gradient, in the order of ``net.parameters()``."""
    outputs: torch.Tensor
    """All outputs at each input, shape (n, n_outputs); no gradient flows into them."""

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

    def gram(self, *, tile: int = 384) -> torch.Tensor:
        """Return the kernel J J^T of the inputs.

        Parameters
        ----------
        tile : int
            As in `ntk.gram`.

        Returns
        -------
        tensor of shape (n, n)
            Symmetric to the last bit.
        """
        _checks.memory("the kernel", len(self.values), len(self.values), itemsize=self.values.element_size())
        return products(self, self, tile=tile)

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
        return self._pull_back(weights)

    def _at(self, rows: slice | torch.Tensor) -> "Linearization":
        """Return the linearization at some of the inputs."""
        raise NotImplementedError

    def _lengths(self) -> torch.Tensor:
        """Return the Euclidean length of each gradient, shape (n,)."""
        raise NotImplementedError

    def _pull_back(self, weights: torch.Tensor) -> list[torch.Tensor]:
        """Return J^T w, part by part."""
        raise NotImplementedError

    def _jacobian(self) -> torch.Tensor:
        """Return J, shape (n, n_parameters)."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class ByRow(Linearization):
    """The gradients as they are: n * n_parameters numbers, whatever the network is made of."""

    jacobian: torch.Tensor
    """J, shape (n, n_parameters)."""

    def _at(self, rows: slice | torch.Tensor) -> "ByRow":
        return ByRow(self.values[rows], self.parameters, self.outputs[rows], self.jacobian[rows])

    def _lengths(self) -> torch.Tensor:
        return torch.linalg.vector_norm(self.jacobian.to(wide(self.jacobian)), dim=1)

    def _pull_back(self, weights: torch.Tensor) -> list[torch.Tensor]:
        flat = self.jacobian.T @ weights.to(self.jacobian.dtype)
        sizes = [p.numel() for p in self.parameters]
        return [part.view_as(p) for part, p in zip(flat.split(sizes), self.parameters, strict=True)]

    def _jacobian(self) -> torch.Tensor:
        return self.jacobian


@dataclass(frozen=True, eq=False)
class ByLayer(Linearization):
    """The gradients in the closed form of each layer: J is never formed.

    A linear layer holds n * (fan_in + fan_out) numbers, a convolution its images before and after. What other layers
    own, a norm its scale and shift, is held as it is.
    """

    layers: list[Layer]
    """What each layer saw and owes, in the order in which they ran."""

    def reached(self) -> "ByLayer":
        """Return the same without the layers at which no gradient arrives, such as other members of an ensemble.

        Returns
        -------
        ByLayer
            A view of this one.
        """
        layers = [layer for layer in self.layers if layer.owes()]
        return ByLayer(self.values, self.parameters, self.outputs, layers or self.layers)

    def _at(self, rows: slice | torch.Tensor) -> "ByLayer":
        layers = [layer.at(rows) for layer in self.layers]
        return ByLayer(self.values[rows], self.parameters, self.outputs[rows], layers)

    def _lengths(self) -> torch.Tensor:
        return sum((layer.squares() for layer in self.layers), torch.zeros_like(self.values)).sqrt()

    def _pull_back(self, weights: torch.Tensor) -> list[torch.Tensor]:
        found = {id(p): slope for layer in self.layers for p, slope in layer.pull_back(weights)}
        return [found[id(p)] if id(p) in found else torch.zeros_like(p) for p in self.parameters]

    def _jacobian(self) -> torch.Tensor:
        n, sizes = len(self.values), [p.numel() for p in self.parameters]
        _checks.memory("the gradients of all rows", n, sum(sizes), itemsize=self.values.element_size())
        found = {id(p): slopes for layer in self.layers for p, slopes in layer.slopes()}
        parts = [
            found[id(p)] if id(p) in found else self.values.new_zeros(n, size)
            for p, size in zip(self.parameters, sizes, strict=True)
        ]
        return torch.cat(parts, dim=1)


def products(rows: Linearization, columns: Linearization, *, tile: int) -> torch.Tensor:
    """Return all inner products of the gradients of the rows with those of the columns.

    Parameters
    ----------
    rows, columns : Linearization
        At n and at m inputs, in the same parameters; the same object twice gives a kernel that is symmetric to the
        last bit.
    tile : int
        Rows and columns that are worked on at a time.

    Returns
    -------
    tensor of shape (n, m)
        The kernel: J of the rows times the transpose of that of the columns.
    """
    symmetric = rows is columns
    n, m = len(rows.values), len(columns.values)
    with _own_precision(rows.values.device):
        if not (isinstance(rows, ByLayer) and isinstance(columns, ByLayer) and _same_layers(rows, columns)):
            K = rows._jacobian() @ columns._jacobian().T
            return K.triu() + K.triu(1).T if symmetric else K
        tile = min([tile, *(layer.tile(max(n, m)) for layer in rows.layers)])
        if symmetric and 0 < n <= tile:
            block = _block(rows.layers, columns.layers, EVERY, EVERY)
            return block.triu_() + block.triu(1).T
        K = rows.values.new_empty(n, m)
        for i in range(0, n, tile):
            for j in range(i if symmetric else 0, m, tile):
                block = _block(rows.layers, columns.layers, slice(i, i + tile), slice(j, j + tile))
                if symmetric and i == j:
                    block = block.triu() + block.triu(1).T
                K[i : i + tile, j : j + tile] = block
                if symmetric and i != j:
                    K[j : j + tile, i : i + tile] = block.T
        return K


def _same_layers(rows: ByLayer, columns: ByLayer) -> bool:
    """Return whether layer stands beside layer; a network may take another way with other inputs."""
    if rows is columns:
        return bool(rows.layers)
    modules = [layer.module for layer in rows.layers]
    return bool(modules) and modules == [layer.module for layer in columns.layers]


def _block(rows: list[Layer], columns: list[Layer], i: slice, j: slice) -> torch.Tensor:
    """Return the rows `i` and columns `j` of the kernel, summed over layers."""
    first, *rest = zip(rows, columns, strict=True)
    total = first[0].products(first[1], i, j)
    for row, column in rest:
        total += row.products(column, i, j)
    return total


def _own_precision(device: torch.device) -> AbstractContextManager:
    """Switch the caller's autocast off, where the device has one."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
