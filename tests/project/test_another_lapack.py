"""The other answers are right, and are others."""

import numpy as np
import pytest
import torch

from tests import another_lapack


def matrices():
    """Return matrices with single, double and complex eigenvalues, symmetric or not, defective, singular, stacked."""
    rng = np.random.default_rng(5)
    drawn = rng.standard_normal((4, 4))
    basis = another_lapack.rotation(4, drawn)
    thin = rng.standard_normal((6, 2))
    return {
        "symmetric": drawn + drawn.T,
        "double": basis @ np.diag([1.0, 1.0, 1.0, 3.0]) @ basis.T,
        "identity": np.eye(3),
        "zero": np.zeros((3, 3)),
        "rank two": thin @ thin.T,
        "any": drawn,
        "turn": np.kron(np.eye(2), [[0.0, -1.0], [1.0, 0.0]]),
        "defective": np.array([[1.0, 1.0], [0.0, 1.0]]),
        "stack": rng.standard_normal((2, 3, 3)),
        "wide": rng.standard_normal((2, 5)),
        "tall": rng.standard_normal((5, 2)),
    }


LIBRARIES = {"numpy": (np, np.asarray), "torch": (torch, torch.as_tensor)}
SQUARE = [name for name, matrix in matrices().items() if matrix.shape[-1] == matrix.shape[-2]]
SYMMETRIC = [name for name in SQUARE if np.array_equal(matrices()[name], np.swapaxes(matrices()[name], -1, -2))]


@pytest.fixture
def other(monkeypatch):
    """Let numpy and torch answer otherwise."""
    another_lapack.install(monkeypatch.setattr)


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("library", LIBRARIES)
class TestAnswers:
    """Each answer is one of those that the library may give."""

    @pytest.mark.parametrize("name", SQUARE)
    def test_eig(self, library, name):
        library, read = LIBRARIES[library]
        A = matrices()[name]
        values, vectors = map(np.asarray, library.linalg.eig(read(A)))
        np.testing.assert_allclose(A @ vectors, values[..., None, :] * vectors, atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-2), 1)
        np.testing.assert_allclose(np.asarray(library.linalg.eigvals(read(A))), values, atol=1e-12)

    @pytest.mark.parametrize("name", SYMMETRIC)
    def test_eigh(self, library, name):
        library, read = LIBRARIES[library]
        A = matrices()[name]
        values, V = map(np.asarray, library.linalg.eigh(read(A)))
        assert (np.diff(values) >= 0).all()
        np.testing.assert_allclose(V @ np.diag(values) @ V.T, A, atol=1e-12)
        np.testing.assert_allclose(V.T @ V, np.eye(len(V)), atol=1e-12)

    @pytest.mark.parametrize("full", [True, False])
    @pytest.mark.parametrize("name", matrices())
    def test_svd(self, library, name, full):
        library, read = LIBRARIES[library]
        A = matrices()[name]
        U, sizes, Vh = map(np.asarray, library.linalg.svd(read(A), full_matrices=full))
        k = sizes.shape[-1]
        np.testing.assert_allclose((U[..., :k] * sizes[..., None, :]) @ Vh[..., :k, :], A, atol=1e-12)
        for basis in (np.swapaxes(U, -1, -2) @ U, Vh @ np.swapaxes(Vh, -1, -2)):
            np.testing.assert_allclose(basis, np.broadcast_to(np.eye(basis.shape[-1]), basis.shape), atol=1e-12)

    @pytest.mark.parametrize("name", matrices())
    def test_qr(self, library, name):
        library, read = LIBRARIES[library]
        Q, R = map(np.asarray, library.linalg.qr(read(matrices()[name])))
        np.testing.assert_allclose(Q @ R, matrices()[name], atol=1e-12)

    def test_values_alone_and_nothing_are_left(self, library):
        library, read = LIBRARIES[library]
        assert np.shape(np.linalg.svd(np.eye(3), compute_uv=False)) == (3,)
        assert np.shape(library.linalg.eig(read(np.zeros((0, 3, 3))))[1]) == (0, 3, 3)


class TestWhatLeansOnTheUsualAnswer:
    """Each way to lean on it falls over."""

    def lean(self):
        """Return what is no property of the matrix."""
        found = {name: matrices()[name] for name in ("symmetric", "any", "identity", "turn", "wide")}
        return [
            np.linalg.eigh(found["symmetric"])[1][:, -1],  # a sign
            np.linalg.eigvals(found["any"])[0],  # an order
            np.linalg.eigh(found["identity"])[1][:, 0] ** 2,  # one of many
            np.linalg.eig(found["turn"])[1][:, 0].real ** 2,  # a phase
            np.linalg.svd(found["wide"])[2][-1] ** 2,  # one of many, in a null space
            torch.linalg.eigh(torch.eye(3))[1][0, 0],
            np.linalg.qr(found["any"])[1][0, 0],
        ]

    def test_is_found(self, monkeypatch):
        if hasattr(np.linalg.eigh, "usual"):
            pytest.skip("numpy answers otherwise already")
        usual = self.lean()
        another_lapack.install(monkeypatch.setattr)
        for k, pair in enumerate(zip(usual, self.lean(), strict=True)):
            assert not np.allclose(*pair), k

    def test_twice_is_once(self, monkeypatch):
        another_lapack.install(monkeypatch.setattr)
        first = np.linalg.eigh
        another_lapack.install(monkeypatch.setattr)
        assert np.linalg.eigh is first


def loop(n, *, n_actions=1):
    """Return a process in which every state leads to the next one, with whatever action."""
    from divergence_notes.mdp import FiniteMDP

    P = np.repeat(np.roll(np.eye(n), 1, axis=1)[:, None, :], n_actions, axis=1)
    return FiniteMDP(P, np.ones((n, n_actions)), 0.9)


def some_norms():
    """Ask of one policy whose Jacobian has a complex pair on top: an ellipsoid to measure by has many names then."""
    from divergence_notes import norms
    from divergence_notes.mdp import random_mdp
    from divergence_notes.updates import KernelUpdate

    rng = np.random.default_rng(3)
    for _ in range(800):
        mdp, phi = random_mdp(3, 1, gamma=0.9, branching=2, rng=rng), rng.standard_normal((3, 3))
        update = KernelUpdate(mdp, kernel=phi @ phi.T, weights=rng.dirichlet(np.ones(3)), alpha=1.0)
        values = np.linalg.eigvals(update.jacobian([0, 0, 0]))
        if values[np.abs(values).argmax()].imag:
            yield VERDICTS[norms.some_norm(update)]


def judged(name, kernel, n_actions=1, **more):
    """Ask `contraction` or `norms` about a kernel on a loop."""
    from divergence_notes import contraction, norms
    from divergence_notes.updates import KernelUpdate

    n = len(kernel)
    mdp = loop(n // n_actions, n_actions=n_actions)
    update = KernelUpdate(mdp, kernel=kernel, weights=np.full(n, 1 / n), alpha=1.0)
    return getattr(contraction if hasattr(contraction, name) else norms, name)(update, **more)


def solved(**how):
    """Undo a kernel with two equal rows, and with three equal eigenvalues."""
    from divergence_notes import preqn

    K = torch.block_diag(torch.ones(2, 2, dtype=torch.float64), 2 * torch.eye(3, dtype=torch.float64))
    return preqn.solve(K, torch.arange(1.0, 6.0, dtype=torch.float64), **how).numpy()


def stationary(mdp):
    """Where a loop is found."""
    from divergence_notes import mdp as model

    return model.stationary_distribution(mdp, np.zeros(mdp.n_states, dtype=int))


def rank(kernel):
    """Ask how many directions a kernel has."""
    from divergence_notes import diagnostics

    return diagnostics.effective_rank(kernel)


def shortest():
    """Ask for the shortest step when two pairs have the same features, and most parameters are in no pair."""
    from divergence_notes import updates

    phi = np.vstack([np.eye(3, 8), np.eye(1, 8)])
    return updates.minimum_norm_step(np.ones(8), phi, loop(4), batch=[0, 1, 3], alpha=0.5)


VERDICTS = {True: 1, False: 0, None: -1}
COUPLED = np.array([[2.0, 1.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 2.0]])
ASKED = {
    "stationary distribution": lambda: stationary(loop(4)),
    "some norm": lambda: list(some_norms()),
    "some norm, two actions": lambda: VERDICTS[judged("some_norm", COUPLED, 2)],
    "weighted modulus, all alike": lambda: judged("weighted_modulus", np.eye(4))[0],
    "weighted modulus, two halves": lambda: judged("weighted_modulus", COUPLED, 2)[0],
    "exact modulus": lambda: judged("exact_modulus", COUPLED, 2),
    "joint spectral radius": lambda: judged("joint_spectral_radius", COUPLED, 2, depth=4),
    "effective rank, symmetric": lambda: rank(np.kron(np.ones((2, 2)), np.eye(2))),
    "effective rank, not symmetric": lambda: rank(np.kron(np.eye(2), [[0.0, 1.0], [0.0, 0.0]])),
    "shortest step": shortest,
    "kernel undone, as it is": lambda: solved(solver="minimum-norm", jitter=1e-4),
    "kernel undone, with a ridge": lambda: solved(solver="cholesky", jitter=1e-4),
}


@pytest.mark.parametrize("name", ASKED)
def test_the_package_leans_on_none_of_it(monkeypatch, name):
    usual = ASKED[name]()
    another_lapack.install(monkeypatch.setattr)
    np.testing.assert_allclose(ASKED[name](), usual, rtol=1e-9, atol=1e-12)
