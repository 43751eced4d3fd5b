"""A pytest plugin that makes nbval strict, and replays lessons on the exported library.

`pytest --nbval nbs` runs every cell and compares every output with the stored one: text word for word, numbers to a
relative 1e-3 or half a unit of the last printed digit (integers exactly), pictures by being there with the same size,
explorers by the data they hold.
In a cell tagged `measured` (by `notebooks.py execute`, never by hand) the numbers come out of a training or of rounding
errors, which differ between processors: its words are compared just as strictly, its numbers by the band that the cell
states (`91.8 ± 0.5`: three times that), and where it states none by a fifth or ten units of the last printed digit,
whichever is larger.
`pytest --nbval --replay nbs` does the same with every exported cell replaced by an import of what it became in the
library; `--replay-outputs=no` lets the assertions decide alone. `--numerics=other` computes as another processor would,
`--seed-shift=N` moves every seed.
"""
import ast
import base64
import contextlib
import io
import math
import os
import re
import struct
import tempfile
from queue import Empty

import nbval.plugin
import numerics
import numpy as np
import pytest
from nbval.kernel import RunningKernel

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?")
EXPORT = re.compile(r"^#\|\s*exports?(?:\s+([\w.]+))?\s*$", re.M)
DEFAULT = re.compile(r"^#\|\s*default_exp\s+([\w.]+)\s*$", re.M)
STATED = re.compile(r"\s*(?:±|\+/-|\+-)\s*$")
SPACES = re.compile(r"[ \t]+")
MEASURED = "measured"
AXIS = ("low", "high", "ticks")  # of an explorer: they follow from its data
IGNORED = ("application/vnd.jupyter.widget-view+json",)


def pytest_addoption(parser):
    group = parser.getgroup("nnlearn")
    group.addoption("--replay", action="store_true", help="replace exported cells by imports of the library")
    group.addoption("--replay-outputs", choices=["yes", "no"], default="yes", help="compare outputs while replaying")
    group.addoption("--numerics", choices=["other", *numerics.PROFILES], default="native", help="compute as another processor")
    group.addoption("--seed-shift", type=int, default=0, help="added to every seed of the lessons")


# Comparing

def half_unit(number: str) -> float:
    """Half a unit of the last printed digit: 0.0005 for '1.234', 5e-6 for '1e-5'."""
    mantissa, _, exponent = number.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 0.5 * 10.0 ** (int(exponent or 0) - decimals)


def same_number(stored: str, found: str) -> bool:
    """Whole numbers must be equal; others agree to a relative 1e-3 or half a unit of the last stored digit."""
    if re.fullmatch(r"[-+]?\d+", stored) and re.fullmatch(r"[-+]?\d+", found):
        return int(stored) == int(found)
    a, b = float(stored), float(found)
    return abs(a - b) <= max(1e-3 * abs(a), half_unit(stored) * (1 + 1e-9))


def same_measured(stored: str, found: str, stated: float = 0.0) -> bool:
    """Within three times the stated uncertainty, or, without one, a fifth or ten units of the last stored digit."""
    a, b = float(stored), float(found)
    band = 3 * stated or max(0.2 * abs(a), 20 * half_unit(stored))
    return abs(a - b) <= band * (1 + 1e-9)


def text_difference(stored: str, found: str, measured: bool = False) -> str | None:
    """What differs between two texts, numbers compared by value; None when nothing does."""
    words, others = NUMBER.split(stored), NUMBER.split(found)
    if measured:  # a number of another width moves what is aligned with it
        words, others = ([SPACES.sub(" ", part).strip() for part in parts] for parts in (words, others))
    if words != others:
        return f"the text differs\n--- stored\n{stored}\n--- found\n{found}"
    numbers, pieces = NUMBER.findall(stored), NUMBER.split(stored)
    for i, (a, b) in enumerate(zip(numbers, NUMBER.findall(found))):
        stated = abs(float(numbers[i + 1])) if i + 1 < len(numbers) and STATED.match(pieces[i + 1]) else 0.0
        if not (same_measured(a, b, stated) if measured else same_number(a, b)):
            return f"{a} is stored, {b} was found\n--- stored\n{stored}\n--- found\n{found}"
    return None


def data_difference(stored, found, place: str = "explorer", measured: bool = False) -> str | None:
    """What differs between two decoded explorers: arrays to 1/1000 of their range (measured: a fifth), the rest exactly."""
    if isinstance(stored, dict) and isinstance(found, dict):
        if list(stored) != list(found):
            return f"{place}: {list(stored)} is stored, {list(found)} was found"
        keys = [k for k in stored if not (measured and k in AXIS)]
        return first(data_difference(stored[k], found[k], f"{place}.{k}", measured) for k in keys)
    if is_array(stored) and is_array(found):
        a, b = np.asarray(stored, float), np.asarray(found, float)
        if a.shape != b.shape:
            return f"{place}: shape {a.shape} is stored, {b.shape} was found"
        scale = float(np.ptp(a)) or float(np.max(np.abs(a), initial=0.0)) or 1.0
        near = np.isclose(a, b, rtol=0, atol=(0.2 if measured else 1.5e-3) * scale, equal_nan=True)
        # A measured curve may part from the stored one at a jump, on at most a tenth of its points.
        return None if (near.mean() >= 0.9 if measured else near.all()) else f"{place}: the numbers differ"
    if is_line(stored) and is_line(found) and not measured:
        apart = distance_of_lines(stored, found)
        return None if apart <= 3e-3 else f"{place}: the lines are {apart:.1%} of their height apart"
    if isinstance(stored, (list, tuple)) and isinstance(found, (list, tuple)):
        if len(stored) != len(found):
            return f"{place}: {len(stored)} parts are stored, {len(found)} were found"
        return first(data_difference(a, b, f"{place}[{i}]", measured) for i, (a, b) in enumerate(zip(stored, found)))
    if isinstance(stored, float) and isinstance(found, float):
        near = math.isclose(stored, found, rel_tol=0.2 if measured else 1e-3)
        return None if near else f"{place}: {stored} is stored, {found} was found"
    if measured and isinstance(stored, str) and isinstance(found, str):
        return text_difference(stored, found, measured) and f"{place}: {stored!r} is stored, {found!r} was found"
    return None if stored == found else f"{place}: {stored!r} is stored, {found!r} was found"


def is_line(value) -> bool:
    """True for a pair (x, y) of arrays whose x ascends: an explorer's line, of which only the points that it needs are kept."""
    return (isinstance(value, (list, tuple)) and len(value) == 2 and all(map(is_array, value)) and len(value[0]) == len(value[1]) > 1
            and bool((np.diff(np.asarray(value[0], float)) > 0).all()))


def distance_of_lines(stored, found) -> float:
    """The largest vertical distance of two lines, over their height; which points of a line are kept, its last bits decide."""
    (x, y), (other_x, other_y) = (np.asarray(line, float) for line in (stored, found))
    if abs(x[0] - other_x[0]) > 1e-3 * np.ptp(x) or abs(x[-1] - other_x[-1]) > 1e-3 * np.ptp(x):
        return float("inf")  # they do not span the same
    every = np.union1d(x, other_x)
    apart = np.abs(np.interp(every, x, y) - np.interp(every, other_x, other_y)).max()
    return float(apart / (np.ptp(y) or np.abs(y).max() or 1.0))


def is_array(value) -> bool:
    """True for an array, and for a list of two or more numbers."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fiu"
    return isinstance(value, list) and len(value) > 1 and all(isinstance(v, (int, float)) for v in value)


def first(items):
    """The first of the items that is not None."""
    return next((item for item in items if item is not None), None)


def picture_size(data: str) -> tuple:
    """Width and height of a base64 PNG; the text itself for anything else."""
    raw = base64.b64decode(data)
    return struct.unpack(">II", raw[16:24]) if raw[:4] == b"\x89PNG" else (len(raw) > 0,)


def is_blank(data: str) -> bool:
    """Whether a base64 picture holds a single colour."""
    from PIL import Image
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return all(low == high for low, high in image.convert("RGB").getextrema())


def picture_difference(stored: str, found: str) -> str | None:
    """Pictures differ when their sizes do by more than a twentieth (fonts), or when one of the two is blank."""
    a, b = picture_size(stored), picture_size(found)
    if len(a) != len(b) or any(abs(x - y) > 0.05 * max(x, y) for x, y in zip(a, b)):
        return f"a picture of {a} is stored, one of {b} was found"
    if is_blank(stored) != is_blank(found):
        return "the stored picture is blank" if is_blank(stored) else "the picture that was found is blank"
    return None


def output_difference(stored, found, measured: bool = False) -> str | None:
    """What differs between two outputs of a cell."""
    if stored.output_type != found.output_type:
        return f"an output of type {stored.output_type} is stored, one of type {found.output_type} was found"
    if stored.output_type == "stream":
        if stored.name != found.name:
            return f"{stored.name} is stored, {found.name} was found:\n{found.text}"
        return text_difference(stored.text, found.text, measured)
    if stored.output_type == "error":
        return text_difference(f"{stored.ename}: {stored.evalue}", f"{found.ename}: {found.evalue}", measured)
    kinds = [sorted(k for k in o.data if k not in IGNORED) for o in (stored, found)]
    if kinds[0] != kinds[1]:
        return f"{kinds[0]} are stored, {kinds[1]} were found"
    return first(mime_difference(kind, stored.data[kind], found.data[kind], measured) for kind in kinds[0])


def mime_difference(kind: str, stored, found, measured: bool = False) -> str | None:
    """What differs between two representations of one output."""
    if kind in ("image/png", "image/jpeg", "image/webp"):
        return picture_difference(stored, found)
    if kind == "text/html" and ("nn-explore" in stored or "nn-explore" in found):
        from nnlearn.course.explore import decode
        if not ("nn-explore" in stored and "nn-explore" in found):
            return "an explorer is stored or found, not both"
        return data_difference(*(decode(html) | {"id": ""} for html in (stored, found)), measured=measured)
    if isinstance(stored, str):
        return text_difference(stored, found, measured)
    return None if stored == found else f"{kind} differs"


def outputs_difference(stored: list, found: list, measured: bool = False) -> str | None:
    """What differs between the stored outputs of a cell and those of a new run."""
    if len(stored) != len(found):
        shown = "\n".join(str(dict(o))[:600] for o in found)
        return f"{len(stored)} outputs are stored, {len(found)} were found:\n{shown}"
    return first(output_difference(a, b, measured) for a, b in zip(stored, found))


# Replaying

def assigned_names(source: str) -> list[str]:
    """The names that a cell binds at its top level, private ones and imports too; not those inside of comprehensions."""
    names: set[str] = set()
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif not isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            names |= {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()
            todo += ast.iter_child_nodes(node)
    return sorted(names)


def replayed(source: str, module: str, package: str = "nnlearn") -> str:
    """The cell's source, or, when it is exported, an import of the names it became in `package.module`."""
    match = EXPORT.search(source)
    if not match:
        return source
    name = match[1] or module
    target = package if name == "__init__" else f"{package}.{name}"
    names = [n for n in assigned_names(source) if n not in ("_", "annotations")]
    return f"from {target} import ({', '.join(names)})" if names else f"import {target}"


# The plugin: four methods of nbval's are replaced

collect_all, stop_kernel = nbval.plugin.IPyNbFile.collect, nbval.plugin.IPyNbFile.teardown
SAVE_COVERAGE = ("import sys as _sys\n_coverage = getattr(_sys.modules.get('coverage'), 'Coverage', None)\n"
                 "_running = _coverage and _coverage.current()\n_running and (_running.stop(), _running.save());")


def teardown(self):
    """Let the kernel write what it measured, if it measures, before it is ended."""
    if self.kernel is not None and self.kernel.is_alive():
        with contextlib.suppress(Empty):
            self.kernel.await_reply(self.kernel.kc.execute(SAVE_COVERAGE, store_history=False), timeout=10)
    stop_kernel(self)


def collect(self):
    """Collect cells that are all compared, those that were cleaned of their counts too."""
    replay, module = self.config.option.replay, ""
    for item in collect_all(self):
        cell = item.cell
        cell.execution_count = 0
        item.output_timeout = 60
        found = DEFAULT.search(cell.source)
        module = found[1] if found else module
        if re.search(r"^#\|\s*eval:\s*false", cell.source, re.M):
            item.options["skip"] = True
        if replay:
            # A broken example in tests/ names a package of its own.
            cell.source = replayed(cell.source, module, self.nb.metadata.get("nnlearn_package", "nnlearn"))
            if self.config.option.replay_outputs == "no":
                item.options["check"] = False
        yield item


def compare_outputs(self, test, ref, skip_compare=None):
    """Compare a cell's outputs by `outputs_difference`."""
    difference = outputs_difference(list(ref), list(test), MEASURED in self.cell.metadata.get("tags", []))
    self.comparison_traceback = [difference or ""]
    return difference is None


def execute_with_history(self, cell_input, allow_stdin=None):
    """Run a cell as a notebook does: with history, so that a trailing `;` hides a value."""
    return self.kc.execute(cell_input, allow_stdin=bool(allow_stdin), stop_on_error=False, store_history=True)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    nbval.plugin.IPyNbFile.collect, nbval.plugin.IPyNbFile.teardown = collect, teardown
    nbval.plugin.IPyNbCell.compare_outputs = compare_outputs
    RunningKernel.execute_cell_input = execute_with_history
    if config.option.nbval:
        # By the clock, for a kernel that hangs: generous, since a busy machine is no fault of a lesson.
        config.option.nbval_cell_timeout = min(config.option.nbval_cell_timeout, 900)
        config.option.nbval_kernel_startup_timeout = 300
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ["KERAS_BACKEND"] = "torch"
        os.environ["NNLEARN_HOME"] = tempfile.mkdtemp(prefix="nnlearn-home-")
        os.environ.pop("NNLEARN_ASSETS", None)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", numerics.compiled_code())
        os.environ.update(numerics.environment(config.option.numerics))
        if config.option.seed_shift:
            os.environ["NNLEARN_SEED_SHIFT"] = str(config.option.seed_shift)
