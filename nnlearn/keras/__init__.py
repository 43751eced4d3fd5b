"""The same in Keras: training and compression. It comes with the extra `nnlearn[tensorflow]`."""
import importlib
import os
from importlib.util import find_spec
from typing import Any

from nnlearn.core import ConfigError

if find_spec("tensorflow") is None:
    raise ConfigError('TensorFlow is not installed. It comes with: pip install "nnlearn[tensorflow]".', place="import nnlearn.keras")


def load_tensorflow() -> Any:
    """TensorFlow, imported without what its C++ part prints meanwhile about the machine; Keras runs on it afterwards.

    Keras takes its backend when it is first imported: call this before. `ConfigError` when Keras runs on another one already.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        tensorflow = importlib.import_module("tensorflow")
        backend = importlib.import_module("keras").backend.backend()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
    if backend != "tensorflow":
        raise ConfigError(f"Keras runs on {backend} in this process already. Restart the kernel and call this first.",
                          place="load_tensorflow")
    return tensorflow
