"""The trainer: what it measures, accumulates, schedules and refuses, beyond what lesson 07 shows."""
import contextlib
import copy
import functools
import io
import math
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import warnings
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nnlearn.core import ConfigError, seed_everything
from nnlearn.criteria import CompositeLoss
from nnlearn.datasets import digits
from nnlearn.loaders import TensorLoader
from nnlearn.losses import FocalLoss, IoULoss
from nnlearn.metrics import METRICS, LossTraits, Meter, metric_specs
from nnlearn.penalties import l2_penalty
from nnlearn.schedules import CosineDecay, Warmup
from nnlearn.trainer import Forward, NonFiniteLoss, TensorBoardLogger, Trainer
from nnlearn.training import EVENTS, Callback, EarlyStopping, History, best_mode


@pytest.fixture(autouse=True)
def interrupts():
    """Ctrl-C as in a terminal, also where the tests were started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def mlp(outputs=10, inputs=64, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))


def trainer(model=None, criterion=None, rate=0.1, optimizer=None, **arguments):
    model = model if model is not None else mlp()
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=rate)
    return Trainer(model, nn.CrossEntropyLoss() if criterion is None else criterion, optimizer, device="cpu", **arguments)


def batches(count=3, rows=8, inputs=64, classes=10, seed=1):
    g = torch.Generator().manual_seed(seed)
    return [(torch.randn(rows, inputs, generator=g), torch.randint(0, classes, (rows,), generator=g)) for _ in range(count)]


class Record(Callback):
    """Writes down the rate and the gradients of every step."""

    def __init__(self):
        self.rates, self.gradients, self.events = [], [], []

    def grads_ready(self, trainer):
        self.rates.append(trainer.optimizer.param_groups[0]["lr"])
        self.gradients.append([p.grad.clone() for p in trainer.model.parameters()])


# ---- what is measured

def test_loss_and_metrics_are_those_of_the_whole_set_for_uneven_batches():
    data = digits()
    sizes = [1, 50, 7, 200, 3, 99]
    loader = [(x, y) for x, y in zip(data.test_x.split(sizes), data.test_y.split(sizes), strict=True)]
    weight = torch.linspace(0.5, 2, 10)
    for criterion in [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=weight), nn.CrossEntropyLoss(ignore_index=3, label_smoothing=0.1)]:
        t = trainer(criterion=criterion, metrics=["accuracy", "f1"])
        t.fit(loader, epochs=3, verbose=0)
        got = t.evaluate(loader)
        outputs = t.predict(loader)
        assert got["loss"] == pytest.approx(criterion(outputs, data.test_y).item(), rel=1e-6)
        kept = data.test_y != criterion.ignore_index
        assert got["accuracy"] == pytest.approx((outputs.argmax(1) == data.test_y)[kept].float().mean().item(), rel=1e-6)
        if kept.all():
            from sklearn.metrics import f1_score
            assert got["f1"] == pytest.approx(f1_score(data.test_y, outputs.argmax(1), average="macro"), rel=1e-6)


def test_a_mean_of_batch_means_would_be_something_else():
    x, y = torch.randn(9, 64), torch.arange(9)
    loader = [(x[:8], y[:8]), (x[8:], y[8:])]
    t = trainer()
    got = t.evaluate(loader)["loss"]
    means = [t.criterion(t.model(a), b).item() for a, b in loader]
    assert got == pytest.approx(t.criterion(t.model(x), y).item(), rel=1e-6)
    assert abs(got - sum(means) / 2) > 1e-3


@pytest.mark.parametrize("criterion, targets, name, expected", [
    (nn.MSELoss(), torch.randn(20, 1), "mae", lambda o, t: (o - t).abs().mean()),
    (nn.MSELoss(), torch.randn(20, 1), "rmse", lambda o, t: ((o - t) ** 2).mean().sqrt()),
    (nn.BCEWithLogitsLoss(), torch.randint(0, 2, (20, 1)).float(), "accuracy", lambda o, t: ((o > 0) == (t > 0.5)).float().mean()),
    (nn.BCEWithLogitsLoss(), torch.randint(0, 2, (20, 4)).float(), "accuracy", lambda o, t: ((o > 0) == (t > 0.5)).float().mean()),
    (nn.CrossEntropyLoss(), torch.softmax(3 * torch.randn(20, 4), 1), "accuracy", lambda o, t: (o.argmax(1) == t.argmax(1)).float().mean()),
])
def test_metrics_by_the_kind_of_task(criterion, targets, name, expected):
    x = torch.randn(20, 64)
    loader = [(x[:7], targets[:7]), (x[7:8], targets[7:8]), (x[8:], targets[8:])]
    t = trainer(mlp(targets.shape[1]), criterion, metrics=[name])
    got = t.evaluate(loader)
    outputs = t.predict(loader)
    assert got[name] == pytest.approx(expected(outputs, targets).item(), rel=1e-5)
    assert got["loss"] == pytest.approx(criterion(outputs, targets).item(), rel=1e-5)


def test_small_logits_are_not_taken_for_probabilities():
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 1.0)
    nn.init.constant_(model.bias, 0.0)
    x = torch.tensor([[0.2], [0.4]])  # logits in [0, 1]: both mean yes
    got = trainer(model, nn.BCEWithLogitsLoss(), metrics=["accuracy"]).evaluate([(x, torch.ones(2, 1))])
    assert got["accuracy"] == 1.0


def test_own_metrics_torchmetrics_objects_and_names():
    import torchmetrics
    seen = []

    def farthest(outputs, targets):
        seen.append(len(outputs))
        return outputs.abs().max()

    t = trainer(metrics={"farthest": farthest, "auc": torchmetrics.AUROC(task="multiclass", num_classes=10), "top5": "top5"})
    data = batches(40)
    row = t.fit(data, epochs=2, verbose=0).rows[-1]
    assert seen == [8, 320, 320] and set(row) >= {"farthest", "auc", "top5"}
    assert t.evaluate(data)["farthest"] == pytest.approx(t.predict(data).abs().max().item())
    assert list(trainer(metrics=[farthest, "accuracy"]).specs) == ["farthest", "accuracy"]


def test_many_batches_are_bounded_by_bytes():
    meter = Meter(metric_specs("accuracy"), LossTraits(nn.CrossEntropyLoss(), len))
    meter.most_bytes = 10_000
    for x, y in batches(20, rows=50, inputs=10):
        meter.add(1.0, x, y)
        assert len(meter.kept) <= 5
    assert meter.results()["loss"] == 1.0


def test_what_a_composite_or_a_function_ignores_is_not_counted():
    x, y = torch.randn(40, 64), torch.randint(0, 10, (40,))
    y[::3] = -100
    criteria = [nn.functional.cross_entropy, CompositeLoss({"cross_entropy": {}, "focal": {}})]
    for criterion in criteria:
        t = trainer(criterion=criterion, metrics=["accuracy", "f1"])
        got, outputs = t.evaluate([(x[:13], y[:13]), (x[13:], y[13:])]), t.predict([x])
        kept = y != -100
        assert got["accuracy"] == pytest.approx((outputs.argmax(1) == y)[kept].float().mean().item(), rel=1e-6)
        assert got["loss"] == pytest.approx(criterion(outputs, y).item(), rel=1e-6)


@pytest.mark.parametrize("criterion, logits", [
    (CompositeLoss({"bce": {}}), False), (nn.functional.binary_cross_entropy, False), (nn.BCELoss(), False),
    (CompositeLoss({"bce_with_logits": {}}), True), (nn.functional.binary_cross_entropy_with_logits, True)])
def test_probabilities_and_logits_of_yes_or_no(criterion, logits):
    outputs = torch.tensor([[0.9], [0.2], [0.4], [0.7]])
    targets = ((outputs > 0.5) if not logits else (outputs > 0)).float()
    fixed = nn.Linear(1, 1)
    fixed.load_state_dict({"weight": torch.ones(1, 1), "bias": torch.zeros(1)})
    assert trainer(fixed, criterion, metrics=["accuracy"]).evaluate([(outputs, targets)])["accuracy"] == 1.0


def test_metrics_that_cannot_be_right_are_refused():
    x, y = torch.randn(8, 64), torch.randn(8, 1)
    failing("cannot tell whether the outputs are logits or probabilities", loader=[(x, y)], model=mlp(1), criterion=nn.MSELoss(),
            metrics=["accuracy"])
    failing("top5 needs one label out of at least 5 classes", loader=[(x, torch.randint(0, 3, (8,)))], model=mlp(3), metrics=["top5"])
    failing("reserved column name", metrics={"loss": "accuracy"})
    failing("reserved column name", metrics={"val_x": "accuracy"})
    failing("two metrics have this name", metrics=[lambda o, t: 1.0, lambda o, t: 2.0])
    import torchmetrics
    failing("a single torchmetrics object", metrics=[torchmetrics.MetricCollection([torchmetrics.MeanSquaredError()])])
    failing("returns 10 values", metrics=[torchmetrics.classification.MulticlassAccuracy(10, average=None)])
    failing("different sizes besides the rows", loader=[(torch.randn(2, 3, 64), torch.randint(0, 10, (2, 3))),
                                                        (torch.randn(2, 4, 64), torch.randint(0, 10, (2, 4)))],
            model=mlp(), criterion=lambda o, t: nn.functional.cross_entropy(o.transpose(1, 2), t), metrics={"mine": lambda o, t: 0.0})


def test_a_registered_metric_of_ones_own():
    METRICS.register("worst", lambda outputs, targets: outputs.abs().max(), replace=True)
    assert trainer(metrics=["worst"]).fit(batches(), verbose=0)["worst"][0] > 0
    del METRICS["worst"]


def test_segmentation_with_yes_or_no():
    x, y = torch.randn(3, 1, 5, 4), torch.randint(0, 2, (3, 2, 5, 4)).float()
    t = trainer(nn.Conv2d(1, 2, 3, padding=1), nn.BCEWithLogitsLoss(), metrics=["accuracy", "f1"])
    got = t.evaluate([(x, y)])
    assert got["accuracy"] == pytest.approx(((t.predict([x]) > 0) == (y > 0.5)).float().mean().item(), rel=1e-6)


def test_a_loader_that_fills_the_same_tensors_again():
    class Reuse:
        x, y = torch.empty(8, 64), torch.empty(8, dtype=torch.int64)

        def __iter__(self):
            for inputs, targets in batches(5):
                self.x.copy_(inputs), self.y.copy_(targets)
                yield self.x, self.y

    t = trainer(metrics=["accuracy"])
    assert t.evaluate(Reuse()) == t.evaluate(batches(5))


def test_labels_of_uint8_and_predictions_of_numpy_rows():
    x, y = batches(1)[0]
    t = trainer(metrics=["accuracy"])
    t.fit([(x, y.to(torch.uint8))], verbose=0)
    assert torch.equal(t.predict([x.numpy()]), t.predict([x])) and t.predict([x[:1].numpy()]).shape == (1, 10)


def test_numpy_batches_and_targets_that_are_no_tensors():
    numpy = [(x.numpy(), y.numpy()) for x, y in batches()]
    assert trainer().fit(numpy, verbose=0)["loss"] == trainer().fit(batches(), verbose=0)["loss"]
    t = trainer(criterion=lambda outputs, targets: outputs.square().mean())
    assert len(t.fit([(torch.randn(2, 64), ["a", "b"]), (torch.randn(2, 64), None)], verbose=0)) == 1
    with pytest.raises(ConfigError, match="expected a tensor, or a list, tuple or dict of tensors, got list"):
        trainer(criterion=lambda o, t: o.square().mean(), metrics=["mae"]).fit([(torch.randn(2, 64), ["a", "b"])], verbose=0)


# ---- accumulation

def union(loader, window):
    """The batches joined, `window` at a time."""
    groups = [loader[i:i + window] for i in range(0, len(loader), window)]
    return [tuple(torch.cat(part) for part in zip(*group, strict=True)) for group in groups]


CRITERIA = {
    "mean": (nn.CrossEntropyLoss(), 10, "labels"), "sum": (nn.CrossEntropyLoss(reduction="sum"), 10, "labels"),
    "weights": (nn.CrossEntropyLoss(weight=torch.linspace(0.1, 3, 10).double()), 10, "labels"),
    "ignore": (nn.CrossEntropyLoss(ignore_index=2), 10, "labels"),
    "all three": (nn.CrossEntropyLoss(weight=torch.linspace(0.1, 3, 10).double(), ignore_index=2, label_smoothing=0.1), 10, "labels"),
    "nll": (lambda o, t: nn.functional.nll_loss(o.log_softmax(1), t), 10, "labels"),
    "probabilities": (nn.CrossEntropyLoss(label_smoothing=0.2), 10, "probabilities"),
    "mse": (nn.MSELoss(), 3, "numbers"), "huber": (nn.HuberLoss(delta=0.3), 3, "numbers"),
    "bce": (nn.BCEWithLogitsLoss(), 3, "yes or no"), "mse sum": (nn.MSELoss(reduction="sum"), 3, "numbers"),
    "kl": (nn.KLDivLoss(reduction="batchmean"), 10, "probabilities"), "kl mean": (nn.KLDivLoss(), 10, "probabilities"),
    "multi margin": (nn.MultiMarginLoss(weight=torch.linspace(0.1, 3, 10).double()), 10, "labels"),
    "multilabel": (nn.MultiLabelSoftMarginLoss(), 3, "yes or no"),
    "focal": (FocalLoss(gamma=1.5, weight=torch.linspace(0.1, 3, 10).double(), ignore_index=2), 10, "labels"),
    "focal sum": (FocalLoss(reduction="sum"), 10, "labels"), "iou": (IoULoss(), 4, "numbers"),
    "composite": (CompositeLoss({"mse": {}, "huber": {"delta": 0.5}}, {"mse": 0.3}), 3, "numbers"),
    "composite ignore": (CompositeLoss({"cross_entropy": {"ignore_index": 2}, "focal": {"ignore_index": 2}}), 10, "labels"),
}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("window", [2, 3, 7])
def test_accumulation_equals_the_union_batch(name, window):
    criterion, outputs, kind = CRITERIA[name]
    g = torch.Generator().manual_seed(5)
    loader = []
    for rows in [8, 8, 3, 8, 1, 5, 8, 2]:
        x = torch.randn(rows, 64, generator=g, dtype=torch.float64)
        y = {"labels": lambda: torch.randint(0, 10, (rows,), generator=g),  # noqa: B023
             "numbers": lambda: torch.randn(rows, outputs, generator=g, dtype=torch.float64),  # noqa: B023
             "yes or no": lambda: torch.randint(0, 2, (rows, outputs), generator=g).double(),  # noqa: B023
             "probabilities": lambda: torch.randn(rows, outputs, generator=g, dtype=torch.float64).softmax(1)}[kind]()  # noqa: B023
        loader.append((x, y))
    if "ignore" in name:
        loader[2][1][:] = 2  # a batch whose labels are all ignored
        loader[0][1][0] = 2
    pieces, whole = Record(), Record()
    for record, data, accumulate in [(pieces, loader, window), (whole, union(loader, window), 1)]:
        model = mlp(outputs).double()
        t = trainer(model, criterion, rate=0.001, callbacks=[record], accumulate=accumulate)
        record.history = t.fit(data, epochs=2, verbose=0)
    assert len(pieces.gradients) == len(whole.gradients) == 2 * math.ceil(8 / window)
    for ours, theirs in zip(pieces.gradients, whole.gradients, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    assert pieces.history["loss"] == pytest.approx(whole.history["loss"], rel=1e-6)


def test_accumulation_with_a_penalty_counts_it_once():
    g = torch.Generator().manual_seed(0)
    loader = [(torch.randn(rows, 64, generator=g, dtype=torch.float64), torch.randint(0, 10, (rows,), generator=g)) for rows in (4, 6, 3)]
    got = []
    for data, accumulate in [(loader, 3), (union(loader, 3), 1)]:
        model, record = mlp().double(), Record()
        criterion = CompositeLoss({"cross_entropy": {"ignore_index": 1}, "penalty": l2_penalty(model)}, {"penalty": 0.1})
        history = trainer(model, criterion, accumulate=accumulate, callbacks=[record]).fit(data, verbose=0)
        got.append((record.gradients[0], history["loss"][0]))
    for a, b in zip(got[0][0], got[1][0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    assert got[0][1] == pytest.approx(got[1][1], rel=1e-6)


def test_a_composite_that_cannot_be_accumulated_exactly_is_refused():
    for parts in [{"cross_entropy": {"weight": [1.0] * 9 + [2.0]}, "focal": {}}, {"mse": {"reduction": "sum"}, "p": l2_penalty(mlp())},
                  {"mse": {}, "mine": lambda o, t: (o - t).abs().sum(1).mean()}]:
        with pytest.raises(ConfigError, match="parts of the composite loss divide by different numbers"):
            trainer(criterion=CompositeLoss(parts), accumulate=2)
        trainer(criterion=CompositeLoss(parts))


def test_accumulation_with_a_reduction_of_ones_own():
    def criterion(outputs, targets):  # mean over the targets that are not NaN
        kept = ~targets.isnan()
        return ((outputs - targets)[kept] ** 2).mean()

    g = torch.Generator().manual_seed(0)
    loader = [tuple(torch.randn(rows, columns, generator=g, dtype=torch.float64) for columns in (64, 2)) for rows in (4, 6, 3)]
    for _, y in loader:
        y[0, 0] = math.nan
    got = []
    for data, accumulate in [(loader, 3), (union(loader, 3), 1)]:
        record = Record()
        trainer(mlp(2).double(), criterion, accumulate=accumulate, loss_reduction=lambda y: (~y.isnan()).sum(),
                callbacks=[record]).fit(data, verbose=0)
        got.append(record.gradients[0])
    for a, b in zip(*got, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


# ---- schedules, seen in the recorded rates

def rates_of(scheduler_of, epochs=3, accumulate=1, val=True, **arguments):
    record = Record()
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    t = trainer(model, optimizer=optimizer, scheduler=scheduler_of(optimizer), callbacks=[record], accumulate=accumulate, **arguments)
    history = t.fit(batches(5), batches(2) if val else None, epochs=epochs, verbose=0)
    return record.rates, history


@pytest.mark.parametrize("accumulate, steps", [(1, 5), (2, 3), (5, 1)])
def test_schedulers_step_when_they_should(accumulate, steps):
    lr = torch.optim.lr_scheduler
    rates, history = rates_of(lambda o: lr.StepLR(o, 1, 0.5), accumulate=accumulate)
    assert rates == [0.1] * steps + [0.05] * steps + [0.025] * steps
    assert history["lr"] == [0.1, 0.05, 0.025]
    schedule = Warmup(CosineDecay(0.1, 2 * steps), steps)
    rates, _ = rates_of(schedule.torch, accumulate=accumulate)
    assert rates == pytest.approx(list(schedule(range(3 * steps))), abs=1e-15)
    reference = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    one_cycle, expected = lr.OneCycleLR(reference, 0.1, total_steps=3 * steps + 1), []
    for _ in range(3 * steps):
        expected.append(reference.param_groups[0]["lr"])
        reference.step()
        one_cycle.step()
    rates, _ = rates_of(lambda o: lr.OneCycleLR(o, 0.1, total_steps=3 * steps + 1), accumulate=accumulate)
    assert rates == pytest.approx(expected, abs=1e-15)
    rates, _ = rates_of(lambda o: lr.StepLR(o, 1, 0.5), accumulate=accumulate, scheduler_interval="step")
    assert rates == [0.1 * 0.5**i for i in range(3 * steps)]


def test_schedulers_joined_from_others():
    lr = torch.optim.lr_scheduler

    def joined(*makers):
        return lambda o: lr.SequentialLR(o, [make(o) for make in makers], milestones=[4])

    rates, _ = rates_of(joined(lambda o: lr.OneCycleLR(o, 0.1, total_steps=20), CosineDecay(0.1, 10).torch), epochs=2)
    assert len(set(rates)) == 10
    rates, _ = rates_of(joined(lambda o: lr.LinearLR(o), lambda o: lr.StepLR(o, 1)), epochs=2)
    assert len(set(rates)) == 2
    with pytest.raises(ConfigError, match="say which with scheduler_interval"):
        rates_of(joined(lambda o: lr.OneCycleLR(o, 0.1, total_steps=20), lambda o: lr.StepLR(o, 1)))


def test_a_rate_that_the_optimizer_follows_is_recorded_and_not_mixed():
    from nnlearn.builders import optimizer_builder
    model, record = mlp(), Record()
    optimizer = optimizer_builder({"type": "sgd"}, learning_rate=lambda step: 1 / (step + 2), params=model.parameters())
    history = trainer(model, optimizer=optimizer, callbacks=[record]).fit(batches(2), epochs=2, verbose=0)
    assert history["lr"] == pytest.approx([1 / 3, 1 / 5])
    with pytest.raises(ConfigError, match="follows a schedule of its own"):
        trainer(model, optimizer=optimizer, scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 1))


def test_windows_in_which_every_label_is_ignored_do_nothing():
    ignored = [(x, torch.full_like(y, -100)) for x, y in batches(2)]
    for amp in (False, True):
        t = trainer(accumulate=2, use_amp=amp, amp_dtype=torch.float16 if amp else None)
        before = [p.clone() for p in t.model.parameters()]
        t.fit(ignored, verbose=0)
        assert t.step == 0 and all(torch.equal(a, b) for a, b in zip(before, t.model.parameters(), strict=True))
        t.fit(ignored + batches(2), verbose=0)
        assert t.step == 1


def test_plateau_gets_the_validation_loss():
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    rates, history = rates_of(lambda o: plateau(o, factor=0.5, patience=0, threshold=10.0), epochs=3)
    assert history["lr"] == [0.1, 0.05, 0.025]  # a threshold of 10 means that no epoch counts as better
    with pytest.raises(ConfigError, match="needs a val_loader"):
        rates_of(plateau, val=False)
    with pytest.raises(ConfigError, match='use mode="min"'):
        rates_of(lambda o: plateau(o, mode="max"))


def test_a_step_that_the_scaler_skips_does_not_advance_the_schedule():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    schedule = CosineDecay(0.01, 100)
    scheduler = schedule.torch(optimizer)
    t = trainer(model, optimizer=optimizer, scheduler=scheduler, use_amp=True, amp_dtype=torch.float16)
    # overflows until it has halved often enough
    t.scaler = t.stepper.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=10_000)
    t.fit(batches(60), verbose=0)
    assert 0 < t.step < 60 and scheduler.last_epoch == t.step
    assert optimizer.param_groups[0]["lr"] == pytest.approx(schedule(t.step))
    assert t.history["lr"][-1] == pytest.approx(schedule(t.step - 1))


@pytest.mark.parametrize("fused", [True, False])
def test_clipping_under_the_scaler_sees_true_gradients(fused):
    model = mlp()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=fused)
    t = trainer(model, optimizer=optimizer, use_amp=True, amp_dtype=torch.float16, clip_norm=0.01)
    t.scaler = t.stepper.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    t.fit(batches(1), verbose=0)
    moved = math.sqrt(sum(float(((p.detach() - q) ** 2).sum()) for p, q in zip(model.parameters(), before, strict=True)))
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_mixed_precision_on_the_cpu():
    data = digits()
    t = trainer(optimizer=None, rate=0.5, use_amp=True, metrics=["accuracy"])
    t.fit(TensorLoader(data.train_x, data.train_y, shuffle=True, seed=0), epochs=8, verbose=0)
    assert t.amp_dtype == torch.bfloat16 and not t.scaler.is_enabled()
    assert t.evaluate([(data.test_x, data.test_y)])["accuracy"] > 0.9


# ---- batches of every kind

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, left, right):
        both = self.first(left) + self.second(right)
        return {"aux": both[:, :1], "logits": both}


def test_dicts_lists_and_several_outputs():
    left, right, y = torch.randn(6, 4), torch.randn(6, 2), torch.randint(0, 3, (6,))
    criterion = lambda outputs, targets: nn.functional.cross_entropy(outputs["logits"], targets)  # noqa: E731
    losses = []
    for batch in [{"left": left, "right": right, "labels": y}, (left, right, y), ([left, right], y)]:
        t = trainer(seeded_two(), criterion, metrics=["accuracy"])
        losses.append(t.fit([batch], epochs=3, verbose=0)["loss"])
        assert t.predict([batch]).shape == (6, 3)
    assert losses[0] == losses[1] == losses[2]
    simple = trainer(nn.Linear(4, 3))
    simple.fit([{"x": left, "y": y}], verbose=0)
    assert simple.predict([left]).shape == simple.predict([(left,)]).shape == simple.predict([{"x": left}]).shape == (6, 3)


def seeded_two():
    torch.manual_seed(0)
    return Two()


@pytest.mark.parametrize("batch, word", [((torch.ones(2, 4),), "1 item"), (torch.ones(2, 4), "got Tensor"),
                                         ({"x": torch.ones(2, 4), "z": torch.ones(2)}, "'x', 'z'")])
def test_batches_that_are_none(batch, word):
    with pytest.raises(ConfigError, match=word):
        trainer(nn.Linear(4, 3)).fit([batch], verbose=0)


def test_modes_survive_validation_and_frozen_layers_stay_frozen():
    model = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 10))

    class Freeze(Callback):
        def epoch_start(self, trainer):
            trainer.model[1].eval()

    t = trainer(model, callbacks=[Freeze()])
    t.fit(batches(), batches(), epochs=2, verbose=0)
    assert [m.training for m in model] == [True, False, True, True]
    assert float(model[1].num_batches_tracked) == 0
    model.eval()
    t.evaluate(batches())
    t.predict(batches())
    assert not any(m.training for m in model.modules())


def test_layers_frozen_before_fit_stay_frozen():
    model = nn.Sequential(nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10))
    model[0].eval()
    t = trainer(model)
    t.fit(batches(), verbose=0)
    assert float(model[0].num_batches_tracked) == 0 and model[1].training
    model.eval()  # left in eval mode by somebody's evaluation: then all of it trains, a new last layer or not
    model.append(nn.Linear(10, 10))
    t.fit(batches(), verbose=0)
    assert float(model[0].num_batches_tracked) == 3


def test_training_is_the_bare_loop():
    data = batches(6)
    model, loop = mlp(), mlp()
    optimizer = torch.optim.Adam(loop.parameters())
    for _ in range(3):
        for x, y in data:
            optimizer.zero_grad()
            nn.functional.cross_entropy(loop(x), y).backward()
            optimizer.step()
    trainer(model, optimizer=torch.optim.Adam(model.parameters())).fit(data, epochs=3, verbose=0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loop.parameters(), strict=True))


# ---- callbacks

def test_events_come_in_order():
    seen = []

    def listen(name):
        return lambda self, trainer: seen.append(name)

    everything = type("Everything", (Callback,), {name: listen(name) for name in EVENTS})
    trainer(callbacks=[everything()], accumulate=2).fit(batches(3), verbose=0)
    assert seen == ["fit_start", "epoch_start", "batch_start", "loss_ready", "batch_start", "loss_ready", "grads_ready", "step_end",
                    "state_ready", "batch_start", "loss_ready", "grads_ready", "step_end", "state_ready", "epoch_end", "state_ready",
                    "fit_end"]


def test_loss_ready_may_change_the_loss():
    class Penalty(Callback):
        def loss_ready(self, trainer):
            trainer.loss = trainer.loss + sum(p.square().sum() for p in trainer.model.parameters())

    plain, penalised = trainer(), trainer(callbacks=[Penalty()])
    assert penalised.fit(batches(), verbose=0)["loss"][0] > plain.fit(batches(), verbose=0)["loss"][0] + 1


def test_early_stopping_gives_the_best_weights_back():
    model = mlp()
    seen = []

    class Worse(Callback):  # validation gets worse after the second epoch
        def epoch_end(self, trainer):
            trainer.history.rows[-1]["val_loss"] = [3.0, 1.0, 2.0, 2.0, 2.0][trainer.epoch - 1]
            seen.append([p.detach().clone() for p in trainer.model.parameters()])

    stop = EarlyStopping(patience=2)
    t = trainer(model, callbacks=[Worse(), stop])
    history = t.fit(batches(), batches(), epochs=5, verbose=0)
    assert len(history) == 4 and history.best()["epoch"] == 2
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), seen[1], strict=True))
    with pytest.raises(ConfigError, match="no column 'val_los'.*'val_loss'"):
        trainer(callbacks=[EarlyStopping("val_los")]).fit(batches(), batches(), verbose=0)


def test_min_delta_asks_for_more():
    class Slow(Callback):
        def epoch_end(self, trainer):
            trainer.history.rows[-1]["val_loss"] = 5.0 - 0.1 * trainer.epoch

    assert len(trainer(callbacks=[Slow(), EarlyStopping(patience=3)]).fit(batches(), batches(), epochs=9, verbose=0)) == 9
    t = trainer(callbacks=[Slow(), EarlyStopping(patience=3, min_delta=0.5)])
    assert len(t.fit(batches(), batches(), epochs=9, verbose=0)) == 4  # 4.9 is the best; 4.8, 4.7 and 4.6 are not 0.5 below


def test_patience_of_zero_and_bad_patience():
    class Bump(Callback):
        def epoch_end(self, trainer):
            trainer.history.rows[-1]["val_loss"] = [3.0, 2.0, 4.0, 1.0][trainer.epoch - 1]

    t = trainer(callbacks=[Bump(), EarlyStopping(patience=0)])
    assert len(t.fit(batches(), batches(), epochs=4, verbose=0)) == 3
    with pytest.raises(ConfigError, match="EarlyStopping.patience"):
        EarlyStopping(patience=-1)
    failing("needs a val_loader", callbacks=EarlyStopping())


def test_evaluating_in_a_callback_changes_nothing():
    class Evaluate(Callback):
        def batch_start(self, trainer):
            trainer.evaluate(batches(1, seed=9))

        loss_ready = grads_ready = batch_start

    plain, watched = trainer(), trainer(callbacks=[Evaluate()])
    assert plain.fit(batches(), epochs=2, verbose=0)["loss"] == watched.fit(batches(), epochs=2, verbose=0)["loss"]


def test_callbacks_may_come_as_a_generator_and_see_the_batch():
    seen = []

    class See(Callback):
        def batch_start(self, trainer):
            seen.append((trainer.epoch, trainer.batch))

    trainer(callbacks=(c for c in [See()])).fit(batches(2), epochs=2, verbose=0)
    assert seen == [(1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.mark.parametrize("event", ["fit_start", "epoch_start", "batch_start", "grads_ready", "epoch_end"])
def test_fit_end_is_told_when_a_callback_fails(event):
    ended = []

    class Fails(Callback):
        def fit_end(self, trainer):
            ended.append(True)

    def fail(self, trainer):
        raise KeyError("mine")

    setattr(Fails, event, fail)
    with pytest.raises(KeyError, match="mine"):
        trainer(callbacks=[Fails()]).fit(batches(), verbose=0)
    assert ended == [True] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_fit_goes_on():
    t = trainer(metrics=["accuracy"])
    t.fit(batches(), epochs=2, verbose=0)
    assert t.fit(batches(), epochs=3, verbose=0)["epoch"] == [1, 2, 3, 4, 5]


def test_tensorboard(tmp_path):
    trainer(callbacks=[TensorBoardLogger(tmp_path)]).fit(batches(), batches(), epochs=2, verbose=0)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"loss", "val_loss", "lr"} <= set(events.Tags()["scalars"]) and len(events.Scalars("loss")) == 2


def test_tensorboard_over_two_fits(tmp_path):
    t = trainer(callbacks=[TensorBoardLogger(tmp_path)])
    t.fit(batches(), epochs=2, verbose=0)
    t.fit(batches(), epochs=2, verbose=0)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    assert [event.step for event in EventAccumulator(str(tmp_path)).Reload().Scalars("loss")] == [1, 2, 3, 4]


def test_history(tmp_path):
    history = History([{"epoch": 1, "loss": 2.0, "accuracy": 0.1}, {"epoch": 2, "loss": 1.0, "accuracy": 0.3, "val_loss": 5.0}])
    assert history["accuracy"] == [0.1, 0.3] and math.isnan(history["val_loss"][0])
    assert history.best("accuracy")["epoch"] == 2 and history.best("loss")["epoch"] == 2 and history.best("val_loss")["epoch"] == 2
    assert history.best("accuracy", mode="min")["epoch"] == 1
    history.to_csv(tmp_path / "h.csv")
    assert (tmp_path / "h.csv").read_text().splitlines()[0] == "epoch,loss,accuracy,val_loss"
    with pytest.raises(ConfigError, match="Did you mean 'accuracy'"):
        history["acuracy"]
    assert "0.3000" in repr(history)


# ---- clear errors

def failing(message, kind=ConfigError, loader=None, val=None, model=None, criterion=None, epochs=1, **arguments):
    with pytest.raises(kind, match=message) as caught:
        trainer(model, criterion, **arguments).fit(loader if loader is not None else batches(), val, epochs=epochs, verbose=0)
    return caught.value


def test_errors_name_place_value_and_remedy():
    x, y = torch.randn(8, 64), torch.randint(0, 10, (8,))
    failing("train_loader: gave no batch", loader=[])
    failing("val_loader: gave no batch", val=[])
    failing("used up", loader=iter(batches()), epochs=2)
    failing("fit.epochs: expected an integer of at least 1, got 0", epochs=0)
    failing("unknown metric 'acuracy'. Did you mean 'accuracy'", metrics=["acuracy"])
    bad = y.clone()
    bad[5] = 10
    error = failing("from 0 to 9.*row 5 holds 10", loader=[(x, y), (x, bad)])
    assert "batch 2 of epoch 1" in str(error)
    failing("row 5 holds 10", val=[(x, bad)])
    failing("takes 64 numbers", loader=[(x[:, :32], y)])
    failing("convert the data once, with inputs.to.torch.float32", loader=[(x.double(), y)])
    failing("use targets.long", loader=[(x, y.int())])
    failing("use targets.argmax", loader=[(x, nn.functional.one_hot(y, 10))])
    failing("needs equal shapes", loader=[(x, torch.randn(8))], model=mlp(1), criterion=nn.MSELoss())
    failing("use targets.float", loader=[(x, torch.ones(8, 1).long())], model=mlp(1), criterion=nn.BCEWithLogitsLoss())
    failing("as a tensor with one number, got .8, 10", criterion=lambda o, t: o)
    failing("takes 1 channels", model=nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), loader=[(x.view(8, 8, 8), y)])
    failing("contains none of the model's parameters", optimizer=torch.optim.SGD(mlp().parameters(), lr=0.1))
    failing("requires a closure", model=(model := mlp()), optimizer=torch.optim.LBFGS(model.parameters()))
    failing("choose one", clip_norm=1.0, clip_value=1.0)
    failing("Trainer.clip_norm: expected a number above 0", clip_norm=-1)
    failing("give checkpoint_dir too", checkpoint_every=5)
    failing("attached to a different optimizer", scheduler=torch.optim.lr_scheduler.StepLR(torch.optim.SGD(mlp().parameters(), lr=1.0), 1))
    failing("pass an instance, EarlyStopping", callbacks=[EarlyStopping])
    failing('use "mean"', criterion=nn.CrossEntropyLoss(reduction="none"))
    failing("expected one of 'step', 'epoch'", scheduler_interval="batch")
    failing("expected an iterable of .inputs, targets., got int", loader=3)
    failing("needs equal shapes", loader=[(x, torch.randn(8))], model=mlp(1), criterion=CompositeLoss({"mse": {}}))
    failing("needs equal shapes", loader=[(x, torch.randn(8))], model=mlp(1), criterion=nn.functional.mse_loss)
    failing("row 5 holds 10", loader=[(x, bad)], criterion=FocalLoss())
    failing("targets.squeeze", loader=[(x, y.unsqueeze(1))])
    failing("are all parameters frozen", model=mlp().requires_grad_(False))
    failing("as a tensor with one number, got float", criterion=lambda o, t: 1.0)
    failing("lazy layers", model=nn.Sequential(nn.LazyLinear(3)))
    plateau_model = mlp()
    plateau_optimizer = torch.optim.SGD(plateau_model.parameters(), lr=0.1)
    failing("no scheduler_interval", model=plateau_model, optimizer=plateau_optimizer, scheduler_interval="step",
            scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau(plateau_optimizer))
    failing("used up", val=iter(batches()), epochs=2)
    with pytest.raises(ConfigError, match="verbose"):
        trainer().fit(batches(), verbose=7)
    with pytest.raises(ConfigError, match="no epoch has finished"):
        History().best()


def test_mistakes_in_the_model_are_not_taken_for_mistakes_in_the_data():
    class Typo(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body = nn.Linear(16, 3), nn.Linear(64, 16)

        def forward(self, x):
            return self.head(self.boddy(x))

    with pytest.raises(AttributeError, match="boddy"):
        trainer(Typo()).fit(batches(), verbose=0)
    with pytest.raises(IndexError):
        trainer(nn.Sequential(nn.Embedding(4, 8), nn.Flatten(), nn.Linear(16, 3))).fit([(torch.tensor([[1, 9]]), torch.tensor([0]))],
                                                                                       verbose=0)


def test_an_optimizer_that_clips_is_not_clipped_again():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.clips = "gradient_clipping_by_norm"
    failing("clips already .gradient_clipping_by_norm", model=model, optimizer=optimizer, clip_norm=1.0)


def test_unknown_failures_keep_their_kind_and_get_the_shapes():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        trainer(Odd()).fit(batches(), verbose=0)
    assert "train_loader, batch 1 of epoch 1: inputs (8, 64) float32, targets (8,) int64" in caught.value.__notes__[0]


def test_losses_that_are_not_finite():
    x, y = batches(1)[0]
    broken = x.clone()
    broken[3, 2] = math.nan
    error = failing("batch 2 of epoch 1.*inputs of this batch hold 1 value.*first in row 3", NonFiniteLoss, [(x, y), (broken, y)])
    assert (error.step, error.epoch, error.batch, error.learning_rate) == (1, 1, 2, 0.1) and error.gradient_norm > 0
    failing("parameters hold NaN or infinite values already|too large", NonFiniteLoss, [(x * 1e20, y)] * 5, rate=1e30)
    failing("Every label of this batch is -100", NonFiniteLoss, [(x, torch.full((8,), -100))])


# ---- stopping

def test_ctrl_c_finishes_the_step_and_gives_the_history(tmp_path):
    class Press(Callback):
        def batch_start(self, trainer):
            if trainer.epoch == 2 and trainer.batches.position == 2:
                os.kill(os.getpid(), signal.SIGINT)

    t = trainer(callbacks=[Press()], accumulate=2, checkpoint_dir=tmp_path)
    history = t.fit(batches(6), epochs=5, verbose=0)
    assert len(history) == 1 and t.step == 3 + 1 and t.batches.position == 2
    assert [p.name for p in sorted(tmp_path.glob("step*"))] == ["step-00000003.pt", "step-00000004.pt"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_ctrl_c_is_ignored_it_stays_ignored():
    class Press(Callback):
        def batch_start(self, trainer):
            os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    assert len(trainer(callbacks=[Press()]).fit(batches(), epochs=2, verbose=0)) == 2


def test_a_second_ctrl_c_raises():
    class Press(Callback):
        def batch_start(self, trainer):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trainer(callbacks=[Press()]).fit(batches(), verbose=0)


SCRIPT = """
import sys, torch
from torch import nn
from nnlearn.trainer import Trainer
model = nn.Linear(4, 2)
t = Trainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1), device="cpu")
data = [(torch.randn(4, 4), torch.randint(0, 2, (4,))) for _ in range(3)]
t.fit(data, epochs=200, verbose={verbose})
sys.stderr.write(f"finished {{len(t.history)}}")
"""


def test_a_closed_stdout_does_not_end_the_training():
    code = textwrap.dedent(SCRIPT.format(verbose=2))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("epoch 1/200")
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait(600) == 0 and error.endswith("finished 200") and "Broken" not in error, error


def test_the_bar_in_a_terminal_and_without_one():
    code = textwrap.dedent(SCRIPT.format(verbose=1))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "600/600" in done.stderr and "loss 0." in done.stderr and "finished 200" in done.stderr, done.stderr
    closed = subprocess.run(["bash", "-c", f'exec "{sys.executable}" -c "$0" 2>&-', code.rsplit("\n", 2)[0]], timeout=600)
    assert closed.returncode == 0


# ---- the form in which most people will use it

def test_the_usual_use():
    from nnlearn import Trainer as TopTrainer
    from nnlearn import get_loss_function, get_optimizer, get_scheduler
    seed_everything(0)
    data = digits()
    train_loader = DataLoader(TensorDataset(data.train_x, data.train_y), batch_size=16, shuffle=True)
    val_loader = DataLoader(TensorDataset(data.test_x, data.test_y), batch_size=128)
    device = torch.device("cpu")
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    Trainer = TopTrainer
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = get_optimizer(name="adam", model_params=model.parameters(), custom_params={"lr": 1e-3, "weight_decay": 1e-4})
        scheduler = get_scheduler(name="reduce_on_plateau", optimizer=optimizer,
                                  custom_params={"mode": "min", "factor": 0.1, "patience": 5})
        trainer = Trainer(model=model, criterion=get_loss_function("cross_entropy", device=device), optimizer=optimizer,
                          scheduler=scheduler, device=device, metrics=["accuracy"], use_amp=True)
        history = trainer.fit(train_loader=train_loader, val_loader=val_loader, epochs=10, verbose=1)
    assert history["val_accuracy"][-1] >= 0.95
    assert history.columns == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"]


def test_printed_lines(capsys):
    trainer(metrics=["accuracy"]).fit(batches(), epochs=2, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("epoch 1/2  loss 2.") and "accuracy 0." in lines[1] and isinstance(sys.stdout, io.TextIOBase)


# ---- what a trainer sees, warns of and refuses early

def padded(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(4, 3, 5, generator=g, dtype=dtype), torch.randint(1, 4, (4, 5), generator=g)
    y[:2, 1:] = 0  # 0 is padding
    return x, y


@pytest.mark.parametrize("criterion", [
    functools.partial(nn.functional.cross_entropy, ignore_index=0),
    torch.compile(nn.CrossEntropyLoss(ignore_index=0), backend="eager"),
    functools.partial(torch.compile(nn.functional.cross_entropy, backend="eager"), ignore_index=0),
    functools.partial(functools.partial(nn.functional.cross_entropy, ignore_index=3), ignore_index=0)], ids=range(4))
def test_a_loss_is_seen_through_partial_and_compile(criterion):
    x, y = padded()
    torch.manual_seed(1)
    model = nn.Conv1d(3, 4, 1).double()
    loss = nn.functional.cross_entropy(model(x), y, ignore_index=0)
    expected = model.weight.detach() - torch.autograd.grad(loss, model.weight)[0]
    right = (model(x).argmax(1) == y)[y != 0].double().mean().item()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="criterion")
        t = trainer(model, criterion, rate=1.0, accumulate=2, metrics=["accuracy"])
        history = t.fit([(x[:2], y[:2]), (x[2:], y[2:])], verbose=0)
    torch.testing.assert_close(model.weight.detach(), expected)
    assert history["loss"] == [pytest.approx(loss.item())] and history["accuracy"] == [pytest.approx(right)]


def test_a_guess_about_the_loss_is_told_once_where_it_matters():
    x, y = padded()

    def hidden(outputs, targets):
        return nn.functional.cross_entropy(outputs, targets, ignore_index=0)

    def model():
        return nn.Conv1d(3, 4, 1).double()

    with pytest.warns(UserWarning, match="hidden divides by.*loss_reduction") as caught:
        t = trainer(model(), hidden, accumulate=2)
    assert len(caught) == 1 and caught[0].filename == __file__
    with pytest.warns(UserWarning, match="loss_reduction") as caught:
        t = trainer(model(), hidden)
        t.fit([(x, y)], epochs=2, verbose=0)
        t.fit([(x, y)], verbose=0)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer(model(), hidden, accumulate=2, loss_reduction=lambda y: (y != 0).sum()).fit([(x, y)], verbose=0)
        trainer(model(), nn.CrossEntropyLoss(ignore_index=0), accumulate=2).fit([(x, y)], verbose=0)
        trainer(mlp(1), lambda o, t: (o - t).abs().mean()).fit([(torch.randn(4, 64), torch.randn(4, 1))], verbose=0)


def test_a_part_with_a_denominator_of_its_own():
    class PerLabel(nn.Module):
        def forward(self, outputs, targets):
            return nn.functional.cross_entropy(outputs, targets)

        def denominator(self, outputs, targets):
            return len(targets)

    assert math.isfinite(trainer(criterion=CompositeLoss({"a": PerLabel()})).fit(batches(), verbose=0)["loss"][0])


def test_which_value_of_a_metric_is_best():
    import torchmetrics

    def odd(outputs, targets):
        return (outputs.argmax(1) == targets).float().mean()

    one = batches(1)
    stop = EarlyStopping("val_hinge", patience=0)
    t = trainer(metrics={"hinge": torchmetrics.classification.MulticlassHingeLoss(10), "odd": odd}, callbacks=[stop])
    t.fit(one, one, verbose=0)
    assert stop.sign == 1.0 and t.history.best("val_hinge")["epoch"] == 1
    with pytest.raises(ConfigError, match="pass mode='min' or mode='max'"):
        t.history.best("odd")
    failing("EarlyStopping.mode.*pass mode", loader=one, val=one, metrics=[odd], callbacks=[EarlyStopping("val_odd")])
    high = EarlyStopping("val_odd", mode="max")
    trainer(metrics=[odd], callbacks=[high]).fit(one, one, verbose=0)
    assert high.sign == -1.0
    names = {"val_perplexity": "min", "val_loss": "min", "mean_error": "min", "val_f1": "max", "multiclassaccuracy": "max", "auroc": "max"}
    assert {name: best_mode(name) for name in names} == names
    for wrong in [dict(mode="lowest"), dict(min_delta="0.1"), dict(patience=1.5), dict(restore_best="yes")]:
        with pytest.raises(ConfigError, match=f"EarlyStopping.{next(iter(wrong))}"):
            EarlyStopping(**wrong)


def test_a_monitor_that_cannot_be_is_refused_before_the_first_epoch():
    class Extra(Callback):
        def epoch_end(self, trainer):
            trainer.history.rows[-1]["val_gap"] = 1.0

    steps = []

    class Count(Callback):
        def step_end(self, trainer):
            steps.append(1)

    for others in ([Count()], [Count(), Extra()]):
        failing("no column 'val_acc'.*Did you mean 'val_accuracy'", loader=batches(), val=batches(), metrics=["accuracy"],
                callbacks=[*others, EarlyStopping("val_acc")])
    assert not steps
    trainer(callbacks=[Extra(), EarlyStopping("val_gap", mode="min")]).fit(batches(), batches(), verbose=0)


def test_an_epoch_is_saved_when_a_callback_fails_at_its_end(tmp_path):
    class Fails(Callback):
        def epoch_end(self, trainer):
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        trainer(callbacks=[Fails()], checkpoint_dir=tmp_path).fit(batches(), verbose=0)
    assert [p.name for p in tmp_path.glob("step*")] == ["step-00000003.pt"]


def test_only_what_is_trained_has_to_be_finite():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.q = nn.Linear(3, 3)
            self.mask = nn.Parameter(torch.full((4, 4), -math.inf).triu(1), requires_grad=False)

        def forward(self, x):
            return ((self.q(x) @ x.mT + self.mask).softmax(-1) @ x).mean(1)

    t = trainer(Masked(), nn.MSELoss())
    t.fit([(torch.randn(2, 4, 3), torch.randn(2, 3))], verbose=0)
    assert t.step == 1


def test_outputs_that_are_views_or_filled_again_are_copied():
    class Static(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))
            self.register_buffer("out", torch.zeros(2, 300))

        def forward(self, x):
            return self.out.copy_(nn.functional.one_hot(x, 300) + self.w.detach())[:, :3]

    x = [torch.tensor([0, 1]), torch.tensor([2, 2])]
    t = trainer(Static(), metrics=["accuracy"])
    for most in (None, 0):  # joined with others, or looked at alone
        t.val_meter.most_bytes = t.val_meter.most_bytes if most is None else most
        assert t.evaluate([(v, v) for v in x])["accuracy"] == 1.0
    assert t.predict(x).argmax(1).tolist() == [0, 1, 2, 2]
    for outputs, targets in [(v, v) for v in x]:
        t.meter.add(0.0, t.model(outputs), targets)
    assert sum(o.untyped_storage().nbytes() for o, _ in t.meter.kept) == 2 * 2 * 3 * 4


def test_packed_sequences_and_named_tuples_arrive_whole():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(2, 1)

        def forward(self, packed):
            return self.rnn(packed)[1][-1]

    packed = nn.utils.rnn.pack_sequence([torch.randn(n, 2) for n in (5, 3)])
    t = trainer(Net(), nn.MSELoss())
    t.fit([(packed, torch.zeros(2, 1)), {"x": packed, "y": torch.zeros(2, 1)}], verbose=0)
    assert t.step == 2 and t.predict([packed]).shape == t.predict([(packed, torch.zeros(2, 1))]).shape == (2, 1)

    class Pair(NamedTuple):
        left: torch.Tensor
        right: torch.Tensor

    class Sum(nn.Linear):
        def forward(self, pair):
            return super().forward(pair.left + pair.right)

    t = trainer(Sum(64, 10))
    t.fit([(Pair(x, x), y) for x, y in batches()], verbose=0)
    assert t.step == 3
    failing("got PackedSequence", model=Net(), loader=[packed])


class Foreign:
    """The signature of timm.scheduler.Scheduler."""

    def __init__(self):
        self.epochs, self.updates = [], []

    def step(self, epoch, metric=None):
        self.epochs.append((epoch, metric))

    def step_update(self, num_updates, metric=None):
        self.updates.append(num_updates)


def test_schedulers_of_others():
    foreign = Foreign()
    history = trainer(scheduler=foreign).fit(batches(), batches(), epochs=2, verbose=0)
    assert foreign.epochs == [(1, history["val_loss"][0]), (2, history["val_loss"][1])] and foreign.updates == list(range(1, 7))

    class Odd:
        def step(self, loss, temperature):
            pass

    for scheduler, words in [(torch.optim.lr_scheduler.StepLR, "pass an instance, StepLR"), (Odd(), "requires loss, temperature"),
                             (3, "got 3")]:
        with pytest.raises(ConfigError, match=words):
            trainer(scheduler=scheduler)
    with pytest.raises(ConfigError, match="counts epochs"):
        trainer(scheduler=foreign, scheduler_interval="step")


@pytest.mark.parametrize("metric, words", [(lambda o, t: 1 / 0, "ZeroDivisionError"), (lambda o, t: None, "returned None")])
def test_a_metric_that_fails_is_named_on_the_first_batch(metric, words):
    t = trainer(metrics={"fine": lambda o, t: 1.0, "mine": metric})
    with pytest.raises(ConfigError, match=rf"metrics\['mine'\].*{words}"):
        t.fit(batches(50), verbose=0)
    assert t.step == 0


def test_trying_the_metrics_leaves_the_pass_and_the_random_numbers_alone():
    def noisy(outputs, targets):
        return torch.rand(()) + len(outputs)

    ends = []
    for metrics in ([], [noisy, "accuracy"]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 10), nn.Dropout())
        nn.init.ones_(model[0].weight)
        t = trainer(model, metrics=metrics)
        t.fit(batches(), verbose=0)
        ends.append(model[0].weight.detach().clone())
    assert torch.equal(*ends) and 24 <= t.history["noisy"][0] < 25


@pytest.mark.parametrize("criterion", [CompositeLoss({"cross_entropy": {}}), nn.functional.cross_entropy, nn.CrossEntropyLoss()])
def test_a_batch_of_ignored_labels_is_the_cause_of_nan(criterion):
    failing("Every label of this batch is -100", NonFiniteLoss, [(torch.randn(4, 64), torch.full((4,), -100))], criterion=criterion)
    failing("no rows", NonFiniteLoss, [(torch.randn(0, 64), torch.zeros(0, dtype=torch.int64))], criterion=criterion)


def test_an_empty_batch_changes_no_evaluation():
    data = batches(2)
    empty = (torch.randn(0, 64), torch.zeros(0, dtype=torch.int64))
    t = trainer(metrics=["accuracy"])
    assert t.evaluate([data[0], empty, data[1]]) == t.evaluate(data)


def test_parameters_that_the_optimizer_missed_are_named_once():
    model = nn.Sequential(nn.Linear(64, 4), nn.Linear(4, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model[1] = nn.Linear(4, 10)
    t = trainer(model, optimizer=optimizer)
    with pytest.warns(UserWarning, match="'1.weight', '1.bias' will not be trained") as caught:
        t.fit(batches(), verbose=0)
        t.fit(batches(), verbose=0)
    assert len(caught) == 1 and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer(model, optimizer=torch.optim.SGD(model[1].parameters(), lr=0.1)).fit(batches(), verbose=0)  # a part, on purpose


def test_a_part_left_in_eval_mode_is_named_once():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, 10)).eval()

        def forward(self, x):
            return self.backbone(x)

    model = Net()
    t = trainer(model)
    with pytest.warns(UserWarning, match="'backbone' is trained in eval mode") as caught:
        t.fit(batches(), verbose=0)
        t.fit(batches(), verbose=0)
    assert len(caught) == 1 and caught[0].filename == __file__ and not model.backbone.training
    model.backbone.requires_grad_(False)
    norm = nn.Sequential(nn.Linear(64, 10), nn.BatchNorm1d(10))
    norm[1].eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer(norm).fit(batches(), verbose=0)
        with contextlib.suppress(ConfigError):
            trainer(model).fit(batches(), verbose=0)


def test_a_dataset_is_not_a_loader():
    data = TensorDataset(torch.randn(6, 64), torch.randint(0, 10, (6,)))
    t = trainer()
    for call in (lambda: t.fit(data, verbose=0), lambda: t.fit(batches(), data, verbose=0), lambda: t.evaluate(data),
                 lambda: t.predict(data)):
        with pytest.raises(ConfigError, match="wrap it in a DataLoader"):
            call()


def test_a_one_cycle_that_is_too_short_is_known_at_the_start(tmp_path):
    def made(total, accumulate=1):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return trainer(model, optimizer=optimizer, scheduler=torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=total),
                       accumulate=accumulate, checkpoint_dir=tmp_path / f"{total}-{accumulate}")

    for total, accumulate, epochs in [(9, 1, 3), (6, 2, 3)]:
        made(total, accumulate).fit(batches(), epochs=epochs, verbose=0)
        with pytest.raises(ConfigError, match=f"made for {total} steps, and this run ends at step"):
            made(total, accumulate).fit(batches(), epochs=epochs + 1, verbose=0, resume=True)
    t = made(8)
    with pytest.raises(ConfigError, match="total_steps=9"):
        t.fit(batches(), epochs=3, verbose=0)
    assert t.step == 0


def test_wrong_arguments_are_refused_when_the_trainer_is_made(tmp_path):
    for wrong, words in [(dict(clip_norm=True), "clip_norm"), (dict(use_amp="yes"), "use_amp"), (dict(seed="x"), "seed"),
                         (dict(checkpoint_dir=3), "checkpoint_dir"),
                         (dict(clipnorm=1), "unknown argument 'clipnorm'. Did you mean 'clip_norm'"),
                         (dict(keep=0), "keep"), (dict(loss_reduction="avg"), "loss_reduction"),
                         (dict(scheduler_interval="batch"), "interval")]:
        with pytest.raises(ConfigError, match=f"Trainer.*{words}"):
            trainer(**wrong)
    model = mlp()
    for device, words in [("gpu", "Did you mean 'cuda'"), (object(), "expected a device")]:
        with pytest.raises(ConfigError, match=f"Trainer.device.*{words}"):
            Trainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1), device=device)
    sparse = nn.Sequential(nn.EmbeddingBag(5, 3, sparse=True), nn.Linear(3, 10))
    with pytest.raises(ConfigError, match="'0' has sparse gradients"):
        trainer(sparse, clip_norm=1.0)
    t = trainer(keep=np.int64(2), accumulate=np.int64(1), checkpoint_dir=tmp_path)
    t.fit(batches(), verbose=0)
    assert type(t.checkpointer.folder.keep) is int and "epochs=1, steps=3" in repr(t)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_trainer_can_be_copied_after_a_fit(copied):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    t = trainer(model, optimizer=optimizer, scheduler=scheduler, metrics=["accuracy"], accumulate=2)
    t.fit(batches(), epochs=2, verbose=1)
    other = copied(t)
    before = [p.detach().clone() for p in other.model.parameters()]
    for one in (t, other):
        one.fit(batches(), batches(), verbose=0)
    without = [[{k: v for k, v in row.items() if k != "seconds"} for row in one.history.rows] for one in (t, other)]
    assert without[0] == without[1] and t.step == other.step == 6
    assert all(torch.equal(a, b) for a, b in zip(t.model.parameters(), other.model.parameters(), strict=True))
    assert not torch.equal(before[0], next(other.model.parameters()))

    class Copies(Callback):
        def step_end(self, trainer):
            copied(trainer)

    with pytest.raises(ConfigError, match="cannot be copied or pickled during fit"):
        trainer(callbacks=[Copies()]).fit(batches(), verbose=0)


def test_the_best_row_of_a_long_history_is_found_in_one_look():
    calls = []

    class Counting(History):
        def __getitem__(self, column):
            calls.append(column)
            return super().__getitem__(column)

    history = Counting([{"epoch": i, "loss": abs(i - 70) if i != 5 else math.nan} for i in range(1, 101)])
    assert history.best("loss")["epoch"] == 70 and len(calls) == 1


# ---- parts

class TwoViews(Forward):
    """The mean loss over a batch and its negative; counts its batches, and keeps the count."""

    def __init__(self):
        self.count = 0

    def outputs(self, model, inputs):
        self.count += model.training
        return [model(inputs), model(-inputs)] if model.training else model(inputs)

    def loss(self, criterion, outputs, targets):
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return sum(criterion(output, targets) for output in outputs) / len(outputs)

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_another_forward_changes_what_a_step_computes():
    by_hand, data = mlp(), batches()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    for x, y in data:
        optimizer.zero_grad()
        ((nn.functional.cross_entropy(by_hand(x), y) + nn.functional.cross_entropy(by_hand(-x), y)) / 2).backward()
        optimizer.step()
    t = trainer(forward=TwoViews(), metrics=["accuracy"])
    t.fit(data, verbose=0)
    assert all(torch.equal(a, b) for a, b in zip(by_hand.parameters(), t.model.parameters(), strict=True))
    assert t.evaluate(data)["loss"] == pytest.approx(trainer(t.model).evaluate(data)["loss"]) and t.predict(data).shape == (24, 10)


def test_a_forward_with_a_state_is_kept_in_checkpoints(tmp_path):
    first = trainer(forward=TwoViews())
    first.fit(batches(), verbose=0)
    first.save(tmp_path / "a.pt")
    again = trainer(forward=TwoViews())
    again.load(tmp_path / "a.pt")
    assert again.forward.count == first.forward.count == 3 and "forward" in again.parts()
    with pytest.raises(ConfigError, match="Trainer.forward: expected"):
        trainer(forward=lambda model, inputs: model(inputs))


def test_forgetting_the_best_reaches_callbacks_and_the_best_checkpoint(tmp_path):
    class Forget(Callback):
        def epoch_start(self, trainer):
            if trainer.epoch == 3:
                trainer.forget_best()

    stopping = EarlyStopping(monitor="loss", patience=9)
    t = trainer(callbacks=[Forget(), stopping], checkpoint_dir=tmp_path, rate=0.0001)
    scores = iter([1.0, 2.0, 3.0, 4.0])
    t.checkpointer.score = lambda trainer: next(scores)
    t.fit(batches(), epochs=4, verbose=0)
    assert t.checkpointer.best == 3.0 and t.epoch == 4


def test_a_state_from_before_the_checkpointer_is_read(tmp_path):
    t = trainer(checkpoint_dir=tmp_path)
    t.fit(batches(), epochs=2, verbose=0)
    state = t.state_dict()
    assert state.pop("checkpointer")["best"] < math.inf
    state["counters"] |= {"best_score": -1.0, "best_by_val": False}
    t.checkpointer.folder.save(state, t.step)
    again = trainer(checkpoint_dir=tmp_path)
    again.fit(batches(), epochs=3, verbose=0, resume=True)
    assert len(again.history) == 3 and again.checkpointer.best == -1.0


def test_a_column_may_come_from_any_callback_even_one_with_a_monitor():
    class Adds(Callback):
        monitor = "loss"

        def epoch_end(self, trainer):
            trainer.history.rows[-1]["double_loss"] = 2 * trainer.history["loss"][-1]

    assert len(trainer(callbacks=[Adds(), EarlyStopping(monitor="double_loss")]).fit(batches(), epochs=2, verbose=0)) == 2
