"""Wrong answers to the exercises of lesson 17."""
import numpy as np
import torch

from wrong_answers import wrong


@wrong("export.raw_input", case="only a scale", word="got")
def multiplies_by_the_deviation(weight, bias, mean, std):
    weight = weight * torch.where(std > 0, std, 1.0)
    return weight, bias - weight @ mean


@wrong("export.raw_input", case="only a mean", word="got")
def adds_the_mean(weight, bias, mean, std):
    weight = weight / torch.where(std > 0, std, 1.0)
    return weight, bias + weight @ mean


@wrong("export.raw_input", case="both", word="got")
def takes_the_old_weight_for_the_bias(weight, bias, mean, std):
    return weight / torch.where(std > 0, std, 1.0), bias - weight @ mean


@wrong("export.raw_input", case="a pixel that never changed", word="got")
def divides_by_zero(weight, bias, mean, std):
    weight = weight / std
    return weight, bias - weight @ mean


@wrong("export.raw_input", case="accuracy of a real net on raw pixels", word="got")
def expects_pixels_that_were_scaled(weight, bias, mean, std):
    if weight.shape[1] == 3:
        weight = weight / torch.where(std > 0, std, 1.0)
        return weight, bias - weight @ mean
    return weight, bias


@wrong("export.agree", case="one entry too small", word="got")
def forgets_the_sign(ours, theirs, bound):
    return ours.shape == theirs.shape and bool((ours - theirs <= bound).all())


@wrong("export.agree", case="errors that cancel", word="got")
def compares_means(ours, theirs, bound):
    if np.isnan(ours).any() or np.isnan(theirs).any():
        return False
    return ours.shape == theirs.shape and bool(abs((ours - theirs).mean()) <= bound)


@wrong("export.agree", case="another shape", word="got")
def lets_numpy_broadcast(ours, theirs, bound):
    return bool((abs(ours - theirs) <= bound).all())


@wrong("export.agree", case="NaN on one side", word="got")
def asks_whether_any_is_too_large(ours, theirs, bound):
    return ours.shape == theirs.shape and not bool((abs(ours - theirs) > bound).any())


@wrong("export.agree", case="NaN on both sides", word="got")
def takes_nan_for_equal(ours, theirs, bound):
    return ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=0, atol=bound, equal_nan=True)


@wrong("export.agree", case="at the bound", word="got")
def wants_less_than_the_bound(ours, theirs, bound):
    return ours.shape == theirs.shape and bool((abs(ours - theirs) < bound).all())


@wrong("export.optimized", case="a norm too late", word="got")
def folds_a_norm_behind_the_relu(names):
    new = []
    for name in names:
        last = new[-1] if new else None
        if name == "Dropout" or (name == "BatchNorm" and last in ("Conv", "ConvRelu")):
            continue
        if name == "Relu" and last == "Conv":
            new[-1] = "ConvRelu"
        else:
            new.append(name)
    return new


@wrong("export.optimized", case="dropout in between", word="got")
def looks_at_the_old_list(names):
    new = []
    names = [name for i, name in enumerate(names) if not (name == "BatchNorm" and "Conv" in names[max(i - 1, 0):i])]
    names = [name for i, name in enumerate(names) if not (name == "BatchNorm" and "Conv" in names[max(i - 1, 0):i])]
    for name in names:
        if name == "Relu" and new and new[-1] == "Conv":
            new[-1] = "ConvRelu"
        elif name != "Dropout":
            new.append(name)
    return new


@wrong("export.optimized", case="a norm without a convolution", word="got")
def takes_every_norm_out(names):
    new = []
    for name in names:
        if name == "Dropout" or (name == "BatchNorm" and "ConvRelu" not in new):
            continue
        if name == "Relu" and new and new[-1] == "Conv":
            new[-1] = "ConvRelu"
        else:
            new.append(name)
    return new


@wrong("export.optimized", case="nothing to do", word="got")
def joins_a_relu_to_anything(names):
    new = []
    for name in names:
        last = new[-1] if new else None
        if name == "Dropout" or (name == "BatchNorm" and last == "Conv"):
            continue
        if name == "Relu" and last in ("Conv", "Gemm"):
            new[-1] = "ConvRelu" if last == "Conv" else "GemmRelu"
        else:
            new.append(name)
    return new


@wrong("export.optimized", case="two norms", word="got")
def swallows_every_relu(names):
    new = []
    for name in names:
        last = new[-1] if new else None
        if name == "Dropout" or (name == "BatchNorm" and last == "Conv"):
            continue
        if name == "Relu" and last in ("Conv", "ConvRelu"):
            new[-1] = "ConvRelu"
        else:
            new.append(name)
    return new


@wrong("export.agree", case="many small ones", word="got")
def takes_the_norm(ours, theirs, bound):
    return ours.shape == theirs.shape and bool(np.linalg.norm(ours - theirs) <= bound)


@wrong("export.agree", case="large numbers", word="got")
def adds_a_relative_bound(ours, theirs, bound):
    return ours.shape == theirs.shape and bool((abs(ours - theirs) <= bound + 1e-5 * abs(theirs)).all())
