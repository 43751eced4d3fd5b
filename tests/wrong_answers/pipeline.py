"""Wrong answers to the exercises of lesson 22."""
from wrong_answers import wrong


@wrong("pipeline.ship", case="equally accurate", word="got")
def the_first_of_equals(rows, max_bytes, max_ms):
    fitting = [row for row in rows if row[2] <= max_bytes and row[3] <= max_ms]
    return max(fitting, key=lambda row: row[1])[0] if fitting else None


@wrong("pipeline.ship", case="small but slow", word="got")
def forgets_the_time(rows, max_bytes, max_ms):
    fitting = [row for row in rows if row[2] <= max_bytes]
    return min(fitting, key=lambda row: (-row[1], row[2]))[0] if fitting else None


@wrong("pipeline.ship", case="just fits", word="got")
def strictly_below(rows, max_bytes, max_ms):
    fitting = [row for row in rows if row[2] < max_bytes and row[3] < max_ms]
    return min(fitting, key=lambda row: (-row[1], row[2]))[0] if fitting else None


@wrong("pipeline.stale", case="the first changed", word="got")
def only_what_changed(stages, old, new):
    return [name for name in stages if name not in old or old[name] != new[name]]


@wrong("pipeline.stale", case="never run at all", word="got")
def none_is_missing(stages, old, new):
    first = next((i for i, name in enumerate(stages) if old.get(name) != new[name]), len(stages))
    return stages[first:]


@wrong("pipeline.stale", case="the last changed", word="got")
def all_or_nothing(stages, old, new):
    return list(stages) if old != new else []


@wrong("pipeline.paper_bytes", case="color", word="got")
def prunes_the_input_too(channels, pixels, classes, share, bits):
    kept = [max(1, round(c * (1 - share))) for c in channels]
    numbers = sum(9 * a * b + b for a, b in zip(kept, kept[1:])) + pixels * kept[-1] * classes + classes
    return numbers * bits / 8


@wrong("pipeline.paper_bytes", case="nearly all", word="got")
def may_keep_no_channel(channels, pixels, classes, share, bits):
    kept = [channels[0], *(round(c * (1 - share)) for c in channels[1:])]
    numbers = sum(9 * a * b + b for a, b in zip(kept, kept[1:])) + pixels * kept[-1] * classes + classes
    return numbers * bits / 8


@wrong("pipeline.paper_bytes", case="half of the channels", word="got")
def promises_the_square(channels, pixels, classes, share, bits):
    numbers = sum(9 * a * b + b for a, b in zip(channels, channels[1:])) + pixels * channels[-1] * classes + classes
    return numbers * bits / 8 * (1 - share) ** 2


@wrong("pipeline.paper_bytes", case="a share that does not divide", word="got")
def cuts_instead_of_rounding(channels, pixels, classes, share, bits):
    kept = [channels[0], *(max(1, int(c * (1 - share))) for c in channels[1:])]
    numbers = sum(9 * a * b + b for a, b in zip(kept, kept[1:])) + pixels * kept[-1] * classes + classes
    return numbers * bits / 8
