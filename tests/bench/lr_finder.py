"""CPU time of a step of a range test: nnlearn's finder, fastai's and torch-lr-finder's beside a bare training step, interleaved.

Run by `make bench` in an environment where all of them are installed; prints JSON, {name: [ratio to the bare loop, ...]}.
All train the same net on the same 1,408 rows of digits (Adam, batch 64, one thread, the same kind of loader) at rates from 1e-7 to
0.001, where nothing diverges. A ratio compares the slopes of the time from 50 to 250 steps; "whole sweeps" compares sweeps of 100
steps, so that copying and putting back count. The bare loop sets the rate and reads the loss, and is measured on both sides.
"""
import contextlib
import io
import json
import logging
import os
import sys
import time
import warnings

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TQDM_DISABLE"] = "1"
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from nnlearn.datasets import digits  # noqa: E402
from nnlearn.loaders import TensorLoader  # noqa: E402
from nnlearn.lr_finder import find_learning_rate  # noqa: E402

torch.set_num_threads(1)
DATA = digits()
X, Y = DATA.train_x[:1408].flatten(1), DATA.train_y[:1408]
CRITERION = nn.CrossEntropyLoss()
START, END = 1e-7, 1e-3


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
                         nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, 10))


def parts(make):
    model = make()
    return model, torch.optim.Adam(model.parameters(), lr=1e-3), DataLoader(TensorDataset(X, Y), batch_size=64, shuffle=True)


def bare_with(model, optimizer, loader, steps):
    batches = iter(loader)
    for k in range(steps):
        try:
            x, y = next(batches)
        except StopIteration:
            batches = iter(loader)
            x, y = next(batches)
        optimizer.param_groups[0]["lr"] = START * (END / START) ** (k / (steps - 1))
        optimizer.zero_grad()
        loss = CRITERION(model(x), y)
        loss.backward()
        optimizer.step()
        loss.item()


def bare(make, steps):
    bare_with(*parts(make), steps)


def in_memory(make):
    model = make()
    return model, torch.optim.Adam(model.parameters(), lr=1e-3), TensorLoader(X, Y, batch_size=64, shuffle=True)


def ours_with(model, optimizer, loader, steps):
    assert len(find_learning_rate(model, loader, CRITERION, optimizer, START, END, steps).losses) == steps


def ours(make, steps):
    ours_with(*parts(make), steps)


def bare_in_memory(make, steps):
    bare_with(*in_memory(make), steps)


def ours_in_memory(make, steps):
    ours_with(*in_memory(make), steps)


def torch_lr_finder(make, steps):
    from torch_lr_finder import LRFinder
    model, optimizer, loader = parts(make)
    optimizer.param_groups[0]["lr"] = START
    finder = LRFinder(model, optimizer, CRITERION, device="cpu")
    finder.range_test(loader, end_lr=END, num_iter=steps)
    finder.reset()


def fastai(make, steps):
    from fastai.basics import DataLoaders, Learner
    from fastai.callback.schedule import LRFinder
    from fastai.optimizer import OptimWrapper
    model, _, loader = parts(make)
    learner = Learner(DataLoaders(loader, loader), model, loss_func=CRITERION, lr=1e-3,
                      opt_func=lambda params, **ignored: OptimWrapper(params, torch.optim.Adam, lr=1e-3))
    with learner.no_logging(), learner.no_bar():
        learner.fit(-(-steps // 22), cbs=LRFinder(start_lr=START, end_lr=END, num_it=steps, stop_div=False))


FINDERS = {"nnlearn": (ours, bare), "nnlearn, TensorLoader": (ours_in_memory, bare_in_memory),
           "torch-lr-finder": (torch_lr_finder, bare), "fastai": (fastai, bare)}
NETS = {"MLP": small, "CNN": convolutions}


def seconds(run, make, steps):
    """CPU seconds of a sweep."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        start = time.process_time()
        run(make, steps)
        return time.process_time() - start


def slope(run, make, few=50, many=250):
    """CPU seconds of a step, set-up left out."""
    return (seconds(run, make, many) - seconds(run, make, few)) / (many - few)


def sweep(run, make):
    return seconds(run, make, 100)


def main(rounds, names):
    ratios = {f"{name}, {net}{what}": [] for net in NETS for name in names for what in ("", ", whole sweeps")}
    for net, make in NETS.items():
        for name in names:
            seconds(FINDERS[name][0], make, 30)  # imports and caches
        for _ in range(rounds):
            for name in names:
                finder, beside = FINDERS[name]
                for what, measure in (("", slope), (", whole sweeps", sweep)):
                    before, measured, after = (measure(run, make) for run in (beside, finder, beside))
                    ratios[f"{name}, {net}{what}"].append(2 * measured / (before + after))
    print(json.dumps({"ratios": ratios}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15, sys.argv[2:] or list(FINDERS))
