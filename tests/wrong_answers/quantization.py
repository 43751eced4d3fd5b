"""Wrong answers to the exercises of lesson 20."""
import math

import torch

from nnlearn.course.exercises import rounded_copy
from wrong_answers import wrong


def linears(model):
    return [name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)]


@wrong("quantization.culprit", case="the last one", word="got")
def takes_the_first_that_loses(model, score, bits):
    whole = score(model)
    return next((name for name in linears(model) if score(rounded_copy(model, bits, only=name)) < whole), None)


@wrong("quantization.culprit", case="two that cost the same", word="got")
def takes_the_last_of_two(model, score, bits):
    worst, lowest = None, score(model)
    for name in linears(model):
        now = score(rounded_copy(model, bits, only=name))
        if now <= lowest and now < score(model):
            worst, lowest = name, now
    return worst


@wrong("quantization.culprit", case="nothing is lost", word="got")
def always_names_one(model, score, bits):
    return min(linears(model), key=lambda name: score(rounded_copy(model, bits, only=name)))


@wrong("quantization.culprit", case="one at a time", word="got")
def rounds_one_after_the_other(model, score, bits):
    worst, largest, now = None, 0, model
    for name in linears(model):
        following = rounded_copy(now, bits, only=name)
        loss = score(now) - score(following)
        if loss > largest:
            worst, largest = name, loss
        now = following
    return worst


@wrong("quantization.culprit", case="the net is left alone", word="got")
def rounds_what_it_was_given(model, score, bits):
    worst, lowest = None, score(model)
    layers = dict(model.named_modules())
    for name in linears(model):
        kept = layers[name].weight.data
        layers[name].weight.data = layers[name].weight.data.clone()
        small = rounded_copy(model, bits, only=name)
        if score(small) < lowest:
            worst, lowest = name, score(small)
        layers[name].weight.data = kept
    for name in linears(model):
        layers[name].weight.data = dict(rounded_copy(model, bits, only=name).named_modules())[name].weight.data
    return worst


@wrong("quantization.culprit", case="one scale for a layer", word="got")
def gives_each_output_its_own_scale(model, score, bits):
    worst, lowest = None, score(model)
    for name in linears(model):
        now = score(rounded_copy(model, bits, axis=0, only=name))
        if now < lowest:
            worst, lowest = name, now
    return worst


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
