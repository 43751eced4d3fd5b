"""Builders: every name, fused or not, kernels and scalers, Keras's numbers, states, odd inputs, configs that are wrong."""
import copy
import functools
import io
import math
import os
import pickle

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nnlearn import builders as o
from nnlearn.core import ConfigError
from nnlearn.course import explorers
from nnlearn.optimizers import no_decay_groups

NAMES = ["adadelta", "adagrad", "adam", "adamax", "adamw", "muon", "nadam", "radam", "rmsprop", "sgd"]
CLIPS = list(o.CLIPPING_KEYS)


def net(seed=0):
    """A small net with matrices, biases and a norm layer."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3))


def train(model, optimizer, steps=10, scaler=None, scheduler=None):
    """Some steps on fixed data; gives the weights as one vector."""
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    y = torch.arange(8) % 3
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        (scaler.scale(loss) if scaler else loss).backward()
        if scaler:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        if scheduler:
            scheduler.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def through_a_file(state):
    """What a state is after it was saved and loaded without trust."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# get_optimizer


def test_the_ten_names():
    shipped = {"sgd", *NAMES}
    assert shipped <= set(o.OPTIMIZERS) and set(o.DEFAULT_OPTIMIZER_PARAMS) == shipped and len(shipped) == 10


@pytest.mark.parametrize("name", NAMES)
def test_every_name_trains_and_can_be_resumed(name):
    model = net()
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    optimizer = o.get_optimizer(name, model.parameters(), {"lr": 0.01})
    assert not torch.equal(before, train(model, optimizer))
    twin = copy.deepcopy(model)
    resumed = o.get_optimizer(name, twin.parameters(), {"lr": 0.5})
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    assert torch.equal(train(model, optimizer), train(twin, resumed))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adagrad"])
def test_fused_is_the_default_where_there_is_a_kernel_and_gives_the_same(name):
    fused, plain = net(), net()
    one = o.get_optimizer(name, fused.parameters())
    two = o.get_optimizer(name, plain.parameters(), {"fused": False})
    assert one.param_groups[0]["fused"] is True and two.param_groups[0]["fused"] is False
    assert o.get_optimizer(name, net().parameters(), {"foreach": True}).param_groups[0]["fused"] in (None, False)
    torch.testing.assert_close(train(fused, one), train(plain, two), rtol=1e-4, atol=1e-6)


def test_fused_is_left_out_where_there_is_none():
    complex_weight = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    assert not o.get_optimizer("adam", [complex_weight]).param_groups[0]["fused"]
    assert not o.has_fused_kernel(torch.optim.RMSprop, "cpu", torch.float32)
    assert not o.has_fused_kernel(torch.optim.Adam, "no such device", torch.float32)
    group = {"params": [nn.Parameter(torch.zeros(1))], "foreach": True}
    assert not o.get_optimizer("adam", [group]).param_groups[0]["fused"]


def test_parameters_in_every_shape():
    model = net()
    shapes = [model.parameters(), list(model.parameters()), tuple(model.parameters()), model.named_parameters(),
              [{"params": model.parameters()}], [{"params": model[0].parameters(), "lr": 0.1}, {"params": list(model[3].parameters())}],
              [{"params": model[0].weight}], no_decay_groups(model, 0.1)]
    for params in shapes:
        assert isinstance(o.get_optimizer("ADAM", params, {"lr": 0.01}), torch.optim.Adam)
    named = o.get_optimizer("adam", model.named_parameters())
    assert named.param_groups[0]["param_names"][0] == "0.weight"
    muon = o.get_optimizer("muon", model.named_parameters())
    assert [group["param_names"] for group in muon.param_groups] == [
        ["0.weight", "3.weight"], ["0.bias", "1.weight", "1.bias", "3.bias"]]


@pytest.mark.parametrize(("params", "word"), [
    ([], "no parameters"), (iter([]), "used only once"), ([{"params": []}], "no parameters"), (net(), "model.parameters()"),
    (torch.zeros(2), "into a list"), (3, "a list of tensors"), ("weights", "a list of tensors"), ({"params": []}, "into a list"),
    ([1.0], "a tensor as entry 0, got float"), ([{"lr": 0.1}], "key `params`"), ([torch.ones(2, requires_grad=True) * 2], "computed from"),
    ([torch.zeros(2, dtype=torch.int64)], "int64"), ([{"params": [torch.zeros(1)]}, torch.zeros(1)], "a dict with the key"),
])
def test_parameters_that_cannot_be_trained(params, word):
    with pytest.raises(ConfigError, match="params.*" + word.replace("(", r"\(").replace(")", r"\)")):
        o.get_optimizer("sgd", params)


def test_parameters_that_want_no_gradient():
    model = net()
    for params in (model.state_dict().values(), model.state_dict().items(), [{"params": [torch.zeros(2)]}]):
        with pytest.raises(ConfigError, match=r"state_dict\(\) gives detached"):
            o.get_optimizer("sgd", params)
        with pytest.raises(ConfigError, match=r"params: no parameter requires a gradient"):
            o.optimizer_builder({"type": "sgd"}, 0.1, params)
    model[0].requires_grad_(False)
    assert len(o.get_optimizer("sgd", model.parameters()).param_groups[0]["params"]) == 6  # some frozen ones are fine


def test_a_parameter_given_twice():
    p = nn.Parameter(torch.zeros(4, 2))
    with pytest.raises(ConfigError, match=r"\(4, 2\) is in group 0 and again in group 1"):
        o.get_optimizer("sgd", [{"params": [p]}, {"params": [p]}])


@pytest.mark.parametrize(("name", "params", "word"), [
    ("adm", {}, "Did you mean 'adam'"), ("adam", {"lrr": 1}, "Did you mean 'lr'"), ("adam", {"learning_rate": 1}, "'lr'"),
    ("adam", {"beta_1": 0.9}, "'betas'"), ("adam", {"lr": -1.0}, "at least 0"), ("adam", {"lr": math.nan}, "expected a number"),
    ("adam", {"lr": math.inf}, "expected a number"), ("adam", {"lr": "1e-3"}, "1.0e-6"), ("adam", {"lr": True}, "expected a number"),
    ("sgd", {"nesterov": True, "momentum": 0}, "momentum"), ("adam", {"betas": (0.9, 1.0)}, "beta"),
    ("adam", {"betas": 0.9}, "optimizer 'adam'"), ("adam", [("lr", 1)], "custom_params: expected a mapping"),
    ("adam", {"fused": True, "foreach": True}, "fused"),
    ("sgd", {"momentum": "0.9"}, "'sgd'.momentum: expected a number of at least 0, got '0.9'"),
    ("sgd", {"weight_decay": None}, "'sgd'.weight_decay: expected a number of at least 0, got None"),
    ("rmsprop", {"alpha": math.nan}, "'rmsprop'.alpha: expected a number"),
    ("muon", {"ns_steps": "5"}, "'muon'.ns_steps: expected a number"),
    ("sgd", {"momentum": -1.0}, "momentum"), ("adam", {"eps": "1e-8"}, "'adam'.eps: expected a number"),
])
def test_wrong_names_and_arguments(name, params, word):
    with pytest.raises(ConfigError, match=word):
        o.get_optimizer(name, net().parameters(), params)


def test_unknown_arguments_are_answered_with_the_accepted_ones_and_their_defaults():
    for name in NAMES:
        with pytest.raises(ConfigError, match=r"lr=\d"):
            o.get_optimizer(name, net().parameters(), {"no_such_argument": 1})


def test_wrong_rate_in_a_group():
    with pytest.raises(ConfigError, match="lr: expected a number of at least 0"):
        o.get_optimizer("sgd", [{"params": [nn.Parameter(torch.zeros(1))], "lr": -1.0}])


# Muon for a whole net


def test_muon_equals_its_two_parts():
    ours, theirs = net(), net()
    one = o.get_optimizer("muon", ours.parameters(), {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "betas": (0.8, 0.99)})
    matrices = [p for p in theirs.parameters() if p.ndim == 2]
    rest = [p for p in theirs.parameters() if p.ndim != 2]
    parts = [torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"),
             torch.optim.AdamW(rest, lr=0.02, weight_decay=0.1, betas=(0.8, 0.99), fused=True)]

    class Both:
        def zero_grad(self):
            [part.zero_grad() for part in parts]

        def step(self):
            [part.step() for part in parts]

    assert torch.equal(train(ours, one), train(theirs, Both()))


def test_muon_with_schedulers_scalers_copies_and_groups():
    model = net()
    optimizer = o.get_optimizer("muon", model.parameters(), {"lr": 0.1})
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    train(model, optimizer, 4, torch.amp.GradScaler("cpu", init_scale=8.0), scheduler)
    assert [group["lr"] for group in optimizer.param_groups] == [0.025, 0.025]
    twin = copy.deepcopy((model, optimizer))
    assert torch.equal(train(model, optimizer), train(*twin))
    optimizer.add_param_group({"params": nn.Linear(2, 2).parameters(), "lr": 1.0})
    assert [group["rule"] for group in optimizer.param_groups] == ["muon", "adamw"] * 2
    only_biases = o.get_optimizer("muon", [nn.Parameter(torch.zeros(3))])
    assert [group["rule"] for group in only_biases.param_groups] == ["adamw"]


def test_muon_with_a_closure_and_missing_gradients():
    p, q = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = o.get_optimizer("muon", [p, q])

    def closure():
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert not torch.equal(p, torch.ones(2, 2)) and torch.equal(q, torch.ones(2, 2))


# optimizer_builder


def keras_weights(config, rates, gradients, start):
    import keras
    w = keras.Variable(start)
    optimizer = o.optimizer_builder(config, float(rates[0]), framework="keras")
    for rate, gradient in zip(rates, gradients):
        optimizer.learning_rate = float(rate)
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [w])
    return keras.ops.convert_to_numpy(w)


def torch_weights(config, rates, gradients, start):
    w = nn.Parameter(torch.tensor(start))
    optimizer = o.optimizer_builder(config, lambda step: rates[step], [w])
    for gradient in gradients:
        w.grad = torch.tensor(gradient)
        optimizer.step()
    return w.detach().numpy()


KERAS = [{"type": "adam"}, {"type": "adam", "amsgrad": True, "epsilon": 0.1}, {"type": "adam", "beta_2": 0.9, "weight_decay": 0.2},
         {"type": "adamw"}, {"type": "adamw", "weight_decay": 0.3, "amsgrad": True}, {"type": "adamw", "beta_1": 0.5, "epsilon": 0.01},
         {"type": "rmsprop"}, {"type": "rmsprop", "centered": True, "epsilon": 0.1, "rho": 0.7},
         {"type": "rmsprop", "momentum": 0.9, "weight_decay": 0.1}, {"type": "adadelta"},
         {"type": "adadelta", "rho": 0.99, "epsilon": 0.01},
         {"type": "adadelta", "weight_decay": 0.2}, {"type": "adagrad"}, {"type": "adagrad", "epsilon": 0.1, "weight_decay": 0.1},
         {"type": "adagrad", "initial_accumulator_value": 1.0}, {"type": "adamax"}, {"type": "adamax", "beta_1": 0.5, "epsilon": 0.1},
         {"type": "adamax", "beta_2": 0.8, "weight_decay": 0.2}, {"type": "nadam"}, {"type": "nadam", "beta_1": 0.6, "beta_2": 0.9},
         {"type": "nadam", "epsilon": 0.1, "weight_decay": 0.1}, {"type": "sgd"}, {"type": "sgd", "weight_decay": 0.1}]


@pytest.mark.parametrize("config", KERAS, ids=str)
def test_builder_follows_keras_with_a_changing_rate(config):
    generator = np.random.default_rng(0)
    start, gradients = generator.normal(size=(2, 3)).astype("float32"), generator.normal(size=(40, 2, 3)).astype("float32")
    rates = np.linspace(0.02, 0.001, 40).astype("float32")
    ours, theirs = (f(config, rates, gradients, start) for f in (torch_weights, keras_weights))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-6)


@pytest.mark.parametrize("config", [{"type": "sgd", "momentum": 0.9}, {"type": "sgd", "momentum": 0.3, "weight_decay": 0.1},
                                    {"type": "sgd", "momentum": 0.5, "nesterov": True, "weight_decay": 0.1}], ids=str)
def test_builder_follows_keras_momentum_at_a_constant_rate(config):
    generator = np.random.default_rng(1)
    start, gradients = generator.normal(size=4).astype("float32"), generator.normal(size=(40, 4)).astype("float32")
    ours, theirs = (f(config, np.full(40, 0.01, "float32"), gradients, start) for f in (torch_weights, keras_weights))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-6)


@pytest.mark.parametrize("key", CLIPS)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("unscale_first", [False, True])
def test_the_norm_of_the_update(key, fused, scaled, unscale_first):
    """SGD at rate 1 moves by the gradient: (30, 40) and (0.3, 0), clipped at 2."""
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizer = o.optimizer_builder({"type": "sgd", key: 2.0, "fused": fused}, 1.0, [a, b])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
    scaler.scale((a * torch.tensor([30.0, 40.0])).sum() + (b * torch.tensor([0.3, 0.0])).sum()).backward()
    if unscale_first:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    factor = 2.0 / math.hypot(50.0, 0.3)
    expected = {"gradient_clipping_by_value": ([2.0, 2.0], [0.3, 0.0]), "gradient_clipping_by_norm_local": ([1.2, 1.6], [0.3, 0.0]),
                "gradient_clipping_by_norm": ([30 * factor, 40 * factor], [0.3 * factor, 0.0])}[key]
    for w, numbers in zip((a, b), expected):
        torch.testing.assert_close(-w.detach(), torch.tensor(numbers), rtol=1e-5, atol=1e-6)
    assert optimizer.clips == key


@pytest.mark.parametrize("fused", [False, True])
def test_adam_under_a_scaler_equals_the_plain_loop(fused):
    config = {"type": "adam", "gradient_clipping_by_norm": 0.1, "fused": fused, "weight_decay": 0.1}
    one, two = net(), net()
    plain = train(one, o.optimizer_builder(config, lambda step: 0.1 / (step + 1), one.parameters()))
    scaled = train(two, o.optimizer_builder(config, lambda step: 0.1 / (step + 1), two.parameters()),
                   scaler=torch.amp.GradScaler("cpu", init_scale=256.0))
    torch.testing.assert_close(plain, scaled, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_does_not_count(fused):
    w = nn.Parameter(torch.ones(2))
    optimizer = o.optimizer_builder({"type": "sgd", "fused": fused, "weight_decay": 0.5, "gradient_clipping_by_value": 1.0},
                                    lambda step: 0.1 * (step + 1), [w])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for gradient in (1.0, math.inf, 1.0):
        optimizer.zero_grad()
        scaler.scale((w * gradient).sum()).backward()
        before = w.detach().clone()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(before, w) == (gradient == math.inf)
    assert optimizer.param_groups[0]["step_count"] == 2 and math.isclose(optimizer.param_groups[0]["lr"], 0.2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=5), st.floats(1e-3, 1e3), st.sampled_from(CLIPS))
def test_clipping_bounds_and_keeps_what_is_small(values, threshold, key):
    w = nn.Parameter(torch.zeros(len(values)))
    optimizer = o.optimizer_builder({"type": "sgd", key: threshold}, 1.0, [w])
    w.grad = torch.tensor(values)
    optimizer.step()
    size = w.detach().abs().max() if key == "gradient_clipping_by_value" else w.detach().norm()
    assert size <= threshold * 1.0001
    before = torch.tensor(values)
    if (before.abs().max() if key == "gradient_clipping_by_value" else before.norm()) <= threshold:
        assert torch.equal(-w.detach(), before)


def test_clipping_with_closures_half_precision_zeros_and_none():
    for call in (lambda opt, c: opt.step(c), lambda opt, c: opt.step(closure=c)):
        w = nn.Parameter(torch.zeros(2))
        optimizer = o.optimizer_builder({"type": "sgd", "gradient_clipping_by_norm": 0.5}, 1.0, [w])

        def closure(w=w):
            loss = (w * torch.tensor([3.0, 4.0])).sum()
            loss.backward()
            return loss

        assert call(optimizer, closure).item() == 0.0
        torch.testing.assert_close(-w.detach(), torch.tensor([0.3, 0.4]))
    half = nn.Parameter(torch.zeros(2, dtype=torch.float16))
    optimizer = o.optimizer_builder({"type": "sgd", "gradient_clipping_by_norm": 1.0, "fused": False}, 1.0, [half])
    half.grad = torch.tensor([50000.0, 50000.0], dtype=torch.float16)  # its norm is above what float16 holds
    optimizer.step()
    assert math.isclose(half.detach().float().norm(), 1.0, rel_tol=1e-2)
    half.grad = torch.zeros(2, dtype=torch.float16)
    optimizer.step()
    half.grad = None
    optimizer.step()
    assert half.isfinite().all()


def test_sparse_gradients_are_refused_when_clipping():
    layer = nn.Embedding(4, 2, sparse=True)
    optimizer = o.optimizer_builder({"type": "sgd", "gradient_clipping_by_norm": 1.0, "fused": False}, 0.1, layer.parameters())
    layer(torch.tensor([1])).sum().backward()
    with pytest.raises(ConfigError, match="sparse"):
        optimizer.step()


@pytest.mark.parametrize("kind", [n for n in NAMES if n != "muon"] + ["muon"])
def test_a_function_as_rate_is_exact_under_state_dict(kind):
    def rate(step):
        return 0.01 * 0.9**step

    config = {"type": kind, "gradient_clipping_by_norm": 0.5}
    whole = net()
    uninterrupted = train(whole, o.optimizer_builder(config, rate, whole.parameters()), 12)
    model = net()
    optimizer = o.optimizer_builder(config, rate, model.parameters())
    train(model, optimizer, 5)
    state = through_a_file(optimizer.state_dict())
    resumed = o.optimizer_builder(config, rate, model.parameters())
    resumed.load_state_dict(state)
    assert torch.equal(train(model, resumed, 7), uninterrupted)
    assert resumed.param_groups[0]["lr"] == rate(11) and resumed.param_groups[0]["step_count"] == 12


def test_groups_keep_their_ratios_and_new_groups_join():
    p, q, r = (nn.Parameter(torch.ones(1)) for _ in range(3))
    groups = [{"params": [p], "lr": 2.0}, {"params": [q], "lr": 0.5}]
    optimizer = o.optimizer_builder({"type": "sgd"}, lambda step: 1.0 / (step + 1), groups)
    for w in (p, q, r):
        w.grad = torch.ones(1)
    optimizer.step()
    optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.125]
    optimizer.add_param_group({"params": [r], "lr": 5.0})
    optimizer.step()
    assert [round(group["lr"], 6) for group in optimizer.param_groups] == [round(1 / 3, 6), round(1 / 12, 6), round(10 / 3, 6)]
    with pytest.raises(ConfigError, match="every group one, or none"):
        o.optimizer_builder({"type": "sgd"}, lambda step: 1.0, [{"params": [p], "lr": 2.0}, {"params": [q]}])


@pytest.mark.parametrize("kind", ["adam", "adamw"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("closure", [True, False])
def test_every_parameter_has_the_epsilon_of_its_own_count(kind, fused, closure):
    config = {"type": kind, "epsilon": 0.1, "amsgrad": True, "fused": fused, "gradient_clipping_by_value": 0.5}
    starts, pulls = [0, 3, 3, 5], [0.4, -0.3, 0.9, 0.2]

    def gradients(weights, step, late):
        for w, start, pull in zip(weights, starts, pulls):
            w.grad = torch.full_like(w, pull * (step + 1)) if step >= (start if late else 0) else None

    def walk(optimizer, weights, steps, late=True):
        for step in steps:
            if closure:
                optimizer.step(functools.partial(gradients, weights, step, late))
            else:
                gradients(weights, step, late)
                optimizer.step()

    weights = [nn.Parameter(torch.ones(2)) for _ in starts]
    optimizer = o.optimizer_builder(config, 0.1, weights)
    walk(optimizer, weights, range(4))
    assert len(optimizer.param_groups) == 1 and len(optimizer.param_groups[0]["params"]) == 4
    resumed_weights = [nn.Parameter(w.detach().clone()) for w in weights]
    resumed = o.optimizer_builder(config, 0.1, resumed_weights)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    walk(optimizer, weights, range(4, 8))
    walk(resumed, resumed_weights, range(4, 8))
    for w, again, start, pull in zip(weights, resumed_weights, starts, pulls):
        assert torch.equal(w, again)
        alone = nn.Parameter(torch.ones(2))  # the same rule begun at that moment
        single = o.optimizer_builder(config, 0.1, [alone])
        for step in range(start, 8):
            alone.grad = torch.full_like(alone, pull * (step + 1))
            single.step()
        torch.testing.assert_close(w, alone, rtol=1e-6, atol=0)


def test_a_state_without_counts_is_taken_and_a_failed_step_leaves_whole_groups():
    def run(forget):
        weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
        optimizer = o.optimizer_builder({"type": "adam", "epsilon": 0.1}, 0.1, weights)
        for step in range(6):
            for w in weights:
                w.grad = torch.full_like(w, 1.0 + step)
            if step == 3 and forget:  # as it was saved by an earlier version
                state = optimizer.state_dict()
                for group in state["param_groups"]:
                    del group["own_counts"]
                optimizer.load_state_dict(state)
            optimizer.step()
        return weights, optimizer

    (weights, optimizer), (others, _) = run(True), run(False)
    assert all(torch.equal(w, other) for w, other in zip(weights, others))
    weights[0].grad = torch.ones(2).to_sparse()
    weights[1].grad = None
    with pytest.raises(RuntimeError):
        optimizer.step()
    assert len(optimizer.state_dict()["param_groups"][0]["params"]) == 2
    weights[0].grad = weights[1].grad = torch.ones(2)
    optimizer.step()
    assert [len(group["params"]) for group in optimizer.param_groups] == [2]


HOOKED = ["sgd", "rmsprop", "adadelta", "adagrad", "adamax"]
TYPES = [*HOOKED, "adam", "adamw", "nadam", "radam"]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("own", [None, 0.0, 0.2])
def test_a_group_added_later_steps_like_one_from_the_beginning(kind, own):
    config = {"type": kind, "weight_decay": 0.3, **({} if kind == "sgd" else {"epsilon": 0.01})}

    def group(w):
        return {"params": [w], **({} if own is None else {"weight_decay": own})}

    def walk(late):
        other, w = nn.Parameter(torch.ones(2)), nn.Parameter(torch.tensor([1.0, -2.0]))
        if late:
            optimizer = o.optimizer_builder(config, 0.1, [other])
            optimizer.add_param_group(group(w))
        else:
            optimizer = o.optimizer_builder(config, 0.1, [{"params": [other]}, group(w)])
        for step in range(4):
            w.grad = torch.tensor([0.02, -0.03]) * (step + 1)
            optimizer.step()
        return w.detach()

    torch.testing.assert_close(walk(True), walk(False), rtol=0, atol=0)
    w = nn.Parameter(torch.ones(1))
    optimizer = o.optimizer_builder(config, 0.1, [nn.Parameter(torch.ones(1))])
    optimizer.add_param_group(group(w))
    w.grad = torch.zeros(1)
    optimizer.step()
    assert math.isclose(w.item(), 1 - 0.1 * (0.3 if own is None else own), rel_tol=1e-6)  # decay alone


@pytest.mark.parametrize("kind", [*TYPES, "muon"])
def test_a_group_added_later_follows_the_function(kind):
    first, late = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = o.optimizer_builder({"type": kind}, lambda step: 0.1 / (step + 1), [first])
    first.grad, late.grad = torch.ones(2), torch.ones(2)
    optimizer.step()
    optimizer.step()
    optimizer.add_param_group({"params": [late]})
    assert optimizer.param_groups[1]["lr"] == 0.1
    optimizer.step()
    assert optimizer.param_groups[1]["lr"] == optimizer.param_groups[0]["lr"] == 0.1 / 3
    assert not torch.equal(late, torch.ones(2))


def test_decay_set_by_hand_stays_decoupled():
    w = nn.Parameter(torch.ones(1))
    optimizer = o.optimizer_builder({"type": "adagrad"}, 0.1, [w])
    optimizer.param_groups[0]["weight_decay"], w.grad = 0.5, torch.zeros(1)
    optimizer.step()
    assert math.isclose(w.item(), 0.95, rel_tol=1e-6)


def test_a_scheduler_beside_a_function_is_refused():
    w = nn.Parameter(torch.zeros(1))
    optimizer = o.optimizer_builder({"type": "sgd"}, lambda step: 0.1, [w])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1)
    w.grad = torch.ones(1)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    with pytest.raises(ConfigError, match="from 0.1 to 0.01.*follows = None"):
        optimizer.step()
    optimizer.follows = None
    optimizer.step()
    assert math.isclose(w.item(), -0.21, rel_tol=1e-5)
    warm = o.optimizer_builder({"type": "sgd"}, lambda step: 0.1, [w])
    torch.optim.lr_scheduler.LinearLR(warm, 0.5)  # changes the rate before the first step
    with pytest.raises(ConfigError, match="something else changed the rate"):
        warm.step()


def test_follows_can_be_taken_away():
    w = nn.Parameter(torch.zeros(1))
    optimizer = o.optimizer_builder({"type": "sgd"}, lambda step: 0.1, [w])
    assert optimizer.follows(3) == 0.1 and optimizer.clips is None
    optimizer.follows = None
    optimizer.param_groups[0]["lr"], w.grad = 7.0, torch.ones(1)
    optimizer.step()
    assert w.item() == -7.0


def test_rates_that_a_function_must_not_give():
    for rate in (-1.0, math.nan, math.inf):
        w = nn.Parameter(torch.zeros(1))
        optimizer = o.optimizer_builder({"type": "sgd"}, lambda step, rate=rate: rate if step else 0.1, [w])
        w.grad = torch.ones(1)
        optimizer.step()
        with pytest.raises(ConfigError, match="at step 1"):
            optimizer.step()


def test_a_schedule_serves_both_frameworks():
    import keras

    from nnlearn.schedules import CosineDecay
    schedule = CosineDecay(0.1, 10)
    w = nn.Parameter(torch.zeros(1))
    optimizer = o.optimizer_builder({"type": "adam"}, schedule, [w])
    w.grad = torch.ones(1)
    for step in range(4):
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == schedule(step)
    in_keras = o.optimizer_builder({"type": "adam"}, schedule, framework="keras")
    assert float(in_keras._learning_rate(3)) == pytest.approx(schedule(3), abs=1e-7)
    theirs = keras.optimizers.schedules.CosineDecay(0.1, 10)
    assert o.optimizer_builder({"type": "adam"}, theirs, framework="keras")._learning_rate is theirs
    with pytest.raises(ConfigError, match="plain function"):
        o.optimizer_builder({"type": "adam"}, lambda step: 0.1, framework="keras")


def test_decay_of_groups_is_kept():
    model = net()
    for kind in ("sgd", "adam", "adamw", "rmsprop", "adadelta", "nadam", "radam", "adagrad", "adamax"):
        weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
        groups = [{"params": weights[:1], "weight_decay": 0.5}, {"params": weights[1:], "weight_decay": 0.0}]
        optimizer = o.optimizer_builder({"type": kind}, 0.1, groups)
        for w in weights:
            w.grad = torch.zeros(2)
        optimizer.step()
        assert torch.allclose(weights[0], torch.full((2,), 0.95)) and torch.equal(weights[1], torch.ones(2)), kind
    assert len(o.optimizer_builder({"type": "adamw"}, 0.1, no_decay_groups(model, 0.1)).param_groups) == 2


@pytest.mark.parametrize(("config", "word"), [
    ({}, "missing key: type"), ([], "expected a mapping"), ({"type": "adm"}, "Did you mean 'adam'"), ({"type": 3}, "unknown type 3"),
    ({"type": "adam", "beta1": 0.9}, "Did you mean 'beta_1'"), ({"type": "adam", "rho": 0.9}, "type rmsprop and adadelta"),
    ({"type": "sgd", "decay_steps": 9}, "belongs to the schedule"), ({"type": "sgd", "learning_rate": 9}, "argument `learning_rate`"),
    ({"type": "muon", "warmup_steps": 9}, "belongs to the schedule"), ({"type": "adam", "beta_1": 1.0}, "from 0 to below 1"),
    ({"type": "adam", "epsilon": "1e-7"}, "In YAML, 1e-6 is a string"), ({"type": "adam", "epsilon": -1}, "at least 0"),
    ({"type": "adam", "amsgrad": 1}, "expected True or False"),
    ({"type": "sgd", "nesterov": True}, "momentum above 0"), ({"type": "adam", "gradient_clipping_by_norm": 0}, "above 0"),
    ({"type": "adam", "gradient_clipping_by_value": math.nan}, "expected a number"),
    ({"type": "adam", "fused": "yes"}, "expected True or False"),
    ({"type": "adam", "gradient_clipping_by_norm": 1.0, "gradient_clipping_by_norm_local": 1.0}, "at most one"),
    ({"type": "adamw", "weight_decay": None}, None), ({"type": "muon", "no_such": 1}, "unknown argument"),
    ({"type": "adam", "weight_decay": math.inf}, "expected a number"),
    ({"type": "adam", "clipnorm": 1.0}, "`clipnorm` is called `gradient_clipping_by_norm_local`"),
    ({"type": "sgd", "global_clipnorm": 1.0}, "is called `gradient_clipping_by_norm` here"),
    ({"type": "muon", "clipvalue": 1.0}, "is called `gradient_clipping_by_value` here"),
])
def test_configs_that_are_wrong(config, word):
    for framework in ("torch", "keras"):
        if word is None or (framework == "keras" and isinstance(config, dict) and config.get("type") == "muon"):
            continue
        with pytest.raises(ConfigError, match=word):
            o.optimizer_builder(config, 0.1, net().parameters(), framework)


@pytest.mark.parametrize("kind", ["rmsprop", "adagrad", "adamax"])
def test_fused_is_not_promised_where_there_is_no_kernel(kind):
    with pytest.raises(ConfigError, match="no fused kernel"):
        o.optimizer_builder({"type": kind, "fused": True}, 0.1, net().parameters())
    assert o.optimizer_builder({"type": kind, "fused": False}, 0.1, net().parameters()).clips is None


def test_other_arguments_that_are_wrong():
    with pytest.raises(ConfigError, match="Did you mean 'keras'"):
        o.optimizer_builder({"type": "adam"}, 0.1, framework="keros")
    with pytest.raises(ConfigError, match="torch needs the parameters"):
        o.optimizer_builder({"type": "adam"}, 0.1)
    for rate in ("0.1", -1.0, None, True, math.nan):
        for framework in ("torch", "keras"):
            with pytest.raises(ConfigError, match="learning_rate"):
                o.optimizer_builder({"type": "adam"}, rate, net().parameters(), framework)
    for name in ("muon", "radam"):
        with pytest.raises(ConfigError, match="Keras has none"):
            o.optimizer_builder({"type": name}, 0.1, framework="keras")


def test_none_means_no_clipping_and_names_are_forgiving():
    optimizer = o.optimizer_builder({"type": " Adam-W ".replace("-", ""), "gradient_clipping_by_norm": None}, 0.1, net().parameters())
    assert optimizer.clips is None and isinstance(optimizer, torch.optim.AdamW)


def test_the_explorer_draws_what_torch_does():
    explorer = explorers.optimizer_explorer()
    assert "momentum" in repr(explorer) or explorer is not None
    x, y = explorers.valley_path(lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.5))
    assert len(x) == 61 and (x[0], y[0]) == (-9.0, 1.0) and abs(x[1] - (-9 + 0.02 * 9)) < 1e-12


# Anything at all gives an optimizer or a ConfigError


KEYS = sorted({key for keys in o.BUILDER_DEFAULTS.values() for key in keys}
              | {*CLIPS, "fused", "type", "lr", "learning_rate", "decay_steps", "x"})
TORCH_KEYS = ["lr", "betas", "eps", "momentum", "alpha", "rho", "nesterov", "weight_decay", "fused", "foreach", "amsgrad", "centered", "x"]
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-2, 3), st.floats(), st.text(max_size=4), st.lists(st.floats(0, 1), max_size=2),
                   st.sampled_from([0.0, 0.5, 0.9, 0.999, 1e-7]))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*NAMES, "adm", 3, None]), st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3), VALUES | st.just(0.1))
def test_any_config_builds_or_is_refused(kind, config, rate):
    w = nn.Parameter(torch.ones(2, 2))
    try:
        optimizer = o.optimizer_builder({"type": kind, **config}, rate, [w])
    except ConfigError:
        return
    if isinstance(rate, float) and rate > 1e30:
        return  # torch's kernels refuse what does not fit into a float32
    w.grad = torch.ones(2, 2)
    optimizer.step()
    assert w.isfinite().all() or rate > 1e6 or config.get("weight_decay", 0) > 1e6


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(NAMES), st.dictionaries(st.sampled_from(TORCH_KEYS), VALUES, max_size=3))
def test_any_arguments_build_or_are_refused(name, params):
    try:
        assert isinstance(o.get_optimizer(name, [nn.Parameter(torch.ones(2, 2))], params), torch.optim.Optimizer)
    except ConfigError:
        pass


def test_unknown_keys_are_answered_with_the_accepted_ones_and_their_defaults():
    for kind, defaults in o.BUILDER_DEFAULTS.items():
        with pytest.raises(ConfigError) as caught:
            o.optimizer_builder({"type": kind, "no_such_key": 1}, 0.1, net().parameters())
        assert all(f"{key}={value!r}" in str(caught.value) for key, value in defaults.items())
    with pytest.raises(ConfigError, match="Did you mean 'gradient_clipping_by_norm'"):
        o.optimizer_builder({"type": "sgd", "gradient_clipping_norm": 1}, 0.1, net().parameters())


def test_a_copy_of_muon_keeps_its_own_settings():
    given = {"lr": 0.02, "momentum": 0.5, "weight_decay": 0.3}
    one = o.get_optimizer("muon", [nn.Parameter(torch.randn(3, 3))], given)
    for each in (one, copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        each.add_param_group({"params": [nn.Parameter(torch.randn(2, 2))]})
        assert {key: each.param_groups[-1][key] for key in given} == given
    assert "_settings" not in one.state_dict()


def test_parameters_without_a_shape_are_refused_where_the_shape_decides():
    model = nn.Sequential(nn.LazyLinear(4), nn.LazyLinear(1))
    for build in (lambda: no_decay_groups(model, 0.1), lambda: o.get_optimizer("muon", model.parameters())):
        with pytest.raises(ConfigError, match="Call the model once on a batch first"):
            build()
    model(torch.randn(2, 3))
    assert [len(group["params"]) for group in no_decay_groups(model, 0.1)] == [2, 2]
    assert {group["rule"] for group in o.get_optimizer("muon", model.parameters()).param_groups} == {"muon", "adamw"}


def test_the_first_unknown_key_is_named():
    for first, second in (("momentun", "nesterow"), ("nesterow", "momentun")):
        with pytest.raises(ConfigError, match=f"unknown key '{first}'"):
            o.optimizer_builder({"type": "sgd", first: 0.9, second: True}, 0.1, [nn.Parameter(torch.ones(1))])
