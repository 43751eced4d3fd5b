"""Wrong answers to the exercises of lesson 20."""
import math

import torch

from wrong_answers import wrong


@wrong("quantization.requantize", case="scales that divide", word="got")
def divides_the_wrong_way(sums, in_scale, out_scale, zero_point):
    return (torch.round(sums * (out_scale / in_scale)) + zero_point).clamp(zero_point, 255).to(torch.uint8)


@wrong("quantization.requantize", case="between two integers", word="got")
def cuts_instead_of_rounding(sums, in_scale, out_scale, zero_point):
    return ((sums * (in_scale / out_scale) + 1e-3).floor() + zero_point).clamp(zero_point, 255).to(torch.uint8)


@wrong("quantization.requantize", case="negative sums", word="got")
def takes_the_size_of_negative_sums(sums, in_scale, out_scale, zero_point):
    return (torch.round(sums.abs() * (in_scale / out_scale)) + zero_point).clamp(zero_point, 255).to(torch.uint8)


@wrong("quantization.requantize", case="a zero point", word="got")
def clamps_at_zero(sums, in_scale, out_scale, zero_point):
    return (torch.round(sums * (in_scale / out_scale)) + zero_point).clamp(0, 255).to(torch.uint8)


@wrong("quantization.requantize", case="too large", word="got")
def wraps_around(sums, in_scale, out_scale, zero_point):
    return (torch.round(sums * (in_scale / out_scale)) + zero_point).clamp(min=zero_point).to(torch.int32).to(torch.uint8)


@wrong("quantization.stored", case="eight bits, a scale for each row", word="got")
def one_scale_for_all(outputs, inputs, bits, group):
    groups = 1 if group is None else math.ceil(inputs / group)
    return math.ceil(outputs * inputs * bits / 8) + 2 * (1 if group is None else outputs * groups)


@wrong("quantization.stored", case="four bits", word="got")
def a_byte_for_each_weight(outputs, inputs, bits, group):
    groups = 1 if group is None else math.ceil(inputs / group)
    return outputs * inputs + 2 * outputs * groups


@wrong("quantization.stored", case="groups", word="got")
def forgets_the_groups(outputs, inputs, bits, group):
    return math.ceil(outputs * inputs * bits / 8) + 2 * outputs


@wrong("quantization.stored", case="a group that is not full", word="got")
def drops_the_last_group(outputs, inputs, bits, group):
    groups = 1 if group is None else inputs // group
    return math.ceil(outputs * inputs * bits / 8) + 2 * outputs * groups


@wrong("quantization.stored", case="packed without gaps", word="got")
def rounds_up_each_row(outputs, inputs, bits, group):
    groups = 1 if group is None else math.ceil(inputs / group)
    return outputs * math.ceil(inputs * bits / 8) + 2 * outputs * groups


@wrong("quantization.stored", case="bits that do not fill a byte", word="got")
def rounds_down(outputs, inputs, bits, group):
    groups = 1 if group is None else math.ceil(inputs / group)
    return outputs * inputs * bits // 8 + 2 * outputs * groups


@wrong("quantization.worth", case="each has something", word="got")
def looks_at_bytes_and_time_only(rows):
    def beats(a, b):
        return a[2] <= b[2] and a[3] <= b[3] and (a[2] < b[2] or a[3] < b[3])

    return [row[0] for row in rows if not any(beats(other, row) for other in rows)]


@wrong("quantization.worth", case="twins", word="got")
def as_good_is_enough_to_beat(rows):
    def beats(a, b):
        return a is not b and a[1] >= b[1] and a[2] <= b[2] and a[3] <= b[3]

    return [row[0] for row in rows if not any(beats(other, row) for other in rows)]


@wrong("quantization.worth", case="better in one only", word="got")
def wants_better_in_all(rows):
    def beats(a, b):
        return a[1] >= b[1] and a[2] < b[2] and a[3] < b[3]

    return [row[0] for row in rows if not any(beats(other, row) for other in rows)]


@wrong("quantization.worth", case="small but slow", word="got")
def compares_with_the_first_only(rows):
    def beats(a, b):
        return a[1] >= b[1] and a[2] <= b[2] and a[3] <= b[3] and a[1:] != b[1:]

    kept = [row[0] for row in rows if not beats(rows[0], row)]
    return kept if not any(beats(row, rows[0]) for row in rows) else kept[1:]
