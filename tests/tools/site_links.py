"""Links in prose: lessons by number, names of the library to the reference, the names of a notebook's own pages."""
import functools
import re
from pathlib import Path

from site_symbols import ROOT, Symbol, by_name, imported, main_names, modules, page_of_module, page_of_notebook, symbols

# What a link must not be made in: blocks of code, math, links, raw HTML with its summary lines, headings.
SHUT = re.compile(r"^(?P<fence>`{3,}|~{3,})[^\n]*\n.*?^(?P=fence)[^\n]*$|\$\$.*?\$\$|(?<![\\$\w])\$(?!\s)[^$\n]+?(?<!\s)\$"
                  r"|!?\[(?:[^\[\]]|\[[^\]]*\])*\](?:\([^)]*\)|\[[^\]]*\])|<summary>.*?</summary>|<a [^>]*>.*?</a>|<[^>\n]+>"
                  r"|^\#{1,6} [^\n]*$|(?P<code>(?<!`)`[^`\n]+`(?!`))", re.M | re.S)
LESSONS = re.compile(r"\b[Ll]essons?\s+\d\d\b(?:(?:,\s+\*[^*\n]+\*)?(?:,\s+(?:and\s+)?|\s+(?:and|to|or)\s+)\d\d\b)*")
NAME = re.compile(r"`(?P<path>[A-Za-z_]\w*(?:\.\w+)*)(?:\([^`]*\))?`")


def linked(text: str, page: "Page") -> str:
    """Markdown in which lessons and names lead to their pages."""
    done, end = [], 0
    for found in SHUT.finditer(text):
        done += [lessons_linked(text[end:found.start()], page.name), page.name_link(found[0]) if found["code"] else found[0]]
        end = found.end()
    return "".join([*done, lessons_linked(text[end:], page.name)])


def lessons_linked(text: str, here: str) -> str:
    """'lesson 09' and the numbers of 'lessons 01 and 05 to 07' as links, but not to the page itself."""
    def link(shown: str, number: str) -> str:
        page = lesson_pages().get(number)
        return f"[{shown}]({page})" if page and page != here else shown

    def each(found: re.Match) -> str:
        numbers = re.findall(r"\b\d\d\b", found[0])
        if len(numbers) == 1:
            return link(found[0], numbers[0])
        return re.sub(r"\b\d\d\b(?![^*]*\*(?:[^*]*\*[^*]*\*)*[^*]*$)", lambda number: link(number[0], number[0]), found[0])

    return LESSONS.sub(each, text)


@functools.cache
def lesson_pages() -> dict[str, str]:
    """The page of every lesson by its number."""
    return {path.stem[:2]: page_of_notebook(path.stem) for path in sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))}


@functools.cache
def foreign() -> frozenset[str]:
    """Names that a reader would take for those of torch or of Python."""
    import builtins

    import torch

    spaces = [torch, torch.nn, torch.nn.functional, torch.optim, torch.optim.lr_scheduler, torch.utils.data, builtins]
    return frozenset(name for space in spaces for name in dir(space))


class Page:
    """What the names in a notebook's prose stand for: its own and the imported ones first, then those that are unmistakable."""

    def __init__(self, name: str, sources: list[str] | None = None, module: str = "", notebook: str = ""):
        self.name = name
        self.known: dict[str, Symbol] = {symbol.name: symbol for symbol in imported(sources or [])}
        for symbol in symbols().values():
            if symbol.module == module or (notebook and symbol.notebook == notebook):
                self.known[symbol.name] = symbol

    def find(self, name: str) -> Symbol | None:
        """The exported name that a word in backticks means, if it is one beyond doubt."""
        if name in self.known:
            return self.known[name]
        found = by_name().get(name, [])
        telling = ("_" in name.strip("_") or len(re.findall(r"[A-Z][a-z]+", name)) > 1 or (name.isupper() and len(name) > 3)
                   or (name[0].isupper() and name in main_names()))
        return found[0] if len(found) == 1 and telling and name not in foreign() else None

    def name_link(self, code: str) -> str:
        """A name in backticks as a link to its entry in the reference; other code as it is."""
        found = NAME.fullmatch(code)
        if not found:
            return code
        first, _, rest = found["path"].partition(".")
        if first == "nnlearn" and rest in modules():
            return self.link(code, page_of_module(rest), "")
        if first == "nnlearn" and rest:
            module, _, rest = rest.rpartition(".")
            symbol = symbols().get((module, rest)) or (self.find(rest) if not module else None)
            return self.link(code, *symbol.address.split("#")) if symbol else code
        symbol = self.find(first)
        if symbol is None or (rest and rest not in symbol.methods):
            return code
        page, anchor = symbol.address.split("#")
        return self.link(code, page, f"{anchor}.{rest}" if symbol.has_entry(rest) else anchor)

    def link(self, shown: str, page: str, anchor: str) -> str:
        if page == self.name and not anchor:
            return shown
        return f"[{shown}]({'' if page == self.name else page}{'#' + anchor if anchor else ''})"


def minutes(path: Path) -> str:
    """How long a lesson takes to read, as it says itself: '40'."""
    import json

    prose = "".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"][:4] if cell["cell_type"] == "markdown")
    found = re.search(r"(\d+) minutes to read", prose)
    return found[1] if found else ""
