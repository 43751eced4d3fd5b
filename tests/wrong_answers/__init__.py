"""Plausible wrong answers to the exercises, one file a lesson: `schedules.py` holds those of `schedules.*`.

At least three for each exercise, one of which passes every case but the one that it names:

    from wrong_answers import wrong

    @wrong("schedules.triangle", case="on the way down", word="expected 0.26")
    def never_comes_down(step, low, high, half):
        return low + (high - low) * min(step % (2 * half) / half, 1)

    wrong("passes.parameters", case="the value", word="got 1180")(1180)     # where the answer is a value

`case` is the case that must fail, `word` a part of what the verdict says of it.
"""
import importlib
from typing import Any, NamedTuple

import cloudpickle


class Wrong(NamedTuple):
    """A wrong answer, the case at which it must fail, and a part of what is said then."""

    answer: Any
    case: str
    word: str


ANSWERS: dict[str, list[Wrong]] = {}


def wrong(exercise: str, *, case: str, word: str):
    """Keep a wrong answer to an exercise."""

    def keep(answer):
        ANSWERS.setdefault(exercise, []).append(Wrong(answer, case, word))
        return answer

    return keep


def answers_to(exercise: str) -> list[Wrong]:
    """The wrong answers to an exercise; a lesson without a file is an error."""
    lesson = importlib.import_module(f"wrong_answers.{exercise.split('.')[0]}")
    cloudpickle.register_pickle_by_value(lesson)  # as what a notebook defines is
    return ANSWERS.get(exercise, [])
