"""The pages in a real browser, opened from disk with the network off: every explorer moves and tells the truth."""
import random
import re

import numpy as np
import pytest
from built import ENGINES, explorers, page_names, site, stored_explorers

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
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("notebook", PAGES)
def test_page_opens_quietly_and_can_be_read(open_page, engine, notebook, dark):
    page = opened(open_page, engine, notebook, dark=dark)
    assert page.locator("h1").first.inner_text()
    faint = [(text, ratio) for text, ratio in page.evaluate(CONTRAST) if ratio < 4.5]
    assert not faint
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


@pytest.mark.parametrize("width", [1100, 380])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("notebook", EXPLORING)
def test_pages_show_what_the_library_computes(open_page, engine, notebook, width):
    page = opened(open_page, engine, notebook, width=width)
    chance = random.Random(notebook)
    for number, explorer in enumerate(explorers(notebook).values()):
        root = page.locator(".nn-explore").nth(number)
        assert root.get_attribute("id") == explorer.id, "the stored output is not what the notebook computes"
        for place, kind in enumerate(explorer.kinds):
            if len(explorer.kinds) > 1:
                root.locator("select").select_option(str(place))
                page.wait_for_function(
                    f"() => document.querySelectorAll('.nn-explore')[{number}].querySelector('input').dataset.name == "
                    f"{next(iter(kind.moving))!r}")
            for _ in range(10 if width > 500 else 2):
                positions = [chance.randrange(len(slider.values)) for slider in kind.moving.values()]
                page.evaluate(MOVE, [number, positions])
                values = kind.start | {key: slider.values[position] for (key, slider), position in
                                       zip(kind.moving.items(), positions, strict=True)}
                if kind.frames:
                    same_frame(page, root, kind, values)
                else:
                    same_curves(page.evaluate(PICTURE, number), explorer.plates[place], kind.draw(**values), values)
    quiet(page)


def same_frame(page, root, kind, values):
    """The frame on the page is the one that the drawing function draws."""
    from nnlearn.explore import _frame

    shown = root.locator("img").evaluate(
        "async (image) => [...new Uint8Array(await (await fetch(image.src)).arrayBuffer())]")
    forms = [("svg", True)] if bytes(shown[:5]) == b"<?xml" else [("webp", True), ("webp", False)]
    assert bytes(shown) in [_frame(kind.draw, values, *form) for form in forms], values


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
