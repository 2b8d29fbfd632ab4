"""The random instances are not vacuous: each kind has what it is named for."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import find

from divergence_notes.updates import KernelUpdate
from tests import oracles
from tests.strategies import (
    FORMS,
    kernel_cases,
    make_kernel,
    make_mdp,
    make_update,
    make_weights,
    mdps,
    tables,
    update_cases,
)


class TestProcesses:
    """Dense, terminating, deterministic, sparse and tied processes all occur."""

    def test_kinds(self, rng):
        made = {
            kind: make_mdp(kind, 5, 3, 0.9, rng) for kind in ("dense", "terminating", "deterministic", "sparse", "ties")
        }
        np.testing.assert_allclose(made["dense"].continuation, 1)
        assert 0 < made["terminating"].continuation.min(initial=1, where=made["terminating"].continuation > 0) < 1
        assert set(np.unique(oracles.dense(made["deterministic"]))) == {0.0, 1.0}
        assert sp.issparse(made["sparse"].P)
        assert len(np.unique(made["ties"].R)) <= 3

    def test_corners_are_reached(self):
        assert find(mdps(), lambda mdp: mdp.n_pairs == 1).n_pairs == 1
        assert find(mdps(), lambda mdp: mdp.gamma == 0 and mdp.n_actions == 3 and (mdp.continuation == 0).any())
        tied = find(kernel_cases(), lambda case: case.Q.shape[1] > 1 and len(np.unique(case.Q[0])) == 1)
        assert tied.Q.shape[1] > 1


class TestKernelsAndWeights:
    """Singular, unsymmetric and negative kernels occur, and pairs that no data shows."""

    def test_kinds(self, rng):
        assert np.linalg.matrix_rank(make_kernel("singular", 4, rng)) == 1
        assert np.linalg.eigvalsh(make_kernel("gram", 4, rng)).min() > 0
        unsymmetric = make_kernel("unsymmetric", 4, rng)
        assert not np.allclose(unsymmetric, unsymmetric.T)
        negative = make_kernel("negative", 4, rng)
        assert (negative[~np.eye(4, dtype=bool)] < 0).all()
        for kind in ("uniform", "random", "zeros", "point"):
            assert make_weights(kind, 4, rng).sum() == 1 or abs(make_weights(kind, 4, rng).sum() - 1) < 1e-12
        assert (make_weights("zeros", 4, rng) == 0).sum() == 1
        assert (make_weights("point", 4, rng) == 0).sum() == 3

    def test_integer_tables_tie(self, rng):
        Q = tables(make_mdp("dense", 30, 3, 0.9, rng), rng, integers=True)
        assert ((Q == Q.max(axis=1, keepdims=True)).sum(axis=1) > 1).any()


class TestUpdates:
    """Every form of an update is drawn, on processes of every kind."""

    def test_forms(self, rng):
        parts = KernelUpdate(
            make_mdp("dense", 2, 2, 0.9, rng), kernel=make_kernel("gram", 4, rng), weights=np.full(4, 0.25), alpha=0.7
        )
        made = {form: make_update(form, parts, rng) for form in FORMS}
        assert len({update.matrix.tobytes() for update in made.values()}) == len(FORMS) - 2
        for form in ("policy", "chances"):  # these have the matrix of the kernel
            np.testing.assert_array_equal(made[form].matrix, parts.matrix)
        assert {form for form, update in made.items() if update.policy is not None} == {"policy", "chances", "residual"}
        assert set(np.unique(made["policy"].policy)) == {0.0, 1.0} != set(np.unique(made["chances"].policy))

    @pytest.mark.parametrize("form", FORMS)
    def test_each_is_drawn_with_a_sparse_process(self, form):
        found = find(update_cases(forms=(form,), kinds=("sparse",)), lambda case: case.update.mdp.n_pairs > 1)
        assert sp.issparse(found.update.mdp.P)
