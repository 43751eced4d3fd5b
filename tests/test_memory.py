"""Bills against measurement, layers that forget without a trace, and what is refused."""
import copy
import io

import pytest
import torch
from torch import nn

from nnlearn.core import ConfigError, seed_everything
from nnlearn.memory import MemoryBill, checkpoint_layers, measure_memory, memory_bill, saved_for_backward
from nnlearn.models import UNet
from nnlearn.trainer import Trainer


def blocks(count=4, width=64, activation=nn.GELU):
    return nn.Sequential(*(nn.Sequential(nn.Linear(width, 2 * width), activation(), nn.Linear(2 * width, width), activation())
                           for _ in range(count)))


def cnn():
    return nn.Sequential(nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
                         nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
                         nn.Flatten(), nn.Linear(32 * 14 * 14, 10))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(100, 64), nn.Linear(64, 10)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, dropout=0.1) for _ in range(2))

    def forward(self, tokens):
        h = self.embed(tokens)
        for block in self.blocks:
            h = block(h)
        return self.out(h.mean(1))


class Reader(nn.Module):
    def __init__(self, kind=nn.GRU):
        super().__init__()
        self.rnn, self.out = kind(16, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


def tokens():
    return torch.randint(0, 100, (16, 32))


NETS = {"MLP": (blocks, lambda: torch.randn(256, 64)), "CNN": (cnn, lambda: torch.randn(32, 1, 28, 28)), "encoder": (Encoder, tokens),
        "GRU": (Reader, lambda: torch.randn(32, 20, 16)), "one layer": (lambda: nn.Linear(64, 10), lambda: torch.randn(8, 64))}
OPTIMIZERS = {"sgd": lambda p: torch.optim.SGD(p, lr=0.1), "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
              "adam": torch.optim.Adam, "amsgrad": lambda p: torch.optim.Adam(p, amsgrad=True), "rmsprop": torch.optim.RMSprop}


def real(net, batch, optimizer):
    """Gradients, state, kept activations and the peak of a step, measured."""
    def loss():
        out = net(batch)
        return (out[0] if isinstance(out, (list, tuple)) else out).float().mean()

    def step():
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    with saved_for_backward(net, batch) as saved:
        value = loss()
    kept = sum(saved.values())
    value.backward()
    gradients = sum(p.grad.nbytes for p in net.parameters() if p.grad is not None)
    optimizer.zero_grad()
    del value
    state = sum(t.nbytes for of_one in optimizer.state.values() for t in of_one.values() if isinstance(t, torch.Tensor))
    return gradients, state, kept, measure_memory(step).peak


@pytest.mark.parametrize("name, checkpointed", [*((name, False) for name in NETS), *((name, True) for name in ("MLP", "CNN", "encoder"))])
def test_the_bill_comes_true(name, checkpointed):
    make, batch = NETS[name]
    seed_everything(0)
    net, batch = make(), batch()
    if checkpointed:
        checkpoint_layers(net)
    optimizer = torch.optim.Adam(net.parameters())
    bill = memory_bill(net, batch, optimizer)
    gradients, state, kept, peak = real(net, batch, optimizer)
    assert bill.parameters == sum(p.nbytes for p in net.parameters()) and bill.buffers == sum(b.nbytes for b in net.buffers())
    assert (bill.gradients, bill.optimizer, bill.activations, bill.batch) == (gradients, state, kept, batch.nbytes)
    assert bill.peak == pytest.approx(bill.resident + peak, rel=0.02)
    again = memory_bill(net, batch, optimizer)  # the optimizer has a state now
    assert again == bill


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    net, batch = blocks(1), torch.randn(16, 64)
    optimizer = OPTIMIZERS[name](net.parameters())
    bill = memory_bill(net, batch, optimizer)
    _, state, _, peak = real(net, batch, optimizer)
    assert bill.optimizer == state and bill.peak == pytest.approx(bill.resident + peak, rel=0.02)


def test_what_a_kernel_takes_for_itself_is_not_in_the_bill():
    for net, batch in ((Reader(nn.LSTM), torch.randn(32, 20, 16)), (UNet(), torch.randn(16, 1, 32, 32))):
        optimizer = torch.optim.Adam(net.parameters())
        bill = memory_bill(net, batch, optimizer)
        gradients, state, _, peak = real(net, batch, optimizer)
        assert (bill.gradients, bill.optimizer) == (gradients, state) and bill.peak < bill.resident + peak


def test_nothing_is_run_or_changed():
    net = cnn()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.Adam(net.parameters())
    calls = []
    net[0].register_forward_hook(lambda *args: calls.append(type(args[2]).__name__))
    random = torch.get_rng_state()
    memory_bill(net, torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)), optimizer)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not optimizer.state and all(p.grad is None for p in net.parameters()) and torch.equal(random, torch.get_rng_state())
    assert set(calls) <= {"FakeTensor"}
    use = measure_memory(lambda: memory_bill(blocks(2, 256), torch.empty(1).expand(4096, 256), "sgd"))
    assert use.peak < 4 * 2**20 * 2  # the weights of the net itself, not the activations of 4,096 rows (48 MiB)


def test_losses_names_precision_and_models_on_the_meta_device():
    net, batch = blocks(), (torch.randn(64, 64), torch.randint(0, 64, (64,)))
    bill = memory_bill(net, batch, "adamw", nn.CrossEntropyLoss())
    assert isinstance(bill, MemoryBill) and bill.batch == 64 * 64 * 4 + 64 * 8
    half = memory_bill(net, batch, "adamw", nn.CrossEntropyLoss(), precision="bfloat16")
    assert 0.4 < half.activations / bill.activations < 0.85 and half.optimizer == bill.optimizer
    nothing = memory_bill(net, batch[0], None)
    assert nothing.optimizer == 0 < nothing.activations
    with torch.device("meta"):
        large, rows = nn.Sequential(nn.Linear(50_000, 50_000), nn.ReLU()), torch.empty(8, 50_000)
    assert memory_bill(large, rows, "adam").peak > 30e9
    frozen = blocks(2)
    frozen[0].requires_grad_(False)
    part = memory_bill(frozen, torch.randn(8, 64), "adam")
    assert part.gradients == part.parameters / 2 and part.optimizer < 2.1 * part.gradients
    scheduled = torch.optim.Adam(net.parameters(), lr=torch.tensor(0.1))
    assert memory_bill(net, batch[0], scheduled).peak > 0


def test_tables_and_pictures():
    bill = memory_bill(blocks(1), torch.randn(8, 64))
    assert [line.split()[0] for line in str(bill).splitlines()] == list(MemoryBill._fields) and "MiB" in str(bill)
    ax = bill.plot()
    assert len(ax.patches) == 6 and "peak" in ax.get_xlabel()


class Undecided(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


def test_what_cannot_be_predicted_is_refused(capfd):
    with pytest.raises(ConfigError, match="decides by values"):
        memory_bill(nn.Sequential(nn.Linear(2, 2), Undecided()), torch.randn(3, 2))
    with pytest.raises(ConfigError, match="cannot be run: .*reduction dim"):
        memory_bill(nn.Linear(3, 2), torch.randn(4, 5))
    with pytest.raises(ConfigError, match="lazy layers; run one batch first"):
        memory_bill(nn.LazyLinear(3), torch.randn(4, 5))
    with pytest.raises(ConfigError, match="memory_bill.optimizer: it holds parameters that are not the model's"):
        memory_bill(nn.Linear(3, 2), torch.randn(4, 3), torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1))
    with pytest.raises(ConfigError, match="memory_bill.precision"):
        memory_bill(nn.Linear(3, 2), torch.randn(4, 3), precision="float8")
    assert "Traceback" not in capfd.readouterr().err  # torch's own complaints about fake tensors
    with pytest.raises(ConfigError, match="CPU or a CUDA device"):
        measure_memory(lambda: None, "meta")


def test_views_of_one_storage_count_once():
    x = torch.randn(8, 8, requires_grad=True)
    with saved_for_backward(x) as saved:
        h = x.exp()
        (h @ h.T).sum()
    assert list(saved.values()) == [8 * 8 * 4]


def test_measuring_counts_what_is_held():
    held = []
    use = measure_memory(lambda: held.append(torch.ones(1000)))
    assert use.kept == 4000 <= use.peak
    use = measure_memory(lambda: torch.ones(1000) + torch.ones(1000))
    assert use.kept == 0 and use.peak in (8000, 12000)


# Layers that forget


def gradients(net, batch, seed=0):
    seed_everything(seed)
    net.zero_grad()
    out = net(batch)
    (out[0] if isinstance(out, (list, tuple)) else out).square().mean().backward()
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize("make, batch, layers", [
    (lambda: nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5), nn.GELU()) for _ in range(3))), (8, 16), None),
    (cnn, (4, 1, 28, 28), None), (UNet, (4, 1, 32, 32), ["down.0", "up.1"]),
    (lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=None), nn.Linear(4, 2)), (8, 4), nn.BatchNorm1d)])
def test_gradients_buffers_and_random_numbers_are_as_without(make, batch, layers):
    seed_everything(0)
    plain = make()
    forgetful = copy.deepcopy(plain)
    names = checkpoint_layers(forgetful, layers)
    assert names and list(forgetful.state_dict()) == list(plain.state_dict())
    batch = torch.randn(batch)
    for seed in range(3):
        ours, theirs = gradients(plain, batch, seed), gradients(forgetful, batch, seed)
        assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(ours, theirs, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), forgetful.buffers(), strict=True))


def test_encoders_train_alike_and_under_a_trainer():
    def run(checkpointed):
        seed_everything(0)
        net = Encoder()
        if checkpointed:
            assert checkpoint_layers(net) == ["blocks.0", "blocks.1"]
        trainer = Trainer(net, nn.CrossEntropyLoss(), torch.optim.Adam(net.parameters(), lr=1e-3), device="cpu")
        trainer.fit([(tokens(), torch.randint(0, 10, (16,))) for _ in range(4)], epochs=2, verbose=0)
        return trainer.history["loss"]
    assert run(True) == pytest.approx(run(False), rel=1e-5)


def test_a_checkpointed_model_is_copied_pickled_and_evaluated():
    net = blocks(2)
    checkpoint_layers(net)
    checkpoint_layers(net)  # twice is once
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert not torch.equal(net(torch.ones(2, 64)), twin(torch.ones(2, 64)))  # a copy runs its own layers
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    assert torch.equal(net(torch.ones(2, 64)), loaded(torch.ones(2, 64)))
    with saved_for_backward(net) as saved, torch.no_grad():
        net(torch.ones(2, 64))
    assert not saved


def test_layers_that_are_not_meant_are_refused():
    net = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 1))
    for layers, message in ((["0", "0.0"], "inside of '0'"), ("00", "no layer '00'"), (nn.Conv2d, "no layer is meant"),
                            ([], "no layer is meant")):
        with pytest.raises(ConfigError, match=message):
            checkpoint_layers(net, layers)
    with pytest.raises(ConfigError, match="never called itself"):
        checkpoint_layers(UNet(), ["down"])
    with pytest.raises(ConfigError, match="no layer is meant"):
        checkpoint_layers(nn.Linear(2, 2))


def test_the_explorer_of_memory_draws_the_bill():
    from nnlearn.course import explorers

    drawn = {}

    def keep(draw, **_):
        drawn["draw"] = draw
    before, explorers.explore = explorers.explore, keep
    try:
        explorers.memory_explorer()
    finally:
        explorers.explore = before
    for segments in ("none", "3"):
        parts = [nn.Sequential(nn.Linear(64, 64), nn.GELU()) for _ in range(12)]
        net = nn.Sequential(*(nn.Sequential(*parts[i:i + 4]) for i in range(0, 12, 4))) if segments == "3" else nn.Sequential(*parts)
        if segments == "3":
            checkpoint_layers(net)
        bill = memory_bill(net, torch.randn(256, 64), torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9))
        shown = drawn["draw"](256, 64, "SGD with momentum", segments)["MiB"][1] * 2**20
        assert shown[:4] == pytest.approx([bill.parameters, bill.gradients, bill.optimizer, bill.activations], rel=0.01)
