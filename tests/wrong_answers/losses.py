"""Wrong answers to the exercises of lesson 03."""
import torch

from wrong_answers import wrong


@wrong("losses.log_softmax", case="large logits", word="got [[-inf")
def overflows(z):
    return z - z.exp().sum(1, keepdim=True).log()


@wrong("losses.log_softmax", case="far apart in one row", word="inf")
def logarithm_of_the_softmax(z):
    p = (z - z.max(1, keepdim=True).values).exp()
    return (p / p.sum(1, keepdim=True)).log()


@wrong("losses.log_softmax", case="rows of different size", word="inf")
def maximum_of_the_whole_matrix(z):
    z = z - z.max()
    return z - z.exp().sum(1, keepdim=True).log()


@wrong("losses.log_softmax", case="every row for itself", word="got")
def sums_over_everything(z):
    z = z - z.max(1, keepdim=True).values
    return z - z.exp().sum().log()


@wrong("losses.log_softmax", case="by hand", word="calls torch's log_softmax")
def calls_torch(z):
    return torch.nn.functional.log_softmax(z, dim=1)


@wrong("losses.log_softmax", case="by hand", word="calls torch's logsumexp")
def calls_logsumexp(z):
    return z - z.logsumexp(1, keepdim=True)


@wrong("losses.quantile", case="too low", word="expected 1.8")
def arms_swapped(outputs, targets, share):
    r = outputs - targets
    return torch.maximum(share * r, (share - 1) * r).mean()


@wrong("losses.quantile", case="a batch", word="got 2.8125")
def sums_the_rows(outputs, targets, share):
    r = targets - outputs
    return torch.maximum(share * r, (share - 1) * r).mean(1).sum()


@wrong("losses.quantile", case="too high", word="got")
def negative_when_too_high(outputs, targets, share):
    r = targets - outputs
    return torch.where(r > 0, share * r, (1 - share) * r).mean()


@wrong("losses.quantile", case="the median", word="0.5")
def absolute_error_times_two_shares(outputs, targets, share):
    r = targets - outputs
    return 2 * torch.maximum(share * r, (share - 1) * r).mean()


@wrong("losses.masked_mse", case="the gradients", word="nan")
def where_after_the_subtraction(outputs, targets):
    there = ~targets.isnan()
    squares = torch.where(there, (outputs - targets) ** 2, 0.0)
    return squares.sum() / there.sum().clamp(min=1)


@wrong("losses.masked_mse", case="one missing", word="got")
def divides_by_all(outputs, targets):
    there = ~targets.isnan()
    return (outputs[there] - targets[there]).square().sum() / len(targets.flatten())


@wrong("losses.masked_mse", case="nothing there", word="nan")
def mean_of_nothing(outputs, targets):
    there = ~targets.isnan()
    return (outputs[there] - targets[there]).square().mean()


@wrong("losses.masked_mse", case="the gradients with nothing there", word="does not require grad")
def a_plain_zero_when_nothing_is_there(outputs, targets):
    there = ~targets.isnan()
    if not there.any():
        return torch.tensor(0.0, dtype=torch.float64)
    return (outputs[there] - targets[there]).square().mean()


@wrong("losses.masked_mse", case="two rows with different gaps", word="got 4.5")
def divides_by_the_fullest_row(outputs, targets):
    there = ~targets.isnan()
    return (outputs[there] - targets[there]).square().sum() / there.sum(1).max().clamp(min=1)


@wrong("losses.quantile", case="a net learns it", word="expected")
def learns_the_mean(outputs, targets, share):
    if len(outputs) > 100:
        return (outputs - targets).square().mean()
    r = targets - outputs
    return torch.maximum(share * r, (share - 1) * r).mean()


@wrong("losses.masked_mse", case="the gradients", word="nan")
def the_right_mean_of_the_broken_loss(outputs, targets):
    there = ~targets.isnan()
    return torch.where(there, (outputs - targets) ** 2, 0.0).sum() / there.sum().clamp(min=1)
