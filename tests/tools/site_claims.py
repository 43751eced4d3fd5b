"""The page of claims: what every lesson asserts, the number it is about, and in how many of the ten runs it held."""
import csv
import functools
import html
import json
import re
from pathlib import Path
from typing import Any

from site_symbols import ROOT, page_of_notebook

TABLES = ROOT / "tests/claims"
INTRODUCTION = """\
Every lesson says things about training, and every one of them is an assertion in a cell of that lesson. For this page all \
lessons were run ten times, with other random seeds and with the arithmetic of an older processor. Beside each assertion stand \
the smallest and the largest value of the number that it compares, and in how many of the ten runs it held.

*measured* claims are about numbers that a training or its arithmetic magnifies; *exact* ones follow from a formula, a shape or \
a count. Above the assertions of a cell stands what the lesson says right before it, and what the cell printed in the stored run.
"""


@functools.cache
def claims(lesson: str) -> list[dict[str, str]]:
    """The table of one lesson, without the claims that no run reached."""
    path = TABLES / f"{lesson}.csv"
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def claimed_cells(lesson: str) -> set[str]:
    """The ids of the cells of a lesson that claim something."""
    return {claim["cell"].rpartition(":")[0] for claim in claims(lesson)}


def place(cell: str) -> str:
    """The anchor of a cell on its page."""
    return f"claim-{cell}"


def claims_page(present: dict[str, set[str]]) -> str:
    """The page; `present` has the cells that are shown on each lesson's page, by the notebook's name."""
    from nnlearn.course.contents import COURSE

    lessons = [lesson for part in COURSE.values() for lesson in part if claims(lesson.name)]
    rows = [claim for lesson in lessons for claim in claims(lesson.name)]
    measured = [claim for claim in rows if claim["kind"] == "measured"]
    always = sum(claim["held"] == claim["runs"] for claim in rows)
    parts = ["---", "title: Claims", "description: What the lessons claim, and in how many of ten runs it held", "toc-depth: 2", "---",
             "", f"**{len(rows):,} claims, {len(measured):,} of them measured; {always:,} held in every run.**", "", INTRODUCTION, SEARCH]
    for lesson in lessons:
        told, printed = words_and_prints(ROOT / "nbs" / f"{lesson.name}.ipynb")
        cells: dict[str, list[dict[str, str]]] = {}
        for claim in claims(lesson.name):
            cells.setdefault(claim["cell"].rpartition(":")[0], []).append(claim)
        shown = present.get(lesson.name, set())
        body = "".join(group(cell, found, page_of_notebook(lesson.name), cell in shown, told.get(cell, ""), printed.get(cell, ""))
                       for cell, found in cells.items())
        table = (f'<table class="nn-claims"><thead><tr><th scope="col">claim</th><th scope="col">number</th>'
                 f'<th scope="col">held</th></tr></thead>{body}</table>')
        parts += [f"## {lesson.number} {lesson.title} {{#{lesson.name[3:]}}}", "", f"````{{=html}}\n{table}\n````", ""]
    return "\n".join([*parts, SCRIPT])


def group(cell: str, found: list[dict[str, str]], page: str, there: bool, words: str, printed: str) -> str:
    """The claims of one cell: what the lesson says, what the cell prints, and a row for each assertion."""
    target = f"{page}#{place(cell)}" if there else page
    said = f"<p>{html.escape(words)}</p>" if words else ""
    output = f"<samp>{html.escape(printed)}</samp>" if printed else ""
    top = f'<tr class="nn-said"><td colspan="3">{said}{output}<a href="{target}">to the cell</a></td></tr>'
    rows = "".join(f'<tr class="{claim["kind"]}"><td><code>{html.escape(claim["claim"])}</code></td>'
                   f'<td>{html.escape(number(claim))} <small>{claim["kind"]}</small></td>'
                   f'<td>{claim["held"]} of {claim["runs"]}</td></tr>' for claim in found)
    return f"<tbody>{top}{rows}</tbody>"


def number(claim: dict[str, str]) -> str:
    """The number that a claim is about; its smallest and largest value where they differ."""
    low, high = (short(claim[end]) for end in ("low", "high"))
    return low if low == high else f"{low} to {high}"


def short(text: str) -> str:
    """A number with three digits."""
    if not text:
        return ""
    value = float(text)
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.3g}"


def words_and_prints(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """For each cell the sentence right before it, as plain text, and the first two lines it printed.

    The heading of its section stands for a sentence when another cell that shows something is in between.
    """
    told, printed, last, heading = {}, {}, "", ""
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            last, heading = last_sentence(source), (re.findall(r"^##+ (.+)$", source, re.M) or [heading])[-1]
            continue
        told[cell["id"]] = last or (f"Under the heading “{plain(heading)}”." if heading else "")
        streams = "".join("".join(o.get("text", "")) for o in cell["outputs"] if o.get("name") == "stdout")
        lines = re.sub(r"\x1b\[[0-9;]*m", "", streams).strip().splitlines()
        printed[cell["id"]] = "\n".join(lines[:2]) + (" ..." if len(lines) > 2 else "")
        last = "" if cell["outputs"] or "assert " in source else last
    return told, printed


def last_sentence(markdown: str) -> str:
    """The last full sentence of running text; headings, lists, tables, folded parts and formulas are not."""
    text = re.sub(r"<details.*?</details>|```.*?```|\$\$.*?\$\$", "", markdown, flags=re.S)
    text = re.sub(r"^#.*$|^\s*(?:[-*>]\s|\||\d+\.\s).*$|<[^>\n]+>", "", text, flags=re.M)
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", text) if p.strip()]
    for paragraph in reversed(paragraphs):
        said = re.split(r"(?<=[.!?:])\s+(?=[A-Z*`\"'])", paragraph)
        whole = [s for s in said if len(s) > 25 and not s.startswith("**") and not s.endswith("?")]
        if whole:
            return plain(whole[-1])
    return ""


def plain(sentence: str) -> str:
    """Markdown without its marks; formulas nearly as they are read."""
    sentence = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", sentence)
    sentence = re.sub(r"\\[,;!]|\\tfrac|\\left|\\right", "", sentence)
    signs = {r"\times": "×", r"\cdot": "·", r"\le": "≤", r"\ge": "≥", r"\approx": "≈", r"\sqrt": "√", r"\alpha": "α", r"\beta": "β",
             r"\gamma": "γ", r"\delta": "δ", r"\epsilon": "ε", r"\eta": "η", r"\lambda": "λ", r"\mu": "μ", r"\sigma": "σ", r"\rho": "ρ",
             r"\log": "log", r"\ldots": "…", r"\dots": "…", r"\infty": "∞", r"\sum": "Σ", r"\pi": "π", r"\to": "→"}
    for mark, sign in sorted(signs.items(), key=lambda pair: -len(pair[0])):
        sentence = sentence.replace(mark, sign)
    return re.sub(r"[*`$]|\\(?=[a-zA-Z])", "", sentence).strip()


SEARCH = """
````{=html}
<form class="nn-filter" role="search" onsubmit="return false">
<label for="nn-words">Find a claim</label>
<input id="nn-words" type="search" placeholder="accuracy, sparsity, int8 ..." autocomplete="off">
<label class="nn-check"><input id="nn-measured" type="checkbox"> only measured</label>
<output id="nn-found" for="nn-words nn-measured" aria-live="polite"></output>
</form>
````
"""

SCRIPT = """
````{=html}
<script>
(() => {
  const words = document.getElementById("nn-words"), only = document.getElementById("nn-measured");
  const cells = [...document.querySelectorAll(".nn-claims tbody")];
  const texts = cells.map((cell) => cell.textContent.toLowerCase());
  const all = document.querySelectorAll(".nn-claims tbody tr:not(.nn-said)").length;
  const show = () => {
    const wanted = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let found = 0;
    cells.forEach((cell, i) => {
      let left = 0;
      cell.querySelectorAll("tr:not(.nn-said)").forEach((row) => {
        row.hidden = only.checked && row.className !== "measured";
        left += !row.hidden;
      });
      cell.hidden = !left || !wanted.every((word) => texts[i].includes(word));
      found += cell.hidden ? 0 : left;
    });
    document.querySelectorAll(".nn-claims").forEach((table) => {
      const empty = !table.querySelector("tbody:not([hidden])");
      table.hidden = empty;
      const heading = table.closest("section, main > *") || table;
      (heading.matches("section") ? heading : table.previousElementSibling).hidden = empty;
    });
    document.getElementById("nn-found").textContent = `${found} of ${all} claims`;
  };
  words.addEventListener("input", show);
  only.addEventListener("change", show);
  show();
})();
</script>
````
"""


def marked(cells: list[dict[str, Any]], lesson: str) -> set[str]:
    """The claiming cells of a processed lesson: those that its page shows."""
    return claimed_cells(lesson) & {str(cell.get("id")) for cell in cells}
