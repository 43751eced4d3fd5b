"""Searches: what is recorded, what is refused, and studies that several processes share and kills do not harm."""
import csv
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nnlearn.core import ConfigError, generator, seed_everything
from nnlearn.loaders import TensorLoader
from nnlearn.studies import Beats, FileLock, FileWorkers, Study, open_storage, run_study
from nnlearn.trainer import Trainer
from nnlearn.training import Callback
from nnlearn.trials import Choice, IntUniform, LogUniform, SearchResults, Trial, TrialHandle, Uniform, flat, nested
from nnlearn.tuning import discriminative_groups, grid, overfit_check, random_search, search, sweep

SPACE = {"rate": LogUniform(1e-4, 1.0), "momentum": Uniform(0.0, 0.99)}
ROOT = Path(__file__).resolve().parents[1]


def valley(params):
    return (math.log10(params["rate"]) + 2) ** 2 + params["momentum"]


def test_ranges_keep_their_ends_and_scales():
    rng = generator(0, "numpy")
    for range_ in (LogUniform(1e-4, 1e-2), Uniform(-1.0, 3.0), IntUniform(2, 5)):
        values = [range_.sample(rng) for _ in range(300)]
        assert range_.low <= min(values) and max(values) <= range_.high
        assert range_.grid(3)[0] == range_.low and range_.grid(3)[-1] == range_.high
        assert range_.position(range_.low) == 0 and range_.position(range_.high) == 1
    assert {IntUniform(2, 5).sample(rng) for _ in range(100)} == {2, 3, 4, 5}
    below = np.mean([LogUniform(1e-4, 1e-2).sample(rng) < 1e-3 for _ in range(2000)])
    assert 0.45 < below < 0.55
    assert len(grid(SPACE | {"kind": Choice(["a", "b"]), "fixed": 7}, 3)) == 18


@pytest.mark.parametrize("make, word", [
    (lambda: LogUniform(0.0, 1.0), "LogUniform.low"), (lambda: Uniform(2.0, 1.0), "must be less than high"),
    (lambda: Choice([]), "Choice.options"), (lambda: Choice([1, True]), "different values"), (lambda: IntUniform(1.5, 3), "IntUniform.low"),
    (lambda: random_search(valley, SPACE, 0), "random_search.trials"), (lambda: random_search(valley, 3, 5), "random_search.space"),
    (lambda: search(valley, {"rate": 0.1}, 5, verbose=0), "nothing to search"),
    (lambda: search(valley, SPACE, 5, mode="lowest", verbose=0), "search.mode"),
    (lambda: random_search(lambda: 1, SPACE, 5), r"of \(params\) or \(params, trial\)"),
    (lambda: flat({"a.b": 1, "a": {"b": 2}}), "given twice"), (lambda: flat({3: 1}), "names as keys")])
def test_what_cannot_be_searched_is_refused(make, word):
    with pytest.raises(ConfigError, match=word):
        make()


@pytest.mark.parametrize("way", ["random", "optuna"])
def test_failed_trials_are_recorded_and_never_the_best(way, tmp_path):
    def objective(params):
        if params["rate"] > 0.1:
            raise FloatingPointError("diverged")
        if params["rate"] > 0.01:
            return math.nan
        return -math.inf if params["rate"] > 1e-3 else torch.tensor(params["rate"])

    results = random_search(objective, {"rate": LogUniform(1e-4, 1.0)}, 60) if way == "random" else \
        search(objective, {"rate": LogUniform(1e-4, 1.0)}, 60, tmp_path / "s.journal", verbose=0)
    errors = {t.error for t in results if t.state == "failed"}
    assert errors == {"FloatingPointError: diverged", "returned nan", "returned -inf"} and len(results) == 60
    assert results.best.params["rate"] <= 1e-3 and all(math.isnan(t.value) for t in results if t.state == "failed")
    results.to_csv(tmp_path / "t.csv")
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert len(rows) == 60 and {row["state"] for row in rows} == {"complete", "failed"}
    assert len(results.plot()) == 1


def test_an_objective_that_cannot_work_ends_the_search():
    calls = []

    def objective(params):
        calls.append(params)
        return params["rat"]

    for way in (random_search, lambda *a: search(*a, verbose=0)):
        with pytest.raises(ConfigError, match="first three trials failed: KeyError"):
            way(objective, SPACE, 20)
    assert len(calls) == 6


def test_spaces_may_hold_sections_and_trials_share_nothing():
    seen = []

    def objective(params):
        seen.append(params["model"]["widths"])
        params["model"]["widths"].append(0)
        params["optimizer"].clear()
        return float(len(seen))

    space = {"optimizer": {"learning_rate": LogUniform(1e-4, 1e-1), "type": "sgd"}, "model": {"widths": Choice([[8], [16, 8]])}}
    for results in (random_search(objective, space, 12), search(objective, space, 12, verbose=0)):
        assert all(widths[:-1] in ([8], [16, 8]) for widths in seen)
        assert results.best.params["optimizer"]["type"] == "sgd" and results.best.params["model"]["widths"] in ([8], [16, 8])
        seen.clear()
    assert nested(flat({"a": {"b": {"c": 1}}, "d": 2})) == {"a": {"b": {"c": 1}}, "d": 2}


def test_the_best_of_either_mode_and_the_ends_of_ranges():
    trials = [Trial(i, {"rate": r, "momentum": 0.5, "kind": "a"}, v) for i, (r, v) in enumerate([(1e-4, 3.0), (0.9, 1.0), (1e-2, 2.0)])]
    space = SPACE | {"kind": Choice(["a", "b"])}
    assert SearchResults(trials, space).best.number == 1 and SearchResults(trials, space, "max").best.number == 0
    assert SearchResults(trials, space).at_boundary() == {"rate": "high"}
    assert SearchResults(trials, space, "max").at_boundary() == {"rate": "low"}
    with pytest.raises(ConfigError, match="no trial is complete"):
        SearchResults([Trial(0, {"rate": 1.0}, 0.1, "stopped")], space).best


def data(rows=200):
    x = torch.randn(rows, 8, generator=generator(0))
    return TensorLoader(x, (x[:, 0] > 0).long(), batch_size=20, seed=0)


def trained(params, trial, epochs=6, monitor="val_loss"):
    seed_everything(0)
    net = nn.Linear(8, 2)
    trainer = Trainer(net, nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), lr=params["rate"]), device="cpu", metrics=["accuracy"],
                      callbacks=[trial.callback(monitor)])
    trainer.fit(data(), data(100), epochs=epochs, verbose=0)
    return trainer.history[monitor][-1]


def test_trials_without_prospects_are_stopped_by_the_callback():
    results = search(trained, {"rate": LogUniform(1e-5, 1.0)}, 20, verbose=0)
    states = [t.state for t in results]
    assert 3 <= states.count("stopped") and results.best.params["rate"] > 0.05
    assert all(len(t.reports) == 6 for t in results if t.state == "complete") and min(len(t.reports) for t in results) < 6
    whole = search(trained, {"rate": LogUniform(1e-5, 1.0)}, 8, early_stop=False, verbose=0)
    assert {t.state for t in whole} == {"complete"}


def test_what_is_monitored_must_be_what_is_searched_for():
    with pytest.raises(ConfigError, match="val_accuracy is best highest, and this search looks for the lowest"):
        trained({"rate": 0.1}, TrialHandle(0), monitor="val_accuracy")
    assert search(lambda p, t: trained(p, t, 2, "val_accuracy"), {"rate": LogUniform(1e-3, 1.0)}, 4, mode="max", verbose=0).best.value > 0.5


def test_ctrl_c_puts_the_trial_back_and_returns_the_results(tmp_path):
    calls = []

    def objective(params):
        calls.append(params["rate"])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return valley(params)

    with pytest.warns(UserWarning, match="interrupted"):
        results = search(objective, SPACE, 10, tmp_path / "s.journal", verbose=0)
    assert [t.state for t in results] == ["complete"] * 3 + ["lost"]
    results = search(objective, SPACE, 10, tmp_path / "s.journal", verbose=0)
    assert calls[3] == calls[4] and sum(t.state == "complete" for t in results) == 10 and len(calls) == 11
    with pytest.warns(UserWarning, match="interrupted after 3 of 10"):
        calls.clear()
        assert len(random_search(objective, SPACE, 10)) == 3


def test_ctrl_c_within_a_trainer_ends_the_search_and_not_only_the_trial(tmp_path):
    class Press(Callback):
        def step_end(self, trainer):
            signal.raise_signal(signal.SIGINT)

    def objective(params, trial):
        net = nn.Linear(8, 2)
        trainer = Trainer(net, nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), lr=params["rate"]), device="cpu",
                          callbacks=[trial.callback("val_loss"), *([Press()] if trial.number == 2 else [])])
        trainer.fit(data(), data(100), epochs=2, verbose=0)
        return 0.0  # better than all others, if a training that was broken off counted

    with pytest.warns(UserWarning, match="interrupted"):
        results = search(objective, SPACE, 6, tmp_path / "s.journal", verbose=0)
    assert [t.state for t in results] == ["complete", "complete", "lost"]


@pytest.mark.parametrize("ending", ["journal", "db"])
def test_a_study_that_goes_on_gives_what_one_in_a_piece_gives(ending, tmp_path):
    whole = search(valley, SPACE, 20, seed=3, verbose=0)
    for total in (5, 13, 20, 20):
        parts = search(valley, SPACE, total, tmp_path / f"s.{ending}", seed=3, verbose=0)
        assert len(parts) == total
    assert [t.params for t in parts] == [t.params for t in whole] and [t.value for t in parts] == [t.value for t in whole]
    other = search(valley, SPACE, 20, seed=4, verbose=0)
    assert [t.params for t in other] != [t.params for t in whole]


def test_a_study_is_continued_with_its_own_space_only(tmp_path):
    search(valley, SPACE, 2, tmp_path / "s.journal", verbose=0)
    for change, word in [({"rate": LogUniform(1e-5, 1.0)}, "was begun with rate LogUniform"), ({"more": 3}, "more missing")]:
        with pytest.raises(ConfigError, match=word):
            search(valley, SPACE | change, 4, tmp_path / "s.journal", verbose=0)
    with pytest.raises(ConfigError, match="mode"):
        search(valley, SPACE, 4, tmp_path / "s.journal", mode="max", verbose=0)
    assert len(search(valley, SPACE | {"more": 3}, 4, tmp_path / "s.journal", name="another", verbose=0)) == 4


@pytest.mark.parametrize("name, content, word", [
    ("notes.txt", "buy milk\n", "not a journal"), ("x.db", "no database at all" * 50, "cannot be opened"), ("", "", "is a folder")])
def test_a_storage_that_is_something_else_is_left_alone(name, content, word, tmp_path):
    if name:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=word):
        search(valley, SPACE, 2, tmp_path / name, verbose=0)
    assert not name or (tmp_path / name).read_text() == content
    with pytest.raises(ConfigError) as error:
        open_storage("nosuchdb://user:secret@host/base")
    assert "secret" not in str(error.value)


WORKER = """
import os, signal, sys, time
from nnlearn.tuning import LogUniform, search

def objective(params):
    with open(sys.argv[2], "a") as log:
        log.write(f"{os.getpid()} {params['rate']!r}\\n")
    time.sleep(float(sys.argv[3]))
    return abs(params["rate"] - 0.01)

search(objective, {"rate": LogUniform(1e-4, 1.0)}, int(sys.argv[4]), sys.argv[1], verbose=0)
"""


def start(tmp_path, storage, seconds, total):
    (tmp_path / "work.py").write_text(WORKER)
    return subprocess.Popen([sys.executable, tmp_path / "work.py", storage, tmp_path / "log.txt", str(seconds), str(total)],
                            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})


def wait_for(workers, condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end and any(worker.poll() is None for worker in workers)
        time.sleep(0.02)


def began(tmp_path):
    log = tmp_path / "log.txt"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.parametrize("ending, seconds, total", [("journal", 0.1, 30), ("db", 0.1, 20), ("journal", 0.0, 200)])
def test_two_processes_share_a_study_and_survive_kills(ending, seconds, total, tmp_path):
    storage = tmp_path / f"s.{ending}"
    workers = [start(tmp_path, storage, seconds, total) for _ in range(2)]
    wait_for(workers, lambda: len({pid for pid, _ in began(tmp_path)}) == 2 and len(began(tmp_path)) > 6)
    workers[0].send_signal(signal.SIGKILL)
    workers.append(start(tmp_path, storage, seconds, total))
    wait_for(workers, lambda: len(began(tmp_path)) > total // 2)
    workers[1].send_signal(signal.SIGKILL)
    assert workers[2].wait(180) == 0
    [worker.wait() for worker in workers]
    results = search(lambda params: 0.0, {"rate": LogUniform(1e-4, 1.0)}, total, storage, verbose=0)
    complete = [t for t in results if t.state == "complete"]
    assert len(complete) == total == len({t.params["rate"] for t in complete})
    lost = [t for t in results if t.state == "lost"]
    assert len(lost) <= 2 and all(t.error == "its process ended" for t in lost)
    assert {t.params["rate"] for t in lost if t.params} <= {t.params["rate"] for t in complete}  # each was run again
    counts = [rate for _, rate in began(tmp_path)]
    again = {rate for rate in counts if counts.count(rate) > 1}
    assert again <= {repr(t.params["rate"]) for t in lost if t.params}  # nothing else was run twice
    assert not any(t.state == "running" for t in results) and all(t.value == abs(t.params["rate"] - 0.01) for t in complete)


def test_a_trial_that_kills_its_processes_is_given_up(tmp_path):
    storage, calls = tmp_path / "s.journal", []
    for _ in range(3):  # three processes begin it and die
        study = Study(SPACE, storage)
        calls.append(study.values(study.claim(5)))
        study.close()
    results = search(valley, SPACE, 5, storage, verbose=0)
    assert calls[0] == calls[1] == calls[2]
    assert [t.state for t in results][:3] == ["lost", "lost", "failed"] and results[2].error == "its process ended, 3 times"
    assert len(results) == 7 and sum(t.state == "complete" for t in results) == 4


def test_no_more_trials_begin_than_there_are_to_be(tmp_path):
    one, two = Study(SPACE, tmp_path / "s.journal"), Study(SPACE, tmp_path / "s.journal")
    first, second = one.claim(2), two.claim(2)
    assert first.number == 0 and second.number == 1 and one.claim(2) is False
    one.finish(first, 0.5, "complete")
    assert one.claim(2) is False
    two.finish(second, 0.25, "complete")
    assert one.claim(2) is None and one.results().best.number == 1
    one.close()
    two.close()


def test_a_result_that_comes_too_late_does_not_count(tmp_path):
    one, two = Study(SPACE, tmp_path / "s.journal"), Study(SPACE, tmp_path / "s.journal")
    trial = one.claim(5)
    one.close()  # the others think it is dead
    again = two.claim(5)
    assert two.values(again) == one.values(trial)
    one.finish(trial, 0.5, "complete")
    two.finish(again, 0.25, "complete")
    assert [t.state for t in two.results()] == ["lost", "complete"]
    two.close()


def test_a_line_that_a_kill_cut_off_does_no_harm(tmp_path):
    path = tmp_path / "s.journal"
    search(valley, SPACE, 3, path, verbose=0)
    whole = path.read_bytes()
    for torn in (b'{"op_code":4,"wor', b'{"op_code":4}'):
        path.write_bytes(whole + torn)
        assert len(search(valley, SPACE, 5, path, verbose=0)) == 5
        assert len(search(valley, SPACE, 5, path, verbose=0)) == 5


HOLDER = """
import os, sys, time
from nnlearn.studies import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
child = os.fork()
if child == 0:
    time.sleep(60)
time.sleep(0.3)
print(child, flush=True)
time.sleep(60)
"""


def test_a_lock_ends_with_its_process_though_a_child_lives_on(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "lock"], stdout=subprocess.PIPE, text=True)
    child = int(holder.stdout.readline())
    other = FileLock(tmp_path / "lock")
    assert not other.acquire(wait=False)
    holder.kill()
    holder.wait()
    try:
        assert other.acquire(wait=False)
    finally:
        os.kill(child, signal.SIGKILL)
    with other:  # again, by the same thread
        assert not FileLock(tmp_path / "lock").acquire(wait=False)
    assert not FileLock(tmp_path / "lock").acquire(wait=False)
    other.release()
    workers = FileWorkers(tmp_path / "workers")
    assert workers.is_alive(workers.worker) and not workers.is_alive("") and not workers.is_alive("1-gone")
    workers.close()


def test_beats_tell_who_is_alive_without_comparing_clocks(tmp_path):
    studies = [Study(SPACE, tmp_path / "s.db", early_stop=False) for _ in range(2)]
    one, two = (Beats(study.study, every=0.1, patience=1.0) for study in studies)
    assert one.is_alive(two.worker)
    time.sleep(1.3)
    assert one.is_alive(two.worker)
    two.over.set()  # as a process that was killed: it beats no more, and says nothing
    two.thread.join()
    time.sleep(0.2)
    assert one.is_alive(two.worker)
    time.sleep(1.2)
    assert not one.is_alive(two.worker) and one.is_alive(one.worker)
    one.close()
    assert not two.is_alive(one.worker)
    for study in studies:
        study.close()


def test_without_a_lock_the_later_of_two_last_trials_gives_way(tmp_path):
    one, two = Study(SPACE, tmp_path / "s.db"), Study(SPACE, tmp_path / "s.db")
    a, b = one.study.ask(one.distributions), two.study.ask(two.distributions)
    assert not one._is_surplus(a, 1) and two._is_surplus(b, 1) and not two._is_surplus(b, 2)
    b.set_user_attr("surplus", True)
    two.study.tell(b, state=two.states.FAIL)
    one.finish(a, 1.0, "complete")
    assert len(one.results()) == 1 and one.claim(1) is None
    one.close()
    two.close()


def test_overfit_check_leaves_everything_as_it_was():
    net = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.95), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    state, loader = {name: value.clone() for name, value in net.state_dict().items()}, data()
    random, modes = torch.get_rng_state(), [m.training for m in net.modules()]
    result = overfit_check(net, loader, nn.CrossEntropyLoss(), optimizer, epochs=200)
    assert result.reached and result.losses[-1] < 0.01 < result.losses[0] and "work together" in str(result)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items()) and not optimizer.state
    assert torch.equal(random, torch.get_rng_state()) and modes == [m.training for m in net.modules()]
    assert all(p.grad is None for p in net.parameters()) and loader.epoch == 0


@pytest.mark.parametrize("fault", ["softmax", "frozen", "labels", "rate"])
def test_overfit_check_finds_faults(fault):
    x = torch.randn(32, 8, generator=generator(0))
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2), *([nn.Softmax(1)] if fault == "softmax" else []))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e6 if fault == "rate" else 0.1)
    net.requires_grad_(fault != "frozen")
    labels = (x[:, 0] > 0).long()
    if fault == "labels":
        x = torch.zeros_like(x)
    result = overfit_check(net, [(x, labels)], nn.CrossEntropyLoss(), optimizer, epochs=60)
    assert not result.reached and "look for a fault" in str(result)
    with pytest.raises(ConfigError, match="at least one batch"):
        overfit_check(net, [], nn.CrossEntropyLoss(), optimizer)


def test_sweeps_keep_sections_apart():
    base = {"optimizer": {"type": "adamw", "learning_rate": 0.1}, "schedule": {"type": "constant", "warmup_steps": 3}, "epochs": 2}
    configs = sweep(base, {"optimizer": {"learning_rate": [0.1, 0.2], "weight_decay": [0.0]}, "schedule.type": ["constant", "cosine"],
                           "epochs": [1, 2, 3]})
    assert len(configs) == 12 and len({repr(config) for config in configs}) == 12
    assert configs[0] == {"optimizer": {"type": "adamw", "learning_rate": 0.1, "weight_decay": 0.0},
                          "schedule": {"type": "constant", "warmup_steps": 3}, "epochs": 1}
    assert base["optimizer"] == {"type": "adamw", "learning_rate": 0.1}
    for axes, word in [({"optimizer": {"warmup_steps": [1]}}, "belongs to the schedule"), ({"epochs": 3}, "expected a list"),
                       ({"optimiser": {"type": ["sgd"]}}, "Did you mean 'optimizer'"), ({"schedule.type": "cosine"}, "expected a list"),
                       ({"epoch": [1]}, "Did you mean 'epochs'")]:
        with pytest.raises(ConfigError, match=word):
            sweep(base, axes)


def test_rates_fall_towards_the_input():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 8), nn.Linear(8, 2))
    groups = discriminative_groups(net, 0.1, 0.5)
    assert [group["lr"] for group in groups] == [0.025, 0.05, 0.1] and len(groups[0]["params"]) == 4
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))
    net[0].requires_grad_(False)
    net[1].requires_grad_(False)
    assert [group["lr"] for group in discriminative_groups(net, 0.1, 0.5)] == [0.05, 0.1]  # the others keep their rates
    net[5].weight = net[4].weight
    assert sum(len(group["params"]) for group in discriminative_groups(net, 0.1)) == 3  # tied: once
    torch.optim.SGD(discriminative_groups(net, 0.1))
    with pytest.raises(ConfigError, match="no parameter requires a gradient"):
        discriminative_groups(net.requires_grad_(False), 0.1)


def test_run_study_shows_a_bar(tmp_path, capsys):
    study = Study(SPACE, tmp_path / "s.journal")
    run_study(study, valley, 3)
    study.close()
    assert "3/3" in capsys.readouterr().err


CONFIG = """
data: {name: digits, train_rows: 300}
model: {name: mlp, widths: [16]}
training:
  epochs: 2
  optimizer: {type: sgd, learning_rate: 0.1}
search:
  trials: 8
  space:
    training.optimizer.learning_rate: {log_uniform: [1.0e-4, 1.0]}
    training.optimizer.momentum: {uniform: [0.0, 0.95]}
    model.widths: {choice: [[8], [16, 16]]}
"""


def test_the_command_searches_with_two_processes_and_goes_on(tmp_path):
    from nnlearn.config import load_config
    from nnlearn.course.cli import main
    (tmp_path / "config.yaml").write_text(CONFIG)
    output = tmp_path / "out"
    assert main(["search", str(tmp_path / "config.yaml"), "--output", str(output), "--workers", "2"]) == 0
    rows = list(csv.DictReader((output / "trials.csv").open()))
    done = [row for row in rows if row["state"] in ("complete", "stopped")]
    assert len(done) == 8 and len({row["training.optimizer.learning_rate"] for row in rows}) == 8
    assert 1 <= len({row["worker"] for row in rows}) <= 2
    best = load_config(output / "best.yaml")
    assert best.training.optimizer.learning_rate > 1e-3 and best.data.train_rows == 300 and (output / "search.png").exists()
    (tmp_path / "config.yaml").write_text(CONFIG.replace("trials: 8", "trials: 10"))
    assert main(["search", str(tmp_path / "config.yaml"), "--output", str(output)]) == 0
    assert len(list(csv.DictReader((output / "trials.csv").open()))) == 10
    (tmp_path / "config.yaml").write_text(CONFIG.replace("epochs: 2", "epochs: 3"))
    assert main(["search", str(tmp_path / "config.yaml"), "--output", str(output)]) == 2  # another search


@pytest.mark.parametrize("old, new, word", [
    ("learning_rate: {log", "learning_rat: {log", "learning_rat"), ("log_uniform", "loguniform", "Did you mean 'log_uniform'"),
    ("[1.0e-4, 1.0]", "[1.0, 1.0e-4]", "must be less than high"), ("[1.0e-4, 1.0]", "[0.0, 1.0]", "space.training.optimizer.learning_rate"),
    ("trials: 8", "trials: 0", "search.trials"), ("trials: 8", "trial: 8", "Did you mean 'trials'"),
    ("[1.0e-4, 1.0]", "3", r"\[low, high\]"), ("[[8], [16, 16]]", "[[0]]", "model.widths"),
    ("trials: 8", "trials: 8\n  monitor: loss", "search.monitor"), ("search:", "serach:", "search"),
    ("trials: 8", "trials: 8\n  validation: 1.5", "search.validation"), ("trials: 8", "trials: [", "line [0-9]+"),
    ("trials: 8", "trials: 8\n  trials: 9", "duplicate key"),
    ("mlp", "mlq", "Did you mean 'mlp'"),
    ("[0.0, 0.95]", "[0.0, 1.5]", "momentum")])
def test_a_config_that_cannot_be_searched_is_refused_before_training(old, new, word, tmp_path):
    from nnlearn.config_search import load_search
    assert CONFIG.count(old) == 1
    (tmp_path / "config.yaml").write_text(CONFIG.replace(old, new))
    with pytest.raises(ConfigError, match=word):
        load_search(tmp_path / "config.yaml")


def test_the_example_can_be_searched():
    from nnlearn.config_search import load_search
    config = load_search(ROOT / "assets" / "configs" / "search.yaml")
    assert len(config.space) == 3 and config.mode == "min" and config.trials == 20


def test_the_command_replaces_a_process_that_was_killed(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG.replace("trials: 8", "trials: 16").replace("epochs: 2", "epochs: 60"))
    code = "import sys; from nnlearn.course.cli import main; sys.exit(main())"
    parent = subprocess.Popen([sys.executable, "-c", code, "search", "config.yaml", "--workers", "2"], cwd=tmp_path,
                              env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    workers = tmp_path / "searched" / "search.journal.workers"

    def others():
        return [int(p.name.split("-")[0]) for p in workers.glob("*") if int(p.name.split("-")[0]) != parent.pid]

    wait_for([parent], lambda: workers.exists() and len(others()) == 2)
    journal = tmp_path / "searched" / "search.journal"
    wait_for([parent], lambda: journal.read_text().count('"worker":') > 3)
    os.kill(others()[0], signal.SIGKILL)
    assert parent.wait(180) == 0
    rows = list(csv.DictReader((tmp_path / "searched" / "trials.csv").open()))
    assert sum(row["state"] in ("complete", "stopped") for row in rows) == 16 and len({row["worker"] for row in rows}) in (2, 3)
    assert not list(workers.glob("*"))
