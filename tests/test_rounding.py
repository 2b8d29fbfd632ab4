"""Bounds that count what rounding did: below every radius, above every root, and not far off."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divergence_notes import _rounding
from tests import oracles_exact
from tests.strategies import generators


def defective(rng, n, value):
    """Return a matrix of small integers and fractions, whose only eigenvalue is `value`, n times, with one vector."""
    S, back = np.eye(n), np.eye(n)
    for _ in range(2 * n):
        i, j = rng.choice(n, size=2, replace=False)
        c = float(rng.integers(-1, 2))
        S[i] += c * S[j]
        back[:, j] -= c * back[:, i]
    return S @ (value * np.eye(n) + np.eye(n, k=1)) @ back


class TestRadiusBelow:
    """It never exceeds the spectral radius, which is decided exactly; computed eigenvalues do."""

    @given(rng=generators(), n=st.integers(1, 5), kind=st.sampled_from(["any", "symmetric", "whole", "uneven"]))
    @settings(max_examples=60)
    def test_is_below(self, rng, n, kind):
        A = rng.integers(-3, 4, size=(n, n)).astype(float) if kind == "whole" else rng.standard_normal((n, n))
        A = A + A.T if kind == "symmetric" else A
        if kind == "uneven":
            powers = 2.0 ** rng.integers(-20, 21, size=n)
            A = A * powers[:, None] / powers
        found = _rounding.radius_below(A, 0.0)
        assert found == 0 or not oracles_exact.radius_below(oracles_exact.exact(A), Fraction(found))
        if kind in ("any", "symmetric"):
            assert found == pytest.approx(np.abs(np.linalg.eigvals(A)).max(), rel=1e-5)

    @given(rng=generators(), n=st.integers(2, 6))
    @settings(max_examples=40)
    def test_defective(self, rng, n):
        """LAPACK is off by EPS ** (1 / n), on either side; the bound is below, and nearer."""
        A = defective(rng, n, 0.875)
        found = _rounding.radius_below(A, 0.0)
        assert 0.87 < found <= 0.875

    def test_lapack_is_not_below(self, rng):
        above = [np.abs(np.linalg.eigvals(defective(rng, 5, 0.875))).max() > 0.8750001 for _ in range(20)]
        assert any(above)

    @pytest.mark.parametrize("error", [1e-12, 1e-6, 1e-2])
    def test_counts_the_error(self, error, rng):
        """Whatever matrix within the error is meant, its radius is not below."""
        for _ in range(20):
            A, change = rng.standard_normal((2, 3, 3))
            change *= error / np.abs(change).sum(axis=1).max()
            found = _rounding.radius_below(A, error)
            assert found <= np.abs(np.linalg.eigvals(A + change)).max() * (1 + 1e-12)

    @pytest.mark.parametrize("A", [np.zeros((2, 2)), np.full((2, 2), np.inf), np.array([[0.0, 1.0], [0.0, 0.0]])])
    def test_nothing_known(self, A):
        assert _rounding.radius_below(A, 0.0) == 0

    def test_no_overflow(self):
        assert _rounding.radius_below(np.diag([1e300, 1.0]), 0.0) == pytest.approx(1e300)


@given(value=st.floats(1e-300, 1e300), length=st.integers(1, 60))
@settings(max_examples=60)
def test_roots(value, length):
    assert Fraction(_rounding.root_above(value, length)) ** length >= Fraction(value)
    assert Fraction(_rounding.root_below(value, length)) ** length <= Fraction(value)
    assert _rounding.root_above(value, length) == pytest.approx(value ** (1 / length), rel=1e-12)


@given(rng=generators(), n=st.integers(1, 200))
@settings(max_examples=40)
def test_slack_covers_a_product(rng, n):
    """The worst that a computed inner product does is far inside."""
    x, y = rng.standard_normal((2, n)) * 10.0 ** rng.integers(-8, 9, size=(2, n))
    exact = sum(Fraction(a) * Fraction(b) for a, b in zip(x, y, strict=True))
    assert abs(Fraction(float(x @ y)) - exact) <= Fraction(_rounding.slack(n) * float(np.abs(x) @ np.abs(y)))
