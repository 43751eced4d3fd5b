"""What a claim run puts into a kernel: every assertion is written down, held or not, and the cell goes on."""
import json
import math
import operator

OPERATORS = {"Lt": operator.lt, "LtE": operator.le, "Gt": operator.gt, "GtE": operator.ge, "Eq": operator.eq, "NotEq": operator.ne,
             "Is": operator.is_, "IsNot": operator.is_not, "In": lambda a, b: a in b, "NotIn": lambda a, b: a not in b}


class Recorder:
    """The assertions of a run: {place: [held or not, the numbers that were compared or None]}; in a loop the worst counts."""

    def __init__(self):
        self.found, self.errors = {}, []

    def truth(self, place, value):
        """An assertion without a comparison."""
        self.note(place, bool(value), None)
        return bool(value)

    def compare(self, place, operators, *values):
        """A comparison, chained perhaps; `operators` are the names of ast's classes."""
        held = all(OPERATORS[name](a, b) for name, a, b in zip(operators, values, values[1:]))
        self.note(place, held, [number(value) for value in values])
        return held

    def fell(self, place, error):
        """An assertion that could not be evaluated."""
        self.note(place, False, None)
        self.errors.append(f"{place}: {type(error).__name__}: {error}"[:300])

    def note(self, place, held, numbers):
        """Remember an outcome."""
        old = self.found.setdefault(place, [True, numbers])
        self.found[place] = [old[0] and held, old[1] if old[0] and held else numbers]

    def save(self, path):
        """Write what was found as JSON."""
        with open(path, "w") as file:
            json.dump(self.found | {"errors": self.errors}, file)


def number(value):
    """A finite number as a float, None for anything else."""
    try:
        value = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return value if math.isfinite(value) else None


recorder = Recorder()
