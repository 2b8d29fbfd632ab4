"""What would need more than 2 GB says so before it starts, with the size; and it says so of small arguments alone."""

import re
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import scipy.sparse as sp

from divergence_notes import _checks, bellman, contraction, dynamics, features, mdp, norms, updates
from divergence_notes.mdp import FiniteMDP, from_transitions, random_mdp, stationary_distribution
from divergence_notes.updates import KernelUpdate, Update


def many(n_states, n_actions):
    """A process of which next to nothing is stored: every episode ends at once."""
    return FiniteMDP(sp.csr_array((n_states * n_actions, n_states)), np.zeros((n_states, n_actions)), 0.5)


def update(n_states, n_actions):
    n = n_states * n_actions
    return KernelUpdate(many(n_states, n_actions), kernel=np.eye(n), weights=np.full(n, 1 / n), alpha=1.0)


class _Wide:
    """An environment whose table has many states, each of which ends the episode."""

    def __init__(self, n):
        self.P = [[[(1.0, 0, 0.0, True)]]] * n


class _Tabular:
    observation_space = gymnasium.spaces.Discrete(10**5)
    action_space = gymnasium.spaces.Discrete(10)


RNG = np.random.default_rng(0)
TOO_MUCH = {
    "jacobians": (lambda: update(2, 300).jacobians(), "518.4 GB"),
    "table": (lambda: Update.table(many(10**5, 1), alpha=1.0), "160.0 GB"),
    "shares": (lambda: Update.shares(many(10**5, 1), weights=np.full(10**5, 1e-5), alpha=1.0), "160.0 GB"),
    "stable_discount": (lambda: contraction.stable_discount(update(2, 300)), "1,036.8 GB"),
    "some_norm": (lambda: norms.some_norm(update(1, 100)), "3.2 GB"),
    "joint_spectral_radius": (lambda: norms.joint_spectral_radius(update(1, 100), depth=3), "240.0 GB"),
    "norm_ball": (lambda: norms.norm_ball(update(1, 2), rate=2, depth=30), "412.3 GB"),
    "pair_transitions": (lambda: many(10**5, 1).pair_transitions(np.zeros(10**5, dtype=int)), "80.0 GB"),
    "random_mdp": (lambda: random_mdp(10**5, 2, gamma=0.5, branching=1, rng=RNG), "320.0 GB"),
    "stationary_distribution": (
        lambda: stationary_distribution(FiniteMDP(sp.eye_array(10**5), np.zeros((10**5, 1)), 0.5),
                                        np.zeros(10**5, dtype=int)), "400.0 GB"),
    "from_gymnasium": (lambda: mdp.from_gymnasium(_Wide(10**5), 0.5), "160.0 GB"),
    "from_transitions": (
        lambda: from_transitions([(0, 0, 0.0, 0, True)], n_states=10**5, n_actions=2, gamma=0.5), "320.0 GB"),
    "one_hot": (lambda: features.one_hot(10**5), "80.0 GB"),
    "aggregation": (lambda: features.aggregation([0, 10**9]), "16.0 GB"),
    "radial_basis": (
        lambda: features.radial_basis(np.zeros((10**5, 1)), np.zeros((10**4, 1)), width=1.0), "16.0 GB"),
    "kernel": (lambda: features.kernel(np.zeros((10**5, 1))), "80.0 GB"),
    "iterate": (lambda: dynamics.iterate(lambda Q: Q, np.zeros((500, 6)), max_iter=10**6), "48.0 GB"),
    "q_learning": (
        lambda: bellman.q_learning(_Tabular(), gamma=0.9, steps=10**4, step_size=1.0, epsilon=0.0, rng=RNG,
                                   snapshots=10**4), "160.0 GB"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_MUCH)
def test_says_so_before_it_starts(name):
    call, size = TOO_MUCH[name]
    with pytest.raises(ValueError, match=f"^{name} would need {re.escape(size)} of memory, more than 2 GB: "):
        call()


def test_weighted_modulus(monkeypatch):
    """Its arguments are as large as a part of what it needs; here the limit comes down to them."""
    few = update(20, 1)
    monkeypatch.setattr(_checks, "MEMORY", 1e4)
    with pytest.raises(ValueError, match=r"^weighted_modulus would need 0\.0 GB of memory, more than 1e-05 GB: "):
        norms.weighted_modulus(few)


def test_the_way_round():
    message = "an array of shape (3000000000,)"
    with pytest.raises(ValueError, match=re.escape(message)):
        _checks.memory("x", 3 * 10**9)
    _checks.memory("x", 2 * 10**8)
    assert random_mdp(10**4, 10, gamma=0.5, branching=1, rng=RNG, sparse=True).n_pairs == 10**5


def test_nothing_grows_beside_small_arguments():
    """A policy of many actions and the step of a linear Q on many pairs take no square of their number."""
    wide = many(1, 10**6)
    assert wide.policy_matrix([5]).sum() == 1
    theta = updates.linear_step([0.0], np.ones((10**6, 1)), wide, weights=np.full(10**6, 1e-6), alpha=1.0)
    assert theta.tolist() == [0]
    assert features.radial_basis(np.zeros((2000, 500)), np.zeros((2000, 500)), width=1.0).shape == (2000, 2000)


BOTH = {
    "P and R": (lambda: FiniteMDP(np.zeros((2, 1, 2)), np.zeros((3, 1)), 0.5), "P and R", "(3, 1)", "(2, 1, 2)"),
    "sparse P and R": (lambda: FiniteMDP(sp.csr_array((2, 2)), np.zeros((3, 1)), 0.5), "P and R", "(3, 1)", "(2, 2)"),
    "weights and kernel": (lambda: contraction.row_dominance(np.eye(2), [1.0], gamma=0.5), "weights", "kernel"),
    "kernel and mdp": (lambda: replace(update(2, 1), kernel=np.eye(3)), "kernel", "mdp"),
    "weights and mdp": (lambda: replace(update(2, 1), weights=[1.0]), "weights", "mdp"),
    "matrix and mdp": (lambda: Update(many(2, 1), np.eye(3)), "matrix", "mdp"),
    "another mdp": (lambda: replace(update(2, 1), mdp=many(3, 1)), "kernel", "mdp"),
    "policy of an update": (lambda: replace(update(2, 1), policy=[0]), "policy", "mdp"),
    "table of an update": (lambda: update(2, 1)(np.zeros((3, 1))), "Q", "mdp"),
    "weights of shares": (lambda: Update.shares(many(2, 1), weights=[1.0], alpha=1), "weights", "mdp"),
    "Q and mdp": (lambda: bellman.optimality_backup(np.zeros((2, 2)), many(2, 1)), "Q", "mdp"),
    "q and mdp": (lambda: many(2, 1).unflatten(np.zeros(3)), "q", "mdp"),
    "policy and mdp": (lambda: many(2, 1).policy_matrix([0]), "policy", "mdp"),
    "policy matrix and mdp": (lambda: many(2, 1).policy_matrix([[1.0]]), "policy", "mdp"),
    "policy and env": (lambda: bellman.policy_return(_Tabular(), [0], episodes=1, seed=0), "policy", "env"),
    "kernel and td_error": (
        lambda: updates.predicted_change(np.eye(2), [0.5, 0.5], np.zeros(3), alpha=1), "kernel", "td_error"),
    "fit and mdp": (lambda: updates.fitted_update(np.zeros((2, 1)), many(2, 1), fit=np.eye(3)), "fit", "mdp"),
    "kernel of a batch": (
        lambda: Update.preconditioned(many(2, 1), kernel=np.eye(3), batch=[0], alpha=1), "kernel", "mdp"),
    "features and mdp": (
        lambda: updates.linear_step([0.0], np.zeros((3, 1)), many(2, 1), weights=[0.5, 0.5], alpha=1),
        "features", "mdp", "theta"),
    "features and theta": (
        lambda: updates.minimum_norm_step([0.0], np.zeros((2, 2)), many(2, 1), batch=[0], alpha=1),
        "features", "mdp", "theta"),
    "features alone": (
        lambda: updates.linear_fixed_points(np.zeros((3, 1)), many(2, 1), weights=[0.5, 0.5]), "features", "mdp"),
    "points and centers": (
        lambda: features.radial_basis(np.zeros((2, 1)), np.zeros((2, 2)), width=1), "points", "centers"),
    "target and Q0": (
        lambda: dynamics.iterate(lambda Q: Q, np.zeros(2), max_iter=1, target=np.zeros(3)), "target", "Q0"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOTH)
def test_two_that_disagree_are_both_named(name):
    call, *words = BOTH[name]
    with pytest.raises(ValueError) as error:
        call()
    assert all(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", str(error.value)) for word in words), error.value
