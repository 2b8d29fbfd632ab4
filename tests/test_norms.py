"""Beyond the sup norm: the best weights, products of Jacobians, some norm at all, and sequences of contractions."""

import dataclasses
import itertools
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divergence_notes import contraction, dynamics, examples, norms, verdicts
from divergence_notes.mdp import FiniteMDP, random_mdp, stationary_distribution
from divergence_notes.updates import KernelUpdate, Update
from tests import oracles, oracles_exact
from tests.strategies import generators, make_kernel, make_update, tables, update_cases

few = settings(max_examples=50)
SMALL = {"max_states": 3, "max_actions": 2}
ONE_POLICY = ("policy", "chances", "residual")


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def process(P, gamma):
    """Return a process with one action and no reward from the rows of its chain."""
    P = np.asarray(P, dtype=float)
    return FiniteMDP(P[:, None, :], np.zeros((len(P), 1)), gamma)


def over(n):
    """Return a process in which every episode ends at once, so that the Jacobian is I - M."""
    return process(np.zeros((n, n)), 0.0)


def on(mdp, kernel, weights, alpha=1.0):
    return KernelUpdate(mdp, kernel=np.array(kernel, dtype=float), weights=weights, alpha=alpha)


class TestWeightedModulus:
    """thm-weighted-norm: lambda* is the smallest constant over weighted sup norms, and w proves it."""

    @given(case=update_cases(**SMALL))
    def test_certificate(self, case):
        """For any matrix, and with a policy of its own for that one."""
        value, w = norms.weighted_modulus(case.update)
        assert (w > 0).all() and w.max() == 1
        for J in oracles.jacobians(case.update):
            assert (np.abs(J) @ w <= value * w * (1 + 1e-12)).all()
        assert value <= oracles.lipschitz(case.update) * (1 + 1e-12) + 1e-12

    @given(case=update_cases(max_states=2, max_actions=2))
    @settings(max_examples=150)
    def test_no_weights_do_better(self, case):
        """Nonlinear Perron-Frobenius: the largest spectral radius over all selections of rows, one by one."""
        rows = np.abs(oracles.jacobians(case.update))  # (policies, n, n)
        n = case.update.mdp.n_pairs
        roots = [
            np.abs(np.linalg.eigvals(rows[list(selection), np.arange(n)])).max()
            for selection in itertools.product(range(len(rows)), repeat=n)
        ]
        value, _ = norms.weighted_modulus(case.update)
        assert max(roots) <= value * (1 + 1e-9) + 1e-12
        assert value == pytest.approx(max(roots), rel=1e-5, abs=1e-5)

    @given(rng=generators(), kind=st.sampled_from(["gram", "unsymmetric", "dominant"]))
    @few
    def test_to_seven_digits_where_every_pair_is_sampled(self, rng, kind):
        mdp = random_mdp(2, 2, gamma=0.9, branching=2, rng=rng)
        update = on(mdp, make_kernel(kind, 4, rng), rng.dirichlet(np.full(4, 3)), 0.7)
        rows = np.abs(oracles.jacobians(update))
        radii = [
            np.abs(np.linalg.eigvals(rows[list(chosen), range(4)])).max()
            for chosen in itertools.product(range(4), repeat=4)
        ]
        assert norms.weighted_modulus(update)[0] == pytest.approx(max(radii), rel=1e-7)

    @given(case=update_cases())
    def test_rows_in_their_own_units(self, case):
        """The proof: one policy bounds a row in units of its own; no walk from piece to piece is needed."""
        update, rng = case.update, case.rng
        w = rng.uniform(0.2, 5, update.mdp.n_pairs)
        largest = (np.abs(oracles.jacobians(update)) @ w / w).max()
        first, second = case.Q, tables(update.mdp, rng)
        before = np.abs((first - second).ravel() / w).max()
        images = [update(Q) for Q in (first, second)]
        after = np.abs((images[0] - images[1]).ravel() / w).max()
        assert after <= largest * before + 1e-9 * max(1, np.abs(images).max())

    @pytest.mark.parametrize(
        ("name", "want"),
        [("row_dominant", 0.9864), ("sup_norm_only", 0.975), ("some_norm_only", 1.0203),
         ("full_data_divergence", 1.2174)],
    )  # fmt: skip
    def test_cast(self, name, want):
        assert norms.weighted_modulus(getattr(examples, name)().update)[0] == pytest.approx(want, abs=5e-5)

    def test_only_weights_certify_the_rectangle(self, rng):
        """And distances in the norm max |Q_i| / w_i shrink by lambda* at least."""
        update = examples.weighted_norm_only().update
        value, w = norms.weighted_modulus(update)
        assert contraction.exact_modulus(update) > 1 > value > 0.98
        assert value == pytest.approx(np.abs(np.linalg.eigvals(oracles.jacobians(update)[0])).max(), abs=1e-4)
        assert w == pytest.approx([0.151, 1], abs=5e-4)
        for _ in range(200):
            Q1, Q2 = rng.standard_normal((2, 2, 1))
            apart = (update(Q1) - update(Q2)).ravel()
            assert np.abs(apart / w).max() <= value * np.abs((Q1 - Q2).ravel() / w).max() + 1e-12

    @pytest.mark.parametrize("large", [1.0, 1e6, 1e12])
    def test_uneven_entries(self, large):
        """|J| is triangular with 1/2 on its diagonal: the infimum is 1/2 however large the entry beside it is."""
        update = on(over(2), [[1.0, -2 * large], [0.0, 1.0]], [0.5, 0.5])
        value, w = norms.weighted_modulus(update)
        (J,) = oracles_exact.jacobians(update)
        assert J == [[Fraction(1, 2), Fraction(large)], [0, Fraction(1, 2)]]
        assert oracles_exact.norm(J, oracles_exact.exact(w)) <= Fraction(value)
        assert 0.5 < value == pytest.approx(0.5, rel=1e-6)

    def test_an_action_that_is_never_taken_casts_no_doubt(self):
        """Its w is 1 where the others are 1e-13: counted in, rounding would hide the second digit of the modulus."""
        units = 2.0 ** np.array([-28.0, -20.0, -42.0, 0.0])
        J = np.array([[1.0, 0.25, 0.5, 0.5], [0.5, 1.0, 0.25, 0.5], [0.25, 0.5, 1.0, 0.5], [1.0, 0.5, 0.25, 1.0]]) / 2
        mdp = FiniteMDP(np.full((2, 2, 2), 0.5), np.zeros((2, 2)), 0.75)
        loop = np.eye(4) - 0.75 * oracles.chain(mdp, [1, 0])
        M = (np.eye(4) - J * units[:, None] / units) @ np.linalg.inv(loop)
        held = Update(mdp, M, [1, 0])
        want = np.abs(np.linalg.eigvals(np.abs(oracles.jacobians(held)[0]) * units / units[:, None])).max()
        assert norms.weighted_modulus(held)[0] == pytest.approx(want, rel=1e-3)

    def test_nilpotent(self):
        """The infimum is 0, which no weights attain."""
        J = np.array([[0.0, 2.0**20, 1.0], [0, 0, 2.0**20], [0, 0, 0]])
        update = on(over(3), (np.eye(3) - J) / [0.5, 0.25, 0.25], [0.5, 0.25, 0.25])
        value, w = norms.weighted_modulus(update)
        (exact,) = oracles_exact.jacobians(update)
        assert exact == oracles_exact.exact(J)
        assert oracles_exact.norm(exact, oracles_exact.exact(w)) <= Fraction(value)
        assert value < 1e-3

    def test_refuses(self):
        with refuses(ValueError, "max_iter must be in [1, inf), got 0"):
            norms.weighted_modulus(examples.sup_norm_only().update, max_iter=0)


class TestJointSpectralRadius:
    """Lower bound <= upper bound <= weighted modulus <= exact modulus."""

    @given(case=update_cases(max_states=2, max_actions=2))
    def test_chain(self, case):
        update = case.update
        lower, upper = norms.joint_spectral_radius(update, depth=3)
        chain = [lower, upper, norms.weighted_modulus(update)[0], contraction.exact_modulus(update)]
        assert all(a <= b * (1 + 1e-9) + 1e-12 for a, b in itertools.pairwise(chain)), chain

    @given(case=update_cases(max_states=2, max_actions=2))
    @settings(max_examples=60)
    def test_against_products(self, case):
        factors = oracles.jacobians(case.update)
        singles = [np.abs(np.linalg.eigvals(J)).max() for J in factors]
        doubles = [np.abs(np.linalg.eigvals(A @ B)).max() ** 0.5 for A in factors for B in factors]
        scale = max(1.0, max(singles))
        found = norms.joint_spectral_radius(case.update, depth=1)[0]
        assert found == pytest.approx(max(singles), abs=1e-6 * scale)
        found = norms.joint_spectral_radius(case.update, depth=2)[0]
        assert found == pytest.approx(max(singles + doubles), abs=1e-5 * scale)

    @pytest.mark.parametrize("form", ["kernel", *ONE_POLICY])
    def test_one_policy_is_its_spectral_radius(self, form, rng):
        """With one Jacobian the lower bound is exact, and the upper one comes down to it."""
        mdp = random_mdp(4, 1 if form == "kernel" else 2, gamma=0.9, branching=2, rng=rng)
        n = mdp.n_pairs
        kernel = np.eye(n) + 0.2 * rng.standard_normal((n, n))
        update = make_update(form, on(mdp, kernel, np.full(n, 1 / n)), rng)
        (J,) = oracles.jacobians(update)
        root = np.abs(np.linalg.eigvals(J)).max()
        lower, upper = norms.joint_spectral_radius(update, depth=60)
        assert lower == pytest.approx(root, rel=1e-6)
        assert root <= upper <= 1.05 * root

    def test_some_norm_only(self):
        """R4: no weights certify it, products do."""
        update = examples.some_norm_only().update
        (J,) = oracles.jacobians(update)
        radius = np.abs(np.linalg.eigvals(J)).max()
        for depth in (6, 60):
            lower, upper = norms.joint_spectral_radius(update, depth=depth)
            assert norms.weighted_modulus(update)[0] > 1 > upper >= radius >= lower == pytest.approx(radius)

    @pytest.mark.parametrize("name", ["closed_orbit", "full_data_divergence"])
    def test_no_norm_at_all(self, name):
        assert norms.joint_spectral_radius(getattr(examples, name)().update, depth=1)[0] > 1

    def test_no_norm_although_every_policy_is_stable(self):
        patient = examples.unstable_product_converges().update
        for J in oracles.jacobians(patient):
            assert np.abs(np.linalg.eigvals(J)).max() < 1
        assert norms.joint_spectral_radius(patient, depth=2)[0] > 1

    def test_refuses(self):
        star = examples.baird_control().update
        with refuses(ValueError, "depth must leave at most 1000000 products: 128 policies to the power 3 are more"):
            norms.joint_spectral_radius(star, depth=3)
        with refuses(ValueError, "depth must be in [1, inf), got 0"):
            norms.joint_spectral_radius(star, depth=0)
        held = dataclasses.replace(star, policy=np.zeros(7, dtype=int))
        assert norms.joint_spectral_radius(held, depth=3)[0] > 1  # one product of each length


def orbit_at(gamma, coupling):
    """Return the orbit without reward, at another discount and coupling."""
    orbit = examples.closed_orbit().update
    mdp = dataclasses.replace(orbit.mdp, R=np.zeros((1, 2)), gamma=gamma)
    return dataclasses.replace(orbit, mdp=mdp, kernel=np.array([[8.0, coupling], [coupling, 1.0]]))


class TestSomeNorm:
    """thm-some-norm, decided: a product with an eigenvalue of 1, or pieces that all shrink in one norm."""

    @pytest.mark.parametrize(
        ("name", "want"),
        [
            ("row_dominant", True),
            ("sup_norm_only", True),
            ("weighted_norm_only", True),
            ("some_norm_only", True),
            ("closed_orbit", False),
            ("full_data_divergence", False),
            ("unstable_product_converges", False),
        ],
    )
    def test_cast(self, name, want):
        assert norms.some_norm(getattr(examples, name)().update) is want

    def test_two_in_turn_decide(self):
        """Each Jacobian of the patient has its eigenvalues inside the circle: one product alone says nothing."""
        patient = examples.unstable_product_converges().update
        assert np.abs(np.linalg.eigvals(patient.jacobians())).max() < 0.97
        assert norms.some_norm(patient, products=2) is None
        for action in (0, 1):
            assert norms.some_norm(dataclasses.replace(patient, policy=[action])) is True

    @pytest.mark.parametrize("form", ["kernel", *ONE_POLICY])
    def test_one_policy_is_the_spectral_radius(self, form, rng):
        """A pair of complex eigenvalues on top is ordinary input: no vector of LAPACK's is asked for."""
        seen = set()
        for _ in range(60):
            mdp = random_mdp(3, 1, gamma=0.9, branching=2, rng=rng)
            if form != "kernel":
                mdp = random_mdp(2, 2, gamma=0.9, branching=2, rng=rng)
            phi = rng.standard_normal((mdp.n_pairs, mdp.n_pairs))
            update = make_update(form, on(mdp, phi @ phi.T, rng.dirichlet(np.ones(mdp.n_pairs))), rng)
            values = np.linalg.eigvals(oracles.jacobians(update)[0])
            top = values[np.abs(values).argmax()]
            want = bool(np.abs(top) < 1)
            assert norms.some_norm(update) is want
            seen.add((bool(top.imag != 0), want))
        assert {want for _, want in seen} == {True, False}
        assert form != "kernel" or len(seen) >= 3

    @given(case=update_cases(max_states=2, max_actions=2))
    @few
    def test_any_matrix_never_against_the_products(self, case):
        """True is never said where a product grows, nor False where a power of all is short."""
        lower, upper = norms.joint_spectral_radius(case.update, depth=4)
        found = norms.some_norm(case.update, products=2000)
        assert lower < 1 or found is not True
        assert upper >= 1 - 1e-9 or found is not False

    @pytest.mark.parametrize(("gamma", "coupling"), [(0.5, 2.1), (0.5, 2.3), (0.7, 1.4), (0.7, 1.6), (0.9, 1.1)])
    def test_between_the_bounds_of_the_products(self, gamma, coupling):
        """Never against the bounds, and it decides where products of ten leave 1 between them."""
        update = orbit_at(gamma, coupling)
        low, high = norms.joint_spectral_radius(update, depth=10)
        found = norms.some_norm(update)
        assert found is not None
        assert high >= 1 or found
        assert low < 1 or not found

    def test_decides_more_than_bounds_on_products(self):
        update = orbit_at(0.7, 1.3)
        low, high = norms.joint_spectral_radius(update, depth=10)
        assert low < 1 <= high
        assert norms.some_norm(update) is True

    def test_a_box_will_do_where_products_shrink_slowly(self):
        """No ellipsoid is found in a thousand products, but the square itself fits."""
        update = orbit_at(0.98, -0.3)
        assert contraction.exact_modulus(update) < 1
        assert norms.some_norm(update, products=1000) is True

    @pytest.mark.parametrize("angle", [0.1, 1.0, np.pi / 2, 2 * np.pi / 3])
    @pytest.mark.parametrize("size", [0.99, 1.01])
    def test_a_rotation(self, angle, size):
        """Every vector is as good as every other: there is no eigenvector to take."""
        turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for update in (on(over(2), 2 * (np.eye(2) - turn), [0.5, 0.5]), Update(over(2), np.eye(2) - turn)):
            assert norms.some_norm(update) is (size < 1)

    def test_a_missing_pair_is_a_contraction_in_no_norm(self):
        """thm-singular: it leaves the eigenvalue 1."""
        pair = dataclasses.replace(examples.full_data_divergence().update, weights=np.array([1.0, 0.0]))
        assert norms.some_norm(pair) is False

    @pytest.mark.parametrize("nullity", [1, 2, 3])
    @pytest.mark.parametrize("actions", [1, 2])
    def test_singular_is_false(self, nullity, actions, rng):
        """No certificate is given to it, by none of them."""
        mdp = random_mdp(4 // actions, actions, gamma=0.9, branching=1, rng=rng)
        phi = rng.integers(-3, 4, size=(4, 4 - nullity)).astype(float)
        for kernel in (phi @ phi.T, phi @ rng.standard_normal((4 - nullity, 4))):
            update = on(mdp, kernel, [0.25] * 4, 0.01)
            assert norms.some_norm(update) is False
            assert contraction.max_step_size(update) == contraction.max_scale(update) == 0
            assert contraction.exact_modulus(update) >= 1
            assert norms.weighted_modulus(update)[0] >= 1
            assert norms.joint_spectral_radius(update, depth=2)[1] >= 1

    def test_what_overflows_is_no_proof(self):
        """Words whose length is not a number were taken for short ones."""
        powers = 2.0 ** np.array([-40.0, 20, 30, -38])
        J = np.array([[2.0, 1, 1, 5], [1, 3, 1, 1], [1, 0, 4, 1], [1, 0, 0, 2]]) * 1e7
        M = (np.eye(4) - J) * powers[:, None] / powers
        for update in (on(over(4), 4 * M, [0.25] * 4), Update(over(4), M)):
            assert norms.some_norm(update) is not True

    def test_refuses(self):
        with refuses(ValueError, "products must be in [1, inf), got 0"):
            norms.some_norm(examples.full_data_divergence().update, products=0)


class TestNormBall:
    """thm-some-norm: the ball of the norm that looks ahead fits into itself, shrunk by the rate."""

    @pytest.mark.parametrize(
        ("name", "rate", "depth"),
        [("some_norm_only", 0.98, 12), ("weighted_norm_only", 0.999, 30), ("sup_norm_only", 0.99, 2)],
    )
    def test_fits_into_itself(self, name, rate, depth):
        update = getattr(examples, name)().update
        ball = norms.norm_ball(update, rate=rate, depth=depth)
        (J,) = oracles.jacobians(update)

        def norm(point):
            return max(np.abs(np.linalg.matrix_power(J, k) @ point).max() / rate**k for k in range(depth + 1))

        assert max(map(norm, ball)) == pytest.approx(1, abs=1e-9)
        assert min(map(norm, ball)) == pytest.approx(1, abs=1e-9)
        assert max(norm(J @ corner) for corner in ball) <= rate + 1e-9
        np.testing.assert_allclose(np.sort(ball, axis=0), np.sort(-ball, axis=0), atol=1e-9)

    def test_two_policies(self):
        """One state, two actions: not a contraction in the sup norm, but both pieces shrink the same other ball."""
        update = on(examples.full_data_divergence().update.mdp, [[1.0, 0.15], [0.15, 1.0]], np.full(2, 0.5))
        assert contraction.exact_modulus(update) > 1.05
        ball = norms.norm_ball(update, rate=0.999, depth=9)
        images = contraction.box_images(update, shape=ball)
        sides = np.array([[np.cos(t), np.sin(t)] for t in np.linspace(0, np.pi, 500)])
        assert (np.abs(images @ sides.T).max(axis=(0, 1)) <= 0.999 * np.abs(ball @ sides.T).max(axis=0) + 1e-9).all()
        held = norms.norm_ball(dataclasses.replace(update, policy=[0]), rate=0.999, depth=9)
        assert np.abs(held).max(axis=0) == pytest.approx([1, 1]) and len(held) <= len(ball)

    @pytest.mark.parametrize(
        ("name", "rate", "depth", "message"),
        [
            ("some_norm_only", 0.95, 2, "rate must exceed the growth of products of 3 Jacobians"),
            ("closed_orbit", 1, 8, "rate must exceed the growth of products of 9 Jacobians"),
            ("self_loop", 1, 1, "update must be on two state-action pairs, its process has 1"),
        ],
    )
    def test_refuses(self, name, rate, depth, message):
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            norms.norm_ball(getattr(examples, name)().update, rate=rate, depth=depth)


class TestBallNorm:
    """The length of x in the norm of a ball: the least t for which x lies in t times the ball."""

    def test_of_the_square_it_is_the_sup_norm(self, rng):
        for x in rng.standard_normal((20, 2)):
            assert norms.ball_norm(contraction.UNIT_SQUARE, x) == pytest.approx(np.abs(x).max())

    @pytest.mark.parametrize("name", ["some_norm_only", "weighted_norm_only"])
    def test_of_a_ball_it_is_the_norm_that_looks_ahead(self, name, rng):
        update = getattr(examples, name)().update
        (J,) = oracles.jacobians(update)
        ball = norms.norm_ball(update, rate=0.999, depth=30)
        for x in rng.standard_normal((20, 2)):
            ahead = max(np.abs(np.linalg.matrix_power(J, k) @ x).max() / 0.999**k for k in range(31))
            assert norms.ball_norm(ball, x) == pytest.approx(ahead, rel=1e-9)

    @pytest.mark.parametrize("ball", [contraction.UNIT_SQUARE[::-1], contraction.UNIT_SQUARE + 1.5])
    def test_refuses(self, ball):
        with pytest.raises(ValueError, match=r"^ball must hold the origin inside"):
            norms.ball_norm(ball, [1.0, 0.0])


class TestAmongWhichTables:
    """thm-singular speaks of all tables; on those that the features make the same update can contract, to one limit."""

    def test_w_to_2w(self):
        update = examples.w_to_2w(0.4).update
        assert np.linalg.matrix_rank(update.matrix) == 1
        for w in (-3.0, 0.5, 7.0):
            Q = np.array([[w], [2 * w]])
            np.testing.assert_allclose(update(Q), (1 - 0.1 * (1 - 2 * 0.4)) * Q)
            assert np.abs(dynamics.iterate(update, Q, max_iter=5000).values[-1]).max() < 1e-6
        for off in (1.0, -2.0):  # Q_2 - 2 Q_1 never moves
            end = dynamics.iterate(update, [[0.0], [off]], max_iter=5000, tol=1e-12).values[-1]
            np.testing.assert_allclose(end, [[2 * off], [5 * off]], atol=1e-8)
        assert verdicts.verdicts(update).certified_by is None

    def test_the_limit_is_one_half(self):
        assert examples.w_to_2w(0.6).status == "diverged"
        assert examples.w_to_2w_threshold([1, 0]) == 0.5


def on_policy_case(rng):
    """Draw a process that goes everywhere, one policy, its stationary shares and features of full column rank."""
    mdp = random_mdp(3, 2, gamma=rng.choice([0.0, 0.5, 0.9, 0.99]), branching=3, rng=rng)
    chances = rng.dirichlet(np.ones(2), size=3)
    return mdp, chances, stationary_distribution(mdp, chances), rng.standard_normal((6, rng.integers(1, 7)))


class TestOnFeatures:
    """thm-on-features: on the tables of the features the pieces act on theta; the other eigenvalues of J are 1."""

    def test_eigenvalues(self, rng):
        for _ in range(60):
            mdp = random_mdp(3, 2, gamma=0.8, branching=2, rng=rng)
            phi, weights = rng.standard_normal((6, rng.integers(1, 7))), rng.dirichlet(np.ones(6))
            update = on(mdp, phi @ phi.T, weights, float(rng.uniform(0.05, 1)))
            for policy in itertools.product(range(2), repeat=3):
                J, chain = update.jacobian(policy), oracles.chain(mdp, policy)
                A = np.eye(phi.shape[1]) - update.alpha * phi.T @ (weights[:, None] * (np.eye(6) - 0.8 * chain)) @ phi
                np.testing.assert_allclose(J @ phi, phi @ A, atol=1e-9)
                own, beside = np.linalg.eigvals(A), np.ones(6 - len(A))
                np.testing.assert_allclose(np.poly(J), np.poly(np.concatenate([own, beside])), atol=1e-6)

    def test_it_can_contract_there_and_need_not(self):
        """w to 2w with the first state alone: 1 - alpha (1 - 2 gamma), below 1 exactly up to gamma = 1/2."""
        for gamma, home in ((0.4, True), (0.6, False)):
            line = examples.w_to_2w(gamma)
            (J,) = line.update.jacobians()
            found = np.sort(np.linalg.eigvals(J).real)
            own = 1 - line.update.alpha * (1 - 2 * gamma)
            np.testing.assert_allclose(found, np.sort([own, 1.0]), atol=1e-12)
            run = dynamics.iterate(line.update, line.features.reshape(2, 1), max_iter=5000)
            assert (run.status == "converged") == home


class TestOnPolicy:
    """thm-on-policy: with stationary shares and one policy, short steps contract in the norm of the parameters."""

    def test_each_step_of_the_proof(self, rng):
        for _ in range(200):
            mdp, chances, rho, phi = on_policy_case(rng)
            chain, D = mdp.pair_transitions(chances), np.diag(rho)
            np.testing.assert_allclose(rho @ chain, rho, atol=1e-12)
            x = rng.standard_normal(6)
            length = x @ D @ x
            assert (chain @ x) @ D @ (chain @ x) <= length * (1 + 1e-9)
            assert x @ D @ (np.eye(6) - mdp.gamma * chain) @ x >= (1 - mdp.gamma) * length * (1 - 1e-9)
            B = phi.T @ D @ (np.eye(6) - mdp.gamma * chain) @ phi
            b = np.linalg.eigvalsh((B + B.T) / 2)[0]
            assert b > 0
            for share in (0.1, 0.5, 0.99):
                alpha = share * 2 * b / np.linalg.norm(B, 2) ** 2
                factor = np.linalg.norm(np.eye(len(B)) - alpha * B, 2)
                assert factor <= np.sqrt(1 - 2 * alpha * b + (alpha * np.linalg.norm(B, 2)) ** 2) + 1e-12 < 1 + 1e-11

    def test_the_update_of_that_policy(self, rng):
        """With features of full rank some norm shrinks: the one that the theorem names."""
        for _ in range(40):
            mdp, chances, rho, _ = on_policy_case(rng)
            phi = np.eye(6) + 0.5 * rng.standard_normal((6, 6))
            B = phi.T @ np.diag(rho) @ (np.eye(6) - mdp.gamma * mdp.pair_transitions(chances)) @ phi
            alpha = np.linalg.eigvalsh((B + B.T) / 2)[0] / np.linalg.norm(B, 2) ** 2
            held = KernelUpdate(mdp, kernel=phi @ phi.T, weights=rho, alpha=alpha, policy=chances)
            back = np.linalg.inv(phi)
            assert np.linalg.norm(back @ held.jacobian() @ phi, 2) < 1 + 1e-9
            np.testing.assert_allclose(back @ held.jacobian() @ phi, np.eye(6) - alpha * B, atol=1e-8)

    def test_off_policy_is_a_witness_outside(self):
        """w to 2w with both states trained equally often: the shares are not stationary, and every short step grows."""
        example = examples.w_to_2w(0.9, [0.5, 0.5])
        chain, rho = oracles.chain(example.update.mdp, [0, 0]), example.update.weights
        assert np.abs(rho @ chain - rho).max() > 0.4
        B = example.features.T @ np.diag(rho) @ (np.eye(2) - 0.9 * chain) @ example.features
        assert B.item() == pytest.approx(-0.2)

    @pytest.mark.parametrize(("alpha", "shares"), [(0.1, 1.140), (0.01, 1.0120), (0.001, 1.00118)])
    def test_the_norm_of_the_shares_is_another(self, alpha, shares):
        """Two states that change places: the step shrinks the parameters and stretches a difference of values."""
        update = on(process([[0, 1], [1, 0]], 0.99), [[9.0, 2.9], [2.9, 1.0]], np.full(2, 0.5), alpha)
        (J,) = update.jacobians()
        root = np.sqrt(update.weights)
        assert np.linalg.norm(root[:, None] * J / root, 2) == pytest.approx(shares, rel=1e-3)
        phi = np.linalg.cholesky(update.kernel)
        assert np.linalg.norm(np.linalg.solve(phi, J @ phi), 2) < 1

    def test_the_projected_backup_contracts_in_the_norm_of_the_shares(self, rng):
        for _ in range(50):
            mdp, chances, rho, phi = on_policy_case(rng)
            root = np.sqrt(rho)[:, None]
            q = np.linalg.qr(root * phi)[0]
            backup = root * (mdp.gamma * mdp.pair_transitions(chances)) / root.T
            assert np.linalg.norm(q @ q.T @ backup, 2) <= mdp.gamma + 1e-12


class TestModulusOne:
    """ch-contraction: with one policy the size of the largest eigenvalue tells the fate, except at 1 itself."""

    @pytest.mark.parametrize(
        ("kernel", "alpha", "status"),
        [
            (np.diag([1.0, 0.0]), 1.0, "converged"),  # eigenvalue 1: what never moves
            (np.diag([1.0, 0.5]), 4.0, "undecided"),  # eigenvalue -1: to and fro
            (np.array([[1.0, -1.0], [0.0, 0.0]]), 1.0, "converged"),
        ],
    )
    def test_at_one(self, kernel, alpha, status):
        update = on(over(2), kernel, np.full(2, 0.5), alpha)
        assert np.abs(np.linalg.eigvals(update.jacobians())).max() == pytest.approx(1)
        assert dynamics.iterate(update, [[1.0], [2.0]], max_iter=5000).status == status

    def test_a_defective_one_grows(self):
        """K D = [[0, 1], [0, 0]]: the second value pushes the first for ever, by the same amount."""
        update = on(over(2), [[0.0, 2.0], [0.0, 0.0]], np.full(2, 0.5))
        run = dynamics.iterate(update, [[0.0], [-1.0]], max_iter=100)
        np.testing.assert_allclose(np.diff(run.values[:, 0, 0]), 1)


def two_action_updates(rng, count, *, symmetric):
    """Draw go-on chances, discount, kernel and shares of one state with two actions; return G of both actions."""
    gamma, go_on, share = rng.uniform(0, 0.999, (count, 1, 1)), rng.random((count, 2)), rng.random(count)
    kernel = rng.standard_normal((count, 2, 2))
    kernel = kernel @ kernel.transpose(0, 2, 1) if symmetric else kernel
    moved = kernel * np.stack([share, 1 - share], axis=1)[:, None, :]
    G = np.empty((count, 2, 2, 2))
    for action in (0, 1):
        chain = np.zeros((count, 2, 2))
        chain[:, :, action] = go_on
        G[:, action] = moved @ (np.eye(2) - gamma * chain)
    return G


def discriminants(G):
    """Return the discriminant of each 2 x 2 matrix over its squared size: negative where no eigenvalue is real."""
    trace, det = G[..., 0, 0] + G[..., 1, 1], G[..., 0, 0] * G[..., 1, 1] - G[..., 0, 1] * G[..., 1, 0]
    return (trace**2 - 4 * det) / (G**2).sum(axis=(-1, -2))


class TestTwoActions:
    """thm-two-actions: symmetric semidefinite, one state, two actions, short steps: stable pieces run home together."""

    def test_one_piece_has_real_eigenvalues(self, rng):
        of_both = discriminants(two_action_updates(rng, 200_000, symmetric=True))
        assert of_both.max(axis=1).min() > -1e-12
        assert (of_both.min(axis=1) < -1e-3).sum() > 1000  # one of them may well turn

    def test_the_product_of_the_proof(self, rng):
        """R_1 R_2 is b^2 (1 - x y)^2 plus the square of the real part, and that is at least b^2 t u."""
        for _ in range(500):
            (a, d), (x, y) = rng.uniform(0.1, 3, 2), rng.uniform(0.01, 1, 2)
            b = rng.uniform(-1, 1) * np.sqrt(a * d)
            root = np.sqrt(a * d - b**2)
            R = (a * x**2 + d - 2 * x * root) * (a + d * y**2 - 2 * y * root)
            real = x * a + y * d - root * (1 + x * y)
            assert R == pytest.approx(b**2 * (1 - x * y) ** 2 + real**2, rel=1e-6, abs=1e-12)
            assert R >= b**2 * (1 - x**2) * (1 - y**2) - 1e-9

    def test_the_bound_is_close(self):
        """With p_1 = p_2 and the coupling chosen right, the discriminants of both pieces come close to 0."""
        gamma, p, best = 0.9, 0.8, np.inf
        for b in np.linspace(0.05, 0.999, 400):  # a = d = 1, rho = (1/2, 1/2)
            G = np.array([[1.0, b], [b, 1.0]]) @ (np.eye(2) - gamma * np.array([[p, 0.0], [p, 0.0]]))
            best = min(best, discriminants(G[None]).item())
        assert 0 <= best < 1e-3

    def test_without_symmetry_both_may_turn(self, rng):
        of_both = discriminants(two_action_updates(rng, 20_000, symmetric=False))
        assert (of_both.max(axis=1) < -1e-3).sum() > 100
        swing = examples.stable_pieces_divergence()
        pieces = swing.update.jacobians()
        assert (discriminants(pieces) < 0).all()  # so that no step is too long for the theorem, and K alone is to blame

    def test_short_steps_run_home(self, rng):
        G = two_action_updates(rng, 3000, symmetric=True)
        alpha = rng.uniform(0.1, 0.999, len(G)) / np.abs(np.linalg.eigvals(G)).max(axis=(1, 2))
        J = np.eye(2) - alpha[:, None, None, None] * G
        values = np.linalg.eigvals(J)
        assert ((values.imag != 0) | (values.real > 0)).all()
        J = J[np.abs(values).max(axis=(1, 2)) < 0.98]
        assert len(J) > 500 and (discriminants(J) < -1e-3).any()
        turn = np.arange(16) * np.pi / 8 + 0.1
        Q = np.broadcast_to(np.stack([np.cos(turn), np.sin(turn)], axis=1), (len(J), 16, 2))
        for _ in range(2000):
            Q = np.where(
                (Q[..., 1] > Q[..., 0])[..., None], Q @ J[:, 1].transpose(0, 2, 1), Q @ J[:, 0].transpose(0, 2, 1)
            )
        assert np.abs(Q).max() < 1e-9


class TestTracking:
    """limsup |Q_k - c| <= (1 + beta) spread / (1 - beta), and no smaller bound will do."""

    def test_attained(self):
        """Slope -beta and fixed points that alternate between +1 and -1."""
        beta, x, sign, far = 0.5, 0.0, 1.0, []
        for _ in range(200):
            x, sign = sign - beta * (x - sign), -sign
            far.append(abs(x))
        assert max(far[100:]) == pytest.approx(norms.tracking_bound(beta, spread=1)) == pytest.approx(3)

    @given(rng=generators(), beta=st.sampled_from([0.1, 0.5, 0.9]))
    @settings(max_examples=25)
    def test_never_exceeded_by_random_slopes(self, rng, beta):
        x, tail = 5.0, []
        for k in range(400):
            centre = rng.uniform(-0.7, 0.7)
            x = centre + rng.uniform(-beta, beta) * (x - centre)
            tail += [abs(x)] if k > 300 else []
        assert max(tail) <= norms.tracking_bound(beta, spread=0.7) + 1e-9

    def test_never_exceeded_by_the_steepest(self, rng):
        for _ in range(200):
            beta, spread = rng.uniform(0, 0.95), rng.uniform(0.1, 2)
            x, far = rng.standard_normal(2), []
            for _ in range(400):
                fixed, slope = rng.uniform(-spread, spread, 2), rng.choice([-1, 1]) * beta
                x = fixed + slope * (x - fixed)
                far.append(np.abs(x).max())
            assert max(far[300:]) <= norms.tracking_bound(beta, spread=spread) + 1e-6


class TestLag:
    """limsup |Q_k - fixed point of the next step| <= drift / (1 - beta), and no smaller bound will do."""

    def test_attained(self):
        beta, x, fixed = 0.8, 0.0, 0.0
        for _ in range(400):
            x, fixed = fixed + beta * (x - fixed), fixed + 0.1
        assert fixed - x == pytest.approx(norms.lag_bound(beta, drift=0.1)) == pytest.approx(0.5)

    def test_never_exceeded(self, rng):
        for _ in range(100):
            beta, x, fixed, lags = rng.uniform(0, 0.9), 0.0, 0.0, []
            for _ in range(400):
                x, fixed = fixed + rng.uniform(-beta, beta) * (x - fixed), fixed + rng.uniform(-0.1, 0.1)
                lags.append(abs(x - fixed))
            assert max(lags[300:]) <= norms.lag_bound(beta, drift=0.1) + 1e-9


class TestSequences:
    """What the two bounds ask for: one constant below 1, and one norm."""

    @pytest.mark.parametrize(("bound", "keyword"), [(norms.tracking_bound, "spread"), (norms.lag_bound, "drift")])
    def test_refuse(self, bound, keyword):
        with refuses(ValueError, "beta must be in [0, 1), got 1"):
            bound(1, **{keyword: 0.1})
        with refuses(ValueError, f"{keyword} must be in [0, inf), got -1.0"):
            bound(0.5, **{keyword: -1.0})

    def test_every_factor_below_one_is_not_enough(self):
        """Moduli 1 - 1/(k + 2)^2: each contracts, yet the iterates keep half of where they began."""
        x = 1.0
        for k in range(100_000):
            x *= 1 - 1 / (k + 2) ** 2
        assert x == pytest.approx(0.5, abs=1e-4)

    def test_different_norms_do_not_add_up(self):
        """Each matrix shrinks in its own weighted sup norm, the two in turn grow."""
        A = np.array([[0.5, 2.0], [0.0, 0.5]])
        for matrix, w in ((A, np.array([8.0, 1.0])), (A.T, np.array([1.0, 8.0]))):
            assert ((np.abs(matrix) @ w) / w).max() == pytest.approx(0.75)
        run = dynamics.iterate(lambda x: A @ (A.T @ x), np.ones(2), max_iter=50)
        assert run.status == "diverged"
