"""Explorers: a page holds what the function computes, wrong input is answered, nothing changes by itself."""
import re
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlearn.core import COLORS, ConfigError
from nnlearn.course.explore import (
    _LIGHT,
    BUDGET,
    TOLERANCE,
    Explorer,
    Slider,
    _contrast,
    _script,
    decode,
    explore,
    site_cell,
    thin,
    value_text,
)

STEPS = np.arange(5000)


def stairs(gamma, every):
    return {"rate": (STEPS, 0.001 * gamma ** (STEPS // every))}


def walk(rate):
    turn = np.linspace(0, 12, 300)
    return {"path": (np.exp(-rate * turn) * np.cos(turn), np.exp(-rate * turn) * np.sin(turn)),
            "marks": (np.cos(turn[::30]), np.sin(turn[::30]), "points")}


def bars(temperature):
    score = np.exp(np.array([1.0, 5.0, 2.0]) / temperature)
    return {"share": (np.arange(3), score / score.sum(), "bars")}


def decay(power):
    x = np.logspace(-7, 1, 200)
    return {"loss": (x, x**power), "flat": (x, np.ones(200), "dashed")}


def frame(ax, level):
    ax.plot([0, 1], [0, level])


def furthest(points, corners):
    """How far the points lie from the line through the corners."""
    best = np.full(len(points), np.inf)
    for a, b in zip(corners[:-1], corners[1:], strict=True):
        along = b - a
        share = np.clip(((points - a) @ along) / max(along @ along, 1e-30), 0, 1)
        best = np.minimum(best, np.linalg.norm(a + share[:, None] * along - points, axis=1))
    return best.max()


@pytest.mark.parametrize("draw, sliders, look", [
    (stairs, {"gamma": [0.1, 0.5, 0.9], "every": [333, 1000]}, {}),
    (stairs, {"gamma": [0.1, 0.5], "every": [700]}, {"y_scale": "log"}),
    (walk, {"rate": [0.0, 0.1, 0.5]}, {}),
    (bars, {"temperature": [0.5, 1.0, 8.0]}, {}),
    (decay, {"power": [-0.5, 0.25, 1.0]}, {"x_scale": "log", "y_scale": "log"}),
])
def test_page_holds_what_the_function_computes(draw, sliders, look):
    explorer = explore(draw, title="t", **look, **sliders)
    stored, kind, plate = decode(explorer.html)["types"][""], explorer.kinds[0], explorer.plates[0]
    assert len(stored["curves"]) == kind.count
    for values in kind.combinations():
        text = tuple(value_text(v) for key, v in values.items() if key in kind.moving)
        for name, curve in draw(**values).items():
            shares = np.column_stack([plate.x.share(np.asarray(curve[0], float)), plate.y.share(curve[1])])
            x, y = stored["curves"][text][name]
            corners = np.column_stack([plate.x.share(x), plate.y.share(y)])
            assert np.abs(corners[:, None] - shares[None]).max(axis=2).min(axis=1).max() < 1e-3
            assert furthest(shares, corners) < 1e-3


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_thin_never_leaves_a_point_behind(heights, copies):
    y = np.array(heights * copies)
    y = (y - y.min()) / (np.ptp(y) or 1)
    x = np.tile(np.linspace(0, 1, len(heights)), copies)
    keep = thin(x, y, np.arange(copies + 1) * len(heights))
    for n in range(copies):
        part = slice(n * len(heights), (n + 1) * len(heights))
        drawn = np.interp(x[part], x[part][keep[part]], y[part][keep[part]])
        assert np.abs(drawn - y[part]).max() <= TOLERANCE + 1e-12


def test_thin_keeps_both_sides_of_a_jump():
    kept = STEPS[thin(STEPS / 5000, (STEPS >= 1234) * 1.0, np.array([0, 5000]))]
    assert kept.tolist() == [0, 1233, 1234, 4999]


def test_smooth_curves_stay_under_120_points():
    kept = thin(STEPS / 5000, 0.5 + 0.5 * np.cos(STEPS / 5000 * 4 * np.pi), np.array([0, 5000]))
    assert kept.sum() < 120


def test_large_steps_are_met_exactly():
    stored = decode(explore(stairs, gamma=[0.1, 0.5], every=[777]).html)["types"][""]["curves"]
    x, y = stored["0.1",]["rate"]
    assert np.array_equal(x, np.rint(x)) and {776, 777, 1553, 1554}.issubset(x)


def test_running_again_changes_no_byte():
    made = [explore({"stairs": (stairs, {"gamma": [0.1, 0.5], "every": [700]}), "walk": (walk, {"rate": [0.1, 0.5]})},
                    title="twice").html for _ in range(2)]
    assert made[0] == made[1]
    assert explore(frame, level=[1, 2]).html == explore(frame, level=[1, 2]).html


def test_id_comes_from_what_is_shown():
    ids = {explore(stairs, title=title, gamma=gammas, every=[700]).id
           for title, gammas in (("a", [0.1, 0.5]), ("b", [0.1, 0.5]), ("a", [0.1, 0.6]), ("a", [0.1 + 1e-12, 0.5]))}
    assert len(ids) == 3


def test_page_form_is_complete_and_asks_for_nothing():
    html = explore(walk, title="A <b>walk</b>", x_label="x & y", alt='say "x"', rate=[0.1, 0.5]).html
    assert html.startswith('<div class="nn-explore"') and html.endswith("</div>")
    seen = html.split("<script")[0]
    assert '<img alt="say &quot;x&quot;"' in seen and "Run the cells down to this one" in seen
    assert "<input" not in seen and "<b>walk</b>" not in seen
    addresses = set(re.findall(r"https?://[\w./]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert _script().count("\n") < 200


def test_a_script_in_a_title_stays_text():
    html = explore(walk, title="</script><script>alert(1)</script>", rate=[0.1, 0.5]).html
    assert html.count("<script") == 2 and decode(html)["title"] == "</script><script>alert(1)</script>"


def test_full_product_of_four_sliders_fits_a_page():
    def cosine(peak, floor, length, warmup):
        step = np.arange(0, 1000, 10)
        falling = floor + (peak - floor) * 0.5 * (1 + np.cos(np.pi * np.clip((step - warmup) / length, 0, 1)))
        return {"rate": (step, np.where(step < warmup, peak * step / max(warmup, 1), falling))}

    explorer = explore(cosine, peak=[0.1, 0.2, 0.3, 0.5, 0.7, 1], floor=[0, 0.02, 0.04, 0.06, 0.08, 0.1],
                       length=[400, 500, 600, 700, 800, 900], warmup=[0, 20, 40])
    assert explorer.combinations == 648 and len(explorer.html) <= BUDGET


def test_too_many_combinations_are_named_with_a_cure():
    def noise(**values):
        return {"noise": (np.arange(200), np.random.default_rng(list(values.values())).normal(size=200))}

    said = r"512 combinations \(8 a x 8 b x 8 c\) weigh about \d+ KB.*Thin `a`"
    with pytest.raises(ConfigError, match=said) as raised:
        explore(noise, title="Noise", a=range(8), b=range(8), c=range(8))
    cut = {key: int(n) for key, n in re.findall(r"`(\w)` from 8 to (\d) values", str(raised.value))}
    explore(noise, **{key: range(cut.get(key, 8)) for key in "abc"})
    drawn = []
    with pytest.raises(ConfigError, match="10,000 combinations"):
        explore(lambda **values: drawn.append(values) or noise(**values), a=range(10), b=range(10), c=range(10), d=range(10))
    assert len(drawn) < 1000


def test_very_long_curves_and_sliders_are_refused_at_once():
    def noise(a):
        return {"noise": (np.arange(200_000), np.random.default_rng(a).normal(size=200_000))}

    with pytest.raises(ConfigError, match=r"3 combinations .* weigh about 1,\d\d\d KB.* curves of fewer points"):
        explore(noise, a=[1, 2, 3])
    drawn = []
    with pytest.raises(ConfigError, match="Thin `a` from 1000000 to 200 values"):
        explore(lambda a: drawn.append(a) or {"c": ([1, 2], [1, a])}, a=range(1_000_000))
    assert len(drawn) < 1000


def test_very_long_smooth_curves_are_not_refused():
    x = np.arange(200_000)
    explorer = explore(lambda a: {"wave": (x, np.sin(a * x / 20_000)), "jump": (x, x > 1e5 / a)}, a=[1, 2, 3])
    assert len(explorer.html) < 40_000


@pytest.mark.parametrize("make, said", [
    (lambda: explore(stairs, gamma=[], every=[1]), "slider `gamma`: the list of values is empty"),
    (lambda: explore(stairs, gamma=0.5, every=[1]), r"slider `gamma`: expected a list of values or a Slider, got 0.5"),
    (lambda: explore(stairs, gamma="abc", every=[1]), "a list of values or a Slider"),
    (lambda: explore(stairs, gamma=Slider([0.1, 0.5], start=0.2), every=[1]), r"start=0.2 is not one of its values"),
    (lambda: explore(stairs, gamma=[0.1, 0.1], every=[1]), "read the same"),
    (lambda: explore(stairs, gamma=Slider([0.1, 0.5], live=(1, 0, 1)), every=[1]), r"live=\(1, 0, 1\) must be"),
    (lambda: explore(stairs, gamma=Slider([0.1, 0.5], live=(0, 1)), every=[1]), "must be"),
    (lambda: explore(stairs, gama=[0.1, 0.5], every=[1]), "no parameter `gama`. Did you mean 'gamma'"),
    (lambda: explore(stairs, gamma=[0.1, 0.5]), "no slider for every"),
    (lambda: explore(stairs, gamma=[0.1], every=[1]), "0 sliders; .* one to four .*: give at least one slider two val"),
    (lambda: explore(lambda **v: stairs(0.1, 5), **{k: [1, 2] for k in "abcde"}), "5 sliders; .* Fix the oth"),
    (lambda: explore(3, a=[1, 2]), "expected a drawing function, got 3"),
    (lambda: explore({}, title="none"), "a dict of types"),
    (lambda: explore({"a": (walk, {"rate": [1, 2]})}, rate=[1]), "takes the sliders inside it"),
    (lambda: explore({"a": walk}), r"type 'a': a type is a pair \(draw, sliders\)"),
    (lambda: explore(lambda a: [1, 2], a=[1, 2]), "must return a dict of curves"),
    (lambda: explore(lambda a: {}, a=[1, 2]), "must return a dict of curves"),
    (lambda: explore(lambda a: {"c": 3}, a=[1, 2]), r"curve 'c': a curve is a pair \(x, y\)"),
    (lambda: explore(lambda a: {"c": ([1, 2], [1])}, a=[1, 2]), "x has 2 values and y has 1"),
    (lambda: explore(lambda a: {"c": ([], [])}, a=[1, 2]), "at least one"),
    (lambda: explore(lambda a: {"c": ([1, 2], ["one", 2])}, a=[1, 2]), "must be numbers"),
    (lambda: explore(lambda a: {"c": ([1, 2], [1, np.nan])}, a=[1, 2]), r"draw\(a=1\), curve 'c': y is nan at"),
    (lambda: explore(lambda a: {"c": ([1, np.inf], [1, 2])}, a=[1, 2]), "x is inf at position 1"),
    (lambda: explore(lambda a: {"c": ([1, 2], [1, 2], "dots")}, a=[1, 2]), "unknown style 'dots'"),
    (lambda: explore(lambda a: {f"c{a}": ([1, 2], [1, 2])}, a=[1, 2]), "curves must be the same everywhere"),
    (lambda: explore(lambda a: {f"c{n}": ([1, 2], [1, 2]) for n in range(9)}, a=[1, 2]), "at most 8"),
    (lambda: explore(lambda a: {"c": ([1, 2], [0, 2])}, a=[1, 2], y_scale="log"), "y axis: a logarithmic axis needs"),
    (lambda: explore(walk, rate=[0.1, 0.5], y_scale="lin"), "unknown scale 'lin'. Did you mean 'linear'"),
    (lambda: explore(walk, rate=[0.1, 0.5], y_range=(1, 0)), r"a range is \(low, high\)"),
    (lambda: explore(walk, rate=[0.1, 0.5], y_range="01"), r"y axis: a range is \(low, high\) .*, not '01'"),
    (lambda: explore(walk, rate=[0.1, 0.5], x_range=(0, np.nan), background=lambda ax: 0), "x axis: a range"),
    (lambda: explore(walk, rate=[0.1, 0.5], x_range=(0, 10**400)), r"a range is \(low, high\)"),
    (lambda: explore(walk, rate=[0.1, 0.5], x_range=(0, 1e308)), "numbers from 0 to 1e.308 are too large"),
    (lambda: explore(lambda a: {"c": ([1, 2], [-1e308, 1e308])}, a=[1, 2]), "y axis: numbers from -1e.308 to 1e.308"),
    (lambda: explore(lambda a: {"c": ([1, 2], [1e-310, 1])}, a=[1, 2], y_scale="log"), "too large or too small"),
    (lambda: explore(lambda a: {"c": ([1, 2], [1, 10**400])}, a=[1, 2]), "x and y must be numbers .int too large"),
    (lambda: explore(lambda a: {"c": ([1, 2], np.array([1, 1j]))}, a=[1, 2]), "y must be numbers .these are complex"),
    (lambda: explore(lambda a: {"c": (torch.tensor([1, 1j]), [1, 2])}, a=[1, 2]), "these are complex"),
    (lambda: explore(walk, title=None, rate=[1, 2]), "expected a string as title, got None"),
    (lambda: explore(walk, y_label=3, rate=[1, 2]), "expected a string as y_label, got 3"),
    (lambda: explore(walk, rate=Slider([1, 2], unit=None)), "slider `rate`: expected a string as unit, got None"),
    (lambda: explore(walk, rate=Slider([1, 2], live=(0, 10**400, 1))), "must be"),
    (lambda: explore(walk, rate=[0.1, 0.5], background="a.png"), "background is a function"),
    (lambda: explore(frame, level=range(13)), "13 combinations; frames take one slider with at most 12 values"),
    (lambda: explore(lambda ax, a, b: None, a=[1, 2], b=[1, 2]), "2 sliders with 4 combinations; frames take one"),
    (lambda: decode("<p>nothing</p>"), "no explorer in this HTML"),
])
def test_wrong_input_is_answered(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_an_exception_in_the_function_says_where():
    with pytest.raises(ZeroDivisionError) as raised:
        explore(lambda a: {"c": ([1], [1 / a])}, title="divide", a=[1, 0])
    assert raised.value.__notes__ == ["explorer 'divide': raised by draw(a=0)"]
    with pytest.raises(ZeroDivisionError) as raised:
        explore(lambda ax, a: ax.plot([1 / a]), a=[1, 0])
    assert raised.value.__notes__ == ["explore: raised by draw(a=0)"]
    with pytest.raises(ZeroDivisionError) as raised:
        explore(walk, rate=[0.1, 0.5], background=lambda ax: 1 / 0)
    assert raised.value.__notes__ == ["explore: raised by background(ax)"]


@pytest.mark.parametrize("buffer", [np.zeros(3), torch.zeros(3, dtype=torch.float64)])
def test_an_array_that_is_filled_again_is_copied(buffer):
    def draw(a):
        for n in range(3):
            buffer[n] = a * n
        return {"c": (np.arange(3), buffer)}

    stored = decode(explore(draw, a=[1, 2, 3]).html)["types"][""]["curves"]
    assert [round(float(stored[a,]["c"][1][-1]), 2) for a in "123"] == [2, 4, 6]


def test_a_picture_left_to_chance_is_refused():
    random = np.random.default_rng(0)
    count = iter(range(1000))
    with pytest.raises(ConfigError, match=r"draw\(a=1\) drew two different pictures.*seed random numbers inside it"):
        explore(lambda a: {"c": (np.arange(3), random.random(3))}, a=[1, 2])
    with pytest.raises(ConfigError, match="two different pictures"):
        explore(lambda a: {"c": (np.arange(n := 3 + next(count)), np.arange(n))}, a=[1, 2])
    with pytest.raises(ConfigError, match=r"draw\(a=1\) drew two different pictures"):
        explore(lambda ax, a: ax.plot(random.random(3)), a=[1, 2])


def test_values_that_a_function_changes_are_copies():
    def grows(layers, more):
        layers.append(more["by"])
        more["by"] += 1
        return {"c": (np.arange(len(layers)), layers)}

    stored = decode(explore(grows, layers=[[1, 2], [3, 4]], more=[{"by": 5}]).html)["types"][""]["curves"]
    ends = {key: tuple(np.round(axis[-1], 2) for axis in curves["c"]) for key, curves in stored.items()}
    assert ends == {("[1, 2]",): (2, 5), ("[3, 4]",): (2, 5)}

    def bars_grow(ax, heights):
        heights.append(1)
        ax.plot(heights)

    kinds = explore(bars_grow, heights=[[1], [2]]).kinds
    assert kinds[0].sliders["heights"].values == [[1], [2]]


def test_live_widgets_move_the_picture():
    explorer = explore({"stairs": (stairs, {"gamma": Slider([0.1, 0.5], live=(0.1, 0.9, 0.1)), "every": [700]}),
                        "walk": (walk, {"rate": [0.1, 0.5]})}, title="live")
    top, rows, picture = explorer.live().children
    heading, types, reset = top.children
    first = picture.value
    assert "every = 700" in rows.children[-1].value
    rows.children[0].children[0].value = 0.3
    assert picture.value != first and "0.3" in rows.children[0].children[1].value
    reset.click()
    assert picture.value == first
    types.value = 1
    assert rows.children[0].children[0].description == "rate" and picture.value != first
    assert "live" in heading.value


def test_live_frames_are_drawn_and_errors_are_shown():
    picture = explore(frame, level=[1, 2]).live().children[2]
    assert "data:image/svg+xml;base64," in picture.value

    def fragile(a):
        if a == 5:
            raise RuntimeError("five <is> bad")
        return {"c": ([1, 2], [1, a])}

    _, rows, picture = explore(fragile, a=Slider([1, 2], live=(1, 6, 1))).live().children
    rows.children[0].children[0].value = 5
    assert "<strong>RuntimeError</strong>: five &lt;is&gt; bad" in picture.value


def test_notebook_gets_both_forms_and_a_steady_text():
    explorer = explore(stairs, title="both", gamma=[0.1, 0.5], every=[700])
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/html"] == explorer.html
    assert bundle["text/plain"] == repr(explorer) == "Explorer('both': 1 slider, 2 pictures)"


def test_a_kernel_gets_the_widget_too(monkeypatch):
    from types import SimpleNamespace

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    bundle = explore(stairs, title="both", gamma=[0.1, 0.5], every=[700])._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"} <= set(bundle)


def test_background_sets_the_axes():
    explorer = explore(walk, rate=[0.1, 0.5], background=lambda ax: ax.set(xlim=(-3, 3), ylim=(-2, 2)))
    plate = explorer.plates[0]
    assert (plate.x.low, plate.x.high, plate.y.low, plate.y.high) == (-3, 3, -2, 2)
    assert plate.background.startswith("data:image/webp;base64,") and "nn-on-image" in explorer.live().children[2].value


def test_heavy_frames_become_webp():
    def cloud(ax, seed):
        ax.plot(*np.random.default_rng(seed).normal(size=(2, 6000)), "o")

    stored = decode(explore(cloud, seed=[0, 1, 2]).html)["types"][""]
    assert stored["mime"] == "image/webp" and len(stored["frames"]) == 3
    assert all(f[8:12] == b"WEBP" for f in stored["frames"].values())


def test_curves_use_the_colours_of_the_figures():
    assert [_LIGHT[f"c{n}"] for n in range(8)] == list(COLORS.values())[:8]
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)


def test_site_cell_leaves_raw_html_only():
    html = "<div>```` four</div>"
    widget = {"text/html": [html], "application/vnd.jupyter.widget-view+json": {}, "text/plain": "x"}
    cell = {"outputs": [{"data": widget}, {"data": {"image/png": "abc"}}, {"text": "stream"}]}
    site_cell(cell)
    assert cell["outputs"][0]["data"] == {"text/markdown": [f"`````{{=html}}\n{html}\n`````\n"]}
    assert cell["outputs"][1:] == [{"data": {"image/png": "abc"}}, {"text": "stream"}]
    site_cell({"cell_type": "markdown"})


def test_values_read_well():
    values = (1e-5, 0.1, 3, np.float64(0.25), np.int64(7), "adam", None, True, 1e20, 123456.0)
    assert " ".join(map(value_text, values)) == "1e-5 0.1 3 0.25 7 adam None True 1e20 123456"


def test_explore_is_light_to_import():
    import subprocess

    heavy = ("matplotlib", "ipywidgets", "sklearn", "IPython", "fastcore")
    code = f"import sys, nnlearn.course.explore; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_explorer_says_how_many_pictures():
    types = {"a": (walk, {"rate": [1, 2]}), "b": (stairs, {"gamma": [0.1, 0.5], "every": [5, 50]})}
    explorer = explore(types, title="x")
    assert isinstance(explorer, Explorer) and repr(explorer) == "Explorer('x': 2 types, 3 sliders, 6 pictures)"
