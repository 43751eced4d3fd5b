"""Run, clean and export the notebooks: `notebooks.py execute NB...`, `clean [NB...]`, `export`."""
import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NBS = ROOT / "nbs"
WIDGET = "application/vnd.jupyter.widget-view+json"
KEPT_METADATA = {"tags", "jupyter"}


def notebooks() -> list[Path]:
    """Every notebook of the course, in order."""
    return sorted(p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


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


def execute(path: Path, timeout: int = 300) -> None:
    """Run a notebook in place and clean it. The only thing that writes pictures into assets/."""
    nb = read(path)
    home = tempfile.mkdtemp()
    os.environ.update(NNLEARN_HOME=home, NNLEARN_ASSETS=str(ROOT / "assets"), OMP_NUM_THREADS="1", KERAS_BACKEND="torch")
    try:
        Client(nb, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    path.write_text(dumps(clean(nb)), encoding="utf-8")


def export() -> None:
    """Clean every notebook and write the library from them."""
    from nbdev.doclinks import nbdev_export

    os.chdir(ROOT)
    for path in notebooks():
        rewrite(path)
    nbdev_export(procs=None)


def rewrite(path: Path) -> None:
    """Clean one notebook's file; a file that is clean is left alone."""
    before, after = path.read_text(encoding="utf-8"), dumps(clean(read(path)))
    if before != after:
        path.write_text(after, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """The command line."""
    command, *names = arguments or ["help"]
    paths = [Path(name).resolve() for name in names] or notebooks()
    if command == "execute" and names:
        for path in paths:
            execute(path)
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
