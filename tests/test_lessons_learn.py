"""What lessons 01 and 02 do not show of `nnlearn.passes` and `nnlearn.autograd`: odd inputs, and mistakes that must be caught."""
import functools
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays, mutually_broadcastable_shapes
from torch import nn

from nnlearn.autograd import Tensor, backpropagate, cross_entropy, draw, ordered, tangent, unbroadcast
from nnlearn.core import ConfigError, count_parameters
from nnlearn.course.explorers import gradient_step_explorer
from nnlearn.passes import descend_parabola, manual_step
from nnlearn.probes import GradientError, gradient_check, trace_shapes

ones = functools.partial(torch.ones, dtype=torch.float64)


def refuses(match):
    return pytest.raises(ConfigError, match=match)


# trace_shapes


class Own(nn.Module):
    """Holds a parameter and layers, and calls them as a test wants."""

    def __init__(self, call, **layers):
        super().__init__()
        self.call = call
        self.scale = nn.Parameter(torch.ones(3))
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.call(self, x)


class Plain(Own):
    """The same without a parameter of its own."""

    def __init__(self, call, **layers):
        super().__init__(call, **layers)
        del self.scale


def rows(trace):
    return [(row.name, row.inputs, row.outputs, row.parameters) for row in trace]


def test_a_layer_that_gives_a_tuple():
    model = Plain(lambda m, x: m.out(m.lstm(x)[0]), lstm=nn.LSTM(4, 3, batch_first=True), out=nn.Linear(3, 2))
    assert rows(trace_shapes(model, torch.ones(2, 5, 4))) == [("lstm", (2, 5, 4), (2, 5, 3), 108), ("out", (2, 5, 3), (2, 5, 2), 8)]


def test_a_layer_called_by_keyword():
    model = Plain(lambda m, x: m.out(input=x), out=nn.Linear(3, 2))
    assert rows(trace_shapes(model, torch.ones(4, 3))) == [("out", (4, 3), (4, 2), 8)]


def test_layers_that_give_no_tensor_and_dicts():
    assert trace_shapes(Plain(lambda m, x: [None, {"a": x}]), torch.ones(2, 3))[0].outputs == (2, 3)
    assert trace_shapes(Plain(lambda m, x: "text"), torch.ones(2, 3))[0].outputs == ()


@pytest.mark.parametrize("model", [
    Plain(lambda m, x: m.attention(x, x, x)[0], attention=nn.MultiheadAttention(3, 1, batch_first=True)),
    Own(lambda m, x: m.out(x * m.scale), out=nn.Linear(3, 2)),
    nn.Sequential(shared := nn.Linear(3, 3), nn.ReLU(), shared),
    nn.TransformerEncoderLayer(3, 1, 8, batch_first=True),
], ids=["attention", "a parameter of its own", "a shared layer", "a transformer layer"])
def test_every_parameter_is_counted_once(model):
    trace = trace_shapes(model, torch.ones(2, 5, 3))
    assert trace and sum(row.parameters for row in trace) == count_parameters(model)


@pytest.mark.parametrize(("model", "inputs", "where"), [
    (nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 2)), torch.ones(1, 3), r"at layer 1 \(Linear\(in_features=5"),
    (nn.Sequential(nn.Embedding(5, 3)), torch.tensor([[9]]), "at layer 0 .Embedding.* out of range"),
    (nn.Linear(3, 2), torch.ones(1, 3, dtype=torch.int64), "at layer model"),
    (Plain(lambda m, x: m.a(x) @ x, a=nn.Linear(3, 4)), torch.ones(1, 3), "after layer a"),
    (Plain(lambda m, x: m.a(x).view(7), a=nn.Linear(3, 4)), torch.ones(1, 3), "after layer a"),
    (Plain(lambda m, x: m.a(x.view(7)), a=nn.Linear(3, 4)), torch.ones(1, 3), "before the first layer"),
    (Plain(lambda m, x: m.a(), a=nn.Linear(3, 4)), torch.ones(1, 3), "missing 1 required"),
    (Own(lambda m, x: m.a(x) @ x, a=nn.Linear(3, 4)), torch.ones(1, 3), r"at layer model \(Own\)"),
])
def test_an_error_names_the_place(model, inputs, where):
    with refuses(f"trace_shapes: stopped .*{where}") as caught:
        trace_shapes(model, inputs)
    assert caught.value.__cause__ is not None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_is_no_module_or_no_tensor():
    with refuses("trace_shapes.model: expected a Module, got function"):
        trace_shapes(lambda x: x, torch.ones(1))
    with refuses("trace_shapes.inputs: expected one batch as a torch tensor, got ndarray.*as_tensor"):
        trace_shapes(nn.Linear(3, 2), np.ones((1, 3)))
    with refuses("trace_shapes.inputs: .* got NoneType"):
        trace_shapes(nn.Linear(3, 2), None)


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trace_shapes(model, torch.ones(1, 3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [m.training for m in model] == [True, True, False] and all(p.grad is None for p in model.parameters())


def test_the_table_fits_long_names():
    lines = str(trace_shapes(nn.Sequential(nn.Sequential(nn.AdaptiveAvgPool2d(2))), torch.ones(10, 3, 224, 224))).splitlines()
    assert "0.0    AdaptiveAvgPool2d  (10, 3, 224, 224)  ->  (10, 3, 2, 2)" in lines[1]
    assert len({len(line) for line in lines}) == 1


# gradient_check


@pytest.mark.parametrize(("inputs", "match"), [
    (ones(2), r"inputs: expected a list of tensors, got Tensor. For one input: \[x\]"),
    ([], "at least one number to check"),
    ([ones(0)], "at least one number to check"),
    ([[1.0, 2.0]], r"inputs\[0\]: expected tensors of float64, got list"),
    ([ones(1), np.ones(2)], r"inputs\[1\]: expected tensors of float64, got ndarray"),
    ([None], r"inputs\[0\]: .* got NoneType"),
    ([torch.ones(2)], r"inputs\[0\]: .* got float32.*double"),
    ([Tensor(np.ones(2, np.float32))], r"inputs\[0\]: .* got float32"),
    ([torch.ones(2, dtype=torch.complex128)], r"inputs\[0\]: .* got complex128"),
])
def test_inputs_that_cannot_be_checked(inputs, match):
    with refuses(match):
        gradient_check(lambda *values: sum((value * value).sum() for value in values), inputs)


@pytest.mark.parametrize(("fn", "match"), [
    (lambda a: a * 2, r"expected one number as a tensor, got shape \(2,\); take its sum"),
    (lambda a: 3.0, "got 3.0, which has no backward"),
    (lambda a: None, "got None"),
    (lambda a: torch.tensor(3.0), "does not depend on any input"),
    (lambda a: (a.detach() ** 2).sum(), "does not depend on any input"),
    (lambda a: nn.functional.dropout(torch.cat([a] * 50), 0.5).sum(), "fn is not deterministic.*random"),
])
def test_functions_that_cannot_be_checked(fn, match):
    torch.manual_seed(0)
    with refuses(match):
        gradient_check(fn, [ones(2)])


def test_a_scratch_function_that_ignores_its_input():
    with refuses("does not depend on any input"):
        gradient_check(lambda a: Tensor(3.0), [Tensor([1.0])])


@pytest.mark.parametrize("name", ["eps", "tol"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "small", None, True])
def test_eps_and_tol_are_numbers_above_0(name, value):
    with refuses(f"gradient_check.{name}: expected a number above 0, got"):
        gradient_check(lambda a: a.sum(), [ones(1)], **{name: value})


def test_what_can_be_checked():
    x = ones(2, 3)
    assert gradient_check(lambda a, b: (a**2).sum(), (x, x)) < 1e-8  # b is not used: its gradient is 0
    assert gradient_check(lambda a: a.sum(0, keepdim=True), [ones(2)]) < 1e-8
    assert gradient_check(lambda a: a * a, [Tensor(3)]) < 1e-8
    assert torch.equal(x, ones(2, 3)) and x.grad is None and not x.requires_grad


@pytest.mark.parametrize("fn", [
    lambda a: (a.detach() ** 2).sum() + (a * 0).sum(),
    lambda a: (a / 0 * 0).sum(),
    lambda a: a.relu().sum() * 2 - a.detach().sum(),
])
def test_wrong_gradients_are_found(fn):
    with pytest.raises(GradientError, match=r"input 0, entry \(0,\)"):
        gradient_check(fn, [ones(2)])


# manual_step and the explorer


def test_manual_step_takes_numpy_numbers():
    model = nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    before = model.bias.item()
    manual_step(model, np.float32(0.5))
    assert model.bias.item() == pytest.approx(before - 0.5)


@pytest.mark.parametrize("rate", [0, -0.1, float("nan"), float("inf"), "0.1", None, True, torch.tensor(0.1)])
def test_manual_step_refuses_other_rates(rate):
    with refuses("manual_step.learning_rate: expected a number above 0, got"):
        manual_step(nn.Linear(2, 2), rate)


def test_manual_step_refuses_what_is_no_module():
    with refuses("manual_step.model: expected a torch module, got list"):
        manual_step(list(nn.Linear(2, 2).parameters()), 0.1)
    with refuses("Call loss.backward"):
        manual_step(nn.ReLU(), 0.1)


def test_manual_step_leaves_parameters_without_gradient_alone():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0](torch.ones(1, 2)).sum().backward()
    before = [p.clone() for p in model.parameters()]
    manual_step(model, 0.1)
    assert [torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True)] == [False, False, True, True]


def test_the_explorer_draws_only_steps_where_they_are(monkeypatch):
    monkeypatch.setattr("nnlearn.course.explorers.explore", lambda draw, **how: draw)
    draw_step = gradient_step_explorer()
    for rate in (0.1, 1.0, 2.1):
        path = descend_parabola(rate, -5.0, 10)
        curves = draw_step(learning_rate=rate, start=-5.0, steps=10)
        x, y = curves["steps"][:2]
        assert set(x) <= set(path) and np.allclose(y, (x - 1) ** 2 / 2) and np.array_equal(curves["way"][0], x)
        assert len(x) == (np.abs(path - 1) <= 10).sum() >= 6


# The engine: what it takes


@pytest.mark.parametrize("value", ["a", None, 1j, object(), [[1], [1, 2]], torch.ones(2, requires_grad=True)])
def test_what_is_not_numbers(value):
    with refuses("Tensor: expected numbers"):
        Tensor(value)
    for operation in (lambda x: x + value, lambda x: x - value, lambda x: x * value, lambda x: x / value, lambda x: x @ value):
        with refuses("Tensor: expected numbers"):
            operation(Tensor([[1.0]]))


def test_a_tensor_is_not_made_of_a_tensor():
    with refuses("Tensor: expected numbers, got Tensor"):
        Tensor(Tensor(1.0))


def test_a_tensor_keeps_its_own_copy():
    array = np.ones(3)
    x = Tensor(array)
    array[0] = 9
    assert x.data.tolist() == [1, 1, 1]


@pytest.mark.parametrize("other", [True, np.uint8(1), np.array([1], np.uint8), np.array([True]), 1, [1], np.float32(1)])
def test_numbers_of_all_kinds(other):
    x = Tensor(1.0)
    found = [x - other, other - x, x + other, other + x, x * other, x / other]
    assert [float(y.data.reshape(())) for y in found] == [0, 0, 2, 2, 1, 1]
    assert all(isinstance(y, Tensor) and y.data.dtype == np.float64 for y in found)


def test_a_torch_tensor_becomes_a_constant():
    x = Tensor([1.0, 2.0])
    (x * torch.tensor([3.0, 4.0])).sum().backward()
    assert x.grad.tolist() == [3, 4]


def test_arrays_on_the_left():
    x = Tensor(np.arange(6.0).reshape(2, 3))
    for operation in (np.multiply, np.add, np.subtract, np.true_divide):
        with np.errstate(divide="ignore"):
            expected = operation(np.full((2, 3), 2.0), x.data)
            found = {np.multiply: lambda a: a * x, np.add: lambda a: a + x, np.subtract: lambda a: a - x,
                     np.true_divide: lambda a: a / x}[operation](np.full((2, 3), 2.0))
        assert isinstance(found, Tensor) and np.array_equal(found.data, expected)
    product = np.ones((4, 2)) @ x
    product.sum().backward()
    assert product.shape == (4, 3) and np.array_equal(x.grad, np.full((2, 3), 4.0))


def test_shapes_that_do_not_fit():
    for operation in (lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b):
        with refuses(r"[-+*]: cannot broadcast shapes \(2,\) and \(3,\)"):
            operation(Tensor([1.0, 2.0]), Tensor([1.0, 2.0, 3.0]))
    for first, second in [((2, 3), (2, 3)), ((3,), (3, 2)), ((2, 3, 4), (4, 2))]:
        with refuses("matmul: cannot multiply shapes .* and .*Expected two matrices"):
            Tensor(np.ones(first)) @ Tensor(np.ones(second))


@pytest.mark.parametrize("power", [Tensor(2.0), np.array([1.0, 2.0]), "a", None, 1j])
def test_powers_are_plain_numbers(power):
    with refuses("expected a plain number as the power"):
        Tensor(2.0) ** power


def test_powers_at_zero():
    for power, slope in [(0, [0, 0]), (1, [1, 1]), (2, [0, -2]), (3, [0, 3])]:
        x = Tensor([0.0, -1.0])
        (x**power).sum().backward()
        assert x.grad.tolist() == slope


def test_one_number_is_needed():
    for make in (lambda: Tensor([1.0, 2.0]), lambda: Tensor([])):
        with refuses("backward: expected one number, got shape"):
            make().backward()
        with refuses("item: expected one number, got shape"):
            make().item()
    with refuses("mean of an empty tensor"):
        Tensor([]).mean()
    x = Tensor([[3.0]])
    (x * 2).backward()
    assert x.grad.tolist() == [[2.0]]


# The engine: mistakes that must not come back


def test_equally_large_entries_share_the_gradient():
    x = Tensor([[1.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    x.max(1).sum().backward()
    assert np.allclose(x.grad, [[0, 0.5, 0.5], [1 / 3] * 3])
    t = torch.tensor(x.data, requires_grad=True)
    t.amax(1).sum().backward()
    assert np.allclose(x.grad, t.grad)


def test_relu_at_zero_and_beyond():
    x = Tensor([-np.inf, -1.0, -0.0, 0.0, 2.0, np.inf])
    y = x.relu()
    y.sum().backward()
    assert y.data.tolist() == [0, 0, 0, 0, 2, np.inf] and not np.signbit(y.data[:2]).any()
    assert x.grad.tolist() == [0, 0, 0, 0, 1, 1]
    assert np.isnan(Tensor(np.nan).relu().item())


def test_leaves_add_up_and_the_others_begin_anew():
    x = Tensor(2.0)
    inner = x * x
    outer = inner * 3.0
    for walk in (1, 2, 3):
        backpropagate(outer)
        assert x.grad == 12 * walk and inner.grad == 3 and outer.grad == 1


def test_two_heads_of_one_graph():
    x = Tensor(2.0)
    inner = x * x
    (inner + 1).backward()
    (inner * 2).backward()
    assert x.grad == 12 and inner.grad == 2


def test_gradients_share_no_memory():
    a, b = Tensor([1.0, 2.0]), Tensor([1.0, 2.0])
    (a + b).sum().backward()
    a.grad[0] = 99
    assert b.grad.tolist() == [1, 1]


def test_a_value_used_many_times():
    x = Tensor([1.0, 2.0])
    (x + x - x * x / x + x[[0, 0, 1]].sum()).sum().backward()
    assert np.allclose(x.grad, [1 + 4, 1 + 2])


def test_deep_graphs():
    x = y = Tensor(1.0)
    for _ in range(20_000):
        y = y + 1.0
    y.backward()
    assert x.grad == 1 and len(ordered(y)) == 40_001


def test_parents_come_first_in_the_order():
    a = Tensor(1.0)
    b = a * a
    order = ordered((b + a) * (b - a))
    at = {id(node): i for i, node in enumerate(order)}
    assert len(at) == len(order) and all(at[id(p)] < at[id(node)] for node in order for p in node.parents)


REDUCTIONS = [(name, axis, keep) for name in ("sum", "mean", "max") for axis in (None, 0, 1, -1, (0, 2)) for keep in (False, True)]


@pytest.mark.parametrize(("name", "axis", "keep"), REDUCTIONS)
def test_reductions_are_those_of_torch(name, axis, keep):
    array = np.random.default_rng(0).standard_normal((2, 3, 4))
    x, t = Tensor(array), torch.tensor(array, requires_grad=True)
    ours = getattr(x, name)(axis, keepdims=keep)
    theirs = getattr(t, "amax" if name == "max" else name)(axis if axis is not None else (0, 1, 2), keepdim=keep)
    assert ours.shape == tuple(theirs.shape)
    weights = np.random.default_rng(1).random(ours.shape)
    (ours * weights).sum().backward()
    (theirs * torch.tensor(weights)).sum().backward()
    assert np.allclose(ours.data, theirs.detach(), rtol=1e-12) and np.allclose(x.grad, t.grad, rtol=1e-12)


INDICES = [0, -1, slice(None, None, -1), (slice(None), 0), [0, 0, 1], (np.array([0, 1, 0]), np.array([2, 2, 2])), None, (Ellipsis, 1),
           np.array([[True, False, True], [False, True, False]])]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indices(index):
    x = Tensor(np.arange(6.0).reshape(2, 3))
    expected = np.zeros((2, 3))
    np.add.at(expected, index, 2 * x.data[index])
    (x[index] ** 2).sum().backward()
    assert np.array_equal(x.grad, expected)


OPERATIONS = {
    "add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b, "divide": lambda a, b: a / b,
    "mixed": lambda a, b: 2 / a - (1 - b) ** 3 * a, "functions": lambda a, b: (a * b).exp() + (a + b).log() + (a - b).relu(),
}
numbers = st.floats(0.5, 2.0, allow_subnormal=False)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), name=st.sampled_from(sorted(OPERATIONS)),
       shapes=mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=3))
def test_broadcast_gradients_are_those_of_torch(data, name, shapes):
    values = [data.draw(arrays(np.float64, shape, elements=numbers)) for shape in shapes.input_shapes]
    ours, theirs = [Tensor(v) for v in values], [torch.tensor(v, requires_grad=True) for v in values]
    out = OPERATIONS[name](*ours)
    weights = np.cos(np.arange(out.data.size, dtype=float)).reshape(out.shape)
    (out * weights).sum().backward()
    (OPERATIONS[name](*theirs) * torch.tensor(weights)).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad.shape == mine.shape
        assert np.allclose(mine.grad, other.grad, rtol=1e-10, atol=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(shapes=mutually_broadcastable_shapes(num_shapes=1, base_shape=(2, 3, 4), max_dims=3))
def test_unbroadcast_sums_what_broadcasting_repeated(shapes):
    shape = shapes.input_shapes[0]
    gradient = np.ones(np.broadcast_shapes(shape, (2, 3, 4)))
    found = unbroadcast(gradient, shape)
    assert found.shape == shape and found.sum() == gradient.sum()


# cross_entropy


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data(), rows=st.integers(1, 4), classes=st.integers(1, 5), kind=st.sampled_from([list, np.array, torch.tensor]))
def test_cross_entropy_is_that_of_torch(data, rows, classes, kind):
    array = data.draw(arrays(np.float64, (rows, classes), elements=st.floats(-2000, 2000)))
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    x, t = Tensor(array), torch.tensor(array, requires_grad=True)
    ours, theirs = cross_entropy(x, kind(labels)), nn.functional.cross_entropy(t, torch.tensor(labels))
    ours.backward()
    theirs.backward()
    assert np.isclose(ours.item(), theirs.item(), rtol=1e-10, atol=1e-10)
    assert np.allclose(x.grad, t.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("labels", [
    np.eye(3), np.eye(3, dtype=int), [True, False, True], [0.0, 1.0, 2.0], [0], [0, 1], 0, [], None, ["a", "b", "c"],
])
def test_labels_are_one_whole_number_a_row(labels):
    with refuses("cross_entropy.labels: expected 3 integers, one per row, got"):
        cross_entropy(Tensor(np.ones((3, 3))), labels)


@pytest.mark.parametrize("labels", [[-1, 0], [0, 3], [5, 5]])
def test_labels_are_classes(labels):
    with refuses("expected class indices from 0 to 2, got"):
        cross_entropy(Tensor(np.ones((2, 3))), labels)


@pytest.mark.parametrize("logits", [[[1.0, 2.0]], np.ones((1, 2)), Tensor([1.0, 2.0]), Tensor(np.ones((0, 3))), Tensor(1.0), None])
def test_logits_are_a_tensor_of_rows(logits):
    with refuses(r"cross_entropy.logits: expected a Tensor of shape \(batch, classes\), got"):
        cross_entropy(logits, [0])


# draw and tangent


def test_only_nodes_are_drawn():
    for value in (3.0, None, np.ones(2), torch.ones(1)):
        with refuses("draw.node: expected a Tensor, got"):
            draw(value)


@pytest.mark.parametrize("node", [Tensor(1.0), Tensor(1.0, name="constant"), Tensor(np.nan) * 2, Tensor([]) * 2])
def test_small_graphs_are_drawn(node):
    picture = draw(node)
    assert picture.startswith("<svg") and picture.count("<rect") == len([n for n in ordered(node) if n.name != "constant"] or [node]) + 1


def test_lines_carry_what_flows_back():
    x, y = Tensor(3.0, name="x"), Tensor(-4.0, name="y")
    end = (x * y + x) * 2
    assert "·" not in draw(end)  # nothing has flowed yet
    end.backward()
    picture = draw(end)
    assert "−4 · 2 = −8" in picture and "3 · 2 = 6" in picture and "1 · 2 = 2" in picture and "2 · 1 = 2" in picture
    square = x * x
    x.grad = None
    square.backward()
    assert "3 · 1 = 3, 3 · 1 = 3" in draw(square)  # both uses, on their one line
    assert "·" not in draw((Tensor([1.0, 2.0]) * square).sum())


def test_labels_stand_on_different_lines():
    x, y = Tensor(3.0, name="x"), Tensor(-4.0, name="y")
    end = x * y + x
    end.backward()
    places = re.findall(r'<text x="(\d+)" y="(\d+)"[^>]*>[^<]*·', draw(end))
    assert len(set(places)) == 4


def test_names_cannot_break_the_picture():
    picture = draw(Tensor(1.0, name="<script>&") * 2)
    assert "&lt;script&gt;&amp;" in picture and "<script" not in picture


def test_a_leaf_stands_just_before_its_first_use():
    x, bias = Tensor(1.0, name="x"), Tensor(1.0, name="bias")
    picture = draw(x.exp().exp() + bias)
    assert 'x="325" y="' in picture.split(">bias")[0].rsplit("<text", 1)[1]  # the column of the second exp


@pytest.mark.parametrize(("function", "value", "slope"), [
    (lambda x: x**2, 4, 4), (lambda x: 3.0, 3, 0), (lambda x: Tensor(3.0), 3, 0), (lambda x: x, 2, 1),
])
def test_tangents(function, value, slope):
    assert tangent(function, 2) == (value, slope)


def test_tangents_that_cannot_be():
    with refuses("tangent.at: expected a number, got a list of 2 items"):
        tangent(lambda x: x**2, [1.0, 2.0])
    with refuses("expected numbers, got None"):
        tangent(lambda x: None, 2.0)
