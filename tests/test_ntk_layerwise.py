"""The kernel without the Jacobian: the same numbers where that is allowed, and never tried where it is not."""

import re

import pytest
import torch
from torch import nn

from divergence_notes import networks, ntk

STACKS = {
    "relu": lambda: nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1)),
    "sin": lambda: nn.Sequential(nn.Linear(5, 16), networks.Sine(), nn.Linear(16, 1)),
    "no bias": lambda: nn.Sequential(nn.Linear(5, 16, bias=False), nn.Tanh(), nn.Linear(16, 1, bias=False)),
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


def tied():
    """Return two layers that own one weight."""
    net = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 1))
    net[2].weight = net[0].weight
    return net


OTHERS = {
    "layer norm": lambda: nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 1)
    ),
    "reused": Reused,
    "tied": tied,
    "in place": lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(inplace=True), nn.Linear(8, 1)),
    "batch norm at rest": lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)).eval(),
    "frozen layer": lambda: nn.Sequential(nn.Linear(5, 8).requires_grad_(False), nn.Tanh(), nn.Linear(8, 1)),
}


def made(build, dtype=torch.float64):
    """Return a network with weights of its own seed, and inputs."""
    generator = torch.Generator().manual_seed(0)
    net = build().to(dtype)
    with torch.no_grad():
        for p in net.parameters():
            p.uniform_(-0.8, 0.8, generator=generator)
    return (
        net,
        torch.randn(13, 5, generator=generator, dtype=dtype),
        torch.randn(7, 5, generator=generator, dtype=dtype),
    )


def one_by_one(net, x):
    """Return the Jacobian, one backward pass at a time."""
    parameters = list(net.parameters())
    flags = [p.requires_grad for p in parameters]
    for p in parameters:
        p.requires_grad_(True)
    rows = [torch.cat([s.ravel() for s in torch.autograd.grad(net(row[None])[0, 0], parameters)]) for row in x]
    for p, flag in zip(parameters, flags, strict=True):
        p.requires_grad_(flag)
    return torch.stack(rows)


@pytest.mark.parametrize("name", [*STACKS, "residual", *OTHERS])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_same_numbers(name, dtype, bound):
    net, x, y = made({**STACKS, "residual": Residual, **OTHERS}[name], dtype)
    J, H = one_by_one(net, x).double(), one_by_one(net, y).double()
    for found, want in ((ntk.gram(net, x, tile=4), J @ J.T), (ntk.gram(net, x, y, tile=4), J @ H.T)):
        assert found.dtype == dtype and found.shape == want.shape and not found.requires_grad
        assert (found.double() - want).abs().max() <= bound * want.abs().max()


@pytest.mark.parametrize("name", [*STACKS, "residual"])
def test_the_jacobian_is_not_formed(name, monkeypatch):
    net, x, y = made({**STACKS, "residual": Residual}[name])
    monkeypatch.setattr(ntk, "per_sample_gradients", lambda *_: pytest.fail("formed the Jacobian"))
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
    honest = ntk.per_sample_gradients
    monkeypatch.setattr(ntk, "per_sample_gradients", lambda *given: called.append(1) or honest(*given))
    ntk.gram(net, x)
    assert called


@pytest.mark.parametrize("tile", [1, 5, 13, 512])
def test_tiles_do_not_matter(tile):
    net, x, y = made(STACKS["relu"])
    torch.testing.assert_close(ntk.gram(net, x, tile=tile), ntk.gram(net, x), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(ntk.gram(net, x, y, tile=tile), ntk.gram(net, x, y), rtol=1e-13, atol=1e-13)


def test_rows_that_see_each_other_are_refused():
    net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)).double()
    message = "net must treat each row on its own: the batch norm '1' is training, call net.eval()"
    with pytest.raises(ValueError, match=re.escape(message)):
        ntk.gram(net, torch.zeros(3, 5, dtype=torch.float64))


def test_more_outputs_and_tiles_of_nothing_are_refused():
    x = torch.zeros(3, 5)
    with pytest.raises(ValueError, match=re.escape("net must have one output, it has 2")):
        ntk.gram(nn.Sequential(nn.Linear(5, 2)), x)
    with pytest.raises(ValueError, match=re.escape("tile must be in [1, inf), got 0")):
        ntk.gram(nn.Sequential(nn.Linear(5, 1)), x, tile=0)
