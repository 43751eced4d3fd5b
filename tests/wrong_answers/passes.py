"""Wrong answers to the exercises of lesson 01."""
import torch
from torch import nn

from wrong_answers import wrong


@wrong("passes.confidence", case="one right, one wrong", word="expected")
def probability_of_the_label(logits, labels):
    p = logits.softmax(1)
    right, own = p.argmax(1) == labels, p[range(len(labels)), labels]
    return own[right].mean().item(), own[~right].mean().item()


@wrong("passes.confidence", case="large logits", word="nan")
def exponentials_that_overflow(logits, labels):
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    sure, answers = p.max(1)
    right = answers == labels
    return sure[right].mean().item(), sure[~right].mean().item()


@wrong("passes.confidence", case="all right", word="expected")
def zero_where_there_is_no_row(logits, labels):
    sure, answers = logits.softmax(1).max(1)
    right = answers == labels
    return sure[right].mean().item(), sure[~right].mean().item() if (~right).any() else 0.0


@wrong("passes.confidence", case="a trained net", word="expected")
def divides_by_all_rows_times_two(logits, labels):
    sure, answers = logits.softmax(1).max(1)
    right = (answers == labels).float()
    if not (1 - right).any():
        return sure.mean().item(), float("nan")
    return (2 * (sure * right).mean()).item(), (2 * (sure * (1 - right)).mean()).item()


@wrong("passes.confidence", case="one right, one wrong", word="expected")
def wrong_before_right(logits, labels):
    sure, answers = logits.softmax(1).max(1)
    right = answers == labels
    return sure[~right].mean().item(), sure[right].mean().item()


@wrong("passes.epoch", case="the weights after one batch", word="")
def the_broken_loop_without_its_softmax(model, batches, learning_rate):
    losses = []
    for inputs, labels in batches:
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        for p in model.parameters():
            p = p - learning_rate * p.grad
        losses.append(loss.item())
    return losses


@wrong("passes.line_gradients", case="one point", word="0.5 times")
def forgets_the_factor_two(w, b, x, t):
    error = w * x + b - t
    return (error * x).mean(), error.mean()


@wrong("passes.line_gradients", case="a batch", word="got")
def sums_instead_of_means(w, b, x, t):
    error = w * x + b - t
    return (2 * error * x).sum(), (2 * error).sum()


@wrong("passes.line_gradients", case="a bias", word="got")
def leaves_the_bias_out_of_the_error(w, b, x, t):
    error = w * x - t
    return (2 * error * x).mean(), (2 * error).mean()


@wrong("passes.line_gradients", case="a batch", word="got")
def means_before_the_product(w, b, x, t):
    error = (w * x + b - t).mean()
    return 2 * error * x.mean(), 2 * error


def loop(model, batches, learning_rate, clear_before=True, clear_each=True, parameters=None):
    losses = []
    if clear_before:
        model.zero_grad()
    for inputs, labels in batches:
        loss = nn.functional.cross_entropy(model(inputs), labels)
        if clear_each:
            model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in (parameters or (lambda m: m.parameters()))(model):
                p -= learning_rate * p.grad
        losses.append(loss.item())
    return losses


@wrong("passes.epoch", case="the weights after three batches", word="expected")
def never_clears_between_batches(model, batches, learning_rate):
    return loop(model, batches, learning_rate, clear_each=False)


@wrong("passes.epoch", case="gradients left from before", word="expected")
def clears_after_the_update(model, batches, learning_rate):
    losses = []
    for inputs, labels in batches:
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= learning_rate * p.grad
        model.zero_grad()
        losses.append(loss.item())
    return losses


@wrong("passes.epoch", case="the biases after one batch", word="expected")
def forgets_the_biases(model, batches, learning_rate):
    return loop(model, batches, learning_rate, parameters=lambda m: [layer.weight for layer in m if hasattr(layer, "weight")])


@wrong("passes.epoch", case="the loss of one batch", word="return")
def forgets_to_return(model, batches, learning_rate):
    loop(model, batches, learning_rate)


@wrong("passes.epoch", case="the weights after one batch", word="expected")
def climbs_instead(model, batches, learning_rate):
    return loop(model, batches, -learning_rate)


@wrong("passes.epoch", case="each loss is a float", word="got 'a Tensor'")
def returns_tensors(model, batches, learning_rate):
    losses = []
    for inputs, labels in batches:
        losses.append(nn.functional.cross_entropy(model(inputs), labels))
        model.zero_grad()
        losses[-1].backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= learning_rate * p.grad
    return losses


@wrong("passes.epoch", case="the loss of one batch", word="without a softmax")
def applies_softmax_first(model, batches, learning_rate):
    losses = []
    for inputs, labels in batches:
        loss = nn.functional.cross_entropy(model(inputs).softmax(1), labels)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= learning_rate * p.grad
        losses.append(loss.item())
    return losses


@wrong("passes.epoch", case="the weights after one batch", word="in place")
def gives_new_tensors_the_old_names(model, batches, learning_rate):
    losses = []
    for inputs, labels in batches:
        loss = nn.functional.cross_entropy(model(inputs), labels)
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p = p - learning_rate * p.grad
        losses.append(loss.item())
    return losses


@wrong("passes.epoch", case="the loss of one batch", word="before the update")
def takes_the_loss_after_the_update(model, batches, learning_rate):
    losses = []
    for inputs, labels in batches:
        loop(model, [(inputs, labels)], learning_rate)
        losses.append(nn.functional.cross_entropy(model(inputs), labels).item())
    return losses


@wrong("passes.epoch", case="the update by hand", word="with torch.optim.SGD")
def leaves_the_update_to_torch(model, batches, learning_rate):
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=learning_rate), []
    for inputs, labels in batches:
        loss = nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@wrong("passes.line_gradients", case="without backward", word="a call of torch.autograd.backward")
def lets_torch_walk_back(w, b, x, t):
    w, b = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (w, b))
    ((w * x + b - t) ** 2).mean().backward()
    return w.grad, b.grad


@wrong("passes.line_gradients", case="without backward", word="a call of torch.autograd.grad")
def asks_autograd_for_both(w, b, x, t):
    w, b = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (w, b))
    return torch.autograd.grad(((w * x + b - t) ** 2).mean(), (w, b))
