"""The reference: a page for each module, a list of all names, and a page of the commands."""
import contextlib
import functools
import importlib
import io
import json
import os
import re
from typing import Any

from site_links import Page, linked
from site_symbols import (
    ROOT,
    Symbol,
    docstring_of,
    exported,
    head,
    imported,
    main_names,
    modules,
    page_of_module,
    page_of_notebook,
    symbols,
    trees,
)


def reference_pages() -> dict[str, str]:
    """The Markdown of every page, by its name without a suffix."""
    pages = {page_of_module(module).removesuffix(".html"): module_page(module) for module in modules()}
    return {"reference": index_page(), "commands": commands_page(), **pages}


def front(title: str, description: str, depth: int = 2) -> str:
    """The front matter of a page."""
    return f"---\ntitle: {json.dumps(title)}\ndescription: {json.dumps(description)}\ntoc-depth: {depth}\n---\n"


def lessons() -> list[Any]:
    """Every lesson in order."""
    from nnlearn.course.contents import COURSE
    return [lesson for part in COURSE.values() for lesson in part]


@functools.cache
def uses() -> dict[tuple[str, str], list[str]]:
    """The lessons that import a name, or define it, by their notebooks' names."""
    found: dict[tuple[str, str], list[str]] = {}
    for lesson in lessons():
        path = ROOT / "nbs" / f"{lesson.name}.ipynb"
        cells = json.loads(path.read_text())["cells"] if path.exists() else []
        used = {(s.module, s.name) for s in imported(["".join(c["source"]) for c in cells if c["cell_type"] == "code"])}
        for place in used | {place for place, symbol in symbols().items() if symbol.notebook == lesson.name}:
            found.setdefault(place, []).append(lesson.name)
    return found


def explained(symbol: Symbol) -> str:
    """Where a name is built, and the lessons that use it, as links."""
    titles = {lesson.name: f"lesson {lesson.number}, *{lesson.title}*" for lesson in lessons()}
    places = [] if not symbol.notebook else [
        f"Built in [{titles[symbol.notebook]}]({lesson_anchor(symbol)})" if symbol.notebook in titles
        else f"[Source and checks]({lesson_anchor(symbol)})"]
    others = [name for name in uses().get((symbol.module, symbol.name), []) if name != symbol.notebook]
    if others:
        shown = ", ".join(f"[{name[:2]}]({page_of_notebook(name)})" for name in others[:6])
        places.append(f"used in lesson{'s' if len(others) > 1 else ''} {shown}{' and more' if len(others) > 6 else ''}")
    return f"::: {{.nn-where}}\n{'; '.join(places)}.\n:::\n" if places else ""


def lesson_anchor(symbol: Symbol) -> str:
    """The place on a notebook's page where a name is shown."""
    anchor = f"#def-{symbol.name}" if symbol.kind != "value" else ""
    return page_of_notebook(symbol.notebook) + anchor


def shown_in_notebook(symbol: Symbol, level: int) -> str:
    """How a notebook's page shows a name that it exports: signature, docstring, a way into the reference."""
    more = f" {len(symbol.methods)} methods." if len(symbol.methods) > 1 else ""
    return (f"{'#' * level} {symbol.name} {{#def-{symbol.name}}}\n\n```python\n{symbol.signature}\n```\n\n{symbol.docstring}\n\n"
            f"::: {{.nn-where}}\n[Reference]({symbol.address}).{more}\n:::\n")


def module_page(module: str) -> str:
    """The reference page of one module."""
    names = next(exported(tree) for name, tree, _ in trees() if name == module)
    here = Page(page_of_module(module), module=module)
    notebooks = list(dict.fromkeys(s.notebook for (m, _), s in symbols().items() if m == module and s.notebook))
    titles = {lesson.name: f"lesson {lesson.number}, *{lesson.title}*" for lesson in lessons()}
    places = [f"[{titles.get(name, 'its notebook')}]({page_of_notebook(name)})" for name in notebooks]
    parts = [front(f"nnlearn.{module}", plain_line(modules()[module])),
             f"The source is in {' and '.join(places)}. [All modules](reference.html).\n" if places else ""]
    for name in sorted(names, key=lambda name: main_names().get(name) != module):  # first what nnlearn itself offers
        symbol = symbols().get((module, name))
        parts.append(entry(symbol, here) if symbol else passed_on(module, name))
    return "\n".join(parts)


def plain_line(text: str) -> str:
    """The first paragraph of a docstring on one line."""
    return " ".join(text.split("\n\n")[0].split())


def entry(symbol: Symbol, here: Page) -> str:
    """One exported name: import line, signature, what it does, its methods."""
    names = registry_names(symbol, here) if symbol.kind == "value" else ""
    signature = re.sub(r"\A(\w+ = Registry\(\s*\"[^\"]*\").*", r"\1, ...)", symbol.signature, flags=re.S) if names else symbol.signature
    parts = [f"## {symbol.name} {{#{symbol.name}}}", "", f"::: {{.nn-import}}\n`{symbol.import_line}`\n:::\n",
             f"```python\n{signature}\n```\n", linked(symbol.docstring, here), "", explained(symbol)]
    parts.append(names)
    brief = [head(node, symbol.lines) for name, node in symbol.methods.items() if not symbol.has_entry(name)]
    if brief:
        parts += ["```python\n" + "\n".join(brief) + "\n```\n"]
    for name, node in symbol.methods.items():
        if symbol.has_entry(name):
            parts += [f"### {symbol.name}.{name} {{#{symbol.name}.{name}}}", "", f"```python\n{head(node, symbol.lines)}\n```\n",
                      linked(docstring_of(node), here), ""]
    return "\n".join(parts)


def passed_on(module: str, name: str) -> str:
    """A name that a module passes on from another one."""
    value = getattr(importlib.import_module(f"nnlearn.{module}"), name)
    home = symbols().get((value.__module__.removeprefix("nnlearn."), name))
    link = f"[`nnlearn.{home.module}`]({home.address})" if home else f"`{value.__module__}`"
    return (f"## {name} {{#{name}}}\n\n::: {{.nn-import}}\n`from nnlearn.{module} import {name}`\n:::\n\n"
            f"Passed on from {link}.\n")


def registry_names(symbol: Symbol, here: Page) -> str:
    """The names in a registry and what each stands for; nothing for another value."""
    call = getattr(symbol.node, "value", None)
    if "Registry" not in type_name(call):
        return ""
    registry = getattr(importlib.import_module(f"nnlearn.{symbol.module}"), symbol.name)
    rows = ["| name | stands for |", "| --- | --- |"]
    for name, value in sorted(registry.data.items()):
        rows.append(f"| `{name}` | {what(value, here)} |")
    return "\n".join([f"It holds {len(registry.data)} names:\n", *rows, ""])


def type_name(call: Any) -> str:
    import ast
    return ast.unparse(call.func) if isinstance(call, ast.Call) else ""


def what(value: Any, here: Page) -> str:
    """The class or function behind a name."""
    module, name = getattr(value, "__module__", ""), getattr(value, "__name__", type(value).__name__)
    symbol = symbols().get((module.removeprefix("nnlearn."), name))
    if symbol:
        return f"[`{name}`]({symbol.address})"
    function = getattr(value, "func", None)  # of a partial
    if function is not None:
        return what(function, here)
    private = name.startswith(("_", "<"))
    return "a function of its own" if private else f"`{public_path(module, name)}`"


def public_path(module: str, name: str) -> str:
    """Where users of torch or torchmetrics find a thing: without the private folders."""
    top = {"torch.nn.modules": "torch.nn", "torch.optim.lr_scheduler": "torch.optim.lr_scheduler", "torch.optim": "torch.optim"}
    for start, short in top.items():
        if module.startswith(start):
            return f"{short}.{name}"
    return f"{module.split('.')[0]}.{name}" if module.startswith("torchmetrics") else f"{module}.{name}".removeprefix("builtins.")


def index_page() -> str:
    """All modules and their names: those of the lessons in their order, then the library's."""
    parts = [front("Reference", "Every module of the library and every name it exports"),
             "A page for each module: signatures, arguments, methods, the names in each registry, and the lesson that "
             "explains it. The [commands](commands.html) have a page of their own.\n"]
    owned = [lesson.module for lesson in lessons() if lesson.module in modules()]
    for title, chosen in (("Modules of lessons", owned), ("Modules of the library", [m for m in modules() if m not in owned])):
        parts.append(f"## {title}\n")
        for module in chosen:
            names = next(exported(tree) for name, tree, _ in trees() if name == module)
            links = ", ".join(f"[`{name}`]({page_of_module(module)}#{name})" for name in names)
            parts.append(f"### [nnlearn.{module}]({page_of_module(module)}) {{#{module}}}\n\n"
                         f"{linked(plain_line(modules()[module]), Page('reference.html'))}\n\n{links}\n")
    return "\n".join(parts)


COMMANDS = {
    "lab": "Opens the lessons in JupyterLab. `make lab` does the same after setting everything up.",
    "optimize": "Takes a model through training and the chain of stages that a YAML file names; lesson 22 explains the file.",
    "search": "Looks for good values of a config's keys; lesson 23 explains what to search and how.",
    "diagnose": "Reads the record of a training run and says what it shows; lesson 16 explains the findings.",
    "doctor": "Says what this machine and its packages can do, lesson by lesson.",
}


def commands_page() -> str:
    """What `nnlearn --help` says, command by command."""
    page = Page("commands.html")
    parts = [front("Commands", "nnlearn lab, optimize, search, diagnose and doctor: what each does and takes"),
             "After installation `nnlearn` is on the path; so is `make` in the folder of the course.\n",
             f"```text\n{command_help([])}\n```\n"]
    for name, said in COMMANDS.items():
        parts.append(f"## nnlearn {name} {{#{name}}}\n\n{linked(said, page)}\n\n```text\n{command_help([name])}\n```\n")
    return "\n".join(parts)


def command_help(command: list[str]) -> str:
    """The help text of a command, 84 characters wide."""
    from nnlearn.course.cli import main

    told, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "84"
    try:
        with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
            main([*command, "--help"])
    finally:
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    return re.sub(r"usage: \S*?(?:site|pytest|__main__)\S*", "usage: nnlearn", told.getvalue().strip())
