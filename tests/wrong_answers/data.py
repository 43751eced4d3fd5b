"""Wrong answers to the exercises of lesson 06."""
import torch

from wrong_answers import wrong


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


def validate(model, loader, evaluate=True, restore=True, by_rows=True, as_float=True):
    """A validation loop that is right but for what is switched off."""
    before, right, rows = model.training, 0, 0
    if evaluate:
        model.eval()
    with torch.no_grad():
        for x, y in loader:
            hits = (model(x).argmax(1) == y).float()
            right, rows = (right + hits.sum(), rows + len(y)) if by_rows else (right + hits.mean(), rows + 1)
    if restore:
        model.train(before)
    return (right / rows).item() if as_float else right / rows


@wrong("data.repair_validation", case="unequal batches", word="expected")
def averages_the_batches(model, loader):
    return validate(model, loader, by_rows=False)


@wrong("data.repair_validation", case="a model in training mode", word="expected")
def forgets_eval(model, loader):
    return validate(model, loader, evaluate=False)


@wrong("data.repair_validation", case="the mode afterwards", word="expected")
def stays_in_evaluation(model, loader):
    return validate(model, loader, restore=False)


@wrong("data.repair_validation", case="a float", word="expected")
def returns_a_tensor(model, loader):
    return validate(model, loader, as_float=False)


def said(model, rows, collate, size):
    """The predicted classes in batches of a size."""
    with torch.no_grad():
        return torch.cat([model(*collate(rows[i:i + size])[:2]).argmax(1) for i in range(0, len(rows), size)])


@wrong("data.company", case="wrong answers do not count", word="expected")
def compares_with_the_labels(model, rows, collate, batch_size):
    labels = torch.tensor([label for _, label in rows])
    return (said(model, rows, collate, batch_size) != labels).float().mean().item()


@wrong("data.company", case="one of two", word="expected")
def counts_the_rows(model, rows, collate, batch_size):
    return (said(model, rows, collate, batch_size) != said(model, rows, collate, 1)).float().sum().item()


@wrong("data.company", case="a smaller last batch", word="expected")
def averages_over_batches(model, rows, collate, batch_size):
    changed = (said(model, rows, collate, batch_size) != said(model, rows, collate, 1)).float()
    return torch.stack([part.mean() for part in changed.split(batch_size)]).mean().item()


@wrong("data.company", case="one of two", word="expected")
def takes_all_rows_as_one_batch(model, rows, collate, batch_size):
    return (said(model, rows, collate, len(rows)) != said(model, rows, collate, max(1, len(rows)))).float().mean().item()
