"""Iterating an operator: three fates, each from an operator whose fate is known on paper."""

import re

import numpy as np
import pytest

from divergence_notes import dynamics
from divergence_notes.dynamics import iterate, portrait, sup_norm, vector_field


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


class TestThreeFates:
    """A run ends as converged, diverged or undecided, and nothing else."""

    def test_a_loop_without_discount_is_undecided(self):
        run = iterate(lambda Q: 1 + 1.0 * Q, np.zeros(()), max_iter=1000)
        assert run.status == "undecided"
        np.testing.assert_array_equal(run.values, np.arange(1001.0))  # 1000 after 1000 sweeps, and on it goes
        np.testing.assert_array_equal(run.steps, 1.0)
        assert run.errors is None

    def test_growth_diverges(self):
        run = iterate(lambda w: 1.1 * w, np.array([1.0, -2.0]), max_iter=1000, bound=1e6)
        assert run.status == "diverged"
        expected = int(np.ceil(np.log(1e6 / 2) / np.log(1.1)))
        assert len(run.values) == expected + 1  # stops at the first iterate beyond the bound
        assert run.sizes[-2] <= 1e6 < run.sizes[-1]
        np.testing.assert_allclose(run.values[:, 0], 1.1 ** np.arange(expected + 1))

    def test_growing_for_ever_is_not_divergence(self):
        run = iterate(lambda Q: 1 + 0.9 * Q, np.zeros((1, 1)), max_iter=1000, target=[[10.0]])
        assert run.status == "converged"
        assert (np.diff(run.values[:, 0, 0]) > 0).all()
        np.testing.assert_allclose(run.errors, 10 * 0.9 ** np.arange(len(run.values)), rtol=1e-6, atol=1e-11)
        assert run.values[-1, 0, 0] == pytest.approx(10, abs=1e-8)

    def test_a_bounded_swing_is_undecided(self):
        run = iterate(lambda Q: -Q, [1.0, 2.0], max_iter=50)
        assert run.status == "undecided"
        assert len(run.values) == 51
        np.testing.assert_array_equal(run.sizes, 2.0)
        np.testing.assert_array_equal(run.steps, 4.0)

    @pytest.mark.parametrize("fate", [np.nan, np.inf, -np.inf])
    def test_not_a_number_is_divergence(self, fate):
        run = iterate(lambda Q: Q * fate, np.ones((2, 1)), max_iter=5, target=np.zeros((2, 1)))
        assert run.status == "diverged"
        assert run.values.shape == (2, 2, 1)
        assert not np.isfinite(run.errors[-1])

    def test_overflow_is_divergence_and_no_warning(self):
        run = iterate(lambda Q: Q**2, np.array(10.0), max_iter=100, bound=1e308)
        assert run.status == "diverged"
        assert run.values[-1] == np.inf
        assert run.steps[-1] == np.inf

    def test_a_fixed_point_needs_one_step(self):
        run = iterate(lambda Q: Q, np.ones(3), max_iter=10)
        assert run.status == "converged"
        assert run.values.shape == (2, 3)

    def test_the_words(self):
        assert dynamics.STATUSES == ("converged", "diverged", "undecided")


class TestCriteria:
    """A step shorter than tol * max(1, |Q|) converges; a size beyond the bound diverges."""

    @pytest.mark.parametrize(("tol", "steps"), [(1e-2, 7), (1e-4, 14), (0, 1076)])
    def test_tolerance(self, tol, steps):
        run = iterate(lambda Q: Q / 2, np.array(1.0), max_iter=2000, tol=tol)
        assert run.status == "converged"
        assert len(run.steps) == steps  # 2^-k <= tol, and with tol = 0 when 2^-1074 / 2 rounds to zero

    def test_tolerance_is_relative_beyond_one(self):
        def shrink(Q):
            return 1e6 + (Q - 1e6) / 2

        run = iterate(shrink, np.array(1e6 + 1), max_iter=2000, tol=1e-6)
        assert len(run.steps) == 1  # a step of a half, where 1e-6 of the size is one
        assert len(iterate(lambda Q: Q / 2, np.array(1.0), max_iter=2000, tol=1e-6).steps) == 20

    def test_the_bound_itself_is_allowed(self):
        run = iterate(lambda Q: Q + 1, np.array(0.0), max_iter=8, bound=4)
        assert run.values.tolist() == [0, 1, 2, 3, 4, 5]
        assert run.status == "diverged"

    def test_the_start_is_not_judged(self):
        run = iterate(lambda Q: Q / 4, np.array(16.0), max_iter=2, bound=4)
        assert run.values.tolist() == [16, 4, 1]
        assert run.status == "undecided"
        assert iterate(lambda Q: Q, np.array(16.0), max_iter=2, bound=4).status == "diverged"

    def test_divergence_is_seen_in_any_entry_and_sign(self):
        assert iterate(lambda Q: Q * [1.0, 3.0], [1.0, -1.0], max_iter=80).status == "diverged"

    def test_convergence_needs_every_entry(self):
        assert iterate(lambda Q: Q * [1.0, -1.0], [1.0, 1.0], max_iter=80).status == "undecided"

    def test_errors_are_sup_norms(self):
        run = iterate(lambda Q: Q / 2, [4.0, -8.0], max_iter=2, target=[1.0, 1.0])
        assert run.errors.tolist() == [9.0, 5.0, 3.0]
        assert sup_norm(np.array([[[1.0, -3.0]], [[2.0, 0.5]]])).tolist() == [3.0, 2.0]


class TestInputs:
    """Arguments are checked, the start is never changed, and an operator keeps the shape."""

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"Q0": [np.nan]}, ValueError, "Q0 must be finite: Q0[0] is nan"),
            ({"max_iter": 0}, ValueError, "max_iter must be in [1, inf), got 0"),
            ({"max_iter": True}, TypeError, "max_iter must be an integer, got True"),
            ({"tol": -1e-3}, ValueError, "tol must be in [0, inf), got -0.001"),
            ({"bound": 0}, ValueError, "bound must be in (0, inf), got 0"),
            ({"target": [1.0, 2.0]}, ValueError, "target must have shape (1,), got (2,), while Q0 has shape (1,)"),
            ({"operator": lambda Q: np.zeros(2)}, ValueError, "operator must keep the shape (1,), it returned (2,)"),
            ({"operator": lambda Q: 0.0}, ValueError, "operator must keep the shape (1,), it returned ()"),
        ],
    )
    def test_refuses(self, changes, error, message):
        arguments = {"operator": lambda Q: Q / 2, "Q0": [1.0], "max_iter": 3} | changes
        with refuses(error, message):
            iterate(**arguments)

    def test_an_operator_that_works_in_place(self):
        def grow(Q):
            Q += 1.0
            return Q

        start = np.zeros(2)
        run = iterate(grow, start, max_iter=3)
        assert not start.any()
        np.testing.assert_array_equal(run.values[:, 0], [0, 1, 2, 3])
        assert run.status == "undecided"

    def test_values_are_a_copy(self):
        start = np.ones(2)
        run = iterate(lambda Q: Q / 2, start, max_iter=1)
        run.values[0] = 7
        assert start.tolist() == [1, 1]


class TestVectorField:
    """Entry [i, j] is the displacement of the operator at (x[j], y[i])."""

    @pytest.mark.parametrize("shape", [(2,), (1, 2), (2, 1)])
    def test_against_loops(self, shape):
        matrix = np.array([[0.5, 2.0], [-1.0, 0.25]])

        def operator(Q):
            assert Q.shape == shape
            return (matrix @ Q.ravel() + [1.0, 0.0]).reshape(shape)

        x, y = [-1.0, 0.0, 2.0], [3.0, 5.0]
        field = vector_field(operator, x, y, shape=shape)
        assert field.shape == (2, 3, 2)
        for i in range(2):
            for j in range(3):
                dx = 0.5 * x[j] + 2.0 * y[i] + 1.0 - x[j]
                dy = -1.0 * x[j] + 0.25 * y[i] - y[i]
                np.testing.assert_allclose(field[i, j], [dx, dy])

    def test_an_operator_that_works_in_place(self):
        def double(Q):
            Q *= 2.0
            return Q

        assert vector_field(double, [3.0], [5.0], shape=(2,)).tolist() == [[[3.0, 5.0]]]

    def test_refuses(self):
        with refuses(ValueError, "shape must hold two numbers, got (3, 1)"):
            vector_field(lambda Q: Q, [0.0], [0.0], shape=(3, 1))
        with refuses(ValueError, "x must have 1 dimensions, got shape ()"):
            vector_field(lambda Q: Q, np.array(0.0), [0.0], shape=(2,))
        with refuses(ValueError, "y must be finite: y[0] is inf"):
            vector_field(lambda Q: Q, [0.0], [np.inf], shape=(2,))


class TestPortrait:
    """A portrait is the field on a square grid and one run from each start."""

    def test_both_parts(self):
        def spiral(Q):
            return Q @ np.array([[0.5, 0.3], [-0.3, 0.5]])

        found = portrait(spiral, [[1.0, 0.0], [0.0, -2.0]], shape=(1, 2), limits=(-2, 3), max_iter=7, tol=0)
        assert found.x[[0, -1]].tolist() == found.y[[0, -1]].tolist() == [-2, 3]
        np.testing.assert_array_equal(found.field, vector_field(spiral, found.x, found.y, shape=(1, 2)))
        assert [run.values[0].tolist() for run in found.paths] == [[[1.0, 0.0]], [[0.0, -2.0]]]
        for run in found.paths:
            assert run.status == "undecided"
            np.testing.assert_array_equal(run.values[-1], iterate(spiral, run.values[0], max_iter=7, tol=0).values[-1])

    def test_settings_reach_the_runs(self):
        assert portrait(lambda Q: 2 * Q, [[1.0, 0.0]], shape=(2,), limits=(0, 1), bound=5).paths[0].sizes[-1] == 8
        assert (
            portrait(lambda Q: Q / 2, [[1.0, 0.0]], shape=(2,), limits=(0, 1), tol=0.3).paths[0].status == "converged"
        )

    def test_refuses(self):
        with refuses(ValueError, "starts must have shape (any, 2), got (1, 3)"):
            portrait(lambda Q: Q, [[0.0, 0.0, 0.0]], shape=(2,), limits=(0, 1))
        with refuses(ValueError, "shape must hold two numbers, got (3,)"):
            portrait(lambda Q: Q, [[0.0, 0.0]], shape=(3,), limits=(0, 1))
