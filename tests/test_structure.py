"""The project's shape: notebooks clean and in step with the library, imports only leftwards, no foreign paths."""
import ast
import re
import subprocess
import sys
from pathlib import Path

import notebooks as nbtools
import pytest
from strict import DEFAULT, EXPORT

ROOT = Path(__file__).resolve().parents[1]
ORDER = ["core", "measure", "datasets", "explore", "check", "exercises", "passes", "autograd", "losses", "landscapes",
         "optimizers", "data", "checkpoints", "training", "schedules", "lr_finder", "regularization", "clipping", "precision",
         "supervision", "diagnosis", "tuning", "export", "pruning", "integers", "quantization", "distillation", "pipeline",
         "memory", "distributed", "keras.training", "keras.compression", "course", "__init__"]
TOP = {"settings.ini", "_quarto.yml", "README.md", "nbs", "nnlearn", "tests", "assets", "pyproject.toml", "setup.py",
       "constraints.txt", "Makefile", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md"}
# Cells whose output is not compared, other than those that time something: notebook, a word of the cell, the reason.
UNCOMPARED = {
    ("00_measure", "table = compare("): "prints milliseconds and ratios of them",
    ("00_measure", "ax = table.plot()"): "labels carry ratios of milliseconds",
    ("00_measure", "measured = latency("): "prints milliseconds",
    ("17_export", "table = compare("): "prints milliseconds and ratios of them",
    ("17_export", "for row in table.rows], range(3)"): "draws milliseconds",
    ("00_course", "report = doctor()"): "prints what this machine has",
    ("20_quantization", "print(table)  #"): "prints milliseconds and ratios of them",
    ("20_quantization", "speed over float32, this machine"): "draws ratios of milliseconds",
    ("20_quantization", "max pooling:"): "prints shares of milliseconds",
    ("18_pruning", "table = compare("): "prints milliseconds and ratios of them",
    ("21_distillation", "table = compare("): "prints milliseconds and ratios of them",
    ("22_pipeline", "print(report)"): "prints milliseconds and ratios of them",
    ("22_pipeline", "report.plot()"): "draws milliseconds",
}
BOOKS = nbtools.notebooks()


def module_of(path):
    """The module a notebook is exported to."""
    found = [DEFAULT.search(c.source) for c in nbtools.read(path).cells if c.cell_type == "code"]
    return next((m[1] for m in found if m), None)


def exported(path):
    """(module, source) of each exported cell."""
    own = module_of(path)
    for cell in nbtools.read(path).cells:
        match = EXPORT.search(cell.source) if cell.cell_type == "code" else None
        if match:
            yield match[1] or own, cell.source


def tracked():
    """The files under version control, or all that are not ignored when git is not there."""
    done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if (ROOT / name).exists()]


def test_top_level_holds_only_what_belongs_there():
    assert {name.split("/")[0] for name in tracked() if not name.startswith(".")} <= TOP


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_notebook_is_clean(path):
    assert path.read_text(encoding="utf-8") == nbtools.dumps(nbtools.clean(nbtools.read(path))), f"run: make export ({path})"


def test_export_leaves_no_diff(tmp_path):
    """Exported into a copy of the project, the notebooks give the library that is committed."""
    import shutil
    for name in ("nbs", "nnlearn", "settings.ini", "tests/tools"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    for module in (tmp_path / "nnlearn").rglob("*.py"):
        if module.name != "__init__.py":
            module.unlink()
    subprocess.run([sys.executable, "tests/tools/notebooks.py", "export"], cwd=tmp_path, check=True, capture_output=True)
    for module in sorted((ROOT / "nnlearn").rglob("*.py")):
        again = tmp_path / module.relative_to(ROOT)
        assert again.exists() and again.read_text() == module.read_text(), f"{module.name} is out of step: make export"
    assert {p.name for p in (tmp_path / "nnlearn").rglob("*.py")} == {p.name for p in (ROOT / "nnlearn").rglob("*.py")}


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_exported_cells_import_only_leftwards(path):
    for module, source in exported(path):
        if module in ("exercises", "__init__", "course"):
            continue
        for node in ast.walk(ast.parse(source)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                first = (name or "").split(".")[0]
                assert first not in ("nbdev", "fastcore", "execnb"), f"{path.name}: {name}"
                if first == "nnlearn":
                    assert name != "nnlearn", f"{path.name}: import from the module, not from the package"
                    target = name.removeprefix("nnlearn.")
                    assert ORDER.index(target) < ORDER.index(module), f"{module} imports {target}, which comes later"


def test_notebook_and_module_share_a_name():
    for path in BOOKS:
        if path.stem != "index":
            assert module_of(path).replace("keras.", "keras_") == path.stem[3:], path


HEAVY = ("matplotlib", "ipywidgets", "torchmetrics", "sklearn", "tensorflow", "keras", "onnx", "optuna", "torchao", "pandas",
         "IPython", "scipy")


def test_every_name_at_the_top_loads_nothing_heavy():
    import nnlearn
    code = f"import sys, nnlearn\nfor name in {sorted(nnlearn._WHERE)!r}: getattr(nnlearn, name)\n" \
           f"print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    with pytest.raises(AttributeError, match="no attribute 'Regisrty'"):
        nnlearn.Regisrty
    assert set(nnlearn._WHERE) <= set(dir(nnlearn))


@pytest.mark.parametrize("module", sorted((ROOT / "nnlearn").glob("[a-z]*.py")), ids=lambda p: p.stem)
def test_every_module_imports_light(module):
    code = f"import sys, nnlearn.{module.stem}\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_uncompared_cells_have_a_reason(path):
    for cell in nbtools.read(path).cells:
        if "nbval-ignore-output" in cell.metadata.get("tags", []) or "NBVAL" in cell.source:
            timed = re.search(r"perf_counter|process_time|%timeit|latency\(", cell.source)
            reasons = [why for (book, word), why in UNCOMPARED.items() if book == path.stem and word in cell.source]
            assert timed or reasons, f"{path.name}: a cell is not compared and has no reason:\n{cell.source}"


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_outputs_are_there_and_quiet(path):
    for cell in nbtools.read(path).cells:
        if cell.cell_type != "code" or nbtools.has_directive(cell, "eval: false"):
            continue
        kinds = [o.output_type for o in cell.outputs]
        assert "error" not in kinds, f"{path.name}: an error is stored:\n{cell.source}"
        stderr = [o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"]
        assert not stderr, f"{path.name}: a warning is stored:\n{cell.source}\n{stderr}"
        last = cell.source.rstrip().splitlines()[-1] if cell.source.strip() else ""
        if re.match(r"(print\(|explore\(|check\()", last):
            assert cell.outputs, f"{path.name}: the output is missing:\n{cell.source}"


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_pictures_have_alt_text(path):
    for cell in nbtools.read(path).cells:
        pictures = [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {}) and "text/html" not in o.data]
        if pictures:
            assert re.search(r'^#\|\s*fig-alt:\s*".{20,}"', cell.source, re.M), f"{path.name}: no alt text:\n{cell.source}"


def test_no_absolute_paths_and_no_foreign_hosts():
    private = re.compile(r"(?<![\w.])/(?:home|root|Users|work|tmp)/[\w.]|/site-packages/")
    for name in tracked():
        path = ROOT / name
        if path.suffix in (".ipynb", ".py", ".md", ".yml", ".ini", ".toml", ".txt", ".scss") and "test_structure" not in name:
            found = private.search(path.read_text(encoding="utf-8"))
            assert not found, f"{name}: {found[0]!r}"


def test_dependencies_are_stated_once():
    from configparser import ConfigParser
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    cfg = config["DEFAULT"]
    stated = [re.split(r"[<>=]", r)[0] for key in cfg if key == "requirements" or key.endswith("_requirements") for r in cfg[key].split()
              if not r.startswith("nnlearn[")]  # an extra that brings others of ours
    assert len(stated) == len(set(stated)), "stated twice"
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()}
    assert {name.lower().replace("_", "-") for name in stated} <= pinned, "not pinned in constraints.txt"
    assert "requirements" not in (ROOT / "pyproject.toml").read_text().split("[tool.pytest")[0].replace("requires", "")


def test_only_lessons_that_are_there_are_linked():
    from nnlearn.course import COURSE
    there = {path.stem for path in BOOKS}
    for lesson in [lesson for lessons in COURSE.values() for lesson in lessons]:
        assert lesson.there == (lesson.name in there), lesson


def test_readme_map_links_the_lessons_that_are_there():
    from nnlearn.course import COURSE
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for lesson in [lesson for lessons in COURSE.values() for lesson in lessons]:
        text = f"{lesson.number} {lesson.title}"
        assert (f"[{text}](nbs/{lesson.name}.ipynb)" in readme) == lesson.there and text in readme
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        assert (ROOT / target).exists(), target


def test_workflows_run_only_what_ci_runs():
    ours = set(re.findall(r"make (\w+)", (ROOT / ".ci/run").read_text()))
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        for command in re.findall(r"- run: (.*)", workflow.read_text()):
            assert re.match(r"make (\w+)", command) and re.match(r"make (\w+)", command)[1] in ours, command


def test_sidebar_and_map_name_the_lessons_alike():
    import yaml

    from nnlearn.course import COURSE
    config = (ROOT / "_quarto.yml").read_text(encoding="utf-8")
    texts = re.findall(r'text: "(\d\d [^"]*)"', config)
    expected = [f"{lesson.number} {lesson.title}" for part in COURSE.values() for lesson in part]
    assert texts == expected and yaml.safe_load(config)["website"]["sidebar"]


def test_lessons_need_only_what_make_lab_installs():
    """Every package that a lesson imports comes with the core or the extra `course`, or with one of their packages."""
    import importlib.metadata
    from configparser import ConfigParser
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    stated = config["DEFAULT"]["requirements"].split() + config["DEFAULT"]["course_requirements"].split()
    stated += [r for extra in ("export", "compress") for r in config["DEFAULT"][f"{extra}_requirements"].split()]  # in course
    plain = {re.split(r"[<>=]", r)[0].lower().replace("_", "-") for r in stated} | {"ipython", "nnlearn"}
    distributions = importlib.metadata.packages_distributions()
    for path in BOOKS:
        for cell in nbtools.read(path).cells:
            if cell.cell_type != "code":
                continue
            for node in ast.walk(ast.parse(re.sub(r"^%.*$", "", cell.source, flags=re.M))):
                names = [node.module] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                for name in {(n or "").split(".")[0] for n in names} - sys.stdlib_module_names:
                    brought = {d.lower().replace("_", "-") for d in distributions.get(name, [name])}
                    assert brought & plain or name in ("cycler", "matplotlib_inline"), f"{path.name} imports {name}"
