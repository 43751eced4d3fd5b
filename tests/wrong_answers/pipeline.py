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


def _digest(*parts, **options):
    import hashlib
    import json
    return hashlib.sha256(json.dumps(parts, **options).encode()).hexdigest()


@wrong("pipeline.key", case="another process", word="got False")
def salted(name, settings, before):
    import json
    return str(hash(json.dumps([before, name, settings], sort_keys=True)))


@wrong("pipeline.key", case="another step before", word="got True")
def forgets_what_came_before(name, settings, before):
    return _digest(name, settings, sort_keys=True)


@wrong("pipeline.key", case="another order", word="got False")
def keeps_the_order(name, settings, before):
    return _digest(before, name, settings)


@wrong("pipeline.key", case="another order inside", word="got False")
def sorts_the_outer_dict_only(name, settings, before):
    return _digest(before, name, sorted(settings.items()))


@wrong("pipeline.key", case="where the name ends", word="got True")
def puts_texts_together(name, settings, before):
    return _digest(name + before, settings, sort_keys=True)


@wrong("pipeline.key", case="a number and its string", word="got True")
def makes_text_of_everything(name, settings, before):
    def text(value):
        return {k: text(v) for k, v in value.items()} if isinstance(value, dict) else str(value)
    return _digest(before, name, text(settings), sort_keys=True)


def _fitting(size, score, units, bits, points):
    least = score(max(units), max(bits)) - points
    return [(u, b) for u in units for b in bits if score(u, b) >= least]


@wrong("pipeline.smallest", case="each alone is allowed", word="got")
def chooses_each_alone(size, score, units, bits, points):
    fitting = _fitting(size, score, units, bits, points)
    return min(u for u, b in fitting if b == max(bits)), min(b for u, b in fitting if u == max(units))


@wrong("pipeline.smallest", case="equal bytes", word="got")
def the_last_of_equals(size, score, units, bits, points):
    return min(reversed(_fitting(size, score, units, bits, points)), key=lambda pair: size(*pair))


@wrong("pipeline.smallest", case="at the limit", word="got")
def allows_less_than_the_points(size, score, units, bits, points):
    return min(_fitting(size, score, units, bits, points - 1e-6), key=lambda pair: (size(*pair), -score(*pair)))


@wrong("pipeline.smallest", case="units cost", word="got")
def units_first(size, score, units, bits, points):
    return min(_fitting(size, score, units, bits, points), key=lambda pair: (pair[1], -pair[0]))
