"""Quantization by the libraries: files that hold only integers, kernels that really run, and calls that cannot be."""
import subprocess
import sys

import pytest
import torch
from torch import nn

import nnlearn.quantization as q
from nnlearn.core import ConfigError
from nnlearn.data import TensorLoader
from nnlearn.datasets import mnist_sample
from nnlearn.export import small_cnn
from nnlearn.training import Trainer


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
    (lambda net, x: q.quantize_model(3, "static", x), "module"),
    (lambda net, x: q.prepare_qat(nn.ReLU(), x), "no convolution or linear layer"),
    (lambda net, x: q.QATCallback(0), "epoch from 1"),
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
        with pytest.raises(ConfigError, match="no whole file of a quantized model"):
            q.load_quantized(wrong)
