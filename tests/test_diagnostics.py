"""Numbers about a kernel."""

import re

import numpy as np
import pytest
from hypothesis import given, settings

from divergence_notes import diagnostics
from tests.strategies import generators


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


class TestRowRatio:
    """The size of a row off its diagonal, per unit of its diagonal: (1/n) sum_{j != i} |K_ij| / K_ii."""

    @given(rng=generators())
    @settings(max_examples=20)
    def test_against_loops(self, rng):
        K = rng.standard_normal((4, 4))
        K[np.diag_indices(4)] = 0.1 + rng.random(4)
        expected = [sum(abs(K[i, j]) for j in range(4) if j != i) / K[i, i] / 4 for i in range(4)]
        np.testing.assert_allclose(diagnostics.row_ratio(K), expected)

    def test_both_ends(self):
        assert diagnostics.row_ratio(3 * np.eye(5)).tolist() == [0.0] * 5
        np.testing.assert_allclose(diagnostics.row_ratio(np.ones((5, 5))), 0.8)
        np.testing.assert_allclose(diagnostics.row_ratio([[2.0, -1.0], [4.0, 1.0]]), [0.25, 2.0])  # rows, not columns

    def test_refuses(self):
        with refuses(ValueError, "kernel must have a positive diagonal: kernel[1, 1] is 0"):
            diagnostics.row_ratio([[1.0, 2.0], [3.0, 0.0]])
        with refuses(ValueError, "kernel must have a positive diagonal: kernel[0, 0] is -2"):
            diagnostics.row_ratio([[-2.0, 2.0], [3.0, 0.0]])
        with refuses(ValueError, "kernel must have shape (n, n), got (1, 2)"):
            diagnostics.row_ratio([[1.0, 2.0]])
