"""What points at a cause: each question put to a network that has the fault, and to one that has not."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from divergence_notes import evidence

GAMMA = 0.9


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))


class TestTargetCoupling:
    """How far targets move with the network."""

    def asked(self, after):
        net, rng = network(), torch.Generator().manual_seed(1)
        observations, following = torch.randn(2, 64, 3, generator=rng)
        target = copy.deepcopy(net)
        with torch.no_grad():
            target[2].bias += 1
        values = lambda: net(observations)[:, 0]  # noqa: E731
        return evidence.coupling(net, values, lambda: 1 + GAMMA * after(net, target, following))

    def test_none_with_a_target_network(self):
        assert self.asked(lambda net, target, o: target(o).max(dim=1).values) == 0

    def test_about_gamma_without_one(self):
        assert 0.6 < self.asked(lambda net, target, o: net(o).max(dim=1).values) < 1.3

    def test_hardly_any_where_only_the_action_is_the_networks(self):
        choose = lambda net, target, o: target(o).gather(1, net(o).argmax(dim=1)[:, None])[:, 0]  # noqa: E731
        assert self.asked(choose) < 0.1

    def test_proportional_to_the_share_of_values_in_the_target(self):
        net, x = network(), torch.randn(32, 3, generator=torch.Generator().manual_seed(1))
        values = lambda: net(x)[:, 0]  # noqa: E731
        assert evidence.coupling(net, values, lambda: 3 - 0.5 * values()) == pytest.approx(0.5, rel=1e-4)

    def test_nothing_to_say_of_values_that_do_not_move(self):
        assert np.isnan(evidence.coupling(network(), lambda: torch.zeros(3), lambda: torch.zeros(3)))

    @pytest.mark.parametrize("drawn", [0.0, 1.0])
    def test_nothing_to_say_of_targets_that_move_by_themselves(self, drawn):
        rng = torch.Generator().manual_seed(0)
        moving = self.asked(lambda net, target, o: net(o).amax(1) + drawn * torch.randn(64, generator=rng))
        assert np.isnan(moving) if drawn else moving > 0.6

    @pytest.mark.parametrize("trained", [False, True])
    def test_of_a_part_that_both_share_only_what_is_trained_counts(self, trained):
        shared, rng = nn.Linear(3, 16).requires_grad_(trained), torch.Generator().manual_seed(1)
        net, target = (nn.Sequential(shared, nn.ReLU(), nn.Linear(16, 2)) for _ in range(2))
        x, y = torch.randn(2, 64, 3, generator=rng)
        found = evidence.coupling(net, lambda: net(x)[:, 0], lambda: GAMMA * target(y).amax(1))
        assert (found > 0.1) == trained and (found == 0) != trained

    def test_the_default_device_need_not_be_that_of_the_network(self):
        net, x = network(), torch.ones(1, 3)
        before = net(x)
        with torch.device("meta"), evidence.nudged(net):
            assert not torch.equal(net(x), before)

    @pytest.mark.parametrize("fails", [False, True])
    def test_parameters_are_put_back(self, fails):
        net = network()
        nn.init.zeros_(net[2].bias)
        before, x = copy.deepcopy(net.state_dict()), torch.ones(1, 3)
        loss = net(x).square().sum()  # its graph is run back through afterwards
        moved = []

        def values():
            moved.append(net(x)[0].clone())
            if fails and len(moved) > 2:
                raise OSError
            return moved[-1]

        if fails:
            with pytest.raises(OSError):
                evidence.coupling(net, values, lambda: torch.zeros(2))
        else:
            evidence.coupling(net, values, lambda: torch.zeros(2))
        assert not torch.equal(moved[0], moved[-1])
        assert all(torch.equal(p, before[name]) for name, p in net.state_dict().items())
        loss.backward()

    def test_no_number_is_drawn(self):
        state = torch.get_rng_state()
        with evidence.nudged(network()):
            pass
        torch.manual_seed(0)
        before = torch.get_rng_state()
        net = network()
        after = torch.get_rng_state()
        with evidence.nudged(net):
            assert torch.equal(torch.get_rng_state(), after)
        assert not torch.equal(before, after)
        torch.set_rng_state(state)


class Dueling(nn.Module):
    """A head of values and advantages; the mean is over the actions, or by mistake over everything."""

    def __init__(self, right):
        super().__init__()
        torch.manual_seed(0)
        self.value, self.advantage, self.right = nn.Linear(3, 1), nn.Linear(3, 2), right

    def forward(self, x):
        advantage = self.advantage(x)
        mean = advantage.mean(dim=1, keepdim=True) if self.right else advantage.mean()
        return self.value(x) + advantage - mean


@pytest.mark.parametrize("right", [True, False])
def test_batch_dependence(right):
    net, x = Dueling(right), torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    found = evidence.batch_dependence(lambda k: net(x[:k]), n=40)
    together, alone = net(x)[:8].detach(), net(x[:8]).detach()
    assert found == pytest.approx(float((together - alone).abs().max() / together.abs().max()), rel=1e-5)
    assert found < 1e-5 if right else found > 0.02
    assert np.isnan(evidence.batch_dependence(lambda k: torch.zeros(k), n=40))


def test_batch_dependence_of_a_small_batch():
    """Half of a batch of two is one, which still differs."""
    net, x = Dueling(False), torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    assert evidence.batch_dependence(lambda k: net(x[:k]), n=2) > 0.02


def test_first_not_finite():
    fine, bad = np.zeros(3), torch.tensor([0.0, np.inf])
    assert evidence.first_not_finite([("a", fine), ("b", [torch.zeros(2), bad]), ("c", bad)]) == "b"
    assert evidence.first_not_finite([("a", np.array([1, 2], dtype=np.uint8)), ("b", [])]) == ""


def ended(dones, **more):
    """Return targets of eight transitions, and what `beyond_ends` finds in them."""
    net, extra = network(), nn.Linear(3, 1)
    g = torch.Generator().manual_seed(1)
    batch = {"observations": torch.randn(8, 3, generator=g), "next_observations": torch.randn(8, 3, generator=g)}
    batch |= {"rewards": torch.randn(8, generator=g), "dones": torch.tensor(dones), "over": torch.tensor(dones)}

    def find(formula):
        def targets(**parts):
            given = batch | parts
            after = net(given["next_observations"]).max(dim=1).values
            return formula(given, after, net, extra)

        exchanged = batch["next_observations"].roll(1, 0)
        ends = batch["dones"] > 0
        return evidence.beyond_ends(targets, ends, exchanged=exchanged, going=torch.zeros(8), **more)

    return find


DONES = [0.0, 1, 0, 0, 1, 1, 0, 0]
SOUND = {
    "as they should be": lambda b, v, net, extra: b["rewards"] + GAMMA * (1 - b["dones"]) * v,
    "by a choice": lambda b, v, net, extra: b["rewards"] + torch.where(b["dones"] > 0, torch.zeros(8), GAMMA * v),
    "ends by another name": lambda b, v, net, extra: b["rewards"] + GAMMA * (1 - b["over"]) * v,
    "several rewards": lambda b, v, net, extra: 3 * b["rewards"] + 2 + GAMMA**3 * (1 - b["dones"]) * v,
    "normalised": lambda b, v, net, extra: (b["rewards"] + GAMMA * (1 - b["dones"]) * (7 * v + 2) - 2) / 7,
    "entropy": lambda b, v, net, extra: (
        b["rewards"] + GAMMA * (1 - b["dones"]) * (v - extra(b["next_observations"])[:, 0])
    ),
    "a term of what was done": lambda b, v, net, extra: (
        b["rewards"] + net(b["observations"]).log_softmax(1)[:, 0] + GAMMA * (1 - b["dones"]) * v
    ),
    "a reward made up": lambda b, v, net, extra: b["next_observations"].sum(1) + GAMMA * (1 - b["dones"]) * v,
    "a reward made up, ends by another name": lambda b, v, net, extra: (
        b["next_observations"].sum(1) + GAMMA * (1 - b["over"]) * v
    ),
    "a reward of a network": lambda b, v, net, extra: (
        b["rewards"] + extra(b["next_observations"])[:, 0] + GAMMA * (1 - b["dones"]) * v
    ),
}
BROKEN = {
    "forgotten": lambda b, v, net, extra: b["rewards"] + GAMMA * v,
    "turned round": lambda b, v, net, extra: b["rewards"] + GAMMA * b["dones"] * v,
    "a number and no factor": lambda b, v, net, extra: (b["rewards"] + GAMMA * v)[:, None],
}


class TestBeyondEnds:
    """Targets that go on at an end, and others that are no plain rewards there and rightly so."""

    @pytest.mark.parametrize("kind", SOUND)
    def test_sound(self, kind):
        assert ended(DONES)(SOUND[kind]) == 0

    @pytest.mark.parametrize("kind", BROKEN)
    def test_broken(self, kind):
        assert ended(DONES)(BROKEN[kind]) == 1

    def test_share(self):
        """Two of the three ends are cut off as they should be."""
        cut = torch.tensor([0.0, 1, 0, 0, 1, 0, 0, 0])
        found = ended(DONES)(lambda b, v, net, extra: b["rewards"] + GAMMA * (1 - cut) * v)
        assert found == pytest.approx(1 / 3)

    def test_nothing_to_say(self):
        assert np.isnan(ended(DONES)(lambda b, v, net, extra: b["rewards"] + torch.rand(8)))
        assert np.isnan(ended(DONES)(lambda b, v, net, extra: b["rewards"] * np.nan))

    def test_networks_are_put_back(self):
        nets = []
        ended(DONES)(lambda b, v, net, extra: nets.append(net) or b["rewards"] + GAMMA * v)
        assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), network().parameters(), strict=True))
        assert not nn.modules.module._global_forward_pre_hooks

    def test_called(self):
        net, other = network(), network()
        assert evidence.called(lambda: net(torch.zeros(1, 3))) == [net, *net] and other not in evidence.called(int)


class TestLengths:
    """Episodes that all end alike look like those of a time limit."""

    def test_by_hand(self):
        over = np.array([[0, 1], [0, 0], [1, 0], [0, 1], [0, 0], [1, 1]], dtype=bool)
        cut = np.zeros((6, 2), dtype=bool)
        assert evidence.lengths(over, cut, whole=True) == (3, pytest.approx(3 / 5))  # 3, 3 and 1, 3, 2
        assert evidence.lengths(over, cut, whole=False) == (3, pytest.approx(2 / 3))  # 3 and 3, 2

    def test_a_cut_is_no_end(self):
        over = np.tile([[False], [True]], (4, 1))
        cut = over.copy()
        assert evidence.lengths(over, cut, whole=True)[0] == 2
        assert np.isnan(evidence.lengths(over, cut, whole=True)[1])
        assert evidence.lengths(over, cut & False, whole=True) == (2, 1.0)

    def test_none(self):
        longest, share = evidence.lengths(np.zeros((4, 1), dtype=bool), np.zeros((4, 1), dtype=bool), whole=True)
        assert longest == 0 and np.isnan(share)
