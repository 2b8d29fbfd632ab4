"""The rows of all Jacobians of an update at once: in a sup norm, weighted or not, each row has its own worst policy.

Here lives how these rows are read without a list of policies, and what rounding can have done to them. What is read off
them is in `contraction`, for the sup norm, and in `norms`, for its weighted kin.
"""

from collections.abc import Iterator

import numpy as np

from divergence_notes import _rounding
from divergence_notes.updates import Update


def blocks(update: Update, *, size: int = 256) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield some rows of every J_pi - I at a time: the numbers of their pairs, ``pull``, ``own`` and ``inflow``.

    ``pull`` are the rows of M. Under policy pi row i is ``own[i]`` (n_pairs,) plus ``inflow[i, s]`` at column
    (s, pi(s)), so that a row can choose the action of each next state on its own. With a policy of its own an update
    leaves no choice: then everything is in ``own``.
    """
    mdp = update.mdp
    chain = None if update.policy is None else mdp.pair_transitions(update.policy)
    for first in range(0, mdp.n_pairs, size):
        pull = update.matrix[first : first + size]  # (b, n)
        pairs = np.arange(first, first + len(pull))
        if chain is None:
            yield pairs, pull, -pull, mdp.gamma * (pull @ mdp.transitions)
        else:
            yield pairs, pull, mdp.gamma * (pull @ chain) - pull, np.zeros((len(pull), mdp.n_states))


def doubt(update: Update, pull: np.ndarray, own: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the most by which the computed ``|J_pi| @ w`` of some rows is off, whatever policy pi targets may follow.

    `own` is what the identity adds to each row: the w of its pair, or 0 where the identity is left out.
    """
    mdp = update.mdp
    if update.policy is None:
        after = mdp.transitions @ w.reshape(mdp.n_states, mdp.n_actions).max(axis=1)
    else:  # an action that the policy never takes may have a w that is far larger
        after = mdp.pair_transitions(update.policy) @ w
    return _rounding.slack(mdp.n_pairs) * (own + np.abs(pull) @ (w + mdp.gamma * after))


def growth(own: np.ndarray, inflow: np.ndarray, n_actions: int) -> np.ndarray:
    """Return what each action of each next state adds to the absolute row sum, shape (n_actions, b, n_states)."""
    columns = (own[:, action::n_actions] for action in range(n_actions))
    return np.stack([np.abs(column + inflow) - np.abs(column) for column in columns])
