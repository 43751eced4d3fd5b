"""Losses: torch's own by name, focal and box losses against independent formulas, odd inputs, composites, penalties."""
import copy
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nnlearn.core import ConfigError
from nnlearn.course.explorers import cross_entropy_explorer, residual_explorer
from nnlearn.criteria import DEFAULT_LOSS_PARAMS, LOSS_FUNCTIONS, CompositeLoss, FunctionLoss, get_loss_function
from nnlearn.generative import discriminator_loss, generator_loss, vae_loss
from nnlearn.losses import DIoULoss, FocalLoss, GIoULoss, IoULoss
from nnlearn.penalties import ParameterPenalty, elastic_net, l1_penalty, l2_penalty
from nnlearn.probes import gradient_check

NAMES = """cross_entropy bce bce_with_logits nll poisson_nll kl_div hinge_embedding multi_margin multilabel_margin soft_margin
multilabel_soft_margin mse l1 smooth_l1 huber ctc margin_ranking triplet_margin triplet_margin_with_distance focal iou giou
diou""".split()


def refuses(match):
    return pytest.raises(ConfigError, match=match)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The registry


def test_the_names():
    assert set(LOSS_FUNCTIONS) == set(DEFAULT_LOSS_PARAMS) == set(NAMES) and len(NAMES) == 23


@pytest.mark.parametrize("name", NAMES)
def test_every_name_builds_and_knows_its_arguments(name):
    loss = get_loss_function(name.upper().replace("_", "-"), device="cpu")
    assert type(loss) is LOSS_FUNCTIONS[name]
    for key, value in DEFAULT_LOSS_PARAMS[name].items():
        assert getattr(loss, key) == value
    with refuses(r"unknown argument 'reductoin'.* Did you mean 'reduction'\? Accepted: .*reduction='") as caught:
        get_loss_function(name, reductoin="sum")
    assert "size_average" not in str(caught.value) and repr(loss.reduction) in str(caught.value)
    with refuses("reduction: expected one of 'mean', 'sum', 'none', got 'avg'"):
        get_loss_function(name, reduction="avg")
    assert get_loss_function(name, reduction="sum").reduction == "sum"


def test_parameters_arrive():
    assert get_loss_function("huber", delta=2.5)(torch.tensor([4.0]), torch.tensor([0.0])) == 2.5 * (4 - 1.25)
    assert get_loss_function("kl_div").reduction == "batchmean"
    squared = get_loss_function("multi_margin", p=2.0)
    assert squared(torch.tensor([[0.0, 1.0]]), torch.tensor([0])) == 2.0 and isinstance(squared.p, int)
    assert get_loss_function("triplet_margin_with_distance", distance_function=lambda a, b: (a - b).abs().sum(1))(
        torch.zeros(1, 2), torch.ones(1, 2), torch.full((1, 2), 2.0)) == 0.0
    loss = get_loss_function("cross_entropy", weight=np.array([1, 2, 3]), ignore_index=1)
    assert loss.weight.tolist() == [1, 2, 3] and loss.weight.dtype == torch.float32 and loss.ignore_index == 1


def test_weights_are_a_copy_and_go_to_the_device():
    mine = torch.ones(3)
    loss = get_loss_function("focal", weight=mine)
    mine.zero_()
    assert loss.weight.tolist() == [1, 1, 1]
    for name, key in [("cross_entropy", "weight"), ("focal", "weight"), ("bce_with_logits", "pos_weight"), ("nll", "weight")]:
        moved = get_loss_function(name, device="meta", **{key: [1.0, 2.0]})
        assert getattr(moved, key).device.type == "meta"
    composite = CompositeLoss({"cross_entropy": {"weight": [1.0, 2.0]}, "focal": {"weight": mine}}, device="meta")
    assert {b.device.type for b in composite.buffers()} == {"meta"}


@pytest.mark.parametrize(("name", "params", "words"), [
    ("hubr", {}, "Did you mean 'huber'"), ("mae", {}, "Did you mean 'l1'"), ("CE", {}, "Did you mean 'cross_entropy'"),
    ("l2", {}, "Did you mean 'mse'"), ("KLD", {}, "Did you mean 'kl_div'"), ("log loss", {}, "Did you mean 'cross_entropy'"),
    ("huber", {"delta": 0}, "above 0"), ("huber", {"delta": "1"}, "expected a number above 0"),
    ("smooth_l1", {"beta": -1}, "at least 0"), ("cross_entropy", {"label_smoothing": 2}, "from 0 to 1"),
    ("cross_entropy", {"weight": [1, -1]}, "at least 0"), ("cross_entropy", {"weight": [1, math.nan]}, "finite"),
    ("cross_entropy", {"weight": "heavy"}, "a list of weights"), ("cross_entropy", {"ignore_index": 0.5}, "expected an integer"),
    ("focal", {"gamma": -1}, "at least 0"), ("focal", {"gamma": math.inf}, "expected a number of at least 0"),
    ("ctc", {"blank": -1}, "at least 0"),
    ("ctc", {"zero_infinity": 1}, "True or False"), ("triplet_margin", {"margin": math.nan}, "expected a number, got nan"),
    ("multi_margin", {"p": 3}, "p == 1 and p == 2"), ("mse", {"reduce": False}, "Did you mean 'reduction'"),
    ("mse", {"reduction": "batchmean"}, "expected one of"), ("mse", {"device": "gpu0"}, "loss 'mse'"), (7, {}, "unknown loss"),
])
def test_what_is_wrong_is_said(name, params, words):
    with refuses(words):
        get_loss_function(name, **params)


def test_losses_of_ones_own():
    class Scaled(nn.Module):
        def __init__(self, factor, **more):
            super().__init__()
            if factor < 0:
                raise ValueError("factor is negative")
            self.factor = factor

        def forward(self, outputs, targets):
            return self.factor * (outputs - targets).abs().mean()

    def plain(outputs, targets, power=2):
        return (outputs - targets).abs().pow(power).mean()

    try:
        LOSS_FUNCTIONS["scaled"], LOSS_FUNCTIONS["plain"], LOSS_FUNCTIONS["inner"] = Scaled, plain, max
        two = torch.tensor([2.0]), torch.tensor([0.0])
        assert get_loss_function("scaled", factor=3, anything=1)(*two) == 6
        assert get_loss_function("plain")(*two) == 4 and get_loss_function("plain", power=3)(*two) == 8
        assert repr(get_loss_function("plain", power=3)) == "FunctionLoss(plain, power=3)"
        assert get_loss_function("inner")(1, 2) == 2
        with refuses("loss 'scaled': factor is negative[.]$"):
            get_loss_function("scaled", factor=-1)
        with refuses("Accepted: power=2"):
            get_loss_function("plain", outputs=1)
        LOSS_FUNCTIONS.register("huber", plain, replace=True)
        assert get_loss_function("huber")(*two) == 4  # the defaults of the entry it replaced do not reach it
    finally:
        LOSS_FUNCTIONS.register("huber", nn.HuberLoss, replace=True)
        for name in ("scaled", "plain", "inner"):
            LOSS_FUNCTIONS.pop(name, None)


# Focal loss


@pytest.mark.parametrize("options", [
    {}, {"reduction": "sum"}, {"reduction": "none"}, {"weight": [0.5, 1.0, 2.0, 4.0]}, {"ignore_index": 2},
    {"weight": [0.5, 1.0, 2.0, 4.0], "ignore_index": 0}, {"weight": [0.5, 1.0, 2.0, 4.0], "reduction": "none", "ignore_index": 3},
])
@pytest.mark.parametrize("shape", [(6, 4), (5, 4, 3), (2, 4, 3, 2), (4,)])
def test_focal_with_gamma_zero_is_cross_entropy(options, shape):
    options = {key: torch.tensor(v, dtype=torch.float64) if key == "weight" else v for key, v in options.items()}
    rest = shape[:1] + shape[2:] if len(shape) > 1 else ()
    targets = torch.randint(4, rest, generator=torch.Generator().manual_seed(1))
    results = []
    for loss in (FocalLoss(0.0, **options), nn.CrossEntropyLoss(**options)):
        logits = (3 * normal(*shape)).requires_grad_()
        value = loss(logits, targets)
        results.append((value.detach(), *torch.autograd.grad(value.sum(), logits)))
    for ours, theirs in zip(*results):
        assert ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0, 5.0])
def test_focal_against_the_formula(gamma):
    logits, targets = normal(7, 5), torch.tensor([0, 4, 2, 2, 1, 3, 0])
    p = logits.softmax(1)[range(7), targets]
    expected = (1 - p) ** gamma * -p.log()
    assert torch.allclose(FocalLoss(gamma, reduction="none")(logits, targets), expected, atol=1e-12)
    assert torch.isclose(FocalLoss(gamma)(logits, targets), expected.mean())
    assert gradient_check(lambda z: FocalLoss(gamma)(z, targets), [logits])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=6), st.floats(0, 10), st.data())
def test_focal_is_finite_for_any_logits(values, gamma, data):
    logits = torch.tensor([values], requires_grad=True)
    target = torch.tensor([data.draw(st.integers(0, len(values) - 1))])
    loss = FocalLoss(gamma)(logits, target)
    gradient, = torch.autograd.grad(loss, logits)
    assert 0 <= loss <= F.cross_entropy(logits, target) * (1 + 1e-5) + 1e-6 and gradient.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_where_all_other_classes_are_masked_out(gamma):
    logits = torch.tensor([[0.0, -math.inf, -math.inf]], requires_grad=True)
    loss = FocalLoss(gamma)(logits, torch.tensor([0]))
    gradient, = torch.autograd.grad(loss, logits)
    assert loss == 0 and gradient.isfinite().all()


def test_focal_says_what_it_needs():
    good = torch.zeros(3, 4)
    with refuses("argmax"):
        FocalLoss()(good, torch.zeros(3, 4))
    with refuses("at least 2 classes"):
        FocalLoss()(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
    with refuses(r"of shape \(3,\)"):
        FocalLoss()(good, torch.zeros(4, dtype=torch.long))
    with refuses("expected class indices"):
        FocalLoss()(good, torch.zeros(3))
    with refuses("expected tensors, got"):
        FocalLoss()([[0.0, 1.0]], [1])
    with refuses("expected 4 class weights, got 2"):
        FocalLoss(weight=[1, 2])(good, torch.zeros(3, dtype=torch.long))
    assert FocalLoss()(good, torch.full((3,), -100)).isnan()  # nothing to learn from: 0 / 0, as torch's
    assert FocalLoss(reduction="sum")(good, torch.full((3,), -100)) == 0


# Boxes


def exact_iou(a, b):
    """IoU, hull, union and centre terms of two proper boxes, in Python numbers."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    union = sum(area) - width * height
    hull = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    centres = [((x[0] + x[2]) / 2, (x[1] + x[3]) / 2) for x in (a, b)]
    iou = width * height / union
    giou = iou - (hull[0] * hull[1] - union) / (hull[0] * hull[1])
    return {IoULoss: 1 - iou, GIoULoss: 1 - giou,
            DIoULoss: 1 - iou + math.dist(*centres) ** 2 / (hull[0] ** 2 + hull[1] ** 2)}


side = st.floats(0.01, 50)
proper = st.tuples(st.floats(-50, 50), st.floats(-50, 50), side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
anything = st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 4)


@settings(max_examples=100, deadline=None)
@given(proper, proper)
def test_boxes_against_plain_numbers(a, b):
    for loss, value in exact_iou(a, b).items():
        ours = loss()(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64))
        assert math.isclose(ours, value, rel_tol=1e-9, abs_tol=1e-9)


@settings(max_examples=150, deadline=None)
@given(anything, anything, st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_any_finite_boxes_give_finite_losses_and_gradients(a, b, dtype):
    for loss in (IoULoss, GIoULoss, DIoULoss):
        boxes, targets = torch.tensor([a], dtype=dtype, requires_grad=True), torch.tensor([b], dtype=dtype)
        value = loss()(boxes, targets)
        gradient, = torch.autograd.grad(value, boxes)
        assert value.isfinite() and gradient.isfinite().all() and value >= -1e-6
        assert loss()(boxes, boxes) == 0


@pytest.mark.parametrize("tiny", [0.0, 1e-30, 1e-22, 1e-15, 1e-8])
def test_tiny_boxes(tiny):
    boxes = torch.tensor([[0.0, 0.0, tiny, tiny]], requires_grad=True)
    for loss in (IoULoss, GIoULoss, DIoULoss):
        for other in ([[0.0, 0.0, tiny, tiny]], [[0.0, 0.0, tiny / 2, tiny]], [[1.0, 1.0, 1.0, 1.0]]):
            value = loss()(boxes, torch.tensor(other))
            gradient, = torch.autograd.grad(value, boxes)
            assert value.isfinite() and gradient.isfinite().all()
        assert loss()(boxes, torch.tensor([[1.0, 1.0, 1.0, 1.0]])) >= 1


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e9, 1e18])
def test_the_unit_of_boxes_does_not_matter(scale):
    boxes, targets = torch.tensor([[0.0, 0.0, 2.0, 2.0], [-1.0, 0.0, 1.0, 1.0]]), torch.tensor([[1.0, 1.0, 3.0, 3.0], [2.0, 1.0, 3.0, 4.0]])
    scaled = (boxes * scale).requires_grad_()
    for loss in (IoULoss, GIoULoss, DIoULoss):
        values = loss("none")(scaled, targets * scale)
        gradient, = torch.autograd.grad(values.sum(), scaled)
        assert torch.allclose(values, loss("none")(boxes, targets), rtol=1e-4) and gradient.isfinite().all()


def test_boxes_far_apart_are_pulled_together():
    for loss in (GIoULoss, DIoULoss):
        boxes, target = torch.tensor([[10.0, 10.0, 11.0, 11.0]], requires_grad=True), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        gradient, = torch.autograd.grad(loss()(boxes, target), boxes)
        assert gradient.sum() > 0  # a step against it moves to the left and down
    assert IoULoss()(boxes, target) == 1


def test_reductions_and_shapes_of_boxes():
    boxes, targets = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1]]), torch.tensor([[1.0, 1, 3, 3], [0, 0, 1, 1]])
    assert IoULoss(reduction="none")(boxes, targets).tolist() == pytest.approx([6 / 7, 0])
    assert math.isclose(IoULoss(reduction="sum")(boxes, targets), 2 * IoULoss()(boxes, targets), rel_tol=1e-6)
    assert GIoULoss(reduction="none")(boxes.reshape(2, 1, 4), targets.reshape(2, 1, 4)).shape == (2, 1)
    none = torch.zeros(0, 4, requires_grad=True)
    DIoULoss()(none, torch.zeros(0, 4)).backward()
    assert DIoULoss()(none, none) == 0
    assert IoULoss()(torch.tensor([[0, 0, 2, 2]]), targets[:1]) == IoULoss()(boxes[:1], targets[:1])
    large = torch.tensor([[0.0, 0.0, 400.0, 400.0]], dtype=torch.float16)
    assert IoULoss()(large, large / 2) == 0.75  # in float16 the area would overflow
    assert IoULoss()(boxes * math.nan, targets).isnan()
    with refuses(r"same shape \(\.\.\., 4\)"):
        IoULoss()(boxes, targets[:1])
    with refuses("x1, y1, x2, y2"):
        DIoULoss()(torch.zeros(2, 5), torch.zeros(2, 5))
    with refuses("expected tensors, got"):
        GIoULoss()([[0, 0, 1, 1]], [[0, 0, 1, 1]])


# Generators


def test_adversarial_losses_against_binary_cross_entropy():
    real, fake = normal(5), normal(7, seed=1)
    expected = F.binary_cross_entropy_with_logits(real, torch.ones(5).double()) \
        + F.binary_cross_entropy_with_logits(fake, torch.zeros(7).double())
    assert torch.isclose(discriminator_loss(real, fake), expected)
    assert torch.isclose(generator_loss(fake), F.binary_cross_entropy_with_logits(fake, torch.ones(7).double()))
    assert torch.isclose(discriminator_loss(real, fake, "hinge"), (1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean())
    assert torch.isclose(generator_loss(fake, "hinge"), -fake.mean())
    assert torch.isclose(discriminator_loss(real, fake, "least_squares"), ((real - 1) ** 2).mean() / 2 + (fake ** 2).mean() / 2)
    assert torch.isclose(generator_loss(fake, "least_squares"), ((fake - 1) ** 2).mean() / 2)
    for kind in ("non_saturating", "hinge", "least_squares"):
        assert gradient_check(lambda z, k=kind: generator_loss(z, k) + discriminator_loss(z, z + 0.3, k), [fake])
    with refuses("Accepted: non_saturating, hinge, least_squares"):
        discriminator_loss(real, fake, "wasserstein")


def test_vae_loss_in_nats_a_sample():
    logits, inputs, mean, log_variance = normal(4, 3, 2), normal(4, 3, 2, seed=1).sigmoid(), normal(4, 5), normal(4, 5, seed=2)
    rebuilt = F.binary_cross_entropy_with_logits(logits, inputs, reduction="none").sum((1, 2)).mean()
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (log_variance / 2).exp()), torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    assert torch.isclose(vae_loss(logits, inputs, mean, log_variance), rebuilt + divergence)
    assert torch.isclose(vae_loss(logits, inputs, mean, log_variance, beta=0, kind="mse"),
                         ((logits - inputs) ** 2).sum((1, 2)).mean() / 2)
    with refuses("one shape"):
        vae_loss(logits, inputs[:2], mean, log_variance)
    with refuses("at least 0"):
        vae_loss(logits, inputs, mean, log_variance, beta=-1)
    with refuses("unknown kind 'l1'"):
        vae_loss(logits, inputs, mean, log_variance, kind="l1")


# Several losses


def test_composite_is_the_weighted_sum_and_keeps_its_parts():
    outputs, targets = normal(6, 2).requires_grad_(), normal(6, 2, seed=1)
    composite = CompositeLoss({"mse": {}, "huber": {"delta": 0.5}, "mine": lambda o, t: (o - t).abs().max(), "module": nn.L1Loss()},
                              {"mse": 2, "mine": 0.1, "module": 0})
    total = composite(outputs, targets)
    parts = [F.mse_loss(outputs, targets), F.huber_loss(outputs, targets, delta=0.5), (outputs - targets).abs().max()]
    assert torch.isclose(total, 2 * parts[0] + parts[1] + 0.1 * parts[2])
    assert list(composite.components) == ["mse", "huber", "mine", "module"]
    assert composite.components["mse"] == parts[0] and composite.components["module"] == F.l1_loss(outputs, targets)
    assert not any(value.requires_grad for value in composite.components.values())
    total.backward()
    composite.weights["mse"] = 0.0
    assert torch.isclose(composite(outputs, targets), parts[1] + 0.1 * parts[2])


@pytest.mark.parametrize(("change", "words"), [
    ({"l1": -5}, "at least 0"), ({"l1": math.nan}, "got nan"), ({"mes": 1.0}, "Did you mean 'mse'"),
    ({"mse": 0, "l1": 0}, "nothing to train"),
])
def test_weights_changed_between_calls_are_checked(change, words):
    composite = CompositeLoss({"mse": {}, "l1": {}})
    assert composite(torch.ones(2), torch.zeros(2)) == 2
    composite.weights.update(change)
    with refuses(words):
        composite(torch.ones(2), torch.zeros(2))
    composite.weights = {"l1": 3.0}  # 1 for those left out, as at the start
    assert composite(torch.ones(2), torch.zeros(2)) == 4


def test_a_part_that_is_only_watched_cannot_spoil_the_sum():
    composite = CompositeLoss({"mse": {}, "broken": lambda o, t: o.sum() * math.nan}, {"broken": 0})
    outputs = torch.ones(2, requires_grad=True)
    total = composite(outputs, torch.zeros(2))
    total.backward()
    assert total == 1 and outputs.grad.isfinite().all() and composite.components["broken"].isnan()


@pytest.mark.parametrize(("losses", "weights", "words"), [
    ({}, None, "a dict of parts"), (["mse"], None, "a dict of parts"), ({"mse": {}}, {"mee": 1}, "Did you mean 'mse'"),
    ({"mse": {}}, {"mse": -0.1}, "at least 0"), ({"mse": {}}, {"mse": math.inf}, "got inf"),
    ({"mse": {}}, {"mse": True}, "expected a number"),
    ({"mse": {}}, {"mse": "1"}, "expected a number"), ({"mse": {}}, [1.0], "dict of names"), ({"mse": {}}, {"mse": 0}, "nothing to train"),
    ({"mes": {}}, None, "Did you mean 'mse'"), ({"mse": {"redution": "sum"}}, None, "Did you mean 'reduction'"),
    ({"mse": nn.MSELoss}, None, "MSELoss"), ({"mse": 3}, None, "a module or a function"), ({1: {}}, None, "the name of a part, got 1"),
])
def test_composite_says_what_is_wrong(losses, weights, words):
    with refuses(words):
        CompositeLoss(losses, weights)


def test_constructors_name_the_argument():
    for make, words in [(lambda: FocalLoss(-1), "FocalLoss.gamma: expected a number of at least 0, got -1"),
                        (lambda: FocalLoss(reduction="avg"), "FocalLoss.reduction: expected one of"),
                        (lambda: FocalLoss(gama=1), "FocalLoss: unknown argument 'gama'. Did you mean 'gamma'"),
                        (lambda: GIoULoss("average"), "^GIoULoss.reduction: expected one of")]:
        with refuses(words):
            make()


def test_a_part_must_give_one_number():
    for part in [{"reduction": "none"}, lambda o, t: 1.0]:
        with refuses("one number"):
            CompositeLoss({"mse": part})(torch.ones(2), torch.zeros(2))


def test_penalties():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    numbers = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.isclose(l1_penalty(model)(), numbers.abs().sum()) and torch.isclose(l2_penalty(model)(), (numbers**2).sum())
    for ratio in (0.0, 0.3, 1.0):
        expected = ratio * numbers.abs().sum() + (1 - ratio) * (numbers**2).sum()
        assert torch.isclose(elastic_net(model, ratio)(), expected)
    weights = l1_penalty(model, include=lambda name, p: p.ndim > 1)
    assert torch.isclose(weights(), sum(m.weight.abs().sum() for m in model))
    assert torch.isclose(1 + 0.5 * weights, 1 + weights() / 2) and torch.isclose(weights * 2 + weights, 3 * weights())
    assert torch.isclose(torch.tensor(1.0) + weights, 1 + weights())
    model[0].weight.requires_grad_(False)
    assert l1_penalty(model)() < numbers.abs().sum()
    model.requires_grad_(False)
    with refuses("no trainable parameter"):
        l2_penalty(model)()
    with refuses("ParameterPenalty.model: expected a Module, got"):
        l1_penalty([model])
    with refuses("elastic_net.l1_ratio: expected a number from 0 to 1"):
        elastic_net(model, 1.5)
    for penalty in (l1_penalty, l2_penalty):
        with refuses("Is this the strength"):
            penalty(model, 0.01)
    for factors, words in [({"l1": -1.0}, "ParameterPenalty.l1: expected a number of at least 0"),
                           ({"l2": math.nan}, "ParameterPenalty.l2: expected a number")]:
        with refuses(words):
            ParameterPenalty(model, **factors)
    assert repr(ParameterPenalty(model, 0.5, 2)) == "ParameterPenalty(l1=0.5, l2=2)"


def test_a_composite_with_a_penalty_owns_no_parameters_and_can_be_copied():
    model = nn.Linear(3, 1)
    composite = CompositeLoss({"mse": {}, "l2": l2_penalty(model)}, {"l2": 0.1})
    assert not list(composite.parameters()) and not composite.state_dict()
    pair = copy.deepcopy((model, composite))
    with torch.no_grad():
        pair[0].weight.zero_()
        pair[0].bias.zero_()
    assert pair[1](torch.zeros(1), torch.zeros(1)) == 0 and composite(torch.zeros(1), torch.zeros(1)) > 0
    alone = copy.deepcopy(composite)  # looks at the model, not at a private copy of it
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.bias.zero_()
    assert math.isclose(alone(torch.zeros(1), torch.zeros(1)).item(), 0.1 * 12, rel_tol=1e-6)
    alone(torch.zeros(1), torch.zeros(1)).backward()
    assert model.weight.grad is not None
    again = copy.deepcopy(l1_penalty(model, include=lambda name, p: "bias" in name))
    assert again() == 0 and again.model is model
    assert pickle.loads(pickle.dumps(get_loss_function("focal", weight=[1.0, 2.0]))).weight.tolist() == [1, 2]
    assert isinstance(CompositeLoss({"f": max}).parts[0], FunctionLoss)


def test_explorers_fit_their_budget_and_show_what_torch_computes():
    from nnlearn.course.explore import decode
    for explorer in (residual_explorer(), cross_entropy_explorer()):
        assert len(explorer.html) < 150_000
    shown = decode(residual_explorer().html)["types"][""]["curves"][("2",)]
    r, cost = (np.array(v) for v in shown["Huber"])
    inside = cost <= 6
    assert np.allclose(cost[inside], np.where(abs(r) <= 2, r**2 / 2, 2 * abs(r) - 2)[inside], atol=0.01)


def test_a_power_between_two_integers_is_refused():
    with pytest.raises(ConfigError, match="p: expected an integer, got 1.5"):
        get_loss_function("multi_margin", p=1.5)
    assert get_loss_function("multi_margin", p=2.0).p == 2
