"""The CPU time of a 51x51 landscape over that of as many bare forward passes with loss, and over that of loss-landscapes.

`landscapes(row, peer)` gives the rows of the table; `peer` is a folder with the package loss-landscapes in it (made by
`pip install --target FOLDER --no-deps loss-landscapes==3.0.6`), None for a run without it.
"""
import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from nnlearn.datasets import digits
from nnlearn.slices import landscape, random_directions

STEPS = 51


def subjects(sizes: list[int], peer: Path | str | None, steps: int = STEPS) -> dict[str, Callable[[], object]]:
    """What is timed, by name: all compute the loss of the same net over all training rows at steps * steps points."""
    torch.manual_seed(0)
    layers = [part for a, b in zip(sizes, sizes[1:]) for part in (nn.Linear(a, b), nn.ReLU())][:-1]
    model, loss_fn, data = nn.Sequential(*layers).eval(), nn.CrossEntropyLoss(), digits()
    directions = random_directions(model, seed=0)

    def bare() -> list[torch.Tensor]:
        with torch.no_grad():
            return [loss_fn(model(data.train_x), data.train_y) for _ in range(steps * steps)]

    def ours() -> torch.Tensor:
        return landscape(model, loss_fn, data.train_x, data.train_y, directions, steps=steps)

    made: dict[str, Callable[[], object]] = {"bare": bare, "ours": ours}
    if peer is not None:
        sys.path.insert(0, str(peer))
        try:
            from loss_landscapes import random_plane  # type: ignore[import-not-found]
            from loss_landscapes.metrics import Loss  # type: ignore[import-not-found]
        finally:
            sys.path.remove(str(peer))
        metric, used_up = Loss(loss_fn, data.train_x, data.train_y), copy.deepcopy(model)  # it changes the model it is given
        made["peer"] = lambda: random_plane(used_up, metric, distance=10, steps=steps, normalization="filter")
    return made


def seconds(sizes: list[int], peer: Path | str | None = None, rounds: int = 9, steps: int = STEPS) -> dict[str, list[float]]:
    """CPU seconds of each subject in each round, one thread, interleaved, the order turned in every other round."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        made = subjects(sizes, peer, steps)
        times: dict[str, list[float]] = {name: [] for name in made}
        for round_ in range(rounds + 1):  # the first warms up
            for name, run in (list(made.items()) if round_ % 2 else reversed(made.items())):
                begin = time.process_time()
                run()
                if round_:
                    times[name].append(time.process_time() - begin)
        return times
    finally:
        torch.set_num_threads(threads)


def landscapes(row: Callable[..., dict], peer: Path | str | None = None, rounds: int = 9) -> list[dict]:
    """A landscape of 51x51 points of a digits MLP over all training rows, over bare passes and over loss-landscapes."""
    rows = []
    for sizes in ([64, 64, 64, 10], [64, 32, 10]):
        times, net = seconds(sizes, peer, rounds), "-".join(map(str, sizes))
        rows.append(row("landscape 51x51", net, [a / b for a, b in zip(times["ours"], times["bare"])], "x bare passes", 1.15))
        if peer is not None:
            ratios = [a / b for a, b in zip(times["ours"], times["peer"])]
            rows.append(row("landscape 51x51", f"{net}, over loss-landscapes", ratios, "x loss-landscapes", 1.0))
    return rows


if __name__ == "__main__":
    for shape in ([64, 64, 64, 10], [64, 32, 10]):
        measured = seconds(shape, *sys.argv[1:2])
        for subject in measured:
            ratio = [a / b for a, b in zip(measured[subject], measured["bare"])]
            print(f"{shape}  {subject:<5} {statistics.median(measured[subject]):.3f} s, {statistics.median(ratio):.3f}x bare "
                  f"({min(ratio):.3f} to {max(ratio):.3f})")
