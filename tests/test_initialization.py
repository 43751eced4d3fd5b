"""First weights, norm layers, and what flows through a model; nets of many kinds, each left as it was."""
import copy
import csv
import math
import random
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from nnlearn.core import ConfigError, generator, seed_everything
from nnlearn.course.explorers import _NORMS, _signals
from nnlearn.initialization import BatchNorm, LayerNorm, RMSNorm, activation_gain, init_weights, signal_report
from nnlearn.signals import SignalReport, followers, listen, matrices_of, trace_calls, untouched

ROOT2 = math.sqrt(2)


# Nets of the kinds that people build


class UNet(nn.Module):
    """Two levels down and up, with skips joined by cat, functional ReLU, and a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.down, self.deep = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.norm, self.up = nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.mix, self.head = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        skip = F.relu(self.down(x))
        x = F.leaky_relu(self.norm(self.deep(F.max_pool2d(skip, 2))), 0.2)
        x = torch.cat([skip, self.up(x)], 1)
        return self.head(F.relu(self.mix(x)))


class Block(nn.Module):
    """A residual block that decides by a shape, which `torch.fx` cannot trace."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1, self.relu = nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.short = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x):
        out = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        out += self.short(x) if out.shape != x.shape else x
        return self.relu(out)


def resnet():
    return nn.Sequential(Block(1, 4), Block(4, 8, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, activation="gelu", batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(self.encoder(self.embed(tokens)))


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(5, 6, num_layers=2, batch_first=True, bidirectional=True), nn.Linear(12, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.join = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(8, 1)
        self.seen = 0

    def forward(self, a, b=None):
        self.seen += 1
        b = a[:, :2] if b is None else b
        return {"score": self.join(torch.cat([self.left(a).tanh(), F.silu(self.right(b))], -1))}


def images(size=8):
    return torch.randn(4, 1, size, size, generator=generator(0))


def tokens():
    return torch.randint(0, 11, (3, 5), generator=generator(0))


NETS = {
    "u-net": (UNet, images), "resnet": (resnet, images), "transformer": (Transformer, tokens),
    "lstm": (Reader, lambda: torch.randn(4, 7, 5, generator=generator(0))),
    "two inputs": (TwoInputs, lambda: (torch.randn(4, 3, generator=generator(0)), torch.randn(4, 2, generator=generator(1)))),
    "named inputs": (TwoInputs, lambda: {"a": torch.randn(4, 3, generator=generator(0))}),
}
each_net = pytest.mark.parametrize("name", NETS)


def net_of(name):
    seed_everything(0)
    make, batch = NETS[name]
    return make(), batch()


def bits(model):
    """Everything that a model and the random generators hold, to be compared bit for bit."""
    tensors = {name: t.detach().clone() for name, t in [*model.named_parameters(), *model.named_buffers()]}
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    modes = [m.training for m in model.modules()]
    plain = [{k: v for k, v in vars(m).items() if isinstance(v, (int, float, str))} for m in model.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    return tensors, grads, modes, plain, hooks, states


def assert_same(before, after):
    for left, right in zip(before[:2], after[:2], strict=True):
        assert left.keys() == right.keys()
        for name in left:
            assert (left[name] is None) == (right[name] is None), name
            assert left[name] is None or torch.equal(left[name], right[name]), name
    assert before[2:5] == after[2:5]
    assert before[5][:2] == after[5][:2] and torch.equal(before[5][2], after[5][2])


# The gain


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.3, 1.0])
def test_gain_of_leaky_relu_is_torchs(slope):
    gain = activation_gain(lambda z: F.leaky_relu(z, slope))
    assert math.isclose(gain, nn.init.calculate_gain("leaky_relu", slope), rel_tol=1e-9)


@pytest.mark.parametrize("f", [torch.tanh, torch.sigmoid, F.gelu, F.silu, F.elu, F.hardswish], ids=lambda f: f.__name__)
def test_gain_is_that_of_many_draws(f):
    z = torch.randn(2_000_000, generator=generator(1), dtype=torch.float64)
    assert math.isclose(activation_gain(f), f(z).square().mean().item() ** -0.5, rel_tol=5e-3)


@settings(deadline=None)
@given(st.floats(0.1, 10), st.floats(0, 1))
def test_gain_undoes_a_factor(factor, slope):
    plain, scaled = (activation_gain(lambda z, k=k: k * F.leaky_relu(z, slope)) for k in (1.0, factor))
    assert math.isclose(plain, factor * scaled, rel_tol=1e-9)


def test_gain_leaves_its_grid_alone_and_refuses_what_gives_nothing():
    assert math.isclose(activation_gain(torch.relu_), ROOT2, rel_tol=1e-9)
    for f in (torch.zeros_like, lambda z: z / 0):
        with pytest.raises(ConfigError, match=r"activation_gain\.activation: the mean square after it is"):
            activation_gain(f)


# init_weights


EXPECTED = {
    "u-net": {"down": ROOT2, "deep": ROOT2 / math.sqrt(1.04), "up": 1.0, "mix": ROOT2, "head": 1.0},
    "resnet": {"0.conv1": ROOT2, "0.conv2": ROOT2, "0.short": ROOT2, "1.conv1": ROOT2, "1.conv2": ROOT2, "1.short": ROOT2, "4": 1.0},
    "lstm": {"lstm": 1.0, "head": 1.0},
    "two inputs": {"left": activation_gain(torch.tanh), "right": activation_gain(F.silu), "join": 1.0},
}
EXPECTED["named inputs"] = EXPECTED["two inputs"]


@each_net
def test_gains_of_real_nets(name):
    model, batch = net_of(name)
    gains = init_weights(model, batch=batch)
    if name == "transformer":
        assert {gain for key, gain in gains.items() if key.endswith("linear1")} == {activation_gain(F.gelu)}
        assert {gain for key, gain in gains.items() if not key.endswith("linear1")} == {1.0}
        return
    assert gains == pytest.approx(EXPECTED[name], rel=1e-6)


def test_tracing_and_running_agree():
    for name in ("u-net", "lstm", "two inputs"):
        model, batch = net_of(name)
        assert init_weights(copy.deepcopy(model)) == init_weights(model, batch=batch)


@pytest.mark.parametrize("scheme", ["he", "xavier", "orthogonal"])
def test_what_is_drawn(scheme):
    model = nn.Sequential(nn.Linear(300, 200), nn.Tanh(), nn.Conv1d(200, 100, 3))
    init_weights(model, scheme, gain=2.0, seed=0)
    linear, conv = model[0].weight, model[2].weight
    assert not model[0].bias.any() and not model[2].bias.any()
    if scheme == "orthogonal":
        assert torch.allclose(linear @ linear.T, 4 * torch.eye(200), atol=1e-4)
        flat = conv.flatten(1)
        assert torch.allclose(flat @ flat.T, 4 * torch.eye(100), atol=1e-4)
        return
    fans = [(300, 200), (600, 300)] if scheme == "xavier" else [(300, 300), (600, 600)]
    for weight, (ins, outs) in zip((linear, conv), fans, strict=True):
        assert math.isclose(weight.std().item(), 2 / math.sqrt((ins + outs) / 2), rel_tol=0.03)
        assert abs(weight.mean().item()) < 0.03 * weight.std().item()


@pytest.mark.parametrize("layer", [
    nn.Linear(256, 128), nn.Conv2d(32, 64, 3), nn.Conv2d(32, 64, 3, groups=4), nn.Conv2d(64, 64, 3, groups=64, stride=2),
    nn.ConvTranspose2d(64, 32, 2, stride=2), nn.ConvTranspose2d(64, 32, 4, stride=2), nn.ConvTranspose1d(64, 32, 4, groups=2, stride=2),
    nn.Conv3d(8, 16, 3, stride=(1, 2, 1))], ids=str)
def test_variance_is_kept_by_every_layer(layer):
    """Away from the borders the outputs of a layer have the mean square of its inputs; the same holds backward with fan_out."""
    init_weights(layer, gain=1.0, seed=0)
    size = {2: (4000,), 3: (8,), 4: (8,), 5: (4,)}[layer.weight.ndim]
    space = (12,) * (layer.weight.ndim - 2)
    channels = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    x = torch.randn(*size, channels, *space, generator=generator(1), requires_grad=True)
    out = layer(x)
    inner = (slice(None), slice(None), *(slice(3, -3) if n > 8 else slice(1, -1) for n in out.shape[2:]))
    assert 0.75 < out[inner].square().mean() < 1.3
    fan_in, fan_out = matrices_of(layer)[0][2:]
    back, = torch.autograd.grad(out, x, torch.randn(out.shape, generator=generator(2)))
    inner = (slice(None), slice(None), *(slice(3, -3) for _ in space))
    assert 0.75 < back[inner].square().mean() * fan_in / fan_out < 1.3


def test_each_gate_and_each_projection_is_a_matrix_of_its_own():
    lstm, attention = nn.LSTM(6, 6, proj_size=3), nn.MultiheadAttention(8, 2)
    init_weights(lstm, "orthogonal", seed=0)
    init_weights(attention, "orthogonal", seed=0)
    for matrix in [*lstm.weight_ih_l0.chunk(4), *attention.in_proj_weight.chunk(3), attention.out_proj.weight]:
        assert torch.allclose(matrix @ matrix.T, torch.eye(len(matrix)), atol=1e-5)
    assert torch.allclose(lstm.weight_hr_l0 @ lstm.weight_hr_l0.T, torch.eye(3), atol=1e-5)
    assert not any(p.any() for name, p in lstm.named_parameters() if "bias" in name)
    assert not attention.in_proj_bias.any() and not attention.out_proj.bias.any()
    other = nn.MultiheadAttention(8, 2, kdim=4, vdim=5, add_bias_kv=True)
    kept = other.bias_k.clone()
    init_weights(other, seed=0)
    assert torch.equal(kept, other.bias_k) and 0.3 < other.k_proj_weight.std() < 0.8


def test_norms_embeddings_frozen_and_foreign_parameters_are_left_alone():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.inside = nn.Parameter(torch.full((4,), 7.0)), nn.Linear(4, 4)

        def forward(self, x):
            return self.inside(x) * self.scale

    model = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), Scaled(), nn.Linear(4, 4), nn.PReLU())
    for layer in (model[1], model[3]):
        nn.init.constant_(layer.bias, 3.0)
    model[3].requires_grad_(False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    init_weights(model, seed=0)
    changed = {name for name, p in model.named_parameters() if not torch.equal(before[name], p)}
    assert changed == {"2.inside.weight", "2.inside.bias"}


def test_tied_weights_are_drawn_once_and_those_of_an_embedding_never():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    init_weights(model, gain={"0": 1.0, "2": 100.0}, seed=0)
    assert model[2].weight is model[0].weight and model[0].weight.abs().max() < 5
    untied = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    init_weights(untied, gain=1.0, seed=0)
    assert torch.equal(untied[0].weight, model[0].weight)  # nothing was drawn in between
    transformer, batch = net_of("transformer")
    before = transformer.embed.weight.clone()
    init_weights(transformer, batch=batch)
    assert torch.equal(before, transformer.embed.weight) and transformer.head.weight is transformer.embed.weight


def test_seeds(monkeypatch):
    def weights(seed, shift="0"):
        monkeypatch.setenv("NNLEARN_SEED_SHIFT", shift)
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        init_weights(model, seed=seed)
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))
    assert torch.equal(weights(1, "5"), weights(6)) and not torch.equal(weights(1, "5"), weights(1))
    first, second = weights(None), weights(None)
    assert not torch.equal(first, second)
    seed_everything(3)
    again = torch.get_rng_state()
    nn.Linear(3, 4), nn.Linear(4, 2)  # what making the model draws
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    torch.set_rng_state(again)
    init_weights(model)
    one = model[0].weight.clone()
    torch.set_rng_state(again)
    init_weights(model)
    assert torch.equal(one, model[0].weight)


def test_half_precision_and_float64_get_the_same_weights_rounded():
    models = [nn.Linear(8, 8).to(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float64)]
    for model in models:
        init_weights(model, seed=0)
    assert torch.equal(models[0].weight.bfloat16(), models[1].weight)
    assert torch.equal(models[0].weight.double(), models[2].weight)


def test_a_pending_backward_pass_notices_that_weights_changed():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    loss = model(torch.ones(2, 3)).sum()
    init_weights(model, gain=1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


ACTIVATIONS = [nn.ReLU(), nn.ReLU(inplace=True), nn.LeakyReLU(0.3), nn.ELU(0.5), nn.GELU("tanh"), nn.SiLU(), nn.Mish(),
               nn.Hardtanh(-0.5, 0.5),
               nn.Softplus(beta=2), nn.Tanh(), nn.Sigmoid(), nn.CELU(2.0), nn.ReLU6(), nn.Hardswish(), nn.Softsign()]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_gain_uses_the_activations_own_arguments(activation):
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), activation, nn.Linear(4, 1))
    expected = activation_gain(lambda z: activation(z.clone()))
    for batch in (None, torch.ones(2, 3)):
        assert math.isclose(init_weights(model, batch=batch)["0"], expected, rel_tol=1e-9)


class Bent(nn.Module):
    def __init__(self, bend):
        super().__init__()
        self.inside, self.bend, self.slopes = nn.Linear(4, 4), bend, nn.Parameter(torch.tensor([0.1, 0.2, 0.3, 0.4]))

    def forward(self, x):
        return self.bend(self.inside(x), self.slopes)


@pytest.mark.parametrize(("bend", "same"), [
    (lambda z, _: F.relu(z), F.relu), (lambda z, _: z.relu(), F.relu), (lambda z, _: torch.relu(z), F.relu),
    (lambda z, _: z.relu_(), F.relu), (lambda z, _: z.clamp(min=0), F.relu),
    (lambda z, _: F.leaky_relu(z, 0.3), lambda z: F.leaky_relu(z, 0.3)),
    (lambda z, _: F.gelu(z, approximate="tanh"), lambda z: F.gelu(z, approximate="tanh")),
    (lambda z, _: torch.sin(z), torch.sin), (lambda z, _: (z.view(-1, 2, 2).mean(1) + 1).tanh(), torch.tanh),
    (lambda z, _: z.softmax(-1), lambda z: z), (lambda z, _: z, lambda z: z),
    (lambda z, _: torch.stack([z, z]).sum(0).sigmoid(), torch.sigmoid), (lambda z, _: (z.softmax(-1) - 0.1).relu(), lambda z: z)])
def test_functions_and_methods_are_seen(bend, same):
    model = Bent(bend)
    for batch in (None, torch.ones(2, 4)):
        assert math.isclose(init_weights(model, batch=batch)["inside"], activation_gain(same), rel_tol=1e-9)


def test_a_trace_takes_the_defaults_of_forward():
    class Optional(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = nn.Linear(4, 4)

        def forward(self, x, bend=None):
            return self.inside(x) if bend is None else bend(self.inside(x)).relu()

    assert init_weights(Optional()) == {"inside": 1.0}


def test_slopes_that_differ_by_channel_count_by_their_mean_square():
    expected = math.sqrt(2 / (1 + torch.tensor([0.1, 0.2, 0.3, 0.4]).square().mean().item()))
    model = nn.Sequential(nn.Linear(4, 4), nn.PReLU(4))
    model[1].weight.data = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert math.isclose(init_weights(model)["0"], expected, rel_tol=1e-6)
    assert math.isclose(init_weights(Bent(F.prelu), batch=torch.ones(2, 4))["inside"], expected, rel_tol=1e-6)
    state = torch.get_rng_state()
    gain = init_weights(nn.Sequential(nn.Linear(4, 4), nn.RReLU(0.2, 0.4)), seed=0)["0"]
    assert math.isclose(gain, math.sqrt(2 / 1.09), rel_tol=1e-6)
    assert state.shape == torch.get_rng_state().shape


def test_shared_activation_and_shared_layer():
    relu, layer = nn.ReLU(), nn.Linear(4, 4)
    model = nn.Sequential(layer, relu, layer, relu, nn.Linear(4, 1))
    assert init_weights(model) == {"0": pytest.approx(ROOT2), "4": 1.0}


class TwoWays(nn.Module):
    def __init__(self, first=torch.tanh, second=torch.sigmoid):
        super().__init__()
        self.both, self.idle, self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4), first, second

    def forward(self, x):
        z = self.both(x)
        return self.first(z) + self.second(z)


def refused(match, model, **options):
    before = {name: p.detach().clone() for name, p in model.named_parameters() if not p.is_meta and not nn.parameter.is_lazy(p)}
    with pytest.raises(ConfigError, match=match):
        init_weights(model, **options)
    assert all(torch.equal(p, dict(model.named_parameters())[name]) for name, p in before.items())


def test_refusals_change_nothing():
    refused(r"layer 'both' is followed by sigmoid and tanh, which have different gains; pass gain=\{'both': 1.0\}", TwoWays())
    refused(r"layer 'idle' does not run", TwoWays(F.relu, torch.relu))
    refused(r"init_weights, 1: the weight of LazyLinear is uninitialized; run one batch first",
            nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3)))
    refused(r"on the meta device", nn.Sequential(nn.Linear(2, 2), nn.Conv2d(1, 1, 1, device="meta")))
    refused(r"cannot be traced without a batch .*Pass batch=", resnet())
    refused(r"init_weights\.batch: the model cannot run it: .*without targets", nn.Linear(3, 2), batch=torch.ones(2, 4))
    refused(r"init_weights\.batch: expected a tensor", nn.Linear(3, 2), batch="digits")
    refused(r"no layer 'boht'\. Did you mean 'both'\?", TwoWays(), gain={"boht": 1.0})
    refused(r"init_weights\.gain\['both'\]: expected a number of at least 0, got -1", TwoWays(), gain={"both": -1, "idle": 1})
    refused(r"init_weights\.scheme: expected one of 'he', 'xavier', 'orthogonal', got 'hee'", nn.Linear(2, 2), scheme="hee")
    refused(r"init_weights\.gain: expected", nn.Linear(2, 2), gain="relu")
    refused(r"computed from other parameters", nn.Sequential(nn.Linear(2, 2), torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))))
    pruned = nn.Sequential(nn.Linear(2, 2))
    prune.l1_unstructured(pruned[0], "weight", 0.5)
    refused(r"computed from other parameters \(weight norm, a pruning mask\)", pruned)
    with pytest.raises(ConfigError, match=r"init_weights\.model: expected a Module, got function"):
        init_weights(lambda x: x)


def test_refusals_can_be_answered():
    assert init_weights(TwoWays(), gain={"both": 1.3, "idle": 0}) == {"both": 1.3, "idle": 0.0}
    assert init_weights(TwoWays(F.relu, torch.relu), gain={"idle": 2}) == {"both": pytest.approx(ROOT2), "idle": 2.0}
    assert init_weights(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), gain={}) == {"0": pytest.approx(ROOT2), "2": 1.0}
    assert init_weights(nn.Sequential(nn.ReLU())) == {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a layer without inputs
        empty = nn.Sequential(nn.Linear(0, 3), nn.ReLU())
    for scheme in ("he", "xavier", "orthogonal"):
        init_weights(empty, scheme)
    assert init_weights(resnet(), gain=0.5)["4"] == 0.5  # nothing has to be looked up


@each_net
def test_looking_for_activations_leaves_the_rest_of_the_model_alone(name):
    model, batch = net_of(name)
    before = bits(model)
    followers(model, batch)
    assert_same(before, bits(model))


# signal_report


@each_net
def test_report_of_real_nets_leaves_them_bit_identical(name):
    model, batch = net_of(name)
    for p in list(model.parameters())[::2]:
        p.grad = torch.ones_like(p)
    next(iter(model.children())).eval()
    before, versions = bits(model), [p._version for p in model.parameters()]
    report = signal_report(model, batch)
    assert_same(before, bits(model))
    assert versions == [p._version for p in model.parameters()]
    assert len(report) >= 2 and all(math.isfinite(s.variance) and math.isfinite(s.mean) for s in report)
    assert sum(math.isfinite(s.grad_variance) for s in report) >= len(report) - 1
    assert str(report) == str(signal_report(model, batch))


class Breaks(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.drop = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout()
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("hidden", torch.zeros(2), persistent=False)
        self.last = torch.zeros(3)
        self.steps = 0

    def forward(self, x):
        x = self.drop(self.norm(self.layer(x)))
        random.random(), np.random.rand()
        self.count = self.count + 1
        self.hidden += 1
        self.last[:] = x.detach().mean(0)
        self.steps += 1
        self.late = torch.ones(1)
        with torch.no_grad():
            self.layer.weight.mul_(2)
        self.eval()
        raise RuntimeError("half way")


def test_report_leaves_a_model_that_raises_as_it_was():
    model = Breaks()
    before, last, count = bits(model), model.last, model.count
    with pytest.raises(ConfigError, match="half way") as caught:
        signal_report(model, torch.randn(4, 3, generator=generator(0)))
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert_same(before, bits(model))
    assert model.last is last and model.count is count and not last.any() and not hasattr(model, "late")
    with pytest.raises(ZeroDivisionError):
        signal_report(nn.Sequential(nn.BatchNorm1d(3)), torch.ones(4, 3), lambda out: 1 / 0)
    model = nn.Sequential(nn.BatchNorm1d(3))
    before = bits(model)
    for wrong in (lambda out: out, lambda out: 3.0):
        with pytest.raises(ConfigError, match=r"signal_report\.loss_fn: expected one number as a tensor"):
            signal_report(model, torch.arange(12.0).view(4, 3), wrong)
    assert_same(before, bits(model))


def test_a_pending_backward_pass_survives_a_report():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(inplace=True), nn.Linear(3, 1))
    x = torch.randn(5, 3, generator=generator(0))
    loss = model(x).sum()
    signal_report(model, x)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_report_says_what_autograd_says():
    seed_everything(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))
    x, labels = torch.randn(8, 4, generator=generator(0)), torch.arange(8) % 3
    report = signal_report(model, x, lambda out: F.cross_entropy(out, labels))
    z = model[0](x)
    h = z.relu()
    out = model[2](h)
    tensors = [z, h, out]
    gradients = torch.autograd.grad(F.cross_entropy(out, labels), tensors)
    for row, t, g in zip(report, tensors, gradients, strict=True):
        expected = [statistic for v in (t, g) for statistic in (v.mean(), v.var(correction=0), (v == 0).all(0).float().mean())]
        assert torch.allclose(torch.tensor(row[2:]), torch.stack(expected), rtol=1e-5, atol=1e-7)


def test_random_gradient_has_variance_one_at_the_output():
    report = signal_report(nn.Linear(3, 400), torch.ones(50, 3))
    assert report[0].name == "model" and abs(report[0].grad_variance - 1) < 0.05 and abs(report[0].grad_mean) < 0.05


def test_dead_units_are_those_that_are_zero_for_the_whole_batch():
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
    model[0].weight.data = torch.tensor([[1.0, 0], [0, 1], [-1, -1], [1, -1]])
    model[0].bias.data.zero_()
    report = signal_report(model, torch.tensor([[1.0, 2.0], [3.0, 1.0]]))
    assert report[1].dead == 0.25 and report[0].dead == 0
    assert report[0].grad_dead == 0.25  # nothing flows back through a dead unit


def test_report_names_functions_repeats_and_missing_gradients():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return F.relu(self.layer(self.layer(x).tanh()))

    report = signal_report(nn.Sequential(Twice()), torch.ones(2, 3))
    assert [s.name for s in report] == ["0.layer", "0.tanh()", "0.layer #2", "0.relu()"]
    frozen = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).requires_grad_(False)
    assert all(math.isnan(s.grad_variance) for s in signal_report(frozen, torch.ones(2, 3)))
    frozen[1].requires_grad_(True)
    first, second = signal_report(frozen, torch.ones(2, 3))
    assert math.isnan(first.grad_mean) and math.isfinite(second.grad_mean)
    with torch.no_grad():
        assert math.isfinite(signal_report(nn.Linear(3, 2), torch.ones(2, 3))[0].grad_variance)
    with pytest.raises(ConfigError, match="no layer of torch.nn and no activation ran"):
        signal_report(nn.Sequential(), torch.ones(2))


def test_report_as_table_file_and_picture(tmp_path):
    import matplotlib.pyplot as plt
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    report = signal_report(model, torch.ones(4, 3))
    assert isinstance(report, SignalReport) and repr(report) == str(report)
    lines = str(report).splitlines()
    assert len(lines) == 4 and lines[0].split()[:2] == ["name", "kind"] and len({len(line) for line in lines}) == 1
    report.to_csv(tmp_path / "signals.csv")
    with open(tmp_path / "signals.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["0", "1", "2"] and float(rows[0]["mean"]) == report[0].mean
    ax = report.plot()
    assert ax.get_yscale() == "log" and len(ax.lines) == 2
    assert np.array_equal(ax.lines[0].get_ydata(), [s.variance or math.nan for s in report], equal_nan=True)
    assert report.plot(ax) is ax
    plt.close("all")


# Norm layers


PAIRS = [(BatchNorm(5, 1e-3, 0.3), nn.BatchNorm1d(5, 1e-3, 0.3), (8, 5)), (BatchNorm(5), nn.BatchNorm1d(5), (4, 5, 3)),
         (BatchNorm(5), nn.BatchNorm2d(5), (1, 5, 3, 2)), (BatchNorm(5), nn.BatchNorm3d(5), (2, 5, 2, 2, 2)),
         (LayerNorm(5, 1e-3), nn.LayerNorm(5, 1e-3), (2, 3, 5)), (LayerNorm(5), nn.LayerNorm(5), (5,)),
         (RMSNorm(5, 1e-3), nn.RMSNorm(5, 1e-3), (2, 3, 5)), (RMSNorm(1), nn.RMSNorm(1, 1e-6), (4, 1))]


@pytest.mark.parametrize(("ours", "theirs", "shape"), PAIRS, ids=lambda v: str(v) if isinstance(v, tuple) else type(v).__name__)
def test_norms_are_torchs(ours, theirs, shape):
    ours, theirs, rng = copy.deepcopy(ours).double(), copy.deepcopy(theirs).double(), generator(3)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        p.data = torch.randn(p.shape, generator=rng, dtype=torch.float64)
        q.data = p.data.clone()
    for mode in (True, True, True, False, True, False):
        x = 5 + 3 * torch.randn(shape, generator=rng, dtype=torch.float64)
        got = []
        for norm in (ours.train(mode), theirs.train(mode)):
            leaf = x.clone().requires_grad_()
            out = norm(leaf)
            got.append([out, *torch.autograd.grad(out.pow(3).sum(), [leaf, *norm.parameters()])])
        for a, b in zip(*got, strict=True):
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)
        for name, buffer in ours.named_buffers():
            assert torch.allclose(buffer, getattr(theirs, name), rtol=1e-12, atol=1e-12), name


def test_norms_take_torchs_state_and_refuse_a_batch_of_one():
    theirs = nn.BatchNorm1d(3)
    theirs(torch.randn(6, 3, generator=generator(0)))
    ours = BatchNorm(3)
    assert ours.load_state_dict(theirs.state_dict(), strict=False).missing_keys == []
    x = torch.randn(1, 3, generator=generator(1))
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-6)
    with pytest.raises(ConfigError, match="BatchNorm: one value per feature has no variance"):
        ours.train()(x)
    assert torch.equal(ours.running_mean, theirs.running_mean)  # the refusal came before the statistics moved
    ours.train()(torch.randn(1, 3, 2, generator=generator(1)))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(2, 6), st.floats(0.01, 100), st.floats(-50, 50))
def test_norms_undo_scale_and_shift(rows, features, scale, shift):
    x = torch.randn(rows, features, generator=generator(rows + 10 * features), dtype=torch.float64)
    for norm, moved in [(BatchNorm(features, eps=0.0), scale * x + shift), (LayerNorm(features, eps=0.0), scale * x + shift),
                        (RMSNorm(features, eps=0.0), scale * x)]:
        assert torch.allclose(norm.double()(x), norm(moved), atol=1e-5)


# Listening


def test_untouched_keeps_identity_versions_and_what_an_attribute_was():
    model = Breaks()
    model.layer.weight.grad = torch.ones(3, 3)
    grad, weight, version = model.layer.weight.grad, model.layer.weight, model.layer.weight._version
    with untouched(model):
        model.layer.weight.grad.add_(1)
        model.layer.bias.grad = torch.ones(3)
        model.norm.weight.grad, model.layer.weight.grad = torch.ones(3), None
        model.layer.weight.data.fill_(torch.nan)
        model.layer.weight = nn.Parameter(torch.zeros(2, 2))
        model.extra = nn.Linear(2, 2)
        del model.norm
        model.steps, model.training = 9, False
    assert model.layer.weight is weight and weight.grad is grad and (grad == 1).all() and weight.isfinite().all()
    assert model.layer.bias.grad is None and model.norm.weight.grad is None
    assert weight._version == version and not hasattr(model, "extra") and isinstance(model.norm, nn.BatchNorm1d)
    assert model.steps == 0 and model.training


def test_calls_of_a_run_and_of_a_trace_are_the_same():
    for name in ("u-net", "lstm"):
        model, batch = net_of(name)
        run, traced = [], []
        listen(model, batch, run.append)
        trace_calls(model, traced.append)
        assert [call.kind for call in run if call.kind != "getitem"] == [c.kind for c in traced if c.kind != "getitem"]


def test_a_listener_is_not_heard_and_hooks_go():
    model, kinds = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), []

    def hear(call):
        kinds.append(call.kind)
        torch.relu(call.outputs[0]).sum()

    listen(model, torch.ones(1, 2), hear)
    assert kinds == ["Linear", "ReLU"] and not model[0]._forward_hooks and not model[0]._forward_pre_hooks
    with pytest.raises(ConfigError):
        listen(model, torch.ones(1, 3), hear)
    assert not model[0]._forward_hooks and not model._forward_pre_hooks


# What the lesson promises of depth, and its explorer


def test_init_weights_keeps_a_deep_net_alive():
    x = torch.randn(200, 64, generator=generator(0))
    seed_everything(0)
    net = nn.Sequential(*[part for _ in range(20) for part in (nn.Linear(64, 64), nn.ReLU())])
    dead = signal_report(net, x)
    for scheme in ("he", "xavier", "orthogonal"):
        init_weights(net, scheme, seed=0)
        alive = signal_report(net, x)
        spread = [s.variance for s in alive if s.kind == "Linear"]
        assert max(spread) / min(spread) < 100 and alive[0].grad_variance > 1e6 * dead[0].grad_variance


def test_explorer_shows_what_the_lesson_says():
    flat = _signals(1.41, 40, "ReLU", "none")
    assert all(0.02 < curve.min() and curve.max() < 50 for curve in flat)
    fading = _signals(1.0, 40, "ReLU", "none")[0]
    assert fading[-1] < 1e-8 * fading[0]
    for gain in (0.58, 1.8):
        forward = _signals(gain, 20, "ReLU", "layer norm")[0]
        assert 0.5 < forward[-1] / forward[0] < 2
    growing = _signals(1.41, 40, "ReLU", "batch norm")[1]
    assert growing[0] > 100 * growing[-1]
    x = 3 + torch.randn(2, 50, 4, generator=generator(0))
    normed = _NORMS["batch norm"](x)
    assert normed.mean(1).abs().max() < 1e-4 and torch.allclose(normed.std(1), torch.ones(2, 4), atol=1e-3)


def test_names_at_the_top():
    import nnlearn
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert nnlearn.init_weights is init_weights and nnlearn.signal_report is signal_report
    assert "signal_report" in nnlearn.initialization.__all__
