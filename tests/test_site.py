"""The site without a browser: nbdev's processing, and what is on the rendered pages."""
import base64
import contextlib
import html
import io
import json
import os
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
    number = f"{notebook[:2]} " if notebook[:2].isdigit() else ""
    assert front["title"] == number + title.removeprefix("# ").strip() and title.startswith("# ")
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
def test_pages_are_light(engine):
    assert TOOL.check_weight(site(engine)[1]) == []


def test_headings_skip_no_level_and_no_place_is_named_twice():
    assert TOOL.check_headings(site("pandoc")[1]) == []


def test_quarto_can_read_the_sources():
    assert TOOL.check_sources(site(ENGINES[0])[0]) == []


@pytest.mark.parametrize("damage, said", [
    (lambda cell: cell.update(source="".join(cell["source"])), "not a list of lines"),
    (lambda cell: cell.update(source=["#| code-fold: true\n", "#| code-fold: show\n", "x"]), "code-fold is there twice"),
    (lambda cell: cell.update(source=["a\nb\n", "c"]), "not a list of lines"),
])
def test_what_quarto_stumbles_over_is_found(tmp_path, damage, said):
    cell = {"cell_type": "code", "source": ["#| code-fold: true\n", "x = 1"], "metadata": {}, "outputs": []}
    (tmp_path / "_quarto.yml").write_text('project: {render: ["/*.ipynb"]}')
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": [cell]}))
    assert TOOL.check_sources(tmp_path) == []
    damage(cell)
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": [cell]}))
    assert [said in problem for problem in TOOL.check_sources(tmp_path)] == [True]


@pytest.mark.parametrize("pattern, fine", [("/*.ipynb", True), ("*.ipynb", False), ("/notebooks/*.ipynb", False), ("/**/*.ipynb", False)])
def test_settings_that_render_the_raw_notebooks_are_found(tmp_path, pattern, fine):
    (tmp_path / "_quarto.yml").write_text(json.dumps({"project": {"render": [pattern]}}))
    assert (TOOL.check_sources(tmp_path) == []) is fine


@engines
def test_sidebar_links_what_is_there_and_names_what_is_coming(engine):
    items = TOOL.leaves(TOOL.table_of_contents())
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

    for path in (ROOT / "nnlearn").rglob("[a-z]*.py"):
        full = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        names = getattr(importlib.import_module(full), "__all__", [])
        page = (site(engine)[1] / f"reference_{full.removeprefix('nnlearn.').replace('.', '_')}.html").read_text() if names else ""
        overview = (site(engine)[1] / "reference.html").read_text()
        for name in names:
            assert f'id="{name}"' in page and f'#{name}"' in overview
            assert f"import {name}" in page


def test_the_font_for_formulas_has_what_formulas_use():
    from fontTools.ttLib import TTFont

    font = TTFont(ROOT / "assets/math.woff")
    there, missing = set(font.getBestCmap()), set()
    for path in site("pandoc")[1].glob("*.html"):
        for formula in re.findall(r"(?s)<math.*?</math>", path.read_text()):
            parts = re.findall(r"(?s)<(mi|mn|mo)[^>]*>(.*?)</\1>", re.sub(r"(?s)<annotation.*?</annotation>", "", formula))
            for kind, text in parts:
                text = html.unescape(text)
                letters = {italic(text)} if kind == "mi" and len(text) == 1 else set(text)
                missing |= {letter for letter in letters if letter.strip() and ord(letter) not in there | {0x2061}}
    assert not missing and "MATH" in font


def italic(letter):
    """How browsers draw a variable of one letter."""
    code = ord(letter)
    if letter == "h":
        return "\u210e"
    return chr(code - 97 + 0x1d44e) if 97 <= code <= 122 else chr(code - 65 + 0x1d434) if 65 <= code <= 90 else letter


def test_settings_load_nothing_from_elsewhere():
    settings = yaml.safe_load((ROOT / "_quarto.yml").read_text())
    look = settings["format"]["html"]
    assert look["html-math-method"] == "mathml" and set(look["theme"]) == {"light", "dark"}
    assert settings["execute"] == {"enabled": False} and look["respect-user-color-scheme"] is True
    for path in (ROOT / "assets").glob("*.*css"):
        assert not TOOL.REQUESTS.search(path.read_text()), path


@pytest.mark.parametrize("damage, check, said", [
    (lambda t: t.replace('href="core.html', 'href="gone.html'), "check_links", "gone.html"),
    (lambda t: t.replace("</main>", '<a href="#nowhere">x</a></main>'), "check_links", "nowhere"),
    (lambda t: t.replace("</head>", '<script src="https://cdn.example/x"></script></head>'), "check_requests", "cdn."),
    (lambda t: t.replace("</head>", "<style>@import '//fonts.example/a';</style></head>"), "check_requests", "@import"),
    (lambda t: t.replace("</head>", "<style>b{background:url(//x/a.png)}</style></head>"), "check_requests", "url("),
    (lambda t: t.replace("</main>", '<img src="assets/page.css" alt=""></main>'), "check_pictures", "no alt text"),
    (lambda t: t.replace("</main>", '<img src="gone.png" alt="a"></main>'), "check_links", "gone.png"),
    (lambda t: t.replace("</main>", "<h1>again</h1></main>"), "check_headings", "2 headings"),
    (lambda t: t.replace("</main>", "<h2>a</h2><h4>b</h4></main>"), "check_headings", "of level 4 follows"),
    (lambda t: t.replace("</main>", '<p id="nn-text">a</p></main>'), "check_headings", "called nn-text"),
    (lambda t: t + "<!--" + "x" * 1_500_000 + "-->", "check_weight", "core.html weighs"),
])
def test_checks_find_damage(tmp_path, damage, check, said):
    import shutil

    shutil.copytree(site("pandoc")[1], tmp_path / "site", copy_function=os.link)
    page = tmp_path / "site" / "core.html"
    whole = page.read_text()
    page.unlink()  # the other copy of the file stays as it is
    page.write_text(damage(whole))
    assert page.read_text() != whole
    assert any(said in problem for problem in getattr(TOOL, check)(tmp_path / "site"))


def test_pages_that_do_not_exist_lose_their_link():
    part = [{"text": "one", "href": "1.ipynb"}, {"text": "two", "href": "2.ipynb"}]
    listed = TOOL.offered([{"section": "A", "contents": part}], {"1.ipynb"})
    assert listed[0]["contents"] == [{"text": "one", "href": "1.ipynb"}, {"text": "two (coming)"}]


@notebooks
def test_an_export_is_shown_once_and_its_source_is_folded(notebook):
    cells, shown = processed(notebook)["cells"], []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            shown += re.findall(r"^#+ \w+ \{#def-(\w+)\}$", source, re.M)
        elif "code-fold: true" not in source:
            defined = re.findall(r"^(?:class|def) (\w+)", source, re.M)
            assert not set(defined) & set(shown), (notebook, defined)
    assert len(shown) == len(set(shown))


@notebooks
def test_solutions_are_folded_with_what_they_print(notebook):
    cells = processed(notebook)["cells"]
    solutions = [n for n, cell in enumerate(cells) if "solution" in cell["metadata"].get("tags", []) and cell["cell_type"] == "code"]
    assert len(solutions) == sum("solution" in c["metadata"].get("tags", []) for c in stored_cells(notebook))
    for number in solutions:
        before = [c for c in cells[number - 2:number] if "<details" in "".join(c["source"])]
        assert before and "".join(cells[number + 1]["source"]) == "</details>"


# Links

@pytest.mark.parametrize("given, wanted", [
    ("see lesson 09.", "see [lesson 09](schedules.html)."),
    ("lessons 01, 05 and 07 to 09", "lessons [01](passes.html), 05 and [07](training.html) to [09](schedules.html)"),
    ("lessons 01, *Losses of 99*, 03, *Data*, and 09, *Schedules*.",
     "lessons [01](passes.html), *Losses of 99*, [03](losses.html), *Data*, and [09](schedules.html), *Schedules*."),
    ("lesson 01, *Passes*, and lesson 03", "[lesson 01](passes.html), *Passes*, and [lesson 03](losses.html)"),
    ("Lesson 13's rule", "[Lesson 13](clipping.html)'s rule"),
    ("lesson 05 is this page, lesson 99 is none", None),
    ("[lesson 09](schedules.html)", None), ("```\nlesson 09\n```", None), ("<summary>lesson 09</summary>", None), ("## Lesson 09", None),
    ("`get_optimizer`", "[`get_optimizer`](reference_builders.html#get_optimizer)"),
    ("`Trainer.fit(loader)`", "[`Trainer.fit(loader)`](reference_trainer.html#Trainer.fit)"),
    ("`nnlearn.losses`", "[`nnlearn.losses`](reference_losses.html)"),
    ("`digits`", "[`digits`](reference_datasets.html#digits)"),  # imported
    ("`split`, `Tensor`, `Adam`, `nothing_of_ours`, `x = get_optimizer`", None),  # not beyond doubt
    ("$`get_optimizer`$", None), ("[`get_optimizer`](x.html)", None),
])
def test_prose_is_linked_where_it_is_beyond_doubt(given, wanted):
    page = TOOL.Page("optimizers.html", ["from nnlearn.datasets import digits"], "optimizers", "05_optimizers")
    assert TOOL.linked(given, page) == (wanted or given)


@engines
def test_every_lesson_that_is_named_is_a_link(engine):
    linked = 0
    for path in site(engine)[1].glob("*.html"):
        main = path.read_text().partition("<main")[2]
        text = re.sub(r'(?s)<(header|pre|h[1-6]|summary|samp|nav|script)\b.*?</\1>|<table class="nn-claims.*?</table>', "", main)
        linked += len(re.findall(r"<a [^>]*>[Ll]essons?\s+\d\d</a>", text))
        rest = re.sub(r"(?s)<a .*?</a>", "", text)
        own = [lesson for lesson, page in TOOL.lesson_pages().items() if page == path.name]
        named = set(re.findall(r"\b[Ll]essons?\s+(\d\d)\b", rest)) & set(TOOL.lesson_pages())
        assert named <= set(own), (path.name, named)
    assert linked > 150


# The reference

def section(page, name):
    """What the reference says about a name."""
    text = (site("pandoc")[1] / page).read_text()
    end = r'(?=<h[23]\s+id=|<nav class="next")'
    return html.unescape(re.sub(r"<[^>]+>", "", re.search(rf'(?s)<h[23]\s+id="{re.escape(name)}".*?{end}', text)[0]))


def test_reference_has_arguments_methods_names_and_ways_back():
    trainer = section("reference_trainer.html", "Trainer")
    assert "from nnlearn import Trainer" in trainer and "largest norm of all gradients together" in trainer
    assert "resume: " in section("reference_trainer.html", "Trainer.fit")
    optimizers = section("reference_builders.html", "OPTIMIZERS")
    assert "It holds 10 names" in optimizers and "torch.optim.AdamW" in optimizers
    history = (site("pandoc")[1] / "reference_training.html").read_text()
    assert 'href="training.html#def-History"' in history
    assert 'href="reference_training.html#History"' in (site("pandoc")[1] / "training.html").read_text()
    assert "backward_fn" in section("reference_autograd.html", "Tensor")
    assert 'href="autograd.html#def-Tensor"' in (site("pandoc")[1] / "reference_autograd.html").read_text()


def test_long_comments_of_arguments_stand_above_them():
    import site_symbols

    line = "    name: str = 'a',  # " + "word " * 20
    assert site_symbols.shortened(line)[-1] == "    name: str = 'a'," and len(site_symbols.shortened(line)) == 3
    assert site_symbols.shortened("    name: str,  # short") == ["    name: str,  # short"]
    signatures = [symbol.signature for symbol in site_symbols.symbols().values() if symbol.kind == "function"]
    assert sum(len(line) > 92 for signature in signatures for line in signature.splitlines()) < 25


def test_tables_in_outputs_are_told_from_text():
    import site_pandoc

    assert site_pandoc.in_columns("name    size  ms\na       1.0   3\nb       20.0  4")
    assert not site_pandoc.in_columns("a text\nof several  lines\nand a gap") and not site_pandoc.in_columns("a   b   c")


def test_commands_are_all_there_with_what_they_take():
    from nnlearn.course import cli

    page = (site("pandoc")[1] / "commands.html").read_text()
    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as told:
        cli.main(["--help"])
    names = re.findall(r"^ {4}(\w+) ", told.getvalue(), re.M)
    assert len(names) >= 5 and all(f'id="{name}"' in page for name in names)
    assert "--resume" in page and "--workers" in page and "usage: nnlearn optimize" in page


# The claims

def test_claims_page_has_every_claim_and_leads_to_its_cell():
    import csv

    page = (site("pandoc")[1] / "claims.html").read_text()
    rows = [row for path in sorted((ROOT / "tests/claims").glob("*.csv")) for row in csv.DictReader(path.open())]
    assert len(re.findall(r'<tr class="(?:measured|exact)">', page)) == len(rows) > 1000
    assert all(html.escape(row["claim"]) in page for row in rows[::20])
    cells = {row["cell"].rpartition(":")[0] for row in rows}
    led = set(re.findall(r'<a href="\w+\.html#claim-([^"]+)">', page))
    assert led <= cells and len(led) > 0.95 * len(cells)  # the others stand in cells that no page shows


def test_claims_say_numbers_and_words_plainly():
    import site_claims

    assert site_claims.number({"low": "0.123456", "high": "0.2"}) == "0.123 to 0.2"
    assert site_claims.number({"low": "24000", "high": "24000"}) == "24,000" and site_claims.number({"low": "", "high": ""}) == ""
    said = "# Title\n\nFirst sentence of it. The *step* is $0.1\\times g$ long, [they say](x.html).\n\n- a list\n\n**Predict, then run.**"
    assert site_claims.last_sentence(said) == "The step is 0.1× g long, they say."
