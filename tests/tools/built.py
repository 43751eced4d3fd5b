"""The site, built once per test run, and the explorers of a notebook made again."""
import ast
import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from notebooks import find, notebooks

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600  # seconds by the clock for a browser to do anything: on a busy machine it is slow
ENGINES = ["pandoc", "quarto"] if shutil.which("quarto") else ["pandoc"]


@functools.cache
def site_tool() -> ModuleType:
    """`tests/tools/site.py` as a module; its name belongs to a module of Python's own."""
    found = importlib.util.spec_from_file_location("nnlearn_site_tool", Path(__file__).with_name("site.py"))
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def site(engine: str) -> tuple[Path, Path]:
    """The processed notebooks and the rendered pages."""
    folder, said = _built(engine)
    assert said is None, said
    return folder / "proc", folder / "site"


@functools.cache
def _built(engine: str) -> tuple[Path, str | None]:
    """The folder of a build, and what went wrong; the workers of one test run share it, the first one builds."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if not run:
        return _build(engine, Path(tempfile.mkdtemp(prefix="nnlearn-site-")))
    import fcntl

    folder = Path(tempfile.gettempdir(), f"nnlearn-site-{run}-{engine}")
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done.json"
        if not done.exists():
            done.write_text(json.dumps(_build(engine, folder)[1]))
        return folder, json.loads(done.read_text())


def _build(engine: str, folder: Path) -> tuple[Path, str | None]:
    """Build the site in this folder."""
    command = [sys.executable, str(ROOT / "tests/tools/site.py"), "--out", str(folder / "site"), "--proc",
               str(folder / "proc")] + (["--pandoc"] if engine == "pandoc" else [])
    done = subprocess.run(command, capture_output=True, text=True)
    return folder, done.stdout + done.stderr if done.returncode else None


def page_names() -> dict[str, str]:
    """The page of every notebook, without building the site: {'01_passes.ipynb': 'passes.html'}."""
    return {path.name: path.stem.lstrip("0123456789_") + ".html" for path in notebooks()}


def cells(notebook: str) -> list[dict[str, Any]]:
    """The cells of a notebook of the course."""
    return json.loads(find(notebook).read_text())["cells"]


def stored_explorers(notebook: str, measured: bool | None = None) -> dict[int, str]:
    """The stored HTML of every explorer of a notebook, by the number of its cell; `measured`: only those that are, or are not."""
    found = {}
    for number, cell in enumerate(cells(notebook)):
        if measured is not None and measured != ("measured" in cell["metadata"].get("tags", [])):
            continue
        for output in cell.get("outputs", []):
            html = "".join(output.get("data", {}).get("text/html", ""))
            if 'class="nn-explore"' in html:
                found[number] = html
    return found


@functools.cache
def explorers(notebook: str) -> dict[int, Any]:
    """The explorers of a notebook made again, by the number of their cell; only the cells they need are run.

    Those of measured cells are left out: they come out of a training, which gives other numbers on another machine.
    """
    wanted = sorted(stored_explorers(notebook, measured=False))
    sources = ["".join(c["source"]) if c["cell_type"] == "code" else "" for c in cells(notebook)]
    if not wanted:
        return {}
    try:
        return run(sources, wanted, needed(sources, wanted))
    except NameError:
        return run(sources, wanted, set(range(len(sources))))


def excerpt(notebook: str) -> tuple[list[dict[str, Any]], list[int]]:
    """The cells that a notebook's explorers need, without their assertions, and which of these show the explorers."""
    wanted = sorted(stored_explorers(notebook))
    sources = ["".join(c["source"]) if c["cell_type"] == "code" else "" for c in cells(notebook)]
    chosen = sorted(needed(sources, wanted))
    kept = [{**cells(notebook)[number], "source": without_assertions(sources[number])} for number in chosen]
    return kept, [chosen.index(number) for number in wanted]


def without_assertions(source: str) -> str:
    """A cell without the assertions at its top level, all else as it stands."""
    lines = source.splitlines()
    for node in reversed(ast.parse(re.sub(r"^%.*$", "pass", source, flags=re.M)).body):
        if isinstance(node, ast.Assert):
            lines[node.lineno - 1:node.end_lineno] = ["pass"]
    return "\n".join(lines)


def run(sources: list[str], wanted: list[int], chosen: set[int]) -> dict[int, Any]:
    """Run the chosen cells; the values of the wanted ones."""
    import linecache

    names: dict[str, Any] = {"__name__": "__main__"}
    values = {}
    for number, source in enumerate(sources):
        if number not in chosen:
            continue
        tree = ast.parse(source)
        last = tree.body.pop() if number in wanted and isinstance(tree.body[-1], ast.Expr) else None
        file = f"<cell {number}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        exec(compile(tree, file, "exec"), names)
        if last is not None:
            values[number] = eval(compile(ast.Expression(last.value), file, "eval"), names)
    return values


def needed(sources: list[str], wanted: list[int]) -> set[int]:
    """The cells that the wanted ones need, and those that change a name which these use."""
    facts = [bound_and_used(source) for source in sources]
    imported = {name for source in sources for name in imports(source)}
    changers = [changed(source) - imported for source in sources]
    chosen, waiting = set(wanted), list(wanted)
    while waiting:
        number = waiting.pop()
        found = set()
        for name in facts[number][1]:
            binders = [n for n, (bound, _) in enumerate(facts) if name in bound and n != number]
            before = [n for n in binders if n < number]
            after = [n for n in binders if number < n < max(wanted)]  # a function may use what is defined after it
            binder = before[-1] if before else after[0] if after else None
            found |= {binder} if binder is not None else set()
            found |= {n for n in range(binder or 0, number) if name in changers[n] and binder is not None}
        waiting += found - chosen
        chosen |= found
    return chosen


def imports(source: str) -> set[str]:
    """The names that a cell imports."""
    names = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.alias)]
    return {(node.asname or node.name).split(".")[0] for node in names}


def bound_and_used(source: str) -> tuple[set[str], set[str]]:
    """The global names that a cell binds, and those that it uses, inside its functions too."""
    import symtable

    top = symtable.symtable(source, "cell", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    used, tables = {s.get_name() for s in top.get_symbols() if s.is_referenced()}, list(top.get_children())
    while tables:
        table = tables.pop()
        used |= {s.get_name() for s in table.get_symbols() if s.is_global()}
        tables += table.get_children()
    return bound, used


def changed(source: str) -> set[str]:
    """The names that a cell assigns into, decorates with, or calls a method of, outside its functions."""
    found: set[str] = set()
    for node in ast.parse(source).body:
        parts: list[ast.AST] = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            parts = list(node.decorator_list)
        for part in ast.walk(node) if not isinstance(node, ast.FunctionDef | ast.ClassDef) else ():
            if isinstance(part, ast.Expr) and isinstance(part.value, ast.Call):
                parts += [part.value.func.value] if isinstance(part.value.func, ast.Attribute) else []
            elif isinstance(part, ast.Attribute | ast.Subscript) and isinstance(part.ctx, ast.Store):
                parts.append(part.value)
        found |= {n.id for part in parts for n in ast.walk(part) if isinstance(n, ast.Name)}
    return found
