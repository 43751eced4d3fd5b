"""Everything `make test` runs, in order; prints each command, its time, and at the end what failed, by name."""
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
PYTEST = [PYTHON, "-m", "coverage", "run", "-m", "pytest", "-q"]
TWO = ["-n", "2", "--dist", "loadfile"]

STEPS = {
    "style of library, notebooks and tests": [PYTHON, "-m", "ruff", "check", "--quiet", "nbs", "nnlearn", "tests", "setup.py"],
    "types": [PYTHON, "-m", "mypy"],
    "lessons run, every output compared": [PYTHON, "-m", "pytest", "-q", "--nbval", "nbs", *TWO],
    "lessons replayed on the exported library": [*PYTEST, "--nbval", "--replay", "nbs", *TWO],
    "tests": [*PYTEST, "tests", *TWO],
    "coverage": [PYTHON, "tests/tools/coverage_check.py"],
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


def main() -> int:
    """Run the steps; the exit code is 1 when one of them failed."""
    os.chdir(ROOT)
    beside = os.pathsep.join([str(Path(PYTHON).parent), os.environ["PATH"]])  # where `make site` puts Quarto
    os.environ.update(PATH=beside, OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1", TF_CPP_MIN_LOG_LEVEL="3",
                      COVERAGE_FILE=str(ROOT / ".coverage"))
    for old in ROOT.glob(".coverage*"):
        old.unlink()
    started, failed = time.time(), []
    for title, command in STEPS.items():
        shown = " ".join("python" if part == PYTHON else part for part in command)
        print(f"\n== {title}\n$ {shown}", flush=True)
        begin = time.time()
        code, named = run(command)
        print(f"   {'ok' if code == 0 else f'FAILED (exit code {code})'}, {time.time() - begin:.0f} s", flush=True)
        failed += [(title, named)] if code else []
    print(f"\n{len(STEPS) - len(failed)} passed, {len(failed)} failed")
    for title, named in failed:
        print("\n      ".join([f"   {title}", *named]))
    print(f"{time.time() - started:.0f} s in all")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
