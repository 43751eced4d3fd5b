"""What the libraries below us announce to remove: a new announcement fails here, long before a lesson breaks."""
import os
import subprocess
import sys

import pytest

# Announcements that are known, each with why it is left: a part of the message, the reason.
KNOWN = {"__array__ implementation doesn't accept a copy keyword": "inside Keras's torch backend, not ours to mend"}
USES = {
    "schedulers of torch": """
import torch
from nnlearn import builders, schedules as s
opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
for name in builders.SCHEDULERS:
    builders.get_scheduler(name, opt, {"total_steps": 9} if name == "one_cycle" else None)
sched = s.CosineDecay(0.1, 5).torch(opt); opt.step(); sched.step(); sched.load_state_dict(sched.state_dict())
""",
    "keras": """
import os; os.environ["KERAS_BACKEND"] = "torch"
import keras, numpy as np
from nnlearn import schedules as s
model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(s.CosineDecay(0.1, 5).keras()), "mse")
model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
""",
    "measuring and data": """
import torch
from nnlearn import measure, datasets
net = torch.nn.Linear(64, 3)
measure.operations(net, torch.rand(2, 64)), measure.what_runs(net, torch.rand(2, 64)), measure.model_bytes(net)
datasets.digits(), datasets.mnist_sample()
""",
    "autograd and functional calls": """
import torch
from nnlearn.passes import gradient_check, trace_shapes
gradient_check(lambda w: (w * w).sum(), [torch.ones(2, dtype=torch.float64)])
trace_shapes(torch.nn.Linear(2, 2), torch.ones(1, 2))
""",
    "memory, by a private tool of torch": """
import torch
from torch import nn
from nnlearn.memory import checkpoint_layers, measure_memory, memory_bill
net = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 1))
checkpoint_layers(net)
assert memory_bill(net, torch.ones(3, 4)).peak > 0 and measure_memory(lambda: net(torch.ones(3, 4)).sum().backward()).peak > 0
""",
    "processes": """
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from nnlearn.trainer import Trainer
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
model = nn.Linear(4, 2)
fully_shard(model, mesh=dist.device_mesh.init_device_mesh("cpu", (1,)))
trainer = Trainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1), device="cpu", clip_norm=1.0)
trainer.fit([(torch.ones(3, 4), torch.tensor([0, 1, 1]))], verbose=0)
dist.destroy_process_group()
""",
    "figures and widgets": """
import matplotlib; matplotlib.use("Agg")
from nnlearn import core, schedules as s
from nnlearn.course.explore import explore
core.style(); s.OneCycle(0.1, 50).plot()
explore(lambda a: {"line": ([0, 1], [0, a])}, a=[1, 2], alt="a line").live()
""",
}


def announcements(code):
    """The messages of all deprecations that some code meets, in a process of its own."""
    watched = "import warnings\nwith warnings.catch_warnings(record=True) as seen:\n    warnings.simplefilter('always')\n"
    watched += "".join(f"    {line}\n" for line in code.strip().splitlines())
    watched += ("for w in seen:\n    if issubclass(w.category, (DeprecationWarning, PendingDeprecationWarning, FutureWarning)):\n"
                "        print('ANNOUNCED', str(w.message).replace(chr(10), ' '))\nprint('DONE')")
    done = subprocess.run([sys.executable, "-c", watched], capture_output=True, text=True,
                          env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    assert "DONE" in done.stdout, done.stderr[-2000:]
    return [line.removeprefix("ANNOUNCED ") for line in done.stdout.splitlines() if line.startswith("ANNOUNCED")]


@pytest.mark.parametrize("use", USES)
def test_nothing_new_is_announced(use):
    new = [message for message in announcements(USES[use]) if not any(part in message for part in KNOWN)]
    assert not new, new


def test_the_canary_sings():
    assert announcements("import warnings\nwarnings.warn('going away', FutureWarning)") == ["going away"]
