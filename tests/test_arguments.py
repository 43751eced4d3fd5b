"""Every declared signature is fed wrong types, values out of range and misspelt names; each is refused by name."""
import importlib
import inspect
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union

import numpy as np
import pytest
import torch
from annotated_types import Ge, Gt, Le, Len, Lt, MinLen

import nnlearn
from nnlearn.core import ConfigError, Rule, checked, checked_rules

PACKAGE = Path(nnlearn.__file__).parent
MODULES = sorted(".".join(p.relative_to(PACKAGE).with_suffix("").parts) for p in PACKAGE.rglob("[a-z]*.py")
                 if p.parent.name != "keras" or find_spec("tensorflow"))  # nnlearn.keras is not there without it


def declared():
    """(name, callable) of everything public that `checked` decorates."""
    found = []
    for module in map(importlib.import_module, (f"nnlearn.{name}" for name in MODULES)):
        own = {name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
        found += [pytest.param(value, id=f"{module.__name__}.{name}") for name, value in own.items()
                  if not name.startswith("_") and callable(value) and checked_rules(value)]
    return found


OF_ANOTHER_TYPE = {int: [2.5, True, "7"], float: [True, "7"], bool: [1, "no"], str: [7, b"name"]}


def wrong_values(rule: Rule) -> list[Any]:
    """Values that the rule must refuse: of no declared type, not finite, just outside of each bound, almost a choice."""
    options = rule.parts if rule.origin in (Union, UnionType) else (rule,)
    wrong: list[Any] = [object(), math.nan, -math.inf]
    for option in options:
        wrong += OF_ANOTHER_TYPE.get(option.origin, [])
        wrong += [choice + "_" for choice in option.parts if isinstance(choice, str)]
        for bound in option.bounds:
            for name, off in (("gt", 0), ("ge", -1), ("lt", 0), ("le", 1)):
                if (limit := getattr(bound, name, None)) is not None:
                    wrong += [limit + off, np.float64(limit + off)]
    return [value for value in wrong if not any(fits(option, value) for option in options)]


def fits(rule: Rule, value: Any) -> bool:
    """Whether one alternative of a union takes the value."""
    try:
        rule.fit(value)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("function", declared())
def test_wrong_arguments_are_refused_by_name(function):
    place = function.__name__
    for name, rule in checked_rules(function).items():
        default = inspect.signature(function).parameters[name].default
        for value in wrong_values(rule):
            if value is default:
                continue
            with pytest.raises(ConfigError, match=rf"^{place}\.{name}: expected "):
                function(**{name: value})
    with pytest.raises(ConfigError, match=rf"^{place}: unknown argument 'no_such_argument'"):
        function(no_such_argument=1)


def test_there_are_declared_signatures():
    assert len(list(declared())) >= 7


@pytest.mark.parametrize(("annotation", "right", "wrong", "words"), [
    (int, [3, np.int8(3), -1], [True, 3.0, "3", None], "an integer"),
    (float, [3, 0.5, np.float32(0.5), np.int64(2)], [True, "0.5", math.inf, math.nan, 1j, torch.tensor(1.0)], "a number"),
    (bool, [True, np.bool_(False)], [0, 1, "yes", None], "True or False"),
    (str, ["", "a"], [3, b"a", None], "a string"),
    (Annotated[int, Ge(0), Lt(8)], [0, 7], [-1, 8, 7.5], "an integer from 0 to below 8"),
    (Annotated[float, Gt(0), Le(1)], [1, 1e-9], [0, -0.0, 1.0001], "a number above 0 and at most 1"),
    (Annotated[int, Ge(1)] | None, [None, 1], [0, "none"], "an integer of at least 1 or None"),
    (Literal["min", "max"], ["min", "MAX"], ["lowest", 3, None], "one of 'min', 'max'"),
    (Literal[2, 4], [2, 4], [3, True, 2.0, "2"], "one of 2, 4"),
    (list[Annotated[int, Ge(1)]], [[1, 2], [], (np.int16(3),)], [[0], "12", {1}, 3], "a sequence, each item an integer of at least 1"),
    (tuple[int, str], [(1, "a"), [1, "a"]], [(1,), (1, 2), ("a", 1)], "(an integer, a string)"),
    (Annotated[list[int], MinLen(2)], [[1, 2]], [[1]], None),
    (torch.nn.Module, [torch.nn.ReLU()], [torch.nn.ReLU, "relu", None], "a Module"),
])
def test_rules(annotation, right, wrong, words):
    rule = Rule(annotation)
    for value in right:
        rule.fit(value)
    for value in wrong:
        with pytest.raises(ValueError, match="expected .*, got "):
            rule.fit(value)
    assert words is None or str(rule) == words


def test_numpy_numbers_arrive_as_pythons_and_names_as_they_are_declared():
    @checked
    def f(count: int, rate: float = 1.0, mode: Literal["min_max", "mean"] = "mean", *rest: Any, flag: bool = False):
        return count, rate, mode, rest, flag

    got = f(np.int64(3), np.float32(0.5), "Min-Max", "more", "still", flag=np.bool_(True))
    assert got == (3, 0.5, "min_max", ("more", "still"), True)
    assert [type(value) for value in got] == [int, float, str, tuple, bool]
    assert f(2, 3)[1] == 3 and type(f(2, 3)[1]) is int


def test_a_missing_argument_is_pythons_own_error_and_open_signatures_stay_open():
    @checked
    def f(a: int, **options: Any):
        return options

    assert f(1, anything=2) == {"anything": 2}
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        f()


def test_methods_and_classes_are_named_as_people_call_them():
    @checked
    class Thing:
        def __init__(self, size: Annotated[int, Gt(0)]):
            self.size = size

        @checked
        def grow(self, by: int = 1):
            return self.size + by

    with pytest.raises(ConfigError, match=r"^Thing\.size: expected an integer above 0, got 0\.$"):
        Thing(0)
    with pytest.raises(ConfigError, match=r"^Thing\.grow\.by: expected an integer, got '1'\.$"):
        Thing(1).grow("1")
    assert Thing(np.int64(2)).grow(by=np.int8(3)) == 5 and "size" in inspect.signature(Thing).parameters


def test_a_sequence_says_how_many_items_it_takes_and_which_is_wrong():
    rule = Rule(Annotated[Sequence[Annotated[int, Ge(1)]], Len(1, 2)])
    assert rule.fit([1, 2]) == [1, 2] and rule.fit((3,)) == (3,)
    for wrong, words in [([], "with 1 to 2 items.* got \\[\\]"), ([1, 2, 3], "got a list of 3 items"), (5, "got 5")]:
        with pytest.raises(ValueError, match=words):
            rule.fit(wrong)
    with pytest.raises(ValueError, match="an integer of at least 1, got 0") as caught:
        rule.fit([1, 0])
    assert caught.value.at == "[1]"
