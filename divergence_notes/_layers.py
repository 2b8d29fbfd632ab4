"""Layers that own parameters, at some inputs of a network: what each saw and owes, and the products of its gradients.

A linear layer and a convolution have closed forms, and of others the gradients are held as they are. What is made of
them all together is `linearization`; who gathers them in a pass is `_passes`.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

EVERY = slice(None)
"""All rows, which `Dense` knows by this object: a view of them costs as much as a small product."""

AT_ONCE = 2**22
"""Numbers that the product of a convolution forms at a time: 16 MiB in single precision."""


class Layer(ABC):
    """A layer that owns parameters, at n inputs of the network."""

    module: nn.Module

    @abstractmethod
    def at(self, rows: slice | torch.Tensor) -> "Layer":
        """Return the layer at some of the inputs."""

    def tile(self, n: int) -> int:
        """Return how many of n rows and columns can be multiplied at a time."""
        return max(n, 1)

    @abstractmethod
    def owes(self) -> bool:
        """Return whether a gradient of any row arrives."""

    @abstractmethod
    def products(self, other: "Layer", i: slice, j: slice) -> torch.Tensor:
        """Return the inner products of the gradients of some rows with those of some rows of another."""

    @abstractmethod
    def squares(self) -> torch.Tensor:
        """Return the squared length of the gradient of each row, shape (n,)."""

    @abstractmethod
    def slopes(self) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Return the gradients of each row in each parameter of the layer that moves, shape (n, size)."""

    @abstractmethod
    def pull_back(self, weights: torch.Tensor) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Return the weighted sum of the gradients of each parameter of the layer that moves."""


class _Weighted(Layer):
    """A layer with a weight, and perhaps a bias."""

    b: torch.Tensor

    def owes(self) -> bool:
        """Return whether a gradient of any row arrives."""
        return bool(self.b.any())

    @property
    def weight_moves(self) -> bool:
        return self.module.weight.requires_grad

    @property
    def bias_moves(self) -> bool:
        return self.module.bias is not None and self.module.bias.requires_grad


@dataclass(frozen=True, eq=False)
class Dense(_Weighted):
    """A linear layer: of row i the gradient in the weight is the outer product of b_i and a_i."""

    module: nn.Linear
    a: torch.Tensor
    """Inputs, shape (n, fan_in)."""
    b: torch.Tensor
    """Gradients at the outputs, shape (n, fan_out)."""

    def at(self, rows: slice | torch.Tensor) -> "Dense":
        """Return the layer at some of the inputs."""
        return Dense(self.module, self.a[rows], self.b[rows])

    def products(self, other: Layer, i: slice, j: slice) -> torch.Tensor:
        """Return ``(a_i . a_j + 1) (b_i . b_j)``."""
        outer = torch.mm(_some(self.b, i), _some(other.b, j).t())
        if not self.weight_moves:
            return outer
        inner = torch.mm(_some(self.a, i), _some(other.a, j).t())
        return (inner.add_(1) if self.bias_moves else inner).mul_(outer)

    def squares(self) -> torch.Tensor:
        """Return the squared length of the gradient of each row, shape (n,)."""
        outer = self.b.to(wide(self.b)).square().sum(dim=1)
        if not self.weight_moves:
            return outer
        return (self.a.to(wide(self.a)).square().sum(dim=1) + self.bias_moves) * outer

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


def _some(part: torch.Tensor, i: slice) -> torch.Tensor:
    return part if i is EVERY else part[i]


@dataclass(frozen=True)
class Geometry:
    """Where a kernel is laid: the arguments of a convolution, of each axis of the image."""

    kernel: tuple[int, ...] = (1,)
    stride: tuple[int, ...] = (1,)
    dilation: tuple[int, ...] = (1,)
    padding: tuple[int, ...] = (0, 0)
    """Before and after, the last axis first, as `torch.nn.functional.pad` wants it."""
    mode: str = "constant"
    groups: int = 1

    @classmethod
    def of(cls, module: nn.Module) -> "Geometry":
        """Return that of a convolution."""
        kernel, dilation = module.kernel_size, module.dilation
        if module.padding == "same":  # an odd number more stands behind
            rest = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            sides = [(r // 2, r - r // 2) for r in rest]
        else:
            sides = [(0, 0)] * len(kernel) if module.padding == "valid" else [(p, p) for p in module.padding]
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        padding = tuple(itertools.chain.from_iterable(reversed(sides)))
        return cls(kernel, module.stride, dilation, padding, mode, module.groups)


@dataclass(frozen=True, eq=False)
class Shared(_Weighted):
    """A weight that a row uses at several places: a convolution, or a linear layer on each token.

    With the patches P_i, (fan_in, places), and the gradients b_i, (fan_out, places), that of row i in the weight is
    b_i P_i^T. Either it is formed, a few entries of the kernel at a time, or the products of rows are summed over pairs
    of places, whichever takes fewer multiplications. Both are done for each group apart.
    """

    module: nn.Module
    a: torch.Tensor
    """Inputs, shape (n, channels, *size)."""
    b: torch.Tensor
    """Gradients at the outputs, shape (n, channels, *places)."""
    geometry: Geometry

    def at(self, rows: slice | torch.Tensor) -> "Shared":
        """Return the layer at some of the inputs."""
        return Shared(self.module, self.a[rows], self.b[rows], self.geometry)

    @property
    def _places(self) -> int:
        return math.prod(self.b.shape[2:])

    @property
    def _offsets(self) -> list[tuple[int, ...]]:
        """Return the entries of the kernel, in the order of the weight."""
        return list(itertools.product(*map(range, self.geometry.kernel)))

    @property
    def _of_one(self) -> int:
        """Return the numbers that are formed of one row for one entry of the kernel."""
        channels, fan_out = self.a.shape[1], self.b.shape[1]
        return channels * (fan_out // self.geometry.groups + self._places)

    @property
    def by_places(self) -> bool:
        """Return whether pairs of places are cheaper than the gradients in the weight, which are formed if not."""
        n, places, (fan_out, fan_in) = len(self.a), self._places, self.b.shape[1:2] + self.a.shape[1:2]
        size = fan_in * len(self._offsets)  # of all groups
        formed = fan_out * size // self.geometry.groups
        return n * places**2 * (fan_out + size) < formed * (n + places)

    def tile(self, n: int) -> int:
        """Return how many of n rows and columns can be multiplied at a time: `AT_ONCE` numbers are formed, or one row.

        Where pairs of places are taken, all patches of the rows stand beside their products.
        """
        if not self.weight_moves:
            return max(n, 1)
        if self.by_places:
            patches = self._places * self.a.shape[1] * len(self._offsets)
            return max(min(AT_ONCE // max(patches, 1), math.isqrt(AT_ONCE // 2) // max(self._places, 1)), 1)
        return max(AT_ONCE // max(self._of_one, 1), 1)

    def _padded(self, i: slice) -> torch.Tensor:
        geometry = self.geometry
        if not any(geometry.padding):
            return self.a[i]
        return F.pad(self.a[i], geometry.padding, mode=geometry.mode)

    def _patches(self, padded: torch.Tensor, offsets: list[tuple[int, ...]]) -> torch.Tensor:
        """Return what some entries of the kernel meet, shape (n, groups, fan_in of a group, places)."""
        geometry, places, views = self.geometry, self.b.shape[2:], []
        for offset in offsets:
            first = [d * o for d, o in zip(geometry.dilation, offset, strict=True)]
            where = [slice(f, f + s * (p - 1) + 1, s) for f, s, p in zip(first, geometry.stride, places, strict=True)]
            views.append(padded[(slice(None), slice(None), *where)])
        stacked = torch.stack(views, dim=2)  # (n, channels, offsets, *places)
        return stacked.reshape(len(padded), geometry.groups, -1, self._places)

    def _grouped(self, i: slice) -> torch.Tensor:
        """Return the gradients at the outputs, shape (n, groups, fan_out of a group, places)."""
        b = self.b[i]
        return b.reshape(len(b), self.geometry.groups, b.shape[1] // self.geometry.groups, self._places)

    def _formed(self, i: slice, n: int) -> Iterator[torch.Tensor]:
        """Yield gradients in the weight, (rows, some): as many entries of the kernel at a time as n rows allow."""
        b, padded, offsets = self._grouped(i), self._padded(i), self._offsets
        some = max(AT_ONCE // max(self._of_one * n, 1), 1)
        for k in range(0, len(offsets), some):
            yield (b @ self._patches(padded, offsets[k : k + some]).transpose(2, 3)).flatten(1)

    def products(self, other: Layer, i: slice, j: slice) -> torch.Tensor:
        """Return the inner products of the gradients of some rows with those of some rows of another."""
        total = self.b.new_zeros(len(self.b[i]), len(other.b[j]))
        if self.bias_moves:
            total += self._of_bias(i) @ other._of_bias(j).T
        if not self.weight_moves:
            return total
        if self.by_places:
            return total + self._pairs_of_places(other, i, j)
        if self is other and i == j:
            for slopes in self._formed(i, len(total)):
                total.addmm_(slopes, slopes.T)
            return total
        n = max(total.shape)
        for slopes, others in zip(self._formed(i, n), other._formed(j, n), strict=True):
            total.addmm_(slopes, others.T)
        return total

    def _pairs_of_places(self, other: "Shared", i: slice, j: slice) -> torch.Tensor:
        here, there = (
            (part._grouped(k), part._patches(part._padded(k), part._offsets)) for part, k in ((self, i), (other, j))
        )
        total = self.b.new_zeros(len(here[0]), len(there[0]))
        for group in range(self.geometry.groups):
            # (n places, m places), of the gradients at the outputs and of the patches
            outer, inner = (_by_place(a[:, group]) @ _by_place(b[:, group]).T for a, b in zip(here, there, strict=True))
            total += outer.mul_(inner).reshape(len(total), self._places, -1, self._places).sum(dim=(1, 3))
        return total

    def _of_bias(self, i: slice) -> torch.Tensor:
        return self.b[i].flatten(2).sum(dim=2)

    def squares(self) -> torch.Tensor:
        """Return the squared length of the gradient of each row, shape (n,)."""
        parts, tile = [], self.tile(len(self.a))
        for k in range(0, len(self.a), tile):
            i = slice(k, k + tile)
            total = self.b.new_zeros(len(self.b[i]), dtype=wide(self.b))
            if self.weight_moves:
                for slopes in self._formed(i, len(total)):
                    total += slopes.to(total.dtype).square().sum(dim=1)
            if self.bias_moves:
                total += self._of_bias(i).to(total.dtype).square().sum(dim=1)
            parts.append(total)
        return torch.cat(parts) if parts else self.b.new_zeros(0)

    def slopes(self) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Return the gradients of each row in each parameter of the layer that moves, shape (n, size)."""
        every, parts = slice(None), []
        if self.weight_moves:
            patches = self._patches(self._padded(every), self._offsets)
            parts.append((self.module.weight, (self._grouped(every) @ patches.transpose(2, 3)).flatten(1)))
        return [*parts, (self.module.bias, self._of_bias(every))] if self.bias_moves else parts

    def pull_back(self, weights: torch.Tensor) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Return the weighted sum of the gradients of each parameter of the layer that moves."""
        scaled = self.b * weights.reshape(-1, *[1] * (self.b.ndim - 1))
        geometry, axes, weight, parts = self.geometry, len(self.geometry.kernel), self.module.weight, []
        if self.weight_moves:
            total = torch.ops.aten.convolution_backward(
                scaled,
                self._padded(slice(None)),
                weight.detach().reshape(len(weight), -1, *geometry.kernel),
                None,
                geometry.stride,
                [0] * axes,
                geometry.dilation,
                False,
                [0] * axes,
                geometry.groups,
                [False, True, False],
            )[1]
            parts.append((weight, total.view_as(weight)))
        return [*parts, (self.module.bias, scaled.flatten(2).sum(dim=(0, 2)))] if self.bias_moves else parts


def _by_place(part: torch.Tensor) -> torch.Tensor:
    """Return one row for each place of each row: (n, k, places) to (n places, k)."""
    return part.transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class Formed(Layer):
    """A layer without a closed form, such as a norm: its own gradients as they are."""

    module: nn.Module
    parts: list[tuple[nn.Parameter, torch.Tensor]]
    """Each parameter that moves, and the gradients of each row in it, shape (n, size)."""

    def at(self, rows: slice | torch.Tensor) -> "Formed":
        """Return the layer at some of the inputs."""
        return Formed(self.module, [(p, slopes[rows]) for p, slopes in self.parts])

    def owes(self) -> bool:
        """Return whether a gradient of any row arrives."""
        return any(bool(slopes.any()) for _, slopes in self.parts)

    def products(self, other: Layer, i: slice, j: slice) -> torch.Tensor:
        """Return the inner products of the gradients of some rows with those of some rows of another."""
        return sum(mine[i] @ its[j].T for (_, mine), (_, its) in zip(self.parts, other.parts, strict=True))

    def squares(self) -> torch.Tensor:
        """Return the squared length of the gradient of each row, shape (n,)."""
        return sum(slopes.to(wide(slopes)).square().sum(dim=1) for _, slopes in self.parts)

    def slopes(self) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Return the gradients of each row in each parameter of the layer that moves, shape (n, size)."""
        return self.parts

    def pull_back(self, weights: torch.Tensor) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Return the weighted sum of the gradients of each parameter of the layer that moves."""
        return [(p, (weights @ slopes).view_as(p)) for p, slopes in self.parts]


def wide(t: torch.Tensor) -> torch.dtype:
    """Return a precision in which squares of many entries can be added."""
    return torch.promote_types(t.dtype, torch.float32)
