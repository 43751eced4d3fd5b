"""Wrong answers to the exercises of lesson 05."""
import torch

from wrong_answers import wrong


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


def one_fault(number):
    """AdamW with one of the faults of the exercise left in it."""
    def answer(w, g, state, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        t = state["t"] = 1 if number == 2 else state.get("t", 0) + 1
        if number == 1:
            g = g + weight_decay * w
        state["m"] = betas[0] * state.get("m", 0.0) + (1 - betas[0]) * g
        state["v"] = betas[1] * state.get("v", 0.0) + (1 - betas[1]) * g**2
        m, v = state["m"] / (1 - betas[0] ** t), state["v"] / (1 - betas[0 if number == 3 else 1] ** t)
        root = (v + eps).sqrt() if number == 4 else v.sqrt() + eps
        return (w if number == 1 else (1 - lr * weight_decay) * w) - lr * m / root
    return answer


wrong("optimizers.repair_adamw", case="decay", word="expected")(one_fault(1))
wrong("optimizers.repair_adamw", case="five steps", word="expected")(one_fault(2))
wrong("optimizers.repair_adamw", case="the first step", word="expected")(one_fault(3))
wrong("optimizers.repair_adamw", case="tiny gradients", word="expected")(one_fault(4))


@wrong("optimizers.repair_adamw", case="arguments left alone", word="expected")
def decays_in_place(w, g, state, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    w *= 1 - lr * weight_decay
    return one_fault(0)(w, g, state, lr, betas, eps)


def trained(model, optimizer, inputs, labels):
    torch.nn.functional.cross_entropy(model(inputs), labels).backward()
    optimizer.step()


@wrong("optimizers.step_lengths", case="one step of SGD", word="expected")
def averages_over_tensors(model, optimizer, batches):
    lengths = []
    for batch in batches:
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.zero_grad()
        trained(model, optimizer, *batch)
        changes = [(p - b).square().mean().sqrt().item() for p, b in zip(model.parameters(), before, strict=True)]
        lengths.append(sum(changes) / len(changes))
    return lengths


@wrong("optimizers.step_lengths", case="four steps", word="expected")
def never_clears_the_gradients(model, optimizer, batches):
    lengths = []
    for batch in batches:
        before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        trained(model, optimizer, *batch)
        after = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        lengths.append((after - before).square().mean().sqrt().item())
    return lengths


@wrong("optimizers.step_lengths", case="four steps", word="expected")
def measures_from_the_start(model, optimizer, batches):
    first = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    lengths = []
    for batch in batches:
        optimizer.zero_grad()
        trained(model, optimizer, *batch)
        after = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        lengths.append((after - first).square().mean().sqrt().item())
    return lengths


@wrong("optimizers.step_lengths", case="the model has learned", word="expected")
def puts_the_weights_back(model, optimizer, batches):
    lengths, first = [], [p.detach().clone() for p in model.parameters()]
    for batch in batches:
        before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        optimizer.zero_grad()
        trained(model, optimizer, *batch)
        after = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        lengths.append((after - before).square().mean().sqrt().item())
    for p, start in zip(model.parameters(), first, strict=True):
        p.data.copy_(start)
    return lengths


@wrong("optimizers.step_lengths", case="one step of Adam", word="expected")
def measures_the_gradient(model, optimizer, batches):
    lengths = []
    for batch in batches:
        optimizer.zero_grad()
        trained(model, optimizer, *batch)
        grads = torch.cat([p.grad.flatten() for p in model.parameters()])
        lengths.append(0.1 * grads.square().mean().sqrt().item())
    return lengths
