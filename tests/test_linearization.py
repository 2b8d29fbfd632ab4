"""The kernel without the Jacobian: the same numbers where that is allowed, and never tried where it is not."""

import math
import re
import warnings

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode

from divergence_notes import _layers, _passes, networks, ntk

STACKS = {
    "relu": lambda: nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1)),
    "sin": lambda: nn.Sequential(nn.Linear(5, 16), networks.Sine(), nn.Linear(16, 1)),
    "no bias": lambda: nn.Sequential(nn.Linear(5, 16, bias=False), nn.Tanh(), nn.Linear(16, 1, bias=False)),
    "bottleneck": lambda: nn.Sequential(nn.Linear(5, 1), nn.Tanh(), nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)),
    "one layer": lambda: nn.Sequential(nn.Linear(5, 1)),
}


class Residual(nn.Module):
    """Linear layers with a way round one of them, and a function that is no module."""

    def __init__(self):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return self.last(hidden + torch.tanh(self.middle(hidden)))


class Reused(nn.Module):
    """One layer that is passed twice."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(5, 5), nn.Linear(5, 1)

    def forward(self, x):
        return self.last(torch.tanh(self.layer(torch.tanh(self.layer(x)))))


class Bypassed(nn.Module):
    """A layer whose weights are used without a call of the layer."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 1)

    def forward(self, x):
        return self.last(torch.tanh(nn.functional.linear(x, self.first.weight, self.first.bias)))


class Decoder(nn.Module):
    """A weight that is used by its layer, and once more by hand."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(5, 8), nn.Linear(5, 1)

    def forward(self, x):
        return self.last(torch.tanh(self.layer(x)) @ self.layer.weight)


class Centred(nn.Module):
    """Rows that see each other: the mean of the batch is taken away."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 1)

    def forward(self, x):
        hidden = self.first(x)
        return self.last(torch.tanh(hidden - hidden.mean(dim=0)))


def weight_norm():
    """Return a network whose first weight is made of two parameters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it old, and it is met
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(5, 8)), nn.Tanh(), nn.Linear(8, 1))


def frozen_parameter(kind):
    """Return a network one of whose parameters does not move."""
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))
    getattr(net[0], kind).requires_grad_(False)
    return net


def tied():
    """Return two layers that own one weight."""
    net = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 1))
    net[2].weight = net[0].weight
    return net


class Tokens(nn.Module):
    """A layer on each of five tokens; first the rows or, in vain, first the tokens."""

    def __init__(self, rows_first):
        super().__init__()
        self.embed, self.last, self.rows_first = nn.Linear(1, 4), nn.Linear(20, 1), rows_first

    def forward(self, x):
        if self.rows_first:
            hidden = self.embed(x[:, :, None])
        else:
            hidden = self.embed(x.T[:, :, None]).transpose(0, 1)
        return self.last(torch.tanh(hidden).flatten(1))


class Learned(nn.Module):
    """A scale that is a layer of one's own, whose weight is used once."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return x.sin() * self.scale


class Twice(nn.Module):
    """A convolution that is passed twice."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Conv1d(1, 1, 3, padding=1), nn.Linear(5, 1)

    def forward(self, x):
        return self.last(torch.tanh(self.layer(torch.tanh(self.layer(x[:, None])))).flatten(1))


def spectral_norm():
    """Return a network with a convolution whose weight is computed from another."""
    conv = nn.utils.parametrizations.spectral_norm(nn.Conv1d(1, 3, 2))
    return nn.Sequential(nn.Unflatten(1, (1, 5)), conv, nn.ReLU(), nn.Flatten(), nn.Linear(12, 1)).eval()


def shared_kernel():
    """Return two convolutions that own one weight."""
    first, second = nn.Conv1d(1, 1, 3, padding=1), nn.Conv1d(1, 1, 3, padding=1)
    second.weight = first.weight
    return nn.Sequential(nn.Unflatten(1, (1, 5)), first, nn.Tanh(), second, nn.Flatten(), nn.Linear(5, 1))


LAYERS = {
    "layer norm": lambda: nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 1)
    ),
    "image": lambda: nn.Sequential(
        nn.Linear(5, 36), nn.Unflatten(1, (1, 6, 6)), nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(32, 1)
    ),
    "transposed convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 5)), nn.ConvTranspose1d(1, 2, 2, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(20, 1)
    ),
    "batch norm at rest": lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)).eval(),
    "batch norm of images at rest": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 3, 2), nn.BatchNorm1d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 1)
    ).eval(),
    "a layer of one's own": lambda: nn.Sequential(nn.Linear(5, 8), Learned(), nn.Linear(8, 1)),
    "layers on each token": lambda: Tokens(rows_first=True),
}

OTHERS = {
    "tokens, then rows": lambda: Tokens(rows_first=False),
    "a convolution twice": Twice,
    "spectral norm of a convolution": spectral_norm,
    "two convolutions with one weight": shared_kernel,
    "old weight norm": weight_norm,
    "called from outside": Bypassed,
    "reused, with a layer norm": lambda: nn.Sequential(Reused(), nn.LayerNorm(1), nn.Linear(1, 1)),
    "reused": Reused,
    "tied": tied,
    "by its layer and by hand": Decoder,
}

FROZEN = {
    "first layer": lambda: nn.Sequential(nn.Linear(5, 8).requires_grad_(False), nn.Tanh(), nn.Linear(8, 1)),
    "middle layer": lambda: nn.Sequential(
        nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8).requires_grad_(False), nn.Tanh(), nn.Linear(8, 1)
    ),
    "a bias": lambda: frozen_parameter("bias"),
    "a weight": lambda: frozen_parameter("weight"),
}


def made(build, dtype=torch.float64):
    """Return a network with weights of its own seed, and inputs."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)  # a spectral norm draws more than its parameters
        net = build().to(dtype)
    with torch.no_grad():
        for p in net.parameters():
            p.uniform_(-0.8, 0.8, generator=generator)
    return (
        net,
        torch.randn(13, 5, generator=generator, dtype=dtype),
        torch.randn(7, 5, generator=generator, dtype=dtype),
    )


def one_by_one(net, x, outputs=None):
    """Return the Jacobian in the parameters that move, one backward pass at a time."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    rows = []
    for k, row in enumerate(x):
        value = net(row[None])[0, 0 if outputs is None else outputs[k]]
        slopes = torch.autograd.grad(value, parameters, materialize_grads=True)
        rows.append(torch.cat([slope.ravel() for slope in slopes]))
    return torch.stack(rows)


class Backwards(nn.Module):
    """Layers that run in another order than they are listed, and one whose output goes nowhere."""

    def __init__(self):
        super().__init__()
        self.last, self.idle, self.first = nn.Linear(8, 1), nn.Linear(5, 3), nn.Linear(5, 8)

    def forward(self, x):
        self.idle(x)
        return self.last(torch.tanh(self.first(x)))


LAYERWISE = {
    **STACKS,
    "residual": Residual,
    "backwards": Backwards,
    "rectifier in place": lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(inplace=True), nn.Linear(8, 1)),
    **LAYERS,
    **FROZEN,
}


@pytest.mark.parametrize("name", [*LAYERWISE, *OTHERS])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_same_numbers(name, dtype, bound):
    net, x, y = made({**LAYERWISE, **OTHERS}[name], dtype)
    J, H = one_by_one(net, x).double(), one_by_one(net, y).double()
    for found, want in ((ntk.gram(net, x, tile=4), J @ J.T), (ntk.gram(net, x, y, tile=4), J @ H.T)):
        assert found.dtype == dtype and found.shape == want.shape and not found.requires_grad
        assert (found.double() - want).abs().max() <= bound * want.abs().max()


@pytest.mark.parametrize("name", LAYERWISE)
def test_the_jacobian_is_not_formed(name, monkeypatch):
    net, x, y = made(LAYERWISE[name])
    monkeypatch.setattr(_passes, "row_gradients", lambda *_: pytest.fail("formed the Jacobian"))
    square = ntk.gram(net, x, tile=4)
    assert torch.equal(square, square.T)
    assert ntk.gram(net, x, y).shape == (13, 7)
    assert all(p.grad is None for p in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("name", OTHERS)
def test_where_layers_are_not_all_there_is_it_is(name, monkeypatch):
    """Negative control: these would come out wrong layer by layer, and are not tried."""
    net, x, _ = made(OTHERS[name])
    called = []
    honest = _passes.row_gradients
    monkeypatch.setattr(_passes, "row_gradients", lambda *given: called.append(1) or honest(*given))
    ntk.gram(net, x)
    assert called


class TestOutputs:
    """A network with several outputs: one is chosen, for all rows or for each."""

    ACTIONS, OTHER_ACTIONS = torch.tensor([0, 2, 1, 2, 2, 0, 1, 1, 0, 2, 0, 1, 2]), torch.tensor([2, 0, 1, 1, 2, 0, 0])

    @pytest.fixture(params=["layers", "layer norm"])
    def case(self, request):
        norm = [nn.LayerNorm(8)] if request.param == "layer norm" else []
        return made(lambda: nn.Sequential(nn.Linear(5, 8), *norm, nn.Tanh(), nn.Linear(8, 3)))

    def test_an_action_for_each_row(self, case):
        net, x, y = case
        J, H = one_by_one(net, x, self.ACTIONS), one_by_one(net, y, self.OTHER_ACTIONS)
        torch.testing.assert_close(ntk.gram(net, x, outputs=self.ACTIONS), J @ J.T, rtol=1e-12, atol=1e-12)
        wide = ntk.gram(net, x, y, outputs=self.ACTIONS, y_outputs=self.OTHER_ACTIONS)
        torch.testing.assert_close(wide, J @ H.T, rtol=1e-12, atol=1e-12)

    def test_one_output_for_all(self, case):
        net, x, y = case
        J, H = one_by_one(net, x, [1] * 13), one_by_one(net, y, [1] * 7)
        torch.testing.assert_close(ntk.gram(net, x, y, outputs=1), J @ H.T, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ntk.gram(net, x, y, outputs=0, y_outputs=1), one_by_one(net, x, [0] * 13) @ H.T)

    @pytest.mark.parametrize(
        ("outputs", "error", "message"),
        [
            (None, ValueError, "outputs must say which of the 3 outputs of net is meant"),
            (3, ValueError, "outputs must hold indices in [0, 2]: outputs[0] is 3"),
            (-1, ValueError, "outputs must hold indices in [0, 2]: outputs[0] is -1"),
            (torch.tensor([0, 1]), ValueError, "outputs must have shape (13,), got (2,)"),
            (torch.zeros(13), TypeError, "outputs must be an array of integers, got dtype float32"),
        ],
    )
    def test_refuses(self, case, outputs, error, message):
        with pytest.raises(error, match="^" + re.escape(message) + "$"):
            ntk.gram(case[0], case[1], outputs=outputs)

    def test_columns_need_a_choice_of_their_own(self, case):
        with pytest.raises(ValueError, match=r"^y_outputs must say which of the 3 outputs"):
            ntk.gram(*case, outputs=self.ACTIONS)


@pytest.mark.parametrize("name", [*LAYERWISE, *OTHERS])
class TestLinearize:
    """One pass for values, kernel J J^T and pulled back weights J^T w; J itself from one backward pass for each row."""

    def test_values(self, name):
        net, x, _ = made({**LAYERWISE, **OTHERS}[name])
        linear = ntk.linearize(net, x)
        want = torch.tensor([net(row[None]).item() for row in x], dtype=x.dtype)
        torch.testing.assert_close(linear.values, want, rtol=1e-12, atol=1e-12)
        assert not linear.values.requires_grad

    def test_kernel(self, name):
        net, x, _ = made({**LAYERWISE, **OTHERS}[name])
        J, linear = one_by_one(net, x), ntk.linearize(net, x)
        torch.testing.assert_close(linear.gram(), J @ J.T, rtol=1e-11, atol=1e-11)
        for tile in (4, 384):
            assert torch.equal(linear.gram(tile=tile), ntk.gram(net, x, tile=tile))

    def test_pull_back(self, name):
        """In the shapes and in the order of the parameters that move; what they do not reach is zero."""
        net, x, _ = made({**LAYERWISE, **OTHERS}[name])
        J, w = one_by_one(net, x), torch.linspace(-1, 2, 13, dtype=x.dtype)
        found = ntk.linearize(net, x).pull_back(w)
        moving = [p for p in net.parameters() if p.requires_grad]
        assert [slope.shape for slope in found] == [p.shape for p in moving]
        flat = torch.cat([slope.ravel() for slope in found])
        want = sum(weight * row for weight, row in zip(w.tolist(), J, strict=True))
        torch.testing.assert_close(flat, want, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(flat, ntk.per_sample_gradients(net, x).T @ w, rtol=1e-11, atol=1e-11)
        assert want.norm() > 1  # not vacuous

    def test_one_step_moves_as_it_says(self, name):
        """Finite differences, one parameter after another being moved by what was pulled back."""
        net, x, _ = made({**LAYERWISE, **OTHERS}[name])
        w, size = torch.linspace(-1, 2, 13, dtype=x.dtype), 1e-6
        linear = ntk.linearize(net, x)
        slopes, want = linear.pull_back(w), linear.gram() @ w
        before = net(x)[:, 0].detach()
        with torch.no_grad():
            for p, slope in zip([p for p in net.parameters() if p.requires_grad], slopes, strict=True):
                p += size * slope
            change = (net(x)[:, 0] - before) / size
        torch.testing.assert_close(change, want, rtol=1e-3, atol=1e-3 * want.abs().max().item())

    @pytest.mark.parametrize("n", [0, 1, 6, 13])
    def test_head(self, name, n):
        net, x, _ = made({**LAYERWISE, **OTHERS}[name])
        J, w = one_by_one(net, x)[:n], torch.linspace(-1, 2, 13, dtype=x.dtype)[:n]
        linear = ntk.linearize(net, x)
        head = linear.head(n)
        assert torch.equal(head.values, linear.values[:n])
        torch.testing.assert_close(head.gram(tile=4), J @ J.T, rtol=1e-11, atol=1e-11)
        flat = torch.cat([slope.ravel() for slope in head.pull_back(w)])
        torch.testing.assert_close(flat, J.T @ w, rtol=1e-11, atol=1e-11)
        assert len(linear.values) == 13 and linear.gram().shape == (13, 13)  # as it was

    def test_unchecked(self, name):
        net, x, _ = made({**LAYERWISE, **OTHERS}[name])
        w = torch.linspace(-1, 2, 13, dtype=x.dtype)
        checked, quick = ntk.linearize(net, x), ntk.linearize(net, x, check=False)
        assert torch.equal(checked.values, quick.values)
        assert torch.equal(checked.gram(), quick.gram())
        assert all(torch.equal(a, b) for a, b in zip(checked.pull_back(w), quick.pull_back(w), strict=True))

    def test_nothing_is_left_behind(self, name):
        """No hook, no gradient, no other parameters, and the same again."""
        net, x, _ = made({**LAYERWISE, **OTHERS}[name])
        kept = [p.detach().clone() for p in net.parameters()]
        first = ntk.linearize(net, x).gram()
        assert torch.equal(first, ntk.linearize(net, x).gram())
        assert all(p.grad is None for p in net.parameters())
        assert not any(module._forward_hooks for module in net.modules())
        assert all(torch.equal(p, q) for p, q in zip(net.parameters(), kept, strict=True))


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_parameter_is_left_out(name):
    """Its place is not filled by another: each slope is that of its own parameter."""
    net, x, _ = made(FROZEN[name])
    w = torch.linspace(-1, 2, 13, dtype=x.dtype)
    found = ntk.linearize(net, x).pull_back(w)
    moving = [p for p in net.parameters() if p.requires_grad]
    assert len(found) == len(moving) < len(list(net.parameters()))
    want = torch.autograd.grad((w * net(x)[:, 0]).sum(), moving)
    for slope, other in zip(found, want, strict=True):
        torch.testing.assert_close(slope, other, rtol=1e-11, atol=1e-11)


def test_what_is_not_reached_is_zero():
    net, x, _ = made(Backwards)
    names = [name for name, _ in net.named_parameters()]
    found = dict(zip(names, ntk.linearize(net, x).pull_back(torch.ones(13).double()), strict=True))
    assert names[0].startswith("last") and names[-1].startswith("first")
    assert torch.equal(found["idle.weight"], torch.zeros(3, 5).double()) and not found["idle.bias"].any()
    assert found["last.bias"].item() == pytest.approx(13) and found["first.weight"].any()


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("outputs", [0, 2, TestOutputs.ACTIONS])
def test_linearize_at_the_chosen_outputs(norm, outputs):
    net, x, _ = made(
        lambda: nn.Sequential(nn.Linear(5, 8), *[nn.LayerNorm(8)] * norm, nn.Tanh(), nn.Linear(8, 3)),
    )
    chosen = [outputs] * 13 if isinstance(outputs, int) else outputs.tolist()
    J, w = one_by_one(net, x, chosen), torch.linspace(-1, 2, 13, dtype=x.dtype)
    linear = ntk.linearize(net, x, outputs=outputs)
    want = torch.stack([net(row[None])[0, k] for row, k in zip(x, chosen, strict=True)])
    torch.testing.assert_close(linear.values, want.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(linear.gram(), J @ J.T, rtol=1e-11, atol=1e-11)
    flat = torch.cat([slope.ravel() for slope in linear.pull_back(w)])
    torch.testing.assert_close(flat, J.T @ w, rtol=1e-11, atol=1e-11)
    other = one_by_one(net, x, [(k + 1) % 3 for k in chosen])
    assert not torch.allclose(linear.gram(), other @ other.T, rtol=0.01)  # the wrong outputs are told apart


class Reversed(nn.Module):
    """Rows that stand in another order inside: each is on its own, and no rule of a layer finds it."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 1)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x.flip(0))).flip(0))


def test_linearize_refuses():
    """As `gram` does; unchecked it does not look, and what it returns is wrong."""
    net, x, _ = made(Reversed)
    with pytest.raises(ValueError, match=r"^net must"):
        ntk.linearize(net, x)
    with pytest.raises(ValueError, match=r"^net must"):
        ntk.linearize(net, x, check=True)
    J = one_by_one(net, x)
    assert not torch.allclose(ntk.linearize(net, x, check=False).gram(), J @ J.T, rtol=0.01)


@pytest.mark.parametrize("build", [Reused, tied, Decoder, Bypassed])
def test_unchecked_takes_the_same_way(build):
    """A weight that is used twice is seen in the graph, and needs no check."""
    net, x, _ = made(build)
    J = one_by_one(net, x)
    torch.testing.assert_close(ntk.linearize(net, x, check=False).gram(), J @ J.T)


def test_linearize_refuses_outputs():
    net, x, _ = made(lambda: nn.Linear(5, 3))
    for check in (True, False):
        with pytest.raises(ValueError, match=r"^outputs must say which of the 3 outputs of net is meant$"):
            ntk.linearize(net, x, check=check)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)),
            "net must treat each row on its own, the same each time: '1' (BatchNorm1d) is training, call net.eval()",
        ),
        (
            lambda: nn.Sequential(nn.Linear(5, 8), nn.Dropout(), nn.Linear(8, 1)),
            "net must treat each row on its own, the same each time: '1' (Dropout) is training, call net.eval()",
        ),
        (
            lambda: nn.Sequential(nn.Linear(5, 1)).requires_grad_(False),
            "net must have a parameter that requires a gradient: no step moves this one",
        ),
    ],
    ids=["batch norm", "dropout", "frozen"],
)
def test_what_layers_cannot_say_is_refused(build, message):
    net, x, _ = made(build)
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        ntk.gram(net, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_no_rule_foresees_is_refused(dtype):
    """The message offers the gradients of the rows alone, and they are right; where rows see each other it does not."""
    net, x, _ = made(Reversed, dtype)
    with pytest.raises(
        ValueError, match=r"^net must treat .* J = per_sample_gradients\(net, x\) may have it: J @ J.T$"
    ):
        ntk.gram(net, x)
    torch.testing.assert_close(ntk.per_sample_gradients(net, x), one_by_one(net, x))
    net, x, _ = made(Centred, dtype)
    with pytest.raises(ValueError, match=r"^net must treat .* look for what runs over the batch"):
        ntk.gram(net, x)


class Forked(nn.Module):
    """Layers that run in another order where the first input is positive."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.last = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 1)

    def forward(self, x):
        first, second = (self.one, self.two) if bool((x[:, 0] > 0).all()) else (self.two, self.one)
        return self.last(torch.tanh(second(torch.tanh(first(x)))))


def test_rows_and_columns_that_go_another_way():
    net, x, y = made(Forked)
    x[:, 0], y[:, 0] = x[:, 0].abs(), -y[:, 0].abs()
    J, H = one_by_one(net, x), one_by_one(net, y)
    torch.testing.assert_close(ntk.gram(net, x, y), J @ H.T, rtol=1e-12, atol=1e-12)


def test_a_row_on_a_kink_is_no_complaint():
    """The rounding of a batch may switch a rectifier that a row alone leaves off."""
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    x = torch.zeros(3, 5, dtype=torch.float64)
    with torch.no_grad():
        net[0].bias.zero_()
    assert ntk.gram(net, x).shape == (3, 3)


def test_a_network_gone_wild_has_a_kernel_of_nan():
    """Divergence is a result: values that are not finite pass."""
    net, x, _ = made(STACKS["relu"])
    with torch.no_grad():
        net[0].weight.fill_(torch.inf)
    assert not torch.isfinite(ntk.gram(net, x)).all()


def test_no_rows():
    net, x, y = made(STACKS["relu"])
    assert ntk.gram(net, x[:0]).shape == (0, 0)
    assert ntk.gram(net, x[:0], y).shape == (0, 7)


@pytest.mark.parametrize(("n", "m"), [(700, None), (700, 900)])
def test_nothing_is_larger_than_the_result(n, m):
    """In particular no tensor of n by n_parameters is made."""
    net, _, _ = made(lambda: nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)))
    x, y = torch.randn(n, 5).double(), None if m is None else torch.randn(m, 5).double()
    largest = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest.append(out.numel())
            return out

    with Watch():
        ntk.gram(net, x, y, tile=128)
    assert max(largest) == n * (m or n)


@pytest.mark.parametrize("tile", [1, 5, 13, 512])
def test_tiles_do_not_matter(tile):
    net, x, y = made(STACKS["relu"])
    torch.testing.assert_close(ntk.gram(net, x, tile=tile), ntk.gram(net, x), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(ntk.gram(net, x, y, tile=tile), ntk.gram(net, x, y), rtol=1e-13, atol=1e-13)


def test_tiles_of_nothing_are_refused():
    with pytest.raises(ValueError, match=re.escape("tile must be in [1, inf), got 0")):
        ntk.gram(nn.Sequential(nn.Linear(5, 1)), torch.zeros(3, 5), tile=0)


def test_where_gradients_are_off():
    """The caller's no_grad does not reach inside."""
    net = networks.MLP([3, 5, 1], activation="tanh", generator=torch.Generator().manual_seed(0))
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        inside = ntk.gram(net, x)
    assert torch.equal(inside, ntk.gram(net, x))


class TestPlainNetworks:
    """An MLP whose rows need no check is taken without autograd: the same bits."""

    @pytest.mark.parametrize("activation", ["relu", "tanh", "sin"])
    @pytest.mark.parametrize("sizes", [(3, 1), (3, 8, 1), (3, 8, 7, 4)])
    @pytest.mark.parametrize("frozen", [(), ("0.weight",), ("0.weight", "0.bias")])
    def test_to_the_last_bit(self, activation, sizes, frozen):
        g = torch.Generator().manual_seed(0)
        net = networks.MLP(sizes, activation=activation, generator=g)
        if len(sizes) > 2:
            for name in frozen:
                net.get_parameter(name).requires_grad_(False)
        x, w = torch.randn(20, 3, generator=g), torch.randn(20, generator=g)
        outputs = torch.arange(20) % 4 if sizes[-1] == 4 else None
        slow, quick = (ntk.linearize(net, x, outputs=outputs, check=check) for check in (True, False))
        assert torch.equal(slow.values, quick.values) and torch.equal(slow.gram(), quick.gram())
        assert not quick.values.requires_grad and not quick.gram().requires_grad
        for a, b in zip(slow.pull_back(w), quick.pull_back(w), strict=True):
            assert torch.equal(a, b)

    def test_a_hook_is_heard(self):
        """A network that somebody watches, and perhaps changes, is taken as any other."""
        net = networks.MLP((3, 8, 1), activation="sin", generator=torch.Generator().manual_seed(0))
        x = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
        before = ntk.linearize(net, x, check=False).gram()
        net[1].register_forward_hook(lambda module, given, out: 2 * out)
        torch.testing.assert_close(ntk.linearize(net, x, check=False).gram(), ntk.linearize(net, x).gram())
        assert not torch.allclose(ntk.linearize(net, x, check=False).gram(), before)


CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@st.composite
def convolutions(draw):
    """Draw a network with a convolution of any kind that torch knows, and inputs that fit."""
    axes = draw(st.integers(1, 3))
    each = st.lists(st.integers(1, 3), min_size=axes, max_size=axes)
    kernel, stride, dilation = draw(each), draw(each), draw(st.lists(st.integers(1, 2), min_size=axes, max_size=axes))
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    padding = draw(
        st.one_of(st.sampled_from(["same", "valid"]), st.lists(st.integers(0, 2), min_size=axes, max_size=axes))
    )
    assume(padding != "same" or stride == [1] * axes)
    groups = draw(st.integers(1, 3))
    channels, fan_out = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))
    size = [d * (k - 1) + 1 + draw(st.integers(0, 2)) for d, k in zip(dilation, kernel, strict=True)]
    pads = [0] * axes if padding == "valid" else [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    pads = padding if isinstance(padding, list) else pads
    assume(mode == "zeros" or all(p < n for p, n in zip(pads, size, strict=True)))
    torch.manual_seed(draw(st.integers(0, 1000)))
    conv = CONVOLUTIONS[axes](
        channels,
        fan_out,
        tuple(kernel),
        stride=tuple(stride),
        padding=padding if isinstance(padding, str) else tuple(padding),
        dilation=tuple(dilation),
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=mode,
    )
    if draw(st.booleans()):
        conv.weight.data = conv.weight.data.transpose(0, 1).contiguous().transpose(0, 1)  # not in a row in memory
    for p in conv.parameters():
        p.requires_grad_(draw(st.integers(0, 3)) > 0)
    width = math.prod(size) * channels
    after = conv(torch.zeros(1, channels, *size)).numel()
    assume(width <= 200 and after <= 400)
    layers = [nn.Unflatten(1, (channels, *size)), conv, nn.Tanh(), nn.Flatten(), nn.Linear(after, 3)]
    if draw(st.booleans()):
        layers = [nn.Linear(width, width, bias=False), *layers]
    return nn.Sequential(*layers), width


class TestConvolutions:
    """The products of a convolution in closed form are those of its gradients, whatever kind it is."""

    @pytest.mark.filterwarnings("ignore:Using padding='same'")  # it is slow, says torch
    @given(
        made=convolutions(),
        n=st.sampled_from([1, 2, 5, 9]),
        dtype=st.sampled_from([torch.float64, torch.float32]),
        at_once=st.sampled_from([1, 50, 700, 2**22]),
        by_places=st.sampled_from([None, True, False]),
        seed=st.integers(0, 1000),
    )
    @settings(max_examples=150)
    def test_against_one_backward_pass_for_each_row(self, made, n, dtype, at_once, by_places, seed):
        net, width = made
        net.to(dtype)
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(n, width, generator=generator, dtype=torch.float64).to(dtype)
        y = torch.randn(4, width, generator=generator, dtype=torch.float64).to(dtype)
        outputs, others = (torch.randint(3, (k,), generator=generator) for k in (n, 4))
        J, H = one_by_one(net, x, outputs).double(), one_by_one(net, y, others).double()
        w = torch.linspace(-1, 2, n, dtype=dtype)
        bound = 1e-11 if dtype == torch.float64 else 1e-4
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_passes, "row_gradients", lambda *_: pytest.fail("formed the Jacobian"))
            patch.setattr(_layers, "AT_ONCE", at_once)
            if by_places is not None:
                patch.setattr(_layers.Shared, "by_places", by_places)
            line = ntk.linearize(net, x, outputs=outputs)
            wide = ntk.gram(net, x, y, outputs=outputs, y_outputs=others)
            found = line.gram(tile=3)
            step = torch.cat([slope.ravel() for slope in line.pull_back(w)]).double()
            lengths = line._lengths().double()
        assert torch.equal(found, found.T)
        assert (found.double() - J @ J.T).abs().max() <= bound * (J @ J.T).abs().max()
        assert (wide.double() - J @ H.T).abs().max() <= bound * J.norm(dim=1).max() * H.norm(dim=1).max()
        assert (step - J.T @ w.double()).norm() <= bound * (J.T * w.double()).norm()
        assert (line._jacobian().double() - J).abs().max() <= bound * J.abs().max()
        torch.testing.assert_close(lengths, J.norm(dim=1), rtol=max(bound, 1e-7), atol=1e-12)

    @pytest.mark.parametrize(
        ("fan_in", "fan_out", "size", "kernel", "n", "by_places"),
        [(4, 32, 84, 8, 128, False), (64, 64, 9, 3, 128, False), (64, 64, 3, 3, 128, True), (64, 64, 4, 3, 8, True)],
    )
    def test_the_cheaper_way_is_taken(self, fan_in, fan_out, size, kernel, n, by_places):
        """By counting: a weight of 64 x 64 x 3 x 3 is more than a single place of each of two rows."""
        conv = nn.Conv2d(fan_in, fan_out, kernel)
        a = torch.empty(n, fan_in, size, size, device="meta")
        b = torch.empty(n, fan_out, *[size - kernel + 1] * 2, device="meta")
        layer = _layers.Shared(conv, a, b, _layers.Geometry.of(conv))
        places, weight = (size - kernel + 1) ** 2, fan_in * fan_out * kernel**2
        forming = n * weight * places + n * n * weight
        pairing = n * n * places**2 * (fan_out + fan_in * kernel**2)
        assert layer.by_places == by_places == (pairing < forming)

    def test_few_numbers_are_formed_at_a_time(self, monkeypatch):
        """Nothing that is made has more numbers than the passes have, or than are allowed; J has 64 times as many."""
        torch.manual_seed(0)
        monkeypatch.setattr(_layers, "AT_ONCE", 2**19)
        net = nn.Sequential(
            nn.Unflatten(1, (4, 36, 36)),
            nn.Conv2d(4, 32, 8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 64),
            nn.ReLU(),
            nn.Linear(64, 4),
        )
        x, largest = torch.randn(64, 4 * 36 * 36), []

        class Sizes(TorchDispatchMode):
            def __torch_dispatch__(self, function, kinds, given=(), named=None):
                out = function(*given, **(named or {}))
                parts = out if isinstance(out, (tuple, list)) else [out]
                largest.extend(part.untyped_storage().nbytes() // 4 for part in parts if isinstance(part, torch.Tensor))
                return out

        sizes = [p.numel() for p in net.parameters()]
        with Sizes():
            K = ntk.gram(net, x, outputs=0)
        assert K.shape == (64, 64)
        assert max(largest) <= max(x.numel(), _layers.AT_ONCE)
        assert 64 * sum(sizes) > 1.5 * max(largest)
        with Sizes():
            ntk.per_sample_gradients(net, x, outputs=0)
        assert max(largest) >= 64 * sum(sizes)  # the measure sees what is formed

    @pytest.mark.parametrize("kind", [nn.Conv1d, nn.Linear])
    def test_a_layer_that_is_watched_is_taken_a_row_at_a_time(self, kind, monkeypatch):
        """A hook may change what it gives."""
        layer = kind(5, 3) if kind is nn.Linear else nn.Sequential(nn.Unflatten(1, (5, 1)), kind(5, 3, 1), nn.Flatten())
        net, x, _ = made(lambda: nn.Sequential(layer, nn.Tanh(), nn.Linear(3, 1)))
        (layer if kind is nn.Linear else layer[1]).register_forward_hook(lambda module, given, out: 3 * out)
        called, honest = [], _passes.row_gradients
        monkeypatch.setattr(_passes, "row_gradients", lambda *given: called.append(1) or honest(*given))
        J = one_by_one(net, x)
        torch.testing.assert_close(ntk.gram(net, x), J @ J.T)
        assert called


class Ensemble(nn.Module):
    """Members that share nothing, a column each."""

    def __init__(self, members=3):
        super().__init__()
        one = lambda: nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 1))  # noqa: E731
        self.members = nn.ModuleList(one() for _ in range(members))

    def forward(self, x):
        return torch.cat([member(x) for member in self.members], dim=1)


SEVERAL = {
    "an ensemble": Ensemble,
    "a trunk": lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)),
    "a trunk that is checked": lambda: nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 3)),
    "a tied trunk": lambda: nn.Sequential(tied(), nn.Linear(1, 3)),
    "one output": STACKS["relu"],
    "dead": lambda: nn.Sequential(
        nn.Linear(5, 2).requires_grad_(False), nn.ReLU(), nn.Linear(2, 2), nn.Threshold(99, 0)
    ),
}


class TestEachOutput:
    """One pass forward for the kernels of all outputs."""

    @pytest.mark.parametrize("kind", SEVERAL)
    @pytest.mark.parametrize("check", [True, False])
    def test_as_one_after_another(self, kind, check):
        net, x, _ = made(SEVERAL[kind])
        found = ntk.linearize_each(net, x, check=check)
        assert len(found) == net(x).shape[1]
        for k, line in enumerate(found):
            J = one_by_one(net, x, [k] * len(x))
            torch.testing.assert_close(line.gram(), J @ J.T, rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(line.values, net(x)[:, k].detach())
            step = torch.cat([slope.ravel() for slope in line.pull_back(torch.ones_like(line.values))])
            torch.testing.assert_close(step, J.sum(dim=0), rtol=1e-11, atol=1e-11)

    @pytest.mark.parametrize("check", [True, False])
    def test_one_pass_forward_and_its_own_layers_for_each_member(self, check):
        net, x, _ = made(Ensemble)
        forward = []
        for member in net.members:
            member.register_forward_hook(lambda module, given, out: forward.append(len(out)))
        found = ntk.linearize_each(net, x, check=check)
        assert forward.count(13) == 3 * (1 + check)  # and once to look for rows that see each other
        assert [[layer.module for layer in line.layers] for line in found] == [
            [member[0], member[1], member[3]] for member in net.members
        ]

    def test_refuses(self):
        net, x, _ = made(lambda: nn.Sequential(Centred(), nn.Linear(1, 3)))
        with pytest.raises(ValueError, match=r"^net must treat .* look for what runs over the batch"):
            ntk.linearize_each(net, x)

    def test_a_slip_of_the_second_output_alone(self):
        """The values of all outputs are looked at, and the gradients of each."""

        class Second(nn.Module):
            def __init__(self, gradient):
                super().__init__()
                self.first, self.second, self.gradient = nn.Linear(5, 1), nn.Linear(5, 1), gradient

            def forward(self, x):
                q = self.second(x)
                mean = q.mean(0) - self.gradient * q.mean(0).detach()
                return torch.cat([self.first(x), q + mean], dim=1)

        for gradient in (True, False):
            net, x, _ = made(lambda gradient=gradient: Second(gradient))
            with pytest.raises(ValueError, match=r"^net must treat .* look for what runs over the batch"):
                ntk.linearize_each(net, x)


def altered(change):
    """Return a chain of layers after a change to it."""
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    change(net)
    return net


def replaced(module, other):
    """Let a module do something else than its class says."""
    honest = module.forward
    module.forward = lambda x: other(honest, x)


class Shifted(nn.Tanh):
    """What looks like an activation, and sees the batch."""

    def forward(self, x):
        return torch.tanh(x - x.mean(dim=0))


class Quadratic(nn.Linear):
    """What looks like a linear layer."""

    def forward(self, x):
        return super().forward(x) ** 2


class Lowered(nn.Sequential):
    """What looks like a stack of layers, and sees the batch."""

    def forward(self, x):
        return super().forward(x) - x.mean(dim=0).sum()


def one_activation():
    act = nn.Tanh()
    return nn.Sequential(nn.Linear(5, 4), act, nn.Linear(4, 4), act, nn.Linear(4, 1))


CHAINS = {
    **STACKS,
    **FROZEN,
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(5, 4), nn.Sequential(nn.ReLU())), nn.Linear(4, 1)),
    "an activation first": lambda: nn.Sequential(nn.Tanh(), nn.Linear(5, 1)),
    "an activation last": lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1), nn.Tanh()),
    "one activation twice": one_activation,
    "weights that are not in a row": lambda: altered(
        lambda net: setattr(net[0].weight, "data", net[0].weight.data.T.contiguous().T)
    ),
}

ROW_BY_ROW = {
    "hooks that scale gradients": lambda: altered(
        lambda net: net[1].register_full_backward_hook(lambda module, into, out: (2 * into[0],))
    ),
    "hooks that scale gradients before": lambda: altered(
        lambda net: net[2].register_full_backward_pre_hook(lambda module, out: (2 * out[0],))
    ),
    "another forward pass": lambda: altered(lambda net: replaced(net, lambda honest, x: 3 * honest(x))),
    "an activation with another forward pass": lambda: altered(
        lambda net: replaced(net[1], lambda honest, x: honest(x) ** 2)
    ),
    "pruned": lambda: altered(lambda net: prune.l1_unstructured(net[0], "weight", 0.5)),
    "a subclass": lambda: nn.Sequential(Quadratic(5, 4), nn.Tanh(), nn.Linear(4, 1)),
    "tied": tied,
}

NO_CHAIN = {
    "a stack that sees the batch": lambda: Lowered(nn.Linear(5, 1)),
    "an activation that sees the batch": lambda: nn.Sequential(nn.Linear(5, 4), Shifted(), nn.Linear(4, 1)),
    "a hook that sees the batch": lambda: altered(
        lambda net: net[1].register_forward_hook(lambda module, given, out: out - out.mean(dim=0))
    ),
    "a hook before, that sees the batch": lambda: altered(
        lambda net: net[1].register_forward_pre_hook(lambda module, given: given[0] - given[0].mean(dim=0))
    ),
    "a hook inside of a stack": lambda: nn.Sequential(
        altered(lambda net: net.register_forward_hook(lambda module, given, out: out - out.mean(dim=0))),
        nn.Linear(1, 1),
    ),
    "another linear layer": lambda: altered(lambda net: replaced(net[0], lambda honest, x: 2 * honest(x))),
    "a hook of a parameter": lambda: altered(lambda net: net[0].weight.register_hook(lambda slope: 0 * slope)),
}


def plain_weight(net):
    """Hold a weight as a tensor that is no parameter."""
    weight = net[0].weight.detach()
    del net[0].weight
    net[0].weight = weight


CHANGES = {
    "a layer replaced": lambda net: net.__setitem__(2, nn.Linear(4, 1).double()),
    "an activation replaced": lambda net: net.__setitem__(1, nn.ReLU()),
    "a layer more": lambda net: net.append(nn.Tanh()),
    "two activations in a row": lambda net: net.insert(2, nn.Tanh()),
    "frozen": lambda net: net[0].weight.requires_grad_(False),
    "a step": lambda net: net[0].weight.data.mul_(1.5),
    "another weight": lambda net: setattr(net[0], "weight", nn.Parameter(2 * net[0].weight.detach())),
    "a weight that is no parameter": plain_weight,
    "no bias": lambda net: setattr(net[0], "bias", None),
    "another forward pass": lambda net: replaced(net[1], lambda honest, x: honest(x) ** 2),
    "a hook": lambda net: net[1].register_forward_hook(lambda module, given, out: 2 * out),
    "a hook before": lambda net: net[1].register_forward_pre_hook(lambda module, given: (2 * given[0],)),
    "a hook on gradients": lambda net: net[1].register_full_backward_hook(lambda module, into, out: (2 * into[0],)),
    "pruned": lambda net: prune.l1_unstructured(net[0], "weight", 0.5),
}


class TestChains:
    """Layers one after another need no check; what only looks like it is looked at."""

    @pytest.mark.parametrize("name", CHAINS)
    def test_no_check(self, name, monkeypatch):
        net, x, _ = made(CHAINS[name])
        monkeypatch.setattr(ntk._rowwise, "judge", lambda *_, **__: pytest.fail("looked"))
        J, line = one_by_one(net, x), ntk.linearize(net, x)
        torch.testing.assert_close(line.gram(), J @ J.T, rtol=1e-12, atol=1e-12)
        step = torch.cat([slope.ravel() for slope in line.pull_back(torch.ones(13, dtype=x.dtype))])
        torch.testing.assert_close(step, J.sum(dim=0), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(line.outputs, net(x).detach())
        K = line.gram()
        x.zero_()
        assert torch.equal(line.gram(), K)  # it holds what it saw

    @pytest.mark.parametrize("name", ROW_BY_ROW)
    @pytest.mark.parametrize("check", [True, False])
    def test_what_is_none_is_right(self, name, check):
        net, x, _ = made(ROW_BY_ROW[name])
        J = torch.stack(
            [
                torch.cat([slope.ravel() for slope in torch.autograd.grad(net(row[None])[0, 0], [*net.parameters()])])
                for row in x
            ]
        )
        torch.testing.assert_close(ntk.linearize(net, x, check=check).gram(), J @ J.T, rtol=1e-11, atol=1e-11)

    @pytest.mark.parametrize("where", ["", "0", "1", "2", "a child of 0", "a child of 1"])
    @pytest.mark.parametrize("check", [True, False])
    def test_a_parameter_that_nothing_uses(self, where, check):
        """Wherever it is registered, its gradient is zero, in the place that ``net.parameters()`` gives it."""
        spare = nn.Parameter(torch.zeros(3))

        def register(net):
            if where.startswith("a child of"):
                net[int(where[-1])].add_module("child", nn.ParameterList([spare]))
            else:
                net.get_submodule(where).register_parameter("spare", spare)

        net, x, _ = made(lambda: altered(register))
        J, line, w = one_by_one(net, x), ntk.linearize(net, x, check=check), torch.randn(13).double()
        torch.testing.assert_close(line.gram(), J @ J.T, rtol=1e-12, atol=1e-12)
        found = line.pull_back(w)
        assert [id(p) for p in line.parameters] == [id(p) for p in net.parameters()]
        torch.testing.assert_close(torch.cat([slope.ravel() for slope in found]), J.T @ w, rtol=1e-11, atol=1e-11)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda net: net.requires_grad_(False), "no step moves this one"),
            (lambda net: net.to("meta"), "is on the meta device"),
            (lambda net: net[0].to("meta"), "meta"),
            (
                lambda net: net[0].register_parameter("weight", nn.Parameter(net[0].weight.detach() * 1j)),
                "hold its two parts as two",
            ),
        ],
    )
    @pytest.mark.parametrize("check", [True, False])
    def test_parameters_that_no_kernel_has(self, change, message, check):
        net, x, _ = made(STACKS["relu"])
        change(net)
        with pytest.raises(ValueError, match=f"^net must .*{message}"):
            ntk.linearize(net, x, check=check)

    @pytest.mark.parametrize("last", [0, 1], ids=["", "an activation last"])
    def test_one_output_chosen_or_not(self, last):
        """Where there is one output, to name it changes no bit; a wrong name is refused all the same."""
        net, x, y = made(lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1), *[nn.Tanh()] * last))
        alone = ntk.linearize(net, x)
        for named in (0, torch.zeros(13, dtype=torch.int64)):
            line = ntk.linearize(net, x, outputs=named)
            assert torch.equal(line.values, alone.values) and torch.equal(line.gram(), alone.gram())
        assert torch.equal(alone.values, alone.outputs[:, 0]) and alone.values.shape == (13,)
        assert ntk.linearize(net, x[:0]).values.shape == (0,)
        assert torch.equal(ntk.gram(net, x, y), ntk.gram(net, x, y, outputs=0))
        for wrong in (1, -1, torch.ones(13, dtype=torch.int64), torch.zeros(12, dtype=torch.int64)):
            with pytest.raises(ValueError, match=r"^outputs must"):
                ntk.linearize(net, x, outputs=wrong)

    @pytest.mark.parametrize("name", NO_CHAIN)
    def test_what_is_none_is_refused(self, name):
        net, x, _ = made(NO_CHAIN[name])
        with pytest.raises(ValueError, match=r"^net must "):
            ntk.gram(net, x)

    def test_a_hook_of_all_modules(self):
        net, x, _ = made(STACKS["relu"])
        hook = nn.modules.module.register_module_forward_hook(
            lambda module, given, out: out - out.mean(dim=0) if isinstance(module, nn.ReLU) else None
        )
        try:
            with pytest.raises(ValueError, match=r"^net must "):
                ntk.gram(net, x)
        finally:
            hook.remove()
        assert ntk.gram(net, x).shape == (13, 13)

    @pytest.mark.parametrize("name", CHANGES)
    def test_a_change_between_two_calls(self, name):
        """What was known of the network at the first call is not taken for known at the second."""
        net, x, y = made(lambda: altered(lambda net: None))
        before = ntk.gram(net, x)
        CHANGES[name](net)
        J, H = one_by_one(net, x), one_by_one(net, y)
        found = ntk.gram(net, x)
        torch.testing.assert_close(found, J @ J.T, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(ntk.gram(net, x, y), J @ H.T, rtol=1e-11, atol=1e-11)
        assert not torch.equal(found, before)

    def test_another_precision_between_two_calls(self):
        net, x, _ = made(STACKS["relu"])
        before, after = ntk.gram(net, x), ntk.gram(net.float(), x.float())
        assert (before.dtype, after.dtype) == (torch.float64, torch.float32)
        torch.testing.assert_close(after.double(), before, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("where", ["no_grad", "inference"])
    def test_what_the_caller_switched_off(self, where):
        net, x, _ = made(STACKS["relu"])
        J = one_by_one(net, x)
        with {"no_grad": torch.no_grad, "inference": torch.inference_mode}[where]():
            K, values = ntk.gram(net, x), ntk.linearize(net, x).values
        assert not values.is_inference()
        torch.testing.assert_close(K.clone(), J @ J.T, rtol=1e-12, atol=1e-12)
        assert ntk.gram(net, x.requires_grad_()).requires_grad is False
