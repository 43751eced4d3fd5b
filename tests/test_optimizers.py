"""Weight decay: which parameters it is for, and the names that stand in `builders` and are found in `optimizers`."""
import pytest
from torch import nn

from nnlearn.core import ConfigError
from nnlearn.optimizers import no_decay_groups


def test_no_decay_sorts_every_kind_of_layer():
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "conv": nn.Conv2d(3, 4, 3), "bn": nn.BatchNorm2d(4), "gn": nn.GroupNorm(2, 4),
                           "rms": nn.RMSNorm(4), "linear": nn.Linear(4, 2), "rnn": nn.GRU(4, 4), "attention": nn.MultiheadAttention(4, 2),
                           "bilinear": nn.Bilinear(2, 2, 3), "norm2d": nn.LayerNorm((3, 4))})
    decayed, kept = no_decay_groups(model, 0.3)
    names = {id(p): name for name, p in model.named_parameters()}
    assert sorted(names[id(p)] for p in decayed["params"]) == sorted([
        "conv.weight", "linear.weight", "rnn.weight_ih_l0", "rnn.weight_hh_l0", "attention.in_proj_weight",
        "attention.out_proj.weight", "bilinear.weight"])
    assert decayed["weight_decay"] == 0.3 and kept["weight_decay"] == 0.0
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def test_no_decay_with_shared_frozen_and_few_parameters():
    model = nn.ModuleDict({"in": nn.Embedding(5, 4), "out": nn.Linear(4, 5, bias=False), "frozen": nn.Linear(2, 2)})
    model["out"].weight = model["in"].weight
    model["frozen"].requires_grad_(False)
    assert [len(group["params"]) for group in no_decay_groups(model, 0.1)] == [1]
    assert no_decay_groups(nn.Linear(2, 2, bias=False), 0.1)[0]["weight_decay"] == 0.1
    for wrong in (nn.ReLU(), [nn.Linear(2, 2)]):
        with pytest.raises(ConfigError):
            no_decay_groups(wrong, 0.1)
    with pytest.raises(ConfigError, match="at least 0"):
        no_decay_groups(nn.Linear(2, 2), -0.1)


def test_lazy_parameters_are_refused():
    model = nn.Sequential(nn.LazyLinear(4), nn.LazyLinear(1))
    with pytest.raises(ConfigError, match="Call the model once on a batch first"):
        no_decay_groups(model, 0.1)
