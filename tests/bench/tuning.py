"""What a search costs beside Optuna alone: 200 trials of an objective that costs nothing, in memory, a journal and SQLite.
`python tests/bench/tuning.py [ROUNDS]`
"""
import sys
import tempfile
import time
from pathlib import Path

import optuna

from nnlearn.studies import open_storage
from nnlearn.trials import LogUniform, Uniform
from nnlearn.tuning import search

TRIALS = 200


def bowl(x, y):
    return (x - 0.1) ** 2 + y


def alone(storage):
    """Seconds of Optuna's own loop."""
    begin = time.perf_counter()
    study = optuna.create_study(storage=open_storage(storage)[0], sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(lambda trial: bowl(trial.suggest_float("x", 1e-4, 1, log=True), trial.suggest_float("y", 0, 1)), n_trials=TRIALS)
    return time.perf_counter() - begin


def ours(storage):
    """Seconds of `search`."""
    begin = time.perf_counter()
    search(lambda params: bowl(**params), {"x": LogUniform(1e-4, 1.0), "y": Uniform(0.0, 1.0)}, TRIALS, storage, verbose=0)
    return time.perf_counter() - begin


def tuning(row, rounds=7):
    """Rows of the table: ratios, paired and interleaved, after a round of warming up."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = []
    for name, ending in (("in memory", None), ("in a journal file", "journal"), ("in SQLite", "db")):
        ratios = []
        for round_ in range((min(rounds, 3) if ending == "db" else rounds) + 1):  # SQLite takes its time
            with tempfile.TemporaryDirectory() as folder:
                one, two, three = (ending and str(Path(folder, f"{i}.{ending}")) for i in range(3))
                before, measured, after = alone(one), ours(two), alone(three)
            if round_:
                ratios.append(2 * measured / (before + after))
        rows.append(row("200 trials", name, ratios, "x Optuna alone", 1.5))
    return rows


if __name__ == "__main__":
    for line in tuning(lambda *values: values, int(sys.argv[1]) if len(sys.argv) > 1 else 7):
        print(*line)
