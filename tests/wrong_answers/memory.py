"""Wrong answers to the exercises of lesson 24."""
import torch
import torch.nn.functional as F

from nnlearn.memory import memory_bill
from wrong_answers import wrong

MOMENTS = {"sgd": 0, "momentum": 1, "adam": 2, "amsgrad": 3}


@wrong("memory.bytes_per_parameter", case="sgd", word="expected")
def forgets_the_gradient(optimizer, moments_dtype):
    return 4 + MOMENTS[optimizer] * moments_dtype.itemsize


@wrong("memory.bytes_per_parameter", case="moments in bfloat16", word="expected")
def everything_in_that_type(optimizer, moments_dtype):
    return (2 + MOMENTS[optimizer]) * moments_dtype.itemsize


@wrong("memory.bytes_per_parameter", case="amsgrad", word="expected")
def amsgrad_is_adam(optimizer, moments_dtype):
    return 8 + min(MOMENTS[optimizer], 2) * moments_dtype.itemsize


@wrong("memory.bytes_per_parameter", case="moments in bfloat16", word="expected")
def always_four_bytes(optimizer, moments_dtype):
    return 8 + 4 * MOMENTS[optimizer]


def epoch_with(fault):
    def answer(model, optimizer, train, validation):
        losses, val_losses = [], []
        for inputs, targets in train:
            loss = F.mse_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss if fault == "keeps tensors" else loss.detach() if fault == "detaches" else loss.item())
        with torch.no_grad() if fault != "validates with a graph" else torch.enable_grad():
            for inputs, targets in validation:
                loss = F.mse_loss(model(inputs), targets)
                val_losses.append(loss.item())
        if fault == "the last one":
            return losses[-1], val_losses[-1]
        if fault == "sums":
            return sum(losses), sum(val_losses)
        return sum(losses) / len(losses), sum(val_losses) / len(val_losses)
    answer.__name__ = fault.replace(" ", "_")
    return answer


keeps_tensors = wrong("memory.lean_epoch", case="numbers", word="expected")(epoch_with("keeps tensors"))
tensors_without_a_graph = wrong("memory.lean_epoch", case="numbers", word="expected")(epoch_with("detaches"))
validates_with_a_graph = wrong("memory.lean_epoch", case="validation keeps nothing", word="expected")(epoch_with("validates with a graph"))
the_last_one = wrong("memory.lean_epoch", case="the losses", word="expected")(epoch_with("the last one"))
sums = wrong("memory.lean_epoch", case="the losses", word="expected")(epoch_with("sums"))


def batch_with(fault):
    def answer(model, example, budget):
        def fits(n):
            rows = torch.zeros(n, *example.shape[1:], dtype=torch.float32 if fault == "floats" else example.dtype)
            bill = memory_bill(model, rows, "sgd" if fault == "plain sgd" else "adam")
            return (bill.activations if fault == "activations only" else bill.peak) <= budget
        low = 0
        while fits(2 * low or 1):
            low = 2 * low or 1
        if fault == "powers of two" or not low:
            return low or (1 if fault == "at least one" else 0)
        high = 2 * low
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low
    answer.__name__ = fault.replace(" ", "_")
    return answer


powers_of_two = wrong("memory.largest_batch", case="a small budget", word="expected")(batch_with("powers of two"))
without_the_optimizer = wrong("memory.largest_batch", case="a small budget", word="expected")(batch_with("plain sgd"))
activations_only = wrong("memory.largest_batch", case="not even one", word="expected")(batch_with("activations only"))
always_floats = wrong("memory.largest_batch", case="tokens", word="")(batch_with("floats"))


@wrong("memory.largest_batch", case="not even one", word="expected")
def at_least_one(model, example, budget):
    return max(1, batch_with("none")(model, example, budget))
