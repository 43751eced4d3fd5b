"""Data: tables from odd files, splits that do not leak, loaders that resume, and what cannot be read."""
import copy
import io
import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split

from nnlearn import data as d
from nnlearn.core import ConfigError
from nnlearn.course import explorers


@pytest.fixture
def file(tmp_path):
    """Writes a text into a CSV file and gives its path."""
    def write(text, encoding="utf-8"):
        path = tmp_path / "table.csv"
        path.write_bytes(text.encode(encoding))
        return path
    return write


FRUIT = "size,weight,kind\n1,2.5,pear\n2,,apple\n3,4.5,pear\n4,5.5,apple\n"


# tabular


def test_a_class_called_na_is_asked_about(file):
    regions = file("a,y\n1,NA\n2,EU\n3,NA\n4,AS\n5,\n")
    for missing in ("drop", "median", "error"):
        with pytest.raises(ConfigError, match="'NA', which may be a class or a missing value"):
            d.tabular(regions, None, "y", missing=missing)
    a_class = d.tabular(regions, None, "y", missing="drop", holes=["", "?"])
    assert a_class.classes == ("AS", "EU", "NA") and a_class.targets.tolist() == [2, 1, 2, 0]
    a_hole = d.tabular(regions, None, "y", missing="drop", holes=["", "?", "NA"])
    assert a_hole.classes == ("AS", "EU") and a_hole.inputs.flatten().tolist() == [2, 4]
    numbers = d.tabular(file("a,y\n1,NA\n2,0\n3,1\n"), None, "y", missing="drop")  # cannot be a class
    assert len(numbers) == 2
    own = d.tabular(file("a,y\n-,1\n2,0\n4,1\n"), None, "y", missing="median", holes=["-"])
    assert own.missing == 1
    for wrong in ("NA", [1], 3):
        with pytest.raises(ConfigError, match="tabular.holes"):
            d.tabular(regions, None, "y", holes=wrong)


def test_missing_error_names_column_count_and_line(file):
    with pytest.raises(ConfigError, match=r"'weight' \(1, first in line 3\).*median"):
        d.tabular(file(FRUIT), None, "kind")


def test_missing_drop_and_median(file):
    path = file(FRUIT)
    dropped = d.tabular(path, None, "kind", missing="drop")
    assert len(dropped) == 3 and dropped.missing == 0 and dropped.classes == ("apple", "pear")
    assert dropped.targets.tolist() == [1, 1, 0] and dropped.inputs.tolist() == [[1, 2.5], [3, 4.5], [4, 5.5]]
    table = d.tabular(path, ["weight"], "kind", missing="median")
    assert table.missing == 1 and len(table) == 4
    with pytest.raises(ConfigError, match="still empty"):
        table[0]
    filled = d.fill(table)
    assert filled.medians.tolist() == [4.5] and filled.inputs.flatten().tolist() == [2.5, 4.5, 4.5, 5.5] and table.missing == 1
    assert filled[1][0].tolist() == [4.5] and filled[1][1] == 0


def test_holes_in_every_spelling(file):
    table = d.tabular(file("a,b\n1,0\n,0\n NA ,0\nn/a,1\nNaN,1\nnull,1\n?,1\n"), None, "b", missing="median")
    assert table.missing == 6


@pytest.mark.parametrize(("cells", "classes", "targets", "names"), [
    (["10", "9", "10", "-1"], None, [2, 1, 2, 0], ("-1", "9", "10")), (["b", "a", "b"], None, [1, 0, 1], ("a", "b")),
    (["1.5", "2", "0.5"], None, [1.5, 2.0, 0.5], None), (["3", "1", "2"], False, [3.0, 1.0, 2.0], None),
    (["1.5", "0.5", "1.5"], True, [1, 0, 1], ("0.5", "1.5")), (["10.0", "9.0"], True, [1, 0], ("9.0", "10.0")),
])
def test_targets(file, cells, classes, targets, names):
    path = file("x,y\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    table = d.tabular(path, ["x"], "y", classes=classes)
    assert table.targets.tolist() == targets and table.classes == names
    assert table.targets.dtype == (torch.float32 if names is None else torch.int64)


def test_whole_numbers_that_are_hardly_classes(file):
    def rows(count, kinds):
        return file("a,b\n" + "".join(f"{i},{i % kinds}\n" for i in range(count)))

    with pytest.raises(ConfigError, match="'b' has 214 different integers: say classes=False"):
        d.tabular(rows(442, 214), None, "b")
    with pytest.raises(ConfigError, match="21 different"):
        d.tabular(rows(40, 21), None, "b")
    assert d.tabular(rows(442, 214), None, "b", classes=False).targets.dtype == torch.float32
    assert len(d.tabular(rows(442, 214), None, "b", classes=True).classes) == 214
    assert len(d.tabular(rows(40, 20), None, "b").classes) == 20 and len(d.tabular(rows(400, 40), None, "b").classes) == 40


def test_odd_but_right_files(file):
    assert d.tabular(file("\ufeffa,b\r\n1,x\r\n\r\n2,y\r\n"), None, "b").features == ("a",)
    assert d.tabular(file('a;"b c"\n1;x\n2;y\n'), ["a"], "b c", delimiter=";").inputs.tolist() == [[1.0], [2.0]]
    assert d.tabular(str(file("b, a \nx,1e3\ny,-2\n")), ["a"], "b").inputs.tolist() == [[1000.0], [-2.0]]
    assert d.tabular(file("a,b\n" + ",x\n1,y\n"), ["a"], "b", missing="drop").targets.tolist() == [0]


@pytest.mark.parametrize(("text", "features", "target", "missing", "word"), [
    ("", None, "b", "error", "no rows"), ("a,b\n", None, "b", "error", "no rows"),
    ("a,b\n1,x\n1,2,3\n", None, "b", "error", "line 3 has 3 cells"),
    ("a,a\n1,x\n", None, "a", "error", "two columns"), ("a,b\n1,x\n", ["c"], "b", "error", "no column 'c'"),
    ("alpha,b\n1,x\n", ["alpa"], "b", "error", "Did you mean 'alpha'"), ("a,beta\n1,x\n", None, "bta", "error", "Did you mean 'beta'"),
    ("a,b\n1,x\n", ["a", "b"], "b", "error", "give the answer away"), ("a,b\n1,x\n", "a", "b", "error", r"\['a'\]"),
    ("a,b\n1,x\n", ["a", "a"], "b", "error", "each once"), ("a,b\n1,x\n", [], "b", "error", "at least one"),
    ("a,b\nred,x\n", None, "b", "error", "'red' in line 2"), ("a,b\ninf,x\n", None, "b", "error", "out of range for float32"),
    ("a,b\n1e99,x\n", None, "b", "error", "out of range for float32"),
    ("a,b\n1,\n2,x\n", None, "b", "median", "target 'b' is missing in 1 row.*line 2"), ("a,b\n,x\n", None, "b", "drop", "would remove all"),
    ("a,b\n1,x\n", None, "b", "mean", "tabular.missing: expected one of"), ("b\nx\n", None, "b", "error", "at least one"),
    ("a,b\n1,inf\n2,1.5\n", None, "b", "error", None),
])
def test_files_and_arguments_that_are_wrong(file, text, features, target, missing, word):
    if word is None:  # text among numbers makes classes
        assert d.tabular(file(text), features, target, classes=True).classes is not None
        return
    with pytest.raises(ConfigError, match=word):
        d.tabular(file(text), features, target, missing)


def test_files_that_are_none(file, tmp_path):
    for path in (tmp_path / "no.csv", tmp_path, 3, None):
        with pytest.raises(ConfigError, match="no file"):
            d.tabular(path, None, "b")
    with pytest.raises(ConfigError, match="UTF-8"):
        d.tabular(file("a,b\n1,é\n", "latin-1"), None, "b")


def test_fill_needs_medians(file):
    table = d.tabular(file("a,c,b\n,1,x\n,2,y\n"), None, "b", missing="median")
    with pytest.raises(ConfigError, match="'a' has no value"):
        d.fill(table)
    with pytest.raises(ConfigError, match="expected 2 medians"):
        d.fill(table, torch.zeros(3))


# split


def labelled(sizes, seed=0):
    """Rows numbered from 0, with so many of each class, mixed."""
    labels = torch.cat([torch.full((size,), i) for i, size in enumerate(sizes)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    return torch.arange(len(labels)), labels


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(3, 60), min_size=1, max_size=6), st.sampled_from([(0.5, 0.5), (0.8, 0.2), (0.6, 0.2, 0.2), (0.34, 0.33, 0.33)]),
       st.integers(0, 2**31))
def test_every_class_in_its_share_to_within_a_row(sizes, fractions, seed):
    rows, labels = labelled(sizes)
    if min(round(len(rows) * sum(fractions[:i + 1])) - round(len(rows) * sum(fractions[:i])) for i in range(len(fractions))) < 1:
        return
    parts = d.split((rows, labels), fractions, seed)
    assert torch.equal(torch.cat([part[0] for part in parts]).sort().values, rows)
    for i, ((numbers, own), fraction) in enumerate(zip(parts, fractions)):
        assert torch.equal(labels[numbers], own) and abs(len(numbers) - fraction * len(rows)) <= 1
        for label, size in enumerate(sizes):
            assert abs((own == label).sum() - size * len(numbers) / len(rows)) < (2 if i else 1)


def test_many_small_classes_beside_a_large_one():
    rows, labels = labelled([300] + [3] * 100)
    parts = d.split((rows, labels), (0.2, 0.8), 0)
    assert [len(part[0]) for part in parts] == [120, 480] and (parts[0][1] == 0).sum() == 60


def test_the_seed_decides_and_rows_are_mixed():
    data = labelled([50, 50])
    one, same, other = (d.split(data, (0.5, 0.5), seed)[0][0] for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    plain = d.split(data, (0.5, 0.5), 1, stratify=False)[0][0]
    assert not torch.equal(plain, torch.arange(50)) and len(plain) == 50
    before = torch.get_rng_state()
    d.split(data, (0.5, 0.5), 3)
    assert torch.equal(before, torch.get_rng_state())


def test_every_row_has_the_same_chance():
    counts = torch.zeros(20)
    data = labelled([12, 8])
    for seed in range(600):
        counts[d.split(data, (0.75, 0.25), seed)[1][0]] += 1
    assert (counts / 600 - 0.25).abs().max() < 0.08


def test_kinds_of_data_sets():
    rows, labels = labelled([20, 20])

    class Plain(Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, i):
            return rows[i], int(labels[i])

    class WithTargets(Plain):
        targets = labels.tolist()

        def __getitem__(self, i):
            raise AssertionError("the labels are known without this")

    expected = d.split((rows, labels), (0.5, 0.5), 4)
    assert type(d.split([rows, labels], (0.5, 0.5), 4)[0]) is tuple
    tensors = d.split(TensorDataset(rows, labels), (0.5, 0.5), 4)
    assert type(tensors[0]) is TensorDataset and torch.equal(tensors[0].tensors[0], expected[0][0])
    for kind in (Plain(), WithTargets()):
        parts = d.split(kind, (0.5, 0.5), 4)
        assert type(parts[0]) is Subset and parts[1].indices == expected[1][0].tolist()
    assert len(d.split(WithTargets(), (0.5, 0.5), stratify=False)[0]) == 20


def test_medians_come_from_the_first_part(file):
    lines = [f"{i if i % 3 else ''},{i % 2}" for i in range(60)]
    table = d.tabular(file("a,b\n" + "\n".join(lines)), None, "b", missing="median")
    train, val, test = d.split(table, (0.5, 0.25, 0.25), 0)
    holes = d.split((table.inputs, table.targets), (0.5, 0.25, 0.25), 0)
    expected = float(np.nanmedian(holes[0][0].numpy()))
    for part, (raw, _) in zip((train, val, test), holes):
        assert part.missing == 0 and part.medians.tolist() == [expected]
        assert torch.equal(part.inputs, torch.where(raw.isnan(), expected, raw))


@pytest.mark.parametrize(("data", "fractions", "kwargs", "word"), [
    (labelled([9, 9]), (0.5, 0.6), {}, "sum to 1"), (labelled([9, 9]), (1.0,), {}, "at least 2 items"), (labelled([9, 9]),
    (1.2, -0.2), {}, "above 0"),
    (labelled([9, 9]), 0.8, {}, "split.fractions: expected a sequence"),
    (labelled([9, 9]), ("0.8", "0.2"), {}, r"fractions\[0\]: expected a number above 0"), (labelled([2, 2]),
    (0.98, 0.02), {}, "would be empty"),
    (labelled([9, 1]), (0.5, 0.5), {}, "class 1 has 1 row"), (labelled([9, 9]), (0.5, 0.5), {"seed": -1}, "seed"),
    (labelled([9, 9]), (0.5, 0.5), {"seed": 1.5}, "seed"), ((torch.zeros(4, 2), torch.zeros(4)), (0.5, 0.5), {}, "stratify=False"),
    ((torch.zeros(4), torch.zeros(4, 2).long()), (0.5, 0.5), {}, "stratify=False"), ((torch.zeros(4), torch.zeros(3)),
    (0.5, 0.5), {}, "equally many rows"),
    (torch.zeros(4), (0.5, 0.5), {}, "inputs and targets"), ((), (0.5, 0.5), {}, "tuple of tensors"), ((1, 2),
    (0.5, 0.5), {}, "tuple of tensors"),
    (iter([1]), (0.5, 0.5), {}, "stream"), (["a", "b"], (0.5, 0.5), {}, "tuple of tensors"),
])
def test_splits_that_cannot_be(data, fractions, kwargs, word):
    with pytest.raises(ConfigError, match=word):
        d.split(data, fractions, **kwargs)


def test_a_class_that_is_too_small_is_called_by_its_name(file):
    table = d.tabular(file("a,b\n1,x\n2,x\n3,x\n4,z"), None, "b")
    with pytest.raises(ConfigError, match=r"class 'z' has 1 row\(s\), too few for 2 parts"):
        d.split(table, (0.5, 0.5))


def test_targets_without_classes_in_a_general_data_set():
    class Odd(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return {"x": i}

    with pytest.raises(ConfigError, match="targets are not class labels"):
        d.split(Odd(), (0.5, 0.5))
    assert len(d.split(Odd(), (0.5, 0.5), stratify=False)) == 2


# Standardizer, rows


def test_standardizer_equals_scikit_learn():
    from sklearn.preprocessing import StandardScaler
    generator = np.random.default_rng(0)
    for scale in ([1, 1, 1], [0.02, 1e4, 1], [5, 0, 1e3]):
        train, test = (generator.normal(3, scale, (50, 3)).astype("float32") for _ in range(2))
        ours = d.Standardizer(torch.tensor(train))
        theirs = StandardScaler().fit(train.astype("float64"))
        np.testing.assert_allclose(ours(torch.tensor(test)), theirs.transform(test.astype("float64")), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(ours.inverse(ours(torch.tensor(test))), test, rtol=1e-4, atol=1e-4)


def test_standardizer_constant_columns_images_state_and_errors():
    constant = d.Standardizer(torch.tensor([[0.1, 1.0], [0.1, 3.0], [0.1, 5.0]]))
    assert constant.std[0] == 1.0 and abs(float(constant(torch.tensor([[0.1, 3.0]]))[0, 0])) < 1e-7
    images = torch.rand(10, 3, 4, 4)
    assert d.Standardizer(images)(images).shape == images.shape and d.Standardizer(TensorDataset(images)).mean.shape == (3, 4, 4)
    model = nn.Sequential(d.Standardizer(torch.rand(5, 2)), nn.Linear(2, 1))
    again = nn.Sequential(d.Standardizer(torch.rand(5, 2)), nn.Linear(2, 1))
    again.load_state_dict(model.state_dict())
    assert torch.equal(model[0].mean, again[0].mean) and not list(model[0].parameters())
    for wrong in (torch.zeros(3), torch.zeros(1, 3), [[1.0, 2.0]], torch.tensor([[1.0], [torch.nan]]), torch.tensor([[1.0], [torch.inf]])):
        with pytest.raises(ConfigError, match="Standardizer"):
            d.Standardizer(wrong)


def test_standardizer_refuses_what_would_broadcast_and_tuples():
    x = torch.rand(5, 3)
    scale = d.Standardizer(x)
    for wrong in (torch.rand(4, 1), torch.rand(3, 4), torch.rand(4), torch.tensor(1.0)):
        for way in (scale, scale.inverse):
            with pytest.raises(ConfigError, match=r"expected inputs of shape \(rows, 3\), got"):
                way(wrong)
    assert scale(x[0]).shape == (3,) and scale(x.expand(2, 5, 3)).shape == (2, 5, 3)
    with pytest.raises(ConfigError, match=r"\(rows, 3, 4, 4\)"):
        d.Standardizer(torch.rand(5, 3, 4, 4))(torch.rand(2, 1, 4, 4))
    train, _ = d.split((x.repeat(4, 1), torch.arange(20) % 2), (0.5, 0.5))
    with pytest.raises(ConfigError, match=r"pass `train\[0\]`"):
        d.Standardizer(train)


def test_rows_that_are_shared_in_every_type(file):
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool):
        x = torch.tensor([[1, 0], [0, 0], [1, 1]]).to(dtype)
        assert d.shared_rows(x, x[1:]) == 2 and d.unique_rows(torch.cat([x, x])).tolist() == [0, 1, 2], dtype
    zero = torch.zeros(2, 3)
    assert d.shared_rows(zero, -zero) == 2 and d.unique_rows(torch.cat([zero, -zero])).tolist() == [0]
    big = torch.tensor([[2**60 + 1], [2**60]])
    assert d.unique_rows(big).tolist() == [0, 1]  # whole numbers are compared as they are
    with pytest.raises(ConfigError, match="float32 and torch.float64"):
        d.shared_rows(zero, zero.double())
    for wrong in ([1.0], None, torch.tensor(1.0)):
        with pytest.raises(ConfigError, match="shared_rows"):
            d.shared_rows(wrong, zero)
        with pytest.raises(ConfigError, match="unique_rows"):
            d.unique_rows(wrong)
    table = d.tabular(file("a,b,c\n1,2,0\n3,4,1\n1,2,0\n"), None, "c")
    assert d.shared_rows(table, table) == 3 and d.unique_rows(table).tolist() == [0, 1]


def test_rows_that_are_shared():
    first, second = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[3.0, 4.0], [3.0, 4.0], [2.0, 1.0]])
    assert d.shared_rows(first, second) == 2 and d.shared_rows(second, first) == 1
    assert d.unique_rows(second).tolist() == [0, 2] and d.unique_rows(torch.zeros(0, 2)).tolist() == []
    assert d.shared_rows(torch.arange(3), torch.tensor([2, 9])) == 1
    with pytest.raises(ConfigError, match="cannot be compared"):
        d.shared_rows(first, torch.zeros(2, 3))


def test_standardizer_keeps_the_digits_of_large_numbers():
    for x in (1e8 + torch.arange(10.0, dtype=torch.float64)[:, None], (10**8 + torch.arange(10))[:, None]):
        scaled = d.Standardizer(x)(x)
        expected = (torch.arange(10.0, dtype=torch.float64) - 4.5) / torch.arange(10.0, dtype=torch.float64).std(correction=0)
        assert scaled.dtype is (x.dtype if x.is_floating_point() else torch.float32)
        assert torch.allclose(scaled[:, 0].double(), expected, atol=1e-6)
    x = 1e8 + torch.arange(10.0, dtype=torch.float64)[:, None]
    scale = d.Standardizer(x)
    assert torch.allclose(scale.inverse(scale(x)), x, rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="out of range for float32"):
        d.Standardizer(torch.tensor([[1e200], [2e200]], dtype=torch.float64))


def test_an_underscore_is_no_part_of_a_number(tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text("code,y\n12_34,0\n7,1\n")
    with pytest.raises(ConfigError, match="'code' holds '12_34' in line 2"):
        d.tabular(path, None, "y")


# TensorLoader


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 50), st.integers(1, 20), st.booleans(), st.booleans(), st.integers(0, 2**31))
def test_tensor_loader_gives_every_row_once(rows, batch_size, shuffle, drop_last, seed):
    x, y = torch.arange(rows), torch.arange(rows) * 2.0
    if drop_last and rows < batch_size:
        return
    loader = d.TensorLoader(x, y, batch_size=batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last)
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(loader) == len(DataLoader(TensorDataset(x), batch_size, drop_last=drop_last))
        got = torch.cat([a for a, _ in batches])
        assert torch.equal(torch.cat([b for _, b in batches]), got * 2.0) and len(set(got.tolist())) == len(got)
        assert {len(a) for a, _ in batches[:-1]} <= {batch_size} and (drop_last or len(got) == rows)
        assert shuffle or torch.equal(got, x[:len(got)])


def test_tensor_loader_shuffles_anew_and_evenly():
    x, counts = torch.arange(6), torch.zeros(6, 6)
    loader = d.TensorLoader(x, batch_size=6, shuffle=True, seed=0)
    orders = [batch for _ in range(1200) for batch, in loader]
    assert len({tuple(order.tolist()) for order in orders}) > 400
    for order in orders:
        counts[torch.arange(6), order] += 1
    assert (counts / 1200 - 1 / 6).abs().max() < 0.05


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), st.integers(0, 6), st.integers(0, 1000))
def test_tensor_loader_resumes_anywhere(epochs, batches, seed):
    x = torch.arange(20)

    def loader(seed):
        return d.TensorLoader(x, batch_size=3, shuffle=True, seed=seed)

    def forever(loader):
        while True:
            yield from loader

    whole = list(itertools.islice(forever(loader(seed)), 40))
    stopped = loader(seed)
    done = 0
    for _ in range(epochs):
        done += len(list(stopped))
    if batches:
        done += len(list(itertools.islice(iter(stopped), batches)))
    buffer = io.BytesIO()
    torch.save(stopped.state_dict(), buffer)
    buffer.seek(0)
    resumed = loader(seed + 1)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    rest = list(itertools.islice(forever(resumed), 40 - done))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[done:], rest, strict=True))


def test_tensor_loader_details():
    x = torch.zeros(4, 2)
    for shuffle in (False, True):
        batch, = next(iter(d.TensorLoader(x, batch_size=2, shuffle=shuffle)))
        batch += 1
        assert not x.any()  # batches are copies
    torch.manual_seed(3)
    one = d.TensorLoader(x, shuffle=True).seed
    torch.manual_seed(3)
    assert d.TensorLoader(x, shuffle=True).seed == one
    assert len(d.TensorLoader(x).dataset) == 4


def test_tensor_loader_may_be_read_while_it_is_read():
    def loader():
        return d.TensorLoader(torch.arange(12), batch_size=np.int64(4), shuffle=True, seed=1)

    def orders(batches):
        return [rows.tolist() for rows, in batches]

    one = loader()
    outer = iter(one)
    first = next(outer)
    inner = orders(one)  # as a callback does that evaluates the training data
    state, own = one.state_dict(), outer.state_dict()
    assert state == own and (one.epoch, one.batch, one.started) == (1, 1, 2)
    rest, third = orders(outer), orders(one)
    plain = loader()
    assert [*orders([first]), *rest] == orders(plain) and inner == orders(plain) and third == orders(plain)
    for again in (loader(), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        again.load_state_dict(state)
        assert orders(again) == rest and orders(again) == third
    assert orders(copy.deepcopy(one)) == orders(plain)
    one.restart()
    assert orders(one) == orders(loader())


def test_tensor_loader_that_was_only_looked_into():
    one = d.TensorLoader(torch.arange(12), batch_size=4, seed=1)
    next(iter(one))
    list(one)
    assert (one.epoch, one.batch) == (2, 3)  # the first iteration is gone, not under way


def test_tensor_loader_states_that_do_not_fit():
    x = torch.zeros(10, 2)

    def loader(x=x, **options):
        return d.TensorLoader(x, **{"batch_size": 4, "seed": 0, **options})

    state = loader().state_dict()
    others = {"batch_size": loader(batch_size=5), "rows": loader(x[:9]), "shuffle": loader(shuffle=True),
              "drop_last": loader(drop_last=True)}
    for key, other in others.items():
        with pytest.raises(ConfigError, match=f"{key}=.*this one has {key}="):
            other.load_state_dict(state)
    older = {key: state[key] for key in ("seed", "epoch", "batch", "batches")}
    loader().load_state_dict(older)
    with pytest.raises(ConfigError, match="batches=3, this one has batches=5"):
        loader(batch_size=2).load_state_dict(older)
    for wrong, word in (({}, "seed, epoch, batch, batches missing"), (None, "not the state"), ({**state, "seed": "a"}, "seed"),
                        ({**state, "epoch": 1.5}, "epoch"), ({**state, "batch": -1}, "batch")):
        with pytest.raises(ConfigError, match=word):
            loader().load_state_dict(wrong)
    for seed in ("a", 1.7, -1, True):
        for shuffle in (False, True):
            with pytest.raises(ConfigError, match="TensorLoader.seed"):
                loader(seed=seed, shuffle=shuffle)


@pytest.mark.parametrize(("tensors", "kwargs", "word"), [
    ((), {}, "got nothing"), (([1, 2],), {}, "tensors.*got .*list"), ((torch.tensor(1.0),), {}, "tensors with rows"),
    ((torch.zeros(2), torch.zeros(3)), {}, r"\[2, 3\]"),
    ((torch.zeros(0, 2),), {}, "0 rows"), ((torch.zeros(3),), {"batch_size": 4, "drop_last": True}, "no full batch of 4"),
    ((torch.zeros(3),), {"batch_size": 0}, "at least 1"), ((torch.zeros(3),), {"batch_size": 2.0}, "an integer"),
    ((torch.zeros(3),), {"shuffle": "no"}, "TensorLoader.shuffle"),
    ((torch.zeros(3),), {"batchsize": 2}, "Did you mean 'batch_size'"),
])
def test_tensor_loaders_that_cannot_be(tensors, kwargs, word):
    with pytest.raises(ConfigError, match=word):
        d.TensorLoader(*tensors, **kwargs)


# dataloaders


def test_dataloaders_choose_by_what_the_parts_are(file):
    x, y = torch.rand(40, 2), torch.arange(40) % 2
    table = d.tabular(file("a,b\n" + "".join(f"{i},{i % 2}\n" for i in range(20))), None, "b")
    subset = random_split(TensorDataset(x, y), [30, 10], torch.Generator().manual_seed(0))[0]

    class Plain(Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, i):
            return x[i], y[i]

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(x)

    kinds = {"tuple": (x, y), "table": table, "tensors": TensorDataset(x, y), "subset": subset, "plain": Plain(), "stream": Stream()}
    for name, kind in kinds.items():
        train, val = d.dataloaders(kind, kind, batch_size=8, seed=1, drop_last=True)
        assert isinstance(train, DataLoader) == (name in ("plain", "stream")), name
        if name == "stream":
            continue
        one, two = ([batch[0] for batch in d.dataloaders(kind, batch_size=8, seed=1, drop_last=True)[0]] for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True)), name
        assert len(torch.cat([batch[0] for batch in val])) == len(kind[0] if name == "tuple" else kind)
        assert len(train) == (len(kind[0] if name == "tuple" else kind)) // 8
    assert torch.equal(next(iter(d.dataloaders(subset, subset)[1]))[0], x[torch.tensor(subset.indices)])


def test_dataloaders_with_workers_are_the_same():
    rows = Subset(TensorDataset(torch.arange(30)), range(30))
    wrapped = torch.utils.data.ConcatDataset([rows])
    batches = [[batch[0].tolist() for batch in d.dataloaders(wrapped, batch_size=7, seed=2, num_workers=n)[0]] for n in (0, 2)]
    assert batches[0] == batches[1] and sorted(sum(batches[0], [])) == list(range(30))


def test_dataloaders_refuse_what_would_be_silently_wrong():
    x, y = torch.rand(20, 3), torch.arange(20) % 2
    for parts in ((x, y), (x.numpy(), y.numpy()), ((x, y), x)):
        with pytest.raises(ConfigError, match=r"as one part: dataloaders\(\(inputs, targets\)\)"):
            d.dataloaders(*parts)
    subsets = random_split(TensorDataset(x, y), [15, 5])
    for parts in (d.split((x, y), (0.8, 0.2)), tuple(subsets), [TensorDataset(x, y)], [TensorDataset(x, y), (x, y)]):
        with pytest.raises(ConfigError, match=r"dataloaders\(\*parts\)"):
            d.dataloaders(parts)
    inputs_first = next(iter(d.dataloaders((x, torch.arange(20)))[0]))
    assert torch.equal(x[inputs_first[1]], inputs_first[0])  # they stay together
    samples = [(row, label) for row, label in zip(x, y, strict=True)]  # a list of rows is a data set
    assert isinstance(d.dataloaders(samples)[0], DataLoader) and len(d.dataloaders(samples[:3], samples[:2], batch_size=2)[0]) == 2


@pytest.mark.parametrize(("parts", "kwargs", "word"), [
    ((), {}, "at least one part"), ((3,), {}, "expected a data set as part 0"), (((torch.zeros(3),),), {"batch_size": 0}, "batch_size"),
    (((torch.zeros(3),),), {"seed": "a"}, "seed"), (((torch.zeros(3),),), {"num_workers": -1}, "num_workers"),
])
def test_dataloaders_that_cannot_be(parts, kwargs, word):
    with pytest.raises(ConfigError, match=word):
        d.dataloaders(*parts, **kwargs)


# The scatter of scores


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3000), st.floats(0.01, 0.99))
def test_score_distribution_is_the_binomial_one(rows, accuracy):
    scores, chance = d.score_distribution(rows, accuracy)
    assert abs(chance.sum() - 1) < 1e-8 and abs((scores * chance).sum() - 100 * accuracy) < 1e-6
    assert abs((scores**2 * chance).sum() - (100 * accuracy) ** 2 - 1e4 * accuracy * (1 - accuracy) / rows) < 1e-5


def test_better_wins_and_its_errors():
    assert abs(d.better_wins(1, 0.5, 0.25) - 0.5 * 0.75) < 1e-12  # one row: right while the other is wrong
    assert d.better_wins(50, 0.5, 0.0001) < 0.5
    for rows, accuracy in ((0, 0.5), (1.5, 0.5), (10, 0.0), (10, 1.0)):
        with pytest.raises(ConfigError):
            d.score_distribution(rows, accuracy)
    assert "Scores" in repr(explorers.validation_explorer())
