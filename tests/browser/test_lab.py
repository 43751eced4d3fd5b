"""JupyterLab in a real browser: a lesson opens, runs, and its explorers move by keyboard."""
import pytest
from built import ROOT, cells, stored_explorers

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
ACTIVE = "() => window.jupyterapp.shell.currentWidget.content.activeCellIndex"


def wait_for(page, script, number, accept):
    """Poll until the page's answer is acceptable."""
    for _ in range(600):
        answer = page.evaluate(script, number)
        if accept(answer):
            return answer
        page.wait_for_timeout(50)
    raise AssertionError(f"nothing acceptable within 30 s in cell {number}: {str(answer)[:300]}")


@pytest.mark.parametrize("notebook", LESSONS)
def test_stored_explorers_show_their_start_state_until_run(open_lab, notebook):
    page = open_lab(notebook)
    for number in stored_explorers(notebook):
        shown = wait_for(page, CELL, number, lambda html: "Run the cells down to this one" in html)
        assert "<img" in shown and "<input type=\"range\"" not in shown


@pytest.mark.parametrize("notebook", LESSONS)
def test_lesson_runs_and_its_explorers_move(open_lab, notebook):
    page = open_lab(notebook)
    page.evaluate(RUN_ALL)
    assert page.evaluate(COUNT) == sum(cell["cell_type"] == "code" for cell in cells(notebook))
    assert page.evaluate(ERRORS) == []
    for number in stored_explorers(notebook):
        before = wait_for(page, LIVE, number, bool)
        position, last = page.evaluate(FOCUS, number)
        active = page.evaluate(ACTIVE)
        page.keyboard.press("ArrowLeft" if float(position) == float(last) else "ArrowRight")
        wait_for(page, LIVE, number, lambda html, before=before: html and html != before)
        assert page.evaluate(ACTIVE) == active, "the arrow key moved the notebook, too"
    assert not [trouble for trouble in page.troubles if "nn-" in trouble or "explore" in trouble.lower()]


PAGE_FORM = """
from IPython.display import HTML
from nnlearn.explore import explore

HTML(explore(lambda slope: {"line": ([0, 1], [0, slope])}, slope=[1, 2, 3, 4]).html)
"""


def test_page_form_moves_by_arrow_keys_in_jupyterlab_too(open_lab):
    page = open_lab("page_form.ipynb", PAGE_FORM)
    page.evaluate(RUN_ALL)
    slider = page.locator(".nn-explore[data-ready] input")
    slider.wait_for()
    slider.focus()
    active = page.evaluate(ACTIVE)
    before = page.locator(".nn-explore .nn-curve").get_attribute("d")
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "3"
    assert page.locator(".nn-explore .nn-curve").get_attribute("d") != before
    page.keyboard.press("ArrowDown")
    assert slider.input_value() == "2"
    assert page.evaluate(ACTIVE) == active, "the arrow key moved the notebook, too"
