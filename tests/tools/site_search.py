"""The search of pages that pandoc made (Quarto brings its own): every heading with the words below it, in one file."""
import html
import json
import re
from pathlib import Path

STOP = set("a an and are as at be but by can do for from has have in is it its no not of on one or so than that the then there these "
           "they this to was what when which with you your".split())
HEADING = re.compile(r"(?s)<h([1-3])([^>]*)>(.*?)</h\1>")


def write_index(out: Path) -> Path:
    """Write the index of a rendered site beside its scripts."""
    entries = [entry for page in sorted(out.glob("*.html")) if page.name != "claims.html" for entry in sections(page)]
    path = out / "assets/search-index.js"
    path.write_text(f"window.nnIndex = {json.dumps(entries, ensure_ascii=False, separators=(',', ':'))};\n")
    return path


def sections(page: Path) -> list[list[str]]:
    """[title, page's title, address, kind, words] of a page and of each of its sections."""
    text = page.read_text().partition("<main")[2]
    text = re.sub(r'(?s)<(pre|script|style|nav|math|svg)\b.*?</\1>|<div class="nn-explore.*?</script></div>', " ", text)
    marks = list(HEADING.finditer(text))
    title = plain(marks[0][3]) if marks else page.stem
    kind = "reference" if page.name.startswith("reference_") else "lesson" if re.match(r"\d\d ", title) else "page"
    found = []
    for number, mark in enumerate(marks):
        end = marks[number + 1].start() if number + 1 < len(marks) else len(text)
        anchor = re.search(r'id="([^"]+)"', mark[2])
        address = page.name + (f"#{anchor[1]}" if anchor and mark[1] != "1" else "")
        found.append([plain(mark[3]), title, address, kind, words(plain(text[mark.end():end]))])
    return found


def plain(text: str) -> str:
    """HTML as text on one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def words(text: str) -> str:
    """The different words of a text in the order of their first appearance."""
    return " ".join(dict.fromkeys(word for word in re.findall(r"[a-z0-9_]+(?:[.-][a-z0-9_]+)*", text.lower())
                                  if len(word) > 1 and word not in STOP))
