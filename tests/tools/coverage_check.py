"""Combine the coverage of replay and tests, print it, and fail below 95 % of lines or 85 % of branches."""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

LINES, BRANCHES = 95.0, 85.0


def main() -> int:
    """The exit code is 1 when a limit is missed."""
    run = [sys.executable, "-m", "coverage"]
    subprocess.run([*run, "combine", "--quiet"], check=False)
    subprocess.run([*run, "report"], check=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "coverage.json")
        subprocess.run([*run, "json", "--quiet", "-o", str(path)], check=True)
        total = json.loads(path.read_text())["totals"]
    lines = 100 * total["covered_lines"] / total["num_statements"]
    branches = 100 * total["covered_branches"] / max(total["num_branches"], 1)
    print(f"lines {lines:.1f} % (at least {LINES:.0f}), branches {branches:.1f} % (at least {BRANCHES:.0f})")
    return 0 if lines >= LINES and branches >= BRANCHES else 1


if __name__ == "__main__":
    sys.exit(main())
