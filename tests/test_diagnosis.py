"""Faults of a run: named when they are there, silent when they are not; watching and profiling change nothing."""
import math

import pytest
import torch
from torch import nn

from nnlearn.core import ConfigError, generator, seed_everything
from nnlearn.datasets import digits
from nnlearn.diagnosis import correlation_ratio, diagnose, neighbour_agreement
from nnlearn.explain import REMEDIES
from nnlearn.findings import RULES, find_faults
from nnlearn.layer_statistics import LayerStatistics
from nnlearn.loaders import TensorLoader
from nnlearn.records import read_record
from nnlearn.step_profile import StepProfile, profile_step
from nnlearn.tables import tabular
from nnlearn.trainer import NonFiniteLoss, Trainer

DATA = digits()
X, Y, TX, TY = DATA.train_x.flatten(1), DATA.train_y, DATA.test_x.flatten(1), DATA.test_y


def net(*widths, activation=nn.ReLU):
    layers = []
    for fan_in, fan_out in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def small():
    return net(64, 32, 32, 10)


class Functional(nn.Module):
    """Functions between layers, a shared layer, a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 32), nn.Linear(32, 32)
        self.scale, self.out = nn.Parameter(torch.ones(32)), nn.Linear(32, 10)

    def forward(self, x):
        h = torch.relu(self.first(x))
        h = nn.functional.relu(self.second(h)) * self.scale
        return self.out(torch.relu(self.second(h)))


def sgd(rate, **options):
    return lambda model: torch.optim.SGD(model.parameters(), lr=rate, **options)


def adam(rate):
    return lambda model: torch.optim.Adam(model.parameters(), lr=rate)


def fit(model, optimizer, seed=0, epochs=3, train=(X, Y), validation=(TX, TY), every=10, criterion=None, batch=64, **options):
    seed_everything(seed)
    statistics = LayerStatistics(every)
    trainer = Trainer(model, criterion or nn.CrossEntropyLoss(), optimizer(model), device="cpu", callbacks=[statistics], **options)
    try:
        trainer.fit(TensorLoader(*train, batch_size=batch, shuffle=True, seed=seed), TensorLoader(*validation, batch_size=500),
                    epochs=epochs, verbose=0)
    except NonFiniteLoss:
        pass
    return trainer, statistics


def names(found):
    return [finding.name for finding in found]


# What the looks see


def test_numbers_are_those_of_a_step_by_hand():
    seed_everything(0)
    model = small()
    copy = small()
    copy.load_state_dict(model.state_dict())
    trainer, statistics = fit(model, sgd(0.1), epochs=1)
    loader = TensorLoader(X, Y, batch_size=64, shuffle=True, seed=0)
    inputs, labels = next(iter(loader))
    outputs = [inputs]
    for layer in copy:
        outputs.append(layer(outputs[-1]))
    loss = nn.functional.cross_entropy(outputs[-1], labels)
    loss.backward()
    looks = [look for look in statistics.layers if look.step == 1]
    assert [look.layer for look in looks] == ["0", "1", "2", "3", "4"] and [look.kind for look in looks[:2]] == ["Linear", "ReLU"]
    for look, out in zip(looks, outputs[1:], strict=True):
        assert look.mean == pytest.approx(out.mean().item(), abs=1e-6)
        assert look.std == pytest.approx(out.std(correction=0).item(), abs=1e-6)
        assert look.dead == pytest.approx((out == 0).all(0).float().mean().item()) and look.rows == 64
    for look, layer in zip(looks[::2], copy[::2], strict=True):
        gradient = torch.cat([p.grad.flatten() for p in layer.parameters()]).norm().item()
        weight = torch.cat([p.detach().flatten() for p in layer.parameters()]).norm().item()
        assert look.gradient_norm == pytest.approx(gradient, rel=1e-4)
        assert look.update_ratio == pytest.approx(0.1 * gradient / weight, rel=1e-3)
    assert math.isnan(looks[1].gradient_norm) and math.isnan(looks[1].update_ratio)
    whole = torch.cat([p.grad.flatten() for p in copy.parameters()]).norm().item()
    first = statistics.steps[0]
    assert first.loss == pytest.approx(loss.item(), rel=1e-5) and first.gradient_norm == pytest.approx(whole, rel=1e-4)
    assert first.learning_rate == 0.1 and first.step == 1 and first.epoch == 0.0


def test_when_it_looks():
    _, statistics = fit(small(), sgd(0.1), epochs=2, every=10)  # 23 steps an epoch
    assert [look.step for look in statistics.steps] == [1, 11, 21, 24, 31, 41]
    assert statistics.steps[3].epoch == 1.0 and 0.4 < statistics.steps[1].epoch < 0.5
    _, every = fit(small(), sgd(0.1), epochs=1, every=1)
    assert [look.step for look in every.steps] == list(range(1, 24))
    _, windows = fit(small(), sgd(0.1), epochs=1, every=1, accumulate=4)
    assert [look.step for look in windows.steps] == list(range(1, 7))


@pytest.mark.parametrize("options", [{}, {"accumulate": 3}, {"use_amp": True}, {"clip_norm": 0.1}])
def test_a_watched_run_ends_with_the_same_bits(options):
    def run(watched):
        seed_everything(3)
        model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.4), nn.Linear(32, 10))
        trainer = Trainer(model, nn.CrossEntropyLoss(), adam(0.01)(model), device="cpu",
                          callbacks=[LayerStatistics(2)] if watched else [], **options)
        trainer.fit(TensorLoader(X, Y, batch_size=50, shuffle=True, seed=1), epochs=2, verbose=0)
        return model.state_dict(), trainer.history["loss"]
    (plain, losses), (watched, same) = run(False), run(True)
    assert losses == same and all(torch.equal(plain[name], watched[name]) for name in plain)


def test_functions_shared_layers_and_parameters_of_their_own_are_seen():
    _, statistics = fit(Functional(), adam(1e-3), epochs=1)
    seen = {look.layer: look for look in statistics.last()}
    assert list(seen)[:6] == ["first", "relu()", "second", "relu() #2", "second #2", "relu() #3"] and seen["relu()"].kind == "relu"
    assert seen["model"].update_ratio > 0 and seen["out"].gradient_norm > 0  # the scale belongs to the model itself
    total = math.hypot(*(look.gradient_norm for look in seen.values() if not math.isnan(look.gradient_norm)))
    assert total == pytest.approx(statistics.steps[-1].gradient_norm, rel=1e-5)


def test_a_compiled_model_is_seen_under_its_own_names():
    model = torch.compile(small(), backend="eager")
    _, statistics = fit(model, adam(1e-3), epochs=1)
    seen = {look.layer: look for look in statistics.last()}
    assert list(seen) == ["0", "1", "2", "3", "4"] and seen["0"].gradient_norm > 0


def test_units_are_channels_of_convolutions_and_features_elsewhere():
    conv = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    with torch.no_grad():
        conv[1].weight[0], conv[1].bias[0] = 0.0, -1.0
        conv[1].weight[1:], conv[1].bias[1:] = conv[1].weight[1:].abs(), 0.0
    _, statistics = fit(conv, sgd(1e-6), epochs=1)
    assert {look.dead for look in statistics.layers if look.kind == "ReLU"} == {0.25}

    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside, self.out = nn.Linear(8, 4), nn.Linear(4, 10)
            nn.init.ones_(self.inside.weight)
            self.inside.bias.data = torch.tensor([-1e3, -1e3, -1e3, 1.0])

        def forward(self, x):
            return self.out(self.inside(x.view(-1, 8, 8)).relu().mean(1))

    _, statistics = fit(Sequence(), sgd(1e-6), epochs=1)
    assert {look.dead for look in statistics.layers if look.kind == "relu"} == {0.75}


def test_dead_units_are_counted_over_the_looks_of_an_epoch():
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model[0].bias.zero_()
    rows = torch.cat([torch.ones(32, 1), -torch.ones(64, 1)])  # the first batch wakes one unit, the others the second
    statistics = LayerStatistics(1)
    trainer = Trainer(model, nn.MSELoss(), sgd(0.0)(model), device="cpu", callbacks=[statistics])
    trainer.fit(TensorLoader(rows, rows, batch_size=32), epochs=2, verbose=0)
    assert [(look.dead, look.rows) for look in statistics.layers if look.kind == "ReLU"] == [(0.5, 32), (0.0, 64), (0.0, 96)] * 2


def test_parameters_that_never_move_and_why():
    model = small()
    _, statistics = fit(model, lambda model: torch.optim.SGD(model[2:].parameters(), lr=0.1))
    assert statistics.unmoved == {"0.weight": "it has a gradient, and no step uses it", "0.bias": "it has a gradient, and no step uses it"}
    model = small()
    nn.Module.register_parameter(model, "unused", nn.Parameter(torch.ones(3)))
    _, statistics = fit(model, sgd(0.1))
    assert statistics.unmoved == {"unused": "it gets no gradient"}
    model = small()
    model[0].requires_grad_(False)  # frozen on purpose
    _, statistics = fit(model, sgd(0.1))
    assert statistics.unmoved == {}


def test_a_bias_before_a_norm_a_warmup_from_zero_and_a_head_of_zeros_are_no_faults():
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
    nn.init.constant_(model[0].bias, 100.0)  # its gradient is a rounding error, and lost beside it
    _, statistics = fit(model, sgd(0.1), epochs=1)
    assert statistics.unmoved == {}
    _, statistics = fit(small(), sgd(0.0), epochs=1)  # a rate of 0 says nothing of the parameters
    assert statistics.unmoved == {}
    seed_everything(0)
    model = small()
    nn.init.zeros_(model[-1].weight)
    _, statistics = fit(model, sgd(0.1))
    assert statistics.unmoved == {}
    model = small()
    optimizer = sgd(0.1)(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 10))
    _, statistics = fit(model, lambda _: optimizer, scheduler=schedule, scheduler_interval="step")
    assert statistics.unmoved == {} and statistics.steps[0].learning_rate == 0.0 == statistics.steps[0].update_ratio


def test_a_step_that_the_scaler_leaves_out_is_no_look():
    model = small()
    _, statistics = fit(model, sgd(0.1), epochs=1, every=1, use_amp=True, amp_dtype=torch.float16)
    assert statistics.steps and all(math.isfinite(look.gradient_norm) for look in statistics.steps)


def test_inputs_of_several_tensors_by_order_and_by_name():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 10), nn.Linear(64, 10)

        def forward(self, left, right):
            return self.a(left) + self.b(right).relu()

    for batches in ([((X[:64], X[64:128]), Y[:64])], [({"right": X[:64], "left": X[64:128]}, Y[:64])]):
        model, statistics = Two(), LayerStatistics()
        Trainer(model, nn.CrossEntropyLoss(), sgd(0.1)(model), device="cpu", callbacks=[statistics]).fit(batches, verbose=0)
        assert {look.layer for look in statistics.layers} == {"a", "b", "relu()"}


def test_checkpoints_keep_what_was_seen(tmp_path):
    def run(folder, epochs, resume=False):
        seed_everything(0)
        model, statistics = small(), LayerStatistics(5)
        trainer = Trainer(model, nn.CrossEntropyLoss(), adam(0.01)(model), device="cpu", callbacks=[statistics], checkpoint_dir=folder)
        trainer.fit(TensorLoader(X, Y, batch_size=64, shuffle=True, seed=0), epochs=epochs, verbose=0, resume=resume)
        return statistics
    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "parts", 1)
    resumed = run(tmp_path / "parts", 3, resume=True)
    assert resumed.steps == whole.steps and str(resumed) == str(whole) and len(resumed.layers) == len(whole.layers)


def test_tables_files_and_pictures(tmp_path):
    empty = LayerStatistics()
    assert str(empty) == "LayerStatistics: no look yet"
    with pytest.raises(ConfigError, match="no steps recorded yet"):
        empty.to_tensorboard(tmp_path)
    _, statistics = fit(small(), sgd(0.1), epochs=1)
    lines = str(statistics).splitlines()
    assert lines[0].split() == ["layer", "kind", "mean", "std", "dead", "gradient", "norm", "update", "ratio"] and len(lines) == 6
    statistics.to_csv(tmp_path / "looks.csv")
    text = (tmp_path / "looks.csv").read_text().splitlines()
    assert text[0].startswith("step,epoch,layer,kind") and len(text) == 1 + len(statistics.layers)
    statistics.to_tensorboard(tmp_path / "events")
    record = read_record(tmp_path / "events")
    for name, field in (("loss", "loss"), ("grad_norm", "gradient_norm"), ("lr", "learning_rate")):
        assert record[name].values == pytest.approx([getattr(look, field) for look in statistics.steps])
    for field in ("update_ratio", "gradient_norm", "dead", "mean", "std"):
        ax = statistics.plot(field)
        assert len(ax.lines) == (3 if field in ("update_ratio", "gradient_norm") else 5)
    with pytest.raises(ConfigError, match="update_ratio"):
        statistics.plot("update_ration")
    with pytest.raises(ConfigError, match="LayerStatistics.every"):
        LayerStatistics(0)


# What is found


def biased(value):
    def make():
        model = small()
        for layer in (model[0], model[2]):
            nn.init.constant_(layer.bias, value)
        return model
    return make


def gained():
    model = net(*[64] * 11, 10)
    for layer in model[::2]:
        nn.init.normal_(layer.weight, std=3 / math.sqrt(layer.in_features))
    return model


FEW, HALF = (X[:100], Y[:100]), len(TX) // 2
SHUFFLED = Y[torch.randperm(len(Y), generator=generator(1))]
FAULTS = {
    "learning rate too high": dict(optimizer=sgd(5.0)),
    "learning rate too low": dict(optimizer=adam(1e-6)),
    "dead units": dict(make=biased(-2.0)),
    "overfitting": dict(train=FEW, epochs=150),
    "exploding gradients": dict(make=gained, optimizer=sgd(0.01)),
    "vanishing gradients": dict(make=lambda: net(*[64] * 6, 10, activation=nn.Sigmoid), optimizer=sgd(0.1)),
    "labels do not follow the inputs": dict(train=(X, SHUFFLED)),
    "rows in both parts": dict(train=(torch.cat([X, TX[:HALF]]), torch.cat([Y, TY[:HALF]]))),
    "a feature gives the answer away": dict(make=lambda: net(65, 32, 10), train=(torch.cat([X, Y[:, None].float()], 1), Y),
                                            validation=(torch.cat([TX, TY[:, None].float()], 1), TY)),
    "constant predictions": dict(make=lambda: net(*[64] * 6, 10, activation=nn.Sigmoid), optimizer=sgd(0.1)),
    "parameters that never move": dict(optimizer=lambda model: torch.optim.Adam(model[:-1].parameters(), lr=3e-3)),
}


def diagnosed(seed, make=small, optimizer=adam(3e-3), train=(X, Y), validation=(TX, TY), epochs=6):  # noqa: B008
    seed_everything(seed)
    trainer, statistics = fit(make(), optimizer, seed, epochs, train, validation, metrics=["accuracy"])
    return diagnose(trainer.history, statistics, train, validation, trainer.predict([validation]))


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_with_evidence_and_remedies(fault):
    found = [diagnosed(seed, **FAULTS[fault]) for seed in range(4)]
    assert sum(fault in names(one) for one in found) >= 3
    finding = next(finding for one in found for finding in one if finding.name == fault)
    assert finding.remedies == REMEDIES[fault] and any(digit.isdigit() for digit in finding.evidence)


@pytest.mark.parametrize("make, optimizer", [(small, sgd(0.1, momentum=0.9)), (small, adam(3e-3)), (Functional, adam(3e-3)),
                                             (lambda: nn.Sequential(nn.BatchNorm1d(64), small()), sgd(0.1))])
def test_healthy_runs_are_left_alone(make, optimizer):
    assert sum(len(diagnosed(seed, make, optimizer)) for seed in range(4)) <= 1


def test_the_earliest_sign_comes_first_and_a_cause_replaces_a_suspicion():
    found = [diagnosed(seed, **FAULTS["learning rate too high"]) for seed in range(4)]
    assert sum(names(one)[0] == "learning rate too high" and "dead units" in names(one) for one in found) >= 3
    assert not any("hardly learning" in names(one) for one in found)
    low = diagnosed(0, **FAULTS["learning rate too low"])
    assert "learning rate too low" in names(low) and "hardly learning" not in names(low)


def test_units_that_come_back_are_not_dead():
    for last, expected in ((0.1, []), (0.9, ["dead units"])):
        statistics = LayerStatistics()
        statistics.seen = {"layers": [[1, 0.5, "1", "ReLU", 0.1, 0.1, 0.9, 64, math.nan, math.nan],
                                      [24, 1.5, "1", "ReLU", 0.1, 0.1, last, 64, math.nan, math.nan]],
                           "steps": [[1, 0.5, 2.3, 1.0, 10.0, 1e-3, 0.1], [24, 1.5, 1.5, 1.0, 10.0, 1e-3, 0.1]], "unmoved": None}
        assert names(diagnose({"epoch": [1, 2], "loss": [2.3, 1.5]}, statistics)) == expected


def by_hand(loss, gradient, weights, ratio, dead=0.0):
    """Two looks, made up."""
    statistics = LayerStatistics()
    statistics.seen = {"layers": [[step, step / 20, "1", "ReLU", 0.1, 0.1, dead, 64, math.nan, math.nan] for step in (1, 21)],
                       "steps": [[step, step / 20, loss, gradient, weights, ratio, 0.1] for step in (1, 21)], "unmoved": None}
    return names(diagnose({"epoch": [1, 2], "loss": [loss, loss]}, statistics))


def test_a_large_loss_has_large_gradients_in_health_and_dead_units_explain_short_steps():
    assert by_hand(loss=1e6, gradient=500.0, weights=10.0, ratio=0.01) == []
    assert by_hand(loss=2.3, gradient=500.0, weights=10.0, ratio=0.01) == ["exploding gradients"]
    assert by_hand(loss=2.3, gradient=0.1, weights=10.0, ratio=1e-6) == ["learning rate too low"]
    assert by_hand(loss=2.3, gradient=0.1, weights=10.0, ratio=1e-6, dead=0.9) == ["dead units"]


def test_without_the_net_or_the_data_less_is_said_and_that_is_said():
    trainer, statistics = fit(small(), adam(1e-6), epochs=5, metrics=["accuracy"])
    alone, watched = diagnose(trainer.history), diagnose(trainer.history, statistics)
    assert "hardly learning" in names(alone) and names(watched)[0] == "learning rate too low"
    assert any("needs the net" in gap for gap in alone.unknown) and any("needs the data" in gap for gap in alone.unknown)
    assert not any("needs the net" in gap for gap in watched.unknown)
    everything = diagnose(trainer.history, statistics, (X, Y), (TX, TY))
    assert everything.unknown == [] and "cannot say" not in str(everything) and "cannot say" in str(alone)


def test_a_run_that_broke_off_in_its_first_epoch_is_read_from_the_looks():
    seed_everything(0)
    trainer, statistics = fit(gained(), sgd(0.01))
    assert len(trainer.history) == 0
    found = diagnose(trainer.history, statistics)
    assert names(found)[0] == "exploding gradients" and found.record.source == "what LayerStatistics saw"
    with pytest.raises(ConfigError, match="no epoch in it"):
        diagnose(trainer.history)


def test_what_does_not_fit_is_refused():
    columns = {"loss": [1.0, 0.5, 0.4, 0.3]}
    with pytest.raises(ConfigError, match=r"diagnose.train: expected \(inputs, targets\), got Tensor"):
        diagnose(columns, train=X)
    with pytest.raises(ConfigError, match="diagnose.statistics: expected LayerStatistics, got History"):
        diagnose(columns, statistics=fit(small(), sgd(0.1), epochs=1)[0].history)
    with pytest.raises(ConfigError, match="as many targets as inputs"):
        diagnose(columns, train=(X, Y[:-1]))
    maps = torch.randint(0, 3, (20, 8, 8), generator=generator(0))  # a label for each pixel: these rules have nothing to say
    assert diagnose(columns, train=(torch.randn(20, 1, 8, 8, generator=generator(1)), maps)) == []
    with pytest.raises(ConfigError, match="cannot be compared"):
        diagnose(columns, train=(X, Y), validation=(TX[:, :3], TY))


def test_explanations_and_findings_share_their_words():
    columns = {"loss": [2.0, math.nan, math.nan, math.nan]}
    remedies = find_faults(columns)[0].remedies
    spoiled = X.clone()
    spoiled[3] = math.inf
    model = small()
    with pytest.raises(NonFiniteLoss) as caught:
        Trainer(model, nn.CrossEntropyLoss(), sgd(0.1)(model), device="cpu").fit(TensorLoader(spoiled, Y, batch_size=64), verbose=0)
    assert remedies == REMEDIES["not finite"] and all(remedy in str(caught.value) for remedy in remedies[1:])
    assert len(RULES) == len({rule.__name__ for rule in RULES})


# What the rows say


def test_agreement_is_one_for_twins_and_zero_for_chance():
    rng = generator(0)
    x = torch.randn(400, 5, generator=rng)
    twins, labels = torch.cat([x, x + 1e-6]), torch.randint(0, 4, (400,), generator=rng)
    assert neighbour_agreement(twins, torch.cat([labels, labels]), neighbours=1) == 1.0
    assert abs(neighbour_agreement(x, labels)) < 0.25
    assert neighbour_agreement(x, x[:, 0]) > 0.4 and neighbour_agreement(x, x[:, :1]) > 0.4  # numbers as targets
    assert abs(neighbour_agreement(x, torch.randn(400, generator=rng))) < 0.35
    scaled = torch.cat([x[:, :1] * 1e-6, torch.randn(400, 1, generator=rng) * 1e6], 1)  # features count alike, whatever their units
    assert neighbour_agreement(scaled, (x[:, 0] > 0).long()) > 0.3
    assert math.isnan(neighbour_agreement(x, torch.ones(400, dtype=torch.int64)))
    holes = x.clone()
    holes[::7, 2] = math.nan
    assert neighbour_agreement(holes, (x[:, 0] > 0).long()) > 0.2
    images = torch.randn(2500, 3, 4, 4, generator=rng)
    assert -0.2 < neighbour_agreement(images, torch.randint(0, 2, (2500,), generator=rng), sample=200) < 0.2
    bools = neighbour_agreement(twins, torch.cat([labels, labels]) > 1, neighbours=1)
    assert bools == 1.0


def test_eta_squared_is_the_share_of_the_variance_between_classes():
    rng = generator(0)
    labels = torch.randint(0, 3, (600,), generator=rng)
    x = torch.randn(600, 4, generator=rng) + 2.0 * labels[:, None] * torch.tensor([0.0, 1.0, 5.0, 0.0])
    x[:, 3] = 7.0
    ratio = correlation_ratio(x, labels)
    for feature in range(3):
        column = x[:, feature].double()
        between = sum((labels == c).sum() * (column[labels == c].mean() - column.mean()) ** 2 for c in range(3))
        assert ratio[feature].item() == pytest.approx((between / (column - column.mean()).square().sum()).item(), abs=1e-5)
    assert ratio[3] == 0
    target = 3 * x[:, 1] + torch.randn(600, generator=rng)
    r = torch.corrcoef(torch.stack([x[:, 1], target]))[0, 1].item()
    assert correlation_ratio(x, target)[1].item() == pytest.approx(r**2, abs=1e-4)
    with pytest.raises(ConfigError, match="a label for each row"):
        correlation_ratio(torch.zeros(4, 2), torch.zeros(4, 3, dtype=torch.int64))


def test_labels_that_were_learned_do_follow_and_hard_ones_are_told_apart():
    rng = generator(0)
    x = torch.randn(1500, 20, generator=rng)
    hard = (x[:, 0] + 2 * torch.randn(1500, generator=rng) > 0).long()  # neighbours in 20 dimensions tell little
    columns = {"loss": [0.69, 0.66, 0.6, 0.55], "val_accuracy": [0.5, 0.52, 0.49, 0.51]}
    parts = (x[:1200], hard[:1200]), (x[1200:], hard[1200:])
    assert diagnose(columns, None, *parts) == []
    chance = torch.randint(0, 2, (1500,), generator=rng)
    parts = (x[:1200], chance[:1200]), (x[1200:], chance[1200:])
    assert names(diagnose(columns, None, *parts)) == ["labels do not follow the inputs"]
    known = torch.nn.functional.one_hot(parts[1][1], 2).float()
    assert diagnose(columns, None, *parts, outputs=known) == []  # who can tell them has shown that they follow
    columns["val_accuracy"][2] = 0.9
    assert diagnose(columns, None, *parts) == []


def test_constant_outputs_and_when_they_are_right():
    columns = {"loss": [1.0, 0.9, 0.8, 0.7]}
    same = torch.zeros(300, 4)
    same[:, 2] = 1
    mixed = torch.eye(4).repeat(75, 1)
    assert names(diagnose(columns, outputs=same)) == ["constant predictions"] and diagnose(columns, outputs=mixed) == []
    one_logit = torch.full((300, 1), -2.0)
    assert names(diagnose(columns, outputs=one_logit)) == ["constant predictions"]
    rare = torch.zeros(300, dtype=torch.int64)
    rare[:3] = 1
    assert diagnose(columns, validation=(torch.randn(300, 2, generator=generator(0)), rare), outputs=one_logit) == []
    numbers = (torch.randn(300, 2, generator=generator(0)), torch.randn(300, 1, generator=generator(1)))
    assert diagnose(columns, validation=numbers, outputs=torch.zeros(300, 1)) == []  # a regression


def test_tables_of_rows_are_taken(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b,y\n" + "\n".join(f"{i % 7},{i * i % 11},{'yes' if i % 2 else 'no'}" for i in range(40)))
    table = tabular(path, ["a", "b"], "y")
    assert isinstance(names(diagnose({"loss": [1.0, 0.9, 0.8, 0.7]}, train=table)), list)


# Where the time goes


def test_profiling_changes_nothing_and_adds_up():
    seed_everything(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10))
    optimizer = adam(0.01)(model)
    statistics = LayerStatistics()
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, device="cpu", metrics=["accuracy"], callbacks=[statistics],
                      scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 1))
    loader = TensorLoader(X, Y, batch_size=64, shuffle=True, seed=0)
    trainer.fit(loader, epochs=1, verbose=0)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    moments = [value.clone() for of_one in optimizer.state.values() for value in of_one.values()]
    looks, history, step, rate = len(statistics.steps), list(trainer.history.rows), trainer.step, optimizer.param_groups[0]["lr"]
    random = torch.get_rng_state()
    profile = profile_step(trainer, loader, steps=6)
    assert isinstance(profile, StepProfile)
    assert profile.steps == 6
    assert set(profile.parts) == {"data", "forward", "backward", "optimizer", "rest"}
    assert sum(profile.share(part) for part in profile.parts) == pytest.approx(1.0) and profile.seconds > 0
    assert len(profile.operators) == 5 and all(0 < share <= 1 for _, share in profile.operators) and "inside torch" in str(profile)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    after = [value for of_one in optimizer.state.values() for value in of_one.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, after, strict=True)) and torch.equal(random, torch.get_rng_state())
    assert (looks, history, step, rate) == (len(statistics.steps), trainer.history.rows, trainer.step, optimizer.param_groups[0]["lr"])
    continued = trainer.fit(loader, epochs=1, verbose=0)["loss"][-1]
    again = fit_again()
    assert continued == again


def fit_again():
    seed_everything(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10))
    optimizer = adam(0.01)(model)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, device="cpu", metrics=["accuracy"],
                      scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 1))
    loader = TensorLoader(X, Y, batch_size=64, shuffle=True, seed=0)
    trainer.fit(loader, epochs=1, verbose=0)
    return trainer.fit(loader, epochs=1, verbose=0)["loss"][-1]


def test_the_profile_finds_what_is_slow():
    import time

    class Slow:
        def __init__(self, seconds):
            self.seconds = seconds

        def __iter__(self):
            for i in range(3):
                time.sleep(self.seconds)
                yield X[64 * i:64 * (i + 1)], Y[64 * i:64 * (i + 1)]

    model = small()
    trainer = Trainer(model, nn.CrossEntropyLoss(), sgd(0.1)(model), device="cpu")
    slow = profile_step(trainer, Slow(0.03), steps=4, operators=0)
    assert slow.share("data") > 0.5 and names(slow.findings()) == ["waiting for data"] and slow.operators == []

    class Sleepy(nn.Module):
        def __init__(self, inside):
            super().__init__()
            self.inside = inside

        def forward(self, x):
            time.sleep(0.03)
            return self.inside(x)

    model = Sleepy(small())
    for accumulate in (1, 2):
        trainer = Trainer(model, nn.CrossEntropyLoss(), sgd(0.1)(model), device="cpu", accumulate=accumulate)
        profile = profile_step(trainer, TensorLoader(X, Y, batch_size=64), steps=4, operators=0)
        assert profile.share("forward") > 0.5 and profile.findings() == [] and profile.parts["forward"] > 0.025 * accumulate
    with pytest.raises(ConfigError, match="no part 'forwards'"):
        profile.share("forwards")


def test_what_cannot_be_profiled_is_refused():
    model = small()
    trainer = Trainer(model, nn.CrossEntropyLoss(), sgd(0.1)(model), device="cpu")
    with pytest.raises(ConfigError, match="got an iterator"):
        profile_step(trainer, iter([(X[:4], Y[:4])]))
    with pytest.raises(ConfigError, match="no batches|empty"):
        profile_step(trainer, [])
    with pytest.raises(ConfigError, match="profile_step.steps"):
        profile_step(trainer, [(X[:4], Y[:4])], steps=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match="takes 64 numbers"):
        profile_step(trainer, [(X[:4], Y[:4]), (X[:4, :3], Y[:4])], steps=4)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
