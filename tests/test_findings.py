"""Records of any trainer, read alike; and findings that are silent on healthy runs."""
import csv
import io
import json
import math
import random

import pytest
import torch
from torch import nn

from nnlearn.core import ConfigError, seed_everything
from nnlearn.course.cli import main
from nnlearn.datasets import digits
from nnlearn.findings import RULES, find_faults
from nnlearn.loaders import TensorLoader
from nnlearn.records import Record, Series, read_record, usual_name
from nnlearn.trainer import Trainer

# Names


@pytest.mark.parametrize("given, usual", [
    ("loss", "loss"), ("train_loss", "loss"), ("train_loss_step", "loss"), ("Train/Loss", "loss"), ("trainLoss", "loss"), ("Loss", "loss"),
    ("val_loss", "val_loss"), ("valid_loss", "val_loss"), ("Loss/validation", "val_loss"), ("test_loss", "val_loss"),
    ("dev/loss", "val_loss"),
    ("acc", "accuracy"), ("val_acc1", "val_accuracy"), ("eval_accuracy", "val_accuracy"), ("sparse_categorical_accuracy", "accuracy"),
    ("lr", "lr"), ("learning_rate", "lr"), ("lr-AdamW/pg1", "lr"), ("lr/pg0", "lr"), ("train/grad_norm", "grad_norm"),
    ("train/box_loss", "box_loss"), ("val/box_loss", "val_box_loss"), ("metrics/mAP50(B)", "map50_b"), ("f1", "f1"), ("eval_f1", "val_f1"),
    ("epoch", ""), ("step", ""), ("time", ""), ("train_runtime", ""), ("train_samples_per_second", ""), ("total_flos", ""), ("", "")])
def test_names(given, usual):
    assert usual_name(given) == usual


def test_whole_epochs_come_before_steps_and_validation_before_test():
    record = read_record({"train_loss_step": [3.0, 2.0], "train_loss_epoch": [2.5], "test_loss": [9.0], "val_loss": [2.0]})
    assert record["loss"].values == [2.5] and record["val_loss"].values == [2.0] and record.names["loss"] == "train_loss_epoch"
    assert read_record({"test_loss": [9.0], "mse": [1.0]})["val_loss"].values == [9.0]
    only = read_record({"mse": [4.0, 1.0], "val_mse": [5.0, 2.0]})
    assert only["loss"].values == [4.0, 1.0] and only["val_loss"].values == [5.0, 2.0]
    with pytest.raises(ConfigError, match="no column 'los'"):
        only["los"]


# Files


def columns(epochs=4):
    return {"loss": [2.0 / (1 + e) for e in range(epochs)], "val_loss": [2.5 / (1 + e) for e in range(epochs)]}


def test_every_form_gives_the_same_series(tmp_path):
    import pandas

    data = columns()
    rows = [dict(epoch=e, loss=data["loss"][e], val_loss=data["val_loss"][e]) for e in range(4)]
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, ["epoch", "loss", "val_loss"])
    writer.writeheader()
    writer.writerows(rows)
    texts = {"a.csv": sheet.getvalue(), "b.csv": sheet.getvalue().replace(",", ";"), "c.tsv": sheet.getvalue().replace(",", "\t"),
             "d.csv": "\ufeff" + sheet.getvalue().replace("\n", "\r\n"), "e.json": json.dumps(data),
             "f.json": json.dumps({"history": data, "epoch": [0, 1]}),
             "g.json": json.dumps(rows), "h.jsonl": "\n".join(map(json.dumps, rows)), "i.json": pandas.DataFrame(data).to_json(),
             "j.csv": "# a comment\n" + sheet.getvalue().replace("epoch,loss", " epoch , loss")}
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        record = read_record(tmp_path / name)
        assert record["loss"].values == pytest.approx(data["loss"]) and record["val_loss"].values == pytest.approx(data["val_loss"]), name
        assert read_record(str(tmp_path / name)).names == record.names

    class KerasHistory:
        history = data

    for source in (data, rows, KerasHistory(), pandas.DataFrame(rows), {name: torch.tensor(v, dtype=torch.float64) for name,
                                                                        v in data.items()}):
        assert read_record(source)["val_loss"].values == data["val_loss"]


def test_lightning_and_hugging_face(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,train_loss,val_acc,val_loss\n0,49,0.9,,\n0,99,,0.7,0.8\n"
                                          "1,149,0.5,,\n1,199,,0.8,0.6\n")
    record = read_record(tmp_path / "metrics.csv")
    assert record["loss"] == ([49, 149], [0.9, 0.5]) and record["val_loss"] == ([99, 199], [0.8, 0.6]) and record.unit == "step"
    state = {"best_metric": None, "epoch": 1.0, "log_history": [
        {"epoch": 0.5, "grad_norm": 3.5, "learning_rate": 1e-4, "loss": 2.0, "step": 10},
        {"epoch": 1.0, "eval_loss": 1.5, "eval_runtime": 2.0, "eval_samples_per_second": 100.0, "step": 20},
        {"epoch": 1.0, "grad_norm": math.inf, "learning_rate": 0.0, "loss": 1.4, "step": 20}, {"train_loss": 1.7, "train_runtime": 9.0,
                                                                                               "step": 20}]}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    record = read_record(tmp_path / "trainer_state.json")
    assert record["loss"] == ([10, 20], [2.0, 1.4]) and record["val_loss"] == ([20], [1.5]) and record["grad_norm"].finite == ([10], [3.5])
    assert set(record.series) == {"grad_norm", "lr", "loss", "val_loss"} and "trainer_state" in record.source


def test_of_runs_one_after_the_other_the_last_is_read(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,loss\n0,9\n1,8\n0,3\n1,2\n2,1\n")
    record = read_record(tmp_path / "log.csv")
    assert record["loss"] == ([0, 1, 2], [3, 2, 1]) and "of 2 runs one after the other" in repr(record)


def test_tensorboard_written_and_read_back(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    for folder, values in (("one", [2.0, 1.0, 0.5]), ("two/validation", [2.5, 1.5, 1.0]), ("two/train", [2.0, 1.0, 0.5])):
        writer = SummaryWriter(str(tmp_path / folder))
        for step, value in enumerate(values):
            writer.add_scalar("epoch_loss" if "two" in folder else "Loss/train", value, step)
            writer.add_histogram("weights", torch.randn(5), step)
        writer.close()
    assert read_record(tmp_path / "one")["loss"] == ([0, 1, 2], [2.0, 1.0, 0.5])
    file = next((tmp_path / "one").glob("*tfevents*"))
    assert read_record(file)["loss"].values == [2.0, 1.0, 0.5]
    record = read_record(tmp_path / "two")
    assert record["val_loss"].values == [2.5, 1.5, 1.0] and record["loss"].values == [2.0, 1.0, 0.5]


def test_what_cannot_be_read_is_said(tmp_path):
    files = {"empty.csv": "", "words.csv": "name,place\na,b\n", "list.json": "[1, 2]", "number.json": "{\"a\": 3}",
             "broken.json": "{\"loss\": [1, 2",
             "text.txt": "nothing here\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80" * 20)
    (tmp_path / "events.out.tfevents.1.x").write_bytes(b"not events")
    (tmp_path / "folder").mkdir()
    for name in [*files, "binary.csv", "events.out.tfevents.1.x", "folder", "missing.csv"]:
        with pytest.raises(ConfigError):
            find_faults(tmp_path / name)
        assert main(["diagnose", str(tmp_path / name)]) == 2
    for wrong in (7, None, [1, 2], {}, [], {"loss": "abc"}, {"hits": [1, 2, 3]}):
        with pytest.raises(ConfigError):
            find_faults(wrong)


def test_two_thousand_mutated_files_are_read_or_refused(tmp_path):
    rng, path = random.Random(0), tmp_path / "record"
    texts = [json.dumps({"log_history": [{"step": 10 * i, "loss": 2.0 / (i + 1), "eval_loss": 2.1 / (i + 1)} for i in range(5)]}),
             "epoch,loss,val_loss\n" + "\n".join(f"{e},{2 / (e + 1)},{2.2 / (e + 1)}" for e in range(6)), json.dumps(columns(6))]
    junk = ["nan", "inf", "-1e308", ",", "\n", "\"", "{", "}", "[", "]", "null", "true", "-", "0", ";", "\t", "é", "\x00", "1e999", "loss",
            "epoch"]
    outcomes = {True: 0, False: 0}
    for _ in range(2000):
        text = rng.choice(texts)
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(["", rng.choice(junk)]) + text[at + rng.randrange(4):]
        path.write_text(text, encoding="utf-8")
        try:
            assert str(find_faults(path))
            outcomes[True] += 1
        except ConfigError as error:
            assert str(error)
            outcomes[False] += 1
    assert min(outcomes.values()) > 100


# Findings


def found(**data):
    return [finding.name for finding in find_faults({name.replace("__", "/"): values for name, values in data.items()})]


def test_each_finding_has_its_evidence():
    nan, inf = math.nan, math.inf
    assert found(loss=[2.0, 1.0, nan, nan]) == ["not finite"]
    assert found(loss=[2.0, 1.0, 0.7, 0.6], val_loss=[2, 1, inf, 0.8]) == ["not finite"]
    assert "loss is nan at epoch 2" in str(find_faults([{"epoch": e, "loss": v} for e, v in enumerate([2.0, 1.0, nan])]))
    assert found(loss=[2.0, 7.0, 4.0, 5.0]) == ["learning rate too high"]
    assert found(loss=[80.0, 2.4, 2.4, 2.38, 2.4], accuracy=[0.1, 0.1, 0.11, 0.1, 0.1]) == ["learning rate too high"]
    assert found(loss=[2.0, 3.0, 1.5, 0.5]) == [] == found(loss=[2.0, 2.6, 1.9, 1.4], accuracy=[0.5, 0.4, 0.8, 0.95])  # it recovered
    assert found(loss=[2.30, 2.29, 2.29, 2.28]) == ["hardly learning"]
    assert found(loss=[0.1, 0.099, 0.098, 0.098], accuracy=[0.97] * 3 + [0.98]) == []
    assert found(loss=[1.0, 0.5, 0.2, 0.05], val_loss=[1.0, 0.8, 1.0, 1.5]) == ["overfitting"]
    assert found(loss=[1.0, 0.5, 0.2, 0.1], val_loss=[1.0, 0.7, 0.6, 0.6]) == []  # a gap alone
    assert found(loss=[1.0, 0.5, 0.45, 0.44], val_loss=[1.0, 0.6, 0.65, 0.75]) == []  # a rise alone, while training has ended
    assert found(loss=[3.0, 2.0, 1.0, 0.9], lr=[0.0, 0.0, 0.0, 0.0]) == []  # rounded, perhaps
    assert found(loss=[0.5, 0.05, 0.01, 0.01], val_loss=[0.6, 0.5, 0.49, 0.5], accuracy=[0.9, 1.0, 1.0, 1.0]) == ["overfitting"]
    assert found(train__box_loss=[2.0, 1.0, 0.4, 0.2], val__box_loss=[2.0, 1.5, 2.0, 3.0]) == ["overfitting"]
    assert found(loss=[2.3, 1.9, 1.8, 1.7], val_accuracy=[0.25, 0.25, 0.25, 0.25]) == ["constant predictions"]
    assert found(loss=[2.3, 1.0, 0.5, 0.3], val_accuracy=[1.0, 1.0, 1.0, 1.0]) == []
    assert found(loss=[2.3, 2.0, 1.5, 1.2, 1.0], grad_norm=[1.0, 900.0, 1.2, 1.1, 0.9]) == ["exploding gradients"]
    assert found(loss=[2.3, 2.0, 1.5, 1.2, 1.0], grad_norm=[inf, 5.0, 1.2, 1.1, 0.9]) == []  # a scaler looks for its scale
    assert found(loss=[3.0, 2.0, 1.0, 0.9], lr=[1e-3, 1e-3, 0, 0]) == ["learning rate of zero"]
    assert found(loss=[3.0, 2.0, 1.0, 0.9], lr=[0, 1e-3, 1e-4, 0]) == []


def test_a_rise_in_the_last_epoch_alone_is_no_overfitting():
    columns = {"loss": [1.0, 0.8, 0.6, 0.4, 0.3, 0.15], "val_loss": [1.0, 0.9, 0.8, 0.7, 0.5, 0.9]}
    assert find_faults(columns) == []
    columns = {name: [*values, values[-1]] for name, values in columns.items()}
    assert [finding.name for finding in find_faults(columns)] == ["overfitting"]


def test_the_earliest_sign_comes_first():
    names = found(loss=[2.3, 9.0, 8.0, math.nan, math.nan], accuracy=[0.1, 0.1, 0.12, 0.1, 0.1])
    assert names == ["learning rate too high", "not finite"]


def test_what_the_record_cannot_say():
    text = str(find_faults({"accuracy": [0.5, 0.6]}))
    assert all(words in text for words in ("Nothing was found.", "no training loss", "no validation loss", "no gradient norms",
                                           "needs the net", "needs the data"))
    assert "there is only 1 value of the training loss" in str(find_faults({"loss": [1.0]}))
    full = str(find_faults({**columns(), "grad_norm": [1.0] * 4}))
    assert "no validation" not in full and "no gradient" not in full


def test_rules_stand_any_numbers():
    rng = random.Random(1)
    pool = [0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e308, 5e-324, 2.0, 0.5]
    for _ in range(500):
        series = {name: Series(list(range(n)), [rng.choice(pool) for _ in range(n)])
                  for name in ("loss", "val_loss", "accuracy", "val_accuracy", "lr", "grad_norm") if (n := rng.randrange(8))}
        record = Record(series, "made")
        for rule in RULES:
            finding = rule(record)
            assert finding is None or finding.evidence and finding.remedies


def run(kind, seed):
    data = digits()
    x, y = data.train_x.flatten(1), data.train_y
    width, layer, optimizer, rate, epochs = {
        "adam": (64, nn.ReLU(), torch.optim.Adam, 3e-3, 8), "sgd": (64, nn.Tanh(), torch.optim.SGD, 0.1, 8),
        "norm": (64, nn.Sequential(nn.BatchNorm1d(64), nn.ReLU()), torch.optim.SGD, 0.1, 6),
        "dropout": (128, nn.Sequential(nn.ReLU(), nn.Dropout()), torch.optim.Adam, 3e-3, 8),
        "learning rate too high": (64, nn.ReLU(), torch.optim.Adam, 1.0, 6), "hardly learning": (64, nn.ReLU(), torch.optim.SGD, 1e-5, 6),
        "overfitting": (256, nn.ReLU(), torch.optim.Adam, 3e-3, 60)}[kind]
    if kind == "overfitting":
        x, y = x[:60], y[:60]
    seed_everything(seed)
    model = nn.Sequential(nn.Linear(64, width), layer, nn.Linear(width, 10))
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer(model.parameters(), lr=rate), device="cpu", metrics=["accuracy"])
    return trainer.fit(TensorLoader(x, y, batch_size=32, shuffle=True, seed=seed), TensorLoader(data.test_x.flatten(1), data.test_y,
                                                                                                batch_size=360),
                       epochs=epochs, verbose=0)


@pytest.mark.parametrize("kind", ["adam", "sgd", "norm", "dropout"])
def test_healthy_runs_are_left_alone(kind):
    assert sum(bool(find_faults(run(kind, seed))) for seed in range(3)) == 0


@pytest.mark.parametrize("kind", ["learning rate too high", "hardly learning", "overfitting"])
def test_runs_broken_on_purpose_are_named(kind):
    named = [kind in [finding.name for finding in find_faults(run(kind, seed))] for seed in range(4)]
    assert sum(named) >= 3  # such trainings are chaotic: on another processor another one may look otherwise


# The command


def test_the_command_and_its_exit_codes(tmp_path, capsys):
    run("adam", 0).to_csv(tmp_path / "good.csv")
    (tmp_path / "bad.csv").write_text("epoch,loss,val_loss\n" + "\n".join(f"{e},{2 / (e + 1) ** 2},{1 + e / 3}" for e in range(6)))
    assert main(["diagnose", str(tmp_path / "good.csv")]) == 0 and "Nothing was found." in capsys.readouterr().out
    assert main(["diagnose", str(tmp_path / "bad.csv")]) == 3
    out = capsys.readouterr().out
    assert "overfitting: val_loss is lowest at epoch 0" in out and "    - stop at the lowest validation loss" in out and "cannot say" in out
    assert main(["diagnose", str(tmp_path / "none.csv")]) == 2 and "there is no such file" in capsys.readouterr().err
