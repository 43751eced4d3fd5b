"""Nets and data of one's own, from a YAML file to the report: the zoo of own_nets.py, CSV files, permission, choices of layers."""
import csv
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from sklearn.datasets import load_diabetes, load_wine
from torch import nn

import nnlearn.config as c
from nnlearn.core import ConfigError, seed_everything
from nnlearn.course.cli import main
from nnlearn.datasets import DATASETS, digits
from nnlearn.first_config import write_config
from nnlearn.imports import import_object, imported
from nnlearn.layer_choice import choice_of
from nnlearn.measure import Comparison, Row
from nnlearn.pipeline import ModelOptimizer, load_net
from nnlearn.quantization import quantize_model
from nnlearn.report import Report, pareto_front
from nnlearn.runtimes import OnnxModel
from nnlearn.sources import Part, load_data
from nnlearn.tasks import Judge, with_task

HERE = Path(__file__).parent
CUT = {"type": "structured", "target_sparsity": 0.5, "epochs": 1}
TAUGHT = {"epochs": 1}


def as_csv(path, data, delimiter=","):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow([*data.feature_names, "target"])
        writer.writerows([*row, target] for row, target in zip(data.data.tolist(), data.target.tolist(), strict=True))
    return path


def own(name, **params):
    return {"import": f"own_nets:{name}", **({"params": params} if params else {})}


ZOO = {  # data, model, what differs in the training, the variants that are expected
    "MLP with a batch norm first, CSV": ({"csv": "wine.csv", "target": "target", "standardize": False, "batch_size": 16}, own("NormedMLP"),
                                         {"epochs": 20}),
    "1-D CNN": ({"import": "own_nets:rows"}, own("Conv1dNet"), {}),
    "residual CNN": ({"import": "own_nets:images"}, own("ResidualCNN", channels=8), {}),
    "depthwise, residual": ({"import": "own_nets:images"}, own("MobileNet", channels=8), {}),
    "U-Net": ({"import": "own_nets:masks"}, own("SmallUNet"), {"loss": "bce_with_logits", "distillation": None}),
    "LSTM": ({"import": "own_nets:rows"}, own("LSTMClassifier"), {"pruning": {"type": "magnitude", "target_sparsity": 0.5, "epochs": 1}}),
    "transformer": ({"import": "own_nets:rows"}, own("Transformer"), {}),
    "embedding bag": ({"import": "own_nets:tokens"}, own("Bag"), {}),
    "two inputs": ({"import": "own_nets:halves"}, own("TwoInputs"), {}),
    "regression, CSV": ({"csv": "diabetes.csv", "target": "target", "classes": False},
                        {"name": "mlp", "inputs": 10, "classes": 1, "widths": [16, 16]},
                        {"epochs": 20, "loss": {"type": "huber", "delta": 2.0}, "distillation": None}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("zoo")
    (place / "own_nets.py").write_text((HERE / "own_nets.py").read_text(encoding="utf-8"), encoding="utf-8")
    as_csv(place / "wine.csv", load_wine())
    as_csv(place / "diabetes.csv", load_diabetes())
    sys.modules.pop("own_nets", None)
    yield place
    sys.modules.pop("own_nets", None)
    sys.path[:] = [each for each in sys.path if each != str(place)]


def document(name, **changes):
    data, model, differs = ZOO[name]
    training = {"epochs": 2, "pruning": CUT, "distillation": TAUGHT, "quantization": {"max_drop": 2.0, "calibration_rows": 128},
                **differs, **changes}
    return {"data": {**data, "train_rows": 700}, "model": model, "training": {k: v for k, v in training.items() if v is not None}}


def written(folder, content):
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ZOO)
def test_the_whole_way_from_a_file(name, folder, tmp_path, monkeypatch):
    path = written(folder, document(name))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch-pruning, about parameters of its own choice
        report = ModelOptimizer(path, verbose=0, allow_import=True).run(tmp_path / "run")
    last = "distilled" if "distillation" in yaml.safe_load(path.read_text())["training"] else "pruned"
    assert [row.name for row in report.comparison.rows] == ["original", "pruned", *(["distilled"] if last == "distilled" else []),
                                                            "original, ONNX", f"{last}, ONNX", "int8"]
    config, parts = with_task(c.load_config(path, allow_import=True), load_data(c.load_config(path, allow_import=True)))
    few = parts.test.take(slice(20))
    net, file = load_net(tmp_path / "run" / f"{last}.pt"), OnnxModel(tmp_path / "run" / f"{last}-onnx.onnx")
    with torch.no_grad():
        assert torch.allclose(net(*few.inputs), file(*few.inputs), atol=1e-4)
    int8 = choice_of(OnnxModel(tmp_path / "run" / "int8.onnx"))
    lost = 100 * (report.validation[last] - report.validation["int8"])
    assert int8.held == (lost <= 2.0 + 1e-6) and abs(int8.drop - lost) < 1e-4  # what it says is what a fresh look finds
    seen = Judge(config.training).score(net, parts.validation).value  # choices are made by validation rows
    assert abs(report.validation[last] - seen) < 1e-6
    row = report["original"]
    assert row.accuracy_low <= row.accuracy <= row.accuracy_high and row.p50_one_ms > 0
    if ZOO[name][2].get("pruning", CUT) is CUT:
        assert report["pruned"].bytes < report["original"].bytes and max(report.sparsity["pruned"].values()) > 0.4
    assert not list((tmp_path / "here").iterdir())  # nothing is left where the command was called
    page = (tmp_path / "run" / "report.html").read_text()
    assert "original.pt" in page and config.training.metric in page


def test_structured_pruning_of_a_recurrent_net_is_refused_before_training(folder, tmp_path, capsys):
    path = written(folder, document("LSTM", pruning=CUT, epochs=500))
    with pytest.raises(ConfigError, match="lstm"):
        ModelOptimizer(path, allow_import=True).run(tmp_path / "run")
    assert "original" not in capsys.readouterr().out and not (tmp_path / "run" / "original.pt").exists()


@pytest.mark.parametrize("name, training, message", [
    ("U-Net", {"distillation": TAUGHT}, "training.distillation: expected one class for each row"),
    ("regression, CSV", {"distillation": TAUGHT}, "training.distillation: expected one class for each row, learned by cross_entropy"),
    ("regression, CSV", {"loss": "cross_entropy"}, "training.loss: cross_entropy is for classes, and the targets are numbers"),
    ("regression, CSV", {"metric": "mae"}, "training.metric: mae falls as a net gets better"),
    ("regression, CSV", {"loss": "hubber"}, "training.loss.*Did you mean 'huber'"),
    ("regression, CSV", {"loss": {"type": "huber", "delta": -1.0}}, "training.loss"),
    ("1-D CNN", {"loss": "mse"}, "model: gives outputs of the shape \\(10,\\), and the targets"),
    ("U-Net", {"loss": "bce"}, "training.loss: bce cannot compare these outputs with these targets: all elements"),
    ("1-D CNN", {"loss": {"type": "cross_entropy", "reduction": "none"}}, "training.loss.reduction: expected a loss that is one number"),
    ("1-D CNN", {"epochs": 0}, "training.epochs: 0 epochs leave the net as it was made: give model.checkpoint"),
    ("1-D CNN", {"quantization": {"exclude": ["haed"]}}, "quantize_model.exclude: there is no layer 'haed'.*Did you mean 'head'"),
    ("1-D CNN", {"quantization": {"type": "during_training", "max_drop": 1.0}}, "training.quantization.max_drop: has no effect"),
    ("1-D CNN", {"quantization": {"backend": "torch", "reduce_range": True}}, "training.quantization.reduce_range: has no effect"),
])
def test_what_does_not_fit_is_refused_before_training(name, training, message, folder, tmp_path):
    path = written(folder, document(name, **training))
    with pytest.raises(ConfigError, match=message):
        ModelOptimizer(path, verbose=0, allow_import=True).run(tmp_path / "run")
    assert not list(tmp_path.glob("run/original*"))


@pytest.mark.parametrize("content, message", [
    ({"data": {"csv": "wine.csv"}}, "data.target: missing"),
    ({"data": {"csv": "wine.csv", "target": "taget"}, "model": {"name": "mlp"}}, "Did you mean 'target'"),
    ({"data": {"csv": "whine.csv", "target": "target"}}, "data.csv: there is no file"),
    ({"data": {"csv": 5000 * "x", "target": "target"}}, "data.csv: cannot be the name of a file"),
    ({"model": {"checkpoint": "\0"}}, "model.checkpoint: cannot be the name of a file"),
    ({"data": {"csv": "wine.csv", "target": "target", "name": "digits"}}, "data: expected one source, got name and csv"),
    ({"data": {"name": "digits", "missing": "drop"}}, "data.missing: has no effect without csv"),
    ({"data": {"name": "digits", "params": {"a": 1}}}, "data.params: has no effect without import"),
    ({"data": {"name": "digits", "test_fraction": 0.3}}, "data.test_fraction: has no effect"),
    ({"data": {"name": "digits", "validation_fraction": 0.3}}, "data.validation_fraction: has no effect"),
    ({"data": {"import": "own_nets:failing"}}, "data.import: own_nets:failing failed: OSError: no such disk"),
    ({"data": {"import": "own_nets:rwos"}}, "data.import: own_nets has no 'rwos'. Did you mean 'rows'"),
    ({"data": {"import": "own_nets:rows", "params": {"a": 1}}}, "data.params: unknown argument 'a'"),
    ({"data": {"import": "own_nets"}}, "data.import: expected \"module:name\""),
    ({"data": {"import": "no_such_nets:rows"}}, "data.import: there is no module 'no_such_nets'"),
    ({"model": {"import": "own_nets:rows"}}, "model.import: expected a class or function that makes an nn.Module"),
    ({"model": own("Bag", wdith=3)}, "model.params: unknown argument 'wdith'. Did you mean 'width'"),
    ({"model": own("Bag", width=-3)}, "model: own_nets:Bag failed: RuntimeError"),
    ({"model": {**own("Bag"), "name": "mlp"}}, "model: expected name or import, got both"),
    ({"model": {**own("Bag"), "checkpoint": "none.pt"}}, "model.checkpoint: there is no file"),
    ({"model": {**own("Bag"), "checkpoint": "wine.csv"}}, "model.checkpoint: .*wine.csv is not a file of weights"),
])
def test_sources_that_do_not_work(content, message, folder):
    path = written(folder, content)
    with pytest.raises(ConfigError, match=message):
        config = c.load_config(path, allow_import=True)
        ModelOptimizer(config, verbose=0).run(folder / "never")


def test_a_file_alone_runs_no_code(folder, tmp_path):
    (tmp_path / "marks_itself.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\ndef make(): pass\n", encoding="utf-8")
    path = tmp_path / "c.yaml"
    for section in ("data", "model"):
        path.write_text(yaml.safe_dump({section: {"import": "marks_itself:make"}}), encoding="utf-8")
        with pytest.raises(ConfigError, match=f"{section}.import: marks_itself:make is code of your own.*--allow-import"):
            c.load_config(path)
        assert main(["optimize", str(path), "--output", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "mark").exists()
    with pytest.raises(ConfigError):
        imported("marks_itself:make", "model.import")


def test_the_net_of_a_module_is_loaded_with_permission_only(folder, tmp_path):
    path = written(folder, {**document("two inputs"), "training": {"epochs": 1}})
    ModelOptimizer(path, verbose=0, allow_import=True).run(tmp_path / "run")
    code = f"from nnlearn.runs import load_net; print(type(load_net({str(tmp_path / 'run' / 'original.pt')!r}, allow_import=%s)).__name__)"
    for allow, said in ((True, "TwoInputs"), (False, "is code of your own")):
        done = subprocess.run([sys.executable, "-c", code % allow], capture_output=True, text=True, cwd=folder)
        assert said in done.stdout + done.stderr


def test_two_modules_of_one_name_are_not_mixed_up(tmp_path):
    for name, units in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same_name_nets.py").write_text(f"from torch import nn\ndef net():\n    return nn.Linear(2, {units})\n")
    assert import_object("same_name_nets:net", "model.import", tmp_path / "a")().out_features == 1
    with pytest.raises(ConfigError, match="already loaded another module 'same_name_nets'"):
        import_object("same_name_nets:net", "model.import", tmp_path / "b")
    (tmp_path / "a" / "same_name_nets.py").write_text("from torch import nn\ndef net():\n    return nn.Linear(2, 3, bias=False)\n")
    assert import_object("same_name_nets:net", "model.import", tmp_path / "a")().out_features == 3  # edited since


def test_a_trained_net_is_taken_as_it_is(folder, tmp_path):
    import own_nets  # noqa: F401  # the folder is on the path by now

    config = c.load_config(written(folder, document("two inputs")), allow_import=True)
    seed_everything(3)
    net = c.make_model(config.model)
    torch.save({"state_dict": net.state_dict()}, folder / "weights.pt")
    content = document("two inputs", epochs=0, pruning=None, distillation=None)
    content["model"] = {**content["model"], "checkpoint": "weights.pt"}
    report = ModelOptimizer(written(folder, content), verbose=0, allow_import=True).run(tmp_path / "run")
    same = load_net(tmp_path / "run" / "original.pt").state_dict()
    assert all(torch.equal(same[key], value) for key, value in net.state_dict().items()) and len(report.comparison.rows) == 3
    news = []
    again = ModelOptimizer(written(folder, content), verbose=0, allow_import=True)
    from nnlearn.runs import RunFolder
    from nnlearn.stages import run_stages
    run_stages(again, RunFolder(tmp_path / "run", resume=True, say=news.append))
    assert "original: kept" in news
    net.head.bias.data += 1
    torch.save(net.state_dict(), folder / "weights.pt")
    news.clear()
    run_stages(again, RunFolder(tmp_path / "run", resume=True, say=news.append))
    assert "original ..." in news  # other weights in the same file
    content["training"]["lr_schedule"] = {"type": "warmup_cosine", "warmup_epochs": 1}
    with pytest.raises(ConfigError, match="lr_schedule: has no effect with epochs: 0"):
        c.load_config(written(folder, content), allow_import=True)
    other = nn.Linear(3, 3)
    torch.save(other.state_dict(), folder / "weights.pt")
    content["training"].pop("lr_schedule")
    with pytest.raises(ConfigError, match="model.checkpoint: .*lacks left.weight.*has unknown weight"):
        ModelOptimizer(written(folder, content), verbose=0, allow_import=True).run(tmp_path / "other")


def test_a_changed_file_of_data_or_code_is_noticed(folder, tmp_path):
    from nnlearn.runs import RunFolder
    from nnlearn.stages import run_stages
    as_csv(tmp_path / "wine.csv", load_wine())
    path, news = tmp_path / "c.yaml", []
    path.write_text(yaml.safe_dump({"data": {"csv": "wine.csv", "target": "target"}, "model": {"name": "mlp", "inputs": 13, "classes": 3},
                                    "training": {"epochs": 1}, "export": {"enabled": False}}))

    def run():
        news.clear()
        run_stages(ModelOptimizer(path, verbose=0), RunFolder(tmp_path / "run", resume=True, say=news.append))
        return "original: kept" in news

    assert not run() and run()
    text = (tmp_path / "wine.csv").read_text()
    (tmp_path / "wine.csv").write_text(text.replace("14.23", "14.24", 1))
    assert not run() and run()
    told = json.loads((tmp_path / "run" / "provenance.json").read_text())["preparation of a row"]
    assert len(told["features"]) == len(told["subtract"]) == len(told["divide_by"]) == 13 and told["classes"] == ["0", "1", "2"]


# ---- the choice of layers

def badly_scaled(seed=0):
    """A net whose hidden units differ in size by four powers of ten; in floats that changes nothing."""
    data = digits()
    seed_everything(seed)
    net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(data.train_x[:1000]), data.train_y[:1000]).backward()
        optimizer.step()
    sizes = 10 ** torch.linspace(0, 4, 48)[torch.randperm(48)]
    with torch.no_grad():
        net[2].weight.mul_(sizes[:, None])
        net[2].bias.mul_(sizes)
        net[4].weight.div_(sizes)
    return net.eval(), data


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_the_layers_that_cost_most_stay_in_float(backend, tmp_path):
    net, data = badly_scaled()
    rows = Part((data.train_x[1000:],), data.train_y[1000:])

    def evaluate(fn):
        return (fn(rows.inputs[0]).argmax(1) == rows.targets).double().mean().item()

    calibration = data.train_x[:256]
    plain = quantize_model(net, "static", calibration, backend=backend)
    assert choice_of(plain) is None and evaluate(plain) < evaluate(net) - 0.2
    chosen = quantize_model(net, "static", calibration, backend=backend, max_drop=1.0, evaluate=evaluate, path=tmp_path / "net.bin")
    choice = choice_of(chosen)
    assert choice.held and "4" in choice.floats and "0" not in choice.floats and evaluate(chosen) >= evaluate(net) - 0.01 - 1e-9
    excluded = quantize_model(net, "static", calibration, backend=backend, exclude=choice.floats)
    assert (excluded(data.test_x) - chosen(data.test_x)).abs().max() < 1e-4 * chosen(data.test_x).abs().max()
    impossible = choice_of(quantize_model(net, "static", calibration, backend=backend, max_drop=1e-9,
                                          evaluate=lambda fn: float(isinstance(fn, nn.Sequential))))
    assert not impossible.held and "came nearest" in str(impossible)


@pytest.mark.parametrize("options, message", [
    ({"max_drop": 1.0}, "quantize_model.evaluate: max_drop needs a function"),
    ({"exclude": ["5"]}, "quantize_model.exclude: there is no layer '5'"),
    ({"exclude": ["0", "2", "4"]}, "there is nothing to quantize"),
    ({"max_drop": 0.0}, "quantize_model.max_drop"),
    ({"method": "float16", "max_drop": 1.0}, "float16 takes the whole net"),
])
@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_choices_that_cannot_be_made(options, message, backend):
    net, data = badly_scaled()
    options = {"method": "static", "calibration": data.train_x[:64], "backend": backend, **options}
    with pytest.raises(ConfigError, match=message):
        quantize_model(net, **options)


def test_dynamic_and_weight_only_leave_layers_out_too():
    net, data = badly_scaled()
    for method, backend in (("dynamic", "torch"), ("weight_only", "torch"), ("dynamic", "onnxruntime")):
        every, some = (quantize_model(net, method, example=data.test_x[:4], backend=backend, exclude=left) for left in ([], ["4"]))
        off = [(fn(data.test_x) - net(data.test_x)).abs().max().item() for fn in (every, some)]
        assert off[1] < off[0], (method, backend, off)


# ---- parts, calibration, the report

def test_calibration_rows_come_from_the_whole_part(tmp_path):
    """Files sorted by class exist: the first rows would all be of one kind."""
    from nnlearn.stages import calibration_rows
    x = torch.arange(1000.0).view(1000, 1)
    rows = calibration_rows(x, 10)
    assert rows.flatten().tolist() == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]
    assert torch.equal(calibration_rows(Part((x,), x), 10), rows) and len(calibration_rows(x, 10**6)) == 1000


def test_one_row_too_many_for_a_batch_norm(folder, tmp_path):
    """65 rows in batches of 64 would end in a batch of one row."""
    content = document("MLP with a batch norm first, CSV", epochs=1, pruning=None, distillation=None, quantization=None)
    content["data"] = {**content["data"], "batch_size": 64, "train_rows": 65}
    report = ModelOptimizer(written(folder, content), verbose=0, allow_import=True).run(tmp_path / "run")
    assert len(report.comparison.rows) == 2


def test_a_registered_function_needs_no_split_seed(tmp_path):
    DATASETS["tests_rows"] = lambda: (torch.rand(60, 4), torch.arange(60) % 3)
    try:
        config = c.read_config({"data": {"name": "tests_rows"}, "model": {"name": "mlp", "inputs": 4, "classes": 3}})
        assert load_data(config).test.count == 12
        with pytest.raises(ConfigError, match="data.split_seed: has no effect"):
            load_data(c.read_config({"data": {"name": "tests_rows", "split_seed": 3}, "model": {"name": "mlp", "inputs": 4, "classes": 3}}))
    finally:
        del DATASETS["tests_rows"]


def row(name, accuracy, size, ms, band=None, half=0.01, gzip=None):
    low, high = band or (5 / ms, 5 / ms)
    return Row(name, accuracy, size, gzip or size, ms, ms, None, size / 100, 5 / ms, "k", "", accuracy - half, accuracy + half, low, high)


def test_noise_puts_nothing_on_the_front():
    whole = row("original", 0.96, 100, 5.0, (1, 1))
    masked = row("masked", 0.90, 100, 4.6, (0.9, 1.4))  # no smaller, 6 points worse, faster within the noise
    assert pareto_front([whole, masked]) == ["original"]
    assert pareto_front([whole, row("masked", 0.90, 100, 4.6, (0.9, 1.4), gzip=40)]) == ["original", "masked"]  # smaller after gzip
    assert pareto_front([whole, row("faster", 0.90, 100, 2.0, (2.2, 2.6))]) == ["original", "faster"]
    assert pareto_front([whole, row("small", 0.955, 50, 5.0, (0.9, 1.1))]) == ["small"]  # half a point is noise here


def test_the_target_decides_by_validation_rows():
    rows = [row("original", 0.96, 100, 5.0), row("lucky", 0.97, 30, 5.0), row("fast", 0.955, 60, 2.0)]
    validation = {"original": 0.96, "lucky": 0.90, "fast": 0.955}
    target = c.Target(max_drop=1.0)
    assert Report(Comparison(rows, 1)).headline()[0].name == "lucky"
    assert Report(Comparison(rows, 1), target=target, validation=validation).headline()[0].name == "fast"
    none = Report(Comparison(rows, 1), target=c.Target(latency_ms=1.0, bytes=10), validation=validation, batch=1)
    assert none.headline()[0] is None and "no variant is within 1 points, 1 ms for 1 row(s), 10 bytes" in str(none)


# ---- a first config

def test_the_first_config_of_a_csv_runs(tmp_path, capsys):
    as_csv(tmp_path / "wine.csv", load_wine(), delimiter=";")
    path = tmp_path / "wine.yaml"
    assert main(["optimize", str(path), "--init", str(tmp_path / "wine.csv"), "target"]) == 0
    assert "nnlearn optimize" in capsys.readouterr().out
    content = yaml.safe_load(path.read_text())
    assert content["data"]["delimiter"] == ";" and content["model"] == {"name": "mlp", "widths": [64, 32], "inputs": 13, "classes": 3}
    assert main(["optimize", str(path), "--output", str(tmp_path / "run"), "--quiet"]) == 0
    told = capsys.readouterr()
    assert "within 1 points" in told.out and "original ..." not in told.out and "it/s" not in told.err
    assert main(["optimize", str(path), "--init", str(tmp_path / "wine.csv"), "target"]) == 2  # never written over


def test_the_first_config_of_a_net(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    write_config(tmp_path / "net.yaml", ["own_nets:TwoInputs", "own_nets:halves"], allow_import=True)
    content = yaml.safe_load((tmp_path / "net.yaml").read_text())
    assert content["model"] == {"import": "own_nets:TwoInputs", "params": {"width": 24, "classes": 10}}
    assert c.load_config(tmp_path / "net.yaml", allow_import=True).training.quantization.max_drop == 1.0


def test_a_search_over_a_net_of_ones_own(folder, tmp_path):
    content = {"data": {"csv": "diabetes.csv", "target": "target", "classes": False}, "model": own("NormedMLP", inputs=10, classes=1),
               "training": {"epochs": 2}, "search": {"trials": 3, "monitor": "val_r2", "space": {
                   "training.optimizer.learning_rate": {"log_uniform": [1.0e-3, 1.0e-1]}}}}
    path = written(folder, content)
    with pytest.raises(ConfigError, match="--allow-import"):
        from nnlearn.config_search import load_search
        sys.modules.pop("own_nets", None)
        from nnlearn import imports
        imports._IMPORTED.clear()
        load_search(path)
    assert main(["search", str(path), "--output", str(tmp_path / "found"), "--workers", "2", "--allow-import"]) == 0
    assert "import: own_nets:NormedMLP" in (tmp_path / "found" / "best.yaml").read_text()


def test_what_would_fail_after_the_training_is_refused_before(tmp_path):
    from nnlearn.config_search import SearchConfig
    base = {"data": {"name": "digits", "train_rows": 100}, "model": {"name": "mlp", "widths": [8]}, "training": {"epochs": 1}}
    with pytest.raises(ConfigError, match="export.dynamic_batch: the report runs batches of several sizes"):
        ModelOptimizer({**base, "export": {"dynamic_batch": False}}, verbose=0).run(tmp_path / "run")
    assert not list((tmp_path / "run").glob("original*"))
    torch.save(c.make_model(c.read_config(base).model).state_dict(), tmp_path / "weights.pt")
    base["model"]["checkpoint"], base["training"] = str(tmp_path / "weights.pt"), {"epochs": 0}
    space = {"training.optimizer.learning_rate": {"log_uniform": [1.0e-3, 1.0e-1]}}
    with pytest.raises(ConfigError, match="training.epochs: expected at least 1 epoch"):
        SearchConfig({**base, "search": {"trials": 1, "space": space}})
