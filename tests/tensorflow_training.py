"""The lesson on training in Keras, on TensorFlow: `test_keras.py` runs this file in a process of its own."""
import copy
import math
import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnlearn import builders
from nnlearn.core import ConfigError, generator, seed_everything
from nnlearn.keras import load_tensorflow
from nnlearn.lr_finder import find_learning_rate
from nnlearn.models import UNet
from nnlearn.supervision import SUPERVISION, DeepSupervisionLoss, SupervisionSchedule
from nnlearn.trainer import NonFiniteLoss

tf = load_tensorflow()
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)

import keras  # noqa: E402

from nnlearn.keras import training as kt  # noqa: E402

X, Y = (part.numpy() for part in (torch.randn(96, 6, generator=generator(0)), torch.randint(3, (96,), generator=generator(1))))
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def torch_mlp(seed=0):
    seed_everything(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def keras_mlp(seed=0):
    net = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(3)])
    kt.copy_weights(torch_mlp(seed), net)
    return net


# ---- one config, two frameworks


def torch_losses(optimizer, net, steps):
    losses, x, y = [], torch.tensor(X), torch.tensor(Y)
    for step in range(steps):
        rows = torch.arange(16) + 16 * (step % 6)
        loss = F.cross_entropy(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def keras_losses(optimizer, net, steps):
    @tf.function
    def train(x, y):
        with tf.GradientTape() as tape:
            loss = CROSS_ENTROPY(y, net(x, training=True))
        optimizer.apply(tape.gradient(loss, net.trainable_variables), net.trainable_variables)
        return loss

    rows = [np.arange(16) + 16 * (step % 6) for step in range(steps)]
    return np.array([float(train(X[r], Y[r])) for r in rows])


CLIPS = ({"gradient_clipping_by_value": 0.05}, {"gradient_clipping_by_norm_local": 0.2}, {"gradient_clipping_by_norm": 0.3})
CONFIGS = [
    ({"type": "adam", "beta_1": 0.8, "beta_2": 0.99}, 5e-3), ({"type": "adam", "epsilon": 1e-3, "amsgrad": True}, 3e-3),
    ({"type": "adam", "weight_decay": 0.1, **CLIPS[0]}, 3e-3),
    ({"type": "adamw", "weight_decay": 0.1}, 3e-3), ({"type": "adamw", "beta_1": 0.5, "epsilon": 1e-5, **CLIPS[1]}, 3e-3),
    ({"type": "adamw", "amsgrad": True, "beta_2": 0.9, **CLIPS[2]}, 3e-3),
    ({"type": "rmsprop", "rho": 0.8}, 3e-3), ({"type": "rmsprop", "momentum": 0.9, "centered": True, "epsilon": 1e-4}, 1e-3),
    ({"type": "rmsprop", "weight_decay": 0.1, **CLIPS[2]}, 3e-3),
    ({"type": "sgd", "momentum": 0.9}, 0.1), ({"type": "sgd", "momentum": 0.8, "nesterov": True, **CLIPS[0]}, 0.1),
    ({"type": "sgd", "weight_decay": 0.05, **CLIPS[1]}, 0.2),
    ({"type": "adadelta", "rho": 0.95}, 1.0), ({"type": "adadelta", "epsilon": 1e-4}, 1.0), ({"type": "adadelta", **CLIPS[2]}, 2.0),
    ({"type": "adagrad"}, 0.1), ({"type": "adagrad", "initial_accumulator_value": 0.01, "epsilon": 1e-3}, 0.05),
    ({"type": "adagrad", "weight_decay": 0.05}, 0.1),
    ({"type": "adamax"}, 5e-3), ({"type": "adamax", "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}, 5e-3),
    ({"type": "adamax", "weight_decay": 0.1}, 5e-3),
    ({"type": "nadam"}, 3e-3), ({"type": "nadam", "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-4}, 3e-3),
    ({"type": "nadam", **CLIPS[1]}, 3e-3),
]
WARMUP = {"type": "cosine_decay", "learning_rate": 5e-3, "decay_steps": 60, "warmup_steps": 20}
RESTARTS = {"type": "cosine_decay_restarts", "learning_rate": 5e-3, "decay_steps": 33}
DECAY = {"type": "exponential_decay", "learning_rate": 5e-3, "decay_steps": 10, "decay_rate": 0.8}


@pytest.mark.parametrize(("config", "rate"), CONFIGS + [
    ({"type": kind}, schedule) for kind in ("adam", "adamw", "rmsprop", "sgd") for schedule in (WARMUP, RESTARTS, DECAY)], ids=str)
def test_losses_of_one_config_agree(config, rate):
    """Three configurations for each optimizer that are not the defaults, and three schedules."""
    torch_net, keras_net, rates = torch_mlp(), keras_mlp(), (rate, rate)
    if isinstance(rate, dict):
        rates = builders.learning_rate_schedule_builder(rate), kt.learning_rate_schedule_builder(rate)
    ours = torch_losses(builders.optimizer_builder(config, rates[0], torch_net.parameters()), torch_net, 120)
    theirs = keras_losses(kt.optimizer_builder(config, rates[1]), keras_net, 120)
    assert np.abs(ours / theirs - 1).max() < (2e-5 if "ada" in config["type"] or config["type"] == "nadam" else 2e-6)
    assert np.ptp(ours) > 0.01  # it learned, or the comparison says nothing


def test_momentum_parts_where_the_rate_changes():
    schedule = {"type": "piecewise_constant", "boundaries": [10], "values": [0.05, 0.2]}
    torch_net, keras_net, config = torch_mlp(), keras_mlp(), {"type": "sgd", "momentum": 0.9}
    ours = torch_losses(builders.optimizer_builder(config, builders.learning_rate_schedule_builder(schedule), torch_net.parameters()),
                        torch_net, 30)
    theirs = keras_losses(kt.optimizer_builder(config, kt.learning_rate_schedule_builder(schedule)), keras_net, 30)
    apart = np.abs(ours / theirs - 1)
    assert apart[:12].max() < 1e-6 < 1e-4 < apart[12]  # steps 0 to 10 have the first rate; what step 11 does is seen at 12


# ---- the guide of the module that the builders replace


def test_defaults_of_the_flat_dict():
    adam = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False}
    for kind, wanted in {"adam": adam, "adamw": adam, "adadelta": {"rho": 0.9, "epsilon": 1e-7},
                         "rmsprop": {"rho": 0.9, "momentum": 0.0, "epsilon": 1e-7, "centered": False}}.items():
        found = kt.optimizer_builder({"type": kind}, 0.001).get_config()
        assert {key: found[key] for key in wanted} == wanted
        assert found["clipnorm"] is found["global_clipnorm"] is found["clipvalue"] is None
    cosine, restarts = (kt.learning_rate_schedule_builder({"type": kind, "learning_rate": 1.0, "decay_steps": 10}).schedule
                        for kind in ("cosine_decay", "cosine_decay_restarts"))
    assert cosine.alpha == 1e-4 and (restarts.t_mul, restarts.m_mul, restarts.alpha) == (2.0, 0.9, 1e-3)


@pytest.mark.parametrize(("key", "word"), [("gradient_clipping_by_value", "clipvalue"), ("gradient_clipping_by_norm_local", "clipnorm"),
                                           ("gradient_clipping_by_norm", "global_clipnorm")])
def test_clipping_keys(key, word):
    found = kt.optimizer_builder({"type": "adam", key: 0.5}, 0.001).get_config()
    assert found[word] == 0.5 and sum(found[name] is not None for name in ("clipvalue", "clipnorm", "global_clipnorm")) == 1
    with pytest.raises(ConfigError, match="at most one way of clipping"):
        kt.optimizer_builder({"type": "adam", **dict.fromkeys(builders.CLIPPING_KEYS, 1.0)}, 0.001)


@pytest.mark.parametrize(("config", "said"), [
    ({"learning_rate": 1e-3, "decay_steps": 5}, "type"), ({"type": "cosine_decay", "decay_steps": 5}, "learning_rate"),
    ({"type": "cosine_decay", "learning_rate": 1e-3}, "decay_steps"),
    ({"type": "cosine_decay_restarts", "learning_rate": 1e-3}, "decay_steps"),
    ({"type": "exponential_decay", "learning_rate": 1e-3, "decay_steps": 5}, "decay_rate")])
def test_required_keys(config, said):
    with pytest.raises(ConfigError, match=f"missing key: {said}"):
        kt.learning_rate_schedule_builder(config)
    with pytest.raises(ConfigError, match="missing key: type"):
        kt.optimizer_builder({"beta_1": 0.9}, 0.001)


@pytest.mark.parametrize("kind", ["cosine_decay", "exponential_decay", "cosine_decay_restarts"])
def test_warmup_formula(kind):
    plain = {"type": kind, "learning_rate": 0.01, "decay_steps": 40, **({"decay_rate": 0.9} if "exp" in kind else {})}
    for start in ({}, {"warmup_start_lr": 1e-3}):
        schedule, after = (kt.learning_rate_schedule_builder(config) for config in ({**plain, "warmup_steps": 8, **start}, plain))
        low = start.get("warmup_start_lr", 1e-8)
        for step in range(8):
            assert math.isclose(float(schedule(step)), low + (0.01 - low) * step / 8, rel_tol=1e-5)
        assert math.isclose(float(schedule(8)), 0.01, rel_tol=1e-5) and math.isclose(float(schedule(20)), float(after(12)), rel_tol=1e-5)
    assert math.isclose(float(kt.learning_rate_schedule_builder(plain)(0)), 0.01, rel_tol=1e-6)  # no warmup unless asked for


@pytest.mark.parametrize(("kind", "config"), [(kind, {}) for kind in SUPERVISION] + [
    ("custom_sigmoid_low_to_high", {"k": 30.0, "x0": 0.2, "transition_point": 0.6}), ("custom_sigmoid_low_to_high", {"k": 1e-12}),
    ("cosine_annealing", {"frequency": 3.0, "final_ratio": 0.8}), ("cosine_annealing", {"final_ratio": 0.0}),
    ("curriculum", {"max_active_outputs": 3, "activation_strategy": "linear"}),
    ("curriculum", {"max_active_outputs": 1, "activation_strategy": "exp"}),
    ("step_wise", {"threshold": 0.0}), ("step_wise", {"threshold": 1.0})], ids=str)
def test_weights_in_a_trace(kind, config):
    """One trace, and at every step the numbers of the schedule, jumps included."""
    for n in (1, 2, 3, 5, 7):
        for turned in (False, True):
            numbers = SupervisionSchedule(kind, n, config, turned)
            weights = tf.function(kt.deep_supervision_schedule_builder({"type": kind, "config": config}, n, turned))
            for total in (10, 21, 49):
                for step in range(-1, total + 2):
                    found = weights(tf.constant(step / total, tf.float64)).numpy()
                    assert found.dtype == np.float32 and np.abs(found - numbers(step / total)).max() < 1e-6, (n, turned, step, total)
            assert weights.experimental_get_tracing_count() == 1


# ---- schedules under fit


class Rates(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(float(self.model.optimizer.learning_rate))


def test_schedules_save_load_and_act(tmp_path):
    for config in (WARMUP, RESTARTS, DECAY):
        net = keras_mlp()
        net.compile(kt.optimizer_builder({"type": "adam"}, kt.learning_rate_schedule_builder(config)), CROSS_ENTROPY)
        net.fit(X, Y, batch_size=16, epochs=2, verbose=0)
        net.save(tmp_path / "net.keras")
        loaded = keras.saving.load_model(tmp_path / "net.keras")
        assert int(loaded.optimizer.iterations) == 12
        exact = builders.learning_rate_schedule_builder(config)
        assert math.isclose(float(loaded.optimizer.learning_rate), exact(12), rel_tol=1e-5)
        for each in (net, loaded):
            each.fit(X, Y, batch_size=16, epochs=1, verbose=0, shuffle=False)
        assert all(np.array_equal(a, b) for a, b in zip(net.get_weights(), loaded.get_weights()))


def test_the_warmup_callback_under_a_second_fit_and_initial_epoch():
    section = {"type": "warmup_cosine", "warmup_epochs": 1, "min_lr": 0.001, "max_lr": 0.1}
    scheduler, watch, net = builders.get_warmup_scheduler(section, framework="keras"), Rates(), keras_mlp()
    net.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY)
    seen = []
    for first in (0, 0, 2):
        net.fit(X, Y, batch_size=16, initial_epoch=first, epochs=3, verbose=0, callbacks=[scheduler, watch])
        seen.append(watch.seen)
    assert seen[0] == seen[1] and seen[2] == seen[0][12:] and len(seen[0]) == 18
    exact = builders.get_warmup_scheduler(section, torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1), 6, 3).schedule
    assert np.allclose(seen[0], exact(np.arange(18)), rtol=1e-6)


# ---- weights from torch


def test_copied_nets_give_the_same_outputs():
    seed_everything(0)
    source = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, (1, 3), bias=False), nn.Flatten(),
                           nn.Linear(4 * 6 * 4, 7), nn.LayerNorm(7))
    source(torch.randn(8, 3, 6, 6))  # moving averages that are not 0 and 1
    layers = keras.layers
    target = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(5, 3, padding="same"), layers.BatchNormalization(epsilon=1e-5),
                               layers.ReLU(), layers.Conv2D(4, (1, 3), use_bias=False), layers.Permute((3, 1, 2)), layers.Flatten(),
                               layers.Dense(7), layers.LayerNormalization(epsilon=1e-5)])
    kt.copy_weights(source, target)
    x = torch.randn(4, 3, 6, 6)
    with torch.no_grad():
        wanted = source.eval()(x).numpy()
    assert np.abs(target(x.movedim(1, -1).numpy(), training=False).numpy() - wanted).max() < 1e-5


def test_copying_refuses_other_nets():
    with pytest.raises(ConfigError, match="copy_weights.target: expected 2 layers with weights, got 1"):
        kt.copy_weights(torch_mlp(), keras_mlp().layers[:1])
    other = keras.Sequential([keras.Input((6,)), keras.layers.Dense(9), keras.layers.Dense(3)])
    before = other.get_weights()
    with pytest.raises(ConfigError, match="does not have the shapes of Linear"):
        kt.copy_weights(torch_mlp(), other)
    assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights()))


def test_seeds_repeat_a_training():
    weights = []
    for seed in (3, 3, 4):
        kt.seed_keras(seed)
        net = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8), keras.layers.Dropout(0.5), keras.layers.Dense(3)])
        net.compile("adam", CROSS_ENTROPY)
        net.fit(X, Y, batch_size=16, epochs=2, verbose=0)
        weights.append(np.concatenate([w.ravel() for w in net.get_weights()]))
    assert np.array_equal(weights[0], weights[1]) and not np.allclose(weights[0], weights[2])


# ---- deep supervision


def unet(penalty=None):
    "Two outputs, of 8 by 8 and of 4 by 4: `UNet(widths=(4, 4))`."
    layers, conv = keras.layers, {"padding": "same", "activation": "relu"}
    inputs = keras.Input((8, 8, 1))
    top = layers.Conv2D(4, 3, **conv, kernel_regularizer=penalty, name="down_0")(inputs)
    low = layers.Conv2D(4, 3, **conv, name="down_1")(layers.MaxPooling2D()(top))
    up = layers.Conv2D(4, 3, **conv, name="up_0")(layers.Concatenate()([top, layers.UpSampling2D()(low)]))
    return keras.Model(inputs, [layers.Conv2D(1, 1, name="heads_0")(up), layers.Conv2D(1, 1, name="heads_1")(low)])


IMAGES = torch.randn(24, 8, 8, 1, generator=generator(2)).numpy()
MASKS = (IMAGES > 0.5).astype("float32")
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)


def supervised(kind="linear_low_to_high", penalty=None):
    kt.seed_keras(0)
    return kt.SupervisedModel(unet(penalty), BINARY, kt.deep_supervision_schedule_builder({"type": kind}, 2))


class Progress(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(float(self.model.progress))


def test_progress_reaches_the_loss_in_a_trace():
    model, watch, shares = supervised("scale_by_scale_low_to_high"), Progress(), []
    model.compile(keras.optimizers.SGD(0.0))
    history = model.fit(IMAGES, MASKS, batch_size=24, epochs=4, verbose=0, callbacks=[kt.SupervisionProgress(), watch]).history
    assert watch.seen == [0.0, 0.25, 0.5, 0.75]
    big, small = model.net(IMAGES)
    half = MASKS.reshape(24, 4, 2, 4, 2, 1).mean((2, 4))
    shares = [float(BINARY(half, small)), float(BINARY(MASKS, big))]
    assert np.allclose(history["loss"], [shares[0], shares[0], shares[1], shares[1]], rtol=1e-5)
    assert history["weight_0"] == [0, 0, 1, 1] and history["weight_1"] == [1, 1, 0, 0]


def test_a_run_in_parts_goes_on_where_it_was():
    whole, parts, watch = supervised(), supervised(), Progress()
    for model in (whole, parts):
        model.compile(keras.optimizers.Adam(0.01))
    options = {"batch_size": 8, "verbose": 0, "shuffle": False}
    whole.fit(IMAGES, MASKS, epochs=4, callbacks=[kt.SupervisionProgress(), watch], **options)
    assert np.allclose(watch.seen, np.arange(12) / 12)
    schedule = kt.SupervisionProgress()
    kept = copy.deepcopy(watch.seen)
    parts.fit(IMAGES, MASKS, epochs=4, callbacks=[schedule, watch, Stop(2)], **options)
    assert watch.seen == kept[:6]
    parts.fit(IMAGES, MASKS, epochs=4, initial_epoch=2, callbacks=[schedule, watch], **options)
    assert watch.seen == kept[6:]
    assert all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), parts.get_weights()))


class Stop(keras.callbacks.Callback):
    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + 1 == self.epochs


def test_outside_of_training_it_is_output_0():
    model = supervised(penalty=keras.regularizers.L2(0.1))
    model.compile(keras.optimizers.SGD(0.1), metrics=[keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")])
    big = model.net(IMAGES)[0].numpy()
    assert np.allclose(model.predict(IMAGES, verbose=0), big, atol=1e-6)
    penalty = 0.1 * float((model.net.layers[1].kernel.numpy() ** 2).sum())
    loss, accuracy = model.evaluate(IMAGES, MASKS, verbose=0, batch_size=24)
    assert math.isclose(loss, float(BINARY(MASKS, big)) + penalty, rel_tol=1e-5)
    assert math.isclose(accuracy, float(((big > 0) == (MASKS > 0)).mean()), rel_tol=1e-5)
    history = model.fit(IMAGES, MASKS, verbose=0, batch_size=24, validation_data=(IMAGES, MASKS),
                        callbacks=[kt.SupervisionProgress()]).history
    assert math.isclose(history["accuracy"][0], accuracy, rel_tol=1e-5)  # of output 0, before the step
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy", "weight_0", "weight_1"}
    by_hand = [BINARY(MASKS, model.net(IMAGES)[0])]
    assert math.isclose(history["val_loss"][0], float(by_hand[0]) + float(sum(model.losses)), rel_tol=1e-5)


def test_weights_of_rows_and_targets_of_classes():
    model = supervised()
    model.progress.assign(0.25)
    outputs, weights = model(IMAGES, training=True), np.where(np.arange(24) < 12, 1.0, 0.0)[:, None, None]
    half = float(model.compute_loss(y=tf.constant(MASKS), y_pred=outputs, sample_weight=weights))
    parts = float(model.compute_loss(y=tf.constant(MASKS[:12]), y_pred=[o[:12] for o in outputs]))
    assert math.isclose(half, parts / 2, rel_tol=1e-5)  # Keras's mean divides by the rows
    classes = tf.constant((IMAGES[..., 0] > 0).astype("int32"))
    assert np.array_equal(kt._shrunk(classes, outputs[1]), classes[:, 1::2, 1::2]) and kt._shrunk(classes, outputs[0]) is not None


def test_what_supervision_refuses():
    with pytest.raises(ConfigError, match="SupervisedModel: the net has 2 outputs and the schedule 5 weights"):
        kt.SupervisedModel(unet(), BINARY, kt.deep_supervision_schedule_builder({"type": "step_wise"}, 5))
    model = supervised()
    model.compile("sgd")
    batches = tf.data.Dataset.from_generator(lambda: iter([(IMAGES, MASKS)] * 3), output_signature=(
        tf.TensorSpec((None, 8, 8, 1)), tf.TensorSpec((None, 8, 8, 1))))
    with pytest.raises(ConfigError, match="give steps_per_epoch"):
        model.fit(batches, verbose=0, callbacks=[kt.SupervisionProgress()])
    watch = Progress()
    model.fit(batches, epochs=2, verbose=0, callbacks=[kt.SupervisionProgress(steps_per_epoch=3), watch])
    assert np.allclose(watch.seen, np.arange(6) / 6)


def test_the_unet_trains_as_in_torch():
    """Ten steps of Adam from equal weights: the losses stay together, under weights that change."""
    seed_everything(0)
    twin = UNet(widths=(4, 4)).train()
    net = unet()
    kt.copy_weights(twin, [net.get_layer(name) for name in ("down_0", "down_1", "up_0", "heads_0", "heads_1")])
    model = kt.SupervisedModel(net, BINARY, kt.deep_supervision_schedule_builder({"type": "linear_low_to_high"}, 2))
    model.compile(kt.optimizer_builder({"type": "adam"}, 0.01))
    theirs = model.fit(IMAGES, MASKS, batch_size=24, epochs=10, verbose=0, callbacks=[kt.SupervisionProgress()]).history["loss"]
    loss_function = DeepSupervisionLoss(nn.BCEWithLogitsLoss(), SupervisionSchedule("linear_low_to_high", 2))
    optimizer = builders.optimizer_builder({"type": "adam"}, 0.01, twin.parameters())
    x, y, ours = torch.tensor(IMAGES).movedim(-1, 1), torch.tensor(MASKS).movedim(-1, 1), []
    for step in range(10):
        loss_function.progress = step / 10
        loss = loss_function(twin(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ours.append(loss.item())
    assert np.allclose(ours, theirs, rtol=2e-5) and ours[-1] < ours[0]


# ---- the range test


def variables(model):
    everything = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return {id(v): v for v in everything}.values()


def bits(model):
    return [(v.path, v.numpy().dtype.str, v.numpy().tobytes()) for v in variables(model)]


def rich_net():
    layers = keras.layers
    return keras.Sequential([keras.Input((6,)), layers.Dense(8, kernel_regularizer="l2"), layers.BatchNormalization(), layers.ReLU(),
                             layers.Dropout(0.3), layers.GaussianNoise(0.1), layers.Dense(3)])


class Raise(keras.callbacks.Callback):
    def __init__(self, error, at=4, when="end"):
        super().__init__()
        self.error, self.at, self.when = error, at, when

    def on_train_batch_begin(self, batch, logs=None):
        if (self.when, batch) == ("begin", self.at):
            raise self.error

    def on_train_batch_end(self, batch, logs=None):
        if (self.when, batch) == ("end", self.at):
            raise self.error


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9), "adam": lambda: keras.optimizers.Adam(1e-3, amsgrad=True),
    "rmsprop": lambda: keras.optimizers.RMSprop(1e-3, centered=True), "nadam": lambda: keras.optimizers.Nadam(1e-3),
    "clipped": lambda: kt.optimizer_builder({"type": "adamw", "gradient_clipping_by_norm": 0.5}, 1e-3),
    "averaged": lambda: keras.optimizers.Adam(1e-3, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=2),
    "accumulating": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.5), dynamic_growth_steps=3),
    "adagrad": lambda: keras.optimizers.Adagrad(0.1),
    "ftrl": lambda: keras.optimizers.Ftrl(0.1), "lion": lambda: keras.optimizers.Lion(1e-3)}
WAYS = {"end": ({"end_lr": 1e-3}, []), "diverged": ({"end_lr": 1e6, "diverge": 1.5}, []),
        "interrupted": ({}, [Raise(KeyboardInterrupt())]), "error before a step": ({}, [Raise(ZeroDivisionError(), when="begin")]),
        "error at the first": ({}, [Raise(RuntimeError("here"), at=0)])}


@pytest.mark.parametrize("kind", list(OPTIMIZERS))
@pytest.mark.parametrize("trained", [False, True])
def test_everything_is_as_it_was(kind, trained):
    kt.seed_keras(0)
    model = rich_net()
    model.compile(OPTIMIZERS[kind](), CROSS_ENTROPY, metrics=["accuracy"])
    if trained:
        model.fit(X, Y, batch_size=16, epochs=2, verbose=0)
    else:
        model.optimizer.build(model.trainable_variables)
        model.evaluate(X, Y, verbose=0)
    before = bits(model)
    for way, (settings, callbacks) in WAYS.items():
        finder = kt.LearningRateFinder(**{"start_lr": 1e-5, "num_steps": 20, **settings})
        if callbacks:
            with pytest.raises(type(callbacks[0].error)):
                finder.find(model, X, Y, batch_size=16, callbacks=callbacks)
        else:
            result = finder.find(model, X, Y, batch_size=16)
            assert len(result.lrs) == len(result.losses) and result.ended
        assert bits(model) == before, way
    assert model.stop_training is False or not trained
    seen = model.fit(X, Y, batch_size=16, epochs=1, verbose=0)
    assert np.isfinite(seen.history["loss"][0])


class Press(keras.callbacks.Callback):
    "Presses Ctrl-C in the fifth step, or when a variable is put back."

    def on_train_batch_end(self, batch, logs=None):
        if batch == 4:
            signal.raise_signal(signal.SIGINT)

    def assign(self, value):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_a_step_and_while_things_are_put_back():
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background ignores it
    try:
        model = rich_net()
        model.compile(keras.optimizers.Adam(1e-3), CROSS_ENTROPY)
        model.fit(X, Y, batch_size=16, verbose=0)
        before = bits(model)
        with pytest.raises(KeyboardInterrupt):
            kt.LearningRateFinder(1e-3).find(model, X, Y, batch_size=16, callbacks=[Press()])
        assert bits(model) == before

        class Finder(kt.LearningRateFinder):
            def on_train_end(self, logs=None):
                self._kept.insert(0, (Press(), None))
                super().on_train_end(logs)

        with pytest.raises(KeyboardInterrupt):
            Finder(1e-3, num_steps=8).find(model, X, Y, batch_size=16)
        assert bits(model) == before
    finally:
        signal.signal(signal.SIGINT, heard)


def test_a_run_goes_on_as_if_nothing_had_happened():
    runs = []
    for looks in (False, True):
        kt.seed_keras(1)
        model = rich_net()
        model.compile(keras.optimizers.Adam(1e-2), CROSS_ENTROPY)
        model.fit(X, Y, batch_size=16, verbose=0, shuffle=False)
        if looks:
            kt.LearningRateFinder(num_steps=15).find(model, X, Y, batch_size=16, shuffle=False)
        model.fit(X, Y, batch_size=16, epochs=2, verbose=0, shuffle=False)
        runs.append(bits(model))
    assert [row[1:] for row in runs[0]] == [row[1:] for row in runs[1]]


def test_equal_to_the_range_test_of_torch():
    net, twin = keras_mlp(), torch_mlp()
    net.compile(kt.optimizer_builder({"type": "adam"}, 1e-3), CROSS_ENTROPY)
    theirs = kt.LearningRateFinder(1e-5, 10, 60).find(net, X, Y, batch_size=16, shuffle=False)
    batches = [(torch.tensor(X[i:i + 16]), torch.tensor(Y[i:i + 16])) for i in range(0, 96, 16)]
    optimizer = builders.optimizer_builder({"type": "adam"}, 1e-3, twin.parameters())
    ours = find_learning_rate(twin, batches, nn.CrossEntropyLoss(), optimizer, 1e-5, 10, 60)
    count = min(len(ours.losses), len(theirs.losses))
    assert count > 40 and np.allclose(ours.lrs[:count], theirs.lrs[:count], rtol=1e-12)
    assert np.allclose(ours.losses[:30], theirs.losses[:30], rtol=1e-4)  # rates of up to 0.01


def test_a_loss_is_that_of_its_batch_and_its_rate():
    net = keras_mlp()
    net.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY, metrics=["accuracy"])
    watch = Rates()
    finder = kt.LearningRateFinder(1e-9, 1e-8, 12)  # nothing moves
    result = finder.find(net, X, Y, batch_size=16, shuffle=False, callbacks=[])
    each = [float(CROSS_ENTROPY(Y[i:i + 16], net(X[i:i + 16]))) for i in range(0, 96, 16)]
    assert np.allclose(result.losses, each * 2, rtol=1e-5) and result.ended == "at end_lr"
    net.fit(X, Y, batch_size=16, epochs=3, verbose=0, callbacks=[finder, watch])
    assert np.allclose(watch.seen, result.lrs, rtol=1e-6) and result.lrs[0] == 1e-9 and result.lrs[-1] == 1e-8
    assert math.isclose(float(net.optimizer.learning_rate), 0.1, rel_tol=1e-6)


def test_it_wins_over_other_callbacks_and_says_why_it_ended():
    net, watch = keras_mlp(), Rates()
    net.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY)
    warm = builders.get_warmup_scheduler({"type": "warmup_cosine", "warmup_epochs": 1}, framework="keras")
    result = kt.LearningRateFinder(1e-4, 1e-2, 8).find(net, X, Y, batch_size=16, callbacks=[warm, watch])
    assert np.allclose(watch.seen, result.lrs, rtol=1e-6)
    assert kt.LearningRateFinder(num_steps=50).find(net, X, Y, batch_size=16, epochs=2).ended.startswith("the data ended")
    assert "diverged at a rate of" in kt.LearningRateFinder(1e-2, 1e5).find(net, X, Y, batch_size=16).ended


def test_losses_that_are_not_finite():
    net = keras_mlp()
    net.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY)
    before, broken = bits(net), X.copy()
    broken[3] = np.nan
    with pytest.raises(NonFiniteLoss, match="first batch, before any step, is nan"):
        kt.LearningRateFinder().find(net, broken, Y, batch_size=96)
    assert [row[2] for row in bits(net)[:4]] == [row[2] for row in before[:4]]
    broken = X.copy()
    broken[80] = np.nan
    result = kt.LearningRateFinder().find(net, broken, Y, batch_size=16, shuffle=False)
    assert len(result.losses) == 5 and "the loss was nan at a rate of" in result.ended
    assert [row[2] for row in bits(net)[:4]] == [row[2] for row in before[:4]]


def test_what_the_finder_refuses():
    for settings, said in (({"end_lr": 1e-7}, "end_lr: expected a rate above"), ({"smoothing": 4}, "smoothing: expected an odd number"),
                           ({"num_steps": 1}, "LearningRateFinder.num_steps"), ({"start_lr": 0}, "LearningRateFinder.start_lr"),
                           ({"diverge": 1.0}, "LearningRateFinder.diverge"), ({"steps": 3}, "unknown argument 'steps'")):
        with pytest.raises(ConfigError, match=said):
            kt.LearningRateFinder(**settings)
    net = keras_mlp()
    net.compile(kt.optimizer_builder({"type": "adam"}, kt.learning_rate_schedule_builder(WARMUP)), CROSS_ENTROPY)
    with pytest.raises(ConfigError, match="got a schedule"):
        kt.LearningRateFinder().find(net, X, Y)
    net.compile("sgd", CROSS_ENTROPY, steps_per_execution=3)
    with pytest.raises(ConfigError, match="steps_per_execution=1"):
        kt.LearningRateFinder().find(net, X, Y)


# ---- what the lesson shows once


def test_two_devices_train_as_one():
    def fit():
        net = keras_mlp()
        net.compile(kt.optimizer_builder({"type": "adam", "epsilon": 1e-3}, 1e-2), CROSS_ENTROPY)
        net.fit(X, Y, batch_size=16, epochs=3, shuffle=False, verbose=0)
        return net.get_weights()

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    alone = fit()
    with strategy.scope():
        together = fit()
    assert strategy.num_replicas_in_sync == 2 and max(np.abs(a - b).max() for a, b in zip(alone, together)) < 1e-5
