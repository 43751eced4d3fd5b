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


def picture(target: str = "assets/explorer.png") -> None:
    """Draw the README's picture of an explorer anew: the schedules, as a page without a kernel shows them."""
    from playwright.sync_api import sync_playwright

    from nnlearn.course.explore import explore
    from nnlearn.course.explorers import schedule_types
    explorer = explore(schedule_types(), title="Learning rate schedules", x_label="optimizer step", y_label="learning rate",
                       alt="The learning rate of the chosen schedule against the optimizer step")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 860, "height": 700}, device_scale_factor=2, color_scheme="light")
        page.set_content(f"<body style='margin:24px;font-family:sans-serif'>{explorer.html}</body>")
        page.wait_for_selector(".nn-explore input[type=range]")
        page.locator(".nn-explore").screenshot(path=target)
        browser.close()


def main() -> int:
    """Say where the browser is, or how to get one; with `picture`, draw the README's picture."""
    if find() is None:
        print("No browser found: installing Chromium for the browser tests ...", flush=True)
        install()
    path = find()
    if path is None:
        print("The browser tests need Chromium. Install it (Debian: apt-get install chromium; macOS: Chrome), "
              "or set CHROMIUM=/path/to/it.")
        return 1
    if sys.argv[1:] == ["picture"]:
        picture()
    print(f"Browser: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
