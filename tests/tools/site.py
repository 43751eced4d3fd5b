"""Build the site: `python tests/tools/site.py [--out _docs] [--pandoc]`.

The notebooks are processed by nbdev into a folder of their own, with `_quarto.yml` and `assets/` beside them. Quarto
renders that folder. Without Quarto, pandoc (the engine inside it) renders every page into a plainer template.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from notebooks import notebooks
from site_checks import (  # noqa: F401
    REQUESTS,
    check_headings,
    check_links,
    check_pictures,
    check_requests,
    check_sources,
    check_weight,
)
from site_claims import claimed_cells, claims_page, place
from site_links import Page, lesson_pages, linked, minutes  # noqa: F401
from site_pandoc import front_matter, leaves, render_pandoc  # noqa: F401
from site_reference import page_of_module, reference_pages, shown_in_notebook
from site_symbols import modules, page_of_notebook, symbols

ROOT = Path(__file__).resolve().parents[2]
QUARTO = """Quarto could not be installed, so the pages are made by pandoc, with a plainer look and without search.
For the full site: on a machine with a normal network `make site` gets Quarto by itself (`pip install quarto-cli`);
or install it from quarto.org, so that `quarto` is on the PATH."""


# The folder that Quarto renders

def process(folder: Path) -> Path:
    """Write everything a site is rendered from into `folder`: processed notebooks, settings, assets, reference."""
    from nbdev import serve_drv

    shutil.rmtree(folder, ignore_errors=True)
    (folder / "notebooks").mkdir(parents=True)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    present: dict[str, set[str]] = {}
    for source in notebooks():
        # the step of nbdev's own `proc_nbs`, which can only write into the checkout
        serve_drv.main((source, folder / source.name, filters()))
        notebook = finish(json.loads((folder / source.name).read_text()), source)
        present[source.stem] = {str(cell.get("id")) for cell in notebook["cells"]}
        (folder / source.name).write_text(json.dumps(notebook, ensure_ascii=False))
        shutil.copy(source, folder / "notebooks" / source.name)
    shutil.copytree(ROOT / "assets", folder / "assets")
    for name, text in {**reference_pages(), "claims": claims_page(present)}.items():
        (folder / f"{name}.qmd").write_text(text)
    existing = {path.name for path in folder.iterdir()}
    settings = yaml.safe_load((ROOT / "_quarto.yml").read_text())
    settings["website"]["sidebar"]["contents"] = offered(table_of_contents(), existing)
    (folder / "_quarto.yml").write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return folder


def filters() -> type:
    """nbdev's filters; signatures come from the exported library, so that no notebook runs, and links are ours."""
    from nbdev import processors

    class Documented(processors.Processor):
        """Shows what a cell exports: its signature and docstring, as Markdown."""

        def begin(self):
            self.module, self.level = processors._default_exp(self.nb), 2
            self.shown: set[str] = set()

        def __call__(self, cell):
            if cell.cell_type == "markdown" and re.search(r"^## ", cell.source, re.M):
                self.level = 3
            if not processors._is_showdoc(cell):
                return
            symbol = symbols().get((self.module, re.search(r"show_doc\((\w+)", cell.source)[1]))
            if symbol is None or symbol.name in self.shown:  # exported to another module, or with several signatures
                del cell["source"]
                return
            self.shown.add(symbol.name)
            cell.cell_type, cell.source = "markdown", shown_in_notebook(symbol, self.level)
            for key in ("outputs", "execution_count"):
                cell.pop(key, None)

    def folded(cell):
        """The source of what is exported stands below its signature, folded."""
        if cell.cell_type == "code" and "exports" in cell.directives_ and "code-fold:" not in cell.directives_:
            names = re.findall(r"^(?:class|def) (\w+)|^(\w+)(?::[^=\n]*)? = ", cell.source, re.M)
            names = [name for pair in names for name in pair if name]
            shown = [name for name in names if not name.startswith("_")] or names
            summary = f"Source of {', '.join(shown)}" if 0 < len(shown) < 4 else "Source" if names else "Imports of the module"
            cell.source = f'#| code-fold: true\n#| code-summary: "{summary}"\n{cell.source}'

    class InOrder(processors.add_show_docs):
        """What a cell defines is shown in the order of the cell; nbdev turns it round."""

        def begin(self):
            super().begin()
            cells, run = self.nb.cells, []
            for number in range(len(cells) + 1):
                if number < len(cells) and getattr(cells[number], "has_sd", 0):
                    run.append(cells[number])
                elif run:
                    cells[number - len(run):number] = run[::-1]
                    run = []

    class SourceLast(processors.Processor):
        """The source of a cell stands below everything that it defines."""

        def begin(self):
            cells = self.nb.cells
            for source in [cell for cell in cells if cell.cell_type == "code" and "exports" in cell.directives_]:
                place = next(number for number, cell in enumerate(cells) if cell is source)
                after = place + 1
                while after < len(cells) and getattr(cells[after], "has_sd", 0):
                    after += 1
                cells.insert(after - 1, cells.pop(place))

    class Filters(processors.FilterDefaults):
        def base_procs(self):
            other = {processors.exec_show_docs: Documented, processors.add_fold: folded, processors.mv_exports: SourceLast,
                     processors.add_show_docs: InOrder}
            return [other.get(p, p) for p in super().base_procs() if p not in (processors.add_links, processors.clean_show_doc)]

    return Filters


def table_of_contents() -> list[dict[str, Any]]:
    """The sidebar: the lessons by parts, the library's notebooks, the reference."""
    from nnlearn.course.contents import COURSE, LIBRARY

    parts = [{"section": f"Part {number}: {part[0].lower()}{part[1:]}",
              "contents": [{"text": f"{lesson.number} {lesson.title}", "href": f"{lesson.name}.ipynb"} for lesson in lessons]}
             for number, (part, lessons) in enumerate(COURSE.items(), 1)]
    library = [{"text": title, "href": f"{module.rpartition('.')[2]}.ipynb"} for module, title in LIBRARY.items()]
    pages = [{"text": f"nnlearn.{module}", "href": page_of_module(module).replace(".html", ".qmd")} for module in sorted(modules())]
    return [{"text": "Home", "href": "index.ipynb"}, *parts,
            {"section": "Reference", "contents": [{"text": "All modules and names", "href": "reference.qmd"},
                                                  {"text": "Commands", "href": "commands.qmd"}, {"text": "Claims", "href": "claims.qmd"}]},
            {"section": "Reference by module", "contents": pages}, {"section": "The library", "contents": library}]


def offered(contents: list[dict[str, Any]], existing: set[str]) -> list[dict[str, Any]]:
    """The sidebar in which pages that do not exist are text without a link."""
    listed = []
    for item in contents:
        if "contents" in item:
            item = {**item, "contents": offered(item["contents"], existing)}
        elif item["href"] not in existing:
            item = {"text": f"{item['text']} (coming)"}
        listed.append(item)
    return listed


def finish(notebook: dict[str, Any], path: Path) -> dict[str, Any]:
    """A processed notebook whose links work without a server, with its number, a way to run it and places to be led to."""
    notebook["metadata"].pop("widgets", None)
    cells = notebook["cells"]
    code = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    module = next((found[1] for found in (re.search(r"#\|\s*default_exp\s+(\S+)", source) for source in code) if found), "")
    page = Page(page_of_notebook(path.stem), code, module, path.stem)
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text = linked(relative(text), page)
        cell["source"] = text
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            shown = "".join(data.get("text/markdown", ""))
            if "{=html}" in shown[:40]:
                data["text/markdown"] = page_links(shown)
            elif shown:
                data["text/markdown"] = linked(relative(shown), page)
    if cells[0]["cell_type"] == "raw":
        cells[0]["source"] = front_of(cells[0]["source"], path)
        cells[1:1] = [text_cell(how_to_run(path))] if path.stem != "index" else []
    notebook["cells"] = [part for cell in cells for part in arranged(cell, claimed_cells(path.stem))]
    for cell in notebook["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)  # Quarto joins a string's lines
    return notebook


def front_of(text: str, path: Path) -> str:
    """A page's front matter with the number of the lesson in its title and a link to the notebook."""
    front = yaml.safe_load(text.strip().strip("-"))
    if path.stem[:2].isdigit():
        front["title"] = f"{path.stem[:2]} {front['title']}"
    front["other-links"] = [{"text": "Open this notebook", "href": f"notebooks/{path.name}", "icon": "journal-code"}]
    return f"---\n{yaml.safe_dump(front, allow_unicode=True, sort_keys=False)}---\n"


def how_to_run(path: Path) -> str:
    """The line at the top of a page: which part, how long, how to run it."""
    from nnlearn.course.contents import COURSE

    part = next((part for part, lessons in COURSE.items() for lesson in lessons if lesson.name == path.stem), "")
    facts = [f"Part *{part}*", f"{minutes(path)} minutes to read"] if part and minutes(path) else []
    run = (f"to run it, type `make lab` in the folder of the course and open `{path.relative_to(ROOT)}`, "
           f"or [download the notebook](notebooks/{path.name})")
    text = " · ".join([*facts, run])
    return f"::: {{.nn-run}}\n{text[0].upper()}{text[1:]}\n:::\n"


def arranged(cell: dict[str, Any], claiming: set[str]) -> list[dict[str, Any]]:
    """A cell with a place that claims can lead to; a solution is folded together with its outputs."""
    around = []
    if str(cell.get("id")) in claiming:
        around.append(text_cell(f'<div id="{place(cell["id"])}" class="nn-place"></div>'))
    if "solution" not in cell["metadata"].get("tags", []) or cell["cell_type"] != "code":
        return [*around, cell]
    summary = re.search(r"^#\|\s*code-summary:\s*\"?(.*?)\"?$", cell["source"], re.M)
    cell["source"] = re.sub(r"^#\|\s*code-(?:fold|summary):.*\n", "", cell["source"], flags=re.M)
    opening = f'<details class="solution"><summary>{summary[1] if summary else "Solution"}</summary>'
    return [text_cell(opening), *around, cell, text_cell("</details>")]


def text_cell(text: str) -> dict[str, Any]:
    """A Markdown cell of our own."""
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def relative(text: str) -> str:
    """Links and pictures as they are beside the page; source links only when there is a repository."""
    text = re.sub(r"\]\(/?(?:library/)?([\w.-]+\.html)", r"](\1", text)
    text = re.sub(r"^```.*?^```", unlinked, text, flags=re.M | re.S)
    return re.sub(r"(\]\(|(?:src|href)=\\?\")(?:\.\./)*(?:nbs/)?(?:library/)?(?=[\w./-]+)", r"\1", text)  # pages lie in one folder


def unlinked(code: re.Match) -> str:
    """A block of code without the links that were made in its comments."""
    return re.sub(r"\[(`[^`\n]+`)\]\([^)\n]*\)", r"\1", code[0])


def page_links(text: str) -> str:
    """HTML whose links to notebooks lead to their pages."""
    return re.sub(r'href="(?:\./)?(\d+_)?(\w+)\.ipynb(#[^"]*)?"', r'href="\2.html\3"', text)


def render_quarto(folder: Path, out: Path) -> Path:
    """Render a processed folder by Quarto."""
    subprocess.run(["quarto", "render", str(folder), "--no-cache"], check=True)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(folder / "_docs", out)
    return out


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
