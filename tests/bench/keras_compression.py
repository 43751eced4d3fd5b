"""What compression makes of a small CNN in tf_keras on the 28x28 sample, over five seeds: bytes, and points lost.

`keras_compression(row)` gives the rows of the table: int8 by LiteRT, and pruned to 80 %, each beside the net it was made of.
"""
import os
import tempfile
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from nnlearn.core import optional, shifted_seed
from nnlearn.datasets import mnist_sample
from nnlearn.keras.compression import convert_tflite, prune
from nnlearn.measure import model_bytes

SEEDS = 5


def keras_compression(row: Callable) -> list[dict]:
    """Per seed: 8 epochs on the 4,000 images, the rate lowered for the last 3; 12 more with pruning; all four files measured."""
    tf_keras = optional("tf_keras", "tensorflow")
    layers, data = tf_keras.layers, mnist_sample()
    train_x, test_x = (part.permute(0, 2, 3, 1).numpy().copy() for part in (data.train_x, data.test_x))
    train_y, test_y = data.train_y.numpy(), data.test_y.numpy()
    found: dict[str, list[float]] = {name: [] for name in ("int8 bytes", "int8 lost", "pruned gzip", "pruned lost")}
    for seed in range(SEEDS):
        tf_keras.utils.set_random_seed(shifted_seed(seed))
        blocks = [[layers.Conv2D(width, 3, padding="same", use_bias=False), layers.BatchNormalization(momentum=0.9), layers.ReLU(),
                   layers.MaxPooling2D()] for width in (16, 32)]
        net = tf_keras.Sequential([layers.Input((28, 28, 1)), *blocks[0], *blocks[1], layers.Flatten(),
                                   layers.Dense(32, activation="relu"), layers.Dense(10)])
        for rate, epochs in ((3e-3, 5), (5e-4, 3)):
            net.compile(tf_keras.optimizers.Adam(rate), tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
            net.fit(train_x, train_y, batch_size=64, epochs=epochs, verbose=0)
        rate = tf_keras.optimizers.schedules.CosineDecay(3e-3, 12 * 63)
        pruned = prune(net, train_x, train_y, 0.8, end_step=400, epochs=12, optimizer=tf_keras.optimizers.Adam(rate))
        with tempfile.TemporaryDirectory() as folder:
            plain, small = (convert_tflite(model, f"{folder}/{name}.tflite") for name, model in (("net", net), ("pruned", pruned)))
            int8 = convert_tflite(net, f"{folder}/int8.tflite", "int8", train_x)
            scores = [100 * file.evaluate(test_x, test_y) for file in (plain, int8, small)]
            sizes = [model_bytes(file.path) for file in (plain, int8, small)]
        found["int8 bytes"].append(sizes[1].raw / sizes[0].raw)
        found["pruned gzip"].append(sizes[2].gzip / sizes[0].gzip)
        found["int8 lost"].append(scores[0] - scores[1])
        found["pruned lost"].append(scores[0] - scores[2])
    return [row("keras compression", "LiteRT int8, bytes", found["int8 bytes"], "x float32", 0.30),
            row("keras compression", "LiteRT int8, accuracy lost", found["int8 lost"], "points", 1.0),
            row("keras compression", "pruned to 80 %, bytes after gzip", found["pruned gzip"], "x dense", 0.35),
            row("keras compression", "pruned to 80 %, accuracy lost", found["pruned lost"], "points", 1.0)]
