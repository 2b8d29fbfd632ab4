"""What a network and a batch can be asked when values go wrong: facts that point at a cause, each by an experiment.

Do the targets move when the network does, does a value depend on who else is in the batch, where is the first number
that is not finite? What the answers mean for a run says `diagnosis`; who asks while a run trains is `probe`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from divergence_notes._extras import needs

with needs("neural"):
    import torch
    from torch import nn

_NUDGE = 1e-3
"""How far every weight is moved, in units of the root mean square of its tensor."""


@contextmanager
def nudged(net: nn.Module, *, size: float | int = _NUDGE, frozen: bool = True) -> Iterator[None]:
    """Move the parameters of a network a little inside of the block, the same way each time.

    Parameters
    ----------
    net : torch.nn.Module
        Any network. Afterwards its parameters are what they were, to the last bit.
    size : float
        Standard deviation of the moves, in units of the root mean square of the tensor, > 0; for a tensor of zeros, in
        units of 1.
    frozen : bool
        Whether those without ``requires_grad`` move as well.

    Yields
    ------
    None
        For the block.

    Notes
    -----
    Written so that a graph which was made before and not yet run back through still can be.
    """
    generator = torch.Generator(device="cpu").manual_seed(0)
    kept = [(p, p.data.clone()) for p in net.parameters() if frozen or p.requires_grad]
    try:
        for p, before in kept:
            unit = float(before.double().square().mean().sqrt()) if before.numel() else 0.0
            move = torch.randn(before.shape, generator=generator, device="cpu").to(before)
            p.data.add_(move, alpha=size * (unit or 1.0))
        yield
    finally:
        for p, before in kept:
            p.data.copy_(before)


def coupling(net: nn.Module, values: Callable[[], torch.Tensor], targets: Callable[[], torch.Tensor]) -> float:
    """Return how far the targets move with a network, in units of how far its values do.

    Parameters
    ----------
    net : torch.nn.Module
        The network that is trained.
    values, targets : callable
        Return values and targets of the same pairs, (n,).

    Returns
    -------
    float
        The mean absolute move of the targets over that of the values while what is trained of `net` is `nudged`: 0 if
        the targets come from a network of their own, about gamma if they come from `net` itself; nan where the values
        do not move, and where one of the two moves by itself, by a hundredth of that, when it is asked twice.
        With the largest action chosen by `net` and valued by another network (double Q-learning) it is about 0.
    """

    def asked() -> torch.Tensor:
        return torch.stack([values().double(), targets().double()])

    with torch.no_grad():
        before, again = asked(), asked()
        with nudged(net, frozen=False):
            after = asked()
    moved, followed = (after - before).abs().mean(dim=1).tolist()
    by_itself = float((again - before).abs().mean(dim=1).max())
    return followed / moved if by_itself < 0.01 * moved else float("nan")


def called(ask: Callable[[], object]) -> list[nn.Module]:
    """Return the modules that a function calls.

    Parameters
    ----------
    ask : callable
        Called once, with nothing.

    Returns
    -------
    list of torch.nn.Module
        Each once, in the order in which they were called; those inside of others too.
    """
    found: dict[nn.Module, None] = {}
    hook = nn.modules.module.register_module_forward_pre_hook(lambda module, given: found.setdefault(module))
    try:
        ask()
    finally:
        hook.remove()
    return list(found)


def beyond_ends(
    targets: Callable[..., torch.Tensor], ends: torch.Tensor, *, exchanged: object, going: torch.Tensor
) -> float:
    """Return at which share of the ends of episodes targets hold a value of what comes after.

    Parameters
    ----------
    targets : callable
        ``targets(**parts)``: the targets of a batch, (n,), with some of its parts replaced; the same each time.
    ends : Tensor of shape (n,), bool
        The transitions after which nothing is to be bootstrapped, at least one.
    exchanged : object
        The next observations of the batch in another order.
    going : Tensor
        The dones of a batch in which nothing ends.

    Returns
    -------
    float
        From 0 to 1; nan where targets are not finite, or not the same when they are asked twice. A target counts if it
        changes with the next observation and with the weights of the networks that are asked for it, and if either the
        dones make no difference to it, or without them the next observation makes none.

    Notes
    -----
    That a target at an end differs from the reward does not count: several rewards in a target, rewards that are scaled
    or normalised in it, a term of what was done before. Nor does a reward that is made up from the next observation,
    by a function or by a network, as long as the dones cut off what comes after.
    """

    def ask(**parts: object) -> torch.Tensor:
        return targets(**parts).detach().reshape(-1).double()[ends]

    with torch.no_grad():
        plain, moved = ask(), ask(next_observations=exchanged)
        if not (plain.isfinite().all() and moved.isfinite().all()):
            return float("nan")
        rounding = 1e-5 * float(plain.abs().max())

        def differ(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            return (one - other).abs() > rounding

        found = differ(plain, moved)
        if not found.any():
            return 0.0
        if differ(plain, ask()).any():
            return float("nan")
        open_, open_moved = ask(dones=going), ask(dones=going, next_observations=exchanged)
        found &= ~differ(plain, open_) | ~differ(open_, open_moved)
        with nudged(nn.ModuleList(called(ask))):
            found &= differ(plain, ask())
    return float(found.double().mean())


def batch_dependence(values: Callable[[int], torch.Tensor], *, n: int, few: int = 8) -> float:
    """Return how far a value depends on which others are asked at the same time.

    Parameters
    ----------
    values : callable
        ``values(k)``: those of the first k of n inputs, asked together, shape (k, ...).
    n : int
        Inputs in the whole batch, >= 1.
    few : int
        So many are asked once more, among themselves.

    Returns
    -------
    float
        Largest change of a value over the largest absolute value: rounding, about 1e-6, for a network that is a
        function of one input; nan where all values are 0.
    """
    with torch.no_grad():
        together = values(n)[:few].double()
        alone = values(min(few, max(n // 2, 1))).double()
    size = float(together.abs().max())
    return float((together[: len(alone)] - alone).abs().max()) / size if size > 0 else float("nan")


def first_not_finite(parts: Sequence[tuple[str, object]]) -> str:
    """Return the name of the first part that holds a number which is not finite, or nothing.

    Parameters
    ----------
    parts : sequence of tuple
        Names, and arrays, tensors, or iterables of tensors.

    Returns
    -------
    str
    """
    for name, part in parts:
        for each in [part] if isinstance(part, np.ndarray | torch.Tensor) else part:
            if not _fractional(each):
                continue
            finite = torch.isfinite(each) if isinstance(each, torch.Tensor) else np.isfinite(each)
            if not bool(finite.all()):
                return name
    return ""


def _fractional(part: object) -> bool:
    return part.dtype.is_floating_point if isinstance(part, torch.Tensor) else part.dtype.kind == "f"


def lengths(over: np.ndarray, cut: np.ndarray, *, whole: bool) -> tuple[int, float]:
    """Return the length of the longest stored episode, and which share of the episodes that ended had just that length.

    Parameters
    ----------
    over, cut : ndarray of shape (n, n_envs), bool
        Whether an episode was over with this step, and whether a time limit did it.
    whole : bool
        Whether an episode began with the first row.

    Returns
    -------
    longest : int
        Steps of the longest episode that is stored as a whole; 0 if there is none.
    share : float
        Of the episodes stored as a whole that ended and were not cut, those as long as the longest; nan if there are
        fewer than three: one of them is always the longest.

    Notes
    -----
    Episodes that all end after the same number of steps look like those that a time limit ends.
    """
    found, real = [], []
    for k in range(over.shape[1]):
        rows = np.flatnonzero(over[:, k])
        before = np.concatenate([[-1], rows[:-1]])
        length, ended = rows - before, ~cut[rows, k]
        first = 0 if whole else 1
        found.append(length[first:])
        real.append(ended[first:])
    lengths, real = np.concatenate(found), np.concatenate(real)
    if not len(lengths):
        return 0, float("nan")
    longest = int(lengths.max())
    return longest, float((lengths[real] == longest).mean()) if real.sum() >= 3 else float("nan")
