"""Deep supervision: schedules equal to their formulas, wrong dicts answered, the loss and its callbacks under Trainer."""
import copy
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnlearn.builders import deep_supervision_schedule_builder
from nnlearn.core import ConfigError
from nnlearn.course.explore import decode
from nnlearn.course.explorers import supervision_explorer
from nnlearn.loaders import TensorLoader
from nnlearn.models import UNet
from nnlearn.supervision import (
    SUPERVISION,
    AdaptiveSupervision,
    DeepSupervision,
    DeepSupervisionLoss,
    SupervisionSchedule,
    resize_target,
)
from nnlearn.trainer import TensorBoardLogger, Trainer

# Formulas, written again, term by term


def deep(n):
    return np.array([i + 1 for i in range(n)]) / sum(range(1, n + 1))


def shallow(n):
    return np.array([n - i for i in range(n)]) / sum(range(1, n + 1))


def one_hot(i, n):
    return np.array([float(j == i) for j in range(n)])


def sigmoid_mix(p, n, k=10.0, x0=0.5, transition_point=0.25):
    if p < transition_point:
        return deep(n)
    def s(q):
        return 1 / (1 + math.exp(-k * (q - x0)))
    q = (p - transition_point) / (1 - transition_point)
    share = (s(q) - s(0)) / (s(1) - s(0))
    return (1 - share) * deep(n) + share * shallow(n)


def waves(p, n, frequency=3.0, final_ratio=0.5):
    a = 1 - (1 - final_ratio) * p
    raw = [max(1 + ((n - 1) / 2 - i) * math.cos(2 * math.pi * frequency * p) * a / n, 0) for i in range(n)]
    return np.array(raw) / sum(raw)


def window(p, n, max_active_outputs=None, activation_strategy="linear"):
    f = p if activation_strategy == "linear" else p**2
    e = n - min(n, 1 + math.floor(n * f))
    last = min(e + (max_active_outputs or n), n) - 1
    return np.array([1 / (last - e + 1) if e <= i <= last else 0.0 for i in range(n)])


def steps(p, n, threshold=0.5):
    if p >= threshold:
        return one_hot(0, n)
    return (1 - p / threshold) * deep(n) + p / threshold * shallow(n)


FORMULAS = {
    "constant_equal": lambda p, n: np.full(n, 1 / n),
    "constant_low_to_high": lambda p, n: shallow(n),
    "constant_high_to_low": lambda p, n: deep(n),
    "linear_low_to_high": lambda p, n: (1 - p) * deep(n) + p * shallow(n),
    "non_linear_low_to_high": lambda p, n: (1 - p**2) * deep(n) + p**2 * shallow(n),
    "custom_sigmoid_low_to_high": sigmoid_mix,
    "scale_by_scale_low_to_high": lambda p, n: one_hot(n - 1 - min(math.floor(p * n), n - 1), n),
    "cosine_annealing": waves, "curriculum": window, "step_wise": steps}

SETTINGS = {"custom_sigmoid_low_to_high": [{}, {"k": 3.0, "x0": 0.2, "transition_point": 0.0},
                                           {"k": 40.0, "x0": 1.0, "transition_point": 0.9}],
            "cosine_annealing": [{}, {"frequency": 0.7, "final_ratio": 1.0}, {"frequency": 11.0, "final_ratio": 0.0}],
            "curriculum": [{}, {"max_active_outputs": 1}, {"max_active_outputs": 2, "activation_strategy": "exp"},
                           {"max_active_outputs": 9}],
            "step_wise": [{}, {"threshold": 0.0}, {"threshold": 0.1}, {"threshold": 1.0}]}


@pytest.mark.parametrize("name", FORMULAS)
def test_every_schedule_is_its_formula_and_sums_to_one(name):
    assert set(FORMULAS) == set(SUPERVISION)
    for settings in SETTINGS.get(name, [{}]):
        for n in range(1, 8):
            schedule = deep_supervision_schedule_builder({"type": name, "config": settings}, n)
            mirror = deep_supervision_schedule_builder({"type": name, "config": settings}, n, invert_order=True)
            for step in range(1001):
                p = step / 1000
                weights = schedule(p)
                np.testing.assert_allclose(weights, FORMULAS[name](p, n, **settings), rtol=0, atol=1e-12)
                assert weights.shape == (n,) and (weights >= 0).all() and abs(weights.sum() - 1) < 1e-12
                assert np.array_equal(weights, mirror(p)[::-1])


def test_progress_is_clamped_and_must_be_a_number():
    for name in SUPERVISION:
        schedule = SupervisionSchedule(name, 4)
        for outside, end in ((-3, 0.0), (-1e-9, 0.0), (1.5, 1.0), (math.inf, 1.0), (np.float32(2), 1.0)):
            assert np.array_equal(schedule(outside), schedule(end))
        with pytest.raises(ConfigError, match="progress: expected a number from 0 to 1, got nan"):
            schedule(math.nan)


def test_extreme_settings_stay_weights():
    for k in (1e-12, 1e-300, 1e3, 1e300):
        for x0 in (0.0, 0.5, 1.0):
            schedule = SupervisionSchedule("custom_sigmoid_low_to_high", 5, {"k": k, "x0": x0})
            weights = np.stack([schedule(p) for p in np.linspace(0, 1, 101)])
            assert np.isfinite(weights).all() and (np.diff(weights[:, 0]) >= -1e-12).all()
            np.testing.assert_allclose(weights[[0, -1]], [deep(5), shallow(5)], atol=1e-9)
    assert SupervisionSchedule("curriculum", 3)(1.0).tolist() == [1 / 3] * 3
    assert SupervisionSchedule("curriculum", 3, {"max_active_outputs": 1})(1.0).tolist() == [1, 0, 0]


# Dicts


def test_wrong_dicts_are_answered():
    for config, words in [
        ({"type": "linear_low_to_hihg"}, "Did you mean 'linear_low_to_high'"),
        ({"type": "curiculum"}, "Did you mean 'curriculum'"),
        ({}, "missing key: type"), ([], "expected a dict, got list"), ({"type": 3}, "expected a name, got 3"),
        ({"type": "step_wise", "threshold": 0.3}, "unknown key 'threshold'"),
        ({"type": "step_wise", "config": {"treshold": 0.3}}, "Did you mean 'threshold'"),
        ({"type": "step_wise", "config": {"threshold": 1.1}}, r"deep_supervision.config.threshold: expected a number from 0 to 1, got 1.1"),
        ({"type": "step_wise", "config": {"threshold": "0.3"}}, "deep_supervision.config.threshold"),
        ({"type": "step_wise", "config": [0.3]}, "deep_supervision.config: expected a dict"),
        ({"type": "custom_sigmoid_low_to_high", "config": {"k": 0}}, "deep_supervision.config.k"),
        ({"type": "custom_sigmoid_low_to_high", "config": {"transition_point": 1.0}}, "transition_point"),
        ({"type": "curriculum", "config": {"max_active_outputs": 2.5}}, "max_active_outputs"),
        ({"type": "curriculum", "config": {"max_active_outputs": 0}}, "max_active_outputs"),
        ({"type": "curriculum", "config": {"activation_strategy": "cubic"}}, "activation_strategy"),
        ({"type": "cosine_annealing", "config": {"frequency": math.nan}}, "frequency"),
        ({"type": "constant_equal", "config": {"k": 1}}, "unknown key 'k'"),
    ]:
        with pytest.raises(ConfigError, match=words):
            deep_supervision_schedule_builder(config, 5)
    for n in (0, -1, 2.5, "5", None, True):
        with pytest.raises(ConfigError, match="n_outputs"):
            deep_supervision_schedule_builder({"type": "constant_equal"}, n)
    assert deep_supervision_schedule_builder({"type": "Step-Wise", "config": None}, 3)(1.0)[0] == 1


def test_two_thousand_mutated_dicts_give_weights_or_a_config_error():
    rng = random.Random(0)
    values = [None, True, 0, 1, -1, 2, 0.5, 1.5, 1e300, -1e-300, math.nan, math.inf, "", "linear", "exp", "0.5", [], {}, [1], b"x"]
    keys = ["k", "x0", "transition_point", "frequency", "final_ratio", "max_active_outputs", "activation_strategy", "threshold", "type", "",
            3, None]
    names = [*SUPERVISION, "nothing", "", "linear", 7, None, ("a",)]
    outcomes = {True: 0, False: 0}
    for _ in range(2000):
        name = rng.choice(names)
        right = rng.choice(SETTINGS.get(name, [{}])) if isinstance(name, str) else {}
        config = {"type": name, "config": dict(right)}
        for _ in range(rng.randrange(3)):
            place = config["config"] if isinstance(config.get("config"), dict) and rng.random() < 0.7 else config
            if place and rng.random() < 0.3:
                place.pop(rng.choice(list(place)))
            else:
                place[rng.choice([*keys, *place])] = rng.choice(values)
        try:
            schedule = deep_supervision_schedule_builder(config, rng.choice([1, 3, 5]))
        except ConfigError as error:
            assert str(error)
            outcomes[False] += 1
        else:
            weights = schedule(rng.random())
            assert np.isfinite(weights).all() and (weights >= 0).all() and abs(weights.sum() - 1) < 1e-6
            outcomes[True] += 1
    assert min(outcomes.values()) > 300


def test_a_schedule_of_ones_own_is_registered_and_must_give_weights():
    SUPERVISION.register("halving", lambda p, n, ratio=0.5: np.array([ratio**i for i in range(n)]) / sum(ratio**i for i in range(n)))
    schedule = deep_supervision_schedule_builder({"type": "halving", "config": {"ratio": 0.25}}, 2)
    np.testing.assert_allclose(schedule(0.3), [0.8, 0.2])
    assert repr(schedule) == "SupervisionSchedule('halving', 2, ratio=0.25)"
    for wrong in (lambda p, n: np.ones(n), lambda p, n: np.ones(n + 1) / (n + 1), lambda p, n: one_hot(0, n) * 2 - one_hot(1, n)):
        SUPERVISION.register("wrong", wrong, replace=True)
        with pytest.raises(ConfigError, match="supervision 'wrong': expected 3 weights of at least 0 with the sum 1"):
            SupervisionSchedule("wrong", 3)


# The loss


def test_the_loss_is_the_weighted_sum():
    torch.manual_seed(0)
    outputs = [torch.randn(3, 4, size, size, requires_grad=True) for size in (8, 4, 2)]
    masks = torch.randint(0, 4, (3, 8, 8))
    loss = DeepSupervisionLoss(nn.CrossEntropyLoss(), SupervisionSchedule("linear_low_to_high", 3))
    for progress in (0.0, 0.3, 1.0):
        loss.progress = progress
        expected = sum(w * F.cross_entropy(o, masks if o.shape[-1] == 8 else F.interpolate(masks[:, None].float(), o.shape[-2:],
                                                                                           mode="nearest-exact")[:, 0].long())
                       for w, o in zip(FORMULAS["linear_low_to_high"](progress, 3), outputs))
        torch.testing.assert_close(loss(outputs, masks), expected)
        torch.testing.assert_close(loss({f"out{i}": o for i, o in enumerate(outputs)}, masks), expected)
        assert len(loss.components) == 3 and not any(part.requires_grad for part in loss.components)
    assert torch.equal(loss(outputs[0], masks), F.cross_entropy(outputs[0], masks))  # as in eval mode


def test_outputs_of_weight_zero_cost_nothing_and_wrong_numbers_of_outputs_are_refused():
    asked = []
    def criterion(output, target):
        asked.append(tuple(output.shape))
        return output.sum()
    loss = DeepSupervisionLoss(criterion, SupervisionSchedule("step_wise", 3))
    outputs = [torch.ones(1, 1, size, size) for size in (4, 2, 1)]
    loss.progress = 1.0
    assert loss(outputs, torch.zeros(1, 1, 4, 4)) == 16 and asked == [(1, 1, 4, 4)]
    assert loss.components[1:] == [None, None]
    for count in (1, 2, 4):
        with pytest.raises(ConfigError, match=f"the net has {count} outputs and the schedule 3 weights"):
            loss([outputs[0]] * count, torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("shape", [(16,), (16, 12), (8, 16, 12)])
def test_targets_of_any_dimension_are_resized(shape):
    torch.manual_seed(0)
    classes, numbers = torch.randint(0, 5, (2, *shape)), torch.randn(2, 3, *shape)
    half = tuple(size // 2 for size in shape)
    output = torch.zeros(2, 5, *half)
    nearest = F.interpolate(classes[:, None].double(), half, mode="nearest-exact")[:, 0].long()
    assert torch.equal(resize_target(classes, output), nearest)
    assert torch.equal(resize_target(classes.bool(), output), resize_target(classes.bool().long(), output).bool())
    torch.testing.assert_close(resize_target(numbers, output), F.interpolate(numbers, half, mode="area"))
    assert resize_target(classes, torch.zeros(2, 5, *shape)) is classes
    labels = torch.tensor([1, 2])  # of whole rows: an output inside of a classifier
    assert resize_target(labels, torch.zeros(2, 5)) is labels
    with pytest.raises(ConfigError, match="does not fit an output of shape"):
        resize_target(labels, output)
    odd = resize_target(classes, torch.zeros(2, 5, *(size // 3 for size in shape)))
    assert odd.shape[1:] == tuple(size // 3 for size in shape)


# Under Trainer


def data(rows=48):
    g = torch.Generator().manual_seed(0)
    y = (torch.rand(rows, 1, 8, 8, generator=g) > 0.7).float()
    return y + 0.3 * torch.randn(y.shape, generator=g), y


def trainer(callbacks, schedule=None, folder=None, **options):
    torch.manual_seed(0)
    net = UNet(widths=(4, 4, 4))
    loss = DeepSupervisionLoss(nn.BCEWithLogitsLoss(), schedule or SupervisionSchedule("linear_low_to_high", 3))
    return Trainer(net, loss, torch.optim.Adam(net.parameters(), lr=0.01), device="cpu", callbacks=callbacks, checkpoint_dir=folder,
                   **options)


def loader(rows=48, batch_size=8):
    return TensorLoader(*data(rows), batch_size=batch_size, shuffle=True, seed=0)


def test_progress_is_the_share_of_the_steps():
    class Seen(DeepSupervision):
        def batch_start(self, t):
            super().batch_start(t)
            seen.append(t.criterion.progress)
    for options, expected in (({}, [step / 12 for step in range(12)]),
                              ({"accumulate": 4}, [step / 4 for step in (0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3)])):
        seen = []
        trainer([Seen()], **options).fit(loader(), epochs=2, verbose=0)
        assert seen == expected
    seen = []
    trainer([Seen(total_steps=6)]).fit(loader(), epochs=2, verbose=0)
    assert seen[6] == 1.0 and max(seen) < 2  # the schedule clamps what lies beyond


def test_the_history_and_tensorboard_have_the_weights(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    schedule = SupervisionSchedule("linear_low_to_high", 3)
    history = trainer([DeepSupervision(), TensorBoardLogger(tmp_path / "log")], schedule).fit(loader(), loader(), epochs=3, verbose=0)
    events = EventAccumulator(str(tmp_path / "log"))
    events.Reload()
    for i in range(3):
        expected = [schedule((6 * epoch + 5) / 18)[i] for epoch in range(3)]
        np.testing.assert_allclose(history[f"weight_{i}"], expected)
        np.testing.assert_allclose([event.value for event in events.Scalars(f"weight_{i}")], expected, rtol=1e-6)
    assert history["val_loss"][-1] < history["val_loss"][0]


def test_the_loss_under_trainer_is_that_of_a_loop_of_ones_own():
    schedule = SupervisionSchedule("step_wise", 3)
    ours = trainer([DeepSupervision()], schedule)
    ours.fit(loader(), epochs=2, verbose=0)
    torch.manual_seed(0)
    net = UNet(widths=(4, 4, 4))
    optimizer, batches, step = torch.optim.Adam(net.parameters(), lr=0.01), loader(), 0
    for _ in range(2):
        for x, y in batches:
            optimizer.zero_grad()
            loss = sum(w * F.binary_cross_entropy_with_logits(o, F.adaptive_avg_pool2d(y, o.shape[-2:]))
                       for w, o in zip(schedule(step / 12).tolist(), net(x)) if w)
            loss.backward()
            optimizer.step()
            step += 1
    for p, q in zip(ours.model.parameters(), net.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, adaptive):
    def callback():
        if not adaptive:
            return DeepSupervision()
        return AdaptiveSupervision([SupervisionSchedule(name, 3) for name in ("constant_high_to_low", "constant_equal", "step_wise")],
                                   monitor="val_loss", patience=1, min_delta=10.0)

    class Stop(Exception):
        pass

    class Bomb(DeepSupervision):
        def fit_start(self, t):
            pass

        def batch_start(self, t):
            if t.step == 15:
                raise Stop

        def epoch_end(self, t):
            pass

    whole = trainer([callback(), Quiet()], folder=tmp_path / "whole", checkpoint_every=4)
    whole.fit(loader(), loader(16), epochs=4, verbose=0)
    broken = trainer([callback(), Bomb(total_steps=1)], folder=tmp_path / "broken", checkpoint_every=4)
    with pytest.raises(Stop):
        broken.fit(loader(), loader(16), epochs=4, verbose=0)
    again = trainer([callback(), type("Bomb", (Quiet,), {})()], folder=tmp_path / "broken", checkpoint_every=4)
    again.fit(loader(), loader(16), epochs=4, verbose=0, resume=True)
    assert all(torch.equal(p, q) for p, q in zip(whole.model.parameters(), again.model.parameters()))
    rows = [[{key: value for key, value in row.items() if key != "seconds"} for row in t.history.rows] for t in (whole, again)]
    assert rows[0] == rows[1]
    if adaptive:
        assert whole.history["schedule"] == [0, 0, 1, 1]


class Quiet(DeepSupervision):
    def fit_start(self, t):
        pass

    def batch_start(self, t):
        pass

    def epoch_end(self, t):
        pass


def test_the_next_schedule_reaches_the_loss():
    plan = [lambda p: one_hot(2, 3), lambda p: one_hot(1, 3), lambda p: one_hot(0, 3)]
    callback = AdaptiveSupervision(plan, monitor="loss", patience=2, min_delta=100.0)
    history = trainer([callback]).fit(loader(), epochs=8, verbose=0)
    assert history["schedule"] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert [history[f"weight_{2 - s}"][k] for k, s in enumerate(history["schedule"])] == [1] * 8


def test_what_cannot_work_is_said_before_training(tmp_path):
    model = UNet(widths=(4, 4, 4))
    plain = Trainer(model, nn.BCEWithLogitsLoss(), torch.optim.SGD(model.parameters(), lr=0.1), device="cpu", callbacks=[DeepSupervision()])
    with pytest.raises(ConfigError,
                       match="DeepSupervision: expected a trainer whose criterion is a DeepSupervisionLoss, got BCEWithLogitsLoss"):
        plain.fit(loader(), verbose=0)
    with pytest.raises(ConfigError, match="put it before"):
        trainer([TensorBoardLogger(tmp_path), DeepSupervision()]).fit(loader(), verbose=0)
    with pytest.raises(ConfigError, match="pass total_steps"):
        trainer([DeepSupervision()]).fit((batch for batch in loader()), verbose=0)
    for monitor, validation, words in (("val_loss", None, "monitors val_loss, so fit\\(\\) needs a val_loader"),
                                       ("val_los", loader(16), "no column 'val_los'"),
                                       ("weight_0", None, "pass mode='min' or mode='max'")):
        with pytest.raises(ConfigError, match=words):
            trainer([AdaptiveSupervision([SupervisionSchedule("step_wise", 3)], monitor=monitor)]).fit(loader(), validation, verbose=0)
    for schedules in ([], SupervisionSchedule("step_wise", 3), [0.5], None):
        with pytest.raises(ConfigError, match="AdaptiveSupervision.schedules: expected a list of schedules"):
            AdaptiveSupervision(schedules)
    with pytest.raises(ConfigError, match="the net has 3 outputs and the schedule 5 weights"):
        trainer([DeepSupervision()], SupervisionSchedule("step_wise", 5)).fit(loader(), verbose=0)


def test_accumulated_batches_are_the_joined_batch():
    whole, parts = trainer([DeepSupervision()]), trainer([DeepSupervision()], accumulate=3)
    x, y = data(20)
    for t, size in ((whole, 20), (parts, 8)):
        t.fit(TensorLoader(x, y, batch_size=size), epochs=1, verbose=0)
    for p, q in zip(whole.model.parameters(), parts.model.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-6)


def test_loss_and_schedule_are_copied():
    loss = DeepSupervisionLoss(nn.CrossEntropyLoss(torch.tensor([1.0, 2.0])),
                               SupervisionSchedule("curriculum", 4, {"max_active_outputs": 2}))
    twin = copy.deepcopy(loss)
    twin.progress = 0.9
    assert loss.progress == 0.0 and np.array_equal(twin.schedule(0.4), loss.schedule(0.4)) and len(list(loss.buffers())) == 1


def test_the_explorer_draws_what_the_schedules_say():
    explorer = supervision_explorer()
    assert len(explorer.html) < 150_000
    curves = decode(explorer.html)["types"][""]["curves"]
    assert {kind for kind, _ in curves} == set(SUPERVISION)
    for (kind, setting), shown in curves.items():
        if setting == "middle" and kind != "curriculum":
            for i in range(5):
                for p, weight in zip(*shown[f"output {i}"]):
                    near = [FORMULAS[kind](min(max(p + shift, 0), 1), 5)[i] for shift in (-0.006, 0, 0.006)]
                    assert min(near) - 0.02 <= weight <= max(near) + 0.02, (kind, i, p)
