"""int8 on a CPU: speed over float32 eager, bytes of the reloaded file, accuracy lost, and the kernels that really ran.

`quantization(row)` gives the rows of the table: the small net of part 3 on the 28x28 digits, one thread, calls of 32 images timed in
turns. Every row's value is one to stay below: time over eager (1/3 is "three times faster"), bytes over the float file, points lost,
and for the kernels the layers that do not run in integers.
"""
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnlearn.core import seed_everything
from nnlearn.datasets import mnist_sample
from nnlearn.export import export_onnx
from nnlearn.loaders import TensorLoader
from nnlearn.measure import model_bytes
from nnlearn.models import small_cnn
from nnlearn.programs import int8_kernels
from nnlearn.quantization import quantize_model
from nnlearn.runtimes import OnnxModel
from nnlearn.trainer import Trainer

EXPECTED = {"static": ["onednn::qconv_pointwise", "onednn::qlinear_pointwise"], "ONNX static": ["QGemm", "QLinearConv"]}


def trained(data: Any, seed: int = 0, epochs: int = 3) -> nn.Module:
    """The small net after some epochs, in eval mode."""
    seed_everything(seed)
    net = small_cnn()
    loader = TensorLoader(data.train_x, data.train_y, batch_size=64, shuffle=True, seed=seed)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, fused=True)
    Trainer(net, nn.CrossEntropyLoss(), optimizer, device="cpu").fit(loader, epochs=epochs, verbose=0)
    return net.eval()


@torch.no_grad()
def accuracy(model: Callable, data: Any) -> float:
    """Percent of the test images."""
    right = [(model(x).argmax(1) == y).sum().item() for x, y in zip(data.test_x.split(50), data.test_y.split(50))]
    return 100 * sum(right) / len(data.test_y)


@torch.no_grad()
def milliseconds(subjects: dict[str, Callable], example: torch.Tensor, rounds: int, calls: int = 10) -> dict[str, list[float]]:
    """Milliseconds a call of each subject in each round, in turns, the order turned in every other round."""
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for round_ in range(rounds + 1):  # the first warms up
        for name, run in (list(subjects.items()) if round_ % 2 else reversed(subjects.items())):
            begin = time.perf_counter()
            for _ in range(calls):
                run(example)
            if round_:
                times[name].append(1000 * (time.perf_counter() - begin) / calls)
    return times


def quantization(row: Callable[..., dict], rounds: int = 9) -> list[dict]:
    """Static int8 of the small net, by torch and by ONNX Runtime, over float32 eager (and over float32 in ONNX Runtime)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        data = mnist_sample()
        net, example = trained(data), data.test_x[:32].clone()
        with tempfile.TemporaryDirectory() as folder:
            export_onnx(net, example, Path(folder, "float.onnx"))
            subjects: dict[str, Any] = {"eager": net, "ONNX float32": OnnxModel(Path(folder, "float.onnx"))}
            subjects["static"] = quantize_model(net, "static", data.train_x[:512])
            subjects["ONNX static"] = quantize_model(net, "static", data.train_x[:512], backend="onnxruntime")
            times = milliseconds(subjects, example, rounds)
            whole = {"static": model_bytes(net).raw, "ONNX static": model_bytes(Path(folder, "float.onnx")).raw}
            before, rows = accuracy(net, data), []
            for name in EXPECTED:
                for base in ("eager", "ONNX float32"):
                    ratios = [a / b for a, b in zip(times[name], times[base])]
                    reach = 1 / 3 if base == "eager" else 1.0
                    rows.append(row("int8 time", f"{name} over {base}", ratios, f"x {base}", round(reach, 3)))
                rows.append(row("int8 bytes", name, [model_bytes(subjects[name].path).raw / whole[name]], "x float32 file", 0.30))
                rows.append(row("int8 accuracy lost", name, [before - accuracy(subjects[name], data)], "points", 0.5))
                missing = set(EXPECTED[name]) - set(int8_kernels(subjects[name], example))
                rows.append(row("float kernels left", name, [float(len(missing))], "kernels", 0))
            lazy = quantize_model(net, "static", data.train_x[:512], freeze=False)
            rows.append(row("integer kernels", "not frozen", [float(len(int8_kernels(lazy, example)))], "kernels", 0))
            return rows
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    def shown(what: str, subject: str, values: list[float], unit: str, reach: float) -> dict:
        """The row of run.py, without its rounding."""
        return {"what": what, "subject": subject, "median": statistics.median(values), "low": min(values), "high": max(values),
                "unit": unit, "reach": reach}

    for line in quantization(shown, *map(int, sys.argv[1:2])):
        print(f"{line['what']:<20} {line['subject']:<30} {line['median']:.3f} ({line['low']:.3f} to {line['high']:.3f}) {line['unit']}, "
              f"reach {line['reach']}")
