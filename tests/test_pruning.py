"""Pruning: masks and schedules for any values, torch's masks, the callback through every kind of run, channels, odd inputs."""
import copy
import itertools
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import utils
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune

from nnlearn.core import ConfigError, count_parameters, seed_everything
from nnlearn.course.explorers import sparsity_explorer
from nnlearn.layers import PruningWarning, make_permanent, prunable_layers, prune_structured, sparsity_report
from nnlearn.loaders import TensorLoader
from nnlearn.measure import operations
from nnlearn.models import small_cnn
from nnlearn.pruning import (
    ConstantSparsity,
    PolynomialSparsity,
    Pruner,
    magnitude_mask,
    masks_of,
    pattern_mask,
    prune_magnitude,
    sensitivity,
)
from nnlearn.sparsity import Sensitivity, Sizes
from nnlearn.trainer import Trainer
from nnlearn.training import Callback, EarlyStopping

SPARSITIES = st.floats(0, 1, exclude_max=True)


def data(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


# Masks

@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=60), SPARSITIES)
def test_a_mask_keeps_as_many_of_the_largest_as_it_says(values, sparsity):
    weight = torch.tensor(values)
    mask = magnitude_mask(weight, sparsity)
    assert mask.dtype == torch.bool and mask.sum() == round((1 - sparsity) * len(values))
    if mask.any() and not mask.all():
        assert weight[mask].abs().min() >= weight[~mask].abs().max()


@pytest.mark.parametrize("shape, sparsity", [((4, 3, 3, 3), 0.3), ((7, 11), 0.9), ((5,), 0.21), ((2, 3, 4), 0.0), ((64, 64), 0.999)])
@pytest.mark.parametrize("ties", [False, True])
def test_masks_are_torchs(shape, sparsity, ties):
    layer = nn.Module()
    layer.weight = nn.Parameter(data(*shape).round() if ties else data(*shape))
    mask = magnitude_mask(layer.weight, sparsity)
    torch_prune.l1_unstructured(layer, "weight", amount=float(sparsity))
    assert torch.equal(mask, layer.weight_mask.bool())


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
def test_masks_of_integers(dtype):
    """Whole numbers of every width: -128 has no absolute value in 8 bits, and is the largest all the same."""
    low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    weight = torch.tensor([low, high, 3, 0, 2, max(-100, low)], dtype=dtype)
    sizes = [min(abs(int(value)), 2**63 - 1) for value in weight]
    for keep in (1, 2, 3, 4):
        stays = magnitude_mask(weight, 1 - keep / 6).nonzero().flatten().tolist()
        assert sorted(sizes[k] for k in stays) == sorted(sizes)[-keep:]
    first = magnitude_mask(weight, 0.5)
    later = masks_of({"a": weight.flip(0)}, 0.8, before={"a": first})["a"]
    assert later.sum() == 1 and (first | ~later).all()


@pytest.mark.parametrize("sparsity", [0.11, 0.5, 0.93])
def test_global_masks_are_torchs(sparsity):
    ours, theirs = small_cnn((4, 8)), None
    theirs = copy.deepcopy(ours)
    masks = prune_magnitude(ours, sparsity, scope="global")
    layers = [theirs.get_submodule(name) for name in masks]
    torch_prune.global_unstructured([(layer, "weight") for layer in layers], torch_prune.L1Unstructured, amount=sparsity)
    assert all(torch.equal(mask, layer.weight_mask.bool()) for mask, layer in zip(masks.values(), layers))
    assert sum(int(m.sum()) for m in masks.values()) == round((1 - sparsity) * sum(m.numel() for m in masks.values()))
    assert len({round(float(m.float().mean()), 2) for m in masks.values()}) > 1  # the layers differ


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.lists(SPARSITIES, min_size=2, max_size=5).map(sorted), st.sampled_from(["layer", "global"]))
def test_later_masks_only_lose_weights(seed, sparsities, scope):
    masks = {}
    for k, sparsity in enumerate(sparsities):  # other weights each time, with ties and zeros
        weights = {"a": data(5, 7, seed=seed + 2 * k).round(), "b": data(30, seed=seed + 2 * k + 1).round()}
        new = masks_of(weights, sparsity, scope, masks)
        assert not masks or all((masks[name] | ~new[name]).all() for name in new)
        masks = new


def test_zeros_are_plain():
    model = mlp()
    prune_magnitude(model, 0.7)
    zeros = model[0].weight[model[0].weight == 0]
    assert len(zeros) and not torch.signbit(zeros).any()  # -0.0 does not compress
    again = mlp()
    torch_prune.l1_unstructured(again[0], "weight", amount=0.7)
    make_permanent(again)
    assert torch.equal(again[0].weight, model[0].weight) and not torch.signbit(again[0].weight[again[0].weight == 0]).any()


def test_only_chosen_layers_and_no_biases():
    model, before = mlp(), mlp().state_dict()
    masks = prune_magnitude(model, 0.6, ["2"])
    assert list(masks) == ["2"] and torch.equal(model[2].weight != 0, masks["2"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if name != "2.weight")
    assert list(prune_magnitude(model, 0.1, "4")) == ["4"]


def test_shares_by_layer():
    model, before = mlp(), mlp()
    masks = prune_magnitude(model, {"4": 0.25, "0": 0.6})
    assert list(masks) == ["4", "0"] and torch.equal(model[2].weight, before[2].weight)
    for name, share in [("0", 0.6), ("4", 0.25)]:
        weight = before.get_submodule(name).weight
        assert torch.equal(masks[name], magnitude_mask(weight, share))
        assert torch.equal(model.get_submodule(name).weight, weight * masks[name])
    left = prune_magnitude(normed(utils.weight_norm), {"2": 0.5})  # the layer under weight_norm is not asked for
    assert list(left) == ["2"] and left["2"].sum() == 128
    assert masks_of({"a": data(4), "b": data(4)}, {"b": 0.5})["a"].all()


def test_shares_of_a_shared_weight():
    model = named()
    model["fc2"].weight = model["fc1"].weight
    assert list(prune_magnitude(model, {"fc2": 0.5})) == ["fc2"]
    assert list(prune_magnitude(model, {"fc1": 0.5, "fc2": 0.5})) == ["fc1"]
    with pytest.raises(ConfigError, match="prune_magnitude.sparsity: the layers 'fc1' and 'fc2' share one weight"):
        prune_magnitude(model, {"fc1": 0.5, "fc2": 0.25})


def test_shared_weights_come_once():
    model = mlp()
    model[2].weight = nn.Parameter(data(16, 16))
    tied = nn.ModuleDict({"a": model[2], "b": nn.Linear(16, 16)})
    tied["b"].weight = model[2].weight
    assert list(prunable_layers(tied)) == ["a"]
    alone = nn.Linear(4, 4)
    assert list(prune_magnitude(alone, 0.5)) == [""] and "(model)" in str(sparsity_report(alone))


def test_pattern_masks():
    weight = data(6, 12, 3, 3)
    for keep, group in [(2, 4), (1, 4), (4, 6)]:
        mask = pattern_mask(weight, keep, group)  # neighbours are input channels, at each place of the kernel
        rows, sizes = (part.permute(0, 2, 3, 1).reshape(-1, group) for part in (mask, weight.abs()))
        assert (rows.sum(1) == keep).all()
        assert all(size[row].min() >= size[~row].max() for row, size in zip(rows, sizes))


def test_two_of_four_is_torchs():
    ao = pytest.importorskip("torch.ao.pruning")
    model = nn.Sequential(nn.Linear(16, 8))
    mask = pattern_mask(model[0].weight)
    sparsifier = ao.WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    assert torch.equal(mask, model[0].parametrizations.weight[0].mask.bool())


# Schedules

@st.composite
def polynomials(draw):
    low, high = sorted([draw(SPARSITIES), draw(SPARSITIES)])
    begin = draw(st.integers(0, 500))
    return PolynomialSparsity(low, high, begin, begin + draw(st.integers(0, 500)), draw(st.floats(0.1, 9)), draw(st.integers(1, 300)))


@settings(max_examples=200, deadline=None)
@given(polynomials())
def test_polynomial_schedules(schedule):
    steps = np.arange(1100)
    values = schedule(steps)
    assert values.shape == steps.shape and np.allclose([schedule(int(k)) for k in steps[::57]], values[::57], atol=1e-12)
    assert (values[:schedule.begin_step] == 0).all() and (values[schedule.end_step:] == schedule.final).all()
    during = values[schedule.begin_step:]
    assert (np.diff(during) >= 0).all() and (during >= schedule.initial).all() and (during <= schedule.final).all()
    changes = schedule.begin_step + 1 + np.flatnonzero(np.diff(during))
    assert all((k - schedule.begin_step) % schedule.frequency == 0 or k == schedule.end_step for k in changes)


@pytest.mark.parametrize("step", [0, 99, 100, 950, 1999, 2000, 9000])
def test_polynomial_by_hand(step):
    t = min(step // 100 * 100 / 2000, 1)
    assert PolynomialSparsity()(step) == pytest.approx(0.8 + (0.3 - 0.8) * (1 - t) ** 3, abs=1e-12)


def test_constant_schedule():
    schedule = ConstantSparsity(0.7, begin_step=5)
    assert [schedule(k) for k in (0, 4, 5, 6)] == [0, 0, 0.7, 0.7] and schedule.end_step == 5
    assert schedule(np.array([[4, 5]])).tolist() == [[0, 0.7]]


# The callback

class Stop(Callback):
    "Ends a run after an optimizer step, as Ctrl-C does."

    def __init__(self, at=None):
        self.at = at

    def step_end(self, trainer):
        if trainer.step == self.at:
            trainer.interrupted = trainer.should_stop = True


class Zeros(Callback):
    "The sparsity after each step."

    def __init__(self):
        self.seen = []

    def step_end(self, trainer):
        self.seen.append((trainer.step, sparsity_report(trainer.model).sparsity))


INPUTS, LABELS = data(100, 12), torch.from_numpy(np.random.default_rng(1).integers(0, 3, 100))
SCHEDULE = PolynomialSparsity(0.2, 0.75, begin_step=3, end_step=21, frequency=4)


def make(callbacks, folder=None, optimizer=None, model=None, seed=0, **options):
    seed_everything(3)
    model = model or mlp(seed)
    optimizer = optimizer(model.parameters()) if optimizer else torch.optim.Adam(model.parameters(), lr=0.01)
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, device="cpu", callbacks=callbacks, checkpoint_dir=folder, **options)


def loader(size=16):
    return TensorLoader(INPUTS, LABELS, batch_size=size, shuffle=True, seed=0)  # 7 steps an epoch


OPTIMIZERS = {"adam": lambda p: torch.optim.Adam(p, 0.01), "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
              "decay": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1), "fused": lambda p: torch.optim.AdamW(p, 0.01, fused=True)}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_sparsity_follows_the_schedule_at_every_step(optimizer, scope):
    zeros, pruner = Zeros(), Pruner(SCHEDULE, scope=scope)
    trainer = make([pruner, zeros], optimizer=OPTIMIZERS[optimizer])
    names, last = list(trainer.model.state_dict()), [name for name, _ in trainer.model.named_parameters()]
    trainer.fit(loader(), epochs=4, verbose=0)
    total = sum(w.numel() for w in prunable_layers(trainer.model).values())
    layers = 3 if scope == "layer" else 1
    assert len(zeros.seen) == 28
    for step, share in zeros.seen:
        assert abs(share - SCHEDULE(step)) <= 0.5 * layers / total + 1e-9
    assert pruner.updates == [[k, SCHEDULE(k)] for k in (3, 7, 11, 15, 19, 21)] and pruner.sparsity == 0.75
    assert list(trainer.model.state_dict()) == names and [name for name, _ in trainer.model.named_parameters()] == last


@pytest.mark.parametrize("stop, checkpoints", [(5, None), (10, None), (14, None), (17, 5), (24, 1)])
@pytest.mark.parametrize("schedule", [SCHEDULE, ConstantSparsity(0.6)], ids=["polynomial", "constant"])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, stop, checkpoints, schedule):
    """Stopped in the middle of an epoch and at its end; a new model, optimizer, trainer and pruner take it up."""
    runs = []
    for folder, at, resume in [("whole", None, False), ("cut", stop, False), ("cut", None, True)]:
        pruner = Pruner(schedule, scope="global")
        trainer = make([pruner, Stop(at), EarlyStopping("loss", patience=20)], tmp_path / folder, checkpoint_every=checkpoints,
                       seed=7 if resume else 0, clip_norm=0.5)  # resumed: another start, which the checkpoint must replace
        trainer.fit(loader(), epochs=4, verbose=0, resume=resume)
        runs.append((trainer, pruner))
    (whole, first), (cut, _), (again, second) = runs
    assert cut.step == stop < whole.step == again.step == 28
    assert all(torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), again.model.state_dict().values()))
    for a, b in zip(whole.optimizer.state_dict()["state"].values(), again.optimizer.state_dict()["state"].values()):
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert first.updates == second.updates and first.sparsity == second.sparsity
    assert all(torch.equal(first.masks[name], second.masks[name]) for name in first.masks)
    assert [row["loss"] for row in whole.history.rows] == [row["loss"] for row in again.history.rows]


SCRIPT = """
import sys, torch
sys.path[:0] = {path!r}
from test_pruning import *
pruner = Pruner(SCHEDULE, scope="global")
trainer = make([pruner, Stop({stop})], {folder!r})
trainer.fit(loader(), epochs=4, verbose=0, resume={resume})
torch.save([trainer.model.state_dict(), pruner.state_dict()], {out!r})
"""


def by_layer():
    return Pruner({"2": SCHEDULE, "4": 0.25, "0": ConstantSparsity(0.5, begin_step=9)})


def test_schedules_by_layer():
    class Shares(Callback):
        def __init__(self):
            self.seen = []

        def step_end(self, trainer):
            report = sparsity_report(trainer.model)
            self.seen.append([report[name] for name in "024"])

    shares, pruner = Shares(), by_layer()
    trainer = make([pruner, shares])
    trainer.fit(loader(), epochs=4, verbose=0)
    for step, found in enumerate(shares.seen, 1):
        for share, wanted, count in zip(found, [0.5 * (step >= 9), SCHEDULE(step), 0.25], [192, 256, 48]):
            assert abs(share - wanted) <= 0.5 / count + 1e-9
    assert pruner.end_step == 21 and pruner.sparsity == {"0": 0.5, "2": 0.75, "4": 0.25}
    assert [step for step, _ in pruner.updates] == [0, 3, 7, 9, 11, 15, 19, 21]
    alone = make([Pruner({"2": 0.5})])
    alone.fit(loader(), epochs=1, verbose=0)
    assert [sparsity_report(alone.model)[name] for name in "024"] == [0, 0.5, 0]


@pytest.mark.parametrize("stop", [5, 10, 14])
def test_schedules_by_layer_go_on_to_the_same_bits(tmp_path, stop):
    runs = []
    for folder, at, resume in [("whole", None, False), ("cut", stop, False), ("cut", None, True)]:
        pruner = by_layer()
        trainer = make([pruner, Stop(at)], tmp_path / folder, seed=7 if resume else 0)
        trainer.fit(loader(), epochs=4, verbose=0, resume=resume)
        runs.append((trainer, pruner))
    (whole, first), (cut, _), (again, second) = runs
    assert cut.step == stop and first.updates == second.updates and first.sparsity == second.sparsity
    assert all(torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), again.model.state_dict().values()))
    with pytest.raises(ConfigError, match="Pruner.schedule: the run before had one schedule, and this one"):
        make([Pruner(SCHEDULE), Stop()], tmp_path / "cut").fit(loader(), epochs=5, verbose=0, resume=True)


def test_a_run_is_taken_up_by_a_new_process(tmp_path):
    found = []
    for folder, stop, resume in [("whole", None, False), ("cut", 12, False), ("cut", None, True)]:
        out = str(tmp_path / "out.pt")
        code = SCRIPT.format(path=sys.path, stop=stop, folder=str(tmp_path / folder), resume=resume, out=out)
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        found.append(torch.load(out, weights_only=True))
    (whole, masks), (cut, _), (again, masks_again) = found
    assert all(torch.equal(whole[name], again[name]) for name in whole) and not torch.equal(whole["0.weight"], cut["0.weight"])
    assert masks["updates"] == masks_again["updates"]
    assert all(torch.equal(mask, masks_again["masks"][name]) for name, mask in masks["masks"].items())


def test_gradients_of_pruned_weights_do_not_count_in_the_norm():
    class Norm(Callback):
        def grads_ready(self, trainer):
            self.gradient = trainer.model[0].weight.grad.clone()

    for order in (0, 1):
        norm, pruner = Norm(), Pruner(ConstantSparsity(0.9))
        make([pruner, norm]).fit(loader(), epochs=1, verbose=0)
        assert (norm.gradient[~pruner.masks["0"]] == 0).all() and (norm.gradient != 0).any(), order


@pytest.mark.parametrize("first", ["pruner", "stopping"])
def test_the_best_weights_are_never_denser(tmp_path, first):
    """The validation loss is made best in the first epoch, long before the schedule ends."""
    class Worse(nn.CrossEntropyLoss):
        calls = 0

        def forward(self, outputs, labels):
            self.calls += not outputs.requires_grad
            return super().forward(outputs, labels) + (0 if outputs.requires_grad else self.calls)

    from nnlearn.checkpoints import read_checkpoint
    schedule = PolynomialSparsity(0.0, 0.8, end_step=25, frequency=5)  # 7 steps an epoch: it ends in the fourth epoch
    pruner, stopping = Pruner(schedule), EarlyStopping(patience=4)
    trainer = make([pruner, stopping] if first == "pruner" else [stopping, pruner], tmp_path)
    trainer.criterion = Worse()
    trainer.fit(loader(), TensorLoader(INPUTS, LABELS, batch_size=100), epochs=20, verbose=0)
    assert len(trainer.history) == 8  # four epochs of patience, counted from the fourth
    assert sparsity_report(trainer.model).sparsity == pytest.approx(0.8, abs=0.01)
    assert stopping.best == pytest.approx(trainer.history["val_loss"][3])
    best = read_checkpoint(tmp_path / "best.pt")
    assert best["counters"]["epoch"] == 4
    weight = best["model"]["0.weight"]
    assert float((weight == 0).float().mean()) == pytest.approx(0.8, abs=0.01)


def test_best_weights_of_a_schedule_without_an_end():
    pruner = Pruner(lambda step: 0.8 if step >= 20 else 0.0)
    trainer = make([pruner, EarlyStopping("lr", mode="min", patience=50)])  # never better than in the first epoch
    trainer.fit(loader(), epochs=5, verbose=0)
    assert sparsity_report(trainer.model).sparsity == pytest.approx(0.8, abs=0.01)


def test_patience_does_not_count_before_the_end():
    schedule = PolynomialSparsity(0.5, 0.6, end_step=40, frequency=1000)  # no new mask between the steps 0 and 40
    trainer = make([Pruner(schedule), EarlyStopping("loss", patience=1, min_delta=100.0)])
    trainer.fit(loader(), epochs=20, verbose=0)
    assert len(trainer.history) == 7  # the end lies in epoch 6, which is the best; one epoch of patience


def test_a_run_that_is_too_short_is_told_so():
    with pytest.warns(PruningWarning, match=r"ended after 14 steps at a sparsity of 0\.\d+, before .*end_step 2000"):
        make([Pruner(PolynomialSparsity())]).fit(loader(), epochs=2, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make([Pruner(ConstantSparsity(0.5))]).fit(loader(), epochs=1, verbose=0)
        make([Pruner(PolynomialSparsity(end_step=30)), Stop(5)]).fit(loader(), epochs=1, verbose=0)


def test_a_second_fit_goes_on_and_a_second_trainer_begins_anew():
    pruner = Pruner(ConstantSparsity(0.5, begin_step=10))
    trainer = make([pruner])
    with pytest.warns(PruningWarning):
        trainer.fit(loader(), epochs=1, verbose=0)
    assert sparsity_report(trainer.model).sparsity == 0 and not pruner.masks
    trainer.fit(loader(), epochs=1, verbose=0)
    assert sparsity_report(trainer.model).sparsity == pytest.approx(0.5, abs=0.01)
    other = make([pruner], model=nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)))
    with pytest.warns(PruningWarning):
        other.fit(loader(), epochs=1, verbose=0)
    assert sparsity_report(other.model).sparsity == 0


def test_only_the_layers_asked_for():
    trainer = make([Pruner(ConstantSparsity(0.9), layers=["2"])])
    trainer.fit(loader(), epochs=1, verbose=0)
    report = sparsity_report(trainer.model)
    assert report["2"] == pytest.approx(0.9, abs=0.01) and report["0"] == report["4"] == 0


def test_any_function_of_the_step_is_a_schedule():
    pruner = Pruner(lambda step: min(step, 8) / 10)
    trainer = make([pruner])
    trainer.fit(loader(), epochs=2, verbose=0)
    assert sparsity_report(trainer.model).sparsity == pytest.approx(0.8, abs=0.01) and len(pruner.updates) == 8
    falling = make([Pruner(lambda step: 0.6 if step < 5 else 0.1)])
    falling.fit(loader(), epochs=1, verbose=0)
    assert sparsity_report(falling.model).sparsity == pytest.approx(0.6, abs=0.01)


def test_accumulation_and_frozen_layers():
    model, zeros = mlp(), Zeros()
    model[0].weight.requires_grad_(False)
    trainer = make([Pruner(ConstantSparsity(0.5)), zeros], model=model, accumulate=3)
    trainer.fit(loader(), epochs=2, verbose=0)
    assert len(zeros.seen) == 6 and all(share == pytest.approx(0.5, abs=0.01) for _, share in zeros.seen)


def test_masks_of_other_layers_are_refused(tmp_path):
    make([Pruner(ConstantSparsity(0.5)), Stop(3)], tmp_path).fit(loader(), epochs=1, verbose=0)
    with pytest.raises(ConfigError, match="layers 0, 2, 4 of the run before, and this run has 2"):
        make([Pruner(ConstantSparsity(0.5), layers=["2"]), Stop()], tmp_path).fit(loader(), epochs=1, verbose=0, resume=True)


# Reports, sensitivity, permanence

def test_report_counts_zeros_under_any_masks():
    model = mlp()
    torch_prune.l1_unstructured(model[0], "weight", amount=0.25)
    torch_prune.random_unstructured(model[2], "weight", amount=0.5)
    report = sparsity_report(model)
    assert report["0"] == 0.25 and report["2"] == 0.5 and report["4"] == 0
    assert report.sparsity == pytest.approx((48 + 128) / (192 + 256 + 48)) and report.parameters == count_parameters(model)
    assert "48 of       192 zero" in str(report)
    with pytest.raises(ConfigError, match="no layer '1'"):
        report["1"]


def test_sensitivity_leaves_no_trace():
    model = mlp()
    model[1].train()
    before = copy.deepcopy(model.state_dict())
    found = sensitivity(model, lambda m: float((m[2].weight == 0).float().mean()), [0.25, 0.5])
    assert found.scores == {"0": [0, 0], "2": [0.25, 0.5], "4": [0, 0]} and found.base == 0 and found.order()[-1] == "2"
    assert found.plot().get_xlabel().startswith("sparsity")

    def fails(m):
        if (m[2].weight == 0).any():
            raise ZeroDivisionError
        return 1.0

    with pytest.raises(ZeroDivisionError):
        sensitivity(model, fails, [0.5])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert list(sensitivity(model, lambda m: 1.0, [0.1], ["4"]).scores) == ["4"]


RATIOS = (0.25, 0.5, 0.75, 0.9)


def curves(losses, counts, widths=None, base=100.0):
    """A sensitivity made by hand: what each layer loses at `RATIOS`, and its weights."""
    names = "abcdef"[:len(counts)]
    widths = widths or [1] * len(counts)
    return Sensitivity(RATIOS, {name: [base - loss for loss in row] for name, row in zip(names, losses)}, base,
                       Sizes(dict(zip(names, counts)), dict(zip(names, widths)), 7))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_proposals_are_the_best_at_the_corners(choose):
    """Where a whole step ends, no combination of measured ratios of at most these bytes loses less."""
    layers = choose.draw(st.integers(1, 3))
    losses = [np.cumsum(choose.draw(st.lists(st.integers(0, 9), min_size=4, max_size=4))) for _ in range(layers)]
    counts = [20 * choose.draw(st.integers(1, 9)) for _ in range(layers)]
    found = curves(losses, counts, [choose.draw(st.sampled_from([1, 2, 4])) for _ in range(layers)])
    grid = [0.0, *RATIOS]
    every = []
    for places in itertools.product(range(5), repeat=layers):
        stay = {name: round((1 - grid[k]) * count) for (name, count), k in zip(found.sizes.weights.items(), places)}
        every.append((found.sizes.bytes(stay), sum([0, *row][k] for row, k in zip(losses, places))))
    size = choose.draw(st.integers(min(every)[0], found.sizes.bytes(found.sizes.weights)))
    proposal = found.propose(size=size + 0.0)
    assert list(proposal) == list(found.scores) and proposal.size <= size and proposal.drop == pytest.approx(found.drop(proposal))
    stay = {name: round((1 - share) * found.sizes.weights[name]) for name, share in proposal.items()}
    assert proposal.size == found.sizes.bytes(stay)
    if all(any(abs(share - ratio) < 1e-12 for ratio in grid) for share in proposal.values()):
        assert proposal.drop <= min(loss for byte, loss in every if byte <= proposal.size) + 1e-9
    within = found.propose(max_drop=proposal.drop)
    assert within.drop <= proposal.drop + 1e-6 and within.size <= proposal.size


def test_a_proposal_by_hand():
    found = curves([[0, 2, 8, 30], [10, 11, 12, 60]], [100, 100])  # the second is dear at first, and then cheap
    assert found.propose(182).shares == {"a": 0.25, "b": 0.0} and found.propose(0.88).drop == 0
    assert found.propose(157).shares == {"a": 0.5, "b": 0.0} and found.propose(157).drop == 2
    assert found.propose(82).shares == {"a": 0.5, "b": 0.75} and found.propose(82).drop == 14  # over the dent
    assert found.propose(57).shares == {"a": 0.75, "b": 0.75}
    assert found.propose(172)["a"] == pytest.approx(0.35) and found.propose(172).drop == pytest.approx(0.8)
    assert found.propose(207).shares == found.propose(1.0).shares == {"a": 0, "b": 0}
    assert found.propose(max_drop=8).shares["b"] == pytest.approx(0.15, abs=0.01)  # 2 for `a`, 6 of the 10 for the next step
    assert found.propose(157, max_drop=2).size == 157
    said = str(found.propose(182))
    assert "25.0% of       100 weights go" in said and "182 of 207 bytes stay (87.9%), predicted drop 0" in said


def test_noisy_curves_never_fall_and_end_at_what_is_no_number():
    found = curves([[3, 1, 5, 9], [-2, 0, math.nan, 4]], [100, 100])
    assert found.drop({"a": 0.5}) == 3 and found.drop({"b": 0.5}) == 0 and found.drop({"a": 0.375, "b": 0.1}) == 3
    assert found.propose(max_drop=100).shares == {"a": 0.9, "b": 0.5}
    unsorted = Sensitivity((0.9, 0.0, 0.5), {"a": [50, 99, 90]}, 100, Sizes({"a": 10}, {"a": 1}, 0))
    assert unsorted.drop({"a": 0.5}) == 10 and unsorted.drop({"a": 0.7}) == pytest.approx(30) and unsorted.propose(1).shares == {"a": 0.0}


@pytest.mark.parametrize("call, words", [
    (lambda found: found.propose(), "Sensitivity.propose: expected a size, a largest drop, or both"),
    (lambda found: found.propose(26), r"propose.size: at most 26 bytes cannot be reached: .* 27 \(13.0%\) stay. Measure larger"),
    (lambda found: found.propose(0.01), "at most 2 bytes cannot be reached"),
    (lambda found: found.propose(0), "Sensitivity.propose.size: expected a number above 0 or None, got 0"),
    (lambda found: found.propose("8 KiB"), "Sensitivity.propose.size: expected a number"),
    (lambda found: found.propose(100, max_drop=5), "max_drop: at most 100 bytes .*cost 9.4, more than 5; a drop of 5 reaches 126 bytes"),
    (lambda found: found.propose(max_drop=-1), "Sensitivity.propose.max_drop: expected a number of at least 0"),
    (lambda found: found.drop({"aa": 0.5}), "Sensitivity.drop: the layer 'aa' was not measured. Did you mean 'a'"),
    (lambda found: found.drop({"a": 0.95}), "Sensitivity.drop: the layer 'a' was measured up to 0.9, got 0.95"),
])
def test_bad_proposals_teach(call, words):
    with pytest.raises(ConfigError, match=words):
        call(curves([[0, 4, 9, 20], [0, 4, 9, 20]], [100, 100]))


@pytest.mark.parametrize("share", [0.6, 0.3, 0.15])
def test_a_proposal_prunes_a_net(share):
    model = small_cnn((4, 8))
    before, x = copy.deepcopy(model), data(64, 1, 28, 28)
    with torch.no_grad():
        outputs = model.eval()(x)
        found = sensitivity(model, lambda m: -float((m.eval()(x) - outputs).square().mean()), RATIOS)
        proposal = found.propose(share)
    masks = prune_magnitude(model, proposal)
    zeros = sum(int((~mask).sum()) for mask in masks.values())
    whole = sum(value.nbytes for value in before.state_dict().values())
    assert proposal.size == whole - 4 * zeros <= share * whole and proposal.size > share * whole - 4
    assert proposal.drop > 0 and len({round(value, 3) for value in proposal.values()}) > 1
    trainer = make([Pruner(proposal)], model=before)
    trainer.fit([(x, torch.arange(64) % 10)], epochs=1, verbose=0)
    assert sum(sparsity_report(before).zeros.values()) == zeros


def test_make_permanent():
    model, x = mlp(), data(4, 12)
    torch_prune.l1_unstructured(model[0], "weight", amount=0.5)
    torch_prune.l1_unstructured(model[0], "weight", amount=0.5)  # twice: a container of masks
    torch_prune.random_unstructured(model[2], "bias", amount=0.3)
    expected = model(x)
    with pytest.raises(RuntimeError):
        copy.deepcopy(model)
    assert make_permanent(model) is model
    assert torch.equal(copy.deepcopy(model)(x), expected) and set(model.state_dict()) == set(mlp().state_dict())
    assert sparsity_report(model)["0"] == 0.75 and not any(m._forward_pre_hooks for m in model.modules())
    plain = mlp()
    assert all(torch.equal(a, b) for a, b in zip(make_permanent(plain).state_dict().values(), mlp().state_dict().values()))


# Channels

class Residual(nn.Module):
    def __init__(self, sizes=False):
        super().__init__()
        self.stem, self.body, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.head, self.extra, self.sizes = nn.Linear(16, 5), nn.Linear(16, 2), sizes

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(x + self.norm(self.body(x)))
        x = x.view(-1, 16, 8 * 8).mean(2) if self.sizes else x.mean((2, 3))
        return {"a": self.extra(x), "b": self.head(x)}


def test_structured_with_a_sum_of_branches():
    model, x = Residual().train(), data(2, 3, 8, 8)
    model.norm.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        small = prune_structured(model, x, 0.5, ignored=["head", "extra"])
    assert small.stem.out_channels == small.body.in_channels == small.body.out_channels == small.norm.num_features == 8
    assert small(x)["a"].shape == (2, 2) and small.training and small.norm.training and not small.norm.weight.requires_grad
    assert small.stem.weight.requires_grad and all(p.grad is None for p in small.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()) and model.norm.training
    assert operations(small, x) < 0.5 * operations(model, x)
    with pytest.raises(ConfigError, match=r"had the shape \[\(2, 2\), \(2, 5\)\] and now have \[\(2, 1\), \(2, 5\)\].*to ignored"):
        prune_structured(model, x, 0.5)
    with pytest.raises(ConfigError, match="does not run.*sizes of its own"):
        prune_structured(Residual(sizes=True), x, 0.5, ignored=["head", "extra"])


@pytest.mark.parametrize("ratio, round_to, widths", [(0.0, None, (16, 32)), (0.5, None, (8, 16)), (0.25, 4, (12, 24)), (0.3, 8, (8, 16))])
def test_structured_widths(ratio, round_to, widths):
    model = small_cnn((16, 32)).eval()
    small = prune_structured(model, (torch.zeros(2, 1, 28, 28),), ratio, round_to=round_to)
    assert (small[0].out_channels, small[4].out_channels) == widths and not small.training
    assert small(torch.zeros(3, 1, 28, 28)).shape == (3, 10) and small is not model and small[0] is not model[0]
    if ratio == 0.5:
        assert count_parameters(small) == count_parameters(small_cnn((8, 16)))


@pytest.mark.parametrize("ratios, widths", [({"0": 0.5}, (8, 32)), ({"4": 0.25}, (16, 24)), ({"0": 0.25, "4": 0.75}, (12, 8)),
                                            ({"0": 0.0, "4": 0.5}, (16, 16))])
def test_ratios_by_layer(ratios, widths):
    model = small_cnn((16, 32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = prune_structured(model, IMAGES, ratios)
    assert (small[0].out_channels, small[4].out_channels) == widths
    assert count_parameters(small) == count_parameters(small_cnn(widths))


def test_ratios_of_layers_that_depend_on_one_another():
    model, x, heads = Residual(), data(2, 3, 8, 8), ["head", "extra"]
    small = prune_structured(model, x, {"stem": 0.25, "body": 0.25}, heads)
    assert small.stem.out_channels == small.body.out_channels == small.norm.num_features == 12
    with pytest.raises(ConfigError, match=r"lose the same channels, and their ratios disagree \('stem' 0.25, 'body' 0.5\)"):
        prune_structured(model, x, {"stem": 0.25, "body": 0.5}, heads)
    with pytest.raises(ConfigError, match="disagree"):
        prune_structured(model, x, {"stem": 0.25, "body": 0.0}, heads)
    with pytest.warns(PruningWarning, match="the layers body have no ratio and lose channels together with stem"):
        small = prune_structured(model, x, {"stem": 0.5}, heads)
    assert small.stem.out_channels == small.body.out_channels == 8
    with pytest.warns(PruningWarning, match="all outputs of the layers 0 stay"):
        small = prune_structured(small_cnn((8, 64)), IMAGES, {"0": 0.5, "4": 0.5}, round_to=8)
    assert (small[0].out_channels, small[4].out_channels) == (8, 32)


@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize("ratio, width", [(0.9, 1), (0.8, 2), (0.7, 3), (0.4, 6), (0.1, 9)])
def test_ratios_of_ten_channels(by_layer, ratio, width):
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))
    small = prune_structured(model, data(4, 6), {"0": ratio} if by_layer else ratio)
    assert small[0].out_features == small[2].in_features == width


def test_layers_that_stay_whole_are_named():
    with pytest.warns(PruningWarning, match="all outputs of the layers 0 stay: they have too few"):
        small = prune_structured(small_cnn((8, 64)), IMAGES, 0.5, round_to=8)
    assert (small[0].out_channels, small[4].out_channels) == (8, 32)


def test_a_smaller_model_trains_is_saved_and_pruned_again(tmp_path):
    small = prune_structured(small_cnn((8, 16)), data(2, 1, 28, 28), 0.5)
    trainer = Trainer(small, nn.CrossEntropyLoss(), torch.optim.Adam(small.parameters()), device="cpu",
                      callbacks=[Pruner(ConstantSparsity(0.5))])
    trainer.fit([(data(8, 1, 28, 28), torch.arange(8))], epochs=2, verbose=0)
    assert sparsity_report(small).sparsity == pytest.approx(0.5, abs=0.01)
    other = small_cnn((4, 8))
    other.load_state_dict(small.state_dict())


# What is refused

MASKED = mlp()
torch_prune.l1_unstructured(MASKED[0], "weight", amount=0.5)
IMAGES = torch.zeros(2, 1, 28, 28)


class Half(nn.Module):
    def forward(self, weight):
        return weight / 2


def parametrized():
    model = mlp()
    parametrize.register_parametrization(model[0], "weight", Half())
    return model


def normed(wrap):
    model = mlp()
    wrap(model[0])
    model(data(2, 12))
    return model


def named():
    return nn.ModuleDict({"fc1": nn.Linear(2, 2), "fc2": nn.Linear(2, 2)})


@pytest.mark.parametrize("call, words", [
    (lambda: magnitude_mask(data(3), 1), "magnitude_mask.sparsity: expected a number from 0 to below 1, got 1"),
    (lambda: magnitude_mask(data(3), 1.0), "magnitude_mask.sparsity"),
    (lambda: magnitude_mask(data(3), -0.1), "got -0.1"),
    (lambda: magnitude_mask(data(3), 80), "got 80"),
    (lambda: magnitude_mask(data(3), math.nan), "got nan"),
    (lambda: magnitude_mask(data(3), True), "got True"),
    (lambda: magnitude_mask(data(3), "0.5"), "got '0.5'"),
    (lambda: magnitude_mask(torch.empty(0, 3), 0.5), r"magnitude_mask.weight: expected at least one weight, got shape \(0, 3\)"),
    (lambda: magnitude_mask([1.0], 0.5), "magnitude_mask.weight: expected a Tensor, got a list"),
    (lambda: magnitude_mask(torch.tensor([1, math.nan]), 0.5), "1 weights are NaN"),
    (lambda: prune_magnitude(mlp(), 0.5, scope="globl"), "prune_magnitude.scope: .*Did you mean 'global'"),
    (lambda: prune_magnitude(mlp(), 0.5, ["3"]), r"'3' \(ReLU\) has no weight.*Accepted: 0, 2, 4"),
    (lambda: prune_magnitude(named(), 0.5, ["fc_1"]), "Did you mean 'fc1'"),
    (lambda: prune_magnitude(mlp(), 0.5, []), "None means all"),
    (lambda: prune_magnitude(mlp(), 1.5), "prune_magnitude.sparsity.*got 1.5"),
    (lambda: prune_magnitude(nn.Sequential(nn.ReLU(), nn.LayerNorm(3)), 0.5), "no layer to prune"),
    (lambda: prune_magnitude(data(3), 0.5), "prune_magnitude.model: expected a Module, got Tensor"),
    (lambda: prune_magnitude(MASKED, 0.5), "make_permanent"),
    (lambda: prune_magnitude(parametrized(), 0.5), r"parametrization of torch.nn.utils \(Half\).*`layers` can name the others"),
    (lambda: prune_magnitude(normed(utils.weight_norm), 0.5), r"layer '0' is computed by weight_norm; torch.nn.utils.remove_weight_norm\("),
    (lambda: prune_magnitude(normed(utils.parametrizations.weight_norm), 0.5), r"\(WeightNorm\); parametrize.remove_parametrizations"),
    (lambda: prune_magnitude(normed(utils.spectral_norm), 0.5), r"computed by spectral_norm; torch.nn.utils.remove_spectral_norm\("),
    (lambda: prune_structured(normed(utils.weight_norm), data(2, 12), 0.5), r"weight_norm\(layer\) takes it off.$"),
    (lambda: prune_magnitude(named(), {"fc_1": 0.5}), "prune_magnitude.sparsity: there is no layer 'fc_1'. Did you mean 'fc1'"),
    (lambda: prune_magnitude(mlp(), {"3": 0.5}), r"prune_magnitude.sparsity: '3' \(ReLU\) has no weight"),
    (lambda: prune_magnitude(mlp(), {"0": 1.0}), r"prune_magnitude.sparsity\['0'\]: expected a number from 0 to below 1, got 1.0"),
    (lambda: prune_magnitude(mlp(), {0: 0.5}), "names of layers are strings, got 0; write '0'"),
    (lambda: prune_magnitude(mlp(), {}), "prune_magnitude.sparsity: the mapping is empty"),
    (lambda: prune_magnitude(mlp(), {"0": 0.5}, ["0"]), "prune_magnitude.layers: the mapping names its layers already"),
    (lambda: prune_magnitude(mlp(), {"0": 0.5}, scope="global"), "prune_magnitude.scope: each layer has a share of its own"),
    (lambda: masks_of({"a": data(3)}, {"b": 0.5}), "masks_of.sparsity: unknown key 'b'"),
    (lambda: Pruner({"0": 2}), r"Pruner.schedule\['0'\]: expected a number from 0 to below 1 or a function, got 2"),
    (lambda: Pruner({"0": 0.5}, ["0"]), "Pruner.layers: the mapping names"),
    (lambda: make([Pruner({"6": 0.5})]).fit(loader(), verbose=0), "Pruner.schedule: there is no layer '6'"),
    (lambda: make([Pruner({"0": lambda step: 1.0})]).fit(loader(), verbose=0), r"Pruner.schedule\['0'\]: .*got 1.0 at step 0"),
    (lambda: prune_structured(small_cnn((4, 8)), IMAGES, {"5": 0.5}), r"prune_structured.ratio: '5' \(BatchNorm2d\) has no weight"),
    (lambda: prune_structured(small_cnn((4, 8)), IMAGES, {"0": 1.0}), r"prune_structured.ratio\['0'\]: expected a number"),
    (lambda: prune_structured(small_cnn((4, 8)), IMAGES, {"0": 0.5, "9": 0.5}), "'9' is called last and makes the outputs"),
    (lambda: prune_structured(small_cnn((4, 8)), IMAGES, {"0": 0.5}, ["0", "9"]), "'0' is in ignored, too"),
    (lambda: masks_of({"a": data(3)}, 2.0), "masks_of.sparsity"),
    (lambda: sensitivity(mlp(), lambda m: 1.0, [0.5, 1.0]), "sensitivity.ratios"),
    (lambda: pattern_mask(data(4, 6)), "expected a multiple of 4 input channels, got 6"),
    (lambda: pattern_mask(data(4, 8), 4, 4), r"keep \(4\) must be less than group \(4\)"),
    (lambda: pattern_mask(data(4, 8), 0.5), "pattern_mask.keep: expected an integer of at least 1, got 0.5"),
    (lambda: PolynomialSparsity(begin_step=10, end_step=9), r"begin_step \(10\) must not be after end_step \(9\)"),
    (lambda: PolynomialSparsity(final=1), "PolynomialSparsity.final"),
    (lambda: PolynomialSparsity(initial=-0.2), "PolynomialSparsity.initial"),
    (lambda: PolynomialSparsity(initial=0.9), "sparsity only grows"),
    (lambda: PolynomialSparsity(frequency=0), "PolynomialSparsity.frequency: expected an integer of at least 1, got 0"),
    (lambda: PolynomialSparsity(begin_step=1.5), "begin_step"),
    (lambda: PolynomialSparsity(end_step=-1), "end_step"),
    (lambda: PolynomialSparsity(power=0), "power: expected a number above 0, got 0"),
    (lambda: ConstantSparsity(1.2), "ConstantSparsity.sparsity"),
    (lambda: ConstantSparsity(0.2, True), "ConstantSparsity.begin_step"),
    (lambda: Pruner(0.5), "Pruner.schedule: expected a function or a mapping, got 0.5"),
    (lambda: Pruner(None), "Pruner.schedule: expected a function or a mapping, got None"),
    (lambda: Pruner(ConstantSparsity(0.5), scope="model"), "Pruner.scope"),
    (lambda: make([Pruner(lambda step: 1.0)]).fit(loader(), verbose=0),
     "Pruner.schedule: expected a sparsity from 0 to below 1, got 1.0 at step 0"),
    (lambda: make([Pruner(ConstantSparsity(0.5), ["6"])]).fit(loader(), verbose=0), "there is no layer '6'"),
    (lambda: prune_structured(small_cnn((4, 8)), IMAGES, 1.0), "prune_structured.ratio"),
    (lambda: prune_structured(small_cnn((4, 8)), IMAGES, 0.5, ["conv"]), "there is no layer 'conv'.*0, 4, 9"),
    (lambda: prune_structured(small_cnn((4, 8)), IMAGES, 0.5, round_to=0), "round_to: expected an integer of at least 1 or None, got 0"),
    (lambda: prune_structured(small_cnn((4, 8)), IMAGES[:, 0], 0.5), "example_input: the model cannot be called with it"),
    (lambda: prune_structured(small_cnn((4, 8)), IMAGES, 0.5, ["0", "4", "9"]), "no channel could be taken out"),
    (lambda: prune_structured(small_cnn((4, 8)), IMAGES, 0.5, []), "the list of layers is empty"),
    (lambda: prune_structured(nn.ReLU(), IMAGES, 0.5), "no layer to prune"),
    (lambda: prune_structured(MASKED, data(2, 12), 0.5), "make_permanent"),
])
def test_bad_calls_teach(call, words):
    with pytest.raises(ConfigError, match=f"(?s){words}"):
        call()


def test_a_refused_call_changes_nothing():
    model = mlp()
    model[4].weight.data[0, 0] = math.nan
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match=r"masks_of\['4'\].*NaN"):
        prune_magnitude(model, 0.5)
    assert all(torch.equal(before[name].nan_to_num(), value.nan_to_num()) for name, value in model.state_dict().items())


def test_a_layer_that_is_never_called():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return x * 2

    with pytest.raises(ConfigError, match="no linear or convolutional layer is called"):
        prune_structured(Unused(), data(3, 2), 0.5)


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ConfigError, match=r'pip install "nnlearn\[compress\]"'):
        prune_structured(small_cnn((4, 8)), IMAGES, 0.5)


def test_the_explorer_shows_what_the_lesson_says():
    from nnlearn.course.explore import decode
    made = decode(sparsity_explorer().html)
    curves = next(iter(made["types"].values()))["curves"]
    score = {key: float(curves[key]["test accuracy"][1][0]) for key in curves}
    assert len(score) == 40 and score["0.5", "layer", "no"] > 85 > 75 > score["0.9", "layer", "no"]
    assert score["0.9", "layer", "yes"] > score["0.9", "layer", "no"] + 15
