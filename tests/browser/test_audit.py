"""An automated audit of the pages: contrast, overflow, focus order, names of controls, light and dark, wide and narrow."""
import pytest
from built import ENGINES, page_names, site

LESSONS = [page for notebook, page in page_names().items() if notebook[:2].isdigit()]
OTHERS = ["index.html", "reference.html", "reference_trainer.html", "reference_course_explore.html", "commands.html", "claims.html",
          "trainer.html", "core.html"]
# Texts that are too faint against what lies behind them: 4.5 to 1, or 3 to 1 for large ones.
FAINT = """() => {
  const parse = (colour) => { const n = colour.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n.length > 3 ? n[3] : 1]; };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const papers = new Map();
  const paper = (element) => {
    if (!element) return [255, 255, 255, 1];
    if (!papers.has(element)) {
      const own = parse(getComputedStyle(element).backgroundColor);
      papers.set(element, own[3] === 1 ? own : over(own, paper(element.parentElement)));
    }
    return papers.get(element);
  };
  const seen = new Set(), faint = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.textContent.trim(), element = walk.currentNode.parentElement;
    if (!text || seen.has(element) || element.closest("script, style, annotation, svg, option")) continue;
    seen.add(element);
    if (!element.checkVisibility({opacityProperty: true, visibilityProperty: true}) || !element.getClientRects().length) continue;
    let opacity = 1;
    for (let e = element; e; e = e.parentElement) opacity *= +getComputedStyle(e).opacity;
    const style = getComputedStyle(element), below = paper(element), ink = parse(style.color);
    ink[3] *= opacity;
    const a = light(over(ink, below)), b = light(below), ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) faint.push([text.slice(0, 40), Math.round(ratio * 100) / 100, element.className || element.tagName]);
  }
  return faint;
}"""
# What makes the page scroll sideways: the widest elements that no ancestor clips or scrolls.
WIDE = """() => {
  const most = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth <= most) return [];
  document.querySelectorAll("body *").forEach((element) => {
    const box = element.getBoundingClientRect();
    if (box.right <= most + 1 || !box.width) return;
    for (let e = element.parentElement; e && e !== document.body; e = e.parentElement)
      if (getComputedStyle(e).overflowX !== "visible") return;
    found.push(`${element.tagName}.${element.className}: ${Math.round(box.right)} px, ${element.textContent.trim().slice(0, 40)}`);
  });
  return found.length ? found : ["something"];
}"""
# Code and outputs of which a part lies outside of their box.
CUT = """() => [...document.querySelectorAll("main pre")].filter((pre) => pre.scrollWidth > pre.clientWidth + 1)
  .map((pre) => pre.textContent.slice(0, 50))"""
FONT = """async () => { await document.fonts.load('20px "nn math"'); return document.fonts.check('20px "nn math"'); }"""
NAMELESS = """() => [...document.querySelectorAll("a[href], button, input, select, summary")].filter((element) => {
  if (element.closest("[aria-hidden=true]")) return false;
  const label = element.id && document.querySelector(`label[for="${element.id}"]`);
  return !(element.getAttribute("aria-label") || element.textContent.trim() || label || element.closest("label")
    || element.querySelector("img[alt]:not([alt=''])"));
}).map((element) => element.outerHTML.slice(0, 100))"""
OPEN = "() => document.querySelectorAll('details').forEach((d) => { d.open = true; })"
BACK = "() => getComputedStyle(document.body).backgroundColor"


@pytest.mark.parametrize("name", LESSONS + OTHERS)
def test_page_can_be_read(open_page, name):
    """All folded parts open: light and dark, 1280 and 375 pixels wide."""
    page = open_page((site("pandoc")[1] / name).as_uri(), width=1280)
    page.evaluate(OPEN)
    backs = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(f"() => document.body.classList.contains('quarto-{scheme}')")
        backs.add(page.evaluate(BACK))
        assert page.evaluate(FAINT) == [], scheme
    assert len(backs) == 2
    assert page.evaluate(WIDE) == [] and page.evaluate(CUT) == []
    assert page.evaluate(NAMELESS) == [] and page.evaluate(FONT)
    explorers = page.locator(".nn-explore")
    assert explorers.count() == page.locator(".nn-explore[role=group][aria-label]").count()
    assert all(box["height"] >= 24 for slider in explorers.locator("input:visible").all() if (box := slider.bounding_box()))
    page.set_viewport_size({"width": 375, "height": 800})
    page.evaluate(OPEN)
    assert page.evaluate(WIDE) == []
    assert not page.troubles and not page.requests


def test_keyboard_reaches_the_text_first_and_the_contents_on_a_phone(open_page):
    page = open_page((site("pandoc")[1] / "training.html").as_uri(), width=375)
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "Skip to the text"
    page.keyboard.press("Enter")
    assert page.evaluate("() => location.hash") == "#nn-text"
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "On this page"
    contents = page.locator("#nn-contents a")
    assert not contents.first.is_visible()
    page.keyboard.press("Enter")
    assert contents.first.is_visible() and contents.count() > 5
    page.get_by_role("button", name="Course").click()
    assert page.get_by_role("link", name="09 Learning rate schedules").first.is_visible()


@pytest.mark.parametrize("engine", ENGINES)
def test_claims_are_found_by_words(open_page, engine):
    page = open_page((site(engine)[1] / "claims.html").as_uri())
    everything = page.locator("#nn-found").inner_text()
    page.get_by_label("Find a claim").fill("cross_entropy softmax")
    shown = page.locator(".nn-claims tbody:visible")
    assert page.locator("#nn-found").inner_text() != everything and 0 < shown.count() < 60
    assert all("softmax" in text.lower() for text in shown.all_inner_texts())
    hidden = page.locator("h2", has_text="Many processes")
    assert not hidden.is_visible()
    page.get_by_label("Find a claim").fill("")
    page.get_by_label("only measured").check()
    assert page.locator(".nn-claims tr.exact:visible").count() == 0 < page.locator(".nn-claims tr.measured:visible").count()


@pytest.mark.parametrize("asked, wanted", [
    ("get_optimizer", "reference_builders.html#get_optimizer"), ("learning rate warmup", "schedules.html"),
    ("gradient clipping", "clipping.html"), ("int8", "quantization.html"), ("one cycle", "schedules.html#def-OneCycle"),
    ("Trainer.fit", "reference_trainer.html#Trainer.fit"), ("label smoothing", "regularization.html#label-smoothing"),
    ("checkpoint", "checkpoints.html"),
])
def test_search_finds_it_in_the_first_three(open_page, asked, wanted):
    page = open_page((site("pandoc")[1] / "index.html").as_uri())
    page.get_by_label("Search the course").fill(asked)
    found = page.locator("#nn-found-list a")
    found.first.wait_for()
    assert any(link.get_attribute("href").startswith(wanted) for link in found.all()[:3])
    first = found.first.get_attribute("href")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{first}")
    assert not page.troubles and not page.requests


@pytest.mark.parametrize("style, script, said", [
    ("main p { color: #aaa !important; }", FAINT, "1."), ("main pre { width: 3000px; max-width: none; }", WIDE, "PRE"),
    ("main pre { white-space: pre !important; width: 200px; }", CUT, ""),
])
def test_the_audit_finds_damage(open_page, style, script, said):
    page = open_page((site("pandoc")[1] / "passes.html").as_uri(), width=1280)
    assert page.evaluate(script) == []
    page.add_style_tag(content=style)
    found = page.evaluate(script)
    assert found and said in str(found)
