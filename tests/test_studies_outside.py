"""The study of what an update does outside its batch: planted cases on both sides, runs that watching leaves alone."""

import itertools

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from divergence_notes import networks, ntk, preqn, studies, training
from divergence_notes.studies import ablation, outside, protocol

PENDULUM, CHEETAH = "Pendulum-v1", "HalfCheetah-v5"
SMALL = preqn.PreQNConfig(hidden=(8, 8), policy_hidden=(8,), batch_size=12, held_out=4, warmup=120, capacity=600)
OWN = "errors == 'own'"


@pytest.fixture
def small(monkeypatch):
    """Make networks, batches and episodes small."""
    for name in (PENDULUM, CHEETAH):
        monkeypatch.setattr(gymnasium.spec(name), "max_episode_steps", 20)
    base = SMALL, {"steps": 200, "eval_every": 30, "eval_episodes": 2}
    monkeypatch.setattr(ablation, "BASES", {PENDULUM: base, CHEETAH: base})
    monkeypatch.setattr(outside, "BEFORE", (5, 0))


class TestFall:
    """Of the squared error, at each length of a step, and where it changes its sign."""

    def cases(self, rng):
        return [(rng.standard_normal(9), rng.standard_normal(9)) for _ in range(20)]

    def test_it_is_a_parabola_in_the_length(self, rng):
        for error, direction in self.cases(rng):
            told = outside.score(error, direction)
            for a in (-1, 0, 0.1, 1, 3):
                want = 1 - sum((e - a * d) ** 2 for e, d in zip(error, direction, strict=True)) / sum(error**2)
                assert outside.fall(error, a * direction) == pytest.approx(want)
                assert 2 * a * told["along"] - a**2 * told["size"] == pytest.approx(want)

    def test_it_changes_its_sign_with_the_length(self, rng):
        seen = 0
        for error, direction in self.cases(rng):
            told = outside.score(error, direction)
            if told["along"] > 0:
                border, seen = 2 * told["along"] / told["size"], seen + 1
                assert (
                    outside.fall(error, 0.99 * border * direction) > 0 > outside.fall(error, 1.01 * border * direction)
                )
        assert seen > 5

    def test_best_is_the_most_that_any_length_takes(self, rng):
        for error, direction in self.cases(rng):
            lengths = np.linspace(0, 5, 20_001)
            most = max(0.0, max(outside.fall(error, a * direction) for a in lengths))
            assert outside.score(error, direction)["best"] == pytest.approx(most, abs=1e-5)
            cosine = error @ direction / np.linalg.norm(error) / np.linalg.norm(direction)
            assert outside.score(error, direction)["best"] == pytest.approx(max(cosine, 0) ** 2)

    def test_all_of_it_and_nothing(self):
        error = np.array([3.0, -4.0])
        assert outside.fall(error, error) == 1
        assert outside.fall(error, 2 * error) == 0
        assert outside.fall(error, -error) == -3
        assert all(each == 0 for each in outside.score(error, np.zeros(2)).values())

    def test_many_directions_at_once(self, rng):
        error, directions = rng.standard_normal(5), rng.standard_normal((5, 4))
        told = outside.score(error, directions)
        for k, direction in enumerate(directions.T):
            for key, each in outside.score(error, direction).items():
                assert told[key][k] == pytest.approx(float(each))


def planted(errors, *, seed, n=60, m=200, more=180, d=4):
    """Return a linear Q, inputs, and TD errors: a linear function of the inputs, or noise."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Linear(d, 1, dtype=torch.float64)
    x = torch.randn(n + m + more, d, generator=generator, dtype=torch.float64)
    if errors == "linear":
        told = x @ torch.randn(d, generator=generator, dtype=torch.float64)
    else:
        told = torch.randn(len(x), generator=generator, dtype=torch.float64)
    return net, x, told.numpy(), (n, m)


def measured(errors, *, seed, alpha=0.1, jitter=1e-8):
    """Return the rows of one update that undoes the kernel, with targets that stand still."""
    net, x, error, sizes = planted(errors, seed=seed)
    way = preqn.direction(ntk.linearize(net, x[: sizes[0]]), torch.as_tensor(error[: sizes[0]]), jitter=jitter)
    after = networks.moved(net, way.slopes, alpha=alpha)
    change = networks.values(after, x) - networks.values(net, x)
    rng = np.random.default_rng(seed)
    return pd.DataFrame(outside.measure(net, after, x, error, error - change, sizes=sizes, rng=rng))


def one(table, way, errors="own"):
    """Return the only row of a way."""
    (row,) = table[(table.way == way) & (table.errors == errors)].to_dict("records")
    return row


class TestPlanted:
    """Errors that a batch tells everything about, and errors that it tells nothing about."""

    @pytest.mark.parametrize("alpha", [0.1, 0.7])
    def test_what_can_be_foreseen_is(self, alpha):
        """Four weights, sixty transitions, no noise: the ceiling is all of it, and the update reaches it."""
        table = measured("linear", seed=1, alpha=alpha)
        for way in ("ceiling", "ceiling-4n", "jitter-1e-08"):
            assert one(table, way)["best"] == pytest.approx(1, abs=1e-6)
        for way in ("update", "inside"):
            row = one(table, way)
            assert row["best"] == pytest.approx(1, abs=1e-6)
            for column in ("first", "finite", "moved"):
                assert row[column] == pytest.approx(1 - (1 - alpha) ** 2, abs=1e-6)
        assert one(table, "ceiling", "signs")["best"] < 0.5 > one(table, "ceiling", "shuffled")["best"]

    def test_noise_cannot(self):
        """The ceiling is what hindsight finds in errors that know nothing, and the update adds its own size."""
        tables = [measured("noise", seed=seed) for seed in range(12)]
        own, null = (np.array([one(t, "ceiling", errors)["best"] for t in tables]) for errors in ("own", "signs"))
        assert null.max() < 0.1 and own.max() < 0.1
        assert abs(own.mean() - null.mean()) < 3 * own.std(ddof=1) / len(own) ** 0.5
        updates = [one(t, "update") for t in tables]
        along = np.array([row["along"] for row in updates])
        assert abs(along.mean()) < 3 * along.std(ddof=1) / len(along) ** 0.5
        assert np.mean([row["finite"] for row in updates]) == pytest.approx(
            -np.mean([r["size"] for r in updates]), abs=0.01
        )

    def test_more_transitions_tell_more(self):
        """Weights that a batch of three cannot tell, and twelve can."""
        table = [planted("linear", seed=seed, n=3, m=100, more=9) for seed in range(8)]
        for net, x, error, sizes in table:
            rows = pd.DataFrame(outside.measure(net, net, x, error, error, sizes=sizes, rng=np.random.default_rng(0)))
            assert one(rows, "ceiling-4n")["best"] > 0.999 > one(rows, "ceiling")["best"]

    def test_targets_that_follow(self):
        """Where each target moves as far as its value, the fall with targets held is there, and the other is not."""
        net, x, error, sizes = planted("linear", seed=2)
        way = preqn.direction(ntk.linearize(net, x[:60]), torch.as_tensor(error[:60]), jitter=1e-8)
        after = networks.moved(net, way.slopes, alpha=0.1)
        rows = pd.DataFrame(outside.measure(net, after, x, error, error, sizes=sizes, rng=np.random.default_rng(0)))
        assert one(rows, "update")["finite"] == pytest.approx(0.19) and one(rows, "update")["moved"] == 0

    def test_the_first_order_and_the_step_itself(self):
        """In a network they part with the square of the length; what is left of a tenth of it is a hundredth."""
        generator = torch.Generator().manual_seed(0)
        net = networks.MLP([4, 16, 16, 1], activation="sin", generator=generator, dtype=torch.float64)
        _, x, error, sizes = planted("linear", seed=3)
        way = preqn.direction(ntk.linearize(net, x[:60]), torch.as_tensor(error[:60]), jitter=1e-2)
        apart = []
        for alpha in (1e-1, 1e-2):
            after = networks.moved(net, way.slopes, alpha=alpha)
            rows = pd.DataFrame(outside.measure(net, after, x, error, error, sizes=sizes, rng=np.random.default_rng(0)))
            row = one(rows, "update")
            apart.append(abs(row["finite"] - row["first"]))
            step = one(rows, "jitter-0.01")
            assert row["along"] == pytest.approx(alpha * step["along"]) and row["best"] == pytest.approx(step["best"])
        assert apart[0] > 1e-3 and apart[1] < 0.02 * apart[0]


class TestGuesses:
    """Each is linear in the errors; what is drawn twice stays one transition."""

    def given(self, seed=0, n=40, m=30):
        net, x, error, _ = planted("linear", seed=seed, n=n, m=m, more=0)
        return ntk.gram(net, x).detach().numpy()[:, :n], x.numpy(), error, n

    def test_linear(self, rng):
        kernel, x, _, n = self.given()
        errors = rng.standard_normal((n, 3))
        found = outside.guesses(kernel, x, errors)
        assert len(found) == 34
        for name, each in found.items():
            both = outside.guesses(kernel, x, errors @ np.array([[2.0], [-1.0], [0.5]]))[name]
            np.testing.assert_allclose(both, each @ np.array([[2.0], [-1.0], [0.5]]), rtol=1e-6, atol=1e-6)

    def test_neighbours_by_a_loop(self):
        kernel, x, error, n = self.given()
        found, spread = outside.guesses(kernel, x, error[:n, None]), x[:n].std(axis=0)
        for i, row in enumerate(x[n:]):
            near = sorted(range(n), key=lambda j: float((((x[j] - row) / spread) ** 2).sum()))
            for k in (1, 4, n):
                assert found[f"nearest-{k}"][i, 0] == pytest.approx(np.mean([error[j] for j in near[:k]]))

    def test_the_jitter_is_that_of_the_solver(self):
        kernel, x, error, n = self.given()
        K = torch.as_tensor(kernel[:n])
        z = preqn.solve(K, torch.as_tensor(error[:n]), solver="cholesky", jitter=1e-2).numpy()
        found = outside.guesses(kernel, x, error[:n, None])["jitter-0.01"]
        np.testing.assert_allclose(found[:, 0], kernel[n:] @ z, rtol=1e-8)

    def test_a_transition_drawn_twice_has_one_error(self, monkeypatch):
        """Else the null would ask for two opposite things at one place, which no batch does."""
        given, (kernel, x, error, n) = [], self.given()
        guesses = outside.guesses
        monkeypatch.setattr(outside, "guesses", lambda *of: given.append(of[2]) or guesses(*of))
        twice = np.r_[0:n, 0:n, n : len(x)]
        rng = np.random.default_rng(1)
        outside.judged(kernel[twice][:, twice[: 2 * n]], x[twice], error[twice], n=2 * n, rng=rng)
        (errors,) = given
        assert errors.shape == (2 * n, 1 + 2 * outside.DRAWS)
        np.testing.assert_array_equal(errors[:n], errors[n:])
        assert (np.abs(errors[:, 1 : 1 + outside.DRAWS]) == np.abs(errors[:, :1])).all(), "signs, and nothing else"
        assert (np.sort(errors[:n, -1]) == np.sort(errors[:n, 0])).all() and (errors[:n, -1] != errors[:n, 0]).any()

    def test_ceiling_is_the_best_of_all(self):
        kernel, x, error, n = self.given()
        known = error + 0.5 * np.random.default_rng(3).standard_normal(len(error))
        rows = pd.DataFrame(outside.judged(kernel, x, known, n=n, rng=np.random.default_rng(2)))
        all_of_them = outside.guesses(kernel, x, known[:n, None])
        best = [float(outside.score(known[n:], each[:, 0])["best"]) for each in all_of_them.values()]
        assert one(rows, "ceiling")["best"] == pytest.approx(max(best))
        assert one(rows, "nearest")["best"] <= max(best) and len(rows) == 7 * 3 + 2 + 3


class TestDistinct:
    def test_once_and_not_taken(self):
        x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [5.0, 6.0], [7.0, 8.0]])
        assert outside.distinct(x, most=9) == [0, 1, 3, 4]
        assert outside.distinct(x, torch.tensor([[3.0, 4.0]]), torch.tensor([[7.0, 8.0]]), most=9) == [0, 3]
        assert outside.distinct(x, most=2) == [0, 1]


class TestRuns:
    """Watching changes nothing; the others are others."""

    @pytest.mark.parametrize("agent", ["pendulum-preqn-tanh", "pendulum-plain"])
    def test_ours_go_on_as_without(self, agent, small, monkeypatch):
        curves, learn = [], training.learn

        def spy(*arguments, **keywords):
            curves.append(learn(*arguments, **keywords))
            return curves[-1]

        monkeypatch.setattr(training, "learn", spy)
        outside.run(seed=2, agent=agent, updates=(20, 60))
        changes = outside.CASES[agent][1]
        config = preqn.PreQNConfig(**{f: getattr(SMALL, f) for f in SMALL.__dataclass_fields__} | changes)
        preqn.train(PENDULUM, config=config, steps=179, seed=2, eval_every=30, eval_episodes=2)
        watched, free = curves
        pd.testing.assert_frame_equal(watched.curve, free.curve, check_exact=True)
        for p, q in zip(watched.agent.net.parameters(), free.agent.net.parameters(), strict=True):
            assert torch.equal(p, q)

    def test_ddpg_goes_on_as_without(self, small, monkeypatch):
        curves, create = [], protocol.baseline_curve

        def spy(*arguments, **keywords):
            curves.append(create(*arguments, **keywords))
            return curves[-1]

        monkeypatch.setattr(protocol, "baseline_curve", spy)
        outside.run(seed=2, agent="pendulum-ddpg", updates=(20, 60))
        sizes = {"hidden": (8, 8), "warmup": 120, "batch_size": 12, "noise": 0.1}
        free = create(outside.DDPG, PENDULUM, steps=180, seed=2, eval_every=30, eval_episodes=2, **sizes)
        pd.testing.assert_frame_equal(curves[0], free, check_exact=True)

    @pytest.mark.parametrize("agent", outside.CASES)
    def test_moments_and_ways(self, agent, small):
        found = outside.run(seed=1, agent=agent, updates=(20, 60))
        assert found["updates"].unique().tolist() == [20, 60]
        ways = {f"jitter-{jitter:g}" for jitter in outside.JITTERS}
        nulls = {*itertools.product(ways | {"ceiling", "ceiling-4n"}, ("own", "signs", "shuffled"))}
        want = nulls | {(way, "own") for way in ("update", "inside", "nearest", "smooth")}
        for _, moment in found.groupby("updates"):
            assert set(zip(moment.way, moment.errors, strict=True)) == want and len(moment) == len(want)
        assert found["return"].notna().all() and (found.others > 20).all()
        assert found.best.between(0, 1 + 1e-9).all() and (found.finite.dropna() <= 1).all()

    @pytest.mark.parametrize("agent", ["pendulum-preqn-sin", "cheetah-ddpg"])
    def test_none_of_the_others_is_in_the_batch_or_there_twice(self, agent, small, monkeypatch):
        seen = []

        def spy(net, after, x, error, moved, *, sizes, rng):
            seen.append((x, sizes))
            return [{"way": "update", "errors": "own"}]

        monkeypatch.setattr(outside, "measure", spy)
        outside.run(seed=0, agent=agent, updates=(20, 60))
        assert len(seen) == 4
        for x, (n, m) in seen:
            rows = [tuple(row) for row in x.tolist()]
            batch, others, more = set(rows[:n]), rows[n : n + m], rows[n + m :]
            assert n == 12 and len(set(others)) == m and len(set(more)) == len(more) > 0
            assert not batch & set(others) and not set(more) & (batch | set(others))

    @pytest.mark.parametrize("agent", ["pendulum-preqn-sin", "pendulum-ddpg"])
    def test_the_errors_are_those_of_the_agent(self, agent, small, monkeypatch):
        """Inside, PreQN's own measure of its step; for both, the fall is that of two networks and their targets."""
        found, metrics, update = [], [], preqn.PreQN.update
        monkeypatch.setattr(
            preqn.PreQN, "update", lambda self, batch: metrics.append(update(self, batch)) or metrics[-1]
        )

        def spy(net, after, x, error, moved, *, sizes, rng):
            found.append((net, after, x, error, moved, sizes))
            return [{"way": "update", "errors": "own"}]

        monkeypatch.setattr(outside, "measure", spy)
        outside.run(seed=0, agent=agent, updates=(20,))
        net, after, x, error, moved, (n, _) = found[-1]
        change = networks.values(after, x) - networks.values(net, x)
        assert np.abs(change).max() > 0
        if agent == "pendulum-ddpg":  # the targets hardly follow
            assert np.abs(moved - (error - change)).max() < 0.2 * np.abs(change).max()
            return
        told = metrics[19]
        assert told["td_error"] == pytest.approx(np.sqrt(np.square(error[:n]).mean()), rel=1e-5)
        cosine = error[:n] @ change[:n] / np.linalg.norm(error[:n]) / np.linalg.norm(change[:n])
        assert told["alignment"] == pytest.approx(cosine, abs=1e-4)
        assert np.abs(moved - (error - change)).max() > 0.1 * np.abs(change).max(), "the targets follow at once"


class TestCommittedOutside:
    """What lies in book/results is what the study says."""

    def test_runs_and_rows(self):
        data = studies.load("outside")
        there = set(data[["seed", "agent"]].drop_duplicates().itertuples(index=False, name=None))
        assert there <= set(itertools.product(*outside.PARAMETERS.values()))
        assert data.groupby("agent").seed.nunique().reindex(outside.PARAMETERS["agent"], fill_value=0).min() >= 2
        assert set(data.updates) == set(outside.UPDATES)
        assert (data.groupby(["seed", "agent", "updates"]).size() == 31).all()

    def test_the_update_of_preqn_is_the_step_of_its_jitter(self):
        """To first order they are one: the same cosine, measured in two ways."""
        data = studies.load("outside").query(OWN)
        data = data[data.agent.str.contains("preqn")].set_index(["seed", "agent", "updates"])
        update, step = data[data.way == "update"], data[data.way == "jitter-0.0001"]
        np.testing.assert_allclose(update.best, step.best, rtol=0.02, atol=1e-3)
        np.testing.assert_allclose(update.finite, step.finite, rtol=0.02, atol=1e-3)

    def test_reproduced(self):
        """The first moment of one run; rounding differs between processors."""
        found = outside.run(seed=0, agent="pendulum-preqn-sin", updates=(100,))
        kept = studies.load("outside").query("seed == 0 and agent == 'pendulum-preqn-sin' and updates == 100")
        assert kept.way.tolist() == found.way.tolist() and kept.errors.tolist() == found.errors.tolist()
        own = (kept.errors == "own").to_numpy()
        np.testing.assert_allclose(kept.best[own], found.best.to_numpy()[own], atol=0.05)
        np.testing.assert_allclose(kept.td_error, found.td_error, rtol=0.2)
