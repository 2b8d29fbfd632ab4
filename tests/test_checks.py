"""The one voice of every input error."""

import re
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from divergence_notes import _checks


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


class TestArray:
    """An array argument comes back as a finite float64 array of the asked shape, or its name and fault are told."""

    @pytest.mark.parametrize("value", [[[1, 2]], ((1, 2),), np.array([[1, 2]], dtype=np.int8), [[True, 2.0]]])
    def test_accepts(self, value):
        out = _checks.array("Q", value, shape=(1, 2))
        assert out.dtype == np.float64
        assert out.tolist() == [[1.0, 2.0]]

    @pytest.mark.parametrize(
        ("value", "limits", "message"),
        [
            ([1, 2], {"ndim": 2}, "Q must have 2 dimensions, got shape (2,)"),
            ([1, 2], {"shape": (3,)}, "Q must have shape (3,), got (2,)"),
            ([[1, 2]], {"shape": (None,)}, "Q must have shape (any,), got (1, 2)"),
            ([[1, 2]], {"shape": (None, 3)}, "Q must have shape (any, 3), got (1, 2)"),
            ([[1, 2], [np.nan, np.inf]], {}, "Q must be finite: Q[1, 0] is nan"),
            ([0.0, -np.inf], {}, "Q must be finite: Q[1] is -inf"),
            (np.nan, {}, "Q must be finite: Q is nan"),
        ],
    )
    def test_refuses(self, value, limits, message):
        with refuses(ValueError, message):
            _checks.array("Q", value, **limits)

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            ("abc", "str"),
            ([[1], [1, 2]], "list"),
            ({}, "dict"),
            ("0.5", "str"),
            (["1", "2"], "list"),
            (np.array([b"1"]), "ndarray"),
            (np.array(["2026-01-01"], dtype="datetime64[D]"), "ndarray"),
        ],
    )
    def test_refuses_what_holds_no_numbers(self, value, kind):
        with refuses(TypeError, f"Q must be an array of real numbers, got {kind}"):
            _checks.array("Q", value)

    @pytest.mark.parametrize("value", [1j, [1j, 2], np.array([1 + 2j])])
    def test_refuses_complex(self, value):
        with refuses(TypeError, f"Q must be an array of real numbers, got {type(value).__name__}"):
            _checks.array("Q", value)

    def test_any_length_in_a_shape(self):
        assert _checks.array("Q", np.zeros((4, 2)), shape=(None, 2)).shape == (4, 2)


class TestDistribution:
    """A distribution has the asked length, no negative entry, and sums to 1."""

    def test_accepts(self):
        assert _checks.distribution("weights", [0, 0.25, 0.75], size=3).tolist() == [0, 0.25, 0.75]
        assert _checks.distribution("weights", np.full(7, 1 / 7), size=7).sum() == pytest.approx(1)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ([0.5, 0.5, 0.5], "weights must have shape (2,), got (3,)"),
            ([1.5, -0.5], "weights must be non-negative: weights[1] is -0.5"),
            ([0.5, 0.6], "weights must be a distribution: its entries sum to 1.1, not to 1"),
            ([0.5, 0.4], "weights must be a distribution: its entries sum to 0.9, not to 1"),
            ([np.nan, 1.0], "weights must be finite: weights[0] is nan"),
        ],
    )
    def test_refuses(self, value, message):
        with refuses(ValueError, message):
            _checks.distribution("weights", value, size=2)


class TestSquare:
    """A kernel is square, of the order that is asked for."""

    def test_accepts(self):
        assert _checks.square("kernel", [[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
        assert _checks.square("kernel", [[1, 2], [3, 4]], size=2).shape == (2, 2)

    @pytest.mark.parametrize(
        ("value", "size", "message"),
        [
            ([1, 2], None, "kernel must have 2 dimensions, got shape (2,)"),
            ([[1, 2]], None, "kernel must have shape (n, n), got (1, 2)"),
            ([[1, 2], [3, 4]], 3, "kernel must have shape (3, 3), got (2, 2)"),
            ([[1, 2]], 2, "kernel must have shape (2, 2), got (1, 2)"),
        ],
    )
    def test_refuses(self, value, size, message):
        with refuses(ValueError, message):
            _checks.square("kernel", value, size=size)


class TestScalar:
    """A number lies in its interval, whose ends are said in the usual brackets; a bool or a string is no number."""

    @pytest.mark.parametrize("value", [0, 0.5, np.float32(0.25), np.int64(0), np.array(0.5), Fraction(1, 2)])
    def test_accepts(self, value):
        out = _checks.scalar("gamma", value, low=0, high=1, high_open=True)
        assert type(out) is float
        assert out == float(value)

    @pytest.mark.parametrize(
        ("value", "limits", "message"),
        [
            (1, {"low": 0, "high": 1, "high_open": True}, "gamma must be in [0, 1), got 1"),
            (-0.1, {"low": 0, "high": 1, "high_open": True}, "gamma must be in [0, 1), got -0.1"),
            (float("nan"), {"low": 0, "high": 1, "high_open": True}, "gamma must be in [0, 1), got nan"),
            (0, {"low": 0, "low_open": True}, "gamma must be in (0, inf), got 0"),
            (float("inf"), {"low": 0}, "gamma must be in [0, inf), got inf"),
            (2.5, {"high": 2}, "gamma must be in (-inf, 2], got 2.5"),
            (float("inf"), {}, "gamma must be finite, got inf"),
        ],
    )
    def test_refuses(self, value, limits, message):
        with refuses(ValueError, message):
            _checks.scalar("gamma", value, **limits)

    def test_closed_ends_belong(self):
        assert _checks.scalar("x", 0, low=0, high=1) == 0
        assert _checks.scalar("x", 1, low=0, high=1) == 1

    @pytest.mark.parametrize(
        "value",
        [
            True,
            np.True_,
            np.array(True),
            "a",
            None,
            [0.5],
            np.array([0.5]),
            1j,
            np.complex128(0.5),
            "0.5",
            "1e-1",
            b"0.5",
        ],
    )
    def test_refuses_other_types(self, value):
        with refuses(TypeError, f"gamma must be a number, got {value!r}"):
            _checks.scalar("gamma", value, low=0)

    @pytest.mark.parametrize("value", [np.str_("0.5"), np.array("0.5"), np.timedelta64(1, "s")])
    def test_refuses_what_float_would_read(self, value):
        with refuses(TypeError, f"gamma must be a number, got {value!r}"):
            _checks.scalar("gamma", value, low=0)


class TestInteger:
    """A count is an integer in its closed interval."""

    @pytest.mark.parametrize("value", [1, np.int32(1), np.uint8(1)])
    def test_accepts(self, value):
        out = _checks.integer("steps", value, low=1, high=1)
        assert type(out) is int
        assert out == 1

    @pytest.mark.parametrize(
        ("value", "limits", "message"),
        [
            (0, {"low": 1}, "steps must be in [1, inf), got 0"),
            (4, {"low": 1, "high": 3}, "steps must be in [1, 3], got 4"),
        ],
    )
    def test_refuses(self, value, limits, message):
        with refuses(ValueError, message):
            _checks.integer("steps", value, **limits)

    @pytest.mark.parametrize("value", [1.0, "1", True, np.False_, None])
    def test_refuses_other_types(self, value):
        with refuses(TypeError, f"steps must be an integer, got {value!r}"):
            _checks.integer("steps", value, low=1)


class TestChoice:
    """A choice is one of the options."""

    def test_both_sides(self):
        assert _checks.choice("activation", "relu", ("relu", "sin")) == "relu"
        with refuses(ValueError, "activation must be one of 'relu', 'sin', got 'gelu'"):
            _checks.choice("activation", "gelu", ("relu", "sin"))


class TestIndices:
    """Indices are integers from 0 to below the size; a negative one is no shorthand."""

    def test_accepts(self):
        out = _checks.indices("policy", np.array([2, 0], dtype=np.int16), high=3, shape=(2,))
        assert out.dtype == np.intp
        assert out.tolist() == [2, 0]

    @pytest.mark.parametrize(
        ("value", "error", "message"),
        [
            ([0.0, 1.0], TypeError, "policy must be an array of integers, got dtype float64"),
            ([True, False], TypeError, "policy must be an array of integers, got dtype bool"),
            ([0, 1, 2], ValueError, "policy must have shape (2,), got (3,)"),
            ([0, 3], ValueError, "policy must hold indices in [0, 2]: policy[1] is 3"),
            ([-1, 3], ValueError, "policy must hold indices in [0, 2]: policy[0] is -1"),
        ],
    )
    def test_refuses(self, value, error, message):
        with refuses(error, message):
            _checks.indices("policy", value, high=3, shape=(2,))


class TestWithoutTheHook:
    """A reader has no type checker: the package itself names the argument whose type is wrong."""

    def test_messages(self):
        script = """
import numpy as np
from divergence_notes import bellman, contraction, dynamics, mdp, updates
process = mdp.random_mdp(2, 2, gamma=0.5, branching=1, rng=np.random.default_rng(0))
calls = [
    lambda: mdp.FiniteMDP(process.P, process.R, "a"),
    lambda: mdp.FiniteMDP(process.P, "a", 0.5),
    lambda: mdp.random_mdp(2.0, 2, gamma=0.5, branching=1, rng=np.random.default_rng(0)),
    lambda: updates.Update.table(process, alpha="big"),
    lambda: contraction.row_dominance(np.eye(2), None, gamma=0.5),
    lambda: bellman.value_iteration(process, tol=None),
    lambda: bellman.policy_value(process, [0.0, 1.0]),
    lambda: dynamics.iterate(lambda Q: Q, 0.0, max_iter=1.5),
]
for call in calls:
    try:
        call()
    except (TypeError, ValueError) as error:
        print(type(error).__name__, error)
"""
        found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert found.stdout.splitlines() == [
            "TypeError gamma must be a number, got 'a'",
            "TypeError R must be an array of real numbers, got str",
            "TypeError n_states must be an integer, got 2.0",
            "TypeError alpha must be a number, got 'big'",
            "ValueError weights must have shape (2,), got (), while kernel has shape (2, 2)",
            "TypeError tol must be a number, got None",
            "TypeError policy must be an array of integers, got dtype float64",
            "TypeError max_iter must be an integer, got 1.5",
        ]
