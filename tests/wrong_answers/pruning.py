"""Wrong answers to the exercises of lesson 18."""
from wrong_answers import wrong


@wrong("pruning.cubic", case="between two updates", word="got")
def changes_at_every_step(step, initial, final, begin, end, frequency):
    if step < begin:
        return 0.0
    t = min((step - begin) / (end - begin), 1)
    return final - (final - initial) * (1 - t) ** 3


@wrong("pruning.cubic", case="an end off the beat", word="expected 0.8")
def never_gets_to_the_end(step, initial, final, begin, end, frequency):
    if step < begin:
        return 0.0
    last = min((step - begin) // frequency * frequency, (end - begin) // frequency * frequency)
    if step > end:
        return final
    return final - (final - initial) * (1 - last / (end - begin)) ** 3


@wrong("pruning.cubic", case="before the beginning", word="expected 0")
def starts_with_the_initial_sparsity(step, initial, final, begin, end, frequency):
    if step >= end:
        return final
    t = max(step - begin, 0) // frequency * frequency / (end - begin)
    return final - (final - initial) * (1 - t) ** 3


@wrong("pruning.cubic", case="between two updates", word="got")
def counts_updates_from_step_zero(step, initial, final, begin, end, frequency):
    if step < begin:
        return 0.0
    if step >= end:
        return final
    t = max(step // frequency * frequency - begin, 0) / (end - begin)
    return final - (final - initial) * (1 - t) ** 3


@wrong("pruning.masked_step", case="a gradient on a pruned weight", word="got")
def masks_before_the_step(weight, gradient, velocity, mask, learning_rate, momentum):
    velocity = momentum * velocity + gradient
    return weight * mask - learning_rate * velocity, velocity


@wrong("pruning.masked_step", case="an old velocity", word="got")
def hides_the_gradient_only(weight, gradient, velocity, mask, learning_rate, momentum):
    velocity = momentum * velocity + gradient * mask
    return weight * mask - learning_rate * velocity, velocity


@wrong("pruning.masked_step", case="a mask that is new", word="got")
def masks_the_velocity_only(weight, gradient, velocity, mask, learning_rate, momentum):
    velocity = (momentum * velocity + gradient) * mask
    return weight - learning_rate * velocity, velocity


@wrong("pruning.masked_step", case="nothing is pruned", word="in place")
def works_in_place(weight, gradient, velocity, mask, learning_rate, momentum):
    velocity.mul_(momentum).add_(gradient).mul_(mask)
    weight.sub_(learning_rate * velocity).mul_(mask)
    return weight.clone(), velocity.clone()


@wrong("pruning.channels", case="the old order", word="got")
def in_the_order_of_size(weight, bias, reader, count):
    keep = weight.flatten(1).norm(dim=1).topk(count).indices
    return weight[keep], bias[keep], reader[:, keep]


@wrong("pruning.channels", case="negative and positive weights", word="got")
def sums_instead_of_norms(weight, bias, reader, count):
    keep = weight.flatten(1).sum(dim=1).abs().topk(count).indices.sort().values
    return weight[keep], bias[keep], reader[:, keep]


@wrong("pruning.channels", case="as many readers as channels", word="got")
def cuts_the_readers_outputs(weight, bias, reader, count):
    keep = weight.flatten(1).norm(dim=1).topk(count).indices.sort().values
    return weight[keep], bias[keep], reader[[k for k in keep.tolist() if k < len(reader)]]


@wrong("pruning.cubic", case="at the beginning", word="got")
def begins_a_step_late(step, initial, final, begin, end, frequency):
    if step <= begin:
        return 0.0
    if step >= end:
        return final
    t = (step - begin) // frequency * frequency / (end - begin)
    return final - (final - initial) * (1 - t) ** 3


@wrong("pruning.channels", case="one large weight", word="got")
def adds_absolute_values(weight, bias, reader, count):
    keep = weight.flatten(1).abs().sum(dim=1).topk(count).indices.sort().values
    return weight[keep], bias[keep], reader[:, keep]
