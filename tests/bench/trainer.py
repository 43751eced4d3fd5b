"""CPU time of a training step: nnlearn's Trainer, the bare loop, and six other libraries, interleaved in one process.

Run by `make bench` in an environment where all of them are installed; prints JSON, {name: [ratio to the bare loop, ...]}.
Every loop trains the same MLP on the same rows of digits: Adam, batch 64, one thread, and (but for TensorLoader) the same
DataLoader. A ratio compares the slopes of the time from 4 to 34 epochs, so that setting up does not count; the bare loop is
measured on both sides.
"""
import contextlib
import io
import json
import logging
import math
import os
import sys
import tempfile
import time
import warnings

os.environ["OMP_NUM_THREADS"] = "1"
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)

import torch  # noqa: E402
import torchmetrics  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from nnlearn.datasets import digits  # noqa: E402
from nnlearn.loaders import TensorLoader  # noqa: E402
from nnlearn.trainer import Trainer  # noqa: E402

torch.set_num_threads(1)
DATA = digits()
X, Y = DATA.train_x[:1408], DATA.train_y[:1408]
CRITERION = nn.CrossEntropyLoss()


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def parts(**options):
    """A model, its optimizer and the loader that all loops share in kind."""
    model = mlp()
    return model, torch.optim.Adam(model.parameters(), lr=1e-3, **options), DataLoader(TensorDataset(X, Y), batch_size=64, shuffle=True)


def bare(epochs):
    model, optimizer, loader = parts()
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            CRITERION(model(x), y).backward()
            optimizer.step()


def ours(epochs):
    model, optimizer, loader = parts()
    Trainer(model, CRITERION, optimizer, device="cpu", metrics=["accuracy"]).fit(loader, epochs=epochs, verbose=0)


def ours_with_bar(epochs):
    model, optimizer, loader = parts()
    Trainer(model, CRITERION, optimizer, device="cpu", metrics=["accuracy"]).fit(loader, epochs=epochs)


def ours_in_memory(epochs):
    model, optimizer, _ = parts(fused=True)
    loader = TensorLoader(X, Y, batch_size=64, shuffle=True)
    Trainer(model, CRITERION, optimizer, device="cpu", metrics=["accuracy"]).fit(loader, epochs=epochs, verbose=0)


def ignite(epochs, measured=False):
    from ignite.engine import Events, create_supervised_trainer
    from ignite.handlers import TerminateOnNan
    from ignite.metrics import Accuracy, Loss
    model, optimizer, loader = parts()
    transform = (lambda x, y, y_pred, loss: (y_pred, y)) if measured else (lambda x, y, y_pred, loss: loss.item())
    engine = create_supervised_trainer(model, optimizer, CRITERION, output_transform=transform)
    if measured:
        Accuracy().attach(engine, "accuracy")
        Loss(CRITERION).attach(engine, "loss")
    else:
        engine.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan())
    engine.run(loader, max_epochs=epochs)


def by_hand(epochs, prepare, backward, measured):
    """The loop that Fabric and Accelerate ask for."""
    model, optimizer, loader = prepare(*parts())
    accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=10)
    for _ in range(epochs):
        total, rows = 0.0, 0
        for x, y in loader:
            optimizer.zero_grad()
            outputs = model(x)
            loss = CRITERION(outputs, y)
            backward(loss)
            optimizer.step()
            if measured:
                value = loss.item()
                assert math.isfinite(value)
                total, rows = total + value * len(y), rows + len(y)
                accuracy.update(outputs, y)
        if measured:
            accuracy.compute(), accuracy.reset()


def fabric(epochs, measured=False):
    from lightning.fabric import Fabric
    it = Fabric(accelerator="cpu", devices=1)

    def prepare(model, optimizer, loader):
        return *it.setup(model, optimizer), it.setup_dataloaders(loader)

    by_hand(epochs, prepare, it.backward, measured)


def accelerate(epochs, measured=False):
    from accelerate import Accelerator
    it = Accelerator(cpu=True)
    by_hand(epochs, it.prepare, it.backward, measured)


def hf(epochs):
    import transformers
    model = mlp()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x, labels):
            logits = self.net(x)
            return {"loss": CRITERION(logits, labels), "logits": logits}

    arguments = transformers.TrainingArguments(
        output_dir=tempfile.gettempdir() + "/bench-hf", per_device_train_batch_size=64, num_train_epochs=epochs, use_cpu=True,
        report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, max_grad_norm=0.0, dataloader_num_workers=0,
        optim="adamw_torch", learning_rate=1e-3, lr_scheduler_type="constant")
    transformers.Trainer(model=Model(), args=arguments, train_dataset=TensorDataset(X, Y),
                         data_collator=lambda rows: {"x": torch.stack([r[0] for r in rows]), "labels": torch.stack([r[1] for r in rows])},
                         ).train()


def fastai(epochs):
    from fastai.basics import DataLoaders, Learner
    from fastai.optimizer import OptimWrapper
    model, _, loader = parts()
    learner = Learner(DataLoaders(loader, loader), model, loss_func=CRITERION, lr=1e-3,
                      opt_func=lambda params, **ignored: OptimWrapper(params, torch.optim.Adam, lr=1e-3))
    learner._do_epoch_validate = lambda *ignored, **options: None  # the others do not validate either
    with learner.no_logging():
        learner.fit(epochs)


def lightning(epochs, measured=False):
    import lightning as L

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = mlp()
            self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=10)

        def training_step(self, batch, index):
            x, y = batch
            outputs = self.net(x)
            loss = CRITERION(outputs, y)
            if measured:
                self.accuracy.update(outputs, y)
                self.log("loss", loss, on_step=False, on_epoch=True)
                self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
            return loss

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    L.Trainer(max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
              enable_model_summary=False, num_sanity_val_steps=0).fit(Module(), parts()[2])


def with_measures(loop):
    return lambda epochs: loop(epochs, measured=True)


LOOPS = {"Trainer": ours, "Trainer with its bar": ours_with_bar, "Trainer, TensorLoader, fused": ours_in_memory,
         "Ignite, nothing on": ignite, "Ignite, loss and accuracy": with_measures(ignite),
         "Fabric, nothing on": fabric, "Fabric, loss and accuracy": with_measures(fabric),
         "Accelerate, nothing on": accelerate, "Accelerate, loss and accuracy": with_measures(accelerate),
         "HF Trainer, nothing on": hf, "fastai, no bar": fastai,
         "Lightning, everything off": lightning, "Lightning, loss and accuracy": with_measures(lightning)}


def slope(loop, few=4, many=34):
    """CPU seconds of an epoch, set-up left out."""
    times = []
    for epochs in (few, many):
        start = time.process_time()
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            loop(epochs)
        times.append(time.process_time() - start)
    return (times[1] - times[0]) / (many - few)


def main(rounds):
    ratios = {name: [] for name in LOOPS}
    for name in LOOPS:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            LOOPS[name](1)  # imports and caches
    bare(1)
    micros = []
    for _ in range(rounds):
        before = slope(bare)
        for name, loop in LOOPS.items():
            measured, after = slope(loop), slope(bare)  # the bare loop on both sides: the machine's speed drifts
            ratios[name].append(2 * measured / (before + after))
            before = after
        micros.append(before / 22 * 1e6)
    print(json.dumps({"ratios": ratios, "bare": micros}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
