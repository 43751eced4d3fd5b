"""What a teacher is worth to a student a tenth of its size and less: 28x28 sample, ten seeds, one thread.

`distillation(row)` gives the rows of the table: points won with 200 labels and 2,000 unlabelled images, those over twice their
standard error, and points won when every image has a label, as they come out.
"""
import statistics
from collections.abc import Callable

import torch
from torch import nn

from nnlearn.core import count_parameters, seed_everything
from nnlearn.datasets import mnist_sample
from nnlearn.distillation import DistillationLoss, distill, teacher_logits
from nnlearn.loaders import TensorLoader
from nnlearn.models import small_cnn
from nnlearn.trainer import Trainer

SEEDS, WIDTHS = 10, (4, 8)


def alone(model: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int, learning_rate: float, seed: int) -> nn.Module:
    """Train without a teacher for about so many steps."""
    loader = TensorLoader(x, y, batch_size=64, shuffle=True, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, fused=True)
    Trainer(model, nn.CrossEntropyLoss(), optimizer, device="cpu").fit(loader, epochs=round(steps / len(loader)), verbose=0)
    return model


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """Percent of the 1,000 test images."""
    data, right = mnist_sample(), 0
    for x, y in zip(data.test_x.split(200), data.test_y.split(200)):
        right += int((model.eval()(x).argmax(1) == y).sum())
    return 100 * right / len(data.test_y)


def gains(seeds: int = SEEDS, epochs: int = 8) -> dict[str, list[float]]:
    """Points won by the teacher for each seed; it was trained on 1,800 images that the student never sees."""
    data = mnist_sample()
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(0))
    theirs, ours = order[:1800], order[1800:]
    seed_everything(0)
    teacher = alone(small_cnn((32, 64)), data.train_x[theirs], data.train_y[theirs], 180, 3e-3, 0)
    assert count_parameters(teacher) >= 10 * count_parameters(small_cnn(WIDTHS))
    x, y = data.train_x[ours], data.train_y[ours]
    logits, few = teacher_logits(teacher, x), torch.where(torch.arange(2200) < 200, y, -100)
    won: dict[str, list[float]] = {"200 labels, 2,000 images without": [], "all 2,200 labels": []}
    for seed in range(seeds):
        for name, known, count in zip(won, (few, y), (200, 2200)):
            seed_everything(seed)
            student = small_cnn(WIDTHS)
            loader = TensorLoader(x, known, logits, batch_size=64, shuffle=True, seed=seed)
            optimizer = torch.optim.AdamW(student.parameters(), lr=5e-3, fused=True)
            distill(student, None, loader, epochs=epochs, loss=DistillationLoss(0.5, 2.0), optimizer=optimizer, device="cpu")
            seed_everything(seed)
            plain = alone(small_cnn(WIDTHS), x[:count], y[:count], epochs * len(loader), 5e-3, seed)
            won[name].append(accuracy(student) - accuracy(plain))
    return won


def distillation(row: Callable[..., dict], seeds: int = SEEDS) -> list[dict]:
    """The student's gain in points in two regimes, and in standard errors in the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        won = gains(seeds)
    finally:
        torch.set_num_threads(threads)
    rows = []
    for name, points in won.items():
        error = statistics.stdev(points) / len(points) ** 0.5
        gain = row("student under a teacher", name, points, "points won", 0.0)
        if name.startswith("200"):
            rows.append({**gain, "reach": "above 2 standard errors", "reached": statistics.mean(points) > 2 * error})
            errors = [statistics.mean(points) / error]
            ratio = row("student under a teacher", f"{name}, mean over its error", errors, "standard errors", 2.0)
            rows.append({**ratio, "reach": "at least 2", "reached": ratio["median"] >= 2})
        else:
            rows.append({**gain, "reach": "as it comes out", "reached": True})
    return rows


if __name__ == "__main__":
    from run import row as table_row

    for line in distillation(table_row):
        print(line)
