"""Which certificate covers which example, and what becomes of it all the same."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from divergence_notes import dynamics, examples, verdicts
from divergence_notes.mdp import FiniteMDP

CAST = {
    "self_loop": "row_sum_bound",
    "row_dominant": "row_sum_bound",
    "sup_norm_only": "exact_modulus",
    "weighted_norm_only": "weighted_modulus",
    "some_norm_only": "joint_spectral_radius",
    "unstable_product_converges": None,
    "low_gain_divergence": None,
    "stable_pieces_divergence": None,
    "closed_orbit": None,
    "full_data_divergence": None,
    "w_to_2w_full_rank": None,
    "w_to_2w": None,
    "fitted_w_to_2w": None,
    "baird_star": None,
    "baird_control": None,
    "no_fixed_point": None,
}


@pytest.mark.parametrize("name", CAST)
class TestCast:
    """Each example ends as stated, and is covered by the stated certificate and by no cruder one."""

    def test_fate(self, name):
        example = getattr(examples, name)()
        assert dynamics.iterate(example.update, example.Q0, max_iter=3000).status == example.status

    def test_certificate(self, name):
        found = verdicts.verdicts(getattr(examples, name)().update)
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
        if verdicts.verdicts(example.update).certified_by:
            assert example.status == "converged"


class TestProducts:
    """How many products are looked at; each Jacobian is one of them in any case."""

    def test_the_jacobians_themselves_are_looked_at(self):
        update = examples.full_data_divergence().update  # two policies
        alone, longer = (verdicts.verdicts(update, products=products) for products in (1, 64))
        assert alone.joint_spectral_radius == verdicts.verdicts(update, products=2).joint_spectral_radius
        assert alone.spectral_radii[-1] == pytest.approx(alone.joint_spectral_radius[0])
        assert longer.joint_spectral_radius[1] < alone.joint_spectral_radius[1]

    @pytest.mark.parametrize("name", ["full_data_divergence", "w_to_2w"])  # two Jacobians, and one
    def test_refuses(self, name):
        update = getattr(examples, name)().update
        for products in (0, -1):
            with pytest.raises(ValueError, match=re.escape(f"products must be in [1, inf), got {products}")):
                verdicts.verdicts(update, products=products)

    def test_too_many(self):
        with pytest.raises(ValueError, match=r"^depth must leave at most 1000000 products"):
            verdicts.verdicts(examples.full_data_divergence().update, products=10**9)


class TestNoCertificateNoVerdict:
    """Failing every certificate decides nothing: one comes home, one circles, one runs off."""

    def test_three_fates(self):
        three = [examples.unstable_product_converges(), examples.closed_orbit(), examples.full_data_divergence()]
        assert {verdicts.verdicts(example.update).certified_by for example in three} == {None}
        assert {example.status for example in three} == {"converged", "undecided", "diverged"}

    def test_patient_comes_home_from_everywhere_tried(self, rng):
        update = examples.unstable_product_converges().update
        assert verdicts.verdicts(update).spectral_radii.max() < 1
        assert verdicts.verdicts(update).joint_spectral_radius[0] > 1
        for _ in range(20):
            run = dynamics.iterate(update, rng.standard_normal((1, 2)), max_iter=3000)
            assert run.status == "converged"

    def test_orbit_stays_within_a_band(self):
        example = examples.closed_orbit()
        tail = dynamics.iterate(example.update, example.Q0, max_iter=1000, target=example.target).errors[300:]
        assert 0.1 < tail.min() and tail.max() < 4


class TestCoupling:
    """What the certificates see: random updates are certified without coupling, and not with all of it."""

    def test_coupling_is_what_defeats_the_certificates(self, rng):
        shares = []
        for coupling in (0.0, 0.1, 1.0):
            drawn = [examples.random_update(3, 2, gamma=0.5, coupling=coupling, rng=rng) for _ in range(20)]
            shares.append(np.mean([verdicts.verdicts(each.update, products=8).exact_modulus < 1 for each in drawn]))
        assert shares[0] == 1 and shares[0] >= shares[1] > shares[2] == 0


def test_a_missing_pair_is_in_no_region_of_the_map():
    """The last certificate of the map is a proof too: an eigenvalue of 1 that rounds to less is none."""
    for alpha in (0.1, 0.3, 1.0, 2.0):
        safe = replace(examples.row_dominant().update, alpha=alpha)
        codes = verdicts.phase_map(safe, couplings=[1.0, -1.0, 0.3], gammas=[safe.mdp.gamma])
        assert (codes[:, :2] > 3).all()
        assert (codes[:, 2] < 4).all()


def orbit_at(gamma, coupling):
    """Return the orbit without reward, at another discount and coupling."""
    orbit = examples.closed_orbit().update
    mdp = replace(orbit.mdp, R=np.zeros((1, 2)), gamma=gamma)
    return replace(orbit, mdp=mdp, kernel=np.array([[8.0, coupling], [coupling, 1.0]]))


class TestPhaseMap:
    """Each cell names the crudest certificate that holds there, or what runs without reward do where none does."""

    COUPLINGS, GAMMAS = np.linspace(-1.2, 2.7, 14), np.array([0.1, 0.5, 0.7, 0.9])

    def test_agrees_with_the_verdicts_and_the_runs(self):
        codes = verdicts.phase_map(examples.closed_orbit().update, couplings=self.COUPLINGS, gammas=self.GAMMAS)
        assert set(codes.ravel()) == set(range(6))
        for (row, column), code in np.ndenumerate(codes):
            here = orbit_at(self.GAMMAS[row], self.COUPLINGS[column])
            found = verdicts.verdicts(here, products=500)
            if code < 3:
                assert found.certified_by == verdicts.PHASES[code]
                continue
            assert found.weighted_modulus >= 1
            assert found.joint_spectral_radius[0] < 1 or code > 3
            assert found.joint_spectral_radius[1] >= 1 or code == 3
            fates = {
                dynamics.iterate(here, [start], max_iter=3000, tol=1e-7, bound=1e6).status
                for start in ([0.8, -0.6], [-0.6, 0.8], [-1, 0], [1, 0], [0.6, 0.8])
            }
            assert ("diverged" in fates) == (code == 5), (self.GAMMAS[row], self.COUPLINGS[column])

    def test_a_process_with_one_policy(self):
        """There the fourth certificate is exact: without it the spectral radius is 1 or more, and runs leave."""
        mdp = FiniteMDP(np.array([[[0.5, 0.5]], [[0.0, 1.0]]]), np.zeros((2, 1)), 0.8)
        drawn = replace(examples.row_dominant().update, mdp=mdp, weights=[0.7, 0.3])
        couplings, seen = np.linspace(-1.1, 1.1, 9), set()
        for alpha in (0.5, 2.0, 3.0, 4.0, 6.0, 9.0):
            update = replace(drawn, alpha=alpha)
            codes = verdicts.phase_map(update, couplings=couplings, gammas=[0.8], max_iter=20_000)[0]
            seen |= set(codes)
            for coupling, code in zip(couplings, codes, strict=True):
                here = replace(update, kernel=np.array([[1, coupling], [coupling, 1]]))
                found = verdicts.verdicts(here)
                if code < 3:
                    assert found.certified_by == verdicts.PHASES[code]
                else:
                    assert found.weighted_modulus >= 1 and (found.spectral_radii[-1] < 1) == (code == 3)
                run = dynamics.iterate(here, np.array([[1.0], [-0.3]]), max_iter=300, bound=1e3)
                assert run.status != ("converged" if code > 3 else "diverged")
        assert seen == {0, 1, 2, 3, 5}

    def test_the_first_region_ends_where_row_dominance_does(self):
        """At gamma = 0.9 the entry on the diagonal must be 19 times the other: on both sides of 1/19."""
        codes = verdicts.phase_map(examples.row_dominant().update, couplings=[0.0526, 0.0527], gammas=[0.9])
        assert codes[0, 0] == 0 < codes[0, 1]

    def test_reward_does_not_matter(self):
        calls = [
            verdicts.phase_map(update, couplings=[0.2, 2.5], gammas=[0.5, 0.7])
            for update in (examples.closed_orbit().update, orbit_at(0.1, 1.0))
        ]
        np.testing.assert_array_equal(*calls)
        assert calls[0].tolist() == [[2, 4], [3, 5]]

    def test_refuses(self):
        message = "update must be on two state-action pairs, its process has 7"
        with pytest.raises(ValueError, match=re.escape(message)):
            verdicts.phase_map(examples.baird_star().update, couplings=[0.1], gammas=[0.5])
        with pytest.raises(ValueError, match="gamma"):
            verdicts.phase_map(examples.closed_orbit().update, couplings=[0.1], gammas=[1.0])
