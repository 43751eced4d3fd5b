"""Integers: against torch's fake quantization, properties for any values, observers, layers, odd inputs."""
import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nnlearn.core import ConfigError
from nnlearn.course.explorers import clipping_explorer, rounding_explorer
from nnlearn.integers import (
    Affine,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageObserver,
    Observer,
    PercentileObserver,
    QuantLinear,
    affine_params,
    dequantize,
    fake_quantize,
    int_matmul,
    quantize,
    quantize_linears,
    range_params,
)

FLOATS = st.floats(-(2.0**99), 2.0**99, width=32)
HERE = range_params(-1, 1)  # of 8 bits
OBSERVERS = [MinMaxObserver, MovingAverageObserver, PercentileObserver, HistogramObserver]


def data(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


CONFIGURATIONS = [(8, False, None), (2, True, None), (3, False, 0), (5, True, 1), (7, False, 2), (16, True, -1)]


@pytest.mark.parametrize("bits, symmetric, axis", CONFIGURATIONS)
def test_values_and_gradients_are_torchs(bits, symmetric, axis):
    x = (3 * data(4, 5, 6) + 1).requires_grad_()
    params = affine_params(0.6 * x, bits, symmetric, axis)  # a tighter range, so that some values are clamped
    upstream = data(4, 5, 6, seed=1)
    ours = fake_quantize(x, params)
    gradient, = torch.autograd.grad((ours * upstream).sum(), x)
    if axis is None:
        theirs = torch.fake_quantize_per_tensor_affine(x, params.scale, params.zero_point, params.low, params.high)
    else:
        theirs = torch.fake_quantize_per_channel_affine(x, params.scale, params.zero_point, axis % 3, params.low, params.high)
    expected, = torch.autograd.grad((theirs * upstream).sum(), x)
    assert torch.equal(ours, theirs) and torch.equal(gradient, expected) and (gradient == 0).any() and (gradient != 0).any()
    assert torch.equal(ours, dequantize(quantize(x, params), params))


@settings(max_examples=200, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=20), st.integers(2, 16), st.booleans())
def test_any_finite_values_come_back_within_half_a_step(values, bits, symmetric):
    x = torch.tensor(values, dtype=torch.float64)
    params = affine_params(x, bits, symmetric)
    q = quantize(x, params)
    assert params.low <= int(q.min()) and int(q.max()) <= params.high and q.dtype == params.dtype
    assert params.low <= int(params.zero_point) <= params.high and params.scale > 0 and params.scale.isfinite()
    back = dequantize(q, params)
    assert ((back - x).abs() <= 0.5000001 * params.scale).all()
    assert (back[x == 0] == 0).all() and dequantize(params.zero_point, params) == 0
    if symmetric:
        assert params.zero_point == 0 and torch.equal(quantize(-x, params), -q)


@settings(max_examples=100, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=10), st.integers(2, 16))
def test_float32_is_never_further_off_than_rounding_allows(values, bits):
    x = torch.tensor(values, dtype=torch.float32)
    params = affine_params(x, bits)
    back = dequantize(quantize(x, params), params)
    assert back.isfinite().all() and ((back - x).double().abs() <= 0.52 * params.scale.double()).all()
    assert torch.equal(fake_quantize(back, params), back)  # rounding twice changes nothing


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(2, 8), st.booleans(), st.booleans(), st.integers(1, 40))
def test_integer_products_are_exact(seed, a_bits, b_bits, a_symmetric, b_symmetric, length):
    a, b = data(3, length, seed=seed).double() + 0.3, data(length, 4, seed=seed + 1).double()
    pa, pb = affine_params(a, a_bits, a_symmetric, axis=0), affine_params(b, b_bits, b_symmetric, axis=1)
    qa, qb = quantize(a, pa), quantize(b, pb)
    (sa, za), (sb, zb) = pa.along(2), pb.along(2)
    assert torch.equal(int_matmul(qa, qb, pa, pb), ((qa.double() - za) @ (qb.double() - zb)) * sa * sb)
    assert torch.allclose(int_matmul(qa, qb, pa, pb), dequantize(qa, pa) @ dequantize(qb, pb), rtol=1e-12, atol=1e-12)


def test_products_of_batches_and_rows():
    a, b = data(2, 3, 10), data(10, 4, seed=1)
    pa, pb = affine_params(a, 8), affine_params(b, 8, True, axis=1)
    qa, qb = quantize(a, pa), quantize(b, pb)
    whole = int_matmul(qa, qb, pa, pb)
    assert whole.shape == (2, 3, 4)
    assert torch.equal(int_matmul(qa[1, 2], qb, pa, pb), whole[1, 2])
    rows = affine_params(a, 8, axis=0)
    assert torch.allclose(int_matmul(quantize(a, rows), qb, rows, pb), dequantize(quantize(a, rows), rows) @ dequantize(qb, pb), atol=1e-5)


def test_a_sum_at_the_edge_of_int32_is_right_and_beyond_it_refused():
    params = Affine(torch.tensor(1.0, dtype=torch.float64), torch.tensor(0, dtype=torch.int32), -32767, 32767)
    two = torch.full((1, 2), 32767, dtype=torch.int16)
    assert int_matmul(two[:, :1], two[:, :1].T, params, params).item() == 32767**2
    with pytest.raises(ConfigError, match="int32 ends at"):
        int_matmul(two.repeat(1, 2), two.repeat(1, 2).T, params, params)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type(dtype):
    x = data(50).to(dtype)
    params = affine_params(x, 16)
    assert fake_quantize(x, params).dtype == dtype and params.scale.isfinite() and params.scale > 0
    assert torch.allclose(fake_quantize(x, params).double(), x.double(), atol=0.02)


def test_zeros_and_constants():
    for value in (0.0, 5.0, -5.0, 1e-45, 3e38, -3e38):
        for symmetric in (True, False):
            x = torch.full((4,), value)
            params = affine_params(x, 8, symmetric)
            back = dequantize(quantize(x, params), params)
            assert torch.allclose(back, x, rtol=1e-6, atol=1e-37) and back.isfinite().all()


def test_scalars_and_the_smallest_type():
    assert fake_quantize(torch.tensor(2.0), affine_params(torch.tensor(2.0))) == 2
    kinds = {(8, True): torch.int8, (8, False): torch.uint8, (9, True): torch.int16, (15, False): torch.int16, (16, False): torch.int32}
    for (bits, symmetric), kind in kinds.items():
        assert affine_params(data(5), bits, symmetric).dtype == kind


@pytest.mark.parametrize("call, words", [
    (lambda: affine_params(data(3), 1), "affine_params.bits"),
    (lambda: affine_params(data(3), 17), "from 2 to 16"),
    (lambda: affine_params(data(3), 8.0), "affine_params.bits: expected an integer from 2 to 16, got 8.0"),
    (lambda: affine_params(data(3), True), "got True"),
    (lambda: affine_params(torch.empty(0)), "empty"),
    (lambda: affine_params(torch.tensor([math.nan])), "NaN or infinite"),
    (lambda: affine_params(torch.tensor([math.inf])), "NaN or infinite"),
    (lambda: affine_params([1.0, 2.0]), "affine_params.tensor: expected a Tensor, got a list"),
    (lambda: affine_params(torch.arange(3)), "tensor.float"),
    (lambda: affine_params(data(3, 4), axis=2), "from -2 to 1"),
    (lambda: affine_params(data(3, 4), axis="rows"), "affine_params.axis: expected an integer or None, got 'rows'"),
    (lambda: affine_params(torch.tensor(1.0), axis=0), "expected None for a tensor of 0 dimensions, got 0"),
    (lambda: range_params(1, -1), "swapped"),
    (lambda: range_params(math.nan, 1), "swapped"),
    (lambda: range_params("a", 1), "range_params: expected numbers or tensors"),
    (lambda: range_params(torch.zeros(2), torch.ones(3)), "one for each channel"),
    (lambda: quantize(torch.tensor([math.nan]), range_params(-1, 1)), "NaN or infinite"),
    (lambda: quantize(data(3), 0.5), "quantize.params: expected a Affine, got 0.5"),
    (lambda: quantize(data(3, 4), affine_params(data(3, 4), axis=0)._replace(axis=None)), "need an axis"),
    (lambda: quantize(data(4, 3), affine_params(data(3, 4), axis=0)), "do not match"),
    (lambda: fake_quantize(data(3), affine_params(data(3, 4), axis=1)), "do not match"),
    (lambda: int_matmul(data(2, 3), data(3, 2), HERE, HERE), "int_matmul.a: expected integers, got torch.float32"),
    (lambda: dequantize(data(3), HERE), "dequantize.integers: expected integers, got torch.float32"),
    (lambda: dequantize(torch.tensor([300]), HERE), "expected integers from 0 to 255, got 300 to 300"),
    (lambda: int_matmul(torch.ones(1, 1, dtype=torch.int32), torch.tensor([[-1]]), HERE, HERE),
     "int_matmul.b: expected integers from 0 to 255, got -1"),
    (lambda: fake_quantize(torch.arange(3), HERE), "fake_quantize.tensor: expected floats, got torch.int64"),
    (lambda: int_matmul(torch.ones(2, 3, dtype=torch.uint8), torch.ones(2, 3, dtype=torch.uint8), HERE, HERE),
     r"expected shapes \(..., K\) and \(K, N\), got \(2, 3\) and \(2, 3\)"),
    (lambda: int_matmul(*[quantize(data(3, 3), HERE)] * 2, HERE, affine_params(data(3, 3), axis=0)), "summed over"),
    (lambda: int_matmul(*[quantize(data(3, 3), HERE)] * 2, affine_params(data(3, 3), axis=1), HERE), "summed over"),
    (lambda: MinMaxObserver(1), "MinMaxObserver.bits"),
    (lambda: MinMaxObserver()(torch.tensor([math.nan])), "MinMaxObserver"),
    (lambda: MovingAverageObserver(momentum=0), "above 0"),
    (lambda: PercentileObserver(share=1.5), "at most 1"),
    (lambda: QuantLinear(2, 2, bits=1), "QuantLinear.bits"),
    (lambda: quantize_linears(nn.ReLU()), "no nn.Linear"),
    (lambda: quantize_linears(nn.Linear(2, 2), bits=20), "from 2 to 16"),
])
def test_bad_calls_teach(call, words):
    with pytest.raises(ConfigError, match=words):
        call()


@pytest.mark.parametrize("kind", OBSERVERS)
def test_observers_before_and_after_data(kind):
    observer = kind(6, symmetric=False)
    with pytest.raises(ConfigError, match="has seen no data"):
        observer.params()
    x = data(1000)
    assert observer(x) is x
    low, high = observer.range()
    assert x.min() <= low < 0 < high <= x.max()
    assert observer.params().high == 63
    again = kind(6, symmetric=False)
    again.load_state_dict(copy.deepcopy(observer.state_dict()))
    assert again.range() == (low, high)
    zeros = kind()
    zeros(torch.zeros(10))
    assert fake_quantize(torch.zeros(3), zeros.params()).tolist() == [0, 0, 0]


def test_min_max_and_moving_average_by_hand():
    wide, average = MinMaxObserver(), MovingAverageObserver(momentum=0.25)
    for batch in ([-1.0, 2.0], [-3.0, 1.0], [0.0, 6.0]):
        wide(torch.tensor(batch))
        average(torch.tensor(batch))
    assert [float(end) for end in wide.range()] == [-3.0, 6.0]
    assert [float(end) for end in average.range()] == [-1.125, 2.8125]  # -1, -1.5, -1.125 and 2, 1.75, 2.8125


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_percentile_is_numpys_to_within_a_bin(share):
    observer, x = PercentileObserver(share=share), data(20_000)
    for batch in x.split(1000):  # the reach grows on the way
        observer(batch)
    wanted = np.quantile(x.numpy(), [(1 - share) / 2, (1 + share) / 2])
    assert observer.counts.sum() == 20_000
    assert np.allclose([float(end) for end in observer.range()], wanted, atol=2.1 * float(observer.reach) / 4096 + 1e-3)


def test_counts_do_not_depend_on_the_order_of_batches():
    small, large = 0.01 * data(500), 100 * data(500, seed=1)
    one, other = PercentileObserver(), PercentileObserver()
    for batch in (small, large):
        one(batch)
    for batch in (large, small):
        other(batch)
    assert torch.equal(one.counts, other.counts) and one.reach == other.reach


def test_histogram_finds_a_range_better_than_min_max():
    x = torch.cat([data(20_000), torch.tensor([12.0, -9.0])])
    errors = {}
    for kind in (MinMaxObserver, HistogramObserver):
        observer = kind(3)
        observer(x)
        errors[kind] = (fake_quantize(x, observer.params()) - x).square().mean()
    assert errors[HistogramObserver] < 0.5 * errors[MinMaxObserver]


def test_observers_subclass():
    class Fixed(Observer):
        def observe(self, tensor):
            self.low.fill_(-1)
            self.high.fill_(1)

    layer = QuantLinear(3, 2, observer=Fixed())
    assert layer(data(4, 3)).shape == (4, 2) and layer.observer.params().scale == pytest.approx(2 / 255)


@pytest.mark.parametrize("bits, per_channel, bias", [(8, True, True), (3, False, False), (5, True, False), (16, False, True)])
def test_layer_equals_its_integers(bits, per_channel, bias):
    layer = QuantLinear(1 if bits == 16 else 20, 7, bias, bits, per_channel)
    x = data(30, layer.in_features)
    layer(x)
    layer.eval()
    expected = layer(2 * x)  # out of range too
    assert layer.observer.range()[1] == x.max()  # eval does not watch
    assert torch.allclose(layer.integers(2 * x), expected, atol=1e-5) and not layer.integers(x).requires_grad


def test_layer_learns_through_the_rounding():
    layer = QuantLinear(4, 3, bits=4)
    layer(data(10, 4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    assert (layer.weight.grad != 0).all()


def test_swapping_keeps_sharing_modes_and_the_original():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.again = self.first
            self.tied = nn.Linear(4, 4)
            self.tied.weight = self.first.weight
            self.attention = nn.MultiheadAttention(4, 2)

    model = Shared().eval()
    small = quantize_linears(model, 4)
    assert type(small.first) is QuantLinear and small.again is small.first and small.tied.weight is small.first.weight
    assert not small.first.training and type(model.first) is nn.Linear and small.first.weight is not model.first.weight
    assert type(small.attention.out_proj) is not QuantLinear  # used by its weights alone: a layer there would change nothing
    single = quantize_linears(nn.Linear(2, 2, bias=False), 5, True, HistogramObserver)
    assert type(single) is QuantLinear and type(single.observer) is HistogramObserver and single.observer.bits == 5


def test_explorers_are_made():
    for explorer in (rounding_explorer(), clipping_explorer()):
        assert explorer is not None
