"""Wrong answers to the exercises of lesson 11."""
import copy
import itertools

import numpy as np
import torch.nn.functional as F

from wrong_answers import wrong


@wrong("lr_finder.rates", case="by hand", word="expected")
def one_factor_too_few(start, end, n):
    return [start * (end / start) ** (k / n) for k in range(n)]


@wrong("lr_finder.rates", case="by hand", word="expected")
def equal_differences(start, end, n):
    return [start, *(start + (end - start) * k / (n - 1) for k in range(1, n - 1)), end][:n]


@wrong("lr_finder.rates", case="the last is end to the bit", word="expected")
def a_rounding_error_at_the_end(start, end, n):
    return [start * (end / start) ** (k / max(n - 1, 1)) for k in range(n)]


@wrong("lr_finder.rates", case="one rate", word="ZeroDivisionError")
def divides_by_zero(start, end, n):
    rates = [start * (end / start) ** (k / (n - 1)) for k in range(n)]
    rates[-1] = end
    return rates


def test_with(fault):
    def answer(model, optimizer, loader, rates):
        held = model.state_dict(), optimizer.state_dict()
        before = (copy.deepcopy(held[0]), held[1]) if fault == "shared" else copy.deepcopy(held)
        weights = [p.detach().clone() for p in model.parameters()]
        losses = []
        for (x, y), rate in zip(loader if fault == "short" else itertools.cycle(loader), rates):
            for group in optimizer.param_groups[:1 if fault == "first group" else None]:
                group["lr"] = rate if fault != "late" else group["lr"]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            for group in optimizer.param_groups if fault == "late" else ():
                group["lr"] = rate
            losses.append(loss.detach() if fault == "tensors" else loss.item())
        if fault == "weights alone":
            for p, weight in zip(model.parameters(), weights):
                p.data = weight
        else:
            model.load_state_dict(before[0])
        if fault == "rates alone":
            for group, old in zip(optimizer.param_groups, before[1]["param_groups"]):
                group["lr"] = old["lr"]
        else:
            optimizer.load_state_dict(before[1])
        return losses
    answer.__name__ = fault.replace(" ", "_")
    return answer


def kept(case, fault, word="expected"):
    return wrong("lr_finder.repaired_test", case=case, word=word)(test_with(fault))


ends_with_the_loader = kept("a short loader", "short")
sets_the_first_group = kept("every group", "first group")
sets_the_rate_too_late = kept("the losses", "late")
returns_tensors = kept("plain numbers", "tensors")
forgets_the_buffers = kept("weights and buffers", "weights alone")
forgets_the_averages = kept("a fresh optimizer", "rates alone")
copies_too_little = kept("an optimizer that has averages", "shared")


def suggestion_with(fault):
    def answer(lrs, losses):
        losses = np.array(losses)
        smoothed = np.array([losses[max(k - 3, 0):k + 4].mean() for k in range(len(losses))])
        if fault == "raw":
            smoothed = losses
        if fault == "late":
            smoothed = np.array([losses[max(k - 6, 0):k + 1].mean() for k in range(len(losses))])
        first = 0 if fault == "from the start" else 10
        lowest = len(losses) - 1 if fault == "to the end" else first + smoothed[first:].argmin()
        slopes = np.gradient(smoothed, lrs if fault == "per rate" else np.arange(len(lrs)) if fault == "per step" else np.log(lrs))
        if fault == "minimum":
            return float(lrs[lowest])
        at = slopes[first:lowest + 1].argmin()
        return float(lrs[at if fault == "off by ten" else first + at])
    answer.__name__ = fault.replace(" ", "_")
    return answer


def suggested(case, fault):
    return wrong("lr_finder.suggest", case=case, word="expected")(suggestion_with(fault))


does_not_smooth = suggested("a noisy curve", "raw")
looks_backwards = suggested("a clean curve", "late")
looks_at_the_beginning = suggested("a fall at the beginning", "from the start")
looks_behind_the_minimum = suggested("a fall after the explosion", "to the end")
takes_the_slope_per_rate = suggested("a clean curve", "per rate")
takes_the_slope_per_step = suggested("equal differences", "per step")
takes_the_minimum = suggested("a clean curve", "minimum")
counts_from_the_wrong_place = suggested("a clean curve", "off by ten")
