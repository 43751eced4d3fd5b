"""Two processes of one thread each beside one process of one thread: the same training, a step of some 50 ms of compute.

`distributed(row)` gives the rows of the table. It wants two idle cores; the runs are interleaved.
"""
import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from nnlearn.core import generator, seed_everything
from nnlearn.distributed import launch
from nnlearn.loaders import TensorLoader
from nnlearn.trainer import Trainer
from nnlearn.training import Callback

RUNS, STEPS = 5, 30


class Clock(Callback):
    """The milliseconds of each step after the first five."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def step_end(self, trainer) -> None:
        self.times.append(time.perf_counter())

    def median(self) -> float:
        """Of the steps after the first five."""
        return 1e3 * statistics.median(b - a for a, b in zip(self.times[5:], self.times[6:], strict=False))


def train() -> float:
    """Milliseconds of a step: a CNN of few parameters and much work, 64 images."""
    torch.set_num_threads(1)
    seed_everything(0)
    model = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                          nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    g, clock = generator(0), Clock()
    images, labels = torch.randn(64 * STEPS, 1, 28, 28, generator=g), torch.randint(0, 10, (64 * STEPS,), generator=g)
    trainer = Trainer(model, nn.CrossEntropyLoss(), torch.optim.AdamW(model.parameters()), device="cpu", callbacks=clock)
    trainer.fit(TensorLoader(images, labels, batch_size=64), verbose=0)
    return clock.median()


def distributed(row: Callable) -> list[dict]:
    """Milliseconds of a step of one process, and how many times as fast two are."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    ones, ratios = [], []
    for _ in range(RUNS):
        one, two = launch(train, 1)[0], max(launch(train, 2))
        ones.append(one)
        ratios.append(one / two)
    if before is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = before
    faster = row("two processes", "speed, step of a CNN", ratios, "x one process", 1.7)
    return [row("two processes", "a step of one process", ones, "ms", 1000),
            {**faster, "reach": "at least 1.7", "reached": statistics.median(ratios) >= 1.7}]


if __name__ == "__main__":
    from run import row as table_row

    for line in distributed(table_row):
        print(line)
