"""Does a network treat each row on its own, the same each time? Only then is there a kernel.

A few rows are passed once more, in other company, alone and in another order; what differs becomes a sentence. How a
network is passed is `_passes`, how its gradients are held `linearization`; the promise to the reader is `ntk.gram`'s.
"""

import torch
from torch import nn

from divergence_notes import _passes
from divergence_notes._layers import wide
from divergence_notes._passes import ALONE, LOOK
from divergence_notes.linearization import ByLayer, ByRow, Linearization

HOOKED = "net must have gradients that no hook of a parameter changes: remove the hook, clip what the optimizer sees"
_FEW = 8
"""Rows that are passed once more."""


def refuse_training_modules(net: nn.Module) -> None:
    for name, module in net.named_modules():
        dropping = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if module.training and (dropping or norm):
            raise ValueError(f"{ALONE}: {name!r} ({type(module).__name__}) is training, call net.eval()")
        if norm and module.running_mean is None:
            raise ValueError(f"{ALONE}: {name!r} ({type(module).__name__}) keeps no statistics, it takes the batch's")


def tolerance(net: nn.Module, out: torch.Tensor) -> float:
    """Return how far numbers that should be the same may be apart, by the coarsest precision that they went through."""
    dtypes = {out.dtype, *(p.dtype for p in net.parameters())}
    eps = max(torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point or dtype.is_complex)
    return min(3 * eps**0.5, 0.1)


def judge(
    net: nn.Module,
    x: torch.Tensor,
    chosen: torch.Tensor,
    out: torch.Tensor,
    found: Linearization,
    *,
    whole: bool = True,
) -> None:
    """Raise unless values and gradients are those of each row alone, as far as a few rows can say.

    All rows are passed once more unless `whole` says that their values were looked at before.
    """
    n = len(x)
    if not n:
        return
    every = torch.arange(n, device=out.device)
    few = every if isinstance(found, ByRow) else every[:: -(-n // _FEW)]
    few, every = few.flip(0), every.flip(0)  # in another order, so that no row stays the first or the last
    complaint, live, sure = _compare(net, x, chosen, out, found, few)
    if complaint and not sure and len(few) < n:
        # a rectifier at its kink may have switched; all together switch as before
        complaint, live, sure = _compare(net, x, chosen, out, found, every)
        sure = True
    if whole and not complaint and len(few) < n:  # what some rows only do to each other shows in the values of all
        other = torch.cat([every[::2], every[1::2]])
        slack = tolerance(net, out) * torch.nan_to_num(out, posinf=0.0, neginf=0.0).abs().max()
        complaint = same_values(net, x, out, other, x[other], slack)[1]
        sure = True
    little = live < 2 or n < 4
    elsewhere = _nearby(net, x, chosen, found) if little or (complaint and not sure) else None
    if complaint and not sure:
        complaint = elsewhere  # a row alone switched a rectifier at its kink, unless it is the same at other rows
    if complaint or elsewhere:
        raise ValueError(complaint or elsewhere)


def _nearby(net: nn.Module, x: torch.Tensor, chosen: torch.Tensor, found: Linearization) -> str | None:
    """Return what is wrong at some other rows near the first ones, or None."""
    rows = torch.arange(max(6, len(x) if isinstance(found, ByRow) else 6), device=x.device) % len(x)
    other = x[rows].clone()
    if x.dtype.is_floating_point:
        other = torch.nan_to_num(other, posinf=0.0, neginf=0.0)
        pattern = torch.arange(other.numel(), device=x.device).reshape(other.shape)
        size = other.abs().max().clamp(min=1e-3)
        other += 0.3 * size * torch.cos(2.4 * (pattern + 1)).to(x.dtype)
    try:
        trainable = _passes.trainable(net)
        owners = _passes.layers(net) if isinstance(found, ByLayer) else []
        out, met = _passes.run(net, owners, other)
        again = _passes.linearized(net, trainable, owners, other, chosen[rows], out, met)
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
    slack = tolerance(net, out) * out[rows].abs().max()
    again, complaint = same_values(net, x, out, rows, given, slack)
    for k in rows[:3].tolist():  # what is divided by the largest row is the same wherever that row is
        one = torch.arange(k, k + 1, device=x.device)
        complaint = complaint or same_values(net, x, out, one, x[one], slack)[1]
    if complaint:
        return complaint, len(rows), True
    parameters = found.parameters
    k = torch.arange(len(rows), device=out.device)
    signs = (1 - 2 * (k % 2)) * (1 + (0.618 * k) % 1)  # all different, as rows that see each other might cancel
    smallest = torch.where(lengths > 0, lengths, torch.inf).min()
    unit = torch.where(lengths > 0, lengths, torch.where(smallest.isfinite(), smallest, 1.0))
    weights = (signs / unit).to(out.dtype)
    asked = [*parameters, given] if given.requires_grad else parameters
    slopes = _passes.gradients(_passes.picked(again, chosen[rows]), asked, weights)
    answers = slopes.pop() if given.requires_grad else None
    live = len(rows)
    if given.requires_grad:
        live = 0 if answers is None else int((answers.reshape(len(rows), -1) != 0).any(dim=1).sum())
    if torch.equal(given, given[:1].expand_as(given)):  # rows that are the same see nothing new in each other
        live = 0
    missed = [
        (_passes.flat(slope, p) - mine.reshape(-1)).to(wide(p))
        for slope, p, mine in zip(slopes, parameters, part.pull_back(weights), strict=True)
    ]
    missed = nn.utils.get_total_norm(missed) / torch.linalg.vector_norm(weights.to(wide(weights)) * unit)
    if missed.isfinite() and missed > tolerance(net, out):
        return _of_gradients(net, found, float(missed)), live, False
    return None, live, True


def same_values(
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
        again = _passes.forward(net, given)
    except Exception as error:  # a network may raise anything
        return out[rows], _passes.fails(net, int(rows[0]), company, error)
    wrong = ((again.detach() - out[rows]).abs() > slack).nonzero()
    if not len(wrong):
        return again, None
    i, j = wrong[0].tolist()
    row, drawn = int(rows[i]), torch.get_rng_state()
    repeated = _passes.forward(net, x).detach()
    if not torch.equal(drawn, torch.get_rng_state()) or ((repeated - out).abs() > slack).any():
        return again, (
            f"{ALONE}: row {row} has the value {out[row, j]:.6g} and, asked again, {again[i, j]:.6g}; "
            f"the network draws random numbers or counts its calls{_passes.call_eval(net)}"
        )
    return again, (
        f"{ALONE}: row {row} has the value {out[row, j]:.6g} among {len(x)} rows and {again[i, j]:.6g} {company}; "
        f"{LOOK}{_passes.call_eval(net)}"
    )


def _of_gradients(net: nn.Module, found: Linearization, missed: float) -> str:
    if any(p._backward_hooks for p in found.parameters):
        return f"{HOOKED}; the gradients are off by {missed:.2g} of a row's length"
    if isinstance(found, ByLayer):
        return (
            f"{ALONE}, and use each weight as its layer does: the gradients of the layers do not add up to that of "
            f"the network, by {missed:.2g} of a row's length; {LOOK}{_passes.call_eval(net)}; "
            "J = per_sample_gradients(net, x) may have it: J @ J.T"
        )
    return (
        f"{ALONE}: the gradients of the rows alone do not add up to that of the batch, by {missed:.2g} of a row's "
        f"length; {LOOK}{_passes.call_eval(net)}"
    )
