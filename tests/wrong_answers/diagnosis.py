"""Wrong answers to the exercises of lesson 16."""
import torch
import torch.nn.functional as F
from torch import nn

from wrong_answers import wrong


@wrong("diagnosis.dead_share", case="several batches", word="expected")
def the_mean_of_the_batches(batches):
    return sum((batch == 0).all(0).double().mean().item() for batch in batches) / len(batches)


@wrong("diagnosis.dead_share", case="one batch", word="expected")
def the_share_of_zeros(batches):
    return (torch.cat(batches) == 0).double().mean().item()


@wrong("diagnosis.dead_share", case="several batches", word="expected")
def the_last_batch_only(batches):
    return (batches[-1] == 0).all(0).double().mean().item()


@wrong("diagnosis.dead_share", case="values below 0", word="expected")
def only_what_is_above_zero_lives(batches):
    return (torch.cat(batches) <= 0).all(0).double().mean().item()


def watch_with(fault):
    def answer(model, optimizer, inputs, labels, threshold):
        if fault != "no zero":
            model.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        before = {name: p if fault == "alias" else p.detach().clone() for name, p in model.named_parameters()}
        norm = nn.utils.clip_grad_norm_(model.parameters(), float("inf") if fault == "no clipping" else threshold)
        if fault == "norm afterwards":
            norm = nn.utils.get_total_norm([p.grad for p in model.parameters()])
        optimizer.step()
        moved = {name: (p.detach() - before[name]).norm() for name, p in model.named_parameters()}
        lengths, sizes = torch.stack(list(moved.values())), torch.stack([p.norm() for p in before.values()])
        ratio = lengths.sum() / sizes.sum() if fault == "sums" else lengths.norm() / sizes.norm()
        still = [name for name, p in model.named_parameters() if not p.requires_grad] if fault == "asks requires_grad" else \
            [name for name, length in moved.items() if length == 0]
        return norm.item(), ratio.item(), still
    answer.__name__ = fault.replace(" ", "_")
    return answer


norm_after_clipping = wrong("diagnosis.watch", case="the norm under clipping", word="expected")(watch_with("norm afterwards"))
keeps_the_tensors = wrong("diagnosis.watch", case="the ratio", word="expected")(watch_with("alias"))
adds_norms = wrong("diagnosis.watch", case="the ratio", word="expected")(watch_with("sums"))
never_clips = wrong("diagnosis.watch", case="the ratio under clipping", word="expected")(watch_with("no clipping"))
asks_what_is_frozen = wrong("diagnosis.watch", case="some are not trained", word="expected")(watch_with("asks requires_grad"))
never_zeroes = wrong("diagnosis.watch", case="gradients left over", word="expected")(watch_with("no zero"))


def rate_with(fault):
    def answer(make_net, make_optimizer, batches, ratio):
        trial, net = 1e-3, make_net()
        optimizer = make_optimizer(net, trial)
        F.cross_entropy(net(batches[0][0]), batches[0][1]).backward()
        before = torch.cat([p.detach().flatten() for p in net.parameters()])
        optimizer.step()
        after = torch.cat([p.detach().flatten() for p in net.parameters()])
        seen = ((after - before).norm() / before.norm()).item()
        if fault == "the length":
            seen = (after - before).norm().item()
        if fault == "from the gradient":
            return ratio * (before.norm() / torch.cat([p.grad.flatten() for p in net.parameters()]).norm()).item()
        return trial * seen / ratio if fault == "upside down" else trial * ratio / seen
    answer.__name__ = fault.replace(" ", "_")
    return answer


the_length_not_the_ratio = wrong("diagnosis.rate_for_ratio", case="SGD", word="expected")(rate_with("the length"))
upside_down = wrong("diagnosis.rate_for_ratio", case="SGD", word="expected")(rate_with("upside down"))
from_the_gradient = wrong("diagnosis.rate_for_ratio", case="Adam", word="expected")(rate_with("from the gradient"))


@wrong("diagnosis.rate_for_ratio", case="SGD", word="expected")
def the_ratio_itself(make_net, make_optimizer, batches, ratio):
    return ratio


@wrong("diagnosis.rate_for_ratio", case="another ratio", word="expected")
def always_one_percent(make_net, make_optimizer, batches, ratio):
    return rate_with("none")(make_net, make_optimizer, batches, 0.01)
