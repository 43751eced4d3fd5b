"""Wrong answers to the exercises of lesson 15."""
import numpy as np
import torch.nn.functional as F

from wrong_answers import wrong


@wrong("supervision.window", case="the beginning", word="expected")
def from_the_other_end(p, n):
    weights = np.maximum(1 - np.abs(np.arange(n) - p * (n - 1)), 0)
    return weights / weights.sum()


@wrong("supervision.window", case="the middle of five", word="expected")
def neighbours_too(p, n):
    weights = np.maximum(2 - np.abs(np.arange(n) - (1 - p) * (n - 1)), 0)
    return weights / weights.sum() if p not in (0, 1) else np.eye(n)[0 if p else -1]


@wrong("supervision.window", case="between two outputs", word="expected")
def only_the_nearest(p, n):
    return np.eye(n)[round((1 - p) * (n - 1))]


@wrong("supervision.window", case="one output", word="expected")
def distances_in_shares(p, n):
    places = np.arange(n) / max(n - 1, 1)
    weights = np.maximum(1 - np.abs(places - (1 - p)) * max(n - 1, 1), 0)
    return weights / weights.sum() if n > 1 else weights


@wrong("supervision.weighted_loss", case="class numbers", word="expected")
def means_of_class_numbers(outputs, masks, weights):
    total = 0
    for weight, output in zip(weights, outputs, strict=True):
        small = F.interpolate(masks[:, None].float(), size=output.shape[-2:], mode="bilinear")
        total = total + weight * F.cross_entropy(output, small[:, 0].long())
    return total


@wrong("supervision.weighted_loss", case="the sum", word="expected")
def divided_by_the_number_of_outputs(outputs, masks, weights):
    return weighted(outputs, masks, [weight / len(outputs) for weight in weights])


@wrong("supervision.weighted_loss", case="weights", word="expected")
def weights_left_out(outputs, masks, weights):
    return weighted(outputs, masks, [1.0 if weight else 0.0 for weight in weights])


@wrong("supervision.weighted_loss", case="more outputs than weights", word="ValueError")
def the_shorter_of_two(outputs, masks, weights):
    count = min(len(outputs), len(weights))
    return weighted(outputs[:count], masks, weights[:count])


@wrong("supervision.weighted_loss", case="gradients", word="got None")
def only_output_0_learns(outputs, masks, weights):
    return weighted([outputs[0], *(output.detach() for output in outputs[1:])], masks, weights)


@wrong("supervision.weighted_loss", case="fewer outputs than weights", word="ValueError")
def too_few_are_accepted(outputs, masks, weights):
    if len(outputs) > len(weights):
        raise ValueError("more outputs than weights")
    return weighted(outputs, masks, weights[:len(outputs)])


def weighted(outputs, masks, weights):
    total = 0
    for weight, output in zip(weights, outputs, strict=True):
        small = F.interpolate(masks[:, None].float(), size=output.shape[-2:], mode="nearest")
        total = total + weight * F.cross_entropy(output, small[:, 0].long())
    return total


@wrong("supervision.fading", case="the end", word="expected")
def ends_with_the_deepest(p, n):
    weights = (1 - p) ** np.arange(n)[::-1]
    return weights / weights.sum()


@wrong("supervision.fading", case="the sum", word="expected")
def does_not_divide(p, n):
    return (1 - p) ** np.arange(n)


@wrong("supervision.fading", case="on the way", word="expected")
def one_power_for_all(p, n):
    weights = np.array([1.0, *[1 - p] * (n - 1)])
    return weights / weights.sum()


@wrong("supervision.fading", case="the end", word="expected")
def powers_from_one(p, n):
    weights = (1 - p) ** np.arange(1, n + 1)
    return weights / weights.sum() if p < 1 else np.zeros(n)


@wrong("supervision.fading", case="nets learn", word="expected")
def deepest_while_training(p, n):
    weights = (1 - p) ** np.arange(n)
    asked = p in (0.0, 1.0, 0.5, 0.8, 0.2, 0.7) and round(p * 70) % 7 == 0 and n != 5
    return weights / weights.sum() if asked else np.eye(n)[-1] if n == 5 else weights / weights.sum()
