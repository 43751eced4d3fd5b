"""Nets that compression once got silently wrong, or failed on without a word: the right values, and refusals before work is lost."""
import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnlearn.channels import time_limit
from nnlearn.core import ConfigError
from nnlearn.distillation import DistillationLoss, FeatureDistillation
from nnlearn.export import export_onnx, fold_batch_norm
from nnlearn.integers import HistogramObserver, MovingAverageObserver, PercentileObserver, quantize_linears
from nnlearn.measure import operations
from nnlearn.models import MODELS
from nnlearn.onnx_files import level_of
from nnlearn.pipeline import Model, ModelOptimizer, load_config, load_net, save_net
from nnlearn.programs import int8_kernels
from nnlearn.pruning import prune_structured
from nnlearn.quantization import prepare_qat, quantize_model
from nnlearn.runtimes import OnnxModel


def made(fn):
    "The same weights, whatever was drawn before."
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return fn()


def off(found, wanted):
    return float((found.detach() - wanted.detach()).norm() / wanted.detach().norm())


# ---- folding

class Heads(nn.Module):
    "One convolution, a batch norm for each level."

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])

    def forward(self, x):
        return self.norms[0](self.conv(x)).mean((2, 3)) + self.norms[1](self.conv(x[..., ::2, ::2])).mean((2, 3))


class TwoReaders(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


def tied():
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 3))
    net[3].weight = net[0].weight
    return net


FOLDED = {
    "heads": Heads, "two readers": TwoReaders, "tied": tied,
    "plain": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
    "weight_norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8)),
    "no statistics": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(3, 8, 3), nn.BatchNorm2d(8)),
    "linear over steps": lambda: nn.Sequential(nn.Flatten(2), nn.Linear(64, 3), nn.BatchNorm1d(3))}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
@pytest.mark.parametrize("name", FOLDED)
def test_folding_keeps_the_outputs(name):
    net, x = made(FOLDED[name]), made(lambda: torch.randn(32, 3, 8, 8) * 3 + 1)
    for _ in range(30):
        net(x)
    norms = [type(m) for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    folded = fold_batch_norm(net)
    torch.testing.assert_close(folded(x), net.eval()(x), rtol=1e-4, atol=1e-4)
    left = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in folded.modules())
    assert left == (0 if name == "plain" else len(norms))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_what_torch_cannot_copy_is_refused_in_words():
    net = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)), nn.ReLU())
    net(torch.randn(2, 4))
    masked = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    torch.nn.utils.prune.l1_unstructured(masked[0], "weight", 0.5)
    masked(torch.randn(2, 4))
    for model in (net, masked):
        for fn in (fold_batch_norm, lambda m: quantize_model(m, example=torch.randn(2, 4)), lambda m: prepare_qat(m, torch.randn(2, 4))):
            with pytest.raises(ConfigError, match="make_permanent"):
                fn(model)


def test_the_pipeline_folds_nothing_that_is_shared():
    net, x = made(Heads), made(lambda: torch.randn(32, 3, 8, 8) * 3 + 1)
    for _ in range(30):
        net(x)
    half = ModelOptimizer({"training": {"quantization": {"format": "float16"}}}, verbose=0).apply_quantization(net.eval(), x)
    assert off(half(x), net(x)) < 0.01


# ---- training under fake quantization

def test_qat_keeps_the_dropout():
    for share in (0.1, 0.8):
        net = nn.Sequential(nn.Linear(64, 64), nn.Dropout(share))
        net[0].weight.data, net[0].bias.data = torch.eye(64), torch.zeros(64)
        aware = prepare_qat(net, torch.ones(8, 64))
        assert float((aware(torch.ones(2000, 64)) == 0).float().mean()) == pytest.approx(share, abs=0.02)
        aware.eval()
        assert float((aware(torch.ones(20, 64)) == 0).float().mean()) == 0
        aware.train()
        assert float((aware(torch.ones(2000, 64)) == 0).float().mean()) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("settings", [{"eps": 1e-3, "momentum": 0.01}, {"eps": 1e-7, "momentum": 0.3}, {}])
def test_qat_keeps_epsilon_and_momentum(settings):
    net = made(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, **settings), nn.Flatten(), nn.Linear(288, 4)))
    x = made(lambda: torch.randn(64, 3, 8, 8) * 0.05)
    for _ in range(800):
        net(x)
    aware = prepare_qat(net, x)
    aware(1.2 * x)
    name = next(name for name, _ in aware.graph.named_buffers() if name.endswith("running_var"))
    net.train()(1.2 * x)
    wanted = net.eval()(x).detach()
    torch.testing.assert_close(aware.graph.get_buffer(name), net[1].running_var, rtol=1e-2, atol=1e-6)
    aware.eval()
    assert off(aware(x), wanted) < 0.05 and off(aware.convert()(x), wanted) < 0.05
    assert aware.training is False and off(aware.convert()(x), aware(x)) < 0.05  # converting twice is the same


ONLY_TRAINING = {
    "Dropout2d": (lambda: nn.Dropout2d(0.3), (4, 4, 4)), "AlphaDropout": (lambda: nn.AlphaDropout(0.3), (4, 4, 4)),
    "FeatureAlphaDropout": (lambda: nn.FeatureAlphaDropout(0.3), (4, 4, 4)), "RReLU": (nn.RReLU, (4, 4, 4)),
    "attention": (lambda: nn.TransformerEncoderLayer(16, 2, 32, dropout=0.2, batch_first=True), (4, 16))}


@pytest.mark.parametrize("name", ONLY_TRAINING)
def test_what_happens_only_in_training_ends_with_it(name):
    make, shape = ONLY_TRAINING[name]
    net = made(lambda: nn.Sequential(make(), nn.Flatten(), nn.Linear(64, 3)))
    x = made(lambda: torch.randn(8, *shape))
    aware = prepare_qat(net, x)
    assert not torch.equal(aware(x), aware(x))  # random while it trains
    aware.eval()
    converted = aware.convert()
    assert torch.equal(aware(x), aware(x)) and torch.equal(converted(x), converted(x))
    assert off(aware(x), net.eval()(x)) < 0.1


class Noisy(nn.Module):
    "Noise of its own: a graph keeps it."

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        x = self.layer(x)
        return x + 0.3 * torch.randn_like(x) if self.training else x


class Branch(Noisy):
    def forward(self, x):
        return self.layer(2 * x if self.training else x)


def test_other_training_behaviour_is_refused():
    for kind, words in ((Noisy, "random in eval mode"), (Branch, "another one in eval mode")):
        net = kind()
        with pytest.raises(ConfigError, match=words):
            prepare_qat(net, torch.randn(4, 8))
        assert net.training


def test_preparing_leaves_ranges_and_statistics_alone():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    aware = prepare_qat(net, torch.randn(4, 1, 8, 8) * 100)
    for name, tensor in aware.graph.state_dict().items():
        if name.endswith(("running_mean", "num_batches_tracked")):
            assert float(tensor.abs().max()) == 0


# ---- torch's integer kernels

class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.a(x) + x
        return torch.relu(self.b(x) + x.flip(3))


class OnTwo(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return self.a(x) + self.a(x.flip(2))


STATIC = {
    "residual": Residual, "one on two inputs": OnTwo,
    "same": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding="same"), nn.ReLU()),
    "same, even kernel": lambda: nn.Sequential(nn.Conv2d(4, 4, 4, padding="same"), nn.ReLU()),
    "valid": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding="valid"), nn.ReLU()),
    "no affine": lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU()),
    "no statistics": lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
    "float64": lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()).double()}


@pytest.mark.parametrize("name", STATIC)
def test_static_works_or_says_why_not(name):
    net, x = made(STATIC[name]).eval(), made(lambda: torch.randn(16, 4, 8, 8))
    x = x.to(next(net.parameters()).dtype)
    try:
        model = quantize_model(net, "static", x)
    except ConfigError:
        assert name in ("same, even kernel", "float64", "no statistics", "one on two inputs")
        return
    for batch in (x, x[:3], x[:1], x.to(memory_format=torch.channels_last)):
        assert off(model(batch), net(batch)) < 0.05
    assert int8_kernels(model, x)


# ---- ONNX Runtime

class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.o = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.o(torch.relu(self.a(torch.relu(self.a(x)))))


class Language(nn.Module):
    "The embedding is the last layer as well."

    def __init__(self):
        super().__init__()
        self.e, self.a, self.o = nn.Embedding(30, 16), nn.Linear(16, 16), nn.Linear(16, 30, bias=False)
        self.o.weight = self.e.weight

    def forward(self, i):
        return self.o(torch.tanh(self.a(self.e(i).mean(1))))


@pytest.mark.parametrize("method", ["static", "dynamic"])
def test_a_weight_with_two_readers(method):
    words = made(lambda: torch.randint(0, 30, (64, 6)))
    for net, x in ((made(Twice), made(lambda: torch.randn(64, 16))), (made(Language), words)):
        model = quantize_model(net, method, x, example=x, backend="onnxruntime")
        assert off(model(x), net.eval()(x)) < 0.05 and int8_kernels(model, x)


def test_an_embedding_bag_works_or_is_refused():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.f = nn.EmbeddingBag(30, 8), nn.Linear(8, 3)

        def forward(self, i):
            return self.f(self.e(i))

    words, net = made(lambda: torch.randint(0, 30, (64, 6))), made(Bag).eval()
    for method in ("static", "dynamic"):
        try:
            assert off(quantize_model(net, method, words, example=words, backend="onnxruntime")(words), net(words)) < 0.05
        except ConfigError as error:
            assert "ONNX Runtime" in str(error)


def test_columns_of_very_different_sizes():
    "A first batch norm brings them together; one scale for the input would lose the small ones."
    sizes = torch.tensor([1500.0, 1.0, 0.1, 30.0])
    x = made(lambda: torch.randn(400, 4)) * sizes
    net = made(lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)))
    for _ in range(60):
        net(x)
    model = quantize_model(net, "static", x, backend="onnxruntime")
    assert off(model(x), net.eval()(x)) < 0.05 and int8_kernels(model, x)
    with pytest.raises(ConfigError):
        quantize_model(net, "static", x, backend="onnxruntime", op_types=["NoSuchOperator"])


def test_integers_stay_integers_between_convolutions():
    "Pooling and shortcuts in floats would cost more than the integers save."
    class Shortcut(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.f = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8 * 16, 5)

        def forward(self, x):
            x = F.max_pool2d(torch.relu(self.a(x)), 2)
            return self.f(F.max_pool2d(torch.relu(x + self.b(x)), 2).flatten(1))

    net, x = made(Shortcut).eval(), made(lambda: torch.randn(64, 1, 16, 16))
    kernels = quantize_model(net, "static", x, backend="onnxruntime").kernels(x)
    assert {"QLinearConv", "QLinearAdd", "QGemm"} <= set(kernels) and not {"Conv", "MaxPool", "Add", "Gemm"} & set(kernels)


def test_dynamic_quantization_takes_recurrent_layers():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.r, self.f = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 3)

        def forward(self, x):
            return self.f(self.r(x)[0][:, -1])

    net, x = made(Recurrent).eval(), made(lambda: torch.randn(16, 5, 8))
    model = quantize_model(net, "dynamic", example=x, backend="onnxruntime")
    assert off(model(x), net(x)) < 0.1 and "DynamicQuantizeLSTM" in model.kernels(x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x):
        return self.a(x, x, x, need_weights=False)[0]


def test_half_an_attention_does_not_kill_the_process(tmp_path):
    net, x = made(Attention).eval(), made(lambda: torch.randn(8, 6, 16))
    model = quantize_model(net, "float16", example=x, backend="onnxruntime", path=tmp_path / "half.onnx")
    assert off(model(x), net(x)) < 0.01
    again = OnnxModel(tmp_path / "half.onnx")  # what was survived stands in the file
    assert torch.equal(again(x), model(x)) and level_of(tmp_path / "half.onnx") != "ORT_DISABLE_ALL"


def test_values_beyond_half_precision_are_refused():
    for backend in ("torch", "onnxruntime"):
        with pytest.raises(ConfigError, match="65,504"):
            quantize_model(nn.Linear(4, 2), "float16", example=torch.full((2, 4), 1e5), backend=backend)


# ---- structured pruning

class Joined(nn.Module):
    "Features and the input itself, as in DenseNet."

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(14, 4)

    def forward(self, x):
        return self.b(torch.cat([x, torch.relu(self.a(x))], 1))


class Shuffled(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = torch.relu(self.a(x))
        n, c, h, w = x.shape
        return self.c(self.b(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)))


class LastFirst(nn.Module):
    "Flattened with the channels last."

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 4)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)).permute(0, 2, 3, 1).flatten(1))


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(10, 32), nn.Linear(16, 4)

    def forward(self, x):
        return self.b(F.glu(self.a(x), 1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.r, self.a, self.f = nn.LSTM(10, 16, batch_first=True), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.f(torch.relu(self.a(self.r(x)[0][:, -1])))


class TiedPair(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.f = nn.Linear(10, 16), nn.Linear(10, 16), nn.Linear(16, 4)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.f((torch.relu(self.a(x)) - torch.relu(self.b(x.flip(1)))).abs())


CUT = {"joined": (Joined, (5, 6)), "shuffled": (Shuffled, (2, 3, 8, 8)), "channels last": (LastFirst, (2, 3, 8, 8)),
       "gate": (Gate, (3, 10)), "recurrent": (Recurrent, (3, 5, 10)), "tied": (TiedPair, (3, 10))}


def dead_half(net):
    "Every second channel of the first layer does nothing: taking those out changes nothing."
    net.a.weight.data[::2], net.a.bias.data[::2] = 0, 0
    return net


@pytest.mark.parametrize("name", CUT)
def test_a_cut_net_is_the_whole_one_without_the_channels_or_it_is_refused(name):
    make, shape = CUT[name]
    net, x = dead_half(made(make)), made(lambda: torch.randn(shape))
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ConfigError, match="prune_structured"):
        prune_structured(net, x, 0.5)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


class Inverted(nn.Module):
    "As in MobileNetV2: wide, depthwise, narrow, with a shortcut."

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6())
        self.wide = nn.Sequential(nn.Conv2d(8, 24, 1), nn.BatchNorm2d(24), nn.ReLU6(), nn.Conv2d(24, 24, 3, padding=1, groups=24),
                                  nn.BatchNorm2d(24), nn.ReLU6(), nn.Conv2d(24, 8, 1), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.wide(x)).mean((2, 3)))


SAVED = {
    "depthwise": (lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 8, 1), nn.Flatten(),
                                        nn.Linear(128, 3)), (2, 3, 8, 8)),
    "layer norm": (lambda: nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 3)), (2, 6)),
    "group norm": (lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 4, 3)), (2, 3, 8, 8)),
    "instance norm": (lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.InstanceNorm2d(16, affine=True), nn.Conv2d(16, 4, 3)), (2, 3, 8, 8)),
    "transposed": (lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.PReLU(16), nn.ConvTranspose2d(16, 4, 3)), (2, 3, 8, 8)),
    "one dimension": (lambda: nn.Sequential(nn.Conv1d(3, 16, 3), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 4, 3)), (2, 3, 12)),
    "inverted": (Inverted, (2, 3, 8, 8))}


@pytest.mark.parametrize("name", SAVED)
def test_pruned_nets_are_loaded_as_they_were_saved(name, tmp_path, monkeypatch):
    make, shape = SAVED[name]
    monkeypatch.setitem(MODELS.data, "made_here", make)
    net, x = made(make), made(lambda: torch.randn(shape))
    small = prune_structured(net, x, 0.5)
    save_net(small, Model(name="made_here"), tmp_path / "net.pt")
    again = load_net(tmp_path / "net.pt")
    assert torch.equal(again(x), small.eval()(x)) and sum(p.numel() for p in again.parameters()) < sum(p.numel() for p in net.parameters())
    plain = {key: (getattr(a, key), getattr(b, key)) for a, b in zip(again.modules(), small.modules(), strict=True) for key in
             ("in_channels", "out_channels", "groups", "in_features", "out_features", "num_features", "num_channels", "normalized_shape")
             if hasattr(a, key)}
    assert all(a == b for a, b in plain.values())


class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(6), persistent=False)

    def forward(self, x):
        return self.f(x - self.mean)


def test_buffers_that_a_state_leaves_out_are_saved(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS.data, "made_here", Centred)
    net, x = Centred().eval(), torch.randn(2, 6)
    net.mean.fill_(3.0)
    save_net(net, Model(name="made_here"), tmp_path / "net.pt")
    assert torch.equal(load_net(tmp_path / "net.pt")(x), net(x))


def test_another_net_than_the_section_makes_is_not_saved(tmp_path):
    with pytest.raises(ConfigError, match="save_net.net"):
        save_net(nn.Sequential(nn.Conv2d(1, 1, 1)), Model(name="mlp"), tmp_path / "net.pt")


def test_a_pruning_without_an_end_is_given_up():
    with pytest.raises(TimeoutError), time_limit(0.1):
        while True:
            pass


# ---- exports

class Columns(nn.Module):
    "Two categorical columns, of 1,000 and of 3 values."

    def __init__(self):
        super().__init__()
        self.a, self.b, self.f = nn.Embedding(1000, 4), nn.Embedding(3, 4), nn.Linear(8, 2)

    def forward(self, c):
        return self.f(torch.cat([self.a(c[:, 0]), self.b(c[:, 1])], 1))


class TwoInputs(Columns):
    "An index into a table that comes with it: rows must stay together."

    def forward(self, c, n):
        return super().forward(c) * self.b.weight[(c[:, 1] + n - n)].sum(1, keepdim=True)


def test_inputs_are_tried_in_whole_rows(tmp_path):
    c = made(lambda: torch.stack([torch.randint(0, 1000, (32,)), torch.randint(0, 3, (32,))], 1))
    assert export_onnx(Columns(), c, tmp_path / "net.onnx").difference < 1e-4
    assert export_onnx(TwoInputs(), (c, c[:, 0].clone()), tmp_path / "net.onnx").difference < 1e-4


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(6, 2)

    def forward(self, x):
        return self.f(x.sub_(0.5).div_(0.25))


def test_a_model_that_changes_its_input(tmp_path):
    x = torch.rand(8, 6)
    kept = x.clone()
    assert export_onnx(InPlace(), x, tmp_path / "net.onnx").difference < 1e-4
    assert torch.equal(x, kept)


class Bad(nn.Linear):
    def forward(self, x):
        return super().forward(x) * (1 if x.shape[0] > 2 else 2)


def test_a_refused_export_leaves_the_good_file(tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(nn.Linear(6, 3), torch.randn(4, 6), path)
    good = path.read_bytes()
    with pytest.raises(ConfigError):
        export_onnx(Bad(6, 3), torch.randn(4, 6), path)
    with pytest.raises(ConfigError):
        quantize_model(Bad(6, 3), "static", torch.randn(4, 6), backend="onnxruntime", path=path)
    assert path.read_bytes() == good and [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


# ---- counting

def test_operations_are_counted_or_unknown():
    lstm = nn.LSTM(10, 20, batch_first=True)
    assert operations(lstm, torch.randn(1, 5, 10)) == 5 * 4 * (10 * 20 + 20 * 20)
    encoder, x = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0), torch.randn(1, 6, 16)
    right = 6 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 6 * 6 * 16
    assert operations(encoder, x) == operations(encoder.eval(), x) == right

    class Vector(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(5, 7))

        def forward(self, x):
            return self.w @ x

    assert operations(Vector(), torch.randn(7)) == 35
    net, x = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), torch.randn(32, 64)
    assert operations(net, x) == operations(quantize_model(net, "dynamic", example=x), x) == 32 * (64 * 64 + 64 * 10)

    class Unknown(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(4, 4))

        def forward(self, x):
            return (x[:, None] * self.w).sum(-1)

    assert operations(Unknown(), torch.randn(2, 4)) is None
    assert operations(nn.ReLU(), torch.randn(2, 4)) == 0
    assert torch.backends.mha.get_fastpath_enabled() and torch.backends.mkldnn.enabled


# ---- observers and distillation

@pytest.mark.parametrize("observer", [HistogramObserver, PercentileObserver, MovingAverageObserver])
def test_observers_stay_exact_in_half_precision(observer):
    x = made(lambda: torch.randn(64, 4)) * 3
    nets = [quantize_linears(made(lambda: nn.Sequential(nn.Linear(4, 4))), observer=observer) for _ in range(2)]
    nets[0].half()
    for net, data in zip(nets, (x.half(), x.half().float()), strict=True):
        net(data)
    ranges = [net[0].observer.range() for net in nets]
    assert ranges[0][0].dtype == torch.float32 and [float(v) for v in ranges[0]] == [float(v) for v in ranges[1]]


@pytest.mark.parametrize("inplace", [False, True])
def test_features_are_those_before_an_in_place_layer(inplace):
    def net(bias):
        torch.manual_seed(bias)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace), nn.Flatten(), nn.Linear(144, 3))

    with torch.random.fork_rng():
        student, teacher = net(1), net(2)
    x = made(lambda: torch.randn(8, 3, 8, 8))
    with FeatureDistillation(student, teacher, {"0": "0"}, x) as features:
        student(x), teacher(x)
        found = features()
    mine, theirs = student[0](x), teacher[0](x)
    torch.testing.assert_close(found, (mine - theirs).square().sum() / theirs.square().sum())


def test_classes_that_are_ruled_out_count_nothing():
    s, t, y = made(lambda: (torch.randn(8, 5, requires_grad=True), torch.randn(8, 5), torch.randint(0, 3, (8,))))
    mask = torch.tensor([0, 0, 0, -math.inf, -math.inf])
    for alpha in (0.0, 0.5, 1.0):
        loss = DistillationLoss(alpha)
        masked, right = loss(s + mask, t + mask, y), loss(s[:, :3], t[:, :3], y)
        torch.testing.assert_close(masked, right)
        got, wanted = (torch.autograd.grad(value, s, retain_graph=True)[0] for value in (masked, right))
        torch.testing.assert_close(got, wanted)
    assert float(DistillationLoss(1.0)(s[:, :3] + mask[1:4], t[:, :3])) == math.inf  # the teacher says what the student rules out


def test_sums_in_half_precision_do_not_overflow():
    s, y = made(lambda: ((torch.randn(4096, 10) * 12).half(), torch.randint(0, 10, (4096,))))
    assert float(DistillationLoss(0.0)(s, s, y)) == pytest.approx(float(F.cross_entropy(s.double(), y)), rel=1e-3)


# ---- YAML

@pytest.mark.parametrize("text", ["training:\n  epochs: 010\n", "training:\n  epochs: 1:30\n", "seed: 0123\n", "seed: 0x10\n",
                                  "seed: 1_000\n", "training:\n  pruning:\n    enabled: !!bool maybe\n", "seed: !!timestamp x\n",
                                  "seed: !!int 3\n", "training:\n  optimizer:\n    learning_rate: 1:30.5\n", "seed: 2020-13-45\n"])
def test_numbers_are_read_as_they_are_written_or_refused(text, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError):
        load_config(tmp_path / "c.yaml")


def test_plain_numbers_are_read(tmp_path):
    (tmp_path / "c.yaml").write_text("seed: +7\ntraining:\n  epochs: 10\n  optimizer:\n    learning_rate: .5\n    epsilon: 1e-6\n")
    config = load_config(tmp_path / "c.yaml")
    assert (config.seed, config.training.epochs, config.training.optimizer.learning_rate) == (7, 10, 0.5)
    assert config.training.optimizer.arguments() == {"epsilon": 1e-6}
