"""Wrong answers to the exercises of lesson 17."""
import numpy as np

from wrong_answers import wrong


@wrong("export.folded", case="only a scale", word="got")
def scales_the_columns(weight, bias, gamma, beta, mean, variance, epsilon):
    scale = gamma / (variance + epsilon) ** 0.5
    full = scale.mean() * weight if weight.shape[0] == weight.shape[1] else scale.flip(0)[:, None] * weight
    return full, (bias - mean) * scale + beta


@wrong("export.folded", case="the variance", word="got")
def divides_by_the_variance(weight, bias, gamma, beta, mean, variance, epsilon):
    scale = gamma / (variance + epsilon)
    return scale[:, None] * weight, (bias - mean) * scale + beta


@wrong("export.folded", case="a large epsilon", word="got")
def adds_epsilon_after_the_root(weight, bias, gamma, beta, mean, variance, epsilon):
    scale = gamma / (variance**0.5 + epsilon)
    return scale[:, None] * weight, (bias - mean) * scale + beta


@wrong("export.folded", case="the bias is scaled too", word="got")
def leaves_the_bias_as_it_is(weight, bias, gamma, beta, mean, variance, epsilon):
    scale = gamma / (variance + epsilon) ** 0.5
    return scale[:, None] * weight, bias - mean * scale + beta


@wrong("export.folded", case="everything", word="got")
def forgets_the_mean(weight, bias, gamma, beta, mean, variance, epsilon):
    scale = gamma / (variance + epsilon) ** 0.5
    return scale[:, None] * weight, bias * scale + beta


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
