"""A probe in loops of one's own: two scripts, online and offline, and what each number is by another route."""

import copy
import re
from collections import namedtuple
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from divergence_notes import diagnosis, diagnostics, plasticity, probe, returns
from divergence_notes.probe import Probe


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


class QNetwork(nn.Module):
    """Values of all actions, rectified by functions."""

    def __init__(self, d, n_actions):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(d, 32), nn.Linear(32, 32), nn.Linear(32, n_actions)

    def forward(self, x):
        return self.three(torch.relu(self.two(torch.relu(self.one(x)))))


class Twins(nn.Module):
    """Two critics of observations and actions, and the first alone."""

    def __init__(self, d):
        super().__init__()
        self.first, self.second = (
            nn.Sequential(nn.Linear(d, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1)) for _ in range(2)
        )

    def forward(self, observations, actions):
        x = torch.cat([observations, actions], dim=1)
        return self.first(x), self.second(x)

    def alone(self, observations, actions):
        return self.first(torch.cat([observations, actions], dim=1))


def learn_online(*, every, copy_each=40, lr=1e-3, steps=500, watched=True, sign=1, ends=True):
    """DQN as one writes it in a file: a list for a buffer, a loop, two networks."""
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    env = gym.make("CartPole-v1")
    net = QNetwork(4, 2)
    target = copy.deepcopy(net)
    optimizer, gamma, memory, updates = torch.optim.Adam(net.parameters(), lr=lr), 0.99, [], 0

    def targets(batch):
        after = target(batch["next_observations"]).max(dim=1).values
        return batch["rewards"] + sign * gamma * (1 - batch["dones"] * ends) * after

    watching = Probe(net, targets, gamma=gamma, others=[target]) if watched else None
    obs, _ = env.reset(seed=1)
    for step in range(1, steps + 1):
        explore = rng.random() < 0.3
        with torch.no_grad():
            action = int(rng.integers(2)) if explore else int(net(torch.as_tensor(obs)[None]).argmax())
        after, reward, terminated, truncated, _ = env.step(action)
        memory.append((obs, action, after, np.float32(terminated), np.float32(reward), truncated))
        obs = env.reset()[0] if terminated or truncated else after
        if step < 100:
            continue
        rows = [memory[k] for k in rng.integers(len(memory), size=32)]
        names = ("observations", "actions", "next_observations", "dones", "rewards")
        batch = {name: torch.as_tensor(np.stack([row[k] for row in rows])) for k, name in enumerate(names)}
        if watched and step % every == 0:
            watching.saw(*(np.array([row[k] for row in memory]) for k in (4, 3, 5)))
            watching(batch, step=step, renewals=updates // copy_each)
        taken = net(batch["observations"]).gather(1, batch["actions"][:, None])[:, 0]
        with torch.no_grad():
            wanted = targets(batch)
        optimizer.zero_grad()
        ((taken - wanted) ** 2).mean().backward()
        optimizer.step()
        updates += 1
        if updates % copy_each == 0:
            target.load_state_dict(net.state_dict())
    return watching, net


def pendulum_data(n=600):
    """Return steps of a random policy, as arrays in order of time, with the names of data sets."""
    env, rng = gym.make("Pendulum-v1"), np.random.default_rng(0)
    rows, obs = [], env.reset(seed=0)[0]
    for _ in range(n):
        action = rng.uniform(-2, 2, 1).astype(np.float32)
        after, reward, terminated, truncated, _ = env.step(action)
        rows.append((obs, action / 2, reward / 10, after, terminated, truncated))
        obs = env.reset()[0] if terminated or truncated else after
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    return {name: np.array([row[k] for row in rows], dtype=np.float32) for k, name in enumerate(names)}


def learn_offline(*, lr=3e-4, tau=0.005, updates=300, every=50, watched=True):
    """Two critics, an actor that is kept near the data, no environment: as TD3 with a term for imitation does."""
    torch.manual_seed(2)
    rng, data, gamma = np.random.default_rng(2), pendulum_data(), 0.98
    critic = Twins(4)
    actor = nn.Sequential(nn.Linear(3, 24), nn.ReLU(), nn.Linear(24, 1), nn.Tanh())
    critic_target, actor_target = copy.deepcopy(critic), copy.deepcopy(actor)
    optimizers = [torch.optim.Adam(part.parameters(), lr=lr) for part in (critic, actor)]

    def targets(batch):
        first, second = critic_target(batch["next_observations"], actor_target(batch["next_observations"]))
        return batch["rewards"][:, None] + gamma * (1 - batch["dones"][:, None]) * torch.minimum(first, second)

    watching = None
    if watched:
        watching = Probe(
            critic,
            targets,
            gamma=gamma,
            values=lambda net, observations, actions: net.alone(observations, actions),
            policy=actor,
            others=[critic_target, actor, actor_target],
        )
        known = {name: data[name] for name in ("observations", "actions")}
        watching.saw(data["rewards"], data["terminals"], data["timeouts"], **known)
    for update in range(updates):
        where = rng.integers(len(data["rewards"]), size=64)
        batch = {name: torch.from_numpy(part[where]) for name, part in data.items()} | {}
        batch["dones"] = batch.pop("terminals")
        if watched and update % every == 0:
            watching(batch, step=update, renewals=update, share=tau)
        with torch.no_grad():
            wanted = targets(batch)
        loss = sum(((q - wanted) ** 2).mean() for q in critic(batch["observations"], batch["actions"]))
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
        if update % 2 == 0:
            action = actor(batch["observations"])
            value = critic.alone(batch["observations"], action)
            loss = -value.mean() / value.abs().mean().detach() + ((action - batch["actions"]) ** 2).mean()
            optimizers[1].zero_grad()
            loss.backward()
            optimizers[1].step()
        for net, slow in ((critic, critic_target), (actor, actor_target)):
            for p, q in zip(net.parameters(), slow.parameters(), strict=True):
                q.data.lerp_(p.data, tau)
    return watching, critic


class TestScripts:
    """Two loops that know nothing of any library of agents."""

    def test_online(self):
        watching, _ = learn_online(every=50)
        history = watching.history
        assert history["step"].tolist() == list(range(100, 501, 50)) and (history["reason"] == "").all()
        assert not history["alarm"].any()
        assert set(history["possible_high"].round(6)) == {100.0}
        assert np.isfinite(history["alignment"][:-1].astype(float)).all() and np.isnan(history["alignment"].iloc[-1])
        assert history["earned_high"].min() > 8 and history["value_churn"].iloc[1:].gt(0).all()

    def test_online_without_a_target_network(self):
        """The same script, steps ten times as long and the target network renewed by each: it is seen, and early."""
        watching, _ = learn_online(every=20, copy_each=1, lr=3e-2, steps=700)
        history = watching.history
        assert history["alarm"].any() and (history["reason"] == "").all()
        first = history.index[history["alarm"]][0]
        assert history["max_q"].iloc[-1] > 3 * history["max_q"].iloc[first]

    @pytest.mark.parametrize(("fault", "found"), [({"sign": -1}, "too-low"), ({"ends": False}, "after-ends"), ({}, "")])
    def test_a_line_of_the_targets_is_wrong(self, fault, found):
        """Of the same script: the sign of what comes after, the ends, and neither."""
        watching, _ = learn_online(every=50, **fault)
        assert [each.name for each in diagnosis.diagnose(watching.history)] == ([found] if found else [])

    def test_offline(self):
        watching, _ = learn_offline()
        history = watching.history
        assert len(history) == 6 and (history["reason"] == "").all() and not history["alarm"].any()
        assert np.isfinite(history["overestimation"].astype(float)).all()
        assert history["action_churn"].iloc[1:].gt(0).all()

    def test_offline_and_wild(self):
        watching, _ = learn_offline(lr=3e-2, tau=1.0, updates=400, every=40)
        history = watching.history
        assert history["alarm"].any() and not history["alarm"].iloc[0]

    @pytest.mark.parametrize("script", [learn_online, learn_offline])
    def test_changes_nothing(self, script):
        ends = []
        for watched in (True, False):
            _, net = script(every=30, watched=watched)
            ends.append((net.state_dict(), torch.get_rng_state()))
        assert all(torch.equal(value, ends[1][0][name]) for name, value in ends[0][0].items())
        assert torch.equal(ends[0][1], ends[1][1])


def transitions(rng, n=12, d=3, discrete=True):
    obs, after = (torch.from_numpy(rng.normal(size=(n, d)).astype(np.float32)) for _ in range(2))
    if discrete:
        actions = torch.from_numpy(rng.integers(2, size=n))
    else:
        actions = torch.from_numpy(rng.uniform(-1, 1, (n, 1)).astype(np.float32))
    rewards = torch.from_numpy(rng.normal(size=n).astype(np.float32))
    dones = torch.from_numpy((rng.random(n) < 0.3).astype(np.float32))
    return {"observations": obs, "actions": actions, "next_observations": after, "dones": dones, "rewards": rewards}


def watch(net, rng, **settings):
    """Return a probe whose targets are zero."""
    return Probe(net, lambda batch: torch.zeros(len(batch["rewards"])), **{"gamma": 0.9} | settings)


class TestRecord:
    """Numbers of a record, each by another route."""

    def test_against_autograd(self, rng):
        torch.manual_seed(0)
        net, batch = QNetwork(3, 2), transitions(rng)
        watching = watch(net, rng)
        record = watching(batch, step=0)
        taken = net(batch["observations"]).gather(1, batch["actions"][:, None])[:, 0]
        (0.5 * (taken**2).mean()).backward()  # the targets are zero
        taken = taken.detach()
        gradient = torch.cat([p.grad.ravel() for p in net.parameters()]).norm().item()
        assert record["gradient_norm"] == pytest.approx(gradient, rel=1e-4)
        weights = torch.cat([p.detach().ravel() for p in net.parameters()])
        assert record["weight_norm"] == pytest.approx(float(weights.norm()), rel=1e-5)
        assert record["td_error"] == pytest.approx(float(taken.abs().mean()), rel=1e-5)
        assert record["max_q"] == pytest.approx(net(batch["observations"]).abs().max().item(), rel=1e-5)
        hidden = torch.relu(net.two(torch.relu(net.one(batch["observations"])))).detach().numpy()
        assert record["feature_norm"] == pytest.approx(np.sqrt((hidden**2).sum(axis=1)).mean(), rel=1e-5)
        assert record["feature_rank"] == plasticity.feature_rank(hidden)
        first = torch.relu(net.one(batch["observations"])).detach().numpy().mean(axis=0)
        asleep = [int((part <= 0.025 * part.mean()).sum()) for part in (first, hidden.mean(axis=0))]
        assert watching.layers["dormant"].tolist() == asleep and record["dormant"] == sum(asleep) / 64

    def test_churn_is_that_of_the_first_batch(self, rng):
        torch.manual_seed(0)
        net, first = QNetwork(3, 2), transitions(rng)
        watching = watch(net, rng)
        assert np.isnan(watching(first, step=0)["value_churn"])
        before = net(first["observations"]).detach()
        with torch.no_grad():
            net.three.bias += torch.tensor([-1.0, 1.0])
        record = watching(transitions(rng), step=1)
        after = net(first["observations"]).detach()
        moved = (after - before).gather(1, first["actions"][:, None]).abs().mean()
        assert record["value_churn"] == pytest.approx(float(moved), rel=1e-4)
        others = (after.argmax(dim=1) != before.argmax(dim=1)).float().mean()
        assert 0 < record["action_churn"] == pytest.approx(float(others))
        assert watching(transitions(rng), step=2)["value_churn"] == 0

    def test_alignment_is_what_happened_in_between(self, rng):
        net, batch = QNetwork(3, 2), transitions(rng)
        watching = watch(net, rng)
        watching(batch, step=0)
        before = net(batch["observations"]).gather(1, batch["actions"][:, None])[:, 0].detach()
        with torch.no_grad():
            net.three.weight *= 0.5
        watching.after()
        after = net(batch["observations"]).gather(1, batch["actions"][:, None])[:, 0].detach()
        want = diagnostics.alignment((after - before).double().numpy(), -before.double().numpy())
        assert watching.history["alignment"][0] == pytest.approx(want, rel=1e-4)
        with torch.no_grad():
            net.three.weight *= -9
        watching.after()  # only the first call counts
        assert watching.history["alignment"][0] == pytest.approx(want, rel=1e-4)

    def test_kept_pairs(self, rng):
        net, batch = Twins(4), transitions(rng, discrete=False)
        pairs = (batch["observations"].numpy()[:4], batch["actions"].numpy()[:4])
        watching = Probe(
            net, lambda batch: torch.zeros(12), gamma=0.9, values=lambda net, *given: net.alone(*given), pairs=pairs
        )
        watching(batch, step=0)
        rows = []
        for obs, action in zip(batch["observations"][:4], batch["actions"][:4], strict=True):
            slopes = torch.autograd.grad(net.alone(obs[None], action[None])[0, 0], list(net.first.parameters()))
            rows.append(torch.cat([slope.ravel() for slope in slopes]))
        J = torch.stack(rows).double().numpy()
        np.testing.assert_allclose(watching.kernels[0], J @ J.T, rtol=1e-4)

    def test_what_was_earned(self, rng):
        net = QNetwork(3, 2)
        watching = watch(net, rng)
        obs, actions = rng.normal(size=(6, 3)).astype(np.float32), np.array([0, 1, 1, 0, 1, 0])
        rewards, over = np.array([1.0, 2.0, 4.0, 8.0, -1.0, 3.0]), np.array([0, 0, 1, 0, 1, 0], dtype=bool)
        watching.saw(rewards, over, observations=obs, actions=actions)
        record = watching(transitions(rng) | {"rewards": torch.zeros(12)}, step=0)
        sums = [1 + 0.9 * 2 + 0.81 * 4, 8 - 0.9]
        assert record["start_return"] == pytest.approx(np.mean(sums))
        assert (record["earned_low"], record["earned_high"]) == pytest.approx((-1, 8 - 0.9))
        with torch.no_grad():
            value = net(torch.from_numpy(obs[[0, 3]]))[[0, 1], actions[[0, 3]]].mean().item()
        assert record["start_q"] == pytest.approx(value, rel=1e-5)
        assert record["overestimation"] == pytest.approx(value - np.mean(sums), rel=1e-5)
        want = returns.bounds([0.0, 8.0, -1.0, 4.0], [False, False, True, True], gamma=0.9)
        assert (record["possible_low"], record["possible_high"]) == pytest.approx(want)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
    def test_no_coupling_is_read_out_of_rounding(self, dtype, rng):
        """With targets that stand still: half a precision would make a movement out of its own rounding."""
        net = QNetwork(3, 2).to(dtype)
        given = transitions(rng) | {"observations": transitions(rng)["observations"].to(dtype)}
        still = Probe(net, lambda batch: torch.full((12,), 3.0, dtype=dtype), gamma=0.9)
        coupling = still(given, step=0)["target_coupling"]
        assert np.isnan(coupling) if dtype is torch.bfloat16 else coupling < 1e-2

    def test_one_input_that_dwarfs_the_others(self, rng):
        batch, net = transitions(rng), QNetwork(3, 2)
        sizes = batch["observations"].abs().amax(dim=0).numpy()
        assert watch(net, rng)(batch, step=0)["input_ratio"] == pytest.approx(sizes.max() / np.median(sizes))
        batch["observations"] *= torch.tensor([1.0, 0.0, 1e5])
        assert np.isnan(watch(net, rng)(batch, step=0)["input_ratio"])  # of two there is no middle one
        wide = transitions(rng, d=5)
        wide["observations"] *= torch.tensor([1.0, 0.0, 1e5, 1.0, 1.0])
        assert 1e4 < watch(QNetwork(5, 2), rng)(wide, step=0)["input_ratio"] < 1e6

    @pytest.mark.parametrize("form", [dict, lambda **parts: namedtuple("Sample", parts)(**parts), SimpleNamespace])
    def test_targets_beyond_ends(self, form, rng):
        torch.manual_seed(0)
        net, parts = QNetwork(3, 2), transitions(rng)
        target = copy.deepcopy(net)

        def record(cut, **more):
            def targets(b):
                get = (lambda name: b[name]) if isinstance(b, dict) else (lambda name: getattr(b, name))
                after = target(get("next_observations")).max(dim=1).values
                return get("rewards") + 0.9 * (1 - get("dones") if cut else 1) * after

            watching = Probe(net, targets, gamma=0.9)
            told = more.pop("told", None)
            if told is not None:
                watching.saw(np.ones(4), *told)
            return watching(form(**parts | more) if form is not dict else parts | more, step=0)

        assert record(True)["after_ends"] == 0 and record(False)["after_ends"] == 1
        assert np.isnan(record(False, dones=torch.zeros(12))["after_ends"])
        if form is not SimpleNamespace:  # of which the five parts are left
            assert np.isnan(record(False, timeouts=parts["dones"])["after_ends"])
            assert np.isnan(record(False, terminated=torch.zeros(12))["after_ends"])
        few, many = np.array([[0, 1, 0, 1], [0, 0, 0, 0]]), np.array([[0, 0, 0, 0], [0, 1, 0, 1]])
        assert record(False, told=few)["after_ends"] == 1 and np.isnan(record(False, told=many)["after_ends"])

    def test_only_targets_of_ones_own_are_asked_about_ends(self, rng):
        batch, net = transitions(rng), QNetwork(3, 2)
        asked = probe.Asked(
            net=net,
            values=lambda net, observations: net(observations),
            errors=lambda b: (net(b.next_observations).max(1).values, None),
            learner=[net],
            discrete=True,
        )
        of = Probe.of(asked, gamma=0.9)
        of.record(0, draw=lambda: probe.Batch(**batch), known=of.known, told=lambda: None)
        assert np.isnan(of.records[0]["after_ends"]) and np.isfinite(of.records[0]["td_bias"])

    def test_rewards_that_have_become_others(self, rng):
        watching = watch(QNetwork(3, 2), rng)
        watching.saw(np.r_[np.full(50, 200.0), np.full(50, -0.1)], np.zeros(100))
        assert watching(transitions(rng), step=0)["reward_change"] == pytest.approx(5e-4)
        watching.saw(np.zeros(100), np.zeros(100))
        assert np.isnan(watching(transitions(rng), step=1)["reward_change"])

    @pytest.mark.parametrize("envs", [0, 2])
    def test_steps_told_one_by_one_are_told_together(self, envs, rng):
        """Each call adds to the steps before: what was earned is that of whole episodes, and not of one step."""
        torch.manual_seed(0)
        shape = (40, envs) if envs else (40,)
        rewards, over = rng.normal(size=shape), rng.random(shape) < 0.2
        cut = rng.random(shape) < 0.1
        obs, actions = rng.normal(size=(*shape, 3)).astype(np.float32), rng.integers(2, size=shape)
        net, batch, earned = QNetwork(3, 2), transitions(rng), []
        for one_by_one in (False, True):
            watching = watch(net, rng)
            if one_by_one:
                for k in range(40):
                    seen, done = [obs[k].copy()], [actions[k].copy()]
                    watching.saw([rewards[k]], [over[k]], [cut[k]], observations=seen, actions=done)
                    seen[0][:] = np.nan  # an environment may use its array again
            else:
                watching.saw(rewards, over, cut, observations=obs, actions=actions)
            record = watching(batch, step=0)
            assert record["reason"] == ""
            names = ("earned_low", "earned_high", "start_q", "start_return", "overestimation", "episode_length")
            earned.append([record[name] for name in (*names, "same_length", "possible_low", "reward_change")])
        np.testing.assert_allclose(earned[0], earned[1], rtol=1e-6)
        watching.saw([1.0, 2.0], [0, 1])  # all that there is
        assert watching(batch, step=1)["earned_high"] == 2.8

    def test_of_steps_told_one_by_one_the_latest_are_kept(self, monkeypatch, rng):
        monkeypatch.setattr(probe, "_RECENT", 10)
        watching = watch(QNetwork(3, 2), rng)
        for k in range(25):
            seen = {"observations": np.full((1, 3), k, np.float32), "actions": [0]}
            watching.saw([1.0], [k % 4 == 3], **seen)
        record = watching(transitions(rng), step=0)  # 15 to 24, of which 16 and 20 begin an episode that is there
        assert record["start_return"] == pytest.approx(1 + 0.9 + 0.81 + 0.729) and record["reason"] == ""
        starts = torch.tensor([[16.0] * 3, [20.0] * 3])
        assert record["start_q"] == pytest.approx(watching.asked.net(starts)[:, 0].mean().item(), rel=1e-5)
        watching.saw([1.0], [False])  # what was seen is not told any more
        assert np.isnan(watching(transitions(rng), step=1)["start_q"])
        with refuses(ValueError, "rewards must be of 1 environments as before, got 2"):
            watching.saw([[1.0, 1.0]], [[False, False]])

    def test_columns(self, rng):
        record = watch(QNetwork(3, 2), rng)(transitions(rng), step=7)
        assert list(record) == list(probe.COLUMNS) and record["step"] == 7 and record["bonus"] == 0
        assert set(probe.COLUMNS) == {"step", *probe.NUMBERS, *probe.WORDS}

    @pytest.mark.parametrize("over_batch", [False, True])
    def test_one_pass_for_values_kernel_and_units(self, over_batch, rng):
        """Beside it one to look whether rows see each other, and that of the TD errors; where they do, one for all."""
        net, batch, seen = QNetwork(3, 2), transitions(rng), []
        centred = lambda net, observations: net(observations - observations.mean(0))  # noqa: E731
        values = {"values": centred} if over_batch else {}
        watching = Probe(net, lambda batch: seen.append("targets") or torch.zeros(12), gamma=0.9, **values)
        net.register_forward_hook(lambda module, given, out: seen.append(len(out)))
        record = watching(batch, step=0)
        passes = seen[: seen.index("targets")].count(12)
        assert passes == (4 if over_batch else 3)
        assert np.isnan(record["row_ratio"]) == over_batch and ("the kernel" in record["reason"]) == over_batch
        shown = batch["observations"] - batch["observations"].mean(0) * over_batch
        assert record["max_q"] == pytest.approx(net(shown).abs().max().item())
        assert record["feature_rank"] >= 1 and record["dormant"] >= 0
        assert len(watching.layers) == 2 == watching.layers["layer"].nunique()  # none twice

    def test_a_network_that_looks_at_the_kind_of_its_images(self, rng):
        """Its values are those of whole numbers, and it has no kernel: no gradient passes through these."""

        class Particular(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(16, 2)

            def forward(self, images):
                return self.head((images / 255.0 if images.dtype == torch.uint8 else images).flatten(1))

        net, batch = Particular(), transitions(rng)
        for name in ("observations", "next_observations"):
            batch[name] = torch.from_numpy(rng.integers(0, 256, (12, 1, 4, 4), dtype=np.uint8))
        record = Probe(net, lambda batch: torch.zeros(12), gamma=0.9)(batch, step=0)
        assert record["max_q"] == pytest.approx(net(batch["observations"]).abs().max().item())
        assert np.isnan(record["row_ratio"]) and "net must treat each row on its own" in record["reason"]

    @pytest.mark.parametrize("kind", ["arrays", "an object", "dictionaries", "images"])
    def test_batches_of_every_kind(self, kind, rng):
        torch.manual_seed(0)
        batch = transitions(rng)

        class Joined(nn.Module):
            """Reads a dictionary."""

            def __init__(self):
                super().__init__()
                self.net = QNetwork(3, 2)

            def forward(self, observations):
                return self.net(torch.cat([observations["x"], observations["y"]], dim=1))

        class Pictures(nn.Module):
            """Reads whole numbers from 0 to 255."""

            def __init__(self):
                super().__init__()
                self.conv, self.head = nn.Conv2d(1, 2, 3), nn.Linear(8, 2)

            def forward(self, images):
                return self.head(torch.relu(self.conv(images / 255.0)).flatten(1))

        net = {"dictionaries": Joined, "images": Pictures}.get(kind, lambda: QNetwork(3, 2))()
        targets = lambda batch: torch.zeros(12)  # noqa: E731
        if kind == "arrays":
            batch = {
                name: part.double().numpy() if part.is_floating_point() else part.numpy()
                for name, part in batch.items()
            }
        if kind == "an object":
            batch = type("Of", (), batch)()
        if kind == "dictionaries":
            for name in ("observations", "next_observations"):
                batch[name] = {"x": batch[name][:, :1], "y": batch[name][:, 1:]}
        if kind == "images":
            for name in ("observations", "next_observations"):
                batch[name] = torch.from_numpy(rng.integers(0, 256, (12, 1, 4, 4), dtype=np.uint8))
        record = Probe(net, targets, gamma=0.9)(batch, step=0)
        assert record["reason"] == "" and np.isfinite(record["row_ratio"]) and np.isfinite(record["gradient_norm"])

    def test_modes_and_statistics_stay(self, rng):
        net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
        other, batch = copy.deepcopy(net), transitions(rng)
        watching = Probe(net, lambda batch: other(batch["next_observations"]).max(1).values, gamma=0.9, others=[other])
        kept = [copy.deepcopy(part.state_dict()) for part in (net, other)]
        drawn = torch.get_rng_state()
        record = watching(batch, step=0)
        assert record["reason"] == "" and torch.equal(drawn, torch.get_rng_state())
        for part, state in zip((net, other), kept, strict=True):
            assert all(module.training for module in part.modules())
            assert all(torch.equal(value, part.state_dict()[name]) for name, value in state.items())


class Chain(gym.Env):
    """Five steps that pay 1 each."""

    observation_space = gym.spaces.Box(0, 1, (6,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.made = 0
        return np.eye(6, dtype=np.float32)[0], {}

    def step(self, action):
        self.made += 1
        return np.eye(6, dtype=np.float32)[self.made], 1.0, self.made == 5, False, {}


class TestLoop:
    """What draws, in a target or in the loop, goes on as without a probe; so do modes."""

    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
    @pytest.mark.parametrize("scripted", [False, True])
    def test_modes_stay_where_a_part_is_compiled(self, scripted, rng):
        net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        net = torch.jit.script(net) if scripted else net
        Probe(net, lambda batch: batch["rewards"], gamma=0.9)(transitions(rng), step=0)
        assert all(module.training for module in net.modules())

    @pytest.mark.parametrize("own", [False, True])
    def test_targets_that_draw(self, own, rng):
        net, generator, batch = QNetwork(3, 2), torch.Generator().manual_seed(0), transitions(rng)
        target = copy.deepcopy(net)

        def targets(batch):
            noise = torch.randn(1, generator=generator) if own else np.random.rand()  # noqa: NPY002
            return batch["rewards"] + target(batch["next_observations"]).amax(1) + noise

        before = np.random.get_state()[2]  # noqa: NPY002
        record = Probe(net, targets, gamma=0.9, others=[target])(batch, step=0)
        assert np.random.get_state()[2] == before  # noqa: NPY002
        assert np.isnan(record["target_coupling"]) if own else record["target_coupling"] < 1e-3


class TestBeforeTraining:
    """Values that a network had from the start are no alarm, and only those."""

    @pytest.mark.parametrize("own", [False, True])
    @pytest.mark.parametrize("from_the_start", [False, True])
    def test_values_of_a_million(self, own, from_the_start, rng):
        net, batch = QNetwork(3, 2), transitions(rng)
        values = (lambda given, x: given(x)) if own else (lambda given, x: net(x))  # the copy's, or not
        watching = Probe(net, lambda batch: batch["rewards"], gamma=0.9, values=values)
        if not from_the_start:
            assert not watching(batch, step=0)["alarm"]
        net.three.bias.data[:] += 1e6
        record = watching(batch, step=1)
        assert record["alarm"] == (not from_the_start or not own)
        assert own or record["reason"].endswith("values must ask the network that they are given")


class TestDue:
    """When the next record is made."""

    def made(self, first, every, steps):
        found, at = [], first
        while at <= steps:
            found.append(at)
            at = probe.due(at, first=first, every=every)
        return found

    def test_early_and_then_regularly(self):
        assert self.made(101, None, 3000) == [101, 126, 151, 201, 301, 501, 901, 1000, 2000, 3000]
        assert self.made(2, None, 1500) == [2, 27, 52, 102, 202, 402, 802, 1000]
        assert self.made(5000, None, 8000)[:8] == [5000, 5025, 5050, 5100, 5200, 5400, 5800, 6000]

    def test_as_asked(self):
        assert self.made(101, 50, 300) == [101, 150, 200, 250, 300]


@pytest.mark.parametrize("mode", ["SAME_STEP", "NEXT_STEP"])
def test_environments_that_reset_themselves(mode):
    """Told step by step: right where a reset is no step of its own, and wrong where it is, as `Probe.saw` says."""
    worth = torch.tensor([2 - 0.5 ** (4 - k) for k in range(5)] + [0.0])
    net = nn.Linear(6, 2, bias=False)
    net.weight.data[:] = worth
    watching = Probe(net, lambda batch: batch["rewards"], gamma=0.5)
    envs = gym.vector.SyncVectorEnv([Chain] * 2, autoreset_mode=gym.vector.AutoresetMode[mode])
    obs = envs.reset()[0].copy()
    for _ in range(60):
        after, reward, terminated, truncated, _ = envs.step(np.zeros(2, int))
        watching.saw([reward], [terminated], [truncated], observations=[obs], actions=[np.zeros(2, int)])
        obs = after.copy()
    eye = torch.eye(6)
    batch = {"observations": eye[:5], "next_observations": eye[1:], "actions": torch.zeros(5, dtype=torch.long)}
    record = watching(batch | {"rewards": torch.ones(5), "dones": eye[5, 1:]}, step=60)
    right = record["episode_length"] == 5 and abs(record["overestimation"]) < 1e-6 and record["reward_low"] == 1
    assert right == (mode == "SAME_STEP")


class TestSawRefuses:
    """A shape that disagrees is said at once, and leaves no trace."""

    @pytest.mark.parametrize(
        ("told", "message"),
        [
            ((1.0, False, np.zeros(4), 1), "rewards must have the shape (n,) or (n, n_envs), got ()"),
            (([1.0], [False], np.zeros((1, 4)), 1), "actions must begin with the shape of rewards, (1,), got ()"),
            (([1.0], [False], np.zeros(4), [1]), "observations must begin with the shape of rewards, (1,), got (4,)"),
            (
                ([1.0], [False], [{"x": 1.0}], [1]),
                "observations must be an array or a dictionary of arrays, got an array of objects",
            ),
            (
                (np.ones((1, 4)), np.zeros((1, 4)), np.zeros((1, 3, 2)), np.zeros((1, 4))),
                "observations must begin with the shape of rewards, (1, 4), got (1, 3, 2)",
            ),
        ],
    )
    def test_before_anything_is_kept(self, told, message):
        watching = Probe(QNetwork(4, 2), abs, gamma=0.9)
        rewards, ended, observations, actions = told
        with refuses(ValueError, message):
            watching.saw(rewards, ended, observations=observations, actions=actions)
        watching.saw([1.0, 2.0], [False, True])
        assert watching._episodes().rewards.tolist() == [[1.0], [2.0]]


class TestProbeRefuses:
    """What a call lacks is said at once; what a network cannot do is a reason."""

    def test_settings(self):
        net = QNetwork(3, 2)
        with refuses(TypeError, "net must be a torch.nn.Module, got int"):
            Probe(3, abs, gamma=0.9)
        with refuses(TypeError, "others[0] must be a torch.nn.Module, got int"):
            Probe(net, abs, gamma=0.9, others=[3])
        with refuses(TypeError, "targets must be a function, got int"):
            Probe(net, 3, gamma=0.9)
        with refuses(ValueError, "gamma must be in [0, 1], got 2"):
            Probe(net, abs, gamma=2)

    def test_batches(self, rng):
        watching, batch = watch(QNetwork(3, 2), rng), transitions(rng)
        with refuses(
            TypeError,
            "batch must have observations, actions, next_observations, dones, rewards, this dict has no dones",
        ):
            watching({name: part for name, part in batch.items() if name != "dones"}, step=0)
        with refuses(ValueError, "batch must have as many actions as observations, 12, got 11"):
            watching(batch | {"actions": batch["actions"][:11]}, step=0)
        with refuses(ValueError, "share must be in (0, 1], got 0"):
            watching(batch, step=0, share=0)
        assert watching.history.empty

    def test_told(self, rng):
        watching = watch(QNetwork(3, 2), rng)
        with refuses(ValueError, "terminated must have the shape of rewards, (2,), got (1,)"):
            watching.saw([1.0, 2.0], [False])
        with refuses(ValueError, "rewards must hold at least one reward"):
            watching.saw([], [])

    @pytest.mark.parametrize("where", ["rewards", "observations"])
    def test_told_of_a_nan(self, where, rng):
        """The loop goes on, and the record says where the first of them stands; the other rewards still count."""
        watching = watch(QNetwork(3, 2), rng)
        told = {"rewards": np.ones(3), "observations": np.zeros((3, 3), dtype=np.float32)}
        told[where][1] = np.nan
        watching.saw(told["rewards"], [False] * 3, observations=told["observations"], actions=np.zeros(3, dtype=int))
        record = watching(transitions(rng), step=0)
        assert record["not_finite"] == where and np.isfinite(record["possible_high"])
        assert watching(transitions(rng), step=1)["not_finite"] == where

    def test_the_loop_goes_on(self, rng, caplog):
        batch = transitions(rng)
        watching = Probe(QNetwork(3, 2), lambda batch: torch.zeros(3), gamma=0.9)
        for step in range(2):
            record = watching(batch, step=step)
        said = "the values: ValueError: targets must return one number for each of 12 pairs, got 3"
        assert record["reason"] == said and np.isnan(record["max_q"])
        assert [entry.getMessage() for entry in caplog.records] == [f"step 0: not measured, {said}"]

    def test_lost(self, rng):
        net, batch = QNetwork(3, 2), transitions(rng)
        watching = watch(net, rng)
        watching(batch, step=0)
        with torch.no_grad():
            net.three.bias[0] = np.nan
        watching.after()
        assert watching.history["status"].tolist() == ["diverged"]
        record = watching(batch, step=1)
        assert (record["verdict"], record["alarm"], record["status"]) == ("not finite", True, "diverged")

    def test_a_network_that_returns_something_else(self, rng):
        """Pairs of critics, quantiles, a flat answer: the sentence names what takes the values out."""
        said = "give values=, a function values(net, observations"
        batch = transitions(rng, discrete=False)
        zeros = lambda batch: torch.zeros(12)  # noqa: E731
        record = Probe(Twins(4), zeros, gamma=0.9)(batch, step=0)
        assert record["reason"] == (
            "the values: TypeError: the network must return a tensor of shape (n,) or (n, 1), got tuple: "
            f"{said}, actions) that takes the values from it"
        )
        joined = Probe(Twins(4), zeros, gamma=0.9, values=lambda net, *given: torch.cat(net(*given), dim=1))
        assert "(n,) or (n, 1), got shape (12, 2): give values=" in joined(batch, step=0)["reason"]
        quantiles = nn.Sequential(nn.Linear(3, 8), nn.Unflatten(1, (2, 4)))
        for net, got in ((quantiles, "(12, 2, 4)"), (nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), "(12,)")):
            record = Probe(net, zeros, gamma=0.9)(transitions(rng), step=0)
            assert f"of shape (n, n_actions), got shape {got}: {said}) that takes" in record["reason"]
        means = Probe(quantiles, zeros, gamma=0.9, values=lambda net, obs: net(obs).mean(dim=2))
        assert means(transitions(rng), step=0)["reason"] == ""
