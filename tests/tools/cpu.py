"""A pytest plugin about what tests cost in CPU time, processes included; on a busy machine the clock says nothing.

`--cpu=20` lists the 20 tests that cost most, `--cpu-file=PATH` writes what every test cost as CSV while it runs, and
`--cpu-table` writes `tests/costs.csv`: the test functions (with all their parameters) that cost a second or more. That
table gives the order, dear files first, so that two workers end together, and the marker `slow`, for test functions of
`SLOW` seconds or more and for those that share a dear fixture with one: `make check` leaves them out.
"""
import csv
import os
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "tests/costs.csv"
SLOW, LISTED = 3.0, 1.0  # seconds of CPU
ALWAYS_FAST = {"tests/test_structure.py::test_export_leaves_no_diff"}  # what `make check` is there for
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
WHEN = ("setup", "call", "teardown")


def used() -> float:
    """Seconds of CPU that this process and its descendants have used, those included that ended and were waited for."""
    if not Path("/proc/self/stat").exists():
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system
    family, total = [str(os.getpid())], 0
    while family:
        pid = family.pop()
        try:
            total += sum(map(int, Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[11:15]))
            for task in Path("/proc", pid, "task").iterdir():
                family += (task / "children").read_text().split()
        except OSError:
            continue  # it ended just now
    return total / TICKS


def table() -> dict[str, tuple[float, float]]:
    """The committed costs: seconds of a test function, and of its set-up alone."""
    if not TABLE.exists():
        return {}
    with TABLE.open(newline="", encoding="utf-8") as file:
        return {row["test"]: (float(row["cpu"]), float(row["setup"])) for row in csv.DictReader(file)}


def function_of(nodeid: str) -> str:
    """`tests/a.py::test_b` for each of its parameters; a notebook's path for each of its cells."""
    path, _, rest = nodeid.partition("::")
    return path if path.endswith(".ipynb") else f"{path}::{rest.partition('[')[0]}"


def pytest_addoption(parser):
    group = parser.getgroup("cpu")
    group.addoption("--cpu", type=int, default=0, help="list that many tests by the CPU time they cost")
    group.addoption("--cpu-file", help="write what every test cost into this CSV")
    group.addoption("--cpu-table", action="store_true", help="write tests/costs.csv")


def pytest_configure(config):
    config.addinivalue_line("markers", f"slow: costs {SLOW:g} s of CPU or more; `make check` leaves it out")
    option = config.option
    if option.cpu or option.cpu_file or option.cpu_table:
        config.pluginmanager.register(Meter(), "cpu meter")
        if not hasattr(config, "workerinput"):
            config.pluginmanager.register(Costs(option), "cpu costs")


def shared(item) -> set[str]:
    """The fixtures of ours that a test shares with others, by the place where they are defined."""
    found = getattr(item, "_fixtureinfo", None)
    return {f"{definitions[-1].baseid}::{name}" for name, definitions in (found.name2fixturedefs.items() if found else ())
            if definitions[-1].scope != "function" and definitions[-1].baseid.startswith("tests/")}


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the markers
def pytest_collection_modifyitems(items):
    costs, files = table(), defaultdict(float)
    for name, (seconds, _) in costs.items():
        files[name.partition("::")[0]] += seconds
    dear = set().union(*(shared(item) for item in items if costs.get(function_of(item.nodeid), (0, 0))[1] >= SLOW))
    for item in items:
        name = function_of(item.nodeid)
        if (costs.get(name, (0, 0))[0] >= SLOW or dear & shared(item)) and name not in ALWAYS_FAST:
            item.add_marker("slow")
    items.sort(key=lambda item: -files[item.nodeid.partition("::")[0]])


class Meter:
    """Notes in a test's reports what its set-up, its call and its teardown cost."""

    def measured(self, item, when):
        before = used()
        yield
        item.user_properties.append((f"cpu {when}", round(max(used() - before, 0.0), 2)))  # who was not waited for is lost

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item):
        yield from self.measured(item, "setup")

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item):
        yield from self.measured(item, "call")

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item):
        yield from self.measured(item, "teardown")


class Costs:
    """Where the costs come together; the file grows as tests end."""

    def __init__(self, option):
        self.option, self.rows = option, []
        if option.cpu_file:
            Path(option.cpu_file).write_text("cpu,setup,call,teardown,test\n")

    def pytest_runtest_logreport(self, report):
        if report.when != "teardown":
            return
        parts = {key.removeprefix("cpu "): value for key, value in report.user_properties if key.startswith("cpu ")}
        row = [sum(parts.values()), *(parts.get(when, 0.0) for when in WHEN), report.nodeid]
        self.rows.append(row)
        if self.option.cpu_file:
            with open(self.option.cpu_file, "a", newline="") as file:
                csv.writer(file).writerow([*(round(part, 2) for part in row[:-1]), row[-1]])

    def pytest_terminal_summary(self, terminalreporter):
        if self.option.cpu_table:
            write_table(self.rows)
        terminalreporter.section(f"CPU seconds: {sum(row[0] for row in self.rows):.0f} in {len(self.rows)} tests")
        for total, setup, call, teardown, name in sorted(self.rows, reverse=True)[:self.option.cpu]:
            terminalreporter.line(f"{total:7.1f} = set-up {setup:.1f} + call {call:.1f} + teardown {teardown:.1f}  {name}")


def write_table(rows: list) -> None:
    """Replace what the table says of the files that were run; what it says of others stays."""
    new = defaultdict(lambda: (0.0, 0.0))
    for total, setup, *_, nodeid in rows:
        name = function_of(nodeid)
        new[name] = new[name][0] + total, new[name][1] + setup
    run = {name.partition("::")[0] for name in new}
    kept = {name: cost for name, cost in table().items() if (path := name.partition("::")[0]) not in run and (ROOT / path).exists()}
    costs = kept | {name: cost for name, cost in new.items() if cost[0] >= LISTED}
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["cpu", "setup", "test"])
        writer.writerows([f"{total:.1f}", f"{setup:.1f}", name] for name, (total, setup) in sorted(costs.items()))
