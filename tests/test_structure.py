"""The project's shape: notebooks clean and in step with the library, imports only leftwards, no foreign paths."""
import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import claims
import notebooks as nbtools
import pytest
import run_all
from strict import DEFAULT, EXPORT

from nnlearn.course.contents import COURSE, LIBRARY, ORDER

ROOT = Path(__file__).resolve().parents[1]
TOP = {"settings.ini", "_quarto.yml", "README.md", "nbs", "nnlearn", "tests", "assets", "pyproject.toml", "setup.py",
       "constraints.txt", "Makefile", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md"}
# Cells whose output is not compared, other than those that time something: notebook, a word of the cell, the reason.
UNCOMPARED = {
    ("measure", "table = compare("): "prints milliseconds and ratios of them",
    ("measure", "ax = table.plot()"): "labels carry ratios of milliseconds",
    ("measure", "measured = latency("): "prints milliseconds",
    ("17_export", "table = compare("): "prints milliseconds and ratios of them",
    ("17_export", "for row in table.rows], range(3)"): "draws milliseconds",
    ("cli", "report = doctor()"): "prints what this machine has",
    ("20_quantization", "print(table)  #"): "prints milliseconds and ratios of them",
    ("27_keras_compression", "print(table)  #"): "prints milliseconds and ratios of them",
    ("20_quantization", "speed over float32, this machine"): "draws ratios of milliseconds",
    ("20_quantization", "max pooling:"): "prints shares of milliseconds",
    ("18_pruning", "table = compare("): "prints milliseconds and ratios of them",
    ("21_distillation", "table = compare("): "prints milliseconds and ratios of them",
    ("22_pipeline", "print(report)"): "prints milliseconds and ratios of them",
    ("22_pipeline", "report.plot()"): "draws milliseconds",
}
BOOKS, LESSONS = nbtools.notebooks(), claims.lessons()


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


def exported_or_shown(path):
    """The source of each code cell but that which names the module."""
    return (c.source for c in nbtools.read(path).cells if c.cell_type == "code" and not DEFAULT.search(c.source))


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
        if module == "__init__":
            continue
        for node in ast.walk(ast.parse(source)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                first = (name or "").split(".")[0]
                assert first not in ("nbdev", "fastcore", "execnb"), f"{path.name}: {name}"
                if first == "nnlearn":
                    target = name.removeprefix("nnlearn.")
                    assert target != "nnlearn", f"{path.name}: import from the module, not from the package"
                    assert ORDER.index(target) < ORDER.index(module), f"{module} imports {target}, which comes later"


def test_notebook_and_module_share_a_name():
    lessons = {lesson.name: lesson for part in COURSE.values() for lesson in part}
    for path in BOOKS:
        if path.parent.name == "library":
            assert module_of(path).removeprefix("course.") == path.stem, path
        elif path.stem != "index":
            assert module_of(path) == lessons[path.stem].module, path
    assert {module_of(path) for path in BOOKS if path.parent.name == "library"} == set(LIBRARY)


def test_directives_stay_in_the_notebooks():
    for module in (ROOT / "nnlearn").rglob("*.py"):
        assert not re.search(r"^\s*#\|", module.read_text(encoding="utf-8"), re.M), module


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


MODULES = sorted(".".join(path.relative_to(ROOT / "nnlearn").with_suffix("").parts) for path in (ROOT / "nnlearn").rglob("[a-z]*.py")
                 if path.parent.name != "keras")  # whose modules stand on Keras


@pytest.fixture(scope="module")
def loaded():
    """What each module loads, imported in a process of its own, forked from one that has only torch: {module: "[...]"}."""
    code = ("import os, sys, importlib, torch\n"
            f"for module in {MODULES!r}:\n"
            "    if os.fork():\n"
            "        os.wait()\n"
            "        continue\n"
            "    importlib.import_module('nnlearn.' + module)\n"
            f"    print(module, [m for m in {HEAVY!r} if m in sys.modules], flush=True)\n"
            "    os._exit(0)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines()), done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports_light(loaded, module):
    assert loaded[0].get(module) == "[]", loaded


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
    there = {path.stem for path in BOOKS}
    for lesson in [lesson for lessons in COURSE.values() for lesson in lessons]:
        assert lesson.there == (lesson.name in there), lesson


def test_readme_map_links_the_lessons_that_are_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for lesson in [lesson for lessons in COURSE.values() for lesson in lessons]:
        text = f"{lesson.number} {lesson.title}"
        assert (f"[{text}](nbs/{lesson.name}.ipynb)" in readme) == lesson.there and text in readme
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        assert (ROOT / target).exists(), target


def steps_of(command):
    """The steps of `run_all.py` that a make target runs, nothing else but setting up its environment."""
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(["make", "-n", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=True, env=outside)
    steps = set()
    for line in re.sub(r"\\\n\s*", "", done.stdout).splitlines():
        if found := re.fullmatch(r"\S*python tests/tools/run_all.py --only ([\w,]+)", line):
            steps |= set(found[1].split(","))
        else:
            assert re.match(r"test |if \[|echo |touch |\S*python\S* -m (venv|pip) |\"\S*python\S*\" -m venv ", line), line
    return steps


def test_workflows_run_only_what_ci_runs():
    """Each command of a workflow is a make target: one that .ci/run runs, or one that runs parts of what `make test` does."""
    ours = re.findall(r"make (\w+)", (ROOT / ".ci/run").read_text())
    assert "test" in ours and len(ours) == len(set(ours)), "nothing twice"
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        for command in re.findall(r"\brun: (.*)", workflow.read_text()):
            target = re.match(r"make (\w+)( TORCH=\S+.*)?$", command)
            assert target, command
            if target[1] not in ours:
                steps = steps_of(f"make {target[1]}")
                assert steps and {run_all.PARTS.get(step, [step])[0] for step in steps} <= set(run_all.STEPS), command


def test_every_long_job_waits_for_the_short_one():
    import yaml
    jobs = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]
    assert [name for name, job in jobs.items() if "needs" not in job] == ["check"]
    assert {job["needs"] for name, job in jobs.items() if name != "check"} == {"check"}


# Random numbers. What may be used outside of core's own functions, by module and a part of the line, each with its reason.
DRAWN_OTHERWISE = {
    ("course.sandbox", "random.seed(0)"): "every case of an exercise starts from the same state, in a process of its own",
    ("course.sandbox", "np.random.seed(0)"): "as above",
    ("course.sandbox", "torch.manual_seed(0)"): "as above",
    ("core", "random.seed(seed)"): "seed_everything itself", ("core", "np.random.seed(seed)"): "seed_everything itself",
    ("core", "torch.manual_seed(seed)"): "seed_everything itself",
    ("core", "torch.Generator().manual_seed(seed)"): "generator itself", ("core", "torch.Generator()"): "generator itself",
    ("core", "np.random.default_rng(seed)"): "generator itself",
    ("checkpoints", "random.random()"): "shows that this state is restored; seeded by seed_everything",
    ("checkpoints", "np.random.random()"): "as above",
}
ALLOWED = {"get_state", "set_state", "getstate", "setstate", "Generator", "BitGenerator", "RandomState", "Random"}  # states, isinstance
SEEDERS = {"set_random_seed", "manual_seed_all", "seed"}


def dotted(node):
    """`a.b.c` as text, empty for anything else."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def drawn_otherwise(source):
    """The expressions that draw or seed random numbers other than through core (torch's own global draws are let through)."""
    tree = ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.M))
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = {}  # what a name of the source stands for: {"np": "numpy", "default_rng": "numpy.random.default_rng"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    names = {"np": "numpy", "torch": "torch", "random": "random"} | names  # a notebook's cells share their imports

    def shifted(node):
        return any(isinstance(part, ast.Call) and dotted(part.func).endswith("shifted_seed") for part in ast.walk(node))

    def stands_for(node):
        first, _, rest = dotted(node).partition(".")
        return f"{names.get(first, '')}.{rest}".strip(".") if first in names else ""

    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "random_state":
            if not shifted(node.value):
                yield f"random_state={ast.unparse(node.value)}"
        if id(node) in called and shifted(called[id(node)]):
            continue
        if isinstance(node, ast.Attribute) and node.attr == "manual_seed" and id(node) in called:
            yield ast.unparse(called[id(node)])  # of torch, of torch.cuda, of any generator
            continue
        if not isinstance(node, ast.Attribute | ast.Name) or not isinstance(node.ctx, ast.Load):
            continue
        what = stands_for(node)
        last = what.rpartition(".")[2]
        shown = ast.unparse(called.get(id(node), node))
        if last in SEEDERS and (what.startswith(("keras", "tensorflow", "torch"))):
            yield shown
        elif what == "torch.Generator" and id(node) in called:
            yield shown
        elif re.match(r"(numpy\.random|random)\.\w", what) and (last not in ALLOWED or id(node) in called and last[0].isupper()):
            yield shown


DRAWS = ["torch.manual_seed(1)", "torch.cuda.manual_seed_all(1)", "torch.Generator().manual_seed(3)", "torch.Generator()", "torch.seed()",
         "np.random.default_rng(0).normal()", "np.random.rand(3)", "import numpy\nnumpy.random.RandomState(3)", "f = np.random.normal",
         "from numpy.random import default_rng\ndefault_rng(0)", "import random\nrandom.shuffle(x)", "import random as r\nr.Random(3)",
         "train_test_split(x, random_state=0)", "import keras\nkeras.utils.set_random_seed(3)", "g.manual_seed(3)",
         "from random import random as draw\ndraw()"]
FINE = ["train_test_split(x, random_state=shifted_seed(0))", "torch.manual_seed(shifted_seed(0))", "core.generator(3).normal()",
        "torch.rand(3)", "torch.nn.init.normal_(w)", "state = np.random.get_state(); random.setstate(s)", "seed_everything(3)",
        "isinstance(x, (np.random.Generator, random.Random))", "generator(0, 'numpy').random(3)", "random_forest.fit(x)",
        "def f(g: torch.Generator) -> np.random.Generator: ...", "for random in x: print(random)"]


@pytest.mark.parametrize("source", DRAWS + FINE)
def test_random_numbers_from_elsewhere_are_found(source):
    assert bool(list(drawn_otherwise(source))) == (source in DRAWS)


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_random_numbers_come_through_core(path):
    """So one variable moves every seed of a run (`NNLEARN_SEED_SHIFT`), and what a lesson claims is tried with other seeds."""
    module = module_of(path)
    for cell in nbtools.read(path).cells:
        if cell.cell_type == "code" and (EXPORT.search(cell.source) or path in LESSONS):
            wrong = [found for found in drawn_otherwise(cell.source) if (module, found) not in DRAWN_OTHERWISE]
            assert not wrong, f"{path.name}: draw through core.generator or seed with core.seed_everything, not {wrong}:\n{cell.source}"


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_every_claim_was_tried_with_other_seeds(path):
    """The committed table has every assertion of the lesson as it stands, and each that varies held in all of its runs."""
    rows = {row["cell"]: row for row in claims.read(path)}
    stands = {place: claims.canonical(text) for place, text, _ in claims.listening(nbtools.read(path))[1]}
    known = {place: claims.canonical(row["claim"]) for place, row in rows.items()}
    changed = {place: text for place, text in stands.items() if known.get(place) != text}
    assert not changed and set(known) == set(stands), f"run: make claims NB={path.relative_to(ROOT)}\n{changed or set(known) - set(stands)}"
    fell = [f"{row['held']} of {row['runs']}: {row['claim']}" for row in rows.values() if not int(row["held"]) == int(row["runs"]) >= 10]
    assert not fell, f"{path.name} claims what does not hold with other seeds:\n" + "\n".join(fell)


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_only_code_with_outputs_is_measured(path):
    for cell in nbtools.read(path).cells:
        if "measured" in cell.metadata.get("tags", []):
            assert path in LESSONS and cell.cell_type == "code" and cell.outputs, f"{path.name}: nothing is measured here:\n{cell.source}"


def test_lessons_need_only_what_make_lab_installs():
    """Every package that a lesson imports comes with the core or the extra `course`, or with one of their packages."""
    import importlib.metadata
    from configparser import ConfigParser
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    stated = config["DEFAULT"]["requirements"].split() + config["DEFAULT"]["course_requirements"].split()
    stated += [r for extra in ("export", "compress", "log") for r in config["DEFAULT"][f"{extra}_requirements"].split()]  # in course
    plain = {re.split(r"[<>=]", r)[0].lower().replace("_", "-") for r in stated} | {"ipython", "nnlearn"}
    distributions = importlib.metadata.packages_distributions()
    for path in BOOKS:
        if "_keras_" in path.stem:  # these say in their first cells which extra brings TensorFlow
            assert any("load_tensorflow()" in source for source in list(exported_or_shown(path))[:2]), path
            continue
        for cell in nbtools.read(path).cells:
            if cell.cell_type != "code":
                continue
            for node in ast.walk(ast.parse(re.sub(r"^%.*$", "", cell.source, flags=re.M))):
                names = [node.module] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                for name in {(n or "").split(".")[0] for n in names} - sys.stdlib_module_names:
                    brought = {d.lower().replace("_", "-") for d in distributions.get(name, [name])}
                    assert brought & plain or name in ("cycler", "matplotlib_inline"), f"{path.name} imports {name}"
