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
from nnlearn.data import TensorLoader
from nnlearn.training import Callback, Trainer

CRASH = Path(__file__).parent / "tools" / "crash.py"


def crash(*arguments):
    """What tests/tools/crash.py prints."""
    done = subprocess.run([sys.executable, str(CRASH), *map(str, arguments)], capture_output=True, text=True, timeout=900,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_stopped_run_ends_with_the_same_bits(tmp_path):
    results = crash(tmp_path / "runs", "resume")
    assert len(results) == 5
    for case, ends in results.items():
        assert len(ends["whole"]) == 64, ends["whole"]
        assert {name for name, end in ends.items() if end != ends["whole"]} == set(), case
    assert len({ends["whole"] for ends in results.values()}) == 5  # the cases differ from each other, so that the digest sees something


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
          "text": (lambda p: p.write_text("hello " * 200), "is cut off, or is no"),
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
    assert lines[0].startswith("refused:") and "No space left on device" in lines[0] and "what was there before is untouched" in lines[0]
    assert "MB are free there: make room" in lines[0]
    assert lines[1].startswith("left ['step-") and lines[1].endswith("[]"), lines[1]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file, and a folder is needed"):
        small(tmp_path / "file")
    with pytest.raises(CheckpointError, match="could not be written"):
        write_checkpoint(STATE, tmp_path / "file" / "a.pt")
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_checkpoint(tmp_path / "nothing.pt")


def test_what_cannot_be_loaded_safely_is_refused_when_it_is_saved(tmp_path):
    class Odd(Callback):
        saved = ("thing",)
        thing = {"a": [1, object()]}

    with pytest.raises(CheckpointError, match=r"state.callbacks\[0\].thing.a\[1\] is a object"):
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
    real = trainer._save_epoch
    trainer._save_epoch = lambda score: real(next(scores))
    trainer.fit(data(), epochs=4, verbose=0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "step-00000009.pt", "step-00000012.pt"]
    assert read_checkpoint(tmp_path / "best.pt")["counters"]["epoch"] == 2


def test_a_folder_of_another_run_is_not_written_over(tmp_path):
    small(tmp_path).fit(data(), verbose=0)
    with pytest.raises(ConfigError, match="holds checkpoints of an earlier run .step-00000003.pt.*resume=True"):
        small(tmp_path).fit(data(), verbose=0)
    trainer = small(tmp_path)
    trainer.fit(data(), epochs=1, verbose=0, resume=True)  # finished already
    assert len(trainer.history) == 1 and trainer.step == 3
    with pytest.raises(ConfigError, match="make the trainer with checkpoint_dir"):
        small().fit(data(), resume=True)


def test_left_over_temporary_files_go(tmp_path):
    (tmp_path / ".step-00000003.pt.123.tmp").write_bytes(b"half")
    CheckpointFolder(tmp_path)
    assert list(tmp_path.iterdir()) == []


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
