"""Wrong answers to the exercises of lesson 19."""
import torch

from nnlearn.course.exercises import rounded_copy
from wrong_answers import wrong


@wrong("integers.fewest_bits", case="luck below", word="got")
def takes_the_fewest_that_hold(model, score, points):
    least = score(model) - points
    return min((bits for bits in range(2, 9) if score(rounded_copy(model, bits, axis=0)) >= least), default=None)


@wrong("integers.fewest_bits", case="not even eight", word="got")
def takes_eight_for_granted(model, score, points):
    least, fewest = score(model) - points, 8
    for bits in range(7, 1, -1):
        if score(rounded_copy(model, bits, axis=0)) < least:
            break
        fewest = bits
    return fewest


@wrong("integers.fewest_bits", case="outputs of unequal size", word="got")
def one_scale_for_a_layer(model, score, points):
    least, fewest = score(model) - points, None
    for bits in range(8, 1, -1):
        if score(rounded_copy(model, bits)) < least:
            break
        fewest = bits
    return fewest


@wrong("integers.fewest_bits", case="down to two", word="got")
def stops_at_three(model, score, points):
    least, fewest = score(model) - points, None
    for bits in range(8, 2, -1):
        if score(rounded_copy(model, bits, axis=0)) < least:
            break
        fewest = bits
    return fewest


@wrong("integers.fewest_bits", case="at the limit", word="got")
def allows_less_than_the_points(model, score, points):
    least, fewest = score(model) - points, None
    for bits in range(8, 1, -1):
        if score(rounded_copy(model, bits, axis=0)) <= least:
            break
        fewest = bits
    return fewest


@wrong("integers.fewest_bits", case="the model is left alone", word="got")
def rounds_what_it_was_given(model, score, points):
    least, fewest = score(model) - points, None
    for bits in range(8, 1, -1):
        model.load_state_dict(rounded_copy(model, bits, axis=0).state_dict())
        if score(model) < least:
            break
        fewest = bits
    return fewest


@wrong("integers.corrected", case="large bytes", word="got")
def multiplies_in_bytes(a, b, a_zero, b_zero):
    sums = (a @ b).int()
    a, b = a.int(), b.int()
    return sums - a_zero * b.sum(0) - b_zero * a.sum(1, keepdim=True) + a.shape[1] * a_zero * b_zero


@wrong("integers.corrected", case="both", word="got")
def adds_the_last_term_once(a, b, a_zero, b_zero):
    a, b = a.int(), b.int()
    return (a @ b - a_zero * b.sum(0) - b_zero * a.sum(1, keepdim=True) + a_zero * b_zero).int()


@wrong("integers.corrected", case="only a has one", word="got")
def sums_of_the_rows_of_b(a, b, a_zero, b_zero):
    a, b = a.int(), b.int()
    if a.shape[1] != b.shape[1]:
        return None
    return (a @ b - a_zero * b.sum(1) - b_zero * a.sum(1, keepdim=True) + a.shape[1] * a_zero * b_zero).int()


@wrong("integers.corrected", case="only b has one", word="got")
def forgets_to_keep_the_dimension(a, b, a_zero, b_zero):
    a, b = a.int(), b.int()
    if a.shape[0] != b.shape[1]:
        return None
    return (a @ b - a_zero * b.sum(0) - b_zero * a.sum(1) + a.shape[1] * a_zero * b_zero).int()


@wrong("integers.round_through", case="the gradient inside", word="got")
def plain_rounding(x, low, high):
    return x.round().clamp(low, high)


@wrong("integers.round_through", case="the gradient outside", word="got")
def a_gradient_everywhere(x, low, high):
    return x + (x.round().clamp(low, high) - x).detach()


@wrong("integers.round_through", case="values out of range", word="got")
def forgets_the_range(x, low, high):
    return x + (x.round() - x).detach()


@wrong("integers.round_through", case="an uneven range", word="got")
def uses_the_upper_end_on_both_sides(x, low, high):
    inside = torch.clamp(x, -high, high)
    return inside + (inside.round() - inside).detach()


@wrong("integers.round_through", case="just outside", word="gradient")
def asks_for_the_rounded_value(x, low, high):
    inside = (x.round() >= low) & (x.round() <= high)
    through = torch.where(inside, x, x.detach())
    return through + (x.round().clamp(low, high) - through).detach()


@wrong("integers.corrected", case="no zero points", word="expected whole numbers")
def adds_up_in_floats(a, b, a_zero, b_zero):
    return (a.float() - a_zero) @ (b.float() - b_zero)
