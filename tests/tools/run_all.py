"""Everything `make test` runs, in order; prints each command, its time, and at the end what failed, by name.

`run_all.py ARGS` runs only what is named: tests (`tests/test_losses.py -k focal`) or notebooks (`nbs/03_losses.ipynb`), natively.
`run_all.py --only STEP,STEP [NB]` runs steps of `make test`, or parts of one (`PARTS`), for one notebook where it is named.
"""
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
PYTEST = [PYTHON, "-m", "pytest", "-q"]
COVERED = [PYTHON, "-m", "coverage", "run", "-m", "pytest", "-q"]
TWO = ["-n", "2", "--dist", "loadfile"]
DEAR_FIRST = [*TWO, "--no-loadscope-reorder"]  # the order is that of `cpu.py`
REPLAY = ["--nbval", "--replay", "--replay-outputs=no", "--numerics=other", "--seed-shift=1000"]

STEPS = {
    "style": [PYTHON, "-m", "ruff", "check", "--quiet", "nbs", "nnlearn", "tests", "setup.py"],
    "types": [PYTHON, "-m", "mypy"],
    "lessons": [*PYTEST, "--nbval", "nbs", *TWO],
    "replay": [*COVERED, *REPLAY, "nbs", *TWO],
    "tests": [*COVERED, "tests", "--cpu=25", *DEAR_FIRST],
    "coverage": [PYTHON, "tests/tools/coverage_check.py"],
}
# Parts of a step, and the step that they are a part of.
PARTS = {"fast": ("tests", [*PYTEST, "tests", "--ignore=tests/browser", "-m", "not slow", "--cpu=10", *DEAR_FIRST]),
         "one": ("replay", [*PYTEST, *REPLAY])}
ABOUT = {
    "style": "style of library, notebooks and tests", "types": "types of the library",
    "lessons": "lessons run as they are, every output compared",
    "replay": "lessons replayed on the exported library, other numerics, other seeds, assertions deciding",
    "one": "replayed on the exported library, other numerics, other seeds, assertions deciding",
    "tests": "tests", "fast": "tests that are not slow and need no browser", "coverage": "coverage of replay and tests",
}


def run(command: list[str]) -> tuple[int, list[str]]:
    """Run a command and pass its output on; gives the exit code and the lines of pytest that name what failed."""
    named = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith(("FAILED ", "ERROR ")):
                named.append(line.rstrip()[:300])
    return process.returncode, named


def cpu() -> float:
    """Seconds of CPU that the steps have used so far."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def chosen(arguments: list[str]) -> dict[str, list[str]]:
    """The commands that the arguments ask for, all steps without any."""
    if not arguments:
        return STEPS
    if arguments[0] == "--only":
        return {name: [*(STEPS.get(name) or PARTS[name][1]), *arguments[2:]] for name in arguments[1].split(",")}
    books = [part for part in arguments if part.endswith(".ipynb") or part.rstrip("/").split("/")[0] == "nbs"]
    others = [part for part in arguments if part not in books]
    options = [part for part in others if not part.startswith("tests")]
    found = {}
    if books:
        found["lessons"] = [*PYTEST, "--nbval", *books, *options]
    if len(others) > len(options) or not books:
        found["tests"] = [*PYTEST, *others]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the steps; the exit code is 1 when one of them failed."""
    os.chdir(ROOT)
    beside = os.pathsep.join([str(Path(PYTHON).parent), os.environ["PATH"]])  # where `make site` puts Quarto
    os.environ.update(PATH=beside, OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1", TF_CPP_MIN_LOG_LEVEL="3",
                      COVERAGE_FILE=str(ROOT / ".coverage"))
    for old in ROOT.glob(".coverage*"):
        old.unlink()
    steps = chosen(sys.argv[1:] if arguments is None else arguments)
    started, failed = time.time(), []
    for title, command in steps.items():
        shown = " ".join("python" if part == PYTHON else part for part in command)
        print(f"\n== {ABOUT.get(title, title)}\n$ {shown}", flush=True)
        begin, before = time.time(), cpu()
        code, named = run(command)
        print(f"   {'ok' if code == 0 else f'FAILED (exit code {code})'}, {time.time() - begin:.0f} s, "
              f"{cpu() - before:.0f} s of CPU", flush=True)
        failed += [(title, named)] if code else []
    print(f"\n{len(steps) - len(failed)} passed, {len(failed)} failed")
    for title, named in failed:
        print("\n      ".join([f"   {title}", *named]))
    print(f"{time.time() - started:.0f} s in all, {cpu():.0f} s of CPU")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
