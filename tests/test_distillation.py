"""Distillation: the loss against its formula and torch's pieces, runs under `Trainer`, features, integers, odd inputs."""
import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nnlearn.core import ConfigError, seed_everything
from nnlearn.course.explorers import temperature_explorer
from nnlearn.distillation import DistillationLoss, FeatureDistillation, distill, teacher_logits, with_teacher
from nnlearn.integer_layers import IntegerLayer, QuantConv2d, integer_student, quantize_student
from nnlearn.loaders import TensorLoader
from nnlearn.models import small_cnn
from nnlearn.training import Callback


def data(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


INPUTS, LABELS = data(60, 12), torch.from_numpy(np.random.default_rng(1).integers(0, 3, 60))
FEW = torch.where(torch.arange(60) < 8, LABELS, -100)


def teacher(dropout=0.5):
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(12, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Dropout(dropout), nn.Linear(20, 3))


def student(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 3))


def loader(labels=LABELS, size=16):
    return TensorLoader(INPUTS, labels, batch_size=size, shuffle=True, seed=0)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))


# The loss

def by_formula(s, t, y, alpha, temperature):
    def log_softmax(z):
        z = z - z.max(1, keepdims=True)
        return z - np.log(np.exp(z).sum(1, keepdims=True))

    p, q, known = log_softmax(t / temperature), log_softmax(s / temperature), y != -100
    hard = -log_softmax(s)[known, y[known]].mean() if known.any() else 0.0
    return alpha * temperature**2 * (np.exp(p) * (p - q)).sum(1).mean() + (1 - alpha) * hard


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0.2, 30), st.integers(1, 8), st.integers(2, 6), st.floats(0, 1))
def test_values_and_gradients_are_those_of_the_formula_and_of_torch(seed, alpha, temperature, rows, classes, unknown):
    rng = np.random.default_rng(seed)
    s, t, y = rng.normal(0, 2, (rows, classes)), rng.normal(0, 4, (rows, classes)), rng.integers(0, classes, rows)
    y[rng.random(rows) < unknown] = -100
    logits = torch.tensor(s, requires_grad=True)
    value = DistillationLoss(alpha, temperature)(logits, torch.tensor(t), torch.tensor(y))
    assert value.item() == pytest.approx(by_formula(s, t, y, alpha, temperature), rel=1e-9, abs=1e-12)
    soft = nn.KLDivLoss(reduction="batchmean")((logits / temperature).log_softmax(1), (torch.tensor(t) / temperature).softmax(1))
    hard = nn.CrossEntropyLoss()(logits, torch.tensor(y)) if (y >= 0).any() else 0 * logits.sum()
    theirs = alpha * temperature**2 * soft + (1 - alpha) * hard
    pieces = [torch.autograd.grad(loss, logits)[0] for loss in (value + 0 * logits.sum(), theirs)]
    assert torch.allclose(*pieces, rtol=1e-8, atol=1e-12)


def test_the_teacher_gets_no_gradient_and_half_precision_works():
    s, t = data(4, 3).requires_grad_(), data(4, 3, seed=1).requires_grad_()
    DistillationLoss()(s, t, LABELS[:4]).backward()
    assert t.grad is None and s.grad.abs().sum() > 0
    full = DistillationLoss(1.0, 3.0)(s, t)
    assert DistillationLoss(1.0, 3.0)(s.bfloat16(), t.bfloat16()).item() == pytest.approx(full.item(), rel=0.05)
    assert torch.isfinite(DistillationLoss(1.0, 1.0)(1e4 * s, -1e4 * t))
    assert DistillationLoss(0.5)(s, s, None).item() == pytest.approx(0, abs=1e-6)


def test_gradients_keep_their_size():
    s, t = data(20, 5).double().requires_grad_(), 3 * data(20, 5, seed=1).double()
    norms = [torch.autograd.grad(DistillationLoss(1.0, temperature)(s, t), s)[0].norm().item() for temperature in (1.0, 10.0, 1000.0)]
    assert max(norms) < 4 * min(norms)
    centred = [z - z.mean(1, keepdim=True) for z in (s.detach(), t)]
    last = torch.autograd.grad(DistillationLoss(1.0, 1e5)(s, t), s)[0]
    assert torch.allclose(last, (centred[0] - centred[1]) / 5 / 20, atol=1e-5)  # the limit: logits matched by squared error


# Training

@pytest.mark.parametrize("labels", [LABELS, FEW, torch.full((60,), -100)], ids=["all", "few", "none"])
def test_asked_each_batch_or_once_is_the_same_and_the_teacher_stays(labels):
    guide = teacher().train()
    guide[1].eval()  # frozen on purpose
    before, modes = copy.deepcopy(guide.state_dict()), [m.training for m in guide.modules()]
    trained = []
    for asked in (guide, None):
        batches = loader(labels) if asked is not None else with_teacher(guide, INPUTS, labels, batch_size=16, shuffle=True, seed=0)
        net = student()
        history = distill(net, asked, batches, epochs=3, device="cpu")
        assert len(history) == 3 and history["loss"][-1] < history["loss"][0] and all(map(math.isfinite, history["loss"]))
        trained.append(net)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*[net.state_dict().values() for net in trained]))
    assert all(torch.equal(before[name], value) for name, value in guide.state_dict().items())
    assert [m.training for m in guide.modules()] == modes and all(p.grad is None for p in guide.parameters())


def test_a_step_is_the_step_of_a_plain_loop():
    guide, net, plain = teacher().eval(), student(), student()
    distill(net, guide, TensorLoader(INPUTS, FEW, batch_size=20), epochs=2, loss=DistillationLoss(0.7, 3.0),
            optimizer=torch.optim.SGD(net.parameters(), 0.1), device="cpu")
    optimizer = torch.optim.SGD(plain.parameters(), 0.1)
    for _ in range(2):
        for x, y in zip(INPUTS.split(20), FEW.split(20)):
            s, t = plain(x), guide(x).detach()
            loss = 0.7 * 9 * F.kl_div((s / 3).log_softmax(1), (t / 3).softmax(1), reduction="batchmean")
            if (y >= 0).any():
                loss = loss + 0.3 * F.cross_entropy(s, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(net.parameters(), plain.parameters()))


def test_validation_is_cross_entropy_and_metrics_work():
    net = student()
    held_out = TensorLoader(INPUTS, LABELS, batch_size=60)
    history = distill(net, teacher(), loader(FEW), held_out, epochs=2, metrics=["accuracy"], device="cpu")
    with torch.no_grad():
        assert history["val_loss"][-1] == pytest.approx(F.cross_entropy(net.eval()(INPUTS), LABELS).item(), rel=1e-5)
        right = (net(INPUTS).argmax(1) == LABELS).double().mean().item()
    assert history["val_accuracy"][-1] == pytest.approx(right) and 0 <= history["accuracy"][-1] <= 1


class Stop(Callback):
    def __init__(self, at=None):
        self.at = at

    def step_end(self, trainer):
        if trainer.step == self.at:
            trainer.interrupted = trainer.should_stop = True


@pytest.mark.parametrize("asked, matched", [(True, False), (True, True), (False, False)])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, asked, matched):
    nets = []
    for folder, at, resume in [("whole", None, False), ("cut", 6, False), ("cut", None, True)]:
        seed_everything(0)
        net, guide = student(3 if resume else 0), teacher()
        features = FeatureDistillation(net, guide, {"0": "0"}, INPUTS[:2]) if matched else None
        batches = loader(FEW) if asked else with_teacher(guide, INPUTS, FEW, batch_size=16, shuffle=True, seed=0)
        distill(net, guide if asked else None, batches, epochs=3, features=features, callbacks=Stop(at), device="cpu",
                checkpoint_dir=tmp_path / folder, resume=resume)
        nets.append(nn.ModuleList([net, features]) if matched else net)
    assert same(nets[0], nets[2]) and not same(nets[0], nets[1])


def test_a_teacher_makes_up_for_missing_labels():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((600, 12))).float()
    y = (x[:, :3] + 0.1 * x[:, 3:6]).argmax(1)
    guide = nn.Linear(12, 3)
    with torch.no_grad():
        guide.weight.zero_()
        guide.weight[:, :3], guide.weight[:, 3:6] = 4 * torch.eye(3), 0.4 * torch.eye(3)
        guide.bias.zero_()
    few = torch.where(torch.arange(600) < 10, y, -100)
    gains = []
    for seed in range(4):
        scores = []
        for labels in (None, few):
            net = student(seed)
            optimizer = torch.optim.Adam(net.parameters(), 0.01)
            batches = TensorLoader(x, few, batch_size=50, seed=0) if labels is not None else TensorLoader(x[:10], y[:10], batch_size=10)
            loss = DistillationLoss(0.5 if labels is not None else 0.0)
            distill(net, guide, batches, epochs=10 if labels is not None else 120, loss=loss, optimizer=optimizer, device="cpu")
            test = torch.from_numpy(np.random.default_rng(9).standard_normal((500, 12))).float()
            with torch.no_grad():
                scores.append((net(test).argmax(1) == guide(test).argmax(1)).double().mean().item())
        gains.append(scores[1] - scores[0])
    assert min(gains) > 0.1


# Features

def test_features_by_hand_and_hooks_that_go():
    net, guide = student(), teacher().eval()
    features = FeatureDistillation(net, guide, {"0": "0", "2": "4"}, INPUTS[:2], weight=0.5)
    assert [type(p) for p in features.projections] == [nn.Linear, nn.Identity] and not net[0]._forward_hooks
    with features:
        mine, theirs = net(INPUTS), guide(INPUTS)
        value = features()
    pairs = [(features.projections[0](net[0](INPUTS)), guide[0](INPUTS)), (mine, theirs)]
    expected = 0.5 * np.mean([float(((a - b).square().sum() / b.square().sum()).detach()) for a, b in pairs])
    assert value.item() == pytest.approx(expected, rel=1e-5)
    value.backward()
    assert features.projections[0].weight.grad.abs().sum() > 0 and net[0].weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in guide.parameters()) and not any(m._forward_hooks for m in [*net.modules(), *guide.modules()])
    assert set(features.state_dict()) == {"projections.0.weight"}  # neither student nor teacher
    with pytest.raises(ConfigError, match="pair 0: the layer of the student has not been called"):
        features()


def test_features_come_closer_and_hooks_go_on_errors_too():
    net, guide = small_cnn((2, 4)), small_cnn((8, 16))
    images, labels = data(64, 1, 28, 28), torch.zeros(64, dtype=torch.int64)
    features = FeatureDistillation(net, guide, {"3": "3"}, images[:2])
    assert isinstance(features.projections[0], nn.Conv2d)

    def distance():
        with features, torch.no_grad():
            net.eval()(images)
            guide.eval()(images)
            return features().item()

    first = distance()
    optimizer = torch.optim.Adam([*net.parameters(), *features.parameters()], 0.01)
    distill(net, guide, TensorLoader(images, labels, batch_size=16), epochs=20, features=features, optimizer=optimizer, device="cpu")
    assert distance() < 0.8 * first
    with pytest.raises(ConfigError):
        distill(net, guide, TensorLoader(images, labels + 99, batch_size=16), features=features, device="cpu")
    assert not any(m._forward_hooks for m in [*net.modules(), *guide.modules()])


# Integers

CONVOLUTIONS = [nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(2, 4, (2, 3), stride=2, bias=False), nn.Conv2d(1, 3, 5, (2, 1), (2, 0))]


@pytest.mark.parametrize("conv", CONVOLUTIONS)
@pytest.mark.parametrize("bits", [8, 4])
def test_a_convolution_equals_its_integers(conv, bits):
    x = data(6, conv.in_channels, 9, 11) + 0.3
    layer = QuantConv2d(copy.deepcopy(conv), bits)
    layer(x)
    layer.eval()
    whole = IntegerLayer(layer)
    assert torch.allclose(whole(2 * x), layer(2 * x), atol=1e-5) and whole.weight.dtype == torch.int8
    if bits == 8:
        assert torch.allclose(layer(x), conv(x), atol=0.06)


def test_an_integer_student_is_int8_and_is_what_was_trained(tmp_path):
    net = small_cnn((2, 4))
    images, labels = data(64, 1, 28, 28), torch.arange(64) % 10
    aware = quantize_student(net)
    assert type(net[0]) is nn.Conv2d and type(aware[0]) is QuantConv2d
    distill(aware, small_cnn((4, 8)), TensorLoader(images, labels, batch_size=16), epochs=2, device="cpu")
    small = integer_student(aware)
    with torch.no_grad():
        assert torch.allclose(small(images), aware.eval()(images), atol=1e-3)
    assert not small.training and [small.get_buffer(f"{k}.weight").dtype for k in (0, 4, 9)] == [torch.int8] * 3
    assert type(aware[0]) is QuantConv2d
    torch.save(small.state_dict(), tmp_path / "small.pt")
    again = integer_student(aware)
    for buffer in again.buffers():
        buffer.zero_()
    again.load_state_dict(torch.load(tmp_path / "small.pt", weights_only=True))
    assert torch.equal(again(images), small(images))
    assert isinstance(integer_student(quantized_linear()), IntegerLayer)
    assert isinstance(quantize_student(nn.Conv2d(1, 1, 1)), QuantConv2d)


def quantized_linear():
    layer = quantize_student(nn.Linear(4, 2))
    layer(data(3, 4))
    return layer


# What is refused

class Broken(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.layer, self.value = nn.Linear(12, 3), value

    def forward(self, x):
        return torch.full_like(self.layer(x), self.value)


def run(net=None, guide=None, batches=None, **options):
    net = net or student()
    return distill(net, guide or teacher(), batches or loader(), device="cpu", **options)


def shared():
    net = student()
    return distill(net, nn.Sequential(net), loader(), device="cpu")


def without_projections():
    net, guide = student(), teacher()
    features = FeatureDistillation(net, guide, {"0": "0"}, INPUTS[:2])
    distill(net, guide, loader(), features=features, optimizer=torch.optim.SGD(net.parameters(), 0.1), device="cpu")


def features_without_teacher():
    net, guide = student(), teacher()
    distill(net, None, loader(), features=FeatureDistillation(net, guide, {"0": "0"}, INPUTS[:2]), device="cpu")


@pytest.mark.parametrize("call, words", [
    (lambda: DistillationLoss(alpha=-0.1), "DistillationLoss.alpha: expected a number from 0 to 1, got -0.1"),
    (lambda: DistillationLoss(alpha=1.01), "got 1.01"),
    (lambda: DistillationLoss(alpha=math.nan), "got nan"),
    (lambda: DistillationLoss(alpha="0.5"), "got '0.5'"),
    (lambda: DistillationLoss(temperature=0), "DistillationLoss.temperature: expected a number above 0, got 0"),
    (lambda: DistillationLoss(temperature=-2.0), "got -2.0"),
    (lambda: DistillationLoss(temperature=math.inf), "got inf"),
    (lambda: DistillationLoss()(data(4, 3), data(4, 5)), "same number of outputs"),
    (lambda: DistillationLoss()(data(4, 3), data(5, 3)), "both must see the same batch"),
    (lambda: DistillationLoss()(data(4, 3), LABELS[:4]), r"DistillationLoss.teacher: expected logits .* got \(4,\) torch.int64"),
    (lambda: DistillationLoss()([1.0], data(4, 3)), "DistillationLoss.student: .*got list"),
    (lambda: DistillationLoss()(data(4, 3), data(4, 3), LABELS[:3]), r"shape \(4,\) and type int64"),
    (lambda: DistillationLoss()(data(4, 3), data(4, 3), data(4)), "got .* torch.float32"),
    (lambda: DistillationLoss()(data(4, 3), data(4, 3), torch.tensor([0, 1, 2, 3])), "labels lie from 0 to 2, or are -100"),
    (lambda: teacher_logits(Broken(math.nan), INPUTS), "teacher: its outputs are NaN or infinite, first in row 0"),
    (lambda: teacher_logits(nn.Sequential(teacher(), nn.Softmax(1)), INPUTS), "these are probabilities"),
    (lambda: run(guide=Broken(math.inf)), "NaN or infinite"),
    (lambda: run(guide=nn.Sequential(teacher(), nn.Softmax(1))), "these are probabilities"),
    (lambda: run(guide=nn.Linear(12, 4)), r"the student gives \(16, 3\) and the teacher \(16, 4\)"),
    (lambda: run(net=[1]), "distill.student: expected a torch.nn.Module, got list"),
    (lambda: run(guide="teacher"), "distill.teacher: expected a torch.nn.Module, got str"),
    (lambda: shared(), "shares parameters with the student"),
    (lambda: run(criterion=nn.CrossEntropyLoss()), "loss=DistillationLoss"),
    (lambda: run(accumulate=2), "take larger batches"),
    (lambda: distill(student(), None, loader(), device="cpu"), "with_teacher"),
    (features_without_teacher, "needs the teacher itself"),
    (without_projections, "lacks the projections"),
    (lambda: FeatureDistillation(student(), teacher(), {"1a": "0"}, INPUTS[:2]), "the student has no layer '1a'"),
    (lambda: FeatureDistillation(student(), teacher(), {"0": "7"}, INPUTS[:2]), "the teacher has no layer '7'.*Accepted: 0, 1"),
    (lambda: FeatureDistillation(student(), teacher(), {}, INPUTS[:2]), "expected pairs of layer names"),
    (lambda: FeatureDistillation(student(), teacher(), {"0": "0"}, INPUTS[:2], weight=-1), "FeatureDistillation.weight"),
    (lambda: FeatureDistillation(small_cnn((2, 4)), small_cnn((4, 8)), {"3": "7"}, torch.zeros(2, 1, 28, 28)), "same resolution"),
    (lambda: QuantConv2d(nn.Conv2d(4, 4, 3, groups=2)), "without groups or dilation"),
    (lambda: quantize_student(nn.ReLU()), "ReLU has no nn.Linear and no nn.Conv2d"),
    (lambda: integer_student(student()), "quantize_student"),
    (lambda: integer_student(quantize_student(student())), "has seen no data"),
])
def test_bad_calls_teach(call, words):
    with pytest.raises(ConfigError, match=f"(?s){words}"):
        call()


def test_the_explorer_shows_temperature_and_entropy():
    from nnlearn.course.explore import decode
    made = decode(temperature_explorer().html)
    curves = next(iter(made["types"].values()))["curves"]
    images = sorted({key[0] for key in curves})
    assert len(images) == 3 and len(curves) == 30
    for image in images:
        entropy = [float(curves[image, text]["entropy / log 10"][1][0]) for text in ("0.5", "1", "4", "20")]
        assert entropy == sorted(entropy) and entropy[-1] > 0.7
        assert sum(curves[image, "2"]["probability"][1]) == pytest.approx(1, abs=0.02)


# A step under a teacher

@pytest.mark.parametrize("asked", [True, False])
def test_an_evaluation_in_the_middle_of_a_step_changes_nothing(asked):
    class Evaluate(Callback):
        losses = []

        def batch_start(self, trainer):
            self.losses.append(trainer.evaluate([(INPUTS[:16], LABELS[:16])])["loss"])

    guide = teacher().eval()
    nets = [student(), student()]
    for net, callbacks in zip(nets, ([], [Evaluate()]), strict=True):
        batches = loader() if asked else with_teacher(guide, INPUTS, LABELS, batch_size=16, shuffle=True, seed=0)
        distill(net, guide if asked else None, batches, epochs=1, callbacks=callbacks, device="cpu")
    first = torch.nn.functional.cross_entropy(student()(INPUTS[:16]), LABELS[:16]).item()
    assert same(*nets) and Evaluate.losses[0] == pytest.approx(first, rel=1e-6)
    Evaluate.losses.clear()


def test_a_student_in_eval_mode_is_still_taught():
    class Eval(Callback):
        def epoch_start(self, trainer):
            trainer.model.eval()

    guide, nets = teacher().eval(), [student(), student()]
    for net, callbacks in zip(nets, ([], [Eval()]), strict=True):
        distill(net, guide, loader(), callbacks=callbacks, device="cpu")
    assert same(*nets)  # the student has no layer whose mode matters
