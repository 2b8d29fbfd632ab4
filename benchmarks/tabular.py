"""The Bellman backup and value iteration: ours and quantecon's on the same model."""

import json
import warnings

import numpy as np

from benchmarks import measure
from divergence_notes import bellman, mdp

OURS, PEER, OTHER = "divergence_notes", "quantecon", "quantecon, modified policy iteration"
TOL = 1e-6
"""Both value iterations guarantee this sup-norm error."""


def dense(n_states, n_actions):
    """Return a process in which every pair leads everywhere."""
    rng = np.random.default_rng(0)
    P = rng.dirichlet(np.ones(n_states), size=(n_states, n_actions))
    return mdp.FiniteMDP(P, rng.standard_normal((n_states, n_actions)), 0.99)


def sparse(n_states, n_actions):
    """Return a Garnet with ten successors a pair."""
    rng = np.random.default_rng(0)
    return mdp.random_mdp(n_states, n_actions, gamma=0.99, branching=10, rng=rng, sparse=True)


def quantecon(model):
    """Return the model in the form that quantecon works on fastest."""
    import scipy.sparse as sp
    from quantecon.markov import DiscreteDP

    if not sp.issparse(model.P):
        return DiscreteDP(model.R.copy(), model.P.copy(), model.gamma)
    states, actions = np.divmod(np.arange(model.n_pairs), model.n_actions)
    return DiscreteDP(model.R.ravel().copy(), sp.csr_matrix(model.P), model.gamma, states, actions)


def optimum(model):
    """Return the optimal state values: policies evaluated and improved until neither moves, up to rounding."""
    P, R = model.transitions, model.R
    V, policy = np.zeros(model.n_states), R.argmax(axis=1)
    pairs = np.arange(model.n_states) * model.n_actions
    while True:
        chain, reward = P[pairs + policy], R.ravel()[pairs + policy]
        moved = np.inf
        while moved > 1e-12:
            before, V = V, reward + model.gamma * (chain @ V)
            moved = np.abs(V - before).max()
        Q = R + model.gamma * (P @ V).reshape(R.shape)
        better = Q.max(axis=1) > Q[np.arange(model.n_states), policy] + 1e-11
        if not better.any():
            return Q.max(axis=1)
        policy = np.where(better, Q.argmax(axis=1), policy)


def backups(model, case, repeats):
    """Return the rows of one optimality backup."""
    Q = np.random.default_rng(1).standard_normal(model.R.shape)
    V, peer, out = Q.max(axis=1), quantecon(model), np.empty(model.n_states)
    found = {
        OURS: lambda: bellman.optimality_backup(Q, model),
        PEER: lambda: peer.bellman_operator(V, Tv=out).copy(),
    }
    for f in found.values():
        f()
    seconds, first = measure.in_turns(found, dict.fromkeys(found, repeats))
    gap = float(np.abs(first[OURS].max(axis=1) - first[PEER]).max())
    return [measure.row("backup", name, case, each, difference=gap) for name, each in seconds.items()]


def iterations(model, case, repeats):
    """Return the rows of value iteration; `error` is the distance to an optimum found by other means."""
    peer = quantecon(model)
    best = optimum(model)
    found = {
        OURS: lambda: bellman.value_iteration(model, tol=TOL).Q.max(axis=1),
        PEER: lambda: peer.solve("value_iteration", epsilon=2 * TOL, max_iter=10_000).v,
        OTHER: lambda: peer.solve("modified_policy_iteration", epsilon=2 * TOL, max_iter=10_000).v,
    }
    for method in ("value_iteration", "modified_policy_iteration"):
        peer.solve(method, epsilon=2 * TOL, max_iter=1)  # numba compiles
    seconds, first = measure.in_turns(found, dict.fromkeys(found, repeats))
    return [
        measure.row("value iteration", name, case, each, error=float(np.abs(first[name] - best).max()))
        for name, each in seconds.items()
    ]


if __name__ == "__main__":
    measure.one_thread()
    warnings.simplefilter("ignore", FutureWarning)
    garnet = sparse(10_000, 10)
    print(
        json.dumps(
            backups(dense(1_000, 10), "dense 1000 x 10", 101)
            + backups(garnet, "sparse 10000 x 10", 101)
            + iterations(garnet, "sparse 10000 x 10", 5)
        )
    )
