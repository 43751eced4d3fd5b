"""The pipeline: configs good and broken, files that are no configs, runs that are killed, reports, the command line."""
import copy
import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import nnlearn.pipeline as p
from nnlearn import config
from nnlearn.core import ConfigError
from nnlearn.course.cli import main
from nnlearn.datasets import mnist_sample
from nnlearn.loaders import TensorLoader
from nnlearn.measure import Comparison, Row, latencies
from nnlearn.models import small_cnn
from nnlearn.quantization import prepare_qat
from nnlearn.report import _page as page_of

ROOT = Path(__file__).resolve().parents[1]
CAPSTONE = ROOT / "assets" / "configs" / "capstone.yaml"
DOCUMENT = yaml.safe_load(CAPSTONE.read_text(encoding="utf-8"))
TINY = {"data": {"name": "mnist_sample", "train_rows": 300, "batch_size": 50}, "model": {"name": "small_cnn", "widths": [4, 8]},
        "training": {"epochs": 1, "pruning": {"type": "structured", "epochs": 1}, "quantization": {"calibration_rows": 64}}}


def places(document, path=()):
    """The path of every key and list entry."""
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


KEYS = sorted({str(path[-1]) for path in places(DOCUMENT)} | {"student", "classes", "name", "lr", "start_step", "end_step", "momentum"}
              | {"import", "csv", "target", "checkpoint", "params", "loss", "metric", "max_drop", "exclude", "features", "test_fraction"})
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(KEYS), st.binary(max_size=3),
    st.sampled_from([-1, 0, 1, 2**31, 10**30, 1e-300, 1e300, "sgd", "int8", "magnitude", "mlp", "one_cycle", "digits",
                     "os:system", "nets:Net", "\0", "wine.csv", "mse", "r2"]), st.dates(),
    st.lists(st.integers(-3, 40), max_size=4), st.dictionaries(st.sampled_from(KEYS), st.integers(-2, 9), max_size=3),
    st.dictionaries(st.integers(), st.none(), max_size=1), st.just([[[]]]), st.tuples(st.integers(), st.text(max_size=2)))


@st.composite
def broken(draw):
    """The capstone config after one to four mutations: values replaced, keys removed, renamed, added, moved."""
    document = copy.deepcopy(DOCUMENT)
    for _ in range(draw(st.integers(1, 4))):
        found = list(places(document))
        if not found:
            break
        *path, key = draw(st.sampled_from(found))
        inside = document
        for step in path:
            inside = inside[step]
        kind = draw(st.sampled_from(["value", "remove", "rename", "add", "move"]))
        if kind == "value" or isinstance(inside, list):
            inside[key] = copy.deepcopy(draw(ODD))
        elif kind == "remove":
            del inside[key]
        elif kind == "rename":
            name = draw(st.one_of(st.sampled_from(KEYS), st.text(max_size=6), st.just(f"{key}s"), st.integers(), st.none()))
            inside[name] = inside.pop(key)
        elif kind == "add":
            inside[draw(st.sampled_from(KEYS))] = copy.deepcopy(draw(ODD))
        else:
            target = draw(st.sampled_from([document, *(v for v in document.values() if isinstance(v, dict))]))
            target[key] = copy.deepcopy(inside[key])
    return document


def test_ten_thousand_mutations():
    told = {"valid": 0, "refused": 0}

    @settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(document=broken())
    def mutate(document):
        try:
            config = p.read_config(document)
        except ConfigError as error:
            told["refused"] += 1
            known = {"config", *p.Config.model_fields}
            assert (error.place or "").split(".")[0] in known or error.place in {str(key) or "''" for key in document}, error.place
            assert str(error).startswith(error.place) and len(str(error)) < 600
            return
        told["valid"] += 1
        assert p.make_model(config.model, device="meta") is not None

    mutate()
    assert min(told.values()) > 200, told  # the mutations reach both ends


@pytest.mark.parametrize("change, message", [
    (("training.prunning", {}), r"training.prunning: unknown key 'prunning'. Did you mean 'pruning'\? Accepted: epochs, optimizer"),
    (("training.pruning.target_sparsty", 0.5), r"Did you mean 'target_sparsity'\?"),
    (("training.pruning.target_sparsity", 1.0), "training.pruning.target_sparsity: expected a number from 0 to below 1, got 1.0"),
    (("training.target_sparsity", 0.5), "training: `target_sparsity` belongs to training.pruning"),
    (("training.pruning.warmup_epochs", 2), "`warmup_epochs` belongs to training.lr_schedule"),
    (("training.quantization.format", "int9"), r"expected one of 'int8', 'float16', got 'int9'. Did you mean 'int8'\?"),
    (("training.quantization", {"format": "float16", "type": "during_training"}), "use post_training"),
    (("training.epochs", True), "training.epochs: expected an integer from 0 to 10000, got True"),
    (("training.epochs", "5"), "training.epochs: .*got '5'"),
    (("training.optimizer.type", "adm"), r"training.optimizer.type: unknown type 'adm'. Did you mean 'adam'\?"),
    (("training.optimizer.learning_rate", float("nan")),
     "training.optimizer.learning_rate: expected a number above 0 and at most 10, got nan"),
    (("training.optimizer.lr", 0.1), "training.optimizer: .*lr.*learning_rate"),
    (("training.lr_schedule.warmup_epochs", 99), r"training.lr_schedule.warmup_epochs: warmup_epochs \(99\) must be less than epochs"),
    (("training.pruning", None), "training.distillation.student: expected a student"),
    (("training.pruning.during_training", True), "channels are removed at once"),
    (("training.pruning", {"during_training": True, "epochs": 0}), "training.pruning.epochs"),
    (("training.pruning", {"start_step": 20, "end_step": 10}), r"end_step \(10\) must be after start_step \(20\)"),
    (("training", 7), "training: expected a mapping, got 7. Omit the section"),
    (("model.widht", [3]), "model: unknown argument 'widht'. Did you mean 'widths'"),
    (("model.widths", [3, -1]), r"model.widths\[1\]"),
    (("model.widths", [10**6, 10**6]), "model: the net would have 9,0"),
    (("model.widths", [10**30]), "model: "),
    (("model.name", "smal_cnn"), "model.name: unknown model 'smal_cnn'.*Did you mean 'small_cnn'"),
    (("data.name", "mnist_smaple"), "data.name: .*Did you mean 'mnist_sample'"),
])
def test_messages(change, message):
    document = copy.deepcopy(DOCUMENT)
    *path, key = change[0].split(".")
    inside = document
    for step in path:
        inside = inside[step]
    inside[key] = change[1]
    with pytest.raises(ConfigError, match=message):
        p.read_config(document)


@pytest.mark.parametrize("content, message", [
    (b"seed: &x 1\ndata: *x", "line 1: anchors and aliases"),
    (b"\n".join([b"a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]".encode() for i in range(1, 40)]), "anchors and aliases"),
    (b"seed: !!python/object/apply:os.system ['touch {mark}']", "are not accepted"),
    (b"seed: !!python/object/new:subprocess.Popen [['touch', '{mark}']]", "are not accepted"),
    (b"seed: !!python/name:os.system", "are not accepted"),
    (b"\xff\xfe\x00s", "is not UTF-8"), ("sää: ö".encode("latin-1"), "is not UTF-8"), ("seed: 1".encode("utf-16"), "UTF-8|not allowed"),
    (b"seed: 1\nseed: 2", "line 2: duplicate key 'seed'"),
    (b"#" * 10_000_000, "expected at most 1 MB"), (b"[" * 100_000, "more than 20 deep"), (b"{a: " * 5000, "more than 20 deep"),
    (b"seed: 2020-13-45", "cannot be read"), (b"seed: " + b"9" * 6000, "cannot be read"), (b"a: b: c", "line 1: mapping values"),
    (b"", "expected a mapping"), (b"- 1", "expected a mapping"), (b"? [a]\n: 1", "expected a name as key"), (b"\x00", "not allowed"),
    (b"a: 1\n---\nb: 1", "another document"), (b"seed: .nan", "seed: "), (b"{1: 2}", "keys should be strings"), (b"<<: {a: 1}", "unknown key 'a'"),  # noqa: E501
    (b"seed: !!binary a", "are not accepted"), (b"%YAML 3.0\n---\na: 1", "incompatible"), (b"'", "while scanning|unexpected end"),
])
def test_files_that_are_no_configs(content, message, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "config.yaml"
    path.write_bytes(content.replace(b"{mark}", str(mark).encode()))
    with pytest.raises(ConfigError, match=message):
        p.load_config(path)
    assert not mark.exists()


@pytest.mark.parametrize("name, message", [("nothing.yaml", "No such file"), (".", "Is a directory")])
def test_paths_that_are_no_files(name, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        p.load_config(tmp_path / name)


@settings(max_examples=300, deadline=None)
@given(content=st.one_of(st.binary(max_size=80), st.text(alphabet=":-&*!?[]{}#|>'\"%@ \nab12.e", max_size=60).map(str.encode)))
def test_any_bytes(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    try:
        p.load_config(path)
    except ConfigError as error:
        assert error.place


def test_numbers_as_people_write_them(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("training: {optimizer: {type: adam, learning_rate: 1e-3}}\nseed: 5")
    read = p.load_config(path)
    assert read.training.optimizer.learning_rate == 0.001 and read.seed == 5
    assert p.read_config(read) is read and p.read_config({}).data.name == "mnist_sample"


# ---- runs

def test_the_lesson_explains_every_key_with_its_default():
    """The table of lesson 22 names each key of each section, and the default that the class has."""
    notebook = json.loads((ROOT / "nbs" / "22_pipeline.ipynb").read_text(encoding="utf-8"))
    text = next("".join(cell["source"]) for cell in notebook["cells"] if "Every key, with its default" in "".join(cell["source"]))
    told, section = {}, ""
    for line in re.findall(r"^\| (.*) \|$", text, re.M)[2:]:
        place, key, default, meaning = re.split(r" *\| *", line)
        section = place.strip("`") or section
        told["" if section == "the top" else section, key.strip("`")] = default
        assert len(meaning) > 3
    sections = {place: cls for place, cls in config._sections() if not place.endswith(".student")}  # as `model`
    written = {(place, field.alias or key): field.default for place, cls in sections.items() for key, field in cls.model_fields.items()
               if f"{place}.{key}".lstrip(".") not in sections}
    assert told == {place: yaml.safe_dump(value).split("\n")[0] for place, value in written.items()}


def test_every_kind_of_step_by_itself():
    from nnlearn.programs import QuantizedModel
    from nnlearn.runtimes import OnnxModel
    data = mnist_sample()
    loader = TensorLoader(data.train_x[:200], data.train_y[:200], batch_size=50, shuffle=True)
    torch.manual_seed(0)
    net = small_cnn((4, 8))
    before = {k: v.clone() for k, v in net.state_dict().items()}

    def made(**sections):
        return p.ModelOptimizer({"training": sections}, verbose=0)

    gradual = made(pruning={"target_sparsity": 0.75, "during_training": True, "epochs": 2, "frequency": 1}).apply_pruning(net, loader)
    constant = made(pruning={"target_sparsity": 0.5, "during_training": True, "epochs": 1, "schedule": "constant"}).apply_pruning(net, loader)  # noqa: E501
    at_once = made(pruning={"target_sparsity": 0.5, "epochs": 0}).apply_pruning(net)
    channels = made(pruning={"type": "structured", "epochs": 1}).apply_pruning(net, loader)
    for model, share in [(gradual, 0.75), (constant, 0.5), (at_once, 0.5)]:
        assert abs(float((model[4].weight == 0).float().mean()) - share) < 0.01
    assert channels[0].out_channels == 2 and channels[4].out_channels == 4
    student = {k: v.clone() for k, v in at_once.state_dict().items()}
    kept = made(pruning={"target_sparsity": 0.5}, distillation={"epochs": 1}).apply_distillation(at_once, net, loader)
    assert all(torch.equal(v, student[k]) for k, v in at_once.state_dict().items())
    assert bool((kept[4].weight == 0).eq(at_once[4].weight == 0).all())
    int8 = made(quantization={}).apply_quantization(net.eval(), loader)
    batches = [(x, y) for x, y in loader]
    half = made(quantization={"format": "float16"}).apply_quantization(net.eval(), batches)
    aware = made(quantization={"type": "during_training", "backend": "torch"}).apply_quantization(net, data.train_x[:50], loader)
    assert isinstance(aware, QuantizedModel) and isinstance(half, OnnxModel)
    assert aware(data.test_x[:3]).shape == int8(data.test_x[:3]).shape == half(data.test_x[:3]).shape
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name  # every step left what it was given as it was


def test_steps_that_cannot_be():
    net = small_cnn((4, 8))
    for call, message in [
        (lambda: p.ModelOptimizer({}).apply_pruning(net), "training.pruning: this step is not in the config"),
        (lambda: p.ModelOptimizer({"training": {"pruning": {"enabled": False}}}).apply_pruning(net), "enabled: true"),
        (lambda: p.ModelOptimizer({"training": {"pruning": {}}}).apply_pruning(net), "give train_loader, or set epochs: 0"),
        (lambda: p.ModelOptimizer({"training": {"pruning": {"during_training": True, "end_step": 99, "epochs": 1}}}).apply_pruning(
            net, [(torch.zeros(2, 1, 28, 28), torch.zeros(2).long())]), "has 1 steps and would end before step 99"),
        (lambda: p.ModelOptimizer({"training": {"quantization": {}}}).apply_quantization(net, []), "representative_dataset: is empty"),
        (lambda: p.ModelOptimizer({"training": {"quantization": {"type": "during_training"}}}).apply_quantization(net, torch.zeros(2, 1, 28, 28)),  # noqa: E501
         "needs train_loader"),
        (lambda: p.ModelOptimizer({}).train(net, iter([])), "expected a loader with a length"),
        (lambda: p.ModelOptimizer({"data": {"name": "digits"}}, 0).run("never_made"), "model: does not take inputs of the shape"),
        (lambda: p.ModelOptimizer({"model": {"name": "small_cnn", "classes": 3}}, 0).run("never_made"), "10 classes"),
    ]:
        try:
            with pytest.raises(ConfigError, match=message):
                call()
        finally:
            if Path("never_made").exists():
                Path("never_made").rmdir()


def test_a_net_of_ones_own(tmp_path):
    @p.MODELS.register("tests_own")
    def own(units: int = 5):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, units), nn.ReLU(), nn.Linear(units, 10))

    try:
        config = {"data": {"name": "digits", "train_rows": 200}, "model": {"name": "tests_own", "units": 7}, "export": {"enabled": False},
                  "training": {"epochs": 1, "quantization": {"backend": "torch", "format": "float16", "measure_performance": False}}}
        report = p.ModelOptimizer(config, 0).run(tmp_path / "run")
        assert [row.name for row in report.comparison.rows] == ["original"] and (tmp_path / "run" / "float16.pt2").exists()
        with pytest.raises(ConfigError, match="unknown argument 'unitz'"):
            p.read_config({"model": {"name": "tests_own", "unitz": 7}})
    finally:
        del p.MODELS["tests_own"]


def test_qat_gives_an_onnx_file_too(tmp_path):
    data = mnist_sample()
    loader = TensorLoader(data.train_x[:300], data.train_y[:300], batch_size=50, shuffle=True)
    torch.manual_seed(0)
    net = small_cnn((4, 8))
    optimizer = p.ModelOptimizer({"training": {"epochs": 2, "quantization": {"type": "during_training"}}}, verbose=0)
    optimizer.train(net, loader)
    aware = optimizer.apply_quantization(net, data.train_x[:50], loader, tmp_path / "aware.onnx")
    assert aware.path.endswith("aware.onnx") and any(name.startswith("QLinear") for name in aware.kernels(data.test_x[:4]))
    assert aware(data.test_x[:1]).shape == (1, 10)
    trained = prepare_qat(net, data.train_x[:50])
    trained(data.train_x[:50])
    wanted, x = trained.eval()(data.test_x[:50]).detach(), data.test_x[:50]
    for backend in ("torch", "onnxruntime"):
        assert (trained.convert(backend=backend)(x) - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.parametrize("section, key", [
    ({"pruning": {"schedule": "constant"}}, "pruning.schedule"), ({"pruning": {"start_step": 5}}, "pruning.start_step"),
    ({"pruning": {"frequency": 5}}, "pruning.frequency"), ({"pruning": {"type": "structured", "end_step": 5}}, "pruning.end_step"),
    ({"pruning": {"during_training": True, "schedule": "constant", "end_step": 9}}, "pruning.end_step"),
    ({"pruning": {"epochs": 0, "learning_rate": 0.1}}, "pruning.learning_rate"),
    ({"quantization": {"epochs": 2}}, "quantization.epochs"), ({"quantization": {"learning_rate": 0.1}}, "quantization.learning_rate"),
    ({"quantization": {"format": "float16", "calibration_rows": 9}}, "quantization.calibration_rows"),
    ({"quantization": {"type": "during_training", "calibration_rows": 9}}, "quantization.calibration_rows"),
    ({"quantization": {"type": "during_training", "optimize_for_inference": True}}, "quantization.optimize_for_inference")])
def test_keys_that_would_do_nothing_are_refused(section, key, tmp_path):
    optimizer, name = p.ModelOptimizer({"training": section}, 0), key.partition(".")[0]
    step = optimizer.apply_pruning if name == "pruning" else optimizer.apply_quantization
    for call in (lambda: optimizer.run(tmp_path / "run"), lambda: step(small_cnn((4, 8)), [])):
        with pytest.raises(ConfigError, match=f"^training.{key}: has no effect without"):
            call()
    switched_off = {"training": {name: section[name] | {"enabled": False}}}  # may hold anything
    config.check_used(p.read_config(switched_off))


@pytest.mark.parametrize("schedule", ["constant", "polynomial"])
def test_a_pruning_that_would_never_begin_is_refused_before_training(schedule, tmp_path):
    news = []
    section = {"during_training": True, "schedule": schedule, "start_step": 5000, "epochs": 1}
    config = TINY | {"training": {"epochs": 1, "pruning": section}}
    with pytest.raises(ConfigError, match="training.pruning.start_step: fine-tuning has 6 steps"):
        p.run_stages(p.ModelOptimizer(config, 0), p.RunFolder(tmp_path / "run", say=news.append))
    assert news == ["checked ..."]


class Nowhere(nn.Module):
    "A net that trains, and that no graph can hold."

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        x = self.layer(x.flatten(1))
        return x if float(x.sum()) > 0 else x * 1.0


def test_what_a_stage_cannot_do_is_said_before_training(tmp_path):
    p.MODELS["tests_nowhere"] = Nowhere
    try:
        news = []
        config = {"data": {"name": "digits", "train_rows": 100}, "model": {"name": "tests_nowhere"}, "training": {"epochs": 2}}
        with pytest.raises(ConfigError, match="looks at the values of a tensor"):
            p.run_stages(p.ModelOptimizer(config, 0), p.RunFolder(tmp_path / "run", say=news.append))
        assert news == ["checked ..."] and not list((tmp_path / "run").glob("*.pt"))
    finally:
        del p.MODELS["tests_nowhere"]


def test_a_run_says_what_it_is_made_of(tmp_path):
    config = {"data": {"name": "digits", "train_rows": 100}, "model": {"name": "mlp"}, "training": {"epochs": 1}}
    p.ModelOptimizer(config, 0).run(tmp_path / "run")
    made = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert made["config"]["data"]["name"] == "digits" and made["versions"]["torch"] == torch.__version__
    assert made["machine"]["threads"] == 1 and made["machine"]["cores"] >= 1


LONG = TINY | {"training": {"epochs": 40, "pruning": {"type": "magnitude", "epochs": 40}, "distillation": {"epochs": 40},
                            "quantization": {"type": "during_training", "epochs": 40}}}


@pytest.fixture
def hears_interrupts():
    "Where tests run in the background, SIGINT is ignored."
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("stage", ["original", "pruned", "distilled", "int8"])
def test_an_interrupted_stage_is_not_taken_for_a_finished_one(stage, tmp_path, hears_interrupts):
    "A real SIGINT while a stage trains: nothing of it stays, and nothing comes after it."
    news = []

    def say(line):
        news.append(line)
        if line == f"{stage} ...":
            threading.Timer(0.3 if stage != "int8" else 5.0, os.kill, (os.getpid(), signal.SIGINT)).start()

    done = ["original", "pruned", "distilled", "original, ONNX", "distilled, ONNX", "int8"]
    before = done[:done.index(stage)]
    quick = {"original": {"epochs": 1}, "pruned": {"pruning": {"epochs": 1}}, "distilled": {"distillation": {"epochs": 1}}}
    training = dict(LONG["training"])
    for name in before:  # what comes before is not what is tested here
        training |= quick.get(name, {})
    optimizer = p.ModelOptimizer(LONG | {"training": training}, 0)
    with pytest.raises(KeyboardInterrupt):
        p.run_stages(optimizer, p.RunFolder(tmp_path / "run", say=say))
    assert news[-1] == f"{stage} ..." and not list((tmp_path / "run").glob(f"{stage}.*"))
    assert [name for name in done if f"{name} ..." in news] == [*before, stage]
    assert set(json.loads((tmp_path / "run" / "run.json").read_text())) == {"checked", *before}


def test_the_headline_compares_within_one_runtime():
    def row(name, accuracy, size, ms):
        return Row(name, accuracy, size, size, ms, ms, None, size / 1000, 8.0 / ms, "op", "")

    rows = [row("original", 0.9, 1000, 8.0), row("original, ONNX", 0.9, 990, 2.0), row("int8", 0.9, 300, 4.0)]
    files = {"original": "original.pt", "original, ONNX": "o.onnx", "int8": "int8.onnx"}
    assert "0.5x the speed of 'original, ONNX'" in str(p.Report(Comparison(rows, 1), files, "original, ONNX"))
    assert "2.0x the speed of 'original'" in str(p.Report(Comparison(rows, 1), files | {"int8": "int8.pt2"}, "original, ONNX"))


def test_variants_are_timed_by_turns():
    order = []
    latencies([lambda x, k=k: order.append(k) for k in range(3)], torch.zeros(1), runs=2, warmup=1)
    assert order == [0, 1, 2] * 3


def hashes(folder):
    return {name: note["sha256"] for name, note in json.loads((folder / "run.json").read_text()).items() if note["file"].endswith(".pt")}


def optimize(config, folder, *more):
    return subprocess.Popen([str(Path(sys.executable).with_name("nnlearn")), "optimize", str(config), "--output", str(folder), *more], text=True,  # noqa: E501
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_killed_and_resumed_from_the_command_line(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(TINY))
    whole = optimize(config, tmp_path / "whole")
    out, err = whole.communicate(timeout=1800)
    assert whole.returncode == 0 and "on the Pareto front" in out and "int8" in out and "batches" not in err, err  # no bars in a log
    page = (tmp_path / "whole" / "report.html").read_text()
    assert "<svg" in page and not re.search(r'(src|href)="?https?:', page) and "int8" in page
    with open(tmp_path / "whole" / "report.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["name"] for r in rows] == ["original", "pruned", "original, ONNX", "pruned, ONNX", "int8"]
    assert float(rows[2]["speed_ratio_onnxruntime"]) == 1.0 and {r["pareto"] for r in rows} <= {"True", "False"}

    cut = optimize(config, tmp_path / "cut")
    deadline = time.time() + 900
    while not (tmp_path / "cut" / "pruned.pt").exists() and time.time() < deadline:
        time.sleep(0.02)
    cut.send_signal(signal.SIGKILL)
    cut.communicate()
    refused = optimize(config, tmp_path / "cut")
    assert refused.communicate()[1].startswith("nnlearn: output:") and refused.returncode == 2
    again = optimize(config, tmp_path / "cut", "--resume")
    out, err = again.communicate(timeout=1800)
    assert again.returncode == 0 and "original: kept" in out, out + err
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")


def test_damaged_and_changed_stages_are_made_again(tmp_path):
    news = []
    folder = p.RunFolder(tmp_path / "a", say=news.append)
    first = folder.stage("one", "one.txt", 1, [], lambda path: path.write_text("1"))
    folder.stage("two", "two.txt", 2, [first], lambda path: path.write_text("2"))
    first.path.write_text("9")
    news.clear()
    again = p.RunFolder(tmp_path / "a", resume=True, say=news.append)
    mended = again.stage("one", "one.txt", 1, [], lambda path: path.write_text("1"))
    again.stage("two", "two.txt", 2, [mended], lambda path: path.write_text("2"))
    again.stage("two", "two.txt", 3, [mended], lambda path: path.write_text("3"))
    assert "its SHA-256 differs" in news[0] and news[1:] == ["one ...", "two: kept", "two ..."]
    news.clear()
    other = again.stage("one", "one.txt", 5, [], lambda path: path.write_text("5"))  # another file before it
    again.stage("two", "two.txt", 3, [other], lambda path: path.write_text("3"))
    assert news == ["one ...", "two ..."]
    (tmp_path / "a" / "run.json").write_text("{broken")
    assert p.RunFolder(tmp_path / "a", resume=True).known == {}
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(ConfigError, match="output: "):
            p.RunFolder(wrong)


def test_nets_are_saved_with_their_channels(tmp_path):
    from nnlearn.checkpoints import CheckpointError
    net = p.prune_structured(small_cnn((4, 8)).eval(), torch.zeros(2, 1, 28, 28), 0.5)
    p.save_net(net, p.Model(name="small_cnn", widths=[4, 8]), tmp_path / "net.pt")
    again = p.load_net(tmp_path / "net.pt")
    x = torch.rand(3, 1, 28, 28)
    assert torch.equal(again(x), net(x)) and again[0].out_channels == 2 and again[1].num_features == 2
    (tmp_path / "net.pt").write_bytes((tmp_path / "net.pt").read_bytes()[:-50])
    with pytest.raises(CheckpointError):
        p.load_net(tmp_path / "net.pt")


# ---- the report and the command line

def row(name, accuracy, size, ms):
    return Row(name, accuracy, size, size, ms, ms, None, 1.0, 1.0, "k", "")


def test_the_front_and_the_smallest():
    rows = [row("a", 0.98, 100, 5.0), row("<b>", 0.975, 50, 6.0), row("c", 0.97, 60, 6.0), row("d", 0.90, 10, 7.0), row("e", 0.98, 100, 5.0)]  # noqa: E501
    report = p.Report(Comparison(rows, 1))
    assert report.front == ["a", "<b>", "d", "e"] and report.smallest().name == "<b>" and report.smallest(10).name == "d"
    assert "&lt;b&gt;" in page_of(report) and "<b>" not in re.sub(r"<svg.*</svg>", "", page_of(report), flags=re.S)
    assert report["c"].bytes == 60 and "smallest within 1 point" in str(report)


@pytest.mark.parametrize("content, message", [("training: {prunning: {}}", "Did you mean 'pruning'"), (None, "cannot be read: No such file")])  # noqa: E501
def test_exit_code_2_without_a_traceback(content, message, tmp_path, capsys):
    path = tmp_path / "c.yaml"
    if content:
        path.write_text(content)
    assert main(["optimize", str(path), "--output", str(tmp_path / "o")]) == 2
    told = capsys.readouterr().err
    assert message in told and told.startswith("nnlearn: ") and "Traceback" not in told and not (tmp_path / "o").exists()


def test_a_stage_made_alone_is_the_same(tmp_path):
    """Every stage has its own seed and sees the batches from the first one on, whatever ran before it."""
    config = {"data": {"name": "digits", "train_rows": 300}, "model": {"name": "mlp", "widths": [16]}, "export": {"enabled": False},
              "training": {"epochs": 1, "pruning": {"epochs": 1}}}
    p.ModelOptimizer(config, 0).run(tmp_path / "run")
    whole = (tmp_path / "run" / "pruned.pt").read_bytes()
    (tmp_path / "run" / "pruned.pt").unlink()
    p.ModelOptimizer(config, 0).run(tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "pruned.pt").read_bytes() == whole
