"""The site without a browser: nbdev's processing, and what is on the rendered pages."""
import base64
import html
import json
import re

import pytest
import yaml
from built import ENGINES, ROOT, cells, page_names, site, site_tool, stored_explorers

from nnlearn.course.explore import decode

pytestmark = pytest.mark.slow  # every test but a few needs the site
PAGES = page_names()
TOOL = site_tool()
engines = pytest.mark.parametrize("engine", ENGINES)
notebooks = pytest.mark.parametrize("notebook", PAGES)


def processed(notebook):
    return json.loads((site(ENGINES[0])[0] / notebook).read_text())


def rendered(engine, notebook):
    return (site(engine)[1] / PAGES[notebook]).read_text()


def stored_cells(notebook):
    return [c for c in cells(notebook) if c["cell_type"] == "code"]


def hidden(cell):
    """True for cells that nbdev takes off the page."""
    return any(re.match(r"#\|\s*(hide|export|exporti|default_exp|include:\s*false)(\s|$)", line)
               for line in "".join(cell["source"]).splitlines())


def plain(text):
    """Text without tags and spaces, to look for outputs wherever a renderer puts its own."""
    return re.sub(r"\s+", "", html.unescape(re.sub(r"<[^>]+>", "", text)))


@notebooks
def test_front_matter_is_title_and_description(notebook):
    front = TOOL.front_matter(site(ENGINES[0])[0] / notebook)
    first = "".join(cells(notebook)[0]["source"]).strip()
    title, _, rest = first.partition("\n")
    assert front["title"] == title.removeprefix("# ").strip() and title.startswith("# ")
    assert front["description"] == rest.strip().removeprefix("> ").strip() and front["description"]
    assert front.get("output-file", notebook.replace(".ipynb", ".html")) == PAGES[notebook]


def test_code_has_no_links():
    given = "see [`a`](b.html#a)\n\n```python\ndef f(\n    x, # from [`a`](b.html#a)\n)\n```\n\n[`a`](b.html#a)"
    assert TOOL.relative(given) == "see [`a`](b.html#a)\n\n```python\ndef f(\n    x, # from `a`\n)\n```\n\n[`a`](b.html#a)"


@engines
@notebooks
def test_signatures_on_a_page_show_no_markup(engine, notebook):
    assert not re.search(r"\[`[^`]+`\]\([\w.#-]+\)", html.unescape(re.sub(r"<[^>]+>", "", rendered(engine, notebook))))


@notebooks
def test_processing_leaves_no_directive_and_no_widget(notebook):
    page = processed(notebook)
    assert "widgets" not in page["metadata"]
    for cell in page["cells"]:
        assert not re.search(r"^#\|\s*(export|exports|hide|default_exp)", "".join(cell["source"]), re.M)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            assert "text/html" not in data and "application/vnd.jupyter.widget-view+json" not in data


@notebooks
def test_math_and_lists_are_written_as_pandoc_reads_them(notebook):
    for cell in cells(notebook):
        if cell["cell_type"] == "markdown":
            text = re.sub(r"```.*?```", "", "".join(cell["source"]), flags=re.S)
            glued = re.search(r"^(?![-*>|#\s]|\d+\.)\S.*\n(-|\*|\d+\.) ", text, re.M)
            assert not glued, f"a list needs a blank line before it: {text}"


@engines
def test_nothing_leads_nowhere(engine):
    assert TOOL.check_links(site(engine)[1]) == []


@engines
def test_no_page_asks_the_network(engine):
    assert TOOL.check_requests(site(engine)[1]) == []


@engines
def test_every_picture_has_an_alt_text(engine):
    assert TOOL.check_pictures(site(engine)[1]) == []


@engines
@notebooks
def test_every_stored_output_is_on_the_page(engine, notebook):
    page = rendered(engine, notebook)
    text = plain(page)
    pictures = 0
    for cell in stored_cells(notebook):
        if hidden(cell):
            continue
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "text/html" in data:
                assert TOOL.page_links("".join(data["text/html"]).strip()) in page
            elif {"image/png", "image/svg+xml"} & set(data):
                pictures += 1
            elif "text/markdown" not in data:
                said = "".join(output.get("text") or data.get("text/plain") or output.get("traceback") or "")
                assert plain(html.escape(re.sub(r"\x1b\[[0-9;]*m", "", said))) in text
    assert len(re.findall(r'<img[^>]*src="(?:figures/|[^":]*_files/)', page)) >= pictures


@engines
@notebooks
def test_explorers_arrive_whole(engine, notebook):
    page = rendered(engine, notebook)
    whole = re.findall(r'<div class="nn-explore".*?</script><script>.*?</script></div>', page, re.S)
    stored = list(stored_explorers(notebook).values())
    assert len(whole) == len(stored)
    for shown, kept in zip(whole, stored, strict=True):
        assert shown == kept and decode(shown)["types"]
        still = re.search(r'src="data:image/[^;]+;base64,([^"]+)"', shown)
        assert len(base64.b64decode(still[1])) > 500


@engines
@notebooks
def test_page_is_light(engine, notebook):
    page = rendered(engine, notebook)
    files = {f for f in re.findall(r'(?:src|href)="([^":#]+\.(?:png|svg|css|js|webp|jpe?g))"', page)}
    weight = len(page.encode()) + sum((site(engine)[1] / f).stat().st_size for f in files)
    assert weight <= 1_500_000


@engines
def test_sidebar_links_what_is_there_and_names_what_is_coming(engine):
    contents = TOOL.table_of_contents()
    items = [item for part in contents for item in part.get("contents", [part])]
    assert {item["href"] for item in items} >= set(PAGES), "a notebook is missing in the table of contents"
    page = rendered(engine, next(iter(PAGES)))
    for item in items:
        target = PAGES.get(item["href"], item["href"].replace(".qmd", ".html"))
        assert (f'href="{target}"' in page or f'href="./{target}"' in page) == (
            item["href"] in PAGES or item["href"].endswith(".qmd")), item
        assert html.escape(item["text"]) in page


@engines
def test_reference_names_everything_exported(engine):
    import importlib

    page = (site(engine)[1] / "reference.html").read_text()
    for path in (ROOT / "nnlearn").rglob("[a-z]*.py"):
        full = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name in getattr(importlib.import_module(full), "__all__", []):
            assert f'id="{full}.{name}"' in page


def test_settings_load_nothing_from_elsewhere():
    settings = yaml.safe_load((ROOT / "_quarto.yml").read_text())
    look = settings["format"]["html"]
    assert look["html-math-method"] == "mathml" and set(look["theme"]) == {"light", "dark"}
    assert settings["execute"] == {"enabled": False}
    for path in (ROOT / "assets").glob("*.*css"):
        assert not TOOL.REQUESTS.search(path.read_text()), path


@pytest.mark.parametrize("damage, check, said", [
    (lambda t: t.replace('href="core.html', 'href="gone.html'), "check_links", "gone.html"),
    (lambda t: t.replace("<main>", '<main><a href="#nowhere">x</a>'), "check_links", "nowhere"),
    (lambda t: t.replace("</head>", '<script src="https://cdn.example/x"></script></head>'), "check_requests", "cdn."),
    (lambda t: t.replace("</head>", "<style>@import '//fonts.example/a';</style></head>"), "check_requests", "@import"),
    (lambda t: t.replace("</head>", "<style>b{background:url(//x/a.png)}</style></head>"), "check_requests", "url("),
    (lambda t: t.replace("<main>", '<main><img src="assets/page.css" alt="">'), "check_pictures", "no alt text"),
    (lambda t: t.replace("<main>", '<main><img src="gone.png" alt="a">'), "check_links", "gone.png"),
])
def test_checks_find_damage(tmp_path, damage, check, said):
    import shutil

    shutil.copytree(site("pandoc")[1], tmp_path / "site")
    page = tmp_path / "site" / "core.html"
    whole = page.read_text()
    page.write_text(damage(whole))
    assert page.read_text() != whole
    assert any(said in problem for problem in getattr(TOOL, check)(tmp_path / "site"))


def test_pages_that_do_not_exist_lose_their_link():
    part = [{"text": "one", "href": "1.ipynb"}, {"text": "two", "href": "2.ipynb"}]
    listed = TOOL.present([{"section": "A", "contents": part}], {"1.ipynb"})
    assert listed[0]["contents"] == [{"text": "one", "href": "1.ipynb"}, {"text": "two (coming)"}]
