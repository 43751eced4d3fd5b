"""Each gate can fail: broken notebooks are rejected where they are broken, and the good one passes."""
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nbformat
import notebooks as nbtools
import pytest
import strict

ROOT = Path(__file__).resolve().parents[1]
CELLS = {
    "number": "print('learning rate', 9e-5)",
    "rounded": "print(f'{2 / 3:.4f} of 1437')",
    "text": "print('the loss falls')",
    "value": "[1, 2.5, 'a']",
    "picture": "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.figure(figsize=(2, 1)); plt.plot([1, 3]);",
    "explorer": ("import numpy as np\nfrom nnlearn.explore import explore\n"
                 "explore(lambda slope: {'line': (np.arange(20), slope * np.arange(20))}, slope=[1.0, 2.0], alt='a line')"),
    "assertion": "assert 1 + 1 == 2",
}


def outputs_of(nb, name):
    """The outputs of the cell of that name."""
    return nb.cells[list(CELLS).index(name)].outputs


def replace_text(output, old, new):
    """Change a text in an output, which must hold it."""
    assert old in output.text
    output.text = output.text.replace(old, new)


BREAKS = {
    "changed_number": ("number", lambda nb: replace_text(outputs_of(nb, "number")[0], "9e-05", "1e-05"),
                       "1e-05 is stored, 9e-05 was found"),
    "last_digit": ("rounded", lambda nb: replace_text(outputs_of(nb, "rounded")[0], "0.6667", "0.6657"), "0.6657 is stored"),
    "whole_number": ("rounded", lambda nb: replace_text(outputs_of(nb, "rounded")[0], "1437", "1438"), "1438 is stored, 1437 was found"),
    "changed_text": ("text", lambda nb: replace_text(outputs_of(nb, "text")[0], "falls", "rises"), "the text differs"),
    "missing_output": ("text", lambda nb: outputs_of(nb, "text").clear(), "0 outputs are stored"),
    "changed_value": ("value", lambda nb: outputs_of(nb, "value")[0].data.update({"text/plain": "[1, 2.5, 'b']"}), "the text differs"),
    "missing_picture": ("picture", lambda nb: outputs_of(nb, "picture")[0].data.pop("image/png"), "were found"),
    "other_picture": ("picture", lambda nb: outputs_of(nb, "picture")[0].data.update(
        {"image/png": outputs_of(nb, "explorer")[0].data.get("image/png") or TINY}), "a picture of"),
    "missing_explorer": ("explorer", lambda nb: outputs_of(nb, "explorer")[0].data.pop("text/html"), "were found"),
    "changed_explorer": ("explorer", lambda nb: outputs_of(nb, "explorer")[0].data.update(
        {"text/html": OTHER["html"]}), "explorer"),
    "exception": ("assertion", lambda nb: nb.cells[-1].update(source="assert 1 + 1 == 3"), "AssertionError"),
}
TINY = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
OTHER = {}


def run_nbval(folder, *options, env=None):
    """Run strict nbval over a folder; {notebook: {cell index: message}} of the cells that failed, and how many passed."""
    report = folder / "report.xml"
    subprocess.run([sys.executable, "-m", "pytest", "-q", "--nbval", *options, str(folder), "-c", str(ROOT / "pyproject.toml"),
                    "--rootdir", str(ROOT), f"--junitxml={report}", "--color=no"],
                   cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    failed, passed = {}, {}
    for case in ElementTree.parse(report).iter("testcase"):
        book, cell = Path(case.get("classname").replace(".ipynb", "")).name.split(".")[-1], int(case.get("name").split()[-1])
        problem = next((child.text or "" for child in case if child.tag in ("failure", "error")), None)
        if problem is None:
            passed.setdefault(book, []).append(cell)
        else:
            failed.setdefault(book, {})[cell] = problem
    return failed, passed


def book(cells, **metadata):
    """A notebook of code cells."""
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell, id=f"cell{i}") for i, cell in enumerate(cells)])
    nb.metadata.update(kernelspec={"display_name": "python3", "language": "python", "name": "python3"}, **metadata)
    return nb


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """One run of nbval over the good notebook and all broken ones."""
    folder = tmp_path_factory.mktemp("broken")
    good = folder / "good.ipynb"
    other = book([CELLS["explorer"].replace("slope * np", "1.1 * slope * np")])
    for path, nb in ((folder / "other.ipynb", other), (good, book(CELLS.values()))):
        path.write_text(nbformat.writes(nb))
        nbtools.execute(path)
    OTHER["html"] = nbtools.read(folder / "other.ipynb").cells[0].outputs[0].data["text/html"]
    for name, (cell, damage, _) in BREAKS.items():
        nb = nbtools.read(good)
        damage(nb)
        nb.cells = [c for c, kind in zip(nb.cells, CELLS, strict=True) if kind in kept(cell)]
        (folder / f"{name}.ipynb").write_text(nbtools.dumps(nb))
    return run_nbval(folder)


def kept(broken):
    """The cells of a broken notebook: those that take time only where they are what is broken."""
    return [kind for kind in CELLS if kind not in ("picture", "explorer") or kind == broken]


def test_the_good_notebook_passes(verdicts):
    failed, passed = verdicts
    assert "good" not in failed and len(passed["good"]) == len(CELLS)


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_notebook_is_rejected_at_the_broken_cell(verdicts, name):
    cell, _, words = BREAKS[name]
    failed, passed = verdicts
    assert list(failed[name]) == [kept(cell).index(cell)], failed[name]
    assert words in failed[name][kept(cell).index(cell)]
    assert len(passed[name]) == len(kept(cell)) - 1


def test_cells_are_compared_though_their_counts_were_cleaned(verdicts):
    assert "missing_output" in verdicts[0]


def test_replay_rejects_a_module_that_lacks_what_its_notebook_has(tmp_path):
    cells = ["#| default_exp maths", "import math", "#| export\ndef area(radius):\n    return math.pi * radius**2",
             "print(round(area(2), 3))"]
    package = tmp_path / "brokenlib"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "maths.py").write_text("def area(radius):\n    return math.pi * radius**2\n")
    folder = tmp_path / "books"
    folder.mkdir()
    path = folder / "maths.ipynb"
    path.write_text(nbformat.writes(book(cells, nnlearn_package="brokenlib")))
    nbtools.execute(path)
    nb = nbtools.read(path)
    nb.metadata["nnlearn_package"] = "brokenlib"
    path.write_text(nbtools.dumps(nb))
    assert run_nbval(folder)[0] == {}
    env = {"PYTHONPATH": str(tmp_path)}
    failed, _ = run_nbval(folder, "--replay", env=env)
    assert list(failed["maths"]) == [3] and "NameError" in failed["maths"][3] and "math" in failed["maths"][3]
    (package / "maths.py").write_text("import math\n\ndef area(radius):\n    return math.pi * radius**2\n")
    assert run_nbval(folder, "--replay", env=env)[0] == {}
    (package / "maths.py").write_text("import math\n\ndef area(radius):\n    return 3 * radius**2\n")
    assert list(run_nbval(folder, "--replay", env=env)[0]["maths"]) == [3]
    assert run_nbval(folder, "--replay", "--replay-outputs=no", env=env)[0] == {}


@pytest.mark.parametrize(("stored", "found", "same"), [
    ("1e-5", "9e-5", False), ("9e-05", "9.0001e-05", True), ("0.10", "0.104", True), ("0.10", "0.106", False),
    ("1000.0", "1000.9", True), ("1000.0", "1001.1", False), ("7", "8", False), ("12000", "12001", False), ("-0.5", "0.5", False),
    ("0.0", "0.04", True), ("0.0", "0.06", False), ("1.5e3", "1.6e3", False),
])
def test_tolerance_of_numbers(stored, found, same):
    assert strict.same_number(stored, found) is same
    assert (strict.text_difference(f"loss {stored} at last", f"loss {found} at last") is None) is same


def test_a_blank_picture_is_not_the_picture():
    import base64
    import io

    from PIL import Image

    def picture(dot):
        image, file = Image.new("RGB", (40, 20), "white"), io.BytesIO()
        image.putpixel((5, 5), dot)
        image.save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()

    drawn, blank = picture((0, 0, 0)), picture((255, 255, 255))
    assert strict.picture_difference(drawn, drawn) is None
    assert "found is blank" in strict.picture_difference(drawn, blank)
    assert "stored picture is blank" in strict.picture_difference(blank, drawn)


def test_replay_binds_private_names_and_imports():
    source = ("#| export\nimport math\nfrom os import path as p\n_low, high = 1, 2\nlists = [inside for inside in (1, 2)]\n"
              "class A: x = 3\ndef _f():\n    inner = 1\n    return inner\n")
    assert strict.replayed(source, "m") == "from nnlearn.m import (A, _f, _low, high, lists, math, p)"
    assert strict.replayed("#| export exercises\ndef g(): ...", "m") == "from nnlearn.exercises import (g)"
    assert strict.replayed("x = 1", "m") == "x = 1"


def test_a_failing_step_fails_the_whole_run(tmp_path):
    """The runner behind `make test` gives exit code 1 when one step does, and names at the end what failed."""
    code = (f"import sys; sys.path.insert(0, {str(ROOT / 'tests/tools')!r}); import run_all\n"
            "run_all.ROOT = __import__('pathlib').Path('.')\n"
            "bad = 'print(\"FAILED a.py::b\"); raise SystemExit(3)'\n"
            "run_all.STEPS = {'good': [sys.executable, '-c', ''], 'bad': [sys.executable, '-c', bad]}\n"
            "sys.exit(run_all.main())")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and re.search("1 passed, 1 failed\n   bad\n      FAILED a.py::b\n", done.stdout)
