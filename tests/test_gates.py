"""Each gate can fail: broken notebooks are rejected where they are broken, and the good one passes."""
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import claims
import nbformat
import notebooks as nbtools
import numerics
import numpy as np
import pytest
import strict

ROOT = Path(__file__).resolve().parents[1]
CELLS = {
    "number": "print('learning rate', 9e-5)",
    "rounded": "print(f'{2 / 3:.4f} of 1437')",
    "text": "print('the loss falls')",
    "value": "[1, 2.5, 'a']",
    "picture": "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.figure(figsize=(2, 1)); plt.plot([1, 3]);",
    "explorer": ("import numpy as np\nfrom nnlearn.course.explore import explore\n"
                 "explore(lambda slope: {'line': (np.arange(20), slope * np.arange(20))}, slope=[1.0, 2.0], alt='a line')"),
    "measured": "print('accuracy 91.8 ± 0.5 at rate 0.25, loss', 0.2513)",
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
    "measured_beyond_its_stated_band": ("measured", lambda nb: replace_text(outputs_of(nb, "measured")[0], "91.8", "93.4"),
                                        "93.4 is stored, 91.8 was found"),
    "measured_beyond_a_fifth": ("measured", lambda nb: replace_text(outputs_of(nb, "measured")[0], "0.2513", "0.1999"),
                                "0.1999 is stored, 0.2513 was found"),
    "measured_word": ("measured", lambda nb: replace_text(outputs_of(nb, "measured")[0], "loss", "gain"), "the text differs"),
    "measured_line_missing": ("measured", lambda nb: outputs_of(nb, "measured").clear(), "0 outputs are stored"),
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
        path.write_text(nbtools.dumps(tagged(nbtools.run(nbtools.read(path), folder))))
    OTHER["html"] = nbtools.read(folder / "other.ipynb").cells[0].outputs[0].data["text/html"]
    for name, (cell, damage, _) in BREAKS.items():
        nb = nbtools.read(good)
        damage(nb)
        nb.cells = [c for c, kind in zip(nb.cells, CELLS, strict=True) if kind in kept(cell)]
        (folder / f"{name}.ipynb").write_text(nbtools.dumps(nb))
    return run_nbval(folder)


def tagged(nb):
    """The notebook with its measured cell tagged, as `execute` would do it."""
    for cell in nb.cells:
        if "±" in cell.source:
            cell.metadata["tags"] = ["measured"]
    return nb


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


@pytest.mark.parametrize(("old", "new"), [("91.8", "92.9"), ("0.2513", "0.29"), ("0.25,", "0.3,"), ("0.5 at", "0.6   at")])
def test_a_measured_number_inside_its_band_passes(old, new):
    stored = "accuracy 91.8 ± 0.5 at rate 0.25, loss 0.2513"
    found = stored.replace(old, new)
    assert strict.text_difference(stored, found, measured=True) is None
    assert strict.text_difference(stored, found) is not None


@pytest.mark.parametrize(("stored", "found", "same"), [
    ("91.8 ± 0.5", "93.2 ± 0.5", True), ("91.8 ± 0.5", "93.4 ± 0.5", False), ("+1.1 +/- 0.4", "-0.2 +/- 0.4", False),
    ("+1.1 +/- 0.4", "-0.05 +/- 0.4", True), ("100.0", "119.0", True), ("100.0", "121.0", False), ("0.5", "1.4", True),
    ("0.50", "0.59", True), ("0.50", "0.61", False), ("1e-8", "1.1e-8", True), ("1e-8", "3e-7", False),
    ("7", "17", True), ("7", "18", False),
])
def test_band_of_measured_numbers(stored, found, same):
    assert (strict.text_difference(stored, found, measured=True) is None) is same


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
    nb = nbtools.run(nbtools.read(path), folder)
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


LEARNS = """
import torch
from nnlearn.core import seed_everything
from nnlearn.datasets import digits

seed_everything(0)
data = digits()
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), 0.1)
for rows in torch.arange(1400).split(50) * 8:
    loss = torch.nn.functional.cross_entropy(model(data.train_x[rows]), data.train_y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
right = (model(data.test_x).argmax(1) == data.test_y).float().mean().item()
print(f"{100 * right:.1f} % right, {sum(p.numel() for p in model.parameters())} parameters")
"""


def test_executing_tags_what_another_processor_prints_differently_and_only_that(tmp_path):
    """The tag is set by the tool, the tagged notebook passes on the other machine, and without its tag it fails there."""
    path = tmp_path / "learns.ipynb"
    path.write_text(nbformat.writes(book(["1 / 3", LEARNS, "print(len(data.train_x), loss.shape)", "assert loss < 5"])))
    assert nbtools.execute(path) == []
    nb = nbtools.read(path)
    assert [c.metadata.get("tags", []) for c in nb.cells] == [[], ["measured"], [], []]
    if not numerics.is_x86():
        return  # no other arithmetic on this machine; what tagged the cell are the nudged weights
    assert run_nbval(tmp_path, "--numerics=other")[0] == {}
    del nb.cells[1].metadata["tags"]
    path.write_text(nbtools.dumps(nb))
    failed, _ = run_nbval(tmp_path, "--numerics=other")
    assert list(failed["learns"]) == [1] and "is stored" in failed["learns"][1]
    assert nbtools.execute(path) == [] and nbtools.read(path).cells[1].metadata.tags == ["measured"]


def test_executing_reports_an_assertion_that_falls_elsewhere(tmp_path):
    """An equality of bits, true on the machine that wrote it, is named by the tool."""
    if not numerics.is_x86():
        pytest.skip("no other arithmetic on this machine")
    path = tmp_path / "fragile.ipynb"
    exact = LEARNS + "import os\nassert os.environ.get('ATEN_CPU_CAPABILITY') is None or loss.item() == 0.1, 'other bits'"
    path.write_text(nbformat.writes(book([exact])))
    problems = nbtools.execute(path)
    assert problems and all("AssertionError: other bits" in problem for problem in problems)


@pytest.mark.skipif(not numerics.is_x86(), reason="profiles are for x86")
def test_each_profile_computes_differently_and_reaches_torch_and_numpy():
    code = ("import numpy._core._multiarray_umath as m, torch; x = torch.linspace(-3, 3, 999)\n"
            "print(torch.backends.cpu.get_cpu_capability(), "
            "(x.exp() @ x.sin()).item(), [d for d in m.__cpu_dispatch__ if m.__cpu_features__[d]])")
    printed = {}
    for profile in {"native", numerics.other(), "default"}:
        env = {**os.environ, **numerics.environment(profile), "OMP_NUM_THREADS": "1"}
        printed[profile] = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert len(set(printed.values())) == len(printed) and printed["default"].startswith("DEFAULT")
    assert printed["default"].strip().endswith("[]")


def test_a_seed_shift_reaches_the_cells(tmp_path):
    cells = ["import torch\nfrom nnlearn.core import generator\nprint(torch.rand(1, generator=generator(0)))"]
    path = tmp_path / "drawn.ipynb"
    path.write_text(nbtools.dumps(nbtools.run(book(cells), tmp_path)))
    assert run_nbval(tmp_path)[0] == {} and list(run_nbval(tmp_path, "--seed-shift=1")[0]["drawn"]) == [0]


def test_explorers_are_compared_by_their_data_and_never_by_their_id():
    from nnlearn.course.explore import explore

    def html(slope, title="Lines"):
        drawn = explore(lambda a: {"line": (np.arange(20), slope * a * np.arange(20))}, title=title, a=[1.0, 2.0], alt="a line")
        return drawn._repr_mimebundle_()["text/html"] if hasattr(drawn, "_repr_mimebundle_") else drawn.html

    one = html(1.0)
    renamed = re.sub(r"nn-[0-9a-f]{10}", "nn-0123456789", one)
    assert renamed != one and strict.mime_difference("text/html", one, renamed) is None
    assert strict.mime_difference("text/html", one, html(1.05)) is not None
    assert strict.mime_difference("text/html", one, html(1.05), measured=True) is None
    assert strict.mime_difference("text/html", one, html(1.5), measured=True) is not None
    assert strict.mime_difference("text/html", one, html(1.0, "Curves"), measured=True) is not None


def test_a_claim_run_notes_every_assertion_and_goes_on(tmp_path):
    """What fell, what held and the number that was compared, in loops and in joined conditions too."""
    cells = ["from nnlearn.core import shifted_seed\nvalue = shifted_seed(1)",
             "for limit in (10, 5000):\n    assert value < limit\nassert value > 0 and value == 2001, 'luck'\nreached = True",
             "assert reached\nassert missing_name",
             "def f():\n    assert False\nimport pytest\nwith pytest.raises(AssertionError):\n    f()"]
    path = tmp_path / "claims.ipynb"
    path.write_text(nbformat.writes(book(cells)))
    runs = {f"{shift}/native": claims.one_run(path, shift, "native") for shift in (1000, 2000)}
    rows = claims.rows_of(path, runs)
    assert [(row["claim"], row["held"], row["fell"]) for row in rows] == [
        ("value < limit", 0, "1000/native 2000/native"), ("value > 0", 2, ""), ("value == 2001", 1, "1000/native"),
        ("reached", 2, ""), ("missing_name", 0, "1000/native 2000/native")]
    assert (rows[1]["low"], rows[1]["high"], rows[1]["kind"]) == ("1001", "2001", "measured") and rows[3]["kind"] == "exact"
    assert any("NameError" in error for error in runs["1000/native"]["errors"])


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
    assert strict.replayed("#| export course.exercises\ndef g(): ...", "m") == "from nnlearn.course.exercises import (g)"
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


def test_a_line_is_compared_as_a_line_whichever_points_of_it_are_kept():
    """An explorer keeps the points that a line needs; on another processor the last bits choose others."""
    x = np.linspace(0, 1, 101)
    y = np.where(x < 0.5, x, 1 - x)
    few, other = [0, 50, 100], [0, 20, 50, 70, 100]
    assert strict.data_difference((x[few], y[few]), (x[other], y[other])) is None
    lower = y[other] - np.array([0, 0, 0.01, 0, 0])
    assert "apart" in strict.data_difference((x[few], y[few]), (x[other], lower))
    assert strict.data_difference((x[few], y[few]), (x[:51], y[:51])) is not None  # half of it is missing
    assert strict.data_difference(([3.0, 1.0, 2.0], [0.0, 1.0, 2.0]), ([3.0, 1.5, 2.0], [0.0, 1.0, 2.0])) is not None  # points, no line
