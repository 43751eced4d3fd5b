"""JupyterLab in a real browser: a lesson opens, runs, and its explorers move by keyboard."""
import time

import nbformat
import pytest
from built import PATIENCE, ROOT, excerpt

LESSONS = [name for name in ("09_schedules.ipynb", "00_explore.ipynb") if (ROOT / "nbs" / name).exists()][:1]
RUN_ALL = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
CODE = "window.jupyterapp.shell.currentWidget.content.widgets.filter((w) => w.model.type == 'code')"
COUNT = f"() => {CODE}.length"
ERRORS = (f"() => {CODE}.flatMap((w) => w.model.outputs.toJSON())"
          ".filter((o) => o.output_type == 'error').map((o) => o.evalue)")
CELL = """(number) => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  notebook.scrollToItem(number, 'start');
  return notebook.widgets[number].node.outerHTML;
}"""
LIVE = """(number) => {
  const node = window.jupyterapp.shell.currentWidget.content.widgets[number].node;
  const picture = node.querySelector('.nn-live .nn-plot, .nn-live img');
  return picture ? picture.outerHTML : null;
}"""
FOCUS = """(number) => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  notebook.scrollToItem(number, 'start');
  const handle = notebook.widgets[number].node.querySelector('.noUi-handle');
  handle.focus();
  return [handle.getAttribute('aria-valuenow'), handle.getAttribute('aria-valuemax')];
}"""
SHOW = "(number) => window.jupyterapp.shell.currentWidget.content.scrollToItem(number, 'start')"
ACTIVE = "() => window.jupyterapp.shell.currentWidget.content.activeCellIndex"


def wait_for(page, script, number, accept):
    """Poll until the page's answer is acceptable."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = page.evaluate(script, number)
        if accept(answer):
            return answer
        assert time.monotonic() < deadline, f"nothing acceptable in cell {number}: {str(answer)[:300]}"
        page.wait_for_timeout(50)


# An explorer's page form, as a lesson shows it in an output: here it moves in JupyterLab, too.
PAGE_FORM = """
from IPython.display import HTML
from nnlearn.course.explore import explore

HTML(explore(lambda slope: {"line": ([0, 1], [0, slope])}, slope=[1, 2, 3, 4]).html)
"""


@pytest.mark.parametrize("notebook", LESSONS)
def test_a_lesson_in_jupyterlab(open_lab, notebook):
    """The cells of a lesson that its explorers need; whether what they compute is right is not the browser's to say.

    One page, as a reader has it: the stored explorers show their start state, the cells run, every explorer moves by keyboard.
    """
    cells, explorers = excerpt(notebook)
    page = open_lab(notebook, [*cells, nbformat.v4.new_code_cell(PAGE_FORM)])
    for number in explorers:
        shown = wait_for(page, CELL, number, lambda html: "Run the cells down to this one" in html)
        assert "<img" in shown and "<input type=\"range\"" not in shown

    page.evaluate(RUN_ALL)
    assert page.evaluate(COUNT) == len(cells) + 1 and explorers
    assert page.evaluate(ERRORS) == []
    for number in explorers:
        before = wait_for(page, LIVE, number, bool)
        position, last = page.evaluate(FOCUS, number)
        active = page.evaluate(ACTIVE)
        page.keyboard.press("ArrowLeft" if float(position) == float(last) else "ArrowRight")
        wait_for(page, LIVE, number, lambda html, before=before: html and html != before)
        assert page.evaluate(ACTIVE) == active, "the arrow key moved the notebook, too"
    assert not [trouble for trouble in page.troubles if "nn-" in trouble or "explore" in trouble.lower()]

    page.evaluate(SHOW, len(cells))
    slider = page.locator(".nn-explore[data-ready] input")
    slider.wait_for()
    slider.focus()
    active = page.evaluate(ACTIVE)
    curve = page.locator(".nn-explore[data-ready] .nn-curve")
    before = curve.get_attribute("d")
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "3"
    assert curve.get_attribute("d") != before
    page.keyboard.press("ArrowDown")
    assert slider.input_value() == "2"
    assert page.evaluate(ACTIVE) == active, "the arrow key moved the notebook, too"
