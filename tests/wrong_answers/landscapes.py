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


def one_fault(number):
    """A slice that is right but for one fault of the exercise."""
    def answer(model, loss_fn, inputs, targets, direction, alphas):
        before, losses = model.training, []
        own = {name: p.detach().clone() for name, p in model.named_parameters()}
        if number != 1:
            model.eval()
        with torch.set_grad_enabled(number == 5):
            for alpha in alphas:
                weights = {name: p + alpha * direction[name] for name, p in own.items()}
                if number == 2:
                    own = weights
                if number == 5:
                    weights = {name: w.requires_grad_() for name, w in weights.items()}
                losses.append(loss_fn(torch.func.functional_call(model, weights, (inputs,)), targets))
        if number == 3:
            for name, p in model.named_parameters():
                p.data += 0.1 * direction[name]
                p.data -= 0.1 * direction[name]
        model.train(True if number == 4 else before)
        return losses
    return answer


wrong("landscapes.repair_slice", case="in training mode", word="expected")(one_fault(1))
wrong("landscapes.repair_slice", case="several points", word="expected")(one_fault(2))
wrong("landscapes.repair_slice", case="the weights afterwards", word="expected")(one_fault(3))
wrong("landscapes.repair_slice", case="the mode afterwards", word="expected")(one_fault(4))
wrong("landscapes.repair_slice", case="no graphs kept", word="expected")(one_fault(5))
