"""Looking for what is wrong with processed notebooks and with a rendered site."""
import fnmatch
import functools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import yaml


class Reader(HTMLParser):
    """What a page refers to, and what it can be referred to by."""

    LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "image": "href",
             "use": "href", "video": "src", "audio": "src", "object": "data", "embed": "src"}

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.twice: set[str] = set()
        self.headings: list[int] = []
        self.pictures_without_alt: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if found.get("id"):
            self.twice |= {found["id"]} & self.ids
            self.ids.add(found["id"])
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if found.get(self.LOADS.get(tag, "")):
            self.loaded.append(found[self.LOADS[tag]])
        if tag == "img" and not (found.get("alt") or "").strip():
            self.pictures_without_alt.append((found.get("src") or "")[:80])


REQUESTS = re.compile(
    r"""(?:url\(\s*["']?|@import\s+["']?|import\s*\(?\s*["']|fetch\(\s*["']|src=["'])\s*(?:https?:)?//""")


@functools.cache
def _read(text: str) -> Reader:
    return Reader(text)


def read_page(page: Path) -> Reader:
    """What is on a page; the same text is read once."""
    return _read(page.read_text())


def check_links(out: Path) -> list[str]:
    """Everything in a rendered site that leads nowhere, as sentences."""
    read = {page.name: read_page(page) for page in sorted(out.glob("*.html"))}
    problems = []
    for page, found in read.items():
        for address in found.links + found.loaded:
            if re.match(r"(https?:|mailto:|data:|blob:|javascript:)", address):
                continue
            path, _, anchor = unquote(address).partition("#")
            target = path or page
            if path.startswith("/") or not (out / target).exists():
                problems.append(f"{page}: {address} leads nowhere")
            elif anchor and target in read and anchor not in read[target].ids:
                problems.append(f"{page}: {address} is not a place on {target}")
    return problems


def check_requests(out: Path) -> list[str]:
    """Every place in a rendered site that would ask the network for something."""
    problems = []
    for page in sorted([*out.rglob("*.html"), *out.rglob("*.css"), *out.rglob("*.svg")]):
        text = page.read_text()
        loaded = read_page(page).loaded if page.suffix == ".html" else []
        problems += [f"{page.name}: loads {address}" for address in loaded if re.match(r"(https?:)?//", address)]
        problems += [f"{page.name}: {match[0]}" for match in REQUESTS.finditer(text)]
    return problems


def check_pictures(out: Path) -> list[str]:
    """Every picture of a rendered site that says nothing to those who cannot see it."""
    return [f"{page.name}: {source} has no alt text" for page in sorted(out.glob("*.html"))
            for source in read_page(page).pictures_without_alt]


def check_headings(out: Path) -> list[str]:
    """Every page with more or fewer than one main heading, a skipped level, or a place that is named twice."""
    problems = []
    for page in sorted(out.glob("*.html")):
        found = read_page(page)
        if found.headings.count(1) != 1:
            problems.append(f"{page.name}: {found.headings.count(1)} headings of the first level")
        skipped = [(above, below) for above, below in zip(found.headings, found.headings[1:], strict=False) if below > above + 1]
        problems += [f"{page.name}: a heading of level {below} follows one of level {above}" for above, below in skipped]
        problems += [f"{page.name}: two places are called {name}" for name in sorted(found.twice)]
    return problems


def check_weight(out: Path, most: int = 1_500_000) -> list[str]:
    """Every page that weighs more than this many bytes with the files it loads; what all pages share counts as well."""
    problems = []
    for page in sorted(out.glob("*.html")):
        files = {path for path in read_page(page).loaded if not path.startswith("data:") and (out / path).is_file()}
        weight = page.stat().st_size + sum((out / path).stat().st_size for path in files)
        problems += [f"{page.name} weighs {weight / 1e6:.2f} MB"] if weight > most else []
    return problems


def check_sources(folder: Path) -> list[str]:
    """What Quarto would stumble over in a folder of processed notebooks, and pandoc would not."""
    problems = []
    for path in sorted(folder.glob("*.ipynb")):
        for number, cell in enumerate(json.loads(path.read_text())["cells"]):
            source = cell["source"]
            if not isinstance(source, list) or any("\n" in line[:-1] for line in source) or not all(
                    line.endswith("\n") for line in source[:-1]):
                problems.append(f"{path.name}, cell {number}: its source is not a list of lines")
            keys = re.findall(r"^#\|\s*([\w-]+):", "".join(source), re.M) if cell["cell_type"] == "code" else []
            problems += [f"{path.name}, cell {number}: the option {key} is there twice" for key in sorted(set(keys)) if keys.count(key) > 1]
    globs = yaml.safe_load((folder / "_quarto.yml").read_text())["project"]["render"]
    problems += [f"_quarto.yml renders {pattern}, which reaches into notebooks/" for pattern in globs
                 if not pattern.startswith("/") or fnmatch.fnmatch("/notebooks/01_passes.ipynb", pattern.replace("**", "*"))
                 and "/" in pattern[1:]]
    return problems
