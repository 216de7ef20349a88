"""What one's own code raises in the middle of a run is a user error with its place; torch's optimizers are tried."""

import importlib
import sys
from pathlib import Path

import pytest

import dlrun
from dlrun.config import consent
from dlrun.config.own_failures import own_failures

CODE = """import torch
import torch.nn.functional as F

def late(time):
    if 0.4 < time.fraction < 0.45:
        raise ValueError("too late")
    return 1.0

def text(time):
    return "x" if 0.4 < time.fraction < 0.45 else 1.0

def negative(time):
    return -1.0 if 0.4 < time.fraction < 0.45 else 1.0

def loss(out, y):
    if len(y) not in (2, 128):
        raise IndexError("a smaller batch")
    return F.cross_entropy(out, y, reduction="none")

class Net(torch.nn.Linear):
    def __init__(self, spec):
        super().__init__(spec.features, spec.outputs)

    def forward(self, x):
        return super().forward(x.flatten(1) if len(x) in (2, 128) else x)

class Step(torch.optim.SGD):
    def __init__(self, params, *, lr: float = 0.1):
        super().__init__(params, lr=lr)
        self.count = 0

    def step(self, closure=None):
        self.count += 1
        return super().step(closure) if self.count < 5 else {}["gone"]
"""
WRONG = """import torch
import torch.nn.functional as F

COUNT = [0]

def is_late():
    COUNT[0] += 1
    return COUNT[0] > 4

def loss(out, y):
    losses = F.cross_entropy(out, y, reduction="none")
    return WRONG if is_late() else losses

def change(x, context):
    return WRONG if is_late() else x

class Net(torch.nn.Linear):
    def __init__(self, spec):
        super().__init__(spec.features, spec.outputs)

    def forward(self, x):
        out = super().forward(x.flatten(1))
        return WRONG if is_late() else out
"""
WORDS = ["data=digits", "trainer.epochs=2", "trainer.device=cpu", "trainer.log_every=0", "run_dir=run"]


@pytest.fixture(autouse=True)
def code(tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(consent, "allowed", {"failing"})
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path / "failing.py"
    sys.modules.pop("failing", None)


@pytest.mark.parametrize(
    ("word", "texts"),
    {
        "raises": ("schedule=failing.late", ["schedule=failing.late raised ValueError: too late", "line 6)"]),
        "text": ("schedule=failing.text", ["returned 'x' when 0.4", "expected a number of at least 0"]),
        "negative": ("schedule=failing.negative", ["returned -1.0 when 0.4"]),
        "loss": ("task.loss=failing.loss", ["failing.loss raised IndexError: a smaller batch", "line 17)"]),
        "net": ("model=failing.Net", ["forward raised RuntimeError: ", "mat1 and mat2", "line 25)"]),
        "step": ("optimizer=failing.Step", ["step raised KeyError: 'gone'", "line 34)"]),
    }.values(),
)
def test_in_the_middle_of_a_run(word, texts):
    with pytest.raises(dlrun.UserError) as error:
        dlrun.train(*WORDS, word)
    said = str(error.value)
    assert all(text in said for text in texts) and error.value.exit_code == 1, said
    assert dlrun.load("run").status == "failed"
    if "schedule" not in word:
        assert "the whole traceback is in run/run.log" in said and "Traceback" in Path("run/run.log").read_text()


@pytest.mark.parametrize(
    ("word", "wrong", "text"),
    [
        ("task.loss=failing.loss", "None", r"returned NoneType\n  expected a loss of outputs \(\d+, 10\)"),
        ("task.loss=failing.loss", "1.0", "returned float"),
        ("task.loss=failing.loss", "losses.detach()", r"\(\d+,\) that does not depend on the outputs"),
        ("task.loss=failing.loss", "losses[:, None]", r"returned a tensor of shape \(\d+, 1\)"),
        ("data.augment=[failing.change]", "None", r"returned NoneType\n  expected torch.float32 \(\d+, 1, 8, 8\)"),
        ("data.augment=[failing.change]", "x[:, :, 1:]", r"returned torch.float32 \(\d+, 1, 7, 8\)"),
        ("data.augment=[failing.change]", "x[1:]", r"returned torch.float32"),
        ("data.augment=[failing.change]", "x.half()", r"returned torch.float16"),
        ("model=failing.Net", "None", r"failing.Net returned a NoneType\n  expected outputs \(\d+, 10\)"),
        ("model=failing.Net", "out[:, :5]", r"failing.Net returned a tensor \(\d+, 5\)"),
        ("model=failing.Net", "out[1:]", r"failing.Net returned a tensor \(\d+, 10\)"),
        ("task.loss=failing.loss", "exit(3)", "failing.loss raised SystemExit: 3 "),
    ],
)
def test_wrong_results_in_the_middle_of_a_run(word, wrong, text, code):
    code.write_text(WRONG.replace("WRONG", wrong))
    with pytest.raises(dlrun.UserError, match=text) as error:
        dlrun.train(*WORDS, word, "trainer.epochs=5", "data.batch_size=300")
    assert error.value.exit_code == 1 and word.split("=")[1].strip("[]") in str(error.value)
    assert dlrun.load("run").status == "failed"


def test_errors_of_others_stay_as_they_are():
    for error in (ValueError("a bug"), dlrun.UserError("said"), MemoryError()):
        with pytest.raises(type(error)) as raised, own_failures():
            raise error
        assert raised.value is error


@pytest.mark.parametrize(("name", "why"), [("LBFGS", "closure"), ("SparseAdam", "does not support dense gradients")])
def test_optimizers_of_torch_that_cannot_step_are_refused_before_data_is_read(name, why, monkeypatch):
    from dlrun.data.images.images import Images

    monkeypatch.setattr(Images, "load", lambda *a, **k: pytest.fail("data was read"))
    with pytest.raises(dlrun.UserError, match=f"{name} raised .*{why}.*\n  expected .* needs no closure") as error:
        dlrun.train(*WORDS, f"optimizer=torch.optim.{name}")
    assert error.value.exit_code == 2 and not Path("run").exists()


def test_optimizers_of_torch_from_its_private_modules_may_be_named():
    run = dlrun.train(*WORDS[:-1], "trainer.max_steps=2", "optimizer=torch.optim.Adafactor")
    assert run.config["optimizer"]["_target_"] == "torch.optim.Adafactor"
