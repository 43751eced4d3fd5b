"""What pruning makes of the small CNN on the 28x28 sample, one thread: speed, accuracy, bytes after gzip.

`pruning(row)` gives the rows of the table. The nets are trained afresh for each of the seeds; times are interleaved.
"""
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from nnlearn.core import seed_everything
from nnlearn.datasets import mnist_sample
from nnlearn.export import export_onnx
from nnlearn.layers import prune_structured
from nnlearn.loaders import TensorLoader
from nnlearn.measure import model_bytes
from nnlearn.models import small_cnn
from nnlearn.pruning import PolynomialSparsity, Pruner
from nnlearn.runtimes import OnnxModel
from nnlearn.trainer import Trainer

SEEDS = 3


def train(model: nn.Module, epochs: int, seed: int, callbacks=()) -> nn.Module:
    """So many epochs of AdamW over the 4,000 training images: 63 steps each."""
    data = mnist_sample()
    loader = TensorLoader(data.train_x, data.train_y, batch_size=64, shuffle=True, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)
    Trainer(model, nn.CrossEntropyLoss(), optimizer, device="cpu", callbacks=callbacks).fit(loader, epochs=epochs, verbose=0)
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """Percent of the 1,000 test images."""
    data = mnist_sample()
    right = [(model(x).argmax(1) == y).sum().item() for x, y in zip(data.test_x.split(100), data.test_y.split(100))]
    return 100 * sum(right) / len(data.test_y)


@torch.no_grad()
def speeds(models: dict[str, Callable], inputs: torch.Tensor, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of a forward pass of each model in each round, interleaved, another one first in each round."""
    times: dict[str, list[float]] = {name: [] for name in models}
    calls, names = max(1, 250 // len(inputs)), list(models)
    for round_ in range(rounds + 2):  # the first two warm up
        for name in names[round_ % len(names):] + names[:round_ % len(names)]:
            models[name](inputs)
            begin = time.process_time()
            for _ in range(calls):
                models[name](inputs)
            if round_ > 1:
                times[name].append((time.process_time() - begin) / calls)
    return times


def in_onnx_runtime(models: dict[str, nn.Module], folder: str) -> dict[str, Callable]:
    """The same nets, exported and run by ONNX Runtime on one thread."""
    paths = {name: Path(folder, f"{k}.onnx") for k, name in enumerate(models)}
    for name, path in paths.items():
        export_onnx(models[name], mnist_sample().test_x[:2], path)
    return {name: OnnxModel(path, threads=1) for name, path in paths.items()}


def made(seed: int) -> dict[str, nn.Module]:
    """The dense net, and what 90 % zeros and half the channels make of it after fine-tuning (5 epochs each)."""
    seed_everything(seed)
    dense = train(small_cnn((32, 64)), 5, seed)
    schedule = PolynomialSparsity(0.3, 0.9, end_step=200, frequency=10)
    sparse = train(copy.deepcopy(dense), 5, seed, [Pruner(schedule, scope="global")])
    half = train(prune_structured(dense, mnist_sample().test_x[:2], 0.5), 5, seed)
    return {"dense": dense, "90 % zeros": sparse, "half the channels": half}


def pruning(row: Callable[..., dict], rounds: int = 60) -> list[dict]:
    """Half the channels: speed and points lost; 90 % zeros: bytes after gzip, points lost and speed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        nets = [made(seed) for seed in range(SEEDS)]
        lost = {name: [accuracy(n["dense"]) - accuracy(n[name]) for n in nets] for name in ("90 % zeros", "half the channels")}
        size = [model_bytes(n["90 % zeros"]).gzip / model_bytes(n["dense"]).gzip for n in nets]
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            exported = in_onnx_runtime(nets[0], folder)
            compiled = {name: torch.compile(net) for name, net in nets[0].items()}
            for what, models, batch in [("eager", nets[0], 32), ("eager", nets[0], 128), ("torch.compile", compiled, 32),
                                        ("ONNX Runtime", exported, 32)]:
                times = speeds(models, mnist_sample().test_x[:batch], rounds)
                faster = [a / b for a, b in zip(times["dense"], times["half the channels"])]
                made_row = row("half the channels", f"speed, {what}, batch of {batch}", faster, "x dense", 2.5)
                rows.append({**made_row, "reach": "at least 2.5", "reached": statistics.median(faster) >= 2.5})
                same = [a / b for a, b in zip(times["dense"], times["90 % zeros"])]
                same_row = row("90 % zeros", f"speed, {what}, batch of {batch}", same, "x dense", 1.1)
                rows.append({**same_row, "reach": "no faster: below 1.1"})
    finally:
        torch.set_num_threads(threads)
    return [*rows, row("half the channels", "accuracy lost", lost["half the channels"], "points", 1.0),
            row("90 % zeros", "accuracy lost", lost["90 % zeros"], "points", 1.0), row("90 % zeros", "gzip", size, "x dense", 0.25)]


if __name__ == "__main__":
    from run import row as table_row

    for line in pruning(table_row):
        print(line)
