"""Find a browser for tests/browser, and install one where there is none: `browser.py` prints its path."""
import os
import shutil
import subprocess
import sys


def find() -> str | None:
    """The path of a Chromium: `CHROMIUM`, the system's, or the one Playwright brought."""
    names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    mac = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
    found = os.environ.get("CHROMIUM") or next((p for n in names if (p := shutil.which(n))), None)
    if found:
        return found
    if os.path.exists(mac):
        return mac
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if os.path.exists(path) else None


def install() -> None:
    """Debian's package where that is possible, else Playwright's own browser."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "stdout": subprocess.DEVNULL}
        subprocess.run(["apt-get", "update", "-qq"], check=False, **quiet)
        done = subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core"],
                              check=False, **quiet)
        if done.returncode == 0:
            return
    subprocess.run([sys.executable, "-m", "playwright", "install", "--with-deps" if os.geteuid() == 0 else "--no-shell",
                    "chromium"], check=False)


def main() -> int:
    """Say where the browser is, or how to get one."""
    if find() is None:
        print("No browser found: installing Chromium for the browser tests ...", flush=True)
        install()
    path = find()
    if path is None:
        print("The browser tests need Chromium. Install it (Debian: apt-get install chromium; macOS: Chrome), "
              "or set CHROMIUM=/path/to/it.")
        return 1
    print(f"Browser: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
