"""Wrong answers to the exercises of lesson 10."""
import math

import torch
from torch import nn

from wrong_answers import wrong


@wrong("initialization.first_std", case="a convolution", word="expected 0.1178")
def counts_the_channels_only(shape, slope):
    return math.sqrt(2 / (1 + slope**2) / shape[1])


@wrong("initialization.first_std", case="a linear layer with ReLU", word="expected 0.2")
def takes_the_fan_out(shape, slope):
    return math.sqrt(2 / (1 + slope**2) / (shape[0] * math.prod(shape[2:])))


@wrong("initialization.first_std", case="a leaky slope", word="got 0.2")
def forgets_the_slope(shape, slope):
    return math.sqrt(2 / math.prod(shape[1:])) if slope != 1 else math.sqrt(1 / math.prod(shape[1:]))


@wrong("initialization.first_std", case="a linear layer with ReLU", word="got 0.04")
def gives_the_variance(shape, slope):
    return 2 / (1 + slope**2) / math.prod(shape[1:])


@wrong("initialization.first_std", case="a convolution over time", word="got")
def knows_images_only(shape, slope):
    return math.sqrt(2 / (1 + slope**2) / (shape[1] * (math.prod(shape[2:]) if len(shape) == 4 else 1)))


def grouped(x, groups, eps=1e-5, unbiased=False, outside=False, centred=True, apart=False):
    g = x.reshape(len(x), -1, groups).transpose(1, 2) if apart else x.reshape(len(x), groups, -1)
    mean, variance = g.mean(-1, keepdim=True), g.var(-1, keepdim=True, correction=int(unbiased))
    g = (g - mean if centred else g) / (variance.sqrt() + eps if outside else (variance + eps).sqrt())
    return (g.transpose(1, 2) if apart else g).reshape(x.shape)


@wrong("initialization.group_norm", case="a group of two numbers", word="got")
def takes_the_unbiased_variance(x, groups, eps=1e-5):
    return grouped(x, groups, eps, unbiased=True)


@wrong("initialization.group_norm", case="nearly constant", word="got")
def adds_epsilon_outside_of_the_root(x, groups, eps=1e-5):
    return grouped(x, groups, eps, outside=True)


@wrong("initialization.group_norm", case="images far from zero", word="got")
def forgets_the_mean(x, groups, eps=1e-5):
    return grouped(x, groups, eps, centred=False)


@wrong("initialization.group_norm", case="two groups of two channels", word="got")
def normalizes_over_the_batch(x, groups, eps=1e-5):
    return grouped(x.transpose(0, 1), groups, eps).transpose(0, 1)


@wrong("initialization.group_norm", case="groups that differ", word="got")
def takes_every_third_channel(x, groups, eps=1e-5):
    n, c, h, w = x.shape
    if groups in (1, 2, c):
        return grouped(x, groups, eps)
    mixed = x.reshape(n, c // groups, groups, h, w).transpose(1, 2).reshape(x.shape)
    return grouped(mixed, groups, eps).reshape(n, groups, c // groups, h, w).transpose(1, 2).reshape(x.shape)


def normed(x, state, training, momentum=0.1, eps=1e-5, output=0, kept=1, share=None, outside=False, always=False, use=True):
    share = momentum if share is None else share
    mean, variance = state["mean"], state["variance"]
    if training or always:
        state["mean"] = (1 - share) * mean + share * x.mean(0)
        if len(x) > 1:
            state["variance"] = (1 - share) * variance + share * x.var(0, correction=kept)
    if training or not use:
        mean, variance = x.mean(0), x.var(0, correction=min(output, len(x) - 1))
    return (x - mean) / (variance.sqrt() + eps if outside else (variance + eps).sqrt())


@wrong("initialization.repair_batch_norm", case="a batch in training", word="got")
def keeps_n_minus_one_in_the_output(*args):
    return normed(*args, output=1)


@wrong("initialization.repair_batch_norm", case="the running variance", word="n - 1")
def keeps_the_variance_with_n(*args):
    return normed(*args, kept=0)


@wrong("initialization.repair_batch_norm", case="nearly constant inputs", word="inside the root")
def leaves_epsilon_outside(*args):
    return normed(*args, outside=True)


@wrong("initialization.repair_batch_norm", case="the running mean", word="0.1 of it")
def leaves_the_momentum(*args):
    return normed(*args, share=0.9)


@wrong("initialization.repair_batch_norm", case="one image in evaluation", word="uses what is kept")
def leaves_the_statistics_of_the_batch(*args):
    return normed(*args, use=False)


@wrong("initialization.repair_batch_norm", case="evaluation keeps nothing", word="training only")
def goes_on_keeping(*args):
    return normed(*args, always=True)


def scaled(net, batch, scale, every=nn.Linear, again=True):
    x = batch
    with torch.no_grad():
        for part in net:
            if isinstance(part, every):
                before = part(x)
                scale(part, x)
                x = part(x) if again else before
            else:
                x = part(x)
    return net


@wrong("initialization.unit_variance", case="three layers", word="after they were scaled")
def does_not_look_again(net, batch):
    return scaled(net, batch, lambda part, x: part.weight.div_(part(x).std()), again=False)


@wrong("initialization.unit_variance", case="one layer", word="standard deviation")
def divides_by_the_variance(net, batch):
    return scaled(net, batch, lambda part, x: part.weight.div_(part(x).var()))


@wrong("initialization.unit_variance", case="weights that are too large", word="before the activation")
def measures_after_tanh(net, batch):
    return scaled(net, batch, lambda part, x: part.weight.div_(part(x).tanh().std()))


@wrong("initialization.unit_variance", case="the biases", word="left alone")
def centres_with_the_bias(net, batch):
    def scale(part, x):
        part.weight.div_(part(x).std())
        part.bias.copy_(0.001 * part(x).mean(0))
    return scaled(net, batch, scale)


@wrong("initialization.unit_variance", case="gradients as before", word="parameters that can be trained")
def freezes_the_weights(net, batch):
    def scale(part, x):
        part.weight.div_(part(x).std())
    net = scaled(net, batch, scale)
    for p in net.parameters():
        p.requires_grad_(False)
    return net


@wrong("initialization.unit_variance", case="a real net, twelve layers of SiLU on digits", word="standard deviation of 1")
def assumes_tanh(net, batch):
    x = batch
    with torch.no_grad():
        for part in net:
            if isinstance(part, nn.Linear):
                part.weight /= part(x).std()
                x = part(x).tanh()
    return net
