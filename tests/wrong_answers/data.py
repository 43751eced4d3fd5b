"""Wrong answers to the exercises of lesson 06."""
import torch

from wrong_answers import wrong


def _collated(rows, pad, lengths=len):
    """A batch that is padded by a function of (tokens, width), with the lengths by another."""
    width = max(len(tokens) for tokens, _ in rows)
    return (torch.stack([pad(tokens, width) for tokens, _ in rows]), torch.tensor([int(lengths(tokens)) for tokens, _ in rows]),
            torch.tensor([label for _, label in rows]))


def _at_the_end(tokens, width):
    return torch.nn.functional.pad(tokens, (0, width - len(tokens)))


@wrong("data.collate", case="unequal lengths", word="expected")
def pads_in_front(rows):
    return _collated(rows, lambda tokens, width: torch.nn.functional.pad(tokens, (width - len(tokens), 0)))


@wrong("data.collate", case="a token that is 0", word="expected")
def counts_the_tokens_that_are_not_0(rows):
    return _collated(rows, _at_the_end, torch.count_nonzero)


@wrong("data.collate", case="tokens that are not whole", word="expected")
def makes_the_tokens_whole(rows):
    return _collated(rows, lambda tokens, width: _at_the_end(tokens, width).long())


@wrong("data.collate", case="unequal lengths", word="")
def stacks_them_as_they_are(rows):
    return _collated(rows, lambda tokens, _: tokens)


@wrong("data.collate", case="in a DataLoader", word="expected")
def pads_to_at_least_two(rows):
    return _collated(rows, lambda tokens, width: _at_the_end(tokens, width if len(rows) > 1 else width + 1))


@wrong("data.scale_both", case="the test part", word="expected")
def scales_the_test_part_by_itself(train, test):
    def own(x):
        std = x.std(0, correction=0)
        return (x - x.mean(0)) / torch.where(std > 0, std, 1.0)
    return own(train), own(test)


@wrong("data.scale_both", case="the training part", word="expected")
def scales_by_all_rows(train, test):
    both = torch.cat([train, test])
    std = both.std(0, correction=0)
    std = torch.where(std > 0, std, 1.0)
    return (train - both.mean(0)) / std, (test - both.mean(0)) / std


@wrong("data.scale_both", case="the training part", word="expected")
def divides_by_rows_minus_one(train, test):
    std = train.std(0)
    std = torch.where(std > 0, std, 1.0)
    return (train - train.mean(0)) / std, (test - train.mean(0)) / std


@wrong("data.scale_both", case="a constant column", word="expected")
def divides_by_zero(train, test):
    return tuple((part - train.mean(0)) / train.std(0, correction=0) for part in (train, test))


@wrong("data.scale_both", case="arguments left alone", word="expected")
def scales_in_place(train, test):
    mean, std = train.mean(0), train.std(0, correction=0)
    std = torch.where(std > 0, std, 1.0)
    return train.sub_(mean).div_(std), test.sub_(mean).div_(std)


@wrong("data.scale_both", case="a narrow column", word="expected")
def raises_every_small_deviation_to_one(train, test):
    std = train.std(0, correction=0).clamp(min=1.0)
    return (train - train.mean(0)) / std, (test - train.mean(0)) / std


@wrong("data.test_rows", case="rounded up", word="expected")
def rounds_down(labels, fraction):
    chosen = []
    for label in set(labels):
        rows = [i for i, other in enumerate(labels) if other == label]
        chosen += rows[len(rows) - int(fraction * len(rows) + 1e-9):]
    return sorted(chosen)


@wrong("data.test_rows", case="ascending over classes", word="expected")
def leaves_the_rows_in_the_order_of_their_classes(labels, fraction):
    chosen = []
    for label in sorted(set(labels)):
        rows = [i for i, other in enumerate(labels) if other == label]
        chosen += rows[len(rows) - round(fraction * len(rows)):]
    return chosen


@wrong("data.test_rows", case="unequal classes", word="expected")
def takes_the_last_rows(labels, fraction):
    count = round(fraction * len(labels))
    return list(range(len(labels) - count, len(labels)))


@wrong("data.test_rows", case="a class too small", word="expected")
def slices_by_minus_zero(labels, fraction):
    chosen = []
    for label in set(labels):
        rows = [i for i, other in enumerate(labels) if other == label]
        chosen += rows[-round(fraction * len(rows)):]
    return sorted(chosen)


@wrong("data.test_rows", case="one class", word="expected")
def takes_the_first_of_each(labels, fraction):
    rows = {label: [i for i, other in enumerate(labels) if other == label] for label in set(labels)}
    return sorted(i for own in rows.values() for i in own[:round(fraction * len(own))])


@wrong("data.test_rows", case="two classes, mixed", word="expected")
def forgets_to_sort(labels, fraction):
    chosen = []
    for label in sorted(set(labels), reverse=True):
        rows = [i for i, other in enumerate(labels) if other == label]
        chosen += rows[len(rows) - round(fraction * len(rows)):]
    return chosen


@wrong("data.macro_f1", case="a rare class", word="expected")
def computes_accuracy(confusion):
    return confusion.diag().sum() / confusion.sum()


@wrong("data.macro_f1", case="two classes", word="expected")
def averages_recall(confusion):
    return (confusion.diag() / confusion.sum(1).clamp(min=1)).mean()


@wrong("data.macro_f1", case="never said", word="expected")
def divides_zero_by_zero(confusion):
    precision, recall = confusion.diag() / confusion.sum(0), confusion.diag() / confusion.sum(1)
    return (2 * precision * recall / (precision + recall)).mean()


@wrong("data.macro_f1", case="a rare class", word="expected")
def weighs_by_the_class_sizes(confusion):
    f1 = 2 * confusion.diag() / (confusion.sum(0) + confusion.sum(1))
    return (f1 * confusion.sum(1)).sum() / confusion.sum()


@wrong("data.macro_f1", case="neither true nor said", word="expected")
def forgets_the_class_that_is_not_there(confusion):
    return (2 * confusion.diag() / (confusion.sum(0) + confusion.sum(1))).mean()
