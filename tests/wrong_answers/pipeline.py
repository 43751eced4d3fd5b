"""Wrong answers to the exercises of lesson 22."""
from wrong_answers import wrong


@wrong("pipeline.front", case="twins", word="got")
def twins_beat_each_other(rows):
    return [i for i, (s, r) in enumerate(rows) if not any(a <= s and b >= r for j, (a, b) in enumerate(rows) if j != i)]


@wrong("pipeline.front", case="equal in one", word="got")
def only_strictly_better_beats(rows):
    return [i for i, (s, r) in enumerate(rows) if not any(a < s and b > r for a, b in rows)]


@wrong("pipeline.front", case="a trade", word="got")
def only_the_most_accurate(rows):
    best = max(r for _, r in rows)
    return [i for i, (_, r) in enumerate(rows) if r == best]


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
