"""Schedules against torch and Keras at every step, hypothesis on every formula, configs that are wrong."""
import json
import os
import subprocess
import sys

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as theirs

from nnlearn import builders
from nnlearn import schedules as s
from nnlearn.core import ConfigError

STEPS = np.arange(5000)


def optimizer(*rates):
    """SGD with one group a rate."""
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates], lr=rates[0])


def torch_rates(make, rate, steps=5000):
    """The rates a torch scheduler sets at steps 0 to steps - 1."""
    opt = optimizer(rate)
    scheduler, rates = make(opt), []
    for step in range(steps):
        rates.append(opt.param_groups[0]["lr"])
        opt.step()
        if step + 1 < steps:
            scheduler.step()
    return np.array(rates)


PAIRS = {
    "constant": [(s.Constant(lr), lambda o: theirs.LambdaLR(o, lambda _: 1.0)) for lr in (0.1, 3.0, 1e-4)],
    "step_decay": [(s.StepDecay(lr, n, g), lambda o, n=n, g=g: theirs.StepLR(o, n, g))
                   for lr, n, g in [(0.3, 7, 0.97), (2.0, 900, 0.2), (1e-3, 1, 0.999)]],
    "multi_step": [(s.MultiStep(lr, m, g), lambda o, m=m, g=g: theirs.MultiStepLR(o, m, g))
                   for lr, m, g in [(0.3, [5, 40, 1000], 0.4), (1.0, [4998], 0.01), (2e-4, [1, 2, 3], 0.9)]],
    "exponential_decay": [(s.ExponentialDecay(lr, n, r), lambda o, n=n, r=r: theirs.ExponentialLR(o, r ** (1 / n)))
                          for lr, n, r in [(0.5, 30, 0.9), (1e-2, 700, 0.3), (3.0, 1, 0.995)]],
    "cosine_decay": [(s.CosineDecay(lr, 4999, a), lambda o, lr=lr, a=a: theirs.CosineAnnealingLR(o, 4999, a * lr))
                     for lr, a in [(0.1, 0.0), (3e-3, 0.1), (2.0, 0.01)]],
    "cosine_decay_restarts": [
        (s.CosineDecayRestarts(lr, n, t, 1.0, a),
         lambda o, lr=lr, n=n, t=t, a=a: theirs.CosineAnnealingWarmRestarts(o, n, int(t), a * lr))
        for lr, n, t, a in [(0.2, 50, 2.0, 0.01), (1e-3, 333, 1.0, 0.2), (1.5, 10, 3.0, 0.05)]],
    "polynomial_decay": [(s.PolynomialDecay(lr, n, 0.0, p), lambda o, n=n, p=p: theirs.PolynomialLR(o, n, p))
                         for lr, n, p in [(0.1, 4000, 2.0), (2.0, 777, 0.5), (1e-3, 5, 3.0)]],
    "one_cycle": [(s.OneCycle(lr, 5000, d, p), lambda o, lr=lr, d=d, p=p: theirs.OneCycleLR(
        o, lr, 5000, pct_start=p, div_factor=d, cycle_momentum=False))
        for lr, d, p in [(0.4, 10.0, 0.2), (2.0, 40.0, 0.45), (1e-3, 5.0, 0.1)]],
    "inverse_sqrt": [(s.InverseSqrt(lr, w), lambda o, w=w: theirs.LambdaLR(
        o, lambda i: min((i + 1) / w, (w / (i + 1)) ** 0.5))) for lr, w in [(0.1, 100), (2.0, 1), (1e-3, 4000)]],
    "warmup_stable_decay": [(s.WarmupStableDecay(lr, w, k, d), lambda o, w=w, k=k, d=d: theirs.LambdaLR(
        o, lambda i: (i + 1) / w if i < w else 1 - min(max(i - w - k, 0) / d, 1)))
        for lr, w, k, d in [(0.1, 100, 3000, 1000), (2.0, 1, 10, 4000), (1e-3, 500, 1, 10)]],
    "sequence": [(s.Sequence([(s.PolynomialDecay(a * lr, w, lr), w), (s.CosineDecay(lr, n, 0.0), n)]),
                  lambda o, a=a, w=w, n=n: theirs.SequentialLR(o, [
                      theirs.LinearLR(o, a, total_iters=w), theirs.CosineAnnealingLR(o, n)], [w]))
                 for lr, a, w, n in [(0.1, 0.1, 50, 4949), (1.0, 0.5, 1000, 3999), (1e-3, 0.01, 5, 4994)]],
}


@pytest.mark.parametrize(("schedule", "make"), [pair for pairs in PAIRS.values() for pair in pairs],
                         ids=[f"{name}-{i}" for name, pairs in PAIRS.items() for i in range(len(pairs))])
def test_equals_torch_at_every_step(schedule, make):
    assert np.abs(schedule(STEPS) - torch_rates(make, optimizer_rate(schedule))).max() <= 1e-12


def optimizer_rate(schedule):
    """The rate an optimizer is made with for torch's counterpart: torch's factors multiply it."""
    stages = getattr(schedule, "stages", None)
    return stages[1][0].learning_rate if stages else getattr(schedule, "learning_rate", None) or schedule(0)


def keras_pairs():
    import keras
    k = keras.optimizers.schedules
    return {
        "cosine_decay": [(s.CosineDecay(*c), k.CosineDecay(*c)) for c in [(0.3, 700, 0.05), (2.0, 4999, 0.0), (1e-3, 50, 0.5)]],
        "warmup_cosine": [(s.Warmup(s.CosineDecay(lr, n, a), w, b), k.CosineDecay(b, n, a, warmup_target=lr, warmup_steps=w))
                          for lr, n, a, w, b in [(0.3, 700, 0.05, 100, 1e-3), (2.0, 4000, 0.01, 900, 0.1), (1e-3, 50, 0.5, 5, 1e-6)]],
        "exponential_decay": [(s.ExponentialDecay(*c), k.ExponentialDecay(*c))
                              for c in [(0.3, 200, 0.5, True), (2.0, 1000, 0.9, False), (1e-3, 30, 0.96, True)]],
        "polynomial_decay": [(s.PolynomialDecay(*c), k.PolynomialDecay(*c))
                             for c in [(0.3, 800, 0.01, 2.0), (2.0, 4999, 0.0, 0.5), (1e-3, 60, 1e-4, 3.0)]],
        "piecewise_constant": [(s.PiecewiseConstant(*c), k.PiecewiseConstantDecay(*c))
                               for c in [([100, 300], [0.3, 0.2, 0.1]), ([1], [2.0, 1.0]), ([7, 8, 4000], [1e-3, 2e-3, 3e-3, 0.0])]],
        "cosine_decay_restarts": [(s.CosineDecayRestarts(*c), k.CosineDecayRestarts(*c))
                                  for c in [(0.3, 64, 1.0, 0.9, 0.01), (2.0, 128, 1.0, 1.0, 0.0), (1e-3, 50, 1.0, 0.5, 0.1)]],
    }


def every_step(schedule):
    """A Keras schedule at all steps of STEPS, in one call where it takes arrays."""
    try:
        return np.array([float(v) for v in schedule(torch.arange(5000))])
    except Exception:
        return np.array([float(schedule(int(step))) for step in STEPS])


@pytest.mark.parametrize(("name", "index"), [(name, i) for name in keras_pairs() for i in range(3)])
def test_equals_keras_at_every_step(name, index):
    ours, keras_own = keras_pairs()[name][index]
    scale = ours(STEPS).max()
    assert np.abs(every_step(keras_own) - ours(STEPS)).max() <= 1e-6 * max(scale, 1)
    assert np.abs(every_step(ours.keras()) - ours(STEPS)).max() <= 1e-6 * max(scale, 1)


def test_keras_own_restarts_differ_at_restarts_only():
    """Keras counts periods in float32: on some processors it shows the end of the old period at a restart; ours do not."""
    import keras
    config = {"t_mul": 1.5, "m_mul": 0.9, "alpha": 0.0}
    keras_own = every_step(keras.optimizers.schedules.CosineDecayRestarts(1.0, 10, **config))
    ours = s.CosineDecayRestarts(1.0, 10, **config)
    off = STEPS[np.abs(keras_own - ours(STEPS)) > 1e-3]
    restarts = {round(10 * (1.5**i - 1) / 0.5) for i in range(20)}
    assert set(off.tolist()) <= restarts, off
    assert np.abs(every_step(ours.keras()) - ours(STEPS)).max() < 2e-3


# Hypothesis: every schedule, at any step

rate, whole, part = st.floats(0, 10), st.integers(1, 10**6), st.floats(0, 1)
simple = st.one_of(
    st.builds(s.Constant, rate), st.builds(s.StepDecay, rate, whole, part),
    st.builds(s.MultiStep, rate, st.lists(whole, min_size=1, max_size=5, unique=True).map(sorted), part),
    st.builds(s.ExponentialDecay, rate, whole, part, st.booleans()),
    st.lists(whole, min_size=1, max_size=5, unique=True).flatmap(lambda b: st.builds(
        s.PiecewiseConstant, st.just(sorted(b)), st.lists(rate, min_size=len(b) + 1, max_size=len(b) + 1))),
    st.builds(s.CosineDecay, rate, whole, part),
    st.builds(s.CosineDecayRestarts, rate, whole, st.floats(1, 10), part, part),
    st.builds(s.PolynomialDecay, rate, whole, rate, st.floats(0.01, 20)),
    st.builds(s.OneCycle, rate, st.integers(2, 10**6), st.floats(1, 1000), part, st.none() | rate),
    st.builds(s.WarmupStableDecay, rate, st.integers(0, 10**6), st.integers(0, 10**6), whole, rate),
    st.builds(s.InverseSqrt, rate, st.integers(0, 10**6)))
made = st.recursive(simple, lambda inner: st.one_of(
    st.builds(s.Warmup, inner, st.integers(0, 10**5), rate), st.builds(s.Floor, inner, rate),
    st.builds(s.Sequence, st.lists(st.tuples(inner, whole), min_size=1, max_size=4))), max_leaves=4)


@settings(max_examples=400, deadline=None)
@given(schedule=made, steps=st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_never_negative_never_nan_and_scalars_equal_arrays(schedule, steps):
    rates = schedule(np.array(steps))
    assert np.isfinite(rates).all() and (rates >= 0).all(), rates
    assert [schedule(step) for step in steps] == rates.tolist()
    assert all(type(schedule(step)) is float for step in steps)


@settings(max_examples=200, deadline=None)
@given(schedule=made)
def test_config_round_trip(schedule):
    config = json.loads(json.dumps(s.to_config(schedule)))
    assert builders.learning_rate_schedule_builder(config) == schedule


@settings(max_examples=200, deadline=None)
@given(schedule=st.one_of(
    st.builds(s.CosineDecay, rate, whole, part), st.builds(s.PolynomialDecay, rate, whole, rate, st.floats(0.1, 5)),
    st.builds(s.OneCycle, rate, st.integers(2, 10**6), st.floats(1, 1000), part, rate)))
def test_constant_past_the_end(schedule):
    end = getattr(schedule, "decay_steps", None) or schedule.total_steps
    past = schedule(np.array([end, end + 1, end + 12345, 10**9]))
    assert (past == past[0]).all()


def test_sequence_is_constant_past_its_end():
    schedule = s.Sequence([(s.Constant(0.1), 10), (s.CosineDecay(0.1, 100), 20)])
    assert schedule(30) == schedule(31) == schedule(10**6) == s.CosineDecay(0.1, 100)(20)


# In torch

@pytest.mark.parametrize("stop", [0, 10, 60])
def test_resume_is_exact_in_a_new_process(stop, tmp_path):
    make = "s.Warmup(s.CosineDecayRestarts(0.1, 20, 1.5), 10)"
    code = f"""
import torch, json, sys
from nnlearn import schedules as s
w = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
o = torch.optim.SGD([{{"params": w[:1], "lr": 0.1}}, {{"params": w[1:], "lr": 0.03}}], lr=0.1)
c = {make}.torch(o)
state = torch.load({str(tmp_path / "state.pt")!r}, weights_only=True)
c.load_state_dict(state["scheduler"]); o.load_state_dict(state["optimizer"])
rates = []
for _ in range(40):
    rates.append([g["lr"] for g in o.param_groups]); o.step(); c.step()
print(json.dumps(rates))
"""
    opt = optimizer(0.1, 0.03)
    scheduler, rates = eval(make).torch(opt), []
    for step in range(stop + 40):
        if step == stop:
            torch.save({"scheduler": scheduler.state_dict(), "optimizer": opt.state_dict()}, tmp_path / "state.pt")
        rates.append([group["lr"] for group in opt.param_groups])
        opt.step()
        scheduler.step()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == rates[stop:]


def test_group_ratios_and_interval():
    opt = optimizer(0.2, 0.02, 0.0)
    scheduler = s.CosineDecay(0.5, 10).torch(opt)
    assert scheduler.interval == "step"
    for step in range(12):
        rates = [group["lr"] for group in opt.param_groups]
        assert rates == [s.CosineDecay(0.5, 10)(step) * ratio for ratio in (1.0, 0.02 / 0.2, 0.0)]
        opt.step()
        scheduler.step()
    with pytest.raises(ConfigError, match="first parameter group"):
        s.Constant(0.1).torch(optimizer(0.0, 0.1))


def test_state_of_another_schedule_is_refused():
    state = s.CosineDecay(0.1, 10).torch(optimizer(0.1)).state_dict()
    with pytest.raises(ConfigError, match="decay_steps"):
        s.CosineDecay(0.1, 11).torch(optimizer(0.1)).load_state_dict(state)


def test_an_unregistered_schedule_says_how_to_register():
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Mine(s.Schedule):
        def formula(self, step, xp):
            return 0 * step + 1.0
    with pytest.raises(ConfigError, match="register it"):
        s.to_config(Mine())


# In Keras

def test_keras_model_keeps_the_schedule_through_save_and_load(tmp_path):
    import keras
    keras.utils.set_random_seed(0)
    schedule = s.Warmup(s.CosineDecay(0.1, 40), 10)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedule.keras()), "mse")
    model.fit(np.ones((8, 3)), np.ones((8, 1)), batch_size=4, epochs=3, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert int(loaded.optimizer.iterations) == 6
    assert np.isclose(float(loaded.optimizer.learning_rate), schedule(6), rtol=1e-6)


@pytest.mark.slow
def test_keras_schedule_under_tensorflow_graphs():
    """The same formula inside tf.function: no retracing, the same numbers."""
    code = """
import os; os.environ["KERAS_BACKEND"] = "tensorflow"; os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, tensorflow as tf
from nnlearn import schedules as s
for make in (s.Warmup(s.CosineDecayRestarts(0.1, 20, 1.5), 10), s.OneCycle(0.1, 100), s.MultiStep(0.1, [5, 9], 0.5),
             s.PiecewiseConstant([5], [0.1, 0.2]), s.Sequence([(s.Constant(0.1), 5), (s.InverseSqrt(0.1, 10), 50)]),
             s.WarmupStableDecay(0.1, 5, 5, 5), s.Floor(s.ExponentialDecay(0.1, 5, 0.5), 0.01), s.StepDecay(0.1, 7, 0.5)):
    schedule = make.keras()
    traces = []
    @tf.function
    def rate(step):
        traces.append(1)
        return schedule(step)
    got = [float(rate(tf.constant(i, tf.int64))) for i in range(120)]
    assert np.abs(np.array(got) - make(np.arange(120))).max() < 1e-6, make
    assert len(traces) == 1
print("same")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("same"), done.stderr[-2000:]


def test_keras_callback_counts_epochs_by_itself():
    import keras
    document = {"training": {"epochs": 4, "lr_schedule": {"type": "one_cycle", "max_lr": 0.2, "min_lr": 1e-4}}}
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    callback = builders.get_warmup_scheduler(document, framework="keras")
    model.fit(np.ones((12, 3)), np.ones((12, 1)), batch_size=4, epochs=4, verbose=0, callbacks=[callback])
    assert callback.schedule == s.OneCycle(0.2, 12, 25.0, 0.3, 1e-4)


def test_keras_callback_sets_the_rate_of_every_step():
    import keras
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(self.model.optimizer.learning_rate))
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    section = {"type": "warmup_step", "warmup_epochs": 1, "step_size": 1, "gamma": 0.5, "min_lr": 0.01}
    callback = builders.get_warmup_scheduler(section, framework="keras")
    model.fit(np.ones((12, 3)), np.ones((12, 1)), batch_size=4, epochs=4, verbose=0, callbacks=[callback, Watch()])
    expected = s.Warmup(s.Floor(s.StepDecay(0.1, 3, 0.5), 0.01), 3, 0.01)
    assert callback.schedule == expected and np.allclose(seen, expected(np.arange(12)), rtol=1e-6)


# Wrong configs

@pytest.mark.parametrize(("config", "words"), [
    ({"type": "cosine_deacy", "learning_rate": 1e-3}, ["schedule.type", "'cosine_decay'"]),
    ({"type": "cosine_decay", "learning_rate": 1e-3}, ["missing", "decay_steps"]),
    ({"type": "cosine_decay"}, ["missing", "learning_rate, decay_steps"]),
    ({"type": "exponential_decay", "learning_rate": 1e-3, "decay_steps": 5}, ["missing", "decay_rate"]),
    ({"type": "one_cycle", "learning_rate": 1e-3}, ["learning_rate", "max_lr, total_steps"]),
    ({"type": "cosine_decay", "learning_rate": 1e-3, "decay_stepss": 5}, ["Did you mean 'decay_steps'"]),
    ({"type": "cosine_decay", "learning_rate": -1e-3, "decay_steps": 5}, ["CosineDecay.learning_rate", "at least 0"]),
    ({"type": "cosine_decay", "learning_rate": float("nan"), "decay_steps": 5}, ["expected a number"]),
    ({"type": "cosine_decay", "learning_rate": True, "decay_steps": 5}, ["expected a number"]),
    ({"type": "cosine_decay", "learning_rate": 1e-3, "decay_steps": 5.5}, ["expected an integer"]),
    ({"type": "cosine_decay", "learning_rate": 1e-3, "decay_steps": 0}, ["an integer from 1", "got 0"]),
    ({"type": "cosine_decay", "learning_rate": 1e-3, "decay_steps": 5, "warmup_steps": -3}, ["warmup_steps", "-3"]),
    ({"type": "warmup", "schedule": {"type": "constnt"}}, ["schedule.schedule.type", "'constant'"]),
    ({"type": "sequence", "stages": [[{"type": "constant", "learning_rate": 1}, 0]]}, ["stages[0][1]", "an integer from 1"]),
    ({"learning_rate": 1e-3}, ["missing", "type"]),
    ([], ["expected a dict"]), (None, ["expected a dict"]),
])
def test_wrong_configs_name_place_and_remedy(config, words):
    with pytest.raises(ConfigError) as caught:
        builders.learning_rate_schedule_builder(config)
    for word in words:
        assert word in str(caught.value), str(caught.value)


junk = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
                    max_leaves=6)


@settings(max_examples=600, deadline=None)
@given(schedule=made, data=st.data())
def test_any_mutation_gives_a_schedule_or_a_config_error(schedule, data):
    config = s.to_config(schedule)
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from([*config, "warmup_steps", "momentum", "x"]))
        if data.draw(st.booleans()):
            config[key] = data.draw(junk)
        else:
            config.pop(key, None)
    try:
        built = builders.learning_rate_schedule_builder(config)
    except ConfigError:
        return
    assert built(3) >= 0


@settings(max_examples=300, deadline=None)
@given(section=st.dictionaries(st.sampled_from(["type", "enabled", "warmup_epochs", "min_lr", "max_lr", "div_factor",
                                                "pct_start", "decay_rate", "step_size", "gamma", "x"]),
                               junk | st.sampled_from(["warmup_cosine", "one_cycle", "warmup_step", "warmup_exponential"])),
       epochs=st.integers(-1, 30))
def test_any_yaml_form_gives_a_scheduler_or_a_config_error(section, epochs):
    try:
        scheduler = builders.get_warmup_scheduler(section, optimizer(0.1), 10, epochs)
    except ConfigError:
        return
    assert np.isfinite(scheduler.schedule(np.arange(300))).all()


@pytest.mark.parametrize("kind", ["warmup_cosine", "warmup_exponential", "warmup_step", "one_cycle"])
def test_yaml_types_end_where_they_should(kind):
    section = {"type": kind, "min_lr": 1e-4, "max_lr": 0.1}
    scheduler = builders.get_warmup_scheduler({"training": {"epochs": 40, "lr_schedule": section}}, optimizer(0.5), 10)
    rates = scheduler.schedule(np.arange(400))
    assert np.isclose(rates.max(), 0.1) and rates.min() >= 1e-4 - 1e-12
    if kind in ("warmup_cosine", "one_cycle"):
        assert rates[-1] < 2e-4
    assert rates[0] == pytest.approx(0.1 / 25 if kind == "one_cycle" else 1e-4)


def test_yaml_form_disabled_and_wrong():
    off = builders.get_warmup_scheduler({"type": "one_cycle", "enabled": False}, optimizer(0.3), 10, 5)
    assert off.schedule == s.Constant(0.3)
    with pytest.raises(ConfigError, match="optimizer, steps_per_epoch, epochs"):
        builders.get_warmup_scheduler({"type": "one_cycle"})
    with pytest.raises(ConfigError, match=r"1.0e-6"):
        builders.get_warmup_scheduler({"type": "one_cycle", "min_lr": "1e-6"}, optimizer(0.1), 10, 5)
    with pytest.raises(ConfigError, match="'lr_schedule'|lr_schedule"):
        builders.get_warmup_scheduler({"training": {"epochs": 3}}, optimizer(0.1), 10)
    with pytest.raises(ConfigError, match="expected True or False"):
        builders.get_warmup_scheduler({"type": "one_cycle", "enabled": "yes"}, optimizer(0.1), 10, 5)
    for wrong in ("tensorflow", 3):
        with pytest.raises(ConfigError, match="framework"):
            builders.get_warmup_scheduler({"type": "one_cycle"}, optimizer(0.1), 10, 5, framework=wrong)
        with pytest.raises(ConfigError, match="framework"):
            builders.learning_rate_schedule_builder({"type": "constant", "learning_rate": 1}, framework=wrong)


def test_get_scheduler_builds_every_name():
    needed = {"one_cycle": {"max_lr": 0.1, "total_steps": 10}, "multi_step": {"milestones": [3]}}
    for name in builders.SCHEDULERS:
        assert hasattr(builders.get_scheduler(name, optimizer(0.1), needed.get(name)), "step"), name
    ours = {"step_decay": {"step_size": 3}, "exponential_decay": {"decay_steps": 3, "decay_rate": 0.5},
            "piecewise_constant": {"boundaries": [3], "values": [1, 2]}, "cosine_decay": {"decay_steps": 5},
            "inverse_sqrt": {"warmup_steps": 5}, "polynomial_decay": {"decay_steps": 5}, "constant": {}}
    for name, params in ours.items():
        assert isinstance(builders.get_scheduler(name, optimizer(0.1), params), s.ScheduleLR), name
    with pytest.raises(ConfigError, match="total_steps"):
        builders.get_scheduler("one_cycle", optimizer(0.1), {"max_lr": 0.1})
    with pytest.raises(ConfigError, match="Did you mean 'reduce_on_plateau'"):
        builders.get_scheduler("reduce_on_platau", optimizer(0.1))
    with pytest.raises(ConfigError, match="missing key: decay_steps"):
        builders.get_scheduler("cosine_decay", optimizer(0.1))


# Odd optimizers, odd parameters, odd schedules

def test_a_group_added_on_the_way_keeps_its_ratio():
    opt = optimizer(0.1)
    scheduler = s.CosineDecay(0.1, 10, 0.0).torch(opt)
    for _ in range(5):
        opt.step()
        scheduler.step()
    opt.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.2 * scheduler.get_last_lr()[0]})
    opt.step()
    scheduler.step()
    rates = [group["lr"] for group in opt.param_groups]
    assert rates[1] == pytest.approx(0.2 * rates[0]) and rates[0] == s.CosineDecay(0.1, 10, 0.0)(6)


def test_states_that_do_not_fit_are_refused():
    scheduler = s.CosineDecay(0.1, 10).torch(optimizer(0.1))
    with pytest.raises(ConfigError, match="missing keys: last_epoch, ratios, schedule"):
        scheduler.load_state_dict({})
    with pytest.raises(ConfigError, match="2 parameter groups, the optimizer has 1"):
        scheduler.load_state_dict(s.CosineDecay(0.1, 10).torch(optimizer(0.1, 0.01)).state_dict())


def test_tensor_rates_stay_tensors():
    weight = torch.nn.Parameter(torch.zeros(1))
    opt = torch.optim.Adam([weight], lr=torch.tensor(0.1), foreach=False)
    scheduler = s.CosineDecay(0.1, 10).torch(opt)
    scheduler.load_state_dict({**scheduler.state_dict(), "last_epoch": 5})
    rate = opt.param_groups[0]["lr"]
    assert isinstance(rate, torch.Tensor) and rate.item() == pytest.approx(s.CosineDecay(0.1, 10)(5))


def test_numpy_parameters_become_plain_and_steps_may_be_anything_whole():
    schedule = s.CosineDecay(np.float32(0.5), np.int64(5))
    assert json.dumps(s.to_config(schedule)) and schedule == s.CosineDecay(0.5, 5)
    for steps in (torch.arange(4), [0, 1, 2, 3], np.arange(4, dtype=np.uint8), np.arange(4.0)):
        assert (schedule(steps) == schedule(np.arange(4))).all()
    for steps in ([[1], [2, 3]], 2.5, "3", None, [True], 1j, -1, [3, -1]):
        with pytest.raises(ConfigError, match="step"):
            schedule(steps)


def test_flags_must_be_flags():
    for wrong in ("false", 1, None):
        with pytest.raises(ConfigError, match="staircase: expected True or False"):
            s.ExponentialDecay(0.1, 10, 0.5, staircase=wrong)


def test_a_schedule_of_ones_own_that_is_wrong_is_told_so():
    from dataclasses import dataclass

    class Plain(s.Schedule):
        pass

    @dataclass(frozen=True)
    class Falls(s.Schedule):
        learning_rate: float

        def formula(self, step, xp):
            return self.learning_rate - step

    @dataclass(frozen=True)
    class Fixed(s.Schedule):
        learning_rate: float

        def formula(self, step, xp):
            return self.learning_rate

    s.SCHEDULES.register("plain", Plain, replace=True)
    try:
        with pytest.raises(ConfigError, match=r"put `@dataclass\(frozen=True\)` above its class"):
            builders.learning_rate_schedule_builder({"type": "plain"})
    finally:
        del s.SCHEDULES["plain"]
    with pytest.raises(ConfigError, match="rate of at least 0"):
        Falls(0.5)(3)
    with pytest.raises(NotImplementedError, match="formula"):
        s.Schedule.formula(Falls(0.5), 1, np)
    assert Fixed(0.5)(np.arange(3)).tolist() == [0.5] * 3


def test_yaml_keys_belong_to_types_and_disabled_needs_none():
    with pytest.raises(ConfigError, match="type warmup_cosine and type warmup_exponential and type warmup_step"):
        builders.get_warmup_scheduler({"type": "one_cycle", "warmup_epochs": 3}, optimizer(0.1), 10, 5)
    assert builders.get_warmup_scheduler({"enabled": False}, optimizer(0.1), 10, 5).schedule == s.Constant(0.1)
    with pytest.raises(ConfigError, match=r"warmup_epochs \(5\) must be less than epochs \(5\)"):
        builders.get_warmup_scheduler({"type": "warmup_step", "warmup_epochs": 5}, optimizer(0.1), 10, 5)
    with pytest.raises(ConfigError, match="min_lr 1 is above max_lr 0.1"):
        builders.get_warmup_scheduler({"type": "one_cycle", "min_lr": 1.0}, optimizer(0.1), 10, 5)


def test_torch_schedulers_by_name_check_their_numbers():
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = builders.get_scheduler("one_cycle", opt, {"total_steps": 10})
    assert scheduler.total_steps == 10 and opt.param_groups[0]["momentum"] == 0 and opt.param_groups[0]["max_lr"] == 0.1
    for name, key, value in [("step", "step_size", "10"), ("cosine_annealing", "T_max", 0), ("linear", "total_iters", 2.5)]:
        with pytest.raises(ConfigError, match=key):
            builders.get_scheduler(name, optimizer(0.1), {key: value})


def test_schedules_are_values():
    import copy
    import pickle
    schedule = s.Warmup(s.Sequence([(s.Constant(0.1), 3), (s.CosineDecay(0.1, 5), 5)]), 2)
    assert pickle.loads(pickle.dumps(schedule)) == schedule == copy.deepcopy(schedule) and {schedule: 1}[schedule] == 1


def test_plot_shows_the_whole_schedule():
    import matplotlib
    matplotlib.use("Agg")
    ax = s.Constant(0.1).plot(50)
    s.CosineDecay(0.5, 40).plot(50, ax, label="second")
    assert ax.get_ylim()[0] == 0 and ax.get_ylim()[1] > 0.5
    for schedule, least in [(s.MultiStep(0.1, [10, 300]), 300), (s.Sequence([(s.Constant(1), 70)]), 70), (s.StepDecay(1, 10), 40),
                            (s.Warmup(s.CosineDecay(1, 50), 20), 70), (s.Constant(1), 1000)]:
        assert schedule.plot().lines[-1].get_xdata()[-1] >= least - 1
    matplotlib.pyplot.close("all")


def test_a_second_schedule_keeps_rates_set_by_hand():
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(2)], lr=0.1)
    first = builders.get_scheduler("cosine_decay", optimizer, {"decay_steps": 4})
    for _ in range(4):
        optimizer.step()
        first.step()
    optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = 0.001, 0.01
    builders.get_scheduler("cosine_decay", optimizer, {"decay_steps": 4})
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.001, 0.01])


def test_keras_callback_starts_again_with_every_fit():
    import keras

    class See(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            rates.append(round(float(self.model.optimizer.learning_rate), 4))

    def model():
        net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        net.compile(keras.optimizers.SGD(0.1), "mse")
        return net

    def fit(net, callback, first=0):
        rates.clear()
        net.fit(x, y, batch_size=4, initial_epoch=first, epochs=3, verbose=0, callbacks=[callback, See()])
        return list(rates)

    rates, x, y = [], np.zeros((12, 2), "float32"), np.zeros((12, 1), "float32")
    for rate in ({"max_lr": 0.1}, {}):
        config = {"type": "warmup_cosine", "warmup_epochs": 1, "min_lr": 0.001, **rate}
        net, callback = model(), builders.get_warmup_scheduler(config, framework="keras")
        whole = fit(net, callback)
        assert len(whole) == 9 and max(whole) == 0.1 and whole[0] == 0.001
        assert fit(net, callback) == whole
        assert fit(model(), builders.get_warmup_scheduler(config, framework="keras"), first=2) == whole[6:]
