"""Numbers about a run that say how far its kernel is from a table's, and whether its values can be true.

They take arrays, of a run of anybody. Where the numbers come from while an agent trains is `monitor`; what follows
from a kernel and a process together, to the last case, is `contraction`; the pictures are `plotting`.
"""

from typing import TYPE_CHECKING

import numpy as np

from divergence_notes import _checks, returns
from divergence_notes._checks import ArrayLike

if TYPE_CHECKING:
    import pandas


def row_ratio(kernel: ArrayLike) -> np.ndarray:
    """Return how much of each row of the kernel lies off its diagonal.

    Parameters
    ----------
    kernel : ndarray of shape (n, n)
        A kernel with a positive diagonal.

    Returns
    -------
    ndarray of shape (n,)
        ``(1 / n) sum_{j != i} |K_ij| / K_ii``; 0 for a table, near 1 when every pair moves with every other.

    Raises
    ------
    ValueError
        If the kernel is not square or an entry of its diagonal is not positive.

    Notes
    -----
    Label ``eq-row-ratio``; arXiv:1903.08894, section on the kernels of networks.
    """
    kernel = _checks.square("kernel", kernel)
    own = np.diag(kernel)
    bad = np.flatnonzero(own <= 0)
    if len(bad):
        raise ValueError(f"kernel must have a positive diagonal: kernel[{bad[0]}, {bad[0]}] is {own[bad[0]]:.6g}")
    return (np.abs(kernel).sum(axis=1) - own) / own / len(kernel)


def row_margins(kernel: ArrayLike, *, gamma: float | int) -> np.ndarray:
    """Return by how much each sampled pair dominates the other sampled pairs, in units of its own diagonal entry.

    Parameters
    ----------
    kernel : ndarray of shape (n, n)
        The kernel of the sampled pairs among themselves, with a positive diagonal.
    gamma : float
        Discount factor in [0, 1]; 1 is a task that ends.

    Returns
    -------
    ndarray of shape (n,)
        ``(1 - gamma) - (1 + gamma) n R_i`` with the row ratio R_i: the margin of `contraction.row_dominance` for
        pairs sampled equally often, divided by ``K_ii / n``, so that it has no unit. A table has ``1 - gamma``; without
        a discount no margin is positive.

    Raises
    ------
    ValueError
        If the kernel is not square, an entry of its diagonal is not positive, or `gamma` is out of range.

    Notes
    -----
    A pair outside the sample has rho = 0, and the margin of its own row is never positive. So a negative margin here
    says that the theorem does not apply, but positive margins are no certificate for the whole process: they speak of
    the sampled pairs alone.
    """
    gamma = _checks.scalar("gamma", gamma, low=0, high=1)
    ratio = row_ratio(kernel)
    return (1 - gamma) - (1 + gamma) * len(ratio) * ratio


def effective_rank(kernel: ArrayLike) -> float:
    """Return in how many directions the kernel moves values, counted by how evenly it moves them.

    Parameters
    ----------
    kernel : ndarray of shape (n, n)
        Any real matrix.

    Returns
    -------
    float
        The exponential of the entropy of the singular values, which are made to sum to 1; for a symmetric positive
        semi-definite kernel they are its eigenvalues. It is n for the identity, 1 for rank one, and 0.0 for a kernel
        that is zero.

    Raises
    ------
    ValueError
        If the kernel is not square.

    Notes
    -----
    Label ``eq-effective-rank``; Roy and Vetterli, "The effective rank: a measure of effective dimensionality", 2007.
    """
    kernel = _checks.square("kernel", kernel)
    size = np.abs(kernel).max(initial=0.0)
    if size == 0:
        return 0.0
    kernel = kernel / size
    symmetric = np.array_equal(kernel, kernel.T)  # then there is a quicker way to the same numbers
    share = np.abs(np.linalg.eigvalsh(kernel)) if symmetric else np.linalg.svd(kernel, compute_uv=False)
    share = share / share.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def alignment(dq: ArrayLike, td_error: ArrayLike) -> float:
    """Return the cosine of the angle between what an update did and what the TD errors asked for.

    Parameters
    ----------
    dq : ndarray of shape (n,)
        Change of each value.
    td_error : ndarray of shape (n,)
        TD error of each value before the change: target minus value.

    Returns
    -------
    float
        1 for a table that is updated everywhere equally often, negative when values moved away from their targets;
        nan when one of the two is zero everywhere, since zero has no direction.

    Raises
    ------
    ValueError
        If the shapes disagree.

    Notes
    -----
    Label ``eq-alignment``.
    """
    dq = _checks.array("dq", dq, ndim=1)
    td_error = _checks.array("td_error", td_error, shape=dq.shape)
    sizes = [np.abs(vector).max(initial=0.0) for vector in (dq, td_error)]
    if 0 in sizes:
        return float("nan")
    dq, td_error = dq / sizes[0], td_error / sizes[1]  # squares neither overflow nor vanish
    return float(dq @ td_error / np.sqrt((dq @ dq) * (td_error @ td_error)))


def mean_interval(samples: ArrayLike, *, level: float | int = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Return the t interval of a mean over independent runs.

    Parameters
    ----------
    samples : ndarray of shape (n, m)
        The same n quantities of m >= 2 runs.
    level : float
        Of the interval, in (0, 1).

    Returns
    -------
    low, high : ndarray of shape (n,)
        Ends of the interval of each quantity, about its mean; not finite where a sample is not.

    Raises
    ------
    ValueError
        If there are fewer than two runs, or `level` is out of range.
    """
    samples = np.asarray(samples, dtype=float)
    if samples.ndim != 2 or samples.shape[1] < 2:
        raise ValueError(f"samples must have shape (n, m) with m >= 2, got {samples.shape}")
    level = _checks.scalar("level", level, low=0, high=1, low_open=True, high_open=True)
    m = samples.shape[1]
    from scipy.special import stdtrit  # the quantile of Student's t, without the second that scipy.stats takes

    half = stdtrit(m - 1, (1 + level) / 2) * samples.std(axis=1, ddof=1) / np.sqrt(m)
    return samples.mean(axis=1) - half, samples.mean(axis=1) + half


def bound_ratio(q: ArrayLike, *, r_max: float | int, gamma: float | int) -> float:
    """Return the largest absolute value in units of what any policy can earn.

    Parameters
    ----------
    q : ndarray
        Action values, any shape, at least one.
    r_max : float
        Largest absolute reward, > 0.
    gamma : float
        Discount factor in [0, 1]; 1 is a task that ends.

    Returns
    -------
    float
        ``max |Q|`` over ``r_max / (1 - gamma)``. Above 1 the values cannot be those of any policy. nan if `gamma` is 1:
        how much an episode can earn is then a matter of its length.

    Raises
    ------
    ValueError
        If there is no value, `r_max` is not positive, or `gamma` is out of range.
    """
    q = _checks.array("q", q)
    if not q.size:
        raise ValueError("q must hold at least one value")
    r_max = _checks.scalar("r_max", r_max, low=0, low_open=True)
    gamma = _checks.scalar("gamma", gamma, low=0, high=1)
    return float(np.abs(q).max() / (r_max / (1 - gamma))) if gamma < 1 else float("nan")


def growth_rate(sizes: ArrayLike, steps: ArrayLike) -> float:
    """Return how fast a size grows, as the slope of its logarithm.

    Parameters
    ----------
    sizes : ndarray of shape (k,)
        Positive sizes, such as the largest absolute value.
    steps : ndarray of shape (k,)
        When each was measured; at least two different steps.

    Returns
    -------
    float
        The least-squares slope of ``log(sizes)`` per step: c for ``exp(c * steps)``, 0 for a constant.

    Raises
    ------
    ValueError
        If the shapes disagree, a size is not positive, or all the steps are the same.
    """
    sizes = _checks.array("sizes", sizes, ndim=1)
    steps = _checks.array("steps", steps, shape=sizes.shape)
    bad = np.flatnonzero(sizes <= 0)
    if len(bad):
        raise ValueError(f"sizes must be positive: sizes[{bad[0]}] is {sizes[bad[0]]:.6g}")
    if not len(steps) or (steps == steps[0]).all():
        raise ValueError(f"steps must hold at least two different steps, got {steps.tolist()}")
    time = steps - steps.mean()
    return float(time @ (np.log(sizes) - np.log(sizes[0])) / (time @ time))


def summary(
    kernel: ArrayLike,
    *,
    q: ArrayLike,
    td_error: ArrayLike,
    gamma: float | int,
    possible: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Return the numbers of one sample of pairs, whatever became of the network.

    Parameters
    ----------
    kernel : ndarray of shape (n, n)
        The kernel of the sampled pairs among themselves.
    q : ndarray
        Action values, any shape: those of the sampled pairs, or of all actions in the sampled states.
    td_error : ndarray of shape (n,)
        TD errors of the sampled pairs.
    gamma : float
        Discount factor in [0, 1]; 1 is a task that ends.
    possible : tuple of two floats, optional
        The least and the most that can be earned, as `returns.bounds` says it.

    Returns
    -------
    dict
        ``row_ratio`` (mean), ``margin`` (smallest), ``certified`` (share of the rows with a positive margin),
        ``effective_rank``, ``max_q`` (absolute), ``low_q`` and ``high_q``, ``possible_low`` and ``possible_high``,
        ``bound`` (the larger one of these in size), ``bound_ratio`` (``max_q`` over it) and ``td_error`` (mean
        absolute).

    Raises
    ------
    ValueError
        If a shape disagrees, nothing was sampled, or a number is out of range.

    Notes
    -----
    Divergence is not an error: a number whose inputs are not finite is nan. A pair with ``K_ii <= 0``, that its own
    step does not move (a dead network), counts as not certified and is left out of the mean row ratio and of the
    smallest margin; both are nan if every pair is dead.
    """
    gamma = _checks.scalar("gamma", gamma, low=0, high=1)
    low, high = (np.nan, np.nan) if possible is None else possible
    kernel, q, td_error = (np.asarray(given, dtype=np.float64) for given in (kernel, q, td_error))
    _checks.square("kernel", np.zeros(kernel.shape))  # the shape alone: entries may be anything
    _checks.array("td_error", np.zeros(td_error.shape), shape=(len(kernel),))
    if not q.size or not td_error.size:
        raise ValueError("q must hold at least one value" if not q.size else "kernel must have at least one row")
    bound = max(abs(low), abs(high))
    bound = bound if 0 < bound < np.inf else np.nan
    low_q, high_q = (float(q.min()), float(q.max())) if np.isfinite(q).all() else (np.nan, np.nan)
    max_q = max(-low_q, high_q)
    return {
        **(_rows(kernel, gamma) if np.isfinite(kernel).all() else _NO_ROWS),
        "max_q": max_q,
        "low_q": low_q,
        "high_q": high_q,
        "possible_low": float(low),
        "possible_high": float(high),
        "bound": float(bound),
        "bound_ratio": float(max_q / bound),
        "td_error": float(np.abs(td_error).mean()) if np.isfinite(td_error).all() else np.nan,
    }


_NO_ROWS = dict.fromkeys(("row_ratio", "margin", "certified", "effective_rank"), np.nan)


def _rows(kernel: np.ndarray, gamma: float) -> dict[str, float]:
    """Return the numbers of a finite kernel; rows of dead pairs are never certified."""
    live = np.diag(kernel) > 0
    own = np.where(live, np.diag(kernel), 1.0)
    padded = kernel.copy()
    np.fill_diagonal(padded, own)  # the ratio of a dead pair is of no use, but it exists
    ratio, margins = row_ratio(padded)[live], row_margins(padded, gamma=gamma)[live]
    return {
        "row_ratio": float(ratio.mean()) if len(ratio) else np.nan,
        "margin": float(margins.min()) if len(margins) else np.nan,
        "certified": float((margins > 0).sum() / len(kernel)),
        "effective_rank": effective_rank(kernel),
    }


def report(
    kernel: ArrayLike,
    *,
    q: ArrayLike,
    td_error: ArrayLike,
    gamma: float | int,
    r_max: float | int = 0,
    possible: tuple[float, float] | None = None,
    earned: tuple[float, float] | None = None,
    before: ArrayLike | None = None,
    dq: ArrayLike | None = None,
) -> "pandas.DataFrame":
    """Return a table that says how far a sample of pairs is from a table, and whether its values can be true.

    Parameters
    ----------
    kernel : ndarray of shape (n, n)
        The kernel of the sampled pairs among themselves, all pairs or a minibatch.
    q : ndarray
        Action values, any shape: those of the sampled pairs, or of all actions in the sampled states.
    td_error : ndarray of shape (n,)
        TD errors of the sampled pairs.
    gamma : float
        Discount factor in [0, 1]; 1 is a task that ends.
    r_max : float
        Largest absolute reward, where nothing more is known of what can be earned; 0 if that is not known either. If
        `gamma` is 1 it says nothing.
    possible : tuple of two floats, optional
        The least and the most that can be earned, as `returns.bounds` says it from rewards and ends; by default
        ``r_max / (1 - gamma)`` on both sides.
    earned : tuple of two floats, optional
        The least and the most that stored episodes did earn, the extremes of `returns.to_go`.
    before : ndarray, optional
        The values of the network before it was trained, any shape; by default they may have been up to 1 in size.
    dq : ndarray of shape (n,), optional
        The real change of the values in an update; by default its leading order ``kernel @ td_error / n``.

    Returns
    -------
    pandas.DataFrame
        One row for each quantity; columns ``value``, ``reference`` (what a table has, or the bound), ``alarm`` (True:
        not finite, or a value that no policy can earn; False; or ``pandas.NA``: not known) and ``reading`` (a few
        words).

    Raises
    ------
    ValueError
        If a shape disagrees, nothing was sampled, or a number is out of range.

    Notes
    -----
    The same rules as in `summary`: what is not finite gives nan and an alarm, and dead pairs are left out. Positive
    margins are no certificate for the pairs outside the sample, see `row_margins`.

    The alarm of ``max |Q|`` is the word of `returns.verdict`. It is False only for values of the size that stored
    episodes have earned. From `r_max` alone that is never known: a value of 99 may be that of a policy which is paid 1
    in each step, with a discount of 0.99, or 99 times too large if there is 1 to be earned, once, at the goal. Nor is
    it known of a value beyond ``r_max / (1 - gamma)`` that the network may have had before any training: it is false,
    but nothing need be wrong with the run. Whether values grow no single moment tells.
    """
    r_max = _checks.scalar("r_max", r_max, low=0)
    if possible is None and r_max > 0 and _checks.scalar("gamma", gamma, low=0, high=1) < 1:
        possible = (-r_max / (1 - gamma), r_max / (1 - gamma))
    numbers = summary(kernel, q=q, td_error=td_error, gamma=gamma, possible=possible)
    kernel, q, td_error = (np.asarray(given, dtype=np.float64) for given in (kernel, q, td_error))
    n = len(kernel)
    with np.errstate(all="ignore"):  # what is not finite is said below
        change = kernel @ td_error / n if dq is None else np.asarray(dq, dtype=np.float64)
    _checks.array("dq", np.zeros(change.shape), shape=td_error.shape)
    finite = {
        "kernel": np.isfinite(kernel).all(),
        "q": np.isfinite(q).all(),
        "error": np.isfinite(td_error).all(),
        "change": np.isfinite(change).all() and np.isfinite(td_error).all(),
    }
    cosine = alignment(change, td_error) if finite["change"] else np.nan
    dead = int((np.diag(kernel) <= 0).sum())
    word = returns.verdict(q, possible=possible, earned=earned, before=before)
    known = True if word in returns.ALARMING else False if word == "earned" else None
    rows = [
        ("mean row ratio", numbers["row_ratio"], 0.0, "kernel", _of_ratio(numbers["row_ratio"], dead, n)),
        ("smallest margin", numbers["margin"], 1 - gamma, "kernel", _of_margin(numbers["margin"])),
        ("certified rows", numbers["certified"], 1.0, "kernel", f"{_count(numbers['certified'], n)} of {n} rows"),
        ("effective rank", numbers["effective_rank"], float(n), "kernel", _of_rank(numbers["effective_rank"], n)),
        ("max |Q|", numbers["max_q"], numbers["bound"], "q", _of_size(numbers["bound_ratio"], word)),
        ("mean |TD error|", numbers["td_error"], 0.0, "error", "zero at the fixed point"),
        ("alignment", cosine, 1.0, "change", _of_cosine(cosine, "leading order" if dq is None else "real change")),
    ]
    import pandas

    return pandas.DataFrame(
        {
            "value": [float(value) for _, value, *_ in rows],
            "reference": [float(reference) for _, _, reference, *_ in rows],
            "alarm": pandas.array(
                [known if needs == "q" else not finite[needs] for *_, needs, _ in rows], dtype="boolean"
            ),
            "reading": [reading if finite[needs] else "not finite: diverged" for *_, needs, reading in rows],
        },
        index=pandas.Index([name for name, *_ in rows], name="quantity"),
    )


def _count(share: float, n: int) -> int:
    return 0 if np.isnan(share) else round(share * n)


def _of_ratio(ratio: float, dead: int, n: int) -> str:
    if np.isnan(ratio):
        return "dead: no pair moves"
    mood = "alone" if ratio < 0.1 else "together" if ratio > 0.5 else "partly together"
    return f"pairs move {mood}" + (f", {dead} of {n} dead" if dead else "")


def _of_margin(margin: float) -> str:
    if np.isnan(margin):
        return "dead: no pair moves"
    return "sampled rows dominate" if margin > 0 else "no contraction certified"


def _of_rank(rank: float, n: int) -> str:
    return f"{rank:.1f} of {n} directions"


def _of_size(ratio: float, word: str) -> str:
    return f"no bound: {word}" if np.isnan(ratio) else f"{ratio:.2g} times the bound: {word}"


def _of_cosine(cosine: float, what: str) -> str:
    if np.isnan(cosine):
        return f"nothing moves ({what})"
    mood = "along the errors" if cosine > 0.5 else "against the errors" if cosine < 0 else "across the errors"
    return f"{mood} ({what})"
