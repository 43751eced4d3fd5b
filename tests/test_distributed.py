"""Several processes do what one does: weights, metrics, files, decisions; and what happens when one of them dies."""
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cloudpickle
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset

from nnlearn.checkpoints import CheckpointError, read_checkpoint
from nnlearn.core import ConfigError, seed_everything
from nnlearn.criteria import CompositeLoss
from nnlearn.distributed import (
    WorkerError,
    all_reduce_gradients,
    is_main,
    launch,
    load_sharded,
    rank,
    save_sharded,
    world_size,
)
from nnlearn.loaders import TensorLoader
from nnlearn.trainer import NonFiniteLoss, Trainer
from nnlearn.training import Callback, EarlyStopping

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the processes do not have this file
ROWS = 101


def rows(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(ROWS, 8, generator=g).to(dtype), torch.randint(0, 3, (ROWS,), generator=g)
    y[::7] = -100
    return x, y


def net(dtype=torch.float64, dropout=0.0):
    seed_everything(1)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 3)).to(dtype)


def loader(kind="tensor", dtype=torch.float64, batch_size=12):
    x, y = rows(dtype)
    if kind == "tensor":
        return TensorLoader(x, y, batch_size=batch_size, shuffle=True, seed=3)
    if kind == "list":
        return [(x[i:i + 10], y[i:i + 10]) for i in range(0, ROWS, 10)]
    if kind == "sampler":  # of the user's own; each process has full batches
        sampler = DistributedSampler(range(ROWS), world_size(), rank(), seed=4)
        return DataLoader(TensorDataset(x, y), 12 // world_size(), sampler=sampler)
    return DataLoader(TensorDataset(x, y), batch_size, shuffle=True, generator=torch.Generator().manual_seed(5),
                      num_workers=int(kind == "workers"))


def share_wrong(outputs, targets):
    return (outputs.argmax(1) != targets).double().mean()


def weights_of(model):
    return torch.cat([(p.full_tensor() if hasattr(p, "full_tensor") else p).detach().flatten() for p in model.parameters()])


def fit(kind="tensor", dtype=torch.float64, wrap=None, criterion=None, epochs=3, batch_size=12, **options):
    model = net(dtype)
    whole = model
    if wrap == "ddp" and world_size() > 1:
        whole = nn.parallel.DistributedDataParallel(model)
    if wrap == "shard" and world_size() > 1:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
        for layer in (model[0], model[3], model):
            fully_shard(layer, mesh=init_device_mesh("cpu", (world_size(),)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    criterion = criterion or nn.CrossEntropyLoss()
    metrics = {"accuracy": "accuracy", "f1": "f1", "wrong": share_wrong}
    trainer = Trainer(whole, criterion, optimizer, device="cpu", metrics=metrics, **options)
    x, y = rows(dtype)
    validation = DataLoader(TensorDataset(x, y.clamp(min=0)), 16)
    trainer.fit(loader(kind, dtype, batch_size), validation, epochs=epochs, verbose=0)
    evaluated = trainer.evaluate(validation)
    return {"weights": weights_of(model), "history": trainer.history.rows, "evaluated": evaluated, "steps": trainer.step,
            "keys": list(trainer.state_dict()["model"])}


CASES = {
    "plain": {}, "shuffled by torch": {"kind": "torch"}, "with workers": {"kind": "workers"},
    "a divided sampler": {"kind": "sampler"}, "accumulated and clipped": {"kind": "list", "accumulate": 4, "clip_norm": 0.05},
    "one row left": {"batch_size": 20}, "clipped by value": {"clip_value": 0.01},
    "class weights": {"criterion": nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64))},
    "a sum": {"criterion": nn.CrossEntropyLoss(reduction="sum"), "clip_norm": 1.0}, "DDP": {"wrap": "ddp"},
    "DDP, accumulated and clipped": {"wrap": "ddp", "kind": "torch", "accumulate": 4, "clip_norm": 0.05},
    "sharded": {"wrap": "shard", "clip_norm": 0.5}, "sharded, accumulated": {"wrap": "shard", "kind": "list", "accumulate": 4},
    "bfloat16": {"dtype": torch.float32, "use_amp": True, "amp_dtype": torch.bfloat16}}


def fit_all():
    return {name: fit(**options) for name, options in CASES.items()}


@pytest.fixture(scope="module")
def single():
    return fit_all()


@pytest.fixture(scope="module")
def several():
    """The same by two and by three processes."""
    return {processes: launch(fit_all, processes, timeout=100) for processes in (2, 3)}


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_several_processes_train_as_one_does(single, several, name, processes):
    one, all_of_them = single[name], [process[name] for process in several[processes]]
    near = 5e-3 if name == "bfloat16" else 1e-9
    for got in all_of_them:
        assert torch.equal(got["weights"], all_of_them[0]["weights"]) and got["history"] == all_of_them[0]["history"]
        assert torch.allclose(got["weights"], one["weights"], rtol=0, atol=near) and got["steps"] == one["steps"]
        assert got["keys"] == one["keys"]
        for row, own in zip(got["history"], one["history"], strict=True):
            if name != "bfloat16":
                assert {k: v for k, v in row.items() if k != "seconds"} == \
                    pytest.approx({k: v for k, v in own.items() if k != "seconds"}, rel=1e-9)


def evaluate_all():
    x, y = rows()
    y = y.clamp(min=0)
    model = net()
    trainer = Trainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1), device="cpu",
                      metrics={"accuracy": "accuracy", "wrong": share_wrong, "f1": "f1"})
    sampled = DataLoader(TensorDataset(x, y), 16, sampler=DistributedSampler(range(ROWS), world_size(), rank(), shuffle=False))
    plain = [DataLoader(TensorDataset(x, y), size) for size in (16, 60, 101)]
    listed = [(x[:50], y[:50]), (x[50:51], y[50:51]), (x[51:], y[51:])]
    return [trainer.evaluate(one) for one in (sampled, *plain, listed, TensorLoader(x, y, batch_size=16))], \
        trainer.predict(TensorLoader(x, y))


def test_an_evaluation_is_that_of_one_process_to_the_last_bit():
    (own, outputs), three = evaluate_all(), launch(evaluate_all, 3)
    for evaluated, predicted in three:
        assert evaluated == own and torch.equal(predicted, outputs)


# ---- processes

def who(extra):
    print("I am", rank())
    return rank(), world_size(), is_main(), extra


def test_launch_returns_by_rank_and_shows_what_rank_0_prints(capfd):
    assert launch(who, 3, {"a": 1}) == [(r, 3, r == 0, {"a": 1}) for r in range(3)]
    assert capfd.readouterr().out == "I am 0\n"
    assert (rank(), world_size(), is_main()) == (0, 1, True)


def dies(how, which):
    import torch.distributed as dist
    dist.barrier()
    if rank() == which:
        if how == "raises":
            raise KeyError("the cause")
        if how == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "exits":
            os._exit(7)
        time.sleep(60)
    all_reduce_gradients([nn.Parameter(torch.ones(1))])
    dist.barrier()


@pytest.mark.parametrize("how, message, code", [
    ("raises", "process 1 of 3 raised KeyError: 'the cause'", 1), ("is killed", "process 1 of 3 was killed by signal 9 (SIGKILL)", -9),
    ("exits", "process 1 of 3 ended with status 7", 7)])
def test_the_process_that_fails_is_named_and_none_is_left(how, message, code):
    began = time.monotonic()
    with pytest.raises(WorkerError) as failed:
        launch(dies, 3, how, 1)
    assert str(failed.value).startswith(message) and (failed.value.rank, failed.value.exit_code) == (1, code)
    assert time.monotonic() - began < 30
    children = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True).stdout
    assert "nnlearn.workers" not in children


def test_a_process_that_hangs_is_given_up():
    began = time.monotonic()
    with pytest.raises(WorkerError) as failed:
        launch(dies, 2, "hangs", 1, timeout=2)
    assert failed.value.rank == 0 and time.monotonic() - began < 30


def test_workers_end_with_the_one_who_started_them(tmp_path):
    code = ("import os, time, pathlib\nfrom nnlearn.distributed import launch\n"
            f"def sleep():\n    pathlib.Path(r'{tmp_path}', str(os.getpid())).touch()\n    time.sleep(60)\nlaunch(sleep, 2)\n")
    parent = subprocess.Popen([sys.executable, "-c", code])
    end = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    for pid in (int(path.name) for path in tmp_path.iterdir()):
        while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert not Path(f"/proc/{pid}").exists()


def test_what_cannot_be_sent_is_refused():
    with pytest.raises(ConfigError, match="launch.fn: the function or an argument cannot be sent"):
        launch(print, 1, threading.Lock())


def used_by_some():
    shared, mine, nobody = (nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(3))
    (shared * (rank() + 1)).sum().backward()
    if rank() == 1:
        mine.sum().backward()
    all_reduce_gradients([shared, mine, nobody], average=False)
    found = shared.grad.tolist(), mine.grad.tolist(), nobody.grad
    all_reduce_gradients(iter([shared, mine]))
    return (*found, shared.grad.tolist())


def test_gradients_that_some_do_not_have():
    assert launch(used_by_some, 2) == [([3.0, 3.0], [1.0, 1.0], None, [3.0, 3.0])] * 2


# ---- one decision for all

class At(Callback):
    """Does something in one process after a step."""

    def __init__(self, step, act, who=1):
        self.step, self.act, self.who = step, act, who

    def step_end(self, trainer):
        if trainer.step == self.step and rank() == self.who:
            self.act(trainer)


class Poison(Callback):
    """Makes the weights of one process infinite at a step."""

    def loss_ready(self, trainer):
        if trainer.step == 5 and rank() == 1:
            trainer.loss = trainer.loss * float("nan")


def press():
    "Ctrl-C; a process that was started in the background ignores it unless told otherwise."
    os.kill(os.getpid(), signal.SIGINT)


def decide(folder, what):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    model = net(torch.float32, dropout=0.3)
    callbacks = {"nan": Poison(), "interrupt": At(5, lambda t: press()),
                 "stop": At(3, lambda t: setattr(t, "should_stop", True)), "early": EarlyStopping(patience=1, min_delta=10.0),
                 "nothing": At(0, print)}[what.split()[0]]
    trainer = Trainer(model, nn.CrossEntropyLoss(), torch.optim.AdamW(model.parameters(), lr=0.01), device="cpu", metrics="accuracy",
                      checkpoint_dir=folder, checkpoint_every=3, callbacks=callbacks)
    x, y = rows(torch.float32)
    try:
        trainer.fit(loader("torch", torch.float32), TensorLoader(x, y, batch_size=30), epochs=4, verbose=0, resume="again" in what)
    except NonFiniteLoss as error:
        return str(error), trainer.step
    rows_of = [dict(row, seconds=0) for row in trainer.history.rows]
    return weights_of(model), trainer.step, len(rows_of), rows_of


def decide_all(folder):
    return {what: decide(f"{folder}/{what.split()[0]}", what) for what in ("nan", "stop", "early", "interrupt")} | \
        {"resumed": decide(f"{folder}/interrupt", "nothing again"), "at once": decide(f"{folder}/once", "nothing")}


def test_all_stop_at_the_same_step_and_go_on_with_the_same_bits(tmp_path):
    first, second = launch(decide_all, 2, tmp_path, timeout=60)
    assert first["nan"][1] == second["nan"][1] == 5
    assert "in another process" in first["nan"][0] and "not finite in batch 6" in second["nan"][0]
    for what, steps, epochs in (("stop", 9, 1), ("early", 18, 2)):
        assert first[what][1:3] == second[what][1:3] == (steps, epochs)
        assert torch.equal(first[what][0], second[what][0])
    assert first["interrupt"][1] == second["interrupt"][1] == 6 and first["interrupt"][2] == 0
    for one in (first, second):
        assert torch.equal(one["resumed"][0], one["at once"][0]) and one["resumed"][1:] == one["at once"][1:]
    assert sorted(path.name for path in (tmp_path / "once").iterdir()) == ["best.pt", "step-00000033.pt", "step-00000036.pt"]


def two_checkpoints(folder, resume=False, epochs=2):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seed_everything(0)
    model = net()
    trainer = Trainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), device="cpu",
                      metrics={"accuracy": "accuracy", "wrong": share_wrong}, checkpoint_dir=folder, checkpoint_every=4,
                      callbacks=At(0 if resume else 13, lambda t: press(), who=0))
    trainer.fit(loader(), loader("list"), epochs=epochs, verbose=0, resume=resume)
    return weights_of(model), [dict(row, seconds=0) for row in trainer.history.rows]


@pytest.mark.parametrize("first, then", [(2, 1), (1, 2), (2, 3)])
def test_another_number_of_processes_reads_a_checkpoint_or_says_why_not(tmp_path, first, then):
    def run(n, *args):
        return two_checkpoints(*args) if n == 1 else launch(two_checkpoints, n, *args)[0]

    run(first, tmp_path / "a", False, 3)  # interrupted in the middle of epoch 2
    with pytest.raises((CheckpointError, WorkerError), match=f"saved with processes {first}, and this trainer has {then}"):
        run(then, tmp_path / "a", True, 3)
    weights, history = run(then, tmp_path / "a", "approximate", 3)
    at_once, own_history = two_checkpoints(tmp_path / "b", resume="approximate", epochs=3)
    assert torch.allclose(weights, at_once, rtol=0, atol=1e-12)
    for row, own in zip(history, own_history, strict=True):
        assert row == pytest.approx(own, rel=1e-9)


def shard(folder):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    def make(**options):
        model = net()
        for layer in (model[0], model[3], model):
            fully_shard(layer, mesh=init_device_mesh("cpu", (world_size(),)))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
        return Trainer(model, nn.CrossEntropyLoss(), optimizer, device="cpu", metrics="accuracy", clip_norm=0.5, **options)

    errors = []
    for options in ({"checkpoint_dir": folder}, {"use_amp": True, "amp_dtype": torch.float16}):
        try:
            make(**options)
        except ConfigError as error:
            errors.append(str(error))
    at_once = make()
    at_once.fit(loader(), epochs=3, verbose=0)
    first = make()
    first.fit(loader(), epochs=2, verbose=0)
    save_sharded(first, folder)
    try:
        save_sharded(first, folder)
    except ConfigError as error:
        errors.append(str(error))
    second = make()
    load_sharded(second, folder)
    second.fit(loader(), epochs=3, verbose=0, resume=True)
    rows_ = [[dict(row, seconds=0) for row in t.history.rows] for t in (at_once, second)]
    return torch.equal(weights_of(at_once.model), weights_of(second.model)), rows_[0] == rows_[1], errors


def test_a_sharded_trainer_is_saved_in_parts_and_goes_on(tmp_path):
    for same, history, errors in launch(shard, 2, tmp_path / "parts"):
        assert same and history
        assert "save_sharded" in errors[0] and "bfloat16" in errors[1] and "is there already" in errors[2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts"]


# ---- what is refused, and loaders that divide themselves

class Stream(IterableDataset):
    def __init__(self, count=10, is_sharded=False):
        self.count = count
        if is_sharded:
            self.is_sharded = True

    def __iter__(self):
        x, y = rows()
        own = range(rank(), self.count, world_size()) if hasattr(self, "is_sharded") else range(self.count)
        return iter([(x[i], y[i].clamp(min=0)) for i in own])


def refusals():
    x, y = rows()
    data, found = TensorDataset(x, y), {}
    loaders = {"stream": DataLoader(Stream(), 4), "iterator": iter(loader("list")), "generator": (b for b in loader("list")),
               "no batches": DataLoader(data, batch_size=None), "other world": DataLoader(data, 4, sampler=DistributedSampler(data, 5, 1))}
    for name, one in loaders.items():
        try:
            model = net()
            Trainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1), device="cpu").fit(one, verbose=0)
        except ConfigError as error:
            found[name] = str(error)
    sparse = nn.Embedding(4, 3, sparse=True)
    for name, model, criterion in (("parts", net(), CompositeLoss({"cross_entropy": {}, "huber": {}})),
                                   ("sparse", sparse, nn.CrossEntropyLoss())):
        try:
            Trainer(model, criterion, torch.optim.SGD(model.parameters(), lr=0.1), device="cpu")
        except ConfigError as error:
            found[name] = str(error)
    return found


def test_what_several_processes_cannot_do_is_refused_in_words():
    for found in launch(refusals, 2):
        assert "train_loader: an IterableDataset cannot be divided among 2 processes" in found["stream"]
        assert "cannot be divided among 2 processes; pass a DataLoader" in found["iterator"]
        assert found["generator"].startswith("train_loader")
        assert "batch_size=None" in found["no batches"] and "is for 5 processes, and there are 2" in found["other world"]
        assert found["parts"].startswith("criterion") and found["sparse"].startswith("model") and "sparse=False" in found["sparse"]


def stream(count):
    model = net()
    trainer = Trainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1), device="cpu", metrics="accuracy")
    rows_of = DataLoader(Stream(count, is_sharded=True), 2)
    trainer.fit(rows_of, epochs=2, verbose=0)
    return weights_of(model), trainer.step, trainer.evaluate(rows_of)


def test_a_loader_that_divides_itself_may_end_earlier_in_one_process():
    first, second = launch(stream, 2, 9)  # five rows and four: three batches and two
    assert torch.equal(first[0], second[0]) and first[1] == second[1] == 6 and first[2] == second[2]
    model = net()
    assert not torch.equal(first[0], weights_of(model))


def dropout_masks():
    seed_everything(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.5), nn.Linear(64, 3)).double()
    seen = []
    model[1].register_forward_hook(lambda module, inputs, output: seen.append((output == 0).clone()) if module.training else None)
    x, y = rows()
    trainer = Trainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1), device="cpu", seed=3)
    trainer.fit([(x[:20], y[:20])], verbose=0)
    return seen[0]


def test_dropout_differs_between_processes():
    first, second = launch(dropout_masks, 2)
    assert (first != second).double().mean() > 0.3


# ---- torchrun

SCRIPT = '''
import os, random, signal, sys, threading, time
import torch
from torch import nn
from nnlearn.core import seed_everything
from nnlearn.distributed import is_main
from nnlearn.loaders import TensorLoader
from nnlearn.trainer import Trainer
from nnlearn.training import Callback

class Slow(Callback):
    def step_end(self, trainer):
        time.sleep(0.02)

if os.environ.get("RANK") == os.environ.get("VICTIM") and not os.path.exists("died"):
    def die():
        open("died", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Timer(float(os.environ["AFTER"]), die).start()
seed_everything(0)
g = torch.Generator().manual_seed(0)
x, y = torch.randn(203, 16, generator=g), torch.randint(0, 3, (203,), generator=g)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 3))
trainer = Trainer(model, nn.CrossEntropyLoss(), torch.optim.AdamW(model.parameters(), lr=0.01), device="cpu", metrics="accuracy",
                  checkpoint_dir="files", checkpoint_every=3, callbacks=Slow())
trainer.fit(TensorLoader(x, y, batch_size=16, shuffle=True, seed=1), TensorLoader(x, y, batch_size=32), epochs=6, verbose=0, resume=True)
'''


def torchrun(folder, restarts, **variables):
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
               f"--max-restarts={restarts}", "script.py"]
    return subprocess.run(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", **variables}, capture_output=True, text=True,
                          timeout=120)


def final_state(folder):
    return read_checkpoint(max((folder / "files").glob("step-*.pt")))


def test_a_worker_that_is_killed_ends_the_run_soon_and_says_so(tmp_path):
    began = time.monotonic()
    done = torchrun(tmp_path, 0, VICTIM="1", AFTER="0.3")
    assert time.monotonic() - began < 45 and done.returncode != 0 and "exitcode: -9" in done.stderr.replace("exitcode  :", "exitcode:")
    assert "LostProcess" in done.stderr or "SIGTERM" in done.stderr


def test_kills_at_random_moments_leave_no_trace(tmp_path):
    """As many as the variable KILLS says, one unless told: no hang, no damaged file, the same bits."""
    import random
    calm = tmp_path / "calm"
    calm.mkdir()
    assert torchrun(calm, 0, VICTIM="none", AFTER="0").returncode == 0
    own, draw = final_state(calm), random.Random(0)
    for kill in range(int(os.environ.get("KILLS", "1"))):
        folder = tmp_path / str(kill)
        folder.mkdir()
        began = time.monotonic()
        done = torchrun(folder, 2, VICTIM=str(draw.randrange(2)), AFTER=str(draw.uniform(0.0, 2.0)))
        took = time.monotonic() - began
        assert done.returncode == 0, done.stderr[-3000:]
        print(kill, (folder / "died").exists(), f"{took:.1f} s", flush=True)
        assert took < 60 and (folder / "died").exists()
        for path in (folder / "files").glob("*.pt"):
            read_checkpoint(path)
        found = final_state(folder)
        assert all(torch.equal(own["model"][key], found["model"][key]) for key in own["model"])
        assert [dict(row, seconds=0) for row in found["history"]] == [dict(row, seconds=0) for row in own["history"]]
