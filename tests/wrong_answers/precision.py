"""Wrong answers to the exercises of lesson 14."""
import math

import torch
import torch.nn.functional as F

from wrong_answers import wrong


@wrong("precision.spacing", case="a subnormal number", word="expected")
def no_subnormal_numbers(x, exponent_bits, fraction_bits):
    return 2.0 ** (math.frexp(abs(x))[1] - 1 - fraction_bits) if x else 2.0 ** (2 - 2 ** (exponent_bits - 1) - fraction_bits)


@wrong("precision.spacing", case="zero", word="expected")
def zero_is_between_a_half_and_one(x, exponent_bits, fraction_bits):
    return 2.0 ** (max(math.frexp(abs(x))[1] - 1, 2 - 2 ** (exponent_bits - 1)) - fraction_bits)


@wrong("precision.spacing", case="at 2", word="expected")
def one_power_too_low(x, exponent_bits, fraction_bits):
    lowest = 2 - 2 ** (exponent_bits - 1)
    exponent = math.ceil(math.log2(abs(x))) - 1 if x else lowest
    return 2.0 ** (max(exponent, lowest) - fraction_bits)


@wrong("precision.spacing", case="a negative number", word="expected")
def a_share_of_the_number(x, exponent_bits, fraction_bits):
    return 2.0**-fraction_bits * x if abs(x) not in (0.0,) else 2.0 ** (2 - 2 ** (exponent_bits - 1) - fraction_bits)


def epoch_with(fault):
    def answer(model, optimizer, scaler, batches, c):
        taken = 0
        for inputs, targets in batches:
            if fault != "no zero":
                optimizer.zero_grad()
            scaler.scale(F.mse_loss(model(inputs), targets)).backward()
            if fault != "clips scaled":
                scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), c)
            before = scaler.get_scale()
            if fault == "steps anyway":
                optimizer.step()
            else:
                scaler.step(optimizer)
            scaler.update()
            grew = scaler.get_scale() > before
            taken += {"counts all": True, "counts growth": grew}.get(fault, scaler.get_scale() >= before)
            if fault == "new scale":
                scaler.update(2.0**10)
            if fault == "no zero" and taken == 1:
                optimizer.zero_grad()
        return taken
    answer.__name__ = fault.replace(" ", "_")
    return answer


forgets_to_zero = wrong("precision.scaled_epoch", case="gradients left over", word="expected")(epoch_with("no zero"))
clips_scaled = wrong("precision.scaled_epoch", case="clipped", word="expected")(epoch_with("clips scaled"))
steps_anyway = wrong("precision.scaled_epoch", case="an overflow", word="expected")(epoch_with("steps anyway"))
counts_all = wrong("precision.scaled_epoch", case="steps", word="expected")(epoch_with("counts all"))
counts_growth = wrong("precision.scaled_epoch", case="steps", word="expected")(epoch_with("counts growth"))
always_the_same_scale = wrong("precision.scaled_epoch", case="the scale", word="expected")(epoch_with("new scale"))


@wrong("precision.stochastic_round", case="the mean", word="expected")
def to_the_nearest(x, rng):
    return x.bfloat16()


@wrong("precision.stochastic_round", case="the type", word="expected")
def stays_float32(x, rng):
    noise = torch.randint(0, 2**16, x.shape, generator=rng, dtype=torch.int32)
    return ((x.view(torch.int32) + noise) & ~0xFFFF).view(torch.float32)


@wrong("precision.stochastic_round", case="not all alike", word="expected")
def one_number_for_all(x, rng):
    noise = torch.randint(0, 2**16, (1,), generator=rng, dtype=torch.int32)
    return ((x.view(torch.int32) + noise) & ~0xFFFF).view(torch.float32).bfloat16()


@wrong("precision.stochastic_round", case="the mean", word="expected")
def a_coin_for_up_or_down(x, rng):
    down = (x.view(torch.int32) & ~0xFFFF).view(torch.float32)
    up = ((x.view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32)
    return torch.where(torch.rand(x.shape, generator=rng) < 0.5, up, down).bfloat16()


@wrong("precision.stochastic_round", case="numbers that fit", word="expected")
def noise_that_is_too_large(x, rng):
    noise = torch.randint(0, 2**17, x.shape, generator=rng, dtype=torch.int32)
    return ((x.view(torch.int32) + noise) & ~0xFFFF).view(torch.float32).bfloat16()


@wrong("precision.stochastic_round", case="negative numbers", word="expected")
def rounds_up_in_value(x, rng):
    down = (x.view(torch.int32) & ~0xFFFF).view(torch.float32)
    up = ((x.view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32)
    share = ((x - down) / (up - down)).nan_to_num(0.0)
    share = torch.where(x < 0, 1 - share, share)
    return torch.where(torch.rand(x.shape, generator=rng) < share, up, down).bfloat16()
