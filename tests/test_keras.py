"""Keras on TensorFlow. Keras chooses its backend once in a process, and other tests run it on torch: these have their own processes."""
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from nnlearn.builders import deep_supervision_schedule_builder
from nnlearn.core import ConfigError
from nnlearn.course.explore import decode
from nnlearn.course.explorers import epsilon_explorer
from nnlearn.supervision import SUPERVISION, SupervisionSchedule
from nnlearn.tensor_weights import TENSOR_SUPERVISION, TensorSupervision

os.environ.setdefault("KERAS_BACKEND", "torch")
HERE = Path(__file__).parent
FILES = sorted(HERE.glob("tensorflow_*.py"))


def python(*arguments, **environment):
    env = {**os.environ, "PYTHONPATH": str(HERE.parent), "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    return subprocess.run([sys.executable, *arguments], cwd=HERE.parent, env=env, capture_output=True, text=True)


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_on_tensorflow(path, tmp_path):
    done = python("-m", "pytest", "-q", "-x", "--tb=short", f"--basetemp={tmp_path}/inner", str(path), KERAS_BACKEND="tensorflow")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_without_tensorflow_the_extra_is_named():
    code = ("import importlib.util as u, sys\n"
            "real = u.find_spec\n"
            "u.find_spec = lambda name, *rest: None if name == 'tensorflow' else real(name, *rest)\n"
            "try:\n"
            "    import nnlearn.keras.training\n"
            "except Exception as error:\n"
            "    print(type(error).__name__, error)\n"
            "from nnlearn.course.contents import COURSE\n"
            "print(COURSE['The same in Keras'][0].there)\n")
    said, there = python("-c", code).stdout.splitlines()
    assert said.startswith("ConfigError import nnlearn.keras: ") and 'pip install "nnlearn[tensorflow]"' in said
    assert there == "True"  # the lesson has been written, whether it can run here or not


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_keras_on_another_backend_is_said():
    code = ("import keras\nfrom nnlearn.keras import load_tensorflow\n"
            "try:\n    load_tensorflow()\nexcept Exception as error:\n    print(error)")
    said = python("-c", code, KERAS_BACKEND="torch").stdout
    assert "load_tensorflow: Keras runs on torch in this process already" in said


# ---- weights as tensors, on the backend that the other tests use


@pytest.mark.parametrize("name", list(SUPERVISION))
def test_tensor_weights_on_torch(name):
    for turned in (False, True):
        schedule = SupervisionSchedule(name, 5, invert_order=turned)
        tensors = deep_supervision_schedule_builder({"type": name}, 5, turned, framework="keras")
        for step in range(-3, 44):
            found = tensors(torch.tensor(step / 40, dtype=torch.float64))
            assert np.allclose(np.asarray(found), schedule(step / 40), atol=1e-7)


def test_tensor_weights_refuse_what_numbers_refuse():
    for config, said in (({"type": "step_wize"}, "step_wise"), ({"type": "step_wise", "config": {"treshold": 0.4}}, "threshold"),
                         ({"type": "step_wise", "config": {"threshold": 4}}, "from 0 to 1"), ({}, "missing key: type")):
        with pytest.raises(ConfigError, match=said):
            deep_supervision_schedule_builder(config, 5, framework="keras")
    with pytest.raises(ConfigError, match="framework"):
        deep_supervision_schedule_builder({"type": "step_wise"}, 5, framework="jax")


def test_a_schedule_of_one_s_own_needs_a_form_for_tensors():
    SUPERVISION.register("first", lambda p, n: np.eye(n)[0])
    with pytest.raises(ConfigError, match="'first' has no form for tensors"):
        TensorSupervision(SupervisionSchedule("first", 5))
    TENSOR_SUPERVISION.register("first", lambda p, n, ops: ops.cast(ops.arange(n) == 0, "float64"))
    weights = TensorSupervision(SupervisionSchedule("first", 5))(0.5)
    assert np.asarray(weights).tolist() == [1, 0, 0, 0, 0] and "float32" in str(weights.dtype)


def test_the_explorer_shows_one_step_of_each():
    explorer = epsilon_explorer()
    assert len(explorer.html) < 150_000
    curves = decode(explorer.html)["types"][""]["curves"]
    assert len(curves) == 32
    for (rule, eps, step), shown in curves.items():
        beta, epsilon = 0.9 if rule == "rmsprop" else 0.999, float(eps)
        for name, (place, length) in shown.items():
            gradient, correction = 10 ** np.asarray(place), np.sqrt(1 - beta ** int(step))
            root = correction * gradient
            if rule == "rmsprop":
                exact = gradient / (np.sqrt(root**2 + epsilon) if name == "Keras" else root + epsilon)
            else:
                exact = gradient * correction / (root + epsilon * (1 if name == "Keras" else correction))
            assert np.allclose(length, exact, rtol=0.03, atol=0.03), (rule, eps, step, name)
