"""Compression in Keras: tfmot and LiteRT against formulas written again, refusals before work is lost, two Kerases in one process."""
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nnlearn.core import ConfigError
from nnlearn.course.explore import decode
from nnlearn.course.explorers import keras_sparsity_explorer
from nnlearn.distillation import DistillationLoss
from nnlearn.keras_stages import as_tf_keras, check_for_keras, is_keras
from nnlearn.litert import TFLiteModel
from nnlearn.pipeline import ModelOptimizer

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip("tensorflow")
tf_keras = pytest.importorskip("tf_keras")
tfmot = pytest.importorskip("tensorflow_model_optimization")
from nnlearn.keras import compression as kc  # noqa: E402
from nnlearn.retraining import check_rows, check_training, copy_model, gives_probabilities, zeros_by_layer  # noqa: E402

layers = tf_keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(320, 6)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype(int) + 2 * (X[:, 2] > 0)


def net(hidden=20, classes=4, activation=None, norm=None, seed=0):
    tf_keras.utils.set_random_seed(seed)
    stack = [layers.Input((6,)), layers.Dense(hidden, name="first")]
    if norm is not None:
        stack.append(layers.BatchNormalization(momentum=norm))
    stack.append(layers.ReLU())
    return tf_keras.Sequential([*stack, layers.Dense(classes, activation=activation, name="last")])


@pytest.fixture(scope="module")
def trained():
    model = net()
    model.compile(tf_keras.optimizers.Adam(1e-2), tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, epochs=8, verbose=0)
    return model


def share_right(outputs):
    return float((np.asarray(outputs).argmax(1) == Y).mean())


def in_a_process(code, **variables):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **variables})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# Two Kerases, and none

BOTH = """
import numpy as np
def third():
    import keras
    net = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(4)])
    net.compile("sgd", "mse")
    net.fit(np.ones((8, 6)), np.ones((8, 4)), verbose=0)
    return net
def second():
    import tf_keras
    from nnlearn.keras.compression import convert_tflite, prune
    net = tf_keras.Sequential([tf_keras.layers.Input((6,)), tf_keras.layers.Dense(4)])
    x, y = np.random.default_rng(0).normal(size=(64, 6)).astype("float32"), np.arange(64) % 4
    pruned = prune(net, x, y, 0.5, frequency=1, epochs=4, batch_size=16)
    return pruned, convert_tflite(pruned, PATH, "int8", x), x
"""
ORDERS = {"Keras 3 first": "k = third(); p, f, x = second()", "tf_keras first": "p, f, x = second(); k = third()",
          "tfmot first": "import tensorflow_model_optimization; k = third(); p, f, x = second(); k2 = third()"}


@pytest.mark.parametrize("order", ORDERS)
def test_both_kerases_in_one_process_in_any_order(order, tmp_path):
    code = BOTH.replace("PATH", repr(str(tmp_path / "x.tflite"))) + ORDERS[order] + """
import keras, tf_keras
assert isinstance(k, keras.Model) and isinstance(p, tf_keras.Model) and not isinstance(p, keras.Model)
assert abs((p.get_weights()[0] == 0).mean() - 0.5) < 0.01 and f.runs == "int8 x int8"
assert f(x).shape == (64, 4) and np.isfinite(np.asarray(k(np.ones((2, 6), "float32")).detach())).all()
print("both")
"""
    assert in_a_process(code, KERAS_BACKEND="torch").strip().endswith("both")


def test_a_keras_3_model_is_converted_and_taught(tmp_path):
    code = f"""
from nnlearn.keras import load_tensorflow
load_tensorflow()
import keras, numpy as np, pytest
from nnlearn.core import ConfigError
from nnlearn.keras.compression import convert_tflite, distill, prune
keras.utils.set_random_seed(0)
teacher, student = (keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(n, activation="relu"), keras.layers.Dense(4)])
                    for n in (32, 8))
x = np.random.default_rng(0).normal(size=(256, 6)).astype("float32")
file = convert_tflite(teacher, {str(tmp_path / "k3.tflite")!r})
assert np.abs(file(x) - np.asarray(teacher(x))).max() < 1e-4
losses = distill(student, teacher, x, epochs=8, learning_rate=1e-2)
assert losses[-1] < 0.6 * losses[0], losses
with pytest.raises(ConfigError, match="got a Keras 3 model"):
    prune(teacher, x, np.zeros(256, int))
print("taught")
"""
    assert in_a_process(code).strip().endswith("taught")


def test_without_tensorflow_the_extra_is_named():
    code = """
import sys
sys.modules["tensorflow"] = None
import nnlearn.pipeline, nnlearn.litert, nnlearn.retraining
try:
    import nnlearn.keras.compression
except ValueError as error:
    print(error)
"""
    assert 'pip install "nnlearn[tensorflow]"' in in_a_process(code)


# Pruning


def test_the_largest_weights_stay_and_the_model_is_untouched(trained):
    before = trained.get_weights()
    pruned = kc.prune(trained, X, Y, 0.75, "constant", frequency=1, end_step=1, epochs=1, batch_size=320, learning_rate=1e-9)
    for old, new in zip(before, pruned.get_weights()):
        if old.ndim == 2:
            bound = np.sort(np.abs(old), axis=None)[-round(0.25 * old.size)]
            assert np.array_equal(new != 0, np.abs(old) >= bound) and np.allclose(new[new != 0], old[new != 0], atol=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(before, trained.get_weights()))
    assert [type(layer).__name__ for layer in pruned.layers] == ["Dense", "ReLU", "Dense"]


@pytest.mark.parametrize("schedule", ["polynomial", "constant"])
@pytest.mark.parametrize(("epochs", "batch_size", "frequency", "start"), [(3, 32, 10, 0), (2, 32, 7, 2), (1, 10, 3, 5), (4, 64, 1, 0)])
def test_the_target_is_reached_without_an_end(trained, schedule, epochs, batch_size, frequency, start):
    pruned = kc.prune(trained, X, Y, 0.6, schedule, start_step=start, frequency=frequency, epochs=epochs, batch_size=batch_size)
    assert all(abs(zeros - 0.6) < 0.02 for zeros in zeros_by_layer(pruned).values())


def test_a_small_target_is_not_passed_by_the_beginning(trained):
    assert all(abs(zeros - 0.1) < 0.03 for zeros in zeros_by_layer(kc.prune(trained, X, Y, 0.1, frequency=2)).values())


def test_an_end_at_the_last_step_counts(trained):
    pruned = kc.prune(trained, X, Y, 0.8, end_step=30, frequency=10, epochs=3, batch_size=32)
    assert all(abs(zeros - 0.8) < 0.02 for zeros in zeros_by_layer(pruned).values())


@pytest.mark.parametrize(("settings", "message"), [
    ({"end_step": 31}, "ends at step 31, and the training has 30 steps"),
    ({"end_step": 25}, "multiple of frequency"),
    ({"start_step": 20, "end_step": 20}, "multiple of frequency"),
    ({"start_step": 40}, "ends at step 50"),
    ({"frequency": 100}, "ends at step 100"),
    ({"target_sparsity": 1.0}, "prune.target_sparsity"),
    ({"schedule": "linear"}, "prune.schedule"),
    ({"epochs": 0}, "prune.epochs"),
])
def test_schedules_that_never_arrive_are_refused(trained, settings, message):
    with pytest.raises(ConfigError, match=message):
        kc.prune(trained, X, Y, **{"epochs": 3, "batch_size": 32, **settings})


@pytest.mark.parametrize("function", ["prune", "cluster", "quantize_aware"])
def test_batch_norm_that_cannot_follow_is_refused(function):
    with pytest.raises(ConfigError, match=f"{function}.model: batch_norm.* momentum 0.99, .* the 15 steps"):
        getattr(kc, function)(net(norm=0.99), X, Y, epochs=3, batch_size=64)
    slow = net(norm=0.99)
    slow.layers[1].trainable = False
    assert check_training(slow, X, Y, 1, 64, "x") == 5


def test_batch_norm_is_weighed_at_the_border():
    for momentum, steps in ((0.9, 29), (0.99, 299), (0.5, 5)):
        rows = np.zeros((steps, 6)), np.zeros(steps, int)
        assert check_training(net(norm=momentum), *rows, 1, 1, "x") == steps
        with pytest.raises(ConfigError, match="momentum"):
            check_training(net(norm=momentum), rows[0][1:], rows[1][1:], 1, 1, "x")


@pytest.mark.parametrize("function", ["prune", "cluster", "quantize_aware"])
def test_data_and_models_that_do_not_fit_are_refused(trained, function):
    call = getattr(kc, function)
    for labels in (Y[:5], Y[:, None], np.zeros((0,))):
        with pytest.raises(ConfigError, match=f"{function}.labels"):
            call(trained, X, labels)
    for model in (torch.nn.Linear(6, 4), "net", None):
        with pytest.raises(ConfigError, match="expected a tf_keras model"):
            call(model, X, Y)

    class Own(tf_keras.Model):
        def call(self, x):
            return x
    own = Own()
    own(X[:2])
    with pytest.raises(ConfigError, match="Sequential or functional"):
        call(own, X, Y)
    with pytest.raises(ConfigError, match="Sequential or functional"):
        call(tf_keras.Sequential([layers.Input((6,)), layers.Lambda(abs)]), X, Y)
    with pytest.raises(ConfigError, match="no weights yet"):
        call(tf_keras.Sequential([layers.Dense(4)]), X, Y)
    late = tf_keras.Sequential([layers.Dense(4)])
    late(X[:2])
    assert np.array_equal(copy_model(late, "prune")(X), late(X))


def test_a_layer_tfmot_does_not_know():
    model = tf_keras.Sequential([layers.Input((6,)), layers.Dense(5), layers.PReLU(), layers.Dense(4)])
    with pytest.raises(ConfigError, match="tfmot cannot prune"):
        kc.prune(model, X, Y, frequency=1)


def test_summaries_are_written_where_asked(trained, tmp_path):
    kc.prune(trained, X, Y, 0.5, frequency=1, epochs=2, log_dir=tmp_path / "log")
    assert list((tmp_path / "log" / "metrics").iterdir())


def test_a_softmax_is_seen():
    assert gives_probabilities(net(activation="softmax"), X) and not gives_probabilities(net(), X)
    model = net(activation="softmax")
    pruned = kc.prune(model, X, Y, 0.3, frequency=1, epochs=12, learning_rate=1e-2)
    assert share_right(pruned(X)) > 0.8


def test_a_rate_that_is_too_large_is_told(trained):
    with pytest.raises(ConfigError, match="no longer finite"):
        kc.prune(trained, np.where(X > 1, np.inf, X), Y, frequency=1)


# Files


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tflite")
    return {kind: kc.convert_tflite(trained, folder / f"{kind}.tflite", kind, X) for kind in ("float32", "dynamic", "float16", "int8")}


def test_float_files_give_what_the_model_gives(trained, files):
    expected = trained(X).numpy()
    for kind, bound in (("float32", 1e-4), ("float16", 3e-2), ("dynamic", 0.3), ("int8", 0.6)):
        assert np.abs(files[kind](X) - expected).max() < bound, kind
        assert files[kind].evaluate(X, Y) >= share_right(expected) - 0.03


def test_any_batch_size_gives_the_same(files):
    for file in files.values():
        whole = file(X[:33])
        for size in (1, 2, 33):
            parts = np.concatenate([file(X[start:min(start + size, 33)]) for start in range(0, 33, size)])
            assert np.allclose(parts, whole, atol=0.1 if file.runs != "float32 x float32" else 1e-5)
        assert np.array_equal(file(torch.from_numpy(X[:4])), file(X[:4]))


def test_int8_by_hand(trained, files):
    """The first layer in integers, from the numbers in the file: sums in int32, as lesson 19 has it."""
    file = files["int8"]
    details = {tuple(t["shape"]): t for t in file.interpreter.get_tensor_details() if t["dtype"] == np.int8}
    entry = details[(20, 6)]
    stored, scales = file.interpreter.get_tensor(entry["index"]), entry["quantization_parameters"]["scales"]
    kernel, bias = trained.get_weights()[:2]
    assert np.allclose(scales, np.abs(kernel).max(0) / 127, rtol=1e-5)
    assert np.abs(stored.T - np.round(kernel / scales)).max() <= 1
    scale, zero = file.input["quantization"]
    q = file.round_inputs(X[:8])
    assert q.dtype == np.int8 and np.array_equal(q, np.clip(np.round(X[:8] / np.float32(scale)) + zero, -128, 127))
    sums = (q.astype(int) - zero) @ stored.T.astype(int) * scale * scales + bias
    assert np.abs(sums - (X[:8] @ kernel + bias)).max() < 0.15


def test_what_is_multiplied(files):
    assert files["float32"].runs == files["float16"].runs == "float32 x float32"
    assert files["int8"].runs == "int8 x int8" and files["int8"].products() == {"FULLY_CONNECTED": "int8 x int8"}


def test_inputs_of_another_scale_are_refused(trained, files, tmp_path):
    with pytest.raises(ConfigError, match="inputs go from .* Scale them"):
        files["int8"](255 * X)
    with pytest.raises(ConfigError, match="only, and the file's integers"):
        kc.convert_tflite(trained, tmp_path / "x.tflite", "int8", 255 * X).evaluate(X, Y)
    assert np.isfinite(files["int8"](1.5 * X)).all() and files["float32"](255 * X).shape == (320, 4)
    for wrong in (X[:, :5], X[0], X[:, :, None]):
        with pytest.raises(ConfigError, match=r"expected shape \(N, 6\)"):
            files["int8"](wrong)
    with pytest.raises(ConfigError, match="expected a label"):
        files["int8"].evaluate(X, Y[:3])


def test_a_refused_conversion_leaves_the_file(trained, files, tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(b"before")
    for wrong, message in ((None, "int8 needs inputs"), (X[:, :3], r"expected inputs of shape \(N, 6\)"), (X[:0], "expected inputs"),
                           (np.zeros((9, 6)), "that differ"), (np.full((9, 6), np.nan), "finite")):
        with pytest.raises(ConfigError, match=message):
            kc.convert_tflite(trained, path, "int8", wrong)
    for model in ("net", torch.nn.Linear(6, 4)):
        with pytest.raises(ConfigError, match="built Keras model"):
            kc.convert_tflite(model, path)
    entry = layers.Input((6,))
    with pytest.raises(ConfigError, match="one input and one output"):
        kc.convert_tflite(tf_keras.Model(entry, [layers.Dense(2)(entry), layers.Dense(3)(entry)]), path)
    with pytest.raises(ConfigError, match="convert_tflite.format"):
        kc.convert_tflite(trained, path, "int4")
    assert path.read_bytes() == b"before"
    assert check_rows(np.tile(X, (2, 1)), (None, 6), "x").shape == (200, 6)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        TFLiteModel(tmp_path / "x.tflite")
    (tmp_path / "x.tflite").write_bytes(b"TFL3 nothing")
    with pytest.raises(ConfigError, match="LiteRT cannot run"):
        TFLiteModel(tmp_path / "x.tflite")


# Rounding while training, and clusters

TAKEN = {"gelu": lambda: [layers.Dense(4, activation="gelu")], "swish": lambda: [layers.Dense(4, activation="swish")],
         "dropout": lambda: [layers.Dense(4), layers.Dropout(0.3)], "norm after": lambda: [layers.Dense(4), layers.BatchNormalization()]}
REFUSED = {"prelu": lambda: [layers.Dense(4), layers.PReLU()], "layer norm": lambda: [layers.Dense(4), layers.LayerNormalization()],
           "norm alone": lambda: [layers.BatchNormalization(), layers.Dense(4)],
           "norm after an activation": lambda: [layers.Dense(4, activation="relu"), layers.BatchNormalization()],
           "rescaling": lambda: [layers.Rescaling(2.0), layers.Dense(4)],
           "lambda": lambda: [layers.Lambda(lambda x: 2 * x), layers.Dense(4)],
           "nested": lambda: [tf_keras.Sequential([layers.Input((6,)), layers.Dense(4)]), layers.Dense(4)],
           "recurrent": lambda: [layers.Reshape((3, 2)), layers.LSTM(4)]}


@pytest.mark.parametrize("name", [*TAKEN, *REFUSED])
def test_what_rounding_takes(name):
    model = tf_keras.Sequential([layers.Input((6,)), *(TAKEN | REFUSED)[name]()])
    if name in TAKEN:
        assert kc.make_aware(model)(X[:2]).shape == (2, 4)
        return
    with pytest.raises(ConfigError, match="make_aware.model"):
        kc.quantize_aware(model, X, Y)


def test_rounded_nets_are_converted_without_data(trained, tmp_path):
    aware = kc.quantize_aware(trained, X, Y, epochs=2)
    file = kc.convert_tflite(aware, tmp_path / "aware.tflite", "int8")
    assert file.runs == "int8 x int8" and file.evaluate(X, Y) >= share_right(trained(X)) - 0.05
    assert np.abs(file(X) - aware(X).numpy()).max() < 0.3  # the converter does what the training imitated


def kernel_of(aware):
    return next(w.numpy() for w in aware.layers[-1].weights if w.shape.rank == 2)


def test_zeros_and_clusters_are_kept_when_asked(trained):
    pruned = kc.prune(trained, X, Y, 0.5, frequency=1)
    assert (kernel_of(kc.quantize_aware(pruned, X, Y, "zeros")) == 0).mean() > 0.49
    assert (kernel_of(kc.quantize_aware(pruned, X, Y, epochs=3, learning_rate=1e-2)) == 0).mean() < 0.4
    clustered = kc.cluster(trained, X, Y, 8)
    assert all(len(np.unique(layer.kernel)) <= 8 for layer in clustered.layers[::2])
    assert share_right(clustered(X)) >= share_right(trained(X)) - 0.1
    assert [type(layer).__name__ for layer in clustered.layers] == ["Dense", "ReLU", "Dense"]


# Distillation


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_loss_is_that_of_lesson_21(alpha, temperature):
    student, teacher = 4 * RNG.normal(size=(2, 9, 5)).astype("float32")
    labels = np.array([0, 4, -100, 2, 1, -100, 3, 0, 2])
    for y in (labels, np.full(9, -100)):
        expected = DistillationLoss(alpha, temperature)(torch.tensor(student), torch.tensor(teacher), torch.tensor(y)).item()
        assert float(kc.distillation_loss(student, teacher, y, alpha, temperature)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_student_learns_and_the_teacher_stays(trained):
    before, student = trained.get_weights(), net(8, seed=3)
    losses = kc.distill(student, trained, X, np.where(np.arange(320) < 20, Y, -100), 0.8, 2.0, 15, learning_rate=1e-2)
    assert len(losses) == 15 and losses[-1] < 0.5 * losses[0]
    agrees = (student(X).numpy().argmax(1) == trained(X).numpy().argmax(1)).mean()
    assert agrees > 0.85 and all(np.array_equal(a, b) for a, b in zip(before, trained.get_weights()))


def test_distillation_refuses_before_it_trains(trained):
    student = net(8)
    before = student.get_weights()
    for place, arguments in {
            "distill.teacher": (student, net(activation="softmax"), X), "distill.student": (net(activation="softmax"), trained, X),
            "gives .3,. logits": (net(classes=3), trained, X), "distill.labels": (student, trained, X, Y + 1),
            "for each of 320": (student, trained, X, Y[:7]), "at least one": (student, trained, X[:0], Y[:0])}.items():
        with pytest.raises(ConfigError, match=place):
            kc.distill(*arguments, epochs=1)
    assert all(np.array_equal(a, b) for a, b in zip(before, student.get_weights()))


# ModelOptimizer


def optimizer_of(**training):
    return ModelOptimizer({"data": {"batch_size": 32}, "training": training}, verbose=0)


def test_the_steps_of_a_config(trained, tmp_path):
    tool = optimizer_of(pruning={"target_sparsity": 0.5, "epochs": 2, "frequency": 5}, distillation={"epochs": 4},
                        quantization={"format": "int8"})
    pruned = tool.apply_pruning(trained, (X, Y))
    assert all(abs(zeros - 0.5) < 0.02 for zeros in zeros_by_layer(pruned).values()) and zeros_by_layer(trained)["last"] < 0.01
    file = tool.apply_quantization(pruned, X, path=tmp_path / "a.tflite")
    assert file.runs == "int8 x int8" and Path(file.path) == tmp_path / "a.tflite"
    assert Path(tool.apply_quantization(trained, X).path).exists()
    student = net(8)
    before = student.get_weights()
    taught = tool.apply_distillation(student, trained, (X, Y))
    assert share_right(taught(X)) > share_right(student(X)) and all(np.array_equal(a, b) for a, b in zip(before, student.get_weights()))
    with pytest.raises(ConfigError, match="Distil first, then prune"):
        tool.apply_distillation(pruned, trained, (X, Y))
    aware = optimizer_of(quantization={"type": "during_training"}).apply_quantization(pruned, None, (X, Y))
    assert aware.runs == "int8 x int8"
    half = optimizer_of(quantization={"format": "float16"}).apply_quantization(trained, None)
    assert half.runs == "float32 x float32" and is_keras(trained) and not is_keras(torch.nn.Linear(2, 2))


def test_settings_that_keras_would_not_get_are_refused(trained):
    for training, message in (({"pruning": {"type": "structured"}}, "pruning.type"), ({"pruning": {"epochs": 0}}, "pruning.epochs"),
                              ({"pruning": {"target_sparsity": 0.0}}, "target_sparsity"),
                              ({"pruning": {}, "optimizer": {"type": "muon"}}, "optimizer.type"),
                              ({"pruning": {}, "optimizer": {"type": "adam", "beta_3": 0.1}}, "beta_3"),
                              ({"pruning": {"end_step": 500}}, "ends at step 500")):
        with pytest.raises(ConfigError, match=message):
            optimizer_of(**training).apply_pruning(trained, (X, Y))
    with pytest.raises(ConfigError, match="pair of arrays"):
        optimizer_of(pruning={}).apply_pruning(trained, X)
    with pytest.raises(ConfigError, match="int8 needs inputs"):
        optimizer_of(quantization={}).apply_quantization(trained, None)
    for section in ({"type": "during_training", "format": "float16"}, {"type": "during_training"}):
        with pytest.raises(ConfigError, match="training.quantization"):
            optimizer_of(quantization=section).apply_quantization(trained, X)


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd", "rmsprop", "adadelta"])
def test_optimizers_of_a_config(kind, trained):
    from nnlearn.keras_stages import make_keras_optimizer
    tool = optimizer_of(optimizer={"type": kind, "learning_rate": 0.01, "gradient_clipping_by_norm": 1.0, "weight_decay": 0.01})
    made = make_keras_optimizer(tool.config, None)
    assert type(made).__name__.lower() == kind and float(made.learning_rate) == pytest.approx(0.01)
    assert made.global_clipnorm == 1.0 and made.weight_decay == 0.01


def test_warmup_runs_under_tf_keras_and_begins_again():
    from nnlearn.builders import get_warmup_scheduler
    section = {"enabled": True, "type": "warmup_cosine", "warmup_epochs": 1, "min_lr": 1e-4, "max_lr": 0.1}
    scheduler = as_tf_keras(get_warmup_scheduler(section, epochs=3, framework="keras"))
    rates = []

    class Watch(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            rates.append(float(self.model.optimizer.learning_rate))

    model = net()
    model.compile(tf_keras.optimizers.SGD(0.5), "mse")
    targets = np.eye(4)[Y]
    for first in (0, 0, 2):
        model.fit(X, targets, batch_size=80, epochs=3, initial_epoch=first, verbose=0, callbacks=[scheduler, Watch()])
    once, again, late = rates[:12], rates[12:24], rates[24:]
    assert once == again and late == once[8:] and len(late) == 4
    assert once[0] == pytest.approx(1e-4) and max(once) == pytest.approx(0.1) and once[-1] < 0.02
    assert once[4] == pytest.approx(0.1)


def test_training_by_a_config():
    model = net()
    optimizer_of(epochs=12, optimizer={"type": "adam", "learning_rate": 0.01},
                 lr_schedule={"enabled": True, "type": "warmup_cosine", "warmup_epochs": 2}).train(model, (X, Y))
    assert share_right(model(X)) > 0.85 and float(model.optimizer.learning_rate) < 1e-3


# The explorer


def test_the_explorer_shows_what_tfmot_does():
    explorer = keras_sparsity_explorer()
    assert len(explorer.html) < 150_000
    curves = decode(explorer.html)["types"][""]["curves"]
    assert len(curves) == 24
    for (end, frequency), shown in curves.items():
        plan = tfmot.sparsity.keras.PolynomialDecay(0.3, 0.8, 0, int(end), frequency=int(frequency))
        zeros = dict.fromkeys(range(1), 0.0)
        for step in range(1, 97):
            asks, share = plan(step)
            zeros[step] = float(share) if asks else zeros[step - 1]
        for step, share in zip(*shown["in the mask"]):
            assert share == pytest.approx(zeros[round(step)], abs=0.01), (end, frequency, step)


@pytest.mark.parametrize("training, place", [
    ({"loss": "mse"}, "training.loss"), ({"metric": "f1"}, "training.metric"),
    ({"quantization": {"max_drop": 1.0}}, "training.quantization.max_drop"),
    ({"quantization": {"exclude": ["head"]}}, "training.quantization.exclude"),
])
def test_keys_for_torch_only_are_refused(training, place):
    from nnlearn.config import read_config
    check_for_keras(read_config({"training": {"epochs": 2, "quantization": {}}}))
    with pytest.raises(ConfigError, match=f"{place}: has no effect on a Keras model"):
        check_for_keras(read_config({"training": training}))
