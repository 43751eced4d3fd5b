"""Runs broken on purpose, and healthy ones, over many seeds: how often `diagnose` names the fault.
`python tests/bench/diagnosis.py [SEEDS]`: nets of five kinds on the digits; two to six configurations of each fault.
"""
import math
import sys
import warnings

import torch
from torch import nn

from nnlearn.core import generator, seed_everything
from nnlearn.datasets import digits
from nnlearn.diagnosis import diagnose
from nnlearn.layer_statistics import LayerStatistics
from nnlearn.loaders import TensorLoader
from nnlearn.trainer import NonFiniteLoss, Trainer

IMAGES = digits()
X, Y, TX, TY = IMAGES.train_x.flatten(1), IMAGES.train_y, IMAGES.test_x.flatten(1), IMAGES.test_y


class Recurrent(nn.Module):
    """Reads an image row by row."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.GRU(8, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x):
        return self.out(self.rnn(x.view(-1, 8, 8))[0][:, -1])


class Attention(nn.Module):
    """Eight rows of an image as eight tokens."""

    def __init__(self):
        super().__init__()
        self.embed, self.places = nn.Linear(8, 32), nn.Parameter(0.1 * torch.randn(8, 32))
        self.block, self.out = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0), nn.Linear(32, 10)

    def forward(self, x):
        return self.out(self.block(self.embed(x.view(-1, 8, 8)) + self.places).mean(1))


def dense(*widths, activation=nn.ReLU):
    layers = []
    for fan_in, fan_out in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def mlp():
    return dense(64, 64, 64, 10)


def cnn():
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))


def normed():
    return nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(),
                         nn.Linear(64, 10))


def sigmoids():
    return dense(*[64] * 6, 10, activation=nn.Sigmoid)


def biased(make, value):
    def made():
        model = make()
        for layer in list(model)[:-1]:
            if getattr(layer, "bias", None) is not None:
                nn.init.constant_(layer.bias, value)
        return model
    return made


def gained(gain, depth):
    def made():
        model = dense(*[64] * (depth + 1), 10)
        for layer in model[::2]:
            nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.in_features))
        return model
    return made


def sgd(rate, momentum=0.0):
    return lambda model: torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)


def adam(rate):
    return lambda model: torch.optim.Adam(model.parameters(), lr=rate)


def without_head(model):
    return torch.optim.Adam(list(model.parameters())[:-2], lr=3e-3)


HALF = len(TX) // 2
SHUFFLED = Y[torch.randperm(len(Y), generator=generator(1))]
FEW = {"train": (X[:100], Y[:100]), "epochs": 120}
LEAKY = {"train": (torch.cat([X, Y[:, None].float()], 1), Y), "validation": (torch.cat([TX, TY[:, None].float()], 1), TY)}
HEALTHY = [(mlp, sgd(0.1, 0.9)), (mlp, adam(3e-3)), (cnn, sgd(0.05, 0.9)), (normed, sgd(0.1)), (Recurrent, adam(1e-2)),
           (Attention, adam(3e-3))]
FAULTS = {
    "learning rate too high": [(mlp, sgd(5.0)), (mlp, adam(0.5)), (cnn, sgd(0.5, 0.9)), (Recurrent, adam(1.0)), (Attention, adam(0.1)),
                               (normed, adam(30.0))],
    "learning rate too low": [(mlp, sgd(1e-4)), (mlp, adam(1e-6)), (Recurrent, adam(1e-6)), (cnn, sgd(1e-5, 0.9)), (Attention, adam(1e-6))],
    "dead units": [(biased(mlp, -1.0), sgd(0.1)), (biased(mlp, -2.0), adam(3e-3)), (biased(cnn, -3.0), sgd(0.05, 0.9))],
    "overfitting": [(mlp, adam(3e-3), FEW), (mlp, sgd(0.1, 0.9), FEW), (cnn, adam(3e-3), FEW)],
    "exploding gradients": [(gained(3.0, 10), sgd(0.01)), (gained(4.0, 10), adam(1e-3)), (gained(2.5, 20), sgd(0.01))],
    "labels do not follow the inputs": [(mlp, adam(3e-3), {"train": (X, SHUFFLED)}), (cnn, sgd(0.05, 0.9), {"train": (X, SHUFFLED)}),
                                        (mlp, adam(3e-3), {"train": (X, Y.roll(1))})],
    "rows in both parts": [(mlp, adam(3e-3), {"train": (torch.cat([X, TX[:count]]), torch.cat([Y, TY[:count]]))}) for count in (HALF, 20)],
    "a feature gives the answer away": [(lambda: dense(65, 64, 10), adam(3e-3), LEAKY)],
    "constant predictions": [(sigmoids, sgd(0.1)), (sigmoids, adam(1e-4))],
    "parameters that never move": [(mlp, without_head), (cnn, without_head)]}


def found(seed, make, optimizer, options=None, train=(X, Y), validation=(TX, TY), epochs=8):
    """The names of what `diagnose` finds in one run, the earliest sign first."""
    if options:
        return found(seed, make, optimizer, None, **options)
    seed_everything(seed)
    model, statistics = make(), LayerStatistics()
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer(model), device="cpu", metrics=["accuracy"], callbacks=[statistics])
    try:
        trainer.fit(TensorLoader(*train, batch_size=64, shuffle=True, seed=seed), TensorLoader(*validation, batch_size=500),
                    epochs=epochs, verbose=0)
    except NonFiniteLoss:
        pass
    outputs = trainer.predict([validation])
    return [finding.name for finding in diagnose(trainer.history, statistics, train, validation, outputs)]


def diagnosis(row, seeds=20):
    """Rows of the table: of so many runs, how many were not named, and how many healthy ones were."""
    warnings.simplefilter("ignore")
    rows = []
    for fault, cases in FAULTS.items():
        missed = [float(sum(fault not in found(seed, *case) for seed in range(seeds))) for case in cases]
        rows.append(row(f"not named, of {seeds}", fault, missed, "runs", seeds / 10))
    alarms = [float(sum(bool(found(seed, *case)) for seed in range(seeds))) for case in HEALTHY]
    return [*rows, row(f"named, of {seeds}", "healthy runs", alarms, "runs", seeds / 20)]


if __name__ == "__main__":
    for line in diagnosis(lambda *values: values, int(sys.argv[1]) if len(sys.argv) > 1 else 20):
        print(*line[:3])
