"""What the package certifies holds exactly, for the numbers as they are stored; a certificate that lies is caught."""

from dataclasses import replace

import numpy as np
import pytest

from divergence_notes import _rounding, bellman, contraction, norms, updates
from tests import judge, oracles


def test_no_certificate_is_false():
    """A hundred updates; `python -m tests.judge 20000` judges more."""
    claims, wrong = judge.run(104)
    assert not wrong, [(kind, name) for kind, name, _ in wrong]
    for kind, share in zip(judge.KINDS, judge.SHARES, strict=True):
        assert claims[kind]["instances"] == 13 * share
    together = sum(claims.values(), judge.Counter())
    for name in ("row_sum_bound", "exact_modulus", "max_step_size", "weighted_modulus", "upper", "lower", "loop_gain",
                 "some_norm: True", "some_norm: False", "overshoot_limit", "row_dominance"):  # fmt: skip
        assert together[name] >= 3, name
    for name in ("exact_modulus", "max_scale", "weighted_modulus", "upper", "lower", "some_norm: True"):
        assert claims["another form"][name] >= 2, name


def to_nearest(update):
    return float(oracles.lipschitz(update))


def one_policy_in_place_of_the_worst(update):
    """Take the policy that chooses at random for the worst that there is."""
    mdp = update.mdp
    mixed = np.full(mdp.R.shape, 1 / mdp.n_actions)
    return float(np.abs(update.jacobian(mixed)).sum(axis=1).max() * (1 + 1e-12))


def step_to_nearest(update):
    return scale_to_nearest(replace(update, alpha=1.0))


def scale_to_nearest(update):
    drift = [np.eye(update.mdp.n_pairs) - J for J in oracles.jacobians(update)]
    own = [2 * np.diag(G) - np.abs(G).sum(axis=1) for G in drift]
    return 0.0 if np.min(own) <= 0 else float(2 / np.abs(drift).sum(axis=2).max())


def tables_of_another_row(update):
    found = usual_witness(update)
    return replace(found, row=(found.row + 1) % update.mdp.n_pairs)


usual_witness = contraction.modulus_witness


def eigenvector_of_a_perturbed_matrix(update):
    """Add 1e-12 of the largest entry everywhere, and take what its eigenvector attains."""
    J = np.abs(oracles.jacobians(update))
    size = J.max(axis=0)
    values, vectors = np.linalg.eig(size + 1e-12 * size.max())
    w = np.abs(vectors[:, values.real.argmax()].real)
    w = np.maximum(w / w.max(), 1e-300)
    return float((J @ w / w).max()), w


def computed_radii(update, *, depth):
    J = oracles.jacobians(update)
    size = np.abs(J).sum(axis=2).max()
    return float(np.abs(np.linalg.eigvals(J)).max()), float(size)


def eigenvalues_decide(update, *, products):
    return bool(np.abs(np.linalg.eigvals(oracles.jacobians(update))).max() < 1)


def span_without_the_mass(mdp, *, tol, max_iter):
    """Rows that miss 1 by less than 1e-8 count as 1."""
    Q = np.zeros(mdp.R.shape)
    for _ in range(max_iter):
        V = Q.max(axis=1)
        Q = oracles.backup(Q, mdp)
        change = Q.max(axis=1) - V
        low, high = change.min(), change.max()
        if mdp.continuation.min() < 1 - 1e-8:
            low, high = min(low, 0), max(high, 0)
        error = mdp.gamma * (high - low) / (1 - mdp.gamma) / 2
        if error <= tol:
            break
    Q = Q + mdp.gamma * mdp.continuation.reshape(Q.shape) * (high + low) / (1 - mdp.gamma) / 2
    return bellman.Solution(Q, Q.argmax(axis=1), "converged", max_iter, float(error))


def gain_to_nearest(kernel, *, batch, gamma):
    return float(gamma * np.abs(updates.spill(kernel, batch=batch)).sum(axis=1).max(initial=0.0))


@pytest.mark.parametrize(
    ("module", "name", "fault", "caught"),
    [
        (contraction, "exact_modulus", to_nearest, "exact_modulus"),
        (contraction, "exact_modulus", one_policy_in_place_of_the_worst, "exact_modulus"),
        (contraction, "modulus_witness", tables_of_another_row, "modulus_witness"),
        (contraction, "max_step_size", step_to_nearest, "max_step_size"),
        (contraction, "max_scale", scale_to_nearest, "max_s"),
        (norms, "weighted_modulus", eigenvector_of_a_perturbed_matrix, "weighted_modulus"),
        (norms, "joint_spectral_radius", computed_radii, "lower"),
        (norms, "some_norm", eigenvalues_decide, "some_norm: True"),
        (bellman, "value_iteration", span_without_the_mass, "value_iteration"),
        (updates, "loop_gain", gain_to_nearest, "loop_gain"),
    ],
)
def test_a_fault_is_caught(monkeypatch, module, name, fault, caught):
    monkeypatch.setattr(module, name, fault)
    _, wrong = judge.run(300, until_false=True)
    assert any(what.startswith(caught) for _, what, _ in wrong)


@pytest.mark.parametrize("fault", ["nothing rounds", "a number that is none is shorter than 1", "no rank"])
def test_a_fault_inside_is_caught(monkeypatch, fault):
    if fault == "nothing rounds":
        monkeypatch.setattr(_rounding, "slack", lambda terms: 0.0)
    elif fault == "no rank":
        monkeypatch.setattr(norms, "_singular", lambda matrix: False)
        monkeypatch.setattr(_rounding, "radius_below", lambda matrix, error: 0.0)
    else:
        monkeypatch.setattr(norms, "_in_the_norm_of", lambda root, factors, doubts: (0 * factors, 0.0))
    assert judge.run(300, until_false=True)[1]
