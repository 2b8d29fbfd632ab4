"""What "one step" means: for which loss, which data and which targets the key equation holds to the letter.

Each class takes a batch of transitions and a linear Q-function, lets autograd do the step that a program would do, and
compares the whole table with the kernel update.
"""

import numpy as np
import pytest
import torch

from divergence_notes import features, updates
from divergence_notes.mdp import FiniteMDP

GAMMA, ALPHA = 0.9, 0.05


@pytest.fixture(params=range(5))
def case(request):
    """Return a batch of transitions on 4 states and 2 actions, features, parameters and the batch's own process."""
    rng = np.random.default_rng(request.param)
    batch = np.column_stack([rng.integers(4, size=20), rng.integers(2, size=20), rng.integers(4, size=20)])
    batch[:8, :2] = [[s, a] for s in range(4) for a in range(2)]  # every pair at least once
    reward, over = rng.standard_normal(20), rng.random(20) < 0.2
    counts, P, R = np.zeros(8), np.zeros((4, 2, 4)), np.zeros((4, 2))
    for (s, a, t), r, end in zip(batch, reward, over, strict=True):
        counts[2 * s + a] += 1
        R[s, a] += r
        P[s, a, t] += not end
    share = counts.reshape(4, 2)
    return {
        "pairs": 2 * batch[:, 0] + batch[:, 1],
        "next": batch[:, 2],
        "reward": reward,
        "over": over,
        "weights": counts / 20,
        "mdp": FiniteMDP(P / share[..., None], R / share, GAMMA),
        "phi": rng.standard_normal((8, 5)),
        "theta": rng.standard_normal(5),
    }


def autograd_step(case, *, factor=0.5, reduce=torch.mean, target_theta=None, through_target=False, alpha=ALPHA):
    """Return the table after the step of a program: a loss on the batch, targets from these or other parameters."""
    phi = torch.tensor(case["phi"])
    theta = torch.tensor(case["theta"], requires_grad=True)
    source = theta if target_theta is None else torch.tensor(target_theta)
    best = (phi @ source).reshape(4, 2).max(dim=1).values[case["next"]]
    target = torch.tensor(case["reward"]) + torch.tensor(GAMMA * ~case["over"]) * best
    error = (target if through_target else target.detach()) - (phi @ theta)[case["pairs"]]
    (slope,) = torch.autograd.grad(factor * reduce(error**2), theta)
    return (case["phi"] @ (case["theta"] - alpha * slope.numpy())).reshape(4, 2)


def kernel_step(case, *, alpha=ALPHA):
    """Return the kernel update with the batch's own frequencies and its own backup."""
    Q = (case["phi"] @ case["theta"]).reshape(4, 2)
    K = features.kernel(case["phi"])
    return updates.KernelUpdate(case["mdp"], kernel=K, weights=case["weights"], alpha=alpha)(Q)


def test_half_squared_error_batch_mean_plain_gradient(case):
    """rho are the frequencies of the batch, T* is the backup of its empirical transitions: equal to rounding."""
    np.testing.assert_allclose(autograd_step(case), kernel_step(case), rtol=0, atol=1e-13)


def test_without_the_half_the_step_is_twice_as_long(case):
    np.testing.assert_allclose(autograd_step(case, factor=1.0), kernel_step(case, alpha=2 * ALPHA), rtol=0, atol=1e-13)
    assert np.abs(autograd_step(case, factor=1.0) - kernel_step(case)).max() > 1e-3


def test_a_sum_in_place_of_the_mean_is_a_step_size_times_the_batch_size(case):
    found = autograd_step(case, reduce=torch.sum)
    np.testing.assert_allclose(found, kernel_step(case, alpha=20 * ALPHA), rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [1.0, 2.0, 20.0])
def test_adam_divides_a_factor_of_the_loss_out(case, factor):
    """200 steps of regression on fixed targets end in one place, with the mean, without the half, and with the sum."""
    phi, target = torch.tensor(case["phi"])[case["pairs"]], torch.tensor(case["reward"])

    def end(factor, optimiser, **settings):
        theta = torch.tensor(case["theta"], requires_grad=True)
        moves = optimiser([theta], lr=0.01, **settings)
        for _ in range(200):
            moves.zero_grad()
            (factor / 2 * torch.mean((target - phi @ theta) ** 2)).backward()
            moves.step()
        return theta.detach().numpy()

    np.testing.assert_allclose(end(factor, torch.optim.Adam), end(1.0, torch.optim.Adam), rtol=0, atol=1e-4)
    plain = end(factor, torch.optim.SGD), end(1.0, torch.optim.SGD)
    assert (np.abs(plain[0] - plain[1]).max() > 1e-2) == (factor > 1)


def test_a_target_network_only_changes_the_backup(case):
    """Q + alpha K D (T* Q_target - Q)."""
    old = case["theta"] + np.linspace(-1, 1, 5)
    Q, Q_old = ((case["phi"] @ theta).reshape(4, 2) for theta in (case["theta"], old))
    backup = case["mdp"].R + GAMMA * np.einsum("sat,t->sa", case["mdp"].P, Q_old.max(axis=1))
    K = features.kernel(case["phi"])
    want = Q + updates.predicted_change(K, case["weights"], (backup - Q).ravel(), alpha=ALPHA).reshape(4, 2)
    np.testing.assert_allclose(autograd_step(case, target_theta=old), want, rtol=0, atol=1e-13)


def test_gradient_through_the_target_is_another_update(case):
    """The residual gradient of single transitions follows phi - gamma phi', not phi."""
    phi, theta = case["phi"], case["theta"]
    best = phi.reshape(4, 2, 5)[np.arange(4), (phi @ theta).reshape(4, 2).argmax(axis=1)]  # (4, 5)
    after = GAMMA * (~case["over"])[:, None] * best[case["next"]]  # (20, 5)
    error = case["reward"] + after @ theta - phi[case["pairs"]] @ theta
    want = phi @ (theta + ALPHA * (phi[case["pairs"]] - after).T @ error / 20)
    found = autograd_step(case, through_target=True)
    np.testing.assert_allclose(found.ravel(), want, rtol=0, atol=1e-13)
    assert np.abs(found - kernel_step(case)).max() > 1e-3


def test_one_sample_after_another_differs_by_the_square_of_the_step(case):
    """Halving the step divides the gap between sequential steps and one batch step by four."""

    def gap(alpha):
        theta = case["theta"].copy()
        for pair, successor, reward, over in zip(
            case["pairs"], case["next"], case["reward"], case["over"], strict=True
        ):
            best = (case["phi"] @ theta).reshape(4, 2)[successor].max()
            error = reward + GAMMA * (not over) * best - case["phi"][pair] @ theta
            theta = theta + alpha / 20 * error * case["phi"][pair]
        return np.abs((case["phi"] @ theta).reshape(4, 2) - kernel_step(case, alpha=alpha)).max()

    assert gap(1e-3) > 1e-8
    assert gap(1e-3) / gap(5e-4) == pytest.approx(4, rel=0.05)
