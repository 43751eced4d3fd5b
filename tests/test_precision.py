"""Precision: formats equal to torch's, a scaler equal to torch's over long random runs, autocast and its scaler for a device."""
import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nnlearn.builders import optimizer_builder
from nnlearn.core import ConfigError
from nnlearn.course.explore import decode
from nnlearn.course.explorers import float_format_explorer
from nnlearn.precision import FORMATS, FloatFormat, LossScaler, amp, autocast_dtype, underflow_fraction
from nnlearn.trainer import Trainer

CASTS = {name: getattr(torch, name) for name in FORMATS if name != "tf32"}

# Formats


@pytest.mark.parametrize("name", CASTS)
def test_a_format_has_the_ends_that_torch_says(name):
    f, info = FORMATS[name], torch.finfo(CASTS[name])
    assert (f.bits, f.epsilon, f.largest, f.smallest_normal) == (info.bits, info.eps, info.max, info.smallest_normal)
    assert FloatFormat(11, 52).largest == torch.finfo(torch.float64).max and FloatFormat(11, 52).epsilon == 2.0**-52


@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_rounding_is_a_cast(numbers):
    for name, dtype in CASTS.items():
        ours = FORMATS[name].round(numbers)
        torchs = torch.tensor(numbers, dtype=torch.float32).to(dtype).double()
        torch.testing.assert_close(ours, torchs, rtol=0, atol=0, equal_nan=True)
        assert ours.shape == (len(numbers),) and ours.dtype == torch.float64


def test_rounding_to_double_changes_nothing():
    values = torch.tensor([1e-310, 5e-324, 1.7e308, -0.1, 0.0, math.inf, -math.inf], dtype=torch.float64)
    assert torch.equal(FloatFormat(11, 52).round(values), values)
    assert FORMATS["tf32"].round(1 + 2.0**-11) == 1 and FORMATS["tf32"].round(1 + 2.0**-10) == 1 + 2.0**-10
    assert math.copysign(1, FORMATS["float16"].round(-1e-9).item()) == -1  # the sign of a zero stays


@pytest.mark.parametrize("name", CASTS)
def test_spacing_is_the_distance_to_the_next_number(name):
    bits = torch.arange(2 ** (min(FORMATS[name].bits, 16) - 1))
    kinds = {8: (torch.uint8, CASTS[name]), 16: (torch.int16, CASTS[name])}
    if FORMATS[name].bits > 16:
        numbers = torch.logspace(-44, 38, 500, dtype=torch.float64).float()
        distance = torch.nextafter(numbers, torch.tensor(math.inf)).double() - numbers.double()
        assert torch.equal(FORMATS[name].spacing(numbers), distance)
        return
    whole, dtype = kinds[FORMATS[name].bits]
    numbers = bits.to(whole).view(dtype).double()
    numbers = numbers[numbers.isfinite()]
    assert torch.equal(FORMATS[name].spacing(numbers[:-1]), numbers.diff())
    assert torch.equal(FORMATS[name].spacing(-numbers), FORMATS[name].spacing(numbers))


def test_formats_that_cannot_be():
    for args, words in (((1, 3), "exponent_bits"), ((5, 0), "fraction_bits"), ((12, 3), "exponent_bits"), ((5, 2.5), "fraction_bits")):
        with pytest.raises(ConfigError, match=words):
            FloatFormat(*args)
    assert FloatFormat(2, 1).largest == 3 and FloatFormat(2, 1).smallest == 0.5


# Underflow


def test_underflow_counts_what_becomes_zero():
    g = torch.tensor([0.0, 1e-9, -1e-9, 1e-3, math.nan, math.inf])
    assert math.isclose(underflow_fraction(g), 2 / 3)
    assert underflow_fraction([g, None, torch.ones(3)], torch.float16) == 2 / 6
    assert underflow_fraction(g, torch.float16, scale=2**16) == underflow_fraction(g, torch.bfloat16) == 0
    assert underflow_fraction(g, FORMATS["float16"]) == underflow_fraction(g) == underflow_fraction(g.double())
    assert underflow_fraction(torch.tensor([1e-7]), FloatFormat(4, 3)) == 1
    assert underflow_fraction(torch.tensor([1e-50], dtype=torch.float64)) == 1
    for nothing in ([], [None], torch.zeros(3), torch.tensor([math.nan])):
        with pytest.raises(ConfigError, match="underflow_fraction.grads: expected entries that are not 0"):
            underflow_fraction(nothing)


# The scaler


def small_net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


MAKERS = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.9),
    "adam": lambda params: torch.optim.Adam(params, lr=0.01),
    "fused": lambda params: torch.optim.AdamW(params, lr=0.01, fused=True),
    "foreach": lambda params: torch.optim.RMSprop(params, lr=0.01, foreach=True),
    "builder": lambda params: optimizer_builder({"type": "adamw", "gradient_clipping_by_norm": 0.5}, 0.01, params),
}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("clips", [False, True])
def test_equal_to_torch_over_a_thousand_random_steps_with_infinities(make, clips):
    options = {"init_scale": 2.0**12, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 7}
    nets = [small_net(0), small_net(0)]
    optimizers = [MAKERS[make](net.parameters()) for net in nets]
    scalers = [LossScaler(**options), torch.amp.GradScaler("cpu", **options)]
    rng, skipped = torch.Generator().manual_seed(1), 0
    for step in range(1000):
        x, y = torch.randn(5, 3, generator=rng), torch.randn(5, 2, generator=rng)
        x = x * 10.0 ** torch.randint(-3, 4, (1,), generator=rng)
        bad = {0: math.inf, 5: math.nan, 11: 1e25 if clips or make not in ("sgd", "builder") else None}.get(step % 17)
        for net, optimizer, scaler in zip(nets, optimizers, scalers):
            optimizer.zero_grad()
            loss = (net(x) - y).square().mean() * (bad if bad else 1.0)
            scaler.scale(loss).backward()
            if clips:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            before = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
        skipped += scaler.get_scale() < before
        assert scalers[0].state_dict() == scalers[1].state_dict(), step
        for p, q in zip(nets[0].parameters(), nets[1].parameters()):  # the builder's clipping adds 1e-6 to a scaled norm
            assert torch.equal(p, q) if make != "builder" else torch.allclose(p, q, rtol=1e-4, atol=1e-5), step
    assert 50 < skipped < 300 and all(p.isfinite().all() for p in nets[0].parameters())


def test_factors_that_are_no_powers_of_two_and_the_ends_of_float32():
    for options in ({"init_scale": 3.3, "growth_factor": 1.7, "backoff_factor": 0.3, "growth_interval": 2},
                    {"init_scale": 1e38, "growth_interval": 1}):
        states, rng = [], torch.Generator().manual_seed(2)
        for scaler in (LossScaler(**options), torch.amp.GradScaler("cpu", **options)):
            w, rng = nn.Parameter(torch.ones(3)), torch.Generator().manual_seed(2)
            optimizer, path = torch.optim.SGD([w], lr=0.1), []
            for step in range(300):
                optimizer.zero_grad()
                w.grad = torch.randn(3, generator=rng) * scaler.get_scale() * 1e-3
                if step % 7 == 0:
                    w.grad[1] = math.inf
                scaler.scale(torch.ones(()))  # torch's makes its scale here
                scaler.step(optimizer)
                scaler.update()
                path.append((scaler.get_scale(), w.tolist()))
            states.append(path)
        assert states[0] == states[1]


def test_two_optimizers_one_scale_and_sparse_gradients():
    results = []
    for scaler in (LossScaler(init_scale=4.0, growth_interval=2), torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)):
        table, w = nn.Embedding.from_pretrained(torch.ones(5, 2), freeze=False, sparse=True), nn.Parameter(torch.ones(2))
        frozen = nn.Parameter(torch.ones(1))
        optimizers = [torch.optim.SGD(table.parameters(), lr=0.1), torch.optim.SGD([w, frozen], lr=0.1)]
        for step in range(6):
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss = (table(torch.tensor([1, 1, 3])) * w).sum() * (math.inf if step == 3 else 1)
            scaler.scale(loss).backward()
            for optimizer in optimizers:
                scaler.step(optimizer)
            scaler.update()
        results.append((scaler.state_dict(), table.weight.tolist(), w.tolist()))
    assert results[0] == results[1] and results[0][2] != [1.0, 1.0]


def test_a_state_goes_from_one_to_the_other_and_a_copy_is_whole():
    theirs = torch.amp.GradScaler("cpu", init_scale=8.0, growth_factor=3.0, backoff_factor=0.25, growth_interval=9)
    ours = LossScaler()
    ours.load_state_dict(theirs.state_dict() | {"_growth_tracker": 4})
    assert ours.state_dict() == theirs.state_dict() | {"_growth_tracker": 4}
    theirs.load_state_dict(copy.deepcopy(ours).state_dict())
    assert theirs.state_dict() == ours.state_dict()
    with pytest.raises(ConfigError, match="LossScaler.init_scale"):
        ours.load_state_dict(theirs.state_dict() | {"scale": -1.0})
    assert ours.get_scale() == 8.0


def test_what_comes_in_the_wrong_order_is_said():
    w = nn.Parameter(torch.ones(2))
    optimizer, scaler = torch.optim.SGD([w], lr=0.1), LossScaler()
    with pytest.raises(ConfigError, match="LossScaler.update: nothing was unscaled"):
        scaler.update()
    with pytest.raises(ConfigError, match="no gradients; call backward"):
        scaler.step(optimizer)
    scaler.scale(w.sum()).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(ConfigError, match="unscaled already"):
        scaler.unscale_(optimizer)
    assert w.grad.tolist() == [1.0, 1.0]
    scaler.step(optimizer)
    with pytest.raises(ConfigError, match="stepped already"):
        scaler.step(optimizer)
    assert w.tolist() == [w[0].item()] * 2 and math.isclose(w[0].item(), 0.9, rel_tol=1e-6)
    half = nn.Parameter(torch.ones(2, dtype=torch.float16))
    half.grad = torch.ones_like(half)
    with pytest.raises(ConfigError, match="expected gradients in float32, got float16"):
        LossScaler().step(torch.optim.SGD([half], lr=0.1))
    assert half.grad.tolist() == [1.0, 1.0]


# Autocast


def test_amp_for_a_device():
    assert autocast_dtype("cpu") == torch.bfloat16
    autocast, scaler = amp("cpu")
    assert not scaler.is_enabled()
    layer = nn.Linear(2, 2)
    for _ in range(2):  # it may be entered again
        with autocast:
            assert layer(torch.ones(1, 2)).dtype == torch.bfloat16
        assert layer(torch.ones(1, 2)).dtype == torch.float32
    autocast, scaler = amp("cpu", torch.float16)
    with autocast:
        assert scaler.is_enabled() and layer(torch.ones(1, 2)).dtype == torch.float16
    for dtype in (torch.float32, torch.float64, torch.int8):
        with pytest.raises(ConfigError, match="amp.dtype: expected torch.bfloat16 or torch.float16"):
            amp("cpu", dtype)
    for function in (amp, autocast_dtype):
        with pytest.raises(ConfigError, match=f"{function.__name__}.device: .*Did you mean 'cuda'"):
            function("gpu")


def test_trainer_refuses_a_type_that_autocast_lacks():
    model = nn.Linear(2, 1)
    parts = (model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ConfigError, match="Trainer.amp_dtype: expected torch.bfloat16 or torch.float16, got torch.float32"):
        Trainer(*parts, device="cpu", use_amp=True, amp_dtype=torch.float32)
    assert Trainer(*parts, device="cpu", use_amp=True).amp_dtype == torch.bfloat16


# The explorer


def test_the_explorer_shows_what_the_formats_say():
    explorer = float_format_explorer()
    assert len(explorer.html) < 150_000
    curves = decode(explorer.html)["types"][""]["curves"]
    peaks = {}
    for (exponent_bits, fraction_bits, scale), shown in curves.items():
        f = FloatFormat(int(exponent_bits), int(fraction_bits))
        for power, error in zip(*shown["largest rounding error"]):
            if f.smallest_normal <= 2.0**round(power) <= f.largest:
                assert math.isclose(error, f.epsilon / 2, rel_tol=0.1)
            elif 2.0**round(power) > f.largest or 2.0**round(power) < f.smallest / 2:
                assert math.isclose(error, 1.0, rel_tol=0.1)
        powers, gradients = shown["gradients"]
        peaks[int(scale)] = powers[max(range(len(powers)), key=lambda i: gradients[i])]
    assert {scale: round(peak - peaks[0]) for scale, peak in peaks.items()} == {scale: scale for scale in peaks}
