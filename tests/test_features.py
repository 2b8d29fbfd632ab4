"""Features, and the kernel that they share."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divergence_notes import features
from tests.strategies import generators


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


class TestOneHot:
    """One feature for each pair: a table, whose kernel is the identity."""

    def test_kernel_is_the_identity(self):
        assert features.kernel(features.one_hot(3)).tolist() == np.eye(3).tolist()

    def test_refuses(self):
        with refuses(ValueError, "n_pairs must be in [1, inf), got 0"):
            features.one_hot(0)


class TestAggregation:
    """Pairs of one group share their only feature, pairs of two groups share nothing."""

    def test_rows(self):
        assert features.aggregation([2, 0, 2]).tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 1]]

    @given(rng=generators())
    @settings(max_examples=20)
    def test_kernel(self, rng):
        groups = rng.integers(4, size=6)
        expected = [[float(g == h) for h in groups] for g in groups]
        assert features.kernel(features.aggregation(groups)).tolist() == expected

    def test_refuses(self):
        with refuses(TypeError, "groups must be an array of integers, got dtype float64"):
            features.aggregation([0.0, 1.0])
        with refuses(ValueError, f"groups must hold indices in [0, {np.iinfo(np.intp).max - 1}]: groups[1] is -1"):
            features.aggregation([0, -1])
        with refuses(ValueError, "groups must have shape (any,), got (1, 2)"):
            features.aggregation([[0, 1]])


class TestRadialBasis:
    """A bump is 1 at its centre and exp(-1/2) one width away."""

    @given(rng=generators(), width=st.sampled_from([0.3, 1, 2.5]))
    @settings(max_examples=20)
    def test_against_loops(self, rng, width):
        points, centers = rng.standard_normal((4, 2)), rng.standard_normal((3, 2))
        found = features.radial_basis(points, centers, width=width)
        for i in range(4):
            for j in range(3):
                gap = np.linalg.norm(points[i] - centers[j])
                assert found[i, j] == pytest.approx(np.exp(-0.5 * (gap / width) ** 2))

    def test_closed_form(self):
        found = features.radial_basis([[0.0, 0.0], [0.0, 2.0]], [[0.0, 0.0]], width=2)
        np.testing.assert_allclose(found, [[1.0], [np.exp(-0.5)]])

    def test_refuses(self):
        with refuses(ValueError, "centers must have 2 columns as points has, got 1"):
            features.radial_basis(np.zeros((3, 2)), np.zeros((3, 1)), width=1)
        with refuses(ValueError, "width must be in (0, inf), got 0"):
            features.radial_basis(np.zeros((3, 2)), np.zeros((3, 2)), width=0)
        with refuses(ValueError, "points must have 2 dimensions, got shape (3,)"):
            features.radial_basis(np.zeros(3), np.zeros((3, 2)), width=1)


class TestKernel:
    """K_ij is the inner product of the features of i and j: symmetric, positive semi-definite, of rank at most d."""

    @given(rng=generators(), d=st.integers(1, 6))
    @settings(max_examples=20)
    def test_against_loops(self, rng, d):
        phi = rng.standard_normal((4, d))
        K = features.kernel(phi)
        for i in range(4):
            for j in range(4):
                assert K[i, j] == pytest.approx(sum(phi[i, k] * phi[j, k] for k in range(d)))
        np.testing.assert_array_equal(K, K.T)
        assert np.linalg.eigvalsh(K).min() > -1e-12
        assert np.linalg.matrix_rank(K) == min(4, d)

    def test_refuses(self):
        with refuses(ValueError, "features must have 2 dimensions, got shape (3,)"):
            features.kernel(np.zeros(3))
        with refuses(ValueError, "features must be finite: features[0, 1] is nan"):
            features.kernel([[0.0, np.nan]])


class TestProjection:
    """The nearest table that the features can make, differences squared and counted with their shares."""

    def test_two_states_and_one_weight(self):
        """On paper: with features 1 and 2 and equal shares, the weight is (x + 2 y) / 5."""
        found = features.projection([[1.0], [2.0]], [0.5, 0.5])
        np.testing.assert_allclose(found, np.array([[1, 2], [2, 4]]) / 5, rtol=1e-14)

    @given(rng=generators(), width=st.integers(1, 4))
    @settings(max_examples=20)
    def test_nothing_is_nearer(self, rng, width):
        phi, rho, x = rng.standard_normal((5, width)), rng.dirichlet(np.ones(5)), rng.standard_normal(5)
        nearest = features.projection(phi, rho) @ x

        def distance(table):
            return np.sqrt(rho @ (table - x) ** 2)

        others = nearest + (phi @ rng.standard_normal((width, 100))).T * rng.choice([1e-3, 1, 30], size=(100, 1))
        assert all(distance(nearest) <= distance(other) + 1e-12 for other in others)
        theta = np.linalg.lstsq(phi, nearest, rcond=None)[0]
        np.testing.assert_allclose(phi @ theta, nearest, rtol=0, atol=1e-8)

    @given(rng=generators(), width=st.integers(1, 4))
    @settings(max_examples=20)
    def test_twice_is_once(self, rng, width):
        found = features.projection(rng.standard_normal((5, width)), rng.dirichlet(np.ones(5)))
        np.testing.assert_allclose(found @ found, found, rtol=0, atol=1e-8)

    def test_a_share_of_zero_and_features_that_repeat(self):
        """Of the weights that fit the only pair that counts, the shortest are taken."""
        found = features.projection([[1.0, 1.0], [3.0, 0.0]], [1.0, 0.0])
        np.testing.assert_allclose(found @ [4.0, 7.0], [4, 6], rtol=1e-14)

    def test_refuses(self):
        with refuses(ValueError, "weights must have shape (2,), got (3,)"):
            features.projection([[1.0], [2.0]], [0.5, 0.25, 0.25])
