"""The same in Keras: training and compression. It comes with the extra `nnlearn[tensorflow]`."""
import importlib
import os
from importlib.util import find_spec
from typing import Any

from nnlearn.core import ConfigError
from nnlearn.measure import quiet_stderr

if find_spec("tensorflow") is None:
    raise ConfigError('TensorFlow is not installed. It comes with: pip install "nnlearn[tensorflow]".', place="import nnlearn.keras")


def load_tensorflow() -> Any:
    """TensorFlow, imported without what its C++ part prints meanwhile about the machine; Keras runs on it afterwards.

    Keras takes its backend when it is first imported: call this before. `ConfigError` when Keras runs on another one already.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with quiet_stderr():
        tensorflow = importlib.import_module("tensorflow")
        backend = importlib.import_module("keras").backend.backend()
    if backend != "tensorflow":
        raise ConfigError(f"Keras runs on {backend} in this process already. Restart the kernel and call this first.",
                          place="load_tensorflow")
    tensorflow.get_logger().setLevel("ERROR")
    return tensorflow
