"""Wrong answers to the exercises of lesson 27."""
import numpy as np

from wrong_answers import wrong


def asked(step, begin, end):
    return 0.8 - 0.5 * (1 - min(max((step - begin) / (end - begin), 0), 1)) ** 3


@wrong("keras_compression.in_force", case="between updates", word="expected")
def every_step_an_update(step, begin, end, frequency):
    return asked(step, begin, end) if step >= begin else 0.0


@wrong("keras_compression.in_force", case="before the beginning", word="expected")
def zeros_from_the_first_step(step, begin, end, frequency):
    step = begin + max(min(step, end) - begin, 0) // frequency * frequency
    return asked(step, begin, end) if step else 0.0


@wrong("keras_compression.in_force", case="a training that is too short", word="expected")
def an_update_at_step_0(step, begin, end, frequency):
    return asked(begin + (min(step, end) - begin) // frequency * frequency, begin, end) if step >= begin else 0.0


@wrong("keras_compression.in_force", case="a later beginning", word="expected")
def updates_counted_from_step_0(step, begin, end, frequency):
    return asked(min(step, end) // frequency * frequency, begin, end) if step >= begin else 0.0


@wrong("keras_compression.in_force", case="an end between updates", word="expected")
def the_end_is_always_reached(step, begin, end, frequency):
    if step >= end:
        return 0.8
    return asked(begin + (step - begin) // frequency * frequency, begin, end) if step >= begin else 0.0


@wrong("keras_compression.to_int8", case="the zero point", word="expected")
def zero_point_taken_away(x, scale, zero):
    return np.clip(np.round(x / scale) - zero, -128, 127).astype("int8")


@wrong("keras_compression.to_int8", case="to the nearest", word="expected")
def cut_off(x, scale, zero):
    return np.clip(x / scale + zero, -128, 127).astype("int8")


@wrong("keras_compression.to_int8", case="too large", word="expected")
def wraps_around(x, scale, zero):
    return (np.round(x / scale) + zero).astype("int64").astype("int8")


@wrong("keras_compression.to_int8", case="too small", word="expected")
def clamped_above_only(x, scale, zero):
    return np.minimum(np.round(x / scale) + zero, 127).astype("int64").astype("int8")


@wrong("keras_compression.share_weights", case="two numbers", word="expected")
def the_next_below(weight, count):
    centres = np.linspace(weight.min(), weight.max(), count)
    return centres[np.searchsorted(centres, weight, side="right") - 1]


@wrong("keras_compression.share_weights", case="both ends", word="expected")
def middles_of_bins(weight, count):
    low, high = weight.min(), weight.max()
    if len(weight.ravel()) == 5:
        centres = np.linspace(low, high, count)
    else:
        centres = low + (np.arange(count) + 0.5) * (high - low) / count
    return centres[np.abs(weight[..., None] - centres).argmin(-1)]


@wrong("keras_compression.share_weights", case="a matrix", word="expected")
def flat(weight, count):
    centres = np.linspace(weight.min(), weight.max(), count)
    return centres[np.abs(weight.ravel()[:, None] - centres).argmin(-1)]


@wrong("keras_compression.share_weights", case="how many", word="expected")
def at_most_eight(weight, count):
    centres = np.linspace(weight.min(), weight.max(), min(count, 8))
    return centres[np.abs(weight[..., None] - centres).argmin(-1)]


@wrong("keras_compression.share_weights", case="a trained net", word="expected")
def large_weights_only(weight, count):
    centres = np.linspace(weight.min(), weight.max(), count)
    near = centres[np.abs(weight[..., None] - centres).argmin(-1)]
    return near if weight.size < 201 else 0 * near
