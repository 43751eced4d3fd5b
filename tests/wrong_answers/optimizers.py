"""Wrong answers to the exercises of lesson 05."""
import math

import torch

from wrong_answers import wrong


@wrong("optimizers.running_mean", case="one number", word="expected 5")
def forgets_the_correction(values, beta):
    m = 0.0
    for value in values:
        m = beta * m + (1 - beta) * value
    return m


@wrong("optimizers.running_mean", case="rising numbers", word="expected 3.2")
def takes_the_plain_mean(values, beta):
    return sum(values) / len(values)


@wrong("optimizers.running_mean", case="rising numbers", word="expected 3.2")
def corrects_inside_the_loop(values, beta):
    m = 0.0
    for n, value in enumerate(values, 1):
        m = (beta * m + (1 - beta) * value) / (1 - beta**n)
    return m


@wrong("optimizers.running_mean", case="rising numbers", word="expected 3.2")
def starts_at_the_first_value(values, beta):
    m = values[0]
    for value in values[1:]:
        m = beta * m + (1 - beta) * value
    return m


@wrong("optimizers.running_mean", case="a slow mean", word="expected 1.33")
def swaps_beta_and_its_rest(values, beta):
    m = 0.0
    for value in values:
        m = (1 - beta) * m + beta * value
    return m / (1 - (1 - beta) ** len(values))


@wrong("optimizers.lion", case="another beta_1", word="expected")
def uses_only_the_velocity(w, g, m, lr, betas, weight_decay):
    return w * (1 - lr * weight_decay) - lr * torch.sign(m), betas[1] * m + (1 - betas[1]) * g


@wrong("optimizers.lion", case="the velocity", word="expected")
def updates_with_the_first_beta(w, g, m, lr, betas, weight_decay):
    mix = betas[0] * m + (1 - betas[0]) * g
    return w * (1 - lr * weight_decay) - lr * torch.sign(mix), mix


@wrong("optimizers.lion", case="decay", word="expected")
def adds_decay_to_the_gradient(w, g, m, lr, betas, weight_decay):
    g = g + weight_decay * w
    return w - lr * torch.sign(betas[0] * m + (1 - betas[0]) * g), betas[1] * m + (1 - betas[1]) * g


@wrong("optimizers.lion", case="the direction", word="expected")
def forgets_the_sign(w, g, m, lr, betas, weight_decay):
    return w * (1 - lr * weight_decay) - lr * (betas[0] * m + (1 - betas[0]) * g), betas[1] * m + (1 - betas[1]) * g


@wrong("optimizers.lion", case="decay", word="expected")
def decays_without_the_rate(w, g, m, lr, betas, weight_decay):
    return w * (1 - weight_decay) - lr * torch.sign(betas[0] * m + (1 - betas[0]) * g), betas[1] * m + (1 - betas[1]) * g


@wrong("optimizers.lion", case="arguments left alone", word="expected")
def changes_the_weight_in_place(w, g, m, lr, betas, weight_decay):
    step = torch.sign(betas[0] * m + (1 - betas[0]) * g)
    return w.mul_(1 - lr * weight_decay).sub_(lr * step), betas[1] * m + (1 - betas[1]) * g


@wrong("optimizers.lion", case="the order", word="expected")
def updates_the_velocity_first(w, g, m, lr, betas, weight_decay):
    new_m = betas[1] * m + (1 - betas[1]) * g
    return w * (1 - lr * weight_decay) - lr * torch.sign(betas[0] * new_m + (1 - betas[0]) * g), new_m


@wrong("optimizers.lion", case="decay stays out of the velocity", word="expected")
def remembers_the_decay(w, g, m, lr, betas, weight_decay):
    step = torch.sign(betas[0] * m + (1 - betas[0]) * g)
    return w * (1 - lr * weight_decay) - lr * step, betas[1] * m + (1 - betas[1]) * (g + weight_decay * w)


@wrong("optimizers.clip_together", case="each below the limit", word="expected")
def clips_each_alone(grads, limit):
    return [g * min(1.0, limit / max(g.norm().item(), 1e-12)) for g in grads]


@wrong("optimizers.clip_together", case="small enough", word="expected")
def always_scales(grads, limit):
    norm = sum((g**2).sum() for g in grads).sqrt()
    return [g * limit / norm if norm > 0 else g for g in grads]


@wrong("optimizers.clip_together", case="zeros", word="expected")
def divides_by_zero(grads, limit):
    norm = sum((g**2).sum() for g in grads).sqrt()
    return [g * min(1.0, limit / norm) if norm > 0 else g / norm for g in grads]


@wrong("optimizers.clip_together", case="one large, one small", word="expected")
def clips_the_entries(grads, limit):
    return [g.clamp(-limit, limit) for g in grads]


@wrong("optimizers.clip_together", case="two tensors", word="expected")
def adds_the_norms(grads, limit):
    norm = sum(math.sqrt(float((g**2).sum())) for g in grads)
    return [g * (limit / norm) if norm > limit else g for g in grads]


@wrong("optimizers.clip_together", case="arguments left alone", word="got")
def clips_in_place(grads, limit):
    norm = sum((g**2).sum() for g in grads).sqrt()
    if norm > limit:
        for g in grads:
            g *= limit / norm
    return grads
