"""Which certificate covers which example, and what becomes of it all the same."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from divergence_notes import dynamics, examples, updates, verdicts
from divergence_notes.mdp import FiniteMDP, random_mdp

CAST = {
    "loop": "row_sum_bound",
    "dominant": "row_sum_bound",
    "calm": "exact_modulus",
    "weighted_only": "weighted_modulus",
    "some_norm_only": "joint_spectral_radius",
    "patient": None,
    "quiet_loop": None,
    "swing": None,
    "orbit": None,
    "pair": None,
    "lever": None,
    "w_to_2w": None,
    "least_squares": None,
    "baird_star": None,
    "baird_control": None,
    "no_fixed_point": None,
}


@pytest.mark.parametrize("name", CAST)
class TestCast:
    """Each example ends as stated, and is covered by the stated certificate and by no cruder one."""

    def test_fate(self, name):
        example = getattr(examples, name)()
        assert dynamics.iterate(example.operator, example.Q0, max_iter=3000).status == example.status

    def test_certificate(self, name):
        found = verdicts.verdicts(getattr(examples, name)())
        assert found.certified_by == CAST[name]
        lower, upper = found.joint_spectral_radius
        chain = [
            found.spectral_radii[-1],
            lower,
            upper,
            found.weighted_modulus,
            found.exact_modulus,
            found.row_sum_bound,
        ]
        assert all(a <= b * (1 + 1e-9) for a, b in itertools.pairwise(chain)), chain

    def test_a_certificate_is_never_contradicted(self, name):
        example = getattr(examples, name)()
        if verdicts.verdicts(example).certified_by:
            assert example.status == "converged"


class TestNoCertificateNoVerdict:
    """Failing every certificate decides nothing: one comes home, one circles, one runs off."""

    def test_three_fates(self):
        three = [examples.unstable_product_converges(), examples.closed_orbit(), examples.full_data_divergence()]
        assert {verdicts.verdicts(example).certified_by for example in three} == {None}
        assert {example.status for example in three} == {"converged", "undecided", "diverged"}

    def test_patient_comes_home_from_everywhere_tried(self, rng):
        example = examples.unstable_product_converges()
        assert verdicts.verdicts(example).spectral_radii.max() < 1
        assert verdicts.verdicts(example).joint_spectral_radius[0] > 1
        for _ in range(20):
            run = dynamics.iterate(example.operator, rng.standard_normal((1, 2)), max_iter=3000)
            assert run.status == "converged"

    def test_orbit_stays_within_a_band(self):
        example = examples.closed_orbit()
        tail = dynamics.iterate(example.operator, example.Q0, max_iter=1000, target=example.target).errors[300:]
        assert 0.1 < tail.min() and tail.max() < 4


class TestSwitching:
    """Two updates, one fixed point, each converges alone; taken in turn they diverge."""

    def test_alone_and_in_turn(self):
        first, second = examples.switching_divergence()
        for example in (first, second):
            run = dynamics.iterate(example.operator, example.Q0, max_iter=3000, target=example.target)
            assert run.status == "converged" and run.errors[-1] < 1e-8
        run = dynamics.iterate(lambda Q: second.operator(first.operator(Q)), first.Q0, max_iter=200)
        assert run.status == "diverged"


class TestLever:
    """The pair that is trained lifts the other by W = 2, gamma of which comes back: it diverges from gamma = 1/2 on."""

    @pytest.mark.parametrize(("gamma", "fate"), [(0.46, "converged"), (0.54, "diverged")])
    def test_threshold(self, gamma, fate):
        example = examples.w_to_2w_full_rank(gamma)
        assert example.status == fate
        assert dynamics.iterate(example.operator, example.Q0, max_iter=4000).status == fate

    def test_a_unique_fixed_point_does_not_help(self):
        example = examples.w_to_2w_full_rank(0.95, [0.9, 0.1])
        assert np.linalg.matrix_rank(example.kernel * example.weights) == 2
        assert dynamics.iterate(example.operator, example.Q0, max_iter=3000).status == example.status == "diverged"


class TestCertificateMap:
    """Each cell names the crudest certificate that holds there, and only the last kind of cell diverges."""

    def test_agrees_with_the_verdicts(self):
        mdp = FiniteMDP(np.array([[[0.5, 0.5]], [[0.0, 1.0]]]), np.zeros((2, 1)), 0.8)
        example = dataclasses.replace(examples.row_dominant(), mdp=mdp, weights=np.array([0.7, 0.3]))
        couplings, alphas = np.linspace(-1.1, 1.1, 9), np.array([0.5, 2.0, 3.0, 4.0, 6.0, 9.0])
        codes = verdicts.certificate_map(example, couplings=couplings, alphas=alphas)
        assert set(codes.ravel()) == {0, 1, 2, 3, 4}
        for (row, column), code in np.ndenumerate(codes):
            kernel = np.array([[1, couplings[column]], [couplings[column], 1]])
            here = dataclasses.replace(example, kernel=kernel, alpha=float(alphas[row]))
            found = verdicts.verdicts(here)
            if code < 3:
                assert found.certified_by == verdicts.CERTIFICATES[code]
            else:
                assert found.weighted_modulus >= 1 and (found.spectral_radii[-1] < 1) == (code == 3)
            run = dynamics.iterate(here.operator, np.array([[1.0], [-0.3]]), max_iter=300, bound=1e3)
            assert run.status != ("converged" if code == 4 else "diverged")

    def test_wants_two_states(self):
        message = "example must have two states with one action, it has 1 with 2"
        with pytest.raises(ValueError, match=re.escape(message)):
            verdicts.certificate_map(examples.full_data_divergence(), couplings=[0.1, 0.2], alphas=[1.0])


class TestRandomUpdate:
    """A positive semi-definite kernel, no reward, and a step size at which no pair overshoots its own target."""

    def test_is_what_it_says(self, rng):
        for _ in range(20):
            drawn = examples.random_update(3, 2, gamma=0.9, coupling=0.3, rng=rng)
            assert np.diag(drawn.kernel) == pytest.approx(np.ones(6))
            assert np.linalg.eigvalsh(drawn.kernel).min() >= 0.7 - 1e-12
            assert (drawn.alpha * np.diag(drawn.kernel) * drawn.weights).max() == pytest.approx(1)
            assert not drawn.mdp.R.any() and not drawn.target.any()

    def test_coupling_is_what_defeats_the_certificates(self, rng):
        shares = []
        for coupling in (0.0, 0.1, 1.0):
            drawn = [examples.random_update(3, 2, gamma=0.5, coupling=coupling, rng=rng) for _ in range(20)]
            shares.append(np.mean([verdicts.verdicts(each, products=8).exact_modulus < 1 for each in drawn]))
        assert shares[0] == 1 and shares[0] >= shares[1] > shares[2] == 0


class TestFittedIteration:
    """Backing up and fitting contracts by gamma where the fit is an average; least squares may diverge."""

    AVERAGE = np.array([[0.7, 0.3], [0.3, 0.7]])
    PROJECTION = np.outer([1, 2], [1, 2]) / 5

    @pytest.mark.parametrize(("gamma", "fate"), [(0.8, "converged"), (0.9, "diverged")])
    def test_least_squares(self, gamma, fate):
        example = examples.fitted_w_to_2w(gamma)
        assert example.status == fate
        np.testing.assert_allclose(example.alpha * example.kernel * example.weights, self.PROJECTION)
        Q = example.operator(example.Q0)
        np.testing.assert_allclose(Q, updates.fitted_update(example.Q0, example.mdp, fit=self.PROJECTION))
        np.testing.assert_allclose(Q / example.Q0, 6 * gamma / 5)
        assert dynamics.iterate(example.operator, example.Q0, max_iter=2000).status == fate

    def test_an_average_contracts_by_gamma_and_no_better(self, rng):
        mdp = examples.w_to_2w().mdp
        ratios = []
        for _ in range(200):
            Q1, Q2 = rng.standard_normal((2, 2, 1))
            moved = [updates.fitted_update(Q, mdp, fit=self.AVERAGE) for Q in (Q1, Q2)]
            ratios.append(np.abs(moved[0] - moved[1]).max() / np.abs(Q1 - Q2).max())
        assert max(ratios) <= 0.9 + 1e-12
        apart = updates.fitted_update(np.ones((2, 1)), mdp, fit=self.AVERAGE)
        np.testing.assert_allclose(apart, 0.9)

    def test_loops(self, rng):
        mdp, fit = random_mdp(3, 2, gamma=0.7, branching=2, rng=rng), rng.standard_normal((6, 6))
        Q = rng.standard_normal((3, 2))
        backup = [
            mdp.R[s, a] + 0.7 * sum(mdp.P[s, a, t] * max(Q[t]) for t in range(3)) for s in range(3) for a in (0, 1)
        ]
        want = [sum(fit[i, j] * backup[j] for j in range(6)) for i in range(6)]
        np.testing.assert_allclose(updates.fitted_update(Q, mdp, fit=fit).ravel(), want)
        with pytest.raises(ValueError, match=re.escape("fit must have shape (6, 6), got (2, 2)")):
            updates.fitted_update(Q, mdp, fit=np.eye(2))
