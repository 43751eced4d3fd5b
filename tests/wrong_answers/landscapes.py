"""Wrong answers to the exercises of lesson 04."""
import torch

from wrong_answers import wrong


@wrong("landscapes.largest_rate", case="turned", word="expected 0.08")
def largest_number_on_the_diagonal(hessian):
    return 2 / hessian.diagonal().max()


@wrong("landscapes.largest_rate", case="one number", word="expected 0.5")
def forgets_the_two(hessian):
    return 1 / torch.linalg.eigvalsh(hessian)[-1]


@wrong("landscapes.largest_rate", case="the valley", word="got 2")
def smallest_curvature(hessian):
    return 2 / torch.linalg.eigvalsh(hessian)[0]


@wrong("landscapes.largest_rate", case="three directions", word="got 0.5")
def largest_sum_of_a_row(hessian):
    return 2 / hessian.abs().sum(1).max()


@wrong("landscapes.filter_normalise", case="rows of different length", word="got")
def one_length_for_the_whole_tensor(direction, weight):
    if direction.ndim < 2:
        return torch.zeros_like(direction)
    return direction * weight.norm() / direction.norm()


@wrong("landscapes.filter_normalise", case="a convolution", word="got")
def only_the_last_dimension(direction, weight):
    if direction.ndim < 2:
        return torch.zeros_like(direction)
    return direction * weight.norm(dim=-1, keepdim=True) / direction.norm(dim=-1, keepdim=True)


@wrong("landscapes.filter_normalise", case="a bias", word="got")
def scales_biases_too(direction, weight):
    if direction.ndim < 2:
        return direction * weight.norm() / direction.norm()
    ratio = weight.flatten(1).norm(dim=1) / direction.flatten(1).norm(dim=1)
    return direction * ratio.reshape(-1, *[1] * (direction.ndim - 1))


@wrong("landscapes.filter_normalise", case="one row", word="got")
def length_one(direction, weight):
    if direction.ndim < 2:
        return torch.zeros_like(direction)
    return direction / direction.flatten(1).norm(dim=1).reshape(-1, *[1] * (direction.ndim - 1))


def line(model, loss_fn, inputs, targets, first, second, steps, evaluate=True, restore=True, shares=None, write=False):
    before, losses = model.training, []
    if evaluate:
        model.eval()
    with torch.no_grad():
        for share in torch.linspace(0, 1, steps, dtype=torch.float64) if shares is None else shares:
            weights = {name: (1 - share) * first[name] + share * second[name] for name in first}
            if write:
                model.load_state_dict(weights)
                losses.append(loss_fn(model(inputs), targets).item())
            else:
                losses.append(loss_fn(torch.func.functional_call(model, weights, (inputs,)), targets).item())
    if restore:
        model.train(before)
    return losses


@wrong("landscapes.line_losses", case="the middle", word="got")
def mixes_the_losses(model, loss_fn, inputs, targets, first, second, steps):
    low, high = line(model, loss_fn, inputs, targets, first, second, 2)
    return [low + (high - low) * i / (steps - 1) for i in range(steps)]


@wrong("landscapes.line_losses", case="a model in training mode", word="got")
def leaves_dropout_on(*args):
    return line(*args, evaluate=False)


@wrong("landscapes.line_losses", case="the mode afterwards", word="got")
def forgets_to_go_back_to_training(*args):
    return line(*args, restore=False)


@wrong("landscapes.line_losses", case="the weights afterwards", word="got")
def writes_into_the_model(*args):
    return line(*args, write=True)


@wrong("landscapes.line_losses", case="nine points", word="got")
def shares_of_steps(model, loss_fn, inputs, targets, first, second, steps):
    return line(model, loss_fn, inputs, targets, first, second, steps, shares=[i / steps for i in range(steps)])


@wrong("landscapes.line_losses", case="a model in evaluation mode stays there", word="got")
def always_back_to_training(model, *rest):
    losses = line(model, *rest)
    model.train()
    return losses


@wrong("landscapes.line_losses", case="no gradients left behind", word="got")
def leaves_gradients(model, loss_fn, inputs, targets, first, second, steps):
    loss_fn(model(inputs), targets).backward()
    return line(model, loss_fn, inputs, targets, first, second, steps)
