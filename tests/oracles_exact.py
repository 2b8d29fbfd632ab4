"""The same quantities in exact rational arithmetic: a certificate must hold for the numbers as they are stored.

A floating-point number is a fraction. Nothing here rounds and nothing is an eigenvalue: that a radius is below a number
is read off the signs that Schur, Cohn and Sylvester tell to look at.
"""

import itertools
from fractions import Fraction

import numpy as np

from tests import oracles


def exact(array):
    """Return an array of floats as nested lists of fractions."""
    return [exact(row) for row in array] if np.ndim(array) else Fraction(float(array))


def identity(n):
    return [[Fraction(i == j) for j in range(n)] for i in range(n)]


def product(A, B):
    columns = list(zip(*B, strict=True))
    return [[sum(a * b for a, b in zip(row, column, strict=True) if a and b) for column in columns] for row in A]


def apply(A, x):
    return [sum(a * b for a, b in zip(row, x, strict=True)) for row in A]


def transpose(A):
    return [list(column) for column in zip(*A, strict=True)]


def sizes(A):
    return [[abs(a) for a in row] for row in A]


def chain(mdp, policy):
    """Return P_pi of a policy, of actions or of their chances."""
    P, order = exact(oracles.dense(mdp)), oracles.pairs(mdp)
    chances = policy if np.ndim(policy) == 2 else np.eye(mdp.n_actions)[list(policy)]
    chance = exact(chances)
    return [[P[s][a][t] * chance[t][b] for t, b in order] for s, a in order]


def pulled(kernel, weights):
    """Return K D."""
    K, rho = exact(kernel), exact(weights)
    return [[k * r for k, r in zip(row, rho, strict=True)] for row in K]


def moved(update):
    """Return M: of a kernel update alpha K D of what it holds, which the stored matrix rounds; else what is stored."""
    if not hasattr(update, "kernel"):
        return exact(update.matrix)
    alpha = Fraction(update.alpha)
    return [[alpha * x for x in row] for row in pulled(update.kernel, update.weights)]


def drifts(update):
    """Return M (I - gamma P_pi) for every policy that targets may follow."""
    M, mdp, n = moved(update), update.mdp, update.mdp.n_pairs
    gamma, found = Fraction(mdp.gamma), []
    for policy in oracles.targets_of(update):
        P = chain(mdp, policy)
        found.append(product(M, [[(i == j) - gamma * P[i][j] for j in range(n)] for i in range(n)]))
    return found


def jacobians(update):
    """Return I - M (I - gamma P_pi) for every policy that targets may follow."""
    n = update.mdp.n_pairs
    return [[[(i == j) - G[i][j] for j in range(n)] for i in range(n)] for G in drifts(update)]


def rank(A):
    """Return the rank, by elimination."""
    A, found = [list(row) for row in A], 0
    for column in range(len(A[0])):
        pivot = next((i for i in range(found, len(A)) if A[i][column]), None)
        if pivot is None:
            continue
        A[found], A[pivot] = A[pivot], A[found]
        for i in range(found + 1, len(A)):
            factor = A[i][column] / A[found][column]
            A[i] = [x - factor * y for x, y in zip(A[i], A[found], strict=True)]
        found += 1
    return found


def solve(A, b):
    """Return the solution of a nonsingular system, by elimination."""
    n = len(A)
    rows = [[*row, y] for row, y in zip(A, b, strict=True)]
    for column in range(n):
        pivot = next(i for i in range(column, n) if rows[i][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [x / rows[column][column] for x in rows[column]]
        for i in range(n):
            if i != column and rows[i][column]:
                factor = rows[i][column]
                rows[i] = [x - factor * y for x, y in zip(rows[i], rows[column], strict=True)]
    return [row[-1] for row in rows]


def _pivots(A):
    """Return the pivots of elimination without exchanges, up to the first that is not positive."""
    A, found = [list(row) for row in A], []
    for k in range(len(A)):
        found.append(A[k][k])
        if A[k][k] <= 0:
            break
        for i in range(k + 1, len(A)):
            factor = A[i][k] / A[k][k]
            A[i] = [x - factor * y for x, y in zip(A[i], A[k], strict=True)]
    return found


def positive_definite(A):
    """Return whether a symmetric matrix is positive definite: its pivots are positive."""
    return min(_pivots(A)) > 0


def dominates(s, M):
    """Return whether s exceeds the spectral radius of a matrix M >= 0: the pivots of s I - M are positive."""
    return min(_pivots([[s * (i == j) - m for j, m in enumerate(row)] for i, row in enumerate(M)])) > 0


def characteristic(A):
    """Return the coefficients of det(z I - A), from the highest power down, by Faddeev and LeVerrier."""
    n, M, found = len(A), identity(len(A)), [Fraction(1)]
    for k in range(1, n + 1):
        AM = product(A, M)
        found.append(-sum(AM[i][i] for i in range(n)) / k)
        M = [[AM[i][j] + found[-1] * (i == j) for j in range(n)] for i in range(n)]
    return found


def radius_below(A, r):
    """Return whether the spectral radius of A is below r > 0: the test of Schur and Cohn."""
    n = len(A)
    p = [c * r ** (n - k) for k, c in enumerate(characteristic(A))]  # roots are eigenvalues over r
    while len(p) > 1:
        if abs(p[-1]) >= abs(p[0]):
            return False
        p = [p[0] * x - p[-1] * y for x, y in zip(p, reversed(p), strict=True)][:-1]
        p = [x / p[0] for x in p]
    return True


def words(factors, length):
    """Return every product of this many factors."""
    found = factors
    for _ in range(length - 1):
        found = [product(word, factor) for word in found for factor in factors]
    return found


def norm(A, w):
    """Return the norm of a matrix in the weighted sup norm max |x_i| / w_i."""
    return max(y / v for y, v in zip(apply(sizes(A), w), w, strict=True))


def splits_into_shorter(factors, root, most):
    """Return whether every long product splits into pieces shorter than 1 in the norm |R x|; else None."""
    R = exact(root)
    X = product(transpose(R), R)
    waiting, looked = list(factors), 0
    while waiting:
        word = waiting.pop(0)
        looked += 1
        if looked > most:
            return None
        shrunk = product(transpose(word), product(X, word))
        if not positive_definite([[x - y for x, y in zip(a, b, strict=True)] for a, b in zip(X, shrunk, strict=True)]):
            waiting += [product(word, factor) for factor in factors]
    return True


def best_table(mdp):
    """Return the optimal table by policy iteration, every policy evaluated exactly."""
    P, R, gamma = exact(oracles.dense(mdp)), exact(mdp.R), Fraction(mdp.gamma)
    states, actions, policy = range(mdp.n_states), range(mdp.n_actions), [0] * mdp.n_states
    while True:
        chosen = [P[s][policy[s]] for s in states]
        V = solve(
            [[(s == t) - gamma * chosen[s][t] for t in states] for s in states], [R[s][policy[s]] for s in states]
        )
        Q = [[R[s][a] + gamma * sum(p * v for p, v in zip(P[s][a], V, strict=True)) for a in actions] for s in states]
        better = [max(actions, key=Q[s].__getitem__) for s in states]
        if all(Q[s][better[s]] == V[s] for s in states):
            return Q
        policy = [b if Q[s][b] > V[s] else a for s, (a, b) in enumerate(zip(policy, better, strict=True))]


def selections(factors, w):
    """Yield the matrices each of whose rows is a row of the absolute value of some factor, the longest rows first."""
    rows = [{tuple(abs(x) for x in factor[i]) for factor in factors} for i in range(len(w))]
    rows = [sorted(some, key=lambda row: -sum(x * v for x, v in zip(row, w, strict=True))) for some in rows]
    for chosen in itertools.product(*rows):
        yield [list(row) for row in chosen]
