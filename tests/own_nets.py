"""Nets and data as users bring them: each is named by its import path in the configs of test_zoo.py."""
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from nnlearn.datasets import segmentation_digits


class Conv1dNet(nn.Module):
    """A 1-D CNN: the rows of a digit are channels."""

    def __init__(self, width=16, classes=10):
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(8, width, 3, padding=1), nn.BatchNorm1d(width), nn.ReLU(),
                                  nn.Conv1d(width, 2 * width, 3, padding=1), nn.BatchNorm1d(2 * width), nn.ReLU())
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x):
        return self.head(self.body(x).mean(-1))


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.a, self.b = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1)
        self.norm_a, self.norm_b = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x):
        return (x + self.norm_b(self.b(self.norm_a(self.a(x)).relu()))).relu()


class ResidualCNN(nn.Module):
    """Two residual blocks."""

    def __init__(self, channels=16, classes=10):
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(1, channels, 3, padding=1), nn.Sequential(Block(channels), Block(channels))
        self.head = nn.Linear(channels, classes)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x).relu()).mean((2, 3)))


class Inverted(nn.Module):
    """MobileNetV2's block: widen, filter each channel alone, narrow, add."""

    def __init__(self, channels, widen=2):
        super().__init__()
        inner = widen * channels
        self.layers = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x):
        return x + self.layers(x)


class MobileNet(nn.Module):
    def __init__(self, channels=16, classes=10):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU6())
        self.blocks, self.head = nn.Sequential(Inverted(channels), Inverted(channels)), nn.Linear(channels, classes)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class SmallUNet(nn.Module):
    """Two levels, one output for each pixel."""

    def __init__(self, width=8):
        super().__init__()
        self.down, self.middle = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 2 * width, 3, padding=1)
        self.up, self.head = nn.Conv2d(3 * width, width, 3, padding=1), nn.Conv2d(width, 1, 1)

    def forward(self, x):
        top = self.down(x).relu()
        low = self.middle(nn.functional.max_pool2d(top, 2)).relu()
        return self.head(self.up(torch.cat([top, nn.functional.interpolate(low, scale_factor=2)], 1)).relu())


class LSTMClassifier(nn.Module):
    def __init__(self, hidden=24, classes=10):
        super().__init__()
        self.lstm, self.middle, self.head = nn.LSTM(8, hidden, batch_first=True), nn.Linear(hidden, 32), nn.Linear(32, classes)

    def forward(self, x):
        return self.head(self.middle(self.lstm(x)[0][:, -1]).relu())


class Transformer(nn.Module):
    """One encoder layer with LayerNorm over the rows of a digit."""

    def __init__(self, width=32, classes=10):
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.place = nn.Parameter(torch.zeros(8, width))
        self.encoder = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x) + self.place).mean(1))


class Bag(nn.Module):
    """A bag of tokens: which pixel is how bright."""

    def __init__(self, tokens=320, width=32, classes=10):
        super().__init__()
        self.bag, self.middle, self.head = nn.EmbeddingBag(tokens, width, mode="mean"), nn.Linear(width, 32), nn.Linear(32, classes)

    def forward(self, tokens):
        return self.head(self.middle(self.bag(tokens)).relu())


class TwoInputs(nn.Module):
    """The left half of an image and the right half."""

    def __init__(self, width=24, classes=10):
        super().__init__()
        self.left, self.right, self.head = nn.Linear(32, width), nn.Linear(32, width), nn.Linear(2 * width, classes)

    def forward(self, left, right):
        return self.head(torch.cat([self.left(left).relu(), self.right(right).relu()], 1))


class NormedMLP(nn.Module):
    """An MLP that begins with a batch norm, for columns as they come."""

    def __init__(self, inputs=13, classes=3, width=32):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(inputs), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                                    nn.Linear(width, classes))

    def forward(self, x):
        return self.layers(x)


def _digits():
    data = load_digits()
    return (data.images / 16).astype(np.float32), data.target


def images():
    x, y = _digits()
    return x[:, None], y


def rows():
    return _digits()


def halves():
    x, y = _digits()
    return (x[:, :, :4].reshape(-1, 32), x[:, :, 4:].reshape(-1, 32)), y


def tokens():
    x, y = _digits()
    return np.arange(64) * 5 + np.clip((x * 5).astype(np.int64), 0, 4).reshape(-1, 64), y


def masks():
    data = segmentation_digits()
    return {"train": (data.train_x[:600], data.train_y[:600, None]), "test": (data.test_x[:200], data.test_y[:200, None])}


def failing():
    raise OSError("no such disk")
