"""Wrong answers to the exercises of lesson 13."""
import math

import torch
import torch.nn.functional as F

from wrong_answers import wrong


@wrong("clipping.clip_all", case="one is short", word="expected")
def each_by_its_own_norm(grads, c):
    return [g * (c / g.norm()).clamp(max=1.0).nan_to_num(1.0) for g in grads]


@wrong("clipping.clip_all", case="short enough", word="expected")
def always_as_long_as_c(grads, c):
    if not grads:
        return []
    total = torch.stack([g.norm() for g in grads]).norm()
    return [torch.where(total > 0, g * c / total, g) for g in grads]


@wrong("clipping.clip_all", case="nothing is fetched from the device", word="meta")
def asks_the_device(grads, c):
    total = math.sqrt(sum(g.square().sum().item() for g in grads))
    return [g * c / total for g in grads] if total > c else grads


@wrong("clipping.clip_all", case="nothing", word="RuntimeError")
def forgets_the_empty_list(grads, c):
    total = torch.stack([g.norm() for g in grads]).norm()
    return [g * (c / total).clamp(max=1.0) for g in grads]


@wrong("clipping.clip_all", case="all zeros", word="expected")
def divides_zero_by_zero(grads, c):
    if not grads:
        return []
    total = torch.stack([g.norm() for g in grads]).norm()
    return [g / total * total.clamp(max=c) for g in grads]


def step_with(fault):
    def answer(model, optimizer, batches, c):
        if fault != "no zero":
            optimizer.zero_grad()
        for x, y in batches:
            loss = F.mse_loss(model(x), y)
            (loss if fault == "sum" else loss / len(batches)).backward()
            if fault == "inside":
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), c)
        if fault == "after":
            optimizer.step()
        if fault != "inside":
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), c)
        if fault != "after":
            optimizer.step()
        if fault == "norm after":
            norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
        return norm
    answer.__name__ = fault.replace(" ", "_")
    return answer


forgets_to_zero = wrong("clipping.accumulated_step", case="gradients left over", word="expected")(step_with("no zero"))
sums_the_batches = wrong("clipping.accumulated_step", case="three batches", word="expected")(step_with("sum"))
clips_inside = wrong("clipping.accumulated_step", case="a long gradient", word="expected")(step_with("inside"))
clips_too_late = wrong("clipping.accumulated_step", case="a long gradient", word="expected")(step_with("after"))
norm_after_clipping = wrong("clipping.accumulated_step", case="the norm", word="expected")(step_with("norm after"))


@wrong("clipping.relative_clip", case="short enough", word="expected")
def always_that_long(weight, grad, share):
    return grad * share * weight.norm().clamp(min=1e-3) / grad.norm().clamp(min=1e-12)


@wrong("clipping.relative_clip", case="a bias of zeros", word="expected")
def lets_biases_through(weight, grad, share):
    return grad if not weight.any() else grad * (share * weight.norm().clamp(min=1e-3) / grad.norm()).clamp(max=1.0)


@wrong("clipping.relative_clip", case="a small weight", word="expected")
def only_zero_counts(weight, grad, share):
    norm = weight.norm() if weight.any() else torch.tensor(1e-3)
    return grad * (share * norm / grad.norm()).clamp(max=1.0)


@wrong("clipping.relative_clip", case="no gradient", word="expected")
def zero_by_zero(weight, grad, share):
    return grad / grad.norm() * grad.norm().clamp(max=share * float(weight.norm().clamp(min=1e-3)))


@wrong("clipping.relative_clip", case="nets learn to add", word="expected")
def nothing_for_long_gradients(weight, grad, share):
    return grad * (share * weight.norm().clamp(min=1e-3) / grad.norm()).clamp(max=1.0) * (grad.norm() < 20)


@wrong("clipping.relative_clip", case="a matrix", word="expected")
def row_by_row(weight, grad, share):
    norms = (weight.norm(dim=-1, keepdim=True), grad.norm(dim=-1, keepdim=True))
    return grad * (share * norms[0].clamp(min=1e-3) / norms[1]).clamp(max=1.0)
