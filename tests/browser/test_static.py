"""The pages in a real browser, opened from disk with the network off: every explorer moves and tells the truth."""
import json
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
from built import ENGINES, cells, explorers, page_names, site, stored_explorers

from nnlearn.course.explore import decode

PAGES = page_names()
EXPLORING = [name for name in PAGES if stored_explorers(name)]
AWAKE = "() => [...document.querySelectorAll('.nn-explore')].every((e) => e.dataset.ready)"
MOVE = """([number, positions]) => {
  const root = document.querySelectorAll('.nn-explore')[number];
  root.querySelectorAll('input').forEach((input, i) => {
    input.value = positions[i];
    input.dispatchEvent(new Event('input', {bubbles: true}));
  });
  return root.dataset.place;
}"""
PICTURE = """(number) => {
  const root = document.querySelectorAll('.nn-explore')[number], plot = root.querySelector('.nn-plot');
  const ticks = (side) => [...root.querySelectorAll('.nn-' + side)].map((g) =>
    [g.querySelector('text').textContent, g.querySelector('path').getAttribute('d')]);
  return {x: ticks('x'), y: ticks('y'), left: +plot.getAttribute('x') + 4, top: +plot.getAttribute('y') + 4,
          curves: [...plot.querySelectorAll('.nn-curve')].map((path) => path.getAttribute('d'))};
}"""
CONTRAST = """() => [...document.querySelectorAll('.nn-explore')].flatMap((root) => {
  const light = (colour) => {
    const part = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255);
    const [r, g, b] = part.map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const paper = getComputedStyle(root).backgroundColor;
  const texts = [...root.querySelectorAll('strong, label, output, button, select')].map((e) => [e, 'color']);
  const drawn = [...root.querySelectorAll('svg text')].map((e) => [e, 'fill']);
  return [...texts, ...drawn].map(([e, kind]) => [e.textContent.slice(0, 30), ratio(getComputedStyle(e)[kind], paper)]);
})"""


def opened(open_page, engine, notebook, **look):
    page = open_page((site(engine)[1] / PAGES[notebook]).as_uri(), **look)
    page.wait_for_function(AWAKE)
    return page


def quiet(page):
    """No error on the console, nothing asked of the network."""
    assert not page.troubles and not page.requests


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("notebook", PAGES)
def test_page_opens_quietly_and_can_be_read(open_page, engine, notebook):
    page = opened(open_page, engine, notebook)
    assert page.locator("h1").first.inner_text()
    for dark in (False, True):
        if dark and engine == "pandoc":
            page.get_by_role("button", name="Switch between light and dark").click()
        elif dark:
            page.emulate_media(color_scheme="dark")
            page.reload()
            page.wait_for_function(AWAKE)
        faint = [(text, ratio) for text, ratio in page.evaluate(CONTRAST) if ratio < 4.5]
        assert not faint, f"dark: {dark}"
        assert page.evaluate("() => [...document.images].every((i) => i.complete && i.naturalWidth > 0)")
    quiet(page)


PAPER = "() => getComputedStyle(document.querySelector('.nn-explore')).backgroundColor"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_explorers_follow_the_switch_of_the_page_not_the_system(open_page, dark):
    page = opened(open_page, "pandoc", EXPLORING[0], dark=dark)
    before = page.evaluate(PAPER)
    page.get_by_role("button", name="Switch between light and dark").click()
    assert {before, page.evaluate(PAPER)} == {"rgb(255, 255, 255)", "rgb(23, 27, 33)"}
    assert not [(text, ratio) for text, ratio in page.evaluate(CONTRAST) if ratio < 4.5]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("notebook", EXPLORING)
def test_every_slider_moves_by_keyboard_and_mouse(open_page, engine, notebook):
    page = opened(open_page, engine, notebook)
    roots = page.locator(".nn-explore")
    assert roots.count() == len(stored_explorers(notebook))
    for root in roots.all():
        for slider in root.locator("input").all():
            state = lambda: (root.get_attribute("data-place"), root.locator("output").all_inner_texts())  # noqa: B023, E731
            at_end = slider.input_value() == slider.get_attribute("max")
            before = state()
            slider.focus()
            page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
            after = state()
            assert before[0] != after[0] and before[1] != after[1]
            assert slider.get_attribute("aria-valuetext") in after[1]
            assert root.locator(f"label[for='{slider.get_attribute('id')}']").count() == 1
            box = slider.bounding_box()
            left = int(slider.input_value()) * 2 > int(slider.get_attribute("max"))
            page.mouse.click(box["x"] + (3 if left else box["width"] - 3), box["y"] + box["height"] / 2)
            assert slider.input_value() == ("0" if left else slider.get_attribute("max"))
            assert state() != after
        root.get_by_role("button", name="Reset").click()
        assert root.get_attribute("data-place") is not None
    quiet(page)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("notebook", EXPLORING)
def test_pages_show_what_the_library_computes(open_page, engine, notebook):
    """At ten random positions of every type of every explorer; then at two, in a window as narrow as a telephone."""
    page = opened(open_page, engine, notebook)
    chance = random.Random(notebook)
    compare_with_library(page, notebook, chance, 10)
    page.set_viewport_size({"width": 380, "height": 900})
    page.wait_for_function("() => [...document.querySelectorAll('.nn-picture')].every((p) => p.getAttribute('width') <= 380)")
    compare_with_library(page, notebook, chance, 2)
    quiet(page)


def compare_with_library(page, notebook, chance, tries):
    """Move every explorer of a page to random positions and compare what it shows with what the drawing function gives."""
    made, shown = explorers(notebook), stored_explorers(notebook)
    assert all("measured" in cells(notebook)[cell]["metadata"].get("tags", []) for cell in set(shown) - set(made))
    for number, cell in enumerate(shown):
        if cell not in made:
            same_as_stored(page, number, shown[cell], chance)
            continue
        root, explorer = page.locator(".nn-explore").nth(number), made[cell]
        assert root.get_attribute("id") == explorer.id, "the stored output is not what the notebook computes"
        for place, kind in enumerate(explorer.kinds):
            if len(explorer.kinds) > 1:
                choose(page, root, number, place, next(iter(kind.moving)))
            for _ in range(tries):
                positions = [chance.randrange(len(slider.values)) for slider in kind.moving.values()]
                page.evaluate(MOVE, [number, positions])
                values = kind.start | {key: slider.values[position] for (key, slider), position in
                                       zip(kind.moving.items(), positions, strict=True)}
                if kind.frames:
                    same_frame(page, root, kind, values)
                else:
                    same_curves(page.evaluate(PICTURE, number), explorer.plates[place], kind.draw(**values), values)


def choose(page, root, number, place, first):
    """Choose a type of an explorer, and wait for its sliders; `first` is the name of the first."""
    root.locator("select").select_option(str(place))
    page.wait_for_function(
        f"() => document.querySelectorAll('.nn-explore')[{number}].querySelector('input').dataset.name == {first!r}")


def same_as_stored(page, number, html, chance):
    """What the page shows of an explorer that was measured is what is stored; that it was measured right, nbval says."""
    stored, spec = decode(html), json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])
    root = page.locator(".nn-explore").nth(number)
    assert root.get_attribute("id") == stored["id"]
    for place, (kind, found) in enumerate(zip(spec["types"], stored["types"].values(), strict=True)):
        if len(spec["types"]) > 1:
            choose(page, root, number, place, kind["sliders"][0]["name"])
        for _ in range(3):
            positions = [chance.randrange(len(slider["texts"])) for slider in kind["sliders"]]
            page.evaluate(MOVE, [number, positions])
            values = tuple(slider["texts"][position] for slider, position in zip(kind["sliders"], positions, strict=True))
            if "frames" in found:
                assert picture_of(root) == found["frames"][values], values
                continue
            styles = dict(kind["curves"])
            drawn = {name: (*curve, styles[name]) for name, curve in found["curves"][values].items()}
            x, y = (SimpleNamespace(**kind[axis]) for axis in ("x", "y"))
            same_curves(page.evaluate(PICTURE, number), SimpleNamespace(x=x, y=y), drawn, values)


def picture_of(root):
    """The bytes of the picture that an explorer shows."""
    return bytes(root.locator("img").evaluate(
        "async (image) => [...new Uint8Array(await (await fetch(image.src)).arrayBuffer())]"))


def same_frame(page, root, kind, values):
    """The frame on the page is the one that the drawing function draws."""
    from nnlearn.course.explore import _frame

    shown = picture_of(root)
    forms = [("svg", True)] if shown[:5] == b"<?xml" else [("webp", True), ("webp", False)]
    assert shown in [_frame(kind.draw, values, *form) for form in forms], values


def same_curves(picture, plate, drawn, values):
    """Every drawn point lies on the page's curve, and every corner of that curve on a drawn point, within 1/1000."""
    assert len(picture["curves"]) == len(drawn)
    to_x = scale(picture["x"], 0, picture["left"], plate.x.log)
    to_y = scale(picture["y"], 1, picture["top"], plate.y.log)
    for outline, (name, curve) in zip(picture["curves"], drawn.items(), strict=True):
        numbers = np.array([float(n) for n in re.findall(r"-?[\d.]+", outline.replace("h0", ""))])
        style = curve[2] if len(curve) > 2 else "line"
        if style == "bars":
            numbers = np.delete(numbers, slice(1, None, 3))
        corners = np.column_stack([to_x(numbers[0::2]), to_y(numbers[1::2])])
        x, y = (np.asarray(v, dtype=float) for v in curve[:2])
        given = np.column_stack([log_or_not(x, plate.x.log), log_or_not(y, plate.y.log)])
        low = np.array([plate.x.low, plate.y.low])
        span = np.array([plate.x.high, plate.y.high]) - low
        given = np.clip((given - low) / span, -1, 2)
        corners = (corners - low) / span
        nearest = np.abs(corners[:, None] - given[None]).max(axis=2).min(axis=1).max()
        assert nearest <= 1e-3, f"{name} at {values}: a corner is {nearest:.4f} of the axis off"
        off = distance(given, corners).max() if style in ("line", "dashed") else np.abs(corners - given).max()
        assert off <= 1e-3, f"{name} at {values}: a point is {off:.4f} of the axis off"


def log_or_not(values, log):
    return np.log10(values) if log else values


def scale(ticks, place, offset, log):
    """From pixels inside the plot to positions on the axis, told by the ticks' texts and where they stand."""
    texts = [log_or_not(np.float64(text), log) for text, _ in ticks]
    pixels = [float(re.findall(r"-?[\d.]+", path)[place]) - offset for _, path in ticks]
    slope = (texts[-1] - texts[0]) / (pixels[-1] - pixels[0])
    return lambda pixel: texts[0] + (pixel - pixels[0]) * slope


def distance(points, corners):
    """From each point to the nearest place on the line through the corners."""
    if len(corners) == 1:
        return np.abs(points - corners).max(axis=1)
    a, along = corners[:-1], np.diff(corners, axis=0)
    past = points[:, None] - a[None]
    share = np.clip((past * along).sum(axis=2) / np.maximum((along**2).sum(axis=1), 1e-30), 0, 1)
    return np.linalg.norm(past - share[:, :, None] * along, axis=2).min(axis=1)
