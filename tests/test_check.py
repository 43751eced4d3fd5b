"""`check` says the right thing, never raises, never accepts a wrong answer, and is not moved by cheats."""
import functools
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import namedtuple
from dataclasses import dataclass

import cloudpickle
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import nnlearn.course.check as module
import nnlearn.course.compare as compare
import nnlearn.course.sandbox as sandbox
from nnlearn.core import ConfigError
from nnlearn.course.check import Case, Verdict, check, exercise, hint, progress

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # as what a notebook defines is


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("NNLEARN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "_SESSION", {})
    monkeypatch.setattr(module, "_HINTS", {})


def register(reference, *cases, **options):
    exercise("test.it", cases=cases or (Case("two", args=(2,)), Case("three", args=(3,))), **options)(reference)


def square(x):
    return x * x


def problems(verdict):
    return {case.name: case.problem for case in verdict.cases}


def one(reference, answer, **terms):
    """The problem that one case finds."""
    register(reference, Case("it", **terms))
    verdict = check("test.it", answer)
    assert verdict.status == ("passed" if verdict.cases[0].problem is None else "failed")
    return verdict.cases[0].problem


# What is said of right and wrong answers


def test_a_right_answer_passes_with_a_line_per_case(capsys):
    register(square)
    verdict = check("test.it", lambda x: x**2)
    assert verdict.passed and verdict.status == "passed" and isinstance(verdict, Verdict)
    assert capsys.readouterr().out == "✓ two\n✓ three\ntest.it: all 2 right.\n"


def test_a_wrong_answer_is_told_what_was_expected_what_came_and_why(capsys):
    register(square, Case("two", args=(2,)), Case("three", args=(3,), why="a square is not a double"), hints=["x*x"])
    verdict = check("test.it", lambda x: 2 * x)
    assert not verdict.passed and verdict.status == "failed"
    assert capsys.readouterr().out.splitlines() == [
        "✓ two",
        "✗ three, f(3): expected 9, got 6 — a square is not a double",
        'test.it: 1 of 2 right. Stuck? hint("test.it")',
    ]


def test_verdicts_are_the_same_every_time():
    register(lambda n: torch.rand(n).tolist(), Case("random numbers", args=(3,)))
    texts = {str(check("test.it", lambda n: torch.randn(n).tolist())) for _ in range(3)}
    assert len(texts) == 1
    assert check("test.it", lambda n: torch.rand(n)).passed  # seeded alike


def test_an_exception_names_its_type_message_and_line():
    def divides(x):
        half = x / 2
        return half / 0

    problem = one(square, divides, args=(2,))
    assert "ZeroDivisionError: float division by zero" in problem and "return half / 0" in problem
    assert f"line {divides.__code__.co_firstlineno + 2}" in problem


def test_the_line_is_the_learners_own_not_the_librarys():
    def wrong_shapes(x):
        return torch.ones(2, 3) @ torch.ones(2, 3)

    assert "`return torch.ones(2, 3) @ torch.ones(2, 3)`" in one(square, wrong_shapes, args=(2,))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: None, "got None: is a `return` missing?"),
        (lambda x: ..., "Not yet"),
        (lambda x: [x][0] and ..., "a blank is left"),
        (lambda x: x + [...][0], "a blank, `...`, is left"),
        (lambda: 4, "TypeError"),
        (lambda x: sys.exit(), "SystemExit"),
        (lambda x: (_ for _ in [x * x]), "a generator"),
        (lambda x: square, "the function square, not a value: is a call missing?"),
        (lambda x: dict, "the class dict"),
        (lambda x: "4", "expected 4, got '4'"),
        (lambda x: True, "expected numbers (4), got True or False (True)"),
        (lambda x: [4], "one number is asked for, this is an array of 1"),
        (lambda x: np.ones((2, 3)), "one number is asked for, this is an array of shape (2, 3)"),
        (lambda x: -4, "expected 4, got -4"),
        (lambda x: float("nan"), "expected 4, got nan"),
        (lambda x: 4 + 0j, "complex"),
        (lambda x: {4}, "an object of class set"),
        (lambda x: {"value": 4}, "got {'value': 4}"),
        (lambda x: np.array([4], dtype=object), "an array of object"),
        (lambda x: "word " * 1000, "..."),
        (lambda x: 10**30, "expected 4"),
        (lambda x: (lambda f: f(f))(lambda f: f(f)), "RecursionError"),
        (lambda x: np.zeros(2**24), "more than 32 MB"),
        (lambda x: torch.ones(2) + torch.ones(3), "RuntimeError: The size of tensor"),
        (lambda x: (_ for _ in ()).throw(ValueError(f"at {object()}")), "at 0x..."),
        (lambda x: functools.reduce(lambda a, _: [a], range(50), 4), "["),
        (lambda x: input(), "EOFError"),
        (lambda x: "\ud800", r"'\ud800'"),
        (lambda x: (_ for _ in ()).throw(ValueError("\ud800")), r"ValueError: "),
    ],
)
def test_wrong_answers(answer, words):
    register(square, Case("it", args=(2,)))
    verdict = check("test.it", answer)
    assert not verdict.passed and words.replace("at 0x...", "") in str(verdict)


def test_an_error_in_the_learners_own_arithmetic_is_not_taken_for_a_missing_return():
    def uses_none(x):
        gradient = None
        return x - gradient

    problem = one(square, uses_none, args=(2,))
    assert "NoneType" in problem and "`return x - gradient`" in problem and "missing" not in problem


def test_the_checkers_own_call_is_not_the_line_that_failed():
    case = Case("it", call=lambda f: [part + 1 for part in [f(2)]])
    register(lambda x: 4, case)
    assert check("test.it", lambda x: 4).passed
    problem = check("test.it", lambda x: None).cases[0].problem
    assert "NoneType" in problem and "(is a `return` missing?)" in problem and "line" not in problem


@pytest.mark.parametrize("returned", [None, 4, np.float64(4), torch.tensor(4)])
def test_a_missing_inner_function_is_named(returned):
    register(lambda base: lambda step: base, Case("it", call=lambda f: [f(2)(step) for step in range(3)]))
    problem = check("test.it", lambda base: returned).cases[0].problem
    assert "object is not callable (does your function return a function?)" in problem and "line" not in problem

    def calls_it(base):
        return lambda step: returned(step)

    problem = check("test.it", calls_it).cases[0].problem
    assert "`return lambda step: returned(step)`" in problem and "?" not in problem


def test_an_async_answer_is_told_so():
    async def answer(x):
        return x * x

    async def answers(x):
        yield x * x

    for wrong in (answer, answers):
        assert "got a coroutine, which has not run yet: take `async` away" in one(square, wrong, args=(2,))


def test_an_error_in_every_case_is_told_once():
    def wrong(x):
        return x * undefined  # noqa: F821

    register(square, *(Case(f"case {x}", args=(x,), why=f"reason {x}") for x in range(4)))
    verdict = check("test.it", lambda x: wrong(x) if x < 3 else [][x])
    lines = str(verdict).splitlines()
    assert "NameError" in lines[0] and "IndexError" in lines[3] and "reason" not in str(verdict)
    assert lines[1:3] == ["✗ case 1, f(1): the same error", "✗ case 2, f(2): the same error"]
    assert all("NameError" in case.problem for case in verdict.cases[:3])
    register(square, Case("two", args=(2,)), Case("three", args=(2,)))
    assert "same" not in str(check("test.it", lambda x: 5))  # a wrong value is told for every case


def test_only_the_first_failure_says_why():
    """One mistake often fails several cases; each case's own reason is kept in `problem`, for those who ask."""
    register(square, Case("two", args=(2,), why="reason 2"), Case("three", args=(3,)), Case("four", args=(4,), why="reason 4"))
    lines = str(verdict := check("test.it", lambda x: 1)).splitlines()
    assert lines[0].endswith("got 1 — reason 2") and lines[1].endswith("expected 9, got 1")
    assert lines[2].endswith("expected 16, got 1 — also off, probably the same cause")
    assert verdict.cases[2].problem.endswith("expected 16, got 1 — reason 4")
    lines = str(check("test.it", lambda x: 9 if x == 3 else 4 if x == 2 else 1)).splitlines()
    assert lines[2].endswith("expected 16, got 1 — reason 4")  # the first to fail
    register(square, Case("two", args=(2,)), Case("four", args=(4,), why="reason 4"))
    assert str(check("test.it", lambda x: 1)).splitlines()[1].endswith("— reason 4")  # the first that has a reason
    lines = str(check("test.it", lambda x: [][x] if x == 2 else 1)).splitlines()
    assert "IndexError" in lines[0] and lines[1].endswith("— also off, probably the same cause")


def test_cases_after_a_crash_are_not_judged():
    later = Case("later", args=(3,), why="never said")
    register(square, Case("fine", args=(2,)), Case("crash", args=(0,)), later)
    verdict = check("test.it", lambda x: x * x if x else os._exit(0))
    lines = str(verdict).splitlines()
    assert lines[0] == "✓ fine" and "ended the Python process" in lines[1]
    assert lines[2:] == ["✗ later: not reached", "test.it: 1 of 3 right."]


def test_a_screen_without_the_marks_shows_escapes(monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    register(square)
    assert check("test.it", square).passed
    screen.seek(0)
    assert screen.read().startswith(r"\u2713 two")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=12,
)
TERMS = {"rtol": 0.0, "atol": 0.0, "dtype": True}


def arrived(value):
    return compare.restored(json.loads(json.dumps(compare.plain(value))))


@given(PLAIN)
def test_every_plain_value_arrives_and_equals_itself(value):
    assert compare.difference(arrived(value), arrived(value), TERMS) is None


@given(PLAIN, PLAIN)
def test_what_is_accepted_is_equal(expected, got):
    if compare.difference(arrived(expected), arrived(got), TERMS) is None and "nan" not in repr((expected, got)):
        assert expected == got


def test_extreme_numbers_are_compared_without_a_warning():
    assert compare.difference(arrived([8.9e-183, 8.9e-183]), arrived([4.8e260, 8.9e-183]), TERMS)
    assert compare.difference(arrived([1e300, 1e300]), arrived([1e-300, 1e300]), TERMS)


def test_whole_numbers_are_exact_beside_real_ones():
    assert one(lambda: [10**9, 0.5], lambda: [10**9 + 1, 0.5]) == "[0] expected 1000000000, got 1000000001"
    assert one(lambda: [1, 0.5], lambda: np.array([1, 0.5])) is None
    assert one(lambda: np.array([1, 0.5]), lambda: [1, 0.5]) is None


@given(st.floats(allow_nan=False, width=32) | st.integers(-(2**62), 2**62), st.integers(0, 2))
def test_a_changed_number_is_found_and_both_are_shown(number, depth):
    other = float(np.nextafter(number, np.inf)) if isinstance(number, float) else number + 1
    assume(other != number)
    for _ in range(depth):
        number, other = [0, number], [0, other]
    problem = compare.difference(arrived(number), arrived(other), TERMS)
    left, right = problem.removeprefix("expected ").split(", got ")
    assert left != right


def test_big_whole_numbers_are_exact():
    assert one(lambda: 2**70, lambda: 2**70) is None
    assert one(lambda: 2**70, lambda: 2**70 + 1)
    assert one(lambda: 10**9, lambda: 10**9 + 1)


def test_arrays_show_the_first_place_that_differs():
    right = np.arange(100.0).reshape(10, 10)

    def wrong(_):
        bad = right.copy()
        bad[3, 2:4] = 7
        return bad

    assert one(lambda _: right, wrong, args=(0,)) == "at [3, 2] expected 32, got 7 (2 of 100 differ)"
    assert one(lambda _: right[0, :3], lambda _: right[0, 1:4], args=(0,)) == "expected [0, 1, 2], got [1, 2, 3]"
    assert "this is the transpose" in one(lambda _: right, lambda _: right.T, args=(0,))
    assert "expected shape (10, 10), got shape (100,): the numbers are right" in one(
        lambda _: right, lambda _: right.ravel(), args=(0,))
    assert "every number is 2 times" in one(lambda _: right, lambda _: right * 2, args=(0,))
    assert "the sign is the other way round" in one(lambda _: right, lambda _: -right, args=(0,))
    assert "NaN among them" in one(lambda _: right[:1, :2], lambda _: right[:1, :2] * float("nan"), args=(0,))


def test_digits_are_shown_until_they_differ():
    assert one(lambda: 1.0, lambda: 1.00001) == "expected 1, got 1.00001"
    assert one(lambda: 1.0, lambda: 1.0000001, rtol=1e-9) == "expected 1, got 1.0000001"
    assert one(lambda: 1.0, lambda: 1 + 2**-40, rtol=0, atol=0) == f"expected 1.0, got {1 + 2**-40!r}"


def test_nested_results_name_the_place():
    def reference():
        return {"loss": 1.0, "gradients": [np.zeros(3), np.ones((2, 2))]}

    def answer():
        return {"loss": 1.0, "gradients": [np.zeros(3), np.zeros((2, 2))]}

    assert one(reference, answer).startswith("['gradients'][1] expected [[1, 1], [1, 1]], got [[0, 0], [0, 0]]")
    assert "expected the keys 'loss', 'gradients', got 'loss'" in one(reference, lambda: {"loss": 1.0})
    assert "expected 2 items, got 1" in one(lambda: ["a", 1], lambda: ["a"])
    assert one(lambda: ["a", None], lambda: ["a", 1]) == "[1] expected None, got 1"
    assert one(lambda: ["a", "b"], lambda: ["a", "c"]) == "[1] expected 'b', got 'c'"
    assert one(lambda: [np.zeros(2), np.zeros(3)], lambda: np.zeros((2, 2))).startswith("[1] expected shape (3,)")


Pair = namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    "answer",
    [
        lambda: [1, 2.0], lambda: (1, 2), lambda: Pair(1, 2), lambda: np.array([1, 2]), lambda: np.float32([1, 2]),
        lambda: torch.tensor([1, 2]), lambda: torch.nn.Parameter(torch.tensor([1.0, 2.0])),
        lambda: torch.tensor([1.0, 2.0], dtype=torch.bfloat16), lambda: [torch.tensor(1), np.int8(2)],
        lambda: torch.tensor([1.0, 2.0]).to_sparse(), lambda: torch.tensor([1.0, 2.0], requires_grad=True),
    ],
)  # fmt: skip
def test_values_count_not_classes(answer):
    assert one(lambda: torch.tensor([1.0, 2.0]), answer) is None
    assert one(lambda: [1, 2], answer) is None


def test_kinds_of_numbers_count_where_they_matter():
    assert one(lambda: 3, lambda: 3.0) is None
    assert one(lambda: 3, lambda: 3.0, dtype=True) == "expected whole numbers (3), got real numbers (3)"
    assert "expected True or False (True), got numbers (1)" in one(lambda: True, lambda: 1)
    assert one(lambda: np.array([True]), lambda: torch.tensor([True])) is None
    assert one(lambda: 1j, lambda: 1j) is None and "expected 0+1j" in one(lambda: 1j, lambda: 2j)


def test_tolerances_belong_to_the_case():
    assert one(lambda: 1.0, lambda: 1.01, rtol=0.1) is None
    assert one(lambda: 1e-9, lambda: 0.0) is None  # the absolute tolerance, unless told otherwise
    assert one(lambda: 1e-9, lambda: 0.0, atol=0) == "expected 1e-09, got 0"
    assert one(lambda: float("nan"), lambda: float("nan")) is None
    assert one(lambda: float("inf"), lambda: 1e308)


def test_expected_errors():
    def careful(x):
        if x < 0:
            raise ValueError("negative")
        return x

    class Mine(ValueError): ...

    def mine(x):
        raise Mine("no")

    case = dict(args=(-1,), raises=ValueError)
    assert one(careful, careful, **case) is None and one(careful, mine, **case) is None
    assert one(careful, lambda x: x, **case) == "expected ValueError to be raised, got -1"
    assert "expected ValueError to be raised, got TypeError" in one(careful, lambda: 1, **case)


def test_a_changed_argument_is_noticed():
    def in_place(x):
        x += 1
        return x

    for made in (np.zeros(2), torch.zeros(2), [0, 0]):
        double = (lambda x: [*x, 1]) if isinstance(made, list) else (lambda x: x + 1)
        bad = (lambda x: x.append(1) or x) if isinstance(made, list) else in_place
        assert one(double, bad, args=(made,)) == "changes argument 1 in place: work on a copy"
        assert one(double, bad, kwargs={"x": made}) == "changes argument `x` in place: work on a copy"
        assert one(double, double, args=(made,)) is None
        assert one(bad, bad, args=(made,)) is None
    zeros = (np.zeros(2),)
    assert one(in_place, lambda x: x + 1, args=zeros) == "argument 1 was to be changed in place, and is as before"
    assert one(lambda x: x.fill(1), lambda x: x.fill(2), args=zeros).startswith("argument 1 after the call: exp")


def test_arguments_are_fresh_for_every_case():
    shared = np.zeros(2)
    given = {"first": (shared,), "second": (shared,), "made": lambda: (shared,)}
    register(lambda x: x + 1, *(Case(name, args=args) for name, args in given.items()))

    def spoils(x):
        y = x + 1
        x += 5
        return y

    assert all("in place" in problem for problem in problems(check("test.it", spoils)).values())
    assert check("test.it", lambda x: x + 1).passed


def test_gradients():
    case = dict(args=(torch.tensor([1.0, 2.0]), 3), gradients=True)

    def reference(x, factor):
        return factor * x**2

    assert one(reference, lambda x, factor: x * x * factor, **case) is None
    detached = one(reference, lambda x, factor: factor * x.detach() ** 2, **case)
    assert detached.startswith("no gradient reaches argument 1")
    assert one(reference, lambda x, f: torch.tensor((f * x.detach() ** 2).tolist()), **case).startswith("no gradient")
    halved = one(reference, lambda x, factor: factor * (x * x.detach()), **case)
    assert halved.startswith("gradient of argument 1: expected [6, 24], got [3, 12]")
    two = dict(args=(torch.ones(2), torch.ones(2)), gradients=True)
    assert one(lambda a, b: (a * b, a), lambda a, b: (a * b, a), **two) is None
    assert "argument 2" in one(lambda a, b: (a * b, a), lambda a, b: (a * b.detach(), a), **two)
    mixed = dict(args=(torch.ones(2), torch.ones(2, dtype=torch.float64)), gradients=True)
    assert one(lambda a, b: {"a": a * 2, "b": b * 3}, lambda a, b: {"a": a * 2, "b": b * 3}, **mixed) is None
    ones = dict(args=(torch.ones(2),), gradients=True)
    partly = one(lambda a: a * 2, lambda a: torch.stack([a[0].detach() * 2, a[1] * 2]), **ones)
    assert "gradient of argument 1: expected [2, 4], got [0, 4]" in partly
    swapped = one(lambda a: a * 2, lambda a: (a.detach() - a.flip(0).detach() + a.flip(0)) * 2, **ones)
    assert "expected [2, 4], got [4, 2]" in swapped
    assert one(lambda a: a.detach(), lambda a: a.detach(), args=(torch.ones(2),), gradients=True) is None


# Kinds of answers


def test_values_classes_and_own_calls():
    exercise("test.value", cases=[Case("the count")])(7)
    assert check("test.value", 7).passed and check("test.value", np.int64(7)).passed
    assert "expected 7, got 8" in str(check("test.value", 8))
    assert "the function square" in str(check("test.value", square))

    class Right:
        def __init__(self, start=1):
            self.start = start

        def step(self, x):
            return self.start + x

    class Wrong(Right):
        def step(self, x):
            return self.start

    with_args = Case("with args", args=(4,), call=lambda cls, x: cls().step(x))
    register(Right, Case("a step", call=lambda cls: cls(2).step(3)), with_args)
    assert check("test.it", Right).passed and problems(check("test.it", Wrong)) == {
        "a step": "expected 5, got 2", "with args": "expected 5, got 1"}


def test_a_value_where_a_function_is_asked_for():
    register(square)
    assert "A function is asked for, and this is 4: give its name, without a call." in str(check("test.it", square(2)))


def test_answers_take_along_what_the_notebook_defined():
    cell = "import math\nfactor = 2\ndef helper(x): return factor * x\n"
    cell += "def answer(x): return math.floor(helper(x) / 2) * x\n"
    namespace = {"__name__": "__main__"}
    exec(cell, namespace)
    register(square)
    assert check("test.it", namespace["answer"]).passed


def test_answers_that_cannot_be_sent():
    lock = threading.Lock()
    namespace = {"lock": lock}
    exec("def answer(x):\n    return lock", namespace)
    register(square)
    assert "because of `lock` in it" in str(check("test.it", namespace["answer"]))
    assert "cannot be sent" in str(check("test.it", lambda x: lock))

    class Hollow:
        def __call__(self, x): return x
        def __reduce__(self): return (int, ("no number",))

    assert "Not accepted: it cannot be rebuilt" in str(check("test.it", Hollow()))

    class Leaves(Hollow):
        def __reduce__(self): sys.exit()

    assert "could not be checked" in str(check("test.it", Leaves()))


STUBS = """
def docstring(x):
    "what to do"
def dots(x): ...
def documented(x):
    "what to do"
    ...
def passes(x):
    # a comment
    pass
def unready(x): raise NotImplementedError
def message(x):
    "what to do"
    raise NotImplementedError("over to you")
def formatted(x): raise NotImplementedError(f"{x} to you")
def returns(x): return ...
class All:
    def a(self): ...
    @property
    def b(self): ...
    @staticmethod
    def c(): pass
    @classmethod
    def d(cls): pass
class Given:
    def __init__(self): self.a = 1
    def a(self): ...
class Empty: "documented"
"""


def test_stubs_are_not_yet_answers(capsys):
    namespace = {}
    exec(STUBS, namespace)
    data = dataclass(type("Data", (), {"__annotations__": {"a": int}, "__call__": namespace["dots"]}))
    wrapped = functools.wraps(namespace["dots"])(lambda x: namespace["dots"](x))
    stubs = [value for name, value in namespace.items() if name != "__builtins__"]
    for stub in [*stubs, data, wrapped, lambda x: ..., ..., [..., 1], {"a": ...}, (1, ...)]:
        register(square)
        assert check("test.it", stub).status == "not yet", stub
    assert check("test.it").status == "not yet"
    assert "Not yet: fill in `dots`, then run this cell again." in capsys.readouterr().out
    assert sandbox._WORKER.process is None or sandbox._WORKER.process.poll() is None


def test_answers_are_not_taken_for_stubs():
    class Real:
        def a(self): ...
        def b(self): return 1

    class Constants:
        rate = 0.1

    class Start:
        def __init__(self): self.a = 1

    def guarded(x):
        if x:
            raise NotImplementedError
        return 1

    def computed(x): raise NotImplementedError(x.name)

    answers = [object, dict, Constants, Real, Start, guarded, computed, lambda x: x, 0, None, "", [], np.zeros(2), len]
    for answer in answers:
        assert not module._is_stub(answer), answer


# Bounds


def test_an_endless_loop_ends_even_with_a_bare_except():
    def endless(x):
        while True:
            try:
                while True:
                    pass
            except:  # noqa: E722
                pass

    register(square, Case("fine", args=(2,)), Case("endless", args=(3,)), Case("after", args=(4,)), timeout=1.0)
    verdict = check("test.it", lambda x: x * x if x == 2 else endless(x))
    found = problems(verdict)
    assert found["fine"] is None and "took longer than 1 s: is there a loop that never ends?" in found["endless"]
    assert found["after"] == "not reached"
    assert check("test.it", square).passed


def alive(pid):
    """Whether a process is there and has not ended."""
    try:
        if os.path.exists("/proc/self/stat"):
            with open(f"/proc/{pid}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] not in "ZX"
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def end_soon(pids):
    """Whether all of these processes, named in a file, end; there is time for it, they would sleep for ten minutes."""
    named, deadline = [int(pid) for pid in pids.read_text().split()], time.monotonic() + 120
    while any(map(alive, named)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return named and not any(map(alive, named))


def test_a_sleep_in_c_and_children_end_with_the_answer(tmp_path):
    pids = tmp_path / "pids"

    def starts_a_process(x):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        pids.write_text(f"{child.pid} {os.getpid()}")
        time.sleep(600)

    register(square, timeout=0.3)
    assert "did not end within 3 s: does it wait for something?" in str(check("test.it", starts_a_process))
    assert end_soon(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process that leaves its group outlives the check")
@pytest.mark.parametrize("ends", [True, False])
def test_a_daemon_ends_with_the_check(tmp_path, monkeypatch, ends):
    monkeypatch.setattr(sandbox, "_PATIENCE", 60 if ends else 4)
    pids = tmp_path / "pids"

    def daemon(x):
        if os.fork() == 0:
            os.setsid()
            for _ in range(3):
                if os.fork():
                    break
                os.setsid()
            with open(pids, "a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(600)
            os._exit(0)
        while not pids.exists() or len(pids.read_text().splitlines()) < 4:
            time.sleep(0.02)
        if not ends:
            time.sleep(600)
        return x * x

    register(square, timeout=1.0)
    assert check("test.it", daemon).passed == ends
    assert end_soon(pids)
    assert check("test.it", square).passed


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such an answer ends by itself")
def test_an_answer_ends_with_its_worker(tmp_path):
    pids = tmp_path / "pids"

    def kills_its_worker(x):
        with open(pids, "a") as file:
            file.write(f"{os.getpid()}\n")
        os.kill(os.getppid(), 9)
        time.sleep(600)

    register(square)
    assert "the answer ended the checker process, twice" in str(check("test.it", kills_its_worker))
    assert end_soon(pids)


def test_a_stopped_worker_is_noticed_and_replaced(monkeypatch):
    register(square, timeout=1.0)
    assert check("test.it", square).passed
    before = sandbox._WORKER.process
    with monkeypatch.context() as short:
        for name, value in {"_GRACE": 1.0, "_PATIENCE": 3.0, "_LOADING": 20.0}.items():
            short.setattr(sandbox, name, value)
        verdict = check("test.it", lambda x: os.kill(os.getppid(), signal.SIGSTOP))
    assert "Not accepted: the answer stopped the checker process; it restarts." in str(verdict)
    assert before.poll() is not None and check("test.it", square).passed


CROWDED = """
import os, subprocess, sys, time
import nnlearn.course.check as module
from nnlearn.course import sandbox

sandbox._PATIENCE = 1.0  # by the clock no more than in CPU time: only the time in line saves the answer
module.exercise("test.it", cases=[module.Case("it", args=(2,))], timeout=1.5)(lambda x: x * x)


def works(x):
    begin, before = time.monotonic(), time.process_time()
    while time.process_time() < before + 0.6:
        pass
    print("slowly" if time.monotonic() > begin + 1.6 else "at once")
    return x * x


os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
crowd = [subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)  # Linux may share out time by session
         for _ in range(3)]
try:
    verdict = module.check("test.it", works)
finally:
    for process in crowd:
        process.kill()
print(verdict.status, verdict.printed)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="here nobody counts how long a process stood in line")
def test_a_busy_machine_fails_nobody(tmp_path):
    """An answer that needs less than half of its CPU time passes, though three others share its processor."""
    script = tmp_path / "kernel.py"
    script.write_text(CROWDED)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["passed slowly"], (done.returncode, done.stdout, done.stderr)


def test_floods_are_cut(monkeypatch):
    monkeypatch.setattr(sandbox, "_PATIENCE", 100.0)  # it waits for its reader, too

    def flood(x):
        while True:
            print("x" * 1000)

    register(square, timeout=0.5)
    verdict = check("test.it", flood)
    assert "took longer" in str(verdict) and len(verdict.printed) <= 2010


def test_prints_are_shown(capsys):
    def prints(x):
        print("x is", x)
        return x * x

    register(square)
    assert check("test.it", prints).passed
    assert capsys.readouterr().out.endswith("Printed by the answer:\nx is 2\nx is 3\n")


def test_what_goes_to_stderr_is_shown_too(capsys):
    def talks(x):
        print("x is", x, file=sys.stderr)
        warnings.warn("in a file of this session", stacklevel=1)
        for i in range(10):
            print(f"\r{i * 10} % done", end="", file=sys.stderr)
        print(file=sys.stderr)
        return x * x

    register(square, Case("two", args=(2,)))
    assert check("test.it", talks).passed
    assert capsys.readouterr().out.endswith("Printed by the answer:\nx is 2\n90 % done\n")


def test_warnings_can_still_be_caught():
    def catches(x):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.warn("one", stacklevel=1)
        return x * x * len(caught)

    assert one(square, catches, args=(2,)) is None


def test_a_flood_that_never_pauses_ends_and_takes_no_memory():
    results, end = os.pipe()
    heard = []
    with open("/dev/zero", "rb") as flood:
        limits = sandbox._Limits(0.3, 0.3, 0.3)
        listener = threading.Thread(
            target=lambda: heard.append(sandbox._listen(results, flood.fileno(), 2, limits, lambda: None)), daemon=True)
        listener.start()
        listener.join(timeout=120)
        assert not listener.is_alive()
    inbox, late = heard[0]
    assert late and len(inbox.printed) == 4000
    os.close(results)
    os.close(end)


def test_too_much_memory_is_an_error_not_a_crash():
    problem = one(square, lambda x: len(bytearray(2**33)), args=(2,))
    assert "MemoryError" in problem


# Cheats


class Agrees:
    """Equal to everything, and an array of whatever you like."""

    __hash__ = None

    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __array__(self, *args, **kwargs): return np.full((), 5)
    def __float__(self): return 5.0
    def __sub__(self, other): return 0


class SoftTensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None): return True


class LooseArray(np.ndarray):
    def __eq__(self, other): return np.array(True)


def test_what_is_not_a_plain_value_equals_nothing():
    for make in (lambda: torch.tensor(4.0).as_subclass(SoftTensor), lambda: np.array(4.0).view(LooseArray), object):
        assert "an object of class" in one(lambda: 4.0, make) and "an object of class" in one(make, make)


def forge(x):
    import builtins

    import numpy

    torch.allclose = torch.equal = numpy.allclose = numpy.isclose = numpy.array_equal = lambda *a, **k: True
    numpy.argwhere = lambda *a: []
    builtins.abs = builtins.all = builtins.len = None
    return 5


def forge_the_module(x):
    compare.difference = sandbox.difference = sandbox._problem = lambda *a: None
    compare.plain = sandbox.plain = lambda *a: {"numbers": ["<i8", [], ""]}
    return 5


def look_around(x):
    """Search every frame and every object for the reference or its results."""
    import gc

    frame, found = sys._getframe(), []
    while frame:
        found += [v for v in frame.f_locals.values() if isinstance(v, dict)]
        frame = frame.f_back
    for item in [*found, *(o for o in gc.get_objects() if type(o) is dict)]:
        packed = dict.get(item, "reference")
        if isinstance(packed, (str, bytes)) and len(packed) > 100:
            import base64
            import pickle
            return pickle.loads(base64.b64decode(packed))(x)
    return 5


def answers_again(x):
    """Fork, so that two processes answer."""
    os.fork()
    return 5


def writes_into_every_pipe(x):
    for fd in range(3, 200):
        try:
            os.write(fd, b"\0" * 7 + b"\x10" + b'{"value": null} ')
        except OSError:
            pass
    return 5


def kills_the_worker(x):
    os.kill(os.getppid(), 9)


CHEATS = {
    "equal to all": lambda x: Agrees(),
    "tensor subclass": lambda x: torch.ones(()).as_subclass(SoftTensor),
    "array subclass": lambda x: np.zeros(()).view(LooseArray),
    "in a list": lambda x: [Agrees()],
    "patches": forge,
    "patches the checker": forge_the_module,
    "looks around": look_around,
    "forks": answers_again,
    "writes into every pipe": writes_into_every_pipe,
    "no exit": lambda x: setattr(os, "_exit", None),
    "os._exit": lambda x: os._exit(0),
    "os._exit 1": lambda x: os._exit(1),
    "sys.exit": lambda x: sys.exit(0),
    "quit": lambda x: quit(),
    "segfault": lambda x: os.kill(os.getpid(), 11),
    "abort": lambda x: os.abort(),
    "kills its group": lambda x: os.killpg(0, 9),
    "closes all files": lambda x: os.closerange(0, 300),
    "closes stdout": lambda x: sys.stdout.close(),
    "interrupts": lambda x: (_ for _ in ()).throw(KeyboardInterrupt()),
    "evil error": lambda x: (_ for _ in ()).throw(type("E", (Exception,), {"__str__": lambda s: 1 / 0})()),
    "evil error class": lambda x: (_ for _ in ()).throw(type("E", (BaseException,), {"__module__": None})()),
    "no dumps": lambda x: setattr(json, "dumps", lambda *a: '{"value": null}'),
    "NaN": lambda x: np.nan,
    "kills the worker": kills_the_worker,
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_cheats_are_refused_and_the_next_check_is_clean(cheat, capsys):
    register(square, Case("it", args=(2,)), timeout=3.0)
    verdict = check("test.it", CHEATS[cheat])
    assert verdict.status == "failed" and len(capsys.readouterr().out) > 10
    assert check("test.it", square).passed


def test_an_answer_that_patches_for_the_case_after_it():
    def first_wrong_then_forged(x):
        forge(x)
        return x * x + 1

    register(square)
    assert not check("test.it", first_wrong_then_forged).passed


def test_a_patched_kernel_accepts_nothing(monkeypatch, tmp_path):
    """In a notebook's own process: builtins and libraries patched by the learner do not make 5 equal 4."""
    script = tmp_path / "kernel.py"
    script.write_text(
        "import builtins, numpy, torch, sys\n"
        "from nnlearn.course.check import Case, check, exercise\n"
        "exercise('test.it', cases=[Case('it', args=(2,))])(lambda x: x * x)\n"
        "numpy.allclose = numpy.isclose = torch.allclose = torch.equal = lambda *a, **k: True\n"
        "builtins.abs = None\n"
        "builtins.all = builtins.any = lambda *a: True\n"
        "first = check('test.it', lambda x: 5)\n"
        "builtins.len = None\n"
        "second = check('test.it', lambda x: 5)\n"
        "sys.exit(0 if first.status == second.status == 'failed' else 1)\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "expected 4, got 5" in done.stdout and "could not be checked" in done.stdout


def test_the_reference_is_as_it_was_registered():
    namespace = {"__name__": "__main__"}
    exec("def helper(x): return x * x\ndef reference(x): return helper(x)", namespace)
    register(namespace["reference"])
    namespace["helper"] = lambda x: 0
    assert check("test.it", square).passed and not check("test.it", lambda x: 0).passed


def test_a_check_leaves_the_notebooks_random_state_alone():
    register(square)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check("test.it", square)
    assert torch.equal(before, torch.get_rng_state())


# The worker


def test_the_worker_stays_and_comes_back():
    register(square)
    check("test.it", square)
    process = sandbox._WORKER.process
    check("test.it", square)
    assert sandbox._WORKER.process is process
    process.kill()
    process.wait()
    assert check("test.it", square).passed and sandbox._WORKER.process is not process


@pytest.mark.skipif(not sandbox._FORK, reason="nothing is forked here")
def test_what_a_reference_imports_is_there_for_the_next_answer():
    def imports(*names):
        def answer(x):
            import importlib
            for name in names:
                importlib.import_module(name)
            return x
        return answer

    def here(name):
        import sys
        return name in sys.modules

    slow, other = "torch._dynamo", "torch.utils.mobile_optimizer"
    sandbox._WORKER.stop()
    register(imports(slow, "wave"))
    assert check("test.it", imports(other)).passed
    exercise("test.here", cases=[Case("slow", args=(slow,))])(lambda name: True)
    assert check("test.here", here).passed
    sandbox._WORKER.stop()
    register(imports(slow), timeout=0.3)  # less than the import takes: the exercise pays for it, not the answer
    assert check("test.it", imports(slow)).passed
    check("test.it", imports(other))
    for name in (other, "wave"):  # only the reference's, and only of packages that may be there
        exercise("test.gone", cases=[Case("other", args=(name,))])(lambda name: False)
        assert check("test.gone", here).passed, name


def test_without_fork_a_new_process_does_the_same(monkeypatch):
    monkeypatch.setattr(sandbox, "_FORK", False)
    monkeypatch.setattr(sandbox, "_PATIENCE", 100.0)
    register(square, timeout=0.5)

    def endless(x):
        while True:
            pass

    assert check("test.it", square).passed
    assert problems(check("test.it", lambda x: 2 * x)) == {"two": None, "three": "expected 9, got 6"}
    assert "took longer than 0.5 s" in str(check("test.it", endless))
    monkeypatch.setattr(sandbox, "_PATIENCE", 6.0)
    assert "did not end within 3 s" in str(check("test.it", lambda x: time.sleep(600)))
    assert "ended the Python process" in str(check("test.it", lambda x: os._exit(0)))


def test_a_worker_that_cannot_start(monkeypatch):
    sandbox._WORKER.stop()
    monkeypatch.setattr(sandbox, "_command", lambda function: [sys.executable, "-c", "raise SystemExit(1)"])
    register(square)
    assert "the answer ended the checker process" in str(check("test.it", square))


def test_an_interrupt_ends_the_worker_and_comes_through(monkeypatch):
    register(square)
    check("test.it", square)
    monkeypatch.setattr(sandbox, "_read", lambda pipe: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        check("test.it", square)
    assert sandbox._WORKER.process is None
    monkeypatch.undo()


def test_importing_is_light_and_starts_nothing():
    code = "import sys, nnlearn.course.check, nnlearn.course.sandbox as c\n"
    code += "print(c._WORKER.process, [m for m in ('torch', 'matplotlib', 'IPython') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None []"


# Registering, hints, progress


def test_wrong_registrations_are_refused():
    case = Case("a")
    for name, cases, hints, words in [
        ("nolesson", [case], (), "lesson.name"),
        ("a.b", [], (), "needs cases"),
        ("a.b", [case, case], (), "another name"),
        ("a.b", [case], "one string", "list of sentences"),
        ("a.b", [Case("x", args=5)], (), "args is a tuple"),
    ]:
        with pytest.raises(ConfigError, match=words):
            exercise(name, cases=cases, hints=hints)


def test_a_broken_reference_is_the_exercises_fault():
    register(lambda x: 1 / 0)
    verdict = check("test.it", lambda x: 1 / 0)
    assert verdict.status == "failed" and "the exercise itself is at fault" in str(verdict)
    register(square, Case("it", args=(2,), raises=ValueError))
    assert "no error" in str(check("test.it", square))
    register(lambda x: int("two"), Case("it", args=(2,), raises=KeyError))
    assert "at fault, its reference gives no answer (ValueError: invalid" in str(check("test.it", square))
    register(lambda x: {}[x], Case("it", args=(2,), raises=LookupError))
    assert check("test.it", lambda x: {}[x]).passed
    register(lambda x: time.sleep(600), timeout=0.05)
    assert "at fault" in str(check("test.it", square))


def test_unknown_exercises_name_the_nearest():
    register(square)
    verdict = check("test.its", square)
    assert verdict.status == "unknown" and "Did you mean 'test.it'?" in str(verdict)
    assert check(square, "test.it").status == "unknown"
    assert "progress()" in str(check("zzzzzzzz.qqqqqq", square))


def test_the_notebooks_exercise_wins_over_the_librarys(monkeypatch):
    monkeypatch.setattr(module, "_LIBRARY", {})
    namespace = {"__name__": "nnlearn.course.exercises", "exercise": exercise, "Case": Case}
    exec("exercise('test.it', cases=[Case('library', args=(2,))])(lambda x: 0)", namespace)
    assert list(module._LIBRARY) == ["test.it"] and check("test.it", lambda x: 0).passed
    register(square)
    exec("exercise('test.it', cases=[Case('library', args=(2,))])(lambda x: 0)", namespace)
    assert check("test.it", square).passed
    assert module._exercises()[0]["test.it"] is module._SESSION["test.it"] is not module._LIBRARY["test.it"]


def test_a_library_that_cannot_be_loaded_is_said(monkeypatch, capsys):
    tried = []

    def broken(name):
        tried.append(name)
        raise NameError("name 'oops' is not defined")

    register(square, hints=["x * x"])
    monkeypatch.setattr(module.importlib, "import_module", broken)
    monkeypatch.setattr(module, "_LIBRARY", {})
    says = "The library's exercises cannot be loaded (NameError: name 'oops' is not defined).\n"
    hint("other.one")
    assert capsys.readouterr().out == says
    verdict = check("other.one", square)
    assert verdict.status == "unknown" and capsys.readouterr().out == says
    progress()
    assert capsys.readouterr().out == "test  0 of 1:  · it\n" + says
    progress("other")
    assert capsys.readouterr().out == says
    tried.clear()
    hint("test.it")
    assert capsys.readouterr().out == "Hint 1 of 1: x * x\n" and not tried


def test_hints_come_one_by_one(capsys):
    register(square, hints=["multiply", "x * x"])
    for _ in range(3):
        hint("test.it")
    hint("test.its")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Hint 1 of 2: multiply", "Hint 2 of 2: x * x"] and "no more hints" in lines[2]
    assert "Did you mean 'test.it'?" in lines[3]
    register(square)
    module._HINTS.clear()
    hint("test.it")
    assert "has no hints" in capsys.readouterr().out


def test_progress_counts_what_the_learner_solved(capsys, monkeypatch):
    monkeypatch.setattr(module, "_LIBRARY", {})
    for name in ("alpha.one", "alpha.two", "beta.three"):
        exercise(name, cases=[Case("it", args=(2,))])(square)
    check("alpha.one", square)
    check("alpha.two", square, solution=True)
    check("beta.three", lambda x: 0)
    capsys.readouterr()
    progress("alpha")
    assert capsys.readouterr().out == "alpha  1 of 2:  ✓ one, · two\n"
    progress()
    assert "beta   0 of 1:  · three" in capsys.readouterr().out
    progress("gamma")
    assert "No exercises in a lesson 'gamma'" in capsys.readouterr().out
    module._SESSION.clear()
    monkeypatch.setattr(module, "_exercises", lambda: ({}, ""))
    progress()
    assert "No exercises here yet" in capsys.readouterr().out


DAMAGES = ["", "{", "[]", '{"solved": 3}', '{"solved": [1, "kept.it"]}', "\0" * 100, "[" * 10**5]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_progress_file_is_survived(damage):
    home = module._home()
    home.mkdir(parents=True)
    (home / "progress.json").write_text(damage)
    register(square)
    assert check("test.it", square).passed
    assert module._solved() == {"test.it"} | ({"kept.it"} if "kept" in damage else set())
    assert sorted(p.name for p in home.iterdir()) == ["progress.json", "progress.lock"]


def test_many_notebooks_may_record_at_once(tmp_path):
    code = "import sys; from nnlearn.course import check as c\nfor i in range(20): c._record(f'many.{sys.argv[1]}_{i}')"
    crowd = [subprocess.Popen([sys.executable, "-c", code, str(i)]) for i in range(4)]
    assert [process.wait() for process in crowd] == [0] * 4
    assert len(module._solved()) == 80


def test_a_disk_that_cannot_be_written_is_no_reason_to_fail(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NNLEARN_HOME", str(tmp_path / "file" / "home"))
    register(square)
    assert check("test.it", square).passed and module._solved() == set()


@pytest.mark.parametrize(
    ("platform", "variable", "end"),
    [
        ("linux", "XDG_DATA_HOME", "data/nnlearn"),
        ("win32", "LOCALAPPDATA", "data/nnlearn"),
        ("darwin", None, "Application Support/nnlearn"),
    ],
)
def test_progress_lives_where_the_platform_keeps_data(monkeypatch, tmp_path, platform, variable, end):
    monkeypatch.delenv("NNLEARN_HOME")
    monkeypatch.setattr(module.sys, "platform", platform)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "data"))
    assert module._home().as_posix().endswith(end)
