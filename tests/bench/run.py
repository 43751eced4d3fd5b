"""`make bench`: measure what the project promises, paired and interleaved; writes results/*.csv and results/README.md.

`python tests/bench/run.py [NAME ...]` runs some of the benchmarks; with none named, all of them.
"""
import csv
import importlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results"


def seconds(code: str) -> float:
    """Wall-clock seconds a new Python process takes for some code, measured inside it, start-up left out."""
    timed = f"import time\nstart = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)"
    done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def imports(rounds: int = 10) -> list[dict]:
    """The time of importing names of nnlearn over that of `import torch`, interleaved; a round of warming up first."""
    import nnlearn
    every = f"import nnlearn\nfor name in {sorted(nnlearn._WHERE)!r}: getattr(nnlearn, name)"
    lines = ["from nnlearn import Registry", "from nnlearn import Trainer"]
    subjects = {**{line: line for line in lines}, "every name at the top": every}
    pairs: dict[str, list[float]] = {name: [] for name in subjects}
    for round_ in range(rounds + 1):
        torch_time = seconds("import torch")
        for name, code in subjects.items():
            ratio = seconds(code) / torch_time
            if round_:
                pairs[name].append(ratio)
    return [row("import", name, ratios, "x import torch", 1.15) for name, ratios in pairs.items()]


def explorers(redraws: int = 30) -> list[dict]:
    """Milliseconds of one redraw of each explorer of the lessons, and the kilobytes it adds to a page."""
    from nnlearn.course import explorers
    from nnlearn.course.explore import explore

    made = {
        "one gradient step": explorers.gradient_step_explorer,
        "loss against residual": explorers.residual_explorer,
        "cross-entropy": explorers.cross_entropy_explorer,
        "a surface": explorers.surface_explorer,
        "a slice of a net": explorers.slice_explorer,
        "optimizers": explorers.optimizer_explorer,
        "validation": explorers.validation_explorer,
        "range test": explorers.lr_finder_explorer,
        "schedules": lambda: explore(explorers.schedule_types(), x_label="step", y_label="rate", alt="rates"),
        "memory traffic": explorers.traffic_explorer,
        "capacity": explorers.capacity_explorer,
        "sparsity": explorers.sparsity_explorer,
        "rounding": explorers.rounding_explorer,
        "clipping": explorers.clipping_explorer,
        "granularity": explorers.granularity_explorer,
        "temperature": explorers.temperature_explorer,
        "size on paper": explorers.size_explorer,
    }
    rows = []
    for name, make in made.items():
        explorer, times = make(), []
        for i in range(redraws):
            begin = time.perf_counter()
            redraw(explorer, i)
            times.append(1000 * (time.perf_counter() - begin))
        rows.append(row("explorer redraw", name, times, "ms", 100))
        rows.append(row("explorer on a page", name, [len(explorer.html) / 1024], "KB", 150))
    return rows


def redraw(explorer, i: int) -> None:
    """Draw one state of an explorer as its live form does."""
    from nnlearn.course.explore import _redraw
    number = i % len(explorer.kinds)
    values = {name: slider.values[i % len(slider.values)] for name, slider in explorer.kinds[number].sliders.items()}
    _redraw(explorer, number, values)


def peers() -> Path:
    """The Python of an environment with the other libraries, made the first time (about 1 GB with the CPU build of torch)."""
    place = ROOT / ".venv-bench"
    python = place / "bin" / "python"
    wanted = (HERE / "peers.txt").read_text() + (ROOT / "constraints.txt").read_text()
    stamp = place / "made-for.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        print("   setting up .venv-bench ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "-r", str(HERE / "peers.txt"), "-c", str(ROOT / "constraints.txt")], check=True)
        subprocess.run([*pip, "uninstall", "--quiet", "-y", "torchvision"], check=True)  # its build rarely fits the CPU build of torch
        stamp.write_text(wanted)
    return python


def beside_peers(script: str, *arguments: str) -> dict:
    """What a script of this folder prints (JSON) when the other libraries' environment runs it with nnlearn on its path."""
    done = subprocess.run([str(peers()), str(HERE / script), *arguments], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
    if done.returncode:
        raise RuntimeError(f"{script} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def trainer(rounds: int = 15) -> list[dict]:
    """CPU time of a training step over that of the bare loop with a DataLoader: Trainer, and six other libraries."""
    ratios = beside_peers("trainer.py", str(rounds))["ratios"]
    ours = statistics.median(ratios["Trainer"])
    rows = []
    for name, values in ratios.items():
        reach = {"Trainer": 1.10, "Trainer with its bar": 1.15, "Trainer, TensorLoader, fused": 0.60}.get(name)
        made = row("training step", name, values, "x bare loop", reach or 0.0)
        rows.append(made if reach else {**made, "reach": "Trainer ahead", "reached": ours < made["median"]})
    return rows


def lr_finder(rounds: int = 15) -> list[dict]:
    """CPU time of a step of a range test over that of a bare training step: nnlearn's finder, torch-lr-finder and fastai."""
    ratios = beside_peers("lr_finder.py", str(rounds))["ratios"]
    rows = []
    for name, values in ratios.items():
        made = row("range test", name, values, "x bare step", 1.10)
        if not name.startswith("nnlearn"):
            ours = statistics.median(ratios[f"nnlearn,{name.split(',', 1)[1]}"])
            made |= {"reach": "nnlearn ahead", "reached": ours < made["median"]}
        elif "whole" in name:
            made |= {"reach": 1.25, "reached": made["median"] <= 1.25}
        rows.append(made)
    return rows


def landscapes() -> list[dict]:
    """CPU time of a 51x51 landscape over that of as many bare forward passes with loss, and over loss-landscapes."""
    sys.path.insert(0, str(HERE))
    import landscapes as measured

    found = subprocess.run([str(peers()), "-c", "import loss_landscapes; print(loss_landscapes.__path__[0])"], capture_output=True,
                           text=True, check=True)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(found.stdout.strip(), Path(folder) / "loss_landscapes")
        return measured.landscapes(row, folder)


def shrinking(name: str) -> Callable[[], list[dict]]:
    """The benchmark of that name in the file of that name: pruning, quantization or distillation."""
    def run() -> list[dict]:
        sys.path.insert(0, str(HERE))
        return getattr(importlib.import_module(name), name)(row)

    run.__doc__ = f"What {name} makes of the small net of part 3."
    return run


def findings() -> list[dict]:
    """How many of 20 runs broken on purpose `diagnose` does not name, by fault; and how many of 20 healthy ones it does."""
    sys.path.insert(0, str(HERE))
    return importlib.import_module("diagnosis").diagnosis(row)


def tuning() -> list[dict]:
    """What `search` costs over Optuna alone, when the objective costs nothing."""
    sys.path.insert(0, str(HERE))
    return importlib.import_module("tuning").tuning(row)


def lessons() -> list[dict]:
    """Seconds of each lesson under nbval, one after another, one thread."""
    rows = []
    for path in sorted((ROOT / "nbs").glob("[0-9]*.ipynb")):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "pytest", "-q", "--nbval", str(path)], cwd=ROOT, check=True,
                       capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        rows.append(row("lesson under nbval", path.stem, [time.perf_counter() - begin], "s", 60))
    mean = statistics.mean(r["median"] for r in rows)
    return [*rows, row("lesson under nbval", "mean of all", [mean], "s", 20)]


def row(what: str, subject: str, values: list[float], unit: str, reach: float) -> dict:
    """One line of the table: median and spread of the values, and what is to be reached."""
    median = statistics.median(values)
    return {"what": what, "subject": subject, "median": round(median, 3), "low": round(min(values), 3),
            "high": round(max(values), 3), "runs": len(values), "unit": unit, "reach": reach, "reached": median <= reach}


BENCHMARKS = {"imports": imports, "explorers": explorers, "trainer": trainer, "lr_finder": lr_finder, "landscapes": landscapes,
              **{name: shrinking(name) for name in ("pruning", "quantization", "distillation", "keras_compression", "distributed")},
              "diagnosis": findings, "tuning": tuning, "lessons": lessons}


def write(name: str, rows: list[dict]) -> None:
    """The rows as CSV."""
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_table() -> None:
    """All CSV files as one table in Markdown."""
    lines = ["# Benchmarks", "", f"Measured by `make bench` on {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
             f"Python {platform.python_version()}. Median (lowest to highest).", "",
             "| what | subject | measured | reach | |", "| --- | --- | --- | --- | --- |"]
    for path in sorted(RESULTS.glob("*.csv")):
        for r in csv.DictReader(path.open(encoding="utf-8")):
            lines.append(f"| {r['what']} | {r['subject']} | {r['median']} ({r['low']} to {r['high']}) {r['unit']} | "
                         f"{r['reach']} | {'reached' if r['reached'] == 'True' else '**missed**'} |")
    (RESULTS / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(names: list[str]) -> int:
    """Run the benchmarks; the exit code is 2 for a name that is none."""
    os.environ["OMP_NUM_THREADS"] = "1"
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}")
        return 2
    for name in names or BENCHMARKS:
        print(f"== {name}: {BENCHMARKS[name].__doc__}")
        rows = BENCHMARKS[name]()
        write(name, rows)
        for r in rows:
            print(f"   {r['what']:<20} {r['subject']:<30} {r['median']:>9} {r['unit']:<15} (reach {r['reach']}) "
                  f"{'reached' if r['reached'] else 'MISSED'}")
    write_table()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
