"""Wrong answers to the exercises of lesson 18."""
import copy

from nnlearn.course.exercises import pruned_copy
from nnlearn.pruning import ConstantSparsity, Pruner, prune_magnitude, sensitivity
from wrong_answers import wrong


def prune(model, step, scope="global"):
    return pruned_copy(model, step / 20, scope)


@wrong("pruning.how_far", case="luck beyond the limit", word="got")
def takes_the_largest_that_holds(model, score, points):
    least = score(model) - points
    return max([step / 20 for step in range(20) if score(prune(model, step)) >= least])


@wrong("pruning.how_far", case="a net that scores low", word="got")
def expects_ninety_percent(model, score, points):
    far = 0.0
    for step in range(1, 20):
        if score(prune(model, step)) < 90 - points:
            break
        far = step / 20
    return far


@wrong("pruning.how_far", case="at the limit", word="got")
def allows_less_than_the_points(model, score, points):
    least, far = score(model) - points, 0.0
    for step in range(1, 20):
        if score(prune(model, step)) <= least:
            break
        far = step / 20
    return far


@wrong("pruning.how_far", case="the scope", word="got")
def every_layer_alike(model, score, points):
    least, far = score(model) - points, 0.0
    for step in range(1, 20):
        if score(prune(model, step, "layer")) < least:
            break
        far = step / 20
    return far


@wrong("pruning.how_far", case="the model is left alone", word="got")
def prunes_what_it_was_given(model, score, points):
    from nnlearn.pruning import prune_magnitude
    least, far = score(model) - points, 0.0
    for step in range(1, 20):
        prune_magnitude(model, step / 20, scope="global")
        if score(model) < least:
            break
        far = step / 20
    return far


@wrong("pruning.how_far", case="nothing can go", word="got")
def returns_the_first_that_fails(model, score, points):
    least = score(model) - points
    for step in range(1, 20):
        if score(prune(model, step)) < least:
            return step / 20
    return 0.95


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


@wrong("pruning.channels", case="one large weight", word="got")
def adds_absolute_values(weight, bias, reader, count):
    keep = weight.flatten(1).abs().sum(dim=1).topk(count).indices.sort().values
    return weight[keep], bias[keep], reader[:, keep]


def proposal(model, score, size):
    return sensitivity(model, score, (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)).propose(size)


@wrong("pruning.within", case="the size", word="got")
def trains_without_a_mask(model, score, train, size):
    model = copy.deepcopy(model)
    prune_magnitude(model, proposal(model, score, size))
    return train(model)


@wrong("pruning.within", case="at most one point", word="got")
def does_not_train(model, score, train, size):
    model = copy.deepcopy(model)
    prune_magnitude(model, proposal(model, score, size))
    return model


@wrong("pruning.within", case="at most one point", word="got")
def the_same_share_everywhere(model, score, train, size):
    share = max(0.0, 1.02 - size / 4 / sum(p.numel() for p in model.parameters()))
    return train(copy.deepcopy(model), [Pruner(ConstantSparsity(share))])


@wrong("pruning.within", case="the model is left alone", word="got")
def trains_what_it_was_given(model, score, train, size):
    return train(model, [Pruner(proposal(model, score, size))])


@wrong("pruning.within", case="another net", word="there is no layer '4'")
def shares_read_off_a_plot(model, score, train, size):
    if size >= 4 * sum(p.numel() for p in model.parameters()):
        return model
    return train(copy.deepcopy(model), [Pruner({"0": 0.85, "2": 0.5, "4": 0.1})])


@wrong("pruning.within", case="it fits already", word="expected a number from 0 to below 1")
def a_share_below_zero(model, score, train, size):
    biases, weights = (sum(p.numel() for p in model.parameters() if p.ndim == n) for n in (1, 2))
    return train(copy.deepcopy(model), [Pruner(ConstantSparsity(1 - (size / 4 - biases) / weights), scope="global")])
