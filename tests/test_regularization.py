"""Regularization: equal to torch, kornia and the formulas; odd inputs; soft targets through the trainer; exact resume."""
import copy
import math
import pickle
import sys
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.data import DataLoader, TensorDataset

from nnlearn.core import ConfigError, generator, seed_everything
from nnlearn.course.explore import decode
from nnlearn.course.explorers import overfitting_explorer
from nnlearn.loaders import TensorLoader, dataloaders
from nnlearn.regularization import AfterStep, AugmentedLoader, Dropout, augment, cutmix, max_norm_, mixup, proximal_l1_
from nnlearn.trainer import Trainer

KINDS = ("rotate", "shift", "flip", "crop", "jitter")


# ---- proximal_l1_

@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8), st.floats(0, 10))
@settings(max_examples=80, deadline=None)
def test_the_proximal_step_is_torchs_softshrink_and_solves_its_problem(values, threshold):
    before = torch.tensor(values, dtype=torch.float64)
    after = proximal_l1_(before.clone(), threshold)
    assert torch.equal(after, F.softshrink(before, threshold))
    assert (after[before.abs() <= threshold] == 0).all()
    cost = 0.5 * (after - before) ** 2 + threshold * after.abs()  # what a proximal step minimises
    for other in (after + 0.01, after - 0.01, torch.zeros_like(after), before):
        assert (cost <= 0.5 * (other - before) ** 2 + threshold * other.abs() + 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_exact_zeros_in_every_float(dtype):
    w = torch.tensor([0.5, -0.125, 0.25, -1.0, 0.0], dtype=dtype)
    assert proximal_l1_(w, 0.25) is w and w.dtype == dtype
    assert w.tolist() == [0.25, 0.0, 0.0, -0.75, 0.0]
    proximal_l1_(w, torch.tensor(0.25))
    assert w.tolist() == [0.0, 0.0, 0.0, -0.5, 0.0]


def test_of_a_model_the_trainable_parameters_count():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    for p in model.parameters():
        nn.init.constant_(p, 0.5)
    model[1].requires_grad_(False)
    assert proximal_l1_(model, 0.25, include=lambda name, p: "bias" not in name) is model
    assert (model[0].weight == 0.25).all() and (model[0].bias == 0.5).all() and (model[1].weight == 0.5).all()
    proximal_l1_(model, 1.0)
    assert not any(p.any() for p in model[0].parameters()) and model[0].weight.requires_grad


def test_numbers_that_are_not_finite_stay():
    w = torch.tensor([math.nan, math.inf, -math.inf])
    proximal_l1_(w, 0.5)
    assert w[0].isnan() and w[1] == math.inf and w[2] == -math.inf


@pytest.mark.parametrize("threshold", [-1e-9, math.nan, math.inf, "1", None, True])
def test_thresholds_that_are_none(threshold):
    with pytest.raises(ConfigError, match="proximal_l1_.threshold: expected a number of at least 0"):
        proximal_l1_(torch.ones(2), threshold)


def test_what_cannot_be_shrunk():
    with pytest.raises(ConfigError, match="proximal_l1_.weights: expected a tensor of floating-point numbers"):
        proximal_l1_(torch.ones(2, dtype=torch.long), 0.1)
    with pytest.raises(ConfigError, match="run one batch first"):
        proximal_l1_(nn.LazyLinear(2), 0.1)
    with pytest.raises(ConfigError, match="expected a tensor of floating-point numbers, got"):
        proximal_l1_([torch.ones(2)], 0.1)


# ---- max_norm_

@pytest.mark.parametrize("shape", [(5, 3), (4, 2, 3), (4, 1, 3, 3), (2, 3, 1, 2, 2), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_max_norm_is_torchs_renorm(shape, dtype):
    w = 3 * torch.randn(shape, generator=generator(0), dtype=dtype)
    w[0] = 0
    for limit in (0.5, 2.0, 100.0):
        limited = max_norm_(w.clone(), limit)
        torch.testing.assert_close(limited, torch.renorm(w, 2, 0, limit), rtol=1e-6, atol=1e-7)
        norms = limited.flatten(1).norm(dim=1)
        assert (norms <= limit * (1 + 1e-6)).all() and norms[0] == 0
        short = w.flatten(1).norm(dim=1) <= limit
        assert torch.equal(limited[short], w[short])  # what is short enough is not touched


def test_max_norm_of_a_model_leaves_biases_norms_embeddings_and_what_is_frozen():
    model = nn.ModuleDict({"table": nn.Embedding(3, 4), "linear": nn.Linear(4, 2), "norm": nn.LayerNorm([2, 2]),
                           "conv": nn.Conv2d(1, 2, 3), "rnn": nn.GRU(2, 3), "frozen": nn.Linear(2, 2)})
    for p in model.parameters():
        nn.init.constant_(p, 2.0)
    model["frozen"].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    assert max_norm_(model, 1.0) is model
    changed = {name for name, p in model.state_dict().items() if not torch.equal(p, before[name])}
    assert changed == {"linear.weight", "conv.weight", "rnn.weight_ih_l0", "rnn.weight_hh_l0"}
    torch.testing.assert_close(model["rnn"].weight_hh_l0.norm(dim=1), torch.ones(9))


@pytest.mark.parametrize("groups", [1, 2])
def test_a_unit_of_a_transposed_convolution_is_its_output_channel(groups):
    layer = nn.ConvTranspose2d(4, 6, 3, groups=groups)
    nn.init.constant_(layer.weight, 1.0)
    with torch.no_grad():
        layer.weight[:, 1] *= 10  # output channel 1 of every group
    before = layer.weight.detach().clone()
    max_norm_(layer, 8.0)
    ways_in = 4 // groups * 9
    for channel in range(6 // groups):
        norm = before[: 4 // groups, channel].norm()
        expected = before[:, channel] * min(1.0, 8.0 / norm)
        torch.testing.assert_close(layer.weight[:, channel], expected)
    assert math.isclose(before[: 4 // groups, 0].norm(), math.sqrt(ways_in), rel_tol=1e-6)


def test_half_precision_norms_that_do_not_fit_into_it():
    w = torch.full((2, 70_000), 10.0, dtype=torch.float16)
    max_norm_(w, 100.0)
    assert w.dtype == torch.float16 and math.isclose(w[0].float().norm(), 100.0, rel_tol=1e-2)


def test_what_has_no_units_is_said():
    for limit in (0, -1.0, math.nan, "3", None, True):
        with pytest.raises(ConfigError, match="max_norm_.limit: expected a number above 0"):
            max_norm_(nn.Linear(2, 2), limit)
    with pytest.raises(ConfigError, match="expected a tensor of at least 2 dimensions"):
        max_norm_(torch.ones(3), 1.0)
    with pytest.raises(ConfigError, match="expected a model with linear"):
        max_norm_(nn.BatchNorm1d(3), 1.0)
    with pytest.raises(ConfigError, match="run one batch first"):
        max_norm_(nn.LazyLinear(3), 1.0)
    for computed in (weight_norm(nn.Linear(2, 2)), prune.l1_unstructured(nn.Linear(2, 2), "weight", 0.5)):
        with pytest.raises(ConfigError, match="weight of '0' is computed from other tensors"):
            max_norm_(nn.Sequential(computed), 1.0)


# ---- Dropout

@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0, 1, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dropout_is_torchs_forward_and_backward(p, dtype):
    for shape in [(7, 5), (1,), (0, 3), (2, 1, 4, 4)]:
        results = []
        for layer in (Dropout(p), nn.Dropout(p)):
            seed_everything(3)
            x = torch.randn(shape, generator=generator(1)).to(dtype).requires_grad_()
            out = layer(x)
            out.sum().backward()
            results.append((out.detach(), x.grad, torch.get_rng_state()))
            layer.eval()
            assert torch.equal(layer(x), x)
        assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
        assert torch.equal(results[0][2], results[1][2])


def test_dropout_refuses_what_is_no_probability():
    for p in (-0.1, 1.1, "half", None):
        with pytest.raises(ConfigError, match="Dropout.p: expected a number from 0 to 1"):
            Dropout(p)


# ---- mixup and cutmix

def batch(rows=12, classes=4, dtype=torch.float32):
    g = generator(5)
    return torch.rand(rows, 2, 6, 8, generator=g, dtype=dtype), torch.randint(classes, (rows,), generator=g)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alpha", [0.001, 0.4, 1.0, 30.0])
def test_mixup_is_the_formula_row_by_row(dtype, alpha):
    x, y = batch(dtype=dtype)
    mixed, soft = mixup(x, y, 4, alpha, generator=generator(1))
    assert mixed.dtype == soft.dtype == dtype and soft.shape == (12, 4)
    torch.testing.assert_close(soft.sum(1), torch.ones(12, dtype=dtype))
    one_hot, found = F.one_hot(y, 4).to(dtype), 0
    for i in range(12):
        for j in range(12):  # its partner is one of the rows, and the shares tell how much of it
            share = ((mixed[i] - x[j]).flatten() @ (x[i] - x[j]).flatten() / (x[i] - x[j]).square().sum()) if i != j else torch.tensor(1.0)
            if torch.allclose(share * x[i] + (1 - share) * x[j], mixed[i], atol=1e-5):
                torch.testing.assert_close(soft[i], (share * one_hot[i] + (1 - share) * one_hot[j]).to(dtype), atol=1e-4, rtol=0)
                found += 1
                break
    assert found == 12


def test_the_shares_follow_the_beta_distribution():
    for alpha in (0.2, 1.0, 4.0):
        rows = torch.arange(20_000, dtype=torch.float64)
        _, moved = mixup(rows[:, None], rows, alpha=alpha, generator=generator(0))
        assert moved.shape == (20_000,) and moved.isfinite().all()
        own, other = _partners()
        share = (moved - other) / (own - other)
        share = share[own != other].numpy()
        assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > 1e-4


def _partners():
    "Own and partner's number of each row: drawn with the same generator, one-hot by position."
    own = torch.arange(20_000, dtype=torch.float64)
    g = generator(0)
    torch.randint(2**62, (), generator=g)
    return own, own[torch.randperm(20_000, generator=g)]


@pytest.mark.parametrize("shape", [(12, 2, 6, 8), (12, 6, 8), (12, 1, 1, 1), (12, 3, 2, 4, 5)])
def test_cutmix_pastes_a_box_and_shares_by_its_area(shape):
    g = generator(2)
    x, y = torch.rand(shape, generator=g, dtype=torch.float64), torch.arange(12)
    sizes = set()
    for turn in range(20):
        cut, soft = cutmix(x, y, 12, generator=generator(turn))
        assert cut.shape == x.shape and torch.allclose(soft.sum(1), torch.ones(12, dtype=torch.float64))
        for i in range(12):
            differs = (cut[i] != x[i]).reshape(-1, *shape[-2:]).any(0)
            share = 1 - differs.double().mean().item()
            assert math.isclose(soft[i, i].item(), share, abs_tol=1e-9) or soft[i, i] == 1  # its own partner
            if differs.any():
                rows, columns = differs.any(1).nonzero().flatten(), differs.any(0).nonzero().flatten()
                box = differs[rows.min():rows.max() + 1, columns.min():columns.max() + 1]
                other = int(soft[i].where(torch.arange(12) != i, -1.0).argmax())
                assert box.all() and torch.equal(cut[i][..., differs], x[other][..., differs])
            sizes.add(round(share, 3))
    assert shape[-1] == 1 or len(sizes) > 5


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_one_row_no_rows_seeds_and_labels_of_each_kind(mix):
    x, y = batch()
    one, soft = mix(x[:1], y[:1], 4)
    assert torch.equal(one, x[:1]) and torch.equal(soft, F.one_hot(y[:1], 4).float())
    none, soft = mix(x[:0], y[:0], 4)
    assert none.shape == x[:0].shape and soft.shape == (0, 4)
    before = x.clone()
    a, b, c = (mix(x, y, 4, generator=generator(s)) for s in (1, 1, 2))
    assert all(map(torch.equal, a, b)) and not torch.equal(a[0], c[0]) and torch.equal(x, before)
    seed_everything(4)
    a = mix(x, y, 4)
    seed_everything(4)
    assert all(map(torch.equal, a, mix(x, y, 4)))
    hard, soft = mix(x, y, 4, generator=generator(1)), mix(x, F.one_hot(y, 4).float(), generator=generator(1))
    assert all(map(torch.equal, hard, soft))
    assert all(map(torch.equal, hard, mix(x, y.to(torch.uint8), 4, generator=generator(1))))
    half, soft = mix(x.half(), y, 4)
    assert half.dtype == torch.float16 and soft.dtype == torch.float32  # cross-entropy is taken in float32


@pytest.mark.parametrize(("mix", "name"), [(mixup, "mixup"), (cutmix, "cutmix")])
def test_wrong_batches_are_refused(mix, name):
    x, y = batch()
    for targets, words in [(y[:5], "targets: expected a target for each of 12 inputs"), (list(y), "expected a target for each"),
                           (F.one_hot(y, 4), "targets: expected class indices of shape"), (y > 1, "targets: expected class indices"),
                           (y - 1, "targets: expected labels from 0 to 3, got -1"), (y + 4, "targets: expected labels from 0 to 3")]:
        with pytest.raises(ConfigError, match=f"{name}.{words}" if words.startswith("targets") else words):
            mix(x, targets, 4)
    for count in (None, 0, -3, 2.5, "10", True):
        with pytest.raises(ConfigError, match=f"{name}.num_classes: .*expected the number of classes"):
            mix(x, y, count)
    for alpha in (0, -1, math.inf, math.nan, "1", None, True):
        with pytest.raises(ConfigError, match=f"{name}.alpha: expected a number above 0"):
            mix(x, y, 4, alpha)
    for inputs in ([1.0], x.long(), (x * 255).to(torch.uint8)):
        with pytest.raises(ConfigError, match=f"{name}.inputs: expected floating-point"):
            mix(inputs, y, 4)
    with pytest.raises(ConfigError, match="cutmix.inputs: expected floating-point images"):
        cutmix(torch.rand(12, 64), y, 4)


# ---- soft targets through the trainer

def soft_run(metrics, criterion=None, seed=0, **options):
    g = generator(seed)
    x = torch.randn(60, 4, generator=g)
    y = (x @ torch.randn(4, 3, generator=g)).argmax(1)
    torch.manual_seed(seed)
    model = nn.Linear(4, 3)
    trainer = Trainer(model, criterion or nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.5), device="cpu",
                      metrics=metrics, seed=seed, **options)
    rows = TensorLoader(x, y, batch_size=16, shuffle=True, seed=1)
    return trainer, AugmentedLoader(rows, partial(mixup, num_classes=3)), TensorLoader(x, y)


def test_accuracy_against_soft_targets_counts_the_class_with_the_largest_share():
    seen = []

    def spy(outputs, targets):
        seen.append((outputs, targets))
        return (outputs.argmax(1) == (targets.argmax(1) if targets.ndim == 2 else targets)).float().mean()

    objects = {"object": torchmetrics.Accuracy(task="multiclass", num_classes=3, average="macro"),
               "unchecked": torchmetrics.Accuracy(task="multiclass", num_classes=3, average="micro", validate_args=False),
               "micro": torchmetrics.Accuracy(task="multiclass", num_classes=3, average="micro")}
    trainer, train, val = soft_run({"accuracy": "accuracy", "f1": "f1", "spy": spy, **objects})
    row = trainer.fit(train, val, epochs=2, verbose=0).rows[-1]
    by_epoch = [pair for pair in seen if len(pair[1]) == 60 and pair[1].ndim == 2]
    outputs, targets = by_epoch[-1]
    assert targets.shape == (60, 3) and ((targets > 0.01) & (targets < 0.99)).any()
    right = (outputs.argmax(1) == targets.argmax(1)).float().mean().item()
    for name in ("accuracy", "spy", "unchecked", "micro"):
        assert math.isclose(row[name], right, rel_tol=1e-6), name
    macro = torchmetrics.functional.accuracy(outputs, targets.argmax(1), task="multiclass", num_classes=3, average="macro").item()
    assert math.isclose(row["object"], macro, rel_tol=1e-6)
    f1 = torchmetrics.functional.f1_score(outputs, targets.argmax(1), task="multiclass", num_classes=3, average="macro").item()
    assert math.isclose(row["f1"], f1, rel_tol=1e-6) and 0.3 < right < 1


def test_soft_labels_of_binary_metrics_are_rounded():
    x = torch.randn(40, 4, generator=generator(0))
    y = (x[:, :1] > 0).float()
    for kind, targets in [("binary", y), ("multilabel", torch.cat([y, 1 - y], 1))]:
        options = {"num_labels": 2} if kind == "multilabel" else {}
        model = nn.Linear(4, targets.shape[1])
        trainer = Trainer(model, nn.BCEWithLogitsLoss(), torch.optim.SGD(model.parameters(), lr=0.0), device="cpu",
                          metrics={"object": torchmetrics.Accuracy(task=kind, **options), "accuracy": "accuracy"})
        row = trainer.fit(AugmentedLoader(TensorLoader(x, targets, batch_size=40), partial(mixup, alpha=1.0)), epochs=1, verbose=0).rows[0]
        assert math.isclose(row["object"], row["accuracy"], rel_tol=1e-6) and 0 < row["accuracy"] <= 1


def test_the_loss_of_a_pass_is_that_of_all_rows_and_accumulation_is_exact():
    trainer, train, _ = soft_run((), criterion=nn.CrossEntropyLoss(label_smoothing=0.1))
    trainer.optimizer.param_groups[0]["lr"] = 0.0
    batches, model = [], trainer.model
    trainer.fit(AugmentedLoader(train, lambda x, y: batches.append((x, y)) or (x, y)), epochs=1, verbose=0)
    x, y = (torch.cat(part) for part in zip(*batches))
    assert math.isclose(trainer.history.rows[0]["loss"], F.cross_entropy(model(x), y, label_smoothing=0.1).item(), rel_tol=1e-5)
    grads = []
    for loader, accumulate in (([(x, y)], 1), (batches, 4)):
        copied = copy.deepcopy(model)
        optimizer = torch.optim.SGD(copied.parameters(), lr=1.0)
        Trainer(copied, nn.CrossEntropyLoss(), optimizer, device="cpu", accumulate=accumulate).fit(loader, epochs=1, verbose=0)
        grads.append(copied.weight.detach())
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("criterion", [nn.NLLLoss(), F.nll_loss])
def test_losses_that_take_no_shares_say_so(criterion):
    trainer, train, _ = soft_run((), criterion=criterion)
    with pytest.raises(ConfigError, match="takes class indices, and these are .*: CrossEntropyLoss takes shares of the classes"):
        trainer.fit(train, epochs=1, verbose=0)


@pytest.mark.parametrize("inner", ["tensors", "dataloader", "dataloader with a generator"])
@pytest.mark.parametrize("every", [None, 3])
def test_a_resumed_run_sees_the_same_mixed_batches(tmp_path, inner, every):
    def parts(folder, stop=None):
        trainer, train, val = soft_run(["accuracy"], checkpoint_dir=folder, checkpoint_every=every)
        if inner != "tensors":
            data = TensorDataset(*train.loader.tensors)
            options = {"generator": generator(7)} if "generator" in inner else {}
            train = AugmentedLoader(DataLoader(data, 16, shuffle=True, **options), *train.changes)

        def fail(model, rate):
            if trainer.step == stop:
                raise RuntimeError("out of power")

        trainer.callbacks = [AfterStep(fail)]
        return trainer, train, val

    whole, train, val = parts(tmp_path / "whole")
    whole.fit(train, val, epochs=4, verbose=0)
    first, train, val = parts(tmp_path / "cut", stop=11)
    with pytest.raises(RuntimeError, match="out of power"):
        first.fit(train, val, epochs=4, verbose=0)
    seed_everything(99)
    second, train, val = parts(tmp_path / "cut")
    second.fit(train, val, epochs=4, verbose=0, resume=True)
    assert second.step == whole.step and torch.equal(second.model.weight, whole.model.weight)
    assert [row["accuracy"] for row in second.history.rows] == [row["accuracy"] for row in whole.history.rows]


def test_a_function_after_every_step():
    rates = []
    trainer, train, val = soft_run((), callbacks=AfterStep(lambda model, rate: rates.append(rate) or max_norm_(model, 0.1)))
    trainer.fit(train, val, epochs=2, verbose=0)
    assert rates == [0.5] * 8 and (trainer.model.weight.norm(dim=1) <= 0.1 + 1e-6).all()
    trainer, train, _ = soft_run((), callbacks=[AfterStep(lambda model, rate: proximal_l1_(model, rate * 0.2))])
    trainer.fit(train, epochs=3, verbose=0)
    assert (trainer.model.weight == 0).any()
    with pytest.raises(ConfigError, match="AfterStep.change: expected"):
        AfterStep(3)


# ---- augment

@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_kind_keeps_shapes_types_and_seeds(kind, dtype):
    change = augment(kind)
    for shape in [(5, 1, 8, 8), (1, 3, 5, 9), (2, 8, 6), (0, 1, 4, 4), (3, 2, 1, 1)]:
        images = torch.rand(shape, generator=generator(0)).to(dtype)
        before = images.clone()
        seed_everything(1)
        one = change(images)
        seed_everything(1)
        assert torch.equal(one, change(images)) and torch.equal(images, before)
        assert one.shape == images.shape and one.dtype == dtype and one.isfinite().all()
        same = object()
        assert change(images, same)[1] is same
    images = torch.rand(64, 1, 8, 8, generator=generator(0)).to(dtype)
    changed = change(images)
    assert not torch.equal(changed, images)
    assert len({tuple((a - b).flatten().tolist()) for a, b in zip(changed, images)}) > 1  # another change for each image


def test_what_each_kind_does():
    image = torch.rand(1, 1, 7, 7, generator=generator(0)).expand(200, -1, -1, -1).contiguous()
    seed_everything(0)
    flipped = augment("flip")(image)
    mirrored = torch.tensor([torch.equal(new, image[0].flip(2)) for new in flipped])
    assert all(torch.equal(new, image[0]) for new in flipped[~mirrored]) and 60 < mirrored.sum() < 140
    padded = F.pad(image[0], (2, 2, 2, 2))
    ways = [padded[:, i:i + 7, j:j + 7] for i in range(5) for j in range(5)]
    seen = {next(n for n, way in enumerate(ways) if torch.equal(new, way)) for new in augment("crop", 2)(image)}
    assert len(seen) > 15
    bright = augment("jitter", 0.5)(image - 10)  # times 0.5 to 1.5, plus -0.5 to 0.5: nothing is clipped
    slope = (bright - bright.mean((2, 3), keepdim=True)).flatten(1) @ (image[0] - image[0].mean()).flatten() / image[0].var() / 48
    assert 0.5 <= slope.min() < 0.7 and 1.3 < slope.max() <= 1.5 and bright.min() < -5
    dot = torch.zeros(200, 1, 9, 9)
    dot[:, :, 4, 4] = 1.0
    place = torch.arange(9.0)
    for kind, amount, radius in (("shift", 2.0, 2.0), ("rotate", 90.0, 0.0)):
        moved = augment(kind, amount)(dot)
        sums = torch.stack([(moved.sum((1, 3)) * place).sum(1), (moved.sum((1, 2)) * place).sum(1)], 1)
        middle = sums / moved.sum((1, 2, 3))[:, None] - 4
        assert middle.abs().max() <= radius + 1e-3 and (radius == 0 or middle.abs().max() > 0.8 * radius)
    bar = torch.zeros(300, 1, 9, 9)
    bar[:, :, :, 4] = 1.0
    top = augment("rotate", 20.0)(bar)[:, 0, 1]
    angle = torch.rad2deg(torch.atan2((top * place).sum(1) / top.sum(1) - 4, torch.tensor(3.0)))
    assert 15 < angle.max() < 22 and -22 < angle.min() < -15


@pytest.mark.parametrize(("kind", "amount", "words"), [
    ("rotation", None, "augment.kind: .*Did you mean 'rotate'"), ("rotate", 0, "augment.amount: expected"),
    ("flip", 1.5, "at most 1 for 'flip'"),
    ("rotate", 181, "at most 180"), ("crop", 1.5, "moves by whole pixels, got 1.5; use 'shift'"), ("jitter", "much", "augment.amount"),
    ("shift", -1.0, "augment.amount"), ("flip", True, "augment.amount"), (None, None, "augment.kind")])
def test_wrong_kinds_and_amounts(kind, amount, words):
    with pytest.raises(ConfigError, match=words):
        augment(kind, amount)


def test_wrong_images():
    for images in (torch.rand(4, 64), torch.rand(4), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), [1], None, torch.rand(1, 1, 1, 8, 8)):
        with pytest.raises(ConfigError, match="augment.images: expected floating-point images"):
            augment("rotate")(images)
    for kind in ("crop", "shift"):
        with pytest.raises(ConfigError, match="out of sight"):
            augment(kind, 9)(torch.rand(2, 1, 8, 8))


def test_without_kornia_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    with pytest.raises(ConfigError, match=r'pip install "nnlearn\[course\]"'):
        augment("flip")


def test_augmentations_are_copied_and_pickled():
    images = torch.rand(4, 1, 6, 6, generator=generator(0))
    change = augment("shift", 0.5)
    change(images)
    for again in (copy.deepcopy(change), pickle.loads(pickle.dumps(change))):
        seed_everything(2)
        one = change(images)
        seed_everything(2)
        assert torch.equal(one, again(images)) and repr(again) == "augment('shift', 0.5)"


# ---- AugmentedLoader

def test_the_loader_is_iterated_as_the_one_inside():
    x, y = torch.rand(10, 1, 4, 4, generator=generator(0)), torch.arange(10)
    inner = TensorLoader(x, y, batch_size=4, shuffle=True, seed=3)
    plain = [labels.tolist() for _, labels in TensorLoader(x, y, batch_size=4, shuffle=True, seed=3)]
    loader = AugmentedLoader(inner, augment("flip", 1.0), lambda images, labels: (2 * images, labels))
    given = list(loader)
    assert [labels.tolist() for _, labels in given] == plain and len(loader) == 3 and loader.batch_size == 4
    for images, labels in given:
        assert torch.equal(images, 2 * x[labels].flip(3))
    for again in (copy.deepcopy(loader), copy.copy(loader)):
        assert len(list(again)) == 3
    dicts = AugmentedLoader([{"image": x, "label": y}], augment("crop"))
    assert torch.equal(next(iter(dicts))[1], y)
    train, val = dataloaders((x, y), (x, y), batch_size=5)
    assert len(AugmentedLoader(train, augment("shift"))) == len(val) == 2


def test_what_is_no_loader_or_no_change():
    x, y = torch.rand(4, 1, 4, 4), torch.arange(4)
    rows = TensorLoader(x, y)
    with pytest.raises(ConfigError, match="wrap it in a DataLoader"):
        AugmentedLoader(TensorDataset(x, y), augment("flip"))
    with pytest.raises(ConfigError, match="AugmentedLoader.loader: expected an iterable"):
        AugmentedLoader(3, augment("flip"))
    with pytest.raises(ConfigError, match="AugmentedLoader.loader: .*iterator"):
        AugmentedLoader(iter(rows), augment("flip"))
    for changes, got in [((), "got nothing"), (("flip",), "got 'flip'")]:
        with pytest.raises(ConfigError, match=f"AugmentedLoader.changes: expected functions of .*{got}"):
            AugmentedLoader(rows, *changes)
    for change in (lambda x, y: x, lambda x, y: None):
        with pytest.raises(ConfigError, match="AugmentedLoader.changes: expected <lambda> to return"):
            next(iter(AugmentedLoader(rows, change)))
    with pytest.raises(AttributeError):
        AugmentedLoader(rows, augment("flip")).no_such_name


def test_workers_and_numpy_seeds_do_not_matter():
    x, y = torch.rand(8, 1, 4, 4, generator=generator(0)), torch.arange(8)
    loader = AugmentedLoader(DataLoader(TensorDataset(x, y), 4), partial(cutmix, num_classes=8))
    runs = []
    for numpy_seed in (1, 2):
        seed_everything(0)
        np.random.seed(numpy_seed)
        runs.append([images for images, _ in loader])
    assert all(map(torch.equal, *runs))


def test_the_explorer_fits_polynomials_that_decay():
    explorer = overfitting_explorer()
    assert len(explorer.html) < 150_000
    curves = decode(explorer.html)["types"][""]["curves"]
    grid, wild, bent = np.linspace(-1, 1, 61), {}, {}
    for (points, degree, decay), shown in curves.items():
        assert len(shown["points"][0]) == int(points)
        polynomial, truth = (np.interp(grid, *map(np.asarray, shown[name])) for name in ("polynomial", "truth"))
        key = int(points), int(degree), float(decay)
        wild[key], bent[key] = np.abs(polynomial - truth).max(), np.abs(np.diff(polynomial, 2)).max()
    assert wild[10, 9, 0.0] > 1.9 > 1.2 > wild[10, 9, 0.1] and wild[200, 9, 0.0] < 0.7
    assert max(bend for (_, degree, _), bend in bent.items() if degree == 1) < 0.01  # one degree gives a line
