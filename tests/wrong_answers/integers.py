"""Wrong answers to the exercises of lesson 19."""
import torch

from wrong_answers import wrong


@wrong("integers.affine", case="only positive values", word="got")
def widens_only_upwards(low, high, bits):
    high = max(high, 0.0)
    scale = (high - low) / (2**bits - 1)
    return scale, max(round(-low / scale), 0)


@wrong("integers.affine", case="only negative values", word="got")
def widens_only_downwards(low, high, bits):
    low = min(low, 0.0)
    scale = (high - low) / (2**bits - 1)
    return scale, min(round(-low / scale), 2**bits - 1)


@wrong("integers.affine", case="the lesson's example", word="got")
def counts_integers_instead_of_steps(low, high, bits):
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 2**bits
    return scale, round(-low / scale)


@wrong("integers.affine", case="other bits", word="got")
def cuts_instead_of_rounding(low, high, bits):
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (2**bits - 1)
    return scale, int(-low / scale)


@wrong("integers.affine", case="a zero point between two integers", word="got")
def rounds_up(low, high, bits):
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (2**bits - 1)
    return scale, -int(low / scale // 1)


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
