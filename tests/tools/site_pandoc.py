"""Pages by pandoc, the engine inside Quarto: for tests and for machines without Quarto."""
import base64
import html
import json
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from site_search import write_index

ROOT = Path(__file__).resolve().parents[2]


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
    (out / "figures").mkdir()
    with ThreadPoolExecutor(2) as pool:  # pandoc runs in processes of its own
        for name, page in pool.map(lambda pair: (pair[1], render_page(folder / pair[0], out, names, contents)), names.items()):
            (out / name).write_text(page)
    if "index.html" not in names.values():
        shutil.copy(out / "reference.html", out / "index.html")
    write_index(out)
    return out


def leaves(contents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pages of a sidebar in order, without its sections."""
    return [leaf for item in contents for leaf in (leaves(item["contents"]) if "contents" in item else [item])]


def render_page(source: Path, out: Path, names: dict[str, str], contents: list[dict[str, Any]]) -> str:
    """One page as HTML; its pictures are written beside it."""
    import pypandoc

    front = front_matter(source)
    if source.suffix == ".ipynb":
        text = markdown(json.loads(source.read_text()), out, Path(names[source.name]).stem)
    else:
        text = re.sub(r"\A\s*---\n.*?\n---\n", "", source.read_text(), flags=re.S)
    variables = {"sidebar": f"<ul>{sidebar(contents, source.name, names)}</ul>",
                 "next": neighbours(source.name, leaves(contents), names),
                 "pagetitle": html.escape(front.get("title", source.stem)),
                 "said": html.escape(front.get("description", "")).replace("`", ""),
                 "description": re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(front.get("description", "")))}
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
    """The list of pages by part; long sections are closed unless this page is in them."""
    lines = []
    for item in contents:
        if "contents" in item:
            inside = any(leaf.get("href") == here for leaf in leaves(item["contents"]))
            opened = " open" if inside or len(leaves(item["contents"])) < 12 else ""
            lines.append(f"<li><details{opened}><summary>{html.escape(item['section'])}</summary>"
                         f"<ul>{sidebar(item['contents'], here, names)}</ul></details></li>")
        elif item.get("href") in names:
            current = ' aria-current="page"' if item["href"] == here else ""
            lines.append(f'<li><a href="{names[item["href"]]}"{current}>{html.escape(item["text"])}</a></li>')
        else:
            lines.append(f'<li class="coming">{html.escape(item["text"])}</li>')
    return "".join(lines)


def neighbours(here: str, order: list[dict[str, Any]], names: dict[str, str]) -> str:
    """Links to the pages before and after."""
    order = [item for item in order if item.get("href") in names]
    places = [place for place, item in enumerate(order) if item["href"] == here]
    if not places:
        return ""
    before, after = order[places[0] - 1:places[0]] if places[0] else [], order[places[0] + 1:places[0] + 2]
    return "".join(f'<a href="{names[item["href"]]}" rel="{kind}">{arrow[0]}{html.escape(item["text"])}{arrow[1]}</a>'
                   for found, kind, arrow in ((before, "prev", ("← ", "")), (after, "next", ("", " →"))) for item in found)


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
            kind = ".output .columns" if in_columns(text) else ".output"
            parts += [f"{fence} {{{kind}}}\n{text}\n{fence}"] if text else []
    return parts


def in_columns(text: str) -> bool:
    """Whether a text is a table, whose lines must not be broken."""
    aligned = [len(re.findall(r"\S {2,}(?=\S)", line)) >= 2 for line in text.splitlines()]
    return any(all(aligned[start:start + 3]) for start in range(len(aligned) - 2))


def image(output: dict[str, Any], kind: str, alt: str, out: Path, stem: str) -> str:
    """A picture written as a file, and the Markdown that shows it."""
    content = "".join(output["data"][kind])
    name = f"figures/{stem}.{kind.split('/')[1].split('+')[0]}"
    (out / name).write_bytes(content.encode() if kind == "image/svg+xml" else base64.b64decode(content))
    width = output.get("metadata", {}).get(kind, {}).get("width")
    size = f' width="{width}"' if width else ""
    return f'<p><img src="{name}" alt="{html.escape(alt)}"{size}></p>'
