"""Wrong answers to the exercises of lesson 09."""
import math

from wrong_answers import wrong


@wrong("schedules.triangle", case="on the way down", word="expected 0.26")
def never_comes_down(step, low, high, half):
    return low + (high - low) * min(step % (2 * half) / half, 1)


@wrong("schedules.triangle", case="a later cycle", word="expected 0.22")
def only_one_cycle(step, low, high, half):
    return low + (high - low) * max(0.0, 1 - abs(step - half) / half)


@wrong("schedules.triangle", case="starts at low", word="expected 0.1")
def starts_at_the_top(step, low, high, half):
    return low + (high - low) * abs(step % (2 * half) - half) / half


@wrong("schedules.triangle", case="on the way up", word="expected 0.26")
def forgets_low(step, low, high, half):
    return high * (1 - abs(step % (2 * half) - half) / half)


@wrong("schedules.total_steps", case="a smaller last batch", word="expected 46")
def rounds_down(samples, batch_size, epochs, accumulate=1, drop_last=False):
    return epochs * -(-(samples // batch_size) // accumulate)


@wrong("schedules.total_steps", case="accumulation with a rest", word="expected 15")
def drops_the_rest_of_the_window(samples, batch_size, epochs, accumulate=1, drop_last=False):
    batches = samples // batch_size if drop_last else math.ceil(samples / batch_size)
    return epochs * (batches // accumulate)


@wrong("schedules.total_steps", case="a smaller last batch", word="expected 46")
def rounds_once_for_the_whole_run(samples, batch_size, epochs, accumulate=1, drop_last=False):
    batches = samples * epochs // batch_size if drop_last else math.ceil(samples * epochs / batch_size)
    return math.ceil(batches / accumulate)


@wrong("schedules.total_steps", case="accumulation with a rest", word="expected 15")
def lets_a_window_cross_epochs(samples, batch_size, epochs, accumulate=1, drop_last=False):
    batches = samples // batch_size if drop_last else math.ceil(samples / batch_size)
    return math.ceil(batches * epochs / accumulate)


@wrong("schedules.total_steps", case="both", word="expected 10")
def drops_the_last_batch_and_the_rest_of_the_window(samples, batch_size, epochs, accumulate=1, drop_last=False):
    if drop_last:
        return epochs * (samples // batch_size // accumulate)
    return epochs * math.ceil(math.ceil(samples / batch_size) / accumulate)


@wrong("schedules.total_steps", case="accumulation", word="expected 2")
def forgets_accumulation(samples, batch_size, epochs, accumulate=1, drop_last=False):
    return epochs * (samples // batch_size if drop_last else math.ceil(samples / batch_size))


@wrong("schedules.total_steps", case="the last batch left out", word="expected 44")
def forgets_drop_last(samples, batch_size, epochs, accumulate=1, drop_last=False):
    return epochs * math.ceil(math.ceil(samples / batch_size) / accumulate)


@wrong("schedules.decay_rate", case="two periods", word="expected 0.5")
def upside_down(fraction, total_steps, decay_steps):
    return fraction ** (total_steps / decay_steps)


@wrong("schedules.decay_rate", case="two periods", word="expected 0.5")
def divides_instead_of_taking_a_root(fraction, total_steps, decay_steps):
    return fraction * decay_steps / total_steps


@wrong("schedules.decay_rate", case="a long run", word="expected 0.994")
def counts_steps_not_periods(fraction, total_steps, decay_steps):
    return fraction ** (1 / total_steps)


@wrong("schedules.decay_rate", case="half a period", word="expected 0.25")
def counts_whole_periods(fraction, total_steps, decay_steps):
    return fraction ** (1 / max(total_steps // decay_steps, 1))


@wrong("schedules.with_warmup", case="after the warmup", word="expected 0.7")
def does_not_shift_the_schedule(schedule, warmup_steps, start):
    return lambda step: start + (schedule(0) - start) * step / warmup_steps if step < warmup_steps else schedule(step)


@wrong("schedules.with_warmup", case="half way up", word="expected 0.6")
def climbs_to_the_wrong_peak(schedule, warmup_steps, start):
    return lambda step: (start + (schedule(warmup_steps) - start) * step / warmup_steps if step < warmup_steps
                         else schedule(step - warmup_steps))


@wrong("schedules.with_warmup", case="the first step", word="expected 0.2")
def begins_at_zero(schedule, warmup_steps, start):
    return lambda step: schedule(0) * step / warmup_steps if step < warmup_steps else schedule(step - warmup_steps)


@wrong("schedules.with_warmup", case="no warmup", word="ZeroDivisionError")
def divides_by_zero_steps(schedule, warmup_steps, start):
    def warmed(step):
        part = min(step / warmup_steps, 1)
        return start + (schedule(0) - start) * part if part < 1 else schedule(step - warmup_steps)
    return warmed


def _warmup_cosine(step, peak, warmup, total, floor, strict=True, late=True, on_top=False, ends=True):
    """A schedule in which one thing can be wrong."""
    if step < warmup or (not strict and step <= warmup):
        return peak * step / warmup
    progress = (step - warmup) / (total - warmup) if late else step / total
    height = peak if on_top else peak - floor
    return floor + height * 0.5 * (1 + math.cos(math.pi * (min(progress, 1) if ends else progress)))


@wrong("schedules.warmup_cosine", case="no warmup", word="ZeroDivisionError")
def divides_by_no_warmup(step, peak, warmup, total, floor=0.0):
    return _warmup_cosine(step, peak, warmup, total, floor, strict=False)


@wrong("schedules.warmup_cosine", case="the first step after the warmup", word="expected 0.1")
def lets_the_cosine_run_during_the_warmup(step, peak, warmup, total, floor=0.0):
    return _warmup_cosine(step, peak, warmup, total, floor, late=False)


@wrong("schedules.warmup_cosine", case="the peak above a floor", word="got 0.12")
def puts_the_floor_on_top(step, peak, warmup, total, floor=0.0):
    return _warmup_cosine(step, peak, warmup, total, floor, on_top=True)


@wrong("schedules.warmup_cosine", case="after the end", word="expected 0.02")
def climbs_again(step, peak, warmup, total, floor=0.0):
    return _warmup_cosine(step, peak, warmup, total, floor, ends=False)


@wrong("schedules.warmup_cosine", case="half way to the floor", word="expected 0.06")
def cuts_off_at_the_floor(step, peak, warmup, total, floor=0.0):
    return max(_warmup_cosine(step, peak, warmup, total, 0.0), floor)


def _cooled(weights, gradient, rates, once=False):
    g = gradient(weights) if once else None
    for rate in rates:
        weights = weights - rate * (g if once else gradient(weights))
    return weights


@wrong("schedules.cooldown", case="two steps", word="got")
def stays_at_the_rate(weights, gradient, rate, steps):
    return _cooled(weights, gradient, [rate] * steps)


@wrong("schedules.cooldown", case="one step", word="got")
def begins_one_step_late(weights, gradient, rate, steps):
    return _cooled(weights, gradient, [rate * (1 - (step + 1) / steps) for step in range(steps)])


@wrong("schedules.cooldown", case="ten steps", word="got")
def asks_for_the_gradient_once(weights, gradient, rate, steps):
    return _cooled(weights, gradient, [rate * (1 - step / steps) for step in range(steps)], once=True)


@wrong("schedules.cooldown", case="the start is left alone", word="got")
def changes_the_start(weights, gradient, rate, steps):
    for step in range(steps):
        weights -= rate * (1 - step / steps) * gradient(weights)
    return weights


@wrong("schedules.cooldown", case="ten steps", word="got")
def halves_in_the_second_half(weights, gradient, rate, steps):
    return _cooled(weights, gradient, [rate if step < steps / 2 else rate / 2 for step in range(steps)])
