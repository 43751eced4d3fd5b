"""Wrong answers to the exercises of lesson 23."""
import math

import numpy as np

from wrong_answers import wrong


@wrong("tuning.momentum_at", case="the middle", word="expected")
def uniform(u, low, high):
    return low + u * (high - low)


@wrong("tuning.momentum_at", case="the middle", word="expected")
def log_of_momentum(u, low, high):
    return low * (high / low) ** u if low else u * high


@wrong("tuning.momentum_at", case="the low end", word="expected")
def upside_down(u, low, high):
    return 1 - (1 - high) * ((1 - low) / (1 - high)) ** u


@wrong("tuning.momentum_at", case="an array", word="ValueError")
def one_number_only(u, low, high):
    return low if u == 0 else 1 - (1 - low) * ((1 - high) / (1 - low)) ** u


def search_with(fault):
    caught = {"no error": KeyError, "every error": Exception}.get(fault, ArithmeticError)

    def answer(make, train, settings):
        model, scores = make() if fault == "one model" else None, []
        for setting in settings:
            try:
                score = train(model if fault == "one model" else make(), setting)
            except caught:
                score = math.inf
            keep = math.isfinite(score) or fault == "NaN" or (fault == "minus infinity" and not math.isnan(score))
            scores.append(score if keep else math.inf)
        best = min(scores)
        if fault == "always a best":
            return scores.index(best), scores
        return (scores.index(best) if best < math.inf else None), scores
    answer.__name__ = fault.replace(" ", "_")
    return answer


wrong("tuning.sound_search", case="a new model each", word="expected")(search_with("one model"))
wrong("tuning.sound_search", case="one diverges", word="OverflowError")(search_with("no error"))
wrong("tuning.sound_search", case="another error", word="expected")(search_with("every error"))
wrong("tuning.sound_search", case="NaN comes first", word="expected")(search_with("NaN"))
wrong("tuning.sound_search", case="minus infinity", word="expected")(search_with("minus infinity"))
wrong("tuning.sound_search", case="none is finite", word="expected")(search_with("always a best"))


def median_with(fault):
    def answer(curves, warmup):
        used = []
        for curve in curves:
            count = len(curve)
            for epoch in range(warmup + (0 if fault == "a step early" and warmup else 1), len(curve) + 1):
                others = [curves[i][epoch - 1] for i in range(len(used)) if used[i] >= epoch or fault == "everybody"]
                middle = np.mean(others) if fault == "mean" and others else np.median(others) if others else 0
                worse = curve[epoch - 1] >= middle if fault == "equal" else curve[epoch - 1] > middle
                if len(others) >= (1 if fault == "from the second on" else 3) and worse:
                    count = epoch - 1 if fault == "the verdict is not counted" else epoch
                    break
            used.append(count)
        return used
    answer.__name__ = fault.replace(" ", "_")
    return answer


wrong("tuning.epochs_used", case="three are not judged", word="expected")(median_with("from the second on"))
wrong("tuning.epochs_used", case="the first verdict", word="expected")(median_with("the verdict is not counted"))
wrong("tuning.epochs_used", case="equal is not worse", word="expected")(median_with("equal"))
wrong("tuning.epochs_used", case="those that got that far", word="expected")(median_with("everybody"))
wrong("tuning.epochs_used", case="with warmup", word="expected")(median_with("a step early"))
wrong("tuning.epochs_used", case="real nets", word="expected")(median_with("mean"))
