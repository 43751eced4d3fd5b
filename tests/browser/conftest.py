"""Browsers and a JupyterLab of their own for the tests in this folder."""
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from built import PATIENCE

READY = """async () => {
  const ready = async () => {
    await window.jupyterapp.restored;
    const widget = window.jupyterapp.shell.currentWidget;
    await widget.context.ready; await widget.sessionContext.ready;
    await widget.sessionContext.session.kernel.info;
  };
  const late = new Promise((_, refuse) => setTimeout(() => refuse(new Error("no kernel in time")), PATIENCE * 1000));
  await Promise.race([ready(), late]);
}""".replace("PATIENCE", str(PATIENCE))
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync"]


def pytest_collection_modifyitems(items):
    """A browser is slow, whatever it does."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("slow")


def chromium() -> str | None:
    """The browser to start: the one in CHROMIUM, the system's, or None for the one that Playwright brings."""
    named = os.environ.get("CHROMIUM")
    found = named or shutil.which("chromium") or shutil.which("chromium-browser")
    return found if found and Path(found).exists() else None


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=FLAGS, timeout=PATIENCE * 1000)
        yield started
        started.close()


@pytest.fixture()
def open_page(browser):
    """A function that opens an address and collects what must not happen: requests, errors on the console."""
    contexts = []

    def opened(address: str, *, width: int = 1100, dark: bool = False, offline: bool = True):
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=offline,
                                      color_scheme="dark" if dark else "light")
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        page.troubles, page.requests = [], []
        page.on("console", lambda m: page.troubles.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: page.troubles.append(str(e)))
        page.on("request", lambda r: page.requests.append(r.url) if not re.match(r"(file|data|blob):", r.url) else None)
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A running JupyterLab with settings of its own: (address, token, folder it serves)."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "nbs").mkdir()
    settings = folder / "lab_settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    own = {f"JUPYTER{name}_DIR": str(folder / name.strip("_").lower()) for name in
           ("_CONFIG", "LAB_SETTINGS", "LAB_WORKSPACES", "_RUNTIME", "_DATA")}
    own |= {"IPYTHONDIR": str(folder / "ipython"), "OMP_NUM_THREADS": "1", "NNLEARN_HOME": str(folder / "home")}
    log = open(folder / "log.txt", "w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root",
         "--expose-app-in-browser", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder / 'nbs'}",
         "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"],
        env={**os.environ, **own}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE
        while server.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{address}/api/status?token={token}", timeout=60)
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError((folder / "log.txt").read_text())
        yield address, token, folder / "nbs"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
        log.close()


@pytest.fixture()
def open_lab(lab, open_page):
    """A function that opens a notebook with these cells in JupyterLab and waits for its kernel."""
    address, token, folder = lab

    def opened(notebook: str, cells: list):
        kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
        cells = [nbformat.from_dict(cell) for cell in cells]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / notebook)
        workspace = f"{address}/lab/workspaces/{secrets.token_hex(8)}"
        page = open_page(f"{workspace}/tree/{notebook}?token={token}", offline=False)
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.evaluate(READY)
        return page

    return opened
