"""Plausible wrong answers to the exercises of lesson 07."""
import torch
from torch import nn

from nnlearn.training import Callback
from wrong_answers import wrong


def _epoch(model, optimizer, train, val, clear=True, training=True, by_rows=(True, True), graph=False, kind=float):
    """One epoch in which one thing can be wrong."""
    if training:
        model.train()
    sums = []
    for batches, learns in ((train, True), (val, False)):
        total = rows = 0.0
        if not learns:
            model.eval()
        for inputs, targets in batches:
            with torch.set_grad_enabled(learns or graph):
                loss = nn.functional.cross_entropy(model(inputs), targets)
            if learns:
                if clear:
                    optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            size = len(targets) if by_rows[0 if learns else 1] else 1
            total, rows = total + loss.detach() * size, rows + size
        sums.append(kind(total / rows))
    return tuple(sums)


@wrong("training.one_epoch", case="the weights after two steps", word="expected")
def never_clears_the_gradients(*given):
    return _epoch(*given, clear=False)


@wrong("training.one_epoch", case="a small last batch", word="expected")
def takes_the_mean_of_the_batches(*given):
    return _epoch(*given, by_rows=(False, True))


@wrong("training.one_epoch", case="a small last batch in validation", word="expected")
def takes_the_mean_of_the_batches_in_validation(*given):
    return _epoch(*given, by_rows=(True, False))


@wrong("training.one_epoch", case="the mode in the second epoch", word="expected")
def stays_in_evaluation_mode(*given):
    return _epoch(*given, training=False)


@wrong("training.one_epoch", case="no graph in validation", word="expected")
def validates_with_a_graph(*given):
    return _epoch(*given, graph=True)


@wrong("training.one_epoch", case="floats", word="expected")
def returns_tensors(*given):
    return _epoch(*given, kind=torch.as_tensor)


def _shares(model, batches, weight, share, clear=True):
    if clear:
        model.zero_grad()
    for inputs, targets in batches:
        (nn.functional.cross_entropy(model(inputs), targets, weight=weight) * share(targets)).backward()


@wrong("training.accumulate", case="unequal batches", word="expected")
def divides_by_k(model, batches, weight):
    _shares(model, batches, weight, lambda targets: 1 / len(batches))


@wrong("training.accumulate", case="class weights", word="expected")
def counts_rows(model, batches, weight):
    rows = sum(len(targets) for _, targets in batches)
    _shares(model, batches, weight, lambda targets: len(targets) / rows)


@wrong("training.accumulate", case="old gradients", word="expected")
def does_not_clear(model, batches, weight):
    total = sum(weight[targets].sum() for _, targets in batches)
    _shares(model, batches, weight, lambda targets: weight[targets].sum() / total, clear=False)


@wrong("training.accumulate", case="equal batches", word="3 times the right one")
def only_adds(model, batches, weight):
    _shares(model, batches, weight, lambda targets: 1.0)


@wrong("training.accumulate", case="never joined", word="expected 4")
def joins_the_batches(model, batches, weight):
    model.zero_grad()
    inputs, targets = (torch.cat(parts) for parts in zip(*batches))
    nn.functional.cross_entropy(model(inputs), targets, weight=weight).backward()


def _callback(event, norm_of, anew=True):
    class Largest(Callback):
        def __init__(self):
            self.largest = []

        def epoch_start(self, trainer):
            if anew or not self.largest:
                self.largest.append(0.0)
            else:
                self.largest.append(self.largest[-1])

    def look(self, trainer):
        self.largest[-1] = max(self.largest[-1], float(norm_of([p.grad for p in trainer.model.parameters()])))

    setattr(Largest, event, look)
    return Largest()


def _norm(grads):
    return torch.sqrt(sum(g.square().sum() for g in grads))


@wrong("training.largest_norm", case="with clipping", word="expected")
def after_clipping():
    return _callback("step_end", _norm)


@wrong("training.largest_norm", case="one epoch", word="expected")
def sum_of_norms():
    return _callback("grads_ready", lambda grads: sum(g.norm() for g in grads))


@wrong("training.largest_norm", case="two epochs", word="expected")
def never_begins_anew():
    class Largest(Callback):
        def __init__(self):
            self.largest = []

        def epoch_start(self, trainer):
            self.largest.append(max(self.largest, default=0.0))

        def grads_ready(self, trainer):
            self.largest[-1] = max(self.largest[-1], float(_norm([p.grad for p in trainer.model.parameters()])))

    return Largest()


def _average(start, copies=True, beyond=True, mean=True):
    """A callback of averages in which one thing can be wrong."""
    class Average(Callback):
        def __init__(self):
            self.taken = []

        def step_end(self, trainer):
            if trainer.step > start or not beyond:
                self.taken.append([p.detach().clone() if copies else p.detach() for p in trainer.model.parameters()])

        def fit_end(self, trainer):
            with torch.no_grad():
                for p, *values in zip(trainer.model.parameters(), *self.taken):
                    p.copy_(sum(values) / (len(values) if mean else 1))

    return Average()


@wrong("training.averaged", case="every step", word="expected")
def keeps_what_goes_on_changing(start):
    return _average(start, copies=False)


@wrong("training.averaged", case="the second half", word="expected")
def averages_from_the_beginning(start):
    return _average(start, beyond=False)


@wrong("training.averaged", case="every step", word="expected")
def adds_and_never_divides(start):
    return _average(start, mean=False)


@wrong("training.averaged", case="over epochs", word="expected")
def begins_anew_in_each_epoch(start):
    average = _average(start)
    type(average).epoch_start = lambda self, trainer: self.taken.clear()
    return average


@wrong("training.averaged", case="the second half", word="expected")
def counts_the_step_before(start):
    return _average(start - 1)
