"""Landscapes: equal to setting the weights, models and random states left bit-identical, surfaces, paths, odd inputs."""
import copy
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nnlearn.core import ConfigError
from nnlearn.course.explorers import slice_explorer, surface_explorer
from nnlearn.criteria import CompositeLoss
from nnlearn.datasets import digits
from nnlearn.landscapes import pca_directions, snapshot
from nnlearn.penalties import l2_penalty
from nnlearn.slices import landscape, movable_parameters, plot_landscape, random_directions
from nnlearn.surfaces import SURFACES, Surface, curvatures, descend, plot_surface


def refuses(match):
    return pytest.raises(ConfigError, match=match)


def sgd(rate, **more):
    return lambda params: torch.optim.SGD(params, lr=rate, **more)


# Models of many kinds, each with inputs and targets


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.lstm(x)[0][:, -1])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))[:, :2]


class Restless(nn.Module):
    """Draws random numbers of every kind, counts in a buffer and in a plain tensor, and keeps what it saw."""

    def __init__(self):
        super().__init__()
        self.layer, self.drop = nn.Linear(3, 2), nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(1))
        self.plain, self.seen = torch.zeros(2), torch.ones(1)

    def forward(self, x):
        self.calls += 1
        self.plain += 1
        self.seen = x + 1
        random.random()
        np.random.rand()
        torch.rand(1)
        return self.drop(self.layer(x)) * (1 + 0 * self.calls)


def half_and_double():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4).double(), nn.Linear(4, 2)

        def forward(self, x):
            return self.second(torch.tanh(self.first(x.double())).float())
    return Mixed()


def make(kind):
    torch.manual_seed(0)
    model = {
        "mlp": lambda: nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)),
        "dropout": lambda: nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2)),
        "batchnorm": lambda: nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)),
        "frozen": lambda: nn.Sequential(nn.Linear(3, 8).requires_grad_(False), nn.ReLU(), nn.Linear(8, 2)),
        "conv": lambda: nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 4, 2), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 2)),
        "tied": Tied, "restless": Restless, "mixed": half_and_double, "recurrent": Recurrent,
    }[kind]()
    inputs = torch.randn(6, 5, 3) if kind == "recurrent" else torch.randn(6, 3)
    if kind == "batchnorm":
        model(inputs)  # running statistics that are not the first
    return model, inputs, torch.tensor([0, 1, 1, 0, 1, 0])


KINDS = ["mlp", "dropout", "batchnorm", "frozen", "conv", "tied", "restless", "mixed", "recurrent"]


def by_hand(model, loss_fn, inputs, targets, directions, span, steps):
    """The losses at the points of the grid, each by writing the weights into a copy."""
    model = copy.deepcopy(model).eval()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    grid = torch.linspace(-span, span, steps, dtype=torch.float64).tolist()
    losses = []
    for place in torch.cartesian_prod(*[torch.tensor(grid)] * len(directions)).reshape(-1, len(directions)).tolist():
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(weights[name] + sum(a * d[name] for a, d in zip(place, directions)))
            losses.append(loss_fn(model(inputs), targets))
    return torch.stack(losses).reshape([steps] * len(directions))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2])
def test_equals_setting_the_weights(kind, count):
    model, inputs, targets = make(kind)
    directions = random_directions(model, 3, "filter" if count == 2 else "none", count)
    ours = landscape(model, F.cross_entropy, inputs, targets, directions, 0.7, 5)
    expected = by_hand(model, F.cross_entropy, inputs, targets, directions, 0.7, 5)
    assert ours.shape == (5,) * count and torch.allclose(ours, expected, rtol=0, atol=1e-5)
    assert expected.std() > 1e-4  # the weights do move


def test_equals_setting_the_weights_on_all_the_digits():
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), digits()
    directions = random_directions(model, seed=1)
    ours = landscape(model, F.cross_entropy, data.train_x, data.train_y, directions, steps=7)
    assert torch.allclose(ours, by_hand(model, F.cross_entropy, data.train_x, data.train_y, directions, 1.0, 7), rtol=0, atol=1e-5)


def state(model):
    """Everything that must be left as it was, with copies of the tensors."""
    tensors = {name: (t, t.detach().clone()) for name, t in [*model.named_parameters(), *model.named_buffers()]}
    grads = {name: (p.grad, None if p.grad is None else p.grad.clone()) for name, p in model.named_parameters()}
    plain = {(id(m), key): (value, value.clone()) for m in model.modules() for key, value in vars(m).items()
             if isinstance(value, torch.Tensor)}
    return {**tensors, **{f"grad {n}": g for n, g in grads.items()}, **plain}, [m.training for m in model.modules()], \
        (random.getstate(), [str(part) for part in np.random.get_state()], torch.get_rng_state().tolist()), \
        {name: p.requires_grad for name, p in model.named_parameters()}


def assert_untouched(model, before):
    after = state(model)
    assert after[1:] == before[1:]
    assert after[0].keys() == before[0].keys()
    for name, (tensor, copied) in before[0].items():
        assert after[0][name][0] is tensor, name  # the very same object
        assert tensor is None or torch.equal(tensor, copied), name


class Stops(RuntimeError):
    pass


def stops_at(number):
    """A loss that raises at its call of that number."""
    calls = []

    def loss_fn(outputs, targets):
        calls.append(1)
        if len(calls) == number:
            raise Stops
        return F.cross_entropy(outputs, targets)
    return loss_fn


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [None, 1, 7, 9])
def test_left_bit_identical_exceptions_included(kind, number):
    model, inputs, targets = make(kind)
    model.train()
    next(iter(model.children())).eval()  # modes that differ
    if kind != "frozen":
        F.cross_entropy(model(inputs), targets).backward()
    before = state(model)
    if number is None:
        landscape(model, F.cross_entropy, inputs, targets, random_directions(model), steps=3)
    else:
        with pytest.raises(Stops):
            landscape(model, stops_at(number), inputs, targets, random_directions(model), steps=3)
    assert_untouched(model, before)
    assert torch.is_grad_enabled()


def test_directions_and_snapshots_leave_everything_as_it_was():
    model = make("restless")[0]
    before = state(model)
    random_directions(model, 5)
    snapshot(model)
    assert_untouched(model, before)


def test_a_model_that_counts_calls_gives_every_point_the_same_buffers():
    model, inputs, targets = make("restless")
    model.forward = lambda x: model.layer(x) + model.calls.add_(1)
    direction = {"layer.weight": torch.zeros(2, 3)}
    losses = landscape(model, lambda o, t: o.mean(), inputs, targets, direction, steps=4)
    assert losses.unique().numel() == 1 and model.calls == 0


def test_no_graph_is_recorded():
    model, inputs, targets = make("mlp")

    def loss_fn(outputs, targets):
        assert not outputs.requires_grad and not torch.is_grad_enabled()
        return F.cross_entropy(outputs, targets)

    landscape(model, loss_fn, inputs, targets, random_directions(model), steps=2)


def test_penalties_see_the_moved_weights():
    model, inputs, targets = make("mlp")
    directions = random_directions(model, count=1)
    loss_fn = CompositeLoss({"cross_entropy": {}, "l2": l2_penalty(model)}, {"l2": 0.1})
    losses = landscape(model, loss_fn, inputs, targets, directions, steps=3)
    bare = landscape(model, F.cross_entropy, inputs, targets, directions, steps=3)
    for i, a in enumerate((-1, 0, 1)):
        squares = sum(((p + a * directions[0][name]) ** 2).sum() for name, p in model.named_parameters())
        assert torch.isclose(losses[i], bare[i] + 0.1 * squares, atol=1e-4)


def test_spans_and_shapes():
    model, inputs, targets = make("mlp")
    two = random_directions(model)
    whole = landscape(model, F.cross_entropy, inputs, targets, two, 1.0, 5)
    assert whole.shape == (5, 5) and not whole.requires_grad and whole.dtype == torch.float32
    assert torch.allclose(landscape(model, F.cross_entropy, inputs, targets, two, (-1, 1), 5), whole)
    assert torch.allclose(landscape(model, F.cross_entropy, inputs, targets, two, [(-1, 1), 1], 5), whole)
    part = landscape(model, F.cross_entropy, inputs, targets, two, [(0, 1), (-1, 0)], 3)
    assert torch.allclose(part, whole[2:, :3], atol=1e-6)
    first = landscape(model, F.cross_entropy, inputs, targets, two[0], 1.0, 5)  # the first direction goes down the rows
    assert torch.allclose(first, whole[:, 2], atol=1e-6)
    assert torch.allclose(landscape(model, F.cross_entropy, inputs, targets, two[:1], 1.0, 5), first)
    doubles = {name: d.double() for name, d in two[0].items()}
    assert torch.allclose(landscape(model, F.cross_entropy, inputs, targets, doubles, 1.0, 5), first)
    with torch.inference_mode():
        assert torch.equal(landscape(model, F.cross_entropy, inputs, targets, two, 1.0, 5), whole)
    assert torch.isclose(whole[2, 2], F.cross_entropy(model(inputs), targets))
    assert landscape(model, F.cross_entropy, inputs, targets, two, 1, 2).shape == (2, 2)


@pytest.mark.parametrize(("options", "words"), [
    ({"span": 0}, "above 0"), ({"span": (1, -1)}, "low < high"), ({"span": [(0, 1)] * 3}, "each of the 2"), ({"span": "1"}, "span"),
    ({"span": math.nan}, "span"), ({"steps": 1}, "at least 2"), ({"steps": 5.0}, "landscape.steps: expected an integer"),
    ({"steps": True}, "expected an integer"),
    ({"directions": []}, "one or two directions"), ({"directions": [{}, {}, {}]}, "one or two"), ({"directions": 3}, "one or two"),
    ({"directions": {"0.wieght": torch.zeros(1)}}, "Did you mean '0.weight'"),
    ({"directions": {"0.weight": torch.zeros(8, 4)}}, r"shape \(8, 3\)"), ({"directions": {"0.weight": [1.0]}}, r"shape \(8, 3\)"),
    ({"model": lambda x: x}, "landscape.model: expected a Module"), ({"model": nn.ReLU()}, "no parameters"),
    ({"loss_fn": "cross_entropy"}, "landscape.loss_fn: expected a function"),
    ({"loss_fn": lambda o, t: F.cross_entropy(o, t, reduction="none")}, "one number"), ({"loss_fn": lambda o, t: 1.0}, "one number"),
])
def test_landscape_says_what_is_wrong(options, words):
    model, inputs, targets = make("mlp")
    arguments = {"model": model, "loss_fn": F.cross_entropy, "inputs": inputs, "targets": targets,
                 "directions": random_directions(model), "steps": 3}
    before = state(model)
    with refuses(words):
        landscape(**arguments | options)
    assert_untouched(model, before)


# Directions


def test_filter_normalised_directions():
    model = make("conv")[0]
    with torch.no_grad():
        model[4].weight[1] = 0.0  # a dead row
    for direction in random_directions(model, seed=2):
        for name, p in model.named_parameters():
            d = direction[name]
            assert d.shape == p.shape and d.dtype == p.dtype
            if p.ndim < 2:
                assert (d == 0).all()
            else:
                assert torch.allclose(d.flatten(1).norm(dim=1), p.flatten(1).norm(dim=1), rtol=1e-5)
    layers, = random_directions(model, 2, "layer", 1)
    assert all(math.isclose(layers[name].norm(), p.detach().norm(), rel_tol=1e-5, abs_tol=1e-6) for name, p in model.named_parameters())
    plain, = random_directions(model, 2, "none", 1)
    assert abs(torch.cat([d.flatten() for d in plain.values()]).std() - 1) < 0.3


def test_seeds_and_bad_arguments_of_directions():
    model = make("mlp")[0]
    one, other = random_directions(model, 1), random_directions(model, 2)
    again = random_directions(model, 1, count=3)
    assert torch.equal(one[1]["0.weight"], again[1]["0.weight"]) and not torch.equal(one[0]["0.weight"], other[0]["0.weight"])
    assert not torch.equal(one[0]["0.weight"], one[1]["0.weight"]) and len(again) == 3
    half, = random_directions(copy.deepcopy(model).bfloat16(), 1, count=1)
    assert half["0.weight"].dtype == torch.bfloat16
    for arguments, words in [((model, 0, "filtre"), "Did you mean 'filter'"),
                             ((model, -1), "integer of at least 0"), ((3,), "expected a Module"),
                             ((model, 0, "none", 0), "at least 1"), ((nn.ReLU(),), "no parameters")]:
        with refuses(words):
            random_directions(*arguments)


@pytest.mark.parametrize("seed", range(4))
def test_pca_finds_the_plane_of_a_path(seed, monkeypatch):
    torch.manual_seed(seed)
    svd, signs = torch.linalg.svd, torch.tensor([[(-1) ** seed], [(-1) ** (seed // 2)], *[[1]] * 3])  # a library may choose either sign
    monkeypatch.setattr(torch.linalg, "svd", lambda m, full_matrices: (lambda u, s, v: (u * signs.T, s, v * signs))(
        *svd(m, full_matrices=full_matrices)))
    axes, _ = torch.linalg.qr(torch.randn(50, 2, dtype=torch.float64))
    drawn = torch.tensor([[9.0, 2.0], [6.0, -1.0], [3.0, -1.5], [1.0, -0.5], [0.0, 0.0]], dtype=torch.float64)
    points = (drawn @ axes.T).reshape(5, 5, 10) + 7.0
    plane = pca_directions([{"w": p, "count": torch.tensor(3)} for p in points])
    variances = np.linalg.eigvalsh(np.cov(drawn.T))[::-1]
    assert np.allclose(plane.explained, variances / variances.sum())
    assert np.allclose(plane.coordinates[-1], 0) and (plane.coordinates[0] > 0).all()
    for point, (a, b) in zip(points, plane.coordinates):
        assert torch.allclose(points[-1] + a * plane.directions[0]["w"] + b * plane.directions[1]["w"], point)
    assert list(plane.directions[0]) == ["w"]


def test_the_path_of_a_net_lies_on_its_plane():
    model, inputs, targets = make("batchnorm")
    optimizer, checkpoints, losses = torch.optim.SGD(model.parameters(), 0.05), [], []
    for _ in range(3):
        checkpoints.append(copy.deepcopy(model.state_dict()))  # buffers included: landscape leaves them where they are
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    model.load_state_dict(checkpoints[-1])
    model.eval()
    only = [{name: c[name] for name, _ in model.named_parameters()} for c in checkpoints]
    plane = pca_directions(only)  # three points lie on a plane exactly
    for point, (a, b) in zip(only, plane.coordinates):
        there = torch.func.functional_call(model, point, (inputs,))
        losses = landscape(model, F.cross_entropy, inputs, targets, plane.directions, [(a, a + 1), (b, b + 1)], 2)
        assert math.isclose(losses[0, 0], F.cross_entropy(there, targets), abs_tol=1e-5)


class Counted(nn.Module):
    """A batch-norm net with one more floating-point buffer, which grows with every call."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x):
        if self.training:
            self.seen += 1.0
        return self.net(x)


def test_buffers_of_checkpoints_do_not_tilt_the_plane():
    torch.manual_seed(0)
    model, inputs, targets = Counted(), 4 * torch.randn(16, 3) + 7, torch.randint(2, (16,))
    optimizer, checkpoints = torch.optim.SGD(model.parameters(), 0.05), []
    for _ in range(3):
        checkpoints.append(copy.deepcopy(model.state_dict()))
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    model.load_state_dict(checkpoints[-1])
    only = [{name: c[name] for name, _ in model.named_parameters()} for c in checkpoints]
    batch_norm = [{name: t for name, t in c.items() if name != "seen"} for c in checkpoints]
    expected = pca_directions(only)
    for plane in (pca_directions(checkpoints, model), pca_directions(batch_norm), pca_directions(only, model)):
        assert np.allclose(plane.coordinates, expected.coordinates) and list(plane.directions[0]) == list(only[0])
    a, b = expected.coordinates[0]
    losses = landscape(model, F.cross_entropy, inputs, targets, pca_directions(checkpoints, model).directions, [(a, a + 1), (b, b + 1)], 2)
    model.eval()
    there = torch.func.functional_call(model, only[0], (inputs,))
    assert math.isclose(losses[0, 0], F.cross_entropy(there, targets), abs_tol=1e-5)
    tilted = pca_directions(checkpoints)  # without the model `seen` looks like a parameter; landscape refuses it
    with refuses("'seen' is a buffer"):
        landscape(model, F.cross_entropy, inputs, targets, tilted.directions, steps=3)
    with refuses("the parameters of the model"):
        pca_directions(checkpoints, nn.Linear(3, 2))
    with refuses("expected a Module or None"):
        pca_directions(checkpoints, 3)


def test_pca_says_what_is_wrong():
    model = make("mlp")[0]
    with refuses("at least 3 items"):
        pca_directions([snapshot(model)] * 2)
    with refuses("snapshot"):
        pca_directions([model.state_dict()] * 4)
    with refuses("checkpoint 1 has different tensors"):
        pca_directions([snapshot(model), {"w": torch.zeros(2)}, snapshot(model)])
    line = [{"w": float(i) * torch.ones(4)} for i in range(4)]
    with refuses("on a line"):
        pca_directions(line)


def test_snapshot_is_a_copy():
    model = make("mlp")[0]
    kept = snapshot(model)
    with torch.no_grad():
        model[0].weight.zero_()
    assert kept["0.weight"].abs().sum() > 0 and not kept["0.weight"].requires_grad


# Surfaces and paths


def test_surfaces_take_numbers_arrays_and_tensors():
    rosenbrock = SURFACES["Rosenbrock"]
    assert rosenbrock(1, 1) == 0 and rosenbrock(0.0, 0.0) == 1 and rosenbrock([1.0, 1.0]) == 0
    assert rosenbrock(np.ones((3, 2))).tolist() == [0, 0, 0] and rosenbrock(torch.zeros(2, 2, 2)).shape == (2, 2)
    assert rosenbrock(0.1, 0.7).dtype == torch.float64 and rosenbrock(torch.ones(2)).dtype == torch.float32
    with refuses("Did you mean 'rosenbrock'"):
        SURFACES["rosenbrok"]


@pytest.mark.parametrize("name", SURFACES)
def test_nothing_in_the_domain_is_lower_than_the_minima(name):
    surface = SURFACES[name]
    x, y = torch.meshgrid(*(torch.linspace(*ends, 401, dtype=torch.float64) for ends in surface.domain), indexing="ij")
    assert surface(x, y).min() >= surface.lowest - 1e-12
    assert all(low <= v <= high for point in (*surface.minima, surface.start) for v, (low, high) in zip(point, surface.domain))
    for minimum in torch.tensor(surface.minima, dtype=torch.float64):
        assert math.isclose(surface(minimum), surface.lowest, abs_tol=1e-12)
        assert torch.func.grad(surface)(minimum).abs().max() < 1e-10 and curvatures(surface, minimum).min() > 0
    assert surface.about


@settings(max_examples=40, deadline=None)
@given(st.floats(0.1, 100), st.floats(0.1, 100), st.floats(0.02, 0.999), st.booleans())
def test_the_limit_of_the_learning_rate(a, b, share, above):
    surface = Surface(lambda x, y: 0.5 * (a * x**2 + b * y**2), ((0, 0),), 0, ((-1, 1), (-1, 1)), (1, 1))
    largest = curvatures(surface, (0.3, -0.2))[-1].item()
    assert math.isclose(largest, max(a, b), rel_tol=1e-9)
    rate = 2 / largest / share if above else 2 / largest * share
    path = descend(surface, sgd(rate), (1.0, 1.0), 50)
    factors = np.array([1 - rate * a, 1 - rate * b])
    assert np.allclose(path, factors ** np.arange(51)[:, None], rtol=1e-6, atol=1e-12)
    steepest = np.abs(path[:, 0 if a >= b else 1])
    assert (np.diff(steepest) > 0).all() if above else steepest[-1] <= steepest[0]


def test_descend_with_any_optimizer_and_many_starts():
    for make_optimizer in (lambda p: torch.optim.Adam(p, lr=0.1), lambda p: torch.optim.RMSprop(p, lr=0.01),
                           lambda p: torch.optim.LBFGS(p, lr=0.5), sgd(0.01, momentum=0.9, nesterov=True)):
        assert np.linalg.norm(descend("quadratic", make_optimizer, (1.0, -1.0), 300)[-1]) < 0.05
    starts = np.array([[1.0, 1.0], [-2.0, 0.5], [3.0, -3.0]])
    many = descend("himmelblau", sgd(0.01), starts, 30)
    assert many.shape == (31, 3, 2) and many.dtype == np.float64
    for i, start in enumerate(starts):
        assert np.allclose(many[:, i], descend(SURFACES["himmelblau"], sgd(0.01), start, 30))
    assert descend(lambda point: (point**2).sum(-1), sgd(0.1), (1, 2), 0).tolist() == [[1, 2]]
    assert descend("quadratic", sgd(0.1), (0.6, 0.1), 0).tolist() == [[0.6, 0.1]]  # not rounded to float32
    start = torch.tensor([1.0, 2.0], requires_grad=True)
    descend("quadratic", sgd(0.1), start, 3)
    assert start.tolist() == [1, 2] and start.grad is None
    assert not np.isfinite(descend("rosenbrock", sgd(1.0), (-1.2, 1.0), 60)).all()


@pytest.mark.parametrize(("arguments", "words"), [
    (("valey", sgd(0.1), (0, 0), 1), "Did you mean 'valley'"), (("valley", sgd(0.1), (0, 0, 0), 1), "two finite numbers"),
    (("valley", sgd(0.1), (0, math.inf), 1), "two finite numbers"), (("valley", sgd(0.1), "here", 1), "two finite numbers"),
    (("valley", sgd(0.1), (0, 0), -1), "at least 0"), (("valley", sgd(0.1), (0, 0), 1.5), "expected an integer"),
    (("valley", "sgd", (0, 0), 1), "descend.make_optimizer: expected a function"),
    (("valley", lambda params: 3, (0, 0), 1), "a function that returns an optimizer"),
    ((lambda x, y: x * y, sgd(0.1), (0, 0), 1), "a function of one tensor"), ((3, sgd(0.1), (0, 0), 1), "Accepted: beale"),
])
def test_descend_says_what_is_wrong(arguments, words):
    with refuses(words):
        descend(*arguments)


def test_curvatures_take_names():
    assert curvatures("valley", (0.0, 0.0)).tolist() == [1, 25]
    assert curvatures(lambda point: (point**2).sum(), (1.0, 2.0, 3.0)).tolist() == [2, 2, 2]
    with refuses("Did you mean 'valley'"):
        curvatures("vally", (0.0, 0.0))
    with refuses("a function of one tensor"):
        curvatures(lambda x, y: x * y, (0.0, 0.0))


# Pictures and explorers


def test_plots():
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    ax = plot_surface("valley", {"walk": np.zeros((3, 2))})
    assert ax.get_xlim() == (-3, 1) and [t.get_text() for t in ax.get_legend().get_texts()] == ["walk"]
    with refuses("plot_surface.surface: expected a Surface or a string"):
        plot_surface(3)
    line = plot_landscape(torch.tensor([3.0, 1.0, 2.0]), 0.5)
    x, y = line.lines[0].get_data()
    assert x.tolist() == [-0.5, 0, 0.5] and y.tolist() == [3, 1, 2]
    losses = torch.tensor([[4.0, 3.0, math.inf], [2.0, 1.0, 5.0], [2.0, 2.0, 2.0], [9.0, 9.0, 9.0]])
    ax = plot_landscape(losses, [(0, 3), 1], path=[[0, 0], [1, 1]])
    assert ax.get_xlim() == (0, 3) and ax.get_ylim() == (-1, 1) and len(ax.lines) == 1
    own = plt.subplots()[1]
    assert plot_landscape(torch.ones(3, 3), ax=own) is own
    for path, words in [(np.zeros((3, 2)), "plot_surface.paths: expected a mapping"),
                        ({"walk": np.zeros(3)}, r"paths\['walk'\]: expected points of shape")]:
        with refuses(words):
            plot_surface("valley", path)
    with refuses("at least one finite loss"):
        plot_landscape(torch.full((3, 3), math.nan))
    for losses in (torch.rand(5, 5) * 0.01 + 2.3, torch.rand(5, 5) * 1e-5 - 40.0, torch.rand(5, 5) * 1e6, torch.rand(5, 5)):
        fig, ax = plt.subplots()
        plot_landscape(losses, ax=ax)
        fig.canvas.draw()
        texts = [t.get_text() for t in fig.axes[1].get_yticklabels()]
        assert len(set(texts)) == len(texts) >= 4
    with refuses("one or two dimensions"):
        plot_landscape(torch.zeros(2, 2, 2))
    plt.close("all")


def test_explorers_fit_their_budget_and_show_what_the_library_computes():
    from nnlearn.course.explore import decode
    explorer = surface_explorer()
    assert len(explorer.html) < 150_000
    curves = decode(explorer.html)["types"][""]["curves"]
    x, y = curves[("0.02", "0.7", "20")]["steps"]
    path = descend("valley", sgd(0.02, momentum=0.7), SURFACES["valley"].start, 20)
    assert np.abs(np.array([x, y]).T - path).max() < 4e-3
    assert len(curves[("0.12", "0", "40")]["steps"][0]) < 41  # those that fly off are cut
    assert all(len(surface_explorer(name, (0.0005, 0.001, 0.005)).html) < 150_000 for name in ("rosenbrock", "himmelblau"))
    assert len(slice_explorer().html) < 150_000


def test_a_point_on_the_edge_of_the_picture_is_drawn_whatever_the_rounding():
    from nnlearn.course.explore import decode
    own = Surface(lambda x, y: x**2 + y**2, ((0, 0),), 0, ((-1, 1), (-1, 1)), (1, 1), "a round bowl")
    for rate in (1.0, 1.0 + 1e-12):  # one step leads from one corner to the opposite one, or a trifle beyond
        curves = decode(surface_explorer(own, (rate,), 1).html)["types"][""]["curves"]
        assert {len(shown["steps"][0]) for shown in curves.values()} == {2}


def test_surface_explorer_with_other_rates_steps_and_surfaces():
    from nnlearn.course.explore import decode
    few = decode(surface_explorer(rates=(1e-4, 1e-3), steps=5).html)["types"][""]["curves"]
    assert {key[2] for key in few} == {"1", "2", "3", "5"} and len({key[0] for key in few}) == 2
    own = Surface(lambda x, y: x**2 + y**2, ((0, 0),), 0, ((-1, 1), (-1, 1)), (1, 1), "a round bowl")
    html = surface_explorer(own, (0.1,), 1).html
    assert "SGD: a round bowl" in html and "Surface(" not in html
    for options, words in [({"rates": ()}, r"surface_explorer\.rates: .*at least 1"),
                           ({"steps": 0}, r"surface_explorer\.steps: .*at least 1"), ({"surface": "valey"}, "Did you mean")]:
        with refuses(words):
            surface_explorer(**options)


def test_the_lesson_still_offers_what_the_rooms_hold():
    from nnlearn import landscapes, slices, surfaces
    for room, names in ((slices, ("landscape", "random_directions", "plot_landscape")),
                        (surfaces, ("SURFACES", "curvatures", "descend", "plot_surface"))):
        assert all(getattr(landscapes, name) is getattr(room, name) for name in names)
    assert list(movable_parameters(nn.BatchNorm1d(2))) == ["weight", "bias"]
