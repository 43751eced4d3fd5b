"""In how many of ten runs does every assertion of a lesson hold? `claims.py [--quick] [NB...]`, or `make claims NB=...`.

Each lesson is replayed on the library with five shifts of every seed, natively and under the oldest numerics (`numerics.py`).
An assertion that falls does not stop its cell: all are written down, with the numbers that they compared. The result is
`tests/claims/LESSON.csv`: in how many of the runs each held, and the range of the number it is about. `--quick` tries three
shifts natively and writes nothing.
"""
import ast
import csv
import json
import os
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import notebooks as nbtools
from IPython.core.inputtransformer2 import TransformerManager
from strict import DEFAULT, EXPORT, MEASURED, replayed

TABLES = nbtools.ROOT / "tests/claims"
SHIFTS = (1000, 2000, 3000, 4000, 5000)
COLUMNS = ("cell", "claim", "kind", "runs", "held", "low", "high", "fell")


def lessons() -> list[Path]:
    """The notebooks that are lessons, in order."""
    return [path for path in nbtools.notebooks() if path.stem[:2].isdigit() and path.stem[:2] != "00"]


class Listen(ast.NodeTransformer):
    """Turns the assertions of a cell into notes of a recorder; those inside of functions and of `with pytest.raises` stay."""

    def __init__(self, cell: str, source: str):
        self.cell, self.source, self.claims = cell, source, []

    def visit_FunctionDef(self, node):
        return node

    visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = visit_FunctionDef

    def visit_With(self, node):
        return node if any("raises" in ast.unparse(item) for item in node.items) else self.generic_visit(node)

    def visit_Assert(self, node):
        parts = node.test.values if isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And) else [node.test]
        return [self.note(part) for part in parts]

    def note(self, part: ast.expr) -> ast.stmt:
        """The statement that writes down one condition."""
        place = f"{self.cell}:{len(self.claims)}"
        self.claims.append((place, " ".join((ast.get_source_segment(self.source, part) or "").split())))
        call, values = "truth", [part]
        if isinstance(part, ast.Compare):
            names = tuple(type(op).__name__ for op in part.ops)
            call, values = "compare", [ast.Constant(names), part.left, *part.comparators]
        tried = ast.parse(f"try:\n    _claims.{call}({place!r})\nexcept Exception as _error:\n    _claims.fell({place!r}, _error)").body[0]
        tried.body[0].value.args += values
        return tried


PARSING = threading.Lock()  # Python 3.11 counts the depth of a syntax tree once for all threads, and raises SystemError


def listening(nb: nbformat.NotebookNode) -> tuple[nbformat.NotebookNode, list[tuple[str, str, bool]]]:
    """The notebook for a claim run, and its claims: (place, assertion, whether its cell is measured)."""
    module, claims = "", []
    for number, cell in enumerate(nb.cells):
        if cell.cell_type != "code":
            continue
        module = (DEFAULT.search(cell.source) or [None, module])[1]
        if EXPORT.search(cell.source):
            cell.source = replayed(cell.source, module)
            continue
        source = TransformerManager().transform_cell(cell.source)
        listen = Listen(str(cell.get("id", number)), source)
        tree = ast.fix_missing_locations(listen.visit(ast.parse(source)))
        if listen.claims:
            cell.source = ast.unparse(tree)
            claims += [(place, text, MEASURED in cell.metadata.get("tags", [])) for place, text in listen.claims]
    return nb, claims


def canonical(claim: str) -> str:
    """An assertion without its lay-out, so that one that only runs over other lines is still the same."""
    try:
        return ast.unparse(ast.parse(claim, mode="eval"))
    except SyntaxError:
        return claim


def one_run(path: Path, shift: int, profile: str) -> dict[str, list]:
    """Replay a lesson; what became of its assertions, and under `errors` of the cells that did not end."""
    with PARSING:
        nb, _ = listening(nbtools.read(path))
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "claims.json")
        before = (f"import sys as _sys\n_sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
                  "from claim_recorder import recorder as _claims\n_sys.path.pop(0);")
        nb.cells.append(nbformat.v4.new_code_cell(f"_claims.save({str(result)!r})"))
        done = nbtools.run(nb, path.parent, profile, before, stop=False, NNLEARN_SEED_SHIFT=str(shift))
        found = json.loads(result.read_text())
    found["errors"] += [f"{cell.id}: {o.ename}: {o.evalue}"[:300] for cell in done.cells for o in cell.get("outputs", [])
                       if o.output_type == "error"]
    return found


def rows_of(path: Path, runs: dict[str, dict]) -> list[dict]:
    """A row for each assertion of a lesson."""
    rows = []
    for place, text, measured in listening(nbtools.read(path))[1]:
        found = {name: run.get(place) for name, run in runs.items()}
        low, high = spread([f[1] for f in found.values() if f and f[1]])
        varies = len({json.dumps(f) for f in found.values()}) > 1
        rows.append({"cell": place, "claim": text, "kind": "measured" if measured or varies else "exact", "runs": len(runs),
                     "held": sum(bool(f and f[0]) for f in found.values()), "low": low, "high": high,
                     "fell": " ".join(name for name, f in found.items() if not (f and f[0]))})
    return rows


def spread(compared: list[list[float | None]]) -> tuple[str, str]:
    """The smallest and the largest value of the compared number that varies most from run to run."""
    columns = [[value for value in column if value is not None] for column in zip(*compared)]
    columns = [column for column in columns if column]
    if not columns:
        return "", ""
    widest = max(columns, key=lambda column: (max(column) - min(column)) / (max(map(abs, column)) or 1.0))
    return f"{min(widest):.6g}", f"{max(widest):.6g}"


def write(path: Path, rows: list[dict]) -> None:
    """Write the table of a lesson."""
    TABLES.mkdir(exist_ok=True)
    with (TABLES / f"{path.stem}.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def read(path: Path) -> list[dict]:
    """The committed table of a lesson."""
    with (TABLES / f"{path.stem}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main(arguments: list[str]) -> int:
    """The command line; the exit code is 1 when a claim fell."""
    quick, fell = "--quick" in arguments, 0
    paths = [Path(name).resolve() for name in arguments if not name.startswith("--")] or lessons()
    ways = [(shift, "native") for shift in SHIFTS[:3]] if quick else \
           [(shift, profile) for profile in ("native", "default") for shift in SHIFTS]
    os.chdir(nbtools.ROOT)
    for path in paths:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(one_run, [path] * len(ways), *zip(*ways)))
        runs = {f"{shift}/{profile}": run for (shift, profile), run in zip(ways, found, strict=True)}
        rows = rows_of(path, runs)
        bad = [row for row in rows if row["held"] != row["runs"]]
        errors = [f"{name}: {error}" for name, run in runs.items() for error in run["errors"]]
        print(f"{path.stem}: {len(rows) - len(bad)} of {len(rows)} assertions hold in {len(runs)} of {len(runs)} runs", flush=True)
        for row in bad:
            print(f"   {row['cell']} {row['held']}/{row['runs']} [{row['low']} .. {row['high']}] {row['claim']}  (fell in {row['fell']})")
        print("".join(f"   {error}\n" for error in errors), end="", flush=True)
        fell += len(bad) + len(errors)
        if not quick:
            write(path, rows)
    return 1 if fell else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
