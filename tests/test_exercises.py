"""Every exercise of every lesson: its place in the notebook, its solution, and the wrong answers it must refuse."""
import ast
import importlib
import json
import re
from functools import cache
from pathlib import Path

import pytest
from wrong_answers import answers_to

from nnlearn.core import ConfigError
from nnlearn.course import check as module
from nnlearn.course.check import check

importlib.import_module("nnlearn.course.exercises")
EXERCISES = dict(module._LIBRARY)
NOTEBOOKS = Path(__file__).parent.parent / "nbs"
each_exercise = pytest.mark.parametrize("name", EXERCISES)


# Reading the notebooks


@cache
def lesson_cells(lesson):
    """The cells of the lesson of this name."""
    for path in sorted(NOTEBOOKS.rglob("*.ipynb")):
        if lesson.rpartition(".")[2] in (path.stem, path.stem[3:]):
            return json.loads(path.read_text(encoding="utf-8"))["cells"]
    raise LookupError(f"no lesson {lesson}")


def source(cell):
    return "".join(cell["source"])


def printed(cell):
    return "".join("".join(output.get("text", "")) for output in cell.get("outputs", []))


def found(name, pattern, lesson):
    """The indices of the code cells of a notebook in which the pattern is found."""
    cells = enumerate(lesson_cells(lesson))
    return [i for i, cell in cells if cell["cell_type"] == "code" and re.search(pattern, source(cell))]


def place(name, pattern):
    """The index of the only code cell of the lesson in which the pattern is found."""
    indices = found(name, pattern, name.split(".")[0])
    assert len(indices) == 1, f"{name}: {len(indices)} cells with {pattern}"
    return indices[0]


def places(name):
    """Where the stub and the solution of an exercise are."""
    quoted = rf"[\"']{re.escape(name)}[\"']"
    solution = place(name, rf"\bcheck\(\s*{quoted}[^\n]*solution=True")
    stub = place(name, rf"\bcheck\(\s*{quoted}(?![^\n]*solution=True)")
    return stub, solution


def checker(name):
    """The only cell that registers the exercise, in its lesson or in the room of exercises."""
    pattern = rf"\bexercise\(\s*[\"']{re.escape(name)}[\"']"
    cells = [lesson_cells(lesson)[i] for lesson in (name.split(".")[0], "course.exercises") for i in found(name, pattern, lesson)]
    assert len(cells) == 1, f"{name}: {len(cells)} checkers"
    return cells[0]


def definitions(cells):
    """What a solution may use: the imports, functions, classes and plain constants of the cells before it."""
    scope = {"__name__": "__main__"}
    for cell in cells:
        if cell["cell_type"] != "code" or re.search(r"\bcheck\(|^%", source(cell), re.M):
            continue
        for statement in ast.parse(source(cell)).body:
            plain = (isinstance(statement, ast.Assign) and is_literal(statement.value)
                     and all(isinstance(target, (ast.Name, ast.Tuple)) for target in statement.targets))
            if plain or isinstance(statement, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)):
                try:
                    exec(compile(ast.Module([statement], []), "notebook", "exec"), scope)
                except (NameError, ConfigError):
                    continue  # it needs what only a run of the lesson makes, or a package that is not installed
    return scope


def is_literal(node):
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def run_cell(name, index):
    """Run a cell that calls `check`, among the definitions before it: what it gave to `check`."""
    cells, calls = lesson_cells(name.split(".")[0]), []
    scope = definitions(cells[:index])
    scope["check"] = lambda *args, **kwargs: calls.append((args, kwargs))
    scope["hint"] = lambda *args: None
    exec(compile(source(cells[index]), f"{name} in its notebook", "exec"), scope)
    assert len(calls) == 1 and calls[0][0][0] == name
    return calls[0]


# Tests


def test_there_are_exercises():
    assert EXERCISES, "no lesson exports an exercise"


def test_every_check_in_a_lesson_has_its_checker_in_the_library():
    asked = set()
    for path in NOTEBOOKS.rglob("[0-9]*.ipynb"):
        if path.name.startswith("00_"):
            continue
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                asked |= set(re.findall(r"\bcheck\(\s*[\"']([\w.]+)[\"']", source(cell)))
    assert asked == set(EXERCISES)


@each_exercise
def test_the_exercise_stands_in_its_lesson(name):
    cells = lesson_cells(name.split(".")[0])
    stub, solution = places(name)
    assert stub < solution and re.search(r"^#\| export( course\.exercises)?$", source(checker(name)), re.M)
    assert "Not yet" in printed(cells[stub])
    hints = [cell for cell in cells[stub:solution] if cell["cell_type"] == "markdown"]
    assert any("<summary>Hint</summary>" in source(cell) for cell in hints)
    assert EXERCISES[name].hints


@each_exercise
def test_what_gives_the_answer_away_is_folded(name):
    cells = lesson_cells(name.split(".")[0])
    solution = cells[places(name)[1]]
    assert "solution" in solution["metadata"]["tags"]
    for cell in [solution, *([checker(name)] if checker(name) in cells else [])]:
        assert cell["metadata"]["jupyter"]["source_hidden"]
        assert "#| code-fold: true" in source(cell) and "#| code-summary:" in source(cell)


@each_exercise
def test_the_stub_is_not_an_answer_yet(name):
    (_, answer, *_), options = run_cell(name, places(name)[0])
    assert not options and check(name, answer).status == "not yet"


@each_exercise
def test_the_solution_passes(name):
    solution = places(name)[1]
    (_, answer), options = run_cell(name, solution)
    verdict = check(name, answer, **options)
    assert verdict.passed, str(verdict)
    assert str(verdict) in printed(lesson_cells(name.split(".")[0])[solution])


@each_exercise
def test_wrong_answers_fail_where_they_should(name):
    cases = {case.name for case in EXERCISES[name].cases}
    answers = answers_to(name)
    assert len(answers) >= 3, f"{name} has {len(answers)} wrong answers in tests/wrong_answers"
    failed = []
    for wrong in answers:
        verdict = check(name, wrong.answer)
        problems = {case.name: case.problem for case in verdict.cases if case.problem}
        assert wrong.case in cases and verdict.status == "failed", f"{wrong}: {verdict}"
        assert wrong.word in problems.get(wrong.case, ""), f"{wrong}: {verdict}"
        failed.append(list(problems))
    assert any(len(names) == 1 for names in failed), f"{name}: no wrong answer passes every case but one"


def test_no_wrong_answer_is_without_an_exercise():
    from wrong_answers import ANSWERS

    for name in EXERCISES:
        answers_to(name)
    assert set(ANSWERS) <= set(EXERCISES)
