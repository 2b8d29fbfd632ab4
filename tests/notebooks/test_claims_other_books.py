"""Attacks on what the page on other books claims: two maps that are harmless, each in its norm, and their product."""

import numpy as np
import pytest

from divergence_notes import bellman, features, updates
from divergence_notes.mdp import FiniteMDP, random_mdp, stationary_distribution
from tests.attacks import attack, processes, size

ROUNDING = 1e-9


def length(x, rho):
    """Return the 2-norm of a table, each entry counted with its share."""
    return float(np.sqrt(np.sum(np.ravel(rho) * np.ravel(x) ** 2)))


def projected(phi, rho, x):
    """Return the nearest table that the features make, by least squares: another way than that of the package."""
    root = np.sqrt(rho)
    return phi @ np.linalg.lstsq(root[:, None] * phi, root * np.ravel(x), rcond=None)[0]


def pairs_of_tables(mdp, count=20):
    """Return differences of tables, long in one entry or in all, with the tables themselves."""
    rng = np.random.default_rng(mdp.n_pairs)
    for k in range(count):
        Q = 3 * rng.standard_normal(mdp.R.shape)
        step = rng.standard_normal(mdp.R.shape)
        yield Q, Q + (np.eye(mdp.n_pairs)[k % mdp.n_pairs].reshape(mdp.R.shape) if k % 2 else step)


def backed_up_by(norm):
    """Return the claim that a backup contracts by gamma in a norm."""

    def holds(mdp):
        return all(
            norm(bellman.optimality_backup(Q1, mdp) - bellman.optimality_backup(Q2, mdp))
            <= mdp.gamma * norm(Q1 - Q2) + ROUNDING
            for Q1, Q2 in pairs_of_tables(mdp)
        )

    return holds


def test_the_backup_contracts_in_the_sup_norm():
    attack(
        processes(60),
        backed_up_by(size),
        {
            "in the plain 2-norm": backed_up_by(lambda x: length(x, np.ones(x.size))),
            "in a weighted 2-norm": backed_up_by(lambda x: length(x, np.arange(1, x.size + 1))),
        },
    )


def fits(count=60):
    """Return features, shares and tables."""
    rng = np.random.default_rng(0)
    widths = rng.integers(1, 5, size=count)
    return [
        (rng.standard_normal((5, width)), rng.dirichlet(np.ones(5)), rng.standard_normal((20, 5))) for width in widths
    ]


def test_a_projection_does_not_expand_its_own_norm():
    def spares(norm):
        return lambda fit: all(
            norm(features.projection(fit[0], fit[1]) @ x, fit[1]) <= norm(x, fit[1]) + ROUNDING for x in fit[2]
        )

    def shrinks(fit):
        made = fit[0] @ np.ones(fit[0].shape[1])
        return length(features.projection(fit[0], fit[1]) @ made, fit[1]) < 0.99 * length(made, fit[1])

    attack(
        fits(),
        spares(length),
        {
            "the sup norm": spares(lambda x, rho: size(x)),
            "the norm of equal shares": spares(lambda x, rho: length(x, np.ones(5))),
            "it contracts": shrinks,
        },
    )


def line(phi, rho, mdp):
    """Return the factor of the product along the only feature."""
    (first, second) = projected(phi, rho, bellman.optimality_backup(phi.reshape(mdp.R.shape), mdp)) / phi[:, 0]
    assert first == pytest.approx(second)
    return first


GAMMAS = (0.5, 5 / 6, 0.9, 0.99)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_product_need_contract_in_no_norm(gamma):
    """Tables 0 and phi: the first stays, the second keeps its direction and is multiplied, in exact fractions."""
    phi, equal = np.array([[1.0], [2.0]]), np.array([0.5, 0.5])
    to_second = np.zeros((2, 1, 2))
    to_second[:, :, 1] = 1
    one_policy = FiniteMDP(to_second, np.zeros((2, 1)), gamma)
    assert line(phi, equal, one_policy) == pytest.approx(6 * gamma / 5)
    assert line(phi, np.array([0.0, 1.0]), one_policy) == pytest.approx(gamma), "on-policy"

    coin = FiniteMDP(np.ones((1, 2, 1)), np.zeros((1, 2)), gamma)
    tossed = np.array([[0.5, 0.5]])
    np.testing.assert_allclose(stationary_distribution(coin, tossed), equal)
    assert line(phi[::-1], equal, coin) == pytest.approx(6 * gamma / 5), "the maximum"
    own = projected(phi[::-1], equal, bellman.expectation_backup(phi[::-1].reshape(1, 2), coin, tossed))
    np.testing.assert_allclose(own, 0.9 * gamma * phi[::-1, 0])

    fit = features.projection(phi[::-1], equal)
    np.testing.assert_allclose(
        updates.fitted_update(phi[::-1].reshape(1, 2), coin, fit=fit).ravel(), 1.2 * gamma * phi[::-1, 0]
    )
    assert not updates.fitted_update(np.zeros((1, 2)), coin, fit=fit).any()


def evaluations(count=80):
    """Return processes that never end, policies that try everything, and features."""
    rng = np.random.default_rng(3)
    for _ in range(count):
        n_states, n_actions = int(rng.integers(2, 5)), int(rng.integers(1, 4))
        gamma = float(rng.choice([0.5, 0.9, 0.99]))
        mdp = random_mdp(n_states, n_actions, gamma=gamma, branching=min(2, n_states), rng=rng)
        policy = rng.dirichlet(np.full(n_actions, 0.5), size=n_states) * 0.9 + 0.1 / n_actions
        phi = rng.standard_normal((mdp.n_pairs, int(rng.integers(1, mdp.n_pairs + 1))))
        try:
            rho = stationary_distribution(mdp, policy)
        except ValueError:  # two closed parts
            continue
        if rho.min() > 1e-3:
            yield mdp, policy, phi, rho


def product_contracts(*, norm=length, rho=lambda own: own, best=False):
    """Return the claim that projection after backup contracts by gamma."""

    def holds(case):
        mdp, policy, phi, own = case
        shares = rho(own)

        def product(Q):
            backed = bellman.optimality_backup(Q, mdp) if best else bellman.expectation_backup(Q, mdp, policy)
            return projected(phi, shares, backed)

        made = [
            (phi @ theta).reshape(mdp.R.shape) for theta in np.random.default_rng(5).standard_normal((12, len(phi.T)))
        ]
        tables = [*pairs_of_tables(mdp), *zip(made[::2], made[1::2], strict=True)]
        return all(
            norm(product(Q1) - product(Q2), shares) <= mdp.gamma * norm(Q1 - Q2, shares) + ROUNDING for Q1, Q2 in tables
        )

    return holds


def test_on_policy_and_for_one_policy_the_product_contracts():
    attack(
        evaluations(),
        product_contracts(),
        {
            "in the sup norm": product_contracts(norm=lambda x, rho: size(x)),
            "off-policy": product_contracts(rho=lambda own: own[::-1] ** 2 / (own**2).sum()),
            "with the maximum": product_contracts(best=True),
        },
    )
