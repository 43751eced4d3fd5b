"""Export: files that hold what they should at any batch size, modes and weights left alone, and errors that say what to do."""
import logging
import os
import subprocess
import sys
import types
import warnings

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import nnlearn.export as module
from nnlearn.core import ConfigError
from nnlearn.course.explorers import traffic_explorer
from nnlearn.export import export_onnx, fold_batch_norm, graph_nodes
from nnlearn.measure import compare, memory_traffic, what_runs
from nnlearn.models import small_cnn
from nnlearn.runtimes import Exported, OnnxModel, build_tensorrt, export_litert, largest_difference

IMAGES = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def trained(widths=(3, 5), classes=4):
    """A small net whose batch norms have seen data."""
    torch.manual_seed(0)
    net = small_cnn(widths, classes)
    with torch.no_grad():
        net(3 * torch.rand(30, 1, 28, 28))
    return net


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A net, where it was written, and what was returned."""
    net = trained()
    path = tmp_path_factory.mktemp("export") / "net.onnx"
    return net, path, export_onnx(net, IMAGES, path)


# The net


@pytest.mark.parametrize("widths, classes, numbers", [((32, 64), 10, 50_378), ((8, 16), 10, 9_146), ((4, 8), 10, 4_290), ([2], 3, 1_203)])
def test_the_net_has_the_parameters_it_should(widths, classes, numbers):
    net = small_cnn(widths, classes)
    assert sum(p.numel() for p in net.parameters()) == numbers
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, classes)


@pytest.mark.parametrize("widths, classes, words", [
    (5, 10, "small_cnn.widths: expected a sequence with 1 to 4 items, .* got 5"), ("ab", 10, "small_cnn.widths"),
    ((), 10, "small_cnn.widths: .* 1 to 4 items"), ((1,) * 5, 10, "small_cnn.widths: .* 1 to 4 items"),
    ((4, 0), 10, r"small_cnn.widths\[1\]: expected an integer of at least 1, got 0"), ((4.0,), 10, r"small_cnn.widths\[0\]: .* got 4.0"),
    ((True,), 10, "got True"), ((4,), 0, "small_cnn.classes"), ((4,), "ten", "small_cnn.classes: .* got 'ten'")])
def test_widths_that_make_no_net(widths, classes, words):
    with pytest.raises(ConfigError, match=words):
        small_cnn(widths, classes)


# ONNX


def test_what_an_export_returns(exported):
    net, path, result = exported
    assert isinstance(result, Exported) and result.path == str(path) and result.bytes == path.stat().st_size
    assert result.batches == (1, 3, 4, 9) and 0 <= result.difference < 1e-4
    assert result.opset == onnx.load(path).opset_import[0].version
    assert [p.name for p in path.parent.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("batch", [1, 2, 4, 33])
def test_any_batch_size_gives_what_torch_gives(exported, batch):
    net, path, _ = exported
    x = torch.randn(batch, 1, 28, 28)
    with torch.no_grad():
        expected = net.eval()(x)
    found = OnnxModel(path)(x)
    assert isinstance(found, torch.Tensor) and torch.allclose(found, expected, atol=1e-5)
    net.train()


def test_the_model_is_left_as_it_was(tmp_path):
    net = trained()
    net[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    export_onnx(net, IMAGES, tmp_path / "net.onnx")
    assert modes == [m.training for m in net.modules()] and True in modes and False in modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(ConfigError):
        export_onnx(net, IMAGES[:, :, :5], tmp_path / "net.onnx")
    assert modes == [m.training for m in net.modules()]


def test_logging_and_warnings_are_as_before(tmp_path, capfd):
    before = logging.root.manager.disable, list(warnings.filters)
    export_onnx(trained(), IMAGES, tmp_path / "net.onnx")
    assert (logging.root.manager.disable, list(warnings.filters)) == before
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err == ""


def test_dropout_is_not_exported(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 3)).train()
    export_onnx(net, IMAGES, tmp_path / "net.onnx", optimize=False)
    assert "Dropout" not in graph_nodes(tmp_path / "net.onnx") and net.training
    literal = OnnxModel(tmp_path / "net.onnx", optimize=False)
    assert torch.equal(literal(IMAGES), literal(IMAGES))


def test_an_example_of_one_row_leaves_the_batch_open(tmp_path):
    result = export_onnx(trained(), IMAGES[:1], tmp_path / "net.onnx")
    assert result.batches == (1, 3) and OnnxModel(tmp_path / "net.onnx")(IMAGES).shape == (4, 4)


def test_a_fixed_batch_is_said_to_be_one(tmp_path):
    result = export_onnx(trained(), IMAGES, tmp_path / "net.onnx", dynamic_batch=False)
    assert result.batches == (4,) and OnnxModel(tmp_path / "net.onnx")(IMAGES).shape == (4, 4)
    with pytest.raises(ConfigError, match=r"expected shape \(4, 1, 28, 28\), got \(3, 1, 28, 28\).*dynamic_batch=True"):
        OnnxModel(tmp_path / "net.onnx")(IMAGES[:3])


class Two(nn.Module):
    """Two inputs, two outputs, one of them whole numbers."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 5)

    def forward(self, x, words):
        h = self.table(words).mean(1) + x
        return h, h.argmax(1)


def test_several_inputs_and_outputs(tmp_path):
    torch.manual_seed(0)
    model, example = Two(), (torch.randn(6, 5), torch.randint(3, 7, (6, 4)))
    result = export_onnx(model, example, tmp_path / "two.onnx")
    x, words = torch.randn(2, 5), torch.tensor([[0, 1, 2, 3], [6, 6, 5, 4]])
    found = OnnxModel(result.path)(x, words)
    expected = model(x, words)
    assert isinstance(found, tuple) and torch.allclose(found[0], expected[0]) and torch.equal(found[1], expected[1])
    with pytest.raises(ConfigError, match=r"expected 2 input\(s\), input_0, input_1, got 1"):
        OnnxModel(result.path)(x)
    with pytest.raises(ConfigError, match="OnnxModel.input_1: expected torch.int64, got torch.float32"):
        OnnxModel(result.path)(x, words.float())


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-9), (torch.float16, 1e-2)])
def test_other_float_types(tmp_path, dtype, bound):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).to(dtype)
    x = torch.randn(5, 8, dtype=dtype)
    result = export_onnx(net, x, tmp_path / "net.onnx")
    assert result.difference < bound and OnnxModel(result.path)(x).dtype == dtype


def test_a_compiled_model_is_exported_as_its_original(tmp_path):
    net = trained()
    result = export_onnx(torch.compile(net), IMAGES, tmp_path / "net.onnx")
    assert result.difference < 1e-4 and net.training


@pytest.mark.parametrize("opset", [18, 21])
def test_the_opset_is_the_one_asked_for(tmp_path, opset):
    result = export_onnx(trained(), IMAGES, tmp_path / "net.onnx", opset=opset)
    assert result.opset == opset == onnx.load(result.path).opset_import[0].version


def test_an_opset_that_cannot_be_had_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="export_onnx.opset: expected opset 16, got 18"):
        export_onnx(nn.LayerNorm(4), torch.randn(3, 4), tmp_path / "norm.onnx", opset=16)


def test_a_data_file_of_an_earlier_export_is_taken_away(tmp_path):
    (tmp_path / "net.onnx.data").write_bytes(b"old weights")
    (tmp_path / "other.onnx.data").write_bytes(b"not ours")
    result = export_onnx(trained(), IMAGES, tmp_path / "net.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "other.onnx.data"]
    assert result.bytes == (tmp_path / "net.onnx").stat().st_size


def test_weights_beyond_one_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LARGEST_FILE", 1000)
    with pytest.raises(ConfigError, match=r"less than 2 GB.*model.half\(\).*external_data=True"):
        export_onnx(trained(), IMAGES, tmp_path / "net.onnx")


# Models and examples that cannot be exported


class Looks(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Reads(nn.Module):
    def forward(self, x):
        return x[: int(x.abs().max().item())]


class HoldsOn(nn.Module):
    def forward(self, x):
        return x.reshape(4, 784)


class HoldsOnQuietly(nn.Module):
    """Runs with every batch size, but the graph keeps that of the example."""

    def forward(self, x):
        return x.flatten(1) * float(len(x))


class Random(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


class Words(nn.Module):
    def forward(self, x):
        return {"logits": x}


class Strings(nn.Module):
    def forward(self, x):
        import json
        json.loads("{")
        return x


@pytest.mark.parametrize("model, example, words", [
    (Looks(), IMAGES, r"export_onnx.model: Looks cannot become a graph.*at `return x if x.sum\(\) > 0 else -x`.*torch.where"),
    (HoldsOn(), IMAGES, r"export_onnx.model: a batch of 1 fails, although the example of 4 runs: forward\(\) hard-codes.*flatten\(1\)"),
    (Random(), IMAGES, "export_onnx.model: the file and the model differ by .*random in eval mode"),
    (Words(), IMAGES, "export_onnx.model: expected a model that returns a tensor or a tuple of tensors, got dict"),
    (Strings(), IMAGES, r"export_onnx.example: the model cannot run the example of shape \(4, 1, 28, 28\)"),
    (torch.relu, IMAGES, "export_onnx.model: expected a Module, got builtin"),
    (nn.ReLU(), IMAGES.numpy(), "export_onnx.example: .* got ndarray"),
    (nn.ReLU(), (), "export_onnx.example: .* got nothing"),
    (nn.ReLU(), torch.tensor(1.0), "export_onnx.example: expected inputs with the same batch size, at least 1"),
    (nn.ReLU(), IMAGES[:0], "export_onnx.example: expected inputs with the same batch size, at least 1"),
    (Two(), (torch.randn(3, 5), torch.ones(2, 4, dtype=torch.int64)), r"same batch size.*\(3, 5\), \(2, 4\)"),
    (small_cnn((2,)), torch.rand(3, 3, 28, 28), "export_onnx.example: the model cannot run"),
], ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "")
def test_what_cannot_be_exported_is_refused(tmp_path, model, example, words):
    with pytest.raises(ConfigError, match=words):
        export_onnx(model, example, tmp_path / "no.onnx")


def test_a_size_that_became_a_constant_is_found(tmp_path):
    """Whatever the exporter makes of len(x): either the file is right for every batch, or it is refused."""
    x = torch.rand(4, 6)
    try:
        result = export_onnx(HoldsOnQuietly(), x, tmp_path / "quiet.onnx")
    except ConfigError as error:
        assert "export_onnx.model" in str(error)
    else:
        assert torch.allclose(OnnxModel(result.path)(x[:2]), 2 * x[:2])


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="export_onnx.path: there is no folder"):
        export_onnx(trained(), IMAGES, tmp_path / "no" / "net.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf'import {package}: .*pip install "nnlearn\[export\]"'):
        export_onnx(trained(), IMAGES, tmp_path / "net.onnx")


def test_a_wrong_file_is_found_by_the_check(tmp_path, monkeypatch):
    """Were the exporter to write other weights, the check would see it."""
    original = module._write_onnx

    def damaged(model, inputs, outputs, path, *rest):
        original(model, inputs, outputs, path, *rest)
        graph = onnx.load(path)
        array = onnx.numpy_helper.to_array(graph.graph.initializer[0]).copy()
        array.flat[0] += 0.5
        graph.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(array, graph.graph.initializer[0].name))
        onnx.save(graph, path)

    monkeypatch.setattr(module, "_write_onnx", damaged)
    with pytest.raises(ConfigError, match="the file and the model differ by"):
        export_onnx(trained(), IMAGES, tmp_path / "net.onnx")
    assert export_onnx(trained(), IMAGES, tmp_path / "net.onnx", check=False).difference is None


# Differences


def test_differences():
    nan, inf = float("nan"), float("inf")
    one = [torch.tensor([1.0, 2.0])]
    assert largest_difference(one, [torch.tensor([1.0, 2.5])]) == 0.5
    assert largest_difference(one, one) == 0 and largest_difference([], []) == 0
    assert largest_difference(one, [torch.tensor([[1.0, 2.0]])]) == inf and largest_difference(one, []) == inf
    assert largest_difference([torch.tensor([nan])], [torch.tensor([1.0])]) == inf
    assert largest_difference([torch.tensor([nan, inf])], [torch.tensor([nan, inf])]) == 0
    assert largest_difference([torch.tensor([inf])], [torch.tensor([-inf])]) == inf
    assert largest_difference([torch.zeros(0)], [torch.zeros(0)]) == 0
    assert largest_difference([torch.tensor([3])], [torch.tensor([1])]) == 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8))
def test_differences_are_numpys(a, b):
    size = min(len(a), len(b))
    x, y = (torch.tensor(v[:size], dtype=torch.float64) for v in (a, b))
    assert largest_difference([x], [y]) == np.abs(x.numpy() - y.numpy()).max() == largest_difference([y], [x])


# Running a file


def test_threads_are_torchs_unless_told(exported):
    _, path, _ = exported
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert OnnxModel(path).threads == 2 and OnnxModel(path).session.get_session_options().intra_op_num_threads == 2
        torch.set_num_threads(1)
        assert OnnxModel(path).session.get_session_options().intra_op_num_threads == 1
        assert OnnxModel(path, threads=3).session.get_session_options().intra_op_num_threads == 3
    finally:
        torch.set_num_threads(before)


def test_it_goes_into_the_table(exported):
    net, path, result = exported
    in_onnx = OnnxModel(path)
    table = compare({"eager": net.eval(), "onnx": in_onnx}, lambda fn: float(fn(IMAGES).shape[0] == 4), IMAGES, runs=2)
    assert table["onnx"].bytes == result.bytes and table["onnx"].accuracy == 1.0
    kinds = {f"onnxruntime {kind}" for kind in in_onnx.kernels(IMAGES)}  # which one takes longest is up to the machine
    assert table["onnx"].runs in kinds and what_runs(in_onnx, IMAGES) in kinds
    net.train()


def test_kernels_are_those_that_ran(exported):
    _, path, _ = exported
    found = OnnxModel(path).kernels(IMAGES)
    assert {"Conv", "Gemm", "MaxPool"} <= set(found) and all(ms >= 0 for ms in found.values())
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert "Relu" in OnnxModel(path, optimize=False).kernels(IMAGES) and "Relu" not in found
    assert not list(path.parent.glob("*.json"))


def test_inputs_with_gradients_and_strides_are_taken(exported):
    net, path, _ = exported
    x = torch.randn(28, 28, 1, 3).permute(3, 2, 0, 1).requires_grad_()
    found = OnnxModel(path)(x)
    assert torch.allclose(found, net.eval()(x), atol=1e-5) and not found.requires_grad
    net.train()


@pytest.mark.parametrize("inputs, words", [
    ((IMAGES.double(),), "OnnxModel.input: expected torch.float32, got torch.float64"),
    ((IMAGES[0],), r"expected shape \(batch, 1, 28, 28\), got \(1, 28, 28\)\.$"),
    ((IMAGES[:, :, :27],), r"expected shape \(batch, 1, 28, 28\), got \(4, 1, 27, 28\)\.$"),
    ((IMAGES, IMAGES), r"expected 1 input\(s\), input, got 2"), ((), "got 0"),
    ((IMAGES.numpy(),), "OnnxModel.input: expected a tensor, got ndarray. torch.as_tensor")])
def test_wrong_inputs_are_refused(exported, inputs, words):
    with pytest.raises(ConfigError, match=words):
        OnnxModel(exported[1])(*inputs)


def test_files_that_are_none(tmp_path, exported):
    with pytest.raises(ConfigError, match="OnnxModel.path: there is no file"):
        OnnxModel(tmp_path / "missing.onnx")
    with pytest.raises(ConfigError, match="OnnxModel.path: there is no file"):
        OnnxModel(tmp_path)
    content = exported[1].read_bytes()
    for name, damaged in {"text": b"hello", "empty": b"", "half": content[: len(content) // 2]}.items():
        (tmp_path / f"{name}.onnx").write_bytes(damaged)
        with pytest.raises(ConfigError, match=f"{name}.onnx is not an ONNX file that this runtime can open"):
            OnnxModel(tmp_path / f"{name}.onnx")


@pytest.mark.parametrize("options, words", [
    ({"threads": 0}, "OnnxModel.threads"),
    ({"optimize": "extendet"}, "optimize: expected True or False or one of 'basic', 'extended', got 'extendet'"),
    ({"providers": ["CUDAExecutionProvder"]}, "OnnxModel.providers: 'CUDAExecutionProvder' cannot run here")])
def test_wrong_settings_are_refused(exported, options, words):
    with pytest.raises(ConfigError, match=words):
        OnnxModel(exported[1], **options)


def test_a_graph_that_fails_inside_is_reported(tmp_path):
    """A reshape to a fixed size: the input's shape is right, and the node is not."""
    from onnx import TensorProto, helper
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [4, 2])
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "shape"], ["y"])], "g",
                              [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [shape])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "fixed.onnx")
    opened = OnnxModel(tmp_path / "fixed.onnx")
    assert opened(torch.ones(4, 2)).shape == (4, 2)
    with pytest.raises(ConfigError, match=r"the graph fails on inputs of shape \(3, 2\)"):
        opened(torch.ones(3, 2))


# Graphs


def test_norms_are_folded_and_relus_fused(tmp_path):
    net = trained((3, 4, 5), 2)
    export_onnx(net, IMAGES, tmp_path / "raw.onnx", optimize=False)
    for level, expected in {False: (3, 3, 0), "basic": (0, 3, 0), "extended": (0, 0, 3)}.items():
        kinds = graph_nodes(tmp_path / "raw.onnx", level)
        assert (kinds.count("BatchNormalization"), kinds.count("Relu"), kinds.count("FusedConv")) == expected
        assert "Constant" not in kinds
    assert graph_nodes(tmp_path / "raw.onnx", True).count("Conv") == 3
    with pytest.raises(ConfigError, match="there is no file"):
        graph_nodes(tmp_path / "none.onnx")


@pytest.mark.parametrize("widths", [(2,), (3, 4), (4, 2, 3)])
def test_a_folded_net_computes_the_same(widths):
    net = trained(widths)
    folded = fold_batch_norm(net)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == len(widths) and net.training and not folded.training
    x = 3 * torch.rand(5, 1, 28, 28)
    with torch.no_grad():
        assert torch.allclose(folded(x), net.eval()(x), atol=1e-5)


def test_a_net_that_cannot_be_traced_is_not_folded():
    with pytest.raises(ConfigError, match="fold_batch_norm.model: Looks cannot be traced by torch.fx"):
        fold_batch_norm(Looks())


def test_traffic_is_counted_by_hand():
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(4, 2, bias=False)).train()
    x = torch.zeros(3, 6)
    linear_weights, norm_weights = 6 * 4 + 4 + 4 * 2, 8
    linear, others = 3 * (6 + 4) + 3 * (4 + 2), 2 * 3 * (4 + 4)
    assert memory_traffic(net, x) == (4 * (linear_weights + norm_weights), 4 * (linear + others))
    assert memory_traffic(net, x, fused=True, bytes_per_number=1) == (linear_weights, linear)
    assert net.training and not any(layer._forward_hooks for layer in net)


def test_the_explorer_shows_what_is_counted():
    explorer = traffic_explorer()
    assert len(explorer.html) < 150 * 1024
    curves = explorer.kinds[0].draw("8, 16", "fused", "int8")
    weights, activations = memory_traffic(small_cnn((8, 16)), IMAGES[:1], True, 1)
    assert curves["sum"][1][0] == pytest.approx((weights + activations) / 1024)
    assert curves["sum"][1][-1] == pytest.approx((weights / 256 + activations) / 1024)


# LiteRT and TensorRT: stand-ins for packages that are not part of the tested set


class FakeConverter:
    """What litert_torch offers, writing a file that the fake interpreter reads."""

    def __init__(self, fail=False, factor=1.0):
        self.fail, self.factor, self.training = fail, factor, None

    def convert(self, model, inputs):
        self.training = model.training
        if self.fail:
            raise RuntimeError("no lowering for aten.strange")
        self.model, self.shapes = model, [tuple(x.shape) for x in inputs]
        return types.SimpleNamespace(export=self.export)

    def export(self, path):
        with open(path, "wb") as file:
            file.write(b"TFL3" * 10)

    def Interpreter(self, model_path):  # the name of ai_edge_litert
        assert os.path.exists(model_path)
        fed = {}

        def invoke():
            with torch.no_grad():
                fed["out"] = self.factor * self.model(*(torch.from_numpy(fed[i]) for i in range(len(self.shapes)))).numpy()

        return types.SimpleNamespace(
            allocate_tensors=lambda: None, set_tensor=fed.__setitem__, invoke=invoke, get_tensor=lambda i: fed["out"],
            get_input_details=lambda: [{"index": i} for i in range(len(self.shapes))], get_output_details=lambda: [{"index": 9}])


def use_converter(monkeypatch, converter):
    monkeypatch.setitem(sys.modules, "litert_torch", converter)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", converter)


def test_litert_writes_checks_and_restores(tmp_path, monkeypatch):
    converter, net = FakeConverter(), trained()
    use_converter(monkeypatch, converter)
    result = export_litert(net, IMAGES, tmp_path / "net.tflite")
    assert result == Exported(str(tmp_path / "net.tflite"), 40, 0.0, (4,)) and converter.training is False and net.training
    assert export_litert(net, IMAGES, tmp_path / "net.tflite", check=False).difference is None


def test_litert_finds_a_wrong_file_and_words_a_failure(tmp_path, monkeypatch):
    use_converter(monkeypatch, FakeConverter(factor=1.5))
    with pytest.raises(ConfigError, match="export_litert.model: the file and the model differ by"):
        export_litert(trained(), IMAGES, tmp_path / "net.tflite")
    use_converter(monkeypatch, FakeConverter(fail=True))
    with pytest.raises(ConfigError, match="export_litert.model: Sequential cannot become a graph: no lowering for aten.strange"):
        export_litert(trained(), IMAGES, tmp_path / "net.tflite")


def test_litert_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(ConfigError, match="import litert_torch: .*pip install litert-torch"):
        export_litert(trained(), IMAGES, tmp_path / "net.tflite")


class FakeTensorRT(types.SimpleNamespace):
    """The names of TensorRT 10 that are used, and no others: an old call raises AttributeError."""

    def __init__(self, parses=True, plan=b"plan"):
        calls = []
        profile = types.SimpleNamespace(set_shape=lambda *a: calls.append(("shape", *a)))
        config = types.SimpleNamespace(set_memory_pool_limit=lambda *a: calls.append(("pool", *a)),
                                       add_optimization_profile=lambda p: calls.append(("profile", p is profile)))
        entries = [types.SimpleNamespace(name="input", shape=(-1, 1, 28, 28)), types.SimpleNamespace(name="fixed", shape=(3, 2))]
        network = types.SimpleNamespace(num_inputs=2, get_input=entries.__getitem__)
        parser = types.SimpleNamespace(parse=lambda data: parses and len(data) > 0, num_errors=1, get_error=lambda i: "no such operator")
        builder = types.SimpleNamespace(create_network=lambda flags: calls.append(("network", flags)) or network,
                                        create_builder_config=lambda: config, create_optimization_profile=lambda: profile,
                                        build_serialized_network=lambda n, c: plan if n is network and c is config else 1 / 0)
        logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
        super().__init__(Logger=logger, Builder=lambda log: builder, OnnxParser=lambda n, log: parser,
                         MemoryPoolType=types.SimpleNamespace(WORKSPACE="workspace"), calls=calls)


def use_tensorrt(monkeypatch, gpu=True, **options):
    fake = FakeTensorRT(**options)
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    return fake


def test_tensorrt_makes_the_calls_of_version_10(exported, tmp_path, monkeypatch):
    fake = use_tensorrt(monkeypatch)
    result = build_tensorrt(exported[1], tmp_path / "net.plan", batches=(1, 4, 16), workspace=2**20)
    assert (tmp_path / "net.plan").read_bytes() == b"plan" and result == Exported(str(tmp_path / "net.plan"), 4, None, ())
    assert fake.calls == [("network", 0), ("pool", "workspace", 2**20),
                          ("shape", "input", (1, 1, 28, 28), (4, 1, 28, 28), (16, 1, 28, 28)), ("profile", True)]


@pytest.mark.parametrize("options, call, words", [
    ({"gpu": False}, {}, "got a machine where torch sees none"), ({"parses": False}, {}, "TensorRT cannot read net.onnx: no such operator"),
    ({"plan": None}, {}, "TensorRT could not build a plan"), ({}, {"batches": (4, 2, 8)}, "build_tensorrt.batches"),
    ({}, {"batches": (1, 2)}, "build_tensorrt.batches"), ({}, {"batches": (0, 2, 8)}, "build_tensorrt.batches")])
def test_tensorrt_that_fails_says_why(exported, tmp_path, monkeypatch, options, call, words):
    use_tensorrt(monkeypatch, **options)
    with pytest.raises(ConfigError, match=words):
        build_tensorrt(exported[1], tmp_path / "net.plan", **call)
    assert not (tmp_path / "net.plan").exists()


def test_tensorrt_without_package_or_file(exported, tmp_path, monkeypatch):
    use_tensorrt(monkeypatch)
    with pytest.raises(ConfigError, match="build_tensorrt.onnx_path: there is no file"):
        build_tensorrt(tmp_path / "none.onnx", tmp_path / "net.plan")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ConfigError, match="import tensorrt: .*pip install tensorrt"):
        build_tensorrt(exported[1], tmp_path / "net.plan")


def test_a_new_process_runs_the_file_without_torch(exported):
    code = (f"import sys, numpy, onnxruntime\ns = onnxruntime.InferenceSession({str(exported[1])!r})\n"
            "print([s.run(None, {'input': numpy.zeros((n, 1, 28, 28), 'float32')})[0].shape for n in (1, 5)], 'torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[(1, 4), (5, 4)] False", done.stderr
