"""Random instances for property tests, the awkward ones among them: processes, tables, kernels, distributions."""

import contextlib
import dataclasses
import random
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from hypothesis import strategies as st

from divergence_notes.mdp import FiniteMDP
from divergence_notes.updates import KernelUpdate, Update

KINDS = ("dense", "terminating", "deterministic", "sparse", "ties")
KERNELS = ("identity", "gram", "singular", "unsymmetric", "negative", "dominant")
WEIGHTS = ("uniform", "random", "zeros", "point")
GAMMAS = (0, 0.3, 0.5, 0.9, 0.97)


def generators():
    """Draw a numpy generator."""
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


@st.composite
def mdps(draw, *, kinds=KINDS, gammas=GAMMAS, max_states=5, max_actions=3):
    """Draw a process: dense rows, rows that end the episode, single outcomes, sparse storage, or rewards that tie."""
    rng = draw(generators())
    n_states, n_actions = draw(st.integers(1, max_states)), draw(st.integers(1, max_actions))
    return make_mdp(_pick(kinds, rng), n_states, n_actions, _pick(gammas, rng), rng)


def _pick(options, rng):
    """Choose by the generator, so that every kind turns up in a few dozen examples; hypothesis alone repeats itself."""
    return options[rng.integers(len(options))]


@contextlib.contextmanager
def _random_untouched():
    """The type checker samples items with `random`, which hypothesis forbids inside a strategy."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def make_mdp(kind, n_states, n_actions, gamma, rng):
    """Return one random process of a kind."""
    with _random_untouched():
        return _make_mdp(kind, n_states, n_actions, gamma, rng)


def _make_mdp(kind, n_states, n_actions, gamma, rng):
    P = rng.dirichlet(np.full(n_states, 0.7), size=(n_states, n_actions))
    R = 3 * rng.standard_normal((n_states, n_actions))
    if kind == "terminating":
        P = P * rng.choice([0.0, 0.4, 1.0], size=(n_states, n_actions, 1))
    elif kind in ("deterministic", "ties"):
        P = np.eye(n_states)[rng.integers(n_states, size=(n_states, n_actions))]
        P = P * rng.choice([0.0, 1.0, 1.0], size=(n_states, n_actions, 1))
        if kind == "ties":
            R = rng.integers(-1, 2, size=(n_states, n_actions)).astype(float)
    elif kind == "sparse":
        P = P * (rng.random(P.shape) < 0.6)
        return FiniteMDP(sp.csr_array(P.reshape(-1, n_states)), R, gamma)
    return FiniteMDP(P, R, gamma)


def tables(mdp, rng, *, scale=3.0, integers=False):
    """Return one random table; integers make ties."""
    shape = (mdp.n_states, mdp.n_actions)
    return rng.integers(-2, 3, size=shape).astype(float) if integers else scale * rng.standard_normal(shape)


def make_kernel(kind, n, rng):
    """Return one random kernel of a kind, any real matrix among them."""
    phi = rng.standard_normal((n, n + 2))
    if kind == "identity":
        return np.eye(n)
    if kind == "singular":
        return phi[:, :1] @ phi[:, :1].T
    if kind == "unsymmetric":
        return rng.standard_normal((n, n))
    if kind == "negative":
        return np.eye(n) - 0.5 * rng.random((n, n))
    if kind == "dominant":
        return np.diag(1 + rng.random(n)) + 0.02 * rng.standard_normal((n, n)) / n
    return phi @ phi.T / n


def make_weights(kind, n, rng):
    """Return one random sampling distribution of a kind; zeros are pairs that no data shows."""
    if kind == "uniform":
        return np.full(n, 1 / n)
    if kind == "point":
        return np.eye(n)[rng.integers(n)]
    rho = rng.dirichlet(np.ones(n))
    if kind == "zeros" and n > 1:
        rho[rng.integers(n)] = 0.0
    return rho / rho.sum()


class Case(NamedTuple):
    """An update, a table to start it from, and the generator that drew them, for more of the same kind."""

    update: Update
    Q: np.ndarray
    rng: np.random.Generator


@st.composite
def kernel_cases(draw, *, kernels=KERNELS, weights=WEIGHTS, **process):
    """Draw a kernel update with a table."""
    mdp, rng = draw(mdps(**process)), draw(generators())
    Q = tables(mdp, rng, integers=_pick((False, True), rng))
    kernel = make_kernel(_pick(kernels, rng), mdp.n_pairs, rng)
    rho = make_weights(_pick(weights, rng), mdp.n_pairs, rng)
    with _random_untouched():
        return Case(KernelUpdate(mdp, kernel=kernel, weights=rho, alpha=_pick((1, 0.05, 0.7, 2.5), rng)), Q, rng)


FORMS = ("any", "table", "shares", "kernel", "frozen", "preconditioned", "policy", "chances", "residual")


def make_update(form, update, rng):
    """Return an update of a form, made of the parts of a kernel update."""
    mdp = update.mdp
    chances = rng.dirichlet(np.ones(mdp.n_actions), size=mdp.n_states)
    if form == "any":
        return Update(mdp, rng.standard_normal((mdp.n_pairs, mdp.n_pairs)))
    if form == "table":
        return Update.table(mdp, alpha=update.alpha)
    if form == "shares":
        return Update.shares(mdp, weights=update.weights, alpha=update.alpha)
    if form == "frozen":
        return update.frozen_target(int(rng.integers(2, 6)))
    if form == "preconditioned":
        batch = rng.permutation(mdp.n_pairs)[: rng.integers(1, mdp.n_pairs + 1)]
        try:
            return Update.preconditioned(mdp, kernel=update.kernel, batch=batch, alpha=update.alpha)
        except ValueError:  # singular on the batch
            return Update.preconditioned(mdp, kernel=np.eye(mdp.n_pairs), batch=batch, alpha=update.alpha)
    if form == "policy":
        return dataclasses.replace(update, policy=rng.integers(mdp.n_actions, size=mdp.n_states))
    if form == "chances":
        return dataclasses.replace(update, policy=chances)
    return update.residual_gradient(chances) if form == "residual" else update


@st.composite
def update_cases(draw, *, forms=FORMS, **parts):
    """Draw an update of any form with a table."""
    case = draw(kernel_cases(**parts))
    with _random_untouched():
        return case._replace(update=make_update(_pick(forms, case.rng), case.update, case.rng))
