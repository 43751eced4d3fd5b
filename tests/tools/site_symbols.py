"""Every name that the library exports, read from its source: signature, docstring, methods, and where it is explained."""
import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MARKER = re.compile(r"^# %% (?:\.\./)*nbs/(?:library/)?([\w.]+)\.ipynb #(\S+)$")


@dataclass
class Symbol:
    """One exported name."""

    module: str  # without the package: "builders", "keras.training"
    name: str
    node: Any  # of its syntax tree
    lines: list[str] = field(repr=False)  # of the module
    notebook: str = ""  # the notebook that defines it, without its suffix

    @property
    def kind(self) -> str:
        return {"ClassDef": "class", "FunctionDef": "function"}.get(type(self.node).__name__, "value")

    @property
    def docstring(self) -> str:
        return docstring_of(self.node)

    @property
    def methods(self) -> dict[str, ast.FunctionDef]:
        """Public methods and properties of a class, and what a call or an index does, by name."""
        if not isinstance(self.node, ast.ClassDef):
            return {}
        found = {n.name: n for n in self.node.body if isinstance(n, ast.FunctionDef) and not is_setter(n)}
        return {name: node for name, node in found.items() if not name.startswith("_") or name == "__call__"}

    def has_entry(self, method: str) -> bool:
        """Whether a method has a place of its own in the reference: when it says what it does."""
        return method in self.methods and bool(docstring_of(self.methods[method]))

    @property
    def signature(self) -> str:
        """How it is written, as code: the head of a function, a class with its fields or the arguments of its making."""
        if isinstance(self.node, ast.FunctionDef):
            return head(self.node, self.lines)
        if isinstance(self.node, ast.ClassDef):
            return self._class_head()
        source = "\n".join(self.lines[self.node.lineno - 1:self.node.end_lineno])
        return source if source.count("\n") < 12 and len(source) < 900 else f"{self.name} = ..."

    def _class_head(self) -> str:
        start = self.node.lineno - 1
        parts = [*(f"@{ast.unparse(d)}" for d in self.node.decorator_list if "dataclass" in ast.unparse(d)), self.lines[start]]
        made = next((n for n in self.node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if made is not None:
            parts += ["    " + line if line else line for line in head(made, self.lines, 84).splitlines()]
        else:
            parts += [short for n in self.node.body if isinstance(n, ast.AnnAssign)
                      and not getattr(n.target, "id", "_").startswith("_")
                      for line in self.lines[n.lineno - 1:n.end_lineno] for short in shortened(line)]
        return "\n".join(parts).rstrip(":") if len(parts) == 1 else "\n".join(parts)

    @property
    def import_line(self) -> str:
        top = main_names().get(self.name) == self.module
        return f"from nnlearn{'' if top else '.' + self.module} import {self.name}"

    @property
    def address(self) -> str:
        """Its place in the reference."""
        return f"{page_of_module(self.module)}#{self.name}"


def docstring_of(node: Any) -> str:
    """The docstring of a function or class, without its indentation."""
    documented = isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)
    return inspect.cleandoc(ast.get_docstring(node) or "") if documented else ""


def is_setter(node: ast.FunctionDef) -> bool:
    return any(ast.unparse(d).endswith(".setter") for d in node.decorator_list)


def shortened(line: str, width: int = 88) -> list[str]:
    """A line of code; a comment that makes it too long stands above it."""
    found = re.match(r"(\s*)(\S.*?)\s+# (.*)$", line)
    if len(line) <= width or not found:
        return [line]
    indent, code, comment = found.groups()
    return [*(f"{indent}# {part}" for part in textwrap.wrap(comment, width - len(indent) - 2)), indent + code]


def head(node: ast.FunctionDef, lines: list[str], width: int = 88) -> str:
    """The head of a function as it stands in the source, comments of the arguments included."""
    first = node.lineno - 1
    last = node.body[0].lineno - 1
    if isinstance(node.body[0], ast.FunctionDef | ast.ClassDef) and node.body[0].decorator_list:
        last = node.body[0].decorator_list[0].lineno - 1
    if last <= first:  # all on one line
        return ast.unparse(node).split("\n")[0].rstrip(":")
    shown = lines[first:last]
    while shown and not re.match(r".*:\s*(#.*)?$", shown[-1]):
        shown.pop()
    indent = len(shown[0]) - len(shown[0].lstrip())
    shown = [line[indent:] for line in shown]
    marks = [f"@{ast.unparse(d)}" for d in node.decorator_list
             if ast.unparse(d) in ("property", "classmethod", "staticmethod", "cached_property")]
    return "\n".join([*marks, *(short for line in shown for short in shortened(line, width))])


def page_of_module(module: str) -> str:
    """The reference page of a module: 'builders' to 'reference_builders.html'."""
    return f"reference_{module.replace('.', '_')}.html"


def page_of_notebook(stem: str) -> str:
    """The page of a notebook: '05_optimizers' to 'optimizers.html'."""
    return stem.lstrip("0123456789_") + ".html"


@functools.cache
def main_names() -> dict[str, str]:
    """The names that `nnlearn` itself offers, and their modules."""
    tree = ast.parse((ROOT / "nnlearn/__init__.py").read_text())
    table = next(n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "_WHERE")
    return ast.literal_eval(table)


@functools.cache
def modules() -> dict[str, str]:
    """Every module that exports something, and its docstring."""
    return {module: docstring_of(tree) for module, tree, _ in trees() if exported(tree)}


@functools.cache
def trees() -> tuple[tuple[str, ast.Module, tuple[str, ...]], ...]:
    """Every module of the library: name, syntax tree, lines."""
    found = []
    for path in sorted((ROOT / "nnlearn").rglob("*.py")):
        if not path.stem.startswith("_"):
            source = path.read_text()
            name = ".".join(path.relative_to(ROOT / "nnlearn").with_suffix("").parts)
            found.append((name, ast.parse(source), tuple(source.splitlines())))
    return tuple(found)


def exported(tree: ast.Module) -> list[str]:
    """The names in `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


@functools.cache
def symbols() -> dict[tuple[str, str], Symbol]:
    """Every exported name, by module and name, in the order of the module."""
    found = {}
    for module, tree, lines in trees():
        wanted, defined = exported(tree), definitions(tree)
        for name in wanted:
            node = defined.get(name)
            if node is not None:
                found[module, name] = Symbol(module, name, node, list(lines), notebook_at(lines, node.lineno))
    return found


def definitions(tree: ast.Module) -> dict[str, Any]:
    """What the top level of a module binds; the last one counts."""
    found: dict[str, Any] = {}
    for node in tree.body:
        for part in [node, *(child for child in ast.iter_child_nodes(node) if isinstance(node, ast.If | ast.Try))]:
            if isinstance(part, ast.FunctionDef | ast.ClassDef):
                found[part.name] = part
            elif isinstance(part, ast.Assign | ast.AnnAssign):
                targets = part.targets if isinstance(part, ast.Assign) else [part.target]
                found |= {n.id: part for target in targets for n in ast.walk(target)
                          if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return found


def notebook_at(lines: tuple[str, ...], line: int) -> str:
    """The notebook that a line of a module was written in."""
    for text in reversed(lines[:line]):
        found = MARKER.match(text)
        if found:
            return found[1]
    return ""


@functools.cache
def by_name() -> dict[str, list[Symbol]]:
    """Every exported name, wherever it is defined."""
    found: dict[str, list[Symbol]] = {}
    for (_, name), symbol in symbols().items():
        found.setdefault(name, []).append(symbol)
    return found


def imported(sources: list[str]) -> Iterator[Symbol]:
    """The exported names that code imports from the library."""
    for source in sources:
        try:
            tree = ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.M))
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nnlearn":
                module = (node.module or "").partition(".")[2]
                for alias in node.names:
                    place = (module or main_names().get(alias.name, ""), alias.name)
                    if place in symbols():
                        yield symbols()[place]
