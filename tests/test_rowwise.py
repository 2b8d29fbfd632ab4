"""Many kinds of network: the kernel is that of autograd on the batch, or an error names the cause and the way round."""

import io
import re
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

from divergence_notes import networks, ntk

D = 6


class Of(nn.Module):
    """A network whose forward is a function of itself and its inputs, with parts by name."""

    def __init__(self, forward, **parts):
        super().__init__()
        self._function = forward
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x):
        return self._function(self, x)


def linear(*sizes, **named):
    return nn.Linear(*sizes, **named)


def stack(*layers, last=1):
    """Return layers between a linear one and another: 6 -> 8, 8 -> last."""
    return nn.Sequential(linear(D, 8), *layers, linear(8, last))


def changed(net, change):
    change(net)
    return net


def tied():
    net = nn.Sequential(linear(D, D), nn.Tanh(), linear(D, D), nn.Tanh(), linear(D, 1))
    net[2].weight = net[0].weight
    return net


def old(norm, net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it old, and it is met
        norm(net[0])
    return net


def frozen(net, *names):
    for name in names:
        net.get_parameter(name).requires_grad_(False)
    return net


def normalised(s, x, *, use=True, in_place=False):
    """A running normaliser of observations."""
    if s.training and in_place:
        s.m.mul_(0.9).add_(0.1 * x.mean(0).detach())
    elif s.training:
        s.m = 0.9 * s.m + 0.1 * x.mean(0).detach()
    return s.net(x - s.m if use else x)


def normaliser(**how):
    return Of(lambda s, x: normalised(s, x, **how), net=stack(nn.LayerNorm(8), nn.ReLU()), m=torch.zeros(D))


def counting(s, x):
    s.calls = getattr(s, "calls", 0) + 1
    s.last = x
    return s.net(x)


def noisy(s, x):
    with torch.no_grad():
        s.noise.normal_()
    return F.linear(torch.tanh(s.net(x)), s.mean + s.spread * s.noise)


def dueling(slip):
    def forward(s, x):
        h = s.trunk(x)
        a = s.a(h)
        return s.v(h) + a - (a.mean() if slip else a.mean(1, keepdim=True))

    return forward


def recurrent(kind, batch_first):
    """Sequences of 3 steps with 2 entries; without `batch_first` the rows are taken for the steps."""
    return Of(
        lambda s, x: s.out(s.rnn(x.view(len(x), 3, 2))[0][:, -1]),
        rnn=kind(2, 4, batch_first=batch_first),
        out=linear(4, 1),
    )


def attention(over_batch):
    """Attention over three tokens of a row; or over the rows, which are taken for tokens."""

    def forward(s, x):
        tokens = s.embed(x.view(len(x), 3, 2))
        return s.out(s.attention(tokens, tokens, tokens, need_weights=False)[0].flatten(1))

    part = nn.MultiheadAttention(4, 2, batch_first=not over_batch)
    return Of(forward, embed=linear(2, 4), attention=part, out=linear(12, 1))


class Square(torch.autograd.Function):
    """A function with a derivative of its own, and no rule for torch.func."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, slope):
        return 2 * ctx.saved_tensors[0] * slope


class Half(nn.Module):
    """A parametrization: half of it."""

    def forward(self, weight):
        return 0.5 * weight


class Low(nn.Module):
    """A parametrization by two factors."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.randn(8, 8))

    def forward(self, weight):
        return self.factor @ weight


def hooked():
    net = stack(nn.Tanh())
    net[0].register_forward_hook(lambda module, given, out: 3 * out)
    return net


def shaken(s, x):
    return s.net(x[torch.randperm(len(x))])


def hyper(s, x):
    """A network that makes the weights of another, of each row."""
    W = s.make(x).view(len(x), 4, D)
    return s.out(torch.tanh(torch.einsum("nhd,nd->nh", W, x)))


def branching(s, x):
    """Each row goes one of two ways, by its own first entry."""
    left = x[:, :1] > 0
    return torch.where(left, s.a(x), s.b(x))


def routed(s, x):
    """As `branching`, by indices: the rows stand in another order inside."""
    left = x[:, 0] > 0
    out = x.new_zeros(len(x), 1)
    out[left] = s.a(x[left])
    out[~left] = s.b(x[~left])
    return out


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it old, and it is met
        return torch.jit.script(stack(nn.LayerNorm(8), nn.Tanh()))


# Right: what autograd finds on the batch.
RIGHT = {
    "linear": lambda: nn.Sequential(linear(D, 1)),
    "a bare layer": lambda: linear(D, 1),
    "relu": lambda: stack(nn.ReLU()),
    "tanh": lambda: stack(nn.Tanh()),
    "gelu": lambda: stack(nn.GELU()),
    "softplus": lambda: stack(nn.Softplus()),
    "elu, in place": lambda: stack(nn.ELU(inplace=True)),
    "sine": lambda: stack(networks.Sine()),
    "prelu": lambda: stack(nn.PReLU()),
    "softmax over features": lambda: stack(nn.Softmax(dim=1)),
    "no bias": lambda: nn.Sequential(linear(D, 8, bias=False), nn.ReLU(), linear(8, 1, bias=False)),
    "deep": lambda: nn.Sequential(linear(D, 8), *[nn.Sequential(nn.ReLU(), linear(8, 8))] * 1, nn.ReLU(), linear(8, 1)),
    "nested": lambda: nn.Sequential(nn.Sequential(linear(D, 8), nn.Sequential(nn.Tanh())), nn.Sequential(linear(8, 1))),
    "three outputs": lambda: stack(nn.ReLU(), last=3),
    "rectifier in place": lambda: stack(nn.ReLU(inplace=True)),
    "rectifier in place, first": lambda: nn.Sequential(nn.ReLU(inplace=True), linear(D, 8), nn.Tanh(), linear(8, 1)),
    "dropout in place, off": lambda: stack(nn.Dropout(0.5, inplace=True), nn.ReLU(inplace=True)).eval(),
    "a sum in place": lambda: Of(lambda s, x: s.b(torch.tanh(s.a(x).add_(1.0))), a=linear(D, 8), b=linear(8, 1)),
    "the input in place": lambda: Of(lambda s, x: s.a(x.mul_(2)), a=stack(nn.Tanh())),
    "layer norm": lambda: stack(nn.LayerNorm(8), nn.ReLU()),
    "rms norm": lambda: stack(nn.RMSNorm(8), nn.ReLU()),
    "group norm": lambda: stack(nn.GroupNorm(2, 8), nn.Tanh()),
    "instance norm": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, affine=True), nn.Flatten(), linear(D, 1)
    ),
    "instance norm with statistics": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, affine=True, track_running_stats=True), nn.Flatten(), linear(D, 1)
    ),
    "batch norm at rest": lambda: stack(nn.BatchNorm1d(8), nn.ReLU()).eval(),
    "dropout at rest": lambda: stack(nn.Dropout(), nn.ReLU()).eval(),
    "dropout of nothing": lambda: stack(nn.Dropout(0.0), nn.ReLU()),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, D)), nn.Conv1d(1, 3, 2), nn.ReLU(), nn.Flatten(), linear(15, 1)
    ),
    "image": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear(4, 1)
    ),
    "max pooling": lambda: nn.Sequential(
        nn.Unflatten(1, (1, D)), nn.Conv1d(1, 3, 2), nn.MaxPool1d(2), nn.Flatten(), linear(6, 1)
    ),
    "transposed convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, D)), nn.ConvTranspose1d(1, 2, 2), nn.ReLU(), nn.Flatten(), linear(14, 1)
    ),
    "bilinear": lambda: Of(lambda s, x: s.b(x, x), b=nn.Bilinear(D, D, 1)),
    "attention over tokens": lambda: attention(over_batch=False),
    "transformer": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 2)),
        nn.TransformerEncoderLayer(2, 1, 4, dropout=0.0, batch_first=True),
        nn.Flatten(),
        linear(D, 1),
    ),
    "transformer at rest": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 2)), nn.TransformerEncoderLayer(2, 1, 4, batch_first=True), nn.Flatten(), linear(D, 1)
    ).eval(),
    "rnn": lambda: recurrent(nn.RNN, batch_first=True),
    "gru": lambda: recurrent(nn.GRU, batch_first=True),
    "lstm": lambda: recurrent(nn.LSTM, batch_first=True),
    "embedding": lambda: Of(
        lambda s, x: s.b(torch.tanh(s.e((x[:, 0] > 0).long()) + s.a(x))),
        e=nn.Embedding(2, 8),
        a=linear(D, 8),
        b=linear(8, 1),
    ),
    "sparse embedding": lambda: Of(
        lambda s, x: s.b(s.e((x[:, 0] > 0).long()) * x), e=nn.Embedding(2, D, sparse=True), b=linear(D, 1)
    ),
    "dueling": lambda: Of(
        dueling(False), trunk=nn.Sequential(linear(D, 8), nn.LayerNorm(8), nn.ReLU()), v=linear(8, 1), a=linear(8, 3)
    ),
    "dueling, linear": lambda: Of(
        dueling(False), trunk=nn.Sequential(linear(D, 8), nn.ReLU()), v=linear(8, 1), a=linear(8, 3)
    ),
    "tied layers": tied,
    "tied by hand": lambda: Of(lambda s, x: F.linear(F.relu(s.w(x)), s.w.weight)[:, :1], w=linear(D, D, bias=False)),
    "tied, transposed": lambda: Of(lambda s, x: s.b(torch.tanh(s.a(x)) @ s.a.weight), a=linear(D, 8), b=linear(D, 1)),
    "a layer twice": lambda: Of(lambda s, x: s.b(torch.tanh(s.a(torch.tanh(s.a(x))))), a=linear(D, D), b=linear(D, 1)),
    "one module in two places": lambda: (lambda a: nn.Sequential(a, nn.Tanh(), a, linear(D, 1)))(linear(D, D)),
    "twins that share a trunk": lambda: Of(
        lambda s, x: s.a(s.t(x)) + s.b(s.t(x)), t=nn.Sequential(linear(D, 8), nn.ReLU()), a=linear(8, 1), b=linear(8, 1)
    ),
    "by hand instead of the layer": lambda: Of(
        lambda s, x: s.b(torch.tanh(F.linear(x, s.a.weight, s.a.bias))), a=linear(D, 8), b=linear(8, 1)
    ),
    "the layer in vain, and by hand": lambda: Of(
        lambda s, x: s.b(torch.tanh(F.linear(x + 0 * s.a(x).sum(1, keepdim=True).detach(), s.a.weight))),
        a=linear(D, 8),
        b=linear(8, 1),
    ),
    "a layer by keyword": lambda: Of(lambda s, x: s.b(torch.tanh(s.a(input=x))), a=linear(D, 8), b=linear(8, 1)),
    "a layer with a hook": hooked,
    "residual": lambda: Of(lambda s, x: s.c(x + torch.tanh(s.a(x))), a=linear(D, D), c=linear(D, 1)),
    "residual in place": lambda: Of(lambda s, x: s.c(torch.tanh(s.a(x).add_(x))), a=linear(D, D), c=linear(D, 1)),
    "tokens": lambda: nn.Sequential(nn.Unflatten(1, (D, 1)), linear(1, 4), nn.Tanh(), nn.Flatten(), linear(24, 1)),
    "tokens, flat": lambda: Of(
        lambda s, x: s.b(torch.tanh(s.a(x.reshape(-1, 2))).reshape(len(x), -1)), a=linear(2, 4), b=linear(12, 1)
    ),
    "idle layer": lambda: Of(lambda s, x: (s.idle(x), s.net(x))[1], idle=linear(D, 3), net=stack(nn.ReLU())),
    "layer that never runs": lambda: Of(lambda s, x: s.net(x), idle=linear(D, 3), net=stack(nn.ReLU())),
    "frozen first layer": lambda: frozen(stack(nn.ReLU()), "0.weight", "0.bias"),
    "frozen bias": lambda: frozen(stack(nn.ReLU()), "0.bias"),
    "frozen weight": lambda: frozen(stack(nn.LayerNorm(8), nn.Tanh()), "0.weight"),
    "frozen last layer": lambda: frozen(stack(nn.ReLU()), "2.weight", "2.bias"),
    "detached trunk": lambda: Of(lambda s, x: s.b(torch.tanh(s.a(x)).detach()), a=linear(D, 8), b=linear(8, 1)),
    "one branch detached": lambda: Of(lambda s, x: s.a(x) + s.b(x).detach(), a=linear(D, 1), b=linear(D, 1)),
    "straight through": lambda: Of(
        lambda s, x: s.b((lambda h: h + (h.sign() - h).detach())(s.a(x))), a=linear(D, 8), b=linear(8, 1)
    ),
    "spectral norm": lambda: changed(stack(nn.ReLU()), lambda net: parametrizations.spectral_norm(net[0])),
    "spectral norm at rest": lambda: changed(
        stack(nn.ReLU()), lambda net: parametrizations.spectral_norm(net[0])
    ).eval(),
    "old spectral norm": lambda: old(nn.utils.spectral_norm, stack(nn.ReLU())),
    "weight norm": lambda: changed(stack(nn.ReLU()), lambda net: parametrizations.weight_norm(net[0])),
    "old weight norm": lambda: old(nn.utils.weight_norm, stack(nn.ReLU())),
    "orthogonal": lambda: changed(stack(nn.Tanh()), lambda net: parametrizations.orthogonal(net[0])),
    "parametrized": lambda: changed(
        stack(nn.Tanh()), lambda net: parametrize.register_parametrization(net[0], "weight", Half())
    ),
    "parametrized by factors": lambda: changed(
        stack(nn.Tanh()), lambda net: parametrize.register_parametrization(net[0], "weight", Low())
    ),
    "parameter list": lambda: Of(
        lambda s, x: torch.tanh(x @ s.w[0]) @ s.w[1], w=nn.ParameterList([torch.randn(D, 8), torch.randn(8, 1)])
    ),
    "parameter dict": lambda: Of(
        lambda s, x: torch.tanh(x @ s.w["a"]) @ s.w["b"],
        w=nn.ParameterDict({"a": torch.randn(D, 8), "b": torch.randn(8, 1)}),
    ),
    "a list of heads": lambda: Of(
        lambda s, x: torch.cat([head(torch.tanh(s.t(x))) for head in s.heads], dim=1),
        t=linear(D, 8),
        heads=nn.ModuleList(linear(8, 1) for _ in range(3)),
    ),
    "ensemble, mean": lambda: Of(
        lambda s, x: torch.stack([net(x) for net in s.nets]).mean(0),
        nets=nn.ModuleList(stack(nn.ReLU()) for _ in range(3)),
    ),
    "twin critics, the smaller": lambda: Of(
        lambda s, x: torch.minimum(s.a(x), s.b(x)), a=stack(nn.ReLU()), b=stack(nn.ReLU())
    ),
    "ensemble by einsum": lambda: Of(
        lambda s, x: torch.einsum("ekh,enk->en", s.w, torch.tanh(torch.einsum("nd,edk->enk", x, s.v))).mean(0)[:, None],
        v=nn.Parameter(torch.randn(2, D, 4)),
        w=nn.Parameter(torch.randn(2, 4, 1)),
    ),
    "scale and shift": lambda: Of(
        lambda s, x: s.scale * s.net(x) + s.shift,
        net=stack(nn.ReLU()),
        scale=nn.Parameter(torch.tensor(2.0)),
        shift=nn.Parameter(torch.tensor(0.3)),
    ),
    "hyper network": lambda: Of(hyper, make=linear(D, 4 * D), out=linear(4, 1)),
    "mixture of experts": lambda: Of(
        lambda s, x: (torch.softmax(s.gate(x), 1) * torch.cat([s.a(x), s.b(x)], 1)).sum(1, keepdim=True),
        gate=linear(D, 2),
        a=linear(D, 1),
        b=linear(D, 1),
    ),
    "two ways": lambda: Of(branching, a=stack(nn.Tanh()), b=stack(nn.Tanh())),
    "two ways, by indices": lambda: Of(routed, a=stack(nn.Tanh()), b=stack(nn.Tanh())),
    "fourier features": lambda: Of(
        lambda s, x: s.out(torch.cat([torch.sin(x @ s.f), torch.cos(x @ s.f)], 1)),
        f=torch.randn(D, 4),
        out=linear(8, 1),
    ),
    "complex inside": lambda: Of(lambda s, x: s.out(torch.fft.fft(s.a(x)).abs()), a=linear(D, 8), out=linear(8, 1)),
    "own derivative": lambda: Of(lambda s, x: s.b(Square.apply(s.a(x))), a=linear(D, 8), b=linear(8, 1)),
    "own derivative, layer norm": lambda: Of(
        lambda s, x: s.b(Square.apply(s.n(s.a(x)))), a=linear(D, 8), n=nn.LayerNorm(8), b=linear(8, 1)
    ),
    "checkpoint": lambda: Of(
        lambda s, x: s.b(checkpoint(s.a, x, use_reentrant=False)),
        a=nn.Sequential(linear(D, 8), nn.Tanh()),
        b=linear(8, 1),
    ),
    "checkpoint, layer norm": lambda: Of(
        lambda s, x: s.b(checkpoint(s.a, x, use_reentrant=False)),
        a=nn.Sequential(linear(D, 8), nn.LayerNorm(8)),
        b=linear(8, 1),
    ),
    "scripted": scripted,
    "compiled": lambda: torch.compile(stack(nn.Tanh()), backend="eager"),
    "counts its calls": lambda: Of(counting, net=stack(nn.ReLU())),
    "counts its calls, layer norm": lambda: Of(counting, net=stack(nn.LayerNorm(8))),
    "normaliser at rest": lambda: normaliser().eval(),
    "normaliser that only watches": lambda: normaliser(use=False),
    "normaliser that only watches, in place": lambda: normaliser(use=False, in_place=True),
    "looks at numbers": lambda: Of(
        lambda s, x: s.net(x) * (2.0 if float(s.net[0].bias[0]) > 0 else 1.0), net=stack(nn.LayerNorm(8), nn.Tanh())
    ),
    "asks for a whole batch to be finite": lambda: Of(
        lambda s, x: s.net(x) if bool(torch.isfinite(x).all()) else s.net(x) * 0, net=stack(nn.LayerNorm(8), nn.Tanh())
    ),
    "constant": lambda: Of(lambda s, x: s.c.expand(len(x), 1), c=nn.Parameter(torch.tensor(0.7))),
    "dead": lambda: changed(stack(nn.ReLU()), lambda net: nn.init.constant_(net[0].bias, -100.0)),
    "large offset": lambda: changed(stack(nn.ReLU()), lambda net: nn.init.constant_(net[2].bias, 1e4)),
    "own hessian": lambda: Of(
        lambda s, x: torch.autograd.grad(s.net(x.requires_grad_()).sum(), x, create_graph=True)[0][:, :1],
        net=stack(nn.Tanh()),
    ),
}

BATCH, EVAL, HAND = "look for what runs over the batch", "call net.eval()", "per_sample_gradients(net, x)"

# Refused: with these words for the cause, or for the way round.
REFUSED = {
    "dueling slip": (
        lambda: Of(dueling(True), trunk=nn.Sequential(linear(D, 8), nn.ReLU()), v=linear(8, 1), a=linear(8, 3)),
        BATCH,
    ),
    "dueling slip behind a layer norm": (
        lambda: Of(
            dueling(True), trunk=nn.Sequential(linear(D, 8), nn.LayerNorm(8), nn.ReLU()), v=linear(8, 1), a=linear(8, 3)
        ),
        BATCH,
    ),
    "batch norm": (lambda: stack(nn.BatchNorm1d(8), nn.ReLU()), EVAL),
    "batch norm of an image": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.Flatten(), linear(8, 1)
        ),
        EVAL,
    ),
    "batch norm without statistics": (
        lambda: stack(nn.BatchNorm1d(8, track_running_stats=False), nn.ReLU()).eval(),
        "keeps no statistics",
    ),
    "batch norm by hand": (
        lambda: Of(lambda s, x: s.b(F.batch_norm(s.a(x), None, None, training=True)), a=linear(D, 8), b=linear(8, 1)),
        BATCH,
    ),
    "batch norm by hand, behind a convolution": (
        lambda: Of(
            lambda s, x: s.b(F.batch_norm(s.a(x[:, None]), None, None, training=True).flatten(1)),
            a=nn.Conv1d(1, 3, 2),
            b=linear(15, 1),
        ),
        BATCH,
    ),
    "centred": (
        lambda: Of(lambda s, x: s.b((lambda h: h - h.mean(0))(torch.tanh(s.a(x)))), a=linear(D, 8), b=linear(8, 1)),
        BATCH,
    ),
    "centred inputs": (lambda: Of(lambda s, x: s.net(x - x.mean(0)), net=stack(nn.Tanh())), BATCH),
    "centred by a detached mean": (
        lambda: Of(
            lambda s, x: s.b((lambda h: h - h.mean(0).detach())(torch.tanh(s.a(x)))), a=linear(D, 8), b=linear(8, 1)
        ),
        BATCH,
    ),
    "divided by the largest": (
        lambda: Of(lambda s, x: s.net(x / x.abs().max()), net=stack(nn.LayerNorm(8), nn.Tanh())),
        BATCH,
    ),
    "linear layers, divided by the largest": (
        lambda: Of(lambda s, x: s.net(x / x.abs().max()), net=stack(nn.Tanh())),
        BATCH,
    ),
    "layer norm over the wrong axis": (
        lambda: Of(
            lambda s, x: s.b((lambda h: (h - h.mean(0)) / (h.std(0, correction=0) + 1e-5))(s.a(x))),
            a=linear(D, 8),
            b=linear(8, 1),
        ),
        BATCH,
    ),
    "softmax over the batch": (
        lambda: Of(lambda s, x: s.b(torch.softmax(s.a(x), 0)), a=linear(D, 8), b=linear(8, 1)),
        BATCH,
    ),
    "attention over the batch": (lambda: attention(over_batch=True), BATCH),
    "attention of row to row": (
        lambda: Of(
            lambda s, x: s.v(x) + torch.softmax(s.q(x) @ s.k(x).T, 1) @ s.v(x),
            q=linear(D, 4),
            k=linear(D, 4),
            v=linear(D, 1),
        ),
        BATCH,
    ),
    "gru, rows for steps": (lambda: recurrent(nn.GRU, batch_first=False), BATCH),
    "lstm, rows for steps": (lambda: recurrent(nn.LSTM, batch_first=False), BATCH),
    "rnn, unbatched": (
        lambda: Of(lambda s, x: s.out(s.rnn(x)[0]), rnn=nn.RNN(D, 4), out=linear(4, 1)),
        BATCH,
    ),
    "running sum": (lambda: Of(lambda s, x: s.net(x).cumsum(0), net=stack(nn.Tanh())), BATCH),
    "differences to the row before": (lambda: Of(lambda s, x: s.net(x - x.roll(1, 0)), net=stack(nn.Tanh())), BATCH),
    "sorted": (lambda: Of(lambda s, x: s.net(x).sort(0).values, net=stack(nn.Tanh())), BATCH),
    "turned round": (lambda: Of(lambda s, x: s.net(x).flip(0), net=stack(nn.Tanh())), BATCH),
    "turned round inside": (lambda: Of(lambda s, x: s.net(x.flip(0)), net=stack(nn.LayerNorm(8), nn.Tanh())), BATCH),
    "as many as there are": (lambda: Of(lambda s, x: s.net(x) / len(x), net=stack(nn.Tanh())), BATCH),
    "normaliser": (normaliser, EVAL),
    "normaliser in place": (lambda: normaliser(in_place=True), EVAL),
    "dropout": (lambda: stack(nn.Dropout(), nn.ReLU()), EVAL),
    "dropout behind a convolution": (
        lambda: nn.Sequential(nn.Unflatten(1, (1, D)), nn.Conv1d(1, 3, 2), nn.Dropout1d(), nn.Flatten(), linear(15, 1)),
        EVAL,
    ),
    "dropout by hand": (
        lambda: Of(lambda s, x: s.b(F.dropout(s.a(x), training=s.training)), a=linear(D, 8), b=linear(8, 1)),
        EVAL,
    ),
    "dropout in a gru": (
        lambda: Of(
            lambda s, x: s.out(s.rnn(x.view(len(x), 3, 2))[0][:, -1]),
            rnn=nn.GRU(2, 4, num_layers=2, dropout=0.5, batch_first=True),
            out=linear(4, 1),
        ),
        EVAL,
    ),
    "random slope": (lambda: stack(nn.RReLU()), EVAL),
    "noise in the weights": (
        lambda: Of(
            noisy,
            net=linear(D, 8),
            mean=nn.Parameter(torch.randn(1, 8)),
            spread=nn.Parameter(torch.full((1, 8), 0.5)),
            noise=torch.zeros(1, 8),
        ),
        "draws random numbers",
    ),
    "noise on the inputs": (
        lambda: Of(lambda s, x: s.net(x + 0.1 * torch.randn_like(x)), net=stack(nn.LayerNorm(8), nn.Tanh())),
        "draws random numbers",
    ),
    "rows shuffled": (lambda: Of(shaken, net=stack(nn.Tanh())), "draws random numbers"),
    "no gradient": (
        lambda: Of(lambda s, x: torch.no_grad()(s.net)(x), net=stack(nn.Tanh())),
        "look for no_grad and detach",
    ),
    "detached": (lambda: Of(lambda s, x: s.net(x).detach(), net=stack(nn.LayerNorm(8))), "look for no_grad and detach"),
    "all frozen": (lambda: stack(nn.Tanh()).requires_grad_(False), "no step moves this one"),
    "complex parameters": (
        lambda: Of(lambda s, x: (x.to(s.w.dtype) @ s.w).real, w=nn.Parameter(torch.randn(D, 1, dtype=torch.complex64))),
        "hold its two parts as two",
    ),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(1)), "call net once"),
    "on the meta device": (lambda: stack(nn.ReLU()).to("meta"), "meta device"),
    "two answers": (lambda: Of(lambda s, x: (s.a(x), s.b(x)), a=linear(D, 1), b=linear(D, 1)), "wrap it, and pick one"),
    "a dictionary": (lambda: Of(lambda s, x: {"q": s.a(x)}, a=linear(D, 1)), "wrap it, and pick one"),
    "lstm, bare": (lambda: nn.LSTM(D, 1), "wrap it, and pick one"),
    "squeezed": (lambda: Of(lambda s, x: s.net(x).squeeze(), net=stack(nn.Tanh())), "map (n, d) to (n, n_outputs)"),
    "an image of values": (
        lambda: nn.Sequential(nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 1, 1)),
        "map (n, d) to (n, n_outputs)",
    ),
    "mean of the batch": (
        lambda: Of(lambda s, x: s.net(x).mean(0, keepdim=True), net=stack(nn.Tanh())),
        "map (n, d) to (n, n_outputs)",
    ),
    "classes": (lambda: Of(lambda s, x: s.net(x).argmax(1, keepdim=True), net=stack(nn.Tanh())), "real outputs"),
    "overwritten in place": (
        lambda: Of(lambda s, x: (lambda h: (s.b(h), h.mul_(2))[0])(torch.tanh(s.a(x))), a=linear(D, 8), b=linear(8, 1)),
        "let autograd through",
    ),
    "checkpoint of the old kind": (
        lambda: Of(
            lambda s, x: s.b(checkpoint(s.a, x.requires_grad_(), use_reentrant=True)),
            a=nn.Sequential(linear(D, 8), nn.Tanh()),
            b=linear(8, 1),
        ),
        "let autograd through",
    ),
    "rows in another order inside": (
        lambda: Of(lambda s, x: s.b(torch.tanh(s.a(x.flip(0))).flip(0)), a=linear(D, 8), b=linear(8, 1)),
        HAND,
    ),
}


def test_there_are_sixty():
    assert len(RIGHT) + len(REFUSED) >= 60
    assert min(len(RIGHT), len(REFUSED)) >= 20
    assert not set(RIGHT) & set(REFUSED)


DTYPES = {torch.float64: 1e-9, torch.float32: 2e-4}
OUTPUTS = {name: 3 for name in (*RIGHT, *REFUSED) if "dueling" in name or name in ("three outputs", "a list of heads")}


def built(kind, seed, dtype=torch.float64):
    """Return the network of a kind; the same one for the same seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = RIGHT[kind]() if kind in RIGHT else REFUSED[kind][0]()
    return net if kind == "complex parameters" else net.to(dtype)


def drawn(kind, seed, n, *, zero=False, dtype=torch.float64):
    """Return inputs, and an output for each; the first input is zero if that is asked for."""
    g = torch.Generator().manual_seed(seed + 1)
    x = torch.randn(n, D, generator=g, dtype=torch.float64).to(dtype)
    if zero:
        x[0] = 0
    return x, torch.randint(OUTPUTS.get(kind, 1), (n,), generator=g)


def by_autograd(net, x, chosen):
    """Return values and gradients of a batch, one backward pass for each row through the graph of all."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    values = net(x.clone()).gather(1, chosen[:, None])[:, 0]
    rows = []
    for value in values:
        slopes = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        whole = [torch.zeros_like(p) if s is None else s.to_dense() for p, s in zip(parameters, slopes, strict=True)]
        rows.append(torch.cat([part.ravel() for part in whole]))
    return values.detach(), torch.stack(rows).detach()


def state(net):
    """Return all that a look at a network must leave as it is."""
    modules = list(net.modules())
    return {
        "tensors": [
            (id(t), t._version, t.detach().clone()) for t in [*net.parameters(), *net.buffers()] if not lazy(t)
        ],
        "gradients": [p.grad for p in net.parameters()],
        "moves": [p.requires_grad for p in net.parameters()],
        "modes": [module.training for module in modules],
        "names": [sorted(module.__dict__) for module in modules],
        "attributes": [
            {k: v for k, v in module.__dict__.items() if isinstance(v, (bool, int, float, str))} for module in modules
        ],
        "hooks": [len(module._forward_hooks) for module in modules],
        "generators": [torch.get_rng_state(), torch.from_numpy(np.random.get_state()[1].copy())],  # noqa: NPY002
    }


def lazy(t):
    return isinstance(t, nn.parameter.UninitializedParameter) or t.is_meta


def the_same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(the_same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(the_same(one[k], other[k]) for k in one)
    return one == other


def changes(before, after):
    return [name for name in before if not the_same(before[name], after[name])]


def close(found, want, bound):
    return bool((found - want).abs().max() <= bound * want.abs().max())


CASES = {
    "seed": st.integers(0, 1000),
    "n": st.sampled_from([1, 2, 3, 5, 8, 9, 20]),
    "zero": st.booleans(),
    "dtype": st.sampled_from(list(DTYPES)),
}


@pytest.mark.filterwarnings("ignore")  # of torch, about what is slow or old
@pytest.mark.parametrize("kind", RIGHT)
@given(**CASES)
@settings(max_examples=4)
def test_right(kind, seed, n, zero, dtype):
    """Kernel, gradients, values and steps are those of autograd on the batch, and nothing is changed."""
    bound = DTYPES[dtype]
    net, (x, chosen) = built(kind, seed, dtype), drawn(kind, seed, n, zero=zero, dtype=dtype)
    before, kept = state(net), x.clone()
    values, J = by_autograd(built(kind, seed, dtype), x, chosen)
    K = ntk.gram(net, x, outputs=chosen, tile=4)
    assert close(K, J @ J.T, bound) and K.dtype == dtype and not K.requires_grad
    assert close(ntk.per_sample_gradients(net, x, outputs=chosen), J, bound)
    line = ntk.linearize(net, x, outputs=chosen)
    weights = torch.linspace(-1, 2, n, dtype=dtype)
    step = torch.cat([slope.ravel() for slope in line.pull_back(weights)])
    assert close(line.values, values, bound)
    assert (step - J.T @ weights).norm() <= bound * (J.T * weights).norm()
    y, other = drawn(kind, seed + 7, 4, dtype=dtype)
    H = by_autograd(built(kind, seed, dtype), y, other)[1]
    wide = ntk.gram(net, x, y, outputs=chosen, y_outputs=other, tile=4)
    assert (wide - J @ H.T).abs().max() <= bound * J.norm(dim=1).max() * H.norm(dim=1).max()
    assert changes(before, state(net)) == [] and torch.equal(x, kept)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", REFUSED)
@given(seed=CASES["seed"], n=st.sampled_from([5, 8, 9, 20]), zero=CASES["zero"], dtype=CASES["dtype"])
@settings(max_examples=4)
def test_refused(kind, seed, n, zero, dtype):
    """By an error that names the cause and the way round, whichever way is asked; then all is as it was."""
    words = REFUSED[kind][1]
    net, (x, chosen) = built(kind, seed, dtype), drawn(kind, seed, n, zero=zero, dtype=dtype)
    before, kept = state(net), x.clone()
    for look in (ntk.gram, ntk.per_sample_gradients, ntk.linearize):
        if words == HAND and look is ntk.per_sample_gradients:  # the way round, and it is one
            J = by_autograd(built(kind, seed, dtype), x, chosen)[1]
            assert close(look(net, x, outputs=chosen), J, DTYPES[dtype])
            continue
        with pytest.raises(ValueError, match=r"^net must (.|\n)*" + re.escape(words)):
            look(net, x, outputs=chosen)
    assert changes(before, state(net)) == [] and torch.equal(x, kept)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [kind for kind in REFUSED if REFUSED[kind][1] in (BATCH, EVAL)])
@pytest.mark.parametrize("what", ["one row", "two rows", "rows of zeros", "the same row"])
def test_little_evidence(kind, what):
    """One row sees nobody, and 0 = 0: rows nearby are asked."""
    net, (x, chosen) = built(kind, 3), drawn(kind, 3, {"one row": 1, "two rows": 2}.get(what, 6))
    if what == "rows of zeros":
        x = torch.zeros_like(x)
    elif what == "the same row":
        x = x[:1].expand_as(x).clone()
    own = kind == "batch norm by hand" and what == "one row"  # torch refuses it before we do
    with pytest.raises(ValueError, match=r"^Expected more than 1 value" if own else r"^net must "):
        ntk.gram(net, x, outputs=chosen)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", RIGHT)
def test_half_precision(kind):
    """The slack knows the dtype: rounding in bfloat16 is no complaint where torch has the operations."""
    net, (x, chosen) = built(kind, 0, torch.bfloat16), drawn(kind, 0, 20, dtype=torch.bfloat16)
    try:
        J = by_autograd(built(kind, 0, torch.bfloat16), x, chosen)[1].double()
    except (RuntimeError, NotImplementedError):
        pytest.skip("torch has no such operation in bfloat16")
    K = ntk.gram(net, x, outputs=chosen).double()
    assert (K - J @ J.T).abs().max() <= 0.1 * (J @ J.T).abs().max()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*RIGHT, *REFUSED])
def test_a_network_lives_on(kind):
    """After a kernel, or a refusal, the same network saves, runs and learns."""
    net, (x, chosen) = built(kind, 0), drawn(kind, 0, 6)
    twin = built(kind, 0)
    try:
        ntk.gram(net, x, outputs=chosen)
    except ValueError:
        assert kind in REFUSED
    if kind not in ("scripted",):
        torch.save(net.state_dict(), io.BytesIO())
    if kind in ("lazy", "on the meta device", "complex parameters"):
        return
    for module in (net, twin):
        torch.manual_seed(5)
        module.last = module(x.clone())
    left, right = net.last, twin.last
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("norm", [True, False])
def test_a_bad_row_is_passed_on(bad, norm):
    """A row that is not finite is no evidence; the kernel of the others is as it was."""
    net, (x, _) = stack(*[nn.LayerNorm(8)] * norm, nn.Tanh()).double(), drawn("relu", 0, 12)
    want = ntk.gram(net, x)
    x[4, 2] = bad
    found, keep = ntk.gram(net, x), [k for k in range(12) if k != 4]
    assert not torch.isfinite(found[4]).any()
    torch.testing.assert_close(found[keep][:, keep], want[keep][:, keep])


def test_a_bad_row_hides_nothing():
    """It poisons the mean of the batch, so that nothing is finite and rows nearby are asked."""
    net, (x, _) = Of(lambda s, x: s.net(x - x.mean(0)), net=stack(nn.Tanh())).double(), drawn("relu", 0, 12)
    x[4, 2] = torch.nan
    with pytest.raises(ValueError, match=BATCH):
        ntk.gram(net, x)


def test_kinks_are_no_complaint():
    """Rows on a kink of a rectifier, for the layers and for the rows alone: one or the other side is taken."""
    for norm in (False, True):
        net = Of(
            lambda s, x: s.b(torch.relu(s.a(x) - s.a(x.clone()[torch.arange(len(x))].contiguous()))) + s.c(s.n(x)),
            a=linear(D, 8),
            b=linear(8, 1),
            c=linear(D, 1),
            n=nn.LayerNorm(D) if norm else nn.Identity(),
        ).double()
        assert ntk.gram(net, drawn("relu", 0, 20)[0]).shape == (20, 20)


@pytest.mark.parametrize("where", ["no_grad", "inference", "autocast"])
def test_what_the_caller_switched_off(where):
    """Gradients flow all the same, and in the precision of the network."""
    net, (x, _) = stack(nn.LayerNorm(8), nn.Tanh()), drawn("relu", 0, 12, dtype=torch.float32)
    want = ntk.gram(net, x)
    held = {
        "no_grad": torch.no_grad(),
        "inference": torch.inference_mode(),
        "autocast": torch.autocast("cpu", dtype=torch.bfloat16),
    }[where]
    with held:
        found = ntk.gram(net, x + 0)
    assert torch.equal(found, want)


@pytest.mark.parametrize("fault", [RuntimeError, KeyError, KeyboardInterrupt])
def test_a_forward_that_raises(fault):
    """Buffers, attributes, modes, hooks and generators are put back then too; the error is the network's own."""

    def forward(s, x):
        s.m.add_(1)
        s.calls = 1
        torch.rand(1)
        s.net(x)
        raise fault("no")

    net = Of(forward, net=stack(nn.ReLU()), m=torch.zeros(D)).double()
    before = state(net)
    for look in (ntk.gram, ntk.per_sample_gradients):
        with pytest.raises(fault):
            look(net, drawn("relu", 0, 6)[0])
        assert changes(before, state(net)) == []


class TestHessian:
    """Second derivatives of the output that is meant, in the parameters that a step moves."""

    def by_differences(self, net, x, output, size=1e-5):
        parameters = [p for p in net.parameters() if p.requires_grad]
        rows = []
        for p in parameters:
            for k in range(p.numel()):
                ends = []
                for sign in (1, -2, 1):
                    with torch.no_grad():
                        p.view(-1)[k] += sign * size
                    ends.append(by_autograd(net, x[None], torch.tensor([output]))[1][0])
                rows.append((ends[0] - ends[1]) / (2 * size))
        return torch.stack(rows)

    @pytest.mark.parametrize(
        "kind",
        ["tanh", "three outputs", "layer norm", "frozen bias", "frozen first layer", "tied layers", "parametrized"],
    )
    def test_against_differences(self, kind):
        net, (x, _) = built(kind, 0), drawn(kind, 0, 1)
        for output in range(OUTPUTS.get(kind, 1)):
            found = ntk.hessian(net, x[0], outputs=output)
            want = self.by_differences(net, x[0], output)
            assert found.shape == want.shape == (ntk.per_sample_gradients(net, x, outputs=output).shape[1],) * 2
            torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-7)

    def test_asks_for_the_output(self):
        net, (x, _) = built("three outputs", 0), drawn("relu", 0, 1)
        with pytest.raises(ValueError, match=r"^outputs must say which of the 3 outputs of net is meant$"):
            ntk.hessian(net, x[0])
        with pytest.raises(ValueError, match=re.escape("outputs must hold indices in [0, 2]: outputs[0] is 3")):
            ntk.hessian(net, x[0], outputs=3)

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("kind", ["dropout", "dropout by hand", "noise in the weights", "all frozen", "detached"])
    def test_refused(self, kind):
        net, (x, _) = built(kind, 0), drawn(kind, 0, 1)
        before = state(net)
        with pytest.raises(ValueError, match=r"^net must .*" + re.escape(REFUSED[kind][1])):
            ntk.hessian(net, x[0])
        assert changes(before, state(net)) == []

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("kind", RIGHT)
    def test_changes_nothing(self, kind):
        """Symmetric, or refused where torch has no second derivatives, or none that are right."""
        net, (x, _) = built(kind, 0), drawn(kind, 0, 1)
        before, kept = state(net), x.clone()
        if kind in ("attention over tokens", "transformer", "transformer at rest", "weight norm", "old weight norm"):
            words = "write it out by hand" if "norm" in kind else "is not implemented"
            with pytest.raises(ValueError, match=rf"^net must .* {words}"):
                ntk.hessian(net, x[0])
            assert changes(before, state(net)) == []
            return
        H = ntk.hessian(net, x[0], outputs=0)
        torch.testing.assert_close(H, H.T)
        assert len(H) == sum(p.numel() for p in net.parameters() if p.requires_grad)
        assert changes(before, state(net)) == [] and torch.equal(x, kept)


class TestMemory:
    """What would need more than 2 GB says so before it starts, with the size."""

    @pytest.mark.parametrize(
        ("look", "n", "size"),
        [
            (ntk.hessian, None, "3.0 GB"),
            (ntk.per_sample_gradients, 40_000, "4.4 GB"),
            (ntk.gram, 100_000, "40.0 GB"),
            (ntk.linearize, 100_000, "3.1 GB"),
        ],
        ids=["hessian", "per_sample_gradients", "gram", "linearize"],
    )
    def test_says_so(self, look, n, size):
        net = nn.Sequential(linear(D, 3905, bias=False), linear(3905, 1, bias=False))
        net.register_forward_pre_hook(lambda *_: pytest.fail("it has started"))
        with pytest.raises(ValueError, match=re.escape(f"would need {size} of memory, more than 2 GB")):
            look(net, torch.zeros(*[] if n is None else [n], D))

    def test_below_it_does(self):
        assert ntk.hessian(stack(nn.Tanh()), torch.zeros(D)).shape == (65, 65)


def two_precisions(kind, seen=False):
    """Return a network of which numbers are float32 here and float64 there; its rows see each other if wanted."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        one, two = linear(D, 64), linear(64, 1)
    wide = torch.float32 if kind == "narrow" else torch.float64

    def forward(self, x):
        q = self.two(torch.tanh(self.one(x)).to(self.two.weight.dtype)).to(wide)
        return q - 0.1 * q.mean() if seen else q

    one, two = (one.double() if kind == "narrow" else one), (two if kind == "wide" else two.double())
    return Of(forward, one=one, two=two)


@pytest.mark.parametrize("n", [5, 256])
@pytest.mark.parametrize("kind", ["wide", "narrow", "mixed"])
def test_two_precisions(kind, n):
    """Rows agree to float32 where a number was one on its way, and that is no complaint; a mean over them is one."""
    net, g = two_precisions(kind), torch.Generator().manual_seed(1)
    x = torch.randn(n, D, generator=g).to(net.one.weight.dtype)
    J = by_autograd(net, x, torch.zeros(n, dtype=torch.int64))[1]
    line = ntk.linearize(net, x)
    weights = torch.linspace(-1, 2, n, dtype=line.values.dtype)
    step = torch.cat([slope.ravel() for slope in line.pull_back(weights)])
    for found, want in (
        (ntk.gram(net, x), J @ J.T),
        (line.gram(), J @ J.T),
        (ntk.per_sample_gradients(net, x), J),
        (step, J.T @ weights.to(J.dtype)),
    ):
        assert close(found, want, 1e-4)
    ntk.hessian(net, x[0])
    for ask in (ntk.gram, ntk.linearize, ntk.per_sample_gradients):
        with pytest.raises(ValueError, match="each row on its own"):
            ask(two_precisions(kind, seen=True), x)


class OnePair(nn.Module):
    """Row 5 of a batch sees row 9, and nobody else sees anybody."""

    def __init__(self, gradient_only=False, convolution=False):
        super().__init__()
        first = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 8, 3), nn.Flatten()) if convolution else None
        self.net = nn.Sequential(first or nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.gradient_only = gradient_only

    def forward(self, x):
        q = self.net(x)
        if len(q) < 10:
            return q
        seen = q[9:10] - q[9:10].detach() if self.gradient_only else q[9:10]
        return torch.cat([q[:5], q[5:6] + seen, q[6:]])


class TestFewSeeOthers:
    """That rows see each other need not show in the few rows that are passed once more."""

    @pytest.mark.parametrize("n", [10, 12, 40, 100])
    @pytest.mark.parametrize("convolution", [False, True])
    @pytest.mark.parametrize("ask", [ntk.gram, ntk.linearize, ntk.per_sample_gradients])
    def test_a_pair_in_values(self, n, convolution, ask):
        torch.manual_seed(n)
        with pytest.raises(ValueError, match="each row on its own"):
            ask(OnePair(convolution=convolution).double(), torch.randn(n, 3, dtype=torch.float64))

    @pytest.mark.parametrize("n", [10, 12, 40, 100])
    def test_a_pair_in_gradients(self, n):
        torch.manual_seed(n)
        x = torch.randn(n, 3, dtype=torch.float64)
        with pytest.raises(ValueError, match="gradients of the rows alone do not add up"):
            ntk.per_sample_gradients(OnePair(gradient_only=True).double(), x)

    def test_a_hook_that_changes_a_gradient_is_named(self):
        net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        x = torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        K = ntk.gram(net, x)
        net[0].weight.register_hook(lambda slope: slope.clamp(-1e3, 1e3))  # never reached
        assert torch.equal(ntk.gram(net, x), K)
        net[2].weight.register_hook(lambda slope: slope.clamp(-1e-3, 1e-3))
        for ask in (ntk.gram, ntk.per_sample_gradients):
            with pytest.raises(ValueError, match="no hook of a parameter changes"):
                ask(net, x)
        with pytest.raises(ValueError, match="no hook of a parameter changes"):
            ntk.hessian(net, x[0])
