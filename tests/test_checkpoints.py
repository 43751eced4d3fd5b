"""Checkpoints: runs that are stopped and killed, files that are damaged, disks that are full, loaders that cannot be replayed."""
import json
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nnlearn.checkpoints import (
    Batches,
    CheckpointError,
    CheckpointFolder,
    CheckpointWarning,
    NotExactlyResumable,
    check_replayable,
    plain,
    random_states,
    read_checkpoint,
    set_random_states,
    write_checkpoint,
)
from nnlearn.core import ConfigError
from nnlearn.loaders import TensorLoader
from nnlearn.metrics import LossTraits, Meter, metric_specs
from nnlearn.trainer import Trainer
from nnlearn.training import Callback, EarlyStopping

CRASH = Path(__file__).parent / "tools" / "crash.py"


def crash(*arguments):
    """What tests/tools/crash.py prints. Coverage stays out of it: it works in signal handlers and at the exit of every process."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, str(CRASH), *map(str, arguments)], capture_output=True, text=True, timeout=1800,
                          env={**env, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_stopped_run_ends_with_the_same_bits(tmp_path):
    results = crash(tmp_path / "runs", "resume")
    assert len(results) == 5
    for case, ends in results.items():
        assert len(ends["whole"]) == 64, ends["whole"]
        assert {name for name, end in ends.items() if end != ends["whole"]} == set(), case
    assert len({ends["whole"] for ends in results.values()}) == 5  # the cases differ from each other, so that the digest sees something


def test_a_training_loader_may_be_read_by_a_callback(tmp_path):
    """Evaluating the training data in the middle of an epoch leaves an exact resume exact."""
    class Reads(Callback):
        def __init__(self, loader, stop):
            self.loader, self.stop = loader, stop

        def step_end(self, trainer):
            if trainer.step % 3 == 1:
                trainer.evaluate(self.loader)
            if trainer.step == self.stop:
                trainer.interrupted = trainer.should_stop = True  # what Ctrl-C does

    def run(folder, stop=-1, resume=False):
        torch.manual_seed(7)
        model, loader = nn.Linear(3, 1), TensorLoader(x, y, batch_size=4, shuffle=True, seed=1)
        trainer = Trainer(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), device="cpu", checkpoint_dir=folder,
                          callbacks=[Reads(loader, stop)])
        trainer.fit(loader, epochs=3, verbose=0, resume=resume)
        return trainer.step, model.weight.tolist()

    x, y = torch.randn(12, 3), torch.randn(12, 1)
    whole = run(tmp_path / "whole")
    for stop in (1, 4, 5, 7):
        assert run(tmp_path / str(stop), stop)[0] == stop
        assert run(tmp_path / str(stop), resume=True) == whole == (9, whole[1])


def test_killed_at_fifty_random_moments(tmp_path):
    result = crash(tmp_path / "runs", "kill", 50)
    assert result["kills"] == 50 and len(result["whole"]) == 64
    assert result["in_save"] >= 1 and len(result["ends"]) >= 2
    assert set(result["ends"]) == {result["whole"]}


# ---- files

STATE = {"weights": torch.arange(6.0).reshape(2, 3), "step": 7, "name": "x", "list": [1, 2.5, None, (True, "a")]}


def test_a_checkpoint_is_a_torch_file_with_a_checksum(tmp_path):
    path = write_checkpoint(STATE, tmp_path / "a.pt")
    state = read_checkpoint(path)
    assert torch.equal(state["weights"], STATE["weights"]) and {**state, "weights": 0} == {**STATE, "weights": 0}
    assert torch.load(path, weights_only=True)["state"]["step"] == 7
    assert zipfile.ZipFile(path).testzip() is None and zipfile.ZipFile(path).comment.startswith(b"nnlearn checkpoint, sha256 ")


def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path):
    path = write_checkpoint(STATE, tmp_path / "a.pt")
    good = path.read_bytes()
    for at in [*range(0, len(good), 97), *range(len(good) - 100, len(good))]:
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1:])
        with pytest.raises(CheckpointError, match="damaged|cut off|not a checkpoint of"):
            read_checkpoint(path)
    for length in [*range(1, len(good), 211), len(good) - 1]:
        path.write_bytes(good[:length])
        with pytest.raises(CheckpointError, match="cut off"):
            read_checkpoint(path)
    path.write_bytes(good + b"x")
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


def foreign(path):
    torch.save({"state_dict": {"a": torch.ones(2)}, "epoch": 3}, path)


def future(path):
    import nnlearn.checkpoints as module
    now = module._VERSION
    try:
        module._VERSION = now + 1
        write_checkpoint(STATE, path)
    finally:
        module._VERSION = now


DAMAGE = {"empty": (lambda p: p.write_bytes(b""), "is empty"), "truncated": (lambda p: p.write_bytes(p.read_bytes()[:900]), "is cut off"),
          "flipped": (lambda p: p.write_bytes(p.read_bytes()[:700] + bytes([p.read_bytes()[700] ^ 1]) + p.read_bytes()[701:]), "damaged"),
          "foreign": (foreign, "not a checkpoint of a Trainer .it holds state_dict, epoch"),
          "future": (future, "version 2.*install a newer nnlearn"),
          "text": (lambda p: p.write_text("hello " * 200), "is cut off, or is not a"),
          "another trainer's": (lambda p: write_checkpoint({"a": 1}, p), "not the state of a Trainer")}


def small(folder=None, hidden=5, **arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 2))
    return Trainer(model, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters()), device="cpu", checkpoint_dir=folder, **arguments)


def data(rows=24, **options):
    g = torch.Generator().manual_seed(3)
    return TensorLoader(torch.randn(rows, 4, generator=g), torch.randint(0, 2, (rows,), generator=g), batch_size=8, **options)


def weights(trainer):
    return [p.detach().clone() for p in trainer.model.parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_last_good_one_used(kind, tmp_path):
    whole = small()
    whole.fit(data(shuffle=True, seed=1), epochs=4, verbose=0)
    damage, words = DAMAGE[kind]
    small(tmp_path).fit(data(shuffle=True, seed=1), epochs=3, verbose=0)
    newest, older = CheckpointFolder(tmp_path).paths()
    damage(newest)
    trainer = small(tmp_path)
    before = weights(trainer)
    with pytest.raises(CheckpointError, match=words):
        trainer.load(newest)
    assert same(weights(trainer), before) and trainer.history.rows == []
    if kind == "another trainer's":  # it is whole, so it is not passed over but refused by name
        with pytest.raises(CheckpointError, match=newest.name):
            trainer.fit(data(shuffle=True, seed=1), epochs=4, verbose=0, resume=True)
        return
    with pytest.warns(CheckpointWarning, match=words):
        trainer.fit(data(shuffle=True, seed=1), epochs=4, verbose=0, resume=True)
    assert same(weights(trainer), weights(whole)) and len(trainer.history) == 4
    for path in CheckpointFolder(tmp_path).paths():
        path.write_bytes(b"")
    with pytest.warns(CheckpointWarning), pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        small(tmp_path).fit(data(), epochs=9, verbose=0, resume=True)


@pytest.mark.parametrize("change, words", [
    (dict(hidden=6), "another model: '0.weight' is .5, 4. in it and .6, 4. here"),
    (dict(metrics=["accuracy"]), "saved with metrics"), (dict(accumulate=2), "saved with accumulate 1, and this trainer has 2"),
    (dict(callbacks=[Callback()]), "saved with callbacks")])
def test_a_state_of_another_trainer_is_refused_whole(change, words, tmp_path):
    first = small()
    first.fit(data(), verbose=0)
    first.save(tmp_path / "a.pt")
    other = small(**change)
    before = weights(other)
    with pytest.raises(CheckpointError, match=words):
        other.load(tmp_path / "a.pt")
    assert same(weights(other), before) and other.optimizer.state_dict()["state"] == {}


def test_a_state_that_fails_half_way_is_undone():
    first, other = small(), small()
    first.fit(data(), verbose=0)
    state = first.state_dict()
    state["optimizer"] = {**state["optimizer"], "param_groups": []}
    before = weights(other)
    with pytest.raises(CheckpointError, match="left as it was"):
        other.load_state_dict(state)
    assert same(weights(other), before) and other.epoch == 0


def test_save_and_load_go_on(tmp_path):
    whole, first, second = small(), small(), small()
    whole.fit(data(shuffle=True, seed=1), epochs=5, verbose=0)
    first.fit(data(shuffle=True, seed=1), epochs=2, verbose=0)
    second.load(first.save(tmp_path / "deep" / "a.pt"))
    second.fit(data(shuffle=True, seed=1), epochs=3, verbose=0)
    assert same(weights(second), weights(whole)) and second.history["loss"] == whole.history["loss"]
    assert second.pending is None and second.fit(data(), verbose=0)["epoch"] == [1, 2, 3, 4, 5, 6] and not second.resumed


def test_a_state_of_a_trainer_that_never_trained(tmp_path):
    first, second, third = small(), small(hidden=5), small()
    with torch.no_grad():
        first.model[0].weight.add_(1)
    second.load(first.save(tmp_path / "a.pt"))
    second.fit(data(), verbose=0)
    third.load_state_dict(first.state_dict())
    third.fit(data(), verbose=0)
    first.fit(data(), verbose=0)
    assert same(weights(first), weights(second)) and same(weights(first), weights(third))


def test_loading_a_state_adopts_none_of_its_tensors():
    first, second = small(), small()
    first.fit(data(), verbose=0)
    state = first.state_dict()
    kept = plain(state["optimizer"]["state"][0]["exp_avg"]).clone()
    second.load_state_dict(state)
    second.fit(data(), verbose=0)
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], kept)


FULL = """
import sys, torch
sys.path.insert(0, {tests!r})
from test_checkpoints import *
folder = Path(sys.argv[1])
trainer = small(folder / "run", hidden=3000, keep=2)   # about 150 KB a checkpoint with Adam's state
try:
    trainer.fit(data(), epochs=9, verbose=0)
except CheckpointError as error:
    print("refused:", error)
    left = CheckpointFolder(folder / "run").paths()
    print("left", [p.name for p in left], [read_checkpoint(p)["counters"]["epoch"] for p in left], list((folder / "run").glob(".*")))
"""


def test_a_full_disk_leaves_the_older_checkpoint_whole(tmp_path):
    code = FULL.format(tests=str(Path(__file__).parent))
    script = 'mount -t tmpfs -o size=420k tmpfs "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(["unshare", "-rm", "bash", "-c", script, "full", str(tmp_path), sys.executable, code], capture_output=True,
                          text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[0].startswith("refused:") and "No space left on device" in lines[0] and "the previous file is intact" in lines[0]
    assert "MB are free there: make room" in lines[0]
    assert lines[1].startswith("left ['step-") and lines[1].endswith("[]"), lines[1]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="expected a folder, and .* is a file"):
        small(tmp_path / "file")
    with pytest.raises(CheckpointError, match="could not be written"):
        write_checkpoint(STATE, tmp_path / "file" / "a.pt")
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_checkpoint(tmp_path / "nothing.pt")


def test_what_cannot_be_loaded_safely_is_refused_when_it_is_saved(tmp_path):
    class Odd(Callback):
        saved = ("thing",)
        thing = {"a": [1, object()]}

    with pytest.raises(CheckpointError, match=r"state.callbacks\[0\].thing.a\[1\]: expected tensors, .* got object"):
        small(tmp_path, callbacks=[Odd()]).fit(data(), verbose=0)
    state = plain({"n": np.float64(0.5), "array": np.arange(3), 3: np.int64(4), "flag": np.bool_(True)})
    assert state["n"] == 0.5 and type(state["n"]) is float and state["array"].tolist() == [0, 1, 2]
    assert state[3] == 4 and state["flag"] is True
    trainer = small(tmp_path / "np")
    trainer.optimizer.param_groups[0]["lr"] = np.float64(0.01)  # from a sweep with np.logspace
    trainer.fit(data(), verbose=0)
    assert read_checkpoint(CheckpointFolder(tmp_path / "np").paths()[0])["optimizer"]["param_groups"][0]["lr"] == 0.01


# ---- what stays

def test_the_newest_and_the_best_stay(tmp_path):
    class Scores(Callback):
        def epoch_end(self, trainer):
            names.append(sorted(p.name for p in tmp_path.iterdir()) if tmp_path.exists() else [])

    names = []
    trainer = small(tmp_path, keep=2, callbacks=[Scores()])
    scores = iter([3.0, 1.0, 2.0, 2.5])
    trainer.checkpointer.score = lambda trainer: next(scores)
    trainer.fit(data(), epochs=4, verbose=0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "step-00000009.pt", "step-00000012.pt"]
    assert read_checkpoint(tmp_path / "best.pt")["counters"]["epoch"] == 2


def test_a_folder_of_another_run_is_not_written_over(tmp_path):
    small(tmp_path).fit(data(), verbose=0)
    with pytest.raises(ConfigError, match="already contains checkpoints .step-00000003.pt.*resume=True"):
        small(tmp_path).fit(data(), verbose=0)
    trainer = small(tmp_path)
    trainer.fit(data(), epochs=1, verbose=0, resume=True)  # finished already
    assert len(trainer.history) == 1 and trainer.step == 3
    with pytest.raises(ConfigError, match="make the trainer with checkpoint_dir"):
        small().fit(data(), resume=True)


def test_going_back_to_an_older_state_needs_another_folder(tmp_path):
    trainer = small(tmp_path / "run")
    trainer.fit(data(), epochs=1, verbose=0)
    early = trainer.save(tmp_path / "early.pt")
    trainer.fit(data(), epochs=9, verbose=0)
    names = sorted(p.name for p in (tmp_path / "run").iterdir())
    again = small(tmp_path / "run")
    again.load(early)
    with pytest.raises(ConfigError, match="already contains checkpoints .step-00000030.pt"):
        again.fit(data(), epochs=3, verbose=0)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == names
    elsewhere = small(tmp_path / "other")
    elsewhere.load(early)
    assert len(elsewhere.fit(data(), epochs=3, verbose=0)) == 4


def test_a_file_just_written_is_never_the_one_that_goes(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=1)
    (tmp_path / "step-00000050.pt").write_bytes(b"damaged")
    folder.save({"a": 1}, 40)
    folder.save({"a": 2}, 45)
    assert [p.name for p in folder.paths()] == ["step-00000050.pt", "step-00000045.pt"]


@pytest.mark.parametrize("event", ["epoch_start", "batch_start", "loss_ready", "grads_ready", "step_end", "epoch_end"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_saving_from_a_callback_waits_for_the_steps_end(event, accumulate, tmp_path):
    class Save(Callback):
        def once(self, trainer):
            if trainer.epoch == 2 and trainer.batches.position in (0, 2) and not (tmp_path / "a.pt").exists():
                assert trainer.save(tmp_path / "a.pt") == tmp_path / "a.pt"

    setattr(Save, event, Save.once)

    def make(*callbacks):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.2), nn.Linear(5, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return Trainer(model, nn.CrossEntropyLoss(), optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=40),
                       device="cpu", accumulate=accumulate, callbacks=callbacks, seed=3)

    whole = make(Save())
    whole.fit(data(40, shuffle=True, seed=1), epochs=4, verbose=0)
    again = make(Save())
    again.load(tmp_path / "a.pt")
    again.fit(data(40, shuffle=True, seed=1), epochs=4 - len(again.history), verbose=0)
    assert same(weights(again), weights(whole)) and again.history["loss"] == whole.history["loss"]


def test_the_state_in_the_middle_of_a_step_is_refused():
    class Ask(Callback):
        def batch_start(self, trainer):
            trainer.state_dict()

    with pytest.raises(CheckpointError, match="not whole in the middle of a step"):
        small(callbacks=[Ask()]).fit(data(), verbose=0)


def test_the_best_survives_a_loss_that_is_nan(tmp_path):
    trainer = small(tmp_path)
    scores = iter([0.5, float("nan"), 0.9, 0.8])
    trainer.checkpointer.score = lambda trainer: next(scores)
    trainer.fit(data(), epochs=4, verbose=0)
    assert read_checkpoint(tmp_path / "best.pt")["counters"]["epoch"] == 1


class Stop(Callback):
    """Interrupts after a step of an epoch."""

    def __init__(self, epoch=2, step=1):
        self.at = epoch, step

    def step_end(self, trainer):
        if (trainer.epoch, trainer.batches.position) == self.at:
            trainer.interrupted = trainer.should_stop = True


def stopped_and_resumed(make, tmp_path, loader=lambda: data(40, shuffle=True, seed=1), epochs=4):
    """Weights and losses of an uninterrupted run, and of one that was stopped in the middle of its second epoch."""
    ends = []
    for folder, stop, resume in [("whole", Stop(99), False), ("cut", Stop(2, 2), False), ("cut", Stop(99), True)]:
        trainer = make(tmp_path / folder, stop)
        trainer.fit(loader(), data(), epochs=epochs, verbose=0, resume=resume)
        ends.append((weights(trainer), trainer.history["loss"]))
    assert len(ends[1][1]) == 1
    return ends[0], ends[2]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("rows", [40, 36])
def test_stopped_at_the_last_step_of_an_epoch(workers, rows, tmp_path):
    def loader():
        return DataLoader(pairs(rows), 8, shuffle=True, generator=torch.Generator().manual_seed(4), num_workers=workers)

    def make(folder, stop):
        stop.at = (stop.at[0], 5)
        return small(folder, callbacks=[stop])

    whole, resumed = stopped_and_resumed(make, tmp_path, loader)
    assert same(whole[0], resumed[0]) and whole[1] == resumed[1]


def test_saving_after_an_error_is_refused_or_whole(tmp_path):
    class Fails(Callback):
        at = "loss_ready"

        def loss_ready(self, trainer):
            if trainer.step == 2:
                raise KeyError("mine")

    trainer = small(callbacks=[Fails()])
    with pytest.raises(KeyError):
        trainer.fit(data(), verbose=0)
    with pytest.raises(CheckpointError, match="a step was broken off"):
        trainer.save(tmp_path / "a.pt")
    assert not (tmp_path / "a.pt").exists()
    other = small()
    other.fit(data(), verbose=0)
    with pytest.raises(ConfigError):
        other.evaluate([(torch.randn(2, 3), torch.tensor([0, 1]))])
    assert other.save(tmp_path / "b.pt").exists()


def test_an_evaluation_that_fails_in_a_callback_does_no_harm(tmp_path):
    class Tries(Callback):
        def epoch_end(self, trainer):
            with pytest.raises(ConfigError):
                trainer.evaluate([(torch.randn(2, 3), torch.tensor([0, 1]))])

        step_end = epoch_end

    plain, tried = small(), small(tmp_path, callbacks=[Tries()])
    plain.fit(data(), epochs=2, verbose=0)
    tried.fit(data(), epochs=2, verbose=0)
    assert same(weights(plain), weights(tried))


def test_two_saves_in_one_step(tmp_path):
    class Twice(Callback):
        def step_end(self, trainer):
            if trainer.step == 2:
                trainer.save(tmp_path / "a.pt")
                trainer.save(tmp_path / "b.pt")

    small(callbacks=[Twice()]).fit(data(), verbose=0)
    assert read_checkpoint(tmp_path / "a.pt")["counters"]["step"] == read_checkpoint(tmp_path / "b.pt")["counters"]["step"] == 2


@pytest.mark.parametrize("epoch, step", [(2, 2), (99, 99)])
def test_loaded_and_saved_again(epoch, step, tmp_path):
    whole, first, middle, last = (small(callbacks=[Stop(99)], metrics=["accuracy"]) for _ in range(4))
    torch.manual_seed(1)
    whole.fit(DataLoader(pairs(40), 8, shuffle=True), epochs=4, verbose=0)
    first.callbacks[0].at = (epoch, step)
    torch.manual_seed(1)
    first.fit(DataLoader(pairs(40), 8, shuffle=True), epochs=2, verbose=0)
    middle.load(first.save(tmp_path / "a.pt"))
    last.load(middle.save(tmp_path / "b.pt"))
    last.fit(DataLoader(pairs(40), 8, shuffle=True), epochs=4 - len(last.history), verbose=0)
    assert same(weights(whole), weights(last)) and whole.history["accuracy"] == last.history["accuracy"]


def test_metrics_made_of_metrics_resume(tmp_path):
    from torchmetrics.classification import MulticlassAccuracy

    def make(folder, stop):
        trainer = small(folder, callbacks=[stop], metrics={"wrong": 1 - MulticlassAccuracy(2, average="micro")})
        trainer.meter.every = 1
        return trainer

    ends = []
    for folder, stop, resume in [("whole", Stop(99), False), ("cut", Stop(2, 2), False), ("cut", Stop(99), True)]:
        trainer = make(tmp_path / folder, stop)
        trainer.fit(data(40, shuffle=True, seed=1), epochs=3, verbose=0, resume=resume)
        ends.append(trainer.history["wrong"])
    assert ends[0] == ends[2]


def test_weights_that_are_nan_are_never_saved(tmp_path):
    from nnlearn.trainer import NonFiniteLoss

    class Poison(Callback):
        def grads_ready(self, trainer):
            if trainer.step == 4:
                for p in trainer.model.parameters():
                    p.grad.fill_(float("nan"))

    trainer = small(tmp_path, checkpoint_every=1, callbacks=[Poison()])
    with pytest.raises(NonFiniteLoss, match="last good checkpoint is in"):
        trainer.fit(data(), epochs=3, verbose=0)
    path, state = CheckpointFolder(tmp_path).newest()
    assert path.name == "step-00000004.pt" and all(torch.isfinite(v).all() for v in state["model"].values())


def test_another_number_of_generators_is_named(tmp_path):
    small(tmp_path, callbacks=[Stop()]).fit(DataLoader(pairs(), 8, shuffle=True), epochs=2, verbose=0)

    def other():
        return DataLoader(pairs(), 8, shuffle=True, generator=torch.Generator())

    trainer = small(tmp_path, callbacks=[Stop(99)])
    before = weights(trainer)
    with pytest.raises(CheckpointError, match="held 0 random generators of its own, and this one holds 1"):
        trainer.fit(other(), epochs=2, verbose=0, resume=True)
    assert same(weights(trainer), before) and trainer.step == 0
    trainer.fit(other(), epochs=2, verbose=0, resume="approximate")
    assert len(trainer.history) == 2


def test_approximate_resume_with_another_batch_size_begins_the_epoch_again(tmp_path):
    rows = []

    def count(outputs, targets):
        rows.append(len(outputs))
        return 0.0

    def make(stop):
        return small(tmp_path, callbacks=[stop], metrics={"count": count})

    make(Stop()).fit(DataLoader(pairs(40), 8), epochs=3, verbose=0)
    trainer = make(Stop(99))
    trainer.fit(DataLoader(pairs(40), 4), epochs=3, verbose=0, resume="approximate")
    assert [r for r in rows if r > 8] == [40, 40, 40] and trainer.history["epoch"] == [1, 2, 3]  # the small ones are trials


def test_modes_and_frozen_parameters_come_back(tmp_path):
    class Freeze(Callback):
        def epoch_start(self, trainer):
            if trainer.epoch == 2:
                trainer.model[0].weight.requires_grad_(False)
                trainer.model[1].eval()

    def make(folder, stop):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 2))
        return Trainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), device="cpu", seed=2,
                       callbacks=[stop, Freeze()], checkpoint_dir=folder)

    whole, resumed = stopped_and_resumed(make, tmp_path)
    assert same(whole[0], resumed[0]) and whole[1] == resumed[1]


def test_load_and_then_resume_goes_on_from_what_was_loaded(tmp_path):
    trainer = small(tmp_path / "run")
    trainer.fit(data(), epochs=1, verbose=0)
    early = trainer.save(tmp_path / "early.pt")
    trainer.fit(data(), epochs=2, verbose=0)
    again = small(tmp_path / "other")
    again.load(early)
    again.fit(data(), epochs=3, verbose=0, resume=True)
    assert same(weights(again), weights(trainer))


def test_the_best_begins_anew_when_validation_is_added(tmp_path):
    small(tmp_path).fit(data(), epochs=2, verbose=0)
    trainer = small(tmp_path)
    trainer.checkpointer.best = -1.0
    trainer.fit(data(), data(), epochs=3, verbose=0, resume=True)
    assert read_checkpoint(tmp_path / "best.pt")["counters"]["epoch"] == 3


def test_early_stopping_does_not_restore_in_the_middle_of_an_epoch(tmp_path):

    def make(folder, stop):
        trainer = small(folder, callbacks=[stop, EarlyStopping(patience=50)])
        trainer.optimizer.param_groups[0]["lr"] = 0.05
        return trainer

    whole, resumed = stopped_and_resumed(make, tmp_path)
    assert same(whole[0], resumed[0]) and whole[1] == resumed[1]
    trainer = make(tmp_path / "x", Stop(3, 2))
    trainer.fit(data(40, shuffle=True, seed=1), data(), epochs=4, verbose=0)
    again = make(tmp_path / "y", Stop(99))
    again.load(trainer.save(tmp_path / "saved.pt"))
    again.fit(data(40, shuffle=True, seed=1), data(), epochs=2, verbose=0)
    assert again.history["loss"] == whole[1]


def test_a_criterion_with_parameters_is_part_of_the_state(tmp_path):
    class Tempered(nn.Module):
        def __init__(self):
            super().__init__()
            self.temperature = nn.Parameter(torch.ones(()))

        def forward(self, outputs, targets):
            return nn.functional.cross_entropy(outputs / self.temperature, targets)

    def make(folder, stop):
        torch.manual_seed(0)
        model, criterion = nn.Linear(4, 2), Tempered()
        optimizer = torch.optim.SGD([*model.parameters(), *criterion.parameters()], lr=0.3, momentum=0.9)
        return Trainer(model, criterion, optimizer, device="cpu", callbacks=[stop], checkpoint_dir=folder)

    whole, resumed = stopped_and_resumed(make, tmp_path)
    assert same(whole[0], resumed[0]) and whole[1] == resumed[1]


class Numbered(torch.utils.data.Sampler):
    """Orders by the number of the epoch, as DistributedSampler does."""

    def __init__(self, rows):
        self.rows, self.epoch = rows, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.rows

    def __iter__(self):
        return iter(torch.randperm(self.rows, generator=torch.Generator().manual_seed(self.epoch)).tolist())


class Wrapped(torch.utils.data.Dataset):
    """Holds another data set under a name of its own."""

    def __init__(self, inner):
        self.d = inner

    def __len__(self):
        return len(self.d)

    def __getitem__(self, i):
        return self.d[i]


class OwnNoise(torch.utils.data.Dataset):
    """Draws from generators of its own."""

    def __init__(self):
        import random
        self.inner = pairs(40)
        self.generators = None
        self.numpy, self.python, self.torch = np.random.default_rng(3), random.Random(3), torch.Generator().manual_seed(3)
        self.legacy = np.random.RandomState(3)

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, i):
        noise = self.numpy.random() + self.python.random() + float(torch.rand((), generator=self.torch)) + self.legacy.rand()
        return self.inner[i][0] + 0.1 * noise, self.inner[i][1]


@pytest.mark.parametrize("loader", [
    lambda: DataLoader(pairs(40), 8, sampler=Numbered(40)), lambda: DataLoader(OwnNoise(), 8, shuffle=True),
    lambda: DataLoader(torch.utils.data.Subset(OwnNoise(), range(36)), 8),
    lambda: DataLoader(torch.utils.data.ConcatDataset([OwnNoise(), Wrapped(OwnNoise())]), 16)])
@pytest.mark.parametrize("every", [None, 1])
def test_samplers_that_count_epochs_and_datasets_with_generators(loader, every, tmp_path):
    whole, resumed = stopped_and_resumed(lambda folder, stop: small(folder, callbacks=[stop], checkpoint_every=every), tmp_path, loader)
    assert same(whole[0], resumed[0]) and whole[1] == resumed[1]


def test_the_trainer_tells_samplers_the_epoch():
    sampler, seen = Numbered(24), []

    class See(Callback):
        def epoch_end(self, trainer):
            seen.append(sampler.epoch)

    small(callbacks=[See()]).fit(DataLoader(pairs(), 8, sampler=sampler), epochs=3, verbose=0)
    assert seen == [1, 2, 3]

    class Quiet(torch.utils.data.SequentialSampler):  # one that keeps the number to itself
        def set_epoch(self, epoch):
            told.append(epoch)

    told: list[int] = []
    small().fit(DataLoader(pairs(), 8, sampler=Quiet(pairs())), epochs=3, verbose=0)
    assert told == [1, 2, 3]


SCHEDULERS = {
    "sequential": lambda o, lr: lr.SequentialLR(o, [lr.LinearLR(o), lr.MultiStepLR(o, [2, 5])], [3]),
    "chained": lambda o, lr: lr.ChainedScheduler([lr.ConstantLR(o), lr.ExponentialLR(o, 0.9)]),
    "restarts": lambda o, lr: lr.CosineAnnealingWarmRestarts(o, 2), "cyclic": lambda o, lr: lr.CyclicLR(o, 0.01, 0.1, 3),
    "lambda": lambda o, lr: lr.LambdaLR(o, lambda e: 0.9**e), "multi step": lambda o, lr: lr.MultiStepLR(o, [1, 3]),
    "plateau": lambda o, lr: lr.ReduceLROnPlateau(o, patience=0), "polynomial": lambda o, lr: lr.PolynomialLR(o, 5)}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_resumes(name, tmp_path):
    def make(folder, stop):
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
        return Trainer(model, nn.CrossEntropyLoss(), optimizer, SCHEDULERS[name](optimizer, torch.optim.lr_scheduler), device="cpu",
                       callbacks=[stop], checkpoint_dir=folder)

    whole, resumed = stopped_and_resumed(make, tmp_path)
    assert same(whole[0], resumed[0]) and whole[1] == resumed[1]


def test_callbacks_with_another_state_are_refused_whole(tmp_path):
    class Old(Callback):
        saved = ("a",)
        a = 1

    first = small(callbacks=[Old()])
    first.fit(data(), verbose=0)
    path = first.save(tmp_path / "a.pt")
    Old.saved, Old.b = ("a", "b"), 2
    other = small(callbacks=[Old()])
    before = weights(other)
    with pytest.raises(CheckpointError, match="left as it was: KeyError: 'b'"):
        other.load(path)
    assert same(weights(other), before)


def test_a_failed_fit_after_load_loses_nothing(tmp_path):
    stopped = small(tmp_path / "run", callbacks=[Stop()])
    stopped.fit(data(40, shuffle=True, seed=1), epochs=3, verbose=0)
    path = stopped.save(tmp_path / "a.pt")
    whole = small(callbacks=[Stop(99)])
    whole.fit(data(40, shuffle=True, seed=1), epochs=3, verbose=0)
    again = small(callbacks=[Stop(99)])
    again.load(path)
    with pytest.raises((CheckpointError, ConfigError)):
        again.fit(data(80), verbose=0)
    again.fit(data(40, shuffle=True, seed=1), epochs=2, verbose=0)
    assert same(weights(again), weights(whole))


def test_a_loaded_state_may_go_on_approximately(tmp_path):
    first = small(callbacks=[Stop()])
    first.fit(DataLoader(pairs(40), 8), epochs=2, verbose=0)
    again = small(callbacks=[Stop(99)])
    again.load(first.save(tmp_path / "a.pt"))
    with pytest.raises(NotExactlyResumable):
        again.fit(one_by_one(), verbose=0)
    again.fit(one_by_one(), epochs=2, verbose=0, resume="approximate")
    assert len(again.history) == 2


def test_temporary_files_of_dead_processes_go_and_nothing_else(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ours, running = tmp_path / f".step-00000003.pt.{dead.pid}.tmp", tmp_path / f".step-00000004.pt.{os.getpid()}.tmp"
    for path in (ours, running, tmp_path / ".notes.tmp"):
        path.write_bytes(b"half")
    folder = CheckpointFolder(tmp_path)
    assert ours.exists()  # making a trainer deletes nothing
    folder.save({"a": 1}, 5)
    assert not ours.exists() and running.exists() and (tmp_path / ".notes.tmp").exists()


# ---- loaders

def pairs(rows=24):
    return TensorDataset(*data(rows).tensors)


def one_by_one():
    yield from data()


@pytest.mark.parametrize("loader, why", [
    (one_by_one, "generator.*is an iterator"), (lambda: iter([(1, 2)]), "is an iterator"),
    (lambda: DataLoader(pairs(), 8, num_workers=1, persistent_workers=True), "persistent workers")])
def test_loaders_that_cannot_be_replayed_are_refused_by_name(loader, why, tmp_path):
    with pytest.raises(NotExactlyResumable, match=f"train_loader .*{why}.*resume='approximate'"):
        small(tmp_path).fit(loader(), verbose=0, resume=True)
    with pytest.raises(NotExactlyResumable):
        check_replayable(loader())


def test_approximate_resume_takes_what_comes(tmp_path):
    with pytest.warns(CheckpointWarning, match="is an iterator"):
        small(tmp_path).fit(one_by_one(), epochs=1, verbose=0)
    trainer = small(tmp_path)
    trainer.fit(one_by_one(), epochs=2, verbose=0, resume="approximate")
    assert len(trainer.history) == 2 and trainer.step == 6


def test_another_batch_size_is_noticed(tmp_path):
    class Stop(Callback):
        def batch_start(self, trainer):
            trainer.interrupted = trainer.should_stop = trainer.step == 1

    small(tmp_path, callbacks=[Stop()]).fit(DataLoader(pairs(), 8), epochs=2, verbose=0)
    with pytest.raises(CheckpointError, match="3 batches an epoch.*has 6"):
        small(tmp_path, callbacks=[Stop()]).fit(DataLoader(pairs(), 4), epochs=2, verbose=0, resume=True)


def test_random_states_come_back():
    import random
    states = random_states()

    def draws():
        return random.random(), np.random.random(), float(torch.rand(()))

    first = draws()
    set_random_states(plain(states))
    assert draws() == first


def test_batches_count_and_go_on():
    loader = DataLoader(list(range(10)), 2, shuffle=True)
    batches = Batches(loader)
    taken = iter(batches)
    next(taken)
    next(taken)
    state = plain(batches.state_dict())
    rest = [b.tolist() for b in taken]
    again = Batches(DataLoader(list(range(10)), 2, shuffle=True))
    again.load_state_dict(state)
    assert [b.tolist() for b in again] == rest and state["position"] == 2


def test_a_quiet_run_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(tmp_path, checkpoint_every=2, metrics=["accuracy"]).fit(data(), data(), epochs=2, verbose=0)
        small(tmp_path, checkpoint_every=2, metrics=["accuracy"]).fit(data(), data(), epochs=3, verbose=0, resume=True)


@pytest.mark.parametrize("then, now, words", [
    (dict(clip_norm=1.0), dict(clip_norm=2.0), "clip_norm 1.0, and this trainer has 2.0"),
    (dict(clip_value=1.0), {}, "clip_value 1.0, and this trainer has None"),
    ({}, dict(use_amp=True), "use_amp False"),
    (dict(use_amp=True), dict(use_amp=True, amp_dtype=torch.float16), "amp_dtype"),
    (dict(schedule=1), dict(schedule=2), "scheduler .'step_size': 1"),
    (dict(batch_size=4), dict(batch_size=5), "gave batches of 4, and this one gives 5"),
    (dict(follows=6), dict(follows=12), "learning_rate 'OneCycle.*6"),
])
def test_a_run_with_other_settings_is_not_taken_up_silently(then, now, words, tmp_path):
    from nnlearn.builders import optimizer_builder
    from nnlearn.schedules import OneCycle

    def run(epochs, resume, batch_size=4, schedule=None, follows=None, **settings):
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        if follows:
            optimizer = optimizer_builder({"type": "sgd"}, OneCycle(0.1, follows), model.parameters())
        scheduler = schedule and torch.optim.lr_scheduler.StepLR(optimizer, schedule)
        loader = DataLoader(TensorDataset(torch.randn(12, 3), torch.randn(12, 1)), batch_size)
        return Trainer(model, nn.MSELoss(), optimizer, scheduler, device="cpu", checkpoint_dir=tmp_path, **settings).fit(
            loader, epochs=epochs, verbose=0, resume=resume)

    run(1, False, **then)
    with pytest.raises(CheckpointError, match=words):
        run(2, True, **now)
    assert len(run(2, True, **then)) == 2
    assert len(run(3, "approximate", **now)) == 3


def test_a_position_is_that_of_the_iteration_where_it_says_so():
    class Rows:
        "A loader whose iterations know where they stand, and which others may read meanwhile."

        def __init__(self):
            self.first, self.reads = 0, 0

        def __iter__(self):
            self.reads += 1
            first, self.first = self.first, 0
            return Reading(self, first)

        def __len__(self):
            return 4

        def state_dict(self):
            return {"at": 0, "reads": self.reads}

        def load_state_dict(self, state):
            self.first, self.reads = state["at"], state["reads"] - (state["at"] > 0)

    class Reading:
        def __init__(self, loader, at):
            self.loader, self.at = loader, at

        def __iter__(self):
            return self

        def __next__(self):
            if self.at == 4:
                raise StopIteration
            self.at += 1
            return self.at

        def state_dict(self):
            return {"at": self.at, "reads": self.loader.reads}

    batches = Batches(Rows())
    for got in batches:
        assert list(batches.loader) == [1, 2, 3, 4]  # an evaluation on the same loader
        if got == 2:
            break
    other = Batches(Rows())
    other.load_state_dict(batches.state_dict())
    assert list(other) == [3, 4] and list(other) == [1, 2, 3, 4] and other.loader.reads == 4


def test_checkpoints_of_older_meters_are_read():
    x, y = torch.eye(3), torch.tensor([0, 1, 1])
    new = Meter(metric_specs("accuracy"), LossTraits(nn.CrossEntropyLoss()))
    new.add(1.0, x, y)
    new.flush()
    new.add(4.0, x[:1], y[:1])
    state = new.state_dict()
    state["kept"] = [[4.0, *state["kept"][0]]]
    state["total"], state["count"] = 3.0, 3
    old = Meter(metric_specs("accuracy"), LossTraits(nn.CrossEntropyLoss()))
    old.load_state_dict(state)
    assert old.results() == new.results() == {"loss": pytest.approx(7 / 4), "accuracy": pytest.approx(3 / 4)}
