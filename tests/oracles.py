"""The same quantities by another route: plain loops and brute force on small instances, nothing of the package."""

import itertools

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog


def dense(mdp):
    """Return P as a dense array of shape (n_states, n_actions, n_states)."""
    rows = mdp.P.toarray() if sp.issparse(mdp.P) else np.asarray(mdp.P)
    return rows.reshape(*mdp.R.shape, mdp.R.shape[0])


def pairs(mdp):
    """List the pairs (s, a) in their order."""
    return list(itertools.product(range(mdp.R.shape[0]), range(mdp.R.shape[1])))


def backup(Q, mdp, policy=None):
    """Return the optimality backup, or that of a policy matrix, as one sum for each pair."""
    P, out = dense(mdp), np.zeros(mdp.R.shape)
    for s, a in pairs(mdp):
        out[s, a] = mdp.R[s, a]
        for t in range(mdp.R.shape[0]):
            value = max(Q[t]) if policy is None else sum(policy[t][b] * Q[t][b] for b in range(mdp.R.shape[1]))
            out[s, a] += mdp.gamma * P[s, a, t] * value
    return out


def kernel_update(update, Q):
    """Return the table after a kernel update as a double loop over pairs."""
    mdp, kernel, weights, alpha = update.mdp, update.kernel, update.weights, update.alpha
    error, out = backup(Q, mdp) - Q, np.array(Q, dtype=float)
    for i, (s, a) in enumerate(pairs(mdp)):
        for j, (t, b) in enumerate(pairs(mdp)):
            out[s, a] += alpha * kernel[i][j] * weights[j] * error[t, b]
    return out


def step(update, Q):
    """Return the table after an update with any matrix, towards T* or the policy of the update, as a double loop."""
    mdp, out = update.mdp, np.array(Q, dtype=float)
    error = backup(Q, mdp, update.policy) - Q
    for i, (s, a) in enumerate(pairs(mdp)):
        for j, (t, b) in enumerate(pairs(mdp)):
            out[s, a] += update.matrix[i][j] * error[t, b]
    return out


def policies(mdp):
    """List every deterministic policy."""
    return [np.array(p) for p in itertools.product(range(mdp.R.shape[1]), repeat=mdp.R.shape[0])]


def policy_table(mdp, policy):
    """Return Q of a deterministic policy by one dense solve over pairs."""
    n = mdp.R.size
    return np.linalg.solve(np.eye(n) - mdp.gamma * chain(mdp, policy), mdp.R.ravel()).reshape(mdp.R.shape)


def chain(mdp, policy):
    """Return the matrix from pair to pair of a policy, of actions or of their chances, entry by entry."""
    P, order = dense(mdp), pairs(mdp)
    chance = np.asarray(policy, dtype=float) if np.ndim(policy) == 2 else np.eye(mdp.R.shape[1])[list(policy)]
    return np.array([[P[s, a, t] * chance[t, b] for t, b in order] for s, a in order])


def best_table(mdp):
    """Return the optimal table by trying every deterministic policy."""
    return np.max([policy_table(mdp, policy) for policy in policies(mdp)], axis=0)


def linear_programme(mdp):
    """Return the optimal table by linear programming: the least V with V >= R + gamma P V."""
    n_states, n_actions = mdp.R.shape
    rows = mdp.gamma * dense(mdp).reshape(-1, n_states) - np.repeat(np.eye(n_states), n_actions, axis=0)
    found = linprog(
        np.ones(n_states), A_ub=sp.csr_array(rows), b_ub=-mdp.R.ravel(), bounds=(None, None), method="highs"
    )
    assert found.success
    return mdp.R + mdp.gamma * dense(mdp) @ found.x


def lipschitz(update):
    """Return the exact sup-norm Lipschitz constant of an update: the largest Jacobian over the policies of targets."""
    return np.abs(jacobians(update)).sum(axis=2).max()


def targets_of(update):
    """List the policies that targets may follow: the one of the update, or every deterministic one."""
    return policies(update.mdp) if update.policy is None else [update.policy]


def jacobians(update):
    """Return I - M (I - gamma P_pi) for every policy of targets; a kernel update is written out from its parts."""
    mdp, n = update.mdp, update.mdp.R.size
    step = update.matrix
    if hasattr(update, "kernel"):
        step = update.alpha * np.asarray(update.kernel) @ np.diag(update.weights)
    loops = [np.eye(n) - mdp.gamma * chain(mdp, policy) for policy in targets_of(update)]
    return np.array([np.eye(n) - step @ loop for loop in loops])


def table_iteration(model, gamma, *, sweeps=10_000, tol=0.0):
    """Return Q by plain value iteration over the raw table of an environment, Python floats only."""
    V = {s: 0.0 for s in model}
    for _ in range(sweeps):
        Q = {
            s: {
                a: sum(p * (r + (0.0 if over else gamma * V[t])) for p, t, r, over in outcomes)
                for a, outcomes in actions.items()
            }
            for s, actions in model.items()
        }
        new = {s: max(values.values()) for s, values in Q.items()}
        if max(abs(new[s] - V[s]) for s in V) <= tol:
            break
        V = new
    return np.array([[Q[s][a] for a in sorted(Q[s])] for s in sorted(Q)])


def chain_of_one_action(mdp):
    """Return the matrix from state to state of a process with one action."""
    return dense(mdp)[:, 0, :]
