"""Quantization by the libraries: files that hold only integers, kernels that really run, and calls that cannot be."""
import subprocess
import sys

import pytest
import torch
from torch import nn

import nnlearn.quantization as q
from nnlearn.core import ConfigError
from nnlearn.course import explorers
from nnlearn.datasets import mnist_sample
from nnlearn.loaders import TensorLoader
from nnlearn.models import small_cnn
from nnlearn.trainer import Trainer


@pytest.fixture(scope="module")
def data():
    return mnist_sample()


@pytest.fixture(scope="module")
def net(data):
    torch.manual_seed(0)
    model = small_cnn((8, 16))
    loader = TensorLoader(data.train_x[:2000], data.train_y[:2000], batch_size=50, shuffle=True)
    Trainer(model, nn.CrossEntropyLoss(), torch.optim.AdamW(model.parameters(), 3e-3), device="cpu").fit(loader, epochs=2, verbose=0)
    return model.eval()


def accuracy(fn, data):
    with torch.no_grad():
        return float((fn(data.test_x).argmax(1) == data.test_y).float().mean())


@pytest.mark.parametrize("backend, ending", [("torch", "pt2"), ("onnxruntime", "onnx")])
def test_static_int8_is_small_right_and_runs_in_integers(backend, ending, net, data, tmp_path):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    path = tmp_path / f"int8.{ending}"
    made = q.quantize_model(net, "static", data.train_x[:256], backend=backend, path=path)
    assert abs(accuracy(made, data) - accuracy(net, data)) < 0.02
    assert made(data.test_x[:1]).shape == (1, 10) and made(data.test_x[:37]).shape == (37, 10)  # any batch size
    assert q.int8_kernels(made, data.test_x[:8])
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert path.stat().st_size < 0.8 * 4 * sum(p.numel() for p in net.parameters())


def test_without_freezing_no_integer_kernel_runs(net, data):
    made = q.quantize_model(net, "static", data.train_x[:64], freeze=False)
    assert q.int8_kernels(made, data.test_x[:8]) == []


def test_a_plain_module_runs_no_integer_kernel(net, data):
    assert q.int8_kernels(net, data.test_x[:8]) == []


def test_reloaded_in_a_new_process_it_gives_the_same(net, data, tmp_path):
    path, given = tmp_path / "int8.pt2", tmp_path / "x.pt"
    made = q.quantize_model(net, "static", data.train_x[:64], path=path)
    torch.save(data.test_x[:5], given)
    code = f"import torch; from nnlearn.quantization import load_quantized; " \
           f"print(load_quantized({str(path)!r})(torch.load({str(given)!r})).argmax(1).tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().splitlines()[-1] == str(made(data.test_x[:5]).argmax(1).tolist()), done.stderr[-500:]


@pytest.mark.parametrize("method", ["dynamic", "weight_only", "float16", "bfloat16"])
def test_other_methods_keep_the_answers(method, data):
    torch.manual_seed(1)
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
    x = data.test_x[:64]
    made = q.quantize_model(mlp, method, example=x[:4])
    with torch.no_grad():
        difference = (made(x).float() - mlp(x)).abs().max() / mlp(x).abs().max()
    assert 0 < float(difference) < 0.1


def test_qat_trains_with_partial_batches_and_converts(net, data):
    aware = q.prepare_qat(net, data.train_x[:4])
    loader = TensorLoader(data.train_x[:130], data.train_y[:130], batch_size=50)  # the last batch has 30 rows
    trainer = Trainer(aware, nn.CrossEntropyLoss(), torch.optim.SGD(aware.parameters(), 0.01), device="cpu",
                      callbacks=[q.QATCallback(freeze_observers_at=2)])
    history = trainer.fit(loader, loader, epochs=2, verbose=0)
    assert len(history) == 2 and aware.observers_frozen
    made = aware.convert()
    assert abs(accuracy(made, data) - accuracy(net, data)) < 0.05 and q.int8_kernels(made, data.test_x[:8])


@pytest.mark.parametrize("call, message", [
    (lambda net, x: q.quantize_model(net, "statik", x), "Did you mean 'static'"),
    (lambda net, x: q.quantize_model(net, "static", x, backend="onnxruntme"), "Did you mean 'onnxruntime'"),
    (lambda net, x: q.quantize_model(net, "static"), "calibration"),
    (lambda net, x: q.quantize_model(net, "static", x[:0]), "calibration"),
    (lambda net, x: q.quantize_model(net, "static", x.flatten(1)), "shape"),
    (lambda net, x: q.quantize_model(net, "static", x * float("nan")), "NaN|finite"),
    (lambda net, x: q.quantize_model(nn.ReLU(), "static", x), "no "),
    (lambda net, x: q.quantize_model(3, "static", x), "quantize_model.model: expected a Module, got 3"),
    (lambda net, x: q.prepare_qat(nn.ReLU(), x), "no convolution or linear layer"),
    (lambda net, x: q.QATCallback(0), "QATCallback.freeze_observers_at: expected an integer of at least 1, got 0"),
    (lambda net, x: q.load_quantized("nothing.pt2"), "there is no file"),
])
def test_calls_that_cannot_be(call, message, net, data):
    with pytest.raises(ConfigError, match=message):
        call(net, data.train_x[:8])


def test_damaged_and_foreign_files_are_named(net, data, tmp_path):
    path = tmp_path / "int8.pt2"
    q.quantize_model(net, "static", data.train_x[:64], path=path)
    cut, foreign = tmp_path / "cut.pt2", tmp_path / "foreign.pt2"
    cut.write_bytes(path.read_bytes()[:-200])
    torch.save({"a": 1}, foreign)
    for wrong in (cut, foreign):
        with pytest.raises(ConfigError, match="is not a valid quantized model file"):
            q.load_quantized(wrong)


def test_qat_goes_on_training_after_a_validation(data):
    """Dropout and observers, which an exported graph switches in its own way, are on again after the pass in eval mode."""
    torch.manual_seed(0)
    aware = q.prepare_qat(nn.Sequential(small_cnn((2, 4)), nn.Dropout(0.5)), data.train_x[:4])
    loader = TensorLoader(data.train_x[:60], data.train_y[:60], batch_size=30)
    trainer = Trainer(aware, nn.CrossEntropyLoss(), torch.optim.SGD(aware.parameters(), 0.01), device="cpu")
    trainer.fit(loader, loader, epochs=1, verbose=0)
    first, again = aware(data.test_x[:20]), aware(data.test_x[:20])
    assert not torch.equal(first, again)  # dropout drops
    ranges = [v.clone() for k, v in aware.state_dict().items() if "min_val" in k]
    aware(50 * data.test_x[:20])
    assert any(not torch.equal(a, b) for a, b in zip(ranges, (v for k, v in aware.state_dict().items() if "min_val" in k), strict=True))


def test_calibration_from_pairs_and_lists(net, data):
    """Batches as (inputs, targets), as a DataLoader gives them, and tensors one by one find the same ranges."""
    pairs = [(data.train_x[i:i + 32], data.train_y[i:i + 32]) for i in (0, 32)]
    made = [q.quantize_model(net, "static", given) for given in (pairs, [x for x, _ in pairs], data.train_x[:64])]
    answers = [each(data.test_x[:20]) for each in made]
    assert torch.equal(answers[0], answers[1]) and (answers[0] - answers[2]).abs().max() < 0.2 * answers[0].abs().max()


@pytest.mark.parametrize("method", ["dynamic", "weight_only", "float16", "bfloat16"])
def test_two_inputs_and_two_outputs(method):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(4, 8)

        def forward(self, x, y):
            return self.a(x) + self.b(y), self.a(x)

    torch.manual_seed(0)
    net, given = Two().eval(), (torch.rand(3, 4), torch.rand(3, 4))
    made = q.quantize_model(net, method, example=given)
    for ours, theirs in zip(made(*given), net(*given), strict=True):
        assert ours.dtype == torch.float32 and torch.allclose(ours, theirs, atol=0.05) and not torch.equal(ours, theirs)


@pytest.mark.parametrize("given, message", [
    (lambda x: (x, x), r"QuantizedModel: expected 1 input\(s\), got 2"),
    (lambda x: (x.double(),), r"QuantizedModel.input\[0\]: expected torch.float32, got torch.float64"),
    (lambda x: (x.tolist(),), r"input\[0\]: expected torch.float32, got list"),
    (lambda x: (x[:, :, :20],), r"input\[0\]: expected shape \(batch, 1, 28, 28\), got \(4, 1, 20, 28\)"),
])
def test_wrong_inputs_of_a_quantized_model(given, message, net, data):
    made = q.quantize_model(net, "weight_only", example=data.test_x[:4])
    with pytest.raises(ConfigError, match=message):
        made(*given(data.test_x[:4]))


@pytest.mark.parametrize("backend, ending", [("torch", "pt2"), ("onnxruntime", "onnx")])
def test_a_folder_that_is_not_there(backend, ending, net, data, tmp_path):
    with pytest.raises(ConfigError, match="there is no folder"):
        q.quantize_model(net, "static", data.train_x[:64], backend=backend, path=tmp_path / "no" / f"int8.{ending}")


def test_a_file_that_was_changed_inside_is_refused(net, data, tmp_path):
    """One bit, in a place that a zip file's own checksum does not cover when it is rewritten with it."""
    path, other = tmp_path / "int8.pt2", tmp_path / "other.pt2"
    q.quantize_model(net, "weight_only", example=data.test_x[:4], path=path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    other.write_bytes(bytes(content))
    with pytest.raises(ConfigError, match="is not a valid quantized model file"):
        q.load_quantized(other)


@pytest.mark.parametrize("method", ["dynamic", "float16"])
def test_other_methods_under_onnx_runtime(method, data, tmp_path):
    torch.manual_seed(1)
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
    x = data.test_x[:64]
    made = q.quantize_model(mlp, method, example=x[:4], backend="onnxruntime", path=tmp_path / "net.onnx")
    with torch.no_grad():
        difference = (made(x).float() - mlp(x)).abs().max() / mlp(x).abs().max()
    assert 0 < float(difference) < 0.1 and (tmp_path / "net.onnx").stat().st_size < 0.7 * 4 * sum(p.numel() for p in mlp.parameters())
    assert bool(q.int8_kernels(made, x[:4])) == (method == "dynamic")


@pytest.mark.parametrize("call, message", [
    (lambda net, x: q.quantize_model(net, "static", 3), "quantize_model.calibration: expected a tensor or an iterable of batches, got int"),
    (lambda net, x: q.quantize_model(net, "static", {"x": x}), "got dict"),
    (lambda net, x: q.quantize_model(net, "static", ["a"]), "expected batches of inputs or of"),
    (lambda net, x: q.quantize_model(net, "static", [x, x.double()]), "batch 1: expected inputs of shape .* got .* and torch.float64"),
    (lambda net, x: q.quantize_model(nn.Conv2d(1, 2, 3), "dynamic", example=x), "dynamic quantization is for linear layers"),
    (lambda net, x: q.legacy_eager(net, x, engine="x68"), "legacy_eager.engine: .*Did you mean 'x86'"),
    (lambda net, x: q.int8_kernels("nothing.pt2", x), "there is no file"),
    (lambda net, x: q.granularity_error(net[0].weight, granularity="chanel"), "Did you mean 'channel'"),
    (lambda net, x: q.granularity_error(net[0].weight, bits=1), "bits"),
])
def test_more_calls_that_cannot_be(call, message, net, data):
    with pytest.raises(ConfigError, match=message):
        call(net, data.train_x[:8])


def test_the_callback_wants_a_qat_model(net, data):
    loader = TensorLoader(data.train_x[:20], data.train_y[:20], batch_size=10)
    trainer = Trainer(net, nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), 0.0), device="cpu", callbacks=[q.QATCallback()])
    with pytest.raises(ConfigError, match="QATCallback: expected a Trainer of a QATModel, got a Sequential"):
        trainer.fit(loader, epochs=1, verbose=0)
    net.eval()


def test_a_file_that_no_process_can_run(net, data, tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(ConfigError, match="int8_kernels: the saved file cannot be run by a new process"):
        q.int8_kernels(path, data.test_x[:4])


def test_granularity_explorer_without_a_model_leaves_random_states_alone():
    before = torch.get_rng_state()
    explorer = explorers.granularity_explorer()
    assert torch.equal(before, torch.get_rng_state()) and "Conv2d" in explorer.html and "Linear" in explorer.html


def test_max_pooling_with_a_rounded_up_size_stays_right(data):
    """Pooling that was moved onto the integers keeps stride, padding and ceil_mode."""
    torch.manual_seed(0)
    pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4 * 14 * 14, 10)).eval()
    x = data.test_x[:8]
    made = q.quantize_model(net, "static", data.train_x[:64])
    with torch.no_grad():
        assert (made(x) - net(x)).abs().max() < 0.05 * net(x).abs().max() and made(x).shape == (8, 10)


def test_max_pooling_works_on_the_integers(net, data):
    """Between two integer layers no float is pooled: that is most of the speed."""
    made = q.quantize_model(net, "static", data.train_x[:64])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        made(data.test_x[:8])
    names = {event.key for event in profile.key_averages()}
    assert "quantized::max_pool2d" in names and not any("max_pool2d_with_indices" in name for name in names)


def test_frozen_observers_stay_frozen_after_a_validation(net, data):
    aware = q.prepare_qat(net, data.train_x[:4])
    aware(data.train_x[:20])
    aware.freeze_observers()
    aware.eval()
    aware.train()
    ranges = {k: v.clone() for k, v in aware.state_dict().items() if "min_val" in k or "max_val" in k}
    aware(50 * data.test_x[:20])
    changed = [k for k, v in aware.state_dict().items() if k in ranges and "activation_post_process" in k and not torch.equal(v, ranges[k])]
    assert ranges and not changed


@pytest.mark.parametrize("backend, alone", [("torch", True), ("onnxruntime", False)])
def test_dynamic_ranges_by_row_in_torch_and_by_batch_under_onnx_runtime(backend, alone):
    """What lesson 20's table says: a large row spoils its neighbours' rounding only where the range is that of the batch."""
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    x = torch.randn(2, 16)
    made = q.quantize_model(mlp, "dynamic", example=x, backend=backend)
    before, beside_a_large_row = made(x)[0], made(x * torch.tensor([[1.0], [1000.0]]))[0]
    moved = float((before - beside_a_large_row).abs().max() / before.abs().max())
    assert moved < 1e-5 if alone else moved > 0.1
