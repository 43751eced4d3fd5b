"""Clipping: equal to torch in long random runs, whatever the gradients hold, and what the recorder keeps."""
import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nnlearn.clipping import GradientNorms, clip_by_global_norm, clip_by_norm, clip_by_value
from nnlearn.core import ConfigError
from nnlearn.course.explore import decode
from nnlearn.course.explorers import gradient_clipping_explorer
from nnlearn.trainer import Trainer

SHAPES = [(4, 3), (3,), (), (2, 1, 5)]


def params(grads):
    made = [nn.Parameter(torch.zeros_like(g)) for g in grads]
    for p, g in zip(made, grads):
        p.grad = g.clone()
    return made


def same(ours, theirs):
    return all(torch.equal(p.grad.nan_to_num(7.0), q.grad.nan_to_num(7.0)) for p, q in zip(ours, theirs))


def test_equal_to_torch_over_a_thousand_random_steps_with_infinities():
    rng = torch.Generator().manual_seed(0)
    for step in range(1000):
        scale, c = (10.0 ** torch.randint(low, high, (1,), generator=rng).item() for low, high in ((-6, 7), (-3, 3)))
        dtype = (torch.float32, torch.float64)[step % 2]
        grads = [scale * torch.randn(shape, generator=rng, dtype=dtype) for shape in SHAPES]
        if step % 5 == 0:
            grads[step % 3].flatten()[0] = (math.inf, -math.inf, math.nan)[step % 3]
        total = torch.nn.utils.get_total_norm(grads)
        value, torchs = params(grads), params(grads)
        norm = clip_by_value(value, c)
        nn.utils.clip_grad_value_(torchs, c)
        assert same(value, torchs) and torch.equal(norm.nan_to_num(7.0), total.nan_to_num(7.0))
        whole, torchs = params(grads), params(grads)
        norm = clip_by_global_norm(whole, c)
        assert torch.equal(norm.nan_to_num(7.0), nn.utils.clip_grad_norm_(torchs, c).nan_to_num(7.0)) and same(whole, torchs)
        each, torchs = params(grads), params(grads)
        norms = clip_by_norm(each, c)
        singles = torch.stack([nn.utils.clip_grad_norm_([p], c) for p in torchs])
        assert same(each, torchs) and torch.equal(norms.nan_to_num(7.0), singles.nan_to_num(7.0))


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4), min_size=1, max_size=3), st.floats(1e-3, 1e3))
@settings(max_examples=60, deadline=None)
def test_nothing_grows_and_the_limit_holds(rows, c):
    grads = [torch.tensor(row, dtype=torch.float64) for row in rows]
    limits = {clip_by_value: lambda ps: max(p.grad.abs().max() for p in ps), clip_by_norm: lambda ps: max(p.grad.norm() for p in ps),
              clip_by_global_norm: lambda ps: torch.cat([p.grad for p in ps]).norm()}
    for clip, limit in limits.items():
        clipped = params(grads)
        clip(clipped, c)
        assert limit(clipped) <= c * (1 + 1e-9)
        assert all((p.grad.abs() <= g.abs()).all() and (p.grad * g >= 0).all() for p, g in zip(clipped, grads))
    before, after = params(grads), params(grads)
    clip_by_global_norm(after, c, eps=0.0)
    total = torch.cat(grads).norm()
    for p, q in zip(before, after):
        torch.testing.assert_close(q.grad, p.grad * min(1.0, c / max(total.item(), 1e-300)), rtol=1e-9, atol=1e-300)


def test_gradients_that_are_missing_or_odd():
    w, frozen = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2), requires_grad=False)
    for clip, nothing in ((clip_by_value, 0.0), (clip_by_global_norm, 0.0)):
        assert clip([w, frozen], 1.0) == nothing and w.grad is None
    assert clip_by_norm([], 1.0).shape == (0,)
    half = nn.Parameter(torch.zeros(70_000, dtype=torch.float16))
    half.grad = torch.full_like(half, 60_000.0)  # its norm does not fit into float16
    norm = clip_by_global_norm(half, 100.0)
    assert norm.dtype == torch.float32 and math.isclose(norm, 60_000 * math.sqrt(70_000), rel_tol=1e-3)
    assert half.grad.dtype == torch.float16 and 0 < half.grad[0] < 1
    w.grad = torch.tensor([math.inf, 1.0])
    with pytest.raises(RuntimeError, match="norm of the gradients is inf; nothing was clipped"):
        clip_by_global_norm([w], 1.0, error_if_nonfinite=True)
    assert w.grad[1] == 1.0  # and nothing was changed


@pytest.mark.parametrize("clip", [clip_by_value, clip_by_norm, clip_by_global_norm])
def test_what_cannot_be_clipped_is_said(clip):
    model = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=f"{clip.__name__}.params: expected parameters, got a module"):
        clip(model, 1.0)
    for threshold in (0, -1.0, math.nan, "1", None, True):
        with pytest.raises(ConfigError, match=f"{clip.__name__}: expected a threshold above 0"):
            clip(model.parameters(), threshold)
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ConfigError, match="sparse=False"):
        clip(table.parameters(), 1.0)


@pytest.mark.parametrize("clip", [clip_by_value, clip_by_norm, clip_by_global_norm])
def test_nothing_waits_for_the_device(clip):
    w = nn.Parameter(torch.ones(3, device="meta"))  # a number asked of a tensor there is an error
    w.grad = torch.ones(3, device="meta")
    assert clip([w], 1.0).device.type == "meta"
    recorder = GradientNorms()
    assert recorder.record([w]).device.type == "meta"


def test_wide_numbers_beside_narrow_ones_and_sparse_gradients():
    narrow, wide = params([torch.ones(3), torch.full((3,), 1e100, dtype=torch.float64)])
    norm = clip_by_global_norm([narrow, wide], 1.0)
    assert norm.dtype == torch.float64 and math.isclose(norm, 1e100 * math.sqrt(3)) and wide.grad[0] > 0.5
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1, 1, 2])).sum().backward()
    assert math.isclose(GradientNorms().record(table.parameters()), math.sqrt(2 * 2**2 + 2), rel_tol=1e-6)


def batches(count=6, scale=1.0):
    rng = torch.Generator().manual_seed(1)
    return [(scale * torch.randn(4, 3, generator=rng), torch.randn(4, 2, generator=rng)) for _ in range(count)]


def trainer(recorder, **options):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return Trainer(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1), device="cpu", callbacks=[recorder], **options)


def test_the_recorder_sees_every_step_before_clipping():
    plain, clipped = GradientNorms(), GradientNorms()
    trainer(plain).fit(batches(), epochs=1, verbose=0)
    trainer(clipped, clip_norm=1e-3).fit(batches(), epochs=2, verbose=0)
    assert len(plain.norms) == 6 and len(clipped.norms) == 12
    assert plain.norms[0] == clipped.norms[0] and min(clipped.norms) > 1e-3
    assert plain.quantile(0.0) == min(plain.norms) and plain.quantile(1.0) == max(plain.norms)


def test_the_recorder_sees_the_mean_of_a_window_and_no_scale():
    whole, parts = GradientNorms(), GradientNorms()
    pairs = batches()
    joined = [tuple(torch.cat(half) for half in zip(*pairs[i:i + 3])) for i in (0, 3)]
    trainer(whole).fit(joined, epochs=1, verbose=0)
    trainer(parts, accumulate=3).fit(pairs, epochs=1, verbose=0)
    assert len(parts.norms) == 2
    torch.testing.assert_close(torch.tensor(parts.norms), torch.tensor(whole.norms), rtol=1e-5, atol=0)


def test_the_recorder_is_resumed_and_copied(tmp_path):
    one, two = GradientNorms(), GradientNorms()
    trainer(one).fit(batches(), epochs=4, verbose=0)
    trainer(two, checkpoint_dir=tmp_path).fit(batches(), epochs=2, verbose=0)
    again = GradientNorms()
    trainer(again, checkpoint_dir=tmp_path).fit(batches(), epochs=4, verbose=0, resume=True)
    assert again.norms == one.norms and len(two.norms) == 12
    assert copy.deepcopy(one).norms == one.norms
    w = nn.Parameter(torch.ones(1))
    w.grad = torch.ones(1)
    again.record([w])
    again.load_state_dict(one.state_dict())  # in place of what was recorded, looked at or not
    assert again.norms == one.norms


def test_norms_that_are_not_finite_are_kept_and_not_counted():
    recorder, w = GradientNorms(), nn.Parameter(torch.zeros(2))
    with pytest.raises(ConfigError, match="no steps recorded yet"):
        recorder.quantile(0.5)
    for value in (3.0, math.inf, 4.0):
        w.grad = torch.tensor([value, 0.0])
        recorder.record([w])
    assert recorder.norms == [3.0, math.inf, 4.0] and recorder.quantile(0.5) == 3.5
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ConfigError, match="expected a share from 0 to 1"):
            recorder.quantile(share)
    axes = recorder.plot(threshold=3.2)
    assert len(axes[0].lines[0].get_ydata()) == 2


def test_the_explorer_shows_what_the_functions_do():
    explorer = gradient_clipping_explorer()
    assert len(explorer.html) < 150_000
    curves = decode(explorer.html)["types"][""]["curves"]
    for (length, _, threshold, way), shown in curves.items():
        x, y = (values[-1] for values in shown["after"])
        size = max(abs(x), abs(y)) if way == "by value" else math.hypot(x, y)
        assert math.isclose(size, min(float(threshold), size), abs_tol=0.02)
        if float(length) <= float(threshold) or way != "by value":
            assert math.isclose(math.hypot(x, y), min(float(length), float(threshold)), abs_tol=0.03)
