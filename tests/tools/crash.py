"""Trainings that are stopped, killed and taken up again in new processes (forked from this one, which saves the imports).

`python tests/tools/crash.py FOLDER kill COUNT` kills runs at random moments; `... resume` stops them at chosen ones.
Both print one JSON line: what each finished run ended with, as a digest of weights, optimizer state and history.
"""
import contextlib
import faulthandler
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from nnlearn.core import seed_everything
from nnlearn.datasets import digits
from nnlearn.loaders import TensorLoader
from nnlearn.schedules import CosineDecay, Warmup
from nnlearn.trainer import Trainer
from nnlearn.training import Callback, EarlyStopping

digits = functools.cache(digits)  # read once, before the first fork
PATIENCE = 600  # seconds; a run takes about one


class Noisy(Dataset):
    """Digits with noise from all three random generators, so that each of them matters."""

    def __init__(self, rows):
        data = digits()
        self.x, self.y = data.train_x[:rows], data.train_y[:rows]

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        noise = random.random() + np.random.random() + torch.rand(())
        return self.x[i] + 0.01 * noise, self.y[i]


def loaders(kind, rows=200):
    """A training and a validation loader."""
    data = digits()
    val = TensorLoader(data.test_x, data.test_y, batch_size=100, shuffle=True, seed=1)
    if kind == "tensors":
        return TensorLoader(data.train_x[:rows], data.train_y[:rows], batch_size=16, shuffle=True, seed=3), val
    if kind == "generator":
        return DataLoader(Noisy(rows + 8), 16, shuffle=True, generator=torch.Generator().manual_seed(8)), val  # 13 full batches
    return DataLoader(Noisy(rows), 16, shuffle=True, num_workers=int(kind[-1])), val


def make(folder, kind="workers 0", accumulate=2, every=None, schedule="step", amp=False, callbacks=()):
    """A trainer with dropout, momentum, a schedule, accumulation and metrics, and its loaders."""
    torch.set_num_threads(1)
    seed_everything(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = {"step": lambda: Warmup(CosineDecay(0.1, 30), 5).torch(optimizer),
                 "epoch": lambda: torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
                 "plateau": lambda: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)}[schedule]()
    stop = EarlyStopping(patience=50)
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, scheduler, device="cpu", metrics=["accuracy", "f1", _spread], seed=5,
                   accumulate=accumulate, callbacks=[stop, *callbacks], checkpoint_dir=folder, checkpoint_every=every,
                   use_amp=amp), *loaders(kind)


def _spread(outputs, targets):
    return outputs.std()


def digest(trainer):
    """Everything a finished run is, durations excepted, as one hash."""
    state = trainer.state_dict()
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.history.rows]
    sha = hashlib.sha256(json.dumps(rows).encode())

    def add(value):
        if isinstance(value, torch.Tensor):
            sha.update(value.detach().contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                sha.update(str(key).encode())
                add(value[key])
        elif isinstance(value, (list, tuple)):
            for item in value:
                add(item)
        else:
            sha.update(repr(value).encode())

    add({name: state[name] for name in ("model", "optimizer", "scheduler", "callbacks", "counters")})
    add(state["batches"]["now"])
    return sha.hexdigest()


class StopAt(Callback):
    """Ends the process without a word, as a power cut does, after some optimizer step."""

    def __init__(self, step, how="die"):
        self.at, self.how = step, how

    def batch_start(self, trainer):
        if trainer.step == self.at and trainer.stepper.waiting == 0:
            if self.how == "die":
                os._exit(3)
            os.kill(os.getpid(), signal.SIGINT)


def child(work):
    """Run `work` in a forked process with a process group of its own; gives its number and the file for its result."""
    result = tempfile.TemporaryFile()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)  # says where it hangs
        warnings.simplefilter("ignore")
        try:
            os.write(result.fileno(), work().encode())
            os._exit(0)
        except BaseException as error:
            os.write(result.fileno(), f"error {type(error).__name__}: {error}".encode())
            os._exit(1)
    return pid, result


def finish(pid, result):
    """What the process wrote, or an empty string when it ended early; loader workers that outlive it are killed."""
    os.waitpid(pid, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with result:
        result.seek(0)
        return result.read().decode()


def run(folder, epochs=4, resume=True, **options):
    trainer, train, val = make(folder, **options)
    trainer.fit(train, val, epochs=epochs, verbose=0, resume=resume)
    return digest(trainer)


def resume_all(folder):
    """For each combination: an uninterrupted run beside runs stopped in several ways."""
    results = {}
    cases = [dict(kind="workers 0"), dict(kind="workers 2", every=2), dict(kind="tensors", every=3, schedule="epoch"),
             dict(kind="generator", every=2, accumulate=1, schedule="plateau"), dict(kind="workers 0", every=4, amp=True)]
    for i, case in enumerate(cases):
        name = ", ".join(f"{k} {v}" for k, v in case.items())
        base = folder / str(i)
        whole = finish(*child(lambda: run(base / "whole", **case)))  # noqa: B023
        got = {"whole": whole}
        for epochs in (1, 2, 3):  # stopped after an epoch
            finish(*child(lambda: run(base / f"e{epochs}", epochs=epochs, **case)))  # noqa: B023
            got[f"after epoch {epochs}"] = finish(*child(lambda: run(base / f"e{epochs}", **case)))  # noqa: B023
        for step in (1, 5, 7, 12):  # died, or interrupted by Ctrl-C, in the middle of one
            for how in ("die", "ctrl-c"):
                where = base / f"{how}{step}"
                stopping = {**case, "callbacks": [StopAt(step, how)]}
                finish(*child(lambda: run(where, **stopping)))  # noqa: B023
                got[f"{how} at step {step}"] = finish(*child(lambda: run(where, **{**case, "callbacks": [StopAt(-1)]})))  # noqa: B023
        got["whole with a callback"] = finish(*child(lambda: run(base / "cb", **{**case, "callbacks": [StopAt(-1)]})))  # noqa: B023
        results[name] = got
    return results


def kill_all(folder, count, seed=0):
    """Kill runs at random moments until `count` kills happened; each run is resumed until it is finished."""
    rng = random.Random(seed)
    case = dict(kind="workers 0", every=1)
    start = time.perf_counter()
    whole = finish(*child(lambda: run(folder / "whole", **case)))
    duration = time.perf_counter() - start
    ends, kills, in_save, left = [], 0, 0, folder / "run0"
    while kills < count:
        pid, result = child(lambda: run(left, **case))  # noqa: B023
        time.sleep(rng.uniform(0.02, duration))
        os.kill(pid, signal.SIGKILL)
        said = finish(pid, result)
        if said:  # it was faster
            ends.append(said)
            left = folder / f"run{len(ends)}"
            continue
        kills += 1
        in_save += any(left.glob(".*.tmp")) if left.exists() else 0
    ends.append(finish(*child(lambda: run(left, **case))))
    return {"whole": whole, "ends": ends, "kills": kills, "in_save": in_save, "seconds": duration}


if __name__ == "__main__":
    import torchmetrics  # noqa: F401  (what the children need is loaded once, here)
    torch.set_num_threads(1)
    digits()
    make("/nonexistent")
    where = Path(sys.argv[1])
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    print(json.dumps(resume_all(where) if sys.argv[2] == "resume" else kill_all(where, int(sys.argv[3]))))
