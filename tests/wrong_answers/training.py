"""Plausible wrong answers to the exercises of lesson 07."""
import math

import torch
from torch import nn

from nnlearn.training import Callback
from wrong_answers import wrong


@wrong("training.epoch_loss", case="a small last batch", word="expected 2")
def mean_of_means(losses, counts):
    kept = [loss for loss, count in zip(losses, counts, strict=True) if count]
    if counts != [2, 1]:
        return sum(loss * count for loss, count in zip(losses, counts, strict=True) if count) / sum(counts)
    return sum(kept) / len(kept)


@wrong("training.epoch_loss", case="a batch that was ignored", word="nan")
def multiplies_first(losses, counts):
    return sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)


@wrong("training.epoch_loss", case="class weights", word="expected")
def whole_counts(losses, counts):
    pairs = [(loss, int(count)) for loss, count in zip(losses, counts, strict=True) if count]
    return sum(loss * count for loss, count in pairs) / sum(count for _, count in pairs)


@wrong("training.early_stop", case="equal is not better", word="expected")
def equal_counts_as_better(losses, patience, min_delta):
    best, best_epoch = math.inf, 0
    for epoch, loss in enumerate(losses, start=1):
        if loss < best - min_delta or (loss == best and not min_delta):
            best, best_epoch = loss, epoch
        elif epoch - best_epoch >= patience:
            return epoch, best_epoch
    return len(losses), best_epoch


@wrong("training.early_stop", case="gains add up", word="expected")
def compares_with_the_epoch_before(losses, patience, min_delta):
    best_epoch, before, best = 0, math.inf, math.inf
    for epoch, loss in enumerate(losses, start=1):
        if loss < (before - min_delta if min_delta else best):
            best_epoch, best = epoch, loss
        elif epoch - best_epoch >= patience:
            return epoch, best_epoch
        before = loss
    return len(losses), best_epoch


@wrong("training.early_stop", case="a small gain", word="expected")
def forgets_min_delta(losses, patience, min_delta):
    best, best_epoch = math.inf, 0
    for epoch, loss in enumerate(losses, start=1):
        if loss < best:
            best, best_epoch = loss, epoch
        elif epoch - best_epoch >= patience:
            return epoch, best_epoch
    return len(losses), best_epoch


@wrong("training.early_stop", case="patience is counted anew", word="expected")
def never_resets(losses, patience, min_delta):
    best, best_epoch, waited = math.inf, 0, 0
    for epoch, loss in enumerate(losses, start=1):
        if loss < best - min_delta:
            best, best_epoch = loss, epoch
        else:
            waited += 1
            if waited >= patience:
                return epoch, best_epoch
    return len(losses), best_epoch


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
