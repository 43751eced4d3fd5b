"""Run, clean and export the notebooks: `notebooks.py execute NB...`, `clean [NB...]`, `export`.

`execute` runs a notebook in place, then again under other numerics (`numerics.py`) and with every weight nudged by a rounding
error after each step, as another processor might. Cells that print something else there are tagged `measured`: their numbers
are compared by a band (`strict.py`). The tag stays when a later run happens to agree; `--forget` derives all tags again.
"""
import copy
import os
import re
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numerics
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NBS = ROOT / "nbs"
WIDGET = "application/vnd.jupyter.widget-view+json"
KEPT_METADATA = {"tags", "jupyter"}


def notebooks() -> list[Path]:
    """Every notebook of the course: the library's, the lessons, the home page."""
    found = (p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
    return sorted(found, key=lambda p: (p.parent == NBS, p.name))


def find(name: str) -> Path:
    """The notebook of that file name, in whichever folder it stands."""
    return next(path for path in notebooks() if name in (path.name, path.stem))


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook as nbformat reads it."""
    return nbformat.read(str(path), as_version=4)


def has_directive(cell: nbformat.NotebookNode, directive: str) -> bool:
    """True when the cell says `#| directive` in one of its lines."""
    return any(line.startswith("#|") and line[2:].strip().startswith(directive) for line in cell.source.splitlines())


def clean_output(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what changes from run to run: counts, widget ids beside their HTML."""
    if "execution_count" in output:
        output.execution_count = None
    data = output.get("data", {})
    if WIDGET in data and "text/html" in data:
        del data[WIDGET]
    output.get("metadata", {}).pop(WIDGET, None)
    return output


def clean(nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as it is committed: outputs kept, nothing in it that a second run would change."""
    nb.metadata = nbformat.from_dict({"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}})
    for cell in nb.cells:
        cell.metadata = nbformat.from_dict({k: v for k, v in sorted(cell.metadata.items()) if k in KEPT_METADATA})
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [clean_output(o) for o in merge_streams(cell.outputs)]
    return nb


def merge_streams(outputs: list) -> list:
    """Join neighbouring pieces of one stream: where a kernel cuts them is a matter of timing."""
    merged: list = []
    for output in outputs:
        if merged and output.output_type == "stream" and merged[-1].output_type == "stream" and merged[-1].name == output.name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def dumps(nb: nbformat.NotebookNode) -> str:
    """A notebook's text, the same for the same notebook."""
    return nbformat.writes(nb, version=nbformat.NO_CONVERT, indent=1, ensure_ascii=False).rstrip("\n") + "\n"


class Client(NotebookClient):
    """nbclient, honouring `#| eval: false`."""

    async def async_execute_cell(self, cell, cell_index, *args, **kwargs):
        if cell.cell_type == "code" and has_directive(cell, "eval: false"):
            return cell
        return await super().async_execute_cell(cell, cell_index, *args, **kwargs)


# Run before a notebook's first cell: images and, after each optimizer step, weights are off by a rounding error.
NUDGE = """
import torch as _torch
from torch.optim.optimizer import register_optimizer_step_post_hook as _after_each_step

from nnlearn import datasets as _datasets

_true_split = _datasets._stratified
_nudged = lambda x: x * (1 + 2 * _torch.finfo(x.dtype).eps) if x.dtype in (_torch.float32, _torch.float64) else x
_datasets._stratified = lambda *a, **k: _datasets.Split(*(_nudged(part) for part in _true_split(*a, **k)))


@_torch.no_grad()
def _nudge(optimizer, *_):
    for _p in (p for group in optimizer.param_groups for p in group["params"]):
        _p.copy_(_nudged(_p))


_after_each_step(_nudge);
"""


def run(nb: nbformat.NotebookNode, folder: Path, profile: str = "native", before: str = "", stop: bool = True,
        timeout: int = 1800, **variables: str) -> nbformat.NotebookNode:
    """Run a copy of a notebook under a profile of numerics; `before` is executed first, `variables` are set as well."""
    nb, home = copy.deepcopy(nb), tempfile.mkdtemp()
    if before:
        nb.cells.insert(0, nbformat.v4.new_code_cell(before))
    env = {**os.environ, **numerics.environment(profile), "NNLEARN_HOME": home, "NNLEARN_ASSETS": home, "OMP_NUM_THREADS": "1",
           "KERAS_BACKEND": "torch", **variables}
    try:
        Client(nb, timeout=timeout, startup_timeout=300, kernel_name="python3", allow_errors=not stop,
               resources={"metadata": {"path": str(folder)}}).execute(env=env)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    nb.cells = nb.cells[1:] if before else nb.cells
    return clean(nb)


def execute(path: Path, forget: bool = False) -> list[str]:
    """Run a notebook in place, clean it, tag what was measured. The only thing that writes pictures into assets/.

    Gives what does not hold: assertions that fall under other numerics, measured numbers outside of their band.
    """
    from strict import MEASURED, outputs_difference

    found = run(read(path), path.parent, NNLEARN_ASSETS=str(ROOT / "assets"))
    ways = [{"profile": name} for name in numerics.PROFILES if name not in ("native", numerics.capability()) and numerics.is_x86()]
    ways.append({"before": NUDGE})
    with ThreadPoolExecutor(2) as pool:
        others = list(pool.map(lambda way: run(read(path), path.parent, stop=False, **way), ways))
    problems = []
    for number, cell in enumerate(found.cells):
        tags = [tag for tag in cell.metadata.get("tags", []) if not (forget and tag == MEASURED)]
        if cell.cell_type == "code" and "nbval-ignore-output" not in tags:
            for way, other in zip(ways, others, strict=True):
                name, again = way.get("profile", "nudged"), other.cells[number]
                error = next((o for o in again.outputs if o.output_type == "error"), None)
                if error is None and outputs_difference(cell.outputs, again.outputs):
                    tags += [MEASURED] if MEASURED not in tags else []
                    beyond = outputs_difference(cell.outputs, again.outputs, measured=True)
                    problems += [f"cell {number}, {name}: {beyond}"] if beyond else []
                elif error is not None and name != "nudged":  # a nudged run resumes to other bits, and says so
                    problems.append(f"cell {number}, {name}: {error.ename}: {error.evalue}\n{cell.source}")
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k != "tags"} | ({"tags": tags} if tags else {}))
    path.write_text(dumps(clean(found)), encoding="utf-8")
    measured = [number for number, cell in enumerate(found.cells) if MEASURED in cell.metadata.get("tags", [])]
    print(f"{path.name}: measured cells {measured}")
    return problems


def export() -> None:
    """Clean every notebook and write the library from them."""
    from nbdev.doclinks import nbdev_export
    from nbdev.export import nb_export

    os.chdir(ROOT)
    *others, last = notebooks()
    for path in (*others, last):
        rewrite(path)
    for path in others:  # in this order: cells for another notebook's module come after that module
        nb_export(path)
    nbdev_export(path=last, procs=None)
    for module in (ROOT / "nnlearn").rglob("*.py"):  # what a directive says is for the notebook and the site
        text = module.read_text(encoding="utf-8")
        if text != (plain := re.sub(r"^#\|.*\n", "", text, flags=re.M)):
            module.write_text(plain, encoding="utf-8")
    package = ROOT / "nnlearn/__init__.py"  # nbdev puts the version first, and then the docstring is none
    text = package.read_text(encoding="utf-8")
    package.write_text(re.sub(r'^(__version__ = .*\n)(""".*"""\n)', r"\2\n\1", text), encoding="utf-8")


def rewrite(path: Path) -> None:
    """Clean one notebook's file; a file that is clean is left alone."""
    before, after = path.read_text(encoding="utf-8"), dumps(clean(read(path)))
    if before != after:
        path.write_text(after, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """The command line."""
    command, *names = [a for a in arguments if not a.startswith("--")] or ["help"]
    paths = [Path(name).resolve() for name in names] or notebooks()
    if command == "execute" and names:
        problems = [f"{path.name}, {problem}" for path in paths for problem in execute(path, "--forget" in arguments)]
        print("\n\n".join(problems))
        return 1 if problems else 0
    elif command == "clean":
        for path in paths:
            rewrite(path)
    elif command == "export":
        export()
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
