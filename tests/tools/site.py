"""Build the site: `python tests/tools/site.py [--out _docs] [--pandoc]`.

The notebooks are processed by nbdev into a folder of their own, with `_quarto.yml` and `assets/` beside them. Quarto
renders that folder. Without Quarto, pandoc (the engine inside it) renders every page into a plainer template.
"""
import argparse
import ast
import base64
import functools
import html
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import types
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml
from notebooks import notebooks

ROOT = Path(__file__).resolve().parents[2]
QUARTO = """Quarto could not be installed, so the pages are made by pandoc, with a plainer look and without search.
For the full site: on a machine with a normal network `make site` gets Quarto by itself (`pip install quarto-cli`);
or install it from quarto.org, so that `quarto` is on the PATH."""


# The folder that Quarto renders

def process(folder: Path) -> Path:
    """Write everything a site is rendered from into `folder`: processed notebooks, settings, assets, reference."""
    from nbdev import serve_drv

    remember_parses()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "notebooks").mkdir(parents=True)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    for source in notebooks():
        # the step of nbdev's own `proc_nbs`, which can only write into the checkout
        serve_drv.main((source, folder / source.name, filters()))
        notebook = finish(json.loads((folder / source.name).read_text()), source.name)
        (folder / source.name).write_text(json.dumps(notebook, ensure_ascii=False))
        shutil.copy(source, folder / "notebooks" / source.name)
    shutil.copytree(ROOT / "assets", folder / "assets")
    (folder / "reference.qmd").write_text(reference())
    existing = {path.name for path in folder.iterdir()}
    settings = yaml.safe_load((ROOT / "_quarto.yml").read_text())
    settings["website"]["sidebar"]["contents"] = present(table_of_contents(), existing)
    (folder / "_quarto.yml").write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return folder


def remember_parses() -> None:
    """To find a class `inspect` parses its whole module, each time anew; here it keeps the trees, which it only reads."""
    inspect.ast = types.SimpleNamespace(**{**vars(ast), "parse": functools.cache(ast.parse)})  # type: ignore[attr-defined]


def filters() -> type:
    """nbdev's filters, with signatures taken from the exported library instead of from running the notebook again."""
    from nbdev import processors

    class Documented(processors.exec_show_docs):
        def begin(self):
            super().begin()
            module = processors._default_exp(self.nb)
            self.k.run_cell(f"from nnlearn.{module} import *" if module else "")

        def __call__(self, cell):
            if not processors._is_showdoc(cell):
                return
            name = re.search(r"show_doc\((\w+)", cell.source)[1]
            if name not in self.k.user_ns:  # exported to another module, as exercises are
                del cell["source"]
                return
            self.k.cell(cell)
            if self.k.exc:
                raise RuntimeError(f"show_doc({name}) failed") from self.k.exc

        def end(self):
            """No widget state: the pages have none."""

    class Filters(processors.FilterDefaults):
        def base_procs(self):
            return [Documented if p is processors.exec_show_docs else p for p in super().base_procs()]

    return Filters


def table_of_contents() -> list[dict[str, Any]]:
    """The sidebar: the lessons by parts, the library's notebooks, the reference."""
    from nnlearn.course.contents import COURSE, LIBRARY

    parts = [{"section": f"Part {number}: {part[0].lower()}{part[1:]}",
              "contents": [{"text": f"{lesson.number} {lesson.title}", "href": f"{lesson.name}.ipynb"} for lesson in lessons]}
             for number, (part, lessons) in enumerate(COURSE.items(), 1)]
    library = [{"text": title, "href": f"{module.rpartition('.')[2]}.ipynb"} for module, title in LIBRARY.items()]
    return [{"text": "Home", "href": "index.ipynb"}, *parts, {"section": "The library", "contents": library},
            {"section": "Reference", "contents": [{"text": "All functions and classes", "href": "reference.qmd"}]}]


def present(contents: list[dict[str, Any]], existing: set[str]) -> list[dict[str, Any]]:
    """The sidebar in which pages that do not exist are text without a link."""
    listed = []
    for item in contents:
        if "contents" in item:
            item = {**item, "contents": present(item["contents"], existing)}
        elif item["href"] not in existing:
            item = {"text": f"{item['text']} (coming)"}
        listed.append(item)
    return listed


def repository() -> str:
    """The repository's address, empty while it has none."""
    from nbdev.config import get_config
    return get_config().get("git_url", "") or ""


def finish(notebook: dict[str, Any], name: str) -> dict[str, Any]:
    """A processed notebook whose links work without a server, and that loads nothing for widgets."""
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            cell["source"] = relative("".join(cell["source"]))
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = "".join(data.get("text/markdown", ""))
            if "{=html}" in text[:40]:
                data["text/markdown"] = page_links(text)
            elif text:
                data["text/markdown"] = relative(text)
    front = notebook["cells"][0]
    if front["cell_type"] == "raw":
        link = {"other-links": [{"text": "Open this notebook", "href": f"notebooks/{name}", "icon": "journal-code"}]}
        front["source"] = front["source"].rstrip().removesuffix("---").rstrip() + f"\n{yaml.safe_dump(link)}---\n"
    return notebook


def relative(text: str) -> str:
    """Links and pictures as they are beside the page; source links only when there is a repository."""
    text = re.sub(r"\]\(/?(?:library/)?([\w.-]+\.html)", r"](\1", text)
    if not repository():
        text = re.sub(r"\[source\]\([^)]*\)\{[^}]*\}\n*", "", text)
    text = re.sub(r"\[(`_\w+`)\]\([\w.-]+\.html#_\w+\)", r"\1", text)  # private names have no place of their own
    text = re.sub(r"^```.*?^```", unlinked, text, flags=re.M | re.S)
    return re.sub(r"(\]\(|(?:src|href)=\\?\")(?:\.\./)*(?:nbs/)?(?:library/)?(?=[\w./-]+)", r"\1", text)  # pages lie in one folder


def unlinked(code: re.Match) -> str:
    """A block of code without the links that were made in its comments."""
    return re.sub(r"\[(`[^`\n]+`)\]\([^)\n]*\)", r"\1", code[0])


def page_links(text: str) -> str:
    """HTML whose links to notebooks lead to their pages."""
    return re.sub(r'href="(?:\./)?(\d+_)?(\w+)\.ipynb(#[^"]*)?"', r'href="\2.html\3"', text)


# The reference

def reference() -> str:
    """One page of all exported names: signature, docstring, a line for every argument."""
    import importlib

    index = read_index()
    parts = ["---", "title: The library", "description: Every exported name, by module", "toc-depth: 2", "---", ""]
    for path in sorted((ROOT / "nnlearn").rglob("*.py")):
        if path.stem.startswith("_"):
            continue
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        module = importlib.import_module(name)
        names = getattr(module, "__all__", [])
        if names:
            parts += [f"## {name}", "", (module.__doc__ or "").strip(), ""]
            parts += [entry(module, symbol, index.get(f"{name}.{symbol}", "")) for symbol in names]
    return relative("\n".join(parts))


def read_index() -> dict[str, str]:
    """The page and anchor of every exported name, as nbdev recorded them."""
    from nnlearn._modidx import d
    return {name: place[0] for module in d["syms"].values() for name, place in module.items()}


def entry(module: Any, symbol: str, page: str) -> str:
    """One name of the reference."""
    from nbdev.showdoc import show_doc

    thing = getattr(module, symbol)
    heading = f"### {symbol} {{#{module.__name__}.{symbol}}}"
    explained = f"[Explained in its notebook]({page})\n" if page else ""
    if not inspect.isroutine(thing) and not inspect.isclass(thing):
        return f"{heading}\n\nA `{type(thing).__name__}`.\n\n{explained}"
    shown = show_doc(thing)._repr_markdown_()
    body = shown.partition(f"### {symbol}\n")[2] or shown
    lines = [heading, body, explained]
    if inspect.isclass(thing):
        lines += [f"- `{name}`: {(inspect.getdoc(method) or '').splitlines()[0]}"
                  for name, method in vars(thing).items()
                  if not name.startswith("_") and inspect.isroutine(method) and inspect.getdoc(method)]
    return "\n".join([*lines, ""])


# Rendering without Quarto

def outline(folder: Path) -> list[dict[str, Any]]:
    """The sidebar of a processed folder."""
    return yaml.safe_load((folder / "_quarto.yml").read_text())["website"]["sidebar"]["contents"]


def pages(folder: Path) -> dict[str, str]:
    """Every source of a page and the page's name: {'01_passes.ipynb': 'passes.html'}."""
    names = {}
    for source in sorted([*folder.glob("*.ipynb"), *folder.glob("*.qmd")]):
        front = front_matter(source)
        names[source.name] = front.get("output-file", source.stem + ".html")
    return names


def front_matter(source: Path) -> dict[str, Any]:
    """A page's title, description and other settings."""
    text = source.read_text()
    if source.suffix == ".ipynb":
        text = "".join(json.loads(text)["cells"][0]["source"])
    found = re.match(r"\s*---\n(.*?)\n---", text, re.S)
    return yaml.safe_load(found[1]) if found else {}


def render_pandoc(folder: Path, out: Path) -> Path:
    """Render every page of a processed folder by pandoc."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    shutil.copytree(folder / "assets", out / "assets")
    shutil.copytree(folder / "notebooks", out / "notebooks")
    names, contents = pages(folder), outline(folder)
    order = [item["href"] for part in contents for item in part.get("contents", [part]) if item.get("href") in names]
    for source, name in names.items():
        page = render_page(folder / source, out, names, contents, order)
        (out / name).write_text(page)
    if "index.html" not in names.values():
        shutil.copy(out / "reference.html", out / "index.html")
    return out


def render_page(source: Path, out: Path, names: dict[str, str], contents: list[dict[str, Any]],
                order: list[str]) -> str:
    """One page as HTML; its pictures are written beside it."""
    import pypandoc

    front = front_matter(source)
    if source.suffix == ".ipynb":
        text = markdown(json.loads(source.read_text()), out, Path(names[source.name]).stem)
    else:
        text = re.sub(r"\A\s*---\n.*?\n---\n", "", source.read_text(), flags=re.S)
    links = front.get("other-links", [])
    variables = {"sidebar": sidebar(contents, source.name, names),
                 "next": neighbours(source.name, contents, names, order),
                 "pagetitle": html.escape(front.get("title", source.stem)),
                 "description": html.escape(front.get("description", "")),
                 "notebook": links[0]["href"] if links else ""}
    arguments = ["--standalone", "--mathml", "--toc", f"--toc-depth={front.get('toc-depth', 3)}", "--wrap=preserve",
                 f"--template={ROOT / 'assets' / 'page.html'}"]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"variables": variables}, file)
        file.flush()
        arguments.append(f"--defaults={file.name}")
        command = [pypandoc.get_pandoc_path(), "--from=markdown", "--to=html5", *arguments]
        page = subprocess.run(command, input=text, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    return re.sub(r'href="([\w-]+\.(?:ipynb|qmd))(#[^"]*)?"',
                  lambda m: f'href="{names.get(m[1], m[1])}{m[2] or ""}"', page)


def sidebar(contents: list[dict[str, Any]], here: str, names: dict[str, str]) -> str:
    """The list of lessons by part."""
    lines = []
    for item in contents:
        if "contents" in item:
            lines.append(f"<h2>{html.escape(item['section'])}</h2><ul>{sidebar(item['contents'], here, names)}</ul>")
        elif item.get("href") in names:
            current = ' aria-current="page"' if item["href"] == here else ""
            lines.append(f'<li><a href="{names[item["href"]]}"{current}>{html.escape(item["text"])}</a></li>')
        else:
            lines.append(f'<li class="coming">{html.escape(item["text"])}</li>')
    text = "".join(lines)
    return f"<ul>{text}</ul>" if text.startswith("<li>") and "<h2>" in text else text


def neighbours(here: str, contents: list[dict[str, Any]], names: dict[str, str], order: list[str]) -> str:
    """Links to the pages before and after."""
    if here not in order:
        return ""
    texts = {item.get("href"): item["text"] for part in contents for item in part.get("contents", [part])}
    place = order.index(here)
    before, after = order[place - 1:place] if place else [], order[place + 1:place + 2]
    return "".join(f'<a href="{names[name]}">{arrow[0]}{html.escape(texts[name])}{arrow[1]}</a>'
                   for found, arrow in ((before, ("← ", "")), (after, ("", " →"))) for name in found)


def markdown(notebook: dict[str, Any], out: Path, stem: str) -> str:
    """A processed notebook as pandoc's Markdown, the way Quarto reads it; pictures become files."""
    parts = []
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code":
            options, code = cell_options(source)
            if options.get("include") != "false":
                parts += code_block(options, code) + outputs(cell, options, out, f"{stem}-{number}")
    return "\n\n".join(parts) + "\n"


def cell_options(source: str) -> tuple[dict[str, str], str]:
    """Quarto's options at the top of a code cell, and the code below them."""
    lines = source.splitlines()
    options = {}
    while lines and lines[0].lstrip().startswith("#|"):
        key, _, value = lines.pop(0).lstrip()[2:].partition(":")
        options[key.strip()] = value.strip().strip("\"'")
    return options, "\n".join(lines).strip("\n")


def code_block(options: dict[str, str], code: str) -> list[str]:
    """The source of a cell, folded when it says so."""
    if options.get("echo") == "false" or not code:
        return []
    fence = fence_for(code)
    block = f"{fence} python\n{code}\n{fence}"
    if options.get("code-fold") in ("true", "show"):
        opened = " open" if options["code-fold"] == "show" else ""
        summary = html.escape(options.get("code-summary", "Code"))
        return [f"<details{opened}><summary>{summary}</summary>", block, "</details>"]
    return [block]


def fence_for(text: str) -> str:
    """Backticks, more than the text has in a row."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def outputs(cell: dict[str, Any], options: dict[str, str], out: Path, stem: str) -> list[str]:
    """The stored outputs of a cell."""
    if options.get("output") == "false":
        return []
    parts = []
    for number, output in enumerate(cell.get("outputs", [])):
        data = output.get("data", {})
        picture = next((kind for kind in ("image/svg+xml", "image/png", "image/jpeg") if kind in data), None)
        if "text/markdown" in data:
            parts.append("".join(data["text/markdown"]))
        elif picture:
            parts.append(image(output, picture, options.get("fig-alt", ""), out, f"{stem}-{number}"))
        else:
            text = "".join(output.get("text") or data.get("text/plain") or output.get("traceback") or "")
            text = re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip("\n")
            fence = fence_for(text)
            parts += [f"{fence} {{.output}}\n{text}\n{fence}"] if text else []
    return parts


def image(output: dict[str, Any], kind: str, alt: str, out: Path, stem: str) -> str:
    """A picture written as a file, and the Markdown that shows it."""
    content = "".join(output["data"][kind])
    name = f"figures/{stem}.{kind.split('/')[1].split('+')[0]}"
    (out / "figures").mkdir(exist_ok=True)
    (out / name).write_bytes(content.encode() if kind == "image/svg+xml" else base64.b64decode(content))
    width = output.get("metadata", {}).get(kind, {}).get("width")
    size = f' width="{width}"' if width else ""
    return f'<p><img src="{name}" alt="{html.escape(alt)}"{size}></p>'


def render_quarto(folder: Path, out: Path) -> Path:
    """Render a processed folder by Quarto."""
    subprocess.run(["quarto", "render", str(folder), "--no-cache"], check=True)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(folder / "_docs", out)
    return out


# Looking for what is wrong with a rendered site

class Reader(HTMLParser):
    """What a page refers to, and what it can be referred to by."""

    LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "image": "href",
             "use": "href", "video": "src", "audio": "src", "object": "data", "embed": "src"}

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.pictures_without_alt: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found["id"]} if found.get("id") else set()
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if found.get(self.LOADS.get(tag, "")):
            self.loaded.append(found[self.LOADS[tag]])
        if tag == "img" and not (found.get("alt") or "").strip():
            self.pictures_without_alt.append((found.get("src") or "")[:80])


REQUESTS = re.compile(
    r"""(?:url\(\s*["']?|@import\s+["']?|import\s*\(?\s*["']|fetch\(\s*["']|src=["'])\s*(?:https?:)?//""")


def check_links(out: Path) -> list[str]:
    """Everything in a rendered site that leads nowhere, as sentences."""
    read = {page.name: Reader(page.read_text()) for page in sorted(out.glob("*.html"))}
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
        loaded = Reader(text).loaded if page.suffix == ".html" else []
        problems += [f"{page.name}: loads {address}" for address in loaded if re.match(r"(https?:)?//", address)]
        problems += [f"{page.name}: {match[0]}" for match in REQUESTS.finditer(text)]
    return problems


def check_pictures(out: Path) -> list[str]:
    """Every picture of a rendered site that says nothing to those who cannot see it."""
    return [f"{page.name}: {source} has no alt text" for page in sorted(out.glob("*.html"))
            for source in Reader(page.read_text()).pictures_without_alt]


def build(out: Path, pandoc: bool = False, folder: Path | None = None) -> str:
    """Build the site into `out`; says which program rendered it."""
    folder = process(folder or ROOT / "_proc")
    if shutil.which("quarto") and not pandoc:
        render_quarto(folder, out)
        return "quarto"
    render_pandoc(folder, out)
    return "pandoc"


def get_quarto() -> bool:
    """Whether Quarto is there: on the PATH, beside this Python, or after `pip install quarto-cli`, which downloads it."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if not shutil.which("quarto"):
        print("Quarto is not on the PATH: trying `pip install quarto-cli` ...", flush=True)
        install = [sys.executable, "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), "quarto-cli"]
        try:
            subprocess.run(install, capture_output=True, timeout=300)
        except subprocess.TimeoutExpired:
            pass
    return shutil.which("quarto") is not None


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the site.")
    parser.add_argument("--out", type=Path, default=ROOT / "_docs", help="the folder of the finished pages")
    parser.add_argument("--proc", type=Path, default=ROOT / "_proc", help="the folder of the processed notebooks")
    parser.add_argument("--pandoc", action="store_true", help="render by pandoc even where Quarto is installed")
    given = parser.parse_args()
    if not given.pandoc and not get_quarto():
        print(QUARTO)
    engine = build(given.out.resolve(), given.pandoc, given.proc.resolve())
    count = len(list(given.out.glob("*.html")))
    print(f"{count} pages rendered by {engine}: {given.out / 'index.html'}")


if __name__ == "__main__":
    main()
