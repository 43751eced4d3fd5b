"""JupyterLab in a real browser: a lesson opens, runs, and its explorer moves by keyboard."""
import json
import re
import secrets
import shutil

import pytest

from .conftest import ROOT

LESSONS = [name for name in ("09_schedules.ipynb",) if (ROOT / "nbs" / name).exists()] or ["00_explore.ipynb"]
READY = """async () => {
  await window.jupyterapp.restored;
  const widget = window.jupyterapp.shell.currentWidget;
  await widget.context.ready; await widget.sessionContext.ready;
  await widget.sessionContext.session.kernel.info;
}"""
RUN_ALL = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
THEME = "(name) => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
SHOWN = "(cell) => document.querySelectorAll('.jp-Notebook .jp-Cell')[cell]?.querySelector('.nn-live .nn-plot')?.innerHTML"


def open_lab(lab, open_page, notebook):
    """A page with this notebook open and its kernel ready."""
    address, token, folder = lab
    if not (folder / notebook).exists():
        shutil.copy(ROOT / "nbs" / notebook, folder / notebook)
    page = open_page(f"{address}/lab/workspaces/{secrets.token_hex(8)}/tree/{notebook}?token={token}", offline=False)
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=30_000)
    page.evaluate(READY)
    return page


def explorer_cells(notebook):
    """Numbers of the cells whose stored output is an explorer."""
    cells = json.loads((ROOT / "nbs" / notebook).read_text())["cells"]
    return [n for n, cell in enumerate(cells) for o in cell.get("outputs", [])
            if "nn-explore" in "".join(o.get("data", {}).get("text/html", ""))]
