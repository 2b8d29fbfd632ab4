"""What can be earned and what was: bounds from the rewards and ends that were seen, returns of stored episodes.

Values are held against them here. Numbers about kernels are in `diagnostics`, the values of a whole process in
`bellman`.
"""

import numpy as np

from divergence_notes import _checks
from divergence_notes._checks import ArrayLike

VERDICTS = {
    "not finite": "a value is nan or infinite",
    "impossible": "no policy can earn that, and the values have grown to it",
    "too fast": "a policy might earn that, but the rewards cannot have added so much yet",
    "inherited": "no larger than the network's values were before it was trained",
    "unearned": "a policy might earn that, but no stored episode earned half of it",
    "earned": "no larger than what stored episodes have earned",
    "unknown": "nothing is known of what was earned",
}
"""What `verdict` says of values, and what each word means."""

ALARMING = ("not finite", "impossible", "too fast")
"""The verdicts of which a run that is well has none."""

_MANY = 0.1
"""Part of a sample from which on values are many: a sound network may be quite wrong about a few odd states."""

_SLACK = 0.1
"""Part of the largest absolute value by which many values may stick out."""

_ABOVE, _BELOW = 0.2, 0.5
"""The same for any one value: a maximum over actions hands on what is too high, and passes over what is too low."""

_TWICE = 2.0
"""What is known of a sample only (values before training, stored episodes, their steps) counts this many times."""

_UNTRAINED = 1.0
"""Size of values up to which a network may be untrained, where nothing better is known."""


def bounds(rewards: ArrayLike, terminated: ArrayLike, *, gamma: float | int) -> tuple[float, float]:
    """Return the least and the most that any policy can earn, if it meets such rewards and ends.

    Parameters
    ----------
    rewards : ndarray of shape (n,)
        Rewards of steps, in any order, n >= 1. The extremes of both kinds of steps are enough.
    terminated : ndarray of shape (n,), bool
        Whether the episode ended with this step, so that nothing was earned after it. A time limit after which values
        are bootstrapped is no such end.
    gamma : float
        Discount factor in [0, 1].

    Returns
    -------
    low, high : float
        Every return lies between them; infinite where `gamma` is 1 and no number of steps bounds it.

    Raises
    ------
    ValueError
        If a shape disagrees, there is no reward, a reward is not finite or `gamma` is out of range.

    Notes
    -----
    An episode of T steps earns at most c on each but the last and e on the last, that is
    ``(1 - gamma**(T-1)) c / (1 - gamma) + gamma**(T-1) e``: an average of ``c / (1 - gamma)`` and e. So no return
    exceeds the larger one of the two. A reward of 1 at the goal, where the episode ends, bounds values by 1, whatever
    the discount; with a cost of 1 in each step no value exceeds -1. Where no end was seen any step may be the last.

    Within ``r_max / (1 - gamma)``, label ``eq-reward-bound``, on both sides.
    """
    steps, ends, gamma = _kinds(rewards, terminated, gamma)
    return -_most(-steps, -ends, gamma), _most(steps, ends, gamma)


def _kinds(rewards: ArrayLike, terminated: ArrayLike, gamma: float | int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the rewards of steps that go on, and those of steps that may be the last ones."""
    rewards = _checks.array("rewards", rewards, ndim=1)
    terminated = np.asarray(terminated)
    if terminated.shape != rewards.shape:
        raise ValueError(f"terminated must have the shape of rewards, {rewards.shape}, got {terminated.shape}")
    if not len(rewards):
        raise ValueError("rewards must hold at least one reward")
    last = terminated.astype(bool)
    steps = rewards[~last]
    return steps, rewards[last] if last.any() else steps, _checks.scalar("gamma", gamma, low=0, high=1)


def _most(steps: np.ndarray, ends: np.ndarray, gamma: float) -> float:
    if not len(steps):
        return float(ends.max())
    return float(max(ends.max(), _for_ever(steps.max(), gamma)))


def _for_ever(reward: float, gamma: float) -> float:
    """Return what a reward in each step is worth; without a discount nothing, or more than any number."""
    if gamma < 1:
        return float(reward) / (1 - gamma)
    return float(np.copysign(np.inf, reward)) if reward else 0.0


def reach(
    rewards: ArrayLike,
    terminated: ArrayLike,
    *,
    start: ArrayLike,
    gamma: float | int,
    renewals: int,
    share: float | int = 1.0,
    n_steps: int = 1,
) -> tuple[float, float]:
    """Return how far averages of targets can have brought values after so many renewals of the target network.

    Parameters
    ----------
    rewards, terminated : ndarray of shape (n,)
        As in `bounds`.
    start : ndarray
        Values at the start, any shape, at least one.
    gamma : float
        Discount factor in [0, 1].
    renewals : int
        How often the target network was renewed since, >= 0; without a target network, the number of updates.
    share : float
        Part of the target network that a renewal replaces, in (0, 1]: 1 for a copy, tau for a moving average.
    n_steps : int
        Rewards in a target, >= 1.

    Returns
    -------
    low, high : float
        A table that averages its targets keeps to them.

    Raises
    ------
    ValueError
        If a shape disagrees, there is no reward or no value, or a number is out of range.

    Notes
    -----
    Let S be the largest value at the start or of an end, and C = c / (1 - gamma) with the largest reward c of a step
    that goes on. If C > S, then every target lies below ``C - g (C - T)`` with ``g = gamma**n_steps``, where T bounds
    the values of the target network, and a renewal brings T nearer to C by the factor ``1 - share (1 - g)`` at best.
    So after k renewals no value exceeds ``C - g (1 - share (1 - g))**k (C - S)``: it takes renewals to earn. Without a
    discount each target adds `n_steps` times c at most. If C <= S, nothing exceeds S. The lower end is the same for
    the rewards with the other sign.

    A network is no table. What it does beyond this it does by spilling over.
    """
    steps, ends, gamma = _kinds(rewards, terminated, gamma)
    start = _checks.array("start", start).ravel()
    if not start.size:
        raise ValueError("start must hold at least one value")
    given = {
        "gamma": gamma,
        "renewals": _checks.integer("renewals", renewals, low=0),
        "share": _checks.scalar("share", share, low=0, high=1, low_open=True),
        "n_steps": _checks.integer("n_steps", n_steps, low=1),
    }
    return -_reached(-steps, -ends, -start, **given), _reached(steps, ends, start, **given)


def _reached(
    steps: np.ndarray, ends: np.ndarray, start: np.ndarray, *, gamma: float, renewals: int, share: float, n_steps: int
) -> float:
    from_here = float(max(start.max(), ends.max()))
    if not len(steps):
        return from_here
    if gamma == 1:
        return from_here + max(0.0, float(steps.max())) * n_steps * (1 + share * renewals)
    there, kept = _for_ever(steps.max(), gamma), gamma**n_steps
    return max(from_here, there - kept * (1 - share * (1 - kept)) ** renewals * (there - from_here))


def to_go(rewards: ArrayLike, ends: ArrayLike, *, gamma: float | int) -> tuple[np.ndarray, np.ndarray]:
    """Return what each step earned together with those that followed it in its episode, for many episodes at once.

    Parameters
    ----------
    rewards : ndarray of shape (n,) or (n, n_envs)
        Rewards in order of time; each column is an environment of its own.
    ends : ndarray of the same shape, bool
        Whether the episode was over with this step, by whatever cause.
    gamma : float
        Discount factor in [0, 1].

    Returns
    -------
    returns : ndarray of the same shape
        The discounted sum of the rewards from the step on, to the end of its episode or to that of the array.
    left : ndarray of the same shape, int
        The number of rewards in the sum.

    Raises
    ------
    ValueError
        If a shape disagrees, a reward is not finite or `gamma` is out of range.

    Notes
    -----
    Label ``eq-return``. The sums are doubled in length, again and again, as long as there are longer ones: no loop
    over the steps, and no difference of large numbers.
    """
    rewards = _checks.array("rewards", rewards)
    ends = np.asarray(ends)
    if rewards.ndim not in (1, 2):
        raise ValueError(f"rewards must have shape (n,) or (n, n_envs), got {rewards.shape}")
    if ends.shape != rewards.shape:
        raise ValueError(f"ends must have the shape of rewards, {rewards.shape}, got {ends.shape}")
    factor = _checks.scalar("gamma", gamma, low=0, high=1)
    n = len(rewards)
    rows = np.arange(n).reshape(n, *[1] * (rewards.ndim - 1))
    last = np.where(ends.astype(bool), rows, max(n - 1, 0))
    last = np.minimum.accumulate(last[::-1], axis=0)[::-1]  # the row at which the episode of each row is over
    left = last - rows + 1
    sums, length, longest = rewards.copy(), 1, int(left.max(initial=1))
    while length < longest and factor > 0:
        longer = left[:-length] > length
        added = np.where(longer, sums[length:], 0.0)
        sums[:-length] += factor * added
        length, factor = 2 * length, factor * factor
    return sums, left


def verdict(
    q: ArrayLike,
    *,
    possible: tuple[float, float] | None = None,
    earned: tuple[float, float] | None = None,
    reached: tuple[float, float] | None = None,
    before: ArrayLike | None = None,
) -> str:
    """Return in a word whether values can be true, one of `VERDICTS`.

    Parameters
    ----------
    q : ndarray
        Action values, any shape, at least one.
    possible : tuple of two floats, optional
        What can be earned, as `bounds` says it; without it nothing is impossible.
    earned : tuple of two floats, optional
        The least and the most that a stored stretch of an episode did earn, as `to_go` says it.
    reached : tuple of two floats, optional
        What `reach` says; without it nothing is too fast.
    before : ndarray, optional
        The values that the network had before it was trained, any shape. By default it may have had values up to 1, as
        the networks of the usual libraries have them for inputs of size 1.

    Returns
    -------
    str
        The first word of these that holds. "not finite". "impossible": values lie outside of `possible`. "too fast":
        they lie outside of twice `reached`. "inherited": they are at most twice as large as `before`. "unearned": they
        lie outside of twice `earned`. "earned", or "unknown" if `earned` is not given. The first, second and third are
        alarms, see `ALARMING`.

    Raises
    ------
    ValueError
        If there is no value.

    Notes
    -----
    Values lie outside if a tenth of them do by more than a tenth of the largest absolute value, or any one by more than
    a fifth of it if it is too high, or half of it if it is too low: a maximum over actions hands on what is too high
    and passes over what is too low. A value counts as far as it lies beyond 0 too, and beyond twice the size of any of
    `before`. So the words are for what goes wrong with a run and not with a fit: a sound network is a few per cent
    wrong about a value of 100, and may be quite wrong about a few states that it hardly ever meets.

    What this does not see: values that are wrong and possible. Where nothing ends at the goal, a value of 99 may be
    that of a policy which stays there; if no stored episode earned half of it, it is "unearned", and no more can be
    said. With `possible` alone such a value is "unknown". Values which were wrong before training are "inherited".
    """
    q = np.asarray(q, dtype=np.float64)
    if not q.size:
        raise ValueError("q must hold at least one value")
    if not np.isfinite(q).all():
        return "not finite"
    size = float(np.abs(q).max())
    before = np.full(1, _UNTRAINED / _TWICE) if before is None else np.asarray(before, dtype=np.float64)
    own = _TWICE * float(np.abs(before).max(initial=0.0, where=np.isfinite(before)))

    def outside(ends: tuple[float, float], factor: float) -> bool:
        least, most = min(factor * ends[0], -own, 0.0), max(factor * ends[1], own, 0.0)
        beyond = np.maximum(least - q, q - most)
        many = (beyond > _SLACK * size).mean() >= _MANY
        return bool(many or (q - most).max() > _ABOVE * size or (least - q).max() > _BELOW * size)

    if possible is not None and outside(possible, 1.0):
        return "impossible"
    if reached is not None and outside(reached, _TWICE):
        return "too fast"
    if size <= own:
        return "inherited"
    if earned is None:
        return "unknown"
    return "unearned" if outside(earned, _TWICE) else "earned"
